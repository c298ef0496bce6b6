package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"replicator/sandbox"
)

// childVariable makes the test binary a replicator: its value is the command line, split at blanks.
const childVariable = "REPLICATOR_TEST_COMMAND"

func TestChild(t *testing.T) {
	line := os.Getenv(childVariable)
	if line == "" {
		return // not a child of another test
	}
	os.Exit(execute(context.Background(), strings.Fields(line), os.Stdout, os.Stderr))
}

// unreachableMesh is a configuration of two servers that nobody can reach, and the address of the process's HTTP server.
func unreachableMesh(t *testing.T) (path, listen string) {
	t.Helper()
	listen = sandbox.AddressTest(t)
	text := fmt.Sprintf(`mesh: shop
servers:
  east: {endpoints: ["%s"], user: u, password: p}
  west: {endpoints: ["%s"], user: u, password: p}
http: {listen: "%s"}
state_dir: %s
log: {format: json}
`, sandbox.AddressTest(t), sandbox.AddressTest(t), listen, filepath.Join(t.TempDir(), "state"))
	path = filepath.Join(t.TempDir(), "replicator.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, listen
}

// edited copies a configuration with one text replaced by another.
func edited(t *testing.T, path, old, replacement string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "edited.yaml")
	if err := os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(replacement), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitThat asks until f says yes. It is patient: the machine may be a slow one, and busy.
func awaitThat(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// startProcess starts a replicator process and waits until it answers.
func startProcess(t *testing.T, path string) (process *exec.Cmd, logs *bytes.Buffer) {
	t.Helper()
	process = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	process.Env = append(os.Environ(), childVariable+"=run --config "+path)
	logs = &bytes.Buffer{}
	process.Stderr, process.Stdout = logs, logs
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	awaitThat(t, "the process to answer", func() bool {
		code, _, _ := command(t, "health", "--config", path)
		return code == exitDone
	})
	return process, logs
}

func TestProcessWithoutReachableServers(t *testing.T) {
	path, _ := unreachableMesh(t)
	process, logs := startProcess(t, path)

	awaitThat(t, "the links to be tried again", func() bool {
		_, out, _ := command(t, "status", "--config", path)
		return strings.Contains(out, "retrying")
	})
	code, out, errs := command(t, "status", "--healthy", "--config", path)
	if code != exitNo || errs != "" {
		t.Errorf("status --healthy: exit %d, stderr %q", code, errs)
	}
	for _, want := range []string{"mesh shop", "told by process", "unreachable", "east -> west", "class:   network", "remedy:  "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if code, out, _ := command(t, "status", "--json", "--config", path); code != exitDone || !strings.Contains(out, `"source": "process"`) {
		t.Errorf("status --json: exit %d\n%s", code, out)
	}
	if code, out, errs := command(t, "link", "resume", "east", "west", "--config", path); code != exitDone || out != "link east -> west is tried again now\n" {
		t.Errorf("link resume: exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := command(t, "link", "resume", "east", "north", "--config", path); code != exitUsage || !strings.Contains(errs, "remedy: ") {
		t.Errorf("resuming a link that is not there: exit %d, %s", code, errs)
	}

	if code, _, errs := command(t, "run", "--config", path); code != exitFailed || !strings.Contains(errs, "another process uses the state directory") {
		t.Errorf("a second process in the same state_dir: exit %d, %s", code, errs)
	}
	elsewhere := edited(t, path, "state_dir: ", "state_dir: "+t.TempDir()+" #")
	if code, _, errs := command(t, "run", "--config", elsewhere); code != exitFailed || !strings.Contains(errs, "http.listen") {
		t.Errorf("a second process on the same address: exit %d, %s", code, errs)
	}

	asked := time.Now()
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Errorf("SIGTERM ends the process with %v:\n%s", err, logs)
	}
	if took := time.Since(asked); took > 10*time.Second {
		t.Errorf("a clean stop took %s", took)
	}
	if !strings.Contains(logs.String(), `"level":"warn"`) || !strings.Contains(logs.String(), `"remedy":`) {
		t.Errorf("the log has no JSON warning with a remedy:\n%s", logs)
	}
}

// A request that never ends keeps a clean stop waiting for a moment: time enough for the second signal.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	path, listen := unreachableMesh(t)
	process, logs := startProcess(t, path)
	request, err := new(net.Dialer).DialContext(t.Context(), "tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = request.Close() }()
	if _, err := request.Write([]byte("GET /healthz HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	tick := time.NewTicker(time.Second) // the first signal waits three seconds for the request, once it is accepted
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
				t.Errorf("the process ended with %v, not by the second signal:\n%s", err, logs)
			}
			return
		case <-tick.C:
			if err := process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		}
	}
}

func TestWithoutProcess(t *testing.T) {
	path, listen := unreachableMesh(t)
	code, out, errs := command(t, "status", "--json", "--config", path)
	if code != exitDone || !strings.Contains(out, `"source": "tables"`) || !strings.Contains(out, `"reachable": false`) {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	if !strings.Contains(errs, listen) || !strings.Contains(errs, "read from the servers") {
		t.Errorf("status does not say why it asks the servers: %s", errs)
	}
	if code, _, _ := command(t, "status", "--healthy", "--config", path); code != exitNo {
		t.Errorf("status --healthy: exit %d", code)
	}
	if code, _, errs := command(t, "health", "--config", path); code != exitFailed || !strings.Contains(errs, "replicator run") {
		t.Errorf("health: exit %d, %s", code, errs)
	}
	if code, _, errs := command(t, "link", "resume", "east", "west", "--config", path); code != exitFailed || !strings.Contains(errs, "replicator run") {
		t.Errorf("link resume: exit %d, %s", code, errs)
	}
}

func TestStatusOfAnotherMeshIsNotShown(t *testing.T) {
	path, _ := unreachableMesh(t)
	process, _ := startProcess(t, path)
	other := edited(t, path, "mesh: shop", "mesh: depot")
	_, out, errs := command(t, "status", "--config", other)
	if !strings.Contains(out, "mesh depot") || !strings.Contains(errs, `serves the mesh "shop"`) {
		t.Errorf("%s%s", out, errs)
	}
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Error(err)
	}
}

func TestExitCodesOfUse(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"run", "--config", missing}},
		{exitUsage, []string{"run", "extra"}},
		{exitUsage, []string{"status", "--watch", "--healthy"}},
		{exitUsage, []string{"status", "--unknown"}},
		{exitUsage, []string{"link"}},
		{exitUsage, []string{"link", "resume", "east"}},
		{exitFailed, []string{"health", "--config", missing}},
	} {
		code, out, errs := command(t, c.args...)
		if code != c.code || errs == "" || out != "" {
			t.Errorf("%q: exit %d, want %d; stdout %q, stderr %q", c.args, code, c.code, out, errs)
		}
	}
}

func TestWatchDrawsUntilInterrupted(t *testing.T) {
	path, _ := unreachableMesh(t)
	process, _ := startProcess(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &drawings{after: 2, enough: cancel}
	var errs bytes.Buffer
	if code := execute(ctx, []string{"status", "--watch", "--config", path}, out, &errs); code != exitDone {
		t.Errorf("exit %d, %s", code, &errs)
	}
	if n := strings.Count(out.text.String(), "mesh shop at "); n < 2 {
		t.Errorf("%d drawings:\n%s", n, &out.text)
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // it was killed
}

// drawings counts what is written and calls enough.
type drawings struct {
	text   bytes.Buffer
	after  int
	enough func()
}

func (d *drawings) Write(b []byte) (int, error) {
	if d.after--; d.after == 0 {
		d.enough()
	}
	return d.text.Write(b)
}

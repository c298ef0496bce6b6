package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoLines are what the demo ends with.
var demoLines = regexp.MustCompile(`^tables equal: 12 of 12 on 3 servers
changes: (\d+) acknowledged, (\d+) on every server; (\d+) rows lost a conflict
link east-west: cut (\d+\.\d) s, caught up in \d+\.\d s
DEMO PASSED in \d+ s
$`)

func TestDemo(t *testing.T) {
	d := startDemo(t)
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("the demo ended with %v:\n%s\n%s", err, d.out.String(), d.progress.tail(60))
	}
	checkDemo(t, d.out.String())
	d.nothingLeft(t)
}

func TestDemoKeepsRunning(t *testing.T) {
	d := startDemo(t, "--keep", "--flavors=mysql-9.7,mariadb-11.8,mariadb-10.11")
	status := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/api/v1/status`)
	await(t, 2*time.Minute, func() error {
		if n := len(status.FindAllString(d.progress.String(), -1)); n != 3 {
			return fmt.Errorf("%d of 3 HTTP addresses are told", n)
		}
		return nil
	})
	for _, found := range status.FindAllStringSubmatch(d.progress.String(), -1) {
		s, err := (&cluster{listen: found[1]}).status()
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Links) != 2 {
			t.Errorf("the process at %s has %d links, want 2", found[1], len(s.Links))
		}
	}
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("after an interrupt the demo ended with %v:\n%s\n%s", err, d.out.String(), d.progress.tail(60))
	}
	checkDemo(t, d.out.String())
	d.nothingLeft(t)
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	d := startDemo(t, "--flavors=mariadb-11.8")
	await(t, 2*time.Minute, func() error {
		if !strings.Contains(d.progress.String(), "link east-west is cut") {
			return fmt.Errorf("the link is not cut yet")
		}
		return nil
	})
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err == nil || d.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("an interrupted demo ended with %v, want exit code 1", err)
	}
	d.nothingLeft(t)
}

func checkDemo(t *testing.T, out string) {
	t.Helper()
	found := demoLines.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("the demo ended with\n%s", out)
	}
	if found[1] != found[2] || found[1] == "0" {
		t.Errorf("%s changes were acknowledged, %s arrived", found[1], found[2])
	}
	if found[3] == "0" {
		t.Error("no row lost a conflict: the demo showed none")
	}
	if cut, err := strconv.ParseFloat(found[4], 64); err != nil || cut < 5 {
		t.Errorf("the link was cut for %s s, want at least 5.0", found[4])
	}
}

// demoRun is a demo in a temporary folder of its own.
type demoRun struct {
	cmd      *exec.Cmd
	dir      string
	out      bytes.Buffer
	progress *logBuffer
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	// Its name is short enough for a server's socket.
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &demoRun{dir: dir, progress: &logBuffer{}}
	ctx, cancel := context.WithTimeout(context.Background(), slowness*4*time.Minute)
	t.Cleanup(cancel)
	d.cmd = exec.CommandContext(ctx, build(t), append([]string{"demo"}, args...)...)
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.dir)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, d.progress
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

var listening = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// nothingLeft looks for what the demo may have left: processes of its folder, files in it, ports that it told of.
func (d *demoRun) nothingLeft(t *testing.T) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), d.dir) {
			t.Errorf("still running: %s", strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	for _, address := range listening.FindAllString(d.progress.String(), -1) {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close()
			t.Errorf("%s is still served", address)
		}
	}
	err = filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

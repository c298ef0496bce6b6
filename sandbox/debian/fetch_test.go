package debian

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// requireApt skips where packages cannot be fetched by design: on machines without apt.
func requireApt(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip(err)
	}
}

func TestFetchedProgramRunsInPlace(t *testing.T) {
	requireApt(t)
	root := filepath.Join(t.TempDir(), "tree")
	tree, err := Fetch(t.Context(), Selection{Suite: "trixie", Packages: []string{"grep"}}, root)
	if err != nil {
		t.Fatal(err)
	}
	cmd := tree.Command(t.Context(), "usr/bin/grep", "-c", "needle")
	cmd.Stdin = strings.NewReader("needle\nhay\nneedle\n")
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != "2" {
		t.Fatalf("grep: %q, %v", out, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(root), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFetchRefusesWhatDebianDidNotSign(t *testing.T) {
	requireApt(t)
	work := t.TempDir()
	a, err := newApt(t.Context(), work, "trixie")
	if err != nil {
		t.Fatal(err)
	}
	sources := filepath.Join(work, "sources.list")
	text, err := os.ReadFile(sources)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(work, "other.gpg") // a keyring without keys
	if err := os.WriteFile(keys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fields := strings.SplitAfterN(string(text), "]", 2)
	if err := os.WriteFile(sources, []byte("deb [signed-by="+keys+"]"+fields[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.run(t.Context(), "update"); err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Fatalf("an archive of another signer: %v", err)
	}
}

func TestFetchLeavesNothingWhenItFails(t *testing.T) {
	requireApt(t)
	dir := t.TempDir()
	_, err := Fetch(t.Context(), Selection{Suite: "trixie", Packages: []string{"no-such-package-here"}}, filepath.Join(dir, "tree"))
	if err == nil || !strings.Contains(err.Error(), "no-such-package-here") {
		t.Fatalf("fetch of an unknown package: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "tree.lock" {
			t.Errorf("%s is left behind", e.Name())
		}
	}
	if _, err := Open(filepath.Join(dir, "tree")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what was not fetched: %v", err)
	}
}

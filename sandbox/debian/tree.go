// Package debian fetches Debian packages into a folder of their own, without root, and runs programs from there in place.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// platform names a processor as Debian does: its architecture, its library folder, its program loader.
type platform struct{ arch, triplet, loader string }

var platforms = map[string]platform{
	"amd64": {arch: "amd64", triplet: "x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2"},
	"arm64": {arch: "arm64", triplet: "aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1"},
}

// Tree is an unpacked set of packages with everything they depend on, the C library and its loader included.
type Tree struct {
	Root      string // absolute
	loader    string
	libraries string // colon separated
}

// Open recognises a tree by its loader. It returns fs.ErrNotExist where there is none.
func Open(root string) (*Tree, error) {
	p, ok := platforms[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("open tree %s: processor %s: %w", root, runtime.GOARCH, errors.ErrUnsupported)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", root, err)
	}
	t := &Tree{Root: root}
	folders := []string{"usr/lib/" + p.triplet, "lib/" + p.triplet, "usr/lib/mysql/private"}
	for _, f := range folders {
		dir := filepath.Join(root, f)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if t.libraries != "" {
			t.libraries += ":"
		}
		t.libraries += dir
		loader := filepath.Join(dir, p.loader)
		if _, err := os.Stat(loader); err == nil && t.loader == "" {
			t.loader = loader
		}
	}
	if t.loader == "" {
		return nil, fmt.Errorf("open tree %s: no loader %s: %w", root, p.loader, fs.ErrNotExist)
	}
	return t, nil
}

// Path joins parts below the tree's root.
func (t *Tree) Path(parts ...string) string {
	return filepath.Join(append([]string{t.Root}, parts...)...)
}

// Command runs a program of the tree (a path below its root, such as "usr/sbin/mysqld") through the tree's own loader, so
// that neither root, chroot nor the machine's C library is needed.
func (t *Tree) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	// Package libraries are found by the path given here; a path from the environment would come before the tree's own.
	all := append([]string{"--library-path", t.libraries, t.Path(program)}, args...)
	cmd := exec.CommandContext(ctx, t.loader, all...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	return cmd
}

// Library is a path below the tree's folder of libraries.
func (t *Tree) Library(path string) string {
	return t.Path("usr/lib", platforms[runtime.GOARCH].triplet, path)
}

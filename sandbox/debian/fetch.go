package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"replicator/fault"
	"replicator/sandbox/once"
)

// Selection says what a tree is made of.
type Selection struct {
	Suite    string   // Debian's name of a release: "sid", "trixie", "bookworm"
	Packages []string // their dependencies come along, recommendations do not
}

// Fetch makes the tree root unless it is there. It needs apt-get, dpkg-deb, tar and Debian's keyring, but not root: apt
// gets a state, a cache and a list of sources of its own. Every package is checked against Debian's signatures. Callers in
// other processes wait for the one that fetches; root appears whole or not at all.
func Fetch(ctx context.Context, s Selection, root string) (*Tree, error) {
	if t, err := Open(root); err == nil {
		return t, nil
	}
	err := once.Dir(ctx, root, func(dir string) error { return fetch(ctx, s, dir) })
	if err != nil {
		return nil, fmt.Errorf("fetch %s from Debian %s: %w", strings.Join(s.Packages, ", "), s.Suite, err)
	}
	return Open(root)
}

// fetch fills an empty folder.
func fetch(ctx context.Context, s Selection, tree string) error {
	for _, tool := range []string{"apt-get", "apt-config", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fault.Wrap(err, fault.Precondition, "run this on Debian or Ubuntu", "this machine has no %s", tool)
		}
	}
	work, err := os.MkdirTemp(filepath.Dir(tree), ".apt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	a, err := newApt(ctx, work, s.Suite)
	if err != nil {
		return err
	}
	if err := a.run(ctx, "update"); err != nil {
		return err
	}
	if err := a.run(ctx, append([]string{"install", "--download-only"}, s.Packages...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(a.archives(), "*.deb"))
	if err != nil {
		return err
	}
	if err := layout(tree); err != nil {
		return err
	}
	for _, p := range packages {
		if err := unpack(ctx, p, tree); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(p), err)
		}
	}
	_, err = Open(tree)
	return err
}

// layout prepares the links of a merged /usr, which packages of every release since bookworm expect.
func layout(tree string) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(tree, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(tree, dir)); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(tree, "tmp"), 0o755)
}

// unpack adds the files of one package, manuals and translations left out, as files of the calling user.
func unpack(ctx context.Context, path, tree string) error {
	read := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", path)
	write := exec.CommandContext(ctx, "tar", "--extract", "--directory", tree, "--keep-directory-symlink", "--no-same-owner",
		"--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale")
	var complaints bytes.Buffer
	read.Stderr, write.Stderr = &complaints, &complaints
	pipe, err := read.StdoutPipe()
	if err != nil {
		return err
	}
	write.Stdin = pipe
	if err := read.Start(); err != nil {
		return err
	}
	if err := errors.Join(write.Run(), read.Wait()); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return nil
}

// apt is an apt-get with nothing of the machine's but its proxy settings.
type apt struct{ dir string }

func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	a := &apt{dir: dir}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	keys, err := keyring(ctx, dir)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keys, mirror(os.DirFS("/etc/apt")), suite)
	files := map[string]string{"sources.list": source, "status": "", "apt.conf": a.config(machineProxies(ctx))}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *apt) archives() string { return filepath.Join(a.dir, "cache", "archives") }

// config keeps apt away from the machine's own settings, hooks and locks. An empty status file makes it resolve every
// dependency. The dates of suites are not checked: mirrors and snapshots of sid are often past theirs, and signatures say
// where the packages come from.
func (a *apt) config(extra string) string {
	settings := []struct{ key, value string }{
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", a.dir + "/empty"},
		{"Dir::Etc::sourcelist", a.dir + "/sources.list"},
		{"Dir::Etc::sourceparts", "/dev/null"},
		{"Dir::Etc::preferences", "/dev/null"},
		{"Dir::Etc::preferencesparts", a.dir + "/empty"},
		{"Dir::Etc::trusted", "/dev/null"},
		{"Dir::Etc::trustedparts", a.dir + "/empty"},
		{"Dir::State", a.dir + "/state"},
		{"Dir::State::status", a.dir + "/status"},
		{"Dir::Cache", a.dir + "/cache"},
		{"Dir::Log", a.dir},
		{"Debug::NoLocking", "true"},
		{"APT::Architecture", platforms[runtime.GOARCH].arch},
		{"APT::Architectures", platforms[runtime.GOARCH].arch},
		{"APT::Install-Recommends", "false"},
		{"APT::Sandbox::User", "root"}, // the folders are the caller's: another user could not read them
		{"APT::Update::Error-Mode", "any"},
		{"Acquire::Check-Valid-Until", "false"},
		{"Acquire::Check-Date", "false"},
		{"Acquire::Languages", "none"},
		{"Acquire::Retries", "3"},
	}
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%s %q;\n", s.key, s.value)
	}
	return b.String() + extra
}

func (a *apt) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-y"}, args...)...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.dir+"/apt.conf", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(err, fault.Network, "make a Debian mirror reachable (a proxy belongs into apt's own settings)",
		"apt-get %s: %s", args[0], complaint(out))
}

// complaint keeps the lines of apt's output that say what went wrong.
func complaint(out []byte) string {
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "Err:") || strings.HasPrefix(line, "W:") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines[:min(len(lines), 4)], "; ")
}

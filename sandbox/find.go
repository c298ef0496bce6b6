package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"replicator/fault"
	"replicator/sandbox/debian"
)

// installation is a server program that can run on this machine.
type installation struct {
	flavor  Flavor
	program string       // absolute, or below the tree's root
	tree    *debian.Tree // nil: the machine's own
}

// command runs the server program.
func (i installation) command(ctx context.Context, args ...string) *exec.Cmd {
	if i.tree == nil {
		return exec.CommandContext(ctx, i.program, args...)
	}
	return i.tree.Command(ctx, i.program, args...)
}

// base are the options that tell a server of a tree where it is; one installed on the machine knows.
func (i installation) base() []string {
	args := []string{"--no-defaults"}
	if i.tree != nil {
		args = append(args, "--basedir="+i.tree.Path("usr"), "--lc-messages-dir="+i.share(), "--plugin-dir="+i.plugins(),
			"--character-sets-dir="+filepath.Join(i.share(), "charsets"))
	}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	return args
}

// share is the folder of messages, character sets and MariaDB's bootstrap scripts.
func (i installation) share() string {
	root := "/"
	if i.tree != nil {
		root = i.tree.Root
	}
	if dir := filepath.Join(root, "usr/share/mariadb"); i.flavor.MariaDB() && isDir(dir) {
		return dir
	}
	return filepath.Join(root, "usr/share/mysql")
}

// plugins is the plugin folder; some packages bring none, and a server refuses an option without a value.
func (i installation) plugins() string { return i.tree.Path("usr/lib/mysql/plugin") }

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// homes are the private folders in which trees are looked for, in order of preference: REPLICATOR_SERVERS alone where it is
// set; else .servers at the root of this module where the caller is inside it, and the user's cache.
func homes() []string {
	if dir := os.Getenv("REPLICATOR_SERVERS"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return []string{abs}
		}
		return []string{dir}
	}
	var dirs []string
	if root, ok := moduleRoot(); ok {
		dirs = append(dirs, filepath.Join(root, ".servers"))
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "replicator", "servers"))
	}
	return append(dirs, filepath.Join(os.TempDir(), fmt.Sprintf("replicator-servers-%d", os.Getuid())))
}

// moduleRoot looks upwards from the working directory for this module's go.mod.
func moduleRoot() (string, bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for ; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module replicator\n") {
			return dir, true
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}

// writableHome is the first of the homes that this user can write to.
func writableHome() (string, error) {
	var errs []error
	for _, dir := range homes() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		probe, err := os.CreateTemp(dir, ".probe-")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return dir, errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	return "", fault.Wrap(errors.Join(errs...), fault.Configuration, "set REPLICATOR_SERVERS to a folder of yours",
		"no folder can be written to")
}

// installed lists the servers that the machine's administrator installed.
var installed = sync.OnceValue(func() []installation {
	var found []installation
	names := []string{"mysqld", "mariadbd", "/usr/sbin/mysqld", "/usr/sbin/mariadbd", "/usr/local/sbin/mysqld"}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(context.Background(), path, "--no-defaults", "--version").Output()
		if err != nil {
			continue
		}
		flavor, err := flavorOf(string(out))
		if err != nil || slices.ContainsFunc(found, func(i installation) bool { return i.flavor == flavor }) {
			continue
		}
		found = append(found, installation{flavor: flavor, program: path})
	}
	return found
})

// Installed lists the flavors of the servers that are installed on this machine, usable without fetching anything.
func Installed() []Flavor {
	var flavors []Flavor
	for _, i := range installed() {
		flavors = append(flavors, i.flavor)
	}
	return flavors
}

// candidates are the ways to get a server of a flavor, in the order in which they are tried: the machine's own, a tree that
// is there, a tree that is fetched.
func candidates(f Flavor) []func(context.Context) (installation, error) {
	var ways []func(context.Context) (installation, error)
	for _, i := range installed() {
		if i.flavor == f {
			ways = append(ways, func(context.Context) (installation, error) { return i, nil })
		}
	}
	return append(ways, func(ctx context.Context) (installation, error) {
		tree, err := serverTree(ctx, f)
		if err != nil {
			return installation{}, err
		}
		program := "usr/sbin/mysqld"
		if f.MariaDB() {
			program = "usr/sbin/mariadbd"
		}
		return installation{flavor: f, program: program, tree: tree}, nil
	})
}

// serverTree finds the flavor's tree in one of the homes, or fetches it.
func serverTree(ctx context.Context, f Flavor) (*debian.Tree, error) {
	s, ok := selections[f]
	if !ok {
		return nil, fault.New(fault.Configuration, "use one of "+fmt.Sprint(Flavors), "%s cannot be fetched", f)
	}
	return treeOf(ctx, string(f), s)
}

func treeOf(ctx context.Context, name string, s debian.Selection) (*debian.Tree, error) {
	for _, home := range homes() {
		if tree, err := debian.Open(filepath.Join(home, name)); err == nil {
			return tree, nil
		}
	}
	home, err := writableHome()
	if err != nil {
		return nil, err
	}
	return debian.Fetch(ctx, s, filepath.Join(home, name))
}

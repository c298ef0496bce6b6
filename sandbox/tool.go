package sandbox

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"replicator/sandbox/debian"
)

// toolTree has what people copy and compare servers with.
var toolTree = debian.Selection{Suite: "bookworm", Packages: []string{"mydumper", "mariadb-client", "percona-toolkit"}}

// Tool prepares a run of mydumper, myloader, mariadb, mariadb-dump or one of the Percona toolkit's programs, which are
// fetched from Debian without root. Benchmarks compare with them.
func Tool(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	tree, err := treeOf(ctx, "tools", toolTree)
	if err != nil {
		return nil, err
	}
	path := filepath.Join("usr/bin", program)
	if _, err := os.Stat(tree.Path(path)); err != nil {
		return nil, fmt.Errorf("find %s among the tools: %w", program, err)
	}
	if strings.HasPrefix(program, "pt-") {
		return perl(ctx, tree, path, args)
	}
	cmd := tree.Command(ctx, path, args...)
	cmd.Env = append(cmd.Env, "MARIADB_PLUGIN_DIR="+tree.Library("libmariadb3/plugin"))
	return cmd, nil
}

// perl runs a script with the tree's own interpreter and modules.
func perl(ctx context.Context, tree *debian.Tree, script string, args []string) (*exec.Cmd, error) {
	var folders []string
	for _, pattern := range []string{"usr/share/perl5", "usr/lib/*/perl5/*", "usr/share/perl/*", "usr/lib/*/perl/*", "usr/lib/*/perl-base"} {
		found, err := fs.Glob(os.DirFS(tree.Root), pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			folders = append(folders, tree.Path(f))
		}
	}
	cmd := tree.Command(ctx, "usr/bin/perl", append([]string{tree.Path(script)}, args...)...)
	cmd.Env = append(cmd.Env, "PERL5LIB="+strings.Join(folders, ":"), "MARIADB_PLUGIN_DIR="+tree.Library("libmariadb3/plugin"))
	return cmd, nil
}

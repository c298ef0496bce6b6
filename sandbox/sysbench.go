package sandbox

import (
	"context"
	"os/exec"
	"strconv"

	"replicator/sandbox/debian"
)

// sysbenchTree has plugins for every way of logging in that the flavors' servers ask for.
var sysbenchTree = debian.Selection{Suite: "trixie", Packages: []string{"sysbench"}}

// Sysbench prepares a run of sysbench against a database of the server, as root: the machine's own sysbench, or one fetched
// from Debian without root. A workload is one of its scripts, such as "oltp_write_only"; the arguments are further options
// and, last, the verb ("prepare", "run"). The caller starts the command, and bounds it by --time or --events.
func (s *Server) Sysbench(ctx context.Context, database, workload string, args ...string) (*exec.Cmd, error) {
	all := s.sysbenchArgs(database, args)
	if path, err := exec.LookPath("sysbench"); err == nil {
		return exec.CommandContext(ctx, path, append([]string{workload}, all...)...), nil
	}
	return s.fetchedSysbench(ctx, workload, all)
}

func (s *Server) sysbenchArgs(database string, more []string) []string {
	return append([]string{
		"--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-port=" + strconv.Itoa(s.Port()), "--mysql-user=root",
		"--mysql-password=" + s.password, "--mysql-db=" + database,
	}, more...)
}

func (s *Server) fetchedSysbench(ctx context.Context, workload string, args []string) (*exec.Cmd, error) {
	tree, err := treeOf(ctx, "sysbench", sysbenchTree)
	if err != nil {
		return nil, err
	}
	scripts := tree.Path("usr/share/sysbench")
	cmd := tree.Command(ctx, "usr/bin/sysbench", append([]string{scripts + "/" + workload + ".lua"}, args...)...)
	// Scripts load their common part by this path, and the client its plugins by that.
	cmd.Env = append(cmd.Env, "LUA_PATH="+scripts+"/?.lua;;", "MARIADB_PLUGIN_DIR="+tree.Library("libmariadb3/plugin"))
	return cmd, nil
}

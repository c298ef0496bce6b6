package sandbox

import (
	"context"
	"os/exec"
	"path/filepath"
)

// Sweep is what the first server of a process does.
func Sweep() {
	if run, err := runFolder(); err == nil {
		sweep(filepath.Dir(run))
	}
}

// FetchedSysbench is Sysbench on a machine that has none.
func (s *Server) FetchedSysbench(ctx context.Context, database, workload string, args ...string) (*exec.Cmd, error) {
	return s.fetchedSysbench(ctx, workload, s.sysbenchArgs(database, args))
}

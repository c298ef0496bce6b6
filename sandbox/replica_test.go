package sandbox_test

import (
	"testing"

	"replicator/sandbox"
)

func TestNativeReplica(t *testing.T) {
	eachFlavor(t, sandbox.Options{}, func(t *testing.T, source *sandbox.Server) {
		replica := sandbox.StartTest(t, sandbox.Options{Flavor: source.Flavor(), Name: "replica"})
		write(t, source, 1)
		must(t, replica.ReplicateFrom(t.Context(), source, 4))
		write(t, source, 2)
		must(t, replica.AwaitReplica(t.Context(), source))
		if n := count(t, replica); n != 2 {
			t.Errorf("%d rows on the replica, want 2", n)
		}
		must(t, replica.StopReplication(t.Context()))
	})
}

func TestAwaitReplicaTellsItsError(t *testing.T) {
	source := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	replica := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	write(t, replica, 1)
	must(t, replica.ReplicateFrom(t.Context(), source, 0))
	write(t, source, 1)
	if err := replica.AwaitReplica(t.Context(), source); err == nil {
		t.Error("the replica has a row that its source inserts, and no error")
	}
}

func TestSysbench(t *testing.T) {
	eachFlavor(t, sandbox.Options{}, func(t *testing.T, s *sandbox.Server) {
		_, err := s.DB().ExecContext(t.Context(), "CREATE DATABASE sb")
		must(t, err)
		for _, verb := range []string{"prepare", "run"} {
			cmd, err := s.FetchedSysbench(t.Context(), "sb", "oltp_write_only", "--tables=1", "--table-size=100", "--events=20", verb)
			must(t, err)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sysbench %s: %v\n%s", verb, err, out)
			}
		}
		var rows int
		must(t, s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sb.sbtest1").Scan(&rows))
		if rows != 100 {
			t.Errorf("%d rows, want 100", rows)
		}
	})
}

package api

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"replicator/change"
	"replicator/fault"
	"replicator/journal"
	"replicator/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// steady is a mesh in one state, which notes what it is asked to do.
type steady struct {
	status mesh.Status

	mu      sync.Mutex
	resumed []string

	journals []journal.Server
}

// sums are the columns whose changes add up.
func sums(change.TableName) []string { return []string{"n"} }

func (s *steady) Journals() []journal.Server { return s.journals }

func (s *steady) Status(context.Context) mesh.Status { return s.status }

func (s *steady) Resume(from, to string) error {
	if from == "fenced" {
		return fault.New(fault.Fenced, "stop the other process", "another process applies to %s", to)
	}
	for _, l := range s.status.Links {
		if l.From == from && l.To == to {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.resumed = append(s.resumed, from+" "+to)
			return nil
		}
	}
	return fault.New(fault.Configuration, "see `replicator status` for the links there are", "there is no link from %q to %q", from, to)
}

func at(second int) mesh.Timestamp {
	return mesh.Timestamp(time.Date(2026, 3, 1, 10, 0, second, 123456000, time.UTC))
}

// troubled has a link in every state: east and west are well, north is down.
func troubled() mesh.Status {
	down := &mesh.Fault{
		Class: string(fault.Network), Message: "connect to north: dial tcp 192.0.2.7:3306: i/o timeout",
		Remedy: "start the server, or correct servers.north.endpoints", Since: at(0),
	}
	definition := &mesh.Fault{
		Class:   string(fault.Definition),
		Message: "table shop.\x1b[31mstock\x1b[0m\non west: column 2 is int here and bigint there",
		Remedy:  "make the definitions equal, then `replicator link resume east west`", Since: at(5),
	}
	return mesh.Status{
		Mesh: "shop", Time: at(42), Source: "process",
		Processes: []mesh.ProcessStatus{{ID: "7f3a", Host: "hub-1", Site: "hq", State: "running"}},
		Servers: []mesh.ServerStatus{
			{
				Name: "east", ID: new("0123456789abcdef"), Flavor: new("mysql"), Version: new("9.7.4"), Endpoint: "db-east:3306",
				Reachable: new(true), Owner: new("7f3a"), ClockSkewSeconds: new(0.0021), Compression: mesh.CompressionStatus{Reader: new("zstd"), Apply: new("zlib")},
				Index: &mesh.IndexStatus{Entries: 1200, Bytes: 57600, Spilled: 7},
			},
			{
				Name: "west", ID: new("fedcba9876543210"), Flavor: new("mariadb"), Version: new("11.8.9"), Endpoint: "db-west:3306",
				Reachable: new(true), Owner: new("7f3a"), ClockSkewSeconds: new(-1.5), Compression: mesh.CompressionStatus{Reader: new("none"), Apply: new("none")},
			},
			{Name: "north", Endpoint: "192.0.2.7:3306", Reachable: new(false), Error: down},
		},
		Links: []mesh.LinkStatus{
			{
				From: "east", To: "west", State: mesh.Stopped, LagSeconds: new(37.25), Transactions: new(int64(120)),
				Rows: new(int64(480)), LostRows: new(int64(0)), OverwrittenRows: new(int64(0)), SupersededRows: new(int64(0)),
				RowsPerSecond: new(0.0), Retries: new(int64(2)), Error: definition,
			},
			{
				From: "west", To: "east", State: mesh.Running, LagSeconds: new(0.0), Seq: new(uint64(1) << 63),
				Position: new("0-1-100"), Transactions: new(int64(9007199254740993)), Rows: new(int64(9007199254740994)),
				LostRows: new(int64(3)), OverwrittenRows: new(int64(2)), SupersededRows: new(int64(1)),
				RowsPerSecond: new(1234.56), Retries: new(int64(0)),
			},
			{From: "east", To: "north", State: mesh.Retrying, Retries: new(int64(7)), Error: down},
			{From: "north", To: "east", State: mesh.Starting},
			{From: "west", To: "north", State: mesh.Standby},
			{From: "north", To: "west", State: mesh.CatchingUp, LagSeconds: new(12.0)},
		},
		Tables: []mesh.TableStatus{
			{Table: "shop.stock", From: "east", To: "west", Path: "portable", Reason: "MySQL to MariaDB"},
			{Table: "shop.stock", From: "west", To: "east", Path: "portable", Reason: "MariaDB to MySQL"},
			{Table: "shop.photo", From: "east", To: "west", Path: "portable", Reason: "MySQL to MariaDB", VerifiedAt: new(at(3)), VerifiedEqual: new(true)},
			{Table: "shop.seldom", VerifiedAt: new(at(4)), VerifiedEqual: new(false)},
		},
		Conflicts: mesh.ConflictStatus{Total: new(int64(5))},
	}
}

// healthy is a mesh of two with nothing to complain about.
func healthy() mesh.Status {
	s := troubled()
	s.Servers = s.Servers[:2]
	s.Links = s.Links[:2]
	s.Links[0].State, s.Links[0].Error, s.Links[0].LagSeconds = mesh.CatchingUp, nil, new(4.5)
	s.Tables = nil
	s.Conflicts = mesh.ConflictStatus{}
	s.Servers[0].ClockSkewSeconds = new(-0.0001)
	return s
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", name, got, want)
	}
}

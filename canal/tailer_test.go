package canal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"replicator/canal"
	"replicator/change"
	"replicator/fault"
	"replicator/image"
	"replicator/sandbox"
)

// flatten prints the rows of a transaction: kind, table and values.
func flatten(t *testing.T, tx *change.Transaction) []string {
	t.Helper()
	var out []string
	if tx.Body == nil {
		return nil
	}
	err := tx.Body.Each(func(ev *change.RowsEvent) error {
		for _, r := range ev.Rows {
			line := ev.Kind.String() + " " + ev.Table.Name.Table
			for _, img := range [][]byte{ev.Before(r), ev.After(r)} {
				if img == nil {
					continue
				}
				values, err := image.Values(ev.Table, img)
				if err != nil {
					return err
				}
				for _, v := range values {
					line += fmt.Sprintf(" %v", v.Int)
				}
			}
			out = append(out, line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReadsTransactionsWhole(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		start := s.start(t)
		s.exec(t,
			"CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)",
			"CREATE TABLE "+db+".skip_me (id INT PRIMARY KEY)",
			"INSERT INTO "+db+".t VALUES (1,10),(2,20)",
			"BEGIN", "UPDATE "+db+".t SET v=11 WHERE id=1", "SAVEPOINT a", "DELETE FROM "+db+".t WHERE id=2",
			"ROLLBACK TO a", "INSERT INTO "+db+".skip_me VALUES (1)", "UPDATE "+db+".t SET id=3 WHERE id=2", "COMMIT",
			"INSERT INTO "+db+".skip_me VALUES (2)",
			"TRUNCATE "+db+".t",
		)
		txs := s.mustRead(t, s.options(t, db), start)

		var kinds []string
		for _, tx := range txs {
			kinds = append(kinds, tx.Kind.String())
			start.Position.Add(tx.GTID)
		}
		want := []string{"definition", "passive", "local", "local", "passive", "definition"}
		if !slices.Equal(kinds, want) {
			t.Fatalf("kinds are %v, want %v", kinds, want)
		}
		if got, want := start.Position.String(), s.position(t).String(); got != want {
			t.Errorf("the GTIDs add up to %s, the server says %s", got, want)
		}
		if got, want := txs[5].End, s.end(t); got != want {
			t.Errorf("the last transaction ends at %s, the server says %s", got, want)
		}
		if got, want := flatten(t, txs[2]), []string{"insert t 1 10", "insert t 2 20"}; !slices.Equal(got, want) {
			t.Errorf("the insert reads %v, want %v", got, want)
		}
		if got, want := flatten(t, txs[3]), []string{"update t 1 10 1 11", "update t 2 20 3 20"}; !slices.Equal(got, want) {
			t.Errorf("the update reads %v, want %v", got, want)
		}
		if !txs[5].Statement.Destructive || txs[0].Statement.Destructive {
			t.Error("TRUNCATE must be destructive, CREATE TABLE must not")
		}
		for i, tx := range txs {
			if tx.Stamp.Version.Origin != s.identity || i > 0 && tx.Stamp.Version.Compare(txs[i-1].Stamp.Version) <= 0 {
				t.Errorf("version %d is %s, not above the one before", i, tx.Stamp.Version)
			}
			if tx.Clock.Time != tx.Stamp.Version.Time {
				t.Errorf("clock %d is %s, the version %s", i, tx.Clock.Time, tx.Stamp.Version)
			}
		}
	})
}

func TestReadsCompressedTransactions(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)")
		start := s.start(t)
		load := []string{
			"BEGIN", "INSERT INTO " + db + ".t SELECT seq, seq FROM (" + numbers(500) + ") n",
			"UPDATE " + db + ".t SET v=v+1 WHERE id<100", "DELETE FROM " + db + ".t WHERE id>400", "COMMIT",
			"CREATE TABLE " + db + ".after_" + strings.Repeat("x", 50) + " (id INT)",
		}
		if s.flavor == change.MariaDB {
			s.exec(t, "SET GLOBAL log_bin_compress=ON", "SET GLOBAL log_bin_compress_min_len=10")
			defer s.exec(t, "SET GLOBAL log_bin_compress=OFF")
		} else {
			load = append([]string{"SET SESSION binlog_transaction_compression=ON"}, load...)
		}
		s.exec(t, load...)
		txs := s.mustRead(t, s.options(t, db), start)
		if len(txs) != 2 || txs[0].Kind != change.Local || txs[1].Kind != change.Definition {
			t.Fatalf("got %d transactions", len(txs))
		}
		rows := flatten(t, txs[0])
		if len(rows) != 500+99+100 || rows[500] != "update t 1 1 1 2" {
			t.Errorf("got %d rows", len(rows))
		}
		if got, want := txs[1].End, s.end(t); got != want {
			t.Errorf("ends at %s, the server says %s", got, want)
		}
		replayable(t, txs[0])
	})
}

// replayable checks that the events agree with the format that a target is told.
func replayable(t *testing.T, tx *change.Transaction) {
	t.Helper()
	err := tx.Body.Each(func(ev *change.RowsEvent) error {
		before := slices.Clone(ev.Rows)
		if err := image.Split(ev, tx.Format.Checksum); err != nil {
			return err
		}
		if len(before) != len(ev.Rows) {
			return fmt.Errorf("%d rows became %d", len(before), len(ev.Rows))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// numbers is a query for seq = 1 to n.
func numbers(n int) string {
	return fmt.Sprintf("WITH RECURSIVE n AS (SELECT 1 AS seq UNION ALL SELECT seq+1 FROM n WHERE seq<%d) SELECT seq FROM n", n)
}

func TestReadsTaggedGTIDs(t *testing.T) {
	on(t, sandbox.MySQL97, func(t *testing.T, s *source, db string) {
		s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY)")
		start := s.start(t)
		s.exec(t,
			"INSERT INTO "+db+".t VALUES (1)",
			"SET gtid_next='AUTOMATIC:east'", "INSERT INTO "+db+".t VALUES (2)", "INSERT INTO "+db+".t VALUES (3)",
			"SET gtid_next='AUTOMATIC'", "INSERT INTO "+db+".t VALUES (4)",
		)
		txs := s.mustRead(t, s.options(t, db), start)
		var tags []string
		for i, tx := range txs {
			tags = append(tags, tx.GTID.Tag)
			start.Position.Add(tx.GTID)
			start.Clock = tx.Clock
			rest := s.mustRead(t, s.options(t, db), canal.Start{Position: start.Position.Clone(), Clock: tx.Clock})
			if len(rest) != len(txs)-i-1 {
				t.Errorf("behind transaction %d there are %d, want %d", i, len(rest), len(txs)-i-1)
			}
		}
		if want := []string{"", "east", "east", ""}; !slices.Equal(tags, want) {
			t.Errorf("tags are %q, want %q", tags, want)
		}
	})
}

// Hard case 39: readers that start at different positions compute equal versions, MariaDB's seconds included.
func TestClockIsTheSameForEveryReader(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		peer := change.NewServerID()
		start := s.start(t)
		s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)")
		for i := range 40 {
			s.exec(t, fmt.Sprintf("INSERT INTO %s.t VALUES (%d,0)", db, i))
			switch i % 10 {
			case 3:
				ahead := change.Time(0)
				if i > 20 { // a peer's clock is an hour ahead
					ahead = 3600e6
				}
				s.mark(t, peer, uint64(i+1), change.Clock{Time: change.Time(1e15 + int64(i))}, []change.ManifestEntry{{
					GTID:  change.GTID{Domain: 1, Server: 1, Number: uint64(i + 1)},
					Stamp: change.Stamp{Version: change.Version{Time: now() + ahead, Origin: peer}},
					Keys:  []change.Key{{1}},
				}}, db)
			case 7:
				s.beat(t, change.Context{}.With(peer, change.Time(2e15+int64(i))))
			}
		}
		all := s.mustRead(t, s.options(t, db), start)
		if len(all) < 48 {
			t.Fatalf("got %d transactions", len(all))
		}
		at := canal.Start{Position: start.Position.Clone()}
		for i, tx := range all {
			at.Position.Add(tx.GTID)
			at.Clock = tx.Clock
			if i%7 != 0 {
				continue
			}
			rest := s.mustRead(t, s.options(t, db), canal.Start{Position: at.Position.Clone(), Clock: at.Clock})
			if len(rest) != len(all)-i-1 {
				t.Fatalf("behind transaction %d there are %d, want %d", i, len(rest), len(all)-i-1)
			}
			for j, other := range rest {
				same := all[i+1+j]
				if other.GTID != same.GTID || other.Kind != same.Kind || other.Stamp.Version != same.Stamp.Version ||
					!other.Stamp.Context.Equal(same.Stamp.Context) || other.Clock.Time != same.Clock.Time ||
					!other.Clock.Context.Equal(same.Clock.Context) || other.End != same.End {
					t.Fatalf("a reader that starts behind %d sees %+v, the first one saw %+v", i, other, same)
				}
			}
		}
		last := all[len(all)-1]
		if last.Clock.Time < now()+3000e6 {
			t.Error("the clock was not raised by what the peer had sent")
		}
		if got := last.Stamp.Context.At(peer); got != 2e15+37 {
			t.Errorf("the context says %d of the peer", got)
		}
	})
}

func TestMarkersTagTransactions(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		peer := change.NewServerID()
		s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)", "CREATE TABLE "+db+".far (id INT PRIMARY KEY, v INT)")
		start := s.start(t)
		entry := change.ManifestEntry{
			GTID:  change.GTID{Domain: 7, Server: 8, Number: 9},
			Stamp: change.Stamp{Version: change.Version{Time: 12345, Origin: peer}},
			Keys:  make([]change.Key, 200_000), // several marker rows
		}
		h := runHub(t, s.options(t, db), func() canal.Start { return start })
		sub := h.Subscribe(start)
		defer sub.Close()
		s.mark(t, peer, 1, change.Clock{Time: 12345}, []change.ManifestEntry{entry}, db,
			"INSERT INTO "+db+".far VALUES (1,1)")
		s.exec(t, "INSERT INTO "+db+".t VALUES (1,1)")
		var tx *change.Transaction
		for tx = next(t, sub); tx.Kind != change.Replicated || tx.Marker.Seq == 1; tx = next(t, sub) {
		}
		if tx.Body != nil || tx.Rows != 0 || tx.Marker.Source != peer || tx.Marker.Manifest != nil || tx.Marker.Clock.Time != 12345 {
			t.Errorf("the link sees %+v", tx)
		}
		if !tx.Stamp.Version.IsZero() {
			t.Errorf("a replicated transaction has version %s", tx.Stamp.Version)
		}
		after := next(t, sub)
		if after.Kind != change.Local || after.Stamp.Context.At(peer) != 12345 {
			t.Errorf("behind it the link sees %+v", after)
		}
		h.stop()
		var fed *change.Transaction
		for _, tx := range h.feed.txs {
			if tx.Kind == change.Replicated && tx.Marker.Seq > 1 {
				fed = tx
			}
		}
		if fed == nil {
			t.Fatal("the feed did not get the transaction")
		}
		keys := 0
		for _, part := range fed.Marker.Manifest { // an entry comes in a part for each marker row
			if part.Stamp.Version != entry.Stamp.Version {
				t.Errorf("a part has version %s, want %s", part.Stamp.Version, entry.Stamp.Version)
			}
			keys += len(part.Keys)
		}
		if keys != 200_000 {
			t.Errorf("the feed got a manifest of %d keys, want 200000", keys)
		}
	})
}

func TestRefusesWhatFalsifiesReplication(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		mariadb := s.flavor == change.MariaDB
		for _, c := range []struct {
			name       string
			only       string
			class      fault.Class
			statements []string
			remedy     string
		}{
			{"statement", "", fault.UnknownEvent, []string{"SET SESSION binlog_format='STATEMENT'", "INSERT INTO %s.t VALUES (50,1)"}, "binlog_format=ROW"},
			{"rand", "", fault.UnknownEvent, []string{"SET SESSION binlog_format='STATEMENT'", "INSERT INTO %s.t VALUES (51,RAND()*10)"}, "binlog_format=ROW"},
			{"user variable", "", fault.UnknownEvent, []string{"SET SESSION binlog_format='STATEMENT'", "SET @a=5", "INSERT INTO %s.t VALUES (52,@a)"}, "binlog_format=ROW"},
			{"xa", "", fault.UnknownEvent, []string{"XA START 'x'", "INSERT INTO %s.t VALUES (53,1)", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"}, "ONE PHASE"},
			{"minimal image", "", fault.UnknownEvent, []string{"SET SESSION binlog_row_image='MINIMAL'", "UPDATE %s.t SET v=9 WHERE id=1"}, "binlog_row_image"},
			{"partial json", "mysql", fault.UnknownEvent, []string{"SET SESSION binlog_row_value_options='PARTIAL_JSON'", `UPDATE %s.j SET j=JSON_SET(j,'$.a',2)`}, "binlog_row_value_options"},
			{"create select", "", fault.UnknownEvent, []string{"CREATE TABLE %s.filled (PRIMARY KEY(id)) SELECT * FROM %[1]s.t"}, "INSERT ... SELECT"},
		} {
			if c.only == "mysql" && mariadb {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				db := database(t, s)
				s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)", "INSERT INTO "+db+".t VALUES (1,1)",
					"CREATE TABLE "+db+".j (id INT PRIMARY KEY, j JSON)",
					`INSERT INTO `+db+`.j VALUES (1,'{"a": 1, "filler": "`+strings.Repeat("x", 200)+`"}')`)
				start := s.start(t)
				var statements []string
				for _, statement := range c.statements {
					if strings.Contains(statement, "%") {
						statement = fmt.Sprintf(statement, db)
					}
					statements = append(statements, statement)
				}
				s.exec(t, statements...)
				txs, err := s.readTo(t, s.options(t, db), start)
				f, ok := fault.As(err)
				if !ok || f.Class != c.class || !strings.Contains(f.Remedy, c.remedy) {
					t.Fatalf("read %d transactions, then: %v", len(txs), err)
				}
				if len(local(txs)) > 0 {
					t.Error("a part of what was refused was yielded")
				}
			})
		}
	})
}

func TestPassesOverWhatIsHarmless(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT)", "INSERT INTO "+db+".t VALUES (1,1)")
		statements := []string{
			"XA START 'y'", "INSERT INTO " + db + ".t VALUES (60,1)", "XA END 'y'", "XA COMMIT 'y' ONE PHASE",
			"CREATE TEMPORARY TABLE " + db + ".tmp (id INT)", "INSERT INTO " + db + ".tmp VALUES (1)", "DROP TEMPORARY TABLE " + db + ".tmp",
			"CREATE USER u_" + db, "GRANT SELECT ON " + db + ".* TO u_" + db, "DROP USER u_" + db,
			"ANALYZE TABLE " + db + ".t", "FLUSH TABLES", "FLUSH BINARY LOGS",
			"CREATE TABLE " + db + ".skip_copy SELECT * FROM " + db + ".t",
		}
		want := 1
		if s.flavor == change.MariaDB {
			statements = append(statements,
				"CREATE SEQUENCE "+db+".skip_s", "DO NEXTVAL("+db+".skip_s)",
				"CREATE TABLE "+db+".skip_c (id INT PRIMARY KEY, v TEXT COMPRESSED)",
				"INSERT INTO "+db+".skip_c VALUES (1,REPEAT('x',1000))",
				"SET SESSION binlog_alter_two_phase=1", "ALTER TABLE "+db+".t ADD COLUMN w INT",
			)
			want++
		}
		statements = append(statements, "INSERT INTO "+db+".t (id,v) VALUES (61,1)")
		start := s.start(t)
		s.exec(t, statements...)
		txs := s.mustRead(t, s.options(t, db), start)
		if got := len(local(txs)); got != 2 {
			t.Errorf("got %d local transactions, want 2", got)
		}
		var definitions []string
		for _, tx := range txs {
			if tx.Kind == change.Definition {
				definitions = append(definitions, tx.Statement.Text)
			}
		}
		if len(definitions) != want-1 {
			t.Errorf("definitions: %q, want %d", definitions, want-1)
		}
		if p := txs[len(txs)-1].End; p != s.end(t) {
			t.Errorf("ends at %s, the server says %s", p, s.end(t))
		}
	})
}

package canal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"replicator/canal"
	"replicator/change"
	"replicator/sandbox"
)

// timed are the options of a reader in whose database table `log` is the change_log, and column `at` of every other table
// is the time of its changes.
func (s *source) timed(t *testing.T, db string) canal.Options {
	o := s.options(t, db)
	o.Times = canal.Times{
		Log: &canal.ChangeLog{
			Name:  change.TableName{Database: db, Table: "log"},
			Table: "table", Key: "record_id", User: "user_id", Time: "timestamp", Comment: "comment",
		},
		Column: func(n change.TableName) string {
			if n.Database == db && n.Table != "log" && n.Table != "plain" {
				return "AT"
			}
			return ""
		},
	}
	return o
}

// makeTimed makes the tables of timed.
func makeTimed(t *testing.T, s *source, db string) {
	t.Helper()
	s.exec(t,
		"CREATE TABLE "+db+".log (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, user_id BINARY(2), `table` VARCHAR(64) "+
			"CHARACTER SET utf8mb4, record_id INT, comment VARCHAR(200) CHARACTER SET latin1, timestamp TIMESTAMP(6) NULL)",
		"CREATE TABLE "+db+".t (id INT PRIMARY KEY, v INT, at DATETIME(3))",
		"CREATE TABLE "+db+".plain (id INT PRIMARY KEY, v INT)",
		"CREATE TABLE "+db+".text (id INT PRIMARY KEY, at VARCHAR(30))",
		"CREATE TABLE "+db+".skip_me (id INT PRIMARY KEY, at TIMESTAMP(6) NULL)",
	)
}

func utc(text string) change.Time {
	at, err := time.Parse("2006-01-02 15:04:05.999999", text)
	if err != nil {
		panic(err)
	}
	return change.TimeOf(at)
}

// TestPhysicalTime reads one transaction at a time, with a clock at zero that lifts nothing: its version is its physical
// time.
func TestPhysicalTime(t *testing.T) {
	const log = "INSERT INTO log (user_id, `table`, record_id, comment, timestamp) VALUES "
	commit := change.Time(-1)
	for _, c := range []struct {
		name       string
		statements []string
		want       change.Time
	}{
		{"commit time", []string{"INSERT INTO plain VALUES (1,1)"}, commit},
		{"time column", []string{"INSERT INTO t VALUES (1,1,'2001-02-03 04:05:06.789')"}, utc("2001-02-03 04:05:06.789")},
		{"greatest of the after images", []string{
			"BEGIN", "INSERT INTO t VALUES (2,1,'2002-01-01'),(3,1,'2003-01-01 10:00:00'),(4,1,'2001-01-01')",
			"UPDATE t SET at='2002-05-05' WHERE id=3", "INSERT INTO plain VALUES (2,1)", "COMMIT",
		}, utc("2003-01-01 10:00:00")},
		{"a delete has no after image", []string{"DELETE FROM t WHERE id=2"}, commit},
		{"the log before the column", []string{
			"BEGIN", "INSERT INTO t VALUES (5,1,'2010-01-01')", log + "(NULL,'t',5,'x','2005-01-01 00:00:00.5')", log + "(NULL,'t',5,'x','2004-01-01')",
			"COMMIT",
		}, utc("2005-01-01 00:00:00.5")},
		{"an updated row of the log", []string{
			"BEGIN", "UPDATE t SET v=2 WHERE id=5", "UPDATE log SET timestamp='2006-01-01' WHERE timestamp='2004-01-01'", "COMMIT",
		}, utc("2006-01-01 00:00:00")},
		{"a log row without a time", []string{
			"BEGIN", "UPDATE t SET at='2007-01-01' WHERE id=5", log + "(NULL,'t',5,'x',NULL)", "COMMIT",
		}, utc("2007-01-01 00:00:00")},
		{"nothing that is a time", []string{
			"SET sql_mode='ALLOW_INVALID_DATES'", "BEGIN",
			"INSERT INTO t VALUES (6,1,NULL),(7,1,'0000-00-00 00:00:00'),(8,1,'2020-02-31 00:00:00'),(9,1,'1969-12-31 23:59:59')",
			log + "(NULL,'t',5,'x','0000-00-00 00:00:00')", "INSERT INTO text VALUES (1,'2020-01-01 00:00:00')", "COMMIT",
		}, commit},
		{"a TIMESTAMP is a point in time", []string{
			"SET time_zone='+05:30'", "BEGIN", "INSERT INTO plain VALUES (3,1)", log + "(NULL,'plain',3,'x','2008-01-01 05:30:00.000001')", "COMMIT",
		}, utc("2008-01-01 00:00:00.000001")},
		{"a DATETIME is in UTC", []string{
			"SET time_zone='+05:30'", "INSERT INTO t VALUES (10,1,'2009-01-01 05:30:00')",
		}, utc("2009-01-01 05:30:00")},
		{"a table that is not replicated", []string{
			"BEGIN", "INSERT INTO plain VALUES (4,1)", "INSERT INTO skip_me VALUES (1,'2011-01-01 00:00:00')", "COMMIT",
		}, utc("2011-01-01 00:00:00")},
	} {
		onEach(t, func(t *testing.T, s *source, db string) {
			t.Run(c.name, func(t *testing.T) {
				physicalTime(t, s, db, c.statements, c.want)
			})
		})
	}
}

func physicalTime(t *testing.T, s *source, db string, statements []string, want change.Time) {
	makeTimed(t, s, db)
	prepare := []string{
		"USE " + db, "SET time_zone='+00:00'", "INSERT INTO t VALUES (2,1,NULL),(5,1,NULL)",
		"INSERT INTO log (timestamp) VALUES ('2004-01-01')",
	}
	if slices.ContainsFunc(statements, func(q string) bool { return strings.Contains(q, "(2,1,") || strings.Contains(q, "(5,1,") }) {
		prepare = prepare[:2]
	}
	var start canal.Start
	s.session(t, func(run func(string)) {
		for _, q := range prepare {
			run(q)
		}
		start = s.start(t)
		for _, q := range statements {
			run(q)
		}
	})
	txs := local(s.mustRead(t, s.timed(t, db), start))
	if len(txs) != 1 {
		t.Fatalf("got %d transactions", len(txs))
	}
	if want < 0 {
		want = change.TimeOf(txs[0].Committed)
	}
	if got := txs[0].Stamp.Version.Time; got != want {
		t.Errorf("the time is %s, want %s", got, want)
	}
}

// hard-cases.md 16: a time in 2099 counts as the commit time plus max_clock_skew, one in the past as one after the last.
func TestPhysicalTimeIsBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		makeTimed(t, s, db)
		o := s.timed(t, db)
		o.MaxClockSkew = 7 * time.Second
		start := s.start(t)
		s.exec(t, "USE "+db, "SET time_zone='+00:00'",
			"INSERT INTO t VALUES (1,1,'2099-01-01')",
			"BEGIN", "INSERT INTO t VALUES (2,1,NULL)", "INSERT INTO log (timestamp) VALUES ('2037-01-01')", "COMMIT",
			"INSERT INTO t VALUES (3,1,'1999-01-01')",
			"INSERT INTO plain VALUES (4,1)",
		)
		txs := local(s.mustRead(t, o, start))
		if len(txs) != 4 {
			t.Fatalf("got %d transactions", len(txs))
		}
		previous := change.Time(0)
		for i, tx := range txs {
			bound := change.TimeOf(tx.Committed.Add(o.MaxClockSkew))
			want := map[int]change.Time{0: bound, 1: max(bound, previous+1), 2: previous + 1, 3: previous + 1}[i]
			if got := tx.Stamp.Version.Time; got != want {
				t.Errorf("transaction %d has the time %s, want %s", i, got, want)
			}
			previous = tx.Stamp.Version.Time
		}
		if got := txs[1].Log; len(got) != 1 || got[0].Time != utc("2037-01-01 00:00:00") {
			t.Errorf("the log says %v, want what the application wrote", got)
		}
	})
}

func TestLogRowsAreText(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		s.exec(t,
			"CREATE TABLE "+db+".log (id BIGINT AUTO_INCREMENT, site INT, user_id BINARY(3), `table` ENUM('stäff','x') CHARACTER SET latin1,"+
				" record_id DECIMAL(6,2), comment LONGTEXT CHARACTER SET utf16, timestamp TIMESTAMP NULL, PRIMARY KEY (id, site))",
			"CREATE TABLE "+db+".plain (id INT PRIMARY KEY)")
		start := s.start(t)
		s.exec(t, "SET NAMES utf8mb4", "SET time_zone='+00:00'", "BEGIN", "INSERT INTO "+db+".plain VALUES (1)",
			"INSERT INTO "+db+".log VALUES (1,1,X'00abFF','stäff',-12.5,'it’s 😀','2020-01-01 00:00:01')",
			"INSERT INTO "+db+".log VALUES (2,1,NULL,NULL,NULL,REPEAT('é',3000),NULL)", "COMMIT")
		txs := local(s.mustRead(t, s.timed(t, db), start))
		want := []change.LogRow{
			{Table: "stäff", Key: "-12.50", User: "00ABFF", Comment: "it’s 😀", Time: utc("2020-01-01 00:00:01")},
			{Comment: strings.Repeat("é", 2048)},
		}
		if len(txs) != 1 {
			t.Fatalf("got %d transactions", len(txs))
		}
		if !slices.Equal(txs[0].Log, want) {
			t.Errorf("the log says %+v, want %+v", txs[0].Log, want)
		}
	})
}

// A log row that each server numbers by itself is a row of its own for each origin, and is never changed or deleted
// elsewhere.
func TestNumberedLog(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		makeTimed(t, s, db)
		start := s.start(t)
		s.exec(t, "USE "+db, "INSERT INTO log (id, record_id) VALUES (1,10),(2,20)",
			"UPDATE log SET record_id=11 WHERE id=1", "DELETE FROM log WHERE id=2",
			"BEGIN", "DELETE FROM log", "INSERT INTO plain VALUES (1,1)", "COMMIT")
		o := s.timed(t, db)
		txs := local(s.mustRead(t, o, start))
		if len(txs) != 2 {
			t.Fatalf("got %d transactions that are to be applied, want the insert and the last", len(txs))
		}
		if got := flatten(t, txs[1]); !slices.Equal(got, []string{"insert plain 1 1"}) {
			t.Errorf("the last one holds %v", got)
		}
		here := keysOf(t, txs[0])
		o.Identity = change.NewServerID()
		elsewhere := keysOf(t, local(s.mustRead(t, o, start))[0])
		if len(here) != 2 || here[0] == here[1] || slices.ContainsFunc(here, func(k change.Key) bool { return slices.Contains(elsewhere, k) }) {
			t.Errorf("keys are %v here and %v at another origin", here, elsewhere)
		}
	})
}

func keysOf(t *testing.T, tx *change.Transaction) (keys []change.Key) {
	t.Helper()
	err := tx.Body.Each(func(ev *change.RowsEvent) error {
		if !ev.Table.Numbered {
			return fmt.Errorf("table %s is not numbered by each server", ev.Table.Name)
		}
		for _, r := range ev.Rows {
			if r.Key != r.NewKey {
				return fmt.Errorf("an insert has two keys")
			}
			keys = append(keys, r.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestEveryReaderHearsTheSame compares the versions of a shared reader, of one with another memory limit and of a
// subscription's own, over compressed and spooled transactions with long logs.
func TestEveryReaderHearsTheSame(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		makeTimed(t, s, db)
		start := s.start(t)
		const rows = 2500
		many := "SELECT (a.seq-1)*50+b.seq AS seq FROM (" + numbers(50) + ") a, (" + numbers(50) + ") b ORDER BY 1"
		load := []string{
			"USE " + db, "SET time_zone='+00:00'",
			"INSERT INTO t VALUES (1,1,'2001-01-01')",
			"BEGIN", "INSERT INTO log (record_id, timestamp) SELECT seq, '2002-01-01' + INTERVAL seq SECOND FROM (" + many + ") n ORDER BY seq",
			"INSERT INTO plain SELECT seq, 1 FROM (" + many + ") n ORDER BY seq", "COMMIT",
			"UPDATE plain SET v=2",
		}
		if s.flavor == change.MariaDB {
			s.exec(t, "SET GLOBAL log_bin_compress=ON", "SET GLOBAL log_bin_compress_min_len=10")
			defer s.exec(t, "SET GLOBAL log_bin_compress=OFF")
		} else {
			load = append([]string{"SET SESSION binlog_transaction_compression=ON"}, load...)
		}
		s.exec(t, load...)

		o := s.timed(t, db)
		whole := local(s.mustRead(t, o, start))
		o.SpoolBytes = 1000
		spooled := local(s.mustRead(t, o, start))
		o.Grace = time.Millisecond
		private := canal.NewHub(o).Subscribe(start)
		defer private.Close()
		if len(whole) != 3 || len(spooled) != 3 {
			t.Fatalf("got %d and %d transactions", len(whole), len(spooled))
		}
		if !spooled[1].Spooled || whole[1].Spooled {
			t.Error("the limit of memory does not tell the readers apart")
		}
		for i, tx := range whole {
			other := nextLocal(t, private)
			for _, o := range []*change.Transaction{spooled[i], other} {
				if o.Stamp.Version != tx.Stamp.Version || !slices.Equal(o.Log, tx.Log) {
					t.Errorf("transaction %d: a reader has %s, another %s", i, tx.Stamp.Version, o.Stamp.Version)
				}
			}
		}
		long := whole[1]
		if got, want := long.Stamp.Version.Time, utc("2002-01-01 00:00:00")+rows*1e6; got != want {
			t.Errorf("the time is %s, want that of the last row, %s", got, want)
		}
		if len(long.Log) != 1000 || long.Log[999].Key != "1000" {
			t.Errorf("%d rows of the log are kept", len(long.Log))
		}
	})
}

func nextLocal(t *testing.T, s *canal.Subscription) *change.Transaction {
	t.Helper()
	for {
		if tx := next(t, s); tx.Kind == change.Local {
			return tx
		}
	}
}

// A table that is not replicated cannot stop the reader, whatever is in it.
func TestUnreadableTableHoldsNoTime(t *testing.T) {
	on(t, sandbox.MySQL97, func(t *testing.T, s *source, db string) {
		makeTimed(t, s, db)
		start := s.start(t)
		s.exec(t, "USE "+db, "SET SESSION binlog_row_image=MINIMAL", "BEGIN", "INSERT INTO skip_me (id) VALUES (1)",
			"UPDATE skip_me SET at='2002-01-01'", "SET SESSION binlog_row_image=FULL", "INSERT INTO plain VALUES (1,1)", "COMMIT")
		txs := local(s.mustRead(t, s.timed(t, db), start))
		if len(txs) != 1 {
			t.Fatalf("got %d transactions", len(txs))
		}
		if at := txs[0].Stamp.Version.Time; at < change.TimeOf(txs[0].Committed) {
			t.Errorf("the time is %s, want the commit time", at)
		}
	})
}

package canal

import (
	"crypto/sha256"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/image"
)

// Times says where an application gives the physical time of its transactions (architecture 5.4). The zero value: nowhere,
// so that the commit time counts. Whoever reads a server must be told the same.
type Times struct {
	// Log is the application's change_log, which Match accepts; nil: there is none.
	Log *ChangeLog
	// Column returns the column that holds the time of a table's changes, "" for none. It is asked about tables that are
	// not replicated too: which ones are must not change what time a transaction has. It must be pure. Optional.
	Column func(change.TableName) string
}

// ChangeLog is the application's own log of changes: its name and those of its columns, "" for one that it does not have.
type ChangeLog struct {
	Name                            change.TableName
	Table, Key, User, Time, Comment string
}

// timing is where the rows of one table definition hold times. A nil timing: nowhere.
type timing struct {
	column int         // of the time column, -1 for none
	log    *logColumns // nil: the table is not the change_log
}

// logColumns are indices into the table's columns, -1 for those that it does not have.
type logColumns struct{ table, key, user, time, comment int }

func (t *Times) column(name change.TableName) string {
	if t.Column == nil || systemDatabase(name.Database) {
		return ""
	}
	return t.Column(name)
}

// of finds the columns that count. One that is no TIMESTAMP or DATETIME holds no time.
func (t *Times) of(table *change.Table) *timing {
	w := &timing{column: timeColumn(table, t.column(table.Name))}
	if l := t.Log; l != nil && table.Name == l.Name {
		w.log = &logColumns{
			table: columnNamed(table, l.Table), key: columnNamed(table, l.Key), user: columnNamed(table, l.User),
			time: timeColumn(table, l.Time), comment: columnNamed(table, l.Comment),
		}
	}
	if w.column < 0 && w.log == nil {
		return nil
	}
	return w
}

func columnNamed(t *change.Table, name string) int {
	if name == "" {
		return -1
	}
	return slices.IndexFunc(t.Columns, func(c change.Column) bool { return strings.EqualFold(c.Name, name) })
}

func timeColumn(t *change.Table, name string) int {
	i := columnNamed(t, name)
	if i >= 0 && !image.CanHoldTime(&t.Columns[i]) {
		return -1
	}
	return i
}

// Numbered reports whether each server numbers the rows of this table itself: the change_log, when its primary key is a
// single number. (An AUTO_INCREMENT beside another column, or a key of another type, is the same row everywhere.)
func (t *Times) Numbered(table *change.Table) bool {
	if t.Log == nil || table.Name != t.Log.Name || len(table.PrimaryKey) != 1 {
		return false
	}
	switch table.Columns[table.PrimaryKey[0].Column].Type {
	case mysql.MYSQL_TYPE_TINY, mysql.MYSQL_TYPE_SHORT, mysql.MYSQL_TYPE_INT24, mysql.MYSQL_TYPE_LONG,
		mysql.MYSQL_TYPE_LONGLONG:
		return true
	}
	return false
}

// told is what the rows of a transaction say of it.
type told struct {
	logged change.Time // the greatest time in the change_log, 0 when there is none
	column change.Time // the greatest of time columns
	rows   []change.LogRow
	memory int64 // of rows
}

// What is kept of a transaction's change_log: of a longer one only the times count.
const (
	maxLogRows   = 1000
	maxLogValue  = 4 << 10 // bytes of one text
	maxLogMemory = 1 << 20
)

// hear notes what the after images of a rows event say about the transaction.
func (d *told) hear(w *timing, ev *change.RowsEvent) error {
	if w == nil {
		return nil
	}
	for _, r := range ev.Rows {
		after := ev.After(r)
		if after == nil {
			return nil
		}
		if w.column >= 0 {
			at, err := image.Instant(ev.Table, after, w.column)
			if err != nil {
				return err
			}
			d.column = max(d.column, at)
		}
		if w.log != nil {
			if err := d.hearLog(w.log, ev.Table, after); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *told) hearLog(l *logColumns, t *change.Table, after []byte) error {
	var row change.LogRow
	if l.time >= 0 {
		var err error
		if row.Time, err = image.Instant(t, after, l.time); err != nil {
			return err
		}
		d.logged = max(d.logged, row.Time)
	}
	if len(d.rows) >= maxLogRows || d.memory >= maxLogMemory {
		return nil
	}
	for _, part := range []struct {
		column int
		into   *string
	}{{l.table, &row.Table}, {l.key, &row.Key}, {l.user, &row.User}, {l.comment, &row.Comment}} {
		if part.column < 0 {
			continue
		}
		value, err := image.ColumnValue(t, after, part.column)
		if err != nil {
			return err
		}
		*part.into = shorten(image.Print(&t.Columns[part.column], value))
	}
	d.rows = append(d.rows, row)
	d.memory += logRowMemory + int64(len(row.Table)+len(row.Key)+len(row.User)+len(row.Comment))
	return nil
}

// shorten cuts a text to maxLogValue bytes, between two characters. The text's memory is its own.
func shorten(text string) string {
	if len(text) <= maxLogValue {
		return text
	}
	end := maxLogValue
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end])
}

// physical is the time that the rows give, or else the given one.
func (d *told) physical(otherwise change.Time) change.Time {
	switch {
	case d.logged > 0:
		return d.logged
	case d.column > 0:
		return d.column
	}
	return otherwise
}

// ownKeys keeps rows apart that different servers gave the same number.
func ownKeys(rows []change.Row, origin change.ServerID) {
	for i := range rows {
		r := &rows[i]
		sum := sha256.Sum256(append(origin[:], r.Key[:]...))
		r.Key = change.Key(sum[:len(r.Key)])
		r.NewKey = r.Key
	}
}

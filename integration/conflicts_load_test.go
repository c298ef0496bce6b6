package integration

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// history is everything that applications were told is committed. A write leaves a row with a tag that no other write has;
// whoever changes a row reads it first, in the same transaction and under a lock, so that it is known what an application
// overwrote knowingly.
type history struct {
	mu          sync.Mutex
	writes      map[string]*write // by tag
	overwritten map[string]bool   // tags that a committed transaction had seen and replaced or deleted
	removals    []removal
	taken       map[int]int64 // per row of stock, the sum of what was added
	cells       []cell
	replaced    map[string]bool // values of cards that a committed transaction had seen and replaced
}

// write is one row as a committed transaction left it.
type write struct {
	tag, site, table string
	key              int
	image            map[string]string // NULL is "NULL"
	before           string            // the tag that its row had; nothing when there was no row
}

// removal is one row that a committed transaction deleted.
type removal struct {
	site, table string
	key         int
	tag         string
	parent      int // whose delete took this child along; 0: it was deleted by itself
}

func newHistory() *history {
	return &history{writes: map[string]*write{}, overwritten: map[string]bool{}, taken: map[int]int64{}, replaced: map[string]bool{}}
}

// acts are what one transaction does; they enter the history when it is committed.
type acts struct {
	writes   []*write
	removals []removal
	stock    int
	delta    int64
	cells    []cell
	replaced []string
}

func (h *history) record(a *acts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range a.writes {
		h.writes[w.tag] = w
		if w.before != "" {
			h.overwritten[w.before] = true
		}
	}
	for _, r := range a.removals {
		h.overwritten[r.tag] = true
	}
	h.removals = append(h.removals, a.removals...)
	h.cells = append(h.cells, a.cells...)
	for _, value := range a.replaced {
		h.replaced[value] = true
	}
	if a.stock != 0 {
		h.taken[a.stock] += a.delta
	}
}

// writer is one connection of an application.
type writer struct {
	*workload
	site  *site
	name  string
	count int
	r     *rand.Rand
}

func newWriter(w *workload, s *site, name string, r *rand.Rand) *writer {
	return &writer{workload: w, site: s, name: name, r: r}
}

// work acts until the context ends.
func (w *writer) work(ctx context.Context, t *testing.T) {
	for {
		if err := w.act(context.WithoutCancel(ctx)); err != nil && !refused(err) {
			t.Errorf("on %s: %v", w.site.name, err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(w.r.IntN(8000)) * time.Microsecond):
		}
	}
}

// errUnchanged says that a server changed nothing although the row was read and locked before.
var errUnchanged = errors.New("no row was changed")

// changesOne is an error when a statement did not change one row: an application takes nothing for done that was not.
func changesOne(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, errUnchanged)
	}
	return nil
}

// refused is what an application must expect: contention, a value that is taken, a parent that is missing or in use.
func refused(err error) bool {
	if contention(err) || errors.Is(err, errUnchanged) {
		return true
	}
	var e *mysql.MySQLError
	return errors.As(err, &e) && (e.Number == 1062 || e.Number == 1451 || e.Number == 1452)
}

const (
	things  = 24
	values  = 16
	parents = 6
	childs  = 12 // of each table
)

// act makes one transaction.
func (w *writer) act(ctx context.Context) error {
	tx, err := w.site.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var a acts
	switch n := w.r.IntN(27); {
	case n < 6:
		err = w.putThing(tx, &a)
	case n < 8:
		err = w.remove(tx, &a, "thing", 1+w.r.IntN(things))
	case n < 10:
		err = w.moveThing(tx, &a)
	case n < 11:
		err = w.swapThings(tx, &a)
	case n < 13:
		err = w.put(tx, &a, "parent", 1+w.r.IntN(parents), nil)
	case n < 14:
		err = w.removeParent(tx, &a)
	case n < 17:
		err = w.putChild(tx, &a)
	case n < 18:
		err = w.remove(tx, &a, workloadTables[2+w.r.IntN(3)], 1+w.r.IntN(childs))
	case n < 20:
		err = w.addStock(tx, &a)
	case n < 24:
		err = w.putCard(tx, &a)
	default:
		err = w.stockShelf(tx)
	}
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	w.history.record(&a)
	return nil
}

// read locks a row, or its absence, and returns it; nil where there is none.
func (w *workload) read(tx *sql.Tx, table, where string) ([]map[string]string, error) {
	return readRows(tx.Query(fmt.Sprintf("SELECT * FROM %s.%s WHERE %s FOR UPDATE", w.database, table, where)))
}

// readRows reads every row as text.
func readRows(rows *sql.Rows, err error) ([]map[string]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all []map[string]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		row := map[string]string{}
		for i, v := range values {
			row[columns[i]] = "NULL"
			if v.Valid {
				row[columns[i]] = v.String
			}
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// put inserts a row or updates it, with a new tag.
func (w *writer) put(tx *sql.Tx, a *acts, table string, key int, columns map[string]string) error {
	found, err := w.read(tx, table, fmt.Sprint("id = ", key))
	if err != nil {
		return err
	}
	var before string
	if len(found) == 1 {
		before = found[0]["tag"]
	}
	return w.leave(tx, a, table, key, key, before, columns)
}

// leave writes a row over the one with the tag before, which has the old key, or inserts it where there is none.
func (w *writer) leave(tx *sql.Tx, a *acts, table string, old, key int, before string, columns map[string]string) error {
	w.count++
	image := map[string]string{"id": strconv.Itoa(key), "tag": fmt.Sprintf("%s.%d", w.name, w.count)}
	names, marks, sets, args := "id, tag", "?, ?", "id = ?, tag = ?", []any{key, image["tag"]}
	for _, name := range []string{"u", "n", "pid"} {
		value, ok := columns[name]
		if !ok {
			continue
		}
		image[name] = value
		names, marks, sets = names+", "+name, marks+", ?", sets+", "+name+" = ?"
		if value == "NULL" {
			args = append(args, nil)
		} else {
			args = append(args, value)
		}
	}
	query := fmt.Sprintf("INSERT INTO %s.%s (%s) VALUES (%s)", w.database, table, names, marks)
	if before != "" {
		query = fmt.Sprintf("UPDATE %s.%s SET %s WHERE id = %d", w.database, table, sets, old)
	}
	if err := changesOne(tx.Exec(query, args...)); err != nil {
		return err
	}
	a.writes = append(a.writes, &write{tag: image["tag"], site: w.site.name, table: table, key: key, image: image, before: before})
	return nil
}

// value is a value of the unique column, or none.
func (w *writer) value() string {
	if n := w.r.IntN(values * 3 / 2); n < values {
		return fmt.Sprint("u", n)
	}
	return "NULL"
}

func (w *writer) putThing(tx *sql.Tx, a *acts) error {
	return w.put(tx, a, "thing", 1+w.r.IntN(things), map[string]string{"u": w.value(), "n": strconv.Itoa(w.r.IntN(1000))})
}

// moveThing changes a key.
func (w *writer) moveThing(tx *sql.Tx, a *acts) error {
	from, to := 1+w.r.IntN(things), 1+w.r.IntN(things)
	if from == to {
		return nil
	}
	rows, err := w.read(tx, "thing", fmt.Sprintf("id IN (%d, %d)", from, to))
	if err != nil || len(rows) != 1 || rows[0]["id"] != strconv.Itoa(from) {
		return err // only to where there is no row
	}
	return w.leave(tx, a, "thing", from, to, rows[0]["tag"], map[string]string{"u": rows[0]["u"], "n": rows[0]["n"]})
}

// swapThings lets two rows change their unique values in one transaction.
func (w *writer) swapThings(tx *sql.Tx, a *acts) error {
	rows, err := w.read(tx, "thing", fmt.Sprintf("id IN (%d, %d)", 1+w.r.IntN(things), 1+w.r.IntN(things)))
	if err != nil || len(rows) != 2 {
		return err
	}
	if _, err := tx.Exec("UPDATE " + w.database + ".thing SET u = NULL WHERE id = " + rows[0]["id"]); err != nil {
		return err
	}
	for i, other := range []int{1, 0} {
		row := rows[other] // the second row first: its value has just become free
		key, err := strconv.Atoi(row["id"])
		if err != nil {
			return err
		}
		if err := w.leave(tx, a, "thing", key, key, row["tag"], map[string]string{"u": rows[i]["u"], "n": row["n"]}); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) remove(tx *sql.Tx, a *acts, table string, key int) error {
	rows, err := w.read(tx, table, fmt.Sprint("id = ", key))
	if err != nil || len(rows) == 0 {
		return err
	}
	if err := changesOne(tx.Exec(fmt.Sprintf("DELETE FROM %s.%s WHERE id = %d", w.database, table, key))); err != nil {
		return err
	}
	a.removals = append(a.removals, removal{site: w.site.name, table: table, key: key, tag: rows[0]["tag"]})
	return nil
}

// removeParent deletes a parent, and with it the children of one table.
func (w *writer) removeParent(tx *sql.Tx, a *acts) error {
	parent := 1 + w.r.IntN(parents)
	if err := w.remove(tx, a, "parent", parent); err != nil || len(a.removals) == 0 {
		return err
	}
	return w.noteCascade(tx, a, parent)
}

// noteCascade finds out which children went: those that a reader from before the delete sees. No other can have come, for
// the delete has locked the parent.
func (w *writer) noteCascade(tx *sql.Tx, a *acts, parent int) error {
	rows, err := readRows(w.site.db.Query(fmt.Sprintf("SELECT id, tag FROM %s.cascading WHERE pid = %d", w.database, parent)))
	if err != nil {
		return err
	}
	for _, row := range rows {
		key, err := strconv.Atoi(row["id"])
		if err != nil {
			return err
		}
		a.removals = append(a.removals, removal{site: w.site.name, table: "cascading", key: key, tag: row["tag"], parent: parent})
	}
	return nil
}

func (w *writer) putChild(tx *sql.Tx, a *acts) error {
	parent := "NULL"
	if n := w.r.IntN(parents + 2); n > 0 {
		parent = strconv.Itoa(min(n, parents))
	}
	return w.put(tx, a, workloadTables[2+w.r.IntN(3)], 1+w.r.IntN(childs), map[string]string{"pid": parent})
}

func (w *writer) addStock(tx *sql.Tx, a *acts) error {
	a.stock, a.delta = 1+w.r.IntN(2), int64(w.r.IntN(21)-10)
	_, err := tx.Exec(fmt.Sprintf("UPDATE %s.stock SET quantity = quantity + ? WHERE id = ?", w.database), a.delta, a.stock)
	return err
}

// stockShelf changes a row whose quantity adds up and that comes and goes. What is lost with such a row is in the journal
// as the model says; only their being equal everywhere is looked at here.
func (w *writer) stockShelf(tx *sql.Tx) error {
	table, id, parent := w.database+".shelf", 1+w.r.IntN(childs), 1+w.r.IntN(parents)
	query, args := "UPDATE "+table+" SET quantity = quantity + ? WHERE id = ?", []any{w.r.IntN(21) - 10, id}
	switch w.r.IntN(6) {
	case 0, 1:
		query, args = "INSERT INTO "+table+" (pid, quantity, id) VALUES (?, 100, ?)", []any{parent, id}
	case 2:
		query, args = "UPDATE "+table+" SET pid = ? WHERE id = ?", []any{parent, id}
	case 3:
		query, args = "DELETE FROM "+table+" WHERE id = ?", []any{id}
	}
	_, err := tx.Exec(query, args...)
	return err
}

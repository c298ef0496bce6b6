package journal

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// hr makes a staff table with relatives; trigger guards its derived rows as the documentation says.
func hr(t *testing.T, s *sandbox.Server) {
	t.Helper()
	imagetest.Exec(t, s, "DROP DATABASE IF EXISTS hr", "CREATE DATABASE hr CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "CREATE TABLE hr.log (n INT AUTO_INCREMENT PRIMARY KEY, staff INT)",
		"CREATE TABLE hr.staff (id INT PRIMARY KEY, name VARCHAR(100) UNIQUE KEY, photo MEDIUMBLOB)",
		"CREATE TABLE hr.car (id INT PRIMARY KEY, owner INT, CONSTRAINT owned FOREIGN KEY (owner) REFERENCES hr.staff (id))",
		"CREATE TRIGGER hr.guarded AFTER UPDATE ON hr.staff FOR EACH ROW BEGIN IF @replicator_apply IS NULL THEN INSERT INTO hr.log (staff) VALUES (NEW.id); END IF; END",
	)
}

// lost writes a conflict into the journals of the servers and reads it back.
func lost(t *testing.T, servers []Server, e *Entry) *Record {
	t.Helper()
	for _, s := range servers {
		write(t, s, e)
	}
	r, failed, err := Show(t.Context(), servers, e.ID().String())
	require.NoError(t, err)
	require.Empty(t, failed)
	return r
}

// car is a row of hr.car as its binlog would show it.
func car(id, owner int64) *Row {
	return &Row{
		Table: &change.Table{
			Name: change.TableName{Database: "hr", Table: "car"}, Columns: []change.Column{{Name: "id", Type: 3}, {Name: "owner", Type: 3, Nullable: true}},
			PrimaryKey: []change.KeyPart{{Column: 0}},
		},
		Values: []image.Value{{Kind: image.Int, Int: id}, {Kind: image.Int, Int: owner}},
	}
}

func carClash(id int64, second int, winner, loser *Row) *Entry {
	e := clash(id, second, winner, loser)
	e.Table, e.KeyRow = change.TableName{Database: "hr", Table: "car"}, car(id, 0)
	return e
}

// restored is a server with staff, and another that has its journal only.
type restored struct {
	*testing.T
	server   *sandbox.Server
	one, two Server
	all      []Server
}

func newRestored(t *testing.T, flavor sandbox.Flavor) *restored {
	t.Helper()
	s := start(t, flavor)
	hr(t, s)
	imagetest.Exec(t, s, "INSERT INTO hr.staff VALUES (1,'win',X'01'),(2,'two',NULL),(9,'taken',NULL)")
	r := &restored{T: t, server: s, one: reach(t, "one", s, east), two: reach(t, "two", start(t, sandbox.MariaDB118), west)}
	r.all = []Server{r.one, r.two}
	for _, s := range r.all { // what has been decided has arrived
		require.NoError(t, checkpoint.Beat(t.Context(), s.DB, change.Context{}.With(east, at(60).Time).With(west, at(60).Time)))
	}
	return r
}

func (t *restored) staff() string {
	return strings.Join(rows(t.T, t.one, "SELECT CONCAT(id, ' ', name, ' ', COALESCE(HEX(photo), '-')) FROM hr.staff ORDER BY id"), "; ")
}

func (t *restored) must(r *Record, o RestoreOptions) *Restoration {
	t.Helper()
	x, err := Restore(t.Context(), t.all, r, o)
	require.NoError(t, err)
	return x
}

// refused expects a fault, and that nothing has changed.
func (t *restored) refused(r *Record, o RestoreOptions, class fault.Class, text string) {
	t.Helper()
	before := t.staff()
	_, err := Restore(t.Context(), t.all, r, o)
	f, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, class, f.Class, f.Text())
	require.Contains(t, f.Text(), text)
	require.NotEmpty(t, f.Remedy)
	require.Equal(t, before, t.staff())
}

func TestRestore(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) { restores(newRestored(t, flavor)) })
	}
}

func restores(t *restored) {
	changed := lost(t.T, t.all, clash(1, 1, person(1, "win"), person(1, "it's lost")))
	x := t.must(changed, RestoreOptions{DryRun: true})
	require.False(t, x.Done)
	require.Equal(t, "one", x.Server)
	require.Equal(t, `{"id":1,"name":"win","photo":{"base64":"AQ=="}}`, string(mustJSON(t.T, x.Replaces)))
	require.Equal(t, "UPDATE `hr`.`staff` SET `id`=1,`name`='it''s lost',`photo`=NULL WHERE (`id`=1)", x.Statement)
	require.Equal(t, "1 win 01; 2 two -; 9 taken -", t.staff())
	x = t.must(changed, RestoreOptions{Columns: []string{"NAME"}})
	require.True(t, x.Done)
	require.Equal(t, []string{"one", "two"}, x.Told)
	require.Equal(t, "1 it's lost 01; 2 two -; 9 taken -", t.staff())
	t.must(changed, RestoreOptions{})
	require.Equal(t, "1 it's lost -; 2 two -; 9 taken -", t.staff())
	require.Empty(t, t.must(changed, RestoreOptions{}).Statement, "it is like that already")
	for _, s := range t.all {
		require.Equal(t, []string{Restored}, rows(t.T, s, "SELECT state FROM replicator.conflict"))
	}
	require.Empty(t, rows(t.T, t.one, "SELECT staff FROM hr.log"), "a guarded trigger fired")

	removed := lost(t.T, t.all, clash(3, 2, nil, person(3, "three")))
	t.refused(removed, RestoreOptions{Columns: []string{"name"}}, fault.Row, "does not exist on one")
	require.Nil(t, t.must(removed, RestoreOptions{DryRun: true}).Replaces)
	require.NotContains(t, t.staff(), "three")
	t.must(removed, RestoreOptions{})
	require.Contains(t, t.staff(), "3 three -")

	deleted := lost(t.T, t.all, clash(2, 3, person(2, "two"), nil))
	require.Equal(t, "DELETE FROM `hr`.`staff` WHERE (`id`=2)", t.must(deleted, RestoreOptions{DryRun: true}).Statement)
	t.refused(deleted, RestoreOptions{Columns: []string{"name"}}, fault.Configuration, "it has no columns")
	t.must(deleted, RestoreOptions{})
	require.NotContains(t, t.staff(), "two")
	require.Empty(t, t.must(deleted, RestoreOptions{}).Statement)
}

// TestRestoreColumns: which columns have been put back is known, on all servers, and the others still can be.
func TestRestoreColumns(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) { restoresColumns(newRestored(t, flavor)) })
	}
}

func restoresColumns(t *restored) {
	blob := func(b byte) image.Value { return image.Value{Kind: image.Binary, Bytes: []byte{b}} }
	won, loser := person(1, "win"), person(1, "lost")
	won.Values[2], loser.Values[2] = blob(1), blob(2)
	e := clash(1, 1, won, loser)
	lost(t.T, t.all, e)
	show := func(servers ...Server) *Record {
		r, _, err := Show(t.Context(), servers, e.ID().String())
		require.NoError(t, err)
		listed, _ := List(t.Context(), servers, Filter{})
		require.Len(t, listed, 1)
		require.Equal(t, r.RestoredColumns(), listed[0].RestoredColumns())
		return r
	}
	require.Nil(t, show(t.all...).Document(t.all, nil).Restored)
	dry := t.must(show(t.all...), RestoreOptions{Columns: []string{"NAME", "name"}, DryRun: true})
	require.Equal(t, []string{"name"}, dry.Restored)
	require.Equal(t, Open, show(t.all...).State)

	x, err := Restore(t.Context(), []Server{t.one, {Name: "two", Err: errors.New("away")}}, show(t.all...), RestoreOptions{Columns: []string{"NAME", "name"}})
	require.NoError(t, err)
	require.Equal(t, []string{"name"}, x.Restored)
	require.Equal(t, []string{"photo"}, x.Left)
	require.Len(t, x.Failed, 1)
	require.Equal(t, "1 lost 01; 2 two -; 9 taken -", t.staff())
	r := show(t.all...)
	require.Equal(t, Restored, r.State)
	require.Equal(t, []string{"name"}, r.RestoredColumns())
	require.Equal(t, []string{"photo"}, r.Left())
	require.Equal(t, Open, show(t.two).State)
	require.Equal(t, loser.Values, r.Loser.Row.Values, "the row itself stays")

	// Whoever has not heard of it hears of it: by the same restore, or by an acknowledgement, which takes nothing back.
	require.Empty(t, t.must(r, RestoreOptions{Columns: []string{"name"}}).Statement)
	require.Equal(t, []string{"name"}, show(t.two).Restored)
	told, failed := Acknowledge(t.Context(), t.all, r)
	require.Equal(t, []string{"one", "two"}, told)
	require.Empty(t, failed)
	require.Equal(t, Restored, show(t.all...).State)
	t.refused(r, RestoreOptions{Columns: []string{"id"}}, fault.Row, "nothing is restored")

	require.Equal(t, "UPDATE `hr`.`staff` SET `photo`=X'02' WHERE (`id`=1)", t.must(show(t.all...), RestoreOptions{Columns: []string{"photo"}}).Statement)
	require.Equal(t, "1 lost 02; 2 two -; 9 taken -", t.staff())
	for _, s := range t.all {
		r = show(s)
		require.ElementsMatch(t, []string{"name", "photo"}, r.RestoredColumns())
		require.Empty(t, r.Left())
	}
	require.Equal(t, []string{"name", "photo"}, t.must(show(t.all...), RestoreOptions{}).Restored)
}

// TestRestoreKeepsSums: what has been added to a row that exists stays, unless the column is named.
func TestRestoreKeepsSums(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) { keepsSums(newRestored(t, flavor)) })
	}
}

// stock is a row of hr.stock as its binlog would show it.
func stock(id, n, price int64) *Row {
	columns := []change.Column{{Name: "id", Type: 3}, {Name: "n", Type: 3}, {Name: "price", Type: 3}}
	return &Row{
		Table:  &change.Table{Name: change.TableName{Database: "hr", Table: "stock"}, Columns: columns, PrimaryKey: []change.KeyPart{{Column: 0}}},
		Values: []image.Value{{Kind: image.Int, Int: id}, {Kind: image.Int, Int: n}, {Kind: image.Int, Int: price}},
	}
}

func keepsSums(t *restored) {
	imagetest.Exec(t, t.server, "CREATE TABLE hr.stock (id INT PRIMARY KEY, n INT NOT NULL, price INT)", "INSERT INTO hr.stock VALUES (1, 94, 7)")
	conflict := func(id int64, second int, winner, loser *Row) *Record {
		e := clash(id, second, winner, loser)
		e.Table, e.KeyRow = change.TableName{Database: "hr", Table: "stock"}, stock(id, 0, 0)
		return lost(t.T, t.all, e)
	}
	holds := func(want ...string) {
		t.Helper()
		require.Equal(t, want, rows(t.T, t.one, "SELECT CONCAT(id, ' ', n, ' ', price) FROM hr.stock ORDER BY id"))
	}
	added := []string{"N"}
	r := conflict(1, 1, stock(1, 97, 7), stock(1, 100, 8))
	dry := t.must(r, RestoreOptions{Added: added, DryRun: true})
	require.Equal(t, "UPDATE `hr`.`stock` SET `id`=1,`price`=8 WHERE (`id`=1)", dry.Statement)
	require.Equal(t, []string{"price"}, dry.Restored)
	require.Equal(t, []string{"n"}, dry.Left)
	x := t.must(r, RestoreOptions{Added: added})
	require.Equal(t, dry.Statement, x.Statement)
	holds("1 94 8")
	r, _, err := Show(t.Context(), t.all, r.ID.String())
	require.NoError(t, err)
	require.Equal(t, []string{"price"}, r.RestoredColumns())
	require.Equal(t, []string{"n"}, t.must(r, RestoreOptions{Added: added}).Left, "once more is no harm")
	require.Empty(t, t.must(r, RestoreOptions{Added: added, Columns: []string{"n"}}).Left)
	holds("1 100 8")

	sums := conflict(1, 2, stock(1, 97, 8), stock(1, 98, 8))
	_, err = Restore(t.Context(), t.all, sums, RestoreOptions{Added: added})
	f, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Contains(t, f.Text(), "these keep their sums: n")
	t.must(conflict(2, 3, nil, stock(2, 5, 6)), RestoreOptions{Added: added})
	holds("1 100 8", "2 5 6")
	t.must(conflict(2, 4, stock(2, 5, 6), nil), RestoreOptions{Added: added})
	holds("1 100 8")
}

func TestSuggest(t *testing.T) {
	won, lost := stock(1, 97, 7), stock(1, 100, 8)
	for name, c := range map[string]struct {
		winner, loser *Row
		restorable    bool
		leaveOut      []string
		columns       []string
		whole         bool
	}{
		"both":          {won, lost, true, nil, []string{"n", "price"}, false},
		"but sums":      {won, lost, true, []string{"N"}, []string{"price"}, false},
		"sums alone":    {won, stock(1, 100, 7), true, []string{"n"}, nil, false},
		"gone":          {nil, lost, true, []string{"n"}, nil, true},
		"deleted":       {won, nil, true, nil, nil, true},
		"nothing":       {nil, nil, false, nil, nil, false},
		"gone, in part": {nil, lost, false, nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			columns, whole := Suggest(c.winner, c.loser, c.restorable, c.leaveOut)
			require.Equal(t, c.columns, columns)
			require.Equal(t, c.whole, whole)
		})
	}
}

// TestRestoredEarlier: an entry that says that it is restored, and of no columns, was restored whole.
func TestRestoredEarlier(t *testing.T) {
	j := reach(t, "one", start(t, sandbox.MariaDB118), east)
	r := lost(t, []Server{j}, clash(1, 1, person(1, "win"), person(1, "lost")))
	told, failed := SetState(t.Context(), []Server{j}, r.ID, Restored)
	require.Equal(t, []string{"one"}, told)
	require.Empty(t, failed)
	r, _, err := Show(t.Context(), []Server{j}, r.ID.String())
	require.NoError(t, err)
	require.Equal(t, []string{"name"}, r.RestoredColumns())
	require.Empty(t, r.Left())
}

func TestRestoreCommand(t *testing.T) {
	for want, columns := range map[string][]string{
		"replicator conflicts restore 1234":                               nil,
		"replicator conflicts restore 1234 --columns a,größe_2":           {"a", "größe_2"},
		`replicator conflicts restore 1234 --columns 'a b,"c,d",e'\''$f'`: {"a b", "c,d", "e'$f"},
	} {
		require.Equal(t, want, RestoreCommand("1234", columns...))
	}
}

func TestRestoreRefused(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) { refusesRestores(newRestored(t, flavor)) })
	}
}

func refusesRestores(t *restored) {
	t.refusesTaken()
	orphan := lost(t.T, t.all, carClash(1, 5, nil, car(1, 77)))
	t.refused(orphan, RestoreOptions{}, fault.Row, "table hr.staff has no row with id = 77 (foreign key owned)")
	imagetest.Exec(t, t.server, "INSERT INTO hr.car VALUES (5, 9)")
	owner := lost(t.T, t.all, clash(9, 6, person(9, "taken"), nil))
	t.refused(owner, RestoreOptions{}, fault.Row, `row {"id":5} of hr.car on one is in the way: it refers to row {"id":9} of hr.staff (foreign key owned)`)

	imagetest.Exec(t, t.server, "CREATE TRIGGER hr.wild BEFORE INSERT ON hr.staff FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
	t.refused(lost(t.T, t.all, clash(6, 7, nil, person(6, "six"))), RestoreOptions{}, fault.Row, "columns name have other values")

	large := clash(1, 8, person(1, "a"), person(1, "b"))
	large.Loser.Row.Values[2] = image.Value{Kind: image.Binary, Bytes: make([]byte, limits.MaxValue+1)}
	r := lost(t.T, t.all, large)
	t.refused(r, RestoreOptions{}, fault.Row, "did not keep column photo, which has 1048577 bytes")
	require.Equal(t, []string{"name"}, Recoverable(r.Winner.Row, r.Loser.Row))
	require.Equal(t, []string{"photo"}, t.must(r, RestoreOptions{Columns: []string{"name"}}).Left)
	require.Contains(t, t.staff(), "1 b 01")
	t.refused(r, RestoreOptions{Columns: []string{"nome"}}, fault.Configuration, `no column "nome"`)
	t.refused(r, RestoreOptions{On: "nowhere"}, fault.Configuration, `no server "nowhere"`)
	changed := lost(t.T, t.all, clash(1, 9, person(1, "win"), person(1, "other")))
	t.refused(changed, RestoreOptions{On: "two"}, fault.Definition, "does not exist")
	imagetest.Exec(t, t.server, "CREATE TABLE hr.other (id INT PRIMARY KEY)", "DROP TABLE hr.car", "DROP TABLE hr.staff", "RENAME TABLE hr.other TO hr.staff",
		"ALTER TABLE hr.staff ADD COLUMN number INT, ADD COLUMN photo BLOB, DROP PRIMARY KEY, ADD PRIMARY KEY (number)")
	_, err := Restore(t.Context(), t.all, changed, RestoreOptions{})
	require.ErrorContains(t, err, "the primary keys differ")
}

// TestRestoreAfterDefinitions: what a table still takes is restored after its definition has changed.
func TestRestoreAfterDefinitions(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) { restoresAfterDefinitions(newRestored(t, flavor)) })
	}
}

func restoresAfterDefinitions(t *restored) {
	blob := func(r *Row, b byte) *Row {
		r.Values[2] = image.Value{Kind: image.Binary, Bytes: []byte{b}}
		return r
	}
	changed := lost(t.T, t.all, clash(1, 1, blob(person(1, "win"), 1), blob(person(1, "lost"), 2)))
	gone := lost(t.T, t.all, clash(3, 2, nil, person(3, "three")))
	deleted := lost(t.T, t.all, clash(2, 3, person(2, "two"), nil))
	imagetest.Exec(t, t.server, "ALTER TABLE hr.staff ADD COLUMN extra INT NOT NULL DEFAULT 7", "UPDATE hr.staff SET extra = 8")
	t.must(changed, RestoreOptions{Columns: []string{"name"}})
	t.must(changed, RestoreOptions{})
	t.must(gone, RestoreOptions{})
	require.Equal(t, []string{"1 lost 8", "2 two 8", "3 three 7", "9 taken 8"}, rows(t.T, t.one, "SELECT CONCAT(id, ' ', name, ' ', extra) FROM hr.staff ORDER BY id"))

	imagetest.Exec(t, t.server, "UPDATE hr.staff SET name = 'win' WHERE id = 1", "DELETE FROM hr.staff WHERE id = 3", "ALTER TABLE hr.staff DROP COLUMN photo", "ALTER TABLE hr.staff ADD COLUMN photo INT")
	t.must(changed, RestoreOptions{Columns: []string{"name"}, DryRun: true}) // what is not restored may have any type
	imagetest.Exec(t, t.server, "ALTER TABLE hr.staff DROP COLUMN photo, ALTER COLUMN extra DROP DEFAULT")
	refused := func(r *Record, o RestoreOptions, text, remedy string) {
		t.Helper()
		_, err := Restore(t.Context(), t.all, r, o)
		f, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Contains(t, f.Text(), text)
		require.Contains(t, f.Remedy, remedy)
	}
	const lacks = "the definition of table hr.staff on one has changed since: it has no such columns any more, or they do not take these values: photo"
	refused(changed, RestoreOptions{}, lacks, "restore the others: "+RestoreCommand(changed.ID.String(), "name"))
	refused(changed, RestoreOptions{Columns: []string{"photo"}}, lacks, "--columns name")
	refused(gone, RestoreOptions{}, lacks, "write the row yourself")
	imagetest.Exec(t, t.server, "INSERT INTO hr.staff (id, name, extra) VALUES (3, 'again', 0)")
	refused(gone, RestoreOptions{}, lacks, "restore the others: "+RestoreCommand(gone.ID.String(), "name"))
	imagetest.Exec(t, t.server, "DELETE FROM hr.staff WHERE id = 3")
	t.must(changed, RestoreOptions{Columns: []string{"name"}})
	t.must(deleted, RestoreOptions{})
	require.Equal(t, []string{"1 lost 8", "9 taken 8"}, rows(t.T, t.one, "SELECT CONCAT(id, ' ', name, ' ', extra) FROM hr.staff ORDER BY id"))
	imagetest.Exec(t, t.server, "ALTER TABLE hr.staff ADD COLUMN photo MEDIUMBLOB")
	refused(gone, RestoreOptions{}, "'extra'", "default")
}

// refusesTaken: a row that left because another one has its value of a unique key comes back whole, when that has changed.
func (t *restored) refusesTaken() {
	e := clash(4, 4, person(9, "taken"), person(4, "Taken"))
	e.Kind = UpdateExists
	r := lost(t.T, t.all, e)
	require.Equal(t, []string{"id", "name", "photo"}, r.Columns, "all of the row is gone")
	shown := r.Shown(t.all, nil)
	columns, whole := shown.Suggest(nil)
	require.Empty(t, columns)
	require.True(t, whole)
	const inTheWay = `row {"id":9} of hr.staff on one is in the way: it has the same value of the unique key name (name)`
	remedy := func(o RestoreOptions) string {
		t.refused(r, o, fault.Row, inTheWay)
		_, err := Restore(t.Context(), t.all, r, o)
		f, _ := fault.As(err)
		return f.Remedy
	}
	require.Equal(t, "change or delete that row first", remedy(RestoreOptions{}))
	require.Equal(t, "change or delete that row first", remedy(RestoreOptions{DryRun: true}))
	imagetest.Exec(t.T, t.server, "INSERT INTO hr.staff VALUES (4,'new',NULL)")
	require.Contains(t, remedy(RestoreOptions{}), "(--columns)")
	imagetest.Exec(t.T, t.server, "DELETE FROM hr.staff WHERE id = 4", "UPDATE hr.staff SET name = 'other' WHERE id = 9")
	require.Empty(t, t.must(r, RestoreOptions{}).Left)
	require.Contains(t, t.staff(), "4 Taken -; 9 other -")
	imagetest.Exec(t.T, t.server, "DELETE FROM hr.staff WHERE id = 4", "UPDATE hr.staff SET name = 'taken' WHERE id = 9")
}

// TestSides: whose row the winner's is.
func TestSides(t *testing.T) {
	won, same, other := person(1, "won"), person(1, "lost"), person(2, "won")
	for name, c := range map[string]struct {
		kind                         Kind
		winner, loser, stands, other *Row
	}{
		"changed":       {UpdateOriginDiffers, won, same, won, nil},
		"key changed":   {UpdateOriginDiffers, other, same, other, nil},
		"deleted":       {UpdateDeleted, nil, same, nil, nil},
		"removed":       {UpdateExists, nil, same, nil, nil},
		"another row":   {UpdateExists, other, same, nil, other},
		"several rows":  {MultipleUnique, other, same, nil, other},
		"its reference": {ChildExists, won, same, won, nil},
		"another table": {ChildExists, car(1, 1), same, nil, nil},
		"lost deletion": {ChildExists, won, nil, won, nil},
	} {
		t.Run(name, func(t *testing.T) {
			stands, other := c.kind.Sides(c.winner, c.loser)
			require.Same(t, c.stands, stands)
			require.Same(t, c.other, other)
		})
	}
}

// TestRestoreEarly: a row that the winning change has not reached yet only looks restored.
func TestRestoreEarly(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) {
			s := start(t, flavor)
			one, two := reach(t, "one", s, east), reach(t, "two", start(t, sandbox.MariaDB118), west)
			all := []Server{one, two}
			hr(t, s)
			imagetest.Exec(t, s, "INSERT INTO hr.staff VALUES (1,'lost',NULL)")
			e := clash(1, 1, person(1, "won"), person(1, "lost"))
			r := lost(t, all, e)
			gone := lost(t, all, clash(2, 2, person(2, "won"), nil))
			beat := func(at change.Time) {
				require.NoError(t, checkpoint.Beat(t.Context(), one.DB, change.Context{}.With(west, at)))
			}
			_, err := Restore(t.Context(), all, r, RestoreOptions{})
			require.ErrorIs(t, err, errAway, "no heartbeat yet")
			beat(e.Winner.Version.Time - 1)
			for _, r := range []*Record{r, gone} {
				_, err := Restore(t.Context(), all, r, RestoreOptions{})
				require.ErrorIs(t, err, errAway)
			}
			_, err = Keep(t.Context(), all, r, RestoreOptions{}, time.Millisecond)
			require.ErrorIs(t, err, errAway)
			require.Equal(t, []string{Acknowledged}, rows(t, two, "SELECT state FROM replicator.conflict WHERE key_columns LIKE '%1%'"), "links that halted are released")

			done := make(chan error, 1)
			go func() {
				x, err := Keep(t.Context(), all, r, RestoreOptions{}, time.Minute)
				if err == nil && x.Statement == "" {
					err = errors.New("nothing was written")
				}
				done <- err
			}()
			imagetest.Exec(t, s, "UPDATE hr.staff SET name = 'won'") // it arrives
			require.NoError(t, <-done)
			require.Equal(t, []string{"lost"}, rows(t, one, "SELECT name FROM hr.staff"))
			beat(e.Winner.Version.Time)
			x, err := Restore(t.Context(), all, r, RestoreOptions{})
			require.NoError(t, err)
			require.Empty(t, x.Statement)
		})
	}
}

// TestRestoreOrigin: who cannot be asked, or is not known, is said.
func TestRestoreOrigin(t *testing.T) {
	servers := []Server{{Name: "one", ID: west}, {Name: "down", Err: fmt.Errorf("no route")}}
	r := &Record{Loser: Party{Version: change.Version{Time: 1, Origin: east}, Row: person(1, "a")}}
	_, err := Restore(t.Context(), servers, r, RestoreOptions{})
	require.ErrorContains(t, err, "cannot be asked now (down)")
	_, err = Restore(t.Context(), servers[:1], r, RestoreOptions{})
	require.ErrorContains(t, err, "is not in the configuration")
	r.Loser.Version = change.Version{}
	_, err = Restore(t.Context(), servers, r, RestoreOptions{})
	require.ErrorContains(t, err, "--on")
	_, err = Restore(t.Context(), servers, r, RestoreOptions{On: "down"})
	require.ErrorContains(t, err, "no route")
}

// TestRestoreAllTypes brings back rows of all types, on the flavor that lost them.
func TestRestoreAllTypes(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			s := start(t, flavor)
			table := imagetest.TypesFor("types.t", flavor)
			imagetest.Exec(t, s, "CREATE DATABASE types", "SET NAMES utf8mb4", table.Create())
			log := imagetest.Capture(t, s, func() { imagetest.Exec(t, s, table.Fill()...) })
			j := reach(t, "one", s, east)
			contents := func() (all []string) {
				rows, err := j.DB.QueryContext(t.Context(), table.Select())
				require.NoError(t, err)
				defer rows.Close()
				columns, err := rows.Columns()
				require.NoError(t, err)
				values, into := make([][]byte, len(columns)), make([]any, len(columns))
				for i := range values {
					into[i] = &values[i]
				}
				for rows.Next() {
					require.NoError(t, rows.Scan(into...))
					all = append(all, fmt.Sprintf("%q", values))
				}
				require.NoError(t, rows.Err())
				return all
			}
			want := contents()
			require.NotEmpty(t, want)
			imagetest.Exec(t, s, "DELETE FROM types.t WHERE id MOD 2 = 0", "UPDATE types.t SET INT_c = INT_c + 1, v_utf8 = 'won'")
			for i, ev := range log.Events {
				for k, r := range ev.Rows {
					values, err := image.Values(ev.Table, ev.After(r))
					require.NoError(t, err)
					row := &Row{Table: ev.Table, Values: values}
					e := &Entry{
						Table: ev.Table.Name, Key: change.Key{byte(i), byte(k)}, KeyRow: row, Kind: UpdateOriginDiffers, Policy: "last-writer-wins",
						Loser: Side{Version: at(i), Row: row},
					}
					require.NoError(t, Write(t.Context(), j.DB, Limits{MaxPacket: packet}, []*Entry{e}))
					record, _, err := Show(t.Context(), []Server{j}, e.ID().String())
					require.NoError(t, err)
					x, err := Restore(t.Context(), []Server{j}, record, RestoreOptions{})
					require.NoError(t, err)
					require.NotEmpty(t, x.Statement)
				}
			}
			require.Equal(t, want, contents())
		})
	}
}

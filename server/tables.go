package server

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"strings"

	"replicator/change"
	"replicator/config"
)

// Tables reads the definitions of all tables that match accepts, ordered by name. Views and the system schemas are never
// among them. The account sees those tables that it has a privilege on.
func Tables(ctx context.Context, q Querier, match func(change.TableName) bool) ([]*Table, error) {
	r := tableReader{q: q, match: match}
	return r.read(ctx)
}

// OneTable reads one definition, nil when the account sees no such table.
func OneTable(ctx context.Context, q Querier, name change.TableName) (*Table, error) {
	r := tableReader{q: q, one: &name, match: func(n change.TableName) bool { return n == name }}
	tables, err := r.read(ctx)
	if err != nil || len(tables) == 0 {
		return nil, err
	}
	return tables[0], nil
}

// tableReader collects what is spread over information_schema.
type tableReader struct {
	q      Querier
	match  func(change.TableName) bool
	one    *change.TableName // narrows every query
	tables map[change.TableName]*Table
}

func (r *tableReader) read(ctx context.Context) ([]*Table, error) {
	r.tables = map[change.TableName]*Table{}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"tables", r.readTables},
		{"columns", r.readColumns},
		{"keys", r.readKeys},
		{"foreign keys", r.readForeignKeys},
		{"triggers", r.readTriggers},
	} {
		if err := step.do(ctx); err != nil {
			return nil, Fault(err, "read the definitions of "+step.what)
		}
	}
	return slices.SortedFunc(maps.Values(r.tables), func(a, b *Table) int {
		if c := strings.Compare(a.Name.Database, b.Name.Database); c != 0 {
			return c
		}
		return strings.Compare(a.Name.Table, b.Name.Table)
	}), nil
}

// each runs a query whose first two columns are database and table, and calls f for the rows of wanted tables. The query
// has a %s where the condition on them goes.
func (r *tableReader) each(ctx context.Context, query, database, table string, f func(*Table, []sql.NullString)) error {
	condition := database + " NOT IN ('mysql','sys','information_schema','performance_schema','replicator')"
	var args []any
	if r.one != nil {
		condition, args = database+" = ? AND "+table+" = ?", []any{r.one.Database, r.one.Table}
	}
	rows, err := r.q.QueryContext(ctx, strings.Replace(query, "%s", condition, 1), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]sql.NullString, len(names))
	targets := make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		if t := r.tables[change.TableName{Database: values[0].String, Table: values[1].String}]; t != nil {
			f(t, values[2:])
			continue
		}
		f(nil, values)
	}
	return rows.Err()
}

func (r *tableReader) readTables(ctx context.Context) error {
	const query = `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES
 WHERE TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY') AND %s`
	return r.each(ctx, query, "TABLE_SCHEMA", "TABLE_NAME", func(_ *Table, v []sql.NullString) {
		name := change.TableName{Database: v[0].String, Table: v[1].String}
		if config.IsSystem(name.Database) || !r.match(name) {
			return
		}
		r.tables[name] = &Table{Name: name, Kind: v[2].String, Engine: v[3].String}
	})
}

func (r *tableReader) readColumns(ctx context.Context) error {
	collations, err := r.collations(ctx)
	if err != nil {
		return err
	}
	query := `SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.COLUMN_TYPE, c.DATA_TYPE, c.CHARACTER_SET_NAME,
 c.COLLATION_NAME, l.ID, c.IS_NULLABLE, c.EXTRA, c.GENERATION_EXPRESSION
 FROM information_schema.COLUMNS c LEFT JOIN (` + collations + `) l ON l.NAME = c.COLLATION_NAME
 WHERE %s ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION`
	return r.each(ctx, query, "c.TABLE_SCHEMA", "c.TABLE_NAME", func(t *Table, v []sql.NullString) {
		if t == nil {
			return
		}
		extra := strings.ToUpper(v[7].String)
		t.Columns = append(t.Columns, Column{
			Name: v[0].String, Type: cleanType(v[1].String), DataType: strings.ToLower(v[2].String), Charset: v[3].String,
			Collation: v[4].String, CollationID: collationID(v[5].String), Nullable: v[6].String == "YES",
			Generated:  v[8].String != "" || strings.Contains(extra, "GENERATED") && !strings.Contains(extra, "DEFAULT_GENERATED"),
			AutoUpdate: strings.Contains(extra, "ON UPDATE"), AutoIncrement: strings.Contains(extra, "AUTO_INCREMENT"),
			Invisible:  strings.Contains(extra, "INVISIBLE"),
			Compressed: strings.Contains(v[1].String, "COMPRESSED"), Expression: v[8].String,
		})
		t.Derived = t.Derived || t.Columns[len(t.Columns)-1].Generated
	})
}

// collations is a query for the names and numbers of all collations. MariaDB 10.10 and newer list some of them once for
// several character sets, without a number, and have the full names and numbers elsewhere.
func (r *tableReader) collations(ctx context.Context) (string, error) {
	const find = `SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'information_schema'
 AND TABLE_NAME = 'COLLATION_CHARACTER_SET_APPLICABILITY' AND COLUMN_NAME = 'FULL_COLLATION_NAME'`
	var full int
	if err := r.q.QueryRowContext(ctx, find).Scan(&full); err != nil {
		return "", err
	}
	if full == 0 {
		return "SELECT COLLATION_NAME AS NAME, ID FROM information_schema.COLLATIONS", nil
	}
	return "SELECT FULL_COLLATION_NAME AS NAME, ID FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY", nil
}

// cleanType removes MariaDB's comment for compressed columns.
func cleanType(text string) string {
	before, _, _ := strings.Cut(text, " /*")
	return before
}

// readKeys reads the columns of primary and unique keys, and looks whether there are other indexes than B-trees.
func (r *tableReader) readKeys(ctx context.Context) error {
	const query = `SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE, NON_UNIQUE
 FROM information_schema.STATISTICS WHERE %s ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX`
	return r.each(ctx, query, "TABLE_SCHEMA", "TABLE_NAME", func(t *Table, v []sql.NullString) {
		if t == nil {
			return
		}
		t.Derived = t.Derived || v[3].String != "BTREE" || !v[1].Valid
		if v[4].String != "0" {
			return
		}
		part := KeyPart{Column: -1, Prefix: atoi(v[2].String)}
		if v[1].Valid {
			part.Column = t.Column(v[1].String)
		}
		if v[0].String == "PRIMARY" {
			t.PrimaryKey = append(t.PrimaryKey, part)
			return
		}
		last := len(t.UniqueKeys) - 1
		if last < 0 || t.UniqueKeys[last].Name != v[0].String {
			t.UniqueKeys = append(t.UniqueKeys, UniqueKey{Name: v[0].String})
			last++
		}
		t.UniqueKeys[last].Parts = append(t.UniqueKeys[last].Parts, part)
	})
}

func (r *tableReader) readForeignKeys(ctx context.Context) error {
	const query = `SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA,
 k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, c.UPDATE_RULE, c.DELETE_RULE
 FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS c
 ON c.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND c.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND c.TABLE_NAME = k.TABLE_NAME
 WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND %s
 ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION`
	return r.each(ctx, query, "k.TABLE_SCHEMA", "k.TABLE_NAME", func(t *Table, v []sql.NullString) {
		if t == nil {
			return
		}
		last := len(t.ForeignKeys) - 1
		if last < 0 || t.ForeignKeys[last].Name != v[0].String {
			t.ForeignKeys = append(t.ForeignKeys, ForeignKey{
				Name: v[0].String, Parent: change.TableName{Database: v[2].String, Table: v[3].String},
				OnUpdate: v[5].String, OnDelete: v[6].String,
			})
			last++
		}
		fk := &t.ForeignKeys[last]
		fk.Columns = append(fk.Columns, v[1].String)
		fk.ParentColumns = append(fk.ParentColumns, v[4].String)
	})
}

func (r *tableReader) readTriggers(ctx context.Context) error {
	const query = `SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION,
 ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE %s
 ORDER BY EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME`
	return r.each(ctx, query, "EVENT_OBJECT_SCHEMA", "EVENT_OBJECT_TABLE", func(t *Table, v []sql.NullString) {
		if t == nil {
			return
		}
		t.Triggers = append(t.Triggers, Trigger{
			Name: v[0].String, Timing: v[1].String, Event: v[2].String, Statement: v[3].String,
		})
	})
}

func collationID(text string) uint16 { return uint16(atoi(text)) }

// atoi reads a number that the server wrote; "" (NULL) is 0.
func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

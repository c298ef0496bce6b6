package chunk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// Server is one of the servers that have the table.
type Server struct {
	Name   string
	DB     *sql.DB
	Flavor change.Flavor
}

// Table is one table on several servers, ready to be compared.
type Table struct {
	Source *change.Table // the definition of the first server, in whose terms all rows are read
	Sites  []*Site       // in the order of the servers
	// Lonely are columns that are not compared, because the first server does not have them: "name (server)".
	Lonely []string
	// Definition is the same text as long as the table is defined on all servers as it was.
	Definition string

	sums bool // the servers' checksums can be compared
	read int  // rows in a piece that is read
	// documents are columns that are text on the first server and JSON on another one.
	documents []int
	keyer     *image.Keyer
}

const (
	sumRows   = 2000    // in a range whose checksums are compared
	readRows  = 500     // in a piece that is read, unless they are long
	readBytes = 4 << 20 // of one server's rows in such a piece, by their average
)

// ErrNumbered says that each server numbers the rows of a table by itself: they cannot be compared.
var ErrNumbered = errors.New("each server numbers its rows by itself")

// Open reads the definitions of a table. numbered is asked whether each server numbers its rows by itself; it may be nil.
// where is a condition (SQL) that the rows must meet; "" is none.
func Open(ctx context.Context, servers []Server, name change.TableName, where string, numbered func(*change.Table) bool) (*Table, error) {
	definitions := make([]*server.Table, len(servers))
	if err := Each(len(servers), func(i int) (err error) {
		s := &servers[i]
		if definitions[i], err = server.OneTable(ctx, s.DB, name); err != nil {
			return server.Fault(err, fmt.Sprintf("read the definition of %s on %s", name, s.Name))
		}
		if definitions[i] == nil {
			return fault.New(fault.Definition, "make the table there, or leave it out of the replicated tables", "%s does not have table %s", s.Name, name)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	first := definitions[0]
	if len(first.PrimaryKey) == 0 {
		return nil, fault.New(fault.Definition, "give it a primary key", "table %s has none: its rows cannot be told apart", name)
	}
	t := &Table{
		Source: dml.TableOf(first), Definition: definitionOf(definitions), sums: true, keyer: image.NewKeyer(server.NewWeigher(servers[0].DB, servers[0].Flavor)),
	}
	if numbered != nil && numbered(t.Source) {
		return nil, ErrNumbered
	}
	if err := t.measure(ctx, &servers[0]); err != nil {
		return nil, err
	}
	for i, d := range definitions {
		s := &servers[i]
		plan, err := dml.NewPlan(t.Source, d, s.Flavor != servers[0].Flavor)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		t.documents = append(t.documents, plan.Documents()...)
		same, _ := dml.SameLayout(t.Source, d)
		t.sums = t.sums && same && s.Flavor == servers[0].Flavor
		for j := range d.Columns {
			if column := d.Columns[j].Name; first.Column(column) < 0 {
				t.Lonely = append(t.Lonely, column+" ("+s.Name+")")
			}
		}
		t.Sites = append(t.Sites, &Site{Server: s.Name, DB: s.DB, Plan: plan.Where(where)})
	}
	return t, nil
}

func definitionOf(tables []*server.Table) string {
	var text []byte
	for _, t := range tables {
		text = fmt.Appendf(text, "%+v %+v\n", t.Columns, t.PrimaryKey)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// measure finds out how many rows may be read at once.
func (t *Table) measure(ctx context.Context, s *Server) error {
	name := t.Source.Name
	var average sql.NullInt64
	err := s.DB.QueryRowContext(ctx, "SELECT AVG_ROW_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		name.Database, name.Table).Scan(&average)
	if err != nil {
		return server.Fault(err, fmt.Sprintf("read the size of %s on %s", name, s.Name))
	}
	t.read = int(min(readRows, max(1, readBytes/max(1, average.Int64))))
	return nil
}

// Difference is a row that is not the same on all servers as they were read, which was not at one time.
type Difference struct {
	Rows [][]image.Value // by site; nil where there is none
}

// Named is the row as one of the servers has it.
func (d *Difference) Named() []image.Value {
	for _, values := range d.Rows {
		if values != nil {
			return values
		}
	}
	return nil
}

// Compare walks through the table above a row (nil: all of it) and hands out what differs, a piece at a time: rows are how
// many rows each server has in it, and end its last row, nil for the last piece. Equal pieces are handed out as well.
func (t *Table) Compare(ctx context.Context, after []image.Value, do func(rows []int64, different []Difference, end []image.Value) error) error {
	return Walk(ctx, t.Sites[0], after, sumRows, func(r Range) error {
		rows, equal, err := t.sumsEqual(ctx, r)
		if err != nil {
			return err
		}
		if equal {
			return do(rows, nil, r.UpTo)
		}
		return Read(ctx, t.Sites, r, t.read, func(end []image.Value, found [][][]image.Value) error {
			rows := make([]int64, len(found))
			for i := range found {
				rows[i] = int64(len(found[i]))
			}
			different, err := t.different(ctx, found)
			if err != nil {
				return err
			}
			return do(rows, different, end)
		})
	})
}

// sumsEqual compares a range by the checksums that the servers compute.
func (t *Table) sumsEqual(ctx context.Context, r Range) (rows []int64, equal bool, err error) {
	if !t.sums {
		return nil, false, nil
	}
	sums := make([]Sum, len(t.Sites))
	if err := Each(len(t.Sites), func(i int) (err error) {
		sums[i], err = t.Sites[i].Sum(ctx, r)
		return err
	}); err != nil {
		return nil, false, err
	}
	for _, s := range sums {
		if s != sums[0] || !s.Whole {
			return nil, false, nil
		}
		rows = append(rows, s.Rows)
	}
	return rows, true, nil
}

// different compares rows that were read.
func (t *Table) different(ctx context.Context, found [][][]image.Value) ([]Difference, error) {
	at := map[change.Key]int{}
	var all []Difference
	for i := range found {
		for _, values := range found[i] {
			key, err := t.keyer.RowKey(ctx, t.Source, values)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.Sites[i].Server, err)
			}
			n, seen := at[key]
			if !seen {
				n = len(all)
				at[key] = n
				all = append(all, Difference{Rows: make([][]image.Value, len(t.Sites))})
			}
			all[n].Rows[i] = values
		}
	}
	var left []Difference
	for _, d := range all {
		if !t.Equal(d.Rows) {
			left = append(left, d)
		}
	}
	return left, nil
}

// Equal reports whether all servers have the same row, or none.
func (t *Table) Equal(rows [][]image.Value) bool {
	for _, values := range rows[1:] {
		if !t.Same(rows[0], values) {
			return false
		}
	}
	return true
}

// Same compares two rows; nil is none.
func (t *Table) Same(a, b []image.Value) bool {
	return len(journal.Differing(t.Row(a).WithDocuments(t.documents), t.Row(b).WithDocuments(t.documents))) == 0
}

// Row is a row with its definition; nil of none.
func (t *Table) Row(values []image.Value) *journal.Row {
	if values == nil {
		return nil
	}
	return &journal.Row{Table: t.Source, Values: values}
}

// DecodeKey makes a row of the table that has nothing but its primary key, of what image.EncodeKey has written. ok is false
// when the key has been defined otherwise since.
func (t *Table) DecodeKey(encoded []byte) (row []image.Value, ok bool) {
	key, values, err := image.DecodeKey(t.Source.Name, encoded)
	if err != nil || len(key.PrimaryKey) != len(t.Source.PrimaryKey) {
		return nil, false
	}
	row = make([]image.Value, len(t.Source.Columns))
	for i, part := range t.Source.PrimaryKey {
		if !strings.EqualFold(key.Columns[i].Name, t.Source.Columns[part.Column].Name) {
			return nil, false
		}
		row[part.Column] = values[i]
	}
	again, err := image.EncodeKey(t.Source, row)
	return row, err == nil && bytes.Equal(again, encoded)
}

package applier

import (
	"context"
	"fmt"
	"strings"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// shapes are the dependencies of tables' rows by the definitions that the target has now. It is not safe for concurrent use.
type shapes struct {
	definitions *Definitions
	target      server.Querier
	known       map[*change.Table]*shape
	epoch       uint64 // of the definitions
}

func newShapes(d *Definitions, target server.Querier) *shapes {
	return &shapes{definitions: d, target: target, known: map[*change.Table]*shape{}}
}

// shape is what the rows of one source definition depend on besides their own keys.
type shape struct {
	values []dependency
	// foreign says that foreign keys lead from the table or to it, and hidden that it has unique keys whose values cannot be
	// told from a row's image.
	foreign, hidden bool
}

// claims appends what a row change holds.
func (s *shape) claims(list []claim, ev *change.RowsEvent, r change.Row) ([]claim, error) {
	list = append(list, claim{token: rowToken(r.Key)})
	if r.NewKey != r.Key {
		list = append(list, claim{token: rowToken(r.NewKey)})
	}
	for i := range s.values {
		var err error
		if list, err = s.values[i].claims(list, ev.Before(r), ev.After(r)); err != nil {
			return nil, fmt.Errorf("what rows of table %s depend on: %w", ev.Table.Name, err)
		}
	}
	return list, nil
}

// dependency is a list of columns whose values other rows may have too.
type dependency struct {
	tokens *image.Tokens
	shared bool // rows refer to another by these columns
	parent bool // other rows refer to this one by them
}

// claims appends what a row change holds. A value that an update leaves as it is matters to those only that refer to the
// row: the server locks it all the same.
func (d *dependency) claims(list []claim, before, after []byte) ([]claim, error) {
	var tokens [2]image.Token
	var known [2]bool
	for i, img := range [...][]byte{before, after} {
		if img == nil {
			continue
		}
		var err error
		if tokens[i], known[i], err = d.tokens.Of(img); err != nil {
			return nil, err
		}
	}
	if known[0] && known[1] && tokens[0] == tokens[1] {
		if !d.parent {
			return list, nil
		}
		known[1] = false
	}
	for i, token := range tokens {
		if known[i] {
			list = append(list, claim{token, d.shared})
		}
	}
	return list, nil
}

// of returns the shape of a table's rows.
func (k *shapes) of(ctx context.Context, t *change.Table) (*shape, error) {
	if epoch := k.definitions.Epoch(); epoch != k.epoch || len(k.known) >= maxRegisters {
		k.epoch = epoch
		clear(k.known)
	}
	if s, known := k.known[t]; known {
		return s, nil
	}
	s := &shape{}
	target, err := k.definitions.Table(ctx, k.target, t.Name)
	if err != nil || target == nil {
		return s, err
	}
	references, err := k.definitions.References(ctx, k.target, t.Name)
	if err != nil {
		return nil, err
	}
	k.known[t] = s
	s.foreign = len(target.ForeignKeys) > 0 || len(references) > 0
	for _, key := range target.UniqueKeys {
		names := make([]string, len(key.Parts))
		prefixes := make([]int, len(key.Parts))
		for i, p := range key.Parts {
			if p.Column >= 0 {
				names[i], prefixes[i] = target.Columns[p.Column].Name, p.Prefix
			}
		}
		if !s.add(t, "unique "+t.Name.String()+" "+key.Name, names, prefixes, dependency{}) {
			s.hidden = true
		}
	}
	for _, fk := range target.ForeignKeys {
		s.add(t, referred(fk), fk.Columns, nil, dependency{shared: true})
	}
	seen := map[string]bool{}
	for _, ref := range references {
		if name := referred(ref.key); !seen[name] {
			seen[name] = true
			s.add(t, name, ref.key.ParentColumns, nil, dependency{parent: true})
		}
	}
	return s, nil
}

// referred names the columns of a parent that a foreign key leads to.
func referred(fk server.ForeignKey) string {
	return strings.ToLower("parent " + fk.Parent.String() + " " + strings.Join(fk.ParentColumns, ","))
}

// add adds a dependency on columns, if the source has them in a form that can be compared.
func (s *shape) add(t *change.Table, name string, columns []string, prefixes []int, d dependency) bool {
	parts := make([]change.KeyPart, len(columns))
	for i, column := range columns {
		parts[i].Column = -1
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, column) {
				parts[i].Column = j
			}
		}
		if parts[i].Column < 0 {
			return false
		}
		if prefixes != nil {
			parts[i].Prefix = prefixes[i]
		}
	}
	tokens, err := image.NewTokens(t, name, parts)
	if err != nil { // the server's checks find out
		return false
	}
	d.tokens = tokens
	s.values = append(s.values, d)
	return true
}

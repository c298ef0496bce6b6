package applier

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// claim is something that a group's rows have in common with those of others: a row, a value of a unique key, or a row that
// foreign keys lead to. Groups with a claim in common are carried out one after the other; those that only refer to the
// same row share it.
//
// Claims save work. The outcome is right without them, because groups commit in order: what comes too early is refused by
// the server's checks, or has a lock that the group before needs, and is rolled back.
type claim struct {
	token  image.Token
	shared bool
}

// claims are what the groups under way hold, by the numbers of the groups.
type claims struct {
	held   map[image.Token]holders
	shapes map[*change.Table]*shape
	epoch  uint64 // of the target's definitions, for which shapes are
	opt    *Options
}

// holders are the newest groups that hold a claim. Groups end in the order of their numbers.
type holders struct{ alone, shared uint64 }

// maxClaims is how many claims are remembered before those of groups that have ended are looked for.
const maxClaims = 1 << 16

func newClaims(opt *Options) *claims {
	return &claims{held: map[image.Token]holders{}, shapes: map[*change.Table]*shape{}, opt: opt}
}

// of lists what a group must hold.
func (c *claims) of(ctx context.Context, g *group) ([]claim, error) {
	if epoch := c.opt.Definitions.Epoch(); epoch != c.epoch || len(c.shapes) >= maxRegisters {
		c.epoch = epoch
		clear(c.shapes)
	}
	list := make([]claim, 0, g.rows+g.rows/8)
	for _, tx := range g.txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			s, err := c.shape(ctx, ev.Table)
			if err != nil {
				return err
			}
			for _, r := range ev.Rows {
				list = append(list, claim{token: rowToken(r.Key)})
				if r.NewKey != r.Key {
					list = append(list, claim{token: rowToken(r.NewKey)})
				}
				for i := range s.values {
					if list, err = s.values[i].claims(list, ev.Before(r), ev.After(r)); err != nil {
						return fmt.Errorf("what rows of table %s depend on: %w", ev.Table.Name, err)
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

func rowToken(k change.Key) image.Token { return image.Token(binary.LittleEndian.Uint64(k[:])) }

// behind returns the number of the newest group from oldest on that must be committed before a group with this list may
// begin, 0 when there is none.
func (c *claims) behind(list []claim, oldest uint64) uint64 {
	var newest uint64
	for _, x := range list {
		h, ok := c.held[x.token]
		if !ok {
			continue
		}
		if h.alone >= oldest {
			newest = max(newest, h.alone)
		}
		if !x.shared && h.shared >= oldest {
			newest = max(newest, h.shared)
		}
	}
	return newest
}

// hold gives a list to the group with this number; oldest is that of the first that is under way.
func (c *claims) hold(list []claim, number, oldest uint64) {
	if len(c.held)+len(list) > maxClaims {
		maps.DeleteFunc(c.held, func(_ image.Token, h holders) bool { return h.alone < oldest && h.shared < oldest })
	}
	for _, x := range list {
		h := c.held[x.token]
		if x.shared {
			h.shared = number
		} else {
			h.alone = number
		}
		c.held[x.token] = h
	}
}

// release forgets everything: no group is under way.
func (c *claims) release() { clear(c.held) }

// shape is what the rows of one source definition depend on besides their own keys.
type shape struct{ values []dependency }

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

func (c *claims) shape(ctx context.Context, t *change.Table) (*shape, error) {
	if s, known := c.shapes[t]; known {
		return s, nil
	}
	s := &shape{}
	c.shapes[t] = s
	target, err := c.opt.Definitions.Table(ctx, c.opt.Server.DB(), t.Name)
	if err != nil || target == nil {
		return s, err
	}
	references, err := c.opt.Definitions.References(ctx, c.opt.Server.DB(), t.Name)
	if err != nil {
		return nil, err
	}
	for _, key := range target.UniqueKeys {
		names := make([]string, len(key.Parts))
		prefixes := make([]int, len(key.Parts))
		for i, p := range key.Parts {
			if p.Column >= 0 {
				names[i], prefixes[i] = target.Columns[p.Column].Name, p.Prefix
			}
		}
		s.add(t, "unique "+t.Name.String()+" "+key.Name, names, prefixes, dependency{})
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
func (s *shape) add(t *change.Table, name string, columns []string, prefixes []int, d dependency) {
	parts := make([]change.KeyPart, len(columns))
	for i, column := range columns {
		parts[i].Column = -1
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, column) {
				parts[i].Column = j
			}
		}
		if parts[i].Column < 0 {
			return
		}
		if prefixes != nil {
			parts[i].Prefix = prefixes[i]
		}
	}
	tokens, err := image.NewTokens(t, name, parts)
	if err != nil { // the server's checks find out
		return
	}
	d.tokens = tokens
	s.values = append(s.values, d)
}

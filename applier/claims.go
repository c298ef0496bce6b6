package applier

import (
	"context"
	"encoding/binary"
	"maps"

	"replicator/change"
	"replicator/image"
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
	shapes *shapes
}

// holders are the newest groups that hold a claim. Groups end in the order of their numbers.
type holders struct{ alone, shared uint64 }

// maxClaims is how many claims are remembered before those of groups that have ended are looked for.
const maxClaims = 1 << 16

func newClaims(s *shapes) *claims {
	return &claims{held: map[image.Token]holders{}, shapes: s}
}

// of lists what a group must hold.
func (c *claims) of(ctx context.Context, g *group) ([]claim, error) {
	list := make([]claim, 0, g.rows+g.rows/8)
	for _, tx := range g.txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			s, err := c.shapes.of(ctx, ev.Table)
			if err != nil {
				return err
			}
			for _, r := range ev.Rows {
				if list, err = s.claims(list, ev, r); err != nil {
					return err
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

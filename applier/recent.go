package applier

import (
	"strconv"
	"strings"
	"sync"

	"replicator/change"
	"replicator/image"
	"replicator/journal"
)

// recentTransactions is how many transactions a Recent remembers at least, and half of what it remembers at most.
const recentTransactions = 1 << 14

// Recent remembers of a target's newest transactions what their versions do not say: the GTID, and who made them. The
// change index knows versions only, and conflicts are mostly about what is new. It is safe for concurrent use.
type Recent struct {
	mu    sync.Mutex
	gtids generations[change.GTID]
	told  generations[signature] // of the few that say more
}

type signature struct {
	log     []change.LogRow
	settles string
	// originals are the rows of which the transaction states an older value again.
	originals map[change.Key]change.Version
}

// generations are the newest of many values. The newer map takes what comes until it is full; then it is the older one,
// and what that has held is forgotten at once: deleting one value for each that comes costs more than keeping them.
type generations[V any] struct{ newer, older map[change.Version]V }

func newGenerations[V any]() generations[V] {
	return generations[V]{map[change.Version]V{}, map[change.Version]V{}}
}

func (g *generations[V]) put(v change.Version, value V) {
	if len(g.newer) >= recentTransactions {
		g.newer, g.older = g.older, g.newer
		clear(g.newer)
	}
	g.newer[v] = value
}

func (g *generations[V]) get(v change.Version) V {
	if value, ok := g.newer[v]; ok {
		return value
	}
	return g.older[v]
}

// NewRecent returns an empty memory.
func NewRecent() *Recent {
	return &Recent{gtids: newGenerations[change.GTID](), told: newGenerations[signature]()}
}

// Note remembers a transaction of a source, or of the target itself.
func (r *Recent) Note(tx *change.Transaction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gtids.put(tx.Stamp.Version, tx.GTID)
	if len(tx.Log) > 0 || tx.Settles != "" || len(tx.Originals) > 0 {
		r.told.put(tx.Stamp.Version, signature{tx.Log, tx.Settles, tx.Originals})
	}
}

// NoteEntry remembers a transaction that is inside a replicated one. What a link has told of the whole transaction stays.
func (r *Recent) NoteEntry(e *change.ManifestEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gtids.put(e.Stamp.Version, e.GTID)
}

// side describes a change that the target has, or what the target has for no known change.
func (r *Recent) side(table change.TableName, v change.Version, row *journal.Row) journal.Side {
	side := journal.Side{Version: v, Row: row}
	r.mu.Lock()
	gtid, told := r.gtids.get(v), r.told.get(v)
	r.mu.Unlock()
	side.GTID = gtid
	sign(&side, told.log, table, row)
	return side
}

// original is the version of the change whose value a change gives a row: its own, unless it states an older one again.
func (r *Recent) original(v change.Version, key change.Key) change.Version {
	r.mu.Lock()
	defer r.mu.Unlock()
	if original, again := r.told.get(v).originals[key]; again {
		return original
	}
	return v
}

// settled is the kind of conflict that a change has settled, "" of an ordinary one.
func (r *Recent) settled(v change.Version) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told.get(v).settles
}

// sign says who made a change of a row: the row of the change_log that names it, or, where none does, the user of all rows
// that the transaction wrote to its log.
func sign(side *journal.Side, log []change.LogRow, table change.TableName, row *journal.Row) {
	if len(log) == 0 {
		return
	}
	if row != nil {
		key := keyText(row)
		for i := range log {
			l := &log[i]
			if l.Key == key && (strings.EqualFold(l.Table, table.Table) || strings.EqualFold(l.Table, table.String())) {
				side.User, side.Comment = l.User, l.Comment
				return
			}
		}
	}
	for i := range log {
		if log[i].User != log[0].User {
			return
		}
	}
	side.User, side.Comment = log[0].User, log[0].Comment
}

// keyText is a primary key as an application would write it: its values, joined by commas.
func keyText(row *journal.Row) string {
	parts := make([]string, 0, len(row.Table.PrimaryKey))
	for _, p := range row.Table.PrimaryKey {
		v := &row.Values[p.Column]
		switch v.Kind {
		case image.Int:
			parts = append(parts, strconv.FormatInt(v.Int, 10))
		case image.Uint:
			parts = append(parts, strconv.FormatUint(v.Uint, 10))
		case image.Float, image.Double:
			parts = append(parts, strconv.FormatFloat(v.Float, 'g', -1, 64))
		default:
			parts = append(parts, string(v.Bytes))
		}
	}
	return strings.Join(parts, ",")
}

package notify

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"replicator/change"
	"replicator/journal"
)

// digest is what a message says about its conflicts: a few of them in detail, all of them in numbers. It takes little
// memory however many there are.
type digest struct {
	total         int
	first, last   time.Time
	kinds         map[tableKind]int
	otherKinds    int // conflicts of tables that did not fit into kinds
	rows          map[rowKey]int
	approximately bool // rows were forgotten: counts are at least what rows says
	details       []detail
	limit         int      // of details
	findings      []*entry // of comparisons; total does not count them
}

type tableKind struct {
	table change.TableName
	kind  journal.Kind
}

type rowKey struct {
	table change.TableName
	key   string // JSON
}

// detail is a conflict that is told in full.
type detail struct {
	*entry
	from *peer // who has it in its journal
}

const (
	maxKinds = 500
	maxRows  = 500
	topKinds = 20
	topRows  = 10
)

func newDigest(details int) *digest {
	return &digest{kinds: map[tableKind]int{}, rows: map[rowKey]int{}, limit: details}
}

func (d *digest) add(e *entry, from *peer) {
	if e.finding != nil {
		d.findings = append(d.findings, e)
		return
	}
	d.total++
	if d.first.IsZero() || e.at.Before(d.first) {
		d.first = e.at
	}
	if e.at.After(d.last) {
		d.last = e.at
	}
	k := tableKind{e.table, e.kind}
	if _, known := d.kinds[k]; known || len(d.kinds) < maxKinds {
		d.kinds[k]++
	} else {
		d.otherKinds++
	}
	d.rows[rowKey{e.table, e.key}]++
	if len(d.rows) > maxRows {
		d.thin()
	}
	if len(d.details) < d.limit {
		d.details = append(d.details, detail{e, from})
	}
}

// size is of how much a message tells.
func (d *digest) size() int { return d.total + len(d.findings) }

// thin makes room by counting every row one less (Misra and Gries): what is left is the rows with the most conflicts.
func (d *digest) thin() {
	d.approximately = true
	for k := range d.rows {
		if d.rows[k]--; d.rows[k] == 0 {
			delete(d.rows, k)
		}
	}
}

type counted[K any] struct {
	key K
	n   int
}

func (d *digest) worstKinds() []counted[tableKind] {
	return most(d.kinds, topKinds, func(a, b tableKind) int {
		return cmp.Or(cmp.Compare(a.table.String(), b.table.String()), cmp.Compare(a.kind, b.kind))
	})
}

// worstRows are the rows with more than one conflict, those with the most first.
func (d *digest) worstRows() []counted[rowKey] {
	rows := most(d.rows, topRows, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(a.table.String(), b.table.String()), cmp.Compare(a.key, b.key))
	})
	return slices.DeleteFunc(rows, func(c counted[rowKey]) bool { return c.n < 2 })
}

func most[K comparable](counts map[K]int, n int, compare func(a, b K) int) []counted[K] {
	var out []counted[K]
	for k, c := range maps.All(counts) {
		out = append(out, counted[K]{k, c})
	}
	slices.SortFunc(out, func(a, b counted[K]) int { return cmp.Or(cmp.Compare(b.n, a.n), compare(a.key, b.key)) })
	return out[:min(n, len(out))]
}

// tables lists the tables, sorted.
func (d *digest) tables() []change.TableName {
	seen := map[change.TableName]bool{}
	for k := range d.kinds {
		seen[k.table] = true
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b change.TableName) int { return cmp.Compare(a.String(), b.String()) })
}

package mesh

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
)

const (
	verifiedEvery   = 5 * time.Second
	verifiedTimeout = 3 * time.Second
)

// verifications are what the last comparison of each table has found.
type verifications map[change.TableName]checkpoint.Verified

// loadVerified asks all servers: each has been told what was found, but one that was away then does not know the newest.
// Those that do not answer say nothing. It is nil when none does.
func loadVerified(ctx context.Context, databases []*sql.DB) verifications {
	ctx, cancel := context.WithTimeout(ctx, verifiedTimeout)
	defer cancel()
	lists, errs := make([][]checkpoint.Verified, len(databases)), make([]error, len(databases))
	var wg sync.WaitGroup
	for i, db := range databases {
		wg.Go(func() { lists[i], errs[i] = checkpoint.LoadVerified(ctx, db) })
	}
	wg.Wait()
	var all verifications
	for i, list := range lists {
		if errs[i] != nil {
			continue
		}
		if all == nil {
			all = verifications{}
		}
		for _, v := range list {
			if v.At.After(all[v.Table].At) {
				all[v.Table] = v
			}
		}
	}
	return all
}

// watchVerified keeps for Status what the last comparisons have found.
func (m *Mesh) watchVerified(ctx context.Context) {
	pause := verifiedEvery / 10 // the first time
	for wait(ctx, pause) == nil {
		began := time.Now()
		var databases []*sql.DB
		for _, x := range m.members {
			if x.profile() != nil {
				databases = append(databases, x.server.DB())
			}
		}
		if found := loadVerified(ctx, databases); found != nil {
			m.verified.Store(&found)
		}
		pause = max(verifiedEvery, countEffort*time.Since(began))
	}
}

// on notes in a status what is known of its tables. Those that no link has met yet stand at the end, without a link.
func (v verifications) on(tables []TableStatus, c *config.Config) []TableStatus {
	listed := map[string]bool{}
	byName := map[string]checkpoint.Verified{}
	for name, one := range v {
		byName[name.String()] = one
	}
	for i := range tables {
		t := &tables[i]
		listed[t.Table] = true
		if one, found := byName[t.Table]; found {
			t.VerifiedAt, t.VerifiedEqual = new(Timestamp(one.At)), new(one.Equal)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(v), func(a, b change.TableName) int { return cmp.Compare(a.String(), b.String()) }) {
		if !listed[name.String()] && c.Tables.Matches(name) {
			tables = append(tables, TableStatus{Table: name.String(), VerifiedAt: new(Timestamp(v[name].At)), VerifiedEqual: new(v[name].Equal)})
		}
	}
	return tables
}

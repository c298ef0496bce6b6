package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"replicator/config"
	"replicator/server"
)

// Filter says which conflicts are wanted. A zero field wants all.
type Filter struct {
	Table  config.Pattern
	Server string // that has it in its journal, or that one of the two changes came from
	Since  time.Time
	Until  time.Time
	State  string
	Limit  int // of conflicts, the newest first
}

// List returns conflicts, the newest first, each once with all servers that have it. Its time is that of its first entry. The
// failures are the servers that could not be asked.
func List(ctx context.Context, servers []Server, f Filter) ([]*Record, []Failure) {
	for size := f.Limit; ; size *= 2 {
		list, beyond, failed := f.read(ctx, servers, size)
		if f.Limit == 0 {
			return list, failed
		}
		// What was not read is no newer than what was read last.
		if beyond.IsZero() || len(list) >= f.Limit && !list[f.Limit-1].Time.Before(beyond) {
			return list[:min(len(list), f.Limit)], failed
		}
	}
}

// read merges the newest entries of all servers, so many of each; 0 are all. beyond is a time that no conflict comes after that
// was not read, zero where there is none.
func (f *Filter) read(ctx context.Context, servers []Server, size int) (list []*Record, beyond time.Time, failed []Failure) {
	copies, failed := ask(ctx, servers, func(ctx context.Context, s Server) ([]*Record, error) {
		condition, args := f.condition(s, servers)
		return read(ctx, s, condition+" ORDER BY decided_at DESC, seq DESC"+limit(size), args)
	})
	wanted := map[ID]bool{}
	for _, c := range copies {
		for _, r := range c {
			wanted[r.ID] = true
		}
		if size > 0 && len(c) == size && c[size-1].Time.After(beyond) {
			beyond = c[size-1].Time
		}
	}
	// Another server's copy may be outside of what was read there.
	rest, more := ask(ctx, servers, func(ctx context.Context, s Server) ([]*Record, error) {
		at := slices.IndexFunc(servers, func(o Server) bool { return o.Name == s.Name })
		return readMissing(ctx, s, wanted, copies[at])
	})
	for i := range copies {
		copies[i] = append(copies[i], rest[i]...)
	}
	return f.pick(copies), beyond, mergeFailures(failed, more)
}

// Found counts the conflicts that a filter finds, whatever its limit. It reads at most sampleRows of each server: exact is
// false where there may be more, for that or because a server could not be asked.
func Found(ctx context.Context, servers []Server, f Filter) (n int, exact bool) {
	state := f.State
	f.State = "" // servers may have different ones
	lists, failed := ask(ctx, servers, func(ctx context.Context, s Server) (map[ID]string, error) {
		condition, args := f.condition(s, servers)
		return readStates(ctx, s, condition+limit(sampleRows), args...)
	})
	exact = len(failed) == 0 && !slices.ContainsFunc(lists, func(l map[ID]string) bool { return len(l) == sampleRows })
	for _, s := range mergeStates(lists) {
		if state == "" || s == state {
			n++
		}
	}
	return n, exact
}

func newestFirst(a, b *Record) int {
	return cmp.Or(b.Time.Compare(a.Time), slices.Compare(a.ID[:], b.ID[:]))
}

// pick merges the copies, and leaves those that the filter wants.
func (f *Filter) pick(copies [][]*Record) []*Record {
	known := map[ID]*Record{}
	list := []*Record{}
	for _, r := range slices.Concat(copies...) {
		if first := known[r.ID]; first != nil {
			first.merge(r)
			continue
		}
		known[r.ID] = r
		list = append(list, r)
	}
	// A server that could not be told may still have an older state, and one may have noticed it later than another.
	list = slices.DeleteFunc(list, func(r *Record) bool {
		return f.State != "" && r.State != f.State || r.Time.Before(f.Since) || !f.Until.IsZero() && !r.Time.Before(f.Until)
	})
	slices.SortFunc(list, newestFirst)
	return list
}

// condition is the filter as SQL for one server's journal.
func (f *Filter) condition(s Server, servers []Server) (text string, args []any) {
	and := []string{"1"}
	if !f.Table.IsZero() {
		database, table := f.Table.Like()
		and, args = append(and, "database_name LIKE ? ESCAPE '|' AND table_name LIKE ? ESCAPE '|'"), append(args, database, table)
	}
	if f.Server != "" && f.Server != s.Name {
		party, more := f.party(servers)
		and, args = append(and, party), append(args, more...)
	}
	for _, b := range []struct {
		at     time.Time
		column string
	}{{f.Since, "decided_at >= ?"}, {f.Until, "decided_at < ?"}} {
		// The wanted server may have noticed what is older later than others.
		if !b.at.IsZero() && (b.at != f.Until || f.Server != s.Name) {
			and, args = append(and, b.column), append(args, b.at.UTC().Format("2006-01-02 15:04:05.000000"))
		}
	}
	if f.State != "" {
		and, args = append(and, "state = ?"), append(args, f.State)
	}
	return strings.Join(and, " AND "), args
}

// party is the condition that one of the two changes came from the wanted server. Where that cannot be asked and nobody knows
// its identity, any change may be its own that none of the known servers has made.
func (f *Filter) party(servers []Server) (text string, args []any) {
	var known []any
	for i := range servers {
		s := &servers[i]
		switch {
		case s.Name == f.Server && !s.ID.IsZero():
			return "(winner_origin = ? OR loser_origin = ?)", []any{s.ID[:], s.ID[:]}
		case s.Name == f.Server && s.Err == nil:
			return "0", nil // it has not begun to take part
		case !s.ID.IsZero():
			known = append(known, s.ID[:])
		}
	}
	if len(known) == 0 {
		return "1", nil
	}
	in := "(?" + strings.Repeat(",?", len(known)-1) + ")"
	return "(winner_origin NOT IN " + in + " OR loser_origin NOT IN " + in + ")", slices.Concat(known, known)
}

func limit(n int) string {
	if n == 0 {
		return ""
	}
	return " LIMIT " + strconv.Itoa(n)
}

func read(ctx context.Context, s Server, condition string, args []any) ([]*Record, error) {
	rows, err := s.DB.QueryContext(ctx, "SELECT "+recordColumns+" FROM replicator.conflict WHERE "+condition, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*Record
	for rows.Next() {
		r, err := scan(rows, s.Name)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return list, readRestored(ctx, s, list)
}

// readRestored adds to records of one server which columns were put back. It is asked apart, so that sorting a list does not
// carry the rows along.
func readRestored(ctx context.Context, s Server, list []*Record) error {
	known := map[ID]*Record{}
	for _, r := range list {
		if r.State == Restored {
			known[r.ID] = r
		}
	}
	for ids := range slices.Chunk(slices.Collect(maps.Keys(known)), idsAtOnce) {
		if err := readRestoredOf(ctx, s, ids, known); err != nil {
			return err
		}
	}
	return nil
}

func readRestoredOf(ctx context.Context, s Server, ids []ID, known map[ID]*Record) error {
	in, args := oneOf(ids)
	rows, err := s.DB.QueryContext(ctx, "SELECT id, JSON_EXTRACT(CONVERT(loser_row USING utf8mb4), '$.restored') FROM replicator.conflict WHERE "+
		in+" AND loser_row IS NOT NULL", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, columns []byte
		if err := rows.Scan(&id, &columns); err != nil {
			return err
		}
		if columns == nil {
			continue
		}
		r := known[ID(id)]
		if err := json.Unmarshal(columns, &r.Restored); err != nil {
			return fmt.Errorf("read which columns of conflict %s are restored: %w", r.ID, err)
		}
	}
	return rows.Err()
}

// oneOf is the condition that a conflict is one of some.
func oneOf(ids []ID) (condition string, args []any) {
	for i := range ids {
		args = append(args, ids[i][:])
	}
	return "id IN (?" + strings.Repeat(",?", len(ids)-1) + ")", args
}

// idsAtOnce is how many conflicts one statement names.
const idsAtOnce = 500

// readMissing reads those of the wanted that are not among the known.
func readMissing(ctx context.Context, s Server, wanted map[ID]bool, known []*Record) ([]*Record, error) {
	missing := maps.Clone(wanted)
	for _, r := range known {
		delete(missing, r.ID)
	}
	var list []*Record
	for ids := range slices.Chunk(slices.Collect(maps.Keys(missing)), idsAtOnce) {
		in, args := oneOf(ids)
		more, err := read(ctx, s, in, args)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// ask asks all servers at once. A server without a journal has nothing to say.
func ask[T any](ctx context.Context, servers []Server, question func(context.Context, Server) (T, error)) ([]T, []Failure) {
	answers, errs := make([]T, len(servers)), make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if s.Err != nil {
			errs[i] = s.Err
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, serverTimeout)
			defer cancel()
			answers[i], errs[i] = question(ctx, s)
		})
	}
	wg.Wait()
	var failed []Failure
	for i, err := range errs {
		if err != nil && !server.IsMissingTable(err) {
			failed = append(failed, Failure{Server: servers[i].Name, Err: server.Fault(err, "ask the journal of "+servers[i].Name)})
		}
	}
	return answers, failed
}

// mergeFailures keeps one failure of each server.
func mergeFailures(a, b []Failure) []Failure {
	for _, f := range b {
		if !slices.ContainsFunc(a, func(o Failure) bool { return o.Server == f.Server }) {
			a = append(a, f)
		}
	}
	return a
}

package mesh

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/notify"
	"replicator/verify"
)

const (
	scheduleEvery   = 10 * time.Second // how often it is judged whether a comparison is due
	scheduleRetry   = 5 * time.Second  // after the first failure; each further pause is twice as long
	scheduleLongest = 10 * time.Minute
	scheduleTries   = 4 // of a comparison that cannot be completed because of what time may heal
	scheduleKeys    = 1 << 10
)

// compareNowAndThen compares all servers on the schedule of the configuration. The owner of the first server does it. When
// a comparison is due follows from what that server has recorded, so that a process that starts neither leaves one out nor
// does one twice; one that was ended goes on.
func (o *owner) compareNowAndThen(ctx context.Context) error {
	m := o.mesh
	every := m.config.Verify.Every
	if every == 0 || o.member != m.members[0] {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, x := range m.members {
		select {
		case <-x.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	log := m.log.Named("verify")
	pause, failures := time.Duration(0), 0
	for {
		if err := wait(ctx, pause); err != nil {
			return err
		}
		due, err := o.dueIn(ctx, every)
		if err == nil && due > 0 {
			pause = min(due, scheduleEvery)
			continue
		}
		if err == nil {
			err = o.compareAll(ctx, log, failures+1 >= scheduleTries)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			pause, failures = 0, 0
			continue
		}
		pause = min(scheduleRetry<<min(failures, 10), scheduleLongest)
		failures++
		logFault(log, "the servers could not be compared", asFault(err), pause)
	}
}

// dueIn is how long it is to the next comparison.
func (o *owner) dueIn(ctx context.Context, every time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	age, found, err := checkpoint.LastSchedule(ctx, o.member.server.DB())
	if err != nil || !found {
		return 0, err
	}
	return min(every-age, every), nil // a clock that was set back must not put it off for ever
}

// compareAll compares all tables once, and records what was found and what is to be told. Unless this is the last try, a
// comparison that could not be completed because of what time may heal is an error: the next goes on where it was.
func (o *owner) compareAll(ctx context.Context, log *zap.Logger, last bool) error {
	m := o.mesh
	began, err := checkpoint.Now(ctx, o.member.server.DB())
	if err != nil {
		return err
	}
	log.Info("the servers are compared", zap.Duration("every", m.config.Verify.Every))
	report, err := Verify(ctx, m.config, func(change.TableName) bool { return true }, verify.Options{
		Scope: "schedule", Limit: notify.FoundKeys,
		Note: func(text string) { log.Info(text) },
		Conclude: func(ctx context.Context, q checkpoint.Querier, r *verify.Report) error {
			if err := passing(r); err != nil && !last {
				return err
			}
			if err := checkpoint.SaveSchedule(ctx, q, began); err != nil {
				return err
			}
			return o.saveFinding(ctx, q, began, r)
		},
	})
	if err == nil {
		logReport(log, &report)
	}
	return err
}

// passing is why a comparison is not complete, where time may heal that.
func passing(r *verify.Report) error {
	for i := range r.Tables {
		if f, ok := fault.As(r.Tables[i].Err); ok && f.Class.Transient() {
			return f
		}
	}
	return nil
}

// saveFinding records in the open transaction of q what the contacts are to be told: nothing where nothing differs, or
// nobody is told.
func (o *owner) saveFinding(ctx context.Context, q checkpoint.Querier, began time.Time, r *verify.Report) error {
	f := notify.Finding{Began: began, Tables: []notify.FoundTable{}, Incomplete: []notify.FoundTable{}}
	for _, x := range o.mesh.members {
		f.Servers = append(f.Servers, x.config.Name)
	}
	for i := range r.Tables {
		t := &r.Tables[i]
		found := notify.FoundTable{Database: t.Name.Database, Table: t.Name.Table, Rows: t.Total, Keys: []json.RawMessage{}}
		for j := range t.Differences {
			if key, err := t.Differences[j].Any().Key(); err == nil && len(key) <= scheduleKeys {
				found.Keys = append(found.Keys, key)
			}
		}
		if t.Total > 0 {
			f.Tables = append(f.Tables, found)
		}
		if t.Err != nil {
			f.Incomplete = append(f.Incomplete, found)
		}
	}
	if len(f.Tables) == 0 || o.mesh.desk == nil {
		return nil
	}
	// Those with the most rows first: of very many not all are told.
	slices.SortStableFunc(f.Tables, func(a, b notify.FoundTable) int { return int(min(max(b.Rows-a.Rows, -1), 1)) })
	f.Tables = f.Tables[:min(len(f.Tables), notify.FoundTables)]
	f.Incomplete = f.Incomplete[:min(len(f.Incomplete), notify.FoundTables)]
	detail, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("bug: encode what a comparison has found: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s", o.profile.identity.ID, began.Format(time.RFC3339Nano)))
	return checkpoint.SaveFinding(ctx, q, [8]byte(sum[:8]), began, detail)
}

func logReport(log *zap.Logger, r *verify.Report) {
	var differ, incomplete []string
	for i := range r.Tables {
		t := &r.Tables[i]
		if t.Total > 0 {
			differ = append(differ, t.Name.String())
		}
		if t.Err != nil {
			incomplete = append(incomplete, t.Name.String()+": "+t.Err.Error())
		}
	}
	fields := []zap.Field{zap.Int("tables", len(r.Tables)), zap.Duration("took", r.Elapsed.Round(time.Millisecond))}
	const most = 20
	if len(incomplete) > 0 {
		log.Warn("tables could not be compared", zap.Int("count", len(incomplete)), zap.Strings("which", incomplete[:min(len(incomplete), most)]))
	}
	switch {
	case len(differ) > 0:
		log.Error("the servers differ", append(fields, zap.Int("differ", len(differ)), zap.Strings("which", differ[:min(len(differ), most)]),
			zap.String("remedy", "see `replicator verify` for the rows"))...)
	case len(incomplete) == 0:
		log.Info("the servers are equal", fields...)
	}
}

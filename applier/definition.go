package applier

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/fault"
	"replicator/server"
)

// askTimeout bounds a question about definitions: a server that is silent says nothing about it.
const askTimeout = 20 * time.Second

// Definitions are a target's tables as its links know them, read once and forgotten at every DDL in the target's binlog.
type Definitions struct {
	mu     sync.Mutex
	epoch  uint64
	tables map[change.TableName]*server.Table
	// references are the foreign keys that lead to a table.
	references map[change.TableName][]reference
}

// NewDefinitions returns an empty cache.
func NewDefinitions() *Definitions {
	return &Definitions{
		tables: map[change.TableName]*server.Table{}, references: map[change.TableName][]reference{},
	}
}

// Epoch changes with every DDL on the target.
func (d *Definitions) Epoch() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch
}

// Forget drops what is known: a DDL was met in the target's binlog.
func (d *Definitions) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
	clear(d.tables)
	clear(d.references)
}

// Table returns the target's definition of a table, nil when it does not exist there.
func (d *Definitions) Table(ctx context.Context, q server.Querier, name change.TableName) (*server.Table, error) {
	d.mu.Lock()
	epoch := d.epoch
	t, known := d.tables[name]
	d.mu.Unlock()
	if known {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	t, err := server.OneTable(ctx, q, name)
	if err != nil {
		return nil, fmt.Errorf("read the definition of %s: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == epoch && t != nil { // what is not there may be created before its DDL has been read
		d.tables[name] = t
	}
	return t, nil
}

// definition decides what a DDL statement of the source means for this link (policy `ignore` of this version).
func (l *Link) definition(ctx context.Context, tx *change.Transaction) error {
	statement := tx.Statement
	touched, err := l.touched(ctx, statement)
	if err != nil || len(touched) == 0 {
		return err
	}
	log := l.log.With(zap.String("statement", statement.Text), zap.Stringer("gtid", tx.GTID))
	if tx.GTID == l.opt.Pass {
		log.Warn("DDL statement is passed over, as asked")
		return nil
	}
	if !l.opt.Halt && (!statement.Destructive || !anyExists(touched)) {
		log.Warn("DDL statement is not replicated: make the same change on the target")
		return nil
	}
	l.stopped = tx.GTID
	why := "passing it over would make the servers differ"
	if l.opt.Halt {
		why = "`ddl: halt` is configured"
	}
	return fault.New(fault.DDL,
		fmt.Sprintf("make the same change on %s, then `replicator link resume %s %s`", l.opt.Target, l.opt.Source, l.opt.Target),
		"%s ran a DDL statement on a replicated table (%s): %s; %s", l.opt.Source, tx.GTID, statement.Text, why)
}

// touched lists the replicated tables that a statement names, each with whether the target has it.
func (l *Link) touched(ctx context.Context, s *change.Statement) (map[change.TableName]bool, error) {
	found := map[change.TableName]bool{}
	for _, name := range s.Tables {
		if name.Table == "*" {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			tables, err := server.Tables(ctx, l.opt.Server.DB(), func(n change.TableName) bool {
				return n.Database == name.Database && l.opt.Match(n)
			})
			if err != nil {
				return nil, l.targetFault(err, "read the tables of "+name.Database)
			}
			for _, t := range tables {
				found[t.Name] = true
			}
			continue
		}
		if !l.opt.Match(name) {
			continue
		}
		t, err := l.opt.Definitions.Table(ctx, l.opt.Server.DB(), name)
		if err != nil {
			return nil, l.targetFault(err, "read a table's definition")
		}
		found[name] = t != nil
	}
	return found, nil
}

func anyExists(tables map[change.TableName]bool) bool {
	for _, exists := range tables {
		if exists {
			return true
		}
	}
	return false
}

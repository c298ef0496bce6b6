package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"replicator/fault"
	"replicator/server"
)

const (
	database   = "replicator_demo"
	itemTables = 10
	sharedRows = 50

	clientsPerServer = 3
	clientPace       = 60 * time.Millisecond // between the starts of a client's transactions: a machine with two cores has to carry three servers
	sharedPace       = 250 * time.Millisecond
	keepItems        = 60 // rows of a client, from which on it also deletes
)

func itemTable(i int) string { return fmt.Sprintf("%s.item_%02d", database, i+1) }

// tables are all that the load writes to.
func tables() []string {
	var names []string
	for i := range itemTables {
		names = append(names, itemTable(i))
	}
	return append(names, database+".shared", database+".ledger")
}

// schema is what every server starts with. The ledger has one row for each transaction that any client committed: since a
// transaction arrives whole or not at all, its rows prove the arrival of everything else.
func schema() []string {
	statements := []string{"CREATE DATABASE " + database + " DEFAULT CHARACTER SET utf8mb4"}
	for i := range itemTables {
		statements = append(statements, "CREATE TABLE "+itemTable(i)+` (
 id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(60) NOT NULL, price DECIMAL(12,2) NOT NULL, n INT NOT NULL, note TEXT,
 changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), KEY (name))`)
	}
	statements = append(statements,
		"CREATE TABLE "+database+".shared (id INT NOT NULL PRIMARY KEY, n INT NOT NULL, written_by VARCHAR(20) NOT NULL)",
		"CREATE TABLE "+database+`.ledger (client INT NOT NULL, seq INT NOT NULL, changes INT NOT NULL, PRIMARY KEY (client, seq))`)
	for i := range sharedRows {
		statements = append(statements, fmt.Sprintf("INSERT INTO %s.shared VALUES (%d, 0, '')", database, i+1))
	}
	return statements
}

// client writes to one server, and knows what the server acknowledged.
type client struct {
	id    int // unique in the mesh
	site  string
	db    *sql.DB
	items []item // its rows, as acknowledged
	next  int64
	seq   atomic.Int64 // of the newest acknowledged transaction
	// changes counts acknowledged row changes, those of the ledger included.
	changes atomic.Int64
	shared  map[int]int // increments of shared rows, acknowledged
}

type item struct {
	table int
	id    int64
	n     int64
}

// load is all clients.
type load struct {
	clients []*client
	writers []*client // of shared rows, one per server
	stop    chan struct{}
	done    chan struct{}
	err     error // read after done
}

func newLoad(st *stage) *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	for i, s := range st.sites {
		for k := range clientsPerServer + 1 {
			id := i*(clientsPerServer+1) + k + 1
			c := &client{id: id, site: s.name, db: s.server.DB(), next: int64(id) * 1_000_000_000, shared: map[int]int{}}
			l.clients = append(l.clients, c)
			if k == clientsPerServer {
				l.writers = append(l.writers, c)
			}
		}
	}
	return l
}

// start lets the clients write until halt. The first failure ends all of them.
func (l *load) start(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	for i, c := range l.clients {
		pace, work := clientPace, c.change
		if (i+1)%(clientsPerServer+1) == 0 {
			pace, work = sharedPace, c.changeShared
		}
		wg.Go(func() {
			if err := c.repeat(ctx, l.stop, pace, work); err != nil {
				cancel(fmt.Errorf("client %d of %s: %w", c.id, c.site, err))
			}
		})
	}
	go func() {
		wg.Wait()
		l.err = context.Cause(ctx)
		cancel(nil)
		close(l.done)
	}()
}

// halt ends the load after the transactions under way.
func (l *load) halt() error {
	close(l.stop)
	<-l.done
	return l.err
}

func (c *client) repeat(ctx context.Context, stop <-chan struct{}, pace time.Duration, work func(context.Context) error) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err := work(ctx)
		if f := (*fault.Error)(nil); err != nil && !errors.As(err, &f) && server.Classify(err) == fault.Busy {
			continue // a deadlock: rolled back, and not acknowledged
		}
		if err != nil {
			return err
		}
	}
}

// change is a transaction like sysbench's: two updates, an insert and, when there are many rows, a delete, on rows that no
// other client touches.
func (c *client) change(ctx context.Context) error {
	fresh := item{table: rand.IntN(itemTables), id: c.next, n: 1}
	updates := c.pick(2)
	var gone []int
	if len(c.items) > keepItems {
		gone = c.pick(1)
	}
	err := c.transact(ctx, 1+len(updates)+len(gone), func(tx *sql.Tx) error {
		for _, i := range updates {
			it := c.items[i]
			if err := one(tx.ExecContext(ctx, "UPDATE "+itemTable(it.table)+" SET n = n + 1, price = price + 0.25 WHERE id = ?", it.id)); err != nil {
				return err
			}
		}
		for _, i := range gone {
			if err := one(tx.ExecContext(ctx, "DELETE FROM "+itemTable(c.items[i].table)+" WHERE id = ?", c.items[i].id)); err != nil {
				return err
			}
		}
		return one(tx.ExecContext(ctx, "INSERT INTO "+itemTable(fresh.table)+" (id, name, price, n, note) VALUES (?, ?, ?, 1, ?)",
			fresh.id, fmt.Sprintf("item %d of %s", fresh.id, c.site), rand.IntN(100_000), "größer als ½ · "+c.site))
	})
	if err != nil {
		return err
	}
	c.next++
	for _, i := range updates {
		c.items[i].n++
	}
	for _, i := range gone {
		c.items[i] = c.items[len(c.items)-1]
		c.items = c.items[:len(c.items)-1]
	}
	c.items = append(c.items, fresh)
	return nil
}

// pick chooses up to n of the client's rows, none twice.
func (c *client) pick(n int) []int {
	var chosen []int
	for range min(n, len(c.items)/n) {
		// Each from a part of its own.
		part := len(c.items) / n
		chosen = append(chosen, len(chosen)*part+rand.IntN(part))
	}
	return chosen
}

// changeShared increments a row that the other servers' clients increment too.
func (c *client) changeShared(ctx context.Context) error {
	return c.increment(ctx, 1+rand.IntN(sharedRows))
}

func (c *client) increment(ctx context.Context, row int) error {
	err := c.transact(ctx, 1, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, "UPDATE "+database+".shared SET n = n + 1, written_by = ? WHERE id = ?", c.site, row))
	})
	if err == nil {
		c.shared[row]++
	}
	return err
}

// transact commits what write does, with a row in the ledger, and counts when the server has acknowledged the commit.
func (c *client) transact(ctx context.Context, changes int, write func(*sql.Tx) error) error {
	changes++ // the ledger's own
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := write(tx); err != nil {
		return err
	}
	seq := c.seq.Load() + 1
	if err := one(tx.ExecContext(ctx, "INSERT INTO "+database+".ledger VALUES (?, ?, ?)", c.id, seq, changes)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	c.seq.Store(seq)
	c.changes.Add(int64(changes))
	return nil
}

// one demands that a statement changed one row: what a client wrote is there until the client changes it.
func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err == nil && n != 1 {
		err = fmt.Errorf("a statement changed %d rows, want 1: an acknowledged row is gone", n)
	}
	return err
}

// acknowledged is how many transactions and row changes the servers have acknowledged so far.
func (l *load) acknowledged() (transactions, changes int64) {
	for _, c := range l.clients {
		transactions += c.seq.Load()
		changes += c.changes.Load()
	}
	return transactions, changes
}

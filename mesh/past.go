package mesh

import (
	"context"
	"errors"
	"fmt"

	"replicator/applier"
	"replicator/canal"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/server"
)

// past is what a part of a server's binlog says to whoever builds a change index, and the fold at its end.
type past struct {
	clock     change.Clock
	entries   []checkpoint.Entry
	registers *applier.Registers
}

// past reads the source's binlog between two positions.
func (x *cloning) past(ctx context.Context, start canal.Start, upTo change.GTIDSet) (*past, error) {
	p := &past{clock: start.Clock, registers: registersOf(x.config)}
	err := x.read(ctx, x.source, start, upTo, func(tx *change.Transaction) error {
		p.clock = tx.Clock
		return p.note(tx)
	})
	return p, err
}

func (p *past) note(tx *change.Transaction) error {
	switch tx.Kind {
	case change.Local:
		var keys []change.Key
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			return p.registers.Keys(ev, func(k change.Key) error {
				keys = append(keys, k)
				return nil
			})
		})
		p.add(tx.GTID, tx.Stamp, keys)
		return err
	case change.Replicated:
		for _, e := range tx.Marker.Manifest {
			p.add(e.GTID, e.Stamp, e.Keys)
		}
	case change.Passive, change.Definition:
	}
	return nil
}

func (p *past) add(gtid change.GTID, stamp change.Stamp, keys []change.Key) {
	p.entries = append(p.entries, checkpoint.Entry{GTID: gtid, Stamp: stamp, Count: len(keys), Keys: func(yield func(change.Key) error) error {
		for _, k := range keys {
			if err := yield(k); err != nil {
				return err
			}
		}
		return nil
	}})
}

// manifest is what was read, in pieces as they go into markers.
func (p *past) manifest() (pieces [][]byte, err error) {
	err = checkpoint.EncodeManifest(p.entries, func(piece []byte) error {
		pieces = append(pieces, append([]byte(nil), piece...))
		return nil
	})
	return pieces, err
}

// written is what applications have committed.
type written struct {
	count int
	first string
}

// written looks through the target's binlog for changes of replicated tables that no applier has made.
func (x *cloning) written(ctx context.Context, from, upTo change.GTIDSet) (found written, err error) {
	err = x.read(ctx, x.target, canal.Start{Position: from}, upTo, func(tx *change.Transaction) error {
		if tx.Kind != change.Local {
			return nil
		}
		if found.count++; found.count == 1 {
			found.first = tx.GTID.String()
		}
		return nil
	})
	return found, err
}

// read hands out the transactions of a server's binlog behind a position, up to another one.
func (x *cloning) read(ctx context.Context, w *witness, start canal.Start, upTo change.GTIDSet, do func(*change.Transaction) error) error {
	if start.Position.Covers(upTo) {
		return nil
	}
	login, err := w.server.Reader(ctx)
	if err != nil {
		return err
	}
	o := readerOptions(x.config, x.config.Server(w.status.Name), w.server, login, w.info, change.ServerID{})
	o.RingBytes, o.Logger = leastRing, x.Log
	if w == x.source {
		o.Identity = w.identity.ID
	} else { // it may have had others, and nobody goes by the times
		o.MaxClockSkew = 0
	}
	r := &stretch{at: start.Position.Clone(), upTo: upTo, do: do}
	err = canal.NewHub(o).Run(ctx, start, r)
	if errors.Is(err, errEnough) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the binlog of %s: %w", w.status.Name, err)
	}
	return nil
}

// errEnough ends the reading of a stretch.
var errEnough = errors.New("that is all")

// stretch feeds a part of a binlog.
type stretch struct {
	at, upTo change.GTIDSet
	do       func(*change.Transaction) error
}

// Transaction implements canal.Feed.
func (s *stretch) Transaction(tx *change.Transaction) error {
	if s.upTo.Contains(tx.GTID) {
		if err := s.do(tx); err != nil {
			return err
		}
	}
	if s.at.Add(tx.GTID); s.at.Covers(s.upTo) {
		return errEnough
	}
	return nil
}

// Reached implements canal.Feed.
func (s *stretch) Reached(change.FilePosition) {}

// readerOptions say how to read a server's binlog.
func readerOptions(c *config.Config, x *config.Server, s *server.Server, login server.Reader, info server.Info, id change.ServerID) canal.Options {
	return canal.Options{
		Name: x.Name, Address: s.Endpoint(), User: x.Reader.User, Password: x.Reader.Password,
		TLS: login.TLS, Dial: login.Dial, Compress: login.Compress,
		Flavor: info.Flavor, Identity: id, Match: c.Tables.Matches,
		Weigher:   server.NewWeigher(s.DB(), info.Flavor),
		RingBytes: max(ringBytes/int64(len(c.Servers)), leastRing),
		StateDir:  c.StateDir, SpoolBytes: int64(c.Apply.GroupBytes), MaxClockSkew: c.Conflict.MaxClockSkew,
		Times: times(c),
	}
}

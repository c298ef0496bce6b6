package mesh

import (
	"context"
	"time"

	"go.uber.org/zap"

	"replicator/checkpoint"
	"replicator/config"
	"replicator/journal"
)

const (
	trimEvery = 10 * time.Second
	trimPause = 50 * time.Millisecond // between two batches: applications go first
	// tombstonesKept is how long people can see why a conflict was settled as it was; less where the journal is kept for less.
	tombstonesKept = 7 * 24 * time.Hour
)

// trim keeps the target's journal within its limits, and removes old tombstones.
func (o *owner) trim(ctx context.Context) error {
	limits := o.mesh.config.Journal
	for {
		if err := wait(ctx, trimEvery); err != nil {
			return err
		}
		for {
			more, err := o.trimOnce(ctx, limits)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil { // the heartbeat shows what is wrong with the server
				o.member.log.Warn("journal and tombstones cannot be trimmed", zap.Error(err))
			}
			if !more {
				break
			}
			if err := wait(ctx, trimPause); err != nil {
				return err
			}
		}
	}
}

// trimOnce deletes one batch of either, and reports whether there may be more.
func (o *owner) trimOnce(ctx context.Context, limits config.Journal) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	db := o.member.server.DB()
	entries, err := journal.Trim(ctx, db, limits.Keep, limits.MaxRows)
	if err != nil {
		return false, err
	}
	tombstones, err := checkpoint.TrimTombstones(ctx, db, min(limits.Keep, tombstonesKept))
	return entries == journal.TrimBatch || tombstones == checkpoint.TombstoneBatch, err
}

// trimMarkersEvery is how often old markers are looked for.
const trimMarkersEvery = time.Second

// trimMarkers removes the markers that no fence needs any more.
func (o *owner) trimMarkers(ctx context.Context) error {
	if !o.indexed {
		return nil
	}
	for {
		if err := wait(ctx, trimMarkersEvery); err != nil {
			return err
		}
		err := checkpoint.TrimMarkers(ctx, o.member.server.DB(), func() error { return wait(ctx, trimPause) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the heartbeat shows what is wrong with the server
			o.member.log.Warn("markers cannot be trimmed", zap.Error(err))
		}
	}
}

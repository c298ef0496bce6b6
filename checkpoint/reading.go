package checkpoint

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"replicator/change"
)

// Reading is a place of a server's own binlog that its owner had read up to.
type Reading struct {
	ID       uint64 // the greatest is the newest
	Position change.GTIDSet
	Clock    change.Clock // the fold there: whoever has to fold from a place that is not long ago begins here
	Sources  []string     // the names of the servers with links to this one, as the owner was configured
	Cloning  []string     // of these: those that were being cloned, and with which the owner did not count when it began
}

// SaveReading records how far the owner has read, as the newest place, and removes older ones. Another process that takes
// itself for the owner may do so as well.
func SaveReading(ctx context.Context, q Querier, r Reading) error {
	ids, err := readingIDs(ctx, q)
	if err != nil {
		return err
	}
	r.ID = 1
	if len(ids) > 0 {
		r.ID = slices.Max(ids) + 1
	}
	_, err = q.ExecContext(ctx, "INSERT IGNORE INTO replicator.reading (id, position, clock, sources, cloning, saved_at) VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
		r.ID, r.Position.String(), r.Clock.AppendBinary(nil), strings.Join(r.Sources, ","), strings.Join(r.Cloning, ","))
	for _, id := range Thin(ids, r.ID) {
		if err == nil {
			_, err = q.ExecContext(ctx, "DELETE FROM replicator.reading WHERE id = ?", id)
		}
	}
	if err != nil {
		return fmt.Errorf("save how far the binlog has been read: %w", err)
	}
	return nil
}

func readingIDs(ctx context.Context, q Querier) (ids []uint64, err error) {
	rows, err := q.QueryContext(ctx, "SELECT id FROM replicator.reading")
	if err != nil {
		return nil, fmt.Errorf("read how far the binlog has been read: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read how far the binlog has been read: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// LoadReadings reads the places that are kept, the newest first.
func LoadReadings(ctx context.Context, q Querier, flavor change.Flavor) (all []Reading, err error) {
	rows, err := q.QueryContext(ctx, "SELECT id, position, clock, sources, cloning FROM replicator.reading ORDER BY id DESC")
	if err != nil {
		return nil, fmt.Errorf("read how far the binlog has been read: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r Reading
		var position, clock []byte
		var sources, cloning string
		err := rows.Scan(&r.ID, &position, &clock, &sources, &cloning)
		if err == nil {
			r.Position, err = change.ParseGTIDSet(flavor, string(position))
		}
		if err == nil {
			r.Clock, err = change.DecodeClock(clock)
		}
		if err != nil {
			return nil, fmt.Errorf("read how far the binlog has been read: %w", err)
		}
		r.Sources, r.Cloning = strings.Split(sources, ","), strings.Split(cloning, ",")
		all = append(all, r)
	}
	return all, rows.Err()
}

// thinned is how many places of each age stay.
const thinned = 8

// Thin returns which of the places are not to be kept beside the newest: of those that are twice as old, half as many stay.
func Thin(ids []uint64, newest uint64) (remove []uint64) {
	return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool {
		age := newest - id
		for step := uint64(1); ; step *= 2 {
			switch {
			case id%step != 0:
				return false
			case age < thinned*step:
				return true
			}
		}
	})
}

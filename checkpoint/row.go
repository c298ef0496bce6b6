package checkpoint

import (
	"errors"
	"fmt"

	"replicator/change"
	"replicator/image"
)

// MarkerRow is one row of replicator.marker as a tailer meets it in a binlog.
type MarkerRow struct {
	Source   change.ServerID
	Seq      uint64
	Clock    change.Clock
	Manifest []byte // this row's piece; the pieces of one transaction are joined
}

// DecodeMarkerRow reads an image of replicator.marker.
func DecodeMarkerRow(t *change.Table, img []byte) (MarkerRow, error) {
	var row MarkerRow
	columns, err := namedColumns(t, img)
	if err == nil {
		err = errors.Join(copyID(row.Source[:], columns["source"]), missing(columns, "seq", "clock", "manifest"))
	}
	if err == nil {
		row.Clock, err = change.DecodeClock(columns["clock"].Bytes)
	}
	if err != nil {
		return MarkerRow{}, fmt.Errorf("read a row of %s: %w", MarkerTable, err)
	}
	row.Seq = columns["seq"].Uint
	row.Manifest = columns["manifest"].Bytes
	return row, nil
}

// DecodeHeartbeatRow reads an image of replicator.heartbeat: what the server had applied of every origin.
func DecodeHeartbeatRow(t *change.Table, img []byte) (change.Context, error) {
	columns, err := namedColumns(t, img)
	if err == nil {
		err = missing(columns, "context")
	}
	var applied change.Context
	var rest []byte
	if err == nil {
		applied, rest, err = change.DecodeContext(columns["context"].Bytes)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("the context is followed by %d bytes", len(rest))
	}
	if err != nil {
		return nil, fmt.Errorf("read a row of %s: %w", HeartbeatTable, err)
	}
	return applied, nil
}

func namedColumns(t *change.Table, img []byte) (map[string]image.Value, error) {
	values, err := image.Values(t, img)
	if err != nil {
		return nil, err
	}
	columns := make(map[string]image.Value, len(values))
	for i, c := range t.Columns {
		columns[c.Name] = values[i]
	}
	return columns, nil
}

func missing(columns map[string]image.Value, names ...string) error {
	for _, name := range names {
		if _, ok := columns[name]; !ok {
			return fmt.Errorf("column %s is missing", name)
		}
	}
	return nil
}

func copyID(id []byte, v image.Value) error {
	if len(v.Bytes) != len(id) {
		return fmt.Errorf("an identity has %d bytes, want %d", len(v.Bytes), len(id))
	}
	copy(id, v.Bytes)
	return nil
}

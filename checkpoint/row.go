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

// DecodeIdentityRow reads an image of replicator.identity: whose binlog it is from there on.
func DecodeIdentityRow(t *change.Table, img []byte) (id change.ServerID, err error) {
	columns, err := namedColumns(t, img)
	if err == nil {
		err = copyID(id[:], columns["id"])
	}
	if err != nil {
		return change.ServerID{}, fmt.Errorf("read a row of %s: %w", IdentityTable, err)
	}
	return id, nil
}

// TombstoneRow is one row of replicator.tombstone: what an owner's own transaction says about a row by which it settles a
// conflict.
type TombstoneRow struct {
	Table  change.TableName
	Key    change.Key
	Reason string // the kind of conflict that it settles
	// Row is image.EncodeKey of a row that leaves, though it may not be there; nil: the transaction changes the row itself.
	Row []byte
	// Clock is the time of the newest change that the transaction is against; its version is greater, wherever that change
	// has been applied.
	Clock change.Time
	// Original is the version of the change whose value the transaction states again, or zero.
	Original change.Version
	// Loser is the version of the change that the transaction takes back by the removal of its row; zero: not known.
	Loser change.Version
}

// DecodeTombstoneRow reads an image of replicator.tombstone.
func DecodeTombstoneRow(t *change.Table, img []byte) (TombstoneRow, error) {
	var row TombstoneRow
	columns, err := namedColumns(t, img)
	if err == nil {
		err = errors.Join(copyID(row.Key[:], columns["row_key"]), missing(columns, "database_name", "table_name", "reason", "key_columns", "clock", "origin", "time"))
	}
	var of change.Version
	if err == nil && len(columns["origin"].Bytes) > 0 {
		err = copyID(of.Origin[:], columns["origin"])
		of.Time = change.Time(columns["time"].Int)
	}
	if err != nil {
		return TombstoneRow{}, fmt.Errorf("read a row of %s: %w", TombstoneTable, err)
	}
	row.Table = change.TableName{Database: string(columns["database_name"].Bytes), Table: string(columns["table_name"].Bytes)}
	row.Reason, row.Row = string(columns["reason"].Bytes), columns["key_columns"].Bytes
	if len(row.Row) > 0 {
		row.Loser = of
	} else {
		row.Original = of
	}
	row.Clock = change.Time(columns["clock"].Int)
	return row, nil
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

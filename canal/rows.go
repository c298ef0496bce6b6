package canal

import (
	"bytes"
	"context"
	"fmt"

	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/image"
)

func (t *tailer) tableMap(e event) error {
	body := e.body(t.checksum())
	if len(body) < 8 {
		return t.malformed(errCut)
	}
	id := tableID(body)
	if m := t.maps[id]; m != nil && bytes.Equal(m.body, body) {
		return nil
	}
	m, err := t.tables.resolve(e, t.checksum())
	if err != nil {
		if _, isFault := fault.As(err); isFault {
			return err
		}
		return t.malformed(fmt.Errorf("read a table's definition: %w", err))
	}
	t.maps[id] = m
	return nil
}

// rows takes a rows event: of a replicated table it becomes part of the transaction's body, of the replicator's own
// tables what they say is kept, any other is not even looked into.
func (t *tailer) rows(ctx context.Context, e event) error {
	body := e.body(t.checksum())
	if len(body) < 8 {
		return t.malformed(errCut)
	}
	id := tableID(body)
	if id == dummyTableID {
		return nil
	}
	m := t.maps[id]
	p := &t.tx
	if m == nil {
		return t.malformed(fmt.Errorf("rows of table number %d come without its definition", id))
	}
	if !p.open {
		return t.outside("rows of " + m.name.String())
	}
	if !p.anyRow {
		p.anyRow = true
		p.replicated = m.role == roleMarker && isInsert(e.kind())
	}
	switch {
	case m.role == roleOther, m.role == roleMarker && !p.replicated, m.role != roleMarker && p.replicated:
		return nil
	case e.kind() == replication.PARTIAL_UPDATE_ROWS_EVENT:
		return t.refusePartial(m.name)
	}
	ev, err := t.split(e, m)
	if err != nil {
		return err
	}
	switch m.role {
	case roleMarker:
		return t.markers(ev)
	case roleHeartbeat:
		return t.heartbeats(ev)
	case roleUser, roleOther:
	}
	if err := t.keyer.Keys(ctx, ev); err != nil {
		return fmt.Errorf("compute row keys of %s in %s: %w", m.name, p.gtid, err)
	}
	return p.body.add(ev)
}

// split finds the rows in a rows event.
func (t *tailer) split(e event, m *mapped) (*change.RowsEvent, error) {
	sum := t.checksum()
	switch e.kind() {
	case replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1,
		replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		plain, err := inflateRows(e, sum)
		if err != nil {
			return nil, t.malformed(err)
		}
		e = plain
	default: // as it stands
	}
	if m.tableID != m.id {
		putTableID(e, m.tableID)
		e.seal(sum)
	}
	ev := &change.RowsEvent{Table: m.table, Data: e}
	if err := image.Split(ev, sum); err != nil {
		if f, ok := fault.As(err); ok {
			return nil, t.refuse(f.Remedy, "rows of %s: %s", m.name, f.Text())
		}
		return nil, fmt.Errorf("read rows of %s in transaction %s of %s: %w", m.name, t.tx.gtid, t.opts.Name, err)
	}
	return ev, nil
}

func isInsert(kind replication.EventType) bool {
	switch kind {
	case replication.WRITE_ROWS_EVENTv1, replication.WRITE_ROWS_EVENTv2, replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1:
		return true
	default:
		return false
	}
}

// markers reads the marker rows of a replicated transaction. The trimming of old ones, in the same transaction, is not
// of interest.
func (t *tailer) markers(ev *change.RowsEvent) error {
	if ev.Kind != change.Insert {
		return nil
	}
	for _, r := range ev.Rows {
		row, err := checkpoint.DecodeMarkerRow(ev.Table, ev.After(r))
		if err != nil {
			return t.malformed(err)
		}
		t.tx.marker = &change.Marker{Source: row.Source, Seq: row.Seq, Clock: row.Clock}
		t.tx.manifest = append(t.tx.manifest, bytes.Clone(row.Manifest)) // the event's buffer is used again
	}
	return nil
}

func (t *tailer) heartbeats(ev *change.RowsEvent) error {
	for _, r := range ev.Rows {
		after := ev.After(r)
		if after == nil {
			continue
		}
		heard, err := checkpoint.DecodeHeartbeatRow(ev.Table, after)
		if err != nil {
			return t.malformed(err)
		}
		t.tx.heard = t.tx.heard.Merge(heard)
	}
	return nil
}

// foldReplicated folds a replicated transaction into the clock.
func (t *tailer) foldReplicated(tx *change.Transaction) error {
	m := t.tx.marker
	if m == nil {
		return t.malformed(fmt.Errorf("the marker of transaction %s has no row", tx.GTID))
	}
	var err error
	if m.Manifest, err = checkpoint.DecodeManifest(t.tx.manifest...); err != nil {
		return t.malformed(err)
	}
	newest := change.Time(0)
	for i := range m.Manifest {
		newest = max(newest, m.Manifest[i].Stamp.Version.Time)
	}
	t.clock.Replicated(m.Source, m.Clock.Time, newest)
	tx.Kind, tx.Marker = change.Replicated, m
	return nil
}

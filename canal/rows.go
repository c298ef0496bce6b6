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
	case m.role == roleTimed:
		t.hearPassing(e, m)
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
	case roleTombstone:
		return t.tombstones(ev)
	case roleIdentity:
		return t.identities(ev)
	case roleUser, roleOther, roleTimed:
	}
	if err := p.told.hear(m.timing, ev); err != nil {
		return t.malformed(err)
	}
	if m.table.Numbered && ev.Kind != change.Insert {
		return nil // elsewhere the row has another number: each server trims its own log
	}
	if err := t.keyer.Keys(ctx, ev); err != nil {
		return fmt.Errorf("compute row keys of %s in %s: %w", m.name, p.gtid, err)
	}
	if m.table.Numbered {
		ownKeys(ev.Rows, t.opts.Identity)
	}
	return p.body.add(ev)
}

// hearPassing notes the times in rows that are not replicated. What cannot be read there holds none: it is the same for
// every reader, and no reason to stop.
func (t *tailer) hearPassing(e event, m *mapped) {
	if ev, err := t.split(e, m); err == nil {
		var told told
		if told.hear(m.timing, ev) == nil {
			t.tx.told.column = max(t.tx.told.column, told.column)
		}
	}
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
	one := &struct { // most events have one row: it takes no memory of its own
		event change.RowsEvent
		row   [1]change.Row
	}{}
	ev := &one.event
	ev.Table, ev.Data, ev.Rows = m.table, e, one.row[:0]
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

// identities ends the reading where the server becomes another one, or is taken out of the mesh to become one: what it commits
// from there on has another origin, and whoever reads on as if it were the old one would send it twice.
func (t *tailer) identities(ev *change.RowsEvent) error {
	if t.opts.Identity == (change.ServerID{}) {
		return nil // whoever it is
	}
	for _, r := range ev.Rows {
		img, gone := ev.After(r), false
		if img == nil {
			img, gone = ev.Before(r), true
		}
		id, err := checkpoint.DecodeIdentityRow(ev.Table, img)
		if err != nil {
			return t.malformed(err)
		}
		if (id == t.opts.Identity) == gone {
			return fault.New(fault.Unavailable, "wait: it is looked at again", "%s is not %s any more: it is being cloned, or was given another identity",
				t.opts.Name, t.opts.Identity)
		}
	}
	return nil
}

// tombstones takes what an owner says about a transaction by which it settled a conflict: rows that leave are deletes like
// those that an application makes. The trimming of old tombstones is not of interest.
func (t *tailer) tombstones(ev *change.RowsEvent) error {
	if ev.Kind != change.Insert {
		return nil
	}
	for _, r := range ev.Rows {
		row, err := checkpoint.DecodeTombstoneRow(ev.Table, ev.After(r))
		if err != nil {
			return t.malformed(err)
		}
		p := &t.tx
		p.settles = row.Reason
		p.raise = max(p.raise, row.Clock)
		noteVersion(&p.originals, row.Key, row.Original)
		noteVersion(&p.losers, row.Key, row.Loser)
		if len(row.Row) == 0 || t.tables.roleOf(row.Table) != roleUser {
			continue
		}
		gone := &change.RowsEvent{
			Table: t.tables.tombstones(row.Table, row.Reason), Kind: change.Delete, Data: row.Row,
			Rows: []change.Row{{Before: change.Span{Length: uint32(len(row.Row))}, Key: row.Key, NewKey: row.Key}},
		}
		if err := p.body.add(gone); err != nil {
			return err
		}
	}
	return nil
}

// noteVersion notes what version a tombstone names with its row, if it does.
func noteVersion(all *map[change.Key]change.Version, key change.Key, v change.Version) {
	if v == (change.Version{}) {
		return
	}
	if *all == nil {
		*all = map[change.Key]change.Version{}
	}
	(*all)[key] = v
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

package canal

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
	"replicator/fault"
	"replicator/image"
)

// sink takes what a tailer yields, in binlog order.
type sink interface {
	// transaction gets a committed transaction; memory is what keeping it costs, in bytes.
	transaction(tx *change.Transaction, memory int64) error
	// reached says that everything before p has been yielded.
	reached(p change.FilePosition)
}

// tailer turns the events of one dump into transactions and folds the server's clock over them. What it yields depends
// on the events alone. One tailer serves one connection.
type tailer struct {
	opts   *Options
	tables *catalog
	keyer  *image.Keyer
	out    sink
	inner  payload

	clock  change.Clock
	format *change.Format
	place  change.FilePosition // the end of the last event
	maps   map[uint64]*mapped
	tx     pending
	// arrived is when the event at hand came from the server, by this machine's clock.
	arrived time.Time
}

// pending is the transaction that is being read.
type pending struct {
	begin
	open       bool // its GTID event has been read
	begun      bool // more events follow until a commit
	anyRow     bool
	replicated bool // its first row change inserts a marker
	statement  *change.Statement
	marker     *change.Marker
	manifest   [][]byte       // its pieces
	heard      change.Context // of heartbeat rows
	told       told           // by the application, about the transaction
	settles    string         // of tombstones
	raise      change.Time    // of tombstones: what its version must exceed
	originals  map[change.Key]change.Version
	losers     map[change.Key]change.Version
	body       collector
}

func newTailer(opts *Options, tables *catalog, clock change.Clock, out sink) *tailer {
	t := &tailer{
		opts: opts, tables: tables, keyer: image.NewKeyer(opts.Weigher), out: out,
		clock: clock, maps: map[uint64]*mapped{},
	}
	t.reset()
	return t
}

func (t *tailer) close() {
	t.tx.body.discard()
	t.inner.close()
}

// reset forgets the transaction that is being read.
func (t *tailer) reset() {
	t.tx = pending{body: collector{dir: t.opts.StateDir, limit: t.opts.SpoolBytes}}
}

func (t *tailer) checksum() bool { return t.format != nil && t.format.Checksum }

// read takes one event as the server sent it. It may change e, and does not keep it.
func (t *tailer) read(ctx context.Context, e event) error {
	if len(e) < headerSize {
		return t.malformed(errCut)
	}
	switch e.kind() {
	case replication.ROTATE_EVENT:
		return t.rotate(e)
	case replication.HEARTBEAT_EVENT:
		t.heartbeat(e)
		return nil
	default: // an event of the binlog itself
	}
	t.advance(e)
	if err := t.event(ctx, e); err != nil {
		return err
	}
	if !t.tx.open {
		t.out.reached(t.place)
	}
	return nil
}

// advance moves the place to the end of an event. Positions in headers have 32 bits, and MariaDB >= 11.4 has none inside
// transactions.
func (t *tailer) advance(e event) {
	if e.flags()&flagArtificial != 0 {
		return
	}
	if e.logPos() == 0 {
		if t.tx.open { // else it is the format, repeated for a reader that starts in the middle of the file
			t.place.Offset += uint64(len(e))
		}
		return
	}
	t.place.Offset = widen(t.place.Offset, e.logPos())
}

// widen completes the low 32 bits of an offset that is not far below last.
func widen(last uint64, low uint32) uint64 {
	next := last&^math.MaxUint32 | uint64(low)
	if next < last && last-next > 1<<31 {
		next += 1 << 32
	}
	return next
}

func (t *tailer) rotate(e event) error {
	body := e.body(t.checksum())
	if len(body) < 9 {
		return t.malformed(errCut)
	}
	name := string(body[8:])
	offset := uint56(body)
	if name == t.place.File && offset < t.place.Offset {
		return nil
	}
	if name != t.place.File && t.tx.open { // no transaction spans files: a crash has cut this one short
		t.tx.body.discard()
		t.reset()
	}
	t.place = change.FilePosition{File: name, Offset: offset}
	if !t.tx.open {
		t.out.reached(t.place)
	}
	return nil
}

// heartbeat says how far the server has sent its binlog, or passed over it.
func (t *tailer) heartbeat(e event) {
	if t.tx.open || string(e.body(t.checksum())) != t.place.File {
		return
	}
	if at := widen(t.place.Offset, e.logPos()); at > t.place.Offset {
		t.place.Offset = at
	}
	t.out.reached(t.place)
}

// event takes an event from the binlog or from inside a compressed transaction.
func (t *tailer) event(ctx context.Context, e event) error {
	sum := t.checksum()
	switch kind := e.kind(); kind {
	case replication.FORMAT_DESCRIPTION_EVENT:
		format, err := parseFormat(e)
		if err != nil {
			return t.malformed(err)
		}
		if !sameFormat(t.format, format) {
			t.format = format
		}
		return nil
	case replication.GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT, replication.MARIADB_GTID_EVENT:
		return t.open(e)
	case replication.QUERY_EVENT:
		return t.query(e, false)
	case replication.MARIADB_QUERY_COMPRESSED_EVENT:
		return t.query(e, true)
	case replication.XID_EVENT:
		return t.commit(e)
	case replication.XA_PREPARE_LOG_EVENT:
		return t.xaPrepare(e)
	case replication.TABLE_MAP_EVENT:
		return t.tableMap(e)
	case replication.WRITE_ROWS_EVENTv1, replication.WRITE_ROWS_EVENTv2,
		replication.UPDATE_ROWS_EVENTv1, replication.UPDATE_ROWS_EVENTv2,
		replication.DELETE_ROWS_EVENTv1, replication.DELETE_ROWS_EVENTv2,
		replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1,
		replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1, replication.PARTIAL_UPDATE_ROWS_EVENT:
		return t.rows(ctx, e)
	case replication.TRANSACTION_PAYLOAD_EVENT:
		err := t.inner.each(e.body(sum), sum, func(e event) error { return t.event(ctx, e) })
		if _, isFault := fault.As(err); err == nil || isFault || ctx.Err() != nil {
			return err
		}
		return t.malformed(err)
	case replication.STOP_EVENT, replication.PREVIOUS_GTIDS_EVENT, replication.ROWS_QUERY_EVENT,
		replication.IGNORABLE_EVENT, replication.VIEW_CHANGE_EVENT, replication.TRANSACTION_CONTEXT_EVENT,
		replication.HEARTBEAT_LOG_EVENT_V2,
		replication.MARIADB_ANNOTATE_ROWS_EVENT, replication.MARIADB_BINLOG_CHECKPOINT_EVENT,
		replication.MARIADB_GTID_LIST_EVENT, replication.MARIADB_START_ENCRYPTION_EVENT:
		return nil
	default:
		return t.refuseKind(kind)
	}
}

// open begins a transaction. What was read of one before, without its commit, is dropped.
func (t *tailer) open(e event) error {
	t.tx.body.discard()
	t.reset()
	var err error
	body := e.body(t.checksum())
	switch e.kind() {
	case replication.GTID_EVENT:
		t.tx.begin, err = parseGTID(body)
	case replication.GTID_TAGGED_LOG_EVENT:
		t.tx.begin, err = parseTaggedGTID(body)
	default:
		t.tx.begin, err = parseMariaDBGTID(e, body)
		t.tx.begun = !t.tx.standalone
	}
	if err != nil {
		return t.malformed(err)
	}
	t.tx.open = true
	if len(t.maps) > maxDefinitions {
		clear(t.maps)
	}
	return nil
}

func (t *tailer) query(e event, compressed bool) error {
	q, err := parseQuery(e.body(t.checksum()), compressed)
	if err != nil {
		return t.malformed(err)
	}
	if !t.tx.open {
		return t.outside(fmt.Sprintf("the statement %q", abridge(q.text)))
	}
	p := parseStatement(q)
	switch p.purpose {
	case purposeBegin:
		t.tx.begun = true
		return nil
	case purposeCommit, purposeXARollback:
		return t.commit(e)
	case purposeRollback:
		if t.tx.body.rows > 0 {
			return t.refuseRollback()
		}
		return t.commit(e)
	case purposeInside:
		return nil
	case purposeHarmless:
	case purposeDefinition:
		t.define(q, p)
	case purposeXACommit:
		return t.refuseXA()
	case purposeRows, purposeUnknown:
		return t.refuseStatement(q)
	}
	if t.tx.begun {
		return nil
	}
	return t.commit(e)
}

// define notes a DDL statement unless it is certain that it touches nothing that is replicated, or does not act yet: an
// ALTER in two phases acts with its second one.
func (t *tailer) define(q query, p parsed) {
	if t.tx.alter&(startAlter|rollbackAlter) != 0 {
		return
	}
	matters := len(p.tables) == 0
	for _, name := range p.tables {
		if name.Table == everyTable {
			matters = matters || !systemDatabase(name.Database)
		} else {
			matters = matters || t.tables.roleOf(name) == roleUser
		}
	}
	if !matters || len(p.tables) == 0 && systemDatabase(q.database) {
		return
	}
	t.tx.statement = &change.Statement{
		Database: q.database, Text: q.text, Destructive: p.destructive, Tables: p.tables,
	}
}

func (t *tailer) xaPrepare(e event) error {
	body := e.body(t.checksum())
	if len(body) > 0 && body[0] == 1 { // XA COMMIT ... ONE PHASE
		return t.commit(e)
	}
	return t.refuseXA()
}

// commit ends the transaction with its last event and yields it.
func (t *tailer) commit(e event) error {
	p := &t.tx
	if !p.open {
		return t.outside("a commit")
	}
	if t.opts.Flavor == change.MariaDB {
		p.committed = change.Time(e.seconds()) * 1e6
		p.original = p.committed
	}
	tx := &change.Transaction{
		Kind: change.Passive, GTID: p.gtid, Committed: p.committed.Wall(), End: t.place, Format: t.format,
	}
	memory := transactionMemory
	switch {
	case p.replicated:
		if err := t.foldReplicated(tx); err != nil {
			return err
		}
	default:
		if err := t.skew(tx); err != nil {
			return err
		}
		t.clock.Raise(p.raise)
		tx.Stamp.Context = t.clock.Context
		tx.Stamp.Version = change.Version{Time: t.clock.Local(t.physical()), Origin: t.opts.Identity}
		t.clock.Context = t.clock.Context.Merge(p.heard)
		if p.statement != nil {
			tx.Kind, tx.Statement = change.Definition, p.statement
			memory += int64(len(p.statement.Text))
		}
	}
	if p.body.rows > 0 {
		if p.statement != nil {
			return t.refuseCreateSelect()
		}
		body, err := p.body.finish()
		if err != nil {
			return err
		}
		tx.Kind, tx.Body, tx.Log = change.Local, body, p.told.rows
		tx.Settles, tx.Originals, tx.Losers = p.settles, p.originals, p.losers
		tx.Rows, tx.Bytes, tx.Spooled = p.body.rows, p.body.bytes, p.body.file != nil
		memory += p.body.memory + p.told.memory
	}
	tx.Clock = t.clock
	t.reset()
	return t.out.transaction(tx, memory)
}

// physical is the transaction's own time: what the application says, or else the origin's commit time. It is bounded by
// the server's commit time, because applications and sessions may write anything there.
func (t *tailer) physical() change.Time {
	at := t.tx.told.physical(t.tx.original)
	if t.opts.MaxClockSkew > 0 {
		return min(at, t.tx.committed+change.Time(t.opts.MaxClockSkew.Microseconds()))
	}
	return at
}

// skew refuses a transaction from the future.
func (t *tailer) skew(tx *change.Transaction) error {
	if t.opts.MaxClockSkew <= 0 {
		return nil
	}
	if ahead := tx.Committed.Sub(t.arrived); ahead > t.opts.MaxClockSkew {
		return fault.New(fault.ClockSkew,
			fmt.Sprintf("set the clocks right (NTP on %s and here); a transaction stamped far in the future by "+
				"SET TIMESTAMP has to be passed over with replicator clone", t.opts.Name),
			"%s committed transaction %s %s ahead of this machine's clock, max_clock_skew is %s",
			t.opts.Name, tx.GTID, ahead.Round(time.Millisecond), t.opts.MaxClockSkew)
	}
	return nil
}

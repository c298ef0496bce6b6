package canal

import (
	"bytes"
	"encoding/binary"
	"sync"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/image"
)

// role is what the rows of a table are to the reader.
type role uint8

const (
	roleOther     role = iota // not replicated: never decoded
	roleUser                  // replicated
	roleMarker                // replicator.marker
	roleHeartbeat             // replicator.heartbeat
	roleTombstone             // replicator.tombstone
	roleIdentity              // replicator.identity
	roleTimed                 // not replicated, but its rows give their transaction its time
)

// mapped is a TABLE_MAP event that rows events refer to.
type mapped struct {
	body  []byte // as it stood in the binlog
	id    uint64
	role  role
	name  change.TableName
	table *change.Table // nil when the table's rows are not decoded
	// tableID is the number in table.MapEvent. Rows events that carry another are given it.
	tableID uint64
	timing  *timing // where its rows hold times
}

// catalog hands out one *change.Table per definition to all readers of one server.
type catalog struct {
	match func(change.TableName) bool
	times Times

	mu     sync.Mutex
	tables map[definition]*change.Table
	taken  map[uint64]bool // table numbers in use by a definition
	graves map[grave]*change.Table
}

// grave is what tombstones have in common.
type grave struct {
	table   change.TableName
	settles string
}

// definition is a TABLE_MAP event without its table number, and whether a CRC32 follows.
type definition struct {
	body     string
	checksum bool
}

// maxDefinitions bounds the catalog where tables are created without end. What is forgotten is only parsed again.
const maxDefinitions = 10_000

func newCatalog(match func(change.TableName) bool, times Times) *catalog {
	return &catalog{match: match, times: times, tables: map[definition]*change.Table{}, taken: map[uint64]bool{}, graves: map[grave]*change.Table{}}
}

func (c *catalog) roleOf(name change.TableName) role {
	switch {
	case name == checkpoint.MarkerTable:
		return roleMarker
	case name == checkpoint.HeartbeatTable:
		return roleHeartbeat
	case name == checkpoint.TombstoneTable:
		return roleTombstone
	case name == checkpoint.IdentityTable:
		return roleIdentity
	case name.Database == checkpoint.Schema || !c.match(name):
		return roleOther
	}
	return roleUser
}

// tombstones returns what stands for the table in tombstones of a kind.
func (c *catalog) tombstones(name change.TableName, settles string) *change.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := grave{name, settles}
	t := c.graves[key]
	if t == nil {
		if len(c.graves) >= maxDefinitions {
			clear(c.graves)
		}
		t = &change.Table{Name: name, Settles: settles}
		c.graves[key] = t
	}
	return t
}

// resolve reads a TABLE_MAP event.
func (c *catalog) resolve(e event, checksum bool) (*mapped, error) {
	body := e.body(checksum)
	name, err := mapName(body)
	if err != nil {
		return nil, err
	}
	m := &mapped{body: bytes.Clone(body), id: tableID(body), role: c.roleOf(name), name: name}
	if m.role == roleOther && c.times.column(name) != "" {
		m.role = roleTimed
	}
	if m.role == roleOther {
		return m, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := definition{string(body[6:]), checksum}
	if m.table = c.tables[key]; m.table == nil {
		if len(c.tables) >= maxDefinitions {
			clear(c.tables)
			clear(c.taken)
		}
		if m.table, err = c.define(e, m.id, checksum); err != nil {
			if m.role == roleTimed { // the link has no need to read it
				m.role = roleOther
				return m, nil
			}
			return nil, err
		}
		c.tables[key] = m.table
	}
	m.timing = c.times.of(m.table)
	m.tableID = tableID(m.table.MapEvent[headerSize:])
	return m, nil
}

// define parses a definition that is new. No two definitions share a table number: a server reuses numbers after a
// restart, and events of both may come to stand in one replayed statement.
func (c *catalog) define(e event, id uint64, checksum bool) (*change.Table, error) {
	own := event(append([]byte(nil), e...))
	for c.taken[id] || id == dummyTableID {
		id++
	}
	c.taken[id] = true
	putTableID(own, id)
	table, err := image.ParseTable(own.seal(checksum), checksum)
	if err == nil {
		table.Numbered = c.times.Numbered(table)
	}
	return table, err
}

func putTableID(e event, id uint64) {
	binary.LittleEndian.PutUint32(e[headerSize:], uint32(id))
	binary.LittleEndian.PutUint16(e[headerSize+4:], uint16(id>>32))
}

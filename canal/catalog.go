package canal

import (
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
}

// catalog hands out one *change.Table per definition to all readers of one server.
type catalog struct {
	match func(change.TableName) bool

	mu     sync.Mutex
	tables map[definition]*change.Table
	taken  map[uint64]bool // table numbers in use by a definition
}

// definition is a TABLE_MAP event without its table number, and whether a CRC32 follows.
type definition struct {
	body     string
	checksum bool
}

// maxDefinitions bounds the catalog where tables are created without end. What is forgotten is only parsed again.
const maxDefinitions = 10_000

func newCatalog(match func(change.TableName) bool) *catalog {
	return &catalog{match: match, tables: map[definition]*change.Table{}, taken: map[uint64]bool{}}
}

func (c *catalog) roleOf(name change.TableName) role {
	switch {
	case name == checkpoint.MarkerTable:
		return roleMarker
	case name == checkpoint.HeartbeatTable:
		return roleHeartbeat
	case name.Database == checkpoint.Schema || !c.match(name):
		return roleOther
	}
	return roleUser
}

// resolve reads a TABLE_MAP event.
func (c *catalog) resolve(e event, checksum bool) (*mapped, error) {
	body := e.body(checksum)
	name, err := mapName(body)
	if err != nil {
		return nil, err
	}
	m := &mapped{body: body, id: tableID(body), role: c.roleOf(name), name: name}
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
			return nil, err
		}
		c.tables[key] = m.table
	}
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
	return image.ParseTable(own.seal(checksum), checksum)
}

func putTableID(e event, id uint64) {
	binary.LittleEndian.PutUint32(e[headerSize:], uint32(id))
	binary.LittleEndian.PutUint16(e[headerSize+4:], uint16(id>>32))
}

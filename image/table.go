package image

import (
	"bytes"
	"fmt"

	"replicator/change"
	"replicator/fault"
)

// Column types of the binlog: MYSQL_TYPE_* of MySQL's field_types.h, and MariaDB's own 140 and 141.
const (
	typeTiny              = 1
	typeShort             = 2
	typeLong              = 3
	typeFloat             = 4
	typeDouble            = 5
	typeNull              = 6
	typeTimestamp         = 7
	typeLongLong          = 8
	typeInt24             = 9
	typeDate              = 10
	typeTime              = 11
	typeDatetime          = 12
	typeYear              = 13
	typeNewDate           = 14
	typeVarchar           = 15
	typeBit               = 16
	typeTimestamp2        = 17
	typeDatetime2         = 18
	typeTime2             = 19
	typeBlobCompressed    = 140
	typeVarcharCompressed = 141
	typeVector            = 242
	typeJSON              = 245
	typeNewDecimal        = 246
	typeEnum              = 247
	typeSet               = 248
	typeTinyBlob          = 249
	typeMediumBlob        = 250
	typeLongBlob          = 251
	typeBlob              = 252
	typeVarString         = 253
	typeString            = 254
	typeGeometry          = 255
)

const (
	headerSize   = 19
	checksumSize = 4
	tableMapType = 19
	tableIDSize  = 6
	maxColumns   = 4096 // of a table, on both flavors
)

// Optional metadata of a TABLE_MAP event: Table_map_log_event::Optional_metadata_field_type of MySQL's rows_event.h.
const (
	metaSignedness           = 1
	metaDefaultCharset       = 2
	metaColumnCharset        = 3
	metaColumnName           = 4
	metaSetLabels            = 5
	metaEnumLabels           = 6
	metaSimplePrimaryKey     = 8
	metaPrefixPrimaryKey     = 9
	metaLabelsDefaultCharset = 10
	metaLabelsCharset        = 11
	metaVisibility           = 12
)

const metadataRemedy = "run SET GLOBAL binlog_row_metadata = FULL on the source (and put it into its configuration), " +
	"then start the link behind the events that were written before"

// body returns an event's bytes behind the header, without the CRC32.
func body(event []byte, checksum bool) ([]byte, error) {
	end := len(event)
	if checksum {
		end -= checksumSize
	}
	if end < headerSize {
		return nil, errCut
	}
	return event[headerSize:end], nil
}

// ParseTable reads a TABLE_MAP event, header included, and CRC32 where checksum says there is one. The event must carry
// full metadata (binlog_row_metadata=FULL), else the error is a fault of class Precondition. The table keeps mapEvent.
func ParseTable(mapEvent []byte, checksum bool) (*change.Table, error) {
	b, err := body(mapEvent, checksum)
	if err != nil || mapEvent[4] != tableMapType {
		return nil, fault.New(fault.UnknownEvent, "report this with the binlog file", "a TABLE_MAP event cannot be read")
	}
	p := mapParser{table: &change.Table{MapEvent: mapEvent}}
	if err := p.parse(&reader{b: b}); err != nil {
		if _, ok := fault.As(err); ok {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.UnknownEvent, "report this with the binlog file",
			"the TABLE_MAP event of %s cannot be read", p.table.Name)
	}
	if l, err := newLayout(p.table); err == nil { // else whoever needs it is told
		p.table.Layout = l
	}
	return p.table, nil
}

// mapParser collects what the optional metadata says until all of it has been read.
type mapParser struct {
	table                        *change.Table
	signedness                   []byte
	names                        [][]byte
	charset, labelsCharset       charsets
	setLabels, enumLabels        [][]string
	primary                      []uint64
	primaryPrefixes, hasNames    bool
	hasVisibility, hasSignedness bool
}

// charsets are the collations of a class of columns, in either of the two forms of the event.
type charsets struct {
	present   bool
	fallback  uint64
	exception map[int]uint64 // by ordinal among the columns of the class
	all       []uint64       // instead of the two above
}

func (c *charsets) of(ordinal int) uint64 {
	if ordinal < len(c.all) {
		return c.all[ordinal]
	}
	if id, ok := c.exception[ordinal]; ok {
		return id
	}
	return c.fallback
}

func (p *mapParser) parse(r *reader) error {
	r.take(tableIDSize + 2)
	p.table.Name.Database = string(r.take(int(r.byte())))
	r.byte()
	p.table.Name.Table = string(r.take(int(r.byte())))
	r.byte()
	count := r.packed()
	if r.bad || count == 0 || count > maxColumns {
		return errCut
	}
	types := r.take(int(count))
	meta := &reader{b: r.packedBytes()}
	nullable := r.take((int(count) + 7) / 8)
	if r.bad {
		return errCut
	}
	p.table.Columns = make([]change.Column, count)
	for i := range p.table.Columns {
		c := &p.table.Columns[i]
		c.Nullable = nullable[i/8]>>(i%8)&1 == 1
		if err := readMeta(c, types[i], meta); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	for len(r.b) > 0 {
		field := r.byte()
		p.optional(field, &reader{b: r.packedBytes()}, r)
	}
	if r.bad || meta.bad {
		return errCut
	}
	return p.finish()
}

// readMeta sets a column's type and metadata. Of the two bytes of CHAR, ENUM and SET the first comes first, others are
// little-endian: see Table_map_log_event::save_field_metadata and the fields' do_save_field_metadata.
func readMeta(c *change.Column, kind byte, r *reader) error {
	c.Type = kind
	switch kind {
	case typeString, typeNewDecimal:
		c.Meta = uint16(r.byte())<<8 | uint16(r.byte())
		if real := byte(c.Meta >> 8); kind == typeString && (real == typeEnum || real == typeSet) {
			c.Type = real
		}
	case typeVarchar, typeVarString, typeVarcharCompressed, typeBit:
		c.Meta = r.uint16()
	case typeBlob, typeBlobCompressed, typeFloat, typeDouble, typeGeometry, typeVector, typeJSON,
		typeTime2, typeDatetime2, typeTimestamp2:
		c.Meta = uint16(r.byte())
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong, typeNull, typeTimestamp, typeDate, typeTime,
		typeDatetime, typeYear, typeNewDate:
	default:
		return fault.New(fault.Definition, "leave the table out of the replicated tables, or change the column's type",
			"column type %d is not known to this version", kind)
	}
	if r.bad {
		return errCut
	}
	return nil
}

// optional takes one field of the optional metadata; outer is marked bad when the field is malformed.
func (p *mapParser) optional(field byte, r, outer *reader) {
	switch field {
	case metaSignedness:
		p.signedness, p.hasSignedness = r.take(len(r.b)), true
	case metaDefaultCharset:
		p.charset = defaultCharset(r)
	case metaColumnCharset:
		p.charset = charsets{present: true, all: r.packedAll()}
	case metaLabelsDefaultCharset:
		p.labelsCharset = defaultCharset(r)
	case metaLabelsCharset:
		p.labelsCharset = charsets{present: true, all: r.packedAll()}
	case metaColumnName:
		p.hasNames = true
		for len(r.b) > 0 {
			p.names = append(p.names, r.packedBytes())
		}
	case metaSetLabels:
		p.setLabels = labels(r)
	case metaEnumLabels:
		p.enumLabels = labels(r)
	case metaSimplePrimaryKey:
		p.primary = r.packedAll()
	case metaPrefixPrimaryKey:
		p.primary, p.primaryPrefixes = r.packedAll(), true
	case metaVisibility:
		p.hasVisibility = true
	}
	outer.bad = outer.bad || r.bad
}

func defaultCharset(r *reader) charsets {
	c := charsets{present: true, fallback: r.packed(), exception: map[int]uint64{}}
	for len(r.b) > 0 {
		ordinal := r.packed()
		c.exception[int(min(ordinal, maxColumns))] = r.packed()
	}
	return c
}

func labels(r *reader) [][]string {
	var all [][]string
	for len(r.b) > 0 {
		n := r.packed()
		if n > uint64(len(r.b)) { // every label takes a byte at least
			r.bad = true
			return nil
		}
		list := make([]string, n)
		for i := range list {
			list[i] = string(r.packedBytes())
		}
		all = append(all, list)
	}
	return all
}

// finish spreads the metadata over the columns.
func (p *mapParser) finish() error {
	missing := func(what string) error {
		return fault.New(fault.Precondition, metadataRemedy, "the binlog does not give the %s of table %s", what,
			p.table.Name)
	}
	if !p.hasNames || len(p.names) != len(p.table.Columns) {
		return missing("column names")
	}
	var numbers, texts, labelled, enums, sets int
	for i := range p.table.Columns {
		c := &p.table.Columns[i]
		c.Name = string(p.names[i])
		switch {
		case isNumber(c.Type):
			if numbers/8 >= len(p.signedness) {
				return missing("signs of numbers")
			}
			c.Unsigned = p.signedness[numbers/8]>>(7-numbers%8)&1 == 1
			numbers++
		case c.Type == typeEnum || c.Type == typeSet:
			list, next := p.enumLabels, &enums
			if c.Type == typeSet {
				list, next = p.setLabels, &sets
			}
			if *next >= len(list) || !p.labelsCharset.present {
				return missing("labels of ENUM and SET")
			}
			c.Labels = list[*next]
			*next++
			c.Collation = uint16(p.labelsCharset.of(labelled))
			labelled++
		case isText(c.Type):
			if !p.charset.present {
				return missing("character sets")
			}
			c.Collation = uint16(p.charset.of(texts))
			texts++
		case c.Type == typeGeometry && !p.hasVisibility:
			texts++ // MariaDB, which sends no visibility, counts geometry among the texts
		}
	}
	return p.keyParts()
}

func (p *mapParser) keyParts() error {
	step := 1
	if p.primaryPrefixes {
		step = 2
	}
	if len(p.primary)%step != 0 {
		return errCut
	}
	for i := 0; i < len(p.primary); i += step {
		part := change.KeyPart{Column: int(min(p.primary[i], maxColumns))}
		if part.Column >= len(p.table.Columns) {
			return errCut
		}
		if p.primaryPrefixes {
			part.Prefix = int(min(p.primary[i+1], 1<<16))
		}
		p.table.PrimaryKey = append(p.table.PrimaryKey, part)
	}
	return nil
}

func isNumber(kind byte) bool {
	switch kind {
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong, typeFloat, typeDouble, typeNewDecimal, typeYear:
		return true
	}
	return false
}

func isText(kind byte) bool {
	switch kind {
	case typeString, typeVarchar, typeVarString, typeBlob, typeVarcharCompressed, typeBlobCompressed:
		return true
	}
	return false
}

// SameDefinition reports whether two TABLE_MAP events, CRC32 included where checksum says so, define the same table: only
// header, table id and CRC32 may differ.
func SameDefinition(a, b []byte, checksum bool) bool {
	x, errX := body(a, checksum)
	y, errY := body(b, checksum)
	return errX == nil && errY == nil && len(x) >= tableIDSize && len(y) >= tableIDSize &&
		bytes.Equal(x[tableIDSize:], y[tableIDSize:])
}

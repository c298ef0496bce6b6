package dml

import (
	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// TableOf is a table as its own binlog would describe it (without a TABLE_MAP event), for rows that were read from a server
// and never seen in a binlog. NewPlan(TableOf(t), t, false) reads and writes them without loss.
//
// What information_schema does not tell is taken to be as usual: dates and times in the format since MySQL 5.6 and
// MariaDB 10.1, MariaDB's VECTOR as MySQL's. Labels have a question mark for each character outside of the basic plane.
func TableOf(t *server.Table) *change.Table {
	out := &change.Table{Name: t.Name, Columns: make([]change.Column, len(t.Columns))}
	for i := range t.Columns {
		out.Columns[i] = columnOf(&t.Columns[i])
	}
	for _, part := range t.PrimaryKey {
		if part.Column >= 0 {
			out.PrimaryKey = append(out.PrimaryKey, change.KeyPart(part))
		}
	}
	return out
}

// plainTypes are the types without anything to add.
var plainTypes = map[string]struct {
	kind byte
	meta uint16
}{
	"tinyint": {mysql.MYSQL_TYPE_TINY, 0}, "smallint": {mysql.MYSQL_TYPE_SHORT, 0}, "mediumint": {mysql.MYSQL_TYPE_INT24, 0},
	"int": {mysql.MYSQL_TYPE_LONG, 0}, "bigint": {mysql.MYSQL_TYPE_LONGLONG, 0}, "float": {mysql.MYSQL_TYPE_FLOAT, 4},
	"double": {mysql.MYSQL_TYPE_DOUBLE, 8}, "year": {mysql.MYSQL_TYPE_YEAR, 0}, "date": {mysql.MYSQL_TYPE_DATE, 0},
	"json": {mysql.MYSQL_TYPE_JSON, 4}, "vector": {mysql.MYSQL_TYPE_VECTOR, 4},
}

func columnOf(c *server.Column) change.Column {
	out := change.Column{Name: c.Name, Nullable: c.Nullable}
	k := parseType(c)
	if plain, ok := plainTypes[k.base]; ok {
		out.Type, out.Meta, out.Unsigned = plain.kind, plain.meta, k.unsigned || k.base == "year"
		return out
	}
	switch {
	case k.base == "decimal":
		out.Type, out.Unsigned = mysql.MYSQL_TYPE_NEWDECIMAL, k.unsigned
		out.Meta = uint16(k.arg(0, 10)<<8 | k.arg(1, 0))
	case k.base == "bit":
		n := k.arg(0, 1)
		out.Type, out.Meta = mysql.MYSQL_TYPE_BIT, uint16(n/8<<8|n%8)
	case k.base == "time":
		out.Type, out.Meta = mysql.MYSQL_TYPE_TIME2, uint16(k.arg(0, 0))
	case k.base == "datetime":
		out.Type, out.Meta = mysql.MYSQL_TYPE_DATETIME2, uint16(k.arg(0, 0))
	case k.base == "timestamp":
		out.Type, out.Meta = mysql.MYSQL_TYPE_TIMESTAMP2, uint16(k.arg(0, 0))
	case k.base == "enum" || k.base == "set":
		out.Collation = c.CollationID
		out.Type, out.Meta = labelType(k)
		out.Labels = encodeLabels(k.labels, targetCharset(c))
	case isGeometry(k.base):
		out.Type, out.Meta = mysql.MYSQL_TYPE_GEOMETRY, 4
	default:
		textColumn(&out, c, k)
	}
	return out
}

// textColumn fills in texts and bytes.
func textColumn(out *change.Column, c *server.Column, k sqlType) {
	out.Collation = image.BinaryCollation
	if c.CollationID != 0 {
		out.Collation = c.CollationID
	}
	longest := k.arg(0, 1) * characterSize(c)
	if n, ok := fixedBytes[k.base]; ok {
		longest = n
	}
	blob, isBlob := blobBytes[k.base]
	switch {
	case isBlob:
		out.Type, out.Meta = mysql.MYSQL_TYPE_BLOB, uint16(blob.prefix)
		if c.Compressed {
			out.Type = typeBlobCompressed
		}
	case k.base == "varchar" || k.base == "varbinary":
		out.Type, out.Meta = mysql.MYSQL_TYPE_VARCHAR, uint16(longest)
		if c.Compressed {
			out.Type, out.Meta = typeVarcharCompressed, uint16(longest+1)
		}
	default: // CHAR, BINARY, and those of MariaDB that look like it
		high := uint16(mysql.MYSQL_TYPE_STRING) ^ uint16(longest>>4&0x30)
		out.Type, out.Meta = mysql.MYSQL_TYPE_STRING, high<<8|uint16(longest&0xff)
	}
}

// labelType is the type and size of an ENUM or SET: the first byte of its metadata is the type.
func labelType(k sqlType) (kind byte, meta uint16) {
	n := len(k.labels)
	if k.base == "enum" {
		size := 1
		if n > 255 {
			size = 2
		}
		return mysql.MYSQL_TYPE_ENUM, uint16(mysql.MYSQL_TYPE_ENUM)<<8 | uint16(size)
	}
	size := (n + 7) / 8
	if size > 4 {
		size = 8
	}
	return mysql.MYSQL_TYPE_SET, uint16(mysql.MYSQL_TYPE_SET)<<8 | uint16(size)
}

// encodeLabels is the reverse of printedLabels, as far as there is one.
func encodeLabels(labels []string, charset string) []string {
	enc := labelEncodings[charset]
	if enc == nil {
		return labels
	}
	out := make([]string, len(labels))
	for i, l := range labels {
		text, err := enc.NewEncoder().String(l)
		if err != nil {
			text = l
		}
		out[i] = text
	}
	return out
}

package dml

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// SameLayout reports whether a target's row applier, which goes by position, would take the source's row images for what
// they are: the same columns in the same order, of the same types and character sets, under the same primary key. The
// flavors must be the same; the caller knows. reason says what differs.
func SameLayout(source *change.Table, target *server.Table) (ok bool, reason string) {
	if len(source.Columns) != len(target.Columns) {
		return false, fmt.Sprintf("the source has %d columns, the target %d", len(source.Columns), len(target.Columns))
	}
	for i := range source.Columns {
		s, t := &source.Columns[i], &target.Columns[i]
		if !strings.EqualFold(s.Name, t.Name) {
			return false, fmt.Sprintf("column %d is %s on the source and %s on the target", i+1, s.Name, t.Name)
		}
		if s.Nullable && !t.Nullable {
			return false, fmt.Sprintf("column %s may be NULL on the source only", s.Name)
		}
		if !sameType(s, t) {
			return false, fmt.Sprintf("column %s is %s on the target, and something else on the source", s.Name, t.Type)
		}
	}
	if !samePrimaryKey(source, target) {
		return false, "the primary keys differ"
	}
	return true, ""
}

func samePrimaryKey(source *change.Table, target *server.Table) bool {
	return slices.EqualFunc(source.PrimaryKey, target.PrimaryKey, func(s change.KeyPart, t server.KeyPart) bool {
		if t.Column < 0 || s.Prefix != t.Prefix {
			return false
		}
		a, b := source.Columns[s.Column], target.Columns[t.Column]
		return strings.EqualFold(a.Name, b.Name) && (b.CollationID == 0 || a.Collation == b.CollationID)
	})
}

// sameType reports whether a column of the target would have the type and metadata in a row image that the source's has.
func sameType(s *change.Column, c *server.Column) bool {
	t := parseType(c)
	if size, ok := integerTypes[t.base]; ok {
		return integerSize(s.Type) == size && s.Unsigned == t.unsigned
	}
	if isGeometry(t.base) {
		return s.Type == mysql.MYSQL_TYPE_GEOMETRY
	}
	if n, ok := fixedBytes[t.base]; ok {
		return s.Type == mysql.MYSQL_TYPE_STRING && s.Collation == image.BinaryCollation && charBytes(s.Meta) == n
	}
	switch t.base {
	case "float":
		return s.Type == mysql.MYSQL_TYPE_FLOAT && s.Unsigned == t.unsigned
	case "double":
		return s.Type == mysql.MYSQL_TYPE_DOUBLE && s.Unsigned == t.unsigned
	case "decimal":
		meta := uint16(t.arg(0, 10)<<8 | t.arg(1, 0))
		return s.Type == mysql.MYSQL_TYPE_NEWDECIMAL && s.Meta == meta && s.Unsigned == t.unsigned
	case "bit":
		n := t.arg(0, 1)
		return s.Type == mysql.MYSQL_TYPE_BIT && s.Meta == uint16(n/8<<8|n%8)
	case "year":
		return s.Type == mysql.MYSQL_TYPE_YEAR
	case "enum":
		return s.Type == mysql.MYSQL_TYPE_ENUM && sameCharset(s, c) && slices.Equal(printedLabels(s), t.labels)
	case "set":
		return s.Type == mysql.MYSQL_TYPE_SET && sameCharset(s, c) && slices.Equal(printedLabels(s), t.labels)
	case "json":
		return s.Type == mysql.MYSQL_TYPE_JSON
	case "vector":
		return s.Type == mysql.MYSQL_TYPE_VECTOR ||
			s.Type == mysql.MYSQL_TYPE_VARCHAR && s.Collation == image.BinaryCollation && int(s.Meta) == 4*t.arg(0, 0)
	}
	return sameTemporal(s, t) || sameText(s, c, t)
}

func sameTemporal(s *change.Column, t sqlType) bool {
	fsp := uint16(t.arg(0, 0))
	switch t.base {
	case "date":
		return s.Type == mysql.MYSQL_TYPE_DATE || s.Type == mysql.MYSQL_TYPE_NEWDATE
	case "time":
		return s.Type == mysql.MYSQL_TYPE_TIME2 && s.Meta == fsp
	case "datetime":
		return s.Type == mysql.MYSQL_TYPE_DATETIME2 && s.Meta == fsp
	case "timestamp":
		return s.Type == mysql.MYSQL_TYPE_TIMESTAMP2 && s.Meta == fsp
	}
	return false
}

func sameText(s *change.Column, c *server.Column, t sqlType) bool {
	if !sameCharset(s, c) {
		return false
	}
	longest := t.arg(0, 1) * characterSize(c)
	switch t.base {
	case "char", "binary":
		return s.Type == mysql.MYSQL_TYPE_STRING && charBytes(s.Meta) == longest
	case "varchar", "varbinary":
		if c.Compressed {
			return s.Type == typeVarcharCompressed
		}
		return s.Type == mysql.MYSQL_TYPE_VARCHAR && int(s.Meta) == longest
	}
	if blob, ok := blobBytes[t.base]; ok {
		want := byte(mysql.MYSQL_TYPE_BLOB)
		if c.Compressed {
			want = typeBlobCompressed
		}
		return s.Type == want && int(s.Meta) == blob.prefix
	}
	return false
}

// sameCharset compares character sets; bytes have none on the target.
func sameCharset(s *change.Column, c *server.Column) bool {
	collation, known := image.CollationOf(s.Collation)
	if c.CollationID == 0 || c.CollationID == image.BinaryCollation {
		return s.Collation == image.BinaryCollation
	}
	return known && collation.Charset == targetCharset(c)
}

// targetCharset is the character set of a target's column, "binary" for bytes.
func targetCharset(c *server.Column) string {
	if collation, known := image.CollationOf(c.CollationID); known && c.CollationID != 0 {
		return collation.Charset
	}
	return "binary"
}

func characterSize(c *server.Column) int { return image.CharacterSize(targetCharset(c)) }

package dml

import (
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// MariaDB's COMPRESSED columns in a TABLE_MAP event.
const (
	typeBlobCompressed    = 140
	typeVarcharCompressed = 141
)

// sqlType is the type of a target's column, taken apart.
type sqlType struct {
	base     string // DATA_TYPE
	args     []int  // "decimal(10,2)" has two
	unsigned bool
	labels   []string // of enum and set, in UTF-8
}

func parseType(c *server.Column) sqlType {
	t := sqlType{base: strings.ToLower(c.DataType)}
	open := strings.IndexByte(c.Type, '(')
	if t.base == "enum" || t.base == "set" {
		if open >= 0 {
			t.labels = parseLabels(c.Type[open+1:])
		}
		return t
	}
	t.unsigned = strings.Contains(c.Type, "unsigned") || strings.Contains(c.Type, "zerofill")
	if end := strings.IndexByte(c.Type, ')'); open >= 0 && end > open {
		for arg := range strings.SplitSeq(c.Type[open+1:end], ",") {
			n, err := strconv.Atoi(strings.TrimSpace(arg))
			if err != nil {
				return t // "point(srid …)" and the like: no numbers
			}
			t.args = append(t.args, n)
		}
	}
	return t
}

// arg is the nth number behind the type's name, or its default.
func (t sqlType) arg(n, fallback int) int {
	if n < len(t.args) {
		return t.args[n]
	}
	return fallback
}

// parseLabels reads "'a','b')": quotes are doubled, and some characters have a backslash in front.
func parseLabels(text string) []string {
	var labels []string
	var label strings.Builder
	inside := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case !inside && c == '\'':
			inside = true
		case !inside:
			if c == ')' {
				return labels
			}
		case c == '\'' && i+1 < len(text) && text[i+1] == '\'':
			label.WriteByte('\'')
			i++
		case c == '\'':
			labels = append(labels, label.String())
			label.Reset()
			inside = false
		case c == '\\' && i+1 < len(text):
			i++
			if plain := strings.IndexByte("0nr", text[i]); plain >= 0 {
				label.WriteByte("\x00\n\r"[plain])
			} else {
				label.WriteByte(text[i])
			}
		default:
			label.WriteByte(c)
		}
	}
	return labels
}

var labelEncodings = map[string]encoding.Encoding{
	"latin1": charmap.Windows1252, "latin2": charmap.ISO8859_2, "latin5": charmap.ISO8859_9, "latin7": charmap.ISO8859_13,
	"cp1250": charmap.Windows1250, "cp1251": charmap.Windows1251, "cp1256": charmap.Windows1256,
	"cp1257": charmap.Windows1257, "cp850": charmap.CodePage850, "cp852": charmap.CodePage852, "cp866": charmap.CodePage866,
	"greek": charmap.ISO8859_7, "hebrew": charmap.ISO8859_8, "koi8r": charmap.KOI8R, "koi8u": charmap.KOI8U,
	"gbk": simplifiedchinese.GBK, "gb18030": simplifiedchinese.GB18030, "big5": traditionalchinese.Big5,
	"sjis": japanese.ShiftJIS, "cp932": japanese.ShiftJIS, "ujis": japanese.EUCJP, "eucjpms": japanese.EUCJP,
	"euckr": korean.EUCKR,
}

// printedLabels are the labels of a source's ENUM or SET as a target's information_schema prints them: in UTF-8, with a
// question mark for every character outside of the basic plane. Labels in a character set that cannot be read here stay
// as they are, and then match nothing but themselves.
func printedLabels(c *change.Column) []string {
	collation, _ := image.CollationOf(c.Collation)
	enc := labelEncodings[collation.Charset]
	labels := make([]string, len(c.Labels))
	for i, text := range c.Labels {
		if enc != nil {
			if decoded, err := enc.NewDecoder().String(text); err == nil {
				text = decoded
			}
		}
		labels[i] = strings.Map(func(r rune) rune {
			if r > 0xffff {
				return '?'
			}
			return r
		}, text)
	}
	return labels
}

// integerTypes are the SQL names of integer column types, with their size in bytes.
var integerTypes = map[string]int{"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}

// integerSize is the size of a source's integer type, 0 for other types.
func integerSize(kind byte) int {
	switch kind {
	case mysql.MYSQL_TYPE_TINY:
		return 1
	case mysql.MYSQL_TYPE_SHORT:
		return 2
	case mysql.MYSQL_TYPE_INT24:
		return 3
	case mysql.MYSQL_TYPE_LONG:
		return 4
	case mysql.MYSQL_TYPE_LONGLONG:
		return 8
	}
	return 0
}

// blobBytes is the greatest length of the BLOB and TEXT types, and the size of that length in a row image.
var blobBytes = map[string]struct{ longest, prefix int }{
	"tinyblob": {1<<8 - 1, 1}, "blob": {1<<16 - 1, 2}, "mediumblob": {1<<24 - 1, 3}, "longblob": {1<<32 - 1, 4},
	"tinytext": {1<<8 - 1, 1}, "text": {1<<16 - 1, 2}, "mediumtext": {1<<24 - 1, 3}, "longtext": {1<<32 - 1, 4},
}

func isGeometry(base string) bool {
	switch base {
	case "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
		"geomcollection", "geometrycollection":
		return true
	}
	return false
}

// fixedBytes are the sizes of MariaDB's types that its binlog shows as CHAR of bytes.
var fixedBytes = map[string]int{"uuid": 16, "inet6": 16, "inet4": 4}

// charBytes is the greatest length of a source's CHAR or BINARY column: lengths above 255 hide two bits in the type byte.
func charBytes(meta uint16) int {
	high, low := meta>>8, meta&0xff
	return int((high&0x30^0x30)<<4 | low)
}

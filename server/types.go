package server

import (
	"regexp"
	"strings"
)

var (
	displayWidth = regexp.MustCompile(`^(tinyint|smallint|mediumint|int|bigint)\(\d+\)`)
	yearWidth    = regexp.MustCompile(`^year\(\d+\)`)
)

// normalType is a column's type as far as its values go: the width that some servers still print after integers means
// nothing, and old names stand for the new ones.
func normalType(c Column) string {
	text := c.Type
	text = displayWidth.ReplaceAllString(text, "$1")
	text = yearWidth.ReplaceAllString(text, "year")
	text = strings.ReplaceAll(text, " zerofill", "")
	switch c.DataType {
	case "enum", "set":
		return text // labels count, letter by letter
	case "geomcollection":
		return "geometrycollection"
	}
	return strings.ToLower(text)
}

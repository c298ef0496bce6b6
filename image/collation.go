package image

import "sort"

// Collation is what can be said of a collation by its number alone.
type Collation struct {
	Charset  string // as the servers name it: "utf8mb4", "latin1", …; "binary" for bytes
	PadSpace bool   // trailing spaces do not count when values are compared
	Binary   bool   // values compare by their bytes (trailing spaces apart): *_bin, and bytes
}

// BinaryCollation is the number of bytes without a character set.
const BinaryCollation = 63

type collationRun struct {
	first, last uint16
	collation   Collation
}

// MariaDB's uca1400 collations: 256 numbers for each of five character sets, of which bit 2 says NO PAD. See
// ctype-uca1400.h.
const firstUCA1400 = 2048

var charsetsUCA1400 = []string{"utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"}

// CollationOf returns what is known of collation number id, and false when it is unknown.
func CollationOf(id uint16) (Collation, bool) {
	if id >= firstUCA1400 {
		n := int(id-firstUCA1400) / 256
		if n >= len(charsetsUCA1400) {
			return Collation{}, false
		}
		return Collation{Charset: charsetsUCA1400[n], PadSpace: id&4 == 0}, true
	}
	i := sort.Search(len(collationRuns), func(i int) bool { return collationRuns[i].last >= id })
	if i == len(collationRuns) || collationRuns[i].first > id {
		return Collation{}, false
	}
	return collationRuns[i].collation, true
}

// characterBytes returns the size of the character at the start of b in a character set; b is not empty. It is exact for
// valid text, and never more than len(b).
func characterBytes(charset string, b []byte) int {
	n := 1
	first := b[0]
	switch charset {
	case "utf8mb3", "utf8mb4":
		switch {
		case first >= 0xf0:
			n = 4
		case first >= 0xe0:
			n = 3
		case first >= 0xc0:
			n = 2
		}
	case "ucs2":
		n = 2
	case "utf16":
		n = 2
		if first&0xfc == 0xd8 {
			n = 4
		}
	case "utf16le":
		n = 2
		if len(b) > 1 && b[1]&0xfc == 0xd8 {
			n = 4
		}
	case "utf32":
		n = 4
	case "gbk", "big5", "gb2312", "euckr":
		if first >= 0x81 {
			n = 2
		}
	case "sjis", "cp932":
		if first >= 0x81 && first <= 0x9f || first >= 0xe0 && first <= 0xfc {
			n = 2
		}
	case "ujis", "eucjpms":
		switch {
		case first == 0x8f:
			n = 3
		case first >= 0xa1 || first == 0x8e:
			n = 2
		}
	case "gb18030":
		if first >= 0x81 {
			n = 2
			if len(b) > 1 && b[1] >= '0' && b[1] <= '9' {
				n = 4
			}
		}
	}
	return min(n, len(b))
}

// prefix cuts a text to its first n characters.
func prefix(charset string, b []byte, n int) []byte {
	pos := 0
	for ; n > 0 && pos < len(b); n-- {
		pos += characterBytes(charset, b[pos:])
	}
	return b[:pos]
}

// trimSpaces cuts trailing spaces off a text.
func trimSpaces(charset string, b []byte) []byte {
	space := "\x20"
	switch charset {
	case "ucs2", "utf16":
		space = "\x00\x20"
	case "utf16le":
		space = "\x20\x00"
	case "utf32":
		space = "\x00\x00\x00\x20"
	}
	for len(b) >= len(space) && string(b[len(b)-len(space):]) == space {
		b = b[:len(b)-len(space)]
	}
	return b
}

// CharacterSize is the greatest number of bytes that a character takes in a character set.
func CharacterSize(charset string) int {
	switch charset {
	case "utf8mb4", "utf16", "utf16le", "utf32", "gb18030":
		return 4
	case "utf8mb3", "ujis", "eucjpms":
		return 3
	case "ucs2", "gbk", "big5", "sjis", "cp932", "euckr", "gb2312":
		return 2
	}
	return 1
}

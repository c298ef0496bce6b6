package image

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"

	"replicator/change"
)

var encodings = map[string]encoding.Encoding{
	"latin1": charmap.Windows1252, "latin2": charmap.ISO8859_2, "latin5": charmap.ISO8859_9, "latin7": charmap.ISO8859_13,
	"cp1250": charmap.Windows1250, "cp1251": charmap.Windows1251, "cp1256": charmap.Windows1256,
	"cp1257": charmap.Windows1257, "cp850": charmap.CodePage850, "cp852": charmap.CodePage852, "cp866": charmap.CodePage866,
	"greek": charmap.ISO8859_7, "hebrew": charmap.ISO8859_8, "koi8r": charmap.KOI8R, "koi8u": charmap.KOI8U,
	"gbk": simplifiedchinese.GBK, "gb18030": simplifiedchinese.GB18030, "big5": traditionalchinese.Big5,
	"sjis": japanese.ShiftJIS, "cp932": japanese.ShiftJIS, "ujis": japanese.EUCJP, "eucjpms": japanese.EUCJP,
	"euckr":   korean.EUCKR,
	"ucs2":    unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"utf16":   unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"utf16le": unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM),
	"utf32":   utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM),
}

// UTF8 converts a text from a server's character set, for people to read: a few characters may come out otherwise than
// the server would convert them. ok is false when the character set is unknown here, or the text is not valid in it.
func UTF8(charset string, b []byte) (text string, ok bool) {
	switch charset {
	case "utf8mb4", "utf8mb3", "ascii":
		return string(b), utf8.Valid(b)
	}
	enc := encodings[charset]
	if enc == nil {
		return "", false
	}
	decoded, err := enc.NewDecoder().Bytes(b)
	return string(decoded), err == nil
}

// Print returns a value as text in UTF-8, for people to read: NULL as "", the labels of ENUM and SET, and bytes, or text
// that cannot be converted, as hexadecimal digits.
func Print(c *change.Column, v Value) string {
	switch v.Kind {
	case Null:
		return ""
	case Int:
		return strconv.FormatInt(v.Int, 10)
	case Uint:
		return printUint(c, v.Uint)
	case Float:
		return strconv.FormatFloat(v.Float, 'g', -1, 32)
	case Double:
		return strconv.FormatFloat(v.Float, 'g', -1, 64)
	case Text:
		return printText(c, v.Bytes)
	case Binary:
		return printBytes(v.Bytes)
	case Number, Time, JSON:
		return string(v.Bytes)
	}
	return fmt.Sprintf("a value of kind %d", v.Kind)
}

func printBytes(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

func printText(c *change.Column, b []byte) string {
	collation, _ := CollationOf(c.Collation)
	if text, ok := UTF8(collation.Charset, b); ok {
		return text
	}
	return printBytes(b)
}

func printUint(c *change.Column, v uint64) string {
	switch c.Type {
	case typeEnum:
		if v >= 1 && v <= uint64(len(c.Labels)) {
			return printText(c, []byte(c.Labels[v-1]))
		}
		return ""
	case typeSet:
		var labels []string
		for i, l := range c.Labels {
			if v>>i&1 == 1 {
				labels = append(labels, printText(c, []byte(l)))
			}
		}
		return strings.Join(labels, ",")
	}
	return strconv.FormatUint(v, 10)
}

// ColumnValue decodes one column of an image. An error says that the image does not fit the table.
func ColumnValue(t *change.Table, img []byte, column int) (Value, error) {
	b, err := Column(t, img, column)
	if err != nil || b == nil {
		return Value{}, err
	}
	return decode(&t.Columns[column], b)
}

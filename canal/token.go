package canal

import "strings"

type tokenKind uint8

const (
	tokenWord   tokenKind = iota // keyword or bare identifier
	tokenQuoted                  // quoted identifier, unquoted here
	tokenString                  // string literal; its text is not kept
	tokenPunct                   // one character
)

type token struct {
	kind tokenKind
	text string
}

// tokenize takes a statement apart. Comments are gone, except that what stands in a version comment (/*!50100 … */,
// /*M!100100 … */) is read like the rest: the server that logged it did so.
func tokenize(text string, ansiQuotes, noBackslashEscapes bool) []token {
	l := lexer{rest: text, ansiQuotes: ansiQuotes, noBackslashEscapes: noBackslashEscapes}
	var out []token
	for {
		t, ok := l.next()
		if !ok {
			return out
		}
		out = append(out, t)
	}
}

type lexer struct {
	rest               string
	ansiQuotes         bool
	noBackslashEscapes bool
	versioned          int // how many version comments are open
}

func (l *lexer) next() (token, bool) {
	for l.skipBlank() {
	}
	if l.rest == "" {
		return token{}, false
	}
	c := l.rest[0]
	switch {
	case c == '`' || c == '"' && l.ansiQuotes:
		return token{tokenQuoted, l.quoted(c, false)}, true
	case c == '\'' || c == '"':
		l.quoted(c, !l.noBackslashEscapes)
		return token{kind: tokenString}, true
	case isWord(c):
		n := 1
		for n < len(l.rest) && isWord(l.rest[n]) {
			n++
		}
		word := l.rest[:n]
		l.rest = l.rest[n:]
		return token{tokenWord, word}, true
	}
	l.rest = l.rest[1:]
	return token{tokenPunct, string(c)}, true
}

// skipBlank takes one run of blanks, or one comment, off the front.
func (l *lexer) skipBlank() bool {
	switch {
	case l.rest == "":
		return false
	case strings.IndexByte(" \t\r\n\f\v", l.rest[0]) >= 0:
		l.rest = strings.TrimLeft(l.rest, " \t\r\n\f\v")
	case strings.HasPrefix(l.rest, "/*!"), strings.HasPrefix(l.rest, "/*M!"):
		l.rest = strings.TrimLeft(l.rest[strings.IndexByte(l.rest, '!')+1:], "0123456789")
		l.versioned++
	case l.versioned > 0 && strings.HasPrefix(l.rest, "*/"):
		l.rest = l.rest[2:]
		l.versioned--
	case strings.HasPrefix(l.rest, "/*"):
		l.cutAfter("*/", 2)
	case l.rest[0] == '#', l.rest == "--",
		strings.HasPrefix(l.rest, "--") && strings.IndexByte(" \t\r\n", l.rest[2]) >= 0:
		l.cutAfter("\n", 0)
	default:
		return false
	}
	return true
}

func (l *lexer) cutAfter(end string, from int) {
	i := strings.Index(l.rest[from:], end)
	if i < 0 {
		l.rest = ""
		return
	}
	l.rest = l.rest[from+i+len(end):]
}

// quoted takes a quoted text off the front; a doubled quote stands for itself.
func (l *lexer) quoted(quote byte, backslash bool) string {
	var b strings.Builder
	i := 1
	for i < len(l.rest) {
		c := l.rest[i]
		switch {
		case backslash && c == '\\':
			i++
		case c == quote:
			if i+1 >= len(l.rest) || l.rest[i+1] != quote {
				l.rest = l.rest[i+1:]
				return b.String()
			}
			b.WriteByte(c)
			i++
		default:
			b.WriteByte(c)
		}
		i++
	}
	l.rest = ""
	return b.String()
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

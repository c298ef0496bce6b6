package resync

import "strings"

// Condition reports whether a text can stand in parentheses as a condition, whatever it says: it does not end them, nor open what
// it does not close, and holds no comment.
func Condition(text string) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'' || c == '"' || c == '`':
			if i = quoted(text, i); i < 0 {
				return false
			}
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth < 0 {
				return false
			}
		case c == '#' || c == ';' || strings.HasPrefix(text[i:], "--") || strings.HasPrefix(text[i:], "/*"):
			return false
		}
	}
	return depth == 0
}

// quoted returns where what is quoted from i on ends, -1 where it does not. A doubled quote begins anew, to the same end.
func quoted(text string, i int) int {
	for j := i + 1; j < len(text); j++ {
		switch {
		case text[j] == '\\' && text[i] != '`':
			j++
		case text[j] == text[i]:
			return j
		}
	}
	return -1
}

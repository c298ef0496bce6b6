package resync

import "testing"

func TestCondition(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "id > 1": true, "(a OR b) AND c": true, "v = ')'": true, `v = "it's )"`: true, "`a)` = 1": true, "v = 'it''s)'": true,
		`v = 'a\\' AND (b)`: true, `v = 'a\')'`: true, "a = - -1": true,
		"1) OR (1": false, "(a": false, "a)": false, "v = '": false, `v = 'a\'`: false, "a -- b": false, "a # b": false, "a /* b": false, "1; DROP": false,
		"a = `b": false,
	} {
		if Condition(text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

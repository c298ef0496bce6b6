package server_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

// weighedTexts are texts that some collations hold equal and others do not.
var weighedTexts = []string{
	"", " ", "a", "A", "a ", "a  ", "á", "Á", "á ", "à", "ä", "ae", "æ", "ss", "ß", "ẞ", "s", "i", "I", "ı", "İ", "o", "ö", "oe",
	"n", "ñ", "a b", "ab", "a\tb", "a\t", "z", "ž", "中", "中 ", "ﬀ", "ff", "№", "①", "1", "Ａ", "😀", "😁", "ﾊ", "ハ", "は",
}

// collations shared by both flavors, and what is each one's own.
var (
	sharedCollations = []string{
		"utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "utf8mb4_swedish_ci", "utf8mb4_bin",
		"utf8mb3_general_ci", "utf8mb3_unicode_ci", "latin1_swedish_ci", "latin1_german1_ci", "latin1_german2_ci",
		"latin1_general_cs", "latin1_bin", "latin2_general_ci", "cp1250_general_ci", "ucs2_general_ci", "utf16_unicode_ci",
		"utf32_general_ci", "gbk_chinese_ci", "sjis_japanese_ci",
	}
	mysqlCollations   = []string{"utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs", "utf8mb4_0900_bin", "utf8mb4_de_pb_0900_ai_ci", "utf8mb4_ja_0900_as_cs_ks"}
	mariadbCollations = []string{
		"utf8mb4_uca1400_ai_ci", "utf8mb4_uca1400_as_cs", "utf8mb4_uca1400_nopad_ai_ci", "utf8mb4_nopad_bin",
		"utf8mb4_general_nopad_ci", "utf8mb4_unicode_nopad_ci", "latin1_swedish_nopad_ci", "utf8mb4_uca1400_german2_ai_ci",
	}
)

// TestWeights proves on every server that two rows have one key exactly when the server holds their key values equal, and
// that servers agree about the keys of collations that they share.
func TestWeights(t *testing.T) {
	keys := map[string]map[string]change.Key{} // collation → text (hex) → key, of the first server
	for _, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		imagetest.Exec(t, s, "CREATE DATABASE d")
		own, kind := mysqlCollations, change.MySQL
		if flavor.MariaDB() {
			own, kind = mariadbCollations, change.MariaDB
		}
		keyer := image.NewKeyer(server.NewWeigher(s.DB(), kind))
		for _, collation := range append(append([]string{}, sharedCollations...), own...) {
			t.Run(string(flavor)+"/"+collation, func(t *testing.T) {
				got := weighedKeys(t, s, keyer, collation)
				first, ok := keys[collation]
				if !ok {
					keys[collation] = got
					return
				}
				for text, key := range got {
					if other, ok := first[text]; ok && other != key {
						t.Errorf("X'%s' has another key than on the first server", text)
					}
				}
			})
		}
	}
}

func weighedKeys(t *testing.T, s *sandbox.Server, keyer *image.Keyer, collation string) map[string]change.Key {
	t.Helper()
	charset, _, _ := strings.Cut(collation, "_")
	column := fmt.Sprintf("VARCHAR(20) CHARACTER SET %s COLLATE %s NOT NULL", charset, collation)
	imagetest.Exec(t, s, "DROP TABLE IF EXISTS d.t, d.n",
		"CREATE TABLE d.n (n INT PRIMARY KEY, v "+column+")",
		"CREATE TABLE d.t (v "+column+" PRIMARY KEY, n INT)")
	var insert []string
	for i, text := range weighedTexts {
		insert = append(insert, fmt.Sprintf("INSERT IGNORE INTO d.n SELECT %d, v FROM (SELECT CONVERT(_utf8mb4 X'%x' USING %s) v) x WHERE CONVERT(v USING utf8mb4) = _utf8mb4 X'%x' COLLATE utf8mb4_bin AND LENGTH(CONVERT(v USING utf8mb4)) = %d",
			i, text, charset, text, len(text)))
	}
	imagetest.Exec(t, s, insert...)
	log := imagetest.Capture(t, s, func() {
		for i := range weighedTexts {
			imagetest.Exec(t, s, fmt.Sprintf("INSERT INTO d.t SELECT v, n FROM d.n WHERE n = %d", i), "DELETE FROM d.t")
		}
	})
	byNumber := map[int64]change.Key{}
	byText := map[string]change.Key{}
	for _, ev := range log.Events {
		if ev.Kind != change.Insert {
			continue
		}
		if err := keyer.Keys(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		for _, r := range ev.Rows {
			values, err := image.Values(ev.Table, ev.After(r))
			if err != nil {
				t.Fatal(err)
			}
			byNumber[values[1].Int] = r.Key
			byText[hex.EncodeToString(bytes.Clone(values[0].Bytes))] = r.Key
		}
	}
	if len(byNumber) < 5 {
		t.Fatalf("only %d texts exist in %s", len(byNumber), charset)
	}
	compareKeys(t, s, byNumber)
	return byText
}

func compareKeys(t *testing.T, s *sandbox.Server, keys map[int64]change.Key) {
	t.Helper()
	rows, err := s.DB().QueryContext(t.Context(), "SELECT a.n, b.n, a.v = b.v FROM d.n a JOIN d.n b ON a.n < b.n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var a, b int64
		var equal bool
		if err := rows.Scan(&a, &b, &equal); err != nil {
			t.Fatal(err)
		}
		if got := keys[a] == keys[b]; got != equal {
			t.Errorf("%q and %q: one key %t, equal on the server %t", weighedTexts[a], weighedTexts[b], got, equal)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

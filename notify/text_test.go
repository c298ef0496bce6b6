package notify

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"replicator/change"
	"replicator/journal"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

func told(id string, change func(*toldConflict)) toldConflict {
	c := toldConflict{
		ID: id, Time: timestamp(noon), Table: "shop.stock", Key: json.RawMessage(`{"id":7,"site":"north"}`), Kind: journal.UpdateOriginDiffers,
		Policy: "last-writer-wins", Restorable: true,
		Winner:         toldSide{Server: "east", Time: new(timestamp(noon.Add(-time.Second))), User: "7", Comment: "restocked"},
		Loser:          toldSide{Server: "west", Time: new(timestamp(noon.Add(-2 * time.Second)))},
		Columns:        []toldColumn{{Name: "quantity", Winner: json.Number("5"), Loser: json.Number("3")}, {Name: "note", Winner: nil, Loser: ""}, {Name: "photo", Winner: longValue{70000}, Loser: map[string]string{"base64": "AAEC"}}, {Name: "ssn", Winner: redacted, Loser: redacted, Redacted: true}},
		RestoreColumns: []string{"quantity", "note", "photo", "ssn"}, Restore: "replicator conflicts restore " + id + " --columns quantity,note,photo,ssn", Show: "replicator conflicts show " + id,
	}
	if change != nil {
		change(&c)
	}
	return c
}

// TestTexts compares mails with those in testdata. REPLICATOR_UPDATE=1 writes them anew.
func TestTexts(t *testing.T) {
	stock := change.TableName{Database: "shop", Table: "stock"}
	for name, n := range map[string]*notification{
		"one": {Mesh: "shop", Total: 1, Conflicts: []toldConflict{told("0123456789abcdef", nil)}, subject: []change.TableName{stock}},
		"deletions": {Mesh: "shop", Total: 3, First: timestamp(noon), Last: timestamp(noon.Add(time.Minute)), Conflicts: []toldConflict{
			told("0000000000000001", func(c *toldConflict) {
				c.Kind, c.Winner.Deletes, c.RestoreColumns, c.Restore = journal.UpdateDeleted, true, nil, "replicator conflicts restore "+c.ID
			}),
			told("0000000000000002", func(c *toldConflict) {
				c.Kind, c.Loser.Deletes, c.Columns, c.RestoreColumns, c.Restore = journal.DeleteOriginDiffers, true, nil, nil, "replicator conflicts restore "+c.ID
			}),
			told("0000000000000003", func(c *toldConflict) {
				c.Loser, c.RestoreColumns, c.Restore, c.Unreadable, c.Columns = toldSide{}, nil, "", true, nil
			}),
		}, subject: []change.TableName{stock}},
		"settled": {Mesh: "shop", Total: 4, First: timestamp(noon), Last: timestamp(noon.Add(time.Minute)), Conflicts: []toldConflict{
			told("0000000000000001", func(c *toldConflict) {
				c.Kind, c.Winner.Deletes, c.RestoreColumns, c.Restore = journal.UpdateExists, true, nil, "replicator conflicts restore "+c.ID
			}),
			told("0000000000000002", func(c *toldConflict) {
				c.Kind, c.Winner.Deletes, c.RestoreColumns, c.Restore = journal.ParentMissing, true, nil, "replicator conflicts restore "+c.ID
			}),
			told("0000000000000003", func(c *toldConflict) { c.Kind = journal.ChildExists }), // it lost its reference alone
			told("0000000000000004", func(c *toldConflict) {
				c.Kind, c.Winner.Deletes, c.RestoreColumns, c.Restore = journal.MultipleUnique, true, nil, "replicator conflicts restore "+c.ID
				c.Other = json.RawMessage(`{"id":8,"site":"north"}`)
			}),
		}, subject: []change.TableName{stock}},
		"partly": {Mesh: "shop", Total: 1, Conflicts: []toldConflict{told("0123456789abcdef", func(c *toldConflict) {
			c.Restorable, c.RestoreColumns, c.Restore = false, []string{"quantity", "note"}, "replicator conflicts restore 0123456789abcdef --columns quantity,note"
			c.Columns[2].Loser = map[string]any{"omitted": journal.Omission{Bytes: 2 << 20}}
		})}, subject: []change.TableName{stock}},
		"waiting": {Mesh: "shop", Total: 1, Conflicts: []toldConflict{told("0123456789abcdef", func(c *toldConflict) {
			c.Policy, c.Waits = "halt", true
		})}, subject: []change.TableName{stock}},
		"digest": {
			Mesh: "shop", Total: 1234, First: timestamp(noon), Last: timestamp(noon.Add(time.Minute)), AtLeast: true,
			Conflicts: []toldConflict{told("0123456789abcdef", nil)},
			Tables:    []toldCount{{"shop.stock", journal.UpdateOriginDiffers, 1200}, {"shop.orders", journal.ParentMissing, 34}},
			Rows:      []toldRow{{"shop.stock", json.RawMessage(`{"id":"9007199254740993"}`), 800}, {"shop.stock", quoted(`{"id":"cut`), 2}},
			subject:   []change.TableName{stock, {Database: "shop", Table: "orders"}},
		},
		"test": {Mesh: "shop", Test: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".txt")
			got := "Subject: " + n.Subject() + "\n\n" + n.Text()
			if os.Getenv("REPLICATOR_UPDATE") == "1" {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// TestAnotherRow: where a row left for the sake of another one, all of it was lost, and it is put back whole.
func TestAnotherRow(t *testing.T) {
	c := toldConflict{ID: "1234", Kind: journal.UpdateExists, Restorable: true}
	c.rows(stockRow(stock, 2, 5, "same"), stockRow(stock, 1, 3, "same"), func(column string) bool { return column == "ssn" }, nil)
	require.Equal(t, "replicator conflicts restore 1234", c.Restore)
	require.JSONEq(t, `{"id": 2}`, string(c.Other))
	require.True(t, c.Winner.Deletes)
	require.Equal(t, []toldColumn{
		{Name: "id", Loser: int64(1)},
		{Name: "quantity", Loser: int64(3)},
		{Name: "note", Loser: "same"},
		{Name: "ssn", Winner: redacted, Loser: redacted, Redacted: true},
	}, c.Columns)
	c.Other, c.Columns = nil, nil
	c.rows(stockRow(stock, 2, 5, "same"), stockRow(stock, 1, 3, "same"), func(column string) bool { return column == "id" }, nil)
	require.JSONEq(t, `{"id": "(redacted)"}`, string(c.Other))
}

// TestPlain: whatever a text holds, it stays on its line and within its length.
func TestPlain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := plain(rapid.String().Draw(t, "text"), 20)
		require.LessOrEqual(t, len([]rune(text)), 20)
		for _, c := range text {
			require.False(t, c < ' ' || c == 0x7f || c == 0x85 || c == 0x2028 || c == 0x202e, "%q", text)
		}
	})
	require.Equal(t, "a b", plain("a\nb", 9))
	require.Equal(t, "aé…", plain("aéioué", 3))
}

func TestRedactedKeys(t *testing.T) {
	hide := func(column string) bool { return column == "b" }
	for key, want := range map[string]string{
		`{"a":1,"b":"x","c":{"base64":"AA=="}}`: `{"a":1,"b":"(redacted)","c":{"base64":"AA=="}}`,
		`{}`:                                    `{}`,
		`{"a":1,"b":"x`:                         `"(redacted)"`, // cut
		`no JSON`:                               `"(redacted)"`,
	} {
		require.JSONEq(t, want, string(redactKey(key, hide)), key)
	}
	require.Equal(t, `{"a":1}`, string(redactKey(`{"a":1}`, nil)))
	require.Equal(t, `"{\"a\":"`, string(redactKey(`{"a":`, nil)))
}

// TestDigestIsBounded: however many rows have conflicts, little is remembered, and the worst is found.
func TestDigestIsBounded(t *testing.T) {
	d := newDigest(mailDetails)
	for i := range 60_000 {
		key := fmt.Sprintf(`{"id":%d}`, i)
		if i%3 == 0 {
			key = `{"id":"hot"}`
		}
		d.add(&entry{table: change.TableName{Database: fmt.Sprint("d", i), Table: "t"}, key: key, at: noon}, nil)
	}
	require.Equal(t, 60_000, d.total)
	require.LessOrEqual(t, len(d.rows), maxRows)
	require.LessOrEqual(t, len(d.kinds), maxKinds)
	require.Len(t, d.details, mailDetails)

	d = newDigest(mailDetails)
	for i := range 60_000 {
		key := fmt.Sprintf(`{"id":%d}`, i)
		if i%3 == 0 {
			key = `{"id":"hot"}`
		}
		d.add(&entry{table: change.TableName{Database: "d", Table: "t"}, key: key, at: noon}, nil)
	}
	require.True(t, d.approximately)
	worst := d.worstRows()
	require.Equal(t, `{"id":"hot"}`, worst[0].key.key)
	require.Greater(t, worst[0].n, 10_000)
}

func TestThreads(t *testing.T) {
	a := &notification{Mesh: "m", subject: []change.TableName{{Database: "d", Table: "t"}}}
	b := &notification{Mesh: "m", subject: []change.TableName{{Database: "d", Table: "t"}}, Total: 9}
	other := &notification{Mesh: "m", subject: []change.TableName{{Database: "d", Table: "u"}}}
	require.Equal(t, a.Thread(), b.Thread())
	require.NotEqual(t, a.Thread(), other.Thread())
	require.False(t, strings.ContainsAny((&notification{Mesh: "m", subject: []change.TableName{{Database: "d", Table: "a\r\nBcc: x"}}}).Subject(), "\r\n"))
}

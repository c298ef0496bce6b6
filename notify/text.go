package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"replicator/journal"
)

// How much of a text stands in a mail.
const (
	maxCell    = 60
	maxName    = 130
	maxComment = 200
)

// plain makes a text from a database fit for one line of a mail: printable, and at most n characters.
func plain(text string, n int) string {
	var out strings.Builder
	for _, c := range text {
		switch {
		case unicode.IsSpace(c):
			out.WriteByte(' ')
		case unicode.IsPrint(c):
			out.WriteRune(c)
		case unicode.Is(unicode.Cf, c): // such as those that turn the direction of writing
		default:
			out.WriteRune(unicode.ReplacementChar)
		}
	}
	return clip(out.String(), n)
}

func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// Subject is the same for all mails on the same tables.
func (n *notification) Subject() string {
	what := "Replication conflicts"
	switch {
	case n.Test:
		what = "Test of the replicator's mails"
	case len(n.Findings) > 0:
		what = "The servers differ"
		if tables := differing(n.Findings); len(tables) == 1 {
			what = "The servers differ in " + plain(tables[0], maxName)
		}
	case len(n.subject) == 1:
		what = "Replication conflict in " + plain(n.subject[0].String(), maxName)
	}
	return "[" + plain(n.Mesh, maxName) + "] " + what
}

// Thread names what the mails of one subject have in common.
func (n *notification) Thread() string { return messageID(n.Mesh, "thread", []byte(n.Subject())) }

// Text is the body of a mail.
func (n *notification) Text() string {
	if n.Test {
		return "Somebody has run `replicator check --test-mail`. This address will be told of conflicts in the mesh " + plain(n.Mesh, maxName) +
			".\nThere is nothing to do.\n"
	}
	var t strings.Builder
	mesh := plain(n.Mesh, maxName)
	for i := range n.Findings {
		n.Findings[i].text(&t, mesh)
		t.WriteString("\n")
	}
	switch {
	case n.Total == 0 && len(n.Findings) > 0:
	case n.Total > 1:
		fmt.Fprintf(&t, "%d times two changes of one row met in the mesh %s. The journal keeps what was lost.\n", n.Total, mesh)
		if !time.Time(n.First).IsZero() {
			fmt.Fprintf(&t, "The first was noticed at %s, the last at %s.\n", clock(n.First), clock(n.Last))
		}
	case len(n.Conflicts) == 1 && n.Conflicts[0].Waits:
		fmt.Fprintf(&t, "Two changes of one row met in the mesh %s. A link waits until a person decides.\n", mesh)
	default:
		fmt.Fprintf(&t, "Two changes of one row met in the mesh %s. One won, on all servers. The other was lost; the journal keeps it.\n", mesh)
	}
	if n.Total > len(n.Conflicts) {
		n.summary(&t)
	}
	for i := range n.Conflicts {
		n.Conflicts[i].text(&t)
	}
	if len(n.Conflicts) > 0 {
		t.WriteString("\n")
	}
	if n.Total > len(n.Conflicts) {
		fmt.Fprintf(&t, "These are %d of %d. All of them: replicator conflicts list\n", len(n.Conflicts), n.Total)
	}
	t.WriteString("This mail was written by the replicator. Nobody reads answers to it.\n")
	return t.String()
}

func (n *notification) summary(t *strings.Builder) {
	t.WriteString("\nBy table and kind:\n")
	for _, c := range n.Tables {
		fmt.Fprintf(t, "%9d  %s: %s\n", c.n, plain(c.table, maxName), describe(c.kind))
	}
	if len(n.Rows) == 0 {
		return
	}
	t.WriteString("\nRows with the most conflicts")
	if n.AtLeast {
		t.WriteString(" (at least)")
	}
	t.WriteString(":\n")
	for _, c := range n.Rows {
		fmt.Fprintf(t, "%9d  %s, %s\n", c.n, plain(c.table, maxName), keyText(c.key))
	}
}

func (c *toldConflict) text(t *strings.Builder) {
	fmt.Fprintf(t, "\nConflict %s\n", c.ID)
	fmt.Fprintf(t, "  Table: %s\n", plain(c.Table, maxName))
	fmt.Fprintf(t, "  Row:   %s\n", keyText(c.Key))
	fmt.Fprintf(t, "  What:  %s (%s, policy %s), noticed at %s\n", describe(c.Kind), plain(string(c.Kind), maxName), plain(c.Policy, maxName), clock(c.Time))
	winner := c.Winner.text()
	if c.removal() != "" {
		winner = c.Winner.made("the other change")
	}
	if c.Waits {
		fmt.Fprintf(t, "  To win:   %s\n", winner)
		fmt.Fprintf(t, "  To lose:  %s\n", c.Loser.text())
	} else {
		fmt.Fprintf(t, "  Won:   %s\n", winner)
		fmt.Fprintf(t, "  Lost:  %s\n", c.Loser.text())
	}
	switch {
	case c.Unreadable:
		t.WriteString("  The two rows could not be read when this was written.\n")
	case c.Loser.Deletes && c.Waits:
		t.WriteString("  The change to lose deletes the row.\n")
	case c.Loser.Deletes:
		t.WriteString("  The deletion was lost: the row is as the change that won left it.\n")
	default:
		c.table(t)
	}
	switch {
	case c.Waits:
		fmt.Fprintf(t, "  To decide:                  replicator conflicts ack %s --keep winner|loser\n", c.ID)
	case c.Restorable && c.Restore != "":
		fmt.Fprintf(t, "  To put back what was lost:  %s\n", c.Restore)
	case c.Restorable:
		t.WriteString("  Where it is seen in full, it is said how it can be put back.\n")
	case c.Restore != "":
		t.WriteString("  Values that the journal did not keep cannot be put back by a command.\n")
		fmt.Fprintf(t, "  To put back the others:     %s\n", c.Restore)
	default:
		t.WriteString("  What was lost cannot be put back by a command: the journal does not have all of it.\n")
	}
	fmt.Fprintf(t, "  To see it in full:          %s\n", c.Show)
}

// removal says why the replicator itself removed the row, "" where it did not.
func (c *toldConflict) removal() string {
	if !c.Winner.Deletes || c.Loser.Deletes {
		return ""
	}
	return c.Kind.Removal()
}

// table prints the columns that differ.
func (c *toldConflict) table(t *strings.Builder) {
	switch {
	case c.Waits:
		t.WriteString("  Column by column:\n\n")
	case c.removal() != "":
		fmt.Fprintf(t, "  The replicator removed the row, %s; nobody deleted it.", c.removal())
		if c.Other != nil {
			fmt.Fprintf(t, "\n  The other row is %s: while it has that value, the lost one cannot be put back.", keyText(c.Other))
		}
		t.WriteString(" What was lost:\n\n")
	case c.Winner.Deletes:
		t.WriteString("  The row was deleted. What was lost:\n\n")
	default:
		t.WriteString("  What was lost, column by column:\n\n")
	}
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, "    "+strings.Join(cells, "\t")) } // a Builder takes everything
	heads := []string{"lost", "won"}
	if c.Waits {
		heads = []string{"to lose", "to win"}
	}
	if c.Winner.Deletes {
		heads = heads[:1]
	}
	line(append([]string{"column"}, heads...)...)
	for _, v := range c.Columns {
		if c.Winner.Deletes {
			line(plain(v.Name, maxCell), valueText(v.Loser))
			continue
		}
		line(plain(v.Name, maxCell), valueText(v.Loser), valueText(v.Winner))
	}
	_ = w.Flush()
	t.WriteString("\n")
}

func (s *toldSide) text() string {
	if s.Deletes {
		return s.made("the deletion")
	}
	return s.made("the change")
}

// made says who made a change, where and when.
func (s *toldSide) made(what string) string {
	if s.Time == nil {
		return "an earlier change, of which is not known any more who made it and when"
	}
	text := fmt.Sprintf("%s made on %s at %s", what, plain(s.Server, maxName), clock(*s.Time))
	if s.User != "" {
		text += " by user " + plain(s.User, maxCell)
	}
	if s.Comment != "" {
		text += ", who wrote: " + plain(s.Comment, maxComment)
	}
	return text
}

func clock(t timestamp) string { return time.Time(t).UTC().Format("2006-01-02 15:04:05.000000 UTC") }

// keyText prints a key as column = value.
func keyText(key json.RawMessage) string {
	parts, ok := keyParts(key)
	if !ok {
		var text string
		if json.Unmarshal(key, &text) != nil {
			text = string(key)
		}
		return plain(text, maxComment)
	}
	var out []string
	for _, p := range parts {
		var v any
		d := json.NewDecoder(strings.NewReader(string(p.value)))
		d.UseNumber()
		if d.Decode(&v) != nil {
			v = string(p.value)
		}
		out = append(out, plain(p.name, maxCell)+" = "+valueText(v))
	}
	return strings.Join(out, ", ")
}

// valueText prints a value of valueOf, or of a key.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case longValue:
		return fmt.Sprintf("(%d bytes)", v.Bytes)
	case string:
		if v == "" {
			return `""`
		}
		return plain(v, maxCell)
	case map[string]string:
		return plain("base64 "+v["base64"], maxCell)
	case map[string]any:
		if o, ok := v["omitted"].(journal.Omission); ok {
			return fmt.Sprintf("(not kept: %d bytes)", o.Bytes)
		}
		if b, ok := v["base64"].(string); ok {
			return plain("base64 "+b, maxCell)
		}
	}
	return plain(fmt.Sprint(v), maxCell)
}

// describe says a kind in plain words.
func describe(k journal.Kind) string {
	switch k {
	case journal.InsertExists:
		return "both sides inserted the row"
	case journal.UpdateOriginDiffers:
		return "both sides changed the row"
	case journal.UpdateMissing:
		return "one side changed a row that the other does not have"
	case journal.UpdateDeleted:
		return "one side changed the row, the other deleted it"
	case journal.DeleteOriginDiffers:
		return "one side deleted the row, the other changed it"
	case journal.DeleteMissing:
		return "one side deleted a row that the other does not have"
	case journal.UpdateExists:
		return "two rows got the same value of a unique key"
	case journal.MultipleUnique:
		return "one row got values of unique keys that several other rows have"
	case journal.ParentMissing:
		return "one side added a row whose parent the other deleted"
	case journal.ChildExists:
		return "one side deleted a row to which the other added children"
	case journal.Resync:
		return "the table was made equal to another server's"
	}
	return "two changes met"
}

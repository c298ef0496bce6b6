package integration

import (
	"database/sql"
	"fmt"
	"slices"
)

// cards are rows of a table whose columns are merged. Every value that is written is written once.
const cards = 10

var cardColumns = []string{"a", "b", "c"}

// cell is a value that a committed transaction left in one column of a card.
type cell struct {
	site, column, value string
	key                 int
}

// putCard inserts a card, or changes some of its columns, or deletes it.
func (w *writer) putCard(tx *sql.Tx, a *acts) error {
	key := 1 + w.r.IntN(cards)
	found, err := w.read(tx, "card", fmt.Sprint("id = ", key))
	if err != nil {
		return err
	}
	var old map[string]string
	if len(found) == 1 {
		old = found[0]
	}
	if old != nil && w.r.IntN(8) == 0 {
		for _, c := range cardColumns {
			a.replaced = append(a.replaced, old[c])
		}
		_, err := tx.Exec(fmt.Sprintf("DELETE FROM %s.card WHERE id = %d", w.database, key))
		return err
	}
	row := map[string]string{"a": "NULL", "b": "NULL", "c": "NULL"}
	set := ""
	for i, first := 0, w.r.IntN(len(cardColumns)); i < len(cardColumns); i++ {
		if i > 0 && w.r.IntN(3) > 0 {
			continue
		}
		c := cardColumns[(first+i)%len(cardColumns)]
		w.count++
		row[c] = fmt.Sprintf("%s.%d", w.name, w.count)
		set += fmt.Sprintf(", %s = '%s'", c, row[c])
		a.cells = append(a.cells, cell{w.site.name, c, row[c], key})
		if old != nil {
			a.replaced = append(a.replaced, old[c])
		}
	}
	query := fmt.Sprintf("UPDATE %s.card SET id = id%s WHERE id = %d", w.database, set, key)
	if old == nil {
		query = fmt.Sprintf("INSERT INTO %s.card SET id = %d%s", w.database, key, set)
	}
	_, err = tx.Exec(query)
	return err
}

// checkCards demands that every value of a card is there, or was replaced by an application that had seen it, or is in the
// journal.
func (w *workload) checkCards(o *outcome, report func(string, ...any)) {
	for _, c := range w.history.cells {
		row := o.cards[c.key]
		there := row[c.column] == c.value
		lost := slices.ContainsFunc(o.lostCards[c.key], func(row map[string]string) bool { return row[c.column] == c.value })
		if !there && !lost && !w.history.replaced[c.value] {
			report("value %s of %s in column %s of card %d is lost without a trace: the card is %v, the journal has %v",
				c.value, c.site, c.column, c.key, row, o.lostCards[c.key])
		}
	}
}

package image

import "container/list"

// lru remembers the weights of the texts that were asked for last.
type lru struct {
	limit int
	order *list.List // of *lruEntry, newest first
	byKey map[weightKey]*list.Element
}

type lruEntry struct {
	key    weightKey
	weight []byte
}

func newLRU(limit int) *lru {
	return &lru{limit: limit, order: list.New(), byKey: map[weightKey]*list.Element{}}
}

func (c *lru) get(k weightKey) ([]byte, bool) {
	e, ok := c.byKey[k]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruEntry).weight, true
}

func (c *lru) put(k weightKey, weight []byte) {
	if e, ok := c.byKey[k]; ok {
		e.Value.(*lruEntry).weight = weight
		c.order.MoveToFront(e)
		return
	}
	c.byKey[k] = c.order.PushFront(&lruEntry{k, weight})
	if c.order.Len() > c.limit {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.byKey, oldest.Value.(*lruEntry).key)
	}
}

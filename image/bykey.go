package image

import (
	"fmt"
	"slices"

	"replicator/change"
)

// keyed says which columns an image of the key alone has.
type keyed struct {
	bitmap  []byte // of all columns
	columns []int  // in their order
}

// newKeyed returns nil for a table whose images cannot be reduced.
func newKeyed(t *change.Table) *keyed {
	k := &keyed{bitmap: make([]byte, (len(t.Columns)+7)/8)}
	for _, p := range t.PrimaryKey {
		if p.Prefix > 0 {
			return nil
		}
		k.columns = append(k.columns, p.Column)
		k.bitmap[p.Column>>3] |= 1 << (p.Column & 7)
	}
	slices.Sort(k.columns)
	return k
}

// appendKeyed appends the key of an image, as an image of the key's columns alone.
func (l *layout) appendKeyed(out, img []byte) ([]byte, error) {
	if len(img) < l.nulls {
		return nil, errCut
	}
	for range (len(l.keyed.columns) + 7) / 8 {
		out = append(out, 0) // none is NULL
	}
	pos, column := l.nulls, 0
	for _, next := range l.keyed.columns {
		for ; ; column++ {
			if img[column>>3]>>(column&7)&1 == 1 {
				continue
			}
			size := int(l.widths[column].fixed)
			if prefix := l.widths[column].prefix; prefix > 0 {
				size = valueSize(img, pos, prefix)
			}
			if size < 0 || pos+size > len(img) {
				return nil, errCut
			}
			pos += size
			if column == next {
				out = append(out, img[pos-size:pos]...)
				column++
				break
			}
		}
	}
	return out, nil
}

// ByKey appends an event as AsIs does, with before images that are reduced to the primary key, as a server writes them with
// binlog_row_image=MINIMAL: the target finds the rows by it whatever the other columns hold, and logs them whole. It is half
// the bytes of an update. Tables whose key has prefixes are left as they are. The target must not derive more from a row
// than what is in it: MySQL 9.7 logs a deletion without the virtual columns that it would have to compute.
func ByKey(out []byte, ev *change.RowsEvent, f *change.Format) ([]byte, error) {
	l, err := layoutOf(ev.Table)
	if err != nil {
		return nil, err
	}
	if ev.Kind == change.Insert || l.keyed == nil {
		return AsIs(out, ev, f), nil
	}
	h, _, err := l.header(ev.Data, f.Checksum)
	if err != nil {
		return nil, fmt.Errorf("build events of table %s: %w", ev.Table.Name, err)
	}
	out = slices.Grow(out, len(ev.Table.MapEvent)+len(ev.Data))
	out = appendMap(out, ev, f)
	start := len(out)
	out = append(out, ev.Data[:flagsOffset+2]...)
	if h.version == 2 {
		out = append(out, 2, 0)
	}
	out = appendPacked(out, uint64(len(ev.Table.Columns)))
	out = append(out, l.keyed.bitmap...)
	if ev.Kind == change.Update {
		out = append(out, ev.Data[h.bitmaps:h.bitmaps+l.nulls]...)
	}
	for _, r := range ev.Rows {
		if out, err = l.appendKeyed(out, ev.Before(r)); err != nil {
			return nil, fmt.Errorf("build events of table %s: %w", ev.Table.Name, err)
		}
		out = append(out, ev.After(r)...)
	}
	if f.Checksum {
		out = append(out, 0, 0, 0, 0)
	}
	setFlags(out[start:])
	seal(out[start:], f.Checksum)
	return out, nil
}

package image

import (
	"time"

	"replicator/change"
)

// CanHoldTime reports whether Instant can read a column of this type: TIMESTAMP and DATETIME.
func CanHoldTime(c *change.Column) bool {
	switch c.Type {
	case typeTimestamp, typeTimestamp2, typeDatetime, typeDatetime2:
		return true
	}
	return false
}

// Instant reads the point in time that a TIMESTAMP or DATETIME column of an image holds, a DATETIME as UTC. It is 0 where
// there is none: NULL, no date of the calendar, or nothing later than the start of 1970. An error says that the image
// does not fit the table.
func Instant(t *change.Table, img []byte, column int) (change.Time, error) {
	value, err := Column(t, img, column)
	if err != nil || value == nil {
		return 0, err
	}
	c := &t.Columns[column]
	v := temporal(c, value)
	if c.Type == typeDatetime || c.Type == typeDatetime2 {
		return instantOf(v), nil
	}
	if v < second { // second 0 is the zero timestamp
		return 0, nil
	}
	return change.Time(v), nil
}

// instantOf converts a packed DATETIME.
func instantOf(v int64) change.Time {
	date, clock, micro := v>>microBits>>17, v>>microBits&(1<<17-1), v&(1<<microBits-1)
	year, month, day := int(date>>5/13), time.Month(date>>5%13), int(date&31)
	t := time.Date(year, month, day, int(clock>>12), int(clock>>6&63), int(clock&63), int(micro)*1000, time.UTC)
	if y, m, d := t.Date(); y != year || m != month || d != day {
		return 0
	}
	return max(change.TimeOf(t), 0)
}

// Column returns the bytes of one column of an image, without their length; nil is NULL. An error says that the image
// does not fit the table.
func Column(t *change.Table, img []byte, column int) ([]byte, error) {
	l, err := layoutOf(t)
	if err != nil {
		return nil, err
	}
	if len(img) < l.nulls {
		return nil, errCut
	}
	pos := l.nulls
	for i, w := range l.widths[:column+1] {
		if img[i>>3]>>(i&7)&1 == 1 {
			if i == column {
				return nil, nil
			}
			continue
		}
		start, end := pos, pos+int(w.fixed)
		if w.prefix > 0 {
			size := valueSize(img, pos, w.prefix)
			if size < 0 {
				return nil, errCut
			}
			start, end = pos+int(w.prefix), pos+size
		}
		if end > len(img) {
			return nil, errCut
		}
		if i == column {
			return img[start:end:end], nil
		}
		pos = end
	}
	return nil, errCut
}

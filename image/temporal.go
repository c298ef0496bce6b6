package image

import (
	"fmt"
	"time"

	"replicator/change"
)

// Temporal values are handled as one integer each, equal for equal values whatever the number of fractional digits:
// DATETIME and DATE as fields packed in ascending size, TIME and TIMESTAMP as microseconds.

const (
	microBits = 24
	second    = int64(time.Second / time.Microsecond)
)

// packDatetime packs the fields of a date and time: they need not be a valid date.
func packDatetime(year, month, day, hour, minute, sec, micro int64) int64 {
	return (((year*13+month)<<5|day)<<17|hour<<12|minute<<6|sec)<<microBits | micro
}

// fraction reads the fractional part that follows the whole one: microseconds.
func fraction(b []byte, fsp uint16) int64 {
	v := int64(bigEndian(b))
	for range 6 - (fsp+1)/2*2 {
		v *= 10
	}
	return v
}

// temporal reads a temporal column. b has the column's width.
func temporal(c *change.Column, b []byte) int64 {
	switch c.Type {
	case typeDate, typeNewDate:
		v := int64(littleEndian(b))
		return packDatetime(v>>9, v>>5&15, v&31, 0, 0, 0, 0)
	case typeDatetime:
		v := int64(littleEndian(b))
		d, t := v/1000000, v%1000000
		return packDatetime(d/10000, d/100%100, d%100, t/10000, t/100%100, t%100, 0)
	case typeDatetime2:
		const offset = 0x8000000000
		return (int64(bigEndian(b[:5]))-offset)<<microBits | fraction(b[5:], c.Meta)
	case typeTimestamp:
		return int64(littleEndian(b)) * second
	case typeTimestamp2:
		return int64(bigEndian(b[:4]))*second + fraction(b[4:], c.Meta)
	case typeTime:
		v := signed(littleEndian(b), 3)
		sign := int64(1)
		if v < 0 {
			sign, v = -1, -v
		}
		return sign * (v/10000*3600 + v/100%100*60 + v%100) * second
	}
	return time2(b, c.Meta)
}

// time2 reads a TIME: one big-endian number with an offset, so that negative values sort first, whose fraction counts
// hundredths, ten-thousandths or millionths. See my_time_packed_to_binary in MySQL's my_time.cc.
func time2(b []byte, fsp uint16) int64 {
	size := 8 * len(b)
	v := int64(bigEndian(b)) - 1<<(size-1)
	sign := int64(1)
	if v < 0 {
		sign, v = -1, -v
	}
	fractionBits := size - 24
	whole, part := v>>fractionBits, v&(1<<fractionBits-1)
	for range 6 - (fsp+1)/2*2 {
		part *= 10
	}
	return sign * ((whole>>12&0x3ff*3600+whole>>6&0x3f*60+whole&0x3f)*second + part)
}

// appendTemporal prints a value of temporal as the server does, TIMESTAMP in UTC.
func appendTemporal(b []byte, c *change.Column, v int64) []byte {
	fsp := int(c.Meta)
	switch c.Type {
	case typeDate, typeNewDate:
		return appendDate(b, v)
	case typeDatetime, typeDatetime2:
		return appendDatetime(b, v, fsp)
	case typeTimestamp, typeTimestamp2:
		if v/second == 0 { // second 0 is the zero timestamp
			return appendDatetime(b, v%second, fsp)
		}
		t := time.UnixMicro(v).UTC()
		b = t.AppendFormat(b, "2006-01-02 15:04:05")
		return appendFraction(b, v%second, fsp)
	}
	if v < 0 {
		b, v = append(b, '-'), -v
	}
	s := v / second
	b = fmt.Appendf(b, "%02d:%02d:%02d", s/3600, s/60%60, s%60)
	return appendFraction(b, v%second, fsp)
}

func appendDate(b []byte, v int64) []byte {
	date := v >> microBits >> 17
	return fmt.Appendf(b, "%04d-%02d-%02d", date>>5/13, date>>5%13, date&31)
}

func appendDatetime(b []byte, v int64, fsp int) []byte {
	t := v >> microBits & (1<<17 - 1)
	b = appendDate(b, v)
	b = fmt.Appendf(b, " %02d:%02d:%02d", t>>12, t>>6&63, t&63)
	return appendFraction(b, v&(1<<microBits-1), fsp)
}

func appendFraction(b []byte, micro int64, fsp int) []byte {
	if fsp <= 0 || fsp > 6 {
		return b
	}
	digits := fmt.Appendf(nil, "%06d", micro)
	return append(append(b, '.'), digits[:fsp]...)
}

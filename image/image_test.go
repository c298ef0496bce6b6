package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"replicator/change"
	"replicator/fault"
)

// eventHeader starts an event of a type; finish fills in its size and its CRC32.
func eventHeader(kind byte) []byte {
	b := make([]byte, headerSize)
	b[4] = kind
	return b
}

func finish(b []byte) []byte {
	b = append(b, 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[9:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
	return b
}

// sbtestMap is the TABLE_MAP event of sysbench's table: id INT, k INT, c CHAR(120), pad CHAR(60), utf8mb4_bin.
func sbtestMap(optional ...byte) []byte {
	b := eventHeader(tableMapType)
	b = append(b, 7, 0, 0, 0, 0, 0, 1, 0)
	b = append(append(append(b, 6), "sbtest"...), 0)
	b = append(append(append(b, 7), "sbtest1"...), 0)
	b = append(b, 4, typeLong, typeLong, typeString, typeString)
	b = append(b, 4, 0xee, 0xe0, 0xfe, 0xf0) // 480 bytes hide a bit in the type byte
	b = append(b, 0)
	if optional == nil {
		optional = []byte{metaSignedness, 1, 0, metaDefaultCharset, 1, 46, metaColumnName, 11, 2, 'i', 'd', 1, 'k', 1, 'c', 3, 'p', 'a', 'd', metaSimplePrimaryKey, 1, 0}
	}
	return finish(append(b, optional...))
}

func sbtestRow(id int) []byte {
	b := []byte{0xf0}
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	b = binary.LittleEndian.AppendUint32(b, uint32(id*7))
	b = append(b, 119, 0)
	b = fmt.Appendf(b, "%0119d", id)
	b = append(b, 59)
	return fmt.Appendf(b, "%059d", id)
}

// sbtestEvent is an UPDATE rows event of MySQL.
func sbtestEvent(t testing.TB, rows int) *change.RowsEvent {
	t.Helper()
	table, err := ParseTable(sbtestMap(), true)
	if err != nil {
		t.Fatal(err)
	}
	b := eventHeader(updateV2)
	b = append(b, 7, 0, 0, 0, 0, 0, 1|4, 0, 2, 0, 4, 0xff, 0xff)
	for i := range rows {
		b = append(append(b, sbtestRow(i)...), sbtestRow(i)...)
	}
	return &change.RowsEvent{Table: table, Data: finish(b)}
}

func TestParseTable(t *testing.T) {
	table, err := ParseTable(sbtestMap(), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s %+v %+v", table.Name, table.Columns, table.PrimaryKey); got !=
		"sbtest.sbtest1 [{Name:id Type:3 Meta:0 Unsigned:false Nullable:false Collation:0 Labels:[]} "+
			"{Name:k Type:3 Meta:0 Unsigned:false Nullable:false Collation:0 Labels:[]} "+
			"{Name:c Type:254 Meta:61152 Unsigned:false Nullable:false Collation:46 Labels:[]} "+
			"{Name:pad Type:254 Meta:65264 Unsigned:false Nullable:false Collation:46 Labels:[]}] [{Column:0 Prefix:0}]" {
		t.Errorf("table %s", got)
	}
	if n := charLength(table.Columns[2].Meta); n != 480 {
		t.Errorf("CHAR of %d bytes, want 480", n)
	}
}

// TestParseTableWantsMetadata: each piece that MINIMAL or NO_LOG metadata leaves out is a fault with a remedy.
func TestParseTableWantsMetadata(t *testing.T) {
	names := []byte{metaColumnName, 11, 2, 'i', 'd', 1, 'k', 1, 'c', 3, 'p', 'a', 'd'}
	for name, optional := range map[string][]byte{
		"nothing":       {99, 0},
		"no signs":      append([]byte{metaDefaultCharset, 1, 46}, names...),
		"no characters": append([]byte{metaSignedness, 1, 0}, names...),
		"no names":      {metaSignedness, 1, 0, metaDefaultCharset, 1, 46},
	} {
		_, err := ParseTable(sbtestMap(optional...), true)
		if f, ok := fault.As(err); !ok || f.Class != fault.Precondition || f.Remedy == "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for name, spoil := range map[string]func(ev *change.RowsEvent){
		"an image without all columns": func(ev *change.RowsEvent) { ev.Data[headerSize+11] = 0x07 },
		"partial JSON updates":         func(ev *change.RowsEvent) { ev.Data[4] = 39 },
		"a compressed event":           func(ev *change.RowsEvent) { ev.Data[4] = 167 },
		"another number of columns":    func(ev *change.RowsEvent) { ev.Data[headerSize+10] = 3 },
		"a cut":                        func(ev *change.RowsEvent) { ev.Data = ev.Data[:len(ev.Data)-5] },
		"a header alone":               func(ev *change.RowsEvent) { ev.Data = ev.Data[:headerSize] },
	} {
		ev := sbtestEvent(t, 3)
		spoil(ev)
		err := Split(ev, true)
		if f, ok := fault.As(err); !ok || f.Class != fault.UnknownEvent || f.Remedy == "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestBuildOfAll: building all rows again is what AsIs gives, checksums included.
func TestBuildOfAll(t *testing.T) {
	ev := sbtestEvent(t, 3)
	if err := Split(ev, true); err != nil {
		t.Fatal(err)
	}
	f := &change.Format{Checksum: true}
	var list []Op
	for _, r := range ev.Rows {
		list = append(list, Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
	}
	built, err := Build(ev, f, list)
	if err != nil {
		t.Fatal(err)
	}
	if asIs := AsIs(nil, ev, f); string(asIs) != string(built) {
		t.Errorf("built\n%x\nas it is\n%x", built, asIs)
	}
	if flags := built[len(ev.Table.MapEvent)+flagsOffset]; flags != flagStatementEnd {
		t.Errorf("flags %x", flags)
	}
	if _, err := Build(ev, f, []Op{{Kind: change.Delete, After: list[0].After}}); err == nil {
		t.Error("a delete without a before image was built")
	}
}

// TestBatch: neighbours with equal flags are one statement, behind the maps of its tables. Another table under a number
// that is taken begins a new one.
func TestBatch(t *testing.T) {
	f := &change.Format{Checksum: true}
	first := sbtestEvent(t, 2)
	again := &change.RowsEvent{Table: first.Table, Data: sbtestEvent(t, 1).Data}
	flagged := &change.RowsEvent{Table: first.Table, Data: sbtestEvent(t, 1).Data}
	flagged.Data[flagsOffset] |= 2
	other := sbtestEvent(t, 1) // an equal table, but another definition to the batch
	second := sbtestEvent(t, 1)
	second.Data[headerSize]++ // another table number
	var b Batch
	for _, ev := range []*change.RowsEvent{first, second, again, flagged, other, second} {
		b.Add(ev, f, AsIs(nil, ev, f))
	}
	var got []string
	for events := b.Bytes(); len(events) > 0; {
		n := binary.LittleEndian.Uint32(events[9:])
		if crc32.ChecksumIEEE(events[:n-4]) != binary.LittleEndian.Uint32(events[n-4:]) {
			t.Errorf("CRC32 of event %d is wrong", len(got))
		}
		text := "map"
		if events[4] != tableMapType {
			text = fmt.Sprintf("rows %x", events[flagsOffset])
		}
		got = append(got, text)
		events = events[n:]
	}
	if want := "[map map rows 0 rows 0 rows 1 map rows 3 map map rows 0 rows 1]"; fmt.Sprint(got) != want {
		t.Errorf("batch %v, want %s", got, want)
	}
	b.Reset()
	if b.Add(first, f, nil); b.Len() != 0 {
		t.Errorf("%d bytes in an empty batch", b.Len())
	}
}

// TestBatchJoins: events that differ in their rows alone become one, with all their images in order, up to a size; what
// differs otherwise stays apart.
func TestBatchJoins(t *testing.T) {
	for _, f := range []*change.Format{{Checksum: true}, {}} {
		event := func(rows int) *change.RowsEvent {
			ev := sbtestEvent(t, rows)
			if !f.Checksum {
				ev.Data = ev.Data[:len(ev.Data)-checksumSize]
				binary.LittleEndian.PutUint32(ev.Data[9:], uint32(len(ev.Data)))
			}
			return ev
		}
		one := event(1)
		batch := func(alter func(i int, ev *change.RowsEvent), count int) []*change.RowsEvent {
			var b Batch
			for i := range count {
				ev := event(1 + i)
				ev.Table = one.Table
				alter(i, ev)
				b.Add(ev, f, AsIs(nil, ev, f))
			}
			var all []*change.RowsEvent
			for events := b.Bytes(); len(events) > 0; {
				n := binary.LittleEndian.Uint32(events[9:])
				if f.Checksum && crc32.ChecksumIEEE(events[:n-4]) != binary.LittleEndian.Uint32(events[n-4:]) {
					t.Errorf("CRC32 of event %d is wrong", len(all))
				}
				if events[4] != tableMapType {
					ev := &change.RowsEvent{Table: one.Table, Data: events[:n]}
					if err := Split(ev, f.Checksum); err != nil {
						t.Fatal(err)
					}
					all = append(all, ev)
				}
				events = events[n:]
			}
			return all
		}
		joined := batch(func(int, *change.RowsEvent) {}, 3)
		if len(joined) != 1 || len(joined[0].Rows) != 1+2+3 || joined[0].Data[flagsOffset] != flagStatementEnd {
			t.Fatalf("%d events, the first with %d rows and flags %x", len(joined), len(joined[0].Rows), joined[0].Data[flagsOffset])
		}
		for i, id := range []int{0, 0, 1, 0, 1, 2} {
			r := joined[0].Rows[i]
			if want := string(sbtestRow(id)); string(joined[0].Before(r)) != want || string(joined[0].After(r)) != want {
				t.Errorf("row %d is not that of id %d", i, id)
			}
		}
		for what, alter := range map[string]func(i int, ev *change.RowsEvent){
			"second":     func(i int, ev *change.RowsEvent) { ev.Data[0] += byte(i) },
			"server":     func(i int, ev *change.RowsEvent) { ev.Data[5] += byte(i) },
			"flags":      func(i int, ev *change.RowsEvent) { ev.Data[flagsOffset] |= byte(i << 1) },
			"table":      func(i int, ev *change.RowsEvent) { ev.Data[headerSize] += byte(i) },
			"event flag": func(i int, ev *change.RowsEvent) { ev.Data[17] += byte(i) },
		} {
			if apart := batch(alter, 3); len(apart) != 3 {
				t.Errorf("%d events of another %s", len(apart), what)
			}
		}
		many := batch(func(int, *change.RowsEvent) {}, 30) // 465 rows of 372 bytes
		for i, ev := range many {
			if len(ev.Data) > joinBytes {
				t.Errorf("event %d of %d has %d bytes", i, len(many), len(ev.Data))
			}
		}
		if len(many) < 3 || len(many) > 6 {
			t.Errorf("%d events", len(many))
		}
	}
}

type fixedWeigher struct{ calls int }

func (w *fixedWeigher) Weights(_ context.Context, _ uint16, values [][]byte) ([][]byte, error) {
	w.calls++
	return values, nil
}

// TestKeyerAsksOnce: one call per event, and none for what is remembered.
func TestKeyerAsksOnce(t *testing.T) {
	ev := sbtestEvent(t, 50)
	ev.Table.Layout = nil
	ev.Table.PrimaryKey = []change.KeyPart{{Column: 2}, {Column: 3}}
	ev.Table.Columns[2].Collation, ev.Table.Columns[3].Collation = 45, 45
	if err := Split(ev, true); err != nil {
		t.Fatal(err)
	}
	w := &fixedWeigher{}
	k := NewKeyer(w)
	for range 3 {
		if err := k.Keys(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
	}
	if w.calls != 1 {
		t.Errorf("asked %d times", w.calls)
	}
	if ev.Rows[0].Key == ev.Rows[1].Key || ev.Rows[0].Key != ev.Rows[0].NewKey {
		t.Error("keys do not tell rows apart")
	}
	ev.Table.PrimaryKey = nil
	other := *ev.Table
	ev.Table = &other
	var f *fault.Error
	if err := k.Keys(t.Context(), ev); !errors.As(err, &f) || f.Class != fault.Precondition {
		t.Errorf("without a primary key: %v", err)
	}
}

func TestAppendDouble(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0.0", 1: "1.0", -1.5: "-1.5", 1e14: "100000000000000.0", 1e15: "1e15", 1.5e15: "1.5e15", 1e300: "1e300",
		0.1: "0.1", 1e-5: "0.00001", 1e-15: "0.000000000000001", 1e-16: "1e-16", 1.25e-20: "1.25e-20",
	} {
		if got := string(appendDouble(nil, f)); got != want {
			t.Errorf("%g: %s, want %s", f, got, want)
		}
	}
}

// TestLayoutsAreForgotten: what is remembered of a table goes with it.
func TestLayoutsAreForgotten(t *testing.T) {
	count := func() (n int) {
		layouts.Range(func(any, any) bool { n++; return true })
		return n
	}
	runtime.GC()
	before := count()
	for range 100 {
		ev := sbtestEvent(t, 1)
		if err := Split(ev, true); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for count() > before+10 {
		if time.Now().After(deadline) {
			t.Fatalf("%d layouts, %d before", count(), before)
		}
		runtime.GC()
	}
}

func BenchmarkSplit(b *testing.B) {
	const rows = 40 // about one event of 8 KiB each way
	ev := sbtestEvent(b, rows)
	b.SetBytes(int64(len(ev.Data)))
	for b.Loop() {
		ev.Rows = nil
		if err := Split(ev, true); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkKeys(b *testing.B) {
	const rows = 40
	ev := sbtestEvent(b, rows)
	if err := Split(ev, true); err != nil {
		b.Fatal(err)
	}
	k := NewKeyer(&fixedWeigher{})
	for b.Loop() {
		if err := k.Keys(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkWeighedKeys(b *testing.B) {
	const rows = 40
	ev := sbtestEvent(b, rows)
	ev.Table.PrimaryKey = []change.KeyPart{{Column: 2}}
	ev.Table.Columns[2].Collation = 45
	if err := Split(ev, true); err != nil {
		b.Fatal(err)
	}
	k := NewKeyer(&fixedWeigher{})
	for b.Loop() {
		if err := k.Keys(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkBuild(b *testing.B) {
	const rows = 40
	ev := sbtestEvent(b, rows)
	if err := Split(ev, true); err != nil {
		b.Fatal(err)
	}
	f := &change.Format{Checksum: true}
	var list []Op
	for _, r := range ev.Rows[1:] {
		list = append(list, Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
	}
	for b.Loop() {
		if _, err := Build(ev, f, list); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkValues(b *testing.B) {
	ev := sbtestEvent(b, 1)
	if err := Split(ev, true); err != nil {
		b.Fatal(err)
	}
	img := ev.After(ev.Rows[0])
	for b.Loop() {
		if _, err := Values(ev.Table, img); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// everyType is a table with a column of every type and many lengths of metadata.
func everyType() *change.Table {
	t := &change.Table{Name: change.TableName{Database: "d", Table: "t"}}
	add := func(kind byte, meta uint16, collation uint16) {
		t.Columns = append(t.Columns, change.Column{Name: fmt.Sprint(len(t.Columns)), Type: kind, Meta: meta, Collation: collation, Nullable: true})
	}
	for _, kind := range []byte{typeTiny, typeShort, typeInt24, typeLong, typeLongLong, typeFloat, typeDouble, typeYear, typeDate, typeNewDate, typeTime, typeDatetime, typeTimestamp, typeNull} {
		add(kind, 0, 0)
	}
	for fsp := range uint16(7) {
		add(typeTime2, fsp, 0)
		add(typeDatetime2, fsp, 0)
		add(typeTimestamp2, fsp, 0)
	}
	for _, meta := range []uint16{65<<8 | 30, 10<<8 | 2, 9<<8 | 9, 1 << 8, 65 << 8} {
		add(typeNewDecimal, meta, 0)
	}
	add(typeBit, 8<<8, 0)
	add(typeBit, 1, 0)
	add(typeEnum, typeEnum<<8|2, 45)
	add(typeSet, typeSet<<8|8, 45)
	for n := range uint16(4) {
		add(typeBlob, n+1, 45)
		add(typeJSON, n+1, 0)
		add(typeGeometry, n+1, 0)
		add(typeBlobCompressed, n+1, 63)
	}
	for _, collation := range []uint16{45, 63, 35, 54, 28, 1} {
		add(typeVarchar, 100, collation)
		add(typeVarchar, 1000, collation)
		add(typeString, 0xfe00|16, collation)
		add(typeVarcharCompressed, 1000, collation)
	}
	for i, c := range t.Columns {
		if hasCanonical(c.Type) || isText(c.Type) {
			t.PrimaryKey = append(t.PrimaryKey, change.KeyPart{Column: i, Prefix: i % 3})
		}
	}
	return t
}

// FuzzImage: bytes that no server wrote are refused or decoded, and never more is read than is there.
func FuzzImage(f *testing.F) {
	table := everyType()
	l, err := layoutOf(table)
	if err != nil {
		f.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		b := make([]byte, 1000)
		for i := range b {
			b[i] = byte(r.UintN(256) >> r.UintN(8))
		}
		clear(b[:l.nulls])
		f.Add(b)
	}
	keyer := NewKeyer(&fixedWeigher{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := l.measure(b)
		if n > len(b) {
			t.Fatalf("measured %d of %d bytes", n, len(b))
		}
		if n < 0 {
			return
		}
		if _, err := Values(table, b[:n]); err != nil {
			if _, ok := fault.As(err); !ok {
				t.Errorf("no fault: %v", err)
			}
		}
		ev := &change.RowsEvent{Table: table, Data: b, Rows: []change.Row{{After: change.Span{Length: uint32(n)}}}}
		_ = keyer.Keys(t.Context(), ev) // most images hold a NULL or a text that cannot be inflated
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add(sbtestMap())
	f.Add(sbtestMap(metaPrefixPrimaryKey, 2, 0, 3, metaSetLabels, 3, 1, 1, 'a', metaVisibility, 1, 0xf0))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ParseTable(b, true)
		if err != nil {
			if _, ok := fault.As(err); !ok {
				t.Errorf("no fault: %v", err)
			}
			return
		}
		ev := &change.RowsEvent{Table: table, Data: b}
		_ = Split(ev, true) // a table map is no rows event
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(sbtestEvent(f, 2).Data)
	table := sbtestEvent(f, 1).Table
	f.Fuzz(func(t *testing.T, b []byte) {
		ev := &change.RowsEvent{Table: table, Data: b}
		if err := Split(ev, true); err != nil {
			return
		}
		for _, r := range ev.Rows {
			for _, img := range [][]byte{ev.Before(r), ev.After(r)} {
				if img == nil {
					continue
				}
				if _, err := Values(table, img); err != nil {
					t.Errorf("an image that was split cannot be decoded: %v", err)
				}
			}
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, doc := range []string{
		"\x00\x01\x00\x0c\x00\x0b\x00\x01\x00\x05\x01\x00a", "\x02\x02\x00\x0a\x00\x05\x01\x00\x04\x01\x00",
		"\x0f\xf6\x04\x03\x02\x80\x0a", "\x0b\x00\x00\x00\x00\x00\x00\xf0\x3f", "\x0c\x03abc", "\x0f\x0a\x08\x00\x00\x00\x00\x00\x00\xb2\x19",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := jsonText(b)
		node, nodeErr := ParseJSON(b)
		if (err == nil) != (nodeErr == nil) {
			t.Errorf("printed: %v, parsed: %v", err, nodeErr)
		}
		if err == nil && node.IsPlain() && string(node.Text) != string(text) {
			t.Errorf("printed %s, parsed %s", text, node.Text)
		}
		if len(text) > maxJSONGrowth*len(b)+1024 {
			t.Errorf("%d bytes became %d", len(b), len(text))
		}
	})
}

// BenchmarkBatch gathers updates of one row each, as a writer does.
func BenchmarkBatch(b *testing.B) {
	ev := sbtestEvent(b, 1)
	if err := Split(ev, true); err != nil {
		b.Fatal(err)
	}
	f := &change.Format{Checksum: true}
	var batch Batch
	var events []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if events, err = ByKey(events[:0], ev, f); err != nil {
			b.Fatal(err)
		}
		if batch.Add(ev, f, events); batch.Len() > 256<<10 {
			batch.Reset()
		}
	}
}

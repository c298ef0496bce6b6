package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// frame is a compressed packet. Without an algorithm its content is as it is.
func frame(t testing.TB, a Algorithm, number byte, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch a {
	case Zlib:
		w = zlib.NewWriter(&b)
	case Zstd:
		var err error
		w, err = zstd.NewWriter(&b)
		require.NoError(t, err)
	case None:
		return append(head(len(content), number, 0), content...)
	}
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return append(head(b.Len(), number, len(content)), b.Bytes()...)
}

func head(sent int, number byte, plain int) []byte {
	return []byte{byte(sent), byte(sent >> 8), byte(sent >> 16), number, byte(plain), byte(plain >> 8), byte(plain >> 16)}
}

// TestPacketsAcrossFrames cuts numbered packets into frames at every place, reads them in pieces of every size, and wants
// consecutive numbers, as if the connection were plain.
func TestPacketsAcrossFrames(t *testing.T) {
	payloads := [][]byte{[]byte("a"), {}, bytes.Repeat([]byte("xy"), 300), []byte("last")}
	var sent, want []byte
	for i, p := range payloads {
		sent = append(sent, packet(byte(7*i), p)...) // the servers' numbers follow the frames
		want = append(want, packet(byte(254+i), p)...)
	}
	for _, a := range []Algorithm{Zlib, Zstd} {
		for cut := 1; cut < len(sent); cut += 13 {
			stream := frame(t, a, 1, sent[:cut])
			stream = append(stream, frame(t, None, 2, nil)...)
			stream = append(stream, frame(t, None, 3, sent[cut:(cut+len(sent))/2])...)
			stream = append(stream, frame(t, a, 4, sent[(cut+len(sent))/2:])...)
			f := frames{from: bytes.NewReader(stream), algorithm: a}
			number := numbering{next: 254}
			var got []byte
			piece := make([]byte, 1+cut%50)
			for {
				n, err := f.Read(piece)
				number.renew(piece[:n])
				got = append(got, piece[:n]...)
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
			}
			require.Equal(t, want, got, "%s, cut at %d", a, cut)
		}
	}
}

func TestBrokenFrames(t *testing.T) {
	content := bytes.Repeat([]byte("content"), 100)
	for _, a := range []Algorithm{Zlib, Zstd} {
		whole := frame(t, a, 1, content)
		longer, shorter := bytes.Clone(whole), bytes.Clone(whole)
		longer[4]--
		shorter[4]++
		for _, stream := range [][]byte{whole[:len(whole)-1], whole[:5], longer, shorter, append(head(4, 0, 9), "junk"...)} {
			f := frames{from: bytes.NewReader(stream), algorithm: a}
			_, err := io.ReadAll(&f)
			require.Error(t, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, a := range []Algorithm{Zlib, Zstd} {
		f.Add(frame(f, a, 0, []byte("\x01\x00\x00\x00xabcdefgh")), a == Zstd)
	}
	f.Fuzz(func(_ *testing.T, stream []byte, other bool) {
		r := frames{from: bytes.NewReader(stream), algorithm: Zlib}
		if other {
			r.algorithm = Zstd
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(&r, 1<<20))
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add([]byte("\x4a\x00\x00\x00\x0a9.7.4\x00rest"))
	f.Add([]byte("\x17\x00\x00\x00\xff\x10\x04Too many connections"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := ReadGreeting(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if text, _ := g.Version(); bytes.ContainsRune([]byte(text), 0) {
			t.Fatal("the version holds a zero byte")
		}
		g.Offers(Zstd)
	})
}

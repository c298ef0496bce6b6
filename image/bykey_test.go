package image_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// rowsByKey lets the server find rows by their keys alone that differ from the source's in everything else. It must log
// them whole: what it logs is the change index of its owner, and goes to the next server.
func rowsByKey(t *testing.T, s *sandbox.Server) {
	t.Helper()
	const definition = "(n INT, s VARCHAR(300), k1 VARCHAR(20), v TEXT, k2 BIGINT, w VARCHAR(10), PRIMARY KEY (k2, k1), KEY (w))"
	imagetest.Exec(t, s, "CREATE TABLE d.bykey "+definition)
	rows := []string{"(1, 'a', 'x', 'text', -1, 'w')", "(NULL, NULL, 'y', NULL, 2, NULL)", "(3, REPEAT('s', 290), '', REPEAT('t', 3000), 3, 'w')"}
	others := []string{"(NULL, 'other', 'x', NULL, -1, 'z')", "(9, 'other', 'y', 'other', 2, 'z')", "(9, NULL, '', 'other', 3, NULL)"}
	fill := func(rows []string) {
		imagetest.Exec(t, s, "DELETE FROM d.bykey")
		for _, row := range rows {
			imagetest.Exec(t, s, "INSERT INTO d.bykey VALUES "+row)
		}
	}
	for _, statement := range []string{
		"UPDATE d.bykey SET v = 'new', n = NULL",
		"UPDATE d.bykey SET k1 = CONCAT(k1, '!'), s = 'new', w = 'new'",
		"DELETE FROM d.bykey",
	} {
		fill(rows)
		source := imagetest.Capture(t, s, func() { imagetest.Exec(t, s, statement) })
		fill(others)
		events, err := image.ByKey(nil, source.Events[0], source.Format)
		require.NoError(t, err)
		require.Less(t, len(events), len(image.AsIs(nil, source.Events[0], source.Format)))
		target := imagetest.Capture(t, s, func() { replay(t, s, source.Format, events) })
		fill(others)
		whole := imagetest.Capture(t, s, func() { replay(t, s, source.Format, image.AsIs(nil, source.Events[0], source.Format)) })
		require.Len(t, target.Events, 1, statement)
		require.Len(t, target.Events[0].Rows, len(rows), statement)
		for i := range rows {
			a, b := target.Events[0], whole.Events[0]
			require.True(t, bytes.Equal(a.Before(a.Rows[i]), b.Before(b.Rows[i])), "%s: before image %d", statement, i)
			require.True(t, bytes.Equal(a.After(a.Rows[i]), b.After(b.Rows[i])), "%s: after image %d", statement, i)
		}
	}
	imagetest.Exec(t, s, "DROP TABLE d.bykey")
}

func TestByKeyLeavesAlone(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	imagetest.Exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (k VARCHAR(50), v INT, PRIMARY KEY (k(3)))")
	log := imagetest.Capture(t, s, func() {
		imagetest.Exec(t, s, "INSERT INTO d.t VALUES ('abcdef', 1)", "UPDATE d.t SET v = 2", "DELETE FROM d.t")
	})
	require.Len(t, log.Events, 3)
	for i, kind := range []change.RowKind{change.Insert, change.Update, change.Delete} {
		require.Equal(t, kind, log.Events[i].Kind)
		events, err := image.ByKey(nil, log.Events[i], log.Format)
		require.NoError(t, err)
		require.Equal(t, image.AsIs(nil, log.Events[i], log.Format), events)
	}
}

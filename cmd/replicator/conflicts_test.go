package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/journal"
	"replicator/sandbox"
)

// journaledMesh is a mesh of two servers that are up and one that is not, without a process. Both have conflicts in their
// journals that east lost to west.
func journaledMesh(t *testing.T) (servers []*sandbox.Server, ids []string) {
	t.Helper()
	var lines strings.Builder
	identities := []change.ServerID{{0xea}, {0x3e}}
	for i, name := range []string{"east", "west"} {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118}[i]})
		servers = append(servers, s)
		conn, err := s.DB().Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		flavor := change.MySQL
		if s.Flavor().MariaDB() {
			flavor = change.MariaDB
		}
		_, err = checkpoint.GiveBirth(t.Context(), conn, flavor, checkpoint.Identity{ID: identities[i], Mesh: "m", Position: change.NewGTIDSet(flavor)})
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		imagetest.Exec(t, s, "CREATE DATABASE hr",
			"CREATE TABLE hr.staff (id INT PRIMARY KEY, name VARCHAR(100)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
			"INSERT INTO hr.staff VALUES (1, 'won'), (2, 'won')")
		fmt.Fprintf(&lines, "  %s: {endpoints: [%q], user: root, password: %q}\n", name, s.Addr(), s.Password())
		entries := lostByEast(identities[0], identities[1])
		require.NoError(t, journal.Write(t.Context(), s.DB(), journal.Limits{MaxPacket: 1 << 20}, entries[:len(entries)-i]))
		ids = nil
		for _, e := range entries {
			ids = append(ids, e.ID().String())
		}
	}
	file := filepath.Join(t.TempDir(), "replicator.yaml")
	require.NoError(t, os.WriteFile(file, []byte("mesh: m\nservers:\n"+lines.String()+"  north: {endpoints: [\"127.0.0.1:1\"], user: root, password: x}\n"+
		"http: {listen: \"\"}\njournal: {keep: 7d, max_rows: 100, max_value: 64KiB}\n"), 0o600))
	t.Setenv(configVariable, file)
	return servers, ids
}

func lostByEast(east, west change.ServerID) (entries []*journal.Entry) {
	table := &change.Table{
		Name: change.TableName{Database: "hr", Table: "staff"}, PrimaryKey: []change.KeyPart{{Column: 0}},
		Columns: []change.Column{{Name: "id", Type: 3}, {Name: "name", Type: 15, Meta: 400, Collation: 45, Nullable: true}},
	}
	for id := range int64(3) {
		row := func(name string) *journal.Row {
			return &journal.Row{Table: table, Values: []image.Value{{Kind: image.Int, Int: id + 1}, {Kind: image.Text, Bytes: []byte(name)}}}
		}
		entries = append(entries, &journal.Entry{
			Table: table.Name, Key: change.Key{byte(id)}, KeyRow: row(""), Kind: journal.UpdateOriginDiffers, Policy: "last-writer-wins",
			Winner: journal.Side{Version: change.Version{Time: 2_000_000, Origin: west}, Row: row("won")},
			Loser:  journal.Side{Version: change.Version{Time: 1_000_000, Origin: east}, Row: row("lost")},
		})
	}
	return entries
}

// cutListSaysSo: where the limit has cut a list of three, a note says so.
func cutListSaysSo(t *testing.T, run func(want int, line string) string) {
	t.Helper()
	require.Contains(t, run(exitFailed, "list --limit 2"), "\nreplicator: 2 of at least 3; --limit N shows more, --limit 0 all\n")
	require.NotContains(t, run(exitFailed, "list --limit 2 --json"), "--limit")
	require.NotContains(t, run(exitFailed, "list --limit 3"), "--limit")
	require.Contains(t, run(exitUsage, "list --limit -1"), "limit must be 0 (all) or more")
	require.Contains(t, run(exitUsage, "list --since 1h --until 2h"), "until must be later than since")
	require.Contains(t, run(exitUsage, "list --since 2026-01-31 --until 2026-01-31"), "until must be later than since")
	require.NotContains(t, run(exitFailed, "list --since 2h --until 1h"), "until must")
	require.NotContains(t, run(exitFailed, "list --limit 0"), "--limit")
	require.NotContains(t, run(exitFailed, "list --limit 1 --state restored"), "--limit")
}

func TestConflictCommands(t *testing.T) {
	servers, ids := journaledMesh(t)
	names := func(s *sandbox.Server) string {
		var text string
		require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(name ORDER BY id) FROM hr.staff").Scan(&text))
		return text
	}
	const away = "north could not be asked"
	run := func(want int, line string) string {
		t.Helper()
		code, out, errs := command(t, append([]string{"conflicts"}, strings.Fields(line)...)...)
		require.Equal(t, want, code, "%s: %s", line, errs)
		return out + errs
	}
	list := func(line string) (list []journal.Document) {
		t.Helper()
		code, out, errs := command(t, append([]string{"conflicts", "list", "--json"}, strings.Fields(line)...)...)
		require.Equal(t, exitFailed, code)
		require.Contains(t, errs, away)
		require.NoError(t, json.Unmarshal([]byte(out), &list))
		return list
	}
	all := list("")
	require.Len(t, all, 3)
	byID := map[string]journal.Document{}
	for _, d := range all {
		byID[d.ID] = d
	}
	require.Equal(t, []string{"east", "west"}, byID[ids[0]].Servers)
	require.Equal(t, []string{"east"}, byID[ids[2]].Servers)
	require.Equal(t, "west", *byID[ids[0]].Winner.Origin)
	require.Equal(t, `{"id":1}`, strings.Join(strings.Fields(string(byID[ids[0]].Key)), ""))
	require.Len(t, list("--limit 1"), 1)
	cutListSaysSo(t, run)
	require.Empty(t, list("--state restored"))
	require.Len(t, list("--server west --table hr.staff --since 1h"), 3)
	require.Len(t, list("--table h*.st*f"), 3)
	require.Empty(t, list("--table hr.pla*"))
	require.Contains(t, run(exitUsage, "list --server zz"), "there is no server \"zz\"\nremedy: name one of east, west, north\n")
	require.Contains(t, run(exitUsage, "list --table hr"), "\"hr\" is no pattern of tables: want database.table")
	require.Contains(t, run(exitUsage, "restore --on zz "+ids[0]), "name one of east, west, north")
	require.Contains(t, run(exitFailed, "list --server north"), "the identity of north is not known")
	require.Equal(t, []string{"north"}, all[0].Unreachable)
	text := run(exitFailed, "list")
	require.Contains(t, text, ids[1])
	require.Contains(t, text, away)

	text = run(exitFailed, "show "+ids[0])
	require.Contains(t, text, "*  name    won  lost")
	require.Contains(t, text, "replicator conflicts restore "+ids[0]+" --columns name\n")
	require.Contains(t, run(exitFailed, "show 00000000"), "not asked: north")

	text = run(exitDone, "restore --dry-run "+ids[0])
	require.Contains(t, text, "UPDATE `hr`.`staff` SET `id`=1,`name`='lost' WHERE (`id`=1)")
	require.Contains(t, text, `{"id":1,"name":"won"}`)
	require.Equal(t, "won,won", names(servers[0]))
	require.Contains(t, run(exitFailed, "restore --columns id "+ids[0]), "name columns that were lost: name")
	code, _, errs := command(t, "conflicts", "restore", "--columns", "", ids[0])
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "--columns names no column")
	require.Equal(t, "won,won", names(servers[0]))
	require.Contains(t, run(exitFailed, "restore --columns name "+ids[0]), away)
	require.Equal(t, "lost,won", names(servers[0]))
	require.Equal(t, "won,won", names(servers[1]), "it replicates, and nobody does here")
	require.Contains(t, run(exitFailed, "restore --columns name "+ids[2]), "does not exist on east")
	require.Contains(t, run(exitFailed, "restore --on west --json "+ids[2]), `"server": "west"`)
	require.Equal(t, "won,won,lost", names(servers[1]))
	require.Contains(t, run(exitFailed, "show "+ids[0]), "What was lost has been restored.")

	require.Contains(t, run(exitFailed, "ack "+ids[1]), "acknowledged in the journals of: east, west")
	require.Contains(t, run(exitFailed, "ack "+ids[0]), "conflict "+ids[0]+" was restored, and stays so in the journals of: east, west")
	require.Contains(t, run(exitFailed, "ack --json "+ids[0]), `"state": "restored"`)
	require.Equal(t, "acknowledged", list("--state acknowledged")[0].State)
	require.Len(t, list("--state restored"), 2)
	run(exitFailed, "ack --keep loser "+ids[1])
	require.Equal(t, "lost,lost", names(servers[0]))
	require.Len(t, list("--state restored"), 3)

	code, out, _ := command(t, "status", "--json")
	require.Equal(t, exitDone, code)
	require.Contains(t, strings.Join(strings.Fields(out), ""), `"conflicts":{"open":"0","total":"3"}`)
}

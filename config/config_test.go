package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/fault"
)

const minimal = `
mesh: personnel
servers:
  east: {endpoints: ["db-east:3306"], user: replicator, password: secret-east}
  west: {endpoints: [db-west], user: replicator, password: "${WEST}"}
`

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestDefaults(t *testing.T) {
	c, err := Parse([]byte(minimal), env("WEST", `a: "b" $$ {c}`+"\n#"))
	require.NoError(t, err)
	require.Equal(t, []Link{{"east", "west"}, {"west", "east"}}, []Link(c.Links))
	west := c.Server("west")
	require.Equal(t, []string{"db-west:3306"}, west.Endpoints)
	require.Equal(t, TLSPreferred, west.TLS.Mode)
	require.True(t, west.Own)
	require.Same(t, &west.Account, west.Reader)
	password, err := west.Password()
	require.NoError(t, err)
	require.Equal(t, `a: "b" $$ {c}`+"\n#", password, "a variable's value is taken as it is")
	require.Equal(t, 10*time.Second, c.Conflict.MaxClockSkew)
	require.Equal(t, 90*24*time.Hour, c.Journal.Keep)
	require.EqualValues(t, 4<<20, c.Apply.GroupBytes)
	require.Equal(t, "127.0.0.1:8080", c.HTTP.Listen)
	require.Equal(t, DDLIgnore, c.DDL)
	require.Equal(t, "/var/lib/replicator", c.StateDir)
}

// TestDocumentedDefaults reads every field of the reference document with its documented default.
func TestDocumentedDefaults(t *testing.T) {
	c, err := Parse([]byte(`
mesh: personnel
servers:
  east:
    endpoints: ["db-east:3306"]
    user: replicator
    password: ${EAST_PASSWORD}
    reader: {user: "", password: ""}
    tls: {mode: preferred, ca: "", cert: "", key: ""}
    contact: []
    site: ""
    own: false
  west: {endpoints: ["db-west:3306"], user: replicator, password: ""}
site: hq
links: [{from: east, to: west}]
tables:
  include: ["personnel.*"]
  exclude: ["*.tmp_*"]
  rules:
    - match: "shop.stock"
      conflict: {policy: last-writer-wins, add: [], mute: false, redact: []}
conflict: {policy: last-writer-wins, priority: [], max_clock_skew: 10s, index_limit: 2000000}
journal: {keep: 90d, max_rows: 1000000, max_value: 1MiB}
ddl: ignore
on_error: stop
notify:
  smtp: {address: "", from: "", username: "", password: "", tls: starttls}
  webhook: {url: "", secret: ""}
http: {listen: "127.0.0.1:8080", username: "", password_hash: "", tls: {cert: "", key: ""}, pprof: false, max_lag: 30s}
apply: {workers: 4, group_transactions: 1000, group_rows: 20000, group_bytes: 4MiB, group_time: 50ms, compress: false}
verify: {every: ""}
state_dir: /var/lib/replicator
lease: {ttl: 10s}
log: {level: info, format: console}
`), env("EAST_PASSWORD", "x"))
	require.NoError(t, err)
	require.False(t, c.Server("east").Own)
	require.Equal(t, Links{{"east", "west"}}, c.Links)
	require.True(t, c.Tables.Matches(change.TableName{Database: "personnel", Table: "staff"}))
	require.False(t, c.Tables.Matches(change.TableName{Database: "personnel", Table: "tmp_staff"}))
	require.False(t, c.Tables.Matches(change.TableName{Database: "shop", Table: "stock"}))
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := Parse([]byte(`
servers:
  east: {endpoints: ["db:3306", "db:x"], user: r, password: "${NO_SUCH}", tsl: {mode: off}, tls: {mode: off}}
  west: {endpoints: ["db:3306"], password: a, password_file: b}
  west: {}
links: [{from: east, to: east}, {from: east, to: north}, {from: east, to: west}, {from: east, to: west}]
tables: {include: [staff], rules: [{match: "a.b", time_column: t, conflict: {add: [n]}}]}
conflict: {policy: server-priority, max_clock_skew: soon, index_limit: many, change_log: {table: "a.log_*"}}
ddl: replicate
on_error: retry
http: {listen: "0.0.0.0:80", pprof: perhaps, password_hash: plain}
apply: {workers: few, group_bytes: 4MB}
log: info
lease: {ttl: 100ms}
verify: {every: 10ms}
`), env())
	var problems Problems
	require.ErrorAs(t, err, &problems)
	paths := map[string]string{}
	for _, p := range problems {
		paths[p.Path] = p.Message
		require.NotEmpty(t, p.Remedy, p.Path)
	}
	for _, want := range []string{
		"mesh", "servers.east.endpoints[1]", "servers.east.password", "servers.east.tsl", "servers.east.tls.mode",
		"servers.west", "servers.west.user", "servers.west.password_file", "servers.west.endpoints[0]", "links[0]",
		"links[1].to", "links[3]", "tables.include[0]", "conflict.change_log.table", "tables.rules[0].conflict.add",
		"conflict.priority", "conflict.max_clock_skew", "conflict.index_limit", "ddl", "on_error", "http.listen", "http.pprof",
		"http.password_hash", "http.username", "apply.workers", "apply.group_bytes", "log", "lease.ttl", "verify.every",
	} {
		require.Contains(t, paths, want)
		delete(paths, want)
	}
	require.Empty(t, paths)
	require.Contains(t, err.Error(), "servers.east.password: the environment has no variable NO_SUCH; remedy: set")
	require.Len(t, strings.Split(err.Error(), "\n"), len(problems))
}

func TestExpansion(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "a$b": "a$b", "$$": "$", "$${A}": "${A}", "${A}${B}": "12", "x${A}y": "x1y", "$": "$",
		"$2a$10$abc": "$2a$10$abc",
	} {
		d := &decoder{env: env("A", "1", "B", "2")}
		got, ok := d.expand("p", text)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"${A", "${}", "${A B}", "${C}", "${1A}"} {
		d := &decoder{env: env("A", "1")}
		_, ok := d.expand("p", text)
		require.False(t, ok, text)
		require.Len(t, d.problems, 1)
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	c, err := Parse([]byte(minimal), env("WEST", "secret-west"))
	require.NoError(t, err)
	doc, err := json.Marshal(c)
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprintf("%v", c), fmt.Sprintf("%+v %#v", c.Servers[0], *c.Servers[0]), string(doc),
		fmt.Sprintf("%s %q", c.Servers[1].Secret, c.Servers[1].Secret),
	} {
		require.NotContains(t, text, "secret-")
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, database, table string
		want                     bool
	}{
		{"a.b", "a", "b", true},
		{"a.b", "a", "bb", false},
		{"a.B", "a", "b", false},
		{"*.*", "x.y", "z", true},
		{"a.*x*y", "a", "1x2y", true},
		{"a.*x*y", "a", "xy", true},
		{"a.*x*y", "a", "y", false},
		{"a.x*x", "a", "x", false},
		{"`a.b`.`c*`", "a.b", "c*", true},
		{"`a.b`.`c*`", "a.b", "cd", false},
		{"`a``b`.c", "a`b", "c", true},
		{"a*.c", "a.b", "c", true},
	} {
		p, err := parsePattern(c.pattern)
		require.NoError(t, err)
		require.Equal(t, c.want, p.matches(change.TableName{Database: c.database, Table: c.table}), c.pattern)
	}
	for _, bad := range []string{"", "a", ".", "a.", ".b", "a.b.c", "`a.b", "``.a", "a`.b", "`a`b.c"} {
		_, err := parsePattern(bad)
		require.Error(t, err, bad)
	}
}

func TestPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	a := Account{PasswordFile: file}
	_, err := a.Password()
	require.Error(t, err)
	for text, want := range map[string]string{"x\n": "x", "x\r\n": "x", " x ": " x ", "": "", "\n": ""} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		got, err := a.Password()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.NoError(t, os.WriteFile(file, []byte("two\nlines\n"), 0o600))
	_, err = a.Password()
	require.ErrorContains(t, err, "more than one line")
	require.NotContains(t, err.Error(), "two")
}

func TestStateDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, PrepareStateDir(filepath.Join(dir, "a", "b")))
	left, err := os.ReadDir(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	f, ok := fault.As(PrepareStateDir(filepath.Join(dir, "file", "b")))
	require.True(t, ok)
	require.Equal(t, fault.Configuration, f.Class)
	require.NotEmpty(t, f.Remedy)
}

func TestListen(t *testing.T) {
	const hash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	for listen, safe := range map[string]bool{
		"": true, "127.0.0.1:80": true, "localhost:80": true, "[::1]:80": true, "127.9.9.9:0": true,
		":80": false, "0.0.0.0:80": false, "[::]:80": false, "db:80": false, "10.0.0.1:80": false,
	} {
		text := minimal + "http: {listen: '" + listen + "'"
		_, err := Parse([]byte(text+"}"), env("WEST", "x"))
		require.Equal(t, safe, err == nil, listen)
		_, err = Parse([]byte(text+", username: u, password_hash: "+hash+"}"), env("WEST", "x"))
		require.NoError(t, err, listen)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("servers: &a {east: *a}\nlinks: &b [*b]\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("mesh: !!binary x\n---\n"))
	f.Add([]byte("<<: {mesh: a}\ntables: {rules: [{match: '`'}]}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Parse(raw, env("WEST", "x"))
		if err == nil && (len(c.Servers) < 2 || len(c.Links) == 0) {
			t.Fatalf("an unusable configuration was accepted: %v", c)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
	})
}

func TestCompressionOfServers(t *testing.T) {
	const text = "mesh: m\nservers:\n  near: {endpoints: [a], user: r, password: x, compress: false}\n" +
		"  far: {endpoints: [b], user: r, password: x, compress: zlib}\n  other: {endpoints: [c], user: r, password: x}\n"
	for setting, want := range map[string]Compression{"": CompressOff, "apply: {compress: true}": CompressBest, "apply: {compress: zstd}": CompressZstd} {
		c, err := Parse([]byte(text+setting), env())
		require.NoError(t, err)
		require.Equal(t, CompressOff, c.Server("near").Compress)
		require.Equal(t, CompressZlib, c.Server("far").Compress)
		require.Equal(t, want, c.Server("other").Compress)
		require.Equal(t, want.On(), want != CompressOff)
	}
	_, err := Parse([]byte(strings.Replace(text, "zlib", "lz4", 1)+"apply: {compress: 9}"), env())
	require.ErrorContains(t, err, `servers.far.compress: "lz4" is not known; remedy: write one of false, true, zlib, zstd`)
	require.ErrorContains(t, err, `apply.compress: "9" is not known`)
}

func TestWorkersAreBounded(t *testing.T) {
	servers := "mesh: m\nservers: {a: {endpoints: [\"a:1\"], user: u, password: p}, b: {endpoints: [\"b:1\"], user: u, password: p}}\n"
	for workers, fits := range map[int]bool{0: false, 1: true, 64: true, 65: false} {
		_, err := Parse(fmt.Appendf(nil, "%sapply: {workers: %d}\n", servers, workers), env())
		if fits {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "apply.workers")
	}
}

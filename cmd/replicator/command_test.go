package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/sandbox"
)

// command runs a command line in this process.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var a, b bytes.Buffer
	code = execute(t.Context(), args, &a, &b)
	return code, a.String(), b.String()
}

func TestUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for line, want := range map[string]string{
		"":                                  "name a command",
		"frobnicate":                        "unknown command",
		"check --frob":                      "unknown flag",
		"check extra":                       "unknown command",
		"link":                              "name a command",
		"link resume east":                  "accepts 2 arg(s)",
		"clone --from east":                 "name the server to copy from and the one to copy to",
		"clone --from east --to east":       "--from and --to both name east",
		"clone --from a --to b --with c":    "--with knows routines, views, triggers, events",
		"clone --from east --to west":       "read configuration",
		"resync table a.b":                  "name the server whose rows are right",
		"resync table b --from east":        "is not DATABASE.TABLE",
		"verify --quick":                    "read configuration",
		"verify --repair":                   "--repair and --from SERVER go together",
		"verify --from east":                "--repair and --from SERVER go together",
		"verify --limit -1":                 "--limit must not be negative",
		"verify --patience 0s":              "--patience must be more than 0",
		"verify staff":                      "\"staff\" is no pattern of tables",
		"conflicts":                         "name a command",
		"conflicts list --state lost":       "state must be open, acknowledged or restored",
		"conflicts list --table staff":      "\"staff\" is no pattern of tables: want database.table",
		"conflicts list --since yesterday":  "yesterday is no time",
		"conflicts show":                    "accepts 1 arg(s)",
		"conflicts ack 12 --keep both":      "--keep takes winner or loser",
		"conflicts restore 12":              "read configuration",
		"errors list":                       "errors: not in this version",
		"pull":                              "pull: not in this version",
		"drain":                             "drain: not in this version",
		"init --change-log --table app.*":   `--table "app.*"`,
		"init --table a.b east=a west=b":    "--table goes with --change-log",
		"check --test-mail":                 "read configuration",
		"init":                              "requires at least 1 arg",
		"init east":                         `"east" is not NAME=host:port`,
		"init east=a:1":                     "servers: a mesh has two servers or more",
		"init east=root:x@a:1 west=b":       "an address holds no account",
		"init east=a:1 west=a:1":            "servers.west.endpoints[0]: is the same as servers.east.endpoints[0]",
		"init --tables staff east=a west=b": "tables.include[0]",
		"check":                             "read configuration",
		"run":                               "read configuration",
		"status --config none.yaml":         "none.yaml",
	} {
		code, out, errs := command(t, strings.Fields(line)...)
		require.Equal(t, exitUsage, code, "%s: %s", line, errs)
		require.Contains(t, errs, want, line)
		require.Contains(t, errs, "remedy: ", line)
		require.Empty(t, out, line)
	}
	for _, line := range []string{"version", "version --json", "--help", "check --help"} {
		code, out, errs := command(t, strings.Fields(line)...)
		require.Equal(t, exitDone, code, errs)
		require.NotEmpty(t, out)
	}
}

func TestPrintChangeLog(t *testing.T) {
	code, out, errs := command(t, "init", "--change-log", "--table", "shop.`the.log`")
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "CREATE TABLE `shop`.`the.log` (")
	require.Contains(t, out, "CREATE TRIGGER `shop`.`the.log_site` BEFORE INSERT ON `shop`.`the.log`")
	require.Contains(t, out, "change_log: {table: \"shop.`the.log`\"}")
}

// TestChangeLogOnAnEmptyServer: what is printed makes the log, whether its database exists or not.
func TestChangeLogOnAnEmptyServer(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			for _, name := range []string{"`new app`.change_log", "`new app`.second"} {
				code, out, errs := command(t, "init", "--change-log", "--table", name)
				require.Equal(t, exitDone, code, errs)
				_, err := s.DB().ExecContext(t.Context(), out)
				require.NoError(t, err, out)
			}
			_, err := s.DB().ExecContext(t.Context(), "INSERT INTO `new app`.change_log (user_id) VALUES (1)")
			require.NoError(t, err)
		})
	}
}

func TestBadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(file, []byte("mesh: m\nservers: {a: {endpoints: [h], user: u, password: '${NO_SUCH_VARIABLE}'}}\n"+
		"surprise: 1\n"), 0o600))
	t.Setenv(configVariable, file)
	for _, verb := range []string{"run", "check", "status"} {
		code, _, errs := command(t, verb)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "surprise: unknown field")
		require.Contains(t, errs, "servers.a.password: the environment has no variable NO_SUCH_VARIABLE")
		require.Contains(t, errs, "servers: a mesh has two servers or more")
	}
}

// TestInitAndCheck goes the way of a new user: grants, configuration, check.
func TestInitAndCheck(t *testing.T) {
	servers := map[string]*sandbox.Server{}
	args := []string{"--tables", "app.*", "--user", "repl"}
	secret := "s3cret'\"$${}\\ :#"
	for name, flavor := range map[string]sandbox.Flavor{"my-1": sandbox.MySQL97, "ma.1": sandbox.MariaDB118} {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Durable: true})
		servers[name] = s
		args = append(args, name+"="+s.Addr())
		_, err := s.DB().ExecContext(t.Context(), "CREATE DATABASE app; CREATE TABLE app.t (id INT PRIMARY KEY)")
		require.NoError(t, err)
		t.Setenv(passwordVariable(name), secret)
	}

	// The grants need no account. Each server gets those of its flavor.
	code, out, errs := command(t, append([]string{"init", "--grants"}, args...)...)
	require.Equal(t, exitDone, code, errs)
	mySQL, mariaDB, found := strings.Cut(out, "-- Run this on ma.1 (MariaDB 11.8")
	require.True(t, found, out)
	_, mariaDB, _ = strings.Cut(mariaDB, "\n")
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(secret)
	for name, text := range map[string]string{"my-1": mySQL, "ma.1": mariaDB} {
		for statement := range strings.SplitSeq(strings.ReplaceAll(text, "<password>", quoted), ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			_, err := servers[name].DB().ExecContext(t.Context(), statement)
			require.NoError(t, err, statement)
		}
	}

	code, document, errs := command(t, append([]string{"init", "--mesh", "personnel"}, args...)...)
	require.Equal(t, exitDone, code, errs)
	require.NotContains(t, document, "s3cret")
	require.Contains(t, document, "# MySQL 9.7.")
	require.Empty(t, errs, "nothing to note on these servers")
	file := filepath.Join(t.TempDir(), "replicator.yaml")
	require.NoError(t, os.WriteFile(file, []byte(document), 0o600))
	c, err := config.Load(file)
	require.NoError(t, err)
	require.Equal(t, "personnel", c.Mesh)

	code, out, errs = command(t, "check", "--config", file)
	require.Equal(t, exitDone, code, out+errs)
	require.NotContains(t, out+errs, "s3cret")

	_, err = servers["my-1"].DB().ExecContext(t.Context(), "CREATE TABLE app.nokey (id INT)")
	require.NoError(t, err)
	code, out, errs = command(t, "check", "--config", file, "--json")
	require.Equal(t, exitNo, code, errs)
	var report struct {
		OK, Complete     bool
		Pass, Warn, Fail int
		Findings         []map[string]string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.False(t, report.OK)
	require.True(t, report.Complete)
	require.Equal(t, 2, report.Fail, "it has no key, and is not on the other server")
	require.Len(t, report.Findings, report.Pass+report.Warn+report.Fail)

	t.Setenv(passwordVariable("ma.1"), "wrong")
	code, out, errs = command(t, "check", "--config", file)
	require.Equal(t, exitFailed, code, errs)
	require.Contains(t, out, "Access denied")
	require.Contains(t, out, "remedy: check user and password")
	require.NotContains(t, out+errs, "s3cret")
	code, _, errs = command(t, append([]string{"init"}, args...)...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "remedy: check user and password")

	require.NoError(t, servers["ma.1"].Stop())
	code, _, errs = command(t, append([]string{"init", "--grants"}, args...)...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "remedy: check that the server runs")
}

func TestPasswordPrompt(t *testing.T) {
	var notes bytes.Buffer
	i := &initializer{
		in: strings.NewReader("first\nsecond"), errs: &notes, user: "u", passwords: map[string]string{},
		targets: []target{{"prompt-a", "h:1"}, {"prompt-b", "h:2"}},
	}
	require.NoError(t, i.askPasswords())
	require.Equal(t, map[string]string{"prompt-a": "first", "prompt-b": "second"}, i.passwords)
	require.NotContains(t, notes.String(), "first")
	require.Error(t, i.askPasswords(), "the input has ended")
}

func TestPasswordVariable(t *testing.T) {
	require.Equal(t, "EAST_PASSWORD", passwordVariable("east"))
	require.Equal(t, "DB_1_EU_PASSWORD", passwordVariable("db-1.eu"))
	require.Equal(t, "_1A_PASSWORD", passwordVariable("1a"))
}

func TestExitCodes(t *testing.T) {
	require.Equal(t, exitDone, exitCode(nil))
	require.Equal(t, exitNo, exitCode(fmt.Errorf("check: %w", errAnswerNo)))
	require.Equal(t, exitFailed, exitCode(errIncomplete))
	require.Equal(t, exitUsage, exitCode(fmt.Errorf("load: %w", config.Problems{{Message: "x"}})))
}

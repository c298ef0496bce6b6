package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"replicator/config"
	"replicator/fault"
	"replicator/server"
)

// printConfig prints a configuration that loads, after it has met every server.
func (i *initializer) printConfig(ctx context.Context) error {
	text := i.render(nil)
	cfg, err := config.Parse([]byte(text), i.env)
	if err != nil {
		return usageError{err} // before anything is asked: names and addresses of the command line are wrong
	}
	if err := i.askPasswords(); err != nil {
		return err
	}
	infos := map[string]server.Info{}
	for n, t := range i.targets {
		err := i.withServer(target{t.name, cfg.Servers[n].Endpoints[0]}, func(s *server.Server) error {
			info, err := server.Probe(ctx, s.DB())
			infos[t.name] = info
			if err != nil {
				return err
			}
			return i.note(server.Examine(ctx, s, cfg).Findings)
		})
		if err != nil {
			return err
		}
	}
	text = i.render(infos)
	if _, err := config.Parse([]byte(text), i.env); err != nil {
		return fault.Wrap(err, fault.Bug, "report it with the command line", "the configuration that init wrote does not load")
	}
	_, err = io.WriteString(i.out, text)
	return err
}

// env answers with the passwords that were asked for: the configuration names their variables.
func (i *initializer) env(name string) (string, bool) {
	for _, t := range i.targets {
		if name == passwordVariable(t.name) {
			return i.passwords[t.name], true
		}
	}
	return "", false
}

// note tells what check will say of a server.
func (i *initializer) note(findings []server.Finding) error {
	for _, f := range findings {
		if f.State == server.Pass {
			continue
		}
		if _, err := fmt.Fprintf(i.errs, "%s: %s: %s %s\n  remedy: %s\n", f.State, f.Server, f.Name, f.Message, f.Remedy); err != nil {
			return fmt.Errorf("print findings: %w", err)
		}
	}
	return nil
}

func (i *initializer) render(infos map[string]server.Info) string {
	var b strings.Builder
	b.WriteString("# Configuration of replicator. ${NAME} is taken from the environment; $$ is a single $.\n")
	b.WriteString("# What is commented out is the default, or an example where it says so. Try it with: replicator check\n")
	fmt.Fprintf(&b, "mesh: %s\n", yamlText(i.mesh))
	b.WriteString("servers:\n")
	for _, t := range i.targets {
		if info, known := infos[t.name]; known {
			fmt.Fprintf(&b, "  # %s, server_id %d\n", info, info.ServerID)
		}
		fmt.Fprintf(&b, "  %s:\n", yamlText(t.name))
		fmt.Fprintf(&b, "    endpoints: [%s]         # all addresses of this one server, tried in order\n", yamlText(t.endpoint))
		fmt.Fprintf(&b, "    user: %s\n", yamlText(i.user))
		fmt.Fprintf(&b, "    password: ${%s}         # or password_file: /run/secrets/…\n", passwordVariable(t.name))
		if i.reader != "" {
			fmt.Fprintf(&b, "    reader: {user: %s, password: \"\"}  # the account that reads the binlog: give its password\n",
				yamlText(i.reader))
		}
		b.WriteString("    # tls: {mode: preferred}      # disabled | preferred | required | verify-ca | verify-full; ca, cert, key\n")
		b.WriteString("    # contact: [\"dba@example.org\"]   # example: told of conflicts of this server\n")
		b.WriteString("    # own: true                   # false: only read from it, never apply to it\n")
	}
	b.WriteString("links: mesh                       # or [{from: a, to: b}, …]: one-way where only one direction is listed\n")
	b.WriteString("tables:\n")
	quoted := make([]string, len(i.tables))
	for n, pattern := range i.tables {
		quoted[n] = yamlText(pattern)
	}
	fmt.Fprintf(&b, "  include: [%s]\n", strings.Join(quoted, ", "))
	b.WriteString("  # exclude: [\"*.tmp_*\"]         # example: not replicated although include matches\n")
	b.WriteString(configDefaults)
	return b.String()
}

const configDefaults = `# conflict:
#   max_clock_skew: 10s           # servers whose clocks are further apart are stopped
#   index_limit: 2000000          # entries in memory over all servers, above it they spill to state_dir
#   change_log: {table: app.change_log}   # example: decide before the first start (replicator init --change-log)
#   users: {query: "SELECT email FROM app.users WHERE id = ?"}   # example: who a user_id of the change_log is; told of conflicts
# notify:                         # replicator check --test-mail proves it
#   smtp: {address: "mail:587", from: "replicator@example.org", username: "", password: "", tls: starttls}   # example; starttls | implicit | none
#   webhook: {url: "", secret: ""}
# ddl: ignore                     # ignore | halt
# http: {listen: "127.0.0.1:8080", username: "", password_hash: "", max_lag: 30s}   # listen: "" switches it off
# apply: {group_transactions: 1000, group_rows: 20000, group_bytes: 4MiB, group_time: 50ms}
# state_dir: /var/lib/replicator  # spool and spill; may be emptied while stopped
# log: {level: info, format: console}
`

// yamlText quotes a text for YAML: a double-quoted scalar takes the escapes of Go for printable text. A $ would be taken
// for a variable's.
func yamlText(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$", "\n", `\n`, "\t", `\t`).Replace(text) + `"`
}

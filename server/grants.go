package server

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"replicator/change"
)

// Role is what an account is for.
type Role uint8

// The roles. One account may have both.
const (
	ReaderRole  Role = iota + 1 // reads the binlog
	ApplierRole                 // applies, checks, and keeps the replicator schema
)

func (r Role) String() string {
	if r == ReaderRole {
		return "reader"
	}
	return "applier"
}

// scope is where a privilege is granted.
type scope uint8

const (
	everywhere   scope = iota // ON *.*
	ownSchema                 // ON replicator.*
	replicatedDB              // on the databases of replicated tables
)

// privilege is one that a role needs.
type privilege struct {
	name     string // as GRANT and SHOW GRANTS spell it
	others   []string
	scope    scope
	why      string
	optional string // what is worse without it; "" when nothing works without it
}

// in reports whether the grants hold the privilege or one that includes it.
func (p privilege) in(g grantSet, object change.TableName) bool {
	for _, name := range append([]string{p.name}, p.others...) {
		if g.has(name, object) {
			return true
		}
	}
	return false
}

// common are the privileges that both flavors know by the same name.
var common = []privilege{
	{name: "SELECT", scope: ownSchema, why: "reads checkpoints and identity"},
	{name: "INSERT", scope: ownSchema, why: "writes markers, heartbeats and its other upkeep"},
	{name: "UPDATE", scope: ownSchema, why: "keeps frontier and lease"},
	{name: "DELETE", scope: ownSchema, why: "trims old markers"},
	{name: "CREATE", scope: ownSchema, why: "creates the schema replicator and its tables"},
	{name: "ALTER", scope: ownSchema, why: "migrates them to a newer version"},
	{name: "INDEX", scope: ownSchema, why: "migrates them to a newer version"},
	{name: "DROP", scope: ownSchema, why: "migrates them to a newer version"},
	{name: "SELECT", scope: replicatedDB, why: "reads definitions, and locks rows before it decides a conflict"},
	{name: "INSERT", scope: replicatedDB, why: "applies by SQL where rows cannot be replayed, and resolves conflicts"},
	{name: "UPDATE", scope: replicatedDB, why: "applies by SQL where rows cannot be replayed, and locks rows"},
	{name: "DELETE", scope: replicatedDB, why: "applies by SQL where rows cannot be replayed, and resolves conflicts"},
}

const slowerReplay = "rows are then applied by SQL, which is slower and fires triggers"

func (mysqlDialect) needed(role Role) []privilege {
	client := privilege{
		name: "REPLICATION CLIENT", others: []string{"SUPER"}, why: "reads the end of the binlog, which a commit waits for",
	}
	if role == ReaderRole {
		slave := privilege{name: "REPLICATION SLAVE", why: "reads the binlog as a replica does"}
		return []privilege{slave, client}
	}
	return append([]privilege{client, {
		name: "REPLICATION_APPLIER", others: []string{"BINLOG_ADMIN", "SUPER"}, why: "replays row events with BINLOG",
		optional: slowerReplay,
	}, {
		name: "TRIGGER", scope: replicatedDB, why: "sees triggers, which would fire where rows are applied by SQL",
	}}, common...)
}

func (mariadb) needed(role Role) []privilege {
	monitor := privilege{
		name: "BINLOG MONITOR", others: []string{"REPLICATION CLIENT", "SUPER"},
		why: "reads the end of the binlog, which a commit waits for",
	}
	if role == ReaderRole {
		slave := privilege{name: "REPLICATION SLAVE", why: "reads the binlog as a replica does"}
		return []privilege{slave, monitor}
	}
	return append([]privilege{monitor, {
		name: "BINLOG REPLAY", why: "replays row events with BINLOG", optional: slowerReplay,
	}, {
		name: "BINLOG ADMIN", others: []string{"SUPER"},
		why:      "switches row annotations off for its own sessions",
		optional: "every replayed statement is then logged a second time as text",
	}, {
		name: "TRIGGER", scope: replicatedDB, why: "sees the bodies of triggers, which would fire where rows are applied by SQL",
	}}, common...)
}

func (mysqlDialect) ignoresReadOnly() privilege {
	return privilege{name: "CONNECTION_ADMIN", others: []string{"SUPER"}}
}

func (mariadb) ignoresReadOnly() privilege { return privilege{name: "READ_ONLY ADMIN"} }

// GrantRequest says for whom accounts are to be made.
type GrantRequest struct {
	User     string
	Password string // "" prints a placeholder
	Host     string // from where the account logs in; "" is "%": from anywhere
	// Reader is the second account, for the binlog; "" when User reads it too.
	Reader         string
	ReaderPassword string
	// Databases are those of the replicated tables, with * wildcards; empty is all.
	Databases []string
}

// Grants are the statements that make the accounts with the fewest privileges that everything needs. Each begins with a
// comment line that says why. Run them on every server of the flavor.
func Grants(f change.Flavor, r GrantRequest) []string {
	dialect := NewDialect(Info{Flavor: f})
	if r.Host == "" {
		r.Host = "%"
	}
	databases := r.Databases
	if len(databases) == 0 {
		databases = []string{"*"}
	}
	var out []string
	if r.Reader != "" && r.Reader != r.User {
		out = append(out, createUser(r.Reader, r.Host, r.ReaderPassword, "the account that reads the binlog"))
		out = append(out, grants(dialect.needed(ReaderRole), r.Reader, r.Host, nil)...)
	}
	out = append(out, createUser(r.User, r.Host, r.Password, "the account that applies"))
	needed := dialect.needed(ApplierRole)
	if r.Reader == "" || r.Reader == r.User {
		needed = append(dialect.needed(ReaderRole)[:1], needed...)
	}
	return append(out, grants(needed, r.User, r.Host, databases)...)
}

func createUser(user, host, password, why string) string {
	if password == "" {
		password = "<password>"
	}
	return fmt.Sprintf("-- %s\nCREATE USER %s IDENTIFIED BY %s", why, accountName(user, host), QuoteText(password))
}

func accountName(user, host string) string { return QuoteText(user) + "@" + QuoteText(host) }

// GrantStatement is what gives the session's own account a privilege on the whole server.
func GrantStatement(ctx context.Context, q Querier, privilege string) (string, error) {
	var account string
	if err := q.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&account); err != nil {
		return "", Fault(err, "ask for the account's name")
	}
	at := max(strings.LastIndexByte(account, '@'), 0)
	return "GRANT " + privilege + " ON *.* TO " + accountName(account[:at], strings.TrimPrefix(account[at:], "@")), nil
}

// grants writes one statement for each object, the privileges of a scope explained line by line at its first.
func grants(needed []privilege, user, host string, databases []string) []string {
	var out []string
	explained := map[scope]bool{}
	statement := func(s scope, object string) {
		var comment strings.Builder
		var names []string
		for _, p := range needed {
			if p.scope != s {
				continue
			}
			if !explained[s] {
				fmt.Fprintf(&comment, "-- %s: %s\n", p.name, p.why)
			}
			names = append(names, p.name)
		}
		explained[s] = true
		if len(names) > 0 {
			out = append(out, fmt.Sprintf("%sGRANT %s ON %s TO %s", comment.String(), strings.Join(names, ", "), object,
				accountName(user, host)))
		}
	}
	statement(everywhere, "*.*")
	statement(ownSchema, "`replicator`.*")
	for _, d := range databases {
		if d == "*" {
			statement(replicatedDB, "*.*")
			continue
		}
		statement(replicatedDB, grantPattern(d)+".*")
	}
	return out
}

// grantPattern writes a database pattern as GRANT understands it: % for any text, and _ only as itself.
func grantPattern(database string) string {
	return Quote(strings.NewReplacer("_", `\_`, "%", `\%`, "*", "%").Replace(database))
}

// grantSet is what SHOW GRANTS says.
type grantSet []grant

type grant struct {
	privileges      map[string]bool
	database, table string // "*" for all; database may be a pattern with % and _
	revoked         bool   // MySQL's partial revokes
}

// grantLine reads lines such as: GRANT SELECT, INSERT (`a`, `b`) ON `app`.* TO `u`@`%` …
var grantLine = regexp.MustCompile("^(GRANT|REVOKE) (.+?) ON (?:TABLE )?(\\*|`(?:[^`]|``)*`)\\.(\\*|`(?:[^`]|``)*`) (?:TO|FROM) ")

// columns matches a grant for some columns only, which do not count.
var columns = regexp.MustCompile(`[A-Z_ ]+ \([^)]*\)`)

func parseGrants(lines []string) grantSet {
	var set grantSet
	for _, line := range lines {
		m := grantLine.FindStringSubmatch(line)
		if m == nil {
			continue // a role, a proxy or a routine
		}
		g := grant{privileges: map[string]bool{}, database: unquote(m[3]), table: unquote(m[4]), revoked: m[1] == "REVOKE"}
		for name := range strings.SplitSeq(columns.ReplaceAllString(m[2], ""), ",") {
			g.privileges[strings.ToUpper(strings.TrimSpace(name))] = true
		}
		set = append(set, g)
	}
	return set
}

func unquote(name string) string {
	if inner, found := strings.CutPrefix(name, "`"); found {
		return strings.ReplaceAll(strings.TrimSuffix(inner, "`"), "``", "`")
	}
	return name
}

// has reports whether a privilege holds on an object: {} for the whole server, {database} for all its tables.
func (s grantSet) has(privilege string, object change.TableName) bool {
	found := false
	for _, g := range s {
		if !g.covers(object) || !g.privileges[privilege] && !g.privileges["ALL PRIVILEGES"] {
			continue
		}
		if g.revoked {
			return false
		}
		found = true
	}
	return found
}

func (g grant) covers(object change.TableName) bool {
	if g.database == "*" {
		return true
	}
	if object.Database == "" || !likeMatch(g.database, object.Database) {
		return false
	}
	return g.table == "*" || g.table == object.Table
}

// likeMatch matches as LIKE does, with \ as the escape.
func likeMatch(pattern, text string) bool {
	var re strings.Builder
	re.WriteString("(?s)^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '%':
			re.WriteString(".*")
		case c == '_':
			re.WriteByte('.')
		case c == '\\' && i+1 < len(pattern):
			i++
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		default:
			re.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	re.WriteByte('$')
	match, err := regexp.MatchString(re.String(), text)
	return err == nil && match
}

// readGrants reads the account's own grants, those of its active roles and of everybody included.
func readGrants(ctx context.Context, q Querier, i Info) (grantSet, error) {
	query := "SHOW GRANTS"
	if i.Flavor == change.MySQL {
		var roles string
		if err := q.QueryRowContext(ctx, "SELECT CURRENT_ROLE()").Scan(&roles); err != nil {
			return nil, Fault(err, "read the account's roles")
		}
		if roles != "" && roles != "NONE" {
			query = "SHOW GRANTS FOR CURRENT_USER() USING " + roles
		}
	}
	lines, err := grantLines(ctx, q, query)
	if err != nil {
		return nil, Fault(err, "read the account's grants")
	}
	if i.Flavor == change.MariaDB && i.Release.AtLeast(10, 11, 0) {
		everybody, err := grantLines(ctx, q, "SHOW GRANTS FOR PUBLIC")
		if err != nil && !isNumber(err, 1141) { // nobody has granted it anything
			return nil, Fault(err, "read everybody's grants")
		}
		lines = append(lines, everybody...)
	}
	return parseGrants(lines), nil
}

func grantLines(ctx context.Context, q Querier, query string) ([]string, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}

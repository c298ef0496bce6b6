// Package config is replicator.yaml: its types, defaults and checks. A Config that Load returned is complete and valid;
// nobody checks or defaults its fields again.
package config

import (
	"slices"
	"time"

	"replicator/change"
)

// Config is the whole configuration.
type Config struct {
	Mesh     string   `yaml:"mesh"`
	Servers  Servers  `yaml:"servers"`
	Site     string   `yaml:"site"`  // where this process runs; shown in status
	Links    Links    `yaml:"links"` // resolved: "mesh" has become every pair
	Tables   Tables   `yaml:"tables"`
	Conflict Conflict `yaml:"conflict"`
	Journal  Journal  `yaml:"journal"`
	DDL      DDL      `yaml:"ddl"`
	OnError  string   `yaml:"on_error"`
	Notify   Notify   `yaml:"notify"`
	HTTP     HTTP     `yaml:"http"`
	Apply    Apply    `yaml:"apply"`
	Verify   Verify   `yaml:"verify"`
	StateDir string   `yaml:"state_dir"` // spool and spill; PrepareStateDir makes it
	Lease    Lease    `yaml:"lease"`
	Log      Log      `yaml:"log"`
}

// Server returns the server with that name, nil when there is none.
func (c *Config) Server(name string) *Server {
	i := slices.IndexFunc(c.Servers, func(s *Server) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return c.Servers[i]
}

// Servers are in the order of the file.
type Servers []*Server

// Server is one logical database.
type Server struct {
	Name string `yaml:"-"`
	// Endpoints are host:port, tried in order; all of one GTID history.
	Endpoints []string `yaml:"endpoints"`
	Account   `yaml:",inline"`
	Reader    *Account `yaml:"reader"` // the binlog's account; validation makes it Account where none was given
	TLS       TLS      `yaml:"tls"`
	Contact   []string `yaml:"contact"`
	Site      string   `yaml:"site"`
	Own       bool     `yaml:"own"` // this process may apply to it
	// Compress is how connections to the server are compressed; validation makes it that of Apply where none was given.
	Compress Compression `yaml:"compress"`
}

// Compression says how connections to a server are compressed.
type Compression string

// What may be written. Best is the best that both ends speak: MariaDB has no zstd.
const (
	CompressOff  Compression = "false"
	CompressBest Compression = "true"
	CompressZlib Compression = "zlib"
	CompressZstd Compression = "zstd"
)

// On reports whether there is compression. The zero value is off.
func (c Compression) On() bool { return c != "" && c != CompressOff }

// TLSMode says how a connection to a server is protected, as in MySQL's own clients.
type TLSMode string

// The modes. Preferred falls back to plain text; Preferred and Required do not look at the certificate.
const (
	TLSDisabled   TLSMode = "disabled"
	TLSPreferred  TLSMode = "preferred"
	TLSRequired   TLSMode = "required"
	TLSVerifyCA   TLSMode = "verify-ca"
	TLSVerifyFull TLSMode = "verify-full"
)

// TLS is the protection of the connections to one server. The fields besides Mode are names of PEM files.
type TLS struct {
	Mode TLSMode `yaml:"mode"`
	CA   string  `yaml:"ca"` // default: the system's
	Cert string  `yaml:"cert"`
	Key  string  `yaml:"key"`
}

// Links are the directions in which changes flow.
type Links []Link

// Link is one of them. Whether this process may run it is its target's Own.
type Link struct {
	From string `yaml:"from"`
	To   string `yaml:"to"`
}

// Tables says which tables are replicated.
type Tables struct {
	Include []string `yaml:"include"`
	Exclude []string `yaml:"exclude"`
	Rules   []Rule   `yaml:"rules"`

	include, exclude []pattern
}

// Rule is what is special about the tables that its pattern matches.
type Rule struct {
	Match          string        `yaml:"match"`
	ExcludeColumns []string      `yaml:"exclude_columns"`
	TimeColumn     string        `yaml:"time_column"`
	Conflict       *RuleConflict `yaml:"conflict"`

	pattern pattern
}

// RuleConflict is how conflicts of the tables of a rule are resolved and shown.
type RuleConflict struct {
	Policy string   `yaml:"policy"`
	Add    []string `yaml:"add"`
	Mute   bool     `yaml:"mute"`
	Redact []string `yaml:"redact"`
}

// Conflict is how conflicts are noticed and resolved.
type Conflict struct {
	Policy       string        `yaml:"policy"`
	Priority     []string      `yaml:"priority"`
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`
	IndexLimit   int           `yaml:"index_limit"` // entries in memory, over all targets of the process
	ChangeLog    *ChangeLog    `yaml:"change_log"`
	Users        *Users        `yaml:"users"`
}

// Users tells who a user id of the change log is.
type Users struct {
	Query string `yaml:"query"`
}

// Journal is how long and how much of losing rows is kept.
type Journal struct {
	Keep     time.Duration `yaml:"keep"`
	MaxRows  int64         `yaml:"max_rows"`
	MaxValue Size          `yaml:"max_value"`
}

// DDL says what happens to a DDL statement of a replicated table.
type DDL string

// The policies of this version. Under both, TRUNCATE, DROP and RENAME of a replicated table stop the link.
const (
	DDLIgnore DDL = "ignore" // passed over with a warning
	DDLHalt   DDL = "halt"   // stops the link
)

// Notify is who hears of conflicts and failures, and how.
type Notify struct {
	SMTP    SMTP    `yaml:"smtp"`
	Webhook Webhook `yaml:"webhook"`
}

// SMTP is a mail server.
type SMTP struct {
	Address  string `yaml:"address"`
	From     string `yaml:"from"`
	Username string `yaml:"username"`
	Password Secret `yaml:"password"`
	TLS      string `yaml:"tls"`
	CA       string `yaml:"ca"` // a PEM file; default: the system's authorities
}

// Webhook is an HTTP receiver of notices.
type Webhook struct {
	URL    string `yaml:"url"`
	Secret Secret `yaml:"secret"`
}

// HTTP is the process's own server. An empty Listen switches it off.
type HTTP struct {
	Listen       string        `yaml:"listen"`
	Username     string        `yaml:"username"`
	PasswordHash Secret        `yaml:"password_hash"` // bcrypt
	TLS          HTTPTLS       `yaml:"tls"`
	Pprof        bool          `yaml:"pprof"`
	MaxLag       time.Duration `yaml:"max_lag"`
}

// HTTPTLS names PEM files; both or neither are set.
type HTTPTLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Apply bounds what one target transaction holds.
type Apply struct {
	Workers           int           `yaml:"workers"`
	GroupTransactions int           `yaml:"group_transactions"`
	GroupRows         int           `yaml:"group_rows"`
	GroupBytes        Size          `yaml:"group_bytes"`
	GroupTime         time.Duration `yaml:"group_time"`
	Compress          Compression   `yaml:"compress"` // of servers without a setting of their own
}

// Verify is the scheduled comparison, which the owner of the first server does; 0 is never.
type Verify struct {
	Every time.Duration `yaml:"every"`
}

// Lease is how long an owner may stay silent.
type Lease struct {
	TTL time.Duration `yaml:"ttl"`
}

// Log is what the process writes to stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // console or json
}

// Matches reports whether a table is replicated.
func (t *Tables) Matches(name change.TableName) bool {
	if IsSystem(name.Database) {
		return false
	}
	matches := func(p pattern) bool { return p.matches(name) }
	return slices.ContainsFunc(t.include, matches) && !slices.ContainsFunc(t.exclude, matches)
}

func defaults() *Config {
	return &Config{
		Tables:   Tables{Include: []string{"*.*"}},
		Conflict: Conflict{Policy: LastWriterWins, MaxClockSkew: 10 * time.Second, IndexLimit: 2_000_000},
		Journal:  Journal{Keep: 90 * 24 * time.Hour, MaxRows: 1_000_000, MaxValue: 1 << 20},
		DDL:      DDLIgnore,
		OnError:  "stop",
		Notify:   Notify{SMTP: SMTP{TLS: "starttls"}},
		HTTP:     HTTP{Listen: "127.0.0.1:8080", MaxLag: 30 * time.Second},
		Apply: Apply{
			Workers: 4, GroupTransactions: 1000, GroupRows: 20_000, GroupBytes: 4 << 20,
			GroupTime: 50 * time.Millisecond, Compress: CompressOff,
		},
		StateDir: "/var/lib/replicator",
		Lease:    Lease{TTL: 10 * time.Second},
		Log:      Log{Level: "info", Format: "console"},
	}
}

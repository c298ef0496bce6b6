package config

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// validator checks what the decoder filled in, and resolves what refers to other fields.
type validator struct {
	*Config
	set      map[string]bool
	problems Problems
}

func (v *validator) problem(path, remedy, format string, args ...any) {
	v.problems = append(v.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...), Remedy: remedy})
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

const nameRemedy = "use letters, digits, - _ and . (at most 64)"

func (v *validator) validate() {
	if v.Mesh == "" {
		v.problem("mesh", "give the mesh a name", "is missing")
	} else if !name.MatchString(v.Mesh) {
		v.problem("mesh", nameRemedy, "%q is not a name", v.Mesh)
	}
	v.validateServers()
	v.validateLinks()
	v.validateTables()
	v.validatePolicies()
	v.validateChangeLog()
	v.validateNotify()
	v.validateHTTP()
	v.validateLimits()
	v.oneOf("ddl", string(v.DDL), string(DDLIgnore), string(DDLHalt), "replicate")
	v.oneOf("on_error", v.OnError, "stop", "set-aside")
	v.oneOf("log.level", v.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", v.Log.Format, "console", "json")
	if v.StateDir == "" {
		v.problem("state_dir", "name a directory", "is empty")
	}
	v.refuseLater()
}

func (v *validator) oneOf(path, value string, known ...string) {
	if !slices.Contains(known, value) {
		v.problem(path, "write one of "+strings.Join(known, ", "), "%q is not known", value)
	}
}

func (v *validator) validateServers() {
	if len(v.Servers) < 2 {
		v.problem("servers", "name at least two servers", "a mesh has two servers or more, found %d", len(v.Servers))
	}
	owners := map[string]string{}
	for _, s := range v.Servers {
		path := "servers." + s.Name
		if !name.MatchString(s.Name) {
			v.problem(path, nameRemedy, "%q is not a name", s.Name)
		}
		if len(s.Endpoints) == 0 {
			v.problem(path+".endpoints", `write endpoints: ["host:3306"]`, "is missing")
		}
		for i, endpoint := range s.Endpoints {
			at := fmt.Sprintf("%s.endpoints[%d]", path, i)
			full, err := completeEndpoint(endpoint)
			if err != nil {
				v.problem(at, "write host:port", "%q is not an address", endpoint)
				continue
			}
			s.Endpoints[i] = full
			if first, twice := owners[full]; twice {
				v.problem(at, "every server has addresses of its own", "is the same as %s", first)
			}
			owners[full] = at
		}
		v.validateAccounts(path, s)
		v.validateTLS(path+".tls", s.TLS)
		if s.Compress == "" {
			s.Compress = v.Apply.Compress
		} else {
			v.validateCompression(path+".compress", s.Compress)
		}
	}
	v.validateCompression("apply.compress", v.Apply.Compress)
}

func (v *validator) validateCompression(path string, c Compression) {
	v.oneOf(path, string(c), string(CompressOff), string(CompressBest), string(CompressZlib), string(CompressZstd))
}

// completeEndpoint adds the usual port where there is none.
func completeEndpoint(endpoint string) (string, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port, err = net.SplitHostPort(endpoint + ":3306")
	}
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /@") {
		return "", strconv.ErrSyntax
	}
	return net.JoinHostPort(host, port), nil
}

func (v *validator) validateAccounts(path string, s *Server) {
	if s.User == "" {
		v.problem(path+".user", "name the account", "is missing")
	}
	v.validatePassword(path, s.Account)
	if s.Reader == nil || s.Reader.User == "" {
		if r := s.Reader; r != nil && (!r.Secret.IsZero() || r.PasswordFile != "") {
			v.problem(path+".reader.user", "name the account, or leave reader out", "is missing beside a password")
		}
		s.Reader = &s.Account
		return
	}
	v.validatePassword(path+".reader", *s.Reader)
}

func (v *validator) validatePassword(path string, a Account) {
	direct := v.set[path+".password"]
	switch {
	case direct && a.PasswordFile != "":
		v.problem(path+".password_file", "keep one of them", "is there beside password")
	case a.PasswordFile != "":
		if _, err := a.Password(); err != nil {
			v.problem(path+".password_file", "put the password alone into that file", "%v", err)
		}
	case !direct:
		v.problem(path+".password", `set password or password_file (password: "" for an account without one)`, "is missing")
	}
}

func (v *validator) validateTLS(path string, t TLS) {
	v.oneOf(path+".mode", string(t.Mode), string(TLSDisabled), string(TLSPreferred), string(TLSRequired),
		string(TLSVerifyCA), string(TLSVerifyFull))
	if t.CA != "" && t.Mode != TLSVerifyCA && t.Mode != TLSVerifyFull {
		v.problem(path+".ca", "set mode to verify-ca or verify-full, or remove ca", "is not looked at in mode %s", t.Mode)
	}
	v.validateKeyPair(path, t.Cert, t.Key)
	v.readable(path+".ca", t.CA)
}

func (v *validator) validateKeyPair(path, cert, key string) {
	if (cert == "") != (key == "") {
		v.problem(path, "set both or neither", "cert and key go together")
	}
	v.readable(path+".cert", cert)
	v.readable(path+".key", key)
}

func (v *validator) readable(path, file string) {
	if file == "" {
		return
	}
	if _, err := os.ReadFile(file); err != nil {
		v.problem(path, "name a PEM file that replicator may read", "%v", err)
	}
}

// validateLinks also resolves links: mesh.
func (v *validator) validateLinks() {
	if !v.set["links"] {
		v.Links = nil
		for _, from := range v.Servers {
			for _, to := range v.Servers {
				if from != to {
					v.Links = append(v.Links, Link{from.Name, to.Name})
				}
			}
		}
		return
	}
	if len(v.Links) == 0 {
		v.problem("links", "write mesh, or list at least one link", "the list is empty")
	}
	seen := map[Link]int{}
	for i, l := range v.Links {
		path := fmt.Sprintf("links[%d]", i)
		v.known(path+".from", l.From)
		v.known(path+".to", l.To)
		if l.From == l.To && l.From != "" {
			v.problem(path, "name two servers", "a link from %s to itself", l.From)
		}
		if first, twice := seen[l]; twice {
			v.problem(path, "keep one of them", "is the same as links[%d]", first)
			continue
		}
		seen[l] = i
	}
}

func (v *validator) known(path, server string) {
	if v.Server(server) != nil {
		return
	}
	names := make([]string, len(v.Servers))
	for i, s := range v.Servers {
		names[i] = s.Name
	}
	if server == "" {
		v.problem(path, "name one of "+strings.Join(names, ", "), "is missing")
		return
	}
	v.problem(path, "name one of "+strings.Join(names, ", "), "there is no server %q", server)
}

func (v *validator) validateTables() {
	v.Tables.include = v.patterns("tables.include", v.Tables.Include)
	v.Tables.exclude = v.patterns("tables.exclude", v.Tables.Exclude)
	if len(v.Tables.Include) == 0 {
		v.problem("tables.include", `write ["*.*"] for every table, or leave include out`, "the list is empty")
	}
	for i := range v.Tables.Rules {
		r := &v.Tables.Rules[i]
		path := fmt.Sprintf("tables.rules[%d].match", i)
		if r.Match == "" {
			v.problem(path, "name the tables", "is missing")
			continue
		}
		if compiled := v.patterns(path, []string{r.Match}); len(compiled) == 1 {
			r.pattern = compiled[0]
		}
	}
}

func (v *validator) patterns(path string, texts []string) []pattern {
	var compiled []pattern
	for i, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			at := path
			if !strings.HasSuffix(path, ".match") {
				at = fmt.Sprintf("%s[%d]", path, i)
			}
			v.problem(at, err.Error(), "%q is not a table pattern", text)
			continue
		}
		compiled = append(compiled, p)
	}
	return compiled
}

func (v *validator) validateHTTP() {
	h := v.HTTP
	v.validateKeyPair("http.tls", h.TLS.Cert, h.TLS.Key)
	if !h.PasswordHash.IsZero() {
		if _, err := bcrypt.Cost([]byte(h.PasswordHash.text)); err != nil {
			v.problem("http.password_hash", "make one with: htpasswd -nbBC 10 USER PASSWORD (the part after the colon)",
				"is not a bcrypt hash")
		}
	}
	if (h.Username == "") != h.PasswordHash.IsZero() {
		v.problem("http.username", "set username and password_hash together", "username and password_hash go together")
	}
	if h.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(h.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.problem("http.listen", `write host:port, or "" to switch it off`, "%q is not an address", h.Listen)
		return
	}
	if !isLoopback(host) && (h.Username == "" || h.PasswordHash.IsZero()) {
		v.problem("http.listen", "set http.username and http.password_hash, or listen on 127.0.0.1",
			"%s can be reached from other machines and asks for no password", h.Listen)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// mostWorkers keeps the markers that groups under way hold and write well among those that are never trimmed.
const mostWorkers = 64

func (v *validator) validateLimits() {
	atLeast := func(path string, value, least int64) {
		if value < least {
			v.problem(path, fmt.Sprintf("set it to %d or more", least), "%d is too small", value)
		}
	}
	between := func(path string, value, least, most time.Duration) {
		if value < least || value > most {
			v.problem(path, fmt.Sprintf("set it between %s and %s", least, most), "%s is out of range", value)
		}
	}
	atLeast("conflict.index_limit", int64(v.Conflict.IndexLimit), 1000)
	atLeast("apply.workers", int64(v.Apply.Workers), 1)
	if v.Apply.Workers > mostWorkers {
		v.problem("apply.workers", fmt.Sprintf("set it to %d or less", mostWorkers), "%d is too large", v.Apply.Workers)
	}
	atLeast("apply.group_transactions", int64(v.Apply.GroupTransactions), 1)
	atLeast("apply.group_rows", int64(v.Apply.GroupRows), 1)
	atLeast("apply.group_bytes", int64(v.Apply.GroupBytes), 1024)
	between("apply.group_time", v.Apply.GroupTime, time.Millisecond, time.Minute)
	between("journal.keep", v.Journal.Keep, time.Minute, 100*365*24*time.Hour)
	atLeast("journal.max_rows", v.Journal.MaxRows, 1)
	atLeast("journal.max_value", int64(v.Journal.MaxValue), 64)
	between("conflict.max_clock_skew", v.Conflict.MaxClockSkew, 10*time.Millisecond, 24*time.Hour)
	between("http.max_lag", v.HTTP.MaxLag, time.Second, 365*24*time.Hour)
	if v.Verify.Every != 0 {
		between("verify.every", v.Verify.Every, time.Second, 365*24*time.Hour)
	}
	between("lease.ttl", v.Lease.TTL, 2*time.Second, time.Hour)
	if v.Apply.GroupBytes > 1<<30 {
		v.problem("apply.group_bytes", "set it to 1GiB or less", "%d is too large", v.Apply.GroupBytes)
	}
}

package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"replicator/config"
	"replicator/mesh"
)

const password = "correct horse"

func open() config.HTTP { return config.HTTP{Listen: "127.0.0.1:0", MaxLag: 30 * time.Second} }

func guarded(t *testing.T) config.HTTP {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	cfg := open()
	cfg.Username, cfg.PasswordHash = "ops", config.NewSecret(string(hash))
	return cfg
}

func serve(t *testing.T, cfg config.HTTP, m Mesh) string {
	t.Helper()
	h, err := Handler(cfg, m, sums)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s.URL
}

func request(t *testing.T, method, address string, change ...func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

func account(user, pass string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, pass) }
}

// Profiles are there when they are configured, and only for those who may see the rest.
func TestProfiles(t *testing.T) {
	cfg := open()
	cfg.Pprof = true
	base := serve(t, cfg, &steady{status: troubled()})
	for path, want := range map[string]string{
		"": "goroutine", "heap": "", "goroutine?debug=1": "goroutine profile:", "profile?seconds=1": "", "trace?seconds=1": "go 1.",
	} {
		code, _, body := request(t, http.MethodGet, base+"/debug/pprof/"+path)
		if code != http.StatusOK || body == "" || !strings.Contains(body, want) {
			t.Errorf("%q: %d, %d bytes, want %q in it", path, code, len(body), want)
		}
	}
	if code, _, _ := request(t, http.MethodPost, base+"/debug/pprof/profile"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	cfg = guarded(t)
	cfg.Pprof = true
	if code, _, _ := request(t, http.MethodGet, serve(t, cfg, &steady{status: troubled()})+"/debug/pprof/heap"); code != http.StatusUnauthorized {
		t.Errorf("without the account: %d", code)
	}
}

func TestPagesOfThisAndLaterVersions(t *testing.T) {
	base := serve(t, open(), &steady{status: troubled()})
	for _, c := range []struct {
		method, path string
		code         int
		message      string
	}{
		{"GET", "/healthz", 200, ""},
		{"HEAD", "/healthz", 200, ""},
		{"GET", "/metrics", 200, ""},
		{"GET", "/api/v1/status", 200, ""},
		{"GET", "/readyz", 503, ""},
		{"POST", "/readyz", 405, "POST is not for /readyz"},
		{"GET", "/api/v1/links/east/west/resume", 405, "GET is not for /api/v1/links/east/west/resume"},
		{"POST", "/api/v1/links/east/nowhere/resume", 404, `there is no link from "east" to "nowhere"`},
		{"POST", "/api/v1/links/fenced/west/resume", 409, "another process applies to west"},
		{"GET", "/", 501, "/ is not in this version"},
		{"GET", "/api/v1/conflicts?limit=0", 400, "limit must be between 1 and 10000"},
		{"GET", "/api/v1/conflicts?state=lost", 400, "state must be open, acknowledged or restored"},
		{"GET", "/api/v1/conflicts?frob=1", 400, "there is no filter frob"},
		{"GET", "/api/v1/conflicts/nope", 404, `"nope" is no conflict's id`},
		{"GET", "/api/v1/conflicts/ab12", 404, "there is no conflict ab12"},
		{"GET", "/api/v1/conflicts/ab12/restore", 405, "GET is not for /api/v1/conflicts/ab12/restore"},
		{"POST", "/api/v1/conflicts/ab12/restore", 404, "there is no conflict ab12"},
		{"GET", "/api/v1/feed/east/shop/stock?since=1", 501, "/api/v1/feed/east/shop/stock is not in this version"},
		{"GET", "/debug/pprof/", 404, "there is no /debug/pprof/"},
		{"GET", "/nowhere", 404, "there is no /nowhere"},
	} {
		code, header, body := request(t, c.method, base+c.path)
		if code != c.code {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, code, c.code)
		}
		if header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be cached", c.method, c.path)
		}
		if c.message == "" {
			continue
		}
		var told failure
		if err := json.Unmarshal([]byte(body), &told); err != nil {
			t.Errorf("%s %s: %v in %q", c.method, c.path, err, body)
		}
		if told.Error.Message != c.message || told.Error.Remedy == "" || told.Error.Class == "" {
			t.Errorf("%s %s: %+v, want message %q with class and remedy", c.method, c.path, told.Error, c.message)
		}
	}
}

func TestStatusDocument(t *testing.T) {
	base := serve(t, open(), &steady{status: troubled()})
	_, header, body := request(t, "GET", base+"/api/v1/status")
	if got := header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	golden(t, "status.json", body)

	_, _, body = request(t, "GET", serve(t, open(), &steady{})+"/api/v1/status")
	for _, list := range []string{"processes", "servers", "links", "tables"} {
		if !strings.Contains(body, `"`+list+`": []`) {
			t.Errorf("%s is not an empty list:\n%s", list, body)
		}
	}
}

func TestReadiness(t *testing.T) {
	change := func(f func(*mesh.Status)) mesh.Status {
		s := healthy()
		f(&s)
		return s
	}
	for name, c := range map[string]struct {
		status mesh.Status
		want   []string
	}{
		"running and catching up within the limit": {healthy(), nil},
		"one link in each state": {troubled(), []string{
			"east>west", "east>north", "north>east",
		}},
		"lag at the limit":     {change(func(s *mesh.Status) { s.Links[0].LagSeconds = new(30.0) }), []string{"east>west"}},
		"a running link lags":  {change(func(s *mesh.Status) { s.Links[1].LagSeconds = new(31.0) }), []string{"west>east"}},
		"lag unknown":          {change(func(s *mesh.Status) { s.Links[1].LagSeconds = nil }), []string{"west>east"}},
		"nothing started":      {change(func(s *mesh.Status) { s.Links = nil }), []string{">"}},
		"a server unreachable": {change(func(s *mesh.Status) { s.Servers[0].Reachable = new(false) }), nil},
		"only standby": {change(func(s *mesh.Status) {
			s.Links[0].State, s.Links[1].State = mesh.Standby, mesh.Standby
		}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, body := request(t, "GET", serve(t, open(), &steady{status: c.status})+"/readyz")
			var told Readiness
			if err := json.Unmarshal([]byte(body), &told); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range told.Reasons {
				got = append(got, r.From+">"+r.To)
				if r.Message == "" {
					t.Errorf("no message for %s>%s", r.From, r.To)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("reasons %q, want %q", got, c.want)
			}
			if want := map[bool]int{true: 200, false: 503}[len(c.want) == 0]; code != want || told.Ready != (want == 200) {
				t.Errorf("%d ready=%t, want %d", code, told.Ready, want)
			}
			if told.Reasons == nil {
				t.Error("reasons is null, want a list")
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	base := serve(t, open(), &steady{status: troubled()})
	_, _, body := request(t, "GET", base+"/metrics")
	var own []string
	for line := range strings.Lines(body) {
		if strings.Contains(line, "replicator_") {
			own = append(own, line)
		}
	}
	golden(t, "metrics.txt", strings.Join(own, ""))
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(body, "\n"+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestResume(t *testing.T) {
	m := &steady{status: troubled()}
	base := serve(t, open(), m)
	code, _, body := request(t, "POST", base+"/api/v1/links/east/west/resume")
	if code != http.StatusAccepted || !strings.Contains(body, `"from": "east"`) {
		t.Errorf("%d %s", code, body)
	}
	if !slices.Equal(m.resumed, []string{"east west"}) {
		t.Errorf("resumed %q", m.resumed)
	}
}

func TestForeignPagesCannotResume(t *testing.T) {
	m := &steady{status: troubled()}
	base := serve(t, open(), m)
	code, _, body := request(t, "POST", base+"/api/v1/links/east/west/resume", func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	})
	if code != http.StatusForbidden || !strings.Contains(body, "remedy") {
		t.Errorf("a page of another site: %d %s", code, body)
	}
	code, _, _ = request(t, "GET", base+"/api/v1/status", func(r *http.Request) { r.Host = "attacker.example:8080" })
	if code != http.StatusMisdirectedRequest {
		t.Errorf("another name for 127.0.0.1: %d", code)
	}
	if len(m.resumed) > 0 {
		t.Errorf("resumed %q", m.resumed)
	}
	for _, host := range []string{"localhost", "localhost:8080", "127.0.0.1", "[::1]:8080", "[::1]"} {
		if code, _, _ := request(t, "GET", base+"/api/v1/status", func(r *http.Request) { r.Host = host }); code != 200 {
			t.Errorf("host %s: %d", host, code)
		}
	}
}

func TestAccount(t *testing.T) {
	base := serve(t, guarded(t), &steady{status: healthy()})
	for _, path := range []string{"/readyz", "/metrics", "/api/v1/status", "/", "/nowhere"} {
		for name, with := range map[string][]func(*http.Request){
			"nothing": nil, "wrong password": {account("ops", "x")}, "wrong user": {account("op", password)},
			"empty": {account("", "")}, "zero byte": {account("ops\x00", password)},
		} {
			code, header, _ := request(t, "GET", base+path, with...)
			if code != http.StatusUnauthorized || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s with %s: %d", path, name, code)
			}
		}
	}
	if code, _, _ := request(t, "GET", base+"/healthz"); code != 200 {
		t.Errorf("/healthz without an account: %d", code)
	}
	if code, _, _ := request(t, "GET", base+"/readyz", account("ops", password)); code != 200 {
		t.Errorf("/readyz with the account: %d", code)
	}
	if code, _, _ := request(t, "GET", base+"/readyz", account("ops", "x")); code != 401 {
		t.Errorf("a wrong password after the right one: %d", code)
	}
	_, _, body := request(t, "GET", base+"/metrics", account("ops", password))
	if !strings.Contains(body, "replicator_http_login_failures_total 21\n") {
		t.Errorf("login failures are not counted:\n%s", body)
	}
	code, _, _ := request(t, "GET", base+"/readyz", account("ops", password), func(r *http.Request) { r.Host = "db.example.org" })
	if code != 200 {
		t.Errorf("any host name is served behind a password, got %d", code)
	}
}

// Only one comparison with the hash runs at a time, and what it accepted is not compared with it again.
func TestAcceptedLoginIsNotHashedAgain(t *testing.T) {
	g := newGate(guarded(t))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody)
	if !g.admits(r, "ops", password) {
		t.Fatal("the account is refused")
	}
	g.slow <- struct{}{} // from here on a comparison with the hash would wait
	if !g.admits(r, "ops", password) {
		t.Error("the account is refused the second time")
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if g.admits(r.WithContext(gone), "ops", "x") {
		t.Error("a wrong password is accepted without a look at the hash")
	}
}

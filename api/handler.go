package api

import (
	"bytes"
	"context"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
)

// Handler is everything the server answers. /healthz is open to everybody who can connect; the rest asks for the
// configured account. added names the columns of a table whose changes add up.
func Handler(cfg config.HTTP, m Mesh, added func(change.TableName) []string) (http.Handler, error) {
	h := &handler{mesh: m, added: added, maxLag: cfg.MaxLag.Seconds()}
	g := newGate(cfg)
	metrics, err := metricsHandler(m, g)
	if err != nil {
		return nil, err
	}
	inner := http.NewServeMux()
	inner.Handle("/readyz", only(http.MethodGet, h.ready))
	inner.Handle("/metrics", only(http.MethodGet, metrics.ServeHTTP))
	inner.Handle("/api/v1/status", only(http.MethodGet, h.status))
	inner.Handle("/api/v1/links/{from}/{to}/resume", only(http.MethodPost, h.resume))
	inner.Handle("/api/v1/conflicts", only(http.MethodGet, h.conflicts))
	inner.Handle("/api/v1/conflicts/{id}", only(http.MethodGet, h.conflict))
	inner.Handle("/api/v1/conflicts/{id}/restore", only(http.MethodPost, h.restore))
	for _, later := range []string{"/{$}", "/api/v1/feed/"} {
		inner.HandleFunc(later, notYet)
	}
	if cfg.Pprof {
		for path, profile := range map[string]http.HandlerFunc{"": pprof.Index, "profile": pprof.Profile, "trace": pprof.Trace, "symbol": pprof.Symbol} {
			inner.Handle("/debug/pprof/"+path, only(http.MethodGet, profile))
		}
	}
	inner.HandleFunc("/", notFound)

	outer := http.NewServeMux()
	outer.Handle("/healthz", only(http.MethodGet, h.healthy))
	// A web page of somewhere else must not resume links through an operator's browser.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(foreign))
	outer.Handle("/", g.protect(sameOrigin.Handler(inner)))
	return plain(outer), nil
}

type handler struct {
	mesh   Mesh
	added  func(change.TableName) []string
	maxLag float64 // seconds
}

// healthy says that the process lives and schedules, nothing about its links.
func (h *handler) healthy(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	reasons := NotReady(h.mesh.Status(ctx), h.maxLag)
	code := http.StatusOK
	if len(reasons) > 0 {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, Readiness{Ready: len(reasons) == 0, Reasons: reasons})
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	answer(w, http.StatusOK, Complete(h.mesh.Status(ctx)))
}

func (h *handler) resume(w http.ResponseWriter, r *http.Request) {
	from, to := r.PathValue("from"), r.PathValue("to")
	if err := h.mesh.Resume(from, to); err != nil {
		refuse(w, statusCode(err), describe(err))
		return
	}
	answer(w, http.StatusAccepted, map[string]string{"from": from, "to": to})
}

func notYet(w http.ResponseWriter, r *http.Request) {
	refuse(w, http.StatusNotImplemented, Problem{
		Class: string(fault.Configuration), Message: r.URL.Path + " is not in this version",
		Remedy: "use /healthz, /readyz, /metrics, /api/v1/status or /api/v1/conflicts",
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	refuse(w, http.StatusNotFound, Problem{
		Class: string(fault.Configuration), Message: "there is no " + r.URL.Path,
		Remedy: "use /healthz, /readyz, /metrics, /api/v1/status or /api/v1/conflicts",
	})
}

func foreign(w http.ResponseWriter, r *http.Request) {
	refuse(w, http.StatusForbidden, Problem{
		Class: string(fault.Privilege), Message: "a page of another site asked for " + r.URL.Path,
		Remedy: "use the command line, or a client that is not a browser",
	})
}

// Problem is the error member of an answer other than 2xx.
type Problem struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

// failure is the document around it.
type failure struct {
	Error Problem `json:"error"`
}

func describe(err error) Problem {
	if f, ok := fault.As(err); ok {
		return Problem{Class: string(f.Class), Message: f.Text(), Remedy: f.Remedy}
	}
	return Problem{Class: string(fault.Bug), Message: err.Error(), Remedy: "report it with the log of the process"}
}

func statusCode(err error) int {
	f, ok := fault.As(err)
	switch {
	case !ok:
		return http.StatusInternalServerError
	case f.Class == fault.Configuration:
		return http.StatusNotFound
	default:
		return http.StatusConflict
	}
}

func only(method string, serve http.HandlerFunc) http.Handler {
	allowed := []string{method}
	if method == http.MethodGet {
		allowed = append(allowed, http.MethodHead)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(allowed, r.Method) {
			serve(w, r)
			return
		}
		list := strings.Join(allowed, ", ")
		w.Header().Set("Allow", list)
		refuse(w, http.StatusMethodNotAllowed, Problem{
			Class: string(fault.Configuration), Message: r.Method + " is not for " + r.URL.Path, Remedy: "use " + list,
		})
	})
}

// plain keeps browsers and proxies from guessing at, or keeping, what is true for a moment only.
func plain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, code int, p Problem) { answer(w, code, failure{p}) }

// answer sends one JSON document. It is encoded before the first byte leaves, so that a half document is never sent as a
// whole one.
func answer(w http.ResponseWriter, code int, document any) {
	var body bytes.Buffer
	if err := WriteJSON(&body, document); err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // the client is gone: there is nobody to tell
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicator/config"
	"replicator/fault"
	"replicator/journal"
)

const (
	// UnreachableHeader names the servers, separated by commas, that could not be asked: the answer may lack what they know.
	UnreachableHeader = "Replicator-Unreachable"

	conflictTimeout = 25 * time.Second // below writeTimeout
	conflictLimit   = 100              // where the request names none
	maxConflicts    = 10_000
	maxRequest      = 64 << 10
)

// conflicts lists the journal.
func (h *handler) conflicts(w http.ResponseWriter, r *http.Request) {
	servers := h.mesh.Journals()
	f, err := filterOf(r.URL.Query(), time.Now(), journal.Names(servers))
	if err != nil {
		badRequest(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), conflictTimeout)
	defer cancel()
	records, failed := journal.List(ctx, servers, f)
	if len(failed) == len(servers) && len(servers) > 0 {
		refuse(w, http.StatusBadGateway, describe(failed[0].Err))
		return
	}
	unreachable(w, failed)
	answer(w, http.StatusOK, journal.Documents(records, servers, failed))
}

// conflict shows one with its rows.
func (h *handler) conflict(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), conflictTimeout)
	defer cancel()
	servers := h.mesh.Journals()
	record, failed, err := journal.Show(ctx, servers, r.PathValue("id"))
	if err != nil {
		refuse(w, statusCode(err), describe(err))
		return
	}
	unreachable(w, failed)
	answer(w, http.StatusOK, record.Shown(servers, failed))
}

// restoreRequest is the body of a restore; none is the zero value.
type restoreRequest struct {
	On      string   `json:"on"`
	Columns []string `json:"columns"`
	DryRun  bool     `json:"dry_run"`
}

func (h *handler) restore(w http.ResponseWriter, r *http.Request) {
	var options restoreRequest
	if err := readBody(w, r, &options); err != nil {
		badRequest(w, err)
		return
	}
	if options.Columns != nil && len(options.Columns) == 0 {
		badRequest(w, errors.New("columns names no column; leave it out to restore all that was lost"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), conflictTimeout)
	defer cancel()
	servers := h.mesh.Journals()
	record, _, err := journal.Show(ctx, servers, r.PathValue("id"))
	if err != nil {
		refuse(w, statusCode(err), describe(err))
		return
	}
	done, err := journal.Restore(ctx, servers, record, journal.RestoreOptions{
		On: options.On, Columns: options.Columns, Added: h.added(record.Table), DryRun: options.DryRun,
	})
	if err != nil {
		refuse(w, statusCode(err), describe(err))
		return
	}
	unreachable(w, done.Failed)
	answer(w, http.StatusOK, done.Document(record))
}

func unreachable(w http.ResponseWriter, failed []journal.Failure) {
	var names []string
	for _, f := range failed {
		names = append(names, f.Server)
	}
	if len(names) > 0 {
		w.Header().Set(UnreachableHeader, strings.Join(names, ", "))
	}
}

func badRequest(w http.ResponseWriter, err error) {
	p := Problem{Class: string(fault.Configuration), Message: err.Error(), Remedy: "correct the request; see docs/conflicts.md"}
	if f, ok := fault.As(err); ok {
		p.Message, p.Remedy = f.Text(), f.Remedy
	}
	refuse(w, http.StatusBadRequest, p)
}

// readBody reads a JSON body, if there is one. Other types of content are refused: a form of a web page cannot send JSON.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return errors.New("the body must be application/json")
	}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the body must be one JSON document, and nothing behind it")
	}
	return nil
}

// filterOf reads the query of a list of conflicts: table, server, since, until, state and limit.
func filterOf(query url.Values, now time.Time, servers []string) (journal.Filter, error) {
	f := journal.Filter{Limit: conflictLimit}
	for name, values := range query {
		if len(values) != 1 {
			return f, errors.New(name + " is given more than once")
		}
		var err error
		switch value := values[0]; name {
		case "table":
			f.Table, err = ParseTables(value)
		case "server":
			f.Server = value
		case "since":
			f.Since, err = ParseMoment(value, now)
		case "until":
			f.Until, err = ParseMoment(value, now)
		case "state":
			f.State = value
		case "limit":
			f.Limit, err = strconv.Atoi(value)
			if err != nil || f.Limit < 1 || f.Limit > maxConflicts {
				err = errors.New("limit must be between 1 and " + strconv.Itoa(maxConflicts))
			}
		default:
			err = errors.New("there is no filter " + name)
		}
		if err != nil {
			return f, err
		}
	}
	if err := CheckServer(f, servers); err != nil {
		return f, err
	}
	return f, CheckFilter(f)
}

// ParseTables reads a pattern of tables, as the configuration has them.
func ParseTables(text string) (config.Pattern, error) {
	p, err := config.ParsePattern(text)
	if err != nil {
		return p, fmt.Errorf("%q is no pattern of tables: %w", text, err)
	}
	return p, nil
}

// CheckServer refuses a filter by a server that the mesh does not have.
func CheckServer(f journal.Filter, servers []string) error {
	if f.Server != "" && !slices.Contains(servers, f.Server) {
		return journal.UnknownServer(f.Server, servers)
	}
	return nil
}

// CheckFilter refuses a filter that would find nothing because it is misspelt.
func CheckFilter(f journal.Filter) error {
	if f.State != "" && !slices.Contains([]string{journal.Open, journal.Acknowledged, journal.Restored}, f.State) {
		return errors.New("state must be open, acknowledged or restored")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Until.After(f.Since) {
		return errors.New("until must be later than since: nothing lies between them (of two ages the longer one is since: 2h, until 1h)")
	}
	if f.Limit < 0 {
		return errors.New("limit must be 0 (all) or more")
	}
	return nil
}

// ParseMoment reads a point in time: RFC 3339, a date (in UTC), or how long ago it was ("90m", "24h", "7d").
func ParseMoment(text string, now time.Time) (time.Time, error) {
	for _, format := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.Parse(format, text); err == nil {
			return t, nil
		}
	}
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, errors.New(text + " is no time: write 2026-01-31T10:00:00Z, 2026-01-31, or how long ago: 90m, 24h, 7d")
}

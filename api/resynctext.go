package api

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"

	"replicator/mesh"
)

// ResyncDocument is a resync job as JSON.
type ResyncDocument struct {
	Table    string          `json:"table"`
	From     string          `json:"from"`
	To       string          `json:"to"`
	Where    string          `json:"where"`
	State    string          `json:"state"`      // waiting, running, done, failed or cancelled
	Note     *string         `json:"note"`       // what it waits for, or why it failed
	Total    *string         `json:"rows_total"` // about
	Compared string          `json:"rows_compared"`
	Inserted string          `json:"rows_inserted"`
	Updated  string          `json:"rows_updated"`
	Deleted  string          `json:"rows_deleted"`
	Newer    string          `json:"rows_newer"`  // a later change decides about them
	Moving   string          `json:"rows_moving"` // differ, and never stood still
	Asked    mesh.Timestamp  `json:"asked_at"`
	Started  *mesh.Timestamp `json:"started_at"`
	Ended    *mesh.Timestamp `json:"ended_at"`
}

// ResyncDocuments makes the JSON of jobs.
func ResyncDocuments(jobs []mesh.Resync) []ResyncDocument {
	all := []ResyncDocument{}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	moment := func(t time.Time) *mesh.Timestamp {
		if t.IsZero() {
			return nil
		}
		return new(mesh.Timestamp(t))
	}
	for _, j := range jobs {
		d := ResyncDocument{
			Table: j.Table.String(), From: j.From, To: j.To, Where: j.Where, State: string(j.State),
			Compared: number(j.Compared), Inserted: number(j.Inserted), Updated: number(j.Updated), Deleted: number(j.Deleted),
			Newer: number(j.Newer), Moving: number(j.Moving),
			Asked: mesh.Timestamp(j.Asked), Started: moment(j.Started), Ended: moment(j.Ended),
		}
		if j.Note != "" {
			d.Note = &j.Note
		}
		if j.Total > 0 {
			d.Total = new(number(j.Total))
		}
		all = append(all, d)
	}
	return all
}

// WriteResyncs writes jobs for people.
func WriteResyncs(w io.Writer, jobs []mesh.Resync) error {
	var out bytes.Buffer
	rows := make([][]string, len(jobs))
	for i, j := range jobs {
		rows[i] = []string{j.Table.String(), j.From, j.To, string(j.State)}
		for _, n := range []int64{j.Compared, j.Inserted, j.Updated, j.Deleted, j.Newer} {
			rows[i] = append(rows[i], strconv.FormatInt(n, 10))
		}
	}
	table(&out, "TABLE|FROM|TO|STATE|COMPARED|INSERTED|UPDATED|DELETED|NEWER", rows)
	for _, j := range jobs {
		if j.Note != "" {
			fmt.Fprintf(&out, "\n%s, %s to %s: %s\n", clean(j.Table.String()), j.From, j.To, clean(j.Note))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

package api

import (
	"fmt"
	"strings"
	"testing"

	"replicator/mesh"
)

func TestStatusForPeople(t *testing.T) {
	many := healthy()
	for i := range maxReplayTables + 5 {
		many.Tables = append(many.Tables,
			mesh.TableStatus{Table: fmt.Sprintf("shop.t%02d", i), From: "east", To: "west", Path: "replay"},
			mesh.TableStatus{Table: fmt.Sprintf("shop.t%02d", i), From: "west", To: "east", Path: "replay"})
	}
	fromTables := troubled()
	fromTables.Source, fromTables.Processes = "tables", nil
	for name, s := range map[string]mesh.Status{
		"troubled.txt": troubled(), "healthy.txt": healthy(), "many-tables.txt": many, "from-tables.txt": fromTables,
		"nothing-known.txt": {
			Mesh: "shop", Time: at(0), Source: "tables", Servers: []mesh.ServerStatus{{Name: "east", Endpoint: "db:3306"}},
			Links: []mesh.LinkStatus{{From: "east", To: "west", State: mesh.Starting}, {From: "west", To: "east"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := WriteText(&out, s); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(out.String(), "\x1b\t\r") {
				t.Error("control characters of a server reach the terminal")
			}
			golden(t, name, out.String())
		})
	}
}

func TestUnhealthy(t *testing.T) {
	if got := Unhealthy(healthy()); len(got) != 0 {
		t.Errorf("a healthy mesh is called unhealthy: %v", got)
	}
	var got []string
	for _, r := range Unhealthy(troubled()) {
		got = append(got, fmt.Sprintf("%s>%s %s", r.From, r.To, r.State))
	}
	want := []string{">north ", "east>west stopped", "east>north retrying", "north>east starting", "west>north standby"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	nobody := healthy()
	nobody.Links = nil
	if len(Unhealthy(nobody)) == 0 {
		t.Error("a mesh without any link is called healthy")
	}
}

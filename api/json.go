package api

import (
	"encoding/json"
	"fmt"
	"io"

	"replicator/mesh"
)

// WriteJSON writes one indented document and a line end, as the HTTP server and the command line's --json print it.
func WriteJSON(w io.Writer, document any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// Complete makes the lists that are empty lists: null would mean that they are not known.
func Complete(s mesh.Status) mesh.Status {
	s.Processes = list(s.Processes)
	s.Servers = list(s.Servers)
	s.Links = list(s.Links)
	s.Tables = list(s.Tables)
	return s
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

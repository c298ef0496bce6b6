package clone

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"replicator/server"
)

// deferBytes is how large a table is whose secondary keys are made after its rows: at once, and sorted, instead of row by row
// in the order of another key.
const deferBytes = 32 << 20

func (o *Options) deferBytes() int64 { return cmp.Or(o.large, deferBytes) }

// automatic finds the AUTO_INCREMENT column, which must have its key from the beginning.
var automatic = regexp.MustCompile("(?m)^  (`(?:[^`]|``)+`) .* AUTO_INCREMENT")

// splitKeys takes those keys out of a definition that can be added later: no unique ones, and none where a foreign key may need
// them.
func splitKeys(create string) (bare string, keys []string) {
	lines := strings.Split(create, "\n")
	if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  CONSTRAINT ") }) {
		return create, nil
	}
	column := "\n"
	if m := automatic.FindStringSubmatch(create); m != nil {
		column = m[1]
	}
	var kept []string
	for _, line := range lines {
		if strings.HasPrefix(line, "  KEY `") && !strings.Contains(line, column) {
			keys = append(keys, strings.TrimSuffix(strings.TrimSpace(line), ","))
			continue
		}
		if strings.HasPrefix(line, ")") && len(kept) > 0 {
			kept[len(kept)-1] = strings.TrimSuffix(kept[len(kept)-1], ",")
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n"), keys
}

// missingKeys are the keys that a table does not have, nil unless that is all that it differs in from another one. The order of
// keys does not count.
func missingKeys(source, target string) (keys []string, alike bool) {
	bareSource, of := splitKeys(source)
	bareTarget, there := splitKeys(target)
	if bareSource != bareTarget || slices.ContainsFunc(there, func(k string) bool { return !slices.Contains(of, k) }) {
		return nil, false
	}
	return slices.DeleteFunc(of, func(k string) bool { return slices.Contains(there, k) }), true
}

// addKeys makes the keys of a table whose rows are there.
func (w *worker) addKeys(ctx context.Context, j *job) error {
	if len(j.keys) == 0 {
		return nil
	}
	if err := execAll(ctx, w.to.conn, "ALTER TABLE "+quoted(j.name)+" ADD "+strings.Join(j.keys, ", ADD ")); err != nil {
		return server.Fault(err, fmt.Sprintf("make the keys of table %s on %s", j.name, w.Target.Name))
	}
	return nil
}

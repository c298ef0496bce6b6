package sandbox

import "path/filepath"

// Sweep is what the first server of a process does.
func Sweep() {
	if run, err := runFolder(); err == nil {
		sweep(filepath.Dir(run))
	}
}

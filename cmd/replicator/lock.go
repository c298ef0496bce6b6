package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"replicator/fault"
)

// lockStateDir keeps a second process out of the directory: it would empty what the first one has spilled there. The
// system gives the lock back when the file is closed or the process ends, however it ends.
func lockStateDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "make state_dir writable, or name another", "lock the state directory")
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fault.New(fault.Busy, "stop the other process, or give each a state_dir and an http.listen of its own",
			"another process uses the state directory %s", dir)
	default:
		err = fault.Wrap(err, fault.Configuration, "put state_dir on a local disk", "lock the state directory")
	}
	return nil, errors.Join(err, file.Close())
}

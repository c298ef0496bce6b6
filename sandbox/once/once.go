// Package once makes folders that are expensive to make, once for all processes of a machine.
package once

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Dir makes the folder path unless it is there: build fills an empty folder, which then takes its name, so that path is
// whole or absent at any instant. Callers in other processes wait for the one that builds.
func Dir(ctx context.Context, path string, build func(dir string) error) error {
	if exists(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	lock, err := Lock(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	defer lock.Close()
	if exists(path) {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := build(work); err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	if err := errors.Join(os.Chmod(work, 0o755), os.Rename(work, path)); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Lock takes an exclusive lock on a file, and waits for whoever has it. Closing the file, or the end of the process,
// releases it.
func Lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	var refused error
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		refused = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}()
	select {
	case <-answered:
		if refused != nil {
			return nil, errors.Join(refused, f.Close())
		}
		return f, nil
	case <-ctx.Done():
		go func() { // the lock may come yet: closing the file gives it back
			<-answered
			f.Close()
		}()
		return nil, ctx.Err()
	}
}

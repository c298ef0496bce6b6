package once_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"replicator/sandbox/once"
)

func TestDirIsBuiltOnceByManyCallers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made")
	var builds atomic.Int32
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			err := once.Dir(t.Context(), path, func(dir string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
			})
			if err == nil {
				_, err = os.Stat(filepath.Join(path, "f"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made")
	broken := errors.New("broken")
	if err := once.Dir(t.Context(), path, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("%v after a failed build", err)
	}
	if err := once.Dir(t.Context(), path, func(string) error { return nil }); err != nil {
		t.Fatalf("build after a failed one: %v", err)
	}
}

func TestLockWaitsAndGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := once.Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := once.Lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("second lock: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := once.Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"replicator/sandbox/once"
)

// maxSocketDir keeps the path of a server's socket within the 107 bytes that the kernel takes.
const maxSocketDir = 60

// held are files whose locks last as long as this process.
var held []*os.File

// runFolder is this process's folder for its servers' data. It holds a lock on it for as long as it lives, by which later
// processes tell leftovers of a killed one.
var runFolder = sync.OnceValues(func() (string, error) {
	base := filepath.Join(tempDir(), "replicator-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("make folder for servers: %w", err)
	}
	sweep(base)
	dir, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return "", fmt.Errorf("make folder for servers: %w", err)
	}
	lock, err := once.Lock(context.Background(), dir+"/lock")
	if err != nil {
		return "", fmt.Errorf("lock folder for servers: %w", err)
	}
	// A folder whose lock file is empty is just being made, and is never swept.
	if _, err := fmt.Fprintln(lock, os.Getpid()); err != nil {
		return "", fmt.Errorf("lock folder for servers: %w", err)
	}
	held = append(held, lock)
	return dir, nil
})

func tempDir() string {
	if dir := os.TempDir(); len(dir) <= maxSocketDir {
		return dir
	}
	return "/tmp"
}

// sweep removes the folders of processes that are gone.
func sweep(base string) {
	runs, err := filepath.Glob(filepath.Join(base, "run-*"))
	if err != nil {
		return
	}
	for _, dir := range runs {
		f, err := hold(dir + "/lock")
		if err != nil {
			continue // its process lives, or is just making it
		}
		if info, err := f.Stat(); err == nil && info.Size() > 0 {
			os.RemoveAll(dir)
		}
		f.Close()
	}
}

// hold locks a file without waiting. The lock lasts until the file is closed.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// port is a TCP port that this process keeps for one server, over restarts.
type port struct {
	number int
	lock   *os.File
}

// reservePort picks a free port below the range from which the kernel takes ports for outgoing connections, so that none
// of those can take it while its server is down.
func reservePort(ctx context.Context) (*port, error) {
	base := filepath.Join(tempDir(), "replicator-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	const low, high = 11000, 32000
	for range 1000 {
		n := low + rand.IntN(high-low)
		lock, err := hold(filepath.Join(base, "port-"+strconv.Itoa(n)))
		if err != nil {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(n))
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			return &port{number: n, lock: lock}, nil
		}
		lock.Close()
	}
	return nil, errors.New("reserve port: none is free")
}

// AddressTest reserves a free address on 127.0.0.1 for a program that a test starts, or starts again and again.
func AddressTest(tb testing.TB) string {
	tb.Helper()
	p, err := reservePort(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.release(); err != nil {
			tb.Error(err)
		}
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number))
}

func (p *port) release() error {
	return errors.Join(os.Remove(p.lock.Name()), p.lock.Close())
}

// serverFolder makes a folder for one server.
func serverFolder(name string) (string, error) {
	run, err := runFolder()
	if err != nil {
		return "", err
	}
	keep := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}
	name = strings.Map(keep, strings.ToLower(name))
	return os.MkdirTemp(run, name[:min(len(name), 12)]+"-")
}

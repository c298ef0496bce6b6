package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"replicator/sandbox/once"
)

// template returns a data directory with system tables and a root account without a password, made once per server
// program and user, to be copied for every server.
func (i installation) template(ctx context.Context) (string, error) {
	home, err := writableHome()
	if err != nil {
		return "", err
	}
	stamp, err := i.stamp()
	if err != nil {
		return "", fmt.Errorf("prepare data of %s: %w", i.flavor, err)
	}
	dir := filepath.Join(home, "data", fmt.Sprintf("%s-%d-%s", i.flavor, os.Getuid(), stamp))
	err = once.Dir(ctx, dir, func(work string) error { return i.initialise(ctx, work) })
	if err != nil {
		return "", fmt.Errorf("prepare data of %s: %w", i.flavor, err)
	}
	return dir, nil
}

// stamp changes with the server program, so that an upgraded server gets data of its own, and with what initialise makes.
func (i installation) stamp() (string, error) {
	path := i.program
	if i.tree != nil {
		path = i.tree.Path(path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "1 %s %d %d", path, info.Size(), info.ModTime().UnixNano())
	return fmt.Sprintf("%016x", h.Sum64()), nil
}

func (i installation) initialise(ctx context.Context, dir string) error {
	if i.flavor.MariaDB() {
		return i.initialiseMariaDB(ctx, dir)
	}
	args := append(i.base(), "--initialize-insecure", "--datadir="+dir, "--innodb-redo-log-capacity=8M", "--skip-log-bin",
		"--log-error-verbosity=1")
	return i.finish(ctx, nil, args)
}

// initialiseMariaDB does what the server's own script mariadb-install-db does, which cannot run inside a tree. Lines about
// the machine's name are left out, so that root is known on the loopback address only.
func (i installation) initialiseMariaDB(ctx context.Context, dir string) error {
	var sql bytes.Buffer
	sql.WriteString("CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")
	for _, name := range bootstrapScripts(i.share()) {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "@current_hostname") {
				sql.WriteString(line)
			}
		}
	}
	if err := writeCertificate(dir); err != nil {
		return err
	}
	args := append(i.base(), "--bootstrap", "--datadir="+dir, "--log-warnings=0", "--enforce-storage-engine=",
		"--max-allowed-packet=8M", "--net-buffer-length=16K", "--innodb-log-file-size=8M", "--skip-log-bin")
	return i.finish(ctx, &sql, args)
}

func (i installation) finish(ctx context.Context, stdin io.Reader, args []string) error {
	cmd := i.command(ctx, args...)
	var log bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &log, &log
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	if err := p.wait(); err != nil {
		return fmt.Errorf("%w:\n%s", err, tail(log.Bytes()))
	}
	return nil
}

// copyData copies a template for a new server. auto.cnf stays behind: it holds the server's identity.
func copyData(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(to, rel); {
		case entry.IsDir():
			return os.MkdirAll(target, 0o750)
		case entry.Name() == "auto.cnf" || !entry.Type().IsRegular():
			return nil
		default:
			return copyFile(path, target)
		}
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// tail keeps the end of a server's log, where its reason to stop is.
func tail(log []byte) string {
	const lines = 30
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

package debian

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"replicator/fault"
)

const (
	defaultMirror  = "http://deb.debian.org/debian"
	defaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// mirror returns the Debian mirror that the machine's own list of sources (the folder etc, normally /etc/apt) names, or
// Debian's default one.
func mirror(etc fs.FS) string {
	files := []string{"sources.list"}
	for _, pattern := range []string{"sources.list.d/*.sources", "sources.list.d/*.list"} {
		if found, err := fs.Glob(etc, pattern); err == nil {
			files = append(files, found...)
		}
	}
	for _, name := range files {
		text, err := fs.ReadFile(etc, name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if m := mirrorOf(line); m != "" {
				return m
			}
		}
	}
	return defaultMirror
}

// mirrorOf finds the address of a Debian archive in a line of either format: "deb [options] URI suite main" or "URIs: URI".
func mirrorOf(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "deb" && !strings.EqualFold(fields[0], "URIs:") {
		return ""
	}
	for _, f := range fields[1:] {
		u, err := url.Parse(f)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		if strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/debian") {
			return strings.TrimSuffix(f, "/")
		}
	}
	return ""
}

// machineProxies returns the machine's settings of how to reach a mirror, in apt's format.
func machineProxies(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Acquire::http::") || strings.HasPrefix(line, "Acquire::https::") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// keyring returns Debian's keys: the machine's, or, on a machine that is not Debian but knows the package, those of the
// package debian-archive-keyring, which its own apt fetches and checks.
func keyring(ctx context.Context, dir string) (string, error) {
	if _, err := os.Stat(defaultKeyring); err == nil {
		return defaultKeyring, nil
	}
	work := filepath.Join(dir, "keyring")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "download", "debian-archive-keyring")
	cmd.Dir = work
	out, err := cmd.CombinedOutput()
	if err == nil {
		packages, _ := filepath.Glob(filepath.Join(work, "*.deb")) // the pattern is well-formed
		err = errors.New("the package is not there")
		if len(packages) == 1 {
			err = unpack(ctx, packages[0], work)
		}
	}
	if err == nil {
		return filepath.Join(work, defaultKeyring), nil
	}
	return "", fault.Wrap(err, fault.Precondition, "install the package debian-archive-keyring",
		"%s is missing, without which Debian's signatures cannot be checked (%s)", defaultKeyring, complaint(out))
}

package sandbox

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/moby/client"

	"replicator/sandbox/debian"
)

// entrypoint does what the public images' entrypoints do, as far as this project uses it.
//
//go:embed entrypoint.sh
var entrypoint []byte

// imageTools are the packages that a server image needs besides the server: a shell for the entrypoint and health checks.
var imageTools = []string{"bash", "coreutils", "grep", "sed", "hostname"}

var clientPackages = map[Flavor]string{
	MySQL97:     "mysql-client-core",
	MariaDB118:  "mariadb-client-core",
	MariaDB1011: "mariadb-client-core",
}

// standInVersion changes when what is built does.
func standInVersion() string {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, string(entrypoint), imageTools, clientPackages, slices.Sorted(maps.Keys(additions())))
	return fmt.Sprintf("%08x", h.Sum32())
}

// buildStandIn makes a server image from Debian's packages.
func buildStandIn(ctx context.Context, engine *client.Client, f Flavor, name string) error {
	s := selections[f]
	s.Packages = append(append([]string{clientPackages[f]}, imageTools...), s.Packages...)
	tree, err := treeOf(ctx, "image-"+string(f), s)
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(packTree(writer, tree)) }()
	defer reader.Close()
	result, err := engine.ImageImport(ctx, client.ImageImportSource{Source: reader, SourceName: "-"}, name, client.ImageImportOptions{
		Changes: []string{
			"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"ENTRYPOINT [\"docker-entrypoint.sh\"]",
			"CMD [\"mysqld\"]",
			"EXPOSE 3306",
			"VOLUME /var/lib/mysql",
		},
	})
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	defer result.Close()
	answer, err := io.ReadAll(result)
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	if _, err := engine.ImageInspect(ctx, name); err != nil {
		return fmt.Errorf("import image %s: %w: %s", name, err, bytes.TrimSpace(answer))
	}
	return nil
}

// additions are what an image has besides its packages' files: what their scripts would have made, and the entrypoint.
func additions() map[string]*addition {
	dir := func() *addition { return &addition{tar.Header{Typeflag: tar.TypeDir, Mode: 0o1777}, nil} }
	file := func(mode int64, text string) *addition {
		return &addition{tar.Header{Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(text))}, []byte(text)}
	}
	return map[string]*addition{
		"tmp":                                dir(),
		"run":                                dir(),
		"var/lib/mysql":                      dir(),
		"docker-entrypoint-initdb.d":         dir(),
		"var/lib/mysql-files":                dir(), // where MySQL's secure_file_priv points
		"var/run":                            {tar.Header{Typeflag: tar.TypeSymlink, Linkname: "../run"}, nil},
		"usr/bin/sh":                         {tar.Header{Typeflag: tar.TypeSymlink, Linkname: "bash"}, nil},
		"etc/passwd":                         file(0o644, "root:x:0:0::/root:/bin/bash\nmysql:x:999:999::/var/lib/mysql:/bin/bash\n"),
		"etc/group":                          file(0o644, "root:x:0:\nmysql:x:999:\n"),
		"usr/local/bin/docker-entrypoint.sh": file(0o755, string(entrypoint)),
	}
}

type addition struct {
	header tar.Header
	text   []byte
}

// packTree writes a tree as the root of an image, owned by root. No name may appear twice.
func packTree(w io.Writer, tree *debian.Tree) error {
	t := tar.NewWriter(w)
	added := additions()
	err := filepath.WalkDir(tree.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == tree.Root {
			return err
		}
		name, err := filepath.Rel(tree.Root, path)
		if err != nil {
			return err
		}
		if added[name] != nil {
			return nil
		}
		return packEntry(t, name, path, entry)
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(added)) {
		a := added[name]
		a.header.Name = name
		if err := t.WriteHeader(&a.header); err != nil {
			return err
		}
		if _, err := t.Write(a.text); err != nil {
			return err
		}
	}
	return t.Close()
}

func packEntry(t *tar.Writer, name, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	var link string
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name = name
	if info.IsDir() {
		header.Name += "/"
	}
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	if err := t.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(t, file)
	return err
}

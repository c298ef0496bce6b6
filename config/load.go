package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"replicator/fault"
)

// Problem is one thing that is wrong in a configuration.
type Problem struct {
	Path    string // of the field: "servers.east.tls.mode"; empty for the document
	Message string
	Remedy  string
}

func (p Problem) String() string {
	text := p.Message
	if p.Path != "" {
		text = p.Path + ": " + text
	}
	if p.Remedy != "" {
		text += "; remedy: " + p.Remedy
	}
	return text
}

// Problems is everything that is wrong in a configuration. Its text has one line for each.
type Problems []Problem //nolint:errname // a list of problems is what it is everywhere, and an error only on return

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a configuration file. What is wrong in it comes as Problems, all at once; a file that cannot be
// read as a *fault.Error.
func Load(path string) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration,
			"name an existing file with --config or REPLICATOR_CONFIG; `replicator init` writes one",
			"read configuration")
	}
	return Parse(raw, os.LookupEnv)
}

// Parse checks a configuration; env gives the values of ${VAR}. Errors are Problems.
func Parse(raw []byte, env func(string) (string, bool)) (*Config, error) {
	root, err := document(raw)
	if err != nil {
		return nil, Problems{{Message: err.Error(), Remedy: "correct the YAML; `replicator init` prints an example"}}
	}
	c := defaults()
	d := &decoder{env: env, set: map[string]bool{}}
	if root != nil {
		d.decode("", root, reflect.ValueOf(c).Elem())
	}
	v := &validator{Config: c, set: d.set, problems: d.problems}
	v.validate()
	if len(v.problems) > 0 {
		return nil, v.distinct()
	}
	return c, nil
}

// document parses YAML text. An empty text gives nil. The YAML package promises no panic but has had some: they become
// errors here.
func document(raw []byte) (root *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read YAML: %v", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file has more than one YAML document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// distinct keeps the first problem of every path: a value that could not be read is not also reported as missing.
func (v *validator) distinct() Problems {
	seen := map[string]bool{}
	return slices.DeleteFunc(v.problems, func(p Problem) bool {
		if p.Path == "" {
			return false
		}
		twice := seen[p.Path]
		seen[p.Path] = true
		return twice
	})
}

// PrepareStateDir makes the state directory and proves that it can be written.
func PrepareStateDir(dir string) error {
	const remedy = "make the directory of state_dir and give it to the user that runs replicator, or name another"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(err, fault.Configuration, remedy, "make state directory")
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return fault.Wrap(err, fault.Configuration, remedy, "write to state directory %s", filepath.Clean(dir))
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

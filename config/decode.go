package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes, written "4MiB", "64KiB", "1GiB" or as a plain number.
type Size int64

// decoder fills the configuration from a YAML tree. It goes on after a problem, so that all of them are reported at once.
type decoder struct {
	env      func(string) (string, bool)
	problems Problems
	set      map[string]bool // paths that the document gives a value
	depth    int
}

// maxDepth is far above what the configuration needs; it ends aliases that contain themselves.
const maxDepth = 16

func (d *decoder) problem(path, remedy, format string, args ...any) {
	d.problems = append(d.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (d *decoder) decode(path string, n *yaml.Node, v reflect.Value) {
	if d.depth++; d.depth > maxDepth {
		d.problem(path, "write it flat", "is nested too deeply")
		d.depth--
		return
	}
	defer func() { d.depth-- }()
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // an empty value leaves the default
	}
	d.set[path] = true
	switch target := v.Addr().Interface().(type) {
	case *Servers:
		d.servers(path, n, target)
	case *Links:
		d.links(path, n, target)
	case *Secret:
		if text, ok := d.scalar(path, n); ok {
			target.text = text
		}
	case *Size, *time.Duration:
		d.quantity(path, n, v)
	default:
		d.plain(path, n, v)
	}
}

// plain decodes by the kind of the field.
func (d *decoder) plain(path string, n *yaml.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.depth--
		d.decode(path, n, v.Elem())
		d.depth++
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.Map:
		d.mapping(path, n, v)
	default:
		d.value(path, n, v)
	}
}

func (d *decoder) structure(path string, n *yaml.Node, v reflect.Value) {
	fields := map[string]reflect.Value{}
	collectFields(v, fields)
	for key, value := range d.pairs(path, n) {
		field, known := fields[key]
		if !known {
			d.problem(join(path, key), "known here: "+strings.Join(sortedKeys(fields), ", "), "unknown field")
			continue
		}
		d.decode(join(path, key), value, field)
	}
}

func collectFields(v reflect.Value, fields map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			collectFields(v.Field(i), fields)
		case name != "" && name != "-":
			fields[name] = v.Field(i)
		}
	}
}

// pairs yields the entries of a mapping in the order of the file, each key once.
func (d *decoder) pairs(path string, n *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			d.problem(path, "write it as \"name: value\" lines, indented", "want a mapping, found %s", describe(n))
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				d.problem(path, "use plain names as keys", "line %d: a key is %s", key.Line, describe(key))
				continue
			}
			if seen[key.Value] {
				d.problem(join(path, key.Value), "keep one of them", "is there twice")
				continue
			}
			seen[key.Value] = true
			if !yield(key.Value, n.Content[i+1]) {
				return
			}
		}
	}
}

func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.problem(path, "write it as [a, b]", "want a list, found %s", describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(fmt.Sprintf("%s[%d]", path, i), item, out.Index(i))
	}
	v.Set(out)
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	out := reflect.MakeMap(v.Type())
	for key, value := range d.pairs(path, n) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(join(path, key), value, item)
		out.SetMapIndex(reflect.ValueOf(key), item)
	}
	v.Set(out)
}

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	text, ok := d.scalar(path, n)
	if !ok {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			d.problem(path, "write true or false", "%q is not true or false", text)
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		if err != nil {
			d.problem(path, "write digits only", "%q is not a whole number", text)
			return
		}
		v.SetInt(i)
	default:
		d.problem(path, "", "bug: a field of type %s", v.Type())
	}
}

func (d *decoder) quantity(path string, n *yaml.Node, v reflect.Value) {
	text, ok := d.scalar(path, n)
	if !ok {
		return
	}
	if v.Type() == reflect.TypeFor[Size]() {
		size, err := parseSize(text)
		if err != nil {
			d.problem(path, "write it as 4MiB, 64KiB or a number of bytes", "%q is not a size", text)
			return
		}
		v.SetInt(int64(size))
		return
	}
	if text == "" { // "never", where a schedule is optional
		v.SetInt(0)
		return
	}
	duration, err := parseDuration(text)
	if err != nil {
		d.problem(path, "write it as 10s, 500ms, 24h or 90d", "%q is not a duration", text)
		return
	}
	v.SetInt(int64(duration))
}

// servers keeps the order of the file.
func (d *decoder) servers(path string, n *yaml.Node, target *Servers) {
	for name, value := range d.pairs(path, n) {
		s := &Server{Name: name, Own: true, TLS: TLS{Mode: TLSPreferred}}
		d.decode(join(path, name), value, reflect.ValueOf(s).Elem())
		*target = append(*target, s)
	}
}

// links is "mesh", which validation resolves, or a list.
func (d *decoder) links(path string, n *yaml.Node, target *Links) {
	if n.Kind != yaml.ScalarNode {
		d.list(path, n, reflect.ValueOf(target).Elem())
		return
	}
	delete(d.set, path)
	if text, ok := d.scalar(path, n); ok && text != "mesh" {
		d.problem(path, "write mesh, or a list as [{from: east, to: west}]", "%q is not known", text)
	}
}

func (d *decoder) scalar(path string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.problem(path, "write one value", "want a single value, found %s", describe(n))
		return "", false
	}
	return d.expand(path, n.Value)
}

// expand replaces ${VAR} by the environment's value, once, and $$ by $. It works on parsed values, so that a password may
// hold quotes, colons and line ends.
func (d *decoder) expand(path, text string) (string, bool) {
	var out strings.Builder
	ok := true
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			out.WriteString(text)
			return out.String(), ok
		}
		out.WriteString(text[:i])
		switch text = text[i+1:]; text[0] {
		case '$':
			out.WriteByte('$')
			text = text[1:]
		case '{':
			name, rest, closed := strings.Cut(text[1:], "}")
			if !closed || !isVariable(name) {
				d.problem(path, "write ${NAME}, and $$ for a single $", "a ${ is not followed by a variable's name and }")
				return "", false
			}
			value, set := d.env(name)
			if !set {
				d.problem(path, "set the environment variable "+name, "the environment has no variable %s", name)
				ok = false
			}
			out.WriteString(value)
			text = rest
		default:
			out.WriteByte('$')
		}
	}
}

func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

func parseDuration(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	if !isDays {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16) // 65,535 days fit into a Duration
	return time.Duration(n) * 24 * time.Hour, err
}

func parseSize(text string) (Size, error) {
	digits, shift := text, 0
	for unit, s := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, found := strings.CutSuffix(text, unit); found {
			digits, shift = strings.TrimSpace(rest), s
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err == nil && n > math.MaxInt64>>shift {
		err = strconv.ErrRange
	}
	return Size(n << shift), err
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return "a single value"
	case yaml.AliasNode:
		return "an alias"
	case yaml.DocumentNode:
		return "a document"
	}
	return "nothing"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func sortedKeys(fields map[string]reflect.Value) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

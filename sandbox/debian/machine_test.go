package debian

import (
	"testing"
	"testing/fstest"
)

func TestMirror(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing": {nil, defaultMirror},
		"one line": {map[string]string{
			"sources.list": "# deb http://old.example/debian sid main\ndeb [arch=amd64 signed-by=/k] https://mirror.example/debian/ trixie main\n",
		}, "https://mirror.example/debian"},
		"deb822": {map[string]string{
			"sources.list":                  "",
			"sources.list.d/debian.sources": "Types: deb\nURIs: http://deb.example:8080/mirrors/debian\nSuites: bookworm\n",
		}, "http://deb.example:8080/mirrors/debian"},
		"only security and others": {map[string]string{
			"sources.list.d/a.list": "deb http://security.example/debian-security trixie main\ndeb https://packages.example/apt any main\n",
		}, defaultMirror},
		"ubuntu": {map[string]string{
			"sources.list.d/ubuntu.sources": "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble\n",
		}, defaultMirror},
	} {
		t.Run(name, func(t *testing.T) {
			etc := fstest.MapFS{}
			for path, text := range c.files {
				etc[path] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := mirror(etc); got != c.want {
				t.Errorf("mirror %s, want %s", got, c.want)
			}
		})
	}
}

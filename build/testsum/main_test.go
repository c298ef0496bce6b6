package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	log := `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"    a_test.go:1: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA/x","Elapsed":0.1}
{"Action":"run","Package":"p","Test":"TestA/y"}
{"Action":"pass","Package":"p","Test":"TestA/y","Elapsed":0.1}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:9: no engine\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"run","Package":"p","Test":"TestLong"}
{"Action":"pass","Package":"p","Test":"TestLong","Elapsed":11.5}
{"Action":"fail","Package":"p","Elapsed":12.34}
{"Action":"run","Package":"q","Test":"TestC"}
{"Action":"output","Package":"q","Test":"TestC","Output":"panic: oh\n"}
{"Action":"fail","Package":"q","Elapsed":1}
{"ImportPath":"r","Action":"build-output","Output":"r.go:1: undefined: x\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"fail","Package":"r","Elapsed":0,"FailedBuild":"r"}
{"Action":"skip","Package":"empty","Elapsed":0}
{"Action":"output","Package":"u","Output":"exit status 3\n"}
{"Action":"fail","Package":"u","Elapsed":0}
`
	var out strings.Builder
	s := &summary{
		out: &out, output: map[testName][]string{}, parents: map[testName]bool{}, failedChild: map[testName]bool{},
		failedIn: map[string]bool{},
	}
	if err := s.read(strings.NewReader(log)); err != nil {
		t.Fatal(err)
	}
	s.finish()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, want := range []string{
		"FAIL p TestA/x", "        a_test.go:1: wrong", "FAIL p                                     12.3 s",
		"     TestLong                                              11.5 s", "    panic: oh", "    exit status 3", "    r.go:1: undefined: x", "skip p TestB: a_test.go:9: no engine",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
	if last := lines[len(lines)-1]; last != "2 passed, 4 failed, 1 skipped" {
		t.Errorf("last line %q", last)
	}
}

func TestSplitRuns(t *testing.T) {
	var got []string
	for run := range splitRuns([]string{"-race", "a", "--", "b", "--"}) {
		got = append(got, strings.Join(run, " "))
	}
	if !slices.Equal(got, []string{"-race a", "b"}) {
		t.Errorf("%q", got)
	}
}

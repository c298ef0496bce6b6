// Command testsum runs go test with the arguments it is given, shows the result and time of each package and of each test
// that takes long, what failed with its output, and what was skipped with its reason, and ends with the line
// "N passed, F failed, S skipped".
//
// Several runs are separated by "--": their results are added up.
//
//	testsum [-fail-on-skip] -race ./change ./conflict -- ./integration
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	args := os.Args[1:]
	failOnSkip := len(args) > 0 && args[0] == "-fail-on-skip"
	if failOnSkip {
		args = args[1:]
	}
	s := &summary{out: os.Stdout}
	for run := range splitRuns(args) {
		if err := s.goTest(run); err != nil {
			s.print("go test: %v\n", err)
			s.failed++
		}
	}
	s.finish()
	if s.failed > 0 || failOnSkip && len(s.skipped) > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

// splitRuns yields the arguments between separators.
func splitRuns(args []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(args) > 0 {
			end := slices.Index(args, "--")
			if end < 0 {
				end = len(args)
			}
			if end > 0 && !yield(args[:end]) {
				return
			}
			args = args[min(end+1, len(args)):]
		}
	}
}

// event is a line of `go test -json`; see `go doc test2json`. Build output has ImportPath in place of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

type testName struct{ pkg, test string }

type summary struct {
	out            io.Writer
	passed, failed int
	skipped        []string
	output         map[testName][]string
	parents        map[testName]bool // tests with subtests are not counted themselves, unless they alone failed
	failedChild    map[testName]bool
	failedIn       map[string]bool // packages
}

func (s *summary) print(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format, args...) // there is nowhere else to complain
}

func (s *summary) goTest(args []string) error {
	s.output, s.parents, s.failedChild = map[testName][]string{}, map[testName]bool{}, map[testName]bool{}
	s.failedIn = map[string]bool{}
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := s.failed
	readErr := s.read(pipe)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && s.failed > before {
		err = nil // the failures have been shown
	}
	return errors.Join(readErr, err)
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				s.take(e)
			} else {
				s.print("%s", line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	name := testName{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		name = testName{e.ImportPath, ""}
		s.output[name] = append(s.output[name], e.Output)
	case "output":
		s.output[name] = append(s.output[name], e.Output)
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			s.parents[testName{e.Package, e.Test[:i]}] = true
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e)
		}
		delete(s.output, name)
	}
}

// longTest is from how many seconds on a test's time is shown.
const longTest = 5

func (s *summary) endTest(e event) {
	name := testName{e.Package, e.Test}
	if e.Elapsed >= longTest && !s.parents[name] {
		s.print("     %-50s %7.1f s\n", e.Test, e.Elapsed)
	}
	switch {
	case e.Action == "fail":
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			s.failedChild[testName{e.Package, e.Test[:i]}] = true
		}
		if s.failedChild[name] {
			return
		}
		s.failed++
		s.failedIn[e.Package] = true
		s.print("FAIL %s %s\n%s", e.Package, e.Test, indent(s.output[name]))
	case e.Action == "skip":
		s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(s.output[name])))
	case !s.parents[name]:
		s.passed++
	}
}

func (s *summary) endPackage(e event) {
	switch e.Action {
	case "skip": // no test files
	case "pass":
		s.print("ok   %-34s %7.1f s\n", e.Package, e.Elapsed)
	default:
		s.print("FAIL %-34s %7.1f s\n", e.Package, e.Elapsed)
		text := slices.Concat(s.output[testName{e.FailedBuild, ""}], s.output[testName{e.Package, ""}])
		// A package can fail by itself: it does not build, panics, is out of time, or says so in TestMain.
		if s.interrupted(e.Package) || !s.failedIn[e.Package] {
			s.failed++
			s.print("%s", indent(text))
		}
	}
}

// interrupted reports whether tests of a package began and did not end, as when it panics or is out of time; it shows what
// they printed.
func (s *summary) interrupted(pkg string) bool {
	found := false
	for name, text := range s.output {
		if name.pkg == pkg && name.test != "" {
			found = true
			s.print("FAIL %s %s did not end\n%s", pkg, name.test, indent(text))
		}
	}
	return found
}

func (s *summary) finish() {
	for _, line := range s.skipped {
		s.print("skip %s\n", line)
	}
	s.print("%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
}

// reason is what a test printed when it skipped.
func reason(output []string) string {
	var lines []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "--- ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func indent(output []string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Join(output, "")) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString("    " + line)
		}
	}
	if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}

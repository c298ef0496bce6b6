// Command replicator keeps MySQL and MariaDB servers equal while all of them are written to.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"replicator/config"
	"replicator/fault"
)

// The exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1 // failed or incomplete
	exitUsage  = 2 // wrong usage or configuration
	exitNo     = 3 // the answer is "no"
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, out, errs io.Writer) int {
	root := newRootCommand() //nolint:contextcheck // commands take theirs from ExecuteContext
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if text := describe(err); text != "" {
		_, _ = fmt.Fprintln(errs, text) // there is nowhere left to complain
	}
	return exitCode(err)
}

// errAnswerNo ends a command whose answer is "no" and has been printed.
var errAnswerNo = errors.New("no")

// errIncomplete ends a command that could not find out everything, and has printed what it did.
var errIncomplete = errors.New("incomplete")

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }

func (e usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var usage usageError
	var problems config.Problems
	f, isFault := fault.As(err)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errAnswerNo):
		return exitNo
	case errors.As(err, &usage), errors.As(err, &problems), isFault && f.Class == fault.Configuration:
		return exitUsage
	}
	return exitFailed
}

// describe is what a person reads of an error: one line, and one for the remedy.
func describe(err error) string {
	if err == nil || errors.Is(err, errAnswerNo) || errors.Is(err, errIncomplete) {
		return ""
	}
	text := "replicator: " + err.Error()
	var problems config.Problems
	f, isFault := fault.As(err)
	var usage usageError
	switch {
	case errors.As(err, &problems):
		text = "replicator: the configuration is not usable:\n  " + strings.ReplaceAll(problems.Error(), "\n", "\n  ")
	case isFault:
		text = strings.Replace(text, f.Error(), f.Text(), 1)
		if f.Remedy != "" {
			text += "\nremedy: " + f.Remedy
		}
	case errors.As(err, &usage):
		text += "\nremedy: see replicator --help"
	}
	return text
}

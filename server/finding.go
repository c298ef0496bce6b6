package server

import (
	"fmt"

	"replicator/change"
	"replicator/fault"
)

// State is the outcome of one check.
type State string

// The outcomes. With Fail, replicating would go wrong: the links concerned do not start.
const (
	Pass State = "pass"
	Warn State = "warn"
	Fail State = "fail"
)

// Finding is what one check found.
type Finding struct {
	Server  string `json:"server"`          // the server that it is about; of a link, its target
	Table   string `json:"table,omitempty"` // the table, where it is about one
	Name    string `json:"check"`
	State   State  `json:"state"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"` // empty on Pass
	// Class is what a Fail means for a link.
	Class fault.Class `json:"-"`
	// Incomplete is set when the check could not be made, as on a server that cannot be reached.
	Incomplete bool `json:"-"`
}

// Err is the first failed finding as a link's fault, nil when none failed.
func Err(findings []Finding) error {
	for _, f := range findings {
		if f.State != Fail {
			continue
		}
		subject := "server " + f.Server
		if f.Table != "" {
			subject = "table " + f.Table + " on " + f.Server
		}
		return fault.New(f.Class, f.Remedy, "%s: %s: %s", subject, f.Name, f.Message)
	}
	return nil
}

// report collects findings about one server.
type report struct {
	info     Info
	server   string
	findings []Finding
}

func (r *report) add(state State, class fault.Class, name, remedy, format string, args ...any) {
	f := Finding{Server: r.server, Name: name, State: state, Message: fmt.Sprintf(format, args...)}
	if state != Pass {
		f.Remedy, f.Class = remedy, class
	}
	r.findings = append(r.findings, f)
}

// check passes or adds a finding of the given state.
func (r *report) check(ok bool, otherwise State, name, remedy, format string, args ...any) {
	if ok {
		otherwise = Pass
	}
	r.add(otherwise, fault.Precondition, name, remedy, format, args...)
}

// failed adds a check that could not be made.
func (r *report) failed(name string, err error) {
	f := Fault(err, name)
	r.findings = append(r.findings, Finding{
		Server: r.server, Name: name, State: Fail, Message: f.Text(), Remedy: f.Remedy, Class: f.Class,
		Incomplete: f.Class.Transient(),
	})
}

// want checks a variable's value.
func (r *report) want(variable, value string, otherwise State, remedy string) {
	have, known := r.info.Variables[variable]
	if !known {
		r.check(false, otherwise, variable, remedy, "the server has no variable %s", variable)
		return
	}
	wanted := value
	if wanted == "" {
		wanted = "empty"
	}
	if equalSetting(have, value) {
		r.check(true, Pass, variable, "", "is %s", wanted)
		return
	}
	r.check(false, otherwise, variable, remedy, "is %q, must be %s", have, wanted)
}

// about makes a finding one on a table.
func about(name change.TableName, f Finding) Finding {
	f.Table = name.String()
	return f
}

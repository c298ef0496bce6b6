package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"replicator/change"
)

// The policies: which of two concurrent changes of a row stands.
const (
	LastWriterWins  = "last-writer-wins"
	FirstWriterWins = "first-writer-wins"
	ServerPriority  = "server-priority"
	MergeColumns    = "merge-columns"
	Halt            = "halt" // a person decides
)

var policies = []string{LastWriterWins, FirstWriterWins, ServerPriority, MergeColumns, Halt}

// Policy is the policy of a table: its rule's, else that of all tables.
func (c *Config) Policy(name change.TableName) string {
	if r := c.Tables.Rule(name); r != nil && r.Conflict != nil && r.Conflict.Policy != "" {
		return r.Conflict.Policy
	}
	return c.Conflict.Policy
}

// Added are the columns of a table whose changes add up: concurrent -3 and -3 make -6.
func (c *Config) Added(name change.TableName) []string {
	if r := c.Tables.Rule(name); r != nil && r.Conflict != nil {
		return r.Conflict.Add
	}
	return nil
}

// Adds reports whether any table has columns whose changes add up.
func (c *Config) Adds() bool {
	return slices.ContainsFunc(c.Tables.Rules, func(r Rule) bool { return r.Conflict != nil && len(r.Conflict.Add) > 0 })
}

// Merged reports whether the columns of a table are merged.
func (c *Config) Merged(name change.TableName) bool { return c.Policy(name) == MergeColumns }

// Merges reports whether the columns of any table may be merged.
func (c *Config) Merges() bool {
	return c.Conflict.Policy == MergeColumns ||
		slices.ContainsFunc(c.Tables.Rules, func(r Rule) bool { return r.Conflict != nil && r.Conflict.Policy == MergeColumns })
}

// Rank is the place of a server in conflict.priority; smaller is stronger.
func (c *Config) Rank(server string) int {
	if i := slices.Index(c.Conflict.Priority, server); i >= 0 {
		return i
	}
	return len(c.Conflict.Priority)
}

// Policies is what decides the conflicts of a mesh. Two servers that decide one conflict by different policies keep
// different rows, so all processes must agree.
type Policies struct {
	Default string        `json:"default"`
	Rules   []TablePolicy `json:"rules,omitempty"` // the first that matches counts
	// Priority, and the Server's name in it, are there where a policy is server-priority.
	Priority []string `json:"priority,omitempty"`
	Server   string   `json:"server,omitempty"`
}

// TablePolicy is the policy of the tables that a pattern matches.
type TablePolicy struct {
	Match  string   `json:"match"`
	Policy string   `json:"policy"`
	Add    []string `json:"add,omitempty"` // in lower case, sorted
}

// PolicyDifference is something that two Policies say differently.
type PolicyDifference struct{ About, This, That string }

// Policies returns what decides the conflicts on a server, in canonical form: without rules that change nothing, and with
// rules in the order of their patterns where their own order does not matter.
func (c *Config) Policies(server string) Policies {
	p := Policies{Default: c.Conflict.Policy}
	for _, r := range canonicalOrder(c.Tables.policyRules(c.Conflict.Policy)) {
		p.Rules = append(p.Rules, r.policy(p.Default))
	}
	if p.ranked() {
		p.Priority, p.Server = c.Conflict.Priority, server
	}
	return p
}

// ParsePolicies reads what String has written. What this version does not know is an error.
func ParsePolicies(text string) (Policies, error) {
	var p Policies
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&p)
	return p, err
}

// String is the text that servers remember.
func (p Policies) String() string {
	text, err := json.Marshal(p)
	if err != nil {
		return err.Error() // strings always have a JSON text
	}
	return string(text)
}

func (p Policies) ranked() bool {
	return p.Default == ServerPriority || slices.ContainsFunc(p.Rules, func(r TablePolicy) bool { return r.Policy == ServerPriority })
}

// Differences lists where two Policies of one server could decide differently. Of the priorities only the order of the
// servers that both name counts.
func (p Policies) Differences(that Policies) []PolicyDifference {
	var found []PolicyDifference
	note := func(about, one, other string) {
		if one != other {
			found = append(found, PolicyDifference{about, one, other})
		}
	}
	note("tables without a rule", p.Default, that.Default)
	matches := append(patterns(p.Rules), patterns(that.Rules)...)
	slices.Sort(matches)
	for _, match := range slices.Compact(matches) {
		note("tables "+match, policiesOf(p.Rules, match), policiesOf(that.Rules, match))
	}
	if len(found) == 0 {
		note("the order of the rules", strings.Join(patterns(p.Rules), ", "), strings.Join(patterns(that.Rules), ", "))
	}
	if p.ranked() && that.ranked() {
		note("conflict.priority", common(p.Priority, that.Priority), common(that.Priority, p.Priority))
		note("the name of the server in conflict.priority", p.Server, that.Server)
	}
	return found
}

func patterns(rules []TablePolicy) []string {
	all := make([]string, len(rules))
	for i, r := range rules {
		all[i] = r.Match
	}
	return all
}

// policiesOf is what the rules with a pattern say.
func policiesOf(rules []TablePolicy, match string) string {
	var all []string
	for _, r := range rules {
		if r.Match == match {
			all = append(all, r.String())
		}
	}
	if len(all) == 0 {
		return "no policy of their own"
	}
	return strings.Join(all, ", then ")
}

func (t TablePolicy) String() string {
	if len(t.Add) == 0 {
		return t.Policy
	}
	return t.Policy + " with add [" + strings.Join(t.Add, ", ") + "]"
}

// common lists the names that are in both, in the order of the first.
func common(names, others []string) string {
	var both []string
	for _, n := range names {
		if slices.Contains(others, n) {
			both = append(both, n)
		}
	}
	return strings.Join(both, ", ")
}

// policy is what the rule says of its tables.
func (r *Rule) policy(otherwise string) TablePolicy {
	p := TablePolicy{Match: r.pattern.String(), Policy: otherwise}
	if r.Conflict == nil {
		return p
	}
	if r.Conflict.Policy != "" {
		p.Policy = r.Conflict.Policy
	}
	for _, column := range r.Conflict.Add {
		p.Add = append(p.Add, strings.ToLower(column))
	}
	slices.Sort(p.Add)
	p.Add = slices.Compact(p.Add)
	return p
}

// policyRules are the rules on which conflicts depend: those that differ from the default, and those that take tables away
// from a later one that does.
func (t *Tables) policyRules(otherwise string) []*Rule {
	return t.decisive(func(r *Rule) bool {
		p := r.policy(otherwise)
		return p.Policy != otherwise || len(p.Add) > 0
	})
}

// canonicalOrder sorts rules by their patterns, but leaves those that some table could match both as they are.
func canonicalOrder(rules []*Rule) []*Rule {
	earlier := make([]int, len(rules)) // how many of those before it overlap with the rule, and have not been taken yet
	each := func(of int, count int) {
		for i := of + 1; i < len(rules); i++ {
			if rules[i].pattern.overlaps(rules[of].pattern) {
				earlier[i] += count
			}
		}
	}
	for i := range rules {
		each(i, 1)
	}
	sorted := make([]*Rule, 0, len(rules))
	for range rules {
		next := -1
		for i, r := range rules {
			if earlier[i] == 0 && (next < 0 || r.pattern.String() < rules[next].pattern.String()) {
				next = i
			}
		}
		sorted = append(sorted, rules[next])
		earlier[next] = -1
		each(next, -1)
	}
	return sorted
}

// String writes a pattern in the one way that all its spellings share.
func (p pattern) String() string { return p.database.String() + "." + p.table.String() }

func (w wildcard) String() string {
	if len(w) == 1 && strings.ContainsAny(w[0], ".*`") {
		return "`" + strings.ReplaceAll(w[0], "`", "``") + "`"
	}
	return strings.Join(w, "*")
}

func (v *validator) validatePolicies() {
	v.oneOf("conflict.policy", v.Conflict.Policy, policies...)
	ranked := v.Conflict.Policy == ServerPriority
	for i, r := range v.Tables.Rules {
		if r.Conflict != nil && r.Conflict.Policy != "" {
			v.oneOf(fmt.Sprintf("tables.rules[%d].conflict.policy", i), r.Conflict.Policy, policies...)
			ranked = ranked || r.Conflict.Policy == ServerPriority
		}
		if r.Conflict != nil && len(r.Conflict.Add) > 0 {
			policy := r.Conflict.Policy
			if policy == "" {
				policy = v.Conflict.Policy
			}
			if policy != LastWriterWins {
				v.problem(fmt.Sprintf("tables.rules[%d].conflict.add", i), "set the rule's policy to last-writer-wins",
					"columns add up under the policy last-writer-wins only, these tables have %s", policy)
			}
		}
	}
	const path = "conflict.priority"
	seen := map[string]bool{}
	for i, name := range v.Conflict.Priority {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case v.Server(name) == nil:
			v.problem(at, "name one of the servers", "there is no server %q", name)
		case seen[name]:
			v.problem(at, "name every server once", "%s is there twice", name)
		}
		seen[name] = true
	}
	for _, s := range v.Servers {
		if ranked && !seen[s.Name] {
			v.problem(path, "list all servers, the strongest first", "%s is missing, and the policy server-priority needs the rank of every server", s.Name)
		}
	}
}

package policydb

import (
	"fmt"
	"maps"
	"slices"
)

// NewDomain is a domain that is to be like another one.
type NewDomain struct {
	// Module begins the names of the optional parts; no other module may use it.
	Module string
	Name   string
	// Base is the domain to be like.
	Base string
	// Permitted, if there is one, takes from a rule of the base what the new domain may not have. A rule without permissions is left out.
	Permitted func(Rule) Rule
}

// WriteDomain writes, line by line and in CIL, a domain that is all that its base is. What the next release of the OS may do without is
// optional: without that attribute or rule the domain is still there, and the container starts.
func (p *Policy) WriteDomain(line func(string, ...any), d NewDomain, like Likeness) {
	line("")
	line("(type %s)", d.Name)
	for _, role := range like.Roles {
		line("(roletype %s %s)", role, d.Name)
	}
	line("")
	line("; The attributes of %s: most of what it may do, and that the runtime may start it.", d.Base)
	for _, attribute := range like.Attributes {
		line("(optional %s_is_%s (typeattributeset %s (%s)))", d.Module, attribute, attribute, d.Name)
	}
	line("")
	line("; The rules of the policy in force that name %s itself.", d.Base)
	if like.Unnamed > 0 {
		line("; %d more, for large sets of types without a name, cannot be written down.", like.Unnamed)
	}
	others := map[string][]Rule{}
	for _, r := range like.Rules {
		if d.Permitted != nil {
			r = d.Permitted(r)
		}
		if r.Statement == "allow" && len(r.Permissions) == 0 {
			continue
		}
		other := r.Target
		if r.Source != Self {
			other = r.Source
		}
		others[other] = append(others[other], r)
	}
	for _, r := range others[Self] {
		line("%s", r.conditional(d.Name))
	}
	delete(others, Self)
	for _, other := range slices.Sorted(maps.Keys(others)) {
		line("(optional %s_and_%s", d.Module, other)
		for _, r := range others[other] {
			line("  %s", r.conditional(d.Name))
		}
		line(")")
	}
	p.writeNoNewPrivs(line, d, like)
}

// writeNoNewPrivs lets those who may start the base start the domain with no_new_privs too, as a container with allowPrivilegeEscalation: false and
// the sandbox of each pod are started. Without the rule the kernel takes the other domain for a gain of rights, and does not let it begin.
func (p *Policy) writeNoNewPrivs(line func(string, ...any), d NewDomain, like Likeness) {
	const class, permission = "process2", "nnp_transition"
	if _, err := p.Resolve(Question{Target: d.Base, Class: class, Permissions: []string{permission}}); err != nil {
		return
	}
	starters := slices.DeleteFunc(p.EnteredBy(d.Base), func(starter string) bool {
		return slices.ContainsFunc(like.Rules, func(r Rule) bool {
			return r.Statement == "allow" && r.Source == starter && r.Class == class && r.Condition == "" && slices.Contains(r.Permissions, permission)
		})
	})
	if len(starters) == 0 {
		return
	}
	line("")
	line("; Who may start %s may start it with no_new_privs.", d.Base)
	for _, starter := range starters {
		line("(optional %s_started_by_%s (allow %s %s (%s (%s))))", d.Module, starter, starter, d.Name, class, permission)
	}
}

// conditional writes a rule with the condition that it stands under.
func (r Rule) conditional(name string) string {
	text := r.CIL(name)
	if r.Condition == "" {
		return text
	}
	return fmt.Sprintf("(booleanif %s (true %s))", r.Condition, text)
}

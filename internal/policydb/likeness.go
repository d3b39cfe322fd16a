package policydb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Likeness is what makes another type like a given one: what a new domain needs to be all that the first one is.
type Likeness struct {
	Attributes []string // with a name that the policy's authors gave
	Roles      []string
	Rules      []Rule // those about the type itself, and not about its attributes
	// Unnamed counts rules for large sets of types without a name, which cannot be written down in a way that outlives an update.
	Unnamed int
}

// Rule is a rule of the policy. Self stands for the type that the Likeness is of.
type Rule struct {
	Statement      string // allow, allowx, typetransition, typemember, typechange
	Source, Target string
	Class          string
	Permissions    []string // of allow
	Commands       []Range  // of allowx: ioctl commands, or netlink messages
	Nlmsg          bool
	Result         string // type, of typetransition and its like
	Condition      string // CIL expression of booleans, "" for always
}

// Range is a range of commands, ends included.
type Range struct{ Low, High uint16 }

// Self stands for the type itself in a Rule of a Likeness.
const Self = "self"

const (
	// maxExpanded is how many types of a set without a name are written out.
	maxExpanded = 32
	// maxListed is how many types a set has at most whose authors may have listed them one by one. A larger one is "all domains
	// but a few", and a type that has all attributes of another is in it as the other is.
	maxListed = 64
)

// Like gives the Likeness of a type. Rules that only hide denials are not in it.
func (p *Policy) Like(name string) (Likeness, error) {
	base, err := p.lookup("type", name)
	if err != nil {
		return Likeness{}, err
	}
	var l Likeness
	// The sets without a name that the type is in. Whether another type would be in one cannot be known, so rules for it are taken as
	// rules for the type.
	own := map[uint16]bool{base: true}
	for _, set := range p.spread(base) {
		switch {
		case set == base:
		case Generated(p.name(set)):
			own[set] = len(p.types[set-1].members) <= maxListed
		default:
			l.Attributes = append(l.Attributes, p.name(set))
		}
	}
	slices.Sort(l.Attributes)
	for _, r := range p.roles {
		if r.types.has(uint32(base-1)) && r.name != "object_r" {
			l.Roles = append(l.Roles, r.name)
		}
	}
	slices.Sort(l.Roles)
	add := func(list []rule, condition string) {
		for i := range list {
			p.addLike(&l, &list[i], own, condition)
		}
	}
	add(p.rules, "")
	for i := range p.conds {
		c := &p.conds[i]
		add(c.whenTrue, p.cilCondition(c, true))
		add(c.whenFalse, p.cilCondition(c, false))
	}
	l.Rules = compact(l.Rules)
	return l, nil
}

func (p *Policy) addLike(l *Likeness, r *rule, own map[uint16]bool, condition string) {
	if !own[r.source] && !own[r.target] || r.kind == ruleAuditDeny {
		return
	}
	template, ok := p.describe(r)
	if !ok {
		return
	}
	template.Condition = condition
	sources, ok1 := p.sides(r.source, own)
	targets, ok2 := p.sides(r.target, own)
	if !ok1 || !ok2 {
		l.Unnamed++
		return
	}
	for _, s := range sources {
		for _, t := range targets {
			if s != Self && t != Self {
				continue
			}
			one := template
			one.Source, one.Target = s, t
			l.Rules = append(l.Rules, one)
		}
	}
}

// sides gives the names by which one side of a rule can be written.
func (p *Policy) sides(value uint16, own map[uint16]bool) ([]string, bool) {
	if own[value] {
		return []string{Self}, true
	}
	if !Generated(p.name(value)) {
		return []string{p.name(value)}, true
	}
	members := p.types[value-1].members
	if len(members) > maxExpanded {
		return nil, false
	}
	var names []string
	for _, m := range members {
		names = append(names, p.name(m))
	}
	return names, true
}

// describe gives a rule without its sides; false for kinds that a new domain does not need.
func (p *Policy) describe(r *rule) (Rule, bool) {
	d := Rule{Class: p.classes[r.class-1].name}
	switch r.kind {
	case ruleAllow:
		d.Statement, d.Permissions = "allow", p.permissions(r.class, r.data)
		return d, len(d.Permissions) > 0
	case ruleXAllow:
		d.Statement, d.Commands, d.Nlmsg = "allowx", r.x.ranges(), r.x.kind == xpermNlmsg
		return d, len(d.Commands) > 0
	case ruleTransition, ruleMember, ruleChange:
		if r.data == 0 || r.data > uint32(len(p.types)) {
			return d, false
		}
		d.Statement = map[uint16]string{ruleTransition: "typetransition", ruleMember: "typemember", ruleChange: "typechange"}[r.kind]
		d.Result = p.name(uint16(r.data))
		return d, true
	}
	return d, false
}

// Kinds of extended permissions (security/selinux/include/avc.h).
const (
	xpermFunction = 1 + iota // the numbers are those of one driver
	xpermDriver              // each number stands for all of a driver
	xpermNlmsg
)

func (x *xperms) ranges() (list []Range) {
	for n := range 256 {
		if x.perms[n/32]>>(n%32)&1 == 0 {
			continue
		}
		one := Range{uint16(x.driver)<<8 | uint16(n), uint16(x.driver)<<8 | uint16(n)}
		if x.kind == xpermDriver {
			one = Range{uint16(n) << 8, uint16(n)<<8 | 0xff}
		}
		if last := len(list) - 1; last >= 0 && list[last].High+1 == one.Low {
			list[last].High = one.High
			continue
		}
		list = append(list, one)
	}
	return list
}

// compact sorts rules and puts those together that differ in permissions only.
func compact(rules []Rule) []Rule {
	order := func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Condition, b.Condition), cmp.Compare(a.Statement, b.Statement), cmp.Compare(a.Source, b.Source),
			cmp.Compare(a.Target, b.Target), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Result, b.Result))
	}
	slices.SortStableFunc(rules, order)
	var merged []Rule
	for _, r := range rules {
		if last := len(merged) - 1; last >= 0 && order(merged[last], r) == 0 && r.Nlmsg == merged[last].Nlmsg {
			m := &merged[last]
			m.Permissions = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(m.Permissions), r.Permissions...))))
			for _, c := range r.Commands {
				if !slices.Contains(m.Commands, c) {
					m.Commands = append(m.Commands, c)
				}
			}
			slices.SortFunc(m.Commands, func(a, b Range) int { return cmp.Compare(a.Low, b.Low) })
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// cilCondition writes a condition as CIL does, for the branch that is taken when it is true or when it is false.
func (p *Policy) cilCondition(c *conditional, branch bool) string {
	names := map[uint32]string{condOr: "or", condAnd: "and", condXor: "xor", condEq: "eq", condNeq: "neq"}
	var stack []string
	for _, step := range c.expr {
		switch {
		case step.op == condBool:
			stack = append(stack, p.booleans[step.boolean-1].name)
		case step.op == condNot && len(stack) >= 1:
			stack[len(stack)-1] = "(not " + stack[len(stack)-1] + ")"
		case len(stack) >= 2:
			stack = append(stack[:len(stack)-2], fmt.Sprintf("(%s %s %s)", names[step.op], stack[len(stack)-2], stack[len(stack)-1]))
		}
	}
	text := strings.Join(stack, " ")
	if !branch {
		text = "(not " + text + ")"
	}
	if !strings.HasPrefix(text, "(") {
		text = "(" + text + ")"
	}
	return text
}

// CIL writes a rule for a type of this name in place of Self.
func (r Rule) CIL(name string) string {
	source, target := r.Source, r.Target
	if source == Self {
		source = name
		if target == Self && r.Statement != "allow" && r.Statement != "allowx" {
			target = name
		}
	} else if target == Self {
		target = name
	}
	switch r.Statement {
	case "allow":
		return fmt.Sprintf("(allow %s %s (%s (%s)))", source, target, r.Class, strings.Join(r.Permissions, " "))
	case "allowx":
		var commands []string
		for _, c := range r.Commands {
			if c.Low == c.High {
				commands = append(commands, fmt.Sprintf("0x%04x", c.Low))
			} else {
				commands = append(commands, fmt.Sprintf("(range 0x%04x 0x%04x)", c.Low, c.High))
			}
		}
		kind := "ioctl"
		if r.Nlmsg {
			kind = "nlmsg"
		}
		return fmt.Sprintf("(allowx %s %s (%s %s (%s)))", source, target, kind, r.Class, strings.Join(commands, " "))
	}
	return fmt.Sprintf("(%s %s %s %s %s)", r.Statement, source, target, r.Class, r.Result)
}

// Package policydb answers questions about a policy that the kernel has loaded or would load: what a domain may do to a type, which
// boolean would allow it, which categories forbid it, which rules hide its denials, which types an attribute has.
//
// It reads the binary form, the very bytes that decide (docs/adr/0021-loaded-policy-not-the-store.md). Names of attributes that no rule
// uses, macros, blocks and the modules that rules come from are not in it.
//
// Do not use it to decide an access: ask the kernel, which also knows of bounds, validatetrans and what changed since.
package policydb

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// Policy is a policy taken apart. It does not change; methods may be called by several goroutines.
type Policy struct {
	Symbols

	rules      []rule // sorted by source
	conds      []conditional
	fsUse      []fsUse
	unlabeled  uint16
	first      []int32 // for each value, where its rules begin
	dontaudits int
}

type fsUse struct {
	name      string
	behaviour uint32
	typ       uint16
}

const (
	ruleAllow      = 0x1
	ruleAuditDeny  = 0x4
	ruleTransition = 0x10
	ruleMember     = 0x20
	ruleChange     = 0x40
	ruleXAllow     = 0x100
	ruleXperms     = 0x700
)

type rule struct {
	source, target, class, kind uint16
	data                        uint32
	x                           *xperms
}

type xperms struct {
	kind, driver byte
	perms        [8]uint32
}

type conditional struct {
	expr                []condStep
	whenTrue, whenFalse []rule
}

type condStep struct{ op, boolean uint32 }

// index checks that all numbers lead somewhere, and prepares what the questions need.
func (p *Policy) index() error {
	check := func(list []rule) error {
		for _, r := range list {
			if r.source == 0 || int(r.source) > len(p.types) || r.target == 0 || int(r.target) > len(p.types) ||
				r.class == 0 || int(r.class) > len(p.classes) {
				return errors.New("a rule names a type or a class that does not exist")
			}
		}
		return nil
	}
	if err := check(p.rules); err != nil {
		return err
	}
	for _, c := range p.conds {
		if err := errors.Join(check(c.whenTrue), check(c.whenFalse)); err != nil {
			return err
		}
		for _, step := range c.expr {
			if step.op == condBool && (step.boolean == 0 || int(step.boolean) > len(p.booleans)) {
				return errors.New("a condition names a boolean that does not exist")
			}
		}
	}
	for i := range p.types {
		t := &p.types[i]
		t.sets.each(len(p.types), func(bit uint32) {
			t.within = append(t.within, uint16(bit+1))
			if int(bit) != i {
				p.types[bit].members = append(p.types[bit].members, uint16(i+1))
			}
		})
		if !slices.Contains(t.within, uint16(i+1)) {
			t.within = append(t.within, uint16(i+1))
		}
	}
	// By their sources, in the order of the file: so many are before those of a source as have a lesser one.
	p.first = make([]int32, len(p.types)+2)
	for _, r := range p.rules {
		p.first[r.source+1]++
	}
	for value := range len(p.first) - 1 {
		p.first[value+1] += p.first[value]
	}
	sorted, next := make([]rule, len(p.rules)), slices.Clone(p.first)
	for _, r := range p.rules {
		sorted[next[r.source]] = r
		next[r.source]++
	}
	p.rules = sorted
	for _, r := range p.rules {
		if r.kind == ruleAuditDeny && r.data != ^uint32(0) {
			p.dontaudits++
		}
	}
	return nil
}

// from gives the unconditional rules whose source is exactly this type or attribute.
func (p *Policy) from(value uint16) []rule { return p.rules[p.first[value]:p.first[value+1]] }

// Dontaudits counts the rules that hide denials. A policy that was built with dontaudit rules stripped has none.
func (p *Policy) Dontaudits() int { return p.dontaudits }

// Unlabeled is the type of files without a label.
func (p *Policy) Unlabeled() string { return p.name(p.unlabeled) }

// Generated tells the names that the compiler made for expressions in rules.
func Generated(name string) bool {
	return strings.Contains(name, "_typeattr_") || name == "cil_gen_require"
}

// Type is what is known of a type or an attribute.
type Type struct {
	Name       string   `json:"name"`
	Attribute  bool     `json:"attribute"`
	Aliases    []string `json:"aliases,omitempty"`
	Permissive bool     `json:"permissive,omitempty"` // only this domain is permissive
	Attributes []string `json:"attributes,omitempty"` // of a type
	Types      []string `json:"types,omitempty"`      // of an attribute
}

// Describe tells the attributes of a type, or the types of an attribute.
func (p *Policy) Describe(name string) (Type, error) {
	value, err := p.lookup("type or attribute", name)
	if err != nil {
		return Type{}, err
	}
	t := p.types[value-1]
	d := Type{Name: t.name, Attribute: t.attribute, Aliases: slices.Sorted(slices.Values(t.aliases)), Permissive: t.permissive}
	if t.attribute {
		for _, member := range t.members {
			d.Types = append(d.Types, p.name(member))
		}
		slices.Sort(d.Types)
		return d, nil
	}
	for _, set := range t.within {
		if set != value && !Generated(p.name(set)) {
			d.Attributes = append(d.Attributes, p.name(set))
		}
	}
	slices.Sort(d.Attributes)
	return d, nil
}

// spread gives the values that rules about a type can name: itself and its attributes. For an attribute: itself alone.
func (p *Policy) spread(value uint16) []uint16 { return p.types[value-1].within }

// Access is what a rule or several allow on one class.
type Access struct {
	Class       string   `json:"class"`
	Permissions []string `json:"permissions"`
	// Condition is the expression of booleans under which it is so, "" for always; Holds tells whether it holds now.
	Condition string `json:"condition,omitempty"`
	Holds     bool   `json:"holds"`
}

// May tells what a domain may do to a type, first what it always may, then under conditions, in order of classes. Constraints such
// as categories can forbid still.
func (p *Policy) May(domain, target string) ([]Access, error) {
	d, err := p.lookup("domain", domain)
	if err != nil {
		return nil, err
	}
	t, err := p.lookup("type", target)
	if err != nil {
		return nil, err
	}
	always := map[uint16]uint32{}
	targets := p.spread(t)
	for _, source := range p.spread(d) {
		for _, r := range p.from(source) {
			if r.kind == ruleAllow && slices.Contains(targets, r.target) {
				always[r.class] |= r.data
			}
		}
	}
	list := p.accesses(always, "", true)
	sources := p.spread(d)
	for i := range p.conds {
		c := &p.conds[i]
		for _, branch := range []bool{true, false} {
			under := map[uint16]uint32{}
			for _, r := range c.rules(branch) {
				if r.kind == ruleAllow && slices.Contains(sources, r.source) && slices.Contains(targets, r.target) {
					under[r.class] |= r.data &^ always[r.class]
				}
			}
			list = append(list, p.accesses(under, p.condition(c, branch), p.holds(c) == branch)...)
		}
	}
	return list, nil
}

func (c *conditional) rules(branch bool) []rule {
	if branch {
		return c.whenTrue
	}
	return c.whenFalse
}

func (p *Policy) accesses(masks map[uint16]uint32, condition string, holds bool) (list []Access) {
	for class, mask := range masks {
		if names := p.permissions(class, mask); len(names) > 0 {
			list = append(list, Access{p.classes[class-1].name, names, condition, holds})
		}
	}
	slices.SortFunc(list, func(a, b Access) int { return cmp.Compare(a.Class, b.Class) })
	return list
}

func (p *Policy) permissions(class uint16, mask uint32) (names []string) {
	for i, name := range p.classes[class-1].perms {
		if mask>>i&1 == 1 && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mask gives the bits of permissions, and those names that the class does not have.
func (p *Policy) mask(class uint16, permissions []string) (mask uint32, unknown []string) {
	for _, name := range permissions {
		if i := slices.Index(p.classes[class-1].perms, name); i >= 0 && name != "" {
			mask |= 1 << i
		} else {
			unknown = append(unknown, name)
		}
	}
	return mask, unknown
}

// Question is one access: may this domain do this to that.
type Question struct {
	Domain, Target, Class string
	Permissions           []string
}

// resolve gives the numbers of a question, and false if the policy lacks one of its names.
func (p *Policy) resolve(q Question) (d, t, c uint16, mask uint32, ok bool) {
	d, t, c = p.typeByName[q.Domain], p.typeByName[q.Target], p.classByName[q.Class]
	if d == 0 || t == 0 || c == 0 {
		return 0, 0, 0, 0, false
	}
	mask, unknown := p.mask(c, q.Permissions)
	return d, t, c, mask, len(unknown) == 0
}

// Resolve gives a question with the target's proper name in place of an alias, and an UnknownError if the policy lacks the type, the
// class or a permission. What a record says need not be in the policy: it can be of another host, or made up.
func (p *Policy) Resolve(q Question) (Question, error) {
	t, err := p.lookup("type", q.Target)
	if err != nil {
		return q, err
	}
	if p.types[t-1].attribute {
		return q, &UnknownError{What: "type", Name: q.Target} // but an attribute, which no record can have
	}
	c := p.classByName[q.Class]
	if c == 0 {
		return q, &UnknownError{What: "class", Name: q.Class}
	}
	if _, unknown := p.mask(c, q.Permissions); len(unknown) > 0 {
		return q, &UnknownError{What: "permission of the class " + q.Class, Name: unknown[0]}
	}
	q.Target = p.name(t)
	return q, nil
}

// allowed gives what rules allow, those included whose condition holds now.
func (p *Policy) allowed(d, t, class uint16) uint32 {
	var mask uint32
	targets := p.spread(t)
	for _, source := range p.spread(d) {
		for _, r := range p.from(source) {
			if r.kind == ruleAllow && r.class == class && slices.Contains(targets, r.target) {
				mask |= r.data
			}
		}
	}
	for i := range p.conds {
		c := &p.conds[i]
		for _, r := range c.rules(p.holds(c)) {
			if p.concerns(&r, d, targets, class) {
				mask |= r.data
			}
		}
	}
	return mask
}

func (p *Policy) concerns(r *rule, domain uint16, targets []uint16, class uint16) bool {
	return r.kind == ruleAllow && r.class == class && slices.Contains(p.spread(domain), r.source) && slices.Contains(targets, r.target)
}

// Allowed tells whether the rules allow all that is asked, whatever constraints say. A name that the policy lacks is not allowed.
func (p *Policy) Allowed(q Question) bool {
	d, t, c, mask, ok := p.resolve(q)
	return ok && p.allowed(d, t, c)&mask == mask
}

// Hidden gives those permissions of the question whose denial a dontaudit rule keeps out of the log.
func (p *Policy) Hidden(q Question) []string {
	d, t, c, mask, ok := p.resolve(q)
	if !ok {
		return nil
	}
	var hidden uint32
	targets := p.spread(t)
	for _, source := range p.spread(d) {
		for _, r := range p.from(source) {
			if r.kind == ruleAuditDeny && r.class == c && slices.Contains(targets, r.target) {
				hidden |= ^r.data
			}
		}
	}
	return p.permissions(c, hidden&mask)
}

// Ioctl gives those ioctl commands that the rules do not allow although they allow ioctl: rules can limit it to some commands. limited says
// that there are such rules for this domain, type and class.
func (p *Policy) Ioctl(q Question, commands []uint16) (missing []uint16, limited bool) {
	d, t, c, _, ok := p.resolve(Question{q.Domain, q.Target, q.Class, nil})
	if !ok {
		return nil, false
	}
	targets := p.spread(t)
	var allowed []Range
	collect := func(list []rule) {
		for i := range list {
			r := &list[i]
			if r.kind == ruleXAllow && r.x.kind != xpermNlmsg && r.class == c && slices.Contains(p.spread(d), r.source) && slices.Contains(targets, r.target) {
				allowed, limited = append(allowed, r.x.ranges()...), true
			}
		}
	}
	for _, source := range p.spread(d) {
		collect(p.from(source))
	}
	for i := range p.conds {
		collect(p.conds[i].rules(p.holds(&p.conds[i])))
	}
	for _, command := range commands {
		if limited && !slices.ContainsFunc(allowed, func(r Range) bool { return r.Low <= command && command <= r.High }) {
			missing = append(missing, command)
		}
	}
	return missing, limited
}

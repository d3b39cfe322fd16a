package policydb

import (
	"fmt"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Steps of a constraint (security/selinux/ss/constraint.h).
const (
	exprNot = 1 + iota
	exprAnd
	exprOr
	exprAttr
	exprNames
)

const (
	attrUser    = 1
	attrRole    = 2
	attrType    = 4
	attrTarget  = 8
	attrXTarget = 16
	attrL1L2    = 32
	attrL1H2    = 64
	attrH1L2    = 128
	attrH1H2    = 256
	attrL1H1    = 512
	attrL2H2    = 1024
	levels      = attrL1L2 | attrL1H2 | attrH1L2 | attrH1H2 | attrL1H1 | attrL2H2
)

const (
	opEqual = 1 + iota
	opNotEqual
	opDominates
	opDominatedBy
	opIncomparable
)

type constraint struct {
	perms uint32
	expr  []expression
}

type expression struct {
	kind, attr, op uint32
	names          bitmap
}

// context is a security context in numbers.
type context struct {
	user, role, typ uint32
	low, high       level
}

// context reads user:role:type:level. It gives false if the policy lacks a part.
func (p *Policy) context(text string) (context, bool) {
	parts := secontext.Context(text)
	levels, err := secontext.ParseRange(parts.Level())
	if err != nil {
		return context{}, false
	}
	c := context{
		user: uint32(slices.IndexFunc(p.users, func(u user) bool { return u.name == parts.User() }) + 1), role: uint32(slices.IndexFunc(p.roles, func(r role) bool { return r.name == parts.Role() }) + 1),
		typ: uint32(p.typeByName[parts.Type()]),
	}
	var low, high bool
	c.low, low = p.level(levels.Low)
	c.high, high = p.level(levels.High)
	return c, low && high && c.user != 0 && c.role != 0 && c.typ != 0
}

// Canonical gives a context as the kernel writes it when it has this policy: with the type's own name in place of an alias. It gives
// false if the policy lacks a part; whether a user may have a role, and a role a type, is not asked.
func (p *Policy) Canonical(text string) (string, bool) {
	c, ok := p.context(text)
	if !ok || p.types[c.typ-1].attribute {
		return "", false
	}
	return string(secontext.Context(text).WithType(p.name(uint16(c.typ))).Tidy()), true
}

// Refuses says why the kernel takes a context for one that is not valid, "" if it does not.
func (p *Policy) Refuses(text string) string {
	parts := secontext.Context(text)
	if parts.Check() != nil {
		return "it is not of the form user:role:type:level"
	}
	u := slices.IndexFunc(p.users, func(u user) bool { return u.name == parts.User() })
	r := slices.IndexFunc(p.roles, func(r role) bool { return r.name == parts.Role() })
	t := p.typeByName[parts.Type()]
	switch {
	case t == 0 || p.types[t-1].attribute:
		return "the policy has no type " + parts.Type()
	case r < 0:
		return "the policy has no role " + parts.Role()
	case u < 0:
		return "the policy has no user " + parts.User()
	}
	c, ok := p.context(text)
	if !ok {
		return "the policy has no level " + parts.Level()
	}
	if parts.Role() == objectRole { // which every user has, for every type and level
		return ""
	}
	switch owner := p.users[u]; {
	case !p.roles[r].types.has(uint32(t) - 1):
		return fmt.Sprintf("the role %s may not have the type %s", parts.Role(), parts.Type())
	case !owner.roles.has(uint32(r)):
		return fmt.Sprintf("the user %s may not have the role %s", parts.User(), parts.Role())
	case !c.low.dominates(owner.low) || !owner.high.dominates(c.high):
		return fmt.Sprintf("the user %s may not have the level %s", parts.User(), parts.Level())
	}
	return ""
}

const objectRole = "object_r"

func (p *Policy) level(from secontext.Level) (l level, ok bool) {
	name := fmt.Sprintf("s%d", from.Sensitivity)
	at := slices.IndexFunc(p.sensitivities, func(s sensitivity) bool { return s.name == name })
	if at < 0 {
		return l, false
	}
	l.sens = p.sensitivities[at].value
	value := func(n uint16) uint32 {
		name := fmt.Sprintf("c%d", n)
		if at := slices.IndexFunc(p.categories, func(c category) bool { return c.name == name }); at >= 0 {
			return p.categories[at].value
		}
		return 0
	}
	bits := map[uint32]uint64{}
	for _, span := range from.Categories {
		first, last := value(span.First), value(span.Last)
		if first == 0 || last < first {
			return l, false
		}
		for bit := first - 1; bit < last; bit++ {
			bits[bit&^63] |= 1 << (bit & 63)
		}
	}
	for start, set := range bits {
		l.cats = append(l.cats, node{start, set})
	}
	return l, true
}

func (l level) dominates(other level) bool {
	return l.sens >= other.sens && l.cats.contains(other.cats)
}

// Constraint is the verdict of the policy's constraints.
type Constraint struct {
	// Forbidden are the permissions that a constraint forbids, whatever the rules allow.
	Forbidden []string
	// ByLevel says that levels or categories forbid them, and not only users, roles and types.
	ByLevel bool
}

// Constraints tells what constraints forbid of an access between two contexts. It gives false if the policy lacks a part of a
// context.
func (p *Policy) Constraints(source, target, class string, permissions []string) (Constraint, bool) {
	s, ok1 := p.context(source)
	t, ok2 := p.context(target)
	number := p.classByName[class]
	if !ok1 || !ok2 || number == 0 {
		return Constraint{}, false
	}
	mask, _ := p.mask(number, permissions)
	var forbidden uint32
	var v Constraint
	for _, c := range p.classes[number-1].constraints {
		if c.perms&mask == 0 || c.eval(&s, &t) {
			continue
		}
		forbidden |= c.perms & mask
		if slices.ContainsFunc(c.expr, func(e expression) bool { return e.kind == exprAttr && e.attr&levels != 0 }) {
			v.ByLevel = true
		}
	}
	v.Forbidden = p.permissions(number, forbidden)
	return v, true
}

// eval tells whether the constraint is fulfilled. One that is no expression is, as the kernel has checked it.
func (c *constraint) eval(s, t *context) bool {
	var stack []bool
	for _, e := range c.expr {
		switch e.kind {
		case exprNot:
			if len(stack) < 1 {
				return true
			}
			stack[len(stack)-1] = !stack[len(stack)-1]
		case exprAnd, exprOr:
			if len(stack) < 2 {
				return true
			}
			a, b := stack[len(stack)-2], stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			stack[len(stack)-1] = e.kind == exprAnd && a && b || e.kind == exprOr && (a || b)
		case exprAttr:
			stack = append(stack, e.compare(s, t))
		case exprNames:
			who := s
			if e.attr&attrTarget != 0 {
				who = t
			}
			var value uint32
			switch {
			case e.attr&attrUser != 0:
				value = who.user
			case e.attr&attrRole != 0:
				value = who.role
			case e.attr&attrType != 0:
				value = who.typ
			}
			stack = append(stack, e.names.has(value-1) == (e.op == opEqual))
		}
	}
	return len(stack) != 1 || stack[0]
}

func (e *expression) compare(s, t *context) bool {
	switch e.attr {
	case attrUser:
		return (s.user == t.user) == (e.op == opEqual)
	case attrType:
		return (s.typ == t.typ) == (e.op == opEqual)
	case attrRole:
		// Dominance of roles was never used; the kernel compares them for equality in all policies at hand.
		return (s.role == t.role) == (e.op == opEqual)
	}
	var a, b level
	switch e.attr {
	case attrL1L2:
		a, b = s.low, t.low
	case attrL1H2:
		a, b = s.low, t.high
	case attrH1L2:
		a, b = s.high, t.low
	case attrH1H2:
		a, b = s.high, t.high
	case attrL1H1:
		a, b = s.low, s.high
	case attrL2H2:
		a, b = t.low, t.high
	}
	over, under := a.dominates(b), b.dominates(a)
	switch e.op {
	case opEqual:
		return over && under
	case opNotEqual:
		return !over || !under
	case opDominates:
		return over
	case opDominatedBy:
		return under
	case opIncomparable:
		return !over && !under
	}
	return true
}

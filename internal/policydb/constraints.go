package policydb

import (
	"slices"
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

// Bounded gives the type that bounds a domain (typebounds) and may not do what is asked, "" if there is none. The kernel takes that away from the domain,
// whatever rules it has itself (type_attribute_bounds_av in security/selinux/ss/services.c).
func (p *Policy) Bounded(q Question) string {
	d, t, class, mask, ok := p.resolve(q)
	for range len(p.types) { // a bound can be bounded, and there is no bound of a bound without end
		if !ok || p.types[d-1].bounds == 0 {
			return ""
		}
		d = p.types[d-1].bounds
		if bound := p.types[t-1].bounds; bound != 0 {
			t = bound
		}
		if p.allowed(d, t, class)&mask != mask {
			return p.name(d)
		}
	}
	return ""
}

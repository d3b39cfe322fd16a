package policydb

import (
	"fmt"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// context is a security context in numbers.
type context struct {
	user, role, typ uint32
	low, high       level
}

// context reads user:role:type:level. It gives false if the policy lacks a part.
func (p *Symbols) context(text string) (context, bool) {
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
func (p *Symbols) Canonical(text string) (string, bool) {
	c, ok := p.context(text)
	if !ok || p.types[c.typ-1].attribute {
		return "", false
	}
	return string(secontext.Context(text).WithType(p.name(uint16(c.typ))).Tidy()), true
}

// Refuses says why the kernel takes a context for one that is not valid, "" if it does not.
func (p *Symbols) Refuses(text string) string {
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

func (p *Symbols) level(from secontext.Level) (l level, ok bool) {
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

package policydb

import (
	"cmp"
	"slices"
)

// Difference is what one domain may do to a type and another may not.
type Difference struct {
	Target      string   `json:"target"` // Self for the domain itself
	Class       string   `json:"class"`
	Permissions []string `json:"permissions"`
}

// Beyond tells what a domain may always do and another may not, whatever booleans say of the rest: what it means to choose the one
// in place of the other.
func (p *Policy) Beyond(domain, other string) ([]Difference, error) {
	d, err := p.lookup("domain", domain)
	if err != nil {
		return nil, err
	}
	o, err := p.lookup("domain", other)
	if err != nil {
		return nil, err
	}
	has := p.reach(o)
	var list []Difference
	for on, mask := range p.reach(d) {
		name := p.name(on.target)
		same := on
		if on.target == d {
			name, same.target = Self, o
		}
		if permissions := p.permissions(on.class, mask&^has[same]); len(permissions) > 0 {
			list = append(list, Difference{name, p.classes[on.class-1].name, permissions})
		}
	}
	slices.SortFunc(list, compareDifferences)
	return list, nil
}

func compareDifferences(a, b Difference) int {
	return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Class, b.Class))
}

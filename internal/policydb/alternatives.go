package policydb

import (
	"cmp"
	"math/bits"
	"slices"
)

// Alternative is an existing domain that may do what another may not.
type Alternative struct {
	Domain string `json:"domain"`
	// Loses is the share of what base may do, counted in single permissions on single types, that this domain may not, 0 to 1.
	Loses float64 `json:"loses"`
}

// Alternatives finds domains that a program could run in instead of base, and that may do all of the questions, those that lose least
// of what base may do first. A domain counts if somebody who may start base may start it too, and if it is entered through files of the same types.
// Domains that may load kernel modules or another policy are no answer and left out.
func (p *Policy) Alternatives(base string, questions []Question) []Alternative {
	found := p.instead(base, questions, false)
	slices.SortFunc(found, func(a, b Alternative) int {
		return cmp.Or(cmp.Compare(a.Loses, b.Loses), cmp.Compare(a.Domain, b.Domain))
	})
	return found
}

// Unconfined finds domains such as Alternatives leaves out: those that may do all of the questions and take over the kernel besides, first those that
// have most attributes in common with base, as the domain for containers that are not confined has. A program in one of them is not confined.
func (p *Policy) Unconfined(base string, questions []Question) (names []string) {
	common := func(a Alternative) (n int) {
		for _, set := range p.spread(p.typeByName[a.Domain]) {
			if slices.Contains(p.spread(p.typeByName[base]), set) && !Generated(p.name(set)) {
				n++
			}
		}
		return n
	}
	found := p.instead(base, questions, true)
	slices.SortFunc(found, func(a, b Alternative) int {
		return cmp.Or(cmp.Compare(common(b), common(a)), cmp.Compare(a.Domain, b.Domain))
	})
	for _, a := range found {
		names = append(names, a.Domain)
	}
	return names
}

// instead finds the domains in which a program could run in place of base, those that may take over the kernel or the others.
func (p *Policy) instead(base string, questions []Question, unbound bool) []Alternative {
	from := p.typeByName[base]
	process, file := p.classByName["process"], p.classByName["file"]
	if from == 0 || process == 0 || file == 0 || len(questions) == 0 {
		return nil
	}
	transition, _ := p.mask(process, []string{"transition"})
	entrypoint, _ := p.mask(file, []string{"entrypoint"})
	starters := p.starters(process, transition)
	entries := p.targetsOf(from, file, entrypoint)
	var found []Alternative
	for i := range p.types {
		value := uint16(i + 1)
		if t := &p.types[i]; t.attribute || value == from || t.name == "" {
			continue
		}
		if !intersect(starters[value], starters[from]) || !intersect(p.targetsOf(value, file, entrypoint), entries) || p.unbound(value) != unbound {
			continue
		}
		name := p.name(value)
		if slices.ContainsFunc(questions, func(q Question) bool {
			if q.Target == q.Domain {
				q.Target = name
			}
			q.Domain = name
			return !p.Allowed(q)
		}) {
			continue
		}
		found = append(found, Alternative{name, p.loss(from, value)})
	}
	return found
}

// loss gives the share of what one domain may do that another may not.
func (p *Policy) loss(from, to uint16) float64 {
	has, would := p.reach(from), p.reach(to)
	var all, lost int
	for on, mask := range has {
		if on.target == from {
			on.target = to // what it may do to itself
		}
		all += bits.OnesCount32(mask)
		lost += bits.OnesCount32(mask &^ would[on])
	}
	if all == 0 {
		return 0
	}
	return float64(lost) / float64(all)
}

type object struct{ target, class uint16 }

// reach gives all that a domain may do always.
func (p *Policy) reach(domain uint16) map[object]uint32 {
	all := map[object]uint32{}
	for _, source := range p.spread(domain) {
		for _, r := range p.from(source) {
			if r.kind != ruleAllow {
				continue
			}
			for _, target := range p.expand(r.target) {
				all[object{target, r.class}] |= r.data
			}
		}
	}
	return all
}

// starters gives for each type the sources that rules name as allowed to do this to it.
func (p *Policy) starters(class uint16, mask uint32) map[uint16][]uint16 {
	byTarget := map[uint16][]uint16{}
	for _, r := range p.rules {
		if r.kind != ruleAllow || r.class != class || r.data&mask != mask {
			continue
		}
		for _, target := range p.expand(r.target) {
			for _, source := range p.expand(r.source) {
				if !slices.Contains(byTarget[target], source) {
					byTarget[target] = append(byTarget[target], source)
				}
			}
		}
	}
	return byTarget
}

// EnteredBy gives the domains that rules let enter a domain, itself left out, in the order of their names.
func (p *Policy) EnteredBy(domain string) (names []string) {
	value, process := p.typeByName[domain], p.classByName["process"]
	if value == 0 || process == 0 {
		return nil
	}
	transition, _ := p.mask(process, []string{"transition", "dyntransition"})
	sources := map[uint16]bool{}
	for _, r := range p.rules {
		if r.kind == ruleAllow && r.class == process && r.data&transition != 0 && slices.Contains(p.expand(r.target), value) {
			for _, source := range p.expand(r.source) {
				sources[source] = source != value
			}
		}
	}
	for source, other := range sources {
		if other {
			names = append(names, p.name(source))
		}
	}
	slices.Sort(names)
	return names
}

// expand gives the types of an attribute, or the type itself.
func (p *Policy) expand(value uint16) []uint16 {
	if t := &p.types[value-1]; t.attribute {
		return t.members
	}
	return []uint16{value}
}

// targetsOf gives the types to which a domain may do this.
func (p *Policy) targetsOf(domain, class uint16, mask uint32) (targets []uint16) {
	for _, source := range p.spread(domain) {
		for _, r := range p.from(source) {
			if r.kind == ruleAllow && r.class == class && r.data&mask == mask {
				targets = append(targets, p.expand(r.target)...)
			}
		}
	}
	return targets
}

func intersect(a, b []uint16) bool {
	return slices.ContainsFunc(a, func(v uint16) bool { return slices.Contains(b, v) })
}

// unbound tells whether a domain may take over the kernel, so that it confines nothing.
func (p *Policy) unbound(domain uint16) bool {
	for _, power := range []struct{ class, perm string }{
		{"capability", "sys_module"}, {"system", "module_load"}, {"security", "load_policy"}, {"security", "setenforce"},
	} {
		class := p.classByName[power.class]
		if class == 0 {
			continue
		}
		mask, unknown := p.mask(class, []string{power.perm})
		if len(unknown) == 0 && len(p.targetsOf(domain, class, mask)) > 0 {
			return true
		}
	}
	return false
}

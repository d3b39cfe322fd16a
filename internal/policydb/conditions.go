package policydb

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Steps of a condition, which stands in reverse Polish notation (security/selinux/ss/conditional.h).
const (
	condBool = 1 + iota
	condNot
	condOr
	condAnd
	condXor
	condEq
	condNeq
)

// eval gives the value of a condition; one that is no expression is false.
func (c *conditional) eval(value func(boolean uint32) bool) bool {
	var stack []bool
	for _, step := range c.expr {
		switch {
		case step.op == condBool:
			stack = append(stack, value(step.boolean))
			continue
		case step.op == condNot && len(stack) >= 1:
			stack[len(stack)-1] = !stack[len(stack)-1]
			continue
		case len(stack) < 2:
			return false
		}
		a, b := stack[len(stack)-2], stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		top := &stack[len(stack)-1]
		switch step.op {
		case condOr:
			*top = a || b
		case condAnd:
			*top = a && b
		case condXor, condNeq:
			*top = a != b
		case condEq:
			*top = a == b
		}
	}
	return len(stack) == 1 && stack[0]
}

func (p *Policy) holds(c *conditional) bool {
	return c.eval(func(b uint32) bool { return p.booleans[b-1].state })
}

// condition writes a condition in infix notation, for the branch that is taken when it is true or when it is false.
func (p *Policy) condition(c *conditional, branch bool) string {
	names := map[uint32]string{condOr: "or", condAnd: "and", condXor: "xor", condEq: "==", condNeq: "!="}
	var stack []string
	for _, step := range c.expr {
		switch {
		case step.op == condBool:
			stack = append(stack, p.booleans[step.boolean-1].name)
		case step.op == condNot && len(stack) >= 1:
			stack[len(stack)-1] = "not " + stack[len(stack)-1]
		case len(stack) >= 2:
			joined := "(" + stack[len(stack)-2] + " " + names[step.op] + " " + stack[len(stack)-1] + ")"
			stack = append(stack[:len(stack)-2], joined)
		}
	}
	text := strings.Join(stack, " ")
	if !branch {
		text = "not " + text
	}
	return text
}

// Setting is a boolean and the value that it would have to have.
type Setting struct {
	Boolean string `json:"boolean"`
	Value   bool   `json:"value"`
}

// maxFlips bounds the search in one condition; policies have conditions of one to three booleans.
const maxFlips = 6

// Booleans gives the settings of booleans, each enough alone, that would allow all of a question that is not allowed now, those
// with which the domain may do least besides first. nil if no boolean does.
func (p *Policy) Booleans(q Question) [][]Setting {
	d, t, class, mask, ok := p.resolve(q)
	if !ok {
		return nil
	}
	missing := mask &^ p.allowed(d, t, class)
	answers := p.flipsFor(d, t, class, missing)
	together := p.together(d, t, class, missing)
	enough := func(answer []Setting) bool { // a part of them, or all
		return !slices.ContainsFunc(answer, func(s Setting) bool { return !slices.Contains(together, s) })
	}
	if len(together) > 1 && !slices.ContainsFunc(answers, enough) {
		answers = append(answers, together)
	}
	return p.leastFirst(d, answers)
}

// flipsFor gives the settings with each of which one condition allows all that is missing.
func (p *Policy) flipsFor(d, t, class uint16, missing uint32) (answers [][]Setting) {
	if missing == 0 {
		return nil
	}
	targets := p.spread(t)
	for i := range p.conds {
		c := &p.conds[i]
		now := p.holds(c)
		var would uint32
		for _, r := range c.rules(!now) {
			if p.concerns(&r, d, targets, class) {
				would |= r.data
			}
		}
		if would&missing != missing {
			continue
		}
		if flips := p.flips(c, !now); flips != nil && !slices.ContainsFunc(answers, func(a []Setting) bool { return slices.Equal(a, flips) }) {
			answers = append(answers, flips)
		}
	}
	return answers
}

// together gives the settings that allow what is missing with a boolean for each permission, the least for each; nil if they do not.
func (p *Policy) together(d, t, class uint16, missing uint32) (all []Setting) {
	for left := missing; left != 0; left &= left - 1 {
		each := p.leastFirst(d, p.flipsFor(d, t, class, left&-left))
		if len(each) == 0 {
			return nil
		}
		for _, s := range each[0] {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	if p.would(d, all)[object{t, class}]&missing != missing {
		return nil // one takes away what another needs
	}
	slices.SortFunc(all, func(a, b Setting) int { return cmp.Compare(a.Boolean, b.Boolean) })
	return all
}

// leastFirst sorts settings by how much the domain may do with them that it may not now.
func (p *Policy) leastFirst(d uint16, answers [][]Setting) [][]Setting {
	if len(answers) < 2 {
		return answers
	}
	added := map[string]int{}
	for _, a := range answers {
		for _, difference := range p.adds(d, a) {
			added[fmt.Sprint(a)] += len(difference.Permissions)
		}
	}
	slices.SortStableFunc(answers, func(a, b []Setting) int {
		return cmp.Or(cmp.Compare(added[fmt.Sprint(a)], added[fmt.Sprint(b)]), cmp.Compare(len(a), len(b)), cmp.Compare(a[0].Boolean, b[0].Boolean))
	})
	return answers
}

// Adds tells what a domain may do with booleans set so, and may not now. What it may not any more is not told.
func (p *Policy) Adds(domain string, settings []Setting) []Difference {
	d := p.typeByName[domain]
	if d == 0 {
		return nil
	}
	return p.adds(d, settings)
}

func (p *Policy) adds(d uint16, settings []Setting) (list []Difference) {
	for on, mask := range p.would(d, settings) {
		name := p.name(on.target)
		if on.target == d {
			name = Self
		}
		if permissions := p.permissions(on.class, mask&^p.allowed(d, on.target, on.class)); len(permissions) > 0 {
			list = append(list, Difference{name, p.classes[on.class-1].name, permissions})
		}
	}
	slices.SortFunc(list, compareDifferences)
	return list
}

// would gives what conditions let a domain do that hold with booleans set so, and do not now.
func (p *Policy) would(d uint16, settings []Setting) map[object]uint32 {
	value := func(b uint32) bool {
		for _, s := range settings {
			if s.Boolean == p.booleans[b-1].name {
				return s.Value
			}
		}
		return p.booleans[b-1].state
	}
	sources, all := p.spread(d), map[object]uint32{}
	for i := range p.conds {
		c := &p.conds[i]
		then := c.eval(value)
		if then == p.holds(c) {
			continue
		}
		for _, r := range c.rules(then) {
			if r.kind != ruleAllow || !slices.Contains(sources, r.source) {
				continue
			}
			for _, target := range p.expand(r.target) {
				all[object{target, r.class}] |= r.data
			}
		}
	}
	return all
}

// flips gives the fewest booleans to change for a condition to get a value.
func (p *Policy) flips(c *conditional, want bool) []Setting {
	var involved []uint32
	for _, step := range c.expr {
		if step.op == condBool && !slices.Contains(involved, step.boolean) {
			involved = append(involved, step.boolean)
		}
	}
	if len(involved) > maxFlips {
		return nil
	}
	best := -1
	for change := 1; change < 1<<len(involved); change++ {
		value := func(b uint32) bool {
			return p.booleans[b-1].state != (change>>slices.Index(involved, b)&1 == 1)
		}
		if c.eval(value) == want && (best < 0 || bits.OnesCount(uint(change)) < bits.OnesCount(uint(best))) {
			best = change
		}
	}
	var settings []Setting
	for i, b := range involved {
		if best > 0 && best>>i&1 == 1 {
			settings = append(settings, Setting{p.booleans[b-1].name, !p.booleans[b-1].state})
		}
	}
	return settings
}

// SetBooleans gives the booleans the values of a running system; names that the policy does not have are passed over. Call it before the
// Policy is used.
func (p *Policy) SetBooleans(values map[string]bool) {
	for name, value := range values {
		if n, ok := p.boolByName[name]; ok {
			p.booleans[n-1].state = value
		}
	}
}

// BooleanNames gives the names of all booleans in order.
func (p *Policy) BooleanNames() []string {
	names := make([]string, 0, len(p.booleans))
	for _, b := range p.booleans {
		names = append(names, b.name)
	}
	slices.Sort(names)
	return names
}

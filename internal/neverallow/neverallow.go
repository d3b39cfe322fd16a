// Package neverallow knows what the authors of a policy forbid ever to allow: its neverallow rules. They stand in the modules of a store, in CIL;
// the policy that the kernel loads has none of them. Where libsemanage is told to check them, as on Flatcar, a module that breaks one does not build.
//
// It reads as much of CIL as it takes to tell which types a rule is about: sets of types with their expressions, optional parts and blocks. What a
// macro or an inherited block brings is not seen. Do not use it to be sure that a module builds: the build tells.
package neverallow

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/cil"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// Rules are the neverallow rules of a policy's modules.
type Rules struct {
	policy *policydb.Policy
	rules  []rule
	sets   map[string][]expression // by the name of an attribute
}

type rule struct {
	source, target string
	class          string
	permissions    node
	text           string
}

type expression struct {
	of    node
	block string // in which it stands, with a dot behind it
}

// New gives the rules of no module. The policy is the one that was built from the modules: it tells which names are types.
func New(p *policydb.Policy) *Rules { return &Rules{policy: p, sets: map[string][]expression{}} }

// Add reads a module.
func (r *Rules) Add(in io.Reader) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return parse(string(text), func(statement node) { r.take(statement, "") })
}

func (r *Rules) take(s node, block string) {
	if len(s.list) < 3 {
		return
	}
	switch s.list[0].word {
	case "optional":
		for _, inner := range s.list[2:] {
			r.take(inner, block)
		}
	case "block":
		for _, inner := range s.list[2:] {
			r.take(inner, block+s.list[1].word+".")
		}
	case "typeattributeset":
		name := r.resolve(s.list[1].word, block)
		r.sets[name] = append(r.sets[name], expression{s.list[2], block})
	case "neverallow":
		if len(s.list) != 4 || len(s.list[3].list) != 2 {
			return // with a named set of permissions, which hardly any policy has
		}
		r.rules = append(r.rules, rule{
			source: r.resolve(s.list[1].word, block), target: r.resolve(s.list[2].word, block), class: s.list[3].list[0].word, permissions: s.list[3].list[1], text: s.String(),
		})
	}
}

// resolve gives the full name of what is named in a block: the block's own, or everybody's.
func (r *Rules) resolve(name, block string) string {
	for ; block != ""; block = block[:strings.LastIndexByte(strings.TrimSuffix(block, "."), '.')+1] {
		if full := block + name; r.policy.Has(full) || r.sets[full] != nil {
			return r.policy.Name(full)
		}
	}
	return r.policy.Name(name)
}

// Question is one access that a rule is to allow.
type Question struct {
	// Source and Target are types. A type that the policy has not is one with all the attributes of Like that have a name of their own.
	Source, Like, Target string
	Class, Permission    string
}

// Forbids gives the rule that forbids ever to allow this, "" if there is none that can be told.
func (r *Rules) Forbids(q Question) string {
	for i := range r.rules {
		rule := &r.rules[i]
		if rule.class != q.Class || !named(rule.permissions, q.Permission) || !r.has(rule.source, q.Source, q.Like, nil) {
			continue
		}
		var about bool
		switch rule.target {
		case "self":
			about = q.Target == q.Source
		case "notself":
			about = q.Target != q.Source
		default:
			about = r.has(rule.target, q.Target, q.Like, nil)
		}
		if about {
			return rule.text
		}
	}
	return ""
}

// named tells whether a list or an expression of permissions has one.
func named(of node, permission string) bool {
	if len(of.list) == 0 {
		return of.word == permission || of.word == "all"
	}
	switch rest := of.list[1:]; of.list[0].word {
	case "not":
		return len(rest) == 1 && !named(rest[0], permission)
	case "and":
		return !slices.ContainsFunc(rest, func(n node) bool { return !named(n, permission) })
	}
	return slices.ContainsFunc(of.list, func(n node) bool { return named(n, permission) })
}

// has tells whether a type is meant by the name of a type or an attribute. on are the attributes that are being looked at.
func (r *Rules) has(name, typ, like string, on []string) bool {
	if name == typ {
		return true
	}
	if slices.Contains(on, name) {
		return false
	}
	if set := r.sets[name] != nil && r.policy.Has(name) && !policydb.Generated(name); set && typ != like && !r.policy.Has(typ) && r.has(name, like, like, on) {
		return true
	}
	on = append(on, name)
	return slices.ContainsFunc(r.sets[name], func(e expression) bool { return r.in(e.of, e.block, typ, like, on) })
}

// in tells whether a type is in a set.
func (r *Rules) in(of node, block, typ, like string, on []string) bool {
	if of.list == nil {
		return of.word == "all" || r.has(r.resolve(of.word, block), typ, like, on)
	}
	if len(of.list) == 0 {
		return false
	}
	in := func(n node) bool { return r.in(n, block, typ, like, on) }
	switch rest := of.list[1:]; of.list[0].word {
	case "not":
		return len(rest) == 1 && !in(rest[0])
	case "and":
		return !slices.ContainsFunc(rest, func(n node) bool { return !in(n) })
	case "or":
		return slices.ContainsFunc(rest, in)
	case "xor":
		return len(rest) == 2 && in(rest[0]) != in(rest[1])
	}
	return slices.ContainsFunc(of.list, in)
}

// node is a word, or a list of nodes.
type node struct {
	word string
	list []node // not nil for a list
}

// String writes it as it stood, in one line.
func (n node) String() string {
	if n.list == nil {
		return n.word
	}
	var words []string
	for _, each := range n.list {
		words = append(words, each.String())
	}
	return "(" + strings.Join(words, " ") + ")"
}

// maxDepth is how deep lists may be in each other: real policies have some ten.
const maxDepth = 100

// parse calls each with every statement of a text in CIL.
func parse(text string, each func(node)) error {
	if line, problem := cil.Check(text); problem != "" {
		return fmt.Errorf("line %d: %s", line, problem)
	}
	var open [][]node
	for token := range cil.Tokens(text) {
		last := len(open) - 1
		switch {
		case token.Text == "(" && len(open) == maxDepth:
			return fmt.Errorf("line %d: its lists are more than %d deep", token.Line, maxDepth)
		case token.Text == "(":
			open = append(open, []node{})
		case token.Text == ")" && last == 0:
			each(node{list: open[0]})
			open = open[:0]
		case token.Text == ")":
			open[last-1] = append(open[last-1], node{list: open[last]})
			open = open[:last]
		default:
			open[last] = append(open[last], node{word: token.Text})
		}
	}
	return nil
}

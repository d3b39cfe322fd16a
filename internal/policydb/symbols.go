package policydb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/spelling"
)

// Symbols are the names of a policy with what stands beside them: all that comes before its rules. They tell which contexts there are. They do not
// change; methods may be called by several goroutines.
type Symbols struct {
	// Version is N of policy.N, 0 if nothing was read.
	Version int

	types         []typeInfo // by value minus 1
	classes       []class
	roles         []role
	users         []user
	booleans      []boolean
	sensitivities []sensitivity
	categories    []category

	typeByName  map[string]uint16
	classByName map[string]uint16
	boolByName  map[string]uint32
}

type typeInfo struct {
	name       string
	aliases    []string
	attribute  bool
	permissive bool
	bounds     uint16   // the type that bounds it, 0 if none does
	sets       bitmap   // of a type: its attributes, and itself
	within     []uint16 // the same as values
	members    []uint16 // of an attribute: its types
}

type role struct {
	name  string
	types bitmap
}

type user struct {
	name      string
	roles     bitmap
	low, high level
}

type class struct {
	name        string
	perms       []string
	constraints []constraint
}

type boolean struct {
	name  string
	state bool
}

type sensitivity struct {
	name  string
	value uint32
}

type category struct {
	name  string
	value uint32
}

func (p *Symbols) name(value uint16) string {
	if value == 0 || int(value) > len(p.types) {
		return ""
	}
	return p.types[value-1].name
}

// UnknownError says that the policy does not have a name.
type UnknownError struct {
	What, Name string
	Similar    []string // names that it has and that could be meant
}

// Error names what is not there, and what could be meant.
func (e *UnknownError) Error() string {
	text := fmt.Sprintf("the policy has no %s %s", e.What, printable.Quote(e.Name))
	if len(e.Similar) > 0 {
		text += ": did you mean " + strings.Join(e.Similar, ", ") + "?"
	}
	return text
}

func (p *Symbols) lookup(what, name string) (uint16, error) {
	if v, ok := p.typeByName[name]; ok {
		return v, nil
	}
	return 0, &UnknownError{what, name, p.similar(name)}
}

// similar gives at most five names that are misspelt like this or contain it.
func (p *Symbols) similar(name string) []string {
	const far = 3
	distance := func(other string) int {
		if len(other)-len(name) >= far || len(name)-len(other) >= far {
			return far
		}
		return min(spelling.Distance(other, name), far)
	}
	var near []string
	stem := strings.TrimSuffix(name, "_t")
	for _, t := range p.types {
		if !Generated(t.name) && (len(stem) > 2 && strings.Contains(t.name, stem) || distance(t.name) < far) {
			near = append(near, t.name)
		}
	}
	slices.SortFunc(near, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return near[:min(5, len(near))]
}

// Has tells whether the policy has a type, an alias or an attribute of this name.
func (p *Symbols) Has(name string) bool { _, ok := p.typeByName[name]; return ok }

// Name gives a type's own name in place of an alias. What is none stays as it is.
func (p *Symbols) Name(name string) string {
	if value, ok := p.typeByName[name]; ok {
		return p.name(value)
	}
	return name
}

// Permissive gives the types whose denials are only reported, also where the kernel enforces, in order.
func (p *Symbols) Permissive() (names []string) {
	for i := range p.types {
		if t := &p.types[i]; t.permissive && !t.attribute {
			names = append(names, t.name)
		}
	}
	slices.Sort(names)
	return names
}

// NoDomain says why no process can run in what bears this name, "" if one can: it is a type, and a role may have it. Every type may stand with the
// role of files.
func (p *Symbols) NoDomain(name string) string {
	value, err := p.lookup("type", name)
	switch {
	case err != nil:
		return err.Error()
	case p.types[value-1].attribute:
		return "it is an attribute, which stands for many types: name each domain that is meant"
	case !slices.ContainsFunc(p.roles, func(r role) bool { return r.name != "object_r" && r.types.has(uint32(value-1)) }):
		return "it is no domain: no process can run in it, since no role may have it"
	}
	return ""
}

// Booleans gives the booleans with the values that they have when the kernel loads the policy for the first time.
func (p *Symbols) Booleans() map[string]bool {
	values := make(map[string]bool, len(p.booleans))
	for name, value := range p.boolByName {
		values[name] = p.booleans[value-1].state
	}
	return values
}

// Package roles knows the few kinds of containers that need more than the containers' domain, and writes for each a policy module in CIL:
// domains that are all that the containers' domain is in the policy at hand, and may do what the kind needs, and labels for its files.
//
// The module is made anew from the vendor's policy whenever the policy is built, so that it never lags behind an update, and has nothing
// in it that the policy does not know. Do not use it for what one workload needs: package propose makes a module from its denials.
package roles

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// Context is the type of the files whose whole path matches a regular expression.
type Context struct{ Path, Type string }

// Module begins the names of the modules that Write makes.
const Module = "selinux_provision_role_"

// Names are the roles that there are, in order.
func Names() (names []string) {
	for _, r := range definitions() {
		names = append(names, r.name)
	}
	return names
}

// Does says in a few words what a container in this role does; "" for what is no role.
func Does(name string) string {
	r, _ := find(name)
	return r.does
}

// Domains are the domains that a role brings.
func Domains(name string) (names []string) {
	r, _ := find(name)
	for _, d := range r.domains {
		names = append(names, d.name)
	}
	return names
}

// ModuleName is the name of a role's module.
func ModuleName(name string) string { return Module + strings.ReplaceAll(name, "-", "_") }

// Digest identifies what a role is in this release of the program.
func Digest(name string) string {
	r, _ := find(name)
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", r))
	return hex.EncodeToString(sum[:])
}

func find(name string) (role, bool) {
	all := definitions()
	if i := slices.IndexFunc(all, func(r role) bool { return r.name == name }); i >= 0 {
		return all[i], true
	}
	return role{}, false
}

// nameIn gives the name under which a policy has a type: before 2023 that of containers' files had another one, which is an alias since.
func nameIn(p *policydb.Policy, name string) string {
	const older = "svirt_lxc_file_t"
	if name == "container_file_t" && !p.Has(name) && p.Has(older) {
		return older
	}
	return name
}

// Contexts are the labels that a role gives to paths, as far as the policy has their types.
func Contexts(p *policydb.Policy, name string) (contexts []Context) {
	r, _ := find(name)
	for _, c := range r.contexts {
		if c.Type = nameIn(p, c.Type); r.brings(c.Type) || p.Has(c.Type) {
			contexts = append(contexts, c)
		}
	}
	return contexts
}

func (r *role) brings(typ string) bool {
	return slices.ContainsFunc(r.types, func(t fileType) bool { return t.name == typ }) || slices.ContainsFunc(r.domains, func(d domain) bool { return d.name == typ })
}

// ErrUnknownBase says that the policy has no domain for containers.
var ErrUnknownBase = errors.New("the policy does not say in which domain containers run")

// Write gives the module of a role for a policy, the vendor's. base is the containers' domain there.
func Write(p *policydb.Policy, base, name string) (string, error) {
	r, ok := find(name)
	if !ok {
		return "", fmt.Errorf("there is no role %s", name)
	}
	if base = p.Name(base); base == "" || !p.Has(base) {
		return "", ErrUnknownBase
	}
	for _, own := range r.own() {
		if p.Has(own) {
			return "", fmt.Errorf("the vendor's policy has a type or a boolean %s of its own: use that one", own)
		}
	}
	w := &writer{p: p, role: &r, base: base, prefix: ModuleName(name)}
	return w.write()
}

// own are the types that a role brings.
func (r *role) own() (names []string) {
	for _, t := range r.types {
		names = append(names, t.name)
	}
	for _, d := range r.domains {
		names = append(names, d.name)
	}
	return names
}

type writer struct {
	p         *policydb.Policy
	role      *role
	base      string
	prefix    string
	text      strings.Builder
	optionals int
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// optional writes statements that go together: if what they are about is gone from the policy, they go, and nothing else.
func (w *writer) optional(statements ...string) {
	w.optionals++
	w.line("(optional %s_%d %s)", w.prefix, w.optionals, strings.Join(statements, " "))
}

func (w *writer) write() (string, error) {
	w.line("; The role %s: it %s.", w.role.name, w.role.does)
	w.line("; Made by selinux-provision from the vendor's policy. It is made anew with each build.")
	for _, b := range w.role.booleans {
		w.line("(boolean %s false)", b)
	}
	starters := w.p.EnteredBy(w.base)
	for _, t := range w.role.types {
		w.fileType(t, starters)
	}
	if len(w.role.domains) > 0 {
		like, err := w.p.Like(w.base)
		if err != nil {
			return "", err
		}
		for _, d := range w.role.domains {
			w.domain(d, like)
		}
	}
	for _, m := range w.role.made {
		m.in, m.as = nameIn(w.p, m.in), nameIn(w.p, m.as)
		if w.p.Has(m.in) && w.known(m.as) && slices.Contains(starters, "kernel_t") {
			w.optional(fmt.Sprintf("(typetransition kernel_t %s dir \"%s\" %s)", m.in, m.name, m.as))
		}
	}
	return w.text.String(), nil
}

func (w *writer) known(typ string) bool { return w.role.brings(typ) || w.p.Has(typ) }

// fileType writes a type for files, which the host may use as it uses its own: it is the host's, and no container's.
func (w *writer) fileType(t fileType, starters []string) {
	w.line("(type %s)", t.name)
	w.line("(roletype object_r %s)", t.name)
	attributes := []string{"file_type", "non_security_file_type", "non_auth_file_type"}
	if t.executable {
		attributes = append(attributes, "exec_type")
	} // and not configfile otherwise: every container may read what is one
	for _, a := range attributes {
		w.optional(fmt.Sprintf("(typeattributeset %s (%s))", a, t.name))
	}
	for _, s := range starters {
		files := readFile + " map"
		if t.executable {
			files += " execute execute_no_trans"
		}
		w.allow(s, t.name, "dir", listDir, "")
		w.allow(s, t.name, "file", files, "")
		w.allow(s, t.name, "lnk_file", readLink, "")
	}
}

func (w *writer) domain(d domain, like policydb.Likeness) {
	w.p.WriteDomain(w.line, policydb.NewDomain{Module: w.prefix + "_" + d.name, Name: d.name, Base: w.base}, like)
	w.line("")
	w.line("; What the role may do besides.")
	for _, a := range d.in {
		w.optional(fmt.Sprintf("(typeattributeset %s (%s))", a, d.name))
	}
	for _, g := range d.grants {
		on, without := split(g.on)
		for _, target := range on {
			target = nameIn(w.p, target)
			if !w.known(target) && target != policydb.Self {
				continue
			}
			w.allowBut(d.name, target, without, g)
		}
	}
	for _, in := range d.lowest {
		for _, class := range []string{"dir", "file", "lnk_file"} {
			if w.known(in) {
				w.optional(fmt.Sprintf("(rangetransition %s %s %s ((s0) (s0)))", d.name, in, class))
			}
		}
	}
}

// split parts the names of a grant in those that are meant and those that are not.
func split(on string) (meant, not []string) {
	for _, word := range strings.Fields(on) {
		if name, is := strings.CutPrefix(word, "-"); is {
			not = append(not, name)
			continue
		}
		meant = append(meant, word)
	}
	return meant, not
}

// allowBut writes a grant on a type, or on an attribute without some of its types.
func (w *writer) allowBut(domain, target string, without []string, g grant) {
	t, err := w.p.Describe(target)
	if err != nil || !t.Attribute {
		w.allow(domain, target, g.class, g.permissions, g.boolean)
		return
	}
	without = slices.DeleteFunc(slices.Clone(without), func(name string) bool { return !w.p.Has(name) })
	if len(without) == 0 {
		w.allow(domain, target, g.class, g.permissions, g.boolean)
		return
	}
	set := fmt.Sprintf("%s_set_%d", w.prefix, w.optionals)
	w.line("(typeattribute %s)", set)
	w.optional(fmt.Sprintf("(typeattributeset %s (and %s (not (%s))))", set, target, strings.Join(without, " ")))
	w.allow(domain, set, g.class, g.permissions, g.boolean)
}

// allow writes a rule with the permissions that the policy knows.
func (w *writer) allow(source, target, class, permissions, boolean string) {
	known := knownPermissions(w.p, w.base, class, permissions)
	if len(known) == 0 {
		return
	}
	rule := fmt.Sprintf("(allow %s %s (%s (%s)))", source, target, class, strings.Join(known, " "))
	if boolean != "" {
		rule = fmt.Sprintf("(booleanif %s (true %s))", boolean, rule)
	}
	w.optional(rule)
}

// knownPermissions gives those permissions of a class that the policy has. base is any type that it has.
func knownPermissions(p *policydb.Policy, base, class, permissions string) (known []string) {
	for permission := range strings.FieldsSeq(permissions) {
		if _, err := p.Resolve(policydb.Question{Target: base, Class: class, Permissions: []string{permission}}); err == nil {
			known = append(known, permission)
		}
	}
	return known
}

// Offer is a role that allows what a container is denied.
type Offer struct {
	Role   string `json:"role"`
	Domain string `json:"domain"`
	// Boolean is the one that has to be on, "" if none has to be.
	Boolean string `json:"boolean,omitempty"`
	// Type is the label that the path gets with the role, "" if it is allowed with the one that it has.
	Type string `json:"type,omitempty"`
}

// Allowing gives the role that allows all of some questions of the containers' domain, if there is one that the policy does not have yet. Of several the one
// that allows least besides comes first; one that needs no boolean comes before one that does.
func Allowing(p *policydb.Policy, base string, questions []policydb.Question) (Offer, bool) {
	if !p.Has(base) || !slices.ContainsFunc(questions, func(q policydb.Question) bool { return !p.Allowed(q) }) {
		return Offer{}, false
	}
	best, least := Offer{}, 0
	for _, r := range definitions() {
		for _, d := range r.domains {
			if d.unasked || p.Has(d.name) {
				continue // it is one of the policy's domains
			}
			for _, boolean := range append([]string{""}, r.booleans...) {
				size := len(d.grants)
				if boolean != "" {
					size += 1000
				}
				if (best.Role == "" || size < least) && !slices.ContainsFunc(questions, func(q policydb.Question) bool { return !d.allows(p, base, boolean, q) }) {
					best, least = Offer{Role: r.name, Domain: d.name, Boolean: boolean}, size
				}
			}
		}
	}
	return best, best.Role != ""
}

// allows tells whether the domain, once it is there, may do all of a question.
func (d *domain) allows(p *policydb.Policy, base, boolean string, q policydb.Question) bool {
	self := q.Target == q.Domain
	if self {
		q.Target = base
	}
	q.Domain = base
	return !slices.ContainsFunc(q.Permissions, func(permission string) bool {
		one := q
		one.Permissions = []string{permission}
		return !p.Allowed(one) && !slices.ContainsFunc(d.grants, func(g grant) bool {
			return g.class == q.Class && (g.boolean == "" || g.boolean == boolean) && slices.Contains(strings.Fields(g.permissions), permission) && g.means(p, q.Target, self)
		})
	})
}

func (g *grant) means(p *policydb.Policy, target string, self bool) bool {
	on, without := split(g.on)
	if self {
		return slices.Contains(on, policydb.Self)
	}
	if slices.Contains(without, target) {
		return false
	}
	return slices.ContainsFunc(on, func(name string) bool {
		if name = nameIn(p, name); p.Name(name) == target {
			return true
		}
		t, err := p.Describe(name)
		return err == nil && t.Attribute && slices.Contains(t.Types, target)
	})
}

// ForPath gives the role that has a label for a path of the host with which a container in it may do all of a question.
func ForPath(p *policydb.Policy, base, path string, q policydb.Question) (Offer, bool) {
	for _, r := range definitions() {
		for _, c := range r.contexts {
			if !r.brings(c.Type) || !regexp.MustCompile("^(?:"+c.Path+")$").MatchString(path) {
				continue
			}
			q.Target = c.Type
			for _, d := range r.domains {
				if !d.unasked && !p.Has(d.name) && d.allows(p, base, "", q) {
					return Offer{Role: r.name, Domain: d.name, Type: c.Type}, true
				}
			}
		}
	}
	return Offer{}, false
}

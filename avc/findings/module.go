package findings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/propose"
	"github.com/selinux-provision/selinux-provision/internal/neverallow"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// ModuleQuery says what module is to be made of a report.
type ModuleQuery struct {
	// Name is the module's.
	Name string
	// Existing is a domain to add rules to, in place of a new one.
	Existing string
	// Source is the domain to be like, "" that of containers.
	Source string
	// Named are the IDs of findings that were chosen one by one, Dangerous the names of dangers that are allowed.
	Named, Dangerous []string
	// SeenOnly leaves out what an access that was stopped goes on with.
	SeenOnly bool
	// State is where this program keeps what the next boot relies on.
	State string
	// Priority is that of declared modules in the store.
	Priority int
}

// Module makes a policy module of the findings of a report that has a policy. propose.ErrNothing: none of them needs a rule; the module then
// says why.
func (h *Host) Module(r *Report, q ModuleQuery) (*propose.Module, error) {
	domain, err := propose.CheckName(q.Name)
	if err != nil {
		return nil, err
	}
	base := cmp.Or(q.Existing, avc.Context(r.ProcessContext).Type())
	if q.Existing == "" && q.Source != domain {
		base = cmp.Or(q.Source, base)
	}
	if base == "" {
		return nil, errors.New("cannot tell the domain of containers: there is no lxc_contexts: name the domain with --source")
	}
	// The file cannot be asked: the shell has just made it, if the text goes there.
	have := h.ModulePriorities(q.Name)
	if other := slices.IndexFunc(have, func(n int) bool { return n != q.Priority }); other >= 0 {
		return nil, fmt.Errorf("cannot name a module %s: the policy has another module of that name (priority %d), and this one would take its place: choose another name",
			q.Name, have[other])
	}
	return propose.Write(r.Policy, propose.Request{
		Name: q.Name, Base: base, Existing: q.Existing, Replaces: slices.Contains(have, q.Priority), Named: q.Named, Dangerous: q.Dangerous,
		SeenOnly: q.SeenOnly, NextBoot: nextBoot(r.expected, q.State), Forbidden: h.forbidden(r),
	}, r.Findings)
}

// nextBoot gives the types of what a boot takes from below /var and runs, or relies on, as root: system extensions, which lie over /usr, those of the
// configuration, which lie over /etc, portable services, and the state of this program. Where the file contexts are not known, they have the type that
// the reference policy gives to what it does not know in /var/lib.
func nextBoot(expected func(class, name string) string, state string) (types []string) {
	for _, dir := range []string{"/var/lib/extensions", "/var/lib/extensions.mutable", "/var/lib/confexts", "/var/lib/confexts.mutable", "/var/lib/portables", state} {
		for class, name := range map[string]string{"dir": dir, "file": dir + "/x"} {
			is := "var_lib_t"
			if expected != nil {
				is = cmp.Or(avc.Context(expected(class, name)).Type(), is)
			}
			if !slices.Contains(types, is) {
				types = append(types, is)
			}
		}
	}
	return types
}

// forbidden gives what the neverallow rules of the host's modules forbid, nil if the policy is not this host's own or the modules cannot be read.
func (h *Host) forbidden(r *Report) func(source, like, target, class, permission string) string {
	if r.foreign {
		return nil
	}
	rules, err := h.Neverallow(r.Policy)
	if err != nil || rules == nil {
		return nil
	}
	return func(source, like, target, class, permission string) string {
		return rules.Forbids(neverallow.Question{Source: source, Like: like, Target: target, Class: class, Permission: permission})
	}
}

// Behind is a domain of a declared module that has not all that the domain has which it is like.
type Behind struct {
	Module string   `json:"module"`
	Domain string   `json:"domain"`
	Base   string   `json:"base"`
	Lacks  []string `json:"lacks"`
}

// Behind finds, among modules in CIL by their names, those that Module made and that lack what their base has by now.
func (h *Host) Behind(ctx context.Context, modules map[string]string) (list []Behind, err error) {
	var p *policydb.Policy
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		domain, base, ok := propose.Made(modules[name])
		if !ok {
			continue
		}
		if p == nil {
			if p, err = h.Policy(ctx); err != nil {
				return nil, err
			}
		}
		if !p.Has(domain) || !p.Has(base) {
			continue // the module is left out, which is said elsewhere
		}
		lacks, err := propose.Behind(p, domain, base, h.forbidden(&Report{Policy: p}))
		if err != nil {
			return nil, err
		}
		if len(lacks) > 0 {
			list = append(list, Behind{name, domain, base, lacks})
		}
	}
	return list, nil
}

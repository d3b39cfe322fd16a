package findings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/propose"
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
	}, r.Findings)
}

package propose

import (
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// An access asks for its permissions one after the other, and when the host enforces the first that is denied ends it: to read a log is a read of a
// directory, then its open and getattr, then a link in it, then a file. Without what follows, each of them costs a run and a policy of its own.

// whole gives the permissions that the access goes on with which was stopped at a permission on a file of a class: on the file itself, and on
// what a directory is read or written for. It is what the reference policy has in its sets of permissions, without those that few programs use.
func whole(class, permission string) map[string][]string {
	read := []string{"getattr", "open", "read"}
	switch class {
	case "dir":
		switch permission {
		case "search":
			return map[string][]string{"dir": {"getattr", "search"}}
		case "read", "open":
			return map[string][]string{"dir": {"getattr", "open", "read", "search"}, "file": read, "lnk_file": {"getattr", "read"}}
		case "write", "add_name":
			return map[string][]string{"dir": {"add_name", "getattr", "search", "write"}, "file": {"create", "getattr", "open", "write"}}
		case "remove_name":
			return map[string][]string{"dir": {"getattr", "remove_name", "search", "write"}, "file": {"getattr", "unlink"}}
		}
	case "lnk_file":
		if permission == "read" {
			return map[string][]string{"lnk_file": {"getattr", "read"}}
		}
	case "file", "chr_file", "blk_file", "fifo_file", "sock_file":
		switch permission {
		case "read", "open":
			return map[string][]string{class: read}
		case "write", "append":
			return map[string][]string{class: {"getattr", "open", permission}}
		case "create":
			return map[string][]string{class: {"create", "getattr", "open", "write"}}
		case "execute":
			return map[string][]string{class: {"execute", "getattr", "map", "open", "read"}}
		}
	}
	return nil
}

// complete adds what the accesses that were stopped go on with, as far as the policy has it, it is not dangerous, and nothing forbids it. Of what was
// only reported nothing comes later: all of it was seen.
func (m *Module) complete(p *policydb.Policy, req Request, chosen []*judge.Finding) {
	for _, f := range chosen {
		if f.Permissive == f.Count || f.Target == f.Domain {
			continue
		}
		for _, permission := range f.PermissionList() {
			if at := m.rule(f.Target, f.Class); at < 0 || !slices.Contains(m.Rules[at].Permissions, permission) {
				continue // it was held back, or is forbidden
			}
			for class, more := range whole(f.Class, permission) {
				for _, next := range more {
					m.unseen(p, req, f, class, next)
				}
			}
		}
	}
	slices.SortFunc(m.Rules, compareRules)
}

func (m *Module) unseen(p *policydb.Policy, req Request, f *judge.Finding, class, permission string) {
	q := policydb.Question{Domain: f.Domain, Target: f.Target, Class: class, Permissions: []string{permission}}
	if _, err := p.Resolve(q); err != nil || p.Allowed(q) {
		return
	}
	if name, _ := req.held(f.Target, class, permission, false); name != "" || m.forbidden(req, f.Target, class, permission) != "" {
		return
	}
	at := m.rule(f.Target, class)
	if at < 0 {
		m.Rules = append(m.Rules, Rule{Target: f.Target, Class: class, Permissions: []string{}})
		at = len(m.Rules) - 1
	}
	r := &m.Rules[at]
	if slices.Contains(r.Permissions, permission) {
		return
	}
	if place, found := slices.BinarySearch(r.Unseen, permission); !found {
		r.Unseen = slices.Insert(r.Unseen, place, permission)
	}
	if !slices.Contains(r.Findings, f.ID) {
		r.Findings = append(r.Findings, f.ID)
	}
}

// rule gives the index of the rule for a target and a class, -1 if there is none.
func (m *Module) rule(target, class string) int {
	return slices.IndexFunc(m.Rules, func(r Rule) bool { return r.Target == target && r.Class == class })
}

// Unseen says in words what is in the module although it was not denied yet.
func (m *Module) Unseen() (said []string) {
	for _, r := range m.Rules {
		if len(r.Unseen) > 0 {
			said = append(said, strings.Join(r.Unseen, " ")+" on "+r.Target+", class "+r.Class)
		}
	}
	return said
}

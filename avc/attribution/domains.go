package attribution

import (
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
)

// Inhabited is a container that runs, and the domains of its processes.
type Inhabited struct {
	avc.Subject
	Domains []string // of each process that could be asked, without repetition
}

// Inhabited gives the containers that have a process now, in the order of their IDs, with what the kernel says of each process, whatever the
// runtime was told. What starts a container is in its cgroup for a moment, in a domain of the host's.
func (h *Host) Inhabited() []Inhabited {
	at := map[string]*Inhabited{}
	for pid, in := range h.contained {
		c := at[in.id]
		if c == nil {
			c = &Inhabited{Subject: h.ofCgroup(in.cgroup, "")}
			at[in.id] = c
		}
		if domain := h.context(pid).Type(); domain != "" && !slices.Contains(c.Domains, domain) {
			c.Domains = append(c.Domains, domain)
		}
	}
	var all []Inhabited
	for _, c := range at {
		slices.Sort(c.Domains)
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Inhabited) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// HostDomain gives the domain of PID 1, "" if it cannot be read. On Flatcar it is that of all host processes.
func (h *Host) HostDomain() string { return h.context("1").Type() }

package attribution

import (
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
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
	for _, pid := range h.list("/proc") {
		if pid[0] < '1' || pid[0] > '9' {
			continue
		}
		cgroup, err := h.root.ReadFile("/proc/" + pid + "/cgroup")
		if err != nil {
			continue // it has ended, or is hidden
		}
		path := unified(string(cgroup))
		id, _, _ := ParseCgroup(path)
		if id == "" {
			continue
		}
		c := at[id]
		if c == nil {
			c = &Inhabited{Subject: h.ofCgroup(path, "")}
			at[id] = c
		}
		if domain := h.domain(pid); domain != "" && !slices.Contains(c.Domains, domain) {
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
func (h *Host) HostDomain() string { return h.domain("1") }

func (h *Host) domain(pid string) string {
	label, err := h.root.ReadFile("/proc/" + pid + "/attr/current")
	if err != nil {
		return ""
	}
	return secontext.Context(strings.TrimRight(string(label), "\x00\n")).Type()
}

// Title is the name by which a container is shown.
func Title(s avc.Subject) string {
	switch {
	case s.Pod != "" && s.Container != "":
		return s.Pod + "/" + s.Container
	case s.Pod != "":
		return s.Pod
	case s.Container != "":
		return s.Container
	}
	return s.ID[:min(12, len(s.ID))]
}

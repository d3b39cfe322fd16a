package attribution

import (
	"slices"
	"sort"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
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
		if domain := contextOf(h.root, pid).Type(); domain != "" && !slices.Contains(c.Domains, domain) {
			c.Domains = append(c.Domains, domain)
		}
	}
	var all []Inhabited
	for _, c := range at {
		slices.Sort(c.Domains)
		all = append(all, *c)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

// Domains gives each domain in which a process runs now, with the time after the boot at which the oldest of its processes was started. A process whose
// start cannot be read counts as one from the beginning.
func Domains(root *hostfs.Root) map[string]time.Duration {
	oldest := map[string]time.Duration{}
	for _, pid := range list(root, "/proc") {
		if pid[0] < '1' || pid[0] > '9' {
			continue
		}
		domain := contextOf(root, pid).Type()
		if domain == "" {
			continue // it has ended, or is hidden
		}
		started := time.Duration(0)
		if stat, err := root.ReadFile("/proc/" + pid + "/stat"); err == nil {
			started, _ = startTime(string(stat))
		}
		if known, there := oldest[domain]; !there || started < known {
			oldest[domain] = started
		}
	}
	return oldest
}

// HostDomain gives the domain of PID 1, "" if it cannot be read. On Flatcar it is that of all host processes.
func HostDomain(root *hostfs.Root) string { return contextOf(root, "1").Type() }

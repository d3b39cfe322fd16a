package attribution

import (
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
)

// Running gives the containers that have a process now, in the order of their IDs. What a runtime says of a container that has ended is
// not asked: a process in the container's cgroup is what runs.
func (h *Host) Running() []avc.Subject {
	seen := map[string]avc.Subject{}
	for _, pid := range h.list("/proc") {
		if pid[0] < '1' || pid[0] > '9' {
			continue
		}
		content, err := h.root.ReadFile("/proc/" + pid + "/cgroup")
		if err != nil {
			continue // it has ended, or is hidden
		}
		cgroup := unified(string(content))
		id, _, _ := ParseCgroup(cgroup)
		if id == "" {
			continue
		}
		if _, known := seen[id]; !known {
			seen[id] = h.ofCgroup(cgroup, "")
		}
	}
	var all []avc.Subject
	for _, s := range seen {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b avc.Subject) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Names gives every name by which a person may mean a container: its own, its pod's with and without the namespace, and both.
func Names(s avc.Subject) (names []string) {
	if s.Container != "" {
		names = append(names, s.Container)
	}
	if s.Pod != "" {
		_, bare, _ := strings.Cut(s.Pod, "/")
		names = append(names, s.Pod, bare)
		if s.Container != "" {
			names = append(names, s.Pod+"/"+s.Container)
		}
	}
	return names
}

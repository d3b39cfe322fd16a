package attribution

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Labelled is a container that runs, with the context that its processes were started with.
type Labelled struct {
	avc.Subject
	Context avc.Context // "" if nobody says
}

// Running gives the containers that have a process now, in the order of their IDs. What a runtime says of a container that has ended is
// not asked: a process in the container's cgroup is what runs. What it says of the context of one that runs is believed first: the kernel
// shows a process whose type the policy has not any more as one without a label.
func (h *Host) Running() []Labelled {
	seen := map[string]Labelled{}
	for pid, in := range h.contained {
		if _, known := seen[in.id]; known {
			continue
		}
		one := Labelled{Subject: h.ofCgroup(in.cgroup, "")}
		if c := h.containers[in.id]; c != nil && c.Label != "" {
			one.Context = avc.Context(c.Label)
		} else {
			one.Context = contextOf(h.root, pid)
		}
		seen[in.id] = one
	}
	all := slices.Collect(maps.Values(seen))
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

// place is where a process of a container is.
type place struct{ id, cgroup string }

// contained gives each process that is in a container now. One that only holds a pod together is none: the pod's workload is not in it.
func (h *Host) contained(yield func(pid string, in place) bool) {
	for _, pid := range list(h.root, "/proc") {
		if pid[0] < '1' || pid[0] > '9' {
			continue
		}
		content, err := h.root.ReadFile("/proc/" + pid + "/cgroup")
		if err != nil {
			continue // it has ended, or is hidden
		}
		cgroup := unified(string(content))
		id := h.ofCgroup(cgroup, "").ID
		if c := h.containers[id]; id == "" || c != nil && c.sandbox {
			continue
		}
		if !yield(pid, place{id, cgroup}) {
			return
		}
	}
}

// contextOf gives what the kernel says of a process, "" if that cannot be read.
func contextOf(root *hostfs.Root, pid string) avc.Context {
	label, err := root.ReadFile("/proc/" + pid + "/attr/current")
	if err != nil {
		return ""
	}
	return avc.Context(strings.TrimRight(string(label), "\x00\n"))
}

// Names gives every name by which a person may mean a container: its own, its pod's with and without the namespace, and both. A static pod has the name
// that it has in Kubernetes, and that of its manifest.
func Names(s avc.Subject) (names []string) {
	if s.Container != "" {
		names = append(names, s.Container)
	}
	for _, pod := range []string{s.Pod, s.Manifest} {
		if pod == "" {
			continue
		}
		_, bare, _ := strings.Cut(pod, "/")
		names = append(names, pod, bare)
		if s.Container != "" {
			names = append(names, pod+"/"+s.Container)
		}
	}
	return names
}

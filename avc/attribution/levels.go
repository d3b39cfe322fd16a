package attribution

import (
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// index makes what is asked of the containers: by level, by cgroup, by pod.
func (h *Host) index() {
	pods := map[string][]*Container{}
	for _, c := range h.containers {
		if c.Subject.Pod != "" {
			pods[c.Subject.Pod] = append(pods[c.Subject.Pod], c)
		}
		if id, _, _ := ParseCgroup(c.cgroup); c.cgroup != "" && id != c.Subject.ID {
			h.byCgroup[c.cgroup] = c
		}
		if level := c.level(); level != "" {
			h.byLevel[level] = append(h.byLevel[level], c)
		}
	}
	for name, all := range pods {
		h.pods[name] = whole(narrow(all, func(c *Container) bool { return !c.gone }))
		// One that has ended had the pod's level, most likely, and nobody says so any more.
		for level, claims := range h.byLevel {
			if !slices.ContainsFunc(claims, func(c *Container) bool { return c.Subject.Pod == name }) {
				continue
			}
			for _, c := range all {
				if c.Label == "" {
					h.byLevel[level] = append(h.byLevel[level], c)
				}
			}
		}
	}
	for _, claims := range h.byLevel {
		slices.SortFunc(claims, func(a, b *Container) int { return strings.Compare(a.Subject.ID, b.Subject.ID) })
	}
}

// level gives the level of a container's processes as the kernel writes it in a record, "" if it is everybody's.
func (c *Container) level() string {
	level := secontext.Context(c.Label).Tidy().Level()
	if !strings.Contains(level, ":") {
		return ""
	}
	return level
}

// whole gives what is known of a pod, whichever of its containers is meant: what they have of the host, except where two see something else under one path.
func whole(all []*Container) *Container {
	slices.SortFunc(all, func(a, b *Container) int { return strings.Compare(a.Subject.ID, b.Subject.ID) })
	pod := &Container{Several: true, Subject: all[0].Subject, Label: all[0].Label}
	at := map[string]string{}
	for _, c := range all {
		if c.Subject.Runtime != "kubernetes" { // which is what a log's name alone tells
			pod.Subject.Runtime = c.Subject.Runtime
		}
		for _, m := range c.Mounts {
			if source, known := at[m.Destination]; known && source != m.Source {
				m.Source = "" // removed below
			}
			at[m.Destination] = m.Source
		}
	}
	pod.Subject.Container, pod.Subject.ID, pod.Subject.Image, pod.Subject.Unit = "", "", "", ""
	for destination, source := range at {
		if source != "" {
			pod.Mounts = append(pod.Mounts, Mount{source, destination})
		}
	}
	pod.sortMounts()
	return pod
}

// ofLevel finds whose the level of a denial is. A pod's containers share theirs, with the one that holds it together, and two workloads may
// have been given the same: then the type and the time of the denial may tell.
func (h *Host) ofLevel(d *avc.Denial) (s avc.Subject) {
	claims := h.byLevel[d.Source.Level()]
	if slices.ContainsFunc(claims, func(c *Container) bool { return c.gone }) { // its categories were free again after it
		claims = slices.DeleteFunc(slices.Clone(claims), func(c *Container) bool { return c.gone && !c.life.covers(d.Time) })
	}
	if len(claims) > 1 {
		claims = narrow(claims, func(c *Container) bool { return c.life.covers(d.Time) })
		claims = narrow(claims, func(c *Container) bool { return !c.sandbox })
		claims = narrow(claims, func(c *Container) bool { return !c.gone })
		claims = narrow(claims, func(c *Container) bool { return c.Label == "" || secontext.Context(c.Label).Type() == d.Source.Type() })
	}
	if c := h.meant(claims); c != nil {
		s = c.Subject
		s.Evidence = "its categories"
	}
	return s
}

// narrow leaves out those of which something is not so, unless it is so of none.
func narrow(claims []*Container, so func(*Container) bool) []*Container {
	var left []*Container
	for _, c := range claims {
		if so(c) {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return claims
	}
	return left
}

// meant gives the one that all of some containers are, or their pod, or nil if they are of several workloads.
func (h *Host) meant(claims []*Container) (one *Container) {
	several := false
	for _, c := range claims {
		switch {
		case one == nil:
			one = c
		case c.Subject.Pod != one.Subject.Pod || c.Subject.Pod == "":
			return nil
		case c.Subject.Container != one.Subject.Container:
			several = true
		case one.Label == "": // the same, started again
			one = c
		}
	}
	if one != nil && (several || one.sandbox && one.Subject.Pod != "") {
		return h.pods[one.Subject.Pod]
	}
	return one
}

// named finds the container whose runtime was told this cgroup, or one above it, by a name that tells no ID. Of several the outermost counts: what stands
// behind is in the container.
func (h *Host) named(cgroup string) (c *Container) {
	if len(h.byCgroup) == 0 {
		return nil
	}
	for dir := path.Clean(cgroup); len(dir) > 1; dir = path.Dir(dir) {
		if one := h.byCgroup[dir]; one != nil {
			c = one
		}
	}
	return c
}

package ignition

import (
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/runtimes"
)

func stage(unit string) bool {
	return unit == target || strings.HasPrefix(unit, "selinux-provision-stage-")
}

// unitChecks finds what keeps the stages from running before the containers, or from running at all.
func (c *checker) unitChecks(m *machine, s *situation) {
	all := m.units()
	named := map[string]*unitFile{}
	for _, u := range all {
		named[u.name] = u
		if path.Base(u.name) == target && len(u.options) > 0 {
			s.delivered = true
		}
	}
	c.delivery(m, named, s)
	if !s.delivered {
		return
	}
	after := afterStages(all)
	for _, u := range all {
		c.order(m, u, after[u.name])
	}
	c.runtimeConfig(m, s)
}

// delivery finds parts of selinux-provision that are missing.
func (c *checker) delivery(m *machine, named map[string]*unitFile, s *situation) {
	t := named[target]
	if f, ok := m.files[binary]; ok && f.mode >= 0 && f.mode&0o100 == 0 {
		c.add(f.at, f.inside, "cannot run "+binary+": it is not executable", "write \"mode: 0755\"")
	} else if ok && f.mode < 0 {
		c.add(f.at, f.inside, "cannot run "+binary+": without a mode it is written as 0644, not executable", "write \"mode: 0755\"")
	}
	if s.delivered {
		c.masks(m, named, s)
	}
	if t == nil || len(t.options) == 0 {
		if m.extension() == "" && s.delivered && !m.more {
			c.note(m.layers[0].place(0), "", "selinux-provision itself is not in this file: its configuration has no effect where nothing else brings it",
				"merge it with what selinux-provision render prints, or add the sysext image")
		}
		return
	}
	at, key := t.text.at, t.text.inside
	if !t.enabled {
		c.add(at, key, "cannot have the stages run: "+target+" is not enabled", "write \"enabled: true\" for it in systemd.units")
	}
	if _, ok := m.files[binary]; !ok && m.extension() == "" && !m.more {
		if _, linked := m.links()[binary]; !linked {
			c.add(at, key, "cannot find "+binary+", which the units start: no file of that path is written here", "add it to storage.files, with its hash")
		}
	}
}

// masks finds units that are masked and needed.
func (c *checker) masks(m *machine, named map[string]*unitFile, s *situation) {
	for _, u := range named {
		if !u.masked {
			continue
		}
		var wanted string
		switch declared := s.declared; {
		case stage(u.name):
			wanted = "cannot run " + u.name
		case u.name == "selinux-provision-mountwatch.service" && declared != nil && len(declared.Volumes) > 0:
			wanted = "cannot label volumes without " + u.name
		case u.name == "audit-rules.service" && declared != nil && declared.LogDenials:
			wanted = "cannot log denials without audit-rules.service, which loads the audit rules"
		case slices.Contains([]string{"systemd-sysext.service", "ensure-sysext.service"}, u.name) && m.extension() != "":
			wanted = "cannot use the system extension image without " + u.name
		case u.name == "selinux-provision-guard.service" && declared != nil && declared.Guard != nil:
			wanted = "cannot put enforcing on trial without " + u.name
		default:
			continue
		}
		c.add(u.text.at, u.text.inside, wanted+": it is masked", "remove \"mask: true\"")
	}
}

// extension gives the system extension image of selinux-provision, "" if there is none.
func (m *machine) extension() string {
	is := func(name string) bool {
		return strings.HasPrefix(name, "/etc/extensions/selinux-provision") || strings.HasPrefix(name, "/var/lib/extensions/selinux-provision")
	}
	for _, name := range m.fileNames() {
		if is(name) {
			return name
		}
	}
	for name := range m.links() {
		if is(name) {
			return name
		}
	}
	return ""
}

// order finds a unit that starts containers and may do so before the stages, or that makes a circle with them.
func (c *checker) order(m *machine, u *unitFile, after bool) {
	if u.user {
		return
	}
	containers := runtimes.Unit(u.name) || u.startsContainers()
	var first command
	for _, one := range m.commands(u) {
		if one.boot && starts(one.argv) {
			containers, first = true, one
			break
		}
		_, runs := runOf(one.argv)
		containers = containers || runs && one.boot
	}
	if u.startsContainers() {
		first = command{argv: []string{"podman"}, at: u.text.at, key: u.text.inside}
	}
	for _, o := range u.options {
		switch {
		case o.section != "Unit":
		case o.name == "Before" && containers && slices.ContainsFunc(strings.Fields(o.value), stage):
			c.add(o.at, o.key, "cannot start "+u.name+" before the stages: its containers get the labels of a policy that is not complete", "remove Before=, and write After="+target)
		case o.name == "After" && stage(u.name):
			for _, w := range strings.Fields(o.value) {
				if runtimes.Unit(w) || slices.Contains([]string{"multi-user.target", "graphical.target", "default.target"}, w) {
					c.add(o.at, o.key, "cannot order "+u.name+" after "+w+": it comes before it, and systemd breaks such a circle by leaving one of the two out", "remove After="+w)
				}
			}
		}
	}
	if first.program() != "" && !runtimes.Unit(u.name) && u.boots && !after {
		c.add(first.at, first.key, "cannot tell that "+u.name+" starts after the stages: it runs "+first.program()+", and nothing orders it",
			"write After="+target+" in its [Unit]")
	}
}

// afterStages gives the units that come after the stages, or after something that does.
func afterStages(all []*unitFile) map[string]bool {
	next := map[string][]string{} // what comes after a unit
	var begin []string
	for _, u := range all {
		for _, after := range u.list("Unit", "After") {
			if after = u.specified(after); stage(after) || runtimes.Unit(after) || after == "multi-user.target" {
				begin = append(begin, u.name)
			}
			next[after] = append(next[after], u.name)
		}
		if u.name == target || u.name == "selinux-provision-stage-enforce.service" {
			begin = append(begin, u.list("Unit", "Before")...)
		}
	}
	are := map[string]bool{}
	for len(begin) > 0 {
		name := begin[len(begin)-1]
		begin = begin[:len(begin)-1]
		if !are[name] {
			are[name] = true
			begin = append(begin, next[name]...)
		}
	}
	return are
}

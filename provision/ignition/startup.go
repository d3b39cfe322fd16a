package ignition

import (
	"path"
	"slices"
	"strings"
)

// startup finds what is started when the machine boots, as far as the file tells: what is enabled, and what that starts in its turn.
type startup struct {
	units map[string]*unitFile
	// instance makes a unit that the file has nothing of but its template.
	instance func(name string) *unitFile
	enabled  map[string]bool
}

// run marks the units that are started.
func (s *startup) run(all []*unitFile) {
	for _, u := range all {
		switch {
		case u.enabled:
			s.enable(u.name)
		case u.quadlet != "" && u.installed(): // podman's generator does at each boot what systemctl enable does
			s.enable(u.name)
		case len(u.own) == 0 && !u.masked && !template(u.name):
			s.follow(u) // a unit of the image, which nothing here says more of
		}
	}
}

// installed tells whether enabling a unit gives it to one that starts it.
func (u *unitFile) installed() bool {
	return slices.ContainsFunc([]string{"WantedBy", "RequiredBy", "UpheldBy"}, func(key string) bool { return len(u.list("Install", key)) > 0 })
}

// enable does what systemctl enable does with [Install] (systemd.unit(5)), and starts the unit.
func (s *startup) enable(name string) {
	u := s.unit(name)
	if u == nil || s.enabled[name] {
		return
	}
	s.enabled[name] = true
	if template(name) {
		if given := u.list("Install", "DefaultInstance"); len(given) > 0 {
			s.enable(strings.Replace(name, "@.", "@"+given[len(given)-1]+".", 1))
		}
		return
	}
	for _, also := range u.list("Install", "Also") {
		s.enable(u.specified(also))
	}
	s.start(name)
}

func (s *startup) start(name string) {
	if u := s.unit(name); u != nil && !u.boots && !u.masked && !template(name) {
		u.boots = true
		s.follow(u)
	}
}

// follow starts what a unit starts: what it needs, and what a timer or a path is there for (systemd.timer(5), systemd.path(5)).
func (s *startup) follow(u *unitFile) {
	for _, key := range []string{"Wants", "Requires", "Upholds", "BindsTo"} {
		for _, other := range u.list("Unit", key) {
			s.start(u.specified(other))
		}
	}
	section := map[string]string{".timer": "Timer", ".path": "Path"}[path.Ext(u.name)]
	if section == "" || section == "Timer" && !u.atBoot() {
		return
	}
	others := u.list(section, "Unit")
	if len(others) == 0 {
		others = []string{strings.TrimSuffix(u.name, path.Ext(u.name)) + ".service"}
	}
	s.start(u.specified(others[len(others)-1]))
}

// unit gives a unit of the file, or one that its template there makes; nil if there is neither.
func (s *startup) unit(name string) *unitFile {
	if u := s.units[name]; u != nil {
		return u
	}
	if general := templateOf(name); general != "" && s.units[general] != nil {
		return s.instance(name)
	}
	return nil
}

// template tells whether a name is that of a template, of which there are instances.
func template(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), "@")
}

// templateOf gives the template of an instance, "" for a unit that is none.
func templateOf(name string) string {
	prefix, instance, ok := strings.Cut(strings.TrimSuffix(name, path.Ext(name)), "@")
	if !ok || instance == "" {
		return ""
	}
	return prefix + "@" + path.Ext(name)
}

// atBoot says whether a timer may start its unit while the machine boots.
func (u *unitFile) atBoot() bool {
	return slices.ContainsFunc(u.options, func(o unitOption) bool {
		return slices.Contains([]string{"OnBootSec", "OnStartupSec", "OnActiveSec"}, o.name) || o.name == "Persistent" && slices.Contains([]string{"yes", "true", "on", "1"}, o.value)
	})
}

// preset is a line of a file that says what the first boot enables (systemd.preset(5)).
type preset struct {
	enables   bool
	pattern   string
	instances []string
	text      text // the line's place
}

// presets gives those of the file, in the order in which systemd reads them: the first that fits a unit counts.
func (m *machine) presets() (all []preset) {
	for _, name := range m.fileNames() {
		f := m.files[name]
		if path.Dir(name) != "/etc/systemd/system-preset" || path.Ext(name) != ".preset" || !f.known {
			continue
		}
		n := 0
		for line := range strings.Lines(f.content) {
			n++
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "enable" && words[0] != "disable" {
				continue
			}
			one := preset{enables: words[0] == "enable", pattern: words[1], instances: words[2:]}
			one.text.at, one.text.inside = f.line(n)
			all = append(all, one)
		}
	}
	return all
}

// preset enables what the file's presets do. Ignition writes one itself for units that it is told to enable or not to.
func (m *machine) preset(all []*unitFile, named func(string) *unitFile) {
	said := map[string]bool{}
	for _, u := range m.config.Systemd.Units {
		said[u.Name] = u.Enabled != nil
	}
	presets := m.presets()
	for _, p := range presets { // units of the image, which nothing else here names
		for _, name := range p.names() {
			if u := named(name); u.text.at.File == "" {
				p.text.name = name
				u.text = p.text
				all = append(all, u)
			}
		}
	}
	for _, u := range all {
		for _, p := range presets {
			if fits, err := path.Match(p.pattern, u.name); !said[u.name] && (err == nil && fits || slices.Contains(p.names(), u.name)) {
				u.enabled = u.enabled || p.enables && (len(p.instances) == 0 || u.name != p.pattern)
				break
			}
		}
	}
}

// names gives the units that a line enables by their names, and not by a pattern.
func (p preset) names() (all []string) {
	if !p.enables || strings.ContainsAny(p.pattern, "*?[") {
		return nil
	}
	if len(p.instances) == 0 {
		return []string{p.pattern}
	}
	for _, instance := range p.instances {
		all = append(all, strings.Replace(p.pattern, "@.", "@"+instance+".", 1))
	}
	return all
}

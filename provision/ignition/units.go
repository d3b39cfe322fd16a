package ignition

import (
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/unitfile"
	"github.com/selinux-provision/selinux-provision/provision"
)

// unitFile is a unit with its drop-ins.
type unitFile struct {
	name            string
	enabled, masked bool
	boots           bool // it is started at boot as far as the file tells
	general         bool // it is a template, of which there are instances
	text            text
	quadlet         string       // what podman's generator makes it out of, such as ".container"; "" if it does not
	user            bool         // systemd --user runs it, which nothing of the system's orders
	own             []unitOption // of the unit's own file
	dropins         []text       // those of its own directory
	options         []unitOption // of the unit and of its drop-ins, in order
}

// unitOption is one line of a unit.
type unitOption struct {
	section, name, value string
	at                   provision.Position
	key                  string
}

// units gives every unit that the file makes or changes, whether it stands in systemd.units or is a file in /etc/systemd/system.
func (m *machine) units() []*unitFile {
	if m.made == nil {
		m.made, m.byName = m.makeUnits()
	}
	return m.made
}

// makeUnits gives the units, and by their names those and what holds only drop-ins of others.
func (m *machine) makeUnits() (all []*unitFile, byName map[string]*unitFile) {
	byName = map[string]*unitFile{}
	named := func(name string) *unitFile {
		if byName[name] == nil {
			byName[name] = &unitFile{name: name}
			all = append(all, byName[name])
		}
		return byName[name]
	}
	const dir = "/etc/systemd/system/"
	for _, name := range m.fileNames() {
		inside, ok := strings.CutPrefix(name, dir)
		if !ok || !m.files[name].known {
			continue
		}
		base, dropin, nested := strings.Cut(inside, "/")
		switch {
		case !nested && path.Ext(base) != "":
			named(base).file(m.files[name])
		case strings.HasSuffix(base, ".d") && strings.HasSuffix(dropin, ".conf"):
			named(strings.TrimSuffix(base, ".d")).dropin(m.files[name])
		}
	}
	m.quadlets(named)
	for _, u := range m.config.Systemd.Units {
		one := named(u.Name)
		one.enabled = one.enabled || u.Enabled != nil && *u.Enabled
		one.masked = one.masked || u.Mask != nil && *u.Mask
		node, l := m.unit(u.Name)
		at := l.place(lineOf(node))
		if one.text.at.File == "" {
			one.text = text{name: u.Name, at: at, inside: l.inside}
		}
		if u.Contents != nil {
			one.file(text{content: *u.Contents, known: true, at: at, name: u.Name, inside: l.inside, first: firstLine(l, block(l, get(node, "contents")))})
		}
		for _, d := range u.Dropins {
			t := text{content: value(d.Contents), known: true, at: at, inside: l.inside, name: u.Name + ".d/" + d.Name}
			if dropin := where(get(node, "dropins"), "name", d.Name); dropin != nil {
				t.at = l.place(dropin.Line)
				t.first = firstLine(l, block(l, get(dropin, "contents")))
			}
			one.dropin(t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.links())) {
		if base, ok := strings.CutPrefix(name, dir); ok {
			wants, unit := path.Split(base)
			if strings.HasSuffix(wants, ".wants/") || strings.HasSuffix(wants, ".requires/") || strings.HasSuffix(wants, ".upholds/") {
				one := named(unit)
				one.enabled = true
				if one.text.at.File == "" {
					node, l := m.find("links", name)
					one.text = text{name: unit, at: l.place(lineOf(node)), inside: l.inside}
				}
			}
		}
	}
	m.preset(slices.Clone(all), named)
	shared := map[string]bool{}
	join := func(u *unitFile) {
		for _, other := range u.join(byName) {
			shared[other] = true
		}
	}
	for _, u := range all {
		join(u)
	}
	start := startup{units: byName, enabled: map[string]bool{}, instance: func(name string) *unitFile {
		u := named(name)
		u.text = byName[templateOf(name)].text
		join(u)
		return u
	}}
	start.run(slices.Clone(all))
	// What is only a directory of drop-ins for others is no unit.
	return slices.DeleteFunc(all, func(u *unitFile) bool { return shared[u.name] && len(u.own) == 0 }), byName
}

// block is a text whose lines are lines of the file: in Butane alone.
func block(l layer, n *yaml.Node) *yaml.Node {
	if l.kind != Butane {
		return nil
	}
	return n
}

// unit finds where a unit stands: in systemd.units, or as the file system that Butane makes a mount unit for.
func (m *machine) unit(name string) (*yaml.Node, layer) {
	for _, l := range slices.Backward(m.layers) {
		if n := m.item(get(l.root, "systemd", "units"), "name", name); n != nil {
			return n, l
		}
		for _, f := range items(get(l.root, "storage", "filesystems")) {
			if p := get(f, "path"); p != nil && l.kind == Butane && mountUnit(p.Value) == name {
				return resolve(f), l
			}
		}
	}
	return nil, m.layers[0]
}

// fileNames gives the paths of all files in their order. Nobody may change it.
func (m *machine) fileNames() []string {
	if m.names == nil {
		m.names = slices.Sorted(maps.Keys(m.files))
	}
	return m.names
}

// links gives the symbolic and hard links by their path. Nobody may change it.
func (m *machine) links() map[string]string {
	if m.linked == nil {
		m.linked = map[string]string{}
		for _, l := range m.config.Storage.Links {
			m.linked[path.Clean(l.Path)] = value(l.Target)
		}
	}
	return m.linked
}

// file reads the unit's own file.
func (u *unitFile) file(t text) {
	u.text = t
	u.read(t)
	u.own = u.options
}

// dropin keeps a drop-in for join.
func (u *unitFile) dropin(t text) {
	if u.text.name == "" {
		u.text = t
	}
	u.dropins = append(u.dropins, t)
}

// join puts the drop-ins behind the lines of the unit's own file, or of its template's, as systemd does (systemd.unit(5)): those of all
// directories that are for the unit, by their names; of two with one name the one nearer to the unit counts. It gives whose directories
// besides its own it took some from.
func (u *unitFile) join(byName map[string]*unitFile) (others []string) {
	files := map[string]text{}
	for _, name := range dropinsOf(u.name) {
		from := byName[name]
		if from == nil {
			continue
		}
		for _, t := range from.dropins {
			if _, nearer := files[path.Base(t.name)]; !nearer || from.name == u.name {
				files[path.Base(t.name)] = t
			}
		}
		if name != u.name && len(from.dropins) > 0 {
			others = append(others, name)
		}
	}
	if general := byName[templateOf(u.name)]; len(u.own) == 0 && general != nil && len(general.own) > 0 {
		u.own, u.quadlet, u.user, general.general = general.own, general.quadlet, general.user, true
	}
	u.options = slices.Clone(u.own)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		u.read(files[name])
	}
	return others
}

// dropinsOf gives the names that the directories of a unit's drop-ins have before ".d", the nearest to the unit first: its own, that of
// its template, those of what it begins with up to each dash, and that of its type.
func dropinsOf(name string) []string {
	kind := path.Ext(name)
	prefix, instance, ofTemplate := strings.Cut(strings.TrimSuffix(name, kind), "@")
	all := []string{name}
	if ofTemplate && instance != "" {
		all = append(all, prefix+"@"+kind)
	}
	for at := strings.LastIndexByte(strings.TrimSuffix(prefix, "-"), '-'); at > 0; at = strings.LastIndexByte(prefix[:at], '-') {
		all = append(all, prefix[:at+1]+kind)
	}
	return append(all, strings.TrimPrefix(kind, "."))
}

// dependencies are the options of [Unit] that an empty value does not empty: "Dependencies (After=, etc.) cannot be reset to an empty
// list" (systemd.unit(5), example 2).
func dependencies() []string {
	return []string{"After", "Before", "Wants", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Conflicts", "OnFailure", "OnSuccess",
		"PropagatesReloadTo", "ReloadPropagatedFrom", "PropagatesStopTo", "StopPropagatedFrom", "JoinsNamespaceOf", "RequiresMountsFor", "WantsMountsFor"}
}

// read adds the lines of a unit file. An empty value empties a list. What systemd cannot read, and all behind it, counts for nothing.
func (u *unitFile) read(t text) {
	lines, _ := unitfile.Parse(t.content)
	for _, line := range lines {
		o := unitOption{section: line.Section, name: line.Name, value: line.Value}
		o.at, o.key = t.line(line.Line)
		switch {
		case o.value != "":
			u.options = append(u.options, o)
		case o.section != "Unit" || !slices.Contains(dependencies(), o.name):
			u.options = slices.DeleteFunc(u.options, func(old unitOption) bool { return old.section == o.section && old.name == o.name })
		}
	}
}

// list gives the words of all options of a name.
func (u *unitFile) list(section, name string) (words []string) {
	for _, o := range u.options {
		if o.section == section && o.name == name {
			words = append(words, strings.Fields(o.value)...)
		}
	}
	return words
}

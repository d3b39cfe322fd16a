package ignition

import (
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/provision"
)

// unitFile is a unit with its drop-ins.
type unitFile struct {
	name            string
	enabled, masked bool
	text            text
	quadlet         string       // what podman's generator makes it out of, such as ".container"; "" if it does not
	user            bool         // systemd --user runs it, which nothing of the system's orders
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
		m.made = m.makeUnits()
	}
	return m.made
}

func (m *machine) makeUnits() []*unitFile {
	var all []*unitFile
	byName := map[string]*unitFile{}
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
			named(base).read(m.files[name])
		case strings.HasSuffix(base, ".d") && strings.HasSuffix(dropin, ".conf"):
			named(strings.TrimSuffix(base, ".d")).read(m.files[name])
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
			one.read(text{content: *u.Contents, known: true, at: at, name: u.Name, inside: l.inside, first: firstLine(l, block(l, get(node, "contents")))})
		}
		for _, d := range u.Dropins {
			t := text{content: value(d.Contents), known: true, at: at, inside: l.inside, name: u.Name + ".d/" + d.Name}
			if dropin := where(get(node, "dropins"), "name", d.Name); dropin != nil {
				t.at = l.place(dropin.Line)
				t.first = firstLine(l, block(l, get(dropin, "contents")))
			}
			one.read(t)
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
	return all
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

// read adds the lines of a unit file (systemd.syntax(7)): sections, NAME=VALUE, comments, lines that go on behind a backslash. An
// empty value empties a list; for the checks here an order that was taken back is still worth no message.
func (u *unitFile) read(t text) {
	if !t.known {
		return
	}
	if u.text.name == "" || !strings.Contains(t.name, ".d/") {
		u.text = t
	}
	section, pending, begin, n := "", "", 0, 0
	for line := range strings.Lines(t.content) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if pending == "" {
			begin = n
		}
		if more, on := strings.CutSuffix(line, `\`); on {
			pending += more + " "
			continue
		}
		line, pending = pending+line, ""
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		o := unitOption{section: section, name: strings.TrimSpace(name), value: strings.TrimSpace(value)}
		o.at, o.key = t.line(begin)
		if o.value == "" {
			u.options = slices.DeleteFunc(u.options, func(old unitOption) bool { return old.section == o.section && old.name == o.name })
			continue
		}
		u.options = append(u.options, o)
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

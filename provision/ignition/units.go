package ignition

import (
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
	quadlet         bool         // made by podman's generator out of a .container file
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
	var all []*unitFile
	named := func(name string) *unitFile {
		i := slices.IndexFunc(all, func(u *unitFile) bool { return u.name == name })
		if i < 0 {
			all = append(all, &unitFile{name: name})
			i = len(all) - 1
		}
		return all[i]
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
	for _, name := range m.fileNames() {
		base, ok := strings.CutPrefix(name, "/etc/containers/systemd/")
		if base, container := strings.CutSuffix(base, ".container"); ok && container && m.files[name].known {
			one := named(base + ".service")
			one.quadlet = true
			one.read(m.files[name])
		}
	}
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
	for name := range m.links() {
		if base, ok := strings.CutPrefix(name, dir); ok {
			wants, unit := path.Split(base)
			if strings.HasSuffix(wants, ".wants/") || strings.HasSuffix(wants, ".requires/") || strings.HasSuffix(wants, ".upholds/") {
				named(unit).enabled = true
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
		if n := where(get(l.root, "systemd", "units"), "name", name); n != nil {
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

func (m *machine) fileNames() []string {
	var names []string
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// links gives the symbolic and hard links by their path.
func (m *machine) links() map[string]string {
	all := map[string]string{}
	for _, l := range m.config.Storage.Links {
		all[path.Clean(l.Path)] = value(l.Target)
	}
	return all
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

// programs gives the base names of what the unit starts, also by a shell or by a script that is in the file, each with its line.
func (u *unitFile) programs(m *machine) (all []unitOption) {
	for _, o := range u.options {
		if o.section != "Service" || !strings.HasPrefix(o.name, "Exec") || strings.HasPrefix(o.name, "ExecStop") {
			continue
		}
		command := strings.TrimLeft(o.value, "@-:+!|")
		commands := []string{command}
		if slices.Contains([]string{"sh", "bash", "dash"}, program(command)) {
			for _, script := range quotedParts(command) {
				commands = append(commands, shellCommands(script)...)
			}
		}
		for word := range strings.FieldsSeq(command) {
			if script := m.files[word]; strings.HasPrefix(script.content, "#!") {
				commands = append(commands, shellCommands(script.content)...)
			}
		}
		for _, command := range commands {
			if o.value = program(command); o.value != "" {
				all = append(all, o)
			}
		}
	}
	return all
}

// shellCommands takes a script apart, well enough to see what it starts.
func shellCommands(script string) (all []string) {
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			all = append(all, strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(";&|(){}", r) })...)
		}
	}
	return all
}

// program gives the base name of what a command starts, behind what only prepares that.
func program(command string) string {
	wrapped := false
	for word := range strings.FieldsSeq(command) {
		word = strings.Trim(word, `"'`)
		switch base := path.Base(word); {
		case strings.Contains(word, "="), wrapped && (strings.HasPrefix(word, "-") || strings.Trim(word, "0123456789smh") == ""):
		case slices.Contains([]string{"env", "sudo", "nohup", "exec", "nice", "ionice", "setsid", "timeout", "time",
			"if", "then", "else", "elif", "while", "until", "do", "!"}, base):
			wrapped = true
		default:
			return base
		}
	}
	return ""
}

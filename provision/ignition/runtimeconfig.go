package ignition

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/runtimes"
	"github.com/selinux-provision/selinux-provision/provision"
)

const (
	containerdConfig = "/etc/containerd/config.toml"
	switchedOff      = "cannot confine containers with SELinux switched off in the runtime: they run unconfined on an enforcing machine"
)

// runtimeConfig finds a container runtime that does not use SELinux on an enforcing machine, or does not start for the way it is told to.
func (c *checker) runtimeConfig(m *machine, s *situation) {
	c.docker(m, s)
	if s.mode != provision.Enforcing {
		return
	}
	named := map[string]*unitFile{}
	for _, u := range m.units() {
		named[u.name] = u
	}
	c.containerd(m, named["containerd.service"])
	for _, name := range m.fileNames() {
		switch {
		case name == "/etc/crio/crio.conf", path.Dir(name) == "/etc/crio/crio.conf.d":
			c.switchedOff(m, name, "selinux", "crio", "runtime", "selinux")
		case name == "/etc/containers/containers.conf", path.Dir(name) == "/etc/containers/containers.conf.d":
			c.switchedOff(m, name, "label", "containers", "label")
		}
	}
	for _, one := range []struct{ name, dir, variable string }{{"k3s", "/etc/rancher/k3s", "K3S_SELINUX"}, {"rke2", "/etc/rancher/rke2", "RKE2_SELINUX"}} {
		for _, u := range m.units() {
			if runtimes.Unit(u.name) && strings.HasPrefix(u.name, one.name) {
				c.rancher(m, u, one.name, one.dir, one.variable)
			}
		}
	}
}

// switchedOff finds a key that is false.
func (c *checker) switchedOff(m *machine, name, key string, keys ...string) {
	f := m.files[name]
	if off, ok := lookUp(c.toml(f), keys...).(bool); ok && !off {
		at, inside := f.lineOf(key)
		c.add(at, inside, switchedOff, "set it to true")
	}
}

// lineOf gives the place of the line that sets a key, of the whole file if there is none.
func (t text) lineOf(key string) (provision.Position, string) {
	n := 0
	for line := range strings.Lines(t.content) {
		n++
		if strings.HasPrefix(strings.TrimLeft(line, " \t\"'"), key) {
			return t.line(n)
		}
	}
	return t.line(0)
}

// toml reads a file; nil if it is none.
func (c *checker) toml(f text) map[string]any {
	if !f.known {
		return nil
	}
	var all map[string]any
	err := toml.Unmarshal([]byte(f.content), &all)
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, _ := wrong.Position()
		at, key := f.line(line)
		c.note(at, key, "this file was not looked at: it cannot be read as TOML: "+strings.TrimPrefix(wrong.Error(), "toml: "), "correct it there")
		return nil
	}
	if err != nil {
		return nil
	}
	return all
}

// lookUp follows keys through tables, nil if one of them is not there.
func lookUp(table any, keys ...string) any {
	for _, key := range keys {
		t, ok := table.(map[string]any)
		if !ok {
			return nil
		}
		table = t[key]
	}
	return table
}

// docker looks at the command line of dockerd and at its daemon.json. An option that is in both keeps dockerd from starting, whatever its
// value (findConfigurationConflicts in moby's daemon/config), and Flatcar's unit has it on the command line.
func (c *checker) docker(m *machine, s *situation) {
	const option = "selinux-enabled"
	u := m.runs("docker.service")
	start, found := m.starting(u, "dockerd")
	if image, extension := m.brings("docker"); !found || u.masked || start.at.File == "" && !image && extension == "" {
		return
	}
	environment, whole := m.environment(u)
	flag := flagOf(start.argv, option)
	name, given := valueOf(start.argv, "config-file")
	if !given {
		name = "/etc/docker/daemon.json"
	}
	f, there := m.files[m.real(path.Clean(name))]
	var inFile *yaml.Node
	if f.known {
		root, err := readJSON([]byte(f.content))
		if err != nil {
			return // dockerd says so
		}
		inFile = get(root, option)
	}
	if inFile != nil && flag != notSaid {
		at, key := f.line(inFile.Line)
		c.add(at, key, "cannot start dockerd with selinux-enabled in this file: its command line has the option, as in Flatcar's docker.service, and dockerd refuses one that is in both, whatever its value",
			"remove the key")
	}
	if s.mode != provision.Enforcing {
		return
	}
	// What decides is on the command line, or in a variable that is put there.
	at, key := start.at, start.key
	if at.File == "" {
		its := cmp.Or(environment["DOCKER_SELINUX"], setting{at: u.text.at, key: u.text.inside}) // it may be emptied with all others
		at, key = its.at, its.key
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if one := environment[name]; one.at.File != "" && flagOf(strings.Fields(one.value), option) == saysOff {
			at, key = one.at, one.key
		}
	}
	const unconfined = ": without --selinux-enabled dockerd leaves SELinux alone, and they run unconfined on an enforcing machine"
	switch {
	case flag == saysOff:
		c.add(at, key, switchedOff, "remove --selinux-enabled=false")
	case flag == saysOn, inFile != nil && inFile.Value == "true":
	case inFile != nil:
		at, key := f.line(inFile.Line)
		c.add(at, key, switchedOff, "set it to true")
	case there && !f.known, !whole:
	case start.at.File == "":
		c.add(at, key, "cannot confine containers without DOCKER_SELINUX as the image's docker.service sets it"+unconfined, "leave DOCKER_SELINUX as it is")
	default:
		c.add(at, key, "cannot confine containers with this command line in place of the image's"+unconfined, "write --selinux-enabled behind dockerd")
	}
}

// starting gives the command with which a unit starts a daemon.
func (m *machine) starting(u *unitFile, daemon string) (command, bool) {
	if u == nil {
		return command{}, false
	}
	for _, one := range m.commands(u) {
		if one.boot && one.program() == daemon && starts(one.argv) {
			return one, true
		}
	}
	return command{}, false
}

// choice is what a runtime is told: to use SELinux, not to, or nothing.
type choice int

const (
	notSaid choice = iota
	saysOn
	saysOff
)

// chosen gives the choice that a value is, as the libraries read it that the runtimes are written with.
func chosen(value string) choice {
	switch on, err := strconv.ParseBool(value); {
	case err != nil:
		return notSaid
	case on:
		return saysOn
	}
	return saysOff
}

// flagOf gives what a command line says with an option that needs no value. The last one counts.
func flagOf(argv []string, option string) choice {
	said := notSaid
	for _, arg := range argv {
		name, value, valued := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != option || !strings.HasPrefix(arg, "-"):
		case valued:
			said = chosen(value)
		default:
			said = saysOn
		}
	}
	return said
}

// valueOf gives the value of an option of a command line, false if it is not there or not known.
func valueOf(argv []string, options ...string) (value string, given bool) {
	for i, arg := range argv {
		name, its, valued := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || !slices.Contains(options, name) {
			continue
		}
		if !valued && i+1 < len(argv) {
			its = argv[i+1]
		}
		value, given = its, true
	}
	return value, given && !strings.HasPrefix(value, "$")
}

// brings tells whether Flatcar's image has a runtime, whose extension a link to /dev/null takes away, and gives the extension image by the
// runtime's name that the file adds, such as docker.raw or docker-28.0.4-x86-64.raw; "" if there is none.
func (m *machine) brings(runtime string) (image bool, extension string) {
	image = true
	look := func(name string) {
		stem, ok := strings.CutSuffix(path.Base(name), ".raw")
		version, its := strings.CutPrefix(stem, runtime)
		if dir := path.Dir(name); !ok || !its || dir != "/etc/extensions" && dir != "/var/lib/extensions" {
			return
		}
		switch hidden := m.links()[name] == "/dev/null"; {
		case version == "-flatcar":
			image = image && !hidden
		case !hidden && extensionVersion().MatchString(version):
			extension = name
		}
	}
	for _, name := range m.fileNames() {
		look(name)
	}
	for _, name := range slices.Sorted(maps.Keys(m.links())) {
		look(name)
	}
	return image, extension
}

var extensionVersion = lazyregexp.New(`^(-v?[0-9].*)?$`)

// containerd looks at the configuration that containerd is started with. The image's has the key; one of somebody's own has to have it,
// since containerd's default is false.
func (c *checker) containerd(m *machine, u *unitFile) {
	name, used := containerdConfig, false
	if u != nil {
		if environment, _ := m.environment(u); environment["CONTAINERD_CONFIG"].value != "" {
			name, used = environment["CONTAINERD_CONFIG"].value, true
		}
		for _, one := range m.commands(u) {
			if one.program() == "containerd" && starts(one.argv) {
				name, used = configOf(one.argv, name, used), true
			}
		}
	}
	f, ok := m.files[m.real(path.Clean(name))]
	if !ok {
		return
	}
	config := c.toml(f)
	if config == nil {
		return
	}
	version, _ := config["version"].(int64)
	plugin := map[bool]string{true: "cri", false: "io.containerd.grpc.v1.cri"}[version < 2]
	if version >= 3 {
		plugin = "io.containerd.cri.v1.runtime"
	}
	if disabled, _ := config["disabled_plugins"].([]any); slices.Contains(disabled, any("cri")) || slices.Contains(disabled, any(plugin)) || slices.Contains(disabled, any("io.containerd.grpc.v1.cri")) {
		return // nobody can ask it for pods
	}
	enabled, set := lookUp(config, "plugins", plugin, "enable_selinux").(bool)
	if !set && version < 2 { // older than the name of the plugin
		enabled, set = lookUp(config, "plugins", "enable_selinux").(bool)
	}
	imported, _ := config["imports"].([]any)
	switch remedy := fmt.Sprintf("write enable_selinux = true into [plugins.%s]", printable.Quote(plugin)); {
	case set && !enabled:
		at, key := f.lineOf("enable_selinux")
		c.add(at, key, switchedOff, "set it to true")
	case set, len(imported) > 0: // what is imported may have it
	case used:
		at, key := f.line(0)
		c.add(at, key, "cannot confine pods with this configuration of containerd: without enable_selinux it leaves SELinux alone, and they run unconfined on an enforcing machine", remedy)
	default:
		at, key := f.line(0)
		c.note(at, key, "Flatcar's containerd reads /usr/share/containerd/config.toml, not this file, unless CONTAINERD_CONFIG names it; and without enable_selinux, where it is read, pods run unconfined on an enforcing machine", remedy)
	}
}

// configOf gives the file that a command line of containerd names.
func configOf(argv []string, otherwise string, known bool) string {
	for i, arg := range argv {
		value, ok := strings.CutPrefix(arg, "--config=")
		if (arg == "--config" || arg == "-c") && i+1 < len(argv) {
			value, ok = argv[i+1], true
		}
		if ok && !strings.HasPrefix(value, "$") {
			return value
		}
		if ok && !known { // the image's own
			return "/usr/share/containerd/config.toml"
		}
	}
	return otherwise
}

// rancher notes a K3s or RKE2 whose containerd is not told to use SELinux.
func (c *checker) rancher(m *machine, u *unitFile, name, dir, variable string) {
	environment, _ := m.environment(u)
	if !u.boots || environment[variable].value != "" {
		return
	}
	for _, one := range m.commands(u) {
		if slices.ContainsFunc(one.argv, func(arg string) bool { return strings.HasPrefix(arg, "--selinux") }) {
			return
		}
	}
	for _, file := range m.fileNames() {
		if !strings.HasPrefix(file, dir+"/") {
			continue
		}
		f := m.files[file]
		if !f.known {
			return
		}
		if root, err := readYAML([]byte(f.content)); err == nil && get(root, "selinux") != nil {
			return
		}
	}
	c.note(u.text.at, u.text.inside, fmt.Sprintf("%s starts pods unconfined, also on an enforcing machine: its containerd uses SELinux only if %s is told to", u.name, name),
		fmt.Sprintf("write \"selinux: true\" into %s/config.yaml", dir))
}

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

const switchedOff = "cannot confine containers with SELinux switched off in the runtime: they run unconfined on an enforcing machine"

// runtimeConfig finds a container runtime that does not use SELinux on an enforcing machine, or does not start for the way it is told to.
func (c *checker) runtimeConfig(m *machine, s *situation) {
	c.docker(m, s)
	if s.mode != provision.Enforcing {
		return
	}
	c.containerd(m)
	c.crio(m)
	c.podman(m)
	for _, u := range m.units() {
		for _, one := range rancherKinds() {
			if runtimes.Unit(u.name) && strings.HasPrefix(u.name, one.name) && u.boots {
				c.rancher(m, u, one)
			}
		}
	}
}

// choice is what a runtime is told: to use SELinux, not to, or nothing; or what it is told comes from a server.
type choice int

const (
	notSaid choice = iota
	saysOn
	saysOff
	notKnown
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

// chosenInYAML is chosen for a reader of YAML 1.1, in which yes and on are true, too.
func chosenInYAML(value string) choice {
	switch strings.ToLower(value) {
	case "yes", "on", "y":
		return saysOn
	case "no", "off", "n":
		return saysOff
	}
	return chosen(value)
}

// told is what a runtime is told in one place.
type told struct {
	choice choice
	at     provision.Position
	key    string
	remedy string
}

// decided gives what counts: of all places that say something the last.
func decided(all ...told) (last told) {
	for _, one := range all {
		if one.choice != notSaid {
			last = one
		}
	}
	return last
}

// off adds the finding of a runtime that is told not to use SELinux.
func (c *checker) off(t told) {
	if t.choice == saysOff {
		c.add(t.at, t.key, switchedOff, t.remedy)
	}
}

const setTrue = "set it to true"

// tables gives what files in TOML say with a key, in the order of the files.
func (c *checker) tables(m *machine, names []string, keys ...string) (all []told) {
	for _, name := range names {
		f := m.files[name]
		config := c.toml(f)
		one := told{remedy: setTrue}
		if config == nil {
			one.choice = notKnown
		} else if on, set := lookUp(config, keys...).(bool); set {
			one.choice = chosen(strconv.FormatBool(on))
			one.at, one.key = f.lineOf(keys[len(keys)-1])
		}
		all = append(all, one)
	}
	return all
}

// inOrder gives a file, if the machine has it, and behind it those of a directory of drop-ins.
func (m *machine) inOrder(file, dir, ending string) (all []string) {
	if _, there := m.files[m.real(path.Clean(file))]; there {
		all = append(all, m.real(path.Clean(file)))
	}
	for _, name := range m.fileNames() {
		if path.Dir(name) == path.Clean(dir) && path.Ext(name) == ending {
			all = append(all, name)
		}
	}
	return all
}

// flag gives what the command line of a unit says with an option, and where: in the line itself, or in a variable that is put there.
func (m *machine) flag(start command, environment map[string]setting, option string) told {
	t := told{choice: flagOf(start.argv, option), at: start.at, key: start.key, remedy: "remove --" + option + "=false"}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if one := environment[name]; one.at.File != "" && t.choice != notSaid && flagOf(strings.Fields(one.value), option) == t.choice {
			t.at, t.key = one.at, one.key
		}
	}
	return t
}

// variableOf gives what a variable says that a runtime reads in place of an option.
func variableOf(environment map[string]setting, name string) told {
	one := environment[name]
	return told{choice: chosen(one.value), at: one.at, key: one.key, remedy: setTrue}
}

// crio looks at what CRI-O is told: by crio.conf and its drop-ins, over them by its option or the variable of that (crio(8)). Told nothing,
// it uses SELinux where the kernel does.
func (c *checker) crio(m *machine) {
	u := m.runs("crio.service")
	environment, whole := m.environment(u)
	start, _ := m.starting(u, "crio")
	file, dir := "/etc/crio/crio.conf", "/etc/crio/crio.conf.d"
	if given, ok := valueOf(start.argv, "config", "c"); ok {
		file = given
	}
	if given, ok := valueOf(start.argv, "config-dir", "d"); ok {
		dir = given
	}
	all := c.tables(m, m.inOrder(file, dir, ".conf"), "crio", "runtime", "selinux")
	if !whole {
		all = append(all, told{choice: notKnown})
	}
	c.off(decided(append(all, variableOf(environment, "CONTAINER_SELINUX"), m.flag(start, environment, "selinux"))...))
}

// podman looks at what Podman is told (containers.conf(5)). Told nothing, it uses SELinux where the kernel does.
func (c *checker) podman(m *machine) {
	c.off(decided(c.tables(m, m.inOrder("/etc/containers/containers.conf", "/etc/containers/containers.conf.d", ".conf"), "containers", "label")...))
}

// lineOf gives the place of the line that sets a key, of the whole file if there is none.
func (t text) lineOf(key string) (provision.Position, string) {
	const around = " \t\"'"
	n := 0
	for line := range strings.Lines(t.content) {
		n++
		if rest, ok := strings.CutPrefix(strings.TrimLeft(line, around), key); ok {
			if rest = strings.TrimLeft(rest, around); strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, ":") {
				return t.line(n)
			}
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
	flag := m.flag(start, environment, option)
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
	if inFile != nil && flag.choice != notSaid {
		at, key := f.line(inFile.Line)
		c.add(at, key, "cannot start dockerd with selinux-enabled in this file: its command line has the option, as in Flatcar's docker.service, and dockerd refuses one that is in both, whatever its value",
			"remove the key")
	}
	if s.mode != provision.Enforcing {
		return
	}
	at, key := start.at, start.key
	if at.File == "" {
		its := cmp.Or(environment["DOCKER_SELINUX"], setting{at: u.text.at, key: u.text.inside}) // it may be emptied with all others
		at, key = its.at, its.key
	}
	const unconfined = ": without --selinux-enabled dockerd leaves SELinux alone, and they run unconfined on an enforcing machine"
	switch {
	case flag.choice == saysOff:
		c.off(flag)
	case flag.choice == saysOn, inFile != nil && inFile.Value == "true":
	case inFile != nil:
		at, key := f.line(inFile.Line)
		c.off(told{choice: saysOff, at: at, key: key, remedy: setTrue})
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

// The configurations of containerd that ship. Flatcar's own has enable_selinux = true; that for cgroups of version 1, and both of the bakery,
// have no such key (flatcar/scripts, coreos-overlay/coreos/sysext/containerd; flatcar/sysext-bakery, containerd.sysext and docker.sysext).
const (
	shippedConfig = "/usr/share/containerd/config.toml"
	cgroupfs      = "/usr/share/containerd/config-cgroupfs.toml"
)

// containerd looks at the configuration that containerd is started with. The image's has the key; one of somebody's own has to have it,
// since containerd's default is false.
func (c *checker) containerd(m *machine) {
	const own = "/etc/containerd/config.toml" // where containerd looks for it by itself
	u := m.runs("containerd.service")
	environment, _ := m.environment(u)
	start, found := m.starting(u, "containerd")
	name, used := own, false
	if found {
		if !slices.ContainsFunc(start.argv, func(arg string) bool { return arg == "-c" || strings.HasPrefix(arg, "--config") }) {
			used = true
		} else if given, known := valueOf(start.argv, "config", "c"); known {
			name, used = given, true
		}
	}
	image, extension := m.brings("containerd")
	if extension == "" {
		_, extension = m.brings("docker") // the bakery's has a containerd, too
	}
	const unconfined = ": without enable_selinux it leaves SELinux alone, and they run unconfined on an enforcing machine"
	switch its := environment["CONTAINERD_CONFIG"]; {
	case name == cgroupfs && m.hasPods():
		if its.at.File == "" {
			its = setting{at: start.at, key: start.key}
		}
		c.add(its.at, its.key, "cannot confine pods with "+cgroupfs+unconfined, "name a copy of it that has enable_selinux = true in [plugins.\"io.containerd.grpc.v1.cri\"]")
	case name == shippedConfig && !image && extension != "" && m.hasPods():
		at, key := m.placeOf(extension)
		c.add(at, key, "cannot confine pods with the configuration that comes with the bakery's containerd"+unconfined,
			"write one with enable_selinux = true, and name it in a drop-in for containerd.service: Environment=CONTAINERD_CONFIG=/etc/containerd/config.toml")
	}
	if name == shippedConfig || name == cgroupfs {
		name, used = own, false
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
	plugin := criPlugin(version)
	if disabled, _ := config["disabled_plugins"].([]any); slices.Contains(disabled, any("cri")) || slices.Contains(disabled, any(plugin)) || slices.Contains(disabled, any("io.containerd.grpc.v1.cri")) {
		return // nobody can ask it for pods
	}
	says := decided(c.containerdFiles(m, m.real(path.Clean(name)), version, map[string]bool{})...)
	switch remedy := fmt.Sprintf("write enable_selinux = true into [plugins.%s]", printable.Quote(plugin)); {
	case says.choice != notSaid:
		c.off(says)
	case used:
		at, key := f.line(0)
		c.add(at, key, "cannot confine pods with this configuration of containerd"+unconfined, remedy)
	default:
		at, key := f.line(0)
		c.note(at, key, "Flatcar's containerd reads "+shippedConfig+", not this file, unless CONTAINERD_CONFIG names it; and without enable_selinux, where it is read, pods run unconfined on an enforcing machine", remedy)
	}
}

// criPlugin is the name of the plugin that makes pods, in a configuration of a version.
func criPlugin(version int64) string {
	switch {
	case version < 2:
		return "cri"
	case version == 2:
		return "io.containerd.grpc.v1.cri"
	}
	return "io.containerd.cri.v1.runtime"
}

// containerdFiles gives what a configuration of containerd says, and behind it what those say that it imports (containerd-config.toml(5)).
func (c *checker) containerdFiles(m *machine, name string, version int64, seen map[string]bool) []told {
	f, there := m.files[name]
	if seen[name] {
		return nil
	}
	seen[name] = true
	config := c.toml(f)
	if !there || config == nil {
		return []told{{choice: notKnown}}
	}
	if its, given := config["version"].(int64); given {
		version = its
	}
	all := c.tables(m, []string{name}, "plugins", criPlugin(version), "enable_selinux")
	if version < 2 { // older than the name of the plugin
		all = append(c.tables(m, []string{name}, "plugins", "enable_selinux"), all...)
	}
	imports, _ := config["imports"].([]any)
	for _, one := range imports {
		pattern, _ := one.(string)
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(name), pattern)
		}
		if !strings.ContainsAny(pattern, "*?[") {
			all = append(all, c.containerdFiles(m, m.real(path.Clean(pattern)), version, seen)...)
			continue
		}
		for _, imported := range m.fileNames() {
			if fits, err := path.Match(pattern, imported); err == nil && fits {
				all = append(all, c.containerdFiles(m, imported, version, seen)...)
			}
		}
	}
	return all
}

// hasPods tells whether containerd is asked for pods: there is a kubelet.
func (m *machine) hasPods() bool {
	_, extension := m.brings("kubernetes")
	u := m.byName["kubelet.service"]
	return extension != "" || u != nil && u.boots
}

// placeOf gives the place of a file or a link.
func (m *machine) placeOf(name string) (provision.Position, string) {
	if f, ok := m.files[name]; ok {
		return f.at, f.inside
	}
	node, l := m.find("links", name)
	return l.place(lineOf(node)), l.inside
}

// rancherKind is K3s or RKE2, which are told what to do in the same ways.
type rancherKind struct{ name, dir, prefix string }

func rancherKinds() []rancherKind {
	return []rancherKind{{"k3s", "/etc/rancher/k3s", "K3S_"}, {"rke2", "/etc/rancher/rke2", "RKE2_"}}
}

// rancher looks at what K3s or RKE2 is told: by its variable, over that by its configuration, which stands for options before those of the
// command line (k3s, pkg/configfilearg), and by these. Told nothing, its containerd leaves SELinux alone.
func (c *checker) rancher(m *machine, unit *unitFile, kind rancherKind) {
	u := m.runs(unit.name)
	environment, whole := m.environment(u)
	start, _ := m.starting(u, kind.name)
	file := kind.dir + "/config.yaml"
	if given, ok := valueOf(start.argv, "config", "c"); ok {
		file = given
	}
	if given := environment[kind.prefix+"CONFIG_FILE"].value; given != "" {
		file = given
	}
	all := []told{variableOf(environment, kind.prefix+"SELINUX")}
	if !whole {
		all = append(all, told{choice: notKnown})
	}
	for _, name := range m.inOrder(file, file+".d", ".yaml") {
		f := m.files[name]
		root, err := readYAML([]byte(f.content))
		one := told{remedy: setTrue}
		if !f.known || err != nil {
			one.choice = notKnown
		} else if n := get(root, "selinux"); n != nil {
			one.choice = chosenInYAML(n.Value)
			one.at, one.key = f.line(n.Line)
		}
		all = append(all, one)
	}
	says := decided(append(all, m.flag(start, environment, "selinux"))...)
	c.off(says)
	if says.choice == notSaid {
		c.note(unit.text.at, unit.text.inside, fmt.Sprintf("%s starts pods unconfined, also on an enforcing machine: its containerd uses SELinux only if %s is told to", u.name, kind.name),
			fmt.Sprintf("write \"selinux: true\" into %s/config.yaml", kind.dir))
	}
}

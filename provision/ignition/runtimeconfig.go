package ignition

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/runtimes"
	"github.com/selinux-provision/selinux-provision/provision"
)

const (
	containerdConfig = "/etc/containerd/config.toml"
	switchedOff      = "cannot confine containers with SELinux switched off in the runtime: they run unconfined on an enforcing machine"
)

// runtimeConfig finds a container runtime that does not use SELinux on an enforcing machine.
func (c *checker) runtimeConfig(m *machine, s *situation) {
	if s.mode != provision.Enforcing {
		return
	}
	named := map[string]*unitFile{}
	for _, u := range m.units() {
		named[u.name] = u
	}
	c.docker(m, named["docker.service"])
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
				c.rancher(m, u, named, one.name, one.dir, one.variable)
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

// docker looks at daemon.json, and at a command line in place of the image's, which has the option.
func (c *checker) docker(m *machine, u *unitFile) {
	const daemon = "/etc/docker/daemon.json"
	on := false
	if f, ok := m.files[daemon]; ok {
		if !f.known {
			return
		}
		root, err := readJSON([]byte(f.content))
		if err != nil {
			return // dockerd says so
		}
		if enabled := get(root, "selinux-enabled"); enabled != nil {
			if on = enabled.Value == "true"; !on {
				at, key := f.line(enabled.Line)
				c.add(at, key, switchedOff, "set it to true")
				return
			}
		}
	}
	if u == nil || on {
		return
	}
	for _, one := range m.commands(u) {
		if one.program() != "dockerd" || !starts(one.argv) {
			continue
		}
		line := strings.Join(one.argv, " ")
		if !strings.Contains(line, "--selinux-enabled") && !strings.Contains(line, "$DOCKER_SELINUX") && !strings.Contains(line, "${DOCKER_SELINUX}") || strings.Contains(line, "--selinux-enabled=false") {
			c.add(one.at, one.key, "cannot confine containers with this command line in place of the image's: without --selinux-enabled dockerd leaves SELinux alone, and they run unconfined on an enforcing machine",
				"write --selinux-enabled behind dockerd")
		}
		return
	}
}

// containerd looks at the configuration that containerd is started with. The image's has the key; one of somebody's own has to have it,
// since containerd's default is false.
func (c *checker) containerd(m *machine, u *unitFile) {
	name, used := containerdConfig, false
	if u != nil {
		if given := u.environment()["CONTAINERD_CONFIG"]; given != "" {
			name, used = given, true
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
func (c *checker) rancher(m *machine, u *unitFile, named map[string]*unitFile, name, dir, variable string) {
	if !u.starts(named) || u.environment()[variable] != "" {
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

package ignition

import (
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/provision"
)

// starter is a program that starts containers.
type starter struct {
	// daemon says that it does so as long as it runs, unless it is only asked something; asks are the commands that only ask.
	daemon bool
	asks   []string
	// commands are those with which it does so, the others start nothing.
	commands []string
	// valued are its options before the command that take their value from the next argument.
	valued []string
}

// starters are the programs that start containers themselves. A client of a daemon is among them where nothing starts the daemon on
// demand; see dockerClient for one whose daemon comes by itself.
func starters() map[string]starter {
	podmanOptions := []string{"--log-level", "--root", "--runroot", "--runtime", "--storage-driver", "--storage-opt", "--cgroup-manager", "--connection",
		"-c", "--url", "--identity", "--events-backend", "--tmpdir", "--network-config-dir", "--conmon", "--module", "--volumepath", "--ssh"}
	containerdOptions := []string{"-n", "--namespace", "-a", "--address", "--data-root", "--snapshotter", "--timeout", "--connect-timeout", "--host", "-H"}
	runc := []string{"run", "start", "restore", "exec", "create"}
	runcOptions := []string{"--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager"}
	return map[string]starter{
		"dockerd": {daemon: true}, "containerd": {daemon: true, asks: []string{"config", "publish", "oci-hook", "version", "help"}},
		"kubelet": {daemon: true, asks: []string{"completion", "help"}}, "buildkitd": {daemon: true},
		"crio": {daemon: true, asks: []string{"config", "wipe", "version", "check", "status", "complete", "completion", "man", "markdown", "help"}},
		"k3s":  {commands: []string{"server", "agent", "ctr run", "ctr task start", "ctr tasks start"}, valued: []string{"--data-dir", "-d"}},
		"rke2": {commands: []string{"server", "agent"}}, "k0s": {commands: []string{"controller", "worker", "start"}},
		"k3s-server": {daemon: true}, "k3s-agent": {daemon: true},
		"nomad": {commands: []string{"agent"}},
		"podman": {commands: []string{"run", "start", "restart", "container run", "container start", "container restart", "container restore",
			"pod start", "pod restart", "play kube", "kube play", "compose up", "compose start", "compose run", "build", "image build", "auto-update",
			"system service", "container runlabel"}, valued: podmanOptions},
		"podman-compose": {commands: []string{"up", "start", "run", "restart"}, valued: []string{"-f", "--file", "-p", "--project-name"}},
		"buildah":        {commands: []string{"run", "bud", "build"}, valued: podmanOptions},
		"nerdctl": {commands: []string{"run", "start", "restart", "container run", "container start", "compose up", "compose start", "compose run", "build"},
			valued: containerdOptions},
		"ctr":            {commands: []string{"run", "task start", "tasks start", "t start"}, valued: containerdOptions},
		"systemd-nspawn": {daemon: true}, "lxc-start": {daemon: true},
		"runc": {commands: runc, valued: runcOptions}, "crun": {commands: runc, valued: runcOptions}, "youki": {commands: runc, valued: runcOptions},
	}
}

// starts tells whether a command starts a container, or serves those who do.
func starts(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	s, ok := starters()[path.Base(argv[0])]
	if !ok {
		return false
	}
	words, asked := positional(argv[1:], s.valued)
	if asked {
		return false
	}
	if s.daemon {
		// A daemon takes no command: what is no option of its own is a value of one, or a command that only asks.
		return len(argv) < 2 || !slices.Contains(s.asks, argv[1])
	}
	return slices.ContainsFunc(s.commands, func(command string) bool {
		want := strings.Fields(command)
		return len(words) >= len(want) && slices.Equal(words[:len(want)], want)
	})
}

// positional gives the arguments up to an option that belongs to a command, and whether the program is only asked for its version or for
// help.
func positional(args, valued []string) (words []string, asked bool) {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case slices.Contains([]string{"--version", "--help", "-h"}, arg), len(args) == 1 && (arg == "-v" || arg == "-V"):
			if len(words) == 0 || i == len(args)-1 {
				return words, true
			}
		case len(words) == 0 && slices.Contains(valued, arg):
			i++
		case strings.HasPrefix(arg, "-"):
		default:
			words = append(words, arg)
		}
	}
	return words, false
}

// bind is a directory or a file of the host that a container gets.
type bind struct {
	source   string
	relabels bool // the runtime gives it the container's label
	readOnly bool
}

// containerRun is what a command or a file says about one container.
type containerRun struct {
	binds []bind
	// free says that SELinux does not confine it, or that it has a type of its own, of which nothing is known here.
	free bool
}

// runOf gives the container that a command line starts, false if it starts none.
func runOf(argv []string) (run containerRun, ok bool) {
	if len(argv) < 2 || !slices.Contains([]string{"docker", "podman", "nerdctl"}, path.Base(argv[0])) {
		return run, false
	}
	valued := slices.Concat([]string{"-H", "--host", "--config", "--context", "-l"}, starters()["podman"].valued, starters()["nerdctl"].valued)
	args := argv[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if slices.Contains(valued, args[0]) && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "container" {
		args = args[1:]
	}
	if len(args) == 0 || args[0] != "run" && args[0] != "create" {
		return run, false
	}
	run.options(args[1:])
	return run, true
}

// flags are the options of "run" that take no value; a letter alone stands for one of one letter.
func flags() []string {
	return []string{"rm", "detach", "interactive", "tty", "privileged", "init", "read-only", "publish-all", "replace", "no-healthcheck", "oom-kill-disable",
		"sig-proxy", "quiet", "rootfs", "no-hosts", "no-hostname", "env-host", "http-proxy", "disable-content-trust", "help", "rmi", "passwd", "tls-verify",
		"read-only-tmpfs", "unsetenv-all", "use-api-socket", "d", "i", "t", "P", "q"}
}

// options reads the options of "run", up to the name of the image.
func (c *containerRun) options(args []string) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" && args[0] != "--" {
		arg := args[0]
		args = args[1:]
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") {
			letters := arg[1:]
			for letters != "" && slices.Contains(flags(), letters[:1]) {
				letters = letters[1:]
			}
			if letters == "" {
				continue
			}
			name, value = letters[:1], strings.TrimPrefix(letters[1:], "=")
			hasValue = len(letters) > 1
		}
		if !hasValue && !slices.Contains(flags(), name) {
			if len(args) == 0 {
				return
			}
			value, args = args[0], args[1:]
		}
		switch name {
		case "v", "volume":
			c.volume(value)
		case "mount":
			c.mount(value)
		case "privileged":
			c.free = c.free || value != "false"
		case "security-opt":
			c.security(value)
		}
	}
}

// mount reads type=bind,source=...,target=....
func (c *containerRun) mount(value string) {
	b, kind := bind{}, "volume"
	for option := range strings.SplitSeq(value, ",") {
		name, v, hasValue := strings.Cut(option, "=")
		switch name {
		case "type":
			kind = v
		case "source", "src":
			b.source = v
		case "readonly", "ro":
			b.readOnly = !hasValue || v == "true" || v == "1"
		case "relabel", "z", "Z":
			b.relabels = true
		}
	}
	if kind == "bind" {
		c.add(b)
	}
}

// add takes a bind whose source is a place on the host, and no volume with a name.
func (c *containerRun) add(b bind) {
	if strings.HasPrefix(b.source, "/") || strings.HasPrefix(b.source, "%h/") || strings.HasPrefix(b.source, "~/") {
		c.binds = append(c.binds, b)
	}
}

func (c *containerRun) security(option string) {
	option = strings.Trim(option, `"'`)
	if rest, ok := strings.CutPrefix(option, "label"); ok && rest != "" {
		rest = rest[1:]
		c.free = c.free || rest == "disable" || strings.HasPrefix(rest, "type:") || strings.HasPrefix(rest, "type=")
	}
}

// directories finds directories of the host that containers get without a label for containers, while the machine is enforcing.
func (c *checker) directories(m *machine, s *situation) {
	if !s.enforcing {
		return
	}
	for _, u := range m.units() {
		if u.general {
			continue
		}
		if u.quadlet != "" {
			c.quadletDirectories(m, u, s)
		}
		for _, command := range m.commands(u) {
			if run, ok := runOf(command.argv); ok {
				c.binds(m, run, "the container of "+u.name, command.at, command.key, s)
			}
		}
	}
	for _, name := range m.composeFiles() {
		c.composeDirectories(m, name, s)
	}
}

// binds says which directories of one container are a problem, those with one remedy together.
func (c *checker) binds(m *machine, run containerRun, whose string, at provision.Position, key string, s *situation) {
	if run.free {
		return
	}
	var own, others []string
	for _, b := range run.binds {
		source := path.Clean(b.source)
		if below, ok := strings.CutPrefix(source, "/var/run/"); ok {
			source = "/run/" + below
		}
		switch {
		case b.relabels && !hosts(source), s.labelled(m, source, b.readOnly):
		case hosts(source):
			others = append(others, source)
		default:
			own = append(own, source)
		}
	}
	slices.Sort(own)
	slices.Sort(others)
	if own = slices.Compact(own); len(own) > 0 {
		c.add(at, key, "cannot give "+strings.Join(own, ", ")+" to "+whose+" on an enforcing machine: nothing gives "+them(own)+" a label that containers may use",
			"write :z behind it (:Z if no other container uses it), or declare a volume or file_contexts with container_file_t for it")
	}
	if others = slices.Compact(others); len(others) > 0 {
		c.add(at, key, "cannot give "+strings.Join(others, ", ")+" to "+whose+" on an enforcing machine: "+map[bool]string{true: "it belongs", false: "they belong"}[len(others) == 1]+
			" to the host, where no container has access", "run this container with --security-opt label=disable, or with a domain of its own (denials --module)")
	}
}

func them(all []string) string {
	if len(all) == 1 {
		return "it"
	}
	return "them"
}

// hosts tells whether a path is the system's, a runtime's, or the socket of a daemon: a label for containers does not help there, or does harm.
func hosts(name string) bool {
	if strings.HasSuffix(name, ".sock") || strings.HasSuffix(name, "socket") {
		return true
	}
	for _, dir := range []string{"/run/systemd", "/run/udev", "/run/dbus"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return protected.Declared(name)
}

// labelled tells whether a container may use what is at a path, as far as the file tells: it is declared, it is mounted with a label, or
// the policy lets every container read it.
func (s *situation) labelled(m *machine, name string, readOnly bool) bool {
	below := func(dir string) bool { return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }
	if s.declared != nil {
		if _, found := s.contexts.Lookup(name, filecontexts.Any); found {
			return true
		}
		if alike := s.contexts.Resolve(name); alike != name && protected.Declared(alike) {
			return true
		}
	}
	var at *mount
	for _, one := range s.mounts {
		if one.where != "" && below(one.where) && one.where != "/" && (at == nil || len(one.where) > len(at.where)) {
			at = &one
		}
	}
	if at != nil {
		if at.context() != "" || s.rule(*at) != nil || strings.HasPrefix(at.fstype, "fuse") {
			return true
		}
		if s.declared != nil && (strings.HasPrefix(at.fstype, "nfs") && s.declared.Booleans["container_use_nfs"] ||
			(at.fstype == "cifs" || at.fstype == "smb3") && s.declared.Booleans["container_use_samba"]) {
			return true
		}
	}
	if s.declared != nil && at == nil {
		for _, v := range s.declared.Volumes {
			if v.Match.Mountpoint != "" && !strings.ContainsAny(v.Match.Mountpoint, "*?[") && below(v.Match.Mountpoint) {
				return true
			}
		}
	}
	for _, dir := range []string{"/etc/cni", "/run/flannel", "/var/lib/docker/volumes", "/var/lib/containers/storage/volumes"} {
		if below(dir) {
			return true // what the runtime or the policy labels when it is made
		}
	}
	for _, dir := range []string{"/proc", "/sys"} {
		if below(dir) {
			return true
		}
	}
	if !readOnly || name != "/etc" && m.writes(name) {
		return false
	}
	return below("/etc") || below("/var/lib") && name != "/var/lib" && protected.Owner(name) == ""
}

// writes tells whether the file writes something at or below a path: what Ignition writes has no label.
func (m *machine) writes(name string) bool {
	is := func(other string) bool { return other == name || strings.HasPrefix(other, name+"/") }
	if slices.ContainsFunc(m.fileNames(), is) {
		return true
	}
	for _, d := range m.config.Storage.Directories {
		if is(path.Clean(d.Path)) {
			return true
		}
	}
	return false
}

// composeFiles gives the compose files that are in the file: by the name that compose looks for, or named in a command.
func (m *machine) composeFiles() []string {
	is := map[string]bool{}
	for _, name := range m.fileNames() {
		base := path.Base(name)
		stem := strings.TrimSuffix(strings.TrimSuffix(base, ".yml"), ".yaml")
		if stem != base && (stem == "compose" || stem == "docker-compose" || stem == "podman-compose" || strings.HasPrefix(stem, "compose.") || strings.HasPrefix(stem, "docker-compose.")) {
			is[name] = true
		}
	}
	for _, c := range m.allCommands() {
		if !slices.ContainsFunc(c.argv, func(arg string) bool {
			return path.Base(arg) == "compose" || strings.HasSuffix(path.Base(arg), "-compose")
		}) {
			continue
		}
		for i, arg := range c.argv {
			value, ok := strings.CutPrefix(arg, "--file=")
			if (arg == "-f" || arg == "--file") && i+1 < len(c.argv) {
				value, ok = c.argv[i+1], true
			}
			if ok {
				is[path.Clean(value)] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(m.fileNames()), func(name string) bool { return !is[name] || !m.files[name].known })
}

// composeDirectories looks at the services of a compose file.
func (c *checker) composeDirectories(m *machine, name string, s *situation) {
	f := m.files[name]
	root, err := readYAML([]byte(f.content))
	if err != nil || root == nil {
		return // compose says so
	}
	services := get(root, "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return
	}
	for _, key := range keys(services) {
		service := get(services, key.Value)
		run := containerRun{}
		if p := get(service, "privileged"); p != nil && p.Value == "true" {
			run.free = true
		}
		for _, option := range items(get(service, "security_opt")) {
			run.security(resolve(option).Value)
		}
		for _, item := range items(get(service, "volumes")) {
			v := resolve(item)
			if v.Kind == yaml.ScalarNode {
				run.volume(composeSource(name, v.Value))
				continue
			}
			if kind := get(v, "type"); kind == nil || kind.Value != "bind" {
				continue
			}
			b := bind{relabels: get(v, "bind", "selinux") != nil}
			if source := get(v, "source"); source != nil {
				b.source = composeSource(name, source.Value)
			}
			if ro := get(v, "read_only"); ro != nil {
				b.readOnly = ro.Value == "true"
			}
			run.add(b)
		}
		at, inside := f.line(key.Line)
		c.binds(m, run, "the service "+quote(key.Value)+" of "+name, at, inside, s)
	}
}

package ignition

import (
	"path"
	"strings"

	"github.com/selinux-provision/selinux-provision/provision"
)

// setting is the value that a variable gets, and where.
type setting struct {
	value string
	unset bool // it is taken away
	at    provision.Position
	key   string
}

// environment gives the variables that a unit is started with, as systemd.exec(5) has it: those of Environment=, over them those of the
// files of EnvironmentFile=, and none that UnsetEnvironment= names. It is not whole if one of these files is not known.
func (m *machine) environment(u *unitFile) (all map[string]setting, whole bool) {
	all, whole = map[string]setting{}, true
	u.words("Environment", func(word string, o unitOption) {
		if name, value, ok := strings.Cut(word, "="); ok {
			all[name] = setting{value: value, at: o.at, key: o.key}
		}
	})
	for _, o := range u.options {
		if o.section != "Service" || o.name != "EnvironmentFile" {
			continue
		}
		name, optional := strings.CutPrefix(u.specified(o.value), "-")
		f, there := m.files[m.real(path.Clean(name))]
		if !there && optional {
			continue
		}
		whole = whole && f.known
		for _, v := range environmentFile(f.content) {
			one := setting{value: v.value}
			one.at, one.key = f.line(v.line)
			all[v.name] = one
		}
	}
	u.words("UnsetEnvironment", func(word string, o unitOption) {
		name, value, exact := strings.Cut(word, "=")
		if set, ok := all[name]; ok && (!exact || set.value == value) {
			all[name] = setting{unset: true, at: o.at, key: o.key}
		}
	})
	return all, whole
}

// words gives each word of an option of [Service] that is a list of words in quotes.
func (u *unitFile) words(name string, each func(word string, o unitOption)) {
	for _, o := range u.options {
		if o.section != "Service" || o.name != name {
			continue
		}
		for _, words := range execWords(u.specified(o.value), nil) {
			for _, word := range words {
				each(word, o)
			}
		}
	}
}

// variables gives the values alone.
func variables(all map[string]setting) map[string]string {
	values := map[string]string{}
	for name, one := range all {
		if !one.unset {
			values[name] = one.value
		}
	}
	return values
}

// specified puts what a unit's name says into the place of specifiers (systemd.unit(5)). An instance of a template that nobody named is
// not known.
func (u *unitFile) specified(value string) string {
	if !strings.Contains(value, "%") {
		return value
	}
	stem := strings.TrimSuffix(u.name, path.Ext(u.name))
	prefix, instance, ofTemplate := strings.Cut(stem, "@")
	known := []string{"%%", "%%", "%n", u.name, "%N", stem, "%p", prefix}
	if !ofTemplate || instance != "" {
		known = append(known, "%i", instance)
	}
	return strings.NewReplacer(known...).Replace(value)
}

// variable is one assignment in a file, and the line that it begins in.
type variable struct {
	name, value string
	line        int
}

// environmentFile reads a file of EnvironmentFile= (systemd.exec(5)): NAME=VALUE, where quotes hold a value together over lines, and a
// backslash takes the meaning from what follows it.
func environmentFile(content string) (all []variable) {
	var (
		value   strings.Builder
		one     variable
		quote   byte // 0: outside
		begun   bool // a value is being read
		kept    int  // length of the value up to its last byte that is no space at its end
		escaped bool
	)
	put := func(b byte, keep bool) {
		value.WriteByte(b)
		if keep {
			kept = value.Len()
		}
	}
	end := func() {
		if begun && one.name != "" {
			one.value = value.String()[:kept]
			all = append(all, one)
		}
		value.Reset()
		begun, kept, quote = false, 0, 0
	}
	line := 1
	for at := 0; at < len(content); at++ {
		b := content[at]
		if b == '\n' {
			line++
		}
		switch {
		case !begun:
			text, rest, more := strings.Cut(content[at:], "\n")
			name, _, assigns := strings.Cut(text, "=")
			name = strings.TrimSpace(name)
			if !assigns || name == "" || name[0] == '#' || name[0] == ';' {
				at = len(content) - len(rest) - 1
				if b != '\n' && more {
					line++
				}
				continue
			}
			one, begun = variable{name: name, line: line}, true
			at += strings.IndexByte(text, '=')
		case escaped:
			escaped = false
			if quote == '"' && strings.IndexByte("\"\\`$\n", b) < 0 {
				put('\\', true)
			}
			if b != '\n' {
				put(b, true)
			}
		case b == '\\' && quote != '\'':
			escaped = true
		case quote != 0 && b == quote:
			quote, kept = 0, value.Len()
		case quote != 0:
			put(b, true)
		case b == '\n':
			end()
		case (b == '"' || b == '\'') && kept == 0:
			value.Reset() // spaces before it
			quote = b
		default:
			if space := strings.IndexByte(" \t\r", b) >= 0; !space || kept > 0 {
				put(b, !space)
			}
		}
	}
	end()
	return all
}

// runs gives a unit as it runs: as the file has it, or that of the image or of an extension with what the file changes in it. Lines that
// come with these have no place. Nil: it is not known how it is started.
func (m *machine) runs(name string) *unitFile {
	m.units()
	u := m.byName[name]
	if u != nil && len(u.own) > 0 {
		return u
	}
	lines, known := shippedUnits()[name]
	if !known {
		return u
	}
	one := &unitFile{name: name}
	if u != nil {
		one.text, one.enabled, one.masked = u.text, u.enabled, u.masked
	}
	one.read(text{content: lines})
	for i := range one.options {
		one.options[i].key = ""
	}
	one.own = one.options
	one.join(m.byName)
	return one
}

// shippedUnits are the lines that say how a runtime is started in the units of Flatcar's image (flatcar/scripts, coreos-overlay/coreos/sysext), of the extensions of the bakery
// (flatcar/sysext-bakery), and of what these take from others.
func shippedUnits() map[string]string {
	// K3s's in the bakery, RKE2's in its own archive.
	const rancherFiles = "[Service]\nEnvironmentFile=-/etc/default/%N\nEnvironmentFile=-/etc/sysconfig/%N\nEnvironmentFile=-/usr/local/lib/systemd/system/%N.env\n"
	return map[string]string{
		// The image's docker.service; the bakery's has the same.
		"docker.service": `[Service]
EnvironmentFile=-/run/flannel/flannel_docker_opts.env
Environment=DOCKER_SELINUX=--selinux-enabled=true
ExecStart=/usr/bin/dockerd --host=fd:// $DOCKER_SELINUX $DOCKER_OPTS $DOCKER_CGROUPS $DOCKER_OPT_BIP $DOCKER_OPT_MTU $DOCKER_OPT_IPMASQ
`,
		"containerd.service": `[Service]
Environment=CONTAINERD_CONFIG=/usr/share/containerd/config.toml
ExecStart=/usr/bin/containerd --config ${CONTAINERD_CONFIG}
`,
		// CRI-O's own unit with the bakery's drop-in.
		"crio.service": `[Service]
EnvironmentFile=-/etc/sysconfig/crio
ExecStart=/usr/bin/crio --config-dir /etc/crio/crio.conf.d/ $CRIO_CONFIG_OPTIONS $CRIO_RUNTIME_OPTIONS $CRIO_STORAGE_OPTIONS $CRIO_NETWORK_OPTIONS $CRIO_METRICS_OPTIONS
`,
		"k3s.service":         rancherFiles + "ExecStart=/usr/local/bin/k3s server\n",
		"k3s-agent.service":   rancherFiles + "ExecStart=/usr/local/bin/k3s agent\n",
		"rke2-server.service": rancherFiles + "ExecStart=/usr/local/bin/rke2 server\n",
		"rke2-agent.service":  rancherFiles + "ExecStart=/usr/local/bin/rke2 agent\n",
	}
}

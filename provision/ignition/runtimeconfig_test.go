package ignition

import (
	"strings"
	"testing"
)

// node is the head of a Butane file for an enforcing machine.
const node = `variant: flatcar
version: 1.0.0
storage:
  files:
    - path: /etc/extensions/selinux-provision.raw
      contents: {source: https://files.example/selinux-provision.raw}
    - path: /etc/selinux-provision/config.yaml
      mode: 0644
      contents: {inline: "version: 1\nmode: enforcing\n"}
`

// said gives what Check says about a file, line by line; a note begins with "note: ".
func said(t *testing.T, content string) string {
	t.Helper()
	_, findings, err := Check("x", strings.NewReader(content), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range findings {
		all = append(all, map[bool]string{true: "note: "}[f.Note]+f.String())
	}
	return strings.Join(all, "\n")
}

// expect compares what is said about files with what begins each line of it; a machine about which nothing is to be said has no line.
func expect(t *testing.T, files map[string]struct{ content, want string }) {
	t.Helper()
	for name, c := range files {
		got := said(t, c.content)
		lines, want := strings.Split(got, "\n"), strings.Split(c.want, "\n")
		right := len(lines) == len(want)
		for i := range want {
			right = right && (lines[i] == want[i] || want[i] != "" && strings.HasPrefix(lines[i], want[i]))
		}
		if !right {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// Docker uses SELinux if its command line or its daemon.json says so, and does not start if both do. Flatcar's docker.service (flatcar/scripts,
// coreos-overlay/coreos/sysext/docker) and the bakery's have
//
//	Environment=DOCKER_SELINUX=--selinux-enabled=true
//	ExecStart=/usr/bin/dockerd ... $DOCKER_SELINUX $DOCKER_OPTS ...
//
// and dockerd ends with "the following directives are specified both as a flag and in the configuration file: selinux-enabled: (from flag:
// true, from file: true)".
func TestDocker(t *testing.T) {
	daemon := func(key string) string {
		return "    - path: /etc/docker/daemon.json\n      contents: {inline: '{" + key + "}'}\n"
	}
	dropin := func(lines string) string {
		return "systemd:\n  units:\n    - name: docker.service\n      dropins:\n        - name: 10.conf\n          contents: |\n            [Service]\n            " +
			strings.ReplaceAll(lines, "\n", "\n            ") + "\n"
	}
	const (
		own     = "ExecStart=\nExecStart=/usr/bin/dockerd -H fd://"
		twice   = "x:10: /etc/docker/daemon.json:1: cannot start dockerd with selinux-enabled in this file"
		isOff   = "cannot confine containers with SELinux switched off in the runtime: they run unconfined on an enforcing machine: "
		without = "cannot confine containers without DOCKER_SELINUX"
		opts    = "    - path: /etc/docker/opts\n      contents:\n        inline: |\n          # ours\n          DOCKER_OPTS=\"--debug --selinux-enabled=false\"\n"
	)
	expect(t, map[string]struct{ content, want string }{
		"the image's":               {node, ""},
		"a file without the key":    {node + daemon(`"live-restore": true`), ""},
		"the key is true":           {node + daemon(`"selinux-enabled": true`), twice},
		"the key is false":          {node + daemon(`"selinux-enabled": false`), twice},
		"whatever the mode":         {strings.ReplaceAll(node, "enforcing", "permissive") + daemon(`"selinux-enabled": true`), twice},
		"no Docker at all":          {node + daemon(`"selinux-enabled": true`) + "  links:\n    - {path: /etc/extensions/docker-flatcar.raw, target: /dev/null}\n", ""},
		"the bakery's Docker":       {node + daemon(`"selinux-enabled": true`) + "  links:\n    - {path: /etc/extensions/docker-flatcar.raw, target: /dev/null}\n    - {path: /etc/extensions/docker.raw, target: /opt/extensions/docker-28.0.4-x86-64.raw}\n", twice},
		"compose is no Docker":      {node + daemon(`"selinux-enabled": true`) + "  links:\n    - {path: /etc/extensions/docker-flatcar.raw, target: /dev/null}\n    - {path: /etc/extensions/docker-compose.raw, target: /opt/x.raw}\n", ""},
		"a line without the option": {node + dropin(own), "x:18: docker.service.d/10.conf: cannot confine containers with this command line"},
		"and with the key":          {node + daemon(`"selinux-enabled": true`) + dropin(own), ""},
		"and with the key false":    {node + daemon(`"selinux-enabled": false`) + dropin(own), "x:10: /etc/docker/daemon.json:1: " + isOff + "set it to true"},
		"in a file of another name": {node + dropin(own+" --config-file /etc/docker.json") + "", "x:18: docker.service.d/10.conf: cannot confine"},
		"a line with the variable":  {node + dropin(own+" $DOCKER_SELINUX"), ""},
		"and with the key, twice":   {node + daemon(`"selinux-enabled": true`) + dropin(own+" ${DOCKER_SELINUX}"), twice},
		"a line that has it false":  {node + dropin(own+" --selinux-enabled=false"), "x:18: docker.service.d/10.conf: " + isOff + "remove --selinux-enabled=false"},
		"the variable is false":     {node + dropin("Environment=DOCKER_SELINUX=--selinux-enabled=false"), "x:17: docker.service.d/10.conf: " + isOff + "remove --selinux-enabled=false"},
		"other options are":         {node + dropin(`Environment="DOCKER_OPTS=--debug --selinux-enabled=false"`), "x:17: docker.service.d/10.conf: " + isOff},
		"other options":             {node + dropin(`Environment="DOCKER_OPTS=--debug --live-restore"`), ""},
		"the variable is empty":     {node + dropin("Environment=DOCKER_SELINUX="), "x:17: docker.service.d/10.conf: " + without},
		"the variable is unset":     {node + dropin("UnsetEnvironment=DOCKER_SELINUX"), "x:17: docker.service.d/10.conf: " + without},
		"another value is unset":    {node + dropin("UnsetEnvironment=DOCKER_SELINUX=x"), ""},
		"all are reset":             {node + dropin("Environment="), "x:12: " + without},
		"empty, but in the file":    {node + daemon(`"selinux-enabled": true`) + dropin("Environment=DOCKER_SELINUX="), ""},
		"a file with options":       {node + opts + dropin("EnvironmentFile=/etc/docker/opts"), "x:14: /etc/docker/opts: " + isOff},
		"a file that is not here":   {node + dropin("EnvironmentFile=/etc/docker/opts\n"+own+" $OPTS"), ""},
		"no file":                   {node + dropin("EnvironmentFile=-/etc/docker/opts\n"+own+" $OPTS"), "x:19: docker.service.d/10.conf: cannot confine containers with this"},
	})
}

// A file of variables is read as systemd reads it: systemd.exec(5), EnvironmentFile=.
func TestEnvironmentFile(t *testing.T) {
	for content, want := range map[string]string{
		"":                                 "",
		"A=b\nC=d":                         "A=b:1 C=d:2",
		"# A=b\n; C=d\n\n no\nE = f g  \n": "E=f g:5",
		"A='b \"c\" \\d'\nE=f":             `A=b "c" \d:1 E=f:2`,
		"A=\"b\nc\" \nD=e":                 "A=b\nc:1 D=e:3",
		`A="b \"c\" \$d \e"`:               `A=b "c" $d \e:1`,
		"A=b\\\nc\nD=e":                    "A=bc:1 D=e:3",
		`A=b\\c\d`:                         `A=b\cd:1`,
		"A=":                               "A=:1",
		"A= \"b\" \r\nC=d\r\n":             "A=b:1 C=d:2",
		"A=b \"c\"":                        `A=b "c":1`,
		"=b\nA=''":                         "A=:2",
	} {
		var all []string
		for _, v := range environmentFile(content) {
			all = append(all, v.name+"="+v.value+":"+string(rune('0'+v.line)))
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%q\ngot  %q\nwant %q", content, got, want)
		}
	}
}

// Each runtime is told to use SELinux in several places, of which the last one counts, and its value.
//
// containerd-config.toml(5): imported files come behind the one that imports them. sysext-bakery, containerd.sysext: a config.toml of version
// 3 without enable_selinux; flatcar/scripts, coreos/sysext/containerd: config-cgroupfs.toml without it. crio(8): --selinux, CONTAINER_SELINUX,
// and crio.conf.d over crio.conf. containers.conf(5): containers.conf.d over containers.conf. K3s, pkg/configfilearg: what its configuration
// says stands before the options of the command line, and its variables count where no option does; its unit in the bakery has
// EnvironmentFile=-/etc/default/%N.
func TestRuntimesAreToldToUseSELinux(t *testing.T) {
	file := func(name, content string) string {
		return "    - path: " + name + "\n      contents:\n        inline: |\n          " + strings.ReplaceAll(content, "\n", "\n          ") + "\n"
	}
	unit := func(name, lines string) string {
		return "systemd:\n  units:\n    - name: " + name + "\n      enabled: true\n      dropins:\n        - name: 10.conf\n          contents: |\n            [Service]\n            " +
			strings.ReplaceAll(lines, "\n", "\n            ") + "\n"
	}
	links := func(all ...string) string {
		text := "  links:\n"
		for _, name := range all {
			target := "/opt/extensions/x.raw"
			if strings.Contains(name, "-flatcar") {
				target = "/dev/null"
			}
			text += "    - {path: /etc/extensions/" + name + ", target: " + target + "}\n"
		}
		return text
	}
	const (
		isOff     = "cannot confine containers with SELinux switched off in the runtime: they run unconfined on an enforcing machine: "
		kubelet   = "systemd:\n  units:\n    - {name: kubelet.service, enabled: true}\n"
		k3s       = "systemd:\n  units:\n    - {name: k3s.service, enabled: true}\n"
		noK3s     = "note: x:12: k3s.service starts pods unconfined"
		main      = "/etc/containerd/config.toml"
		own       = "Environment=CONTAINERD_CONFIG=" + main
		imports   = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]"
		enable    = "\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_selinux = "
		crioConf  = "/etc/crio/crio.conf"
		crioDrop  = "/etc/crio/crio.conf.d/10.conf"
		runtime   = "[crio.runtime]\nselinux = "
		containrs = "/etc/containers/containers.conf"
	)
	expect(t, map[string]struct{ content, want string }{
		"the image's containerd":            {node + kubelet, ""},
		"the bakery's containerd":           {node + links("containerd.raw", "containerd-flatcar.raw") + kubelet, "x:11: cannot confine pods with the configuration that comes with the bakery's containerd"},
		"the bakery's Docker brings one":    {node + links("docker-28.0.4-x86-64.raw", "docker-flatcar.raw", "containerd-flatcar.raw", "kubernetes-v1.33.2-x86-64.raw"), "x:11: cannot confine pods"},
		"nobody asks it for pods":           {node + links("containerd.raw", "containerd-flatcar.raw"), ""},
		"with a configuration of one's own": {node + file(main, "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux = true") + links("containerd.raw", "containerd-flatcar.raw") + unit("containerd.service", own) + "    - {name: kubelet.service, enabled: true}\n", ""},
		"cgroups of version 1":              {node + unit("containerd.service", "Environment=CONTAINERD_CONFIG=/usr/share/containerd/config-cgroupfs.toml") + "    - {name: kubelet.service, enabled: true}\n", "x:18: containerd.service.d/10.conf: cannot confine pods with /usr/share/containerd/config-cgroupfs.toml"},
		"the same without pods":             {node + unit("containerd.service", "Environment=CONTAINERD_CONFIG=/usr/share/containerd/config-cgroupfs.toml"), ""},
		"containerd's own place":            {node + file(main, "version = 2") + unit("containerd.service", "ExecStart=\nExecStart=/usr/bin/containerd"), "x:10: /etc/containerd/config.toml: cannot confine pods with this configuration"},
		"imported false":                    {node + file(main, imports+enable+"true") + file("/etc/containerd/conf.d/a.toml", "version = 2"+enable+"false") + unit("containerd.service", own), "x:22: /etc/containerd/conf.d/a.toml: " + isOff + "set it to true"},
		"imported true":                     {node + file(main, imports+enable+"false") + file("/etc/containerd/conf.d/a.toml", "version = 2"+enable+"true") + unit("containerd.service", own), ""},
		"imported nothing":                  {node + file(main, imports) + file("/etc/containerd/conf.d/a.toml", "version = 2") + unit("containerd.service", own), "x:10: /etc/containerd/config.toml: cannot confine pods with this configuration"},
		"imported from elsewhere":           {node + file(main, "version = 2\nimports = [\"nvidia.toml\"]") + unit("containerd.service", own), ""},
		"imported in a circle":              {node + file(main, "version = 2\nimports = [\"config.toml\"]"+enable+"true") + unit("containerd.service", own), ""},

		"CRI-O's drop-in counts":          {node + file(crioConf, runtime+"false") + file(crioDrop, runtime+"true"), ""},
		"CRI-O's drop-in is false":        {node + file(crioConf, runtime+"true") + file(crioDrop, runtime+"false"), "x:19: /etc/crio/crio.conf.d/10.conf: " + isOff + "set it to true"},
		"CRI-O's option":                  {node + unit("crio.service", "ExecStart=\nExecStart=/opt/bin/crio --selinux=false"), "x:19: crio.service.d/10.conf: " + isOff + "remove --selinux=false"},
		"CRI-O's option in a variable":    {node + unit("crio.service", "Environment=CRIO_RUNTIME_OPTIONS=--selinux=false"), "x:18: crio.service.d/10.conf: " + isOff + "remove --selinux=false"},
		"CRI-O's option is true":          {node + file(crioConf, runtime+"false") + unit("crio.service", "ExecStart=\nExecStart=/opt/bin/crio --selinux"), ""},
		"CRI-O's variable":                {node + unit("crio.service", "Environment=CONTAINER_SELINUX=false"), "x:18: crio.service.d/10.conf: " + isOff + "set it to true"},
		"CRI-O's files from a server":     {node + file(crioConf, runtime+"false") + "    - {path: /etc/crio/crio.conf.d/10.conf, contents: {source: https://files.example/x}}\n", ""},
		"CRI-O's configuration elsewhere": {node + file("/opt/crio.conf", runtime+"false") + unit("crio.service", "ExecStart=\nExecStart=/opt/bin/crio --config /opt/crio.conf"), "x:14: /opt/crio.conf: " + isOff},

		"Podman's drop-in counts":   {node + file(containrs, "[containers]\nlabel_users = true\nlabel = false") + file(containrs+".d/99.conf", "[containers]\nlabel = true"), ""},
		"Podman's drop-in is false": {node + file(containrs, "[containers]\nlabel = true") + file(containrs+".d/99.conf", "[containers]\nlabel_users = true\nlabel = false"), "x:20: /etc/containers/containers.conf.d/99.conf: " + isOff},

		"K3s is told nothing":            {node + k3s, noK3s},
		"K3s is told so":                 {node + file("/etc/rancher/k3s/config.yaml", "selinux: true") + k3s, ""},
		"K3s is told yes":                {node + file("/etc/rancher/k3s/config.yaml", "selinux: yes") + k3s, ""},
		"K3s is told no":                 {node + file("/etc/rancher/k3s/config.yaml", "selinux: no") + k3s, "x:13: /etc/rancher/k3s/config.yaml: " + isOff},
		"K3s is told not to":             {node + file("/etc/rancher/k3s/config.yaml", "tls-san: [a]\nselinux: false") + k3s, "x:14: /etc/rancher/k3s/config.yaml: " + isOff + "set it to true"},
		"K3s is told so by a drop-in":    {node + file("/etc/rancher/k3s/config.yaml", "selinux: false") + file("/etc/rancher/k3s/config.yaml.d/a.yaml", "selinux: true") + k3s, ""},
		"K3s is told so elsewhere":       {node + file("/etc/rancher/k3s/registries.yaml", "selinux: true") + k3s, "note: x:16: k3s.service starts pods unconfined"},
		"K3s has another configuration":  {node + file("/etc/k3s.yaml", "selinux: true") + unit("k3s.service", "Environment=K3S_CONFIG_FILE=/etc/k3s.yaml"), ""},
		"K3s's option":                   {node + file("/etc/rancher/k3s/config.yaml", "selinux: true") + unit("k3s.service", "ExecStart=\nExecStart=/opt/bin/k3s server --selinux=false"), "x:23: k3s.service.d/10.conf: " + isOff + "remove --selinux=false"},
		"K3s's option is true":           {node + unit("k3s.service", "ExecStart=\nExecStart=/opt/bin/k3s server --selinux"), ""},
		"K3s's variable":                 {node + unit("k3s.service", "Environment=K3S_SELINUX=false"), "x:18: k3s.service.d/10.conf: " + isOff + "set it to true"},
		"K3s's variable is true":         {node + unit("k3s.service", "Environment=K3S_SELINUX=true"), ""},
		"K3s's file of variables":        {node + file("/etc/default/k3s", "K3S_SELINUX=true") + k3s, ""},
		"K3s's file of variables, false": {node + file("/etc/default/k3s", "A=b\nK3S_SELINUX=false") + k3s, "x:14: /etc/default/k3s: " + isOff + "set it to true"},
		"another unit's":                 {node + file("/etc/default/k3s-agent", "K3S_SELINUX=true") + k3s, "note: x:16: k3s.service starts pods unconfined"},
		"K3s's file from a server":       {node + "    - {path: /etc/default/k3s, contents: {source: https://files.example/x}}\n" + k3s, ""},
		"K3s is not started":             {node + file("/etc/rancher/k3s/config.yaml", "selinux: false"), ""},
		"RKE2's agent is told not to":    {node + file("/etc/default/rke2-agent", "RKE2_SELINUX=false") + strings.ReplaceAll(k3s, "k3s", "rke2-agent"), "x:13: /etc/default/rke2-agent: " + isOff + "set it to true"},
	})
}

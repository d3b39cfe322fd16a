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

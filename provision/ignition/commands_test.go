package ignition

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	types "github.com/coreos/ignition/v2/config/v3_7_experimental/types"

	"github.com/selinux-provision/selinux-provision/provision"
)

// An Exec*= line is taken apart as systemd does.
func TestExecWords(t *testing.T) {
	variables := map[string]string{"IMAGE": "registry/app", "OPTS": "-d --rm"}
	for line, want := range map[string][][]string{
		"/bin/true":                              {{"/bin/true"}},
		"-/usr/bin/docker rm -f web":             {{"/usr/bin/docker", "rm", "-f", "web"}},
		"@/bin/sleep nap 5":                      {{"/bin/sleep", "5"}},
		"+!!/bin/a b":                            {{"/bin/a", "b"}},
		`/bin/sh -c 'a "b" ; c'`:                 {{"/bin/sh", "-c", `a "b" ; c`}},
		`/bin/sh -c "it's"`:                      {{"/bin/sh", "-c", "it's"}},
		`/bin/echo a\ b "c d"e`:                  {{"/bin/echo", "a b", "c de"}},
		`/bin/sh -c 'sed "s/\(x\)/\1/"'`:         {{"/bin/sh", "-c", `sed "s/\(x\)/\1/"`}},
		"/bin/a ; /bin/b c":                      {{"/bin/a"}, {"/bin/b", "c"}},
		`/bin/find . -exec x {} \;`:              {{"/bin/find", ".", "-exec", "x", "{}", ";"}},
		`/bin/find . ";" x`:                      {{"/bin/find", ".", ";", "x"}},
		"docker run $OPTS ${IMAGE}":              {{"docker", "run", "-d", "--rm", "registry/app"}},
		"docker run $OTHER ${OTHER}":             {{"docker", "run", "$OTHER", "${OTHER}"}},
		`/bin/sh -c 'echo $$HOME 100%%'`:         {{"/bin/sh", "-c", "echo $HOME 100%"}},
		"":                                       nil,
		";":                                      nil,
		"-":                                      nil,
		`/bin/sh -c 'not closed`:                 {{"/bin/sh", "-c", "not closed"}},
		"/usr/bin/docker run \t -v  /a:/b image": {{"/usr/bin/docker", "run", "-v", "/a:/b", "image"}},
	} {
		if got := execWords(line, variables); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %q\nwant %q", line, got, want)
		}
	}
}

// What a shell does with a script is found, and what only looks like a command is none.
func TestShellCommands(t *testing.T) {
	for script, want := range map[string]string{
		`sed "s;/a/crio;/b/crio;g" f`:                         `[sed s;/a/crio;/b/crio;g f]`,
		"a; b && c || d | e":                                  `[a] [b] [c] [d] [e]`,
		"if a; then b; else c; fi":                            `[a] [b] [c]`,
		"f() { podman run x; }\nf":                            `[podman run x] [f]`,
		"# podman run x\ntrue":                                `[true]`,
		"cat <<EOF\npodman run x\nEOF\ntrue":                  `[cat] [true]`,
		"cat <<'EOF' > /etc/x\nsetenforce 0\nEOF":             `[cat]>/etc/x`,
		"bash <<EOF\npodman run x\nEOF":                       `[bash] [podman run x]`,
		"bash <<< 'podman run x'":                             `[bash] [podman run x]`,
		"x=$(podman run y)":                                   `[podman run y]`,
		"echo \"$(ctr version)\"":                             `[echo $()] [ctr version]`,
		"P=podman\n$P run x":                                  `[podman run x]`,
		"${P:-podman} run x":                                  `[${P} run x]`,
		"podman run \\\n  -v /a:/b \\\n  image":               `[podman run -v /a:/b image]`,
		"sudo -u core env A=b nice -n 5 podman run x":         `[podman run x]`,
		"timeout -k 5 30s podman run x":                       `[podman run x]`,
		"sh -c 'cd /x; podman run y'":                         `[sh -c cd /x; podman run y] [cd /x] [podman run y]`,
		"bash -euo pipefail -c 'podman run y'":                `[bash -euo pipefail -c podman run y] [podman run y]`,
		"su - core -c 'podman run y'":                         `[su - core -c podman run y] [podman run y]`,
		"eval podman run y":                                   `[eval podman run y] [podman run y]`,
		"xargs -n 1 podman start < names":                     `[podman start]`,
		"systemd-run --unit x -p A=b podman run y":            `[podman run y]`,
		"command podman run x; command -p podman run x":       `[podman run x] [podman run x]`,
		"if command -v podman; then true; fi":                 `[command -v podman] [true]`, // POSIX: it writes the name, and starts nothing
		"command -pV /etc/init.d/x; builtin command -v x":     `[command -pV /etc/init.d/x] [command -v x]`,
		"sudo -l podman; sudo -nv; sudo -u core -l":           `[sudo -l podman] [sudo -nv] [sudo -u core -l]`,
		"sudo -k podman run x; sudo -e /etc/x":                `[podman run x] [sudo -e /etc/x]`, // sudo(8): with a command, -k runs it
		"sudo -ulvke podman run x; sudo -n -- podman run -v":  `[podman run x] [podman run -v]`,
		"nice --help podman; env --version podman":            `[nice --help podman] [env --version podman]`,
		"taskset -p 1 2; chrt -p 3; ionice -c 3 podman run x": `[taskset -p 1 2] [chrt -p 3] [podman run x]`,
		"timeout 5 command -v podman":                         `[command -v podman]`,
		"while read -r l; do podman run $l; done < /x":        `[read -r l] [podman run ${l}]`,
		"echo a\\ b 'c d' \"e \\\" f\"":                       `[echo a b c d e " f]`,
		"( podman run x ) >> /log":                            `[]>/log [podman run x]`,
		"true; ) broken; podman run x":                        `[true]`,
		"case $1 in start) podman start x;; *) exit 1;; esac": `[podman start x] [exit 1]`,
		"!":    ``,
		"\x00": ``,
	} {
		r := &commandReader{m: &machine{}, variables: map[string]string{}}
		r.script(script, func(int) (provision.Position, string) { return provision.Position{}, "" }, 0)
		var all []string
		for _, c := range r.found {
			text := fmt.Sprint(c.argv)
			for _, name := range c.writes {
				text += ">" + name
			}
			all = append(all, text)
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", script, got, want)
		}
	}
}

// What a unit starts is found once, in however many ways scripts lead to it; what stops the unit is told from what starts it.
func TestScriptsAreFollowedOnce(t *testing.T) {
	m := &machine{files: map[string]text{}}
	for i := range 9 {
		line := fmt.Sprintf("/opt/s%d\n", i+1)
		m.files[fmt.Sprintf("/opt/s%d", i)] = text{content: "#!/bin/sh\n" + line + line + line, known: true}
	}
	m.files["/opt/eval"] = text{content: "#!/bin/sh\nA='podman run x'\nB='eval \"$A\"; eval \"$A\"'\nC='eval \"$B\"; eval \"$B\"'\neval \"$C\"; eval \"$C\"\n", known: true}
	m.files["/opt/grows"] = text{content: "#!/bin/sh\nA=aaaaaaaa\n" + strings.Repeat("A=$A$A\n", 60) + "echo $A\n", known: true}
	for line, want := range map[string]int{
		"/opt/s0":                          1 + 9*3,
		"/bin/sh -c '/opt/s7; sh /opt/s7'": 1 + 2 + 3 + 3,
		"/opt/eval":                        1 + 2 + 2 + 2 + 1,
		"/opt/grows":                       1 + 1,
	} {
		u := &unitFile{}
		for _, name := range []string{"ExecStop", "ExecStart"} {
			u.options = append(u.options, unitOption{section: "Service", name: name, value: line})
		}
		booted := 0
		all := m.commands(u)
		for _, c := range all {
			if c.boot {
				booted++
			}
			if size := len(fmt.Sprint(c.argv)); size > 3*maxValue {
				t.Errorf("%s: a command of %d bytes", line, size)
			}
		}
		if booted != want || len(all) != 2*want {
			t.Errorf("%s: %d commands at boot of %d, want %d of %d", line, booted, len(all), want, 2*want)
		}
	}
	if got := len(m.scripts()); got != 9*3+2+2+2+1+1 {
		t.Errorf("all scripts: %d commands", got)
	}
}

// Where links lead is worked out once, and not for each command that is looked at.
func TestLinksAreWorkedOutOnce(t *testing.T) {
	m := &machine{}
	for i := range 1000 {
		target := fmt.Sprintf("/opt/%d", i)
		m.config.Storage.Links = append(m.config.Storage.Links, types.Link{Node: types.Node{Path: fmt.Sprintf("/usr/local/%d", i)}, LinkEmbedded1: types.LinkEmbedded1{Target: &target}})
	}
	if got := m.real("/usr/local/7/bin"); got != "/opt/7/bin" {
		t.Errorf("the link leads to %s", got)
	}
	if allocations := testing.AllocsPerRun(10, func() { m.real("/opt/bin/tool") }); allocations > 10 {
		t.Errorf("%.0f allocations to follow no link", allocations)
	}
}

// Whatever a line or a script holds, there is an end, and no command without words or files.
func FuzzCommands(f *testing.F) {
	f.Add("/bin/sh -c 'a; b' ; c $X ${Y}", "a <<E\nb\nE\nsh -c 'c'")
	f.Add(`@x "y \" z' `, "eval eval eval $(eval x)")
	f.Fuzz(func(t *testing.T, line, script string) {
		m := &machine{files: map[string]text{"/x": {content: "#!/bin/sh\n" + script, known: true}}}
		for _, v := range environmentFile(script) {
			if v.name == "" || v.line < 1 || v.line > strings.Count(script, "\n")+1 {
				t.Errorf("the variable %q in line %d", v.name, v.line)
			}
		}
		u := &unitFile{name: "u.service", options: []unitOption{{section: "Service", name: "EnvironmentFile", value: "/x"}, {section: "Service", name: "ExecStart", value: line}, {section: "Service", name: "ExecStart", value: "/bin/sh /x"}}}
		for _, c := range m.commands(u) {
			if c.program() == "" && len(c.writes) == 0 && len(c.argv) > 0 && c.argv[0] != "" {
				t.Errorf("%q, which writes %q", c.argv, c.writes)
			}
			starts(c.argv)
			runOf(c.argv)
		}
	})
}

package ignition

import (
	"strings"
	"testing"
)

// made reads the machine that a Butane file makes, of which only the lines behind the head are given.
func made(t *testing.T, rest string) *machine {
	t.Helper()
	content := []byte("variant: flatcar\nversion: 1.0.0\n" + rest)
	c := &checker{}
	kind, root := c.recognise("x", content)
	m := c.read("x", kind, content, root)
	if m == nil {
		t.Fatalf("cannot be read: %v", c.findings)
	}
	return m
}

// A unit is put together as systemd does it: systemd.unit(5), on drop-ins and in its example 2; systemd.syntax(7), on lines that go on; and
// config_parse in conf-parser.c, which goes on behind a backslash that no other one escapes, and takes an empty line for the rest.
func TestUnitsArePutTogether(t *testing.T) {
	const dropins = `
storage:
  files:
    - {path: /etc/systemd/system/x@.service.d/20.conf, contents: {inline: "[Service]\nExecStart=/bin/template20\n"}}
    - {path: /etc/systemd/system/x@.service.d/30.conf, contents: {inline: "[Service]\nExecStart=/bin/template30\n"}}
    - {path: /etc/systemd/system/x@a.service.d/25.conf, contents: {inline: "[Service]\nExecStart=/bin/file25\n"}}
    - {path: /etc/systemd/system/a-b-c.service.d/10.conf, contents: {inline: "[Service]\nExecStart=/bin/own10\n"}}
    - {path: /etc/systemd/system/a-b-.service.d/10.conf, contents: {inline: "[Service]\nExecStart=/bin/hidden\n"}}
    - {path: /etc/systemd/system/a-.service.d/05.conf, contents: {inline: "[Service]\nExecStart=/bin/prefix05\n"}}
    - {path: /etc/systemd/system/service.d/90.conf, contents: {inline: "[Service]\nExecStart=/bin/type90\n"}}
systemd:
  units:
    - name: x@a.service
      contents: "[Service]\nExecStart=/bin/x\n"
      dropins:
        - {name: 30.conf, contents: "[Service]\nExecStart=/bin/last30\n"}
        - {name: 10.conf, contents: "[Service]\nExecStart=/bin/first10\n"}
    - name: a-b-c.service
      contents: "[Service]\nExecStart=/bin/abc\n"
`
	unit := func(lines string) string {
		return "storage:\n  files:\n    - path: /etc/systemd/system/u.service\n      contents:\n        inline: |\n          " + strings.ReplaceAll(lines, "\n", "\n          ") + "\n"
	}
	for _, c := range []struct{ file, unit, section, name, want string }{
		{dropins, "x@a.service", "Service", "ExecStart", "/bin/x /bin/first10 /bin/template20 /bin/file25 /bin/last30 /bin/type90"},
		{dropins, "a-b-c.service", "Service", "ExecStart", "/bin/abc /bin/prefix05 /bin/own10 /bin/type90"},
		{unit("[Unit]\nAfter=a.service\nAfter=\nAfter=b.service"), "u.service", "Unit", "After", "a.service b.service"},
		{unit("[Unit]\nRequires=a.service\nRequires="), "u.service", "Unit", "Requires", "a.service"},
		{unit("[Unit]\nConditionPathExists=/a\nConditionPathExists=\nConditionPathExists=/b"), "u.service", "Unit", "ConditionPathExists", "/b"},
		{unit("[Service]\nExecStart=/a\nExecStart=\nExecStart=/b"), "u.service", "Service", "ExecStart", "/b"},
		{unit("[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target"), "u.service", "Install", "WantedBy", "b.target"},
		{unit("[Service]\nExecStart=/a \\\n  # no line\n  b \\\n  ; none either\n  c"), "u.service", "Service", "ExecStart", "/a b c"},
		{unit("[Service]\nExecStart=/a b\\\\\nExecStartPost=/c"), "u.service", "Service", "ExecStartPost", "/c"},
		{unit("[Service]\nExecStart=/a b\\\\\\\nExecStartPost=/c"), "u.service", "Service", "ExecStartPost", ""},
		{unit("[Service]\nExecStart=/a \\\n\nExecStartPost=/c"), "u.service", "Service", "ExecStartPost", "/c"},
		{unit("[Service]\nExecStart=/a \\ \nExecStartPost=/c"), "u.service", "Service", "ExecStartPost", "/c"},
		{unit("[Service]\nExecStart=/a \\"), "u.service", "Service", "ExecStart", "/a"},
	} {
		found := false
		for _, u := range made(t, c.file).units() {
			if u.name == c.unit {
				found = true
				if got := strings.Join(u.list(c.section, c.name), " "); got != c.want {
					t.Errorf("%s: %s=\ngot  %s\nwant %s\n%s", c.unit, c.name, got, c.want, c.file)
				}
			}
			if strings.HasSuffix(u.name, "-.service") || u.name == "service" {
				t.Errorf("a directory of drop-ins is the unit %s", u.name)
			}
		}
		if !found {
			t.Errorf("no unit %s", c.unit)
		}
	}
}

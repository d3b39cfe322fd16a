package ignition

import (
	"bytes"
	le "encoding/binary"
	"strings"
	"testing"
	"testing/fstest"
)

// delivery has everything that a delivery can have.
func delivery(version string) Delivery {
	return Delivery{
		Version: version,
		Program: &Program{Path: "/opt/bin/selinux-provision", Content: []byte("\x7fELF program")},
		Files: []File{
			{"/etc/selinux-provision/config.yaml", []byte("version: 1\nmode: enforcing\n")},
			{"/etc/selinux-provision/modules/site.cil", []byte("(type site_t)\n")},
			{"/etc/selinux-provision/modules/old.pp", modulePackage("old")},
		},
		Units: fstest.MapFS{
			"selinux-provision.target":                             {Data: []byte("[Unit]\nDescription=a\n\n[Install]\nWantedBy=multi-user.target\n")},
			"selinux-provision-stage-policy.service":               {Data: []byte("[Service]\nExecStart=/opt/bin/selinux-provision stage policy\n")},
			"selinux-provision-stage-.service.d/10-something.conf": {Data: []byte("[Service]\nType=oneshot\n")},
		},
	}
}

// machineOf reads a rendered file as Check does, and fails the test on anything that Check says.
func machineOf(t *testing.T, kind Kind, rendered []byte) *machine {
	t.Helper()
	c := &checker{}
	got, root := c.recognise("x", rendered)
	if got != kind {
		t.Fatalf("kind %q, want %q: %v", got, kind, c.findings)
	}
	m := c.read("x", kind, rendered, root)
	if m == nil {
		t.Fatalf("cannot be read: %v", c.findings)
	}
	c.machine(m)
	for _, f := range c.sorted() {
		t.Errorf("%s %s", kind, f)
	}
	return m
}

// What is rendered passes Butane's and Ignition's own validation and Check, in each version, holds every byte of what was given,
// and is the same each time.
//
// Proves V14.
func TestRender(t *testing.T) {
	for _, version := range Versions() {
		d := delivery(version)
		butane, err := Render(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Render(delivery(version))
		if err != nil || !bytes.Equal(butane, again) {
			t.Errorf("%s: rendered twice, it differs (%v)", version, err)
		}
		ignition, err := Translate(butane, version)
		if err != nil {
			t.Fatal(err)
		}
		for kind, rendered := range map[Kind][]byte{Butane: butane, Ignition: ignition} {
			m := machineOf(t, kind, rendered)
			want := append(d.Files, File{d.Program.Path, d.Program.Content},
				File{"/etc/systemd/system/selinux-provision-stage-.service.d/10-something.conf", []byte("[Service]\nType=oneshot\n")})
			for _, f := range want {
				if got := m.files[f.Path]; got.content != string(f.Content) {
					t.Errorf("%s %s: %s is %q, want %q", version, kind, f.Path, got.content, f.Content)
				}
			}
			if got := m.files[d.Program.Path].mode; got != 0o755 {
				t.Errorf("%s %s: mode of the program %o", version, kind, got)
			}
			if m.links()[generatorPath] != d.Program.Path {
				t.Errorf("%s %s: links %v", version, kind, m.links())
			}
			enabled := map[string]bool{}
			for _, u := range m.config.Systemd.Units {
				enabled[u.Name] = u.Enabled != nil && *u.Enabled
			}
			if len(enabled) != 2 || !enabled["selinux-provision.target"] || enabled["selinux-provision-stage-policy.service"] {
				t.Errorf("%s %s: enabled %v", version, kind, enabled)
			}
		}
	}
	if _, err := Translate(nil, "9.9.9"); err == nil || !strings.Contains(err.Error(), "1.0.0, 1.1.0") {
		t.Errorf("unknown version: %v", err)
	}
}

// A program from a server comes with its hash; a system extension image goes where systemd-sysext looks, and is not executable.
func TestRenderFromServer(t *testing.T) {
	d := Delivery{Version: DefaultVersion, Program: &Program{Path: SysextPath, URL: "https://files.example/x.raw", Hash: "sha256-" + strings.Repeat("0", 64)},
		Files: []File{{"/etc/selinux-provision/config.yaml", []byte("version: 1\n")}}}
	butane, err := Render(d)
	if err != nil {
		t.Fatal(err)
	}
	m := machineOf(t, Butane, butane)
	for _, f := range m.config.Storage.Files {
		if f.Path == SysextPath && (*f.Contents.Source != d.Program.URL || *f.Contents.Verification.Hash != d.Program.Hash || *f.Mode != 0o644) {
			t.Errorf("the image is rendered as %+v", f)
		}
	}
	if m.extension() != SysextPath || len(m.config.Systemd.Units) != 0 {
		t.Errorf("extension %q, units %v", m.extension(), m.config.Systemd.Units)
	}
}

// Whatever a file holds, the machine gets it byte by byte.
func FuzzRender(f *testing.F) {
	for _, s := range []string{"", "\n", " a\n b", "a: |\n  b\n\n\n", "\ttab\n", "trailing \n", "no end", "\r\n", "\x00", "é\u2028\ufeff", "# x\n---\n...\n", "%a\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d := Delivery{Version: DefaultVersion, Files: []File{{"/etc/some/file", content}}}
		butane, err := Render(d)
		if err != nil {
			t.Fatal(err)
		}
		ignition, err := Translate(butane, d.Version)
		if err != nil {
			t.Fatal(err)
		}
		if got := machineOf(t, Ignition, ignition).files["/etc/some/file"]; got.content != string(content) {
			t.Errorf("%q became %q\n%s", content, got.content, butane)
		}
	})
}

// modulePackage is the beginning of a policy package, as far as its header goes.
func modulePackage(name string) []byte {
	number := func(n uint32) string { return string(le.LittleEndian.AppendUint32(nil, n)) }
	text := func(s string) string { return number(uint32(len(s))) + s }
	return []byte(number(0xf97cff8f) + number(1) + number(1) + number(16) +
		number(0xf97cff8d) + text("SE Linux Module") + number(2) + number(21) + number(1) + number(8) + number(0) + text(name) + text("1.0"))
}

// TestPackagesAreLookedInto says under which name a .pp is installed, and which one is none.
func TestPackagesAreLookedInto(t *testing.T) {
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{modulePackage("site"), ""},
		{modulePackage("inner"), "note: the module /m/site.pp is installed as inner, the name that stands in it"},
		{[]byte("(type site_t)\n"), "cannot use the module /m/site.pp: it is no policy package"},
		{modulePackage("in ner"), `cannot use the module /m/site.pp, in which stands the name "in ner"`},
	} {
		module := func(string) ([]byte, bool) { return c.content, true }
		_, findings, err := Check("config.yaml", strings.NewReader("version: 1\npolicy:\n  modules: [{path: /m/site.pp}]\n"), Options{Module: module})
		var said []string
		for _, f := range findings {
			said = append(said, map[bool]string{true: "note: "}[f.Note]+f.Problem)
		}
		if got := strings.Join(said, "\n"); got != c.want || err != nil {
			t.Errorf("said %q, %v, want %q", got, err, c.want)
		}
	}
}

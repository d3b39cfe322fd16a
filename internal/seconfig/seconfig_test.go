package seconfig

import (
	"strings"
	"testing"
)

const vendor = `# This file controls the state of SELinux on the system on boot.

# SELINUX can take one of these three values:
SELINUX=permissive

SELINUXTYPE=mcs
`

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, content string
		want          Config
	}{
		{"vendor's", vendor, Config{Mode: "permissive", Type: "mcs"}},
		{"empty", "", Config{}},
		{"commented", "#SELINUX=enforcing\n# SELINUXTYPE=mcs\n", Config{}},
		{"first mode counts", "SELINUX=Enforcing\nSELINUX=permissive\nSELINUXTYPE=mcs\n", Config{Mode: "enforcing", Type: "mcs"}},
		{"first mode that is one counts", "SELINUX=on\nSELINUX=permissive\nSELINUX=enforcing\n", Config{Mode: "permissive"}},
		{"no mode at all", "SELINUX=on\nSELINUX=off\n", Config{Mode: "on"}},
		{"a mode may go on", "SELINUX= \tenforcing#not permissive\n", Config{Mode: "enforcing"}},
		{"the mode's key in small letters", "selinux=enforcing\n", Config{}},
		{"last type counts", "SELINUXTYPE=targeted\nSELINUXTYPE=mcs\n", Config{Type: "mcs"}},
		{"an empty type counts", "SELINUXTYPE=targeted\nSELINUXTYPE=\n", Config{EmptyType: true}},
		{"white space around a type", "\t SELINUXTYPE= \tmcs \t\r\n", Config{Type: "mcs"}},
		{"a type in small letters", "selinuxtype=mcs\n", Config{Type: "mcs"}},
		{"a comment behind a type is part of it", "SELINUXTYPE=mcs # Flatcar\n", Config{Type: "mcs # Flatcar"}},
		{"a type in quotes", "SELINUXTYPE=\"mcs\"\n", Config{Type: `"mcs"`}},
		{"a type with a space before the sign", "SELINUXTYPE =mcs\n", Config{}},
		{"no newline at the end", "SELINUXTYPE=mcs\nSELINUX=disabled", Config{Mode: "disabled", Type: "mcs"}},
		{"not at the start of the line", " SELINUX=enforcing\n", Config{}},
	} {
		got, err := Parse(strings.NewReader(tc.content))
		if err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v, want %+v", tc.name, got, err, tc.want)
		}
	}
}

// TestTaken: what selinux_policy_root(3) of libselinux 3.4 and 3.8 gives for the same files, without /etc/selinux/ before it.
func TestTaken(t *testing.T) {
	for content, want := range map[string]string{
		"SELINUXTYPE=mcs\n":               "mcs",
		"":                                "targeted",
		"SELINUX=enforcing\n":             "targeted",
		"SELINUXTYPE =mcs\n":              "targeted",
		"export SELINUXTYPE=mcs\n":        "targeted",
		"#SELINUXTYPE=mcs\n":              "targeted",
		"\ufeffSELINUXTYPE=mcs\n":         "targeted",
		"SELINUXTYPE=\n":                  "",
		"SELINUXTYPE= \n":                 "",
		"SELINUXTYPE=mcs\nSELINUXTYPE=\n": "",
		"SELINUXTYPE=\nSELINUXTYPE=mcs\n": "mcs",
		"SELINUXTYPE=\"mcs\"\n":           "\"mcs\"",
	} {
		c, err := Parse(strings.NewReader(content))
		if got := c.Taken(); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", content, got, err, want)
		}
	}
}

func TestSetModeKeepsTheRest(t *testing.T) {
	got := string(SetMode([]byte(vendor), "enforcing"))
	if want := strings.Replace(vendor, "SELINUX=permissive", "SELINUX=enforcing", 1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if back := string(SetMode([]byte(got), "permissive")); back != vendor {
		t.Errorf("setting the old mode again gives %q", back)
	}
}

func TestSetAppendsAMissingLine(t *testing.T) {
	if got := string(SetMode([]byte("# nothing"), "enforcing")); got != "# nothing\nSELINUX=enforcing\n" {
		t.Errorf("got %q", got)
	}
	if got := string(SetType([]byte("a\n selinuxtype=x # y\nSELINUXTYPE=z\n"), "mcs")); got != "a\nSELINUXTYPE=mcs\nSELINUXTYPE=mcs\n" {
		t.Errorf("got %q", got)
	}
	if got := string(SetType(nil, "mcs")); got != "SELINUXTYPE=mcs\n" {
		t.Errorf("got %q", got)
	}
}

func TestSetTrial(t *testing.T) {
	for _, content := range []string{"", vendor, "SELINUX=enforcing\r\n", "#x\n\n"} {
		marked := SetTrial([]byte(content), true)
		if c, err := Parse(strings.NewReader(string(marked))); err != nil || !c.Trial {
			t.Errorf("%q: the mark is not seen in %q: %v", content, marked, err)
		}
		if again := SetTrial(marked, true); string(again) != string(marked) {
			t.Errorf("%q: marked twice: %q", content, again)
		}
		moded := SetMode(marked, "permissive")
		if c, err := Parse(strings.NewReader(string(moded))); err != nil || !c.Trial || c.Mode != "permissive" {
			t.Errorf("%q: %+v, %v", content, c, err)
		}
		if back := SetTrial(marked, false); string(back) != content {
			t.Errorf("%q: without the mark it is %q", content, back)
		}
	}
	if c, err := Parse(strings.NewReader("x " + trialMark + "\n")); err != nil || c.Trial {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzSetMode(f *testing.F) {
	f.Add(vendor)
	f.Add("SELINUX=")
	f.Add("SELINUX=a\nSELINUX=b")
	f.Fuzz(func(t *testing.T, content string) {
		got, err := Parse(strings.NewReader(string(SetMode([]byte(content), "enforcing"))))
		if err != nil {
			t.Fatal(err)
		}
		if len(content) < 1<<19 && got.Mode != "enforcing" {
			t.Errorf("mode reads back as %q", got.Mode)
		}
		before, _ := Parse(strings.NewReader(content))
		if len(content) < 1<<19 && got.Type != before.Type {
			t.Errorf("the type changed from %q to %q", before.Type, got.Type)
		}
	})
}

package kernel

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func word(b *bool) string {
	switch {
	case b == nil:
		return "silent"
	case *b:
		return "on"
	}
	return "off"
}

func TestParseCommandLine(t *testing.T) {
	for _, c := range []struct {
		line      string
		enforcing string
		ambiguous bool
		selinux   string
	}{
		{"", "silent", false, "silent"},
		{"quiet", "silent", false, "silent"},
		{"enforcing=1", "on", false, "silent"},
		{"quiet enforcing=0 selinux=1", "off", false, "on"},
		{"selinux=0\n", "silent", false, "off"},
		{"enforcing=2", "on", false, "silent"},
		{"enforcing=", "off", false, "silent"},
		{"enforcing=on", "off", false, "silent"},
		{"enforcing=1x", "on", false, "silent"},
		{"enforcing", "silent", false, "silent"},
		{"enforcing=99999999999999999999999", "off", true, "silent"},
		{"enforcing=00", "off", false, "silent"},
		{"enforcing=09", "off", true, "silent"},
		// The old reading knows no bases: it stops at the x.
		{"enforcing=0x1", "on", true, "silent"},
		{"enforcing=0x", "off", false, "silent"},
		// The old reading takes a negative number for silence.
		{"enforcing=-1", "on", true, "silent"},
		{"enforcing= 1", "on", false, "silent"},
		// The last one wins, before libselinux 3.10 the first.
		{"enforcing=0 enforcing=1", "on", true, "silent"},
		{"enforcing=1 enforcing=0", "off", true, "silent"},
		{"enforcing=1 enforcing=1", "on", false, "silent"},
		{"x.enforcing=0 enforcing=1", "on", true, "silent"},
		{"x.enforcing=0", "silent", false, "silent"},
		{"androidboot.enforcing=1\tenforcing=0", "off", true, "silent"},
		// libselinux knows neither quotes nor the end of the kernel's arguments; the kernel does.
		{`"enforcing=1"`, "silent", false, "silent"},
		{`dyndbg="file enforcing=0 +p"`, "off", false, "silent"},
		{`dyndbg="file selinux=0 +p"`, "silent", false, "silent"},
		{`"selinux=0"`, "silent", false, "off"},
		{`selinux="0"`, "silent", false, "off"},
		{`selinux="0`, "silent", false, "off"},
		{`"selinux=1 "`, "silent", false, "silent"},
		{"-- enforcing=0 selinux=0", "off", false, "silent"},
		{"selinux=0 -- selinux=1", "silent", false, "off"},
		{"selinux=0 --x selinux=1", "silent", false, "on"},
		{`"--" selinux=0`, "silent", false, "silent"},
		{"selinux=0 selinux=1", "silent", false, "on"},
		{"selinux=0 selinux=no", "silent", false, "off"},
		{"selinux=0x10", "silent", false, "on"},
		{"selinux=-1", "silent", false, "silent"},
		{"selinux=1_0", "silent", false, "silent"},
		{"selinux", "silent", false, "silent"},
		{"xselinux=0", "silent", false, "silent"},
	} {
		got, err := ParseCommandLine(strings.NewReader(c.line))
		if err != nil {
			t.Fatal(err)
		}
		if word(got.Enforcing) != c.enforcing || got.Ambiguous != c.ambiguous || word(got.SELinux) != c.selinux {
			t.Errorf("%q: enforcing %s, ambiguous %v, selinux %s", c.line, word(got.Enforcing), got.Ambiguous, word(got.SELinux))
		}
		if got.Raw != strings.TrimSuffix(c.line, "\n") {
			t.Errorf("%q: raw %q", c.line, got.Raw)
		}
	}
}

func TestParseCommandLineErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := ParseCommandLine(iotest.ErrReader(broken)); !errors.Is(err, broken) ||
		err.Error() != "cannot read the kernel's command line: broken" {
		t.Error(err)
	}
	if _, err := ParseCommandLine(strings.NewReader(strings.Repeat("x", maxCommandLine+1))); err == nil ||
		err.Error() != "cannot read the kernel's command line: it is longer than any kernel's" {
		t.Error(err)
	}
	// Only as much as needed is read.
	endless := io.MultiReader(strings.NewReader(strings.Repeat("x", maxCommandLine+1)), iotest.ErrReader(broken))
	if _, err := ParseCommandLine(endless); errors.Is(err, broken) {
		t.Error(err)
	}
}

func FuzzParseCommandLine(f *testing.F) {
	for _, seed := range []string{
		"BOOT_IMAGE=/flatcar/vmlinuz-a mount.usr=/dev/mapper/usr root=LABEL=ROOT console=ttyS0,115200n8 enforcing=0 -- 1",
		`a="b c" "enforcing=1 selinux=0`, "enforcing=0x enforcing=-0", "\" \" -- \"", "selinux=+1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got, err := ParseCommandLine(strings.NewReader(line))
		if err != nil {
			if len(line) <= maxCommandLine {
				t.Fatal(err)
			}
			return
		}
		if !strings.HasPrefix(line, got.Raw) {
			t.Errorf("raw %q of %q", got.Raw, line)
		}
		again, err := ParseCommandLine(strings.NewReader(got.Raw))
		if err != nil || word(again.Enforcing) != word(got.Enforcing) || word(again.SELinux) != word(got.SELinux) ||
			again.Ambiguous != got.Ambiguous {
			t.Errorf("%q is read in two ways", line)
		}
		if (got.Enforcing != nil || got.Ambiguous) && !strings.Contains(line, "enforcing=") {
			t.Errorf("%q: enforcing from nothing", line)
		}
		if got.SELinux != nil && !strings.Contains(line, "selinux=") {
			t.Errorf("%q: selinux from nothing", line)
		}
		// What is put in front, unquoted, changes nothing but the old reading.
		if front, err := ParseCommandLine(strings.NewReader("quiet " + got.Raw)); err == nil &&
			(word(front.Enforcing) != word(got.Enforcing) || word(front.SELinux) != word(got.SELinux)) {
			t.Errorf("%q: another reading behind another argument", line)
		}
	})
}

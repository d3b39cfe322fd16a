package stages

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// TestModeFileFates has a line for each situation in which /etc/selinux/config says another mode than it is to.
//
// Proves P4: another writer of the file is written over once, and then told of.
func TestModeFileFates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	written := func(mode string, over time.Time) *ModeFile {
		return &ModeFile{Mode: mode, At: ago(day), Asked: "a", Vendor: "v", Over: over}
	}
	for _, c := range []struct {
		name   string
		last   *ModeFile
		found  string
		want   string
		change func(*modeScene)
		fate   fate
	}{
		{"nothing is known", nil, "permissive", "enforcing", nil, write},
		{"the declaration changed", written("permissive", time.Time{}), "permissive", "enforcing", nil, write},
		{"back to what was declared before", written("enforcing", time.Time{}), "enforcing", "permissive", nil, write},
		{"somebody wrote permissive", written("enforcing", time.Time{}), "permissive", "enforcing", nil, writeOver},
		{"somebody wrote enforcing", written("permissive", time.Time{}), "enforcing", "permissive", nil, writeOver},
		{"and again", written("enforcing", ago(day)), "permissive", "enforcing", nil, leave},
		{"and again, the other way", written("permissive", ago(day)), "enforcing", "permissive", nil, leave},
		{"a month later", written("enforcing", ago(31*day)), "permissive", "enforcing", nil, writeOver},
		{"the clock was set back", written("enforcing", ago(-day)), "permissive", "enforcing", nil, writeOver},
		{"and again, with another declaration of the mode", written("enforcing", ago(day)), "permissive", "enforcing", func(s *modeScene) { s.asked = "b" }, write},
		{"and again, on another OS image", written("enforcing", ago(day)), "permissive", "enforcing", func(s *modeScene) { s.vendor = "w" }, write},
		{"and again, and the operator decides", written("enforcing", ago(day)), "permissive", "enforcing", func(s *modeScene) { s.overwrite = true }, write},
		{"the mark of a trial", written("enforcing", ago(day)), "permissive*", "enforcing", nil, write},
		{"no mode, or no file", written("enforcing", ago(day)), "", "enforcing", nil, write},
		{"SELinux would be off", written("enforcing", ago(day)), "disabled", "enforcing", nil, writeOver},
		{"misspelt", written("enforcing", ago(day)), "enforce", "enforcing", nil, writeOver},
	} {
		s := modeScene{last: c.last, found: file(c.found), want: c.want, asked: "a", vendor: "v", now: now}
		if c.change != nil {
			c.change(&s)
		}
		if got := s.judge(); got != c.fate {
			t.Errorf("%s: %d, want %d", c.name, got, c.fate)
		}
	}
}

// other is the other writer: what a script does with sed -i.
func (c *computer) other(mode string) {
	c.t.Helper()
	name := c.tree.Dir + seconfig.Path
	content, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "SELINUX=") {
			lines[i] = "SELINUX=" + mode
		}
	}
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// A script that makes the file permissive at each boot is written over once and then left alone, while the kernel enforces in each boot. It is
// named in the journal and in status until the operator decides, and the boots after the second write nothing.
//
// Proves P4: another writer at each boot.
func TestForeignWriterAtEachBoot(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"version: 1\nmode: enforcing\n", guarded} {
		c := newComputer(t, config)
		c.tree.Write("etc/systemd/system/harden.service", "[Service]\nExecStart=/bin/sed -i s/enforcing/permissive/ /etc/selinux/config\n")
		c.tree.Write("etc/systemd/system/other.service", "[Service]\nExecStart=/bin/true\n")
		c.tree.Write("etc/systemd/system/selinux-provision-trial.service", "# /etc/selinux/config\n")
		phase := none
		if config == guarded { // a host that enforced before the guard was declared
			phase = TrialSettled
			c.tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: enforcing\n")
			c.boot()
			c.tree.Write("etc/selinux-provision/config.yaml", guarded)
		}
		c.boot()
		c.is("first boot", phase, true, "enforcing")

		c.other("permissive")
		r := c.boot()
		c.is("second boot", phase, true, "enforcing")
		i := slices.IndexFunc(r.Done, func(d plan.Done) bool { return d.Target == seconfig.Path })
		if config != guarded { // there the declaration of the mode changed since the file was written
			if i < 0 || !strings.Contains(r.Done[i].Reason, "it says SELINUX=permissive: somebody else changed it at ") ||
				!strings.Contains(r.Done[i].Reason, ", after enforcing had been written at ") ||
				!strings.Contains(r.Done[i].Reason, " (the file is named in /etc/systemd/system/harden.service); when that happens again, the file is left alone") {
				t.Errorf("what the second boot did: %+v", r.Done)
			}
		} else {
			c.other("permissive")
			c.boot()
			c.is("the boot after it", phase, true, "enforcing")
		}
		if got := c.problems(); got != "" {
			t.Errorf("status after it was written over: %s", got)
		}

		var before []byte
		for n := range 3 {
			c.other("permissive")
			r := c.boot()
			c.is("a later boot", phase, true, "permissive")
			if len(r.Problems) != 1 || r.Outcome != Partly || !strings.HasPrefix(r.Problems[0].Problem, "/etc/selinux/config says SELINUX=permissive for the next boot: somebody else changed it at ") ||
				!strings.Contains(r.Problems[0].Problem, "harden.service") || strings.Contains(r.Problems[0].Problem, "other.service") || strings.Contains(r.Problems[0].Problem, "trial.service") ||
				!strings.Contains(r.Problems[0].Remedy, "apply --overwrite-config; or let them have it: declare mode: permissive, or unmanaged") {
				t.Errorf("%+v", r)
			}
			if r := c.enforce(); r.Outcome != Partly || len(r.Done) > 0 {
				t.Errorf("the stage again: %+v", r)
			}
			record, err := os.ReadFile(c.tree.Dir + stateFile)
			if err != nil || n > 0 && string(record) != string(before) {
				t.Errorf("boot %d wrote the record anew: %v\n%s\n%s", n, err, before, record)
			}
			before = record
		}
		status, err := c.host.Status(t.Context())
		if err != nil || status.Mode.Foreign == nil || status.Mode.Foreign.Mode != "permissive" || status.Mode.Foreign.Over.IsZero() || len(status.Problems) != 1 ||
			!slices.Equal(status.Mode.Foreign.MentionedIn, []string{"/etc/systemd/system/harden.service"}) {
			t.Errorf("%+v, %v", status, err)
		}

		c.host.OverwriteConfig = true
		if r := c.enforce(); r.Outcome != Changed {
			t.Errorf("the operator decides: %+v", r)
		}
		c.host.OverwriteConfig = false
		c.is("the operator decided", phase, true, "enforcing")
		c.boot()
		c.other("permissive")
		c.boot()
		c.is("a writer that comes back is written over once", phase, true, "enforcing")
		c.other("permissive")
		c.boot()
		c.is("and once only", phase, true, "permissive")
	}
}

// A script that switches SELinux off is written over each time: the boot that it makes would have nobody to say so.
func TestForeignWriterDisables(t *testing.T) {
	t.Parallel()
	c := newComputer(t, "version: 1\nmode: enforcing\n")
	c.boot()
	for range 3 {
		c.on()
		c.other("disabled")
		r := c.enforce()
		if r.Outcome != Changed || !strings.Contains(r.Done[0].Reason, "somebody else changed it at ") || !strings.Contains(r.Done[0].Reason, "it is written over each time, as the next boot would have no SELinux") {
			t.Errorf("%+v", r)
		}
		c.is("disabled", none, true, "enforcing")
	}
}

// What is declared ends it: with the mode left to others, and declared again, it begins anew. So does an update that brings the image's own file.
func TestForeignWriterAndTheDeclaration(t *testing.T) {
	t.Parallel()
	const config = "etc/selinux-provision/config.yaml"
	c := newComputer(t, "version: 1\nmode: enforcing\n")
	contested := func() {
		t.Helper()
		for range 2 {
			c.other("permissive")
			c.boot()
		}
		c.is("contested", none, true, "permissive")
	}
	c.boot()
	contested()
	c.tree.Write(config, "version: 1\nmode: unmanaged\n")
	c.boot()
	c.is("left to others", none, false, "permissive")
	if LoadState(c.host.Root).ModeFile != nil || c.problems() != "" {
		t.Errorf("it is still of interest who writes it: %s", c.problems())
	}
	c.tree.Write(config, "version: 1\nmode: enforcing\n")
	c.boot()
	c.is("declared again", none, true, "enforcing")

	contested()
	c.tree.Image(2)
	if _, err := host(t, c.tree).Run(t.Context(), []string{"policystore", "policy", "audit"}, false); err != nil {
		t.Fatal(err)
	}
	c.boot()
	c.is("after an update", none, true, "enforcing")
}

// An image that is made beneath --root has no boot in which somebody else could have come: whoever asks for it gets what is declared.
func TestModeFileOfAnImage(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: enforcing\n")
	for range 3 {
		apply(t, host(t, tree))
		if c, err := seconfig.Read(host(t, tree).Root, seconfig.Path); err != nil || c.Mode != "enforcing" {
			t.Errorf("%+v, %v", c, err)
		}
		tree.Write("etc/selinux/config", "SELINUX=permissive\nSELINUXTYPE=mcs\n")
	}
}

// A host without SELinux is told what to change: what has switched it off, and nothing that is innocent.
func TestDisabledByTheFile(t *testing.T) {
	t.Parallel()
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	off := false
	for _, c := range []struct {
		config string
		line   kernel.CommandLine
		want   string
	}{
		{"SELINUX=disabled\n", kernel.CommandLine{}, "write SELINUX=permissive there"},
		{"SELINUX=disabled\n", kernel.CommandLine{SELinux: &off}, "remove selinux=0 from the kernel command line"},
		{"SELINUX=enforcing\n", kernel.CommandLine{SELinux: &off, Raw: "quiet selinux=0"}, "remove selinux=0 from the kernel command line"},
		{"", kernel.CommandLine{Raw: "root=LABEL=ROOT security=apparmor quiet"}, "the kernel command line has security=apparmor"},
		{"", kernel.CommandLine{Raw: "lsm=lockdown,yama,bpf"}, "the kernel command line has lsm=lockdown,yama,bpf"},
		{"", kernel.CommandLine{Raw: "lsm=lockdown,selinux,bpf console=ttyS0"}, "this kernel is one without SELinux"},
		{"SELINUX=enforcing\n", kernel.CommandLine{}, "this kernel is one without SELinux"},
	} {
		if err := root.MkdirAll("/etc/selinux", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(seconfig.Path, []byte(c.config), hostfs.Attributes{Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		h := &Host{Root: root}
		h.CommandLine = c.line
		if got := h.enableRemedy(); !strings.Contains(got, c.want) {
			t.Errorf("%q, %v: %s", c.config, c.line, got)
		}
	}
}

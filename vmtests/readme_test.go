package vmtests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// step is a command that a page shows, with what it says that the command prints.
type step struct{ command, want string }

// stepsOf reads the sessions of a page, which are its blocks "console". A command begins with "# " and may have a document behind it.
func stepsOf(page string) (steps []step) {
	for _, session := range regexp.MustCompile("(?s)\n```console\n(.*?)```\n").FindAllStringSubmatch(page, -1) {
		for _, text := range strings.Split("\n"+session[1], "\n# ")[1:] {
			command, want, _ := strings.Cut(text, "\n")
			if strings.HasSuffix(command, "<<'EOF'") {
				document, rest, _ := strings.Cut(want+"\n", "\nEOF\n")
				command, want = command+"\n"+document+"\nEOF", rest
			}
			steps = append(steps, step{command, strings.TrimSpace(want)})
		}
	}
	return steps
}

// sameOnAnyMachine takes from a text what differs from one machine to the next: numbers, IDs, and how wide a column is for them.
func sameOnAnyMachine(text string) string {
	for _, each := range []struct{ differs, same string }{
		{`(?m)^selinux-provision: waiting for process .*$\n?`, ""}, // a timer's, which runs now or does not
		{`(?m) \[[0-9.]+ s\]$`, ""},                                // said of what took its time
		{`\b[0-9a-f]{6,}\b`, "ID"}, {`[0-9]+`, "N"}, {`[ ]+`, " "}, {`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(each.differs).ReplaceAllString(text, each.same)
	}
	return strings.TrimSpace(text)
}

// shows tells whether a page shows what was printed. A line "..." stands for any lines.
func shows(want, got string) bool {
	pattern := strings.ReplaceAll("\n"+regexp.QuoteMeta(sameOnAnyMachine(want))+"\n", "\n"+regexp.QuoteMeta("...")+"\n", "\n(?:.*\n)*")
	return regexp.MustCompile("^" + pattern + "$").MatchString("\n" + sameOnAnyMachine(got) + "\n")
}

// follow does what a page says on a machine, and compares what is printed.
func (m *Machine) follow(t *testing.T, name string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(RepositoryRoot(), name))
	if err != nil {
		t.Fatal(err)
	}
	steps := stepsOf(string(page))
	if len(steps) == 0 {
		t.Fatalf("%s shows nothing on a machine", name)
	}
	for _, s := range steps {
		if s.command == "systemctl reboot" {
			m.reboot(t)
			continue
		}
		// Flatcar has /opt/bin in everybody's path. An exit code that is not 0 is said by what is printed.
		out, err := m.Run(t.Context(), "PATH=$PATH:/opt/bin; "+s.command)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSpace(out.Stdout + out.Stderr)
		if !shows(s.want, got) {
			t.Errorf("%s: %s prints\n%s\nand the page shows\n%s", name, s.command, got, s.want)
		}
	}
}

// TestReadmeOnAMachine runs what the README shows on a machine, and compares what is printed.
func TestReadmeOnAMachine(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.follow(t, "README.md")
}

// TestFirstHour does what docs/first-hour.md says on the machine that the page begins with, and compares what is printed. It is the machine of
// the first step on the way as well: nothing is stopped, and what the policy would hide is in the journal.
//
// Proves V12: the way from permissive to enforcing, as an operator goes it.
func TestFirstHour(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "permissive-with-evidence.bu", Options{Allowed: []Allowed{{`avc: +denied .*:container_t:.* permissive=1`, "the page provokes it, and nothing is stopped"}}})
	m.expect(t, "the mode", "getenforce; grep ^SELINUX= /etc/selinux/config; auditctl -l", "Permissive\nSELINUX=permissive\nNo rules")
	m.status(t, 0)
	m.containersLast(t)
	// What a fleet's tools read.
	m.fails(t, "mkdir -p /run/fleet && /opt/bin/selinux-provision readiness --features /run/fleet/features --metrics /run/fleet/metrics.prom", 3)
	m.expect(t, "the files for a fleet", "grep -v -e vendor-policy -e ^# /run/fleet/features | sed s,^feature.node.kubernetes.io/selinux-provision,,; grep '^selinux_provision_enforcing' /run/fleet/metrics.prom; ls /run/fleet",
		".mode=permissive\n.as-declared=true\n.may-enforce=false\n.readiness=not-enough-evidence\nselinux_provision_enforcing 0\nfeatures\nmetrics.prom")
	m.dockerImage(t)
	m.follow(t, "docs/first-hour.md")
}

func TestStepsOfAPage(t *testing.T) {
	const page = "text\n```console\n# one\nanswer\nanswer\n# cat > f <<'EOF'\na: b\nEOF\n# two\n```\n```sh\n# not this\n```\n\n```console\n# three\n3\n```\n"
	want := []step{{"one", "answer\nanswer"}, {"cat > f <<'EOF'\na: b\nEOF", ""}, {"two", ""}, {"three", "3"}}
	if got := stepsOf(page); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if a, b := sameOnAnyMachine("a 12  s0:c1,c20 df5c7741077e "), sameOnAnyMachine("a 9 s0:c100,c2 0123456789ab"); a != b {
		t.Errorf("%q is not %q", a, b)
	}
	for _, c := range []struct {
		want, got string
		is        bool
	}{
		{"a\n...\nb", "a\nx\ny\nb", true}, {"a\n...\nb", "a\nb", true}, {"a\n...", "a\nx", true}, {"a", "a\nx", false}, {"a\n...\nb", "a\nx", false},
		{"a\nb", "a\nselinux-provision: waiting for process 916 (/opt/bin/x y)\nb", true}, {"a", "a\nselinux-provision: waiting for process 916 (x)", true},
		{"relabelled 2 of 2 entries", "relabelled 2 of 2 entries [0.6 s]", true}, {"loaded (semodule 0.9 s, 84 MB) [1.1 s]", "loaded (semodule 12.9 s, 84 MB)", true},
		{"a b.", "a  b.", true}, {"a b.", "a bc", false}, {"", "", true}, {"", "x", false}, {"...", "x", true},
	} {
		if shows(c.want, c.got) != c.is {
			t.Errorf("%q shows %q: %v", c.want, c.got, !c.is)
		}
	}
}

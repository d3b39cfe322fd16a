package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/stages"
)

// Each line is a comment or a label that Kubernetes takes, each label is in the document for fleets, and none is there that is not written.
func TestFeatures(t *testing.T) {
	label := regexp.MustCompile(`^feature\.node\.kubernetes\.io/selinux-provision(\.[a-z-]+)=([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)$`)
	page, err := os.ReadFile("../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	inPage := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\.[a-z-]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		inPage[row[1]] = true
	}
	s := &stages.Status{}
	s.Mode.Running = "permissive"
	r := &stages.Readiness{Verdict: stages.NotEnough}
	written := features(s, r, time.Unix(0, 0))
	first, rest, _ := strings.Cut(written, "\n")
	if first != "# +expiry-time=1970-01-01T01:00:00Z" {
		t.Errorf("the first line is %q", first)
	}
	for line := range strings.Lines(rest) {
		found := label.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if found == nil {
			t.Errorf("%q is no label", line)
		} else if !inPage[found[1]] {
			t.Errorf("fleet.md has no row for %s", found[1])
		} else {
			delete(inPage, found[1])
		}
	}
	for name := range inPage {
		t.Errorf("fleet.md has %s, and the program has not", name)
	}

	for _, c := range []struct {
		verdict  stages.Verdict
		declared string
		want     string
	}{{stages.NotEnough, "permissive", "false"}, {stages.Ready, "permissive", "true"}, {stages.NotReady, "enforcing", "true"}, {stages.NotReady, "unmanaged", "false"}} {
		s.Mode.Declared, r.Verdict = c.declared, c.verdict
		if got := features(s, r, time.Now()); !strings.Contains(got, ".may-enforce="+c.want+"\n") {
			t.Errorf("%s and %s declared:\n%s", c.verdict, c.declared, got)
		}
	}
}

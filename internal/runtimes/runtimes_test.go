package runtimes

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What ships is ordered before every runtime of the table, and before none that is not in it; and the line says why.
func TestUnitsThatShipComeBeforeEveryRuntime(t *testing.T) {
	for _, name := range []string{
		"../../units/selinux-provision-stage-.service.d/10-common.conf",
		"../../units/selinux-provision-mountwatch.service",
	} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var before []string
		last := ""
		for line := range strings.Lines(string(content)) {
			line = strings.TrimSpace(line)
			value, ok := strings.CutPrefix(line, "Before=")
			if ok && !strings.Contains(value, "selinux-provision") {
				if !strings.HasPrefix(last, "#") {
					t.Errorf("%s: %s: no reason in the line before", name, line)
				}
				before = append(before, strings.Fields(value)...)
			}
			last = line
		}
		if !slices.Equal(before, Units()) {
			t.Errorf("%s\nhas   %v\ntable %v", name, before, Units())
		}
	}
}

// Each runtime has a name, an origin and services, each once.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		if r.Name == "" || r.From == "" || len(r.Units) == 0 {
			t.Errorf("incomplete: %+v", r)
		}
		for _, u := range r.Units {
			if seen[u] || !strings.HasSuffix(u, ".service") || !Unit(u) {
				t.Errorf("%s: twice, or no service", u)
			}
			seen[u] = true
		}
	}
	if Unit("sshd.service") {
		t.Error("sshd.service starts no containers")
	}
}

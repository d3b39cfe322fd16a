package vmtests

import (
	"encoding/json"
	"strings"
	"testing"
)

// example is Example for tests.
func example(t *testing.T, name string) []byte {
	t.Helper()
	Require(t)
	config, err := Example(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// firstDenials allows what the lookalike's own services are denied between loading the policy and ...
func (m *Machine) status(t *testing.T, wantExit int) map[string]any {
	t.Helper()
	out, err := m.Run(t.Context(), "/opt/bin/selinux-provision status --json")
	if err != nil {
		t.Fatal(err)
	}
	if out.Exit != wantExit {
		t.Errorf("status: exit code %d, want %d\n%s%s", out.Exit, wantExit, out.Stdout, out.Stderr)
	}
	var status map[string]any
	if err := json.Unmarshal([]byte(out.Stdout), &status); err != nil {
		t.Fatalf("status --json: %v\n%s", err, out.Stdout)
	}
	return status
}

// TestEnforcingFromIgnition is the main job: one Butane file takes a machine from permissive to enforcing at its first boot, and
// the second boot is enforcing from the start, with nothing done again.
func TestEnforcingFromIgnition(t *testing.T) {
	m := Start(t, Options{Ignition: example(t, "enforcing.bu")})
	t.Log(m.Must(t, "journalctl -b -o cat -u 'selinux-provision-*'"))
	if got := m.Must(t, "getenforce"); got != "Enforcing" {
		t.Errorf("after the first boot: %s", got)
	}
	t.Log(m.Must(t, "/opt/bin/selinux-provision status || true"))
	m.status(t, 0)
	if got := m.Must(t, "stat -c %F /var/lib/selinux"); got != "directory" {
		t.Errorf("the store is a %s", got)
	}
	if err := m.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Must(t, "getenforce"); got != "Enforcing" {
		t.Errorf("after the second boot: %s", got)
	}
	log := m.Must(t, "journalctl -b -o cat -u 'selinux-provision-*'")
	if n := strings.Count(log, "nothing to do"); n != 4 {
		t.Errorf("the second boot did something:\n%s", log)
	}
	m.status(t, 0)
}

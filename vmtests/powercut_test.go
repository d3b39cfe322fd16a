package vmtests

import (
	"context"
	"testing"
	"time"
)

// TestPowerCutWhileBuilding cuts the power at the first boot, while semodule works. The next boot ends as the first should have. A
// module that does not compile is declared as well, and stops neither.
//
// Proves P1: the power is cut at the first boot while semodule works, and a module does not compile.
// Proves V6: at the first boot.
func TestPowerCutWhileBuilding(t *testing.T) {
	t.Parallel()
	Require(t)
	config, err := addToIgnition(withDocker(t), map[string][]byte{modulesDir + "vmtest_good.cil": []byte(goodModule), modulesDir + "vmtest_bad.cil": []byte(badModule)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := startBooting(t, Options{Ignition: config, Allowed: []Allowed{policyPartly()}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	// The transaction's directory exists from its beginning until it takes the place of the active one.
	out, err := m.Run(ctx, "until test -d /var/lib/selinux/mcs/tmp/modules && pgrep -x semodule; do sleep 0.1; done; sleep 5; pgrep -x semodule; getenforce")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut at: %s", out.Stdout)
	m.PowerCut()
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(m.journal(t))
	m.expect(t, "after the power cut", "getenforce; semodule -l | grep vmtest_; find /var/lib/selinux/mcs/tmp /var/lib/.selinux-provision* 2>/dev/null || true", "Enforcing\nvmtest_good")
	if got := m.status(t, 3).quarantined(); got != "vmtest_bad:2" {
		t.Errorf("%q is in quarantine", got)
	}
	m.containersLast(t)
}

// startBooting gives a machine in the middle of its first boot, as soon as it takes commands.
func startBooting(t *testing.T, options Options) *Machine {
	t.Helper()
	return start(t, options, func(ctx context.Context, o Options) (*Machine, error) {
		m, err := newMachine(ctx, o)
		if err != nil {
			return nil, err
		}
		if err := m.start(ctx); err != nil {
			return m, err
		}
		return m, m.waitShell(ctx)
	})
}

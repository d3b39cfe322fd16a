//go:build more

package vmtests

import (
	"fmt"
	"testing"
	"time"
)

// TestStarved has a machine whose units get a fifth of a processor, and whose clock says 1970, do all that they do: a rebuild, a volume, a look at
// the host, a trial. What is slow is not taken for sick, and what was recorded in other years is not lost.
//
// Proves P1: with a fifth of a processor, and a clock that says 1970 and comes back.
// Proves P4: a trial with a fifth of a processor.
func TestStarved(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	const mode = "/etc/selinux-provision/config.d/90-mode.yaml"
	m.put(t, mode, "version: 1\nmode: permissive\nreadiness: {window: 1h}\n")
	m.Must(t, "systemctl start selinux-provision-evidence.service && /opt/bin/selinux-provision apply")
	m.put(t, "/etc/systemd/system/selinux-provision-.service.d/50-starved.conf", "[Service]\nCPUQuota=20%\n")
	m.Must(t, "systemctl daemon-reload && systemctl restart "+watchUnit+" && date -s @86400")

	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	m.put(t, "/etc/selinux-provision/config.d/10-volume.yaml", "version: 1\nvolumes:\n  - {name: late, match: {mountpoint: /v/late}}\n")
	m.Must(t, "systemctl restart selinux-provision-stage-{policystore,policy,audit,enforce}.service")
	m.expect(t, "the policy", "semodule -l | grep vmtest_; getenforce", "vmtest_good\nPermissive")
	m.Must(t, "systemctl reload "+watchUnit+" && mkdir -p /v/late && truncate -s 32M /root/late && mkfs.ext4 -q /root/late && mount -o loop /root/late /v/late")
	if v := m.settle(t)["late"]; v.State != "labelled" {
		t.Errorf("the volume: %+v", v)
	}
	for range 2 {
		m.Must(t, "systemctl start selinux-provision-evidence.service")
	}
	m.status(t, 0)
	t.Log(m.fails(t, "/opt/bin/selinux-provision readiness", 3))

	// A trial of a minute, in which the clock comes back to this century.
	m.put(t, guardFile, "version: 1\nenforce:\n  guard: {window: 60s, units: [docker.service]}\n")
	m.Must(t, "rm "+mode+" && systemctl restart selinux-provision-stage-enforce.service")
	m.mode(t, "on trial", "Enforcing", "permissive", 0)
	m.Must(t, fmt.Sprintf("date -s @%d", time.Now().Unix()))
	m.waitGuard(t, "armed")
	m.mode(t, "after the trial", "Enforcing", "enforcing", 1)
	m.status(t, 0)
}

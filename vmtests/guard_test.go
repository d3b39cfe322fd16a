package vmtests

import (
	"fmt"
	"strings"
	"testing"
)

// victim is a unit that lives in the permissive mode and in the enforcing one, until /run/vmtest-break is there: then it does what
// enforcing denies, and fails if it is denied.
const victim = `[Unit]
Description=A workload that enforcing may break
[Service]
ExecStart=/bin/sh -c 'until test -e /run/vmtest-break && ! ` + transition + `; do sleep 1; done; exit 1'
[Install]
WantedBy=multi-user.target
`

// startOnTrial gives a machine at the end of its first boot, which declares the guard through Ignition: enforcing is on trial, for longer
// than any test takes.
func startOnTrial(t *testing.T) *Machine {
	t.Helper()
	Require(t)
	config, err := addToIgnition(example(t, "enforcing.bu"), map[string][]byte{guardFile: []byte(guardFor("1h"))},
		map[string]string{"docker.service": "", "vmtest-victim.service": victim})
	if err != nil {
		t.Fatal(err)
	}
	return StartCopy(t, "guarded", Options{Ignition: config, Allowed: []Allowed{
		{`avc: +denied .*comm="runcon"`, "the victim does what is denied"},
		{`vmtest-victim\.service`, "the test breaks it"},
		{`selinux-provision-guard\.service`, "the test kills it"},
		{`selinux-provision-stage-enforce\.service|Failed to start selinux-provision-…`, "a trial that failed is not as declared"},
	}})
}

const guardFile = "/etc/selinux-provision/config.d/guard.yaml"

func guardFor(window string) string {
	return "version: 1\nenforce:\n  guard: {window: " + window + ", units: [docker.service, vmtest-victim.service]}\n"
}

// guardStrictly allows no denial.
func guardStrictly() string {
	return strings.Replace(guardFor("1h"), "window", "max_denials: 0, window", 1)
}

// trialFailed is the MESSAGE_ID of a trial that failed.
const trialFailed = "07df4a63f14b426ba14cbb0bdff88a5b"

// trialDenial is that of one of its denials.
const trialDenial = "a520c1622bf04baf9c88aa97bffecf30"

// waitGuard waits until the trial has come to a phase.
func (m *Machine) waitGuard(t *testing.T, phase string) {
	t.Helper()
	m.Must(t, fmt.Sprintf(`for i in $(seq 120); do grep -q '"phase": "%s"' /var/lib/selinux-provision/state.json && exit 0; sleep 1; done
cat /var/lib/selinux-provision/state.json; systemctl status selinux-provision-guard; exit 1`, phase))
}

// mode checks the kernel, what the next boot begins with, and whether that is part of a trial.
func (m *Machine) mode(t *testing.T, when, kernel, configured string, marks int) {
	t.Helper()
	m.expect(t, when, "getenforce; grep ^SELINUX= /etc/selinux/config; grep -c 'on trial' /etc/selinux/config || true",
		fmt.Sprintf("%s\nSELINUX=%s\n%d", kernel, configured, marks))
}

// givenUp checks a host whose trial has failed: permissive now and at the next boot, the reason where an operator looks, and not tried again.
func (m *Machine) givenUp(t *testing.T, when, reason string) {
	t.Helper()
	m.mode(t, when, "Permissive", "permissive", 0)
	for range 2 {
		if got := m.status(t, 3).problems(); !contains(got, reason) || !contains(got, "apply --retry-guard") {
			t.Errorf("%s: status does not say why and what to do:\n%s", when, got)
		}
		if got := m.fails(t, "/opt/bin/selinux-provision apply", 3); !contains(got, reason) {
			t.Errorf("%s: apply says\n%s", when, got)
		}
	}
	m.mode(t, when+", after apply", "Permissive", "permissive", 0)
}

// TestGuardedEnforcing takes a machine from its first boot, with Ignition, through a trial of enforcing: one that is cut by a power loss,
// one that breaks a required unit, one that passes; then the boot that is to prove itself, in the same three ways.
//
// Proves P4: from Ignition at the first boot: kept after a window and a boot that proved itself; back to permissive after a
// power cut and after a unit that broke, in either window; the kernel never saw a permissive moment of an enforcing boot.
func TestGuardedEnforcing(t *testing.T) {
	t.Parallel()
	m := startOnTrial(t)
	m.mode(t, "at the first boot", "Enforcing", "permissive", 0)
	if got := m.status(t, 3).problems(); !contains(got, "enforcing is on trial") || !contains(got, "left") {
		t.Errorf("status does not say that enforcing is on trial:\n%s", got)
	}
	m.containersLast(t)
	m.expect(t, "the watch", "systemctl is-active selinux-provision-guard.service", "active")
	m.Must(t, "journalctl -b -o cat -u selinux-provision-guard.service | grep -q '^guard: enforcing is on trial, .* left; watched: docker.service, vmtest-victim.service'")
	if err := m.Snapshot("trial"); err != nil {
		t.Fatal(err)
	}

	m.PowerCut()
	m.powerOn(t)
	m.givenUp(t, "after a power cut in the trial", "by a crash, a reset or a power cut")

	m.restore(t, "trial")
	m.Must(t, "systemctl kill --signal=KILL --kill-whom=main selinux-provision-guard.service")
	m.waitGuard(t, "failed")
	m.givenUp(t, "after the watch broke", "the watch itself ended (signal), so nobody saw how the host fared")

	m.restore(t, "trial")
	m.put(t, guardFile, guardStrictly())
	m.Must(t, "/opt/bin/selinux-provision apply")
	m.mode(t, "declared anew in the window", "Enforcing", "permissive", 0)
	m.Must(t, "! "+transition)
	m.waitGuard(t, "failed")
	m.givenUp(t, "after one denial too many", "accesses were denied, and enforce.guard.max_denials is 0")

	// A shutdown in good order is no failure: the next boot tries again.
	m.restore(t, "trial")
	m.reboot(t)
	m.mode(t, "at the boot after a shutdown in the trial", "Enforcing", "permissive", 0)
	m.expect(t, "the second try", `grep -o '"phase": "[a-z]*"\|"tries": [0-9]*' /var/lib/selinux-provision/state.json`, "\"phase\": \"watched\"\n\"tries\": 2")
	m.expect(t, "the watch", "systemctl is-active selinux-provision-guard.service", "active")

	m.Must(t, "touch /run/vmtest-break")
	m.waitGuard(t, "failed")
	m.givenUp(t, "after the trial broke a unit", "vmtest-victim.service failed (exit-code); ")
	log := m.Must(t, "journalctl -b --no-pager -o cat MESSAGE_ID="+trialFailed)
	if !contains(log, "vmtest-victim.service failed (exit-code)") {
		t.Errorf("the journal says of the failure:\n%s", log)
	}
	log = m.Must(t, "journalctl -b --no-pager -o cat MESSAGE_ID="+trialDenial)
	if !contains(log, "container_t") || !contains(log, "[entrypoint] on file") {
		t.Errorf("the journal says of the denials:\n%s", log)
	}

	// The cause is gone, and the operator says so.
	m.Must(t, "rm /run/vmtest-break && systemctl reset-failed vmtest-victim.service && systemctl start vmtest-victim.service")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply --retry-guard"))
	m.mode(t, "tried again", "Enforcing", "permissive", 0)
	m.put(t, guardFile, guardFor("10s"))
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	m.waitGuard(t, "armed")
	m.mode(t, "after the window", "Enforcing", "enforcing", 1)
	m.status(t, 0)

	m.put(t, guardFile, guardFor("1h"))
	m.reboot(t)
	m.mode(t, "at the boot that is to prove itself", "Enforcing", "permissive", 1)
	m.expect(t, "enforcing from the first instant", "journalctl -b -k --no-pager | grep -c 'permissive=1\\| enforcing=0 ' || true", "0")
	m.Must(t, `test "$(systemctl show -P ExecMainExitTimestampMonotonic selinux-provision-trial.service)" -lt "$(systemctl show -P ActiveEnterTimestampMonotonic sysinit.target)"`)
	if err := m.Snapshot("proving"); err != nil {
		t.Fatal(err)
	}
	m.Must(t, "touch /run/vmtest-break")
	m.waitGuard(t, "failed")
	m.givenUp(t, "after the boot on trial broke a unit", "vmtest-victim.service failed (exit-code)")

	m.restore(t, "proving")
	m.PowerCut()
	m.powerOn(t)
	m.givenUp(t, "after a power cut in the boot that is to prove itself", "by a crash, a reset or a power cut")

	m.restore(t, "proving")
	m.put(t, guardFile, guardFor("5s"))
	m.Must(t, "/opt/bin/selinux-provision apply")
	m.waitGuard(t, "settled")
	m.mode(t, "proven", "Enforcing", "enforcing", 0)
	m.status(t, 0)

	m.reboot(t)
	m.unchanged(t)
	m.mode(t, "after one more boot", "Enforcing", "enforcing", 0)
	m.expect(t, "the watch", "systemctl is-active selinux-provision-guard.service || true", "inactive")
	m.status(t, 0)
}

// TestGuardBesideApply lets a window end badly while an apply builds another policy: the host ends permissive, with the watch's reason.
//
// Proves P4.
func TestGuardBesideApply(t *testing.T) {
	t.Parallel()
	m := startOnTrial(t)
	m.Must(t, "systemctl stop vmtest-victim.service")
	m.put(t, guardFile, guardFor("5s")) // a rebuild takes two or three times as long
	m.put(t, "/root/boolean.yaml", "version: 1\npolicy: {booleans: {container_use_nfs: true}}\n")
	m.Must(t, "/opt/bin/selinux-provision apply && mv /root/boolean.yaml /etc/selinux-provision/config.d")
	t.Log(m.fails(t, "/opt/bin/selinux-provision apply", 3))
	m.waitGuard(t, "failed")
	m.givenUp(t, "after a window that ended badly beside an apply", "vmtest-victim.service is not running at the end of the window")
	m.expect(t, "the watch", "systemctl is-active selinux-provision-guard.service || true", "inactive")
}

// powerOn is PowerOn for tests.
func (m *Machine) powerOn(t *testing.T) {
	t.Helper()
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// restore is Restore for tests.
func (m *Machine) restore(t *testing.T, name string) {
	t.Helper()
	if err := m.Restore(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

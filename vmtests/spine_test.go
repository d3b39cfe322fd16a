package vmtests

import (
	"testing"
)

// TestEnforcingFromIgnition is the main job: one Butane file takes a machine from permissive to enforcing at its first boot, before
// containers start, and the second boot is enforcing from the start, with nothing done again. What somebody switched by hand
// and not for good is gone then.
//
// Proves P4: the second boot is enforcing, and no stage had to do it.
// Proves P6: the second boot wrote nothing where the stages work, and semodule made no commit.
// Proves V2: with Docker and containerd.
// Proves V3: setenforce.
// Proves V4: without -P.
// Proves V5: one denial makes one message.
// Proves V12.
func TestEnforcingFromIgnition(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, transitionDenied())
	t.Log(m.journal(t))
	m.goodState(t)
	m.containersLast(t)
	m.denialIsLogged(t)

	const numbers = "cat /var/lib/selinux/mcs/active/commit_num /var/lib/selinux-provision/state.json"
	before := m.Must(t, numbers)
	m.Must(t, "setenforce 0 && setsebool container_use_samba on")
	m.expect(t, "switched by hand", "getenforce; getsebool container_use_samba", "Permissive\ncontainer_use_samba --> on")
	if got := m.status(t, 3).problems(); !contains(got, "the kernel is permissive") {
		t.Errorf("status does not say that somebody ran setenforce 0:\n%s", got)
	}

	m.reboot(t)
	m.expect(t, "after the reboot", "getenforce; getsebool container_use_samba", "Enforcing\ncontainer_use_samba --> off")
	m.unchanged(t)
	m.expect(t, "the store and the state", numbers, before)
	m.goodState(t)
	m.containersLast(t)
	m.denialIsLogged(t)
}

// TestCommandLine proves that a mode on the kernel's command line is reported and not fought, nor is another writer of /etc/selinux/config, and that
// a wrong configuration costs neither the boot nor the mode. The size of the kernel's cache is set at boot.
//
// Proves P1: a boot with a wrong config.
// Proves V8.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`selinux-provision-(stage-(policystore|policy|audit|enforce)|mountwatch)\.service|Failed to start selinux-provision-…`, "the configuration is wrong, or the command line contradicts it"})
	const other = "sed -i 's/^SELINUX=.*/SELINUX=permissive/' /etc/selinux/config"
	m.Must(t, other)
	m.Must(t, "printf 'kernel: {avc_cache_threshold: 4096}\\n' >> "+configFile)
	m.reboot(t, func(o *Options) { o.KernelArgs = []string{"enforcing=0"} })
	m.expect(t, "with enforcing=0", "getenforce; grep ^SELINUX= /etc/selinux/config", "Permissive\nSELINUX=enforcing")
	status := m.status(t, 3)
	if got := status.problems(); !contains(got, "the kernel command line has enforcing=0, which beats the declared mode enforcing at every boot") {
		t.Errorf("status does not say why the machine is permissive:\n%s", got)
	}
	if status.Mode.CommandLine != "permissive" || status.Mode.Running != "permissive" || status.Mode.Configured != "enforcing" {
		t.Errorf("the modes are %+v", status.Mode)
	}
	if log := m.journal(t); !contains(log, "enforcing=0") {
		t.Errorf("the journal does not say why the machine is permissive:\n%s", log)
	}
	m.containersLast(t)

	if log := m.journal(t); !contains(log, "it says SELINUX=permissive: somebody else changed it at ") {
		t.Errorf("the journal does not say that somebody else changed the mode:\n%s", log)
	}
	m.expect(t, "the cache", "cat /sys/fs/selinux/avc/cache_threshold", "4096")
	if c := status.Cache; c.Threshold != 4096 || c.Declared != 4096 || c.Stats.Lookups == 0 || c.Stats.Misses == 0 || c.Stats.Buckets == 0 {
		t.Errorf("the cache is %+v", c)
	}
	m.Must(t, other)
	if got := m.fails(t, "/opt/bin/selinux-provision stage enforce", 3); !contains(got, "somebody else changed it at ") || !contains(got, "apply --overwrite-config") {
		t.Errorf("the stage does not say that somebody else keeps changing the mode:\n%s", got)
	}
	m.expect(t, "it is left alone", "grep ^SELINUX= /etc/selinux/config", "SELINUX=permissive")
	m.Must(t, "sed -i /^kernel:/d "+configFile)
	m.fails(t, "/opt/bin/selinux-provision apply --overwrite-config", 3)
	m.expect(t, "the operator decided", "grep ^SELINUX= /etc/selinux/config; cat /sys/fs/selinux/avc/cache_threshold", "SELINUX=enforcing\n512")

	m.put(t, configFile, "version: 1\nmood: enforcing\n")
	m.reboot(t, func(o *Options) { o.KernelArgs = nil })
	m.expect(t, "with a wrong configuration", "getenforce; systemctl is-active docker.service", "Enforcing\nactive")
	if log := m.journal(t); !contains(log, configFile+":2: mood") {
		t.Errorf("the journal does not say what is wrong with the configuration:\n%s", log)
	}
}

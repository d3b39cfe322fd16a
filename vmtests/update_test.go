package vmtests

import "testing"

// TestUpdateAndRollback takes a machine with everything that an operator may have made his own through an update of the operating system, and
// back. One declared module needs a type that the newer policy has no more. The older image mounts /etc as an overlay in its initrd, the newer
// one has systemd-confext do it.
//
// Proves P3: to another OS image and back, with a declared module, one made by hand, one that the new policy breaks, and
// booleans; from an overlay to a confext.
func TestUpdateAndRollback(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, policyPartly(), Allowed{`avc: +denied +{ mac_admin } .*comm="systemd-tmpfile"`,
		"PID 1 loads the new vendor's policy, and until the stages have run file_contexts is the one built before the update: it names types that are gone"})
	m.Must(t, "echo mine > /etc/mine")
	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	m.put(t, modulesDir+"vmtest_old.cil", "(allow kernel_t flatcar_retired_t (file (read)))\n")
	m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", "version: 1\npolicy: {booleans: {container_use_nfs: true}}\n")
	m.put(t, "/root/vmtest_hand.cil", "(type vmtest_hand_t)\n(roletype object_r vmtest_hand_t)\n")
	m.Must(t, "semodule -X 300 -i /root/vmtest_hand.cil && setsebool -P container_use_samba on")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))

	check := func(suite Suite, modules string, exit, generation int, quarantined string) {
		t.Helper()
		t.Logf("on %s:\n%s", suite, m.journal(t))
		m.expect(t, string(suite), "sed -n 's/^VERSION_CODENAME=//p' /usr/lib/os-release; cat /etc/mine; getenforce; getsebool container_use_nfs container_use_samba; semodule -l | grep vmtest_; "+
			"for f in /etc/selinux/mcs/policy/policy.*; do cmp $f /var/lib/selinux/mcs/active/policy.kern && echo loadable; done; ls /var/lib/selinux/mcs/active/disable_dontaudit",
			string(suite)+"\nmine\nEnforcing\ncontainer_use_nfs --> on\ncontainer_use_samba --> on\n"+modules+"\nloadable\n/var/lib/selinux/mcs/active/disable_dontaudit")
		status := m.status(t, exit)
		if got := status.quarantined(); got != quarantined {
			t.Errorf("on %s, %q is in quarantine, want %q", suite, got, quarantined)
		}
		if status.Store.Generation != generation {
			t.Errorf("on %s, the store has the generation %d, want %d", suite, status.Store.Generation, generation)
		}
	}
	check(Trixie, "vmtest_good\nvmtest_hand\nvmtest_old", 0, 1, "")
	m.reboot(t, func(o *Options) { o.Suite, o.Layout = Forky, Confext })
	m.expect(t, "/etc after the update", etcMount, confextMount)
	check(Forky, "vmtest_good\nvmtest_hand", 3, 2, "vmtest_old:1")
	m.containersLast(t)
	m.reboot(t, func(o *Options) { o.Suite, o.Layout = Trixie, Today })
	m.expect(t, "/etc after the rollback", "findmnt -no SOURCE,FSTYPE /etc", "overlay overlay")
	check(Trixie, "vmtest_good\nvmtest_hand\nvmtest_old", 0, 3, "")
	m.containersLast(t)
}

package vmtests

import (
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/stages"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// TestDeclarations takes a machine through what an operator declares and takes back: modules, one of which does not compile, a
// boolean, and the mode.
//
// Proves P1: a boot with a module that does not compile.
// Proves V3: the mode.
// Proves V4: with it, and declared.
// Proves V6.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, policyPartly())
	const booleans = "getsebool container_use_nfs container_use_samba"
	modules := "semodule -l | grep vmtest_ || true"

	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	m.put(t, modulesDir+"vmtest_bad.cil", badModule)
	m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", "version: 1\npolicy: {booleans: {container_use_nfs: true}}\n")
	m.fails(t, "systemctl restart selinux-provision-stage-policy.service", 1)
	m.expect(t, "the stage's exit code", "systemctl show -P ExecMainStatus selinux-provision-stage-policy.service", "3")
	m.Must(t, "setsebool -P container_use_samba on")
	check := func(when string) {
		t.Helper()
		m.expect(t, when, booleans+"; getenforce; "+modules, "container_use_nfs --> on\ncontainer_use_samba --> on\nEnforcing\nvmtest_good")
		if got := m.status(t, 3); got.quarantined() != "vmtest_bad:2" || !contains(got.problems(), modulesDir+"vmtest_bad.cil") {
			t.Errorf("%s: status names %s in quarantine:\n%s", when, got.quarantined(), got.problems())
		}
		if log := m.journal(t); !contains(log, "vmtest_bad (priority 500), line 2") {
			t.Errorf("%s: the journal does not name the module:\n%s", when, log)
		}
	}
	check("declared")
	m.reboot(t)
	check("after a reboot")
	m.containersLast(t)

	m.Must(t, "rm -r /etc/selinux-provision/config.d "+modulesDir+"; sed -i s/enforcing/permissive/ "+configFile)
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	undone := func(when string) {
		t.Helper()
		m.expect(t, when, booleans+"; getenforce; grep ^SELINUX= /etc/selinux/config; "+modules,
			"container_use_nfs --> off\ncontainer_use_samba --> on\nPermissive\nSELINUX=permissive")
		m.status(t, 0)
	}
	undone("taken back")
	m.reboot(t)
	m.unchanged(t) // before semodule -l, which touches a lock file
	undone("taken back, after a reboot")
}

// TestByHandAndBack starts from what the vendor's manual recipe leaves on today's layout, where it makes a dangling link, and ends
// with the vendor's machine again.
//
// Proves V5: the same denial before and after.
// Proves V7: the dangling link, and no opaque directory is left.
// Proves V9: type, mode, owner, label, target and content of everything, before and after a reboot.
func TestByHandAndBack(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{Allowed: []Allowed{transitionDenied()}})
	fresh := m.tree(t)
	m.Must(t, transition)
	m.expect(t, "denials that the vendor's machine logs", "journalctl -b --no-pager | grep -c 'avc: ' || true", "0")

	m.Must(t, "rm -rf /etc/selinux/mcs && cp -a /usr/lib/selinux/mcs /etc/selinux/mcs && test -L /etc/selinux/mcs && ! test -e /etc/selinux/mcs")
	m.provision(t)
	const opaque = "getfattr -R -h -n trusted.overlay.opaque etc/selinux 2>/dev/null || true"
	if got := m.upper(t, opaque); got != "" {
		t.Errorf("directories that hide what the OS image has:\n%s", got)
	}
	m.goodState(t)
	m.denialIsLogged(t)

	m.reboot(t)
	m.goodState(t)
	m.denialIsLogged(t)
	if got := m.upper(t, opaque+"; ls -d etc/selinux/mcs/contexts/lxc_contexts 2>/dev/null || true"); got != "" {
		t.Errorf("in the upper layer, where the OS image's files should be seen through:\n%s", got)
	}
	m.Must(t, "test -s /etc/selinux/mcs/contexts/lxc_contexts")

	t.Log(m.Must(t, "/opt/bin/selinux-provision revert"))
	back := func(when string) {
		t.Helper()
		if diff := difference(fresh, m.tree(t)); diff != "" {
			t.Errorf("%s the machine differs from the vendor's:\n%s", when, diff)
		}
		m.expect(t, when, "getenforce; auditctl -l | grep -c exclude; systemctl is-enabled selinux-provision.target || true", "Permissive\n3\ndisabled")
	}
	back("after revert")
	m.reboot(t)
	back("after revert and a reboot")
	m.expect(t, "stages that ran", "journalctl -b --no-pager -o cat -u 'selinux-provision*'", "")

	// What is as declared now would not be so after the next boot, and status says so until the units are enabled as it says.
	m.Must(t, "/opt/bin/selinux-provision apply")
	problems := m.status(t, 3).problems()
	for _, u := range stages.NeededUnits() {
		if !contains(problems, u.Name+" is disabled: ") {
			t.Errorf("status does not say that %s is disabled:\n%s", u.Name, problems)
		}
	}
	m.Must(t, stages.EnableCommand()+" --quiet")
	m.status(t, 0)
	m.Must(t, "systemctl stop "+stages.MountwatchUnit)
	if problems := m.status(t, 3).problems(); !contains(problems, stages.MountwatchUnit+" does not run (inactive)") {
		t.Errorf("status does not say that the watcher does not run:\n%s", problems)
	}
	m.Must(t, "systemctl start "+stages.MountwatchUnit)
	m.status(t, 0)
}

// TestConfigErrors proves that a wrong configuration is refused with its place, and that the host stays as it was; and that a
// host with no configuration keeps its mode.
//
// Proves V10: the machine.
func TestConfigErrors(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{})
	m.install(t)
	before := m.tree(t)
	m.Must(t, "mkdir -p "+modulesDir+" && mkdir /root/a-directory.cil")
	module := func(path string) string {
		return "cat > " + configFile + " <<'END'\nversion: 1\nmode: enforcing\npolicy:\n  modules:\n    - path: " + path + "\nEND\n"
	}
	for _, test := range []struct{ name, plant, want string }{
		{"empty", ": > " + configFile, configFile + ": cannot use an empty config file"},
		{"unknown key", `printf 'version: 1\nmode: enforcing\nmood: good\n' > ` + configFile, configFile + ":3: mood"},
		{"directory", "rm " + configFile + "; mkdir " + configFile, configFile + ": cannot read this file: "},
		{"dangling link", "rm -r " + configFile + "; ln -s /nowhere " + configFile, configFile + ": cannot read this file: "},
		{"missing module", "rm " + configFile + "; " + module("/root/missing.cil"), configFile + ":5: policy.modules[0].path: "},
		{"module is a directory", module("/root/a-directory.cil"), configFile + ":5: policy.modules[0].path: "},
		{"link to no module", `printf 'version: 1\nmode: enforcing\n' > ` + configFile + "; ln -s /nowhere " + modulesDir + "lost.cil", modulesDir + "lost.cil: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.Must(t, test.plant)
			for _, command := range []string{"apply", "status", "stage enforce"} {
				got := m.fails(t, "/opt/bin/selinux-provision "+command, 2)
				if !contains(got, test.want) {
					t.Errorf("%s says\n%s\nwant %q in it", command, got, test.want)
				}
			}
			if diff := difference(before, m.tree(t)); diff != "" {
				t.Errorf("the host is not as it was:\n%s", diff)
			}
			m.expect(t, "the mode", "getenforce", "Permissive")
		})
	}
	t.Run("none", func(t *testing.T) {
		m.Must(t, "rm -r /etc/selinux-provision")
		t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
		m.expect(t, "without a configuration", "getenforce; grep ^SELINUX= /etc/selinux/config; stat -c %F /var/lib/selinux; auditctl -l | grep -c exclude",
			"Permissive\nSELINUX=permissive\ndirectory\n3")
		if got := m.status(t, 3).problems(); !contains(got, "enable") { // nobody has enabled the units here
			t.Errorf("status says:\n%s", got)
		}
	})
}

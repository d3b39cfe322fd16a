package vmtests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ensureSysext does what Flatcar's unit of this name does once the images are merged: has systemd read the units again, and looks at the
// targets once more. Debian has nothing like it.
const ensureSysext = `[Unit]
BindsTo=systemd-sysext.service
After=systemd-sysext.service
DefaultDependencies=no
ConditionDirectoryNotEmpty=/etc/extensions

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/systemctl daemon-reload
ExecStart=/usr/bin/systemctl restart --no-block sockets.target timers.target multi-user.target

[Install]
WantedBy=sysinit.target
`

// nextProduct builds the program as a later release would be: with another version.
func nextProduct(t *testing.T) string {
	t.Helper()
	Require(t)
	overlay, program := filepath.Join(t.TempDir(), "overlay.json"), filepath.Join(t.TempDir(), "selinux-provision")
	version := filepath.Join(filepath.Dir(overlay), "VERSION")
	root := RepositoryRoot()
	if err := os.WriteFile(version, []byte("99.0.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, []byte(`{"Replace": {"`+root+`/cmd/selinux-provision/VERSION": "`+version+`"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command(filepath.Join(root, "packaging/build"), program, "-buildvcs=false", "-overlay", overlay)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the next release: %v\n%s", err, out)
	}
	return program
}

// send puts a file of this host into the guest.
func (m *Machine) send(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Put(t.Context(), to, content, mode); err != nil {
		t.Fatal(err)
	}
}

// sendCommand compiles a program of vmtests/cmd and puts it into the guest.
func (m *Machine) sendCommand(t *testing.T, name, to string) {
	t.Helper()
	m.send(t, filepath.Join(buildProgram(t, ".", "./cmd/"+name), name), to, 0o755)
}

// vendorsMachine checks that nothing of selinux-provision is left but what the operator may want to keep, and that SELinux is the vendor's.
func (m *Machine) vendorsMachine(t *testing.T) {
	t.Helper()
	m.expect(t, "the vendor's SELinux", `getenforce; grep ^SELINUX= /etc/selinux/config; stat -c '%F' /var/lib/selinux; auditctl -l | head -1
find / -xdev -name '*selinux*provision*' -not -path '/proc/*' -not -path '/var/log/*' 2>/dev/null; find /etc/systemd -name '*selinux-provision*'
systemctl list-units --all --no-legend --plain 'selinux-provision*'`, "Permissive\nSELINUX=permissive\nsymbolic link\n-a never,exclude -F msgtype>=AVC -F msgtype<=1499")
}

// TestUpgradeAndRemoval replaces the program on a machine that the old one provisioned, and then removes it by the operator guide's
// commands: the new one finds everything as declared and does nothing, and what is left is the vendor's machine.
//
// Proves V13.
func TestUpgradeAndRemoval(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	before := m.Must(t, "cat /var/lib/selinux-provision/state.json /var/lib/selinux/mcs/active/commit_num")
	m.send(t, nextProduct(t), "/root/selinux-provision", 0o755)
	if log := m.Must(t, "cd /root && mkdir units && cp -r /etc/systemd/system/selinux-provision*.{service,timer,target,path} units/ && PATH=$PATH:/opt/bin\n"+guideCommands(t, "### Upgrade", "/opt/bin")+"rm -r units selinux-provision"); strings.Count(log, ": nothing to do") != 4 {
		t.Errorf("the new program did something:\n%s", log)
	}
	m.expect(t, "the new program", "/opt/bin/selinux-provision version | cut -d' ' -f2", "99.0.0")
	m.watcherIs(t, "/opt/bin/selinux-provision")
	// All in one job: to restart one alone restarts those that need it as well, and the next would be ended while it starts.
	m.Must(t, "systemctl restart selinux-provision-stage-{policystore,policy,audit,enforce}.service")
	m.expect(t, "the state", "cat /var/lib/selinux-provision/state.json /var/lib/selinux/mcs/active/commit_num", before)
	m.goodState(t)

	t.Log(m.Must(t, guideCommands(t, "### Removal", "/opt/bin")))
	m.reboot(t)
	m.vendorsMachine(t)
}

// watcherIs fails the test unless the watcher that runs is the program of that name, and not one that had it before.
func (m *Machine) watcherIs(t *testing.T, program string) {
	t.Helper()
	running := fmt.Sprintf("/proc/$(systemctl show -p MainPID --value %s)/exe", watchUnit)
	m.expect(t, "the watcher's program", "stat -L -c %d:%i "+running, m.Must(t, "stat -L -c %d:%i "+program))
}

// guideCommands gives the commands of the block below a heading of the operator guide that has a word in it.
func guideCommands(t *testing.T, heading, word string) string {
	t.Helper()
	guide, err := os.ReadFile(filepath.Join(RepositoryRoot(), "docs/operator-guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(guide), "\n"+heading+"\n")
	if !found {
		t.Fatalf("the operator guide has no section %q", heading)
	}
	for i, block := range strings.Split(section, "```") {
		if i%2 == 1 && strings.Contains(block, word) {
			return "set -ex\n" + block
		}
	}
	t.Fatalf("below %q there are no commands with %s", heading, word)
	return ""
}

// TestExampleSysext boots a machine with the system extension image: the stages run before the containers, a newer image takes over
// what the older one made, and after the guide's removal the machine is the vendor's.
//
// Proves V12, V13.
func TestExampleSysext(t *testing.T) {
	t.Parallel()
	config, err := addToIgnition(example(t, "sysext.bu"), nil, map[string]string{"docker.service": "", "systemd-sysext.service": "", "ensure-sysext.service": ensureSysext})
	if err != nil {
		t.Fatal(err)
	}
	m := Start(t, Options{Ignition: config})
	const program = "/usr/bin/selinux-provision"
	m.expect(t, "the program", "test ! -e /opt/bin/selinux-provision && "+program+" status >/dev/null && getenforce", "Enforcing")
	m.containersLast(t)
	before := m.Must(t, "cat /var/lib/selinux-provision/state.json /var/lib/selinux/mcs/active/commit_num")

	image := filepath.Join(t.TempDir(), "next.raw")
	build := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(RepositoryRoot(), "packaging", "sysext"), nextProduct(t), "amd64", image)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.send(t, image, "/root/selinux-provision.raw", 0o644)
	t.Log(m.Must(t, "cd /root\n"+guideCommands(t, "### Upgrade", "/etc/extensions")))
	m.expect(t, "the new program", program+" version | cut -d' ' -f2", "99.0.0")
	m.watcherIs(t, program)
	m.reboot(t)
	m.expect(t, "the new program", program+" version | cut -d' ' -f2 && getenforce", "99.0.0\nEnforcing")
	m.unchanged(t)
	m.expect(t, "the state", "cat /var/lib/selinux-provision/state.json /var/lib/selinux/mcs/active/commit_num", before)
	m.containersLast(t)

	t.Log(m.Must(t, guideCommands(t, "### Removal", "/etc/extensions")))
	m.reboot(t)
	m.vendorsMachine(t)
}

package vmtests

import (
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/stages"
)

// etcMount is what the kernel says of /etc, without what is another number at each boot.
const etcMount = `findmnt -no SOURCE,FSTYPE,VFS-OPTIONS /etc; findmnt -no FS-OPTIONS /etc | tr , '\n' | grep upperdir; findmnt -no SOURCE,VFS-OPTIONS /etc/.systemd-confext`

// confextMount is that of an /etc that systemd-confext merged. An image without verity is another one to systemd once /usr is merged over the one in the initrd:
// so /etc is merged anew late in each boot, and its upper layer is not /sysroot/etc any more.
const confextMount = "confext overlay rw,nosuid,nodev,noexec,noatime\nupperdir=/etc\nconfext[/.systemd-confext] ro,nosuid,nodev,noexec,noatime"

// refresh merges /etc anew, though nothing changed.
const refresh = "systemd-confext refresh --always-refresh=yes"

// TestConfext takes a machine whose /etc comes from systemd-confext, and Docker and containerd from system extension images, through its life: the first boot,
// after which it is enforcing; /etc merged anew while somebody has a file open, while status looks and while the policy is built; an extension of /usr more
// while a container runs; the next boot; and back.
//
// Proves P2: /etc is merged anew while the policy is built.
// Proves V7: a confext, and no opaque directory is left.
// Proves V9: what the image ships, to the byte, from a confext.
func TestConfext(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{Suite: Forky, Layout: Confext, Ignition: withDocker(t)})
	t.Log(m.journal(t))
	m.expect(t, "/etc", etcMount, confextMount)
	m.goodState(t)
	m.containersLast(t)
	m.expect(t, "where the runtimes come from", "findmnt -rno SOURCE,FSTYPE /usr | tail -1; cd /usr/lib/extension-release.d && ls", "sysext overlay\nextension-release.containerd-flatcar\nextension-release.docker-flatcar")
	if got := m.status(t, 0).ForeignLabels; len(got) > 0 {
		t.Errorf("status says that the images of the vendor's have other labels: %v", got)
	}
	m.put(t, "/etc/program", "#!/bin/sh\n")
	m.Must(t, "chmod 0755 /etc/program")
	if said := m.fails(t, "/etc/program", 126); !contains(said, "Permission denied") {
		t.Errorf("a program below /etc: %s", said)
	}
	m.Must(t, "/bin/sh /etc/program && rm /etc/program")

	watcher := m.Must(t, "systemctl show -P MainPID "+stages.MountwatchUnit)
	m.Must(t, "systemd-run --quiet --unit=holder /bin/sh -c 'exec 7</etc/selinux/config; exec sleep infinity'")
	m.Must(t, refresh)
	m.expect(t, "/etc merged anew", etcMount, confextMount)
	m.goodState(t)
	if log := m.Must(t, "/opt/bin/selinux-provision apply"); strings.Count(log, ": nothing to do") != 4 {
		t.Errorf("apply did something after a refresh:\n%s", log)
	}
	m.expect(t, "status while /etc is merged anew", "for i in 1 2 3 4 5; do "+refresh+" >/dev/null 2>&1 & /opt/bin/selinux-provision status >/run/said || cat /run/said; wait; done", "")
	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	t.Log(m.Must(t, "touch /run/on; while test -e /run/on; do "+refresh+" >/dev/null 2>&1 || echo $? >>/run/failed; sleep 3; done & /opt/bin/selinux-provision apply; rc=$?; rm /run/on; wait; exit $rc"))
	m.expect(t, "what was built meanwhile", "semodule -l | grep vmtest_good; cat /run/failed 2>/dev/null || true", "vmtest_good")
	m.goodState(t)
	m.expect(t, "the watcher", "systemctl show -P MainPID "+stages.MountwatchUnit, watcher)

	const tool = "/var/lib/extensions/tool/usr"
	m.put(t, tool+"/lib/extension-release.d/extension-release.tool", "ID=_any\n")
	m.put(t, tool+"/bin/tool", "#!/bin/sh\necho tool\n")
	m.importBusybox(t)
	m.Must(t, "docker run -d --name stays --network none busybox sleep 36000")
	m.Must(t, "chmod 0755 "+tool+"/bin/tool && systemd-sysext refresh")
	m.expect(t, "a container that ran while /usr was merged anew", "{ docker exec stays cat /proc/self/attr/current; echo; docker run --rm --network none busybox cat /proc/self/attr/current; echo; } | cut -d: -f3", "container_t\ncontainer_t")
	m.Must(t, "docker rm -f stays")
	extended := func(when string) {
		t.Helper()
		m.expect(t, when, "tool && findmnt -rno SOURCE,FSTYPE /usr | tail -1 && systemctl is-active docker.service "+stages.MountwatchUnit, "tool\nsysext overlay\nactive\nactive")
		var paths []string
		for _, l := range m.status(t, 0).ForeignLabels {
			paths = append(paths, l.Path)
		}
		if got := strings.Join(paths, " "); got != "/usr/bin /usr/bin/tool /usr/lib /usr/lib/extension-release.d" {
			t.Errorf("%s: status says that these have another label: %s", when, got)
		}
	}
	extended("an extension of /usr")

	m.reboot(t)
	m.expect(t, "/etc after a reboot", etcMount, confextMount)
	m.unchanged(t)
	m.goodState(t)
	m.containersLast(t)
	extended("the same after a reboot")
	m.Must(t, "rm -r /var/lib/extensions/tool && systemd-sysext refresh")
	if got := m.status(t, 0).ForeignLabels; len(got) > 0 {
		t.Errorf("status says without the extension: %v", got)
	}

	m.Must(t, "cp -a /etc/selinux/mcs /root/mcs && rm -rf /etc/selinux/mcs && cp -a /root/mcs /etc/selinux/mcs && rm -r /root/mcs")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	if got := m.upper(t, "getfattr -R -h -n trusted.overlay.opaque etc/selinux 2>/dev/null || true"); got != "" {
		t.Errorf("directories that hide what the OS image has:\n%s", got)
	}

	const listing = ` && find selinux audit/rules.d -printf '%p %y %m %U:%G %l %Z\n' | sort && find selinux audit/rules.d -type f -print0 | sort -z | xargs -0 sha256sum`
	t.Log(m.Must(t, "/opt/bin/selinux-provision revert"))
	back := func(when string) {
		t.Helper()
		if diff := difference(m.Must(t, "cd /"+shippedEtc+listing), m.Must(t, "cd /etc"+listing)); diff != "" {
			t.Errorf("%s /etc differs from what the image ships:\n%s", when, diff)
		}
		m.expect(t, when, "getenforce; readlink /var/lib/selinux", "Permissive\n../../usr/lib/selinux/policy")
	}
	back("after revert")
	m.reboot(t)
	back("after revert and a reboot")
	if got := m.upper(t, "find etc/selinux etc/audit/rules.d ! -type d"); got != "" {
		t.Errorf("in the upper layer, where the OS image's files should be seen through:\n%s", got)
	}
}

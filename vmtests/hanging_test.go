package vmtests

import (
	"strings"
	"testing"
)

// TestVolumesThatHang has four volumes whose servers stop answering, on a kernel with SELinux, where FUSE keeps labels as xattrs: the fifth
// volume gets its label, the watcher starts again and is ready, ends when it is told to, and labels the four when their servers answer.
//
// Proves V17: servers that hang.
func TestVolumesThatHang(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`mountwatch\.service: (State 'stop-sigterm' timed out|State 'final-sigterm' timed out|Killing process|Processes still around|Failed with result|Unit process|Found left-over process|This usually indicates)`,
		"its threads ask servers that do not answer"})
	m.sendCommand(t, "hangs", "/opt/bin/hangs")
	m.put(t, modulesDir+"vmtest_fuse.cil", "(fsuse xattr fuse (system_u object_r fusefs_t ((s0) (s0))))\n")
	rules := "version: 1\nvolumes:\n  - {name: data, match: {mountpoint: /v/data}, strategy: relabel}\n"
	var dirs []string
	for _, name := range []string{"a", "b", "c", "d"} {
		rules += "  - {name: " + name + ", match: {mountpoint: /v/" + name + "}, strategy: relabel}\n"
		dirs = append(dirs, "/v/"+name)
	}
	m.put(t, "/etc/selinux-provision/config.d/50-volumes.yaml", rules)
	m.Must(t, "modprobe fuse; /opt/bin/selinux-provision apply")
	m.Must(t, "mkdir -p /v/data "+strings.Join(dirs, " ")+" && systemctl stop "+watchUnit)
	m.Must(t, "systemd-run --quiet --unit=vmtest-hangs /opt/bin/hangs "+strings.Join(dirs, " ")+" && for i in $(seq 100); do findmnt -n /v/d >/dev/null && break; sleep 0.2; done; findmnt -n -o OPTIONS /v/d | grep seclabel")
	m.Must(t, "touch /run/hangs && sleep 1 && systemctl start "+watchUnit+" && systemctl is-active "+watchUnit)
	m.Must(t, "truncate -s 32M /var/data.img && mkfs.ext4 -q /var/data.img && mount -o loop /var/data.img /v/data && mkdir /v/data/x")
	// A relabelling in which nothing moves gives its place away after a minute.
	m.Must(t, "for i in $(seq 240); do journalctl -b -o cat -u "+watchUnit+" | grep -q 'volume data at /v/data has its label' && exit 0; sleep 1; done; journalctl -b -u "+watchUnit+"; exit 1")
	by := m.settle(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		if v := by[name]; v.State != "refused" || v.Code != "no-answer" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := by["data"]; v.fate() != files {
		t.Errorf("%+v", v)
	}
	// The kernel keeps what has asked a server, so systemd waits for its time limit after each of its four signals.
	m.Must(t, "timeout 170 systemctl restart "+watchUnit+" && systemctl is-active "+watchUnit)
	m.Must(t, "rm /run/hangs; for i in $(seq 120); do test $(journalctl -b -o cat -u "+watchUnit+" | grep -c 'volume [abcd] at /v/[abcd] has its label') = 4 && exit 0; sleep 1; done; journalctl -b -u "+watchUnit+"; exit 1")
	m.Must(t, "systemctl stop vmtest-hangs; umount /v/data")
}

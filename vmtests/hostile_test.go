package vmtests

import (
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// TestHostileVolumes has attackers at work in volumes while the watcher labels them: they make, move, link, swap and mount without a pause, two volumes
// are corrupted, and one has files that cannot be labelled and whose names a terminal or a parser would obey. Nothing of the host's gets another label, the volume
// beside them gets its own meanwhile, the watcher ends and is ready again as always, what it says obeys no name, and when the attackers are gone each
// entry has its label.
//
// Proves P5: files that are made and moved all the time, on a machine that enforces.
// Proves P7: beside the watcher, on a machine that enforces.
// Proves V17: beside attackers and corrupted file systems.
func TestHostileVolumes(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.sendCommand(t, "attacker", "/opt/bin/attacker")
	storms := []string{"ext4", "xfs", "tmpfs", "part/pvc-1"}
	m.put(t, "/etc/selinux-provision/config.d/50-volumes.yaml", `version: 1
volumes:
  - {name: ext4, match: {mountpoint: /v/ext4}, strategy: relabel}
  - {name: xfs, match: {mountpoint: /v/xfs}, strategy: relabel}
  - {name: tmpfs, match: {mountpoint: /v/tmpfs}, strategy: relabel}
  - {name: part, match: {mountpoint: /v/part}, paths: [pvc-1]}
  - {name: corrupt-ext4, match: {mountpoint: /v/corrupt-ext4}, strategy: relabel}
  - {name: corrupt-xfs, match: {mountpoint: /v/corrupt-xfs}, strategy: relabel}
  - {name: names, match: {mountpoint: '/v/names*'}, strategy: relabel}
  - {name: good, match: {mountpoint: /v/good}, strategy: relabel}
`)
	const named = `$'/v/names\n\e[2J'`
	m.Must(t, "systemctl reload "+watchUnit+`; set -e; mkdir -p /var/images /var/victim /v/{ext4,xfs,tmpfs,part,good,corrupt-ext4,corrupt-xfs} `+named+`; cd /var/images
for n in ext4 part good names corrupt-ext4; do truncate -s 64M $n; mkfs.ext4 -q -N 8000 $n; done; for n in xfs corrupt-xfs; do truncate -s 320M $n; mkfs.xfs -q $n; done
for n in corrupt-ext4 corrupt-xfs; do mount -o loop $n /mnt; mkdir -p /mnt/{1..9}/{1..9}/{1..9}; umount /mnt; /opt/bin/attacker corrupt /var/images/$n; done
mount -o loop part /mnt; mkdir -p /mnt/pvc-1 /mnt/victim; echo x > /mnt/victim/secret; umount /mnt
mount -o loop names /mnt; /opt/bin/attacker names /mnt; umount /mnt; echo x > /var/victim/secret`)
	// A link that is made in a volume changes its victim's times, not its label.
	const victims = `find /var/victim /v/part/victim /etc /opt /root -printf '%p %Z\n'; find /dev -mount -type b,c -printf '%p %Z\n' | grep -v loop; true`
	m.Must(t, "set -e; cd /var/images; mount -o loop part /v/part; ("+victims+") | sort > /run/before")

	mount := func(name string) string {
		if name == "tmpfs" {
			return "mount -t tmpfs none /v/tmpfs"
		}
		return "mount -o loop /var/images/" + name + " /v/" + name
	}
	begin := time.Now()
	for _, at := range storms {
		name, _, below := strings.Cut(at, "/")
		start := "systemd-run --quiet --unit=attacker-" + name + " /opt/bin/attacker storm /v/" + at + " /var/victim /v/part/victim"
		if !below {
			start = mount(name) + "; " + start
		}
		m.Must(t, start)
	}
	m.Must(t, mount("corrupt-ext4")+"; "+mount("corrupt-xfs")+"; mount -o loop /var/images/names "+named)
	m.Must(t, mount("good")+"; mkdir -p /v/good/dir")
	m.Must(t, `for i in $(seq 150); do journalctl -b -o cat -u `+watchUnit+` | grep -q 'volume good at /v/good has its label' && exit 0; sleep 1; done; journalctl -b -u `+watchUnit+`; exit 1`)
	t.Logf("the good volume has its label after %s", time.Since(begin).Round(time.Second))
	attacked := func(when string) {
		m.expect(t, "attackers "+when, "systemctl is-active attacker-{ext4,xfs,tmpfs,part}.service", "active\nactive\nactive\nactive")
	}
	attacked("when the good volume has its label")
	took := m.Must(t, "a=$(date +%s%N); systemctl stop "+watchUnit+"; b=$(date +%s%N); systemctl start "+watchUnit+"; c=$(date +%s%N); echo $(((b - a) / 1000000)) ms, $(((c - b) / 1000000)) ms")
	t.Logf("the watcher ended and was ready again in %s", took)
	m.expect(t, "how the watcher ended", "journalctl -b -o cat -u "+watchUnit+" | grep -c 'timed out' || true; systemctl is-active "+watchUnit, "0\nactive")
	attacked("when the watcher is ready again")

	m.Must(t, "systemctl stop attacker-{ext4,xfs,tmpfs,part}.service")
	got := m.settle(t)
	t.Logf("%+v\n%s", got, m.watchLog(t))
	for _, at := range storms {
		name, _, _ := strings.Cut(at, "/")
		if got[name].fate() != files {
			t.Errorf("%s: %+v", name, got[name])
		}
		m.expect(t, "what has another label below /v/"+at, "find /v/"+at+" -xdev ! -context '"+shared+"' -printf '%P %y %Z %C@\\n' | head -20", "")
	}
	for _, name := range []string{"corrupt-ext4", "corrupt-xfs", "names"} {
		if v := got[name]; v.State != "failed" || v.Code != "relabel-failed" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	m.expect(t, "what is another's", "("+victims+") | sort > /run/after; diff /run/before /run/after", "")

	// What is said of the names is one line each, without anything that a terminal would obey.
	const tool = "/opt/bin/selinux-provision "
	for _, command := range []string{
		"journalctl -b -o cat -u " + watchUnit, tool + "status", tool + "status --json", tool + "readiness --features /root/features --metrics /root/metrics",
		tool + "readiness --json", "cat /root/features /root/metrics",
	} {
		out, err := m.Run(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.Stdout + out.Stderr) {
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) || contains(line, "blob data") {
				m.fail(t, t.Error, "%s: %s", command, strconv.Quote(line))
			}
		}
	}
	m.expect(t, "lines of features and metrics that are none", `cat /root/features /root/metrics | grep -vc -E '^(#|selinux_provision_|feature\.node|[a-z0-9./_-]+=)' || true`, "0")
}

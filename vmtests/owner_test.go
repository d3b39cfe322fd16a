package vmtests

import (
	"fmt"
	"testing"
)

// TestWhoOwnsALabel has a container take a declared volume for itself, as -v DIR:...:Z does: nothing is taken from under it, status says what is there and
// whose it is, and the volume comes back when it is asked for.
//
// Proves P5: what a running container has labelled for itself is left to it.
func TestWhoOwnsALabel(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.dockerImage(t)
	const declared = "system_u:object_r:container_file_t:s0:c100,c200"
	const file, rule = "/etc/selinux-provision/config.d/volume.yaml", "version: 1\nvolumes:\n  - {name: work, match: {mountpoint: /srv/work}, strategy: relabel, level: 's0:c100,c200'%s}\n"
	const reload = "systemctl reload selinux-provision-mountwatch && until /opt/bin/selinux-provision status | grep -q '^volume *%s  *work /srv/work'; do sleep .2; done"
	declare := func(more, state string) {
		t.Helper()
		m.put(t, file, fmt.Sprintf(rule, more))
		m.Must(t, fmt.Sprintf(reload, state))
	}
	m.Must(t, "truncate -s 64M /var/tmp/work && mkfs.ext4 -q /var/tmp/work && mkdir -p /srv/work && mount -o loop /var/tmp/work /srv/work")
	declare("", "labelled")
	m.expect(t, "the declared label", "stat -c %C /srv/work", declared)

	// A container takes it, and works in it for as long as it runs.
	m.Must(t, "docker run -d --name owner --network none -v /srv/work:/data:Z busybox sh -c 'while sleep .2; do echo line >> /data/log || exit; done'")
	m.Must(t, "until test -s /srv/work/log; do sleep .2; done")
	label := m.Must(t, "stat -c %C /srv/work")
	if label == declared {
		t.Fatalf("the runtime left the label as it was")
	}
	works := func(when string) {
		t.Helper()
		m.expect(t, when, "stat -c %C /srv/work /srv/work/log | uniq", label)
		m.Must(t, "before=$(stat -c %s /srv/work/log); until test $(stat -c %s /srv/work/log) -gt $before; do docker inspect -f {{.State.Running}} owner | grep -q true || exit 1; sleep .2; done")
	}
	if got := m.status(t, 3).problems(); !contains(got, "its files have the label "+label+", that of container owner, which runs") {
		t.Errorf("status says\n%s", got)
	}
	m.Must(t, fmt.Sprintf(reload, "taken over"))
	works("after a reload")
	m.Must(t, "systemctl restart selinux-provision-mountwatch && "+fmt.Sprintf(reload, "taken over"))
	works("after the watcher was started again")
	m.expect(t, "the journal", "journalctl -b -o cat -u selinux-provision-mountwatch | grep -c \"volume work at /srv/work keeps a container's label\"", "1")

	// It may be meant so.
	declare(", private: true", "labelled")
	works("as a private volume")
	m.status(t, 0)

	// And it comes back.
	declare("", "taken over")
	m.Must(t, "docker rm -f owner && /opt/bin/selinux-provision relabel /srv/work --context "+declared+" && "+fmt.Sprintf(reload, "labelled"))
	m.expect(t, "the label, taken back", "stat -c %C /srv/work /srv/work/log | uniq", declared)
	m.status(t, 0)
}

package vmtests

import (
	"testing"
)

// unitsThatRun are those that do something on every host, and end.
const unitsThatRun = "selinux-provision-stage-policystore selinux-provision-stage-policy selinux-provision-stage-audit selinux-provision-stage-enforce " +
	"selinux-provision-evidence"

// TestUnitsInTheirSandboxes: no unit waits for a server that has gone silent, which ProtectSystem=strict would make it do; what a unit tells of the host's volumes
// is what is told outside of it, although it has mounts of its own; and declared paths are labelled wherever they are. What each unit may not write it cannot.
func TestUnitsInTheirSandboxes(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)

	m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", `version: 1
readiness: {window: 10s}
policy:
  file_contexts:
    - {path: '/root/vmtest(/.*)?', context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/opt/vmtest(/.*)?', context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/tmp/vmtest(/.*)?', context: 'system_u:object_r:container_file_t:s0'}
volumes:
  - {name: done, match: {label: DONE}, strategy: relabel}
  - {name: data, match: {mountpoint: /var/lib/data}}
`)
	m.Must(t, "mkdir -p /root/vmtest /opt/vmtest /tmp/vmtest /srv/done /var/lib/data && systemctl restart selinux-provision-stage-policy.service")
	m.expect(t, "declared paths", "stat -c %C /root/vmtest /opt/vmtest /tmp/vmtest | sort | uniq -c | sed 's/^ *//'", "3 "+shared)

	m.Must(t, `systemctl reload-or-restart `+watchUnit+` && for i in "DONE /srv/done" "DATA /var/lib/data"; do set -- $i
truncate -s 20M /var/tmp/$1 && mkfs.ext4 -q -L $1 /var/tmp/$1 && mount -o loop /var/tmp/$1 $2; done
for i in $(seq 120); do test $(/opt/bin/selinux-provision status | grep -c ' labelled  ') = 2 && exit 0; sleep 1; done; /opt/bin/selinux-provision status; exit 1`)
	m.put(t, "/etc/systemd/system/selinux-provision-evidence.service.d/10-fleet.conf", `[Service]
ExecStart=
ExecStart=/opt/bin/selinux-provision readiness --sample --metrics /var/lib/vmtest.prom
`)
	const volumes = " | grep '^selinux_provision_volume' | grep -v '_seconds{' | sort"
	m.Must(t, "systemctl daemon-reload && systemctl start selinux-provision-evidence.service")
	m.expect(t, "what the unit says of volumes", "grep -c '^selinux_provision_volume_relabel_seconds{' /var/lib/vmtest.prom; cat /var/lib/vmtest.prom"+volumes,
		"1\n"+m.Must(t, "/opt/bin/selinux-provision readiness --metrics -"+volumes))

	// A server that answers no more.
	m.Must(t, `mkdir -p /srv/export/sub /srv/nas && `+serveNFS("/srv/export")+` &&
timeout 60 mount -t nfs4 -o vers=4.2,actimeo=1 localhost:/ /srv/nas && mount -t tmpfs on-it /srv/nas/sub && ip link set lo down && sleep 3 && ! timeout -s KILL 5 stat /srv/nas`)
	m.Must(t, "timeout 300 systemctl restart "+unitsThatRun)
	m.Must(t, "! timeout -s KILL 10 systemd-run --quiet --wait --property=ProtectSystem=strict --property=ReadWritePaths=/var/lib true; ip link set lo up; umount -l /srv/nas; exportfs -ua; rpc.nfsd 0; umount /srv/done /var/lib/data")
}

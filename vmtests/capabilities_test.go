//go:build more

package vmtests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// capabilityJob is what a unit does in TestCapabilitiesOfUnits, and what is seen of it.
type capabilityJob struct {
	unit    string
	prepare string // once
	run     string // prints what came of it
	with    string // that with all that the unit has
	without map[string]string
	// elsewhere are those whose loss only another test shows.
	elsewhere map[string]string
}

// TestCapabilitiesOfUnits runs each unit with what it may do, and with each capability taken away: something it is for fails then, or is not there. A unit
// has no capability that nobody misses. What of a stage a tree can show has a test of its own there.
func TestCapabilitiesOfUnits(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`selinux-provision-`, "units lack what they need"},
		Allowed{`avc: +denied +{ mac_admin } .*comm="(setfattr|selinux-provisi|cp|find|stat)"`, "a label that the policy does not know"})
	const (
		refused, denied = "operation not permitted", "permission denied"
		said            = `journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID %[1]s) | grep -v -e 'Main process' -e 'Consumed' -e '\[[0-9.]* s\]'; systemctl show -P ExecMainStatus %[1]s`
	)
	const site = "/etc/selinux-provision/config.d/10-site.yaml"
	inTrees := map[string]string{"CAP_CHOWN": "main.TestCapabilities", "CAP_DAC_OVERRIDE": "main.TestCapabilities"}
	ofTheCopy := maps.Clone(inTrees)
	ofTheCopy["CAP_FOWNER"], ofTheCopy["CAP_FSETID"] = "main.TestCapabilities", "main.TestCapabilities"
	// A label as an OS update leaves it: of a type that the policy in force does not have.
	const gone = `setfattr -n security.selinux -v system_u:object_r:vmtest_gone_t:s0 `
	jobs := []capabilityJob{
		{
			unit:    "selinux-provision-stage-policystore.service",
			with:    `label .*:vmtest_gone_t:s0`,
			prepare: `setenforce 0 && cp -a /usr/lib/selinux /root/vendor && ` + gone + `/root/vendor/policy/mcs/active/seusers.linked && mount --bind /root/vendor /usr/lib/selinux`,
			run: `rm -rf /var/lib/selinux/mcs; systemctl restart selinux-provision-stage-policystore.service; stat -c 'label %C' /var/lib/selinux/mcs/active/seusers.linked; ` +
				fmt.Sprintf(said, "selinux-provision-stage-policystore.service"),
			without:   map[string]string{"CAP_MAC_ADMIN": "label .*:(semanage_store|selinux_config|var_lib)_t:", "CAP_SYS_ADMIN": refused},
			elsewhere: ofTheCopy,
		},
		{
			unit: "selinux-provision-stage-policy.service",
			with: `(?s)declared/file 1000 .*:vmtest_good_t:s0.*vmtest_good\n`,
			prepare: `umount /usr/lib/selinux; rm -rf /root/vendor; /opt/bin/selinux-provision apply && setenforce 0; printf '%s' '` + goodModule + `' > ` + modulesDir + `vmtest_good.cil
mkdir -p /srv/declared && touch /srv/declared/file && chown -R 1000 /srv/declared && ` + gone + `/srv/declared/file && mkdir /srv/declared/over && touch /srv/declared/over/hidden && mount -t tmpfs none /srv/declared/over
printf 'version: 1\npolicy: {file_contexts: [{path: /srv/declared(/.*)?, context: "system_u:object_r:vmtest_good_t:s0"}]}\n' > ` + guardFile,
			run: `systemctl restart selinux-provision-stage-policy.service; mount --bind /srv/declared /mnt; find /mnt -printf 'declared/%P %U %Z\n'; umount /mnt; semodule -l | grep vmtest; ` +
				fmt.Sprintf(said, "selinux-provision-stage-policy.service"),
			without:   map[string]string{"CAP_SYS_ADMIN": `hidden .*:var_t:s0`, "CAP_FOWNER": "or this program lacks CAP_FOWNER"},
			elsewhere: inTrees,
		},
		{
			unit:      "selinux-provision-stage-audit.service",
			with:      `(?m)^# Neutralised`,
			prepare:   `rm -rf ` + modulesDir + `vmtest_good.cil ` + guardFile + `; /opt/bin/selinux-provision apply; echo '-a never,exclude -F msgtype=AVC' > /etc/audit/rules.d/80-selinux.rules && chown 1000 /etc/audit/rules.d/80-selinux.rules`,
			run:       `systemctl restart selinux-provision-stage-audit.service; cat /etc/audit/rules.d/80-selinux.rules; ` + fmt.Sprintf(said, "selinux-provision-stage-audit.service"),
			without:   map[string]string{"CAP_AUDIT_CONTROL": "cannot ask the kernel for its audit rules", "CAP_FOWNER": refused},
			elsewhere: inTrees,
		},
		{
			unit:    "selinux-provision-stage-enforce.service",
			with:    `(?s)observed for .*SELINUX=permissive`,
			prepare: `/opt/bin/selinux-provision apply; setenforce 0; printf 'version: 1\nenforce: {require_readiness: true}\n' > ` + guardFile + ` && chown 1000 /etc/selinux/config`,
			run: `systemctl restart selinux-provision-stage-enforce.service; ` + fmt.Sprintf(said, "selinux-provision-stage-enforce.service") + `; printf 'version: 1\nmode: permissive\n' > ` + guardFile + `
systemctl restart selinux-provision-stage-enforce.service; grep ^SELINUX= /etc/selinux/config; ` + fmt.Sprintf(said, "selinux-provision-stage-enforce.service"),
			without:   map[string]string{"CAP_AUDIT_CONTROL": "audit system: " + refused, "CAP_FOWNER": refused},
			elsewhere: inTrees,
		},
		{
			unit: "selinux-provision-mountwatch.service",
			with: `data at /srv/data has its label .* \(context option\)`,
			prepare: `umount /srv/declared/over && rm -r /srv/declared ` + guardFile + ` && chown 0 /etc/selinux/config && /opt/bin/selinux-provision apply; mkdir -p /srv/users /srv/data /root/disks && cat > ` + site + ` <<'X'
version: 1
volumes:
  - {name: users, match: {mountpoint: /srv/users}, strategy: relabel}
  - {name: data, match: {mountpoint: /srv/data}}
X
for disk in users data; do truncate -s 20M /root/disks/$disk && mkfs.ext4 -q /root/disks/$disk; done
mount -o loop /root/disks/users /mnt && mkdir -m 700 /mnt/theirs && touch /mnt/theirs/file && chown -R 1000 /mnt/theirs && umount /mnt
systemctl stop ` + watchUnit + ` && rm -rf /var/lib/selinux-provision/volumes /run/selinux-provision/volumes && install -d -o 1000 /var/lib/selinux-provision/volumes
for disk in users data; do mount -o loop /root/disks/$disk /srv/$disk; done`,
			run: `systemctl start ` + watchUnit + `; for i in $(seq 100); do test $(stat -c %C /srv/users /srv/data | grep -c container_file_t) = 2 && break; sleep 0.1; done; sleep 1
stat -c %C /srv/users /srv/users/theirs /srv/users/theirs/file; findmnt -no OPTIONS /srv/data | grep -o context=[^,]*; ` + fmt.Sprintf(said, watchUnit),
			without: map[string]string{"CAP_SYS_ADMIN": `data .*labelled files`, "CAP_DAC_OVERRIDE": "cannot save the record .* " + denied, "CAP_FOWNER": "cannot label /srv/users: ",
				"CAP_SYS_PTRACE": "cannot tell the mount namespace of PID 1"},
			elsewhere: map[string]string{"CAP_DAC_READ_SEARCH": "relabel.TestMovedUnseen: what is moved while a tree is labelled is opened by its handle"},
		},
		{
			unit:    "selinux-provision-volume@data.service",
			with:    `(?s)started: 0.*has its label`,
			prepare: `systemctl start ` + watchUnit,
			// Who is done is forgotten by systemd, and with it the ID of the run.
			run: "timeout 60 systemctl start selinux-provision-volume@data.service; echo started: $?; journalctl --sync; journalctl -b -o cat -u selinux-provision-volume@data.service | grep 'has its label'",
		},
		{
			unit: "selinux-provision-evidence.service",
			with: `check="store"} 1`,
			prepare: `echo 'readiness: {window: 10s}' >> ` + site + ` && /opt/bin/selinux-provision apply && install -d -o 1000 /var/lib/collector
mkdir -p /etc/systemd/system/selinux-provision-evidence.service.d && printf '[Service]\nExecStart=\nExecStart=/opt/bin/selinux-provision readiness --sample --metrics /var/lib/collector/x.prom\n' > /etc/systemd/system/selinux-provision-evidence.service.d/10-fleet.conf
systemctl daemon-reload; for i in $(seq 100); do test $(/opt/bin/selinux-provision status | grep -c 'volume *labelled\|labelled *data') -ge 1 && break; sleep 0.2; done; sleep 3`,
			run: `rm -f /var/lib/collector/x.prom; systemctl start selinux-provision-evidence; grep 'relabel_seconds{\|check="store"} ' /var/lib/collector/x.prom | sed 's/} [0-9.]*[.].*/}/'; ` + fmt.Sprintf(said, "selinux-provision-evidence.service"),
			without: map[string]string{"CAP_AUDIT_CONTROL": "audit system: " + refused, "CAP_SYS_PTRACE": `^selinux_provision_readiness_check{check="store"} 1`,
				"CAP_SYS_ADMIN": `check="store"} 0`, "CAP_DAC_OVERRIDE": "cannot write metrics: .*" + denied},
		},
		{
			unit: "selinux-provision-guard.service",
			with: `"phase": "armed"`,
			prepare: `rm ` + site + ` && umount /srv/users /srv/data; sed -i 's/^mode: .*/mode: permissive/' ` + configFile + ` && /opt/bin/selinux-provision apply &&
sed -i 's/^mode: .*/mode: enforcing/' ` + configFile + ` && printf 'version: 1\nenforce:\n  guard: {window: 3s}\n' > ` + guardFile + ` && chown -R 1000 /var/lib/selinux-provision /etc/selinux/config`,
			run: `/opt/bin/selinux-provision apply >/dev/null; for i in $(seq 120); do systemctl is-active -q selinux-provision-guard || break; sleep 0.5; done
grep -o '"phase": "[a-z]*"' /var/lib/selinux-provision/state.json; stat -c %u /etc/selinux/config; grep '^SELINUX=' /etc/selinux/config; ` + fmt.Sprintf(said, "selinux-provision-guard.service"),
			without:   map[string]string{"CAP_CHOWN": refused, "CAP_FOWNER": refused, "CAP_DAC_OVERRIDE": "cannot (begin|save the record).*" + denied},
			elsewhere: map[string]string{"CAP_AUDIT_CONTROL": "TestRoles: whether what a domain on trial is denied reaches the log"},
		},
		{
			unit: "selinux-provision-trial.service",
			with: "SELINUX=permissive",
			// As it is at the boot after the window: its record is of another boot.
			prepare: `chown -R 0 /var/lib/selinux-provision && /opt/bin/selinux-provision apply; for i in $(seq 120); do grep -q '"phase": "armed"' /var/lib/selinux-provision/state.json && break; sleep 0.5; done
sed -i 's/"boot": "[^"]*"/"boot": "00000000-0000-0000-0000-000000000000"/' /var/lib/selinux-provision/state.json && chown 1000 /etc/selinux /etc/selinux/config
systemctl stop selinux-provision-trial && mkdir -p /run/systemd/system/selinux-provision-trial.service.d && printf '[Unit]\nRefuseManualStart=no\n' > /run/systemd/system/selinux-provision-trial.service.d/by-hand.conf && systemctl daemon-reload`,
			run:     `systemctl start selinux-provision-trial; grep '^SELINUX=' /etc/selinux/config; stat -c %u /etc/selinux/config; ` + fmt.Sprintf(said, "selinux-provision-trial.service"),
			without: map[string]string{"CAP_CHOWN": refused, "CAP_FOWNER": refused, "CAP_DAC_OVERRIDE": denied},
		},
		{
			unit: "selinux-provision-check.service",
			with: `(?m)^[03]$`,
			prepare: `chown -R 0 /etc/selinux/config /etc/selinux && chown -R 1000 /var/lib/selinux/mcs && udevadm settle && mkdir -p /dev/disk/by-partlabel &&
ln -s "$(findmnt -no SOURCE /usr)" /dev/disk/by-partlabel/USR-A && ln -s ../by-id/virtio-other-usr /dev/disk/by-partlabel/USR-B`,
			run:     `systemctl start selinux-provision-check; ` + fmt.Sprintf(said, "selinux-provision-check.service"),
			without: map[string]string{"CAP_SYS_ADMIN": "cannot mount the other /usr partition", "CAP_CHOWN": refused, "CAP_FOWNER": refused, "CAP_DAC_OVERRIDE": denied},
		},
	}
	if err := m.AttachUsr(t.Context(), Forky); err != nil {
		t.Fatal(err)
	}
	m.Must(t, "mkdir -p $(dirname "+site+") "+modulesDir)
	for _, j := range jobs {
		m.Must(t, j.prepare)
		if only := os.Getenv("VMTEST_UNIT"); only != "" && !strings.Contains(j.unit, only) {
			continue
		}
		if err := m.Snapshot("capabilities"); err != nil {
			t.Fatal(err)
		}
		has := capabilitiesOf(t, j.unit)
		whole := m.Must(t, "{ "+j.run+"; } 2>&1")
		t.Logf("%s, which has %s:\n%s", j.unit, strings.Join(has, " "), whole)
		if !regexp.MustCompile(j.with).MatchString(whole) {
			t.Errorf("%s should say %q", j.unit, j.with)
		}
		known := slices.Sorted(maps.Keys(j.without))
		known = append(known, slices.Collect(maps.Keys(j.elsewhere))...)
		for _, c := range has {
			if !slices.Contains(known, c) {
				t.Errorf("%s has %s, and nobody says what for", j.unit, c)
			}
		}
		for _, c := range known {
			if !slices.Contains(has, c) {
				t.Errorf("%s has no %s, which it is said to need", j.unit, c)
			}
		}
		for c, want := range j.without {
			m.restore(t, "capabilities")
			m.Must(t, fmt.Sprintf(`mkdir -p /run/systemd/system/%[1]s.d && printf '[Service]\nCapabilityBoundingSet=~%[2]s\n' > /run/systemd/system/%[1]s.d/without.conf && systemctl daemon-reload`, j.unit, c))
			got := m.Must(t, "{ "+j.run+"; } 2>&1")
			if !regexp.MustCompile(want).MatchString(got) || regexp.MustCompile(want).MatchString(whole) && !strings.HasPrefix(want, "^") || got == whole {
				t.Errorf("%s without %s, which should say %q:\n%s", j.unit, c, want, got)
			}
		}
		m.restore(t, "capabilities")
	}
	m.Must(t, "umount /srv/users /srv/data 2>/dev/null; true")
}

// capabilitiesOf gives what a unit may have at most.
func capabilitiesOf(t *testing.T, unit string) (all []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(RepositoryRoot(), "units", regexp.MustCompile("@[a-z]+").ReplaceAllString(unit, "@")))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindAllSubmatch(content, -1) {
		all = append(all, strings.Fields(string(set[1]))...)
	}
	return all
}

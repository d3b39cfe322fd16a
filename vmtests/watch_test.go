package vmtests

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	examples "github.com/selinux-provision/selinux-provision/ignition-examples"
)

// halfMount mounts the volume that is half labelled at the reboot, when udev knows its UUID: by that it is known again.
const halfMount = "d=$(losetup --find --show /var/images/half); udevadm settle; mount $d /v/half"

const (
	watchUnit = "selinux-provision-mountwatch.service"

	// shared is the label that the image has for volumes, private one with categories, other one that no rule asks for.
	shared  = "system_u:object_r:container_file_t:s0"
	private = "system_u:object_r:container_file_t:s0:c10,c20"
	other   = "system_u:object_r:container_ro_file_t:s0"

	// alias is an old name of container_file_t.
	alias = "svirt_lxc_file_t"
)

// volume is what the tests read of a volume in status --json.
type volume struct {
	Rule, Mountpoint, Context, State, How, Code, Reason, Remedy string

	FSType string                                      `json:"fstype"`
	When   time.Time                                   `json:"when"`
	Files  struct{ Seen, Set, Already, Resumed int64 } `json:"files"`
}

// fate is what a test wants to see of a volume, in one line.
func (v volume) fate() string {
	return strings.Join(strings.Fields(v.State+" "+v.How+" "+v.Code), " ")
}

// volumes asks selinux-provision, by the name of the rule. Of two with one rule the one with the later mountpoint is given.
func (m *Machine) volumes(t *testing.T) map[string]volume {
	t.Helper()
	out, err := m.Run(t.Context(), "/opt/bin/selinux-provision status --json")
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Volumes []volume }
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil {
		t.Fatalf("status --json: %v\n%s%s", err, out.Stdout, out.Stderr)
	}
	by := map[string]volume{}
	for _, v := range r.Volumes {
		by[v.Rule] = v
	}
	return by
}

// settle waits until the watcher is done with everything that is mounted, and gives it.
func (m *Machine) settle(t *testing.T) map[string]volume {
	t.Helper()
	for range 120 {
		by := m.volumes(t)
		if !slices.ContainsFunc(slices.Collect(maps.Values(by)), func(v volume) bool {
			return slices.Contains([]string{"remounting", "relabelling", "pending"}, v.State)
		}) {
			return by
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("the watcher does not get done:\n%+v\n%s", m.volumes(t), m.watchLog(t))
	return nil
}

func (m *Machine) watchLog(t *testing.T) string {
	t.Helper()
	return m.Must(t, "journalctl -b --no-pager -o short-monotonic --no-hostname -u "+watchUnit)
}

// scenario is one volume, made and mounted in the guest while the watcher runs.
type scenario struct {
	name string
	// mount makes the volume and mounts it at $v; $i is a file for an image.
	mount string
	// rule is the rest of the rule for it, beside its name and its mountpoint; "none": there is no rule.
	rule string
	// want is the fate, label the label that its files then have, shared if it is "".
	want, label string
}

// makers of file systems in a file, mounted through a loop device that goes away with the mount.
func ext4(options string) string { return "truncate -s 32M $i; mkfs.ext4 -q $i; " + loop(options) }
func xfs(options string) string  { return "truncate -s 320M $i; mkfs.xfs -q $i; " + loop(options) }
func vfat(options string) string {
	return "truncate -s 8M $i; mkfs.vfat $i >/dev/null; " + loop(options)
}
func btrfs(options string) string { return "truncate -s 128M $i; mkfs.btrfs -q $i; " + loop(options) }

// filled is an ext4 that has directories when it is mounted.
func filled(directories string) string {
	return "mkdir -p $i.d && cd $i.d && mkdir -p " + directories + " && cd / && truncate -s 32M $i; mkfs.ext4 -q -d $i.d $i; " + loop("")
}

func loop(options string) string { return "mount -o " + strings.Trim("loop,"+options, ",") + " $i $v" }
func iso(options string) string {
	return "mkdir $i.d; echo x > $i.d/file; xorrisofs -quiet -R -o $i $i.d 2>/dev/null; " + loop(strings.Trim("ro,"+options, ","))
}
func overlay(options string) string {
	return "mkdir -p $i.d/lower/sub $i.d/upper $i.d/work; echo x > $i.d/lower/sub/file; mount -t overlay none -o " +
		strings.Trim("lowerdir=$i.d/lower,upperdir=$i.d/upper,workdir=$i.d/work,"+options, ",") + " $v"
}
func mapped(name, options string) string {
	return "truncate -s 32M $i; d=$(losetup --find --show $i); dmsetup create " + name + " --table \"0 65536 linear $d 0\"; udevadm settle; " +
		"mkfs.ext4 -q /dev/mapper/" + name + "; mount " + options + " /dev/mapper/" + name + " $v"
}

const (
	fill   = "; mkdir -p $v/dir/sub; echo x > $v/dir/sub/file; ln -s /etc/passwd $v/dir/link"
	option = "labelled context option"
	files  = "labelled labelled files"
)

func scenarios() []scenario {
	return []scenario{
		// The kernel's policy lets nobody label a file system as a process: the second mount would fail.
		{name: "ext4-denied", mount: ext4("noatime,nosuid,errors=remount-ro") + fill, rule: "strategy: context, context: 'system_u:system_r:kernel_t:s0'",
			want: "refused mount-denied", label: "-"},
		{name: "ext4-auto", mount: ext4("noatime,nosuid") + fill, want: option},
		{name: "ext4-context", mount: ext4("") + fill, rule: "strategy: context", want: option},
		{name: "ext4-relabel", mount: ext4("") + fill, rule: "strategy: relabel", want: files},
		{name: "ext4-right", mount: ext4(`context="` + shared + `"`), want: option},
		{name: "ext4-wrong", mount: ext4(`context="` + other + `"`), want: option},
		{name: "ext4-relabel-wrong", mount: ext4(`context="` + other + `"`), rule: "strategy: relabel", want: "refused other-context", label: other},
		{name: "ext4-categories", mount: ext4("") + fill, rule: "level: 's0:c10,c20'", want: option, label: private},
		{name: "ext4-relabel-categories", mount: ext4("") + fill, rule: "strategy: relabel, level: 's0:c10,c20'", want: files, label: private},
		// Old names of the type, and categories in another order than the kernel's: mounted or labelled once, not without end.
		{name: "ext4-alias", mount: ext4("") + fill, rule: "context: 'system_u:object_r:" + alias + ":s0:c20,c10'", want: option, label: private},
		{name: "ext4-relabel-alias", mount: ext4("") + fill, rule: "strategy: relabel, context: 'system_u:object_r:" + alias + ":s0'", want: files},
		{name: "ext4-paths-alias", mount: filled("pvc-1/x"), rule: "paths: [pvc-1], context: 'system_u:object_r:" + alias + ":s0'", want: files, label: "-"},
		{name: "ext4-readonly", mount: ext4("ro"), rule: "strategy: relabel", want: "refused read-only", label: "-"},
		{name: "ext4-paths", mount: filled("pvc-1/x pvc-2 beside"), rule: "paths: [pvc-1, pvc-2]", want: files, label: "-"},
		{name: "ext4-no-path", mount: ext4(""), rule: "paths: [pvc-1]", want: "failed relabel-failed", label: "-"},
		{name: "ext4-busy-auto", mount: ext4("") + fill + "; (cd $v/dir && exec sleep 3600 >/dev/null 2>&1 </dev/null) &", want: files},
		{name: "ext4-busy-context", mount: ext4("") + fill + "; (cd $v/dir && exec sleep 3600 >/dev/null 2>&1 </dev/null) &", rule: "strategy: context",
			want: "refused busy", label: "-"},
		{name: "ext4-unknown", mount: ext4(""), rule: "context: 'system_u:object_r:no_such_t:s0'", want: "refused unknown-context", label: "-"},
		{name: "xfs-auto", mount: xfs("") + fill, want: option},
		{name: "xfs-context", mount: xfs("nodev,largeio") + fill, rule: "strategy: context, level: 's0:c10,c20'", want: option, label: private},
		{name: "xfs-relabel", mount: xfs("") + fill, rule: "strategy: relabel", want: files},
		{name: "xfs-right", mount: xfs(`context="` + shared + `"`), want: option},
		{name: "xfs-wrong", mount: xfs(`context="` + other + `"`), want: option},
		{name: "vfat-auto", mount: vfat("noexec,uid=7,umask=0027") + "; echo x > $v/file", want: option},
		{name: "vfat-context", mount: vfat(""), rule: "strategy: context, level: 's0:c10,c20'", want: option, label: private},
		{name: "vfat-relabel", mount: vfat(""), rule: "strategy: relabel", want: "refused no-relabel", label: "-"},
		{name: "vfat-right", mount: vfat(`context="` + shared + `"`), rule: "strategy: context", want: option},
		{name: "vfat-wrong", mount: vfat(`context="` + other + `"`), want: option},
		{name: "iso-auto", mount: iso(""), want: option},
		{name: "iso-context", mount: iso(""), rule: "strategy: context", want: option},
		{name: "iso-relabel", mount: iso(""), rule: "strategy: relabel", want: "refused no-relabel", label: "-"},
		{name: "iso-right", mount: iso(`context="` + shared + `"`), want: option},
		{name: "iso-wrong", mount: iso(`context="` + other + `"`), rule: "strategy: context", want: option},
		{name: "tmpfs-auto", mount: "mount -t tmpfs none $v" + fill, want: files},
		{name: "tmpfs-context", mount: "mount -t tmpfs none $v" + fill, rule: "strategy: context", want: "refused no-remount", label: "-"},
		{name: "tmpfs-relabel", mount: "mount -t tmpfs none $v" + fill, rule: "strategy: relabel", want: files},
		{name: "tmpfs-right", mount: "mount -t tmpfs -o 'context=\"" + shared + "\"' none $v" + fill, rule: "strategy: context", want: option},
		{name: "tmpfs-wrong", mount: "mount -t tmpfs -o 'context=\"" + other + "\"' none $v" + fill, want: "refused no-remount", label: other},
		{name: "overlay-auto", mount: overlay(""), want: option},
		{name: "overlay-context", mount: overlay("") + fill, rule: "strategy: context, level: 's0:c10,c20'", want: option, label: private},
		{name: "overlay-relabel", mount: overlay(""), rule: "strategy: relabel", want: "failed relabel-failed", label: "-"},
		{name: "overlay-right", mount: overlay(`context="` + shared + `"`), want: option},
		{name: "overlay-wrong", mount: overlay(`context="` + other + `"`), want: option},
		{name: "btrfs-auto", mount: btrfs(""), want: "refused btrfs", label: "-"},
		{name: "btrfs-context", mount: btrfs(""), rule: "strategy: context", want: "refused btrfs", label: "-"},
		{name: "btrfs-relabel", mount: btrfs(""), rule: "strategy: relabel", want: "refused btrfs", label: "-"},
		{name: "btrfs-subvolume", mount: btrfs("") + "; btrfs -q subvolume create $v/sub; umount $v; " + loop("subvol=sub"), want: "refused btrfs", label: "-"},
		{name: "btrfs-right", mount: btrfs(`context="` + shared + `"`), want: "refused btrfs", label: shared},
		{name: "dm-auto", mount: mapped("v-dm1", "") + fill, want: option},
		{name: "dm-context", mount: mapped("v-dm2", "") + fill, rule: "strategy: context, level: 's0:c10,c20'", want: option, label: private},
		{name: "dm-relabel", mount: mapped("v-dm3", "") + fill, rule: "strategy: relabel", want: files},
		{name: "dm-wrong", mount: mapped("v-dm4", `-o context="`+other+`"`), want: option},
		{name: "fuse-auto", mount: "mkdir $i.d; bindfs $i.d $v", want: "refused no-remount", label: "-"},
		{name: "fuse-context", mount: "mkdir $i.d; bindfs $i.d $v", rule: "strategy: context", want: "refused no-remount", label: "-"},
		{name: "fuse-relabel", mount: "mkdir $i.d; bindfs $i.d $v", rule: "strategy: relabel", want: "refused no-relabel", label: "-"},
		{name: "fuse-right", mount: "mkdir $i.d; bindfs -o 'context=\"" + shared + "\"' $i.d $v", want: option},
		{name: "fuse-wrong", mount: "mkdir $i.d; bindfs -o 'context=\"" + other + "\"' $i.d $v", want: "refused no-remount", label: other},
		{name: "bind", mount: "mkdir -p $i.d/sub; mount --bind $i.d/sub $v", want: "refused bind-mount", label: "-"},
		{name: "twice", mount: ext4("") + "; mkdir -p $v-again; mount $(findmnt -no SOURCE $v) $v-again", rule: "strategy: context", want: "refused several-mounts", label: "-"},
		{name: "tied", mount: ext4(""), rule: "none", want: "refused tie", label: "-"},
		{name: "two-labels", mount: ext4("") + "; mkdir -p $v-again; mount $(findmnt -no SOURCE $v) $v-again", rule: "strategy: relabel",
			want: "refused two-labels", label: "-"},
		{name: "undeclared", mount: ext4(""), rule: "none", label: "-"},
	}
}

// config writes the rules of scenarios.
func (s scenario) config() string {
	if s.rule == "none" {
		return ""
	}
	rule := fmt.Sprintf("  - {name: %s, match: {mountpoint: /v/%s}", s.name, s.name)
	if s.rule != "" {
		rule += ", " + s.rule
	}
	return rule + "}\n"
}

// TestVolumes mounts a volume of every kind in every way while the watcher runs, and sees what becomes of it: it has its label, read back
// from the mount table or from each file, or it is as it was, with the reason.
//
// Proves P5: each kind of file system: what is reported is compared with the mount table and every file.
// Proves V17.
func TestVolumes(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.expect(t, "the watcher", "systemctl is-active "+watchUnit, "active")

	all := scenarios()
	m.mountAll(t, all, "  - {name: tied-1, match: {mountpoint: '/v/tie*'}}\n  - {name: tied-2, match: {mountpoint: '/v/tie?'}}\n"+
		"  - {name: second-label, match: {mountpoint: /v/two-labels-again}, level: 's0:c10,c20'}\n")
	m.expect(t, "a mount that would have failed", "findmnt -no OPTIONS /v/ext4-denied; cat /v/ext4-denied/dir/sub/file", "rw,nosuid,noatime,seclabel,errors=remount-ro\nx")
	m.expect(t, "the refusal of one, by its fields", "journalctl -b -o cat MESSAGE_ID=494bc9beb770426a895350146ed44acd SELINUX_PROVISION_RULE=btrfs-auto "+
		"SELINUX_PROVISION_MOUNTPOINT=/v/btrfs-auto SELINUX_PROVISION_CODE=btrfs PRIORITY=4", "btrfs-auto: cannot label /v/btrfs-auto: it is on Btrfs, where one context= would "+
		"hold for every subvolume, and where a new snapshot's root comes without a label and nested subvolumes are in no mount table: use ext4 or xfs")
	m.expect(t, "by hand the same is refused", "/opt/bin/selinux-provision relabel /v/btrfs-auto --context default 2>&1; echo $?", "selinux-provision: cannot relabel /v/btrfs-auto: "+
		"it is on Btrfs, where a new snapshot's root comes without a label and nested subvolumes are in no mount table: use ext4 or xfs, or label it as the policy says with --from-policy\n1")
	m.expect(t, "a volume is mounted again, or its files are labelled, once for each of its mounts",
		"for v in ext4-alias ext4-relabel-alias ext4-paths-alias; do journalctl -b -o cat SELINUX_PROVISION_MOUNTPOINT=/v/$v | grep -c 'mounted again\\|are being labelled'; done", "1\n1\n1")
	m.expect(t, "notes of what is unmounted", "ls /run/selinux-provision/unmounted", "")
	t.Log("system calls that this systemd does not know:", m.Must(t, "journalctl -b --no-pager | grep -i 'unknown system call\\|failed to parse system call' || true"),
		"IDs of mounts:", m.Must(t, "grep -o 'mount_id.*' /run/selinux-provision/volumes/mounts.json | head -3"))
}

// mountAll declares volumes, and rules beside theirs, mounts them one right after the other, and looks at each when the watcher is done.
func (m *Machine) mountAll(t *testing.T, all []scenario, more string) {
	t.Helper()
	var rules, script strings.Builder
	rules.WriteString("version: 1\nvolumes:\n")
	script.WriteString("set -e; mkdir -p /var/images\n")
	for _, s := range all {
		rules.WriteString(s.config())
		fmt.Fprintf(&script, "v=/v/%s i=/var/images/%s; mkdir -p $v; %s\n", s.name, s.name, s.mount)
	}
	rules.WriteString(more)
	m.put(t, "/etc/selinux-provision/config.d/50-volumes.yaml", rules.String())
	m.Must(t, "systemctl reload "+watchUnit)
	if log := m.watchLog(t); contains(log, "the configuration is wrong") {
		t.Fatal(log)
	}
	m.put(t, "/root/mount", script.String())
	begin := time.Now()
	m.Must(t, "bash /root/mount 2>&1")
	t.Logf("%d volumes mounted in %s", len(all), time.Since(begin))
	got := m.settle(t)
	t.Logf("settled after %s\n%s", time.Since(begin), m.watchLog(t))
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) { m.checkVolume(t, s, got) })
	}
}

// TestVolumesLive is the life of declared volumes on one machine: mounted by systemd with the label from the start, on a disk, an NFS and an SMB
// server; declared while they are mounted; given another label; the watcher killed, and hanging; shared by containers; the machine rebooted while files
// are being labelled; among thousands of mounts.
//
// Proves V17: also among 5,000 other mounts.
func TestVolumesLive(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, append(containerDenied(),
		Allowed{`mountwatch\.service: Failed with result '(signal|watchdog)'`, "the test kills it, and has it hang"})...)
	m.Must(t, "mkdir -p /var/images /v; cd /var/images; for n in fstab unit live many half; do truncate -s 64M $n; mkfs.ext4 -q -N 12000 $n; mkdir -p /v/$n; done")
	m.Must(t, `cat >> /etc/fstab <<'END'
/var/images/fstab /v/fstab ext4 loop,noatime,nofail 0 0
localhost:/ /v/nfs nfs4 noauto 0 0
//localhost/share /v/smb cifs noauto,guest 0 0
//localhost/share /v/fails cifs noauto,guest,nosuid 0 0
END
cat > /etc/systemd/system/v-unit.mount <<'END'
[Mount]
What=/var/images/unit
Where=/v/unit
Type=ext4
Options=loop,nodev
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload; systemctl -q enable v-unit.mount; systemctl start v-fstab.mount v-unit.mount
mkdir -p /v/fstab/dir; echo x > /v/fstab/dir/file`)
	rules := "version: 1\nvolumes:\n" +
		"  - {name: fstab, match: {mountpoint: /v/fstab}}\n" +
		"  - {name: unit, match: {mountpoint: /v/unit}, level: 's0:c10,c20'}\n" +
		"  - {name: nfs, match: {mountpoint: /v/nfs}}\n" +
		"  - {name: smb, match: {mountpoint: /v/smb}}\n" +
		"  - {name: live, match: {mountpoint: /v/live}}\n" +
		"  - {name: many, match: {mountpoint: /v/many}, strategy: relabel}\n" +
		"  - {name: half, match: {mountpoint: /v/half}, strategy: relabel}\n" +
		"  - {name: storm, match: {mountpoint: /storm/*}}\n" +
		"  - {name: layers, match: {fstype: overlay}}\n" // those of containers are Docker's
	const volumesFile, slow = "/etc/selinux-provision/config.d/50-volumes.yaml", "/etc/selinux-provision/config.d/60-slow.yaml"
	m.put(t, volumesFile, rules)
	m.Must(t, "systemctl reload "+watchUnit)
	const contexts = `findmnt -rno TARGET,OPTIONS | tr -d '"' | sed -n 's|^\(/v/[a-z]*\) .*context=\([^ ]*:s0\(:c[0-9]*\(,c[0-9]*\)*\)*\).*|\1 \2|p' | sort`
	got := m.settle(t)
	t.Log(m.watchLog(t))
	if got["fstab"].fate() != option || got["unit"].fate() != option {
		t.Errorf("%+v", got)
	}
	m.expect(t, "mounted again through systemd", contexts+"; findmnt -no OPTIONS /v/fstab | grep -c noatime; findmnt -no OPTIONS /v/unit | grep -c nodev; cat /v/fstab/dir/file; systemctl is-active v-fstab.mount v-unit.mount",
		"/v/fstab "+shared+"\n/v/unit "+private+"\n1\n1\nx\nactive\nactive")
	m.status(t, 0)

	t.Run("servers", func(t *testing.T) {
		m.Must(t, servers())
		m.Must(t, "mkdir -p /v/nfs /v/smb; systemctl start v-nfs.mount v-smb.mount")
		got := m.settle(t)
		if got["nfs"].fate() != option || got["smb"].fate() != option {
			t.Errorf("%+v\n%s", got, m.watchLog(t))
		}
		m.expect(t, "options", "for v in nfs smb; do findmnt -no OPTIONS /v/$v; done | grep -c 'nosharecache\\|nosharesock'; stat -c %C /v/nfs /v/smb", "2\n"+shared+"\n"+shared)
		m.Must(t, "systemctl stop v-nfs.mount v-smb.mount; mount -t nfs4 localhost:/ /v/nfs")
		if got := m.settle(t)["nfs"]; got.fate() != option {
			t.Errorf("mounted by hand: %+v\n%s", got, m.watchLog(t))
		}
		m.Must(t, "umount /v/nfs")
	})
	t.Run("fails the second time", func(t *testing.T) {
		// mount(8) finds a helper that does not take the option.
		m.Must(t, `mkdir -p /v/fails /root/real; cp /usr/sbin/mount.cifs /root/real/; printf '#!/bin/sh\ncase "$*" in *context=*) echo no such option >&2; exit 32;; esac\nexec /root/real/mount.cifs "$@"\n' > /root/helper
chmod 755 /root/helper; mount --bind /root/helper /usr/sbin/mount.cifs; systemctl start v-fails.mount || { journalctl -b -u v-fails.mount; exit 1; }`)
		m.put(t, volumesFile, rules+"  - {name: fails, match: {mountpoint: /v/fails}}\n")
		m.Must(t, "systemctl reload "+watchUnit)
		// While it is being made again it is not mounted for a moment.
		failed := func() {
			t.Helper()
			got := m.settle(t)["fails"]
			for i := 0; i < 60 && got.State == "not mounted"; i++ {
				time.Sleep(time.Second)
				got = m.settle(t)["fails"]
			}
			if got.fate() != "failed remount-failed" {
				t.Errorf("%+v\n%s", got, m.watchLog(t))
			}
		}
		failed()
		m.expect(t, "mounted as before", "findmnt -no FSTYPE,OPTIONS /v/fails | grep -c 'cifs *rw,nosuid,'; findmnt -no OPTIONS /v/fails | grep -c context= || true; systemctl is-active v-fails.mount", "1\n0\nactive")
		// Neither systemd nor a new start of the watcher keeps it from being mounted; one that is mounted anew is tried anew.
		m.Must(t, "systemctl restart "+watchUnit+"; systemctl stop v-fails.mount; systemctl start v-fails.mount")
		failed()
		m.Must(t, "systemctl stop v-fails.mount; umount /usr/sbin/mount.cifs")
		m.put(t, volumesFile, rules)
		m.Must(t, "systemctl reload "+watchUnit)
	})
	t.Run("servers by hand", func(t *testing.T) {
		var more strings.Builder
		for _, s := range byHand() {
			more.WriteString(s.config())
		}
		m.put(t, volumesFile, rules+more.String())
		m.Must(t, "systemctl reload "+watchUnit)
		for _, s := range byHand() {
			m.Must(t, "mkdir -p /v/"+s.name+"; "+strings.ReplaceAll(s.mount, "$v", "/v/"+s.name))
		}
		got := m.settle(t)
		for _, s := range byHand() {
			m.checkVolume(t, s, got)
			m.Must(t, "umount /v/"+s.name)
		}
		m.put(t, volumesFile, rules)
		m.Must(t, "systemctl reload "+watchUnit)
	})
	t.Run("another label", func(t *testing.T) {
		m.put(t, volumesFile, strings.Replace(rules, "{mountpoint: /v/fstab}", "{mountpoint: /v/fstab}, level: 's0:c10,c20'", 1))
		m.Must(t, "systemctl reload "+watchUnit)
		m.settle(t)
		m.expect(t, "the label", contexts, "/v/fstab "+private+"\n/v/unit "+private)
		m.put(t, volumesFile, "version: 1\nvolumes:\n  - {nome: x}\n")
		m.Must(t, "systemctl reload "+watchUnit)
		if log := m.watchLog(t); !contains(log, "the configuration is wrong, the one before still counts") || !contains(log, "50-volumes.yaml:3: volumes[0].nome") {
			t.Errorf("a wrong configuration:\n%s", log)
		}
		m.expect(t, "the label", contexts, "/v/fstab "+private+"\n/v/unit "+private)
		m.put(t, volumesFile, rules)
		m.Must(t, "/opt/bin/selinux-provision apply") // which tells the watcher
		m.settle(t)
		m.expect(t, "the label", contexts, "/v/fstab "+shared+"\n/v/unit "+private)
	})
	t.Run("needed", func(t *testing.T) {
		m.Must(t, `systemd-run --quiet --unit=needs-it -p RequiresMountsFor=/v/fstab sleep 1000`)
		m.put(t, volumesFile, strings.Replace(rules, "{mountpoint: /v/fstab}", "{mountpoint: /v/fstab}, level: 's0:c10,c20'", 1))
		m.Must(t, "systemctl reload "+watchUnit)
		if got := m.settle(t)["fstab"]; got.fate() != "refused busy" || !contains(got.Reason, "needs-it.service") {
			t.Errorf("%+v", got)
		}
		m.expect(t, "the service", "systemctl is-active needs-it.service", "active")
		// Who looks into it for a moment does not keep it from its label.
		m.Must(t, "systemctl stop needs-it.service; (exec 7</v/fstab/dir/file; sleep 0.5) >/dev/null 2>&1 & systemctl reload "+watchUnit)
		m.settle(t)
		m.expect(t, "the label", contexts, "/v/fstab "+private+"\n/v/unit "+private)
		m.put(t, volumesFile, rules)
		m.Must(t, "systemctl reload "+watchUnit)
		m.settle(t)
	})
	t.Run("killed", func(t *testing.T) {
		m.Must(t, "mkdir -p /mnt && mount -o loop /var/images/many /mnt && cd /mnt && mkdir d{0..9} && for d in d*; do (cd $d; touch f{0..999}); done; cd /; umount /mnt")
		m.put(t, slow, "version: 1\nrelabel: {entries_per_second: 400}\n")
		m.Must(t, "systemctl reload "+watchUnit+" && mount -o loop /var/images/many /v/many")
		m.Must(t, `for i in $(seq 100); do n=$(find /v/many -context '*container_file_t*' | wc -l); test $n -gt 300 && break; sleep 0.1; done; systemctl kill -s KILL `+watchUnit)
		m.Must(t, "rm "+slow+"; for i in $(seq 100); do systemctl -q is-active "+watchUnit+" && break; sleep 0.1; done")
		before := m.Must(t, "find /v/many ! -context '*container_file_t*' | wc -l")
		got := m.settle(t)["many"]
		t.Logf("%s files were left when it was killed: %+v", before, got)
		if got.fate() != files || before == "0" || got.Files.Resumed+got.Files.Already == 0 {
			t.Errorf("%s left; %+v\n%s", before, got, m.watchLog(t))
		}
		m.expect(t, "files with another label", "find /v/many ! -context '"+shared+"'", "")
		const notShared = "is for all containers, but a file that one of them makes will be its own"
		if status := m.status(t, 3); !contains(m.watchLog(t), notShared) || !contains(status.problems(), notShared) {
			t.Errorf("nobody says that containers cannot share it:\n%s\n%s", status.problems(), m.watchLog(t))
		}
	})
	t.Run("hangs", m.watcherHangs)
	// Seven minutes' work, done beside what follows: writing out, which is done once a minute, may take that long on a host whose disk is busy.
	m.put(t, slow, "version: 1\nrelabel: {workers: 1, entries_per_second: 25}\n")
	m.Must(t, `mount -o loop /var/images/half /mnt && cd /mnt && mkdir d{0..33} && for d in d*; do (cd $d; touch f{0..299}); done; cd /; umount /mnt
systemctl reload `+watchUnit+"; "+halfMount)
	t.Run("containers", m.shareVolumes)
	t.Run("required", func(t *testing.T) {
		m.Must(t, "systemd-run --quiet --unit=waits -p Requires=selinux-provision-volume@live.service -p After=selinux-provision-volume@live.service --no-block sleep 1000; sleep 2")
		m.expect(t, "it waits", "systemctl is-active waits.service || true", "inactive")
		m.Must(t, "mount -o loop /var/images/live /v/live")
		m.Must(t, "for i in $(seq 50); do systemctl -q is-active waits.service && exit; sleep 0.2; done; exit 1")
		m.expect(t, "the label", "stat -c %C /v/live", shared)
		m.Must(t, "systemctl stop waits.service")
	})
	// What a reboot does not lose is what was known to be on the disk.
	for i := 0; ; i++ {
		out, err := m.Run(t.Context(), `for i in $(seq 40); do grep -qs '"synced":{"' /var/lib/selinux-provision/volumes/progress-* && exit; sleep 0.5; done; exit 1`)
		if err == nil && out.Exit == 0 {
			break
		}
		if err != nil || i == 12 {
			t.Fatalf("nothing is recorded as written out: %v\n%s\n%s", err, m.watchLog(t), m.Must(t, "ls -l /var/lib/selinux-provision/volumes /run/selinux-provision/volumes"))
		}
	}
	m.expect(t, "what is not done yet", "stat -c %C /v/half; rm "+slow, "system_u:object_r:unlabeled_t:s0")

	m.Must(t, "umount /v/many; sync")
	m.reboot(t)
	t.Log(m.Must(t, "journalctl -b -t selinux-provision-generator -o cat --no-pager"), "\n", m.watchLog(t))
	m.expect(t, "after a reboot", contexts, "/v/fstab "+shared+"\n/v/unit "+private)
	if log := m.watchLog(t); contains(log, "mounted again") {
		t.Errorf("something was mounted without its label at first:\n%s", log)
	}
	m.Must(t, "mount -o loop /var/images/many /v/many")
	if got := m.settle(t)["many"]; got.fate() != files || contains(m.watchLog(t), "being labelled") {
		t.Errorf("labelled again: %+v\n%s", got, m.watchLog(t))
	}
	m.unchanged(t)
	m.idle(t)
	t.Run("goes on after the reboot", m.goesOn)
	t.Run("storm", m.storm) // at the end: systemd is busy with what is left of it for a minute and a half
}

// watcherHangs stops the watcher until systemd's watchdog ends it and starts it again: it finds what it had found, and does nothing twice.
func (m *Machine) watcherHangs(t *testing.T) {
	const dropIn = "/run/systemd/system/" + watchUnit + ".d/50-soon.conf"
	m.Must(t, "mkdir -p $(dirname "+dropIn+"); printf '[Service]\nWatchdogSec=6s\n' > "+dropIn+"; systemctl daemon-reload; systemctl restart "+watchUnit)
	const pid = "systemctl show -P MainPID " + watchUnit
	// SYS_ADMIN, DAC_READ_SEARCH, DAC_OVERRIDE, FOWNER and SYS_PTRACE; seccomp with a filter; the mounts of the host.
	m.expect(t, "what it may", `p=$(`+pid+`); awk '/^(CapEff|NoNewPrivs|Seccomp):/ {print $2}' /proc/$p/status; test $(readlink /proc/$p/ns/mnt) = $(readlink /proc/1/ns/mnt)`,
		"000000000028000e\n1\n2")
	before, first := m.settle(t), m.Must(t, pid)
	m.Must(t, "kill -STOP "+first)
	m.Must(t, `for i in $(seq 300); do p=$(`+pid+`); test $p != 0 -a $p != `+first+` && systemctl -q is-active `+watchUnit+` && exit; sleep 0.2; done; systemctl status `+watchUnit+`; exit 1`)
	after := m.settle(t)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("it finds\n%+v\nand it was\n%+v", after, before)
	}
	m.expect(t, "what it did again", "journalctl -b -o cat _PID=$("+pid+") | grep 'mounted again\\|being labelled\\|has its label' || true", "")
	m.expect(t, "why it was ended", "journalctl -b -o cat -u "+watchUnit+" | grep -c \"Failed with result 'watchdog'\"", "1")
	m.Must(t, "rm "+dropIn+"; systemctl daemon-reload; systemctl restart "+watchUnit)
}

// storm mounts thousands of file systems that a rule is meant for, as fast as the machine can. Each gets its verdict; what that took, beside
// systemd, is in the log.
func (m *Machine) storm(t *testing.T) {
	const count = 5000
	m.sendCommand(t, "storm", "/root/storm")
	spent := func() (systemd, watcher int) {
		t.Helper()
		const usage = "awk '/^usage_usec/ {print int($2 / 1000)}' /sys/fs/cgroup/init.scope/cpu.stat /sys/fs/cgroup/system.slice/" + watchUnit + "/cpu.stat"
		if _, err := fmt.Sscan(m.Must(t, usage), &systemd, &watcher); err != nil {
			t.Fatal(err)
		}
		return systemd, watcher
	}
	const record = "/run/selinux-provision/volumes/mounts.json"
	m.Must(t, "systemctl restart "+watchUnit) // what it had to do before needed memory of its own
	systemd, watcher := spent()
	begin := time.Now()
	m.Must(t, `/root/storm /storm `+strconv.Itoa(count)+` 'size=64k,context="`+shared+`"'`)
	mounted := time.Since(begin)
	m.Must(t, fmt.Sprintf(`for i in $(seq 300); do test $(grep -c '"rule":"storm"' %s) = %d && exit; sleep 1; done; grep -c storm %s; exit 1`, record, count, record))
	judged := time.Since(begin)
	m.expect(t, "verdicts", `/opt/bin/selinux-provision status --json > /root/status; tr -d ' \n' < /root/status | grep -o '"rule":"storm"[^}]*"state":"labelled","how":"contextoption"' | wc -l`,
		strconv.Itoa(count))
	const ping = "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer Ping" // answered when systemd has come up with its events
	m.Must(t, ping)
	systemdAfter, watcherAfter := spent()
	// It gives back what the storm took when nothing more has come for some seconds.
	const limit = 20e6 // bytes
	const memory = "systemctl show -P MemoryCurrent " + watchUnit + "; awk '/^(VmHWM|RssAnon|RssFile):/ {print $2}' /proc/$(systemctl show -P MainPID " + watchUnit + ")/status"
	var current, peak, anonymous, file int
	for begin := time.Now(); ; time.Sleep(time.Second) {
		if _, err := fmt.Sscan(m.Must(t, memory), &current, &peak, &anonymous, &file); err != nil {
			t.Fatal(err)
		}
		if current <= limit || time.Since(begin) > time.Minute {
			break
		}
	}
	t.Logf("%d mounts in %s, all judged after %s; processor time of systemd %d ms, of the watcher %d ms; memory of the unit %d kB, of the process %d kB and %d kB of its file, at most %d kB",
		count, mounted.Round(time.Millisecond), judged.Round(time.Millisecond), systemdAfter-systemd, watcherAfter-watcher, current/1000, anonymous, file, peak)
	if current > limit {
		t.Errorf("the watcher has %d bytes of memory", current)
	}
	m.Must(t, "umount -l /storm")
	m.Must(t, `for i in $(seq 300); do grep -q '"rule":"storm"' `+record+` || exit 0; sleep 1; done; exit 1`)
	m.Must(t, "until "+ping+"; do sleep 1; done") // for the verdict
}

// goesOn mounts the volume whose files were being labelled when the machine went down: what was done then is done, and not done again.
func (m *Machine) goesOn(t *testing.T) {
	// Seen from beside: there is no rule for that place.
	left := m.Must(t, `mount -o loop /var/images/half /mnt; find /mnt ! -context '`+shared+`' | wc -l
find /mnt -context '`+shared+`' -printf '%P %C@\n' | sort > /root/done; umount /mnt`)
	m.Must(t, halfMount)
	got := m.settle(t)["half"]
	t.Logf("%s files were left at the reboot: %+v", left, got)
	if got.fate() != files || left == "0" || strconv.FormatInt(got.Files.Set, 10) != left || got.Files.Resumed == 0 {
		t.Errorf("%s left; %+v\n%s", left, got, m.watchLog(t))
	}
	m.expect(t, "files with another label", "find /v/half ! -context '"+shared+"'", "")
	m.expect(t, "files that were labelled twice", `find /v/half -printf '%P %C@\n' | sort > /root/all; test -s /root/done; comm -23 /root/done /root/all | wc -l`, "0")
}

// byHand are volumes of servers that no unit knows how to mount again.
func byHand() []scenario {
	nfs := func(options string) string { return "mount -t nfs4 -o " + options + " localhost:/ $v" }
	smb := func(options string) string { return "mount -t cifs -o guest," + options + " //localhost/share $v" }
	right, wrong := `'context="`+shared+`"'`, `'context="`+other+`"'`
	return []scenario{
		{name: "nfs-auto", mount: nfs("vers=4.2,nosharecache"), want: "refused no-remount", label: "-"},
		{name: "nfs-context", mount: nfs("nosharecache"), rule: "strategy: context", want: "refused no-remount", label: "-"},
		{name: "nfs-relabel", mount: nfs("vers=4.1,nosharecache"), rule: "strategy: relabel", want: "refused no-relabel", label: "-"},
		{name: "nfs-right", mount: nfs("nosharecache," + right), want: option},
		{name: "nfs-wrong", mount: nfs("nosharecache," + wrong), want: "refused no-remount", label: "-"},
		{name: "smb-auto", mount: smb("nosharesock"), want: "refused no-remount", label: "-"},
		{name: "smb-relabel", mount: smb("nosharesock"), rule: "strategy: relabel", want: "refused no-relabel", label: "-"},
		{name: "smb-right", mount: smb("nosharesock," + right), want: option},
		{name: "smb-wrong", mount: smb("nosharesock," + wrong), rule: "strategy: context", want: "refused no-remount", label: "-"},
	}
}

// servers serve a directory of the machine to itself, over NFS 4 and SMB.
func servers() string {
	return `set -e; mkdir -p /srv/share; echo x > /srv/file; chmod 777 /srv/share
` + serveNFS("/srv") + `
mkdir -p /etc/ksmbd; printf '[global]\nmap to guest = bad user\n[share]\npath = /srv/share\nguest ok = yes\nwriteable = yes\n' > /etc/ksmbd/ksmbd.conf
modprobe ksmbd; ksmbd.mountd`
}

// serveNFS is the command by which a machine serves a directory to itself, over NFS 4, with more options of exports(5).
func serveNFS(dir string, options ...string) string {
	return "ip link set lo up && modprobe nfsd && { mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; } && exportfs -o " +
		strings.Join(append([]string{"rw,no_root_squash,insecure,fsid=0"}, options...), ",") + " localhost:" + dir + " && { rpc.mountd -N 3 2>/dev/null || true; } && rpc.nfsd -N 3 -H 127.0.0.1 1"
}

// shareVolumes proves that two containers with different labels share a volume, written by one, appended to by the other, read by the
// first; and that neither they nor the owner of another private volume see into a private one.
func (m *Machine) shareVolumes(t *testing.T) {
	m.Must(t, `mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin/ && for a in sh cat; do ln -sf busybox /tmp/image/bin/$a; done
tar -C /tmp/image -c . | docker import - vmtest >/dev/null; mount -o loop /var/images/live /v/live; until test $(stat -c %C /v/live) = `+shared+`; do sleep 0.1; done`) // another is still being labelled
	run := func(options, command string) Output {
		out, err := m.Run(t.Context(), "docker run --rm --network none "+options+" vmtest /bin/sh -c '"+command+"'")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const sharedVolume, privateVolume = "-v /v/live:/d ", "-v /v/unit:/d "
	own := "--security-opt label=level:s0:c10,c20 "
	for _, step := range []struct{ who, options, command, want string }{
		{"A writes", sharedVolume, "echo a > /d/f", ""},
		{"B appends", sharedVolume, "echo b >> /d/f", ""},
		{"A reads back", sharedVolume, "cat /d/f", "a\nb\n"},
		{"C writes into its own", own + privateVolume, "echo c > /d/f; cat /d/f", "c\n"},
	} {
		if out := run(step.options, step.command); out.Exit != 0 || out.Stdout != step.want {
			t.Errorf("%s: %d %q\n%s", step.who, out.Exit, out.Stdout, out.Stderr)
		}
	}
	for _, options := range []string{privateVolume, "--security-opt label=level:s0:c30,c40 " + privateVolume} {
		if out := run(options, "cat /d/f"); out.Exit == 0 || !contains(out.Stderr, "Permission denied") {
			t.Errorf("another container reads a private volume: %+v", out)
		}
	}
	// On a volume whose files are labelled, what one makes is its own, as the journal and the status have said.
	if out := run("-v /v/many:/d ", "echo a > /d/f"); out.Exit != 0 {
		t.Errorf("A cannot write: %+v", out)
	}
	if out := run("-v /v/many:/d ", "cat /d/f"); out.Exit == 0 || !contains(out.Stderr, "Permission denied") {
		t.Errorf("B reads what A has made: %+v", out)
	}
	m.expect(t, "words about Docker's own mounts", "journalctl -b -o cat SELINUX_PROVISION_RULE=layers", "")
	m.Must(t, "umount /v/live")
}

// TestNothingKeepsFromMounting boots with mounts that do not go with a label, or that the kernel does not make with it, and that the boot needs:
// each is mounted, those that can be with their label, and what is not as declared is said.
//
// Proves V17: no label keeps a volume from being mounted.
func TestNothingKeepsFromMounting(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.Must(t, `mkdir -p /var/images /v/real /l; ln -s /v/real /l/link; ln -s real /v/away; cd /var/images
for n in plain def root fs own link auto held; do truncate -s 32M $n; mkfs.ext4 -q $n; done; ln held held-too
cat >> /etc/fstab <<'END'
/var/images/plain /v/a\040b ext4 loop,nodev 0 0
/var/images/def /v/def ext4 loop,noatime,defcontext=system_u:object_r:var_t:s0 0 0
/var/images/root /v/root ext4 loop,rootcontext=system_u:object_r:var_t:s0 0 0
/var/images/fs /v/fs ext4 loop,fscontext=system_u:object_r:fs_t:s0 0 0
/var/images/own /v/own ext4 loop,context=`+other+` 0 0
/var/images/link /l/link/g ext4 loop 0 0
/var/images/auto /v/auto ext4 loop,noauto,x-systemd.automount 0 0
/var/images/held /v/held ext4 loop 0 0
//localhost/share /v/smb cifs noauto,username=CORP\\svc,password=x 0 0
END
cat > /etc/systemd/system/held.service <<'END'
[Unit]
Description=A file system that is mounted already, by another name and without a label
DefaultDependencies=no
RequiresMountsFor=/var/images
Before=v-held.mount local-fs.target
After=local-fs-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mkdir -p /run/held; modprobe loop; mount -v -o loop /var/images/held-too /run/held'
[Install]
RequiredBy=v-held.mount
END
systemctl -q enable held.service`)
	m.put(t, "/etc/selinux-provision/config.d/50-volumes.yaml", "version: 1\nvolumes:\n"+
		"  - {name: plain, match: {mountpoint: '/v/a b'}}\n  - {name: def, match: {mountpoint: /v/def}}\n  - {name: root, match: {mountpoint: /v/root}, strategy: context}\n"+
		"  - {name: fs, match: {mountpoint: /v/fs}, level: 's0:c10,c20'}\n  - {name: own, match: {mountpoint: /v/own}, strategy: context}\n  - {name: link, match: {mountpoint: /v/real/g}}\n"+
		"  - {name: auto, match: {mountpoint: /v/auto}}\n  - {name: held, match: {mountpoint: /v/held}}\n"+
		"  - {name: smb, match: {mountpoint: /v/smb}}\n  - {name: away, match: {mountpoint: /v/away/x}}\n")
	m.reboot(t)
	t.Log(m.Must(t, "journalctl -b -t selinux-provision-generator -o cat --no-pager; journalctl -b -o short-monotonic --no-hostname --no-pager | grep -i 'mount-first\\|selinux-provision-mount@\\|SELinux: ' || true"), "\n", m.watchLog(t))
	m.expect(t, "the boot", "systemctl is-active local-fs.target multi-user.target; systemctl is-failed 'v-*.mount' 'selinux-provision-mount@*' | grep failed || true", "active\nactive")
	m.settle(t)
	m.Must(t, "ls /v/auto; "+servers()+"; systemctl start v-smb.mount")
	got := m.settle(t)
	for name, want := range map[string]string{"plain": option, "def": files, "root": "refused other-context", "fs": option, "link": option, "auto": option, "smb": option} {
		if got[name].fate() != want {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	for name, reason := range map[string]string{"held": "/run/held", "own": "context=", "away": "/v/real/x"} {
		if v := got[name]; v.State == "" || v.Reason == "" && reason != "" || !contains(v.Reason, reason) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	m.expect(t, "what is mounted", `for v in 'a b' def root fs own real/g auto held; do findmnt -rno OPTIONS "/v/$v" | grep -o '\(def\|root\|fs\)*context=[^,]*\(,c20"\)*\|seclabel' | tr '\n' ' '; echo; done`,
		"context="+shared+" \ndefcontext=system_u:object_r:var_t:s0 seclabel \nrootcontext=system_u:object_r:var_t:s0 seclabel \n"+`fscontext=system_u:object_r:fs_t:s0 context="`+private+`"`+" \ncontext="+other+
			" \ncontext="+shared+" \ncontext="+shared+" \nseclabel")
	m.expect(t, "the user of a domain", "findmnt -no OPTIONS /v/smb | grep -o 'username=[^,]*'", `username=CORP\svc`)
	m.expect(t, "the one that the kernel refused, by its fields", "journalctl -b -o cat MESSAGE_ID=83d3aa19a3c145cbb4e9f82c2292c8c9 SELINUX_PROVISION_RULE=held SELINUX_PROVISION_MOUNTPOINT=/v/held | grep -c 'is mounted without'", "1")
	if log := m.watchLog(t); contains(log, "was mounted again") {
		t.Errorf("something was mounted without its label at first:\n%s", log)
	}
	if problems := m.status(t, 3).problems(); !contains(problems, "/v/real/x") {
		t.Errorf("nobody says that a rule can never be met:\n%s", problems)
	}
}

// TestVolumeFromIgnition proves that a disk which Ignition formats, and has mounted by a unit, has its label from its very first mount on, at
// the first boot, and that what needs it waits for that.
//
// Proves V17: from its first mount at the first boot; shared by labels.
func TestVolumeFromIgnition(t *testing.T) {
	t.Parallel()
	config := example(t, "enforcing.bu")
	volumes, err := examples.Translate([]byte(dataDisk), RepositoryRoot())
	if err != nil {
		t.Fatal(err)
	}
	if config, err = mergeIgnition(config, volumes); err != nil {
		t.Fatal(err)
	}
	m := Start(t, Options{Ignition: config, Disks: []Disk{{Name: "data", SizeMB: 64}}, Allowed: containerDenied()})
	t.Log(m.Must(t, "journalctl -b -o short-monotonic --no-pager | grep 'selinux-provision-generator\\|var-lib-data'; systemctl status var-lib-data.mount; systemctl cat var-lib-data.mount"), m.watchLog(t))
	if got := m.settle(t)["data"]; got.fate() != option || got.Context != shared {
		t.Errorf("%+v", got)
	}
	if log := m.watchLog(t); contains(log, "mounted again") || contains(log, "cannot") {
		t.Errorf("it was mounted without its label at first:\n%s", log)
	}
	m.expect(t, "who waited", "systemctl is-active docker.service; systemctl show -P Result selinux-provision-volume@data.service; stat -c %C /var/lib/data", "active\nsuccess\n"+shared)
	m.Must(t, `test "$(systemctl show -P InactiveExitTimestampMonotonic docker.service)" -gt "$(systemctl show -P ExecMainExitTimestampMonotonic selinux-provision-volume@data.service)"`)
	m.status(t, 0)
	t.Run("shared by labels", m.shareLabelled)
	m.status(t, 0)
}

// shareLabelled proves that with policy.shared_volumes two containers share a volume whose files are labelled: directories, files, links and
// sockets that one makes, the other may use; and that a private one stays its owner's, what is made in it included.
func (m *Machine) shareLabelled(t *testing.T) {
	m.dockerImage(t)
	m.Must(t, `mkdir -p /var/images /v/both /v/own; cd /var/images; for n in both own; do truncate -s 32M $n; mkfs.ext4 -q $n; mount -o loop $n /v/$n; done`)
	got := m.settle(t)
	if got["both"].fate() != files || got["own"].fate() != files || contains(m.watchLog(t), "will be its own") {
		t.Errorf("%+v\n%s", got, m.watchLog(t))
	}
	const sharedVolume, privateVolume, owner = "-v /v/both:/d", "-v /v/own:/d ", "--security-opt label=level:s0:c10,c20"
	m.allows(t, "A writes", sharedVolume, "mkdir /d/dir && echo a > /d/dir/f && busybox ln -s f /d/dir/link", "")
	m.allows(t, "B appends", sharedVolume, "echo b >> /d/dir/link && mkdir /d/dir/sub && echo c > /d/dir/sub/f", "")
	m.allows(t, "A reads back", sharedVolume, "cat /d/dir/f /d/dir/sub/f", "a\nb\nc")
	m.allows(t, "C writes into its own", privateVolume+owner, "mkdir /d/dir && echo c > /d/dir/f; cat /d/dir/f", "c")
	m.denies(t, "A in the volume of C", privateVolume, "cat /d/dir/f")
	m.denies(t, "D in the volume of C", privateVolume+"--security-opt label=level:s0:c30,c40", "cat /d/dir/f")
	m.denies(t, "A among the files of C", privateVolume, "ls /d")
	m.expect(t, "labels", "find /v/both /v/own -name lost+found -prune -o -exec stat -c %C {} + | sort | uniq -c | awk '{print $1, $2}'", "6 "+shared+"\n3 "+private)
}

const dataDisk = `variant: flatcar
version: 1.0.0
storage:
  filesystems:
    - device: /dev/disk/by-id/virtio-data
      format: ext4
      label: DATA
      path: /var/lib/data
      with_mount_unit: true
  files:
    - path: /etc/selinux-provision/config.d/50-volumes.yaml
      mode: 0644
      contents:
        inline: |
          version: 1
          policy:
            # What a container makes in a volume whose files are labelled, others may use.
            shared_volumes: true
          volumes:
            - name: data
              match: {mountpoint: /var/lib/data}
              # No context: the image's label for volumes, at the level that every container may use.
              required: true
            - {name: both, match: {mountpoint: /v/both}, strategy: relabel}
            - {name: own, match: {mountpoint: /v/own}, strategy: relabel, level: 's0:c10,c20'}
systemd:
  units:
    # What uses the volume waits for its label, and does not start without.
    - name: docker.service
      enabled: true
      dropins:
        - name: 10-data.conf
          contents: |
            [Unit]
            RequiresMountsFor=/var/lib/data
            Requires=selinux-provision-volume@data.service
            After=selinux-provision-volume@data.service
`

// mergeIgnition adds the entries of one config to the lists of another.
func mergeIgnition(config, more []byte) ([]byte, error) {
	var into, from map[string]map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(config, &into), json.Unmarshal(more, &from)); err != nil {
		return nil, err
	}
	for _, section := range []string{"storage", "systemd"} {
		for key, list := range from[section] {
			var a, b []json.RawMessage
			if err := json.Unmarshal(list, &b); err != nil {
				return nil, err
			}
			if have := into[section][key]; have != nil {
				if err := json.Unmarshal(have, &a); err != nil {
					return nil, err
				}
			}
			merged, err := json.Marshal(append(a, b...))
			if err != nil {
				return nil, err
			}
			into[section][key] = merged
		}
	}
	return json.Marshal(into)
}

// idle checks that a watcher that has nothing to do does nothing: what its threads did in a minute was no more than the Go runtime's own
// look around. Every two and a half minutes systemd's watchdog wants to hear of it, so of two minutes one is without that.
func (m *Machine) idle(t *testing.T) {
	t.Helper()
	const count = `cat /proc/$(systemctl show -P MainPID ` + watchUnit + `)/task/*/status | awk '/ctxt_switches/ {n += $2} END {print n}'`
	woke := 0
	for range 4 { // the Go runtime collects garbage every other minute, and after the boot timers go off
		var before, after int
		fmt.Sscan(m.Must(t, count), &before)
		m.Must(t, "sleep 60")
		fmt.Sscan(m.Must(t, count), &after)
		if woke = after - before; woke <= 4 {
			break
		}
	}
	t.Logf("context switches of the idle watcher in a minute: %d; memory: %s", woke,
		m.Must(t, "systemctl show -P MemoryCurrent "+watchUnit+"; grep VmRSS /proc/$(systemctl show -P MainPID "+watchUnit+")/status"))
	if woke > 4 {
		t.Errorf("the idle watcher woke up: %d context switches in a minute", woke)
	}
}

func (m *Machine) checkVolume(t *testing.T, s scenario, got map[string]volume) {
	t.Helper()
	v, found := got[s.name]
	if s.name == "tied" {
		v, found = got["tied-1, tied-2"]
	}
	if !found && s.want != "" || v.fate() != s.want {
		t.Errorf("%q, want %q: %+v", v.fate(), s.want, v)
	}
	if v.State != "labelled" && s.want != "" && (v.Reason == "" || v.Remedy == "") {
		t.Errorf("nobody knows why, or what to do: %+v", v)
	}
	point, label := "/v/"+s.name, s.label
	if label == "" {
		label = shared
	}
	switch {
	case label == "-":
	case v.How == "labelled files":
		m.expect(t, "files with another label", "find "+point+" ! -context '"+label+"'", "")
		fallthrough
	default:
		m.expect(t, "the labels of its files", "find "+point+" -exec stat -c %C {} + | sort -u", label)
	}
	if v.How == "context option" {
		m.expect(t, "the option", "findmnt -no OPTIONS "+point+" | grep -o 'context=[^ ]*:s0\\(:c[0-9]*\\(,c[0-9]*\\)*\\)*' | tr -d '\"'; findmnt -no OPTIONS "+point+" | grep -c seclabel || true",
			"context="+label+"\n0")
	}
}

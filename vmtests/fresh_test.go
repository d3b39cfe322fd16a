package vmtests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// fileConfig is an Ignition config that writes one file.
func fileConfig(path, content string) []byte {
	return fmt.Appendf(nil, `{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":%q,"mode":420,"contents":{"source":"data:;base64,%s"}}]}}`,
		path, base64.StdEncoding.EncodeToString([]byte(content)))
}

// TestFreshMachine proves that the machine which everything else starts from is the one that Flatcar gives: permissive, with a policy
// store that cannot be changed, and with audit rules that hide denials.
//
// Proves V1.
func TestFreshMachine(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{Ignition: fileConfig("/etc/from-ignition", "hello\n")})

	if got := m.Must(t, "getenforce"); got != "Permissive" {
		t.Errorf("getenforce says %s, want Permissive", got)
	}
	if got := m.Must(t, "sestatus | sed -n 's/^Loaded policy name: *//p'"); got != "mcs" {
		t.Errorf("the policy is %q, want mcs", got)
	}
	if got := m.Must(t, "cat /etc/from-ignition"); got != "hello" {
		t.Errorf("Ignition wrote %q, want hello", got)
	}
	if got := m.Must(t, "readlink /var/lib/selinux"); got != "../../usr/lib/selinux/policy" {
		t.Errorf("/var/lib/selinux points to %s", got)
	}
	if got := m.Must(t, "findmnt -no FSTYPE,VFS-OPTIONS /usr"); !strings.HasPrefix(got, "btrfs ro") {
		t.Errorf("/usr is %q, want a read-only Btrfs", got)
	}
	// A process that ends while ps looks at it is shown as "-".
	if got := m.Must(t, "ps -eo label= | grep -vx -- - | sort -u"); got != "system_u:system_r:kernel_t:s0" {
		t.Errorf("host processes run as %q, want kernel_t alone", got)
	}
	if got := m.Must(t, "stat -c %C /etc /etc/selinux/config"); got != "system_u:object_r:etc_t:s0\nsystem_u:object_r:selinux_config_t:s0" {
		t.Errorf("labels in /etc: %q", got)
	}
	if got := m.Must(t, "stat -c %C /usr/bin/bash /usr/lib/selinux"); got != "system_u:object_r:unlabeled_t:s0\nsystem_u:object_r:unlabeled_t:s0" {
		t.Errorf("labels in /usr: %q, want none", got)
	}

	if err := m.Put(t.Context(), "/root/new.cil", []byte("(type vmtest_new_t)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Not even the list works: libsemanage opens its lock file for writing.
	for _, command := range []string{"semodule -i /root/new.cil", "semodule -l"} {
		out, err := m.Run(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		if out.Exit == 0 || !strings.Contains(out.Stderr, "Read-only file system") {
			t.Errorf("%s on the vendor's store: exit code %d, %q; want a failure, it is read-only", command, out.Exit, out.Stderr)
		}
	}

	if got := m.Must(t, "auditctl -l"); strings.Count(got, "exclude") != 3 {
		t.Errorf("audit rules are %q, want the three that hide messages", got)
	}
	// The machine is permissive, so this transition works, and should be logged as denied.
	m.Must(t, "runcon system_u:system_r:container_t:s0:c1,c2 true")
	if got := m.Must(t, "journalctl -b --no-pager | grep -c 'avc:' || true"); got != "0" {
		t.Errorf("%s denials are in the journal; the vendor's audit rules should hide them all", got)
	}

	first := m.Must(t, "cat /etc/machine-id")
	m.Must(t, "rm /etc/from-ignition")
	if err := m.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := m.Must(t, "cat /etc/machine-id"); second != first {
		t.Errorf("the machine id changed from %s to %s", first, second)
	}
	if got := m.Must(t, "ls /etc/from-ignition 2>/dev/null || echo none"); got != "none" {
		t.Error("Ignition ran again on the second boot")
	}
}

// TestShell proves that the harness's own way into the guest is exact.
func TestShell(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{})

	out, err := m.Run(t.Context(), "printf 'a\\0b'; printf 'c\\n' >&2; exit 7")
	if err != nil || out.Stdout != "a\x00b" || out.Stderr != "c\n" || out.Exit != 7 {
		t.Errorf("got %+v, error %v", out, err)
	}
	if out, err = m.Run(t.Context(), "kill -9 $$"); err != nil || out.Exit != 137 {
		t.Errorf("a killed command gave %+v, error %v; want exit code 137", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := m.Run(ctx, "sleep 60"); err == nil {
		t.Error("a command went on beyond its deadline")
	}

	content := make([]byte, 10<<20)
	rand.NewChaCha8(sha256.Sum256(nil)).Read(content)
	start := time.Now()
	if err := m.Put(t.Context(), "/var/tmp/blob", content, 0o755); err != nil {
		t.Fatal(err)
	}
	put := time.Since(start)
	start = time.Now()
	back, err := m.Get(t.Context(), "/var/tmp/blob")
	if err != nil || !bytes.Equal(back, content) {
		t.Errorf("a file of %d bytes came back as %d bytes, error %v", len(content), len(back), err)
	}
	t.Logf("10 MB: put in %.1fs, got in %.1fs", put.Seconds(), time.Since(start).Seconds())
}

// TestSnapshot proves that a restored machine is the one of the snapshot: its memory, its disk, its shell, its clock.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{})
	m.Must(t, "echo before > /var/state; sync; echo before > /run/state")
	uptime := func() (seconds float64) {
		fmt.Sscan(m.Must(t, "cat /proc/uptime"), &seconds)
		return seconds
	}

	at, start := uptime(), time.Now()
	if err := m.Snapshot("here"); err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot taken in %.2fs", time.Since(start).Seconds())

	for _, off := range []bool{false, true} {
		m.Must(t, "echo after > /var/state; sync; echo after > /run/state; sleep 5")
		if off {
			m.PowerCut()
		}
		start = time.Now()
		if err := m.Restore(t.Context(), "here"); err != nil {
			t.Fatal(err)
		}
		t.Logf("restored in %.2fs (from a machine that was off: %v)", time.Since(start).Seconds(), off)
		if got := m.Must(t, "cat /var/state /run/state"); got != "before\nbefore" {
			t.Errorf("restored state is %q", got)
		}
		if gone := uptime() - at; gone > 5 {
			t.Errorf("the clock of the restored machine is %.1f seconds ahead", gone)
		}
	}
}

// TestPowerCut proves that what was flushed survives, and that the machine comes up again.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{})
	m.Must(t, "echo kept > /var/kept; sync")
	m.PowerCut()
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Must(t, "cat /var/kept"); got != "kept" {
		t.Errorf("after the power cut the file holds %q", got)
	}
}

// TestVerdict proves that the check which every scenario relies on can fail.
func TestVerdict(t *testing.T) {
	t.Parallel()
	m := StartCopy(t, "fresh", Options{})
	if err := m.Snapshot("clean"); err != nil {
		t.Fatal(err)
	}
	clean := func(t *testing.T) {
		t.Helper()
		if err := m.Restore(t.Context(), "clean"); err != nil {
			t.Fatal(err)
		}
		problems, err := m.Verdict(t.Context())
		if err != nil || len(problems) != 0 {
			t.Fatalf("a clean machine has problems %q, error %v", problems, err)
		}
	}
	for _, test := range []struct{ name, plant, want string }{
		{"denial", "auditctl -D && runcon system_u:system_r:container_t:s0:c1,c2 cat /etc/shadow && sleep 1", "avc:  denied"},
		{"failed unit", "! systemd-run --quiet --wait --unit=planted false", "failed unit: planted.service"},
		{"ordering cycle", `for n in 1 2; do printf '[Unit]\nAfter=planted%d.service\nRequires=planted%d.service\n[Service]\nExecStart=true\n' $((3-n)) $((3-n)) > /run/systemd/system/planted$n.service; done; systemctl daemon-reload; systemctl start planted1.service || true`, "rdering cycle"},
		{"console", "echo 'systemd[1]: Freezing execution.' > /dev/console", "console: systemd[1]: Freezing execution."},
	} {
		t.Run(test.name, func(t *testing.T) {
			clean(t)
			m.Must(t, test.plant)
			problems, err := m.Verdict(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(problems, "\n"), test.want) {
				t.Errorf("the verdict is %q, want %q in it", problems, test.want)
			}
		})
	}
	clean(t)
}

// TestLayouts proves that each layout looks in the guest as it does on the releases that had it, and that the stages bring it to the
// same good state, which lasts.
//
// Proves P6: the same on each layout.
// Proves V7: each layout.
func TestLayouts(t *testing.T) {
	t.Parallel()
	describe := `cd / && for p in etc/selinux/config etc/selinux/mcs etc/selinux/semanage.conf usr/lib/selinux/config usr/lib/selinux/mcs usr/lib/selinux/policy ` +
		`var/lib/selinux etc/audit/rules.d/80-selinux.rules; do echo "$p: $(stat -c %F $p)$(test -L $p && echo " $(readlink $p)")"; done; findmnt -no FSTYPE /etc || echo plain`
	const today = `etc/selinux/config: regular file
etc/selinux/mcs: directory
etc/selinux/semanage.conf: regular file
usr/lib/selinux/config: symbolic link ../../share/flatcar/etc/selinux/config
usr/lib/selinux/mcs: symbolic link ../../share/flatcar/etc/selinux/mcs
usr/lib/selinux/policy: directory
var/lib/selinux: symbolic link ../../usr/lib/selinux/policy
etc/audit/rules.d/80-selinux.rules: regular file
overlay`
	for layout, want := range map[Layout]string{
		LTS2023: `etc/selinux/config: symbolic link ../../usr/lib/selinux/config
etc/selinux/mcs: symbolic link ../../usr/lib/selinux/mcs
etc/selinux/semanage.conf: symbolic link ../../usr/lib/selinux/semanage.conf
usr/lib/selinux/config: regular file
usr/lib/selinux/mcs: directory
usr/lib/selinux/policy: directory
var/lib/selinux: symbolic link ../../usr/lib/selinux/policy
etc/audit/rules.d/80-selinux.rules: symbolic link ../../../usr/share/audit/rules.d/80-selinux.rules
plain`,
		SymlinkEra: `etc/selinux/config: symbolic link ../../usr/lib/selinux/config
etc/selinux/mcs: symbolic link ../../usr/lib/selinux/mcs
etc/selinux/semanage.conf: symbolic link ../../usr/lib/selinux/semanage.conf
usr/lib/selinux/config: regular file
usr/lib/selinux/mcs: directory
usr/lib/selinux/policy: directory
var/lib/selinux: symbolic link ../../usr/lib/selinux/policy
etc/audit/rules.d/80-selinux.rules: symbolic link ../../../usr/share/audit/rules.d/80-selinux.rules
overlay`,
		Today:   today,
		Confext: today,
	} {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			m := StartCopy(t, "fresh", Options{Layout: layout})
			if got := m.Must(t, describe); got != want {
				t.Errorf("the layout is\n%s\nwant\n%s", got, want)
			}
			if got := m.Must(t, "getenforce; sestatus | sed -n 's/^Loaded policy name: *//p'"); got != "Permissive\nmcs" {
				t.Errorf("SELinux is %q", got)
			}
			if layout == Today || layout == Confext {
				return // other tests go on from there
			}
			m.provision(t)
			m.goodState(t)
			m.reboot(t)
			m.unchanged(t)
			m.goodState(t)
		})
	}
}

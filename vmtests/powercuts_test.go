//go:build more

package vmtests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// holdUnit keeps a boot that is to be cut from going on, at the last moment before anything of ours runs. A file lets it go.
const holdUnit = `[Unit]
ConditionKernelCommandLine=vmtest.hold
DefaultDependencies=no
After=systemd-remount-fs.service
Before=selinux-provision-trial.service selinux-provision-stage-policystore.service sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'touch /run/vmtest-held; until test -e /run/vmtest-go; do sleep 0.1; done'
[Install]
WantedBy=sysinit.target
`

// held are the kernel's arguments of such a boot. What the journal gets goes to the console, too: after the cut it tells how far the boot had come.
func held() []string {
	return []string{"vmtest.hold", "systemd.journald.forward_to_console=1", "systemd.journald.max_level_console=info"}
}

// cutBoot is a kind of boot whose power is cut.
type cutBoot struct {
	name  string
	lasts time.Duration // from the moment when it is let go to its end, as a boot without a cut did
	check func(t *testing.T, m *Machine, phase string) string
}

// TestPowerCutsAtRandom cuts the power at random instants of a first boot, of the first boot with another OS image, and of a boot that enforces on trial:
// each from the moment on at which anything of ours runs. The next boot ends as the one that was cut would have, with all that the operator made by
// hand; a trial that was cut is given up, or, if nothing had begun, made by the next boot. VMTEST_CUTS says how many, VMTEST_SEED which.
//
// What was seen is in docs/torture.md.
//
// Proves P1: the power of a machine is cut at random instants of three kinds of boot.
// Proves P4: also while a boot is on trial.
func TestPowerCutsAtRandom(t *testing.T) {
	t.Parallel()
	number := func(variable string, otherwise uint64) uint64 {
		text := os.Getenv(variable)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return n
	}
	cuts, seed := number("VMTEST_CUTS", 50), number("VMTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("to have the same cuts again: VMTEST_CUTS=%d VMTEST_SEED=%d", cuts, seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it has to be given again
	shares := map[string][]float64{}
	for i := range cuts {
		kind := []string{"first", "update", "trial"}[i%3]
		shares[kind] = append(shares[kind], random.Float64())
	}

	Require(t)
	config, err := addToIgnition(example(t, "enforcing.bu"), map[string][]byte{modulesDir + "vmtest_good.cil": []byte(goodModule)}, map[string]string{"vmtest-hold.service": holdUnit})
	if err != nil {
		t.Fatal(err)
	}
	options := Options{Ignition: config, KernelArgs: held(), Allowed: []Allowed{
		{`selinux-provision-(guard|stage-enforce)\.service|Failed to start selinux-provision-…`, "a trial that was cut is not as declared"},
		{`avc: +denied +{ mac_admin } .*comm="systemd-tmpfile"`, "between the boot into the new image and the stages file_contexts names types that are gone"},
	}}
	m := startBooting(t, options)
	var results []string
	asDeclared := func(also string) func(*testing.T, *Machine, string) string {
		return func(t *testing.T, m *Machine, _ string) string {
			m.mode(t, "after the cut", "Enforcing", "enforcing", 0)
			m.wholeAfterCut(t, also)
			m.status(t, 0)
			m.nothingLeft(t)
			return "as declared"
		}
	}
	cut := func(b cutBoot) {
		for _, share := range shares[b.name] {
			after := time.Duration(share * float64(b.lasts))
			t.Run(fmt.Sprintf("%s/%s", b.name, after.Round(time.Millisecond)), func(t *testing.T) {
				m.restore(t, b.name)
				before := len(m.Console())
				m.Must(t, "touch /run/vmtest-go")
				time.Sleep(after)
				phase := reached(m.Console()[before:])
				m.PowerCut()
				if err := m.PowerOn(t.Context(), func(o *Options) { o.KernelArgs = nil }); err != nil {
					t.Fatal(err)
				}
				found := b.check(t, m, phase)
				t.Logf("cut %s; %s", phase, found)
				results = append(results, fmt.Sprintf("%-6s cut %-28s %s", b.name, phase, found))
				judge(t, m) // the console and the journal go with the next cut
			})
		}
	}
	// keep notes the machine where a boot is held, and how long that boot takes without a cut. The machine is as after it then.
	keep := func(name string, check func(*testing.T, *Machine, string) string) cutBoot {
		t.Helper()
		m.Must(t, "until test -e /run/vmtest-held; do sleep 0.1; done; sync") // what Ignition, or a shutdown, has written is none of ours
		if err := m.Snapshot(name); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		m.Must(t, "touch /run/vmtest-go; until test $(systemctl show -P ActiveState selinux-provision.target) = active; do sleep 1; done")
		b := cutBoot{name, time.Since(begin), check}
		t.Logf("%s: %s without a cut", name, b.lasts.Round(time.Millisecond))
		m.Must(t, "systemctl is-system-running --wait")
		return b
	}
	again := func(change func(*Options)) {
		t.Helper()
		if err := m.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		change(&m.options)
		if err := m.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.waitShell(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	first := keep("first", asDeclared(""))
	if len(shares["first"]) > 0 {
		cut(first)
		m.restore(t, "first")
		m.Must(t, "touch /run/vmtest-go; systemctl is-system-running --wait")
	}

	// What an operator makes by hand, before the update.
	m.put(t, "/root/vmtest_hand.cil", "(type vmtest_hand_t)\n(roletype object_r vmtest_hand_t)\n")
	m.Must(t, "semodule -X 300 -i /root/vmtest_hand.cil && setsebool -P container_use_samba on && echo mine > /etc/mine")
	const hand = "; semodule -l | grep -x vmtest_hand; getsebool container_use_samba; cat /etc/mine"
	if len(shares["update"]) > 0 {
		again(func(o *Options) { o.Suite, o.Layout, o.KernelArgs = Forky, Confext, held() })
		update := keep("update", asDeclared(hand))
		cut(update)
		m.restore(t, "update")
		m.Must(t, "touch /run/vmtest-go; systemctl is-system-running --wait")
	}

	if len(shares["trial"]) > 0 {
		m.put(t, guardFile, "version: 1\nenforce:\n  guard: {window: 5s}\n")
		m.Must(t, "sed -i 's/^mode: .*/mode: permissive/' "+configFile+" && /opt/bin/selinux-provision apply && sed -i 's/^mode: .*/mode: enforcing/' "+configFile+" && /opt/bin/selinux-provision apply")
		m.waitGuard(t, "armed")
		m.put(t, guardFile, "version: 1\nenforce:\n  guard: {window: 1h}\n")
		again(func(o *Options) { o.KernelArgs = held() })
		trial := keep("trial", func(t *testing.T, m *Machine, phase string) string {
			return m.afterCutTrial(t, hand, phase)
		})
		m.mode(t, "the boot on trial", "Enforcing", "permissive", 1)
		cut(trial)
	}
	slices.Sort(results)
	t.Logf("%d cuts with VMTEST_SEED=%d:\n%s", len(results), seed, strings.Join(results, "\n"))
}

// afterCutTrial checks the boot after one on trial that was cut: permissive and given up, or, where the cut came before anything of ours, on trial itself.
func (m *Machine) afterCutTrial(t *testing.T, also, phase string) string {
	t.Helper()
	m.wholeAfterCut(t, also)
	if m.Must(t, "getenforce") == "Enforcing" {
		m.mode(t, "on trial again", "Enforcing", "permissive", 1)
		m.Must(t, "systemctl is-active selinux-provision-guard.service")
		if strings.Contains(phase, "stage") {
			t.Errorf("the boot was cut %s, and the next one is on trial again", phase)
		}
		return "on trial"
	}
	// The stage that enforces writes down that the boot on trial came as far as that.
	reason := "did not get as far as the enforce stage"
	if phase == "after stage-enforce" || strings.HasSuffix(phase, "guard") || phase == "in stage-enforce" && !contains(m.status(t, 3).problems(), reason) {
		reason = "by a crash, a reset or a power cut"
	}
	m.givenUp(t, "after the cut", reason)
	return "permissive, given up: " + reason
}

// wholeAfterCut checks what no cut may break: a policy that loads, which is the one that was built with all that was declared and made by hand, and
// nothing left of what was under way.
func (m *Machine) wholeAfterCut(t *testing.T, also string) {
	t.Helper()
	want := "PID 1 loads what was built\nvmtest_good"
	if also != "" {
		want += "\nvmtest_hand\ncontainer_use_samba --> on\nmine"
	}
	m.expect(t, "after the cut", `for f in /etc/selinux/mcs/policy/policy.*; do cmp $f /var/lib/selinux/mcs/active/policy.kern && echo "PID 1 loads what was built"; done
semodule -l | grep -x vmtest_good`+also+`
find /var/lib/selinux/mcs/tmp /var/lib/selinux/mcs/previous /var/lib/.selinux-provision* /var/lib/selinux-provision/transaction 2>/dev/null || true`, want)
}

// nothingLeft checks that there is nothing left to do.
func (m *Machine) nothingLeft(t *testing.T) {
	t.Helper()
	if got := m.Must(t, "/opt/bin/selinux-provision apply"); strings.Count(got, "nothing to do") != 4 {
		t.Errorf("the next apply does something:\n%s", got)
	}
}

// reached reads from the console of a boot how far it has come.
func reached(console string) string {
	lines := regexp.MustCompile(`(Starting|Finished) selinux-provision-(stage-)?([a-z]+)\.service`).FindAllStringSubmatch(console, -1)
	if len(lines) == 0 {
		return "before anything"
	}
	last := lines[len(lines)-1]
	if last[1] == "Starting" {
		return "in " + last[2] + last[3]
	}
	return "after " + last[2] + last[3]
}

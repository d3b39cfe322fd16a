//go:build more

package vmtests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBootDelay measures what the units cost a boot on which everything is as declared: the same machine boots with them and without, in turns. What
// they delay is within what two boots without them differ by. Beside other work the boots differ by more; the numbers are logged.
func TestBootDelay(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	files, err := filepath.Glob(filepath.Join(RepositoryRoot(), "units", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	var masked []string
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasSuffix(name, ".d") {
			masked = append(masked, "systemd.mask="+name)
		}
	}
	const rounds = 6
	took := map[bool][]float64{} // seconds from PID 1's start in the host to multi-user.target, by whether our units ran
	for range rounds {
		for _, ours := range []bool{true, false} {
			m.reboot(t, func(o *Options) {
				if o.KernelArgs = nil; !ours {
					o.KernelArgs = masked
				}
			})
			m.expect(t, "whether the stages ran", "systemctl show -P ActiveState selinux-provision-stage-enforce.service; getenforce", map[bool]string{true: "active", false: "inactive"}[ours]+"\nEnforcing")
			var begun, reached float64
			if _, err := fmt.Sscan(m.Must(t, "systemctl show -P UserspaceTimestampMonotonic; systemctl show -P ActiveEnterTimestampMonotonic multi-user.target"), &begun, &reached); err != nil {
				t.Fatal(err)
			}
			took[ours] = append(took[ours], (reached-begun)/1e6)
		}
	}
	for ours := range took {
		slices.Sort(took[ours])
	}
	with, without := took[true], took[false]
	delay, noise := with[rounds/2]-without[rounds/2], without[rounds-1]-without[0]
	t.Logf("to multi-user.target: %.2f s with the units (%.2f to %.2f), %.2f s without (%.2f to %.2f): a delay of %.2f s, and boots without differ by %.2f s",
		with[rounds/2], with[0], with[rounds-1], without[rounds/2], without[0], without[rounds-1], delay, noise)
	if delay > noise {
		t.Error("the units delay the boot by more than two boots without them differ")
	}
	reboot := func(o *Options) { o.KernelArgs = nil }
	m.reboot(t, reboot)
	m.status(t, 0)
}

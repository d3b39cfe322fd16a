//go:build more

package vmtests

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestCacheOfDecisions shows what a thousand levels, as those of the containers of a full host, do to the kernel's cache of decisions: at its own size
// nearly everything that it keeps has gone before it is needed again, and a larger one keeps it. The numbers are logged; those in the operator's guide are
// of such a run.
func TestCacheOfDecisions(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.sendCommand(t, "categories", "/root/categories")
	m.Must(t, "mkdir /run/files && for n in $(seq 20); do echo x > /run/files/$n; done")
	type cost struct{ Reads, Nanoseconds, Lookups, Misses, Reclaims float64 }
	measure := func(threshold, levels int) (c cost) {
		out := m.Must(t, fmt.Sprintf("echo %d > /sys/fs/selinux/avc/cache_threshold && /root/categories %d %d /run/files/*", threshold, levels, 1000/levels))
		if err := json.Unmarshal([]byte(out), &c); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		t.Logf("threshold %5d, %4d levels: %.1f us for each read, %.2f %% of %.0f decisions were not there, %.0f had to go", threshold, levels,
			c.Nanoseconds/c.Reads/1000, 100*c.Misses/c.Lookups, c.Lookups, c.Reclaims)
		return c
	}
	few := measure(512, 10)
	full := measure(512, 1000)
	larger := measure(4096, 1000)
	large := measure(16384, 1000)
	if few.Misses > few.Lookups/100 {
		t.Errorf("ten levels have no room: %+v", few)
	}
	if full.Misses < 20*large.Misses || full.Reclaims < 10*large.Reclaims+1000 {
		t.Errorf("a thousand levels cost at the kernel's own size %+v, with %+v in a cache that holds them", full, large)
	}
	if larger.Misses > full.Misses {
		t.Errorf("more room is no help: %+v, and before %+v", larger, full)
	}
	m.Must(t, "echo 512 > /sys/fs/selinux/avc/cache_threshold")
}

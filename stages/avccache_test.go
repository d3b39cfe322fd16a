package stages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/plan"
)

const (
	// The file that stands in for the kernel is not cut off when it is written, so all numbers are of three digits.
	cached     = "version: 1\nmode: permissive\nkernel: {avc_cache_threshold: 768}\n"
	cacheFile  = kernelDir + "/avc/cache_threshold"
	cacheStats = "lookups hits misses allocations reclaims frees\n1000 990 10 10 4 4\n1000 980 20 20 6 6\n"
)

// policyStage is a boot's policy stage, on a kernel that begins with its own threshold.
func (c *computer) policyStage(boot bool) Result {
	c.t.Helper()
	if boot {
		c.tree.Write(cacheFile, "512")
		c.tree.Write(kernelDir+"/avc/cache_stats", cacheStats)
		c.tree.Write(kernelDir+"/avc/hash_stats", "entries: 509\nbuckets used: 318/512\nlongest chain: 6\n")
		c.on()
	}
	results, err := c.host.Run(c.t.Context(), []string{"policy"}, false)
	if err != nil {
		c.t.Fatal(err)
	}
	return results[0]
}

func (c *computer) threshold() string {
	c.t.Helper()
	content, err := os.ReadFile(filepath.Join(c.tree.Dir, cacheFile))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(content)
}

// The threshold is set in each boot, once, with nothing written on the disk but at the first time; it follows the declaration, and goes back when it
// is not declared any more.
//
// Proves P6: what the kernel forgets with each boot.
func TestCacheThreshold(t *testing.T) {
	t.Parallel()
	const config = "etc/selinux-provision/config.yaml"
	c := newComputer(t, cached)
	record := func() string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(c.tree.Dir, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(c.tree.Dir, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime().String() + string(content)
	}
	is := func(when string, r Result, outcome Outcome, want string) {
		t.Helper()
		if got := c.threshold(); r.Outcome != outcome || got != want {
			t.Errorf("%s: %s, the threshold is %s; want %s, %s: %+v", when, r.Outcome, got, outcome, want, r)
		}
	}
	r := c.policyStage(true)
	is("the first boot", r, Changed, "768")
	if len(r.Done) != 1 || r.Done[0].Target != "/sys/fs/selinux/avc/cache_threshold" || r.Done[0].Reason != "it is 512 in this boot" || r.Done[0].Result != "768 entries" {
		t.Errorf("%+v", r.Done)
	}
	is("once more", c.policyStage(false), Unchanged, "768")
	before := record()
	is("the second boot", c.policyStage(true), Changed, "768")
	if got := record(); got != before {
		t.Errorf("the second boot wrote on the disk:\n%s\n%s", before, got)
	}
	status, err := c.host.Status(t.Context())
	if err != nil || status.Cache == nil || status.Cache.Threshold != 768 || status.Cache.Declared != 768 || status.Cache.Stats == nil || status.Cache.Stats.Reclaims != 10 || status.Cache.MissPercent() != 1.5 {
		t.Errorf("%+v, %v", status.Cache, err)
	}

	c.tree.Write(cacheFile, "600")
	if got := c.problems(); !strings.Contains(got, "stage policy would set /sys/fs/selinux/avc/cache_threshold: it is 600 in this boot: run: selinux-provision apply") {
		t.Errorf("status says %s", got)
	}
	is("somebody else set it", c.policyStage(false), Changed, "768")
	c.tree.Write(config, strings.Replace(cached, "768", "640", 1))
	is("another number", c.policyStage(false), Changed, "640")
	c.tree.Write(config, "version: 1\nmode: permissive\n")
	is("declared no more", c.policyStage(false), Changed, "512")
	is("and once more", c.policyStage(false), Unchanged, "512")
	c.tree.Write(cacheFile, "600")
	is("what somebody else sets is left", c.policyStage(false), Unchanged, "600")

	c.tree.Write(config, cached)
	is("declared again", c.policyStage(true), Changed, "768")
	c.tree.Write(config, "version: 1\nmode: permissive\n")
	is("declared no more, and a boot", c.policyStage(true), Unchanged, "512")

	c.tree.Write(config, cached)
	is("and again", c.policyStage(true), Changed, "768")
	dry, err := c.host.Revert(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	var planned []plan.Step
	for _, s := range dry.Planned {
		if s.Target == "/sys/fs/selinux/avc/cache_threshold" {
			planned = append(planned, s)
		}
	}
	if len(planned) != 1 {
		t.Fatalf("revert would do %+v", dry.Planned)
	}
	if _, err := planned[0].Do(t.Context()); err != nil || c.threshold() != "512" {
		t.Errorf("%v, the threshold is %s", err, c.threshold())
	}
}

// A kernel that does not take the threshold is a problem that is said, and no reason to do without the policy.
func TestCacheThresholdRefused(t *testing.T) {
	t.Parallel()
	c := newComputer(t, cached)
	c.on()
	for name, prepare := range map[string]func(){
		"has none":      func() {},
		"says nonsense": func() { c.tree.Link("/dev/zero", cacheFile) },
		"does not obey": func() { c.tree.Link("/proc/sys/kernel/ngroups_max", cacheFile) }, // not even root writes it
	} {
		prepare()
		r := c.policyStage(false)
		if r.Outcome != Partly || len(r.Problems) != 1 || !strings.HasPrefix(r.Problems[0].Problem, "kernel.avc_cache_threshold is 768, and the kernel has not taken it: cannot ") {
			t.Errorf("%s: %+v", name, r)
		}
		if got := LoadState(c.host.Root); got.InProgress != "" || got.Cache != nil {
			t.Errorf("%s: the record says %+v", name, got)
		}
		if got := c.problems(); !strings.Contains(got, "kernel.avc_cache_threshold is 768, and the kernel has not taken it: cannot ") &&
			!strings.Contains(got, "stage policy would set /sys/fs/selinux/avc/cache_threshold: it is 65536 in this boot") {
			t.Errorf("%s: status says %s", name, got)
		}
	}
}

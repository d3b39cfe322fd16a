package stages

import (
	"context"
	"fmt"
	"strconv"

	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// CacheSetting is what was made of the kernel's cache of decisions. The kernel forgets it with each boot.
type CacheSetting struct {
	// Threshold was set, Before is what stood there before it was declared.
	Threshold int `json:"threshold"`
	Before    int `json:"before"`
}

// CacheStatus describes the kernel's cache of decisions, the access vector cache (AVC).
type CacheStatus struct {
	Threshold int `json:"threshold"`          // entries, above which some are given up for each that is new
	Declared  int `json:"declared,omitempty"` // kernel.avc_cache_threshold; absent if it is not declared
	// Stats are absent if the kernel does not count.
	Stats *kernel.CacheStats `json:"stats,omitempty"`
	// ReclaimsPerSecond is the rate of entries that had to go, on average since the boot.
	ReclaimsPerSecond float64 `json:"reclaims_per_second"`
}

// MissPercent gives how many of a hundred decisions were not in the cache; 0 if nothing can be said.
func (c *CacheStatus) MissPercent() float64 {
	if c.Stats == nil || c.Stats.Lookups == 0 || c.Stats.Misses > c.Stats.Lookups {
		return 0
	}
	return 100 * float64(c.Stats.Misses) / float64(c.Stats.Lookups)
}

// Costs tells whether the cache is too small for what the host does: more than two of a hundred decisions have to be made anew, and entries go all the
// time.
func (c *CacheStatus) Costs() bool {
	const percent, perSecond = 2, 100
	return c.MissPercent() >= percent && c.ReclaimsPerSecond >= perSecond
}

// planCache makes the kernel's cache of decisions as large as declared, in each boot, and as it was where that is not declared any more.
func (r *run) planCache() plan.Plan {
	want, last := r.declared.AVCCacheThreshold, r.state.Cache
	if r.Kernel == nil || want == 0 && last == nil {
		return nil
	}
	now, err := r.Kernel.CacheThreshold()
	switch {
	case err != nil: // the check says so; the policy does not depend on it
		return nil
	case want == 0 && (now != last.Threshold || now == last.Before):
		return plan.Plan{r.recordCache(nil)}
	case want == 0:
		return plan.Plan{r.setCache(now, last.Before, "it is not declared any more", nil)}
	case now != want:
		next := &CacheSetting{Threshold: want, Before: now}
		if last != nil {
			next.Before = last.Before
		}
		return plan.Plan{r.setCache(now, want, fmt.Sprintf("it is %d in this boot", now), next)}
	case last != nil && last.Threshold != want:
		return plan.Plan{r.recordCache(&CacheSetting{Threshold: want, Before: last.Before})}
	}
	return nil
}

// setCache is the step that changes the threshold. That it fails is no reason to take a policy back: the check says it.
func (r *run) setCache(from, to int, reason string, next *CacheSetting) plan.Step {
	return plan.Step{Action: "set", Target: kernel.CacheThresholdFile, Reason: reason, Volatile: true,
		Do:   func(context.Context) (string, error) { return r.tryCache(to, next), nil },
		Undo: func(context.Context) error { return r.Kernel.SetCacheThreshold(from) },
	}
}

// tryCache changes the threshold, and says what came of it.
func (r *run) tryCache(to int, next *CacheSetting) string {
	if r.cacheError = r.Kernel.SetCacheThreshold(to); r.cacheError != nil {
		return "it stays as it is: " + r.cacheError.Error()
	}
	r.state.Cache = next
	return strconv.Itoa(to) + " entries"
}

func (r *run) recordCache(next *CacheSetting) plan.Step {
	return plan.Step{Action: "record", Target: stateFile, Reason: "what is to be set back is known by it", Quiet: true,
		Do: func(context.Context) (string, error) {
			r.state.Cache = next
			return "recorded", nil
		},
	}
}

// checkCache says that the cache is not as declared.
func (r *run) checkCache() []Problem {
	want := r.declared.AVCCacheThreshold
	if r.Kernel == nil || want == 0 {
		return nil
	}
	now, err := r.Kernel.CacheThreshold()
	if err == nil && now == want {
		return nil
	}
	if err == nil {
		err = r.cacheError
	}
	problem := fmt.Sprintf("kernel.avc_cache_threshold is %d, and the kernel has not taken it", want)
	if err != nil {
		problem += ": " + err.Error()
	}
	return []Problem{{problem, "see dmesg, then run: selinux-provision stage policy; everything else is applied"}}
}

// cacheStatus tells how the cache fares; nil where nothing can be said.
func (h *Host) cacheStatus(declared int) *CacheStatus {
	if h.Kernel == nil {
		return nil
	}
	threshold, err := h.Kernel.CacheThreshold()
	if err != nil {
		return nil
	}
	s := &CacheStatus{Threshold: threshold, Declared: declared}
	if stats, known, err := h.Kernel.CacheStats(); known && err == nil {
		s.Stats = &stats
		if h.Uptime != nil {
			if uptime, err := h.Uptime(); err == nil && uptime > 0 {
				s.ReclaimsPerSecond = float64(stats.Reclaims) / uptime.Seconds()
			}
		}
	}
	return s
}

// revertCache is the step that sets the threshold back.
func (r *run) revertCache() plan.Plan {
	last := r.state.Cache
	if r.Kernel == nil || last == nil || last.Threshold == last.Before {
		return nil
	}
	if now, err := r.Kernel.CacheThreshold(); err != nil || now != last.Threshold {
		return nil // nothing of ours is in force
	}
	return plan.Plan{r.setCache(last.Threshold, last.Before, "the vendor's machine is wanted", nil)}
}

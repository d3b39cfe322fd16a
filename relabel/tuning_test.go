package relabel

import (
	"runtime"
	"testing"
	"time"
)

// TestTuner shows the tuner what workers do in each tick, and looks at how many it wants.
func TestTuner(t *testing.T) {
	cpus := min(runtime.NumCPU(), 2)
	full := time.Duration(cpus) * tick
	type ticks struct {
		n      int
		cpu    time.Duration // of each tick
		blocks int64
		rate   func(workers int) int64 // entries of a tick
		want   int                     // workers afterwards
	}
	same := func(int) int64 { return 100 }
	none := func(int) int64 { return 0 }
	each := func(workers int) int64 { return int64(workers) }
	for _, c := range []struct {
		name  string
		fixed bool
		steps []ticks
	}{
		{"processors that are busy", false, []ticks{{100, full, 0, same, cpus}}},
		{"processors that are busy, and blocks are read", false, []ticks{{100, full, 64, same, cpus}}},
		{"a time that is told late", false, []ticks{{window - 1, 0, 0, same, cpus}, {1, full * window, 0, same, cpus}, {window, full, 0, same, cpus}}},
		{"a disk that is waited for", false, []ticks{{1, tick / 10, 8, same, mostWorkers}}},
		{"a journal that is written back", false, []ticks{{window, full, 0, same, cpus}, {100, tick / 10, 0, none, cpus}, {window, full, 0, same, cpus}}},
		{"a server that answers many at once", false, []ticks{
			{window, tick / 10, 0, each, cpus * growth},
			{2 * window, tick / 10, 0, each, min(cpus*growth*growth, mostWorkers)},
			{100, tick / 10, 0, each, mostWorkers}}},
		{"a server that answers one after the other", false, []ticks{
			{window, tick / 10, 0, same, cpus * growth},
			{window, tick / 10, 0, same, cpus},
			{window * patience, tick / 10, 0, same, cpus},
			{window, tick / 10, 0, same, cpus * growth}}},
		{"a number that was asked for", true, []ticks{{100, tick / 10, 8, same, cpus}, {100, tick / 10, 0, each, cpus}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := usage{at: time.Now()}
			tune := tuner{workers: cpus, most: mostWorkers, enough: mostWorkers, fixed: c.fixed, before: now}
			tune.begin()
			var seen int64
			for i, step := range c.steps {
				for range step.n {
					now.at = now.at.Add(tick)
					now.cpu += step.cpu
					now.blocks += step.blocks
					seen += step.rate(tune.workers)
					tune.workers = tune.step(now, seen)
				}
				if tune.workers != step.want {
					t.Errorf("after step %d: %d workers, want %d", i+1, tune.workers, step.want)
				}
			}
		})
	}
}

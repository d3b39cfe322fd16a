package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
)

const (
	guarded = `version: 1
mode: enforcing
enforce:
  guard: {window: 1m, units: [docker.service]}
`
	// kernelDir and bootFile stand in for the running kernel in a tree. They are not part of what a boot keeps.
	kernelDir = "run/selinuxfs"
	bootFile  = "run/boot_id"
)

// hostWithKernel gives a host beneath a tree whose kernel is two files.
func hostWithKernel(t *testing.T, dir string) *Host {
	t.Helper()
	h := host(t, &flatcartest.Tree{Dir: dir})
	var err error
	if h.Kernel, err = kernel.OpenAt(filepath.Join(dir, kernelDir)); err != nil {
		t.Fatal(err)
	}
	opened := h.Kernel
	t.Cleanup(func() { opened.Close() })
	boot, err := os.ReadFile(filepath.Join(dir, bootFile))
	if err != nil {
		t.Fatal(err)
	}
	h.Boot = string(boot)
	h.LockWait = time.Second
	return h
}

// computer is a tree that boots. Its systemd knows one unit, and its clock is that of the test.
type computer struct {
	t       *testing.T
	tree    *flatcartest.Tree
	boots   int
	booted  time.Time
	watched bool
	mu      sync.Mutex // what breaks in the middle of a window breaks in a goroutine of its own
	docker  systemd.UnitState
	going   bool // down
	lost    error
	host    *Host
}

// newComputer gives a machine whose stages before enforce have run. It has not booted.
func newComputer(t *testing.T, config string) *computer {
	t.Helper()
	return computerOn(t, flatcartest.New(t, flatcartest.Today), config)
}

// computerOn is newComputer on a fresh tree.
func computerOn(t *testing.T, tree *flatcartest.Tree, config string) *computer {
	t.Helper()
	tree.Write("etc/selinux-provision/config.yaml", config)
	if _, err := hostOf(t, tree).Run(context.Background(), []string{"policystore", "policy", "audit"}, false); err != nil {
		t.Fatal(err)
	}
	return &computer{t: t, tree: tree}
}

// on is the boot as PID 1 and the kernel see it: the mode comes from the file.
func (c *computer) on() {
	c.t.Helper()
	c.boots++
	c.booted, c.watched, c.going, c.lost = time.Now(), false, false, nil
	c.docker = systemd.UnitState{Name: "docker.service", Load: "loaded", Active: "active", Sub: "running"}
	value := "0"
	if c.config().Mode == "enforcing" {
		value = "1"
	}
	c.tree.Write(kernelDir+"/enforce", value)
	c.tree.Write(kernelDir+"/policyvers", "33")
	os.Remove(filepath.Join(c.tree.Dir, watchDir)) // /run is empty
	c.tree.Write(bootFile, "boot"+strconv.Itoa(c.boots))
	c.host = hostWithKernel(c.t, c.tree.Dir)
	c.host.Uptime = func() (time.Duration, error) { return time.Since(c.booted), nil }
	c.host.StartUnit = func(_ context.Context, unit string) error {
		if unit != WatchUnit {
			c.t.Errorf("%s is started", unit)
		}
		c.watched = true
		return c.host.Root.MkdirAll(watchDir, 0o755)
	}
	c.host.Units = func(_ context.Context, names ...string) ([]systemd.UnitState, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		states := []systemd.UnitState{}
		for _, name := range names {
			switch {
			case c.lost != nil:
				return nil, c.lost
			case name == "docker.service":
				states = append(states, c.docker)
			case name == WatchUnit && c.watched:
				states = append(states, systemd.UnitState{Name: name, Load: "loaded", Active: "active"})
			case name == WatchUnit:
				states = append(states, systemd.UnitState{Name: name, Load: "loaded", Active: "inactive"})
			default:
				states = append(states, systemd.UnitState{Name: name, Load: "not-found", Active: "inactive"})
			}
		}
		return states, nil
	}
	c.host.Stopping = func(context.Context) (bool, error) { return c.going, nil }
}

// boot is on, the unit that marks the boot early, and the stage.
func (c *computer) boot() Result {
	c.t.Helper()
	c.on()
	if _, err := BeginBoot(c.host.Root); err != nil {
		c.t.Fatal(err)
	}
	return c.enforce()
}

func (c *computer) enforce() Result {
	c.t.Helper()
	results, err := c.host.Run(context.Background(), []string{"enforce"}, false)
	if err != nil {
		c.t.Fatal(err)
	}
	return results[0]
}

func (c *computer) config() seconfig.Config {
	c.t.Helper()
	f, err := os.Open(filepath.Join(c.tree.Dir, seconfig.Path))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	config, err := seconfig.Parse(f)
	if err != nil {
		c.t.Fatal(err)
	}
	return config
}

// is checks the phase, the kernel and the file.
func (c *computer) is(when string, phase Phase, enforcing bool, config string) {
	c.t.Helper()
	got := none
	if trial := LoadState(c.host.Root).Guard; trial != nil {
		got = trial.Phase
	}
	on, err := c.host.Kernel.Enforcing()
	if err != nil {
		c.t.Fatal(err)
	}
	text := c.config().Mode
	if c.config().Trial {
		text += "*"
	}
	if got != phase || on != enforcing || text != config {
		c.t.Errorf("%s: phase %q, enforcing %v, file %s; want %q, %v, %s", when, string(got), on, text, string(phase), enforcing, config)
	}
}

// watch runs the watch to its end, in the test's own time.
func (c *computer) watch(ctx context.Context) {
	c.t.Helper()
	if !c.watched {
		c.t.Error("nobody started the watch")
	}
	if err := c.host.Watch(ctx, func(string, bool) {}); err != nil && ctx.Err() == nil {
		c.t.Fatal(err)
	}
	c.watched = false
}

func (c *computer) problems() string {
	status, err := c.host.Status(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	var lines []string
	for _, p := range status.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// TestGuardPasses is the whole way of a host that stays well: the trial, the boot that proves itself, and boots with nothing to do.
//
// Proves P4.
func TestGuardPasses(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	synctest.Test(t, func(t *testing.T) {
		if r := c.boot(); r.Outcome != Changed || len(r.Problems) > 0 {
			t.Errorf("%+v", r)
		}
		c.is("first boot", TrialWatched, true, "permissive")
		if got := c.problems(); !strings.Contains(got, "enforcing is on trial: the next boot is permissive until the window has passed, 1m0s left: wait") {
			t.Errorf("status says %s", got)
		}
		if r := c.enforce(); r.Outcome != Unchanged {
			t.Errorf("the stage again: %+v", r)
		}
		begin := time.Now()
		c.watch(t.Context())
		if took := time.Since(begin); took < time.Minute || took > time.Minute+lookInterval {
			t.Errorf("the window took %s", took)
		}
		c.is("after the window", TrialArmed, true, "enforcing*")
		if got := c.problems(); got != "" {
			t.Errorf("status says %s", got)
		}
		if r := c.enforce(); r.Outcome != Unchanged {
			t.Errorf("the stage after the window: %+v", r)
		}

		c.boot()
		c.is("the boot that proves itself", TrialProving, true, "permissive*")
		c.watch(t.Context())
		c.is("proven", TrialSettled, true, "enforcing")

		before := snapshot(t, c.tree.Dir, "/run")
		if r := c.boot(); r.Outcome != Unchanged {
			t.Errorf("a later boot: %+v", r)
		}
		c.is("a later boot", TrialSettled, true, "enforcing")
		compare(t, "a later boot", snapshot(t, c.tree.Dir, "/run"), before)

		// The mode is declared to be kept without a trial, or not at all: nothing of the trial stays.
		c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "enforcing", "permissive", 1))
		c.enforce()
		c.is("permissive is declared", none, false, "permissive")

		c.tree.Write("etc/selinux-provision/config.yaml", guarded)
		c.enforce()
		c.watch(t.Context())
		c.is("again", TrialArmed, true, "enforcing*")
		c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "enforcing", "unmanaged", 1))
		c.enforce()
		c.is("nothing is declared", none, true, "enforcing")
	})
}

// TestGuardFails breaks a host in the middle of each window.
//
// Proves P4.
func TestGuardFails(t *testing.T) {
	t.Parallel()
	type breakage struct {
		name   string
		do     func(c *computer)
		reason string
	}
	for _, b := range []breakage{
		{"unit", func(c *computer) { c.docker.Active, c.docker.Result = "failed", "exit-code" }, "docker.service failed (exit-code)"},
		{"flapping", func(c *computer) { c.docker.Restarts += 2 }, "docker.service does not stay up"},
		{"gone", func(c *computer) { c.docker.Active, c.docker.Sub = "inactive", "dead" }, "docker.service is not running at the end of the window"},
		{"bus", func(c *computer) { c.lost = errors.New("no answer") }, "the host could not be looked at 5 times in a row"},
		{"setenforce 0", func(c *computer) { c.tree.Write(kernelDir+"/enforce", "0") }, "somebody switched the kernel to permissive"},
		{"preflight", func(c *computer) {
			for _, name := range []string{"etc/selinux/mcs/policy/policy.33", "etc/selinux/mcs/policy/policy.34", "etc/selinux/mcs/policy/policy.35"} {
				os.Remove(filepath.Join(c.tree.Dir, name))
			}
		}, "PID 1 would find no policy"},
	} {
		for _, window := range []Phase{TrialWatched, TrialProving} {
			t.Run(b.name+"/"+string(window), func(t *testing.T) {
				c := newComputer(t, guarded)
				synctest.Test(t, func(t *testing.T) {
					c.boot()
					if window == TrialProving {
						c.watch(t.Context())
						c.boot()
					}
					begin := time.Now()
					time.AfterFunc(10*time.Second, func() {
						c.mu.Lock()
						defer c.mu.Unlock()
						b.do(c)
					})
					c.watch(t.Context())
					c.is("broken", TrialFailed, false, "permissive")
					if took := time.Since(begin); b.name == "unit" && took > 12*time.Second {
						t.Errorf("it took %s to see it", took)
					}
					if trial := LoadState(c.host.Root).Guard; !strings.Contains(trial.Reason, b.reason) {
						t.Errorf("the reason is %q", trial.Reason)
					}
					if b.name == "preflight" {
						return
					}
					c.lost = nil
					for range 2 {
						r := c.enforce()
						if r.Outcome != Partly || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].String(), b.reason) {
							t.Errorf("the stage says %+v", r)
						}
						c.is("not tried again", TrialFailed, false, "permissive")
						c.boot()
					}
					if got := c.problems(); !strings.Contains(got, b.reason) || !strings.Contains(got, "--retry-guard") {
						t.Errorf("status says %s", got)
					}
					c.host.RetryGuard = true
					c.enforce()
					c.is("the operator says so", TrialWatched, true, "permissive")
				})
			})
		}
	}
}

// TestGuardFailsAndChanges begins another trial when the declaration changes, and not before.
//
// Proves P4.
func TestGuardFailsAndChanges(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	synctest.Test(t, func(t *testing.T) {
		c.boot()
		c.docker.Active = "failed"
		c.watch(t.Context())
		c.is("failed", TrialFailed, false, "permissive")
		c.tree.Write("etc/selinux-provision/config.yaml", "# a comment changes nothing\n"+guarded)
		c.boot()
		c.is("a comment", TrialFailed, false, "permissive")
		c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "1m", "2m", 1))
		c.boot()
		c.is("another window", TrialWatched, true, "permissive")
	})
}

// TestGuardDoesNotBegin refuses a trial that could not be judged, or that would judge what was broken before.
//
// Proves P4.
func TestGuardDoesNotBegin(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	c.boot() // to have a host
	if err := c.host.Root.Remove(stateFile); err == nil {
		c.tree.Write(kernelDir+"/enforce", "0")
	}
	if _, err := host(t, c.tree).Run(context.Background(), []string{"policystore", "policy", "audit"}, false); err != nil {
		t.Fatal(err)
	}
	for want, do := range map[string]func(){
		"there is no unit typo.service: correct enforce.guard.units (/etc/selinux-provision/config.yaml:4)": func() {
			c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "docker", "typo", 1))
		},
		"docker.service has failed already": func() {
			c.tree.Write("etc/selinux-provision/config.yaml", guarded)
			c.docker.Active = "failed"
		},
		"cannot start": func() {
			c.tree.Write("etc/selinux-provision/config.yaml", guarded)
			c.docker.Active = "active"
			c.watched = false
			c.host.StartUnit = func(context.Context, string) error { return errors.New("cannot start it") }
		},
	} {
		do()
		if r := c.enforce(); r.Outcome != Failed || !strings.Contains(r.Error, want) {
			t.Errorf("%+v, want %s", r, want)
		}
		c.is(want, none, false, "permissive")
	}
}

// TestGuardSeesAnEarlyFailure: in the boot that is to prove itself, a unit has failed before the stage and the watch come.
//
// Proves P4.
func TestGuardSeesAnEarlyFailure(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	synctest.Test(t, func(t *testing.T) {
		c.boot()
		c.watch(t.Context())
		c.is("armed", TrialArmed, true, "enforcing*")
		c.on()
		if _, err := BeginBoot(c.host.Root); err != nil {
			t.Fatal(err)
		}
		c.docker.Active, c.docker.Result = "failed", "exit-code"
		c.enforce()
		c.is("the stage", TrialProving, true, "permissive*")
		c.watch(t.Context())
		c.is("the watch", TrialFailed, false, "permissive")
	})
}

// TestGuardChangesAtTheEnd: what happens between the last look of a window and its end.
//
// Proves P4.
func TestGuardChangesAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		sick   bool
		do     func(c *computer)
		phase  Phase
		on     bool
		config string
		took   time.Duration
	}{
		{"another declaration", false, func(c *computer) {
			c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "1m", "2m", 1))
			c.enforce()
		}, TrialArmed, true, "enforcing*", 3 * time.Minute},
		{"another declaration, of a sick host", true, func(c *computer) {
			c.tree.Write("etc/selinux-provision/config.yaml", strings.Replace(guarded, "1m", "2m", 1))
			c.enforce()
		}, TrialFailed, false, "permissive", 10 * time.Second},
		{"setenforce 0", false, func(c *computer) { c.tree.Write(kernelDir+"/enforce", "0") }, TrialFailed, false, "permissive", time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newComputer(t, guarded)
			synctest.Test(t, func(t *testing.T) {
				c.boot()
				begin, done := time.Now(), false
				if test.sick {
					time.AfterFunc(10*time.Second, func() { c.tree.Write(kernelDir+"/enforce", "0") })
				}
				err := c.host.Watch(t.Context(), func(said string, _ bool) {
					if said == "the window is over" && !done {
						done = true
						test.do(c)
					}
				})
				if err != nil || !done {
					t.Error(err, done)
				}
				c.is(test.name, test.phase, test.on, test.config)
				if took := time.Since(begin); took < test.took || took > test.took+3*lookInterval {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestGuardAndTheClock: denials of the window are counted from its beginning, though the clock is set in the middle.
//
// Proves P4.
func TestGuardAndTheClock(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	synctest.Test(t, func(t *testing.T) {
		c.boot()
		var asked []time.Time
		c.host.Evidence.Stopped = func(_ context.Context, since time.Time) ([]string, int, error) {
			asked = append(asked, since)
			return nil, 0, nil
		}
		uptime := 10 * time.Second
		c.host.Uptime = func() (time.Duration, error) { return uptime, nil }
		w := watcher{Host: c.host, first: map[string]uint32{}}
		trial := &Trial{Phase: TrialWatched, Since: uptime, MaxDenials: new(0)}
		begin := time.Now()
		w.look(t.Context(), trial)
		time.Sleep(time.Hour) // as the clock sees it; the host has been up for a second more
		uptime += time.Second
		w.look(t.Context(), trial)
		other := &Trial{Phase: TrialWatched, Since: uptime, MaxDenials: new(0)}
		w.look(t.Context(), other)
		w.look(t.Context(), other)
		uptime += time.Hour // and the clock was set back by as much
		w.look(t.Context(), other)
		uptime -= time.Hour // and forward again
		w.look(t.Context(), other)
		later := begin.Add(time.Hour)
		if want := []time.Time{begin, begin, later, later, begin, begin}; !slices.EqualFunc(asked, want, time.Time.Equal) {
			t.Errorf("asked since %v, want %v", asked, want)
		}
	})
}

// TestGuardAndTheCommandLine: what beats the guard at every boot is said.
func TestGuardAndTheCommandLine(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	c.on()
	c.host.CommandLine.Enforcing = new(true)
	if r := c.enforce(); r.Outcome != Partly || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].String(), "the kernel command line has enforcing=1: every boot enforces") {
		t.Errorf("%+v", r)
	}
	if got := c.problems(); !strings.Contains(got, "the kernel command line has enforcing=1") {
		t.Errorf("status says %s", got)
	}
}

// A denial's line in the journal and the state holds nothing that a program wrote as it is.
func TestDenialLine(t *testing.T) {
	t.Parallel()
	d := &avc.Denial{Time: time.Unix(0, 0), Source: "u:r:a\x1b[2J:s0", Target: "u:r:b\n:s0", Class: "c\x07", Permissions: []string{"p\r", "q"}, Path: "/x\ny"}
	const want = `1970-01-01T00:00:00Z a\x1b[2J: [p\r q] on c\a /x\ny of type b\n`
	if got := denialLine(d, avc.Subject{}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestGuardEnds is the watch that ends without a verdict: at a shutdown the next boot tries again, but not for ever; else the host is
// permissive at once.
//
// Proves P4.
func TestGuardEnds(t *testing.T) {
	t.Parallel()
	for _, window := range []Phase{TrialWatched, TrialProving} {
		t.Run(string(window), func(t *testing.T) {
			c := newComputer(t, guarded)
			synctest.Test(t, func(t *testing.T) {
				c.boot()
				if window == TrialProving {
					c.watch(t.Context())
					c.boot()
				}
				for try := 1; ; try++ {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					c.watch(ctx)
					cancel()
					c.going = true
					if err := c.host.EndWatch(context.Background(), "success"); err != nil {
						t.Fatal(err)
					}
					c.is("going down", TrialInterrupted, true, "permissive")
					c.boot()
					if LoadState(c.host.Root).Guard.Phase == TrialFailed {
						if try != maxTries {
							t.Errorf("given up after %d", try)
						}
						break
					}
					c.is("tried again", TrialWatched, true, "permissive")
				}
				for how, reason := range map[string]string{"success": "the watch was stopped by hand", "watchdog": "the watch itself ended (watchdog)"} {
					c.host.RetryGuard = true
					c.enforce()
					c.host.RetryGuard = false
					c.is("again", TrialWatched, true, "permissive")
					if err := c.host.EndWatch(context.Background(), how); err != nil {
						t.Fatal(err)
					}
					c.is(how, TrialFailed, false, "permissive")
					if got := LoadState(c.host.Root).Guard.Reason; !strings.Contains(got, reason) {
						t.Errorf("the reason is %q, want %q", got, reason)
					}
				}
				if err := c.host.EndWatch(context.Background(), "signal"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestGuardAfterAnUpdate: a host that was proven with one policy proves itself again with another, without a boot that does not
// enforce, and is permissive after a power cut in that window.
//
// Proves P4.
func TestGuardAfterAnUpdate(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	synctest.Test(t, func(t *testing.T) {
		c.boot()
		c.watch(t.Context())
		c.boot()
		c.watch(t.Context())
		c.is("settled", TrialSettled, true, "enforcing")
		c.tree.Image(2)
		c.on()
		if _, err := host(t, c.tree).Run(context.Background(), []string{"policystore", "policy", "audit"}, false); err != nil {
			t.Fatal(err)
		}
		c.enforce()
		c.is("updated", TrialProving, true, "permissive*")
		c.watch(t.Context())
		c.is("proven again", TrialSettled, true, "enforcing")
	})
}

// TestGuardHistories lets anything happen in any order, and checks at each boot what the guard is for: a host whose enforcing was not
// seen well begins the next boot permissive, and one that gave up stays so until somebody says otherwise.
//
// Proves P4.
func TestGuardHistories(t *testing.T) {
	t.Parallel()
	histories := 200
	if testing.Short() {
		histories = 30
	}
	base := newComputer(t, guarded)
	for seed := range histories {
		c := &computer{t: t, tree: copyTree(t, base.tree.Dir)}
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 7))
			history := []string{}
			c.boot()
			for range 20 {
				was := LoadState(c.host.Root).Guard.Phase
				var did string
				allowed := []Phase{}
				switch random.IntN(8) {
				case 0, 1, 2: // the window ends well
					if did = "window"; c.watched {
						c.watch(t.Context())
					}
					allowed = map[Phase][]Phase{TrialWatched: {TrialArmed}, TrialProving: {TrialSettled}}[was]
				case 3:
					did, c.docker.Active = "sick", "failed"
					if c.watched {
						c.watch(t.Context())
					}
					allowed = map[Phase][]Phase{TrialWatched: {TrialFailed}, TrialProving: {TrialFailed}}[was]
				case 4:
					did = "power cut"
					c.boot()
					allowed = map[Phase][]Phase{TrialWatched: {TrialFailed}, TrialProving: {TrialFailed}, TrialArmed: {TrialProving}}[was]
				case 5:
					did = "reboot"
					if c.watched {
						c.going = true
						if err := c.host.EndWatch(context.Background(), "success"); err != nil {
							t.Fatal(err)
						}
					}
					c.boot()
					allowed = map[Phase][]Phase{TrialWatched: {TrialWatched, TrialFailed}, TrialProving: {TrialWatched, TrialFailed}, TrialArmed: {TrialProving}}[was]
				case 6:
					did = "power cut before the stage"
					c.on()
					if _, err := BeginBoot(c.host.Root); err != nil {
						t.Fatal(err)
					}
					c.boot()
					allowed = map[Phase][]Phase{TrialWatched: {TrialFailed}, TrialProving: {TrialFailed}, TrialArmed: {TrialFailed}}[was]
				case 7:
					did = "retry"
					c.docker.Active = "active"
					c.host.RetryGuard = true
					c.enforce()
					c.host.RetryGuard = false
					allowed = map[Phase][]Phase{TrialFailed: {TrialWatched}}[was]
				}
				trial := LoadState(c.host.Root).Guard
				history = append(history, fmt.Sprintf("%s: %s", did, string(trial.Phase)))
				if allowed == nil {
					allowed = []Phase{was}
				}
				if !slices.Contains(allowed, trial.Phase) {
					t.Fatalf("seed %d: after %v %q is %q", seed, history, was, trial.Phase)
				}
				kept := c.config().Mode == "enforcing"
				if want := trial.Phase == TrialArmed || trial.Phase == TrialSettled; kept != want {
					t.Fatalf("seed %d: after %v the next boot enforces: %v", seed, history, kept)
				}
				if on, _ := c.host.Kernel.Enforcing(); on == (trial.Phase == TrialFailed) {
					t.Fatalf("seed %d: after %v the kernel enforces: %v", seed, history, on)
				}
			}
		})
	}
}

// trialStep is a step of a trial that ends well, or one aside.
type trialStep struct {
	name    string
	prepare func(*computer)
	aside   bool // the way goes on without it
	// phases that the boot may come to that comes after the step was broken off, and the one after it was carried out
	broken []Phase
	done   Phase
}

// trialSteps are those from a host that is on to one that enforces for good.
func trialSteps() []trialStep {
	nothing := func(*computer) {}
	return []trialStep{
		{"stage", nothing, false, []Phase{TrialWatched, TrialFailed}, TrialFailed},
		{"judge failed", nothing, true, []Phase{TrialFailed}, TrialFailed},
		{"end", nothing, true, []Phase{TrialFailed, TrialWatched}, TrialWatched},
		{"judge passed", nothing, false, []Phase{TrialFailed, TrialProving}, TrialProving},
		{"mark", (*computer).on, false, []Phase{TrialProving, TrialFailed}, TrialFailed}, // failed: a boot was marked, and the next one came
		{"stage", func(c *computer) {
			c.t.Helper()
			if _, err := BeginBoot(c.host.Root); err != nil {
				c.t.Fatal(err)
			}
		}, false, []Phase{TrialFailed}, TrialFailed},
		{"judge failed", nothing, true, []Phase{TrialFailed}, TrialFailed},
		{"judge passed", nothing, false, []Phase{TrialFailed, TrialSettled}, TrialSettled},
	}
}

// after boots a tree on which the step was broken off, and checks that the host is where the guard wants it: enforcing for good only if that was what
// the step was to reach. boots is how often it has booted.
func (s trialStep) after(t *testing.T, tree *flatcartest.Tree, boots int) {
	t.Helper()
	bootable(t, tree)
	next := &computer{t: t, tree: tree, boots: boots}
	next.boot()
	trial := LoadState(next.host.Root).Guard
	if trial == nil || !slices.Contains(s.broken, trial.Phase) {
		t.Fatalf("the next boot comes to %+v", trial)
	}
	if trial.Phase != TrialSettled && next.config().Mode != "permissive" {
		t.Error("the boot after the next one enforces")
	}
	noLeftovers(t, tree)
}

// TestGuardKilled kills each step of a trial at each call that changes something, boots, and checks where the host is.
//
// Proves P4: each step killed at each call that changes something.
func TestGuardKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	c := newComputer(t, guarded)
	c.on()
	for _, step := range trialSteps() {
		step.prepare(c)
		for _, call := range []string{"renameat", "renameat2", "fsync", "unlinkat", "linkat"} {
			for n := 1; ; n++ {
				tree := copyTree(t, c.tree.Dir)
				if !killAt(t, tree.Dir, "guard "+step.name, call, n, false) {
					break
				}
				t.Run(fmt.Sprintf("%s, %s %d", step.name, call, n), func(t *testing.T) { step.after(t, tree, c.boots) })
			}
		}
		done := copyTree(t, c.tree.Dir)
		guardStep(t, done.Dir, step.name)
		next := &computer{t: t, tree: done, boots: c.boots}
		next.boot()
		if got := LoadState(next.host.Root).Guard; got.Phase != step.done {
			t.Errorf("%s carried out: the next boot comes to %+v, want %s", step.name, got, string(step.done))
		}
		if !step.aside {
			guardStep(t, c.tree.Dir, step.name)
		}
	}
}

// guardStep does one step of a trial on a tree, in this process.
func guardStep(t *testing.T, dir, step string) {
	t.Helper()
	h := hostWithKernel(t, dir)
	ctx := context.Background()
	var err error
	switch step {
	case "stage", "domain stage":
		h.StartUnit = func(context.Context, string) error { return h.Root.MkdirAll(watchDir, 0o755) }
		h.Units = func(_ context.Context, names ...string) (states []systemd.UnitState, err error) {
			for _, name := range names {
				states = append(states, systemd.UnitState{Name: name, Load: "loaded", Active: "inactive"})
			}
			return states, nil
		}
		var results []Result
		if results, err = h.Run(ctx, []string{"enforce"}, false); err == nil {
			err = results[0].Err
		}
	case "mark":
		_, err = BeginBoot(h.Root)
	case "end", "domain end":
		h.Stopping = func(context.Context) (bool, error) { return true, nil }
		err = h.EndWatch(ctx, "success")
	case "judge passed", "judge failed":
		trial := LoadState(h.Root).Guard
		v := view{enforcing: step == "judge passed", elapsed: time.Hour}
		phase, reason := trial.judge(v)
		err = h.conclude(ctx, trial, phase, reason, nil, 0)
	case "domain sick", "domain passed":
		trial, v := LoadState(h.Root).Domains["site_t"], view{enforcing: true, elapsed: time.Hour}
		if step == "domain sick" {
			v.denials = 1
		}
		phase, reason := trial.judge(v)
		err = h.conclude(ctx, trial, phase, reason, nil, v.denials)
	default:
		err = errors.New("no such step")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestGuardInATree: an image gets no mode that nobody tried. Its first boot begins the trial.
func TestGuardInATree(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", guarded)
	h := host(t, tree)
	apply(t, h, Changed, Changed, Unchanged, Unchanged)
	config, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/config"))
	if err != nil || !strings.Contains(string(config), "SELINUX=permissive") {
		t.Errorf("config is %q, %v", config, err)
	}
}

// TestGuardOfADrainedNode: a container that ended before the switch is not waited for, at the boot that is to prove itself either. One that nobody saw in this
// boot is: where the boot itself begins the window, no container runs yet.
//
// Proves P4.
func TestGuardOfADrainedNode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		boot    string // in which the evidence saw it
		seen    time.Duration
		running []string
		gone    string
		phase   Phase
	}{
		{"drained", "boot1", 5 * time.Minute, nil, "web", TrialArmed},
		{"in the boot before", "boot0", -5 * time.Minute, nil, "", TrialFailed},
		{"in the boot before, by a clock that was ahead", "boot0", 5 * time.Minute, nil, "", TrialFailed},
		{"before this boot", "boot1", -5 * time.Minute, nil, "", TrialFailed},
		{"never seen", "boot1", 0, nil, "", TrialFailed},
		{"it runs", "boot1", 5 * time.Minute, []string{"web"}, "", TrialArmed},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newComputer(t, guarded+"readiness: {window: 1h, containers: [web]}\n")
			synctest.Test(t, func(t *testing.T) {
				on := func() {
					c.on()
					c.host.Evidence.Containers = func(context.Context) ([]string, error) { return test.running, nil }
					if _, err := BeginBoot(c.host.Root); err != nil {
						t.Fatal(err)
					}
				}
				on()
				seen := Observed{Version: 1, Boot: test.boot}
				if test.seen != 0 {
					seen.Seen = map[string]time.Time{"container web": time.Now().Add(test.seen)}
				}
				content, err := json.Marshal(seen)
				if err != nil {
					t.Fatal(err)
				}
				c.tree.Write(evidenceFile, string(content))
				time.Sleep(10 * time.Minute)
				c.enforce()
				trial := LoadState(c.host.Root).Guard
				if got := strings.Join(trial.Gone, " "); got != test.gone || strings.Contains(trial.watched(), "had ended before: web") != (test.gone != "") {
					t.Errorf("gone: %q; %s", got, trial.watched())
				}
				c.watch(t.Context())
				if got := LoadState(c.host.Root).Guard; got.Phase != test.phase || test.phase == TrialFailed && !strings.Contains(got.Reason, "container web is not running") {
					t.Errorf("%+v", got)
				}
				if test.gone == "" {
					return
				}
				on()
				c.enforce()
				c.watch(t.Context())
				c.is("the boot that proves itself", TrialSettled, true, "enforcing")
			})
		})
	}
}

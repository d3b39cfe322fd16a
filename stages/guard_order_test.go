package stages

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
)

// declaring makes the host's declaration another one, with a policy that is built already.
func (c *computer) declaring(config string) {
	c.t.Helper()
	c.tree.Write("etc/selinux-provision/config.yaml", config)
	declared, err := provision.Load(c.host.Root, "")
	if err != nil {
		c.t.Fatal(err)
	}
	state := LoadState(c.host.Root)
	state.Store.Policy.Declared = declaredPolicy(c.host.newRun(declared, state, false)).Digest
	if err := state.save(c.host.Root); err != nil {
		c.t.Fatal(err)
	}
}

const anotherBoolean = "policy: {booleans: {container_use_nfs: true}}\n"

// orderGuarded has a window that any passing of time ends.
var orderGuarded = strings.Replace(guarded, "1m", "5s", 1)

// TestGuardGivesUpBesideApply: the watch finds the host sick while an apply with another policy is at work and outlasts the window. The host
// ends permissive with the watch's reason, and stays so until somebody asks.
//
// Proves P4.
func TestGuardGivesUpBesideApply(t *testing.T) {
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
				c.docker.Active, c.docker.Sub = "inactive", "dead"
				watched := make(chan error)
				go func() { watched <- c.host.Watch(t.Context(), func(string, bool) {}) }()
				applying := *c.host
				applying.LockWait, applying.Reporter = time.Hour, nil
				calls := 0
				applying.Declared = func() (*provision.State, error) {
					if calls++; calls == 2 { // it has the lock: the policy stage takes this long
						time.Sleep(2 * time.Minute)
						c.declaring(guarded + anotherBoolean)
					}
					return c.host.Declared()
				}
				results, err := applying.Run(context.Background(), []string{"enforce"}, false)
				if err != nil || results[0].Outcome != Partly || !strings.Contains(results[0].Problems[0].String(), "given up") {
					t.Errorf("apply says %+v, %v", results, err)
				}
				if err := <-watched; err != nil {
					t.Error(err)
				}
				const reason = "docker.service is not running at the end of the window"
				c.is("given up", TrialFailed, false, "permissive")
				if got := c.problems(); !strings.Contains(got, reason) || !strings.Contains(got, "apply --retry-guard") {
					t.Errorf("status says %s", got)
				}
				c.docker.Active = "active"
				c.enforce()
				c.is("another apply", TrialFailed, false, "permissive")
				c.boot()
				c.is("another boot", TrialFailed, false, "permissive")
				c.host.RetryGuard = true
				c.enforce()
				c.is("asked for", TrialWatched, true, "permissive")
			})
		})
	}
}

// TestConcerned: which trial a verdict ends, by what the record says once the watch has the lock.
func TestConcerned(t *testing.T) {
	t.Parallel()
	judged := &Trial{Phase: TrialWatched, Boot: "b", Since: 1}
	other := &Trial{Phase: TrialProving, Boot: "b", Since: 2}
	for _, c := range []struct {
		name string
		now  *Trial
		// of each verdict: does it end what the record says?
		failed, interrupted, armed bool
	}{
		{"the same", &Trial{Phase: TrialWatched, Boot: "b", Since: 1}, true, true, true},
		{"another window", other, true, true, false},
		{"given up by a stage that saw a permissive kernel", &Trial{Phase: TrialFailed, Boot: "b", Since: 1}, true, false, false},
		{"another one, given up", &Trial{Phase: TrialFailed, Boot: "b", Since: 2}, false, false, false},
		{"interrupted", &Trial{Phase: TrialInterrupted, Boot: "b", Since: 1}, false, false, false},
		{"of another boot", &Trial{Phase: TrialWatched, Boot: "a", Since: 1}, false, false, false},
		{"none", nil, false, false, false},
	} {
		for verdict, ends := range map[Phase]bool{TrialFailed: c.failed, TrialInterrupted: c.interrupted, TrialArmed: c.armed} {
			var want *Trial
			if ends {
				want = c.now
			}
			if got := concerned(judged, c.now, "b", verdict); got != want {
				t.Errorf("%s: %q ends %+v, want %+v", c.name, string(verdict), got, want)
			}
		}
	}
}

// orders is a computer on which several of ours are at work, one step at a time. Each stops where it looks at the host, before each step of a
// plan, and before and after each wait; the schedule says who goes on, and when time passes.
type orders struct {
	*computer
	turn    sync.Mutex // whoever wakes from a sleep takes it: the bubble's clock orders nothing for the race detector
	sick    bool       // docker does not run at the end of a window
	clock   string
	uptime  time.Duration
	actors  []*actor
	running *actor // who went on last
	watcher *actor
	judged  bool // the watch has come to a verdict
	gaveUp  bool // the record has said that the trial failed
	byHand  bool // the mode is a person's
	other   bool // the trial may have ended for another reason than that the host is sick
	asked   bool // somebody asked for enforcing when it was given up
	cut     bool
	taken   []int // the schedule: at each decision the option that was taken, and how many there were
	options []int
	log     []string
	faults  []string
}

// actor is a process. Its point is where it stands, "" while it waits for time to pass.
type actor struct {
	name   string
	resume chan struct{}
	cancel context.CancelFunc
	point  string
	killed bool
	ready  bool // the watch has told systemd
	main   bool // of the watch: its main process has not ended
	ended  bool
}

// errKilled is what a process panics with that was killed, or whose host has lost its power.
var errKilled = errors.New("killed")

// fault notes what must not be. What a process says that dies with the power counts for nothing.
func (o *orders) fault(format string, a ...any) {
	if !o.cut {
		o.faults = append(o.faults, fmt.Sprintf(format, a...))
	}
}

// start begins a process.
func (o *orders) start(name string, run func(ctx context.Context, a *actor, h *Host)) *actor {
	ctx, cancel := context.WithCancel(context.Background())
	a := &actor{name: name, resume: make(chan struct{}), cancel: cancel}
	o.actors = append(o.actors, a)
	h := *o.host
	h.Reporter, h.LockWait = nil, 1000*time.Hour
	h.Uptime = func() (time.Duration, error) { o.at(a, "uptime"); return o.uptime, nil }
	h.Units = func(ctx context.Context, names ...string) ([]systemd.UnitState, error) {
		o.at(a, "units")
		return o.units(names), nil
	}
	h.Stopping = func(context.Context) (bool, error) { o.at(a, "stopping"); return false, nil }
	h.StartUnit = func(context.Context, string) error { o.at(a, "start"); return o.startWatch() }
	h.Evidence.Stopped = func(context.Context, time.Time) ([]string, int, error) {
		o.note(func() { o.judged = true })
		o.at(a, "judged")
		return nil, 0, nil
	}
	go func() {
		defer func() {
			if err := recover(); err != nil && err != errKilled { //nolint:errorlint // a value of recover, which nobody wraps
				panic(err)
			}
			o.note(func() { a.ended = true })
			cancel()
		}()
		run(&stepping{ctx, o, a}, a, &h)
	}()
	return a
}

// at is a point of a process.
func (o *orders) at(a *actor, point string) {
	o.turn.Lock()
	if a.killed || o.cut {
		o.turn.Unlock()
		panic(errKilled)
	}
	a.point = point
	o.turn.Unlock()
	<-a.resume
	if a.killed || o.cut {
		panic(errKilled)
	}
}

// stepping is a context that stops before each step of a plan, where plan.Do asks the context.
type stepping struct {
	context.Context
	o *orders
	a *actor
}

func (s *stepping) Err() error {
	if err := s.Context.Err(); err != nil {
		return err
	}
	s.o.at(s.a, "step")
	return s.Context.Err()
}

func (o *orders) units(names []string) (states []systemd.UnitState) {
	for _, name := range names {
		u := systemd.UnitState{Name: name, Load: "loaded", Active: "active"}
		if name == WatchUnit && (o.watcher == nil || o.watcher.ended) || name != WatchUnit && o.sick {
			u.Active, u.Sub = "inactive", "dead"
		} else if name == WatchUnit && !o.watcher.main {
			u.Active = "deactivating"
		}
		states = append(states, u)
	}
	return states
}

// startWatch is systemd's job: nothing for a unit that is active, after the end of one that is ending.
func (o *orders) startWatch() error {
	o.until(func() bool { return o.watcher == nil || o.watcher.main || o.watcher.ended })
	if o.watcher != nil && o.watcher.main {
		return nil
	}
	o.watch()
	w := o.watcher
	o.until(func() bool { return w.ready || w.ended })
	if !w.ready && !o.cut {
		return errors.New("the watch did not start")
	}
	return nil
}

// until waits until what holds, or the power is cut.
func (o *orders) until(holds func() bool) {
	for ; ; time.Sleep(time.Second) {
		o.turn.Lock()
		done := o.cut || holds()
		o.turn.Unlock()
		if done {
			return
		}
	}
}

// note changes what other processes look at.
func (o *orders) note(change func()) {
	o.turn.Lock()
	defer o.turn.Unlock()
	change()
}

// watch is the unit: the watch, and what systemd runs after it.
func (o *orders) watch() {
	o.watcher = o.start("watch", func(ctx context.Context, a *actor, h *Host) {
		h.LockWait = 20 * time.Second
		how := "success"
		func() {
			defer func() {
				if err := recover(); err != nil {
					if err != errKilled || o.cut { //nolint:errorlint // a value of recover, which nobody wraps
						panic(err)
					}
					how = "signal"
				}
			}()
			o.at(a, "begin")
			if err := h.Watch(ctx, func(said string, _ bool) { o.note(func() { a.ready = true }); o.at(a, said) }); err != nil && ctx.Err() == nil {
				o.fault("the watch says: %v", err)
				how = "exit-code"
			}
		}()
		o.note(func() { a.main, a.killed = false, false })
		h.LockWait = 1000 * time.Hour
		if err := h.EndWatch(&stepping{context.Background(), o, a}, how); err != nil {
			o.fault("the end of the watch says: %v", err)
		}
	})
	o.watcher.main = true
}

// small are the files that an order changes.
func (o *orders) small() map[string]string {
	files := map[string]string{}
	for _, name := range []string{"etc/selinux/config", "etc/selinux-provision/config.yaml", stateFile[1:], bootFile, kernelDir + "/enforce"} {
		content, err := os.ReadFile(filepath.Join(o.tree.Dir, name))
		if err == nil {
			files[name] = string(content)
		} else {
			files[name] = "absent"
		}
	}
	if o.host.Root.Exists(watchDir) {
		files[watchDir[1:]] = "directory"
	}
	return files
}

func (o *orders) restore(files map[string]string) {
	os.Remove(filepath.Join(o.tree.Dir, watchDir))
	for name, content := range files {
		switch content {
		case "absent":
			os.Remove(filepath.Join(o.tree.Dir, name))
		case "directory":
			if err := o.host.Root.MkdirAll(name, 0o755); err != nil {
				o.t.Fatal(err)
			}
		default:
			o.tree.Write(name, content)
		}
	}
}

// go on until all have ended, or the power is cut: at each decision the schedule's option, then the first. The first is to go on with who
// went on last.
func (o *orders) play(schedule []int) (files map[string]string) {
	o.turn.Lock()
	defer o.turn.Unlock()
	for len(o.taken) < 300 {
		o.leave(synctest.Wait)
		o.always()
		var ready []*actor
		asleep := false
		for _, a := range o.actors {
			switch {
			case a.ended:
			case a.point != "":
				ready = append(ready, a)
			default:
				asleep = true
			}
		}
		slices.SortStableFunc(ready, func(a, b *actor) int {
			return map[bool]int{true: 1}[b == o.running] - map[bool]int{true: 1}[a == o.running]
		})
		n := len(ready)
		if asleep {
			n++
		}
		if n == 0 {
			return nil
		}
		n++ // the power cut
		pick := 0
		if i := len(o.taken); i < len(schedule) {
			pick = min(schedule[i], n-1)
		}
		o.taken, o.options = append(o.taken, pick), append(o.options, n)
		switch {
		case pick == n-1:
			o.log = append(o.log, "power cut")
			files = o.small()
			o.cut = true
			for _, a := range o.actors {
				a.cancel()
				if a.point != "" && !a.ended {
					a.resume <- struct{}{}
				}
			}
			o.leave(func() {
				time.Sleep(2000 * time.Hour) // whoever waits for the lock gives up
				synctest.Wait()
			})
			return files
		case pick < len(ready):
			a := ready[pick]
			o.log = append(o.log, a.name+" "+a.point)
			o.running, a.point = a, ""
			a.resume <- struct{}{}
		default:
			o.log = append(o.log, "time")
			o.running = nil
			o.leave(o.pass)
		}
	}
	o.fault("it does not end")
	return nil
}

// leave gives the turn away while wait waits for the others.
func (o *orders) leave(wait func()) {
	o.turn.Unlock()
	defer o.turn.Lock()
	wait()
}

// pass lets a window pass. The clock may be set forward or back meanwhile.
func (o *orders) pass() {
	const enough = 10 * time.Second
	switch o.clock {
	case "forward":
		time.Sleep(time.Hour)
		o.uptime += enough
	case "back":
		time.Sleep(enough)
		o.uptime += time.Hour
	default:
		time.Sleep(enough)
		o.uptime += enough
	}
}

func (o *orders) kernel() bool {
	on, err := o.host.Kernel.Enforcing()
	if err != nil {
		o.t.Fatal(err)
	}
	return on
}

// always holds at each instant.
func (o *orders) always() {
	t := LoadState(o.host.Root).Guard
	o.gaveUp = o.gaveUp || t != nil && t.Phase == TrialFailed
	busy := slices.ContainsFunc(o.actors, func(a *actor) bool { return !a.ended && a.name != "watch" })
	watched := o.watcher != nil && !o.watcher.ended
	if !busy && o.kernel() && t.underWay(o.host.Boot) && !watched {
		o.fault("enforcing on trial, and nobody watches")
	}
	if c := o.config(); o.sick && c.Mode == "enforcing" && !o.unguarded() {
		o.fault("the next boot of a sick host enforces")
	}
}

func (o *orders) unguarded() bool { return strings.Contains(o.declared(), "guard: off") }

func (o *orders) declared() string {
	content, err := os.ReadFile(filepath.Join(o.tree.Dir, "etc/selinux-provision/config.yaml"))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(content)
}

// ended checks a host on which nobody is at work any more.
func (o *orders) ended() {
	t, on, c := LoadState(o.host.Root).Guard, o.kernel(), o.config()
	phase := none
	if t != nil {
		phase = t.Phase
	}
	unguarded := o.unguarded()
	// A person's mode. Who turned the guard off while the watch was about to give up came first.
	may := o.byHand || unguarded && (o.asked || !o.gaveUp)
	switch {
	case phase == TrialFailed && (on && !may || c.Mode != "permissive" || c.Trial || t.Reason == ""):
		o.fault("given up (%q), and enforcing %v, file %+v", t.Reason, on, c)
	case t.underWay(o.host.Boot):
		o.fault("nobody is at work, and the record says %q", string(phase))
	case o.sick && on && !may:
		o.fault("a sick host enforces")
	case o.sick && (phase == TrialArmed || phase == TrialSettled || c.Mode == "enforcing" && !may):
		o.fault("a sick host is %q, file %+v", string(phase), c)
	case !on && c.Mode == "enforcing" && !o.byHand:
		o.fault("permissive, and the next boot enforces; the record says %q", string(phase))
	case phase == TrialFailed && o.sick && o.judged && !o.other && !strings.Contains(t.Reason, "docker.service is not running"):
		o.fault("the reason is %q", t.Reason)
	}
	if phase == TrialFailed { // it stays so at the next boot, which the cured host has with another policy
		o.sick, o.docker.Active = false, "active"
		if strings.Contains(o.declared(), "guard: {") && !o.byHand {
			o.declaring(o.declared() + "audit: {log_denials: true}\n")
			o.boot()
			if LoadState(o.host.Root).Guard.Phase != TrialFailed || o.kernel() || o.config().Mode != "permissive" {
				o.fault("given up, and the next boot comes to %q, enforcing %v", string(LoadState(o.host.Root).Guard.Phase), o.kernel())
			}
		}
	}
}

// afterCut boots a host that has lost its power, and lets its watch end.
func (o *orders) afterCut(files map[string]string) {
	o.restore(files)
	o.cut = false
	was := LoadState(o.host.Root).Guard
	unguarded, sick := o.unguarded(), o.sick
	o.boot()
	if sick {
		o.docker.Active, o.docker.Sub = "inactive", "dead"
	}
	if o.watched {
		o.computer.watch(context.Background())
	}
	t, on, c := LoadState(o.host.Root).Guard, o.kernel(), o.config()
	switch {
	case t.underWay(o.host.Boot):
		o.fault("after the power cut nobody is at work, and the record says %q", string(t.Phase))
	case was != nil && was.Phase == TrialFailed && strings.Contains(o.declared(), "window: 5s") && (t == nil || t.Phase != TrialFailed || on):
		o.fault("given up before the power cut, and then %+v, enforcing %v", t, on)
	case sick && (on || c.Mode == "enforcing") && !unguarded:
		o.fault("a sick host enforces after the power cut: kernel %v, file %+v, record %+v", on, c, t)
	}
}

// beside is what happens while a host is on trial.
type beside struct {
	name string
	do   func(o *orders) func(context.Context, *actor, *Host)
}

// applying is an apply whose other stages take their time once it has the lock.
func applying(config string, retry bool) func(o *orders) func(context.Context, *actor, *Host) {
	return func(o *orders) func(context.Context, *actor, *Host) {
		return func(ctx context.Context, a *actor, h *Host) {
			o.tree.Write("etc/selinux-provision/config.yaml", config)
			o.at(a, "declared")
			h.RetryGuard = retry
			read, calls := h.Declared, 0
			h.Declared = func() (*provision.State, error) {
				if calls++; calls == 2 {
					o.at(a, "policy")
					guard := LoadState(o.host.Root).Guard
					o.asked = guard != nil && guard.Phase == TrialFailed
					o.declaring(config)
				}
				return read()
			}
			results, err := h.Run(ctx, []string{"enforce"}, false)
			if err != nil || results[0].Err != nil {
				o.fault("apply says %+v, %v", results, err)
			}
		}
	}
}

func setenforce(value string) func(o *orders) func(context.Context, *actor, *Host) {
	return func(o *orders) func(context.Context, *actor, *Host) {
		return func(context.Context, *actor, *Host) {
			o.byHand = !LoadState(o.host.Root).Guard.underWay(o.host.Boot)
			o.other = value == "0"
			o.tree.Write(kernelDir+"/enforce", value)
		}
	}
}

// TestGuardOrders: the watch, a stage, systemd, a person and the power in all orders, with the clock set forward and back: up to so many
// times another one goes on than the last, or time passes in between. Whatever the order, a host that was found sick ends permissive and stays so
// until somebody asks, nobody enforces on trial unwatched, and the record says what is true.
//
// Proves P4.
func TestGuardOrders(t *testing.T) {
	t.Parallel()
	besides := []beside{
		{name: "nothing"},
		{name: "apply", do: applying(orderGuarded, false)},
		{name: "another policy", do: applying(orderGuarded+anotherBoolean, false)},
		{name: "another window", do: applying(strings.Replace(orderGuarded, "5s", "4s", 1), false)},
		{name: "guard off", do: applying("version: 1\nmode: enforcing\nenforce: {guard: off}\n", false)},
		{name: "permissive", do: applying("version: 1\nmode: permissive\n", false)},
		{name: "unmanaged", do: applying("version: 1\n", false)},
		{name: "retry", do: applying(orderGuarded+anotherBoolean, true)},
		{name: "setenforce 0", do: setenforce("0")},
		{name: "setenforce 1", do: setenforce("1")},
		{name: "the watch is killed", do: func(o *orders) func(context.Context, *actor, *Host) {
			return func(context.Context, *actor, *Host) { o.watcher.killed, o.other = o.watcher.main, true }
		}},
		{name: "the watch is stopped", do: func(o *orders) func(context.Context, *actor, *Host) {
			return func(context.Context, *actor, *Host) { o.watcher.cancel(); o.other = true }
		}},
	}
	base := newComputer(t, orderGuarded)
	starts := map[Phase]map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		o := &orders{computer: &computer{t: t, tree: base.tree}}
		o.boot()
		starts[TrialWatched] = o.small()
		o.computer.watch(t.Context())
		o.boot()
		starts[TrialProving] = o.small()
	})
	played, begin := 0, time.Now()
	for n, b := range besides {
		for boots, phase := range []Phase{TrialWatched, TrialProving} {
			for _, sick := range []bool{true, false} {
				play := func(late bool, schedule []int) *orders {
					played++
					o := &orders{computer: &computer{tree: base.tree, boots: boots}, sick: sick, clock: []string{"", "forward", "back"}[(n+boots)%3]}
					if late { // the window is over when the watch looks first
						o.uptime = 10 * time.Second
					}
					synctest.Test(t, func(t *testing.T) {
						o.t = t
						o.on()
						o.restore(starts[phase])
						if sick {
							o.docker.Active, o.docker.Sub = "inactive", "dead"
						}
						o.watch()
						if b.do != nil {
							o.start(b.name, func(ctx context.Context, a *actor, h *Host) {
								o.at(a, "begin")
								b.do(o)(ctx, a, h)
							})
						}
						if files := o.play(schedule); files != nil {
							o.afterCut(files)
						} else {
							o.ended()
						}
					})
					if len(o.faults) > 0 {
						t.Errorf("%s, %s, sick %v, clock %q: %s\nafter %s", b.name, string(phase), sick, o.clock, strings.Join(o.faults, "; "), strings.Join(o.log, ", "))
					}
					return o
				}
				length := 0
				for _, late := range []bool{false, true} {
					if late && !sick && testing.Short() {
						continue
					}
					first := play(late, nil)
					length = max(length, 2*len(first.taken))
					for i, options := range first.options {
						for option := 1; option < options && !t.Failed(); option++ {
							play(late, append(slices.Clone(first.taken[:i]), option))
						}
					}
				}
				if testing.Short() {
					continue
				}
				random := rand.New(rand.NewPCG(uint64(n), uint64(boots)))
				for range 300 {
					schedule := make([]int, length)
					for range 3 {
						schedule[random.IntN(len(schedule))] = 1 + random.IntN(3)
					}
					if play(random.IntN(2) == 0, schedule); t.Failed() {
						return
					}
				}
			}
		}
	}
	t.Logf("%d orders in %s", played, time.Since(begin))
}

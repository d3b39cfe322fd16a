package stages

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// WatchUnit watches the host while enforcing is on trial. The enforce stage starts it.
const WatchUnit = "selinux-provision-guard.service"

// lookInterval is how often the watch looks at the host.
const lookInterval = 2 * time.Second

// scene is what the enforce stage finds of a trial.
func (r *run) scene(configured seconfig.Config, live bool) scene {
	s := scene{trial: r.state.Guard, boot: r.Boot, enforcing: live, config: configured, retry: r.RetryGuard}
	all := r.declared.Fingerprint()
	s.fingerprint, s.asks = hex.EncodeToString(all[:])+" "+r.state.Store.Vendor, r.asks()
	s.policy = r.accessFingerprint()
	return s
}

// accessFingerprint identifies what the policy allows, whichever domains are permissive: that decides what a denial stops, not what is denied.
func (r *run) accessFingerprint() string {
	digest := r.declared.AccessDigest()
	return hex.EncodeToString(digest[:]) + " " + r.state.Store.Vendor
}

// planGuarded brings the trial to its next phase, and the host to what that phase wants.
func (r *run) planGuarded(ctx context.Context, content []byte, s scene) (plan.Plan, error) {
	if r.Kernel == nil || r.contradiction() != nil {
		// An image, where nothing can be tried: its first boot begins the trial. Or a kernel whose mode is not ours.
		return nil, nil
	}
	move := s.next()
	if move.to.wants().watch && (r.StartUnit == nil || r.Units == nil) {
		return nil, errors.New("cannot put enforcing on trial: systemd does not run here, so nobody could watch: declare guard: off")
	}
	next, err := r.trial(ctx, s, move)
	if err != nil {
		return nil, err
	}
	if move.to == TrialWatched && next != s.trial && !s.enforcing {
		if held, err := r.heldBack(ctx); held || err != nil {
			return nil, err
		}
	}
	// A boot that enforces on trial is watched whatever its units are like: one that failed by now is what the watch is for.
	if opens := next.underWay(r.Boot) && next != s.trial; opens && (next.Phase == TrialWatched || s.kept()) {
		units, err := r.Units(ctx, next.Units...)
		if err != nil {
			return nil, fmt.Errorf("cannot put enforcing on trial: %w", err)
		}
		if err := fit(units, r.declared.Guard.Source); err != nil {
			return nil, fmt.Errorf("cannot put enforcing on trial: %w", err)
		}
	}
	wants := next.Phase.wants()
	var steps plan.Plan
	if s.enforcing && next.Phase == TrialFailed && next != s.trial {
		steps = append(steps, r.switchMode(false))
	}
	if wants.mode == string(provision.Enforcing) && !wants.mark {
		steps = append(steps, r.keepMode(content, s.config, wants.mode)...)
	} else {
		steps = append(steps, r.configure(content, s.config, wants.mode, wants.mark, s.asks)...)
	}
	steps = append(steps, r.recordTrial(next)...)
	if wants.kernel && !s.enforcing {
		step := r.switchMode(true)
		step.Reason += r.unready(ctx)
		steps = append(steps, step)
	}
	if wants.watch {
		watch, err := r.startWatch(ctx)
		if err != nil {
			return nil, err
		}
		steps = append(steps, watch...)
	}
	return steps, nil
}

// trial gives the record that follows from a move: the old one if the phase goes on.
func (r *run) trial(ctx context.Context, s scene, m move) (*Trial, error) {
	old := s.trial
	if old != nil && old.Phase == m.to && (!old.underWay(s.boot) || !s.changed()) {
		return old, nil
	}
	now := time.Now().UTC().Truncate(time.Second)
	if old != nil && (m.to == TrialFailed || m.to == TrialInterrupted) {
		return old.ended(m.to, m.reason, s.asks), nil
	}
	next := &Trial{Phase: m.to, Boot: s.boot, Began: now, Tries: 1, Fingerprint: s.fingerprint, Policy: s.policy, Asked: s.asks, Reason: m.reason}
	if old != nil && !s.changed() {
		next.Tries = old.Tries
		if (old.Phase == TrialInterrupted || old.Phase == TrialArmed) && m.to == TrialWatched {
			next.Tries++
		}
	}
	if g := r.declared.Guard; m.to == TrialWatched || m.to == TrialProving {
		next.Window, next.Units, next.MaxDenials = g.Window, g.Units, g.MaxDenials
		if ready := r.declared.Readiness; ready != nil {
			next.Units = slices.Compact(slices.Sorted(slices.Values(slices.Concat(g.Units, ready.Units))))
			next.Containers = ready.Containers
		}
		var err error
		if r.Uptime != nil {
			if next.Since, err = r.Uptime(); err != nil {
				return nil, err
			}
		}
		if old != nil && !s.changed() {
			next.Gone = old.Gone
		}
		if next.Gone, err = r.gone(ctx, next); err != nil {
			return nil, fmt.Errorf("cannot put enforcing on trial: %w", err)
		}
		next.Containers = slices.DeleteFunc(slices.Clone(next.Containers), func(name string) bool { return slices.Contains(next.Gone, name) })
	}
	return next, nil
}

// gone gives those of a trial's containers that do not run, though they ran before in this boot, and those that were gone when it was first tried.
func (r *run) gone(ctx context.Context, t *Trial) (names []string, err error) {
	if len(t.Containers) == 0 || r.Evidence.Containers == nil {
		return nil, nil
	}
	running, err := r.Evidence.Containers(ctx)
	if err != nil {
		return nil, err
	}
	seen, booted := loadObserved(r.Root), time.Now().Add(-t.Since)
	for _, name := range t.Containers {
		switch {
		case slices.Contains(running, name):
		case slices.Contains(t.Gone, name), seen.Boot == r.Boot && seen.Seen[containerWorkload(name)].After(booted):
			names = append(names, name)
		}
	}
	return names, nil
}

// ended gives the record of a trial that came to an end; asked is what is declared of the mode by then.
func (t *Trial) ended(phase Phase, reason, asked string) *Trial {
	next := *t
	next.Phase, next.Reason, next.Asked, next.Began = phase, reason, asked, time.Now().UTC().Truncate(time.Second)
	return &next
}

// recordTrial writes the trial down at once and not only when the stage is done: a boot that ends in between has to be known to have
// tried.
func (r *run) recordTrial(next *Trial) plan.Plan {
	if reflect.DeepEqual(r.state.Guard, next) {
		return nil
	}
	return plan.Plan{{Action: "record", Target: stateFile, Reason: "the trial goes on", Quiet: true,
		Do: func(context.Context) (string, error) {
			r.state.Guard = next
			marked := r.state.clone()
			marked.InProgress = LoadState(r.Root).InProgress
			if err := marked.save(r.Root); err != nil {
				return "", err
			}
			if next != nil {
				r.report(func(to Reporter) { to.Trial(*next) })
			}
			return "recorded", nil
		},
	}}
}

// watchDir says that the watch is at work. It is there before the watch asks for a trial, and goes before the watch ends by itself, which then
// asks once more. So a trial that was recorded while it was there is seen by the watch, or by what systemd runs after one that broke.
const watchDir = "/run/selinux-provision/guard"

// startWatch is the step that starts the watch, none if it runs. The step comes after the record.
func (r *run) startWatch(ctx context.Context) (plan.Plan, error) {
	units, err := r.Units(ctx, WatchUnit)
	if err != nil {
		return nil, fmt.Errorf("cannot put enforcing on trial: %w", err)
	}
	runs := slices.ContainsFunc(units, func(u systemd.UnitState) bool { return u.Active == "active" }) && r.Root.Exists(watchDir)
	return plan.Plan{{Action: "start", Target: WatchUnit, Reason: "somebody has to watch the host while enforcing is on trial", Quiet: runs,
		Do: func(ctx context.Context) (string, error) {
			// To systemd a watch that is just ending by itself is active, and needs no start.
			for begin := time.Now(); ; {
				if err := r.StartUnit(ctx, WatchUnit); err != nil {
					return "", fmt.Errorf("cannot put enforcing on trial: %w", err)
				}
				if r.Root.Exists(watchDir) {
					return "it watches; follow it with: journalctl -fu " + WatchUnit, nil
				}
				if time.Since(begin) > 10*lookInterval || ctx.Err() != nil {
					return "", errors.New("cannot put enforcing on trial: " + WatchUnit + " was started but is not watching: see its journal")
				}
				time.Sleep(lookInterval / 10)
			}
		},
		Stays: true, // without a trial the watch ends by itself
	}}, nil
}

// checkTrial lists what came of a trial that is over and was not passed.
func (r *run) checkTrial() []Problem {
	t := r.state.Guard
	if t == nil || t.Phase != TrialFailed || r.declared.Mode != provision.Enforcing {
		return nil
	}
	return []Problem{{
		Problem: "enforcing was tried and given up at " + t.Began.Format(time.RFC3339) + ": " + t.Reason + t.denied(),
		Remedy:  "the host stays permissive, whatever its policy becomes; correct the cause, then run: selinux-provision apply --retry-guard, or declare enforce otherwise",
	}}
}

func (t *Trial) denied() string {
	if t.DenialCount == 0 || len(t.Denials) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d accesses were denied, the last: %s", t.DenialCount, t.Denials[len(t.Denials)-1])
}

// underWayProblems says that what is declared is not reached yet, though nothing is wrong.
func (h *Host) underWayProblems(state *State) (problems []Problem) {
	if h.Uptime == nil {
		return nil
	}
	uptime, err := h.Uptime()
	if err != nil {
		return nil
	}
	for _, t := range state.underWay(h.Boot) {
		problems = append(problems, Problem{
			Problem: fmt.Sprintf("%s, %s left", t.Says(), t.Remaining(uptime)),
			Remedy:  "wait; to follow it: journalctl -fu " + WatchUnit,
		})
	}
	return problems
}

// Watch looks at the host until the trial that is under way is over, and ends it: with the mode kept, or with the kernel permissive
// again. told gets a line for each look, and whether it is one for the journal: what is new, and now and then how long it still takes. It returns at once where no trial is under way, and the cause of ctx when that ends: the trial is then
// for EndWatch.
func (h *Host) Watch(ctx context.Context, told func(status string, news bool)) error {
	if err := h.applicable(); err != nil {
		return err
	}
	watchers := map[string]*watcher{} // by domain, "" for the host
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		if err := h.Root.MkdirAll(watchDir, 0o755); err != nil {
			return fmt.Errorf("cannot report that the watch is running: %w", err)
		}
		trials := LoadState(h.Root).underWay(h.Boot)
		if len(trials) == 0 {
			if err := h.Root.Remove(watchDir); err != nil {
				return err
			}
			if len(LoadState(h.Root).underWay(h.Boot)) > 0 {
				continue // it began before anybody could see that the watch ends
			}
			told("no trial is under way", false)
			return nil
		}
		over, sick := false, false
		for _, t := range trials {
			w := watchers[t.Domain]
			if w == nil {
				w = &watcher{Host: h, first: map[string]uint32{}}
				watchers[t.Domain] = w
			}
			v := w.look(ctx, t)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			phase, reason := t.judge(v)
			if phase == t.Phase {
				told(fmt.Sprintf("%s, %s left; %s", t.onTrial(), max(0, t.Window-v.elapsed).Round(time.Second), t.watched())+v.noted(), w.journal.news(t, v))
				continue
			}
			over = true
			told("the window is over", true)
			if err := w.end(ctx, t, phase, reason, v, told); err != nil {
				return err
			}
			sick = sick || phase == TrialFailed && t.Domain != ""
			if phase == TrialFailed && t.Domain == "" {
				break // the domains are to be looked at on the permissive host
			}
		}
		if sick {
			if err := h.permissiveAgain(ctx, func() { told("the policy is being built in which a domain is permissive again", false) }); err != nil {
				return err
			}
		}
		if over {
			continue // if the declaration changed just now, what is under way is another trial, with a window of its own
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// end writes down how a trial ended. A sick host is made permissive first.
func (w *watcher) end(ctx context.Context, t *Trial, phase Phase, reason string, v view, told func(status string, news bool)) error {
	if phase == TrialFailed && t.Domain == "" { // cure first, and then write down what happened
		if !LoadState(w.Root).Guard.underWay(w.Boot) {
			return nil // somebody ended it while the watch looked
		}
		if err := w.Kernel.SetEnforcing(false); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, 10*lookInterval)
	if err := w.count(limited, t, &v); err != nil && phase == TrialFailed {
		reason += fmt.Sprintf("; what was denied is not known: %v", err)
	}
	cancel()
	if phase == TrialSettled && t.Domain != "" && !w.inhabited {
		reason = "no process was seen in it"
	}
	var locked *hostfs.LockedError
	err := w.conclude(ctx, t, phase, reason, w.denials, v.denials)
	for ; errors.As(err, &locked); err = w.conclude(ctx, t, phase, reason, w.denials, v.denials) {
		told("the window is over; waiting for another run, to write that down", false)
	}
	return err
}

// onTrial says what is on trial.
func (t *Trial) onTrial() string {
	if t.Domain == "" {
		return "enforcing is on trial"
	}
	return "enforcing " + t.Domain + " is on trial"
}

// journalist decides which looks of a window are worth a line in the journal.
type journalist struct {
	since  time.Duration // of the window
	noted  string
	before time.Duration // of the window, at the last line
}

// news tells whether a look is worth a line: the first of a window, one that sees something else than the last, and ten in all at least.
func (j *journalist) news(t *Trial, v view) bool {
	noted := v.noted()
	every := max(10*time.Second, t.Window/10)
	if j.before > 0 && j.since == t.Since && noted == j.noted && v.elapsed < j.before+every {
		return false
	}
	j.since, j.noted, j.before = t.Since, noted, max(v.elapsed, 1)
	return true
}

// noted says what is not well, or may not be.
func (v view) noted() string {
	var notes []string
	if v.unseen > 0 {
		notes = append(notes, fmt.Sprintf("the host could not be looked at: %v", v.why))
	}
	for _, u := range v.units {
		if !healthy(u) {
			notes = append(notes, fmt.Sprintf("%s is %s (%s)", u.Name, u.Active, u.Sub))
		}
		if n := v.restarted[u.Name]; n > 0 {
			notes = append(notes, fmt.Sprintf("systemd restarted %s, %d of %d times that are too many", u.Name, n, maxRestarts))
		}
	}
	if v.denials > 0 {
		notes = append(notes, plural(uint64(v.denials), "access", "accesses")+" denied")
	}
	if len(notes) == 0 {
		return ""
	}
	return "; " + strings.Join(notes, "; ")
}

type watcher struct {
	*Host
	first   map[string]uint32 // restarts of units at the first look
	unseen  int
	denials []string
	counted time.Time // when they were counted last, where that does not end the window
	denied  int       // how many there were
	journal journalist
	// domain is the own name of the domain that is on trial, inhabited says that a process was seen in it, and logged is the number of its denials of any kind that
	// were judged last; asked is when the log was read last.
	domain    string
	inhabited bool
	logged    int
	asked     time.Time
	// window is Trial.Since of the window that is watched, began when that was by the host's clock: the earliest that was seen, as
	// the clock may be set in the middle of it.
	window time.Duration
	began  time.Time
}

func (w *watcher) look(ctx context.Context, t *Trial) view {
	ctx, cancel := context.WithTimeout(ctx, 10*lookInterval)
	defer cancel()
	v := view{restarted: map[string]uint32{}}
	if v.why = w.see(ctx, t, &v); v.why != nil {
		w.unseen++
		v.unseen = w.unseen
		return v
	}
	w.unseen = 0
	return v
}

func (w *watcher) see(ctx context.Context, t *Trial, v *view) (err error) {
	if v.enforcing, err = w.enforcing(); err != nil {
		return err
	}
	if w.Uptime != nil {
		uptime, err := w.Uptime()
		if err != nil {
			return err
		}
		v.elapsed = uptime - t.Since
	}
	if w.window != t.Since {
		w.domain, w.inhabited, w.logged, w.denied, w.denials, w.counted, w.asked = "", false, 0, 0, nil, time.Time{}, time.Time{}
	}
	if at := time.Now().Add(-v.elapsed); w.began.IsZero() || w.window != t.Since || at.Before(w.began) {
		w.window, w.began = t.Since, at
	}
	if w.Units != nil && len(t.Units) > 0 {
		if v.units, err = w.Units(ctx, t.Units...); err != nil {
			return err
		}
	}
	for _, u := range v.units {
		if _, known := w.first[u.Name]; !known || u.Restarts < w.first[u.Name] { // systemd begins anew when somebody starts it
			w.first[u.Name] = u.Restarts
		}
		v.restarted[u.Name] = u.Restarts - w.first[u.Name]
	}
	if w.Evidence.Containers != nil && len(t.Containers) > 0 {
		if v.containers, err = w.Evidence.Containers(ctx); err != nil {
			return err
		}
	}
	if w.Evidence.Unconfined != nil && len(t.Containers) > 0 && v.elapsed >= t.Window {
		if v.unconfined, err = w.Evidence.Unconfined(ctx); err != nil {
			return err
		}
	}
	switch {
	case t.MaxDenials != nil:
		return w.count(ctx, t, v)
	case w.counted.IsZero():
		w.counted = time.Now()
	case time.Since(w.counted) >= countInterval:
		// What is only reported is counted now and then, and does not end the window.
		w.counted = time.Now()
		if w.count(ctx, t, v) == nil {
			w.denied = v.denials
		}
	}
	v.denials = w.denied
	return nil
}

// countInterval is how often denials are counted that do not end the window.
const countInterval = 30 * time.Second

// count reads the denials of the window.
func (w *watcher) count(ctx context.Context, t *Trial, v *view) (err error) {
	if t.Domain != "" {
		return w.countDomain(ctx, t, v)
	}
	if w.Evidence.Stopped != nil {
		w.denials, v.denials, err = w.Evidence.Stopped(ctx, w.began)
	}
	return err
}

// conclude ends the phase that was judged. A sick host is made permissive before anything else, and again under the lock: a run that had it
// meanwhile, or a person, may have switched the kernel back.
func (h *Host) conclude(ctx context.Context, t *Trial, phase Phase, reason string, denials []string, count int) error {
	ctx = context.WithoutCancel(ctx) // what was judged is written down, also when the host goes down
	if t.Domain != "" {
		return h.concludeDomain(ctx, t, phase, reason, denials, count)
	}
	cure := func() error {
		if phase != TrialFailed {
			return nil
		}
		return h.Kernel.SetEnforcing(false)
	}
	sick := cure()
	unlock, err := h.lock(ctx)
	if err != nil {
		return errors.Join(sick, err, cure())
	}
	defer unlock()
	state := LoadState(h.Root)
	r := h.newRun(nil, state, false)
	now := concerned(t, state.Guard, h.Boot, phase)
	var asked string
	switch {
	case now != nil:
		asked = now.Asked
	case phase == TrialFailed && state.Guard == nil:
		// A run took enforcing off trial to keep it, and did not see yet that the host is sick.
		if r.declared, err = h.Declared(); err != nil || r.declared.Mode != provision.Enforcing || state.Store.Vendor == "" {
			return sick
		}
		now, asked = t, r.scene(seconfig.Config{}, false).asks
	default:
		return sick
	}
	if phase == TrialArmed || phase == TrialSettled {
		_, configured, err := readConfig(h.Root)
		if err == nil {
			err = r.preflight(configured.Taken())
		}
		if err != nil {
			phase, reason = TrialFailed, err.Error()
		} else if on, err := h.enforcing(); err == nil && !on {
			phase, reason = TrialFailed, switchedOff
		}
	}
	next := now.ended(phase, reason, asked)
	next.Denials, next.DenialCount = denials, count
	return errors.Join(cure(), r.endTrial(ctx, next))
}

// endTrial writes down how a trial ended, and what that end wants of the next boot.
func (r *run) endTrial(ctx context.Context, next *Trial) error {
	content, configured, err := readConfig(r.Root)
	if err != nil {
		return err
	}
	wants := next.Phase.wants()
	steps := append(r.configure(content, configured, wants.mode, wants.mark, next.Asked), r.recordTrial(next)...)
	enforce := Order()[len(Order())-1]
	return r.do(ctx, enforce, steps, &Result{Stage: enforce.Name})
}

// giveUpUnwatched ends a trial of a host that enforces while nobody watches, as the enforce stage could not see to that: failed is why.
func (r *run) giveUpUnwatched(ctx context.Context, failed error) error {
	if err := r.giveUpDomains(failed); err != nil {
		return err
	}
	live, err := r.enforcing()
	if err != nil || !live || !r.unwatched() {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	t := r.state.Guard
	if t == nil {
		t = &Trial{Boot: r.Boot, Tries: 1}
	}
	next := t.ended(TrialFailed, "nobody could watch: "+failed.Error(), t.Asked)
	return errors.Join(r.Kernel.SetEnforcing(false), r.endTrial(ctx, next))
}

// unwatched tells whether this boot is on trial, and nobody watches.
func (h *Host) unwatched() bool {
	t := LoadState(h.Root).Guard
	_, configured, err := readConfig(h.Root)
	onTrial := t.underWay(h.Boot) || err == nil && configured.Trial && (t == nil || t.Boot != h.Boot)
	return h.Kernel != nil && onTrial && !h.Root.Exists(watchDir)
}

// EndWatch ends a trial whose watch has ended without a verdict: the host goes down, somebody stopped the watch, or it broke. how is
// systemd's word for the end, "success" if the watch was stopped in good order.
func (h *Host) EndWatch(ctx context.Context, how string) error {
	if err := h.applicable(); err != nil {
		return err
	}
	trials := LoadState(h.Root).underWay(h.Boot)
	if len(trials) == 0 || how == "success" && !h.Root.Exists(watchDir) { // it ended by itself, and a run that begins a trial starts another
		return nil
	}
	phase, reason := TrialFailed, "the watch was stopped by hand"
	if how != "success" {
		reason = "the watch itself ended (" + how + "), so nobody saw how the host fared"
	}
	if h.Stopping != nil {
		if down, err := h.Stopping(ctx); err == nil && down {
			phase, reason = TrialInterrupted, "the host was shut down within the window"
		}
	}
	var err error
	sick := false
	for _, t := range trials {
		err = errors.Join(err, h.conclude(ctx, t, phase, reason, t.Denials, t.DenialCount))
		sick = sick || t.Domain != "" && phase == TrialFailed
	}
	if sick {
		err = errors.Join(err, h.permissiveAgain(ctx, func() {}))
	}
	return errors.Join(err, h.Root.Remove(watchDir))
}

// BeginBoot makes the next boot permissive if this one is to prove itself. It runs when nothing but the root file system is
// mounted, and asks /etc/selinux/config alone; the enforce stage does the rest.
func BeginBoot(root *hostfs.Root) (bool, error) {
	content, configured, err := readConfig(root)
	if err != nil || !configured.Trial {
		return false, err
	}
	// Nothing else runs yet, and nobody else would remove what an earlier run of this was cut off at.
	if _, err := root.Sweep(policystore.EtcDir); err != nil || configured.Mode != "enforcing" {
		return false, err
	}
	content = seconfig.SetMode(content, "permissive")
	if err := root.WriteFile(seconfig.Path, content, hostfs.Attributes{Keep: true}); err != nil {
		return false, fmt.Errorf("cannot make the next boot permissive in case that this one does not prove itself: %w", err)
	}
	return true, nil
}

package stages

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/provision"
)

// policyUnit builds the policy. The watch restarts it when a domain is to be permissive again.
const policyUnit = "selinux-provision-stage-policy.service"

// domainScene is what the enforce stage finds of a single domain. Its trial and its asks are the domain's own, its enforcing says that the host enforces
// when the stage is done, and is to.
type domainScene struct {
	scene
	was, listed bool // declared permissive when the stage ran last, and now
	guarded     bool // the guard is declared
	apart       bool // the policy in force stops nothing of it: it has no such domain, or somebody else made it permissive
}

// domainMove is one rule for a single domain.
type domainMove struct {
	when   string
	holds  func(domainScene) bool
	to     Phase
	reason string
}

// domainMoves is the machine for a single domain, like moves for the host. None stands for a domain of which nothing is to be kept: it is as it is declared.
// Whether one is given up follows from the record and the declaration alone: the policy stage asks before it is known what it makes of the policy.
func domainMoves() map[Phase][]domainMove {
	always := func(domainScene) bool { return true }
	declared := domainMove{"it is declared permissive", func(s domainScene) bool { return s.listed }, none, ""}
	unguarded := domainMove{"the guard is not declared any more", func(s domainScene) bool { return !s.guarded }, none, ""}
	apart := domainMove{"the policy stops nothing of it", func(s domainScene) bool { return s.apart }, none, ""}
	permissive := domainMove{"the host does not enforce", func(s domainScene) bool { return !s.enforcing }, TrialInterrupted, hostPermissive}
	return map[Phase][]domainMove{
		none: {
			{"it was declared permissive and is not any more", func(s domainScene) bool { return s.was && !s.listed && s.guarded && s.enforcing && !s.apart }, TrialWatched, ""},
			{"it is as any other", always, none, ""},
		},
		TrialWatched: {
			declared, unguarded,
			{"no end of the window was seen", func(s domainScene) bool { return !s.sameBoot() }, TrialFailed, cutOff},
			permissive, apart,
			{"it is under way, or begins anew with another declaration", always, TrialWatched, ""},
		},
		TrialInterrupted: {
			declared, unguarded,
			{"there is never a whole window", func(s domainScene) bool { return s.trial.Tries >= maxTries && !s.changed() }, TrialFailed,
				fmt.Sprintf("its window did not come to an end %d times in a row: the host was shut down or became permissive", maxTries)},
			permissive, apart,
			{"it begins again", always, TrialWatched, ""},
		},
		TrialFailed: {
			declared,
			{"nobody asked for it since", func(s domainScene) bool { return !s.asked() }, TrialFailed, ""},
			unguarded, permissive, apart,
			{"somebody did", always, TrialWatched, ""},
		},
	}
}

// hostPermissive is why the trial of a domain is interrupted while the host goes on running.
const hostPermissive = "the host does not enforce"

func (s domainScene) next() domainMove {
	from := none
	if s.trial != nil {
		from = s.trial.Phase
	}
	rules, known := domainMoves()[from]
	if !known {
		rules = domainMoves()[none]
	}
	return rules[slices.IndexFunc(rules, func(m domainMove) bool { return m.holds(s) })]
}

// domainScene is what the record and the declaration say of a domain; enforcing and apart are for the caller to fill in.
func (r *run) domainScene(name string) domainScene {
	s := domainScene{scene: r.scene(seconfig.Config{}, false), was: slices.Contains(r.state.Reported, name),
		listed: slices.Contains(r.declaredPermissive(), name), guarded: r.declared.Guard != nil}
	wish := r.declared.GuardFingerprint()
	s.trial, s.asks = r.state.Domains[name], hex.EncodeToString(wish[:])
	return s
}

func (r *run) declaredPermissive() (names []string) {
	for _, d := range r.declared.PermissiveDomains {
		names = append(names, d.Type)
	}
	return names
}

// givenUp gives the domains that the guard made permissive again and that nobody asked for since, in order. One whose window was cut off is among them before
// the enforce stage has written that down.
func (r *run) givenUp() (all []*Trial) {
	for _, name := range slices.Sorted(maps.Keys(r.state.Domains)) {
		s := r.domainScene(name)
		m := s.next()
		switch {
		case m.to == TrialFailed && s.trial.Phase == TrialFailed:
			all = append(all, s.trial)
		case m.to == TrialFailed:
			all = append(all, s.trial.ended(m.to, m.reason, s.asks))
		}
	}
	return all
}

// planDomains brings the trials of single domains to their next phase. before are the steps of the stage so far.
func (r *run) planDomains(ctx context.Context, before plan.Plan) (plan.Plan, error) {
	listed := r.declaredPermissive()
	names := slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.state.Reported, slices.Collect(maps.Keys(r.state.Domains))))))
	if r.Kernel == nil || !r.inForce() || len(names) == 0 && len(listed) == 0 {
		return nil, nil
	}
	enforcing, err := r.enforcing()
	if err != nil {
		return nil, err
	}
	watch := false
	for _, step := range before {
		if step.Action == "switch" {
			enforcing = step.Target == string(provision.Enforcing)
		}
		watch = watch || step.Target == WatchUnit
	}
	apart := r.stopsNothing(ctx)
	next, news := map[string]*Trial{}, []Trial{}
	underWay := false
	for _, name := range names {
		s := r.domainScene(name)
		s.enforcing, s.apart = enforcing && r.declared.Mode == provision.Enforcing, !slices.Contains(listed, name) && apart(name)
		m := s.next()
		if m.to == none {
			continue
		}
		t, err := r.domainTrial(ctx, s, name, m)
		if err != nil {
			return nil, err
		}
		next[name] = t
		if t != s.trial {
			news = append(news, *t)
		}
		underWay = underWay || t.underWay(r.Boot)
	}
	if underWay && (r.StartUnit == nil || r.Units == nil) {
		return nil, errors.New("cannot put enforcing on trial: systemd does not run here, so nobody could watch: declare guard: off")
	}
	var steps plan.Plan
	if len(news) > 0 || len(next) != len(r.state.Domains) || !slices.Equal(listed, r.state.Reported) {
		steps = append(steps, r.recordDomains(next, listed, news...))
	}
	if underWay && !watch {
		start, err := r.startWatch(ctx)
		if err != nil {
			return nil, err
		}
		steps = append(steps, start...)
	}
	return steps, nil
}

// stopsNothing tells whether the policy in force stops nothing of a domain. A policy that cannot be asked may stop something.
func (r *run) stopsNothing(ctx context.Context) func(name string) bool {
	policy := sync.OnceValue(func() (p LoadedPolicy) {
		if r.Evidence.Policy != nil {
			if asked, err := r.Evidence.Policy(ctx); err == nil {
				p = asked
			}
		}
		return p
	})
	return func(name string) bool {
		p := policy()
		return p.NoDomain != nil && p.NoDomain(name) != "" || p.Permissive != nil && p.Permissive(name)
	}
}

// domainTrial gives the record that follows from a move: the old one if the phase goes on.
func (r *run) domainTrial(ctx context.Context, s domainScene, name string, m domainMove) (*Trial, error) {
	t, err := r.trial(ctx, s.scene, move{to: m.to, reason: m.reason})
	if err != nil || t == s.trial {
		return t, err
	}
	t.Domain = name
	if m.to == TrialInterrupted && s.trial.Phase == TrialFailed {
		t.Tries = 0 // nothing of what was asked for was tried yet
	}
	if m.to != TrialWatched {
		return t, nil
	}
	if t.MaxDenials == nil {
		t.MaxDenials = new(0)
	}
	if ready := r.declared.Readiness; ready != nil {
		t.Accept = ready.Accept
	}
	return t, nil
}

// recordDomains writes the trials of domains down at once, as recordTrial does that of the host.
func (r *run) recordDomains(next map[string]*Trial, listed []string, news ...Trial) plan.Step {
	return plan.Step{Action: "record", Target: stateFile, Reason: "the trial of single domains goes on", Quiet: true,
		Do: func(context.Context) (string, error) {
			if r.state.Domains = next; len(next) == 0 {
				r.state.Domains = nil
			}
			r.state.Reported = listed
			marked := r.state.clone()
			marked.InProgress = LoadState(r.Root).InProgress
			if err := marked.save(r.Root); err != nil {
				return "", err
			}
			for _, t := range news {
				r.report(func(to Reporter) { to.Trial(t) })
			}
			return "recorded", nil
		},
	}
}

// checkDomains lists the domains that are not enforced although that is declared.
func (r *run) checkDomains() (problems []Problem) {
	if r.declared.Mode != provision.Enforcing {
		return nil
	}
	for _, t := range r.givenUp() {
		problems = append(problems, Problem{
			Problem: fmt.Sprintf("the domain %s was made permissive again by the guard at %s, and the host enforces all else: %s%s", t.Domain, t.Began.Format(time.RFC3339), t.Reason, t.denied()),
			Remedy: "correct the cause, then run: selinux-provision apply --retry-guard, or declare enforce.guard otherwise; or have it permissive as long as you like: " +
				"enforce.permissive_domains",
		})
	}
	return problems
}

// domainTrials gives the trials of single domains, in order.
func (s *State) domainTrials() (all []*Trial) {
	for _, name := range slices.Sorted(maps.Keys(s.Domains)) {
		all = append(all, s.Domains[name])
	}
	return all
}

// underWay gives the trials for which this boot's host is to be watched, the host's own first.
func (s *State) underWay(boot string) (all []*Trial) {
	for _, t := range append([]*Trial{s.Guard}, s.domainTrials()...) {
		if t.underWay(boot) {
			all = append(all, t)
		}
	}
	return all
}

// domainInterval is how often the log is asked for the denials of a domain: each time all of the window is read.
const domainInterval = 3 * lookInterval

// countDomain asks for what was denied to a domain in the window, and whether all of it is in the log.
func (w *watcher) countDomain(ctx context.Context, t *Trial, v *view) (err error) {
	if w.Evidence.Denied == nil || w.Evidence.Denials == nil {
		return errors.New("there is no log to read")
	}
	if v.elapsed < t.Window && time.Since(w.asked) < domainInterval {
		v.denials = w.denied
		return nil
	}
	if w.domain == "" {
		w.domain = t.Domain
		if w.Evidence.Policy != nil {
			policy, err := w.Evidence.Policy(ctx)
			if err != nil {
				w.domain = ""
				return err
			}
			if policy.Name != nil {
				w.domain = policy.Name(t.Domain)
			}
		}
	}
	if w.Evidence.Domains != nil && !w.inhabited {
		_, w.inhabited = w.Evidence.Domains()[w.domain]
	}
	if v.elapsed >= t.Window || time.Since(w.counted) >= countInterval {
		w.counted = time.Now()
		if v.hidden, err = w.hiddenFromLog(ctx); err != nil {
			return err
		}
	}
	logged, err := w.Evidence.Denied(ctx, w.began, w.domain)
	if err != nil {
		return err
	}
	if logged != w.logged {
		all, _, err := w.Evidence.Denials(ctx, w.began)
		if err != nil {
			return err
		}
		w.logged, w.denied, w.denials = logged, 0, nil
		for _, d := range all {
			if d.Domain == w.domain && apart(d, t.Accept) == "" {
				w.denied += int(d.Count)
				w.denials = append(w.denials, Describe(d))
			}
		}
		w.denials = w.denials[:min(len(w.denials), newestDenials)]
	}
	v.denials, w.asked = w.denied, time.Now()
	return nil
}

// hiddenFromLog says what keeps denials from the log, whatever the policy hides, "" if nothing does.
func (h *Host) hiddenFromLog(ctx context.Context) (string, error) {
	if h.Evidence.Audit != nil {
		switch _, err := h.Evidence.Audit(); {
		case errors.Is(err, kernel.ErrNoAudit):
			return noAudit(), nil
		case err != nil:
			return "", err
		}
	}
	return h.unlogged(ctx)
}

// concludeDomain ends the trial of a domain that was judged. The caller has the policy stage make a sick one permissive.
func (h *Host) concludeDomain(ctx context.Context, t *Trial, phase Phase, reason string, denials []string, count int) error {
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r := h.newRun(nil, LoadState(h.Root), false)
	now := concerned(t, r.state.Domains[t.Domain], h.Boot, phase)
	if now == nil {
		return nil
	}
	next := now.ended(phase, reason, now.Asked)
	next.Denials, next.DenialCount = denials, count
	_, err = r.endDomain(next).Do(ctx)
	return err
}

// endDomain is the step that writes down how the trial of a domain ended. Of one that passed nothing is kept.
func (r *run) endDomain(next *Trial) plan.Step {
	all := maps.Clone(r.state.Domains)
	if all == nil {
		all = map[string]*Trial{}
	}
	if all[next.Domain] = next; next.Phase == TrialSettled {
		delete(all, next.Domain)
	}
	return r.recordDomains(all, r.state.Reported, *next)
}

// permissiveAgain has the policy stage build the policy in which the domains that were given up are permissive. tick is called now and then while that lasts.
func (h *Host) permissiveAgain(ctx context.Context, tick func()) error {
	const cannot = "cannot make a domain permissive again: %w: run selinux-provision apply; the next boot does it too"
	if h.RestartUnit == nil {
		return fmt.Errorf(cannot, errors.New("systemd does not run here"))
	}
	done := make(chan error, 1)
	go func() { done <- h.RestartUnit(context.WithoutCancel(ctx), policyUnit) }()
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err != nil && !h.permissiveNow(ctx) { // the stage may have ended in part for another reason
				return fmt.Errorf(cannot, err)
			}
			return nil
		case <-ticker.C:
			tick()
		}
	}
}

// permissiveNow tells whether the policy in force has all domains permissive that were given up.
func (h *Host) permissiveNow(ctx context.Context) bool {
	if h.Evidence.Policy == nil {
		return false
	}
	p, err := h.Evidence.Policy(ctx)
	return err == nil && p.Permissive != nil && !slices.ContainsFunc(LoadState(h.Root).domainTrials(), func(t *Trial) bool {
		return t.Phase == TrialFailed && !p.Permissive(t.Domain)
	})
}

// giveUpDomains ends the trials of domains while nobody watches, as the enforce stage could not see to that: failed is why. The policy stage makes them
// permissive when it runs next.
func (r *run) giveUpDomains(failed error) error {
	if r.Kernel == nil || r.Root.Exists(watchDir) {
		return nil
	}
	reason := "nobody could watch: " + failed.Error()
	for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.state.Reported, slices.Collect(maps.Keys(r.state.Domains)))))) {
		t := r.state.Domains[name]
		if r.declared != nil && r.declared.Mode == provision.Enforcing && t == nil {
			s := r.domainScene(name)
			live, err := r.enforcing()
			if s.enforcing = live && err == nil; s.next().to == TrialWatched {
				t = &Trial{Domain: name, Phase: TrialWatched, Boot: r.Boot, Tries: 1, Asked: s.asks}
			}
		}
		if !t.underWay(r.Boot) {
			continue
		}
		if _, err := r.endDomain(t.ended(TrialFailed, reason, t.Asked)).Do(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

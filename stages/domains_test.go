package stages

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
)

// TestDomainMoves has a line for each situation that a single domain can be in when the enforce stage looks at it.
//
// Proves P4.
func TestDomainMoves(t *testing.T) {
	t.Parallel()
	const here, earlier = "boot2", "boot1"
	for _, c := range []struct {
		from Phase
		boot string // in which that phase began
		what string // what is not as usual: the host enforces, with the guard, and the domain was declared permissive before and is not now
		want Phase
	}{
		{none, "", "", TrialWatched},
		{none, "", "never declared", none},
		{none, "", "listed", none},
		{none, "", "unguarded", none},
		{none, "", "permissive", none}, // the host's own trial sees it
		{none, "", "apart", none},      // there is no such domain, or somebody else made it permissive

		{TrialWatched, here, "", TrialWatched},
		{TrialWatched, here, "declared", TrialWatched}, // anew
		{TrialWatched, here, "listed", none},
		{TrialWatched, here, "unguarded", none},
		{TrialWatched, here, "apart", none},
		{TrialWatched, here, "permissive", TrialInterrupted}, // setenforce 0, or the host's own guard
		{TrialWatched, earlier, "", TrialFailed},             // a power cut in the window
		{TrialWatched, earlier, "permissive", TrialFailed},
		{TrialWatched, earlier, "apart", TrialFailed}, // the policy stage has made it permissive by now
		{TrialWatched, earlier, "declared", TrialFailed},
		{TrialWatched, earlier, "wish", TrialFailed}, // what was tried is what failed
		{TrialWatched, earlier, "retry", TrialFailed},
		{TrialWatched, earlier, "listed", none},
		{TrialWatched, earlier, "unguarded", none},

		{TrialInterrupted, earlier, "", TrialWatched},
		{TrialInterrupted, here, "", TrialWatched}, // the host enforces again
		{TrialInterrupted, here, "permissive", TrialInterrupted},
		{TrialInterrupted, earlier, "2 tries", TrialWatched},
		{TrialInterrupted, earlier, "3 tries", TrialFailed},
		{TrialInterrupted, earlier, "3 tries, permissive", TrialFailed},
		{TrialInterrupted, earlier, "3 tries, declared", TrialWatched},
		{TrialInterrupted, earlier, "listed", none},
		{TrialInterrupted, earlier, "unguarded", none},
		{TrialInterrupted, earlier, "apart", none},

		{TrialFailed, here, "", TrialFailed},
		{TrialFailed, earlier, "", TrialFailed},
		{TrialFailed, earlier, "permissive", TrialFailed},
		{TrialFailed, earlier, "apart", TrialFailed}, // by us
		{TrialFailed, earlier, "declared", TrialFailed},
		{TrialFailed, earlier, "listed", none},
		{TrialFailed, earlier, "wish", TrialWatched},
		{TrialFailed, earlier, "retry", TrialWatched},
		{TrialFailed, earlier, "retry, permissive", TrialInterrupted}, // when the host enforces
		{TrialFailed, earlier, "retry, apart", none},
		{TrialFailed, earlier, "wish, unguarded", none}, // guard: off
		{TrialFailed, earlier, "unguarded", TrialFailed},

		{"nothing that is known", earlier, "", TrialWatched},
	} {
		has := func(what string) bool { return slices.Contains(strings.Split(c.what, ", "), what) }
		s := domainScene{scene: scene{boot: here, enforcing: !has("permissive"), retry: has("retry"), fingerprint: "f", asks: "a"},
			was: !has("never declared"), listed: has("listed"), guarded: !has("unguarded"), apart: has("apart")}
		if c.from != none {
			s.trial = &Trial{Phase: c.from, Domain: "site_t", Boot: c.boot, Tries: 1, Fingerprint: "f", Asked: "a"}
			if n, _, ok := strings.Cut(c.what, " tries"); ok {
				s.trial.Tries = int(n[0] - '0')
			}
		}
		if has("declared") || has("wish") {
			s.fingerprint = "another"
		}
		if has("wish") {
			s.asks = "another"
		}
		m := s.next()
		if m.to != c.want || (m.reason == "") != (m.to != TrialFailed || c.from == TrialFailed) && m.to != TrialInterrupted {
			t.Errorf("%q, begun in %s, %s: %q (%s), want %q", string(c.from), c.boot, c.what, string(m.to), m.reason, string(c.want))
		}
		// The policy stage asks before it is known whether the host enforces, and what the policy stops.
		other := s
		other.enforcing, other.apart = !s.enforcing, !s.apart
		if failed := m.to == TrialFailed; (other.next().to == TrialFailed) != failed {
			t.Errorf("%q, begun in %s, %s: whether it is given up depends on what the policy stage does not know", string(c.from), c.boot, c.what)
		}
	}
}

// What ends the trial of a domain, beside what ends that of a host.
func TestDomainJudge(t *testing.T) {
	t.Parallel()
	const window = time.Minute
	for _, c := range []struct {
		name   string
		view   view
		most   int
		want   Phase
		reason string
	}{
		{"nothing yet", view{enforcing: true}, 0, TrialWatched, ""},
		{"well", view{enforcing: true, elapsed: window}, 0, TrialSettled, ""},
		{"denied", view{enforcing: true, denials: 1}, 0, TrialFailed, "1 access was denied to it, and at most 0 may be"},
		{"denied too often", view{enforcing: true, denials: 4}, 3, TrialFailed, "4 accesses were denied to it, and at most 3 may be"},
		{"denied as often as it may be", view{enforcing: true, denials: 3, elapsed: window}, 3, TrialSettled, ""},
		{"not logged", view{enforcing: true, hidden: "a rule"}, 0, TrialFailed, "what is denied to it is not known: a rule"},
		{"not seen", view{unseen: 4, why: errors.New("no log")}, 0, TrialWatched, ""},
		{"never seen", view{unseen: 5, why: errors.New("no log")}, 0, TrialFailed, "the host could not be looked at 5 times in a row: no log"},
		{"a permissive host", view{denials: 9}, 0, TrialInterrupted, hostPermissive},
		{"a unit", view{enforcing: true, units: []systemd.UnitState{{Name: "a.service", Load: "loaded", Active: "failed"}}}, 0, TrialFailed, "a.service failed"},
	} {
		trial := &Trial{Phase: TrialWatched, Domain: "site_t", Window: window, MaxDenials: &c.most}
		if got, reason := trial.judge(c.view); got != c.want || reason != c.reason {
			t.Errorf("%s: %s (%s), want %s (%s)", c.name, string(got), reason, string(c.want), c.reason)
		}
	}
}

const (
	siteModule = "(type site_t)\n(roletype system_r site_t)\n(type other_t)\n(roletype system_r other_t)\n"
	withList   = guarded + "  permissive_domains: [other_t, site_t]\n"
	shortList  = guarded + "  permissive_domains: [other_t]\n"
)

// canary is a computer that enforces for good and has single domains permissive, with a log of what they are denied.
type canary struct {
	*computer
	denied   map[string]int // by domain, in the window
	accepted string         // the ID of the findings
	hidden   bool           // the log cannot be read
	reported []Trial
	restarts int // of the policy stage
}

// Trial is told by the stage and by the watch.
func (c *canary) Trial(trial Trial) { c.reported = append(c.reported, trial) }

type canaryReporter struct {
	Reporter
	*canary
}

func (r canaryReporter) Trial(trial Trial) { r.canary.Trial(trial) }

func newCanary(t *testing.T) *canary {
	t.Helper()
	c := &canary{computer: newComputer(t, withList), accepted: "0a1b2c"}
	c.tree.Write("etc/selinux-provision/modules/site.cil", siteModule)
	return c
}

// build runs the stages before enforce, as a boot and apply do.
func (c *canary) build() {
	c.t.Helper()
	h := host(c.t, c.tree)
	h.Boot, h.RetryGuard = c.host.Boot, c.host.RetryGuard
	results, err := h.Run(context.Background(), []string{"policystore", "policy"}, false)
	if err != nil || results[1].Err != nil {
		c.t.Fatal(results, err)
	}
}

// up boots, with all stages.
func (c *canary) up() Result {
	c.t.Helper()
	c.on()
	if _, err := BeginBoot(c.host.Root); err != nil {
		c.t.Fatal(err)
	}
	c.equip(c.host)
	c.build()
	return c.enforce()
}

func (c *canary) equip(h *Host) {
	h.RestartUnit = func(_ context.Context, unit string) error {
		if unit != policyUnit {
			c.t.Errorf("%s is restarted", unit)
		}
		c.restarts++
		c.build()
		return nil
	}
	h.Evidence.Policy = func(context.Context) (LoadedPolicy, error) {
		return loadedPolicy(policydb.Read(seconfig.OpenPolicy(h.Root, seconfig.Dir, "mcs")))
	}
	h.Evidence.Denied = func(_ context.Context, _ time.Time, domain string) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hidden {
			return 0, errors.New("no journal")
		}
		return c.denied[domain], nil
	}
	h.Evidence.Denials = func(context.Context, time.Time) (all []*judge.Finding, _ avc.Stats, _ error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for domain, n := range c.denied {
			all = append(all, &judge.Finding{ID: c.accepted, Group: avc.Group{Kind: avc.Denied, Domain: domain, Count: uint64(n), Class: "file", Target: "etc_t"}})
		}
		return all, avc.Stats{}, nil
	}
	h.Evidence.Domains = func() map[string]time.Duration { return map[string]time.Duration{"site_t": 0} }
}

func (c *canary) declare(config string) Result {
	c.t.Helper()
	c.tree.Write(configFile, config)
	c.build()
	return c.enforce()
}

// domain checks the phase of a domain's trial, and which domains are permissive in the policy that the next boot loads. The host enforces for good all the time.
func (c *canary) domain(when string, phase Phase, permissive ...string) {
	c.t.Helper()
	got := none
	if trial := LoadState(c.host.Root).Domains["site_t"]; trial != nil {
		got = trial.Phase
	}
	if domains := permissiveIn(c.t, c.tree); got != phase || !slices.Equal(domains, permissive) {
		c.t.Errorf("%s: phase %q, permissive %v; want %q, %v", when, string(got), domains, string(phase), permissive)
	}
	c.is(when, TrialSettled, true, "enforcing")
}

// settle takes the host through its own trial.
func (c *canary) settle() {
	c.t.Helper()
	c.up()
	c.watch(context.Background())
	c.up()
	c.watch(context.Background())
	c.domain("proven", none, "other_t", "site_t")
}

// A domain that is not declared permissive any more is on trial by itself: sick, it is permissive again and the host goes on enforcing, until the operator says
// otherwise; through boots, updates and power cuts.
//
// Proves P4.
func TestDomainTrial(t *testing.T) {
	t.Parallel()
	c := newCanary(t)
	synctest.Test(t, func(t *testing.T) {
		c.settle()

		c.declare(shortList)
		c.domain("taken out", TrialWatched, "other_t")
		if got := c.problems(); !strings.Contains(got, "enforcing site_t is on trial: it is made permissive again if it gets sick, and the host goes on enforcing, 1m0s left: wait") {
			t.Errorf("status says %s", got)
		}
		if r := c.enforce(); r.Outcome != Unchanged {
			t.Errorf("the stage again: %+v", r)
		}
		begin := time.Now()
		time.AfterFunc(10*time.Second, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.denied = map[string]int{"site_t": 3, "other_t": 5}
		})
		c.watch(t.Context())
		if took := time.Since(begin); took > 10*time.Second+domainInterval+2*lookInterval || c.restarts != 1 {
			t.Errorf("it took %s, and the policy was built %d times", took, c.restarts)
		}
		c.domain("sick", TrialFailed, "other_t", "site_t")
		trial := LoadState(c.host.Root).Domains["site_t"]
		if trial.Reason != "3 accesses were denied to it, and at most 0 may be" || trial.DenialCount != 3 || len(trial.Denials) != 1 || !strings.Contains(trial.Denials[0], "site_t") {
			t.Errorf("the record: %+v", trial)
		}
		said := func(when string) {
			t.Helper()
			got := c.problems()
			if !strings.Contains(got, "the domain site_t was made permissive again by the guard at ") || !strings.Contains(got, "3 accesses were denied to it") || !strings.Contains(got, "--retry-guard") {
				t.Errorf("%s: status says %s", when, got)
			}
			s, err := c.host.Status(t.Context())
			if err != nil || len(s.DomainTrials) != 1 {
				t.Fatal(s, err)
			}
			domains, err := host(t, c.tree).Status(t.Context())
			if n := len(domains.Permissive); err != nil || n == 0 || domains.Permissive[n-1].String() != "site_t is permissive: made permissive again by the guard, because 3 accesses were denied to it, and at most 0 may be" {
				t.Errorf("%s: status says of the domains: %v, %v", when, domains.Permissive, err)
			}
		}
		said("sick")
		if r := c.enforce(); r.Outcome != Partly || len(r.Done) != 0 || len(r.Problems) != 1 {
			t.Errorf("the stage: %+v", r)
		}
		before := snapshot(t, c.tree.Dir, "/run")
		c.denied = nil
		c.up()
		c.domain("a boot later", TrialFailed, "other_t", "site_t")
		compare(t, "a boot later", snapshot(t, c.tree.Dir, "/run"), before)
		said("a boot later")

		// Another policy is no wish, nor is an update, nor another domain in the list.
		c.tree.Image(2)
		c.up()
		c.watch(t.Context())
		c.domain("updated", TrialFailed, "other_t", "site_t")
		said("updated")
		c.declare(guarded)
		c.watch(t.Context())
		c.domain("another domain is enforced", TrialFailed, "site_t")
		said("another domain is enforced")

		c.host.RetryGuard = true
		c.build()
		c.enforce()
		c.host.RetryGuard = false
		c.domain("asked for", TrialWatched)
		c.up()
		c.domain("after a power cut", TrialFailed, "site_t")
		if got := c.problems(); !strings.Contains(got, "by a crash, a reset or a power cut") {
			t.Errorf("status says %s", got)
		}

		c.declare(guarded + "  permissive_domains: [site_t]\n")
		c.domain("declared", none, "site_t")
		c.declare(guarded)
		c.domain("declared no more", TrialWatched)
		c.reported = nil
		c.host.Reporter = canaryReporter{canary: c}
		c.watch(t.Context())
		c.host.Reporter = nil
		c.domain("passed", none)
		if len(c.reported) != 1 || c.reported[0].Phase != TrialSettled || c.reported[0].Domain != "site_t" || c.reported[0].Reason != "" {
			t.Errorf("reported: %+v", c.reported)
		}
		if got := c.problems(); got != "" {
			t.Errorf("status says %s", got)
		}

		// Nothing of it is left after revert.
		c.declare(guarded + "  permissive_domains: [site_t]\n")
		c.declare(guarded)
		c.denied = map[string]int{"site_t": 1}
		c.watch(t.Context())
		c.domain("sick again", TrialFailed, "site_t")
		if _, err := host(t, c.tree).Revert(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if got := permissiveIn(t, c.tree); got != nil || LoadState(c.host.Root).Domains != nil {
			t.Errorf("after revert: %v, %+v", got, LoadState(c.host.Root).Domains)
		}
	})
}

// What makes a domain permissive again, and what does not.
//
// Proves P4.
func TestDomainGetsSick(t *testing.T) {
	t.Parallel()
	base := newCanary(t)
	synctest.Test(t, func(t *testing.T) { base.settle() })
	for _, test := range []struct {
		name   string
		config string
		do     func(c *canary)
		want   Phase // none: it passed
		reason string
	}{
		{"well", shortList, func(*canary) {}, none, ""},
		{"denied", shortList, func(c *canary) { c.denied = map[string]int{"site_t": 1} }, TrialFailed, "1 access was denied to it"},
		{"others are denied", shortList, func(c *canary) { c.denied = map[string]int{"container_t": 100} }, none, ""},
		{"denied what is accepted", shortList + "readiness: {accept: [0a1b2c]}\n", func(c *canary) { c.denied = map[string]int{"site_t": 100} }, none, ""},
		{"denied as often as it may be", strings.Replace(shortList, "1m,", "1m, max_denials: 2,", 1), func(c *canary) { c.denied = map[string]int{"site_t": 2} }, none, ""},
		{"denied too often", strings.Replace(shortList, "1m,", "1m, max_denials: 2,", 1), func(c *canary) { c.denied = map[string]int{"site_t": 3} }, TrialFailed, "3 accesses were denied to it, and at most 2 may be"},
		{"a unit breaks", shortList, func(c *canary) { c.docker.Active, c.docker.Result = "failed", "exit-code" }, TrialFailed, "docker.service failed (exit-code)"},
		{"no log", shortList, func(c *canary) { c.hidden = true }, TrialFailed, "the host could not be looked at 5 times in a row: no journal"},
		{"setenforce 0", shortList, func(c *canary) { c.tree.Write(kernelDir+"/enforce", "0") }, TrialInterrupted, hostPermissive},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &canary{computer: &computer{t: t, tree: copyTree(t, base.tree.Dir), boots: base.boots}, accepted: base.accepted}
			synctest.Test(t, func(t *testing.T) {
				c.up()
				c.declare(test.config)
				time.AfterFunc(10*time.Second, func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					test.do(c)
				})
				c.watch(t.Context())
				trial := LoadState(c.host.Root).Domains["site_t"]
				if test.want == none {
					c.domain(test.name, none, "other_t")
					return
				}
				if trial == nil || trial.Phase != test.want || !strings.HasPrefix(trial.Reason, test.reason) {
					t.Fatalf("%+v, want %q: %s", trial, string(test.want), test.reason)
				}
				if test.want == TrialFailed {
					c.docker.Active, c.hidden = "active", false
					c.domain(test.name, TrialFailed, "other_t", "site_t")
					return
				}
				// The host enforces again: so does the trial begin again.
				c.tree.Write(kernelDir+"/enforce", "1")
				c.enforce()
				c.domain("enforcing again", TrialWatched, "other_t")
				if tries := LoadState(c.host.Root).Domains["site_t"].Tries; tries != 2 {
					t.Errorf("try number %d", tries)
				}
			})
		})
	}
}

// The watch that ends without a verdict: at a shutdown the next boot tries again, but not for ever; else the domain is permissive.
//
// Proves P4.
func TestDomainWatchEnds(t *testing.T) {
	t.Parallel()
	c := newCanary(t)
	synctest.Test(t, func(t *testing.T) {
		c.settle()
		c.declare(shortList)
		for try := 1; ; try++ {
			c.going = true
			if err := c.host.EndWatch(t.Context(), "success"); err != nil {
				t.Fatal(err)
			}
			c.domain("going down", TrialInterrupted, "other_t")
			c.up()
			if LoadState(c.host.Root).Domains["site_t"].Phase == TrialFailed {
				if try != maxTries {
					t.Errorf("given up after %d", try)
				}
				break
			}
			c.domain("tried again", TrialWatched, "other_t")
		}
		c.domain("given up", TrialFailed, "other_t", "site_t")
		for how, reason := range map[string]string{"success": "the watch was stopped by hand", "watchdog": "the watch itself ended (watchdog)"} {
			c.host.RetryGuard = true
			c.build()
			c.enforce()
			c.host.RetryGuard = false
			c.domain("again", TrialWatched, "other_t")
			if err := c.host.EndWatch(t.Context(), how); err != nil {
				t.Fatal(err)
			}
			c.domain(how, TrialFailed, "other_t", "site_t")
			if got := LoadState(c.host.Root).Domains["site_t"].Reason; !strings.Contains(got, reason) {
				t.Errorf("the reason is %q, want %q", got, reason)
			}
		}

		// Nobody can watch.
		c.host.RetryGuard, c.watched = true, false
		c.host.StartUnit = func(context.Context, string) error { return errors.New("no bus") }
		c.build()
		if r := c.enforce(); r.Outcome != Failed || !strings.Contains(r.Error, "no bus") {
			t.Errorf("%+v", r)
		}
		c.host.RetryGuard = false
		c.build()
		c.domain("nobody watches", TrialFailed, "other_t", "site_t")
	})
}

// TestDomainKilled kills each step of a domain's trial at each call that changes something, and boots: a domain that was found sick is permissive, and no domain is
// enforced with a window that nobody saw the end of.
//
// Proves P4: each step killed at each call that changes something.
func TestDomainKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	c := newCanary(t)
	synctest.Test(t, func(t *testing.T) {
		c.settle()
		c.tree.Write(configFile, shortList)
		c.build()
	})
	for _, step := range []struct {
		name        string
		after, done []Phase // that the boot after it comes to
	}{
		{"domain stage", []Phase{TrialWatched, TrialFailed}, []Phase{TrialFailed}},
		{"domain sick", []Phase{TrialFailed}, []Phase{TrialFailed}},
		{"domain end", []Phase{TrialFailed, TrialWatched}, []Phase{TrialWatched}},
		{"domain passed", []Phase{TrialFailed, none}, []Phase{none}},
	} {
		look := func(what string, tree *computer, want []Phase) {
			t.Helper()
			next := &canary{computer: tree}
			next.on()
			next.equip(next.host)
			next.declaring(shortList) // as if the policy stage had built what it is to build
			up := next.givenUpDomains()
			next.enforce()
			phase := none
			if trial := LoadState(next.host.Root).Domains["site_t"]; trial != nil {
				phase = trial.Phase
			}
			if !slices.Contains(want, phase) || (phase == TrialFailed) != slices.Contains(up, "site_t") {
				t.Fatalf("%s: the next boot comes to %q, and has %v permissive again", what, string(phase), up)
			}
			noLeftovers(t, tree.tree)
		}
		for _, call := range []string{"renameat", "renameat2", "fsync", "unlinkat", "linkat"} {
			for n := 1; ; n++ {
				tree := copyTree(t, c.tree.Dir)
				if !killAt(t, tree.Dir, "guard "+step.name, call, n, false) {
					break
				}
				look(fmt.Sprintf("%s killed at %s %d", step.name, call, n), &computer{t: t, tree: tree, boots: c.boots}, step.after)
			}
		}
		done := copyTree(t, c.tree.Dir)
		guardStep(t, done.Dir, step.name)
		look(step.name+" carried out", &computer{t: t, tree: done, boots: c.boots}, step.done)
		if step.name == "domain stage" {
			guardStep(t, c.tree.Dir, step.name)
		}
	}
}

// givenUpDomains gives what the policy stage makes permissive of what was given up.
func (c *computer) givenUpDomains() (names []string) {
	declared, err := provision.Load(c.host.Root, "")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, trial := range c.host.newRun(declared, LoadState(c.host.Root), false).givenUp() {
		names = append(names, trial.Domain)
	}
	return names
}

// Each phase of a domain has a move for whatever is found, and each move leads to a phase that has moves.
func TestDomainMovesAreClosed(t *testing.T) {
	t.Parallel()
	for phase, rules := range domainMoves() {
		if last := rules[len(rules)-1]; !last.holds(domainScene{scene: scene{trial: &Trial{}}}) {
			t.Errorf("%q has no move that is always made", string(phase))
		}
		for _, m := range rules {
			if _, known := domainMoves()[m.to]; !known {
				t.Errorf("%q leads to %q, which has no moves", string(phase), string(m.to))
			}
		}
	}
	if got := slices.Sorted(maps.Keys(domainMoves())); len(got) != 4 {
		t.Errorf("phases: %v", got)
	}
}

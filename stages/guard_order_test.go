package stages

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	state.Store.Policy.Declared = declaredPolicy(&run{declared: declared}).Digest
	if err := state.save(c.host.Root); err != nil {
		c.t.Fatal(err)
	}
}

const otherPolicy = guarded + "policy: {booleans: {container_use_nfs: true}}\n"

// TestGuardGivesUpBesideApply: the watch finds the host sick while an apply with another policy is at work and outlasts the window. The host
// ends permissive with the watch's reason, and stays so until somebody asks.
//
// Proves P4.
func TestGuardGivesUpBesideApply(t *testing.T) {
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
				go func() { watched <- c.host.Watch(t.Context(), func(string) {}) }()
				applying := *c.host
				applying.LockWait, applying.Reporter = time.Hour, nil
				calls := 0
				applying.Declared = func() (*provision.State, error) {
					if calls++; calls == 2 { // it has the lock: the policy stage takes this long
						time.Sleep(2 * time.Minute)
						c.declaring(otherPolicy)
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

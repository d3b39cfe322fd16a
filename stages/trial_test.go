package stages

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
)

// file gives what /etc/selinux/config says: "enforcing", "permissive*" with the mark of a trial.
func file(text string) seconfig.Config {
	mode, marked := strings.CutSuffix(text, "*")
	return seconfig.Config{Mode: mode, Type: "mcs", Trial: marked}
}

// TestTrialMoves has a line for each situation that a host can be in when the enforce stage looks at it.
//
// Proves P4.
func TestTrialMoves(t *testing.T) {
	t.Parallel()
	const here, earlier = "boot2", "boot1"
	for _, c := range []struct {
		from      Phase
		boot      string // in which that phase began
		enforcing bool
		config    string
		what      string // "policy": another one is in force; "wish": mode or enforce; "declared": something else changed; "retry"; "N tries"
		want      Phase
	}{
		{none, "", false, "permissive", "", TrialWatched},
		{none, "", false, "enforcing", "", TrialWatched},   // somebody ran setenforce 0 before the guard was declared
		{none, "", true, "permissive", "", TrialWatched},   // somebody ran setenforce 1
		{none, "", true, "enforcing", "", TrialSettled},    // enforcing for good before the guard was declared, or the record is lost
		{none, "", true, "permissive*", "", TrialProving},  // the record is lost in the boot that proves
		{none, "", false, "permissive*", "", TrialWatched}, // the same, a boot later

		{TrialWatched, here, true, "permissive", "", TrialWatched},
		{TrialWatched, here, true, "permissive", "declared", TrialWatched},
		{TrialWatched, here, false, "permissive", "", TrialFailed},
		{TrialWatched, here, false, "permissive", "policy", TrialFailed}, // the watch gave up while a run built another policy
		{TrialWatched, here, false, "permissive", "wish", TrialFailed},   // that was declared before it
		{TrialWatched, here, false, "permissive", "retry", TrialFailed},  // that was asked before it
		{TrialWatched, here, true, "permissive", "retry", TrialWatched},
		{TrialWatched, earlier, false, "permissive", "", TrialFailed},         // power cut in the window
		{TrialWatched, earlier, true, "permissive*", "", TrialProving},        // power cut between file and record, then a boot that marked itself
		{TrialWatched, earlier, true, "enforcing*", "", TrialProving},         // the same, where nothing marks the boot early
		{TrialWatched, earlier, false, "permissive*", "", TrialFailed},        // the same, and that boot ended too
		{TrialWatched, earlier, true, "permissive", "", TrialFailed},          // and enforcing=1 on the command line
		{TrialWatched, earlier, true, "enforcing", "", TrialProving},          // somebody wrote the file
		{TrialWatched, earlier, false, "permissive", "declared", TrialFailed}, // what was tried is what failed

		{TrialArmed, here, true, "enforcing*", "", TrialArmed},
		{TrialArmed, here, false, "enforcing*", "", TrialArmed},
		{TrialArmed, here, true, "enforcing*", "policy", TrialWatched}, // that one was never seen to enforce
		{TrialArmed, here, true, "enforcing*", "declared", TrialArmed},
		{TrialArmed, earlier, true, "permissive*", "", TrialProving}, // as it is to be
		{TrialArmed, earlier, true, "enforcing*", "", TrialProving},  // nothing marked the boot early
		{TrialArmed, earlier, false, "permissive*", "", TrialFailed}, // a boot marked itself and ended before this stage
		{TrialArmed, earlier, false, "permissive", "", TrialWatched}, // somebody edited the file
		{TrialArmed, earlier, false, "permissive", "2 tries", TrialWatched},
		{TrialArmed, earlier, false, "permissive", "3 tries", TrialFailed}, // and goes on with it
		{TrialArmed, earlier, false, "permissive", "3 tries, declared", TrialWatched},
		{TrialArmed, earlier, true, "permissive*", "3 tries", TrialProving},
		{TrialArmed, earlier, false, "enforcing*", "", TrialWatched}, // somebody ran setenforce 0 early in this boot

		{TrialProving, here, true, "permissive*", "", TrialProving},
		{TrialProving, here, true, "permissive*", "policy", TrialProving},
		{TrialProving, here, false, "permissive*", "", TrialFailed},
		{TrialProving, here, false, "permissive*", "policy", TrialFailed},
		{TrialProving, here, false, "permissive*", "wish", TrialFailed},
		{TrialProving, here, false, "permissive*", "retry", TrialFailed},
		{TrialProving, earlier, false, "permissive*", "", TrialFailed}, // power cut in the window
		{TrialProving, earlier, true, "enforcing", "", TrialSettled},   // power cut between file and record
		{TrialProving, earlier, false, "enforcing", "", TrialSettled},  // the same, and somebody ran setenforce 0
		{TrialProving, earlier, true, "enforcing*", "", TrialFailed},   // nothing writes that here

		{TrialSettled, earlier, true, "enforcing", "", TrialSettled},
		{TrialSettled, earlier, false, "enforcing", "", TrialSettled}, // somebody ran setenforce 0
		{TrialSettled, earlier, true, "permissive", "", TrialSettled}, // somebody edited the file
		{TrialSettled, earlier, true, "enforcing", "declared", TrialSettled},
		{TrialSettled, earlier, true, "enforcing", "policy", TrialProving}, // an OS update, or a new module
		{TrialSettled, earlier, false, "enforcing", "policy", TrialWatched},

		{TrialInterrupted, earlier, false, "permissive", "", TrialWatched},
		{TrialInterrupted, earlier, false, "permissive", "2 tries", TrialWatched},
		{TrialInterrupted, earlier, false, "permissive", "3 tries", TrialFailed},
		{TrialInterrupted, earlier, false, "permissive", "3 tries, declared", TrialWatched},

		{TrialFailed, here, false, "permissive", "", TrialFailed},
		{TrialFailed, earlier, false, "permissive", "", TrialFailed},
		{TrialFailed, earlier, true, "permissive", "", TrialFailed}, // setenforce 1 for this boot
		{TrialFailed, earlier, true, "enforcing", "", TrialSettled}, // somebody decided
		{TrialFailed, earlier, false, "permissive", "wish", TrialWatched},
		{TrialFailed, earlier, false, "permissive", "declared", TrialFailed},
		{TrialFailed, earlier, false, "permissive", "policy", TrialFailed},
		{TrialFailed, earlier, false, "permissive", "wish unknown", TrialFailed}, // the record is of an earlier version
		{TrialFailed, here, false, "permissive", "retry", TrialWatched},

		{"of a later version", here, false, "permissive", "", TrialWatched},
	} {
		t.Run(fmt.Sprintf("%s/%s/%v/%s/%s", c.from, c.boot, c.enforcing, c.config, c.what), func(t *testing.T) {
			s := scene{boot: here, enforcing: c.enforcing, config: file(c.config), fingerprint: "f", policy: "p", asks: "a", retry: strings.Contains(c.what, "retry")}
			if c.from != none {
				s.trial = &Trial{Phase: c.from, Boot: c.boot, Fingerprint: "f", Policy: "p", Asked: "a", Tries: 1}
				switch c.what {
				case "wish unknown":
					s.trial.Asked = ""
				case "wish":
					s.trial.Fingerprint, s.trial.Asked = "g", "b"
				}
				if strings.Contains(c.what, "declared") {
					s.trial.Fingerprint = "g"
				}
				if strings.Contains(c.what, "policy") {
					s.trial.Fingerprint, s.trial.Policy = "g", "q"
				}
				_, _ = fmt.Sscanf(c.what, "%d tries", &s.trial.Tries)
			}
			m := s.next()
			if m.to != c.want {
				t.Errorf("%s, because %s; want %s", m.to, m.when, c.want)
			}
			if (m.reason != "") != (m.to == TrialFailed && c.from != TrialFailed) {
				t.Errorf("%s with the reason %q", m.to, m.reason)
			}
		})
	}
}

// Each phase has its moves, and the last of them always holds.
func TestTrialMovesAreComplete(t *testing.T) {
	t.Parallel()
	for _, p := range []Phase{none, TrialWatched, TrialArmed, TrialProving, TrialSettled, TrialInterrupted, TrialFailed} {
		rules := moves()[p]
		if len(rules) == 0 {
			t.Fatalf("%q has no moves", p)
		}
		if p.String() == "" {
			t.Errorf("%q has no words", p)
		}
		for _, s := range []scene{{trial: &Trial{}}, {trial: &Trial{Boot: "a"}, enforcing: true, config: file("enforcing*")}} {
			if !rules[len(rules)-1].holds(s) {
				t.Errorf("the last move of %q does not always hold", p)
			}
		}
	}
	if len(moves()) != 7 {
		t.Errorf("%d phases have moves", len(moves()))
	}
}

// Proves P4.
func TestTrialVerdict(t *testing.T) {
	t.Parallel()
	const window = time.Minute
	good := systemd.UnitState{Name: "a.service", Load: "loaded", Active: "active", Sub: "running", Type: "notify", Result: "success"}
	state := func(change func(*systemd.UnitState)) []systemd.UnitState {
		u := good
		change(&u)
		return []systemd.UnitState{u}
	}
	for _, c := range []struct {
		name   string
		trial  Trial
		view   view
		want   Phase // of a trial that is watched; "" is the same phase
		reason string
	}{
		{"begin", Trial{}, view{}, "", ""},
		{"not started yet", Trial{}, view{units: state(func(u *systemd.UnitState) { u.Active, u.Sub = "inactive", "dead" })}, "", ""},
		{"the last moment", Trial{}, view{elapsed: window - 1, units: []systemd.UnitState{good}}, "", ""},
		{"over", Trial{}, view{elapsed: window, units: []systemd.UnitState{good}}, TrialArmed, ""},
		{"failed", Trial{}, view{units: state(func(u *systemd.UnitState) { u.Active, u.Result = "failed", "exit-code" })}, TrialFailed, "a.service failed (exit-code)"},
		{"failed at the end", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Result = "failed", "" })}, TrialFailed, "a.service failed"},
		{"removed", Trial{}, view{units: state(func(u *systemd.UnitState) { u.Load, u.Active = "not-found", "inactive" })}, TrialFailed, "a.service cannot be used any more: systemd says not-found"},
		{"one restart", Trial{}, view{restarted: map[string]uint32{"a.service": 1}, units: []systemd.UnitState{good}}, "", ""},
		{"two restarts", Trial{}, view{restarted: map[string]uint32{"a.service": 2}, units: []systemd.UnitState{good}}, TrialFailed, "a.service does not stay up: systemd restarted it 2 times"},
		{"never started", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Sub = "inactive", "dead" })}, TrialFailed,
			"a.service is not running at the end of the window: it is inactive (dead)"},
		{"still starting", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Sub = "activating", "start" })}, TrialFailed,
			"a.service is not running at the end of the window: it is activating (start)"},
		{"oneshot that is done", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Type, u.Started = "inactive", "oneshot", true })}, TrialArmed, ""},
		{"oneshot that never ran", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Sub, u.Type = "inactive", "dead", "oneshot" })}, TrialFailed,
			"a.service is not running at the end of the window: it is inactive (dead)"},
		{"waiting for its socket", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) { u.Active, u.Triggered = "inactive", true })}, TrialArmed, ""},
		{"died, and waiting for its socket", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) {
			u.Active, u.Sub, u.Triggered, u.Result = "inactive", "dead", true, "signal"
		})}, TrialFailed,
			"a.service is not running at the end of the window: it is inactive (dead)"},
		{"oneshot that failed before", Trial{}, view{elapsed: window, units: state(func(u *systemd.UnitState) {
			u.Active, u.Sub, u.Type, u.Result = "inactive", "dead", "oneshot", "signal"
			u.Started = true
		})}, TrialFailed,
			"a.service is not running at the end of the window: it is inactive (dead)"},
		{"container there", Trial{Containers: []string{"web"}}, view{elapsed: window, containers: []string{"db", "web"}}, TrialArmed, ""},
		{"container not yet", Trial{Containers: []string{"web"}}, view{}, "", ""},
		{"container missing", Trial{Containers: []string{"web"}}, view{elapsed: window, containers: []string{"db"}}, TrialFailed, "container web is not running at the end of the window"},
		{"container that is not confined", Trial{Containers: []string{"web"}}, view{elapsed: window, containers: []string{"db", "web"},
			unconfined: []Unconfined{{Container: "web", Domain: "kernel_t", Why: "as the host's own processes run", names: []string{"web"}}}}, TrialFailed,
			"at the end of the window the policy does not confine web (kernel_t, as the host's own processes run)"},
		{"another container that is not confined", Trial{Containers: []string{"web"}}, view{elapsed: window, containers: []string{"db", "web"},
			unconfined: []Unconfined{{Container: "db", Domain: "spc_t", names: []string{"db"}}}}, TrialArmed, ""},
		{"denials are reported", Trial{}, view{elapsed: window, denials: 100}, TrialArmed, ""},
		{"denials allowed", Trial{MaxDenials: new(2)}, view{denials: 2}, "", ""},
		{"one denial too many", Trial{MaxDenials: new(2)}, view{denials: 3}, TrialFailed, "3 accesses were denied, and enforce.guard.max_denials is 2"},
		{"not seen", Trial{}, view{unseen: 4, why: errors.New("no bus"), elapsed: 2 * window}, "", ""},
		{"never seen", Trial{}, view{unseen: 5, why: errors.New("no bus")}, TrialFailed, "the host could not be looked at 5 times in a row: no bus"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for from, after := range map[Phase]Phase{TrialWatched: TrialArmed, TrialProving: TrialSettled} {
				trial, v := c.trial, c.view
				trial.Phase, trial.Window = from, window
				v.enforcing = true
				want := c.want
				switch want {
				case TrialArmed:
					want = after
				case "":
					want = from
				}
				if got, reason := trial.judge(v); got != want || reason != c.reason {
					t.Errorf("%s: %s (%s), want %s (%s)", from, got, reason, want, c.reason)
				}
			}
		})
	}
	if got, reason := (&Trial{Phase: TrialWatched, Window: window}).judge(view{}); got != TrialFailed || reason != "somebody switched the kernel to permissive" {
		t.Errorf("after setenforce 0: %s (%s)", got, reason)
	}
}

func TestUnitsThatCannotBeWatched(t *testing.T) {
	t.Parallel()
	at := provision.Position{File: "c.yaml", Line: 3}
	for want, u := range map[string]systemd.UnitState{
		"": {Name: "a.service", Load: "loaded", Active: "inactive"},
		"there is no unit a.service: correct enforce.guard.units (c.yaml:3)":                                           {Name: "a.service", Load: "not-found"},
		"systemd says that a.service is masked: correct it, or take it out of enforce.guard.units (c.yaml:3)":          {Name: "a.service", Load: "masked"},
		`a.service has failed already, before anything is enforced: repair it first, see "systemctl status a.service"`: {Name: "a.service", Load: "loaded", Active: "failed"},
	} {
		if err := fit([]systemd.UnitState{u}, at); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

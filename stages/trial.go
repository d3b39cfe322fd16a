package stages

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Phase is how far the trial of enforcing is that enforce.guard asks for. What a phase is after is in its row of wants().
type Phase string

// The phases, in their order. TrialWatched and TrialProving are under way; the others wait for the next boot, or for nothing.
const (
	// TrialWatched: the kernel was switched to enforcing in this boot, and the host is watched. The next boot is permissive.
	TrialWatched Phase = "watched"
	// TrialArmed: the host stayed well. The next boot enforces from its first instant, and is to prove itself.
	TrialArmed Phase = "armed"
	// TrialProving: this boot began enforcing, and the host is watched. The next boot is permissive until this one has proven itself.
	TrialProving Phase = "proving"
	// TrialSettled: enforcing was proven with the policy of the record, and is kept.
	TrialSettled Phase = "settled"
	// TrialInterrupted: the host was shut down in good order in the middle of a window. The next boot begins the trial again.
	TrialInterrupted Phase = "interrupted"
	// TrialFailed: back to permissive, until somebody asks for enforcing again.
	TrialFailed Phase = "failed"
)

// maxTries is how many trials in a row may be interrupted by a shutdown. A host that never stays up for one window is not one that
// was seen well.
const maxTries = 3

// Trial is the record of a trial. It holds all that the watch needs, so that a configuration that is being edited does not disturb
// one that is under way. The enforce stage writes it, and the watch (selinux-provision guard); both read it, and status.
type Trial struct {
	Phase Phase `json:"phase"`
	// Domain is the domain that is on trial while all else is enforced, by the name of its declaration; absent if it is the host.
	Domain string `json:"domain,omitempty"`
	// Boot is the ID of the boot in which the phase began, Began the time for people, Since the kernel's time since that boot
	// at which the window began. A failure keeps Boot and Since of what failed.
	Boot  string        `json:"boot"`
	Began time.Time     `json:"began"`
	Since time.Duration `json:"since_ns"`
	// Tries counts the trials with this declaration, this one included.
	Tries int `json:"tries"`
	// Fingerprint identifies everything that was declared, and the vendor's policy; Policy the policy alone; Asked what was declared
	// under mode and enforce. A window begins anew with the first, a new proof with the second, and what was given up with the third.
	Fingerprint string `json:"fingerprint"`
	Policy      string `json:"policy"`
	Asked       string `json:"asked"`

	// What is watched for how long; from the declaration.
	Window     time.Duration `json:"window_ns"`
	Units      []string      `json:"units,omitempty"`
	Containers []string      `json:"containers,omitempty"`
	// Gone are declared containers that are not watched: they ran in the boot in which the trial began, and had ended before it, as on a node that was
	// drained. Whatever ended them, it was not enforcing.
	Gone       []string `json:"gone,omitempty"`
	MaxDenials *int     `json:"max_denials,omitempty"`
	Accept     []string `json:"accept,omitempty"` // findings that are no sickness of a domain

	// Reason says why the trial failed or was interrupted.
	Reason string `json:"reason,omitempty"`
	// Denials are the newest of those that enforcing stopped in the last window, DenialCount is the number of all.
	Denials     []string `json:"denials,omitempty"`
	DenialCount int      `json:"denial_count,omitempty"`
}

// underWay tells whether this boot's host is to be watched.
func (t *Trial) underWay(boot string) bool {
	return t != nil && t.Boot == boot && (t.Phase == TrialWatched || t.Phase == TrialProving)
}

// same tells whether two records are about one window.
func (t *Trial) same(other *Trial) bool {
	return t != nil && other != nil && t.Boot == other.Boot && t.Since == other.Since
}

// row is what a phase wants of the host.
type row struct {
	kernel bool   // the kernel is to be enforcing; false: it is left alone
	mode   string // in /etc/selinux/config
	mark   bool   // seconfig.Config.Trial
	watch  bool   // the watch runs
}

func (p Phase) wants() row {
	return map[Phase]row{
		TrialWatched:     {kernel: true, mode: "permissive", watch: true},
		TrialArmed:       {kernel: true, mode: "enforcing", mark: true},
		TrialProving:     {kernel: true, mode: "permissive", mark: true, watch: true},
		TrialSettled:     {kernel: true, mode: "enforcing"},
		TrialInterrupted: {mode: "permissive"},
		TrialFailed:      {mode: "permissive"},
	}[p]
}

// scene is what the enforce stage finds.
type scene struct {
	trial       *Trial // nil: none
	boot        string
	enforcing   bool
	config      seconfig.Config
	fingerprint string
	policy      string
	asks        string // what is declared under mode and enforce
	retry       bool   // the operator says: try again
}

func (s scene) sameBoot() bool { return s.trial.Boot == s.boot }

// changed tells whether the declaration, or the vendor's policy, is another than that of the trial.
func (s scene) changed() bool { return s.trial.Fingerprint != s.fingerprint || s.retry }

// asked tells whether somebody asked for enforcing since it was given up: in words, or by another declaration of mode or enforce. Another
// policy, declared or the vendor's, is no wish.
func (s scene) asked() bool {
	return s.retry || s.trial.Asked != "" && s.trial.Asked != s.asks
}

// gaveUp tells whether the kernel went back to permissive in the window: the watch did that before it could write it down, or a person.
func (s scene) gaveUp() bool { return s.sameBoot() && !s.enforcing }

// kept tells whether the file says enforcing with no trial about it: only the end of a trial writes that, or the operator.
func (s scene) kept() bool { return s.config.Mode == "enforcing" && !s.config.Trial }

// move is one rule of the machine: in this phase, when this holds, comes that phase.
type move struct {
	when   string
	holds  func(scene) bool
	to     Phase
	reason string // of a failure
}

const none Phase = ""

// cutOff is why a trial failed of whose window no end was seen.
const cutOff = "the boot in which it was tried ended within the window, by a crash, a reset or a power cut"

// moves is the machine: of the moves of the recorded phase, the first that holds is made. Each list ends with one that always does.
// None stands for no record, or one that counts no more.
func moves() map[Phase][]move {
	always := func(scene) bool { return true }
	return map[Phase][]move{
		none: {
			{"the host enforces already, for good", func(s scene) bool { return s.enforcing && s.kept() }, TrialSettled, ""},
			{"the record of a trial is lost", func(s scene) bool { return s.enforcing && s.config.Trial }, TrialProving, ""},
			{"it begins", always, TrialWatched, ""},
		},
		TrialWatched: {
			{"the watch gave up just now, or somebody ran setenforce 0", scene.gaveUp, TrialFailed, permissiveAgain},
			{"changed while it is under way", func(s scene) bool { return s.sameBoot() && s.changed() }, TrialWatched, ""},
			{"it is under way", scene.sameBoot, TrialWatched, ""},
			{"the power was cut just after the window: the file was written and the record was not", func(s scene) bool { return s.enforcing && (s.config.Trial || s.kept()) }, TrialProving, ""},
			{"no end of the window was seen", always, TrialFailed, cutOff},
		},
		TrialArmed: {
			{"another policy than the one that was watched", func(s scene) bool { return s.sameBoot() && s.trial.Policy != s.policy }, TrialWatched, ""},
			{"the boot that is to prove it has not come", scene.sameBoot, TrialArmed, ""},
			{"it has", func(s scene) bool { return s.enforcing }, TrialProving, ""},
			{"that boot came, and ended before this stage", func(s scene) bool { return s.config.Trial && s.config.Mode == "permissive" }, TrialFailed,
				"the first boot that enforced from its beginning did not get as far as the enforce stage, or somebody else changed " + seconfig.Path},
			{"somebody keeps changing the file or the mode", func(s scene) bool { return s.trial.Tries >= maxTries && !s.changed() }, TrialFailed,
				fmt.Sprintf("the first window was passed, and then somebody changed the mode in the kernel or in %s, at try number %d", seconfig.Path, maxTries)},
			{"somebody changed the file or the mode", always, TrialWatched, ""},
		},
		TrialProving: {
			{"the watch gave up just now, or somebody ran setenforce 0", scene.gaveUp, TrialFailed, permissiveAgain},
			{"changed while it is under way", func(s scene) bool { return s.sameBoot() && s.changed() }, TrialProving, ""},
			{"it is under way", scene.sameBoot, TrialProving, ""},
			{"the power was cut just after the window: the file was written and the record was not", scene.kept, TrialSettled, ""},
			{"no end of the window was seen", always, TrialFailed, cutOff},
		},
		TrialSettled: {
			{"it was proven with this policy", func(s scene) bool { return s.trial.Policy == s.policy }, TrialSettled, ""},
			{"another policy is in force since the boot, or since just now", func(s scene) bool { return s.enforcing }, TrialProving, ""},
			{"another policy, and a permissive kernel", always, TrialWatched, ""},
		},
		TrialInterrupted: {
			{"the host never stays up for a window", func(s scene) bool { return s.trial.Tries >= maxTries && !s.changed() }, TrialFailed,
				fmt.Sprintf("the host was shut down within the window %d times in a row", maxTries)},
			{"it begins again", always, TrialWatched, ""},
		},
		TrialFailed: {
			{"somebody made the host enforce for good", func(s scene) bool { return s.enforcing && s.kept() }, TrialSettled, ""},
			{"nobody asked for it since", func(s scene) bool { return !s.asked() }, TrialFailed, ""},
			{"somebody did", always, TrialWatched, ""},
		},
	}
}

// next gives the phase that follows from what the enforce stage finds, and the reason if it is a failure that is new.
func (s scene) next() move {
	from := none
	if s.trial != nil {
		from = s.trial.Phase
	}
	rules, known := moves()[from]
	if !known {
		rules = moves()[none]
	}
	i := slices.IndexFunc(rules, func(m move) bool { return m.holds(s) })
	return rules[i]
}

// concerned gives the trial that ends when the watch judged t, and now is what the record says once the watch has the lock; nil: none does,
// since another run has ended it. A good end is one of the very trial that was judged. A bad one ends whatever is under way, as the kernel
// is permissive by then; and a stage that found it permissive has written down the failure, but did not know why.
func concerned(t, now *Trial, boot string, verdict Phase) *Trial {
	switch {
	case reflect.DeepEqual(t, now),
		!verdict.wants().kernel && now.underWay(boot),
		verdict == TrialFailed && now.same(t) && now.Phase == TrialFailed:
		return now
	}
	return nil
}

// view is what the watch sees at one look.
type view struct {
	elapsed    time.Duration // of the window
	enforcing  bool
	units      []systemd.UnitState
	restarted  map[string]uint32 // how often systemd restarted a unit since the watch began
	containers []string          // names of those that run
	unconfined []Unconfined      // those of them that the policy does not confine; looked at when the window ends
	denials    int               // that enforcing stopped in the window; of a domain, those that the policy does not allow by now and nobody accepted
	hidden     string            // why denials of a domain may not be in the log
	unseen     int               // looks in a row, this one included, that failed
	why        error             // the last of them failed
}

const (
	// maxUnseen looks in a row may fail: a bus that is busy for a moment is no sickness, a PID 1 that does not answer is.
	maxUnseen = 5
	// maxRestarts by systemd: one may be a coincidence, the second is a unit that does not stay up. A unit with Restart=always
	// hardly ever gets as far as "failed".
	maxRestarts = 2
)

const (
	// switchedOff is what the watch says of a trial that an operator ended.
	switchedOff = "somebody switched the kernel to permissive"
	// permissiveAgain is what a stage says of a trial that has ended. The watch replaces it by its reason, if the watch it was.
	permissiveAgain = "the kernel was made permissive within the window, by the watch or by hand: see: journalctl -u " + WatchUnit
)

// judge tells whether the trial is over: TrialFailed with the reason, the phase after this one if the window ended well, or the same
// phase.
func (t *Trial) judge(v view) (Phase, string) {
	after := TrialArmed
	if t.Phase == TrialProving || t.Domain != "" {
		after = TrialSettled
	}
	if v.unseen >= maxUnseen {
		return TrialFailed, fmt.Sprintf("the host could not be looked at %d times in a row: %v", v.unseen, v.why)
	}
	if v.unseen > 0 {
		return t.Phase, ""
	}
	switch {
	case v.enforcing:
	case t.Domain != "":
		return TrialInterrupted, hostPermissive
	default:
		return TrialFailed, switchedOff
	}
	if v.hidden != "" {
		return TrialFailed, "what is denied to it is not known: " + v.hidden
	}
	for _, u := range v.units {
		if reason := sickness(u, v.restarted[u.Name]); reason != "" {
			return TrialFailed, reason
		}
	}
	switch {
	case t.MaxDenials == nil || v.denials <= *t.MaxDenials:
	case t.Domain != "":
		return TrialFailed, fmt.Sprintf("%s denied to it, and at most %d may be", plural(uint64(v.denials), "access was", "accesses were"), *t.MaxDenials)
	default:
		return TrialFailed, fmt.Sprintf("%d accesses were denied, and enforce.guard.max_denials is %d", v.denials, *t.MaxDenials)
	}
	if v.elapsed < t.Window {
		return t.Phase, ""
	}
	for _, u := range v.units {
		if !healthy(u) {
			return TrialFailed, fmt.Sprintf("%s is not running at the end of the window: it is %s (%s)", u.Name, u.Active, u.Sub)
		}
	}
	for _, name := range t.Containers {
		if !slices.Contains(v.containers, name) {
			return TrialFailed, fmt.Sprintf("container %s is not running at the end of the window", name)
		}
	}
	if free := declaredUnconfined(v.unconfined, t.Containers); len(free) > 0 {
		return TrialFailed, "at the end of the window the policy does not confine " + listUnconfined(free)
	}
	return after, ""
}

// sickness says what is wrong with a unit at any time of the window, "" if nothing is.
func sickness(u systemd.UnitState, restarts uint32) string {
	switch {
	case u.Load != "loaded":
		return fmt.Sprintf("%s cannot be used any more: systemd says %s", u.Name, u.Load)
	case u.Active == "failed":
		if u.Result != "" {
			return fmt.Sprintf("%s failed (%s)", u.Name, u.Result)
		}
		return u.Name + " failed"
	case restarts >= maxRestarts:
		return fmt.Sprintf("%s does not stay up: systemd restarted it %d times", u.Name, restarts)
	}
	return ""
}

// healthy tells whether a unit is as one wants it: up, or waiting for the socket that starts it.
func healthy(u systemd.UnitState) bool {
	return up(u) || u.Triggered && u.Active == "inactive" && u.Result == "success"
}

// up tells whether a unit is active, or a oneshot service that has done its work. One that was never started says "success" too.
func up(u systemd.UnitState) bool {
	return u.Active == "active" || u.Active == "reloading" || u.Type == "oneshot" && u.Started && u.Active == "inactive" && u.Result == "success"
}

// fit tells whether the units of a trial can be watched at all, before anything is switched. An inactive unit is one whose turn in
// the boot is still to come.
func fit(units []systemd.UnitState, from provision.Position) error {
	for _, u := range units {
		switch {
		case u.Load == "not-found":
			return fmt.Errorf("there is no unit %s: correct enforce.guard.units (%s)", u.Name, from)
		case u.Load != "loaded":
			return fmt.Errorf("systemd says that %s is %s: correct it, or take it out of enforce.guard.units (%s)", u.Name, u.Load, from)
		case u.Active == "failed":
			return fmt.Errorf("%s has failed already, before anything is enforced: repair it first, see \"systemctl status %s\"", u.Name, u.Name)
		}
	}
	return nil
}

// Remaining gives what is left of the window at a time since the boot, 0 if it is over or no window is open.
func (t *Trial) Remaining(uptime time.Duration) time.Duration {
	return max(0, t.Window-(uptime-t.Since)).Round(time.Second)
}

// String says in a few words what the phase means.
func (p Phase) String() string {
	return map[Phase]string{
		none:             "none",
		TrialWatched:     "enforcing is on trial: the next boot is permissive until the window has passed",
		TrialArmed:       "enforcing passed its first window: the next boot enforces from its beginning, and is on trial",
		TrialProving:     "this boot began enforcing and is on trial: the next one is permissive until the window has passed",
		TrialSettled:     "enforcing was proven and is kept",
		TrialInterrupted: "the host was shut down within the window: the next boot begins the trial again",
		TrialFailed:      "enforcing was tried and given up",
	}[p]
}

// Says says in a few words how far the trial is.
func (t *Trial) Says() string {
	if t.Domain == "" {
		return t.Phase.String()
	}
	return "enforcing " + t.Domain + map[Phase]string{
		TrialWatched:     " is on trial: it is made permissive again if it gets sick, and the host goes on enforcing",
		TrialSettled:     " passed its window and is kept",
		TrialInterrupted: " was interrupted in its window, and is tried again",
		TrialFailed:      " was tried and given up: it is made permissive again, and the host goes on enforcing",
	}[t.Phase]
}

// watched lists what a trial looks at, for messages.
func (t *Trial) watched() string {
	all := slices.Clone(t.Units)
	for _, c := range t.Containers {
		all = append(all, containerWorkload(c))
	}
	watched := "watched: " + strings.Join(all, ", ")
	if len(all) == 0 {
		watched = "no units are declared: only whether the host keeps running is watched"
	}
	if len(t.Gone) > 0 {
		watched += "; not watched, because they had ended before: " + strings.Join(t.Gone, ", ")
	}
	return watched
}

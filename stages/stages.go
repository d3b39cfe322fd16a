// Package stages takes a host from the vendor's SELinux policy to the administrator's, one stage at a time.
//
// A stage looks at the host, gives the difference to the declared state as a plan, carries the plan out, and looks at the host
// again. It can be run at any time and any number of times: where nothing differs it changes nothing. A stage that fails
// leaves the host as it was and says so; the next boot, or the operator, runs it again.
package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Stage is one step from the vendor's machine to the declared one.
type Stage struct {
	Name  string
	Does  string
	Needs string // the stage without which this one does nothing
	plan  func(context.Context, *run) (plan.Plan, error)
	check func(context.Context, *run) ([]Problem, error) // what is not as declared although the plan was carried out
}

// Order gives the stages in the order of the boot. The systemd units, apply and status all follow it.
func Order() []Stage {
	return []Stage{
		{Name: "policystore", Does: "a writable policy store that equals this OS image's vendor policy", plan: planPolicystore},
		{Name: "policy", Does: "modules, booleans, file contexts and dontaudit, built and loaded in one go", plan: planPolicy, check: checkPolicy, Needs: "policystore"},
		{Name: "audit", Does: "denials reach the journal", plan: planAudit, check: checkAudit},
		{Name: "enforce", Does: "the mode, now and from the first instant of the next boot", plan: planEnforce, check: checkEnforce},
	}
}

// ErrNotApplicable says that there is nothing to provision here: SELinux is off, or there is no vendor policy.
var ErrNotApplicable = errors.New("not applicable here")

// ModulePriority is the priority in the module store of the modules that are declared.
const ModulePriority = policystore.Priority

// Host is what the stages work on.
type Host struct {
	Root        *hostfs.Root
	Kernel      *kernel.SELinux // nil: the root is not the running host, or SELinux is off in it
	CommandLine kernel.CommandLine
	Tools       command.Tools
	// RestartUnit and those below it talk to systemd; nil beneath a root that is not the running host.
	RestartUnit  func(ctx context.Context, unit string) error
	DisableUnits func(ctx context.Context, units ...string) error
	StopUnit     func(ctx context.Context, unit string) error
	// StartUnit starts a unit and waits until it is ready, Units asks how units fare, Stopping whether the host goes down; nil as
	// those above.
	StartUnit func(ctx context.Context, unit string) error
	Units     func(ctx context.Context, units ...string) ([]systemd.UnitState, error)
	Stopping  func(ctx context.Context) (bool, error)
	// Enablement asks whether the next boot starts units; nil as those above.
	Enablement func(ctx context.Context, units ...string) ([]systemd.Enablement, error)
	// Boot is the ID of the running boot and Uptime the time since its beginning; "" and nil beneath a root that is not the
	// running host.
	Boot   string
	Uptime func() (time.Duration, error)
	// Evidence is how the running host is looked at; nothing beneath a root that is not it.
	Evidence Evidence
	// RetryGuard asks for another trial of enforcing where one has failed.
	RetryGuard bool
	// OverwriteConfig asks that the mode be written into /etc/selinux/config although somebody else keeps changing it.
	OverwriteConfig bool
	// Declared reads what the host is to be like.
	Declared func() (*provision.State, error)
	// LockWait is how long to wait for another run.
	LockWait time.Duration
	Reporter Reporter
}

// Reporter is told what happens while it happens. Its methods are called from one goroutine.
type Reporter interface {
	Waiting(holder string)
	// Notice is called before anything is done, with what the operator must know about it.
	Notice(stage, text string)
	Started(stage string, step plan.Step)
	Finished(stage string, done plan.Done)
	Result(Result)
	// Trial is called when a trial of enforcing comes to another phase.
	Trial(Trial)
}

// Problem is something that is not as declared, and what to do about it.
type Problem struct {
	Problem string `json:"problem"` // what is wrong, in words
	Remedy  string `json:"remedy"`  // what to do about it
}

func (p Problem) String() string { return p.Problem + ": " + p.Remedy }

// Result is what became of one stage.
type Result struct {
	Stage    string      `json:"stage"`              // its name; "revert" for that command
	Outcome  Outcome     `json:"outcome"`            // in one word
	Planned  plan.Plan   `json:"planned,omitempty"`  // of a dry run
	Done     []plan.Done `json:"done,omitempty"`     // what was changed, in order
	Problems []Problem   `json:"problems,omitempty"` // what is not as declared although the stage has run
	Notes    []string    `json:"notes,omitempty"`    // what to know about it before it is done
	Error    string      `json:"error,omitempty"`    // why it failed

	Err error `json:"-"`
}

// Outcome is a stage's result in one word.
type Outcome string

// The outcomes of a stage.
const (
	Unchanged Outcome = "unchanged" // everything was as declared
	Changed   Outcome = "changed"
	Planned   Outcome = "planned" // a dry run: something would be changed
	Partly    Outcome = "partly"  // done but for the problems
	Failed    Outcome = "failed"  // nothing was done
	Skipped   Outcome = "skipped" // a stage that it needs failed
)

// run is one execution of one or more stages under one lock.
type run struct {
	*Host
	declared *provision.State
	state    *State
	unclean  bool // an earlier run was cut off while it worked on the store
	dry      bool
	looks    bool       // dry, and checks what is as planned
	held     *Readiness // why the mode was not switched, if enforce.require_readiness holds it back
	// cacheError is why the kernel's cache of decisions could not be made as declared.
	cacheError error
	foreign    *ForeignMode // what somebody else wrote into /etc/selinux/config, if it is left there
}

// Run carries out the named stages, or only plans them, under the lock. The results come in order, also when some failed. An error means that
// no stage was tried.
func (h *Host) Run(ctx context.Context, names []string, dry bool) ([]Result, error) {
	if err := h.applicable(); err != nil {
		return nil, err
	}
	if _, wrong := h.Declared(); wrong != nil && (dry || !h.goesOnWithout(names)) {
		return nil, wrong
	}
	if !dry {
		unlock, err := h.lock(ctx)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	// Whatever decides is looked at after the wait, the declaration too.
	declared, wrong := h.Declared()
	state := LoadState(h.Root)
	if !dry {
		if err := h.sweep(state); err != nil {
			return nil, err
		}
	}
	r := h.newRun(declared, state, dry)
	if wrong != nil {
		switch {
		case dry || !h.goesOnWithout(names):
			return nil, wrong
		case names[0] == "policy":
			return nil, errors.Join(wrong, r.fallBack(ctx))
		case names[0] == "policystore":
			r.declared = &provision.State{Mode: provision.Unmanaged}
		default:
			return nil, errors.Join(wrong, r.giveUpUnwatched(ctx, wrong))
		}
	}
	results := r.stages(ctx, names)
	// A stage that was cut off after its work has nothing to do the next time, and nobody else would clear its marker.
	ran := len(names) == len(Order()) || slices.Contains(names, state.InProgress)
	if !dry && ran && !r.unclean && state.InProgress != "" && !slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
		state.InProgress = ""
		return results, state.save(h.Root)
	}
	return results, nil
}

// goesOnWithout tells whether there is something to do although the declaration is wrong. The store needs none to follow an OS update, and a
// wrong one must not leave the host with the policy of an OS image that is gone, nor with a trial that nobody watches. A host that was never
// provisioned stays as it is.
func (h *Host) goesOnWithout(names []string) bool {
	return LoadState(h.Root).Store.Vendor != "" && len(names) == 1 && (names[0] == "policystore" || names[0] == "policy") ||
		slices.Contains(names, "enforce") && h.unwatched()
}

func (r *run) stages(ctx context.Context, names []string) []Result {
	var results []Result
	for _, s := range Order() {
		if !slices.Contains(names, s.Name) {
			continue
		}
		var result Result
		if err := ctx.Err(); err != nil {
			result = Result{Stage: s.Name, Outcome: Skipped, Err: fmt.Errorf("interrupted before it started: run it again: %w", err)}
		} else if i := slices.IndexFunc(results, func(r Result) bool { return r.Stage == s.Needs }); i >= 0 && (results[i].Outcome == Failed || results[i].Outcome == Skipped) {
			result = Result{Stage: s.Name, Outcome: Skipped, Err: fmt.Errorf("cannot run before stage %s has succeeded", s.Needs)}
		} else {
			result = r.stage(ctx, s)
		}
		if result.Err != nil && s.Name == "enforce" && !r.dry {
			result.Err = errors.Join(result.Err, r.giveUpUnwatched(ctx, result.Err))
		}
		var told *policystore.RoomError
		if full(result.Err) && !errors.As(result.Err, &told) {
			result.Err = fmt.Errorf("%w: make room on the disk, then run: selinux-provision apply", result.Err)
		} else if errors.Is(result.Err, syscall.ENOMEM) {
			result.Err = fmt.Errorf("%w: memory has ended if journalctl -k says so: make some free, then run: selinux-provision apply", result.Err)
		}
		if result.Err != nil {
			result.Error = result.Err.Error()
		}
		results = append(results, result)
		if r.Reporter != nil {
			r.Reporter.Result(result)
		}
	}
	return results
}

// full tells whether an error says that the disk, or a quota of it, has no more room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (h *Host) newRun(declared *provision.State, state *State, dry bool) *run {
	return &run{Host: h, declared: declared, state: state, dry: dry, unclean: unclean(state.InProgress)}
}

func (h *Host) applicable() error {
	if h.Root.IsHost() && os.Geteuid() != 0 {
		return errors.New("cannot look at the policy of the running host as an ordinary user: run it as root")
	}
	if h.Root.IsHost() && h.Kernel == nil {
		return fmt.Errorf("%w: %w: %s", ErrNotApplicable, kernel.ErrDisabled, h.enableRemedy())
	}
	// Before anything is locked or written: another operating system's host is not even to get our directory.
	if _, err := policystore.VendorType(h.Root); errors.Is(err, policystore.ErrNoVendor) {
		return fmt.Errorf("%w: %w", ErrNotApplicable, err)
	}
	return nil
}

// enableRemedy says what switches SELinux on for the next boot.
func (h *Host) enableRemedy() string {
	if c, err := seconfig.Read(h.Root, seconfig.Path); err == nil && c.Mode == "disabled" && (h.CommandLine.SELinux == nil || *h.CommandLine.SELinux) {
		return "find out who wrote SELINUX=disabled into " + seconfig.Path + ", write SELINUX=permissive there, and reboot"
	}
	if h.CommandLine.SELinux != nil && !*h.CommandLine.SELinux {
		return "remove selinux=0 from the kernel command line, and reboot"
	}
	// Either can name other modules alone (Documentation/admin-guide/kernel-parameters.txt).
	for word := range strings.FieldsSeq(h.CommandLine.Raw) {
		if name, modules, _ := strings.Cut(word, "="); (name == "security" || name == "lsm") && !strings.Contains(modules, "selinux") {
			return "the kernel command line has " + printable.Text(word) + ": remove it, or have selinux in it, and reboot"
		}
	}
	return "the kernel command line does not switch it off: either this kernel is one without SELinux (/proc/filesystems has no selinuxfs then), " +
		"or selinuxfs is not mounted on /sys/fs/selinux, as in a container: run this on the host"
}

// lock keeps other runs out.
func (h *Host) lock(ctx context.Context) (func(), error) {
	l := hostfs.Lock{File: lockDir + "/stages", Before: StateDir, Wait: h.LockWait}
	if h.Reporter != nil {
		l.Waiting = h.Reporter.Waiting
	}
	return h.Root.Lock(ctx, l)
}

// sweep removes the temporary files of a run that was cut off. Where the state says that none was, only the state's own
// directory can have one: the state is written before anything else.
func (h *Host) sweep(state *State) error {
	dirs := []string{StateDir}
	if state.InProgress != "" {
		dirs = append(dirs, "/var/lib", rulesDir, policystore.EtcDir)
		if policyType, err := policystore.FindType(h.Root); err == nil {
			etc := policystore.EtcDir + "/" + policyType
			dirs = append(dirs, etc, etc+"/policy", etc+"/contexts", etc+"/contexts/files", etc+"/contexts/users",
				policystore.StoreDir+"/"+policyType+"/active", policystore.StoreDir+"/"+policyType+"/active/modules")
		}
	}
	var err error
	for _, dir := range dirs {
		if err == nil {
			_, err = h.Root.Sweep(dir)
		}
	}
	if err == nil && state.InProgress != "" {
		err = h.shelf().Sweep()
	}
	if err != nil {
		return fmt.Errorf("cannot remove what an earlier run left behind: %w", err)
	}
	return nil
}

// stage plans, does, and checks. What a stage that fails has written into the record is taken back.
func (r *run) stage(ctx context.Context, s Stage) Result {
	result := Result{Stage: s.Name, Outcome: Unchanged}
	before := r.state.clone()
	steps, err := r.planned(ctx, s, r.etc)
	if shown := steps.Visible(); err == nil && r.dry {
		result.Planned = shown
		if len(shown) > 0 {
			result.Outcome = Planned
		}
		if len(shown) > 0 || !r.looks { // a check would find what the plan has
			return result
		}
	} else if err == nil && len(steps) > 0 {
		if len(shown) > 0 {
			result.Outcome = Changed
		}
		err = r.do(ctx, s, steps, &result)
	}
	if err != nil {
		*r.state = *before
		r.state.InProgress = LoadState(r.Root).InProgress // the marker of a host that is in between stays
		r.unclean = unclean(r.state.InProgress)
	} else {
		var problems []Problem
		problems, err = r.problems(ctx, s)
		result.Problems = append(result.Problems, problems...)
	}
	switch {
	case err != nil:
		result.Outcome, result.Err = Failed, err
	case len(result.Problems) > 0:
		result.Outcome = Partly
	}
	return result
}

// planned gives the plan of a stage, with any answer to whether /etc is whole. Each look at the host begins with what the run knew before it.
func (r *run) planned(ctx context.Context, s Stage, etc func() (identity string, whole bool)) (plan.Plan, error) {
	state, held := r.state.clone(), r.held
	return settled(ctx, etc, func() (plan.Plan, error) {
		*r.state, r.held, r.foreign = *state.clone(), held, nil
		return s.plan(ctx, r)
	})
}

// problems returns what a stage could not bring about.
func (r *run) problems(ctx context.Context, s Stage) ([]Problem, error) {
	if s.check == nil {
		return nil, nil
	}
	return Settled(ctx, r.Host, func() ([]Problem, error) { return s.check(ctx, r) })
}

// carryOut does the steps of a plan, and says so.
func (h *Host) carryOut(ctx context.Context, stage string, steps plan.Plan) (shown []plan.Done, err error) {
	done, err := steps.Do(ctx,
		func(step plan.Step) {
			if !step.Quiet {
				h.report(func(to Reporter) { to.Started(stage, step) })
			}
		},
		func(d plan.Done) {
			if !d.Quiet {
				h.report(func(to Reporter) { to.Finished(stage, d) })
			}
		})
	for _, d := range done {
		if !d.Quiet {
			shown = append(shown, d)
		}
	}
	return shown, err
}

// do carries a plan out between two writes of the state: the first says that the stage is at work, the second what it did. A
// run that is cut off leaves the first behind, and the next run knows not to trust what it finds.
func (r *run) do(ctx context.Context, s Stage, steps plan.Plan, result *Result) error {
	before := r.state.clone()
	mark := func(state *State, at moment) error {
		state.InProgress = marker(before.InProgress, s.Name, at)
		if at == begun {
			return state.begin(r.Root)
		}
		return state.save(r.Root)
	}
	if slices.ContainsFunc(steps, func(s plan.Step) bool { return !s.Quiet && !s.Volatile }) {
		if err := mark(r.state.clone(), begun); err != nil {
			return err
		}
	}
	ended := finished
	if slices.ContainsFunc(steps, func(s plan.Step) bool { return s.Cleanup != nil }) {
		ended = done
	}
	// What was done is written down as the last step, so that a failure to do so takes everything back.
	record := plan.Step{Action: "record", Target: stateFile, Reason: "the next run asks what was done", Quiet: true,
		Do: func(context.Context) (string, error) { return "recorded", mark(r.state, ended) }}
	var err error
	if result.Done, err = r.carryOut(ctx, s.Name, append(slices.Clone(steps), record)); err == nil && ended == done {
		if serr := mark(r.state, finished); serr != nil {
			err = &plan.CleanupError{Err: serr}
		}
	}
	var left *plan.CleanupError
	switch {
	case err == nil:
	case errors.As(err, &left):
		result.Problems = append(result.Problems, Problem{left.Error(), "the next run tries again; run: selinux-provision apply"})
		err = nil
	case errors.Is(err, policystore.ErrDamaged):
		return errors.Join(fmt.Errorf("%w: run selinux-provision apply, which builds it anew", err), mark(LoadState(r.Root), damaged))
	case inBetween(ctx, err) && !errors.Is(err, policystore.ErrInPlace): // the marker stays
		return err
	default:
		return errors.Join(err, mark(before, failed))
	}
	r.unclean = unclean(r.state.InProgress)
	return err
}

// inBetween tells whether the error leaves the host neither as it was nor as it is to be: what was done could not be taken
// back, or a tool was killed at work.
func inBetween(ctx context.Context, err error) bool {
	var (
		undo *plan.UndoError
		tool *command.ExitError
	)
	return errors.As(err, &undo) || errors.Is(err, command.ErrTimeout) || ctx.Err() != nil || errors.As(err, &tool) && tool.Code < 0
}

// Names lists the stages for messages: "policystore, policy, audit, enforce".
func Names() string {
	var names []string
	for _, s := range Order() {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

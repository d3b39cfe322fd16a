package stages

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/roles"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Status is what the host is like beside what it is to be. It is made by planning every stage: what a stage would change is
// what is not as declared.
type Status struct {
	Mode    ModeStatus  `json:"mode"`
	Store   StoreStatus `json:"store"`
	Stages  []Result    `json:"stages"`  // what each would do now
	Modules []string    `json:"modules"` // declared and in the built policy
	Roles   []string    `json:"roles"`   // declared and in the built policy
	// Permissive are the domains that are permissive in the policy in force, whoever made them so; absent if it cannot be read, or where there are none. They
	// are no problem by themselves.
	Permissive []policystore.Permissive  `json:"permissive_domains,omitempty"`
	Quarantine []policystore.Quarantined `json:"quarantine"` // what was left out of the policy
	// Volumes are the mounts that a rule is meant for, and the rules that no mount matches now.
	Volumes []mountwatch.Volume `json:"volumes"`
	// Units are those that have to be enabled; none beneath --root.
	Units []UnitStatus `json:"units"`
	// InProgress names the stage that was cut off, or is at work right now.
	InProgress string `json:"in_progress,omitempty"`
	// Guard is the trial of enforcing, nil if there is none. What is under way is no fault of the host, but not as declared yet.
	Guard *Trial `json:"guard,omitempty"`
	// DomainTrials are those of single domains that are under way, wait, or were given up: such a domain was made permissive again by the guard, and stays so. Absent
	// if there are none.
	DomainTrials []*Trial `json:"domain_trials,omitempty"`
	// NextImage is the result of the last check of another OS image. What it found is no problem of this one.
	NextImage *ImageCheck `json:"next_image,omitempty"`
	// Unconfined are the containers that run and that the policy does not confine. Only one that readiness.containers names is a problem.
	Unconfined []Unconfined `json:"unconfined"`
	// Denials counts the accesses that were denied since the boot; nil where there is no log to count in. They are no problem by themselves.
	Denials *DenialCount `json:"denials,omitempty"`
	// Cache is how the kernel's cache of decisions fares; absent beneath --root.
	Cache *CacheStatus `json:"avc_cache,omitempty"`
	// Behind are domains that lack what the containers' domain got by an update. They are as declared, and may be denied something new.
	Behind []findings.Behind `json:"behind,omitempty"`
	// ForeignLabels are what system extension images brought into /usr with another label than the OS image's files have. They are no problem
	// by themselves: containers may be denied them.
	ForeignLabels []ForeignLabel `json:"foreign_labels,omitempty"`
	// Replacing are modules, PRIORITY/NAME, that were installed by hand and are in the place of one of the OS image's. They are no problem by themselves: they
	// stay in force, and what the image's has is not in the policy, updates of it included. Absent if there are none.
	Replacing  []string  `json:"replacing_vendor_modules,omitempty"`
	Problems   []Problem `json:"problems"`    // everything that is wrong
	AsDeclared bool      `json:"as_declared"` // there are no problems
}

// DenialCount counts denials since the boot.
type DenialCount struct {
	Stopped  uint64 `json:"stopped"`  // accesses that did not take place
	Reported uint64 `json:"reported"` // accesses that a permissive mode or domain let through
	// Unknown says why there is no count, "" if there is one.
	Unknown string `json:"unknown,omitempty"`
}

// countLimit bounds the time that status takes to count what may be a long log.
const countLimit = 20 * time.Second

// lifeStatus adds how the host fares with what is in force: what is denied, and which containers are not confined.
func (h *Host) lifeStatus(ctx context.Context, s *Status, declared *provision.State) {
	if h.Evidence.Counted != nil {
		limited, cancel := context.WithTimeoutCause(ctx, countLimit, fmt.Errorf("it takes longer than %s", countLimit))
		stopped, reported, err := h.Evidence.Counted(limited)
		cancel()
		s.Denials = &DenialCount{Stopped: stopped, Reported: reported}
		if err != nil {
			s.Denials = &DenialCount{Unknown: err.Error()}
		} else if h.Root.IsHost() {
			if rules, err := h.HidingRules(ctx); err == nil && len(rules) > 0 {
				s.Denials.Unknown = "an audit rule keeps denials from the log (" + rules[0] + "): declare audit: {log_denials: true}"
			}
		}
	}
	if h.Evidence.Unconfined == nil {
		return
	}
	all, err := h.Evidence.Unconfined(ctx)
	if err != nil {
		return // the call is being ended
	}
	s.Unconfined = append(s.Unconfined, all...)
	if declared.Readiness == nil {
		return
	}
	for _, u := range declaredUnconfined(all, declared.Readiness.Containers) {
		s.Problems = append(s.Problems, Problem{"container " + u.Container + " is not confined: it runs in " + u.Domain + ", " + u.Why, confine})
	}
}

// ModeStatus has the mode from every place that has a say in it.
type ModeStatus struct {
	Running     string `json:"running"`      // enforcing, permissive, disabled; unknown beneath --root
	Configured  string `json:"configured"`   // of /etc/selinux/config, "" if it does not say
	CommandLine string `json:"command_line"` // of the kernel's command line, "" if it does not say
	Declared    string `json:"declared"`     // in the configuration: enforcing, permissive, unmanaged
	// Foreign is the mode of somebody else in /etc/selinux/config that is left there, until the operator decides; absent if there is none.
	Foreign *ForeignMode `json:"foreign,omitempty"`
}

// StoreStatus describes the policy store.
type StoreStatus struct {
	policystore.Store
	Type        string   `json:"type"`         // of the policy, such as mcs
	Generation  int      `json:"generation"`   // stores built from a vendor's so far
	BuiltFrom   string   `json:"built_from"`   // fingerprint of the vendor policy it was built from
	Vendor      string   `json:"vendor"`       // fingerprint of this OS image's
	CarriedOver []string `json:"carried_over"` // operator's modules that the last rebuild took along
	Policy      string   `json:"policy"`       // the binary policy that was built, "policy.34"
}

// Status looks at the host and changes nothing. With a configuration that is wrong it gives both: what the host is like, with what is wrong
// among the problems, and the error.
func (h *Host) Status(ctx context.Context) (*Status, error) {
	if err := h.applicable(); err != nil {
		return nil, err
	}
	return Settled(ctx, h, func() (*Status, error) { return h.status(ctx) })
}

func (h *Host) status(ctx context.Context) (*Status, error) {
	declared, wrong := h.Declared()
	if wrong != nil {
		declared = &provision.State{Mode: unknownMode}
	}
	state := LoadState(h.Root)
	s := &Status{InProgress: state.InProgress, Guard: state.Guard, DomainTrials: state.domainTrials(), Mode: ModeStatus{Declared: string(declared.Mode)},
		Modules: []string{}, Roles: []string{}, Quarantine: []policystore.Quarantined{}, Problems: []Problem{}, Units: []UnitStatus{}, Unconfined: []Unconfined{}}
	if err := h.modeStatus(s); err != nil {
		return nil, err
	}
	vendor, err := policystore.FindVendor(h.Root)
	if err != nil { // that there is a vendor's policy is known by now
		return nil, err
	}
	rec := &state.Store
	s.Store = StoreStatus{Type: vendor.Type, Generation: rec.Generation, BuiltFrom: rec.Vendor, Vendor: vendor.Fingerprint,
		CarriedOver: append([]string{}, rec.CarriedOver...), Policy: rec.Policy.File}
	if s.Store.Store, err = policystore.Inspect(h.Root, vendor.Type); err != nil {
		return nil, fmt.Errorf("cannot look at the policy store: %w", err)
	}
	for _, m := range declared.Modules {
		if rec.Policy.Modules[m.Name] != "" {
			s.Modules = append(s.Modules, m.Name)
		}
	}
	for _, name := range declared.Roles {
		if rec.Policy.Modules[roles.ModuleName(name)] != "" {
			s.Roles = append(s.Roles, name)
		}
	}
	if state.Check != nil && state.Check.Vendor != vendor.Fingerprint {
		s.NextImage = state.Check
	}

	r := h.quiet().newRun(declared, state, true)
	r.looks = true
	if wrong != nil {
		s.Quarantine = append(s.Quarantine, h.shelf().LeftOut(vendor.Type, rec)...)
		s.Stages, s.Volumes = []Result{}, []mountwatch.Volume{}
		s.Problems = configProblems(wrong)
		s.Problems = append(s.Problems, h.underWayProblems(state)...)
		return s, wrong
	}
	out, err := r.compiler().LeftOut(vendor.Type, rec, declaredPolicy(r))
	if err != nil { // what cannot be looked up is planned to be built again, or said by the stage
		out = r.shelf().LeftOut(vendor.Type, rec)
	}
	s.Quarantine = append(s.Quarantine, out...)
	s.Modules = slices.DeleteFunc(s.Modules, func(name string) bool { // hidden by another one
		return slices.ContainsFunc(out, func(q policystore.Quarantined) bool {
			return q.Kind == "module" && q.Name == name && q.Priority == policystore.Priority
		})
	})
	if s.Replacing, err = policystore.Replacing(h.Root, vendor, rec); err != nil {
		return nil, fmt.Errorf("cannot look at the policy store: %w", err)
	}
	for _, stage := range Order() {
		result := r.stage(ctx, stage)
		if result.Err != nil {
			result.Error = result.Err.Error()
			s.Problems = append(s.Problems, Problem{"stage " + stage.Name + ": " + result.Error, "correct it, then run: selinux-provision apply"})
		}
		if lack := r.noRoom(result.Planned, vendor.Type); lack != nil {
			s.Problems = append(s.Problems, Problem{lack.Lack, "make room: what follows would fail; then run: selinux-provision apply"})
		}
		for _, step := range result.Planned {
			s.Problems = append(s.Problems, Problem{
				fmt.Sprintf("stage %s would %s %s: %s", stage.Name, step.Action, step.Target, step.Reason), "run: selinux-provision apply"})
		}
		s.Problems = append(s.Problems, result.Problems...)
		s.Stages = append(s.Stages, result)
	}
	s.Mode.Foreign = r.foreign
	s.Problems = append(s.Problems, h.underWayProblems(state)...)
	if s.InProgress != "" && s.InProgress != cleaning {
		s.Problems = append(s.Problems, Problem{"stage " + s.InProgress + " is running or was interrupted", "wait for it, or run: selinux-provision apply"})
	}
	if err := h.volumeStatus(ctx, s, declared); err != nil {
		return nil, err
	}
	h.unitStatus(ctx, s)
	h.lifeStatus(ctx, s, declared)
	s.Cache = h.cacheStatus(declared.AVCCacheThreshold)
	s.Behind = h.behind(ctx, declared)
	if policy, err := h.Findings().Policy(ctx); err == nil { // what cannot be read is said by the stages
		if s.Permissive, err = r.compiler().PermissiveDomains(vendor.Type, rec, declaredPolicy(r), &policy.Symbols); err != nil {
			return nil, err
		}
	}
	s.ForeignLabels = h.foreignLabels()
	s.AsDeclared = len(s.Problems) == 0
	return s, nil
}

func (h *Host) modeStatus(s *Status) error {
	s.Mode.Running = "unknown"
	if h.Root.IsHost() {
		s.Mode.Running = "disabled"
	}
	if h.Kernel != nil {
		on, err := h.Kernel.Enforcing()
		if err != nil {
			return err
		}
		s.Mode.Running = map[bool]string{true: "enforcing", false: "permissive"}[on]
	}
	if c, err := seconfig.Read(h.Root, seconfig.Path); err == nil {
		s.Mode.Configured = c.Mode
	}
	if e := h.CommandLine.Enforcing; e != nil {
		s.Mode.CommandLine = map[bool]string{true: "enforcing", false: "permissive"}[*e]
	}
	if e := h.CommandLine.SELinux; e != nil && !*e {
		s.Mode.CommandLine = "disabled"
	}
	return nil
}

// unknownMode stands for what a wrong configuration may have meant.
const unknownMode provision.Mode = "unknown"

// configProblems gives what is wrong with a configuration, each with its remedy.
func configProblems(wrong error) (problems []Problem) {
	var all provision.Errors
	if !errors.As(wrong, &all) {
		return []Problem{{wrong.Error(), "correct it, then run: selinux-provision apply"}}
	}
	for _, e := range all {
		said := *e
		said.Remedy = ""
		problems = append(problems, Problem{said.Error(), cmp.Or(e.Remedy, "correct it, then run: selinux-provision apply")})
	}
	return problems
}

// noRoom tells what room the steps lack that copy the store and build in it; nil: none, or nobody knows.
func (r *run) noRoom(steps plan.Plan, policyType string) *policystore.RoomError {
	var lack *policystore.RoomError
	for _, step := range steps {
		var err error
		switch {
		case step.Action == "copy" && step.Target == policystore.StoreDir:
			err = policystore.RoomToCopy(r.Root, policyType)
		case step.Action == "rebuild":
			if store, serr := policystore.Inspect(r.Root, policyType); serr == nil && store.Kind == policystore.Writable {
				err = r.compiler().RoomToBuild(policyType)
			}
		}
		if errors.As(err, &lack) {
			return lack
		}
	}
	return nil
}

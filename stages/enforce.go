package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

func planEnforce(ctx context.Context, r *run) (plan.Plan, error) {
	steps, err := planMode(ctx, r)
	if err != nil {
		return nil, err
	}
	domains, err := r.planDomains(ctx, steps)
	return append(steps, domains...), err
}

// planMode gives the steps to the declared mode, of the kernel and of the next boot.
func planMode(ctx context.Context, r *run) (plan.Plan, error) {
	want := r.declared.Mode
	content, configured, err := readConfig(r.Root)
	if err != nil && want != provision.Unmanaged {
		return nil, err
	}
	live, lerr := r.enforcing()
	if lerr != nil {
		return nil, lerr
	}
	if want == provision.Unmanaged {
		var steps plan.Plan
		if live && r.state.Guard.underWay(r.Boot) { // what is not on trial any more is not watched any more
			steps = append(steps, r.switchMode(false))
		}
		steps = append(steps, r.recordTrial(nil)...)
		if err == nil && configured.Trial { // whatever else the file is like, it is left alone
			steps = append(steps, r.configure(content, configured, configured.Mode, false, r.asks())...)
		}
		return r.forgetMode(steps), nil
	}
	on := want == provision.Enforcing
	if on {
		policyType := configured.Taken()
		if r.dry { // the policystore stage comes first, and writes the type where there is none
			if policyType, err = policystore.FindType(r.Root); err != nil {
				return nil, err
			}
		}
		if err := r.preflight(policyType); err != nil {
			return nil, fmt.Errorf("cannot enforce: %w", err)
		}
		if !live && !r.dry && !r.inForce() {
			return nil, errors.New("cannot enforce: the policy in force is not the declared one: run the policy stage first, it says what is wrong")
		}
		// What was given up stays so until somebody asks, also where the guard is not declared any more.
		if s := r.scene(configured, live); r.declared.Guard != nil || r.Kernel != nil && s.next().to == TrialFailed {
			return r.planGuarded(ctx, content, s)
		}
	}
	if on && (!live || configured.Mode != string(want)) {
		if held, err := r.heldBack(ctx); held || err != nil {
			return nil, err
		}
	}
	var steps plan.Plan
	if r.Kernel != nil && live != on && r.contradiction() == nil {
		step := r.switchMode(on)
		if on {
			step.Reason += r.unready(ctx)
		}
		steps = append(steps, step)
	}
	steps = append(steps, r.recordTrial(nil)...)
	return append(steps, r.keepMode(content, configured, string(want))...), nil
}

// heldBack tells whether the mode is to wait until the host is ready. An image is judged when it runs.
func (r *run) heldBack(ctx context.Context) (bool, error) {
	if !r.declared.RequireReadiness || r.Kernel == nil {
		return r.declared.RequireReadiness, nil
	}
	ready, err := r.readiness(ctx, r.leftOut)
	if err != nil {
		return false, fmt.Errorf("cannot enforce: %w", err)
	}
	if ready.Verdict == Ready {
		return false, nil
	}
	r.held = ready
	return true, nil
}

// unready says what readiness says against enforcing where it does not hold the mode back; "" if that is nothing, or nobody declared it.
func (r *run) unready(ctx context.Context) string {
	if r.looks || r.declared.Readiness == nil || r.declared.RequireReadiness || r.Kernel == nil {
		return ""
	}
	ready, err := r.readiness(ctx, r.leftOut)
	if err != nil {
		return fmt.Sprintf("; %v", err)
	}
	if ready.Verdict == Ready {
		return ""
	}
	const most = 3
	against := ready.Against()
	var found []string
	for _, c := range against[:min(most, len(against))] {
		found = append(found, c.Found)
	}
	if more := len(against) - most; more > 0 {
		found = append(found, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("; selinux-provision readiness says %s: %s", ready.Verdict, strings.Join(found, "; "))
}

// readConfig reads /etc/selinux/config, or what the vendor has in its place if it leads nowhere. What is to be written names a policy in any case.
func readConfig(root *hostfs.Root) ([]byte, seconfig.Config, error) {
	content, err := root.ReadFile(seconfig.Path)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = root.ReadFile(policystore.VendorEtc(root) + "/config")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, seconfig.Config{}, fmt.Errorf("cannot read the SELinux configuration: %w", err)
	}
	c, err := seconfig.Parse(bytes.NewReader(content))
	if err == nil && !seconfig.ValidType(c.Type) {
		var policyType string
		if policyType, err = policystore.FindType(root); err == nil {
			content = seconfig.SetType(content, policyType)
		}
	}
	if _, lerr := root.Stat(seconfig.Path); lerr != nil {
		c.Mode = "" // what the vendor's says is not what PID 1 finds
	}
	return content, c, err
}

func (h *Host) enforcing() (bool, error) {
	if h.Kernel == nil {
		return false, nil
	}
	return h.Kernel.Enforcing()
}

func (r *run) switchMode(on bool) plan.Step {
	mode := map[bool]string{true: "enforcing", false: "permissive"}
	return plan.Step{
		Action: "switch", Target: mode[on], Reason: "the kernel is " + mode[!on],
		Do: func(context.Context) (string, error) {
			return "the kernel is " + mode[on] + " now", r.Kernel.SetEnforcing(on)
		},
		Undo: func(context.Context) error { return r.Kernel.SetEnforcing(!on) },
	}
}

// contradiction says what on the kernel's command line beats the declared mode at every boot. It is reported, never fought:
// somebody with access to the boot loader wants it so, perhaps to rescue the machine.
func (r *run) contradiction() *Problem {
	e := r.CommandLine.Enforcing
	if e == nil || r.declared.Mode == provision.Unmanaged || *e == (r.declared.Mode == provision.Enforcing) {
		return nil
	}
	value := 0
	if *e {
		value = 1
	}
	return &Problem{
		Problem: fmt.Sprintf("the kernel command line has enforcing=%d, which beats the declared mode %s at every boot", value, r.declared.Mode),
		Remedy:  "remove it from the boot loader's configuration and reboot, or declare the other mode",
	}
}

func checkEnforce(_ context.Context, r *run) ([]Problem, error) {
	problems := slices.Concat(r.checkTrial(), r.checkDomains(), r.checkModeFile())
	if r.held != nil {
		for _, c := range r.held.Against() {
			problems = append(problems, Problem{"enforce.require_readiness holds the mode back: " + string(c.Verdict) + ": " + c.Found, c.Remedy})
		}
	}
	if p := r.contradiction(); p != nil {
		problems = append(problems, *p)
	} else if e := r.CommandLine.Enforcing; e != nil && r.declared.Mode == provision.Enforcing && r.declared.Guard != nil {
		problems = append(problems, Problem{
			Problem: "the kernel command line has enforcing=1: every boot enforces, and enforce.guard cannot make the next one permissive",
			Remedy:  "remove it from the boot loader's configuration and reboot, or declare guard: off",
		})
	}
	if r.CommandLine.Ambiguous && r.declared.Mode != provision.Unmanaged {
		problems = append(problems, Problem{
			Problem: "the kernel command line has enforcing= more than once or with something that is no number, and releases of libselinux read it differently",
			Remedy:  "leave one enforcing=0 or enforcing=1 in the boot loader's configuration, or none, and reboot",
		})
	}
	return problems, nil
}

// preflight makes sure that PID 1 finds a policy at the next boot that the kernel can take. Without one it freezes when
// enforcing.
func (r *run) preflight(policyType string) error {
	dir := seconfig.PolicyDir(seconfig.Dir, policyType)
	policies, err := seconfig.Policies(r.Root, dir)
	if err != nil {
		return fmt.Errorf("PID 1 would find no policy and freeze: %w: run the policystore stage", err)
	}
	if len(policies) == 0 {
		return fmt.Errorf("PID 1 would find no policy in %s and freeze: run the policystore stage", r.Root.Path(dir))
	}
	highest, name := policies[0].Version, dir+"/"+policies[0].Name
	if limit, err := r.highestLoadable(policyType); err != nil {
		return err
	} else if highest > limit {
		return fmt.Errorf("%s is newer than version %d, the highest that this host can load: remove it and run the policy stage", r.Root.Path(name), limit)
	}
	if built := r.state.Store.Policy.File; built != "" && built != policies[0].Name && !r.dry {
		return fmt.Errorf("PID 1 would load %s and not %s, which has what is declared: run the policy stage", r.Root.Path(name), built)
	}
	f, err := r.Root.OpenFile(name)
	if err != nil {
		return fmt.Errorf("PID 1 could not read its policy: %w", err)
	}
	defer f.Close()
	head, err := policydb.ReadHeader(f)
	var form *policydb.FormError
	switch {
	case errors.As(err, &form):
		return fmt.Errorf("%s is not a policy that PID 1 can load: %w: run the policystore stage", r.Root.Path(name), form)
	case err != nil:
		return fmt.Errorf("PID 1 could not read %s: %w", r.Root.Path(name), err)
	case head.Version != highest:
		return fmt.Errorf("%s holds a policy of version %d: remove it and run the policy stage", r.Root.Path(name), head.Version)
	}
	return nil
}

// highestLoadable gives the highest policy version that the boot can load: the kernel's own, or that of libsepol, which rewrites
// a newer policy for the kernel. libsepol's is the one of the policy that the OS image ships.
func (r *run) highestLoadable(policyType string) (int, error) {
	limit := 0
	if r.Kernel != nil {
		n, err := r.Kernel.PolicyVersion()
		if err != nil {
			return 0, err
		}
		limit = n
	}
	vendors, err := seconfig.Policies(r.Root, seconfig.PolicyDir(policystore.VendorEtc(r.Root), policyType))
	if err != nil {
		return 0, fmt.Errorf("cannot find the vendor's policy: %w", err)
	}
	for _, p := range vendors {
		limit = max(limit, p.Version)
	}
	return limit, nil
}

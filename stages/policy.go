package stages

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
)

func planPolicystore(_ context.Context, r *run) (plan.Plan, error) {
	vendor, err := policystore.FindVendor(r.Root)
	if errors.Is(err, policystore.ErrNoVendor) {
		return nil, fmt.Errorf("%w: %w", ErrNotApplicable, err)
	}
	if err != nil {
		return nil, err
	}
	rebaser := policystore.Rebaser{Root: r.Root, Unclean: r.unclean, Shelf: r.shelf()}
	steps, err := rebaser.Plan(vendor, &r.state.Store)
	if r.dry && err == nil && len(steps) > 0 {
		// The stages planned after this one see what it would have recorded.
		r.state.Store.Type, r.state.Store.Vendor = vendor.Type, vendor.Fingerprint
	}
	return steps, err
}

func planPolicy(_ context.Context, r *run) (plan.Plan, error) {
	if r.unclean && !r.dry {
		return nil, errors.New("cannot trust the policy store: an earlier run was cut off while it worked on it: run the policystore stage first, it builds the store anew")
	}
	policyType, err := policystore.FindType(r.Root)
	if errors.Is(err, policystore.ErrNoVendor) {
		return nil, fmt.Errorf("%w: %w", ErrNotApplicable, err)
	}
	if err != nil {
		return nil, err
	}
	steps, err := r.compiler().Plan(policyType, &r.state.Store, declaredPolicy(r))
	if err != nil {
		return nil, err
	}
	return append(steps, r.planCache()...), nil
}

// VendorModules names the modules of the vendor's policy beneath a root; nil if there is none that can be read.
func VendorModules(root *hostfs.Root) (names []string) {
	vendor, err := policystore.FindVendor(root)
	if err != nil {
		return nil
	}
	for key := range vendor.Modules {
		names = append(names, path.Base(key))
	}
	slices.Sort(names)
	return names
}

// shelf is where the operator's work is that is not in the store.
func (h *Host) shelf() policystore.Shelf {
	return policystore.Shelf{Root: h.Root, Quarantine: quarantineDir, Kept: KeptDir, Copies: copiesDir}
}

func (h *Host) compiler() *policystore.Compiler {
	b := &policystore.Compiler{Root: h.Root, Tools: h.Tools, Scratch: StateDir + "/transaction", Shelf: h.shelf()}
	if h.Kernel != nil {
		b.Kernel = h.Kernel
	}
	return b
}

// fallBack puts the vendor's policy in force when the policy on the host was built from another OS image's and the declaration is
// wrong, so that it cannot be built anew. It gives nil if there is nothing to do.
func (r *run) fallBack(ctx context.Context) error {
	policyType, err := policystore.FindType(r.Root)
	if err != nil {
		return err
	}
	return r.compiler().FallBack(ctx, policyType, &r.state.Store)
}

// declaredPolicy translates the configuration for package policystore, which does not know configurations.
func declaredPolicy(r *run) policystore.Declared {
	digest := r.declared.Digest()
	want := policystore.Declared{
		Digest: hex.EncodeToString(digest[:]), Booleans: r.declared.Booleans,
		SharedVolumes: r.declared.SharedVolumes, Roles: r.declared.Roles, StripDontaudit: r.declared.StripDontaudit,
	}
	for _, m := range r.declared.Modules {
		want.Modules = append(want.Modules, policystore.Module{Name: m.Name, Lang: m.Lang, Content: m.Content, From: m.Path,
			ReplacesVendor: slices.Contains(r.declared.ReplaceVendorModules, m.Name)})
	}
	for _, d := range r.declared.PermissiveDomains {
		want.Permissive = append(want.Permissive, policystore.PermissiveDomain{Type: d.Type, From: d.Source.String() + ": enforce.permissive_domains"})
	}
	for _, t := range r.givenUp() {
		want.Digest += policystore.Again + t.Domain
		want.Permissive = append(want.Permissive, policystore.PermissiveDomain{Type: t.Domain, Again: t.Reason,
			From: "the guard's verdict; selinux-provision apply --retry-guard takes it back"})
	}
	for _, c := range r.declared.FileContexts {
		want.FileContexts = append(want.FileContexts, policystore.FileContext{Path: c.Path, Type: c.Type, Context: c.Context, From: c.Source.String()})
	}
	for _, e := range r.declared.Equivalences {
		want.Equivalences = append(want.Equivalences, policystore.Equivalence{Path: e.Path, Like: e.Like})
	}
	return want
}

// checkPolicy lists what had to be left out.
func checkPolicy(ctx context.Context, r *run) ([]Problem, error) {
	out, err := r.compiler().LeftOut(r.state.Store.Type, &r.state.Store, declaredPolicy(r))
	if err != nil {
		return nil, err
	}
	var problems []Problem
	if len(out) > 0 {
		for _, line := range r.lostIn(ctx, r.Host) {
			problems = append(problems, Problem{
				Problem: line + " runs and cannot be started again: the policy does not have the type, and the container runtime says \"" + KeyCreate + "\"",
				Remedy:  "correct the module that declares the type, then run: selinux-provision apply",
			})
		}
	}
	for _, q := range out {
		problems = append(problems, Problem{
			Problem: q.String(),
			Remedy:  q.Remedy(),
		})
	}
	for _, todo := range r.state.Store.Policy.Relabel {
		if r.Kernel == nil {
			continue
		}
		problem, remedy := todo.String()+" does not have its declared label everywhere", "run: selinux-provision stage policy"
		if todo.Reason != "" {
			problem, remedy = problem+": "+todo.Reason, "mend that, or label it with relabel --from-policy --force, then run: selinux-provision stage policy"
		}
		problems = append(problems, Problem{Problem: problem, Remedy: remedy})
	}
	higher, err := r.checkHigher()
	return slices.Concat(problems, higher, r.checkCache()), err
}

// checkHigher says that PID 1 would load another policy at the next boot than the one that was built: one of a higher version that the OS image ships, and that
// shows through where nothing was built under its name.
func (r *run) checkHigher() ([]Problem, error) {
	rec := &r.state.Store
	if rec.Policy.File == "" {
		return nil, nil // none was built
	}
	policies, err := seconfig.Policies(r.Root, seconfig.PolicyDir(seconfig.Dir, rec.Type))
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy: %w", err)
	}
	limit, err := r.highestLoadable(rec.Type)
	if err != nil {
		return nil, err
	}
	for _, p := range policies {
		switch {
		case p.Name == rec.Policy.File:
			return nil, nil
		case p.Version <= limit:
			return []Problem{{
				Problem: fmt.Sprintf("the next boot would load %s of this OS image and not %s, which has what is declared", p.Name, rec.Policy.File),
				Remedy:  "take the line policy-version out of " + policystore.EtcDir + "/semanage.conf, then run: semodule --build, and selinux-provision apply",
			}}, nil
		}
	}
	return nil, nil
}

package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
)

// Revert brings the host back to the vendor's state, from any state: the mode first, then the files, then what is loaded. The
// declared state in /etc/selinux-provision is the operator's and stays.
func (h *Host) Revert(ctx context.Context, dry bool) (Result, error) {
	if err := h.applicable(); err != nil {
		return Result{}, err
	}
	if !dry {
		unlock, err := h.lock(ctx)
		if err != nil {
			return Result{}, err
		}
		defer unlock()
		if err := h.sweep(&State{InProgress: "revert"}); err != nil { // from any state: the record is not asked
			return Result{}, err
		}
	}
	result := Result{Stage: "revert", Outcome: Unchanged}
	if policyType, err := policystore.VendorType(h.Root); err == nil {
		result.Notes = h.lostByRevert(policyType)
	}
	for _, note := range result.Notes {
		h.report(func(r Reporter) { r.Notice("revert", note) })
	}
	steps, err := Settled(ctx, h, h.planRevert)
	switch {
	case errors.Is(err, policystore.ErrNoVendor):
		return Result{}, fmt.Errorf("%w: %w", ErrNotApplicable, err)
	case err != nil:
		result.Outcome, result.Err = Failed, err
	case dry:
		if result.Planned = steps.Visible(); len(result.Planned) > 0 {
			result.Outcome = Planned
		}
	case len(steps) > 0:
		if len(steps.Visible()) > 0 {
			result.Outcome = Changed
			marked := LoadState(h.Root)
			marked.InProgress = "revert"
			if err := marked.begin(h.Root); err != nil {
				return Result{}, err
			}
		}
		result.Done, result.Err = h.carryOut(ctx, "revert", steps)
		var left *plan.CleanupError
		if errors.As(result.Err, &left) {
			result.Outcome, result.Err = Partly, nil
			result.Problems = []Problem{{left.Error(), "run revert again"}}
		}
		if result.Err != nil {
			result.Outcome = Failed
		}
	}
	if result.Err != nil {
		result.Error = result.Err.Error()
	}
	h.report(func(r Reporter) { r.Result(result) })
	return result, nil
}

func (h *Host) report(tell func(Reporter)) {
	if h.Reporter != nil {
		tell(h.Reporter)
	}
}

func (h *Host) planRevert() (plan.Plan, error) {
	policyType, err := policystore.VendorType(h.Root)
	if err != nil {
		return nil, err
	}
	r := h.newRun(nil, LoadState(h.Root), false)
	var steps plan.Plan
	mode, err := h.vendorMode()
	if err != nil {
		return nil, err
	}
	if live, err := h.enforcing(); err != nil {
		return nil, err
	} else if h.Kernel != nil && live != (mode == "enforcing") {
		steps = append(steps, r.switchMode(!live))
	}
	steps = append(steps, r.revertCache()...)
	reverter := policystore.Reverter{Root: h.Root, Shelf: h.shelf()}
	store, err := reverter.Plan(policyType, &r.state.Store)
	if err != nil {
		return nil, err
	}
	steps = append(steps, store...)
	if h.Kernel != nil && (len(store) > 0 || r.state.Store.Policy.File != "") {
		steps = append(steps, h.loadVendorPolicy(policyType, r.state.Store.Policy.Booleans))
	}
	rules, err := h.revertRules()
	if err != nil {
		return nil, err
	}
	if len(rules) > 0 && h.RestartUnit != nil {
		rules = append(rules, reloadRules(h, "the vendor's rule files are back"))
	}
	steps = append(steps, rules...)
	if h.DisableUnits != nil {
		steps = append(steps, plan.Step{
			Action: "disable", Target: targetUnit, Reason: "the next boot would provision the host again", Quiet: len(steps) == 0,
			Do: func(ctx context.Context) (string, error) {
				if err := h.DisableUnits(ctx, Units()...); err != nil {
					return "", fmt.Errorf("cannot disable the units: %w", err)
				}
				if err := h.Root.Sync("/etc"); err != nil { // systemd does not flush its links, and the record is about to go
					return "", fmt.Errorf("cannot flush to the disk that the units are disabled: %w", err)
				}
				if h.StopUnit != nil {
					for _, unit := range background() {
						if err := h.StopUnit(ctx, unit); err != nil {
							return "", err
						}
					}
				}
				return "disabled; to provision again: systemctl unmask " + neededNames() + " && " + EnableCommand(), nil
			},
		})
	}
	if h.Root.Exists(StateDir) {
		steps = append(steps, plan.Step{
			Action: "remove", Target: StateDir, Reason: "nothing that it records is there any more", Quiet: !h.Root.Exists(stateFile),
			Do: func(context.Context) (string, error) { return "removed", nil },
			// Last of all: as long as anything is left to clean up, the next run must find the marker.
			Cleanup: func() error { return h.forget() },
		})
	}
	return steps, nil
}

// forget removes the state directory, all but copies of the operator's own work.
func (h *Host) forget() error {
	entries, err := h.Root.ReadDir(StateDir)
	if err != nil {
		return err
	}
	kept := false
	for _, e := range entries {
		switch name := StateDir + "/" + e.Name(); name {
		case stateFile, lockDir:
		case quarantineDir, KeptDir:
			kept = true
		default:
			if err := h.Root.RemoveTree(name); err != nil {
				return err
			}
		}
	}
	// The record goes last: as long as it is there, the next run knows that this one was not done.
	if err := h.Root.Remove(stateFile); err != nil {
		return err
	}
	// Without its lock the next run can begin, and what it makes stays.
	rest := StateDir
	if kept {
		rest = lockDir
	}
	if err := h.Root.RemoveTree(rest); !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

// vendorMode reads the mode that the OS image comes with.
func (h *Host) vendorMode() (string, error) {
	c, err := seconfig.Read(h.Root, policystore.VendorEtc(h.Root)+"/config")
	if err != nil {
		return "", fmt.Errorf("cannot read the vendor's SELinux configuration: %w", err)
	}
	return c.Mode, nil
}

func (h *Host) revertRules() (plan.Plan, error) {
	var steps plan.Plan
	for _, name := range hidingFiles() {
		form, err := policystore.VendorForm(h.Root, name)
		if err != nil {
			return nil, err
		}
		content, rerr := h.Root.ReadFile(name)
		if form == (policystore.Form{}) || rerr == nil && !bytes.HasPrefix(content, []byte(neutralMark)) {
			continue // no such file on this image, or a site's own rules, which are not ours to remove
		}
		file, err := policystore.RestoreFile(h.Root, name, "the vendor's machine is wanted")
		if err != nil {
			return nil, err
		}
		steps = append(steps, file...)
	}
	return steps, nil
}

// loadVendorPolicy makes the kernel's policy the one on disk again. Loading keeps the values of booleans, so those that were
// declared go back to the policy's own.
func (h *Host) loadVendorPolicy(policyType string, booleans []string) plan.Step {
	return plan.Step{
		Action: "load", Target: policystore.EtcDir + "/" + policyType, Reason: "the kernel has the declared policy",
		Do: func(ctx context.Context) (string, error) {
			if _, err := h.Tools.Run(ctx, "load_policy"); err != nil {
				return "", fmt.Errorf("cannot load the vendor's policy: %w", err)
			}
			values, err := policystore.VendorBooleans(h.Root, policyType, booleans)
			if err != nil {
				return "", fmt.Errorf("cannot find the vendor's booleans: %w", err)
			}
			if err := h.Kernel.SetBooleans(values); err != nil {
				return "", err
			}
			return "the vendor's policy is loaded", nil
		},
	}
}

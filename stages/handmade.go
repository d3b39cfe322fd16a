package stages

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Handmade is what somebody has changed by hand on a host, as a declaration of it.
type Handmade struct {
	// Config is the text of a file for /etc/selinux-provision/config.d; empty if there is nothing to declare.
	Config []byte
	// Modules are the files that belong into /etc/selinux-provision/modules.
	Modules []provision.Module
	// Other is what no configuration can say, a line for each.
	Other []string
	// Replaced is what the next apply puts this OS image's own in the place of, a line for each. A copy is kept.
	Replaced []string
}

// Handmade looks for what was changed by hand and is not declared: in the policy store, in /etc/selinux, in the audit rules. It changes nothing.
func (h *Host) Handmade(ctx context.Context) (*Handmade, error) {
	if err := h.applicable(); err != nil {
		return nil, err
	}
	return Settled(ctx, h, h.handmade)
}

func (h *Host) handmade() (*Handmade, error) {
	declared, err := h.Declared()
	if err != nil {
		return nil, err
	}
	vendor, err := policystore.FindVendor(h.Root)
	if err != nil { // that there is a vendor's policy is known by now
		return nil, err
	}
	found, err := policystore.FindHandmade(h.Root, vendor, &LoadState(h.Root).Store)
	if err != nil {
		return nil, err
	}
	mode := provision.Unmanaged
	if declared.Mode == provision.Unmanaged {
		if mode, err = h.handmadeMode(); err != nil {
			return nil, err
		}
	}
	state := undeclared(found, declared, mode)
	rules, err := h.handmadeRules()
	if err != nil {
		return nil, err
	}
	state.LogDenials = rules && !declared.LogDenials

	out := &Handmade{Other: found.Other, Replaced: found.Replaced}
	text, said, refused := provision.Encode(state)
	out.Other = append(out.Other, refused...)
	out.Modules = said.Modules
	if empty, _, _ := provision.Encode(&provision.State{Mode: provision.Unmanaged}); string(text) != string(empty) || len(out.Modules) > 0 {
		out.Config = text
	}
	return out, nil
}

// undeclared gives what was changed by hand in the policy and is not declared, as a declaration; mode is what was made by hand of the mode.
func undeclared(found *policystore.Handmade, declared *provision.State, mode provision.Mode) *provision.State {
	state := &provision.State{Mode: mode, ModulesListed: declared.ModulesListed, Booleans: maps.Clone(found.Booleans),
		StripDontaudit: found.Dontaudit && !declared.StripDontaudit}
	enforces := declared.Mode == provision.Enforcing || mode == provision.Enforcing
	for _, m := range found.Modules {
		more := slices.DeleteFunc(slices.Clone(m.Permissive), func(name string) bool {
			is := func(other provision.PermissiveDomain) bool { return other.Type == name }
			return slices.ContainsFunc(declared.PermissiveDomains, is) || slices.ContainsFunc(state.PermissiveDomains, is)
		})
		if len(m.Permissive) > 0 && (enforces || len(more) == 0) {
			for _, name := range more {
				state.PermissiveDomains = append(state.PermissiveDomains, provision.PermissiveDomain{Type: name})
			}
			continue
		}
		state.Modules = append(state.Modules, provision.Module{Name: m.Name, Lang: m.Lang, Content: m.Content,
			Path: path.Join(provision.ModulesDir, m.Name+"."+m.Lang)})
		if m.ReplacesVendor && !slices.Contains(declared.ReplaceVendorModules, m.Name) {
			state.ReplaceVendorModules = append(state.ReplaceVendorModules, m.Name)
		}
	}
	for _, c := range found.FileContexts {
		is := func(d provision.FileContext) bool {
			return d.Path == c.Path && d.Type == c.Type && d.Context == c.Context
		}
		if !slices.ContainsFunc(declared.FileContexts, is) {
			state.FileContexts = append(state.FileContexts, provision.FileContext{Path: c.Path, Type: c.Type, Context: c.Context})
		}
	}
	for _, e := range found.Equivalences {
		is := func(d provision.Equivalence) bool { return d.Path == e.Path && d.Like == e.Like }
		if !slices.ContainsFunc(declared.Equivalences, is) {
			state.Equivalences = append(state.Equivalences, provision.Equivalence{Path: e.Path, Like: e.Like})
		}
	}
	return state
}

// handmadeMode gives the mode in /etc/selinux/config if it is not the one that the OS image ships.
func (h *Host) handmadeMode() (provision.Mode, error) {
	have, err := seconfig.Read(h.Root, seconfig.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return provision.Unmanaged, err
	}
	vendors, err := seconfig.Read(h.Root, policystore.VendorEtc(h.Root)+"/config")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return provision.Unmanaged, err
	}
	mode := provision.Mode(have.Mode)
	if have.Mode == vendors.Mode || mode != provision.Enforcing && mode != provision.Permissive {
		return provision.Unmanaged, nil
	}
	return mode, nil
}

// handmadeRules tells whether somebody took the vendor's audit rules away that keep denials from the journal.
func (h *Host) handmadeRules() (bool, error) {
	hid, hides := false, false
	for _, name := range hidingFiles() {
		vendors, err := h.Root.ReadFile("/usr/share/audit/rules.d/" + path.Base(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		have, err := h.Root.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		hid = hid || len(hidingRules(string(vendors))) > 0
		hides = hides || len(hidingRules(string(have))) > 0 || bytes.HasPrefix(have, []byte(neutralMark)) // ours, and gone with the next apply
	}
	return hid && !hides, nil
}

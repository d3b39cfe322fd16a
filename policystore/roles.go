package policystore

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/roles"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// kindRole is the kind of what is left out when a role is.
const kindRole = "role"

// withRoles adds what the declared roles are on this OS image: a module each, made from the vendor's policy alone, so that it does not change
// with what else is declared, and file contexts, in whose place the operator's own ones come.
func (c *Compiler) withRoles(policyType string, want Declared) Declared {
	if len(want.Roles) == 0 {
		return want
	}
	want.Modules, want.FileContexts = slices.Clone(want.Modules), slices.Clone(want.FileContexts)
	vendors, base, unreadable := c.vendorsPolicy(policyType)
	for _, name := range want.Roles {
		from, text, err := "policy.roles: "+name, "", unreadable
		if err == nil {
			text, err = roles.Write(vendors, base, name)
		}
		if err != nil {
			want.refused = append(want.refused, Quarantined{Kind: kindRole, Name: name, Reason: printable.Line(err.Error()), From: from})
			continue
		}
		want.Modules = append(want.Modules, Module{Name: roles.ModuleName(name), Lang: "cil", Content: []byte(text), From: from})
		for _, c := range roles.Contexts(vendors, name) {
			want.add(FileContext{Path: c.Path, Type: "any", Context: "system_u:object_r:" + c.Type + ":s0", From: from})
		}
	}
	return want
}

// add declares a file context unless there is one for the same files.
func (d *Declared) add(context FileContext) {
	if !slices.ContainsFunc(d.FileContexts, func(other FileContext) bool { return other.Path == context.Path && other.Type == context.Type }) {
		d.FileContexts = append(d.FileContexts, context)
	}
}

// vendorsPolicy reads the policy that the OS image comes with, and tells in which domain containers run there.
func (c *Compiler) vendorsPolicy(policyType string) (policy *policydb.Policy, base string, err error) {
	policy, err = policydb.Read(c.Root.OpenFile(VendorStore + "/" + policyType + "/active/policy.kern"))
	if errors.Is(err, fs.ErrNotExist) {
		policy, err = policydb.Read(seconfig.OpenPolicy(c.Root, VendorEtc(c.Root), policyType)) // what PID 1 loads where nothing was changed
	}
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the policy of this OS image: %w", err)
	}
	containers, err := seconfig.ReadContainers(c.Root, policyType)
	if err != nil {
		return nil, "", fmt.Errorf("cannot tell in which domain containers run: %w", err)
	}
	return policy, secontext.Context(containers.Process).Type(), nil
}

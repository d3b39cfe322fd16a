package stages

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// KeyCreate is what a container runtime says when it is to start a container in a type that the policy has not: the label of the session's keyring is
// the first that it sets.
const KeyCreate = "write /proc/self/attr/keycreate: invalid argument"

// unstartable names the containers that run in a type which a policy has not, one line for each type. They go on, and nobody can start them again.
func unstartable(running []attribution.Labelled, has func(typ string) bool) (lines []string) {
	byType := map[string][]string{}
	for _, c := range running {
		typ := c.Context.Type()
		if typ == "" || has(typ) {
			continue
		}
		name := c.Subject.String()
		if !slices.Contains(byType[typ], name) {
			byType[typ] = append(byType[typ], name)
		}
	}
	for _, typ := range slices.Sorted(maps.Keys(byType)) {
		lines = append(lines, printable.Text(fmt.Sprintf("%s (type %s)", strings.Join(byType[typ], ", "), typ)))
	}
	return lines
}

// vendorsTypes tells which types the vendor's policy has; nil if it cannot be read.
func (h *Host) vendorsTypes(policyType string) func(typ string) bool {
	p, err := policydb.Read(seconfig.OpenPolicy(h.Root, policystore.VendorEtc(h.Root), policyType))
	if err != nil {
		return nil
	}
	return p.Has
}

// lostByRevert says which of the containers that run could not be started with the vendor's policy.
func (h *Host) lostByRevert(policyType string) []string {
	has := h.vendorsTypes(policyType)
	if has == nil {
		return nil
	}
	var notes []string
	for _, line := range unstartable(attribution.New(h.Root).Running(), has) {
		notes = append(notes, fmt.Sprintf("%s: it runs on, and cannot be started again: the vendor's policy does not have the type, and the container runtime says \"%s\"; start it without that type", line, KeyCreate))
	}
	return notes
}

// lostIn says which of the containers that run could not be started with the policy of a host, which may be a copy of another.
func (h *Host) lostIn(ctx context.Context, other *Host) []string {
	running := attribution.New(h.Root).Running()
	if len(running) == 0 {
		return nil
	}
	p, err := other.Findings().Policy(ctx)
	if err != nil {
		return nil
	}
	return unstartable(running, p.Has)
}

// behind says which declared domains lack what the domain that they were made like has since an update. Of a policy that cannot be read the stages
// say so.
func (h *Host) behind(ctx context.Context, declared *provision.State) []findings.Behind {
	modules := map[string]string{}
	for _, m := range declared.Modules {
		if m.Lang == "cil" {
			modules[m.Name] = string(m.Content)
		}
	}
	list, err := h.Findings().Behind(ctx, modules)
	if err != nil {
		return nil
	}
	return list
}

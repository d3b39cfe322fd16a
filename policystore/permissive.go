package policystore

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/cil"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// typepermissive gives the CIL statement of a permissive domain.
func typepermissive(d PermissiveDomain) string { return "(typepermissive " + d.Type + ")\n" }

// permissiveChange says which domains a build makes permissive that were not, and the other way round; "" if none.
func permissiveChange(before []string, want []PermissiveDomain) (said string) {
	var now []string
	for _, d := range want {
		now = append(now, d.Type)
	}
	for _, change := range []struct {
		of, than []string
		says     string
	}{{now, before, "permissive from now on: "}, {before, now, "not declared permissive any more: "}} {
		only := slices.DeleteFunc(slices.Clone(change.of), func(name string) bool { return slices.Contains(change.than, name) })
		if len(only) > 0 {
			said += "; " + change.says + strings.Join(only, ", ")
		}
	}
	return said
}

// noDomains finds those of the permissive domains in the built policy that are none. They do no harm there, and nothing else.
func (c *Compiler) noDomains(tx *transaction, found *search, file string) (all []Quarantined) {
	var symbols *policydb.Symbols
	for _, i := range found.in {
		p := tx.parts[i]
		if p.kind != permissiveDomain {
			continue
		}
		if symbols == nil {
			symbols = c.readSymbols(tx.policyType, file)
		}
		if reason := symbols.NoDomain(p.name); reason != "" && symbols.Version != 0 {
			all = append(all, Quarantined{Kind: permissiveDomain, Name: p.name, Reason: reason, From: p.from})
		}
	}
	return all
}

// Who makes a domain permissive.
const (
	ByDeclaration = "declared" // enforce.permissive_domains
	ByGuard       = "guard"    // a trial of enforcing it that was given up
	ByModule      = "module"   // a module that is declared
	ByHand        = "hand"     // a module that was installed by hand, as "semanage permissive" does
	ByVendor      = "vendor"   // the OS image's policy
	ByUnknown     = "unknown"  // nothing that was found
)

// Cause is a reason for which a domain is permissive.
type Cause struct {
	By    string `json:"by"`              // declared, guard, module, hand, vendor or unknown
	Where string `json:"where,omitempty"` // file, line and key of a declaration; the reason of the guard; the module
}

func (c Cause) String() string {
	switch c.By {
	case ByDeclaration:
		return "declared in " + c.Where
	case ByGuard:
		return "made permissive again by the guard, because " + c.Where
	case ByModule:
		return "by the declared module " + c.Where
	case ByHand:
		return "by hand, in module " + c.Where
	case ByVendor:
		return "by the OS image's own policy"
	}
	return "nobody knows why"
}

// Permissive is a domain whose denials are only reported, also where the kernel enforces, and why that is so. It is enforced when no cause is
// left.
type Permissive struct {
	Domain string  `json:"domain"` // its own name
	Causes []Cause `json:"causes"`
}

func (p Permissive) String() string {
	var causes []string
	for _, c := range p.Causes {
		causes = append(causes, c.String())
	}
	return p.Domain + " is permissive: " + strings.Join(causes, "; ")
}

// PermissiveDomains gives the domains that are permissive in a policy, the one in force, with what makes them so.
func (c *Compiler) PermissiveDomains(policyType string, rec *Record, want Declared, symbols *policydb.Symbols) ([]Permissive, error) {
	names := symbols.Permissive()
	if len(names) == 0 {
		return nil, nil
	}
	modules, err := c.permissiveModules(policyType, rec)
	if err != nil {
		return nil, fmt.Errorf("cannot tell why domains are permissive: %w", err)
	}
	vendors, _, err := c.vendorsPolicy(policyType)
	if vendors == nil || err != nil {
		vendors = &policydb.Policy{} // what its policy says is not known
	}
	var all []Permissive
	for _, name := range names {
		p := Permissive{Domain: name}
		is := func(other string) bool { return symbols.Name(other) == name }
		if i := slices.IndexFunc(want.Permissive, func(d PermissiveDomain) bool { return is(d.Type) }); i >= 0 {
			cause := Cause{ByDeclaration, want.Permissive[i].From}
			if again := want.Permissive[i].Again; again != "" {
				cause = Cause{ByGuard, again}
			}
			p.Causes = append(p.Causes, cause)
		} else if slices.ContainsFunc(rec.Policy.Permissive, is) {
			p.Causes = append(p.Causes, Cause{ByDeclaration, "what was applied last, and not any more: run selinux-provision apply"})
		}
		for _, m := range modules {
			if slices.ContainsFunc(m.domains, func(in string) bool { return is(in) || strings.HasSuffix(name, "."+in) }) {
				p.Causes = append(p.Causes, m.cause)
			}
		}
		if slices.Contains(vendors.Permissive(), name) {
			p.Causes = append(p.Causes, Cause{By: ByVendor})
		}
		if p.Causes == nil {
			p.Causes = []Cause{{By: ByUnknown}}
		}
		all = append(all, p)
	}
	return all, nil
}

// permissiveModule is a module in the store that makes domains permissive.
type permissiveModule struct {
	domains []string // as the module calls them
	cause   Cause
}

// permissiveModules looks for them among the modules that are neither the vendor's nor made here.
func (c *Compiler) permissiveModules(policyType string, rec *Record) (all []permissiveModule, err error) {
	store, err := Inspect(c.Root, policyType)
	if err != nil || store.Kind != Writable || rec.Vendor == "" {
		return nil, err
	}
	have, err := modulesIn(c.Root, typeDir(policyType))
	if err != nil {
		return nil, err
	}
	inForce := highest(have)
	for _, key := range slices.Sorted(maps.Keys(have)) {
		priority, name, ok := splitKey(key)
		if !ok || rec.VendorModules[key] == have[key] || priority < inForce[name] || key == moduleKey(domainsModule) || c.Root.Exists(active(policyType)+"/modules/disabled/"+name) {
			continue
		}
		content, err := c.Root.ReadFile(active(policyType) + "/modules/" + key + "/cil") // libsemanage makes one of a package, too
		if hostfs.Missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if domains := permissiveIn(string(unpacked(content))); len(domains) > 0 {
			cause := Cause{ByHand, fmt.Sprintf("%s (priority %d)", name, priority)}
			if priority == Priority && rec.Policy.Modules[name] == have[key] {
				cause = Cause{ByModule, name}
			}
			all = append(all, permissiveModule{domains, cause})
		}
	}
	return all, nil
}

// permissiveIn gives the types that a module in CIL makes permissive, by the names that it has for them.
func permissiveIn(text string) (domains []string) {
	opened, said := false, false
	for t := range cil.Tokens(text) {
		if said && t.Text != "(" && t.Text != ")" && !slices.Contains(domains, t.Text) {
			domains = append(domains, t.Text)
		}
		said = opened && t.Text == "typepermissive"
		opened = t.Text == "("
	}
	return domains
}

// onlyPermissive gives the types that a module makes permissive if it does nothing else, as the modules that "semanage permissive" makes.
func onlyPermissive(text string) []string {
	domains := permissiveIn(text)
	var said strings.Builder
	for t := range cil.Tokens(text) {
		said.WriteString(t.Text)
	}
	want := ""
	for _, d := range domains {
		want += "(typepermissive" + d + ")"
	}
	if said.String() != want {
		return nil
	}
	return domains
}

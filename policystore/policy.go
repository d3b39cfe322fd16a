package policystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// dontauditFlag is the file in the active store that tells libsemanage to build without dontaudit rules (semodule -D).
const dontauditFlag = "disable_dontaudit"

// Names of the modules that are made here and not declared as files.
const (
	contextsModule = "selinux_provision_file_contexts"
	sharedModule   = "selinux_provision_shared_volumes"
	domainsModule  = "selinux_provision_permissive_domains"
)

// Again separates, in a digest, what is declared from the domains that the guard made permissive again.
const Again = " again "

// Declared is the state that the policy is to have beyond the vendor's.
type Declared struct {
	Digest         string // identifies what is built; equal digests mean equal declarations. Behind each Again is a domain of the guard's verdict
	Modules        []Module
	FileContexts   []FileContext
	Equivalences   []Equivalence // not in Digest: no rebuild is needed for them
	Booleans       map[string]bool
	SharedVolumes  bool
	Roles          []string // of package roles
	Permissive     []PermissiveDomain
	StripDontaudit bool

	refused []Quarantined // roles that the vendor's policy does not take
}

// Equivalence says that what is below Path gets the labels that it would have below Like.
type Equivalence struct{ Path, Like string }

// PermissiveDomain is a domain whose denials are only reported, also when the kernel enforces.
type PermissiveDomain struct {
	Type string // its name or an alias
	From string
	// Again says why the guard of enforcing made it permissive again, "" of one that is declared.
	Again string
}

// Module is a declared policy module.
type Module struct {
	Name    string
	Lang    string // "cil" or "pp"
	Content []byte
	From    string // where it was declared, for messages
	// ReplacesVendor says that it may take the place of a module that the vendor's policy has under the same name.
	ReplacesVendor bool
}

// FileContext is a declared line of file_contexts.
type FileContext struct {
	Path    string // a regular expression, anchored
	Type    string // any, file, dir, char, block, socket, pipe, symlink
	Context string // user:role:type:level, or <<none>>
	From    string
}

// PolicyRecord is what was built last. The policy stage writes it; it and status read it.
type PolicyRecord struct {
	Vendor         string            `json:"vendor,omitempty"`          // fingerprint of the vendor policy it is based on
	Declared       string            `json:"declared,omitempty"`        // digest of the declarations
	Commit         string            `json:"commit,omitempty"`          // libsemanage's commit number: another one means that somebody ran semodule
	File           string            `json:"file,omitempty"`            // the binary policy that PID 1 loads, "policy.34"
	Modules        map[string]string `json:"modules,omitempty"`         // our modules in the store, to the hash of what the store has
	FileContexts   []string          `json:"file_contexts,omitempty"`   // the declared ones that are in force, as CIL
	Booleans       []string          `json:"booleans,omitempty"`        // the booleans that were declared
	Permissive     []string          `json:"permissive,omitempty"`      // the permissive domains that were declared, by the names of the declaration
	StripDontaudit bool              `json:"strip_dontaudit,omitempty"` // dontaudit rules were stripped by us, not by an operator
	// What the operator had set by hand before it was declared. It is in force again when the declaration goes.
	BooleansBefore  map[string]bool `json:"booleans_before,omitempty"`
	DontauditBefore bool            `json:"dontaudit_before,omitempty"` // as "semodule -DB" strips them

	Relabel    []Relabel     `json:"relabel,omitempty"`    // paths whose declared label changed and that were not relabelled yet
	Quarantine []Quarantined `json:"quarantine,omitempty"` // what was left out, because the policy did not build with it
	Lookup     Lookup        `json:"lookup,omitzero"`      // which declared file contexts no file gets
}

// Lookup is what was found out about the declared file contexts. It is so as long as the policy's file contexts are those.
type Lookup struct {
	Files   string        `json:"files,omitempty"` // their fingerprint
	Without []Quarantined `json:"without,omitempty"`
}

// Quarantined is a declaration that was left out so that the rest could be applied. It is tried again when it, anything else
// that is declared, or the vendor's policy changes.
type Quarantined struct {
	Kind     string `json:"kind"` // module, role, file context, boolean, permissive domain
	Name     string `json:"name"`
	Priority int    `json:"priority,omitempty"` // of a module
	Line     int    `json:"line,omitempty"`     // in the module, 0 if the tools do not say
	Reason   string `json:"reason"`
	From     string `json:"from,omitempty"` // where it was declared
	Copy     string `json:"copy,omitempty"` // of what was made by hand the hash of the copy in quarantine that was refused
}

// Where parts come from that are not declared.
const (
	installedByHand = "installed by hand"
	writtenByHand   = "written by hand"
)

// key is the place in quarantine of what was made by hand; "" of what was declared.
func (q Quarantined) key() string {
	switch q.From {
	case installedByHand:
		return fmt.Sprintf("%d/%s", q.Priority, q.Name)
	case writtenByHand:
		return local + "/" + q.Name
	}
	return ""
}

// Remedy says what to do about it.
func (q Quarantined) Remedy() string {
	const rest = "everything else is applied; "
	switch {
	case q.key() == "":
		return rest + "correct it or remove it from the configuration, then run: selinux-provision apply"
	case q.Copy == "": // the reason says what to do
		return rest + "then run: selinux-provision apply"
	}
	return rest + "correct the copy in quarantine or remove it, then run: selinux-provision apply"
}

func (q Quarantined) String() string {
	s := q.Kind + " " + q.Name
	if q.Priority != 0 {
		s += fmt.Sprintf(" (priority %d)", q.Priority)
	}
	if q.Line != 0 {
		s += fmt.Sprintf(", line %d", q.Line)
	}
	s += ": " + q.Reason
	if q.From != "" {
		s += " [" + q.From + "]"
	}
	return s
}

// Kernel is the loaded policy, of the running host. *kernel.SELinux is one.
type Kernel interface {
	PolicyLoads() (uint32, error)
	Boolean(name string) (current, found bool, err error)
	SetBooleans(values map[string]bool) error
}

// Compiler compiles the policy of the vendor's modules, what is declared and what the operator made by hand, and loads it.
type Compiler struct {
	Root    *hostfs.Root
	Tools   Runner
	Kernel  Kernel // nil: the root is not the running host; nothing is loaded
	Scratch string // a directory of ours beneath the root for the tools' input; it is emptied
	Shelf   Shelf
	// LockWait is how long to wait for somebody else's semodule; 0: three minutes.
	LockWait time.Duration
}

// Plan gives the steps that make the built and loaded policy that of the vendor plus want: none if it is, else one rebuild for
// the whole difference. The steps change rec.
func (c *Compiler) Plan(policyType string, rec *Record, want Declared) (plan.Plan, error) {
	if rec.Vendor == "" || rec.Type != policyType {
		return nil, errors.New("cannot tell whether the policy store belongs to this OS image: run the policystore stage first")
	}
	want = c.withRoles(policyType, want)
	reason, err := c.rebuildReason(policyType, rec, want)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy: %w", err)
	}
	steps, changed, err := c.equivalences(policyType, rec, want.Equivalences)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the equivalences of file contexts: %w", err)
	}
	if reason != "" {
		byHand, err := edited(c.Root, policyType, rec)
		if err != nil {
			return nil, fmt.Errorf("cannot look at the policy: %w", err)
		}
		for _, below := range byHand {
			steps = append(steps, c.Shelf.keepStep(EtcDir+"/"+policyType+"/"+below, below, "it was changed by hand, and is written anew"))
		}
		steps = append(steps, plan.Step{
			Action: "rebuild", Target: EtcDir + "/" + policyType, Reason: reason,
			Do: func(ctx context.Context) (string, error) { return c.rebuild(ctx, policyType, rec, want) },
		})
		return append(steps, c.relabel(rec, together(relabelPaths(rec, want), changed))...), nil
	}
	if commit := c.commit(policyType); commit != rec.Policy.Commit {
		before := rec.Policy.Commit
		steps = append(steps, plan.Step{
			Action: "record", Target: StoreDir, Reason: "somebody else changed the store and everything declared is still in it", Quiet: true,
			Do: func(ctx context.Context) (string, error) {
				if err := c.settle(ctx, policyType, rec); err != nil {
					return "", err
				}
				rec.Policy.Commit = commit
				return "recorded", nil
			},
			Undo: func(context.Context) error { rec.Policy.Commit = before; return nil },
		})
	}
	live, err := c.liveBooleans(want)
	if err != nil {
		return nil, err
	}
	if len(live) > 0 {
		steps = append(steps, c.setBooleans(live))
	}
	return append(steps, c.relabel(rec, together(rec.Policy.Relabel, changed))...), nil
}

// rebuildReason compares what is declared with the record, and the record with the host: what PID 1 and the SELinux tools read
// must be, byte by byte, what the store built. The modules are read only if somebody committed a transaction since.
func (c *Compiler) rebuildReason(policyType string, rec *Record, want Declared) (string, error) {
	p := &rec.Policy
	switch {
	case p.Vendor == "":
		return "it has not been built from the declaration yet", nil
	case p.Vendor != rec.Vendor:
		return "it was built from another OS image's vendor policy", nil
	case p.Declared != want.Digest:
		what := "the declared state changed"
		before, _, _ := strings.Cut(p.Declared, Again)
		if now, _, _ := strings.Cut(want.Digest, Again); now == before {
			what = "the guard's verdict on single domains changed"
		}
		return what + permissiveChange(p.Permissive, want.Permissive), nil
	}
	for _, q := range p.Quarantine {
		if now := c.Shelf.digest(q.key()); q.Copy != "" && now != "" && now != q.Copy {
			return fmt.Sprintf("the copy of %s %s in quarantine was changed", q.Kind, q.Name), nil
		}
	}
	if _, refused := beside(rec.VendorModules, want.Modules); slices.ContainsFunc(refused, func(q Quarantined) bool { return p.Modules[q.Name] != "" }) {
		return "a module of the vendor's was replaced without being asked for", nil // by an earlier release
	}
	same, err := sameFile(c.Root, active(policyType)+"/policy.kern", c.policyFile(policyType, p.File))
	if err != nil {
		return "", err
	}
	if !same {
		return fmt.Sprintf("%s is not what the store built", c.policyFile(policyType, p.File)), nil
	}
	for store, etc := range installedFiles() {
		same, err := sameFile(c.Root, active(policyType)+"/"+store, EtcDir+"/"+policyType+"/"+etc)
		if err != nil {
			return "", err
		}
		if !same && (c.Root.Exists(active(policyType)+"/"+store) || store == "file_contexts" || store == "seusers") {
			return EtcDir + "/" + policyType + "/" + etc + " is not what the store built", nil
		}
	}
	if others := c.otherPolicies(policyType, p.File); len(others) > 0 {
		return fmt.Sprintf("%s is stale and could be loaded instead", others[0]), nil
	}
	if c.commit(policyType) == p.Commit {
		return "", nil
	}
	// Somebody ran semodule or setsebool -P since. That is their right, as long as what is declared is still there.
	if stripped := c.Root.Exists(active(policyType) + "/" + dontauditFlag); want.StripDontaudit && !stripped {
		return "somebody rebuilt the policy with its dontaudit rules", nil
	}
	have, err := modulesIn(c.Root, typeDir(policyType))
	if err != nil {
		return "", err
	}
	for name, digest := range p.Modules {
		if have[moduleKey(name)] != digest {
			return fmt.Sprintf("somebody changed or removed module %s", name), nil
		}
		if c.Root.Exists(active(policyType) + "/modules/disabled/" + name) {
			return fmt.Sprintf("somebody disabled module %s", name), nil
		}
	}
	local, err := readBooleans(c.Root, active(policyType))
	if err != nil {
		return "", err
	}
	for name, value := range want.Booleans {
		if got, ok := local.values[name]; (!ok || got != value) && !p.quarantined("boolean", name) {
			return fmt.Sprintf("somebody changed boolean %s", name), nil
		}
	}
	return "", nil
}

// installedFiles are the files of an active store that libsemanage copies to a place below /etc/selinux/TYPE when it builds.
func installedFiles() map[string]string {
	return map[string]string{"file_contexts": "contexts/files/file_contexts", "file_contexts.homedirs": "contexts/files/file_contexts.homedirs",
		"file_contexts.local": "contexts/files/file_contexts.local", "seusers": "seusers"}
}

// edited names, below /etc/selinux/TYPE, those copies that somebody has changed. As long as nobody has built since they are to be as in the store; the
// vendor's own are there where FallBack has put them.
func edited(root *hostfs.Root, policyType string, rec *Record) (names []string, err error) {
	if rec.Policy.Vendor == "" || rec.Policy.Vendor != rec.Vendor || commitNumber(root, active(policyType)) != rec.Policy.Commit {
		return nil, nil
	}
	for store, below := range installedFiles() {
		name := EtcDir + "/" + policyType + "/" + below
		if info, err := root.Stat(name); err != nil || !info.IsRegular() {
			continue
		}
		ours, err := sameFile(root, name, active(policyType)+"/"+store)
		if err != nil {
			return nil, err
		}
		vendors, err := sameFile(root, name, VendorEtc(root)+"/"+policyType+"/"+below)
		if err != nil {
			return nil, err
		}
		if !ours && !vendors {
			names = append(names, below)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (p *PolicyRecord) quarantined(kind, name string) bool {
	return slices.ContainsFunc(p.Quarantine, func(q Quarantined) bool { return q.Kind == kind && q.Name == name })
}

func moduleKey(name string) string { return fmt.Sprintf("%d/%s", Priority, name) }

func (c *Compiler) policyFile(policyType, base string) string {
	return EtcDir + "/" + policyType + "/policy/" + base
}

// commit reads libsemanage's counter of transactions; "" if there is none.
func (c *Compiler) commit(policyType string) string { return commitNumber(c.Root, active(policyType)) }

func commitNumber(root *hostfs.Root, activeDir string) string {
	content, err := root.ReadFile(activeDir + "/commit_num")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(content), "\x00\n ")
}

// otherPolicies names the binary policies that libselinux might load instead of current: it takes the highest version that the
// kernel and libsepol know. What the overlay's lower layer ships cannot go stale and is left alone, but what hides it there with other content, an older
// build, is none of that.
func (c *Compiler) otherPolicies(policyType, current string) []string {
	policies, err := seconfig.Policies(c.Root, seconfig.PolicyDir(EtcDir, policyType))
	if err != nil {
		return nil
	}
	var others []string
	for _, p := range policies {
		name := c.policyFile(policyType, p.Name)
		info, err := c.Root.Lstat(name)
		if err != nil || !info.IsRegular() || p.Name == current {
			continue
		}
		lower := seconfig.PolicyDir(LowerEtc(c.Root)+"/selinux", policyType) + "/" + p.Name
		if shipped, err := sameFile(c.Root, name, lower); err == nil && !shipped {
			others = append(others, name)
		}
	}
	return others
}

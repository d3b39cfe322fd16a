package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// dontauditFlag is the file in the active store that tells libsemanage to build without dontaudit rules (semodule -D).
const dontauditFlag = "disable_dontaudit"

// Names of the modules that are made here and not declared as files.
const (
	contextsModule = "selinux_provision_file_contexts"
	sharedModule   = "selinux_provision_shared_volumes"
)

// Declared is the state that the policy is to have beyond the vendor's.
type Declared struct {
	Digest         string // identifies everything below; equal digests mean equal declarations
	Modules        []Module
	FileContexts   []FileContext
	Booleans       map[string]bool
	SharedVolumes  bool
	StripDontaudit bool
}

// Module is a declared policy module.
type Module struct {
	Name    string
	Lang    string // "cil" or "pp"
	Content []byte
	From    string // where it was declared, for messages
}

// FileContext is a declared line of file_contexts.
type FileContext struct {
	Path    string // a regular expression, anchored
	Type    string // any, file, dir, char, block, socket, pipe, symlink
	Context string // user:role:type:level, or <<none>>
	From    string
}

// PolicyRecord is what was built last. PlanPolicy writes it; it and status read it.
type PolicyRecord struct {
	Vendor         string            `json:"vendor,omitempty"`          // fingerprint of the vendor policy it is based on
	Declared       string            `json:"declared,omitempty"`        // digest of the declarations
	Commit         string            `json:"commit,omitempty"`          // libsemanage's commit number: another one means that somebody ran semodule
	File           string            `json:"file,omitempty"`            // the binary policy that PID 1 loads, "policy.34"
	Modules        map[string]string `json:"modules,omitempty"`         // our modules in the store, to the hash of what the store has
	FileContexts   []string          `json:"file_contexts,omitempty"`   // the declared ones, as CIL
	Booleans       []string          `json:"booleans,omitempty"`        // the booleans that were declared
	StripDontaudit bool              `json:"strip_dontaudit,omitempty"` // dontaudit rules were stripped by us, not by an operator
	Relabel        []Relabel         `json:"relabel,omitempty"`         // paths whose declared label changed and that were not relabelled yet
	Quarantine     []Quarantined     `json:"quarantine,omitempty"`      // what was left out, because the policy did not build with it
}

// Quarantined is a declaration that was left out so that the rest could be applied. It is tried again when it, anything else
// that is declared, or the vendor's policy changes.
type Quarantined struct {
	Kind     string `json:"kind"` // module, file context, boolean
	Name     string `json:"name"`
	Priority int    `json:"priority,omitempty"` // of a module
	Line     int    `json:"line,omitempty"`     // in the module, 0 if the tools do not say
	Reason   string `json:"reason"`
	From     string `json:"from,omitempty"` // where it was declared
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

// Builder runs the SELinux tools that compile and load a policy.
type Builder struct {
	Root    *hostfs.Root
	Tools   command.Tools
	Kernel  Kernel // nil: the root is not the running host; nothing is loaded
	Scratch string // a directory of ours beneath the root for the tools' input; it is emptied
	// Quarantine is where the operator's modules go that the policy does not build with; see Keeper.
	Quarantine string
}

// Plan gives the steps that make the built and loaded policy that of the vendor plus want: none if it is, else one rebuild for
// the whole difference. The steps change rec.
func (b *Builder) Plan(policyType string, rec *Record, want Declared) (plan.Plan, error) {
	if rec.Vendor == "" || rec.Type != policyType {
		return nil, errors.New("the policy store is not known to be this OS image's: run the policystore stage first")
	}
	reason, err := b.rebuildReason(policyType, rec, want)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy: %w", err)
	}
	var steps plan.Plan
	if reason != "" {
		steps = append(steps, plan.Step{
			Action: "rebuild", Target: EtcDir + "/" + policyType, Reason: reason,
			Do: func(ctx context.Context) (string, error) { return b.rebuild(ctx, policyType, rec, want) },
		})
		return append(steps, b.relabel(rec, relabelPaths(rec, want))...), nil
	}
	if commit := b.commit(policyType); commit != rec.Policy.Commit {
		before := rec.Policy.Commit
		steps = append(steps, plan.Step{
			Action: "record", Target: StoreDir, Reason: "somebody else changed the store and everything declared is still in it", Quiet: true,
			Do:   func(context.Context) (string, error) { rec.Policy.Commit = commit; return "recorded", nil },
			Undo: func(context.Context) error { rec.Policy.Commit = before; return nil },
		})
	}
	live, err := b.liveBooleans(want)
	if err != nil {
		return nil, err
	}
	if len(live) > 0 {
		steps = append(steps, b.setBooleans(live))
	}
	return append(steps, b.relabel(rec, rec.Policy.Relabel)...), nil
}

// rebuildReason compares what is declared with the record, and the record with the host: what PID 1 and the SELinux tools read
// must be, byte by byte, what the store built. The modules are read only if somebody committed a transaction since.
func (b *Builder) rebuildReason(policyType string, rec *Record, want Declared) (string, error) {
	p := &rec.Policy
	switch {
	case p.Vendor == "":
		return "it was never built with what is declared", nil
	case p.Vendor != rec.Vendor:
		return "it was built from another OS image's vendor policy", nil
	case p.Declared != want.Digest:
		return "the declared state changed", nil
	}
	same, err := sameFile(b.Root, active(policyType)+"/policy.kern", b.policyFile(policyType, p.File))
	if err != nil {
		return "", err
	}
	if !same {
		return fmt.Sprintf("%s is not what the store built", b.policyFile(policyType, p.File)), nil
	}
	for store, etc := range map[string]string{"file_contexts": "contexts/files/file_contexts", "seusers": "seusers"} {
		same, err := sameFile(b.Root, active(policyType)+"/"+store, EtcDir+"/"+policyType+"/"+etc)
		if err != nil {
			return "", err
		}
		if !same {
			return EtcDir + "/" + policyType + "/" + etc + " is not what the store built", nil
		}
	}
	if others := b.otherPolicies(policyType, p.File); len(others) > 0 {
		return fmt.Sprintf("%s is stale and could be loaded instead", others[0]), nil
	}
	if b.commit(policyType) == p.Commit {
		return "", nil
	}
	// Somebody ran semodule or setsebool -P since. That is their right, as long as what is declared is still there.
	if stripped := b.Root.Exists(active(policyType) + "/" + dontauditFlag); want.StripDontaudit && !stripped {
		return "somebody rebuilt the policy with its dontaudit rules", nil
	}
	have, err := modulesIn(b.Root, typeDir(policyType))
	if err != nil {
		return "", err
	}
	for name, digest := range p.Modules {
		if have[moduleKey(name)] != digest {
			return fmt.Sprintf("somebody changed or removed module %s", name), nil
		}
		if b.Root.Exists(active(policyType) + "/modules/disabled/" + name) {
			return fmt.Sprintf("somebody disabled module %s", name), nil
		}
	}
	local, err := readBooleans(b.Root, active(policyType))
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

func (p *PolicyRecord) quarantined(kind, name string) bool {
	return slices.ContainsFunc(p.Quarantine, func(q Quarantined) bool { return q.Kind == kind && q.Name == name })
}

func moduleKey(name string) string { return fmt.Sprintf("%d/%s", Priority, name) }

func (b *Builder) policyFile(policyType, base string) string {
	return EtcDir + "/" + policyType + "/policy/" + base
}

// commit reads libsemanage's counter of transactions; "" if there is none.
func (b *Builder) commit(policyType string) string {
	content, err := b.Root.ReadFile(active(policyType) + "/commit_num")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(content), "\x00\n ")
}

// otherPolicies names the binary policies that libselinux might load instead of current: it takes the highest version that the
// kernel and libsepol know. What the overlay's lower layer ships cannot go stale and is left alone.
func (b *Builder) otherPolicies(policyType, current string) []string {
	entries, err := b.Root.ReadDir(EtcDir + "/" + policyType + "/policy")
	if err != nil {
		return nil
	}
	var others []string
	for _, e := range entries {
		base := e.Name()
		if _, err := strconv.Atoi(strings.TrimPrefix(base, "policy.")); err != nil || !e.Type().IsRegular() ||
			!strings.HasPrefix(base, "policy.") || base == current || b.Root.Exists(path.Join(LowerEtc, "selinux", policyType, "policy", base)) {
			continue
		}
		others = append(others, b.policyFile(policyType, base))
	}
	return others
}

// rebuild runs semodule once with everything, and again without whatever it says is broken.
func (b *Builder) rebuild(ctx context.Context, policyType string, rec *Record, want Declared) (string, error) {
	if err := b.inside(policyType); err != nil {
		return "", err
	}
	if err := b.room(policyType); err != nil {
		return "", fmt.Errorf("cannot build the policy: %w", err)
	}
	if err := b.sound(policyType, rec); err != nil {
		return "", err
	}
	returned, err := b.readmit(policyType)
	if err != nil {
		return "", fmt.Errorf("cannot try the modules in quarantine again: %w", err)
	}
	tx, err := b.transaction(policyType, rec, want)
	if err != nil {
		return "", fmt.Errorf("cannot read the policy store: %w", err)
	}
	loads, err := b.loads()
	if err != nil {
		return "", err
	}
	commit := b.commit(policyType)
	out, err := tx.commitWith(ctx, b.prepareStore(policyType, rec, want, tx.strip))
	if err != nil {
		for _, key := range returned { // they are still in quarantine
			err = errors.Join(err, b.Root.RemoveTree(active(policyType)+"/modules/"+key))
		}
		return "", errors.Join(fmt.Errorf("cannot build the policy: %w", err), b.FallBack(ctx, policyType, rec))
	}
	summary, err := b.built(policyType, rec, want, tx, loads)
	switch {
	case b.commit(policyType) == commit:
		err = errors.New("cannot build the policy: semodule says that it succeeded, and it changed nothing")
	case err == nil && tx.strip && !b.Root.Exists(active(policyType)+"/"+dontauditFlag):
		err = errors.New("cannot build the policy without dontaudit rules: semodule says that it succeeded, and they are still there")
	}
	if err != nil {
		return "", &plan.UndoError{Failed: err, Undo: errors.New("semodule has no way back: the next run builds the policy anew")}
	}
	return fmt.Sprintf("%s (semodule %.1f s, %d MB)", summary, out.Elapsed.Seconds(), out.MaxRSS>>20), nil
}

// prepareStore gives the steps that change what libsemanage reads beside the modules, so that it rides along in the transaction.
func (b *Builder) prepareStore(policyType string, rec *Record, want Declared, strip bool) plan.Plan {
	var steps plan.Plan
	if step, ok := b.writeBooleans(policyType, rec, want); ok {
		steps = append(steps, step)
	}
	if flag := active(policyType) + "/" + dontauditFlag; !strip && b.Root.Exists(flag) {
		// semodule --install keeps the flag, and only --build drops it, which it refuses beside --install.
		steps = append(steps, plan.Remove(b.Root, flag, "dontaudit rules are to be kept"))
	}
	return steps
}

// built looks at what semodule made of the transaction, records it, and says it in words.
func (b *Builder) built(policyType string, rec *Record, want Declared, tx *transaction, loads uint32) (string, error) {
	b.release(policyType)
	next := PolicyRecord{
		Vendor: rec.Vendor, Declared: want.Digest, Commit: b.commit(policyType),
		Modules: map[string]string{}, Booleans: slices.Sorted(maps.Keys(want.Booleans)),
		StripDontaudit: want.StripDontaudit, Quarantine: append(stillQuarantined(b, rec, tx.quarantine), tx.quarantine...),
	}
	next.Relabel = relabelPaths(rec, want)
	for _, c := range want.FileContexts {
		next.FileContexts = append(next.FileContexts, strings.TrimSpace(filecon(c)))
	}
	var err error
	if next.File, err = b.policyBuilt(policyType); err != nil {
		return "", err
	}
	have, err := modulesIn(b.Root, typeDir(policyType))
	if err != nil {
		return "", fmt.Errorf("cannot read the built store: %w", err)
	}
	for _, item := range tx.items {
		for _, name := range item.modules() {
			next.Modules[name] = have[moduleKey(name)]
			if next.Modules[name] == "" {
				return "", fmt.Errorf("cannot find module %s in the store although semodule succeeded", name)
			}
		}
	}
	for _, stale := range b.otherPolicies(policyType, next.File) {
		if err := b.Root.Remove(stale); err != nil {
			return "", fmt.Errorf("cannot remove a stale policy: %w", err)
		}
	}
	missing, err := b.checkBooleans(policyType, next.File, want.Booleans)
	if err != nil {
		return "", err
	}
	next.Quarantine = append(next.Quarantine, missing...)
	beaten, err := b.checkContexts(policyType, next.File, tx.items)
	if err != nil {
		return "", err
	}
	next.Quarantine = append(next.Quarantine, beaten...)
	undeclared := rec.Policy.Booleans
	rec.Policy = next
	if b.Kernel != nil {
		after, err := b.loads()
		if err != nil {
			return "", err
		}
		if after == loads {
			return "", errors.New("the policy was built but the kernel did not load it: see the kernel's messages, then run this stage again")
		}
		live, err := b.bootBooleans(policyType, next.File, undeclared)
		if err != nil {
			return "", err
		}
		if err := b.Kernel.SetBooleans(live); err != nil {
			return "", err
		}
	}
	return tx.summary(want, len(next.Quarantine)), nil
}

// sound makes sure that the vendor's modules are in the store before it is built: one that is gone or empty is damage, which the
// policystore stage repairs by building the store anew. One with other content is an operator's replacement.
func (b *Builder) sound(policyType string, rec *Record) error {
	for _, key := range slices.Sorted(maps.Keys(rec.VendorModules)) {
		if emptyModule(b.Root, typeDir(policyType), key) {
			return fmt.Errorf("%w: the vendor's module %s is missing or empty", ErrDamaged, key)
		}
	}
	return nil
}

// ErrDamaged says that the store is not what it was built as. The policystore stage builds it anew.
var ErrDamaged = errors.New("cannot build from a damaged policy store")

// readmit puts the operator's modules in quarantine back into the store, as candidates: what is declared now may be what they
// lacked. It gives those that it put back.
func (b *Builder) readmit(policyType string) ([]string, error) {
	var returned []string
	for _, key := range quarantined(b.Root, b.Quarantine) {
		to := active(policyType) + "/modules/" + key
		if strings.HasPrefix(key, "local/") || b.Root.Exists(to) {
			continue
		}
		if err := b.Root.MkdirAll(path.Dir(to), 0o700); err != nil {
			return returned, err
		}
		if _, err := b.Root.CopyTree(b.Quarantine+"/"+key, to); err != nil {
			return returned, err
		}
		returned = append(returned, key)
	}
	return returned, nil
}

// inside makes sure that the tools, which know nothing of a root, stay in a tree that is not the running host: no link may
// lead them to another place than it leads us.
func (b *Builder) inside(policyType string) error {
	if b.Root.IsHost() {
		return nil
	}
	for _, name := range []string{EtcDir, EtcDir + "/" + policyType, EtcDir + "/" + policyType + "/policy", EtcDir + "/" + policyType + "/contexts",
		EtcDir + "/" + policyType + "/contexts/files", EtcDir + "/" + policyType + "/contexts/users", StoreDir, typeDir(policyType), active(policyType),
		StoreDir + "/final", path.Dir(b.Scratch)} {
		if err := b.Root.SamePath(name); ignoreMissing(err) != nil {
			return fmt.Errorf("cannot run semodule on this tree: %w", err)
		}
	}
	return nil
}

// room makes sure that a full disk does not stop semodule half-way: it writes a second store beside the first, and what it
// makes of it to /etc.
func (b *Builder) room(policyType string) error {
	size, err := b.Root.Measure(active(policyType))
	if err != nil {
		return err
	}
	for _, dir := range []string{StoreDir, EtcDir} {
		free, err := b.Root.Free(dir)
		if err != nil {
			return err
		}
		if inodes, err := b.Root.FreeInodes(dir); err != nil {
			return err
		} else if need := uint64(2 * size.Entries); inodes < need {
			return fmt.Errorf("%s has room for %d files and a build needs %d: make room, then run the policy stage again", b.Root.Path(dir), inodes, need)
		}
		if need := uint64(size.Bytes+int64(size.Entries)*4096) + spare/2; free < need {
			return fmt.Errorf("%s has %d MB free and a build needs %d MB: make room, then run the policy stage again", b.Root.Path(dir), free>>20, need>>20)
		}
	}
	return nil
}

func (b *Builder) loads() (uint32, error) {
	if b.Kernel == nil {
		return 0, nil
	}
	return b.Kernel.PolicyLoads()
}

// policyBuilt finds the binary policy that semodule wrote for PID 1: the one that equals the store's.
func (b *Builder) policyBuilt(policyType string) (string, error) {
	dir := EtcDir + "/" + policyType + "/policy"
	entries, err := b.Root.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("cannot find the built policy: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "policy.") {
			continue
		}
		same, err := sameFile(b.Root, active(policyType)+"/policy.kern", dir+"/"+e.Name())
		if err != nil {
			return "", fmt.Errorf("cannot compare policies: %w", err)
		}
		if same {
			return e.Name(), nil
		}
	}
	return "", fmt.Errorf("semodule succeeded, but no policy in %s is what it built", b.Root.Path(dir))
}

package policystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/cil"
	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/roles"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// ErrDamaged says that the store is not what it was built as. The policystore stage builds it anew.
var ErrDamaged = errors.New("cannot build from a damaged policy store")

// ErrInPlace says that semodule has built the policy and put it in place, and that something is wrong all the same. The store is good:
// nothing is to be thrown away, and the next run builds in it again.
var ErrInPlace = errors.New("the new policy is in place and semodule cannot take it back: the next run builds it again")

// rebuild builds the policy in one transaction, without what it does not build with, and records what came of it.
func (c *Compiler) rebuild(ctx context.Context, policyType string, rec *Record, want Declared) (string, error) {
	if err := c.ready(policyType, rec); err != nil {
		return "", err
	}
	tx, err := c.begin(policyType, rec, want)
	if err != nil {
		return "", fmt.Errorf("cannot read the policy store: %w", err)
	}
	if err := c.safekeep(ctx, policyType, rec); err != nil {
		return "", err
	}
	loads, err := c.loads()
	if err != nil {
		return "", err
	}
	found, err := c.compile(ctx, tx, rec, want)
	if err != nil {
		return "", errors.Join(fmt.Errorf("cannot build the policy: %w", err), c.FallBack(ctx, policyType, rec))
	}
	// libsemanage before 3.2 flushes nothing. What is about to be recorded, and what leaves quarantine because the store has it, must
	// still be there after a power cut.
	if err := c.Root.Sync(StoreDir, EtcDir); err != nil {
		return "", &plan.UndoError{Failed: fmt.Errorf("cannot flush the built policy to the disk: %w", err), Undo: ErrInPlace}
	}
	next, beaten, err := c.inspect(tx, found, rec, want)
	if err == nil {
		undeclared := rec.Policy.Booleans
		rec.Policy = next
		err = c.inForce(policyType, next.File, undeclared, loads)
	}
	if err != nil {
		return "", &plan.UndoError{Failed: err, Undo: ErrInPlace}
	}
	return tx.summary(want, found.in, len(next.Quarantine)+beaten, c.Kernel != nil), nil
}

// ready makes sure that nothing foreseeable stops semodule half-way.
func (c *Compiler) ready(policyType string, rec *Record) error {
	if err := c.inside(policyType); err != nil {
		return err
	}
	if err := c.ownStore(); err != nil {
		return err
	}
	if err := c.RoomToBuild(policyType); err != nil {
		return fmt.Errorf("cannot build the policy: %w", err)
	}
	return c.sound(policyType, rec)
}

// begin looks at what the policy is to be built of.
func (c *Compiler) begin(policyType string, rec *Record, want Declared) (*transaction, error) {
	have, err := modulesIn(c.Root, typeDir(policyType))
	if err != nil {
		return nil, err
	}
	locals, err := localFiles(c.Root, policyType)
	if err != nil {
		return nil, err
	}
	// A flag that is there and that we did not set is an operator's semodule -DB: a rebuild without -D would drop it.
	byHand := c.Root.Exists(active(policyType)+"/"+dontauditFlag) && (!rec.Policy.StripDontaudit || rec.Policy.DontauditBefore)
	booleans, err := readBooleans(c.Root, active(policyType))
	if err != nil {
		return nil, fmt.Errorf("cannot read the store's booleans: %w", err)
	}
	before := booleans.operators(rec)
	maps.Copy(before, rec.Policy.BooleansBefore)
	maps.DeleteFunc(before, func(name string, _ bool) bool { _, declared := want.Booleans[name]; return !declared })
	var refused []Quarantined
	want.Modules, refused = beside(rec.VendorModules, want.Modules)
	return &transaction{
		c: c, policyType: policyType, rec: rec, strip: want.StripDontaudit || byHand, aside: map[int]bool{}, refused: append(refused, want.refused...),
		booleansBefore: before, dontauditBefore: byHand && want.StripDontaudit,
		parts: append(declaredParts(want), operatorsParts(have, rec, locals, c.Shelf.keys())...),
	}, nil
}

// compile makes the small changes first and takes them back if semodule fails: they are a plan with semodule as the last step.
func (c *Compiler) compile(ctx context.Context, tx *transaction, rec *Record, want Declared) (*search, error) {
	found := &search{parts: tx.parts, build: tx.build}
	for i := range tx.parts {
		found.in = append(found.in, i)
	}
	steps, err := c.prepareStore(tx.policyType, rec, want, tx.strip)
	if err != nil {
		return nil, err
	}
	before := c.commit(tx.policyType)
	_, err = append(steps, plan.Step{Action: "rebuild", Target: StoreDir, Do: func(ctx context.Context) (string, error) {
		if err := c.keepUnknown(tx.policyType, rec); err != nil {
			return "", err
		}
		if err := found.run(ctx); err != nil {
			return "", err
		}
		if c.commit(tx.policyType) == before {
			return "", errors.New("semodule reported success but changed nothing")
		}
		return "", nil
	}}).Do(ctx, nil, nil)
	return found, errors.Join(err, c.Root.RemoveTree(c.Scratch))
}

// keepUnknown copies what is in our place in the store and was not put there by us.
func (c *Compiler) keepUnknown(policyType string, rec *Record) error {
	have, err := modulesIn(c.Root, typeDir(policyType))
	if err != nil {
		return err
	}
	for _, key := range unknown(have, rec) {
		if _, err := c.Shelf.keep(active(policyType)+"/modules/"+key, "modules/"+key); err != nil {
			return fmt.Errorf("cannot keep a copy of module %s, which somebody installed at our priority: %w", key, err)
		}
	}
	return nil
}

// unknown gives the modules at our priority that the record knows nothing of. Without a record all are taken for ours.
func unknown(have map[string]string, rec *Record) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(have)) {
		priority, name, _ := splitKey(key)
		if priority == Priority && name != contextsModule && name != sharedModule && name != domainsModule && !strings.HasPrefix(name, roles.Module) && rec.Policy.Vendor != "" && rec.Policy.Modules[name] != have[key] {
			keys = append(keys, key)
		}
	}
	return keys
}

// prepareStore gives the steps that change what libsemanage reads beside the modules, so that it rides along in the transaction.
func (c *Compiler) prepareStore(policyType string, rec *Record, want Declared, strip bool) (plan.Plan, error) {
	steps, err := c.writeBooleans(policyType, rec, want)
	if flag := active(policyType) + "/" + dontauditFlag; !strip && c.Root.Exists(flag) {
		// semodule --install keeps the flag, and only --build drops it, which it refuses beside --install.
		steps = append(steps, plan.Remove(c.Root, flag, "dontaudit rules are to be kept"))
	}
	return steps, err
}

// inspect looks at what semodule made, and gives what there is to be remembered of it, and how many file contexts have no effect.
func (c *Compiler) inspect(tx *transaction, found *search, rec *Record, want Declared) (next PolicyRecord, beaten int, err error) {
	next = PolicyRecord{
		Vendor: rec.Vendor, Declared: want.Digest, Commit: c.commit(tx.policyType), Booleans: slices.Sorted(maps.Keys(want.Booleans)),
		StripDontaudit: want.StripDontaudit, BooleansBefore: tx.booleansBefore, DontauditBefore: tx.dontauditBefore,
	}
	if tx.strip && !c.Root.Exists(active(tx.policyType)+"/"+dontauditFlag) {
		return next, 0, errors.New("cannot build the policy without dontaudit rules: semodule reported success, and they are still there")
	}
	if next.File, err = c.policyBuilt(tx.policyType); err != nil {
		return next, 0, err
	}
	have, err := modulesIn(c.Root, typeDir(tx.policyType))
	if err != nil {
		return next, 0, fmt.Errorf("cannot read the built store: %w", err)
	}
	var astray []Quarantined
	next.Modules, astray = installed(tx.parts, found.in, have)
	missing, err := c.checkBooleans(tx.policyType, next.File, want.Booleans)
	if err != nil {
		return next, 0, err
	}
	for _, d := range want.Permissive {
		next.Permissive = append(next.Permissive, d.Type)
	}
	missing = append(missing, c.noDomains(tx, found, next.File)...)
	for _, stale := range c.otherPolicies(tx.policyType, next.File) {
		if err := c.Root.Remove(stale); err != nil {
			return next, 0, fmt.Errorf("cannot remove a stale policy: %w", err)
		}
	}
	if err := c.releaseFrom(tx.policyType, found, have); err != nil {
		return next, 0, err
	}
	lines, err := c.releaseBooleans()
	if err != nil {
		return next, 0, err
	}
	next.Quarantine = slices.Concat(lines, c.leftOut(tx.policyType, next.File, found), tx.refused, astray, missing)
	inForce, without, err := c.inForceOf(tx.policyType, &next, want.FileContexts)
	if err != nil {
		return next, 0, err
	}
	if len(want.FileContexts) > 0 {
		next.Lookup.Without = without
		if next.Lookup.Files, err = filecontexts.Fingerprint(c.Root, tx.policyType); err != nil {
			return next, 0, err
		}
	}
	for _, fc := range inForce {
		next.FileContexts = append(next.FileContexts, strings.TrimSpace(filecon(fc)))
	}
	want.FileContexts = inForce
	next.Relabel = relabelPaths(rec, want)
	return next, len(without), nil
}

// installed gives the hashes that the store has of the modules that carry the declared parts, and the parts whose module it has not.
func installed(parts []part, in []int, have map[string]string) (modules map[string]string, astray []Quarantined) {
	modules = map[string]string{}
	for _, i := range in {
		p := parts[i]
		if p.origin != declared {
			continue
		}
		if digest := have[moduleKey(p.module())]; digest != "" {
			modules[p.module()] = digest
			continue
		}
		astray = append(astray, Quarantined{Kind: p.kind, Name: p.name, Priority: p.priority, From: p.from,
			Reason: "semodule accepted it, but the store has no module of that name"})
	}
	return modules, astray
}

// leftOut says what the search left out, and where it is if it was not declared.
func (c *Compiler) leftOut(policyType, file string, found *search) []Quarantined {
	var all []Quarantined
	symbols := sync.OnceValue(func() *policydb.Symbols { return c.readSymbols(policyType, file) })
	for _, o := range found.out {
		p := found.parts[o.part]
		q := Quarantined{Kind: p.kind, Name: p.name, Line: o.line, Reason: o.reason, From: p.from}
		if p.kind == permissiveDomain && symbols().Version != 0 && !strings.HasPrefix(o.reason, "it needs ") {
			q.Reason = cmp.Or(symbols().NoDomain(p.name), q.Reason)
		}
		if p.kind == policyModule && p.lang == "cil" && o.line > 0 && unresolvable().MatchString(o.reason) {
			q.Reason += unresolved(string(p.text), o.line, func(name string) bool { return symbols().Has(name) || slices.Contains(p.declared, name) })
		}
		if p.kind == policyModule {
			q.Priority = p.priority
		}
		all = append(all, c.inQuarantine(q))
	}
	return all
}

// inQuarantine adds where it is, if it was not declared.
func (c *Compiler) inQuarantine(q Quarantined) Quarantined {
	if key := q.key(); key != "" {
		q.Reason += "; it is kept in " + c.Root.Path(c.Shelf.path(key))
		q.Copy = c.Shelf.digest(key)
	}
	return q
}

// unresolved shows the statement that the tools speak of, and which types in it nobody has declared.
func unresolved(text string, line int, known func(name string) bool) string {
	words := cil.Statement(text, line)
	if len(words) < 3 {
		return ""
	}
	said := ": (" + clip(cil.Text(words)) + ")"
	var types []cil.Token
	switch words[0].Text {
	case "allow", "auditallow", "dontaudit", "neverallow", "typetransition", "typechange", "typemember":
		types = words[1:3]
	case "roletype":
		types = words[2:3]
	}
	var missing []string
	for _, t := range types {
		if secontext.IsName(t.Text) && t.Text != "self" && !strings.Contains(t.Text, ".") && !known(t.Text) && !slices.Contains(missing, t.Text) {
			missing = append(missing, t.Text)
		}
	}
	if len(missing) == 0 || len(missing) == len(types) && len(types) > 1 { // where nothing is known the policy could not be read
		return said
	}
	return said + ": the policy has no type " + strings.Join(missing, " and no type ")
}

// releaseFrom empties the quarantine of what the store has again.
func (c *Compiler) releaseFrom(policyType string, found *search, have map[string]string) error {
	out := map[string]bool{} // where the store has one all the same, it is the vendor's
	for _, o := range found.out {
		out[found.parts[o.part].key()] = true
	}
	modules, locals := c.Shelf.list()
	for _, key := range modules {
		if _, there := have[key]; there && !out[key] && !emptyModule(c.Root, typeDir(policyType), key) {
			if err := c.Shelf.release(key, active(policyType)+"/modules/"+key); err != nil {
				return fmt.Errorf("cannot take module %s out of quarantine: %w", key, err)
			}
		}
	}
	for _, name := range locals {
		if from := active(policyType) + "/" + name; name != booleansFile && c.Root.Exists(from) {
			if err := c.Shelf.release(local+"/"+name, from); err != nil {
				return fmt.Errorf("cannot take %s out of quarantine: %w", name, err)
			}
		}
	}
	return nil
}

// inForce makes sure that the kernel has loaded what was built, and gives it the booleans that loading leaves as they were.
func (c *Compiler) inForce(policyType, file string, undeclared []string, loadsBefore uint32) error {
	if c.Kernel == nil {
		return nil
	}
	loads, err := c.loads()
	if err != nil {
		return err
	}
	if loads == loadsBefore {
		return errors.New("the policy was built but the kernel did not load it: see the kernel's messages, then run this stage again")
	}
	live, err := c.bootBooleans(policyType, file, undeclared)
	if err != nil {
		return err
	}
	return c.Kernel.SetBooleans(live)
}

// sound makes sure that the vendor's modules are in the store before it is built: one that is gone or empty is damage, which the
// policystore stage repairs by building the store anew. One with other content is an operator's replacement.
func (c *Compiler) sound(policyType string, rec *Record) error {
	for _, key := range slices.Sorted(maps.Keys(rec.VendorModules)) {
		if emptyModule(c.Root, typeDir(policyType), key) {
			return fmt.Errorf("%w: the vendor's module %s is missing or empty", ErrDamaged, key)
		}
	}
	return nil
}

// semanageConf is where libsemanage is told its ways.
const semanageConf = EtcDir + "/semanage.conf"

// ownStore makes sure that semodule builds in the store that is looked at here.
func (c *Compiler) ownStore() error {
	content, err := c.Root.ReadFile(semanageConf)
	if err != nil {
		return ignoreMissing(err)
	}
	if other := storeRoot(string(content)); other != "" && path.Clean(other) != StoreDir {
		return fmt.Errorf("cannot build the policy in %s: %s has store-root=%s, and semodule builds there: take that line out",
			StoreDir, c.Root.Path(semanageConf), printable.Text(other))
	}
	return nil
}

// storeRoot gives the store that libsemanage uses by a text of semanage.conf, "" if it does not say: the last line counts, and all of it behind
// the sign, with or without quotes (conf-scan.l, conf-parse.y).
func storeRoot(text string) (dir string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) == "store-root" {
			dir = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return dir
}

// inside makes sure that the tools, which know nothing of a root, stay in a tree that is not the running host: no link may
// lead them to another place than it leads us.
func (c *Compiler) inside(policyType string) error {
	if c.Root.IsHost() {
		return nil
	}
	etc := EtcDir + "/" + policyType
	for _, name := range []string{EtcDir, etc, etc + "/policy", etc + "/contexts", etc + "/contexts/files", etc + "/contexts/users",
		StoreDir, typeDir(policyType), active(policyType), StoreDir + "/final", path.Dir(c.Scratch)} {
		if err := c.Root.SamePath(name); ignoreMissing(err) != nil {
			return fmt.Errorf("cannot run semodule on this tree: %w", err)
		}
	}
	return nil
}

// RoomToBuild tells whether there is room for building the policy in the host's store.
func (c *Compiler) RoomToBuild(policyType string) error {
	for _, dir := range []string{StoreDir, EtcDir} {
		if err := c.room(policyType, dir); err != nil {
			return err
		}
	}
	return nil
}

// RoomError says how much room on a disk is missing.
type RoomError struct{ Lack string }

func (e *RoomError) Error() string { return e.Lack + ": make room, then run: selinux-provision apply" }

// room makes sure that a full disk does not stop semodule half-way: it writes a second store beside the first, and what it
// makes of it to /etc.
func (c *Compiler) room(policyType, dir string) error {
	size, err := c.Root.Measure(active(policyType))
	if err != nil {
		return err
	}
	free, err := c.Root.Free(dir)
	if err != nil {
		return err
	}
	inodes, err := c.Root.FreeInodes(dir)
	if err != nil {
		return err
	}
	return enough(c.Root.Path(dir), size, free, inodes)
}

// enough tells whether a place has room for what building a store of a size writes there.
func enough(dir string, size hostfs.Tree, free, inodes uint64) error {
	if need := uint64(2 * size.Entries); inodes < need {
		return &RoomError{fmt.Sprintf("%s has room for %d files and a build needs %d", dir, inodes, need)}
	}
	if need := uint64(size.Bytes+int64(size.Entries)*4096) + spare/2; free < need {
		return &RoomError{fmt.Sprintf("%s has %d MB free and a build needs %d MB", dir, free>>20, need>>20)}
	}
	return nil
}

func (c *Compiler) loads() (uint32, error) {
	if c.Kernel == nil {
		return 0, nil
	}
	return c.Kernel.PolicyLoads()
}

// policyBuilt finds the binary policy that semodule wrote for PID 1: the one that equals the store's.
func (c *Compiler) policyBuilt(policyType string) (string, error) {
	dir := seconfig.PolicyDir(EtcDir, policyType)
	policies, err := seconfig.Policies(c.Root, dir)
	if err != nil {
		return "", fmt.Errorf("cannot find the built policy: %w", err)
	}
	for _, p := range policies {
		same, err := sameFile(c.Root, active(policyType)+"/policy.kern", dir+"/"+p.Name)
		if err != nil {
			return "", fmt.Errorf("cannot compare policies: %w", err)
		}
		if same {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("semodule reported success, but none of the policies in %s is the one that it built", c.Root.Path(dir))
}

// summary says what one rebuild did, and what it took.
func (tx *transaction) summary(want Declared, in []int, leftOut int, loaded bool) string {
	modules, contexts, domains := 0, 0, 0
	for _, i := range in {
		switch p := tx.parts[i]; {
		case p.origin != declared:
		case p.kind == policyModule:
			modules++
		case p.kind == permissiveDomain:
			domains++
		default:
			contexts++
		}
	}
	said := count(modules, "module") + ", " + count(contexts, "file context") + ", " + count(len(want.Booleans), "boolean")
	if domains > 0 {
		said += ", " + count(domains, "permissive domain")
	}
	if tx.strip {
		said += ", dontaudit rules stripped"
	}
	if loaded {
		said += ", loaded"
	}
	if leftOut > 0 {
		said += fmt.Sprintf(", %d left out", leftOut)
	}
	ran := "semodule"
	if tx.runs > 1 {
		ran = fmt.Sprintf("semodule ran %d times,", tx.runs)
	}
	return fmt.Sprintf("%s (%s %.1f s, %d MB)", said, ran, tx.took.Seconds(), tx.peak>>20)
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// lockWait is how long to wait for somebody else's semodule.
func (c *Compiler) lockWait() time.Duration {
	if c.LockWait > 0 {
		return c.LockWait
	}
	return lockWait
}

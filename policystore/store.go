package policystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Priority is the priority of the modules that this project installs. It is above 400, semodule's default, so that what is
// declared wins over a module of the same name that was installed by hand, and both can be told apart for ever.
const Priority = 500

// Record is what this package remembers of what it did. The stages policystore and policy write it, through the caller that saves it; they
// and status read it. A record that is missing or wrong costs a rebuild, never a wrong store.
type Record struct {
	// Generation counts the stores that were built from a vendor's.
	Generation int `json:"generation,omitempty"`
	// Type is the policy type of the store.
	Type string `json:"type,omitempty"`
	// Vendor is the fingerprint of the vendor policy that the store was built from.
	Vendor string `json:"vendor,omitempty"`
	// VendorModules are that vendor's modules, "PRIORITY/NAME" to hash. The next rebuild carries over what is not among them.
	VendorModules map[string]string `json:"vendor_modules,omitempty"`
	// VendorEtc are that vendor's files below /etc/selinux/TYPE, to hash. A copy that still has this hash is stale after an
	// update, anything else was changed by the operator.
	VendorEtc map[string]string `json:"vendor_etc,omitempty"`
	// CarriedOver are the operator's modules that the last rebuild took along, "PRIORITY/NAME".
	CarriedOver []string `json:"carried_over,omitempty"`
	// Lost are the operator's modules, "PRIORITY/NAME", and files, "local/NAME", that had lost their content when a store was built, so
	// that they could not be taken along. Status names them until they are there again.
	Lost []string `json:"lost,omitempty"`
	// Equivalences are the lines of file_contexts.subs that the policy stage has written and has to take out again; all others are the
	// operator's.
	Equivalences []string `json:"equivalences,omitempty"`
	// Policy is what the policy stage did last.
	Policy PolicyRecord `json:"policy"`
}

// Store is the module store as it stands on the host.
type Store struct {
	Kind   Kind   `json:"kind"`
	Target string `json:"target,omitempty"` // of the link
}

// Kind tells what /var/lib/selinux is.
type Kind string

// What /var/lib/selinux may be.
const (
	Absent   Kind = "absent"
	Dangling Kind = "dangling link"
	ReadOnly Kind = "link to the vendor's read-only store"
	Foreign  Kind = "link to another directory"
	Writable Kind = "writable"
	Broken   Kind = "directory without an active policy"
)

// Inspect tells what the module store of a policy type is like.
func Inspect(root *hostfs.Root, policyType string) (Store, error) {
	info, err := root.Lstat(StoreDir)
	switch {
	case hostfs.Missing(err):
		return Store{Kind: Absent}, nil
	case err != nil:
		return Store{}, err
	case info.IsLink():
		target, err := root.Readlink(StoreDir)
		if err != nil {
			return Store{}, err
		}
		at, err := root.Stat(StoreDir)
		if hostfs.Missing(err) {
			return Store{Dangling, target}, nil
		}
		vendor, verr := root.Stat(VendorStore)
		if err == nil && verr == nil && at.Dev == vendor.Dev && at.Ino == vendor.Ino {
			return Store{ReadOnly, target}, nil
		}
		return Store{Foreign, target}, err
	case !info.IsDir():
		return Store{}, fmt.Errorf("%s is neither a directory nor a link: move it away", root.Path(StoreDir))
	}
	there, err := hasModules(root, active(policyType))
	switch {
	case err != nil:
		return Store{}, err
	case there:
		return Store{Kind: Writable}, nil
	}
	return Store{Kind: Broken}, nil
}

// hasModules tells whether a directory is a store with something in it. libsemanage makes an empty one where it finds none: modules
// has at most the directory of disabled ones then. What cannot be read, as by an ordinary user, is not taken for empty: that would be made anew.
func hasModules(root *hostfs.Root, dir string) (bool, error) {
	entries, err := root.ReadDir(dir + "/modules")
	if hostfs.NoFile(err) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { _, err := strconv.Atoi(e.Name()); return err == nil }), err
}

func typeDir(policyType string) string { return StoreDir + "/" + policyType }
func active(policyType string) string  { return typeDir(policyType) + "/active" }

// Rebaser brings the store and /etc/selinux onto this OS image's vendor policy, with the operator's work carried over.
type Rebaser struct {
	Root *hostfs.Root
	// Unclean says that an earlier run was cut off: then the store is built anew even if it looks right.
	Unclean bool
	// Shelf has the operator's modules that did not build with an earlier vendor's policy; they are tried again with a new vendor's.
	// Copies of files that are replaced and may be the operator's work go there.
	Shelf Shelf
}

// Plan gives the steps that make the store a writable copy of this vendor's and /etc/selinux a place that PID 1 can load a
// policy from. The steps change rec; the caller saves it when they are done.
func (k *Rebaser) Plan(vendor *Vendor, rec *Record) (plan.Plan, error) {
	root := k.Root
	store, err := Inspect(root, vendor.Type)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy store: %w", err)
	}
	var steps plan.Plan
	unclean, dir := k.Unclean, active(vendor.Type)
	if store.Kind == Broken {
		// tmp is what a transaction was making, perhaps half: good for what the operator had in it, not as a store.
		for _, from := range []string{"previous", "tmp"} {
			there, err := hasModules(root, typeDir(vendor.Type)+"/"+from)
			if err != nil {
				return nil, fmt.Errorf("cannot look at the policy store: %w", err)
			}
			if there {
				steps = append(steps, recoverActive(root, vendor.Type, from))
				store.Kind, dir = Writable, typeDir(vendor.Type)+"/"+from
				unclean = unclean || from == "tmp"
				break
			}
		}
	}
	reason := copyReason(store, vendor, rec, unclean)
	if reason == "" {
		written := commitNumber(root, dir) != rec.Policy.Commit
		names, err := emptied(root, vendor, dir, written)
		if err != nil {
			return nil, fmt.Errorf("cannot look at the policy store: %w", err)
		}
		var gone []string
		if written { // else nobody has removed any
			gone = removed(root, dir, rec)
		}
		switch {
		case len(names) > 0:
			reason = emptiedReason(names)
		case len(gone) > 0:
			reason = "modules of the vendor's were removed from it: " + firstOf(gone) + "; semodule -d NAME switches one off for good"
		}
	}
	if reason != "" {
		if store.Kind == Writable { // what a link leads to stays where it is
			keep, err := k.keepDoubtful(vendor, rec, dir)
			if err != nil {
				return nil, fmt.Errorf("cannot look at the policy store: %w", err)
			}
			steps = append(steps, keep...)
		}
		steps = append(steps, k.replaceStore(vendor, rec, store, reason))
	} else if still := k.stillLost(vendor, rec); len(still) < len(rec.Lost) {
		before := rec.Lost
		steps = append(steps, plan.Step{
			Action: "record", Target: StoreDir, Reason: "what was lost is back", Quiet: true,
			Do:   func(context.Context) (string, error) { rec.Lost = still; return "recorded", nil },
			Undo: func(context.Context) error { rec.Lost = before; return nil },
		})
	}
	etc, err := k.planEtc(vendor, rec)
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", EtcDir, err)
	}
	return append(steps, etc...), nil
}

// removed names the vendor's modules that are not in an active store any more. A policy is not built without them (see sound): what was removed would
// make the next change fail.
func removed(root *hostfs.Root, dir string, rec *Record) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(rec.VendorModules)) {
		if _, err := root.Lstat(dir + "/modules/" + key); hostfs.Missing(err) {
			keys = append(keys, key)
		}
	}
	return keys
}

// stillLost gives those of what was lost that the store does not have again.
func (k *Rebaser) stillLost(vendor *Vendor, rec *Record) []string {
	return slices.DeleteFunc(slices.Clone(rec.Lost), func(key string) bool {
		if name, ok := strings.CutPrefix(key, local+"/"); ok {
			return k.Root.Exists(active(vendor.Type) + "/" + name)
		}
		return !emptyModule(k.Root, typeDir(vendor.Type), key)
	})
}

func copyReason(store Store, vendor *Vendor, rec *Record, unclean bool) string {
	switch {
	case store.Kind != Writable:
		return "it is " + article(store)
	case unclean:
		return "an earlier run was cut off before it was done"
	case !rec.knowsVendor():
		return "it is a copy of unknown age"
	case rec.Vendor != vendor.Fingerprint || rec.Type != vendor.Type:
		return "the OS image has another vendor policy than the one it was built from"
	}
	return ""
}

func article(s Store) string {
	switch {
	case s.Kind == Absent:
		return "absent"
	case s.Target != "":
		return fmt.Sprintf("a %s (%s)", s.Kind, s.Target)
	}
	return "a " + string(s.Kind)
}

// recoverActive undoes the one state in which libsemanage would start over with an empty store: killed between
// rename(active, previous) and rename(tmp, active), it leaves no active, and its next call of any kind makes an empty one.
func recoverActive(root *hostfs.Root, policyType, source string) plan.Step {
	from, to := typeDir(policyType)+"/"+source, active(policyType)
	return plan.Step{
		Action: "recover", Target: to, Reason: "an interrupted semodule left the store without an active policy", Stays: true,
		Do: func(ctx context.Context) (string, error) {
			unlock, err := lockStore(ctx, root, policyType)
			if err != nil {
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			}
			defer unlock()
			switch there, err := hasModules(root, to); {
			case err != nil:
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			case there:
				return "it was whole again by itself", nil // whoever held the lock was not dead
			}
			if err := root.RemoveTree(to); err != nil { // at most the empty shell of a later call
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			}
			if err := root.Rename(from, to); err != nil {
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			}
			return "from " + source, nil
		},
	}
}

// storeWait is how long to wait for somebody else's semodule or setsebool, which takes seconds.
const storeWait = 2 * time.Minute

// lockStore takes libsemanage's own locks, in its order (semanage_store.c), so that no semodule or setsebool works on the store
// meanwhile. A store without lock files, or on a read-only file system, has nobody to keep out.
func lockStore(ctx context.Context, root *hostfs.Root, policyType string) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	if err := closeLocks(root, typeDir(policyType)); err != nil {
		return nil, err
	}
	for _, name := range lockFiles() {
		u, err := root.LockForeign(ctx, typeDir(policyType)+"/"+name, storeWait)
		if hostfs.Missing(err) {
			continue
		}
		if err != nil {
			unlock()
			return nil, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}

func lockFiles() []string { return []string{"semanage.trans.LOCK", "semanage.read.LOCK"} }

// closeLocks takes everybody else's rights off libsemanage's lock files in a store. It makes them with mode 0600 (semanage_store.c); a copy,
// an image's or a hand-made one, may have another, and whoever can open such a file can hold up every semodule.
func closeLocks(root *hostfs.Root, store string) error {
	if dir, err := root.Lstat(StoreDir); strings.HasPrefix(store, StoreDir) && (err != nil || !dir.IsDir()) {
		return nil // the vendor's own, which nobody writes to
	}
	for _, name := range lockFiles() {
		if err := root.MakePrivate(store + "/" + name); err != nil && !hostfs.NoFile(err) && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	return nil
}

// strangers names, below StoreDir, what is in the store's directories and is neither libsemanage's nor the vendor's nor ours: copies that somebody made,
// stores of other policies, notes.
func strangers(root *hostfs.Root, policyType string) (names []string, err error) {
	if info, err := root.Lstat(StoreDir); err != nil || !info.IsDir() {
		return nil, ignoreMissing(err)
	}
	own := []string{"final", policyType + "/active", policyType + "/previous", policyType + "/tmp"}
	for _, lock := range lockFiles() {
		own = append(own, policyType+"/"+lock)
	}
	for _, below := range []string{"", policyType} {
		dir := path.Join(StoreDir, below)
		if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
			continue
		}
		entries, err := root.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := path.Join(below, e.Name())
			_, err := root.Lstat(VendorStore + "/" + name)
			if ignoreMissing(err) != nil {
				return nil, err
			}
			content := e.IsDir() || e.Type().IsRegular() || e.Type() == fs.ModeSymlink
			if err != nil && content && !slices.Contains(own, name) && name != policyType && !strings.HasPrefix(e.Name(), hostfs.TempPrefix) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// takeAlong copies them into the store that is built.
func (k *Rebaser) takeAlong(policyType, to string) ([]string, error) {
	names, err := strangers(k.Root, policyType)
	for _, name := range names {
		if err == nil {
			_, err = k.Root.CopyEntry(StoreDir+"/"+name, path.Join(to, path.Dir(name)))
		}
	}
	return names, err
}

// replaceStore builds a store from the vendor's beside the old one, carries the operator's work over, and exchanges the two in
// one rename(2).
func (k *Rebaser) replaceStore(vendor *Vendor, rec *Record, old Store, reason string) plan.Step {
	root := k.Root
	// The new store is built next to the link or directory itself, under a name that is the same in every run, so that the next
	// run removes what a power cut left of it.
	beside := path.Dir(StoreDir) + "/" + hostfs.TempPrefix + "store"
	before := *rec
	var carried, lost []string
	step := replace(root, StoreDir, beside, "copy the vendor's policy store", func(context.Context) (string, error) {
		tree, err := k.buildStore(vendor.Type, old, beside)
		var others []string
		if err == nil {
			others, err = k.takeAlong(vendor.Type, beside)
		}
		var theirs bool // is somebody's work in the old one
		if err == nil {
			theirs, err = hasModules(root, active(vendor.Type))
		}
		if err == nil && (old.Kind == Broken || theirs && old.Kind != ReadOnly) {
			carried, lost, err = k.carryOver(vendor, rec, beside+"/"+vendor.Type)
		}
		result := fmt.Sprintf("%d files, %.1f MB from %s", tree.Files, float64(tree.Bytes)/1e6, root.Path(VendorStore))
		if len(carried) > 0 {
			result += ", carried over " + strings.Join(carried, ", ")
		}
		if len(others) > 0 {
			result += ", with " + printable.Text(strings.Join(others, ", "))
		}
		return result, err
	})
	step.Action, step.Reason = "copy", reason
	exchange, back := step.Do, step.Undo
	step.Do = func(ctx context.Context) (string, error) {
		// Nobody may be in the middle of a transaction: what it adds would be lost, and its renames would hit the new store.
		unlock, err := lockStore(ctx, root, vendor.Type)
		if err != nil {
			return "", fmt.Errorf("cannot copy the vendor's policy store: %w", err)
		}
		defer unlock()
		result, err := exchange(ctx)
		if err != nil {
			return "", err
		}
		rec.Generation++
		rec.Type, rec.Vendor, rec.VendorModules = vendor.Type, vendor.Fingerprint, vendor.Modules
		rec.CarriedOver = carried
		rec.Lost = slices.Compact(slices.Sorted(slices.Values(append(lost, k.stillLost(vendor, rec)...))))
		return result, nil
	}
	step.Undo = func(ctx context.Context) error {
		*rec = before
		return back(ctx)
	}
	return step
}

// spare is the room in bytes that a policy rebuild needs beyond the copy: libsemanage keeps the old store, the new one and the
// compiled policy side by side.
const spare = 64 << 20

// RoomToCopy tells whether there is room for a copy of the vendor's store, with what is beside the host's, and for building in it.
func RoomToCopy(root *hostfs.Root, policyType string) error {
	size, err := root.Measure(VendorStore)
	if err != nil {
		return err
	}
	others, err := strangers(root, policyType)
	if err != nil {
		return err
	}
	var along int64
	for _, name := range others {
		info, err := root.Lstat(StoreDir + "/" + name)
		if err != nil {
			return err
		}
		more := hostfs.Tree{Entries: 1, Bytes: info.Size}
		if info.IsDir() {
			if more, err = root.Measure(StoreDir + "/" + name); err != nil {
				return err
			}
		}
		along += more.Bytes + int64(more.Entries)*4096
	}
	free, err := root.Free(path.Dir(StoreDir))
	if err != nil {
		return err
	}
	// A file takes up to a block of 4 KiB more than its size.
	if need := uint64(3*(size.Bytes+int64(size.Entries)*4096)+along) + spare; free < need {
		return &RoomError{fmt.Sprintf("%s has %d MB free and the store needs %d MB", root.Path(path.Dir(StoreDir)), free>>20, need>>20)}
	}
	return nil
}

func (k *Rebaser) buildStore(policyType string, old Store, beside string) (hostfs.Tree, error) {
	root := k.Root
	if err := RoomToCopy(root, policyType); err != nil {
		return hostfs.Tree{}, err
	}
	tree, err := root.CopyTree(VendorStore, beside)
	if err == nil && old.Kind != Absent {
		err = root.CopyLabel(StoreDir, beside) // the vendor's copy in /usr has none to take along
	}
	return tree, err
}

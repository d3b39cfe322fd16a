package policystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// Priority is the priority of the modules that this project installs. It is above 400, semodule's default, so that what is
// declared wins over a module of the same name that was installed by hand, and both can be told apart for ever.
const Priority = 500

// Record is what this package remembers of what it did. Plan and PlanPolicy write it, through the caller that saves it; they
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
	// Policy is what PlanPolicy did last.
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
	case errors.Is(err, fs.ErrNotExist):
		return Store{Kind: Absent}, nil
	case err != nil:
		return Store{}, err
	case info.IsLink():
		target, err := root.Readlink(StoreDir)
		if err != nil {
			return Store{}, err
		}
		at, err := root.Stat(StoreDir)
		if errors.Is(err, fs.ErrNotExist) {
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
	// libsemanage makes an empty store where it finds none: modules has at most the directory of disabled ones then.
	entries, err := root.ReadDir(active(policyType) + "/modules")
	if ignoreMissing(err) != nil {
		return Store{}, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			return Store{Kind: Writable}, nil
		}
	}
	return Store{Kind: Broken}, nil
}

func typeDir(policyType string) string { return StoreDir + "/" + policyType }
func active(policyType string) string  { return typeDir(policyType) + "/active" }

// Keeper keeps the store equal to the vendor's.
type Keeper struct {
	Root *hostfs.Root
	// Unclean says that an earlier run was cut off: then the store is built anew even if it looks right.
	Unclean bool
	// Quarantine is the directory that holds the operator's modules that did not build with an earlier vendor's policy, as
	// PRIORITY/NAME. They are tried again with a new vendor's.
	Quarantine string
}

// Plan gives the steps that make the store a writable copy of this vendor's and /etc/selinux a place that PID 1 can load a
// policy from. The steps change rec; the caller saves it when they are done.
func (k *Keeper) Plan(vendor *Vendor, rec *Record) (plan.Plan, error) {
	root := k.Root
	store, err := Inspect(root, vendor.Type)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy store: %w", err)
	}
	var steps plan.Plan
	if store.Kind == Broken && root.Exists(typeDir(vendor.Type)+"/previous/modules") {
		steps = append(steps, recoverActive(root, vendor.Type))
		store.Kind = Writable
	}
	if reason := rebuildReason(store, vendor, rec, k.Unclean); reason != "" {
		steps = append(steps, k.replaceStore(vendor, rec, store, reason))
	}
	etc, err := planEtc(root, vendor, rec)
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", EtcDir, err)
	}
	return append(steps, etc...), nil
}

func rebuildReason(store Store, vendor *Vendor, rec *Record, unclean bool) string {
	switch {
	case store.Kind != Writable:
		return "it is " + article(store)
	case unclean:
		return "an earlier run was cut off before it was done"
	case rec.Vendor == "":
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
func recoverActive(root *hostfs.Root, policyType string) plan.Step {
	from, to := typeDir(policyType)+"/previous", active(policyType)
	return plan.Step{
		Action: "recover", Target: to, Reason: "an interrupted semodule left the store without an active policy",
		Do: func(context.Context) (string, error) {
			if err := root.RemoveTree(to); err != nil { // at most the empty shell of a later call
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			}
			if err := root.Rename(from, to); err != nil {
				return "", fmt.Errorf("cannot recover the policy store: %w", err)
			}
			return "the previous policy is active again", nil
		},
	}
}

// replaceStore builds a store from the vendor's beside the old one, carries the operator's work over, and exchanges the two in
// one rename(2).
func (k *Keeper) replaceStore(vendor *Vendor, rec *Record, old Store, reason string) plan.Step {
	root := k.Root
	// The new store is built next to the link or directory itself, under a name that is the same in every run, so that the next
	// run removes what a power cut left of it.
	beside := path.Dir(StoreDir) + "/" + hostfs.TempPrefix + "store"
	before := *rec
	exchanged := false
	return plan.Step{
		Action: "copy", Target: StoreDir, Reason: reason,
		Do: func(context.Context) (string, error) {
			tree, carried, err := k.buildStore(vendor, rec, old, beside)
			if err != nil {
				return "", fmt.Errorf("cannot copy the vendor's policy store: %w", errors.Join(err, root.RemoveTree(beside)))
			}
			if old.Kind == Absent {
				err = root.Rename(beside, StoreDir)
			} else {
				err = root.Exchange(beside, StoreDir)
				exchanged = err == nil
			}
			if err != nil {
				return "", fmt.Errorf("cannot put the copied policy store in place: %w", errors.Join(err, root.RemoveTree(beside)))
			}
			rec.Generation++
			rec.Type, rec.Vendor, rec.VendorModules = vendor.Type, vendor.Fingerprint, vendor.Modules
			rec.CarriedOver = carried
			result := fmt.Sprintf("%d files, %.1f MB from %s", tree.Files, float64(tree.Bytes)/1e6, root.Path(VendorStore))
			if len(carried) > 0 {
				result += ", carried over " + strings.Join(carried, ", ")
			}
			return result, nil
		},
		Undo: func(context.Context) error {
			*rec = before
			if exchanged {
				if err := root.Exchange(beside, StoreDir); err != nil {
					return err
				}
				return root.RemoveTree(beside)
			}
			return root.RemoveTree(StoreDir)
		},
		Cleanup: func() error { return root.RemoveTree(beside) },
	}
}

// spare is the room in bytes that a policy rebuild needs beyond the copy: libsemanage keeps the old store, the new one and the
// compiled policy side by side.
const spare = 64 << 20

func (k *Keeper) buildStore(vendor *Vendor, rec *Record, old Store, beside string) (hostfs.Tree, []string, error) {
	root := k.Root
	if err := root.RemoveTree(beside); err != nil {
		return hostfs.Tree{}, nil, err
	}
	size, err := root.Measure(VendorStore)
	if err != nil {
		return size, nil, err
	}
	free, err := root.Free(path.Dir(StoreDir))
	if err != nil {
		return size, nil, err
	}
	// A file takes up to a block of 4 KiB more than its size.
	if need := uint64(3*(size.Bytes+int64(size.Entries)*4096)) + spare; free < need {
		return size, nil, fmt.Errorf("%s has %d MB free and the store needs %d MB: make room and start the unit again",
			root.Path(path.Dir(StoreDir)), free>>20, need>>20)
	}
	tree, err := root.CopyTree(VendorStore, beside)
	if err != nil {
		return tree, nil, err
	}
	if old.Kind != Writable {
		return tree, nil, nil
	}
	carried, err := k.carryOver(vendor, rec, beside+"/"+vendor.Type)
	return tree, carried, err
}

// carryOver takes the operator's work from the store in place into the one built beside it: modules that are neither ours nor a
// vendor's, those in quarantine, disabled modules, and the files that setsebool -P and semanage write. It gives the modules.
func (k *Keeper) carryOver(vendor *Vendor, rec *Record, to string) ([]string, error) {
	from := typeDir(vendor.Type)
	have, err := modulesIn(k.Root, from)
	if err != nil {
		return nil, err
	}
	sources := map[string]string{}
	for _, key := range quarantined(k.Root, k.Quarantine) {
		sources[key] = k.Quarantine + "/" + key
	}
	for key, digest := range have {
		if operators(key, digest, vendor, rec) {
			sources[key] = from + "/active/modules/" + key // newer than one in quarantine
		}
	}
	for key, source := range sources {
		dest := to + "/active/modules/" + key
		if err := k.Root.MkdirAll(path.Dir(dest), 0o700); err != nil {
			return nil, err
		}
		if err := k.Root.RemoveTree(dest); err != nil {
			return nil, err
		}
		if _, err := k.Root.CopyTree(source, dest); err != nil {
			return nil, err
		}
	}
	carried := slices.AppendSeq([]string{}, maps.Keys(sources))
	sort.Strings(carried)
	return carried, carryFiles(k.Root, from+"/active", to+"/active", rec)
}

// quarantined lists the modules in a quarantine directory as "PRIORITY/NAME".
func quarantined(root *hostfs.Root, dir string) []string {
	var keys []string
	priorities, err := root.ReadDir(dir)
	if err != nil {
		return nil // there is none
	}
	for _, p := range priorities {
		names, err := root.ReadDir(dir + "/" + p.Name())
		if err != nil {
			continue
		}
		for _, n := range names {
			keys = append(keys, p.Name()+"/"+n.Name())
		}
	}
	return keys
}

// operators tells whether a module in the store was put there by hand.
func operators(key, digest string, vendor *Vendor, rec *Record) bool {
	priority, _, _ := strings.Cut(key, "/")
	if priority == fmt.Sprint(Priority) {
		return false
	}
	if rec.Vendor != "" {
		was, vendors := rec.VendorModules[key]
		return !vendors || was != digest // the vendor's own name and priority, but other content
	}
	// A copy of unknown age: at the vendor's priority everything counts as the vendor's of some time.
	if _, vendors := vendor.Modules[key]; vendors {
		return false
	}
	for k := range vendor.Modules {
		if strings.HasPrefix(k, priority+"/") {
			return false
		}
	}
	return true
}

// carryFiles copies what setsebool -P, semanage and semodule -d keep outside the modules.
func carryFiles(root *hostfs.Root, from, to string, rec *Record) error {
	entries, err := root.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		keep := strings.HasSuffix(e.Name(), ".local") || e.Name() == "preserve_tunables" ||
			(e.Name() == dontauditFlag && !rec.Policy.StripDontaudit)
		if !keep || !e.Type().IsRegular() {
			continue
		}
		if err := copyFile(root, from+"/"+e.Name(), to+"/"+e.Name()); err != nil {
			return err
		}
	}
	disabled, err := root.ReadDir(from + "/modules/disabled")
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range disabled {
		if err := root.MkdirAll(to+"/modules/disabled", 0o700); err != nil {
			return err
		}
		if err := copyFile(root, from+"/modules/disabled/"+e.Name(), to+"/modules/disabled/"+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies one regular file, attributes included.
func copyFile(root *hostfs.Root, from, to string) error {
	content, err := root.ReadFile(from)
	if err != nil {
		return err
	}
	attr, err := attributes(root, from)
	if err != nil {
		return err
	}
	return root.WriteFile(to, content, attr)
}

// attributes gives what a copy of the file that name leads to has.
func attributes(root *hostfs.Root, name string) (hostfs.Attributes, error) {
	info, err := root.Stat(name)
	return hostfs.Attributes{Mode: info.Mode, UID: info.UID, GID: info.GID}, err
}

// planEtc gives the steps that bring /etc/selinux to one good state from any that an installation, an update or a misguided
// recipe left: a real directory TYPE that has every file of the vendor's, where on an overlay the lower layer shines through.
func planEtc(root *hostfs.Root, vendor *Vendor, rec *Record) (plan.Plan, error) {
	var steps plan.Plan
	if !root.Exists(EtcDir) {
		steps = append(steps, makeDirectory(root, EtcDir, 0o755))
	}
	for _, name := range []string{path.Base(seconfig.Path), "semanage.conf"} {
		step, err := planEtcFile(root, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step...)
	}
	dir := EtcDir + "/" + vendor.Type
	info, err := root.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		steps = append(steps, replaceWithCopy(root, vendor.etc(), dir, "it is absent"))
	case err != nil:
		return nil, err
	case info.IsLink():
		target, err := root.Readlink(dir)
		if err != nil {
			return nil, err
		}
		kind := "a link to "
		if !root.Exists(dir) {
			kind = "a dangling link to "
		}
		steps = append(steps, replaceWithCopy(root, vendor.etc(), dir, "it is "+kind+target))
	case info.IsDir():
		files, err := planEtcFiles(root, vendor, rec, dir)
		if err != nil {
			return nil, err
		}
		steps = append(steps, files...)
	default:
		return nil, fmt.Errorf("%s is neither a directory nor a link: move it away", root.Path(dir))
	}
	if rec.VendorEtc == nil || rec.Vendor != vendor.Fingerprint {
		before := rec.VendorEtc
		steps = append(steps, plan.Step{
			Action: "record", Target: dir, Reason: "the OS image changed", Quiet: true,
			Do:   func(context.Context) (string, error) { rec.VendorEtc = vendor.Etc; return "recorded", nil },
			Undo: func(context.Context) error { rec.VendorEtc = before; return nil },
		})
	}
	opaque, err := root.OpaqueDirectories(EtcDir)
	if err != nil {
		return nil, err
	}
	if len(opaque) > 0 || replaces(steps, dir) {
		steps = append(steps, clearOpaque(root, opaque))
	}
	return steps, nil
}

func replaces(steps plan.Plan, dir string) bool {
	return slices.ContainsFunc(steps, func(s plan.Step) bool { return s.Target == dir })
}

// planEtcFile repairs a file of /etc/selinux that leads nowhere, and a link of an older release to what this one has as a file of
// its own. Any other file or link is the operator's or the vendor's and good.
func planEtcFile(root *hostfs.Root, base string) (plan.Plan, error) {
	name := EtcDir + "/" + base
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return RestoreFile(root, name, "it is missing or a dangling link")
	case err != nil:
		return nil, err
	case !info.IsRegular():
		return nil, fmt.Errorf("%s is not a file: move it away", root.Path(name))
	}
	vendor, err := root.Stat(VendorDir + "/" + base)
	if link, lerr := root.Lstat(name); err != nil || lerr != nil || !link.IsLink() || vendor.Dev != info.Dev || vendor.Ino != info.Ino {
		return nil, errors.Join(ignoreMissing(err), lerr)
	}
	return RestoreFile(root, name, "it is the link of an older release")
}

// planEtcFiles fills the gaps in a directory that is there, and brings files up to this vendor's that are the old vendor's.
// Only single files are written: they are what the initrd's clean-up of the overlay and an OS update can see through.
func planEtcFiles(root *hostfs.Root, vendor *Vendor, rec *Record, dir string) (plan.Plan, error) {
	var steps plan.Plan
	stale := rec.Vendor != vendor.Fingerprint
	err := root.Walk(vendor.etc(), func(below string, info hostfs.Info) error {
		name, source := path.Join(dir, below), path.Join(vendor.etc(), below)
		if info.IsDir() {
			if below != "" && !root.Exists(name) {
				steps = append(steps, makeDirectory(root, name, info.Mode))
			}
			return nil
		}
		if !info.IsRegular() {
			return nil
		}
		have, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !have.IsRegular() && !have.IsDir():
			steps = append(steps, copyStep(root, source, name, "it is missing"))
		case err != nil:
			return err
		case !stale || generated(below):
			// libsemanage writes the generated files when the policy is built.
		default:
			digest, err := hashFile(root, name, make([]byte, 64<<10))
			if err != nil {
				return err
			}
			// With no record it cannot be told apart from a change of the operator's; the vendor's wins, as after a fresh install.
			if digest != vendor.Etc[below] && (rec.VendorEtc == nil || rec.VendorEtc[below] == digest) {
				steps = append(steps, copyStep(root, source, name, "it is another OS image's"))
			}
		}
		return nil
	})
	return steps, err
}

func makeDirectory(root *hostfs.Root, name string, mode fs.FileMode) plan.Step {
	return plan.Step{
		Action: "make", Target: name, Reason: "it is missing",
		Do: func(context.Context) (string, error) {
			if err := root.Mkdir(name, mode); err != nil {
				return "", fmt.Errorf("cannot make a directory: %w", err)
			}
			return "made", nil
		},
		Undo: func(context.Context) error { return root.Remove(name) },
	}
}

// copyStep writes the vendor's file source to name, with the vendor's attributes.
func copyStep(root *hostfs.Root, source, name, reason string) plan.Step {
	var write plan.Step
	return plan.Step{
		Action: "write", Target: name, Reason: reason,
		Do: func(ctx context.Context) (string, error) {
			content, err := root.ReadFile(source)
			if err != nil {
				return "", fmt.Errorf("cannot read the vendor's file: %w", err)
			}
			attr, err := attributes(root, source)
			if err != nil {
				return "", fmt.Errorf("cannot read the vendor's file: %w", err)
			}
			write = plan.Write(root, name, content, attr, reason)
			return write.Do(ctx)
		},
		Undo: func(ctx context.Context) error { return write.Undo(ctx) },
	}
}

func clearOpaque(root *hostfs.Root, known []string) plan.Step {
	step := plan.Step{
		Action: "unhide", Target: EtcDir, Reason: "a directory that replaced something on the overlay would hide every later OS update",
		Quiet: len(known) == 0,
		Do: func(context.Context) (string, error) {
			dirs, err := root.ClearOpaque(EtcDir)
			if err != nil {
				return "", fmt.Errorf("cannot open %s to OS updates again: %w", root.Path(EtcDir), err)
			}
			return fmt.Sprintf("%d directories: %s", len(dirs), strings.Join(dirs, ", ")), nil
		},
	}
	return step
}

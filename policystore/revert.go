package policystore

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// Reverter brings the store and /etc/selinux back to what a fresh host of this OS image has. Copies of what the operator made by hand
// are kept.
type Reverter struct {
	Root  *hostfs.Root
	Shelf Shelf
}

// Plan gives the steps back, from any state of the host. It needs no record; with one it knows better what is the operator's.
func (r *Reverter) Plan(policyType string, rec *Record) (plan.Plan, error) {
	const reason = "the vendor's machine is wanted"
	root := r.Root
	steps, err := r.keep(policyType, rec)
	if err != nil {
		return nil, fmt.Errorf("cannot look for the operator's own work: %w", err)
	}
	store, err := revertDirectory(root, StoreDir, reason)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the policy store: %w", err)
	}
	steps = append(steps, store...)
	if !root.Exists(EtcDir) {
		steps = append(steps, makeDirectory(root, EtcDir, 0o755))
	}
	for _, name := range []string{seconfig.Path, EtcDir + "/semanage.conf"} {
		file, err := RestoreFile(root, name, reason)
		if err != nil {
			return nil, err
		}
		steps = append(steps, file...)
	}
	etc, err := revertDirectory(root, EtcDir+"/"+policyType, reason)
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", EtcDir, err)
	}
	steps = append(steps, etc...)
	form, have, missing, err := formAndEntry(root, EtcDir)
	want := hostfs.Info{Mode: fs.ModeDir | 0o755} // as systemd-tmpfiles makes it for the links in it
	if err == nil && form.Source != "" {
		want, err = root.Stat(form.Source)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", EtcDir, err)
	}
	if !missing && have.IsDir() {
		steps = append(steps, restoreDirectory(root, EtcDir, have, want, reason)...)
	}
	opaque, err := root.OpaqueDirectories(EtcDir)
	if err != nil {
		return nil, err
	}
	if len(opaque) > 0 || slices.ContainsFunc(etc, func(s plan.Step) bool { return s.Action == "copy" }) { // a copy comes to be opaque
		steps = append(steps, clearOpaque(root, opaque))
	}
	return steps, nil
}

// keep gives the steps that make copies of the operator's work: modules and local files in the store, and files of /etc/selinux.
func (r *Reverter) keep(policyType string, rec *Record) (plan.Plan, error) {
	const reason = "it was made by hand"
	root := r.Root
	vendor := newVendor(root, policyType)
	if err := vendor.read(root); err != nil {
		return nil, err
	}
	var steps plan.Plan
	store, err := Inspect(root, policyType)
	if err != nil {
		return nil, err
	}
	if store.Kind == Writable {
		have, err := modulesIn(root, typeDir(policyType))
		if err != nil {
			return nil, err
		}
		may := slices.Concat(unknown(have, rec), doubtful(have, vendor, rec))
		for _, key := range slices.Sorted(maps.Keys(have)) {
			if vendor.Modules[key] != have[key] && operators(key, have[key], vendor, rec) || slices.Contains(may, key) {
				steps = append(steps, r.Shelf.keepStep(active(policyType)+"/modules/"+key, "modules/"+key, reason))
			}
		}
		locals, err := localFiles(root, policyType)
		if err != nil {
			return nil, err
		}
		for _, name := range locals {
			steps = append(steps, r.Shelf.keepStep(active(policyType)+"/"+name, name, reason))
		}
		values, err := readBooleans(root, active(policyType))
		if err != nil {
			return nil, err
		}
		if len(values.operators(rec))+len(values.refused)+len(rec.Policy.BooleansBefore) > 0 {
			steps = append(steps, r.Shelf.keepStep(active(policyType)+"/"+booleansFile, booleansFile, reason))
		}
	}
	others, err := strangers(root, policyType)
	if err != nil {
		return nil, err
	}
	for _, name := range others {
		steps = append(steps, r.Shelf.keepEntryStep(StoreDir+"/"+name, "store/"+name, "it is not the vendor's"))
	}
	err = lasting(root, policyType, func(below string) error {
		name := EtcDir + "/" + policyType + "/" + below
		if name == subsFile(policyType) && onlyOurs(root, name, rec) {
			return nil
		}
		digest, err := hashFile(root, name, make([]byte, 64<<10))
		if err == nil && digest != vendor.Etc[below] && (rec.VendorEtc[below] == "" || rec.VendorEtc[below] != digest) {
			steps = append(steps, r.Shelf.keepStep(name, below, reason))
		}
		return err
	})
	return steps, err
}

// lasting goes through the files of /etc/selinux/TYPE that no build of the policy writes: neither from a module nor from a file of the store.
func lasting(root *hostfs.Root, policyType string, each func(below string) error) error {
	dir := EtcDir + "/" + policyType
	if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
		return ignoreMissing(err)
	}
	return root.Walk(dir, func(below string, info hostfs.Entry) error {
		if !info.IsRegular() || generated(below) || strings.HasPrefix(path.Base(below), hostfs.TempPrefix) || fromStore(root, policyType, path.Join(dir, below)) {
			return nil
		}
		return each(below)
	})
}

// onlyOurs tells whether file_contexts.subs has nothing in it that the operator has written.
func onlyOurs(root *hostfs.Root, name string, rec *Record) bool {
	content, err := root.ReadFile(name)
	if err != nil {
		return false
	}
	left, _ := substitutions(string(content), rec.Equivalences, nil)
	return strings.TrimSpace(left) == ""
}

// fromStore reports whether libsemanage made a file of /etc/selinux from one of the store's that has its name.
func fromStore(root *hostfs.Root, policyType, name string) bool {
	same, err := sameFile(root, name, active(policyType)+"/"+path.Base(name))
	return err == nil && same
}

// revertDirectory puts a link back in place of a directory, or makes the directory equal to the vendor's file by file.
func revertDirectory(root *hostfs.Root, name, reason string) (plan.Plan, error) {
	form, info, missing, err := formAndEntry(root, name)
	if err != nil {
		return nil, err
	}
	switch {
	case form.Source != "":
		return revertFiles(root, form.Source, name, reason)
	case form.Target == "" && name == StoreDir && VendorEtc(root) != VendorDir: // a sibling's image has a store below /usr alone
		if missing {
			return nil, nil
		}
		return plan.Plan{removeTree(root, name, reason)}, nil
	case form.Target == "":
		return nil, fmt.Errorf("%s ships neither a copy nor a link of %s: this tool needs the layout of Flatcar Container Linux",
			root.Path("/usr"), name)
	case missing || !info.IsDir():
		return RestoreFile(root, name, reason)
	}
	beside := path.Dir(name) + "/" + hostfs.TempPrefix + "link"
	step := replace(root, name, beside, "put the vendor's link in place", func(context.Context) (string, error) {
		err := root.Symlink(form.Target, beside)
		if err == nil {
			err = root.CopyLabel(name, beside)
		}
		return "to " + form.Target, err
	})
	step.Action, step.Reason = "link", reason
	return plan.Plan{step}, nil
}

// revertFiles makes the directory name hold what the vendor's source holds, each entry of the same type, mode and owner. A file that equals the
// vendor's is left: the initrd's clean-up of the overlay removes it from the upper layer at the next boot.
func revertFiles(root *hostfs.Root, source, name, reason string) (plan.Plan, error) {
	info, err := root.Lstat(name)
	if err := ignoreMissing(err); err != nil {
		return nil, err
	}
	var steps plan.Plan
	if err != nil || !info.IsDir() {
		return plan.Plan{replaceWithCopy(root, source, name, reason)}, nil
	}
	whole := map[string]bool{} // what is removed or replaced as a whole, with all that is in it
	within := func(below string) bool {
		for dir := path.Dir(below); dir != "."; dir = path.Dir(dir) {
			if whole[dir] {
				return true
			}
		}
		return false
	}
	err = root.Walk(name, func(below string, info hostfs.Entry) error {
		if below == "" || within(below) {
			return nil
		}
		vendors, err := root.Lstat(path.Join(source, below))
		switch {
		case hostfs.Missing(err):
			whole[below] = info.IsDir()
			steps = append(steps, remove(root, path.Join(name, below), info.Info, reason))
			return nil
		case err == nil:
			whole[below] = info.IsDir() != vendors.IsDir()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = root.Walk(source, func(below string, info hostfs.Entry) error {
		at, of := path.Join(name, below), path.Join(source, below)
		switch {
		case within(below):
			return nil
		case !info.IsDir():
			file, err := RestoreFile(root, at, reason)
			steps = append(steps, file...)
			return err
		}
		have, err := root.Lstat(at)
		switch {
		case hostfs.Missing(err), err == nil && !have.IsDir():
			whole[below] = true
			steps = append(steps, replaceWithCopy(root, of, at, reason))
			return nil
		case err == nil:
			steps = append(steps, restoreDirectory(root, at, have, info.Info, reason)...)
		}
		return err
	})
	return steps, err
}

// replaceWithCopy puts a copy of a vendor's directory in place of a link, a file or nothing.
func replaceWithCopy(root *hostfs.Root, source, name, reason string) plan.Step {
	beside := path.Dir(name) + "/" + hostfs.TempPrefix + path.Base(name)
	step := replace(root, name, beside, "copy the vendor's policy directory", func(context.Context) (string, error) {
		tree, err := root.CopyTree(source, beside)
		return fmt.Sprintf("%d files from %s", tree.Files, root.Path(source)), err
	})
	step.Action, step.Reason = "copy", reason
	return step
}

func removeTree(root *hostfs.Root, name, reason string) plan.Step {
	beside := path.Dir(name) + "/" + hostfs.TempPrefix + "removed-" + path.Base(name)
	return plan.Step{
		Action: "remove", Target: name, Reason: reason,
		Do: func(context.Context) (string, error) {
			err := root.RemoveTree(beside)
			if err == nil {
				err = root.Rename(name, beside)
			}
			if err != nil {
				return "", fmt.Errorf("cannot remove a directory: %w", err)
			}
			return "removed", nil
		},
		Undo:    func(context.Context) error { return root.Rename(beside, name) },
		Cleanup: func() error { return root.RemoveTree(beside) },
	}
}

package policystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// planEtc gives the steps that bring /etc/selinux to one good state from any that an installation, an update or a misguided
// recipe left: a real directory TYPE that has every file of the vendor's, where on an overlay the lower layer shines through.
func (k *Rebaser) planEtc(vendor *Vendor, rec *Record) (plan.Plan, error) {
	root := k.Root
	var steps plan.Plan
	if !root.Exists(EtcDir) {
		steps = append(steps, makeDirectory(root, EtcDir, 0o755))
	}
	for _, name := range []string{path.Base(seconfig.Path), "semanage.conf"} {
		step, err := planEtcFile(root, name)
		if err != nil {
			return nil, err
		}
		if name == path.Base(seconfig.Path) && len(step) == 0 {
			step, err = planType(root, vendor.Type)
		}
		if err != nil {
			return nil, err
		}
		steps = append(steps, step...)
	}
	dir := EtcDir + "/" + vendor.Type
	info, err := root.Lstat(dir)
	switch {
	case hostfs.Missing(err):
		steps = append(steps, replaceWithCopy(root, vendor.etc, dir, "it is absent"))
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
		steps = append(steps, replaceWithCopy(root, vendor.etc, dir, "it is "+kind+target))
	case info.IsDir():
		files, err := k.planEtcFiles(vendor, rec, dir)
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
	case hostfs.Missing(err):
		return RestoreFile(root, name, "it is missing or a dangling link")
	case err != nil:
		return nil, err
	case !info.IsRegular():
		return nil, fmt.Errorf("%s is not a file: move it away", root.Path(name))
	}
	vendor, err := root.Stat(VendorEtc(root) + "/" + base)
	if link, lerr := root.Lstat(name); err != nil || lerr != nil || !link.IsLink() || vendor.Dev != info.Dev || vendor.Ino != info.Ino {
		return nil, errors.Join(ignoreMissing(err), lerr)
	}
	return RestoreFile(root, name, "it is the link of an older release")
}

// planType gives the step that makes the configuration name the policy where FindType had to take the vendor's: it is not the one that
// PID 1 would take then.
func planType(root *hostfs.Root, policyType string) (plan.Plan, error) {
	content, err := root.ReadFile(seconfig.Path)
	if err != nil {
		return nil, err
	}
	c, err := seconfig.Parse(bytes.NewReader(content))
	if err != nil || c.Type == policyType {
		return nil, err
	}
	reason := fmt.Sprintf("it has no usable line SELINUXTYPE=, so PID 1 would look for its policy in %s, and freeze if it enforces and finds none",
		printable.Text(EtcDir+"/"+c.Taken()))
	return plan.Plan{plan.Write(root, seconfig.Path, seconfig.SetType(content, policyType), hostfs.Attributes{Keep: true}, reason)}, nil
}

// planEtcFiles fills the gaps in a directory that is there, and brings files up to this vendor's that are the old vendor's.
// Only single files are written: they are what the initrd's clean-up of the overlay and an OS update can see through.
func (k *Rebaser) planEtcFiles(vendor *Vendor, rec *Record, dir string) (plan.Plan, error) {
	root := k.Root
	var steps plan.Plan
	stale := rec.Vendor != vendor.Fingerprint
	err := root.Walk(vendor.etc, func(below string, info hostfs.Entry) error {
		name, source := path.Join(dir, below), path.Join(vendor.etc, below)
		if info.IsDir() {
			if below != "" && !root.Exists(name) {
				if _, err := root.Lstat(name); err == nil {
					steps = append(steps, plan.Remove(root, name, "it is a dangling link"))
				}
				steps = append(steps, makeDirectory(root, name, info.Mode))
			}
			return nil
		}
		if !info.IsRegular() {
			return nil
		}
		have, err := root.Stat(name)
		switch {
		case hostfs.Missing(err):
			steps = append(steps, copyStep(root, source, name, "it is missing"))
		case err != nil:
			return err
		case !have.IsRegular():
			return fmt.Errorf("%s is not a file: move it away", root.Path(name))
		case !stale || generated(below):
			// libsemanage writes the generated files when the policy is built.
		default:
			digest, err := hashFile(root, name, make([]byte, 64<<10))
			if err != nil {
				return err
			}
			switch {
			case digest == vendor.Etc[below]:
			case rec.VendorEtc == nil:
				// With no record it cannot be told apart from a change of the operator's. The vendor's wins, as on a fresh host, and the
				// other one is kept.
				steps = append(steps, k.Shelf.keepStep(name, below, "it may have been changed by hand"), copyStep(root, source, name, "it may be another OS image's"))
			case rec.VendorEtc[below] == digest:
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
		Quiet: len(known) == 0, Stays: true,
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

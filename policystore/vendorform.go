package policystore

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// LowerEtc gives the lower layer of the overlay on /etc of this OS image: the first of those known that has something of SELinux's.
func LowerEtc(root *hostfs.Root) string {
	layers := seconfig.LowerLayers()
	for _, dir := range layers {
		if root.Exists(path.Join(dir, "selinux")) {
			return dir
		}
	}
	return layers[0]
}

// VendorEtc gives the directory in which the OS image has what belongs in /etc/selinux: VendorDir, or the lower layer of /etc where that
// has no copy of it and no link to it, as in Azure Container Linux.
func VendorEtc(root *hostfs.Root) string {
	if root.Exists(VendorDir + "/config") {
		return VendorDir
	}
	if lower := path.Join(LowerEtc(root), "selinux"); root.Exists(lower + "/config") {
		return lower
	}
	return VendorDir
}

// Form is what the vendor has at a name: a link, a copy of something below /usr, or nothing.
type Form struct {
	Target string // of the link
	Source string // a file or directory below /usr
}

// VendorForm finds what a fresh host of this OS image has at a name below /etc or /var: what the lower layer has, else the link
// that a tmpfiles.d(5) "L" line of the image makes, else nothing.
func VendorForm(root *hostfs.Root, name string) (Form, error) {
	if below, ok := strings.CutPrefix(name, "/etc/"); ok {
		source := path.Join(LowerEtc(root), below)
		info, err := root.Lstat(source)
		if err == nil && info.IsLink() {
			target, err := root.Readlink(source)
			return Form{Target: target}, err
		}
		if err == nil {
			return Form{Source: source}, nil
		}
		if err := ignoreMissing(err); err != nil {
			return Form{}, err
		}
	}
	const dir = "/usr/lib/tmpfiles.d"
	entries, err := root.ReadDir(dir)
	if err != nil {
		return Form{}, ignoreMissing(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".conf") || e.Type()&fs.ModeType == fs.ModeDir {
			continue
		}
		content, err := root.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return Form{}, err
		}
		if target := tmpfilesLink(string(content), name); target != "" {
			return Form{Target: target}, nil
		}
	}
	return Form{}, nil
}

// tmpfilesLink gives the target of the first "L" line for name in a tmpfiles.d file.
func tmpfilesLink(content, name string) string {
	for line := range strings.Lines(content) {
		f := strings.Fields(line)
		if len(f) >= 7 && strings.HasPrefix(f[0], "L") && path.Clean(f[1]) == name {
			return f[6]
		}
	}
	return ""
}

// formAndEntry gives what the vendor has at a name, and what the host has, if anything.
func formAndEntry(root *hostfs.Root, name string) (form Form, have hostfs.Info, missing bool, err error) {
	if form, err = VendorForm(root, name); err != nil {
		return form, have, false, err
	}
	have, err = root.Lstat(name)
	return form, have, err != nil, ignoreMissing(err)
}

// RestoreFile gives the steps that bring a file or link of /etc back to the vendor's form; none if it has it.
func RestoreFile(root *hostfs.Root, name, reason string) (plan.Plan, error) {
	form, info, missing, err := formAndEntry(root, name)
	if err != nil {
		return nil, err
	}
	switch {
	case form.Target != "":
		if !missing && info.IsLink() {
			if target, err := root.Readlink(name); err != nil || target == form.Target {
				return nil, err
			}
		}
		return append(outOfTheWay(root, name, info, missing, reason), plan.Link(root, form.Target, name, reason)), nil
	case form.Source != "":
		if !missing && info.IsRegular() {
			same, err := sameFile(root, form.Source, name)
			if err != nil || same && sameAttributes(root, form.Source, info) {
				return nil, err
			}
		}
		return append(outOfTheWay(root, name, info, missing, reason), copyStep(root, form.Source, name, reason)), nil
	case missing:
		return nil, nil
	}
	return plan.Plan{remove(root, name, info, reason)}, nil
}

// outOfTheWay removes what no file and no link can replace in one step: a directory, a pipe.
func outOfTheWay(root *hostfs.Root, name string, info hostfs.Info, missing bool, reason string) plan.Plan {
	if missing || info.IsRegular() || info.IsLink() {
		return nil
	}
	return plan.Plan{removeTree(root, name, reason)}
}

// remove removes whatever is at a name.
func remove(root *hostfs.Root, name string, info hostfs.Info, reason string) plan.Step {
	if info.IsRegular() || info.IsLink() {
		return plan.Remove(root, name, reason)
	}
	return removeTree(root, name, reason)
}

func sameAttributes(root *hostfs.Root, source string, have hostfs.Info) bool {
	want, err := root.Stat(source)
	return err == nil && equalAttributes(want, have)
}

func equalAttributes(a, b hostfs.Info) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
}

// restoreDirectory gives the step that brings a directory's mode and owner to those of the vendor's; none if it has them.
func restoreDirectory(root *hostfs.Root, name string, have, want hostfs.Info, reason string) plan.Plan {
	if equalAttributes(have, want) {
		return nil
	}
	return plan.Plan{{
		Action: "set", Target: name, Reason: reason,
		Do: func(context.Context) (string, error) {
			if err := root.SetDirectory(name, want.Mode, want.UID, want.GID); err != nil {
				return "", fmt.Errorf("cannot give a directory its mode and owner: %w", err)
			}
			return fmt.Sprintf("mode %04o, owner %d:%d", want.Mode.Perm(), want.UID, want.GID), nil
		},
		Undo: func(context.Context) error { return root.SetDirectory(name, have.Mode, have.UID, have.GID) },
	}}
}

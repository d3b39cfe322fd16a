package policystore

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// carryOver takes the operator's work from the store in place into the one built beside it: modules that are neither ours nor a
// vendor's, those in quarantine, disabled modules, and the files that setsebool -P and semanage write. It gives the modules, and those
// of which only the names are left.
func (k *Rebaser) carryOver(vendor *Vendor, rec *Record, to string) (carried, lost []string, err error) {
	from := typeDir(vendor.Type)
	have, err := modulesIn(k.Root, from)
	if err != nil {
		return nil, nil, err
	}
	sources := map[string]string{}
	modules, locals := k.Shelf.list()
	for _, key := range modules {
		sources[key] = k.Shelf.path(key)
	}
	for _, name := range locals {
		if err := copyFile(k.Root, k.Shelf.path(local+"/"+name), to+"/active/"+name); err != nil {
			return nil, nil, err
		}
	}
	for key, digest := range have {
		switch {
		case !operators(key, digest, vendor, rec):
		case !emptyModule(k.Root, from, key):
			sources[key] = from + "/active/modules/" + key // newer than one in quarantine
		case sources[key] == "":
			lost = append(lost, key)
		}
	}
	if !k.Unclean { // after a run that was cut off nobody knows which are ours
		for _, key := range unknown(have, rec) {
			if _, err := k.Shelf.keep(from+"/active/modules/"+key, "modules/"+key); err != nil {
				return nil, nil, err
			}
		}
	}
	for key, source := range sources {
		dest := to + "/active/modules/" + key
		if err := k.Root.MkdirAll(path.Dir(dest), 0o700); err != nil {
			return nil, nil, err
		}
		if err := k.Root.RemoveTree(dest); err != nil {
			return nil, nil, err
		}
		if _, err := k.Root.CopyTree(source, dest); err != nil {
			return nil, nil, err
		}
	}
	carried = slices.AppendSeq([]string{}, maps.Keys(sources))
	slices.Sort(carried)
	slices.Sort(lost)
	return carried, lost, carryFiles(k.Root, from+"/active", to+"/active", rec)
}

// localFiles names the files that semanage writes into a store, all but the booleans, which cannot break a build.
func localFiles(root *hostfs.Root, policyType string) ([]string, error) {
	entries, err := root.ReadDir(active(policyType))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".local") && name != "booleans.local" && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

// emptyModule tells whether a module of a store is there by name only, after damage.
func emptyModule(root *hostfs.Root, typeDir, key string) bool {
	for _, file := range []string{"/hll", "/cil"} {
		if info, err := root.Stat(typeDir + "/active/modules/" + key + file); err == nil && info.Size > 0 {
			return false
		}
	}
	return true
}

// operators tells whether a module in the store was put there by hand.
func operators(key, digest string, vendor *Vendor, rec *Record) bool {
	priority, _, _ := strings.Cut(key, "/")
	if priority == fmt.Sprint(Priority) {
		return false
	}
	if rec.Vendor != "" && len(rec.VendorModules) > 0 {
		was, vendors := rec.VendorModules[key]
		return !vendors || was != digest // the vendor's own name and priority, but other content
	}
	// A copy of unknown age, made by hand. A name that this vendor does not have may be an older vendor's or the operator's; to
	// keep one too many is harmless, to lose one is not.
	_, vendors := vendor.Modules[key]
	return !vendors
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

package policystore

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

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


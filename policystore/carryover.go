package policystore

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// carryOver takes the operator's work from the store in place into the one built beside it: modules that are neither ours nor a
// vendor's, those in quarantine, disabled modules, and the files that setsebool -P and semanage write. It gives the modules, and what
// has lost its content and has no copy, files as "local/NAME".
func (k *Rebaser) carryOver(vendor *Vendor, rec *Record, to string) (carried, lost []string, err error) {
	from := typeDir(vendor.Type)
	have, err := modulesIn(k.Root, from)
	if hostfs.Missing(err) { // nothing is left of the store but what was copied
		have = map[string]string{}
		modules, _ := Shelf{Root: k.Root, Quarantine: k.Shelf.Copies + "/modules"}.list()
		for _, key := range modules {
			have[key] = ""
		}
	} else if err != nil {
		return nil, nil, err
	}
	keys, strays, err := unbuildable(k.Root, from+"/active", nil)
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	for _, key := range keys {
		have[key] += "" // a name, and perhaps no more
	}
	for _, below := range strays {
		delete(have, below)
		if _, err := k.Shelf.keep(from+"/active/modules/"+below, "modules/"+below); err != nil {
			return nil, nil, err
		}
	}
	sources := map[string]string{}
	modules, locals := k.Shelf.list()
	for _, key := range modules {
		sources[key] = k.Shelf.path(key)
	}
	for _, name := range locals {
		if name == booleansFile { // what it has goes into the store's line by line
			continue
		}
		if err := copyFile(k.Root, k.Shelf.path(local+"/"+name), to+"/active/"+name); err != nil {
			return nil, nil, err
		}
	}
	for key, digest := range have {
		if _, _, ok := splitKey(key); !ok || !operators(key, digest, vendor, rec) {
			continue
		}
		_, was := rec.VendorModules[key]
		_, is := vendor.Modules[key]
		places := []string{from + "/active", from + "/previous", k.Shelf.Copies} // newer than one in quarantine
		if was || is {
			places = []string{from + "/active", k.Shelf.Copies} // the other one may be the vendor's, and an older one's
		}
		i := slices.IndexFunc(places, func(place string) bool { return whole(k.Root, place+"/modules/"+key) })
		if i >= 0 {
			sources[key] = places[i] + "/modules/" + key
		} else if sources[key] == "" && !was && !is {
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
	files, err := carryFiles(k.Root, []string{from + "/active", from + "/previous", k.Shelf.Copies}, to+"/active", rec)
	for _, name := range files {
		lost = append(lost, local+"/"+name)
	}
	return carried, lost, err
}

// localFiles names the files that semanage writes into a store, all but the booleans, of which single lines are left out.
func localFiles(root *hostfs.Root, policyType string) ([]string, error) {
	entries, err := root.ReadDir(active(policyType))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".local") && name != booleansFile && e.Type().IsRegular() {
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
	if rec.knowsVendor() {
		was, vendors := rec.VendorModules[key]
		return !vendors || was != digest // the vendor's own name and priority, but other content
	}
	// A copy of unknown age, made by hand. A name that this vendor does not have may be an older vendor's or the operator's; to
	// keep one too many is harmless, to lose one is not.
	_, vendors := vendor.Modules[key]
	return !vendors
}

// knowsVendor tells whether it is known which of the vendor's modules a store was built from.
func (rec *Record) knowsVendor() bool { return rec.Vendor != "" && len(rec.VendorModules) > 0 }

// doubtful gives the modules in the place of a vendor's that are not this vendor's, of which nobody knows whether they are an older one's or the
// operator's. This vendor's take their place.
func doubtful(have map[string]string, vendor *Vendor, rec *Record) (keys []string) {
	if rec.knowsVendor() {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if is, vendors := vendor.Modules[key]; vendors && is != have[key] {
			keys = append(keys, key)
		}
	}
	return keys
}

// keepDoubtful gives the step that copies them, before the store is built anew; none if there is none. dir is where the active store is now: it will
// be in its place by then.
func (k *Rebaser) keepDoubtful(vendor *Vendor, rec *Record, dir string) (plan.Plan, error) {
	have, err := modulesBelow(k.Root, dir)
	if err != nil {
		return nil, err
	}
	keys := slices.DeleteFunc(doubtful(have, vendor, rec), func(key string) bool { return !whole(k.Root, dir+"/modules/"+key) })
	if len(keys) == 0 {
		return nil, nil
	}
	return plan.Plan{{
		Action: "keep", Target: active(vendor.Type) + "/modules", Stays: true,
		Reason: "not the vendor's, and nobody knows whether an older one's or made by hand: " + firstOf(keys),
		Do: func(context.Context) (string, error) {
			for _, key := range keys {
				if _, err := k.Shelf.keep(active(vendor.Type)+"/modules/"+key, "modules/"+key); err != nil {
					return "", fmt.Errorf("cannot keep a copy of module %s: %w", key, err)
				}
			}
			return count(len(keys), "module") + " in " + k.Root.Path(k.Shelf.Kept), nil
		},
	}}, nil
}

// carryFiles copies what setsebool -P, semanage and semodule -d keep outside the modules from the first of the places that is there, and
// what has lost its content there from the next that has it. It gives those that none has.
func carryFiles(root *hostfs.Root, places []string, to string, rec *Record) (gone []string, err error) {
	places = slices.DeleteFunc(places, func(place string) bool { return !root.Exists(place) })
	if len(places) == 0 {
		return nil, nil
	}
	entries, err := root.ReadDir(places[0])
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		local := strings.HasSuffix(e.Name(), ".local")
		keep := local || e.Name() == "preserve_tunables" || (e.Name() == dontauditFlag && (!rec.Policy.StripDontaudit || rec.Policy.DontauditBefore))
		if !keep || !e.Type().IsRegular() {
			continue
		}
		from := places[0] + "/" + e.Name()
		if local {
			i := slices.IndexFunc(places, func(place string) bool {
				content, err := root.ReadFile(place + "/" + e.Name())
				return err == nil && !lost(content)
			})
			switch {
			case i >= 0:
				from = places[i] + "/" + e.Name()
			case e.Name() != booleansFile: // releases before this one left it empty
				gone = append(gone, e.Name())
				continue
			default:
				continue
			}
		}
		if err := copyFile(root, from, to+"/"+e.Name()); err != nil {
			return nil, err
		}
	}
	disabled, err := root.ReadDir(places[0] + "/modules/disabled")
	if err != nil {
		return gone, ignoreMissing(err)
	}
	for _, e := range disabled {
		if err := root.MkdirAll(to+"/modules/disabled", 0o700); err != nil {
			return nil, err
		}
		if err := copyFile(root, places[0]+"/modules/disabled/"+e.Name(), to+"/modules/disabled/"+e.Name()); err != nil {
			return nil, err
		}
	}
	return gone, nil
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

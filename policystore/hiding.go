package policystore

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// highest gives the priority of the module that is in force of each name: it hides those of lower priorities.
func highest(have map[string]string) map[string]int {
	inForce := map[string]int{}
	for key := range have {
		if priority, name, ok := splitKey(key); ok {
			inForce[name] = max(inForce[name], priority)
		}
	}
	return inForce
}

// hidden gives the modules of ours of whose name there is one with a higher priority: libsemanage builds with that one alone. That is somebody's right,
// and not what is declared. The names alone are looked at.
func (c *Compiler) hidden(policyType string, rec *Record) (all []Quarantined, err error) {
	if len(rec.Policy.Modules) == 0 {
		return nil, nil
	}
	dir := active(policyType) + "/modules"
	priorities, err := c.Root.ReadDir(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	have := map[string]string{}
	for _, p := range priorities {
		if n, err := strconv.Atoi(p.Name()); err != nil || n < Priority {
			continue
		}
		modules, err := c.Root.ReadDir(dir + "/" + p.Name())
		if err != nil {
			return nil, err
		}
		for _, m := range modules {
			have[p.Name()+"/"+m.Name()] = ""
		}
	}
	inForce := highest(have)
	for _, name := range slices.Sorted(maps.Keys(rec.Policy.Modules)) {
		if n := inForce[name]; n > Priority {
			all = append(all, Quarantined{Kind: policyModule, Name: name, Priority: Priority, Reason: fmt.Sprintf(
				"somebody installed a module of this name at priority %d, which hides it: take that one away with semodule -X %d -r %s", n, n, name)})
		}
	}
	return all, nil
}

// Replacing names the modules that were installed by hand and are in the place of one of the vendor's, in that one's own or at a higher priority. Of the
// vendor's nothing is in the policy then, and no update of it reaches the policy. That is as somebody wanted it, perhaps when the vendor had none.
func Replacing(root *hostfs.Root, vendor *Vendor, rec *Record) (keys []string, err error) {
	if theirs, err := hasModules(root, active(vendor.Type)); err != nil || !theirs {
		return nil, err
	}
	have, err := modulesIn(root, typeDir(vendor.Type))
	if err != nil {
		return nil, err
	}
	vendors := map[string]bool{}
	for key := range vendor.Modules {
		vendors[path.Base(key)] = true
	}
	inForce, unsure := highest(have), doubtful(have, vendor, rec)
	for _, key := range slices.Sorted(maps.Keys(have)) {
		priority, name, ok := splitKey(key)
		if ok && vendors[name] && vendor.Modules[key] != have[key] && priority == inForce[name] && operators(key, have[key], vendor, rec) && !slices.Contains(unsure, key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

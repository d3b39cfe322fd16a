package policystore

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Handmade is what somebody has changed by hand, with semodule, setsebool -P, semanage or an editor: it is neither the vendor's nor ours.
type Handmade struct {
	Modules      []HandmadeModule // sorted by name, each name once: the one that is in force
	Booleans     map[string]bool
	FileContexts []FileContext // in the order of file_contexts.local, where the last that fits counts
	Equivalences []Equivalence
	Dontaudit    bool // the dontaudit rules are stripped, as "semodule -DB" does
	// Other is what no declaration can say, a line for each.
	Other []string
	// Replaced is what cannot be told from an older OS image's, or is in the way: the policystore stage puts this image's in its place, and a copy
	// is kept.
	Replaced []string
}

// HandmadeModule is a module that was installed by hand.
type HandmadeModule struct {
	Priority       int
	Name           string
	Lang           string // cil or pp
	Content        []byte // as it was installed, without libsemanage's compression
	ReplacesVendor bool   // the vendor's policy has a module of this name
	// Permissive are the domains that it makes permissive, if it does nothing else: "semanage permissive" makes such modules.
	Permissive []string
}

// FindHandmade looks for what was changed by hand in the store and in /etc/selinux. The record tells it from what was declared.
func FindHandmade(root *hostfs.Root, vendor *Vendor, rec *Record) (*Handmade, error) {
	h := &Handmade{Booleans: map[string]bool{}}
	store, err := Inspect(root, vendor.Type)
	if err != nil {
		return nil, err
	}
	switch store.Kind {
	case Writable:
		if err := h.store(root, vendor, rec); err != nil {
			return nil, fmt.Errorf("cannot see what was changed by hand in %s: %w", root.Path(typeDir(vendor.Type)), err)
		}
	case Foreign:
		h.Replaced = append(h.Replaced, fmt.Sprintf("the store is another directory: %s is a link to %s, which stays as it is", StoreDir, store.Target))
		theirs, err := hasModules(root, active(vendor.Type))
		if err == nil && theirs {
			err = h.store(root, vendor, rec)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot see what was changed by hand in %s: %w", root.Path(typeDir(vendor.Type)), err)
		}
	}
	if err := h.etc(root, vendor, rec); err != nil {
		return nil, fmt.Errorf("cannot see what was changed by hand in %s: %w", root.Path(EtcDir), err)
	}
	return h, nil
}

func (h *Handmade) store(root *hostfs.Root, vendor *Vendor, rec *Record) error {
	if err := h.modules(root, vendor, rec); err != nil {
		return err
	}
	dir := active(vendor.Type)
	booleans, err := readBooleans(root, dir)
	if err != nil {
		return err
	}
	h.Booleans = booleans.operators(rec)
	for _, line := range booleans.refused {
		h.Other = append(h.Other, booleansFile+" has a line that libsemanage does not take: "+line)
	}
	h.Dontaudit = root.Exists(dir+"/"+dontauditFlag) && !rec.Policy.StripDontaudit
	names, err := localFiles(root, vendor.Type)
	if err != nil {
		return err
	}
	for _, name := range names {
		content, err := root.ReadFile(dir + "/" + name)
		if err != nil {
			return err
		}
		if name == "file_contexts.local" {
			built, err := root.ReadFile(dir + "/file_contexts")
			if ignoreMissing(err) != nil {
				return err
			}
			if err := h.fileContexts(built, content); err != nil {
				return err
			}
			continue
		}
		for line := range strings.Lines(string(content)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				h.Other = append(h.Other, name+", which semanage writes, has: "+line)
			}
		}
	}
	return h.disabled(root, vendor)
}

// modules finds the operator's modules. Of several of one name, that of the highest priority hides the others.
func (h *Handmade) modules(root *hostfs.Root, vendor *Vendor, rec *Record) error {
	have, err := modulesIn(root, typeDir(vendor.Type))
	if err != nil {
		return err
	}
	inForce, unsure := highest(have), doubtful(have, vendor, rec)
	vendors := map[string]bool{}
	for key := range vendor.Modules {
		_, name, _ := splitKey(key)
		vendors[name] = true
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		priority, name, ok := splitKey(key)
		switch {
		case !ok || priority == Priority:
			continue
		case slices.Contains(unsure, key):
			h.Replaced = append(h.Replaced, fmt.Sprintf("module %s is not the one of this OS image's: it is another image's, or was changed by hand", key))
			continue
		case !operators(key, have[key], vendor, rec):
			continue
		case root.Exists(active(vendor.Type) + "/modules/disabled/" + name):
			continue // a declaration would switch it on; disabled names it
		case priority < inForce[name]:
			h.Other = append(h.Other, fmt.Sprintf("module %s does nothing: %d/%s hides it", key, inForce[name], name))
			continue
		}
		file, lang, err := moduleFile(root, active(vendor.Type)+"/modules/"+key)
		if err != nil {
			return err
		}
		content, err := root.ReadFile(file)
		if err != nil {
			return err
		}
		if lang != "cil" && lang != "pp" {
			h.Other = append(h.Other, fmt.Sprintf("module %s is in the language %s", key, printable.Quote(lang)))
			continue
		}
		m := HandmadeModule{Priority: priority, Name: name, Lang: lang, Content: unpacked(content), ReplacesVendor: vendors[name]}
		if lang == "cil" && !m.ReplacesVendor {
			m.Permissive = onlyPermissive(string(m.Content))
		}
		h.Modules = append(h.Modules, m)
	}
	for _, key := range removed(root, active(vendor.Type), rec) {
		if _, is := vendor.Modules[key]; is {
			h.Replaced = append(h.Replaced, fmt.Sprintf("module %s is the OS image's and was removed: semodule -d %s switches it off for good", key, path.Base(key)))
		}
	}
	slices.SortFunc(h.Modules, func(a, b HandmadeModule) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// fileContexts takes the lines of file_contexts.local, and says which would not do the same as a declaration.
func (h *Handmade) fileContexts(built, content []byte) error {
	contexts, lines, err := contextsOf("file_contexts.local", content)
	if err != nil {
		return err
	}
	others, err := otherwise(built, content, lines)
	h.FileContexts, h.Other = lines, slices.Concat(h.Other, contexts.Problems(), others)
	return err
}

// disabled finds the vendor's modules that "semodule -d" has switched off.
func (h *Handmade) disabled(root *hostfs.Root, vendor *Vendor) error {
	const below = "/active/modules/disabled"
	found, err := root.ReadDir(typeDir(vendor.Type) + below)
	if ignoreMissing(err) != nil {
		return err
	}
	for _, e := range found {
		if !root.Exists(VendorStore + "/" + vendor.Type + below + "/" + e.Name()) {
			h.Other = append(h.Other, fmt.Sprintf("module %s is switched off", e.Name()))
		}
	}
	return nil
}

// etc finds equivalences, and files that are neither this vendor's nor the one's before.
func (h *Handmade) etc(root *hostfs.Root, vendor *Vendor, rec *Record) error {
	dir := EtcDir + "/" + vendor.Type
	subs, err := root.ReadFile(subsFile(vendor.Type))
	if ignoreMissing(err) != nil {
		return err
	}
	vendors, err := root.ReadFile(VendorEtc(root) + strings.TrimPrefix(subsFile(vendor.Type), EtcDir))
	if ignoreMissing(err) != nil {
		return err
	}
	theirs, ours := linesOf(string(vendors)), set(rec.Equivalences)
	for line := range strings.Lines(string(subs)) {
		if e := equivalence(line); e != "" && !theirs[e] && !ours[e] {
			path, like, _ := strings.Cut(e, " ")
			h.Equivalences = append(h.Equivalences, Equivalence{Path: path, Like: like})
		}
	}
	byHand, err := edited(root, vendor.Type, rec)
	if err != nil {
		return err
	}
	for _, below := range byHand {
		h.Replaced = append(h.Replaced, dir+"/"+below+" was changed by hand: it is written anew whenever the policy is built, from what semanage and modules say")
	}
	if err := h.added(root, vendor, byHand); err != nil {
		return err
	}
	for _, below := range slices.Sorted(maps.Keys(vendor.Etc)) {
		name := dir + "/" + below
		if generated(below) || name == subsFile(vendor.Type) {
			continue
		}
		digest, err := hashFile(root, name, make([]byte, 64<<10))
		if ignoreMissing(err) != nil {
			return err
		}
		if err == nil && digest != vendor.Etc[below] && digest != rec.VendorEtc[below] {
			if rec.VendorEtc == nil && rec.Vendor != vendor.Fingerprint {
				h.Replaced = append(h.Replaced, name+" is not the file of this OS image's: it is another image's, or was changed by hand")
				continue
			}
			h.Other = append(h.Other, name+" is not the vendor's file")
		}
	}
	return nil
}

// added finds files that the vendor does not have, and libsemanage does not make.
func (h *Handmade) added(root *hostfs.Root, vendor *Vendor, said []string) error {
	return lasting(root, vendor.Type, func(below string) error {
		name := path.Join(EtcDir, vendor.Type, below)
		if name == subsFile(vendor.Type) || slices.Contains(said, below) {
			return nil
		}
		if _, err := root.Lstat(path.Join(vendor.etc, below)); !hostfs.Missing(err) {
			return err
		}
		h.Other = append(h.Other, name+" is not the OS image's")
		return nil
	})
}

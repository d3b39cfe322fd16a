package policystore

import (
	"bytes"
	"compress/bzip2"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
)

// What a power cut leaves of a file that nobody flushed has its name and perhaps its size, and no content: it is empty, or zeroes
// (ext4, fs/ext4/inode.c: the size is on the disk before the blocks are). libsemanage before 3.2 writes the whole store anew and flushes
// nothing.

// lost tells whether content is what is left of a file of a store. None begins with a zero, and what is packed says when a part of it is
// missing.
func lost(content []byte) bool {
	if len(content) == 0 || content[0] == 0 {
		return true
	}
	if !bytes.HasPrefix(content, []byte("BZh")) {
		return false
	}
	_, err := io.Copy(io.Discard, bzip2.NewReader(bytes.NewReader(content)))
	return err != nil
}

// whole tells whether a module's directory has all of its files, with their content.
func whole(root *hostfs.Root, dir string) bool {
	entries, err := root.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return false
	}
	for _, e := range entries {
		if content, err := root.ReadFile(dir + "/" + e.Name()); err != nil || lost(content) {
			return false
		}
	}
	return complete(root, dir)
}

// complete tells whether a module's directory has the files without which libsemanage builds nothing: lang_ext, and the module in that
// language. The CIL of a package it makes again.
func complete(root *hostfs.Root, dir string) bool {
	_, _, err := moduleFile(root, dir)
	return err == nil && root.Exists(dir+"/lang_ext")
}

// What libsemanage takes for a priority and for a module's name (semanage_module_validate_priority, semanage_module_validate_name).
var (
	aPriority   = lazyregexp.New(`^[1-9][0-9]{0,2}$`)
	aModuleName = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_.-]*$`)
)

// unbuildable gives what is below an active directory's modules and keeps libsemanage from building anything at all: keys of modules that are
// not complete, and strays, which are none. It takes whatever it finds there for a priority or a module, unless the name begins with a dot
// (semanage_get_modules_names_module_key, seen with 3.4). seen are files below the active directory that were found there; with nil, each module is
// looked at.
func unbuildable(root *hostfs.Root, active string, seen map[string]bool) (keys, strays []string, err error) {
	priorities, err := root.ReadDir(active + "/modules")
	if err != nil {
		return nil, nil, err
	}
	for _, p := range priorities {
		if p.Name() == "disabled" || strings.HasPrefix(p.Name(), ".") {
			continue
		}
		if !p.IsDir() || !aPriority().MatchString(p.Name()) {
			strays = append(strays, p.Name())
			continue
		}
		modules, err := root.ReadDir(active + "/modules/" + p.Name())
		if err != nil {
			return nil, nil, err
		}
		for _, m := range modules {
			key := p.Name() + "/" + m.Name()
			switch below := "modules/" + key; {
			case strings.HasPrefix(m.Name(), "."):
			case !m.IsDir() || !aModuleName().MatchString(m.Name()):
				strays = append(strays, key)
			case seen[below+"/lang_ext"] && seen[below+"/cil"]: // complete, whatever the language
			case !complete(root, active+"/"+below):
				keys = append(keys, key)
			}
		}
	}
	return keys, strays, nil
}

// emptied names the modules of a store's active directory that have lost files, what is no module, and its files that have lost their content: a module's, the
// operator's, and those that the vendor's store has with content. To look into each is for a store that somebody has written to since it was known to be whole.
func emptied(root *hostfs.Root, vendor *Vendor, dir string, look bool) (names []string, err error) {
	buf := make([]byte, 64<<10)
	seen := map[string]bool{}
	err = root.Walk(dir, func(below string, info hostfs.Entry) error {
		if !info.IsRegular() {
			return nil
		}
		seen[below] = true
		gone := info.Size == 0 && path.Base(below) != booleansFile // which releases before this one left empty
		if info.Size > 0 && look {
			content, err := info.Read(buf)
			if err != nil {
				return err
			}
			gone = content[0] == 0
		}
		if gone && needsContent(root, vendor, below) {
			names = append(names, below)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys, strays, err := unbuildable(root, dir, seen)
	if err != nil {
		return nil, err
	}
	var modules []string
	for _, key := range slices.Concat(keys, strays) {
		modules = append(modules, "modules/"+key)
	}
	return slices.Concat(modules, names), nil
}

func needsContent(root *hostfs.Root, vendor *Vendor, below string) bool {
	if strings.HasSuffix(below, ".local") || strings.HasPrefix(below, "modules/") && slices.Contains([]string{"cil", "hll", "lang_ext"}, path.Base(below)) {
		return true
	}
	info, err := root.Stat(path.Join(VendorStore, vendor.Type, "active", below))
	return err == nil && info.Size > 0
}

// emptiedReason says why a store is built anew that has such files.
func emptiedReason(names []string) string {
	return "what is in it is no module, is missing or has lost its content, as in a power cut: " + firstOf(names)
}

// firstOf names the first of many.
func firstOf(names []string) string {
	const shown = 3
	more := ""
	if n := len(names) - shown; n > 0 {
		names, more = names[:shown], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ") + more
}

// settle makes what others wrote into the store durable, and copies what the operator made by hand.
func (c *Compiler) settle(ctx context.Context, policyType string, rec *Record) error {
	if err := c.Root.Sync(StoreDir, EtcDir); err != nil {
		return fmt.Errorf("cannot flush the policy store to the disk: %w", err)
	}
	return c.safekeep(ctx, policyType, rec)
}

// safekeep copies what the operator made by hand, as it is in the store, before semodule writes all of the store anew. The copy stays:
// it is what is used when a file in the store has lost its content.
func (c *Compiler) safekeep(ctx context.Context, policyType string, rec *Record) error {
	root, from, to := c.Root, active(policyType), c.Shelf.Copies
	have, err := modulesIn(root, typeDir(policyType))
	if err != nil {
		return err
	}
	beside := path.Dir(to) + "/" + hostfs.TempPrefix + path.Base(to)
	step := replace(root, to, beside, "keep a copy of what was made by hand in the policy store", func(context.Context) (string, error) {
		if err := root.MkdirAll(beside, 0o700); err != nil {
			return "", err
		}
		for key, digest := range have {
			if priority, _, ok := splitKey(key); !ok || priority == Priority || rec.VendorModules[key] == digest {
				continue
			}
			if !whole(root, from+"/modules/"+key) {
				return "", fmt.Errorf("%w: module %s has lost its content", ErrDamaged, key)
			}
			if err := root.MkdirAll(path.Dir(beside+"/modules/"+key), 0o700); err != nil {
				return "", err
			}
			if _, err := root.CopyTree(from+"/modules/"+key, beside+"/modules/"+key); err != nil {
				return "", err
			}
		}
		gone, err := carryFiles(root, []string{from}, beside, rec)
		if err == nil && len(gone) > 0 {
			err = fmt.Errorf("%w: %s has lost its content", ErrDamaged, gone[0])
		}
		return "kept", err
	})
	if _, err := step.Do(ctx); err != nil {
		return err
	}
	return step.Cleanup()
}

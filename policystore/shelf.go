package policystore

import (
	"bytes"
	"compress/bzip2"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// Shelf is where the operator's work is that is not in the store, or was not to be lost. What is put there is durable before anything
// is removed elsewhere, and nothing on it is overwritten: an older copy that differs goes to Kept.
type Shelf struct {
	Root *hostfs.Root
	// Quarantine is the directory of what the policy does not build with: modules as PRIORITY/NAME, and local files, such as
	// file_contexts.local, as local/NAME. It is tried again.
	Quarantine string
	// Kept is the directory for copies of what was replaced and may be the operator's. Nothing reads them.
	Kept string
	// Copies is a directory with copies of the operator's modules and files that are in the store, laid out like an active one. They are
	// used for those that have lost their content there.
	Copies string
}

// local is the directory of the local files in quarantine.
const local = "local"

// list names what is in quarantine: the modules as "PRIORITY/NAME", and the local files.
func (s Shelf) list() (modules, locals []string) {
	directories, err := s.Root.ReadDir(s.Quarantine)
	if err != nil {
		return nil, nil // there is none
	}
	for _, d := range directories {
		entries, err := s.Root.ReadDir(s.Quarantine + "/" + d.Name())
		if err != nil {
			continue
		}
		for _, e := range entries {
			switch {
			case strings.HasPrefix(e.Name(), hostfs.TempPrefix): // of a run that was cut off; its original is where it was
			case d.Name() == local:
				locals = append(locals, e.Name())
			default:
				modules = append(modules, d.Name()+"/"+e.Name())
			}
		}
	}
	return modules, locals
}

// keys names all of it, as path takes it.
func (s Shelf) keys() []string {
	modules, locals := s.list()
	for _, name := range locals {
		modules = append(modules, local+"/"+name)
	}
	return modules
}

// digest gives the hash of what is in quarantine under a key; "" if nothing is.
func (s Shelf) digest(key string) string {
	if key == "" {
		return ""
	}
	name := s.path(key)
	if info, err := s.Root.Stat(name); err == nil && info.IsDir() {
		if name, _, err = moduleFile(s.Root, name); err != nil {
			return ""
		}
	}
	digest, err := hashFile(s.Root, name, make([]byte, 64<<10))
	if err != nil {
		return ""
	}
	return digest
}

// Sweep removes what a run that was cut off was still writing.
func (s Shelf) Sweep() error {
	dirs := []string{s.Kept, s.Copies, s.Quarantine}
	if below, err := s.Root.ReadDir(s.Quarantine); err == nil {
		for _, d := range below {
			if d.IsDir() {
				dirs = append(dirs, s.Quarantine+"/"+d.Name())
			}
		}
	}
	for _, dir := range dirs {
		if _, err := s.Root.Sweep(dir); err != nil {
			return err
		}
	}
	return nil
}

// path gives the place in quarantine of a module, "PRIORITY/NAME", or of a local file, "local/NAME".
func (s Shelf) path(key string) string { return s.Quarantine + "/" + key }

// take puts a copy of what is at from into quarantine.
func (s Shelf) take(from, key string) error {
	to := s.path(key)
	if same, err := s.same(from, to); same || err != nil {
		return err
	}
	temp := path.Join(path.Dir(to), hostfs.TempPrefix+path.Base(to))
	err := s.Root.MkdirAll(path.Dir(to), 0o700)
	if err == nil {
		err = s.Root.RemoveTree(temp)
	}
	if err == nil {
		err = s.copy(from, temp)
	}
	if err == nil {
		err = s.retire(key)
	}
	if err == nil {
		err = s.Root.Rename(temp, to)
	}
	return err
}

// release drops from quarantine what the store has again. What differs from it is the operator's as well: it is kept.
func (s Shelf) release(key, inStore string) error {
	same, err := s.same(inStore, s.path(key))
	switch {
	case err != nil:
		return err
	case same:
		return s.Root.RemoveTree(s.path(key))
	}
	return s.retire(key)
}

// retire moves what is in quarantine under a key, if anything is, to the kept copies.
func (s Shelf) retire(key string) error {
	if _, err := s.Root.Lstat(s.path(key)); err != nil {
		return ignoreMissing(err)
	}
	if err := s.Root.MkdirAll(s.Kept, 0o755); err != nil {
		return err
	}
	to, _, err := s.free("quarantine/"+key, "")
	if err != nil {
		return err
	}
	return s.Root.Rename(s.path(key), to)
}

// keep makes a copy of a file or of a directory under a name that tells what it was, unless there is one. It tells where.
func (s Shelf) keep(from, name string) (string, error) {
	if err := s.Root.MkdirAll(s.Kept, 0o755); err != nil {
		return "", err
	}
	to, there, err := s.free(name, from)
	if err == nil && !there {
		temp := s.Kept + "/" + hostfs.TempPrefix + path.Base(to)
		if err = s.Root.RemoveTree(temp); err == nil {
			err = s.copy(from, temp)
		}
		if err == nil {
			err = s.Root.Rename(temp, to)
		}
	}
	return to, err
}

// keepEntry is keep for an entry of any kind and size, whatever copies of it there are.
func (s Shelf) keepEntry(from, name string) (to string, err error) {
	temp := s.Kept + "/" + hostfs.TempPrefix + "entry"
	if err := s.Root.RemoveTree(temp); err != nil {
		return "", err
	}
	if err := s.Root.MkdirAll(temp, 0o755); err != nil {
		return "", err
	}
	if _, err := s.Root.CopyEntry(from, temp); err != nil {
		return "", err
	}
	if to, _, err = s.free(name, ""); err != nil {
		return "", err
	}
	if err := s.Root.Rename(temp+"/"+path.Base(from), to); err != nil {
		return "", err
	}
	return to, s.Root.RemoveTree(temp)
}

// keepStep is keep as a step of a plan.
func (s Shelf) keepStep(from, name, reason string) plan.Step {
	return s.step(s.keep, from, name, reason)
}

// keepEntryStep is keepEntry as a step of a plan.
func (s Shelf) keepEntryStep(from, name, reason string) plan.Step {
	return s.step(s.keepEntry, from, name, reason)
}

func (s Shelf) step(keep func(from, name string) (string, error), from, name, reason string) plan.Step {
	return plan.Step{
		Action: "keep", Target: from, Reason: reason, Stays: true,
		Do: func(context.Context) (string, error) {
			to, err := keep(from, name)
			if err != nil {
				return "", fmt.Errorf("cannot keep a copy of %s: %w", s.Root.Path(from), err)
			}
			return "as " + s.Root.Path(to), nil
		},
	}
}

// free gives a name among the kept copies: one that is free, or that of a copy which equals what is at from.
func (s Shelf) free(name, from string) (to string, there bool, err error) {
	base := s.Kept + "/" + strings.ReplaceAll(name, "/", "_")
	for n := 1; ; n++ {
		to = base
		if n > 1 {
			to += "." + strconv.Itoa(n)
		}
		if _, err := s.Root.Lstat(to); err != nil {
			return to, false, ignoreMissing(err)
		}
		if from != "" {
			if same, err := s.same(from, to); same || err != nil {
				return to, same, err
			}
		}
	}
}

func (s Shelf) copy(from, to string) error {
	info, err := s.Root.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		_, err = s.Root.CopyTree(from, to)
		return err
	}
	return copyFile(s.Root, from, to)
}

// same reports whether two names lead to the same file or to modules of the same content. What is not there equals nothing.
func (s Shelf) same(a, b string) (bool, error) {
	var contents [2][]byte
	for i, name := range []string{a, b} {
		info, err := s.Root.Stat(name)
		if err == nil && info.IsDir() {
			var file string
			if file, _, err = moduleFile(s.Root, name); err == nil {
				name = file
			} else if hostfs.Missing(err) {
				return s.sameTree(a, b)
			}
		}
		if err == nil {
			contents[i], err = s.Root.ReadFile(name)
		}
		if err != nil {
			return false, ignoreMissing(err)
		}
		contents[i] = unpacked(contents[i])
	}
	return bytes.Equal(contents[0], contents[1]), nil
}

// sameTree reports whether two directories hold the same files.
func (s Shelf) sameTree(a, b string) (bool, error) {
	var digests [2]map[string]string
	for i, dir := range []string{a, b} {
		digests[i] = map[string]string{}
		err := s.Root.Walk(dir, func(below string, info hostfs.Entry) (err error) {
			if info.IsRegular() {
				digests[i][below], err = hashFile(s.Root, path.Join(dir, below), make([]byte, 64<<10))
			}
			return err
		})
		if err != nil {
			return false, ignoreMissing(err)
		}
	}
	return maps.Equal(digests[0], digests[1]), nil
}

// unpacked takes the compression off that libsemanage puts on modules, as it did then.
func unpacked(content []byte) []byte {
	if bytes.HasPrefix(content, []byte("BZh")) {
		if plain, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(content))); err == nil {
			return plain
		}
	}
	return content
}

// moduleFile gives the file of a module's directory that counts, and its language. libsemanage keeps the CIL that it made of a package,
// and leaves a package where it was when a module in CIL takes its place: lang_ext says which is meant.
func moduleFile(root *hostfs.Root, dir string) (file, lang string, err error) {
	content, err := root.ReadFile(dir + "/lang_ext")
	if err != nil && !hostfs.Missing(err) {
		return "", "", err
	}
	lang = strings.TrimRight(string(content), "\x00\n ")
	if lang != "cil" {
		if _, err := root.Stat(dir + "/hll"); err == nil {
			if lang == "" {
				lang = "pp"
			}
			return dir + "/hll", lang, nil
		}
	}
	_, err = root.Stat(dir + "/cil")
	return dir + "/cil", "cil", err
}

// splitKey gives the parts of "PRIORITY/NAME".
func splitKey(key string) (priority int, name string, ok bool) {
	p, name, ok := strings.Cut(key, "/")
	priority, err := strconv.Atoi(p)
	return priority, name, ok && err == nil
}

// LeftOut gives what the policy lacks of what was declared or made by hand, with the reason: what the record knows, and what is found in
// quarantine although the record does not know it.
func (s Shelf) LeftOut(policyType string, rec *Record) []Quarantined {
	all := slices.DeleteFunc(append([]Quarantined{}, rec.Policy.Quarantine...), func(q Quarantined) bool {
		key := q.key()
		if key == "" {
			return false
		}
		_, vendors := rec.VendorModules[key]
		again := q.Kind == policyModule && !vendors && !emptyModule(s.Root, typeDir(policyType), key) ||
			q.Kind == localFile && q.Name != booleansFile && s.Root.Exists(active(policyType)+"/"+q.Name)
		return again || !s.Root.Exists(s.path(key)) // made again by hand, or not wanted any more
	})
	known := func(kind, name string, priority int) bool {
		for _, q := range all {
			if q.Kind == kind && q.Name == name && q.Priority == priority {
				return true
			}
		}
		return false
	}
	modules, locals := s.list()
	for _, key := range modules {
		priority, name, _ := splitKey(key)
		_, vendors := rec.VendorModules[key] // then what is in the store under that key is the vendor's
		if !known(policyModule, name, priority) && (vendors || emptyModule(s.Root, typeDir(policyType), key)) {
			all = append(all, Quarantined{Kind: policyModule, Name: name, Priority: priority, From: installedByHand, Copy: s.digest(key),
				Reason: "it is in quarantine; the reason was not recorded"})
		}
	}
	for _, name := range locals {
		if !known(localFile, name, 0) && (name == booleansFile || !s.Root.Exists(active(policyType)+"/"+name)) {
			all = append(all, Quarantined{Kind: localFile, Name: name, From: writtenByHand, Copy: s.digest(local + "/" + name),
				Reason: "it is in quarantine; the reason was not recorded"})
		}
	}
	for _, key := range rec.Lost {
		if priority, name, ok := splitKey(key); ok && emptyModule(s.Root, typeDir(policyType), key) && !known(policyModule, name, priority) {
			all = append(all, Quarantined{Kind: policyModule, Name: name, Priority: priority, From: installedByHand,
				Reason: "its files were empty, as a power cut leaves them, and there is no copy: install it again"})
		}
		if name, ok := strings.CutPrefix(key, local+"/"); ok && !s.Root.Exists(active(policyType)+"/"+name) && !known(localFile, name, 0) {
			all = append(all, Quarantined{Kind: localFile, Name: name, From: writtenByHand,
				Reason: "it was empty, as a power cut leaves it, and there is no copy: enter again with semanage what was in it"})
		}
	}
	return all
}

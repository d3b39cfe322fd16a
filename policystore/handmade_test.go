package policystore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// said is what was found, in one line.
func (h *Handmade) said() string {
	var all []string
	for _, m := range h.Modules {
		text := fmt.Sprintf("%d/%s.%s %s", m.Priority, m.Name, m.Lang, m.Content)
		if m.ReplacesVendor {
			text += " in place of the vendor's"
		}
		all = append(all, text)
	}
	if len(h.Booleans) > 0 {
		all = append(all, fmt.Sprint(h.Booleans))
	}
	for _, c := range h.FileContexts {
		all = append(all, c.Path+" "+c.Type+" "+c.Context)
	}
	for _, e := range h.Equivalences {
		all = append(all, e.Path+" like "+e.Like)
	}
	if h.Dontaudit {
		all = append(all, "no dontaudit")
	}
	for _, line := range h.Replaced {
		all = append(all, "replaced: "+line)
	}
	return strings.Join(append(all, h.Other...), "; ")
}

// TestFindHandmade changes one thing at a time on a host that is as the vendor's.
func TestFindHandmade(t *testing.T) {
	const contexts, subs = "/etc/selinux/mcs/contexts/lxc_contexts", "/etc/selinux/mcs/contexts/files/file_contexts.subs"
	for _, c := range []struct {
		name   string
		change func(h *fakeHost, rec *Record)
		want   string // what is found; with ... at its end it is the beginning
	}{
		{"nothing", func(*fakeHost, *Record) {}, ""},
		{"a module", func(h *fakeHost, _ *Record) { h.module(active("mcs"), "400/hand", "(type hand_t)") }, "400/hand.cil (type hand_t)"},
		{"a module of ours", func(h *fakeHost, _ *Record) { h.module(active("mcs"), "500/hand", "(type hand_t)") }, ""},
		{"a module that one of ours hides", func(h *fakeHost, _ *Record) {
			h.module(active("mcs"), "400/hand", "(type hand_t)")
			h.module(active("mcs"), "500/hand", "(type hand_t)")
		}, "module 400/hand does nothing: 500/hand hides it"},
		{"a module over the vendor's", func(h *fakeHost, _ *Record) { h.module(active("mcs"), "400/legacy", "(type new_t)") }, "400/legacy.cil (type new_t) in place of the vendor's"},
		{"the vendor's module itself", func(h *fakeHost, _ *Record) { h.module(active("mcs"), "100/legacy", "(type new_t)") }, "100/legacy.cil (type new_t) in place of the vendor's"},
		{"the same, and nobody knows what it was before", func(h *fakeHost, rec *Record) {
			h.module(active("mcs"), "100/legacy", "(type new_t)")
			*rec = Record{}
		}, "replaced: module 100/legacy is not the one of this OS image's: it is another image's, or was changed by hand"},
		{"the vendor's module before an update reaches it", func(h *fakeHost, rec *Record) {
			h.module(active("mcs"), "100/legacy", "(type old_t)")
			rec.VendorModules["100/legacy"] = digestOf([]byte("(type old_t)"))
		}, ""},
		{"the vendor's module, removed", func(h *fakeHost, _ *Record) { h.remove(active("mcs") + "/modules/100/legacy") },
			"replaced: module 100/legacy is the OS image's and was removed: semodule -d legacy switches it off for good"},
		{"a module in a language of its own", func(h *fakeHost, _ *Record) {
			h.write(active("mcs")+"/modules/400/hand/hll", "x")
			h.write(active("mcs")+"/modules/400/hand/lang_ext", "lua")
		}, `module 400/hand is in the language "lua"`},
		{"a module that is switched off", func(h *fakeHost, _ *Record) { h.write(active("mcs")+"/modules/disabled/legacy", "") }, "module legacy is switched off"},
		{"a module by hand that is switched off", func(h *fakeHost, _ *Record) {
			h.module(active("mcs"), "400/hand", "(typepermissive hand_t)")
			h.write(active("mcs")+"/modules/disabled/hand", "")
		}, "module hand is switched off"},
		{"one that the vendor has switched off", func(h *fakeHost, _ *Record) {
			h.write(VendorStore+"/mcs/active/modules/disabled/legacy", "")
			h.write(active("mcs")+"/modules/disabled/legacy", "")
		}, ""},
		{"booleans, and one of ours", func(h *fakeHost, rec *Record) {
			h.write(active("mcs")+"/booleans.local", "theirs=1\nours=1\n")
			rec.Policy.Booleans = []string{"ours"}
		}, "map[theirs:true]"},
		{"dontaudit rules", func(h *fakeHost, _ *Record) { h.write(active("mcs")+"/"+dontauditFlag, "") }, "no dontaudit"},
		{"dontaudit rules that we strip", func(h *fakeHost, rec *Record) {
			h.write(active("mcs")+"/"+dontauditFlag, "")
			rec.Policy.StripDontaudit = true
		}, ""},
		{"file contexts, the last of which counts", func(h *fakeHost, _ *Record) {
			h.write(active("mcs")+"/file_contexts.local", "/srv/b/c -d u:r:c_t:s0\n/srv/b u:r:b_t:s0\n/srv/.* <<none>>\n/a u:r:a_t:s0\n")
		}, "/srv/b/c dir u:r:c_t:s0; /srv/b any u:r:b_t:s0; /srv/.* any <<none>>; /a any u:r:a_t:s0"},
		{"what else semanage writes", func(h *fakeHost, _ *Record) {
			h.write(active("mcs")+"/ports.local", "# a comment\n\nportcon tcp 1 u:r:t:s0\n")
		}, "ports.local, which semanage writes, has: portcon tcp 1 u:r:t:s0"},
		{"an equivalence", func(h *fakeHost, rec *Record) {
			h.write(VendorDir+strings.TrimPrefix(subs, EtcDir), "/run /var/run\n")
			h.write(subs, "/run  /var/run\n# /no /no\n/data /etc # our data root\n/ours /etc\n/alone\n")
			rec.Equivalences = []string{"/ours /etc"}
		}, "/data like /etc"},
		{"an edited file", func(h *fakeHost, _ *Record) { h.write(contexts, "mine") }, contexts + " is not the vendor's file"},
		{"an added file", func(h *fakeHost, _ *Record) { h.write("/etc/selinux/mcs/setrans.conf", "mine") }, "/etc/selinux/mcs/setrans.conf is not the OS image's"},
		{"an edited file of those that are built", func(h *fakeHost, rec *Record) {
			rec.Policy.Vendor, rec.Policy.Commit = rec.Vendor, commitNumber(h.root, active("mcs"))
			h.write("/etc/selinux/mcs/seusers", "mine")
		}, "replaced: /etc/selinux/mcs/seusers was changed by hand: it is written anew whenever the policy is built, from what semanage and modules say"},
		{"the same, and somebody has built since", func(h *fakeHost, rec *Record) {
			rec.Policy.Vendor, rec.Policy.Commit = rec.Vendor, "another"
			h.write("/etc/selinux/mcs/seusers", "mine")
		}, ""},
		{"a file before an update reaches it", func(h *fakeHost, rec *Record) {
			h.write(contexts, "the old image's")
			rec.VendorEtc["contexts/lxc_contexts"] = digestOf([]byte("the old image's"))
		}, ""},
		{"a missing file", func(h *fakeHost, _ *Record) { h.remove(contexts) }, ""},
		{"a policy of one's own", func(h *fakeHost, _ *Record) { h.write(EtcDir+"/mcs/policy/policy.33", "x") }, ""},
		{"another store", func(h *fakeHost, _ *Record) {
			h.write("/srv/store/x", "")
			h.remove(StoreDir)
			if err := os.Symlink("../../srv/store", filepath.Join(h.dir, StoreDir)); err != nil {
				h.t.Fatal(err)
			}
		}, "replaced: the store is another directory: /var/lib/selinux is a link to ../../srv/store, which stays as it is"},
		{"another store with a module", func(h *fakeHost, rec *Record) {
			h.module("/srv/store/mcs/active", "400/hand", "(type hand_t)")
			h.module("/srv/store/mcs/active", "100/legacy", "(type new_t)")
			h.remove(StoreDir)
			*rec = Record{}
			if err := os.Symlink("../../srv/store", filepath.Join(h.dir, StoreDir)); err != nil {
				h.t.Fatal(err)
			}
		}, "400/hand.cil (type hand_t); replaced: the store is another directory: /var/lib/selinux is a link to ../../srv/store, which stays as it is; " +
			"replaced: module 100/legacy is not the one of this OS image's: it is another image's, or was changed by hand"},
		{"an edited file, and nobody knows what it was before", func(h *fakeHost, rec *Record) {
			h.write(contexts, "mine")
			*rec = Record{}
		}, "replaced: " + contexts + " is not the file of this OS image's: it is another image's, or was changed by hand"},
	} {
		h := newHost(t)
		rec := h.record()
		c.change(h, rec)
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		found, err := FindHandmade(h.root, vendor, rec)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := found.said(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestFindHandmadeThatCannotBeRead: what cannot be read is not "nothing".
func TestFindHandmadeThatCannotBeRead(t *testing.T) {
	for _, name := range []string{active("mcs") + "/booleans.local", active("mcs") + "/modules/disabled", EtcDir + "/mcs/contexts/files/file_contexts.subs", EtcDir + "/mcs/contexts/lxc_contexts"} {
		h := newHost(t)
		rec := h.record()
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		h.remove(name)
		if filepath.Base(name) == "disabled" {
			h.write(name, "a file")
		} else {
			h.write(name+"/x", "a directory")
		}
		if found, err := FindHandmade(h.root, vendor, rec); err == nil || !strings.HasPrefix(err.Error(), "cannot see what was changed by hand in ") {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

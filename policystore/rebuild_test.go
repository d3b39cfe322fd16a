package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

var site1 = Declared{Modules: []Module{{Name: "site", Lang: "cil", Content: []byte("(type site_t)"), From: "site.cil"}}}

// keys are the modules in the store, "PRIORITY/NAME".
func (h *fakeHost) keys() string {
	return strings.Join(slices.Sorted(maps.Keys(h.modules())), " ")
}

// refusing refuses what has one of the modules in it, and says of it what the tools say of a name that is not resolved.
func refusing(keys ...string) func(map[string]string) string {
	return func(modules map[string]string) string {
		for _, key := range keys {
			if _, there := modules[key]; there {
				return "Failed to resolve allow statement at /x/tmp/modules/" + key + "/cil:1"
			}
		}
		return ""
	}
}

func TestRebuildIsDoneOnce(t *testing.T) {
	h := newHost(t)
	rec := h.record()
	if actions, err := h.apply(rec, site1); err != nil || len(actions) != 1 || h.keys() != "100/base 100/legacy 500/site" {
		t.Fatalf("%v, %v: %s", actions, err, h.keys())
	}
	if actions, err := h.apply(rec, site1); err != nil || len(actions) > 0 || len(h.calls) != 1 {
		t.Errorf("again: %v, %v, %v", actions, err, h.calls)
	}
	if rec.Policy.File != "policy.33" || rec.Policy.Modules["site"] == "" {
		t.Errorf("%+v", rec.Policy)
	}
	if h.root.Exists(h.compiler().Scratch) {
		t.Error("the input is still there")
	}
}

// TestModuleNamedAsAVendors is left out without a build more, unless it is to replace that one; where an earlier release let it in, it goes.
func TestModuleNamedAsAVendors(t *testing.T) {
	site, mine := site1.Modules[0], Module{Name: "legacy", Lang: "cil", Content: []byte("(type mine_t)"), From: "legacy.cil"}
	replaces := mine
	replaces.ReplacesVendor = true
	for _, c := range []struct {
		what     string
		declared []Module
		keys     string
		out      int
	}{
		{"by mistake", []Module{mine, site}, "100/base 100/legacy 500/site", 1},
		{"on purpose", []Module{replaces, site}, "100/base 100/legacy 500/legacy 500/site", 0},
		{"another name", []Module{site}, "100/base 100/legacy 500/site", 0},
	} {
		h := newHost(t)
		rec := h.record()
		want := Declared{Modules: c.declared}
		if actions, err := h.apply(rec, want); err != nil || len(actions) != 1 || len(h.calls) != 1 || h.keys() != c.keys {
			t.Fatalf("%s: %v, %v, %d calls: %s", c.what, actions, err, len(h.calls), h.keys())
		}
		if q := rec.Policy.Quarantine; len(q) != c.out || c.out > 0 && (q[0].Name != "legacy" || !strings.Contains(q[0].Reason, "policy.replace_vendor_modules")) {
			t.Errorf("%s: %v", c.what, q)
		}
		if actions, err := h.apply(rec, want); err != nil || len(actions) > 0 {
			t.Errorf("%s, again: %v, %v", c.what, actions, err)
		}
		if c.out == 0 {
			continue
		}
		rec.Policy.Modules["legacy"] = "as an earlier release has it"
		if actions, err := h.apply(rec, want); err != nil || len(actions) != 1 || h.keys() != c.keys {
			t.Errorf("%s, let in earlier: %v, %v: %s", c.what, actions, err, h.keys())
		}
	}
}

// TestKernelThatDoesNotLoad is exit code 6, and no reason to throw the store away.
func TestKernelThatDoesNotLoad(t *testing.T) {
	h := newHost(t)
	h.kernel = &fakeKernel{deaf: true, booleans: map[string]bool{}}
	rec := h.record()
	var undo *plan.UndoError
	if _, err := h.apply(rec, site1); !errors.As(err, &undo) || !errors.Is(err, ErrInPlace) || !strings.Contains(err.Error(), "the kernel did not load it") {
		t.Errorf("%v", err)
	}
	h.kernel.deaf = false
	*rec = *h.record()
	if _, err := h.apply(rec, site1); err != nil || h.kernel.loads != 1 {
		t.Errorf("%v, %d loads", err, h.kernel.loads)
	}
}

// unflushed takes /etc/selinux away when the policy is built, so that it cannot be flushed.
type unflushed struct{ *fakeHost }

func (u unflushed) Run(ctx context.Context, argv ...string) (command.Output, error) {
	out, err := u.fakeHost.Run(ctx, argv...)
	return out, errors.Join(err, os.Rename(u.dir+EtcDir, u.dir+EtcDir+".away"))
}

// TestBuiltAndNotFlushed records nothing of a policy that may not be on the disk.
func TestBuiltAndNotFlushed(t *testing.T) {
	h := newHost(t)
	c, rec := h.compiler(), h.record()
	c.Tools = unflushed{h}
	if _, err := c.rebuild(t.Context(), "mcs", rec, site1); !errors.Is(err, ErrInPlace) || !strings.Contains(err.Error(), "cannot flush the built policy to the disk") {
		t.Errorf("%v", err)
	}
	if rec.Policy.Vendor != "" {
		t.Errorf("%+v is recorded", rec.Policy)
	}
}

// TestTrialsAreNotLoaded looks for a culprit without giving the kernel anything, or the store.
func TestTrialsAreNotLoaded(t *testing.T) {
	h := newHost(t)
	h.kernel = &fakeKernel{booleans: map[string]bool{}}
	h.module(active("mcs"), "400/hand", "(type hand_t)")
	var want Declared
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want.Modules = append(want.Modules, Module{Name: name, Lang: "cil", Content: []byte("(type " + name + "_t)")})
	}
	seen := ""
	h.refuse = func(modules map[string]string) string {
		if _, there := modules["500/b"]; there {
			if keys := h.keys(); keys != "100/base 100/legacy 400/hand" {
				seen = keys
			}
			return "Problems without a name"
		}
		return ""
	}
	rec := h.record()
	if _, err := h.apply(rec, want); err != nil {
		t.Fatal(err)
	}
	if seen != "" || h.kernel.loads != 1 || h.keys() != "100/base 100/legacy 400/hand 500/a 500/c 500/d 500/e" {
		t.Errorf("meanwhile the store had %q, %d loads, in the end %s", seen, h.kernel.loads, h.keys())
	}
	if q := rec.Policy.Quarantine; len(q) != 1 || q[0].Name != "b" || q[0].Reason != "Problems without a name" {
		t.Errorf("%+v", q)
	}
}

// TestFailedBuildLeavesTheStore is about tools that fail for another reason than what they are given, and those that lie.
func TestFailedBuildLeavesTheStore(t *testing.T) {
	for name, change := range map[string]func(h *fakeHost){
		"lies": func(h *fakeHost) { h.lies = true },
		"killed": func(h *fakeHost) {
			h.before = func(int) error { return &command.ExitError{Tool: "semodule", Code: -1} }
		},
		"full": func(h *fakeHost) {
			h.before = func(int) error {
				return &command.ExitError{Tool: "semodule", Code: 1, Output: command.Output{Stderr: "No space left on device"}}
			}
		},
		"missing":  func(h *fakeHost) { h.before = func(int) error { return command.ErrMissing } },
		"vendor's": func(h *fakeHost) { h.refuse = func(map[string]string) string { return "Problems without a name" } },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write(active("mcs")+"/booleans.local", "mine=1\n")
			h.module(active("mcs"), "400/hand", "(type hand_t)")
			h.module("/var/lib/selinux-provision/quarantine/..", "x", "")
			h.write("/var/lib/selinux-provision/quarantine/300/out/cil", "(type out_t)")
			rec := h.record()
			rec.Policy.Vendor = rec.Vendor // the policy on the host is this vendor's
			before := h.keys()
			change(h)
			want := site1
			want.Booleans = map[string]bool{"theirs": true}
			if _, err := h.apply(rec, want); err == nil || errors.Is(err, ErrInPlace) {
				t.Errorf("%v", err)
			}
			if h.keys() != before || h.read(active("mcs")+"/booleans.local") != "mine=1\n" || h.read("/var/lib/selinux-provision/quarantine/300/out/cil") == "" {
				t.Errorf("the store has %s, booleans %q", h.keys(), h.read(active("mcs")+"/booleans.local"))
			}
		})
	}
}

// TestBooleansThatCannotBeRead stops before the operator's values are written over.
func TestBooleansThatCannotBeRead(t *testing.T) {
	h := newHost(t)
	if err := os.Mkdir(filepath.Join(h.dir, active("mcs"), "booleans.local"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := site1
	want.Booleans = map[string]bool{"theirs": true}
	if _, err := h.apply(h.record(), want); err == nil || !strings.Contains(err.Error(), "cannot read the store's booleans") || len(h.calls) > 0 {
		t.Errorf("%v, ran %v", err, h.calls)
	}
}

// TestUndeclaredBooleanGoes takes out of booleans.local what was declared before, and nothing else.
func TestUndeclaredBooleanGoes(t *testing.T) {
	h := newHost(t)
	h.write(active("mcs")+"/booleans.local", "# a comment\nmine=1\nours=1\n")
	rec := h.record()
	rec.Policy.Booleans = []string{"ours"}
	if _, err := h.apply(rec, site1); err != nil {
		t.Fatal(err)
	}
	if got := h.read(active("mcs") + "/booleans.local"); got != "# a comment\nmine=1\n" {
		t.Errorf("%q", got)
	}
}

// TestDeclarationGoes leaves what the operator had set before it was declared, and nothing of what was declared alone.
func TestDeclarationGoes(t *testing.T) {
	h := newHost(t)
	rec := h.record()
	const booleans = "both=0\nmine=1\n"
	h.write(active("mcs")+"/"+booleansFile, booleans)
	h.write(active("mcs")+"/"+dontauditFlag, "")
	with := site1
	with.Booleans, with.StripDontaudit = map[string]bool{"both": true, "ours": true}, true
	more := with
	more.Modules = nil
	for _, want := range []Declared{with, more, with} { // it is remembered through several builds
		if _, err := h.apply(rec, want); err != nil || h.read(active("mcs")+"/"+booleansFile) != "both=1\nmine=1\nours=1\n" {
			t.Fatalf("%v: %q", err, h.read(active("mcs")+"/"+booleansFile))
		}
	}
	if _, err := h.apply(rec, site1); err != nil || h.read(active("mcs")+"/"+booleansFile) != booleans || !h.root.Exists(active("mcs")+"/"+dontauditFlag) {
		t.Errorf("%v: %q, without dontaudit rules: %t", err, h.read(active("mcs")+"/"+booleansFile), h.root.Exists(active("mcs")+"/"+dontauditFlag))
	}
	if p := rec.Policy; p.StripDontaudit || p.DontauditBefore || len(p.Booleans)+len(p.BooleansBefore) > 0 {
		t.Errorf("%+v", p)
	}
	h.remove(active("mcs") + "/" + dontauditFlag)
	for _, want := range []Declared{with, site1} {
		if _, err := h.apply(rec, want); err != nil {
			t.Fatal(err)
		}
	}
	if h.root.Exists(active("mcs") + "/" + dontauditFlag) {
		t.Error("the dontaudit rules are not back, and nobody but the declaration took them away")
	}
}

// TestSemoduleArguments is what semodule is asked for in each case.
func TestSemoduleArguments(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(h *fakeHost, rec *Record, want *Declared)
		want   string // in the arguments of the last call
		not    string
	}{
		{"a declared module that somebody switched off", func(h *fakeHost, _ *Record, _ *Declared) {
			h.write(active("mcs")+"/modules/disabled/site", "")
		}, "--enable site", ""},
		{"one that nobody did", func(*fakeHost, *Record, *Declared) {}, "--install", "--enable"},
		{"one that is not declared any more", func(h *fakeHost, rec *Record, _ *Declared) {
			h.module(active("mcs"), "500/old", "(type old_t)")
			rec.Policy.Vendor = rec.Vendor
			rec.Policy.Modules = map[string]string{"old": digestOf([]byte("(type old_t)"))}
		}, "--priority 500 --remove old", ""},
		{"dontaudit rules by hand", func(h *fakeHost, _ *Record, _ *Declared) { h.write(active("mcs")+"/"+dontauditFlag, "") }, "--disable_dontaudit", ""},
		{"dontaudit rules declared", func(_ *fakeHost, _ *Record, want *Declared) { want.StripDontaudit = true }, "--disable_dontaudit", ""},
		{"dontaudit rules not declared any more", func(h *fakeHost, rec *Record, _ *Declared) {
			h.write(active("mcs")+"/"+dontauditFlag, "")
			rec.Policy.StripDontaudit = true
		}, "--install", "--disable_dontaudit"},
		{"nothing but a build", func(_ *fakeHost, _ *Record, want *Declared) { want.Modules = nil }, "--build", "--priority"},
		{"a module in quarantine", func(h *fakeHost, _ *Record, _ *Declared) {
			h.write("/var/lib/selinux-provision/quarantine/300/out/cil", "(type out_t)")
		}, "/300/out.cil", ""},
	} {
		h := newHost(t)
		rec, want := h.record(), site1
		c.before(h, rec, &want)
		if _, err := h.apply(rec, want); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		argv := strings.Join(h.calls[len(h.calls)-1], " ")
		if !strings.Contains(argv, c.want) || c.not != "" && strings.Contains(argv, c.not) {
			t.Errorf("%s: %s", c.name, argv)
		}
	}
}

// TestStoreOfSemanageConf is refused by name if it is not the one that is looked at. What libsemanage takes for it was asked of semodule 3.4.
func TestStoreOfSemanageConf(t *testing.T) {
	for conf, other := range map[string]string{
		"": "", "store-root=/var/lib/selinux/\n": "", "# store-root=/srv/st\n": "", "store-root=/srv/st\nstore-root = /var/lib/selinux\n": "",
		"store-root=/srv/st\n": "/srv/st", " store-root = \"/srv/st\"\n": "/srv/st", "store-root=/srv/st x": "/srv/st x", "store-root=/var/lib/selinux\nstore-root=/srv/st": "/srv/st",
	} {
		h := newHost(t)
		h.write(EtcDir+"/semanage.conf", "expand-check=1\n"+conf)
		rec := h.record()
		rec.Policy.Vendor = rec.Vendor
		_, err := h.apply(rec, site1)
		if refused := err != nil && strings.Contains(err.Error(), "semanage.conf has store-root="+other+","); refused != (other != "") || refused && len(h.calls) > 0 {
			t.Errorf("%q: %v, ran %v", conf, err, h.calls)
		}
	}
}

// TestSemanageConfThatCannotBeRead is named: semodule itself says no more than that it has no handle, and no part of the policy is to blame.
func TestSemanageConfThatCannotBeRead(t *testing.T) {
	h := newHost(t)
	h.before = func(int) error {
		return &command.ExitError{Tool: "semodule", Code: 1, Output: command.Output{Stderr: "semodule:  Could not create semanage handle\n"}}
	}
	rec := h.record()
	rec.Policy.Vendor = rec.Vendor
	if _, err := h.apply(rec, site1); err == nil || !strings.Contains(err.Error(), "/etc/selinux/semanage.conf") || len(h.calls) != 1 {
		t.Errorf("%v, ran %v", err, h.calls)
	}
}

// TestSomebodyElsesSemodule waits for the store's lock, and not for ever. No part of the policy is to blame for it.
func TestSomebodyElsesSemodule(t *testing.T) {
	held := &command.ExitError{Tool: "semodule", Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_get_lock: Could not get direct transaction lock at /x."}}
	h := newHost(t)
	h.before = func(call int) error {
		if call == 1 {
			return held
		}
		return nil
	}
	rec := h.record()
	if _, err := h.apply(rec, site1); err != nil || len(h.calls) != 2 || h.keys() != "100/base 100/legacy 500/site" || len(rec.Policy.Quarantine) > 0 {
		t.Errorf("%v after %d calls: %s, left out: %v", err, len(h.calls), h.keys(), rec.Policy.Quarantine)
	}
	h = newHost(t)
	h.before = func(call int) error {
		if call > 2 {
			return errors.New("nobody waits as long as this")
		}
		return held
	}
	c := h.compiler()
	c.LockWait = time.Nanosecond
	rec = h.record()
	rec.Policy.Vendor = rec.Vendor
	if _, err := c.rebuild(t.Context(), "mcs", rec, site1); err == nil || !strings.Contains(err.Error(), "another semodule or setsebool has been holding the policy store") || len(h.calls) > 1 {
		t.Errorf("%v after %d calls", err, len(h.calls))
	}
}

// TestOperatorsModuleGoesAndComesBack puts it into quarantine and takes it back, itself, when the policy builds with it again.
func TestOperatorsModuleGoesAndComesBack(t *testing.T) {
	h := newHost(t)
	h.module(active("mcs"), "400/hand", "(type hand_t)")
	rec := h.record()
	h.refuse = refusing("400/hand")
	if _, err := h.apply(rec, site1); err != nil || h.keys() != "100/base 100/legacy 500/site" {
		t.Fatalf("%v: %s", err, h.keys())
	}
	if got := h.read("/var/lib/selinux-provision/quarantine/400/hand/cil"); got != "(type hand_t)" {
		t.Errorf("in quarantine: %q", got)
	}
	if q := rec.Policy.Quarantine; len(q) != 1 || q[0].Name != "hand" || q[0].Priority != 400 {
		t.Errorf("%+v", q)
	}
	h.refuse = nil
	if _, err := h.apply(rec, Declared{}); err != nil || h.keys() != "100/base 100/legacy 400/hand" || h.read("/var/lib/selinux-provision/quarantine/400/hand/cil") != "" {
		t.Errorf("%v: %s", err, h.keys())
	}
	if len(rec.Policy.Quarantine) > 0 {
		t.Errorf("%+v", rec.Policy.Quarantine)
	}
}

// TestOperatorsReplacementOfAVendorsModule finds it among other modules by hand without a word from the tools, and puts the vendor's back.
func TestOperatorsReplacementOfAVendorsModule(t *testing.T) {
	for _, bad := range []string{"100/legacy", "200/a", "300/b", "400/c"} {
		h := newHost(t)
		rec := h.record()
		for _, key := range []string{"100/legacy", "200/a", "300/b", "400/c"} {
			h.module(active("mcs"), key, "(type mine_t) ; "+key)
		}
		h.refuse = func(modules map[string]string) string {
			if modules[bad] == "(type mine_t) ; "+bad {
				return "Problems without a name"
			}
			return ""
		}
		if _, err := h.apply(rec, site1); err != nil {
			t.Fatalf("%s: %v", bad, err)
		}
		want := map[string]string{"100/base": "(type base_t)", "100/legacy": "(type legacy_t)", "500/site": "(type site_t)"}
		for _, key := range []string{"100/legacy", "200/a", "300/b", "400/c"} {
			if key != bad {
				want[key] = "(type mine_t) ; " + key
			}
		}
		if got := h.modules(); !maps.Equal(got, want) {
			t.Errorf("%s: %v", bad, got)
		}
		if q := rec.Policy.Quarantine; len(q) != 1 || fmt.Sprintf("%d/%s", q[0].Priority, q[0].Name) != bad {
			t.Errorf("%s: %+v", bad, q)
		}
		if h.read("/var/lib/selinux-provision/quarantine/"+bad+"/cil") != "(type mine_t) ; "+bad {
			t.Errorf("%s is not in quarantine", bad)
		}
		for _, argv := range h.calls { // no policy is ever built without the vendor's module
			if said := strings.Join(argv, " "); strings.Contains(said, "--remove legacy") {
				t.Errorf("%s: %s", bad, said)
			}
		}
		t.Logf("%s: %d runs", bad, len(h.calls))
	}
}

// TestUnknownModuleAtOurPriority is removed, since it is not declared, and a copy is kept.
func TestUnknownModuleAtOurPriority(t *testing.T) {
	h := newHost(t)
	rec := h.record()
	if _, err := h.apply(rec, site1); err != nil {
		t.Fatal(err)
	}
	h.module(active("mcs"), "500/theirs", "(type theirs_t)")
	h.module(active("mcs"), "500/site", "(type changed_t)")
	if _, err := h.apply(rec, Declared{}); err != nil || h.keys() != "100/base 100/legacy" {
		t.Fatalf("%v: %s", err, h.keys())
	}
	for name, text := range map[string]string{"theirs": "(type theirs_t)", "site": "(type changed_t)"} {
		if got := h.read("/var/lib/selinux-provision/kept/modules_500_" + name + "/cil"); got != text {
			t.Errorf("the copy of %s is %q", name, got)
		}
	}
	if _, err := h.apply(rec, site1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.apply(rec, Declared{}); err != nil || h.root.Exists("/var/lib/selinux-provision/kept/modules_500_site.2") {
		t.Errorf("%v: a copy of what was declared is kept", err)
	}
}

// TestFallBack puts the vendor's policy in force, and takes away what could be loaded in its place.
func TestFallBack(t *testing.T) {
	h := newHost(t)
	h.kernel = &fakeKernel{booleans: map[string]bool{}}
	for _, name := range []string{"policy.34", "policy.33"} {
		h.write(EtcDir+"/mcs/policy/"+name, "another image's")
	}
	rec := h.record()
	if err := h.compiler().FallBack(t.Context(), "mcs", rec); err == nil || !strings.Contains(err.Error(), "the vendor's own policy is in force") {
		t.Errorf("%v", err)
	}
	if h.read(EtcDir+"/mcs/policy/policy.33") != "the vendor's" || h.read(EtcDir+"/mcs/policy/policy.34") != "" || h.read(EtcDir+"/mcs/contexts/files/file_contexts") != "/etc u:r:etc_t:s0\n" {
		t.Error("not the vendor's files")
	}
	if len(h.calls) != 1 || h.calls[0][0] != "load_policy" {
		t.Errorf("ran %v", h.calls)
	}
	if err := h.compiler().FallBack(t.Context(), "mcs", rec); err == nil || len(h.calls) != 1 {
		t.Errorf("again: %v, ran %v", err, h.calls)
	}
	rec.Policy.Vendor = rec.Vendor
	if err := h.compiler().FallBack(t.Context(), "mcs", rec); err != nil {
		t.Errorf("with this vendor's policy: %v", err)
	}
}

func TestEnough(t *testing.T) {
	size := hostfs.Tree{Entries: 100, Bytes: 1 << 20}
	for _, c := range []struct {
		free, inodes uint64
		want         bool
	}{{1 << 30, 200, true}, {1 << 30, 199, false}, {1 << 20, 1 << 20, false}, {100*4096 + 1<<20 + spare/2, 200, true}, {100*4096 + 1<<20 + spare/2 - 1, 200, false}} {
		if err := enough("/x", size, c.free, c.inodes); (err == nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// loading runs the real tools and has the kernel load what they built.
type loading struct {
	command.Tools
	kernel *fakeKernel
}

// Run counts the loads.
func (l loading) Run(ctx context.Context, argv ...string) (command.Output, error) {
	out, err := l.Tools.Run(ctx, argv...)
	if err == nil {
		l.kernel.loads++
	}
	return out, err
}

// TestBooleansAfterALoad gives the kernel the values that it keeps over a load: those that the store sets, for whomever, and those that
// were declared before and are not any more.
func TestBooleansAfterALoad(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	vendor, err := FindVendor(root)
	if err != nil {
		t.Fatal(err)
	}
	rec := &Record{}
	shelf := Shelf{Root: root, Quarantine: "/var/lib/q", Kept: "/var/lib/k", Copies: "/var/lib/c"}
	steps, err := (&Rebaser{Root: root, Shelf: shelf}).Plan(vendor, rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := steps.Do(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	kernel := &fakeKernel{booleans: map[string]bool{"container_use_nfs": false, "container_connect_any": true}}
	c := &Compiler{Root: root, Tools: loading{kernel: kernel}, Kernel: kernel, Scratch: "/var/lib/scratch", Shelf: shelf}
	for _, step := range []struct {
		declared map[string]bool
		set      map[string]bool // what the kernel is told
	}{
		{map[string]bool{"container_use_nfs": true}, map[string]bool{"container_use_nfs": true}},
		{map[string]bool{"container_use_nfs": true, "container_connect_any": false}, map[string]bool{"container_connect_any": false}},
		{nil, map[string]bool{"container_use_nfs": false, "container_connect_any": true}},
	} {
		kernel.set = nil
		steps, err := c.Plan("mcs", rec, Declared{Digest: fmt.Sprint(step.declared), Booleans: step.declared})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(kernel.set, step.set) {
			t.Errorf("declared %v: the kernel was told %v, want %v", step.declared, kernel.set, step.set)
		}
	}
	// Somebody uses setsebool without -P: no build, one switch, and back if a later step fails.
	kernel.booleans["container_use_nfs"] = true
	steps, err = c.Plan("mcs", rec, Declared{Digest: fmt.Sprint(map[string]bool(nil)), Booleans: map[string]bool{"container_use_nfs": false}})
	if err != nil || len(steps) != 1 || steps[0].Action != "switch" {
		t.Fatalf("%+v, %v", steps, err)
	}
	for _, c := range []struct {
		run  func() error
		want bool
	}{
		{func() error { _, err := steps[0].Do(t.Context()); return err }, false},
		{func() error { return steps[0].Undo(t.Context()) }, true},
	} {
		if err := c.run(); err != nil || kernel.booleans["container_use_nfs"] != c.want {
			t.Errorf("%v, %v: want %t", kernel.booleans, err, c.want)
		}
	}
}

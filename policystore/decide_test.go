package policystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

func TestOperators(t *testing.T) {
	vendor := &Vendor{Modules: map[string]string{"100/base": "now", "100/new": "x"}}
	known := &Record{Vendor: "v", VendorModules: map[string]string{"100/base": "then", "400/container": "then"}}
	for _, c := range []struct {
		key, digest string
		rec         *Record
		want        bool
	}{
		{"100/base", "then", known, false},
		{"400/container", "then", known, false},
		{"400/container", "by hand", known, true}, // the vendor's own name and priority
		{"400/hand", "x", known, true},
		{"500/site", "x", known, false}, // our priority
		{"100/new", "x", known, true},   // the next image's vendor has it, and it was there before
		{"100/base", "then", &Record{}, false},
		{"400/hand", "x", &Record{}, true},
		{"100/old", "x", &Record{Vendor: "v"}, true}, // of another image or by hand: nobody knows
	} {
		if got := operators(c.key, c.digest, vendor, c.rec); got != c.want {
			t.Errorf("%s %s: %t", c.key, c.digest, got)
		}
	}
}

func TestCopyReason(t *testing.T) {
	vendor := &Vendor{Type: "mcs", Fingerprint: "f"}
	modules := map[string]string{"100/base": "x"}
	good := Record{Type: "mcs", Vendor: "f", VendorModules: modules}
	for _, c := range []struct {
		store   Store
		rec     Record
		unclean bool
		want    string
	}{
		{Store{Kind: Writable}, good, false, ""},
		{Store{Kind: Writable}, good, true, "an earlier run was cut off"},
		{Store{Kind: Absent}, good, false, "it is absent"},
		{Store{Kind: ReadOnly, Target: "../x"}, good, false, "it is a link to the vendor's read-only store (../x)"},
		{Store{Kind: Broken}, good, true, "it is a directory without an active policy"},
		{Store{Kind: Writable}, Record{}, false, "a copy of unknown age"},
		{Store{Kind: Writable}, Record{Type: "mcs", Vendor: "f"}, false, "a copy of unknown age"},
		{Store{Kind: Writable}, Record{Type: "mcs", Vendor: "g", VendorModules: modules}, false, "another vendor policy"},
		{Store{Kind: Writable}, Record{Type: "mls", Vendor: "f", VendorModules: modules}, false, "another vendor policy"},
	} {
		if got := copyReason(c.store, vendor, &c.rec, c.unclean); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v %+v %t: %q, want %q", c.store, c.rec, c.unclean, got, c.want)
		}
	}
}

// TestRebuildReason changes one thing at a time on a host that is as declared.
func TestRebuildReason(t *testing.T) {
	commits := func(h *fakeHost) { h.write(active("mcs")+"/commit_num", "somebody's") }
	for name, c := range map[string]struct {
		change func(h *fakeHost, rec *Record, want *Declared)
		reason string
	}{
		"nothing":                               {func(*fakeHost, *Record, *Declared) {}, ""},
		"never built":                           {func(_ *fakeHost, rec *Record, _ *Declared) { rec.Policy.Vendor = "" }, "has not been built from the declaration"},
		"another image":                         {func(_ *fakeHost, rec *Record, _ *Declared) { rec.Policy.Vendor = "x" }, "another OS image"},
		"another wish":                          {func(_ *fakeHost, _ *Record, want *Declared) { want.Digest = "x" }, "the declared state changed"},
		"another policy":                        {func(h *fakeHost, _ *Record, _ *Declared) { h.write(EtcDir+"/mcs/policy/policy.33", "x") }, "policy.33 is not what the store built"},
		"no policy":                             {func(h *fakeHost, _ *Record, _ *Declared) { h.remove(EtcDir + "/mcs/policy/policy.33") }, "policy.33 is not what the store built"},
		"another context":                       {func(h *fakeHost, _ *Record, _ *Declared) { h.write(EtcDir+"/mcs/contexts/files/file_contexts", "x") }, "file_contexts is not what the store built"},
		"another user":                          {func(h *fakeHost, _ *Record, _ *Declared) { h.write(EtcDir+"/mcs/seusers", "x") }, "seusers is not what the store built"},
		"a newer policy":                        {func(h *fakeHost, _ *Record, _ *Declared) { h.write(EtcDir+"/mcs/policy/policy.34", "x") }, "policy.34 is stale"},
		"somebody's semodule, and all is there": {func(h *fakeHost, _ *Record, _ *Declared) { commits(h) }, ""},
		"a module is changed": {func(h *fakeHost, _ *Record, _ *Declared) {
			commits(h)
			h.module(active("mcs"), "500/site", "x")
		}, "changed or removed module site"},
		"a module is gone": {func(h *fakeHost, _ *Record, _ *Declared) {
			commits(h)
			h.remove(active("mcs") + "/modules/500/site")
		}, "changed or removed module site"},
		"a module is off": {func(h *fakeHost, _ *Record, _ *Declared) {
			commits(h)
			h.write(active("mcs")+"/modules/disabled/site", "")
		}, "disabled module site"},
		"a boolean is changed": {func(h *fakeHost, _ *Record, want *Declared) {
			commits(h)
			want.Booleans = map[string]bool{"b": true}
			h.write(active("mcs")+"/booleans.local", "b=0\n")
		}, "changed boolean b"},
		"a boolean that the policy has not": {func(h *fakeHost, rec *Record, want *Declared) {
			commits(h)
			want.Booleans = map[string]bool{"b": true}
			rec.Policy.Quarantine = []Quarantined{{Kind: "boolean", Name: "b"}}
		}, ""},
		"dontaudit rules are back": {func(h *fakeHost, _ *Record, want *Declared) {
			commits(h)
			want.StripDontaudit = true
		}, "with its dontaudit rules"},
	} {
		h := newHost(t)
		rec := h.record()
		if _, err := h.apply(rec, site1); err != nil {
			t.Fatal(err)
		}
		want := Declared{Digest: rec.Policy.Declared}
		c.change(h, rec, &want)
		if got, err := h.compiler().rebuildReason("mcs", rec, want); err != nil || c.reason == "" && got != "" || !strings.Contains(got, c.reason) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.reason)
		}
	}
}

func (h *fakeHost) remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

func TestOtherPolicies(t *testing.T) {
	h := newHost(t)
	dir := EtcDir + "/mcs/policy/"
	for _, name := range []string{"policy.31", "policy.33", "policy.34", "policy.33.bak", "policy.x", "backup.30"} {
		h.write(dir+name, "x")
	}
	h.write(dir+"policy.30/x", "a directory")
	h.write(dir+"policy.31", "the image ships it")
	h.write("/usr/share/flatcar/etc/selinux/mcs/policy/policy.31", "the image ships it")
	h.write("/usr/share/flatcar/etc/selinux/mcs/policy/policy.35", "the image ships this, and an older build hides it")
	h.write(dir+"policy.35", "x")
	if got := strings.Join(h.compiler().otherPolicies("mcs", "policy.33"), " "); got != dir+"policy.35 "+dir+"policy.34" {
		t.Errorf("%s", got)
	}
}

// TestEtcFiles plans for one file of /etc/selinux/TYPE in each state.
func TestEtcFiles(t *testing.T) {
	const name = "/mcs/contexts/lxc_contexts"
	vendors, others, own := "file = \"u:r:t:s0\"\n", "another image's", "the operator's"
	for _, c := range []struct {
		state, have string
		stale       bool // the record is another image's
		recorded    bool // and knows its files
		want        string
	}{
		{"as the vendor's", vendors, true, true, ""},
		{"missing", "", false, true, "write"},
		{"the operator's", own, true, true, ""},
		{"the operator's, same image", own, false, true, ""},
		{"the old image's", others, true, true, "write"},
		{"of unknown age", own, true, false, "keep write"},
		{"of unknown age and right", vendors, true, false, ""},
	} {
		h := newHost(t)
		rec := h.record()
		if h.remove(EtcDir + name); c.have != "" {
			h.write(EtcDir+name, c.have)
		}
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		rec.VendorEtc = map[string]string{"contexts/lxc_contexts": digestOf([]byte(others))}
		if !c.recorded {
			rec.VendorEtc = nil
		}
		if c.stale {
			rec.Vendor = "another"
		}
		steps, err := (&Rebaser{Root: h.root, Shelf: h.shelf()}).planEtcFiles(vendor, rec, EtcDir+"/mcs")
		if err != nil {
			t.Fatal(err)
		}
		var did []string
		for _, s := range steps {
			if s.Target == EtcDir+name {
				did = append(did, s.Action)
			}
		}
		if got := strings.Join(did, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.state, got, c.want)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if c.want == "keep write" && h.read("/var/lib/selinux-provision/kept/contexts_lxc_contexts") != own {
			t.Errorf("%s: no copy is kept", c.state)
		}
	}
}

// TestKeptCopiesAreNotOverwritten keeps two versions of a file, and one of them once.
func TestKeptCopiesAreNotOverwritten(t *testing.T) {
	h := newHost(t)
	var places []string
	for _, content := range []string{"first", "second", "first", "second", "third"} {
		h.write("/etc/x", content)
		to, err := h.shelf().keep("/etc/x", "etc/x")
		if err != nil || h.read(to) != content {
			t.Fatalf("%s: %q, %v", to, h.read(to), err)
		}
		places = append(places, filepath.Base(to))
	}
	if got := strings.Join(places, " "); got != "etc_x etc_x.2 etc_x etc_x.2 etc_x.3" {
		t.Errorf("%s", got)
	}
}

// TestShelf moves a module in and out of quarantine in each state of both places.
func TestShelf(t *testing.T) {
	const from, in, kept = "/m/hand", "/var/lib/selinux-provision/quarantine/400/hand", "/var/lib/selinux-provision/kept/quarantine_400_hand"
	for _, c := range []struct {
		name, store, quarantine string // contents, "" is nothing
		release                 bool
		want                    string // store, quarantine, kept
	}{
		{"taken", "a", "", false, "a|a|"},
		{"taken again", "a", "a", false, "a|a|"},
		{"another was taken before", "b", "a", false, "b|b|a"},
		{"back", "a", "a", true, "a||"},
		{"made again otherwise", "b", "a", true, "b||a"},
	} {
		h := newHost(t)
		put := func(dir, content string) {
			if content != "" {
				h.write(dir+"/cil", content)
				h.write(dir+"/lang_ext", "cil")
			}
		}
		put(from, c.store)
		put(in, c.quarantine)
		h.write(filepath.Dir(in)+"/"+hostfs.TempPrefix+"hand/cil", "half")
		var err error
		if c.release {
			err = h.shelf().release("400/hand", from)
		} else {
			err = h.shelf().take(from, "400/hand")
		}
		if got := h.read(from+"/cil") + "|" + h.read(in+"/cil") + "|" + h.read(kept+"/cil"); err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
		if modules, _ := h.shelf().list(); slices.Contains(modules, "400/"+hostfs.TempPrefix+"hand") {
			t.Errorf("%s: what was cut off is taken for a module", c.name)
		}
	}
}

// TestModuleThatCounts reads lang_ext where a module in CIL took the place of a package.
func TestModuleThatCounts(t *testing.T) {
	h := newHost(t)
	for key, files := range map[string]map[string]string{
		"400/package": {"cil": "made", "hll": "packed", "lang_ext": "pp"},
		"400/over":    {"cil": "by hand", "hll": "the vendor's", "lang_ext": "cil"},
		"400/plain":   {"cil": "text", "lang_ext": "cil"},
		"400/old":     {"cil": "made", "hll": "packed"},
	} {
		for name, content := range files {
			h.write(active("mcs")+"/modules/"+key+"/"+name, content)
		}
	}
	have, err := modulesIn(h.root, typeDir("mcs"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"400/package": "packed", "400/over": "by hand", "400/plain": "text", "400/old": "packed"} {
		if have[key] != digestOf([]byte(want)) {
			t.Errorf("%s: not the hash of %s", key, want)
		}
		file, _, err := moduleFile(h.root, active("mcs")+"/modules/"+key)
		if err != nil || h.read(file) != want {
			t.Errorf("%s: %s, %v", key, file, err)
		}
	}
}

// TestCarryFiles takes along what semanage, setsebool -P and semodule -d keep beside the modules.
func TestCarryFiles(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"booleans.local", "file_contexts.local", "seusers.local", "preserve_tunables", dontauditFlag, "policy.kern", "modules/disabled/x"} {
		h.write("/old/"+name, name)
	}
	for _, stripped := range []bool{true, false} {
		to := map[bool]string{true: "/a", false: "/b"}[stripped]
		h.write(to+"/modules/x", "")
		places := []string{"/old", "/nowhere"}
		if gone, err := carryFiles(h.root, places, to, &Record{Policy: PolicyRecord{StripDontaudit: stripped}}); err != nil || gone != nil {
			t.Fatal(gone, err)
		}
		for name, want := range map[string]bool{"booleans.local": true, "file_contexts.local": true, "seusers.local": true, "preserve_tunables": true,
			dontauditFlag: !stripped, "policy.kern": false, "modules/disabled/x": true} {
			if got := h.read(to+"/"+name) != ""; got != want {
				t.Errorf("stripped by us %t: %s carried over: %t", stripped, name, got)
			}
		}
	}
}

// TestCarryFilesThatLostTheirContent takes the next place that has it, and names what none has.
func TestCarryFilesThatLostTheirContent(t *testing.T) {
	h := newHost(t)
	for name, content := range map[string]string{
		"/old/booleans.local": "", "/old/seusers.local": "", "/old/users.local": "\x00\x00", "/old/ports.local": "old", "/old/interfaces.local": "",
		"/copy/seusers.local": "copied", "/copy/users.local": "copied", "/copy/ports.local": "copied", "/copy/nodes.local": "gone on purpose",
	} {
		h.write(name, content)
	}
	h.write("/new/modules/x", "")
	gone, err := carryFiles(h.root, []string{"/old", "/previous", "/copy"}, "/new", &Record{})
	if err != nil || !slices.Equal(gone, []string{"interfaces.local"}) {
		t.Errorf("gone: %v, %v", gone, err)
	}
	for name, want := range map[string]string{"seusers": "copied", "users": "copied", "ports": "old"} {
		if got := h.read("/new/" + name + ".local"); got != want {
			t.Errorf("%s.local: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"booleans", "interfaces", "nodes"} {
		if h.root.Exists("/new/" + name + ".local") {
			t.Errorf("%s.local is there", name)
		}
	}
}

// TestCarryOverOfWhatAVendorHas takes a module that lost its content from where it is the operator's for sure: what libsemanage had before may be
// the vendor's of that name, this one's or an older one's.
func TestCarryOverOfWhatAVendorHas(t *testing.T) {
	for _, c := range []struct {
		was, is bool
		places  string // that have it with its content
		want    string // what is carried over
		lost    bool
	}{
		{false, false, "active previous copies", "active", false},
		{false, false, "previous copies", "previous", false},
		{false, false, "copies", "copies", false},
		{false, false, "", "", true},
		{true, false, "previous copies", "copies", false},
		{false, true, "previous copies", "copies", false},
		{true, true, "previous copies", "copies", false},
		{true, false, "previous", "", false},
		{false, true, "previous", "", false},
	} {
		h := newHost(t)
		rec, vendor := h.record(), &Vendor{Type: "mcs", Modules: map[string]string{}}
		rec.VendorModules = map[string]string{"100/base": "x"}
		for name, has := range map[string]bool{"was": c.was, "is": c.is} {
			if to := map[string]map[string]string{"was": rec.VendorModules, "is": vendor.Modules}[name]; has {
				to["400/mine"] = "the vendor's"
			}
		}
		h.module(active("mcs"), "400/mine", "")
		dirs := map[string]string{"active": active("mcs"), "previous": typeDir("mcs") + "/previous", "copies": h.shelf().Copies}
		for _, place := range strings.Fields(c.places) {
			h.module(dirs[place], "400/mine", place)
		}
		carried, lost, err := (&Rebaser{Root: h.root, Shelf: h.shelf()}).carryOver(vendor, rec, "/new")
		if err != nil || slices.Contains(carried, "400/mine") != (c.want != "") || slices.Contains(lost, "400/mine") != c.lost || h.read("/new/active/modules/400/mine/cil") != c.want {
			t.Errorf("%+v: carried over %v (%q), lost %v, %v", c, carried, h.read("/new/active/modules/400/mine/cil"), lost, err)
		}
	}
}

// TestSettle flushes both places before it is recorded that what others wrote is good.
func TestSettle(t *testing.T) {
	for _, gone := range []string{"", StoreDir, EtcDir} {
		h := newHost(t)
		if gone != "" {
			if err := os.Rename(h.dir+gone, h.dir+gone+".away"); err != nil {
				t.Fatal(err)
			}
		}
		err := h.compiler().settle(t.Context(), "mcs", h.record())
		if flushed := err == nil || !strings.Contains(err.Error(), "cannot flush the policy store to the disk"); flushed != (gone == "") {
			t.Errorf("without %q: %v", gone, err)
		}
	}
}

// TestLocalFiles names what semanage wrote, without the booleans, of which single lines are left out.
func TestLocalFiles(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"booleans.local", "file_contexts.local", "seusers.local", "file_contexts", "local"} {
		h.write(active("mcs")+"/"+name, "x")
	}
	h.write(active("mcs")+"/dir.local/x", "x")
	if got, err := localFiles(h.root, "mcs"); err != nil || !slices.Equal(got, []string{"file_contexts.local", "seusers.local"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestReleaseFromQuarantine drops a copy only when the store has the operator's module, with its content, and the build has it, too.
func TestReleaseFromQuarantine(t *testing.T) {
	for _, c := range []struct {
		name, inStore string
		out           bool
		stays         bool
	}{{"built", "(type mine_t)", false, false}, {"only its name", "", false, true}, {"left out, and the vendor's has its place", "(type legacy_t)", true, true}} {
		h := newHost(t)
		h.write(h.shelf().Quarantine+"/400/mine/cil", "(type mine_t)")
		h.module(active("mcs"), "400/mine", c.inStore)
		found := &search{parts: []part{{kind: policyModule, origin: onShelf, name: "mine", priority: 400}}}
		if c.out {
			found.out = []leftOut{{part: 0}}
		}
		have := map[string]string{"400/mine": "x"}
		if err := h.compiler().releaseFrom("mcs", found, have); err != nil || (h.read(h.shelf().Quarantine+"/400/mine/cil") != "") != c.stays {
			t.Errorf("%s: %v, in quarantine: %q", c.name, err, h.read(h.shelf().Quarantine+"/400/mine/cil"))
		}
	}
}

// TestRoomIsAskedInBothPlaces looks at the disk of the store and at that of /etc.
func TestRoomIsAskedInBothPlaces(t *testing.T) {
	for _, gone := range []string{"", StoreDir, EtcDir} {
		h := newHost(t)
		if gone != "" {
			if err := os.Rename(h.dir+gone, h.dir+gone+".away"); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.compiler().RoomToBuild("mcs"); (err == nil) != (gone == "") {
			t.Errorf("without %q: %v", gone, err)
		}
	}
}

// TestPathThatIsNotRelabelled stays in the record, with the reason, for the next run; the others are done.
func TestPathThatIsNotRelabelled(t *testing.T) {
	h := newHost(t)
	h.kernel = &fakeKernel{}
	rec := h.record()
	rec.Policy.File, rec.Policy.Relabel = "policy.33", []Relabel{{Path: "/srv/a"}, {Path: "/srv/b"}, {Path: "/srv/not/there"}}
	h.remove(EtcDir + "/mcs/contexts/files/file_contexts")
	steps := h.compiler().relabel(rec, []Relabel{{Path: "/srv/b"}, {Path: "/srv/other"}})
	if _, err := steps.Do(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, r := range rec.Policy.Relabel {
		left = append(left, fmt.Sprintf("%s %t", r.Path, r.Reason != ""))
	}
	if want := []string{"/srv/a false", "/srv/not/there false", "/srv/b true"}; !slices.Equal(left, want) {
		t.Errorf("left: %v, want %v", left, want)
	}
	h.write(EtcDir+"/mcs/contexts/files/file_contexts", "")
	if _, err := h.compiler().relabel(rec, []Relabel{{Path: "/srv/not/there"}}).Do(t.Context(), nil, nil); err != nil || len(rec.Policy.Relabel) != 2 {
		t.Errorf("%v, left: %v", err, rec.Policy.Relabel)
	}
}

// TestLost tells content from what a power cut leaves of it.
func TestLost(t *testing.T) {
	packed := []byte("BZh91AY&SY\xb4\x96GC\x00\x00")
	for content, want := range map[string]bool{
		"": true, "\x00": true, "\x00\x00\x00cil": true, string(packed): true, "cil": false, "(type a_t)": false, "\x8f\xff|\xf9\x00": false,
	} {
		if got := lost([]byte(content)); got != want {
			t.Errorf("%q: %t", content, got)
		}
	}
}

// TestRecovery takes what a killed semodule left: the policy before, or else what it was making.
func TestRecovery(t *testing.T) {
	for from, want := range map[string]string{"previous": "recover", "tmp": "recover copy", "nothing": "copy"} {
		h := newHost(t)
		h.module(active("mcs"), "400/hand", "(type hand_t)")
		rec := h.record()
		if err := os.Rename(filepath.Join(h.dir, active("mcs")), filepath.Join(h.dir, typeDir("mcs"), from)); err != nil {
			t.Fatal(err)
		}
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := (&Rebaser{Root: h.root, Shelf: h.shelf()}).Plan(vendor, rec)
		if err != nil {
			t.Fatal(err)
		}
		var did []string
		for _, s := range steps.Visible() {
			did = append(did, s.Action)
		}
		if got := strings.Join(did, " "); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if there := h.modules()["400/hand"] != ""; there != (from != "nothing") {
			t.Errorf("%s: the operator's module is there: %t", from, there)
		}
	}
}

// TestEmptyModulesAreNamed is about an operator's module of which a power cut left the name alone.
func TestEmptyModulesAreNamed(t *testing.T) {
	h := newHost(t)
	for _, key := range []string{"400/gone", "400/copied"} {
		h.module(active("mcs"), key, "")
	}
	h.write("/var/lib/selinux-provision/quarantine/400/copied/cil", "(type copied_t)")
	rec := h.record()
	vendor, err := FindVendor(h.root)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := (&Rebaser{Root: h.root, Unclean: true, Shelf: h.shelf()}).Plan(vendor, rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := steps.Do(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if h.modules()["400/copied"] != "(type copied_t)" {
		t.Error("the copy was not used")
	}
	var named []string
	for _, q := range h.shelf().LeftOut("mcs", rec) {
		named = append(named, q.Name)
	}
	if got := strings.Join(named, " "); got != "gone" {
		t.Errorf("named: %q", got)
	}
	h.module(active("mcs"), "400/gone", "(type gone_t)")
	if all := h.shelf().LeftOut("mcs", rec); len(all) > 0 {
		t.Errorf("installed again: %v", all)
	}
}

// TestModulesThatLostFiles brings a module back whose directory has lost all of its files, or those without which nothing is built, and names it where
// there is no copy.
func TestModulesThatLostFiles(t *testing.T) {
	for _, c := range []struct {
		gone   string // of its files
		lang   string
		copied bool
		want   string // what is done
		names  string // in the reason, what is left out in the end
	}{
		{"cil lang_ext", "cil", true, "copy", ""},
		{"cil", "cil", true, "copy", ""},
		{"lang_ext", "cil", true, "copy", ""},
		{"cil lang_ext", "cil", false, "copy", "hand"},
		{"lang_ext", "cil", false, "copy", "hand"},
		{"cil", "pp", false, "", ""},
		{"hll", "pp", false, "", ""}, // it builds with what it made of it
		{"", "cil", false, "", ""},
	} {
		h := newHost(t)
		rec := h.record()
		files := map[string]string{"cil": "(type hand_t)", "lang_ext": c.lang}
		if c.lang == "pp" {
			files["hll"] = "a package"
		}
		for name, content := range files {
			h.write(active("mcs")+"/modules/400/hand/"+name, content)
			if c.copied {
				h.write(h.shelf().Copies+"/modules/400/hand/"+name, content)
			}
		}
		rec.Policy.Commit = commitNumber(h.root, active("mcs"))
		for name := range strings.FieldsSeq(c.gone) {
			h.remove(active("mcs") + "/modules/400/hand/" + name)
		}
		h.write(active("mcs")+"/modules/400/.hidden/x", "no module")
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := (&Rebaser{Root: h.root, Shelf: h.shelf()}).Plan(vendor, rec)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range steps.Visible() {
			got += s.Action
			if !strings.HasSuffix(s.Reason, ": modules/400/hand") {
				t.Errorf("without %q of %s: %s", c.gone, c.lang, s.Reason)
			}
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil || got != c.want {
			t.Errorf("without %q of %s: %q, want %q; %v", c.gone, c.lang, got, c.want, err)
		}
		var out []string
		for _, q := range h.shelf().LeftOut("mcs", rec) {
			out = append(out, q.Name)
		}
		if there := complete(h.root, active("mcs")+"/modules/400/hand"); strings.Join(out, " ") != c.names || there != (c.names == "") {
			t.Errorf("without %q of %s: left out %v, there %t", c.gone, c.lang, out, there)
		}
	}
}

// TestStraysInTheStore go, since nothing can be built beside them, and are kept. What they are to libsemanage was asked of semodule 3.4.
func TestStraysInTheStore(t *testing.T) {
	for below, stray := range map[string]bool{"400/hand.cil": true, "400/1hand/cil": true, "400/my hand/cil": true, "hand.cil": true, "hand/cil": true, "0/hand/cil": true,
		"1000/hand/cil": true, "0400/hand/cil": true, "400": true, "400/.hand.cil": false, ".hand/x": false, "disabled/hand": false, "400/my.hand/cil": false} {
		h := newHost(t)
		rec := h.record()
		h.write(active("mcs")+"/modules/"+below, "(type hand_t)")
		if strings.HasPrefix(below, "400/my.hand") {
			h.write(active("mcs")+"/modules/400/my.hand/lang_ext", "cil")
		}
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := (&Rebaser{Root: h.root, Shelf: h.shelf()}).Plan(vendor, rec)
		if err != nil || len(steps.Visible()) > 0 != stray {
			t.Errorf("%s: %v, %v", below, steps, err)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if h.root.Exists(active("mcs")+"/modules/"+below) == stray || h.root.Exists(h.shelf().Kept) != stray {
			t.Errorf("%s: a stray %t, and there %t", below, stray, h.root.Exists(active("mcs")+"/modules/"+below))
		}
	}
}

// TestRestoreFile brings a file of /etc back to the vendor's form from each other.
func TestRestoreFile(t *testing.T) {
	const name = "/etc/selinux/semanage.conf"
	for _, c := range []struct {
		state  string
		change func(h *fakeHost, file string) error
		want   string // the actions
	}{
		{"as it is", func(*fakeHost, string) error { return nil }, ""},
		{"other content", func(h *fakeHost, file string) error { return os.WriteFile(file, []byte("x"), 0o644) }, "write"},
		{"another mode", func(h *fakeHost, file string) error { return os.Chmod(file, 0o600) }, "write"},
		{"another owner", func(h *fakeHost, file string) error { return os.Chown(file, 1, 1) }, "write"},
		{"missing", func(h *fakeHost, file string) error { return os.Remove(file) }, "write"},
		{"a link", func(h *fakeHost, file string) error { return errors.Join(os.Remove(file), os.Symlink("x", file)) }, "write"},
	} {
		if c.state == "another owner" && os.Geteuid() != 0 {
			continue
		}
		h := newHost(t)
		h.write("/usr/share/flatcar/etc/selinux/semanage.conf", "expand-check=1\n")
		file := filepath.Join(h.dir, name)
		if err := c.change(h, file); err != nil {
			t.Fatal(err)
		}
		steps, err := RestoreFile(h.root, name, "a reason")
		if err != nil {
			t.Fatal(err)
		}
		var did []string
		for _, s := range steps {
			did = append(did, s.Action)
		}
		if got := strings.Join(did, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.state, got, c.want)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(file); err != nil || info.Mode() != 0o644 || h.read(name) != "expand-check=1\n" {
			t.Errorf("%s: %v %v %q", c.state, info.Mode(), err, h.read(name))
		}
	}
}

// TestRevertFiles takes away what the image does not have, and keeps a copy of what was made by hand.
func TestRevertFiles(t *testing.T) {
	h := newHost(t)
	for name, content := range map[string]string{
		"/mcs/contexts/lxc_contexts": "file = \"u:r:t:s0\"\n", "/mcs/contexts/files/file_contexts": "/etc u:r:etc_t:s0\n", "/mcs/policy/policy.33": "the vendor's",
		"/config": "SELINUX=permissive\nSELINUXTYPE=mcs\n", "/semanage.conf": "expand-check=1\n",
	} {
		h.write("/usr/share/flatcar/etc/selinux"+name, content)
	}
	h.module(active("mcs"), "400/hand", "(type hand_t)")
	h.module(active("mcs"), "500/site", "(type site_t)")
	h.write(EtcDir+"/mcs/contexts/lxc_contexts", "changed by hand")
	h.write(EtcDir+"/mcs/mine/deep/file", "mine")
	h.write(EtcDir+"/mcs/policy/policy.99", "stale")
	rec := h.record()
	rec.Policy.Vendor, rec.Policy.Modules = rec.Vendor, map[string]string{"site": digestOf([]byte("(type site_t)"))}
	reverter := Reverter{Root: h.root, Shelf: h.shelf()}
	steps, err := reverter.Plan("mcs", rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := steps.Do(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if h.read(EtcDir+"/mcs/contexts/lxc_contexts") != "file = \"u:r:t:s0\"\n" || h.root.Exists(EtcDir+"/mcs/mine") || h.root.Exists(EtcDir+"/mcs/policy/policy.99") {
		t.Error("not the vendor's files")
	}
	if target, err := os.Readlink(filepath.Join(h.dir, StoreDir)); err != nil || target != "../../usr/lib/selinux/policy" {
		t.Errorf("the store: %q, %v", target, err)
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, h.shelf().Kept))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, e := range entries {
		kept = append(kept, e.Name())
	}
	if got := strings.Join(kept, " "); got != "contexts_lxc_contexts mine_deep_file modules_400_hand" {
		t.Errorf("kept: %s", got)
	}
	if steps, err := reverter.Plan("mcs", rec); err != nil || len(steps) > 0 {
		t.Errorf("again: %+v, %v", steps, err)
	}
}

// TestFingerprint tells images apart by content, mode and owner, and not by times.
func TestFingerprint(t *testing.T) {
	h := newHost(t)
	fingerprint := func() string {
		t.Helper()
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		return vendor.Fingerprint
	}
	before := fingerprint()
	file := filepath.Join(h.dir, VendorStore, "mcs/active/modules/100/base/cil")
	if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if fingerprint() != before {
		t.Error("another time makes another image")
	}
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"mode", func() error { return os.Chmod(file, 0o640) }},
		{"content", func() error { return os.WriteFile(file, []byte("x"), 0o640) }},
		{"name", func() error { return os.Rename(filepath.Dir(file), filepath.Dir(filepath.Dir(file))+"/other") }},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		now := fingerprint()
		if now == before {
			t.Errorf("another %s makes no other image", c.name)
		}
		before = now
	}
}

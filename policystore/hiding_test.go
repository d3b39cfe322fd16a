package policystore

import (
	"strings"
	"testing"
)

// TestHiddenModule: of two modules of one name libsemanage builds with the one of the higher priority, so that a
// declared one below it is not in force.
func TestHiddenModule(t *testing.T) {
	for other, want := range map[string]string{
		"":         "",
		"400/site": "",
		"600/site": "somebody installed a module of this name at priority 600, which hides it: take that one away with semodule -X 600 -r site",
		"600/mine": "",
	} {
		h := newHost(t)
		rec := h.record()
		if _, err := h.apply(rec, site1); err != nil {
			t.Fatal(err)
		}
		if other != "" {
			h.module(active("mcs"), other, "(type other_t)")
		}
		left, err := h.compiler().LeftOut("mcs", rec, Declared{Digest: rec.Policy.Declared})
		if err != nil || len(left) > 1 || len(left) == 1 != (want != "") || len(left) == 1 && (left[0].Name != "site" || left[0].Reason != want) {
			t.Errorf("%s: %v, %v", other, left, err)
		}
	}
}

// TestReplacing names what is in the place of the vendor's, and in force.
func TestReplacing(t *testing.T) {
	for _, c := range []struct {
		name    string
		modules string // PRIORITY/NAME
		record  bool
		want    string
	}{
		{"nothing", "", true, ""},
		{"one with a name of its own", "400/mine", true, ""},
		{"one over the vendor's", "400/legacy", true, "400/legacy"},
		{"one below the vendor's", "50/legacy", true, ""},
		{"the vendor's own", "100/legacy", true, "100/legacy"},
		{"the higher of two", "400/legacy 300/legacy", true, "400/legacy"},
		{"ours, which asks for it", "500/legacy", true, ""},
		{"one over the vendor's, without a record", "400/legacy", false, "400/legacy"},
		{"the vendor's own, without a record, which is about to be replaced", "100/legacy", false, ""},
	} {
		h := newHost(t)
		rec := h.record()
		if !c.record {
			rec = &Record{}
		}
		for key := range strings.FieldsSeq(c.modules) {
			h.module(active("mcs"), key, "(type mine_t)")
		}
		vendor, err := FindVendor(h.root)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Replacing(h.root, vendor, rec); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

package policystore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// TestRolesContexts: an operator's context for the same files comes in the place of a role's, one for other files does not.
func TestRolesContexts(t *testing.T) {
	own := []FileContext{{Path: "/a", Type: "any", Context: "own"}, {Path: "/b", Type: "file", Context: "own"}}
	want := Declared{FileContexts: slices.Clone(own)}
	for _, path := range []string{"/a", "/b", "/c"} {
		want.add(FileContext{Path: path, Type: "any", Context: "role"})
	}
	if got := fmt.Sprint(want.FileContexts); got != fmt.Sprint(append(own, FileContext{Path: "/b", Type: "any", Context: "role"}, FileContext{Path: "/c", Type: "any", Context: "role"})) {
		t.Errorf("%s", got)
	}
}

// TestRoleIsMadeFromTheVendorsPolicy: of the store, or the one that PID 1 would take where the store has none. One that is damaged is not passed over.
func TestRoleIsMadeFromTheVendorsPolicy(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tree.Write("usr/share/flatcar/etc/selinux/mcs/policy/policy.9", "an older one")
	store := filepath.Join(tree.Dir, VendorStore, "mcs/active/policy.kern")
	for _, c := range []struct {
		name    string
		change  func() error
		refused string
	}{
		{"as it is shipped", func() error { return nil }, ""},
		{"without one in the store", func() error { return os.Remove(store) }, ""},
		{"with a damaged one in the store", func() error { return os.WriteFile(store, []byte("no policy"), 0o644) }, "cannot read the policy of this OS image: "},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		want := (&Compiler{Root: root}).withRoles("mcs", Declared{Roles: []string{"log-reader"}})
		switch {
		case c.refused == "" && (len(want.refused) > 0 || len(want.Modules) != 1):
			t.Errorf("%s: %d modules, %v", c.name, len(want.Modules), want.refused)
		case c.refused != "" && (len(want.Modules) > 0 || len(want.FileContexts) > 0 || len(want.refused) != 1 || !strings.HasPrefix(want.refused[0].Reason, c.refused)):
			t.Errorf("%s: %+v", c.name, want)
		}
	}
}

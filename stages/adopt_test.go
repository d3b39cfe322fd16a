package stages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// copiedStore makes the store a copy of the vendor's, as a guide says.
func copiedStore(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	store := filepath.Join(tree.Dir, "var/lib/selinux")
	if err := os.Remove(store); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(store, os.DirFS(filepath.Join(tree.Dir, "usr/lib/selinux/policy"))); err != nil {
		t.Fatal(err)
	}
}

// TestVendorsModuleAdopted: without a record nobody knows whether a module in the vendor's place is an older image's or was made by hand. This
// image's own takes its place, and what was there is named before and kept.
//
// Proves P3.
func TestVendorsModuleAdopted(t *testing.T) {
	const mended = "(type legacy_t)\n(roletype object_r legacy_t)\n(type mended_t)\n"
	for name, begin := range map[string]func(t *testing.T, tree *flatcartest.Tree){
		"a copied store": copiedStore,
		"a lost record": func(t *testing.T, tree *flatcartest.Tree) {
			t.Helper()
			apply(t, host(t, tree))
			if err := os.RemoveAll(filepath.Join(tree.Dir, StateDir)); err != nil {
				t.Fatal(err)
			}
		},
		"an interrupted semodule": func(t *testing.T, tree *flatcartest.Tree) {
			t.Helper()
			copiedStore(t, tree)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := func() (*flatcartest.Tree, *Host) {
				tree := flatcartest.New(t, flatcartest.Today)
				begin(t, tree)
				tree.Semodule(tree.Dir, 100, map[string]string{"legacy": mended})
				if name == "an interrupted semodule" {
					if err := os.Rename(filepath.Join(tree.Dir, activeStore), filepath.Join(tree.Dir, "var/lib/selinux/mcs/previous")); err != nil {
						t.Fatal(err)
					}
				}
				return tree, host(t, tree)
			}
			kept := func(tree *flatcartest.Tree) bool {
				return len(holds(t, filepath.Join(tree.Dir, StateDir, "kept/modules_100_legacy"), "mended_t")) > 0
			}
			tree, h := begun()
			s, err := h.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(s.Problems, func(p Problem) bool {
				return strings.Contains(p.Problem, "would keep /var/lib/selinux/mcs/active/modules: not the vendor's, and nobody knows whether an older one's or made by hand: 100/legacy")
			}) {
				t.Errorf("status does not name it: %v", s.Problems)
			}
			if name != "an interrupted semodule" { // then there is no store to look into
				found, err := h.Handmade(t.Context())
				if err != nil || len(found.Other) > 0 || len(found.Replaced) != 1 || !strings.Contains(found.Replaced[0], "module 100/legacy is not the one of this OS image's") {
					t.Errorf("found %+v, %v", found, err)
				}
			}
			apply(t, h)
			if !kept(tree) {
				t.Error("the module that was replaced is not kept")
			}
			if len(holds(t, filepath.Join(tree.Dir, activeStore, "modules/100/legacy"), "mended_t")) > 0 {
				t.Error("the vendor's module is not in its place")
			}
			apply(t, h, Unchanged)

			if name == "an interrupted semodule" {
				return
			}
			tree, h = begun()
			if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
				t.Fatalf("revert: %v, %v", result.Err, err)
			}
			if !kept(tree) {
				t.Error("the module is not kept by revert")
			}
		})
	}
}

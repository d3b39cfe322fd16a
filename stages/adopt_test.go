package stages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
	t.Parallel()
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

// TestWhatIsBesideTheStoreStays: copies, other stores and notes in the store's directory stay there, when it is adopted, updated and rolled back, and
// revert keeps copies of them.
//
// Proves P3.
func TestWhatIsBesideTheStoreStays(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	copiedStore(t, tree)
	h := host(t, tree)
	theirs := map[string]string{"mcs.bak/active/modules/100/base/cil": "a copy", "custom/active/commit_num": "1", "NOTES": "ours", "mcs/active.old/policy.kern": "old"}
	for name, content := range theirs {
		tree.Write("var/lib/selinux/"+name, content)
	}
	tree.Link("/srv/nowhere", "var/lib/selinux/link")
	tree.Write("var/lib/selinux/mcs/previous/modules/100/base/cil", "libsemanage's own")
	for _, fifo := range []string{"pipe", "custom/pipe"} {
		if err := unix.Mkfifo(filepath.Join(tree.Dir, "var/lib/selinux", fifo), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func(when, dir string, at func(name string) string) {
		t.Helper()
		for name, want := range theirs {
			if got, err := os.ReadFile(filepath.Join(tree.Dir, dir, at(name))); string(got) != want {
				t.Errorf("%s: %s is %q, %v", when, name, got, err)
			}
		}
		if target, err := os.Readlink(filepath.Join(tree.Dir, dir, at("link"))); target != "/srv/nowhere" {
			t.Errorf("%s: the link is to %q, %v", when, target, err)
		}
	}
	own := func(name string) string { return name }
	apply(t, h, Changed, Changed, Unchanged)
	there("adopted", "var/lib/selinux", own)
	if _, err := os.Stat(filepath.Join(tree.Dir, "var/lib/selinux/mcs/previous")); !os.IsNotExist(err) {
		t.Errorf("what libsemanage leaves is taken along: %v", err)
	}
	apply(t, h, Unchanged)
	tree.Image(2)
	apply(t, h)
	there("updated", "var/lib/selinux", own)
	tree.Image(1)
	apply(t, h)
	there("rolled back", "var/lib/selinux", own)
	if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
		t.Fatalf("revert: %v, %v", result.Err, err)
	}
	there("reverted", KeptDir, func(name string) string {
		for _, entry := range []string{"mcs.bak", "custom", "mcs/active.old"} {
			if below, ok := strings.CutPrefix(name, entry+"/"); ok {
				return "store_" + strings.ReplaceAll(entry, "/", "_") + "/" + below
			}
		}
		return "store_" + name
	})
}

// TestVendorsModuleRemoved: what "semodule -r" took away of the vendor's is seen and put back before a change would fail for it, and "semodule -d" stays.
//
// Proves P3.
func TestVendorsModuleRemoved(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	h := host(t, tree)
	apply(t, h)
	tree.Semodule(tree.Dir, 100, nil, "-X", "100", "-r", "legacy")
	s, err := h.Status(t.Context())
	if err != nil || s.AsDeclared || !strings.Contains(s.Problems[0].Problem, "modules of the vendor's were removed from it: 100/legacy; semodule -d NAME switches one off for good") {
		t.Errorf("status: %+v, %v", s, err)
	}
	found, err := h.Handmade(t.Context())
	if err != nil || len(found.Replaced) != 1 || !strings.Contains(found.Replaced[0], "module 100/legacy is the OS image's and was removed") {
		t.Errorf("found %+v, %v", found, err)
	}
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	apply(t, h, Changed, Changed, Unchanged)
	if list := modules(t, tree); !slices.Contains(list, "100/legacy") || !slices.Contains(list, "500/kube_logreader") {
		t.Errorf("the store has %v", list)
	}
	apply(t, h, Unchanged)
	tree.Semodule(tree.Dir, 100, nil, "-d", "legacy")
	apply(t, h, Unchanged)
	if s, err := h.Status(t.Context()); err != nil || !s.AsDeclared {
		t.Errorf("status of what is switched off: %+v, %v", s, err)
	}
}

// TestBuiltFilesEditedByHand: what somebody has written into a file that each build writes anew is named, and kept before that.
//
// Proves P3.
func TestBuiltFilesEditedByHand(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	h := host(t, tree)
	apply(t, h)
	appendTo(t, tree, "etc/selinux/mcs/contexts/files/file_contexts", "/srv/mine(/.*)? system_u:object_r:etc_t:s0")
	found, err := h.Handmade(t.Context())
	if err != nil || len(found.Replaced) != 1 || !strings.Contains(found.Replaced[0], "contexts/files/file_contexts was changed by hand") || len(found.Other) > 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	apply(t, h, Unchanged, Changed, Unchanged)
	if kept, err := os.ReadFile(filepath.Join(tree.Dir, KeptDir, "contexts_files_file_contexts")); err != nil || !strings.Contains(string(kept), "/srv/mine") {
		t.Errorf("no copy is kept: %v", err)
	}
	apply(t, h, Unchanged)
}

package stages

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// damage is what an operator, an old recipe or a power cut left on a host before the first run.
func damages() map[string]func(*testing.T, *flatcartest.Tree) {
	remove := func(t *testing.T, tree *flatcartest.Tree, name string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(tree.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyOf := func(t *testing.T, tree *flatcartest.Tree, from, to string) {
		t.Helper()
		remove(t, tree, to)
		if err := os.CopyFS(filepath.Join(tree.Dir, to), os.DirFS(filepath.Join(tree.Dir, from))); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]func(*testing.T, *flatcartest.Tree){
		"fresh": func(*testing.T, *flatcartest.Tree) {},
		"old links": func(_ *testing.T, tree *flatcartest.Tree) {
			for _, name := range []string{"config", tree.Layout.Type(), "semanage.conf"} {
				tree.Link("../../usr/lib/selinux/"+name, "etc/selinux/"+name)
			}
		},
		// The vendor's page, followed on a release where /usr/lib/selinux/mcs is a compatibility link: cp -a copies the link.
		"rm -rf, then cp -a": func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Link("../../share/flatcar/etc/selinux/"+tree.Layout.Type(), "etc/selinux/"+tree.Layout.Type())
			tree.Link("../../share/flatcar/etc/selinux/config", "etc/selinux/config")
		},
		"old copies": func(t *testing.T, tree *flatcartest.Tree) {
			tree.Image(2)
			copyOf(t, tree, "usr/lib/selinux/policy", "var/lib/selinux")
			copyOf(t, tree, tree.Layout.VendorEtc()+"/"+tree.Layout.Type(), "etc/selinux/"+tree.Layout.Type())
			tree.Image(1)
			// A module that only the other image has could be the operator's: TestAdoptedStoreLosesNothing.
			remove(t, tree, "var/lib/selinux/"+tree.Layout.Type()+"/active/modules/100/modern")
		},
		"half a copy": func(t *testing.T, tree *flatcartest.Tree) {
			copyOf(t, tree, tree.Layout.VendorEtc()+"/"+tree.Layout.Type(), "etc/selinux/"+tree.Layout.Type())
			copyOf(t, tree, "usr/lib/selinux/policy", "var/lib/selinux")
			remove(t, tree, "etc/selinux/"+tree.Layout.Type()+"/policy")
			remove(t, tree, "etc/selinux/"+tree.Layout.Type()+"/contexts/lxc_contexts")
			remove(t, tree, "var/lib/selinux/"+tree.Layout.Type()+"/active/policy.kern")
			remove(t, tree, "var/lib/selinux/"+tree.Layout.Type()+"/active/modules/100/legacy")
		},
		"an interrupted semodule": func(t *testing.T, tree *flatcartest.Tree) {
			copyOf(t, tree, "usr/lib/selinux/policy", "var/lib/selinux")
			store := filepath.Join(tree.Dir, "var/lib/selinux", tree.Layout.Type())
			if err := os.Rename(filepath.Join(store, "active"), filepath.Join(store, "previous")); err != nil {
				t.Fatal(err)
			}
		},
		"an empty store": func(t *testing.T, tree *flatcartest.Tree) {
			copyOf(t, tree, "usr/lib/selinux/policy", "var/lib/selinux")
			remove(t, tree, "var/lib/selinux/"+tree.Layout.Type()+"/active")
			if err := os.MkdirAll(filepath.Join(tree.Dir, "var/lib/selinux", tree.Layout.Type(), "active/modules"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"nothing": func(t *testing.T, tree *flatcartest.Tree) {
			remove(t, tree, "etc/selinux")
			remove(t, tree, "var/lib/selinux")
		},
		"a dangling store": func(_ *testing.T, tree *flatcartest.Tree) { tree.Link("/nowhere", "var/lib/selinux") },
	}
}

// TestEveryLayoutEndsInTheSameState brings each layout in each state to the declared one, and from there back to the vendor's.
//
// Proves P2.
func TestEveryLayoutEndsInTheSameState(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.All() {
		good := flatcartest.New(t, layout)
		good.Write("etc/selinux-provision/config.yaml", enforcing)
		apply(t, host(t, good), first(layout)...)
		// What is declared and where it came from are the same; the record of the past is not.
		want := snapshot(t, good.Dir, StateDir)
		for name, damage := range damages() {
			t.Run(string(layout)+"/"+name, func(t *testing.T) {
				tree := flatcartest.New(t, layout)
				fresh := snapshot(t, tree.Dir)
				damage(t, tree)
				tree.Write("etc/selinux-provision/config.yaml", enforcing)
				h := host(t, tree)
				apply(t, h)
				compare(t, "after apply", withoutCounter(snapshot(t, tree.Dir, StateDir)), withoutCounter(want))
				apply(t, h, Unchanged)
				if status, err := h.Status(context.Background()); err != nil || !status.AsDeclared {
					t.Errorf("status: %+v, %v", status, err)
				}
				if result, err := h.Revert(context.Background(), false); err != nil || result.Err != nil {
					t.Fatalf("revert: %v, %v", result.Err, err)
				}
				compare(t, "after revert", snapshot(t, tree.Dir, "/etc/selinux-provision", "/etc/audit", StateDir), without(fresh, "/etc/audit"))
			})
			t.Run(string(layout)+"/"+name+"/revert at once", func(t *testing.T) {
				tree := flatcartest.New(t, layout)
				fresh := snapshot(t, tree.Dir)
				damage(t, tree)
				if result, err := host(t, tree).Revert(context.Background(), false); err != nil || result.Err != nil {
					t.Fatalf("revert: %v, %v", result.Err, err)
				}
				compare(t, "after revert", snapshot(t, tree.Dir, StateDir), fresh)
				for file := range snapshot(t, tree.Dir) { // copies of what may be the operator's stay
					if strings.HasPrefix(file, StateDir+"/") && !strings.HasPrefix(file, KeptDir) {
						t.Errorf("after revert: %s is still there", file)
					}
				}
			})
		}
	}
}

// first gives the outcomes of the stages that have to see to enforcing and to denials in the journal on a fresh host.
func first(layout flatcartest.Layout) []Outcome {
	if layout == flatcartest.Sibling { // it enforces, and hides nothing
		return []Outcome{Changed, Changed, Unchanged}
	}
	return []Outcome{Changed}
}

// withoutCounter takes out libsemanage's counter of transactions, which is the number of runs that it took.
func withoutCounter(all map[string]string) map[string]string {
	return without(without(all, "/var/lib/selinux/mcs/active/commit_num"), "/var/lib/selinux/targeted/active/commit_num")
}

func without(all map[string]string, prefix string) map[string]string {
	rest := map[string]string{}
	for name, line := range all {
		if name != prefix && !strings.HasPrefix(name, prefix+"/") {
			rest[name] = line
		}
	}
	return rest
}

// TestAdoptedStoreLosesNothing takes over a store that was copied and worked on by hand before: what the operator put there stays, at
// whatever priority, and what had to be replaced is kept aside.
//
// Proves P3.
func TestAdoptedStoreLosesNothing(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	store := filepath.Join(tree.Dir, "var/lib/selinux")
	if err := os.Remove(store); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(store, os.DirFS(filepath.Join(tree.Dir, "usr/lib/selinux/policy"))); err != nil {
		t.Fatal(err)
	}
	tree.Semodule(tree.Dir, 100, map[string]string{"patch": "(type patch_t)\n"})
	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand})
	tree.Write("etc/selinux/mcs/contexts/lxc_contexts", "process = \"system_u:system_r:mine_t:s0\"\n")
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	h := host(t, tree)
	apply(t, h, Changed)
	list := modules(t, tree)
	for _, name := range []string{"100/patch", "400/by_hand", "100/base"} {
		if !slices.Contains(list, name) {
			t.Errorf("module %s is gone: %v", name, list)
		}
	}
	if kept, err := os.ReadFile(filepath.Join(tree.Dir, StateDir, "kept/contexts_lxc_contexts")); err != nil || !strings.Contains(string(kept), "mine_t") {
		t.Errorf("the operator's lxc_contexts is not kept: %q, %v", kept, err)
	}
	apply(t, h, Unchanged)

	// The record is lost: the same again.
	if err := os.Remove(filepath.Join(tree.Dir, StateDir, "state.json")); err != nil {
		t.Fatal(err)
	}
	apply(t, h)
	if again := modules(t, tree); !slices.Equal(again, list) {
		t.Errorf("modules after the record was lost: %v, before: %v", again, list)
	}
	// And when it is wrong.
	state := LoadState(h.Root)
	state.Store.VendorModules = nil
	if err := state.save(h.Root); err != nil {
		t.Fatal(err)
	}
	tree.Image(2)
	apply(t, h)
	if list := modules(t, tree); !slices.Contains(list, "100/patch") || !slices.Contains(list, "100/modern") {
		t.Errorf("modules after an update with a wrong record: %v", list)
	}
	if same, err := os.ReadFile(filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/modules/100/base/cil")); err != nil {
		t.Error(err)
	} else if vendors, err := os.ReadFile(filepath.Join(tree.Dir, "usr/lib/selinux/policy/mcs/active/modules/100/base/cil")); err != nil || string(same) != string(vendors) {
		t.Errorf("the base module is not this image's: %v", err)
	}
}

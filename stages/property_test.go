package stages

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// world is what a host should be like after any history: the OS image, what is declared, what the operator did by hand.
type world struct {
	generation int
	strip      bool
	boolean    int // 0 not declared, 1 true, 2 false
	contexts   []string
	modules    map[string]bool // declared
	hand       map[string]int  // by hand, to the priority
	handBool   bool            // setsebool -P container_connect_any=0
}

func (w *world) declare(tree *flatcartest.Tree) {
	config := "version: 1\nmode: permissive\npolicy:\n"
	if w.boolean > 0 {
		config += fmt.Sprintf("  booleans: {container_use_nfs: %t}\n", w.boolean == 1)
	}
	config += "  file_contexts:\n"
	for _, c := range w.contexts {
		config += fmt.Sprintf("    - {path: '/srv/%s(/.*)?', context: 'system_u:object_r:etc_t:s0'}\n", c)
	}
	if len(w.contexts) == 0 {
		config += "    []\n"
	}
	if w.strip {
		config += "audit: {dontaudit: strip}\n"
	}
	tree.Write("etc/selinux-provision/config.yaml", config)
	dir := filepath.Join(tree.Dir, "etc/selinux-provision/modules")
	os.RemoveAll(dir)
	for _, name := range slices.Sorted(maps.Keys(w.modules)) {
		tree.Write("etc/selinux-provision/modules/"+name+".cil", "(type "+name+"_t)\n(roletype object_r "+name+"_t)\n")
	}
}

// byHand repeats the operator's work on a tree.
func (w *world) byHand(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.hand)) {
		w.install(tree, name)
	}
	if w.handBool {
		w.setBoolean(t, tree)
	}
}

func (w *world) install(tree *flatcartest.Tree, name string) {
	tree.Semodule(tree.Dir, w.hand[name], map[string]string{name: "(type " + name + "_t)\n"})
}

// setBoolean does what setsebool -P does to the store.
func (w *world) setBoolean(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	name := filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/booleans.local")
	content, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(content, "container_connect_any=0\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	tree.Semodule(tree.Dir, 400, map[string]string{"touch": "(type touch_t)\n"})
}

// TestAnyHistoryEndsLikeAFreshHost makes random histories of updates, rollbacks, declarations, work by hand, crashes and runs,
// and compares with a host that was installed with the last image and the last declarations, and had the same work by hand.
//
// Proves P2.
func TestAnyHistoryEndsLikeAFreshHost(t *testing.T) {
	t.Parallel()
	histories := 24
	if testing.Short() {
		histories = 4
	}
	for seed := range histories {
		layout := flatcartest.Layouts()[seed%3]
		t.Run(fmt.Sprintf("%s/%d", layout, seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			tree := flatcartest.New(t, layout)
			w := &world{generation: 1, modules: map[string]bool{}, hand: map[string]int{}}
			w.declare(tree)
			h := host(t, tree)
			history := []string{}
			applied := false // since the last change of the image: an operator installs into a store that is this image's
			for range 8 {
				var did string
				switch random.IntN(9) {
				case 0, 1:
					w.generation = 3 - w.generation
					tree.Image(w.generation)
					did, applied = fmt.Sprint("image ", w.generation), false
				case 2:
					w.strip = !w.strip
					did = fmt.Sprint("strip ", w.strip)
				case 3:
					w.boolean = random.IntN(3)
					did = fmt.Sprint("boolean ", w.boolean)
				case 4:
					w.contexts = [][]string{nil, {"a"}, {"a", "b"}, {"c"}}[random.IntN(4)]
					did = fmt.Sprint("contexts ", w.contexts)
				case 5:
					name := []string{"one", "two", "three"}[random.IntN(3)]
					if w.modules[name] {
						delete(w.modules, name)
					} else {
						w.modules[name] = true
					}
					did = fmt.Sprint("modules ", w.modules)
				case 6:
					if !applied {
						continue
					}
					name := []string{"alpha", "beta"}[random.IntN(2)]
					if w.hand[name] == 0 {
						w.hand[name] = []int{100, 300, 400}[random.IntN(3)]
						w.install(tree, name)
					}
					did = fmt.Sprint("by hand ", w.hand)
				case 7:
					if !applied || w.handBool {
						continue
					}
					w.hand["touch"], w.handBool = 400, true
					w.setBoolean(t, tree)
					did = "setsebool -P"
				case 8:
					stage := names()[random.IntN(4)]
					call := []string{"renameat2", "renameat", "fsync", "unlinkat", "mkdirat"}[random.IntN(5)]
					n := 1 + random.IntN(12)
					w.declare(tree)
					did = fmt.Sprint("killed ", stage, " at ", call, n, ": ", killAt(t, tree.Dir, stage, call, n, true))
				}
				w.declare(tree)
				history = append(history, did)
				if random.IntN(3) > 0 {
					apply(t, h)
					applied = true
					history = append(history, "apply")
				}
			}
			for _, r := range apply(t, h) {
				if r.Err != nil || len(r.Problems) > 0 {
					t.Errorf("stage %s: %v %v", r.Stage, r.Err, r.Problems)
				}
			}
			apply(t, h, Unchanged)
			noLeftovers(t, tree)

			fresh := flatcartest.New(t, layout)
			fresh.Image(w.generation)
			w.declare(fresh)
			apply(t, host(t, fresh))
			w.byHand(t, fresh)
			apply(t, host(t, fresh))
			compare(t, "after the history", lasting(t, tree), lasting(t, fresh))
			if t.Failed() {
				t.Logf("history: %v", history)
			}
		})
	}
}

// lasting is a snapshot without what depends on the way and not on the end: the record, libsemanage's counter, the order of
// local booleans.
func lasting(t *testing.T, tree *flatcartest.Tree) map[string]string {
	t.Helper()
	all := withoutCounter(snapshot(t, tree.Dir, StateDir))
	for name, line := range all {
		if filepath.Base(name) != "booleans.local" {
			continue
		}
		if line == "-rw------- " {
			delete(all, name)
			continue
		}
		content, err := os.ReadFile(filepath.Join(tree.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = fmt.Sprint(slices.Sorted(strings.Lines(string(content))))
	}
	return all
}

package stages

import (
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/policystore"
)

const (
	helper  = "(type helper_t)\n(roletype system_r helper_t)\n(allow helper_t container_domain (process (signal)))\n"
	client  = "(type client_t)\n(roletype system_r client_t)\n(allow client_t container_client (process (signal)))\n"
	wrong   = "(type badone_t)\n(roletype system_r badone_t)\n(typeattributeset container_domain (badone_t))\n" // a container domain that is no domain
	clashes = "(type served_t)\n(roletype system_r served_t)\n(typeattributeset container_client (served_t))\n" // wrong beside client alone
	legacy  = "(type hand_t)\n(allow hand_t legacy_t (file (read)))\n"
)

// holds finds the files below a directory that have a text in them, compressed or not.
func holds(t *testing.T, dir, text string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a tree without that directory, or a file that goes
		}
		f, err := os.Open(name)
		if err != nil {
			return nil
		}
		defer f.Close()
		plain, err := io.ReadAll(bzip2.NewReader(f))
		if err != nil {
			plain, _ = os.ReadFile(name)
		}
		if strings.Contains(string(plain), text) {
			names = append(names, strings.TrimPrefix(name, dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// nothingLost checks that the operator's work is on disk where the product or the operator finds it again, and that status names each
// piece that is not in the store.
func nothingLost(t *testing.T, what string, tree *flatcartest.Tree, work map[string]string) {
	t.Helper()
	status, err := host(t, tree).Status(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for key, text := range work {
		store := filepath.Join(tree.Dir, policystore.StoreDir, "mcs/active")
		there := holds(t, filepath.Join(store, "modules", key), text)
		if !strings.Contains(key, "/") {
			there = holds(t, filepath.Join(store, key), text)
		}
		if len(there) > 0 {
			continue
		}
		if len(holds(t, filepath.Join(tree.Dir, quarantineDir), text)) == 0 && len(holds(t, filepath.Join(tree.Dir, KeptDir), text)) == 0 {
			t.Errorf("%s: %s is nowhere on disk", what, key)
		}
		if !slices.ContainsFunc(status.Quarantine, func(q policystore.Quarantined) bool { return strings.HasSuffix(key, q.Name) }) || status.AsDeclared {
			t.Errorf("%s: status does not name %s: %v", what, key, status.Quarantine)
		}
	}
}

// leftOut names what status says is left out, in order.
func leftOut(t *testing.T, tree *flatcartest.Tree) string {
	t.Helper()
	status, err := host(t, tree).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, q := range status.Quarantine {
		names = append(names, q.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestOperatorsModulesSurviveBadDeclarations is about errors that name the operator's good module beside a bad declared one, on a policy
// whose neverallow rules are checked, over several runs.
//
// Proves P3.
func TestOperatorsModulesSurviveBadDeclarations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		hand     map[string]string
		declared map[string]string
		config   string
		out      string
	}{
		{"the bad one breaks a rule of the vendor's too", map[string]string{"helper": helper}, map[string]string{"bad1": wrong}, "", "bad1"},
		{"with the shared volumes", map[string]string{"helper": helper}, map[string]string{"bad1": wrong}, "policy: {shared_volumes: true}\n", "bad1"},
		{"the two do not go together", map[string]string{"client": client}, map[string]string{"clashes": clashes}, "", "clashes"},
		{"beside good ones", map[string]string{"helper": helper, "client": client},
			map[string]string{"bad1": wrong, "clashes": clashes, "kube_logreader": kubeLogreader, "zz": "(type zz_t)\n"}, "", "bad1 clashes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := flatcartest.NewStrict(t, flatcartest.Today)
			tree.Write("etc/selinux-provision/config.yaml", "version: 1\n"+c.config)
			h := host(t, tree)
			apply(t, h)
			tree.Semodule(tree.Dir, 400, c.hand)
			work := map[string]string{}
			for name := range c.hand {
				work["400/"+name] = name + "_t"
			}
			for name, text := range c.declared {
				tree.Write("etc/selinux-provision/modules/"+name+".cil", text)
			}
			for n := 1; n <= 3; n++ {
				apply(t, h, Unchanged, Partly, Unchanged)
				nothingLost(t, fmt.Sprintf("apply %d", n), tree, work)
				if got := leftOut(t, tree); got != c.out {
					t.Errorf("apply %d left out %q, want %q", n, got, c.out)
				}
				// Another declaration, so that the policy is built again.
				tree.Write("etc/selinux-provision/modules/extra.cil", fmt.Sprintf("(type extra%d_t)\n", n))
			}
			for _, name := range strings.Fields(c.out) {
				if err := os.Remove(filepath.Join(tree.Dir, "etc/selinux-provision/modules", name+".cil")); err != nil {
					t.Fatal(err)
				}
			}
			apply(t, h, Unchanged, Changed, Unchanged)
			for key := range work {
				if list := modules(t, tree); !slices.Contains(list, key) {
					t.Errorf("in the end %s is not in the store: %v", key, list)
				}
			}
			apply(t, h, Unchanged)
		})
	}
}

// TestUndeclaredAfterTheSearch takes away what was built beside a bad module: nothing is asked of semodule that it cannot do.
func TestUndeclaredAfterTheSearch(t *testing.T) {
	t.Parallel()
	tree := flatcartest.NewStrict(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\npolicy: {shared_volumes: true}\n")
	tree.Write("etc/selinux-provision/modules/bad1.cil", wrong)
	h := host(t, tree)
	apply(t, h, Changed, Partly, Unchanged)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\npolicy: {modules: [{path: /etc/selinux-provision/modules/bad1.cil}]}\n")
	apply(t, h, Unchanged, Partly, Unchanged)
	if got := leftOut(t, tree); got != "bad1" {
		t.Errorf("left out %q", got)
	}
	if list := modules(t, tree); slices.Contains(list, "500/selinux_provision_shared_volumes") {
		t.Errorf("the shared volumes stay: %v", list)
	}
}

// TestQuarantineIsNotOverwritten has the operator make again by hand what is in quarantine, otherwise.
//
// Proves P3.
func TestQuarantineIsNotOverwritten(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h)
	strip := "--disable_dontaudit"
	tree.Semodule(tree.Dir, 300, map[string]string{"hand": legacy}, strip)
	tree.Write("var/lib/selinux/mcs/active/file_contexts.local", "/srv/op(/.*)?    system_u:object_r:legacy_t:s0\n")
	tree.Image(2)
	apply(t, h, Changed, Partly, Unchanged, Unchanged)
	nothingLost(t, "after the update", tree, map[string]string{"300/hand": "hand_t", "file_contexts.local": "/srv/op"})
	tree.Semodule(tree.Dir, 300, map[string]string{"hand": "(type newer_t)\n"}, strip)
	tree.Write("var/lib/selinux/mcs/active/file_contexts.local", "/srv/newer(/.*)?    system_u:object_r:etc_t:s0\n")
	tree.Write("etc/selinux-provision/modules/extra.cil", "(type extra_t)\n")
	apply(t, h, Unchanged, Changed, Unchanged, Unchanged)
	nothingLost(t, "made again", tree, map[string]string{"300/hand": "newer_t", "file_contexts.local": "/srv/newer"})
	for _, text := range []string{"hand_t", "/srv/op"} {
		if len(holds(t, filepath.Join(tree.Dir, KeptDir), text)) == 0 {
			t.Errorf("%s is gone", text)
		}
	}
	if got := leftOut(t, tree); got != "" {
		t.Errorf("still said to be left out: %s", got)
	}
}

// TestVendorsModuleReplacedByHand carries over what an operator installed in a vendor's module's own place, and puts the vendor's there
// where the policy cannot be built with it.
//
// Proves P3.
func TestVendorsModuleReplacedByHand(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h)
	tree.Semodule(tree.Dir, 100, map[string]string{"base": vendorBase(t, tree) + "(type mine_t)\n(allow mine_t legacy_t (file (read)))\n"}, "--disable_dontaudit")
	apply(t, h, Unchanged)
	work := map[string]string{"100/base": "mine_t"}
	tree.Image(2)
	apply(t, h, Changed, Partly, Unchanged, Unchanged)
	nothingLost(t, "after the update", tree, work)
	if got := leftOut(t, tree); got != "base" {
		t.Errorf("left out %q", got)
	}
	if len(holds(t, filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/modules/100/base"), "second_t")) == 0 {
		t.Error("the vendor's own module is not in its place")
	}
	apply(t, h, Unchanged, Partly, Unchanged, Unchanged)
	tree.Image(1)
	apply(t, h, Changed, Changed, Unchanged, Unchanged)
	if len(holds(t, filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/modules/100/base"), "mine_t")) == 0 {
		t.Error("after the rollback the operator's module is not in the store")
	}
}

func vendorBase(t *testing.T, tree *flatcartest.Tree) string {
	t.Helper()
	f, err := os.Open(filepath.Join(tree.Dir, "usr/lib/selinux/policy/mcs/active/modules/100/base/cil"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(bzip2.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestQuarantineWithoutARecord names what is in quarantine when nothing remembers why.
func TestQuarantineWithoutARecord(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h)
	tree.Semodule(tree.Dir, 300, map[string]string{"hand": legacy}, "--disable_dontaudit")
	tree.Image(2)
	apply(t, h, Changed, Partly, Unchanged, Unchanged)
	state := LoadState(h.Root)
	state.Store.Policy.Quarantine = nil
	if err := state.save(h.Root); err != nil {
		t.Fatal(err)
	}
	nothingLost(t, "without a record", tree, map[string]string{"300/hand": "hand_t"})
	if err := os.Remove(filepath.Join(tree.Dir, stateFile)); err != nil {
		t.Fatal(err)
	}
	nothingLost(t, "without any state", tree, map[string]string{"300/hand": "hand_t"})
	apply(t, h, Changed, Partly, Unchanged, Unchanged)
	nothingLost(t, "applied again", tree, map[string]string{"300/hand": "hand_t"})
}

// TestRevertKeepsTheOperatorsWork brings everything back to the vendor's and keeps copies of what was made by hand, in quarantine or not.
//
// Proves V9: type, mode and owner of everything, and copies of what was made by hand are kept
func TestRevertKeepsTheOperatorsWork(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			tree := flatcartest.New(t, layout)
			tree.Write("etc/selinux-provision/config.yaml", enforcing)
			h := host(t, tree)
			apply(t, h)
			strip := "--disable_dontaudit"
			tree.Semodule(tree.Dir, 300, map[string]string{"hand": legacy}, strip)
			tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, strip)
			tree.Image(2)
			apply(t, h)
			tree.Write("etc/selinux/mcs/contexts/customizable_types", "mine_t\n")
			byHandOnDirectories(t, tree)
			tree.Write("etc/selinux/mcs/contexts/files/file_contexts.local", "/srv/mine system_u:object_r:etc_t:s0\n")
			tree.Write("var/lib/selinux/mcs/active/booleans.local", "container_use_nfs=1\ncontainer_connect_any=0\n")
			for range 2 {
				if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
					t.Fatalf("revert: %v, %v", result.Err, err)
				}
			}
			for _, text := range []string{"hand_t", "by_hand_t", "mine_t", "in_a_directory_t", "/srv/mine", "container_connect_any=0"} {
				if len(holds(t, filepath.Join(tree.Dir, StateDir), text)) == 0 {
					t.Errorf("%s is nowhere", text)
				}
			}
			if err := os.RemoveAll(filepath.Join(tree.Dir, "var/policy")); err != nil { // where the link led
				t.Fatal(err)
			}
			fresh := flatcartest.New(t, layout)
			fresh.Image(2)
			compare(t, "after revert", snapshot(t, tree.Dir, "/etc/selinux-provision", StateDir), snapshot(t, fresh.Dir))
			if _, err := os.Stat(filepath.Join(tree.Dir, stateFile)); err == nil {
				t.Error("the record is still there")
			}
		})
	}
}

// byHandOnDirectories gives what /etc/selinux is made of other types, modes and owners.
func byHandOnDirectories(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	at := func(name string) string { return filepath.Join(tree.Dir, "etc/selinux/mcs", name) }
	steps := []error{
		os.Chmod(at(""), 0o777), os.Chmod(at("contexts"), 0o1777), os.Chmod(filepath.Dir(at("")), 0o700),
		os.Rename(at("policy"), filepath.Join(tree.Dir, "var/policy")), os.Symlink("../../../var/policy", at("policy")),
		os.Remove(at("contexts/lxc_contexts")), os.Mkdir(at("contexts/lxc_contexts"), 0o755), os.WriteFile(at("contexts/lxc_contexts/x"), []byte("in_a_directory_t"), 0o644),
		unix.Mkfifo(at("contexts/pipe"), 0o644), os.WriteFile(at("contexts/file"), []byte("x"), 0o644),
	}
	if os.Geteuid() == 0 {
		steps = append(steps, os.Chown(at("contexts"), 1000, 1000))
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// TestQuarantineCrashMatrix kills the policy stage, and semodule, at each call that changes something while an operator's module goes into
// quarantine: it is whole in one place at each instant, and the next run ends where an undisturbed one does.
//
// Proves P2: killed at every third call while an operator's module is set aside, and at every one in make torture
func TestQuarantineCrashMatrix(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	start := provisioned(t)
	apply(t, host(t, start))
	start.Semodule(start.Dir, 300, map[string]string{"hand": legacy}, "--disable_dontaudit")
	start.Image(2)
	if _, err := host(t, start).Run(t.Context(), []string{"policystore"}, false); err != nil {
		t.Fatal(err)
	}
	good := copyTree(t, start.Dir)
	apply(t, host(t, good), Unchanged, Partly, Unchanged, Unchanged)
	want := withoutCounter(snapshot(t, good.Dir, StateDir))
	step := 3
	if os.Getenv("SELINUX_PROVISION_TORTURE") != "" {
		step = 1
	}
	for _, call := range []string{"renameat", "renameat2", "rename", "mkdirat", "unlinkat", "fsync", "syncfs"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			kills := 0
			for n := 1; ; n += step {
				tree := copyTree(t, start.Dir)
				var killed bool
				if call == "rename" { // semodule's own: the stage lives on and says so
					said, _ := failAt(t, tree.Dir, "policy", call, "", n)
					killed = strings.Contains(said, "signal 9")
				} else {
					killed = killAt(t, tree.Dir, "policy", call, n, true)
				}
				if !killed {
					t.Logf("killed %d times", kills)
					return
				}
				kills++
				if len(holds(t, filepath.Join(tree.Dir, "var/lib"), "hand_t")) == 0 {
					t.Fatalf("%s %d: the operator's module is nowhere on disk", call, n)
				}
				bootableEtc(t, tree, n)
				h := host(t, tree)
				for _, r := range apply(t, h) {
					if r.Err != nil {
						t.Fatalf("%s %d: stage %s: %v", call, n, r.Stage, r.Err)
					}
				}
				nothingLost(t, fmt.Sprintf("%s %d", call, n), tree, map[string]string{"300/hand": "hand_t"})
				compare(t, fmt.Sprintf("%s %d, then applied", call, n), withoutCounter(snapshot(t, tree.Dir, StateDir)), want)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// readIn gives the content of a file in a tree; "" if there is none.
func readIn(tree *flatcartest.Tree, name string) string {
	content, _ := os.ReadFile(filepath.Join(tree.Dir, name))
	return string(content)
}

// TestLinesOfBooleansThatAreRefused builds with the others, and with a line when it is corrected.
//
// Proves P3.
func TestLinesOfBooleansThatAreRefused(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h)
	const store, aside = "var/lib/selinux/mcs/active/booleans.local", "var/lib/selinux-provision/quarantine/local/booleans.local"
	tree.Write(store, "container_connect_any=0 # for us\n=1\n")
	tree.Write("etc/selinux-provision/modules/extra.cil", "(type extra_t)\n")
	apply(t, h, Unchanged, Partly, Unchanged, Unchanged)
	for name, want := range map[string]string{store: "\ncontainer_use_nfs=1\n", aside: "container_connect_any=0 # for us\n=1\n"} {
		if got := "\n" + readIn(tree, name); !strings.HasSuffix(got, want) || strings.Contains(want, "nfs") && strings.Contains(got, "connect") {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	status, err := h.Status(t.Context())
	if err != nil || len(status.Quarantine) != 2 || status.AsDeclared || !strings.Contains(status.Quarantine[0].String(), `"container_connect_any=0 # for us"`) {
		t.Errorf("%v, %v", status.Quarantine, err)
	}
	tree.Image(2) // and not with the next image either
	apply(t, h, Changed, Partly, Unchanged, Unchanged)
	tree.Write(aside, "container_connect_any=0\n=1\n")
	apply(t, h, Unchanged, Partly, Unchanged, Unchanged)
	if got := readIn(tree, store); !strings.HasSuffix(got, "container_connect_any=0\ncontainer_use_nfs=1\n") {
		t.Errorf("corrected: %q", got)
	}
	if err := os.Remove(filepath.Join(tree.Dir, aside)); err != nil {
		t.Fatal(err)
	}
	apply(t, h, Unchanged, Unchanged, Unchanged, Unchanged)
	if got := leftOut(t, tree); got != "" {
		t.Errorf("still said to be left out: %s", got)
	}
}

// TestLocalFileInQuarantine is out in /etc as well, comes back with what it needs, and when it is corrected, and is forgotten when it is removed.
//
// Proves P3.
func TestLocalFileInQuarantine(t *testing.T) {
	t.Parallel()
	const store, made = "var/lib/selinux/mcs/active/file_contexts.local", "etc/selinux/mcs/contexts/files/file_contexts.local"
	const aside = "var/lib/selinux-provision/quarantine/local/file_contexts.local"
	const line = "/srv/op(/.*)?    system_u:object_r:hand_t:s0\n"
	there := func(tree *flatcartest.Tree, name string) bool {
		_, err := os.Lstat(filepath.Join(tree.Dir, name))
		return err == nil
	}
	for _, c := range []struct {
		name  string
		mends func(tree *flatcartest.Tree)
		back  string // what the store has in the end
	}{
		{"its type is back", func(tree *flatcartest.Tree) {
			tree.Write("etc/selinux-provision/modules/extra.cil", "(type hand_t)\n(roletype object_r hand_t)\n")
		}, line},
		{"corrected", func(tree *flatcartest.Tree) { tree.Write(aside, strings.ReplaceAll(line, "hand_t", "etc_t")) }, strings.ReplaceAll(line, "hand_t", "etc_t")},
		{"removed", func(tree *flatcartest.Tree) { _ = os.Remove(filepath.Join(tree.Dir, aside)) }, ""},
		{"written anew in the store", func(tree *flatcartest.Tree) { tree.Write(store, "/srv/new    system_u:object_r:etc_t:s0\n") }, "/srv/new    system_u:object_r:etc_t:s0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := provisioned(t)
			h := host(t, tree)
			apply(t, h)
			tree.Write("etc/selinux-provision/modules/extra.cil", "(type hand_t)\n(roletype object_r hand_t)\n")
			tree.Write(store, line)
			apply(t, h)
			if readIn(tree, made) != line {
				t.Fatalf("libsemanage made %q of it", readIn(tree, made))
			}
			tree.Write("etc/selinux-provision/modules/extra.cil", "(type extra_t)\n")
			apply(t, h, Unchanged, Partly, Unchanged, Unchanged)
			if there(tree, store) || there(tree, made) || there(tree, made+".bin") {
				t.Errorf("left out, and there: store %t, /etc %t, compiled %t", there(tree, store), there(tree, made), there(tree, made+".bin"))
			}
			status, err := h.Status(t.Context())
			if err != nil || len(status.Quarantine) != 1 || !strings.Contains(status.Quarantine[0].Reason, "type hand_t is not defined") {
				t.Errorf("%v, %v", status.Quarantine, err)
			}
			c.mends(tree)
			for _, r := range apply(t, h) {
				if r.Outcome != Unchanged && r.Outcome != Changed {
					t.Errorf("%+v", r)
				}
			}
			if there(tree, store) != (c.back != "") || c.back != "" && (readIn(tree, store) != c.back || readIn(tree, made) != c.back) {
				t.Errorf("the store has it: %t, /etc: %t", there(tree, store), there(tree, made))
			}
			if got := leftOut(t, tree); got != "" {
				t.Errorf("still said to be left out: %s", got)
			}
			apply(t, h, Unchanged, Unchanged, Unchanged, Unchanged)
		})
	}
}

// TestModuleWithoutItsFiles is brought back from the copies: with one that is there by name alone semodule builds nothing, and its own message
// says nothing of a remedy.
//
// Proves P3.
func TestModuleWithoutItsFiles(t *testing.T) {
	t.Parallel()
	for _, gone := range []string{"cil", "lang_ext", "*"} {
		tree := provisioned(t)
		h := host(t, tree)
		apply(t, h)
		tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
		apply(t, h, Unchanged)
		files, err := filepath.Glob(filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/modules/400/by_hand", gone))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		if status, err := h.Status(t.Context()); err != nil || status.AsDeclared {
			t.Errorf("without %s it is as declared: %v", gone, err)
		}
		tree.Write("etc/selinux-provision/modules/extra.cil", "(type extra_t)\n")
		apply(t, h, Changed, Changed, Unchanged, Unchanged)
		nothingLost(t, "without "+gone, tree, map[string]string{"400/by_hand": "by_hand_t"})
		if list := modules(t, tree); !slices.Contains(list, "400/by_hand") || !slices.Contains(list, "500/extra") {
			t.Errorf("without %s: %v", gone, list)
		}
	}
}

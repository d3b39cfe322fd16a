package stages

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

const byHand = "(type by_hand_t)\n(roletype object_r by_hand_t)\n"

// operatorsWork is what an operator did by hand after the first apply: modules at two priorities and setsebool -P.
func operatorsWork(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
	tree.Semodule(tree.Dir, 100, map[string]string{"by_hand_too": "(type by_hand_too_t)\n"}, "--disable_dontaudit")
	name := filepath.Join(tree.Dir, "var/lib/selinux/"+tree.Layout.Type()+"/active/booleans.local")
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tree.Write("var/lib/selinux/"+tree.Layout.Type()+"/active/booleans.local", string(content)+"container_connect_any=0\n")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
}

func modules(t *testing.T, tree *flatcartest.Tree) []string {
	t.Helper()
	out, err := (command.Tools{}).Run(context.Background(), "semodule", "--path", tree.Dir, "--store", tree.Layout.Type(), "--list-modules=full")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(out.Stdout) {
		f := strings.Fields(line)
		list = append(list, f[0]+"/"+f[1])
	}
	slices.Sort(list)
	return list
}

// TestUpdateAndRollback goes forward, back and forward again, and compares with a host that was installed with that image.
//
// Proves P3.
func TestUpdateAndRollback(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.All() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			declare := func(tree *flatcartest.Tree) *Host {
				tree.Write("etc/selinux-provision/config.yaml", enforcing)
				tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
				return host(t, tree)
			}
			want := map[int]map[string]string{}
			for generation := 1; generation <= 2; generation++ {
				tree := flatcartest.New(t, layout)
				tree.Image(generation)
				h := declare(tree)
				apply(t, h, first(layout)...)
				operatorsWork(t, tree)
				apply(t, h, Unchanged)
				want[generation] = snapshot(t, tree.Dir, StateDir)
			}

			tree := flatcartest.New(t, layout)
			h := declare(tree)
			apply(t, h, first(layout)...)
			operatorsWork(t, tree)
			for _, generation := range []int{2, 1, 2, 2, 1} {
				tree.Image(generation)
				apply(t, h)
				compare(t, "after an update", withoutCounter(snapshot(t, tree.Dir, StateDir)), withoutCounter(want[generation]))
				list := modules(t, tree)
				for _, name := range []string{"100/base", "100/by_hand_too", "400/by_hand", "500/kube_logreader"} {
					if !slices.Contains(list, name) {
						t.Errorf("generation %d: module %s is gone: %v", generation, name, list)
					}
				}
				if old, now := slices.Contains(list, "100/legacy"), slices.Contains(list, "100/modern"); old != (generation == 1) || now != (generation == 2) {
					t.Errorf("generation %d: the vendor's modules are %v", generation, list)
				}
				apply(t, h, Unchanged)
			}
			if result, err := h.Revert(context.Background(), false); err != nil || result.Err != nil {
				t.Fatalf("revert: %v, %v", result.Err, err)
			}
			fresh := flatcartest.New(t, layout)
			compare(t, "after revert", snapshot(t, tree.Dir, "/etc/selinux-provision", StateDir), snapshot(t, fresh.Dir))
			for _, name := range []string{"modules_400_by_hand/cil", "modules_100_by_hand_too/cil", "booleans.local"} {
				if info, err := os.Stat(filepath.Join(tree.Dir, KeptDir, name)); err != nil || info.Size() == 0 {
					t.Errorf("revert removed the operator's %s and kept no copy: %v", name, err)
				}
			}
		})
	}
}

// TestStalePolicyVersions leaves a policy with a higher and one with a lower version beside the right one: neither may be loaded.
//
// Proves P3.
func TestStalePolicyVersions(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.Layouts() {
		tree := flatcartest.New(t, layout)
		tree.Write("etc/selinux-provision/config.yaml", enforcing)
		h := host(t, tree)
		apply(t, h, Changed)
		for _, version := range []string{"31", "99"} {
			tree.Write("etc/selinux/mcs/policy/policy."+version, "stale")
			apply(t, h, Unchanged, Changed, Unchanged)
			if _, err := os.Stat(filepath.Join(tree.Dir, "etc/selinux/mcs/policy/policy."+version)); err == nil {
				t.Errorf("%s: a stale policy of version %s is still there", layout, version)
			}
		}
	}
}

// TestModuleThatAnUpdateBreaks leaves out what the new vendor policy breaks, keeps it, and has it back after the rollback.
//
// Proves P3.
func TestModuleThatAnUpdateBreaks(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	tree.Write("etc/selinux-provision/modules/declared.cil", "(type declared_t)\n\n(allow declared_t legacy_t (file (read)))\n")
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	h := host(t, tree)
	apply(t, h, Changed, Changed, Unchanged)
	tree.Semodule(tree.Dir, 300, map[string]string{"hand": "(type hand_t)\n(allow hand_t legacy_t (file (read)))\n"})
	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand})
	apply(t, h, Unchanged)

	for range 2 {
		tree.Image(2)
		results := apply(t, h, Changed, Partly, Unchanged)
		var said []string
		for _, p := range results[1].Problems {
			said = append(said, p.Problem)
		}
		all := strings.Join(said, "\n")
		if len(said) != 2 || !strings.Contains(all, "module declared (priority 500), line 3: Failed to resolve allow statement: (allow declared_t legacy_t (file (read))): the policy has no type legacy_t [/etc/selinux-provision/modules/declared.cil]") ||
			!strings.Contains(all, "module hand (priority 300), line 2: ") {
			t.Errorf("problems: %s", all)
		}
		if list := modules(t, tree); slices.Contains(list, "300/hand") || slices.Contains(list, "500/declared") ||
			!slices.Contains(list, "400/by_hand") || !slices.Contains(list, "500/kube_logreader") {
			t.Errorf("modules after the update: %v", list)
		}
		apply(t, h, Unchanged, Partly, Unchanged) // known, and not tried again
		status, err := h.Status(context.Background())
		if err != nil || len(status.Quarantine) != 2 || status.AsDeclared {
			t.Errorf("status: %+v, %v", status, err)
		}

		tree.Image(1)
		apply(t, h, Changed, Changed, Unchanged)
		if list := modules(t, tree); !slices.Contains(list, "300/hand") || !slices.Contains(list, "500/declared") {
			t.Errorf("modules after the rollback: %v", list)
		}
		apply(t, h, Unchanged)
	}
}

// TestVendorPolicyThatDoesNotBuild puts the vendor's own policy in force when even that does not build: nothing of the old OS
// image's stays.
//
// Proves P1.
func TestVendorPolicyThatDoesNotBuild(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	h := host(t, tree)
	apply(t, h, Changed)
	tree.Image(2)
	if err := os.WriteFile(filepath.Join(tree.Dir, "usr/lib/selinux/policy/mcs/active/modules/100/modern/cil"), []byte("(not CIL"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		results := apply(t, h)
		if r := results[1]; r.Outcome != Failed || !strings.Contains(r.Error, "the vendor's own policy is in force") {
			t.Fatalf("policy: %s %q", r.Outcome, r.Error)
		}
		for _, name := range []string{"policy/policy.33", "contexts/files/file_contexts"} {
			got, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/mcs", name))
			want, err2 := os.ReadFile(filepath.Join(tree.Dir, "usr/lib/selinux/mcs", name))
			if err != nil || err2 != nil || string(got) != string(want) {
				t.Errorf("%s is not the vendor's: %v %v", name, err, err2)
			}
		}
		if results[2].Outcome == Failed {
			t.Errorf("audit: %s", results[2].Error)
		}
	}
	tree.Image(1)
	apply(t, h)
	apply(t, h, Unchanged)
}

// TestWhatDoesNotBuildIsLeftOut declares one broken thing of each kind beside a good module.
//
// Proves P1.
func TestWhatDoesNotBuildIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, config, file, content, want string
	}{
		{"unknown type", "", "broken.cil", "(type broken_t)\n(allow broken_t nosuch_t (file (read)))\n", "module broken (priority 500), line 2: Failed to resolve allow statement: (allow broken_t nosuch_t (file (read))): the policy has no type nosuch_t ["},
		{"syntax", "", "broken.cil", "(type broken_t)\n(allow broken_t\n", "module broken (priority 500)"},
		{"too many parentheses", "", "broken.cil", "(type broken_t))\n", "module broken (priority 500)"},
		{"a type twice", "", "broken.cil", "(type etc_t)\n", "module broken (priority 500), line 1: Bad type declaration"},
		{"no package", "", "broken.pp", "this is no policy package", "module broken (priority 500)"},
		{"path", `policy: {file_contexts: [{path: '/srv/a(/.*)?', context: 'system_u:object_r:etc_t:s0'}, {path: '/srv/my(?<x/.*', context: 'system_u:object_r:etc_t:s0'}]}`, "", "", "file context /srv/my(?<x/.*: its path is not a regular expression"},
		{"context", `policy: {file_contexts: [{path: '/srv/a(/.*)?', context: 'system_u:object_r:etc_t:s0'}, {path: '/srv/b', context: 'system_u:object_r:nosuch_t:s0'}]}`, "", "", "file context /srv/b: Failed to resolve filecon statement: does its context exist in the policy? [/etc/selinux-provision/config.yaml:2]"},
		{"boolean", `policy: {booleans: {nosuch_boolean: true}}`, "", "", "boolean nosuch_boolean: the policy has no such boolean"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tree := flatcartest.New(t, flatcartest.Today)
			tree.Write("etc/selinux-provision/config.yaml", "version: 1\n"+tc.config+"\n")
			tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
			if tc.file != "" {
				tree.Write("etc/selinux-provision/modules/"+tc.file, tc.content)
			}
			h := host(t, tree)
			results := apply(t, h, Changed, Partly, Unchanged)
			if p := results[1].Problems; len(p) != 1 || !strings.HasPrefix(p[0].Problem, tc.want) {
				t.Errorf("problems: %v, want %s", p, tc.want)
			}
			if list := modules(t, tree); !slices.Contains(list, "500/kube_logreader") || slices.Contains(list, "500/broken") {
				t.Errorf("modules: %v", list)
			}
			apply(t, h, Unchanged, Partly, Unchanged)
		})
	}
}

// TestModuleNamedOtherwise installs a .pp under the name that stands in it, compressed or not.
func TestModuleNamedOtherwise(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"outer.pp", "outer.pp.bz2"} {
		content, err := os.ReadFile("../internal/policypackage/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		tree := flatcartest.New(t, flatcartest.Today)
		tree.Write("etc/selinux-provision/config.yaml", enforcing)
		tree.Write("etc/selinux-provision/modules/my-local.pp", string(content))
		h := host(t, tree)
		apply(t, h, Changed)
		apply(t, h, Unchanged)
		if list := modules(t, tree); !slices.Contains(list, "500/site_inner") {
			t.Errorf("%s: modules: %v", file, list)
		}
		if err := os.Remove(filepath.Join(tree.Dir, "etc/selinux-provision/modules/my-local.pp")); err != nil {
			t.Fatal(err)
		}
		apply(t, h, Unchanged, Changed, Unchanged, Unchanged)
		if list := modules(t, tree); slices.Contains(list, "500/site_inner") {
			t.Errorf("%s: it stays: %v", file, list)
		}
	}
}

// TestModuleThatAnUpdateBringsToo has a name that the vendor's policy gets with an update: what the vendor has in its module is in force, and
// the site's is named, unless it is declared to replace the vendor's.
func TestModuleThatAnUpdateBringsToo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config string
		after  []Outcome
		types  string // which is in the policy after the update
	}{
		{"version: 1\n", []Outcome{Changed, Partly, Unchanged, Unchanged}, "modern_t"},
		{"version: 1\npolicy: {replace_vendor_modules: [modern]}\n", []Outcome{Changed, Changed, Unchanged, Unchanged}, "site_t"},
	} {
		tree := flatcartest.New(t, flatcartest.Today)
		tree.Write("etc/selinux-provision/config.yaml", c.config)
		tree.Write("etc/selinux-provision/modules/modern.cil", "(type site_t)\n(roletype object_r site_t)\n")
		h := host(t, tree)
		apply(t, h, Changed, Changed, Unchanged, Unchanged)
		tree.Image(2)
		results := apply(t, h, c.after...)
		if p := results[1].Problems; (len(p) > 0) != (c.after[1] == Partly) || len(p) > 0 && !strings.Contains(p[0].Problem, "module modern (priority 500): the vendor's policy has a module of this name") {
			t.Errorf("%s: %v", c.config, p)
		}
		content, err := os.ReadFile(filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/policy.kern"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"modern_t", "site_t"} {
			if strings.Contains(string(content), name) != (name == c.types) {
				t.Errorf("%s: %s in the policy is %v", c.config, name, name != c.types)
			}
		}
	}
}

// A declared context counts by what it means: its type by an old name, its categories in any order. The policy has it in a form of its own.
func TestDeclaredContextInAnotherForm(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", `version: 1
policy:
  file_contexts:
    - {path: '/srv/alias(/.*)?', context: 'system_u:object_r:svirt_lxc_file_t:s0'}
    - {path: '/srv/order(/.*)?', context: 'system_u:object_r:etc_t:s0:c2,c0,c1'}
    - {path: '/srv/both', type: dir, context: 'system_u:object_r:svirt_lxc_file_t:s0:c2,c1'}
`)
	h := host(t, tree)
	for _, r := range apply(t, h, Changed, Changed, Unchanged) {
		if len(r.Problems) != 0 {
			t.Errorf("%s: %v", r.Stage, r.Problems)
		}
	}
	apply(t, h, Unchanged, Unchanged, Unchanged)
	content, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/mcs/contexts/files/file_contexts"))
	if err != nil {
		t.Fatal(err)
	}
	built := strings.Join(strings.Fields(string(content)), " ") + " "
	for _, want := range []string{"/srv/alias(/.*)? system_u:object_r:container_file_t:s0 ", "/srv/order(/.*)? system_u:object_r:etc_t:s0:c0.c2 ",
		"/srv/both -d system_u:object_r:container_file_t:s0:c1,c2 "} {
		if !strings.Contains(built, want) {
			t.Errorf("no %q in\n%s", want, built)
		}
	}
}

// TestStoreIsNotReplacedUnderSemodule keeps libsemanage's lock, as a transaction of somebody else does, while the store is to be
// replaced: it waits.
//
// Proves P2.
func TestStoreIsNotReplacedUnderSemodule(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
	tree.Image(2)
	unlock, err := h.Root.LockForeign(t.Context(), "/var/lib/selinux/mcs/semanage.trans.LOCK", 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []Result)
	go func() {
		results, _ := host(t, tree).Run(t.Context(), []string{"policystore"}, false)
		done <- results
	}()
	select {
	case results := <-done:
		t.Fatalf("the store was replaced while semodule had the lock: %+v", results)
	case <-time.After(500 * time.Millisecond):
	}
	unlock()
	if results := <-done; len(results) != 1 || results[0].Outcome != Changed {
		t.Errorf("after the lock was free: %+v", results)
	}
	apply(t, h)
	if list := modules(t, tree); !slices.Contains(list, "400/by_hand") {
		t.Errorf("modules: %v", list)
	}
}

// TestDamagedStoreIsBuiltAnew empties a vendor's module in the store: no build may start from that.
//
// Proves P3.
func TestDamagedStoreIsBuiltAnew(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	if err := os.Truncate(filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/modules/100/base/cil"), 0); err != nil {
		t.Fatal(err)
	}
	tree.Write("etc/selinux-provision/modules/another.cil", "(type another_t)\n")
	results, err := h.Run(context.Background(), []string{"policy"}, false)
	if err != nil || results[0].Outcome != Failed || !strings.Contains(results[0].Error, "the vendor's module 100/base is missing or empty") {
		t.Fatalf("policy: %+v, %v", results, err)
	}
	apply(t, h, Changed, Changed, Unchanged, Unchanged)
	apply(t, h, Unchanged)
}

// TestQuarantineEndsWhenTheCauseDoes takes away what a module by hand lacked, and gives it back.
//
// Proves P3.
func TestQuarantineEndsWhenTheCauseDoes(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	tree.Write("etc/selinux-provision/modules/basis.cil", "(type basis_t)\n")
	h := host(t, tree)
	apply(t, h)
	tree.Semodule(tree.Dir, 400, map[string]string{"hand": "(type hand_t)\n(allow hand_t basis_t (file (read)))\n"})
	apply(t, h)
	basis := filepath.Join(tree.Dir, "etc/selinux-provision/modules/basis.cil")
	if err := os.Remove(basis); err != nil {
		t.Fatal(err)
	}
	apply(t, h, Unchanged, Partly, Unchanged)
	apply(t, h, Unchanged, Partly, Unchanged)
	tree.Write("etc/selinux-provision/modules/basis.cil", "(type basis_t)\n")
	apply(t, h, Unchanged, Changed, Unchanged)
	if list := modules(t, tree); !slices.Contains(list, "400/hand") {
		t.Errorf("modules: %v", list)
	}
	apply(t, h, Unchanged)
}

// TestLocalFileThatAnUpdateBreaks has a line of semanage's that names a type of the old image.
//
// Proves P3.
func TestLocalFileThatAnUpdateBreaks(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	tree.Write("var/lib/selinux/mcs/active/file_contexts.local", "/srv/op(/.*)?    system_u:object_r:legacy_t:s0\n")
	for range 2 {
		tree.Image(2)
		results := apply(t, h, Changed, Partly, Unchanged, Unchanged)
		if p := results[1].Problems; len(p) != 1 || !strings.Contains(p[0].Problem, "local file file_contexts.local") {
			t.Errorf("problems: %v", p)
		}
		if list := modules(t, tree); !slices.Contains(list, "500/kube_logreader") {
			t.Errorf("modules: %v", list)
		}
		apply(t, h, Unchanged, Partly, Unchanged, Unchanged)
		tree.Image(1)
		apply(t, h, Changed, Changed, Unchanged, Unchanged)
		if content, err := os.ReadFile(filepath.Join(tree.Dir, "var/lib/selinux/mcs/active/file_contexts.local")); err != nil || !strings.Contains(string(content), "legacy_t") {
			t.Errorf("after the rollback: %q, %v", content, err)
		}
		apply(t, h, Unchanged)
	}
}

// TestForeignFilesBesideThePolicy are no policies that libselinux would load.
func TestForeignFilesBesideThePolicy(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	tree.Write("etc/selinux/mcs/policy/policy.33.bak", "backup")
	tree.Write("etc/selinux/mcs/policy/policy.d/x", "x")
	apply(t, h, Unchanged)
}

// TestSwitchedOffByHand enables a declared module again.
func TestSwitchedOffByHand(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	out, err := (command.Tools{}).Run(t.Context(), "semodule", "--noreload", "--path", tree.Dir, "--store", "mcs", "--disable_dontaudit", "--disable", "kube_logreader")
	if err != nil {
		t.Fatalf("%v %s", err, out.Stderr)
	}
	apply(t, h, Unchanged, Changed, Unchanged, Unchanged)
	apply(t, h, Unchanged)
}

// TestShadowedFileContext declares a path that the vendor's policy has with another context.
func TestShadowedFileContext(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", `version: 1
policy: {file_contexts: [{path: '/etc(/.*)?', context: 'system_u:object_r:container_file_t:s0'}, {path: '/srv/x', context: 'system_u:object_r:etc_t:s0:c1,c2'}]}
`)
	results := apply(t, host(t, tree), Changed, Partly, Unchanged)
	if p := results[1].Problems; len(p) != 1 || !strings.Contains(p[0].Problem, "file context /etc(/.*)?: the policy has another context") {
		t.Errorf("problems: %v", p)
	}
}

// TestContextsThatNoFileGets names each of them, with what to write, and the rest is in force. What was made by hand later is seen without a rebuild.
func TestContextsThatNoFileGets(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", `version: 1
policy:
  file_contexts:
    - {path: '/var/run/app(/.*)?', context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/srv/glob/*', context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/srv/slash/', context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/srv/data(/.*)?', context: 'system_u:object_r:container_file_t:s0'}
  equivalences: [{path: /data/docker, like: /var/lib/docker}]
`)
	subs := "etc/selinux/mcs/contexts/files/file_contexts.subs"
	tree.Write("etc/selinux/mcs/contexts/files/file_contexts.subs_dist", "/var/run /run\n")
	tree.Write(subs, "/opt/theirs /srv/theirs\n")
	h := host(t, tree)
	named := func(result Result) (names string) {
		for _, p := range result.Problems {
			_, rest, _ := strings.Cut(p.Problem, "file context ")
			name, _, _ := strings.Cut(rest, ": ")
			names += name + " "
		}
		return names
	}
	const wrong = "/var/run/app(/.*)? /srv/glob/* /srv/slash/ "
	if got := named(apply(t, h, Changed, Partly, Unchanged, Unchanged)[1]); got != wrong {
		t.Errorf("apply names %s", got)
	}
	if content, err := os.ReadFile(filepath.Join(tree.Dir, subs)); err != nil || string(content) != "/opt/theirs /srv/theirs\n/data/docker /var/lib/docker\n" {
		t.Errorf("%q, %v", content, err)
	}
	if got := named(apply(t, h, Unchanged, Partly, Unchanged, Unchanged)[1]); got != wrong {
		t.Errorf("the second apply names %s", got)
	}
	tree.Write(subs, "/srv/data /srv/other\n/data/docker /var/lib/docker\n")
	if got := leftOut(t, tree); got != "/srv/data(/.*)? /srv/glob/* /srv/slash/ /var/run/app(/.*)?" {
		t.Errorf("status names %s", got)
	}
	tree.Write(subs, "/opt/theirs /srv/theirs\n/data/docker /var/lib/docker\n")
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	apply(t, h, Unchanged, Changed, Unchanged, Unchanged)
	if content, err := os.ReadFile(filepath.Join(tree.Dir, subs)); err != nil || string(content) != "/opt/theirs /srv/theirs\n" {
		t.Errorf("taken back: %q, %v", content, err)
	}
}

// TestEquivalencesGoWithRevert leaves a copy of what the operator has written beside them, and of nothing else.
func TestEquivalencesGoWithRevert(t *testing.T) {
	t.Parallel()
	for theirs, kept := range map[string]bool{"": false, "/opt/theirs /srv/theirs\n": true} {
		tree := flatcartest.New(t, flatcartest.Today)
		subs := "etc/selinux/mcs/contexts/files/file_contexts.subs"
		if theirs != "" {
			tree.Write(subs, theirs)
		}
		tree.Write("etc/selinux-provision/config.yaml", "version: 1\npolicy: {equivalences: [{path: /data/docker, like: /var/lib/docker}]}\n")
		h := host(t, tree)
		apply(t, h, Changed, Changed, Unchanged, Unchanged)
		if result, err := h.Revert(t.Context(), false); err != nil || result.Outcome != Changed {
			t.Fatalf("%+v, %v", result, err)
		}
		if _, err := os.Lstat(filepath.Join(tree.Dir, subs)); !os.IsNotExist(err) {
			t.Errorf("%q: it is still there: %v", theirs, err)
		}
		if found := holds(t, filepath.Join(tree.Dir, KeptDir), "/data/docker"); (len(found) > 0) != kept {
			t.Errorf("%q: kept %v", theirs, found)
		}
	}
}

// TestRootWithALinkOutOfIt is about tools that know no root.
func TestRootWithALinkOutOfIt(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	victim := t.TempDir()
	dir := filepath.Join(tree.Dir, "etc/selinux/mcs/contexts/files")
	if err := os.MkdirAll(filepath.Join(tree.Dir, victim), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(tree.Dir, victim, "files")); err != nil {
		t.Fatal(err)
	}
	tree.Link(victim+"/files", "etc/selinux/mcs/contexts/files")
	results := apply(t, host(t, tree))
	if r := results[1]; r.Outcome != Failed || !strings.Contains(r.Error, "leads out of the tree") {
		t.Errorf("policy: %s %q", r.Outcome, r.Error)
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
		t.Errorf("outside the tree: %v, %v", entries, err)
	}
}

// TestOperatorsAuditRules leaves alone what hides nothing, and gives back what it replaced.
func TestOperatorsAuditRules(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	const harmless, hiding = "-w /etc/passwd -p wa -k site\n", "-a never,exclude -F msgtype=AVC\n"
	tree.Write("etc/audit/rules.d/99-default.rules", harmless)
	tree.Write("etc/audit/rules.d/80-selinux.rules", hiding)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\naudit: {log_denials: true}\n")
	h := host(t, tree)
	apply(t, h)
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(tree.Dir, "etc/audit/rules.d", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if got := read("99-default.rules"); got != harmless {
		t.Errorf("a harmless file became %q", got)
	}
	if got := read("80-selinux.rules"); !strings.HasPrefix(got, neutralMark) {
		t.Errorf("a hiding file is still %q", got)
	}
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	apply(t, h)
	if got := read("80-selinux.rules"); got != hiding {
		t.Errorf("the operator's file came back as %q", got)
	}
}

// TestWrongConfigurationAfterAnUpdate leaves a fresh host as it is, and lets the store and the policy of a provisioned one follow
// the OS image all the same.
func TestWrongConfigurationAfterAnUpdate(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmod: enforcing\n")
	before := snapshot(t, tree.Dir)
	for _, stage := range append(names(), "") {
		run := names()
		if stage != "" {
			run = []string{stage}
		}
		if _, err := host(t, tree).Run(t.Context(), run, false); err == nil || !strings.Contains(err.Error(), "config.yaml:2") {
			t.Errorf("%s: %v", stage, err)
		}
		compare(t, "a fresh host with a wrong configuration", snapshot(t, tree.Dir), before)
	}

	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	h := host(t, tree)
	apply(t, h, Changed)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmod: enforcing\n")
	tree.Image(2)
	if results, err := h.Run(t.Context(), []string{"policystore"}, false); err != nil || results[0].Outcome != Changed {
		t.Fatalf("policystore: %+v, %v", results, err)
	}
	if _, err := h.Run(t.Context(), []string{"policy"}, false); err == nil || !strings.Contains(err.Error(), "config.yaml:2") ||
		!strings.Contains(err.Error(), "the vendor's own policy is in force") {
		t.Errorf("policy: %v", err)
	}
	got, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/mcs/policy/policy.33"))
	want, err2 := os.ReadFile(filepath.Join(tree.Dir, "usr/lib/selinux/mcs/policy/policy.33"))
	if err != nil || err2 != nil || string(got) != string(want) {
		t.Errorf("the policy is not this image's: %v, %v", err, err2)
	}
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	apply(t, h)
	apply(t, h, Unchanged)
}

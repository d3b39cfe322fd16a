package stages

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

const activeStore = "var/lib/selinux/mcs/active/"

// handwork is what an operator does by hand to a host with a writable store. other says what of it no configuration can say.
type handwork struct {
	name  string
	do    func(t *testing.T, tree *flatcartest.Tree)
	other string
}

func appendTo(t *testing.T, tree *flatcartest.Tree, name, line string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(tree.Dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	tree.Write(name, string(content)+line+"\n")
}

// handworks is all of it, in an order in which each can be done after those before.
func handworks() []handwork {
	line := func(name, line, other string) handwork {
		return handwork{filepath.Base(name) + ": " + line, func(t *testing.T, tree *flatcartest.Tree) { appendTo(t, tree, name, line) }, other}
	}
	module := func(priority int, name, text, other string) handwork {
		return handwork{fmt.Sprintf("module %d/%s", priority, name), func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Semodule(tree.Dir, priority, map[string]string{name: text})
		}, other}
	}
	const labels = "etc/selinux/mcs/contexts/files/file_contexts.subs"
	return []handwork{
		line(activeStore+"booleans.local", "container_connect_any=0", ""),
		line(activeStore+"file_contexts.local", "/srv/one(/.*)?\tsystem_u:object_r:etc_t:s0", ""),
		line(activeStore+"file_contexts.local", "/srv/two -d system_u:object_r:etc_t:s0", ""),
		line(activeStore+"file_contexts.local", "/srv/it's\\.three <<none>>", ""),
		line(labels, "/data/like /etc", ""),
		module(100, "alpha", "(type alpha_t)\n(roletype object_r alpha_t)\n", ""),
		module(400, "beta", "(type beta_t)\n(roletype object_r beta_t)\n(filecon \"/srv/beta\" any (system_u object_r beta_t ((s0) (s0))))\n", ""),
		module(400, "permissive_container_t", "(typepermissive container_t)", ""),
		module(300, "gamma", "(type gamma_t)\n(roletype object_r gamma_t)\n", ""),
		module(400, "gamma", "(type gamma_t)\n(roletype object_r gamma_t)\n(type delta_t)\n", "300/gamma"),
		module(400, "legacy", "(type legacy_t)\n(roletype object_r legacy_t)\n(type mended_t)\n", ""),
		{"semodule -DB", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Semodule(tree.Dir, 400, map[string]string{"touch": "(type touch_t)\n"}, "-D")
		}, ""},
		{"the mode", func(_ *testing.T, tree *flatcartest.Tree) {
			_ = os.Remove(filepath.Join(tree.Dir, "etc/selinux/config")) // a link to the vendor's, on some layouts
			tree.Write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=mcs\n")
		}, ""},
		line(activeStore+"ports.local", "portcon tcp 8888 system_u:object_r:etc_t:s0", "8888"),
		{"audit rules", func(_ *testing.T, tree *flatcartest.Tree) {
			for name := range flatcartest.Rules() {
				_ = os.Remove(filepath.Join(tree.Dir, "etc/audit/rules.d", name)) // a link to the vendor's, on some layouts
				tree.Write("etc/audit/rules.d/"+name, "# mine\n")
			}
		}, ""},
		{"an edited file", func(t *testing.T, tree *flatcartest.Tree) {
			appendTo(t, tree, "etc/selinux/mcs/contexts/customizable_types", "mine_t")
		}, "customizable_types"},
	}
}

// effect is what the policy in force, the labels and the mode are like.
func effect(t *testing.T, tree *flatcartest.Tree) map[string]string {
	t.Helper()
	root := host(t, tree).Root
	p, err := policydb.Read(seconfig.OpenPolicy(root, seconfig.Dir, "mcs"))
	if err != nil {
		t.Fatal(err)
	}
	contexts, err := filecontexts.Load(root, "mcs")
	if err != nil {
		t.Fatal(err)
	}
	is := map[string]string{"dontaudits": fmt.Sprint(p.Dontaudits()), "permissive": fmt.Sprint(p.Permissive()),
		"boolean": fmt.Sprint(p.Allowed(policydb.Question{Domain: "container_t", Target: "unlabeled_t", Class: "dir", Permissions: []string{"read"}}))}
	for _, name := range []string{"alpha_t", "beta_t", "gamma_t", "delta_t", "legacy_t", "mended_t"} {
		is[name] = fmt.Sprint(p.Has(name))
	}
	for path, kind := range map[string]filecontexts.Kind{"/srv/one/x": filecontexts.Regular, "/srv/two": filecontexts.Directory, "/srv/it's.three": filecontexts.Regular,
		"/srv/beta": filecontexts.Regular, "/data/like/x": filecontexts.Regular} {
		context, found := contexts.Lookup(path, kind)
		is[path] = fmt.Sprint(context, found)
	}
	config, err := seconfig.Read(root, seconfig.Path)
	if err != nil {
		t.Fatal(err)
	}
	is["mode"] = config.Mode
	for _, name := range slices.Sorted(maps.Keys(flatcartest.Rules())) {
		content, err := root.ReadFile(rulesDir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		is["audit"] += fmt.Sprint(len(hidingRules(string(content))))
	}
	return is
}

// adopt does what the output of status --export says.
func adopt(tree *flatcartest.Tree, found *Handmade) {
	if len(found.Config) > 0 {
		tree.Write("etc/selinux-provision/config.d/50-by-hand.yaml", string(found.Config))
	}
	for _, m := range found.Modules {
		tree.Write(m.Path, string(m.Content))
	}
}

// TestHandmadeIsDeclared does random work by hand on a host that is provisioned, or to whose store a guide was followed, and declares what is
// found: the host is as it was, nothing is left to do or to declare, and a fresh host with the declaration alone is like it.
func TestHandmadeIsDeclared(t *testing.T) {
	t.Parallel()
	seeds := 18
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		layout := flatcartest.Layouts()[seed%3]
		t.Run(fmt.Sprintf("%s/%d", layout, seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 2))
			tree := flatcartest.New(t, layout)
			h := host(t, tree)
			apply(t, h) // nothing is declared: the store is writable
			if seed%2 == 0 {
				if err := os.RemoveAll(filepath.Join(tree.Dir, StateDir)); err != nil { // as if somebody else had made it so
					t.Fatal(err)
				}
			}
			var did, others []string
			strip := []string{}
			for _, work := range handworks() {
				if random.IntN(2) == 0 && seed > 1 { // the first two do all of it
					continue
				}
				if work.name == "module 400/legacy" && seed%2 == 0 {
					continue // without a record it may be an older image's
				}
				if work.name == "semodule -DB" {
					strip = []string{"-D"}
				}
				work.do(t, tree)
				did = append(did, work.name)
				if work.other != "" && (work.name != "module 400/gamma" || slices.Contains(did, "module 300/gamma")) {
					others = append(others, work.other)
				}
			}
			tree.Semodule(tree.Dir, 400, map[string]string{"touch": "(type touch_t)\n"}, strip...)
			want := effect(t, tree)

			found, err := h.Handmade(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			undeclarable := slices.Concat(found.Other, found.Replaced)
			for _, other := range others {
				if !slices.ContainsFunc(undeclarable, func(line string) bool { return strings.Contains(line, other) }) {
					t.Errorf("%q is not among what cannot be declared: %q", other, undeclarable)
				}
			}
			if len(undeclarable) != len(others) {
				t.Errorf("what cannot be declared: %q, want %d", undeclarable, len(others))
			}
			adopt(tree, found)
			apply(t, h)
			apply(t, h, Unchanged)
			compare(t, "after it was declared", effect(t, tree), want)
			s, err := h.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !s.AsDeclared {
				t.Errorf("status: %v", s.Problems)
			}
			again, err := h.Handmade(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(again.Config) > 0 || len(again.Modules) > 0 {
				t.Errorf("it is declared, and is to be declared again:\n%s%v", again.Config, again.Modules)
			}

			fresh := flatcartest.New(t, layout)
			adopt(fresh, found)
			apply(t, host(t, fresh))
			compare(t, "on a fresh host", effect(t, fresh), want)
			if t.Failed() {
				t.Logf("by hand: %q\n%s", did, found.Config)
			}
		})
	}
}

// TestUndeclared: what is declared to the letter is not declared again, and what differs in one thing is.
func TestUndeclared(t *testing.T) {
	t.Parallel()
	context := policystore.FileContext{Path: "/srv", Type: "dir", Context: "u:r:t:s0"}
	contexts := []provision.FileContext{{Path: context.Path, Type: context.Type, Context: context.Context}}
	like := []provision.Equivalence{{Path: "/data", Like: "/etc"}}
	module := func(replaces bool) *policystore.Handmade {
		return &policystore.Handmade{Modules: []policystore.HandmadeModule{{Priority: 400, Name: "web", Lang: "pp", Content: []byte("x"), ReplacesVendor: replaces}}}
	}
	modules := []provision.Module{{Name: "web", Lang: "pp", Content: []byte("x"), Path: "/etc/selinux-provision/modules/web.pp"}}
	for _, c := range []struct {
		name           string
		found          *policystore.Handmade
		declared, want provision.State
	}{
		{"nothing", &policystore.Handmade{}, provision.State{Mode: provision.Enforcing}, provision.State{}},
		{"a module", module(false), provision.State{}, provision.State{Modules: modules}},
		{"a module, and those are listed", module(false), provision.State{ModulesListed: true}, provision.State{Modules: modules, ModulesListed: true}},
		{"a module over the vendor's", module(true), provision.State{}, provision.State{Modules: modules, ReplaceVendorModules: []string{"web"}}},
		{"one that is declared to be over it", module(true), provision.State{ReplaceVendorModules: []string{"web"}}, provision.State{Modules: modules}},
		{"booleans", &policystore.Handmade{Booleans: map[string]bool{"b": false}}, provision.State{}, provision.State{Booleans: map[string]bool{"b": false}}},
		{"dontaudit", &policystore.Handmade{Dontaudit: true}, provision.State{}, provision.State{StripDontaudit: true}},
		{"dontaudit, declared", &policystore.Handmade{Dontaudit: true}, provision.State{StripDontaudit: true}, provision.State{}},
		{"dontaudit, declared alone", &policystore.Handmade{}, provision.State{StripDontaudit: true}, provision.State{}},
		{"a file context", &policystore.Handmade{FileContexts: []policystore.FileContext{context}}, provision.State{}, provision.State{FileContexts: contexts}},
		{"one that is declared", &policystore.Handmade{FileContexts: []policystore.FileContext{context}}, provision.State{FileContexts: contexts}, provision.State{}},
		{"one that is declared for another path", &policystore.Handmade{FileContexts: []policystore.FileContext{context}},
			provision.State{FileContexts: []provision.FileContext{{Path: "/x", Type: "dir", Context: "u:r:t:s0"}}}, provision.State{FileContexts: contexts}},
		{"one that is declared for all types of files", &policystore.Handmade{FileContexts: []policystore.FileContext{context}},
			provision.State{FileContexts: []provision.FileContext{{Path: "/srv", Type: "any", Context: "u:r:t:s0"}}}, provision.State{FileContexts: contexts}},
		{"one that is declared with another label", &policystore.Handmade{FileContexts: []policystore.FileContext{context}},
			provision.State{FileContexts: []provision.FileContext{{Path: "/srv", Type: "dir", Context: "u:r:x:s0"}}}, provision.State{FileContexts: contexts}},
		{"an equivalence", &policystore.Handmade{Equivalences: []policystore.Equivalence{{Path: "/data", Like: "/etc"}}}, provision.State{}, provision.State{Equivalences: like}},
		{"one that is declared", &policystore.Handmade{Equivalences: []policystore.Equivalence{{Path: "/data", Like: "/etc"}}}, provision.State{Equivalences: like}, provision.State{}},
		{"one that is declared like another path", &policystore.Handmade{Equivalences: []policystore.Equivalence{{Path: "/data", Like: "/etc"}}},
			provision.State{Equivalences: []provision.Equivalence{{Path: "/data", Like: "/usr"}}}, provision.State{Equivalences: like}},
	} {
		c.want.Mode = provision.Unmanaged // what is said of it comes from elsewhere
		if got := undeclared(c.found, &c.declared, provision.Unmanaged); !reflect.DeepEqual(got, &c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, &c.want)
		}
	}
}

// What "semanage permissive" does is declared as such where the host enforces, and is a module like others where it does not.
func TestPermissiveByHand(t *testing.T) {
	t.Parallel()
	found := &policystore.Handmade{Modules: []policystore.HandmadeModule{{Priority: 400, Name: "permissive_a_t", Lang: "cil", Permissive: []string{"a_t"}}}}
	domains := []provision.PermissiveDomain{{Type: "a_t"}}
	for _, c := range []struct {
		name     string
		declared provision.State
		mode     provision.Mode // by hand
		domains  int
		modules  int
	}{
		{"nothing is known of the mode", provision.State{}, provision.Unmanaged, 0, 1},
		{"permissive by hand", provision.State{}, provision.Permissive, 0, 1},
		{"permissive", provision.State{Mode: provision.Permissive}, provision.Unmanaged, 0, 1},
		{"enforcing by hand", provision.State{}, provision.Enforcing, 1, 0},
		{"enforcing", provision.State{Mode: provision.Enforcing}, provision.Unmanaged, 1, 0},
		{"declared", provision.State{Mode: provision.Enforcing, PermissiveDomains: domains}, provision.Unmanaged, 0, 0},
		{"declared, and permissive", provision.State{Mode: provision.Permissive, PermissiveDomains: domains}, provision.Unmanaged, 0, 0},
	} {
		if got := undeclared(found, &c.declared, c.mode); len(got.PermissiveDomains) != c.domains || len(got.Modules) != c.modules || got.Mode != c.mode {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestHandmadeMode tells the operator's mode from the vendor's.
func TestHandmadeMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		have, vendors string // the files, "" is none
		want          provision.Mode
	}{
		{"SELINUX=permissive\n", "SELINUX=permissive\n", provision.Unmanaged},
		{"SELINUX=enforcing\n", "SELINUX=permissive\n", provision.Enforcing},
		{"SELINUX=permissive\n", "SELINUX=enforcing\n", provision.Permissive},
		{"SELINUX=disabled\n", "SELINUX=permissive\n", provision.Unmanaged},
		{"", "SELINUX=permissive\n", provision.Unmanaged},
		{"SELINUX=enforcing\n", "", provision.Enforcing},
	} {
		tree := flatcartest.Empty(t)
		for name, content := range map[string]string{"etc/selinux/config": c.have, "usr/lib/selinux/config": c.vendors} {
			if content != "" {
				tree.Write(name, content)
			}
		}
		if got, err := host(t, tree).handmadeMode(); got != c.want || err != nil {
			t.Errorf("%q over %q: %s, %v, want %s", c.have, c.vendors, got, err, c.want)
		}
	}
}

// TestHandmadeRules: denials reach the journal by somebody's hand where the vendor has rules that hide them and the host has none of those.
func TestHandmadeRules(t *testing.T) {
	t.Parallel()
	const selinux, all = "80-selinux.rules", "99-default.rules"
	hides := "-a always,exclude -F msgtype=AVC\n"
	for _, c := range []struct {
		name          string
		vendors, have map[string]string
		want          bool
	}{
		{"as it is shipped", map[string]string{selinux: hides, all: hides}, map[string]string{selinux: hides, all: hides}, false},
		{"both are changed", map[string]string{selinux: hides, all: hides}, map[string]string{selinux: "# mine\n", all: "# mine\n"}, true},
		{"both are gone", map[string]string{selinux: hides, all: hides}, nil, true},
		{"the first is changed", map[string]string{selinux: hides, all: hides}, map[string]string{selinux: "# mine\n", all: hides}, false},
		{"the second is changed", map[string]string{selinux: hides, all: hides}, map[string]string{selinux: hides, all: "# mine\n"}, false},
		{"the vendor hides nothing", map[string]string{selinux: "-D\n", all: "-D\n"}, map[string]string{selinux: "# mine\n", all: "# mine\n"}, false},
		{"the vendor has one file", map[string]string{all: hides}, map[string]string{all: "# mine\n"}, true},
		{"the vendor has none", nil, map[string]string{selinux: "# mine\n"}, false},
		{"they are neutralised by us", map[string]string{selinux: hides, all: hides}, map[string]string{selinux: string(neutral(selinux)), all: string(neutral(all))}, false},
	} {
		tree := flatcartest.Empty(t)
		for dir, files := range map[string]map[string]string{"usr/share/audit/rules.d/": c.vendors, "etc/audit/rules.d/": c.have} {
			for name, content := range files {
				tree.Write(dir+name, content)
			}
		}
		if got, err := host(t, tree).handmadeRules(); got != c.want || err != nil {
			t.Errorf("%s: %t, %v", c.name, got, err)
		}
	}
}

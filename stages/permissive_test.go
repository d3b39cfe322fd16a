package stages

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

const configFile = "etc/selinux-provision/config.yaml"

// permissiveIn gives the permissive domains of the policy that a tree would load.
func permissiveIn(t *testing.T, tree *flatcartest.Tree) []string {
	t.Helper()
	p, err := policydb.Read(seconfig.OpenPolicy(host(t, tree).Root, seconfig.Dir, "mcs"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Permissive()
}

// statusLines gives what status says of permissive domains, and what it finds wrong.
func statusLines(t *testing.T, tree *flatcartest.Tree) (domains, problems []string) {
	t.Helper()
	s, err := host(t, tree).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Permissive {
		domains = append(domains, p.String())
	}
	for _, p := range s.Problems {
		problems = append(problems, p.Problem)
	}
	return domains, problems
}

// A declared domain is permissive, by one build, on each layout: by its name or by an alias, the vendor's or one that a declared module brings. A
// second run has nothing to do; after an update it is still so; declared no more it is enforced again, and so it is after revert.
func TestPermissiveDomains(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			tree := flatcartest.New(t, layout)
			const site = "(type site_t)\n(roletype system_r site_t)\n(typealias site_alias_t)\n(typealiasactual site_alias_t site_t)\n"
			tree.Write("etc/selinux-provision/modules/site.cil", site)
			tree.Write(configFile, "version: 1\nmode: enforcing\n")
			apply(t, host(t, tree))
			tree.Write(configFile, "version: 1\nmode: enforcing\nenforce:\n  permissive_domains:\n  - container_t\n  - site_alias_t\n")
			results, err := host(t, tree).Run(t.Context(), []string{"policystore", "policy"}, true)
			if err != nil || len(results) != 2 || len(results[1].Planned) != 1 ||
				results[1].Planned[0].Reason != "the declared state changed; permissive from now on: container_t, site_alias_t" {
				t.Errorf("what would be done: %+v, %v", results, err)
			}
			if done := apply(t, host(t, tree))[1].Done; len(done) != 1 || !strings.HasPrefix(done[0].Result, "1 module, 0 file contexts, 0 booleans, 2 permissive domains (semodule ") {
				t.Errorf("what was done: %+v", done)
			}
			want := []string{"container_t", "site_t"}
			declared := []string{"container_t is permissive: declared in /etc/selinux-provision/config.yaml:5: enforce.permissive_domains",
				"site_t is permissive: declared in /etc/selinux-provision/config.yaml:6: enforce.permissive_domains"}
			as := func(when string, want, says []string) {
				t.Helper()
				if got := permissiveIn(t, tree); !slices.Equal(got, want) {
					t.Errorf("%s: permissive: %v, want %v", when, got, want)
				}
				if got, problems := statusLines(t, tree); !slices.Equal(got, says) || len(problems) != 0 {
					t.Errorf("%s: status says %q, and finds %q\nwant %q", when, got, problems, says)
				}
			}
			as("declared", want, declared)
			apply(t, host(t, tree), Unchanged)
			tree.Image(2)
			apply(t, host(t, tree))
			as("after an update", want, declared)
			apply(t, host(t, tree), Unchanged)

			tree.Write(configFile, "version: 1\nmode: enforcing\nenforce:\n  permissive_domains: [site_t]\n")
			if got, _ := statusLines(t, tree); len(got) != 2 || got[0] != "container_t is permissive: declared in what was applied last, and not any more: run selinux-provision apply" {
				t.Errorf("before it is applied: %q", got)
			}
			apply(t, host(t, tree))
			as("one is enforced", []string{"site_t"}, []string{"site_t is permissive: declared in /etc/selinux-provision/config.yaml:4: enforce.permissive_domains"})
			if _, err := host(t, tree).Revert(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if got := permissiveIn(t, tree); got != nil {
				t.Errorf("after revert: %v", got)
			}
		})
	}
}

// What is no domain is a problem with file, line and key, each by itself, and all else is in force.
func TestPermissiveDomainsThatAreNone(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/modules/site.cil", "(type site_t)\n(roletype system_r site_t)\n")
	tree.Write("etc/selinux-provision/modules/broken.cil", "(type broken_t)\n(roletype system_r broken_t)\n(allow broken_t nothing_t (file (read)))\n")
	tree.Write(configFile, "version: 1\nenforce:\n  permissive_domains:\n  - contaner_t\n  - kernel_t\n  - etc_t\n  - broken_t\n  - site_t\n")
	h := host(t, tree)
	said := []string{}
	for _, p := range apply(t, h)[1].Problems {
		if strings.HasPrefix(p.Problem, "permissive domain ") {
			said = append(said, p.Problem)
		}
	}
	const at = " [/etc/selinux-provision/config.yaml:%d: enforce.permissive_domains]"
	want := []string{fmt.Sprintf(`permissive domain broken_t: the policy has no type "broken_t"`+at, 7),
		fmt.Sprintf(`permissive domain contaner_t: the policy has no type "contaner_t": did you mean container_t?`+at, 4),
		fmt.Sprintf("permissive domain etc_t: it is no domain: no process can run in it, since no role may have it"+at, 6)}
	slices.Sort(said)
	if !slices.Equal(said, want) {
		t.Errorf("it says %q\nwant %q", said, want)
	}
	if got := permissiveIn(t, tree); !slices.Equal(got, []string{"etc_t", "kernel_t", "site_t"}) {
		t.Errorf("permissive: %v", got)
	}
	for _, r := range apply(t, h) {
		if len(r.Done) > 0 {
			t.Errorf("again: %+v", r)
		}
	}
}

// An attribute is no domain, and takes nothing with it.
func TestPermissiveAttribute(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write(configFile, "version: 1\nenforce: {permissive_domains: [container_t, file_type, kernel_t]}\n")
	problems := apply(t, host(t, tree))[1].Problems
	if len(problems) != 1 || !strings.HasPrefix(problems[0].Problem, `permissive domain file_type: the policy has no type "file_type"`) {
		t.Errorf("problems: %v", problems)
	}
	if got := permissiveIn(t, tree); !slices.Equal(got, []string{"container_t", "kernel_t"}) {
		t.Errorf("permissive: %v", got)
	}
}

// Who made a domain permissive is told apart, and that it stays so when one of several reasons is gone.
func TestWhoMadeDomainsPermissive(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/modules/site.cil", "(block site (type main_t) (roletype system_r main_t) (typepermissive main_t))\n(type extra_t)\n(roletype system_r extra_t)\n")
	tree.Write(configFile, "version: 1\nmode: enforcing\nenforce: {permissive_domains: [container_t]}\n")
	apply(t, host(t, tree))
	tree.Semodule(tree.Dir, 400, map[string]string{"permissive_container_t": "(typepermissive container_t)", "mine": "; mine\n(optional x (typepermissive extra_t))\n(type mine_t)"})
	const declared, byHand = "declared in /etc/selinux-provision/config.yaml:3: enforce.permissive_domains", "by hand, in module permissive_container_t (priority 400)"
	want := []string{"container_t is permissive: " + declared + "; " + byHand, "extra_t is permissive: by hand, in module mine (priority 400)",
		"site.main_t is permissive: by the declared module site"}
	if got, problems := statusLines(t, tree); !slices.Equal(got, want) || len(problems) > 0 {
		t.Errorf("got %q, %q\nwant %q", got, problems, want)
	}
	tree.Write(configFile, "version: 1\nmode: enforcing\n")
	apply(t, host(t, tree))
	if got, _ := statusLines(t, tree); len(got) != 3 || got[0] != "container_t is permissive: "+byHand {
		t.Errorf("declared no more: %q", got)
	}
	if found, err := host(t, tree).Handmade(t.Context()); err != nil || !strings.Contains(string(found.Config), "enforce:\n  permissive_domains:\n    - 'container_t'\n") ||
		len(found.Modules) != 1 || found.Modules[0].Name != "mine" {
		t.Errorf("exported: %+v, %v\n%s", found, err, found.Config)
	}

	// The OS image's policy may have one, too.
	vendors := flatcartest.New(t, flatcartest.Today)
	store := filepath.Join(vendors.Dir, "usr/lib/selinux/policy/mcs/active/policy.kern")
	lenient := flatcartest.New(t, flatcartest.Today)
	lenient.Write(configFile, "version: 1\nenforce: {permissive_domains: [container_t]}\n")
	apply(t, host(t, lenient))
	content, err := os.ReadFile(filepath.Join(lenient.Dir, "var/lib/selinux/mcs/active/policy.kern"))
	if err != nil {
		t.Fatal(err)
	}
	policies, err := filepath.Glob(filepath.Join(vendors.Dir, "etc/selinux/mcs/policy/policy.*"))
	if err != nil || len(policies) != 1 {
		t.Fatal(policies, err)
	}
	for _, name := range []string{store, policies[0]} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := host(t, vendors).Status(t.Context()); err != nil || len(s.Permissive) != 1 || s.Permissive[0].String() != "container_t is permissive: by the OS image's own policy" {
		t.Errorf("the vendor's: %+v, %v", s, err)
	}
}

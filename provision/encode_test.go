package provision

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What is written is read as it was meant, and what no config file may say is named.
func TestEncode(t *testing.T) {
	contexts := func(paths ...string) (all []FileContext) {
		for _, p := range paths {
			all = append(all, FileContext{Path: p, Type: "any", Context: "system_u:object_r:etc_t:s0"})
		}
		return all
	}
	for _, c := range []struct {
		name    string
		state   State
		text    string // "" is not compared
		refused []string
	}{
		{"nothing", State{Mode: Unmanaged}, "version: 1\n", nil},
		{"a mode", State{Mode: Enforcing}, "version: 1\nmode: enforcing\n", nil},
		{"audit", State{Mode: Unmanaged, LogDenials: true, StripDontaudit: true}, "version: 1\naudit:\n  log_denials: true\n  dontaudit: strip\n", nil},
		{"all of a policy", State{Mode: Unmanaged, ModulesListed: true, Modules: []Module{{Name: "site", Lang: "cil"}}, ReplaceVendorModules: []string{"container"},
			Roles: []string{"log-reader", "k3s"}, Booleans: map[string]bool{"b": false, "a": true}, FileContexts: []FileContext{{Path: `/srv/o'brien\.d(/.*)?`, Type: "dir", Context: "<<none>>"}},
			Equivalences: []Equivalence{{Path: "/data/docker", Like: "/var/lib/docker"}}},
			`version: 1
policy:
  modules:
    - path: '/etc/selinux-provision/modules/site.cil'
  replace_vendor_modules:
    - 'container'
  roles:
    - 'log-reader'
    - 'k3s'
  booleans:
    'a': true
    'b': false
  file_contexts:
    - {path: '/srv/o''brien\.d(/.*)?', type: dir, context: '<<none>>'}
  equivalences:
    - {path: '/data/docker', like: '/var/lib/docker'}
`, nil},
		{"domains", State{Mode: Enforcing, PermissiveDomains: []PermissiveDomain{{Type: "a_t"}, {Type: "b.c_t"}}},
			"version: 1\nmode: enforcing\nenforce:\n  permissive_domains:\n    - 'a_t'\n    - 'b.c_t'\n", nil},
		{"what is no domain", State{Mode: Unmanaged, PermissiveDomains: []PermissiveDomain{{Type: "a t"}, {Type: "b_t\x01"}}}, "version: 1\n", []string{"a t", "b_t"}},
		{"what is no text", State{Mode: Unmanaged, FileContexts: contexts("/a\x01", "/b", "/c\xff")}, "", []string{"/a", "/c"}},
		{"what is refused", State{Mode: Unmanaged, Booleans: map[string]bool{"no name": true, "name": true}, FileContexts: contexts("no/path", "/good", "/x("),
			Equivalences: []Equivalence{{Path: "/a/../b", Like: "/c"}}}, "", []string{"no name", "no/path", "/x(", "/a/../b"}},
		{"one line with two problems", State{Mode: Unmanaged, FileContexts: []FileContext{{Path: "no/path", Type: "any", Context: "no context"}}}, "version: 1\n", []string{"no/path"}},
		{"nothing but what is refused", State{Mode: Unmanaged, FileContexts: contexts("x", "y")}, "version: 1\n", []string{"'x'", "'y'"}},
		{"the name of a module", State{Mode: Unmanaged, Modules: []Module{{Name: "selinux_provision_x", Lang: "cil"}}}, "version: 1\n", []string{"selinux_provision_x"}},
		{"the name of a module in the place of the vendor's", State{Mode: Unmanaged, Modules: []Module{{Name: "9p", Lang: "cil"}}, ReplaceVendorModules: []string{"9p"}},
			"version: 1\n", []string{"9p"}},
		{"a role that nobody has, and no module", State{Mode: Unmanaged, Roles: []string{"no-such", "k3s"}, ReplaceVendorModules: []string{"9p"}}, "version: 1\npolicy:\n  roles:\n    - 'k3s'\n", []string{"no-such", "9p"}},
		{"more than the problems that are listed", State{Mode: Unmanaged, FileContexts: contexts(strings.Split(strings.Repeat("x,", 300)+"/good", ",")...)}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, said, refused := Encode(&c.state)
			if c.text != "" && string(text) != c.text {
				t.Errorf("it wrote\n%s", text)
			}
			for _, what := range c.refused {
				if !slices.ContainsFunc(refused, func(line string) bool { return strings.Contains(line, what) }) {
					t.Errorf("%q is not among what was refused: %q", what, refused)
				}
			}
			if c.refused == nil && c.text != "" && len(refused) > 0 || c.refused != nil && len(refused) != len(c.refused) {
				t.Errorf("refused: %q", refused)
			}
			doc, err := Parse("x", strings.NewReader(string(text)))
			if err != nil {
				t.Fatalf("what was written is refused: %v\n%s", err, text)
			}
			for i := range doc.fileContexts {
				doc.fileContexts[i].Source = Position{}
			}
			for i := range doc.equivalences {
				doc.equivalences[i].Source = Position{}
			}
			if len(doc.fileContexts) != len(said.FileContexts) || len(said.FileContexts) > 0 && !reflect.DeepEqual(doc.fileContexts, said.FileContexts) {
				t.Errorf("file contexts: %v, want %v", doc.fileContexts, said.FileContexts)
			}
			if len(doc.equivalences) != len(said.Equivalences) || len(said.Equivalences) > 0 && !reflect.DeepEqual(doc.equivalences, said.Equivalences) {
				t.Errorf("equivalences: %v, want %v", doc.equivalences, said.Equivalences)
			}
			if !slices.Equal(doc.roles, said.Roles) {
				t.Errorf("roles: %v, want %v", doc.roles, said.Roles)
			}
			if len(doc.booleans) != len(said.Booleans) || len(said.Booleans) > 0 && !reflect.DeepEqual(doc.booleans, said.Booleans) {
				t.Errorf("booleans: %v, want %v", doc.booleans, said.Booleans)
			}
		})
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("/srv/data(/.*)?", "system_u:object_r:etc_t:s0", "a")
	f.Add("/srv", "kube_logreader_t", "svirt_lxc_net_t")
	f.Add("/a'b\\\x00\n: {", "#", "- x")
	f.Fuzz(func(t *testing.T, path, context, name string) {
		text, _, _ := Encode(&State{Mode: Unmanaged, Booleans: map[string]bool{name: true}, FileContexts: []FileContext{{Path: path, Type: "file", Context: context}},
			Equivalences: []Equivalence{{Path: path, Like: context}}, Modules: []Module{{Name: name, Lang: "pp"}}, ModulesListed: true, ReplaceVendorModules: []string{path, name}, Roles: []string{context, name},
			PermissiveDomains: []PermissiveDomain{{Type: name}, {Type: context}}})
		if _, err := Parse("x", strings.NewReader(string(text))); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

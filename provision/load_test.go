package provision

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// tree is a real directory that stands for the root of a host.
type tree string

func (r tree) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(r), name))
}

func (r tree) ReadDir(name string) ([]fs.DirEntry, error) {
	return os.ReadDir(filepath.Join(string(r), name))
}

// plant makes a tree. A name that ends in / is a directory, a content that begins with "->" a symbolic link.
func plant(t *testing.T, files map[string]string) tree {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(file, 0o755)
		} else if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree(root)
}

const dir = "/etc/selinux-provision/"

// Proves V10.
func TestLoadNothing(t *testing.T) {
	for _, files := range []map[string]string{
		nil, {dir: ""}, {dir + "config.d/": "", dir + "modules/": ""},
		{dir + "config.d/README": "x", dir + "config.d/.old.yaml": "x", dir + "config.d/10-a.yaml~": "x", dir + "config.yaml.example": "x"},
	} {
		s, err := Load(plant(t, files), "")
		if err != nil {
			t.Fatal(err)
		}
		if want := (&State{Mode: Unmanaged, Booleans: map[string]bool{}}); !reflect.DeepEqual(s, want) {
			t.Errorf("got %+v", s)
		}
	}
}

func TestLoadModulesWithoutConfig(t *testing.T) {
	s, err := Load(plant(t, map[string]string{
		dir + "modules/zebra.pp": "z", dir + "modules/ant.cil": "a", dir + "modules/.hidden": "", dir + "modules/README.md": "",
		dir + "modules/ant.cil~": "", dir + "modules/link.cil": "->/dev/null", dir + "modules/bee.cil": "->ant.cil",
	}), "")
	if err == nil || err.Error() != dir+"modules/link.cil: cannot use this module: it is empty: put the module there, or remove it" {
		t.Fatal(err)
	}
	if s != nil {
		t.Error("a state beside an error")
	}
	s, err = Load(plant(t, map[string]string{
		dir + "modules/zebra.pp": "z", dir + "modules/ant.cil": "a", dir + "modules/bee.cil": "->ant.cil", dir + "modules/a.b.cil": "x",
	}), "")
	if err != nil {
		t.Fatal(err)
	}
	at := func(base string) Position { return Position{File: dir + "modules/" + base} }
	want := &State{Mode: Unmanaged, Booleans: map[string]bool{}, Modules: []Module{
		{"a.b", dir + "modules/a.b.cil", "cil", []byte("x"), at("a.b.cil")},
		{"ant", dir + "modules/ant.cil", "cil", []byte("a"), at("ant.cil")},
		{"bee", dir + "modules/bee.cil", "cil", []byte("a"), at("bee.cil")},
		{"zebra", dir + "modules/zebra.pp", "pp", []byte("z"), at("zebra.pp")},
	}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
}

// TestNamesInside takes a .pp for what it says it is, whatever its file is called.
func TestNamesInside(t *testing.T) {
	outer, err := os.ReadFile("../internal/policypackage/testdata/outer.pp")
	if err != nil {
		t.Fatal(err)
	}
	zipped, err := os.ReadFile("../internal/policypackage/testdata/outer.pp.bz2")
	if err != nil {
		t.Fatal(err)
	}
	inner := func(name string) string { // of the same length, so that the package stays whole
		return strings.Replace(string(outer), "site_inner", name, 1)
	}
	whole := strings.Replace(string(outer), "Module\x02", "Module\x01", 1)
	for _, c := range []struct {
		files map[string]string
		want  string // the names, or the message
	}{
		{map[string]string{"outer.pp": string(outer)}, "site_inner"},
		{map[string]string{"zipped.pp": string(zipped), "b.cil": "x"}, "b site_inner"},
		{map[string]string{"site_inner.pp": string(outer)}, "site_inner"},
		{map[string]string{"a.pp": string(outer), "b.pp": string(zipped)},
			dir + `modules/b.pp: cannot use two modules of the name "site_inner": a .pp has the name that stands in it: remove ` + dir + `modules/b.pp or ` + dir + `modules/a.pp (` + dir + `modules/a.pp)`},
		{map[string]string{"a.pp": string(outer), "site_inner.cil": "x"},
			dir + `modules/site_inner.cil: cannot use two modules of the name "site_inner": a .pp has the name that stands in it: remove ` + dir + `modules/site_inner.cil or ` + dir + `modules/a.pp (` + dir + `modules/a.pp)`},
		{map[string]string{"a.pp": inner("../../../x")},
			dir + `modules/a.pp: cannot use this module, in which stands the name "../../../x": compile it again: the name begins with a letter, then come letters, digits, - and _, or single dots between them`},
		{map[string]string{"a.pp": whole}, dir + "modules/a.pp: cannot use this module: it is a whole policy and would take the place of the vendor's: compile it as a module: checkmodule -m"},
		{map[string]string{"text.pp": "(type x_t)"}, "text"}, // left out when the policy is built
	} {
		files := map[string]string{}
		for name, content := range c.files {
			files[dir+"modules/"+name] = content
		}
		s, err := Load(plant(t, files), "")
		var got string
		if err != nil {
			got = err.Error()
		} else {
			var names []string
			for _, m := range s.Modules {
				names = append(names, m.Name)
			}
			got = strings.Join(names, " ")
		}
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestLoadMerges(t *testing.T) {
	files := map[string]string{
		dir + "config.yaml": `version: 1
mode: enforcing
policy:
  modules: [{path: /opt/b.cil}]
  booleans: {one: true, two: true}
  shared_volumes: true
  file_contexts:
  - {path: /a, context: 'u:r:t:s0'}
  - {path: /b, context: 'u:r:t:s0'}
  - {path: /a, context: 'u:r:t:s0:c1', type: dir}
audit: {log_denials: true}
`,
		dir + "config.d/20-later.yaml": `version: 1
mode: permissive
audit: {log_denials: off}
enforce: {permissive_domains: [b_t, a_t]}
policy:
  booleans: {three: true}
`,
		dir + "config.d/10-earlier.yaml": `version: 1
mode: unmanaged
policy:
  modules: [{path: /opt/a.pp}, {path: /opt/b.cil}]
  booleans: {two: false}
  file_contexts:
  - {path: /a, context: <<none>>}
audit: {dontaudit: strip}
enforce:
  permissive_domains:
  - b_t
`,
		"/opt/a.pp": "A", "/opt/b.cil": "B", dir + "modules/unused.cil": "U",
	}
	s, err := Load(plant(t, files), "")
	if err != nil {
		t.Fatal(err)
	}
	main, early, late := dir+"config.yaml", dir+"config.d/10-earlier.yaml", dir+"config.d/20-later.yaml"
	want := &State{
		Mode: Permissive,
		Modules: []Module{
			{"a", "/opt/a.pp", "pp", []byte("A"), Position{early, 4}},
			{"b", "/opt/b.cil", "cil", []byte("B"), Position{main, 4}},
		},
		ModulesListed: true,
		Booleans:      map[string]bool{"one": true, "two": false, "three": true},
		SharedVolumes: true,
		FileContexts: []FileContext{
			{"/b", "any", "u:r:t:s0", Position{main, 9}},
			{"/a", "dir", "u:r:t:s0:c1", Position{main, 10}},
			{"/a", "any", "<<none>>", Position{early, 7}},
		},
		StripDontaudit:    true,
		PermissiveDomains: []PermissiveDomain{{"a_t", Position{late, 4}}, {"b_t", Position{early, 11}}},
		Sources:           []string{main, early, late},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}

	// An explicit file is read alone. It says nothing about modules, so they come from the directory.
	s, err = Load(plant(t, files), late)
	if err != nil {
		t.Fatal(err)
	}
	if s == nil || !reflect.DeepEqual(s.Sources, []string{late}) || len(s.Booleans) != 1 || s.SharedVolumes ||
		len(s.Modules) != 1 || s.Modules[0].Name != "unused" {
		t.Errorf("got %+v", s)
	}
}

// The key alone, even with nothing in it, means that ModulesDir is not looked at.
func TestLoadNoModules(t *testing.T) {
	s, err := Load(plant(t, map[string]string{
		dir + "config.yaml": "version: 1\npolicy: {modules: []}", dir + "modules/a.cil": "a", dir + "modules/x": "",
	}), "")
	if err != nil || len(s.Modules) != 0 {
		t.Error(s, err)
	}
}

// Proves V10.
func TestLoadMessages(t *testing.T) {
	config := func(text string) map[string]string {
		return map[string]string{dir + "config.yaml": "version: 1\n" + text}
	}
	module := func(name, content string) map[string]string {
		return map[string]string{dir + "config.yaml": "version: 1\npolicy:\n  modules:\n  - path: /opt/a.cil\n", name: content}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		file  string
		want  string
	}{
		{"equivalences in a chain", map[string]string{
			dir + "config.yaml":     "version: 1\npolicy: {equivalences: [{path: /data/a, like: /data/b/x}, {path: /data/c, like: /srv/c}]}\n",
			dir + "config.d/1.yaml": "version: 1\npolicy: {equivalences: [{path: /data/b, like: /srv/b}, {path: /data/c, like: /srv/d}]}\n"}, "",
			dir + `config.yaml:2: policy.equivalences: cannot label "/data/a" like "/data/b/x": that one is declared to be like another one (` + dir + "config.d/1.yaml:2): write like: /srv/b/x"},
		{"empty config", map[string]string{dir + "config.yaml": ""}, "",
			dir + `config.yaml: cannot use an empty config file: write at least "version: 1", or remove the file`},
		{"config is a directory", map[string]string{dir + "config.yaml/": ""}, "",
			dir + "config.yaml: cannot read this file: it is a directory: put a file in its place"},
		{"config leads nowhere", map[string]string{dir + "config.yaml": "->nowhere"}, "",
			dir + "config.yaml: cannot read this file: it does not exist: put it there, or name the right file"},
		{"config is a loop", map[string]string{dir + "config.yaml": "->config.yaml"}, "",
			dir + "config.yaml: cannot read this file: too many levels of symbolic links: put a file in the place of the link"},
		{"config.yml", map[string]string{dir + "config.yml": "version: 1"}, "",
			dir + "config.yml: cannot use a config file of this name: rename it to config.yaml"},
		{"drop-in .yml", map[string]string{dir + "config.d/10-a.yml": "version: 1"}, "",
			dir + "config.d/10-a.yml: cannot use a config file of this name: rename it to 10-a.yaml"},
		{"drop-in is a directory", map[string]string{dir + "config.d/a.yaml/": ""}, "",
			dir + "config.d/a.yaml: cannot read this file: it is a directory: put a file in its place"},
		{"drop-ins are a file", map[string]string{dir + "config.d": ""}, "",
			dir + "config.d: cannot list this directory: a file is in the place of a directory: put a directory in its place"},
		{"drop-ins lead nowhere", map[string]string{dir + "config.d": "->nowhere"}, "",
			dir + "config.d: cannot list this directory: it does not exist: put it there, or name the right file"},
		{"named file", nil, "/root/c.yaml", "/root/c.yaml: cannot read this file: it does not exist: put it there, or name the right file"},
		{"directories in the way", map[string]string{"/etc/selinux-provision": "x"}, "",
			dir + "config.yaml: cannot read this file: a file is in the place of a directory: put a directory in its place\n" +
				dir + "config.d: cannot list this directory: a file is in the place of a directory: put a directory in its place"},
		{"all files", map[string]string{dir + "config.yaml": "version: 1\nmode: x", dir + "config.d/a.yaml": "version: 1\ny: 1"}, "",
			dir + `config.yaml:2: mode: cannot use "x" as a mode: write enforcing, permissive or unmanaged` + "\n" +
				dir + "config.d/a.yaml:2: y: cannot use an unknown key: the keys here are audit, enforce, kernel, mode, policy, readiness, relabel, version and volumes"},
		// What cannot be read may have the key policy.modules, so nothing is said about ModulesDir.
		{"broken YAML", map[string]string{dir + "config.yaml": "version: 1\npolicy: {", dir + "modules/x.txt": ""}, "",
			dir + "config.yaml:3: cannot read this as YAML: did not find expected node content (while parsing a flow node)"},
		{"other version", map[string]string{dir + "config.yaml": "version: 2", dir + "modules/x.txt": ""}, "",
			dir + `config.yaml:1: version: cannot use "2" as the version of a config: write "version: 1", the only one that this program knows`},

		{"missing module", module("/opt/", ""), "", dir + "config.yaml:4: policy.modules[0].path: cannot read the module /opt/a.cil: " +
			"it does not exist: put it there, or name the right file"},
		{"module is a directory", module("/opt/a.cil/", ""), "", dir + "config.yaml:4: policy.modules[0].path: cannot read the module /opt/a.cil: " +
			"it is a directory: put a file in its place"},
		{"empty module", module("/opt/a.cil", " \n"), "", dir + "config.yaml:4: policy.modules[0].path: cannot use the module /opt/a.cil: " +
			"it is empty: put the module there, or remove it"},
		{"large module", module("/opt/a.cil", strings.Repeat("x", maxModule+1)), "",
			dir + "config.yaml:4: policy.modules[0].path: cannot use the module /opt/a.cil: it is larger than 16 MiB: split it"},
		{"one name twice", map[string]string{
			dir + "config.yaml":     "version: 1\npolicy: {modules: [{path: /opt/a.cil}]}",
			dir + "config.d/x.yaml": "version: 1\n\npolicy: {modules: [{path: /srv/a.pp}, {path: /opt/a.cil}]}",
			"/opt/a.cil":            "1", "/srv/a.pp": "2",
		}, "", dir + `config.d/x.yaml:3: policy.modules[0].path: cannot use two modules of the name "a": rename /srv/a.pp or /opt/a.cil (` +
			dir + "config.yaml:2)"},
		{"one name twice in the directory", map[string]string{dir + "modules/a.cil": "1", dir + "modules/a.pp": "2"}, "",
			dir + `modules/a.pp: cannot use two modules of the name "a": rename ` + dir + "modules/a.pp or " + dir + "modules/a.cil (" +
				dir + "modules/a.cil)"},
		{"unknown extension", map[string]string{dir + "modules/a.te": "1"}, "",
			dir + `modules/a.te: cannot use "a.te" as a module: the name of a module ends in .cil or .pp, or move it elsewhere`},
		{"directory of modules", map[string]string{dir + "modules/old/": "", dir + "modules/a.cil/": ""}, "",
			dir + "modules/a.cil: cannot read this module: it is a directory: put a file in its place\n" +
				dir + `modules/old: cannot use "old" as a module: the name of a module ends in .cil or .pp, or move it elsewhere`},
		{"modules are a file", map[string]string{dir + "modules": ""}, "",
			dir + "modules: cannot list this directory: a file is in the place of a directory: put a directory in its place"},
		{"bad module list", map[string]string{dir + "config.yaml": "version: 1\npolicy: {modules: x}", dir + "modules/x.txt": ""}, "",
			dir + `config.yaml:2: policy.modules: cannot use "x" here: write a list, each item behind "- "`},
		{"unknown key", config("x: 1"), "",
			dir + "config.yaml:2: x: cannot use an unknown key: the keys here are audit, enforce, kernel, mode, policy, readiness, relabel, version and volumes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Load(plant(t, c.files), c.file)
			if err == nil || s != nil {
				t.Fatalf("state %+v, error %v", s, err)
			}
			if err.Error() != c.want {
				t.Errorf("\ngot  %s\nwant %s", err, c.want)
			}
		})
	}
}

// Proves V10.
func TestLoadUnreadable(t *testing.T) {
	r := plant(t, map[string]string{
		dir + "config.yaml": "version: 1\npolicy: {modules: [{path: /opt/a.cil}]}", "/opt/a.cil": "x",
	})
	for name, want := range map[string]string{
		dir + "config.yaml": dir + "config.yaml: cannot read this file: permission denied: make it readable for root",
		"/opt/a.cil": dir + "config.yaml:2: policy.modules[0].path: cannot read the module /opt/a.cil: " +
			"permission denied: make it readable for root",
	} {
		_, err := Load(denied{r, name}, "")
		if err == nil || err.Error() != want || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("\ngot  %v\nwant %s", err, want)
		}
		var one *Error
		if !errors.As(err, &one) || one.Remedy != "make it readable for root" {
			t.Errorf("%+v", one)
		}
	}
}

// denied refuses one file: the tests run as root, whom permissions do not stop.
type denied struct {
	tree
	name string
}

func (d denied) ReadFile(name string) ([]byte, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.tree.ReadFile(name)
}

func TestLoadTooMuch(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		files[dir+"modules/"+name+".pp"] = strings.Repeat("x", maxModule)
	}
	_, err := Load(plant(t, files), "")
	want := dir + "modules/e.pp: cannot use this module: all modules together are larger than 64 MiB: remove what is not needed"
	if err == nil || err.Error() != want {
		t.Errorf("\ngot  %v\nwant %s", err, want)
	}
}

func TestDigest(t *testing.T) {
	base := func() *State {
		return &State{
			Mode:     Enforcing,
			Modules:  []Module{{Name: "a", Lang: "cil", Content: []byte("x")}, {Name: "b", Lang: "pp", Content: []byte("y")}},
			Booleans: map[string]bool{"one": true, "two": false},
			FileContexts: []FileContext{
				{Path: "/a", Type: "any", Context: "u:r:t:s0"}, {Path: "/b", Type: "any", Context: "u:r:t:s0"},
			},
		}
	}
	want := base().Digest()
	for name, change := range map[string]func(s *State){
		"nothing":     func(*State) {},
		"mode":        func(s *State) { s.Mode = Permissive },
		"log denials": func(s *State) { s.LogDenials = true },
		"sources":     func(s *State) { s.Sources = []string{"x"} },
		"positions": func(s *State) {
			s.Modules[0].Source = Position{"x", 1}
			s.Modules[0].Path = "/x"
			s.FileContexts[0].Source = Position{"x", 1}
		},
		"module order": func(s *State) { s.Modules[0], s.Modules[1] = s.Modules[1], s.Modules[0] },
	} {
		s := base()
		change(s)
		if s.Digest() != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[[32]byte]string{want: "nothing"}
	for name, change := range map[string]func(s *State){
		"module content":     func(s *State) { s.Modules[0].Content = []byte("z") },
		"module name":        func(s *State) { s.Modules[0].Name = "c" },
		"module language":    func(s *State) { s.Modules[0].Lang = "pp" },
		"module gone":        func(s *State) { s.Modules = s.Modules[1:] },
		"boolean value":      func(s *State) { s.Booleans["two"] = true },
		"boolean more":       func(s *State) { s.Booleans["three"] = true },
		"boolean less":       func(s *State) { delete(s.Booleans, "two") },
		"shared volumes":     func(s *State) { s.SharedVolumes = true },
		"file context":       func(s *State) { s.FileContexts[0].Context = "<<none>>" },
		"file context type":  func(s *State) { s.FileContexts[0].Type = "dir" },
		"file context path":  func(s *State) { s.FileContexts[0].Path = "/c" },
		"file context order": func(s *State) { s.FileContexts[0], s.FileContexts[1] = s.FileContexts[1], s.FileContexts[0] },
		"dontaudit":          func(s *State) { s.StripDontaudit = true },
		"vendor's module":    func(s *State) { s.ReplaceVendorModules = []string{"a"} },
		"permissive domain":  func(s *State) { s.PermissiveDomains = []PermissiveDomain{{Type: "a_t"}} },
		"permissive domains": func(s *State) { s.PermissiveDomains = []PermissiveDomain{{Type: "a_t"}, {Type: "b_t"}} },
		"shifted border":     func(s *State) { s.FileContexts[0].Path, s.FileContexts[0].Type = "/aa", "ny" },
	} {
		s := base()
		change(s)
		if other, known := seen[s.Digest()]; known {
			t.Errorf("%s: the digest of %s", name, other)
		}
		seen[s.Digest()] = name
	}
	lenient := base()
	lenient.PermissiveDomains = []PermissiveDomain{{Type: "a_t", Source: Position{"x", 1}}}
	if lenient.AccessDigest() != want {
		t.Error("whether a denial stops something changes what is denied")
	}
	if (&State{}).Digest() != (&State{Booleans: map[string]bool{}}).Digest() {
		t.Error("nil and empty differ")
	}
}

// The file system of a host gives errors of its own kind, and these must end in the same messages.
func TestLoadThroughHostfs(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"directory", map[string]string{dir + "config.yaml/": ""},
			dir + "config.yaml: cannot read this file: it is a directory: put a file in its place"},
		{"loop", map[string]string{dir + "config.yaml": "->config.yaml"},
			dir + "config.yaml: cannot read this file: too many levels of symbolic links: put a file in the place of the link"},
		{"nowhere", map[string]string{dir + "config.yaml": "->/nowhere"},
			dir + "config.yaml: cannot read this file: it does not exist: put it there, or name the right file"},
		{"file for a directory", map[string]string{dir + "config.d": ""},
			dir + "config.d: cannot list this directory: a file is in the place of a directory: put a directory in its place"},
		{"missing module", map[string]string{dir + "config.yaml": "version: 1\npolicy: {modules: [{path: /a.cil}]}"},
			dir + "config.yaml:2: policy.modules[0].path: cannot read the module /a.cil: it does not exist: put it there, or name the right file"},
		{"module is a directory", map[string]string{dir + "modules/a.cil/": ""},
			dir + "modules/a.cil: cannot read this module: it is a directory: put a file in its place"},
		{"absolute link", map[string]string{dir + "config.yaml": "->/opt/c.yaml", "/opt/c.yaml": "version: 1", dir + "modules/a.cil": "x"}, ""},
		{"nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, err := hostfs.Open(string(plant(t, c.files)))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if _, err := Load(root, ""); c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("\ngot  %v\nwant %s", err, c.want)
			}
		})
	}
}

// Whoever only looks gets, beside every problem, what is right; whoever acts gets nothing.
func TestSurvey(t *testing.T) {
	const wrong = "version: 1\nmode: enforcing\naudit: {dontaudit: remove}\npolicy: {booleans: {a: true}}\n"
	r := plant(t, map[string]string{ConfigFile: wrong})
	state, err := Survey(r, "")
	if err == nil || state == nil || state.Mode != Enforcing || !state.Booleans["a"] || state.StripDontaudit {
		t.Errorf("%+v, %v", state, err)
	}
	if state, err := Load(r, ""); err == nil || state != nil {
		t.Errorf("Load gives %+v, %v", state, err)
	}
	if state, err := Survey(plant(t, nil), ""); err != nil || state.Mode != Unmanaged {
		t.Errorf("no configuration: %+v, %v", state, err)
	}
}

// unsafe refuses each file with the name of the directory that it is in.
type unsafe struct{ Reader }

func (u unsafe) ReadFile(name string) ([]byte, error) {
	if dir := path.Dir(name); dir == ModulesDir || dir == "/srv" {
		return nil, untrustedError(dir)
	}
	return u.Reader.ReadFile(name)
}

type untrustedError string

func (e untrustedError) Error() string  { return "anybody may write to " + string(e) }
func (e untrustedError) Remedy() string { return "chmod go-w " + string(e) }

// A directory that others may write to is named once, whatever is in it, and the next one, too.
func TestDirectoriesOfOthers(t *testing.T) {
	text := "version: 1\npolicy: {modules: [{path: /srv/a.cil}, {path: /srv/b.cil}, {path: " + ModulesDir + "/c.cil}, {path: " + ModulesDir + "/d.cil}]}\n"
	_, err := Load(unsafe{plant(t, map[string]string{ConfigFile: text})}, "")
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 || !strings.Contains(all[0].Error(), "/srv") || !strings.Contains(all[1].Error(), ModulesDir) {
		t.Errorf("%v", err)
	}
}

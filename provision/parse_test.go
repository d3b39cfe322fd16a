package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseEverything(t *testing.T) {
	doc, err := Parse("c.yaml", strings.NewReader(`# comment
version: 1
mode: enforcing
policy:
  modules:
    - path: /etc/selinux-provision/modules/kube_logreader.cil
    - {path: /opt/a.b-c_1.pp}
  booleans: {container_use_nfs: true, other: off, third: "on" , fourth: Yes}
  shared_volumes: true
  file_contexts:
    - {path: '/srv/data(/.*)?', type: any, context: 'system_u:object_r:container_file_t:s0'}
    - path: /srv/none\s(?=x)
      context: <<none>>
audit:
  log_denials: true
  dontaudit: strip
enforce:
  guard: off
  require_readiness: false
volumes: []
`))
	// A quoted value is text.
	if want := `c.yaml:8: policy.booleans.third: cannot use "on" as a boolean: write true or false`; err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if doc != nil {
		t.Error("a document beside an error")
	}
	doc, err = Parse("c.yaml", strings.NewReader(`version: 1
mode: enforcing
policy:
  modules:
    - path: /etc/selinux-provision/modules/kube_logreader.cil
    - {path: /opt/a.b-c_1.pp}
  replace_vendor_modules: [zz, container]
  booleans: {container_use_nfs: true, other: off}
  shared_volumes: true
  file_contexts:
    - {path: '/srv/data(/.*)?', type: dir, context: 'system_u:object_r:container_file_t:s0-s0:c0.c1023,c7'}
    - path: /srv/none\s(?=x)
      context: <<none>>
  equivalences: [{path: /data/docker, like: /var/lib/docker}]
audit: {log_denials: true, dontaudit: strip}
enforce: {guard: "off", require_readiness: no}
volumes:
`))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &Document{
		name: "c.yaml",
		mode: new(Enforcing),
		modules: []moduleRef{
			{"/etc/selinux-provision/modules/kube_logreader.cil", Position{"c.yaml", 5}, "policy.modules[0].path"},
			{"/opt/a.b-c_1.pp", Position{"c.yaml", 6}, "policy.modules[1].path"},
		},
		modulesSet:    true,
		replaceVendor: []string{"zz", "container"},
		booleans:      map[string]bool{"container_use_nfs": true, "other": false},
		sharedVolumes: &yes,
		fileContexts: []FileContext{
			{"/srv/data(/.*)?", "dir", "system_u:object_r:container_file_t:s0-s0:c0.c1023,c7", Position{"c.yaml", 11}},
			{`/srv/none\s(?=x)`, "any", "<<none>>", Position{"c.yaml", 12}},
		},
		equivalences:     []Equivalence{{"/data/docker", "/var/lib/docker", Position{"c.yaml", 14}}},
		logDenials:       &yes,
		stripDontaudit:   &yes,
		guard:            &guardKeys{off: true},
		requireReadiness: new(false),
	}
	if !reflect.DeepEqual(doc, want) {
		t.Errorf("got  %+v\nwant %+v", doc, want)
	}
}

func TestParseAccepts(t *testing.T) {
	for _, text := range []string{
		"version: 1",
		"\ufeffversion: 1\r\n",
		"---\nversion: 1\n...\n",
		"{version: 1}",
		"version: 1\npolicy:\n  # booleans:\naudit:\nenforce:\n",
		"version: 1\npolicy: {booleans: , file_contexts: }",
		"version: 1\npolicy: {modules: []}",
		"policy: &a {}\naudit: *a\nversion: 1",
		"version: 1\naudit: {log_denials: &x true}\npolicy: {shared_volumes: *x}",
		"version: 1\nmode: \"permissive\"",
	} {
		if _, err := Parse("c.yaml", strings.NewReader(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Proves V10: the messages.
func TestParseMessages(t *testing.T) {
	equivalence := func(path, like string) string {
		return fmt.Sprintf("version: 1\npolicy: {equivalences: [{path: '%s', like: '%s'}]}", path, like)
	}
	fc := func(inside string) string { return "version: 1\npolicy:\n  file_contexts:\n  - " + inside }
	path := func(p string) string { return fc("{context: <<none>>, path: " + p + "}") }
	context := func(c string) string { return fc("{path: /a, context: " + c + "}") }
	module := func(p string) string { return "version: 1\npolicy:\n  modules:\n  - path: " + p }
	badContext := func(c string) string {
		return `c.yaml:4: policy.file_contexts[0].context: cannot use "` + c + `" as a context: ` +
			"write user:role:type:level, such as system_u:object_r:container_file_t:s0, or <<none>>"
	}
	badName := ": rename the file: the name begins with a letter, then come letters, digits, - and _, or single dots between them"
	for _, c := range []struct{ name, text, want string }{
		// The file.
		{"empty", "", `c.yaml: cannot use an empty config file: write at least "version: 1", or remove the file`},
		{"comments", "# version: 1\n", `c.yaml: cannot use an empty config file: write at least "version: 1", or remove the file`},
		{"null", "---\n~\n", `c.yaml: cannot use an empty config file: write at least "version: 1", or remove the file`},
		{"too long", "version: 1\n#" + strings.Repeat("x", maxConfig),
			"c.yaml: cannot use a config file of more than 1024 KiB: split it into files in /etc/selinux-provision/config.d"},
		{"text", "enforcing", `c.yaml:1: cannot use "enforcing" as a config: begin with the line "version: 1"`},
		{"list", "- a", `c.yaml:1: cannot use a list as a config: begin with the line "version: 1"`},
		{"a second document that is none", "version: 1\n---\n{", "c.yaml:4: cannot read this as YAML: did not find expected node content (while parsing a flow node)"},
		{"two documents", "version: 1\n---\nversion: 1\n",
			"c.yaml:2: cannot read this as YAML: it holds more than one document: remove the line ---"},
		{"open bracket", "version: 1\na: [", "c.yaml:3: cannot read this as YAML: did not find expected node content (while parsing a flow node)"},
		{"stray colon", "version: 1\nmode: a: b", "c.yaml:2: cannot read this as YAML: mapping values are not allowed in this context"},
		{"tab", "version: 1\npolicy:\n\tbooleans: {}\n",
			"c.yaml:3: cannot read this as YAML: found character that cannot start any token (while scanning for the next token)"},
		{"no UTF-8", "version: 1\n# \xff\n", "c.yaml: cannot read this as YAML: invalid leading UTF-8 octet (value: 255)"},
		{"unknown anchor", "version: 1\nmode: *x", "c.yaml:2: cannot read this as YAML: unknown anchor 'x' referenced"},
		{"too deep", "version: 1\nvolumes: " + strings.Repeat("[", 20000),
			"c.yaml:2: cannot read this as YAML: exceeded max depth of 10000 (while increasing flow level)"},

		// The version.
		{"no version", "\nmode: enforcing", `c.yaml:2: version: cannot find this key: write "version: 1" in the first line`},
		{"version 2", "mode: x\nversion: 2\nfuture: 1",
			`c.yaml:2: version: cannot use "2" as the version of a config: write "version: 1", the only one that this program knows`},
		{"version as text", `version: "1"`,
			`c.yaml:1: version: cannot use "1" as the version of a config: write "version: 1", the only one that this program knows`},
		{"version without value", "version:",
			`c.yaml:1: version: cannot use an empty value as the version of a config: write "version: 1", the only one that this program knows`},

		// Keys.
		{"misspelt", "version: 1\nmdoe: enforcing", `c.yaml:2: mdoe: cannot use an unknown key: did you mean "mode"?`},
		{"misspelt below", "version: 1\npolicy:\n  boolean: {}\n", `c.yaml:3: policy.boolean: cannot use an unknown key: did you mean "booleans"?`},
		{"cut off", "version: 1\npolicy: {file: []}", `c.yaml:2: policy.file: cannot use an unknown key: did you mean "file_contexts"?`},
		{"unknown", "version: 1\nselinux: on",
			"c.yaml:2: selinux: cannot use an unknown key: the keys here are audit, enforce, kernel, mode, policy, readiness, relabel, version and volumes"},
		{"wrong case", "version: 1\nMode: enforcing", `c.yaml:2: Mode: cannot use an unknown key: did you mean "mode"?`},
		{"strange key", "version: 1\n\"a\\nb\": 1",
			`c.yaml:2: "a\nb": cannot use an unknown key: the keys here are audit, enforce, kernel, mode, policy, readiness, relabel, version and volumes`},
		{"no scalar key", "version: 1\n[a]: 1",
			"c.yaml:2: cannot use a list as a key: the keys here are audit, enforce, kernel, mode, policy, readiness, relabel, version and volumes"},
		{"merge key", "version: 1\naudit: &a {dontaudit: keep}\npolicy: {<<: *a}",
			"c.yaml:3: policy.<<: cannot use an unknown key: the keys here are booleans, equivalences, file_contexts, modules, replace_vendor_modules, roles and shared_volumes"},
		{"twice", "version: 1\nmode: enforcing\n\nmode: permissive",
			"c.yaml:4: mode: cannot use a key twice, it is in line 2 already: remove one of the two"},
		{"boolean twice", "version: 1\npolicy:\n  booleans:\n    a: true\n    a: true",
			"c.yaml:5: policy.booleans.a: cannot use a key twice, it is in line 4 already: remove one of the two"},
		{"no mapping", "version: 1\npolicy: yes",
			`c.yaml:2: policy: cannot use "yes" here: write keys with values: booleans, equivalences, file_contexts, modules, replace_vendor_modules, roles and shared_volumes`},

		// Values.
		{"mode", "version: 1\nmode: enforce",
			`c.yaml:2: mode: cannot use "enforce" as a mode: write enforcing, permissive or unmanaged, did you mean "enforcing"?`},
		{"mode disabled", "version: 1\nmode: disabled",
			`c.yaml:2: mode: cannot use "disabled" as a mode: write enforcing, permissive or unmanaged`},
		{"mode empty", "version: 1\nmode:", `c.yaml:2: mode: cannot use an empty value as a mode: write enforcing, permissive or unmanaged`},
		{"mode list", "version: 1\nmode: [enforcing]", `c.yaml:2: mode: cannot use a list as a mode: write enforcing, permissive or unmanaged`},
		{"boolean value", "version: 1\npolicy:\n  booleans:\n    x: maybe",
			`c.yaml:4: policy.booleans.x: cannot use "maybe" as a boolean: write true or false`},
		{"boolean number", "version: 1\npolicy: {booleans: {x: 1}}",
			`c.yaml:2: policy.booleans.x: cannot use "1" as a boolean: write true or false`},
		{"boolean empty", "version: 1\npolicy: {booleans: {x}}",
			`c.yaml:2: policy.booleans.x: cannot use an empty value as a boolean: write true or false`},
		{"boolean name", "version: 1\npolicy: {booleans: {'x y': true}}",
			`c.yaml:2: policy.booleans."x y": cannot use "x y" as the name of a boolean: see "getsebool -a" for the names`},
		{"boolean list", "version: 1\npolicy: {booleans: [x]}",
			`c.yaml:2: policy.booleans: cannot use a list here: write names with values, such as "container_use_nfs: true"`},
		{"boolean tag", "version: 1\naudit: {log_denials: !!bool x}",
			`c.yaml:2: audit.log_denials: cannot use "x" as a boolean: write true or false`},
		{"dontaudit", "version: 1\naudit: {dontaudit: stripe}",
			`c.yaml:2: audit.dontaudit: cannot use "stripe" as a treatment of dontaudit rules: write keep or strip, did you mean "strip"?`},
		{"key elsewhere", "version: 1\nlog_denials: true", "c.yaml:2: log_denials: cannot use an unknown key: it belongs below audit"},
		{"key in two places", "version: 1\nwindow: 1h", "c.yaml:2: window: cannot use an unknown key: it belongs below enforce.guard or below readiness"},
		{"key of the top", "version: 1\naudit: {mode: enforcing}", "c.yaml:2: audit.mode: cannot use an unknown key: it belongs at the top, without a space before it"},
		{"very long value", "version: 1\nmode: " + strings.Repeat("ä", 1000),
			`c.yaml:2: mode: cannot use "` + strings.Repeat("ä", 60) + `…" as a mode: write enforcing, permissive or unmanaged`},

		// Modules.
		{"modules empty", "version: 1\npolicy:\n  modules:\n",
			"c.yaml:3: policy.modules: cannot tell what an empty value means here: " +
				"write [] for no modules at all, or remove the key to use every module in /etc/selinux-provision/modules"},
		{"modules no list", "version: 1\npolicy: {modules: {path: /a.cil}}",
			`c.yaml:2: policy.modules: cannot use a mapping here: write a list, each item behind "- "`},
		{"module without key", "version: 1\npolicy:\n  modules:\n  - /a.cil",
			`c.yaml:4: policy.modules[0]: cannot use "/a.cil" here: write it as "path: /a.cil"`},
		{"module without path", "version: 1\npolicy:\n  modules:\n  - {}",
			`c.yaml:4: policy.modules[0]: cannot find the key "path": write "path: " and the file of the module`},
		{"module number", module("7"), `c.yaml:4: policy.modules[0].path: cannot use "7" as the path of a module: write it as text, in quotes if need be`},
		{"module relative", module("a.cil"), `c.yaml:4: policy.modules[0].path: cannot use "a.cil" as the path of a module: ` +
			"write an absolute path, such as /etc/selinux-provision/modules/a.cil"},
		{"module dots", module("/etc/../a.cil"), `c.yaml:4: policy.modules[0].path: cannot use "/etc/../a.cil" as the path of a module: write /a.cil`},
		{"module control", module(`"/a\n.cil"`), `c.yaml:4: policy.modules[0].path: cannot use "/a\n.cil" as the path of a module: ` +
			"write an absolute path without control characters"},
		{"module no text", module(`""`), `c.yaml:4: policy.modules[0].path: cannot use "" as the path of a module: ` +
			"write an absolute path without control characters"},
		{"module extension", module("/a.te"), `c.yaml:4: policy.modules[0].path: cannot use "a.te" as a module: the name of a module ends in .cil or .pp`},
		{"module name", module("/1a.cil"), `c.yaml:4: policy.modules[0].path: cannot use "1a" as the name of a module` + badName},
		{"module name dots", module("/a..b.pp"), `c.yaml:4: policy.modules[0].path: cannot use "a..b" as the name of a module` + badName},
		{"module name reserved", module("/selinux_provision_x.cil"),
			`c.yaml:4: policy.modules[0].path: cannot use "selinux_provision_x" as the name of a module: ` +
				"rename the file: selinux_provision_ is for the modules of this program"},
		{"module name empty", module("/.pp"), `c.yaml:4: policy.modules[0].path: cannot use "" as the name of a module` + badName},

		{"a vendor's module by its file", "version: 1\npolicy: {replace_vendor_modules: [/a.cil]}",
			`c.yaml:2: policy.replace_vendor_modules[0]: cannot use "/a.cil" as the name of a module: write the name alone, without directory and without .cil or .pp`},
		{"a vendor's module without a list", "version: 1\npolicy: {replace_vendor_modules: container}",
			`c.yaml:2: policy.replace_vendor_modules: cannot use "container" here: write a list, each item behind "- "`},

		// File contexts.
		{"no path", fc("context: <<none>>"),
			`c.yaml:4: policy.file_contexts[0]: cannot find the key "path": each file context needs a path and a context`},
		{"no context", fc("path: /a"),
			`c.yaml:4: policy.file_contexts[0]: cannot find the key "context": each file context needs a path and a context`},
		{"type", fc("{path: /a, context: <<none>>, type: directory}"), `c.yaml:4: policy.file_contexts[0].type: cannot use "directory" as a type of file: ` +
			"write any, file, dir, char, block, socket, pipe or symlink"},
		{"type near", fc("{path: /a, context: <<none>>, type: sock}"), `c.yaml:4: policy.file_contexts[0].type: cannot use "sock" as a type of file: ` +
			`write any, file, dir, char, block, socket, pipe or symlink, did you mean "socket"?`},
		{"path relative", path("srv"), `c.yaml:4: policy.file_contexts[0].path: cannot use "srv" as the path of a file context: begin it with /`},
		{"path space", path("/a b"), `c.yaml:4: policy.file_contexts[0].path: cannot use "/a b" as the path of a file context: write \s for each space`},
		{"path quote", path(`'/a"'`), `c.yaml:4: policy.file_contexts[0].path: cannot use "/a\"" as the path of a file context: ` +
			`leave out control characters and double quotes, "." matches any character`},
		{"path control", path(`"/a\0"`), `c.yaml:4: policy.file_contexts[0].path: cannot use "/a\x00" as the path of a file context: ` +
			`leave out control characters and double quotes, "." matches any character`},
		{"path bracket", path("'/a(/.*?'"), `c.yaml:4: policy.file_contexts[0].path: cannot use "/a(/.*?" as the path of a file context: ` +
			"correct the regular expression: missing closing )"},
		{"path long", path("/" + strings.Repeat("a", maxPath)), `c.yaml:4: policy.file_contexts[0].path: cannot use "/` + strings.Repeat("a", 119) +
			`…" as the path of a file context: at most 4096 bytes`},
		{"equivalence without like", "version: 1\npolicy: {equivalences: [{path: /data/docker}]}",
			`c.yaml:2: policy.equivalences[0]: cannot find the key "like": each equivalence needs the path of a directory, and the one that it is like`},
		{"equivalence relative", equivalence("data", "/srv/a"), `c.yaml:2: policy.equivalences[0].path: cannot use "data" as a directory: write an absolute path without control characters`},
		{"equivalence with a slash", equivalence("/data", "/srv/a/"), `c.yaml:2: policy.equivalences[0].like: cannot use "/srv/a/" as a directory: write /srv/a`},
		{"equivalence of a pattern", equivalence("/data(/.*)?", "/srv/a"), `c.yaml:2: policy.equivalences[0].path: cannot use "/data(/.*)?" as a directory: ` +
			"write the path itself: this is no regular expression, and all that is below it is meant"},
		{"equivalence with a space", equivalence("/my data", "/srv/a"), `c.yaml:2: policy.equivalences[0].path: cannot use "/my data" as a directory: ` +
			"there is no way to write a path with spaces in file_contexts.subs: use a directory without"},
		{"equivalence with itself", equivalence("/data", "/data"), `c.yaml:2: policy.equivalences[0]: cannot label "/data" like "/data": it is the same directory: remove it`},
		{"equivalence within", equivalence("/data/a", "/data"), `c.yaml:2: policy.equivalences[0]: cannot label "/data/a" like "/data": one is below the other: ` +
			"name two directories that have nothing to do with each other"},
		{"equivalence of all", equivalence("/", "/srv/a"), `c.yaml:2: policy.equivalences[0]: cannot label "/" like "/srv/a": one is below the other: ` +
			"name two directories that have nothing to do with each other"},
		{"equivalence of the system", equivalence("/usr/local/x", "/srv/a"), `c.yaml:2: policy.equivalences[0]: cannot label "/usr/local/x" like "/srv/a": ` +
			"it belongs to the system or to a container runtime as it is: name a directory of your own, such as /data/docker"},
		{"context short", context("container_file_t"), badContext("container_file_t")},
		{"context no level", context("system_u:object_r:container_file_t"), badContext("system_u:object_r:container_file_t")},
		{"context level", context("'system_u:object_r:t:s0:c1,'"), badContext("system_u:object_r:t:s0:c1,")},
		{"context range", context("system_u:object_r:t:s0:c1.c2.c3"), badContext("system_u:object_r:t:s0:c1.c2.c3")},
		{"context CIL", context("'system_u:object_r:t) (allow:s0'"), badContext("system_u:object_r:t) (allow:s0")},
		{"context empty", context("''"), badContext("")},
		{"context number", context("1"), `c.yaml:4: policy.file_contexts[0].context: cannot use "1" as a context: write it as text, in quotes if need be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc, err := Parse("c.yaml", strings.NewReader(c.text))
			if err == nil || doc != nil {
				t.Fatalf("doc %v, error %v", doc, err)
			}
			if err.Error() != c.want {
				t.Errorf("\ngot  %s\nwant %s", err, c.want)
			}
			var problems Errors
			if !errors.As(err, &problems) {
				t.Errorf("%T is not Errors", err)
			}
		})
	}
}

// All problems come at once, in the order of the lines.
func TestParseAllProblems(t *testing.T) {
	_, err := Parse("c.yaml", strings.NewReader("mode: no\nvolumes: [1]\npolicy: {x: 1, booleans: {a: b}}\n"))
	want := `c.yaml:1: mode: cannot use "no" as a mode: write enforcing, permissive or unmanaged
c.yaml:1: version: cannot find this key: write "version: 1" in the first line
c.yaml:2: volumes[0]: cannot use "1" here: write keys with values: context, level, match, name, paths, private, required and strategy
c.yaml:3: policy.x: cannot use an unknown key: the keys here are booleans, equivalences, file_contexts, modules, replace_vendor_modules, roles and shared_volumes
c.yaml:3: policy.booleans.a: cannot use "b" as a boolean: write true or false`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse("c.yaml", strings.NewReader("version: 1\npolicy:\n  booleans:\n"+strings.Repeat("    x: 1\n", 5000)))
	var problems Errors
	if !errors.As(err, &problems) || len(problems) != maxProblems+1 {
		t.Fatalf("%d problems", len(problems))
	}
	if got := problems[maxProblems].Error(); got != "c.yaml: cannot list more than 50 problems: correct these first" {
		t.Error(got)
	}
}

func TestParseBrokenReader(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Parse("c.yaml", iotest.ErrReader(broken)); !errors.Is(err, broken) || err.Error() != "c.yaml: cannot read this file: broken" {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 1\nmode: enforcing\npolicy:\n  modules:\n  - path: /a.cil\n  booleans: {a: on}\n  shared_volumes: true\n" +
		"  file_contexts:\n  - {path: '/a(/.*)?', type: dir, context: 'u:r:t:s0:c1'}\naudit: {log_denials: true, dontaudit: strip}\n"))
	f.Add([]byte("version: 1\nenforce: {guard: {window: 5m}, require_readiness: true, permissive_domains: [a_t, 1, 'b t']}\nreadiness: {window: 1d, accept: [1e3], containers: [a/b]}\nvolumes: [{name: x}]\n"))
	f.Add([]byte("version: 1\nvolumes: [{name: x, match: {mountpoint: /a/**, uuid: AB-*}, level: 's0:c1', paths: [a/b], required: true}]\n" +
		"relabel: {workers: 2, cpu_percent: 50}\n"))
	f.Add([]byte("version: &a [*a]\n? [x]\n: y\n<<: {a: b}\n"))
	f.Add([]byte("version: 1\n---\nversion: 1"))
	f.Add([]byte("a: \"\\u0000\\x07\"\n\"\": ~"))
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := Parse("c.yaml", strings.NewReader(string(text)))
		if (doc == nil) == (err == nil) {
			t.Fatalf("%v and %v", doc, err)
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "c.yaml:") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) || len(line) > 4000 {
					t.Errorf("message %q", line)
				}
			}
			return
		}
		// What is accepted is safe to write into CIL and file_contexts.
		for _, c := range doc.fileContexts {
			if strings.ContainsAny(c.Path, "\"\n\r\t \x00") || c.Path[0] != '/' || strings.ContainsAny(c.Context, "\"\n\r\t \x00()") || c.Type == "" {
				t.Errorf("file context %+v", c)
			}
		}
		for _, m := range doc.modules {
			if name, lang := moduleName(filepath.Base(m.path)); lang == "" || strings.ContainsAny(name, "/ \n") || m.source.Line == 0 {
				t.Errorf("module %+v", m)
			}
		}
	})
}

func TestPositions(t *testing.T) {
	if got := (Position{File: "f"}).String() + (Position{"f", 3}).String(); got != "ff:3" {
		t.Error(got)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("version: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if doc, err := Parse(file, r); err != nil || doc.name != file {
		t.Error(doc, err)
	}
}

// Package archtest holds the rules of this repository that the compiler does not know, as ordinary tests: which package may
// import which, what stays in one place, what every declaration must have. It has nothing to import.
//
// When one of these tests fails, the message says which line breaks which rule. A rule that is in the way of something good
// is changed here, in the same commit, where a reviewer sees it.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/selinux-provision/selinux-provision"

// arrows says which top directories the packages of a top directory may import, beside those of their own. It is read
// downwards: cmd -> stages -> the four that do the work -> relabel -> internal. The four do not know each other.
func arrows() map[string][]string {
	work := []string{"policystore", "mountwatch", "avc", "provision", "relabel"}
	return map[string][]string{
		".":                 {}, // what ships
		"cmd":               append([]string{"stages", "internal", "units", "ignition-examples"}, work...),
		"stages":            append([]string{"internal"}, work...),
		"policystore":       {"relabel", "internal"},
		"mountwatch":        {"relabel", "internal"},
		"relabel":           {"internal"},
		"avc":               {"internal"},
		"provision":         {"internal"},
		"internal":          {},
		"units":             {},
		"ignition-examples": {},
		"bench":             {"mountwatch", "relabel", "internal"},
		"packaging":         {},
		"docs":              {"internal"}, // docs/generate writes what follows from the source
		"vmtests":           append([]string{"cmd", "stages", "internal", "units", "ignition-examples"}, work...),
	}
}

// source is one Go file.
type source struct {
	dir  string // of its package, relative to the root of the module
	name string
	file *ast.File
	set  *token.FileSet
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", path.Join(s.dir, s.name), s.set.Position(n.Pos()).Line)
}

func (s source) top() string { first, _, _ := strings.Cut(s.dir, "/"); return first }

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// isProduct leaves out tests, packages that only tests use, the virtual machines and the measurements.
func (s source) isProduct() bool {
	return !s.isTest() && s.top() != "vmtests" && s.top() != "bench" && !isTestSupport(s.dir)
}

// isTestSupport says whether a package is made for tests.
func isTestSupport(dir string) bool {
	return strings.HasPrefix(dir, "internal/") && strings.HasSuffix(dir, "test")
}

// imports gives each import with its path.
func (s source) imports(each func(spec *ast.ImportSpec, path string)) {
	for _, spec := range s.file.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			each(spec, name)
		}
	}
}

// rule finds what breaks it. Each finding begins with the place.
type rule struct {
	name  string
	check func(s source) []string
}

func rules() []rule {
	return []rule{
		{"arrows", arrowRule},
		{"test packages", testPackageRule},
		{"processes", onlyIn("os/exec", "internal/command")},
		{"system calls", onlyIn("golang.org/x/sys/unix", "internal/command", "internal/hostfs", "internal/kernel", "internal/systemd",
			"internal/mounts", "relabel", "mountwatch/remount")},
		{"mount table", saidOnlyIn("mountinfo", "internal/mounts", "internal/mounttest")},
		{"unit files", onlyIn("github.com/coreos/go-systemd/v22/unit", "internal/unitfile")},
		{"binary policies", numberOnlyIn(0xf97cff8c, "internal/policydb")},
		{"labels", toolRule("restorecon", "setfiles", "chcon", "matchpathcon", "fixfiles")},
		{"locks", calledOnlyIn("Flock", "internal/hostfs")},
		{"SELinux of containers", onlyIn("github.com/opencontainers/selinux/go-selinux", "internal/kernel")},
		{"mount options of containers", onlyIn("github.com/opencontainers/selinux/go-selinux/label", "internal/secontext")},
		{"contexts", contextFormRule},
		{"hostile text", quoteRule},
		{"map of /etc/selinux", selinuxMapRule},
		{"names", nameRule},
		{"no init", initRule},
		{"no mutable variables", variableRule},
		{"documented", documentRule},
		{"context first", contextRule},
	}
}

func TestRules(t *testing.T) {
	sources := parseModule(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			for _, s := range sources {
				for _, finding := range r.check(s) {
					t.Error(finding)
				}
			}
		})
	}
}

// Each package says in one place what it is for.
func TestPackageComments(t *testing.T) {
	comments := map[string]int{}
	for _, s := range parseModule(t) {
		if s.isTest() && !isTestSupport(s.dir) {
			continue
		}
		comments[s.dir] += 0
		if s.file.Doc != nil && len(s.file.Doc.Text()) > 40 {
			comments[s.dir]++
		}
	}
	for dir, n := range comments {
		if n != 1 {
			t.Errorf("%s has %d package comments: write one that says what the package is for and when not to use it", dir, n)
		}
	}
}

func arrowRule(s source) (findings []string) {
	if s.isTest() || isTestSupport(s.dir) {
		return nil
	}
	allowed, known := arrows()[s.top()]
	if !known {
		return []string{s.at(s.file.Name) + ": " + s.top() + " is in no layer: add it to the arrows"}
	}
	s.imports(func(spec *ast.ImportSpec, name string) {
		inside, ours := strings.CutPrefix(name, module+"/")
		if top, _, _ := strings.Cut(inside, "/"); ours && top != s.top() && !slices.Contains(allowed, top) {
			findings = append(findings, s.at(spec)+": "+s.dir+" must not import "+inside)
		}
	})
	return findings
}

func testPackageRule(s source) (findings []string) {
	if s.isTest() || isTestSupport(s.dir) || s.top() == "vmtests" {
		return nil
	}
	s.imports(func(spec *ast.ImportSpec, name string) {
		inside, ours := strings.CutPrefix(name, module+"/")
		if ours && (isTestSupport(inside) || inside == "vmtests" || strings.HasPrefix(inside, "vmtests/")) || name == "testing" {
			findings = append(findings, s.at(spec)+": only tests may import "+strings.TrimPrefix(name, module+"/"))
		}
	})
	return findings
}

func onlyIn(pkg string, dirs ...string) func(source) []string {
	return func(s source) (findings []string) {
		if !s.isProduct() || slices.Contains(dirs, s.dir) {
			return nil
		}
		s.imports(func(spec *ast.ImportSpec, name string) {
			if name == pkg {
				findings = append(findings, fmt.Sprintf("%s: %s is for %s only", s.at(spec), pkg, strings.Join(dirs, ", ")))
			}
		})
		return findings
	}
}

// selinuxMapRule finds who looks for policy.N or lxc_contexts by themselves. The names may stand in a sentence.
func selinuxMapRule(s source) (findings []string) {
	// vendor.go recognises what libsemanage makes in a store, policy.kern too, by its name.
	if !s.isProduct() || s.dir == "internal/seconfig" || path.Join(s.dir, s.name) == "policystore/vendor.go" {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if v, ok := n.(*ast.BasicLit); ok && v.Kind == token.STRING {
			text := strings.Trim(v.Value, "\"`")
			for _, name := range []string{"policy.", "policy.%d", "policy.*", "lxc_contexts"} {
				if text == name || strings.HasSuffix(text, "/"+name) {
					findings = append(findings, s.at(v)+": "+name+" is for internal/seconfig only")
				}
			}
		}
		return true
	})
	return findings
}

// quoteRule keeps to one spelling of text that others wrote.
func quoteRule(s source) (findings []string) {
	own := []string{"internal/printable", "internal/filecontexts", "packaging/sbom", "docs/generate", "docs/reference"} // the others print nothing of others
	if !s.isProduct() || slices.Contains(own, s.dir) {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch v := n.(type) {
		case *ast.BasicLit:
			if v.Kind == token.STRING && strings.Contains(v.Value, "%q") {
				findings = append(findings, s.at(v)+": not %q: use printable.Quote")
			}
		case *ast.SelectorExpr:
			if name := v.Sel.Name; name == "IsPrint" || strings.HasPrefix(name, "QuoteRune") || name == "QuoteToASCII" || isName(v.X, "strconv") && name == "Quote" {
				findings = append(findings, s.at(v)+": not "+name+": use printable.Text")
			}
		}
		return true
	})
	return findings
}

func isName(e ast.Expr, name string) bool { id, ok := e.(*ast.Ident); return ok && id.Name == name }

// calledOnlyIn finds calls of a function or method by its name.
func calledOnlyIn(name string, dirs ...string) func(source) []string {
	return func(s source) (findings []string) {
		if !s.isProduct() || slices.Contains(dirs, s.dir) {
			return nil
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == name {
					findings = append(findings, fmt.Sprintf("%s: %s is for %s only", s.at(call), name, strings.Join(dirs, ", ")))
				}
			}
			return true
		})
		return findings
	}
}

// contextFormRule leaves the form of contexts and levels to one package. What else is split at a colon is listed here.
func contextFormRule(s source) (findings []string) {
	others := []string{
		"avc/decode.go",                  // audit(TIME:SERIAL)
		"avc/attribution/attribution.go", // a line of /proc/PID/cgroup
		"internal/command/command.go",    // PATH
		"internal/hostfs/lock.go",        // MAJOR:MINOR:INODE in /proc/locks
		"internal/mounts/parse.go",       // MAJOR:MINOR of a mount
		"internal/systemd/journal.go",    // DEVICE:INODE of the journal's stream
		"mountwatch/remount/remount.go",  // shared:N
		"provision/accept.go",            // ID:PERMISSION,PERMISSION of readiness.accept
		"provision/ignition/volumes.go",  // SOURCE:TARGET:OPTIONS of a container's volume
	}
	if !s.isProduct() || s.dir == "internal/secontext" || slices.Contains(others, path.Join(s.dir, s.name)) {
		return nil
	}
	splits := []string{"Split", "SplitN", "SplitSeq", "SplitAfter", "SplitAfterN", "SplitAfterSeq", "Cut", "Count", "Index", "LastIndex", "IndexByte",
		"LastIndexByte", "IndexRune", "IndexAny", "FieldsFunc", "FieldsFuncSeq"}
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && (strings.Contains(literal.Value, "c[0-9]") || strings.Contains(literal.Value, "(s|c)")) {
				findings = append(findings, s.at(n)+": levels are read in internal/secontext only")
			}
			return true
		}
		function, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains(splits, function.Sel.Name) {
			return true
		}
		for _, argument := range call.Args {
			if literal, ok := argument.(*ast.BasicLit); ok && (literal.Value == `":"` || literal.Value == `':'`) {
				findings = append(findings, s.at(call)+": a context is taken apart in internal/secontext only")
			}
		}
		return true
	})
	return findings
}

// numberOnlyIn finds a number that is for one package only: by which the form begins that it reads.
func numberOnlyIn(number uint64, dir string) func(source) []string {
	return func(s source) (findings []string) {
		if !s.isProduct() || s.dir == dir {
			return nil
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.INT {
				if got, err := strconv.ParseUint(literal.Value, 0, 64); err == nil && got == number {
					findings = append(findings, fmt.Sprintf("%s: %#x is for %s only", s.at(n), number, dir))
				}
			}
			return true
		})
		return findings
	}
}

// saidOnlyIn finds strings with a word that is for some packages only.
func saidOnlyIn(word string, dirs ...string) func(source) []string {
	return func(s source) (findings []string) {
		if !s.isProduct() || slices.Contains(dirs, s.dir) {
			return nil
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && strings.Contains(literal.Value, word) {
				findings = append(findings, fmt.Sprintf("%s: %s is for %s only", s.at(n), word, strings.Join(dirs, ", ")))
			}
			return true
		})
		return findings
	}
}

// toolRule finds the names of tools that are not run, for the program does their work by itself. What a person is told to run is longer.
func toolRule(tools ...string) func(source) []string {
	return func(s source) (findings []string) {
		if !s.isProduct() || path.Join(s.dir, s.name) == "provision/ignition/byhand.go" { // which finds them in files of others
			return nil
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && slices.Contains(tools, strings.Trim(literal.Value, "\"`")) {
				findings = append(findings, s.at(n)+": "+literal.Value+" is not run: package relabel labels files, and internal/filecontexts knows their labels")
			}
			return true
		})
		return findings
	}
}

func nameRule(s source) []string {
	empty := []string{"util", "utils", "common", "helper", "helpers", "misc", "lib", "shared", "tools"}
	for _, name := range []string{path.Base(s.dir), strings.TrimSuffix(s.file.Name.Name, "_test")} {
		if slices.Contains(empty, name) {
			return []string{s.at(s.file.Name) + ": the name " + name + " says nothing: name the package after what it gives"}
		}
	}
	return nil
}

func initRule(s source) (findings []string) {
	for _, decl := range s.file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			findings = append(findings, s.at(f)+": no func init: what must happen is called where it can be seen")
		}
	}
	return findings
}

// variableRule lets through what nobody changes: sentinel errors, regular expressions, embedded files and the assertion
// that a type implements an interface.
func variableRule(s source) (findings []string) {
	if s.isTest() {
		return nil
	}
	for _, decl := range s.file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			if embedded(group.Doc) || embedded(v.Doc) {
				continue
			}
			for i, name := range v.Names {
				made := ""
				if i < len(v.Values) && len(v.Values) == len(v.Names) {
					made = maker(v.Values[i])
				}
				switch {
				case name.Name == "_", made == "errors.New", made == "lazyregexp.New":
					continue
				case made == "sync.OnceValues" && !s.isProduct(): // what the harness compiles
					continue
				case made == "regexp.MustCompile":
					if s.isProduct() {
						findings = append(findings, s.at(name)+": every start of the program would compile "+name.Name+": use internal/lazyregexp")
					}
					continue
				}
				findings = append(findings, s.at(name)+": no variable of a package: "+name.Name+" could be changed from anywhere")
			}
		}
	}
	return findings
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// maker is the function of another package that gives a value: "errors.New"; "" if there is none.
func maker(value ast.Expr) string {
	call, ok := value.(*ast.CallExpr)
	if !ok {
		return ""
	}
	function, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := function.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return pkg.Name + "." + function.Sel.Name
}

// documentRule leaves out methods whose meaning is fixed by an interface that everybody knows.
func documentRule(s source) (findings []string) {
	if s.isTest() || s.file.Name.Name == "main" {
		return nil
	}
	missing := func(name *ast.Ident, docs ...*ast.CommentGroup) {
		if name.IsExported() && !slices.ContainsFunc(docs, func(d *ast.CommentGroup) bool { return d != nil && d.Text() != "" }) {
			findings = append(findings, s.at(name)+": "+name.Name+" has no comment")
		}
	}
	for _, decl := range s.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			known := []string{"Error", "String", "Unwrap"}
			if d.Recv == nil || receiverIsExported(d.Recv) && !slices.Contains(known, d.Name.Name) {
				missing(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch v := spec.(type) {
				case *ast.TypeSpec:
					missing(v.Name, d.Doc, v.Doc)
				case *ast.ValueSpec:
					for _, name := range v.Names {
						missing(name, d.Doc, v.Doc, v.Comment)
					}
				}
			}
		}
	}
	return findings
}

func receiverIsExported(list *ast.FieldList) bool {
	kind := list.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.IndexExpr:
			kind = k.X
		case *ast.IndexListExpr:
			kind = k.X
		case *ast.Ident:
			return k.IsExported()
		default:
			return false
		}
	}
}

func contextRule(s source) (findings []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		f, ok := n.(*ast.FuncType)
		if !ok || f.Params == nil {
			return true
		}
		for i, param := range f.Params.List {
			kind, ok := param.Type.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			pkg, ok := kind.X.(*ast.Ident)
			if ok && pkg.Name == "context" && kind.Sel.Name == "Context" && i > 0 && !firstIsTesting(f) {
				findings = append(findings, s.at(param)+": the context comes first")
			}
		}
		return true
	})
	return findings
}

// firstIsTesting allows a test helper to have its *testing.T first.
func firstIsTesting(f *ast.FuncType) bool {
	kind := f.Params.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	selector, ok := kind.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	return ok && pkg.Name == "testing"
}

// The rules themselves: each finds what it should, and nothing else.
func TestRulesFind(t *testing.T) {
	const ours = `import _ "` + module + `/`
	for _, c := range []struct {
		rule, file, text string
		want             string // "" is right
	}{
		{"arrows", "cmd/x/a.go", ours + `stages"`, ""},
		{"arrows", "stages/a.go", ours + `policystore"`, ""},
		{"arrows", "stages/a.go", ours + `cmd/x"`, "stages must not import cmd/x"},
		{"arrows", "policystore/a.go", ours + `mountwatch"`, "policystore must not import mountwatch"},
		{"arrows", "provision/a.go", ours + `policystore"`, "provision must not import policystore"},
		{"arrows", "avc/a.go", ours + `stages"`, "avc must not import stages"},
		{"arrows", "mountwatch/a.go", ours + `relabel"`, ""},
		{"arrows", "relabel/a.go", ours + `internal/hostfs"`, ""},
		{"arrows", "internal/hostfs/a.go", ours + `internal/plan"`, ""},
		{"arrows", "internal/hostfs/a.go", ours + `provision"`, "internal/hostfs must not import provision"},
		{"arrows", "ignition-examples/a.go", ours + `provision"`, "ignition-examples must not import provision"},
		{"arrows", "ignition-examples/a_test.go", ours + `provision"`, ""},
		{"arrows", "new/a.go", "", "new is in no layer"},
		{"arrows", "stages/a.go", `import _ "example.com/cmd"`, ""},
		{"test packages", "stages/a.go", ours + `internal/xtest"`, "only tests may import internal/xtest"},
		{"test packages", "cmd/x/a.go", ours + `vmtests/y"`, "only tests may import vmtests/y"},
		{"test packages", "cmd/x/a.go", `import "testing"`, "only tests may import testing"},
		{"test packages", "stages/a_test.go", ours + `internal/xtest"`, ""},
		{"test packages", "provision/a.go", ours + `contest"`, ""},
		{"processes", "internal/command/a.go", `import "os/exec"`, ""},
		{"processes", "stages/a.go", `import "os/exec"`, "os/exec is for internal/command only"},
		{"processes", "stages/a_test.go", `import "os/exec"`, ""},
		{"processes", "vmtests/a.go", `import "os/exec"`, ""},
		{"system calls", "provision/a.go", `import "golang.org/x/sys/unix"`, "golang.org/x/sys/unix is for internal/command, "},
		{"system calls", "internal/hostfs/a.go", `import "golang.org/x/sys/unix"`, ""},
		{"locks", "stages/a.go", `var _ = unix.Flock(0, 0)`, "Flock is for internal/hostfs only"},
		{"locks", "internal/hostfs/a.go", `var _ = unix.Flock(0, 0)`, ""},
		{"SELinux of containers", "stages/a.go", `import "github.com/opencontainers/selinux/go-selinux"`, "is for internal/kernel only"},
		{"SELinux of containers", "internal/kernel/a.go", `import "github.com/opencontainers/selinux/go-selinux"`, ""},
		{"mount options of containers", "stages/a.go", `import "github.com/opencontainers/selinux/go-selinux/label"`, "is for internal/secontext only"},
		{"contexts", "stages/a.go", `var a = strings.SplitN(c, ":", 4)`, "a context is taken apart in internal/secontext only"},
		{"contexts", "stages/a.go", `var a, b, _ = strings.Cut(c, ":")`, "a context is taken apart in internal/secontext only"},
		{"contexts", "stages/a.go", `var a = bytes.IndexByte(c, ':')`, "a context is taken apart in internal/secontext only"},
		{"contexts", "stages/a.go", "var a = regexp.MustCompile(`^s[0-9](:c[0-9])?`)", "levels are read in internal/secontext only"},
		{"contexts", "stages/a.go", `var a = strings.SplitN(c, ",", 4)`, ""},
		{"contexts", "stages/a_test.go", `var a = strings.SplitN(c, ":", 4)`, ""},
		{"contexts", "internal/secontext/a.go", `var a = strings.SplitN(c, ":", 4)`, ""},
		{"contexts", "internal/mounts/parse.go", `var a, b, _ = strings.Cut(c, ":")`, ""},
		{"mount table", "relabel/a.go", "const f = `/proc/self/mountinfo`", "mountinfo is for internal/mounts, internal/mounttest only"},
		{"mount table", "stages/a.go", "import \"github.com/moby/sys/mountinfo\"", "mountinfo is for internal/mounts, internal/mounttest only"},
		{"mount table", "relabel/a.go", "// as in /proc/self/mountinfo", ""},
		{"mount table", "internal/mounts/a.go", "const f = `/proc/self/mountinfo`", ""},
		{"mount table", "relabel/a_test.go", "const f = `/proc/self/mountinfo`", ""},
		{"binary policies", "stages/a.go", `const magic = 0xf97cff8c`, "0xf97cff8c is for internal/policydb only"},
		{"binary policies", "stages/a.go", `const magic = 0xf97cff8d`, ""},
		{"binary policies", "internal/policydb/a.go", `const magic = 0xf97cff8c`, ""},
		{"map of /etc/selinux", "stages/a.go", `var _ = strings.CutPrefix(x, "policy.")`, "policy. is for internal/seconfig only"},
		{"map of /etc/selinux", "stages/a.go", `var _ = fmt.Sprintf("%s/policy.%d", x, y)`, "policy.%d is for internal/seconfig only"},
		{"map of /etc/selinux", "avc/a.go", `var _ = "/contexts/lxc_contexts"`, "lxc_contexts is for internal/seconfig only"},
		{"map of /etc/selinux", "avc/a.go", `var _ = "there is no lxc_contexts"`, ""},
		{"map of /etc/selinux", "stages/a.go", `var _ = "policy.shared_volumes"`, ""},
		{"map of /etc/selinux", "internal/seconfig/a.go", `var _ = "policy."`, ""},
		{"hostile text", "stages/a.go", `var _ = fmt.Sprintf("%q", x)`, "not %q: use printable.Quote"},
		{"hostile text", "stages/a.go", `var _ = unicode.IsPrint(x)`, "not IsPrint"},
		{"hostile text", "stages/a.go", `var _ = strconv.Quote(x)`, "not Quote: use printable.Text"},
		{"hostile text", "stages/a.go", `var _ = printable.Quote(x)`, ""},
		{"hostile text", "stages/a_test.go", `var _ = strconv.Quote(x)`, ""},
		{"labels", "policystore/a.go", `var argv = []string{"restorecon", "-R"}`, `"restorecon" is not run`},
		{"labels", "avc/a.go", `const remedy = "restorecon -RFv "`, ""},
		{"labels", "vmtests/a.go", `const tool = "restorecon"`, ""},
		{"names", "internal/util/a.go", "", "the name util says nothing"},
		{"names", "internal/utility/a.go", "", ""},
		{"no init", "stages/a.go", "func init() {}", "no func init"},
		{"no init", "stages/a_test.go", "func init() {}", "no func init"},
		{"no init", "stages/a.go", "type t struct{}\nfunc (t) init() {}", ""},
		{"no mutable variables", "stages/a.go", "var x int", "x could be changed"},
		{"no mutable variables", "stages/a.go", "var m = map[string]int{}", "m could be changed"},
		{"no mutable variables", "stages/a.go", "var a, b = f()", "a could be changed"},
		{"no mutable variables", "stages/a.go", "var (\n\tErrX = errors.New(\"x\")\n\tr = lazyregexp.New(`x`)\n)", ""},
		{"no mutable variables", "stages/a.go", "var r = regexp.MustCompile(`x`)", "every start of the program would compile r"},
		{"no mutable variables", "vmtests/a.go", "var r = regexp.MustCompile(`x`)", ""},
		{"no mutable variables", "vmtests/a.go", "var r = sync.OnceValues(f)", ""},
		{"no mutable variables", "stages/a.go", "var r = sync.OnceValues(f)", "r could be changed"},
		{"no mutable variables", "stages/a.go", "//go:embed x\nvar x string", ""},
		{"no mutable variables", "stages/a.go", "var _ error = (*E)(nil)", ""},
		{"no mutable variables", "stages/a_test.go", "var update = true", ""},
		{"no mutable variables", "stages/a.go", "func f() { var x int; _ = x }", ""},
		{"documented", "stages/a.go", "func F() {}", "F has no comment"},
		{"documented", "stages/a.go", "// F is.\nfunc F() {}\nfunc g() {}", ""},
		{"documented", "stages/a.go", "//go:noinline\nfunc F() {}", "F has no comment"},
		{"documented", "stages/a.go", "// T is.\ntype T struct{}\nfunc (t *T) M() {}", "M has no comment"},
		{"documented", "stages/a.go", "// T is.\ntype T[K any] struct{}\nfunc (x *T[K]) M() {}", "M has no comment"},
		{"documented", "stages/a.go", "// E is.\ntype E struct{}\nfunc (E) Error() string { return \"\" }", ""},
		{"documented", "stages/a.go", "type t[K any] struct{}\nfunc (x *t[K]) M() {}", ""},
		{"documented", "stages/a.go", "type T int", "T has no comment"},
		{"documented", "stages/a.go", "const (\n\tA = 1 // is one\n\tB = 2\n)", "B has no comment"},
		{"documented", "stages/a.go", "// Numbers.\nconst (\n\tA = 1\n\tB = 2\n)", ""},
		{"context first", "stages/a.go", "func f(a int, ctx context.Context) {}", "the context comes first"},
		{"context first", "stages/a.go", "type i interface{ f(a int, ctx context.Context) }", "the context comes first"},
		{"context first", "stages/a.go", "func f(ctx context.Context, a int) {}", ""},
		{"context first", "stages/a.go", "func f(t *testing.T, ctx context.Context) {}", ""},
	} {
		t.Run(c.rule+"/"+c.file, func(t *testing.T) {
			s, err := parseFile(c.file, []byte("package p\n"+c.text+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(rules(), func(r rule) bool { return r.name == c.rule })
			if i < 0 {
				t.Fatal("no such rule")
			}
			got := rules()[i].check(s)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) == 0 || !strings.Contains(got[0], c.want)) {
				t.Errorf("%q\ngot  %q\nwant %q", c.text, got, c.want)
			}
		})
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

func parseModule(t *testing.T) (all []source) {
	t.Helper()
	tree := os.DirFS(root(t))
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// The go command leaves out the same, and other modules.
			hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "vendor"
			if _, err := fs.Stat(tree, path.Join(name, "go.mod")); name != "." && (hidden || err == nil) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		s, err := parseFile(name, text)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d files of the module were found", len(all))
	}
	return all
}

func parseFile(name string, text []byte) (source, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{dir: path.Dir(name), name: path.Base(name), file: file, set: set}, err
}

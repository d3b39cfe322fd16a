package archtest

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A package, a file or a test of this repository that a comment or a document names exists.
func TestNamesExist(t *testing.T) {
	tops := map[string]bool{}
	for top := range arrows() {
		tops[top] = true
	}
	tests := map[string]bool{}
	root := root(t)
	check := func(place, text string) {
		for _, name := range ownNames(text, tops) {
			_, atRoot := os.Stat(filepath.Join(root, name))
			_, beside := os.Stat(filepath.Join(root, filepath.Dir(place), name))
			if !tests[name] && atRoot != nil && beside != nil {
				t.Errorf("%s: there is no %s", place, name)
			}
		}
	}
	sources := parseModule(t)
	for _, s := range sources {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && s.isTest() {
				tests[s.dir+"."+f.Name.Name] = true
			}
		}
	}
	for _, s := range sources {
		for _, group := range s.file.Comments {
			check(s.at(group), group.Text())
		}
	}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(name) != ".md" {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		check(strings.TrimPrefix(name, root+"/"), string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every package of internal stands on the map in docs/architecture.md.
func TestMapIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range parseModule(t) {
		if strings.HasPrefix(s.dir, "internal/") && !regexp.MustCompile(regexp.QuoteMeta(s.dir)+`[^a-z/]`).Match(text) {
			t.Errorf("docs/architecture.md does not have %s", s.dir)
		}
	}
}

// ownNames finds what looks like a path of this repository: one that begins with one of its directories.
func ownNames(text string, tops map[string]bool) (names []string) {
	path := regexp.MustCompile(`(^|[^A-Za-z0-9_./%{<$*-])([a-z][a-z-]*)((?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+)([^A-Za-z0-9]|$)`)
	for _, m := range path.FindAllStringSubmatch(text, -1) {
		if tops[m[2]] && m[4] != "*" && m[4] != "<" {
			names = append(names, m[2]+strings.TrimRight(m[3], ".-"))
		}
	}
	return names
}

func TestOwnNames(t *testing.T) {
	tops := map[string]bool{"stages": true, "docs": true, "ignition-examples": true}
	for text, want := range map[string]string{
		"see stages/state.go, and docs/adr.":                       "stages/state.go docs/adr",
		"`docs/generate.TestPages` and (ignition-examples/x.bu)":   "docs/generate.TestPages ignition-examples/x.bu",
		"/usr/stages/x, ../docs/adr, other/thing, docs/*.md, docs": "",
	} {
		if got := strings.Join(ownNames(text, tops), " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

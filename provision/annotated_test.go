package provision

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The annotated configuration is right, has every key that the parser knows, and none that it does not.
func TestAnnotatedConfig(t *testing.T) {
	if _, err := Parse("annotated.yaml", strings.NewReader(AnnotatedConfig())); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		tree, err := goparser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if name, ok := literal.Type.(*ast.Ident); !ok || name.Name != "keys" {
				return true
			}
			for _, element := range literal.Elts {
				text, ok := element.(*ast.KeyValueExpr).Key.(*ast.BasicLit)
				if !ok {
					continue
				}
				key, err := strconv.Unquote(text.Value)
				if err != nil {
					t.Fatal(err)
				}
				found++
				if !regexp.MustCompile(`(?m)^[ -]*` + key + `:|[{ ]` + key + `: `).MatchString(AnnotatedConfig()) {
					t.Errorf("%s knows the key %q: describe it in annotated.yaml", file, key)
				}
			}
			return true
		})
	}
	if found < 30 {
		t.Errorf("the parser has %d keys: this test looks at the wrong place", found)
	}
}

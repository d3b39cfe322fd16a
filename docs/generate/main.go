// Command generate writes the documents that follow from the source: docs/reference.md (the JSON object of each command with the
// comments of its fields, the metrics, the messages), the table of messages in docs/3am.md, and the tests in docs/promises.md. It is run
// in the root of the repository. A test compares the files with what this writes.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/messages"
)

const module = "github.com/selinux-provision/selinux-provision"

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	pages, err := generate(root)
	if err != nil {
		return err
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(root, name), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns each page with its name relative to the root of the repository.
func generate(root string) (map[string]string, error) {
	s, err := read(root)
	if err != nil {
		return nil, err
	}
	reference, err := s.reference()
	if err != nil {
		return nil, err
	}
	old := map[string]string{}
	for _, name := range []string{guidePage, promisesPage} {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		old[name] = string(content)
	}
	guide, err := messageTable(old[guidePage])
	if err != nil {
		return nil, err
	}
	proofs, err := readProofs(root)
	if err != nil {
		return nil, err
	}
	proven, err := promises(old[promisesPage], proofs)
	if err != nil {
		return nil, err
	}
	return map[string]string{"docs/reference.md": reference, guidePage: guide, promisesPage: proven}, nil
}

const (
	guidePage    = "docs/3am.md"
	promisesPage = "docs/promises.md"
)

// messageTable puts the table of messages into a page, in place of the one that is there.
func messageTable(page string) (string, error) {
	const head = "| MESSAGE_ID | means | do |\n|---|---|---|\n"
	before, rest, ok := strings.Cut(page, head)
	if !ok {
		return "", fmt.Errorf("%s has no table of messages", guidePage)
	}
	_, after, _ := strings.Cut(rest, "\n\n")
	var rows strings.Builder
	for _, m := range messages.All() {
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", m.ID, m.Means, m.Do)
	}
	return before + head + rows.String() + "\n" + after, nil
}

// source is the parsed product.
type source struct {
	types    map[string]declared // by "directory.Name"
	values   map[string][]string // of the constants of a type
	marshals map[string]bool     // types that write themselves as text
	files    []file
}

// declared is a type with where it is declared.
type declared struct {
	spec *ast.TypeSpec
	doc  string
	in   *file
}

type file struct {
	dir  string
	tree *ast.File
}

func read(root string) (*source, error) {
	s := &source{types: map[string]declared{}, values: map[string][]string{}, marshals: map[string]bool{}}
	for _, top := range []string{"cmd/selinux-provision", "stages", "policystore", "mountwatch", "relabel", "avc", "provision", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			tree, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			below, err := filepath.Rel(root, filepath.Dir(name))
			s.files = append(s.files, file{filepath.ToSlash(below), tree})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range s.files {
		f := &s.files[i]
		for _, d := range f.tree.Decls {
			if method, ok := d.(*ast.FuncDecl); ok && method.Recv != nil && (method.Name.Name == "MarshalText" || method.Name.Name == "MarshalJSON") {
				s.marshals[f.dir+"."+receiver(method)] = true
			}
			group, ok := d.(*ast.GenDecl)
			if ok && group.Tok == token.CONST {
				s.constants(f, group)
			}
			if !ok || group.Tok != token.TYPE {
				continue
			}
			for _, spec := range group.Specs {
				t := spec.(*ast.TypeSpec) //nolint:errcheck // a declaration of types holds nothing else
				doc := t.Doc
				if doc == nil {
					doc = group.Doc
				}
				s.types[f.dir+"."+t.Name.Name] = declared{t, oneLine(doc.Text()), f}
			}
		}
	}
	return s, nil
}

// constants keeps the values of constants that have a type and are text.
func (s *source) constants(f *file, group *ast.GenDecl) {
	for _, spec := range group.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || v.Type == nil {
			continue
		}
		name, ok := v.Type.(*ast.Ident)
		if !ok {
			continue
		}
		for _, value := range v.Values {
			if text := literal(value); text != "" {
				s.values[f.dir+"."+name.Name] = append(s.values[f.dir+"."+name.Name], "`"+text+"`")
			}
		}
	}
}

func receiver(method *ast.FuncDecl) string {
	t := method.Recv.List[0].Type
	if pointer, ok := t.(*ast.StarExpr); ok {
		t = pointer.X
	}
	if name, ok := t.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// commands names those functions of the command line whose answer is not that of the command of their name.
func commands() map[string]string {
	return map[string]string{
		"finish": "apply, stage, revert", "check": "check --usr", "checkFiles": "check FILE", "manCommand": "man",
		"explainCommand": "explain", "tellJSON": "denials --follow, each line", "may": "denials --may", "beyond": "denials --may --beyond", "describeType": "denials --types", "module": "denials --module",
		"waitFor": "watch --wait-for", "sampled": "readiness --sample", "domainReadiness": "readiness --domain", "export": "status --export", "fleetReport": "readiness --report PAGE FILE...",
	}
}

func (s *source) reference() (string, error) {
	w := &strings.Builder{}
	fmt.Fprint(w, `# Reference of JSON, metrics and messages

Written by "make generated" from the source; do not edit.

## JSON

With `+"`--json`"+` each command but `+"`help` and `completion`"+` prints one object on standard output, also when it fails; `+"`denials --follow`"+` prints
one in each line, and does so in a pipe without being asked. A field that is not listed as one may be missing; new fields may come, a field keeps its meaning. Times are RFC 3339, durations nanoseconds unless the field says otherwise.

`)
	p := &printer{source: s, w: w, done: map[string]bool{}}
	header, ok := s.types["cmd/selinux-provision.header"]
	if !ok {
		return "", errors.New("cannot find the header of all answers")
	}
	fmt.Fprintf(w, "### Every command\n\n")
	p.table("every command", header.spec.Type.(*ast.StructType), header.in) //nolint:errcheck // it is one
	answers := s.answers()
	for _, a := range answers {
		fmt.Fprintf(w, "### %s\n\n", a.command)
		p.table(a.command, a.object, a.in)
	}
	for len(p.queue) > 0 {
		name := p.queue[0]
		p.queue = p.queue[1:]
		d := s.types[name]
		fmt.Fprintf(w, "### %s\n\n", title(name))
		if d.doc != "" {
			fmt.Fprintf(w, "%s\n\n", d.doc)
		}
		p.table(title(name), d.spec.Type.(*ast.StructType), d.in) //nolint:errcheck // only such are queued
	}
	if len(p.twice) > 0 {
		return "", fmt.Errorf("these fields would be left out of the JSON, since there are two of one name: %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(p.twice))), ", "))
	}
	s.metrics(w)
	fmt.Fprintf(w, "## Messages\n\n`journalctl MESSAGE_ID=...` finds them. What to do: [3am.md](3am.md#by-message_id).\n\n| MESSAGE_ID | |\n|---|---|\n")
	for _, m := range messages.All() {
		fmt.Fprintf(w, "| `%s` | %s |\n", m.ID, m.Means)
	}
	return w.String(), nil
}

// answer is the object of one command.
type answer struct {
	command string
	object  *ast.StructType
	in      *file
}

// answers finds every a.answer(struct{...}{...}).
func (s *source) answers() (all []answer) {
	for i := range s.files {
		f := &s.files[i]
		if f.dir != "cmd/selinux-provision" {
			continue
		}
		for _, d := range f.tree.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			name := commands()[function.Name.Name]
			if name == "" {
				name = function.Name.Name
			}
			ast.Inspect(function.Body, func(n ast.Node) bool {
				object, ok := n.(*ast.StructType)
				if !ok || len(object.Fields.List) == 0 {
					return true
				}
				if first, ok := object.Fields.List[0].Type.(*ast.Ident); ok && first.Name == "header" && len(object.Fields.List[0].Names) == 0 {
					all = append(all, answer{name, object, f})
				}
				return true
			})
		}
	}
	slices.SortStableFunc(all, func(a, b answer) int { return cmp.Compare(a.command, b.command) })
	return all
}

type printer struct {
	*source
	w     io.Writer
	done  map[string]bool
	queue []string
	twice []string // names that one object would have twice: encoding/json leaves all of them out
}

// row is a field of an object.
type row struct {
	name, text string
	is         ast.Expr
	in         *file
	depth      int  // of the structs that it is embedded with
	common     bool // it is one that every answer has
}

func (p *printer) table(what string, object *ast.StructType, in *file) {
	all := p.rows(object, in, 0, false)
	fmt.Fprintf(p.w, "| field | type | |\n|---|---|---|\n")
	for _, r := range all {
		same := slices.DeleteFunc(slices.Clone(all), func(other row) bool { return other.name != r.name || other.depth > r.depth })
		switch hidden := slices.ContainsFunc(same, func(other row) bool { return other.depth < r.depth }); {
		case !hidden && len(same) > 1:
			p.twice = append(p.twice, what+": "+r.name)
		case !hidden && !r.common:
			fmt.Fprintf(p.w, "| `%s` | %s | %s |\n", r.name, p.describe(r.is, r.in), strings.ReplaceAll(r.text, "|", `\|`))
		}
	}
	fmt.Fprintln(p.w)
}

func (p *printer) rows(object *ast.StructType, in *file, depth int, common bool) (all []row) {
	for _, field := range object.Fields.List {
		if len(field.Names) == 0 {
			ident, _ := field.Type.(*ast.Ident)
			if embedded, ok := p.types[p.name(field.Type, in)]; ok {
				if inner, ok := embedded.spec.Type.(*ast.StructType); ok {
					all = append(all, p.rows(inner, embedded.in, depth+1, ident != nil && ident.Name == "header")...)
				}
			}
			continue
		}
		for _, ident := range field.Names {
			name := ident.Name
			if !ident.IsExported() {
				continue
			}
			if field.Tag != nil {
				tag, _ := strconv.Unquote(field.Tag.Value)
				if value, ok := reflect.StructTag(tag).Lookup("json"); ok {
					value, _, _ = strings.Cut(value, ",")
					if value == "-" {
						continue
					}
					name = cmp.Or(value, name)
				}
			}
			text := oneLine(field.Comment.Text())
			if text == "" {
				text = strings.TrimPrefix(oneLine(field.Doc.Text()), ident.Name+" ")
			}
			for _, verb := range []string{"is ", "are "} {
				text = strings.TrimPrefix(text, verb)
			}
			all = append(all, row{name, text, field.Type, in, depth, common})
		}
	}
	return all
}

// describe says in JSON's words what a type becomes, and has the structs of the product described later.
func (p *printer) describe(t ast.Expr, in *file) string {
	switch v := t.(type) {
	case *ast.StarExpr:
		return p.describe(v.X, in)
	case *ast.ArrayType:
		return "list of " + p.describe(v.Elt, in)
	case *ast.MapType:
		return "object: " + p.describe(v.Value, in) + " by name"
	case *ast.StructType:
		return "object"
	}
	switch name := p.name(t, in); name {
	case "string", "error":
		return "string"
	case "bool":
		return "boolean"
	case "time.Time":
		return "time"
	case "time.Duration":
		return "duration"
	default:
		d, ok := p.types[name]
		if !ok {
			return "number"
		}
		if p.marshals[name] {
			return "string"
		}
		switch underlying := d.spec.Type.(type) {
		case *ast.StructType:
			if !p.done[name] {
				p.done[name] = true
				p.queue = append(p.queue, name)
			}
			return "[" + title(name) + "](#" + strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(title(name)), ".", ""), " ", "-") + ")"
		default:
			if values := p.values[name]; len(values) > 1 { // one constant is a special case, and not all that there may be
				return "one of " + strings.Join(values, ", ")
			}
			return p.describe(underlying, d.in)
		}
	}
}

// name gives the key of a named type: "directory.Name" for one of the product.
func (p *printer) name(t ast.Expr, in *file) string {
	switch v := t.(type) {
	case *ast.StarExpr:
		return p.name(v.X, in)
	case *ast.Ident:
		if _, ok := p.types[in.dir+"."+v.Name]; ok {
			return in.dir + "." + v.Name
		}
		return v.Name
	case *ast.SelectorExpr:
		pkg, ok := v.X.(*ast.Ident)
		if !ok {
			return ""
		}
		for _, spec := range in.tree.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if below, ours := strings.CutPrefix(imported, module+"/"); ours && (spec.Name != nil && spec.Name.Name == pkg.Name || spec.Name == nil && path.Base(imported) == pkg.Name) {
				return below + "." + v.Sel.Name
			}
		}
		return pkg.Name + "." + v.Sel.Name
	}
	return ""
}

func title(name string) string {
	dir, typeName, _ := strings.Cut(path.Base(name), ".")
	return dir + " " + typeName
}

// metrics finds metric("name", "help", ...) in the command line.
func (s *source) metrics(w io.Writer) {
	var rows []string
	for _, f := range s.files {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			function, ok := call.Fun.(*ast.Ident)
			if !ok || function.Name != "metric" {
				return true
			}
			name, help := literal(call.Args[0]), literal(call.Args[1])
			if name != "" && help != "" {
				rows = append(rows, fmt.Sprintf("| `selinux_provision_%s` | %s |", name, help))
			}
			return true
		})
	}
	if len(rows) > 0 {
		fmt.Fprintf(w, "## Metrics\n\nGauges, and counters (`_total`), in Prometheus' text format, by `selinux-provision readiness --metrics FILE`; see [fleet.md](fleet.md).\n\n| metric | |\n|---|---|\n%s\n\n", strings.Join(rows, "\n"))
	}
}

func literal(e ast.Expr) string {
	basic, ok := e.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(basic.Value)
	return text
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

package provision

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/roles"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/spelling"
	"github.com/selinux-provision/selinux-provision/internal/textform"
)

const (
	maxConfig   = 1 << 20 // bytes of one config file
	maxProblems = 50      // of one config file
	maxPath     = 4096    // PATH_MAX

	// reservedPrefix begins the names of the modules that this program makes itself.
	reservedPrefix = "selinux_provision_"
)

// Document is one config file that was read and found right in itself. What it says counts only together with the other
// files, through Load.
type Document struct {
	name           string
	mode           *Mode
	modules        []moduleRef
	modulesSet     bool
	replaceVendor  []string
	roles          []string
	booleans       map[string]bool
	sharedVolumes  *bool
	fileContexts   []FileContext
	equivalences   []Equivalence
	logDenials     *bool
	stripDontaudit *bool

	guard            *guardKeys
	requireReadiness *bool
	readiness        *readinessKeys
	volumes          []Volume
	relabel          relabelLimits

	avcCacheThreshold *int

	permissiveDomains []PermissiveDomain
}

type moduleRef struct {
	path   string
	source Position
	key    string
}

// Parse reads one config file of the given name, at most 1 MiB of it. All its problems come back at once, as Errors.
func Parse(name string, r io.Reader) (*Document, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, Errors{{Position: Position{File: name}, Problem: "cannot read this file: " + reason(err), cause: err}}
	}
	doc, _, problems := parse(name, content)
	if len(problems) > 0 {
		return nil, problems
	}
	return doc, nil
}

// parse gives what could be understood of a file, whether its keys could be seen at all, and its problems.
func parse(name string, content []byte) (doc *Document, understood bool, problems Errors) {
	p := &parser{doc: &Document{name: name}}
	if len(content) > maxConfig {
		p.complain(0, "", fmt.Sprintf("cannot use a config file of more than %d KiB", maxConfig>>10), "split it into files in "+DropInDir)
		return p.doc, false, p.problems
	}
	text, err := textform.Text(content)
	if form, refused := errors.AsType[*textform.Error](err); refused {
		p.complain(1, "", "cannot read this file: "+form.Is, form.Do)
		return p.doc, false, p.problems
	}
	root, err := load(text)
	switch {
	case err != nil:
		line, text := syntaxError(err)
		p.complain(line, "", "cannot read this as YAML: "+text, "")
		return p.doc, false, p.problems
	case root == nil:
		p.complain(0, "", "cannot use an empty config file", `write at least "version: 1", or remove the file`)
		return p.doc, true, p.problems
	}
	understood = p.top(root)
	slices.SortStableFunc(p.problems, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	if len(p.problems) > maxProblems {
		p.problems = p.problems[:maxProblems]
		p.complain(0, "", fmt.Sprintf("cannot list more than %d problems", maxProblems), "correct these first")
	}
	return p.doc, understood, p.problems
}

// load gives the one document of a file, or nil if it holds nothing but comments.
func load(content []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var first, second yaml.Node
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := loader.Load(&second); err == nil {
		return nil, &yaml.LoadError{
			Mark: yaml.Mark{Line: second.Line}, Message: "it holds more than one document: remove the line ---",
		}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	root := &first
	if root.Kind == yaml.DocumentNode {
		if len(root.Content) != 1 {
			return nil, nil
		}
		root = root.Content[0]
	}
	if null(root) {
		return nil, nil
	}
	return root, nil
}

func syntaxError(err error) (line int, text string) {
	var one *yaml.LoadError
	if !errors.As(err, &one) {
		return 0, oneLine(err.Error())
	}
	line = one.Mark.Line
	text = one.Message
	if line == 0 {
		line = one.ContextMark.Line
	}
	if one.ContextMsg != "" {
		text += " (" + one.ContextMsg + ")"
	}
	return line, oneLine(text)
}

type parser struct {
	doc      *Document
	problems Errors
}

// complain notes a problem. It keeps one more than is shown, so that it is known when some were left out.
func (p *parser) complain(line int, key, problem, remedy string) {
	if len(p.problems) <= maxProblems {
		p.problems = append(p.problems, &Error{
			Position: p.at(line), Key: key, Problem: problem, Remedy: remedy,
		})
	}
}

func (p *parser) at(line int) Position { return Position{File: p.doc.name, Line: line} }

// keys says what may stand in a mapping, and what is done with each value.
type keys map[string]func(key string, value *yaml.Node)

// mapping goes through a mapping. An empty one may also be written as nothing at all: all its lines are comments.
func (p *parser) mapping(prefix string, n *yaml.Node, known keys) (seen map[string]bool, ok bool) {
	if null(n) {
		return nil, true
	}
	if n.Kind != yaml.MappingNode {
		p.complain(n.Line, prefix, "cannot use "+describe(n)+" here", "write keys with values: "+list(slices.Sorted(maps.Keys(known)), "and"))
		return nil, false
	}
	seen = map[string]bool{}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), resolve(n.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			p.complain(key.Line, prefix, "cannot use "+describe(key)+" as a key", "the keys here are "+list(slices.Sorted(maps.Keys(known)), "and"))
			continue
		}
		full := join(prefix, key.Value)
		if first, twice := lines[key.Value]; twice {
			p.complain(key.Line, full, fmt.Sprintf("cannot use a key twice, it is in line %d already", first), "remove one of the two")
			continue
		}
		lines[key.Value] = key.Line
		take, found := known[key.Value]
		if !found {
			remedy := "the keys here are " + list(slices.Sorted(maps.Keys(known)), "and")
			if where := placesOf(key.Value); len(where) > 0 {
				remedy = "it belongs " + list(where, "or")
			} else if near := spelling.Nearest(key.Value, slices.Collect(maps.Keys(known))); near != "" {
				remedy = fmt.Sprintf("did you mean %s?", printable.Quote(near))
			}
			p.complain(key.Line, full, "cannot use an unknown key", remedy)
			continue
		}
		seen[key.Value] = true
		take(full, value)
	}
	return seen, true
}

func (p *parser) top(root *yaml.Node) (understood bool) {
	if root.Kind != yaml.MappingNode {
		p.complain(root.Line, "", "cannot use "+describe(root)+" as a config", `begin with the line "version: 1"`)
		return false
	}
	// The version decides what all else means, so it comes first wherever it stands.
	for i := 0; i+1 < len(root.Content); i += 2 {
		if key := resolve(root.Content[i]); key.Kind == yaml.ScalarNode && key.Value == "version" {
			if value := resolve(root.Content[i+1]); value.Tag != "!!int" || value.Value != "1" {
				p.complain(value.Line, "version", "cannot use "+describe(value)+" as the version of a config",
					`write "version: 1", the only one that this program knows`)
				return false
			}
		}
	}
	seen, _ := p.mapping("", root, keys{
		"version": func(string, *yaml.Node) {},
		"mode": func(key string, n *yaml.Node) {
			if s, ok := p.choice(key, n, "a mode", string(Enforcing), string(Permissive), string(Unmanaged)); ok {
				p.doc.mode = new(Mode(s))
			}
		},
		"policy": func(key string, n *yaml.Node) {
			p.mapping(key, n, keys{
				"modules":                p.modules,
				"replace_vendor_modules": p.replaceVendorModules,
				"roles":                  p.roles,
				"booleans":               p.booleans,
				"shared_volumes":         func(key string, n *yaml.Node) { p.doc.sharedVolumes = p.boolean(key, n) },
				"file_contexts":          p.fileContexts,
				"equivalences":           p.equivalences,
			})
		},
		"audit": func(key string, n *yaml.Node) {
			p.mapping(key, n, keys{
				"log_denials": func(key string, n *yaml.Node) { p.doc.logDenials = p.boolean(key, n) },
				"dontaudit": func(key string, n *yaml.Node) {
					if s, ok := p.choice(key, n, "a treatment of dontaudit rules", "keep", "strip"); ok {
						p.doc.stripDontaudit = new(s == "strip")
					}
				},
			})
		},
		"kernel": func(key string, n *yaml.Node) {
			p.mapping(key, n, keys{
				"avc_cache_threshold": func(key string, n *yaml.Node) {
					p.doc.avcCacheThreshold = p.number(key, n, "a number of entries", 128, 65536)
				},
			})
		},
		"enforce":   p.enforce,
		"readiness": p.readiness,
		"volumes":   p.volumes,
		"relabel":   p.relabel,
	})
	if !seen["version"] {
		p.complain(root.Line, "version", "cannot find this key", `write "version: 1" in the first line`)
	}
	return true
}

func (p *parser) modules(key string, n *yaml.Node) {
	p.doc.modulesSet = true
	if null(n) {
		p.complain(n.Line, key, "cannot tell what an empty value means here",
			"write [] for no modules at all, or remove the key to use every module in "+ModulesDir)
		return
	}
	items, ok := p.sequence(key, n)
	if !ok {
		return
	}
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		if item.Kind == yaml.ScalarNode && strings.HasPrefix(item.Value, "/") {
			p.complain(item.Line, key, "cannot use "+describe(item)+" here", "write it as \"path: "+clip(item.Value)+`"`)
			continue
		}
		seen, ok := p.mapping(key, item, keys{
			"path": func(key string, n *yaml.Node) {
				if file, ok := p.text(key, n, "the path of a module"); ok {
					if problem, remedy := checkModulePath(file); problem != "" {
						p.complain(n.Line, key, problem, remedy)
						return
					}
					p.doc.modules = append(p.doc.modules, moduleRef{path: file, source: p.at(n.Line), key: key})
				}
			},
		})
		if ok && !seen["path"] {
			p.complain(item.Line, key, `cannot find the key "path"`, `write "path: " and the file of the module`)
		}
	}
}

func (p *parser) replaceVendorModules(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		name, ok := p.text(key, item, "the name of a module")
		switch {
		case !ok:
		case secontext.IsName(name):
			p.doc.replaceVendor = append(p.doc.replaceVendor, name)
		default:
			p.complain(item.Line, key, "cannot use "+quote(name)+" as the name of a module", "write the name alone, without directory and without .cil or .pp")
		}
	}
}

func (p *parser) roles(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	for i, item := range items {
		if name, ok := p.choice(fmt.Sprintf("%s[%d]", key, i), item, "a role", roles.Names()...); ok {
			p.doc.roles = append(p.doc.roles, name)
		}
	}
}

func checkModulePath(file string) (problem, remedy string) {
	problem = "cannot use " + quote(file) + " as the path of a module"
	switch {
	case file == "" || unprintable(file) || len(file) > maxPath:
		return problem, "write an absolute path without control characters"
	case !strings.HasPrefix(file, "/"):
		return problem, "write an absolute path, such as " + clip(path.Join(ModulesDir, path.Base(file)))
	case path.Clean(file) != file:
		return problem, "write " + clip(path.Clean(file))
	}
	return checkModuleName(path.Base(file))
}

func checkModuleName(base string) (problem, remedy string) {
	name, lang := moduleName(base)
	switch {
	case lang == "":
		return "cannot use " + quote(base) + " as a module", "the name of a module ends in .cil or .pp"
	case nameProblem(name) != "":
		return "cannot use " + quote(name) + " as the name of a module", "rename the file: " + nameProblem(name)
	}
	return "", ""
}

// nameProblem says which rule the name of a module breaks.
func nameProblem(name string) string {
	switch {
	case !secontext.IsName(name):
		return "the name begins with a letter, then come letters, digits, - and _, or single dots between them"
	case strings.HasPrefix(name, reservedPrefix):
		return reservedPrefix + " is for the modules of this program"
	}
	return ""
}

// moduleName splits the name of a file. Lang is empty if it is no module's.
func moduleName(base string) (name, lang string) {
	for _, lang := range []string{"cil", "pp"} {
		if name, ok := strings.CutSuffix(base, "."+lang); ok {
			return name, lang
		}
	}
	return base, ""
}

func (p *parser) booleans(key string, n *yaml.Node) {
	if null(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.complain(n.Line, key, "cannot use "+describe(n)+" here", `write names with values, such as "container_use_nfs: true"`)
		return
	}
	known := keys{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if name := resolve(n.Content[i]); name.Kind == yaml.ScalarNode {
			known[name.Value] = func(key string, n *yaml.Node) {
				if !secontext.IsName(name.Value) {
					p.complain(name.Line, key, "cannot use "+quote(name.Value)+" as the name of a boolean", `see "getsebool -a" for the names`)
				} else if value := p.boolean(key, n); value != nil {
					if p.doc.booleans == nil {
						p.doc.booleans = map[string]bool{}
					}
					p.doc.booleans[name.Value] = *value
				}
			}
		}
	}
	p.mapping(key, n, known)
}

func (p *parser) fileContexts(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		c := FileContext{Type: "any", Source: p.at(item.Line)}
		before := len(p.problems)
		seen, ok := p.mapping(key, item, keys{
			"path": func(key string, n *yaml.Node) {
				var ok bool
				if c.Path, ok = p.text(key, n, "the path of a file context"); ok {
					if problem, remedy := checkPattern(c.Path); problem != "" {
						p.complain(n.Line, key, problem, remedy)
					}
				}
			},
			"type": func(key string, n *yaml.Node) {
				if s, ok := p.choice(key, n, "a type of file", "any", "file", "dir", "char", "block", "socket", "pipe", "symlink"); ok {
					c.Type = s
				}
			},
			"context": func(key string, n *yaml.Node) {
				var ok bool
				if c.Context, ok = p.text(key, n, "a context"); ok {
					if problem, remedy := checkContext(c.Context); problem != "" {
						p.complain(n.Line, key, problem, remedy)
					}
				}
			},
		})
		for _, needed := range []string{"path", "context"} {
			if ok && !seen[needed] {
				p.complain(item.Line, key, fmt.Sprintf("cannot find the key %s", printable.Quote(needed)), "each file context needs a path and a context")
			}
		}
		if len(p.problems) == before {
			p.doc.fileContexts = append(p.doc.fileContexts, c)
		}
	}
}

func (p *parser) equivalences(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		e := Equivalence{Source: p.at(item.Line)}
		before := len(p.problems)
		directory := func(to *string) func(string, *yaml.Node) {
			return func(key string, n *yaml.Node) {
				var ok bool
				if *to, ok = p.text(key, n, "a directory"); ok {
					if problem, remedy := checkDirectory(*to); problem != "" {
						p.complain(n.Line, key, problem, remedy)
					}
				}
			}
		}
		seen, ok := p.mapping(key, item, keys{"path": directory(&e.Path), "like": directory(&e.Like)})
		for _, needed := range []string{"path", "like"} {
			if ok && !seen[needed] {
				p.complain(item.Line, key, fmt.Sprintf("cannot find the key %s", printable.Quote(needed)), "each equivalence needs the path of a directory, and the one that it is like")
			}
		}
		if len(p.problems) > before {
			continue
		}
		if problem, remedy := e.problem(); problem != "" {
			p.complain(item.Line, key, problem, remedy)
			continue
		}
		p.doc.equivalences = append(p.doc.equivalences, e)
	}
}

// checkDirectory refuses what file_contexts.subs has no way to write, or what no look-up begins with.
func checkDirectory(dir string) (problem, remedy string) {
	problem = "cannot use " + quote(dir) + " as a directory"
	switch {
	case !strings.HasPrefix(dir, "/") || len(dir) > maxPath || unprintable(dir):
		return problem, "write an absolute path without control characters"
	case strings.ContainsFunc(dir, unicode.IsSpace):
		return problem, "there is no way to write a path with spaces in file_contexts.subs: use a directory without"
	case strings.ContainsAny(dir, `*?[](){}|^$+\`):
		return problem, "write the path itself: this is no regular expression, and all that is below it is meant"
	case path.Clean(dir) != dir:
		return problem, "write " + clip(path.Clean(dir))
	}
	return "", ""
}

// problem says what is wrong with two directories that are right by themselves.
func (e Equivalence) problem() (problem, remedy string) {
	problem = "cannot label " + quote(e.Path) + " like " + quote(e.Like)
	switch {
	case e.Path == e.Like:
		return problem + ": it is the same directory", "remove it"
	case within(e.Path, e.Like), within(e.Like, e.Path):
		return problem + ": one is below the other", "name two directories that have nothing to do with each other"
	case protected.Declared(e.Path) && !slices.Contains(protected.Runtimes(), e.Path):
		return problem + ": it belongs to the system or to a container runtime as it is", "name a directory of your own, such as /data/docker"
	}
	return "", ""
}

// within tells whether a path is below a directory.
func within(p, dir string) bool {
	return strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// checkPattern refuses what would break the CIL statement, the line of file_contexts, or every lookup in that file.
func checkPattern(pattern string) (problem, remedy string) {
	problem = "cannot use " + quote(pattern) + " as the path of a file context"
	switch {
	case !strings.HasPrefix(pattern, "/"):
		return problem, "begin it with /"
	case len(pattern) > maxPath:
		return problem, fmt.Sprintf("at most %d bytes", maxPath)
	case strings.ContainsFunc(pattern, unicode.IsSpace):
		return problem, `write \s for each space`
	case unprintable(pattern) || strings.Contains(pattern, `"`):
		return problem, `leave out control characters and double quotes, "." matches any character`
	}
	// The host reads it with PCRE, which knows more than Go. So only what is an error in both is refused.
	_, err := syntax.Parse(pattern, syntax.Perl)
	var bad *syntax.Error
	if errors.As(err, &bad) {
		switch bad.Code {
		case syntax.ErrMissingBracket, syntax.ErrMissingParen, syntax.ErrUnexpectedParen, syntax.ErrTrailingBackslash,
			syntax.ErrInvalidCharRange:
			return problem, "correct the regular expression: " + bad.Code.String()
		}
	}
	return "", ""
}

func checkContext(context string) (problem, remedy string) {
	if c := secontext.Context(context); c != secontext.None && c.Check() != nil {
		return "cannot use " + quote(context) + " as a context",
			"write user:role:type:level, such as system_u:object_r:container_file_t:s0, or <<none>>"
	}
	return "", ""
}

func (p *parser) sequence(key string, n *yaml.Node) (items []*yaml.Node, ok bool) {
	if null(n) {
		return nil, true
	}
	if n.Kind != yaml.SequenceNode {
		p.complain(n.Line, key, "cannot use "+describe(n)+" here", `write a list, each item behind "- "`)
		return nil, false
	}
	for _, item := range n.Content {
		items = append(items, resolve(item))
	}
	return items, true
}

func (p *parser) text(key string, n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		p.complain(n.Line, key, "cannot use "+describe(n)+" as "+what, "write it as text, in quotes if need be")
		return "", false
	}
	return n.Value, true
}

func (p *parser) choice(key string, n *yaml.Node, what string, values ...string) (string, bool) {
	if n.Kind == yaml.ScalarNode && slices.Contains(values, n.Value) {
		return n.Value, true
	}
	remedy := "write " + list(values, "or")
	if near := spelling.Nearest(n.Value, values); near != "" && n.Kind == yaml.ScalarNode && len(values) > 1 {
		remedy += fmt.Sprintf(", did you mean %s?", printable.Quote(near))
	}
	p.complain(n.Line, key, "cannot use "+describe(n)+" as "+what, remedy)
	return "", false
}

// boolean takes what YAML 1.1 takes unquoted, since setsebool too says on and off.
func (p *parser) boolean(key string, n *yaml.Node) *bool {
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		switch strings.ToLower(n.Value) {
		case "true", "on", "yes":
			return new(true)
		case "false", "off", "no":
			return new(false)
		}
	}
	p.complain(n.Line, key, "cannot use "+describe(n)+" as a boolean", "write true or false")
	return nil
}

// resolve follows an alias. The lines of what an alias stands for are those of the anchor, except for the first.
// No bound on aliases is needed: what is read is of a fixed depth, so an alias costs no more than the characters that name it.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.AliasNode || n.Alias == nil {
		return n
	}
	target := *n.Alias
	target.Line = n.Line
	return &target
}

func null(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case null(n):
		return "an empty value"
	}
	return quote(n.Value)
}

func join(prefix, key string) string {
	if key == "" || unprintable(key) || len(key) > 100 || strings.ContainsFunc(key, unicode.IsSpace) {
		key = quote(key)
	}
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// quote keeps a message readable whatever is in the file.
func quote(s string) string { return printable.Quote(clip(s)) }

func clip(s string) string { return printable.Clip(s, 120) }

func oneLine(s string) string { return clip(printable.Line(s)) }

func unprintable(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl)
}

func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

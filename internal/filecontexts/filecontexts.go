// Package filecontexts answers which context a policy's file contexts give to a path, with the answers of libselinux
// (selabel_lookup(3)), so of restorecon and setfiles.
//
// It reads file_contexts, file_contexts.homedirs, file_contexts.local and the substitutions .subs_dist and .subs. As in libselinux,
// an entry without special characters comes before every regular expression, and of several that match, the last counts: those of
// .local after those of .homedirs after the policy's. Regular expressions are PCRE there and RE2 here: what policies use means the same
// in both. A line that cannot be used, for what RE2 does not have (look-around, back references) or for its form, is among Problems, and
// spoils nothing else: a path that it may be meant for gets no answer, never a wrong one, and every other path gets its own.
//
// Do not use it to change or to validate file contexts: that is semodule's and the policy compiler's work.
package filecontexts

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Kind is the type of a file, as the second column of an entry gives it: "-d" for a directory. Any is for every type.
type Kind byte

// The kinds.
const (
	Any       Kind = 0
	Block     Kind = 'b'
	Character Kind = 'c'
	Directory Kind = 'd'
	FIFO      Kind = 'p'
	Link      Kind = 'l'
	Socket    Kind = 's'
	Regular   Kind = '-'
)

// none stands for a path that is to have no label of the policy's.
const none = string(secontext.None)

const (
	longestLine = 1 << 16 // an entry's parts are shorter than 64 KiB each in libselinux (label_support.c)
	longestExpr = 4096    // bytes of an expression (label_file.h, compile_regex)
	depth       = 3       // components of the path that entries are sorted by
)

// Contexts are the file contexts of one policy. They are safe for concurrent use.
type Contexts struct {
	literals     map[string][]entry // the last first
	root         node
	subs, dist   []substitution // the last counts
	customizable map[string]bool
	count        int
	longest      int       // bytes of the longest literal, beginning of an expression, or path that is replaced
	digest       hash.Hash // of all that was read
	problems     []string

	mu       sync.Mutex
	programs map[*entry]*program // those that were needed
}

// Match is the entry that decides about a path.
type Match struct {
	// Expression is the entry's, as its line has it.
	Expression string
	// Context is what the path is to have; "" if the policy wants it to have none, with <<none>>.
	Context string
	// File is the name of the file that it stands in, without its directory.
	File string
	// Kind is the type of files that it is for.
	Kind Kind
	// Number is the place of its line among all that were added: the highest that fits a path counts.
	Number int
	// Unusable says that the line is one of Problems, so that nobody here knows whether it is meant for the path.
	Unusable bool
}

// entry is one line.
type entry struct {
	expression string
	kind       Kind
	context    string
	number     int // of the line over all files: the highest counts
	file       string
	prefix     string
	rest       shape
	expr       *regexp.Regexp // for rest other
	unusable   bool           // expr matches at least what the line is meant for
}

func (e *entry) match() Match {
	m := Match{Expression: e.expression, Context: e.context, File: e.file, Kind: e.kind, Number: e.number, Unusable: e.unusable}
	if m.Context == none {
		m.Context = ""
	}
	return m
}

// shape is how an expression goes on behind its literal beginning. The frequent ones are recognised without a regular expression.
type shape uint8

const (
	other   shape = iota
	subtree       // (/.*)?
	below         // /.*
	rest          // .*
)

type node struct {
	children map[string]*node
	entries  []entry // the first first
}

type substitution struct{ from, to string }

// source is a file of a policy that tells which context a path has.
type source struct {
	name   string
	needed bool
	read   func(c *Contexts, name string, r io.Reader) error
}

func sources() []source {
	return []source{
		{"files/file_contexts", true, (*Contexts).Add},
		{"files/file_contexts.homedirs", false, (*Contexts).Add},
		{"files/file_contexts.local", false, (*Contexts).Add},
		{"files/file_contexts.subs_dist", false, (*Contexts).addDist},
		{"files/file_contexts.subs", false, (*Contexts).addSubs},
		{"customizable_types", false, (*Contexts).addCustomizable},
	}
}

// each gives the content of each of the files of a policy that are there.
func each(root *hostfs.Root, policyType string, do func(s source, name string, r io.Reader) error) error {
	base := seconfig.ContextsDir(policyType) + "/"
	for _, s := range sources() {
		content, err := root.OpenFile(base + s.name)
		if errors.Is(err, fs.ErrNotExist) && !s.needed {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read the policy's file contexts: %w", err)
		}
		err = do(s, root.Path(base+s.name), content)
		content.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Load reads the file contexts of the policy of a type, "mcs" for example, beneath a root.
func Load(root *hostfs.Root, policyType string) (*Contexts, error) {
	c := New()
	if err := each(root, policyType, func(s source, name string, r io.Reader) error { return s.read(c, name, r) }); err != nil {
		return nil, err
	}
	return c, nil
}

// Fingerprint is the same, in hexadecimal digits, as long as no byte has changed of what Load reads. It takes a hundredth of Load's time.
func Fingerprint(root *hostfs.Root, policyType string) (string, error) {
	digest := sha256.New()
	err := each(root, policyType, func(s source, name string, r io.Reader) error {
		content := sha256.New()
		if _, err := io.Copy(content, r); err != nil {
			return fmt.Errorf("cannot read %s: %w", name, err)
		}
		fmt.Fprintf(digest, "%s %x\n", s.name, content.Sum(nil))
		return nil
	})
	return hex.EncodeToString(digest.Sum(nil)), err
}

// New gives file contexts without an entry.
func New() *Contexts {
	return &Contexts{literals: map[string][]entry{}, customizable: map[string]bool{}, digest: sha256.New(), programs: map[*entry]*program{}}
}

// Len is how many entries there are.
func (c *Contexts) Len() int { return c.count }

// Rewrite gives each context another form. It is for use before the first Lookup: a policy's file contexts may name a type by an alias,
// which no file shows.
func (c *Contexts) Rewrite(form func(context string) string) {
	forms := map[string]string{none: none}
	for e := range c.entries {
		if _, known := forms[e.context]; !known {
			forms[e.context] = form(e.context)
		}
		e.context = forms[e.context]
	}
}

// All yields every entry, in no order.
func (c *Contexts) All(yield func(Match) bool) {
	for e := range c.entries {
		if !yield(e.match()) {
			return
		}
	}
}

func (c *Contexts) entries(yield func(*entry) bool) {
	each := func(entries []entry) bool {
		for i := range entries {
			if !yield(&entries[i]) {
				return false
			}
		}
		return true
	}
	for _, entries := range c.literals {
		if !each(entries) {
			return
		}
	}
	var below func(n *node) bool
	below = func(n *node) bool {
		if !each(n.entries) {
			return false
		}
		for _, child := range n.children {
			if !below(child) {
				return false
			}
		}
		return true
	}
	below(&c.root)
}

// Problems says which lines cannot be used, and why: one for each.
func (c *Contexts) Problems() []string { return c.problems }

// Digest is the same for file contexts that were read from the same lines, in hexadecimal digits. It is not for use while lines are added.
func (c *Contexts) Digest() string { return hex.EncodeToString(c.digest.Sum(nil)) }

func (c *Contexts) scan(name string, r io.Reader, each func(number int, fields []string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), 3*longestLine)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		fmt.Fprintf(c.digest, "%s %q\n", path.Base(name), fields)
		if err := each(number, fields); err != nil {
			c.problems = append(c.problems, fmt.Sprintf("cannot use %s:%d: %v", name, number, err))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	return nil
}

// Add reads entries in the format of file_contexts(5): an expression, maybe a type, a context. They count more than those added before.
func (c *Contexts) Add(name string, r io.Reader) error {
	return c.scan(name, r, func(_ int, fields []string) error {
		kind := Any
		if len(fields) < 2 {
			return errors.New("a context is missing")
		}
		context := fields[1]
		if len(fields) > 2 {
			if kind = kindOf(fields[1]); kind == Any {
				return fmt.Errorf("there is no type of files %q", fields[1])
			}
			context = fields[2]
		}
		return c.add(path.Base(name), fields[0], kind, context)
	})
}

// Column gives the second column of an entry for this type; "" for Any, which has none.
func (k Kind) Column() string {
	if k == Any {
		return ""
	}
	return "-" + string(rune(k))
}

// kindOf is what Column gives, backwards; Any if there is no such type.
func kindOf(column string) Kind {
	if len(column) == 2 && column[0] == '-' && strings.IndexByte("bcdpls-", column[1]) >= 0 {
		return Kind(column[1])
	}
	return Any
}

func (c *Contexts) add(file, expression string, kind Kind, context string) error {
	c.count++
	e := entry{expression: expression, kind: kind, context: context, number: c.count, file: file}
	literal, length, all := beginning(expression)
	c.longest = max(c.longest, len(literal))
	problem := unusual(expression)
	if all && problem == nil {
		c.literals[literal] = append([]entry{e}, c.literals[literal]...)
		return nil
	}
	e.prefix = literal
	switch expression[length:] {
	case "(/.*)?":
		e.rest = subtree
	case "/.*":
		e.rest = below
	case ".*":
		e.rest = rest
	default:
		var err error
		if e.expr, err = compile(expression); err != nil {
			if problem == nil {
				problem = err
			}
			// What is left of it without the conditions that are not understood matches more, not less.
			if e.expr, err = compile(loosened(expression)); err != nil {
				e.rest = rest
			}
		}
	}
	e.unusable = problem != nil
	c.place(e)
	return problem
}

// unusual says what libselinux refuses in any expression.
func unusual(expression string) error {
	if len(expression) >= longestExpr {
		return fmt.Errorf("an expression of %d bytes is too long", len(expression))
	}
	for i := range len(expression) {
		if expression[i] >= 0x80 {
			return errors.New("an expression must be ASCII")
		}
	}
	return nil
}

// place sorts an entry by the components of its literal beginning.
func (c *Contexts) place(e entry) {
	// Sorted by the components that are whole: what is behind the last slash of the literal may go on in the expression.
	at := &c.root
	left := strings.TrimPrefix(e.prefix, "/")
	if !strings.HasPrefix(e.prefix, "/") {
		left = ""
	}
	for range depth {
		component, more, found := strings.Cut(left, "/")
		if !found || component == "" {
			break
		}
		next := at.children[component]
		if next == nil {
			next = &node{}
			if at.children == nil {
				at.children = map[string]*node{}
			}
			at.children[component] = next
		}
		at, left = next, more
	}
	at.entries = append(at.entries, e)
}

// Beginning gives the text that everything which an expression matches begins with, and the rest of the expression.
func Beginning(expression string) (literal, rest string) {
	literal, length, _ := beginning(expression)
	return literal, expression[length:]
}

// beginning gives the text that an expression begins with literally, how much of the expression that is, and whether it is all of it.
// It is libselinux's own rule (label_file.h, regex_has_meta_chars), with one difference: the character before ?, * and { is
// not literal, and an alternative outside of parentheses makes nothing literal.
func beginning(expression string) (literal string, length int, all bool) {
	if alternatives(expression) {
		return "", 0, false
	}
	var b strings.Builder
	last := 0 // where the last character began
	for i := 0; i < len(expression); {
		c := expression[i]
		step := 1
		switch {
		case strings.IndexByte("?*{", c) >= 0 && b.Len() > 0:
			return b.String()[:b.Len()-1], last, false
		case strings.IndexByte(".^$?*+|[({])}", c) >= 0:
			return b.String(), i, false
		case c == '\\':
			if i+1 >= len(expression) || strings.IndexByte(".^$?*+|[({])}-_,", expression[i+1]) < 0 {
				return b.String(), i, false
			}
			c, step = expression[i+1], 2
		}
		b.WriteByte(c)
		last = i
		i += step
	}
	return b.String(), len(expression), true
}

func alternatives(expression string) bool {
	level, class := 0, false
	for i := 0; i < len(expression); i++ {
		switch c := expression[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			level++
		case c == ')':
			level--
		case c == '|' && level == 0:
			return true
		}
	}
	return false
}

// compile makes of an expression what libselinux does: ^ in front and $ behind, where a dot is any byte and $ also stands before a last
// newline (PCRE2_DOTALL; pcre2pattern(3)).
func compile(expression string) (*regexp.Regexp, error) {
	if _, err := syntax.Parse(expression, syntax.Perl); err != nil {
		return nil, fmt.Errorf("cannot read the expression %s: %w", expression, err)
	}
	return regexp.Compile(`(?s)^` + expression + `\n?\z`)
}

// loosened takes out of an expression what PCRE has and RE2 has not: conditions on what is around, and on how a match is looked for. What
// it matches is matched by the result too.
func loosened(expression string) string {
	var b strings.Builder
	skip, class := 0, false // how many groups deep a condition is; within [...]
	for i := 0; i < len(expression); i++ {
		c, left := expression[i], expression[i:]
		switch {
		case c == '\\' && len(left) > 1:
			i++
			if skip == 0 && left[1] >= '1' && left[1] <= '9' && !class {
				b.WriteString(".*") // what a group has matched, again
				continue
			}
			left = left[:2]
		case class:
			class, left = c != ']', left[:1]
		case c == '[':
			class, left = true, left[:1]
		case c == '(' && skip > 0:
			skip++
		case c == '(' && condition().MatchString(left):
			skip = 1
		case strings.HasPrefix(left, "(?>"):
			i += 2
			left = "(?:"
		case c == ')' && skip > 0:
			skip--
			continue
		case c == '+' && i > 0 && strings.IndexByte("*+?}", expression[i-1]) >= 0:
			continue
		default:
			left = left[:1]
		}
		if skip == 0 {
			b.WriteString(left[:min(len(left), 3)])
		}
	}
	return b.String()
}

var condition = lazyregexp.New(`^\(\?<?[=!]`)

// Equate has what is at and below a path looked up at another one, as a line of file_contexts.subs does.
func (c *Contexts) Equate(path, like string) {
	c.subs = append(c.subs, substitution{path, like})
	c.longest = max(c.longest, len(path))
}

func (c *Contexts) addDist(name string, r io.Reader) error {
	return c.addSubstitutions(&c.dist, name, r)
}
func (c *Contexts) addSubs(name string, r io.Reader) error {
	return c.addSubstitutions(&c.subs, name, r)
}

// addSubstitutions reads file_contexts.subs (selabel_file(5)): a path, and the one whose contexts it gets. Of several that fit, the last line
// counts, not the longest path (libselinux/src/label_file.c, selabel_subs_init).
func (c *Contexts) addSubstitutions(to *[]substitution, name string, r io.Reader) error {
	return c.scan(name, r, func(_ int, fields []string) error {
		if len(fields) > 1 {
			*to = append(*to, substitution{fields[0], fields[1]})
			c.longest = max(c.longest, len(fields[0]))
		}
		return nil
	})
}

func (c *Contexts) addCustomizable(name string, r io.Reader) error {
	return c.scan(name, r, func(_ int, fields []string) error {
		c.customizable[fields[0]] = true
		return nil
	})
}

// Customizable tells whether a type is one that the administrator chooses for single files, and restorecon leaves alone.
func (c *Contexts) Customizable(fileType string) bool { return c.customizable[fileType] }

// Lookup gives the context for a path that is absolute and clean, and whether there is one: a path that no entry matches has none, nor has
// one that the policy excludes with <<none>>, or that a line may be meant for which cannot be used.
func (c *Contexts) Lookup(path string, kind Kind) (string, bool) {
	m, found := c.Find(path, kind)
	if !found || m.Unusable {
		return "", false
	}
	return m.Context, m.Context != ""
}

// Find gives the entry that decides about a path, and whether there is one.
func (c *Contexts) Find(path string, kind Kind) (Match, bool) {
	path = c.substitute(path)
	literals := c.literals[path]
	for i := range literals {
		if e := &literals[i]; e.kind == Any || kind == Any || e.kind == kind {
			return e.match(), true
		}
	}
	nodes, n := c.trail(path)
	text := ""
	for {
		// The entry with the highest number that was not tried yet.
		best := -1
		for i := range n {
			if l := len(nodes[i]); l > 0 && (best < 0 || nodes[i][l-1].number > nodes[best][len(nodes[best])-1].number) {
				best = i
			}
		}
		if best < 0 {
			return Match{}, false
		}
		last := len(nodes[best]) - 1
		e := &nodes[best][last]
		nodes[best] = nodes[best][:last]
		if e.kind != Any && kind != Any && e.kind != kind || !strings.HasPrefix(path, e.prefix) {
			continue
		}
		if e.rest == other && text == "" {
			text = latin1(path)
		}
		if e.matches(path, text) {
			return e.match(), true
		}
	}
}

// trail gives the entries of the nodes that a path goes through, the root's first, and how many nodes that is.
func (c *Contexts) trail(path string) (nodes [depth + 1][]entry, n int) {
	at, left := &c.root, strings.TrimPrefix(path, "/")
	for {
		nodes[n] = at.entries
		n++
		component, more, found := strings.Cut(left, "/")
		if !found || at.children[component] == nil {
			return nodes, n
		}
		at, left = at.children[component], more
	}
}

func (e *entry) matches(path, text string) bool {
	left := path[len(e.prefix):]
	switch e.rest {
	case subtree:
		return left == "" || left[0] == '/' || left == "\n"
	case below:
		return left != "" && left[0] == '/'
	case rest:
		return true
	}
	return e.expr.MatchString(text)
}

// latin1 makes one character of each byte, as PCRE takes them.
func latin1(path string) string {
	for i := range len(path) {
		if path[i] >= 0x80 {
			runes := make([]rune, len(path))
			for i := range len(path) {
				runes[i] = rune(path[i])
			}
			return string(runes)
		}
	}
	return path
}

// Resolve gives the path that is looked up in place of another one: what the substitutions make of it, the path itself if none fits.
func (c *Contexts) Resolve(path string) string { return c.substitute(path) }

// substitute does what libselinux does: first the administrator's substitutions, then the distribution's on what came out.
func (c *Contexts) substitute(path string) string {
	return substituteOnce(c.dist, substituteOnce(c.subs, path))
}

func substituteOnce(subs []substitution, path string) string {
	for _, s := range slices.Backward(subs) {
		after, found := strings.CutPrefix(path, s.from)
		if !found || after != "" && after[0] != '/' {
			continue
		}
		if after != "" && s.to == "/" {
			return after
		}
		return s.to + after
	}
	return path
}

// Package ignition reads the files that make a machine, Ignition's and Butane's, and says what in them will bite at boot as far
// as SELinux goes; and it writes such a file from a declared state.
//
// Check finds what the file's own language refuses, with that language's own library, and then looks at the machine that the
// file would make: its files, links, mount units, kernel arguments and the configuration of selinux-provision in it. Every
// finding has a file, a line and a remedy. Nothing is fetched: what a file takes from a server is noted as not looked at.
//
// Do not use it to find out what a running host is like, nor in place of Ignition: it knows the parts of a file that have to do
// with SELinux and leaves the rest to Ignition's own validation.
package ignition

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/textform"
	"github.com/selinux-provision/selinux-provision/provision"
)

// maxFile is the size of a file in bytes that Check reads: one with several binaries in it.
const maxFile = 256 << 20

// Finding is one thing about a file.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1; 0 is the file as a whole
	// Key is the place within the file where that says more than the line: a key of the configuration, or the path of a file
	// that is to be written.
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy,omitempty"`
	// Note says that nothing is wrong: something could not be looked at, or is worth knowing.
	Note bool `json:"note,omitempty"`
}

// String gives the finding in one line, beginning with FILE:LINE.
func (f Finding) String() string {
	e := provision.Error{Position: provision.Position{File: f.File, Line: f.Line}, Key: f.Key, Problem: f.Problem, Remedy: f.Remedy}
	return e.Error()
}

// Kind is what a file is.
type Kind string

// The kinds that Check knows.
const (
	Configuration Kind = "configuration" // of selinux-provision
	Butane        Kind = "Butane"
	Ignition      Kind = "Ignition"
)

// Options say what a file is read with.
type Options struct {
	// FilesDir is where the Butane keys "local", "contents_local" and "trees" look, as --files-dir of butane.
	FilesDir string
	// Module reads a module that a configuration names; false: it is not there. Nil: nothing is known about modules.
	Module func(path string) (content []byte, there bool)
	// VendorModules are the names of the modules in the policy of the machine's OS image; nil: those of Flatcar's stable release.
	VendorModules []string
}

// Check reads a file of any kind and gives what is wrong with it, in the order of the lines, and what kind it took it for. The error
// is one of reading, never one of content.
func Check(name string, r io.Reader, o Options) (Kind, []Finding, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", nil, err
	}
	c := &checker{options: o}
	if len(content) > maxFile {
		c.add(provision.Position{File: name}, "", fmt.Sprintf("cannot check a file of more than %d MiB", maxFile>>20), "take binaries from a server, with their hash")
		return "", c.sorted(), nil
	}
	c.last = lineAt(content, int64(len(content)))
	marked := textform.Marked(content)
	text, err := textform.Text(content)
	if form, refused := errors.AsType[*textform.Error](err); refused {
		c.add(provision.Position{File: name, Line: 1}, "", "cannot read this: "+form.Is, form.Do)
		return "", c.sorted(), nil
	}
	content = text
	kind, root := c.recognise(name, content)
	if kind == Ignition && marked {
		c.add(provision.Position{File: name, Line: 1}, "", "Ignition refuses this: it begins with a byte order mark, which is no JSON", "save it as UTF-8 without a byte order mark (BOM)")
	}
	switch kind {
	case Configuration:
		c.configuration(name, content)
	case Butane, Ignition:
		if m := c.read(name, kind, content, root); m != nil {
			c.machine(m)
		}
	}
	return kind, c.sorted(), nil
}

// CheckDirectory checks a configuration with its drop-ins and modules, as files gives them at the paths of a host. Names in findings are those
// that shown gives.
func CheckDirectory(files provision.Reader, shown func(name string) string, o Options) []Finding {
	c := &checker{options: o}
	place := func(p provision.Position) (provision.Position, string) {
		p.File = shown(p.File)
		return p, ""
	}
	c.survey(files, "", place)
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		if a.Note != b.Note {
			return map[bool]int{false: -1, true: 1}[a.Note]
		}
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return slices.Compact(c.findings)
}

// Check's work in progress.
type checker struct {
	options  Options
	findings []Finding
	unpacked int // bytes of all contents so far
	last     int // line of the file; 0: not known
}

func (c *checker) add(at provision.Position, key, problem, remedy string) {
	if c.last > 0 { // to YAML a carriage return ends a line, to editors it does not
		at.Line = min(at.Line, c.last)
	}
	c.findings = append(c.findings, Finding{File: at.File, Line: at.Line, Key: printable.Text(key), Problem: printable.Text(problem), Remedy: printable.Text(remedy)})
}

func (c *checker) note(at provision.Position, key, problem, remedy string) {
	c.add(at, key, problem, remedy)
	c.findings[len(c.findings)-1].Note = true
}

// sorted gives the findings in the order of the lines, each once, notes last.
func (c *checker) sorted() []Finding {
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		if a.Note != b.Note {
			return map[bool]int{false: -1, true: 1}[a.Note]
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Problem, b.Problem), cmp.Compare(a.Remedy, b.Remedy))
	})
	return slices.Compact(c.findings)
}

// recognise finds out what a file is by what is in it, and reads it. Its name says nothing: people call Ignition files config.json,
// user-data and ignition.ign.
func (c *checker) recognise(name string, content []byte) (Kind, *yaml.Node) {
	at := provision.Position{File: name}
	const saveAsUTF8 = "save it as UTF-8"
	const write = "give a Butane file, an Ignition file, or a configuration of selinux-provision"
	text := bytes.TrimSpace(content)
	switch {
	case len(text) == 0:
		c.add(at, "", "cannot check an empty file", write)
		return "", nil
	case bytes.HasPrefix(text, []byte("#cloud-config")):
		c.add(provision.Position{File: name, Line: 1}, "", "cannot check cloud-config", "Flatcar's coreos-cloudinit writes it after the boot, too late for SELinux: use a Butane file")
		return "", nil
	case bytes.IndexByte(content, 0) >= 0:
		c.add(at, "", "cannot check this: it is a binary file", write)
		return "", nil
	}
	var (
		root *yaml.Node
		err  error
	)
	if at := invalidUTF8(content); at >= 0 {
		c.add(provision.Position{File: name, Line: lineAt(content, int64(at))}, "", "cannot read this: there is something that is no character of UTF-8", saveAsUTF8)
		return "", nil
	}
	isJSON := text[0] == '{' || text[0] == '['
	if isJSON {
		if root, err = readJSON(content); err != nil && !json.Valid(content) && !looksLikeJSON(text) {
			isJSON = false
		}
	}
	if !isJSON {
		root, err = readYAML(content)
	}
	if err != nil {
		line, problem, remedy := explain(err, content)
		what := map[bool]string{true: "JSON", false: "YAML"}[isJSON]
		c.add(provision.Position{File: name, Line: line}, "", "cannot read this as "+what+": "+problem, remedy)
		return "", nil
	}
	if root == nil || root.Kind != yaml.MappingNode || len(root.Content) == 0 {
		c.add(provision.Position{File: name, Line: 1}, "", "cannot tell what this file is: it has no keys", write)
		return "", nil
	}
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return get(root, key) != nil })
	}
	ours := 0
	for _, key := range []string{"mode", "policy", "audit", "enforce", "volumes"} {
		if has(key) {
			ours++
		}
	}
	switch {
	case has("variant"):
		return Butane, root
	case isJSON && has("ignition", "storage", "systemd", "passwd"):
		return Ignition, root
	case has("ignition", "storage", "systemd", "passwd", "kernel_arguments") && ours == 0:
		c.add(provision.Position{File: name, Line: 1}, "", `cannot read a Butane file without the key "variant"`,
			`write "variant: flatcar" and "version: 1.0.0" (a Container Linux Config is something else: translate it first)`)
		return "", nil
	case ours > 0 || has("version"):
		return Configuration, root
	}
	c.add(provision.Position{File: name, Line: root.Line}, "", "cannot tell what this file is: its first key is "+quote(root.Content[0].Value), write)
	return "", nil
}

// looksLikeJSON tells a broken JSON file from YAML in flow style.
func looksLikeJSON(text []byte) bool {
	inside := bytes.TrimSpace(text[1:])
	return len(inside) > 0 && (inside[0] == '"' || inside[0] == '}')
}

// explain gives the line of an error of a reader, what it is, and what to do.
func explain(err error, content []byte) (line int, problem, remedy string) {
	var (
		badJSON *json.SyntaxError
		badType *json.UnmarshalTypeError
		badYAML *yaml.LoadError
	)
	switch {
	case errors.As(err, &badJSON):
		return lineAt(content, badJSON.Offset), badJSON.Error(), "correct it there or in the line before"
	case errors.As(err, &badType):
		return lineAt(content, badType.Offset), badType.Error(), "correct it there"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return lineAt(content, int64(len(content))), "it ends in the middle", "was it copied whole?"
	case errors.As(err, &badYAML):
		line = badYAML.Mark.Line
		if line == 0 {
			line = badYAML.ContextMark.Line
		}
		problem = badYAML.Message
		if strings.Contains(problem, "last brace") {
			return line, problem, "remove it"
		}
		if strings.Contains(problem, "second document") || strings.Contains(problem, "twice") {
			return line, problem, "put both into one"
		}
		if strings.Contains(problem, "levels deep") || strings.Contains(problem, "max depth") {
			return line, problem, "nothing that a machine is made from is that deep: look for what repeats itself"
		}
		if strings.Contains(problem, "cannot start any token") || strings.Contains(problem, "tab character") {
			return line, problem, "indent with spaces, and put quotes around values that begin with %, @ or `"
		}
		return line, problem, "look at the indentation there and in the line before"
	}
	return 0, strings.ReplaceAll(err.Error(), "\n", " "), ""
}

// invalidUTF8 gives the offset of the first byte that belongs to no character, -1 if there is none.
func invalidUTF8(content []byte) int {
	for at := 0; at < len(content); {
		r, size := utf8.DecodeRune(content[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// lineAt gives the line of an offset, from 1.
func lineAt(content []byte, offset int64) int {
	offset = min(max(offset, 0), int64(len(content)))
	return 1 + bytes.Count(content[:offset], []byte("\n"))
}

// configuration checks one file of selinux-provision's own.
func (c *checker) configuration(name string, content []byte) {
	state := c.survey(single{name, content, c.options.Module}, name, func(p provision.Position) (provision.Position, string) { return p, "" })
	for _, m := range state.Modules {
		if c.options.Module == nil {
			continue
		}
		if _, there := c.options.Module(m.Path); !there {
			c.add(m.Source, "", "cannot find the module "+m.Path+" here", "put it there, and deliver it to the machine together with this file")
		}
	}
}

// survey adds what is wrong in a configuration, and what is to be said of the rest of it: nobody wants to hear one thing at a time.
func (c *checker) survey(files provision.Reader, name string, place func(provision.Position) (provision.Position, string)) *provision.State {
	state, err := provision.Survey(files, name)
	if err != nil {
		c.addErrors(err, func(e *provision.Error) (provision.Position, string) {
			at, _ := place(e.Position)
			return at, e.Key
		})
	}
	c.content(state, place)
	return state
}

// single shows provision.Load one file of the configuration. What else it asks for is a module.
type single struct {
	name    string
	content []byte
	module  func(path string) ([]byte, bool)
}

// Unknown stands for the content of a module that is not at hand.
const Unknown = "(unknown)"

// ReadFile gives the file, or something in place of a module.
func (s single) ReadFile(name string) ([]byte, error) {
	if name == s.name {
		return s.content, nil
	}
	if s.module != nil {
		if content, there := s.module(name); there {
			return content, nil
		}
	}
	return []byte(Unknown), nil
}

// ReadDir finds nothing: which modules lie beside the file is not known.
func (s single) ReadDir(name string) ([]fs.DirEntry, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
}

// addErrors adds what provision says about a configuration, each at the place that it stands in.
func (c *checker) addErrors(err error, place func(*provision.Error) (provision.Position, string)) {
	var all provision.Errors
	if !errors.As(err, &all) {
		c.add(provision.Position{}, "", err.Error(), "")
		return
	}
	for _, e := range all {
		at, key := place(e)
		c.add(at, key, e.Problem, e.Remedy)
	}
}

func quote(s string) string { return printable.Quote(printable.Clip(s, 120)) }

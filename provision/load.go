package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/selinux-provision/selinux-provision/internal/policypackage"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/textform"
)

const (
	maxModule  = 16 << 20 // bytes of one module
	maxModules = 64 << 20 // bytes of all modules together: they are held in memory
)

// Load reads the whole declared state.
//
// With an empty configFile it reads ConfigFile and then the *.yaml files of DropInDir in the order of their names; none of
// them needs to exist. Other files in DropInDir are left alone, except that *.yml is an error, since it is sure to be a
// mistake. With a configFile it reads that file alone, which must exist.
//
// What a later file says about a key beats what an earlier one says. Lists add up, booleans are merged by name, and a later
// file context for the same path and type, or volume of the same name, takes the place of an earlier one. Only if no file has the key policy.modules, all
// *.cil and *.pp files in ModulesDir are taken. Hidden files, *.md files and those that end in ~ may stand there too,
// anything else is an error.
//
// The error is of type Errors and names every problem that could be found.
func Load(r Reader, configFile string) (*State, error) {
	state, err := Survey(r, configFile)
	if err != nil {
		return nil, err
	}
	return state, nil
}

// Survey reads like Load, and gives with the error what could be understood in spite of it. It is for those who only look: what is
// missing in such a state may be what keeps a host open, so nothing may be done that follows from it.
func Survey(r Reader, configFile string) (*State, error) {
	l := &loader{
		reader:  r,
		state:   &State{Mode: Unmanaged, Booleans: map[string]bool{}},
		allRead: true,
		named:   map[string]namedModule{},
		paths:   map[string]bool{},
	}
	if configFile != "" {
		l.config(configFile, true)
	} else {
		l.config(ConfigFile, false)
		l.misnamed()
		l.dropIns()
	}
	switch {
	case l.modulesSet:
		for _, ref := range l.refs {
			l.module(ref)
		}
	case l.allRead:
		l.modulesDir()
	}
	l.state.ModulesListed = l.modulesSet
	l.volumes()
	l.equivalences()
	l.state.FileContexts = lastOfEach(l.state.FileContexts)
	slices.Sort(l.state.ReplaceVendorModules)
	l.state.ReplaceVendorModules = slices.Compact(l.state.ReplaceVendorModules)
	slices.SortStableFunc(l.state.PermissiveDomains, func(a, b PermissiveDomain) int { return strings.Compare(a.Type, b.Type) })
	l.state.PermissiveDomains = slices.CompactFunc(l.state.PermissiveDomains, func(a, b PermissiveDomain) bool { return a.Type == b.Type })
	slices.Sort(l.state.Roles)
	l.state.Roles = slices.Compact(l.state.Roles)
	slices.SortFunc(l.state.Modules, func(a, b Module) int { return strings.Compare(a.Name, b.Name) })
	if len(l.problems) > 0 {
		return l.state, l.problems
	}
	return l.state, nil
}

type loader struct {
	reader     Reader
	state      *State
	problems   Errors
	allRead    bool // no file was unreadable, so a key that was not seen is not there
	modulesSet bool
	refs       []moduleRef
	named      map[string]namedModule // the modules seen so far by their name
	paths      map[string]bool        // and by their path
	size       int
}

// complain notes a problem. A directory that others may write spoils every file in it, and is named once.
func (l *loader) complain(at Position, key, problem, remedy string, cause error) {
	if untrusted(cause) {
		if slices.ContainsFunc(l.problems, func(e *Error) bool { return e.cause != nil && e.cause.Error() == cause.Error() }) {
			return
		}
	}
	l.problems = append(l.problems, &Error{Position: at, Key: key, Problem: problem, Remedy: remedy, cause: cause})
}

func (l *loader) config(name string, mustExist bool) {
	content, err := l.reader.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !mustExist && !l.dangling(name) {
		return
	}
	l.state.Sources = append(l.state.Sources, name)
	if err != nil {
		l.allRead = false
		problem := "cannot read this file: "
		if untrusted(err) {
			problem = "cannot obey this file: "
		}
		l.complain(Position{File: name}, "", problem+reason(err), remedy(err), err)
		return
	}
	doc, understood, problems := parse(name, content)
	l.problems = append(l.problems, problems...)
	l.allRead = l.allRead && understood
	l.merge(doc)
}

// dangling says whether the directory has an entry of this name although there is nothing to read: a link that leads
// nowhere is an operator's mistake, not the absence of a config.
func (l *loader) dangling(name string) bool {
	entries, err := l.reader.ReadDir(path.Dir(name))
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == path.Base(name) })
}

// misnamed finds a config file that nobody would read.
func (l *loader) misnamed() {
	if l.dangling(configDir + "/config.yml") {
		l.complain(Position{File: configDir + "/config.yml"}, "", "cannot use a config file of this name", "rename it to config.yaml", nil)
	}
}

func (l *loader) dropIns() {
	entries, err := l.reader.ReadDir(DropInDir)
	if errors.Is(err, fs.ErrNotExist) && !l.dangling(DropInDir) {
		return
	}
	if err != nil {
		l.allRead = false
		l.complain(Position{File: DropInDir}, "", "cannot list this directory: "+reason(err), remedy(err), err)
		return
	}
	for _, e := range entries {
		name := path.Join(DropInDir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case path.Ext(name) == ".yaml":
			l.config(name, true)
		case path.Ext(name) == ".yml":
			l.complain(Position{File: name}, "", "cannot use a config file of this name",
				"rename it to "+strings.TrimSuffix(e.Name(), "yml")+"yaml", nil)
		}
	}
}

func (l *loader) merge(d *Document) {
	s := l.state
	set(&s.Mode, d.mode)
	set(&s.SharedVolumes, d.sharedVolumes)
	set(&s.LogDenials, d.logDenials)
	set(&s.StripDontaudit, d.stripDontaudit)
	set(&s.AVCCacheThreshold, d.avcCacheThreshold)
	set(&s.RequireReadiness, d.requireReadiness)
	s.mergeGuard(d.guard)
	s.mergeReadiness(d.readiness)
	maps.Copy(s.Booleans, d.booleans)
	l.modulesSet = l.modulesSet || d.modulesSet
	l.refs = append(l.refs, d.modules...)
	s.ReplaceVendorModules = append(s.ReplaceVendorModules, d.replaceVendor...)
	s.Roles = append(s.Roles, d.roles...)
	s.PermissiveDomains = append(s.PermissiveDomains, d.permissiveDomains...)
	s.FileContexts = append(s.FileContexts, d.fileContexts...)
	s.Equivalences = append(s.Equivalences, d.equivalences...)
	s.Volumes = append(s.Volumes, d.volumes...)
	set(&s.Relabel.Workers, d.relabel.workers)
	set(&s.Relabel.EntriesPerSecond, d.relabel.entriesPerSecond)
	set(&s.Relabel.CPUPercent, d.relabel.cpuPercent)
}

// equivalences keeps of those with the same path the one that was declared last, and refuses chains: a path is replaced once before its
// context is looked up.
func (l *loader) equivalences() {
	var kept []Equivalence
	last := map[string]Equivalence{}
	for _, e := range slices.Backward(l.state.Equivalences) {
		if _, there := last[e.Path]; !there {
			last[e.Path] = e
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	l.state.Equivalences = kept
	for _, e := range kept {
		for dir := e.Like; ; dir = path.Dir(dir) {
			if other, chained := last[dir]; chained {
				l.complain(e.Source, "policy.equivalences", fmt.Sprintf("cannot label %s like %s: that one is declared to be like another one (%s)", quote(e.Path), quote(e.Like), other.Source),
					"write like: "+clip(other.Like+strings.TrimPrefix(e.Like, other.Path)), nil)
			}
			if dir == path.Dir(dir) {
				break
			}
		}
	}
}

// lastOfEach keeps of those with the same path and type the one that was declared last, where it was declared: of two
// patterns that match a file, the later one counts.
func lastOfEach(all []FileContext) []FileContext {
	seen := map[[2]string]bool{}
	var kept []FileContext
	for _, c := range slices.Backward(all) {
		if id := [2]string{c.Path, c.Type}; !seen[id] {
			seen[id] = true
			kept = append(kept, c)
		}
	}
	slices.Reverse(kept)
	return kept
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func (l *loader) modulesDir() {
	entries, err := l.reader.ReadDir(ModulesDir)
	if errors.Is(err, fs.ErrNotExist) && !l.dangling(ModulesDir) {
		return
	}
	if err != nil {
		l.complain(Position{File: ModulesDir}, "", "cannot list this directory: "+reason(err), remedy(err), err)
		return
	}
	for _, e := range entries {
		base := e.Name()
		if strings.HasPrefix(base, ".") || strings.HasSuffix(base, ".md") || strings.HasSuffix(base, "~") {
			continue
		}
		at := Position{File: path.Join(ModulesDir, base)}
		if problem, remedy := checkModuleName(base); problem != "" {
			l.complain(at, "", problem, remedy+", or move it elsewhere", nil)
			continue
		}
		l.module(moduleRef{path: at.File, source: at})
	}
}

func (l *loader) module(ref moduleRef) {
	if l.paths[ref.path] {
		return // the same file asked for twice is one wish
	}
	l.paths[ref.path] = true
	if l.size > maxModules {
		return // refused already
	}
	what := "this module"
	if ref.key != "" {
		what = "the module " + ref.path
	}
	content, err := l.reader.ReadFile(ref.path)
	l.size += len(content)
	refused := func(problem, remedy string, cause error) { l.complain(ref.source, ref.key, problem, remedy, cause) }
	switch {
	case untrusted(err):
		refused("cannot obey "+what+": "+reason(err), remedy(err), err)
		return
	case err != nil:
		refused("cannot read "+what+": "+reason(err), remedy(err), err)
		return
	case len(bytes.TrimSpace(content)) == 0:
		refused("cannot use "+what+": it is empty", "put the module there, or remove it", nil)
		return
	case len(content) > maxModule:
		refused(fmt.Sprintf("cannot use %s: it is larger than %d MiB", what, maxModule>>20), "split it", nil)
		return
	case l.size > maxModules:
		refused(fmt.Sprintf("cannot use %s: all modules together are larger than %d MiB", what, maxModules>>20), "remove what is not needed", nil)
		return
	}
	if path.Ext(ref.path) == ".cil" {
		text, err := textform.Text(content)
		if form, is := errors.AsType[*textform.Error](err); is {
			refused("cannot use "+what+": "+form.Is, form.Do, nil)
			return
		}
		content = text
	}
	m := Module{Path: ref.path, Content: content, Source: ref.source}
	var base bool
	m.Name, m.Lang, base = nameInside(ref.path, content)
	inside := m.NamedInside()
	switch other, taken := l.named[m.Name]; {
	case base:
		refused("cannot use "+what+": it is a whole policy and would take the place of the vendor's", "compile it as a module: checkmodule -m", nil)
	case inside && nameProblem(m.Name) != "":
		refused(fmt.Sprintf("cannot use %s, in which stands the name %s", what, quote(m.Name)), "compile it again: "+nameProblem(m.Name), nil)
	case taken && (inside || other.inside):
		refused(fmt.Sprintf("cannot use two modules of the name %s: a .pp has the name that stands in it", printable.Quote(m.Name)),
			fmt.Sprintf("remove %s or %s (%s)", ref.path, other.path, other.source), nil)
	case taken:
		refused(fmt.Sprintf("cannot use two modules of the name %s", printable.Quote(m.Name)),
			fmt.Sprintf("rename %s or %s (%s)", ref.path, other.path, other.source), nil)
	default:
		l.named[m.Name] = namedModule{ref, inside}
		l.state.Modules = append(l.state.Modules, m)
	}
}

// namedModule is a module whose name is known.
type namedModule struct {
	moduleRef
	inside bool // the name is not its file's
}

// nameInside gives the name under which libsemanage installs a module: of a .pp the one that stands in it, if it can be read. Whether
// the rest can be read only the tools of the host know; what they refuse is left out when the policy is built.
func nameInside(file string, content []byte) (name, lang string, base bool) {
	name, lang = moduleName(path.Base(file))
	if lang == "pp" {
		if h, err := policypackage.Read(content); err == nil && h.Base {
			return name, lang, true
		} else if err == nil {
			name = h.Name
		}
	}
	return name, lang, false
}

// untrusted tells whether the reader refuses a file because somebody else than root may write it.
func untrusted(err error) bool {
	var own interface{ Remedy() string }
	return errors.As(err, &own)
}

// reason takes the name of the file out of an error: the message has it already.
func reason(err error) string {
	var number syscall.Errno
	var wrapped *fs.PathError
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "it is a directory"
	case errors.Is(err, syscall.ENOTDIR):
		return "a file is in the place of a directory"
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.As(err, &number) && number != syscall.EINVAL:
		return number.Error()
	case errors.As(err, &wrapped):
		return wrapped.Err.Error()
	}
	return oneLine(err.Error())
}

func remedy(err error) string {
	var own interface{ Remedy() string }
	switch {
	case errors.As(err, &own):
		return own.Remedy()
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EINVAL):
		return "put a file in its place"
	case errors.Is(err, syscall.ENOTDIR):
		return "put a directory in its place"
	case errors.Is(err, fs.ErrNotExist):
		return "put it there, or name the right file"
	case errors.Is(err, fs.ErrPermission):
		return "make it readable for root"
	case errors.Is(err, syscall.ELOOP):
		return "put a file in the place of the link"
	}
	return ""
}

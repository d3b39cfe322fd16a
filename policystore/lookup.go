package policystore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// LeftOut gives what the policy lacks of what was declared or made by hand, with the reason, and which declared file contexts no file gets.
// The latter is looked up again where a byte of the policy's file contexts has changed since they were built: anybody may change it with a line.
func (c *Compiler) LeftOut(policyType string, rec *Record, want Declared) ([]Quarantined, error) {
	all := c.Shelf.LeftOut(policyType, rec)
	if rec.Policy.Vendor == "" || rec.Policy.Vendor != rec.Vendor || rec.Policy.Declared != want.Digest {
		return all, nil // it is about to be built
	}
	above, err := c.hidden(policyType, rec)
	if err != nil {
		return nil, err
	}
	all = append(all, above...)
	if len(want.FileContexts)+len(want.Roles) == 0 {
		return all, nil
	}
	if known := rec.Policy.Lookup; known.Files != "" {
		if now, err := filecontexts.Fingerprint(c.Root, policyType); err == nil && now == known.Files {
			return append(all, known.from(want)...), nil
		}
	}
	_, without, err := c.inForceOf(policyType, &rec.Policy, c.withRoles(policyType, want).FileContexts)
	return append(all, without...), err
}

// from gives what was found out with the places where it is declared now: those may have moved since.
func (l Lookup) from(want Declared) []Quarantined {
	without := slices.Clone(l.Without)
	for i := range without {
		for _, fc := range want.FileContexts {
			if fc.Path == without[i].Name {
				without[i].From = fc.From
				break
			}
		}
	}
	return without
}

// inForceOf tells of which declared file contexts that are in the built policy a look-up gives the context, and what is wrong with the others.
func (c *Compiler) inForceOf(policyType string, p *PolicyRecord, declared []FileContext) (inForce []FileContext, without []Quarantined, err error) {
	declared = slices.DeleteFunc(slices.Clone(declared), func(fc FileContext) bool { return p.quarantined(fileContext, fc.Path) })
	if len(declared) == 0 {
		return nil, nil, nil
	}
	contexts, err := filecontexts.Load(c.Root, policyType)
	if err != nil {
		return nil, nil, err
	}
	symbols := sync.OnceValue(func() *policydb.Symbols { return c.readSymbols(policyType, p.File) }) // seldom needed
	l := &lookup{contexts: contexts, declared: declared, store: c.Root.Path(active(policyType)),
		canonical: func(context string) string { // libsepol writes a type's own name, a declaration may have an alias
			own, _ := symbols().Canonical(context)
			return own
		}}
	for _, fc := range declared {
		if reason := l.problem(fc); reason != "" {
			without = append(without, Quarantined{Kind: fileContext, Name: fc.Path, From: fc.From, Reason: reason})
			continue
		}
		inForce = append(inForce, fc)
	}
	return inForce, without, nil
}

// lookup asks the file contexts in force as restorecon does.
type lookup struct {
	contexts  *filecontexts.Contexts
	declared  []FileContext
	store     string // where the operator's own file contexts are written
	canonical func(context string) string
}

// problem says why no file gets a declared context, or "". The look-up of a path with all in it that the expression allows must give it. If
// another declaration counts for that path, the shortest path must.
func (l *lookup) problem(fc FileContext) string {
	if mistake, remedy := filecontexts.Mistake(fc.Path); mistake != "" {
		return mistake + ": " + remedy
	}
	paths, known := filecontexts.Samples(fc.Path)
	if !known { // in the built policy is all that can be said
		for m := range l.contexts.All {
			if m.Expression == fc.Path && l.same(m, fc.Context) {
				return ""
			}
		}
		return shadowed
	}
	kind := fc.sampleKind()
	problem := ""
	for _, path := range paths {
		m, found := l.contexts.Find(path, kind)
		if found && (m.Unusable || l.same(m, fc.Context)) {
			return ""
		}
		others := found && m.Expression != fc.Path && slices.ContainsFunc(l.declared, func(d FileContext) bool { return d.Path == m.Expression })
		if problem = l.reason(fc, path, m, others); !others {
			return problem
		}
	}
	return problem
}

// sampleKind gives a type of files that fc is for, to look a path up with.
func (fc FileContext) sampleKind() filecontexts.Kind {
	// With Any, an entry for directories would count for it.
	return cmp.Or(kindsOfFiles()[fc.Type], filecontexts.Regular)
}

// kindsOfFiles gives the types of files as CIL writes them.
func kindsOfFiles() map[string]filecontexts.Kind {
	return map[string]filecontexts.Kind{"any": filecontexts.Any, "file": filecontexts.Regular, "dir": filecontexts.Directory, "char": filecontexts.Character,
		"block": filecontexts.Block, "socket": filecontexts.Socket, "pipe": filecontexts.FIFO, "symlink": filecontexts.Link}
}

func (l *lookup) same(m filecontexts.Match, context string) bool {
	have := cmp.Or(m.Context, string(secontext.None))
	return secontext.Same(have, context) || secontext.Same(have, l.canonical(context))
}

// reason says what counts for a path instead.
func (l *lookup) reason(fc FileContext, path string, m filecontexts.Match, others bool) string {
	has := "no context"
	if m.Expression != "" {
		has = fmt.Sprintf("%s, from %s", cmp.Or(m.Context, string(secontext.None)), m.Expression)
	}
	if resolved := l.contexts.Resolve(path); resolved != path {
		from, to := l.replaced(path, resolved)
		instead := "declare its path below " + to
		if below, ok := strings.CutPrefix(fc.Path, from); ok {
			instead = "declare " + strings.TrimSuffix(to, "/") + below
		}
		return fmt.Sprintf("what is at and below %s is looked up as if it were at %s, so that this gives %s: %s", from, to, has, instead)
	}
	switch {
	case others:
		return fmt.Sprintf("another one that is declared, %s, counts for all that it is for: remove one of the two", m.Expression)
	case m.File == "file_contexts.local":
		return fmt.Sprintf("a line that was made by hand counts, with %s: take it out of %s/file_contexts.local and run semodule --build", has, l.store)
	case m.Expression == "":
		return "a look-up gives no context for it"
	}
	return fmt.Sprintf("the policy has another context for the same path, %s, and that one counts: declare a longer path", has)
}

// replaced gives the directory in place of which another one is looked up, for a path that it is at or above of.
func (l *lookup) replaced(path, resolved string) (from, to string) {
	for i := 1; i < len(path); i++ {
		if dir, below := path[:i], path[i:]; below[0] == '/' {
			if to := l.contexts.Resolve(dir); to != dir && strings.TrimSuffix(to, "/")+below == resolved {
				return dir, to
			}
		}
	}
	return path, resolved
}

// subsFile is where libselinux and semanage have the administrator's equivalences of directories.
func subsFile(policyType string) string {
	return seconfig.ContextsDir(policyType) + "/files/file_contexts.subs"
}

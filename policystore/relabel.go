package policystore

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
)

// Relabel is a path whose files may have another label after a rebuild. relabelPaths makes it, relabel takes it away; status reads it.
type Relabel struct {
	Path string `json:"path"`
	// Begins, if there is one, is how the names in Path begin that are meant, and nothing else in it is.
	Begins string `json:"begins,omitempty"`
	// Declared says that the declaration changed and counts to the letter: user, role, level and what containers chose included. Else
	// only the vendor's policy changed.
	Declared bool `json:"declared,omitempty"`
	// Was are the contexts, as CIL, of declarations that are gone: what has one of them got it from there.
	Was []string `json:"was,omitempty"`
	// Reason is why an earlier run did not get it done; "" if none has tried.
	Reason string `json:"reason,omitempty"`
}

func (r Relabel) String() string {
	if r.Begins != "" {
		return path.Join(r.Path, r.Begins) + "*"
	}
	return r.Path
}

// together gives all of several lists, each path once.
func together(lists ...[]Relabel) []Relabel {
	var all []Relabel
	at := map[[2]string]int{}
	for _, r := range slices.Concat(lists...) {
		if i, there := at[[2]string{r.Path, r.Begins}]; there {
			all[i].Declared = all[i].Declared || r.Declared
			all[i].Was = append(all[i].Was, r.Was...)
			continue
		}
		at[[2]string{r.Path, r.Begins}] = len(all)
		all = append(all, r)
	}
	return all
}

func (r Relabel) same(other Relabel) bool { return r.Path == other.Path && r.Begins == other.Begins }

// relabelPaths names the paths to relabel after a rebuild: those whose declaration changed, all declared ones when the
// vendor's policy did, and those that an earlier run did not get done.
func relabelPaths(rec *Record, want Declared) []Relabel {
	var todo []Relabel
	add := func(r Relabel) {
		if r.Begins != "" || !protected.Declared(r.Path) {
			todo = append(todo, r)
		}
	}
	for _, r := range rec.Policy.Relabel {
		add(r)
	}
	now, before := map[string]bool{}, set(rec.Policy.FileContexts)
	newVendor := rec.Policy.Vendor != "" && rec.Policy.Vendor != rec.Vendor
	for _, c := range want.FileContexts {
		statement := strings.TrimSpace(filecon(c))
		now[statement] = true
		if changed := !before[statement]; changed || newVendor {
			r := stem(c.Path)
			r.Declared = changed
			add(r)
		}
	}
	for _, statement := range rec.Policy.FileContexts {
		if !now[statement] {
			name, context := fileconParts(statement)
			r := stem(name)
			r.Declared, r.Was = true, []string{context}
			add(r)
		}
	}
	todo = together(todo)
	slices.SortFunc(todo, func(a, b Relabel) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Begins, b.Begins))
	})
	return todo
}

// relabel gives the steps that bring what is at and below the paths to its label. A path that cannot be relabelled stays in the record for
// the next run and fails nothing else. On a root that is not the running host, where nobody knows what the files will be used for, the first
// run on the host does it.
func (c *Compiler) relabel(rec *Record, paths []Relabel) plan.Plan {
	if c.Kernel == nil {
		return nil
	}
	labels := sync.OnceValues(func() (*labels, error) { return c.labels(rec) }) // as the step before has built them
	var steps plan.Plan
	for _, todo := range paths {
		steps = append(steps, plan.Step{
			Action: "relabel", Target: todo.String(), Reason: "its file context changed", Quiet: !c.Root.Exists(todo.Path), Stays: true,
			Do: func(ctx context.Context) (string, error) {
				if !slices.ContainsFunc(rec.Policy.Relabel, todo.same) {
					return "left as it is: what is declared for it has no effect", nil // as the rebuild has shown
				}
				l, err := labels()
				done := ""
				if err == nil {
					done, err = l.apply(ctx, todo)
				}
				left := slices.DeleteFunc(slices.Clone(rec.Policy.Relabel), todo.same)
				if err != nil {
					todo.Reason = printable.Line(err.Error())
					rec.Policy.Relabel = append(left, todo)
					return "not relabelled: " + todo.Reason, ctx.Err()
				}
				rec.Policy.Relabel = left
				return done, nil
			},
		})
	}
	return steps
}

// below is the end of an expression for a directory and something in it: one group that begins with a slash and has no alternatives.
var below = lazyregexp.New(`^\(/[^|()]*\)[?*]?$`)

// stem gives the longest path without a special character that everything the expression matches lies at or below, or that the names
// of everything it matches begin with.
func stem(expression string) Relabel {
	literal, rest := filecontexts.Beginning(expression)
	dir, begins := path.Split(literal)
	// "/srv/data(/.*)?", "/srv/data(/[^/]*)?" and "/srv/data/.*" mean the directory and what is in it.
	if begins == "" || rest == "" || below().MatchString(rest) {
		return Relabel{Path: path.Clean("/" + literal)}
	}
	return Relabel{Path: path.Clean("/" + dir), Begins: begins}
}

// fileconParts gives the path and the context of a statement that filecon made.
func fileconParts(statement string) (name, context string) {
	_, rest, _ := strings.Cut(statement, `"`)
	name, rest, _ = strings.Cut(rest, `" `)
	_, context, _ = strings.Cut(rest, " ") // behind the type of file
	return name, strings.TrimSuffix(context, ")")
}

// readSymbols gives the names of the built policy, and none if it cannot be read: one that is newer than this program is in force all
// the same.
func (c *Compiler) readSymbols(policyType, file string) *policydb.Symbols {
	symbols, err := policydb.ReadSymbols(c.Root.OpenFile(c.policyFile(policyType, file)))
	if err != nil {
		return &policydb.Symbols{}
	}
	return symbols
}

package policystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// relabelWait is how long a stage waits for whoever else labels files on the same file system: the boot goes on, and the next run does it.
const relabelWait = time.Minute

// answerPatience is how long a file system may do nothing, or be locked by somebody else, while declared paths on it are labelled.
const answerPatience = 2 * time.Minute

// labels gives what lies at declared paths the labels that the built policy has for it.
type labels struct {
	root       *hostfs.Root
	contexts   *filecontexts.Contexts
	declared   map[string]bool // the expressions of declared file contexts
	containers []string        // the types that container runtimes give to files
	canonical  func(context string) string
	room       patience.Room
}

func (c *Compiler) labels(rec *Record) (*labels, error) {
	contexts, err := filecontexts.Load(c.Root, rec.Type)
	if err != nil {
		return nil, err
	}
	symbols := c.readSymbols(rec.Type, rec.Policy.File)
	l := &labels{root: c.Root, contexts: contexts, declared: map[string]bool{}}
	l.canonical = func(context string) string {
		if own, known := symbols.Canonical(context); known {
			return own
		}
		return context // setting it says what is wrong with it
	}
	contexts.Rewrite(l.canonical)
	for _, statement := range rec.Policy.FileContexts {
		name, _ := fileconParts(statement)
		l.declared[name] = true
	}
	runtimes, err := seconfig.ReadContainers(c.Root, rec.Type)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // an image without containers has none
		return nil, fmt.Errorf("cannot tell the labels of containers' files: %w", err)
	}
	for _, context := range []string{runtimes.File, runtimes.ROFile} {
		if context != "" {
			l.containers = append(l.containers, secontext.Context(l.canonical(context)).Type())
		}
	}
	return l, nil
}

// canonicalCIL gives a context in CIL with its type's own name.
func (l *labels) canonicalCIL(cil string) string {
	f := strings.SplitN(strings.TrimPrefix(cil, "("), " ", 4)
	if len(f) < 4 {
		return cil // no context at all
	}
	f[2] = secontext.Context(l.canonical(f[0] + ":" + f[1] + ":" + f[2] + ":s0")).Type()
	return "(" + strings.Join(f, " ")
}

// apply labels what is meant by todo and says in words what was done. The error says what is missing.
func (l *labels) apply(ctx context.Context, todo Relabel) (done string, err error) {
	names := []string{todo.Path}
	if todo.Begins != "" {
		if names, err = l.beginning(todo.Path, todo.Begins); err != nil {
			return "", err
		}
	}
	var seen, set, left, mounts int64
	var notes []string
	for _, name := range names {
		// A server that does not answer must not keep the boot from going on.
		tree, runErr := patience.Ask(ctx, &l.room, name, answerPatience, func(ctx context.Context, alive func()) (tree, error) {
			return l.tree(ctx, name, todo, alive)
		})
		var refused *relabel.RefusedError
		switch {
		case hostfs.NoFile(tree.notOpened):
			continue
		case errors.As(tree.notOpened, &refused):
			notes = append(notes, refused.Error())
			continue
		case errors.Is(runErr, patience.ErrNoAnswer):
			runErr = fmt.Errorf("cannot relabel %s: %w: look at its server or its disk, and at \"dmesg\"", name, runErr)
		}
		err = errors.Join(err, tree.notOpened, runErr)
		result := tree.result
		seen, set, mounts = seen+result.Seen, set+result.Set, mounts+int64(len(result.MountsBelow))
		left += result.Skipped[relabel.Customized] + result.Skipped[relabel.Owned]
	}
	if err != nil {
		return "", err
	}
	parts := []string{fmt.Sprintf("relabelled %d of %d entries", set, seen)}
	if left > 0 {
		parts = append(parts, fmt.Sprintf("%d left as a container or somebody else labelled them", left))
	}
	if mounts > 0 {
		parts = append(parts, fmt.Sprintf("%d mounts below it not entered", mounts))
	}
	return strings.Join(slices.Concat(parts, notes, l.contexts.Problems()), "; "), nil
}

// tree is what came of one path.
type tree struct {
	result    relabel.Result
	notOpened error
}

func (l *labels) tree(ctx context.Context, name string, todo Relabel, alive func()) (t tree, err error) {
	target, err := relabel.OpenIn(l.root, name, relabel.Declared)
	if err != nil {
		return tree{notOpened: err}, nil
	}
	defer target.Close()
	if t.result, err = l.run(ctx, target, todo, alive); err == nil {
		err = l.root.Sync(name) // before the record says that it is done
	}
	return t, err
}

// beginning lists what is in a directory and has a name that begins so.
func (l *labels) beginning(dir, begins string) (names []string, err error) {
	entries, err := l.root.ReadDir(dir)
	if err != nil && !hostfs.NoFile(err) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), begins) {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	return names, nil
}

func (l *labels) run(ctx context.Context, target *relabel.Target, todo Relabel, alive func()) (relabel.Result, error) {
	unlock, err := target.Lock(ctx, l.root, relabelWait, nil)
	if err != nil {
		return relabel.Result{}, err
	}
	defer unlock()
	// Verify: nothing is called labelled that was not read back. Copying files up in the overlay of /etc is what whoever declares a path there
	// asks for, if there is room.
	result, err := target.Run(ctx, relabel.Options{Labels: l.forTree(target.Owned(l.root), todo), CopyUp: true, Verify: true, Alive: alive})
	if missing := result.Missing(); err == nil && missing != "" {
		err = fmt.Errorf("%s: %s", result.Path, missing)
	}
	return result, err
}

// forTree gives the rule for what lies below a declared path. An entry of which a declared file context decides gets that context in full, if
// the declaration has changed. Anything else gets the type that the policy has for it, as with restorecon, except what a container has
// labelled, or somebody by hand: an image's customizable_types need not name the types of containers, and Flatcar's does not.
func (l *labels) forTree(owned []string, todo Relabel) relabel.Labeler {
	was := make([]string, len(todo.Was))
	for i, cil := range todo.Was {
		was[i] = l.canonicalCIL(cil)
	}
	return &declaredLabels{labels: l, owned: owned, was: was, todo: todo, inFull: relabel.FromPolicy(l.contexts, true), typeAlone: relabel.FromPolicy(l.contexts, false)}
}

type declaredLabels struct {
	*labels
	owned             []string // directories of container runtimes, beside those that are declared to be like one
	was               []string // what declarations gave that are gone
	todo              Relabel
	inFull, typeAlone relabel.Descender
}

func (d *declaredLabels) String() string { return d.typeAlone.String() + " and what is declared" }

// Want is a relabel.Labeler's.
func (d *declaredLabels) Want(name string, kind relabel.Kind, current string) (string, relabel.Reason) {
	if d.isOwned(name) {
		return "", relabel.Owned
	}
	match, found := d.contexts.Find(name, kind.Column())
	switch whole, reason := d.whole(match, found, current); {
	case reason != "":
		return "", reason
	case whole:
		return d.inFull.Want(name, kind, current)
	}
	return d.typeAlone.Want(name, kind, current)
}

func (d *declaredLabels) isOwned(name string) bool {
	return protected.Owner(name) != "" || protected.Owner(d.contexts.Resolve(name)) != "" || slices.ContainsFunc(d.owned, func(tree string) bool { return name == tree || strings.HasPrefix(name, tree+"/") })
}

// whole tells whether an entry gets all of its context, by the file context that decides about it and by the one that it has, or why it gets none.
func (d *declaredLabels) whole(match filecontexts.Match, found bool, current string) (bool, relabel.Reason) {
	declared := found && d.declared[match.Expression]
	context := secontext.Context(current)
	switch {
	case declared && d.todo.Declared, context.Check() == nil && slices.Contains(d.was, context.CIL()):
		return true, ""
	case !declared && slices.Contains(d.containers, context.Type()):
		return false, relabel.Customized
	}
	return false, ""
}

// Inside is a relabel.Descender's.
func (d *declaredLabels) Inside(dir string) relabel.Inside {
	contexts := d.contexts.Inside(dir)
	resolved := d.contexts.Resolve(dir)
	if contexts == nil || slices.ContainsFunc(slices.Concat(protected.Runtimes(), d.owned), func(tree string) bool { // some of what is in it may be owned
		return strings.HasPrefix(tree+"/", dir+"/") || strings.HasPrefix(tree+"/", resolved+"/")
	}) {
		return nil
	}
	return &declaredInside{d, d.isOwned(dir), contexts, d.inFull.Inside(dir), d.typeAlone.Inside(dir)}
}

// declaredInside is declaredLabels in a directory, all or nothing of which is owned.
type declaredInside struct {
	labels            *declaredLabels
	owned             bool
	contexts          *filecontexts.Inside
	inFull, typeAlone relabel.Inside
}

// Want is a relabel.Inside's.
func (d *declaredInside) Want(name string, kind relabel.Kind, current string) (string, relabel.Reason) {
	if d.owned {
		return "", relabel.Owned
	}
	match, found := d.contexts.Find(name, kind.Column())
	switch whole, reason := d.labels.whole(match, found, current); {
	case reason != "":
		return "", reason
	case whole:
		return d.inFull.Want(name, kind, current)
	}
	return d.typeAlone.Want(name, kind, current)
}

// Enter is a relabel.Inside's.
func (d *declaredInside) Enter(name string) relabel.Inside {
	return &declaredInside{d.labels, d.owned, d.contexts.Enter(name), d.inFull.Enter(name), d.typeAlone.Enter(name)}
}

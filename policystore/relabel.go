package policystore

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Relabel is a path whose files may have another label after a rebuild.
type Relabel struct {
	Path string `json:"path"`
	// Declared says that the declaration changed and counts to the letter, user, role, level and customizable types included. Else
	// only the vendor's policy changed, and what containers chose for themselves is left.
	Declared bool `json:"declared,omitempty"`
}

// relabelPaths names the paths to relabel after a rebuild: those whose declaration changed, all declared ones when the
// vendor's policy did, and those that an earlier run did not get done.
func relabelPaths(rec *Record, want Declared) []Relabel {
	declared := map[string]bool{}
	for _, r := range rec.Policy.Relabel {
		declared[r.Path] = declared[r.Path] || r.Declared
	}
	now := map[string]bool{}
	newVendor := rec.Policy.Vendor != "" && rec.Policy.Vendor != rec.Vendor
	for _, c := range want.FileContexts {
		statement := strings.TrimSpace(filecon(c))
		now[statement] = true
		if changed := !slices.Contains(rec.Policy.FileContexts, statement); changed || newVendor {
			declared[stem(c.Path)] = declared[stem(c.Path)] || changed
		}
	}
	for _, statement := range rec.Policy.FileContexts {
		if !now[statement] {
			declared[stem(fileconPath(statement))] = true
		}
	}
	var todo []Relabel
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if !tooWide(name) {
			todo = append(todo, Relabel{name, declared[name]})
		}
	}
	return todo
}

// relabel gives the steps that bring what is at and below the paths to its label: restorecon of those and of nothing else. It
// writes only labels that differ. A path that cannot be relabelled stays in the record for the next run and fails nothing else. On
// a root that is not the running host there is nothing to ask which label is right: the first run on the host does it.
func (c *Compiler) relabel(rec *Record, paths []Relabel) plan.Plan {
	if c.Kernel == nil {
		return nil
	}
	var steps plan.Plan
	for _, todo := range paths {
		flags := "-R"
		if todo.Declared {
			flags = "-RF"
		}
		steps = append(steps, plan.Step{
			Action: "relabel", Target: todo.Path, Reason: "its file context changed", Quiet: !c.Root.Exists(todo.Path), Stays: true,
			Do: func(ctx context.Context) (string, error) {
				if c.Root.Exists(todo.Path) {
					if _, err := c.Tools.Run(ctx, "restorecon", flags, c.Root.Path(todo.Path)); err != nil {
						return fmt.Sprintf("not relabelled: %v", err), ctx.Err()
					}
					if err := c.Root.Sync(todo.Path); err != nil {
						return fmt.Sprintf("not known to be relabelled: %v", err), ctx.Err()
					}
				}
				rec.Policy.Relabel = slices.DeleteFunc(slices.Clone(rec.Policy.Relabel), func(r Relabel) bool { return r.Path == todo.Path })
				return "relabelled", nil
			},
		})
	}
	return steps
}

// below is the end of an expression for a directory and something in it: one group that begins with a slash and has no alternatives.
var below = regexp.MustCompile(`^\(/[^|()]*\)[?*]?$`)

// stem gives the longest path without a special character that everything the expression matches lies at or below.
func stem(expression string) string {
	var literal strings.Builder
	for i := 0; i < len(expression); i++ {
		c := expression[i]
		if c == '\\' && i+1 < len(expression) && strings.IndexByte(`.-+()[]{}^$|?*\/`, expression[i+1]) >= 0 {
			i++
			literal.WriteByte(expression[i])
			continue
		}
		if strings.IndexByte(`\.^$?*+|[({`, c) >= 0 {
			text := literal.String()
			switch {
			// "/srv/data(/.*)?", "/srv/data(/[^/]*)?" and "/srv/data/.*" mean the directory and what is in it.
			case below.MatchString(expression[i:]), strings.HasSuffix(text, "/"):
				return path.Clean(text)
			}
			return path.Dir(text)
		}
		literal.WriteByte(c)
	}
	return path.Clean(literal.String())
}

// tooWide names the trees that are never relabelled as a whole: the system's own, and /etc, where it would copy every file to
// the overlay's upper layer and hide later OS updates.
func tooWide(name string) bool {
	switch name {
	case "/", "/boot", "/dev", "/etc", "/home", "/opt", "/oem", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var", "/var/lib":
		return true
	}
	return strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/") || strings.HasPrefix(name, "/dev/") ||
		strings.HasPrefix(name, "/usr/")
}

// fileconPath gives the path of a statement that filecon made.
func fileconPath(statement string) string {
	_, rest, _ := strings.Cut(statement, `"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// checkContexts reads the built file_contexts and tells which declared ones are not in it: a module that declares the same path at
// another place wins over a second one. file is the built policy, which knows the aliases of types: libsepol writes a type's own name.
func (c *Compiler) checkContexts(policyType, file string, parts []part, in []int) ([]Quarantined, error) {
	if !slices.ContainsFunc(in, func(i int) bool { return parts[i].kind == fileContext }) {
		return nil, nil
	}
	content, err := c.Root.ReadFile(EtcDir + "/" + policyType + "/contexts/files/file_contexts")
	if err != nil {
		return nil, fmt.Errorf("cannot read the built file contexts: %w", err)
	}
	built := map[string][]string{} // the contexts of a path, of any type of file
	for line := range strings.Lines(string(content)) {
		if f := strings.Fields(line); len(f) >= 2 {
			built[f[0]] = append(built[f[0]], f[len(f)-1])
		}
	}
	has := func(path, context string) bool {
		return slices.ContainsFunc(built[path], func(have string) bool { return secontext.Same(have, context) })
	}
	var (
		beaten []Quarantined
		policy *policydb.Policy // it is large, and seldom needed
	)
	for _, i := range in {
		it := parts[i]
		if it.kind != fileContext || has(it.name, it.context) {
			continue
		}
		if policy == nil {
			if policy, err = c.readPolicy(policyType, file); err != nil {
				policy = &policydb.Policy{} // one that is newer than this program is in force all the same
			}
		}
		if context, known := policy.Canonical(it.context); !known || !has(it.name, context) {
			beaten = append(beaten, Quarantined{Kind: it.kind, Name: it.name, From: it.from, Reason: shadowed})
		}
	}
	return beaten, nil
}

func (c *Compiler) readPolicy(policyType, file string) (*policydb.Policy, error) {
	f, err := c.Root.OpenFile(c.policyFile(policyType, file))
	if err != nil {
		return nil, fmt.Errorf("cannot read the built policy: %w", err)
	}
	defer f.Close()
	return policydb.Parse(f)
}

package policystore

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// relabelPaths names the paths whose files may have another label after a rebuild, because their declaration or the vendor's
// policy changed, and those that an earlier run did not get done.
func relabelPaths(rec *Record, want Declared) []string {
	now := map[string]bool{}
	for _, c := range want.FileContexts {
		now[strings.TrimSpace(filecon(c))] = true
	}
	paths := slices.Clone(rec.Policy.Relabel)
	newVendor := rec.Policy.Vendor != rec.Vendor
	for _, c := range want.FileContexts {
		if newVendor || !slices.Contains(rec.Policy.FileContexts, strings.TrimSpace(filecon(c))) {
			paths = append(paths, stem(c.Path))
		}
	}
	for _, line := range rec.Policy.FileContexts {
		if !now[line] {
			paths = append(paths, stem(fileconPath(line)))
		}
	}
	slices.Sort(paths)
	return slices.DeleteFunc(slices.Compact(paths), tooWide)
}

// relabel gives the steps that bring what is at and below the paths to its label: restorecon of those and of nothing else. It
// writes only labels that differ. A path that cannot be relabelled stays in the record for the next run and fails nothing else. On
// a root that is not the running host there is nothing to ask which label is right: the first run on the host does it.
func (b *Builder) relabel(rec *Record, paths []string) plan.Plan {
	if b.Kernel == nil {
		return nil
	}
	var steps plan.Plan
	for _, name := range paths {
		steps = append(steps, plan.Step{
			Action: "relabel", Target: name, Reason: "its declared file context changed", Quiet: !b.Root.Exists(name),
			Do: func(ctx context.Context) (string, error) {
				if b.Root.Exists(name) {
					// -F: also user, role and level, and types that are customizable, for they are what was declared.
					if _, err := b.Tools.Run(ctx, "restorecon", "-RF", b.Root.Path(name)); err != nil {
						return fmt.Sprintf("not relabelled: %v", err), ctx.Err()
					}
				}
				rec.Policy.Relabel = slices.DeleteFunc(slices.Clone(rec.Policy.Relabel), func(p string) bool { return p == name })
				return "relabelled", nil
			},
		})
	}
	return steps
}

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
			// "/srv/data(/.*)?" and "/srv/data/.*" mean the directory and what is in it.
			case strings.HasPrefix(expression[i:], "(/.*)?") && i+6 == len(expression), strings.HasSuffix(text, "/"):
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

package policystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// replace is the step that builds something beside name and puts it in place of what is there, or of nothing, in one rename(2).
// Beside is a name in the same directory that is the same in every run, so that a run clears away what a power cut left of an
// earlier one. Build makes beside and gives the step's result. Doing says what failed when something does: "cannot DOING: ...".
func replace(root *hostfs.Root, name, beside, doing string, build func(ctx context.Context) (string, error)) plan.Step {
	exchanged := false
	return plan.Step{
		Target: name,
		Do: func(ctx context.Context) (string, error) {
			err := root.RemoveTree(beside)
			var done string
			if err == nil {
				done, err = build(ctx)
			}
			if err == nil {
				if _, lerr := root.Lstat(name); hostfs.Missing(lerr) {
					err = root.Rename(beside, name)
				} else {
					err = root.Exchange(beside, name)
					exchanged = err == nil
				}
			}
			if err != nil {
				return "", fmt.Errorf("cannot %s: %w", doing, errors.Join(err, root.RemoveTree(beside)))
			}
			return done, nil
		},
		Undo: func(context.Context) error {
			if exchanged {
				if err := root.Exchange(beside, name); err != nil {
					return err
				}
				return root.RemoveTree(beside)
			}
			return root.RemoveTree(name)
		},
		Cleanup: func() error { return root.RemoveTree(beside) },
	}
}

// Package plan holds a change to the host as data before anything is done, so that a dry run, the JSON output and
// "nothing to do" come from the same list that is carried out.
//
// A plan is made by reading only. Carrying it out goes step by step; when one fails, the steps before it are undone in reverse,
// so a failed plan leaves the host as it was.
package plan

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Step is one change. The exported fields say everything that a person or a program needs to know about it.
type Step struct {
	Action string `json:"action"` // a verb: copy, write, link, remove, rebuild, reload, switch, record
	Target string `json:"target"` // a path as the host sees it, or the name of a unit or mode
	Reason string `json:"reason"` // why the host is not right without it
	Quiet  bool   `json:"-"`      // bookkeeping that a person is not told about

	// Volatile says that the change is gone with the next boot: a run that is cut off in it leaves nothing half done on the disk.
	Volatile bool `json:"-"`

	// Do makes the change whole or not at all; what it returns says in a few words what was done.
	Do func(ctx context.Context) (done string, err error) `json:"-"`
	// Undo takes the change back after Do succeeded and a later step failed; nil: there is no way back.
	Undo func(ctx context.Context) error `json:"-"`
	// Stays says that a change without a way back is as good on the old host as on the new one.
	Stays bool `json:"-"`
	// Cleanup removes what only Undo needed, after the last step succeeded.
	Cleanup func() error `json:"-"`
}

// Plan is a list of changes in the order in which they are made. Nothing to do is an empty plan.
type Plan []Step

// Visible gives the steps that a person is told about.
func (p Plan) Visible() Plan {
	shown := Plan{}
	for _, s := range p {
		if !s.Quiet {
			shown = append(shown, s)
		}
	}
	return shown
}

// Done reports one step that was carried out.
type Done struct {
	Step
	Result  string        `json:"result"`     // in a few words
	Elapsed time.Duration `json:"elapsed_ns"` // how long it took
}

// UndoError says that a step failed and that the steps before it could not be taken back: the host is in between.
type UndoError struct {
	Failed error // why the plan was given up
	Undo   error // why it could not be taken back
}

func (e *UndoError) Error() string {
	return fmt.Sprintf("%v; and undoing what was done before failed too: %v", e.Failed, e.Undo)
}

func (e *UndoError) Unwrap() []error { return []error{e.Failed, e.Undo} }

// Do carries the plan out and gives what was done. After an error the host is as it was, unless the error is an UndoError.
func (p Plan) Do(ctx context.Context, started func(Step), finished func(Done)) ([]Done, error) {
	var done []Done
	for i, step := range p {
		if started != nil {
			started(step)
		}
		start := time.Now()
		err := ctx.Err()
		var result string
		if err == nil {
			result, err = step.Do(ctx)
		}
		if err != nil {
			return done, p[:i].undo(ctx, err)
		}
		d := Done{Step: step, Result: result, Elapsed: time.Since(start)}
		done = append(done, d)
		if finished != nil {
			finished(d)
		}
	}
	// In order and no further than the first that fails: what removes the marker of unfinished work comes last.
	for _, step := range p {
		if step.Cleanup == nil {
			continue
		}
		if err := step.Cleanup(); err != nil {
			return done, &CleanupError{err}
		}
	}
	return done, nil
}

// CleanupError says that every step was carried out, and that something of the old state could not be removed.
type CleanupError struct{ Err error }

func (e *CleanupError) Error() string {
	return fmt.Sprintf("everything was done, but what is left of the old state is still there: %v", e.Err)
}

func (e *CleanupError) Unwrap() error { return e.Err }

func (p Plan) undo(ctx context.Context, failed error) error {
	ctx = context.WithoutCancel(ctx) // a cancelled run is taken back as well
	var errs []error
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].Undo == nil {
			if !p[i].Stays && !p[i].Quiet {
				errs = append(errs, fmt.Errorf("there is no way back from: %s %s", p[i].Action, p[i].Target))
			}
			continue
		}
		if err := p[i].Undo(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &UndoError{Failed: failed, Undo: err}
	}
	return failed
}

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/relabel"
	"github.com/selinux-provision/selinux-provision/stages"
)

const relabelHelp = `Give every file and directory below PATH an SELinux label. Only what differs is written. The root of the tree gets its label
last, and only if nothing failed.

  relabel /var/lib/data --context system_u:object_r:container_file_t:s0:c1,c2
  relabel /var/lib/data --context default      what containers share: the file= label of the policy's lxc_contexts
  relabel /srv --from-policy                   what the policy's file contexts say, like restorecon -R

It stays in the tree: no link is followed, no mount is entered, and a file with several names is left alone unless the tree
is a whole file system or --trust-links is given. System directories are refused, except with --from-policy.

Exit code 0: every entry has its label; 3: not every one, what is missing is listed. Run it again to go on: what it did within
the last day is believed then; with --fresh it looks at everything again.`

// relabelFlags are those of one call.
type relabelFlags struct {
	context    string
	fromPolicy bool
	force      bool
	dry        bool
	verify     bool
	trustLinks bool
	copyUp     bool
	fresh      bool
	background bool
	workers    int
	entries    int
	cpu        int
	given      func(flag string) bool // tells whether the command line has this flag
}

// declaredLimits fills in what the command line leaves out with what the configuration says of relabelling. A configuration that is
// wrong is told and keeps nobody from relabelling by hand.
func (a *app) declaredLimits(root *hostfs.Root, f *relabelFlags) {
	declared, err := provision.Load(configReader{root, a.config, true}, a.config)
	if err != nil {
		fmt.Fprintf(a.stderr, "selinux-provision: the limits in the configuration are ignored, because it has errors: %v\n", err)
		return
	}
	for flag, limit := range map[string]struct {
		to   *int
		from int
	}{
		"workers":  {&f.workers, declared.Relabel.Workers},
		"max-rate": {&f.entries, declared.Relabel.EntriesPerSecond},
		"max-cpu":  {&f.cpu, declared.Relabel.CPUPercent},
	} {
		if !f.given(flag) {
			*limit.to = limit.from
		}
	}
}

func (a *app) relabelCommand() *cobra.Command {
	var f relabelFlags
	cmd := &cobra.Command{Use: "relabel PATH (--context CONTEXT | --from-policy)", Short: "Label one tree, fast and safely", Long: relabelHelp,
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return errors.New("cannot relabel without a path: give one directory or file")
			case 1:
				if args[0] == "" { // an unset variable, and not the current directory
					return errors.New("cannot relabel an empty path: give one directory or file")
				}
				return nil
			}
			return fmt.Errorf("cannot use %s: give one directory or file", printable.Quote(args[1]))
		}}
	flags := cmd.Flags()
	flags.StringVar(&f.context, "context", "", "the `context` that everything gets, or \"default\"")
	flags.BoolVar(&f.fromPolicy, "from-policy", false, "take each file's context from the policy's file contexts")
	flags.BoolVarP(&f.force, "force", "F", false, "with --from-policy: set user, role and level too, and types that were chosen by hand")
	flags.BoolVar(&f.dry, "dry-run", false, "print each label that would be changed, write nothing")
	flags.IntVar(&f.workers, "workers", 0, "how many system calls may wait for the disk at once (default: the configuration's relabel.workers, or what the disk needs)")
	flags.BoolVar(&f.verify, "verify", false, "read every label back at the end")
	flags.BoolVar(&f.trustLinks, "trust-links", false, "label files with several names too: nobody could make a hard link to a file outside of the tree")
	flags.BoolVar(&f.copyUp, "copy-up", false, "on an overlay: allow that each file whose label changes is copied to the upper layer")
	flags.BoolVar(&f.fresh, "fresh", false, "look at everything again, also at what a run that was broken off has done")
	flags.BoolVar(&f.background, "background", false, "run with the lowest processor and I/O priority")
	flags.IntVar(&f.entries, "max-rate", 0, "look at no more than this many `entries` a second (default: the configuration's relabel.entries_per_second)")
	flags.IntVar(&f.cpu, "max-cpu", 0, "use no more than this `percentage` of one processor (default: the configuration's relabel.cpu_percent)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.given = flags.Changed
		return a.relabel(cmd.Context(), args[0], f)
	}
	return cmd
}

func (a *app) relabel(ctx context.Context, name string, f relabelFlags) error {
	if err := f.check(); err != nil {
		return usageError{err}
	}
	root, err := a.openRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	labels, scope, err := a.relabelLabels(root, f)
	if err != nil {
		return err
	}
	if root.IsHost() {
		if name, err = filepath.Abs(name); err != nil {
			return err
		}
	}
	a.declaredLimits(root, &f)
	show := a.relabelReporter(name)
	waiting := a.waiting()
	// A file system that does not answer must not keep a signal from ending this.
	result, err := patience.Ask(ctx, &patience.Room{}, name, math.MaxInt64, func(ctx context.Context, _ func()) (relabel.Result, error) {
		return a.relabelTree(ctx, root, name, scope, labels, f, show, waiting)
	})
	show.end()
	if errors.Is(err, patience.ErrNoAnswer) {
		return fmt.Errorf("cannot relabel %s: %w, and it was broken off: not everything is labelled: when it answers again, run it again to go on", printable.Text(name), err)
	}
	if result.Cancelled && errors.Is(err, context.Canceled) {
		// The result says so; that what was done could not be kept is another matter.
		if text := strings.TrimPrefix(err.Error(), context.Canceled.Error()); text != "" {
			fmt.Fprintf(a.stderr, "selinux-provision: %s\n", strings.TrimSpace(text))
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if !result.Complete() {
		a.code = exitPartly
	}
	if !a.answer(struct {
		header
		relabel.Result
		// Changes, with --dry-run or --verbose, is each label that is set, or would be, in no order. It is the first field.
		Changes []relabel.Change `json:"changes,omitempty"`
	}{header: a.header(), Result: result}) {
		show.result(result)
	}
	return nil
}

// relabelTree labels one tree.
func (a *app) relabelTree(ctx context.Context, root *hostfs.Root, name string, scope relabel.Scope, labels relabel.Labeler, f relabelFlags,
	show *relabelReporter, waiting func(string)) (relabel.Result, error) {
	target, err := relabel.OpenIn(root, name, scope)
	if err != nil {
		return relabel.Result{}, err
	}
	defer target.Close()
	o := relabel.Options{
		Labels: labels, DryRun: f.dry, Workers: f.workers, TrustLinks: f.trustLinks, CopyUp: f.copyUp, Verify: f.verify,
		Limits: relabel.Limits{EntriesPerSecond: f.entries, CPUPercent: f.cpu, Background: f.background},
	}
	if root.IsHost() {
		if !f.dry {
			unlock, err := target.Lock(ctx, root, a.lockWait, waiting)
			if err != nil {
				return relabel.Result{}, err
			}
			defer unlock()
		}
		state := relabelState(root, target.Path())
		if f.fresh && !f.dry {
			if err := state.Remove(); err != nil {
				return relabel.Result{}, fmt.Errorf("cannot forget what an earlier run has done: %w", err)
			}
		}
		o.State = state
	}
	show.path = printable.Text(target.Path())
	o.Progress, o.Interval = show.progress, show.interval
	if f.dry || a.verbose {
		o.Changed = show.changed(f.dry)
	}
	return target.Run(ctx, o)
}

// check refuses flags that contradict each other.
func (f *relabelFlags) check() error {
	switch {
	case f.fromPolicy && f.context != "":
		return errors.New("cannot use --context together with --from-policy: give one of them")
	case f.force && !f.fromPolicy:
		return errors.New("cannot use --force without --from-policy: a context that is given is always set in full")
	case !f.fromPolicy && f.context == "":
		return errors.New("cannot relabel without a context: give --context CONTEXT, --context default for what containers share, or --from-policy")
	case f.workers > relabel.MaxWorkers:
		return fmt.Errorf("cannot use %d workers: give at most %d with --workers, or leave it out for the default", f.workers, relabel.MaxWorkers)
	case f.workers < 0 || f.entries < 0 || f.cpu < 0:
		return errors.New("cannot use a number below 0: leave --workers, --max-rate or --max-cpu out for the default")
	}
	return nil
}

// relabelLabels asks for the labels that the flags mean, and tells what of the file contexts cannot be used.
func (a *app) relabelLabels(root *hostfs.Root, f relabelFlags) (relabel.Labeler, relabel.Scope, error) {
	policy, err := relabel.OpenPolicy(root)
	if err != nil {
		return nil, 0, err
	}
	defer policy.Close()
	if !f.fromPolicy {
		labels, err := policy.Fixed(f.context)
		var unusable *relabel.ContextError
		if errors.As(err, &unusable) {
			err = usageError{err}
		}
		return labels, relabel.Volume, err
	}
	labels, problems, err := policy.FileContexts(f.force)
	for _, p := range problems {
		fmt.Fprintf(a.stderr, "selinux-provision: %s\n", printable.Text(p))
	}
	return labels, relabel.System, err
}

// relabelState keeps what a run that was broken off has done, one file for each tree.
func relabelState(root *hostfs.Root, path string) relabel.State {
	sum := sha256.Sum256([]byte(path))
	return relabel.StateFile{Root: root, Name: stages.StateDir + "/relabel/" + hex.EncodeToString(sum[:8]) + ".json"}
}

// relabelReporter tells how a run goes: a bar on a terminal, lines in the journal, nothing in a pipe and with --json.
type relabelReporter struct {
	app      *app
	path     string
	interval time.Duration
	screen   *os.File // where a person watches; nil: nowhere
	log      *slog.Logger
	flush    func()
}

func (a *app) relabelReporter(path string) *relabelReporter {
	r := &relabelReporter{app: a, path: printable.Text(path), interval: 30 * time.Second, log: journal()}
	if f, is := terminal(a.stderr); is && r.log == nil && !a.json {
		r.screen, r.interval = f, 200*time.Millisecond
	}
	return r
}

// clearLine goes to the beginning of the terminal's line, and clears it (ECMA-48, CR and EL).
const clearLine = "\r\x1b[K"

func (r *relabelReporter) progress(p relabel.Progress) {
	switch {
	case r.screen != nil: // a line that is longer than the terminal is wide could not be taken back
		fmt.Fprint(r.screen, clearLine+cut(progressText(p)+": "+r.path, terminalWidth(r.screen)-1))
	case r.log != nil && !r.app.json:
		r.log.Info(r.path+": "+progressText(p), "message_id", messages.Relabelling.ID(), "path", r.path, "seen", p.Seen, "changed", p.Changed, "failed", p.Failed)
	}
}

// progressText says how far a run is.
func progressText(p relabel.Progress) string {
	text := fmt.Sprintf("%d entries", p.Seen)
	if p.Total > 0 {
		text += fmt.Sprintf(" of %d", p.Total)
	}
	text += fmt.Sprintf(" looked at, %d labelled, %.0f a second", p.Changed, p.Rate)
	if p.Left > 0 {
		text += fmt.Sprintf(", about %s left", p.Left.Round(time.Second))
	}
	return text
}

// cut gives as much of a text as has room in so many columns.
func cut(text string, columns int) string {
	runes := []rune(text)
	return string(runes[:max(0, min(len(runes), columns))])
}

func (r *relabelReporter) end() {
	if r.screen != nil {
		fmt.Fprint(r.screen, clearLine)
	}
	if r.flush != nil {
		r.flush()
	}
}

// changed prints each label that is set, or would be, as restorecon -v does.
func (r *relabelReporter) changed(dry bool) func(relabel.Change) {
	if r.app.json {
		list := r.app.list("changes")
		return func(c relabel.Change) {
			c.Path, c.From = printable.Text(c.Path), printable.Text(c.From)
			list.add(c)
		}
	}
	out := bufio.NewWriterSize(r.app.stdout, 64<<10)
	r.flush = func() { _ = out.Flush() }
	verb := map[bool]string{true: "would relabel", false: "relabelled"}[dry]
	return func(c relabel.Change) {
		from := printable.Text(c.From) // a disk may have anything there
		if from == "" {
			from = "no context"
		}
		fmt.Fprintf(out, "%s %s from %s to %s\n", verb, printable.Text(c.Path), from, c.To)
	}
}

func (r *relabelReporter) result(result relabel.Result) {
	lines, problems := relabelLines(result)
	if r.log == nil {
		for _, line := range lines {
			fmt.Fprintln(r.app.stdout, line)
		}
		for _, p := range problems {
			fmt.Fprintln(r.app.stderr, p)
		}
		return
	}
	for _, p := range problems {
		r.log.Warn(p, "message_id", messages.Partly.ID(), "path", result.Path)
	}
	for _, line := range lines {
		r.log.Info(line, "message_id", messages.Relabelled.ID(), "path", result.Path, "seen", result.Seen, "set", result.Set, "failed", result.FailedCount())
	}
}

// relabelLines says what a run did, and what is missing with its remedy.
func relabelLines(r relabel.Result) (lines, problems []string) {
	var parts []string
	add := func(n int64, format string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(format, n))
		}
	}
	add(r.Set, map[bool]string{false: "%d labelled", true: "%d would be labelled"}[r.DryRun])
	add(r.Already, "%d right already")
	add(r.Resumed, "%d done by the run before")
	add(r.Skipped[relabel.Customized], "%d left as chosen by hand (customizable types)")
	add(r.Skipped[relabel.NoContext], "%d without a context in the policy")
	add(r.Vanished, "%d gone meanwhile")
	add(r.Skipped[relabel.Links], "%d NOT labelled: several names")
	add(r.Skipped[relabel.Mounted], "%d NOT labelled: mounted over")
	add(r.Skipped[relabel.Unusable], "%d NOT labelled: a line of the file contexts cannot be used")
	add(r.FailedCount(), "%d FAILED")
	seconds := max(r.Elapsed.Seconds(), 0.001)
	lines = append(lines, fmt.Sprintf("%s: %d entries in %.2f s, %.0f a second: %s", printable.Text(r.Path), r.Seen, seconds, float64(r.Seen)/seconds,
		strings.Join(parts, ", ")))
	problem := func(format string, args ...any) {
		problems = append(problems, printable.Text(r.Path)+": "+fmt.Sprintf(format, args...))
	}
	for _, f := range r.Failed {
		problem("%d failed with %s: %s", f.Count, f.Errno, f.Message)
		for _, name := range f.Paths {
			problem("  %s: %s", f.Errno, name)
		}
		if left := f.Count - int64(len(f.Paths)); left > 0 {
			problem("  and %d more", left)
		}
	}
	if n := r.Skipped[relabel.Links]; n > 0 {
		problem("%d files have several names, which may be outside of the tree, and were left alone: if nobody could make a hard link to a foreign "+
			"file in there, run it again with --trust-links", n)
	}
	if n := r.Skipped[relabel.Unusable]; n > 0 {
		problem("%d entries were left alone, because a line of the file contexts that may be meant for them cannot be used", n)
	}
	if n := r.Skipped[relabel.Mounted]; n > 0 {
		problem("%d entries have something mounted on them and were left alone", n)
	}
	if len(r.MountsBelow) > 0 {
		lines = append(lines, fmt.Sprintf("%s: not entered, because they are mounts of their own: %s", printable.Text(r.Path), strings.Join(r.MountsBelow, ", ")))
	}
	switch {
	case r.Cancelled:
		problem("broken off: not everything is labelled, and the root of the tree has not got its label: run it again to go on")
	case r.Skipped[relabel.RootLast] > 0:
		problem("the root of the tree has not got its label, for something in it failed")
	}
	return lines, problems
}

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/stages"
)

// header begins every JSON object.
type header struct {
	Command string `json:"command"`         // what was called
	Exit    int    `json:"exit"`            // the exit code
	Error   string `json:"error,omitempty"` // why it failed, one line for each problem
}

func (a *app) header() header { return header{Command: a.command, Exit: a.code} }

// answer prints v as the one JSON object of the call, and tells whether JSON was asked for.
func (a *app) answer(v any) bool {
	if !a.json {
		return false
	}
	a.answered = true
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // an answer that is a mistake of this program's
		a.complain(fmt.Errorf("cannot print JSON: %w", err))
		a.code = exitFailed
		return true
	}
	if a.listed != nil { // the object was begun with a list
		text = append(a.listed.end(), text[1:]...)
	}
	_, _ = a.stdout.Write(append(printable.JSON(text), '\n'))
	return true
}

// output is standard output. It keeps the first error, so that nobody has to ask what became of each line: run says it at the end.
type output struct {
	to io.Writer

	mu  sync.Mutex
	err error
}

// Write writes, and keeps the error.
func (o *output) Write(text []byte) (int, error) {
	n, err := o.to.Write(text)
	if err != nil {
		o.mu.Lock()
		o.err = cmp.Or(o.err, err)
		o.mu.Unlock()
	}
	return n, err
}

// caused tells whether an error is one of writing.
func (o *output) caused(err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err != nil && errors.Is(err, o.err)
}

// lost says why not all of the output is where it was to be, nil if it is or whoever read it has seen enough and gone away.
func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || errors.Is(o.err, syscall.EPIPE) {
		return nil
	}
	var file *fs.PathError
	if errors.As(o.err, &file) {
		return file.Err
	}
	return o.err
}

// terminal gives the terminal that a stream of the program is.
func terminal(w io.Writer) (f *os.File, is bool) {
	if out, ours := w.(*output); ours {
		w = out.to
	}
	f, is = w.(*os.File)
	return f, is && term.IsTerminal(int(f.Fd()))
}

// jsonList is a list in front of the fields of a call's JSON object. Its items are printed as they come, so that millions of them take
// no memory.
type jsonList struct {
	out   *bufio.Writer
	items bool
}

// list begins the JSON object of the call with a list.
func (a *app) list(key string) *jsonList {
	a.listed = &jsonList{out: bufio.NewWriterSize(a.stdout, 64<<10)}
	fmt.Fprintf(a.listed.out, "{\n  \"%s\": [", key)
	return a.listed
}

func (l *jsonList) add(item any) {
	text, err := json.Marshal(item)
	if err != nil {
		return // of a type that is all text, which cannot fail
	}
	if l.items {
		_ = l.out.WriteByte(',')
	}
	l.items = true
	_, _ = l.out.WriteString("\n    ")
	_, _ = l.out.Write(printable.JSON(text))
}

// end prints what is left and gives what closes the list, in place of the brace that begins the rest of the object.
func (l *jsonList) end() []byte {
	_ = l.out.Flush() // the answer is printed to the same place, and tells the error
	if l.items {
		return []byte("\n  ],")
	}
	return []byte("],")
}

// asRoot is the remedy where an ordinary user may not see or do something.
const asRoot = "run it as root"

// fail reports an error that ended the call, once: in JSON on standard output, else in words.
func (a *app) fail(err error) {
	a.code = exitCode(err)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && !strings.Contains(err.Error(), asRoot) {
		err = fmt.Errorf("%w: %s", err, asRoot)
	}
	if a.json && !a.answered {
		a.answer(header{Command: a.command, Exit: a.code, Error: err.Error()})
		return
	}
	a.complain(err)
}

// complain tells of an error in words, on standard error or in the journal.
func (a *app) complain(err error) {
	if logger := journal(); logger != nil {
		logger.Error(oneLine(err.Error()), "message_id", messages.Failed.ID(), "command", a.command)
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(a.stderr, "selinux-provision: %s\n", printable.Text(strings.TrimSuffix(line, "\n")))
	}
}

// journal gives a logger to the journal when systemd started this process, else nil.
func journal() *slog.Logger {
	if !systemd.JournalStream() {
		return nil
	}
	handler, err := systemd.NewJournalHandler()
	if err != nil {
		return nil
	}
	return slog.New(handler)
}

// reporter chooses who is told what happens: the journal under systemd, nobody for JSON, a person otherwise.
func (a *app) reporter() stages.Reporter {
	if a.json {
		return nil
	}
	if logger := journal(); logger != nil {
		return journalReporter{logger}
	}
	return textReporter{a.stdout, a.stderr, a.verbose}
}

// waiting tells who is waited for; nil where nobody is to be told.
func (a *app) waiting() func(holder string) {
	if r := a.reporter(); r != nil {
		return r.Waiting
	}
	return nil
}

// textReporter writes a line for each step and one for each stage.
type textReporter struct {
	out, err io.Writer
	verbose  bool
}

func (t textReporter) Waiting(holder string) {
	fmt.Fprintf(t.err, "selinux-provision: waiting for %s\n", holder)
}

func (t textReporter) Notice(stage, text string) {
	fmt.Fprintf(t.err, "%s: ! %s\n", stage, printable.Text(text))
}

func (t textReporter) Started(stage string, s plan.Step) {
	if s.Action == "rebuild" || t.verbose {
		fmt.Fprintf(t.out, "%s: %s %s, because %s ...\n", stage, s.Action, s.Target, printable.Text(s.Reason))
	}
}

func (t textReporter) Finished(stage string, d plan.Done) {
	fmt.Fprintf(t.out, "%s: %s\n", stage, stepLine(d))
}

// saysRemedy tells whether a problem is followed by its remedy: what helps against several in a row is said once, behind the last.
func saysRemedy(problems []stages.Problem, i int) bool {
	return i+1 == len(problems) || problems[i+1].Remedy != problems[i].Remedy
}

// stepLine says what was done. The reason is what was found before, so it stands before the result.
func stepLine(d plan.Done) string {
	line := d.Action + " " + d.Target
	if d.Action != "rebuild" && d.Reason != "" { // of a rebuild it was said when that began
		line += ", because " + d.Reason
	}
	line += ": " + d.Result
	if d.Elapsed.Seconds() >= 0.5 {
		line += fmt.Sprintf(" [%.1f s]", d.Elapsed.Seconds())
	}
	return printable.Text(line)
}

func (t textReporter) Result(r stages.Result) {
	switch r.Outcome {
	case stages.Planned:
		for _, s := range r.Planned {
			fmt.Fprintf(t.out, "%s: would %s %s: %s\n", r.Stage, s.Action, s.Target, printable.Text(s.Reason))
		}
	case stages.Failed, stages.Skipped:
		fmt.Fprintf(t.err, "%s: %s\n", r.Stage, oneLine(r.Error))
	default:
		fmt.Fprintf(t.out, "%s: %s\n", r.Stage, summary(r))
	}
	for i, p := range r.Problems {
		text := p.Problem
		if saysRemedy(r.Problems, i) {
			text = p.String()
		}
		fmt.Fprintf(t.err, "%s: %s\n", r.Stage, oneLine(text))
	}
}

func summary(r stages.Result) string {
	switch r.Outcome {
	case stages.Unchanged:
		if r.Stage == "check" {
			return "everything declared builds"
		}
		return "nothing to do"
	case stages.Changed:
		return "done"
	case stages.Partly:
		return fmt.Sprintf("done in part, %d to look at", len(r.Problems))
	}
	return string(r.Outcome)
}

// journalReporter writes the same to the journal, with fields.
type journalReporter struct{ log *slog.Logger }

func (j journalReporter) Waiting(holder string) {
	j.log.Info("waiting for "+holder, "message_id", messages.Waiting.ID(), "holder", holder)
}

func (j journalReporter) Notice(stage, text string) {
	j.log.Warn(stage+": "+text, "stage", stage)
}

func (j journalReporter) Started(stage string, s plan.Step) {
	if s.Action == "rebuild" {
		j.log.Info(fmt.Sprintf("%s: %s %s, because %s ...", stage, s.Action, s.Target, s.Reason), "stage", stage)
	}
}

func (j journalReporter) Finished(stage string, d plan.Done) {
	j.log.Info(stage+": "+stepLine(d), "message_id", messages.Step.ID(), "stage", stage, "action", d.Action, "target", d.Target, "reason", d.Reason, "result", d.Result)
}

func (j journalReporter) Result(r stages.Result) {
	for _, p := range r.Problems {
		j.log.Warn(r.Stage+": "+oneLine(p.String()), "message_id", messages.Partly.ID(), "stage", r.Stage, "remedy", p.Remedy)
	}
	switch r.Outcome {
	case stages.Failed, stages.Skipped:
		j.log.Error(r.Stage+": "+oneLine(r.Error), "message_id", messages.Failed.ID(), "stage", r.Stage)
	case stages.Partly:
		j.log.Warn(r.Stage+": "+summary(r), "message_id", messages.Partly.ID(), "stage", r.Stage, "outcome", string(r.Outcome))
	default:
		j.log.Info(r.Stage+": "+summary(r), "message_id", messages.Done.ID(), "stage", r.Stage, "outcome", string(r.Outcome))
	}
}

// status prints what is wrong first.
func (a *app) status(ctx context.Context) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	s, err := h.Status(ctx)
	if s == nil {
		return err
	}
	head := a.header()
	switch {
	case err != nil: // a wrong configuration; what the host is like is known
		a.code = exitCode(err)
		head = header{Command: a.command, Exit: a.code, Error: err.Error()}
	case !s.AsDeclared:
		a.code = exitPartly
		head = a.header()
	}
	if a.answer(struct {
		header
		*stages.Status
	}{head, s}) {
		return nil
	}
	printStatus(a.screen(), s, paintFor(a.stdout))
	return nil
}

func short(fingerprint string) string {
	if len(fingerprint) > 12 {
		return fingerprint[:12]
	}
	return orNone(fingerprint)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

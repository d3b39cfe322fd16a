package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/textform"
)

// follow tells of denials as they come, until somebody ends it: a person on a terminal in lines, a program at the other end of a pipe in lines of
// JSON, unless --json was given and says which.
func (a *app) follow(ctx context.Context, o *denialOptions, asked bool) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	q, closeInput, err := o.query(func(name string) (io.ReadCloser, error) { return followed(ctx, name, o) })
	if err != nil {
		return err
	}
	defer closeInput()
	if _, person := terminal(a.stdout); !person && !asked {
		a.json = true
	}
	tell := a.tellText(paintFor(a.stdout))
	if a.json {
		tell = a.tellJSON
	}
	if err = unreadable(h.Findings().Follow(ctx, q, tell)); errors.Is(err, syscall.EPIPE) { // whoever has gone away has seen enough
		return nil
	}
	if err != nil && a.json { // a line like the others
		a.code, a.answered = exitCode(err), true
		return errors.Join(err, a.line(header{Command: a.command, Exit: a.code, Error: err.Error()}))
	}
	return err
}

// followed opens an input. A file is read like the host's own log: what comes, by its name, also when it is rotated. A pipe is read to its end, and
// so is a file that nobody writes to any more, since it is compressed.
func followed(ctx context.Context, name string, o *denialOptions) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return f, err
	}
	var head [8]byte
	n, _ := f.ReadAt(head[:], 0) // what cannot be read says so at the first read
	if _, err := textform.Text(head[:n]); err != nil {
		return f, nil //nolint:nilerr // its reader unpacks it, or says what it is
	}
	f.Close()
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return nil, err
	}
	in, err := collect.Tail(ctx, root, abs, o.boot || !o.sinceTime.IsZero())
	if err != nil {
		root.Close()
		return nil, err
	}
	return closers{in, root}, nil
}

// closers is a text that has more to be closed than itself.
type closers struct {
	io.ReadCloser
	root *hostfs.Root
}

func (c closers) Close() error { return errors.Join(c.ReadCloser.Close(), c.root.Close()) }

// tellJSON tells in JSON.
func (a *app) tellJSON(t *findings.Told) error {
	return a.line(struct {
		header
		*findings.Told
	}{a.header(), t})
}

// line prints one JSON object in one line.
func (a *app) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(printable.JSON(text), '\n'))
	return err
}

// tellText prints a line for a person; on standard error what is no denial.
func (a *app) tellText(p paint) func(*findings.Told) error {
	return func(t *findings.Told) (err error) {
		switch t.Event {
		case findings.Begin:
			if _, person := terminal(a.stderr); person {
				fmt.Fprintf(a.stderr, "selinux-provision: following %s; Ctrl-C ends it\n", strings.Join(t.Report.Sources, " and "))
			}
			for _, note := range append(hidden(t.Report), t.Report.Notes...) {
				fmt.Fprintf(a.stderr, "! %s\n", printable.Text(note))
			}
		case findings.End:
			for _, note := range t.Report.Notes {
				fmt.Fprintf(a.stderr, "! %s\n", printable.Text(note))
			}
			if _, person := terminal(a.stderr); person {
				fmt.Fprintf(a.stderr, "selinux-provision: %s\n", endLine(t))
			}
		default:
			_, err = fmt.Fprintln(a.stdout, followLine(t, p, time.Now()))
		}
		return err
	}
}

func endLine(t *findings.Told) string {
	line := fmt.Sprintf("%s of %s: %d stopped something", plural(t.Count, "denial"), plural(t.Kinds, "kind"), t.Enforced)
	if t.Count == 0 {
		line = "no denials"
	}
	if t.Others > 0 {
		line += fmt.Sprintf(", but %d that these flags leave out", t.Others)
	}
	return line
}

// followLine is one denial in one line: when, which, how bad, who, what, and what helps.
func followLine(t *findings.Told, p paint, now time.Time) string {
	f := t.Finding
	line := []string{p(dim, shortClock(t.Time, now)), f.ID}
	act := fmt.Sprintf("%s: %s on %s", who(f), what(f), onWhat(f))
	if t.Event == findings.Repeats {
		return strings.Join(append(line, p(dim, fmt.Sprintf("again %s  %s", plural(t.Count, "time"), act))), "  ")
	}
	switch {
	case t.Enforced > 0:
		line = append(line, p(bad, "stopped "))
	case f.Permissive > 0:
		line = append(line, p(busy, "reported"))
	default:
		line = append(line, "logged  ")
	}
	fix := string(f.Fix.Kind) + ": " + f.Fix.Text
	if f.Fix.Command != "" {
		fix += ": " + f.Fix.Command
	}
	return strings.Join(append(line, act, p(good, printable.Text(fix))), "  ")
}

// shortClock leaves the date out where it is today's.
func shortClock(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if t, now = t.Local(), now.Local(); t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

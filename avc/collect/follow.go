package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// moment is how long what is written at once may take to come: the records of one event, by all ways.
const moment = 250 * time.Millisecond

// forEver is the limit of a tool that is not to end.
const forEver = math.MaxInt64

// from gives the time before which nothing is asked for.
func (q *Query) from() time.Time {
	if q.Boot && q.Booted.After(q.Since) {
		return q.Booted
	}
	return q.Since
}

// fromNowOn tells whether nothing is asked for that was there before.
func (q *Query) fromNowOn() bool { return q.Since.IsZero() && !q.Boot }

// Follow calls each with every denial that comes into the host's journal and audit log, from the query's beginning on or, if it has none, from
// now on, and moment now and then when there is none. Logs may be rotated meanwhile. It ends when ctx does, which is no error, when one of
// the two gives an error, and when a log cannot be read any more. What is followed is told first.
func (h *Host) Follow(ctx context.Context, q Query, begin func(sources []string) error, each func(*avc.Denial) error, quiet func() error) (avc.Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		sources []string
		l       = newLive(ctx)
	)
	defer l.wait()
	defer cancel()
	log, err := openTail(ctx, h.Root, auditLog, &q)
	if err != nil {
		return avc.Stats{}, fmt.Errorf("cannot follow the audit log: %w", err)
	}
	defer func() { _ = log.Close() }()
	argv, hasJournal := h.journalctl(q, true)
	hasLog := h.Root.Exists(auditLog) && (!q.Boot || !q.Booted.IsZero())
	if hasJournal {
		sources = append(sources, "the journal")
		tools := h.Tools
		tools.Limit = forEver
		l.add(func(s *stream) error {
			_, err := tools.Stream(ctx, func(in io.Reader) error { return s.read(ctx, inMoments(ctx, in)) }, argv...)
			switch {
			case errors.Is(err, command.ErrMissing) && hasLog:
				return nil
			case err == nil && ctx.Err() == nil:
				err = errors.New("journalctl has ended by itself")
			}
			if err != nil {
				err = fmt.Errorf("cannot follow the journal: %w", err)
			}
			return err
		})
	}
	if hasLog {
		sources = append(sources, auditLog)
		l.add(func(s *stream) error { return s.read(ctx, log) })
	}
	if len(sources) == 0 {
		return avc.Stats{}, fmt.Errorf("cannot follow denials: %w: give a file with --input", ErrNoRecords)
	}
	if err := begin(sources); err != nil {
		return avc.Stats{}, err
	}
	return l.denials(q, each, quiet)
}

// FollowInput is Follow for a text that somebody else is writing: a pipe, or what Tail gives. It ends with the text, too.
func FollowInput(ctx context.Context, q Query, in io.Reader, each func(*avc.Denial) error, quiet func() error) (avc.Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := newLive(ctx)
	defer l.wait()
	defer cancel()
	l.add(func(s *stream) error { return s.read(ctx, inMoments(ctx, in)) })
	return l.denials(q, each, quiet)
}

// live merges what is read of logs that are being written. It is an avc.Source.
type live struct {
	ctx     context.Context // of the one call that it lives for
	streams []*stream
	told    time.Time // when ErrQuiet was given last
	running sync.WaitGroup
}

// stream is one log.
type stream struct {
	arrivals chan arrival
	next     avc.Record
	loaded   bool // next is the next record
	quiet    bool // nothing had come a moment ago
	ended    bool
	loss     avc.Loss
}

type arrival struct {
	record avc.Record
	err    error
	loss   avc.Loss
}

func newLive(ctx context.Context) *live { return &live{ctx: ctx, told: time.Now()} }

// add begins to read a log.
func (l *live) add(read func(*stream) error) {
	s := &stream{arrivals: make(chan arrival)}
	l.streams = append(l.streams, s)
	l.running.Go(func() {
		err := read(s)
		if err == nil {
			err = io.EOF
		}
		s.send(l.ctx, arrival{err: err})
	})
}

// wait waits until nobody reads any more. The context has to be at its end.
func (l *live) wait() { l.running.Wait() }

func (s *stream) send(ctx context.Context, a arrival) bool {
	select {
	case s.arrivals <- a:
		return true
	case <-ctx.Done():
		return false
	}
}

// read decodes a text until its end.
func (s *stream) read(ctx context.Context, in io.Reader) error {
	decoder := avc.NewDecoder(in)
	for ctx.Err() == nil {
		record, err := decoder.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, avc.ErrQuiet) {
			return fmt.Errorf("cannot read records: %w", err)
		}
		if !s.send(ctx, arrival{record, err, decoder.Loss()}) {
			return nil
		}
	}
	return nil
}

func (s *stream) take(a arrival) error {
	switch {
	case a.err == nil:
		s.next, s.loaded, s.quiet = a.record, true, false
	case errors.Is(a.err, avc.ErrQuiet):
		s.quiet = true
	case errors.Is(a.err, io.EOF):
		s.ended = true
		return nil
	default:
		return a.err
	}
	s.loss = a.loss
	return nil
}

// Next gives the oldest record that is there. Of a log that is being written nobody knows what comes: it is waited for a moment.
func (l *live) Next() (avc.Record, error) {
	if now := time.Now(); now.Sub(l.told) >= moment {
		l.told = now
		return avc.Record{}, avc.ErrQuiet
	}
	for {
		waiting := 0
		for _, s := range l.streams {
			if s.loaded || s.ended {
				continue
			}
			if s.quiet {
				select {
				case a := <-s.arrivals:
					if err := s.take(a); err != nil {
						return avc.Record{}, err
					}
				default:
					waiting++
				}
				continue
			}
			select {
			case a := <-s.arrivals:
				if err := s.take(a); err != nil {
					return avc.Record{}, err
				}
			case <-l.ctx.Done():
				return avc.Record{}, io.EOF
			}
			if s.quiet {
				waiting++
			}
		}
		if s := l.oldest(); s != nil {
			s.loaded = false
			return s.next, nil
		}
		switch {
		case l.ctx.Err() != nil || !slices.ContainsFunc(l.streams, func(s *stream) bool { return !s.ended }):
			return avc.Record{}, io.EOF
		case waiting > 0:
			if err := l.sleep(); err != nil {
				return avc.Record{}, err
			}
			if time.Since(l.told) >= moment {
				l.told = time.Now()
				return avc.Record{}, avc.ErrQuiet
			}
		}
	}
}

// sleep waits until something comes, at most a moment.
func (l *live) sleep() error {
	timer := time.NewTimer(moment)
	defer timer.Stop()
	var first, second chan arrival // there are never more
	open := slices.DeleteFunc(slices.Clone(l.streams), func(s *stream) bool { return s.ended })
	first = open[0].arrivals
	if len(open) > 1 {
		second = open[1].arrivals
	}
	select {
	case a := <-first:
		return open[0].take(a)
	case a := <-second:
		return open[1].take(a)
	case <-timer.C:
	case <-l.ctx.Done():
	}
	return nil
}

func (l *live) oldest() (oldest *stream) {
	for _, s := range l.streams {
		if s.loaded && (oldest == nil || s.next.Time.Before(oldest.next.Time)) {
			oldest = s
		}
	}
	return oldest
}

// Loss says what was missing up to now.
func (l *live) Loss() (all avc.Loss) {
	for _, s := range l.streams {
		all.Kernel += s.loss.Kernel
		all.Suppressed += s.loss.Suppressed
		all.Overlong += s.loss.Overlong
		all.Malformed += s.loss.Malformed
		if all.Unread == "" {
			all.Unread = s.loss.Unread
		}
	}
	return all
}

// denials reads to the end.
func (l *live) denials(q Query, each func(*avc.Denial) error, quiet func() error) (avc.Stats, error) {
	reader := avc.NewReader(l)
	for {
		d, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			return reader.Stats(), nil
		case errors.Is(err, avc.ErrQuiet):
			err = quiet()
		case err == nil && q.has(d):
			err = each(d)
		}
		if err != nil {
			return reader.Stats(), err
		}
	}
}

// moments reads what comes through a pipe, and says so when nothing does.
type moments struct {
	ctx    context.Context // of the one call that it lives for
	chunks chan chunk
	rest   []byte
	err    error
}

type chunk struct {
	text []byte
	err  error
}

// inMoments gives a text that is ErrQuiet when nothing has come for a moment. The goroutine that reads stays behind in a read that never
// ends: nobody can break off one of standard input.
func inMoments(ctx context.Context, in io.Reader) io.Reader {
	m := &moments{ctx: ctx, chunks: make(chan chunk)}
	go func() {
		for {
			text := make([]byte, 64<<10)
			n, err := in.Read(text)
			if n == 0 && errors.Is(err, avc.ErrQuiet) {
				continue
			}
			select {
			case m.chunks <- chunk{text[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return m
}

// Read is that of io.Reader.
func (m *moments) Read(p []byte) (int, error) {
	if len(m.rest) == 0 && m.err == nil {
		timer := time.NewTimer(moment)
		defer timer.Stop()
		select {
		case c := <-m.chunks:
			m.rest, m.err = c.text, c.err
		case <-timer.C:
			return 0, avc.ErrQuiet
		case <-m.ctx.Done():
			return 0, io.EOF
		}
	}
	n := copy(p, m.rest)
	if m.rest = m.rest[n:]; n == 0 {
		return 0, m.err
	}
	return n, nil
}

// tail reads a file that is being written, on and on. It follows the name: when the file was rotated away it is read to its end, then the
// one that came after it. A file that became shorter is read anew.
type tail struct {
	ctx     context.Context // of the one call that it lives for
	root    *hostfs.Root
	name    string
	file    *os.File // nil: there is none yet
	leaving bool     // another one has the name; whoever writes may not know it yet
}

// Tail gives a text that ends only with ctx: what is in the file of a name, from its beginning or from its end of now, and what will be.
func Tail(ctx context.Context, root *hostfs.Root, name string, whole bool) (io.ReadCloser, error) {
	t := &tail{ctx: ctx, root: root, name: name}
	var err error
	if t.file, err = root.OpenFile(name); err != nil {
		return nil, err
	}
	if !whole {
		if _, err := t.file.Seek(0, io.SeekEnd); err != nil {
			t.file.Close()
			return nil, err
		}
	}
	return t, nil
}

// openTail opens a log as a query wants it: with the files that were rotated away, if what was before is asked for.
func openTail(ctx context.Context, root *hostfs.Root, log string, q *Query) (*tail, error) {
	t := &tail{ctx: ctx, root: root, name: log}
	names, err := generations(root, log, q.from())
	if err != nil || len(names) == 0 {
		return t, err
	}
	name := names[0]
	if q.fromNowOn() {
		name = names[len(names)-1]
	}
	if t.file, err = root.OpenFile(name); err != nil {
		return nil, err
	}
	if q.fromNowOn() && name == log {
		_, err = t.file.Seek(0, io.SeekEnd)
	}
	return t, err
}

// Close closes the file that is read at the moment.
func (t *tail) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// Read is that of io.Reader.
func (t *tail) Read(p []byte) (int, error) {
	for {
		if t.ctx.Err() != nil {
			return 0, io.EOF
		}
		if t.file != nil {
			if n, err := t.file.Read(p); n > 0 || err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		more, err := t.turn()
		if err != nil {
			return 0, err
		}
		if more {
			continue
		}
		timer := time.NewTimer(moment)
		select {
		case <-timer.C:
			return 0, avc.ErrQuiet
		case <-t.ctx.Done():
			timer.Stop()
		}
	}
}

// turn goes on at the end of a file, and tells whether there is more to read.
func (t *tail) turn() (more bool, err error) {
	latest, err := t.root.Stat(t.name)
	if hostfs.NoFile(err) {
		return false, nil // it is being rotated, or is not there yet
	}
	if err != nil {
		return false, err
	}
	if t.file == nil {
		return t.open(t.name)
	}
	info, err := t.file.Stat()
	if err != nil {
		return false, err
	}
	if same(info, latest) {
		t.leaving = false
		if at, err := t.file.Seek(0, io.SeekCurrent); err != nil || at <= latest.Size {
			return at < latest.Size, err
		}
		_, err = t.file.Seek(0, io.SeekStart)
		return true, err
	}
	if !t.leaving {
		t.leaving = true
		return false, nil
	}
	names, err := generations(t.root, t.name, time.Time{})
	if err != nil {
		return false, err
	}
	next := t.name
	if at := slices.IndexFunc(names, func(name string) bool {
		other, err := t.root.Stat(name)
		return err == nil && same(info, other)
	}); at >= 0 && at+1 < len(names) {
		next = names[at+1]
	}
	t.leaving = false
	return t.open(next)
}

// same tells whether two looks were at the same file.
func same(open fs.FileInfo, named hostfs.Info) bool {
	st, ok := open.Sys().(*syscall.Stat_t)
	return ok && uint64(st.Dev) == named.Dev && st.Ino == named.Ino
}

func (t *tail) open(name string) (bool, error) {
	f, err := t.root.OpenFile(name)
	if hostfs.NoFile(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_ = t.Close()
	t.file = f
	return true, nil
}

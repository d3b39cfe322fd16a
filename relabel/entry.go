package relabel

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// handle is what is labelled by an open handle: a directory, or with pinned whatever an O_PATH handle is.
type handle struct {
	fd     int
	pinned bool
}

func (w *worker) get(h handle, value []byte) (int, unix.Errno) {
	if h.pinned {
		return w.sys.getPinned(h.fd, value)
	}
	return w.sys.getOpen(h.fd, value)
}

func (w *worker) set(h handle, value []byte) unix.Errno {
	if h.pinned {
		return w.sys.setPinned(h.fd, value, 0)
	}
	return w.sys.setOpen(h.fd, value, 0)
}

// byHandle labels the entry of a directory that a handle is, and reads the label back; it tells whether there was nothing to write. allowed
// is asked before it is written.
func (w *worker) byHandle(n *node, name string, kind Kind, h handle, allowed func() Reason) (was bool) {
	got, errno := w.get(h, w.value[:secontext.MaxSize])
	want, outcome := w.judge(n, name, kind, got, errno)
	if outcome != write {
		return true
	}
	if allowed != nil {
		if leave := allowed(); leave != "" {
			w.skip(n, leave)
			return false
		}
	}
	errno = 0
	if !w.run.options.DryRun {
		if errno = w.set(h, want); errno == 0 {
			errno = w.kept(h, want)
		}
	} else if w.run.measured != nil {
		var st unix.Stat_t
		if w.sys.statOpen(h.fd, &st) == 0 {
			w.run.measured(&st)
		}
	}
	w.written(n, name, got, want, errno)
	return false
}

// kept reads a label back.
func (w *worker) kept(h handle, want []byte) unix.Errno {
	back := w.value[secontext.MaxSize:] // the first half may hold the label that was there
	n, errno := w.get(h, back)
	if errno == 0 && !same(back[:n], want) {
		return errNotKept
	}
	return errno
}

// entry labels one entry of the current directory that is no directory, by its bare name.
func (w *worker) entry(n *node, name []byte, kind Kind) {
	first := &name[0]
	if w.create && w.run.creates {
		switch errno := w.sys.set(first, w.run.fixed, unix.XATTR_CREATE); errno {
		case 0:
			w.evidence(true)
			w.writtenName(n, name, 0, w.run.fixed, 0)
			return
		case unix.ENOENT:
			w.count(n, &w.counts.vanished)
			return
		case unix.EEXIST:
			w.evidence(false)
		default:
			w.failed(n, name, errno)
			return
		}
	}
	if w.run.bare && w.mounted(first) { // its label is that of what is mounted there
		w.skip(n, Mounted)
		return
	}
	if w.run.opens && w.differs && kind == Regular && w.entryOpened(n, name) {
		return
	}
	got, errno := w.sys.get(first, w.value[:secontext.MaxSize])
	want, outcome := w.judgeName(n, name, kind, got, errno)
	w.learn(outcome == write)
	if outcome != write {
		return
	}
	// A kernel with SELinux makes a label up where there is none.
	w.evidence(errno == unix.ENODATA || bytes.Contains(w.value[:max(got, 0)], []byte(":unlabeled_t")))
	switch {
	case w.run.pinned:
		var leave Reason
		if errno, leave = w.setSingle(first, kind, want); leave != "" {
			w.skip(n, leave)
			return
		}
	case w.run.options.DryRun:
		errno = 0
	default:
		errno = w.sys.set(first, want, 0)
	}
	if measured := w.run.measured; measured != nil && errno == 0 {
		var st unix.Stat_t
		if w.sys.stat(first, &st) == 0 {
			measured(&st)
		}
	}
	w.writtenName(n, name, got, want, errno)
}

// evidence learns from one entry whether the next ones are likely to have no label. Making one where there is none, and failing where there
// is, takes one call instead of two and never writes what is right.
func (w *worker) evidence(absent bool) {
	w.history <<= 1
	if absent {
		w.history |= 1
	}
	w.create = w.history&0xff == 0xff
}

// learn learns from one entry whether the next ones are likely to have another label: then they are opened before they are looked at.
func (w *worker) learn(different bool) {
	w.recent <<= 1
	if different {
		w.recent |= 1
	}
	w.differs = w.recent&0xff == 0xff
}

type outcome uint8

const (
	counted outcome = iota
	write
)

// judgeName is judge for a name that ends with NUL.
func (w *worker) judgeName(n *node, name []byte, kind Kind, got int, errno unix.Errno) ([]byte, outcome) {
	if w.run.fixed != nil && errno == 0 && same(w.value[:got], w.run.fixed) {
		w.evidence(false)
		w.count(n, &w.counts.already)
		return nil, counted
	}
	if w.run.fixed != nil && (errno == unix.ENODATA || errno == 0) {
		return w.run.fixed, write
	}
	if kind == Unknown && w.run.fixed == nil {
		var st unix.Stat_t
		if failed := w.sys.stat(&name[0], &st); failed == 0 {
			kind = kindOf(st.Mode)
		} else if errno == 0 {
			errno = failed
		}
	}
	return w.judge(n, string(name[:len(name)-1]), kind, got, errno)
}

// judge counts an entry whose label was read, unless it is to be written.
func (w *worker) judge(n *node, name string, kind Kind, got int, errno unix.Errno) ([]byte, outcome) {
	current := ""
	switch errno {
	case 0:
		current = string(bytes.TrimRight(w.value[:got], "\x00"))
	case unix.ENODATA:
	case unix.ERANGE: // longer than any label: it is none
		current = "?"
	case unix.ENOENT:
		w.count(n, &w.counts.vanished)
		return nil, counted
	default:
		w.entryFailed(n, name, errno)
		return nil, counted
	}
	want := w.run.fixed
	if want == nil {
		context, leave := w.wanted(n, name, kind, current)
		if leave != "" {
			w.skip(n, leave)
			return nil, counted
		}
		want = append([]byte(context), 0)
	}
	if errno == 0 && same(w.value[:got], want) {
		w.count(n, &w.counts.already)
		return nil, counted
	}
	return want, write
}

// wanted asks for the label of an entry, where it depends on the entry.
func (w *worker) wanted(n *node, name string, kind Kind, current string) (string, Reason) {
	if in := w.run.inside(n); in != nil {
		return in.Want(name, kind, current)
	}
	return w.run.options.Labels.Want(w.path(n, name), kind, current)
}

// same compares a label as the disk has it, with or without the NUL that the tools write, with one that ends with NUL.
func same(got, want []byte) bool {
	return bytes.Equal(got, want) || bytes.Equal(got, want[:len(want)-1])
}

func (w *worker) writtenName(n *node, name []byte, got int, want []byte, errno unix.Errno) {
	if errno == 0 && w.run.options.Changed == nil {
		w.count(n, &w.counts.set)
		return
	}
	w.written(n, string(name[:len(name)-1]), got, want, errno)
}

func (w *worker) written(n *node, name string, got int, want []byte, errno unix.Errno) {
	switch errno {
	case 0:
		w.count(n, &w.counts.set)
		if w.run.options.Changed != nil {
			from := ""
			if got > 0 {
				from = string(bytes.TrimRight(w.value[:got], "\x00"))
			}
			w.run.changed(Change{Path: w.path(n, name), From: from, To: string(bytes.TrimRight(want, "\x00"))})
		}
	case unix.ENOENT:
		w.count(n, &w.counts.vanished)
	default:
		w.entryFailed(n, name, errno)
	}
}

func kindOf(mode uint32) Kind { return Kind(mode & unix.S_IFMT >> 12) }

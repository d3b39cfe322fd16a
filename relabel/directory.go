package relabel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	listBuffer  = 64 << 10 // bytes of directory entries that are read at once
	smallBuffer = 1 << 10  // the same where too much waits already
	leastEntry  = 24       // bytes of one entry
	shareable   = 8        // entries below which a part of a directory is not worth handing over
)

// batch is a buffer of directory entries as getdents64(2) gives them, which several workers may be reading.
type batch struct {
	data []byte
	refs atomic.Int32
}

// enter opens a directory, labels it by its handle and reads it.
func (w *worker) enter(n *node) {
	r := w.run
	if !w.open(n) {
		r.ended(n.parent)
		return
	}
	// A directory has one name: what the handle is, is in the tree. It has its label before its entries are listed: what somebody makes in it
	// from then on gets that label, and what was made before is in the list.
	was := w.labelDirectory(n)
	if r.record != nil {
		n.open.Store(1)
		if entries, done := r.record.known(n, n.fd); done && was {
			w.counts.seen.Add(entries)
			w.counts.resumed.Add(entries)
			n.seen.Add(entries)
			r.drop(n)
			r.ended(n)
			return
		}
	}
	w.pace(1)
	w.list(n)
}

// labelDirectory labels an open directory, and tells whether there was nothing to write.
func (w *worker) labelDirectory(n *node) (was bool) {
	m := &w.run.moving
	if !m.watches {
		return w.byHandle(n.parent, n.name, Directory, handle{fd: n.fd}, nil)
	}
	var before unix.Stat_t
	listed := n.ino
	if w.sys.statOpen(n.fd, &before) != 0 {
		m.changed.Store(true) // it cannot be told
	}
	was = w.byHandle(n.parent, n.name, Directory, handle{fd: n.fd}, nil)
	after := before
	if !was && w.sys.statOpen(n.fd, &after) != 0 {
		m.changed.Store(true)
	}
	m.entered(n, listed, &before, &after)
	return was
}

// open gives a directory its handle, and the one above up, which was needed for that. What cannot be opened is counted here.
func (w *worker) open(n *node) bool {
	r, above := w.run, n.parent
	if n.depth > r.target.limit.depth {
		w.entryFailed(above, n.name, errTooDeep)
		r.drop(above)
		return false
	}
	at, errno := r.hold(above)
	if errno != 0 {
		w.entryFailed(above, n.name, errno)
		r.drop(above)
		return false
	}
	defer r.release(above, true)
	fd, errno := w.sys.openDirectory(at, n.name)
	switch errno {
	case 0:
		r.handles.Add(1)
		n.fd, n.uses = fd, 1
		return true
	case unix.ENOENT:
		w.count(above, &w.counts.vanished)
		w.run.moving.vanished(n, w.run.target.named)
	case unix.EXDEV:
		w.skip(above, Mounted)
	case unix.ENOTDIR, unix.ELOOP:
		// It was a directory when its name was read and is something else now.
		if errno := w.chdir(above, at); errno != 0 {
			w.entryFailed(above, n.name, errno)
			break
		}
		w.entry(above, append([]byte(n.name), 0), Unknown)
	default:
		w.entryFailed(above, n.name, errno)
	}
	return false
}

// list reads a directory: what is no directory is labelled at once, directories wait for their turn.
func (w *worker) list(n *node) {
	r := w.run
	fd, errno := r.hold(n)
	if errno != 0 {
		w.listFailed(n, errno)
		r.drop(n)
		r.ended(n)
		return
	}
	b := r.getBatch()
	for !r.stopped.Load() {
		got, small, errno := w.read(fd, b)
		if errno != 0 {
			w.listFailed(n, errno)
			break
		}
		if got == 0 {
			break
		}
		before := len(w.own)
		others := w.sort(n, fd, b, got)
		directories := len(w.own) - before
		if r.record != nil && (directories > 0 || got >= recordWorth*leastEntry || small) {
			n.remember(fd)
		}
		// The listing goes on after the directories where they are many, so that few wait at any time. Few are not worth a task.
		later := directories >= shareable*8 || directories > 0 && small
		w.begin(n, before, later)
		if others > 0 {
			w.files(n, b, 0, got)
			if b.refs.Load() > 1 { // others are still reading it
				r.putBatch(b)
				b = r.getBatch()
			}
		}
		if later {
			r.release(n, false) // the task that goes on with the listing keeps the need
			r.putBatch(b)
			return
		}
	}
	r.putBatch(b)
	r.release(n, true)
	r.ended(n)
}

// read reads entries into a batch: a few at a time where much waits.
func (w *worker) read(fd int, b *batch) (got int, small bool, errno unix.Errno) {
	size := len(b.data)
	if w.run.queue.pending.Load() > w.run.target.limit.tasks {
		size = smallBuffer
	}
	got, errno = w.sys.list(fd, b.data[:size])
	if errno == unix.EINVAL && size == smallBuffer { // a file system that wants more room for a name
		got, errno = w.sys.list(fd, b.data)
	}
	if errno == unix.ENOENT { // the directory was removed meanwhile
		return 0, false, 0
	}
	return got, size < len(b.data), errno
}

// sort makes the directories of a batch the worker's own tasks, and counts the others.
func (w *worker) sort(n *node, fd int, b *batch, got int) (others int) {
	for at := 0; at < got; {
		name, kind, next := entryAt(b.data, at)
		if next > got || next <= at {
			break // not what getdents64 gives
		}
		if kind == Unknown && !isDots(name) {
			kind = w.kind(n, fd, name)
			b.data[at+18] = byte(kind) // for who labels the files
		}
		switch {
		case isDots(name):
		case kind == Directory:
			w.run.moving.met(inodeAt(b.data, at))
			w.own = append(w.own, task{kind: enter, node: n.directory(string(name[:len(name)-1]), inodeAt(b.data, at))})
		default:
			others++
		}
		at = next
	}
	return others
}

// begin makes tasks count that were just found, the worker's own from before on: directories, and with later the rest of their listing,
// which comes after them.
func (w *worker) begin(n *node, before int, later bool) {
	directories := len(w.own) - before
	if directories == 0 {
		return
	}
	// Inodes and the blocks of directories are on the disk in the order of the inodes' numbers, more or less, and read ahead in that
	// order; the last in is the first out.
	slices.SortFunc(w.own[before:], func(a, b task) int { return cmp.Compare(b.node.ino, a.node.ino) })
	if later {
		w.own = slices.Insert(w.own, before, task{kind: list, node: n})
	}
	n.need(directories)
	w.run.begun(n, int64(directories))
	w.run.queue.pending.Add(int64(len(w.own) - before))
	w.share()
}

// kind finds out what an entry is where the listing does not tell, as that of an ext4 without the feature filetype. What it cannot find
// out counts as a directory: to enter one shows whether it is, and why not.
func (w *worker) kind(n *node, fd int, name []byte) Kind {
	var st unix.Stat_t
	errno := w.chdir(n, fd)
	if errno == 0 {
		errno = w.sys.stat(&name[0], &st)
	}
	switch errno {
	case 0:
		return kindOf(st.Mode)
	case unix.ENOENT:
		return Unknown // it has vanished, and is counted when it is its turn
	}
	return Directory
}

// files labels the entries of a part of a batch that are no directories. Half of what is left is handed over whenever somebody waits.
func (w *worker) files(n *node, b *batch, start, end int) {
	r := w.run
	if w.cwd != n {
		fd, errno := r.hold(n)
		if errno == 0 {
			errno = w.chdir(n, fd)
			r.release(n, false)
		}
		if errno != 0 {
			w.partFailed(n, b, start, end, errno)
			return
		}
	}
	for at := start; at < end; {
		if r.queue.idle.Load() > 0 {
			if middle := half(b.data, at, end); middle > 0 {
				w.handOver(n, b, middle, end)
				end = middle
			}
		}
		name, kind, next := entryAt(b.data, at)
		if next > end || next <= at {
			return
		}
		at = next
		if kind == Directory || isDots(name) {
			continue
		}
		if r.stopped.Load() {
			return
		}
		w.entry(n, name, kind)
		if r.limits.any {
			w.pace(1)
		}
	}
}

// half gives where the second half of some entries begins, 0 if they are too few.
func half(data []byte, start, end int) int {
	if end-start < shareable*24 {
		return 0
	}
	middle := start + (end-start)/2
	for at := start; at < end; {
		if at >= middle {
			return at
		}
		length := int(binary.NativeEndian.Uint16(data[at+16:]))
		if length == 0 {
			return 0
		}
		at += length
	}
	return 0
}

func (w *worker) handOver(n *node, b *batch, start, end int) {
	b.refs.Add(1)
	n.need(1)
	w.run.begun(n, 1)
	w.run.queue.pending.Add(1)
	w.run.queue.add(task{kind: label, node: n, batch: b, start: start, end: end})
}

// entryAt reads one struct linux_dirent64 (getdents(2)): inode 8 bytes, offset 8, length 2, type 1, then the name with a NUL.
func entryAt(data []byte, at int) (name []byte, kind Kind, next int) {
	if at+19 >= len(data) {
		return nil, 0, -1
	}
	next = at + int(binary.NativeEndian.Uint16(data[at+16:]))
	if next > len(data) || next < at+20 {
		return nil, 0, -1
	}
	name = data[at+19 : next]
	zero := bytes.IndexByte(name, 0)
	if zero < 0 {
		return nil, 0, -1
	}
	return name[:zero+1], Kind(data[at+18]), next
}

func inodeAt(data []byte, at int) uint64 { return binary.NativeEndian.Uint64(data[at:]) }

func isDots(name []byte) bool {
	return len(name) == 2 && name[0] == '.' || len(name) == 3 && name[0] == '.' && name[1] == '.'
}

// chdir makes bare names mean the entries of a directory.
func (w *worker) chdir(n *node, fd int) unix.Errno {
	if w.cwd == n {
		return 0
	}
	errno := w.sys.chdir(fd)
	if errno == 0 {
		w.cwd = n
	}
	return errno
}

// listFailed counts a directory whose entries could not be read: what is in it is not known, and is one failure.
func (w *worker) listFailed(n *node, errno unix.Errno) {
	w.count(n, &w.counts.failed)
	n.bad.Store(true)
	w.run.fail(errno, func() string { return n.path(w.run.target.named) + "/" })
}

// partFailed counts entries that were read and cannot be reached any more.
func (w *worker) partFailed(n *node, b *batch, start, end int, errno unix.Errno) {
	for at := start; at < end; {
		name, kind, next := entryAt(b.data, at)
		if next <= at || next > end {
			return
		}
		if kind != Directory && !isDots(name) {
			w.failed(n, name, errno)
		}
		at = next
	}
}

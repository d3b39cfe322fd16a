package relabel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

const (
	listBuffer  = 64 << 10 // bytes of directory entries that are read at once
	smallBuffer = 1 << 10  // the same where too much waits already
	leastEntry  = 24       // bytes of one entry
	shareable   = 8        // entries below which a part of a directory is not worth handing over
)

// task is what a worker takes: a directory to enter, one whose listing goes on, or a part of the entries of one.
type task struct {
	kind  taskKind
	node  *node
	batch *batch
	start int // of the part in the batch's entries
	end   int
}

type taskKind uint8

const (
	enter taskKind = iota
	list
	label
)

// batch is a buffer of directory entries as getdents64(2) gives them, which several workers may be reading.
type batch struct {
	data []byte
	refs atomic.Int32
}

// queue holds what is to do and is not in a worker's own hands. The last in is the first out, so that the tree is walked depth first and
// what waits stays little.
type queue struct {
	mu      sync.Mutex
	wake    sync.Cond // there is a task
	rest    sync.Cond // more workers may work
	tasks   []task
	idle    atomic.Int32 // workers that wait for a task, and are not woken yet
	pending atomic.Int64 // tasks that are not done, in the queue or in hands
	active  atomic.Int32 // how many workers may work; the others sleep
	ended   bool
}

func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.idle.Store(0)
	q.wake.Broadcast()
	q.rest.Broadcast()
	q.mu.Unlock()
}

// add puts tasks into the queue and wakes as many as there are for.
func (q *queue) add(tasks ...task) {
	q.mu.Lock()
	q.tasks = append(q.tasks, tasks...)
	woken := min(len(tasks), int(q.idle.Load()))
	q.idle.Add(int32(-woken))
	for range woken {
		q.wake.Signal()
	}
	q.mu.Unlock()
}

// worker has a thread of its own, whose current directory is its own too.
type worker struct {
	run *run
	id  int
	sys system
	own []task

	value  []byte // for labels that are read
	counts counts
	cwd    *node // whose entries bare names mean now

	create  bool // files have no label, it seems: try to make one without looking first
	history uint32

	dirPath     string // of cwd, where the label depends on it
	dirPathNode *node
	paced       int
}

// counts are a worker's own; others read them.
type counts struct {
	seen, already, set, vanished, resumed atomic.Int64
	failed                                atomic.Int64
	_                                     [64]byte // the next worker's are on another line of the cache
}

func (w *worker) work() {
	// The thread is not given back: its current directory is not the process's any more, and it ends with this goroutine.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		w.run.fatal(err)
		return
	}
	// The thread ends with the goroutine that is locked to it, but for the main thread of a process, which Go only parks (runtime/proc.go,
	// mexit). Its directory would keep the file system, and the device below, for ever.
	defer func() { _ = unix.Chdir("/") }()
	w.run.limits.enter()
	for {
		t, ok := w.next()
		if !ok {
			return
		}
		w.do(t)
		if w.run.queue.pending.Add(-1) == 0 {
			w.run.queue.end()
		}
	}
}

// next gives the worker's own last task, else one of the queue; it waits while there is none, or too many work.
func (w *worker) next() (task, bool) {
	q := &w.run.queue
	if n := len(w.own); n > 0 && w.mayWork() {
		t := w.own[n-1]
		w.own = w.own[:n-1]
		return t, true
	}
	if len(w.own) > 0 {
		q.add(w.own...)
		clear(w.own)
		w.own = w.own[:0]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch n := len(q.tasks); {
		case q.ended:
			return task{}, false
		case !w.mayWork():
			q.rest.Wait()
		case n > 0:
			t := q.tasks[n-1]
			q.tasks[n-1] = task{}
			q.tasks = q.tasks[:n-1]
			return t, true
		default:
			q.idle.Add(1)
			q.wake.Wait() // who wakes it takes it off the count, so that nobody has it in mind twice
		}
	}
}

func (w *worker) mayWork() bool { return int32(w.id) < w.run.queue.active.Load() }

// share hands half of the worker's own tasks to those that wait, those that were there first: they are nearest to the root, and have
// the most below them.
func (w *worker) share() {
	if len(w.own) < 2 || w.run.queue.idle.Load() == 0 {
		return
	}
	half := len(w.own) / 2
	w.run.queue.add(w.own[:half]...)
	rest := copy(w.own, w.own[half:])
	clear(w.own[rest:])
	w.own = w.own[:rest]
}

func (w *worker) do(t task) {
	if w.run.stopped.Load() {
		return
	}
	switch t.kind {
	case enter:
		w.enter(t.node)
	case list:
		w.list(t.node)
	case label:
		w.files(t.node, t.batch, t.start, t.end)
		w.run.drop(t.node)
		w.run.putBatch(t.batch)
		w.run.ended(t.node)
	}
}

// enter opens a directory, labels it by its handle and reads it.
func (w *worker) enter(n *node) {
	r := w.run
	if n.depth > r.target.limit.depth {
		w.entryFailed(n.parent, n.name, errTooDeep)
		r.drop(n.parent)
		r.ended(n.parent)
		return
	}
	dir, errno := r.hold(n.parent)
	if errno != 0 {
		w.entryFailed(n.parent, n.name, errno)
		r.drop(n.parent)
		r.ended(n.parent)
		return
	}
	fd, errno := w.sys.openDirectory(dir, n.name)
	if errno == unix.ENOTDIR || errno == unix.ELOOP {
		// It was a directory when its name was read and is something else now.
		if errno := w.chdir(n.parent, dir); errno == 0 {
			w.entry(n.parent, append([]byte(n.name), 0), Unknown)
		} else {
			w.entryFailed(n.parent, n.name, errno)
		}
		r.release(n.parent, true)
		r.ended(n.parent)
		return
	}
	r.release(n.parent, true)
	if errno != 0 {
		switch errno {
		case unix.ENOENT:
			w.count(n.parent, &w.counts.vanished)
		case unix.EXDEV:
			w.skip(n.parent, Mounted)
		default:
			w.entryFailed(n.parent, n.name, errno)
		}
		r.ended(n.parent)
		return
	}
	r.handles.Add(1)
	n.fd, n.uses = fd, 1
	// A directory has one name: what the handle is, is in the tree.
	was := w.byHandle(n.parent, n.name, Directory, handle{fd: n.fd}, nil)
	if r.record != nil {
		n.open.Store(1)
		if entries, done := r.record.known(n, fd); done && was {
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
		size := len(b.data)
		if r.queue.pending.Load() > r.target.limit.tasks {
			size = smallBuffer
		}
		got, errno := w.sys.list(fd, b.data[:size])
		if errno == unix.ENOENT { // it was removed meanwhile
			got, errno = 0, 0
		}
		if errno == unix.EINVAL && size == smallBuffer { // a file system that wants more room for a name
			got, errno = w.sys.list(fd, b.data)
		}
		if errno != 0 {
			w.listFailed(n, errno)
			break
		}
		if got == 0 {
			break
		}
		// Directories become tasks; the listing goes on after them where they are many, so that few wait at any time.
		before := len(w.own)
		directories, others := 0, 0
		last := task{kind: list, node: n}
		for at := 0; at < got; {
			name, kind, next := entryAt(b.data, at)
			if next > got || next <= at {
				break // not what getdents64 gives
			}
			if kind == Unknown && !isDots(name) {
				kind = w.kind(n, fd, name)
				b.data[at+18] = byte(kind) // for who labels the files
			}
			if !isDots(name) {
				if kind == Directory {
					if directories == 0 {
						w.own = append(w.own, last)
					}
					directories++
					below := &node{parent: n, name: string(name[:len(name)-1]), depth: n.depth + 1, fd: -1, ino: inodeAt(b.data, at)}
					w.own = append(w.own, task{kind: enter, node: below})
				} else {
					others++
				}
			}
			at = next
		}
		if r.record != nil && (directories > 0 || got >= recordWorth*leastEntry || size == smallBuffer) {
			n.remember(fd)
		}
		goOn := true
		if directories > 0 {
			// Inodes and the blocks of directories are on the disk in the order of the inodes' numbers, more or less, and read ahead in that
			// order; the last in is the first out.
			slices.SortFunc(w.own[before+1:], func(a, b task) int { return cmp.Compare(b.node.ino, a.node.ino) })
			n.need(directories)
			r.begun(n, int64(directories))
			goOn = directories < shareable*8 && size == len(b.data)
			if goOn {
				// Not worth a task: the listing is read to its end here.
				w.own = append(w.own[:before], w.own[before+1:]...)
				r.queue.pending.Add(int64(directories))
			} else {
				r.queue.pending.Add(int64(directories) + 1)
			}
			w.share()
		}
		if others > 0 {
			w.files(n, b, 0, got)
			if b.refs.Load() > 1 { // others are still reading it
				r.putBatch(b)
				b = r.getBatch()
			}
		}
		if !goOn {
			r.release(n, false) // the task that goes on with the listing keeps the need
			r.putBatch(b)
			return
		}
	}
	r.putBatch(b)
	r.release(n, true)
	r.ended(n)
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
	got, errno := w.sys.get(first, w.value[:secontext.MaxSize])
	want, outcome := w.judgeName(n, name, kind, got, errno)
	if outcome != write {
		return
	}
	// A kernel with SELinux makes a label up where there is none.
	w.evidence(errno == unix.ENODATA || bytes.Contains(w.value[:max(got, 0)], []byte(":unlabeled_t")))
	switch {
	case w.run.pinned:
		var leave Reason
		if errno, leave = w.setPinned(first, want); leave != "" {
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

// mounted tells whether something is mounted on an entry, which only an entry of the tree's own mount can have.
func (w *worker) mounted(name *byte) bool {
	fd, errno := w.sys.pin(name)
	if errno == 0 {
		unix.Close(fd)
	}
	return errno == unix.EXDEV
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
		context, leave := w.run.options.Labels.Want(w.path(n, name), kind, current)
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

// same compares a label as the disk has it, with or without the NUL that the tools write, with one that ends with NUL.
func same(got, want []byte) bool {
	return bytes.Equal(got, want) || bytes.Equal(got, want[:len(want)-1])
}

func (w *worker) path(n *node, name string) string {
	if n == nil { // the root itself
		return w.run.target.named
	}
	if w.dirPathNode != n {
		w.dirPath, w.dirPathNode = n.path(w.run.target.named, ""), n
	}
	if w.dirPath == "/" {
		return "/" + name
	}
	return w.dirPath + "/" + name
}

func (w *worker) count(n *node, what *atomic.Int64) {
	w.counts.seen.Add(1)
	what.Add(1)
	if w.run.record != nil && n != nil {
		n.seen.Add(1)
	}
}

func (w *worker) skip(n *node, why Reason) {
	w.counts.seen.Add(1)
	w.run.skip(why)
	if n != nil {
		n.seen.Add(1)
		if why == Links || why == Mounted {
			n.bad.Store(true)
		}
	}
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

func (w *worker) failed(n *node, name []byte, errno unix.Errno) {
	w.entryFailed(n, string(name[:len(name)-1]), errno)
}

func (w *worker) entryFailed(n *node, name string, errno unix.Errno) {
	w.count(n, &w.counts.failed)
	if n != nil {
		n.bad.Store(true)
	}
	w.run.fail(errno, func() string { return w.path(n, name) })
}

// listFailed counts a directory whose entries could not be read: what is in it is not known, and is one failure.
func (w *worker) listFailed(n *node, errno unix.Errno) {
	w.count(n, &w.counts.failed)
	n.bad.Store(true)
	w.run.fail(errno, func() string { return n.path(w.run.target.named, "") + "/" })
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

// recent is more than the coarsest tick of a file system's clock.
const recent = 20 * time.Millisecond

// setPinned writes the label of exactly the inode that has been looked at, and only if its one name is in the tree.
//
// A second name may be a file of the host that an attacker linked into the tree. Counting names is not enough: whoever removes the name in
// the tree just before the count leaves one, outside. So the inode is held, its names are counted, its name in the tree is looked up, and
// then neither the count nor the time of the last change of the inode, which every link and unlink sets, may have moved. A change that
// is younger than a tick of that clock could hide another one: it is waited for.
func (w *worker) setPinned(name *byte, want []byte) (unix.Errno, Reason) {
	for range tries {
		fd, errno := w.sys.pin(name)
		if errno == unix.EXDEV {
			return 0, Mounted
		}
		if errno != 0 {
			return errno, ""
		}
		single := true
		if !w.run.trusted {
			single, errno = w.single(fd, name)
		}
		if errno == 0 && single && !w.run.options.DryRun {
			errno = w.sys.setPinned(fd, want, 0)
		}
		unix.Close(fd)
		if errno == unix.EAGAIN {
			continue
		}
		if errno == 0 && !single {
			return 0, Links
		}
		return errno, ""
	}
	return unix.EBUSY, ""
}

// single tells whether the one name of the inode behind fd is the given one; EAGAIN if it changed meanwhile.
func (w *worker) single(fd int, name *byte) (bool, unix.Errno) {
	var first, named, last unix.Stat_t
	if errno := w.sys.statOpen(fd, &first); errno != 0 {
		return false, errno
	}
	if first.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, 0
	}
	if first.Nlink > 1 {
		return false, 0
	}
	if first.Nlink == 0 {
		return false, unix.EAGAIN
	}
	changed := time.Unix(first.Ctim.Unix())
	if age := time.Since(changed); age > -recent && age < recent {
		time.Sleep(recent - age)
		return false, unix.EAGAIN
	}
	if errno := w.sys.stat(name, &named); errno != 0 {
		return false, errno
	}
	if errno := w.sys.statOpen(fd, &last); errno != 0 {
		return false, errno
	}
	if named.Ino != first.Ino || named.Dev != first.Dev || last.Nlink != 1 || last.Ctim != first.Ctim {
		return false, unix.EAGAIN
	}
	return true, 0
}

func kindOf(mode uint32) Kind { return Kind(mode & unix.S_IFMT >> 12) }

package relabel

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// worker has a thread of its own, whose current directory is its own too.
type worker struct {
	run *run
	id  int
	sys system
	own []task

	value  []byte // for labels that are read
	stat   unix.Stat_t
	counts counts
	cwd    *node // whose entries bare names mean now

	create  bool // files have no label, it seems: try to make one without looking first
	history uint32
	differs bool // the labels are others, it seems: open a file at once
	recent  uint32

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

func (w *worker) path(n *node, name string) string {
	if n == nil { // the root itself
		return w.run.target.named
	}
	if w.dirPathNode != n {
		w.dirPath, w.dirPathNode = n.path(w.run.target.named), n
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

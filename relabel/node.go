package relabel

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bounds keep the memory and the handles of a walk small, whatever the tree. Tests make them smaller.
type bounds struct {
	depth   int32         // levels of directories
	handles int64         // open directories; beyond it they are closed and opened again when it is their turn
	tasks   int64         // directories that wait; beyond it directories are read a few entries at a time
	young   time.Duration // how long ago a file must have been changed last, so that another change shows; see recent
}

func defaultBounds() bounds {
	b := bounds{depth: 1 << 15, handles: 4096, tasks: 1 << 12, young: recent}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		b.handles = min(b.handles, int64(min(files.Cur/2, 1<<20)))
	}
	return b
}

// node is a directory of the tree, from when its name was read until all below it is done. Its life:
//
//	named    sort reads its name in the directory above and makes a task of it: fd is -1, the one above needs its own handle for it
//	open     enter opens it, labels it and gives up that need; one use, the listing
//	listed   each directory found in it, each part of its files that is handed over and the rest of a listing is one more use (need);
//	         whoever does one holds the handle meanwhile (hold, release) and ends the use when it is done (release, drop)
//	parked   nobody holds the handle and too many are open: closed, and opened again by the next hold (park, reopen)
//	closed   no use is left
//	recorded all parts of it and of what is below are done (open is 0): the record has it, and the one above has one part less
type node struct {
	parent *node
	name   string // one component; "" for the root
	depth  int32
	length int32 // of its path, in bytes

	mu   sync.Mutex
	fd   int // -1 if it is closed
	uses int // what still needs the handle: the listing, directories to open in it, parts of its files
	held int // what uses the handle at this moment
	// What tells that it is the same directory when it was closed and opened again, and where its listing goes on.
	parked bool
	dev    uint64
	ino    uint64 // before it was closed: as the listing gave it
	offset int64
	status int64  // its status-change time at the last look, 0 if nobody watches for changes; see moving
	inside Inside // what the labels are in it, where it is that deep; see run.inside

	// For the record of a run that may be broken off.
	handle   string
	recorded []string     // what is recorded of directories below, guarded by the record
	open     atomic.Int64 // parts that are not done: the listing, parts of the files, directories with all that is in them
	seen     atomic.Int64 // entries done in all of it
	bad      atomic.Bool  // something in it was not labelled
}

// path gives the path of a directory, with that of the root in front.
func (n *node) path(root string) string {
	var parts []string
	size := len(root)
	for d := n; d.parent != nil; d = d.parent {
		parts = append(parts, d.name)
		size += len(d.name) + 1
	}
	var b strings.Builder
	b.Grow(size)
	if root != "/" || len(parts) == 0 {
		b.WriteString(root)
	}
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String()
}

// directory gives one that is named in n.
func (n *node) directory(name string, ino uint64) *node {
	return &node{parent: n, name: name, depth: n.depth + 1, length: n.length + 1 + int32(len(name)), fd: -1, ino: ino}
}

// inside gives what the labels are in a directory whose path no call takes, so that what is in it need not be looked up by whole paths; nil for any
// other.
func (r *run) inside(n *node) Inside {
	if n == nil || n.length < unix.PathMax || r.descender == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.inside == nil {
		if above := r.inside(n.parent); above != nil {
			n.inside = above.Enter(n.name)
		} else {
			n.inside = r.descender.Inside(n.path(r.target.named))
		}
	}
	return n.inside
}

// need says that n more parts will want the handle.
func (n *node) need(more int) {
	n.mu.Lock()
	n.uses += more
	n.mu.Unlock()
}

// hold gives the open handle until release. A directory that was closed meanwhile is opened again from the nearest one above that is
// open, inside the tree and by no link; if it is another one now, it is ESTALE.
func (r *run) hold(n *node) (int, unix.Errno) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd < 0 {
		if errno := r.reopen(n); errno != 0 {
			return -1, errno
		}
	}
	n.held++
	return n.fd, 0
}

// release ends a hold; done says that the part is done that had needed the handle.
func (r *run) release(n *node, done bool) {
	n.mu.Lock()
	n.held--
	r.settle(n, done)
	n.mu.Unlock()
}

// drop ends a need without a hold.
func (r *run) drop(n *node) {
	n.mu.Lock()
	r.settle(n, true)
	n.mu.Unlock()
}

// settle closes the handle when nobody needs it, or when there are too many.
func (r *run) settle(n *node, done bool) {
	if done {
		n.uses--
	}
	if n.held > 0 || n.fd < 0 || n.parent == nil {
		return
	}
	if n.uses > 0 {
		if r.handles.Load() <= r.target.limit.handles || !r.park(n) {
			return
		}
	}
	r.look(n)
	unix.Close(n.fd)
	n.fd = -1
	r.handles.Add(-1)
}

// park remembers what the directory is, so that it can be closed.
func (r *run) park(n *node) bool {
	if !n.parked {
		var st unix.Stat_t
		if r.target.sys.statOpen(n.fd, &st) != 0 {
			return false
		}
		n.dev, n.ino, n.parked = uint64(st.Dev), st.Ino, true
	}
	offset, err := unix.Seek(n.fd, 0, unix.SEEK_CUR)
	n.offset = offset
	return err == nil
}

func (r *run) reopen(n *node) unix.Errno {
	// From n upwards to a directory that is open; the root always is. Locks are taken upwards only.
	names := []string{n.name}
	above := n.parent
	for {
		above.mu.Lock()
		if above.fd >= 0 {
			above.held++
			above.mu.Unlock()
			break
		}
		above.mu.Unlock()
		names = append(names, above.name)
		above = above.parent
	}
	fd, errno := r.descend(above.fd, names)
	r.release(above, false)
	if errno != 0 {
		return errno
	}
	var st unix.Stat_t
	if errno := r.target.sys.statOpen(fd, &st); errno != 0 {
		unix.Close(fd)
		return errno
	}
	if n.dev != uint64(st.Dev) || n.ino != st.Ino {
		unix.Close(fd)
		return unix.ESTALE
	}
	if n.status != 0 && n.status != st.Ctim.Nano() {
		r.moving.changed.Store(true)
	}
	if _, err := unix.Seek(fd, n.offset, unix.SEEK_SET); err != nil {
		unix.Close(fd)
		return number(err)
	}
	n.fd = fd
	r.handles.Add(1)
	return 0
}

// descend opens the directory that names lead to, the last of them first, as many in one call as a path may have.
func (r *run) descend(from int, names []string) (int, unix.Errno) {
	at := from
	for len(names) > 0 {
		var path strings.Builder
		for len(names) > 0 && path.Len()+len(names[len(names)-1])+2 < unix.PathMax {
			if path.Len() > 0 {
				path.WriteByte('/')
			}
			path.WriteString(names[len(names)-1])
			names = names[:len(names)-1]
		}
		fd, errno := r.target.sys.openDirectory(at, path.String())
		if at != from {
			unix.Close(at)
		}
		if errno != 0 {
			return -1, errno
		}
		at = fd
	}
	return at, 0
}

// begun and ended keep count of the parts of a directory that are not done, where a record of that is kept.
func (r *run) begun(n *node, parts int64) {
	if r.record != nil {
		n.open.Add(parts)
	}
}

func (r *run) ended(n *node) {
	if r.record == nil || r.stopped.Load() { // what was in hands when a run was broken off is not done
		return
	}
	for n != nil && n.open.Add(-1) == 0 {
		if n.parent == nil {
			return
		}
		r.record.finished(n)
		n.parent.seen.Add(n.seen.Load())
		if n.bad.Load() {
			n.parent.bad.Store(true)
		}
		n = n.parent
	}
}

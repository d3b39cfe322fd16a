package relabel

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// mounted tells whether something is mounted on an entry, which only an entry of the tree's own mount can have.
func (w *worker) mounted(name *byte) bool {
	fd, errno := w.sys.pin(name)
	if errno == 0 {
		unix.Close(fd)
	}
	return errno == unix.EXDEV
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

// openSingle opens a regular file whose one name is the given one, in the tree; ok is false where that cannot be told so, or the file does not
// open, and setPinned has to look.
//
// When it was opened its name was in the tree. If it had one name a moment later, and none was made or removed in between, which would have
// set the time of its last change, that is the name. A clock that was put back meanwhile tells nothing.
func (w *worker) openSingle(name *byte) (fd int, ok bool) {
	before := time.Now()
	fd, errno := w.sys.openFile(name)
	if errno != 0 {
		return -1, false
	}
	st := &w.stat
	if w.sys.statOpen(fd, st) == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
		now := time.Now()
		drift := now.UnixNano() - before.UnixNano() - int64(now.Sub(before))
		if st.Ctim.Nano() < before.UnixNano()-int64(w.run.target.limit.young) && -int64(recent/2) < drift && drift < int64(recent/2) {
			return fd, true
		}
	}
	unix.Close(fd)
	return -1, false
}

// entryOpened labels a regular file that is likely to have another label, through a handle on which it is looked at, read and written. It
// tells whether it did.
func (w *worker) entryOpened(n *node, name []byte) bool {
	fd, ok := w.openSingle(&name[0])
	if !ok {
		return false
	}
	defer unix.Close(fd)
	got, errno := w.sys.getOpen(fd, w.value[:secontext.MaxSize])
	want, outcome := w.judgeName(n, name, Regular, got, errno)
	w.learn(outcome == write)
	if outcome == write {
		w.writtenName(n, name, got, want, w.sys.setOpen(fd, want, 0))
	}
	return true
}

// setSingle writes the label of a file that was found to need one, whatever it is.
func (w *worker) setSingle(name *byte, kind Kind, want []byte) (unix.Errno, Reason) {
	if w.run.opens && kind == Regular {
		if fd, ok := w.openSingle(name); ok {
			defer unix.Close(fd)
			return w.sys.setOpen(fd, want, 0), ""
		}
	}
	return w.setPinned(name, want)
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
	if young, age := w.run.target.limit.young, time.Since(changed); age > -young && age < young {
		time.Sleep(young - age)
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

package mounts

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Source delivers what changes in a table of mounts. Watcher is the real one; a test may have its own.
type Source interface {
	// Next waits until something has changed since the last call and gives all of it; the first call gives the whole table at once,
	// even an empty one. It ends with the context's error.
	Next(ctx context.Context) (Change, error)
	// Table gives the table as of the last Next; nil before the first. It is never changed afterwards, and may be asked for at any time.
	Table() *Table
}

// Change is the difference between two tables.
type Change struct {
	// Appeared are mounts that were not there before, in the order in which they were mounted as far as the kernel tells it. One that
	// looks like one in Vanished is another mount all the same, maybe of another file system.
	Appeared []*Mount
	// Vanished are mounts that are there no more, as they were seen last.
	Vanished []*Mount
	// Changed are mounts that were mounted again with other options, or moved: as they are now.
	Changed []*Mount
}

// Empty tells whether nothing is different.
func (c Change) Empty() bool { return len(c.Appeared)+len(c.Vanished)+len(c.Changed) == 0 }

const (
	// A look takes time, and in a storm of mounts the kernel asks for one after each. So looks are paid from a credit, which grows by a
	// share-th of the time that passes, up to burst: if it is used up, the next look waits until it is not, and what comes meanwhile is
	// seen together. A mount that comes alone is never kept waiting, and a storm costs a fifth of one processor.
	share = 5
	burst = 50 * time.Millisecond
	// longestWait bounds how much later than the mount its verdict can be for this reason, and how long after a change that was taken from
	// the kernel's notices the table is looked at.
	longestWait = 100 * time.Millisecond
	// noticeDelay is how long a notice may come after the change of the table that it is about: the kernel counts the change first.
	noticeDelay = time.Millisecond
)

// Watcher watches the mount namespace that the process was in when it was opened. Nothing runs between two calls of Next, and nothing
// is missed there either.
type Watcher struct {
	table *atomic.Pointer[Table]
	info  int // /proc/self/mountinfo
	wake  int // an eventfd that ends a poll

	seed    maphash.Seed
	lines   map[int]line  // of the last look, by the ID of the mount
	unique  *uniqueIDs    // nil where the kernel has none
	ends    *superblocks  // nil where there are unique IDs
	notices *notices      // nil where the kernel gives none
	credit  time.Duration // for looks; as of counted
	counted time.Time
	due     time.Time // when the table must be looked at, because only notices were; zero if it need not be
}

// line is a mount and the text that it was read from.
type line struct {
	hash  uint64 // 0 if it is known from a notice only
	mount *Mount
}

// Open begins to watch. Nothing is missed from here on. With notices, the kernel's notices of mounts are used where it has them.
func Open(notices bool) (*Watcher, error) {
	unique := newUniqueIDs()
	if unique == nil || !notices {
		return open(unique, nil)
	}
	return open(unique, newNotices())
}

func open(unique *uniqueIDs, notices *notices) (_ *Watcher, err error) {
	w := &Watcher{info: -1, wake: -1, seed: maphash.MakeSeed(), unique: unique, notices: notices, table: &atomic.Pointer[Table]{}}
	defer func() {
		if err != nil {
			_ = w.Close()
		}
	}()
	// Not os.Open: its file would be registered with the runtime's own poller, whose look at the file takes the kernel's event away.
	if w.info, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("cannot watch the mount table: %w", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("cannot watch the mount table: %w", err)
	}
	if unique == nil {
		if w.ends, err = newSuperblocks(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Means says by what the watcher goes, for the journal.
func (w *Watcher) Means() string {
	switch {
	case w.notices != nil:
		return "unique mount IDs and the kernel's notices"
	case w.unique != nil:
		return "unique mount IDs"
	}
	return "the mount table and the ends of file systems: this kernel has no unique mount IDs (Linux 6.8 and later)"
}

// Close gives all handles back. It must not be called while Next runs: end that one with its context first.
func (w *Watcher) Close() error {
	for _, fd := range []int{w.info, w.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if w.ends != nil {
		w.ends.close()
	}
	if w.notices != nil {
		w.notices.close()
	}
	return nil
}

// Table is as Source says.
func (w *Watcher) Table() *Table { return w.table.Load() }

// Next is as Source says. It must not be called by two goroutines at once. A mount that comes alone is given as soon as the kernel
// tells of it; of a storm of them, a look is taken every 100 ms at least.
func (w *Watcher) Next(ctx context.Context) (Change, error) {
	// Anything may have been written to it for a context that has ended since.
	_, _ = unix.Read(w.wake, make([]byte, 8))
	stop := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
	})
	defer stop()
	for {
		first, noticed := w.table.Load() == nil, false
		if !first {
			var err error
			if noticed, err = w.wait(ctx); err != nil {
				return Change{}, err
			}
		}
		if err := ctx.Err(); err != nil {
			return Change{}, err
		}
		began := time.Now()
		var change Change
		understood, err := false, error(nil)
		if noticed {
			change, understood = w.heed()
		}
		if !understood {
			w.due = time.Time{}
			change, err = w.look()
		}
		if err != nil {
			return Change{}, err
		}
		w.pay(began)
		if first || !change.Empty() {
			return change, nil
		}
	}
}

// pay takes a look that began then from the credit.
func (w *Watcher) pay(began time.Time) {
	now := time.Now()
	if !w.counted.IsZero() {
		w.credit = min(burst, w.credit+now.Sub(w.counted)/share)
	}
	w.credit -= now.Sub(began)
	w.counted = now
}

// wait returns when the table has changed since it was called last, but not before there is credit for a look. It tells whether the
// kernel's notices may say all that there is to know.
func (w *Watcher) wait(ctx context.Context) (noticed bool, err error) {
	if w.credit < 0 {
		if _, err := w.poll(ctx, nil, w.counted.Add(min(-w.credit*share, longestWait))); err != nil {
			return false, err
		}
	}
	// The kernel compares a count of changes with the one that it noted at the last poll (fs/namespace.c, mounts_poll): a change between two
	// polls is never lost, and one that came before the last look gives a look too many at worst.
	changed, err := w.poll(ctx, w.sources(true), w.due)
	if err != nil || w.notices == nil || changed == nil || !w.due.IsZero() && !time.Now().Before(w.due) {
		return false, err
	}
	if slices.Contains(changed, w.notices.fd) {
		return true, nil
	}
	notice, err := w.poll(ctx, w.sources(false), time.Now().Add(noticeDelay))
	return len(notice) > 0, err
}

// sources are what a change is told by.
func (w *Watcher) sources(table bool) []unix.PollFd {
	var fds []unix.PollFd
	if table {
		fds = append(fds, unix.PollFd{Fd: int32(w.info), Events: unix.POLLPRI})
	}
	if w.notices != nil {
		fds = append(fds, unix.PollFd{Fd: int32(w.notices.fd), Events: unix.POLLIN})
	}
	return fds
}

// poll waits for one of the descriptors, until a time if that is not zero, and gives those that are ready: none if the time has
// come. It ends with the context's error.
func (w *Watcher) poll(ctx context.Context, fds []unix.PollFd, until time.Time) (ready []int, err error) {
	fds = append(fds, unix.PollFd{Fd: int32(w.wake), Events: unix.POLLIN})
	for {
		var timeout *unix.Timespec
		if len(fds) == 1 || !until.IsZero() {
			left := time.Until(until)
			if left <= 0 && len(fds) == 1 {
				return nil, ctx.Err()
			}
			t := unix.NsecToTimespec(max(left, 0).Nanoseconds())
			timeout = &t
		}
		n, err := unix.Ppoll(fds, timeout, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("cannot wait for a change of the mount table: %w", err)
		case n == 0:
			return nil, ctx.Err()
		}
		for _, fd := range fds[:len(fds)-1] {
			if fd.Revents != 0 {
				ready = append(ready, int(fd.Fd))
			}
		}
		return ready, ctx.Err()
	}
}

// heed goes by the kernel's notices, and is false if they leave anything open.
func (w *Watcher) heed() (Change, bool) {
	came, gone, understood := w.notices.read()
	if !understood {
		return Change{}, false
	}
	went := make(map[uint64]bool, len(gone))
	for _, id := range gone {
		went[id] = true
	}
	var change Change
	for _, id := range came {
		if _, known := w.unique.old[id]; known {
			return Change{}, false // it was moved
		}
		if went[id] {
			continue
		}
		m := w.notices.mount(id)
		if m == nil {
			return Change{}, false
		}
		if before, used := w.lines[m.ID]; used && !went[before.mount.Unique] {
			return Change{}, false // the notice that the one before it has gone is still to come
		}
		change.Appeared = append(change.Appeared, m)
	}
	for _, id := range gone {
		before, known := w.lines[w.unique.old[id]]
		if known && before.mount.Unique == id {
			change.Vanished = append(change.Vanished, before.mount)
		}
	}
	// All of it is understood: from here on, it is taken over.
	for _, m := range change.Vanished {
		delete(w.lines, m.ID)
		delete(w.unique.old, m.Unique)
	}
	for _, m := range change.Appeared {
		w.lines[m.ID] = line{mount: m}
		w.unique.old[m.Unique] = m.ID
	}
	if w.due.IsZero() {
		w.due = time.Now().Add(longestWait)
	}
	if change.Empty() {
		return change, true
	}
	all := slices.Concat(w.table.Load().All(), change.Appeared)
	if len(change.Vanished) > 0 {
		all = slices.DeleteFunc(all, func(m *Mount) bool { return w.lines[m.ID].mount != m })
	}
	slices.SortFunc(all, byAge)
	slices.SortFunc(change.Appeared, byAge)
	w.table.Store(NewTable(all))
	return change, true
}

// byAge compares mounts with unique IDs, which the kernel gives in ascending order.
func byAge(a, b *Mount) int { return cmp.Compare(a.Unique, b.Unique) }

// descriptor reads a descriptor that the runtime's poller must not know.
type descriptor int

func (d descriptor) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// look reads the table and gives what is different.
func (w *Watcher) look() (Change, error) {
	// Whatever changes while this goes on makes the next wait return at once. So it is enough that what is read in the wrong order
	// does no harm until then.
	var unique map[int]uint64
	var ended map[int]bool
	var err error
	if w.unique != nil {
		unique, err = w.unique.look()
	} else {
		ended, err = w.ends.ended()
	}
	if err != nil {
		return Change{}, err
	}
	if _, err := unix.Seek(w.info, 0, io.SeekStart); err != nil {
		return Change{}, fmt.Errorf("cannot read the mount table: %w", err)
	}
	lines := make(map[int]line, len(w.lines))
	all := make([]*Mount, 0, len(w.lines))
	var change Change
	var id int
	var name, hash uint64
	var before line
	var seen, same bool
	err = parse(descriptor(w.info), func(text []byte) bool {
		id = leadingNumber(text)
		name = unique[id]
		if w.unique != nil && name == 0 {
			return true // it came after the IDs were read
		}
		if _, twice := lines[id]; twice {
			return true // the table changed while it was read
		}
		hash = maphash.Bytes(w.seed, text)
		before, seen = w.lines[id]
		same = seen && before.mount.Unique == name && !ended[id]
		if same && before.hash == hash {
			lines[id] = before
			all = append(all, before.mount)
			return true
		}
		return false
	}, func(m *Mount) {
		m.Unique = name
		if same && before.hash == 0 && *before.mount == *m {
			m = before.mount // it was known from a notice, and that was right
			lines[id] = line{hash, m}
			all = append(all, m)
			return
		}
		lines[id] = line{hash, m}
		all = append(all, m)
		if same && (name != 0 || sameFileSystem(before.mount, m)) {
			change.Changed = append(change.Changed, m)
			return
		}
		if seen {
			change.Vanished = append(change.Vanished, before.mount)
		}
		change.Appeared = append(change.Appeared, m)
	})
	if err != nil {
		return Change{}, err
	}
	if w.table.Load() != nil {
		for _, m := range w.table.Load().All() {
			if _, still := lines[m.ID]; !still {
				change.Vanished = append(change.Vanished, m)
			}
		}
	}
	if w.unique != nil {
		slices.SortFunc(all, byAge)
		slices.SortFunc(change.Appeared, byAge)
	}
	w.lines = lines
	w.table.Store(NewTable(all))
	if w.ends != nil {
		// Whoever looks at a file system because of this change does so after its end is watched.
		w.ends.follow(w.table.Load(), change)
	}
	return change, nil
}

func leadingNumber(text []byte) int {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 1<<31 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// sameFileSystem tells whether two lines with one ID may be those of one mount.
func sameFileSystem(a, b *Mount) bool {
	return a.Device == b.Device && a.Root == b.Root && a.FSType == b.FSType && a.Source == b.Source
}

var _ Source = (*Watcher)(nil)

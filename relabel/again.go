package relabel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// mostPasses is how often a tree is walked in which directories are moved meanwhile.
const mostPasses = 6

// mostGone bounds how many directories are remembered that were gone when it was their turn.
const mostGone = 1 << 16

// moving keeps what tells whether entries were moved within the tree while it was walked: one that is moved from where nobody has been yet to
// where everything is done is met nowhere.
//
// Whoever moves an entry, or makes one, changes the directory that it was in or comes into, and the kernel sets that directory's
// status-change time, which nobody else can set. A directory that loses an entry which has no label yet is one that the walk has not come to,
// and then it is younger than the walk when its turn comes; or one that is being walked, and then it has changed at the last look, before it is
// closed. So where no directory shows that, every entry was met. That is so on file systems whose times are this host's.
type moving struct {
	changed atomic.Bool // a directory was changed while the tree was walked
	watches bool        // for that: not where nothing is written
	start   time.Time
	began   int64 // the same by the clock of the file systems, see status
	since   int64 // when the run that is gone on with began; 0 if there is none

	mu    sync.Mutex
	gone  map[uint64]bool // directories that were gone when it was their turn, by inode
	where []string        // some of them
	count int64
	// before are those of earlier passes, and moved is how many of them were met again: not removed, then, but moved. Whether there are any is
	// not changed while the tree is walked, so that a first pass asks without a lock.
	later  bool
	before map[uint64]bool
	moved  int64
}

// begin starts the watch before the first directory is listed. What an earlier walk has written, and what others had moved by its end, is
// older than a walk that comes after one only if the clock of the file systems has gone on meanwhile: it does so a hundred to a thousand times
// a second, and since Linux 6.13 a change may be younger than its last step, never than the next.
func (m *moving) begin(root *node, after bool) {
	now, known := fileClock()
	for last, tries := now, 0; after && known && now == last && tries < mostTicks; tries++ {
		time.Sleep(time.Millisecond)
		now, known = fileClock()
	}
	var st unix.Stat_t
	if !known || unix.Fstat(root.fd, &st) != nil {
		m.changed.Store(true) // it cannot be told
		return
	}
	m.watches, m.start, m.began, root.status = true, time.Now(), now, st.Ctim.Nano()
}

// mostTicks is how many milliseconds a step of the file systems' clock is waited for at most.
const mostTicks = 100

// fileClock is the time that the file systems of this kernel give a change, in nanoseconds, as of the clock's last step.
func fileClock() (now int64, known bool) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		return 0, false
	}
	return ts.Nano(), true
}

// end is the last look at the root. A clock that was put back meanwhile tells nothing.
func (m *moving) end(r *run) {
	if !m.watches {
		return
	}
	r.look(r.root)
	now := time.Now()
	took := now.Sub(m.start)
	if now.Round(0).Sub(m.start.Round(0)) < took-took/1000-recent {
		m.changed.Store(true)
	}
}

// first is when the first of the runs began of which this one is the last.
func (m *moving) first() int64 {
	if m.since > 0 {
		return m.since
	}
	return m.began
}

// entered is told of a directory that was just opened, before it gets its label, and then again.
func (m *moving) entered(n *node, listed uint64, before, after *unix.Stat_t) {
	if before.Ino != listed || before.Ctim.Nano() >= m.began || m.since > 0 && before.Mtim.Nano() >= m.since ||
		after.Mtim != before.Mtim { // the label itself changes the other time
		m.changed.Store(true)
	}
	n.status = after.Ctim.Nano()
}

// look tells whether a directory was changed since the last look; the handle is open.
func (r *run) look(n *node) {
	var st unix.Stat_t
	if n.status == 0 || r.moving.changed.Load() {
		return
	}
	if r.target.sys.statOpen(n.fd, &st) != 0 || st.Ctim.Nano() != n.status {
		r.moving.changed.Store(true)
	}
}

func (m *moving) vanished(n *node, root string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count++; len(m.gone) < mostGone {
		if m.gone == nil {
			m.gone = map[uint64]bool{}
		}
		m.gone[n.ino] = true
	}
	if len(m.where) < keptPaths {
		m.where = append(m.where, printable.Text(n.path(root)))
	}
}

// met is told of each directory that a listing names.
func (m *moving) met(ino uint64) {
	if !m.later {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before[ino] {
		delete(m.before, ino)
		m.moved++
	}
}

// incomplete tells whether the tree has to be walked once more, for something in it may have been moved to where the walk had been, or made
// where it had been by somebody who gives it another label. A walk after the first that finds everything right ends that, if what others moved
// meanwhile is right too.
func (r *run) incomplete() bool {
	switch {
	case r.options.DryRun || r.pass+1 >= mostPasses:
		return false
	case r.moving.count > 0:
		return true
	case r.pass > 0:
		return r.moving.changed.Load() && (r.total().set > 0 || r.came > 0)
	case !r.target.local(): // a server's clock tells nothing
		return !r.options.Verify
	}
	return r.moving.changed.Load()
}

// readBack tells whether this walk was made to look at the labels that an earlier one had given, and all of them were there.
func (r *run) readBack() bool { return r.pass > 0 && r.total().set == 0 && r.came == 0 }

// again walks the tree once more, and what comes of that counts.
func (r *run) again(ctx context.Context) error {
	// What was recorded as done may not be.
	if err := r.removeRecord(); err != nil {
		return err
	}
	o := r.options
	o.State = nil
	next, err := r.target.newRun(o)
	if err != nil {
		return err
	}
	next.pass = r.pass + 1
	if next.pass+1 >= mostPasses {
		next.unsettled = newUnsettled(o.Changed)
		next.options.Changed = next.unsettled.changed
	}
	next.moving.moved, next.moving.before = r.moving.moved, r.moving.before
	if next.moving.before == nil {
		next.moving.before = map[uint64]bool{}
	}
	for ino := range r.moving.gone {
		next.moving.before[ino] = true
	}
	next.moving.later = len(next.moving.before) > 0
	err = next.do(ctx)
	// What this walk has written, the next one finds right.
	written := r.total().set
	r.workers, r.skipped, r.failures, r.rooted = next.workers, next.skipped, next.failures, next.rooted
	r.most = max(r.most, next.most)
	r.prefetched.Add(next.prefetched.Load())
	found := min(written, r.total().already)
	w := &worker{run: r}
	w.counts.set.Add(found)
	w.counts.already.Add(-found)
	r.workers = append(r.workers, w)
	return err
}

// unsettled keeps what the last walk still had to label.
type unsettled struct {
	next  func(Change)
	count int64
	paths []string
}

func newUnsettled(next func(Change)) *unsettled { return &unsettled{next: next} }

func (u *unsettled) changed(c Change) {
	if u.count++; len(u.paths) < keptPaths {
		u.paths = append(u.paths, printable.Text(c.Path))
	}
	if u.next != nil {
		u.next(c)
	}
}

// reportUnsettled counts as failed what the last of all walks still had to label, where others went on changing the tree: there may be more.
func (r *run) reportUnsettled() {
	u := r.unsettled
	if u == nil || u.count+r.came == 0 || !r.moving.changed.Load() || r.failures[errMoved] != nil {
		return
	}
	w := &worker{run: r}
	w.counts.set.Add(-u.count)
	w.counts.seen.Add(r.came)
	w.counts.failed.Add(u.count + r.came)
	r.workers = append(r.workers, w)
	paths := append(u.paths, r.where...)
	r.failures[errUnsettled] = &failures{count: u.count + r.came, paths: paths[:min(len(paths), keptPaths)]}
}

// reportMoving counts as failed the directories that are missed where some are known to be moved and not removed, and no walk met all of them.
func (r *run) reportMoving() {
	m := &r.moving
	if m.moved == 0 || m.count == 0 || r.options.DryRun {
		return
	}
	w := &worker{run: r}
	w.counts.vanished.Add(-m.count)
	w.counts.failed.Add(m.count)
	r.workers = append(r.workers, w)
	r.failures[errMoved] = &failures{count: m.count, paths: m.where}
}

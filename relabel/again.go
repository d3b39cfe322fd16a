package relabel

import (
	"context"
	"sync"
)

// mostPasses is how often a tree is walked in which directories are moved meanwhile.
const mostPasses = 4

// mostGone bounds how many directories are remembered that were gone when it was their turn.
const mostGone = 1 << 16

// moving keeps what tells whether entries were moved within the tree while it was walked: one that is moved from where nobody has been yet to
// where everything is done is met nowhere.
type moving struct {
	mu    sync.Mutex
	gone  map[uint64]string // directories that were gone when it was their turn, by inode: where they were
	count int64
	// before are those of earlier passes, and moved is how many of them were met again: not removed, then, but moved. Whether there are any is
	// not changed while the tree is walked, so that a first pass asks without a lock.
	later  bool
	before map[uint64]bool
	moved  int64
}

func (m *moving) vanished(n *node, root string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count++; len(m.gone) < mostGone {
		if m.gone == nil {
			m.gone = map[uint64]string{}
		}
		m.gone[n.ino] = n.path(root, "")
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

// incomplete tells whether the tree has to be walked once more, for something in it may have been moved to where the walk had been. Files
// come and go all the time: they are worth one more walk, where no other one reads the labels back.
func (r *run) incomplete() bool {
	if r.options.DryRun || r.pass+1 >= mostPasses {
		return false
	}
	return r.moving.count > 0 || r.pass == 0 && !r.options.Verify && r.total().vanished > 0
}

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
	for _, where := range m.gone {
		r.fail(errMoved, func() string { return where })
	}
	if f := r.failures[errMoved]; f != nil {
		f.count = m.count
	}
}

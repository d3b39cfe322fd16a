package relabel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

const (
	mostWorkers = 32 // on disks with latency more requests in flight than this gain little, see docs/performance.md
	keptPaths   = 10 // of each error
)

// run is one walk.
type run struct {
	target  *Target
	sys     system
	last    atomic.Pointer[string] // the run that was the last one to give labels here: an earlier one, or this
	pass    int                    // how often the tree was walked before
	options Options
	place   place
	fixed   []byte // the one label with a NUL, nil if it depends on the entry
	// descender is the labels, nil if they have to be asked by whole paths.
	descender Descender
	pinned    bool // entries are written through a handle that was looked at, not by their bare name
	opens     bool // files are opened for that: devices cannot be, and the times of the file system are this host's
	bare      bool // there is no private copy of the mount: something may be mounted on an entry
	trusted   bool // all names of a file are in the tree
	creates   bool // an entry may get a label that is only made where there is none
	limits    limiter
	record    *record
	moving    moving
	came      int64    // entries that others moved meanwhile and that are not known to be right, in a walk after the first
	where     []string // some of them
	// unsettled is nil but in the last of all walks.
	unsettled *unsettled

	queue   queue
	workers []*worker
	running sync.WaitGroup
	stopped atomic.Bool
	handles atomic.Int64 // open directories
	batches sync.Pool

	mu       sync.Mutex
	root     *node
	skipped  map[Reason]int64
	failures map[unix.Errno]*failures
	err      error
	changing sync.Mutex

	disk       *prefetch // nil if there is nothing to read ahead
	prefetched atomic.Int64
	measured   func(*unix.Stat_t) // is told of what would be changed, in a dry run on an overlay
	most       int                // workers at once
	rooted     bool               // the root has its label
}

type failures struct {
	count int64
	paths []string
}

// Run labels the tree. The error says why it could not be tried, or was broken off; what happened to the entries is in the Result, which
// is filled in either case. That entries failed is no error: see Result.Complete.
func (t *Target) Run(ctx context.Context, o Options) (Result, error) {
	start := time.Now()
	r, err := t.newRun(o)
	if err != nil {
		return Result{Path: printable.Text(t.path)}, err
	}
	if err = r.do(ctx); err != nil && ctx.Err() != nil {
		r.stopped.Store(true) // also while the cost was measured, or the labels read back
	}
	result := r.result()
	result.Elapsed = time.Since(start)
	return result, err
}

func (t *Target) newRun(o Options) (*run, error) {
	if o.Labels == nil {
		return nil, errors.New("cannot relabel without labels")
	}
	r := &run{target: t, options: o, skipped: map[Reason]int64{}, failures: map[unix.Errno]*failures{}}
	r.queue.wake.L, r.queue.rest.L = &r.queue.mu, &r.queue.mu
	r.batches.New = func() any { return &batch{data: make([]byte, listBuffer)} }
	r.limits.set(o.Limits)
	last := t.last.get()
	r.last.Store(&last)
	if r.sys = t.sys; t.last != nil && !o.DryRun {
		r.sys = announcing{t.sys, new(sync.Once), r}
	}
	if o.Workers > MaxWorkers {
		return nil, fmt.Errorf("cannot relabel with %d workers: at most %d", o.Workers, MaxWorkers)
	}
	if f, ok := o.Labels.(fixed); ok {
		if err := secontext.Context(f).Check(); err != nil {
			return nil, &ContextError{string(f), err.Error()}
		}
		r.fixed = append([]byte(f), 0)
	}
	r.descender, _ = o.Labels.(Descender)
	var err error
	if r.place, err = t.place(); err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	return r, nil
}

func (r *run) do(ctx context.Context) error {
	if err := r.possible(ctx); err != nil {
		return err
	}
	tree, private, noDevices, err := r.target.privateMount()
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	r.trusted = r.options.TrustLinks || r.place.whole()
	r.pinned, r.bare = !private || !r.trusted, !private
	r.opens = r.pinned && noDevices && !r.options.DryRun && r.target.local()
	r.creates = r.fixed != nil && !r.pinned && !r.options.DryRun && r.target.local()
	if !r.target.IsDirectory() {
		return r.single(ctx, tree)
	}
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot relabel %s: %w", r.target.path, err)
	}
	r.root = &node{length: int32(len(r.target.named)), fd: fd, uses: 1}
	defer unix.Close(fd)
	if err := r.loadRecord(); err != nil {
		return err
	}
	if r.disk = newPrefetch(r); r.disk != nil {
		defer r.disk.end()
	}
	if !r.options.DryRun {
		r.moving.begin(r.root, r.pass > 0)
	}
	var others *moves
	if r.pass > 0 {
		others = r.watchMoves()
	}
	err = r.walk(ctx)
	var made int64
	if err == nil && !r.options.DryRun {
		made = r.quiet()
	}
	if others != nil {
		r.came, r.where = others.end(), others.paths
	}
	if err != nil {
		return errors.Join(err, r.saveRecord())
	}
	r.moving.end(r)
	if r.incomplete() {
		return r.again(ctx)
	}
	r.reportMoving()
	r.reportUnsettled()
	if r.options.Verify && !r.options.DryRun && len(r.failures) == 0 && !r.readBack() {
		if err := r.verify(ctx); err != nil {
			return errors.Join(err, r.saveRecord())
		}
	}
	if r.labelRoot() && (made == 0 || r.lastMade() != made) {
		return r.again(ctx)
	}
	return r.removeRecord()
}

// lastMade is when an entry was made in the root for the last time, or taken out of it, in nanoseconds; 0 if it cannot be told. What is made there
// after the last look at it, and before it has its label, has none; the label itself changes the other time.
func (r *run) lastMade() int64 {
	var st unix.Stat_t
	if unix.Fstat(r.root.fd, &st) != nil {
		return 0
	}
	return st.Mtim.Nano()
}

// quiet is lastMade when the file systems' clock has left that behind, for the next change could have the same time; 0 if that takes too long.
func (r *run) quiet() int64 {
	local := r.target.local()
	for range mostTicks {
		made := r.lastMade()
		if now, known := fileClock(); !known || !local || made < now {
			return made
		}
		time.Sleep(time.Millisecond)
	}
	return 0
}

// privateMount gives the tree in a mount of its own that is nowhere in the mount table: what is mounted below the tree is not in it, and
// nobody can mount anything into it. noDevices tells that no device can be opened in it. Without the right to make one, the tree itself is
// given, and every entry has to be looked at.
func (t *Target) privateMount() (fd int, private, noDevices bool, err error) {
	err = unix.EPERM
	if !t.noCopy {
		fd, err = unix.OpenTree(t.fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	}
	if err == nil {
		// Reading directories must not write their times. It is no matter if it cannot be had, before Linux 5.12.
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NODEV, Attr_clr: unix.MOUNT_ATTR__ATIME})
		return fd, true, err == nil, nil
	}
	fd, err = unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, false, false, fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	return fd, false, false, nil
}

// local tells whether the file system is one that is known to be this kernel's own: to take its times from this host's clock, and to leave a
// label alone that is there, when it is asked to make one (XATTR_CREATE). A server may ignore that: NFS does (fs/nfs/nfs4proc.c,
// nfs4_xattr_set_nfs4_label).
func (t *Target) local() bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(t.fd, &fs) != nil {
		return false
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// walk has the workers go through the tree, and sees to it that they are as many as the disk needs.
func (r *run) walk(ctx context.Context) error {
	r.handles.Store(1)
	r.queue.pending.Store(1)
	r.queue.tasks = []task{{kind: list, node: r.root}}
	r.root.open.Store(1)
	r.root.uses = 1

	done := make(chan struct{})
	watched := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { r.fatal(ctx.Err()) })
	defer stop()
	first := r.options.Workers
	if first <= 0 {
		first = min(runtime.NumCPU(), mostWorkers)
	}
	if r.record != nil {
		r.record.keep()
		defer r.record.close()
	}
	r.grow(first)
	go func() {
		defer close(watched)
		r.watch(done)
	}()
	r.running.Wait()
	close(done)
	<-watched
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// grow lets n workers work.
func (r *run) grow(n int) {
	n = min(n, max(mostWorkers, r.options.Workers))
	r.queue.mu.Lock()
	for len(r.workers) < n && !r.queue.ended {
		w := &worker{run: r, id: len(r.workers), sys: r.sys, value: make([]byte, 2*secontext.MaxSize)}
		r.workers = append(r.workers, w)
		r.running.Add(1)
		go func() {
			defer r.running.Done()
			w.work()
		}()
	}
	r.most = max(r.most, n)
	r.queue.active.Store(int32(n))
	r.queue.rest.Broadcast()
	r.queue.idle.Store(0)
	r.queue.wake.Broadcast()
	r.queue.mu.Unlock()
}

// fatal ends the walk.
func (r *run) fatal(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	r.stopped.Store(true)
	r.queue.end()
}

func (r *run) getBatch() *batch {
	b, _ := r.batches.Get().(*batch)
	b.refs.Store(1)
	return b
}

func (r *run) putBatch(b *batch) {
	if b.refs.Add(-1) == 0 {
		r.batches.Put(b)
	}
}

func (r *run) skip(why Reason) {
	r.mu.Lock()
	r.skipped[why]++
	r.mu.Unlock()
}

func (r *run) changed(c Change) {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.options.Changed(c)
}

func (r *run) fail(errno unix.Errno, path func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.failures[errno]
	if f == nil {
		f = &failures{}
		r.failures[errno] = f
	}
	f.count++
	if len(f.paths) < keptPaths {
		f.paths = append(f.paths, printable.Text(path()))
	}
}

// total adds up what the workers counted.
func (r *run) total() (c struct{ seen, already, set, vanished, resumed, failed int64 }) {
	r.queue.mu.Lock()
	workers := r.workers
	r.queue.mu.Unlock()
	for _, w := range workers {
		c.seen += w.counts.seen.Load()
		c.already += w.counts.already.Load()
		c.set += w.counts.set.Load()
		c.vanished += w.counts.vanished.Load()
		c.resumed += w.counts.resumed.Load()
		c.failed += w.counts.failed.Load()
	}
	return c
}

// labelRoot gives the root its label: last, and only if nothing failed. Until then the tree does not look done.
func (r *run) labelRoot() (set bool) {
	w := &worker{run: r, sys: r.sys, value: make([]byte, 2*secontext.MaxSize)}
	r.workers = append(r.workers, w)
	w.byHandle(nil, "", Directory, handle{fd: r.root.fd}, func() Reason {
		if len(r.failures) > 0 {
			return RootLast
		}
		return ""
	})
	r.rooted = w.right() && len(r.failures) == 0
	return w.counts.set.Load() > 0 && !r.options.DryRun
}

// right tells whether what the worker looked at has its label now.
func (w *worker) right() bool {
	return w.counts.already.Load() > 0 || w.counts.set.Load() > 0 && !w.run.options.DryRun
}

// single labels a target that is no directory.
func (r *run) single(_ context.Context, fd int) error {
	w := &worker{run: r, sys: r.sys, value: make([]byte, 2*secontext.MaxSize)}
	r.workers = append(r.workers, w)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot relabel %s: %w", r.target.path, err)
	}
	w.byHandle(nil, "", kindOf(st.Mode), handle{fd: fd, pinned: true}, func() Reason {
		if st.Nlink > 1 && !r.trusted {
			return Links
		}
		return ""
	})
	r.rooted = w.right()
	return nil
}

// verify reads every label again, in a walk of its own that writes nothing.
func (r *run) verify(ctx context.Context) error {
	o := r.options
	o.DryRun, o.Verify, o.State, o.Progress = true, false, nil, nil
	var mu sync.Mutex
	var wrong []string
	var count int64
	o.Changed = func(c Change) {
		mu.Lock()
		defer mu.Unlock()
		if c.Path == r.target.named {
			return // the root has its turn afterwards
		}
		if count++; len(wrong) < keptPaths {
			wrong = append(wrong, printable.Text(c.Path))
		}
	}
	again, err := r.target.newRun(o)
	if err == nil {
		err = again.do(ctx)
	}
	if err != nil {
		return err
	}
	if count > 0 {
		r.failures[errNotKept] = &failures{count: count, paths: wrong}
	}
	for errno, f := range again.failures { // what cannot be read back is not known to be right
		r.failures[errno] = f
		count += f.count
	}
	r.misjudged(count)
	return nil
}

// misjudged moves entries that were counted as done to those that failed; what was not there then is seen now.
func (r *run) misjudged(count int64) {
	c := r.total()
	set := min(count, c.set)
	already := min(count-set, c.already)
	resumed := min(count-set-already, c.resumed)
	w := &worker{run: r}
	w.counts.set.Add(-set)
	w.counts.already.Add(-already)
	w.counts.resumed.Add(-resumed)
	w.counts.seen.Add(count - set - already - resumed)
	w.counts.failed.Add(count)
	r.workers = append(r.workers, w)
}

func (r *run) result() Result {
	c := r.total()
	result := Result{
		Path: printable.Text(r.target.path), Labels: r.options.Labels.String(), DryRun: r.options.DryRun,
		Seen: c.seen, Already: c.already, Set: c.set, Vanished: c.vanished, Resumed: c.resumed,
		Skipped: r.skipped, WholeFilesystem: r.place.whole(), Workers: r.most,
		Prefetched: r.prefetched.Load(), Failed: []Failure{},
	}
	for _, point := range r.place.below {
		result.MountsBelow = append(result.MountsBelow, printable.Text(point))
	}
	for errno, f := range r.failures {
		result.Failed = append(result.Failed, Failure{Errno: nameOf(errno), Message: meaning(errno), Count: f.count, Paths: f.paths})
	}
	slices.SortFunc(result.Failed, func(a, b Failure) int {
		if a.Count != b.Count {
			return int(min(max(b.Count-a.Count, -1), 1))
		}
		if a.Errno < b.Errno {
			return -1
		}
		return 1
	})
	result.Cancelled = r.stopped.Load()
	result.RootLabelled = r.rooted && !result.Cancelled
	return result
}

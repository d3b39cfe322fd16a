package relabel

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tick = 4 * time.Millisecond
	// The ticks that are looked at together. The kernel adds up the time of a running thread once in a tick of its own, of up to 10 ms.
	window   = 8
	patience = 8 // windows before it is tried again whether more workers help
	busy     = 0.7
	growth   = 4    // times as many workers are tried
	gain     = 1.15 // what they must bring to be kept

	enoughAhead = 8 // workers while what they wait for is being read ahead
)

// watch gives the disk as many requests as it answers faster for, reads ahead where that helps, and tells how far the run is.
func (r *run) watch(done <-chan struct{}) {
	interval := r.options.Interval
	if interval <= 0 {
		interval = time.Second
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	tune := tuner{workers: int(r.queue.active.Load()), most: mostWorkers, fixed: r.options.Workers > 0, before: used()}
	tune.begin()
	start, reported := time.Now(), time.Now()
	var last, moved int64
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		now := used()
		if seen := r.total().seen; seen != moved {
			moved = seen
			if r.options.Alive != nil {
				r.options.Alive()
			}
		}
		tune.enough = mostWorkers
		if r.disk != nil && r.disk.arriving() {
			tune.enough = enoughAhead
		}
		if n := tune.step(now, r.total().seen); n != tune.workers {
			tune.workers = n
			r.grow(n)
		}
		if tune.waits && r.disk != nil {
			r.disk.start()
		}
		if r.options.Progress == nil || time.Since(reported) < interval {
			continue
		}
		c := r.total()
		p := Progress{Seen: c.seen, Changed: c.set, Failed: c.failed, Total: r.expected(c.seen), Elapsed: time.Since(start), Workers: tune.workers}
		p.Rate = float64(c.seen-last) / time.Since(reported).Seconds()
		if p.Total > c.seen && p.Rate > 0 {
			p.Left = time.Duration(float64(p.Total-c.seen) / p.Rate * float64(time.Second))
		}
		last, reported = c.seen, time.Now()
		r.options.Progress(p)
	}
}

// usage is what the process has used.
type usage struct {
	at     time.Time
	cpu    time.Duration
	blocks int64 // of 512 bytes, read from disks
}

func used() usage {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return usage{time.Now(), time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), ru.Inblock}
}

// tuner decides how many workers there are. Those that wait for a disk cost nothing, and a disk answers many requests at once; those
// that compute only get in each other's way. So while blocks are read from a disk and the processors are not busy, there are as many as
// there may be, or fewer while what they wait for is being read ahead; when they wait for something else, such as a log or a server,
// more are tried, and stay if that helped. Where nothing moves at all, as when a journal is full and written back, more would only wait too.
type tuner struct {
	workers, most int
	enough        int // for a disk that is waited for
	fixed         bool
	before        usage // a tick ago, and
	seen          int64 // how far the workers were then
	waits         bool  // for a disk

	window struct {
		start usage
		seen  int64 // when it began
		moved int   // ticks in which something was seen
		cpu   time.Duration
		wall  time.Duration // of these ticks
	}
	rate  float64 // of the window before
	trial bool    // workers were added for this window
	rest  int     // windows to let pass
}

func (t *tuner) step(now usage, seen int64) int {
	cpu, wall := now.cpu-t.before.cpu, now.at.Sub(t.before.at)
	read, moved := now.blocks > t.before.blocks, seen > t.seen
	t.waits = read && t.share(cpu, wall) < busy
	t.before, t.seen = now, seen
	switch {
	case t.fixed:
		return t.workers
	case t.waits: // for a disk: nothing is lost with as many as there may be
		t.trial, t.rest = false, patience
		t.begin()
		return max(t.workers, min(t.enough, t.most))
	case !moved:
		return t.workers
	}
	w := &t.window
	w.moved++
	w.cpu += cpu
	w.wall += wall
	if w.moved < window {
		return t.workers
	}
	rate := float64(seen-w.seen) / now.at.Sub(w.start.at).Seconds()
	helped := rate >= t.rate*gain
	idle := t.share(w.cpu, w.wall) < busy
	t.rate = rate
	t.begin()
	switch {
	case t.trial:
		t.trial = false
		if !helped {
			t.rest = patience
			return max(t.workers/growth, 1)
		}
		return t.workers
	case t.rest > 0:
		t.rest--
		return t.workers
	case idle && t.workers < t.most:
		t.trial = true
		return min(t.workers*growth, t.most)
	}
	return t.workers
}

// begin begins a window.
func (t *tuner) begin() {
	t.window.start, t.window.seen = t.before, t.seen
	t.window.moved, t.window.cpu, t.window.wall = 0, 0, 0
}

// share is how busy the processors were, of those that the workers can keep busy.
func (t *tuner) share(cpu, wall time.Duration) float64 {
	return float64(cpu) / float64(wall) / float64(min(runtime.NumCPU(), t.workers))
}

// expected is how many entries there are, as far as the file system tells.
func (r *run) expected(seen int64) int64 {
	if !r.place.whole() {
		return 0
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(r.target.fd, &fs) != nil || fs.Files <= fs.Ffree {
		return 0
	}
	return max(int64(fs.Files-fs.Ffree), seen)
}

// limiter slows the workers down.
type limiter struct {
	any        bool
	background bool
	interval   time.Duration // of one entry
	next       atomic.Int64  // when the next entry may be taken, in nanoseconds since start
	start      time.Time
	cpu        float64 // seconds of processor per second
	cpuStart   time.Duration
}

func (l *limiter) set(o Limits) {
	l.background = o.Background
	l.start = time.Now()
	if o.EntriesPerSecond > 0 {
		l.interval, l.any = time.Second/time.Duration(o.EntriesPerSecond), true
	}
	if o.CPUPercent > 0 {
		l.cpu, l.any, l.cpuStart = float64(o.CPUPercent)/100, true, used().cpu
	}
}

// The I/O priorities of ioprio_set(2): class idle, of a thread.
const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
)

// enter is called by each worker on its own thread.
func (l *limiter) enter() {
	if !l.background {
		return
	}
	// It is a wish: a kernel that does not grant it labels just as well.
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
}

// pace is called for each entry where there is a limit, and holds the worker up.
func (w *worker) pace(entries int) {
	l := &w.run.limits
	if !l.any {
		return
	}
	if l.interval > 0 {
		now := time.Since(l.start)
		var mine time.Duration
		for {
			next := time.Duration(l.next.Load())
			// What was not used is not saved up, but for a tenth of a second.
			mine = max(next, now-100*time.Millisecond)
			if l.next.CompareAndSwap(int64(next), int64(mine+time.Duration(entries)*l.interval)) {
				break
			}
		}
		if ahead := mine - now; ahead > 5*time.Millisecond { // a shorter sleep takes longer than it should
			w.sleep(ahead)
		}
	}
	if w.paced += entries; l.cpu > 0 && w.paced >= 64 {
		w.paced = 0
		allowed := time.Duration(time.Since(l.start).Seconds() * l.cpu * float64(time.Second))
		w.sleep(time.Duration(float64(used().cpu-l.cpuStart-allowed) / l.cpu))
	}
}

// sleep ends early when the run is broken off.
func (w *worker) sleep(d time.Duration) {
	for d > 0 && !w.run.stopped.Load() {
		piece := min(d, 50*time.Millisecond)
		time.Sleep(piece)
		d -= piece
	}
}

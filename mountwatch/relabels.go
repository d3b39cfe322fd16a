package mountwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// relabels labels the files of volumes, one volume at a time on each disk: two would only take the disk from each other.
type relabels struct {
	jobs  map[key]*relabelJob
	queue []*relabelJob // in the order in which they came, those at work included
	busy  map[string]bool
	done  chan relabelResult
	group sync.WaitGroup
	// patience is how long a file system may do nothing; 0: jobPatience.
	patience time.Duration
}

// relabelJob is one volume whose files are to be labelled.
type relabelJob struct {
	*volume
	want       string
	labels     relabel.Labeler
	inPlace    bool     // it is a volume of the kubelet's
	hadByPod   bool     // a pod had it when the labelling began
	paths      []string // those of the rule
	fileSystem string   // see identity
	disks      []string
	stop       context.CancelFunc // nil while it waits for its turn
	cancelled  bool
	limits     relabel.Limits
	workers    int
	lock       func(context.Context, *relabel.Target) (unlock func(), err error)
	state      func(path string) relabel.State
}

type relabelResult struct {
	job   *relabelJob
	files Files
	err   error // why not everything has its label
}

func (r *relabels) results() <-chan relabelResult { return r.done }
func (r *relabels) wait()                         { r.group.Wait() }

// same tells whether the files of a mount are being labelled already as the verdict wants it.
func (r *relabels) same(k key, v judge.Verdict) bool {
	job := r.jobs[k]
	return job != nil && v.Rule != nil && job.want == v.Want && slices.Equal(job.paths, v.Rule.Paths)
}

// cancel breaks a relabelling off. What it did stays, and is known to the next one.
func (r *relabels) cancel(k key) {
	job := r.jobs[k]
	if job == nil {
		return
	}
	delete(r.jobs, k)
	job.cancelled = true
	if job.stop != nil {
		job.stop()
		return
	}
	r.queue = slices.DeleteFunc(r.queue, func(j *relabelJob) bool { return j == job })
}

// relabel puts a volume in the queue, unless it is there.
func (w *Watcher) relabel(ctx context.Context, v *volume, verdict judge.Verdict) {
	v.State, v.Code, v.Reason, v.Remedy = Relabelling, "", "", ""
	k := keyOf(v.mount)
	if given := w.failed[k]; given != nil && given.Context == v.Context && given.Rule == v.Rule {
		v.Volume = *given // it was tried, with what came of it
		return
	}
	if w.relabels.jobs[k] != nil {
		return
	}
	job := &relabelJob{volume: v, want: verdict.Want, labels: relabel.Fixed(verdict.Want), paths: verdict.Rule.Paths, fileSystem: identity(v.mount, v.names),
		disks: disksOf(v.mount.Device), limits: w.config.Limits, workers: w.config.Workers}
	job.limits.Background = !verdict.Rule.Required
	if job.inPlace = w.rules.InPlace(v.mount, []*judge.Rule{verdict.Rule}); job.inPlace {
		job.labels, job.limits.Background = exceptForPods{job.labels, w.Host}, false // a pod waits for it, or is about to
	}
	job.lock = func(ctx context.Context, t *relabel.Target) (func(), error) { return t.Lock(ctx, w.Root, forever, nil) }
	job.state = func(path string) relabel.State { return progressOf(w.Root, job.fileSystem, job.want, path) }
	w.relabels.jobs[k] = job
	w.relabels.line(job)
	w.startRelabels(ctx)
}

// exceptForPods leaves a file alone that the runtime has labelled for a pod, also while the others are being labelled.
type exceptForPods struct {
	relabel.Labeler
	host judge.Host
}

// Want gives the label, or the one that the entry has and keeps.
func (l exceptForPods) Want(path string, kind relabel.Kind, current string) (string, relabel.Reason) {
	want, leave := l.Labeler.Want(path, kind, current)
	if leave == "" && l.host.ForPod(current, want) {
		return current, ""
	}
	return want, leave
}

// hadByPod tells whether a pod has the file system of a mount.
func hadByPod(table *mounts.Table, m *mounts.Mount) bool {
	return slices.ContainsFunc(table.Superblock(m.Device), func(other *mounts.Mount) bool {
		csi, ok := kubelet.CSIMount(other.Mountpoint)
		return ok && csi.Published
	})
}

// awaited tells whether somebody waits for the volume.
func (j *relabelJob) awaited() bool { return !j.limits.Background }

// line puts a job in the queue: one that somebody waits for before those that nobody waits for.
func (r *relabels) line(job *relabelJob) {
	at := len(r.queue)
	if i := slices.IndexFunc(r.queue, func(j *relabelJob) bool { return !j.awaited() }); job.awaited() && i >= 0 {
		at = i
	}
	r.queue = slices.Insert(r.queue, at, job)
}

// maxRelabels is how many volumes are labelled at once, and once more as many that somebody waits for: each has threads and a memory of
// its own, and what is on no disk, such as a tmpfs, would not wait for another.
const maxRelabels = 4

// next gives the waiting jobs whose disks are free, as many as may be at work at once, and takes the disks for them.
func (r *relabels) next() (begin []*relabelJob) {
	running := 0
	for _, job := range r.queue {
		if job.stop != nil {
			running++
		}
	}
	for _, job := range r.queue {
		most := maxRelabels
		if job.awaited() {
			most += maxRelabels
		}
		if job.stop != nil || running+len(begin) >= most || slices.ContainsFunc(job.disks, func(d string) bool { return r.busy[d] }) {
			continue
		}
		begin = append(begin, job)
		for _, d := range job.disks {
			r.busy[d] = true
		}
	}
	return begin
}

// startRelabels begins with every waiting job whose disks are free.
func (w *Watcher) startRelabels(ctx context.Context) {
	r := &w.relabels
	for _, job := range r.next() {
		var each context.Context
		each, job.stop = context.WithCancel(ctx)
		// From the first label on, what is known of these files is not true any more.
		w.record.forget(job.fileSystem, job.paths)
		job.hadByPod = job.inPlace && hadByPod(w.table, job.mount)
		w.Report(Event{Kind: RelabelStarted, Volume: job.Volume})
		r.group.Go(func() {
			files, err := patience.Ask(each, &w.asking.Room, job.Device, cmp.Or(r.patience, jobPatience), job.run)
			select {
			case r.done <- relabelResult{job, files, err}:
			case <-ctx.Done():
			}
		})
	}
}

// run labels each tree of the volume. It runs beside the loop and touches nothing of the watcher's.
func (j *relabelJob) run(ctx context.Context, alive func()) (files Files, err error) {
	begin := time.Now()
	defer func() { files.Millis = time.Since(begin).Milliseconds() }()
	var failures []error
	for _, path := range pathsOf(j.paths) {
		result, err := j.tree(ctx, path, alive)
		files.add(&result)
		if ctx.Err() != nil {
			return files, ctx.Err()
		}
		if missing := result.Missing(); err == nil && missing != "" {
			err = errors.New(missing)
		}
		if err != nil {
			if path != "." {
				err = fmt.Errorf("%s: %w", path, err)
			}
			failures = append(failures, err)
		}
	}
	return files, errors.Join(failures...)
}

func (j *relabelJob) tree(ctx context.Context, path string, alive func()) (relabel.Result, error) {
	handle, err := j.mount.OpenTree(path)
	if errors.Is(err, fs.ErrNotExist) {
		return relabel.Result{}, errors.New("there is no such directory in the volume")
	}
	if err != nil {
		return relabel.Result{}, err
	}
	target, err := relabel.OpenHandle(handle)
	handle.Close()
	if err != nil {
		return relabel.Result{}, err
	}
	defer target.Close()
	// Whoever has the lock may take as long as it takes.
	locked := make(chan struct{})
	go func() {
		ticker := time.NewTicker(jobPatience / 10)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				alive()
			case <-locked:
				return
			}
		}
	}()
	unlock, err := j.lock(ctx, target)
	close(locked)
	if err != nil {
		return relabel.Result{}, err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		result, err := target.Run(ctx, relabel.Options{
			Labels: j.labels,
			Verify: true,
			Limits: j.limits, Workers: j.workers,
			State: j.state(path),
			Alive: alive,
		})
		var copies *relabel.CopyUpError
		if errors.As(err, &copies) {
			err = fmt.Errorf("a label would copy %d files with %.1f MB from below to the upper layer of the overlay: write \"strategy: context\"",
				copies.Files, float64(copies.Bytes)/1e6)
		}
		// Somebody who works in the volume makes files with a label of their own, while it is being labelled.
		if err != nil || ctx.Err() != nil || attempt == maxAttempts || !changedMeanwhile(&result) {
			return result, err
		}
		if err := j.state(path).Remove(); err != nil { // else what was done counts as done
			return result, err
		}
	}
}

// jobPatience is how long a file system may do nothing while its files are labelled, with the lowest I/O priority, until others have their
// turn.
const jobPatience = time.Minute

// forever is how long a job waits for somebody who relabels the same file system by hand.
const forever = time.Duration(math.MaxInt64)

// maxAttempts is how often a tree is labelled in which files get other labels meanwhile.
const maxAttempts = 3

// changedMeanwhile tells whether nothing is wrong with a tree but that some files did not have their label when it was read back.
func changedMeanwhile(r *relabel.Result) bool {
	return !r.Complete() && len(r.Failed) == 1 && r.Failed[0].Errno == relabel.NotKept
}

func (f *Files) add(r *relabel.Result) {
	f.Seen += r.Seen
	f.Set += r.Set
	f.Already += r.Already
	f.Resumed += r.Resumed
	f.Failed += r.FailedCount()
	for _, n := range r.Skipped {
		f.Skipped += n
	}
}

// relabelled takes note of how a relabelling ended.
func (w *Watcher) relabelled(ctx context.Context, r relabelResult) {
	job := r.job
	job.stop()
	for _, d := range job.disks {
		delete(w.relabels.busy, d)
	}
	w.relabels.queue = slices.DeleteFunc(w.relabels.queue, func(j *relabelJob) bool { return j == job })
	k := keyOf(job.mount)
	if !job.cancelled {
		delete(w.relabels.jobs, k)
		v := w.volumes[k]
		late := r.files.Set > 0 && (job.hadByPod || job.inPlace && hadByPod(w.table, job.mount))
		switch {
		case v == nil || ctx.Err() != nil:
		case errors.Is(r.err, patience.ErrNoAnswer):
			v.refuse(Refused, judge.CodeNoAnswer, judge.NoAnswer, judge.NoAnswerRemedy)
			w.failed[k] = &v.Volume
			w.settle(v)
			if !w.asking.Room.Away(v.Device) { // it answered before this was known here
				delete(w.failed, k)
				w.consider(ctx, job.mount)
			}
		case r.err != nil:
			v.Files, v.Late = &r.files, late
			v.refuse(Failed, CodeRelabelFailed, r.err.Error(), "see the journal; when the cause is gone: systemctl reload selinux-provision-mountwatch")
			w.failed[k] = &v.Volume
			if job.inPlace { // the runtime may have labelled it for its pod meanwhile
				w.consider(ctx, job.mount)
			} else {
				w.settle(v)
			}
		default:
			w.record.finish(Done{FileSystem: job.fileSystem, Context: job.want, Paths: job.paths, When: time.Now().UTC().Truncate(time.Second), Files: r.files})
			v.Files, v.Late = &r.files, late
			w.Report(Event{Kind: RelabelDone, Volume: v.Volume})
			// This is what is said of it if the roots do not have the label when they are read back; it is not done again then.
			again := &volume{Volume: v.Volume}
			again.refuse(Failed, CodeRelabelFailed, "every file was given the label "+job.want+", and "+w.rootLabels(ctx, job),
				"find out who gives it another label, such as a container with :Z; then: systemctl reload selinux-provision-mountwatch")
			w.failed[k] = &again.Volume
			w.consider(ctx, job.mount)
			if now := w.volumes[k]; now != nil {
				now.Files, now.Late = &r.files, late
				if now.told != nil {
					now.told.Files, now.told.Late = now.Files, late
				}
			}
		}
	}
	w.startRelabels(ctx)
}

// rootLabels says which labels the roots of the trees have that were labelled.
func (w *Watcher) rootLabels(ctx context.Context, j *relabelJob) string {
	text, err := ask(ctx, &w.asking, j.mount, func() (string, error) {
		var all []string
		for _, path := range pathsOf(j.paths) {
			label, err := j.mount.Label(path)
			if err != nil {
				label = "a label that cannot be read"
			}
			all = append(all, filepath.Join(j.Mountpoint, path)+" has "+cmp.Or(label, "none"))
		}
		return strings.Join(all, ", "), nil
	})
	if err != nil {
		return "its labels cannot be read back"
	}
	return text
}

// disksOf gives the disks that a device lies on, so that two partitions of one disk are known to share it. What is on no disk, such as a
// tmpfs or a server's export, is its own.
func disksOf(d mounts.Device) []string {
	const dev = "/sys/dev/block/"
	if d.Major == 0 {
		return []string{d.String()}
	}
	var disks []string
	var follow func(dir string, depth int)
	follow = func(dir string, depth int) {
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil || depth > 8 {
			disks = append(disks, dir)
			return
		}
		if _, err := os.Stat(filepath.Join(resolved, "partition")); err == nil {
			resolved = filepath.Dir(resolved)
		}
		slaves, _ := filepath.Glob(filepath.Join(resolved, "slaves/*")) // device mapper, RAID
		if len(slaves) == 0 && !slices.Contains(disks, resolved) {
			disks = append(disks, resolved)
		}
		for _, s := range slaves {
			follow(s, depth+1)
		}
	}
	follow(dev+strconv.FormatUint(uint64(d.Major), 10)+":"+strconv.FormatUint(uint64(d.Minor), 10), 0)
	slices.Sort(disks)
	return slices.Compact(disks)
}

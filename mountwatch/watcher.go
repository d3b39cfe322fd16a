// Package mountwatch gives every file system that appears the label that its rule wants, or says why not.
//
// One loop sees each change of the mount table, asks package judge for a verdict on each mount, acts on it, reads the result back and
// writes it down. What takes long goes on beside it: a mount is made again by package remount, one at a time; files are labelled by
// package relabel, one volume at a time on each disk. Whatever those do shows in the mount table, and is judged again like anything
// else, so the loop never has to believe that something worked.
//
// Do not use it to mount volumes, nor to label files while a container runs that uses them under another label. Look gives the same
// verdicts without changing anything.
package mountwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// Config is what the operator declared, and whom to ask about it.
type Config struct {
	Rules []judge.Rule
	// SharedVolumes tells whether the policy gives new files the level of their directory, without which a relabelled volume cannot be
	// shared between containers.
	SharedVolumes bool
	// Limits bound what labelling files takes from the host, and Workers how many system calls of it wait for the disk at once; 0: as
	// many as the disk needs.
	Limits  relabel.Limits
	Workers int
	// Running names the containers that run at a level of their own, as in "container web", by that level. Nil: there is nobody to ask.
	Running func() map[string]string
}

// Policy is what must be known of the kernel's policy.
type Policy interface {
	// Canonical gives a context in the form in which the kernel shows it, and whether the policy knows it.
	Canonical(context string) (canonical string, known bool, err error)
	// MayMount says whether it lets this process, and what systemd starts to mount something, give a file system a context.
	MayMount(context string) (bool, error)
}

// Watcher is the mount watcher of a host.
type Watcher struct {
	Root *hostfs.Root
	Host judge.Host
	// Policy answers for the kernel's policy.
	Policy Policy
	// Load reads the configuration.
	Load func() (Config, error)
	// Source tells what is mounted.
	Source mounts.Source
	// Systemd connects to systemd; nil: mount units are not looked at.
	Systemd func(context.Context) (*systemd.Mounts, error)
	Report  func(Event)
	// Waiting is told who is waited for if another watcher is at work; it may be nil.
	Waiting func(holder string)
	Notify  systemd.Notifier
	// Watchdog is how often systemd wants to hear of the watcher; 0 is never.
	Watchdog time.Duration
	// Rest is called when nothing more comes after many mounts came or went: a moment to give memory back. nil: nothing is done.
	Rest func()

	config  Config
	rules   *judge.Rules
	table   *mounts.Table
	record  *Record
	names   map[mounts.Device]mounts.Names
	volumes map[key]*volume
	gaveUp  map[attempt]*refusal
	failed  map[key]*Volume   // relabellings that did not give every file its label
	lost    map[string]Volume // by mountpoint: unmounted, and could not be mounted again

	remounts remounts
	relabels relabels
	asking   asking
}

// key tells mounts apart, also where IDs are used again.
type key struct {
	id     uint64
	device mounts.Device
}

func keyOf(m *mounts.Mount) key { return key{mountID(m), m.Device} }

// volume is a mount that a rule is meant for.
type volume struct {
	Volume
	mount *mounts.Mount
	names mounts.Names
	rule  *judge.Rule
	// settled tells that no other mount of the file system makes a difference to its verdict.
	settled bool
	told    *Volume // what the operator was told last, maybe by an earlier run; nil: nothing
}

// attempt names a try to get a context option.
type attempt struct{ mountpoint, context string }

// refusal is why a try was given up. It holds for one mount: the one that was left as it was, or, once it is seen, the one that was
// made in its place.
type refusal struct {
	mount   key // zero until the mount is seen that it is for
	mountID int // of that mount, as it was right afterwards
	Volume
}

// Run watches until the context ends. Each signal on reload makes it read the configuration again.
func (w *Watcher) Run(ctx context.Context, reload <-chan struct{}) error {
	unlock, err := w.alone(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := w.begin(ctx); err != nil {
		return err
	}
	// Whatever runs beside the loop ends before Run does; what was broken off goes on at the next start.
	ctx, cancel := context.WithCancel(ctx)
	var source sync.WaitGroup
	defer func() {
		cancel()
		source.Wait()
		w.remounts.wait()
		w.relabels.wait()
	}()

	back := make(chan string)
	w.asking.Room.Back = func(device string) {
		select {
		case back <- device:
		case <-ctx.Done():
		}
	}
	seen := make(chan look)
	failed := make(chan error, 1)
	source.Go(func() { failed <- watch(ctx, w.Source, seen) })

	var watchdog <-chan time.Time
	if w.Watchdog > 0 {
		ticker := time.NewTicker(w.Watchdog)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	var start start
	var pace pace
	var later <-chan time.Time // when there is something to write that was put off
	var lull lull
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	defer func() {
		if later != nil {
			w.save()
		}
	}()
	patience := time.NewTimer(time.Hour)
	defer patience.Stop()
	for {
		// Thousands of mounts that no rule is meant for must cost next to nothing.
		news := true
		w.asking.begin()
		select {
		case l := <-seen:
			w.table = l.table
			news = w.changed(ctx, l.change) || !start.ready
			if lull.saw(len(l.change.Appeared) + len(l.change.Vanished)) {
				quiet.Reset(restDelay)
			}
			if start.waits(w.remounts.running()) {
				patience.Reset(readyPatience)
			}
		case done := <-w.remounts.results():
			w.remounted(ctx, done)
		case done := <-w.relabels.results():
			w.relabelled(ctx, done)
		case device := <-back:
			w.answers(ctx, device)
		case <-reload:
			if start.ready {
				w.Notify.Reloading()
			}
			w.reload(ctx)
			if start.ready { // else the first READY is still to come: not before everything has its verdict
				w.Notify.Ready(w.summary())
			}
		case <-watchdog:
			w.Notify.Alive()
			news = false
		case <-patience.C:
			start.late = true
		case <-later:
			later = nil
		case <-quiet.C:
			news = false
			if !lull.rests(start.ready, later != nil) {
				quiet.Reset(restDelay)
				continue
			}
			w.record.forgetCopies()
			if w.Rest != nil {
				w.Rest()
			}
		case err := <-failed:
			if ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			w.Notify.Stopping()
			if w.remounts.running() {
				w.Notify.Extend(stopPatience) // killed now, it would leave a volume unmounted until the next start
			}
			return nil
		}
		if w.table == nil || !news { // nothing is known yet that could be written down, or nothing else than before
			continue
		}
		begin := time.Now()
		if wait := pace.wait(begin); start.ready && wait > 0 {
			if later == nil {
				later = time.After(wait)
			}
			continue
		}
		later = nil
		w.save()
		pace.wrote(begin, time.Now())
		if start.arrives(w.remounts.running()) {
			patience.Stop()
			w.Notify.Ready(w.summary())
		} else if start.ready {
			w.Notify.Status(w.summary())
		}
	}
}

// stopPatience is how long the stop of the service may take while a mount is being made again: unmounting writes what is in memory, and
// systemd's jobs for it have limits of their own.
const stopPatience = 15 * time.Minute

// look is what the source has told.
type look struct {
	change mounts.Change
	table  *mounts.Table
}

func watch(ctx context.Context, source mounts.Source, to chan<- look) error {
	for {
		change, err := source.Next(ctx)
		if err != nil {
			return fmt.Errorf("cannot watch the mount table: %w", err)
		}
		select {
		case to <- look{change, source.Table()}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// alone keeps a second watcher out: the two would mount the same volumes again.
func (w *Watcher) alone(ctx context.Context) (unlock func(), err error) {
	if err := w.Root.MkdirAll(RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the watcher's directory: %w", err)
	}
	if unlock, err = w.Root.Lock(ctx, hostfs.Lock{File: lockFile, Before: RunDir, Wait: lockPatience, Waiting: w.Waiting}); err != nil {
		return nil, fmt.Errorf("cannot watch beside another watcher, which is the service as a rule (systemctl status selinux-provision-mountwatch.service): %w", err)
	}
	return unlock, nil
}

// lockFile is locked by the watcher.
const lockFile = "/run/selinux-provision/locks/watcher"

// lockPatience is how long to wait for another watcher that is about to end.
const lockPatience = 10 * time.Second

// begin reads the configuration and what an earlier run has left.
func (w *Watcher) begin(ctx context.Context) error {
	if err := w.configure(); err != nil {
		return err
	}
	w.names, w.volumes = map[mounts.Device]mounts.Names{}, map[key]*volume{}
	w.gaveUp, w.failed, w.lost = map[attempt]*refusal{}, map[key]*Volume{}, map[string]Volume{}
	w.remounts.done, w.relabels.done = make(chan remountResult), make(chan relabelResult)
	w.remounts.begun = map[string][]time.Time{}
	if w.remounts.do == nil {
		w.remounts.do = w.remount
	}
	w.relabels.jobs, w.relabels.busy = map[key]*relabelJob{}, map[string]bool{}
	for _, dir := range []string{Dir, RunDir, unmountedDir, firstDir} {
		if _, err := w.Root.Sweep(dir); err != nil {
			return fmt.Errorf("cannot remove what an earlier run left behind: %w", err)
		}
	}
	w.record = LoadRecord(w.Root)
	for i := range w.record.Volumes {
		// It was unmounted for a try that failed, and would fail again. Whoever wants another try asks for it with a reload.
		if v := &w.record.Volumes[i]; v.Code == CodeRemountFailed {
			w.gaveUp[attempt{v.Mountpoint, v.Context}] = &refusal{mount: key{v.MountID, v.device()}, Volume: *v}
		}
	}
	w.forgetFirst(false)
	w.recover(ctx)
	w.declare(ctx)
	return nil
}

func (w *Watcher) configure() error {
	config, err := w.Load()
	if err != nil {
		return err
	}
	rules, err := judge.NewRules(config.Rules)
	if err != nil {
		return err
	}
	w.config, w.rules = config, rules
	return nil
}

// reload reads the configuration again. One that is wrong changes nothing.
func (w *Watcher) reload(ctx context.Context) {
	if err := w.configure(); err != nil {
		w.Report(Event{Kind: ConfigBad, Err: err})
		return
	}
	w.Report(Event{Kind: ConfigRead, Text: fmt.Sprintf("%d rules for volumes", len(w.config.Rules))})
	w.gaveUp, w.failed = map[attempt]*refusal{}, map[key]*Volume{} // what was in the way may be gone
	w.forgetFirst(true)
	w.remounts.begun = map[string][]time.Time{}
	w.declare(ctx)
	if w.table != nil {
		for _, m := range w.table.All() {
			w.consider(ctx, m)
		}
	}
}

// changed looks at what has appeared or changed, and again at every other mount of the same superblocks, for what one may get depends on
// all of them, and at those that were hidden or have come to light. It tells whether a rule is meant for any.
func (w *Watcher) changed(ctx context.Context, c mounts.Change) (declared bool) {
	touched := map[mounts.Device]bool{}
	below := map[*mounts.Mount]bool{} // what is hidden from now on, or not any more
	hide := func(m *mounts.Mount) {
		if hidden := w.table.Below(m); hidden != nil {
			below[hidden] = true
		}
	}
	for _, m := range c.Vanished {
		hide(m)
		touched[m.Device] = true
		w.relabels.cancel(keyOf(m))
		if w.volumes[keyOf(m)] != nil {
			declared = true
			// What has no name of its own is never known again. Kept, it would push out what is known of those that come back.
			w.record.forget(identity(m, mounts.Names{}), nil)
		}
		delete(w.volumes, keyOf(m))
		delete(w.failed, keyOf(m))
		delete(w.names, m.Device) // the number may belong to another file system by now
	}
	fresh := map[key]bool{}
	for _, list := range [][]*mounts.Mount{c.Appeared, c.Changed} {
		for _, m := range list {
			hide(m)
			touched[m.Device], fresh[keyOf(m)] = true, true
			w.found(m)
			declared = w.consider(ctx, m) || declared
		}
	}
	for m := range below {
		if !fresh[keyOf(m)] {
			fresh[keyOf(m)] = true
			declared = w.consider(ctx, m) || declared
		}
	}
	for device := range touched {
		for _, m := range w.table.Superblock(device) {
			if v := w.volumes[keyOf(m)]; v != nil && !v.settled && !fresh[keyOf(m)] {
				declared = w.consider(ctx, m) || declared
			}
		}
	}
	return declared
}

// answers looks again at the mounts of a file system that did not answer, and does now.
func (w *Watcher) answers(ctx context.Context, device string) {
	for _, m := range w.table.All() {
		if m.Device.String() != device {
			continue
		}
		if given := w.failed[keyOf(m)]; given != nil && given.Code == judge.CodeNoAnswer {
			delete(w.failed, keyOf(m))
		}
		w.consider(ctx, m)
	}
}

// consider judges one mount and does what the verdict says. It tells whether a rule is meant for it, or was.
func (w *Watcher) consider(ctx context.Context, m *mounts.Mount) (declared bool) {
	verdict, names := w.look().judge(ctx, m)
	v := &volume{Volume: describe(verdict), mount: m, names: names, rule: verdict.Rule, settled: verdict.Settled}
	if verdict.Outcome != judge.WantsRelabel || !w.relabels.same(keyOf(m), verdict) {
		w.relabels.cancel(keyOf(m))
	}
	switch verdict.Outcome {
	case judge.Undeclared, judge.LeftAlone:
		known := w.volumes[keyOf(m)] != nil
		delete(w.volumes, keyOf(m))
		return known
	case judge.Right: // whatever was tried for it has had its effect
		delete(w.gaveUp, attempt{v.Mountpoint, v.Context})
		delete(w.failed, keyOf(m))
	case judge.Refused:
		if v.Code == judge.CodeNoRemount { // its first mount may have been tried with the option, and what was said then tells more
			w.failedFirst(v)
			if given := w.givenUp(v); given != nil {
				v.Volume = given.Volume
				v.MountID = mountID(m)
			}
		}
	case judge.TakenOver:
	case judge.WantsContext:
		if w.unknown(v) {
			break
		}
		if w.denied(v) {
			if verdict.OrRelabel {
				w.relabel(ctx, v, verdict)
			}
			break
		}
		w.failedFirst(v)
		if given := w.givenUp(v); given != nil {
			if verdict.OrRelabel && given.Code != CodeLost {
				w.relabel(ctx, v, verdict)
			} else {
				v.Volume = given.Volume
				v.MountID = mountID(m)
			}
			break
		}
		if w.tooOften(v) {
			break
		}
		w.remounts.start(ctx, v)
	case judge.WantsRelabel:
		if !w.unknown(v) {
			w.relabel(ctx, v, verdict)
		}
	}
	w.settle(v)
	return true
}

// unknown refuses a context that the kernel's policy does not know. Files could get it all the same, and nobody could use them.
func (w *Watcher) unknown(v *volume) bool {
	_, known, err := w.Policy.Canonical(v.Context)
	switch {
	case err != nil:
		v.refuse(Failed, CodeUnknownContext, fmt.Sprintf("cannot ask the kernel about %s: %v", v.Context, err), "see \"dmesg\"")
	case !known:
		v.refuse(Refused, CodeUnknownContext, "the policy in the kernel does not know "+v.Context,
			"correct the rule "+v.Rule+", or declare the module that has this type; then: systemctl reload selinux-provision-mountwatch")
	}
	return err != nil || !known
}

// denied refuses a context option that the policy would not let anybody mount with. The kernel would refuse it when the volume is unmounted
// already.
func (w *Watcher) denied(v *volume) bool {
	may, err := w.Policy.MayMount(v.Context)
	switch {
	case err != nil:
		v.refuse(Failed, CodeDenied, fmt.Sprintf("cannot ask the kernel who may mount with %s: %v", v.Context, err), "see \"dmesg\"")
	case !may:
		v.refuse(Refused, CodeDenied, "the policy lets nobody on the host mount a file system with context="+v.Context,
			"use the type of a file, or declare a module that allows the domain of systemd { relabelfrom relabelto } on it; then: "+
				"systemctl reload selinux-provision-mountwatch")
	}
	return err != nil || !may
}

// Codes of refusals that are not the judge's: they are found out by trying.
const (
	CodeUnknownContext judge.Code = "unknown-context" // the policy does not know it
	CodeDenied         judge.Code = "mount-denied"    // the policy lets nobody mount with it
	CodeBusy           judge.Code = "busy"            // context= would need it unmounted, and it is in use
	CodeRemountFailed  judge.Code = "remount-failed"  // it could not be mounted with context=, or does not show it; it is mounted
	CodeLost           judge.Code = "lost"            // it could not be mounted again
	CodeRelabelFailed  judge.Code = "relabel-failed"  // some files did not get the label
)

func (v *volume) refuse(state State, code judge.Code, reason, remedy string) {
	v.State, v.Code, v.Reason, v.Remedy = state, code, reason, remedy
}

// givenUp gives the end of an earlier try for the same mount, or for the one that it was made from.
func (w *Watcher) givenUp(v *volume) *refusal {
	a := attempt{v.Mountpoint, v.Context}
	r := w.gaveUp[a]
	if r == nil {
		return nil
	}
	if r.mount == (key{}) && r.mountID == v.mount.ID {
		r.mount = keyOf(v.mount)
	}
	if r.mount != keyOf(v.mount) {
		delete(w.gaveUp, a) // somebody has mounted it anew
		return nil
	}
	return r
}

// tooOften refuses a volume that somebody else keeps mounting anew without its label: each is a mount of its own, for which nothing was tried.
func (w *Watcher) tooOften(v *volume) bool {
	if !w.remounts.often(v.Mountpoint, time.Now()) {
		return false
	}
	v.refuse(Failed, CodeRemountFailed, fmt.Sprintf("it was mounted again with the option %s %d times within %.0f minutes, and each time somebody mounted it anew without",
		secontext.Context(v.Context).MountOption(), maxRemounts, remountWindow.Minutes()),
		"find out who mounts it (journalctl -u "+systemd.MountUnitName(v.Mountpoint)+"); then: systemctl reload selinux-provision-mountwatch")
	w.gaveUp[attempt{v.Mountpoint, v.Context}] = &refusal{mount: keyOf(v.mount), Volume: v.Volume}
	return true
}

// settle remembers what became of a volume, and tells if that is news.
func (w *Watcher) settle(v *volume) {
	v.When = time.Now().UTC().Truncate(time.Millisecond)
	if v.told = w.record.volume(v.mount); v.told != nil {
		told := *v.told
		v.told = &told
	}
	if old := w.volumes[keyOf(v.mount)]; old != nil {
		v.told = old.told
	}
	w.volumes[keyOf(v.mount)] = v
	if !v.State.Final() {
		return
	}
	if v.told != nil && v.told.sameFate(&v.Volume) {
		v.When = v.told.When
		if v.Files == nil {
			v.Files, v.Late = v.told.Files, v.told.Late
		}
		return
	}
	told := v.Volume
	v.told = &told
	switch v.State {
	case Labelled:
		w.Report(Event{Kind: VolumeLabelled, Volume: v.Volume})
		if v.NotShared(w.config) {
			w.Report(Event{Kind: NotShared, Volume: v.Volume})
		}
	case TakenOver:
		w.Report(Event{Kind: VolumeTaken, Volume: v.Volume})
	case Refused, Failed:
		w.Report(Event{Kind: VolumeRefused, Volume: v.Volume})
	}
}

// save writes the record down. Where it cannot be written the watcher goes on: a record saves work and is never needed.
func (w *Watcher) save() {
	w.record.Volumes = w.record.Volumes[:0] // whoever asked for one of them has a copy
	for _, v := range w.volumes {
		w.record.Volumes = append(w.record.Volumes, v.Volume)
	}
	for _, v := range w.lost {
		w.record.Volumes = append(w.record.Volumes, v)
	}
	slices.SortFunc(w.record.Volumes, func(a, b Volume) int {
		return cmp.Or(strings.Compare(a.Mountpoint, b.Mountpoint), cmp.Compare(a.MountID, b.MountID))
	})
	if err := w.record.save(w.Root); err != nil {
		w.Report(Event{Kind: CannotRemember, Err: err})
	}
}

func (w *Watcher) summary() string {
	counts := map[State]int{}
	for _, v := range w.volumes {
		counts[v.State]++
	}
	if len(w.volumes) == 0 {
		return fmt.Sprintf("%d rules for volumes, none of them mounted", len(w.config.Rules))
	}
	var parts []string
	for _, s := range []State{Labelled, Remounting, Relabelling, TakenOver, Refused, Failed} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	return "volumes: " + strings.Join(parts, ", ")
}

// ErrOtherNamespace says that the process does not see the host's mounts.
var ErrOtherNamespace = errors.New("this process is not in the mount namespace of PID 1, and would see its own mounts only: " +
	"remove ProtectSystem=, PrivateTmp= and the like from the unit")

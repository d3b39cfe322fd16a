package mountwatch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

// unmountedDir holds a note for each file system that is unmounted at this moment, to be mounted again. It does not outlive the boot,
// which makes all mounts anew.
const unmountedDir = "/run/selinux-provision/unmounted"

// remounts makes mounts again, one at a time: systemd reads the whole mount table at each change.
type remounts struct {
	queue []*volume
	busy  bool
	done  chan remountResult
	group sync.WaitGroup
	begun map[string][]time.Time // by mountpoint, within remountWindow
	do    func(context.Context, *volume) (unmounted bool, err error)
}

// At most maxRemounts times within remountWindow something is mounted again at one place, whoever asks for it, and by whatever way.
const (
	maxRemounts   = 10
	remountWindow = 10 * time.Minute
)

// often tells whether enough was tried at a mountpoint for now.
func (r *remounts) often(mountpoint string, now time.Time) bool {
	begun := slices.DeleteFunc(r.begun[mountpoint], func(t time.Time) bool { return now.Sub(t) > remountWindow })
	if r.begun[mountpoint] = begun; len(begun) == 0 {
		delete(r.begun, mountpoint)
	}
	return len(begun) >= maxRemounts
}

type remountResult struct {
	volume    *volume
	unmounted bool
	err       error
	took      time.Duration
}

func (r *remounts) running() bool                 { return r.busy }
func (r *remounts) results() <-chan remountResult { return r.done }
func (r *remounts) wait()                         { r.group.Wait() }

// start puts a mount in the queue, unless it is there.
func (r *remounts) start(ctx context.Context, v *volume) {
	for _, other := range r.queue {
		if other.Mountpoint == v.Mountpoint {
			return
		}
	}
	r.queue = append(r.queue, v)
	r.begun[v.Mountpoint] = append(r.begun[v.Mountpoint], time.Now())
	r.next(ctx)
}

// What is in use is asked for again within busyPatience, at first after busyPause: somebody who only looked into it is gone by then. Not where more than
// fewRemounts are to be made again, and so many would wait for those who stay.
const (
	busyPause    = 100 * time.Millisecond // twice as long each time
	busyPatience = 2 * time.Second
	fewRemounts  = 8
)

// next begins with the first of the queue. It stays in the queue while it is at work.
func (r *remounts) next(ctx context.Context) {
	if r.busy || len(r.queue) == 0 {
		return
	}
	r.busy = true
	v, few := r.queue[0], len(r.queue) <= fewRemounts
	r.group.Go(func() {
		begin := time.Now()
		unmounted, err := r.do(ctx, v)
		for pause := busyPause; few && errors.Is(err, remount.ErrBusy) && !unmounted && time.Since(begin)+pause <= busyPatience; pause *= 2 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			unmounted, err = r.do(ctx, v)
		}
		select {
		case r.done <- remountResult{v, unmounted, err, time.Since(begin)}:
		case <-ctx.Done():
		}
	})
}

// remount gives a mount the context that it is to have. It runs beside the loop and touches nothing of the watcher's.
func (w *Watcher) remount(ctx context.Context, v *volume) (unmounted bool, err error) {
	if err := elsewhere(ctx, v.mount); err != nil {
		return false, err
	}
	// A watcher that is being stopped finishes this: nobody else would mount the volume again before its next start.
	ctx = context.WithoutCancel(ctx)
	if err := w.Root.MkdirAll(unmountedDir, 0o700); err != nil {
		return false, fmt.Errorf("cannot write down what is about to be unmounted: %w", err)
	}
	note := noteName(v.Mountpoint)
	unitName := ""
	keep := func(m *mounts.Mount) error { return w.keep(ctx, m, unitName) }
	defer func() {
		var lost *remount.LostError
		if !errors.As(err, &lost) {
			err = errors.Join(err, w.Root.Remove(note))
		}
	}()
	if w.Systemd != nil {
		s, err := w.Systemd(ctx)
		if err != nil {
			return false, err
		}
		defer s.Close()
		unit, err := remount.FindUnit(ctx, w.Root, s, v.mount)
		if err != nil {
			return false, err
		}
		if unit != nil {
			unitName = unit.Name()
			return unit.Do(ctx, v.Context, keep, func(ctx context.Context) error { return w.mountFirst(ctx, s, unit.Name(), v.Context) })
		}
	}
	again, err := remount.Prepare(v.mount, v.Context)
	if err != nil {
		return false, err
	}
	defer again.Close()
	err = again.Do(ctx, keep)
	return again.Unmounted(), err
}

// keep is called right before a mount is unmounted, and writes down what is needed to mount it again.
func (w *Watcher) keep(ctx context.Context, m *mounts.Mount, unit string) error {
	// Once more, at the last moment: of an overlay nothing else would tell that the old superblock lives on, and two on one upper directory
	// damage it (Documentation/filesystems/overlayfs.rst).
	if err := elsewhere(ctx, m); err != nil {
		return err
	}
	content, err := json.Marshal(noteOf(m, unit))
	if err == nil {
		err = w.Root.WriteFile(noteName(m.Mountpoint), content, hostfs.Attributes{Mode: 0o600})
	}
	if err != nil {
		return fmt.Errorf("cannot write down what is about to be unmounted: %w", err)
	}
	return nil
}

// mountFirst has a mount made with a context before systemd makes it without, in a unit of its own: what serves the file system must not be a
// process of the watcher's.
func (w *Watcher) mountFirst(ctx context.Context, s *systemd.Mounts, mountUnit, context string) error {
	if err := (firstNote{Context: context}).write(w.Root, mountUnit); err != nil {
		return err
	}
	err := s.Start(ctx, declared.FirstInstance(mountUnit))
	note, noted := readFirst(w.Root, mountUnit)
	switch {
	case !noted: // it has done its work
	case note.Failed != "":
		err = errors.New(note.Failed)
	case err == nil:
		err = errors.New("it was not tried: see the journal of " + declared.FirstInstance(mountUnit))
	}
	return errors.Join(err, w.Root.Remove(firstName(mountUnit)))
}

// elsewhere says who else has the superblock mounted, so that it would stay when this mount goes. Copies that follow it go with it: a service with
// a namespace of its own has one of each mount of the host.
func elsewhere(ctx context.Context, m *mounts.Mount) error {
	holders, err := mounts.Holders(ctx, m.Device)
	if err != nil {
		return fmt.Errorf("cannot tell who else has it mounted: %w", err)
	}
	var itself mounts.Holder
	if i := slices.IndexFunc(holders, func(h mounts.Holder) bool { return h.Own && h.ID == m.ID }); i >= 0 {
		itself = holders[i]
	}
	for _, h := range holders {
		switch {
		case h.Own && h.ID == m.ID, h.GoesWith(&itself):
		case h.Own:
			return fmt.Errorf("%w: it is mounted at %s as well", remount.ErrBusy, h.Mountpoint)
		case h.PID != 0:
			return fmt.Errorf("%w: process %d has it mounted in a namespace of its own, at %s there", remount.ErrBusy, h.PID, h.Mountpoint)
		default:
			return fmt.Errorf("%w: it is mounted in another mount namespace", remount.ErrBusy)
		}
	}
	return nil
}

// remounted takes note of how a remount ended.
func (w *Watcher) remounted(ctx context.Context, r remountResult) {
	w.remounts.busy = false
	w.remounts.queue = w.remounts.queue[1:]
	v := r.volume
	old := keyOf(v.mount)
	if r.err == nil {
		w.Report(Event{Kind: Remounted, Volume: v.Volume, Took: r.took})
	}
	if ctx.Err() == nil {
		// Also of a try that succeeded: it is not made again if the table does not show what it was for.
		given := &refusal{mount: old, Volume: v.Volume}
		var now *mounts.Mount
		if r.unmounted {
			given.mount = key{}
			if now = remount.Mounted(v.Mountpoint); now != nil {
				given.mountID = now.ID
			}
		}
		if r.err == nil {
			given.State, given.Code, given.Reason, given.Remedy = withoutEffect(v, now)
		} else {
			given.State, given.Code, given.Reason, given.Remedy = whyNot(v, r.err)
		}
		w.gaveUp[attempt{v.Mountpoint, v.Context}] = given
		var lost *remount.LostError
		if errors.As(r.err, &lost) {
			w.lost[v.Mountpoint] = given.Volume
			w.Report(Event{Kind: VolumeLost, Volume: given.Volume})
		}
	}
	// What the table told of meanwhile was put off.
	for _, m := range w.table.All() {
		if m.Mountpoint == v.Mountpoint && (!r.unmounted || keyOf(m) != old) {
			w.consider(ctx, m)
		}
	}
	w.remounts.next(ctx)
}

// withoutEffect says what was wanted and what there is now.
func withoutEffect(v *volume, now *mounts.Mount) (state State, code judge.Code, reason, remedy string) {
	shows := "nothing there"
	if now != nil {
		shows = cmp.Or(secontext.Context(now.Context()).MountOption(), "no option context= there")
	}
	return Failed, CodeRemountFailed, "it was mounted again with the option " + secontext.Context(v.Context).MountOption() + ", and the mount table shows " + shows,
		"see who mounts it, and \"dmesg\" for what the kernel says; then: systemctl reload selinux-provision-mountwatch"
}

func whyNot(v *volume, err error) (state State, code judge.Code, reason, remedy string) {
	var (
		impossible *remount.ImpossibleError
		lost       *remount.LostError
	)
	switch {
	case errors.As(err, &lost):
		return Failed, CodeLost, err.Error(), "mount it by hand; see the journal and \"dmesg\""
	case errors.Is(err, remount.ErrBusy):
		return Refused, CodeBusy, "it needs the option context=, and so to be mounted again, and " + err.Error(),
			"stop what uses it (fuser -vm " + remount.Word(v.Mountpoint) + "), " + tryAgain + "; or reboot"
	case errors.As(err, &impossible):
		return Refused, judge.CodeNoRemount, "it needs the option context=, and so to be mounted again, and " + err.Error(),
			"unmount it and mount it with -o " + remount.Word(secontext.Context(v.Context).MountOption())
	}
	return Failed, CodeRemountFailed, "it could not be mounted with the option context=, and is mounted as before: " + err.Error(),
		"see \"dmesg\" for what the kernel says; " + tryAgain
}

// unmounted is what is written down of a file system before it is unmounted.
type unmounted struct {
	Mount mounts.Mount
	// Mountpoint, Source and SuperOptions are those of the mount: as bytes, for JSON does not keep what is not UTF-8.
	Mountpoint, Source, SuperOptions []byte
	// Unit is the one that mounts it again; "" if its mountpoint's, if there is one, is for something else.
	Unit string
	// UUIDs are those of the file system, and File is what is behind its loop device: its number may be given to another meanwhile.
	UUIDs []string
	File  string
	// Stacked is how many mounts there were at the mountpoint, this one included.
	Stacked int
}

func noteName(mountpoint string) string {
	return path.Join(unmountedDir, systemd.MountUnitName(mountpoint)+".json")
}

func noteOf(m *mounts.Mount, unit string) *unmounted {
	names, _ := m.Names() // what could be found
	return &unmounted{*m, []byte(m.Mountpoint), []byte(m.Source), []byte(m.SuperOptions), unit, names.UUIDs, behindLoop(m.Device),
		remount.Stacked(m.Mountpoint)}
}

// readNote is false for what was cut off or damaged.
func readNote(content []byte) (n unmounted, ok bool) {
	if json.Unmarshal(content, &n) != nil || len(n.Mountpoint) == 0 {
		return n, false
	}
	n.Mount.Mountpoint, n.Mount.Source, n.Mount.SuperOptions = string(n.Mountpoint), string(n.Source), string(n.SuperOptions)
	return n, true
}

// sameDevice makes sure that the device's number still stands for the file system that was unmounted.
func (n *unmounted) sameDevice() error {
	if file := behindLoop(n.Mount.Device); file != n.File {
		return fmt.Errorf("its loop device is gone, and with it the way to %s", n.File)
	}
	if len(n.UUIDs) == 0 {
		return nil
	}
	names, err := n.Mount.Names()
	if err == nil && !slices.Equal(names.UUIDs, n.UUIDs) {
		err = fmt.Errorf("the device %s holds another file system now", n.Mount.Device)
	}
	return err
}

// behindLoop gives the file behind a loop device, "" if there is none.
func behindLoop(d mounts.Device) string {
	file, err := os.ReadFile("/sys/dev/block/" + d.String() + "/loop/backing_file")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(file), "\n")
}

// found takes note of a mount in the place of one that was lost: nobody has to bring it back any more.
func (w *Watcher) found(m *mounts.Mount) {
	if _, lost := w.lost[m.Mountpoint]; !lost {
		return
	}
	delete(w.lost, m.Mountpoint)
	if err := w.Root.Remove(noteName(m.Mountpoint)); err != nil {
		w.Report(Event{Kind: CannotRemember, Err: err})
	}
}

// unmountedNow gives the mounts that there are notes of.
func unmountedNow(root *hostfs.Root) (all []*mounts.Mount) {
	entries, err := root.ReadDir(unmountedDir)
	if err != nil {
		return nil // there is none: nothing was ever unmounted in this boot
	}
	for _, e := range entries {
		content, err := root.ReadFile(path.Join(unmountedDir, e.Name()))
		if n, ok := readNote(content); err == nil && ok {
			all = append(all, &n.Mount)
		}
	}
	return all
}

// recover mounts what a watcher that was killed had unmounted, and not mounted again.
func (w *Watcher) recover(ctx context.Context) {
	entries, err := w.Root.ReadDir(unmountedDir)
	if err != nil {
		return // there is none: nothing was ever unmounted in this boot
	}
	for _, e := range entries {
		note := path.Join(unmountedDir, e.Name())
		content, err := w.Root.ReadFile(note)
		n, ok := readNote(content)
		if err != nil || !ok {
			continue // cut off while it was written, before anything was unmounted
		}
		m := &n.Mount
		v := Volume{Mountpoint: m.Mountpoint, Source: m.Source, FSType: m.FSType, Device: m.Device.String()}
		if remount.Stacked(m.Mountpoint) < max(n.Stacked, 1) {
			if err := w.mountAgain(ctx, &n); err != nil {
				lost := &remount.LostError{Mount: m, Err: err}
				v.State, v.Code, v.Reason, v.Remedy = Failed, CodeLost, lost.Error(), "mount it by hand; see the journal and \"dmesg\""
				w.lost[v.Mountpoint] = v
				w.Report(Event{Kind: VolumeLost, Volume: v})
				continue
			}
			w.Report(Event{Kind: Recovered, Volume: v})
		}
		if err := w.Root.Remove(note); err != nil {
			w.Report(Event{Kind: CannotRemember, Err: err})
		}
	}
}

func (w *Watcher) mountAgain(ctx context.Context, n *unmounted) error {
	if w.Systemd != nil && n.Unit != "" {
		s, err := w.Systemd(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Start(ctx, n.Unit); err == nil {
			return nil
		}
	}
	if err := n.sameDevice(); err != nil {
		return err
	}
	return remount.Restore(&n.Mount)
}

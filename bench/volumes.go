package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

const (
	labelRounds   = 31
	remountRounds = 15
	fewFiles      = 10
	manyFiles     = 1_000_000

	labelRole = "label-volumes" // in a mount namespace of its own
)

// volumeReport is what the process in the namespace tells.
type volumeReport struct {
	Labelled  []time.Duration // from the return of mount(2) until every label of an empty ext4 was read back
	Few, Many []time.Duration // to unmount a file system and mount it with another option
}

// volumes measures the watcher's hands. This kernel may be without SELinux: then a label is a plain attribute of a file, and another
// option stands for context=, which is fixed at the first mount as well.
func (b *bench) volumes(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", labelRole, b.scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", labelRole, err)
	}
	var r volumeReport
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	var labelled, few, many samples
	for to, from := range map[*samples][]time.Duration{&labelled: r.Labelled, &few: r.Few, &many: r.Many} {
		for _, d := range from {
			to.add(d)
		}
	}
	const goal = 20 * time.Millisecond
	b.add(row{"mount(2) of an empty ext4 returning to its labels read back (relabel)", microseconds(labelled.median()), "", "", "<= 20 ms", labelled.median() <= goal})
	b.compare(fmt.Sprintf("a volume mounted again with another option, %d files / %d files", manyFiles, fewFiles), many, few, 1.5)
	return nil
}

// anything is a policy that allows everything.
type anything struct{}

// Canonical is as mountwatch.Policy says.
func (anything) Canonical(c string) (string, bool, error) { return c, true, nil }

// MayMount is as mountwatch.Policy says.
func (anything) MayMount(string) (bool, error) { return true, nil }

// seclabel is a source that shows only the mounts below a directory, as a kernel with SELinux does.
type seclabel struct {
	*mounts.Watcher
	below string
	table *mounts.Table
}

// Next is as mounts.Source says.
func (s *seclabel) Next(ctx context.Context) (mounts.Change, error) {
	for first := s.table == nil; ; {
		c, err := s.Watcher.Next(ctx)
		if err != nil {
			return c, err
		}
		s.table = mounts.NewTable(s.pick(s.Watcher.Table().All()))
		c = mounts.Change{Appeared: s.pick(c.Appeared), Vanished: s.pick(c.Vanished), Changed: s.pick(c.Changed)}
		if first || !c.Empty() {
			return c, nil
		}
	}
}

// Table is as mounts.Source says.
func (s *seclabel) Table() *mounts.Table { return s.table }

func (s *seclabel) pick(all []*mounts.Mount) (ours []*mounts.Mount) {
	for _, m := range all {
		if strings.HasPrefix(m.Mountpoint, s.below+"/") {
			shown := *m
			if !shown.Seclabel() {
				shown.SuperOptions += ",seclabel"
			}
			ours = append(ours, &shown)
		}
	}
	return ours
}

// label is the role of the process in the namespace.
func label(ctx context.Context, scratch string) error {
	if !ownNamespace() {
		return errors.New("it would mount things in the namespace of the host")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var r volumeReport
	if err := r.label(ctx, filepath.Join(scratch, "labelled")); err != nil {
		return err
	}
	few, err := newVolume(ctx, filepath.Join(scratch, "few"), fewFiles)
	if err != nil {
		return err
	}
	defer few.remove()
	many, err := newVolume(ctx, filepath.Join(scratch, "many"), manyFiles)
	if err != nil {
		return err
	}
	defer many.remove()
	for round := range remountRounds {
		turns := []func() error{func() error { return few.remount(ctx, round, &r.Few) }, func() error { return many.remount(ctx, round, &r.Many) }}
		if err := errors.Join(turns[round%2](), turns[1-round%2]()); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// label mounts one new file system after the other beside a watcher.
func (r *volumeReport) label(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o755); err != nil {
		return err
	}
	root, err := hostfs.Open(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	defer root.Close()
	watcher, err := mounts.Open(true)
	if err != nil {
		return err
	}
	defer watcher.Close()
	const defaultContext = "system_u:object_r:container_file_t:s0"
	labelled := make(chan int64, 1)
	failed := make(chan string, 1)
	w := mountwatch.Watcher{
		Root: root, Host: judge.Host{SELinux: true, DefaultContext: defaultContext}, Source: &seclabel{Watcher: watcher, below: dir},
		Policy: anything{},
		Load: func() (mountwatch.Config, error) {
			rule := judge.Rule{Name: "bench", Match: judge.Match{Mountpoint: dir + "/*"}, Strategy: judge.Relabel}
			return mountwatch.Config{Rules: []judge.Rule{rule}, SharedVolumes: true}, nil
		},
		Report: func(e mountwatch.Event) {
			switch e.Kind {
			case mountwatch.VolumeLabelled:
				labelled <- monotonic()
			case mountwatch.VolumeRefused:
				failed <- e.Volume.Reason
			}
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, nil) }()
	defer func() { cancel(); <-ended }()
	for i := range labelRounds {
		image, point := filepath.Join(dir, "image"), filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(point, 0o755); err != nil {
			return err
		}
		disk, err := newDisk(ctx, image, "64M")
		if err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond) // until the watcher waits
		if err := unix.Mount(disk, point, "ext4", 0, ""); err != nil {
			return err
		}
		returned := monotonic()
		select {
		case at := <-labelled:
			r.Labelled = append(r.Labelled, time.Duration(max(0, at-returned)))
		case why := <-failed:
			return errors.New(why)
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the watcher does not label it")
		}
		// The handle of the relabelling may be closed a moment later than it tells.
		for err = unix.Unmount(point, 0); errors.Is(err, unix.EBUSY); err = unix.Unmount(point, 0) {
			time.Sleep(time.Millisecond)
		}
		if err := errors.Join(err, exec.CommandContext(ctx, "losetup", "--detach", disk).Run(), os.Remove(image)); err != nil {
			return err
		}
	}
	return nil
}

// newDisk gives a loop device with an empty ext4.
func newDisk(ctx context.Context, image, size string) (string, error) {
	for _, argv := range [][]string{{"truncate", "-s", size, image}, {"mkfs.ext4", "-q", "-N", "1100000", image}} {
		if size == "64M" && argv[0] == "mkfs.ext4" {
			argv = []string{"mkfs.ext4", "-q", image}
		}
		if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
			return "", err
		}
	}
	device, err := exec.CommandContext(ctx, "losetup", "--find", "--show", image).Output()
	return strings.TrimSpace(string(device)), err
}

// volume is a mounted file system with files.
type volume struct{ image, disk, point string }

func newVolume(ctx context.Context, point string, files int) (v *volume, err error) {
	v = &volume{image: filepath.Join("/var/tmp", filepath.Base(point)+"-"+strconv.Itoa(os.Getpid())+".ext4"), point: point}
	if err := os.MkdirAll(point, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.remove()
		}
	}()
	if v.disk, err = newDisk(ctx, v.image, "2G"); err != nil {
		return nil, err
	}
	if err := unix.Mount(v.disk, point, "ext4", 0, ""); err != nil {
		return nil, err
	}
	for i := range files {
		sub := filepath.Join(point, strconv.Itoa(i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return nil, err
			}
		}
		if err := unix.Mknod(filepath.Join(sub, strconv.Itoa(i%1000)), unix.S_IFREG|0o644, 0); err != nil {
			return nil, err
		}
	}
	unix.Sync()
	return v, nil
}

// remove ends what newVolume began, as far as it got.
func (v *volume) remove() {
	_ = unix.Unmount(v.point, 0)
	if v.disk != "" {
		_ = exec.Command("losetup", "--detach", v.disk).Run()
	}
	_ = os.Remove(v.image)
}

// remount mounts the volume again with another option, and adds how long that took.
func (v *volume) remount(ctx context.Context, round int, took *[]time.Duration) error {
	begin := time.Now()
	again, err := remount.PrepareOptions(remount.Mounted(v.point), []remount.Option{{Key: "commit", Value: strconv.Itoa(10 + round%2)}})
	if err != nil {
		return err
	}
	defer again.Close()
	if err := again.Do(ctx, func(*mounts.Mount) error { return nil }); err != nil {
		return err
	}
	*took = append(*took, time.Since(begin))
	return nil
}

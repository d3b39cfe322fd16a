package relabel

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Lock keeps other runs on this host off the file system that the tree is on: two runs with two labels leave a mixture behind, and each
// has read back what it wrote. It waits for up to wait, and calls waiting once, with the holder, if it has to; a hostfs.LockedError says who
// still has it then. With the lock, the run is known to later ones: what was recorded before of a run that was broken off is not believed any
// more. A user without the right to make the lock, who labels files of their own, goes without it.
func (t *Target) Lock(ctx context.Context, host *hostfs.Root, wait time.Duration, waiting func(holder string)) (unlock func(), err error) {
	dev := uint64(t.stat.Dev)
	device := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	unlock, err = host.Lock(ctx, hostfs.Lock{File: "/run/selinux-provision/locks/volume-" + device,
		Before: "/run/selinux-provision/relabelling/" + device, Wait: wait, Waiting: waiting})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	t.last = t.lastRun(host, device)
	return unlock, nil
}

// lastRun is a file that names the last run which gave labels on a file system, so that what an earlier one has recorded is believed only if
// none came in between. It is written before the first label, and by nobody who finds everything right.
type lastRun struct {
	host *hostfs.Root
	file string
	none string // what stands for no run at all
}

// lastRun gives that of the target's file system. One with a UUID is known again after the next boot, by whatever device it comes; any other
// one as long as the host runs.
func (t *Target) lastRun(host *hostfs.Root, device string) *lastRun {
	if here, _, err := t.mounts(); err == nil && here.mount != nil {
		if names, _ := here.mount.Names(); len(names.UUIDs) > 0 {
			sum := sha256.Sum256([]byte(here.mount.FSType + " " + names.UUIDs[0]))
			return &lastRun{host, "/var/lib/selinux-provision/relabel/last-" + hex.EncodeToString(sum[:8]), ""}
		}
	}
	return &lastRun{host, "/run/selinux-provision/relabel/last-" + device, "none since boot " + bootID()}
}

// get names the run, whoever it was.
func (l *lastRun) get() string {
	if l == nil {
		return ""
	}
	name, err := l.host.ReadFile(l.file)
	if err != nil || len(name) == 0 {
		return l.none
	}
	return string(name)
}

// set makes a new run the last one, and names it. Where the file cannot be written it is removed: then no earlier record is believed either.
func (l *lastRun) set() string {
	name := rand.Text()
	err := l.host.MkdirAll(path.Dir(l.file), 0o755)
	if err == nil {
		err = l.host.WriteFile(l.file, []byte(name), hostfs.Attributes{Mode: 0o644})
	}
	if err != nil {
		_ = l.host.Remove(l.file)
	}
	return name
}

// announcing names the run on the host before its first label.
type announcing struct {
	system
	once *sync.Once
	run  *run
}

func (a announcing) announce() {
	a.once.Do(func() {
		name := a.run.target.last.set()
		a.run.last.Store(&name)
	})
}

func (a announcing) set(name *byte, value []byte, flags int) unix.Errno {
	a.announce()
	return a.system.set(name, value, flags)
}

func (a announcing) setPinned(fd int, value []byte, flags int) unix.Errno {
	a.announce()
	return a.system.setPinned(fd, value, flags)
}

func (a announcing) setOpen(fd int, value []byte, flags int) unix.Errno {
	a.announce()
	return a.system.setOpen(fd, value, flags)
}

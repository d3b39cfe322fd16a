package hostfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// LockedError says who holds a lock that was not to be had in time.
type LockedError struct {
	Path   string
	Holder string // "process 812 (selinux-provision apply)", or "another process"
	Waited time.Duration
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("cannot lock %s within %s: %s has it: try again when that has ended", e.Path, e.Waited.Round(time.Second), e.Holder)
}

// interruptedError says what was waited for when the wait ended before its time.
type interruptedError struct {
	path, holder string
	cause        error
}

func (e *interruptedError) Error() string {
	return fmt.Sprintf("cannot lock %s: %s has it, and the wait for it was interrupted", e.path, e.holder)
}

func (e *interruptedError) Unwrap() error { return e.cause }

// A Lock keeps the runs of this program apart. The kernel drops it when the process ends, however it ends.
type Lock struct {
	// File is locked with flock(2), for which it is enough to have opened it. So it is a file of mode 0600 in a directory of mode 0700,
	// which it shares with other locks only. Both are made, and made right where they are not.
	File string
	// Before is the directory that earlier versions of this program lock instead, with mode 0755. It is locked as well if it is there and
	// free, and waited for if such a version has it. A lock that anybody else has on it counts for nothing.
	Before string
	// Wait is how long to wait for the holder. Waiting is called once, with the holder, when it begins; it may be nil.
	Wait    time.Duration
	Waiting func(holder string)
}

// Lock takes l, and gives it back with release. A LockedError says who still has it after l.Wait.
func (r *Root) Lock(ctx context.Context, l Lock) (release func(), err error) {
	start := time.Now()
	fd, err := r.flock(ctx, l, l.File, func() (int, error) { return r.openLock(ctx, l.File) }, anyHolder)
	if err != nil || l.Before == "" {
		return func() { unlock(fd) }, err
	}
	l.Wait -= time.Since(start)
	before, err := r.flock(ctx, l, l.Before, func() (int, error) { return r.open(l.Before, unix.O_RDONLY|unix.O_DIRECTORY) }, ourHolder)
	switch {
	case NoFile(err):
		return func() { unlock(fd) }, nil
	case err != nil:
		unlock(fd)
		return nil, err
	}
	return func() { unlock(before); unlock(fd) }, nil
}

// unlock gives a lock back and closes its file. Closing alone would leave it with whoever was forked at this moment and has not executed
// its program yet: a flock(2) belongs to the open file, which both have.
func unlock(fd int) {
	_ = unix.Flock(fd, unix.LOCK_UN)
	unix.Close(fd)
}

// LockForeign takes the flock(2) that another program takes on its file name, which must exist, and waits for it up to wait.
func (r *Root) LockForeign(ctx context.Context, name string, wait time.Duration) (release func(), err error) {
	fd, err := r.flock(ctx, Lock{Wait: wait}, name, func() (int, error) { return r.open(name, unix.O_RDONLY) }, anyHolder)
	return func() { unlock(fd) }, err
}

// flock locks what open gives and name leads to. Where no holder counts it gives fs.ErrNotExist.
func (r *Root) flock(ctx context.Context, l Lock, name string, open func() (int, error), counts func([]holder) (string, bool)) (int, error) {
	fd, err := open()
	if err != nil {
		return -1, fmt.Errorf("cannot lock %s: %w", r.Path(name), err)
	}
	start := time.Now()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// A lock on what the last holder has removed or replaced keeps nobody out.
			if r.leadsTo(name, fd) {
				return fd, nil
			}
			unix.Close(fd)
			if fd, err = open(); err != nil {
				return -1, fmt.Errorf("cannot lock %s: %w", r.Path(name), err)
			}
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return -1, r.fail("lock", name, err)
		}
		who, wait := counts(holdersOf(fd))
		if !wait {
			unix.Close(fd)
			return -1, r.fail("lock", name, fs.ErrNotExist)
		}
		if time.Since(start) >= l.Wait {
			unix.Close(fd)
			return -1, &LockedError{Path: r.Path(name), Holder: who, Waited: time.Since(start)}
		}
		if l.Waiting != nil {
			l.Waiting(who)
			l.Waiting = nil
		}
		select {
		case <-ctx.Done():
			unix.Close(fd)
			return -1, &interruptedError{r.Path(name), who, ctx.Err()}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// openLock opens the file of a lock, and makes it and its directory what they must be. A file that somebody else could open is replaced,
// since whoever has opened it can go on to lock it.
func (r *Root) openLock(ctx context.Context, name string) (int, error) {
	for attempt := 1; ; attempt++ {
		fd, err := r.tryLockFile(name)
		// Somebody else makes the same at this moment, or a revert has removed it.
		again := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)
		if !again || attempt == 100 || ctx.Err() != nil {
			return fd, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *Root) tryLockFile(name string) (int, error) {
	dirName, base := path.Dir(clean(name)), path.Base(name)
	if err := r.MkdirAll(path.Dir(dirName), 0o755); err != nil {
		return -1, err
	}
	above, dirBase, err := r.parent(dirName)
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, dirBase, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, r.fail("mkdir", dirName, err)
	}
	dir, err := unix.Openat(above, dirBase, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, r.fail("open", dirName, err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return -1, r.fail("stat", dirName, err)
	}
	if !private(&st) {
		if err := setAttributes(dir, uint32(os.Geteuid()), uint32(os.Getegid()), 0o700); err != nil {
			return -1, r.fail("chmod", dirName, err)
		}
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err == nil {
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && private(&st) {
			return fd, nil
		}
		unix.Close(fd)
	} else if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENXIO) { // a link, a socket
		return -1, r.fail("open", name, err)
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil {
		return -1, r.fail("remove", name, err)
	}
	return -1, r.fail("open", name, fs.ErrNotExist)
}

// MakePrivate takes everybody else's rights off the regular file name. A link is not followed.
func (r *Root) MakePrivate(name string) error {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return r.fail("stat", name, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return r.fail("chmod", name, unix.EINVAL)
	case private(&st):
		return nil
	}
	return r.describe("chmod", name, setAttributes(fd, uint32(os.Geteuid()), uint32(os.Getegid()), 0o600))
}

// private reports whether nobody but this process' user, and root, can open a file.
func private(st *unix.Stat_t) bool { return st.Uid == uint32(os.Geteuid()) && st.Mode&0o077 == 0 }

// leadsTo tells whether name leads to the open file fd.
func (r *Root) leadsTo(name string, fd int) bool {
	var st unix.Stat_t
	info, err := r.Stat(name)
	return err == nil && unix.Fstat(fd, &st) == nil && info.Dev == uint64(st.Dev) && info.Ino == st.Ino
}

// holder is a process that has a flock.
type holder struct {
	pid string
	run bool // it is this program, run by the same user as this process: root
}

func (h holder) String() string {
	cmdline, err := os.ReadFile("/proc/" + h.pid + "/cmdline")
	if err != nil || len(cmdline) == 0 {
		return "process " + h.pid
	}
	const longest = 200
	args := string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))
	return "process " + h.pid + " (" + printable.Clip(printable.Text(args), longest) + ")"
}

func anyHolder(all []holder) (string, bool) {
	if len(all) == 0 {
		return "another process", true
	}
	return all[0].String(), true
}

func ourHolder(all []holder) (string, bool) {
	for _, h := range all {
		if h.run {
			return h.String(), true
		}
	}
	return "", false
}

// holdersOf finds who has a flock on fd, in /proc/locks (proc(5): "1: FLOCK ADVISORY WRITE PID MAJ:MIN:INODE ...").
func holdersOf(fd int) (all []holder) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return nil
	}
	// The kernel gives a page at a time, and leaves a line out when a lock before it goes away between two pages.
	for range 5 {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			return nil
		}
		for line := range strings.Lines(string(locks)) {
			f := strings.Fields(line)
			if len(f) < 6 || f[1] != "FLOCK" {
				continue
			}
			if _, inode, ok := strings.Cut(f[5], ":"); ok && strings.HasSuffix(inode, ":"+strconv.FormatUint(st.Ino, 10)) {
				all = append(all, holder{f[4], isRun(f[4])})
			}
		}
		if len(all) > 0 {
			break
		}
	}
	return all
}

// isRun reports whether a process is this program, and has been this process' user all along. A lock outlives in other processes the one
// that took it, whose number may then be anybody's; so the name has to be right, too.
func isRun(pid string) bool {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return false
	}
	own, err := os.ReadFile("/proc/self/status")
	return err == nil && statusField(status, "Name") == statusField(own, "Name") && statusField(status, "Uid") == statusField(own, "Uid")
}

// statusField gives a line of /proc/PID/status. The kernel escapes line feeds in it.
func statusField(status []byte, key string) string {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

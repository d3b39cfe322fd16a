package hostfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// Lock takes an exclusive flock(2) on the file or directory name, which must exist, and waits for it up to wait. While it waits,
// waiting is called once with the holder. The kernel drops the lock when the process ends, however it ends. Give it back with
// unlock. If the holder removed what it held the lock on, and nothing took its place, the error is fs.ErrNotExist.
func (r *Root) Lock(ctx context.Context, name string, wait time.Duration, waiting func(holder string)) (unlock func(), err error) {
	fd, err := r.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	told := false
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// A lock on what the last holder has removed or replaced keeps nobody out.
			if r.leadsTo(name, fd) {
				return func() { unix.Close(fd) }, nil
			}
			unix.Close(fd)
			if fd, err = r.open(name, unix.O_RDONLY); err != nil {
				return nil, err
			}
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return nil, r.fail("lock", name, err)
		}
		holder := holderOf(fd)
		if time.Since(start) >= wait {
			unix.Close(fd)
			return nil, &LockedError{Path: r.Path(name), Holder: holder, Waited: time.Since(start)}
		}
		if !told && waiting != nil {
			told = true
			waiting(holder)
		}
		select {
		case <-ctx.Done():
			unix.Close(fd)
			return nil, fmt.Errorf("cannot lock %s, which %s has: %w", r.Path(name), holder, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// leadsTo tells whether name leads to the open file fd.
func (r *Root) leadsTo(name string, fd int) bool {
	var st unix.Stat_t
	info, err := r.Stat(name)
	return err == nil && unix.Fstat(fd, &st) == nil && info.Dev == uint64(st.Dev) && info.Ino == st.Ino
}

// holderOf names the process that holds a flock on fd, from /proc/locks (proc(5): "1: FLOCK ADVISORY WRITE PID MAJ:MIN:INODE ...").
func holderOf(fd int) string {
	const unknown = "another process"
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		if _, inode, ok := strings.Cut(f[5], ":"); !ok || !strings.HasSuffix(inode, ":"+strconv.FormatUint(st.Ino, 10)) {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + f[4] + "/cmdline")
		if errors.Is(err, fs.ErrNotExist) || len(cmdline) == 0 {
			return "process " + f[4]
		}
		args := string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))
		return fmt.Sprintf("process %s (%s)", f[4], args)
	}
	return unknown
}

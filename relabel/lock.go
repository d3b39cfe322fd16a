package relabel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// LockDir has a directory for each file system of the host whose files are being labelled. Who labels them holds a lock on it.
const LockDir = "/run/selinux-provision/relabelling"

// Lock keeps other runs on this host off the file system that the tree is on: two runs with two labels leave a mixture behind, and each
// has read back what it wrote. It waits for up to wait, and calls waiting once, with the holder, if it has to; a hostfs.LockedError says who
// still has it then. A user without the right to make the lock, who labels files of their own, goes without it.
func (t *Target) Lock(ctx context.Context, host *hostfs.Root, wait time.Duration, waiting func(holder string)) (unlock func(), err error) {
	dev := uint64(t.stat.Dev)
	name := fmt.Sprintf("%s/%d:%d", LockDir, unix.Major(dev), unix.Minor(dev))
	if err = host.MkdirAll(name, 0o755); err == nil {
		unlock, err = host.Lock(ctx, name, wait, waiting)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	return unlock, nil
}

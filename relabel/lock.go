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

// Lock keeps other runs on this host off the file system that the tree is on: two runs with two labels leave a mixture behind, and each
// has read back what it wrote. It waits for up to wait, and calls waiting once, with the holder, if it has to; a hostfs.LockedError says who
// still has it then. A user without the right to make the lock, who labels files of their own, goes without it.
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
	return unlock, nil
}

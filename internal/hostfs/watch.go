package hostfs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// WatchDir tells of each time that something was put into a directory by rename(2), as WriteFile does. Several that come quickly may be
// told as one. The channel is closed when the context ends, or the directory is gone.
func (r *Root) WatchDir(ctx context.Context, dir string) (<-chan struct{}, error) {
	fd, err := r.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, r.fail("watch", dir, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(in, fmt.Sprintf("/proc/self/fd/%d", fd), unix.IN_MOVED_TO|unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	}
	if err != nil {
		unix.Close(in)
		return nil, r.fail("watch", dir, err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(woken)
	})
	changes := make(chan struct{}, 1)
	go func() {
		defer close(changes)
		defer unix.Close(in)
		defer func() {
			if !stop() {
				<-woken
			}
			unix.Close(wake)
		}()
		buf := make([]byte, 64<<10)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}, -1)
			if err != nil && !errors.Is(err, unix.EINTR) || ctx.Err() != nil {
				return
			}
			n, err := unix.Read(in, buf)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			select {
			case changes <- struct{}{}:
			default: // the last one was not taken yet: it stands for this one too
			}
		}
	}()
	return changes, nil
}

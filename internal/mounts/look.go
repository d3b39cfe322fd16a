package mounts

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrCovered says that the mountpoint of a mount does not lead to it: another one is mounted over it, or it is gone.
var ErrCovered = errors.New("its mountpoint leads to another mount")

// OpenRoot gives an O_PATH handle of the root of the mount, and ErrCovered if its mountpoint does not lead to it any more. No link is
// followed on the way. It may hang on a file system whose server is dead, as any look at a path does.
func (m *Mount) OpenRoot() (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, m.Mountpoint, &how)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		// The kernel's table has no links in it: what is on the way now was put there over it.
		return nil, fmt.Errorf("cannot open %s: %w", m.Mountpoint, ErrCovered)
	case err != nil:
		return nil, fmt.Errorf("cannot open %s: %w", m.Mountpoint, err)
	}
	root := os.NewFile(uintptr(fd), m.Mountpoint)
	it, err := m.isAt(fd, "")
	if err != nil || !it {
		root.Close()
		if err == nil {
			err = ErrCovered
		}
		return nil, fmt.Errorf("cannot open %s: %w", m.Mountpoint, err)
	}
	return root, nil
}

// isAt tells whether a path, or a handle if the path is "", leads to this very mount.
func (m *Mount) isAt(fd int, path string) (bool, error) {
	mask, want := unix.STATX_MNT_ID, uint64(m.ID)
	if m.Unique != 0 {
		mask, want = unix.STATX_MNT_ID_UNIQUE, m.Unique
	}
	var st unix.Statx_t
	// Nothing is asked for that a server would have to be asked for.
	if err := unix.Statx(fd, path, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, mask, &st); err != nil {
		return false, err
	}
	// A network file system drops a handle whose mount is gone, and the kernel then leaves the ID out.
	return st.Mask&uint32(mask) != 0 && st.Mnt_id == want, nil
}

// OpenTree gives an O_PATH handle of a directory of the mount; "." is its root. No link is followed and no other mount entered: what is in the
// volume may be an attacker's.
func (m *Mount) OpenTree(path string) (*os.File, error) {
	root, err := m.OpenRoot()
	if err != nil || path == "." {
		return root, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, fmt.Errorf("cannot open %s in %s: %w", path, m.Mountpoint, err)
	}
	return os.NewFile(uintptr(fd), m.Mountpoint+"/"+path), nil
}

// Label reads the label of the root of a tree of the mount; "" if it has none. On a kernel with SELinux it is the one that the kernel
// goes by, which is made up where the file system has none.
func (m *Mount) Label(path string) (string, error) {
	tree, err := m.OpenTree(path)
	if err != nil {
		return "", err
	}
	defer tree.Close()
	buf := make([]byte, 4096) // the longest label: security/selinux/selinuxfs.c, SIMPLE_TRANSACTION_LIMIT
	// fgetxattr(2) refuses a handle of O_PATH.
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", tree.Fd()), "security.selinux", buf)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("cannot read the label of %s: %w", tree.Name(), err)
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// RootLabel reads the label of the root directory of the mount.
func (m *Mount) RootLabel() (string, error) { return m.Label(".") }

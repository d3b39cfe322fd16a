package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
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
func (m *Mount) isAt(fd int, name string) (bool, error) {
	mask, want := unix.STATX_MNT_ID, uint64(m.ID)
	if m.Unique != 0 {
		mask, want = unix.STATX_MNT_ID_UNIQUE, m.Unique
	}
	id, known, err := mountID(fd, name, mask)
	return known && id == want, err
}

// mountID gives the ID of the mount that a path, or a handle if the path is "", is on: the kind that mask asks for. known is false where the kernel leaves
// it out, as it does for a handle of a network file system whose mount is gone.
func mountID(fd int, name string, mask int) (id uint64, known bool, err error) {
	var st unix.Statx_t
	// Nothing is asked for that a server would have to be asked for.
	err = unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, mask, &st)
	return st.Mnt_id, err == nil && st.Mask&uint32(mask) != 0, err
}

// UniqueAt gives the kernel's ID of the mount that a path is on, which no other mount gets before the next boot; 0 where there is none (before Linux
// 6.8). The ID that mountinfo shows, and the number of an overlay's device, belong to the next mount as soon as one is gone.
func UniqueAt(path string) uint64 {
	if id, known, _ := mountID(unix.AT_FDCWD, path, unix.STATX_MNT_ID_UNIQUE); known {
		return id
	}
	return 0
}

// OpenTree gives an O_PATH handle of a directory of the mount; "." is its root. No link is followed and no other mount entered: what is in the
// volume may be an attacker's.
func (m *Mount) OpenTree(name string) (*os.File, error) {
	root, err := m.OpenRoot()
	if err != nil || name == "." {
		return root, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, fmt.Errorf("cannot open %s in %s: %w", name, m.Mountpoint, err)
	}
	return os.NewFile(uintptr(fd), m.Mountpoint+"/"+name), nil
}

// Label reads the label of the root of a tree of the mount; "" if it has none. On a kernel with SELinux it is the one that the kernel
// goes by, which is made up where the file system has none.
func (m *Mount) Label(name string) (string, error) {
	tree, err := m.OpenTree(name)
	if err != nil {
		return "", err
	}
	defer tree.Close()
	return labelOf(tree)
}

// labelOf reads the label of a handle of O_PATH.
func labelOf(f *os.File) (string, error) {
	buf := make([]byte, 4096) // the longest label: security/selinux/selinuxfs.c, SIMPLE_TRANSACTION_LIMIT
	// fgetxattr(2) refuses a handle of O_PATH.
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "security.selinux", buf)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("cannot read the label of %s: %w", f.Name(), err)
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// ErrServer says that a server would have to be asked, which may not answer.
var ErrServer = errors.New("it is on the way to a file system of a server's")

// LabelAt gives the label of what is at an absolute path without links, of a link its own; "" if it has none. Where the table has a file system of a
// server's on the way, nobody is asked: a mount with context= has that label, and of any other it is ErrServer.
func LabelAt(all []*Mount, name string) (string, error) {
	name = path.Clean(name)
	m := At(all, name)
	if m == nil {
		return "", fmt.Errorf("cannot open %s: %w", name, unix.ENOENT)
	}
	if context := m.Context(); context != "" {
		return context, nil
	}
	if slices.ContainsFunc(all, func(above *Mount) bool { return above.holds(name) && !above.local() }) {
		return "", fmt.Errorf("cannot open %s: %w", name, ErrServer)
	}
	root, err := m.OpenRoot()
	if err != nil {
		return "", err
	}
	defer root.Close()
	inside := cmp.Or(strings.TrimPrefix(strings.TrimPrefix(name, m.Mountpoint), "/"), ".")
	fd, err := unix.Openat2(int(root.Fd()), inside, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return "", fmt.Errorf("cannot open %s: %w", name, err)
	}
	entry := os.NewFile(uintptr(fd), name)
	defer entry.Close()
	return labelOf(entry)
}

// RootLabel reads the label of the root directory of the mount.
func (m *Mount) RootLabel() (string, error) { return m.Label(".") }

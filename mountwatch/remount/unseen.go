package remount

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// unseen says what a superblock has that no table shows, and that nobody gives the next one: the keys of encrypted directories, and quotas that were
// turned on with quotaon(8).
func unseen(m *mounts.Mount) error {
	if !slices.Contains([]string{"ceph", "ext2", "ext3", "ext4", "f2fs", "ubifs"}, m.FSType) {
		return nil // the others have neither, or have their quotas from options (xfs)
	}
	root, err := m.OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close() // before anything is unmounted: a handle keeps it busy
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot tell whether it has keys of encrypted directories: %w", err)
	}
	defer unix.Close(fd)
	switch encrypts, err := mayEncrypt(fd); {
	case err != nil:
		return fmt.Errorf("cannot tell whether it has keys of encrypted directories: %w", err)
	case encrypts:
		return impossible("it may have encrypted directories, whose keys would be lost when it is unmounted")
	}
	for _, name := range quotaFiles(m) {
		if unix.Faccessat(fd, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return impossible("it has quotas in the file %s, which would not be on any more when it is mounted again", name)
		}
	}
	return nil
}

// mayEncrypt tells whether a file system can have encrypted directories. "fscrypt keys belong to a particular filesystem instance, so they are
// destroyed when that filesystem is unmounted" (Documentation/filesystems/fscrypt.rst); since Linux 6.2 no list shows which there are. A file
// system without the feature says so to whoever asks about any key (fs/ext4/ioctl.c, fs/f2fs/file.c), and so does a kernel without it.
func mayEncrypt(fd int) (bool, error) {
	about := unix.FscryptGetKeyStatusArg{Key_spec: unix.FscryptKeySpecifier{Type: unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER}}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_GET_ENCRYPTION_KEY_STATUS, uintptr(unsafe.Pointer(&about)))
	switch {
	case errno == 0:
		return true, nil
	case errors.Is(errno, unix.EOPNOTSUPP), errors.Is(errno, unix.ENOTTY): // or older than Linux 5.4
		return false, nil
	}
	return false, errno
}

// quotaFiles gives the names of the files in the root of a file system in which its quotas may be, by its options (quotaon(8)). What keeps quotas
// in itself, by its feature "quota", turns them on with each mount and has no file.
func quotaFiles(m *mounts.Mount) (files []string) {
	for _, kind := range []struct{ journaled, plain, file string }{{"usrjquota", "usrquota", "aquota.user"}, {"grpjquota", "grpquota", "aquota.group"}, {"prjjquota", "prjquota", "aquota.project"}} {
		name, journaled := m.SuperOption(kind.journaled)
		_, plain := m.SuperOption(kind.plain)
		switch {
		case journaled && name != "":
			files = append(files, mounts.Unescape(name))
		case plain:
			files = append(files, kind.file)
		}
	}
	return files
}

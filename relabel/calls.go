package relabel

import (
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const attribute = "security.selinux\x00"

// system is what the walk asks of the kernel. There is one implementation; tests put theirs in front of it to force errors. Every name
// is the first byte of one that ends with NUL, a single component, and means the entry itself in the worker's current directory: a
// bare name has no slash, and the calls do not follow its last component. The unsafe equivalent is lsetxattr(2) of a path.
type system interface {
	// openDirectory opens a directory below dir for listing; path has no "..".
	openDirectory(dir int, path string) (int, unix.Errno)
	// pin gives an O_PATH handle of the entry.
	pin(name *byte) (int, unix.Errno)
	// openFile opens a file without waiting for anything. Devices do not open where the mount has none.
	openFile(name *byte) (int, unix.Errno)
	list(dir int, buf []byte) (int, unix.Errno)
	chdir(dir int) unix.Errno
	get(name *byte, value []byte) (int, unix.Errno)
	set(name *byte, value []byte, flags int) unix.Errno
	// getPinned and setPinned work on what a handle is, of whatever kind.
	getPinned(fd int, value []byte) (int, unix.Errno)
	setPinned(fd int, value []byte, flags int) unix.Errno
	// getOpen and setOpen work on a file or directory that is open for reading.
	getOpen(fd int, value []byte) (int, unix.Errno)
	setOpen(fd int, value []byte, flags int) unix.Errno
	stat(name *byte, st *unix.Stat_t) unix.Errno
	statOpen(fd int, st *unix.Stat_t) unix.Errno
}

// kernelCalls makes the calls without the allocations and copies of package unix: they are made for every file.
type kernelCalls struct{}

const resolveInside = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS

// tries bounds how often a call is made again that the kernel asks to make again.
const tries = 64

func (kernelCalls) openDirectory(dir int, path string) (int, unix.Errno) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: resolveInside}
	return openInside(dir, path, &how)
}

func openInside(dir int, path string, how *unix.OpenHow) (int, unix.Errno) {
	var err error
	for range tries {
		var fd int
		if fd, err = unix.Openat2(dir, path, how); err == nil {
			return fd, 0
		}
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return -1, number(err)
}

// number gives the error number of a plain system call's error.
func number(err error) unix.Errno {
	if errno, ok := err.(unix.Errno); ok { //nolint:errorlint // a plain system call gives the bare number
		return errno
	}
	if err != nil {
		return unix.EINVAL
	}
	return 0
}

func (kernelCalls) pin(name *byte) (int, unix.Errno) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolveInside}
	at := unix.AT_FDCWD
	for range tries {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT2, uintptr(at), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&how)),
			unix.SizeofOpenHow, 0, 0)
		if errno == 0 {
			return int(fd), 0
		}
		if errno != unix.EINTR && errno != unix.EAGAIN {
			return -1, errno
		}
	}
	return -1, unix.EAGAIN
}

func (kernelCalls) openFile(name *byte) (int, unix.Errno) {
	at := unix.AT_FDCWD
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)),
		unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0, 0, 0)
	return int(fd), errno
}

func (kernelCalls) list(dir int, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_GETDENTS64, uintptr(dir), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	return int(n), errno
}

func (kernelCalls) chdir(dir int) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_FCHDIR, uintptr(dir), 0, 0)
	return errno
}

func (kernelCalls) get(name *byte, value []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_LGETXATTR, uintptr(unsafe.Pointer(name)), attributePointer(),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	return int(n), errno
}

func (kernelCalls) set(name *byte, value []byte, flags int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_LSETXATTR, uintptr(unsafe.Pointer(name)), attributePointer(),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), uintptr(flags), 0)
	return errno
}

func (kernelCalls) getOpen(fd int, value []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_FGETXATTR, uintptr(fd), attributePointer(), uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	return int(n), errno
}

func (kernelCalls) setOpen(fd int, value []byte, flags int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_FSETXATTR, uintptr(fd), attributePointer(), uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)),
		uintptr(flags), 0)
	return errno
}

// getPinned goes through /proc, because fgetxattr(2) refuses an O_PATH handle, and so does getxattrat(2) with an empty path.
func (kernelCalls) getPinned(fd int, value []byte) (int, unix.Errno) {
	path := handlePath(fd)
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTR, uintptr(unsafe.Pointer(&path[0])), attributePointer(),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	runtime.KeepAlive(path)
	return int(n), errno
}

func (kernelCalls) setPinned(fd int, value []byte, flags int) unix.Errno {
	path := handlePath(fd)
	_, _, errno := unix.Syscall6(unix.SYS_SETXATTR, uintptr(unsafe.Pointer(&path[0])), attributePointer(),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), uintptr(flags), 0)
	runtime.KeepAlive(path)
	return errno
}

func handlePath(fd int) []byte {
	path := make([]byte, 0, 32)
	path = append(path, "/proc/self/fd/"...)
	return append(strconv.AppendInt(path, int64(fd), 10), 0)
}

func (kernelCalls) stat(name *byte, st *unix.Stat_t) unix.Errno {
	at := unix.AT_FDCWD
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(at), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(st)),
		unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, 0)
	return errno
}

func (kernelCalls) statOpen(fd int, st *unix.Stat_t) unix.Errno { return number(unix.Fstat(fd, st)) }

func attributePointer() uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(attribute))) }

package relabel

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Errors that are this package's own stand in the range that the kernel keeps for itself.
const (
	errTooDeep unix.Errno = 4000 + iota
	errNotKept
	errMoved
	errUnsettled
)

// NotKept is the Failure.Errno of entries whose label was another one when it was read back.
const NotKept = "NOTKEPT"

// nameOf gives the name of an error number.
func nameOf(errno unix.Errno) string {
	switch errno {
	case errTooDeep:
		return "DEPTH"
	case errNotKept:
		return NotKept
	case errMoved:
		return "MOVED"
	case errUnsettled:
		return "UNSETTLED"
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return "E" + strconv.Itoa(int(errno))
}

// meaning says what an error means for an entry, and what to do.
func meaning(errno unix.Errno) string {
	switch errno {
	case unix.EPERM:
		return "not permitted: the file is immutable or append-only (lsattr shows it, chattr -i -a changes it), or this program lacks CAP_FOWNER"
	case unix.EACCES:
		return "the policy or the server denies it: journalctl -g 'avc: +denied' shows the policy's denials"
	case unix.EROFS:
		return "the file system is read-only: mount it writable; if it turned so by itself, look at the kernel's log"
	case unix.ENOSPC:
		return "there is no room for the label: free space on the file system, then run it again"
	case unix.EDQUOT:
		return "the quota of the file's owner is used up: raise it, or free space, then run it again"
	case unix.EOPNOTSUPP:
		return "the file system has no labels for such files: mount it with context= instead"
	case unix.EINVAL:
		return "the kernel does not take this context: is it one of the loaded policy?"
	case unix.EIO:
		return "the disk gives errors: look at the kernel's log, and check the file system"
	case unix.ESTALE:
		return "it was moved or replaced while it was being labelled: run it again"
	case unix.EBUSY:
		return "it kept changing while it was being labelled: run it again when nobody moves files there"
	case unix.EMFILE, unix.ENFILE:
		return "too many files are open: raise LimitNOFILE= of the unit"
	case errTooDeep:
		return "it is deeper than " + strconv.Itoa(int(defaultBounds().depth)) + " directories: what is in it was not looked at"
	case errMoved:
		return "directories are being moved, and it was not there when it was its turn: run it again when nobody moves directories there"
	case errUnsettled:
		return "it still came without its label in the last of " + strconv.Itoa(mostPasses) + " walks: somebody goes on making or moving files there: stop that, and run it again"
	case errNotKept:
		return "the file system took the label and did not keep it: mount it with context= instead"
	}
	return errno.Error()
}

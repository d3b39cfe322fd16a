package kernel

import "golang.org/x/sys/unix"

// SmallPages has the kernel give this process no transparent huge pages from now on (prctl(2), PR_SET_THP_DISABLE). Where they are always
// given, as on Debian, a small heap grows in steps of 2 MB.
func SmallPages() error { return unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) }

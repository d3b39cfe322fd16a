// Package mounts reads the mount table, for everybody: Read gives it as it is now, Parse from any reader.
//
// Watcher, the eye of the mount watcher, gives the whole table first and then each difference, however many mounts came and went in between. It
// knows a mount by the kernel's unique ID where there is one (Linux 6.8), and otherwise notices by other means that a mount which looks
// the same is another file system. Holders tells who else has a superblock mounted, in every mount namespace.
//
// Do not use it to find out on which file system a file lies: statx(2) on the file's handle says so. Nothing here mounts,
// unmounts, or decides anything; package judge does the latter.
package mounts

import (
	"strconv"
	"strings"
)

// Device is the number of a superblock, as stat(2) has it in st_dev except on Btrfs. File systems without a block device have
// major 0.
type Device struct{ Major, Minor uint32 }

// String gives MAJOR:MINOR, as in mountinfo and /sys/dev/block.
func (d Device) String() string {
	return strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
}

// Mount is one mount, as a line of /proc/PID/mountinfo describes it (proc_pid_mountinfo(5)). It is never changed after it was
// handed out.
type Mount struct {
	// Unique is the kernel's ID that is not used again before the next boot; 0 where the kernel has none (before Linux 6.8).
	Unique uint64
	// ID and Parent are the kernel's IDs of this mount and the one that it is mounted on. They are used again for other mounts.
	ID, Parent int
	// Device is the number of the superblock.
	Device Device
	// Root is the directory of the file system that is seen at Mountpoint: "/" unless this is a bind mount of a part, or a subvolume.
	Root string
	// Mountpoint is where it is mounted, beneath the root of the process that reads the table.
	Mountpoint string
	// Options are those of this mount, such as "rw,nosuid,relatime".
	Options string
	// Optional are the tags of propagation, such as "shared:3 master:1".
	Optional string
	// FSType is the type, with a subtype after a dot: "fuse.sshfs".
	FSType string
	// Source is what was mounted: a device, server:/path, or any word.
	Source string
	// SuperOptions are those of the superblock, among them context= and seclabel. A value of more than 1 KiB, such as the layers of an
	// overlay, is shortened to "...": nobody here needs it, and thousands of containers have one each.
	SuperOptions string
	// Shortened says that SuperOptions does not hold everything, so that it cannot be used to mount the same again.
	Shortened bool
}

// Context gives the value of the superblock's option context=, without quotes; "" if it has none.
func (m *Mount) Context() string { v, _ := m.SuperOption("context"); return v }

// SuperOption gives the value of an option of the superblock, without quotes, and whether the superblock has it.
func (m *Mount) SuperOption(name string) (value string, ok bool) { return option(m.SuperOptions, name) }

// Option gives the value of an option of this mount, and whether it has it.
func (m *Mount) Option(name string) (value string, ok bool) { return option(m.Options, name) }

// Seclabel tells whether files of this file system have labels of their own, which may be changed: the kernel shows "seclabel".
func (m *Mount) Seclabel() bool { _, ok := m.SuperOption("seclabel"); return ok }

// ReadOnly tells whether nothing can be written through this mount: it, or its superblock, is read-only, or writing was given up.
func (m *Mount) ReadOnly() bool {
	_, mount := m.Option("ro")
	_, super := m.SuperOption("ro")
	return mount || super || m.GaveUp()
}

// GaveUp tells whether the kernel has found an error in the file system and writes nothing to it any more until it is mounted anew. Since Linux 6.15
// ext4 says so with these words, and with "rw" (fs/ext4/super.c, _ext4_show_options); before that, and elsewhere, it is "ro" then.
func (m *Mount) GaveUp() bool {
	_, emergency := m.SuperOption("emergency_ro")
	_, shutdown := m.SuperOption("shutdown")
	return emergency || shutdown
}

// InMemory tells whether what is in the file system is nowhere but in memory, so that it is gone with its last mount.
func (m *Mount) InMemory() bool {
	return m.FSType == "tmpfs" || m.FSType == "ramfs" || m.FSType == "hugetlbfs"
}

// Whole tells whether the mount shows its file system from its root on.
func (m *Mount) Whole() bool { return m.Root == "/" }

func option(options, name string) (value string, ok bool) {
	for each := range SplitOptions(options) {
		key, value, _ := strings.Cut(each, "=")
		if key == name {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}

// SplitOptions yields the options of a list. A comma in an option or a value that begins with a double quote does not end it before the quote
// is closed: the kernel writes a context with categories as context="u:r:t:s0:c1,c2". A quote elsewhere is one of a path, such as an overlay's.
func SplitOptions(options string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := range len(options) {
			switch options[i] {
			case '"':
				quoted = !quoted && (i == start || options[i-1] == '=')
			case ',':
				if quoted {
					continue
				}
				if !yield(options[start:i]) {
					return
				}
				start = i + 1
			}
		}
		if start < len(options) {
			yield(options[start:])
		}
	}
}

package mounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// superblocks notices the end of superblocks where mounts have no unique IDs (before Linux 6.8): there, unmounting a file system and
// mounting another one in its place can give the very line that was there before, ID included.
//
// An inotify watch on the root of a file system tells of its end (IN_UNMOUNT) and holds neither the mount nor the superblock. The
// kernel sends it before the last umount(2) returns (fs/super.c, generic_shutdown_super), so it is in the queue before anything
// else can be mounted from the same device. A superblock that lives on, because somebody else has it mounted, is the same one
// when it is mounted here again, with the same labels.
//
// It does not look at file systems whose root only a server can show, lest a dead one hang the watcher: their label can only come from
// context=, which is in their line.
type superblocks struct {
	fd    int
	ids   map[int32][]int // mounts by watch
	watch map[int]int32   // watches by mount
	blind map[int]bool    // mounts that could not be watched for lack of room: they count as ended each time
}

func newSuperblocks() (*superblocks, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch for the end of file systems: %w: raise fs.inotify.max_user_instances", err)
	}
	return &superblocks{fd: fd, ids: map[int32][]int{}, watch: map[int]int32{}, blind: map[int]bool{}}, nil
}

func (s *superblocks) close() { unix.Close(s.fd) }

// ended gives the IDs of the mounts whose superblock has come to its end since the last call, or may have.
func (s *superblocks) ended() (map[int]bool, error) {
	gone := map[int]bool{}
	for id := range s.blind {
		gone[id] = true
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(s.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return gone, nil
		case err != nil:
			return nil, fmt.Errorf("cannot read which file systems have ended: %w", err)
		}
		for events := buf[:n]; len(events) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(events))
			mask := binary.NativeEndian.Uint32(events[4:])
			name := binary.NativeEndian.Uint32(events[12:])
			events = events[min(len(events), unix.SizeofInotifyEvent+int(name)):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				for id := range s.watch {
					gone[id] = true
				}
			}
			if mask&(unix.IN_UNMOUNT|unix.IN_IGNORED) != 0 {
				for _, id := range s.ids[wd] {
					gone[id] = true
					delete(s.watch, id)
				}
				delete(s.ids, wd)
			}
		}
	}
}

// follow watches the file systems of mounts that have appeared or have come to light, and forgets those that are gone.
func (s *superblocks) follow(table *Table, change Change) {
	for _, m := range change.Vanished {
		s.forget(m.ID)
	}
	for _, m := range table.All() {
		if _, watched := s.watch[m.ID]; !watched && table.Cover(m) == nil && m.Whole() && m.local() {
			s.add(m)
		}
	}
}

func (s *superblocks) add(m *Mount) {
	delete(s.blind, m.ID)
	// By its path, not through a handle: a handle would make an umount(2) fail that comes while it is open.
	wd, err := unix.InotifyAddWatch(s.fd, m.Mountpoint, unix.IN_UNMOUNT|unix.IN_DONT_FOLLOW|unix.IN_MASK_ADD)
	if err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
			s.blind[m.ID] = true
		}
		return // the table has changed since: the next look tries again
	}
	s.watch[m.ID] = int32(wd)
	s.ids[int32(wd)] = append(s.ids[int32(wd)], m.ID)
	if it, err := m.isAt(unix.AT_FDCWD, m.Mountpoint); err != nil || !it {
		s.forget(m.ID)
	}
}

func (s *superblocks) forget(id int) {
	delete(s.blind, id)
	wd, watched := s.watch[id]
	if !watched {
		return
	}
	delete(s.watch, id)
	s.ids[wd] = slices.DeleteFunc(s.ids[wd], func(other int) bool { return other == id })
	if len(s.ids[wd]) == 0 {
		delete(s.ids, wd)
		_, _ = unix.InotifyRmWatch(s.fd, uint32(wd))
	}
}

// local tells whether the root of a file system can be reached without asking a server, and is worth it: nobody labels the kernel's
// own file systems.
func (m *Mount) local() bool {
	kind, _, _ := strings.Cut(m.FSType, ".")
	return !slices.Contains([]string{
		"9p", "afs", "ceph", "cifs", "fuse", "fuseblk", "ncpfs", "nfs", "nfs4", "smb3", "virtiofs",
		"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl", "hugetlbfs",
		"mqueue", "nfsd", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
	}, kind)
}

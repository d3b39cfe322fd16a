package mounts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Holder is a mount of a superblock in some mount namespace.
type Holder struct {
	// Mountpoint is where it is mounted, as a process of that namespace sees it. ID is that of its mount.
	Mountpoint string
	ID         int
	// on is the mount that it is mounted on; nil if that cannot be seen.
	on *Mount
	// holds tells whether something is mounted in it.
	holds bool
	// foreign tells whether the namespace belongs to another user namespace than that of this process.
	foreign bool
	// Namespace is the inode of the mount namespace, as in "mnt:[4026531841]"; 0 if the kernel tells this process only what is mounted
	// there.
	Namespace uint64
	// PID is a process in that namespace; 0 if there is none and the namespace is kept by a handle.
	PID int
	// Own tells that it is the namespace of this process.
	Own bool
}

// GoesWith tells whether the kernel unmounts it together with another one, which is in the namespace of this process. That goes by what the two are
// mounted on, and not by themselves: it takes off what is at the same place of each mount that gets what happens in the other's parent
// (fs/pnode.c, propagate_umount). A bind mount that somebody has made of a copy is a copy's like as to its tags, and stays. So does a copy in
// which something is mounted, and before Linux 6.17 one that was there when a less privileged user namespace was made, which is locked.
// One that follows through the mounts of a third namespace is not known to.
func (h *Holder) GoesWith(other *Holder) bool {
	if h.Own || h.on == nil || other.on == nil || h.holds || h.foreign {
		return false
	}
	for tag := range strings.FieldsSeq(other.on.Optional) {
		group, shared := strings.CutPrefix(tag, "shared:")
		follows := func(tag string) bool { return tag == "shared:"+group || tag == "master:"+group }
		if shared && slices.ContainsFunc(strings.Fields(h.on.Optional), follows) {
			return h.place() == other.place()
		}
	}
	return false
}

// place is where it is mounted, as a path of the file system that this is in.
func (h *Holder) place() string {
	return path.Join(h.on.Root, strings.TrimPrefix(h.Mountpoint, h.on.Mountpoint))
}

// Holders gives every mount of a superblock in every mount namespace of the machine. It needs CAP_SYS_PTRACE, and CAP_SYS_ADMIN for
// namespaces that no process is in, which are found from Linux 6.12 on.
//
// A superblock may also be held by what is in no table: a handle of a mount that was taken off with MNT_DETACH or never put in
// place. So this is for telling whether it makes sense to try, and who is in the way. That a superblock really is new is known
// only to FSCONFIG_CMD_CREATE_EXCL, or from what the table shows after mounting.
func Holders(ctx context.Context, d Device) ([]Holder, error) {
	f, err := newHolderFinder(d)
	if err != nil {
		return nil, err
	}
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	// The own namespace first, as this process sees it.
	if err := f.process(os.Getpid(), "/proc/self"); err != nil {
		return nil, err
	}
	for _, p := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		// Each thread may have a namespace of its own.
		tasks, err := os.ReadDir("/proc/" + p.Name() + "/task")
		if err != nil {
			continue // it has ended
		}
		for _, t := range tasks {
			if err := f.process(pid, "/proc/"+p.Name()+"/task/"+t.Name()); err != nil {
				return nil, err
			}
		}
	}
	if err := f.withoutProcess(); err != nil {
		return nil, err
	}
	all := make([]Holder, 0, len(f.found))
	for _, h := range f.found {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b Holder) int { return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

type holderFinder struct {
	device     Device
	own        uint64
	roots      map[rootOfProcess]bool
	namespaces map[uint64]bool
	found      map[int]Holder // by the ID of the mount, of which no two live ones have the same, in whatever namespace
}

func newHolderFinder(d Device) (*holderFinder, error) {
	own, err := inodeOf("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("cannot tell the mount namespace of this process: %w", err)
	}
	return &holderFinder{device: d, own: own, roots: map[rootOfProcess]bool{}, found: map[int]Holder{}, namespaces: map[uint64]bool{}}, nil
}

// rootOfProcess is what decides which mounts the table of a process shows: those of its namespace that can be reached from its root.
type rootOfProcess struct{ namespace, device, inode uint64 }

func (f *holderFinder) process(pid int, dir string) error {
	err := f.tableOf(pid, dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil // it has ended; EINVAL is what a table gives whose process is a zombie
	}
	return err
}

func (f *holderFinder) tableOf(pid int, dir string) error {
	var st unix.Statx_t
	namespace, err := inodeOf(dir + "/ns/mnt")
	if err == nil {
		// Without asking a server, or whoever serves a FUSE that a process has as its root: they need not answer.
		err = unix.Statx(unix.AT_FDCWD, dir+"/root", unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st)
	}
	key := rootOfProcess{namespace: namespace, device: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino}
	switch {
	case errors.Is(err, fs.ErrPermission):
		// A process that is better protected than this one. Its table can be read all the same.
		key, namespace = rootOfProcess{device: uint64(pid)}, 0
	case err != nil:
		return err
	}
	if f.roots[key] {
		return nil
	}
	handle := -1
	if namespace != 0 {
		// Before the table, and kept until it is judged: a process that ends meanwhile, as a short service of the host's does, takes nothing with it.
		// One that is better protected by now has none.
		if handle, err = unix.Open(dir+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		defer unix.Close(handle)
	}
	table, err := os.Open(dir + "/mountinfo")
	if err != nil {
		return err
	}
	defer table.Close()
	all, err := Parse(table)
	if err != nil {
		return err
	}
	f.roots[key] = true
	f.namespaces[namespace] = true
	f.take(all, Holder{Namespace: namespace, PID: pid, Own: namespace == f.own}, handle)
	return nil
}

// take finds the mounts of the superblock in a table of a namespace, of which there is a handle, or -1.
func (f *holderFinder) take(all []*Mount, in Holder, namespace int) {
	byID := map[int]*Mount{}
	below := map[int]bool{}
	found := false
	for _, m := range all {
		byID[m.ID], below[m.Parent] = m, true
		found = found || m.Device == f.device
	}
	if !found {
		return
	}
	in.foreign = !in.Own && f.isForeign(namespace)
	for _, m := range all {
		// One that was seen from a root within its namespace may be seen better from another one.
		if known, is := f.found[m.ID]; m.Device != f.device || is && known.on != nil {
			continue
		}
		h := in
		h.Mountpoint, h.ID, h.on, h.holds = m.Mountpoint, m.ID, byID[m.Parent], below[m.ID]
		f.found[m.ID] = h
	}
}

// isForeign tells whether a mount namespace belongs to another user namespace; also where that is not for this process to know.
func (f *holderFinder) isForeign(namespace int) bool {
	owner, err := unix.IoctlRetInt(namespace, unix.NS_GET_USERNS)
	if err != nil {
		return true
	}
	defer unix.Close(owner)
	var st unix.Stat_t
	own, err := inodeOf("/proc/self/ns/user")
	return err != nil || unix.Fstat(owner, &st) != nil || st.Ino != own
}

// inodeOf gives the number of a namespace from a link of /proc.
func inodeOf(link string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// Walking from one mount namespace to the next, from include/uapi/linux/nsfs.h: _IOR(0xb7, 11 and 12, struct mnt_ns_info).
const (
	namespaceNext     = 0x8010b70b
	namespacePrevious = 0x8010b70c
)

// namespaceStat is struct mnt_ns_info.
type namespaceStat struct {
	size, mounts uint32
	id           uint64
}

// withoutProcess looks into those namespaces that no process is in: they are kept by a bind mount of their file in /proc, or by an open
// handle of it. Before Linux 6.12 there is no way to find them.
func (f *holderFinder) withoutProcess() error {
	own, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the mount namespace of this process: %w", err)
	}
	defer unix.Close(own)
	for _, direction := range []uintptr{namespaceNext, namespacePrevious} {
		at, err := unix.Dup(own)
		if err != nil {
			return err
		}
		for {
			info := namespaceStat{size: uint32(unsafe.Sizeof(namespaceStat{}))}
			next, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(at), direction, uintptr(unsafe.Pointer(&info)))
			unix.Close(at)
			if errno == unix.ENOENT || errno == unix.ENOTTY || errno == unix.EPERM {
				break // no more of them; not this kernel; not for us
			}
			if errno != 0 {
				return fmt.Errorf("cannot go through the mount namespaces: %w", errno)
			}
			at = int(next)
			if err := f.namespaceOf(at, info.id); err != nil {
				unix.Close(at)
				return err
			}
		}
	}
	return nil
}

func (f *holderFinder) namespaceOf(fd int, id uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || f.namespaces[st.Ino] {
		return err
	}
	all, err := listMounts(id)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return nil // it is gone; or it is not for us, as without this way
	}
	if err != nil {
		return err
	}
	var describe describer
	var table []*Mount
	for _, mount := range all {
		stat, err := describe.stat(id, mount, statmountMntBasic|statmountSBBasic|statmountMntPoint|statmountMntRoot)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		table = append(table, &Mount{ID: int(stat.oldID), Parent: int(stat.oldParent), Device: Device{Major: stat.deviceMajor, Minor: stat.deviceMinor}, Optional: stat.optional(),
			Root: string(describe.text(stat, stat.root)), Mountpoint: string(describe.text(stat, stat.mountpoint))})
	}
	f.take(table, Holder{Namespace: st.Ino}, fd)
	return nil
}

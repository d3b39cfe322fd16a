package mounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// notices are the kernel's own news of which mounts came and went (fanotify FAN_MNT_ATTACH and FAN_MNT_DETACH, Linux 6.15). With them
// and statmount(2), a mount among thousands is known without reading the table of all of them. They are never relied on: they say
// nothing of options that change, are lost when there are too many of them, and a look at the whole table follows in any case.
type notices struct {
	fd       int
	describe describer
	buf      []byte
}

// newNotices gives nil where the kernel has no such news, or lacks something that is needed to go by them.
func newNotices() *notices {
	ids, err := listMounts(0)
	if err != nil || len(ids) == 0 {
		return nil
	}
	n := &notices{fd: -1, buf: make([]byte, 16<<10)}
	st, err := n.describe.stat(0, ids[0], statmountSupported)
	if err != nil || st.mask&statmountSupported == 0 || st.supported&wholeMount != wholeMount {
		return nil
	}
	fd, err := unix.FanotifyInit(unix.FAN_REPORT_MNT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil
	}
	n.fd = fd
	namespace, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(namespace)
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MNTNS, unix.FAN_MNT_ATTACH|unix.FAN_MNT_DETACH, namespace, "")
	}
	if err != nil {
		n.close()
		return nil
	}
	return n
}

func (n *notices) close() { unix.Close(n.fd) }

// read gives the unique IDs of mounts that came or went, in order, and false if that is not all.
func (n *notices) read() (came, gone []uint64, all bool) {
	const header, kind = 24, 4 // of an event; of what follows it
	all = true
	for {
		size, err := unix.Read(n.fd, n.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return came, gone, all && errors.Is(err, unix.EAGAIN)
		}
		for events := n.buf[:size]; len(events) >= header; {
			length := int(binary.NativeEndian.Uint32(events))
			mask := binary.NativeEndian.Uint64(events[8:])
			if length < header || length > len(events) || mask&unix.FAN_Q_OVERFLOW != 0 {
				all = false
				break
			}
			info := events[header:length]
			events = events[length:]
			// struct fanotify_event_info_mnt: a header of four bytes, four of padding, the ID.
			if len(info) < 16 || info[0] != unix.FAN_EVENT_INFO_TYPE_MNT || int(binary.NativeEndian.Uint16(info[2:])) < 16 {
				all = false
				continue
			}
			id := binary.NativeEndian.Uint64(info[8:])
			if mask&unix.FAN_MNT_ATTACH != 0 {
				came = append(came, id)
			}
			if mask&unix.FAN_MNT_DETACH != 0 {
				gone = append(gone, id)
			}
		}
	}
}

// wholeMount is what has to be asked for to know all of a Mount.
const wholeMount = statmountSBBasic | statmountMntBasic | statmountFrom | statmountMntRoot | statmountMntPoint | statmountFSType |
	statmountMntOptions | statmountFSSubtype | statmountSBSource

// mount describes a mount as mountinfo does; nil if that cannot be done.
func (n *notices) mount(id uint64) *Mount {
	st, err := n.describe.stat(0, id, wholeMount)
	// Without options of the superblock, it is not sure that there is no context= among them: the kernel gives none for a file system that
	// has nothing to add of its own. And without a source, only the table tells whether that is "none" or empty.
	const needed = wholeMount &^ (statmountFrom | statmountFSSubtype)
	if err != nil || st.mask&needed != needed {
		return nil
	}
	m := &Mount{
		Unique: st.id, ID: int(st.oldID), Parent: int(st.oldParent), Device: Device{st.deviceMajor, st.deviceMinor},
		Root: string(n.describe.text(st, st.root)), Mountpoint: string(n.describe.text(st, st.mountpoint)),
		Options: mountOptions(st.attributes), Optional: st.optional(), FSType: string(n.describe.text(st, st.fstype)),
		Source: string(n.describe.text(st, st.source)),
	}
	if m.Mountpoint == "" {
		return nil // it cannot be reached from here
	}
	if st.mask&statmountFSSubtype != 0 {
		m.FSType += "." + string(n.describe.text(st, st.subtype))
	}
	options := superFlags(st.superFlags) + "," + string(n.describe.text(st, st.options))
	m.SuperOptions, m.Shortened = shorten([]byte(options))
	return m
}

// mountOptions writes what fs/proc_namespace.c, show_mnt_opts does, from MOUNT_ATTR_*.
func mountOptions(attributes uint64) string {
	parts := []string{"rw"}
	if attributes&unix.MOUNT_ATTR_RDONLY != 0 {
		parts[0] = "ro"
	}
	for _, a := range []struct {
		bit  uint64
		name string
	}{
		{unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"},
		{unix.MOUNT_ATTR_NOATIME, "noatime"}, {unix.MOUNT_ATTR_NODIRATIME, "nodiratime"},
	} {
		if attributes&a.bit != 0 {
			parts = append(parts, a.name)
		}
	}
	if attributes&unix.MOUNT_ATTR__ATIME == unix.MOUNT_ATTR_RELATIME {
		parts = append(parts, "relatime")
	}
	if attributes&unix.MOUNT_ATTR_NOSYMFOLLOW != 0 {
		parts = append(parts, "nosymfollow")
	}
	if attributes&unix.MOUNT_ATTR_IDMAP != 0 {
		parts = append(parts, "idmapped")
	}
	return strings.Join(parts, ",")
}

// superFlags writes what fs/proc_namespace.c, show_sb_opts does, from SB_*.
func superFlags(flags uint32) string {
	text := "rw"
	if flags&unix.MS_RDONLY != 0 {
		text = "ro"
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"}, {unix.MS_LAZYTIME, "lazytime"}} {
		if flags&f.bit != 0 {
			text += "," + f.name
		}
	}
	return text
}

// optional writes the tags of propagation as mountinfo does.
func (st *mountStat) optional() string {
	var tags []string
	add := func(name string, group uint64) { tags = append(tags, fmt.Sprintf("%s:%d", name, group)) }
	if st.propagation&unix.MS_SHARED != 0 {
		add("shared", st.peerGroup)
	}
	if st.propagation&unix.MS_SLAVE != 0 {
		add("master", st.master)
		if st.mask&statmountFrom != 0 && st.from != 0 && st.from != st.master {
			add("propagate_from", st.from)
		}
	}
	if st.propagation&unix.MS_UNBINDABLE != 0 {
		tags = append(tags, "unbindable")
	}
	return strings.Join(tags, " ")
}

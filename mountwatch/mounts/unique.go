package mounts

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of listmount(2) and statmount(2), from include/uapi/linux/mount.h; x/sys has the numbers of the calls only.
const (
	statmountSBBasic  = 0x1
	statmountMntBasic = 0x2
	statmountMntPoint = 0x10

	listRoot = ^uint64(0) // LSMT_ROOT: every mount beneath the root of the calling process
)

// mountIDRequest is struct mnt_id_req as Linux 6.11 has it; the kernel takes the shorter one of 6.8 by its size.
type mountIDRequest struct {
	size        uint32
	_           uint32
	id          uint64
	param       uint64
	namespaceID uint64
}

const (
	requestSize68  = 24
	requestSize611 = 32
)

// mountStat is the fixed part of struct statmount. Strings follow it.
type mountStat struct {
	size                     uint32
	_                        uint32
	mask                     uint64
	deviceMajor, deviceMinor uint32
	_                        uint64 // magic
	_, _                     uint32 // flags of the superblock, type
	id, parent               uint64
	oldID, oldParent         uint32
	_, _                     uint64     // attributes, propagation
	peerGroup, master        uint64     // 0: none
	_                        uint64     // where it comes from
	_, mountpoint            uint32     // root; where the string is
	_                        uint64     // ID of the namespace
	_                        [49]uint64 // what is newer than Linux 6.8, and room: 512 bytes in all
}

// optional writes the peer groups as mountinfo does.
func (s *mountStat) optional() string {
	var tags []string
	if s.peerGroup != 0 {
		tags = append(tags, "shared:"+strconv.FormatUint(s.peerGroup, 10))
	}
	if s.master != 0 {
		tags = append(tags, "master:"+strconv.FormatUint(s.master, 10))
	}
	return strings.Join(tags, " ")
}

// listMounts gives the unique IDs of all mounts of a namespace, in ascending order: oldest first. Namespace 0 is that of the process.
func listMounts(namespace uint64) ([]uint64, error) {
	var all []uint64
	buf := make([]uint64, 1024)
	req := mountIDRequest{size: requestSize68, id: listRoot, namespaceID: namespace}
	if namespace != 0 {
		req.size = requestSize611
	}
	for {
		n, err := call(unix.SYS_LISTMOUNT, &req, unsafe.Pointer(&buf[0]), len(buf))
		if err != nil {
			return nil, fmt.Errorf("cannot list the mounts: %w", err)
		}
		all = append(all, buf[:n]...)
		if n < len(buf) {
			return all, nil
		}
		req.param = buf[n-1]
	}
}

// statMount describes one mount by its unique ID, with its mountpoint as a process at the root of its namespace sees it. ENOENT says
// that it is gone.
func statMount(namespace, id uint64) (st mountStat, point string, err error) {
	buf := make([]byte, int(unsafe.Sizeof(st))+unix.PathMax)
	req := mountIDRequest{size: requestSize68, id: id, param: statmountMntBasic | statmountSBBasic | statmountMntPoint, namespaceID: namespace}
	if namespace != 0 {
		req.size = requestSize611
	}
	for {
		_, err := call(unix.SYS_STATMOUNT, &req, unsafe.Pointer(&buf[0]), len(buf))
		if errors.Is(err, unix.EOVERFLOW) && len(buf) < 1<<20 {
			buf = make([]byte, 4*len(buf))
			continue
		}
		if err != nil {
			return st, "", err
		}
		st = *(*mountStat)(unsafe.Pointer(&buf[0]))
		if at := int(unsafe.Sizeof(st)) + int(st.mountpoint); st.mask&statmountMntPoint != 0 && at < len(buf) {
			point, _, _ = strings.Cut(string(buf[at:]), "\x00")
		}
		return st, point, nil
	}
}

func call(number uintptr, req *mountIDRequest, buf unsafe.Pointer, size int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(number, uintptr(unsafe.Pointer(req)), uintptr(buf), uintptr(size), 0, 0, 0)
		runtime.KeepAlive(req)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

// uniqueIDs maps the IDs that mountinfo shows to those that are not used again.
type uniqueIDs struct {
	old map[uint64]int // by unique ID, from the last look
}

// newUniqueIDs gives nil if the kernel has none, or a filter of system calls keeps them away.
func newUniqueIDs() *uniqueIDs {
	if _, err := listMounts(0); err != nil {
		return nil
	}
	return &uniqueIDs{old: map[uint64]int{}}
}

// look gives the unique ID of each mount by its ID in mountinfo.
func (u *uniqueIDs) look() (map[int]uint64, error) {
	list, err := listMounts(0)
	if err != nil {
		return nil, err
	}
	now := make(map[uint64]int, len(list))
	byID := make(map[int]uint64, len(list))
	for _, id := range list {
		old, known := u.old[id]
		if !known {
			st, _, err := statMount(0, id)
			if errors.Is(err, unix.ENOENT) {
				continue // gone since the list was made
			}
			if err != nil {
				return nil, fmt.Errorf("cannot describe a mount: %w", err)
			}
			old = int(st.oldID)
		}
		now[id] = old
		byID[old] = id // the list ascends: of two with one ID, the younger is there
	}
	u.old = now
	return byID, nil
}

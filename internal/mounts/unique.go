package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of listmount(2) and statmount(2), from include/uapi/linux/mount.h; x/sys has the numbers of the calls only.
const (
	statmountSBBasic    = 0x1
	statmountMntBasic   = 0x2
	statmountFrom       = 0x4
	statmountMntRoot    = 0x8
	statmountMntPoint   = 0x10
	statmountFSType     = 0x20
	statmountMntOptions = 0x80
	statmountFSSubtype  = 0x100
	statmountSBSource   = 0x200
	statmountSupported  = 0x1000

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

// mountStat is the fixed part of struct statmount. Strings follow it, and a field of one says where.
type mountStat struct {
	size, options            uint32
	mask                     uint64
	deviceMajor, deviceMinor uint32
	_                        uint64 // magic
	superFlags, fstype       uint32
	id, parent               uint64
	oldID, oldParent         uint32
	attributes, propagation  uint64
	peerGroup, master        uint64 // 0: none
	from                     uint64
	root, mountpoint         uint32
	_                        uint64 // ID of the namespace
	subtype, source          uint32
	_                        [2]uint64 // lists of options
	supported                uint64
	_                        [45]uint64 // room: 512 bytes in all
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

// describer asks for single mounts. What it gives holds until it is asked again.
type describer struct{ buf []byte }

// stat describes one mount by its unique ID, as far as mask says and the kernel can. ENOENT says that it is gone.
func (d *describer) stat(namespace, id, mask uint64) (*mountStat, error) {
	const fixed = int(unsafe.Sizeof(mountStat{}))
	if d.buf == nil {
		d.buf = make([]byte, 8<<10)
	}
	req := mountIDRequest{size: requestSize68, id: id, param: mask, namespaceID: namespace}
	if namespace != 0 {
		req.size = requestSize611
	}
	for {
		_, err := call(unix.SYS_STATMOUNT, &req, unsafe.Pointer(&d.buf[0]), len(d.buf))
		switch {
		case errors.Is(err, unix.EOVERFLOW) && len(d.buf) < 4<<20:
			d.buf = make([]byte, 4*len(d.buf))
		case err != nil:
			return nil, err
		default:
			st := (*mountStat)(unsafe.Pointer(&d.buf[0]))
			st.size = min(st.size, uint32(len(d.buf)))
			if int(st.size) < fixed {
				return nil, errors.New("statmount(2) gives less than its structure")
			}
			return st, nil
		}
	}
}

// text gives a string of the last answer.
func (d *describer) text(st *mountStat, at uint32) []byte {
	rest := d.buf[unsafe.Sizeof(*st):st.size]
	text, _, _ := bytes.Cut(rest[min(int(at), len(rest)):], []byte{0})
	return text
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
	old      map[uint64]int // by unique ID, from the last look
	describe describer
}

// newUniqueIDs gives nil if the kernel has none, or a filter of system calls keeps them away.
func newUniqueIDs() *uniqueIDs {
	u := &uniqueIDs{old: map[uint64]int{}}
	if _, err := u.look(); err != nil {
		return nil
	}
	return u
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
			st, err := u.describe.stat(0, id, statmountMntBasic)
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

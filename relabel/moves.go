package relabel

import (
	"bytes"
	"encoding/binary"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// moves looks at what others make and move on the file system while the tree is walked again: an entry that is moved all the time may be met by
// no walk. The kernel's notices (fanotify(7)) name each that comes somewhere, and whoever has its label when it is looked at after that is
// right, wherever it goes next. What cannot be told is another walk's.
type moves struct {
	run    *run
	tree   int // the tree in the mount that its path is of, to tell where something came
	events *os.File
	ended  chan struct{}
	value  [secontext.MaxSize]byte

	mu    sync.Mutex
	wrong int64 // entries that came and did not have their label, or are directories, of which nobody knows what is in them
	paths []string
}

// The parts of struct fanotify_event_metadata and of what follows it, from linux/fanotify.h.
const (
	eventHeader    = 24 // bytes of the metadata
	infoHeader     = 4  // of struct fanotify_event_info_header
	infoFilesystem = 8  // of the file system's number
	handleHeader   = 8  // of struct file_handle, before its bytes
)

// watchMoves begins to look; nil where the kernel or the file system has no such notices, or the right to them is missing.
func (r *run) watchMoves() *moves {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, 0)
	if err != nil {
		return nil
	}
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_MOVED_TO|unix.FAN_CREATE|unix.FAN_ONDIR, r.root.fd, "")
	if err != nil {
		unix.Close(fd)
		return nil
	}
	tree, err := unix.Openat(r.target.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil
	}
	// The notices name directories by their handles: those have to be of use.
	self, _, err := unix.NameToHandleAt(tree, "", unix.AT_EMPTY_PATH)
	probe := -1
	if err == nil {
		probe, err = unix.OpenByHandleAt(tree, self, unix.O_PATH|unix.O_CLOEXEC)
	}
	if err != nil {
		unix.Close(fd)
		unix.Close(tree)
		return nil
	}
	unix.Close(probe)
	m := &moves{run: r, tree: tree, events: os.NewFile(uintptr(fd), "fanotify"), ended: make(chan struct{})}
	go m.follow()
	return m
}

// follow looks at each entry that comes, until end.
func (m *moves) follow() {
	defer close(m.ended)
	buffer := make([]byte, listBuffer)
	for {
		n, err := m.events.Read(buffer)
		if err != nil { // the deadline of end: all that there was is read
			return
		}
		m.read(buffer[:n])
	}
}

// end waits until every notice was looked at that there is now, and gives how many entries are not known to be right.
func (m *moves) end() int64 {
	// A file that is to be read until now gives what is there first: reading stops at the first time that nothing is.
	_ = m.events.SetReadDeadline(time.Now())
	<-m.ended
	buffer := make([]byte, listBuffer)
	connection, err := m.events.SyscallConn()
	if err != nil {
		m.missed("")
	} else if err := connection.Control(func(fd uintptr) {
		for range mostDrains {
			n, err := unix.Read(int(fd), buffer)
			if n <= 0 || err != nil {
				return
			}
			m.read(buffer[:n])
		}
		m.missed("") // they come faster than they are looked at
	}); err != nil {
		m.missed("")
	}
	m.events.Close()
	unix.Close(m.tree)
	return m.wrong
}

// mostDrains bounds how long the end of the notices is waited for.
const mostDrains = 1 << 8

func (m *moves) missed(where string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrong++; len(m.paths) < keptPaths && where != "" {
		m.paths = append(m.paths, printable.Text(where))
	}
}

// came is an entry that a notice names.
type came struct{ directory, name string }

// destination is a directory that something came to.
type destination struct {
	fd    int
	where string
}

// read takes notices apart and looks at each entry once, after all of them.
func (m *moves) read(events []byte) {
	directories := map[string]*destination{}
	defer func() {
		for _, d := range directories {
			if d != nil {
				unix.Close(d.fd)
			}
		}
	}()
	entries := map[came]bool{} // to whether it is a directory that was moved
	for len(events) >= eventHeader {
		length := int(binary.NativeEndian.Uint32(events))
		if length < eventHeader || length > len(events) {
			m.missed("")
			break
		}
		mask := binary.NativeEndian.Uint64(events[8:])
		entry, known := cameTo(events[eventHeader:length])
		events = events[length:]
		if mask&unix.FAN_Q_OVERFLOW != 0 || !known {
			m.missed("")
			continue
		}
		entries[entry] = entries[entry] || mask&unix.FAN_ONDIR != 0 && mask&unix.FAN_MOVED_TO != 0
	}
	for entry, movedDirectory := range entries {
		d, known := directories[entry.directory]
		if !known {
			d = m.open(entry.directory)
			directories[entry.directory] = d
		}
		if d != nil {
			m.look(d, entry.name, movedDirectory)
		}
	}
}

// cameTo gives the directory, by its handle as the kernel writes it, and the name that a notice is about.
func cameTo(info []byte) (entry came, known bool) {
	for len(info) >= infoHeader {
		length := int(binary.NativeEndian.Uint16(info[2:]))
		if length < infoHeader || length > len(info) {
			break
		}
		record := info[infoHeader:length]
		kind := info[0]
		info = info[length:]
		if kind != unix.FAN_EVENT_INFO_TYPE_DFID_NAME || len(record) < infoFilesystem+handleHeader {
			continue
		}
		handle := record[infoFilesystem:]
		size := uint64(binary.NativeEndian.Uint32(handle))
		if size > uint64(len(handle)-handleHeader) {
			break
		}
		name, _, found := bytes.Cut(handle[handleHeader+size:], []byte{0})
		if !found || len(name) == 0 {
			break
		}
		return came{string(handle[:handleHeader+size]), string(name)}, true
	}
	return came{}, false
}

// open finds a directory of the tree; nil if it is gone, or somewhere else on the file system.
func (m *moves) open(handle string) *destination {
	h := unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(handle[4:]))), []byte(handle[handleHeader:]))
	fd, err := unix.OpenByHandleAt(m.tree, h, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		if errno := number(err); errno != unix.ESTALE && errno != unix.ENOENT {
			m.missed("")
		}
		return nil
	}
	where, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || strings.HasSuffix(where, " (deleted)") || !within(where, m.run.target.path) {
		unix.Close(fd)
		return nil
	}
	return &destination{fd, path.Join(m.run.target.named, strings.TrimPrefix(where, m.run.target.path))}
}

// look tells whether an entry has its label. One that is gone has come to where another notice tells, or was removed.
func (m *moves) look(d *destination, name string, movedDirectory bool) {
	where := path.Join(d.where, name)
	if movedDirectory {
		m.missed(where)
		return
	}
	n, err := unix.Lgetxattr("/proc/self/fd/"+strconv.Itoa(d.fd)+"/"+name, strings.TrimSuffix(attribute, "\x00"), m.value[:])
	if number(err) == unix.ENOENT {
		return
	}
	current := ""
	if err == nil {
		current = string(bytes.TrimRight(m.value[:n], "\x00"))
	}
	want := strings.TrimSuffix(string(m.run.fixed), "\x00")
	if m.run.fixed == nil {
		var st unix.Stat_t
		if unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return
		}
		var leave Reason
		if want, leave = m.run.options.Labels.Want(where, kindOf(st.Mode), current); leave != "" {
			return
		}
	}
	if current != want {
		m.missed(where)
	}
}

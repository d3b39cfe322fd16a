package relabel

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// prefetch has the kernel read the metadata of an ext4 file system in large pieces, from its block device, whose page cache is what ext4
// takes its metadata from. The walk reads the same in thousands of small pieces, each of which costs a disk on a network a
// millisecond. It is a hint: nothing that is read here is believed, what it gets wrong costs a read, and without the device nothing is lost.
type prefetch struct {
	run    *run
	device *os.File
	limit  int64 // bytes
	once   sync.Once
	stop   chan struct{}
	ended  chan struct{}
	asked  atomic.Int64 // when all that is wanted was asked for, in nanoseconds of Unix time; -1 if something was left out
}

const (
	pieceSize   = 1 << 20   // of one hint; a device takes about as much in one request
	gapSize     = 64 << 10  // what is read along rather than starting another request
	mostHints   = 1 << 30   // bytes for one file system
	mostExtents = 1 << 20   // of directories that are remembered, 16 MB; what is beyond is left to the walk
	scanSize    = 128 << 10 // bytes of an inode table that are looked through at once

	arrival = 250 * time.Millisecond // in which most of what was asked for is there
)

// newPrefetch gives nil where reading ahead does not help: other file systems, and trees that are a part of one.
func newPrefetch(r *run) *prefetch {
	var fs unix.Statfs_t
	if !r.place.whole() || unix.Fstatfs(r.target.fd, &fs) != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		return nil
	}
	limit := min(available()/4, mostHints)
	if limit < pieceSize {
		return nil
	}
	dev := uint64(r.target.stat.Dev)
	device := openDevice(dev)
	if device == nil {
		return nil
	}
	return &prefetch{run: r, device: device, limit: limit, stop: make(chan struct{}), ended: make(chan struct{})}
}

// openDevice opens the block device of a number for reading, by the name that the kernel has for it.
func openDevice(dev uint64) *os.File {
	event, err := os.ReadFile("/sys/dev/block/" + strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev))) + "/uevent")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(event)) {
		name, found := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME=")
		if !found {
			continue
		}
		fd, err := unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || uint64(st.Rdev) != dev {
			unix.Close(fd)
			return nil
		}
		return os.NewFile(uintptr(fd), "/dev/"+name)
	}
	return nil
}

// available is the memory in bytes that could be used without swapping; 0 if the kernel does not tell.
func available() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(text, []byte("MemAvailable:"))
	fields := bytes.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return kib << 10
}

// start begins to read ahead, once.
func (p *prefetch) start() { p.once.Do(func() { go p.read() }) }

// end breaks it off.
func (p *prefetch) end() {
	started := true
	p.once.Do(func() { started = false })
	close(p.stop)
	if started {
		<-p.ended
	}
	p.device.Close()
}

// arriving tells whether what the walk waits for is most likely on its way, so that more workers would only wait for the same.
func (p *prefetch) arriving() bool {
	asked := p.asked.Load()
	return asked == 0 || asked > 0 && time.Since(time.Unix(0, asked)) < arrival
}

func (p *prefetch) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

func (p *prefetch) read() {
	defer close(p.ended)
	p.asked.Store(p.ask())
}

// ask asks for all of it, and gives when that was done.
func (p *prefetch) ask() int64 {
	const left = -1
	size, err := p.device.Seek(0, 2)
	if err != nil {
		return left
	}
	fs, err := readExt4(p.device, size)
	if err != nil {
		return left
	}
	for _, table := range fs.tables {
		p.want(table)
	}
	found := fs.directories(p.device, p.stopped, p.want)
	for _, piece := range coalesce(found, gapSize) {
		if !p.want(piece) {
			return left
		}
	}
	return time.Now().UnixNano()
}

// want has the kernel begin to read a part of the device, and does not wait for it. It tells whether all of it was asked for.
func (p *prefetch) want(e extent) bool {
	for e.length > 0 {
		n := min(e.length, pieceSize)
		if p.stopped() || p.run.prefetched.Load()+n > p.limit || unix.Fadvise(int(p.device.Fd()), e.start, n, unix.FADV_WILLNEED) != nil {
			return false
		}
		p.run.prefetched.Add(n)
		e.start, e.length = e.start+n, e.length-n
	}
	return true
}

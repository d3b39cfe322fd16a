// Package powertest cuts the power of a disk. It is for tests that must know what is left of a change when the machine stops at
// an instant of it.
//
// A Disk lies in memory. The kernel mounts it through FUSE and a loop device like any other, and every write and every flush of
// its cache that reaches it is recorded. From the record comes the disk as it would be found after a power cut at any of the
// flushes: what was written before is there, what came later is not, or in part.
//
// It needs root, /dev/fuse and loop devices. It does not show what a disk does that lies about its flushes.
package powertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/command"
)

const (
	block  = 4096 // the unit in which a disk is kept
	sector = 512  // the unit in which it is written: a disk writes one whole or not at all
)

// FileSystem is what a disk can have on it.
type FileSystem struct {
	Name    string
	kind    string
	make    []string
	options string // of the mount
	// atomic says that it takes blocks of 4 KiB for whole ones: its only superblock that is read at a mount has that size, and no journal.
	atomic bool
}

// FileSystems are those that a Flatcar host may have its root on, ext4 in two ways.
func FileSystems() []FileSystem {
	// A journal that is being zeroed in the background would write at every instant.
	ext4 := []string{"mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}
	return []FileSystem{
		{Name: "ext4", kind: "ext4", make: ext4},
		{Name: "ext4 writeback", kind: "ext4", make: ext4, options: "data=writeback"},
		{Name: "xfs", kind: "xfs", make: []string{"mkfs.xfs", "-q", "-K"}},
		{Name: "btrfs", kind: "btrfs", make: []string{"mkfs.btrfs", "-q", "-K"}, atomic: true},
	}
}

// Bench is where disks are attached.
type Bench struct {
	dir   string
	root  *fs.Inode
	count atomic.Int64
}

// Disk is a disk in memory. It must not be mounted twice at the same time.
type Disk struct {
	bench *Bench
	size  int64

	mu        sync.Mutex
	blocks    map[int64][]byte // what is not there is zero; a block is replaced, never changed
	recording bool
	events    []event
}

// event is one write to a block, or a flush.
type event struct {
	Flush   bool
	At      int64   // number of the block
	Content []byte  // of the whole block; nil: zero
	Sectors sectors // that were written
}

// sectors is a set of the sectors of a block, a bit for each.
type sectors uint8

const whole = ^sectors(0)

// replaced gives a block in which some of its sectors are those of another one. Both may be nil.
func (s sectors) replaced(before, written []byte) []byte {
	if s == whole {
		return written
	}
	mixed := make([]byte, block)
	copy(mixed, before)
	for n := range block / sector {
		if at := n * sector; s&(1<<n) != 0 && written != nil {
			copy(mixed[at:at+sector], written[at:])
		} else if s&(1<<n) != 0 {
			clear(mixed[at : at+sector])
		}
	}
	if zero(mixed) {
		return nil
	}
	return mixed
}

// Start makes a bench for the time of the test. Where there can be none the test is skipped, or fails if CI is true.
func Start(t testing.TB) *Bench {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "it needs root")
	}
	for _, name := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(name); err != nil {
			skip(t, "there is no "+name)
		}
	}
	b := &Bench{dir: t.TempDir(), root: &fs.Inode{}}
	server, err := fs.Mount(b.dir, b.root, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "powertest", DirectMountStrict: true, MaxWrite: 1 << 20, DisableSplice: true,
	}})
	if err != nil {
		skip(t, err.Error())
	}
	// A process that is killed while a thread of its waits for its own disk would never end: the disk is served until then.
	const whenGone = `while readlink "/proc/$0/exe" >/dev/null; do sleep 1; done; umount -f "$1"; umount -l "$1"`
	watch := exec.Command("sh", "-c", whenGone, strconv.Itoa(os.Getpid()), b.dir) //nolint:noctx // it outlives the test on purpose
	watch.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := retried(server.Unmount); err != nil {
			t.Errorf("cannot unmount the disks: %v", err)
		}
		_ = syscall.Kill(-watch.Process.Pid, syscall.SIGKILL)
		_ = watch.Wait()
	})
	return b
}

// skip skips the test if something is missing, or fails it if CI is true.
func skip(t testing.TB, missing string) {
	t.Helper()
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the power cannot be cut here: " + missing)
	}
	t.Skip("the power cannot be cut here: " + missing)
}

// New makes a disk of size bytes with an empty file system on it.
func (b *Bench) New(t testing.TB, on FileSystem, size int64) *Disk {
	t.Helper()
	d := &Disk{bench: b, size: size, blocks: map[int64][]byte{}}
	device, detach := d.attach(t)
	defer detach()
	if _, err := (command.Tools{}).Run(t.Context(), append(slices.Clone(on.make), device)...); errors.Is(err, command.ErrMissing) {
		skip(t, on.make[0]+" is missing")
	} else if err != nil {
		t.Fatal(err)
	}
	return d
}

// Mount mounts the disk at a new directory until the end of the test. The file system mends itself when it is mounted, as after a
// power cut.
func (d *Disk) Mount(t testing.TB, on FileSystem) (dir string) {
	t.Helper()
	device, detach := d.attach(t)
	dir = t.TempDir()
	if err := unix.Mount(device, dir, on.kind, unix.MS_NOATIME, on.options); err != nil {
		detach()
		t.Fatalf("cannot mount the disk: %v", err)
	}
	t.Cleanup(func() {
		if err := retried(func() error { return unix.Unmount(dir, 0) }); err != nil {
			t.Errorf("cannot unmount the disk: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		detach()
	})
	return dir
}

// retried tries again for a while what is busy.
func retried(f func() error) error {
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err := f(); !errors.Is(err, unix.EBUSY) || time.Since(start) > 10*time.Second {
			return err
		}
	}
}

// attach shows the disk as a file, and the file as a block device.
func (d *Disk) attach(t testing.TB) (device string, detach func()) {
	t.Helper()
	name := strconv.FormatInt(d.bench.count.Add(1), 10)
	node := d.bench.root.NewPersistentInode(context.Background(), &file{disk: d}, fs.StableAttr{Mode: fuse.S_IFREG})
	d.bench.root.AddChild(name, node, true)
	loop, device, err := attachLoop(filepath.Join(d.bench.dir, name))
	if err != nil {
		t.Fatalf("cannot make a block device of the disk: %v", err)
	}
	return device, func() {
		if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Errorf("cannot detach the disk: %v", err)
		}
		loop.Close()
		d.bench.root.RmChild(name)
	}
}

// attachLoop makes a loop device of a file.
func attachLoop(name string) (*os.File, string, error) {
	backing, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, "", err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, "", err
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, "", err
		}
		device := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return nil, "", err
		}
		config := &unix.LoopConfig{Fd: uint32(backing.Fd()), Size: sector, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), config); err == nil {
			return loop, device, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else took it
			return nil, "", err
		}
	}
	return nil, "", unix.EBUSY
}

func (d *Disk) put(e event) {
	if content := e.Sectors.replaced(d.blocks[e.At], e.Content); content == nil {
		delete(d.blocks, e.At)
	} else {
		d.blocks[e.At] = content
	}
	if d.recording {
		d.events = append(d.events, e)
	}
}

// write replaces the blocks that data lies in; data of nil is n zeroes.
func (d *Disk) write(data []byte, n, offset int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for done := int64(0); done < n; {
		at, within := (offset+done)/block, (offset+done)%block
		size := min(block-within, n-done)
		content := make([]byte, block)
		copy(content, d.blocks[at])
		clear(content[within : within+size])
		if data != nil {
			copy(content[within:], data[done:done+size])
		}
		if zero(content) {
			content = nil
		}
		first, last := within/sector, (within+size-1)/sector
		d.put(event{At: at, Content: content, Sectors: whole << first & (whole >> (block/sector - 1 - last))})
		done += size
	}
}

func zero(content []byte) bool {
	for _, b := range content {
		if b != 0 {
			return false
		}
	}
	return true
}

// file is the disk as a file.
type file struct {
	fs.Inode
	disk *Disk
}

var _ interface {
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeAllocater
	fs.NodeFsyncer
} = (*file)(nil)

// Getattr describes the file.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, uint64(f.disk.size)
	return 0
}

// Setattr changes nothing.
func (f *file) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

// Open keeps the kernel from having a cache of its own.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Read reads.
func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := max(0, min(int64(len(dest)), f.disk.size-offset))
	clear(dest[:n])
	for done := int64(0); done < n; {
		at, within := (offset+done)/block, (offset+done)%block
		size := min(block-within, n-done)
		if content := f.disk.blocks[at]; content != nil {
			copy(dest[done:done+size], content[within:])
		}
		done += size
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write writes and records.
func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	f.disk.write(data, int64(len(data)), offset)
	return uint32(len(data)), 0
}

// Allocate makes a hole, or zeroes: the file system discards blocks.
func (f *file) Allocate(_ context.Context, _ fs.FileHandle, offset, size uint64, _ uint32) syscall.Errno {
	f.disk.write(nil, int64(size), int64(offset))
	return 0
}

// Fsync records a flush.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.recording {
		f.disk.events = append(f.disk.events, event{Flush: true})
	}
	return 0
}

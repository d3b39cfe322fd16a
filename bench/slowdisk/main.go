// Command slowdisk shows a disk image as a file that takes its time, as a disk on a network does: slowdisk MOUNTPOINT IMAGE DELAY.
//
// The file is MOUNTPOINT/disk. Each read waits for DELAY, writes do not; any number of them wait at once. It ends when it is
// unmounted. It is for measurements, with a loop device on the file, and has no use besides.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "slowdisk: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: slowdisk MOUNTPOINT IMAGE DELAY")
	}
	delay, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	image, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := image.Stat()
	if err != nil {
		return err
	}
	root := &fs.Inode{}
	options := &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "slowdisk", DirectMount: true, MaxBackground: 128, MaxWrite: fuse.MAX_KERNEL_WRITE,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO, DisableSplice: true,
	}}
	options.OnAdd = func(ctx context.Context) {
		file := &disk{image: image, size: uint64(info.Size()), delay: delay}
		root.AddChild("disk", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: fuse.S_IFREG}), true)
	}
	server, err := fs.Mount(args[0], root, options)
	if err != nil {
		return err
	}
	server.Wait()
	return nil
}

type disk struct {
	fs.Inode
	image *os.File
	size  uint64
	delay time.Duration
}

var (
	_ fs.NodeGetattrer = (*disk)(nil)
	_ fs.NodeOpener    = (*disk)(nil)
	_ fs.NodeReader    = (*disk)(nil)
	_ fs.NodeWriter    = (*disk)(nil)
	_ fs.NodeFsyncer   = (*disk)(nil)
)

// Getattr gives the size of the disk.
func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, d.size
	return 0
}

// Open has every read come here: nothing is kept in the page cache of the file.
func (d *disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Read waits before it answers.
func (d *disk) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	time.Sleep(d.delay)
	n, err := d.image.ReadAt(dest, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write does not wait: a disk acknowledges what its cache took.
func (d *disk) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	n, err := d.image.WriteAt(data, offset)
	if err != nil {
		return uint32(n), syscall.EIO
	}
	return uint32(n), 0
}

// Fsync is no concern of a measurement of reads.
func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

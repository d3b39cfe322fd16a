package relabel

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// CopyUpError says that the labels would copy files to the upper layer of an overlay, and what that takes.
type CopyUpError struct {
	Path  string
	Files int64 // that would be copied, at most: those that are in the upper layer already cost nothing
	Bytes int64 // that they have, at most
	Free  int64 // bytes in the upper layer
}

func (e *CopyUpError) Error() string {
	text := fmt.Sprintf("cannot relabel %s: it is an overlay, and %d entries with up to %.1f MB would be copied to its upper layer, which has %.1f MB free",
		e.Path, e.Files, float64(e.Bytes)/1e6, float64(e.Free)/1e6)
	if e.Bytes > e.Free {
		return text + ": make room, or relabel what the overlay is made of"
	}
	return text + ": give --copy-up to do that"
}

// possible refuses what cannot end well, before anything is changed.
func (r *run) possible(ctx context.Context) error {
	refuse := func(reason string) error { return &RefusedError{r.target.path, reason} }
	if err := r.takesLabels(); err != "" {
		return refuse(err)
	}
	if r.options.DryRun {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.target.fd, &fs); err != nil {
		return fmt.Errorf("cannot relabel %s: %w", r.target.path, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return refuse("it is mounted read-only: mount it writable, or mount it with context=")
	}
	if fs.Type == unix.EXT4_SUPER_MAGIC {
		if need, free := r.labelBlocks(&fs); need > free {
			files, _, err := r.measure(ctx) // what has its label takes nothing
			if err != nil {
				return err
			}
			if need = blocksFor(files); files == 0 || need <= free {
				return nil
			}
			return refuse(fmt.Sprintf("its inodes have no room for labels, which therefore take about %d blocks, and %d are free: free some space", need, free))
		}
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return r.copyUp(ctx, int64(fs.Bavail)*fs.Bsize)
	}
	return nil
}

// takesLabels says why the mount takes no labels; "" if it does.
func (r *run) takesLabels() string {
	m := r.place.mount
	if m != nil && m.Context() != "" && !m.Seclabel() {
		return "it is mounted with context=, which gives everything on it one label: mount it with another one, or without"
	}
	fstype := "unknown"
	if m != nil {
		fstype = m.FSType
	}
	var value [secontext.MaxSize]byte
	h := &worker{run: r, sys: r.sys}
	if _, errno := h.get(handle{fd: r.target.fd, pinned: true}, value[:]); errno == unix.EOPNOTSUPP {
		return "its file system (" + fstype + ") keeps no labels: mount it with context= instead"
	}
	if m != nil && !m.Seclabel() && enforcesLabels() {
		return "its file system (" + fstype + ") keeps no labels of its own here, as the policy says: mount it with context= instead"
	}
	return ""
}

// enforcesLabels tells whether the kernel has SELinux with a policy: then it marks the mounts that take labels.
func enforcesLabels() bool {
	all, err := mounts.Read()
	return err == nil && slices.ContainsFunc(all, (*mounts.Mount).Seclabel)
}

// blocksFor gives how many blocks the labels of files take outside of their inodes: files with one label share a block, up to 1024 of them
// (fs/ext4/xattr.h, EXT4_XATTR_REFCOUNT_MAX).
func blocksFor(files int64) int64 { return files/1024 + 1 }

// labelBlocks gives how many blocks the labels take at most on an ext4 whose inodes are too small for them, and how many are free.
func (r *run) labelBlocks(fs *unix.Statfs_t) (need, free int64) {
	device := openDevice(uint64(r.target.stat.Dev))
	if device == nil {
		return 0, 0
	}
	defer device.Close()
	size, err := device.Seek(0, 2)
	if err != nil {
		return 0, 0
	}
	layout, err := readExt4(device, size)
	if err != nil || layout.inode > 128 {
		return 0, 0
	}
	// ext4 keeps some blocks for itself, which not even root gets (fs/ext4/super.c, ext4_calculate_resv_clusters).
	kept := min(size/layout.block/50, 4096)
	return blocksFor(int64(fs.Files - fs.Ffree)), max(int64(fs.Bfree)-kept, 0)
}

// measure counts what would be changed, with a walk that changes nothing.
func (r *run) measure(ctx context.Context) (files, size int64, err error) {
	var count, bytes atomic.Int64
	o := r.options
	o.DryRun, o.Verify, o.State, o.Changed, o.Progress = true, false, nil, nil, nil
	dry, err := r.target.newRun(o)
	if err != nil {
		return 0, 0, err
	}
	dry.measured = func(st *unix.Stat_t) {
		count.Add(1)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			bytes.Add(st.Size)
		}
	}
	err = dry.do(ctx)
	return count.Load(), bytes.Load(), err
}

// copyUp says what labelling an overlay takes, where it may not.
func (r *run) copyUp(ctx context.Context, free int64) error {
	files, size, err := r.measure(ctx)
	if err != nil {
		return err
	}
	if files == 0 || r.options.CopyUp && size <= free {
		return nil
	}
	return &CopyUpError{Path: r.target.path, Files: files, Bytes: size, Free: free}
}

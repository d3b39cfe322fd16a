package hostfs

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

const opaqueAttribute = "trusted.overlay.opaque"

// ClearOpaque makes the lower layer shine through again below name, where name lies on an overlay. A directory that took the
// place of something in the lower layer is opaque: overlayfs marks it so that nothing of the lower one is seen, now and after
// every later OS update. The mark is not visible through the overlay, so it is removed in the upper layer itself, reached by a
// private clone of the file system below (open_tree(2) OPEN_TREE_CLONE, Linux 5.2), which no other process ever sees.
//
// The running overlay goes on with what it has cached: the change counts from the next boot at the latest. It gives the
// directories that were opaque. Where name is not on an overlay there is nothing to do.
func (r *Root) ClearOpaque(name string) ([]string, error) {
	dirs, err := r.OpaqueDirectories(name)
	if err != nil || len(dirs) == 0 {
		return nil, err
	}
	upper, prefix, err := r.upper(name, true)
	if err != nil || upper == nil {
		return nil, err
	}
	defer upper.Close()
	for _, dir := range dirs {
		fd, err := upper.open(strings.TrimPrefix(dir, prefix), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return nil, err
		}
		err = unix.Fremovexattr(fd, opaqueAttribute)
		if err == nil || errors.Is(err, unix.ENODATA) {
			err = unix.Fsync(fd)
		}
		unix.Close(fd)
		if err != nil {
			return nil, r.fail("remove "+opaqueAttribute+" in the upper layer of", dir, err)
		}
	}
	return dirs, nil
}

// OpaqueDirectories names the directories at and below name that hide the lower layer of the overlay that name lies on.
func (r *Root) OpaqueDirectories(name string) ([]string, error) {
	upper, prefix, err := r.upper(name, false)
	if err != nil || upper == nil {
		return nil, err
	}
	defer upper.Close()
	below := strings.TrimPrefix(clean(name), prefix)
	if info, err := upper.Lstat(below); err != nil || !info.IsDir() {
		return nil, nil // the upper layer has nothing of it
	}
	var opaque []string
	err = upper.Walk(below, func(at string, info Entry) error {
		if !info.IsDir() {
			return nil
		}
		fd, err := upper.open(path.Join(below, at), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		buf := make([]byte, 8)
		if n, err := unix.Fgetxattr(fd, opaqueAttribute, buf); err == nil && string(buf[:n]) == "y" {
			opaque = append(opaque, path.Join(clean(name), at))
		}
		return nil
	})
	return opaque, err
}

// upper opens the upper layer of what is mounted from an overlay and holds name, and gives that mount's mount point. No overlay, or nothing in the
// upper layer: nil.
func (r *Root) upper(name string, write bool) (*Root, string, error) {
	if !r.IsHost() {
		return nil, "", nil
	}
	table, err := mounts.Read()
	if err != nil {
		return nil, "", err
	}
	overlay, upperdir := overlayOf(table, clean(name))
	if overlay == nil {
		return nil, "", nil
	}
	// The initrd mounted it, when the root file system was still at /sysroot.
	dir := strings.TrimPrefix(upperdir, "/sysroot")
	holder := holderOf(table, overlay, dir)
	tree, err := unix.OpenTree(unix.AT_FDCWD, holder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, "", r.fail("open_tree", holder, err)
	}
	defer unix.Close(tree)
	if write {
		// ProtectSystem= makes the mounts of a unit's namespace read-only, and a clone of one is what it is a clone of. Where this cannot be done
		// (before Linux 5.12) the write says so.
		_ = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	}
	base := &Root{fd: tree, path: holder}
	fd, err := base.open("/"+strings.TrimPrefix(dir, holder), unix.O_PATH|unix.O_DIRECTORY)
	switch {
	case Missing(err) && overlay.Root != "/":
		return nil, "", nil // all of what is mounted here comes from the lower layer
	case err != nil:
		return nil, "", err
	}
	return &Root{fd: fd, path: dir}, overlay.Mountpoint, nil
}

// overlayOf gives the innermost mount that holds name, and the directory of its upper layer that is seen there: of a unit's ReadWritePaths=, which
// systemd mounts over itself, a part of it. Nil if it is no overlay, or has no upper layer.
func overlayOf(table []*mounts.Mount, name string) (m *mounts.Mount, upperdir string) {
	m = mounts.At(table, name)
	if m == nil || m.FSType != "overlay" {
		return nil, ""
	}
	upperdir, ok := m.SuperOption("upperdir")
	if !ok {
		return nil, ""
	}
	return m, path.Join(mounts.Unescape(upperdir), m.Root)
}

// holderOf gives the mount point of the file system that the upper layer of an overlay is on: that of the root, or of /var where that is one by
// itself and systemd-confext keeps the layer there. What is mounted at the overlay or below is not beneath it, wherever the overlay is seen.
func holderOf(table []*mounts.Mount, overlay *mounts.Mount, upperdir string) string {
	var points []string
	for _, m := range table {
		if m.Device == overlay.Device {
			points = append(points, m.Mountpoint)
		}
	}
	beneath := slices.DeleteFunc(slices.Clone(table), func(m *mounts.Mount) bool {
		return slices.ContainsFunc(points, func(point string) bool { return m.Mountpoint == point || strings.HasPrefix(m.Mountpoint, point+"/") })
	})
	if m := mounts.At(beneath, upperdir); m != nil {
		return m.Mountpoint
	}
	return "/"
}

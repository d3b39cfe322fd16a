package mounts

import "strings"

// TypeNames gives the names by which a type of file system, as the kernel shows it, may be asked for: its own first, then that of its family, which
// is "nfs" for nfs4 and "fuse" for fuse.sshfs, and of one of FUSE that of its helper: mount(8) is asked for "glusterfs", and the kernel shows
// fuse.glusterfs.
func TypeNames(fsType string) []string {
	family, helper, sub := strings.Cut(fsType, ".")
	switch {
	case fsType == "nfs4":
		return []string{fsType, "nfs"}
	case sub && family == "fuse" && helper != "":
		return []string{fsType, family, helper}
	case sub:
		return []string{fsType, family}
	}
	return []string{fsType}
}

// KernelType gives what the kernel will show for the type that a mount is declared with, as far as that can be told before: nfs is nfs4
// where the options say so (nfs(5); without, it depends on the server).
func KernelType(fsType, options string) string {
	switch fsType {
	case "glusterfs":
		return "fuse.glusterfs"
	case "nfs":
		for o := range SplitOptions(options) {
			key, version, _ := strings.Cut(o, "=")
			if (key == "vers" || key == "nfsvers") && strings.HasPrefix(version, "4") || key == "v4" || strings.HasPrefix(key, "v4.") {
				return "nfs4"
			}
		}
	}
	return fsType
}

// SharesNothing tells whether every mount of a type of file system has a superblock of its own, so that its source is a word that means nothing,
// or the name of something that each mount asks for anew: sget() finds none for tmpfs, ramfs, overlay and 9p (mm/shmem.c, fs/ramfs/inode.c,
// fs/overlayfs/super.c, fs/9p/vfs_super.c), and one of FUSE has the server that this very mount has started (fs/fuse/inode.c). It is no for virtiofs,
// where the tag is what a disk is elsewhere (fs/fuse/virtio_fs.c, virtio_fs_test_super).
func SharesNothing(fsType string) bool {
	switch fsType {
	case "tmpfs", "ramfs", "overlay", "9p", "fuse":
		return true
	}
	return strings.HasPrefix(fsType, "fuse.")
}

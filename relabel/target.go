package relabel

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/protected"
)

// Target is a tree, or a single file, that was found and may be labelled. It holds its mount busy until Close.
type Target struct {
	fd    int    // O_PATH
	path  string // as it was resolved, on this host
	named string // as the host that it belongs to sees it: differs beneath another root
	stat  unix.Stat_t
	sys   system
	limit bounds
	// noCopy makes no private copy of the mount, as where the right to it is missing.
	noCopy bool
	last   *lastRun // nil without Lock
}

// RefusedError says that a tree must not be labelled.
type RefusedError struct{ Path, Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("cannot relabel %s: %s", e.Path, e.Reason) }

// Open finds the tree at name, links followed, once and for all. A system directory, and what the kernel makes up, gives a
// RefusedError, whatever path, link or bind mount leads to it.
func Open(name string, scope Scope) (*Target, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", name, err)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", name, err)
	}
	defer root.Close()
	return OpenIn(root, abs, scope)
}

// OpenIn is Open for a tree beneath a root that need not be the running host's. Links are followed inside the root.
func OpenIn(root *hostfs.Root, name string, scope Scope) (*Target, error) {
	handle := root.Handle
	if scope == Declared {
		handle = root.Entry
	}
	f, err := handle(name)
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", root.Path(name), err)
	}
	defer f.Close()
	t, err := OpenHandle(f)
	if err != nil {
		return nil, err
	}
	if !root.IsHost() {
		if t.named, err = t.below(root); err != nil {
			t.Close()
			return nil, err
		}
	}
	err = t.allowed(root, scope)
	if err == nil && scope == Volume && root.IsHost() {
		err = t.noSubvolumes()
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// below gives the target's path as the host sees it whose root this is.
func (t *Target) below(root *hostfs.Root) (string, error) {
	f, err := root.Handle("/")
	if err != nil {
		return "", fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	defer f.Close()
	base, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return "", fmt.Errorf("cannot relabel %s: %w", t.path, err)
	}
	if !within(t.path, base) {
		return "", fmt.Errorf("cannot relabel %s: it was moved out of %s meanwhile", t.path, base)
	}
	return path.Clean("/" + strings.TrimPrefix(t.path, base)), nil
}

// OpenHandle gives the tree that an open file or directory is; O_PATH is enough. The handle stays the caller's. What it is was the
// caller's choice: only what the kernel makes up is refused.
func OpenHandle(f *os.File) (*Target, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot relabel %s: %w", f.Name(), err)
	}
	t := &Target{fd: fd, sys: kernelCalls{}, limit: defaultBounds()}
	if err := unix.Fstat(fd, &t.stat); err != nil {
		t.Close()
		return nil, fmt.Errorf("cannot relabel %s: %w", f.Name(), err)
	}
	// Where the handle leads now, for messages and for file contexts; nothing is opened by it.
	if t.path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil {
		t.Close()
		return nil, fmt.Errorf("cannot relabel %s: cannot tell its path: %w: is /proc mounted?", f.Name(), err)
	}
	t.named = t.path
	if err := t.hasLabels(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close gives the tree's handle back.
func (t *Target) Close() { unix.Close(t.fd) }

// Path gives the tree's path as it was resolved.
func (t *Target) Path() string { return t.path }

// IsDirectory tells whether the target is a tree, and not a single file.
func (t *Target) IsDirectory() bool { return t.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// allowed compares what was found, not what was asked for, with the system's directories: by where it is, and by what it is, for a bind
// mount shows a directory in another place.
func (t *Target) allowed(root *hostfs.Root, scope Scope) error {
	isProtected, whose := protected.Path, "the operating system's: give a directory of data, or label it as the policy says with --from-policy"
	switch scope {
	case System:
		return nil
	case Declared:
		isProtected, whose = protected.Declared, "the operating system's or a container runtime's, and keeps its labels whatever is declared"
	}
	if isProtected(t.named) || isProtected(t.path) { // beneath another root it may still be the running host's
		return &RefusedError{t.path, "it is " + whose}
	}
	for _, dir := range slices.Concat(protected.Directories(), protected.Trees()) {
		if info, err := root.Stat(dir); err == nil && info.Dev == uint64(t.stat.Dev) && info.Ino == t.stat.Ino {
			return &RefusedError{t.path, "it is " + dir + " in another place, " + whose}
		}
	}
	if where := t.protectedElsewhere(isProtected); where != "" {
		return &RefusedError{t.path, "it is " + where + " in another place, " + whose}
	}
	return nil
}

// protectedElsewhere gives the path in the operating system's trees at which the target is seen too, by a bind mount of it or of a
// directory above; "" if there is none. What is mounted into such a tree, or into a container runtime's, is not the system's, but data that
// it uses.
func (t *Target) protectedElsewhere(isProtected func(string) bool) string {
	here, all, err := t.mounts()
	if err != nil || here.mount == nil || !within(t.path, here.mount.Mountpoint) {
		return ""
	}
	inside := path.Join(here.mount.Root, strings.TrimPrefix(t.path, here.mount.Mountpoint))
	for _, m := range all {
		if m.Device != here.mount.Device || !within(inside, m.Root) || protected.Owner(m.Mountpoint) != "" || slices.ContainsFunc(protected.Trees(), func(tree string) bool {
			return m.Mountpoint != tree && within(m.Mountpoint, tree)
		}) {
			continue
		}
		where := path.Join(m.Mountpoint, strings.TrimPrefix(inside, m.Root))
		if !isProtected(where) {
			continue
		}
		// Another mount may hide it.
		var st unix.Stat_t
		if unix.Stat(where, &st) == nil && st.Dev == t.stat.Dev && st.Ino == t.stat.Ino {
			return where
		}
	}
	return ""
}

// Owned gives the directories of container runtimes that lie below the tree, wherever links and bind mounts of a host have put them, as paths of
// that host.
func (t *Target) Owned(root *hostfs.Root) (owned []string) {
	here, all, err := t.mounts()
	for _, tree := range protected.Runtimes() {
		f, openErr := root.Handle(tree)
		if openErr != nil {
			continue
		}
		there, linkErr := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		f.Close()
		if linkErr != nil {
			continue
		}
		places := []string{there}
		if m := mounts.At(all, there); err == nil && m != nil && here.mount != nil && m.Device == here.mount.Device {
			inside := path.Join(m.Root, strings.TrimPrefix(there, m.Mountpoint))
			if within(inside, here.mount.Root) {
				places = append(places, path.Join(here.mount.Mountpoint, strings.TrimPrefix(inside, here.mount.Root)))
			}
		}
		for _, p := range places {
			if within(p, t.path) {
				owned = append(owned, path.Join(t.named, strings.TrimPrefix(p, t.path)))
			}
		}
	}
	slices.Sort(owned)
	return slices.Compact(owned)
}

// hasLabels refuses file systems on which there is nothing to label.
func (t *Target) hasLabels() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(t.fd, &fs); err != nil {
		return fmt.Errorf("cannot relabel %s: cannot tell its file system: %w", t.path, err)
	}
	made := map[int64]string{
		unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.SELINUX_MAGIC: "selinuxfs", unix.CGROUP_SUPER_MAGIC: "cgroup",
		unix.CGROUP2_SUPER_MAGIC: "cgroup2", unix.DEVPTS_SUPER_MAGIC: "devpts", unix.DEBUGFS_MAGIC: "debugfs", unix.TRACEFS_MAGIC: "tracefs",
		unix.BPF_FS_MAGIC: "bpf", unix.SECURITYFS_MAGIC: "securityfs", unix.AUTOFS_SUPER_MAGIC: "autofs",
	}
	if name, found := made[int64(fs.Type)]; found {
		return &RefusedError{t.path, "it is on " + name + ", which the kernel makes up and labels itself"}
	}
	return nil
}

// noSubvolumes refuses Btrfs, as the watcher does. What is labelled there does not stay so: a new snapshot's root comes without a label, and
// subvolumes inside the tree, which are in no mount table, are passed over.
func (t *Target) noSubvolumes() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(t.fd, &fs); err != nil {
		return fmt.Errorf("cannot relabel %s: cannot tell its file system: %w", t.path, err)
	}
	if fs.Type == unix.BTRFS_SUPER_MAGIC {
		return &RefusedError{t.path, "it is on Btrfs, where a new snapshot's root comes without a label and nested subvolumes are in no mount table: use ext4 or xfs, " +
			"or label it as the policy says with --from-policy"}
	}
	return nil
}

// place is what the mount table says of a target.
type place struct {
	mount  *mounts.Mount // that it is on; nil if it was not found
	isRoot bool          // it is that mount's root
	below  []string
}

// whole tells whether the target is all of its file system.
func (p place) whole() bool { return p.mount != nil && p.isRoot && p.mount.Whole() }

// place finds the target in the mount table, and what is mounted below it.
func (t *Target) place() (place, error) {
	found, all, err := t.mounts()
	for _, m := range all {
		if m.Mountpoint != t.path && within(m.Mountpoint, t.path) && m != found.mount {
			found.below = append(found.below, m.Mountpoint)
		}
	}
	slices.Sort(found.below)
	found.below = slices.Compact(found.below)
	return found, err
}

// mounts gives the mount table, and in it the target's mount, by its number and not by its path.
func (t *Target) mounts() (place, []*mounts.Mount, error) {
	var stx unix.Statx_t
	err := unix.Statx(t.fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &stx)
	if err != nil {
		return place{}, nil, fmt.Errorf("cannot tell its mount: %w", err)
	}
	if stx.Mask&unix.STATX_MNT_ID == 0 { // Linux before 5.8
		return place{}, nil, nil
	}
	all, err := mounts.Read()
	if err != nil {
		return place{}, nil, err
	}
	found := place{isRoot: stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}
	for _, m := range all {
		if uint64(m.ID) == stx.Mnt_id {
			found.mount = m
		}
	}
	return found, all, nil
}

func within(name, dir string) bool {
	return dir == "/" || name == dir || strings.HasPrefix(name, path.Clean(dir)+"/")
}

// Package hostfs reads and changes files beneath one root directory: the running host's "/", or a tree given with --root.
//
// Names are absolute as the host sees them ("/etc/selinux/config"). Every name is resolved by the kernel beneath the root's
// handle with openat2(2) RESOLVE_IN_ROOT, so an absolute symbolic link inside a tree stays inside that tree and no link, "..",
// or race leads out of it. The unsafe equivalent is os.OpenFile(filepath.Join(root, name)). A change is made either in place by
// one rename(2) of something complete, or not at all.
//
// Do not use it to walk volumes that somebody else is writing to: resolution follows links on purpose, because Flatcar's own
// layout consists of links. It needs Linux 5.6 (openat2); the oldest Flatcar release in use has 5.15.
package hostfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxFile is the largest file in bytes that ReadFile returns. The largest file that this project reads whole is a binary
// policy, 3 to 4 MB in practice.
const MaxFile = 64 << 20

const labelAttribute = "security.selinux"

// Root is an open root directory. It is safe for concurrent use.
type Root struct {
	fd   int
	path string
}

// Open opens the root directory at dir, "/" for the running host.
func Open(dir string) (*Root, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(abs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: abs, Err: err}
	}
	return &Root{fd: fd, path: abs}, nil
}

// Close closes the root's handle.
func (r *Root) Close() error { return unix.Close(r.fd) }

// IsHost tells whether the root is "/" of this process, and not a tree given with --root.
func (r *Root) IsHost() bool { return r.path == "/" }

// Path gives the name as a path of this process, for messages and for tools that are run with it.
func (r *Root) Path(name string) string { return filepath.Join(r.path, clean(name)) }

// Info describes one directory entry.
type Info struct {
	Mode     fs.FileMode // type, permissions, set-uid, set-gid and sticky bits
	UID, GID uint32
	Size     int64 // bytes; for a link the length of its target
	ModTime  time.Time
	Nlink    uint64
	Dev, Ino uint64
}

// IsDir tells whether the entry is a directory, a link to one excluded.
func (i Info) IsDir() bool { return i.Mode.IsDir() }

// IsRegular tells whether the entry is a regular file.
func (i Info) IsRegular() bool { return i.Mode.IsRegular() }

// IsLink tells whether the entry is a symbolic link.
func (i Info) IsLink() bool { return i.Mode&fs.ModeSymlink != 0 }

// Missing tells whether an error says that a name leads to nothing: it does not exist, or is a dangling or circular link.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) }

// NoFile tells whether an error of OpenFile says that no regular file is there: nothing, something else, or a way that leads through
// what is no directory. Any other error says that nobody knows.
func NoFile(err error) bool {
	return Missing(err) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL)
}

func clean(name string) string { return path.Clean("/" + name) }

func (r *Root) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: r.Path(name), Err: err}
}

// open resolves name beneath the root, following links inside it unless flags hold O_NOFOLLOW.
func (r *Root) open(name string, flags int) (int, error) {
	rel := strings.TrimPrefix(clean(name), "/")
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for attempt := range 1000 {
		if attempt >= 64 { // not one rename but a storm of mounts, as on a host that starts hundreds of containers
			time.Sleep(time.Millisecond)
		}
		fd, err := unix.Openat2(r.fd, rel, &how)
		if err == nil {
			return fd, nil
		}
		// EAGAIN: a rename or mount elsewhere raced with the resolution of "..", openat2(2) asks to try again.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return -1, r.fail("open", name, err)
		}
	}
	return -1, r.fail("open", name, unix.EAGAIN)
}

// parent opens the directory that holds name's last component, which is returned unresolved.
func (r *Root) parent(name string) (fd int, base string, err error) {
	name = clean(name)
	if name == "/" {
		return -1, "", r.fail("open", name, unix.EINVAL)
	}
	// A handle of O_RDONLY, not O_PATH: it is also fsynced.
	fd, err = r.open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY)
	return fd, path.Base(name), err
}

// Lstat describes the entry itself, a link included.
func (r *Root) Lstat(name string) (Info, error) {
	if clean(name) == "/" {
		return r.Stat(name)
	}
	fd, base, err := r.parent(name)
	if err != nil {
		return Info{}, err
	}
	defer unix.Close(fd)
	info, err := lstatAt(fd, base)
	if err != nil {
		return Info{}, r.fail("lstat", name, err)
	}
	return info, nil
}

// Stat describes what name leads to, links followed inside the root.
func (r *Root) Stat(name string) (Info, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return Info{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Info{}, r.fail("stat", name, err)
	}
	return infoOf(&st), nil
}

// Exists tells whether name leads to something; a dangling link does not.
func (r *Root) Exists(name string) bool {
	_, err := r.Stat(name)
	return err == nil
}

func lstatAt(dir int, base string) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Info{}, err
	}
	return infoOf(&st), nil
}

func infoOf(st *unix.Stat_t) Info {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFREG:
	default:
		mode |= fs.ModeIrregular
	}
	if st.Mode&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if st.Mode&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if st.Mode&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return Info{
		Mode: mode, UID: st.Uid, GID: st.Gid, Size: st.Size,
		ModTime: time.Unix(st.Mtim.Unix()), Nlink: uint64(st.Nlink), Dev: uint64(st.Dev), Ino: st.Ino,
	}
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

// Readlink gives the target of the link name as it is written there.
func (r *Root) Readlink(name string) (string, error) {
	fd, base, err := r.parent(name)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	target, err := readlinkAt(fd, base)
	if err != nil {
		return "", r.fail("readlink", name, err)
	}
	return target, nil
}

func readlinkAt(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// OpenFile opens a regular file for reading, links followed inside the root. A directory gives EISDIR, a device, FIFO or
// socket EINVAL, without opening it.
func (r *Root) OpenFile(name string) (*os.File, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, r.fail("stat", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, r.fail("read", name, unix.EISDIR)
	default:
		return nil, r.fail("read", name, fmt.Errorf("not a regular file: %w", unix.EINVAL))
	}
	// Opening again through the handle reaches the very inode that was looked at.
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	return os.NewFile(uintptr(again), r.Path(name)), nil
}

// Handle gives an O_PATH handle of what name leads to, links followed inside the root. Nothing is opened by it: a device, a FIFO or a
// socket is not touched, and no file system is mounted.
func (r *Root) Handle(name string) (*os.File, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), r.Path(name)), nil
}

// Entry is Handle of the entry itself: of a link, not of what it leads to.
func (r *Root) Entry(name string) (*os.File, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), r.Path(name)), nil
}

// ReadFile reads a regular file of at most MaxFile bytes, links followed inside the root.
func (r *Root) ReadFile(name string) ([]byte, error) {
	f, err := r.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(content) > MaxFile {
		err = r.fail("read", name, unix.EFBIG)
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// ReadDir lists a directory in name order, links followed inside the root.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), r.Path(name))
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	return entries, nil
}

// SamePath makes sure that name means the same to a program that gets Path(name) and knows no root: a link that is absolute, or climbs
// out of the tree, leads such a program somewhere else.
func (r *Root) SamePath(name string) error {
	inside, err := r.Stat(name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(r.Path(name), &st); err != nil || uint64(st.Dev) != inside.Dev || st.Ino != inside.Ino {
		return r.fail("use", name, errors.New("a link in this path leads out of the tree"))
	}
	return nil
}

// Free gives the bytes that root may still write to the file system that holds name.
func (r *Root) Free(name string) (uint64, error) {
	st, err := r.statfs(name)
	return st.Bavail * uint64(st.Bsize), err
}

// FreeInodes gives how many files root may still make on the file system that holds name; a file system that has no fixed number of
// inodes, such as Btrfs, gives the highest number there is.
func (r *Root) FreeInodes(name string) (uint64, error) {
	st, err := r.statfs(name)
	if err == nil && st.Files == 0 {
		return math.MaxUint64, nil
	}
	return st.Ffree, err
}

func (r *Root) statfs(name string) (st unix.Statfs_t, err error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, r.describe("statfs", name, unix.Fstatfs(fd, &st))
}

// Sync makes durable whatever anybody has written to the file systems that hold the directories: what a tool wrote, which nobody else
// flushes. A name that is no directory stands for the one that it is in.
func (r *Root) Sync(names ...string) error {
	done := map[uint64]bool{}
	for _, name := range names {
		fd, err := r.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOTDIR) {
			fd, err = r.open(path.Dir(clean(name)), unix.O_RDONLY|unix.O_DIRECTORY)
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && !done[st.Dev] {
			done[st.Dev] = true
			err = unix.Syncfs(fd)
		}
		unix.Close(fd)
		if err != nil {
			return r.fail("syncfs", name, err)
		}
	}
	return nil
}

// Label reads the SELinux label of the entry itself; "" if the file system holds none.
func (r *Root) Label(name string) (string, error) {
	fd, base, err := r.parent(name)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	label, err := labelAt(fd, base)
	if err != nil {
		return "", r.fail("getxattr", name, err)
	}
	return label, nil
}

// labelAt reads base's label through /proc/self/fd/DIR/base, the only way to name an entry by handle before getxattrat(2).
func labelAt(dir int, base string) (string, error) {
	var buf [maxLabel]byte
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), labelAttribute, buf[:])
	return labelFrom(buf[:max(n, 0)], err)
}

func labelOf(fd int) (string, error) {
	var buf [maxLabel]byte
	n, err := unix.Fgetxattr(fd, labelAttribute, buf[:])
	return labelFrom(buf[:max(n, 0)], err)
}

// maxLabel is the longest label: security/selinux/selinuxfs.c, SIMPLE_TRANSACTION_LIMIT.
const maxLabel = 4096

func labelFrom(attribute []byte, err error) (string, error) {
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", err
	}
	return strings.TrimRight(string(attribute), "\x00"), nil
}

// unlabeled tells whether the kernel made the label up for a file that has none on disk. Writing it out would change nothing
// but turn "no label" into a label.
func unlabeled(label string) bool {
	return label == "" || strings.Contains(label, ":unlabeled_t:") || strings.HasSuffix(label, ":unlabeled_t")
}

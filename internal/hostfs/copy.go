package hostfs

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Tree counts what a tree holds.
type Tree struct {
	Entries int   // files, directories and links
	Files   int   // regular files, each hard link counted
	Bytes   int64 // of the regular files, each inode once
}

// Measure counts the tree at name, links not followed.
func (r *Root) Measure(name string) (Tree, error) {
	var t Tree
	seen := map[[2]uint64]bool{}
	err := r.Walk(name, func(_ string, info Entry) error {
		t.Entries++
		if info.IsRegular() {
			t.Files++
			id := [2]uint64{info.Dev, info.Ino}
			if info.Nlink < 2 || !seen[id] {
				seen[id] = info.Nlink > 1
				t.Bytes += info.Size
			}
		}
		return nil
	})
	return t, err
}

// Entry is what Walk comes upon. It holds the open directory, so that it can be read without going all the way from the root again.
type Entry struct {
	Info
	dir  int
	base string
}

// Read reads a regular file into buf, or into a larger buffer if it does not fit; both are good until the visit ends. It follows no
// link.
func (e Entry) Read(buf []byte) ([]byte, error) {
	fd, err := unix.Openat(e.dir, e.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if e.Size > MaxFile {
		return nil, unix.EFBIG
	}
	if int64(len(buf)) < e.Size {
		buf = make([]byte, e.Size)
	}
	n := 0
	for int64(n) < e.Size {
		m, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// Walk calls visit for name, links followed for name itself alone, and for everything below it in name order, directories
// before what they hold. The names given are below name: "" for the tree's root, then "a", "a/b".
func (r *Root) Walk(name string, visit func(below string, e Entry) error) error {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return r.fail("stat", name, err)
	}
	if err := visit("", Entry{Info: infoOf(&st), dir: fd, base: "."}); err != nil {
		return err
	}
	return r.walkAt(fd, clean(name), "", visit)
}

func (r *Root) walkAt(dir int, name, below string, visit func(string, Entry) error) error {
	names, err := listAt(dir)
	if err != nil {
		return r.fail("read", path.Join(name, below), err)
	}
	for _, child := range names {
		at := child
		if below != "" {
			at = below + "/" + child
		}
		info, err := lstatAt(dir, child)
		if err != nil {
			return r.fail("lstat", path.Join(name, at), err)
		}
		if err := visit(at, Entry{Info: info, dir: dir, base: child}); err != nil {
			return err
		}
		if !info.IsDir() {
			continue
		}
		fd, err := unix.Openat(dir, child, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return r.fail("open", path.Join(name, at), err)
		}
		err = r.walkAt(fd, name, at, visit)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// CopyTree copies the tree that from leads to into a new directory to, with modes, owners, labels, hard links and
// modification times, and makes it durable with one syncfs(2). On an error what was copied so far is removed again; something that
// stood at to before is an error and stays. Devices, FIFOs and sockets are refused: a policy store has none.
func (r *Root) CopyTree(from, to string) (Tree, error) {
	src, err := r.open(from, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return Tree{}, err
	}
	defer unix.Close(src)
	dir, base, err := r.parent(to)
	if err != nil {
		return Tree{}, err
	}
	defer unix.Close(dir)
	c := copier{root: r, from: clean(from), to: clean(to), links: map[[2]uint64]string{}, buf: make([]byte, 256<<10)}
	if c.dst, err = c.makeDirectory(dir, base, ""); err != nil {
		return Tree{}, err
	}
	defer unix.Close(c.dst)
	err = c.directory(src, c.dst, "")
	if err == nil {
		err = r.describe("syncfs", to, unix.Syncfs(dir))
	}
	if err != nil {
		return c.tree, errors.Join(err, r.RemoveTree(to))
	}
	return c.tree, nil
}

// CopyEntry copies an entry, whatever it is, into another directory, in which it gets the same name. What has no content to copy, a pipe, a socket
// or a device, is left out.
func (r *Root) CopyEntry(from, toDir string) (Tree, error) {
	src, base, err := r.parent(from)
	if err != nil {
		return Tree{}, err
	}
	defer unix.Close(src)
	dst, err := r.open(toDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return Tree{}, err
	}
	defer unix.Close(dst)
	c := copier{root: r, from: path.Dir(clean(from)), to: clean(toDir), dst: dst, contentAlone: true, links: map[[2]uint64]string{}, buf: make([]byte, 256<<10)}
	err = c.entry(src, dst, base, base)
	if err == nil {
		err = r.describe("syncfs", toDir, unix.Syncfs(dst))
	}
	return c.tree, err
}

func (r *Root) describe(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return r.fail(op, name, err)
}

type copier struct {
	root     *Root
	from, to string
	dst      int                  // the copy's root
	links    map[[2]uint64]string // the first copy of each inode with several links, below the copy's root
	// contentAlone says that what has no content is left out, and is no mistake.
	contentAlone bool
	buf          []byte
	tree         Tree
}

// makeDirectory makes a directory closed to others and gives its handle; copyAttributes opens it up when it is full.
func (c *copier) makeDirectory(dir int, base, below string) (int, error) {
	if err := unix.Mkdirat(dir, base, 0o700); err != nil {
		return -1, c.root.fail("mkdir", path.Join(c.to, below), err)
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, c.root.describe("open", path.Join(c.to, below), err)
}

func (c *copier) directory(src, dst int, below string) error {
	names, err := listAt(src)
	if err != nil {
		return c.root.fail("read", path.Join(c.from, below), err)
	}
	for _, name := range names {
		if err := c.entry(src, dst, name, path.Join(below, name)); err != nil {
			return err
		}
	}
	c.tree.Entries++
	return c.root.describe("copy attributes to", path.Join(c.to, below), copyAttributes(src, dst))
}

func (c *copier) entry(src, dst int, name, below string) error {
	info, err := lstatAt(src, name)
	if err != nil {
		return c.root.fail("lstat", path.Join(c.from, below), err)
	}
	switch {
	case info.IsDir():
		from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return c.root.fail("open", path.Join(c.from, below), err)
		}
		defer unix.Close(from)
		to, err := c.makeDirectory(dst, name, below)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		return c.directory(from, to, below)
	case info.IsLink():
		c.tree.Entries++
		return c.link(src, dst, name, below, info)
	case info.IsRegular():
		c.tree.Entries++
		c.tree.Files++
		if info.Nlink > 1 {
			id := [2]uint64{info.Dev, info.Ino}
			if first, ok := c.links[id]; ok {
				return c.root.describe("link", path.Join(c.to, below), unix.Linkat(c.dst, first, dst, name, 0))
			}
			c.links[id] = below
		}
		return c.file(src, dst, name, below, info.Size)
	case c.contentAlone:
		return nil
	}
	return c.root.fail("copy", path.Join(c.from, below), fmt.Errorf("not a file, directory or link: %w", unix.EINVAL))
}

func (c *copier) file(src, dst int, name, below string, size int64) error {
	from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.root.fail("open", path.Join(c.from, below), err)
	}
	defer unix.Close(from)
	to, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return c.root.fail("create", path.Join(c.to, below), err)
	}
	defer unix.Close(to)
	n, err := pour(from, to, size, c.buf)
	if err != nil {
		return c.root.fail("copy to", path.Join(c.to, below), err)
	}
	c.tree.Bytes += n
	return c.root.describe("copy attributes to", path.Join(c.to, below), copyAttributes(from, to))
}

func (c *copier) link(src, dst int, name, below string, info Info) error {
	target, err := readlinkAt(src, name)
	if err != nil {
		return c.root.fail("readlink", path.Join(c.from, below), err)
	}
	if err := unix.Symlinkat(target, dst, name); err != nil {
		return c.root.fail("symlink", path.Join(c.to, below), err)
	}
	if err := unix.Fchownat(dst, name, int(info.UID), int(info.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return c.root.fail("chown", path.Join(c.to, below), err)
	}
	if err := copyLabelAt(src, dst, name); err != nil {
		return c.root.fail("copy label to", path.Join(c.to, below), err)
	}
	return c.root.describe("set times of", path.Join(c.to, below), setTimesAt(dst, name, info))
}

// CopyLabel gives the entry to the label of the entry from, of links themselves. It is for what takes the place of another entry.
func (r *Root) CopyLabel(from, to string) error {
	label, err := r.Label(from)
	if err != nil {
		return err
	}
	dir, base, err := r.parent(to)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return r.describe("label", to, setLabelAt(dir, base, label))
}

// copyLabelAt copies the label of an entry that cannot be opened, such as a link.
func copyLabelAt(src, dst int, name string) error {
	label, err := labelAt(src, name)
	if err != nil {
		return err
	}
	return setLabelAt(dst, name, label)
}

func setLabelAt(dst int, name, label string) error {
	if unlabeled(label) {
		return nil
	}
	if have, err := labelAt(dst, name); err == nil && have == label {
		return nil
	}
	err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dst, name), labelAttribute, []byte(label+"\x00"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

func setTimesAt(dir int, name string, info Info) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(info.ModTime.UnixNano())}
	return unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// pour copies what from holds. A file of the size that was expected is not asked for more, which for small files is a good part of
// the work.
func pour(from, to int, size int64, buf []byte) (int64, error) {
	var total int64
	for total < size || size == 0 {
		n, err := unix.Read(from, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return total, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			w, err := unix.Write(to, rest)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return total, err
			}
			rest = rest[w:]
		}
		total += int64(n)
	}
	return total, nil
}

// copyAttributes gives the open file or directory to the owner, mode, label and modification time of from, in the order in
// which none undoes another.
func copyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	info := infoOf(&st)
	if err := unix.Fstat(to, &st); err != nil {
		return err
	}
	// Most of what is copied is root's own: looking costs a tenth of changing.
	if have := infoOf(&st); have.UID != info.UID || have.GID != info.GID || have.Mode != info.Mode {
		if err := setAttributes(to, info.UID, info.GID, info.Mode); err != nil {
			return err
		}
	}
	label, err := labelOf(from)
	if err != nil {
		return err
	}
	if !unlabeled(label) {
		if err := setLabel(to, label); err != nil {
			return err
		}
	}
	tv := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(info.ModTime.UnixNano())}
	return unix.UtimesNanoAt(to, "", tv, unix.AT_EMPTY_PATH)
}

// listAt names what a directory that was just opened holds, sorted, so that whatever is made of the names is the same on every
// machine.
func listAt(dir int) ([]string, error) {
	var names []string
	var buf [8 << 10]byte // on the stack: a policy store has hundreds of directories with three entries each
	for {
		n, err := unix.Getdents(dir, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

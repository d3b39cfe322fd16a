package hostfs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// TempPrefix begins the name of everything that is still being built. Whatever bears it after a crash is garbage.
const TempPrefix = ".selinux-provision."

func tempName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
	return TempPrefix + hex.EncodeToString(b[:])
}

// Attributes are what a written file has besides its content. The zero value is 0644, root, and the label of the regular file
// that is replaced; without one that of the directory, which is what the kernel gives a new file too.
type Attributes struct {
	Mode     fs.FileMode // 0 means 0644
	UID, GID uint32
	Label    string
	Keep     bool // take mode and owner from the regular file that is replaced, where there is one
}

// WriteFile puts content at name in one rename(2): whoever opens name, before a power cut or after it, finds the old file or
// the whole new one. A file or a link, dangling ones too, is replaced; a directory is refused.
func (r *Root) WriteFile(name string, content []byte, attr Attributes) (err error) {
	dir, base, err := r.parent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	label := attr.Label
	if attr.Mode == 0 {
		attr.Mode = 0o644
	}
	old, err := lstatAt(dir, base)
	switch {
	case err == nil && old.IsDir():
		return r.fail("write", name, unix.EISDIR)
	case err == nil && old.IsRegular():
		if attr.Keep {
			attr.Mode, attr.UID, attr.GID = old.Mode, old.UID, old.GID
		}
		if label == "" {
			label, _ = labelAt(dir, base) // an unreadable label is treated as none: the directory's is next
		}
	case err != nil && !errors.Is(err, unix.ENOENT):
		return r.fail("write", name, err)
	}
	if unlabeled(label) {
		label, _ = labelOf(dir)
	}

	temp := tempName()
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return r.fail("create", path.Join(path.Dir(clean(name)), temp), err)
	}
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(dir, temp, 0) // the next run sweeps what stays
		}
	}()
	if err := r.fill(fd, name, content, attr, label); err != nil {
		unix.Close(fd)
		return err
	}
	if err := unix.Close(fd); err != nil {
		return r.fail("close", name, err)
	}
	if err := unix.Renameat(dir, temp, dir, base); err != nil {
		return r.fail("rename", name, err)
	}
	if err := unix.Fsync(dir); err != nil {
		return r.fail("fsync", path.Dir(clean(name)), err)
	}
	return nil
}

func (r *Root) fill(fd int, name string, content []byte, attr Attributes, label string) error {
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return r.fail("write", name, err)
		}
		content = content[n:]
	}
	if err := setAttributes(fd, attr.UID, attr.GID, attr.Mode); err != nil {
		return r.fail("chown", name, err)
	}
	if !unlabeled(label) {
		if err := setLabel(fd, label); err != nil {
			return r.fail("setxattr", name, err)
		}
	}
	if err := unix.Fsync(fd); err != nil {
		return r.fail("fsync", name, err)
	}
	return nil
}

// setAttributes changes the owner before the mode, because chown(2) clears set-uid bits.
func setAttributes(fd int, uid, gid uint32, mode fs.FileMode) error {
	if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, unixMode(mode))
}

// setLabel writes a label unless it is there already: writing an equal one would still change ctime.
func setLabel(fd int, label string) error {
	if have, err := labelOf(fd); err == nil && have == label {
		return nil
	}
	err := unix.Fsetxattr(fd, labelAttribute, []byte(label+"\x00"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil // the file system holds no labels, so there is none to be wrong
	}
	return err
}

// Symlink puts a link to target at name, in place of a file or link that is there. A directory is refused.
func (r *Root) Symlink(target, name string) error {
	dir, base, err := r.parent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if old, err := lstatAt(dir, base); err == nil && old.IsDir() {
		return r.fail("symlink", name, unix.EISDIR)
	}
	temp := tempName()
	if err := unix.Symlinkat(target, dir, temp); err != nil {
		return r.fail("symlink", name, err)
	}
	if err := unix.Renameat(dir, temp, dir, base); err != nil {
		_ = unix.Unlinkat(dir, temp, 0) // the next run sweeps what stays
		return r.fail("rename", name, err)
	}
	return r.syncDir(dir, name)
}

func (r *Root) syncDir(dir int, name string) error {
	if err := unix.Fsync(dir); err != nil {
		return r.fail("fsync", path.Dir(clean(name)), err)
	}
	return nil
}

// MkdirAll makes the directory name and the missing ones above it, mode 0755 or the given one for the last.
func (r *Root) MkdirAll(name string, mode fs.FileMode) error {
	name = clean(name)
	if info, err := r.Stat(name); err == nil {
		if info.IsDir() {
			return nil
		}
		return r.fail("mkdir", name, unix.ENOTDIR)
	}
	if err := r.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	err := r.Mkdir(name, mode)
	if errors.Is(err, unix.EEXIST) { // maybe somebody else has made it meanwhile
		if info, serr := r.Stat(name); serr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// Mkdir makes the directory name; one that exists is an error.
func (r *Root) Mkdir(name string, mode fs.FileMode) error {
	dir, base, err := r.parent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, base, unixMode(mode)); err != nil {
		return r.fail("mkdir", name, err)
	}
	if err := unix.Fchmodat(dir, base, unixMode(mode), 0); err != nil { // the umask
		return errors.Join(r.fail("chmod", name, err), unix.Unlinkat(dir, base, unix.AT_REMOVEDIR))
	}
	if err := r.syncDir(dir, name); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, base, unix.AT_REMOVEDIR))
	}
	return nil
}

// SetDirectory gives the directory name, links not followed, a mode and an owner, and makes them durable.
func (r *Root) SetDirectory(name string, mode fs.FileMode, uid, gid uint32) error {
	dir, base, err := r.parent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return r.fail("open", name, err)
	}
	defer unix.Close(fd)
	err = r.describe("chown", name, unix.Fchown(fd, int(uid), int(gid)))
	if err == nil { // a change of the owner takes bits off the mode
		err = r.describe("chmod", name, unix.Fchmod(fd, unixMode(mode)))
	}
	if err == nil {
		err = r.describe("fsync", name, unix.Fsync(fd))
	}
	return err
}

// Rename moves from to to within the root, replacing a file or an empty directory as rename(2) does, and makes both durable.
func (r *Root) Rename(from, to string) error { return r.rename(from, to, 0) }

// Exchange swaps two entries in one step (renameat2 RENAME_EXCHANGE): at no instant is either name missing.
func (r *Root) Exchange(a, b string) error { return r.rename(a, b, unix.RENAME_EXCHANGE) }

func (r *Root) rename(from, to string, flags uint) error {
	fromDir, fromBase, err := r.parent(from)
	if err != nil {
		return err
	}
	defer unix.Close(fromDir)
	toDir, toBase, err := r.parent(to)
	if err != nil {
		return err
	}
	defer unix.Close(toDir)
	if err := unix.Renameat2(fromDir, fromBase, toDir, toBase, flags); err != nil {
		return r.fail(fmt.Sprintf("rename %s to", r.Path(from)), to, err)
	}
	err = r.syncDir(toDir, to)
	if err == nil {
		err = r.syncDir(fromDir, from)
	}
	if err != nil {
		// Not known to be durable is not done: a caller that is told so must find the old names.
		if back := unix.Renameat2(toDir, toBase, fromDir, fromBase, flags); back != nil {
			return errors.Join(err, r.fail(fmt.Sprintf("rename %s back to", r.Path(to)), from, back))
		}
	}
	return err
}

// Remove removes a file, a link or an empty directory; what is not there is not an error.
func (r *Root) Remove(name string) error {
	dir, base, err := r.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Unlinkat(dir, base, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return r.fail("remove", name, err)
	}
	return r.syncDir(dir, name)
}

// RemoveTree removes name and everything below it. It follows no link and stops with an error where something is mounted; what is
// not there is not an error.
func (r *Root) RemoveTree(name string) error {
	dir, base, err := r.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if _, err := lstatAt(dir, base); errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err := r.removeAt(dir, base, clean(name)); err != nil {
		return err
	}
	return r.syncDir(dir, name)
}

func (r *Root) removeAt(dir int, base, name string) error {
	info, err := lstatAt(dir, base)
	if err != nil {
		return r.fail("lstat", name, err)
	}
	if !info.IsDir() {
		if err := unix.Unlinkat(dir, base, 0); err != nil {
			return r.fail("remove", name, err)
		}
		return nil
	}
	// Device numbers would not tell a bind mount of the same file system, and differ on an overlay where nothing is mounted.
	fd, err := unix.Openat2(dir, base, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.EXDEV) {
		return r.fail("remove", name, fmt.Errorf("something is mounted there: %w", err))
	}
	if err != nil {
		return r.fail("open", name, err)
	}
	names, err := listAt(fd)
	if err != nil {
		unix.Close(fd)
		return r.fail("read", name, err)
	}
	for _, child := range names {
		if err := r.removeAt(fd, child, path.Join(name, child)); err != nil {
			unix.Close(fd)
			return err
		}
	}
	unix.Close(fd)
	if err := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); err != nil {
		return r.fail("remove", name, err)
	}
	return nil
}

// Sweep removes what interrupted writes left in a directory: the entries whose names begin with TempPrefix. It gives how many there were.
// Nobody else may be writing there. A directory that does not exist has none.
func (r *Root) Sweep(dir string) (int, error) {
	entries, err := r.ReadDir(dir)
	if Missing(err) || errors.Is(err, unix.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), TempPrefix) {
			continue
		}
		if err := r.RemoveTree(path.Join(clean(dir), e.Name())); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

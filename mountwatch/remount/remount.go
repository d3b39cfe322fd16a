// Package remount gives a file system that is mounted already another SELinux mount option, by unmounting it and mounting it
// again: "context=" belongs to the superblock and is fixed when that is made (security/selinux/hooks.c, selinux_set_mnt_opts).
//
// It does so only where it can bring back what was there: everything that the second mount needs is made ready, and checked by
// the kernel as far as it can, before anything is unmounted. Unmounting is never forced and never lazy, so whatever uses the
// file system keeps it as it is. If the second mount fails the first one is made again, with the same options. What is about to
// be unmounted is written down first, so that a process which is killed in between leaves something to recover from.
//
// Do not use it for a file system whose content goes with its last mount (tmpfs), whatever makes it again, nor for one that needs a helper
// in user space (NFS, CIFS, FUSE), except through a unit of systemd. Both are refused. It does not decide whether a label is wanted.
package remount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// ErrBusy says that the file system is in use and stays as it is.
var ErrBusy = errors.New("it is in use")

// ImpossibleError says why a mount could not be brought back as it is, so that it is not touched.
type ImpossibleError struct{ Reason string }

func (e *ImpossibleError) Error() string { return e.Reason }

// LostError says that a file system was unmounted and could not be mounted again in any way.
type LostError struct {
	Mount *mounts.Mount
	Err   error
}

func (e *LostError) Error() string {
	m, options := e.Mount, e.Mount.Options
	if m.ReadOnly() {
		options = "ro," + strings.TrimPrefix(strings.TrimPrefix(options, "rw,"), "ro,")
	}
	return fmt.Sprintf("%s is NOT mounted any more: mount it by hand: mount -t %s -o %s %s %s: %v", m.Mountpoint,
		Word(m.FSType), Word(options), Word(m.Source), Word(m.Mountpoint), e.Err)
}

// Word writes a text so that a shell takes it for one word, whatever is in it: a person will paste it.
func Word(text string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:=@%", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !safe(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// Unwrap gives what failed.
func (e *LostError) Unwrap() error { return e.Err }

// Option is a parameter of a file system, as fsconfig(2) takes it: never quoted. One without a value is a flag.
type Option struct{ Key, Value string }

func (o Option) String() string {
	if o.Value == "" {
		return o.Key
	}
	return o.Key + "=" + o.Value
}

// Remount is a file system that is ready to be unmounted and mounted again. Close it in any case.
type Remount struct {
	mount       *mounts.Mount
	source      string
	options     []Option // of the superblock as it is, without SELinux's
	selinux     []Option // SELinux's of the superblock as it is
	attributes  int      // MOUNT_ATTR_*, of the mount
	propagation uint64   // MS_SHARED, MS_PRIVATE or MS_UNBINDABLE

	set    []Option // SELinux's of the superblock as it is to be
	gone   bool     // it was unmounted
	device int      // keeps a loop device from going away when nobody has it mounted; -1 if there is none
	wanted int      // a file system context with all options set, not created yet
	// Check looks at the root of the new mount before anybody else sees it; an error takes everything back.
	Check func(root *os.File) error
}

// Prepare makes everything ready to mount the file system with this context in place of the one it has, or with none if it is "".
// Nothing is unmounted yet. An *ImpossibleError says why it is better left alone; other errors say what the kernel refused.
func Prepare(m *mounts.Mount, context string) (*Remount, error) {
	var set []Option
	if context != "" {
		set = []Option{{"context", context}}
	}
	return PrepareOptions(m, set)
}

// PrepareOptions is Prepare for any options in the place of those of SELinux: a kernel without SELinux takes none of those.
func PrepareOptions(m *mounts.Mount, set []Option) (*Remount, error) {
	r := &Remount{mount: m, set: set, device: -1, wanted: -1}
	if err := r.describe(); err != nil {
		return nil, err
	}
	err := r.hold()
	if err == nil {
		err = unseen(m)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	if r.wanted, err = r.configure(slices.Concat(r.options, set)); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close gives back what was held ready. It unmounts nothing.
func (r *Remount) Close() {
	for _, fd := range []*int{&r.device, &r.wanted} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

func impossible(format string, args ...any) error {
	return &ImpossibleError{fmt.Sprintf(format, args...)}
}

func lost(m *mounts.Mount) error {
	return impossible("what is in a %s is lost when it is unmounted", m.FSType)
}

func gaveUp() error {
	return impossible("the kernel has found an error in it and writes nothing to it any more: it has to be checked first")
}

// describe takes the mount apart into what is needed to make it again, and refuses what it does not understand fully.
func (r *Remount) describe() error {
	m := r.mount
	if m.InMemory() {
		return lost(m)
	}
	switch m.FSType {
	case "ext2", "ext3", "ext4", "xfs", "f2fs", "vfat", "msdos", "exfat", "ntfs3", "iso9660", "udf", "squashfs", "erofs":
		if m.Device.Major == 0 {
			return impossible("it is on no block device")
		}
	case "overlay":
		// A path with one of these is escaped twice, and not in the same way by every kernel.
		for _, escaped := range []string{`\054`, `\072`, `\134`} {
			if strings.Contains(m.SuperOptions, escaped) {
				return impossible("a path in its options has a comma, a colon or a backslash")
			}
		}
	default:
		return impossible("only a unit of systemd or a line in /etc/fstab says how to mount a %s again", m.FSType)
	}
	if !m.Whole() {
		return impossible("only a part of the file system is mounted there")
	}
	if m.Shortened {
		return impossible("its options are too long to be repeated")
	}
	if m.GaveUp() {
		return gaveUp()
	}
	if err := r.describeMount(); err != nil {
		return err
	}
	r.source = m.Source
	for text := range mounts.SplitOptions(m.SuperOptions) {
		key, value, _ := strings.Cut(text, "=")
		o := Option{key, mounts.Unescape(strings.Trim(value, `"`))}
		switch key {
		case "seclabel":
			// The kernel says so; it is no option.
		case "blocksize":
			if m.FSType == "iso9660" {
				o.Key = "block" // shown under another name than it has (fs/isofs/inode.c, isofs_show_options)
			}
			r.options = append(r.options, o)
		case "attr2":
			// xfs has it always and shows it; asking for it gives a warning in the kernel's log.
		case "context", "fscontext", "defcontext", "rootcontext":
			r.selinux = append(r.selinux, o)
		default:
			r.options = append(r.options, o)
		}
	}
	return nil
}

func (r *Remount) describeMount() error {
	atime := unix.MOUNT_ATTR_STRICTATIME // what the kernel shows no word for
	for text := range mounts.SplitOptions(r.mount.Options) {
		switch text {
		case "rw":
		case "ro":
			r.attributes |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			r.attributes |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			r.attributes |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			r.attributes |= unix.MOUNT_ATTR_NOEXEC
		case "nodiratime":
			r.attributes |= unix.MOUNT_ATTR_NODIRATIME
		case "nosymfollow":
			r.attributes |= unix.MOUNT_ATTR_NOSYMFOLLOW
		case "relatime":
			atime = unix.MOUNT_ATTR_RELATIME
		case "noatime":
			atime = unix.MOUNT_ATTR_NOATIME
		default:
			return impossible("nobody could bring back its option %s", printable.Quote(text))
		}
	}
	r.attributes |= atime
	r.propagation = unix.MS_PRIVATE
	for _, tag := range strings.Fields(r.mount.Optional) {
		switch kind, _, _ := strings.Cut(tag, ":"); kind {
		case "shared":
			r.propagation = unix.MS_SHARED
		case "unbindable":
			r.propagation = unix.MS_UNBINDABLE
		default:
			return impossible("it follows what is mounted elsewhere (%s), which could not be brought back", tag)
		}
	}
	return nil
}

// hold opens the block device. A loop device that was made for this mount alone goes away with the last one who has it open.
func (r *Remount) hold() error {
	if r.mount.Device.Major == 0 {
		return nil
	}
	want := unix.Mkdev(r.mount.Device.Major, r.mount.Device.Minor)
	for _, name := range []string{r.mount.Source, "/dev/block/" + r.mount.Device.String()} {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == want {
			r.device, r.source = fd, name
			return nil
		}
		unix.Close(fd)
	}
	return impossible("its block device %s cannot be opened", r.mount.Device)
}

// configure makes a file system context with these options. For most types the kernel checks each here, long before anything is
// unmounted; the older ones check all of them when the superblock is made.
func (r *Remount) configure(options []Option) (int, error) {
	fd, err := unix.Fsopen(r.mount.FSType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot begin to mount a %s: %w", r.mount.FSType, err)
	}
	for _, o := range append([]Option{{"source", r.source}}, options...) {
		if o.Value == "" {
			err = unix.FsconfigSetFlag(fd, o.Key)
		} else {
			err = unix.FsconfigSetString(fd, o.Key, o.Value)
		}
		if err != nil {
			err = fmt.Errorf("the kernel does not take the option %s: %w%s", o, err, complaints(fd))
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// complaints reads what the kernel has to say about a file system context.
func complaints(fd int) string {
	var all strings.Builder
	buf := make([]byte, 1024)
	for range 8 {
		n, err := unix.Read(fd, buf)
		if err != nil || n <= 0 {
			break
		}
		// "e ", "w " or "i " and the text.
		if text := strings.TrimSpace(string(buf[:n])); len(text) > 2 && text[0] == 'e' {
			all.WriteString(": " + text[2:])
		}
	}
	return all.String()
}

// Do unmounts the file system and mounts it with the new option. Keep is called just before, with what must be known to recover
// from a kill in between, and must have written it down when it returns; its error is given as it is. After ErrBusy nothing was changed; after a *LostError the file
// system is not mounted; after any other error it is mounted as before.
func (r *Remount) Do(ctx context.Context, keep func(*mounts.Mount) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := r.mount
	// The mountpoint must lead to this very mount. The handle is closed at once: it would keep the mount busy.
	root, err := m.OpenRoot()
	if err != nil {
		return err
	}
	root.Close()
	if err := keep(m); err != nil {
		return err
	}
	if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); errors.Is(err, unix.EBUSY) {
		return ErrBusy
	} else if err != nil {
		return fmt.Errorf("cannot unmount it: %w", err)
	}
	r.gone = true
	failed := r.attach(slices.Concat(r.options, r.set), true)
	if failed == nil {
		return nil
	}
	if err := r.restore(); err != nil {
		return &LostError{m, errors.Join(failed, err)}
	}
	return failed
}

// Unmounted tells whether Do got as far as unmounting.
func (r *Remount) Unmounted() bool { return r.gone }

// attach makes the superblock and mounts it where it was. Exclusive says that it must be a new one.
func (r *Remount) attach(options []Option, exclusive bool) error {
	fsfd, err := r.create(options, exclusive)
	if err != nil {
		return err
	}
	defer unix.Close(fsfd)
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, r.attributes)
	if err != nil {
		return fmt.Errorf("cannot mount it again: %w%s", err, complaints(fsfd))
	}
	mounted := os.NewFile(uintptr(mfd), r.mount.Mountpoint)
	defer mounted.Close()
	if exclusive && r.Check != nil {
		if err := r.Check(mounted); err != nil {
			return err
		}
	}
	// No link is followed: nobody may lead the mount somewhere else while it is away.
	target, err := unix.Openat2(unix.AT_FDCWD, r.mount.Mountpoint, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return fmt.Errorf("cannot open its mountpoint: %w", err)
	}
	defer unix.Close(target)
	if err := unix.MoveMount(mfd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount it again: %w", err)
	}
	// A mount below a shared one is shared by now, whatever it was before.
	err = unix.MountSetattr(mfd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: r.propagation})
	if errors.Is(err, unix.ENOSYS) {
		err = setPropagation(mfd, r.propagation)
	}
	if err != nil {
		mounted.Close()
		if unix.Unmount(r.mount.Mountpoint, unix.UMOUNT_NOFOLLOW) == nil {
			return fmt.Errorf("cannot give it back how it spreads to other namespaces: %w", err)
		}
	}
	return nil
}

// setPropagation is mount_setattr(2) with MS_SHARED, MS_PRIVATE or MS_UNBINDABLE, of the mount whose root fd is, for kernels before 5.12.
func setPropagation(fd int, propagation uint64) error {
	return unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", fd), "", uintptr(propagation), "")
}

// FSCONFIG_CMD_CREATE_EXCL of linux/mount.h, since Linux 6.6: it fails with EBUSY where a superblock would be used that is there
// already, whose options are fixed.
const createExclusive = 8

// create gives a file system context whose superblock is made.
func (r *Remount) create(options []Option, exclusive bool) (int, error) {
	for attempt := 0; ; attempt++ {
		fsfd := -1
		if exclusive {
			fsfd, r.wanted = r.wanted, -1
		}
		if fsfd < 0 {
			// A context that has failed cannot be used again.
			var err error
			if fsfd, err = r.configure(options); err != nil {
				return -1, err
			}
		}
		err := unix.EOPNOTSUPP
		if exclusive {
			_, _, err = unix.Syscall6(unix.SYS_FSCONFIG, uintptr(fsfd), createExclusive, 0, 0, 0, 0)
		}
		if err == unix.EOPNOTSUPP { // an older kernel, or a file system of the older kind
			err = 0
			if plain := unix.FsconfigCreate(fsfd); plain != nil && !errors.As(plain, &err) {
				err = unix.EIO
			}
		}
		if err == 0 {
			return fsfd, nil
		}
		text := complaints(fsfd)
		unix.Close(fsfd)
		if err != unix.EBUSY || attempt >= 10 {
			return -1, fmt.Errorf("cannot mount it again: %w%s", err, text)
		}
		// The last close of a file is finished by a worker of the kernel; until then the superblock lives.
		time.Sleep(5 * time.Millisecond)
	}
}

// restore mounts the file system as it was; if that fails, with no more options than it takes to reach the data.
func (r *Remount) restore() error {
	var failures []error
	for _, options := range r.ways() {
		err := r.attach(options, false)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// ways gives the options with which the file system may come back, the best first: never without those that keep it from being written to.
// Whoever mounted it so may have had a reason.
func (r *Remount) ways() [][]Option {
	untouched := slices.DeleteFunc(slices.Clone(r.options), func(o Option) bool {
		return !slices.Contains([]string{"ro", "noload", "norecovery", "nologreplay", "nouuid", "sb"}, o.Key)
	})
	return [][]Option{slices.Concat(r.options, r.selinux), slices.Concat(untouched, r.selinux), untouched}
}

// Restore mounts a file system as it was, after a process that had written it down was killed while it was unmounted.
func Restore(m *mounts.Mount) error {
	r := &Remount{mount: m, device: -1, wanted: -1}
	defer r.Close()
	if err := r.describe(); err != nil {
		return err
	}
	if err := r.hold(); err != nil {
		return err
	}
	return r.restore()
}

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

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
)

const (
	patience  = 10 * time.Second // for systemd to see a mount; a busy one takes seconds
	lookAgain = 100 * time.Millisecond
)

// Unit is a mount that systemd knows how to make. Through it also file systems can be mounted again that need a helper.
type Unit struct {
	systemd  *systemd.Mounts
	unit     systemd.MountUnit
	declared declared.Mount
	mount    *mounts.Mount
}

// FindUnit gives the unit of a mount; nil if systemd has none that would mount the same again. ErrBusy says that a running unit needs what
// is mounted there.
func FindUnit(ctx context.Context, root *hostfs.Root, s *systemd.Mounts, m *mounts.Mount) (*Unit, error) {
	unit, err := s.Unit(ctx, m.Mountpoint)
	// Systemd learns of a mount that was made by hand from the same table as this process does, and may be slower.
	for waited := time.Duration(0); err == nil && len(unit.Files) > 0 && !unit.Active && waited < patience && Mounted(m.Mountpoint) != nil; waited += lookAgain {
		select {
		case <-time.After(lookAgain):
			unit, err = s.Unit(ctx, m.Mountpoint)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(unit.NeededBy) > 0 {
		return nil, fmt.Errorf("%w: %s needs it", ErrBusy, strings.Join(unit.NeededBy, ", "))
	}
	if len(unit.Files) == 0 || !unit.Active {
		return nil, nil
	}
	// Not from the properties of the unit: for what is mounted they have what the kernel's table says (systemd's mount.c, mount_get_what_escaped).
	d, err := declared.FromFiles(root, unit.Name, unit.Files)
	if d.Where == "" && err != nil {
		return nil, err
	}
	if d.Where != m.Mountpoint || !d.Names(m) {
		return nil, nil // somebody has mounted something else there by hand
	}
	return &Unit{s, unit, d, m}, nil
}

// Name is the unit's.
func (u *Unit) Name() string { return u.unit.Name }

// Do unmounts through systemd and mounts again with the context: first makes that mount, beside systemd, or says why it could not be; then
// systemd mounts as before. It tells whether it got as far as unmounting. After ErrBusy nothing was changed; after a *LostError it is not mounted;
// after any other error it is mounted as before.
func (u *Unit) Do(ctx context.Context, context string, keep func(*mounts.Mount) error, first func(context.Context) error) (unmounted bool, err error) {
	if u.mount.InMemory() {
		return false, lost(u.mount)
	}
	if u.unit.Forces {
		return false, impossible("its unit %s unmounts lazily or by force", u.unit.Name)
	}
	if reason := declared.Excluded(&u.declared); reason != "" {
		return false, impossible("%s, in %s", reason, u.declared.Source)
	}
	if u.mount.GaveUp() {
		return false, gaveUp()
	}
	if option := u.undone(); option != "" {
		return false, impossible("it is mounted with %s now, which %s does not say", option, u.unit.Name)
	}
	if err := unseen(u.mount); err != nil {
		return false, err
	}
	if err := idle(u.mount); err != nil {
		return false, err
	}
	if err := keep(u.mount); err != nil {
		return false, err
	}
	if err := u.systemd.Stop(ctx, u.unit.Name); err != nil && mountedStill(u.mount) {
		// A stop that takes too long may yet come to its end; the start then comes behind it. Where nothing goes on, it does nothing.
		return false, errors.Join(ErrBusy, err, u.systemd.Start(ctx, u.unit.Name))
	} // One that failed and has unmounted it all the same is as good as one that did not.
	failed := first(ctx)
	started := u.systemd.Start(ctx, u.unit.Name)
	now := Mounted(u.mount.Mountpoint)
	if failed == nil && (now == nil || !secontext.Same(now.Context(), context)) {
		failed = errors.Join(fmt.Errorf("it was mounted again, and does not have the option context=%s", context), started)
	}
	if started != nil && now == nil {
		if err := Restore(u.mount); err != nil {
			return true, &LostError{u.mount, errors.Join(failed, err)}
		}
	}
	return true, failed
}

// undone gives an option that keeps something from being done with the mount as it is, and that it would not have if the unit mounted it again; "" if
// there is none. The kernel made the file system read-only when it found an error (errors=remount-ro), or an administrator had a reason for
// "mount -o remount,noexec".
func (u *Unit) undone() string {
	m := u.mount
	says := map[string]bool{}
	for option := range mounts.SplitOptions(u.declared.Options) {
		switch option { // the last one counts, mount(8)
		case "ro", "nosuid", "nodev", "noexec", "nosymfollow":
			says[option] = true
		case "rw":
			says["ro"] = false
		case "suid", "dev", "exec", "symfollow":
			says["no"+option] = false
		case "user", "users":
			says["nosuid"], says["nodev"], says["noexec"] = true, true, true
		case "owner", "group":
			says["nosuid"], says["nodev"] = true, true
		}
	}
	if strings.HasPrefix(m.FSType, "fuse") { // libfuse gives it these by itself (lib/mount.c)
		says["nosuid"], says["nodev"] = true, true
	}
	if m.ReadOnly() && !says["ro"] && !neverWritten(m) {
		return "ro"
	}
	for _, option := range []string{"nosuid", "nodev", "noexec", "nosymfollow"} {
		if _, has := m.Option(option); has && !says[option] {
			return option
		}
	}
	return ""
}

// neverWritten tells whether a file system is read-only whatever is asked for: mount(8) mounts what cannot be written to so by itself.
func neverWritten(m *mounts.Mount) bool {
	if slices.Contains([]string{"cramfs", "erofs", "iso9660", "romfs", "squashfs"}, m.FSType) {
		return true
	}
	ro, err := os.ReadFile("/sys/dev/block/" + m.Device.String() + "/ro")
	return err == nil && strings.TrimSpace(string(ro)) == "1"
}

// mountedStill tells whether a mount is where it was.
func mountedStill(m *mounts.Mount) bool {
	all, err := mounts.Read()
	return err != nil || slices.ContainsFunc(all, func(now *mounts.Mount) bool {
		return now.ID == m.ID && now.Mountpoint == m.Mountpoint && now.Device == m.Device
	})
}

// idle tells whether a mount could be unmounted now, without doing so. The mountpoint must lead to this very mount: it is all that
// systemd goes by.
func idle(m *mounts.Mount) error {
	// The first call with MNT_EXPIRE only marks a mount, and only one that nobody uses; the second one would unmount it, unless it was
	// used in between (umount(2)). So a mark that somebody else has left must go first.
	if err := unmark(m); err != nil {
		return err
	}
	err := unix.Unmount(m.Mountpoint, unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW)
	covered := unmark(m)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return covered
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case err != nil:
		return fmt.Errorf("cannot tell whether it is in use: %w", err)
	}
	return errors.New("somebody else was about to unmount it")
}

// unmark takes the mark of MNT_EXPIRE away, which any use of the mount does.
func unmark(m *mounts.Mount) error {
	root, err := m.OpenRoot()
	if err != nil {
		return err
	}
	return root.Close()
}

// Mounted gives what a path leads to if something is mounted there, else nil: the last line of the kernel's table that has it.
func Mounted(point string) *mounts.Mount {
	all, err := mounts.Read()
	if err != nil {
		return nil
	}
	for _, m := range slices.Backward(all) {
		if m.Mountpoint == point {
			return m
		}
	}
	return nil
}

// Stacked tells how many mounts there are at a path, one over the other.
func Stacked(point string) (n int) {
	all, err := mounts.Read()
	if err != nil {
		return 0
	}
	for _, m := range all {
		if m.Mountpoint == point {
			n++
		}
	}
	return n
}

// SameDevice gives one name for all names of a block device, or of a file that is mounted through a loop device; the name itself for what is
// not there, or is something else.
func SameDevice(name string) string {
	var st unix.Stat_t
	if !strings.HasPrefix(name, "/") || unix.Stat(name, &st) != nil {
		return name
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return fmt.Sprintf("device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFREG:
		return fmt.Sprintf("file %d of %d:%d", st.Ino, unix.Major(st.Dev), unix.Minor(st.Dev))
	}
	return name
}

// MountedDevice gives a mount of a block device at another mountpoint than one, nil if there is none.
func MountedDevice(node, except string) *mounts.Mount {
	var st unix.Stat_t
	if unix.Stat(node, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil
	}
	device := mounts.Device{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	all, err := mounts.Read()
	if err != nil {
		return nil
	}
	for _, m := range all {
		if m.Device == device && m.Mountpoint != except {
			return m
		}
	}
	return nil
}

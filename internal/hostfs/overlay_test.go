package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/mounttest"
)

// asInitrd makes the overlay as an initrd makes Flatcar's: the root file system is at /sysroot, its /etc is the upper layer, and is covered by the
// overlay itself. Then it is the root.
func asInitrd(t *testing.T) (mountOverlay func(at string)) {
	t.Helper()
	initrd := t.TempDir()
	must(t, unix.Mount("tmpfs", initrd, "tmpfs", 0, ""))
	for _, dir := range []string{"sysroot", "proc"} {
		must(t, os.Mkdir(filepath.Join(initrd, dir), 0o755))
	}
	must(t, unix.Mount("proc", filepath.Join(initrd, "proc"), "proc", 0, ""))
	outside, err := os.Open("/")
	must(t, err)
	t.Cleanup(func() { // what the test binary writes at its end belongs outside
		must(t, outside.Chdir())
		must(t, unix.Chroot("."))
		must(t, outside.Close())
		must(t, unix.Unmount(initrd, unix.MNT_DETACH)) // before the directory is removed, with what is mounted in it
	})
	must(t, unix.Chroot(initrd))
	must(t, os.Chdir("/"))
	must(t, unix.Mount("tmpfs", "/sysroot", "tmpfs", 0, ""))
	const lower = "/sysroot/usr/share/flatcar/etc"
	write(t, lower+"/selinux/mcs/policy/policy.33", "the vendor's")
	write(t, lower+"/selinux/mcs/contexts/files/file_contexts", "the vendor's")
	must(t, os.Symlink("mcs", lower+"/selinux/link"))
	must(t, os.Mkdir(lower+"/other", 0o755))
	write(t, lower+"/other/file", "the vendor's")
	for _, dir := range []string{"etc", "work", "proc"} {
		must(t, os.Mkdir("/sysroot/"+dir, 0o755))
	}
	must(t, unix.Mount("proc", "/sysroot/proc", "proc", 0, ""))
	mountOverlay = func(at string) {
		t.Helper()
		err := unix.Mount("overlay", at+"/etc", "overlay", 0, "lowerdir="+at+"/usr/share/flatcar/etc,upperdir="+at+"/etc,workdir="+at+"/work")
		if err != nil && os.Getenv("CI") != "true" {
			t.Skipf("no overlay to be had: %v", err)
		}
		must(t, err)
	}
	mountOverlay("/sysroot")
	must(t, unix.Chroot("/sysroot"))
	must(t, os.Chdir("/"))
	return mountOverlay
}

// What was replaced shines through again below the directory that is asked for, at the next boot and after an update, and nowhere else.
func TestClearOpaque(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	mountOverlay := asInitrd(t)
	r := openRoot(t, "/")
	opaque := func(want ...string) {
		t.Helper()
		if got, err := r.OpaqueDirectories("/etc/selinux"); err != nil || !slices.Equal(got, want) {
			t.Errorf("opaque are %q, %v; want %q", got, err, want)
		}
	}
	opaque() // the upper layer has nothing at all

	// What the project does: a directory built beside takes the place of a link of the lower layer.
	must(t, r.MkdirAll("/etc/selinux/new", 0o755))
	must(t, r.WriteFile("/etc/selinux/new/local", []byte("ours"), Attributes{}))
	must(t, r.Exchange("/etc/selinux/new", "/etc/selinux/link"))
	must(t, r.RemoveTree("/etc/selinux/new"))
	// What an operator does: rm -rf, then cp -a.
	must(t, r.RemoveTree("/etc/selinux/mcs"))
	must(t, r.MkdirAll("/etc/selinux/mcs/policy", 0o755))
	must(t, r.WriteFile("/etc/selinux/mcs/policy/policy.33", []byte("a copy"), Attributes{}))
	must(t, r.RemoveTree("/etc/other"))
	must(t, r.MkdirAll("/etc/other", 0o755))
	if r.Exists("/etc/selinux/mcs/contexts") {
		t.Fatal("the overlay made nothing opaque, so there is nothing to test")
	}
	all, err := r.OpaqueDirectories("/etc")
	must(t, err)
	for _, want := range []string{"/etc/selinux/mcs", "/etc/selinux/link", "/etc/other"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not among the opaque %q", want, all)
		}
	}

	cleared, err := r.ClearOpaque("/etc/selinux")
	if err != nil || !slices.Equal(cleared, []string{"/etc/selinux/link", "/etc/selinux/mcs"}) {
		t.Errorf("cleared %q, %v", cleared, err)
	}
	opaque()
	if again, err := r.ClearOpaque("/etc/selinux"); err != nil || len(again) != 0 {
		t.Errorf("cleared again %q, %v", again, err)
	}
	if _, err := r.ClearOpaque("/etc/missing"); err != nil {
		t.Errorf("what does not exist: %v", err)
	}
	if _, err := r.ClearOpaque("/usr"); err != nil {
		t.Errorf("what is on no overlay: %v", err)
	}

	must(t, unix.Unmount("/etc", 0)) // the next boot
	mountOverlay("")
	for name, want := range map[string]string{
		"/etc/selinux/mcs/contexts/files/file_contexts": "the vendor's",
		"/etc/selinux/mcs/policy/policy.33":             "a copy",
		"/etc/selinux/link/local":                       "ours",
	} {
		if got, err := r.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("after the next boot %s is %q, %v; want %q", name, got, err, want)
		}
	}
	if r.Exists("/etc/other/file") {
		t.Error("a directory that was not asked for was cleared as well")
	}
	// An OS update brings a new file.
	must(t, unix.Unmount("/etc", 0))
	write(t, "/usr/share/flatcar/etc/selinux/mcs/contexts/new", "of the update")
	mountOverlay("")
	if got, err := r.ReadFile("/etc/selinux/mcs/contexts/new"); err != nil || string(got) != "of the update" {
		t.Errorf("after an update: %q, %v", got, err)
	}
}

// A unit with ProtectSystem=strict and ReadWritePaths= has mounts of its own: the root is read-only in it, and the part of the overlay that it
// may write is mounted over itself.
func TestClearOpaqueInAUnit(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	asInitrd(t)
	r := openRoot(t, "/")
	must(t, unix.Mount("/", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	must(t, unix.Mount("/etc/selinux", "/etc/selinux", "", unix.MS_BIND, ""))
	if dirs, err := r.ClearOpaque("/etc/selinux"); err != nil || dirs != nil {
		t.Errorf("with an upper layer that has nothing at all: %q, %v", dirs, err)
	}
	must(t, r.RemoveTree("/etc/selinux/mcs"))
	must(t, r.MkdirAll("/etc/selinux/mcs", 0o755))
	must(t, r.RemoveTree("/etc/other"))
	must(t, r.MkdirAll("/etc/other", 0o755))
	if err := r.MkdirAll("/proof", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("the root can be written, so there is nothing to test: %v", err)
	}
	if cleared, err := r.ClearOpaque("/etc/selinux"); err != nil || !slices.Equal(cleared, []string{"/etc/selinux/mcs"}) {
		t.Errorf("cleared %q, %v", cleared, err)
	}
	if left, err := r.OpaqueDirectories("/etc/selinux"); err != nil || len(left) != 0 {
		t.Errorf("opaque are %q, %v", left, err)
	}
	if others, err := r.OpaqueDirectories("/etc/other"); err != nil || !slices.Equal(others, []string{"/etc/other"}) {
		t.Errorf("others are %q, %v", others, err)
	}
	if err := r.MkdirAll("/proof", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("the root can be written now: %v", err)
	}
}

// The upper layer may be on another file system than the root: where /var is one by itself and systemd-confext keeps the layer there.
func TestClearOpaqueOnAnotherFileSystem(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	for _, dir := range []string{"/etc", "/var"} {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	const mutable = "/var/lib/extensions.mutable"
	write(t, "/var/lower/selinux/mcs/file", "the vendor's")
	write(t, mutable+"/etc/mine", "the operator's")
	must(t, os.Mkdir(mutable+"/work", 0o755))
	err := unix.Mount("confext", "/etc", "overlay", 0, "lowerdir=/var/lower,upperdir="+mutable+"/etc,workdir="+mutable+"/work")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("no overlay to be had: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, unix.Unmount("/etc", unix.MNT_DETACH)) })

	r := openRoot(t, "/")
	must(t, r.RemoveTree("/etc/selinux/mcs"))
	must(t, r.MkdirAll("/etc/selinux/mcs", 0o755))
	if cleared, err := r.ClearOpaque("/etc/selinux"); err != nil || !slices.Equal(cleared, []string{"/etc/selinux/mcs"}) {
		t.Errorf("cleared %q, %v", cleared, err)
	}
	if left, err := r.OpaqueDirectories("/etc"); err != nil || len(left) != 0 {
		t.Errorf("opaque are %q, %v", left, err)
	}
}

func TestHolderOf(t *testing.T) {
	const varLine, confextLine = "32 22 8:10 / /var rw - ext4 /dev/sda10 rw\n", "33 22 0:27 / /etc rw - overlay confext rw,upperdir=/etc\n34 33 0:27 /.systemd-confext /etc/.systemd-confext ro - overlay confext rw\n"
	for _, c := range []struct{ what, table, upper, want string }{
		{"the root", rootLine + etcLine, "/etc", "/"},
		{"merged again", rootLine + etcLine + confextLine, "/etc", "/"},
		{"a file system of its own", rootLine + varLine + confextLine, "/var/lib/extensions.mutable/etc", "/var"},
		{"not that one", rootLine + varLine + confextLine, "/variety/etc", "/"},
		{"below the overlay", rootLine + confextLine + "35 33 0:28 / /etc/upper rw - tmpfs tmpfs rw\n", "/etc/upper", "/"},
		{"a part of it over itself", rootLine + etcLine + selinuxLine, "/etc/selinux", "/"},
	} {
		table, err := mounts.Parse(strings.NewReader(c.table))
		if err != nil {
			t.Fatal(err)
		}
		overlay, _ := overlayOf(table, "/etc/selinux")
		if got := holderOf(table, overlay, c.upper); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestTreesHaveNoOverlay(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "etc/selinux/config"), "")
	if dirs, err := openRoot(t, dir).ClearOpaque("/etc/selinux"); dirs != nil || err != nil {
		t.Errorf("%q, %v", dirs, err)
	}
}

const (
	rootLine = "22 1 8:9 / / rw,relatime shared:1 - ext4 /dev/sda9 rw,seclabel\n"
	etcLine  = "30 22 0:26 / /etc rw,relatime shared:2 - overlay overlay rw,seclabel,lowerdir=/sysroot/usr/share/flatcar/etc,upperdir=/sysroot/etc,workdir=/sysroot/.etc-work\n"
	// selinuxLine is what ReadWritePaths=/etc/selinux makes of it in a unit.
	selinuxLine = "31 30 0:26 /selinux /etc/selinux rw,relatime shared:3 - overlay overlay rw,seclabel,lowerdir=/sysroot/usr/share/flatcar/etc,upperdir=/sysroot/etc,workdir=/sysroot/.etc-work\n"
)

func TestOverlayOf(t *testing.T) {
	long := "40 30 0:40 / /etc/containers rw - overlay overlay rw,lowerdir=" + strings.Repeat("/var/lib/layers/x:", 6000) + "/y,upperdir=/upper,workdir=/work\n"
	for _, c := range []struct{ what, table, name, point, upper string }{
		{"today's /etc", rootLine + etcLine, "/etc/selinux", "/etc", "/sysroot/etc"},
		{"the mount point itself", rootLine + etcLine, "/etc", "/etc", "/sysroot/etc"},
		{"another directory", rootLine + etcLine, "/var/lib/selinux", "", ""},
		{"a name that only begins so", rootLine + etcLine, "/etcetera", "", ""},
		{"no end of line", rootLine + strings.TrimSuffix(etcLine, "\n"), "/etc/selinux", "/etc", "/sysroot/etc"},
		{"a mount below", rootLine + etcLine + "31 30 0:27 / /etc/selinux rw - tmpfs tmpfs rw\n", "/etc/selinux/mcs", "", ""},
		{"a mount over it", rootLine + etcLine + "31 22 0:27 / /etc rw - tmpfs tmpfs rw\n", "/etc/selinux", "", ""},
		{"a confext over it", rootLine + etcLine + "31 22 0:27 / /etc rw - overlay confext rw,lowerdir=/run/x,upperdir=/var/lib/extensions.mutable/etc\n", "/etc/selinux", "/etc", "/var/lib/extensions.mutable/etc"},
		{"read-only", rootLine + "30 22 0:26 / /etc ro - overlay overlay ro,lowerdir=/a:/b\n", "/etc/selinux", "", ""},
		{"a part of it over itself", rootLine + etcLine + selinuxLine, "/etc/selinux/mcs", "/etc/selinux", "/sysroot/etc/selinux"},
		{"the whole root", "22 1 0:9 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b\n", "/etc", "/", "/b"},
		{"a space in the path", rootLine + `30 22 0:26 / /a\040b rw - overlay overlay rw,upperdir=/c\040d\054e` + "\n", "/a b/x", "/a b", "/c d,e"},
		{"a backslash in the path", rootLine + `30 22 0:26 / /a\134b rw - overlay overlay rw,upperdir=/c\134` + "\n", `/a\b`, `/a\b`, `/c\`},
		{"what is no escape", rootLine + `30 22 0:26 / /a\09\4 rw - overlay overlay rw,upperdir=/c` + "\n", `/a\09\4`, `/a\09\4`, `/c`},
		{"several optional fields", "22 1 0:9 / /etc rw shared:1 master:2 propagate_from:3 unbindable - overlay o rw,upperdir=/b\n", "/etc", "/etc", "/b"},
		{"an empty source", "23 1 0:9 / /etc rw - overlay  rw,upperdir=/b\n", "/etc", "/etc", "/b"},
		{"a quote in a path", "23 1 0:9 / /etc rw - overlay x rw,lowerdir=/a\"b,upperdir=/b\n", "/etc", "/etc", "/b"},
		{"layers one by one", "23 1 0:9 / /etc rw - overlay x rw,lowerdir+=/a" + strings.Repeat(",lowerdir+=/var/lib/layers/x", 9000) + ",upperdir=/b\n", "/etc", "/etc", "/b"},
		{"other options with the word", "22 1 0:9 / /etc rw - overlay o rw,xupperdir=/a,upperdir=/b,upperdirs=/c\n", "/etc", "/etc", "/b"},
		{"a long line of another", rootLine + etcLine + long, "/etc/selinux", "/etc", "/sysroot/etc"},
		{"a long line", rootLine + etcLine + long, "/etc/containers/x", "/etc/containers", "/upper"},
		{"an empty table", "", "/etc", "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			table, err := mounts.Parse(strings.NewReader(c.table))
			if err != nil {
				t.Fatal(err)
			}
			point := ""
			m, upper := overlayOf(table, c.name)
			if m != nil {
				point = m.Mountpoint
			}
			if point != c.point || upper != c.upper {
				t.Errorf("%q, %q; want %q, %q", point, upper, c.point, c.upper)
			}
		})
	}
}

package remount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/mounttest"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
)

// The tests mount real file systems on loop devices. They run in a mount namespace of their own, so that nothing of it is seen outside.
func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	var lacking []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lacking = append(lacking, p)
		}
	}
	switch {
	case !mounttest.Inside():
		lacking = append(lacking, "root")
	case unix.Access("/dev/loop-control", unix.W_OK) != nil:
		lacking = append(lacking, "loop devices")
	}
	if len(lacking) == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s", strings.Join(lacking, ", "))
	}
	t.Skipf("this test needs %s", strings.Join(lacking, ", "))
}

// fixture is a file system on a loop device that goes away with its last mount.
type fixture struct {
	image, point string
}

func makeFS(t *testing.T, fsType, options string, shared bool) fixture {
	t.Helper()
	needRoot(t, "mkfs."+fsType, "mount")
	dir := t.TempDir()
	f := fixture{filepath.Join(dir, "image"), filepath.Join(dir, "with space")}
	must(t, "truncate", "-s", "320M", f.image)
	must(t, "mkfs."+fsType, f.image)
	if err := os.Mkdir(f.point, 0o755); err != nil {
		t.Fatal(err)
	}
	// Its parent decides whether a mount is shared.
	must(t, "mount", "--bind", dir, dir)
	if shared {
		must(t, "mount", "--make-shared", dir)
	} else {
		must(t, "mount", "--make-private", dir)
	}
	t.Cleanup(func() {
		for unix.Unmount(f.point, 0) == nil { // until nothing is mounted there
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("cannot clean up: %v", err)
		}
	})
	must(t, "mount", "-o", "loop,"+options, f.image, f.point)
	if err := os.WriteFile(filepath.Join(f.point, "file"), []byte("content"), 0o644); err != nil && !strings.Contains(options, "ro") {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (f fixture) mount(t *testing.T) *mounts.Mount {
	t.Helper()
	m := Mounted(f.point)
	if m == nil {
		t.Fatalf("nothing is mounted at %s", f.point)
	}
	return m
}

// options is all that makes a mount what it is, but for the numbers that the kernel gives.
func options(m *mounts.Mount) string {
	shared := "private"
	if strings.Contains(m.Optional, "shared:") {
		shared = "shared"
	}
	return strings.Join([]string{m.FSType, m.Options, m.SuperOptions, shared, m.Root, m.Device.String()}, " | ")
}

func nothing(*mounts.Mount) error { return nil }

// extra is an option that stands for context=, which a kernel without SELinux does not take.
func extra(fsType string) Option {
	return map[string]Option{"ext4": {"commit", "77"}, "xfs": {"logbsize", "256k"}}[fsType]
}

// Proves V17.
func TestRemount(t *testing.T) {
	for _, c := range []struct {
		fsType, options string
		shared          bool
	}{
		{"ext4", "noatime,nosuid,nodev,errors=continue", true},
		{"ext4", "ro,noexec,nodiratime", false},
		{"ext4", "strictatime,nosymfollow,data=journal,discard", false},
		{"xfs", "nodev,noquota,largeio", true},
	} {
		t.Run(c.fsType+" "+c.options, func(t *testing.T) {
			f := makeFS(t, c.fsType, c.options, c.shared)
			before := f.mount(t)
			option := extra(c.fsType)
			kept := 0
			r, err := PrepareOptions(before, []Option{option})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := r.Do(t.Context(), func(m *mounts.Mount) error { kept++; return nil }); err != nil {
				t.Fatal(err)
			}
			after := f.mount(t)
			if v, ok := after.SuperOption(option.Key); kept != 1 || !r.Unmounted() || !ok || v != option.Value {
				t.Errorf("written down %d times; the options are %s", kept, after.SuperOptions)
			}
			if after.ID == before.ID && after.Unique == before.Unique && before.Unique != 0 {
				t.Error("it was never unmounted")
			}
			want := strings.Fields(options(before))
			got := strings.Fields(options(after))
			// Everything but the new option is as it was.
			for i := range want {
				if i != 4 && want[i] != got[i] {
					t.Errorf("got  %s\nwant %s", options(after), options(before))
					break
				}
			}
			for o := range mounts.SplitOptions(before.SuperOptions) {
				if key, _, _ := strings.Cut(o, "="); key != option.Key && !strings.Contains(","+after.SuperOptions+",", ","+o+",") {
					t.Errorf("the option %s is gone: %s", o, after.SuperOptions)
				}
			}
			if !strings.Contains(c.options, "ro") {
				if content, err := os.ReadFile(filepath.Join(f.point, "file")); err != nil || string(content) != "content" {
					t.Errorf("%q, %v", content, err)
				}
			}
		})
	}
}

// What uses the file system keeps it, and nothing changes.
func TestRemountBusy(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", true)
	before := f.mount(t)
	for name, use := range map[string]func(*testing.T) func(){
		"an open file": func(t *testing.T) func() {
			file, err := os.Open(filepath.Join(f.point, "file"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { file.Close() }
		},
		"a mount below": func(t *testing.T) func() {
			below := filepath.Join(f.point, "below")
			if err := os.MkdirAll(below, 0o755); err != nil {
				t.Fatal(err)
			}
			must(t, "mount", "-t", "tmpfs", "none", below)
			return func() { unix.Unmount(below, 0) }
		},
		"a loop device on one of its files": func(t *testing.T) func() {
			image := filepath.Join(f.point, "image")
			must(t, "truncate", "-s", "1M", image)
			out, err := exec.Command("losetup", "--find", "--show", image).Output()
			if err != nil {
				t.Fatal(err)
			}
			return func() { must(t, "losetup", "-d", strings.TrimSpace(string(out))) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			free := use(t)
			r, err := PrepareOptions(before, []Option{extra("ext4")})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := r.Do(t.Context(), nothing); !errors.Is(err, ErrBusy) || r.Unmounted() {
				t.Errorf("%v, unmounted %v", err, r.Unmounted())
			}
			if err := idle(before); !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
			if after := f.mount(t); options(after) != options(before) || after.ID != before.ID {
				t.Errorf("got  %s\nwant %s", options(after), options(before))
			}
			free()
		})
	}
	// Asking does not unmount, however often.
	for range 3 {
		if err := idle(before); err != nil {
			t.Error(err)
		}
	}
	if after := f.mount(t); after.ID != before.ID {
		t.Error("it was unmounted by asking")
	}
}

// A second mount that fails leaves the first as it was.
//
// Proves V17.
func TestRemountFails(t *testing.T) {
	for _, c := range []struct{ fsType, options string }{
		{"ext4", "noatime,nosuid,errors=continue,data=journal"}, {"xfs", "nodev,largeio"},
	} {
		t.Run(c.fsType, func(t *testing.T) {
			f := makeFS(t, c.fsType, c.options, true)
			before := f.mount(t)
			refused := errors.New("the label is not there")
			r, err := PrepareOptions(before, []Option{extra(c.fsType)})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.Check = func(root *os.File) error { return refused }
			if err := r.Do(t.Context(), nothing); !errors.Is(err, refused) || !r.Unmounted() {
				t.Error(err)
			}
			if after := f.mount(t); options(after) != options(before) {
				t.Errorf("got  %s\nwant %s", options(after), options(before))
			}
			if content, err := os.ReadFile(filepath.Join(f.point, "file")); err != nil || string(content) != "content" {
				t.Errorf("%q, %v", content, err)
			}
		})
	}
}

// Whatever cannot be written down is not unmounted, and an option that the kernel does not know is found out before.
func TestRemountNotBegun(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", true)
	before := f.mount(t)
	full := errors.New("no space")
	r, err := PrepareOptions(before, []Option{extra("ext4")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Do(t.Context(), func(*mounts.Mount) error { return full }); !errors.Is(err, full) || r.Unmounted() {
		t.Error(err)
	}
	if _, err := PrepareOptions(before, []Option{{"no_such_option", "1"}}); err == nil || !strings.Contains(err.Error(), "the kernel does not take the option no_such_option=1") {
		t.Error(err)
	}
	if after := f.mount(t); after.ID != before.ID {
		t.Error("it was unmounted")
	}
}

// Where another namespace keeps the superblock, the mount comes back and says so.
//
// Proves V17.
func TestRemountElsewhere(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", false)
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	ready := make(chan struct{})
	other.Stdout = writer(func(p []byte) (int, error) {
		if out.Len() == 0 {
			close(ready)
		}
		return out.Write(p)
	})
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	<-ready
	before := f.mount(t)
	r, err := PrepareOptions(before, []Option{extra("ext4")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Do(t.Context(), nothing); !errors.Is(err, unix.EBUSY) {
		t.Error(err)
	}
	if after := f.mount(t); options(after) != options(before) {
		t.Errorf("got  %s\nwant %s", options(after), options(before))
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// A process that was killed in between has left a note, and the mount comes back from it; the loop device that went away with the last
// mount cannot, and that is said.
func TestRestore(t *testing.T) {
	f := makeFS(t, "ext4", "noatime,nosuid,errors=continue", true)
	before := f.mount(t)
	device, err := os.Open(before.Source)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(f.point, 0); err != nil {
		t.Fatal(err)
	}
	if err := Restore(before); err != nil {
		t.Fatal(err)
	}
	if after := f.mount(t); options(after) != options(before) {
		t.Errorf("got  %s\nwant %s", options(after), options(before))
	}
	device.Close()
	if err := unix.Unmount(f.point, 0); err != nil {
		t.Fatal(err)
	}
	if err := Restore(before); err == nil {
		t.Error("a device without a file was mounted")
	}
}

func TestImpossible(t *testing.T) {
	good := mounts.Mount{Device: mounts.Device{Major: 8, Minor: 1}, Root: "/", Mountpoint: "/x", Options: "rw,relatime", FSType: "ext4", Source: "/dev/sda1", SuperOptions: "rw"}
	for name, change := range map[string]func(*mounts.Mount){
		"what is in a tmpfs is lost when it is unmounted":                                  func(m *mounts.Mount) { m.FSType = "tmpfs" },
		"only a unit of systemd or a line in /etc/fstab says how to mount a nfs4 again":    func(m *mounts.Mount) { m.FSType = "nfs4" },
		"only a part of the file system is mounted there":                                  func(m *mounts.Mount) { m.Root = "/sub" },
		"its options are too long to be repeated":                                          func(m *mounts.Mount) { m.Shortened = true },
		`nobody could bring back its option "idmapped"`:                                    func(m *mounts.Mount) { m.Options = "rw,relatime,idmapped" },
		"it follows what is mounted elsewhere (master:3), which could not be brought back": func(m *mounts.Mount) { m.Optional = "shared:1 master:3" },
		"it is on no block device":                                                         func(m *mounts.Mount) { m.Device.Major = 0 },
		"a path in its options has a comma, a colon or a backslash":                        func(m *mounts.Mount) { m.FSType, m.SuperOptions = "overlay", `rw,lowerdir=/a\054b` },
	} {
		m := good
		change(&m)
		_, err := Prepare(&m, "u:r:t:s0")
		var impossible *ImpossibleError
		if !errors.As(err, &impossible) || err.Error() != name {
			t.Errorf("got  %v\nwant %s", err, name)
		}
	}
	r := Remount{mount: &mounts.Mount{Device: good.Device, Root: "/", Options: "ro,nosuid,noatime,nodiratime", Optional: "unbindable", FSType: "ext4",
		SuperOptions: `rw,seclabel,context="u:r:t:s0:c1,c2",errors=remount-ro,x=a\040b`}}
	if err := r.describe(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.options, r.selinux); got != "[rw errors=remount-ro x=a b] [context=u:r:t:s0:c1,c2]" {
		t.Error(got)
	}
	if r.attributes != unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOATIME|unix.MOUNT_ATTR_NODIRATIME || r.propagation != unix.MS_UNBINDABLE {
		t.Errorf("%#x %#x", r.attributes, r.propagation)
	}
}

// What was read-only comes back read-only, even where its other options do not work any more.
//
// Proves V17.
func TestRestoreReadOnly(t *testing.T) {
	f := makeFS(t, "ext4", "noatime,ro,noload", false)
	before := *f.mount(t)
	device, err := os.Open(before.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if err := unix.Unmount(f.point, 0); err != nil {
		t.Fatal(err)
	}
	before.SuperOptions += ",no_such_option=1"
	if err := Restore(&before); err != nil {
		t.Fatal(err)
	}
	after := f.mount(t)
	_, ro := after.SuperOption("ro")
	if _, unread := after.SuperOption("norecovery"); !ro || !unread {
		t.Errorf("%+v", after)
	}
}

// Systemd unmounts what the path leads to; and what somebody has marked for its end must not be ended by looking.
//
// Proves V17.
func TestIdle(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", false)
	m := f.mount(t)
	if err := unix.Unmount(f.point, unix.MNT_EXPIRE); !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	for range 2 {
		if err := idle(m); err != nil || !mountedStill(m) {
			t.Fatal(err)
		}
	}
	must(t, "mount", "-t", "tmpfs", "other", f.point)
	if err := idle(m); !errors.Is(err, mounts.ErrCovered) || Stacked(f.point) != 2 {
		t.Errorf("%v, %d", err, Stacked(f.point))
	}
	if err := unix.Unmount(f.point, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(f.point, 0); err != nil || mountedStill(m) {
		t.Error(err)
	}
}

// What is in a tmpfs is not destroyed because a unit or a line of fstab could mount an empty one.
//
// Proves V17.
func TestUnitOfWhatWouldBeLost(t *testing.T) {
	needRoot(t, "mount")
	for _, fsType := range []string{"tmpfs", "ramfs"} {
		point := t.TempDir()
		must(t, "mount", "-t", fsType, "none", point)
		t.Cleanup(func() { unix.Unmount(point, 0) })
		u := Unit{unit: systemd.MountUnit{Name: "data.mount"}, declared: declared.Mount{Where: point, What: "none", Type: fsType}, mount: Mounted(point)}
		unmounted, err := u.Do(t.Context(), "u:r:t:s0", func(*mounts.Mount) error { return errors.New("it was about to be unmounted") }, nil)
		var impossible *ImpossibleError
		if want := "what is in a " + fsType + " is lost when it is unmounted"; unmounted || !errors.As(err, &impossible) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A file system in which the kernel has found an error is not mounted as if it had not, neither by a unit nor without.
//
// Proves V17.
func TestWhatHasAnError(t *testing.T) {
	f := makeFS(t, "ext4", "noatime,errors=remount-ro", false)
	trigger := "/sys/fs/ext4/" + filepath.Base(f.mount(t).Source) + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := f.mount(t)
	if !m.ReadOnly() {
		t.Fatalf("%+v", m)
	}
	u := Unit{unit: systemd.MountUnit{Name: "data.mount"}, declared: declared.Mount{Where: f.point, What: f.image, Options: "noatime,errors=remount-ro"}, mount: m}
	unmounted, err := u.Do(t.Context(), "u:r:t:s0", func(*mounts.Mount) error { return errors.New("it was about to be unmounted") }, nil)
	var impossible *ImpossibleError
	if unmounted || !errors.As(err, &impossible) {
		t.Error(err)
	}
	emergency := mounts.Mount{Device: m.Device, Root: "/", Mountpoint: f.point, Options: "rw,relatime", FSType: "ext4", Source: m.Source, SuperOptions: "rw,errors=remount-ro,emergency_ro"}
	if _, err := PrepareOptions(&emergency, nil); !errors.As(err, &impossible) || !emergency.ReadOnly() {
		t.Error(err)
	}
}

// What the superblock has beyond what any table shows is not lost by mounting it again.
//
// Proves V17.
func TestUnseen(t *testing.T) {
	try := func(f fixture) error {
		t.Helper()
		m := f.mount(t)
		r, err := PrepareOptions(m, nil)
		if err == nil {
			r.Close()
		}
		u := Unit{unit: systemd.MountUnit{Name: "data.mount"}, declared: declared.Mount{Where: f.point, What: f.image, Options: "noatime"}, mount: m}
		begun := errors.New("it was about to be unmounted")
		unmounted, byUnit := u.Do(t.Context(), "u:r:t:s0", func(*mounts.Mount) error { return begun }, nil)
		if err == nil && !errors.Is(byUnit, begun) || err != nil && err.Error() != byUnit.Error() || unmounted {
			t.Errorf("by its unit %v, without %v", byUnit, err)
		}
		return err
	}
	var impossible *ImpossibleError
	f := makeFS(t, "ext4", "noatime", false)
	if err := try(f); err != nil {
		t.Error(err)
	}
	// A file that is called so is none of quotas, unless it is mounted with them.
	must(t, "touch", filepath.Join(f.point, "aquota.user"))
	if err := try(f); err != nil {
		t.Error(err)
	}
	must(t, "umount", f.point)
	must(t, "mount", "-o", "loop,noatime,usrquota", f.image, f.point)
	if err := try(f); !errors.As(err, &impossible) || err.Error() != "it has quotas in the file aquota.user, which would not be on any more when it is mounted again" {
		t.Error(err)
	}

	must(t, "umount", f.point)
	must(t, "tune2fs", "-O", "encrypt", f.image)
	must(t, "mount", "-o", "loop,noatime", f.image, f.point)
	if err := try(f); !errors.As(err, &impossible) || err.Error() != "it may have encrypted directories, whose keys would be lost when it is unmounted" {
		t.Error(err)
	}
	for options, want := range map[string]string{
		"rw": "[]", "rw,usrquota,grpquota": "[aquota.user aquota.group]", "rw,prjquota": "[aquota.project]",
		`rw,jqfmt=vfsv1,usrjquota=my\040file,usrquota`: "[my file]", "rw,usrjquota=": "[]",
	} {
		if got := fmt.Sprint(quotaFiles(&mounts.Mount{SuperOptions: options})); got != want {
			t.Errorf("%s: %s, want %s", options, got, want)
		}
	}
}

// What somebody, or the kernel, has taken from a mount since it was made does not come back because its unit makes it anew.
//
// Proves V17.
func TestUnitThatWouldUndo(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", false)
	for _, c := range []struct{ remount, declared, want string }{
		{"rw", "noatime", ""},
		{"ro", "noatime", "ro"}, {"ro", "ro,noatime", ""}, {"ro", "ro,rw", "ro"},
		{"ro,bind", "", "ro"},
		{"noexec", "nosuid,nodev", "noexec"}, {"noexec", "user", ""}, {"noexec", "users,exec", "noexec"}, {"noexec", "owner", "noexec"},
		{"nosuid,nodev", "group", ""}, {"nosuid,nodev", "nosuid", "nodev"}, {"nosuid", "", "nosuid"},
		{"nosymfollow", "noexec", "nosymfollow"}, {"nosymfollow", "nosymfollow", ""},
	} {
		must(t, "mount", "-o", "remount,bind,rw,suid,dev,exec,symfollow", f.point)
		must(t, "mount", "-o", "remount,rw,suid,dev,exec,symfollow", f.point)
		must(t, "mount", "-o", "remount,"+c.remount, f.point)
		u := Unit{unit: systemd.MountUnit{Name: "data.mount"}, declared: declared.Mount{Where: f.point, What: f.image, Options: c.declared}, mount: f.mount(t)}
		if got := u.undone(); got != c.want {
			t.Errorf("%s, declared with %s: %q, want %q; it is %s, %s", c.remount, c.declared, got, c.want, u.mount.Options, u.mount.SuperOptions)
		}
		if c.want == "" {
			continue
		}
		unmounted, err := u.Do(t.Context(), "u:r:t:s0", func(*mounts.Mount) error { return errors.New("it was about to be unmounted") }, nil)
		var impossible *ImpossibleError
		if want := "it is mounted with " + c.want + " now, which data.mount does not say"; unmounted || !errors.As(err, &impossible) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	// What can never be written to needs no word for it.
	iso := Unit{mount: &mounts.Mount{FSType: "iso9660", Options: "ro", SuperOptions: "ro"}}
	bindfs := Unit{mount: &mounts.Mount{FSType: "fuse.bindfs", Options: "rw,nosuid,nodev", SuperOptions: "rw"}}
	if iso.undone() != "" || bindfs.undone() != "" {
		t.Error(iso.undone(), bindfs.undone())
	}
}

// What a person is told to paste into a shell is what it says, whoever chose the name.
func TestLostError(t *testing.T) {
	e := &LostError{&mounts.Mount{Mountpoint: "/srv/it's $(reboot)", FSType: "ext4", Options: "rw,noatime", SuperOptions: "ro", Source: "/dev/vdb"}, unix.EIO}
	if want := `/srv/it's $(reboot) is NOT mounted any more: mount it by hand: mount -t ext4 -o ro,noatime /dev/vdb '/srv/it'\''s $(reboot)': input/output error`; e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
}

// Whoever owns the directory above a mountpoint may put a link in its place while the file system is away. It is mounted nowhere else then.
//
// Proves P7.
func TestRemountThroughLink(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", true)
	before := f.mount(t)
	r, err := PrepareOptions(before, []Option{extra("ext4")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	elsewhere := filepath.Join(filepath.Dir(f.point), "elsewhere")
	r.Check = func(*os.File) error {
		return errors.Join(os.Mkdir(elsewhere, 0o755), os.Remove(f.point), os.Symlink(elsewhere, f.point))
	}
	var lost *LostError
	if err := r.Do(t.Context(), nothing); !errors.As(err, &lost) || !errors.Is(err, unix.ELOOP) {
		t.Errorf("it was not refused: %v", err)
	}
	if m := Mounted(elsewhere); m != nil {
		t.Errorf("the link led the mount to %s", m.Mountpoint)
		unix.Unmount(elsewhere, 0)
	}
}

// What is mounted again is the device of the mount's number, wherever its name leads to by now.
func TestRemountAnotherDevice(t *testing.T) {
	f, other := makeFS(t, "ext4", "noatime", true), makeFS(t, "ext4", "noatime", true)
	before := f.mount(t)
	misled := *before
	misled.Source = other.mount(t).Source
	r, err := PrepareOptions(&misled, []Option{extra("ext4")})
	var impossible *ImpossibleError
	switch {
	case errors.As(err, &impossible): // without udev there is no name for the number
	case err != nil:
		t.Fatal(err)
	default:
		defer r.Close()
		if err := r.Do(t.Context(), nothing); err != nil {
			t.Error(err)
		}
	}
	if after := f.mount(t); after.Device != before.Device {
		t.Errorf("%s is mounted in the place of %s", after.Device, before.Device)
	}
}

// A name for the same device or file is the same, and what is not there keeps its name.
func TestSameDevice(t *testing.T) {
	f := makeFS(t, "ext4", "noatime", false)
	dir := filepath.Dir(f.point)
	for name, target := range map[string]string{"by-label": f.mount(t).Source, "by-uuid": "by-label", "image-link": f.image} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(f.image, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return SameDevice(filepath.Join(dir, name)) }
	if at("by-label") != at("by-uuid") || at("image") != at("hard") || at("image") != at("image-link") || at("by-label") == at("image") {
		t.Error(at("by-label"), at("by-uuid"), at("image"), at("hard"), at("image-link"))
	}
	for _, name := range []string{filepath.Join(dir, "missing"), dir, "server:/export", "tmpfs"} {
		if got := SameDevice(name); got != name {
			t.Errorf("%s is %s", name, got)
		}
	}
}

// TestSetPropagation: what is done before Linux 5.12 comes to the same as mount_setattr(2).
func TestSetPropagation(t *testing.T) {
	f := makeFS(t, "ext4", "rw", true)
	root, err := os.Open(f.point)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		propagation uint64
		want        string
	}{{unix.MS_PRIVATE, ""}, {unix.MS_SHARED, "shared"}, {unix.MS_UNBINDABLE, "unbindable"}, {unix.MS_SHARED, "shared"}} {
		if err := setPropagation(int(root.Fd()), c.propagation); err != nil {
			t.Fatal(err)
		}
		got, _, _ := strings.Cut(f.mount(t).Optional, ":")
		if got != c.want {
			t.Errorf("with %#x the mount is %q, want %q", c.propagation, got, c.want)
		}
	}
}

package mounts

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounttest"
)

// inNamespace runs the body of a test in a process of its own that has a mount namespace of its own, with dir as a place to mount things
// in. Nothing of it is seen outside, and all of it is gone with the process.
func inNamespace(t *testing.T, body func(t *testing.T, dir string)) {
	t.Helper()
	if !mounttest.Alone(t) {
		return
	}
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "")
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	body(t, dir)
}

func mount(t testing.TB, source, point, fstype string, flags uintptr, data string) {
	t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, point, fstype, flags, data); err != nil {
		t.Fatalf("mount %s: %v", point, err)
	}
}

func umount(t testing.TB, point string) {
	t.Helper()
	if err := unix.Unmount(point, 0); err != nil {
		t.Fatalf("umount %s: %v", point, err)
	}
}

// loop makes a file system on a loop device and gives the device. It is gone with the test.
func loop(t *testing.T, dir, kind string, args ...string) string {
	t.Helper()
	image := filepath.Join(dir, "image-"+kind)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	size := int64(16 << 20)
	if kind == "xfs" {
		size = 320 << 20
	}
	if kind == "btrfs" {
		size = 128 << 20
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+kind, append(args, image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", kind, err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v\n%s", err, out)
	}
	device := string(out[:len(out)-1])
	t.Cleanup(func() { exec.Command("losetup", "-d", device).Run() })
	return device
}

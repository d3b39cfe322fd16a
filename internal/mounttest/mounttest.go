// Package mounttest lets the tests of a package mount file systems without anybody outside seeing it. It is for tests alone.
package mounttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const (
	inside = "SELINUX_PROVISION_TEST_NAMESPACE"
	alone  = "SELINUX_PROVISION_TEST_ALONE"
)

// Main is for TestMain: it runs all tests of the package in a copy of the test program that has a mount namespace of its own, and gives
// the exit code. The copy dies with this process. Whoever is not root has no right to one, and the tests run without: see Inside.
//
// The mounts of the namespace are private (unshare(2) leaves them shared with the outside), so that what is mounted stays in it. What
// tests of other packages have mounted at this moment is taken out of it: it would vanish from here too when they remove the directory
// below it, because a mount of another namespace does not keep a directory from being removed since Linux 3.18.
func Main(m *testing.M) int {
	if Inside() {
		if err := detachForeign(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// With Unshareflags, package syscall makes every mount private as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// detachForeign unmounts what is mounted in temporary directories of tests.
func detachForeign() error {
	foreign, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, filepath.Join(os.TempDir(), "Test")), false
	})
	if err != nil {
		return fmt.Errorf("cannot read the mount table: %w", err)
	}
	for _, m := range foreign {
		// One that vanishes meanwhile, or with the one that it is mounted in, is gone all the same.
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// Alone runs the test that calls it once more, in a process and a mount namespace that no other test shares, and reports whether this is
// that process. Where it is not, the test has its result and is to return. It needs root: without, it fails where CI is set, else skips.
func Alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) == t.Name() {
		if err := detachForeign(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), alone+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.SkipNow()
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatal("the test did not run")
	}
	return false
}

// Inside tells whether the tests have a mount namespace of their own.
func Inside() bool { return os.Getenv(inside) != "" }

// Package mounttest lets the tests of a package mount file systems without anybody outside seeing it. It is for tests alone.
package mounttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

const inside = "SELINUX_PROVISION_TEST_NAMESPACE"

// Main is for TestMain: it runs all tests of the package in a copy of the test program that has a mount namespace of its own, and gives
// the exit code. The copy dies with this process. Whoever is not root has no right to one, and the tests run without: see Inside.
//
// The mounts of the namespace are private (unshare(2) leaves them shared with the outside), so that what is mounted stays in it.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
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

// Inside tells whether the tests have a mount namespace of their own.
func Inside() bool { return os.Getenv(inside) != "" }

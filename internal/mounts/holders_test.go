package mounts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Proves V11.
func TestHolders(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		mount(t, "x", a, "tmpfs", 0, "")
		mount(t, a, b, "", unix.MS_BIND, "")
		mount(t, "y", filepath.Join(dir, "other"), "tmpfs", 0, "")
		device := mounted(t, a).Device
		holders := func() (own, processes, without []string) {
			t.Helper()
			all, err := Holders(t.Context(), device)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range all {
				switch {
				case h.Own:
					own = append(own, h.Mountpoint)
				case h.PID != 0:
					processes = append(processes, fmt.Sprintf("%d %s", h.PID, h.Mountpoint))
				default:
					without = append(without, h.Mountpoint)
				}
			}
			return own, processes, without
		}
		expect := func(what string, got []string, want ...string) {
			t.Helper()
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		own, others, without := holders()
		expect("own", own, a, b)
		expect("others", others)
		expect("without a process", without)

		// A process in a namespace of its own, where one of the two is not mounted any more.
		script := fmt.Sprintf("umount %s; echo; read x", b)
		cmd := exec.Command("sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		own, others, without = holders()
		expect("own", own, a, b)
		expect("others", others, fmt.Sprintf("%d %s", cmd.Process.Pid, a))
		expect("without a process", without)

		// The same namespace, kept by nothing but a handle when the process is gone.
		handle, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		cmd.Wait()
		own, others, without = holders()
		expect("own", own, a, b)
		expect("others", others)
		if namespacesCanBeListed() {
			expect("without a process", without, a)
		}
		handle.Close()

		// A thread of this very process, in a namespace of its own.
		ready, done := make(chan error), make(chan struct{})
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the function
			ready <- unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
			<-done
		}()
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
		_, others, _ = holders()
		expect("a thread", others, fmt.Sprintf("%d %s", os.Getpid(), a), fmt.Sprintf("%d %s", os.Getpid(), b))
		close(done)
	})
}

// namespacesCanBeListed tells whether the kernel is 6.12 or newer.
func namespacesCanBeListed() bool {
	fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	next, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), namespacePrevious, 0)
	if errno == 0 {
		unix.Close(int(next))
	}
	return errno != unix.ENOTTY
}

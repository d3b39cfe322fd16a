package mounts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounttest"
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
		process := mounttest.Begin(t, cmd)
		own, others, without = holders()
		expect("own", own, a, b)
		expect("others", others, fmt.Sprintf("%d %s", cmd.Process.Pid, a))
		expect("without a process", without)

		// The same namespace, kept by nothing but a handle when the process is gone.
		handle, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		process.End()
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

// What is said to go with a mount is gone when that is unmounted, and what would stay is never said to.
//
// Proves V17.
func TestGoesWith(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		point := filepath.Join(dir, "point")
		for _, c := range []struct {
			name, unshare, before, script string
			goes, user                    bool
		}{
			{name: "a copy that follows", unshare: "slave", goes: true},
			{name: "a copy that is a peer", unshare: "unchanged", goes: true},
			{name: "a copy that follows, and has followers of its own", unshare: "slave", script: "mount --make-rshared /", goes: true},
			{name: "a copy that does not follow itself, in a place that does", unshare: "slave", script: "mount --make-private point", goes: true},
			{name: "a private mount in a shared place", unshare: "slave", before: "mount --make-private point", goes: true},
			{name: "a bind mount of the copy", unshare: "slave", script: "mkdir other; mount --bind point other; umount point"},
			{name: "a bind mount of a peer", unshare: "unchanged", script: "mkdir -p /run; mount -t tmpfs --make-private x /run; mkdir /run/other; mount --bind point /run/other"},
			{name: "a copy with something in it", unshare: "slave", script: "mkdir point/d; mount -t tmpfs x point/d"},
			{name: "a copy on its own", unshare: "private"},
			// Linux 6.17 and later unmount it all the same.
			{name: "a copy of a user namespace, which may be locked", unshare: "slave", user: true},
			{name: "a shared mount in a place that spreads nothing", unshare: "slave", before: "mount --make-private .; mount --make-shared point"},
			{name: "a moved copy", unshare: "slave", script: "mount -t tmpfs --make-private x /run; mkdir /run/other; mount --move point /run/other"},
		} {
			t.Run(c.name, func(t *testing.T) {
				if out, err := exec.Command("mount", "--make-shared", dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				mount(t, "x", point, "tmpfs", 0, "")
				t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
				run := exec.Command("sh", "-ec", "cd "+dir+"; "+c.before)
				if out, err := run.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				device := mounted(t, point).Device
				cmd := exec.Command("unshare", "--mount", "--propagation", c.unshare, "sh", "-ec", "cd "+dir+"; "+c.script+"\necho; cd /; read x || :")
				if c.user {
					cmd.Args = slices.Insert(cmd.Args, 1, "--user", "--map-root-user")
				}
				defer mounttest.Begin(t, cmd).End()
				all, err := Holders(t.Context(), device)
				if err != nil {
					t.Fatal(err)
				}
				var itself Holder
				for _, h := range all {
					if h.Own {
						itself = h
					}
				}
				goes := true
				for _, h := range all {
					goes = goes && (h.Own || h.GoesWith(&itself))
				}
				if len(all) < 2 || goes != c.goes {
					t.Errorf("all of it goes: %v; %+v", goes, all)
				}
				umount(t, point)
				left, err := Holders(t.Context(), device)
				if err != nil {
					t.Fatal(err)
				}
				if (len(left) == 0) != c.goes && !c.user {
					t.Errorf("the kernel has left %+v", left)
				}
			})
		}
	})
}

// TestHolderThatEnds: a process ends while the table of its namespace is read, as a short service of the host's does. What the namespace had goes with
// the mount all the same, and keeps nobody from unmounting it.
//
// Proves V17.
func TestHolderThatEnds(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		if out, err := exec.Command("mount", "--make-shared", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		point := filepath.Join(dir, "point")
		mount(t, "x", point, "tmpfs", 0, "")
		device := mounted(t, point).Device
		in := mounttest.Begin(t, exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; read x || :"))

		// Its directory in /proc, whose table comes when it has ended.
		proc, process := t.TempDir(), fmt.Sprintf("/proc/%d", in.Process.Pid)
		table, err := os.ReadFile(process + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"root", "ns"} {
			if err := os.Symlink(process+"/"+name, filepath.Join(proc, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkfifo(filepath.Join(proc, "mountinfo"), 0o600); err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			w, err := os.OpenFile(filepath.Join(proc, "mountinfo"), os.O_WRONLY, 0)
			if err == nil {
				in.End()
				_, err = w.Write(table)
				w.Close()
			}
			written <- err
		}()
		f, err := newHolderFinder(device)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.process(os.Getpid(), "/proc/self"), f.process(in.Process.Pid, proc)); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		var itself Holder
		for _, h := range f.found {
			if h.Own {
				itself = h
			}
		}
		if len(f.found) != 2 || itself.on == nil {
			t.Errorf("found %+v", f.found)
		}
		for _, h := range f.found {
			if !h.Own && !h.GoesWith(&itself) {
				t.Errorf("%+v stays", h)
			}
		}
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

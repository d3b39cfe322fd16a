package stages

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interruptAt in the environment says where a process is interrupted.
const interruptAt = "SELINUX_PROVISION_INTERRUPT_AT"

// interruption says at which system call a process is killed, or which one fails: the n-th of that name of any of its threads, and of those of the
// tools that it runs. The kernel asks the process itself before each such call (seccomp's notifications), so the call has no effect, and
// all others cost nothing: a tracer stops at each of them.
type interruption struct {
	call  string
	n     int
	errno syscall.Errno // that the call fails with; 0: whoever makes it is killed
	mark  string        // a file that is made when it has happened
}

// String is what parseInterruption reads.
func (i interruption) String() string {
	return fmt.Sprintf("%s %d %d %s", i.call, i.n, i.errno, i.mark)
}

func parseInterruption(text string) (i interruption, err error) {
	_, err = fmt.Sscanf(text, "%s %d %d %s", &i.call, &i.n, &i.errno, &i.mark)
	return i, err
}

// number gives the system call's.
func (i interruption) number() (int, error) {
	if i.call == "rename" && runtime.GOARCH == "amd64" { // newer processors have none
		return 82, nil
	}
	n, ok := map[string]int{"renameat": unix.SYS_RENAMEAT, "renameat2": unix.SYS_RENAMEAT2, "linkat": unix.SYS_LINKAT, "symlinkat": unix.SYS_SYMLINKAT,
		"unlinkat": unix.SYS_UNLINKAT, "fsync": unix.SYS_FSYNC, "syncfs": unix.SYS_SYNCFS, "mkdirat": unix.SYS_MKDIRAT, "fchown": unix.SYS_FCHOWN}[i.call]
	if !ok {
		return 0, fmt.Errorf("cannot interrupt at %s", i.call)
	}
	return n, nil
}

// The structures of seccomp_unotify(2).
type (
	notification struct {
		id           uint64
		thread       uint32
		flags        uint32
		number       int32
		architecture uint32
		instruction  uint64
		arguments    [6]uint64
	}
	notificationAnswer struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}
)

// start has this process, and what it starts, interrupted.
func (i interruption) start() error {
	number, err := i.number()
	if err != nil {
		return err
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(number)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("cannot have the kernel ask before %s: %w", i.call, errno)
	}
	go i.answer(listener)
	return nil
}

// answer lets all calls be made but the one.
func (i interruption) answer(listener uintptr) {
	calls := map[uint32]int{}
	for {
		var asked notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
			continue // who asked has been killed meanwhile
		}
		calls[asked.thread]++
		answer := notificationAnswer{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if calls[asked.thread] == i.n {
			if err := os.WriteFile(i.mark, nil, 0o600); err != nil {
				panic(err)
			}
			if i.errno == 0 {
				victim := int(asked.thread)
				if _, err := os.Stat(filepath.Join("/proc/self/task", strconv.Itoa(victim))); err == nil {
					victim = os.Getpid()
				}
				_ = unix.Kill(victim, unix.SIGKILL)
				continue
			}
			answer.errno, answer.flags = -int32(i.errno), 0
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
	}
}

// errnoOf gives the number of an error by its name.
func errnoOf(t *testing.T, name string) syscall.Errno {
	t.Helper()
	for _, errno := range []syscall.Errno{unix.EIO, unix.EDQUOT, unix.ENOSPC, unix.EROFS, unix.EPERM} {
		if unix.ErrnoName(errno) == name {
			return errno
		}
	}
	t.Fatalf("no error %s", name)
	return 0
}

// interrupted runs a test of this program in a process of its own that is interrupted. It tells whether the process was killed, and whether it
// came to the call at all.
func interrupted(t *testing.T, at interruption, test string, environment ...string) (killed, reached bool, said string) {
	t.Helper()
	at.mark = filepath.Join(t.TempDir(), "reached")
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), interruptAt+"="+at.String()), environment...)
	out, err := cmd.CombinedOutput()
	_, missing := os.Stat(at.mark)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, ok := exit.Sys().(syscall.WaitStatus)
		if killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL; killed {
			return true, missing == nil, string(out)
		}
	}
	if err == nil {
		out = nil
	}
	return false, missing == nil, string(out)
}

// beInterrupted is what the process that interrupted starts does first.
func beInterrupted(t *testing.T) {
	t.Helper()
	at, err := parseInterruption(os.Getenv(interruptAt))
	if err == nil {
		err = at.start()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestInterruptedChild makes directories. Run by itself it has nothing to do.
func TestInterruptedChild(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(crashDir)
	if dir == "" {
		return
	}
	runtime.LockOSThread()
	beInterrupted(t)
	failed := ""
	for _, name := range []string{"a", "b", "c"} {
		if err := unix.Mkdirat(unix.AT_FDCWD, filepath.Join(dir, name), 0o755); err != nil {
			failed += " " + err.Error()
		}
	}
	if out, err := exec.Command("mkdir", "-p", filepath.Join(dir, "of", "a", "tool")).CombinedOutput(); err != nil {
		failed += " " + err.Error() + " " + string(out)
	}
	if failed != "" {
		t.Fatal(failed)
	}
}

// TestInterruption proves that of a process's calls the one is interrupted that is to be, in it or in a tool of it, and that it has no effect.
func TestInterruption(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		at              interruption
		killed, reached bool
		made, said      string
	}{
		{interruption{call: "mkdirat", n: 2}, true, true, "a", ""},
		{interruption{call: "mkdirat", n: 2, errno: unix.EDQUOT}, false, true, "a c of", "disk quota exceeded"},
		{interruption{call: "mkdirat", n: 9}, false, false, "a b c of", ""},
		{interruption{call: "linkat", n: 1}, false, false, "a b c of", ""},
	} {
		dir := t.TempDir()
		killed, reached, said := interrupted(t, tc.at, "TestInterruptedChild", crashDir+"="+dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		made := ""
		for _, entry := range entries {
			made += " " + entry.Name()
		}
		if killed != tc.killed || reached != tc.reached || strings.TrimSpace(made) != tc.made || !strings.Contains(said, tc.said) || (said == "") != (tc.said == "") {
			t.Errorf("%s: killed %v, reached %v, made%s, said %q", tc.at, killed, reached, made, said)
		}
	}
}

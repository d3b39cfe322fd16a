package hostfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "/state/locks/run"

func TestLockSaysWhoHasIt(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	unlock, err := r.Lock(t.Context(), Lock{File: lockName})
	must(t, err)
	_, err = r.Lock(t.Context(), Lock{File: lockName})
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("the second lock: %v", err)
	}
	holder := fmt.Sprintf("process %d (%s", os.Getpid(), os.Args[0])
	if locked.Path != filepath.Join(dir, lockName) || !strings.HasPrefix(locked.Holder, holder) {
		t.Errorf("%+v, want the holder %s ...", locked, holder)
	}
	if message := err.Error(); !strings.Contains(message, locked.Path) || !strings.Contains(message, holder) {
		t.Errorf("the message is %q", message)
	}
	unlock()
	unlock, err = r.Lock(t.Context(), Lock{File: lockName})
	must(t, err)
	unlock()
}

// TestLockEndsForWhoeverWasForked gives a lock back while the open file is also somebody else's, as it is a child's between fork and exec.
func TestLockEndsForWhoeverWasForked(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, "foreign"), nil, 0o600))
	for name, lock := range map[string]func() (func(), error){
		lockName:   func() (func(), error) { return r.Lock(t.Context(), Lock{File: lockName}) },
		"/foreign": func() (func(), error) { return r.LockForeign(t.Context(), "/foreign", 0) },
	} {
		release, err := lock()
		must(t, err)
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		copied := -1
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); copied < 0 && to == filepath.Join(dir, name) {
				n, err := strconv.Atoi(fd.Name())
				must(t, err)
				copied, err = unix.Dup(n)
				must(t, err)
				t.Cleanup(func() { unix.Close(copied) })
			}
		}
		release()
		if release, err = lock(); err != nil || copied < 0 {
			t.Fatalf("%s: with its open file copied as %d: %v", name, copied, err)
		}
		release()
	}
}

func TestLockWaits(t *testing.T) {
	r := openRoot(t, t.TempDir())
	unlock, err := r.Lock(t.Context(), Lock{File: lockName})
	must(t, err)
	var told []string
	second, err := r.Lock(t.Context(), Lock{File: lockName, Wait: time.Hour, Waiting: func(holder string) {
		told = append(told, holder)
		unlock()
	}})
	must(t, err)
	second()
	if len(told) != 1 || !strings.Contains(told[0], fmt.Sprint(os.Getpid())) {
		t.Errorf("was told %q", told)
	}
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	r := openRoot(t, t.TempDir())
	unlock, err := r.Lock(t.Context(), Lock{File: lockName})
	must(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.Lock(ctx, Lock{File: lockName, Wait: time.Hour, Waiting: func(string) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A holder that removes the file it has locked, as its last deed, must not leave two others that both have a lock.
func TestLockIsOnWhatIsThereNow(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	first, err := r.Lock(t.Context(), Lock{File: lockName})
	must(t, err)
	_, err = r.Lock(t.Context(), Lock{File: lockName, Wait: time.Hour, Waiting: func(string) {
		must(t, os.RemoveAll(filepath.Join(dir, "state")))
		first()
	}})
	must(t, err)
	var locked *LockedError
	if _, err := r.Lock(t.Context(), Lock{File: lockName}); !errors.As(err, &locked) {
		t.Errorf("a third run got the lock as well: %v", err)
	}
}

// Whatever is there when a lock is taken, nobody else can open it afterwards, and what others may have opened before is not it.
func TestLockIsPrivate(t *testing.T) {
	state, locks, file := "state", "state/locks", "state/locks/run"
	for name, before := range map[string]struct {
		prepare func(t *testing.T, dir string)
		fresh   bool // the file is another one afterwards
		fails   string
	}{
		"nothing": {func(*testing.T, string) {}, true, ""},
		"right already": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
		}, false, ""},
		"a directory that others can read": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
		}, false, ""},
		"a directory that others can write to": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o755))
			must(t, os.Chmod(filepath.Join(dir, locks), 0o1777))
		}, true, ""},
		"somebody else's directory and file": {func(t *testing.T, dir string) {
			asRoot(t)
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
			must(t, os.Chown(filepath.Join(dir, locks), nobody, nobody))
			must(t, os.Chown(filepath.Join(dir, file), nobody, nobody))
		}, true, ""},
		"a file that others can read": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, file), nil, 0o644))
		}, true, ""},
		"a link in place of the file": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "victim"), nil, 0o644))
			must(t, os.Symlink("../../victim", filepath.Join(dir, file)))
		}, true, ""},
		"a pipe": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, unix.Mkfifo(filepath.Join(dir, file), 0o600))
		}, true, ""},
		"a socket": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, locks), 0o700))
			must(t, unix.Mknod(filepath.Join(dir, file), unix.S_IFSOCK|0o600, 0))
		}, true, ""},
		"a link in place of the directory": {func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, state), 0o755))
			must(t, os.Mkdir(filepath.Join(dir, "victim"), 0o755))
			must(t, os.Symlink("../victim", filepath.Join(dir, locks)))
		}, false, "not a directory"},
		"a directory in place of the file": {func(t *testing.T, dir string) { must(t, os.MkdirAll(filepath.Join(dir, file), 0o700)) }, false, "is a directory"},
		"a link that leads nowhere above":  {func(t *testing.T, dir string) { must(t, os.Symlink("/nowhere/at/all", filepath.Join(dir, state))) }, false, "exist"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			before.prepare(t, dir)
			old, _ := os.Lstat(filepath.Join(dir, file))
			if fd, err := unix.Open(filepath.Join(dir, file), unix.O_PATH|unix.O_NOFOLLOW, 0); err == nil {
				defer unix.Close(fd) // its inode is not given to the next file
			}
			unlock, err := openRoot(t, dir).Lock(t.Context(), Lock{File: lockName})
			if before.fails != "" {
				if err == nil || !strings.Contains(err.Error(), before.fails) {
					t.Errorf("%v, want %q", err, before.fails)
				}
				return
			}
			must(t, err)
			defer unlock()
			for name, want := range map[string]fs.FileMode{locks: fs.ModeDir | 0o700, file: 0o600} {
				info, err := os.Lstat(filepath.Join(dir, name))
				must(t, err)
				if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != want.Perm() || info.IsDir() != want.IsDir() || int(uid) != os.Geteuid() {
					t.Errorf("%s is %s of %d", name, info.Mode(), uid)
				}
			}
			now, err := os.Lstat(filepath.Join(dir, file))
			must(t, err)
			if fresh := old == nil || !os.SameFile(old, now); fresh != before.fresh {
				t.Errorf("the file is a new one: %t", fresh)
			}
			if info, err := os.Stat(filepath.Join(dir, "victim")); err == nil && info.Mode().Perm()&0o044 == 0 {
				t.Errorf("the victim has the mode %s", info.Mode())
			}
		})
	}
}

// TestLockHeldByAnybody has an ordinary user lock all that can be opened, with a command line that is made for a terminal.
func TestLockHeldByAnybody(t *testing.T) {
	asRoot(t)
	dir := openToAll(t)
	r := openRoot(t, dir)
	l := Lock{File: lockName, Before: "/state", Waiting: func(holder string) { t.Errorf("waits for %s", holder) }}
	unlock, err := r.Lock(t.Context(), l)
	must(t, err)
	unlock()
	if out, err := asNobody("flock", "-n", filepath.Join(dir, lockName), "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
		t.Fatalf("nobody can open the lock: %v, %s", err, out)
	}
	// An ordinary user's process may be called what this program is called, and root may hold what it wants under another name.
	own, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	alike := filepath.Join(dir, strings.TrimSpace(string(own)))
	shell, err := filepath.EvalSymlinks("/bin/sh")
	must(t, err)
	content, err := os.ReadFile(shell)
	must(t, err)
	must(t, os.WriteFile(alike, content, 0o755))
	for who, c := range map[string]struct {
		uid   uint32
		shell string
		waits bool
	}{
		"an ordinary user": {nobody, "sh", false}, "an ordinary user as this program": {nobody, alike, false},
		"root by another program": {0, "sh", false}, "root by this program": {0, alike, true},
	} {
		t.Run(who, func(t *testing.T) {
			hold(t, filepath.Join(dir, "state"), c.uid, c.shell)
			l := l
			l.Waiting = nil
			unlock, err := r.Lock(t.Context(), l)
			var locked *LockedError
			if errors.As(err, &locked) != c.waits {
				t.Fatalf("%v", err)
			}
			if c.waits {
				return
			}
			must(t, err)
			defer unlock()
			// The lock that counts is held all the same.
			if _, err := r.Lock(t.Context(), Lock{File: lockName}); !errors.As(err, &locked) {
				t.Errorf("a second run got the lock: %v", err)
			}
		})
	}
}

// TestLockOfAnEarlierVersion keeps a run off that locks the directory, and is kept off by one.
func TestLockOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o755))
	r := openRoot(t, dir)
	earlier, err := r.LockForeign(t.Context(), "/state", 0)
	must(t, err)
	l := Lock{File: lockName, Before: "/state"}
	var locked *LockedError
	if _, err := r.Lock(t.Context(), l); !errors.As(err, &locked) || !strings.Contains(locked.Holder, fmt.Sprint(os.Getpid())) {
		t.Fatalf("beside an earlier version: %v", err)
	}
	l.Wait, l.Waiting = time.Hour, func(string) { earlier() }
	unlock, err := r.Lock(t.Context(), l)
	must(t, err)
	if _, err := r.LockForeign(t.Context(), "/state", 0); !errors.As(err, &locked) {
		t.Errorf("an earlier version begins as well: %v", err)
	}
	unlock()
	earlier, err = r.LockForeign(t.Context(), "/state", 0)
	must(t, err)
	earlier()
	// Nothing is made for it.
	unlock, err = r.Lock(t.Context(), Lock{File: lockName, Before: "/missing"})
	must(t, err)
	unlock()
	if r.Exists("/missing") {
		t.Error("the directory of the earlier version was made")
	}
}

// TestHolderIsPrintable shows a command line that is made for a terminal.
func TestHolderIsPrintable(t *testing.T) {
	asRoot(t)
	dir := openToAll(t)
	hold(t, dir, nobody, "sh")
	_, err := openRoot(t, dir).LockForeign(t.Context(), "/", 0)
	var locked *LockedError
	if !errors.As(err, &locked) || !strings.Contains(locked.Holder, `x)\n\x1b[31mdone\x1b[0m`) {
		t.Errorf("%v", err)
	}
	if strings.ContainsAny(locked.Holder, "\x1b\n") {
		t.Errorf("%q", locked.Holder)
	}
}

func TestMakePrivate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "semanage.read.LOCK")
	must(t, os.WriteFile(file, []byte("kept"), 0o644))
	must(t, os.Symlink("semanage.read.LOCK", filepath.Join(dir, "link")))
	r := openRoot(t, dir)
	if err := r.MakePrivate("/link"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a link: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := r.MakePrivate("/"); !NoFile(err) {
		t.Errorf("a directory: %v", err)
	}
	for range 2 {
		must(t, r.MakePrivate("/semanage.read.LOCK"))
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || info.Size() != 4 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

const nobody = 65534

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
}

// openToAll is a directory that an ordinary user can reach.
func openToAll(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "hostfs-") //nolint:usetesting // an ordinary user cannot reach what is below t.TempDir()
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func asNobody(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// hold has a user's shell hold a flock until the end of the test.
func hold(t *testing.T, name string, uid uint32, shell string) {
	t.Helper()
	cmd := asNobody("flock", "--no-fork", name, shell, "-c", "echo held; read x", "x)\n\x1b[31mdone\x1b[0m")
	cmd.SysProcAttr.Credential.Uid = uid
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

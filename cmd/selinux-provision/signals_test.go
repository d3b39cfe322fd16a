package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/fusetest"
)

// Either in the environment makes the tests the program, the other one an ordinary user's.
const (
	asProgram = "SELINUX_PROVISION_TEST_AS_PROGRAM"
	asNobody  = "SELINUX_PROVISION_TEST_AS_NOBODY"
)

// TestMain lets a test run the program in a process of its own, for what signals do to it, and for what it may do.
func TestMain(m *testing.M) {
	if os.Getenv(asNobody) != "" { // who could not execute it where go test puts it
		const nobody = 65534
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			panic(err)
		}
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// Whoever reads the output and goes away, as "head" does, ends nothing in the middle: what was begun is done, and the exit code says so.
//
// Proves P1.
func TestReaderGoesAway(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
	}{
		{"apply", exitDone},
		{"apply -v", exitDone},
		{"--json apply", exitDone},
		{"apply --dry-run", exitDone},
		{"status", exitPartly},
		{"--json status", exitPartly},
		{"revert", exitDone},
		{"version", exitDone},
	} {
		t.Run(c.args, func(t *testing.T) {
			tree := flatcartest.New(t, flatcartest.Today)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := program(t, append([]string{"--root", tree.Dir}, strings.Fields(c.args)...)...)
			cmd.Stdout, cmd.Stderr = write, write
			if err := read.Close(); err != nil { // nobody reads a single byte
				t.Fatal(err)
			}
			err = cmd.Run()
			write.Close()
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("%v: exit code %d, want %d", err, got, c.code)
			}
			if !strings.HasSuffix(c.args, "apply") {
				return
			}
			state, err := os.ReadFile(filepath.Join(tree.Dir, "var/lib/selinux-provision/state.json"))
			if err != nil || bytes.Contains(state, []byte("in_progress")) {
				t.Errorf("it was broken off: %v\n%s", err, state)
			}
		})
	}
}

// SIGTERM ends a relabelling at once, also where the file system does not answer.
func TestRelabelEndsWhereNobodyAnswers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounts need root")
		}
		t.Skip("mounts need root")
	}
	server := fusetest.Mount(t, t.TempDir())
	server.Hang()
	cmd := program(t, "relabel", server.Dir, "--context", "system_u:object_r:container_file_t:s0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); server.Asked() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("it asked for nothing")
		}
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(stderr).ReadString('\n')
	if took := time.Since(begin); err != nil || took > 10*time.Second || !strings.Contains(said, "does not answer") {
		t.Errorf("after %s: %q, %v", took, said, err)
	}
	// A request that its server has taken holds its thread, whatever the process does.
	server.Answer()
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("exit code %d", got)
	}
}

// A crash is no exit code: 2 would be a wrong configuration, after which systemd starts the watcher no more and counts evidence as taken.
func TestCrashIsNoExitCode(t *testing.T) {
	cmd := program(t, "denials", "--input", "/dev/stdin")
	cmd.Dir = t.TempDir()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(bytes.Repeat([]byte("no denial\n"), 20_000)); err != nil { // more than a pipe holds: it reads
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil { // ends a program in Go as a panic does
		t.Fatal(err)
	}
	_ = cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || !strings.Contains(stderr.String(), "goroutine ") {
		t.Errorf("it ended with %s\n%s", cmd.ProcessState, &stderr)
	}
	// The thread that the kernel gives signals to first does nothing else: see main.
	if !regexp.MustCompile(`(?m)^goroutine 1 .*\[chan receive, locked to thread\]`).Match(stderr.Bytes()) {
		t.Errorf("the first thread does not wait for the end of the work:\n%s", &stderr)
	}
}

package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script writes an executable shell script and gives its path.
func script(t *testing.T, name, body string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOutputAndUsage(t *testing.T) {
	out, err := Tools{}.Run(t.Context(), script(t, "tool", `echo "out $1"; echo "err $2" >&2`), "one", "two words")
	if err != nil {
		t.Fatal(err)
	}
	if out.Stdout != "out one\n" || out.Stderr != "err two words\n" || out.Truncated {
		t.Errorf("got %+v", out)
	}
	if out.Elapsed <= 0 || out.MaxRSS < 64<<10 {
		t.Errorf("elapsed %v, peak memory %d bytes", out.Elapsed, out.MaxRSS)
	}
}

func TestSurroundings(t *testing.T) {
	t.Setenv("LANG", "de_DE.UTF-8")
	t.Setenv("LD_PRELOAD", "")
	// A descriptor that this process got from its own parent is not marked close-on-exec.
	const inherited = 77
	if err := unix.Dup2(0, inherited); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	out, err := Tools{}.Run(t.Context(), script(t, "tool", `
tr '\0' '\n' </proc/$$/environ | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL=
echo "stdin $(readlink /proc/$$/fd/0)"
test ! -e /proc/$$/fd/77 && echo "nothing inherited"
echo "group $(($(cut -d' ' -f5 /proc/$$/stat) - $$))"`))
	if err != nil {
		t.Fatal(err)
	}
	want := "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nstdin /dev/null\nnothing inherited\ngroup 0\n"
	if out.Stdout != want {
		t.Errorf("got\n%swant\n%s", out.Stdout, want)
	}
}

func TestMessages(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "garbage"), []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	tools := Tools{path: dir}
	for _, c := range []struct {
		name string
		argv []string
		want string
	}{
		{"nothing", nil, "cannot run a tool without a name"},
		{"empty name", []string{""}, "cannot run a tool without a name"},
		{"missing", []string{"semodule"}, "cannot run semodule: not installed on this host (looked in " + dir + ")"},
		{"missing path", []string{dir + "/none"}, "cannot run none: not installed on this host (looked for " + dir + "/none)"},
		{"not executable", []string{"plain"}, "cannot run plain: " + dir + "/plain: permission denied"},
		{"directory", []string{dir}, "cannot run " + filepath.Base(dir) + ": " + dir + ": permission denied"},
		{"no program", []string{"garbage"}, "cannot run garbage: exec format error"},
		{"status alone", []string{script(t, "auditctl", "exit 4")}, "auditctl failed with exit status 4"},
		{"last line", []string{script(t, "semodule", `echo one >&2; echo "  two " >&2; echo >&2; exit 1`)},
			"semodule failed with exit status 1: two"},
		{"summary lines", []string{script(t, "semodule", `
echo "Failed to resolve typeattributeset statement at /var/lib/selinux/mcs/tmp/modules/400/bad/cil:3" >&2
echo "Failed to resolve AST" >&2
echo "semodule:  Failed!" >&2
exit 1`)}, "semodule failed with exit status 1: " +
			"Failed to resolve typeattributeset statement at /var/lib/selinux/mcs/tmp/modules/400/bad/cil:3"},
		{"only a summary", []string{script(t, "semodule", `echo "semodule:  Failed!" >&2; exit 1`)},
			"semodule failed with exit status 1: Failed!"},
		{"control characters", []string{script(t, "semodule", `printf 'a\033[31mb\tc\n' >&2; exit 2`)},
			`semodule failed with exit status 2: a\x1b[31mb\tc`},
		{"signal", []string{script(t, "semodule", `kill -SEGV $$`)}, "semodule failed with signal 11 (segmentation fault)"},
		{"killed by another", []string{script(t, "semodule", `kill -KILL $$`)}, "semodule failed with signal 9 (killed)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tools.Run(t.Context(), c.argv...)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestExitError(t *testing.T) {
	_, err := Tools{}.Run(t.Context(), script(t, "tool", "echo partial; exit 7"))
	var failure *ExitError
	if !errors.As(fmt.Errorf("wrapped: %w", err), &failure) {
		t.Fatalf("%v is not an *ExitError", err)
	}
	if failure.Tool != "tool" || failure.Code != 7 || failure.Output.Stdout != "partial\n" {
		t.Errorf("got %+v", failure)
	}
	if _, err := (Tools{path: t.TempDir()}).Run(t.Context(), "none"); !errors.Is(err, ErrMissing) {
		t.Errorf("%v is not ErrMissing", err)
	}
}

// A tool that hangs takes its children with it, and what it printed until then is not lost.
//
// Proves P1.
func TestLimitKillsTheGroup(t *testing.T) {
	tool := script(t, "tool", `trap '' INT TERM; sleep 600 & echo $!; wait`)
	out, err := Tools{Limit: 300 * time.Millisecond}.Run(t.Context(), tool)
	if !errors.Is(err, ErrTimeout) {
		t.Fatalf("%v is not ErrTimeout", err)
	}
	if want := "cannot run tool to its end: it did not end in time and was killed (limit 300ms)"; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	gone(t, out.Stdout)
}

func TestContextKillsTheGroup(t *testing.T) {
	stop := errors.New("the host is going down")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(300*time.Millisecond, func() { cancel(stop) })
	out, err := Tools{}.Run(ctx, script(t, "tool", `sleep 600 & echo $!; wait`))
	if !errors.Is(err, stop) || errors.Is(err, ErrTimeout) {
		t.Fatalf("got %v", err)
	}
	gone(t, out.Stdout)

	if _, err := (Tools{}).Run(ctx, "/bin/true"); !errors.Is(err, stop) {
		t.Errorf("started under a context that had ended: %v", err)
	}
}

// gone checks that the process whose number was printed has ended.
func gone(t *testing.T, printed string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(printed))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d outlived its group", pid)
}

// A daemon left behind by a tool must not make the tool's success wait for the daemon's end.
func TestStrayChildHoldsThePipe(t *testing.T) {
	begin := time.Now()
	out, err := Tools{}.Run(t.Context(), script(t, "tool", `sleep 20 & echo $!`))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("waited %v", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out.Stdout))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestLongOutputKeepsItsEnd(t *testing.T) {
	out, err := Tools{}.Run(t.Context(), script(t, "tool", `
i=0; line=$(printf '%01023d' 0)
while [ $i -lt 1000 ]; do echo "$line"; i=$((i+1)); done
echo the end`))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Stdout) != outputLimit || !out.Truncated || !strings.HasSuffix(out.Stdout, "\nthe end\n") {
		t.Errorf("%d bytes, truncated %v, end %q", len(out.Stdout), out.Truncated, out.Stdout[len(out.Stdout)-20:])
	}
}

func TestTail(t *testing.T) {
	var w tail
	for i := range 5 * outputLimit / 1000 {
		if n, err := w.Write([]byte(strings.Repeat(string(rune('a'+i%26)), 1000))); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
		if cap(w.buf) > 5*outputLimit {
			t.Fatalf("buffer grew to %d bytes", cap(w.buf))
		}
	}
	if got := w.String(); len(got) != outputLimit || w.dropped+int64(len(got)) != 5*outputLimit/1000*1000 {
		t.Errorf("kept %d, dropped %d", len(got), w.dropped)
	}
}

func FuzzLastLine(f *testing.F) {
	f.Add("a\nb\n")
	f.Add("semodule:  Failed!\n")
	f.Add("\r\n\x00\n")
	f.Fuzz(func(t *testing.T, stderr string) {
		line := lastLine("semodule", stderr)
		if strings.ContainsAny(line, "\n\r\x00\x1b") || len([]rune(line)) > 401 {
			t.Errorf("%q", line)
		}
	})
}

// Stream hands over more than Run keeps, while the tool runs, and a reader that has enough ends the tool.
func TestStream(t *testing.T) {
	endless := script(t, "tool", `echo first; while :; do echo more; done`)
	var first string
	_, err := Tools{}.Stream(t.Context(), func(r io.Reader) error {
		_, err := fmt.Fscanln(r, &first)
		return err
	}, endless)
	if err != nil || first != "first" {
		t.Errorf("a reader that has enough: %q, error %v", first, err)
	}

	var n int64
	count := func(r io.Reader) (err error) { n, err = io.Copy(io.Discard, r); return err }
	out, err := Tools{}.Stream(t.Context(), count, script(t, "tool", fmt.Sprintf("head -c %d /dev/zero", 4*outputLimit)))
	if err != nil || n != 4*outputLimit || out.Truncated || out.Stdout != "" {
		t.Errorf("%d bytes, %+v, error %v", n, out, err)
	}

	var failed *ExitError
	if _, err = (Tools{}).Stream(t.Context(), count, script(t, "tool", "echo wrong >&2; exit 3")); !errors.As(err, &failed) || failed.Code != 3 {
		t.Errorf("a tool that fails: %v", err)
	}
	mine := errors.New("mine")
	if _, err = (Tools{}).Stream(t.Context(), func(io.Reader) error { return mine }, endless); !errors.Is(err, mine) {
		t.Errorf("a reader that fails: %v", err)
	}
	if _, err = (Tools{}).Stream(t.Context(), count, "/no/such/tool"); !errors.Is(err, ErrMissing) {
		t.Errorf("no tool: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Tools{}.Stream(ctx, func(r io.Reader) error { cancel(); return count(r) }, endless)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A tool that had no room, on a disk or in memory, is an error as a system call's, so that whoever is to say what to do about it sees one kind.
func TestNoRoomForATool(t *testing.T) {
	for said, want := range map[string]syscall.Errno{
		"libsemanage.semanage_copy_file: Could not write (No space left on device).":                        syscall.ENOSPC,
		"cp: cannot create regular file 'x': Disk quota exceeded":                                           syscall.EDQUOT,
		"semodule: Cannot allocate memory":                                                                  syscall.ENOMEM,
		"libsepol.x: Out of memory!":                                                                        syscall.ENOMEM,
		"libsemanage.x: out of memory, could not set regexp string":                                         syscall.ENOMEM,
		"Failed to allocate memory":                                                                         syscall.ENOMEM,
		"libsemanage.x: Error allocating space for filenames.":                                              syscall.ENOMEM,
		"libsemanage.x: Failure allocating memory.":                                                         syscall.ENOMEM,
		"libsemanage.x: Allocation failure!":                                                                syscall.ENOMEM,
		"libsemanage.x: Unable to map memory":                                                               syscall.ENOMEM,
		"libsemanage.x: could not allocate record array":                                                    syscall.ENOMEM,
		"libsepol.x: unable to allocate stack space":                                                        syscall.ENOMEM,
		"libsepol.x: failed to realloc expr buffer":                                                         syscall.ENOMEM,
		"libsepol.x: Memory error":                                                                          syscall.ENOMEM,
		"pp: No memory available for strdup":                                                                syscall.ENOMEM,
		"setfiles:  insufficient memory for r_opts.rootpath":                                                syscall.ENOMEM,
		"REGEX back-end error: no more memory":                                                              syscall.ENOMEM,
		"pp: error while loading shared libraries: libsepol.so.2: failed to map segment from shared object": syscall.ENOMEM,
		"pp: error while loading shared libraries: libc.so.6: cannot map zero-fill pages":                   syscall.ENOMEM,
		"Failed to resolve type memory_alloc_t":                                                             0,
		"libsemanage.x: Could not read the contents of y":                                                   0,
		"libsemanage.x: Could not open y. (No such file or directory).":                                     0,
		"": 0,
	} {
		err := fmt.Errorf("cannot build: %w", &ExitError{Tool: "semodule", Code: 1, Output: Output{Stderr: said}})
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.ENOENT} {
			if errors.Is(err, errno) != (errno == want) {
				t.Errorf("%q: %v", said, errno)
			}
		}
	}
	for end, want := range map[string]bool{"KILL": true, "TERM": false, "SEGV": false} {
		if _, err := (Tools{}).Run(t.Context(), script(t, "semodule", "kill -"+end+" $$")); errors.Is(err, syscall.ENOMEM) != want {
			t.Errorf("%s: %v", end, err)
		}
	}
}

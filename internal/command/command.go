// Package command runs the host's SELinux and audit tools: semodule, setsebool, setfiles, auditctl and their like.
//
// It is the only package of the product that starts processes. Each tool runs under the same conditions whoever calls it:
// its own process group, a time limit, the C locale, a fixed search path, nothing on its standard input, and output that is
// captured within bounds. So a message means the same on every host, and no tool can hold up a boot for ever.
//
// Do not use it for what the kernel or systemd can be asked directly: package kernel talks to selinuxfs, package systemd to
// D-Bus. Do not use it for a tool that asks questions or runs as a daemon; use Stream for one that prints more than a quarter of a
// mebibyte that matters.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

const (
	// defaultLimit is well above one rebuild of a full policy on slow hardware (seconds of CPU) and well below the time
	// after which somebody resets a machine that does not boot.
	defaultLimit = 10 * time.Minute

	// outputLimit bounds each of the two streams. A policy compiler that is fed a broken module can print without end.
	outputLimit = 256 << 10

	// drainDelay is how long Run waits for a pipe that a stray grandchild holds open after the tool itself has ended.
	drainDelay = 2 * time.Second

	searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"
)

var (
	// ErrMissing says that the tool is not on this host.
	ErrMissing = errors.New("not installed on this host")
	// ErrTimeout says that the tool did not end within the limit and was killed.
	ErrTimeout = errors.New("it did not end in time and was killed")
)

// Tools runs tools. The zero value is ready to use.
type Tools struct {
	// Limit is the longest that one run may take. Zero means ten minutes.
	Limit time.Duration
	// Usr is a /usr tree of another OS image whose tools run in place of the host's: each run sees it mounted on /usr, in a
	// mount namespace of its own.
	Usr string

	path string // search path instead of the fixed one, for tests
}

// Output is what one run printed and used.
type Output struct {
	Stdout, Stderr string
	// Truncated says that Stdout or Stderr lost its beginning. The end is always kept.
	Truncated bool
	Elapsed   time.Duration
	// MaxRSS is the peak resident memory of the tool in bytes. The kernel starts its count at what this process itself
	// had at the fork, so a small tool shows the caller's size.
	MaxRSS int64
}

// ExitError says that a tool ran and failed.
type ExitError struct {
	// Tool is the name of the tool, without its directory.
	Tool string
	// Code is the exit status, or -1 when a signal ended the tool.
	Code int
	// Output is all that it printed.
	Output Output

	signal syscall.Signal
}

// Error names the tool, its exit status and the last line on its standard error that says something.
func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	if e.signal != 0 {
		how = fmt.Sprintf("signal %d (%s)", int(e.signal), e.signal)
	}
	if line := lastLine(e.Tool, e.Output.Stderr); line != "" {
		return fmt.Sprintf("%s failed with %s: %s", e.Tool, how, line)
	}
	return fmt.Sprintf("%s failed with %s", e.Tool, how)
}

// Is makes a tool's own words for a disk, or a quota of it, without room, and for memory that ended (strerror(3) in the C locale), the error that a
// system call of this program would have had. So it does with a tool that somebody killed outright: that is what the kernel does when memory
// ends, and hardly anybody else. What else the tools say tells nothing: libsemanage adds "No such file or directory" to anything.
func (e *ExitError) Is(target error) bool {
	says := func(words string) bool { return strings.Contains(e.Output.Stderr, words) }
	return target == syscall.ENOSPC && says("No space left on device") || target == syscall.EDQUOT && says("Disk quota exceeded") ||
		target == syscall.ENOMEM && (e.signal == syscall.SIGKILL || memoryEnded().MatchString(e.Output.Stderr))
}

// memoryEnded matches strerror(3) of ENOMEM, and what libsepol, libsemanage, libselinux and PCRE say in its place (the texts in releases 3.1, 3.8 and
// 3.11, some of which have no errno at all), or the loader of a tool (glibc, elf/dl-load.c).
var memoryEnded = lazyregexp.New(`(?i)cannot allocate memory|out of (dynamic )?memory|memory exhausted|insufficient memory|no (more )?memory( available|$)|unable to map memory|` +
	`failed to map segment from shared object|cannot map zero-fill pages|\bmemory error|allocation failure|(failed|failure|unable|error|could not)( to)? (re|m)?alloc(at(e|ing))?\b`)

// Run starts argv[0] with the rest as its arguments and waits for its end. A name without a slash is looked for in
// /usr/sbin, /usr/bin, /sbin and /bin only, whatever the environment says.
//
// When ctx ends or the limit passes, the tool and all it started in its process group are killed outright: semodule
// ignores the polite signals. The error is then ErrTimeout or the cause of ctx. An exit status other than 0 gives an
// *ExitError, a tool that is not there ErrMissing. The Output is as complete as it can be in all cases.
func (t Tools) Run(ctx context.Context, argv ...string) (Output, error) {
	return t.run(ctx, nil, argv)
}

// Stream is Run for a tool that prints without bound, such as journalctl: read gets what the tool prints on its standard output while
// it runs, Output.Stdout stays empty. When read returns before the end, the tool is killed, and that is no error unless read's is.
func (t Tools) Stream(ctx context.Context, read func(io.Reader) error, argv ...string) (Output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in, out := io.Pipe()
	ended := make(chan error, 1)
	enough := errors.New("the reader has enough")
	go func() {
		err := read(in)
		ended <- err
		cancel(enough)
		in.CloseWithError(enough)
	}()
	output, err := t.run(ctx, out, argv)
	// The reader meets the end of the stream only from here on. If it has returned before, it had enough, and whatever ended the
	// tool then, its group being killed or nobody reading any more, is no failure.
	early := len(ended) > 0
	_ = out.Close()
	if readErr := <-ended; readErr != nil {
		return output, readErr
	}
	if early {
		err = nil
	}
	return output, err
}

func (t Tools) run(ctx context.Context, stream io.Writer, argv []string) (Output, error) {
	if len(argv) == 0 || argv[0] == "" {
		return Output{}, errors.New("cannot run a tool without a name")
	}
	tool := filepath.Base(argv[0])
	file, args, err := t.within(argv)
	if err != nil {
		return Output{}, fmt.Errorf("cannot run %s: %w", tool, err)
	}
	limit := t.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	defer cancel()

	var stdout, stderr tail
	cmd := exec.CommandContext(limited, file, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = []string{"LC_ALL=C", "PATH=" + searchPath}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stream != nil {
		cmd.Stdout = stream
	}
	// A tool must not go on when nobody waits for it any more: the next run would work beside it. The kernel sends the signal when
	// the thread that started the tool ends, so that thread is kept.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.WaitDelay = drainDelay
	cmd.Cancel = func() error {
		// Ask first: after the tool was reaped its number may belong to another group.
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return err
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}

	// Descriptors that this process was started with are not marked like those it opened itself. Without this they would
	// reach the tool, and a daemon that the tool leaves behind would keep them. An older kernel refuses; nothing is lost then.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)

	begin := time.Now()
	err = cmd.Run()
	out := Output{
		Stdout:    stdout.String(),
		Stderr:    stderr.String(),
		Truncated: stdout.dropped > 0 || stderr.dropped > 0,
		Elapsed:   time.Since(begin),
	}
	if cmd.ProcessState == nil {
		// It never started.
		if cause := context.Cause(limited); cause != nil {
			return out, fmt.Errorf("cannot run %s: %w", tool, cause)
		}
		return out, fmt.Errorf("cannot run %s: %w", tool, reason(err))
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		out.MaxRSS = usage.Maxrss * 1024
	}
	if cmd.ProcessState.Success() {
		// Whatever else happened (a grandchild that keeps a pipe open, a limit that passed after the end) the tool
		// itself finished and said that all is well.
		return out, nil
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGKILL {
		if cause := context.Cause(limited); errors.Is(cause, ErrTimeout) {
			return out, fmt.Errorf("cannot run %s to its end: %w (limit %s)", tool, cause, limit)
		} else if cause != nil {
			return out, fmt.Errorf("cannot run %s to its end: %w", tool, cause)
		}
	}
	failure := &ExitError{Tool: tool, Code: cmd.ProcessState.ExitCode(), Output: out}
	if status.Signaled() {
		failure.signal = status.Signal()
	}
	return out, failure
}

// find gives the file of a tool. exec.LookPath is of no use here: it asks the environment of this process.
// within gives the program and the arguments that run argv: argv itself, or with another /usr in its place util-linux's unshare(1),
// which makes the namespace, and a shell, which mounts and becomes the tool. The tool and its libraries are looked up after that.
func (t Tools) within(argv []string) (file string, args []string, err error) {
	if t.Usr == "" {
		file, err = t.find(argv[0])
		return file, argv, err
	}
	if file, err = t.find("unshare"); err != nil {
		return "", nil, fmt.Errorf("unshare: %w", err)
	}
	const script = `mount --bind "$1" /usr && shift && exec "$@"`
	return file, append([]string{"unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", t.Usr}, argv...), nil
}

func (t Tools) find(name string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w (looked for %s)", ErrMissing, name)
		} else if err != nil {
			return "", err
		}
		return name, nil
	}
	path := t.path
	if path == "" {
		path = searchPath
	}
	var refused error
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if refused == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", fmt.Errorf("%w (looked in %s)", ErrMissing, path)
}

func executable(file string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Mode&0o111 == 0 {
		return fmt.Errorf("%s: %w", file, syscall.EACCES)
	}
	return nil
}

// reason takes "fork/exec" and the path out of an error that names the tool already.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// lastLine gives the last line of a tool's standard error that tells a reader something. The tools end with lines that
// only repeat that they failed.
func lastLine(tool, stderr string) string {
	var last string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		switch bare := strings.TrimSpace(strings.TrimPrefix(line, tool+":")); {
		case line == "", bare == "Failed!", bare == "Failed to resolve AST", bare == "Failed to compile cildb: -1":
			// Kept only if there is nothing better.
			if last == "" {
				last = bare
			}
		default:
			last = line
		}
	}
	const longest = 400
	return printable.Clip(printable.Text(last), longest) // an escape is up to ten times as long as what it stands for
}

// tail is a writer that keeps the last outputLimit bytes.
type tail struct {
	buf     []byte
	dropped int64
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	t.buf = append(t.buf, p...)
	// Cut only at twice the bound, so that a long stream does not move the same bytes again for every write.
	if len(t.buf) > 2*outputLimit {
		t.cut()
	}
	return n, nil
}

func (t *tail) cut() {
	if over := len(t.buf) - outputLimit; over > 0 {
		t.dropped += int64(over)
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
}

func (t *tail) String() string {
	t.cut()
	return string(t.buf)
}

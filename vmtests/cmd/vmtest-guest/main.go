// Vmtest-guest runs in the guest as root and carries out what the test harness asks for over a virtio-serial port: run a command,
// write a file, read a file. It needs nothing but the kernel and bash, so it can be delivered to a ready image too.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/vmtests/internal/link"
)

func main() {
	fd, err := openPort()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot read the boot id: %v\n", err)
		os.Exit(1)
	}
	s := &server{port: port{fd}, bootID: strings.TrimSpace(string(bootID)), running: map[uint64]context.CancelFunc{}}
	s.send(link.Header{Kind: link.Pong, BootID: s.bootID}, nil)
	r := bufio.NewReaderSize(s.port, 1<<16)
	for {
		h, body, err := link.Read(r)
		if err != nil {
			fmt.Fprintf(os.Stderr, "cannot read from the harness: %v\n", err)
			os.Exit(1)
		}
		s.handle(h, body)
	}
}

// openPort waits for the port: this program starts before udev has made links to devices, so the port is found by its name in sysfs.
func openPort() (int, error) {
	deadline := time.Now().Add(time.Minute)
	for {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil || strings.TrimSpace(string(content)) != link.PortName {
				continue
			}
			// Not os.Open: the descriptor must stay a plain blocking one, see port.
			return syscall.Open("/dev/"+filepath.Base(filepath.Dir(name)), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		}
		if time.Now().After(deadline) {
			return -1, fmt.Errorf("cannot find the virtio-serial port %s", link.PortName)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// port reads and writes the device without the runtime's poller. While nobody is connected on the host's side, read returns
// nothing at once: that is not the end, the harness comes back after a restored snapshot.
type port struct{ fd int }

func (p port) Read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(p.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil, errors.Is(err, syscall.EAGAIN):
			time.Sleep(20 * time.Millisecond)
		case !errors.Is(err, syscall.EINTR):
			return 0, err
		}
	}
}

func (p port) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n, err := syscall.Write(p.fd, b[written:])
		switch {
		case n > 0:
			written += n
		case errors.Is(err, syscall.EINTR):
		case err == nil, errors.Is(err, syscall.EAGAIN):
			time.Sleep(20 * time.Millisecond)
		default:
			return written, err
		}
	}
	return written, nil
}

type server struct {
	port   port
	bootID string

	sending sync.Mutex

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
}

func (s *server) send(h link.Header, body []byte) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := link.Write(s.port, h, body); err != nil {
		fmt.Fprintf(os.Stderr, "cannot write to the harness: %v\n", err)
	}
}

func (s *server) handle(h link.Header, body []byte) {
	switch h.Kind {
	case link.Ping:
		s.send(link.Header{ID: h.ID, Kind: link.Pong, BootID: s.bootID}, nil)
	case link.Cancel:
		s.mu.Lock()
		if cancel := s.running[h.ID]; cancel != nil {
			cancel()
		}
		s.mu.Unlock()
	case link.Run:
		ctx, cancel := context.WithCancel(context.Background())
		s.mu.Lock()
		s.running[h.ID] = cancel
		s.mu.Unlock()
		go func() {
			answer, output := run(ctx, h)
			cancel()
			s.mu.Lock()
			delete(s.running, h.ID)
			s.mu.Unlock()
			s.send(answer, output)
		}()
	case link.Put:
		answer := link.Header{ID: h.ID, Kind: link.Done}
		if err := put(h.Path, body, os.FileMode(h.Mode)); err != nil {
			answer.Error = err.Error()
		}
		s.send(answer, nil)
	case link.Get:
		answer := link.Header{ID: h.ID, Kind: link.Done}
		content, err := os.ReadFile(h.Path)
		if err != nil {
			answer.Error = err.Error()
		}
		s.send(answer, content)
	}
}

func put(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Removed first, so that a running program can be replaced.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func run(ctx context.Context, h link.Header) (link.Header, []byte) {
	answer := link.Header{ID: h.ID, Kind: link.Done}
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", h.Command)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/root", "USER=root", "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0",
		"PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// What a command leaves running in the background must not hold up its answer.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
	case errors.As(err, &exit):
		answer.Exit = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			answer.Exit = 128 + int(status.Signal())
		}
	case ctx.Err() == nil:
		answer.Error = err.Error()
	}
	answer.TimedOut = errors.Is(ctx.Err(), context.DeadlineExceeded)
	answer.StdoutLen = stdout.Len()
	return answer, append(stdout.Bytes(), stderr.Bytes()...)
}

package vmtests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/selinux-provision/selinux-provision/vmtests/internal/link"
)

// defaultTimeout ends a command whose caller set no deadline: later than the slowest takes on a busy host, so that only one that hangs meets it.
const defaultTimeout = 10 * time.Minute

// errGone is what a request gets whose guest went away, by a reboot, say.
var errGone = errors.New("the guest is gone")

// Output is what a command in the guest left behind.
type Output struct {
	Stdout string
	Stderr string
	Exit   int // 128+N for a command killed by signal N
}

// shell is the harness's end of the wire. Requests may run side by side.
type shell struct {
	conn net.Conn

	sending sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan answer
	gone    bool

	up     chan struct{} // closed with the first frame from the guest
	bootID string
}

type answer struct {
	header link.Header
	body   []byte
}

func dialShell(socket string) (*shell, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &shell{conn: conn, waiting: map[uint64]chan answer{}, up: make(chan struct{})}
	go s.receive()
	// A guest that is up already (restored from a snapshot) answers this; one that boots says by itself when it is up.
	if err := link.Write(conn, link.Header{Kind: link.Ping}, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *shell) receive() {
	r := bufio.NewReaderSize(s.conn, 1<<16)
	first := true
	for {
		h, body, err := link.Read(r)
		s.mu.Lock()
		if err != nil {
			s.gone = true
			for id, ch := range s.waiting {
				close(ch)
				delete(s.waiting, id)
			}
			s.mu.Unlock()
			return
		}
		if h.BootID != "" {
			s.bootID = h.BootID
		}
		if first {
			first = false
			close(s.up)
		}
		if ch := s.waiting[h.ID]; ch != nil {
			ch <- answer{h, body}
			delete(s.waiting, h.ID)
		}
		s.mu.Unlock()
	}
}

func (s *shell) request(ctx context.Context, h link.Header, body []byte) (link.Header, []byte, error) {
	ch := make(chan answer, 1)
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return link.Header{}, nil, errGone
	}
	s.next++
	h.ID = s.next
	s.waiting[h.ID] = ch
	s.mu.Unlock()

	if err := s.send(h, body); err != nil {
		return link.Header{}, nil, errGone
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return link.Header{}, nil, errGone
		}
		if a.header.Error != "" {
			return a.header, nil, errors.New(a.header.Error)
		}
		return a.header, a.body, nil
	case <-ctx.Done():
		_ = s.send(link.Header{ID: h.ID, Kind: link.Cancel}, nil)
		return link.Header{}, nil, ctx.Err()
	}
}

func (s *shell) send(h link.Header, body []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return link.Write(s.conn, h, body)
}

// Run gives a command to bash in the guest, as root. The error says that it could not be run to its end; what the command itself
// thinks of its work is in Exit. Without a deadline in ctx it gets ten minutes.
func (m *Machine) Run(ctx context.Context, command string) (Output, error) {
	if m.shell == nil {
		return Output{}, fmt.Errorf("cannot run %q in the guest: the machine is off", command)
	}
	timeout := defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+10*time.Second) // The guest's own limit comes first.
	defer cancel()
	h, body, err := m.shell.request(ctx, link.Header{Kind: link.Run, Command: command, Timeout: timeout}, nil)
	if err == nil && h.TimedOut {
		err = fmt.Errorf("not done after %s", timeout.Round(time.Millisecond))
	}
	out := Output{Exit: h.Exit}
	if h.StdoutLen <= len(body) {
		out.Stdout, out.Stderr = string(body[:h.StdoutLen]), string(body[h.StdoutLen:])
	}
	if err != nil {
		return out, fmt.Errorf("cannot run %q in the guest: %w", command, err)
	}
	return out, nil
}

// Put writes a file in the guest, with the directories above it.
func (m *Machine) Put(ctx context.Context, path string, content []byte, mode os.FileMode) error {
	if m.shell == nil {
		return fmt.Errorf("cannot put %s into the guest: the machine is off", path)
	}
	_, _, err := m.shell.request(ctx, link.Header{Kind: link.Put, Path: path, Mode: uint32(mode.Perm())}, content)
	if err != nil {
		return fmt.Errorf("cannot put %s into the guest: %w", path, err)
	}
	return nil
}

// Get reads a file of the guest.
func (m *Machine) Get(ctx context.Context, path string) ([]byte, error) {
	if m.shell == nil {
		return nil, fmt.Errorf("cannot get %s from the guest: the machine is off", path)
	}
	_, content, err := m.shell.request(ctx, link.Header{Kind: link.Get, Path: path}, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot get %s from the guest: %w", path, err)
	}
	return content, nil
}

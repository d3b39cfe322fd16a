// Package fusetest mounts FUSE file systems whose server stops answering when it is told to, over /dev/fuse and without any library. It is
// for tests alone.
package fusetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Operations and sizes are those of linux/fuse.h, protocol 7.31.
const (
	opForget      = 2
	opGetattr     = 3
	opLookup      = 1
	opStatfs      = 17
	opSetxattr    = 21
	opGetxattr    = 22
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opInterrupt   = 36
	opBatchForget = 42

	headerIn, headerOut = 40, 16
)

// Server is one mounted file system: an empty root directory with extended attributes.
type Server struct {
	Dir string

	dev int

	mu      sync.Mutex
	hangs   map[uint32]bool // operations that get no answer
	waiting [][]byte        // requests without an answer
	values  map[string][]byte
	asked   int // requests that hang or hung
	closed  bool
}

// Mount mounts one at dir, and unmounts it at the end of the test, whoever still waits for an answer.
func Mount(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Serve(dir)
	if errors.Is(err, errNoDevice) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var errNoDevice = errors.New("this needs /dev/fuse")

// Serve mounts one at dir.
func Serve(dir string) (*Server, error) {
	dev, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDevice, err)
	}
	s := &Server{Dir: dir, dev: dev, hangs: map[uint32]bool{}, values: map[string][]byte{}}
	// Where labels are extended attributes of FUSE, the kernel asks for that of the root before the mount is done.
	go s.serve()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", dev)
	if err := syscall.Mount("test", dir, "fuse.test", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	return s, nil
}

// Close unmounts it, whoever still waits for an answer.
func (s *Server) Close() {
	_ = syscall.Unmount(s.Dir, syscall.MNT_DETACH|syscall.MNT_FORCE)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = syscall.Close(s.dev)
}

// Hang makes the server leave every look at an extended attribute, and every change of one, without an answer.
func (s *Server) Hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs[opGetxattr], s.hangs[opSetxattr] = true, true
}

// HangAll makes it leave everything without an answer, but what the kernel asks once, maybe only after mount(2) has returned.
func (s *Server) HangAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for op := range uint32(64) {
		s.hangs[op] = op != opForget && op != opInterrupt && op != opBatchForget && op != opInit
	}
}

// Answer makes the server answer again, also what it was asked meanwhile.
func (s *Server) Answer() {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting, s.hangs = nil, map[uint32]bool{}
	s.mu.Unlock()
	for _, request := range waiting {
		s.answer(request)
	}
}

// Asked gives how many requests got no answer, or got it late.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *Server) serve() {
	buf := make([]byte, 1<<17+4096)
	for {
		n, err := syscall.Read(s.dev, buf)
		switch {
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOENT): // ENOENT: it was interrupted
			continue
		case errors.Is(err, syscall.EPERM) && !s.isClosed(): // it is not mounted yet
			time.Sleep(time.Millisecond)
			continue
		case err != nil || n < headerIn:
			return // it is unmounted
		}
		request := append([]byte(nil), buf[:n]...)
		s.mu.Lock()
		hangs := s.hangs[opcode(request)]
		if hangs {
			s.waiting = append(s.waiting, request)
			s.asked++
		}
		s.mu.Unlock()
		if !hangs {
			s.answer(request)
		}
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func opcode(request []byte) uint32 { return binary.NativeEndian.Uint32(request[4:]) }

func (s *Server) answer(request []byte) {
	le := binary.NativeEndian
	body := request[headerIn:]
	attr := make([]byte, 16+88)
	le.PutUint64(attr[16:], 1)                        // ino
	le.PutUint32(attr[16+60:], syscall.S_IFDIR|0o755) // mode
	le.PutUint32(attr[16+64:], 2)                     // nlink
	le.PutUint32(attr[16+80:], 4096)                  // blksize
	switch opcode(request) {
	case opForget, opBatchForget, opInterrupt:
		return
	case opInit:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[8:], le.Uint32(body[8:])) // max_readahead
		le.PutUint32(out[20:], 1<<16)              // max_write
		s.reply(request, out, 0)
	case opGetattr:
		s.reply(request, attr, 0)
	case opLookup:
		s.reply(request, nil, syscall.ENOENT)
	case opStatfs:
		out := make([]byte, 80)
		le.PutUint32(out[40:], 4096)
		le.PutUint32(out[44:], 255)
		le.PutUint32(out[48:], 4096)
		s.reply(request, out, 0)
	case opOpendir:
		s.reply(request, make([]byte, 16), 0)
	case opReaddir, opReleasedir:
		s.reply(request, nil, 0)
	case opGetxattr:
		s.getxattr(request, le.Uint32(body), text(body[8:]))
	case opSetxattr:
		name := text(body[8:])
		value := body[8+len(name)+1:]
		s.mu.Lock()
		s.values[name] = append([]byte(nil), value[:min(int(le.Uint32(body)), len(value))]...)
		s.mu.Unlock()
		s.reply(request, nil, 0)
	default:
		s.reply(request, nil, syscall.ENOSYS)
	}
}

func (s *Server) getxattr(request []byte, size uint32, name string) {
	s.mu.Lock()
	value, found := s.values[name]
	s.mu.Unlock()
	switch {
	case !found:
		s.reply(request, nil, syscall.ENODATA)
	case size == 0:
		s.reply(request, binary.NativeEndian.AppendUint64(nil, uint64(len(value))), 0)
	case int(size) < len(value):
		s.reply(request, nil, syscall.ERANGE)
	default:
		s.reply(request, value, 0)
	}
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func (s *Server) reply(request, body []byte, errno syscall.Errno) {
	out := make([]byte, headerOut, headerOut+len(body))
	binary.NativeEndian.PutUint32(out, uint32(headerOut+len(body)))
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
	copy(out[8:16], request[8:16]) // unique
	_, _ = syscall.Write(s.dev, append(out, body...))
}

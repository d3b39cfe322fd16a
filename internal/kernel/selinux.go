// Package kernel asks the running kernel about SELinux and tells it the mode: selinuxfs and the kernel's command line.
//
// Use it for the truth about the running host: what is enforced now, what policy version the kernel takes, whether a policy
// was loaded again, whether a context is valid in the loaded policy. What it reports was read from the kernel at that moment.
//
// Do not use it for a tree that is not the running host, nor for what the next boot will do: that is written in files, which
// package hostfs reads. The one exception is ParseCommandLine, which takes any reader.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

const (
	mountPoint = "/sys/fs/selinux"

	// longest is well above what any file read here holds: one page for the status, a few bytes for the rest.
	longest = 64 << 10
)

var (
	// ErrDisabled says that SELinux is not active in the running kernel, or that selinuxfs is not mounted.
	ErrDisabled = errors.New("SELinux is disabled in the running kernel")

	errTooLong = errors.New("it is longer than selinuxfs ever makes it")
)

// SELinux is an open handle of selinuxfs. It may be used by several goroutines at once.
type SELinux struct {
	dir       int
	name      string
	canonical func(ctx string) (string, error)
}

// Open gives a handle of the running kernel's selinuxfs, and ErrDisabled if there is none.
func Open() (*SELinux, error) {
	s, err := OpenAt(mountPoint)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.dir, &fs); err != nil {
		unix.Close(s.dir)
		return nil, fmt.Errorf("cannot tell what is mounted on %s: %w", mountPoint, err)
	}
	if fs.Type != unix.SELINUX_MAGIC {
		unix.Close(s.dir)
		return nil, fmt.Errorf("%w: selinuxfs is not mounted on %s", ErrDisabled, mountPoint)
	}
	// Container runtimes ask through this library, and its answer is what they use. Where it would not take this selinuxfs, it takes a file
	// in the current directory instead.
	if fs.Flags&unix.ST_RDONLY == 0 {
		s.canonical = selinux.CanonicalizeContext
	}
	return s, nil
}

// OpenAt gives a handle of a directory that looks like selinuxfs. It is for tests: nothing checks that it is the kernel's.
func OpenAt(dir string) (*SELinux, error) {
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%w: there is no %s", ErrDisabled, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	s := &SELinux{dir: fd, name: dir}
	s.canonical = func(ctx string) (string, error) { return s.ask("context", ctx) }
	return s, nil
}

// Close gives the handle back. The handle must not be used afterwards.
func (s *SELinux) Close() error {
	return unix.Close(s.dir)
}

// Enforcing says whether the kernel enforces now.
func (s *SELinux) Enforcing() (bool, error) {
	n, err := s.number("enforce")
	return n != 0, err
}

// SetEnforcing switches the running kernel and reads the mode back. It changes nothing that outlives the boot.
func (s *SELinux) SetEnforcing(on bool) error {
	value, mode := "0", "permissive"
	if on {
		value, mode = "1", "enforcing"
	}
	if err := s.write("enforce", []byte(value)); err != nil {
		return fmt.Errorf("cannot switch the kernel to %s: %w", mode, err)
	}
	now, err := s.Enforcing()
	if err != nil {
		return fmt.Errorf("cannot confirm that the kernel is %s: %w", mode, err)
	}
	if now != on {
		return fmt.Errorf("cannot switch the kernel to %s: it took the order and did not follow it", mode)
	}
	return nil
}

// PolicyVersion gives the highest version of a binary policy that the kernel takes.
func (s *SELinux) PolicyVersion() (int, error) {
	n, err := s.number("policyvers")
	return int(n), err
}

// PolicyLoads gives the kernel's count of policy loads since the boot. Two equal answers say that no policy was loaded
// between them.
func (s *SELinux) PolicyLoads() (uint32, error) {
	// The kernel's struct selinux_kernel_status: five numbers of 32 bits in the host's order. The second is odd while the
	// kernel changes the others.
	const sequence, policyload, size = 4, 12, 20
	for range 1000 {
		page, err := s.read("status")
		if err != nil {
			return 0, err
		}
		if len(page) < size {
			return 0, fmt.Errorf("cannot use %s/status: it has %d bytes of %d", s.name, len(page), size)
		}
		if binary.NativeEndian.Uint32(page[sequence:])%2 == 0 {
			return binary.NativeEndian.Uint32(page[policyload:]), nil
		}
	}
	return 0, fmt.Errorf("cannot use %s/status: the kernel keeps changing it", s.name)
}

// Boolean gives the current value of a boolean of the loaded policy, and whether the loaded policy has it.
func (s *SELinux) Boolean(name string) (current, found bool, err error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return false, false, nil
	}
	text, err := s.read("booleans/" + name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	// The current value, then the one that a commit would bring in.
	fields := strings.Fields(string(text))
	if len(fields) != 2 || fields[0] != "0" && fields[0] != "1" {
		return false, false, fmt.Errorf("cannot use %s/booleans/%s: %s is not two flags", s.name, name, printable.Quote(string(text)))
	}
	return fields[0] == "1", true, nil
}

// SetBooleans gives booleans of the loaded policy new values, all in one step, and reads them back. They last until the next
// boot.
func (s *SELinux) SetBooleans(values map[string]bool) error {
	if len(values) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(values))
	// All are looked at before one is touched: a value that is written and not committed would go into force with the next
	// commit, whoever makes it.
	for _, name := range names {
		if _, found, err := s.Boolean(name); err != nil {
			return fmt.Errorf("cannot set boolean %s: %w", name, err)
		} else if !found {
			return fmt.Errorf("cannot set boolean %s: the loaded policy does not have it", name)
		}
	}
	for _, name := range names {
		value := "0"
		if values[name] {
			value = "1"
		}
		if err := s.write("booleans/"+name, []byte(value)); err != nil {
			return fmt.Errorf("cannot set boolean %s: %w", name, err)
		}
	}
	if err := s.write("commit_pending_bools", []byte("1")); err != nil {
		return fmt.Errorf("cannot set booleans %s: %w", strings.Join(names, ", "), err)
	}
	for _, name := range names {
		now, _, err := s.Boolean(name)
		if err != nil {
			return fmt.Errorf("cannot confirm boolean %s: %w", name, err)
		}
		if now != values[name] {
			return fmt.Errorf("cannot set boolean %s: the kernel took the order and did not follow it", name)
		}
	}
	return nil
}

// Policy opens the loaded policy in its binary form, the values of booleans included. The kernel makes it at the opening, and lets one
// process at a time have it open: the error is EBUSY otherwise.
func (s *SELinux) Policy() (io.ReadCloser, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(s.dir, "policy", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("cannot open %s/policy: %w", s.name, err)
	}
	return &policyFile{fd}, nil
}

// policyFile reads selinuxfs with plain system calls, as read does.
type policyFile struct{ fd int }

// Read fills p from the policy.
func (f *policyFile) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := retry(func() (int, error) { return unix.Read(f.fd, p) })
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close gives the policy back, so that others can open it.
func (f *policyFile) Close() error { return unix.Close(f.fd) }

// Canonical gives a context as the loaded policy writes it, and whether the policy knows it: the own name of a type in place of an alias,
// categories in their order. What the kernel shows anywhere, in the mount table, in an extended attribute or in a record, is in this form.
func (s *SELinux) Canonical(ctx string) (canonical string, known bool, err error) {
	if ctx == "" || strings.ContainsRune(ctx, 0) {
		return "", false, nil
	}
	canonical, err = s.canonical(ctx)
	if errors.Is(err, unix.EINVAL) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("cannot ask the kernel about the context %s: %w", printable.Quote(ctx), err)
	}
	return canonical, true, nil
}

func (s *SELinux) number(file string) (uint32, error) {
	text, err := s.read(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("cannot use %s/%s: %s is not a number", s.name, file, printable.Quote(string(text)))
	}
	return uint32(n), nil
}

// read and write use plain system calls on a descriptor of their own: selinuxfs gives each open its own answer, and the Go
// runtime's poller has no business there.
func (s *SELinux) read(file string) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(s.dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("cannot open %s/%s: %w", s.name, file, err)
	}
	defer unix.Close(fd)
	var content []byte
	buf := make([]byte, 4096)
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
		if err != nil {
			return nil, fmt.Errorf("cannot read %s/%s: %w", s.name, file, err)
		}
		if n == 0 {
			return content, nil
		}
		if content = append(content, buf[:n]...); len(content) > longest {
			return nil, fmt.Errorf("cannot read %s/%s: %w", s.name, file, errTooLong)
		}
	}
}

// write hands over the content in one call: to selinuxfs each write is an order of its own.
func (s *SELinux) write(file string, content []byte) error {
	fd, err := retry(func() (int, error) { return unix.Openat(s.dir, file, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return fmt.Errorf("cannot open %s/%s: %w", s.name, file, err)
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, content) }); err != nil {
		return fmt.Errorf("cannot write %s/%s: %w", s.name, file, err)
	}
	return nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

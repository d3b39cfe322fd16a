package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OwnContext gives the context of this process; what it starts has the same, unless the policy says otherwise.
func OwnContext() (string, error) {
	text, err := os.ReadFile("/proc/thread-self/attr/current")
	if err != nil {
		return "", fmt.Errorf("cannot tell the context of this process: %w", err)
	}
	return strings.TrimRight(string(text), "\x00\n"), nil
}

// Allowed asks the loaded policy whether source may do something to target: class is "filesystem", permission "relabelto", say. It does not
// ask whether the kernel enforces. A class or permission that the policy does not have, and a context that it does not know, are not allowed.
func (s *SELinux) Allowed(source, target, class, permission string) (bool, error) {
	index, err := s.number("class/" + class + "/index")
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	bit, err := s.number("class/" + class + "/perms/" + permission)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if bit < 1 || bit > 32 {
		return false, fmt.Errorf("cannot use %s/class/%s/perms/%s: there is no permission %d", s.name, class, permission, bit)
	}
	answer, err := s.ask("access", fmt.Sprintf("%s %s %d", source, target, index))
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// security/selinux/selinuxfs.c, sel_write_access: the permissions as a mask in hexadecimal digits, and more that is not needed here.
	mask, _, _ := strings.Cut(answer, " ")
	allowed, err := strconv.ParseUint(mask, 16, 32)
	if err != nil {
		return false, fmt.Errorf("cannot use the answer of %s/access: %q is no mask", s.name, mask)
	}
	return allowed&(1<<(bit-1)) != 0, nil
}

// ask writes a question and reads the answer to it, which selinuxfs keeps for the handle.
func (s *SELinux) ask(file, question string) (string, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(s.dir, file, unix.O_RDWR|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", fmt.Errorf("cannot open %s/%s: %w", s.name, file, err)
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, []byte(question)) }); err != nil {
		return "", fmt.Errorf("cannot ask %s/%s: %w", s.name, file, err)
	}
	buf := make([]byte, 4096)
	n, err := retry(func() (int, error) { return unix.Pread(fd, buf, 0) })
	if err != nil {
		return "", fmt.Errorf("cannot read %s/%s: %w", s.name, file, err)
	}
	return strings.TrimRight(string(buf[:n]), "\x00\n"), nil
}

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
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
	allowed, _, err := s.access(source, target, class, permission)
	return allowed, err
}

// access is Allowed, and tells whether the policy has the class and the permission.
func (s *SELinux) access(source, target, class, permission string) (allowed, known bool, err error) {
	index, err := s.number("class/" + class + "/index")
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	bit, err := s.number("class/" + class + "/perms/" + permission)
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	if bit < 1 || bit > 32 {
		return false, true, fmt.Errorf("cannot use %s/class/%s/perms/%s: there is no permission %d", s.name, class, permission, bit)
	}
	answer, err := s.ask("access", fmt.Sprintf("%s %s %d", source, target, index))
	if errors.Is(err, unix.EINVAL) {
		return false, true, nil
	}
	if err != nil {
		return false, true, err
	}
	// security/selinux/selinuxfs.c, sel_write_access: the permissions as a mask in hexadecimal digits, and more that is not needed here.
	text, _, _ := strings.Cut(answer, " ")
	mask, err := strconv.ParseUint(text, 16, 32)
	if err != nil {
		return false, true, fmt.Errorf("cannot use the answer of %s/access: %s is no mask", s.name, printable.Quote(text))
	}
	return mask&(1<<(bit-1)) != 0, true, nil
}

// MayWatchMounts tells whether the kernel will give this process its notices of mounts (fanotify(7), FAN_MARK_MNTNS). To try it would log a
// denial where it does not. The kernel asks for watch_mountns on the file that the mount namespace is (security/selinux/hooks.c,
// selinux_path_notify, Linux 6.15), and allows what the policy does not have unless the policy says deny_unknown.
func (s *SELinux) MayWatchMounts() (bool, error) {
	own, err := OwnContext()
	if err != nil {
		return false, err
	}
	const namespace = "/proc/self/ns/mnt"
	label := make([]byte, 4096)
	n, err := unix.Getxattr(namespace, "security.selinux", label)
	if err != nil {
		return false, fmt.Errorf("cannot tell the context of %s: %w", namespace, err)
	}
	return s.mayWatchMounts(own, strings.TrimRight(string(label[:n]), "\x00"))
}

func (s *SELinux) mayWatchMounts(own, namespace string) (bool, error) {
	allowed, known, err := s.access(own, namespace, "file", "watch_mountns")
	if err != nil || known {
		return allowed, err
	}
	deny, err := s.number("deny_unknown")
	return deny == 0, err
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

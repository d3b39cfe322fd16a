package attribution

import (
	"bufio"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// MountPoint is a line of the host's mount table.
type MountPoint struct {
	Path   string // where it is mounted
	Type   string // of the file system
	Source string
	Dev    string // as the kernel names the file system in a record: the block device's name, else the type
	Block  bool   // on a block device
}

// Mounts is the host's mount table.
type Mounts []MountPoint

// ReadMounts reads the mount table of this process, if root is the running host.
func ReadMounts(root *hostfs.Root) Mounts {
	if !root.IsHost() {
		return nil
	}
	content, err := root.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return ParseMounts(strings.NewReader(string(content)), func(number string) string {
		target, err := root.Readlink("/sys/dev/block/" + number)
		if err != nil {
			return ""
		}
		return path.Base(target)
	})
}

// ParseMounts reads a table in the form of /proc/PID/mountinfo (proc(5)). device gives the name of the block device with a number
// such as "8:1", "" if there is none. A line that is not of that form is left out.
func ParseMounts(in io.Reader, device func(number string) string) (all Mounts) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		head, tail, found := strings.Cut(line, " - ")
		before, after := strings.Fields(head), strings.Fields(tail)
		if found && len(before) >= 6 && len(after) >= 2 {
			m := MountPoint{Path: unescape(before[4]), Type: after[0], Source: unescape(after[1]), Dev: after[0]}
			if name := device(before[2]); name != "" {
				m.Dev, m.Block = name, true
			}
			all = append(all, m)
		}
		if err != nil {
			return all
		}
	}
}

// unescape takes the octal forms of blank, tab, line feed and backslash away.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// Of gives the mount that a denial's file system is: the innermost one above a path, or, without a path, the one with the
// shortest path of that device. A type such as tmpfs, which stands for many file systems, needs the path.
func (m Mounts) Of(dev, hostPath string) *MountPoint {
	var best *MountPoint
	for i := range m {
		one := &m[i]
		switch {
		case hostPath != "" && below(hostPath, one.Path):
			if best == nil || len(one.Path) >= len(best.Path) { // of two at one place the later is on top
				best = one
			}
		case hostPath == "" && one.Block && one.Dev == dev:
			if best == nil || len(one.Path) < len(best.Path) {
				best = one
			}
		}
	}
	if best == nil && dev != "" {
		for i := range m {
			if m[i].Type == dev {
				return &MountPoint{Type: dev, Dev: dev}
			}
		}
	}
	return best
}

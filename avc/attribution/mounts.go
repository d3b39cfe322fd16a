package attribution

import (
	"path"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// MountPoint is a mount of the host.
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
	table, err := mounts.Read()
	if err != nil {
		return nil
	}
	return mountsOf(table, func(d mounts.Device) string {
		target, err := root.Readlink("/sys/dev/block/" + d.String())
		if err != nil {
			return ""
		}
		return path.Base(target)
	})
}

// mountsOf takes from a table what denials are compared with. name gives the name of a block device, "" if there is none.
func mountsOf(table []*mounts.Mount, name func(mounts.Device) string) (all Mounts) {
	for _, m := range table {
		one := MountPoint{Path: m.Mountpoint, Type: m.FSType, Source: m.Source, Dev: m.FSType}
		if name := name(m.Device); name != "" {
			one.Dev, one.Block = name, true
		}
		all = append(all, one)
	}
	return all
}

// Of gives the mount that a denial's file system is: the innermost one above a path, or, without a path, the one with the
// shortest path of that device. A type such as tmpfs, which stands for many file systems, needs the path. Another block device than the record's is
// never meant, whatever the path: the record is of another host, or of what was mounted there then.
func (m Mounts) Of(dev, hostPath string) *MountPoint {
	var best *MountPoint
	for i := range m {
		one := &m[i]
		switch {
		case one.Block && dev != "" && one.Dev != dev:
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

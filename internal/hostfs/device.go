package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// DeviceOf gives the number of the block device that name leads to, "MAJOR:MINOR" as /sys/dev/block has it.
func (r *Root) DeviceOf(name string) (string, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", r.fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", r.fail("use", name, unix.ENOTBLK)
	}
	return number(uint64(st.Rdev)), nil
}

// DevicesBelow gives the block device that the file system that holds name is mounted from, and every device which that one is made
// of, such as the partition below dm-verity. It asks the mount table: what stat(2) says of a file on Btrfs is no device's number.
func (r *Root) DevicesBelow(name string) ([]string, error) {
	if !r.IsHost() {
		return nil, r.fail("find the mount of", name, errors.New("this is not the running host"))
	}
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	at := mounts.At(table, clean(name))
	if at == nil {
		return nil, r.fail("find the mount of", name, fs.ErrNotExist)
	}
	first, err := r.DeviceOf(at.Source)
	if err != nil {
		return nil, err
	}
	all := []string{first}
	for i := 0; i < len(all); i++ {
		slaves, err := r.ReadDir("/sys/dev/block/" + all[i] + "/slaves")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range slaves {
			text, err := r.ReadFile("/sys/dev/block/" + all[i] + "/slaves/" + s.Name() + "/dev")
			if err != nil {
				return nil, err
			}
			all = append(all, string(bytes.TrimSpace(text)))
		}
	}
	return all, nil
}

func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

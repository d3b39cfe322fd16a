package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
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

// BelowDevice gives the device dev and every device that it is made of, such as the partition below dm-verity. For Btrfs, whose
// files show a number of no device, it asks the mount table for the source.
func (r *Root) BelowDevice(dev uint64) ([]string, error) {
	first := number(dev)
	if _, err := r.Stat("/sys/dev/block/" + first); err != nil {
		if first, err = r.source(first); err != nil {
			return nil, err
		}
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

// source finds the block device that a mount with this number comes from.
func (r *Root) source(device string) (string, error) {
	table, err := r.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(table) {
		before, after, _ := bytes.Cut(line, []byte(" - "))
		fields, rest := bytes.Fields(before), bytes.Fields(after)
		if len(fields) < 6 || len(rest) < 2 || string(fields[2]) != device {
			continue
		}
		return r.DeviceOf(unescape(string(rest[1])))
	}
	return "", fmt.Errorf("no mounted file system has device number %s", device)
}

func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

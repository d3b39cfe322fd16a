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

// DevicesBelow gives the block device that the file system that holds name is mounted from, and every device which that one is made
// of, such as the partition below dm-verity. It asks the mount table: what stat(2) says of a file on Btrfs is no device's number.
func (r *Root) DevicesBelow(name string) ([]string, error) {
	table, err := r.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	source := sourceOf(table, clean(name))
	if source == "" {
		return nil, r.fail("find the mount of", name, fs.ErrNotExist)
	}
	first, err := r.DeviceOf(source)
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

// sourceOf gives the source of the innermost mount that holds name, from a mountinfo table (proc(5)).
func sourceOf(table []byte, name string) string {
	point, source := "", ""
	for line := range bytes.Lines(table) {
		before, after, _ := bytes.Cut(line, []byte(" - "))
		fields, rest := bytes.Fields(before), bytes.Fields(after)
		if len(fields) < 6 || len(rest) < 2 {
			continue
		}
		if at := unescape(string(fields[4])); within(name, at) && len(at) >= len(point) {
			point, source = at, unescape(string(rest[1]))
		}
	}
	return source
}

func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

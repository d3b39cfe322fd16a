package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names is how else a mounted device is known.
type Names struct {
	// Paths are the device's names: /dev/sda1, /dev/disk/by-id/..., /dev/mapper/...
	Paths []string
	// Labels and UUIDs are those of the file system on it, the UUIDs as blkid(8) writes them: one of each, or none.
	Labels, UUIDs []string
}

// Names gives the other names of what is mounted. What is not mounted from a block device has none. Reading is all that is done to the
// device, and an error of one source does not hide what another gives.
//
// For the common types, the label and the UUID are those that the device holds now. What udev says counts for other types only: it is
// often slower than mount(2), and nobody is told when it is done; until then a loop device has the names of what it held before.
func (m *Mount) Names() (Names, error) {
	device, found := m.blockDevice()
	if !found {
		return Names{}, nil
	}
	names, err := udevNames(device)
	node, nodeErr := deviceNode(device)
	if nodeErr != nil {
		return names, errors.Join(err, nodeErr)
	}
	add(&names.Paths, node)
	label, uuid, readErr := readIdentity(node, device, m.FSType)
	switch {
	case errors.Is(readErr, ErrUnknownType):
	case readErr != nil:
		err = errors.Join(err, readErr)
	default:
		names.Labels, names.UUIDs = nil, nil
		add(&names.Labels, label)
		add(&names.UUIDs, uuid)
		names.Paths = slices.DeleteFunc(names.Paths, func(p string) bool { return outdated(p, label, uuid) })
	}
	return names, err
}

// outdated tells whether a link of udev's is named after what the device does not hold.
func outdated(link, label, uuid string) bool {
	name := unhex(path.Base(link))
	switch path.Dir(link) {
	case "/dev/disk/by-label":
		return name != label
	case "/dev/disk/by-uuid":
		return name != uuid
	}
	return false
}

// blockDevice gives the device that is mounted, if there is one.
func (m *Mount) blockDevice() (Device, bool) {
	if m.Device.Major != 0 {
		return m.Device, true
	}
	// A file system of several devices, such as Btrfs, has a number of its own; its source is one of them.
	var st unix.Stat_t
	if !strings.HasPrefix(m.Source, "/dev/") || unix.Stat(m.Source, &st) != nil {
		return Device{}, false
	}
	return Device{Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev))}, st.Mode&unix.S_IFMT == unix.S_IFBLK
}

func add(list *[]string, value string) {
	if value != "" && !slices.Contains(*list, value) {
		*list = append(*list, value)
	}
}

// deviceNode gives the kernel's own name of a block device.
func deviceNode(d Device) (string, error) {
	file := "/sys/dev/block/" + d.String() + "/uevent"
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot find the device %s: %w", d, err)
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			return path.Join("/dev", strings.TrimSpace(name)), nil
		}
	}
	return "", fmt.Errorf("cannot find the device %s: %s has no DEVNAME", d, file)
}

// readIdentity reads the label and the UUID from a device.
func readIdentity(node string, d Device, fstype string) (label, uuid string, err error) {
	// O_NONBLOCK: a drive must not be asked to close its tray.
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", "", fmt.Errorf("cannot open %s: %w", node, err)
	}
	file := os.NewFile(uintptr(fd), node)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK ||
		unix.Major(uint64(st.Rdev)) != d.Major || unix.Minor(uint64(st.Rdev)) != d.Minor {
		return "", "", fmt.Errorf("cannot use %s: it is not the device %s", node, d)
	}
	return Identity(file, fstype)
}

// udevNames reads what udev knows of a device. The file is what libudev itself reads; the lines used here have been the same since 2012
// (systemd, src/udev/udev-... device_update_db).
func udevNames(d Device) (Names, error) {
	file, err := os.Open("/run/udev/data/b" + d.String())
	if errors.Is(err, fs.ErrNotExist) {
		return Names{}, nil
	}
	if err != nil {
		return Names{}, fmt.Errorf("cannot read what udev knows of the device %s: %w", d, err)
	}
	defer file.Close()
	return parseUdev(io.LimitReader(file, 1<<20))
}

func parseUdev(r io.Reader) (Names, error) {
	var names Names
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if link, ok := strings.CutPrefix(line, "S:"); ok {
			add(&names.Paths, path.Join("/dev", link))
		}
		if label, ok := strings.CutPrefix(line, "E:ID_FS_LABEL_ENC="); ok {
			add(&names.Labels, unhex(label))
		}
		if uuid, ok := strings.CutPrefix(line, "E:ID_FS_UUID_ENC="); ok {
			add(&names.UUIDs, unhex(uuid))
		}
	}
	return names, lines.Err()
}

// unhex decodes what udev writes as \x and two hexadecimal digits.
func unhex(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

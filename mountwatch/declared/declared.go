// Package declared knows the mounts that systemd is told to make: the lines of /etc/fstab and the mount units. It gives each one
// that a rule is meant for a drop-in with the option context=, so that its very first mount is right.
//
// Find reads the files that systemd itself will read, and Plan is a pure function of them; a generator calls both before systemd has
// read any unit, and the watcher again when the configuration has changed.
//
// Do not use it to find out what is mounted: package mounts looks at the kernel.
package declared

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
)

// Mount is a mount that systemd is told to make. Its texts are as systemd's unit files have them: "%" is doubled.
type Mount struct {
	Unit    string // "var-lib-data.mount"
	Where   string // absolute
	What    string // "/dev/disk/by-label/data", "LABEL=data", "server:/export"
	Type    string // "" or "auto": mount(8) finds it out
	Options string
	Source  string // where it is written, for messages
}

// Option gives the value of one of the mount's options, without quotes, and whether it has it.
func (m *Mount) Option(name string) (value string, ok bool) {
	for each := range mounts.SplitOptions(m.Options) {
		key, value, _ := strings.Cut(each, "=")
		if key == name {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}

// Names tells whether what is mounted is what this unit mounts.
func (m *Mount) Names(mounted *mounts.Mount) bool {
	what := single(m.What)
	if what == mounted.Source {
		return true
	}
	resolved, err := filepath.EvalSymlinks(device(what))
	if err != nil || mounted.Device.Major == 0 {
		return false
	}
	// mount(8) puts a file behind a loop device.
	if file, err := os.ReadFile("/sys/dev/block/" + mounted.Device.String() + "/loop/backing_file"); err == nil && strings.TrimSuffix(string(file), "\n") == resolved {
		return true
	}
	node, err := filepath.EvalSymlinks("/dev/block/" + mounted.Device.String())
	return err == nil && node == resolved
}

// unitDirs are systemd's directories for mount units that somebody wrote, first that counts. What generators write is not among them:
// they all run at the same time, and the one that counts here only repeats /etc/fstab.
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"}
}

// Find reads /etc/fstab and the mount units of a host, in the order of their mountpoints. A file or line that cannot be understood is in the error, and
// the rest is given all the same: systemd does so as well.
func Find(root *hostfs.Root) ([]Mount, error) {
	var failures []error
	found := map[string]Mount{}
	content, err := root.ReadFile("/etc/fstab")
	if err == nil {
		lines, err := ParseFstab(bytes.NewReader(content))
		failures = append(failures, err)
		for _, m := range lines {
			if _, twice := found[m.Unit]; twice {
				continue
			}
			found[m.Unit] = m
			// Systemd makes a unit of the line, to which drop-ins are added as to any other.
			if err := m.readFiles(root, dropIns(root, m.Unit)); err != nil {
				failures = append(failures, err)
			} else {
				found[m.Unit] = m
			}
		}
	} else if !hostfs.Missing(err) {
		failures = append(failures, fmt.Errorf("cannot read /etc/fstab: %w", err))
	}
	// A unit beats the line of fstab with the same mountpoint, and a unit in an earlier directory one in a later: so the latter first.
	for _, dir := range slices.Backward(unitDirs()) {
		entries, err := root.ReadDir(dir)
		if err != nil && !hostfs.Missing(err) && !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, fmt.Errorf("cannot read %s: %w", dir, err))
		}
		for _, e := range entries {
			if path.Ext(e.Name()) != ".mount" {
				continue
			}
			files := append([]string{path.Join(dir, e.Name())}, dropIns(root, e.Name())...)
			m, err := FromFiles(root, e.Name(), files)
			switch {
			case err != nil:
				failures = append(failures, err)
			case m.Where == "": // masked, or not a unit that could be mounted
				delete(found, e.Name())
			default:
				found[e.Name()] = m
			}
		}
	}
	all := make([]Mount, 0, len(found))
	for _, m := range found {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Mount) int { return strings.Compare(a.Where, b.Where) })
	return all, errors.Join(failures...)
}

// dropIns gives the drop-ins of a unit, first that is read.
func dropIns(root *hostfs.Root, name string) []string {
	at := map[string]string{} // by file name: one for this unit hides one for several, and one in an earlier directory one in a later
	for _, group := range groups(name) {
		for _, dir := range slices.Backward(unitDirs()) {
			entries, err := root.ReadDir(path.Join(dir, group+".d"))
			if err != nil {
				continue
			}
			for _, e := range entries {
				if path.Ext(e.Name()) == ".conf" {
					at[e.Name()] = path.Join(dir, group+".d", e.Name())
				}
			}
		}
	}
	var files []string
	for _, file := range at {
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
	return files
}

// groups gives the names under which a mount unit has drop-ins, its own last: those for all mounts, and those for all with the same beginning up to
// a dash, systemd.unit(5).
func groups(name string) []string {
	all := []string{"mount"}
	for i := range len(name) - len(".mount") - 1 {
		if name[i] == '-' && i > 0 {
			all = append(all, name[:i+1]+".mount")
		}
	}
	return append(all, name)
}

// FromFiles reads one mount unit from its own file and its drop-ins, first that is read. Drop-ins of ours are left out: what is given
// is what somebody else wants. A unit that is masked has no Where.
func FromFiles(root *hostfs.Root, name string, files []string) (Mount, error) {
	m := Mount{Unit: name}
	if len(files) == 0 || masked(root, files[0]) {
		return m, nil
	}
	m.Source = files[0]
	if err := m.readFiles(root, files); err != nil {
		return m, err
	}
	if m.Where == "" && m.What != "" {
		m.Where = unit.UnitNamePathUnescape(strings.TrimSuffix(name, ".mount"))
	}
	if m.What == "" || m.Where != path.Clean("/"+m.Where) || systemd.MountUnitName(m.Where) != name {
		return Mount{Unit: name}, nil // systemd does not mount it either
	}
	return m, nil
}

// readFiles takes over what a unit's files set. A drop-in that is masked counts for nothing.
func (m *Mount) readFiles(root *hostfs.Root, files []string) error {
	for _, file := range files {
		if path.Base(file) == DropInName || masked(root, file) {
			continue
		}
		content, err := root.ReadFile(file)
		if err == nil {
			err = m.read(bytes.NewReader(content))
		}
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", file, err)
		}
	}
	return nil
}

func masked(root *hostfs.Root, file string) bool {
	target, err := root.Readlink(file)
	return err == nil && target == "/dev/null"
}

// read takes over what a unit file or a drop-in sets. The last one counts.
func (m *Mount) read(from io.Reader) error {
	options, err := unit.DeserializeOptions(from)
	if err != nil {
		return err
	}
	for _, o := range options {
		if o.Section != "Mount" {
			continue
		}
		value := strings.ReplaceAll(o.Value, "\\\n", " ") // a line that goes on, systemd.syntax(7)
		switch o.Name {
		case "What":
			m.What = value
		case "Where":
			m.Where = value
		case "Type":
			m.Type = value
		case "Options":
			m.Options = value
		}
	}
	return nil
}

// ParseFstab reads lines of fstab(5), at most 1 MiB of them. Those that cannot be understood are in the error.
func ParseFstab(r io.Reader) ([]Mount, error) {
	var (
		all      []Mount
		failures []error
		lines    = bufio.NewScanner(io.LimitReader(r, 1<<20))
	)
	lines.Buffer(nil, 1<<16)
	for n := 1; lines.Scan(); n++ {
		fields := strings.FieldsFunc(lines.Text(), func(r rune) bool { return r == ' ' || r == '\t' }) // not the other spaces of Unicode
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			failures = append(failures, fmt.Errorf("cannot use /etc/fstab:%d: it has only one field", n))
			continue
		}
		for len(fields) < 4 {
			fields = append(fields, "")
		}
		where := unescape(fields[1])
		if fields[2] == "swap" || !strings.HasPrefix(where, "/") || strings.ContainsRune(where, 0) {
			continue
		}
		where = path.Clean(where)
		all = append(all, Mount{
			Unit: systemd.MountUnitName(where), Where: where,
			What: doubled(unescape(fields[0])), Type: doubled(unescape(fields[2])), Options: doubled(unescape(fields[3])),
			Source: fmt.Sprintf("/etc/fstab:%d", n),
		})
	}
	if err := lines.Err(); err != nil {
		failures = append(failures, fmt.Errorf("cannot read /etc/fstab: %w", err))
	}
	return all, errors.Join(failures...)
}

// unescape reads fstab's octal escapes: \040 is a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && digit(s[i+1], '3') && digit(s[i+2], '7') && digit(s[i+3], '7') {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func digit(c, last byte) bool { return c >= '0' && c <= last }

// doubled escapes what systemd would read as a specifier.
func doubled(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// single takes the escapes of doubled back. A specifier of systemd's stays as it is: nothing that matters here has one.
func single(s string) string { return strings.ReplaceAll(s, "%%", "%") }

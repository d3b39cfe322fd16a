// Package declared knows the mounts that systemd is told to make: the lines of /etc/fstab and the mount units. It tells which of them are
// to be mounted with the option context= from the start, and what systemd must be told for that.
//
// Find reads the files that systemd itself will read, and Plan is a pure function of them; a generator calls both before systemd has
// read any unit, the watcher again when the configuration has changed, and who makes such a mount once more, right before it.
//
// Do not use it to find out what is mounted: package mounts looks at the kernel.
package declared

import (
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

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/internal/unitfile"
)

// Mount is a mount that systemd is told to make. Its texts are as systemd takes them, after all escapes.
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
	if m.What == mounted.Source {
		return true
	}
	resolved, err := filepath.EvalSymlinks(device(m.What))
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
		lines, err := fromFstab(root, bytes.NewReader(content))
		failures = append(failures, err)
		for _, m := range lines {
			if _, twice := found[m.Unit]; twice {
				continue
			}
			found[m.Unit] = m
			// Systemd makes a unit of the line, to which drop-ins are added as to any other.
			failures = append(failures, m.readDropIns(root, dropIns(root, m.Unit)))
			found[m.Unit] = m
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
			failures = append(failures, err)
			if m.Where == "" { // masked, or not a unit that could be mounted
				delete(found, e.Name())
			} else {
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
// is what somebody else wants. What systemd does not mount has no Where: a unit that is masked, that cannot be read, or that does not fit its name.
func FromFiles(root *hostfs.Root, name string, files []string) (Mount, error) {
	m := Mount{Unit: name}
	if len(files) == 0 || masked(root, files[0]) {
		return m, nil
	}
	m.Source = files[0]
	if err := m.read(root, files[0]); err != nil {
		return Mount{Unit: name}, err
	}
	err := m.readDropIns(root, files[1:])
	if m.Where == "" {
		m.Where = systemd.Mountpoint(name)
	}
	if m.What == "" || systemd.MountUnitName(m.Where) != name {
		return Mount{Unit: name}, err
	}
	return m, err
}

// readDropIns takes over what the drop-ins of a unit set. One that is masked counts for nothing, and one that cannot be read further for what it
// has set before, as for systemd.
func (m *Mount) readDropIns(root *hostfs.Root, files []string) error {
	var failures []error
	for _, file := range files {
		if ours := path.Base(file); ours != DropInName && ours != OptionsName && !masked(root, file) {
			failures = append(failures, m.read(root, file))
		}
	}
	return errors.Join(failures...)
}

func masked(root *hostfs.Root, file string) bool {
	target, err := root.Readlink(file)
	return err == nil && target == "/dev/null"
}

// read takes over what a unit file or a drop-in sets. The last one counts, and an empty one takes back what came before.
func (m *Mount) read(root *hostfs.Root, file string) error {
	content, err := root.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	options, err := unitfile.Parse(string(content))
	for _, o := range options {
		if o.Section != "Mount" {
			continue
		}
		// Of systemd's specifiers only "%%" is known here: nothing that matters has another one.
		value := strings.ReplaceAll(o.Value, "%%", "%")
		switch o.Name {
		case "What":
			m.What = value
		case "Where":
			// What is no path, or has ".." in it, systemd ignores (path_simplify_and_warn).
			if value == "" {
				m.Where = ""
			} else if strings.HasPrefix(value, "/") && !slices.Contains(strings.Split(value, "/"), "..") {
				m.Where = simple(value)
			}
		case "Type":
			m.Type = value
		case "Options":
			m.Options = value
		}
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	return nil
}

// fromFstab gives the mounts that systemd-fstab-generator makes of fstab, with the names of their units.
func fromFstab(root *hostfs.Root, r io.Reader) (all []Mount, err error) {
	lines, err := mounts.ParseFstab(r)
	places := newFollower(root)
	for _, line := range lines {
		if line.Type == "swap" || line.Type == "autofs" || !strings.HasPrefix(line.Where, "/") {
			continue
		}
		m := Mount{Where: places.follow(simple(line.Where)), What: line.What, Type: line.Type, Options: line.Options, Source: fmt.Sprintf("/etc/fstab:%d", line.Line)}
		if m.Where != path.Clean(m.Where) || strings.ContainsAny(m.Where, "\n\r") {
			continue // systemd makes no unit of it, or one that it cannot read
		}
		m.Unit = systemd.MountUnitName(m.Where)
		all = append(all, m)
	}
	return all, err
}

// simple removes what a path does not need, but for "..": where that leads depends on links.
func simple(name string) string {
	parts := slices.DeleteFunc(strings.Split(name, "/"), func(part string) bool { return part == "" || part == "." })
	return "/" + strings.Join(parts, "/")
}

// Follow gives the place that a path leads to: systemd-fstab-generator follows links, also where the end is not there yet, and names the unit by
// what it finds. A path that it cannot follow stays as it is.
func Follow(root *hostfs.Root, name string) string { return newFollower(root).follow(name) }

// follower follows paths. It does not look beyond a mountpoint whose server may not answer, nor at one that waits for its automount: that
// could take for ever, and whatever is mounted there has the real path.
type follower struct {
	root  *hostfs.Root
	waits []string
}

func newFollower(root *hostfs.Root) follower {
	f := follower{root: root}
	if !root.IsHost() {
		return f
	}
	all, err := mounts.Read()
	if err != nil {
		return f // then nothing is known to keep anybody waiting
	}
	for _, m := range all {
		if m.Device.Major == 0 && !slices.Contains([]string{"tmpfs", "ramfs", "overlay", "btrfs", "devtmpfs", "proc", "sysfs"}, m.FSType) {
			f.waits = append(f.waits, m.Mountpoint)
		}
	}
	return f
}

func (f follower) follow(name string) string {
	done, rest, blind := "/", strings.Split(name, "/"), false
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if blind {
				return name
			}
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		if blind = blind || slices.Contains(f.waits, next); !blind {
			info, err := f.root.Lstat(next)
			switch {
			case hostfs.Missing(err):
				blind = true
			case err != nil:
				return name
			case info.Mode&fs.ModeSymlink != 0:
				target, err := f.root.Readlink(next)
				if links++; err != nil || links > maxLinks {
					return name
				}
				if path.IsAbs(target) {
					done = "/"
				}
				rest = append(strings.Split(target, "/"), rest...)
				continue
			case len(rest) > 0 && !info.Mode.IsDir():
				return name
			}
		}
		done = next
	}
	return done
}

// maxLinks is how many links systemd follows in one path.
const maxLinks = 32

package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounttest"
)

func TestWriteFileReplacesWhatIsThere(t *testing.T) {
	for what, prepare := range map[string]func(t *testing.T, name string){
		"nothing":            func(*testing.T, string) {},
		"a file":             func(t *testing.T, name string) { t.Helper(); write(t, name, "old") },
		"a link to a file":   func(t *testing.T, name string) { t.Helper(); must(t, os.Symlink("target", name)) },
		"a dangling link":    func(t *testing.T, name string) { t.Helper(); must(t, os.Symlink("/nowhere", name)) },
		"a link to a folder": func(t *testing.T, name string) { t.Helper(); must(t, os.Symlink("folder", name)) },
		"a pipe":             func(t *testing.T, name string) { t.Helper(); must(t, unix.Mkfifo(name, 0o644)) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "target"), "the target")
			must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))
			prepare(t, filepath.Join(dir, "name"))
			must(t, openRoot(t, dir).WriteFile("/name", []byte("new"), own()))
			if info, err := os.Lstat(filepath.Join(dir, "name")); err != nil || info.Mode() != 0o644 {
				t.Errorf("%v, %v", info, err)
			}
			if got := read(t, filepath.Join(dir, "name")); got != "new" {
				t.Errorf("it holds %q", got)
			}
			if got := read(t, filepath.Join(dir, "target")); got != "the target" {
				t.Errorf("the target of a link became %q", got)
			}
			if got := names(t, dir); !slices.Equal(got, []string{"folder/", "name", "target"}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestWriteFileAttributes(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	r := openRoot(t, dir)
	name := filepath.Join(dir, "file")
	for _, c := range []struct {
		what     string
		attr     Attributes
		mode     fs.FileMode
		uid, gid uint32
	}{
		{"kept", Attributes{Mode: 0o644, Keep: true}, 0o640 | fs.ModeSetuid, 7, 8},
		{"given", Attributes{Mode: 0o600, UID: 1, GID: 2}, 0o600, 1, 2},
		{"default", Attributes{}, 0o644, 0, 0},
	} {
		write(t, name, "old")
		must(t, os.Chown(name, 7, 8))
		must(t, os.Chmod(name, 0o640|fs.ModeSetuid))
		must(t, r.WriteFile("/file", []byte("new"), c.attr))
		if info, err := r.Lstat("/file"); err != nil || info.Mode != c.mode || info.UID != c.uid || info.GID != c.gid {
			t.Errorf("%s: %+v, %v", c.what, info, err)
		}
	}
	must(t, os.Chmod(name, 0))
	must(t, r.WriteFile("/file", []byte("new"), Attributes{Keep: true}))
	if info, err := r.Lstat("/file"); err != nil || info.Mode != 0 {
		t.Errorf("a file that nobody may read became %s, %v", info.Mode, err)
	}
	must(t, r.WriteFile("/new", nil, Attributes{Mode: 0o600, Keep: true}))
	if info, err := r.Lstat("/new"); err != nil || info.Mode != 0o600 {
		t.Errorf("nothing to keep: %s, %v", info.Mode, err)
	}
}

func TestWriteFileLabel(t *testing.T) {
	for _, c := range []struct{ what, old, directory, given, want string }{
		{"of the replaced file", policyLabel, etcLabel, "", policyLabel},
		{"given", policyLabel, etcLabel, "system_u:object_r:selinux_config_t:s0", "system_u:object_r:selinux_config_t:s0"},
		{"of the directory, the file has none", "", etcLabel, "", etcLabel},
		{"of the directory, the kernel made the file's up", noLabel, etcLabel, "", etcLabel},
		{"none", "", "", "", ""},
		{"none that could be written", noLabel, noLabel, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "file")
			write(t, name, "old")
			if c.old != "" {
				setLabelOf(t, name, c.old)
			}
			if c.directory != "" {
				setLabelOf(t, dir, c.directory)
			}
			must(t, openRoot(t, dir).WriteFile("file", []byte("new"), Attributes{Label: c.given, UID: own().UID, GID: own().GID}))
			if got := labelOfFile(t, name); got != c.want {
				t.Errorf("the label is %q, want %q", got, c.want)
			}
		})
	}
	// The label of what a link leads to is not that of the link's place.
	dir := t.TempDir()
	setLabelOf(t, dir, etcLabel)
	must(t, os.Symlink("/nowhere", filepath.Join(dir, "link")))
	setLabelOf(t, filepath.Join(dir, "link"), policyLabel)
	must(t, openRoot(t, dir).WriteFile("link", nil, Attributes{}))
	if got := labelOfFile(t, filepath.Join(dir, "link")); got != etcLabel {
		t.Errorf("in place of a link: %q, want the directory's", got)
	}
}

func TestWriteFileRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "directory/file"), "old")
	r := openRoot(t, dir)
	for name, want := range map[string]error{"directory": unix.EISDIR, "missing/file": fs.ErrNotExist, "directory/file/x": unix.ENOTDIR, "/": unix.EINVAL} {
		if err := r.WriteFile(name, []byte("new"), own()); !errors.Is(err, want) {
			t.Errorf("WriteFile %s: %v, want %v", name, err, want)
		}
		if err := r.Symlink("target", name); !errors.Is(err, want) {
			t.Errorf("Symlink %s: %v, want %v", name, err, want)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"directory/", "directory/file"}) {
		t.Errorf("there is %q", got)
	}
}

// A reader that opens the name while it is written finds one content or the other.
func TestWriteFileIsNeverSeenHalf(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<12)}
	must(t, r.WriteFile("file", contents[0], own()))
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			content, err := os.ReadFile(filepath.Join(dir, "file"))
			if err != nil || !bytes.Equal(content, contents[0]) && !bytes.Equal(content, contents[1]) {
				t.Errorf("a reader found %d bytes, %v", len(content), err)
				return
			}
		}
	})
	for i := range 40 {
		must(t, r.WriteFile("file", contents[i%2], own()))
	}
	close(done)
	group.Wait()
}

func TestFullDiskLeavesTheOldFile(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	dir := smallDisk(t)
	r := openRoot(t, dir)
	must(t, r.WriteFile("file", []byte("old"), Attributes{}))
	if err := r.WriteFile("file", make([]byte, 1<<20), Attributes{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if got := read(t, filepath.Join(dir, "file")); got != "old" {
		t.Errorf("the old file has %d bytes", len(got))
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
		t.Errorf("there is %q", got)
	}

	big := t.TempDir()
	write(t, filepath.Join(big, "a"), "small")
	write(t, filepath.Join(big, "b/large"), strings.Repeat("x", 1<<20))
	whole := openRoot(t, "/")
	if _, err := whole.CopyTree(big, dir+"/copy"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("copy: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
		t.Errorf("the copy that failed left %q", got)
	}
}

// What takes the place of another entry has its label, be one of them a link or not.
func TestCopyLabel(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	must(t, os.Symlink("/nowhere", filepath.Join(dir, "link")))
	must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	setLabelOf(t, filepath.Join(dir, "link"), policyLabel)
	must(t, r.CopyLabel("link", "directory"))
	if got := labelOfFile(t, filepath.Join(dir, "directory")); got != policyLabel {
		t.Errorf("the directory has %q, want the link's", got)
	}
	must(t, os.Symlink("/nowhere", filepath.Join(dir, "new")))
	must(t, r.CopyLabel("directory", "new"))
	if got := labelOfFile(t, filepath.Join(dir, "new")); got != policyLabel {
		t.Errorf("the link has %q, want the directory's", got)
	}
	write(t, filepath.Join(dir, "bare"), "")
	must(t, r.CopyLabel("bare", "new"))
	if got := labelOfFile(t, filepath.Join(dir, "new")); got != policyLabel {
		t.Errorf("the label is %q, but there was none to copy", got)
	}
	if err := r.CopyLabel("missing", "new"); err == nil {
		t.Error("the label of nothing was copied")
	}
}

func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	write(t, filepath.Join(dir, "file"), "old")
	for _, name := range []string{"file", "file", "new"} {
		must(t, r.Symlink("../target of "+name, name))
		if got, err := os.Readlink(filepath.Join(dir, name)); err != nil || got != "../target of "+name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file", "new"}) {
		t.Errorf("there is %q", got)
	}
}

func TestMkdir(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	must(t, r.MkdirAll("/a/b/c", 0o777|fs.ModeSticky))
	must(t, r.MkdirAll("/a/b/c", 0o700))
	for name, want := range map[string]fs.FileMode{"a": 0o755, "a/b": 0o755, "a/b/c": 0o777 | fs.ModeSticky} {
		if info, err := r.Lstat(name); err != nil || info.Mode != want|fs.ModeDir {
			t.Errorf("%s: %s, %v", name, info.Mode, err)
		}
	}
	write(t, filepath.Join(dir, "file"), "")
	if err := r.MkdirAll("/file/x", 0o755); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
	if err := r.Mkdir("/a", 0o755); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what exists: %v", err)
	}
	must(t, os.Symlink("a/b", filepath.Join(dir, "link")))
	must(t, r.MkdirAll("/link/d", 0o755))
	if info, err := os.Stat(filepath.Join(dir, "a/b/d")); err != nil || !info.IsDir() {
		t.Errorf("through a link: %v", err)
	}
}

func TestRenameAndExchange(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	write(t, filepath.Join(dir, "new/file"), "new")
	write(t, filepath.Join(dir, "vendor/file"), "vendor's")
	must(t, os.Symlink("vendor", filepath.Join(dir, "store")))
	must(t, r.Exchange("/new", "/store"))
	if got := read(t, filepath.Join(dir, "store/file")); got != "new" {
		t.Errorf("after the exchange the store has %q", got)
	}
	if target, err := r.Readlink("/new"); target != "vendor" || err != nil {
		t.Errorf("after the exchange the link is %q, %v", target, err)
	}
	must(t, r.Exchange("/store", "/new"))
	if target, err := r.Readlink("/store"); target != "vendor" || err != nil {
		t.Errorf("after the second exchange the link is %q, %v", target, err)
	}
	if err := r.Exchange("/new", "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exchange with nothing: %v", err)
	}
	if got := read(t, filepath.Join(dir, "new/file")); got != "new" {
		t.Errorf("after an exchange that failed: %q", got)
	}
	if err := r.Rename("/new", "/vendor"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("rename over a full directory: %v", err)
	}
	must(t, r.Rename("/new/file", "/vendor/file"))
	if got := read(t, filepath.Join(dir, "vendor/file")); got != "new" {
		t.Errorf("after the rename: %q", got)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	write(t, filepath.Join(dir, "file"), "")
	write(t, filepath.Join(dir, "full/file"), "")
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	must(t, os.Symlink("full", filepath.Join(dir, "link")))
	for _, name := range []string{"file", "link", "empty", "missing", "missing/too"} {
		must(t, r.Remove(name))
		must(t, r.RemoveTree(name))
	}
	if err := r.Remove("full"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("a full directory: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"full/", "full/file"}) {
		t.Errorf("there is %q", got)
	}
}

func TestRemoveTreeFollowsNoLink(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "root")
	write(t, filepath.Join(outer, "outside/file"), "outside")
	write(t, filepath.Join(dir, "kept/file"), "kept")
	write(t, filepath.Join(dir, "tree/a/b/file"), "")
	must(t, unix.Mkfifo(filepath.Join(dir, "tree/pipe"), 0o600))
	for name, target := range map[string]string{"tree/up": "..", "tree/kept": "/kept", "tree/a/outside": filepath.Join(outer, "outside"), "tree/dangling": "nowhere", "link": "kept"} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	r := openRoot(t, dir)
	must(t, r.RemoveTree("/tree"))
	must(t, r.RemoveTree("/link"))
	if got := names(t, outer); !slices.Equal(got, []string{"outside/", "outside/file", "root/", "root/kept/", "root/kept/file"}) {
		t.Errorf("there is %q", got)
	}
}

func TestRemoveTreeStopsAtMounts(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "precious/file"), "precious")
	mount := func(source, to, kind string, flags uintptr) {
		t.Helper()
		to = filepath.Join(dir, to)
		must(t, os.MkdirAll(to, 0o755))
		must(t, unix.Mount(source, to, kind, flags, ""))
		t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
	}
	r := openRoot(t, dir)
	mount(filepath.Join(dir, "precious"), "tree/below/mounted", "", unix.MS_BIND)
	mount(filepath.Join(dir, "precious"), "itself", "", unix.MS_BIND)
	mount("tmpfs", "tmpfs/mounted", "tmpfs", 0)
	write(t, filepath.Join(dir, "tmpfs/mounted/file"), "precious")
	for tree, file := range map[string]string{"tree": "precious/file", "itself": "precious/file", "tmpfs": "tmpfs/mounted/file"} {
		err := r.RemoveTree(tree)
		if !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), "something is mounted there") {
			t.Errorf("%s: %v", tree, err)
		}
		if got := read(t, filepath.Join(dir, file)); got != "precious" {
			t.Errorf("%s: the mounted file is %q", tree, got)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "etc", TempPrefix+"0123"), "")
	write(t, filepath.Join(dir, "etc", TempPrefix+"store/mcs/file"), "")
	write(t, filepath.Join(dir, "etc/kept/"+TempPrefix+"below"), "")
	write(t, filepath.Join(dir, "etc/selinux-provision.conf"), "")
	must(t, os.Symlink("kept", filepath.Join(dir, "etc", TempPrefix+"link")))
	r := openRoot(t, dir)
	if n, err := r.Sweep("/etc"); n != 3 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if got := names(t, filepath.Join(dir, "etc")); !slices.Equal(got, []string{"kept/", "kept/" + TempPrefix + "below", "selinux-provision.conf"}) {
		t.Errorf("there is %q", got)
	}
	if n, err := r.Sweep("/missing"); n != 0 || err != nil {
		t.Errorf("a missing directory: %d, %v", n, err)
	}
}

// Several that make the same directories at the same time all find them made.
func TestMkdirAllAtOnce(t *testing.T) {
	r, err := Open(t.TempDir())
	must(t, err)
	defer r.Close()
	for round := range 10 {
		name := fmt.Sprintf("/%d/b/c", round)
		made := make(chan error)
		for range 8 {
			go func() { made <- r.MkdirAll(name, 0o755) }()
		}
		for range 8 {
			if err := <-made; err != nil {
				t.Error(err)
			}
		}
	}
}

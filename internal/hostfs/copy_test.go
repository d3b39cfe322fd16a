package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// describe tells all that a copy has to have, but for directories' link counts and sizes, which file systems make up.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	first := map[uint64]string{}
	must(t, openRoot(t, dir).Walk("/", func(below string, info Entry) error {
		line := fmt.Sprintf("/%s %s %d:%d %s %q", below, info.Mode, info.UID, info.GID, info.ModTime.UTC(), labelOfFile(t, filepath.Join(dir, below)))
		switch {
		case info.IsLink():
			target, err := os.Readlink(filepath.Join(dir, below))
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.IsRegular():
			content, err := os.ReadFile(filepath.Join(dir, below))
			if err != nil {
				return err
			}
			if first[info.Ino] == "" {
				first[info.Ino] = below
			}
			line += fmt.Sprintf(" %.20q %d, %d links, same as %s", content, len(content), info.Nlink, first[info.Ino])
		}
		all = append(all, line)
		return nil
	}))
	return all
}

func sampleTree(t *testing.T, dir string) {
	t.Helper()
	needRoot(t)
	write(t, filepath.Join(dir, "active/modules/100/base/cil"), strings.Repeat("policy", 100_000))
	write(t, filepath.Join(dir, "active/modules/100/base/lang_ext"), "cil")
	write(t, filepath.Join(dir, "empty"), "")
	write(t, filepath.Join(dir, "set-uid"), "x")
	write(t, filepath.Join(dir, "secret"), "x")
	must(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "closed"), 0o755))
	write(t, filepath.Join(dir, "closed/file"), "x")
	must(t, os.Link(filepath.Join(dir, "active/modules/100/base/cil"), filepath.Join(dir, "active/policy.linked")))
	must(t, os.Link(filepath.Join(dir, "active/modules/100/base/cil"), filepath.Join(dir, "a link before it")))
	must(t, os.Symlink("../nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Symlink("active", filepath.Join(dir, "link")))
	for name, mode := range map[string]fs.FileMode{
		"set-uid": 0o755 | fs.ModeSetuid | fs.ModeSetgid, "secret": 0, "sticky": 0o777 | fs.ModeSticky, "closed": 0o500, "active": 0o700 | fs.ModeSetgid,
	} {
		must(t, os.Chown(filepath.Join(dir, name), 3, 4))
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	must(t, os.Lchown(filepath.Join(dir, "dangling"), 5, 6))
	setLabelOf(t, filepath.Join(dir, "active"), policyLabel)
	setLabelOf(t, filepath.Join(dir, "active/modules/100/base/cil"), policyLabel)
	setLabelOf(t, filepath.Join(dir, "dangling"), etcLabel)
	i := int64(0)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		i++
		ts := []unix.Timespec{{Sec: 1}, unix.NsecToTimespec(time.Unix(1_500_000_000+i, 123_456_789).UnixNano())}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
}

func TestCopyTree(t *testing.T) {
	dir := t.TempDir()
	sampleTree(t, filepath.Join(dir, "store"))
	must(t, os.Symlink("/store", filepath.Join(dir, "vendor's")))
	r := openRoot(t, dir)
	want := describe(t, filepath.Join(dir, "store"))
	measured, err := r.Measure("/vendor's")
	must(t, err)
	tree, err := r.CopyTree("/vendor's", "/copy")
	must(t, err)
	if got := describe(t, filepath.Join(dir, "copy")); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if tree != measured || tree.Files != 8 || tree.Bytes != 600_000+3+1+1+1 || tree.Entries != 17 {
		t.Errorf("copied %+v, measured %+v", tree, measured)
	}
	if got := describe(t, filepath.Join(dir, "store")); !slices.Equal(got, want) {
		t.Errorf("the source changed to\n%s", strings.Join(got, "\n"))
	}
}

// A label that the kernel makes up for files without one stays off the copy.
func TestCopyTreeLeavesNoLabelAsNone(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "store/file"), "")
	setLabelOf(t, filepath.Join(dir, "store/file"), noLabel)
	_, err := openRoot(t, dir).CopyTree("/store", "/copy")
	must(t, err)
	if got := labelOfFile(t, filepath.Join(dir, "copy/file")); got != "" {
		t.Errorf("the label is %q", got)
	}
}

func TestCopyTreeRefuses(t *testing.T) {
	needRoot(t)
	for what, spoil := range map[string]func(t *testing.T, name string){
		"pipe":   func(t *testing.T, name string) { t.Helper(); must(t, unix.Mkfifo(name, 0o600)) },
		"device": func(t *testing.T, name string) { t.Helper(); must(t, unix.Mknod(name, unix.S_IFCHR|0o600, 0)) },
		"socket": func(t *testing.T, name string) { t.Helper(); must(t, unix.Mknod(name, unix.S_IFSOCK|0o600, 0)) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "store/a/file"), "")
			spoil(t, filepath.Join(dir, "store/b"))
			before := names(t, dir)
			_, err := openRoot(t, dir).CopyTree("/store", "/copy")
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "store/b")+": not a file, directory or link") {
				t.Errorf("the error is %v", err)
			}
			if got := names(t, dir); !slices.Equal(got, before) {
				t.Errorf("there is %q, before there was %q", got, before)
			}
		})
	}
}

func TestCopyTreeReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "store/file"), "new")
	write(t, filepath.Join(dir, "copy/file"), "old")
	write(t, filepath.Join(dir, "file"), "old")
	must(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	before := names(t, dir)
	r := openRoot(t, dir)
	for _, to := range []string{"/copy", "/file", "/link"} {
		if _, err := r.CopyTree("/store", to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	if _, err := r.CopyTree("/file", "/new"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("from a file: %v", err)
	}
	if _, err := r.CopyTree("/missing", "/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("from nothing: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, before) || read(t, filepath.Join(dir, "copy/file")) != "old" {
		t.Errorf("there is %q", got)
	}
}

func TestWalkStopsAtAnError(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/1", "b/2", "c"} {
		write(t, filepath.Join(dir, name), "")
	}
	r := openRoot(t, dir)
	var seen []string
	stop := errors.New("stop")
	err := r.Walk("/", func(below string, _ Entry) error {
		seen = append(seen, below)
		if below == "b/2" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || !slices.Equal(seen, []string{"", "a", "a/1", "b", "b/2"}) {
		t.Errorf("saw %q, %v", seen, err)
	}
}

// TestCopyEntry copies files, links and directories under their own names, and leaves out what has no content.
func TestCopyEntry(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"from/file", "from/tree/a/b", "to/other"} {
		write(t, filepath.Join(dir, name), name)
	}
	must(t, os.Symlink("nowhere", filepath.Join(dir, "from/link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "from/pipe"), 0o600))
	must(t, unix.Mkfifo(filepath.Join(dir, "from/tree/pipe"), 0o600))
	r := openRoot(t, dir)
	for _, name := range []string{"file", "tree", "link", "pipe"} {
		if _, err := r.CopyEntry("/from/"+name, "/to"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, want := names(t, filepath.Join(dir, "to")), []string{"file", "link", "other", "tree/", "tree/a/", "tree/a/b"}; !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
	if _, err := r.CopyEntry("/from/file", "/to"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what is there: %v", err)
	}
}

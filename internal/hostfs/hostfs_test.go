package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounttest"
)

func openRoot(t *testing.T, dir string) *Root {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file with its directories in a tree that no code under test has touched yet.
func write(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	must(t, err)
	return string(content)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this needs root")
	}
	t.Skip("this needs root")
}

const (
	etcLabel    = "system_u:object_r:etc_t:s0"
	policyLabel = "system_u:object_r:policy_config_t:s0:c1"
	noLabel     = "system_u:object_r:unlabeled_t:s0"
)

// setLabelOf labels an entry, a link itself. On a kernel without SELinux the label is an extended attribute like any other.
func setLabelOf(t *testing.T, name, label string) {
	t.Helper()
	needRoot(t)
	err := unix.Lsetxattr(name, labelAttribute, []byte(label+"\x00"), 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		t.Skipf("cannot label %s here: %v", name, err)
	}
	must(t, err)
}

func labelOfFile(t *testing.T, name string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(name, labelAttribute, buf)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	must(t, err)
	return strings.TrimSuffix(string(buf[:n]), "\x00")
}

// smallDisk mounts a file system of 256 KiB at a new directory, which the process's mount namespace takes along when it ends.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// names lists a tree, each directory with a slash at its end.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if d.IsDir() {
			name += "/"
		}
		all = append(all, name)
		return nil
	}))
	return all
}

func TestLinksStayInside(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "root")
	write(t, filepath.Join(outer, "secret"), "outside")
	write(t, filepath.Join(dir, "secret"), "inside")
	write(t, filepath.Join(dir, "usr/share/config"), "vendor's")
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	for name, target := range map[string]string{
		"etc/absolute":         "/usr/share/config",
		"etc/relative":         "../usr/share/config",
		"etc/chain":            "absolute",
		"etc/through":          "/usr/share/../../etc/chain",
		"etc/above":            "../../../../secret",
		"etc/far above":        "/../../../../secret",
		"etc/the host's":       filepath.Join(outer, "secret"),
		"etc/dangling":         "/nowhere",
		"etc/loop":             "loop",
		"etc/directory":        "/usr/share",
		"etc/directory above":  "../../..",
		"etc/the host's root":  outer,
		"etc/directory by way": "directory above/usr/share",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	r := openRoot(t, dir)
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"/etc/absolute", "vendor's", nil},
		{"/etc/relative", "vendor's", nil},
		{"/etc/chain", "vendor's", nil},
		{"/etc/through", "vendor's", nil},
		{"/etc/directory/config", "vendor's", nil},
		{"/etc/directory by way/config", "vendor's", nil},
		{"/etc/directory above/secret", "inside", nil},
		{"/etc/above", "inside", nil},
		{"/etc/far above", "inside", nil},
		{"/../../secret", "inside", nil},
		{"../secret", "inside", nil},
		{"etc/../secret", "inside", nil},
		{"/etc/the host's", "", fs.ErrNotExist},
		{"/etc/the host's root/secret", "", fs.ErrNotExist},
		{"/etc/dangling", "", fs.ErrNotExist},
		{"/etc/loop", "", unix.ELOOP},
		{"/etc/absolute/config", "", unix.ENOTDIR},
	} {
		content, err := r.ReadFile(c.name)
		if string(content) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, content, err, c.want, c.err)
		}
		if r.Exists(c.name) != (c.err == nil) {
			t.Errorf("%s: Exists is %t", c.name, c.err != nil)
		}
	}

	// Changes stay inside as well: the last name is replaced where it stands, what is before it is resolved inside.
	must(t, r.WriteFile("/etc/the host's", []byte("new"), own()))
	must(t, r.WriteFile("/etc/directory above/secret", []byte("changed"), own()))
	must(t, r.Remove("/etc/far above"))
	if err := r.WriteFile("/etc/the host's root/secret", []byte("x"), own()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing through a link to the host's directory: %v", err)
	}
	if got := read(t, filepath.Join(outer, "secret")); got != "outside" {
		t.Errorf("the file outside is %q", got)
	}
	if got := read(t, filepath.Join(dir, "secret")); got != "changed" {
		t.Errorf("the file inside is %q", got)
	}
	if got, err := r.Readlink("/etc/above"); got != "../../../../secret" || err != nil {
		t.Errorf("Readlink: %q, %v", got, err)
	}
}

// own is for files that a test writes without being root.
func own() Attributes {
	return Attributes{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func TestWhatIsNotAFileIsNotRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	must(t, os.Truncate(create(t, filepath.Join(dir, "large")), MaxFile+1))
	r := openRoot(t, dir)
	for name, want := range map[string]error{"directory": unix.EISDIR, "pipe": unix.EINVAL, "large": unix.EFBIG, "missing": fs.ErrNotExist, "/": unix.EISDIR} {
		_, err := r.ReadFile(name)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if path := filepath.Join(dir, name); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error %v does not name %s", name, err, path)
		}
	}
	if _, err := r.ReadDir("pipe"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("listing a pipe: %v", err)
	}
}

func create(t *testing.T, name string) string {
	t.Helper()
	write(t, name, "")
	return name
}

func TestInfo(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "12345")
	must(t, os.Chmod(filepath.Join(dir, "file"), 0o640|fs.ModeSetgid))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "directory"), 0o777|fs.ModeSticky))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	r := openRoot(t, dir)
	for name, want := range map[string]fs.FileMode{
		"file": 0o640 | fs.ModeSetgid, "link": 0o777 | fs.ModeSymlink, "dangling": 0o777 | fs.ModeSymlink,
		"directory": 0o777 | fs.ModeSticky | fs.ModeDir, "pipe": 0o600 | fs.ModeIrregular,
	} {
		if info, err := r.Lstat(name); err != nil || info.Mode != want {
			t.Errorf("%s: %s, %v; want %s", name, info.Mode, err, want)
		}
	}
	if info, err := r.Stat("link"); err != nil || !info.IsRegular() || info.Size != 5 || int(info.UID) != os.Geteuid() {
		t.Errorf("what the link leads to: %+v, %v", info, err)
	}
	if _, err := r.Stat("dangling"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the dangling link leads to: %v", err)
	}
	if info, err := r.Lstat("/"); err != nil || !info.IsDir() {
		t.Errorf("the root: %+v, %v", info, err)
	}
	if r.IsHost() || !openRoot(t, "/").IsHost() {
		t.Error("IsHost takes a tree for the host, or the host for a tree")
	}
	if got := r.Path("/../etc/x"); got != filepath.Join(dir, "etc/x") {
		t.Errorf("Path: %s", got)
	}
	entries, err := r.ReadDir("/")
	if err != nil || len(entries) != 5 || entries[0].Name() != "dangling" || entries[4].Name() != "pipe" {
		t.Errorf("ReadDir: %v, %v", entries, err)
	}
}

func TestLabel(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	write(t, filepath.Join(dir, "other"), "")
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	setLabelOf(t, filepath.Join(dir, "file"), etcLabel)
	setLabelOf(t, filepath.Join(dir, "link"), policyLabel)
	r := openRoot(t, dir)
	for name, want := range map[string]string{"file": etcLabel, "link": policyLabel} {
		if got, err := r.Label(name); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := r.Label("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestDisk(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	dir := smallDisk(t)
	r := openRoot(t, dir)
	if free, err := r.Free("/"); err != nil || free == 0 || free > 256<<10 {
		t.Errorf("free: %d, %v", free, err)
	}
	if inodes, err := r.FreeInodes("/"); err != nil || inodes == 0 {
		t.Errorf("free inodes: %d, %v", inodes, err)
	}
}

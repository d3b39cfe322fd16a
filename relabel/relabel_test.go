package relabel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	wanted = "system_u:object_r:container_file_t:s0:c10,c20"
	other  = "system_u:object_r:etc_t:s0"
)

// needRoot skips on a laptop; in CI it fails.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("labels and mounts need root")
	}
	t.Skip("labels and mounts need root")
}

// needTool skips where a program is missing; in CI it fails.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// filesystem mounts one of its own kind.
func filesystem(t *testing.T, kind string, options ...string) string {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if kind == "tmpfs" {
		mountOf(t, append([]string{"-t", "tmpfs", "tmpfs", dir}, options...)...)
		return dir
	}
	size, opts := "400M", []string{}
	for _, o := range options {
		if s, found := strings.CutPrefix(o, "size="); found {
			size = s
		} else {
			opts = append(opts, o)
		}
	}
	needTool(t, "mkfs."+kind)
	image := dir + ".img"
	command(t, "truncate", "-s", size, image)
	command(t, "mkfs."+kind, append(append([]string{"-q"}, opts...), image)...)
	mountOf(t, "-o", "loop", image, dir)
	return dir
}

func mountOf(t *testing.T, args ...string) {
	t.Helper()
	command(t, "mount", args...)
	dir := args[len(args)-1]
	if args[0] == "-t" && args[1] == "tmpfs" {
		dir = args[3]
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
}

func open(t *testing.T, dir string) *Target {
	t.Helper()
	target, err := Open(dir, Volume)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

func run2(t *testing.T, dir string, o Options) Result {
	t.Helper()
	if o.Labels == nil {
		o.Labels = Fixed(wanted)
	}
	result, err := open(t, dir).Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	adds(t, result)
	return result
}

// adds makes sure that the counts add up.
func adds(t *testing.T, r Result) {
	t.Helper()
	sum := r.Already + r.Set + r.Vanished + r.Resumed + r.FailedCount()
	for _, n := range r.Skipped {
		sum += n
	}
	if sum != r.Seen {
		t.Errorf("the counts do not add up: %+v", r)
	}
}

// grow makes a tree and gives the number of its entries, the root included.
func growTree(t *testing.T, dir string) int64 {
	t.Helper()
	n := int64(1)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	for i := range 20 {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i))
		do(os.Mkdir(d, 0o700))
		for j := range 30 {
			do(os.WriteFile(filepath.Join(d, fmt.Sprintf("f%d", j)), nil, 0o600))
		}
		s := filepath.Join(d, "sub")
		do(os.Mkdir(s, 0o700))
		do(os.Symlink("/etc/passwd", filepath.Join(s, "link")))
		do(unix.Mkfifo(filepath.Join(s, "fifo"), 0o600))
		do(unix.Mknod(filepath.Join(s, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		do(os.WriteFile(filepath.Join(s, "\xff\xfe\n"), nil, 0o600))
	}
	return n
}

// labels reads every label below a directory with getfattr, which knows nothing of this package.
func labels(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	needTool(t, "getfattr")
	// -h: links themselves; it prints nothing for what has no such attribute.
	out := command(t, "sh", "-c", `find "$1" -xdev -print0 | xargs -0 getfattr -h -n security.selinux --only-values --absolute-names 2>/dev/null | tr '\0' '\n'; true`, "-", dir)
	found := map[string]int64{}
	for line := range strings.Lines(out) {
		found[strings.TrimSuffix(line, "\n")]++
	}
	return found
}

// Proves P5: getfattr finds what the counts say.
func TestTree(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := filesystem(t, kind)
			n := growTree(t, dir)
			if kind == "ext4" {
				n++ // lost+found
			}
			first := run2(t, dir, Options{})
			if first.Set != n || first.Seen != n || !first.RootLabelled || !first.WholeFilesystem {
				t.Errorf("first: %+v, want %d set", first, n)
			}
			if found := labels(t, dir); found[wanted] != n || len(found) != 1 {
				t.Errorf("getfattr: %v, want %d", found, n)
			}
			again := run2(t, dir, Options{})
			if again.Already != n || again.Set != 0 {
				t.Errorf("again: %+v, want %d already", again, n)
			}
			dry := run2(t, dir, Options{Labels: Fixed(other), DryRun: true})
			if dry.Set != n {
				t.Errorf("dry: %+v, want %d", dry, n)
			}
			second := run2(t, dir, Options{Labels: Fixed(other), Verify: true})
			if second.Set != n {
				t.Errorf("second: %+v, want %d", second, n)
			}
			if found := labels(t, dir); found[other] != n || len(found) != 1 {
				t.Errorf("getfattr: %v, want %d", found, n)
			}
		})
	}
}

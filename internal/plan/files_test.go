package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

func tree(t *testing.T) (*hostfs.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := hostfs.Open(dir)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// describe tells all that has to be back after an undo.
func describe(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	must(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%s %d:%d", info.Mode(), owner.Uid, owner.Gid)
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(name)
		must(t, err)
		return text + " -> " + target
	}
	content, err := os.ReadFile(name)
	must(t, err)
	label := make([]byte, 256)
	n, err := unix.Lgetxattr(name, "security.selinux", label)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		n, err = 0, nil
	}
	must(t, err)
	return text + fmt.Sprintf(" %q %q", label[:n], content)
}

func own() hostfs.Attributes {
	return hostfs.Attributes{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func TestFilesAreUndone(t *testing.T) {
	before := map[string]func(t *testing.T, name string){
		"nothing":         func(*testing.T, string) {},
		"a link":          func(t *testing.T, name string) { t.Helper(); must(t, os.Symlink("other", name)) },
		"a dangling link": func(t *testing.T, name string) { t.Helper(); must(t, os.Symlink("../../nowhere", name)) },
		"an empty file":   func(t *testing.T, name string) { t.Helper(); must(t, os.WriteFile(name, nil, 0o600)) },
		"a file": func(t *testing.T, name string) {
			t.Helper()
			must(t, os.WriteFile(name, []byte("old\x00content"), 0o640))
			if os.Geteuid() != 0 {
				return
			}
			must(t, os.Chown(name, 7, 8))
			must(t, os.Chmod(name, 0o640|fs.ModeSetgid))
			if err := unix.Lsetxattr(name, "security.selinux", []byte("system_u:object_r:selinux_config_t:s0\x00"), 0); !errors.Is(err, unix.ENOTSUP) {
				must(t, err)
			}
		},
	}
	steps := map[string]struct {
		step func(*hostfs.Root) Step
		want string // contained in what is there after the step
	}{
		"write": {func(r *hostfs.Root) Step { return Write(r, "/etc/name", []byte("new"), own(), "why") }, `"new"`},
		"write, keep": {func(r *hostfs.Root) Step {
			a := own()
			a.Keep = true
			return Write(r, "/etc/name", []byte("new"), a, "why")
		}, `"new"`},
		"link":         {func(r *hostfs.Root) Step { return Link(r, "../target", "/etc/name", "why") }, "-> ../target"},
		"remove":       {func(r *hostfs.Root) Step { return Remove(r, "/etc/name", "why") }, "nothing"},
		"same content": {func(r *hostfs.Root) Step { return Write(r, "/etc/name", []byte("old\x00content"), own(), "why") }, `"old\x00content"`},
	}
	for what, prepare := range before {
		for action, c := range steps {
			t.Run(what+"/"+action, func(t *testing.T) {
				root, dir := tree(t)
				must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
				must(t, os.WriteFile(filepath.Join(dir, "etc/other"), []byte("other"), 0o600))
				name := filepath.Join(dir, "etc/name")
				prepare(t, name)
				old, other := describe(t, name), describe(t, filepath.Join(dir, "etc/other"))

				step := c.step(root)
				if got := describe(t, name); got != old {
					t.Fatalf("making the plan changed %s to %s", old, got)
				}
				result, err := step.Do(t.Context())
				if err != nil || result == "" {
					t.Fatalf("%q, %v", result, err)
				}
				if got := describe(t, name); !strings.Contains(got, c.want) {
					t.Errorf("after the step there is %s, want %s", got, c.want)
				}
				must(t, step.Undo(t.Context()))
				if got := describe(t, name); got != old {
					t.Errorf("after the undo there is %s, want %s", got, old)
				}
				if got := describe(t, filepath.Join(dir, "etc/other")); got != other {
					t.Errorf("the target of the link became %s", got)
				}
			})
		}
	}
}

// What was there is looked at when the step is done, since a step before it may have changed it.
func TestUndoRestoresWhatTheStepFound(t *testing.T) {
	root, dir := tree(t)
	must(t, os.WriteFile(filepath.Join(dir, "name"), []byte("first"), 0o600))
	p := Plan{
		Write(root, "/name", []byte("second"), own(), ""),
		Link(root, "target", "/name", ""),
		Remove(root, "/name", ""),
		{Do: func(context.Context) (string, error) { return "", errors.New("enough") }},
	}
	if _, err := p.Do(t.Context(), nil, nil); err == nil || err.Error() != "enough" {
		t.Errorf("the error is %v", err)
	}
	if got := describe(t, filepath.Join(dir, "name")); !strings.Contains(got, "-rw------- ") || !strings.Contains(got, `"first"`) {
		t.Errorf("there is %s", got)
	}
}

func TestFilesThatCannotBeReplaced(t *testing.T) {
	root, dir := tree(t)
	must(t, os.MkdirAll(filepath.Join(dir, "directory"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for name, reason := range map[string]string{
		"directory":    "it is neither a file nor a link: move it away",
		"pipe":         "it is neither a file nor a link: move it away",
		"missing/name": "no such file or directory",
		"file/name":    "not a directory",
	} {
		for action, step := range map[string]Step{"write": Write(root, name, nil, own(), ""), "link": Link(root, "x", name, ""), "remove": Remove(root, name, "")} {
			if action == "remove" && name == "missing/name" {
				continue // nothing to remove is not an error
			}
			_, err := step.Do(t.Context())
			want := "cannot " + action + " " + filepath.Join(dir, name) + ": "
			if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), reason) || strings.Count(err.Error(), filepath.Join(dir, name)) > 1 {
				t.Errorf("the error is %v; want %s ... %s", err, want, reason)
			}
			if err := step.Undo(t.Context()); err != nil {
				t.Errorf("undo of what was not done: %v", err)
			}
		}
	}
	info, err := os.Lstat(filepath.Join(dir, "pipe"))
	if entries, _ := os.ReadDir(dir); len(entries) != 3 || err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		t.Errorf("there is %v", entries)
	}
}

func TestUndoThatCannotPutBack(t *testing.T) {
	root, dir := tree(t)
	must(t, os.WriteFile(filepath.Join(dir, "name"), []byte("old"), 0o600))
	step := Remove(root, "/name", "")
	_, err := step.Do(t.Context())
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "name"), 0o755)) // somebody else is at work
	want := "cannot put back what was at " + filepath.Join(dir, "name") + ": is a directory"
	if err := step.Undo(t.Context()); err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

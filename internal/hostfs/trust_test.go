package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is obeyed is root's or the caller's own all the way, and nobody else may write it.
func TestTrusted(t *testing.T) {
	dir := t.TempDir()
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const other = 12345
	plant := func(name string, mode os.FileMode, uid, gid int) {
		t.Helper()
		at := filepath.Join(dir, name)
		switch {
		case strings.HasSuffix(name, "/"):
			must(os.MkdirAll(at, 0o755))
		default:
			must(os.MkdirAll(filepath.Dir(at), 0o755))
			must(os.WriteFile(at, []byte("version: 1\n"), 0o644))
		}
		if uid != 0 || gid != 0 {
			if os.Geteuid() != 0 {
				return
			}
			must(os.Lchown(at, uid, gid))
		}
		must(os.Chmod(at, mode))
	}
	link := func(target, name string) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(os.Symlink(target, filepath.Join(dir, name)))
	}
	plant("good/config", 0o644, 0, 0)
	plant("private/", 0o700, 0, 0)
	plant("private/config", 0o600, 0, 0)
	plant("all/config", 0o666, 0, 0)
	plant("rootgroup/config", 0o664, 0, 0)
	plant("open/config", 0o644, 0, 0)
	plant("open/", 0o777, 0, 0)
	plant("tmp/config", 0o644, 0, 0)
	plant("tmp/all", 0o646, 0, 0)
	plant("tmp/", 0o777|os.ModeSticky, 0, 0)
	plant("deep/open/below/config", 0o644, 0, 0)
	plant("deep/open/", 0o757, 0, 0)
	link("/good/config", "links/absolute")
	link("../good/config", "links/relative")
	link("../open/config", "links/open")
	link("/good", "links/dir")
	link("../open/hop", "links/hops")
	link("../good/config", "open/hop")
	link("nowhere", "links/dangling")
	link("circle", "links/circle")
	for name, want := range map[string]string{
		"/good/config": "", "/private/config": "", "/rootgroup/config": "", "/tmp/config": "", "/links/absolute": "", "/links/relative": "", "/links/dir/config": "",
		"/all/config": "ROOT/all/config is a file that everybody may write", "/open/config": "ROOT/open is a directory that everybody may write",
		"/tmp/all": "ROOT/tmp/all is a file that everybody may write", "/deep/open/below/config": "ROOT/deep/open is a directory that everybody may write",
		"/links/open": "ROOT/open is a directory that everybody may write", "/links/hops": "ROOT/open is a directory that everybody may write",
		"/links/dangling": "-", "/links/circle": "-", "/missing": "-",
	} {
		err := root.Trusted(name)
		var untrusted *UntrustedError
		got := ""
		switch {
		case errors.As(err, &untrusted):
			got = strings.ReplaceAll(err.Error(), dir, "ROOT")
			if !strings.HasPrefix(untrusted.Remedy(), "run: ch") {
				t.Errorf("%s: remedy %q", name, untrusted.Remedy())
			}
		case err != nil:
			got = "-"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if content, err := root.ReadTrusted(name); (err == nil) != (want == "") || want == "" && len(content) == 0 {
			t.Errorf("reading %s: %q, %v", name, content, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: no file of another user can be made")
	}
	plant("theirs/config", 0o644, other, other)
	plant("group/config", 0o664, 0, other)
	plant("home/config", 0o644, 0, 0)
	plant("home/", 0o755, other, other)
	link("/good/config", "mine")
	must(os.Lchown(filepath.Join(dir, "mine"), other, other))
	for name, want := range map[string]string{
		"/theirs/config": "ROOT/theirs/config belongs to user 12345, who can put anything there", "/group/config": "ROOT/group/config is a file that group 12345 may write",
		"/home/config": "ROOT/home belongs to user 12345, who can put anything there", "/mine": "ROOT/mine belongs to user 12345, who can put anything there",
	} {
		if err := root.Trusted(name); err == nil || strings.ReplaceAll(err.Error(), dir, "ROOT") != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

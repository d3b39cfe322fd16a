package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// TestExport follows what the output says: the configuration is copied into place, applied, and nothing is left to export.
func TestExport(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	on := func(args ...string) answer { return call(t, append([]string{"--root", tree.Dir}, args...)...) }
	if got := on("apply"); got.code != exitDone {
		t.Fatal(got)
	}
	site := filepath.Join(t.TempDir(), "site")
	if got := on("status", "--export", site); got.code != exitDone || !strings.Contains(got.stdout, "Nothing that a configuration can say") {
		t.Errorf("a host without work by hand: %+v", got)
	}
	if _, err := os.Stat(site); !os.IsNotExist(err) {
		t.Errorf("a directory was made for nothing: %v", err)
	}

	const alpha = "(type alpha_t)\n(roletype object_r alpha_t)\n"
	tree.Semodule(tree.Dir, 400, map[string]string{"alpha": alpha})
	if got := on("status", "--export", site); got.code != exitDone {
		t.Errorf("a module by hand: %+v", got)
	} else {
		reads(t, "a module by hand", got.stdout, filepath.Join(site, handmadeFile), filepath.Join(site, "modules/alpha.cil"),
			"cp -r "+site+"/. /etc/selinux-provision/", "selinux-provision apply")
	}
	if got, err := os.ReadFile(filepath.Join(site, "modules/alpha.cil")); string(got) != alpha || err != nil {
		t.Errorf("the module: %q, %v", got, err)
	}
	if got := on("status", "--export", site); got.code != exitUsage || !strings.Contains(got.stderr, "it is not empty: name a new directory") {
		t.Errorf("into a directory with files: %+v", got)
	}

	tree.Write("var/lib/selinux/mcs/active/ports.local", "# made by libsemanage\nportcon tcp 8888 system_u:object_r:etc_t:s0\n")
	second := filepath.Join(t.TempDir(), "second")
	got := on("--json", "status", "--export", second)
	var r struct{ Files, Other []string }
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil {
		t.Fatal(err)
	}
	if got.code != exitPartly || !slices.Equal(r.Files, []string{handmadeFile, "modules/alpha.cil"}) || len(r.Other) != 1 || !strings.Contains(r.Other[0], "portcon tcp 8888") {
		t.Errorf("what cannot be declared: %+v", got)
	}
	if got := on("status", "--export", filepath.Join(t.TempDir(), "third")); got.code != exitPartly || !strings.Contains(got.stdout, "No configuration can say this") {
		t.Errorf("what cannot be declared: %+v", got)
	}

	if err := os.CopyFS(filepath.Join(tree.Dir, "etc/selinux-provision"), os.DirFS(site)); err != nil {
		t.Fatal(err)
	}
	if got := on("apply"); got.code != exitDone {
		t.Errorf("apply: %+v", got)
	}
	if got := on("status"); got.code != exitDone {
		t.Errorf("status: %+v", got)
	}
}

// An export that fails leaves nothing, and says so once.
func TestExportFails(t *testing.T) {
	dir := t.TempDir()
	names := []string{handmadeFile, "modules/" + strings.Repeat("n", 300) + ".cil"} // longer than a file system takes
	to := filepath.Join(dir, "above/new")
	for _, there := range []bool{false, true} {
		if there {
			if err := os.MkdirAll(to, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := writeSite(to, names, [][]byte{nil, nil})
		if err == nil || strings.Count(err.Error(), "cannot write what was changed by hand") != 1 {
			t.Errorf("there before: %v: %v", there, err)
		}
		if _, aerr := os.Stat(filepath.Dir(to)); there != (aerr == nil) {
			t.Errorf("there before: %v: the directory above: %v", there, aerr)
		}
		if left, lerr := os.ReadDir(to); len(left) > 0 || there != (lerr == nil) {
			t.Errorf("there before: %v: it left %v, %v", there, left, lerr)
		}
	}
	if err := writeSite(filepath.Join(dir, "file/x"), nil, nil); err != nil {
		t.Errorf("nothing to write: %v", err)
	}
}

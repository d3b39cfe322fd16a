// Package policytest builds a small binary policy with containers in it, for tests of what reads policies. The real semodule builds it.
package policytest

import (
	_ "embed"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

//go:embed containers.cil
var containers string

// Build gives the file of a policy: the base of package flatcartest, containers.cil, and more modules.
func Build(t testing.TB, modules map[string]string) string {
	t.Helper()
	tree := flatcartest.New(t, flatcartest.Today)
	AddTo(t, tree, modules)
	return File(t, tree)
}

// BuildBase gives the file of a policy with this base module in place of package flatcartest's, and no containers.cil.
func BuildBase(t testing.TB, base string) string {
	t.Helper()
	tree := flatcartest.New(t, flatcartest.Today)
	install(t, tree, map[string]string{"base": base})
	return File(t, tree)
}

// AddTo installs containers.cil, and more modules, in the store of a tree, which becomes a writable one.
func AddTo(t testing.TB, tree *flatcartest.Tree, modules map[string]string) {
	t.Helper()
	all := map[string]string{"containers": containers}
	maps.Copy(all, modules)
	install(t, tree, all)
}

func install(t testing.TB, tree *flatcartest.Tree, modules map[string]string) {
	t.Helper()
	store := filepath.Join(tree.Dir, "var/lib/selinux")
	info, err := os.Lstat(store)
	if link := err == nil && info.Mode()&os.ModeSymlink != 0; link || errors.Is(err, fs.ErrNotExist) {
		if link {
			if err := os.Remove(store); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(store, os.DirFS(filepath.Join(tree.Dir, "usr/lib/selinux/policy"))); err != nil {
			t.Fatal(err)
		}
	}
	tree.Semodule(tree.Dir, 400, modules)
}

// File gives the file of the policy that a tree would load.
func File(t testing.TB, tree *flatcartest.Tree) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(tree.Dir, "etc/selinux", tree.Layout.Type(), "policy/policy.*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("policies: %q, %v", strings.Join(found, " "), err)
	}
	return found[0]
}

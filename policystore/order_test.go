package policystore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// TestOrderOfFileContexts sorts as the real compiler does.
func TestOrderOfFileContexts(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	dir := filepath.Join(t.TempDir(), "host")
	if err := os.CopyFS(filepath.Join(dir, "var/lib/selinux"), os.DirFS(filepath.Join(tree.Dir, "usr/lib/selinux/policy"))); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "etc/selinux"), os.DirFS(filepath.Join(tree.Dir, "etc/selinux"))); err != nil {
		t.Fatal(err)
	}
	var contexts []FileContext
	module := ""
	for i, path := range []string{"/srv/a/b(/.*)?", "/srv/a(/.*)?", "/srv/a", "/srv/[ab]/b", `/srv/a\.b/c`, `/srv/a\.b(/.*)?`, "/srv/.*", "/srv/zz", "/srv/zy", "/srv/a+", "/srv/a{2}", "/srv/x|y", "/.*", "/srv/c/b(/.*)?", "/srv/d", `/srv/a\.c(/.*)?`} {
		for _, kind := range []string{"any", "dir", "file", "symlink", "pipe", "socket", "block", "char"} {
			if (kind == "any") != (i%3 == 0) { // not both: setfiles refuses that
				fc := FileContext{Path: path, Type: kind, Context: "system_u:object_r:etc_t:s0"}
				contexts = append(contexts, fc)
				module += filecon(fc)
			}
		}
	}
	tree.Semodule(dir, 400, map[string]string{"order": module})
	content, err := os.ReadFile(filepath.Join(dir, "var/lib/selinux/mcs/active/file_contexts"))
	if err != nil {
		t.Fatal(err)
	}
	_, built, err := contextsOf("file_contexts", content)
	if err != nil {
		t.Fatal(err)
	}
	built = slices.DeleteFunc(built, func(fc FileContext) bool { return !slices.Contains(contexts, fc) })
	slices.SortStableFunc(contexts, compareContexts)
	if got, want := fmt.Sprint(contexts), fmt.Sprint(built); got != want {
		t.Errorf("sorted as\n%s\nthe compiler has\n%s", strings.ReplaceAll(got, "} ", "}\n"), strings.ReplaceAll(want, "} ", "}\n"))
	}
}

// TestDeclaredOtherwise names the lines of file_contexts.local that do not say the same as a declaration.
func TestDeclaredOtherwise(t *testing.T) {
	const etc, container = " system_u:object_r:etc_t:s0\n", " system_u:object_r:container_file_t:s0\n"
	for _, c := range []struct{ what, built, local, want string }{
		{"the longer one first", "", "/srv/a/b(/.*)?" + etc + "/srv/a(/.*)?" + container, "/srv/a/b/"},
		{"the longer one last", "", "/srv/a(/.*)?" + container + "/srv/a/b(/.*)?" + etc, ""},
		{"for others", "", "/srv/a/b(/.*)?" + etc + "/srv/c(/.*)?" + container, ""},
		{"the same context", "", "/srv/a/b(/.*)?" + etc + "/srv/a(/.*)?" + etc, ""},
		{"a longer one of the policy's", "/srv/a/b(/.*)?" + etc, "/srv/a(/.*)?" + container, ""},
		{"a longer beginning in the policy", "/srv/a/b/.*" + etc, "/srv/.*/b/.*" + container, ""},
		{"a path that the policy has", "/srv/a(/.*)?" + etc, "/srv/.*" + container, ""},
		{"shadowed by the policy", "/opt/cni/bin" + etc, "/opt/cni/bi." + container, ""},
	} {
		_, theirs, err := contextsOf("file_contexts.local", []byte(c.local))
		if err != nil {
			t.Fatal(err)
		}
		said, err := otherwise([]byte(c.built), []byte(c.local), theirs)
		if err != nil || (len(said) > 0) != (c.want != "") || c.want != "" && !strings.Contains(said[0], c.want) {
			t.Errorf("%s: %q, %v", c.what, said, err)
		}
	}
}

// Package flatcartest makes small trees that have the shape of a Flatcar host, for tests: the layouts of its release lines and of a sibling, with a
// real module store that the real semodule built from a policy of one page. A tree is for --root: no kernel looks at it.
//
// It is not a substitute for the VM tests: there is no overlay, no PID 1 and no kernel policy here.
package flatcartest

import (
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
)

//go:embed base.cil
var base string

//go:embed strict.cil
var strict string

// Layout is the shape of /etc/selinux and of /usr/lib/selinux in a release line.
type Layout string

// The layouts.
const (
	LTS2023    Layout = "LTS-2023"    // 3510: links made by tmpfiles on a plain /etc
	SymlinkEra Layout = "symlink era" // 3535 to 3732: the same links from the overlay's lower layer
	Today      Layout = "today"       // since 3745: regular files, compatibility links below /usr
	// Sibling is Azure Container Linux, with a module store in its image: another lower layer of /etc and another type, enforcing, no copy of
	// the policy and no links below /usr/lib/selinux, nothing in /var/lib/selinux, no audit rules.
	Sibling Layout = "sibling"
)

// Layouts lists Flatcar's layouts.
func Layouts() []Layout { return []Layout{LTS2023, SymlinkEra, Today} }

// All lists the layouts on which the stages work.
func All() []Layout { return append(Layouts(), Sibling) }

// Type is the type of the vendor's policy.
func (l Layout) Type() string {
	if l == Sibling {
		return "targeted"
	}
	return "mcs"
}

// LowerEtc is where the image has the lower layer of /etc, beneath the root.
func (l Layout) LowerEtc() string {
	if l == Sibling {
		return "usr/share/distro/etc"
	}
	return "usr/share/flatcar/etc"
}

// VendorEtc is where the image has what belongs in /etc/selinux, beneath the root.
func (l Layout) VendorEtc() string {
	if l == Sibling {
		return l.LowerEtc() + "/selinux"
	}
	return "usr/lib/selinux"
}

// Rules are the vendor's audit rule files.
func Rules() map[string]string {
	return map[string]string{
		"00-clear.rules":   "## First rule - delete all\n-D\n",
		"80-selinux.rules": "## Allow SELinux messages\n-a never,exclude -F msgtype>=1400 -F msgtype<=1499\n",
		"99-default.rules": "-a exclude,always -F msgtype=CONFIG_CHANGE\n-a exclude,always -F msgtype>0\n",
	}
}

// Tree is a made tree.
type Tree struct {
	t      testing.TB
	Dir    string
	Layout Layout
	Tools  command.Tools // that build its policies
	strict bool          // the vendor's neverallow rules are checked
}

// New makes a fresh host of a layout, of the first OS generation.
func New(t testing.TB, layout Layout) *Tree {
	t.Helper()
	return newTree(t, directory(t), layout, command.Tools{}, false)
}

// NewAt is New in a directory that is there, with the tools of another OS image.
func NewAt(t testing.TB, dir string, layout Layout, tools command.Tools) *Tree {
	t.Helper()
	return newTree(t, dir, layout, tools, false)
}

// NewStrict makes a fresh host whose policy is checked against its neverallow rules at each build, as Flatcar's own is: nobody may signal
// what is no domain.
func NewStrict(t testing.TB, layout Layout) *Tree {
	t.Helper()
	return newTree(t, directory(t), layout, command.Tools{}, true)
}

func newTree(t testing.TB, dir string, layout Layout, tools command.Tools, strict bool) *Tree {
	t.Helper()
	if _, err := (command.Tools{}).Run(context.Background(), "semodule", "--help"); errors.Is(err, command.ErrMissing) {
		if os.Getenv("CI") == "true" {
			t.Fatal("semodule is missing: install policycoreutils")
		}
		t.Skip("semodule is missing: install policycoreutils")
	}
	tree := &Tree{t: t, Dir: dir, Layout: layout, Tools: tools, strict: strict}
	tree.Image(1)
	tree.fresh()
	return tree
}

// Empty makes a tree with nothing in it, for a copy of another one.
func Empty(t testing.TB) *Tree {
	t.Helper()
	return &Tree{t: t, Dir: directory(t)}
}

// directory makes the directory of a tree, in memory where there is room: a tree is small, and whatever the stages flush would wait for the disk.
func directory(t testing.TB) string {
	t.Helper()
	const memory, tmpfs, room = "/dev/shm", 0x01021994, 1 << 30
	var there syscall.Statfs_t
	if syscall.Statfs(memory, &there) != nil || there.Type != tmpfs || there.Bavail*uint64(there.Bsize) < room {
		return t.TempDir()
	}
	made, err := os.MkdirTemp(memory, "flatcartest-") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir() // somebody else's
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(made); err != nil {
			t.Errorf("cannot remove a tree: %v", err)
		}
	})
	dir := filepath.Join(made, "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (tree *Tree) path(name string) string { return filepath.Join(tree.Dir, name) }

// Write writes a file, its directories included.
func (tree *Tree) Write(name, content string) {
	tree.t.Helper()
	tree.must(os.MkdirAll(filepath.Dir(tree.path(name)), 0o755))
	tree.must(os.WriteFile(tree.path(name), []byte(content), 0o644))
}

// Link makes a symbolic link in place of whatever is there.
func (tree *Tree) Link(target, name string) {
	tree.t.Helper()
	tree.must(os.MkdirAll(filepath.Dir(tree.path(name)), 0o755))
	tree.must(os.RemoveAll(tree.path(name)))
	tree.must(os.Symlink(target, tree.path(name)))
}

func (tree *Tree) must(err error) {
	tree.t.Helper()
	if err != nil {
		tree.t.Fatal(err)
	}
}

// Image puts the /usr of an OS generation in place, 1 or 2, as an update or a rollback does. The second has another base policy and
// a module modern; the first has a module legacy.
func (tree *Tree) Image(generation int) {
	tree.t.Helper()
	typ, mode := tree.Layout.Type(), "permissive"
	if tree.Layout == Sibling {
		mode = "enforcing"
	}
	defer tree.merge(tree.path(tree.Layout.LowerEtc()))()
	tree.must(os.RemoveAll(tree.path("usr")))
	build := tree.t.TempDir()
	for name, content := range map[string]string{
		"etc/selinux/config":                                  "# The vendor's comment.\nSELINUX=" + mode + "\n\nSELINUXTYPE=" + typ + "\n",
		"etc/selinux/semanage.conf":                           "module-store = direct\nexpand-check=" + map[bool]string{false: "0", true: "1"}[tree.strict] + "\n",
		"etc/selinux/" + typ + "/contexts/lxc_contexts":       "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n",
		"etc/selinux/" + typ + "/contexts/customizable_types": map[int]string{1: "textrel_shlib_t\n", 2: "textrel_shlib_t\nhome_bin_t\n"}[generation],
	} {
		tree.must(os.MkdirAll(filepath.Dir(filepath.Join(build, name)), 0o755))
		tree.must(os.WriteFile(filepath.Join(build, name), []byte(content), 0o644))
	}
	for _, dir := range []string{"etc/selinux/" + typ + "/policy", "etc/selinux/" + typ + "/contexts/files", "var/lib/selinux"} {
		tree.must(os.MkdirAll(filepath.Join(build, dir), 0o755))
	}
	modules := map[string]string{"base": base}
	if tree.strict {
		modules["base"] += strict
	}
	if generation == 1 {
		modules["legacy"] = "(type legacy_t)\n(roletype object_r legacy_t)\n"
	} else {
		modules["base"] += "(type second_t)\n(allow kernel_t second_t (file (read)))\n"
		modules["modern"] = "(type modern_t)\n(roletype object_r modern_t)\n"
	}
	tree.Semodule(build, 100, modules)

	store, etc := filepath.Join(build, "var/lib/selinux"), filepath.Join(build, "etc/selinux")
	tree.must(os.MkdirAll(tree.path("usr/lib/selinux"), 0o755))
	tree.must(os.CopyFS(tree.path("usr/lib/selinux/policy"), os.DirFS(store)))
	if tree.Layout == Sibling {
		tree.must(os.CopyFS(tree.path(tree.Layout.VendorEtc()), os.DirFS(etc)))
		return
	}
	tree.Write("usr/lib/tmpfiles.d/selinux.conf", "L /var/lib/selinux - - - - ../../usr/lib/selinux/policy\n")
	for name, rules := range Rules() {
		tree.Write("usr/share/audit/rules.d/"+name, rules)
	}
	switch tree.Layout {
	case Today:
		tree.must(os.MkdirAll(tree.path("usr/share/flatcar/etc"), 0o755))
		tree.must(os.CopyFS(tree.path("usr/share/flatcar/etc/selinux"), os.DirFS(etc)))
		for name, rules := range Rules() {
			tree.Write("usr/share/flatcar/etc/audit/rules.d/"+name, rules)
		}
		for _, name := range []string{"config", "mcs", "semanage.conf"} {
			tree.Link("../../share/flatcar/etc/selinux/"+name, "usr/lib/selinux/"+name)
		}
	default:
		tree.must(os.CopyFS(tree.path("usr/lib/selinux"), os.DirFS(etc)))
		lines := ""
		for _, name := range []string{"config", "mcs", "semanage.conf"} {
			lines += "L /etc/selinux/" + name + " - - - - ../../usr/lib/selinux/" + name + "\n"
		}
		for _, name := range slices.Sorted(maps.Keys(Rules())) {
			lines += "L /etc/audit/rules.d/" + name + " - - - - /usr/share/audit/rules.d/" + name + "\n"
		}
		if tree.Layout == LTS2023 {
			tree.Write("usr/lib/tmpfiles.d/etc.conf", lines)
			break
		}
		for _, name := range []string{"config", "mcs", "semanage.conf"} {
			tree.Link("../../usr/lib/selinux/"+name, "usr/share/flatcar/etc/selinux/"+name)
		}
		for name := range Rules() {
			tree.Link("/usr/share/audit/rules.d/"+name, "usr/share/flatcar/etc/audit/rules.d/"+name)
		}
	}
}

// merge does to /etc what the overlay and the initrd's clean-up of its upper layer do at an update: a file that equals the old
// lower layer's becomes the new one's, a missing one appears. It is to be called with the old lower layer, what it gives with the new.
func (tree *Tree) merge(lower string) func() {
	tree.t.Helper()
	type entry struct {
		mode    fs.FileMode
		content string // or the link's target
	}
	read := func(name string) (entry, bool) {
		info, err := os.Lstat(name)
		if err != nil || info.IsDir() {
			return entry{}, false
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			tree.must(err)
			return entry{info.Mode(), target}, true
		}
		content, err := os.ReadFile(name)
		tree.must(err)
		return entry{info.Mode(), string(content)}, true
	}
	layer := func() map[string]entry {
		all := map[string]entry{}
		err := filepath.WalkDir(lower, func(path string, d fs.DirEntry, err error) error {
			if e, ok := read(path); err == nil && ok {
				all[strings.TrimPrefix(path, lower)] = e
			}
			return nil
		})
		tree.must(err)
		return all
	}
	before := layer()
	return func() {
		tree.t.Helper()
		for name, old := range before {
			if have, ok := read(tree.path("etc" + name)); ok && have == old {
				tree.must(os.Remove(tree.path("etc" + name)))
			}
		}
		for name, e := range layer() {
			to := tree.path("etc" + name)
			if _, err := os.Lstat(to); err == nil {
				continue
			}
			if !tree.mergeable(filepath.Dir(to)) {
				continue
			}
			if e.mode&fs.ModeSymlink != 0 {
				tree.Link(e.content, "etc"+name)
				continue
			}
			tree.Write("etc"+name, e.content)
			tree.must(os.Chmod(to, e.mode.Perm()))
		}
	}
}

// mergeable tells whether a directory of the lower layer shows through: no file or link of the upper layer is in its way.
func (tree *Tree) mergeable(dir string) bool {
	for ; dir != tree.Dir; dir = filepath.Dir(dir) {
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
			return false
		}
	}
	return true
}

// fresh makes /etc and /var as they are on a host that just booted for the first time, the overlay merged.
func (tree *Tree) fresh() {
	tree.t.Helper()
	if tree.Layout == Sibling {
		tree.must(os.MkdirAll(tree.path("var/lib"), 0o755))
		return
	}
	tree.Link("../../usr/lib/selinux/policy", "var/lib/selinux")
	if tree.Layout != LTS2023 {
		return // merge made /etc
	}
	for _, name := range []string{"config", "mcs", "semanage.conf"} {
		tree.Link("../../usr/lib/selinux/"+name, "etc/selinux/"+name)
	}
	for name := range Rules() {
		tree.Link("/usr/share/audit/rules.d/"+name, "etc/audit/rules.d/"+name)
	}
}

// Semodule installs modules by hand, as an operator does, in the tree at dir.
func (tree *Tree) Semodule(dir string, priority int, modules map[string]string, more ...string) {
	tree.t.Helper()
	input := tree.t.TempDir()
	argv := append([]string{"semodule", "--noreload", "--path", dir, "--store", tree.Layout.Type()}, more...)
	argv = append(argv, "--priority", strconv.Itoa(priority))
	for name, content := range modules {
		file := filepath.Join(input, name+".cil")
		tree.must(os.WriteFile(file, []byte(content), 0o644))
		argv = append(argv, "--install", file)
	}
	if _, err := tree.Tools.Run(context.Background(), argv...); err != nil {
		var failed *command.ExitError
		if errors.As(err, &failed) {
			tree.t.Fatalf("%v\n%s", err, failed.Output.Stderr)
		}
		tree.t.Fatal(err)
	}
}

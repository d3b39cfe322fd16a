package flatcartest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// list gives each entry of a tree with its mode, and its target or content.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := info.Mode().String()
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + target
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", content)
		}
		all[strings.TrimPrefix(path, dir)] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An update and a rollback of a host on which nobody changed anything is the host as it was.
func TestUpdateAndRollback(t *testing.T) {
	for _, layout := range Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			tree := New(t, layout)
			fresh := list(t, tree.Dir)
			tree.Image(2)
			updated := list(t, tree.Dir)
			for name, want := range map[string]bool{
				"/usr/lib/selinux/policy/mcs/active/modules/100/modern/cil": true,
				"/usr/lib/selinux/policy/mcs/active/modules/100/legacy/cil": false,
			} {
				if _, ok := updated[name]; ok != want {
					t.Errorf("after the update %s is there: %t", name, ok)
				}
			}
			if types := "/usr/lib/selinux/mcs/contexts/customizable_types"; layout != Today && updated[types] == fresh[types] {
				t.Errorf("the update brought no other %s", types)
			}
			tree.Image(1)
			back := list(t, tree.Dir)
			for name := range fresh {
				if back[name] != fresh[name] {
					t.Errorf("after the rollback %s is %.60q, was %.60q", name, back[name], fresh[name])
				}
			}
			if !maps.Equal(back, fresh) && len(back) != len(fresh) {
				t.Errorf("after the rollback there are %d entries, were %d", len(back), len(fresh))
			}
		})
	}
}

// What the operator has changed in /etc stays at an update, what is the vendor's becomes the new one's.
func TestUpdateMergesEtc(t *testing.T) {
	tree := New(t, Today)
	read := func(name string) string {
		t.Helper()
		content, err := os.ReadFile(tree.path(name))
		if err != nil {
			return err.Error()
		}
		return string(content)
	}
	const types, lxc = "etc/selinux/mcs/contexts/customizable_types", "etc/selinux/mcs/contexts/lxc_contexts"
	if read(types) != read("usr/share/flatcar/etc/selinux/mcs/contexts/customizable_types") {
		t.Fatal("a fresh host has not the vendor's file")
	}
	tree.Write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=mcs\n")
	tree.Write("etc/selinux/local", "a file of the operator")
	tree.Link("/nowhere", "etc/selinux/semanage.conf")
	if err := os.Remove(tree.path(lxc)); err != nil {
		t.Fatal(err)
	}
	tree.Image(2)
	for name, want := range map[string]string{
		types:                "textrel_shlib_t\nhome_bin_t\n",
		"etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=mcs\n",
		"etc/selinux/local":  "a file of the operator",
		lxc:                  read("usr/share/flatcar/etc/selinux/mcs/contexts/lxc_contexts"),
	} {
		if got := read(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if target, err := os.Readlink(tree.path("etc/selinux/semanage.conf")); target != "/nowhere" {
		t.Errorf("the operator's link is %q, %v", target, err)
	}
}

// A link or file of the operator that stands where the vendor has a directory hides all that is in it.
func TestUpdateMergesNothingThroughALink(t *testing.T) {
	tree := New(t, Today)
	elsewhere := t.TempDir()
	if err := os.RemoveAll(tree.path("etc/selinux/mcs")); err != nil {
		t.Fatal(err)
	}
	tree.Link(elsewhere, "etc/selinux/mcs/contexts")
	tree.Link("/nowhere", "etc/audit/rules.d")
	tree.Image(2)
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("the update wrote through the link: %v, %v", entries, err)
	}
	if _, err := os.Lstat(tree.path("etc/selinux/mcs/policy")); err != nil {
		t.Errorf("beside the link nothing was merged: %v", err)
	}
	if target, err := os.Readlink(tree.path("etc/audit/rules.d")); target != "/nowhere" {
		t.Errorf("the operator's link is %q, %v", target, err)
	}
}

func TestLayouts(t *testing.T) {
	for _, layout := range Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			all := list(t, New(t, layout).Dir)
			want := map[string]string{
				"/var/lib/selinux": "L ../../usr/lib/selinux/policy",
				"/etc/selinux/mcs": "L ../../usr/lib/selinux/mcs",
				"/usr/lib/selinux/policy/mcs/active/modules/100/base/cil": "-",
			}
			switch layout {
			case Today:
				want["/etc/selinux/mcs"] = "d"
				want["/etc/selinux/mcs/policy"] = "d"
				want["/usr/lib/selinux/mcs"] = "L ../../share/flatcar/etc/selinux/mcs"
				want["/usr/share/flatcar/etc/selinux/mcs"] = "d"
				want["/etc/audit/rules.d/80-selinux.rules"] = "-"
			case SymlinkEra:
				want["/usr/share/flatcar/etc/selinux/mcs"] = "L ../../usr/lib/selinux/mcs"
				want["/etc/audit/rules.d/80-selinux.rules"] = "L /usr/share/audit/rules.d/80-selinux.rules"
			case LTS2023:
				want["/etc/audit/rules.d/80-selinux.rules"] = "L /usr/share/audit/rules.d/80-selinux.rules"
				if _, ok := all["/usr/share/flatcar/etc"]; ok {
					t.Error("this layout has no lower layer")
				}
			}
			for name, form := range want {
				kind, target, _ := strings.Cut(form, " ")
				if got := all[name]; !strings.HasPrefix(got, kind) || target != "" && !strings.HasSuffix(got, " "+target) {
					t.Errorf("%s is %.60q, want %q", name, got, form)
				}
			}
		})
	}
}

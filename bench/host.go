package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// policyType is the name that the policy has on Flatcar.
const policyType = "mcs"

// Debian's policy of real size.
const (
	debianStore = "/var/lib/selinux/default"
	debianEtc   = "/etc/selinux/default"
)

// host is a tree in the shape of a Flatcar host that has just booted for the first time.
type host struct{ dir string }

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// newHost makes a host with Debian's policy as its vendor's.
func newHost(dir string) (*host, error) {
	if _, err := os.Stat(debianStore + "/active/modules"); err != nil {
		return nil, fmt.Errorf("%w: install selinux-policy-default", err)
	}
	h := &host{dir}
	lower := h.path("usr/share/flatcar/etc/selinux")
	for _, name := range []string{lower, h.path("usr/lib/selinux/policy"), h.path("usr/lib/tmpfiles.d"), h.path("usr/share/audit/rules.d"),
		h.path("usr/share/flatcar/etc/audit/rules.d"), h.path("etc/selinux-provision/modules"), h.path("var/lib")} {
		if err := os.MkdirAll(name, 0o755); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		lower + "/config":                                           "SELINUX=permissive\nSELINUXTYPE=" + policyType + "\n",
		lower + "/semanage.conf":                                    "module-store = direct\nexpand-check=0\n",
		h.path("usr/lib/tmpfiles.d/selinux.conf"):                   "L /var/lib/selinux - - - - ../../usr/lib/selinux/policy\n",
		h.path("etc/selinux-provision/modules/bench_logreader.cil"): module,
	}
	for name, rules := range map[string]string{"00-clear": "-D\n", "80-selinux": "-a never,exclude -F msgtype>=1400 -F msgtype<=1499\n", "99-default": "-a exclude,always -F msgtype>0\n"} {
		files[h.path("usr/share/audit/rules.d/"+name+".rules")] = rules
		files[h.path("usr/share/flatcar/etc/audit/rules.d/"+name+".rules")] = rules
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"config", "semanage.conf", policyType} {
		if err := os.Symlink("../../share/flatcar/etc/selinux/"+name, h.path("usr/lib/selinux/"+name)); err != nil {
			return nil, err
		}
	}
	if err := copyAll(debianStore, h.path("usr/lib/selinux/policy/"+policyType)); err != nil {
		return nil, err
	}
	if err := copyAll(debianEtc, lower+"/"+policyType); err != nil {
		return nil, err
	}
	return h, h.reset()
}

func copyAll(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy %s: %w: %s", from, err, out)
	}
	return nil
}

// reset brings back the state in which nothing was ever provisioned. /etc is a copy: there is no overlay beneath a tree.
func (h *host) reset() error {
	for _, name := range []string{"etc/selinux", "etc/audit", "var/lib/selinux", "var/lib/selinux-provision"} {
		if err := os.RemoveAll(h.path(name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"selinux", "audit"} {
		if err := copyAll(h.path("usr/share/flatcar/etc/"+name), h.path("etc/"+name)); err != nil {
			return err
		}
	}
	return os.Symlink("../../usr/lib/selinux/policy", h.path("var/lib/selinux"))
}

func (h *host) declare(config string) error {
	return os.WriteFile(h.path("etc/selinux-provision/config.yaml"), []byte(config), 0o644)
}

// describe says how large the store is.
func (h *host) describe() (string, error) {
	files, size, modules := 0, int64(0), 0
	store := h.path("usr/lib/selinux/policy")
	err := filepath.WalkDir(store, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		size += info.Size()
		if base := filepath.Base(name); base == "cil" && strings.Contains(name, "/active/modules/") {
			modules++
		}
		return nil
	})
	return fmt.Sprintf("%d files, %s, %d modules", files, megabytes(size), modules), err
}

// changes has for each entry of a tree what the kernel changes when the entry is written to in any way.
type changes map[string]string

func (h *host) changes() (changes, error) {
	all := changes{}
	err := filepath.WalkDir(h.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("the file system tells no inode numbers")
		}
		all[strings.TrimPrefix(name, h.dir)] = fmt.Sprintf("%d %d %v %v", st.Ino, st.Size, st.Mtim, st.Ctim)
		return nil
	})
	return all, err
}

// compare names the entries that are not the same in both.
func (c changes) compare(after changes) []string {
	changed := map[string]bool{}
	for name, was := range c {
		if after[name] != was {
			changed[name] = true
		}
	}
	for name := range after {
		if _, ok := c[name]; !ok {
			changed[name] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

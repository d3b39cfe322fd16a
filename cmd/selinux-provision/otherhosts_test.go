package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// otherHosts are trees of hosts that are not Flatcar's, or that have no SELinux, as their packages make them: files by their path, links
// by "-> ".
func otherHosts() map[string]map[string]string {
	config := func(mode, policyType string) string { return "SELINUX=" + mode + "\nSELINUXTYPE=" + policyType + "\n" }
	return map[string]map[string]string{
		"Debian with selinux-policy-default": {
			"etc/os-release":                                      "ID=debian\n",
			"etc/selinux/config":                                  config("permissive", "default"),
			"etc/selinux/semanage.conf":                           "module-store = direct\n",
			"etc/selinux/default/policy/policy.34":                "policy",
			"etc/selinux/default/contexts/files/file_contexts":    "/.* system_u:object_r:default_t:s0\n",
			"usr/share/selinux/default/base.pp.bz2":               "base",
			"var/lib/selinux/default/active/policy.kern":          "policy",
			"var/lib/selinux/default/active/modules/100/base/cil": "(block base)",
			"var/lib/selinux/default/active/commit_num":           "1",
			"etc/audit/rules.d/audit.rules":                       "-D\n",
		},
		"Fedora": {
			"etc/os-release":                                    "ID=fedora\n",
			"etc/selinux/config":                                config("enforcing", "targeted"),
			"etc/selinux/targeted/policy/policy.34":             "policy",
			"etc/selinux/targeted/contexts/files/file_contexts": "/.* system_u:object_r:default_t:s0\n",
			"var/lib/selinux/targeted/active/policy.kern":       "policy",
			"usr/share/selinux/packages/container.pp.bz2":       "module",
		},
		"Fedora CoreOS, an ostree": {
			"etc/os-release":                            "ID=fedora\nVARIANT_ID=coreos\n",
			"etc/selinux/config":                        config("enforcing", "targeted"),
			"usr/etc/selinux/config":                    config("enforcing", "targeted"),
			"etc/selinux/targeted/active/policy.kern":   "policy",
			"etc/selinux/targeted/policy/policy.34":     "policy",
			"usr/etc/selinux/targeted/policy/policy.34": "policy",
			"home": "-> var/home",
		},
		"no SELinux at all": {
			"etc/os-release": "ID=alpine\n",
			"usr/bin/true":   "",
		},
		"Azure Container Linux, whose image has no module store": {
			"etc/os-release":                                         "ID=azurelinux\nVARIANT_ID=azurecontainerlinux\n",
			"etc/selinux/config":                                     config("enforcing", "targeted"),
			"etc/selinux/targeted/policy/policy.33":                  "policy",
			"etc/selinux/mcs":                                        "-> targeted",
			"usr/share/distro/etc/selinux/config":                    config("enforcing", "targeted"),
			"usr/share/distro/etc/selinux/targeted/policy/policy.33": "policy",
		},
		"Flatcar's links, without what they lead to": {
			"etc/os-release":     "ID=flatcar\n",
			"etc/selinux/config": "-> ../../usr/lib/selinux/config",
			"etc/selinux/mcs":    "-> ../../usr/lib/selinux/mcs",
			"var/lib/selinux":    "-> ../../usr/lib/selinux/policy",
		},
	}
}

func makeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// everything is all that a tree holds, with what a write would change.
func everything(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		if e.Type().IsRegular() {
			read, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(read))
		}
		link, _ := os.Readlink(path)
		fmt.Fprintln(&all, path, e.Type(), st.Ino, st.Mode, st.Uid, st.Gid, st.Ctim, link, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// On a host that is not Flatcar, or has no SELinux, every command that would change something ends with 4, says why, and leaves no trace:
// not even the time of a directory changes.
//
// Proves V15: trees in the layout of Debian, Fedora, an ostree, Azure Container Linux without a module store, no SELinux.
func TestOtherHostsAreLeftAlone(t *testing.T) {
	for name, files := range otherHosts() {
		for _, configured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, configured %v", name, configured), func(t *testing.T) {
				root := makeTree(t, files)
				if configured {
					err := errors.Join(os.MkdirAll(filepath.Join(root, "etc/selinux-provision/modules"), 0o755),
						os.WriteFile(filepath.Join(root, "etc/selinux-provision/config.yaml"), []byte("version: 1\nmode: enforcing\naudit: {log_denials: true, dontaudit: strip}\n"), 0o644),
						os.WriteFile(filepath.Join(root, "etc/selinux-provision/modules/site.cil"), []byte("(type site_t)\n"), 0o644))
					if err != nil {
						t.Fatal(err)
					}
				}
				before := everything(t, root)
				for _, command := range []string{"apply", "apply --dry-run", "stage policystore", "stage policy", "stage audit", "stage enforce", "status", "revert", "revert --dry-run"} {
					got := call(t, append([]string{"--root", root}, strings.Fields(command)...)...)
					reason := "this tool needs the layout of Flatcar Container Linux, or of a sibling"
					if strings.HasPrefix(name, "Azure") {
						reason = "for targeted: this OS image ships that policy ready-made in /usr/share/distro/etc/selinux, without the modules that it was built from"
					}
					if got.code != exitNotApplicable || !strings.Contains(got.stderr, "not applicable here") || !strings.Contains(got.stderr, reason) {
						t.Errorf("%s: %+v", command, got)
					}
					if now := everything(t, root); now != before {
						t.Fatalf("%s changed the host:\n%s\nbefore:\n%s", command, now, before)
					}
				}
			})
		}
	}
}

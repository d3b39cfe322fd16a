package stages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// provisioned makes a tree that is to be enforcing with one module.
func provisioned(t *testing.T) *flatcartest.Tree {
	t.Helper()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	return tree
}

// mount mounts a file system in a tree for the time of a test.
func mount(t *testing.T, fstype, options, at string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounting needs root")
		}
		t.Skip("mounting needs root")
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", fstype, "-o", options, fstype, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}

// TestDiskThatIsFull runs into the end of the disk before the copy, during the copy and during the build.
//
// Proves P1.
func TestDiskThatIsFull(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, options string
		stage         int // that fails
		want          string
		known         bool // before anything is tried
	}{
		{"no room for the store", "size=8m", 0, "MB free and the store needs", true},
		{"no inode in the middle of the copy", "size=1g,nr_inodes=20", 0, "no space left on device", false},
		{"no inode in the middle of the build", "size=1g,nr_inodes=46", 1, "cannot build the policy", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tree := provisioned(t)
			lib := filepath.Join(tree.Dir, "var/lib")
			mount(t, "tmpfs", tc.options, lib)
			tree.Link("../../usr/lib/selinux/policy", "var/lib/selinux")
			before := snapshot(t, tree.Dir, StateDir)
			h := host(t, tree)
			if status, err := h.Status(t.Context()); tc.known && (err != nil || !strings.Contains(status.Problems[0].Problem, tc.want) || !strings.HasPrefix(status.Problems[0].Remedy, "make room")) {
				t.Errorf("status sends to apply, which would fail: %v, %v", status.Problems, err)
			}
			results := apply(t, h)
			if r := results[tc.stage]; r.Outcome != Failed || !strings.Contains(r.Error, tc.want) || !strings.Contains(r.Error, "make room") {
				t.Fatalf("stage %s: %s %q, want %q and what to do", r.Stage, r.Outcome, r.Error, tc.want)
			}
			if tc.stage == 0 {
				compare(t, "after a full disk", without(without(snapshot(t, tree.Dir, StateDir), "/etc/audit"), "/etc/selinux-provision"),
					without(without(before, "/etc/audit"), "/etc/selinux-provision"))
			}
			bootable(t, tree)
			remountWith(t, lib, "size=1g,nr_inodes=10000")
			apply(t, h)
			apply(t, h, Unchanged)
		})
	}
}

// TestDiskThatIsReadOnly changes nothing and says so.
//
// Proves P1.
func TestDiskThatIsReadOnly(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	lib := filepath.Join(tree.Dir, "var/lib")
	mount(t, "tmpfs", "size=64m", lib)
	tree.Link("../../usr/lib/selinux/policy", "var/lib/selinux")
	remountWith(t, lib, "ro")
	before := snapshot(t, tree.Dir)
	if _, err := host(t, tree).Run(context.Background(), names(), false); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("the error is %v", err)
	}
	compare(t, "after a read-only disk", snapshot(t, tree.Dir), before)
}

// withSemodule runs a stage in a mount namespace of its own in which semodule is a script. It gives what the stage said.
func withSemodule(t *testing.T, tree *flatcartest.Tree, script, limit string) string {
	t.Helper()
	tool, err := exec.LookPath("semodule")
	if err != nil {
		t.Fatal(err)
	}
	if tool, err = filepath.EvalSymlinks(tool); err != nil {
		t.Fatal(err)
	}
	fake := filepath.Join(t.TempDir(), "semodule")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" "$2" && exec "$3" -test.run='^TestCrashChild$'`, "sh", fake, tool, os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+tree.Dir, crashStage+"=policy", crashLimit+"="+limit)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("the stage succeeded with a semodule that does %q", script)
	}
	return string(out)
}

// TestSemoduleThatMisbehaves is about a tool that hangs, lies, fails or is not there.
//
// Proves P1.
func TestSemoduleThatMisbehaves(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a mount namespace needs root")
		}
		t.Skip("a mount namespace needs root")
	}
	for _, tc := range []struct{ name, script, want string }{
		{"hangs", "sleep 1009 & sleep 1009", "it did not end in time and was killed (limit 1s)"},
		{"lies", "exit 0", "semodule reported success but changed nothing"},
		{"fails without a word", "exit 1", "semodule failed with exit status 1"},
		{"has no room", "echo 'libsemanage.semanage_copy_file: Could not write (No space left on device).' >&2; exit 1", "without what is declared: make room on the disk, then run: selinux-provision apply"},
		{"is killed", "kill -9 $$", "semodule"},
		{"is broken", "exec /nosuch", "semodule failed with exit status 127"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tree := provisioned(t)
			h := host(t, tree)
			if _, err := h.Run(context.Background(), []string{"policystore"}, false); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, tree.Dir, StateDir)
			if said := withSemodule(t, tree, tc.script, "1s"); !strings.Contains(said, tc.want) {
				t.Errorf("the stage said %q, want %q", said, tc.want)
			}
			compare(t, "after a semodule that "+tc.name, snapshot(t, tree.Dir, StateDir), before)
			if marker := LoadState(h.Root).InProgress; (tc.name == "hangs" || tc.name == "is killed") != (marker == "policy") {
				t.Errorf("the next run must not trust a store that semodule may have left half-way, and no other is to be thrown away: the marker is %q", marker)
			}
			bootable(t, tree)
			for _, r := range apply(t, h) {
				if r.Err != nil || len(r.Problems) > 0 {
					t.Errorf("the next run: %s: %v %v", r.Stage, r.Err, r.Problems)
				}
			}
			apply(t, h, Unchanged)
			if out, _ := exec.Command("pgrep", "-f", "sleep 1009").Output(); len(out) > 0 {
				t.Errorf("what semodule had started is still there: %s", out)
			}
		})
	}
}

package stages

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/provision"
)

const enforcing = `version: 1
mode: enforcing
policy:
  booleans: {container_use_nfs: true}
  file_contexts:
    - {path: '/srv/data(/.*)?', context: 'system_u:object_r:container_file_t:s0:c1,c2'}
audit: {log_denials: true, dontaudit: strip}
`

const kubeLogreader = "(type kube_logreader_t)\n(roletype system_r kube_logreader_t)\n(allow kube_logreader_t etc_t (file (read)))\n"

func host(t *testing.T, tree *flatcartest.Tree) *Host {
	t.Helper()
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &Host{Root: root, Declared: func() (*provision.State, error) { return provision.Load(root, "") }}
}

func names() []string { return strings.Split(Names(), ", ") }

// apply runs all stages and fails the test unless each ends with the wanted outcome.
func apply(t *testing.T, h *Host, want ...Outcome) []Result {
	t.Helper()
	results, err := h.Run(context.Background(), names(), false)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if len(want) > 0 && r.Outcome != want[min(i, len(want)-1)] {
			t.Errorf("stage %s: %s, want %s; error %q, problems %v, done %v", r.Stage, r.Outcome, want[min(i, len(want)-1)], r.Error, r.Problems, r.Done)
		}
	}
	return results
}

// snapshot lists everything below dir: type, mode, size or target, and the content of small files.
func snapshot(t *testing.T, dir string, skip ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		for _, s := range skip {
			if name == s {
				return filepath.SkipDir
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := info.Mode().String()
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Uid != 0 || st.Gid != 0) && os.Geteuid() == 0 {
			line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", content)
		}
		all[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, line := range want {
		if got[name] != line {
			t.Errorf("%s: %s is %.80q, want %.80q", what, name, got[name], line)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s should not be there", what, name)
		}
	}
}

// Proves P6: in a tree, for every layout.
func TestFirstRunThenNothingToDoThenRevert(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.Layouts() {
		t.Run(string(layout), func(t *testing.T) {
			tree := flatcartest.New(t, layout)
			fresh := snapshot(t, tree.Dir)
			tree.Write("etc/selinux-provision/config.yaml", enforcing)
			tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
			h := host(t, tree)

			before := snapshot(t, tree.Dir)
			planned, err := h.Run(context.Background(), names(), true)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range planned {
				if r.Outcome != Planned {
					t.Errorf("dry run of %s: %s (%s)", r.Stage, r.Outcome, r.Error)
				}
			}
			compare(t, "after a dry run", snapshot(t, tree.Dir), before)

			apply(t, h, Changed)
			done := snapshot(t, tree.Dir)
			apply(t, h, Unchanged)
			compare(t, "after a run with nothing to do", snapshot(t, tree.Dir), done)

			status, err := h.Status(context.Background())
			if err != nil || !status.AsDeclared {
				t.Errorf("status: %+v, %v", status, err)
			}
			config, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/config"))
			if err != nil || !strings.Contains(string(config), "SELINUX=enforcing") || !strings.Contains(string(config), "# The vendor's comment.") {
				t.Errorf("config is %q, %v", config, err)
			}

			result, err := h.Revert(context.Background(), false)
			if err != nil || result.Outcome != Changed {
				t.Fatalf("revert: %+v, %v", result, err)
			}
			compare(t, "after revert", snapshot(t, tree.Dir, "/etc/selinux-provision"), fresh)
			if again, err := h.Revert(context.Background(), false); err != nil || again.Outcome != Unchanged {
				t.Errorf("second revert: %+v, %v", again, err)
			}
		})
	}
}

package stages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

const inStore = "var/lib/selinux/mcs/active/"

// TestLostContentComesBack takes the content of files as a power cut does that comes before they are flushed: status says so, and the next
// apply ends where the host was, with what the operator made by hand.
func TestLostContentComesBack(t *testing.T) {
	t.Parallel()
	good := provisioned(t)
	h := host(t, good)
	apply(t, h, Changed)
	operatorsWork(t, good)
	good.Write(inStore+"file_contexts.local", "/srv/by-hand\tsystem_u:object_r:container_file_t:s0\n")
	good.Semodule(good.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
	apply(t, h, Unchanged)
	want := stored(t, good)

	policy, err := filepath.Glob(filepath.Join(good.Dir, "etc/selinux/mcs/policy/policy.*"))
	if err != nil || len(policy) != 1 {
		t.Fatalf("%v, %v", policy, err)
	}
	inEtc := "etc/selinux/mcs/"
	loaded := strings.TrimPrefix(policy[0], good.Dir+"/")
	for name, files := range map[string][]string{
		"ours":                 {inStore + "modules/500/kube_logreader/cil"},
		"ours, its language":   {inStore + "modules/500/kube_logreader/lang_ext"},
		"vendor's":             {inStore + "modules/100/base/cil", inStore + "modules/100/base/lang_ext"},
		"operator's":           {inStore + "modules/400/by_hand/cil"},
		"operator's, language": {inStore + "modules/100/by_hand_too/lang_ext"},
		"operator's local":     {inStore + "file_contexts.local", inEtc + "contexts/files/file_contexts.local"},
		"booleans":             {inStore + "booleans.local", inStore + "modules/500/kube_logreader/cil"},
		"loaded policy":        {loaded},
		"policy":               {loaded, inStore + "policy.kern"},
		"file contexts":        {inEtc + "contexts/files/file_contexts"},
		"file contexts, both":  {inEtc + "contexts/files/file_contexts", inStore + "file_contexts"},
		"home directories":     {inEtc + "contexts/files/file_contexts.homedirs"},
		"seusers":              {inEtc + "seusers", inStore + "seusers"},
		"compiled contexts":    {inEtc + "contexts/files/file_contexts.bin"},
		"counter":              {inStore + "commit_num"},
	} {
		for how, lose := range map[string]func(string, []byte) error{
			"empty": func(name string, _ []byte) error { return os.Truncate(name, 0) },
			"zeroes": func(name string, content []byte) error {
				return os.WriteFile(name, make([]byte, len(content)), 0o600)
			},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				tree := copyTree(t, good.Dir)
				for _, file := range append(files, inStore+"commit_num") { // whoever wrote the one wrote the other
					at := filepath.Join(tree.Dir, file)
					content, err := os.ReadFile(at)
					if err == nil {
						err = lose(at, content)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				h := host(t, tree)
				if status, err := h.Status(context.Background()); err != nil || status.AsDeclared {
					t.Errorf("status: as declared, %v", err)
				}
				apply(t, h)
				compare(t, "after apply", stored(t, tree), want)
				apply(t, h, Unchanged)
				if status, err := h.Status(context.Background()); err != nil || !status.AsDeclared {
					t.Errorf("status after apply: %+v, %v", status.Problems, err)
				}
			})
		}
	}

	// A cut inside semodule's own commit.
	for name, cut := range map[string]func(dir string) error{
		"active is previous": func(dir string) error { return os.Rename(dir+"/active", dir+"/previous") },
		"active is empty": func(dir string) error {
			if err := os.Rename(dir+"/active", dir+"/previous"); err != nil {
				return err
			}
			return os.MkdirAll(dir+"/active/modules/disabled", 0o700)
		},
		"active lost its content": func(dir string) error {
			if err := exec.Command("cp", "-a", dir+"/active", dir+"/previous").Run(); err != nil {
				return err
			}
			return truncateAll(dir + "/active")
		},
		"both lost their content": func(dir string) error {
			if err := truncateAll(dir + "/active"); err != nil {
				return err
			}
			return os.Rename(dir+"/active", dir+"/previous")
		},
		"nothing is left": func(dir string) error { return os.RemoveAll(dir + "/active") },
	} {
		t.Run(name, func(t *testing.T) {
			tree := copyTree(t, good.Dir)
			if err := cut(filepath.Join(tree.Dir, "var/lib/selinux/mcs")); err != nil {
				t.Fatal(err)
			}
			h := host(t, tree)
			if status, err := h.Status(context.Background()); err != nil || status.AsDeclared {
				t.Errorf("status: as declared, %v", err)
			}
			apply(t, h)
			got := stored(t, tree)
			compare(t, "after apply", got, want)
			apply(t, h, Unchanged)
		})
	}
}

// stored is what lasts, without what a store leaves behind that was replaced, and without the locks, which whoever comes first makes.
func stored(t *testing.T, tree *flatcartest.Tree) map[string]string {
	t.Helper()
	all := lasting(t, tree)
	for name := range all {
		if strings.HasPrefix(name, "/var/lib/selinux/mcs/previous") || strings.HasSuffix(name, ".LOCK") {
			delete(all, name)
		}
	}
	return all
}

func truncateAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Truncate(path, 0)
	})
}

// TestLostContentIsNamed takes content of which there is no copy: everything else comes back, what is gone is named by apply and by status,
// and not any more when the operator has made it again.
func TestLostContentIsNamed(t *testing.T) {
	t.Parallel()
	tree := provisioned(t)
	h := host(t, tree)
	apply(t, h, Changed)
	operatorsWork(t, tree)
	tree.Write(inStore+"file_contexts.local", "")
	for _, name := range []string{"400/by_hand/cil", "400/by_hand/lang_ext"} {
		if err := os.Truncate(filepath.Join(tree.Dir, inStore, "modules", name), 0); err != nil {
			t.Fatal(err)
		}
	}
	results := apply(t, h)
	status, err := h.Status(context.Background())
	if err != nil || status.AsDeclared || !slices.Equal(status.Problems, results[1].Problems) {
		t.Errorf("status: %+v, apply %+v, %v", status.Problems, results[1].Problems, err)
	}
	for _, want := range []string{"module by_hand (priority 400): its files were empty", "local file file_contexts.local: it was empty"} {
		if !slices.ContainsFunc(status.Problems, func(p Problem) bool { return strings.HasPrefix(p.Problem, want) }) {
			t.Errorf("%q is not among %v", want, status.Problems)
		}
	}
	if list := modules(t, tree); !slices.Contains(list, "100/by_hand_too") || slices.Contains(list, "400/by_hand") {
		t.Errorf("modules: %v", list)
	}
	apply(t, h, Unchanged, Partly, Unchanged)

	tree.Semodule(tree.Dir, 400, map[string]string{"by_hand": byHand}, "--disable_dontaudit")
	tree.Write(inStore+"file_contexts.local", "/srv/by-hand\tsystem_u:object_r:container_file_t:s0\n")
	apply(t, h)
	apply(t, h, Unchanged)
	if status, err := h.Status(context.Background()); err != nil || !status.AsDeclared {
		t.Errorf("status when it is back: %+v, %v", status.Problems, err)
	}
}

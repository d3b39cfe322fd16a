package relabel_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// A context is what the policy of the host makes of it, and one that cannot be used is told from a host that cannot be asked.
func TestWantedContext(t *testing.T) {
	const lxc = "etc/selinux/mcs/contexts/lxc_contexts"
	tree := flatcartest.New(t, flatcartest.Today)
	as := map[string]string{lxc: "", "etc/selinux/config": "SELINUXTYPE=mcs\n"}
	for _, c := range []struct {
		what, asked string
		change      func(tree *flatcartest.Tree)
		want        string
		unusable    bool   // the context is to blame
		says        string // part of the error
	}{
		{what: "as it is written", asked: "system_u:object_r:container_file_t:s0:c1,c2", want: "system_u:object_r:container_file_t:s0:c1,c2"},
		{what: "an old name of a type, and categories in no order", asked: "system_u:object_r:svirt_lxc_file_t:s0:c2,c1", want: "system_u:object_r:container_file_t:s0:c1,c2"},
		{what: "a type that is about to come", asked: "system_u:object_r:site_t:s0:c2,c1", want: "system_u:object_r:site_t:s0:c1,c2"},
		{what: "the default", asked: "default", change: func(tree *flatcartest.Tree) { tree.Write(lxc, "file = \"system_u:object_r:svirt_lxc_file_t:s0\"\n") }, want: "system_u:object_r:container_file_t:s0"},
		{what: "no default", asked: "default", change: func(tree *flatcartest.Tree) { tree.Write(lxc, "process = \"a:b:c:s0\"\n") }, says: "has no line file=: give one with --context"},
		{what: "a default that is none", asked: "default", change: func(tree *flatcartest.Tree) { tree.Write(lxc, "file = \"container_file_t\"\n") }, unusable: true, says: "it is neither user:role:type:level"},
		{what: "no type of policy", asked: "default", change: func(tree *flatcartest.Tree) { tree.Write("etc/selinux/config", "") }, says: "has no line SELINUXTYPE="},
		{what: "a type alone", asked: "container_file_t", unusable: true, says: "it is neither user:role:type:level"},
		{what: "no context", asked: "system_u:object_r:t:s0:c1;c2", unusable: true, says: "is not a category"},
		{what: "a policy that is damaged", asked: "system_u:object_r:svirt_lxc_file_t:s0:c2,c1", change: func(tree *flatcartest.Tree) { damage(t, tree) }, want: "system_u:object_r:svirt_lxc_file_t:s0:c1,c2"},
	} {
		for name, content := range as {
			tree.Write(name, content)
		}
		if c.change != nil {
			c.change(tree)
		}
		labels, err := policyOf(t, tree).Fixed(c.asked)
		var unusable *relabel.ContextError
		switch {
		case errors.As(err, &unusable) != c.unusable, (err != nil) != (c.says != ""), err != nil && !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v", c.what, err)
		case err == nil && labels.String() != c.want:
			t.Errorf("%s: %s, want %s", c.what, labels, c.want)
		}
	}
}

// File contexts give what the policy makes of them, and a line that cannot be used is told.
func TestWantedFileContexts(t *testing.T) {
	const files = "etc/selinux/mcs/contexts/files/file_contexts"
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write(files, "/srv(/.*)? system_u:object_r:svirt_lxc_file_t:s0\n/opt/(?!x) system_u:object_r:etc_t:s0\n")
	policy := policyOf(t, tree)
	for _, c := range []struct {
		force bool
		want  string
	}{{false, "u:r:container_file_t:s0:c1"}, {true, "system_u:object_r:container_file_t:s0"}} {
		labels, problems, err := policy.FileContexts(c.force)
		if err != nil || len(problems) != 1 || !strings.Contains(problems[0], "file_contexts:2") {
			t.Fatalf("%v, %v", problems, err)
		}
		if got, leave := labels.Want("/srv/x", relabel.Regular, "u:r:old_t:s0:c1"); got != c.want || leave != "" {
			t.Errorf("force %t: %s, %s, want %s", c.force, got, leave, c.want)
		}
	}
	tree.Write("etc/selinux/config", "SELINUXTYPE=none\n")
	if _, _, err := policyOf(t, tree).FileContexts(false); err == nil {
		t.Error("file contexts of a policy that is not there")
	}
}

func policyOf(t *testing.T, tree *flatcartest.Tree) *relabel.Policy {
	t.Helper()
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	policy, err := relabel.OpenPolicy(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(policy.Close)
	return policy
}

func damage(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(tree.Dir, "etc/selinux/mcs/policy/policy.*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if err := os.WriteFile(found[0], []byte("none"), 0o644); err != nil {
		t.Fatal(err)
	}
}

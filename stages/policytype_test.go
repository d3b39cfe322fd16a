package stages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// TestConfigWithoutAType: where PID 1 would look for the policy in another place than the vendor's, that is seen, mended, and never enforced
// with, whatever is declared of the mode.
//
// Proves P1, P4.
func TestConfigWithoutAType(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{"none": "", "a space": "SELINUXTYPE =mcs\n", "empty": "SELINUXTYPE=\n", "a shell's": "export SELINUXTYPE=mcs\n",
		"a comment": "#SELINUXTYPE=mcs\n", "a byte order mark": "\ufeffSELINUXTYPE=mcs\n", "no name of a directory": "SELINUXTYPE=../mcs\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := flatcartest.New(t, flatcartest.Today)
			h := host(t, tree)
			for _, mode := range []string{"enforcing", "unmanaged", "enforcing\nenforce: {guard: {window: 5m}}"} {
				tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: "+mode+"\n")
				apply(t, h)
				apply(t, h, Unchanged)
				_ = os.Remove(tree.Dir + seconfig.Path)
				tree.Write("etc/selinux/config", line+"# mine\nSELINUX=enforcing\n")
				s, err := h.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Problem, "write /etc/selinux/config: it has no usable line SELINUXTYPE=") {
					t.Errorf("%s: status: %v", mode, s.Problems)
				}
				if alone, err := h.Run(t.Context(), []string{"enforce"}, false); err != nil || (mode != "unmanaged") != (alone[0].Err != nil) {
					t.Errorf("%s: the enforce stage alone: %v, %v", mode, alone, err)
				}
				apply(t, h, Changed, Unchanged)
				if c, err := seconfig.Read(h.Root, seconfig.Path); err != nil || c.Taken() != "mcs" || c.Mode != "enforcing" {
					t.Errorf("%s: %+v, %v", mode, c, err)
				}
				if content, err := h.Root.ReadFile(seconfig.Path); err != nil || !strings.Contains(string(content), "# mine\n") {
					t.Errorf("%s: %q, %v", mode, content, err)
				}
				apply(t, h, Unchanged)
			}
		})
	}
}

// TestTypeOfAnotherPolicy: a type that the image does not ship is a fault of the host's, and not another kind of host.
func TestTypeOfAnotherPolicy(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	h := host(t, tree)
	apply(t, h)
	tree.Write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=\"mcs\"\n")
	const want = `cannot use SELINUXTYPE="mcs" of `
	if _, err := h.Status(t.Context()); err == nil || errors.Is(err, ErrNotApplicable) || !strings.Contains(err.Error(), want) {
		t.Errorf("status: %v", err)
	}
	if _, err := h.Handmade(t.Context()); err == nil || errors.Is(err, ErrNotApplicable) || !strings.Contains(err.Error(), want) {
		t.Errorf("what was made by hand: %v", err)
	}
}

// TestPolicyOfALowerVersion: with policy-version in semanage.conf the policy is built in a version that the OS image's own wins over, whatever is declared of the
// mode. The older build under that name goes, and the rest is said until the line does.
//
// Proves P3.
func TestPolicyOfALowerVersion(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	h := host(t, tree)
	apply(t, h)
	built := LoadState(h.Root).Store.Policy.File
	const conf = "etc/selinux/semanage.conf"
	before, err := os.ReadFile(filepath.Join(tree.Dir, conf))
	if err != nil {
		t.Fatal(err)
	}
	tree.Write(conf, string(before)+"\npolicy-version = 30\n")
	tree.Semodule(tree.Dir, 400, map[string]string{"hand": "(type hand_t)\n"})
	apply(t, h)
	if _, err := os.Stat(filepath.Join(tree.Dir, "etc/selinux/mcs/policy", built)); !os.IsNotExist(err) {
		t.Errorf("the older build is still there: %v", err)
	}
	apply(t, h) // the OS image's is back, as at once on an overlay
	for range 2 {
		s, err := h.Status(t.Context())
		if err != nil || s.Store.Policy != "policy.30" || len(s.Problems) == 0 || !strings.Contains(s.Problems[len(s.Problems)-1].Problem, "the next boot would load "+built) ||
			!strings.Contains(s.Problems[len(s.Problems)-1].Remedy, "policy-version") {
			t.Errorf("status: %+v, %v", s, err)
		}
		apply(t, h, Unchanged, Partly, Unchanged)
	}
	tree.Write(conf, string(before))
	tree.Semodule(tree.Dir, 400, map[string]string{"hand": "(type hand_t)\n"})
	apply(t, h)
	if s, err := h.Status(t.Context()); err != nil || !s.AsDeclared || s.Store.Policy != built {
		t.Errorf("status: %+v, %v", s, err)
	}
}

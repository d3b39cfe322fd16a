package stages

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// TestCheckOfTheNextImage says before the update what the update would break, and changes nothing but the record of that.
//
// Proves P3.
func TestCheckOfTheNextImage(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.All() {
		t.Run(string(layout), func(t *testing.T) {
			next := flatcartest.New(t, layout)
			next.Image(2)
			tree := flatcartest.New(t, layout)
			tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
			tree.Write("etc/selinux-provision/modules/declared.cil", "(type declared_t)\n(allow declared_t legacy_t (file (read)))\n")
			tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
			h := host(t, tree)
			apply(t, h, Changed, Changed, Unchanged)
			tree.Semodule(tree.Dir, 400, map[string]string{"hand": "(type hand_t)\n(allow hand_t legacy_t (file (read)))\n"})
			before := snapshot(t, tree.Dir, StateDir)

			check, err := h.CheckImage(context.Background(), filepath.Join(next.Dir, "usr"))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "after the check", snapshot(t, tree.Dir, StateDir), before)
			var out []string
			for _, q := range check.LeftOut {
				out = append(out, q.Name)
			}
			if strings.Join(out, " ") != "hand declared" && strings.Join(out, " ") != "declared hand" || check.Error != "" || check.Tools != "host" {
				t.Errorf("check: %+v", check)
			}
			status, err := h.Status(context.Background())
			if err != nil || status.NextImage == nil || len(status.NextImage.LeftOut) != 2 || !status.AsDeclared {
				t.Errorf("status: %+v, %v", status, err)
			}

			// What was said comes true, and then there is nothing more to say.
			tree.Image(2)
			apply(t, h, Changed, Partly, Unchanged)
			if got := LoadState(h.Root).Store.Policy.Quarantine; len(got) != 2 {
				t.Errorf("quarantine: %v", got)
			}
			if status, err := h.Status(context.Background()); err != nil || status.NextImage != nil {
				t.Errorf("status after the update: %+v, %v", status, err)
			}
		})
	}
}

func TestCheckOfWhatIsNoImage(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	_, err := host(t, tree).CheckImage(context.Background(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "it must be the /usr of an OS image") {
		t.Errorf("the error is %v", err)
	}
	if _, err := host(t, tree).CheckImage(context.Background(), OtherUsr); err == nil || !strings.Contains(err.Error(), "give a directory") {
		t.Errorf("the error is %v", err)
	}
}

func TestOtherUsr(t *testing.T) {
	t.Parallel()
	const a, b = "/dev/disk/by-partlabel/USR-A", "/dev/disk/by-partlabel/USR-B"
	both := map[string]string{a: "254:3", b: "254:4"}
	for _, c := range []struct {
		name  string
		used  []string
		there map[string]string
		want  string
	}{
		{"on A", []string{"254:3"}, both, b},
		{"on B", []string{"254:4"}, both, a},
		{"on A through dm-verity", []string{"253:0", "254:3"}, both, b},
		{"on B through dm-verity", []string{"253:0", "254:4"}, both, a},
		{"on something else", []string{"7:0"}, both, ""},
		{"one partition, in use", []string{"254:3"}, map[string]string{a: "254:3"}, ""},
		{"one partition, free", []string{"253:0"}, map[string]string{b: "254:4"}, b},
		{"no partitions", []string{"254:3"}, nil, ""},
	} {
		got, err := otherUsr(c.used, func(name string) (string, error) {
			if device, ok := c.there[name]; ok {
				return device, nil
			}
			return "", fs.ErrNotExist
		})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

// TestModulesThatHideOthers: a module by hand above a declared one is not as declared; one above the OS image's, now or after an update, is as
// somebody wanted it, and is named.
func TestModulesThatHideOthers(t *testing.T) {
	t.Parallel()
	next := flatcartest.New(t, flatcartest.Today)
	next.Image(2)
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	h := host(t, tree)
	apply(t, h)
	tree.Semodule(tree.Dir, 400, map[string]string{"modern": "(type mine_t)\n", "legacy": "(type legacy_t)\n(roletype object_r legacy_t)\n"})
	check, err := h.CheckImage(t.Context(), filepath.Join(next.Dir, "usr"))
	if err != nil || strings.Join(check.Replacing, " ") != "400/modern" || len(check.problems()) > 0 {
		t.Errorf("check: %+v, %v", check, err)
	}
	status, err := h.Status(t.Context())
	if err != nil || strings.Join(status.Replacing, " ") != "400/legacy" || !status.AsDeclared {
		t.Errorf("status: %+v, %v", status, err)
	}
	tree.Image(2)
	apply(t, h)
	if status, err = h.Status(t.Context()); err != nil || strings.Join(status.Replacing, " ") != "400/modern" || !status.AsDeclared {
		t.Errorf("status after the update: %+v, %v", status, err)
	}

	tree.Semodule(tree.Dir, 600, map[string]string{"kube_logreader": "(type mine_t2)\n"})
	symbols, err := policydb.ReadSymbols(seconfig.OpenPolicy(h.Root, seconfig.Dir, "mcs"))
	if err != nil || symbols.Has("kube_logreader_t") || !symbols.Has("mine_t2") {
		t.Errorf("the declared module is in force: %v", err)
	}
	for range 2 {
		apply(t, h, Unchanged, Partly, Unchanged)
		if status, err = h.Status(t.Context()); err != nil || status.AsDeclared || len(status.Problems) != 1 || len(status.Modules) > 0 ||
			!strings.Contains(status.Problems[0].Problem, "at priority 600, which hides it: take that one away with semodule -X 600 -r kube_logreader") {
			t.Errorf("status: %+v, %v", status, err)
		}
	}
}

package stages

import (
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// On a sibling of Flatcar the watcher has the default label of that policy's containers, and judges as it does on Flatcar.
func TestMountsOnASibling(t *testing.T) {
	t.Parallel()
	verdicts := map[flatcartest.Layout]judge.Verdict{}
	for _, layout := range []flatcartest.Layout{flatcartest.Today, flatcartest.Sibling} {
		tree := flatcartest.New(t, layout)
		tree.Write("etc/selinux-provision/config.yaml", "version: 1\nvolumes:\n  - {name: data, match: {mountpoint: /var/lib/data}, level: 's0:c1,c2'}\n")
		h := host(t, tree)
		declared, err := h.Declared()
		if err != nil {
			t.Fatal(err)
		}
		config, err := h.WatchConfig(declared)
		if err != nil {
			t.Fatal(err)
		}
		on, err := h.MountHost()
		if err != nil || on.DefaultContext != "system_u:object_r:container_file_t:s0" {
			t.Errorf("%s: the watcher knows %+v, %v", layout, on, err)
		}
		all, err := mounts.Parse(strings.NewReader("36 25 8:17 / /var/lib/data rw,relatime shared:9 - ext4 /dev/sdb1 rw,seclabel\n"))
		if err != nil {
			t.Fatal(err)
		}
		rules, err := judge.NewRules(config.Rules)
		if err != nil {
			t.Fatal(err)
		}
		on.SELinux = true
		verdicts[layout] = rules.Judge(on, mounts.NewTable(all), all[0], judge.Facts{RootLabel: "system_u:object_r:unlabeled_t:s0"})
	}
	for layout, v := range verdicts {
		if v.Outcome != judge.WantsContext || v.Want != "system_u:object_r:container_file_t:s0:c1,c2" {
			t.Errorf("%s: %+v", layout, v)
		}
	}
}

// What a release of Flatcar has and its sibling has not, or otherwise: a link with the name of Flatcar's type, the vendor's mode.
func TestSibling(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Sibling)
	tree.Link("targeted", "etc/selinux/mcs")
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: permissive\n")
	h := host(t, tree)
	apply(t, h)
	apply(t, h, Unchanged)
	status, err := h.Status(t.Context())
	if err != nil || !status.AsDeclared || status.Mode.Configured != "permissive" {
		t.Errorf("status: %+v, %v", status, err)
	}
	if found, err := h.Handmade(t.Context()); err != nil || len(found.Config) > 0 || len(found.Other) > 0 {
		t.Errorf("made by hand: %+v, %v", found, err)
	}
	if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
		t.Fatalf("revert: %+v, %v", result, err)
	}
	if mode, err := h.vendorMode(); err != nil || mode != "enforcing" {
		t.Errorf("the vendor's mode is %q, %v", mode, err)
	}
	if target, err := h.Root.Readlink("/etc/selinux/mcs"); err != nil || target != "targeted" {
		t.Errorf("the vendor's link leads to %q, %v", target, err)
	}
}

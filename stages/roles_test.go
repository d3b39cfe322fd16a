package stages

import (
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// A declared role is in the policy with its labels, on each layout; a second run has nothing to do; after an update it is made from the new image's
// policy; declared no more it is gone, and the host is as it was.
func TestRoles(t *testing.T) {
	t.Parallel()
	for _, layout := range flatcartest.All() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			tree := flatcartest.New(t, layout)
			const config = "etc/selinux-provision/config.yaml"
			tree.Write(config, "version: 1\npolicy: {roles: [cni-installer, k3s]}\n")
			h := host(t, tree)
			apply(t, h)
			const plugin, storage = "500/selinux_provision_role_cni_installer", "500/selinux_provision_role_k3s"
			if list := modules(t, tree); !slices.Contains(list, plugin) || !slices.Contains(list, storage) {
				t.Errorf("modules: %v", list)
			}
			status, err := h.Status(t.Context())
			if err != nil || !slices.Equal(status.Roles, []string{"cni-installer", "k3s"}) || len(status.Quarantine) != 0 {
				t.Errorf("status: %+v, %v", status, err)
			}
			if lines := holds(t, tree.Dir+"/etc/selinux/"+layout.Type()+"/contexts/files", "/opt/cni/bin(/.*)?\tsystem_u:object_r:container_cni_plugin_t:s0"); len(lines) == 0 {
				t.Error("/opt/cni/bin has no label")
			}
			for _, r := range apply(t, h) {
				if r.Outcome != Unchanged {
					t.Errorf("again: %+v", r)
				}
			}
			tree.Image(2)
			apply(t, host(t, tree))
			if list := modules(t, tree); !slices.Contains(list, plugin) || !slices.Contains(list, "100/modern") {
				t.Errorf("after an update: %v", list)
			}
			tree.Write(config, "version: 1\npolicy: {roles: []}\n")
			apply(t, host(t, tree))
			if list := modules(t, tree); slices.ContainsFunc(list, func(name string) bool { return strings.Contains(name, "selinux_provision") }) {
				t.Errorf("declared no more: %v", list)
			}
		})
	}
}

// A role that cannot be made is left out and named, and all else is in force.
func TestRoleThatCannotBeMade(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("usr/lib/selinux/policy/mcs/active/policy.kern", "no policy")
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\npolicy: {roles: [log-reader]}\n")
	tree.Write("etc/selinux-provision/modules/site.cil", "(type site_t)\n(roletype system_r site_t)\n(allow kernel_t site_t (process (signal)))\n")
	h := host(t, tree)
	apply(t, h)
	status, err := h.Status(t.Context())
	if err != nil || len(status.Roles) != 0 || !slices.Equal(status.Modules, []string{"site"}) || len(status.Quarantine) != 1 ||
		!strings.HasPrefix(status.Quarantine[0].String(), "role log-reader: cannot read the policy of this OS image: ") || !strings.HasSuffix(status.Quarantine[0].String(), "[policy.roles: log-reader]") {
		t.Errorf("status: %+v, %v", status, err)
	}
}

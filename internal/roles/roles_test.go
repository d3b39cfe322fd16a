package roles_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
	"github.com/selinux-provision/selinux-provision/internal/roles"
)

// reference has, beside the policy of package policytest, what the reference policy has for the roles, in the few classes of that policy.
const reference = `
(class process2 (nnp_transition))
(class blk_file (read write open getattr ioctl lock create setattr unlink))
(class unix_stream_socket (connectto))
(classorder (unordered process2 blk_file unix_stream_socket))
(typeattribute logfile) (typeattribute non_security_file_type) (typeattribute exec_type) (typeattribute configfile)
(typeattribute fixed_disk_raw_read)
(type var_log_t) (type auditd_log_t) (type systemd_journal_t) (type usr_t) (type container_var_lib_t) (type init_t) (type fixed_disk_device_t) (type proc_t)
(roletype object_r var_log_t) (roletype object_r auditd_log_t) (roletype object_r systemd_journal_t) (roletype object_r usr_t)
(roletype object_r container_var_lib_t) (roletype object_r fixed_disk_device_t) (roletype object_r proc_t) (roletype system_r init_t)
(typeattributeset domain (init_t))
(typeattributeset logfile (var_log_t auditd_log_t systemd_journal_t container_log_t))
(typeattributeset non_security_file_type (var_log_t container_log_t)) (typeattributeset exec_type (usr_t)) (typeattributeset configfile (etc_t))
(typeattributeset fixed_disk_raw_read (kernel_t))
(allow kernel_t container_t (process2 (nnp_transition)))
(allow container_domain configfile (file (read)))
(allow container_domain exec_type (file (read)))
(allow kernel_t file_type (file (write)))
(allow kernel_t logfile (file (read)))
(allow kernel_t non_security_file_type (file (read)))
(typeattribute no_raw_read) (typeattributeset no_raw_read (not (fixed_disk_raw_read)))
(neverallow no_raw_read fixed_disk_device_t (blk_file (read)))
`

// open reads a built policy.
func open(t testing.TB, modules map[string]string) *policydb.Policy {
	t.Helper()
	in, err := os.Open(policytest.Build(t, modules))
	p, err := policydb.Read(in, err)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// with builds a policy and, on top of it, all roles as they are written for it.
func with(t testing.TB, modules map[string]string) *policydb.Policy {
	t.Helper()
	vendors := open(t, modules)
	modules = maps.Clone(modules)
	if modules == nil {
		modules = map[string]string{}
	}
	for _, name := range roles.Names() {
		text, err := roles.Write(vendors, "svirt_lxc_net_t", name)
		if err != nil {
			t.Fatal(err)
		}
		modules[roles.ModuleName(name)] = text
	}
	return open(t, modules)
}

// What each role may and may not do, asked of a policy that was built with it.
func TestMay(t *testing.T) {
	p := with(t, map[string]string{"reference": reference})
	const read, write, list, link = "read open getattr", "write", "read search", "read"
	for _, c := range []struct {
		domain, target, class, permissions string
		may                                bool
	}{
		{"container_log_reader_t", "var_log_t", "file", read, true},
		{"container_log_reader_t", "container_log_t", "file", read, true},
		{"container_log_reader_t", "container_log_t", "dir", list, true},
		{"container_log_reader_t", "container_log_t", "lnk_file", link, true},
		{"container_log_reader_t", "systemd_journal_t", "file", read, true},
		{"container_log_reader_t", "var_log_t", "file", write, false},
		{"container_log_reader_t", "var_log_t", "dir", "add_name", false},
		{"container_log_reader_t", "container_log_t", "file", write, false},
		{"container_log_reader_t", "var_log_t", "file", "relabelfrom", false},
		{"container_log_reader_t", "var_log_t", "file", "relabelto", false},
		{"container_log_reader_t", "auditd_log_t", "file", "read", false},
		{"container_log_reader_t", "auditd_log_t", "dir", "read", false},
		{"container_log_reader_t", "container_var_lib_t", "file", "read", false},
		{"container_log_reader_t", "shadow_t", "file", "read", false},

		{"container_cni_installer_t", "container_cni_plugin_t", "file", "read open getattr create write execute", true},
		{"container_cni_installer_t", "container_cni_plugin_t", "dir", "add_name write search", true},
		{"container_cni_installer_t", "container_cni_config_t", "file", "read open getattr create write", true},
		{"container_cni_installer_t", "container_cni_config_t", "file", "execute", false},
		{"container_cni_installer_t", "usr_t", "file", write, false},
		{"container_cni_installer_t", "etc_t", "file", write, false},
		{"container_cni_installer_t", "etc_t", "dir", "add_name", false},
		{"container_cni_installer_t", "container_log_t", "file", "read", false},
		{"container_t", "container_cni_plugin_t", "file", write, false},
		{"container_t", "container_cni_config_t", "file", "read", false}, // which has credentials in it
		{"container_t", "container_cni_config_t", "file", write, false},
		{"kernel_t", "container_cni_plugin_t", "file", "read open getattr execute write", true},
		{"kernel_t", "container_cni_config_t", "file", "read open getattr write", true},

		{"container_node_exporter_t", "init_t", "file", read, true},
		{"container_node_exporter_t", "kernel_t", "dir", "search", true},
		{"container_node_exporter_t", "proc_t", "file", read, true},
		{"container_node_exporter_t", "proc_t", "file", write, false},
		{"container_node_exporter_t", "sysctl_t", "file", "read", true},
		{"container_node_exporter_t", "sysctl_t", "file", write, false},
		{"container_node_exporter_t", "container_t", "file", "read", false},
		{"container_node_exporter_t", "init_t", "process", "ptrace", false},
		{"container_node_exporter_t", "init_t", "process", "signal", false},
		{"container_node_exporter_t", "var_log_t", "file", "read", false},

		{"container_csi_sidecar_t", "container_csi_node_t", "unix_stream_socket", "connectto", true},
		{"container_csi_sidecar_t", "spc_t", "unix_stream_socket", "connectto", true},
		{"container_csi_sidecar_t", "kernel_t", "unix_stream_socket", "connectto", false},
		{"container_csi_sidecar_t", "fixed_disk_device_t", "blk_file", "read", false},
		{"container_csi_sidecar_t", "container_var_lib_t", "file", write, false},
		{"container_csi_node_t", "fixed_disk_device_t", "blk_file", "read write open", true},
		{"container_csi_node_t", "container_var_lib_t", "dir", "add_name write", true},
		{"container_csi_node_t", "etc_t", "file", write, false},
		{"container_csi_node_t", "shadow_t", "file", "read", false},
		{"container_csi_node_t", "auditd_log_t", "file", "read", false},

		{"rke2_service_t", "rke2_tls_t", "file", read, true},
		{"rke2_service_t", "rke2_tls_t", "file", write, false},
		{"rke2_service_t", "container_var_lib_t", "file", read, true},
		{"rke2_service_t", "container_var_lib_t", "file", write, false},
		{"rke2_service_db_t", "container_var_lib_t", "file", "read write create", true},
		{"rke2_service_db_t", "rke2_tls_t", "file", write, false},
		{"container_t", "rke2_tls_t", "file", "read", false},
	} {
		for permission := range strings.FieldsSeq(c.permissions) {
			q := policydb.Question{Domain: c.domain, Target: c.target, Class: c.class, Permissions: []string{permission}}
			if _, err := p.Resolve(q); err != nil || !p.Has(c.domain) {
				t.Errorf("%v: %v", q, err)
			} else if p.Allowed(q) != c.may {
				t.Errorf("%v: %v", q, !c.may)
			}
		}
	}
}

// A domain of a role is all that the containers' domain is: it is started as that one is, with no_new_privs too, and its categories confine it.
func TestLikeContainers(t *testing.T) {
	p := with(t, map[string]string{"reference": reference})
	for _, role := range roles.Names() {
		for _, domain := range roles.Domains(role) {
			if lacks, err := p.Beyond("container_t", domain); err != nil || len(lacks) != 0 {
				t.Errorf("%s may not: %v, %v", domain, lacks, err)
			}
			for _, q := range []policydb.Question{
				{Domain: "kernel_t", Target: domain, Class: "process", Permissions: []string{"transition"}},
				{Domain: "kernel_t", Target: domain, Class: "process2", Permissions: []string{"nnp_transition"}},
			} {
				if !p.Allowed(q) {
					t.Errorf("not allowed: %v", q)
				}
			}
			got, ok := p.Constraints("system_u:system_r:"+domain+":s0:c1,c2", "system_u:object_r:container_file_t:s0:c3", "file", []string{"read"})
			if !ok || !got.ByLevel || len(got.Forbidden) != 1 {
				t.Errorf("%s reads the files of another container: %+v, %v", domain, got, ok)
			}
		}
	}
}

// What somebody has to ask for hangs on a boolean that is off.
func TestAsked(t *testing.T) {
	p := with(t, map[string]string{"reference": reference})
	for target, boolean := range map[string]string{"auditd_log_t": "container_log_reader_read_audit", "container_var_lib_t": "container_log_reader_read_docker"} {
		q := policydb.Question{Domain: "container_log_reader_t", Target: target, Class: "file", Permissions: []string{"read", "open"}}
		if got := p.Booleans(q); fmt.Sprint(got) != "[[{"+boolean+" true}]]" {
			t.Errorf("%s: %v", target, got)
		}
		q.Permissions = []string{"write"}
		if got := p.Booleans(q); len(got) != 0 {
			t.Errorf("%s may be written with %v", target, got)
		}
	}
}

// A policy that has next to nothing of what a role names builds with it all the same.
func TestBarePolicy(t *testing.T) {
	p := with(t, nil)
	for _, role := range roles.Names() {
		for _, domain := range roles.Domains(role) {
			if !p.Has(domain) {
				t.Errorf("there is no %s", domain)
			}
		}
	}
	if got := roles.Contexts(p, "k3s"); len(got) != 1 || got[0].Type != "container_file_t" {
		t.Errorf("labels of k3s without container_var_lib_t: %v", got)
	}
}

func TestRefused(t *testing.T) {
	p := open(t, map[string]string{"vendor": "(type container_log_reader_t)\n(roletype system_r container_log_reader_t)\n(allow kernel_t container_log_reader_t (process (signal)))\n"})
	for _, c := range []struct{ base, role, want string }{
		{"container_t", "log-reader", "the vendor's policy has a type or a boolean container_log_reader_t of its own: use that one"},
		{"container_t", "no-role", "there is no role no-role"},
		{"", "k3s", "the policy does not say in which domain containers run"},
		{"lxc_t", "k3s", "the policy does not say in which domain containers run"},
	} {
		if text, err := roles.Write(p, c.base, c.role); err == nil || err.Error() != c.want || text != "" {
			t.Errorf("%+v: %q, %v", c, text, err)
		}
	}
}

func TestAllowing(t *testing.T) {
	bare := open(t, map[string]string{"reference": reference})
	ask := func(target, class, permissions string) policydb.Question {
		return policydb.Question{Domain: "container_t", Target: target, Class: class, Permissions: strings.Fields(permissions)}
	}
	for _, c := range []struct {
		questions []policydb.Question
		want      string
	}{
		{[]policydb.Question{ask("var_log_t", "file", "read open")}, "{log-reader container_log_reader_t  }"},
		{[]policydb.Question{ask("var_log_t", "file", "read open"), ask("container_log_t", "lnk_file", "read"), ask("container_file_t", "file", "write")}, "{log-reader container_log_reader_t  }"},
		{[]policydb.Question{ask("auditd_log_t", "file", "read")}, "{log-reader container_log_reader_t container_log_reader_read_audit }"},
		{[]policydb.Question{ask("var_log_t", "file", "read write")}, ""},
		{[]policydb.Question{ask("var_log_t", "file", "read"), ask("shadow_t", "file", "read")}, ""},
		{[]policydb.Question{ask("init_t", "dir", "search")}, "{node-exporter container_node_exporter_t  }"},
		{[]policydb.Question{ask("spc_t", "unix_stream_socket", "connectto")}, "{csi-node container_csi_sidecar_t  }"},
		{[]policydb.Question{ask("fixed_disk_device_t", "blk_file", "read")}, ""}, // whoever needs that knows it
		{[]policydb.Question{ask("container_file_t", "file", "read")}, ""},        // allowed
		{nil, ""},
	} {
		got, ok := roles.Allowing(bare, "container_t", c.questions)
		if ok != (c.want != "") || ok && fmt.Sprint(got) != c.want {
			t.Errorf("%v: %v, want %s", c.questions, got, c.want)
		}
	}
	if got, ok := roles.Allowing(with(t, map[string]string{"reference": reference}), "container_t", []policydb.Question{ask("var_log_t", "file", "read")}); ok {
		t.Errorf("the policy has the domain, and %v is offered", got)
	}
	for _, c := range []struct {
		path string
		q    policydb.Question
		want string
	}{
		{"/opt/cni/bin/bridge", ask("usr_t", "file", "create write"), "{cni-installer container_cni_installer_t  container_cni_plugin_t}"},
		{"/opt/cni/bin", ask("unlabeled_t", "dir", "add_name write"), "{cni-installer container_cni_installer_t  container_cni_plugin_t}"},
		{"/etc/cni/net.d/10-x.conf", ask("etc_t", "file", "write"), "{cni-installer container_cni_installer_t  container_cni_config_t}"},
		{"/opt/cni", ask("usr_t", "dir", "add_name"), ""},
		{"/opt/bin/x", ask("usr_t", "file", "write"), ""},
		{"/var/lib/rancher/k3s/storage/x", ask("var_lib_t", "file", "write"), ""},
	} {
		got, ok := roles.ForPath(bare, "container_t", c.path, c.q)
		if ok != (c.want != "") || ok && fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", c.path, got, c.want)
		}
	}
}

// Each role says what it does, and is told from the others and from what it was.
func TestRoles(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range roles.Names() {
		if roles.Does(name) == "" || seen[roles.Digest(name)] {
			t.Errorf("%s: %q", name, roles.Does(name))
		}
		seen[roles.Digest(name)] = true
	}
	if !slices.IsSorted(roles.Names()) || len(seen) < 6 {
		t.Errorf("%v", roles.Names())
	}
}

package vmtests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// canary checks a domain that is permissive on an enforcing host: what it is denied takes place, is logged, and speaks against enforcing it.
func (m *Machine) canary(t *testing.T, domain, does string) {
	t.Helper()
	m.Must(t, does)
	if found := m.denials(t, "--source "+domain).Findings; len(found) == 0 || found[0].Permissive == 0 || found[0].Enforced > 0 {
		t.Errorf("the denials of %s: %v", domain, found)
	}
	if got := m.fails(t, "getenforce; /opt/bin/selinux-provision readiness --domain "+domain, 3); !contains(got, "Enforcing\n") ||
		!contains(got, domain+" is permissive by itself, and the host enforces") || !contains(got, "enforcing would stop ") {
		t.Errorf("readiness of the domain says\n%s", got)
	}
}

// permissiveAgain checks a host whose guard has made a domain permissive again: it goes on enforcing all else, and says what happened.
func (m *Machine) permissiveAgain(t *testing.T, domain string) {
	t.Helper()
	m.Must(t, "for i in $(seq 180); do systemctl -q is-active selinux-provision-guard.service || exit 0; sleep 1; done; systemctl status selinux-provision-guard; exit 1")
	m.mode(t, "the host of a domain that got sick", "Enforcing", "enforcing", 0)
	if got := m.status(t, 3).problems(); !contains(got, "the domain "+domain+" was made permissive again by the guard at ") || !contains(got, " denied to it, and at most 10 may be") ||
		!contains(got, "--retry-guard") || contains(got, "\n") {
		t.Errorf("status says\n%s", got)
	}
	m.expect(t, "the line of the domain", "/opt/bin/selinux-provision status | grep -c '"+domain+" is permissive: made permissive again by the guard, because '", "1")
	m.expect(t, "the journal", "journalctl -b -o cat MESSAGE_ID=8bf2377979d441829b255c3cc2f44bc8 | grep -c 'enforcing "+domain+" was tried and given up: it is made permissive again'", "1")
}

// TestRoles declares roles on an enforcing machine, and has containers of Docker do what each role is for and try more: a log collector reads and follows
// links and cannot write, an installer of network plugins writes in its two places, twice, and nowhere else, and another container cannot write
// there. Pods have the network that the plugins make which were installed like this. What an agent made of BPF calls is denied in each domain but spc_t.
// What the page on roles says that each may and may not is asked of the policy that the machine has built.
func TestRoles(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`avc: +denied`, "the test provokes it"})
	m.importBusybox(t)
	m.Must(t, "mkdir -p /opt/cni/bin /etc/cni/net.d /var/log/pods/web && echo hello > /var/log/pods/web/0.log && ln -s pods/web/0.log /var/log/web.log && restorecon -RF /var/log")
	const read = "--network none -v /var/log:/var/log busybox "
	m.fails(t, "docker run --name plain "+read+"cat /var/log/web.log", 1)
	found := m.denials(t, "--container plain").Findings
	if len(found) == 0 {
		t.Fatal("the collector's denial is not found")
	}
	if fix := found[0].Fix; fix.Kind != "role" || !contains(fix.Config, "roles: [log-reader]") {
		t.Errorf("the fix is %+v", fix)
	}
	const file = "/etc/selinux-provision/config.d/10-site.yaml"
	const site = `version: 1
policy: {roles: [cni-installer, csi-node, k3s, log-reader, node-exporter, rke2]}
audit: {log_denials: true, dontaudit: strip}
readiness: {window: 1s}
enforce:
  guard: {window: 1h, max_denials: 10, units: [docker.service]}
`
	m.put(t, file, site+"  permissive_domains: [container_log_reader_t]\n")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply && systemctl start selinux-provision-evidence.service"))
	m.status(t, 0)

	in := func(domain string) string {
		return "docker run --rm --security-opt no-new-privileges --security-opt label=type:" + domain + " "
	}
	reader := in("container_log_reader_t") + read
	m.canary(t, "container_log_reader_t", reader+"sh -c 'echo x >> /var/log/pods/web/0.log'")
	m.put(t, file, site)
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	if got := m.status(t, 3).problems(); !contains(got, "enforcing container_log_reader_t is on trial") || contains(got, "\n") {
		t.Errorf("status says\n%s", got)
	}
	if got := m.Must(t, reader+"sh -c 'cat /var/log/web.log /proc/self/attr/current'"); !contains(got, "hello") || !contains(got, "system_u:system_r:container_log_reader_t:s0:c") {
		t.Errorf("the log reader reads:\n%s", got)
	}
	m.Must(t, reader+"sh -c '! echo x >> /var/log/pods/web/0.log && ! ln -s x /var/log/mine && ! rm /var/log/web.log && ! chmod 0 /var/log/pods/web/0.log'")

	m.Must(t, reader+"sh -c 'until echo x >> /var/log/pods/web/0.log; do sleep 0.3; done'") // denied, until it is sick
	m.permissiveAgain(t, "container_log_reader_t")

	const places = "--network none -v /opt/cni/bin:/bin2 -v /etc/cni/net.d:/net.d -v /etc:/host:ro "
	installer := in("container_cni_installer_t") + places + "busybox "
	for range 2 { // the second has other categories
		m.Must(t, installer+"sh -c 'cp /bin/busybox /bin2/.plugin && mv /bin2/.plugin /bin2/plugin && echo {} > /net.d/.conf && mv /net.d/.conf /net.d/10-x.conf'")
	}
	m.expect(t, "what it made", "stat -c %C /opt/cni/bin/plugin /etc/cni/net.d/10-x.conf; (exec -a busybox /opt/cni/bin/plugin true) && echo runs",
		"system_u:object_r:container_cni_plugin_t:s0\nsystem_u:object_r:container_cni_config_t:s0\nruns")
	m.Must(t, "mkdir -p /etc/vmtest /opt/vmtest")
	m.Must(t, in("container_cni_installer_t")+"--network none -v /etc/vmtest:/e -v /opt/vmtest:/o busybox sh -c '! touch /e/x && ! touch /o/x'")
	m.Must(t, "docker run --rm "+places+"busybox sh -c '! touch /bin2/x && ! cat /net.d/10-x.conf'")

	m.networkPlugins(t, in("container_cni_installer_t"))
	m.agentOfBPF(t, in)

	exporter := in("container_node_exporter_t") + "--network none --pid host -v /proc:/host:ro busybox "
	m.Must(t, exporter+"sh -c 'cat /host/1/mounts /host/sys/vm/swappiness > /dev/null && ! kill -0 1'")

	page, err := os.ReadFile(filepath.Join(RepositoryRoot(), "docs/roles.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	type row struct{ domain, on, class, may, not string }
	var rows []row
	for _, f := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| `([a-z0-9_]+)` \\| `([a-z0-9_]+)` \\| (?:`([a-z_ ]+)`)? ?\\| (?:`([a-z_ ]+)`)? ?\\|$").FindAllStringSubmatch(string(page), -1) {
		rows = append(rows, row{f[1], f[2], f[3], f[4], f[5]})
		fmt.Fprintf(&script, "echo '== %d'; /opt/bin/selinux-provision denials --may %s --on %s | grep '^%s: ' | grep -v ' not so now' || true\n", len(rows)-1, f[1], f[2], f[3])
	}
	if len(rows) < 33 {
		t.Fatalf("the page has %d rows that can be asked", len(rows))
	}
	answers := strings.Split(m.Must(t, script.String()), "== ")[1:]
	if len(answers) != len(rows) {
		t.Fatalf("%d answers to %d questions", len(answers), len(rows))
	}
	for i, r := range rows {
		has := strings.Fields(answers[i])
		for _, permission := range strings.Fields(r.may) {
			if !slices.Contains(has, permission) {
				t.Errorf("%s may not %s %s, class %s: %v", r.domain, permission, r.on, r.class, has)
			}
		}
		for _, permission := range strings.Fields(r.not) {
			if slices.Contains(has, permission) {
				t.Errorf("%s may %s %s, class %s: %v", r.domain, permission, r.on, r.class, has)
			}
		}
	}

	m.Must(t, "rm "+file+" && /opt/bin/selinux-provision apply")
	m.expect(t, "declared no more", "semodule -l | grep -c selinux_provision_role || true; test $(stat -c %C /opt/cni/bin/plugin | cut -d: -f3) = $(matchpathcon -n /opt/cni/bin/plugin | cut -d: -f3) && echo same", "0\nsame")
	m.status(t, 0)
}

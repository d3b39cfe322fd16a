package vmtests

import "testing"

// TestDeclaredFileContexts declares labels for two paths, one of them on the overlay of /etc, changes one, and takes both back: what is
// there gets its label each time, and nothing beside it is touched.
func TestDeclaredFileContexts(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.Must(t, "mkdir -p /srv/data/sub /etc/vmtest && touch /srv/data/sub/file /srv/beside /etc/vmtest/admin.conf")
	const look = "stat -c %C /srv/data /srv/data/sub/file /etc/vmtest/admin.conf; stat -c '%C %Z' /srv/beside /etc/hosts"
	beside := "\n" + m.Must(t, "stat -c '%C %Z' /srv/beside /etc/hosts")
	declare := func(level string) string {
		return "version: 1\npolicy:\n  file_contexts:\n" +
			"    - {path: '/srv/data(/.*)?', context: 'system_u:object_r:container_file_t:" + level + "'}\n" +
			"    - {path: '/etc/vmtest(/.*)?', context: 'system_u:object_r:container_file_t:s0'}\n"
	}
	for _, level := range []string{"s0:c1,c2", "s0"} {
		m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", declare(level))
		t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
		data := "system_u:object_r:container_file_t:" + level
		m.expect(t, "declared with level "+level, look, data+"\n"+data+"\nsystem_u:object_r:container_file_t:s0"+beside)
		m.status(t, 0)
	}
	m.Must(t, "rm /etc/selinux-provision/config.d/10-site.yaml")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	if left := m.Must(t, "find /srv/data /etc/vmtest -context '*container_file_t*'"); left != "" {
		t.Errorf("declared no more, and still labelled: %s", left)
	}
	m.status(t, 0)
}

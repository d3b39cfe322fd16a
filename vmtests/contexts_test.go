package vmtests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeclaredFileContexts declares labels for two paths, one of them on the overlay of /etc, changes one, and takes both back: what is
// there gets its label each time, and nothing beside it is touched. One context has its type by an old name and its categories in an order
// of its own: what counts is what it means.
func TestDeclaredFileContexts(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	t.Run("as libselinux reads them", m.contextsAsLibselinux)
	m.Must(t, "mkdir -p /srv/data/sub /etc/vmtest && touch /srv/data/sub/file /srv/beside /etc/vmtest/admin.conf")
	const look = "stat -c %C /srv/data /srv/data/sub/file /etc/vmtest/admin.conf; stat -c '%C %Z' /srv/beside /etc/hosts"
	beside := "\n" + m.Must(t, "stat -c '%C %Z' /srv/beside /etc/hosts")
	declare := func(level string) string {
		return "version: 1\npolicy:\n  file_contexts:\n" +
			"    - {path: '/srv/data(/.*)?', context: 'system_u:object_r:" + alias + ":" + level + "'}\n" +
			"    - {path: '/etc/vmtest(/.*)?', context: 'system_u:object_r:container_file_t:s0'}\n"
	}
	for _, level := range []string{"s0:c1,c2", "s0"} {
		declared := strings.Replace(level, "c1,c2", "c2,c1", 1)
		m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", declare(declared))
		t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
		data := "system_u:object_r:container_file_t:" + level
		m.expect(t, "declared with level "+declared, look, data+"\n"+data+"\nsystem_u:object_r:container_file_t:s0"+beside)
		m.status(t, 0)
	}
	const byHand = "mkdir -p /srv/tree/sub && /opt/bin/selinux-provision relabel /srv/tree --verify --context system_u:object_r:" + alias + ":s0:c2,c1"
	m.Must(t, byHand)
	m.expect(t, "labelled by hand, and again", byHand+" | grep -o '[0-9]* right already'; stat -c %C /srv/tree /srv/tree/sub",
		"2 right already\nsystem_u:object_r:container_file_t:s0:c1,c2\nsystem_u:object_r:container_file_t:s0:c1,c2")
	m.Must(t, "rm /etc/selinux-provision/config.d/10-site.yaml")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	if left := m.Must(t, "find /srv/data /etc/vmtest -context '*container_file_t*'"); left != "" {
		t.Errorf("declared no more, and still labelled: %s", left)
	}
	m.status(t, 0)
}

// TestEquivalence has a directory labelled like another one, as libselinux itself looks it up, also after somebody has built the policy by hand, and
// takes it back.
func TestEquivalence(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t)
	m.Must(t, "mkdir -p /data/docker/volumes")
	plain := m.Must(t, "matchpathcon -n /data/docker | cut -d: -f3")
	const site, look = "/etc/selinux-provision/config.d/10-site.yaml", "{ matchpathcon -n /data/docker /data/docker/volumes/x; stat -c %C /data/docker; } | cut -d: -f3"
	like := m.Must(t, "{ matchpathcon -n /var/lib/docker /var/lib/docker/volumes/x; matchpathcon -n /var/lib/docker; } | cut -d: -f3")
	m.put(t, site, "version: 1\npolicy: {equivalences: [{path: /data/docker, like: /var/lib/docker}]}\n")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	m.expect(t, "as declared", look, like)
	m.status(t, 0)
	m.Must(t, "semodule -B")
	m.expect(t, "after a build by hand", look, like)
	m.Must(t, "rm "+site)
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	m.expect(t, "taken back", "stat -c %C /data/docker | cut -d: -f3; test -e /etc/selinux/mcs/contexts/files/file_contexts.subs; echo $?", plain+"\n1")
	m.status(t, 0)
}

// contextsAsLibselinux lets the tests of internal/filecontexts read the file contexts of the machine's policy: no machine that only builds the
// program has a policy of that size.
func (m *Machine) contextsAsLibselinux(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"file_contexts", "file_contexts.homedirs", "file_contexts.subs_dist"} {
		content, err := m.Get(t.Context(), "/etc/selinux/mcs/contexts/files/"+name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := exec.Command("go", "test", "-v", "-vet=off", "-count=1", "-run", "RealPolicies", "github.com/selinux-provision/selinux-provision/internal/filecontexts")
	tests.Env = append(os.Environ(), "FILE_CONTEXTS="+filepath.Join(dir, "file_contexts"))
	if out, err := tests.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
		t.Errorf("%v\n%s", err, out)
	}
}

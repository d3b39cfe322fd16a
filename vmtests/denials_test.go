package vmtests

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// importBusybox gives Docker an image named busybox, from a tar with a static busybox.
func (m *Machine) importBusybox(t *testing.T) {
	t.Helper()
	m.Must(t, `mkdir -p /tmp/image/bin && cp "$(command -v busybox)" /tmp/image/bin/ && for name in sh cat ls sleep; do ln -s busybox /tmp/image/bin/$name; done
tar -C /tmp/image -cf /tmp/busybox.tar . && docker import /tmp/busybox.tar busybox`)
}

// finding is what the test reads of denials --json.
type finding struct {
	ID          string
	Subject     struct{ Container, Image, Runtime, Pod, Unit string }
	Domain      string
	Target      string
	Class       string
	Source      string `json:"source_context"`
	Object      string `json:"target_context"`
	Paths       []struct{ Path, Host string }
	Count       int
	Enforced    int
	Permissive  int
	Permissions map[string]int
	Fix         struct{ Kind, Text, Command, Config string }
}

func (f finding) String() string {
	var permissions []string
	for name := range f.Permissions {
		permissions = append(permissions, name)
	}
	return fmt.Sprintf("%s %s %v %s:%s %d/%d %s", f.Subject.Container, f.Domain, permissions, f.Target, f.Class, f.Enforced, f.Count, f.Fix.Kind)
}

type denialsReport struct {
	Findings   []finding
	Dontaudits int
	Sources    []string
	Stats      struct{ Denials, Duplicates, Missing int }
}

// denials asks selinux-provision, with everything that was logged in the journal.
func (m *Machine) denials(t *testing.T, flags string) (r denialsReport) {
	t.Helper()
	out := m.Must(t, "journalctl --sync; /opt/bin/selinux-provision denials --json "+flags)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("denials: %v\n%s", err, out)
	}
	return r
}

// one is denials where one finding is expected.
func (m *Machine) one(t *testing.T, flags, want string) finding {
	t.Helper()
	r := m.denials(t, flags)
	if len(r.Findings) != 1 || r.Findings[0].String() != want {
		t.Fatalf("denials %s: got %v, want %s", flags, r.Findings, want)
	}
	return r.Findings[0]
}

// TestDenials is the way from a denial to the answer, with containers of Docker on an enforcing machine: a volume that nobody labelled, one of
// another container, and a log collector that gets a domain of its own, which no other container has.
//
// Proves V18: the kernel's log in the journal, the audit daemon's log and journald's own audit socket, as one; dontaudit rules
// hide a denial, and the empty answer says so.
// Proves V9: a container in a declared type is named before a revert, after which the runtime cannot start it.
// Proves V19: with Docker: an unlabelled volume, one of another container, the log collector.
func TestDenials(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`avc: +denied`, "the test provokes it"})
	m.importBusybox(t)

	// The container test of Flatcar's own harness.
	m.Must(t, "mkdir /etc/misc")
	m.fails(t, "docker run --name misc --network none -v /etc/misc:/opt busybox sh -c 'echo hello > /opt/hello'", 1)
	m.expect(t, "denials of one failed write", "journalctl --sync; journalctl -b | grep -c 'avc: *denied'", "1")
	f := m.one(t, "--boot", "misc container_t [write] etc_t:dir 1/1 volume")
	if !strings.HasPrefix(f.Source, "system_u:system_r:container_t:s0:c") || f.Object != "system_u:object_r:etc_t:s0" || f.Subject.Image != "busybox" || f.Subject.Runtime != "docker" ||
		len(f.Paths) != 1 || f.Paths[0].Path != "misc" || f.Paths[0].Host != "/etc/misc" {
		t.Errorf("got %+v", f)
	}
	m.Must(t, "docker run --rm --network none -v /etc/misc:/opt:z busybox sh -c 'echo hello > /opt/hello' && grep hello /etc/misc/hello")

	// A volume with the host's label, and one with another container's categories.
	m.Must(t, "mkdir /srv/plain /srv/mine")
	m.fails(t, "docker run --name plain --network none -v /srv/plain:/data busybox sh -c 'echo hello > /data/file'", 1)
	f = m.one(t, "--container plain", "plain container_t [write] var_t:dir 1/1 volume")
	if !contains(f.Fix.Config, "{path: '/srv/plain(/.*)?', context: 'system_u:object_r:container_file_t:s0'}") {
		t.Errorf("the fix is %+v", f.Fix)
	}
	// The same as it comes, over a rotation of the journal.
	m.Must(t, "systemd-run --quiet --unit=vmtest-follow --property=StandardOutput=file:/tmp/followed /opt/bin/selinux-provision denials --json --follow --container plain; sleep 3")
	m.fails(t, "docker start -a plain", 1)
	m.Must(t, "sleep 2; journalctl --rotate")
	m.fails(t, "docker start -a plain", 1)
	m.Must(t, "sleep 2; systemctl kill --signal=INT vmtest-follow; while systemctl -q is-active vmtest-follow; do sleep 1; done; ! systemctl -q is-failed vmtest-follow")
	m.expect(t, "what came", `sed -E 's/.*"event":"([a-z]+)","time":"[^"]*","count":([0-9]+).*/\1 \2/' /tmp/followed | paste -sd ' '`, "begin 0 denial 1 repeats 1 end 2")

	m.Must(t, "docker run --name first --network none -v /srv/mine:/data:Z busybox sh -c 'echo mine > /data/file'")
	m.fails(t, "docker run --name second --network none -v /srv/mine:/data busybox cat /data/file", 1)
	f = m.one(t, "--container second", "second container_t [search] container_file_t:dir 1/1 categories")
	if !contains(f.Fix.Text, "no allow rule helps") {
		t.Errorf("the fix is %+v", f.Fix)
	}

	// A service of the host that lives on is known by its unit.
	m.Must(t, `systemd-run --quiet --unit=vmtest-probe bash -O execfail -c 'printf system_u:system_r:sshd_t:s0 > /proc/self/attr/exec; exec /bin/true; echo > /proc/self/attr/exec; sleep 1000'; sleep 2`)
	if r := m.denials(t, "--unit vmtest-probe"); len(r.Findings) != 1 || r.Findings[0].Domain != "kernel_t" || r.Findings[0].Subject.Unit != "vmtest-probe.service" {
		t.Errorf("a service: %+v\nall: %+v", r.Findings, m.denials(t, "--boot").Findings)
	}
	m.Must(t, "systemctl stop vmtest-probe")

	// The log collector: what kubelet makes of a container's log, read by another container through its links.
	m.Must(t, `docker run -d --name web --network none busybox sh -c 'while :; do echo hello; sleep 1; done' && sleep 2
mkdir -p /var/log/pods/default_web_0/web /var/log/containers
ln -s "$(docker inspect -f '{{.LogPath}}' web)" /var/log/pods/default_web_0/web/0.log
ln -s /var/log/pods/default_web_0/web/0.log "/var/log/containers/web_default_web-$(docker inspect -f '{{.Id}}' web).log"
restorecon -RF /var/log /var/lib/docker/containers`)
	collector := func(options string) string {
		return "docker run " + options + " --network none -v /var/log:/var/log:ro -v /var/lib/docker/containers:/var/lib/docker/containers:ro busybox sh -c 'cat /var/log/containers/*.log /proc/self/attr/current'"
	}
	// Enforcing would show one step of the way at a time.
	m.Must(t, "setenforce 0; "+collector("--name collector")+"; code=$?; setenforce 1; exit $code")
	denied := func() string {
		var all []string
		for _, f := range m.denials(t, "--container collector").Findings {
			all = append(all, fmt.Sprintf("%s:%s %s", f.Target, f.Class, f.Fix.Kind))
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	const wants = "container_log_t:dir role, container_log_t:file role, container_log_t:lnk_file role"
	if got := denied(); got != wants {
		t.Errorf("the collector is denied %s, want %s", got, wants)
	}
	const cil = modulesDir + "kube_logreader.cil"
	t.Log(m.Must(t, "/opt/bin/selinux-provision denials --container collector --module kube_logreader > /tmp/kube_logreader.cil; cat /tmp/kube_logreader.cil"))
	m.expect(t, "the same denials again", "/opt/bin/selinux-provision denials --container collector --module kube_logreader 2>/dev/null | cmp - /tmp/kube_logreader.cil && echo same", "same")

	// Once the audit daemon runs, records go to its log and no more to the kernel's. Both are read, as one.
	before := m.denials(t, "--boot").Stats
	m.Must(t, "systemctl start auditd")
	m.fails(t, "docker start -a collector", 1)
	m.expect(t, "the audit daemon's log", "sleep 1; grep -c 'avc: *denied.*container_log_t' /var/log/audit/audit.log", "1")
	after := m.denials(t, "--boot")
	// The record with which the kernel hands over to the daemon goes to neither log, and that it is missing is seen.
	if after.Stats.Denials != before.Denials+1 || after.Stats.Missing > 1 || len(after.Sources) != 2 {
		t.Errorf("before %+v, after one more denial %+v from %q", before, after.Stats, after.Sources)
	}

	// journald's own ear for the kernel's records: the same denial by a second way.
	m.Must(t, `mkdir -p /run/systemd/system/systemd-journald.service.d
printf '[Service]\nSockets=systemd-journald-audit.socket\n' > /run/systemd/system/systemd-journald.service.d/audit.conf
systemctl daemon-reload && systemctl restart systemd-journald.service && systemctl is-active systemd-journald-audit.socket`)
	before = m.denials(t, "--boot").Stats
	m.fails(t, "docker start -a collector", 1)
	m.expect(t, "journald's own record", "sleep 1; journalctl --sync; journalctl -b -o cat _TRANSPORT=audit | grep -c 'avc: *denied.*container_log_t'", "1")
	if after := m.denials(t, "--boot").Stats; after.Denials != before.Denials+1 || after.Duplicates <= before.Duplicates || after.Missing > before.Missing+1 {
		t.Errorf("before %+v, after one more denial, by two ways, %+v", before, after)
	}
	if got := denied(); got != wants {
		t.Errorf("by all ways the collector is denied %s, want %s", got, wants)
	}

	// A denial that is logged while dontaudit is stripped, and nowhere when it is not; and the collector in a domain of its own.
	m.fails(t, "docker run --name curious --network none -v /etc/selinux:/host:ro busybox cat /host/config", 1)
	m.one(t, "--container curious", "curious container_t [read] selinux_config_t:file 1/1 rule")
	m.put(t, "/etc/selinux-provision/config.d/10-site.yaml", "version: 1\naudit: {dontaudit: keep}\n")
	m.Must(t, "mkdir -p "+modulesDir+" && cp /tmp/kube_logreader.cil "+cil)
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	m.Must(t, "sleep 1; date +%s > /tmp/marker")
	m.fails(t, "docker start -a curious", 1)
	if r := m.denials(t, "--since @$(cat /tmp/marker)"); len(r.Findings) != 0 || r.Dontaudits == 0 {
		t.Errorf("with dontaudit kept: %+v", r)
	}
	if said := m.Must(t, "/opt/bin/selinux-provision denials --since @$(cat /tmp/marker)"); !contains(said, "No denials in the journal") || !contains(said, "dontaudit rules of the policy hide denials") {
		t.Errorf("an empty answer says:\n%s", said)
	}

	read := m.Must(t, collector("--name reader --security-opt label=type:kube_logreader_t"))
	if !contains(read, `"log":"hello\n"`) || !contains(read, "system_u:system_r:kube_logreader_t:s0:c") {
		t.Errorf("the collector in its own domain reads:\n%s", read)
	}
	m.Must(t, "docker run -d --name stopped --network none --security-opt label=type:kube_logreader_t busybox sleep 1000 && docker stop -t 1 stopped")
	m.fails(t, "docker start -a collector", 1) // is still a plain container
	m.expect(t, "what the new domain has besides", "/opt/bin/selinux-provision denials --may kube_logreader_t --beyond container_t", "container_log_t dir: read\ncontainer_log_t file: open read\ncontainer_log_t lnk_file: read")
	m.expect(t, "what it lacks", "/opt/bin/selinux-provision denials --may container_t --beyond kube_logreader_t", "container_t may nothing that kube_logreader_t may not.")
	m.expect(t, "what plain containers may", "/opt/bin/selinux-provision denials --may container_t --on container_log_t | grep -c lnk_file || true", "0")
	if got := m.denials(t, "--source kube_logreader_t").Findings; len(got) != 0 {
		t.Errorf("denials of the new domain: %v", got)
	}

	// The vendor's policy does not have the domain: a container in it runs on after a revert, and cannot be started again. That is said before.
	m.Must(t, "docker run -d --name typed --network none --security-opt label=type:kube_logreader_t busybox sleep 1000")
	for _, revert := range []string{"revert --dry-run", "revert"} {
		if said := m.Must(t, "/opt/bin/selinux-provision "+revert+" 2>&1"); !contains(said, "container typed (type kube_logreader_t): it runs on, and cannot be started again") {
			t.Errorf("%s says:\n%s", revert, said)
		}
	}
	m.Must(t, "docker stop -t 1 typed")
	if said := m.fails(t, "docker start typed", 1); !contains(said, "keycreate: invalid argument") {
		t.Errorf("the runtime says:\n%s", said)
	}
}

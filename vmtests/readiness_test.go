package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// worker is a unit that runs.
const worker = "[Unit]\nDescription=A workload\n[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"

// verdict is what the test reads of readiness --json.
type verdict struct {
	Verdict string
	Checks  []struct{ Check, Verdict, Found string }
	Denials []struct{ ID string }
	Apart   []struct{ ID, Why string } `json:"set_apart"`
	Boots   int
	Lost    int
}

// readiness asks, and checks which checks speak against enforcing: their names, in the order in which they are made.
func (m *Machine) readiness(t *testing.T, when, want string, against ...string) verdict {
	t.Helper()
	out, err := m.Run(t.Context(), "/opt/bin/selinux-provision readiness --json")
	if err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := json.Unmarshal([]byte(out.Stdout), &v); err != nil {
		t.Fatalf("%s: readiness --json: %v\n%s%s", when, err, out.Stdout, out.Stderr)
	}
	var got, found []string
	for _, c := range v.Checks {
		if c.Verdict != "ready" {
			got = append(got, c.Check)
		}
		found = append(found, fmt.Sprintf("%s: %s: %s", c.Check, c.Verdict, c.Found))
	}
	exit := 3
	if want == "ready" {
		exit = 0
	}
	if v.Verdict != want || strings.Join(got, " ") != strings.Join(against, " ") || out.Exit != exit {
		t.Errorf("%s: %s (exit code %d), against it %v; want %s, %v\n%s", when, v.Verdict, out.Exit, got, want, against, strings.Join(found, "\n"))
	}
	return v
}

func observe(window, extra string) string {
	return "version: 1\nmode: permissive\n" + extra + "readiness: {window: " + window + ", units: [docker.service, vmtest-work.service], containers: [web]}\n"
}

// fromPage gives the block of the page about a fleet that has a line.
func fromPage(t *testing.T, line string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(RepositoryRoot(), "docs", "fleet.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(page), "```") {
		if text, is := strings.CutPrefix(block, "yaml\n"); is && i%2 == 1 && contains("\n"+text, "\n"+line+"\n") {
			return text
		}
	}
	t.Fatalf("docs/fleet.md has no block with %q", line)
	return ""
}

// writeForFleet has the evidence's unit write what docs/fleet.md has it write, with the drop-in of that page.
func (m *Machine) writeForFleet(t *testing.T) {
	t.Helper()
	var butane struct {
		Storage struct{ Directories []struct{ Path string } }
		Systemd struct {
			Units []struct {
				Name    string
				Dropins []struct{ Name, Contents string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(fromPage(t, "variant: flatcar")), &butane); err != nil || len(butane.Systemd.Units) != 1 || len(butane.Storage.Directories) != 2 {
		t.Fatalf("%v: %+v", err, butane)
	}
	for _, d := range butane.Storage.Directories {
		m.Must(t, "mkdir -p "+d.Path)
	}
	unit := butane.Systemd.Units[0]
	m.put(t, "/etc/systemd/system/"+unit.Name+".d/"+unit.Dropins[0].Name, unit.Dropins[0].Contents)
	m.Must(t, "systemctl daemon-reload")
}

// TestReadiness flips the verdict for each reason, on a host that collects evidence from its first boot on, and ends with a mode that was held back until
// the host was ready.
//
// Proves P4: the verdict flips for each reason; the mode is held back until the host is ready.
func TestReadiness(t *testing.T) {
	t.Parallel()
	Require(t)
	const file = "/etc/selinux-provision/config.d/observe.yaml"
	config, err := addToIgnition(example(t, "enforcing.bu"), map[string][]byte{file: []byte(observe("1h", ""))},
		map[string]string{"docker.service": "", "vmtest-work.service": worker})
	if err != nil {
		t.Fatal(err)
	}
	m := StartCopy(t, "observed", Options{Ignition: config, Allowed: []Allowed{
		transitionDenied(),
		{`avc: +denied .*comm="sh" .*scontext=system_u:system_r:container_t:s0:c1,c`, "the same, as far as a permissive kernel lets it come"},
		{`selinux-provision-stage-enforce\.service|Failed to start selinux-provision-…`, "the mode is held back"},
	}})
	m.writeForFleet(t)
	sample := func() {
		t.Helper()
		m.Must(t, "systemctl start selinux-provision-evidence.service")
	}
	m.expect(t, "the timer", "systemctl is-active selinux-provision-evidence.timer", "active")
	m.readiness(t, "at first", "not enough evidence", "window", "reboot", "workloads")
	sample()
	m.Must(t, `mkdir -p /tmp/image && cd /tmp/image && cp --parents -L /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*') . && tar -c . | docker import - sleep &&
docker run -d --name web --restart unless-stopped --network none sleep /usr/bin/sleep infinity && sleep 20`)
	m.put(t, file, observe("20s", ""))
	sample()
	m.readiness(t, "with everything running", "not enough evidence", "reboot")

	m.reboot(t)
	m.Must(t, "until docker ps | grep -q web; do sleep 1; done")
	sample()
	if v := m.readiness(t, "after a reboot", "ready"); v.Boots != 2 || v.Lost != 0 {
		t.Errorf("%+v", v)
	}
	// The unit, which may do less than the command line, has come to the same answer.
	const metrics, features = "/var/lib/node_exporter/textfile_collector/selinux_provision.prom", "/etc/kubernetes/node-feature-discovery/features.d/selinux-provision"
	m.expect(t, "what the unit wrote for node_exporter", `grep -xc 'selinux_provision_readiness{verdict="ready"} 1\|selinux_provision_readiness_check{check="store"} 1\|selinux_provision_evidence_boots 2\|selinux_provision_as_declared 1\|selinux_provision_problems 0' `+metrics+"; stat -c %a "+metrics, "5\n644")
	m.expect(t, "what the unit wrote for node-feature-discovery", "grep -o '[.]as-declared=.*\\|[.]may-enforce=.*\\|[.]mode=.*\\|[.]readiness=.*' "+features+" | sort | tr '\\n' ' '", ".as-declared=true .may-enforce=true .mode=permissive .readiness=ready")
	if err := m.Snapshot("ready"); err != nil {
		t.Fatal(err)
	}

	// A container that its runtime was told not to confine is in the domain of the host's processes. It is named, and one that readiness names
	// speaks against enforcing.
	const run = "docker run -d --restart unless-stopped --network none "
	m.Must(t, run+"--name free --security-opt label=disable sleep /usr/bin/sleep infinity && sleep 2")
	if v := m.readiness(t, "with another container that is not confined", "ready"); !contains(fmt.Sprint(v.Checks), "1 container that readiness does not name: free (kernel_t, ") {
		t.Errorf("%+v", v)
	}
	m.status(t, 0)
	m.expect(t, "what status says of it", "/opt/bin/selinux-provision status | grep -c 'unconfined  *container free: kernel_t, '", "1")
	m.Must(t, "docker rm -f free web && "+run+"--name web --security-opt label=disable sleep /usr/bin/sleep infinity && sleep 2")
	if v := m.readiness(t, "with a workload that is not confined", "not ready", "confinement"); !contains(fmt.Sprint(v.Checks), "does not confine web (kernel_t, ") {
		t.Errorf("%+v", v)
	}
	if got := m.status(t, 3).problems(); !contains(got, "container web is not confined: it runs in kernel_t, ") {
		t.Errorf("status says\n%s", got)
	}
	m.restore(t, "ready")

	// What is found now, and is gone when its cause is.
	m.Must(t, "truncate -s 20M /var/tmp/ext4 && mkfs.ext4 -q /var/tmp/ext4 && mkdir -p /srv/volume && mount -o loop /var/tmp/ext4 /srv/volume")
	if v := m.readiness(t, "with a volume without a label", "not ready", "volumes"); !strings.Contains(fmt.Sprint(v.Checks), "/srv/volume") {
		t.Errorf("%+v", v)
	}
	m.Must(t, "chcon system_u:object_r:container_file_t:s0 /srv/volume")
	m.readiness(t, "with a volume that has one", "ready")
	m.Must(t, "umount /srv/volume && truncate -s 120M /var/tmp/btrfs && mkfs.btrfs -q /var/tmp/btrfs && mount -o loop,context=system_u:object_r:container_file_t:s0 /var/tmp/btrfs /srv/volume")
	m.readiness(t, "with a volume on Btrfs", "not ready", "btrfs")
	m.Must(t, "umount /srv/volume")
	m.put(t, modulesDir+"vmtest_good.cil", goodModule)
	m.readiness(t, "with a module that is not built", "not ready", "evidence", "window", "reboot", "workloads", "store")
	m.Must(t, "rm "+modulesDir+"vmtest_good.cil")

	// What stays in the evidence.
	m.Must(t, transition)
	v := m.readiness(t, "with a denial", "not ready", "denials")
	if len(v.Denials) == 0 {
		t.Fatalf("%+v", v)
	}
	var ids []string
	for _, d := range v.Denials {
		ids = append(ids, d.ID)
	}
	if err := m.Snapshot("denied"); err != nil {
		t.Fatal(err)
	}
	// A permissive kernel logs each denial once for a pair of contexts, so each of these has another.
	m.Must(t, "auditctl -r 1 >/dev/null; for i in 3 4 5 6; do "+strings.Replace(transition, "c2", "c$i", 1)+"; done; auditctl -r 0 >/dev/null")
	if v := m.readiness(t, "with lost records", "not ready", "lost", "denials"); v.Lost == 0 {
		t.Errorf("%+v", v)
	}
	m.Must(t, "auditctl -a always,exclude -F msgtype=AVC")
	m.readiness(t, "with an audit rule that hides denials", "not enough evidence", "evidence", "window", "reboot", "workloads")
	m.Must(t, "auditctl -D >/dev/null")
	// The vendor's policy has dontaudit rules. Only libselinux loads it: its version is above the kernel's.
	m.Must(t, "cd /etc/selinux/mcs/policy && mount --bind /usr/lib/selinux/mcs/policy/policy.* policy.* && load_policy && umount policy.*")
	v = m.readiness(t, "with dontaudit rules", "not enough evidence", "evidence", "window", "reboot", "workloads")
	if !strings.Contains(fmt.Sprint(v.Checks), "dontaudit rules of the policy hide denials") {
		t.Errorf("%+v", v)
	}
	sample()
	m.Must(t, "load_policy")
	v = m.readiness(t, "without them again", "not enough evidence", "window", "reboot")
	if !strings.Contains(fmt.Sprint(v.Checks), "it begins there because") {
		t.Errorf("%+v", v)
	}
	m.restore(t, "ready")
	m.Must(t, "/opt/bin/selinux-provision readiness --restart || true")
	m.readiness(t, "begun anew", "not enough evidence", "window", "reboot")

	// Where nothing holds the mode back, the switch says what speaks against it, and status counts what is denied.
	m.restore(t, "denied")
	m.put(t, file, strings.Replace(observe("20s", ""), "permissive", "enforcing", 1))
	if got := m.Must(t, "/opt/bin/selinux-provision apply"); !contains(got, "selinux-provision readiness says not ready: enforcing would stop") {
		t.Errorf("apply says\n%s", got)
	}
	m.expect(t, "the denials since the boot", "getenforce; /opt/bin/selinux-provision status | grep -c '^denials .* since the boot: 0 stopped something, [1-9][0-9]* only reported'", "Enforcing\n1")

	// The mode waits for the verdict.
	m.restore(t, "denied")
	enforce := strings.Replace(observe("20s", "enforce: {require_readiness: true}\n"), "permissive", "enforcing", 1)
	m.put(t, file, enforce)
	if got := m.fails(t, "/opt/bin/selinux-provision apply", 3); !contains(got, "holds the mode back: not ready: enforcing would stop") {
		t.Errorf("apply says\n%s", got)
	}
	m.fails(t, "systemctl restart selinux-provision-stage-enforce.service", 1)
	m.expect(t, "what holds it back, says the unit", "journalctl -b -o cat -u selinux-provision-stage-enforce.service | grep -c 'holds the mode back: not ready: enforcing would stop'", "1")
	m.expect(t, "what else", "journalctl -b -o cat -u selinux-provision-stage-enforce.service | grep 'holds the mode back' | grep -vc 'enforcing would stop' || true", "0")
	m.expect(t, "held back", "getenforce; grep ^SELINUX= /etc/selinux/config", "Permissive\nSELINUX=permissive")
	if got := m.status(t, 3).problems(); !contains(got, "holds the mode back") {
		t.Errorf("status says\n%s", got)
	}
	m.put(t, file, strings.Replace(enforce, "[web]", "[web], accept: ["+strings.Join(ids, ", ")+"]", 1))
	if v := m.readiness(t, "with the denial accepted", "ready"); len(v.Apart) != len(ids) {
		t.Errorf("%+v", v)
	}
	m.Must(t, "systemctl restart selinux-provision-stage-enforce.service || { journalctl -b -o cat -u selinux-provision-stage-enforce.service | tail -20; exit 1; }")
	m.expect(t, "ready", "getenforce; grep ^SELINUX= /etc/selinux/config; docker ps --format '{{.Names}}'", "Enforcing\nSELINUX=enforcing\nweb")
	m.status(t, 0)
}

package vmtests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// containerdConfig has the CRI label containers, as a Kubernetes node with SELinux has it.
const containerdConfig = `version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    enable_selinux = true
    sandbox_image = "localhost/pause:1"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/opt/cni/bin"
      conf_dir = "/etc/cni/net.d"
`

// startCRI lets containerd make pods: its CRI with SELinux, an image to run and one to hold pods together; and gives the machine a client of the CRI.
func (m *Machine) startCRI(t *testing.T) {
	t.Helper()
	m.send(t, filepath.Join(buildProgram(t, "cmd/pod", "."), "pod"), "/root/pod", 0o755)
	m.startContainerd(t, containerdConfig)
}

// startContainerd lets containerd make pods, and gives it the images for them.
func (m *Machine) startContainerd(t *testing.T, config string) {
	t.Helper()
	m.put(t, "/etc/containerd/config.toml", config)
	m.importBusybox(t)
	m.Must(t, `docker import -c 'ENTRYPOINT ["/bin/sleep", "infinity"]' /tmp/busybox.tar localhost/pause:1 && docker save -o /tmp/images.tar busybox localhost/pause:1 &&
systemctl restart containerd.service && ctr -n k8s.io images import /tmp/images.tar`)
}

// buildProgram builds programs of the tests, in the directory of their module, and gives the directory that they are in.
func buildProgram(t *testing.T, dir, what string) string {
	t.Helper()
	out := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out+"/", what)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s in %s: %v\n%s", what, dir, err, text)
	}
	return out
}

// pod runs a container of a pod to its end, and gives what it printed.
func (m *Machine) pod(t *testing.T, exit int, flags, pod, container, command string) string {
	t.Helper()
	return m.fails(t, "/root/pod -wait "+flags+" run "+pod+" "+container+" sh -c '"+command+"'", exit)
}

// TestPods is the way of a log collector on an enforcing node of Kubernetes, made by the CRI of containerd as the kubelet does it: its denial names it, the
// directories of the logs get the label that the policy has for them, it gets a domain, and other pods gain nothing. What the policy does not
// confine is named whichever runtime started it: containerd's CRI, ctr.
//
// Proves V19: with containerd's CRI, podman with Quadlet, and ctr: pods, and containers that ended.
func TestPods(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`avc: +denied .*comm="(ls|cat|sh)" .*:container_t:`, "a log collector that is not in its domain"})
	m.startCRI(t)
	m.Must(t, "/root/pod run default/web main sh -c 'echo hello from web; sleep 1000'")

	const logs = "-mount /var/log:/var/log "
	const read = "ls /var/log/containers && cat /var/log/containers/web_*.log"
	m.pod(t, 1, logs, "logging/collector", "reader", read)
	r := m.denials(t, "--boot --pod logging/collector --container reader")
	if len(r.Findings) != 1 {
		t.Fatalf("denials: %v; all: %v", r.Findings, m.denials(t, "--boot").Findings)
	}
	f := r.Findings[0]
	if got := []string{f.Subject.Pod, f.Subject.Container, f.Subject.Runtime, f.Target, f.Class, f.Fix.Kind}; !slices.Equal(got, []string{"logging/collector", "reader", "containerd", "var_log_t", "dir", "relabel"}) {
		t.Errorf("the collector is denied %q: %+v", got, f)
	}

	m.put(t, "/etc/selinux-provision/config.d/10-logs.yaml", "version: 1\nreadiness: {window: 1h, containers: [default/web]}\n"+f.Fix.Config+"\n")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	const label = "system_u:object_r:container_log_t:s0"
	m.expect(t, "labels", "stat -c %C /var/log/pods /var/log/containers /var/log/pods/*/*/0.log | sort -u", label)
	m.pod(t, 1, logs, "logging/collector", "reader", read)
	m.expect(t, "labels of what was made since", "stat -c %C /var/log/pods/*/*/1.log", label)
	m.Must(t, "/opt/bin/selinux-provision denials --pod logging/collector --container reader --module kube_logreader --output "+modulesDir)
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))

	for _, flags := range []string{"", "-no-new-privs "} {
		if got := m.pod(t, 0, logs+flags+"-pod-type kube_logreader_t ", "logging/reader", "reader", read); !contains(got, "hello from web") {
			t.Errorf("%s the collector in its domain reads:\n%s", flags, got)
		}
	}
	m.pod(t, 1, logs, "logging/collector", "reader", read) // is still a plain one

	// What the policy does not confine.
	m.Must(t, "/root/pod -privileged run default/free main sleep 1000 && /root/pod -type spc_t run default/super main sleep 1000")
	m.Must(t, "ctr images import /tmp/images.tar && ctr run -d docker.io/library/busybox:latest ctrweb sleep 1000")
	var readiness struct {
		Unconfined []struct{ Container, Domain string }
		Checks     []struct{ Check, Found string }
	}
	out := m.fails(t, "/opt/bin/selinux-provision readiness --json 2>/dev/null", 3)
	if err := json.Unmarshal([]byte(out), &readiness); err != nil {
		t.Fatalf("readiness: %v\n%s", err, out)
	}
	var free []string
	for _, u := range readiness.Unconfined {
		free = append(free, u.Container+" "+u.Domain)
	}
	if got := strings.Join(free, ", "); got != "ctrweb kernel_t, default/free/main kernel_t, default/super/main spc_t" {
		t.Errorf("not confined: %s", got)
	}
	for _, c := range readiness.Checks {
		if c.Check == "workloads" && c.Found != "all 1 were seen running" {
			t.Errorf("a pod that runs: %s", c.Found)
		}
	}

	// Podman, by Quadlet: a container that is removed when it ends. Judged after that, its denial is the same.
	m.put(t, "/etc/containers/systemd/quad.container", "[Container]\nImage=localhost/busybox:latest\nNetwork=none\nVolume=/srv/quad:/data\nExec=sh -c 'trap \"exit 0\" TERM; echo hello > /data/file; sleep 1000 & wait'\n")
	m.Must(t, `mkdir -p /srv/quad /run/systemd/system-generators && ln -s /usr/libexec/podman/quadlet /run/systemd/system-generators/podman-system-generator && podman load -q -i /tmp/images.tar && systemctl daemon-reload &&
systemctl start quad.service && until journalctl --sync && journalctl -b -o cat | grep -q 'avc: *denied.*:var_t:'; do sleep 1; done`)
	const denied = "systemd-quad container_t [write] var_t:dir 1/1 volume"
	before := m.one(t, "--unit quad", denied)
	m.Must(t, "/opt/bin/selinux-provision readiness --sample && systemctl stop quad.service && ! podman container exists systemd-quad")
	after := m.one(t, "--unit quad", denied)
	if after.ID != before.ID || after.Fix != before.Fix || after.Subject != before.Subject || before.Subject.Runtime != "podman" || !contains(before.Fix.Config, "/srv/quad") {
		t.Errorf("before its end %+v, after it %+v", before, after)
	}
}

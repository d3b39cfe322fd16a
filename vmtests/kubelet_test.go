//go:build cluster

package vmtests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Releases of Kubernetes: the last one whose kubelet mounts volumes as they are, and the first that mounts them with the label of their pods.
const (
	mountsBare     = "1.36"
	mountsLabelled = "1.37"
)

// kubernetes gives the program that is all parts of Kubernetes (cmd/kubernetes), from the cache unless what it is made from has changed.
func kubernetes(t *testing.T, release string) string {
	t.Helper()
	Require(t)
	sources := filepath.Join(RepositoryRoot(), "vmtests", "cmd", "kubernetes")
	from := []string{runtime.Version()}
	for _, name := range []string{"main.go", "csi.go", "v" + release + ".mod", "v" + release + ".sum"} {
		content, err := os.ReadFile(filepath.Join(sources, name))
		if err != nil {
			t.Fatal(err)
		}
		from = append(from, string(content))
	}
	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFile(filepath.Join(CacheDir(), "lock-kubernetes-"+release), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	dir := filepath.Join(CacheDir(), fmt.Sprintf("kubernetes-%s-%s", release, digest(from...)))
	program := filepath.Join(dir, "kubelet")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = sources, append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				out = exit.Stderr
			}
			t.Fatalf("cannot build Kubernetes %s: %v\n%s", release, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	begin := time.Now()
	t.Logf("building Kubernetes %s, which takes a quarter of an hour or more ...", release)
	modfile := "-modfile=v" + release + ".mod"
	version := run("list", modfile, "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	major, minor, _ := strings.Cut(release, ".")
	unfinished := dir + ".unfinished"
	const stamp = " -X k8s.io/component-base/version."
	run("build", modfile, "-buildvcs=false", "-trimpath", "-ldflags=-s -w"+stamp+"gitVersion="+version+stamp+"gitMajor="+major+stamp+"gitMinor="+minor,
		"-o", filepath.Join(unfinished, "kubelet"), ".")
	if err := os.Rename(unfinished, dir); err != nil {
		t.Fatal(err)
	}
	removeSuperseded(dir)
	t.Logf("built Kubernetes %s (%.0fs)", version, time.Since(begin).Seconds())
	return program
}

// systemdCgroups has containerd make cgroups as the kubelet does where systemd is there.
const systemdCgroups = `    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
`

const (
	nodeName  = "node1"
	manifests = "/etc/kubernetes/manifests/"

	// kubeletConfig is that of a small node. Nothing is evicted and no image is removed, however little the machine has.
	kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: ` + manifests + `
cgroupDriver: systemd
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: ""
evictionHard: {memory.available: 10Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
runtimeRequestTimeout: 10m
fileCheckFrequency: 3s
syncFrequency: 10s
`
	// network gives the machine the address that QEMU has for it.
	network = `set -e; until ls /sys/class/net | grep -q ^e; do sleep 1; done; ip link set lo up; for dev in /sys/class/net/e*; do dev=${dev##*/}; ip link set $dev up; ip addr add 10.0.2.15/24 dev $dev; ip route add default via 10.0.2.2; done`
)

// startNode gives an enforcing machine that could be a node: containerd runs, no kubelet does.
func startNode(t *testing.T, allowed ...Allowed) *Machine {
	t.Helper()
	m := StartCopy(t, "node", Options{Ignition: withDocker(t), Network: true, MemoryMB: 2048, Allowed: allowed})
	m.startContainerd(t, containerdConfig+systemdCgroups)
	m.Must(t, network)
	m.put(t, "/etc/kubernetes/kubelet.yaml", kubeletConfig)
	m.Must(t, "mkdir -p "+manifests)
	return m
}

// startKubelet starts a kubelet, in place of the one that runs.
func (m *Machine) startKubelet(t *testing.T, program, release string, flags ...string) {
	t.Helper()
	path := "/opt/kubernetes/" + release + "/kubelet"
	m.send(t, program, path, 0o755)
	m.put(t, "/etc/systemd/system/kubelet.service", `[Unit]
After=containerd.service
[Service]
ExecStart=`+path+` --config=/etc/kubernetes/kubelet.yaml --node-ip=10.0.2.15 --hostname-override=`+nodeName+" --v=2 "+strings.Join(flags, " ")+`
Restart=on-failure
[Install]
WantedBy=multi-user.target
`)
	m.Must(t, "systemctl daemon-reload && systemctl restart kubelet.service && systemctl is-active kubelet.service")
}

// pod is what a test says of a pod. What is between braces and brackets in its manifest is YAML.
type pod struct {
	name              string // NAMESPACE/NAME
	security, volumes string
	ownNetwork        bool // and not that of the host
	containers        []container
}

type container struct{ name, security, mounts, command string }

// manifest is the pod's. No image is pulled.
func (p pod) manifest() string {
	namespace, name, _ := strings.Cut(p.name, "/")
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec:\n  hostNetwork: %v\n  terminationGracePeriodSeconds: 1\n  tolerations: [{operator: Exists}]\n"+
		"  securityContext: {%s}\n  volumes: [%s]\n  containers:\n", name, namespace, !p.ownNetwork, p.security, p.volumes)
	for _, c := range p.containers {
		text += fmt.Sprintf("  - {name: %s, image: 'docker.io/library/busybox:latest', imagePullPolicy: Never, securityContext: {%s}, volumeMounts: [%s], command: [sh, -c, %s]}\n",
			c.name, c.security, c.mounts, strconv.Quote(c.command))
	}
	return text
}

// static has the kubelet run a pod from a file.
func (m *Machine) static(t *testing.T, p pod) {
	t.Helper()
	m.put(t, manifests+strings.ReplaceAll(p.name, "/", "-")+".yaml", p.manifest())
}

// says waits until a container of a pod has said a word, and gives all that it said. The name may be the beginning of the pod's.
func (m *Machine) says(t *testing.T, pod, container, word string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), defaultTimeout)
	defer cancel()
	log := "cat /var/log/pods/" + strings.ReplaceAll(pod, "/", "_") + "[-_]*/" + container + "/*.log"
	out, err := m.Run(ctx, "until "+log+" 2>/dev/null | grep -q '"+word+"'; do sleep 1; done; "+log+" | cut -d' ' -f4-")
	if err != nil {
		m.fail(t, t.Fatal, "%s, container %s, does not say %q: %v\n%s", pod, container, word, err,
			m.Must(t, log+"; ls /var/log/pods; journalctl -b -u kubelet -u containerd --no-pager -o cat | tail -60"))
	}
	return strings.TrimSpace(out.Stdout)
}

// podDenied allows the denials that containers of a test run into on purpose.
func podDenied() Allowed {
	return Allowed{`avc: +denied .*comm="(ls|cat|sh)" .*:container_t:`, "a container tries what it may not"}
}

// TestStaticPods is an enforcing node with a kubelet of its own: the way of a log collector from its denial to a domain, and volumes of the kinds that need no
// API server, which work and which the watcher leaves to the kubelet, whatever the rules say.
//
// Proves V19: static pods of a kubelet.
func TestStaticPods(t *testing.T) {
	program := kubernetes(t, mountsLabelled)
	m := startNode(t, podDenied())

	// Rules that fit what is the kubelet's, too.
	m.put(t, "/etc/selinux-provision/config.d/10-volumes.yaml", `version: 1
volumes:
  - {name: data, match: {mountpoint: /srv/data}}
  - {name: memory, match: {fstype: tmpfs}}
  - {name: layers, match: {fstype: overlay}}
  - {name: kubelet, match: {mountpoint: '/var/lib/**'}}
`)
	m.Must(t, "mkdir -p /srv/data /srv/plain && truncate -s 32M /root/data && mkfs.ext4 -q /root/data && systemctl reload "+watchUnit+" && mount -o loop /root/data /srv/data")
	if v := m.settle(t)["data"]; v.fate() != option || v.Context != shared {
		t.Errorf("the volume: %+v", v)
	}
	m.Must(t, "date +%s > /tmp/begin")
	m.startKubelet(t, program, mountsLabelled)
	m.static(t, pod{name: "default/web", security: "seLinuxOptions: {level: 's0:c10,c20'}",
		volumes: "{name: scratch, emptyDir: {}}, {name: mem, emptyDir: {medium: Memory}}, {name: down, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}, " +
			"{name: data, hostPath: {path: /srv/data}}, {name: plain, hostPath: {path: /srv/plain, type: Directory}}",
		containers: []container{
			{name: "main", mounts: "{name: scratch, mountPath: /scratch}, {name: scratch, mountPath: /sub, subPath: deep/er}, {name: mem, mountPath: /mem}, {name: down, mountPath: /down}, " +
				"{name: data, mountPath: /data}, {name: plain, mountPath: /plain}",
				command: "echo hello from web; for d in scratch sub mem data; do echo x > /$d/file && echo $d works; done; cat /down/name; echo; echo x > /plain/file || echo plain is closed; echo ended; sleep 36000"},
			{name: "beside", mounts: "{name: scratch, mountPath: /scratch}, {name: mem, mountPath: /mem}",
				command: "until test -s /mem/file; do sleep 1; done; cat /scratch/deep/er/file /mem/file; echo ended; sleep 36000"},
		}})
	said := m.says(t, "default_web", "main", "ended")
	t.Log(said)
	for _, want := range []string{"scratch works", "sub works", "mem works", "data works", "web-" + nodeName, "plain is closed"} {
		if !slices.Contains(strings.Split(said, "\n"), want) {
			t.Errorf("the pod with volumes does not say %q", want)
		}
	}
	if said := m.says(t, "default_web", "beside", "ended"); said != "x\nx\nended" {
		t.Errorf("the container beside it says\n%s", said)
	}
	m.expect(t, "the labels of the pod's volumes", `for d in empty-dir/scratch empty-dir/scratch/deep/er empty-dir/mem downward-api/down; do stat -c %C /var/lib/kubelet/pods/*/volumes/kubernetes.io~$d; done | sort -u`, private)
	m.expect(t, "the declared volume", "stat -c %C /srv/data/file", shared)
	f := m.one(t, "--boot --pod default/web", "main container_t [write] var_t:dir 1/1 volume")
	if f.Subject.Pod != "default/web-"+nodeName || !contains(f.Fix.Config, "/srv/plain") {
		t.Errorf("the closed volume: %+v", f)
	}

	// What is the kubelet's stays so, without a word.
	m.settle(t)
	m.Must(t, "systemctl reload "+watchUnit)
	m.settle(t)
	m.expect(t, "words about what is the kubelet's or the runtime's", "journalctl -b -o cat --since=@$(cat /tmp/begin) -u "+watchUnit+" | grep -E '/var/lib/(kubelet|containerd)|/run/(containerd|netns)' || true", "")
	m.status(t, 0)

	t.Run("log collector", m.logCollector)
	m.status(t, 0)
}

// logCollector is the way of a log collector: its denial names it and the reason, the directories of the logs get their label, it gets a domain,
// and other pods gain nothing.
func (m *Machine) logCollector(t *testing.T) {
	collector := func(name, podSecurity, security string) string {
		m.static(t, pod{name: "logging/" + name, security: podSecurity, volumes: "{name: log, hostPath: {path: /var/log}}", containers: []container{
			{name: "reader", security: security, mounts: "{name: log, mountPath: /var/log, readOnly: true}",
				command: "cat /proc/self/attr/current; echo; ls /var/log/containers && cat /var/log/containers/web-*_main-*.log /var/log/pods/default_web-*/main/0.log && echo it reads; echo ended; sleep 36000"},
		}})
		return m.says(t, "logging_"+name, "reader", "ended")
	}
	reads := func(said string) bool { return contains(said, "hello from web") && contains(said, "it reads") }
	if said := collector("collector", "", ""); reads(said) {
		t.Errorf("a plain pod reads the logs:\n%s", said)
	}
	r := m.denials(t, "--boot --pod logging/collector --container reader")
	if len(r.Findings) != 1 {
		t.Fatalf("denials: %v; all: %v", r.Findings, m.denials(t, "--boot").Findings)
	}
	f := r.Findings[0]
	got := []string{f.Subject.Pod, f.Subject.Container, f.Subject.Image, f.Subject.Runtime, f.Target, f.Class, f.Fix.Kind}
	if want := []string{"logging/collector-" + nodeName, "reader", "docker.io/library/busybox:latest", "containerd", "var_log_t", "dir", "relabel"}; !slices.Equal(got, want) {
		t.Errorf("the collector is denied %q, want %q: %+v", got, want, f)
	}
	t.Log(m.Must(t, "/opt/bin/selinux-provision denials --boot"))

	m.put(t, "/etc/selinux-provision/config.d/20-logs.yaml", "version: 1\nreadiness: {window: 1h, containers: [default/web, logging/reader]}\n"+f.Fix.Config+"\n")
	t.Log(m.Must(t, "/opt/bin/selinux-provision apply"))
	const label = "system_u:object_r:container_log_t:s0"
	m.expect(t, "labels", "stat -c %C /var/log/pods /var/log/containers /var/log/pods/*/*/0.log | sort -u", label)
	if said := collector("again", "", ""); reads(said) {
		t.Errorf("a plain pod reads the logs:\n%s", said)
	}
	m.expect(t, "labels of what was made since", "stat -c %C /var/log/pods/logging_again*/reader/0.log; find /var/log/containers -lname '*logging_again*' -printf '%Z\\n'", label+"\n"+label)
	m.Must(t, "/opt/bin/selinux-provision denials --namespace logging --container reader --module kube_logreader --output "+modulesDir)
	t.Log(m.Must(t, "cat "+modulesDir+"kube_logreader.cil; /opt/bin/selinux-provision apply"))

	inDomain := func(said string) bool {
		return reads(said) && contains(said, "system_u:system_r:kube_logreader_t:s0:c")
	}
	const domain = "seLinuxOptions: {type: kube_logreader_t}"
	if said := collector("reader", domain, ""); !inDomain(said) {
		t.Errorf("the collector in its domain says\n%s", said)
	}
	if said := collector("strict", "", domain+", allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}"); !inDomain(said) {
		t.Errorf("the collector in its domain without new privileges says\n%s", said)
	}
	if said := collector("plain", "", ""); reads(said) {
		t.Errorf("a plain pod reads the logs:\n%s", said)
	}
	if got := m.denials(t, "--boot --source kube_logreader_t").Findings; len(got) != 0 {
		t.Errorf("denials of the new domain: %v", got)
	}

	// Static pods are known by both of their names, and so are what they run in and that they run.
	var readiness struct {
		Unconfined []struct{ Container, Domain string }
		Checks     []struct{ Check, Found string }
		Mount      *kubeletReport `json:"selinux_mount"`
	}
	m.readinessInto(t, &readiness)
	for _, c := range readiness.Checks {
		if c.Check == "workloads" && c.Found != "all 2 were seen running" {
			t.Errorf("pods that run: %s", c.Found)
		}
	}
	if len(readiness.Unconfined) != 0 {
		t.Errorf("not confined: %+v", readiness.Unconfined)
	}
	if mount := readiness.Mount; mount == nil || !strings.HasPrefix(mount.Kubelet, "v"+mountsLabelled+".") || mount.Mounts != "yes" || len(mount.Conflicts) != 0 {
		t.Errorf("the kubelet: %+v", mount)
	}
}

// kubeletReport is what the tests read of readiness about the kubelet.
type kubeletReport struct {
	Kubelet, Mounts, Because string
	Shared                   int
	Conflicts                []struct {
		Volume, Driver, Labels, Effect string
		Unless                         []string
		Pods                           []struct{ Pod, Asked, Level string }
	}
}

// readinessInto asks selinux-provision. That this machine is not ready, having been up for minutes, is no matter.
func (m *Machine) readinessInto(t *testing.T, into any) {
	t.Helper()
	out := m.fails(t, "/opt/bin/selinux-provision readiness --json 2>/dev/null", 3)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("readiness: %v\n%s", err, out)
	}
}

// unitSays waits until a unit has said something.
func (m *Machine) unitSays(t *testing.T, unit, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), defaultTimeout)
	defer cancel()
	if _, err := m.Run(ctx, "until journalctl -b -u "+unit+" -o cat --no-pager | grep -q '"+what+"'; do sleep 1; done"); err != nil {
		m.fail(t, t.Fatal, "%s does not say %q: %v\n%s", unit, what, err, m.Must(t, "journalctl -b -o cat --no-pager | tail -40; tail -n 15 /var/log/pods/*/*/*.log"))
	}
}

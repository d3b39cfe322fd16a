//go:build cluster

package vmtests

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cluster is a control plane that runs beside the virtual machine, where it is not emulated. It listens on the loopback interface alone.
type cluster struct {
	program string
	dir     string
	address string // of the API server, as the control plane reaches it
	client  *http.Client
	node    *Machine
}

// clusterToken is everybody's: who has it may do everything.
const clusterToken = "vmtest"

// startCluster starts etcd, the API server, the controllers and the scheduler, for a node whose kubelet is started later.
func startCluster(t *testing.T, program string, node *Machine) *cluster {
	t.Helper()
	node.Must(t, fmt.Sprintf("date -s @%d", time.Now().Unix())) // a copy has the time of its original, and tokens have times
	c := &cluster{program: program, dir: t.TempDir(), node: node}
	ports := freePorts(t, 3)
	c.address = "https://127.0.0.1:" + ports[2]
	// The certificate is made by the API server at its start, and is not what is tested here.
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	c.write(t, "tokens", clusterToken+",admin,admin,system:masters\n")
	c.write(t, "kubeconfig", kubeconfig(c.address))
	store := "http://127.0.0.1:" + ports[0]
	c.start(t, "etcd", c.path("etcd"), store, "http://127.0.0.1:"+ports[1])
	c.start(t, "kube-apiserver", "--etcd-servers="+store, "--bind-address=127.0.0.1", "--allow-privileged=true", "--secure-port="+ports[2], "--cert-dir="+c.path("certificates"),
		"--advertise-address=10.0.2.2", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/24", "--authorization-mode=AlwaysAllow", "--token-auth-file="+c.path("tokens"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.path("sa.key"), "--service-account-signing-key-file="+c.path("sa.key"))
	c.wait(t, "the API server", func() bool {
		status, _, err := c.request(t, http.MethodGet, "/readyz", "")
		return err == nil && status == http.StatusOK
	})
	c.start(t, "kube-controller-manager", "--kubeconfig="+c.path("kubeconfig"), "--leader-elect=false", "--secure-port=0", "--root-ca-file="+c.path("certificates/apiserver.crt"),
		"--service-account-private-key-file="+c.path("sa.key"))
	c.start(t, "kube-scheduler", "--kubeconfig="+c.path("kubeconfig"), "--leader-elect=false", "--secure-port=0")
	c.wait(t, "the first service account", func() bool {
		status, _, err := c.request(t, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", "")
		return err == nil && status == http.StatusOK
	})
	node.put(t, "/etc/kubernetes/kubeconfig", kubeconfig("https://10.0.2.2:"+ports[2])) // as the machine reaches it
	return c
}

func kubeconfig(server string) string {
	return `apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: "` + server + `", insecure-skip-tls-verify: true}}]
users: [{name: it, user: {token: ` + clusterToken + `}}]
contexts: [{name: it, context: {cluster: it, user: it}}]
`
}

// freePorts gives ports of the loopback interface that nobody listens on. They are held until all are known, so that none is given twice.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	for _, l := range held {
		l.Close()
	}
	return ports
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(c.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs a part of Kubernetes until the test's end.
func (c *cluster) start(t *testing.T, part string, args ...string) {
	t.Helper()
	log, err := os.Create(c.path(part + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(c.program, args...)
	cmd.Args[0], cmd.Stdout, cmd.Stderr = part, log, log
	exited, err := startTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("end of what %s said:\n%s", part, lastLines(string(text), 15))
		}
	})
}

// wait asks until something is so, or for as long as a command in the guest may take.
func (c *cluster) wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), defaultTimeout)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			c.node.fail(t, t.Fatal, "it did not come: %s\n%s", what, c.node.Must(t, "systemctl --no-pager --lines=0 status kubelet 'csi-*' || true; journalctl -b -o cat --no-pager -u kubelet -u 'csi-*' -u containerd | grep -v 'Recording event\\|Setting node annotation' | tail -40"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *cluster) request(t *testing.T, method, path, body string) (status int, answer []byte, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.address+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+clusterToken)
	if body != "" {
		kind := "application/yaml"
		if method == http.MethodPatch {
			kind = "application/merge-patch+json"
		}
		r.Header.Set("Content-Type", kind)
	}
	response, err := c.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// create makes an object.
func (c *cluster) create(t *testing.T, path, manifest string) {
	t.Helper()
	status, answer, err := c.request(t, http.MethodPost, path, manifest)
	if err != nil || status != http.StatusCreated {
		t.Fatalf("cannot create in %s: %v %d %s\n%s", path, err, status, answer, manifest)
	}
}

// get reads an object, and tells whether it is there.
func (c *cluster) get(t *testing.T, path string, into any) bool {
	t.Helper()
	status, answer, err := c.request(t, http.MethodGet, path, "")
	if err != nil {
		t.Fatal(err)
	}
	if status == http.StatusNotFound {
		return false
	}
	if err := json.Unmarshal(answer, into); status != http.StatusOK || err != nil {
		t.Fatalf("cannot read %s: %v %d %s", path, err, status, answer)
	}
	return true
}

// podStatus is what the tests read of a pod.
type podStatus struct {
	Status struct {
		Phase             string
		ContainerStatuses []struct {
			Name  string
			State struct {
				Running *struct{}
				Waiting *struct{ Reason string }
			}
		}
	}
}

func podPath(name string) string {
	namespace, pod, _ := strings.Cut(name, "/")
	return "/api/v1/namespaces/" + namespace + "/pods/" + pod
}

// run makes a pod and waits until all of its containers run.
func (c *cluster) run(t *testing.T, p pod) {
	t.Helper()
	c.create(t, filepath.Dir(podPath(p.name)), p.manifest())
	c.wait(t, p.name+" runs", func() bool {
		var s podStatus
		c.get(t, podPath(p.name), &s)
		running := 0
		for _, container := range s.Status.ContainerStatuses {
			if container.State.Running != nil {
				running++
			}
		}
		return running == len(p.containers)
	})
}

// remove deletes pods and waits until the kubelet has said that they are gone.
func (c *cluster) remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if status, answer, err := c.request(t, http.MethodDelete, podPath(name), ""); err != nil || status != http.StatusOK {
			t.Fatalf("cannot remove %s: %v %d %s", name, err, status, answer)
		}
	}
	for _, name := range names {
		c.wait(t, name+" is gone", func() bool { return !c.get(t, podPath(name), &podStatus{}) })
	}
}

// volume makes a PersistentVolume and its claim, of the same name. source is YAML.
func (c *cluster) volume(t *testing.T, name, source string) {
	t.Helper()
	c.create(t, "/api/v1/persistentvolumes", `{apiVersion: v1, kind: PersistentVolume, metadata: {name: `+name+`}, spec: {capacity: {storage: 8Mi}, accessModes: [ReadWriteMany, ReadWriteOnce],
  persistentVolumeReclaimPolicy: Retain, claimRef: {namespace: default, name: `+name+`}, `+source+`}}`)
	c.create(t, "/api/v1/namespaces/default/persistentvolumeclaims", `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: `+name+`}, spec: {storageClassName: "", volumeName: `+name+`,
  accessModes: [ReadWriteMany], resources: {requests: {storage: 8Mi}}}}`)
	c.wait(t, "the claim of "+name, func() bool {
		var claim struct{ Status struct{ Phase string } }
		return c.get(t, "/api/v1/namespaces/default/persistentvolumeclaims/"+name, &claim) && claim.Status.Phase == "Bound"
	})
}

// kubelet starts a release of the kubelet, in the place of another one that may run, then drivers, and waits until the API server knows them.
func (c *cluster) kubelet(t *testing.T, program, release string, drivers ...string) {
	t.Helper()
	c.node.startKubelet(t, program, release, "--kubeconfig=/etc/kubernetes/kubeconfig")
	c.wait(t, "the node with "+release, func() bool {
		var node struct {
			Status struct {
				NodeInfo struct{ KubeletVersion string }
			}
		}
		return c.get(t, "/api/v1/nodes/"+nodeName, &node) && strings.HasPrefix(node.Status.NodeInfo.KubeletVersion, "v"+release+".")
	})
	// The drivers announce themselves to each new kubelet by their sockets, and end if it does not take them yet.
	c.node.Must(t, "ln -sf kubelet /opt/kubernetes/"+release+"/csi-driver")
	for _, name := range drivers {
		c.node.Must(t, "systemctl stop csi-"+name+" 2>/dev/null; systemd-run --quiet --property=Restart=on-failure --property=RestartSec=1 --unit=csi-"+name+" /opt/kubernetes/"+release+"/csi-driver "+name+" "+nodeName+" /var/lib/volumes")
	}
	c.wait(t, "the drivers with "+release, func() bool {
		var node struct {
			Spec struct{ Drivers []struct{ Name string } }
		}
		return c.get(t, "/apis/storage.k8s.io/v1/csinodes/"+nodeName, &node) && len(node.Spec.Drivers) == len(drivers)
	})
}

// tryAgain allows what a driver of the tests does until the kubelet is ready for it.
func tryAgain() Allowed {
	return Allowed{`csi-(storage|plain)\.vmtest\.service`, "a driver that the kubelet does not take yet tries again"}
}

// knows tells the API server whether volumes of a driver can be mounted with a label.
func (c *cluster) knows(t *testing.T, driver string, aware bool) {
	t.Helper()
	c.create(t, "/apis/storage.k8s.io/v1/csidrivers", fmt.Sprintf("{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: %s}, spec: {attachRequired: false, podInfoOnMount: false, seLinuxMount: %v}}", driver, aware))
}

// Drivers of the tests; the second one does not know of SELinux. Volumes are called by what is tried with them.
const (
	storage = "storage.vmtest"
	plain   = "plain.vmtest"
)

// sharers are pods that have one volume, in the order in which they are started.
type sharers struct {
	volume, driver string
	// starts says for each pod whether the kubelet starts it where it mounts with labels.
	pods   []pod
	starts []bool
	// warns says that readiness names the volume before, and about which pods.
	warns bool
}

// sharing are the cases. Where all pods of a volume may use it, they do.
func sharing() []sharers {
	const level, other = "seLinuxOptions: {level: 's0:c10,c20'}", "seLinuxOptions: {level: 's0:c30,c40'}"
	one := func(name, security, volume, mount, command string) pod {
		return pod{name: "default/" + name, security: security, volumes: "{name: data, persistentVolumeClaim: {claimName: " + volume + "}}",
			containers: []container{{name: "main", mounts: "{name: data, mountPath: /data" + mount + "}", command: command + "sleep 36000"}}}
	}
	sleeps := func(name, security, volume string) pod { return one(name, security, volume, "", "") }
	writes := func(name, security, volume string) pod {
		return one(name, security, volume, "", "echo x > /data/"+name+" && ls /data && ")
	}
	part := func(name, security, volume string) pod {
		return one(name, security, volume, ", subPath: "+name, "echo x > /data/file && cat /data/file && ")
	}
	torn := sleeps("torn", "", "containers")
	torn.containers = []container{{"main", level, "{name: data, mountPath: /data}", "sleep 36000"}, {"sidecar", other, "{name: data, mountPath: /data}", "sleep 36000"}}
	const recursive = ", seLinuxChangePolicy: Recursive"
	return []sharers{
		{"levels", storage, []pod{sleeps("levels-a", level, "levels"), sleeps("levels-same", level, "levels"), sleeps("levels-other", other, "levels")}, []bool{true, true, false}, true},
		{"nothing", storage, []pod{sleeps("nothing-a", level, "nothing"), sleeps("nothing-b", "", "nothing")}, []bool{true, false}, true},
		{"same", storage, []pod{writes("same-a", level, "same"), writes("same-b", level, "same")}, []bool{true, true}, false},
		{"recursive", storage, []pod{sleeps("recursive-a", level+recursive, "recursive"), sleeps("recursive-b", other+recursive, "recursive")}, []bool{true, true}, true},
		{"containers", storage, []pod{torn}, []bool{false}, true},
		{"parts", storage, []pod{part("parts-a", level, "parts"), part("parts-b", other, "parts")}, []bool{true, false}, true},
		{"unaware", plain, []pod{part("unaware-a", level, "unaware"), part("unaware-b", other, "unaware")}, []bool{true, true}, true},
		{"local", "", []pod{writes("local-a", level, "local"), writes("local-b", other, "local")}, []bool{true, true}, false},
	}
}

// TestCluster takes a node of a cluster from the last kubelet that mounts volumes as they are to the first that mounts them with their pods' label. Volumes
// that need the API server work, readiness names before the update the pods that will not start beside each other, and those do not start after it.
//
// Proves V19: which pods Kubernetes 1.37 refuses, beside what was said with 1.36.
func TestCluster(t *testing.T) {
	before, since := kubernetes(t, mountsBare), kubernetes(t, mountsLabelled)
	m := startNode(t, podDenied(), tryAgain())
	c := startCluster(t, since, m)

	// The logs' directories are declared and made before the kubelet comes.
	const logLabel = "system_u:object_r:container_log_t:s0"
	m.put(t, "/etc/selinux-provision/config.d/20-logs.yaml", `version: 1
readiness: {window: 1h}
volumes:
  - {name: local, match: {mountpoint: /mnt/local}, private: true}
policy:
  file_contexts:
    - {path: '/var/log/pods(/.*)?', context: '`+logLabel+`'}
    - {path: '/var/log/containers(/.*)?', context: '`+logLabel+`'}
`)
	m.Must(t, "mkdir -p /var/log/pods /var/log/containers /mnt/local /var/lib/volumes && /opt/bin/selinux-provision apply")
	m.Must(t, "truncate -s 32M /root/local && mkfs.ext4 -q /root/local && mount -o loop /root/local /mnt/local")
	if v := m.settle(t)["local"]; v.Context != shared {
		t.Errorf("the volume for a local one: %+v", v)
	}
	c.kubelet(t, before, mountsBare, storage, plain)
	m.expect(t, "the logs' directories", "stat -c %C /var/log/pods /var/log/containers | sort -u", logLabel)

	t.Run("volumes", func(t *testing.T) { m.clusterVolumes(t, c) })

	c.knows(t, storage, true)
	c.knows(t, plain, false)
	var all []pod
	for _, s := range sharing() {
		m.Must(t, "truncate -s 8M /var/lib/volumes/"+s.volume+".img && mkfs.ext4 -q /var/lib/volumes/"+s.volume+".img")
		source := "csi: {driver: " + s.driver + ", volumeHandle: " + s.volume + "}"
		if s.driver == "" {
			source = "local: {path: /mnt/local}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [" + nodeName + "]}]}]}}"
		}
		c.volume(t, s.volume, source)
		all = append(all, s.pods...)
	}
	names := func(pods []pod) (names []string) {
		for _, p := range pods {
			names = append(names, p.name)
		}
		return names
	}
	type answer struct {
		Mount *kubeletReport `json:"selinux_mount"`
	}
	var said answer
	t.Run(mountsBare, func(t *testing.T) {
		for _, p := range all { // this kubelet starts them all
			c.run(t, p)
		}
		m.readinessInto(t, &said)
		t.Log(m.fails(t, "/opt/bin/selinux-provision readiness", 3))
		if s := said.Mount; s == nil || s.Mounts != "no" || !strings.HasPrefix(s.Kubelet, "v"+mountsBare+".") {
			t.Fatalf("the kubelet: %+v", s)
		}
		var warned, want []string
		for _, conflict := range said.Mount.Conflicts {
			warned = append(warned, conflict.Volume+" "+conflict.Labels)
		}
		for _, s := range sharing() {
			if s.warns {
				want = append(want, s.volume+" differ")
			}
		}
		slices.Sort(want)
		if !slices.Equal(warned, want) {
			t.Errorf("readiness names %q, want %q: %+v", warned, want, said.Mount)
		}
		m.expect(t, "volumes that are mounted with a label", "findmnt -rno OPTIONS -t ext4 | grep -c 'context=.*c10' || true", "0")
		c.remove(t, names(all)...)
		m.Must(t, "while grep -q /kubernetes.io/csi/ /proc/mounts; do sleep 1; done") // what the next kubelet finds mounted it keeps
	})

	c.kubelet(t, since, mountsLabelled, storage, plain)
	t.Run(mountsLabelled, func(t *testing.T) {
		for _, s := range sharing() {
			for i, p := range s.pods {
				if s.starts[i] {
					c.run(t, p)
					continue
				}
				c.create(t, filepath.Dir(podPath(p.name)), p.manifest())
				m.refused(t, p.name)
				var status podStatus
				if c.get(t, podPath(p.name), &status); status.Status.Phase != "Pending" {
					t.Errorf("%s is %+v", p.name, status)
				}
			}
		}
		m.expect(t, "volumes that are mounted with a label", `findmnt -rno TARGET,OPTIONS -t ext4 | grep 'context="`+private+`"' | grep -o 'pods/.*/kubernetes.io~csi/.*' | sed 's,.*/kubernetes.io~csi/\([^/]*\)/.*,\1,' | sort | uniq -c | tr -s ' \n' ' '`,
			"2 levels 1 nothing 1 parts 2 same")
		var now answer
		m.readinessInto(t, &now)
		t.Log(m.fails(t, "/opt/bin/selinux-provision readiness", 3))
		if s := now.Mount; s == nil || s.Mounts != "yes" || !strings.HasPrefix(s.Kubelet, "v"+mountsLabelled+".") {
			t.Fatalf("the kubelet: %+v", s)
		}
		// Of those that run, none is in another one's way, but for what only the API server knows.
		for _, conflict := range now.Mount.Conflicts {
			if conflict.Volume != "recursive" && conflict.Volume != "unaware" {
				t.Errorf("readiness names %+v", conflict)
			}
		}
		m.status(t, 0)
	})
	m.expect(t, "words about what is the kubelet's", "journalctl -b -o cat -u "+watchUnit+" | grep /var/lib/kubelet || true", "")
}

// refused waits until the kubelet has said that it does not start a pod because of its label.
func (m *Machine) refused(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), defaultTimeout)
	defer cancel()
	out, err := m.Run(ctx, "until journalctl -b -u kubelet -o cat --no-pager | grep -E '(conflicting|multiple) SELinux labels' | grep 'pod=\""+name+"\"'; do sleep 1; done")
	if err != nil {
		m.fail(t, t.Fatal, "the kubelet does not refuse %s: %v\n%s", name, err, m.Must(t, "journalctl -b -u kubelet -o cat --no-pager | grep -i selinux | tail -20; journalctl -b -u kubelet -o cat --no-pager | tail -20"))
	}
	t.Log(strings.SplitN(out.Stdout, "\n", 2)[0])
}

// clusterVolumes runs a pod with a volume of each kind that comes from the API server.
func (m *Machine) clusterVolumes(t *testing.T, c *cluster) {
	c.create(t, "/api/v1/namespaces/default/configmaps", "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: blue}}")
	c.create(t, "/api/v1/namespaces/default/secrets", "{apiVersion: v1, kind: Secret, metadata: {name: password}, stringData: {word: sesame}}")
	c.run(t, pod{name: "default/volumes",
		volumes: "{name: settings, configMap: {name: settings}}, {name: password, secret: {secretName: password}}, {name: all, projected: {sources: [{configMap: {name: settings}}, {secret: {name: password}}]}}",
		containers: []container{{name: "main",
			mounts:  "{name: settings, mountPath: /settings}, {name: settings, mountPath: /one, subPath: colour}, {name: password, mountPath: /password}, {name: all, mountPath: /all}",
			command: "for f in /settings/colour /one /password/word /all/colour /all/word; do cat $f; echo; done; test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; echo ended; sleep 36000"}}})
	if said := m.says(t, "default_volumes", "main", "ended"); said != "blue\nblue\nsesame\nblue\nsesame\ntoken\nended" {
		t.Errorf("the pod says\n%s", said)
	}
	c.remove(t, "default/volumes")
}

// TestDriverVolumes gives the volumes of a driver that does not know of SELinux their label where the kubelet stages them, because a rule asks for it by the
// driver's name. The runtime labels what a pod writes, and nothing for a pod that only reads: that one is denied without the rule. What the runtime has labelled for
// one pod is left to it.
func TestDriverVolumes(t *testing.T) {
	program := kubernetes(t, mountsLabelled)
	m := startNode(t, podDenied(), tryAgain())
	c := startCluster(t, program, m)
	m.Must(t, "mkdir -p /var/lib/volumes")
	c.kubelet(t, program, mountsLabelled, plain)
	c.knows(t, plain, false)
	// Files as another system leaves them: without labels.
	for _, name := range []string{"model", "notes"} {
		m.Must(t, "cd /var/lib/volumes && truncate -s 8M "+name+".img && mkfs.ext4 -q "+name+".img && debugfs -w -R 'write /etc/os-release file' "+name+".img")
		c.volume(t, name, "csi: {driver: "+plain+", volumeHandle: "+name+"}")
	}
	using := func(name, volume, how, command string) pod {
		return pod{name: "default/" + name, security: "seLinuxOptions: {level: 's0:c10,c20'}", volumes: "{name: data, persistentVolumeClaim: {claimName: " + volume + how + "}}",
			containers: []container{{name: "main", mounts: "{name: data, mountPath: /data}", command: command + "; sleep 36000"}}}
	}
	c.run(t, using("before", "model", ", readOnly: true", "cat /data/file > /dev/null 2>&1 && echo reads || echo refused"))
	if said := m.says(t, "default_before", "main", `reads\|refused`); said != "refused" {
		t.Errorf("without a rule the pod says %q", said)
	}
	c.remove(t, "default/before")
	c.run(t, using("writer", "notes", "", "echo x > /data/new && echo written"))
	m.says(t, "default_writer", "main", "written")
	m.Must(t, "while grep -q /model/ /proc/mounts; do sleep 1; done")

	m.put(t, "/etc/selinux-provision/config.d/30-driver.yaml", "version: 1\nvolumes:\n  - {name: plain, match: {csi_driver: "+plain+"}}\n")
	m.Must(t, "/opt/bin/selinux-provision apply")
	m.settle(t)
	const labels = `for d in $(findmnt -rno TARGET | grep /globalmount); do find $d ! -name lost+found -printf '%P %Z\n' | sort; done`
	m.expect(t, "what the runtime has labelled", labels, private+"\nfile "+private+"\nnew "+private)

	c.run(t, using("after", "model", ", readOnly: true", "until cat /data/file > /dev/null 2>&1; do sleep 1; done; echo reads"))
	m.says(t, "default_after", "main", "reads")
	m.settle(t)
	m.expect(t, "both volumes", labels+" | sort", shared+"\n "+private+"\nfile "+shared+"\nfile "+private+"\nnew "+private)
	m.Must(t, "systemctl reload "+watchUnit)
	m.settle(t)
	m.expect(t, "both volumes after a reload", labels+" | sort", shared+"\n "+private+"\nfile "+shared+"\nfile "+private+"\nnew "+private)
	m.expect(t, "mounts with a label", "findmnt -rno OPTIONS -t ext4 | grep -c context= || true", "0")
	t.Log(m.fails(t, "/opt/bin/selinux-provision status", 0), m.watchLog(t))
}

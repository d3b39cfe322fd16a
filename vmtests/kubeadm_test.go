//go:build cluster

package vmtests

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// controlPlane gives the static pods of a node that kubeadm made, with the directories of the host that kubeadm gives each of them. The program is a
// directory of the host here, not an image of its own.
func controlPlane(programs string) []pod {
	mount := func(name, path string, readOnly bool) (volume, inContainer string) {
		return fmt.Sprintf("{name: %s, hostPath: {path: %s}}", name, path), fmt.Sprintf("{name: %s, mountPath: %s, readOnly: %v}", name, path, readOnly)
	}
	binary, programsThere := mount("programs", programs, true)
	pki, pkiThere := mount("k8s-certs", "/etc/kubernetes/pki", true)
	data, dataThere := mount("etcd-data", "/var/lib/etcd", false)
	one := func(name, volumes, mounts, command string) pod {
		return pod{name: "kube-system/" + name, volumes: binary + ", " + volumes, containers: []container{{name: name, mounts: programsThere + ", " + mounts, command: "exec " + programs + "/" + command}}}
	}
	with := func(name string) pod {
		conf, confThere := mount("kubeconfig", "/etc/kubernetes/"+strings.TrimPrefix(name, "kube-")+".conf", true)
		return one(name, pki+", "+conf, pkiThere+", "+confThere, name+" --leader-elect=false --secure-port=0 --kubeconfig=/etc/kubernetes/"+strings.TrimPrefix(name, "kube-")+".conf")
	}
	return []pod{
		one("etcd", data+", "+pki, dataThere+", "+pkiThere, "etcd /var/lib/etcd/member http://127.0.0.1:2379 http://127.0.0.1:2380"),
		one("kube-apiserver", pki, pkiThere, "kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=10.0.2.15 --cert-dir=/tmp/certificates --service-cluster-ip-range=10.96.0.0/24 "+
			"--authorization-mode=AlwaysAllow --token-auth-file=/etc/kubernetes/pki/tokens --service-account-issuer=https://kubernetes.default.svc "+
			"--service-account-key-file=/etc/kubernetes/pki/sa.key --service-account-signing-key-file=/etc/kubernetes/pki/sa.key"),
		with("kube-scheduler"),
	}
}

// TestKubeadm is a node with the directories of kubeadm, from the example for it, and a kubelet that runs the control plane from kubeadm's manifests, under enforcing: etcd
// keeps its data, also when its pod comes anew with other categories, the API server reads the keys, the scheduler its configuration, and the kubelet registers the node. Then an installer's pod
// brings network plugins, an update of it replaces them, and a pod has a network of its own.
//
// Proves V12: a control plane of Kubernetes and network plugins in the directories of kubeadm.
func TestKubeadm(t *testing.T) {
	program := kubernetes(t, mountsLabelled)
	m := bootExample(t, "kubeadm-node.bu", Options{Network: true, MemoryMB: 3072})
	m.startContainerd(t, containerdConfig+systemdCgroups)
	m.Must(t, network)
	const programs = "/opt/kubernetes/" + mountsLabelled
	m.send(t, program, programs+"/kubelet", 0o755)
	m.Must(t, "for name in etcd kube-apiserver kube-scheduler; do ln -s kubelet "+programs+"/$name; done; chcon -R -t container_ro_file_t "+programs) // as they would be in images

	// What kubeadm makes.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m.put(t, "/etc/kubernetes/pki/sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	m.put(t, "/etc/kubernetes/pki/tokens", clusterToken+",admin,admin,system:masters\n")
	for _, name := range []string{"kubelet", "scheduler"} {
		m.put(t, "/etc/kubernetes/"+name+".conf", kubeconfig("https://127.0.0.1:6443"))
	}
	m.put(t, "/etc/kubernetes/kubelet.yaml", kubeletConfig)
	for _, p := range controlPlane(programs) {
		m.static(t, p)
	}
	m.startKubelet(t, program, mountsLabelled, "--kubeconfig=/etc/kubernetes/kubelet.conf")
	m.unitSays(t, "kubelet", "Successfully registered node")
	const label = "system_u:object_r:container_file_t:s0"
	m.expect(t, "the labels", "stat -c %C /etc/kubernetes/*.conf /etc/kubernetes/manifests /etc/kubernetes/pki/sa.key /var/lib/etcd/member | sort -u", label)
	m.expect(t, "denials", "/opt/bin/selinux-provision denials --boot --json | grep -c '\"id\"' || true", "0")

	// etcd comes anew with other categories, to the files of the one before.
	etcd := manifests + "kube-system-etcd.yaml"
	m.Must(t, "before=$(cat /proc/$(pgrep -x etcd)/attr/current); mv "+etcd+" /root/ && while pgrep -x etcd; do sleep 1; done && mv /root/kube-system-etcd.yaml "+manifests+
		" && until pgrep -x etcd; do sleep 1; done; test \"$(cat /proc/$(pgrep -x etcd)/attr/current)\" != \"$before\"")

	// The installer of network plugins, as the DaemonSet of flannel has it, and its update.
	plugins := buildProgram(t, "cmd/cni", "tool")
	for _, name := range []string{"loopback", "bridge", "host-local", "portmap"} {
		m.send(t, filepath.Join(plugins, name), "/opt/plugins/"+name, 0o755)
	}
	installer := func(name string) {
		m.static(t, pod{name: "kube-system/" + name, volumes: "{name: plugins, hostPath: {path: /opt/plugins}}, {name: bin, hostPath: {path: /opt/cni/bin}}, {name: conf, hostPath: {path: /etc/cni/net.d}}",
			containers: []container{{name: "install", mounts: "{name: plugins, mountPath: /plugins, readOnly: true}, {name: bin, mountPath: /opt/cni/bin}, {name: conf, mountPath: /etc/cni/net.d}",
				command: `cp -f /plugins/* /opt/cni/bin/ && echo '{"cniVersion": "0.3.1", "name": "pods", "plugins": [{"type": "bridge", "isDefaultGateway": true, "ipMasq": false, "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"}}, ` +
					`{"type": "portmap", "capabilities": {"portMappings": true}}]}' > /etc/cni/net.d/10-pods.conflist && echo installed; echo ended; sleep 36000`}}})
		if said := m.says(t, "kube-system_"+name, "install", "ended"); !contains(said, "installed") {
			t.Errorf("the installer %s says\n%s", name, said)
		}
	}
	installer("plugins")
	installer("update")
	m.expect(t, "what was installed", "stat -c %C /opt/cni/bin/bridge /etc/cni/net.d/10-pods.conflist | sort -u", label)
	m.static(t, pod{name: "default/own", ownNetwork: true, containers: []container{{name: "main", command: "busybox ip -4 addr show dev eth0; echo ended; sleep 36000"}}})
	if said := m.says(t, "default_own", "main", "ended"); !contains(said, "inet 10.244.0.") {
		t.Errorf("the pod with a network of its own says\n%s", said)
	}
	m.expect(t, "denials", "/opt/bin/selinux-provision denials --boot --json | grep -c '\"id\"' || true", "0")
	m.status(t, 0)
}

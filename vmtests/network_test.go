package vmtests

import (
	"os"
	"path/filepath"
	"testing"
)

// networkPlugins has a container in the domain of installers bring flannel's plugin and those that it calls (bridge, host-local, portmap), which were
// built from their projects' source, and their configuration, as flannel's own installer does; a plain container writes what flannel's daemon writes.
// Then pods have a network of their own: one reaches another, and the host's port leads to it.
func (m *Machine) networkPlugins(t *testing.T, installer string) {
	t.Helper()
	m.Must(t, "rm -f /etc/cni/net.d/* && mkdir -p /tmp/image/plugins")
	for _, dir := range []string{"cmd/cni", "cmd/flannel"} {
		built := buildProgram(t, dir, "tool")
		plugins, err := os.ReadDir(built)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plugins {
			m.send(t, filepath.Join(built, p.Name()), "/tmp/image/plugins/"+p.Name(), 0o755)
		}
	}
	m.put(t, "/tmp/image/plugins.conflist", `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`)
	m.Must(t, "tar -C /tmp/image -cf /tmp/installer.tar . && docker import /tmp/installer.tar installer")
	for range 2 { // an update of the plugins: the second container has other categories
		m.Must(t, installer+`--network none -v /opt/cni/bin:/opt/cni/bin -v /etc/cni/net.d:/etc/cni/net.d installer sh -c '
for p in /plugins/*; do cp -f $p /opt/cni/bin/ || exit 1; done; cp -f /plugins.conflist /etc/cni/net.d/10-flannel.conflist'`)
	}
	m.expect(t, "what was installed", "stat -c %C /opt/cni/bin/flannel /opt/cni/bin/portmap /etc/cni/net.d/10-flannel.conflist | sort | uniq -c | awk '{print $1, $2}'",
		"1 system_u:object_r:container_cni_config_t:s0\n2 system_u:object_r:container_cni_plugin_t:s0")

	// The daemon, a plain container with a capability, makes its device and a route, and writes in a directory that the runtime has made and the vendor's
	// policy gives a label. The module of the device has to be there: no confined container may have the kernel load one.
	m.Must(t, `modprobe dummy && docker run --rm --network host --cap-add NET_ADMIN -v /run/flannel:/run/flannel busybox sh -c '
busybox ip link add flannel.1 type dummy && busybox ip addr add 10.244.0.0/32 dev flannel.1 && busybox ip link set flannel.1 up && busybox ip route add 10.244.1.0/24 dev flannel.1 &&
printf "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n" > /run/flannel/subnet.env'`)
	m.startCRI(t)
	m.Must(t, "/root/pod -network -host-port 8080 run default/web main sh -c 'echo hello from web > /tmp.html && busybox httpd -f -p 8080 -h /'")
	m.expect(t, "the pod's address", "/root/pod address default/web | cut -d. -f1-3", "10.244.0")
	if got := m.Must(t, `ip=$(/root/pod address default/web); /root/pod -wait -network run default/client main sh -c "`+
		`for n in \$(busybox seq 300); do busybox wget -T 5 -qO- http://$ip:8080/tmp.html && exit 0; busybox sleep 0.2; done; exit 1"`); !contains(got, "hello from web") {
		t.Errorf("a pod gets from another:\n%s", got)
	}
	m.expect(t, "the host's port", "busybox wget -qO- http://10.244.0.1:8080/tmp.html", "hello from web")
	m.Must(t, "/root/pod remove default/client && /root/pod remove default/web")
}

// agentOfBPF makes the calls of an agent such as Cilium's in containers: the containers' domain and the installers' may not even make a map, whatever
// capabilities they are given, and the denial is found; the domain of privileged containers may do all of it.
func (m *Machine) agentOfBPF(t *testing.T, in func(domain string) string) {
	t.Helper()
	m.sendCommand(t, "bpf", "/tmp/image/bin/bpf")
	m.Must(t, "tar -C /tmp/image -cf /tmp/agent.tar . && docker import /tmp/agent.tar agent && mountpoint -q /sys/fs/bpf && mkdir /sys/fs/bpf/vmtest")
	const agent = "--network none --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add BPF --cap-add PERFMON -v /sys/fs/bpf:/sys/fs/bpf agent bpf /sys/fs/bpf/vmtest"
	if got := m.fails(t, "docker run --name agent "+agent, 1); !contains(got, "cannot make a map: permission denied") {
		t.Errorf("a plain container:\n%s", got)
	}
	found := m.denials(t, "--container agent").Findings
	if len(found) != 1 || found[0].Class != "bpf" || found[0].Permissions["map_create"] != 1 {
		t.Errorf("the agent's denials are %v", found)
	}
	if got := m.fails(t, in("container_cni_installer_t")+agent, 1); !contains(got, "cannot make a map: permission denied") {
		t.Errorf("an installer:\n%s", got)
	}
	if got := m.Must(t, "docker run --rm --security-opt label=type:spc_t "+agent); !contains(got, "run it\n") || !contains(got, "pin the program") || !contains(got, "pin the map") {
		t.Errorf("a privileged one:\n%s", got)
	}
	m.Must(t, "docker run --rm --network none --security-opt label=type:spc_t -v /etc/cni/net.d:/net.d busybox sh -c 'echo {} > /net.d/05-agent.conflist && rm /net.d/05-agent.conflist'")
	m.expect(t, "what it pinned", "ls /sys/fs/bpf/vmtest && rm -r /sys/fs/bpf/vmtest", "map\nprogram")
}

package vmtests

import (
	"strings"
	"testing"
)

// bootExample boots a machine from an example as it is, except that what it would fetch is in it, and that docker is enabled.
func bootExample(t *testing.T, name string, options Options) *Machine {
	t.Helper()
	options.Ignition = example(t, name)
	if !strings.Contains(string(options.Ignition), `"docker.service"`) {
		var err error
		if options.Ignition, err = addToIgnition(options.Ignition, nil, map[string]string{"docker.service": ""}); err != nil {
			t.Fatal(err)
		}
	}
	return Start(t, options)
}

// TestExampleGuarded boots a machine that is put on trial: enforcing now, and at the next boot only as part of the trial.
//
// Proves V12.
func TestExampleGuarded(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "guarded-rollout.bu", Options{})
	m.mode(t, "on trial", "Enforcing", "permissive", 0)
	m.expect(t, "the watch", "systemctl is-active selinux-provision-guard.service docker.service containerd.service", "active\nactive\nactive")
	if got := m.status(t, 3).problems(); !contains(got, "enforcing is on trial") || !contains(got, "left") {
		t.Errorf("status does not say that enforcing is on trial:\n%s", got)
	}
	m.containersLast(t)
}

// TestExampleKubeadm boots a Kubernetes node and does what kubeadm's static pods and a CNI plugin's installer do, in containers that
// stand in for them: they write into the directories of the host that carry the containers' label, a second installer replaces what
// the first one wrote, and a directory without that label is closed.
//
// Proves V12: the parts of Kubernetes are stand-ins.
func TestExampleKubeadm(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "kubeadm-node.bu", Options{Allowed: []Allowed{{`avc: +denied .*comm="(sh|cp|busybox)"`, "a container writes where it must not"}}})
	m.goodState(t)
	const label = "system_u:object_r:container_file_t:s0"
	m.expect(t, "the labels", "stat -c %C /etc/kubernetes /etc/kubernetes/pki /etc/cni/net.d /opt/cni/bin /var/lib/etcd | sort -u", label)
	m.dockerImage(t)
	const run = "docker run --rm --network none "
	// kubeadm runs on the host, and so do kubelet and the runtime.
	m.Must(t, "mkdir -p /etc/kubernetes/manifests && echo key > /etc/kubernetes/pki/ca.key")
	m.Must(t, "echo kubeconfig > /etc/kubernetes/scheduler.conf")
	m.expect(t, "the scheduler", run+"-v /etc/kubernetes/scheduler.conf:/conf:ro busybox cat /conf", "kubeconfig")
	m.expect(t, "the API server", run+"-v /etc/kubernetes/pki:/pki:ro busybox cat /pki/ca.key", "key")
	m.Must(t, run+"-v /var/lib/etcd:/var/lib/etcd busybox sh -c 'mkdir /var/lib/etcd/member && echo wal > /var/lib/etcd/member/wal'")
	m.expect(t, "etcd again, in another container", run+"-v /var/lib/etcd:/var/lib/etcd busybox sh -c 'echo more >> /var/lib/etcd/member/wal; cat /var/lib/etcd/member/wal'", "wal\nmore")
	installer := run + "-v /opt/cni/bin:/opt/cni/bin -v /etc/cni/net.d:/etc/cni/net.d busybox sh -c 'cp -f /bin/busybox /opt/cni/bin/flannel && echo \"{}\" > /etc/cni/net.d/10-flannel.conflist'"
	m.Must(t, installer)
	m.Must(t, installer)
	m.expect(t, "the plugin on the host", "stat -c %C /opt/cni/bin/flannel; cmp /opt/cni/bin/flannel /bin/busybox && cat /etc/cni/net.d/10-flannel.conflist", label+"\n{}")
	m.Must(t, "mkdir /opt/other")
	m.fails(t, run+"-v /opt/other:/opt/other busybox sh -c 'cp /bin/busybox /opt/other/flannel'", 1)
	m.status(t, 0)
}

// dockerImage gives Docker an image with a static busybox.
func (m *Machine) dockerImage(t *testing.T) {
	t.Helper()
	m.Must(t, `mkdir -p /tmp/image/bin && cp "$(command -v busybox)" /tmp/image/bin/ && for name in sh cat ls cp mkdir touch sleep id true; do ln -sf busybox /tmp/image/bin/$name; done
tar -C /tmp/image -c . | docker import - busybox`)
}

// inContainer runs a command in a container.
func (m *Machine) inContainer(t *testing.T, options, command string) Output {
	t.Helper()
	out, err := m.Run(t.Context(), "docker run --rm --network none "+options+" busybox sh -c '"+command+"'")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// allows checks that a command works in a container, and what it prints.
func (m *Machine) allows(t *testing.T, who, options, command, want string) {
	t.Helper()
	if out := m.inContainer(t, options, command); out.Exit != 0 || strings.TrimSpace(out.Stdout) != want {
		t.Errorf("%s: exit code %d, %q, want %q\n%s", who, out.Exit, out.Stdout, want, out.Stderr)
	}
}

// denies checks that a command is stopped in a container.
func (m *Machine) denies(t *testing.T, who, options, command string) {
	t.Helper()
	if out := m.inContainer(t, options, command); out.Exit == 0 || !strings.Contains(out.Stderr, "Permission denied") {
		t.Errorf("%s is not denied: exit code %d, %q\n%s", who, out.Exit, out.Stdout, out.Stderr)
	}
}

// containerDenied allows the denials that containers of a test run into on purpose.
func containerDenied() []Allowed {
	return []Allowed{{`avc: +denied .*comm="(sh|ls|cat|touch|busybox)" .*:(container|kube_logreader)_t:`, "a container tries what it may not"}}
}

// TestExampleCustomModule boots a machine with the module of the log collector: it follows the links to the logs of another container, and a
// plain container does not get there.
//
// Proves V12.
func TestExampleCustomModule(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "custom-module.bu", Options{Allowed: containerDenied()})
	m.goodState(t)
	m.dockerImage(t)
	m.Must(t, `docker run -d --name web --network none busybox sh -c 'echo hello; sleep 600' && sleep 2
log=$(docker inspect -f '{{.LogPath}}' web); test -s "$log" && mkdir -p /var/log/pods/default_web_0/web && ln -s "$log" /var/log/pods/default_web_0/web/0.log
ln -s /var/log/pods/default_web_0/web/0.log /var/log/containers/web.log`)
	m.expect(t, "the labels", `stat -c %C /var/log/containers/web.log /var/log/pods/default_web_0/web "$(docker inspect -f '{{.LogPath}}' web)"`,
		"system_u:object_r:container_log_t:s0\nsystem_u:object_r:container_log_t:s0\nsystem_u:object_r:container_var_lib_t:s0")
	const volumes = "-v /var/log:/var/log:ro -v /var/lib/docker/containers:/var/lib/docker/containers:ro "
	const read = "cat /var/log/containers/web.log | grep -c hello"
	m.denies(t, "a plain container", volumes, read)
	m.allows(t, "the log collector", volumes+"--security-opt label=type:kube_logreader_t", read, "1")
	m.denies(t, "the log collector, writing", "-v /var/lib/docker/containers:/c --security-opt label=type:kube_logreader_t", "touch /c/mine")
	m.status(t, 0)
}

// TestExampleSharedVolume boots a machine with a volume for several containers: mounted with its label from the start, written by one, appended
// to by another, read back by the first.
//
// Proves V12.
func TestExampleSharedVolume(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "shared-volume.bu", Options{Disks: []Disk{{"shared", 64}}})
	m.goodState(t)
	m.dockerImage(t)
	m.expect(t, "the label", "stat -c %C /var/lib/shared", shared)
	const volume = "-v /var/lib/shared:/d"
	m.allows(t, "A writes", volume, "mkdir /d/dir && echo a > /d/dir/f", "")
	m.allows(t, "B appends", volume, "echo b >> /d/dir/f", "")
	m.allows(t, "A reads back", volume, "cat /d/dir/f", "a\nb")
	if log := m.watchLog(t); contains(log, "mounted again") {
		t.Errorf("it was mounted without its label at first:\n%s", log)
	}
	m.status(t, 0)
}

// TestExampleDataVolume boots a machine with a volume for one application: the application gets in, and nobody else does.
//
// Proves V12.
func TestExampleDataVolume(t *testing.T) {
	t.Parallel()
	m := bootExample(t, "data-volume.bu", Options{Disks: []Disk{{"data", 64}}, Allowed: containerDenied()})
	m.goodState(t)
	m.dockerImage(t)
	m.expect(t, "the volume", "stat -c %C /var/lib/data; findmnt -no FSTYPE /var/lib/data", private+"\next4")
	const volume = "-v /var/lib/data:/d "
	m.allows(t, "the application", volume+"--security-opt label=level:s0:c10,c20", "echo a > /d/f; cat /d/f", "a")
	m.denies(t, "a plain container", volume, "cat /d/f")
	m.denies(t, "another application", volume+"--security-opt label=level:s0:c30,c40", "touch /d/g")
	if log := m.watchLog(t); contains(log, "mounted again") {
		t.Errorf("it was mounted without its label at first:\n%s", log)
	}
	m.status(t, 0)
}

// nas serves two directories of the machine to itself, under the name that the example has for the server.
const nas = `#!/bin/bash
set -e
ip link set lo up
mkdir -p /srv/export/media /srv/export/ledger && chmod 777 /srv/export/*
grep -q nas.example /etc/hosts || echo 127.0.0.1 nas.example >> /etc/hosts
modprobe nfsd; mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,no_root_squash,insecure 127.0.0.1:/srv/export/media
exportfs -o rw,no_root_squash,insecure 127.0.0.1:/srv/export/ledger
rpc.mountd -N 3; rpc.nfsd -N 3 -H 127.0.0.1 1
`

const nasUnit = `[Unit]
Before=srv-media.mount srv-ledger.mount
DefaultDependencies=no
After=local-fs.target
RequiresMountsFor=/srv /var/lib

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/opt/bin/nas
SuccessExitStatus=0 1

[Install]
RequiredBy=srv-media.mount srv-ledger.mount
`

// TestExampleNFSVolume boots a machine with two exports of one server: one for all containers, one for an application alone.
//
// Proves V12.
func TestExampleNFSVolume(t *testing.T) {
	t.Parallel()
	config, err := addToIgnition(example(t, "nfs-volume.bu"), map[string][]byte{"/opt/bin/nas": []byte(nas)}, map[string]string{"docker.service": "", "nas.service": nasUnit})
	if err != nil {
		t.Fatal(err)
	}
	m := Start(t, Options{Ignition: config, Allowed: containerDenied()})
	m.goodState(t)
	m.dockerImage(t)
	m.expect(t, "the labels", "stat -c %C /srv/media /srv/ledger; findmnt -no FSTYPE /srv/media; findmnt -no FSTYPE /srv/ledger",
		shared+"\nsystem_u:object_r:container_file_t:s0:c30,c40\nnfs4\nnfs4")
	m.allows(t, "one container", "-v /srv/media:/d", "echo a > /d/f", "")
	m.allows(t, "another one", "-v /srv/media:/d", "cat /d/f", "a")
	m.allows(t, "the application", "-v /srv/ledger:/d --security-opt label=level:s0:c30,c40", "echo b > /d/f; cat /d/f", "b")
	m.denies(t, "a plain container", "-v /srv/ledger:/d", "cat /d/f")
	m.status(t, 0)
}

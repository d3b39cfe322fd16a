package protected

import (
	"path"
	"testing"
)

func TestPath(t *testing.T) {
	for p, want := range map[string]bool{
		"/": true, "//": true, "/usr": true, "/usr/": true, "/usr/local/data": true, "/etc/x": true, "/proc/1": true, "/dev/shm": true, "/boot": true,
		"/home": true, "/home/core": false, "/var": true, "/var/lib": true, "/var/lib/data": false, "/var/lib/docker": true, "/srv": true, "/srv/x": false,
		"/usrx": false, "/mnt/disk": false, "/var/lib/selinux/mcs": true, "/var/lib/selinux-data": false, "/data": false, "/run/media/x": false,
		"/data/../etc": true,
	} {
		if Path(p) != want {
			t.Errorf("Path(%q) is %v", p, !want)
		}
	}
}

func TestDeclared(t *testing.T) {
	for p, want := range map[string]bool{
		"/": true, "/srv": true, "/srv/x": false, "/var/lib/docker": true, "/var/lib/docker/volumes/x": true, "/var/lib/kubelet/pods": true, "/run/containerd": true,
		"/run/docker": true, "/var/lib/crio": true, "/var/log": true, "/mnt": true, "/mnt/disk": false, "/bin": true, "/bin/x": true, "/usr/local/x": true,
		"/etc": true, "/etc/": true, "/etc/kubernetes": false, "/etc/passwd": false, "/boot": true, "/oem/config": false, "/opt": true, "/opt/cni/bin": false, "/lib64/x": true,
		"/proc/sys": true, "/var/lib/rancher": true, "/var/lib/rancher/k3s/storage": false, "/var/lib/rancher/k3s/agent/containerd/x": true,
		"/var/lib/selinux/mcs": true, "/var/lib/data": false, "/var/lib/dockerx": false, "/etcetera": false,
	} {
		if Declared(p) != want {
			t.Errorf("Declared(%q) is %v", p, !want)
		}
	}
}

func TestOwner(t *testing.T) {
	for p, want := range map[string]string{
		"/var/lib/kubelet/pods/1/volumes/x": "kubelet", "/var/lib/kubelet": "", "/var/lib/docker/overlay2/x/merged": "docker", "/run/docker/netns/x": "docker",
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs": "containerd", "/var/lib/containers/storage/overlay/x/merged": "podman",
		"/run/crio/x": "crio", "/var/lib/rancher/k3s/agent/containerd/x": "containerd", "/var/lib/rancher/k3s/storage/x": "", "/var/lib/dockerx/y": "", "/data": "", "/": "",
	} {
		if got := Owner(p); got != want {
			t.Errorf("Owner(%q) is %q, want %q", p, got, want)
		}
	}
}

func TestListsAreClean(t *testing.T) {
	for _, list := range [][]string{Directories(), Trees()} {
		for _, p := range list {
			if path.Clean(p) != p || !path.IsAbs(p) {
				t.Error(p)
			}
		}
	}
}

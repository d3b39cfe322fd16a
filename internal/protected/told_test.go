package protected

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Whose a mount is, wherever the directory of its owner is.
func TestMount(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for p, want := range map[string]string{
		"/data/docker/overlay2/ab12/merged": "docker", "/data/docker/overlay2/ab12/merged/x": "docker", "/data/docker/overlay2/ab12/merged2": "", "/data/overlay2/merged": "",
		"/data/docker/containers/" + id + "/mounts/shm": "docker", "/data/containers/web/mounts/shm": "",
		"/data/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs": "containerd", "/data/run/io.containerd.grpc.v1.cri/sandboxes/x/shm": "containerd", "/data/io.containerd.x": "containerd",
		"/data/kubelet/plugins/kubernetes.io/csi/d/0a/globalmount": "kubelet", "/data/kubelet/pods/u/volumes/kubernetes.io~secret/tls": "kubelet",
		"/data/k/pods/u/volumes/example~flex/x": "kubelet", "/data/k/pods/u/volume-subpaths/pv/main/0": "kubelet", "/data/k/plugins/kubernetes.io": "kubelet",
		"/srv/pods/u/volumes/x": "", "/srv/pods/u/x": "", "/srv/pods": "", "/srv/plugins/x": "",
		"/data/storage/overlay/" + id + "/merged": "podman", "/data/storage/overlay-containers/" + id + "/userdata/shm": "podman", "/srv/overlay/web/merged": "",
		"/opt/nomad/alloc/6f/web/secrets": "nomad", "/data/alloc/0a1b-2c/web/private": "nomad", "/data/alloc/6f/web/local": "", "/data/alloc/x/web/secrets": "",
		"/var/lib/k0s/kubelet/pods/u/x": "kubelet", "/var/lib/k0s/containerd/x": "containerd", "/var/lib/k0s": "", "/var/lib/docker/x": "docker", "/var/lib/docker": "",
		"/data": "", "/": "",
	} {
		if got := Mount(p); got != want {
			t.Errorf("Mount(%q) is %q, want %q", p, got, want)
		}
	}
}

func TestReadTold(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"etc/docker/daemon.json":      `{"log-driver": "journald", "data-root": "/data/docker/", "exec-root": 7}`,
		"etc/containerd/config.toml":  "version = 3\nroot = '/data/containerd'\nstate = \"/\"\n[plugins]\n",
		"etc/containers/storage.conf": "[storage]\ndriver = \"overlay\"\nrunroot = \"relative\"\ngraphroot = \"/data/storage\"\n",
		"etc/crio/crio.conf":          "[crio]\n# root = \"/data/none\"\nroot = \"/data/crio\"\n[crio.runtime]\nroot = \"/data/x\"\n",
		"srv/crio/x":                  "",
		"proc/1/comm":                 "systemd\n",
		"proc/7/comm":                 "kubelet\n",
		"proc/7/cmdline":              "kubelet\x00--root-dir=/data/kubelet\x00",
		"proc/8/comm":                 "kubelet\n", // a container's
		"proc/8/cmdline":              "kubelet\x00--root-dir=/data/other\x00",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"var/lib/crio": "../../srv/crio", "proc/1/ns/mnt": "mnt:[1]", "proc/7/ns/mnt": "mnt:[1]", "proc/8/ns/mnt": "mnt:[2]"} {
		link = filepath.Join(dir, link)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	told := ReadTold(root)
	for p, want := range map[string]string{
		"/data/docker/x": "docker", "/data/docker": "", "/data/containerd/x": "containerd", "/data/storage/x": "podman", "/srv/crio/x": "crio", "/data/crio/x": "crio", "/data/kubelet/x": "kubelet",
		"/data/other/x": "", "/data/x": "", "/data/x/y": "", "/data/none/x": "", "/relative/x": "", "/x": "", "/var/lib/docker/x": "docker",
	} {
		if got := told.Owner(p); got != want {
			t.Errorf("the owner of %s is %q, want %q", p, got, want)
		}
	}
}

// FuzzSetting reads a file that a runtime is told by.
func FuzzSetting(f *testing.F) {
	f.Add([]byte(`{"data-root": "/data"}`))
	f.Add([]byte(`{"data-root": ["/data"]}`))
	f.Add([]byte("[storage]\ngraphroot = \"/data\""))
	f.Add([]byte("storage = 1\nroot = \"/data\""))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, s := range Settings() {
			if dir := s.Directory(content); dir != "" && (!path.IsAbs(dir) || dir != path.Clean(dir)) {
				t.Errorf("%s: %q", s.File, dir)
			}
		}
	})
}

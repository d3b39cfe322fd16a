package protected

import (
	"encoding/json"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
)

// Mounts of runtimes and the kubelet that are told by the shape of their mountpoint alone, wherever their directory is: the kubelet's for
// volumes of pods and of plugins (pkg/kubelet/config/defaults.go, pkg/volume/util/subpath of Kubernetes), the layers of Docker and of Podman
// and CRI-O, containerd's plugins, which all are in a directory of their name, and what a task of Nomad's has for itself.
var (
	kubelets    = lazyregexp.New(`/pods/[^/]+/(volumes/[^/]+~[^/]+|volume-subpaths)/|/plugins/kubernetes\.io/`)
	containerds = lazyregexp.New(`/io\.containerd\.[^/]+/`)
	dockers     = lazyregexp.New(`/overlay2/[^/]+/merged/|/containers/[0-9a-f]{64}/mounts/`)
	podmans     = lazyregexp.New(`/overlay/[0-9a-f]+/merged/|/overlay-containers/[0-9a-f]{64}/`)
	nomads      = lazyregexp.New(`/alloc/[0-9a-f-]+/[^/]+/(secrets|private)/`)
)

// Mount names whose a mount is, as Owner does for those in a directory that is known, and beyond that by the shape of its mountpoint; "" if it is
// nobody's. An administrator gives no mountpoint such a name by chance.
func Mount(mountpoint string) string {
	p := path.Clean(mountpoint)
	if owner := Owner(p); owner != "" {
		return owner
	}
	p += "/"
	switch {
	case kubelets().MatchString(p):
		return "kubelet"
	case containerds().MatchString(p):
		return "containerd"
	case dockers().MatchString(p):
		return "docker"
	case podmans().MatchString(p):
		return "podman"
	case nomads().MatchString(p):
		return "nomad"
	}
	return ""
}

// Told are directories of one host in which everything is somebody's who labels it.
type Told []tree

// Owner is as the function of this name, for these directories.
func (t Told) Owner(resolved string) string { return ownerIn(t, resolved) }

// ReadTold gives the directories that the runtimes and the kubelet of a host were told to use, and those to which links lead from the directories
// that they have otherwise. What cannot be read says nothing.
func ReadTold(root *hostfs.Root) (told Told) {
	all := runtimes()
	for _, p := range kubelet.Processes(root) {
		if p.Host {
			all = append(all, tree{p.Dir(), "kubelet"})
		}
	}
	for _, s := range Settings() {
		if content, err := root.ReadFile(s.File); err == nil {
			all = append(all, tree{s.Directory(content), s.owner})
		}
	}
	for _, t := range all {
		if t.tree == "" {
			continue
		}
		for _, dir := range []string{t.tree, leadsTo(root, t.tree)} {
			if dir != "" && dir != "/" {
				told = append(told, tree{dir, t.owner})
			}
		}
	}
	return told
}

// leadsTo gives the place of a directory without links; "" if it is not there.
func leadsTo(root *hostfs.Root, dir string) string {
	f, err := root.Handle(dir)
	if err != nil {
		return ""
	}
	defer f.Close()
	there, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return ""
	}
	return path.Clean("/" + strings.TrimPrefix(there, root.Path("/")))
}

// Setting is where a runtime is told a directory: a key in a file, in those tables of it that come before a dot.
type Setting struct{ File, key, owner string }

// Settings gives all of them: of dockerd(8), containerd-config.toml(5), crio.conf(5) and containers-storage.conf(5).
func Settings() []Setting {
	return []Setting{
		{"/etc/docker/daemon.json", "data-root", "docker"}, {"/etc/docker/daemon.json", "exec-root", "docker"},
		{"/etc/containerd/config.toml", "root", "containerd"}, {"/etc/containerd/config.toml", "state", "containerd"},
		{"/etc/crio/crio.conf", "crio.root", "crio"}, {"/etc/crio/crio.conf", "crio.runroot", "crio"},
		{"/etc/containers/storage.conf", "storage.graphroot", "podman"}, {"/etc/containers/storage.conf", "storage.runroot", "podman"},
	}
}

// Directory gives what the text of the file sets; "" if it sets nothing, or no absolute path.
func (s Setting) Directory(content []byte) string {
	var in map[string]any
	unmarshal := toml.Unmarshal
	if path.Ext(s.File) == ".json" {
		unmarshal = json.Unmarshal
	}
	if unmarshal(content, &in) != nil {
		return ""
	}
	tables := strings.Split(s.key, ".")
	last := len(tables) - 1
	for _, name := range tables[:last] {
		in, _ = in[name].(map[string]any)
	}
	if value, _ := in[tables[last]].(string); path.IsAbs(value) {
		return path.Clean(value)
	}
	return ""
}

// Package protected knows the paths that are never given one label as a whole, whatever is declared: those of the operating system,
// where a wrong label locks everybody out, and those that a container runtime labels by itself.
//
// Paths are absolute and resolved: no link, no "..". Do not use it on a path that somebody wrote down, except to warn early; ask
// again with what a handle of it really leads to (/proc/self/fd/N, or the mount table).
package protected

import (
	"path"
	"slices"
	"strings"
)

// tree is a directory in which everything is somebody's who labels it.
type tree struct{ tree, owner string }

// runtimes are those that are so wherever nobody was told otherwise.
func runtimes() []tree {
	return []tree{
		{"/var/lib/kubelet", "kubelet"},
		{"/var/lib/containerd", "containerd"}, {"/run/containerd", "containerd"}, {"/run/k3s/containerd", "containerd"},
		{"/var/lib/rancher/k3s/agent/containerd", "containerd"}, {"/var/lib/rancher/rke2/agent/containerd", "containerd"},
		{"/var/lib/docker", "docker"}, {"/run/docker", "docker"},
		{"/var/lib/containers", "podman"}, {"/run/containers", "podman"}, {"/run/libpod", "podman"},
		{"/var/lib/crio", "crio"}, {"/run/crio", "crio"},
		{"/var/lib/k0s/kubelet", "kubelet"}, {"/var/lib/k0s/containerd", "containerd"}, {"/run/k0s/containerd", "containerd"},
		{"/opt/nomad/alloc", "nomad"}, {"/opt/nomad/data/alloc", "nomad"}, {"/var/lib/nomad/alloc", "nomad"},
	}
}

// Directories are protected themselves; what is below them need not be.
func Directories() []string {
	all := []string{
		"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/run/lock", "/run/systemd", "/run/user", "/srv", "/tmp",
		"/var", "/var/cache", "/var/lib", "/var/lib/rancher", "/var/lib/systemd", "/var/log", "/var/run", "/var/spool", "/var/tmp",
	}
	return append(all, Runtimes()...)
}

// Runtimes are the directories of container runtimes and the kubelet, which label everything in them.
func Runtimes() (trees []string) {
	for _, r := range runtimes() {
		trees = append(trees, r.tree)
	}
	return trees
}

// Trees are protected with everything below them.
func Trees() []string {
	return append(administrators(),
		"/bin", "/dev", "/efi", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr",
		"/var/lib/selinux", "/var/lib/selinux-provision",
	)
}

// administrators are those trees in which an administrator has files, too.
func administrators() []string { return []string{"/boot", "/etc", "/oem"} }

// Path tells whether nothing may be labelled as a whole at this path.
func Path(resolved string) bool {
	p := path.Clean(resolved)
	return slices.Contains(Directories(), p) || slices.ContainsFunc(Trees(), func(tree string) bool { return p == tree || below(p, tree) })
}

// Declared tells whether what is at and below this path keeps its labels when an administrator declares another file context for it. That is
// so for what Path protects, except single directories and files in /etc and the like, and for all that a container runtime owns.
func Declared(resolved string) bool {
	p := path.Clean(resolved)
	if slices.ContainsFunc(administrators(), func(tree string) bool { return below(p, tree) }) {
		return false
	}
	return Path(p) || Owner(p) != ""
}

// Owner names the container runtime, or the kubelet, that everything below a directory belongs to which this path is in: "kubelet",
// "containerd", "docker", "podman", "crio" or "nomad"; "" if it is nobody's. Podman and CRI-O share a directory, which counts as Podman's.
func Owner(resolved string) string {
	return ownerIn(runtimes(), resolved)
}

func ownerIn(trees []tree, resolved string) string {
	p := path.Clean(resolved)
	for _, t := range trees {
		if below(p, t.tree) {
			return t.owner
		}
	}
	return ""
}

func below(p, tree string) bool {
	after, found := strings.CutPrefix(p, tree)
	return found && strings.HasPrefix(after, "/")
}

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

// Directories are protected themselves; what is below them need not be.
func Directories() []string {
	return []string{
		"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/run/lock", "/run/systemd", "/run/user", "/srv", "/tmp",
		"/var", "/var/cache", "/var/lib", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet",
		"/var/lib/systemd", "/var/log", "/var/run", "/var/spool", "/var/tmp",
	}
}

// Trees are protected with everything below them.
func Trees() []string {
	return []string{
		"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/oem", "/proc", "/sbin", "/sys", "/usr",
		"/var/lib/selinux", "/var/lib/selinux-provision",
	}
}

// Path tells whether nothing may be labelled as a whole at this path.
func Path(resolved string) bool {
	p := path.Clean(resolved)
	return slices.Contains(Directories(), p) ||
		slices.ContainsFunc(Trees(), func(tree string) bool { return p == tree || strings.HasPrefix(p, tree+"/") })
}

// Owner names the container runtime, or the kubelet, that everything below a directory belongs to which this path is in: "kubelet",
// "containerd", "docker", "podman" or "crio"; "" if it is nobody's. Podman and CRI-O share a directory, which counts as Podman's.
func Owner(resolved string) string {
	p := path.Clean(resolved)
	for _, o := range []struct{ tree, name string }{
		{"/var/lib/kubelet", "kubelet"},
		{"/var/lib/containerd", "containerd"}, {"/run/containerd", "containerd"},
		{"/var/lib/docker", "docker"}, {"/run/docker", "docker"},
		{"/var/lib/containers", "podman"}, {"/run/containers", "podman"}, {"/run/libpod", "podman"},
		{"/var/lib/crio", "crio"}, {"/run/crio", "crio"},
	} {
		if strings.HasPrefix(p, o.tree+"/") {
			return o.name
		}
	}
	return ""
}

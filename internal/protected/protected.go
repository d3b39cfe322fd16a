// Package protected knows the paths that no volume may be labelled at, whatever is declared: those of the operating system, where
// a wrong label locks the administrator out, and those that a container runtime looks after by itself.
//
// Paths are absolute and resolved: no link, no "..". Do not use it on a path that somebody wrote down, except to warn early; ask
// again with what a handle of it really leads to (/proc/self/fd/N, or the mount table).
package protected

import (
	"path"
	"strings"
)

// Why says why nothing may be labelled at this very path, in words that follow "PATH is "; "" if there is no reason against it.
func Why(resolved string) string {
	p := path.Clean(resolved)
	switch p {
	case "/":
		return "the root of the operating system"
	case "/bin", "/sbin", "/lib", "/lib64", "/home", "/oem", "/opt", "/root", "/run", "/tmp",
		"/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp":
		return "a directory of the operating system"
	case "/var/lib/selinux", "/var/lib/selinux-provision":
		return "SELinux's own directory"
	}
	for _, tree := range []string{"/usr", "/etc", "/boot", "/proc", "/sys", "/dev"} {
		if p == tree || strings.HasPrefix(p, tree+"/") {
			return "part of the operating system"
		}
	}
	return ""
}

// Owner names who looks after everything below a directory that this path is in: "kubelet", "containerd", "docker", "podman" or
// "crio"; "" if it is nobody's. The directory itself, such as a disk that is mounted at /var/lib/docker, is the operator's.
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

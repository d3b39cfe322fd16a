package seconfig

import (
	"io"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Containers are the contexts that container runtimes give by default. One that the policy does not name is empty.
type Containers struct {
	Process string
	File    string // of volumes
	ROFile  string // of what containers only read
}

// ContainerContexts is where a policy of the given type names the labels of containers, in the format that ParseContainers reads.
func ContainerContexts(policyType string) string { return ContextsDir(policyType) + "/lxc_contexts" }

// ReadContainers reads what a policy names the labels of containers.
func ReadContainers(root *hostfs.Root, policyType string) (Containers, error) {
	f, err := root.OpenFile(ContainerContexts(policyType))
	if err != nil {
		return Containers{}, err
	}
	defer f.Close()
	return ParseContainers(f)
}

// ParseContainers reads lxc_contexts: the label of a container's processes under "process", that of its files under "file" and "ro_file". Lines are
// KEY = "VALUE", and # or ; begins a comment (selinux_lxc_contexts_path(3); the format is libvirt's and Docker's). The last line counts.
func ParseContainers(r io.Reader) (c Containers, err error) {
	content, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(key) {
		case "process":
			c.Process = value
		case "file":
			c.File = value
		case "ro_file":
			c.ROFile = value
		}
	}
	return c, nil
}

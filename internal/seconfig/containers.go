package seconfig

import (
	"io"
	"strings"
)

// ContainerContexts is where a policy of the given type names the labels of containers, in the format that ParseContainerContexts reads.
func ContainerContexts(policyType string) string {
	return "/etc/selinux/" + policyType + "/contexts/lxc_contexts"
}

// ParseContainerContexts reads lxc_contexts: the label of a container's processes under "process", that of its files under "file". Lines are
// KEY = "VALUE", and # begins a comment (libselinux, selinux_lxc_contexts_path(3); the format is libvirt's and Docker's).
func ParseContainerContexts(r io.Reader) (map[string]string, error) {
	content, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return nil, err
	}
	contexts := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, found := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); found && key != "" && !strings.HasPrefix(key, "#") {
			contexts[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return contexts, nil
}

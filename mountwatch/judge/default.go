package judge

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// ReadDefaultContext gives the context that the image has for the files of containers: "file" in /etc/selinux/TYPE/contexts/lxc_contexts
// (lxc_contexts(5)). It is "" if the file does not say it. At most 1 MiB is read.
func ReadDefaultContext(r io.Reader) (string, error) {
	lines := bufio.NewScanner(io.LimitReader(r, 1<<20))
	lines.Buffer(nil, 1<<20)
	context := ""
	for lines.Scan() {
		// KEY = "VALUE", with or without spaces and quotes, as opencontainers/selinux reads it.
		line := strings.TrimSpace(lines.Text())
		key, value, found := strings.Cut(line, "=")
		if !found || strings.HasPrefix(line, "#") || strings.TrimSpace(key) != "file" {
			continue
		}
		context = strings.Trim(strings.TrimSpace(value), `"'`)
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("cannot read lxc_contexts: %w", err)
	}
	return context, nil
}

package ignition

import (
	"path"
	"strings"
)

// volume reads SOURCE:TARGET:OPTIONS.
func (c *containerRun) volume(value string) {
	parts := strings.Split(value, ":")
	if len(parts) < 2 {
		return
	}
	b := bind{source: parts[0]}
	if len(parts) > 2 {
		for option := range strings.SplitSeq(parts[2], ",") {
			b.relabels = b.relabels || option == "z" || option == "Z"
			b.readOnly = b.readOnly || option == "ro"
			if option == "O" { // an overlay over the directory: the container sees the directory's labels, and gets its own for what it writes
				b.readOnly = true
			}
		}
	}
	c.add(b)
}

// composeSource gives a source with the directory that it is relative to.
func composeSource(file, source string) string {
	if strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../") {
		name, rest, more := strings.Cut(source, ":")
		if name = path.Join(path.Dir(file), name); more {
			return name + ":" + rest
		}
		return name
	}
	return source
}

// volumeName gives what stands before the target of a volume.
func volumeName(value string) string {
	name, _, _ := strings.Cut(value, ":")
	return name
}

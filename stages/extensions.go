package stages

import (
	"io/fs"
	"path"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/policystore"
)

// ForeignLabel is what a system extension image brought into /usr with another label than the files of the OS image have.
type ForeignLabel struct {
	Path   string `json:"path"`
	Label  string `json:"label"`
	Vendor string `json:"vendor"` // what the OS image's files have
}

// extendedTree is a tree that extension images may be merged into.
type extendedTree interface {
	ReadDir(name string) ([]fs.DirEntry, error)
	Label(name string) (string, error)
}

// foreignLabels looks at /usr once extension images are merged there. A directory that both the OS image and an extension have gets the
// extension's label as a whole, so that a container which reads a directory of the host's /usr may be denied it.
func (h *Host) foreignLabels() []ForeignLabel {
	if !h.Root.IsHost() {
		return nil
	}
	if table, err := mounts.Read(); err != nil || mergedAt(table, "/usr") == nil {
		return nil
	}
	return labelsApart(h.Root)
}

// labelsApart compares what is in /usr, and what is in that, with a file that no extension may bring. /usr itself and what it says of the images
// are systemd's, which makes a directory for what it merges. It says nothing of an OS image that gives its own files different labels: which of
// them is another's cannot be told then. What is gone while it looks is left out.
func labelsApart(tree extendedTree) (apart []ForeignLabel) {
	vendor, err := tree.Label("/usr/lib/os-release")
	if err != nil {
		return nil
	}
	if own, err := tree.Label(policystore.VendorDir); err != nil || own != vendor {
		return nil
	}
	var look func(name string, depth int)
	look = func(name string, depth int) {
		if label, err := tree.Label(name); err == nil && label != vendor && depth < 2 {
			apart = append(apart, ForeignLabel{name, label, vendor})
		}
		if depth == 0 {
			return
		}
		entries, err := tree.ReadDir(name)
		if err != nil {
			return
		}
		for _, e := range entries {
			if (e.IsDir() || depth == 1) && e.Name() != ".systemd-sysext" {
				look(path.Join(name, e.Name()), depth-1)
			}
		}
	}
	look("/usr", 2)
	return apart
}

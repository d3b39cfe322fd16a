package seconfig

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Dir is where libselinux looks for its configuration and for policies.
const Dir = "/etc/selinux"

// LowerLayers are where OS images have the lower layer of the overlay on /etc: Flatcar since 3535, and its sibling Azure Container Linux.
func LowerLayers() []string { return []string{"/usr/share/flatcar/etc", "/usr/share/distro/etc"} }

// ErrNoType says that a configuration does not name a policy.
var ErrNoType = errors.New("it does not name a policy")

// Read reads the configuration at name, which is Path, or the vendor's.
func Read(root *hostfs.Root, name string) (Config, error) {
	f, err := root.OpenFile(name)
	if err != nil {
		return Config{}, err
	}
	defer f.Close()
	return Parse(f)
}

// Type gives the type of the policy that the host has by its configuration. It is fit for a path, and there may be no such policy.
func Type(root *hostfs.Root) (string, error) {
	c, err := Read(root, Path)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot tell the type of the policy: %w", err)
	case c.Type == "":
		return "", fmt.Errorf("cannot tell the type of the policy: %s has no line SELINUXTYPE=: %w", root.Path(Path), ErrNoType)
	case !ValidType(c.Type):
		return "", fmt.Errorf("cannot tell the type of the policy: %s has SELINUXTYPE=%s: %w", root.Path(Path), printable.Text(c.Type), ErrNoType)
	}
	return c.Type, nil
}

// ValidType reports whether a type can be the name of a directory of a policy.
func ValidType(policyType string) bool {
	return policyType != "" && !strings.HasPrefix(policyType, ".") && !strings.ContainsAny(policyType, "/\x00")
}

// PolicyDir is where the binary policies of a type are, beneath Dir or the vendor's directory.
func PolicyDir(base, policyType string) string { return path.Join(base, policyType, "policy") }

// ContextsDir is where a policy says which contexts what has.
func ContextsDir(policyType string) string { return path.Join(Dir, policyType, "contexts") }

// A PolicyFile is a binary policy.
type PolicyFile struct {
	Name    string // policy.33
	Version int    // 33
}

// Policies lists the binary policies in a directory in the order in which PID 1 tries them: it begins with the highest version that it
// knows (libselinux, selinux_mkload_policy). Names that it would never ask for, such as policy.033 or policy.33.bak, are none.
func Policies(root *hostfs.Root, dir string) ([]PolicyFile, error) {
	entries, err := root.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []PolicyFile
	for _, e := range entries {
		number, _ := strings.CutPrefix(e.Name(), "policy.")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && e.Name() == "policy."+strconv.Itoa(n) {
			all = append(all, PolicyFile{e.Name(), n})
		}
	}
	slices.SortFunc(all, func(a, b PolicyFile) int { return b.Version - a.Version })
	return all, nil
}

// OpenPolicy opens the binary policy of a type that PID 1 would try first, beneath Dir or the vendor's directory.
func OpenPolicy(root *hostfs.Root, base, policyType string) (*os.File, error) {
	dir := PolicyDir(base, policyType)
	policies, err := Policies(root, dir)
	if err != nil {
		return nil, err
	}
	if len(policies) == 0 {
		return nil, fmt.Errorf("there is none in %s", root.Path(dir))
	}
	return root.OpenFile(dir + "/" + policies[0].Name)
}

package policystore

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// What stands in the policy as a boolean would, such as the name of a file system, is none; and a policy of a version that this program
// does not know is nobody's failure.
func TestBooleansOfTheBuiltPolicy(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found, err := filepath.Glob(filepath.Join(tree.Dir, "etc/selinux/mcs/policy/policy.*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	b, file := &Compiler{Root: root}, filepath.Base(found[0])
	for _, c := range []struct {
		want    map[string]bool
		missing string
		fails   bool
	}{
		{map[string]bool{"container_use_nfs": false, "container_connect_any": true}, "[]", false},
		{map[string]bool{"container_use_nfs": false, "ext4": true, "no_such": true}, "[ext4 no_such]", false},
		{map[string]bool{"container_use_nfs": true}, "[]", true},
	} {
		missing, err := b.checkBooleans("mcs", file, c.want)
		names := []string{}
		for _, q := range missing {
			names = append(names, q.Name)
		}
		if fmt.Sprint(names) != c.missing || (err != nil) != c.fails {
			t.Errorf("%v: missing %v, %v", c.want, names, err)
		}
	}
	want := map[string]bool{"container_use_nfs": false}
	if got, err := VendorBooleans(root, "mcs", []string{"container_use_nfs", "xattr"}); err != nil || !maps.Equal(got, want) {
		t.Errorf("the vendor's: %v, %v", got, err)
	}

	content, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	// Of several policies the one counts that PID 1 would load.
	tree.Write(VendorDir[1:]+"/mcs/policy/policy.2", "an older one")
	if got, err := VendorBooleans(root, "mcs", []string{"container_use_nfs"}); err != nil || !maps.Equal(got, want) {
		t.Errorf("beside an older one: %v, %v", got, err)
	}
	content[16] = 99
	if err := os.WriteFile(found[0], content, 0o644); err != nil {
		t.Fatal(err)
	}
	if missing, err := b.checkBooleans("mcs", file, map[string]bool{"no_such": true}); err != nil || len(missing) > 0 {
		t.Errorf("a version that is not known: %v, %v", missing, err)
	}
}

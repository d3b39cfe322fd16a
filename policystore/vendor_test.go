package policystore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// image is a tree with a vendor policy of the type mcs.
func image(t *testing.T) (dir string, root *hostfs.Root) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{VendorStore + "/mcs/active/modules", EtcDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{VendorDir + "/config", EtcDir + "/config"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("SELINUX=permissive\nSELINUXTYPE=mcs\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

// A host without a vendor policy is another kind of host. One whose policy cannot be read is a host with a fault, which is said.
func TestNoVendorOrUnreadable(t *testing.T) {
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	replace := func(name string, by func(string) error) func(string) error {
		return func(dir string) error {
			full := filepath.Join(dir, name)
			return errors.Join(os.RemoveAll(full), by(full))
		}
	}
	directory := func(name string) error { return os.Mkdir(name, 0o755) }
	file := func(name string) error { return os.WriteFile(name, nil, 0o644) }
	dangling := func(name string) error { return os.Symlink("/nowhere", name) }
	circle := func(name string) error { return os.Symlink(filepath.Base(name), name) }
	says := func(text string) func(string) error {
		return func(name string) error { return os.WriteFile(name, []byte(text), 0o644) }
	}
	closed := func(name string) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, name), 0) }
	}
	const vendors, ours, store = VendorDir + "/config", EtcDir + "/config", VendorStore + "/mcs/active/modules"
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string // the type, or part of the error
	}{
		{"as shipped", func(string) error { return nil }, "mcs"},
		{"no vendor configuration", remove(vendors), "no vendor policy store"},
		{"no vendor directory", remove(VendorDir), "no vendor policy store"},
		{"no vendor store", remove(VendorStore), "no vendor policy store"},
		{"a file in place of the vendor's directory", replace(VendorDir, file), "no vendor policy store"},
		{"a file in place of the modules", replace(store, file), "no vendor policy store"},
		{"a dangling link", replace(vendors, dangling), "no vendor policy store"},
		{"a directory in place of the file", replace(vendors, directory), "no vendor policy store"},
		{"a vendor configuration that does not say", replace(vendors, says("SELINUX=permissive\n")), "no vendor policy store"},
		{"a vendor configuration that cannot be read", closed(vendors), "cannot read the policy's type: open "},
		{"a store that cannot be looked into", closed(VendorStore), "cannot tell which policies this OS image ships: open "},
		{"no configuration", remove(ours), "mcs"},
		{"a directory in its place", replace(ours, directory), "mcs"},
		{"a link in a circle", replace(ours, circle), "mcs"},
		{"another type", replace(ours, says("SELINUXTYPE=targeted\n")), "cannot use SELINUXTYPE=targeted of "},
		{"a configuration that cannot be read", closed(ours), "cannot read the policy's type: open "},
		{"a type that no file system could have", replace(ours, says("SELINUXTYPE="+strings.Repeat("x", 300)+"\n")),
			"cannot tell which policies this OS image ships: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, root := image(t)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			type answer struct {
				policyType string
				err        error
			}
			answers := make(chan answer)
			go func() {
				// Permissions stop nobody who is root, so this thread is somebody else to file systems. It ends with the goroutine.
				runtime.LockOSThread()
				if os.Geteuid() == 0 {
					_ = unix.Setfsuid(65534)
				}
				policyType, err := FindType(root)
				answers <- answer{policyType, err}
			}()
			got := <-answers
			if got.err == nil && got.policyType != c.want || got.err != nil && !strings.Contains(got.err.Error(), c.want) {
				t.Errorf("%q, %v, want %q", got.policyType, got.err, c.want)
			}
			if none := strings.HasPrefix(c.want, "no vendor"); errors.Is(got.err, ErrNoVendor) != none {
				t.Errorf("%v: no vendor policy: %v", got.err, none)
			}
			if strings.HasSuffix(c.want, "open ") && !errors.Is(got.err, fs.ErrPermission) {
				t.Errorf("%v does not say why", got.err)
			}
			for _, name := range []string{vendors, VendorStore} { // for the removal of the tree
				_ = os.Chmod(filepath.Join(dir, name), 0o755)
			}
		})
	}
}

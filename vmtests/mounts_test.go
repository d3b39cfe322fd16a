package vmtests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMountsOfEachKernel proves that every change of the mount table is seen on the machines' kernels, with SELinux and with udev: on 6.12 by
// its unique IDs, on the next release's also by its notices, and on both in the way of kernels that have neither. It is the test of
// the package itself, run there. The storm of 5,000 mounts is left to the host that the tests run on: it says nothing more here.
//
// Proves V11: 6.12 and 7.2, by unique IDs and notices and in the way of older kernels.
func TestMountsOfEachKernel(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "mounts.test")
	build := exec.Command("go", "test", "-c", "-trimpath", "-o", binary, "github.com/selinux-provision/selinux-provision/internal/mounts")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the tests of internal/mounts: %v\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []Suite{Trixie, Forky} {
		t.Run(string(suite), func(t *testing.T) {
			m := Start(t, Options{Suite: suite})
			if err := m.Put(t.Context(), "/root/mounts.test", content, 0o755); err != nil {
				t.Fatal(err)
			}
			m.Must(t, "cd /root && CI=true ./mounts.test -test.skip Storm 2>&1")
		})
	}
}

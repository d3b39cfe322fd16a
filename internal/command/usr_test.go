package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOtherUsr runs a tool that exists in another /usr only, and finds nothing mounted afterwards.
func TestOtherUsr(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounting needs root")
		}
		t.Skip("mounting needs root")
	}
	usr := t.TempDir()
	for _, dir := range []string{"bin", "sbin", "lib", "lib64", "share"} {
		if err := os.Mkdir(filepath.Join(usr, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A static program that needs nothing of /usr: this test itself.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(usr, "sbin/only-there"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = (Tools{}).Run(t.Context(), "only-there", "-test.list=.*")
	if err == nil {
		t.Fatal("the tool ran without the other /usr")
	}
	out, err := (Tools{Usr: usr}).Run(t.Context(), "only-there", "-test.list=TestOtherUsr")
	if err != nil && !strings.Contains(err.Error(), "no such file") { // a dynamic test binary (-race) has no loader there
		t.Errorf("%v: %s", err, out.Stderr)
	}
	if err == nil && !strings.Contains(out.Stdout, "TestOtherUsr") {
		t.Errorf("it said %q", out.Stdout)
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), usr) {
		t.Errorf("the other /usr is still mounted, %v", err)
	}
}

package command

import (
	"os"
	"os/exec"
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
	// A static program: it needs nothing of /usr, where there is no loader and no library.
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"here\") }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(usr, "sbin/only-there"), source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := (Tools{}).Run(t.Context(), "only-there"); err == nil {
		t.Fatal("the tool ran without the other /usr")
	}
	out, err := (Tools{Usr: usr}).Run(t.Context(), "only-there")
	if err != nil || out.Stderr != "here\n" {
		t.Errorf("%v: it said %q", err, out.Stderr)
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), usr) {
		t.Errorf("the other /usr is still mounted, %v", err)
	}
}

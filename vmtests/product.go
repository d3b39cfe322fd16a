package vmtests

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"

	examples "github.com/selinux-provision/selinux-provision/ignition-examples"
)

// RepositoryRoot is the directory of go.mod.
func RepositoryRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}

// Product builds the static binary as it ships, into bin/ of the repository, and gives its path.
func Product(ctx context.Context) (string, error) {
	root := RepositoryRoot()
	binary := filepath.Join(root, "bin", "selinux-provision")
	build := exec.CommandContext(ctx, "make", "--no-print-directory", "--silent", "build")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build selinux-provision: %w\n%s", err, out)
	}
	return binary, nil
}

// Example gives the Ignition configuration of a file in ignition-examples, with the binary and the units in it.
func Example(ctx context.Context, name string) ([]byte, error) {
	if _, err := Product(ctx); err != nil {
		return nil, err
	}
	butane, err := examples.Files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return examples.Translate(butane, RepositoryRoot())
}

package vmtests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	examples "github.com/selinux-provision/selinux-provision/ignition-examples"
)

// RepositoryRoot is the directory of go.mod: the working directory or one above it. The compiler does not tell, with -trimpath.
func RepositoryRoot() string {
	here, err := os.Getwd()
	if err != nil {
		return ""
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return here
		}
	}
}

// Product builds the static binary as it ships, into bin/ of the repository, and gives its path.
func Product() (string, error) { return product() }

// product does it once in a process.
var product = sync.OnceValues(func() (string, error) {
	root := RepositoryRoot()
	build := exec.Command("make", "--no-print-directory", "--silent", "build")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build selinux-provision: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin", "selinux-provision"), nil
})

// Example gives the Ignition configuration of a file in ignition-examples, with what it would fetch from a server in it.
func Example(ctx context.Context, name string) ([]byte, error) {
	ignition, err := examples.Files.ReadFile(strings.TrimSuffix(name, ".bu") + ".ign")
	if err != nil {
		return nil, err
	}
	contents := map[string][]byte{}
	if bytes.Contains(ignition, []byte(examples.SysextURL)) {
		image, err := Sysext(ctx)
		if err != nil {
			return nil, err
		}
		if contents[examples.SysextURL], err = os.ReadFile(image); err != nil {
			return nil, err
		}
	} else {
		program, err := Product()
		if err != nil {
			return nil, err
		}
		if contents[examples.ProgramURL], err = os.ReadFile(program); err != nil {
			return nil, err
		}
	}
	return examples.Embed(ignition, contents)
}

// Sysext builds the system extension image as it ships, into bin/ of the repository, and gives its path.
func Sysext(ctx context.Context) (string, error) {
	program, err := Product()
	if err != nil {
		return "", err
	}
	root := RepositoryRoot()
	image := filepath.Join(root, "bin", "selinux-provision.raw")
	build := exec.CommandContext(ctx, filepath.Join(root, "packaging", "sysext"), program, runtime.GOARCH, image)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the system extension image: %w\n%s", err, out)
	}
	return image, nil
}

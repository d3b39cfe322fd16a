package powertest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
)

// OldTools gives a /usr tree with the SELinux tools of Debian 11, whose libsemanage 3.1 is that of Flatcar's LTS-2023: it does not
// flush what it writes. The tree is made once, from Debian's packages, and kept beside the images of the virtual machines; one that was
// made from other inputs is not used. Without Debian's packages the test is skipped, or fails if CI is true.
func OldTools(t testing.TB) command.Tools {
	t.Helper()
	argv := []string{"mmdebstrap", "--variant=extract", "--include=policycoreutils", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=check/empty"}
	cache := os.Getenv("VMTEST_CACHE")
	if cache == "" {
		cache = "/var/cache/selinux-provision-vmtests"
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "tools.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	inputs := sha256.Sum256([]byte(strings.Join(argv, "\x00")))
	dir := filepath.Join(cache, fmt.Sprintf("tools-bullseye-%x", inputs[:8]))
	if _, err := os.Stat(dir); err == nil {
		return command.Tools{Usr: filepath.Join(dir, "usr")}
	}
	// A mirror frozen in time is beyond its own expiry date: a host set up for one says so in its apt configuration.
	out, err := (command.Tools{}).Run(t.Context(), "apt-config", "dump", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
	if err == nil {
		for line := range strings.Lines(out.Stdout) {
			if line = strings.TrimSuffix(strings.TrimSpace(line), ";"); line != "" {
				argv = append(argv, "--aptopt="+line)
			}
		}
	}
	unfinished := dir + ".unfinished"
	if err = os.RemoveAll(unfinished); err == nil {
		_, err = (command.Tools{}).Run(t.Context(), append(argv, "bullseye", unfinished)...)
	}
	var failed *command.ExitError
	if errors.As(err, &failed) {
		t.Log(failed.Output.Stderr)
	}
	if err != nil {
		skip(t, "the tools of Debian 11 cannot be unpacked: "+err.Error())
	}
	if err := os.Rename(unfinished, dir); err != nil {
		t.Fatal(err)
	}
	return command.Tools{Usr: filepath.Join(dir, "usr")}
}

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

// Tools gives a /usr tree with the SELinux tools of a release of Debian. The libsemanage 3.1 of bullseye is that of Flatcar's LTS-2023, which does not
// flush what it writes; trixie has the 3.8 of Flatcar's stable release, forky a later one. A tree is made once, from Debian's packages, and kept
// beside the images of the virtual machines; one that was made from other inputs is not used. Without Debian's packages the test is skipped, or fails
// if CI is true.
func Tools(t testing.TB, release string) command.Tools {
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
	dir := filepath.Join(cache, fmt.Sprintf("tools-%s-%x", release, inputs[:8]))
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
		_, err = (command.Tools{}).Run(t.Context(), append(argv, release, unfinished)...)
	}
	var failed *command.ExitError
	if errors.As(err, &failed) {
		t.Log(failed.Output.Stderr)
	}
	if err != nil {
		skip(t, "the tools of Debian "+release+" cannot be unpacked: "+err.Error())
	}
	if err := os.Rename(unfinished, dir); err != nil {
		t.Fatal(err)
	}
	return command.Tools{Usr: filepath.Join(dir, "usr")}
}

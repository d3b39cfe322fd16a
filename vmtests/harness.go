package vmtests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Require skips a test that needs a virtual machine where none can be had, and says why. With CI=true or VMTEST=require it fails
// instead: a skip must not pass for a success there.
func Require(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("a virtual machine takes long: not in -short mode")
	}
	reason := missing()
	switch {
	case reason == "":
	case os.Getenv("CI") == "true" || os.Getenv("VMTEST") == "require":
		t.Fatalf("cannot run virtual machines: %s", reason)
	default:
		t.Skipf("cannot run virtual machines: %s", reason)
	}
}

// Missing is an error if this host cannot run virtual machines.
func Missing() error {
	if reason := missing(); reason != "" {
		return fmt.Errorf("cannot run virtual machines: %s", reason)
	}
	return nil
}

// missing names what a virtual machine needs and this host lacks.
func missing() string {
	if os.Getenv("VMTEST") == "off" {
		return "VMTEST=off"
	}
	programs := []string{"qemu-system-x86_64", "qemu-img"}
	if readyImage() == "" {
		programs = append(programs, "mmdebstrap", "mkfs.btrfs", "mkfs.ext4", "mkfs.vfat", "mdir", "mksquashfs", "zstd", "lz4", "sfdisk", "veritysetup", "grub-mkimage")
	}
	var lacking []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			lacking = append(lacking, program)
		}
	}
	switch {
	case len(lacking) > 0:
		return fmt.Sprintf("%s not found; vmtests/packages.txt lists the packages", strings.Join(lacking, ", "))
	case os.Geteuid() != 0 && readyImage() == "":
		return "building the images needs root"
	}
	return ""
}

// Start boots a machine for a test. At the test's end the machine is judged and closed: trouble on its console or in its journal
// fails the test.
func Start(t testing.TB, options Options) *Machine {
	t.Helper()
	return start(t, options, Boot)
}

func start(t testing.TB, options Options, boot func(context.Context, Options) (*Machine, error)) *Machine {
	t.Helper()
	Require(t)
	if why := notWithReadyImage(options); readyImage() != "" && why != "" {
		t.Skipf("cannot do this with the image of VMTEST_IMAGE: %s", why)
	}
	if options.Progress == nil {
		options.Progress = func(line string) { t.Log(line) }
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	m, err := boot(ctx, options)
	if m != nil {
		t.Cleanup(func() {
			defer m.Close()
			judge(t, m)
		})
	}
	if err != nil {
		if m != nil {
			m.failed = append(m.failed, err.Error())
		}
		t.Fatal(err)
	}
	return m
}

// fail says what is wrong, and says it once more below the console: who reads the end of a long log finds the reason there.
func (m *Machine) fail(t testing.TB, say func(...any), format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	m.failed = append(m.failed, text)
	say(text)
}

func judge(t testing.TB, m *Machine) {
	t.Helper()
	problems, err := m.Verdict(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, problem := range slices.Compact(problems) {
		m.fail(t, t.Error, "verdict: %s", problem)
	}
	if t.Failed() {
		t.Logf("end of the console:\n%s", lastLines(m.Console(), 40))
		for _, text := range m.failed {
			t.Logf("failed: %s", lastLines(text, 20))
		}
	}
}

// Must runs a command in the guest that has to succeed, and returns what it printed, without surrounding white space.
func (m *Machine) Must(t testing.TB, command string) string {
	t.Helper()
	out, err := m.Run(t.Context(), command)
	if err != nil {
		m.fail(t, t.Fatal, "%v", err)
	}
	if out.Exit != 0 {
		m.fail(t, t.Fatal, "%q in the guest: exit code %d\n%s%s", command, out.Exit, out.Stdout, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

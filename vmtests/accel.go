package vmtests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// accelArgs chooses how QEMU runs the guest's instructions. VMTEST_ACCEL is auto (the default), kvm or tcg.
func accelArgs(ctx context.Context, kernel string) ([]string, error) {
	kvm := []string{"-accel", "kvm", "-cpu", "host"}
	// Without cx16=off a 6.12 kernel dies of a double fault at a cmpxchg16b under QEMU 7.2. The rest only costs time, a quarter of a boot's: deeper
	// page tables, a second set of translations for the kernel's access to a process's memory, vectors that are wide only in a real processor;
	// and what is fast there and slow here: QEMU does "rep movsb" byte by byte, and a CRC of SSE 4.2 bit by bit. Programs take
	// pclmulqdq for a sign of the latter.
	tcg := []string{"-accel", "tcg,thread=multi,tb-size=512", "-cpu",
		"max,cx16=off,la57=off,smap=off,smep=off,pku=off,xsave=off,avx=off,avx2=off,f16c=off,fma=off,erms=off,fsrm=off,sse4.2=off,pclmulqdq=off"}
	switch choice := os.Getenv("VMTEST_ACCEL"); choice {
	case "kvm":
		return kvm, nil
	case "tcg":
		return tcg, nil
	case "", "auto":
		if kernel == "" { // a ready image: there is nothing to try it with
			return tcg, nil
		}
		works, err := kvmWorks(ctx, kernel)
		if err != nil {
			return nil, err
		}
		if works {
			return kvm, nil
		}
		return tcg, nil
	default:
		return nil, fmt.Errorf("cannot use VMTEST_ACCEL=%s: it is none of auto, kvm, tcg", choice)
	}
}

// kvmWorks boots a kernel until its first line. That /dev/kvm opens proves nothing: there are hosts where it does and a guest hangs.
// The answer is kept until the host's next boot.
func kvmWorks(ctx context.Context, kernel string) (bool, error) {
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, fmt.Errorf("cannot read the host's boot id: %w", err)
	}
	cached := filepath.Join(CacheDir(), "kvm-"+strings.TrimSpace(string(bootID)))
	if answer, err := os.ReadFile(cached); err == nil {
		return string(answer) == "works", nil
	}
	answer := "hangs"
	if probeKVM(ctx, kernel) {
		answer = "works"
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err := os.WriteFile(cached, []byte(answer), 0o644); err != nil {
		return false, fmt.Errorf("cannot note whether KVM works: %w", err)
	}
	return answer == "works", nil
}

func probeKVM(ctx context.Context, kernel string) bool {
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	device.Close()
	dir, err := os.MkdirTemp("", "vmtest-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	console := filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35,sata=off,smbus=off", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults",
		"-display", "none", "-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-serial", "file:"+console)
	if err := cmd.Start(); err != nil {
		return false
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { cancel(); <-ended }()
	for {
		// The kernel finds no root and panics: by then it has said enough.
		if text, _ := os.ReadFile(console); strings.Contains(string(text), "Kernel panic") {
			return true
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(console)
			return strings.Contains(string(text), "Kernel panic")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

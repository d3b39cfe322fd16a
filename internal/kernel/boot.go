package kernel

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// BootID gives the kernel's random name of the running boot, 32 hexadecimal digits as the journal writes it.
func BootID() (string, error) {
	return bootID("/proc/sys/kernel/random/boot_id")
}

func bootID(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot tell which boot this is: %w", err)
	}
	id := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return "", fmt.Errorf("cannot tell which boot this is: %s in %s is no boot ID", printable.Quote(id), file)
	}
	return id, nil
}

// Uptime gives the time since the kernel started, time asleep included. Nobody can set this clock.
func Uptime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("cannot read the kernel's clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

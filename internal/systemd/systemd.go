// Package systemd asks systemd for the few things that only it can do: restart or start a unit and wait for the outcome, tell how
// units fare, take units out of the boot, and store structured records in the journal.
//
// Use it on the running host only; IsRunning tells whether there is a systemd to talk to. Do not use it for a tree that is
// not the running host, nor to read the journal. A unit that is being started by the same boot transaction must not be
// restarted from a unit that it is ordered after: each would wait for the other until the limit of the context.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// jobLimit ends the wait for a job whose end systemd never tells, should the context have no limit of its own.
const jobLimit = 5 * time.Minute

// IsRunning says whether systemd is the init system of the running host.
func IsRunning() bool {
	return isDirectory("/run/systemd/system")
}

func isDirectory(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.IsDir()
}

// RestartUnit restarts a unit, or starts it if it is not running, and waits until systemd says how that ended. Only the
// result "done" is no error. For a oneshot service that is the end of its commands, all with success.
func RestartUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not end within %s", jobLimit))
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot restart %s: %w", unit, err)
	}
	defer conn.Close()
	return job(ctx, "restart", "replace", conn.RestartUnitContext, unit)
}

// StartUnit starts a unit and waits until systemd says how that ended. Only the result "done" is no error: for a service of type
// notify that is its word that it is ready. A unit that runs already is left alone.
func StartUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not start within %s", jobLimit))
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", unit, err)
	}
	defer conn.Close()
	return job(ctx, "start", "replace", conn.StartUnitContext, unit)
}

// job orders something and waits for its end. The verb is for messages; mode says what becomes of other units, systemctl(1) --job-mode.
func job(ctx context.Context, verb, mode string, call func(ctx context.Context, unit, mode string, result chan<- string) (int, error), unit string) error {
	// The channel has room for the one result, or else the connection would wait for a reader that may have left.
	result := make(chan string, 1)
	if _, err := call(ctx, unit, mode, result); err != nil {
		return fmt.Errorf("cannot %s %s: %w", verb, unit, ended(ctx, err))
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("cannot %s %s: systemd ended the job with the result %s: see \"systemctl status %s\"", verb, unit, printable.Quote(r), unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot see the %s of %s to its end: %w", verb, unit, context.Cause(ctx))
	}
}

// ReloadUnit has a unit that runs read its configuration again, and waits until systemd says how that ended. One that does not run, or
// does not exist, has nothing to read.
func ReloadUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not end within %s", jobLimit))
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot reload %s: %w", unit, err)
	}
	defer conn.Close()
	if err := job(ctx, "reload", "replace", conn.ReloadOrTryRestartUnitContext, unit); !noSuchUnit(err) {
		return err
	}
	return nil
}

// StopUnit stops a unit, and what cannot be without it, and waits until systemd says how that ended. A unit that does not exist is
// stopped already.
func StopUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not end within %s", jobLimit))
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot stop %s: %w", unit, err)
	}
	defer conn.Close()
	if err := job(ctx, "stop", "replace", conn.StopUnitContext, unit); !noSuchUnit(err) {
		return err
	}
	return nil
}

// DisableUnits takes units out of every boot target that wants them and makes systemd see that. It does not stop them. A unit
// that does not exist is disabled already. One that could be disabled and is wanted all the same, because a file below /usr says so
// as that of a system extension image does, is masked.
func DisableUnits(ctx context.Context, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot disable units: %w", err)
	}
	defer conn.Close()
	var failures []error
	for _, unit := range units {
		// One by one: systemd leaves a list at the first unit that does not exist.
		if _, err := conn.DisableUnitFilesContext(ctx, []string{unit}, false); err != nil && !noSuchUnit(err) {
			failures = append(failures, fmt.Errorf("cannot disable %s: %w", unit, ended(ctx, err)))
		}
	}
	reload := func() {
		if err := conn.ReloadContext(ctx); err != nil {
			failures = append(failures, fmt.Errorf("cannot make systemd read its units again: %w", ended(ctx, err)))
		}
	}
	reload()
	wanted, err := stillWanted(ctx, conn, units)
	if err != nil {
		failures = append(failures, fmt.Errorf("cannot see what still wants the units: %w", ended(ctx, err)))
	}
	if len(wanted) > 0 {
		if _, err := conn.MaskUnitFilesContext(ctx, wanted, false, false); err != nil {
			failures = append(failures, fmt.Errorf("cannot mask %s: %w", strings.Join(wanted, ", "), ended(ctx, err)))
		}
		reload()
	}
	return errors.Join(failures...)
}

// stillWanted gives the units that have an [Install] section, are not enabled by it, and are wanted by another unit.
func stillWanted(ctx context.Context, conn *systemd.Conn, units []string) (wanted []string, err error) {
	files, err := conn.ListUnitFilesByPatternsContext(ctx, []string{"disabled"}, units)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		unit := path.Base(file.Path)
		properties, err := conn.GetUnitPropertiesContext(ctx, unit)
		if err != nil {
			return nil, err
		}
		for _, by := range wantedBy() {
			if others, ok := properties[by].([]string); ok && len(others) > 0 {
				wanted = append(wanted, unit)
				break
			}
		}
	}
	return wanted, nil
}

func noSuchUnit(err error) bool {
	var reply dbus.Error
	return errors.As(err, &reply) && slices.Contains([]string{
		"org.freedesktop.systemd1.NoSuchUnit",
		"org.freedesktop.DBus.Error.FileNotFound",
		"System.Error.ENOENT",
	}, reply.Name)
}

// ended prefers the reason for which a context ended to the error that its end caused.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// connect prefers systemd's own socket, which is there from the first moment of the boot. The bus comes much later, and
// during the boot nobody should wait for it.
func connect(ctx context.Context) (*systemd.Conn, error) {
	conn, private := systemd.NewSystemdConnectionContext(ctx)
	if private == nil {
		return conn, nil
	}
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot reach systemd: %w", errors.Join(private, err))
	}
	// Without a subscriber systemd tells the bus nothing about the end of jobs.
	if err := conn.Subscribe(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot subscribe to systemd's signals: %w", err)
	}
	return conn, nil
}

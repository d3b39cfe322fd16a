package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"
)

func TestIsRunning(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"": true, "file": false, "link": false, "none": false} {
		if got := isDirectory(filepath.Join(dir, name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if IsRunning() != isDirectory("/run/systemd/system") {
		t.Error("another directory is looked at")
	}
}

func TestRestartResults(t *testing.T) {
	ends := func(result string) func(context.Context, string, string, chan<- string) (int, error) {
		return func(_ context.Context, unit, mode string, to chan<- string) (int, error) {
			if unit != "a.service" || mode != "replace" {
				t.Errorf("restart of %s, mode %s", unit, mode)
			}
			to <- result
			return 7, nil
		}
	}
	if err := job(t.Context(), "restart", "replace", ends("done"), "a.service"); err != nil {
		t.Error(err)
	}
	for _, result := range []string{"failed", "canceled", "timeout", "dependency", "skipped", ""} {
		want := fmt.Sprintf(`cannot restart a.service: systemd ended the job with the result %q: see "systemctl status a.service"`, result)
		if err := job(t.Context(), "restart", "replace", ends(result), "a.service"); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}

	refused := func(context.Context, string, string, chan<- string) (int, error) {
		return 0, dbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit", Body: []any{"Unit a.service not found."}}
	}
	if err := job(t.Context(), "restart", "replace", refused, "a.service"); err == nil || err.Error() != "cannot restart a.service: Unit a.service not found." {
		t.Error(err)
	}
}

// A job whose end is never told costs no more than the limit.
//
// Proves P1.
func TestRestartEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := errors.New("the stage took too long")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
		defer cancel()
		silent := func(context.Context, string, string, chan<- string) (int, error) { return 7, nil }
		err := job(ctx, "restart", "replace", silent, "a.service")
		if want := "cannot see the restart of a.service to its end: the stage took too long"; !errors.Is(err, late) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

func TestNoSuchUnit(t *testing.T) {
	for name, want := range map[string]bool{
		"org.freedesktop.systemd1.NoSuchUnit": true, "org.freedesktop.DBus.Error.FileNotFound": true,
		"org.freedesktop.DBus.Error.AccessDenied": false,
	} {
		if got := noSuchUnit(fmt.Errorf("wrapped: %w", dbus.Error{Name: name})); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if noSuchUnit(os.ErrNotExist) {
		t.Error("a missing socket is no missing unit")
	}
}

func TestContextEndsCalls(t *testing.T) {
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := ended(ctx, os.ErrClosed); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	cancel(stop)
	if err := ended(ctx, os.ErrClosed); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := DisableUnits(ctx); err != nil {
		t.Error(err)
	}
	if err := RestartUnit(ctx, "selinux-provision-test-none.service"); err == nil {
		t.Error("a unit was restarted under a context that had ended")
	}
}

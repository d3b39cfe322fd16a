package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
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

// The names are those of systemd-escape(1), which a host without systemd does not have.
func TestMountUnitName(t *testing.T) {
	for point, want := range map[string]string{
		"/": "-.mount", "/srv/data": "srv-data.mount", "/srv//a b/": `srv-a\x20b.mount`, "/srv/a-b": `srv-a\x2db.mount`, "/.snap/.x": `\x2esnap-.x.mount`,
		"/a\tb": `a\x09b.mount`, `/a\b`: `a\x5cb.mount`, "/é@x": `\xc3\xa9\x40x.mount`, "/a:b_c.d": "a:b_c.d.mount",
	} {
		if got := MountUnitName(point); got != want {
			t.Errorf("%q is %s, and systemd has %s", point, got, want)
		}
		if got := Mountpoint(want); got != path.Clean(point) {
			t.Errorf("%s is for %q, not for %q", want, point, got)
		}
	}
}

// A mount's turn has come when nothing that it comes after has a job, but for the unit that asks.
func TestTurn(t *testing.T) {
	u := MountUnit{Name: "srv-data.mount", after: []string{"dev-vdb.device", "systemd-fsck@dev-vdb.service", "first@srv-data.service", "-.mount"}}
	job := func(unit, kind string) systemd.JobStatus { return systemd.JobStatus{Unit: unit, JobType: kind} }
	mount, self := job("srv-data.mount", "start"), job("first@srv-data.service", "start")
	for name, c := range map[string]struct {
		jobs         []systemd.JobStatus
		wanted, turn bool
	}{
		"now":            {[]systemd.JobStatus{mount, self, job("other.service", "start")}, true, true},
		"a disk":         {[]systemd.JobStatus{job("dev-vdb.device", "start"), mount, self}, true, false},
		"a check":        {[]systemd.JobStatus{mount, self, job("systemd-fsck@dev-vdb.service", "start")}, true, false},
		"one that stops": {[]systemd.JobStatus{mount, self, job("-.mount", "stop")}, true, false},
		"nothing to do":  {[]systemd.JobStatus{mount, self, job("-.mount", "nop")}, true, true},
		"given up":       {[]systemd.JobStatus{self, job("dev-vdb.device", "start")}, false, false},
		"restart":        {[]systemd.JobStatus{job("srv-data.mount", "restart"), self}, true, true},
		"to be stopped":  {[]systemd.JobStatus{job("srv-data.mount", "stop"), self}, false, true},
		"none":           {nil, false, true},
	} {
		if wanted, turn := turnOf(u, "first@srv-data.service", c.jobs); wanted != c.wanted || turn != c.turn {
			t.Errorf("%s: wanted %v, turn %v", name, wanted, turn)
		}
	}
}

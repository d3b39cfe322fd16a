package stages

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/systemd"
)

// The journal has how a window goes: its begin, what is new, and ten lines or so, however often the host is looked at.
func TestNewsOfAWindow(t *testing.T) {
	t.Parallel()
	trial := &Trial{Since: time.Hour, Window: 5 * time.Minute}
	good := systemd.UnitState{Name: "docker.service", Load: "loaded", Active: "active", Sub: "running"}
	dead := systemd.UnitState{Name: "docker.service", Load: "loaded", Active: "inactive", Sub: "dead"}
	var j journalist
	var lines []string
	for elapsed := time.Duration(0); elapsed < trial.Window; elapsed += lookInterval {
		v := view{elapsed: elapsed, units: []systemd.UnitState{good}}
		switch {
		case elapsed < 10*time.Second:
			v.units[0] = dead
		case elapsed >= 100*time.Second:
			v.denials = 42
		}
		if j.news(trial, v) {
			lines = append(lines, elapsed.String()+v.noted())
		}
	}
	want := []string{"0s; docker.service is inactive (dead)", "10s", "40s", "1m10s", "1m40s; 42 accesses denied", "2m10s; 42 accesses denied", "2m40s; 42 accesses denied",
		"3m10s; 42 accesses denied", "3m40s; 42 accesses denied", "4m10s; 42 accesses denied", "4m40s; 42 accesses denied"}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if !j.news(&Trial{Since: 2 * time.Hour, Window: trial.Window}, view{}) {
		t.Error("another window begins without a line")
	}
	for _, c := range []struct {
		v    view
		want string
	}{
		{view{units: []systemd.UnitState{good}}, ""},
		{view{unseen: 2, why: errors.New("no bus")}, "; the host could not be looked at: no bus"},
		{view{units: []systemd.UnitState{good}, restarted: map[string]uint32{"docker.service": 1}, denials: 1}, "; systemd restarted docker.service, 1 of 2 times that are too many; 1 access denied"},
	} {
		if got := c.v.noted(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

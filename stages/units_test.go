package stages

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/systemd"
)

func TestUnitProblems(t *testing.T) {
	t.Parallel()
	boots := []string{"multi-user.target"}
	for _, c := range []struct {
		name string
		unit systemd.Enablement
		want string // in the problem; "": there is none
	}{
		{"right", systemd.Enablement{Name: MountwatchUnit, Load: "loaded", Active: "active", WantedBy: boots}, ""},
		{"starting", systemd.Enablement{Name: MountwatchUnit, Load: "loaded", Active: "activating", WantedBy: boots}, ""},
		{"wanted by a waiting unit alone", systemd.Enablement{Name: MountwatchUnit, Load: "loaded", Active: "active", WantedBy: []string{"selinux-provision-volume@data.service"}}, "is disabled"},
		{"disabled", systemd.Enablement{Name: targetUnit, Load: "loaded", Active: "inactive"}, "is disabled"},
		{"the target is reached again by apply", systemd.Enablement{Name: targetUnit, Load: "loaded", Active: "inactive", WantedBy: boots}, ""},
		{"masked", systemd.Enablement{Name: targetUnit, Load: "masked", Active: "inactive", WantedBy: boots}, "is masked"},
		{"not installed", systemd.Enablement{Name: "selinux-provision-check.path", Load: "not-found", Active: "inactive"}, "is not installed"},
		{"failed", systemd.Enablement{Name: MountwatchUnit, Load: "loaded", Active: "failed", WantedBy: boots}, "does not run (failed)"},
		{"stopped", systemd.Enablement{Name: MountwatchUnit, Load: "loaded", Active: "inactive", WantedBy: boots}, "does not run (inactive)"},
	} {
		got := unitProblems([]systemd.Enablement{c.unit})
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0].Problem, c.unit.Name+" "+c.want) || got[0].Remedy == "") {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
	}
	for _, err := range []error{nil, errors.New("no systemd")} {
		var s Status
		h := &Host{Enablement: func(_ context.Context, names ...string) (all []systemd.Enablement, _ error) {
			for _, n := range names {
				all = append(all, systemd.Enablement{Name: n, Load: "loaded", Active: "inactive"})
			}
			return all, err
		}}
		h.unitStatus(t.Context(), &s)
		want := len(NeededUnits())
		if err != nil {
			want = 1
		}
		if len(s.Problems) != want || err == nil && len(s.Units) != want {
			t.Errorf("%v: %+v", err, s)
		}
	}
}

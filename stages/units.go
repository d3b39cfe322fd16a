package stages

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/systemd"
)

// MountwatchUnit labels volumes. The generator does nothing where it is not enabled.
const MountwatchUnit = "selinux-provision-mountwatch.service"

// targetUnit wants the stages, the watch over a boot on trial, and the look at the host now and then.
const targetUnit = "selinux-provision.target"

// NeededUnit is a unit that has to be enabled.
type NeededUnit struct {
	Name    string
	Without string // what does not happen where it is not
}

// NeededUnits is the one table of the units that have to be enabled: those that ship with an [Install] section. What revert disables, what it
// says, and what status looks at come from here, and tests hold the units, the documents and the examples against it.
func NeededUnits() []NeededUnit {
	return []NeededUnit{
		{targetUnit, "the next boot puts nothing in force that is declared, and a trial of enforcing is not watched"},
		{MountwatchUnit, "volumes do not get their label when they are mounted"},
		{"selinux-provision-check.path", "nobody says before the reboot into an OS update what will not build"},
	}
}

// EnableCommand is the line that enables and starts what is needed.
func EnableCommand() string { return "systemctl enable --now " + neededNames() }

func neededNames() string {
	var names []string
	for _, u := range NeededUnits() {
		names = append(names, u.Name)
	}
	return strings.Join(names, " ")
}

// Units are what revert disables, so that the next boot does not provision the host again.
func Units() []string {
	units := strings.Fields(neededNames())
	for _, s := range Order() {
		units = append(units, "selinux-provision-stage-"+s.Name+".service")
	}
	return units
}

// background are the units that run, or start something, as long as the host is up.
func background() []string {
	return []string{"selinux-provision-evidence.timer", "selinux-provision-check.path", MountwatchUnit}
}

// UnitStatus is how one of the units fares that have to be enabled.
type UnitStatus struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"` // the next boot starts it
	Active  string `json:"active"`  // systemd's word: active, inactive, failed, ...
}

// unitStatus adds the units that have to be enabled, and what is wrong with them.
func (h *Host) unitStatus(ctx context.Context, s *Status) {
	if h.Enablement == nil {
		return
	}
	var names []string
	for _, u := range NeededUnits() {
		names = append(names, u.Name)
	}
	all, err := h.Enablement(ctx, names...)
	if err != nil {
		s.Problems = append(s.Problems, Problem{"nobody knows whether the units are enabled: " + err.Error(), "see: systemctl is-enabled " + neededNames()})
		return
	}
	for _, u := range all {
		s.Units = append(s.Units, UnitStatus{Name: u.Name, Enabled: u.Boots(), Active: u.Active})
	}
	s.Problems = append(s.Problems, unitProblems(all)...)
}

// unitProblems says which of the units that have to be enabled are not, and whether the watcher runs.
func unitProblems(all []systemd.Enablement) (problems []Problem) {
	needed := NeededUnits()
	for _, u := range all {
		i := slices.IndexFunc(needed, func(n NeededUnit) bool { return n.Name == u.Name })
		if i < 0 {
			continue
		}
		without := needed[i].Without
		switch {
		case u.Load == "not-found":
			problems = append(problems, Problem{u.Name + " is not installed: " + without, "install the units of this release, then run: " + EnableCommand()})
		case u.Load == "masked":
			problems = append(problems, Problem{u.Name + " is masked: " + without, "run: systemctl unmask " + u.Name + " && " + EnableCommand()})
		case !u.Boots():
			problems = append(problems, Problem{u.Name + " is disabled: " + without, "run: " + EnableCommand()})
		case u.Name == MountwatchUnit && (u.Active == "inactive" || u.Active == "failed"):
			problems = append(problems, Problem{fmt.Sprintf("%s does not run (%s): %s", u.Name, u.Active, without),
				"see: journalctl -u " + u.Name + "; then run: systemctl restart " + u.Name})
		}
	}
	return problems
}

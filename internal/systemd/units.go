package systemd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
)

// UnitState is how a unit fares. The words are systemd's own (systemctl show).
type UnitState struct {
	Name   string
	Load   string // loaded, not-found, masked, error, bad-setting
	Active string // active, reloading, inactive, failed, activating, deactivating
	Sub    string // running, exited, auto-restart, dead, ...
	Result string // of a service: success, exit-code, signal, timeout, ...; "" for others
	Type   string // of a service: simple, notify, oneshot, ...; "" for others
	// Restarts counts how often systemd has restarted a service by itself since somebody started it.
	Restarts uint32
	// Started says that the unit has left "inactive" at least once since systemd read it.
	Started bool
	// Triggered says that another unit starts this one when it is needed, as a socket does: being inactive is then no fault.
	Triggered bool
}

// Units asks how units fare, in the order of their names in the call. A unit that does not exist has Load "not-found".
func Units(ctx context.Context, names ...string) ([]UnitState, error) {
	if len(names) == 0 {
		return nil, nil
	}
	conn, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the state of units: %w", err)
	}
	defer conn.Close()
	list, err := conn.ListUnitsByNamesContext(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the state of units: %w", ended(ctx, err))
	}
	if len(list) != len(names) {
		return nil, fmt.Errorf("cannot ask for the state of units: systemd told of %d, %d were named", len(list), len(names))
	}
	states := make([]UnitState, len(list))
	for i, u := range list {
		states[i] = UnitState{Name: names[i], Load: u.LoadState, Active: u.ActiveState, Sub: u.SubState}
		if strings.HasSuffix(names[i], ".service") && u.LoadState == "loaded" {
			if err := service(ctx, conn, &states[i]); err != nil {
				return nil, err
			}
		}
	}
	return states, nil
}

func service(ctx context.Context, conn *systemd.Conn, to *UnitState) error {
	properties, err := conn.GetUnitTypePropertiesContext(ctx, to.Name, "Service")
	if err != nil {
		return fmt.Errorf("cannot ask for the state of %s: %w", to.Name, ended(ctx, err))
	}
	to.Result, _ = properties["Result"].(string)
	to.Type, _ = properties["Type"].(string)
	to.Restarts, _ = properties["NRestarts"].(uint32)
	left, err := conn.GetUnitPropertyContext(ctx, to.Name, "InactiveExitTimestampMonotonic")
	if err != nil {
		return fmt.Errorf("cannot ask for the state of %s: %w", to.Name, ended(ctx, err))
	}
	since, _ := left.Value.Value().(uint64)
	to.Started = since != 0
	triggers, err := conn.GetUnitPropertyContext(ctx, to.Name, "TriggeredBy")
	if err != nil {
		return fmt.Errorf("cannot ask for the state of %s: %w", to.Name, ended(ctx, err))
	}
	names, _ := triggers.Value.Value().([]string)
	to.Triggered = len(names) > 0
	return nil
}

// Enablement is whether the next boot starts a unit.
type Enablement struct {
	Name   string
	Load   string // loaded, not-found, masked, ...
	Active string // active, inactive, failed, ...
	// WantedBy are the units that have it started with them, for whatever reason: a link of "systemctl enable", or a file below /usr.
	WantedBy []string
}

// Boots tells whether a target has it started, as each boot does. A service that waits for it is not one.
func (e Enablement) Boots() bool {
	return e.Load == "loaded" && slices.ContainsFunc(e.WantedBy, func(unit string) bool { return strings.HasSuffix(unit, ".target") })
}

// Enablements asks whether the next boot starts units, in the order of their names in the call.
func Enablements(ctx context.Context, names ...string) ([]Enablement, error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask whether units are enabled: %w", err)
	}
	defer conn.Close()
	var all []Enablement
	for _, name := range names {
		properties, err := conn.GetUnitPropertiesContext(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("cannot ask whether %s is enabled: %w", name, ended(ctx, err))
		}
		e := Enablement{Name: name}
		e.Load, _ = properties["LoadState"].(string)
		e.Active, _ = properties["ActiveState"].(string)
		for _, by := range wantedBy() {
			others, _ := properties[by].([]string)
			e.WantedBy = append(e.WantedBy, others...)
		}
		all = append(all, e)
	}
	return all, nil
}

// wantedBy are the properties that name the units which have one started with them.
func wantedBy() []string { return []string{"UpheldBy", "WantedBy", "RequiredBy"} }

// Stopping says whether the host is going down.
func Stopping(ctx context.Context) (bool, error) {
	conn, err := connect(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot ask for the state of the host: %w", err)
	}
	defer conn.Close()
	state, err := conn.SystemStateContext(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot ask for the state of the host: %w", ended(ctx, err))
	}
	return state.Value.Value() == "stopping", nil
}

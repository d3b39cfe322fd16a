package systemd

import (
	"context"
	"fmt"
	"path"
	"slices"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/coreos/go-systemd/v22/unit"
)

// Mounts is a connection to systemd for work on its mount units. Close it when the work is done: systemd tells every connection
// about every change of every unit, and each of that wakes the process up.
type Mounts struct{ conn *systemd.Conn }

// MountUnit is what systemd knows of a mount point.
type MountUnit struct {
	Name string // "var-lib-data.mount"
	// Files are the unit's own file and its drop-ins, in the order in which they count. There is none for a mount that systemd
	// only found, and knows no way to make again.
	Files []string
	// Active tells whether systemd sees it mounted.
	Active bool
	// Forces tells whether systemd would unmount it lazily or by force.
	Forces bool
	// NeededBy are the running units that systemd stops when this one stops, or that cannot be without it.
	NeededBy []string
}

// MountUnitName gives the name that systemd has for the unit of a mount point.
func MountUnitName(point string) string { return unit.UnitNamePathEscape(point) + ".mount" }

// OpenMounts connects to systemd.
func OpenMounts(ctx context.Context) (*Mounts, error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Mounts{conn}, nil
}

// Close ends the connection.
func (m *Mounts) Close() { m.conn.Close() }

// Unit looks at the unit of a mount point, which need not exist: then Files is empty.
func (m *Mounts) Unit(ctx context.Context, point string) (MountUnit, error) {
	u := MountUnit{Name: MountUnitName(point)}
	properties, err := m.conn.GetUnitPropertiesContext(ctx, u.Name)
	if err != nil {
		return u, fmt.Errorf("cannot ask systemd about %s: %w", u.Name, ended(ctx, err))
	}
	u.Active = properties["ActiveState"] == "active"
	if fragment, _ := properties["FragmentPath"].(string); fragment != "" && properties["LoadState"] == "loaded" {
		dropIns, _ := properties["DropInPaths"].([]string)
		u.Files = append([]string{fragment}, dropIns...)
	}
	mount, err := m.conn.GetUnitTypePropertiesContext(ctx, u.Name, "Mount")
	if err != nil {
		return u, fmt.Errorf("cannot ask systemd about %s: %w", u.Name, ended(ctx, err))
	}
	u.Forces = mount["LazyUnmount"] == true || mount["ForceUnmount"] == true

	// Targets, such as local-fs.target, need every mount of the host and use none. Devices and slices use none either.
	kinds := []string{".service", ".socket", ".scope", ".path", ".timer", ".swap"}
	var names []string
	for _, dependency := range []string{"RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"} {
		units, _ := properties[dependency].([]string)
		for _, name := range units {
			if slices.Contains(kinds, path.Ext(name)) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return u, nil
	}
	units, err := m.conn.ListUnitsByNamesContext(ctx, names)
	if err != nil {
		return u, fmt.Errorf("cannot ask systemd which units need %s: %w", u.Name, ended(ctx, err))
	}
	for _, one := range units {
		// A unit that is being started may be waiting for this very mount: it does not use it yet, but it is not for us to make it fail.
		if one.ActiveState != "inactive" && one.ActiveState != "failed" {
			u.NeededBy = append(u.NeededBy, one.Name)
		}
	}
	slices.Sort(u.NeededBy)
	return u, nil
}

// Stop unmounts a unit, and nothing else: no unit is stopped because it needs this one. See MountUnit.NeededBy before.
func (m *Mounts) Stop(ctx context.Context, name string) error {
	return m.job(ctx, "stop", m.conn.StopUnitContext, name)
}

// Start mounts a unit, and nothing else: what it needs was started when it was mounted before.
func (m *Mounts) Start(ctx context.Context, name string) error {
	return m.job(ctx, "start", m.conn.StartUnitContext, name)
}

func (m *Mounts) job(ctx context.Context, verb string, call func(context.Context, string, string, chan<- string) (int, error), name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not end within %s", jobLimit))
	defer cancel()
	return job(ctx, verb, "ignore-dependencies", call, name)
}

// Reload makes systemd run its generators and read all units again.
func (m *Mounts) Reload(ctx context.Context) error {
	if err := m.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("cannot make systemd read its units again: %w", ended(ctx, err))
	}
	return nil
}

package systemd

import (
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
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
	// What, Type and Options are what it would mount, as systemd has read its files, or what is mounted there. Bytes that are not UTF-8 come
	// as "\\xNN".
	What, Type, Options string
	// ReadWriteOnly tells that it is not mounted read-only where the device is write-protected, and SloppyOptions that a helper may pass over options
	// that it does not know (mount(8), -w and -s).
	ReadWriteOnly, SloppyOptions bool
	// DirectoryMode is for the mountpoint, where it has to be made, and Limit how long the mount may take; 0 is without end.
	DirectoryMode os.FileMode
	Limit         time.Duration
	// Automount tells whether an automount unit has it made when somebody looks at the mountpoint.
	Automount bool
	// Exists tells whether there is such a unit.
	Exists bool
	// after are the units that this one comes after.
	after []string
	// NeededBy are the running units that systemd stops when this one stops, or that cannot be without it.
	NeededBy []string
}

// MountUnitName gives the name that systemd has for the unit of a mount point (systemd-escape --path). The one of go-systemd (v22.7.0,
// unit.UnitNamePathEscape) writes one digit for a tab, where systemd has two.
func MountUnitName(point string) string {
	name := strings.Trim(path.Clean("/"+point), "/")
	if name == "" {
		return "-.mount"
	}
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + ".mount"
}

// Mountpoint gives the mount point that a unit is named after, which is where it mounts if it does not say.
func Mountpoint(unit string) string {
	name := strings.TrimSuffix(unit, ".mount")
	if name == "-" {
		return "/"
	}
	b := []byte("/")
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '-':
			b = append(b, '/')
		case strings.HasPrefix(name[i:], `\x`) && i+3 < len(name):
			if v, err := strconv.ParseUint(name[i+2:i+4], 16, 8); err == nil {
				c, i = byte(v), i+3
			}
			b = append(b, c)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

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
	u.Active, u.Exists = properties["ActiveState"] == "active", properties["LoadState"] == "loaded"
	by, _ := properties["TriggeredBy"].([]string)
	u.Automount = slices.ContainsFunc(by, func(name string) bool { return path.Ext(name) == ".automount" })
	u.after, _ = properties["After"].([]string)
	if fragment, _ := properties["FragmentPath"].(string); fragment != "" && properties["LoadState"] == "loaded" {
		dropIns, _ := properties["DropInPaths"].([]string)
		u.Files = append([]string{fragment}, dropIns...)
	}
	mount, err := m.conn.GetUnitTypePropertiesContext(ctx, u.Name, "Mount")
	if err != nil {
		return u, fmt.Errorf("cannot ask systemd about %s: %w", u.Name, ended(ctx, err))
	}
	u.What, _ = mount["What"].(string)
	u.Type, _ = mount["Type"].(string)
	u.Options, _ = mount["Options"].(string)
	u.ReadWriteOnly, u.SloppyOptions = mount["ReadWriteOnly"] == true, mount["SloppyOptions"] == true
	if mode, ok := mount["DirectoryMode"].(uint32); ok {
		u.DirectoryMode = os.FileMode(mode & 0o777)
	}
	if limit, ok := mount["TimeoutUSec"].(uint64); ok && limit < math.MaxInt64/1000 {
		u.Limit = time.Duration(limit) * time.Microsecond
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

// Start starts a unit, and nothing else: what a mount needs was started when it was mounted before.
func (m *Mounts) Start(ctx context.Context, name string) error {
	return m.job(ctx, "start", m.conn.StartUnitContext, name)
}

func (m *Mounts) job(ctx context.Context, verb string, call func(context.Context, string, string, chan<- string) (int, error), name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("it did not end within %s", jobLimit))
	defer cancel()
	return job(ctx, verb, "ignore-dependencies", call, name)
}

// Turn waits until systemd has nothing to do any more for the units that a mount comes after, but for one: then it would make the mount. It
// tells whether the mount is still to be made; systemd gives that up if something fails that the mount needs.
func (m *Mounts) Turn(ctx context.Context, u MountUnit, but string) (bool, error) {
	for wait := turnAgain; ; wait = min(2*wait, time.Second) {
		jobs, err := m.conn.ListJobsContext(ctx)
		if err != nil {
			return false, fmt.Errorf("cannot ask systemd about its jobs: %w", ended(ctx, err))
		}
		if wanted, turn := turnOf(u, but, jobs); !wanted || turn {
			return wanted, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// Wanted tells whether systemd is still to make a mount.
func (m *Mounts) Wanted(ctx context.Context, u MountUnit) (bool, error) {
	jobs, err := m.conn.ListJobsContext(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot ask systemd about its jobs: %w", ended(ctx, err))
	}
	wanted, _ := turnOf(u, "", jobs)
	return wanted, nil
}

// turnAgain is how long to wait at first before systemd is asked again.
const turnAgain = 20 * time.Millisecond

// turnOf tells whether a unit is to be started, and whether only one other unit keeps it waiting.
func turnOf(u MountUnit, but string, jobs []systemd.JobStatus) (wanted, turn bool) {
	turn = true
	for _, j := range jobs {
		switch {
		case j.JobType == "nop" || j.Unit == but:
		case j.Unit == u.Name:
			wanted = wanted || j.JobType == "start" || j.JobType == "restart"
		case slices.Contains(u.after, j.Unit):
			turn = false
		}
	}
	return wanted, turn
}

// Reload makes systemd run its generators and read all units again.
func (m *Mounts) Reload(ctx context.Context) error {
	if err := m.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("cannot make systemd read its units again: %w", ended(ctx, err))
	}
	return nil
}

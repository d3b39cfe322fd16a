package mountwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

// generatedUnits is where systemd has the generator's drop-ins.
const generatedUnits = "/run/systemd/generator"

// runtimeUnits is where what systemd's next reload is to see goes, and what the next boot does not have.
const runtimeUnits = "/run/systemd/system"

// Generate writes the drop-ins for the mounts that systemd is told to make into a generator's directory, systemd.generator(7), and the unit that
// they call for. What could not be understood is in the error; the rest is written all the same.
func Generate(root *hostfs.Root, host judge.Host, config Config, policy Policy, to string) (written int, skipped []declared.Skipped, err error) {
	rules, err := judge.NewRules(config.Rules)
	if err != nil {
		return 0, nil, err
	}
	plan, skipped, failure := planned(root, host, rules, policy)
	units, err := unitsOf(plan, host)
	failures := []error{failure, err}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		failures = append(failures, writeUnit(root, path.Join(to, name), units[name]))
	}
	return len(plan), skipped, errors.Join(failures...)
}

// unitsOf gives what systemd is to read for a plan, by the names below a directory of units.
func unitsOf(plan []declared.DropIn, host judge.Host) (map[string][]byte, error) {
	units := map[string][]byte{}
	if !host.SELinux {
		return units, nil
	}
	program, err := os.Executable()
	if err != nil {
		return units, err
	}
	units[declared.FirstUnit] = declared.FirstUnitContent(program)
	for _, d := range plan {
		units[d.Path("")] = d.Content()
	}
	return units, nil
}

func writeUnit(root *hostfs.Root, name string, content []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return root.WriteFile(name, content, hostfs.Attributes{})
}

// planned gives the plan for all mounts that systemd is told to make; one of them as systemd itself has read it, if that is known.
func planned(root *hostfs.Root, host judge.Host, rules *judge.Rules, policy Policy, known ...declared.Mount) ([]declared.DropIn, []declared.Skipped, error) {
	if !host.SELinux {
		return nil, nil, nil
	}
	all, err := declared.Find(root)
	for _, m := range known {
		all = append(slices.DeleteFunc(all, func(other declared.Mount) bool { return other.Unit == m.Unit }), m)
	}
	plan, skipped := declared.Plan(rules, declared.Host{
		DefaultContext: host.DefaultContext,
		Refused:        func(context string) string { return refusedByPolicy(policy, context) },
		Device:         remount.SameDevice,
		Mounted:        mountedContext,
	}, all)
	return plan, skipped, err
}

// refusedByPolicy says why the policy would keep a file system from being mounted with a context.
func refusedByPolicy(policy Policy, context string) string {
	_, known, err := policy.Canonical(context)
	if err == nil && !known {
		return "the policy in the kernel does not know " + context
	}
	may := false
	if err == nil {
		may, err = policy.MayMount(context)
	}
	switch {
	case err != nil:
		return fmt.Sprintf("cannot ask the kernel about %s: %v", context, err)
	case !may:
		return "the policy lets nobody on the host mount a file system with context=" + context
	}
	return ""
}

// mountedContext gives the context of a device that is mounted somewhere else than where it belongs.
func mountedContext(what, where string) (context string, mounted bool) {
	resolved, err := filepath.EvalSymlinks(what)
	if err != nil || !strings.HasPrefix(resolved, "/dev/") {
		return "", false
	}
	m := remount.MountedDevice(resolved, where)
	if m == nil {
		return "", false
	}
	return m.Context(), true
}

// declare makes systemd's mount units have what the rules ask for. The generator has done it at the boot, unless the configuration has changed
// since; then systemd runs it again, and what is still missing is written here.
func (w *Watcher) declare(ctx context.Context) {
	if w.Systemd == nil {
		return
	}
	plan, skipped, err := planned(w.Root, w.Host, w.rules, w.Policy)
	if err != nil {
		w.Report(Event{Kind: NotDeclared, Text: "not every declared mount could be read", Err: err})
	}
	for _, s := range skipped {
		w.Report(notDeclared(s))
	}
	units, err := unitsOf(plan, w.Host)
	if err == nil && len(w.config.Rules) == 0 {
		delete(units, declared.FirstUnit) // nobody asks for it
	}
	if err == nil {
		err = w.declareUnits(ctx, plan, units)
	}
	if err != nil {
		w.Report(Event{Kind: NotDeclared, Text: "systemd could not be told of the labels of its mounts", Err: err})
	}
}

func notDeclared(s declared.Skipped) Event {
	return Event{Kind: NotDeclared, Volume: Volume{Rule: s.Rule.Name, Mountpoint: s.Mount.Where, Source: s.Mount.What, FSType: s.Mount.Type},
		Text: "its mount unit does not get the option context=: " + s.Reason}
}

func (w *Watcher) declareUnits(ctx context.Context, plan []declared.DropIn, units map[string][]byte) error {
	stale, outdated := w.staleUnits(units)
	s, err := w.Systemd(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	changed := len(stale) > 0 || outdated || !w.haveAll(units)
	if changed {
		if err := w.writeUnits(ctx, s, units, stale); err != nil {
			return err
		}
	}
	// What is for a unit that systemd does not have is for nothing.
	made := len(plan)
	for _, d := range plan {
		unit, err := s.Unit(ctx, d.Mount.Where)
		if err != nil {
			return err
		}
		if !unit.Exists {
			made--
			w.Report(notDeclared(declared.Skipped{Mount: d.Mount, Rule: d.Rule, Reason: "systemd has not made " + d.Mount.Unit + " of " + d.Mount.Source}))
		}
	}
	if changed {
		w.Report(Event{Kind: Declared, Text: fmt.Sprintf("%d mount units have the labels of the volumes", made)})
	}
	return nil
}

func (w *Watcher) writeUnits(ctx context.Context, s *systemd.Mounts, units map[string][]byte, stale []string) error {
	for _, name := range stale {
		if err := w.Root.Remove(name); err != nil {
			return err
		}
	}
	if err := s.Reload(ctx); err != nil || w.haveAll(units) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		if err := writeUnit(w.Root, path.Join(runtimeUnits, name), units[name]); err != nil {
			return err
		}
	}
	return s.Reload(ctx)
}

// haveAll tells whether systemd finds every unit and drop-in.
func (w *Watcher) haveAll(units map[string][]byte) bool {
	for name, want := range units {
		content, err := w.Root.ReadFile(path.Join(runtimeUnits, name)) // which beats the generator's
		if err != nil {
			content, err = w.Root.ReadFile(path.Join(generatedUnits, name))
		}
		if err != nil || !bytes.Equal(content, want) {
			return false
		}
	}
	return true
}

// staleUnits gives what of ours is not as planned, and whether the generator has some of it that it would not write again.
func (w *Watcher) staleUnits(units map[string][]byte) (stale []string, outdated bool) {
	for _, dir := range []string{runtimeUnits, generatedUnits} {
		entries, err := w.Root.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := e.Name()
			if strings.HasSuffix(name, ".mount.d") {
				options := path.Join(dir, name, declared.OptionsName)
				name = path.Join(name, declared.DropInName)
				if _, wanted := units[name]; !wanted && w.Root.Exists(options) {
					stale = append(stale, options)
				}
			} else if name != declared.FirstUnit {
				continue
			}
			content, err := w.Root.ReadFile(path.Join(dir, name))
			switch want, wanted := units[name]; {
			case err != nil || wanted && bytes.Equal(content, want):
			case dir == generatedUnits:
				outdated = true
			default:
				stale = append(stale, path.Join(dir, name))
			}
		}
	}
	return stale, outdated
}

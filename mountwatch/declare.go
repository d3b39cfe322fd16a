package mountwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

// generatedUnits is where systemd has the generator's drop-ins.
const generatedUnits = "/run/systemd/generator"

// Generate writes the drop-ins for the mounts that systemd is told to make into a generator's directory, systemd.generator(7). What
// could not be understood is in the error; the rest is written all the same.
func Generate(root *hostfs.Root, host judge.Host, config Config, policy Policy, to string) (written int, skipped []declared.Skipped, err error) {
	rules, err := judge.NewRules(config.Rules)
	if err != nil {
		return 0, nil, err
	}
	plan, skipped, failure := planned(root, host, rules, policy, LoadRecord(root))
	failures := []error{failure}
	for _, d := range plan {
		name := d.Path(to)
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			failures = append(failures, err)
			continue
		}
		if err := root.WriteFile(name, d.Content(), hostfs.Attributes{}); err != nil {
			failures = append(failures, err)
			continue
		}
		written++
	}
	return written, skipped, errors.Join(failures...)
}

func planned(root *hostfs.Root, host judge.Host, rules *judge.Rules, policy Policy, record *Record) ([]declared.DropIn, []declared.Skipped, error) {
	if !host.SELinux {
		return nil, nil, nil
	}
	all, err := declared.Find(root)
	plan, skipped := declared.Plan(rules, declared.Host{
		DefaultContext: host.DefaultContext,
		Refused:        func(context string) string { return refusedByPolicy(policy, context) },
		Mounted:        mountedContext,
		Failed:         record.mayFail,
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

// declare makes systemd's mount units have the options that the rules ask for. The generator has done it at the boot, unless the
// configuration has changed since; then systemd runs it again, and what is still missing is written here.
func (w *Watcher) declare(ctx context.Context) {
	if w.Systemd == nil {
		return
	}
	plan, skipped, err := planned(w.Root, w.Host, w.rules, w.Policy, w.record)
	if err != nil {
		w.Report(Event{Kind: NotDeclared, Text: "not every declared mount could be read", Err: err})
	}
	for _, s := range skipped {
		w.Report(Event{Kind: NotDeclared, Volume: Volume{Rule: s.Rule.Name, Mountpoint: s.Mount.Where, Source: s.Mount.What, FSType: s.Mount.Type},
			Text: "its mount unit does not get the option context=: " + s.Reason})
	}
	stale, outdated := w.staleDropIns(plan)
	if len(stale) == 0 && !outdated && w.haveAll(plan) {
		return
	}
	if err := w.writeDropIns(ctx, plan, stale); err != nil {
		w.Report(Event{Kind: NotDeclared, Text: "systemd could not be told of the labels of its mounts", Err: err})
		return
	}
	w.Report(Event{Kind: Declared, Text: fmt.Sprintf("%d mount units have the labels of the volumes", len(plan))})
}

func (w *Watcher) writeDropIns(ctx context.Context, plan []declared.DropIn, stale []string) error {
	for _, name := range stale {
		if err := w.Root.Remove(name); err != nil {
			return err
		}
	}
	s, err := w.Systemd(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Reload(ctx); err != nil || w.haveAll(plan) {
		return err
	}
	for _, d := range plan {
		name := d.Path(remount.RuntimeUnits)
		if err := w.Root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := w.Root.WriteFile(name, d.Content(), hostfs.Attributes{}); err != nil {
			return err
		}
	}
	return s.Reload(ctx)
}

// haveAll tells whether systemd finds every drop-in.
func (w *Watcher) haveAll(plan []declared.DropIn) bool {
	for _, d := range plan {
		content, err := w.Root.ReadFile(d.Path(remount.RuntimeUnits)) // which beats the generator's
		if err != nil {
			content, err = w.Root.ReadFile(d.Path(generatedUnits))
		}
		if err != nil || !bytes.Equal(content, d.Content()) {
			return false
		}
	}
	return true
}

// staleDropIns gives our drop-ins that are not as planned, and whether the generator has some that it would not write again. A mount that
// was made again through its unit has one that was not planned; it has done its work.
func (w *Watcher) staleDropIns(plan []declared.DropIn) (stale []string, outdated bool) {
	for _, dir := range []string{remount.RuntimeUnits, generatedUnits} {
		wanted := map[string][]byte{}
		for _, d := range plan {
			wanted[d.Path(dir)] = d.Content()
		}
		entries, err := w.Root.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name(), declared.DropInName)
			content, err := w.Root.ReadFile(name)
			if !strings.HasSuffix(e.Name(), ".mount.d") || err != nil || bytes.Equal(content, wanted[name]) {
				continue
			}
			if dir == generatedUnits {
				outdated = true
			} else {
				stale = append(stale, name)
			}
		}
	}
	return stale, outdated
}

package mountwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// CheckNamespace makes sure that this process sees the mounts of the host, which are those of PID 1.
func CheckNamespace() error {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("cannot tell the mount namespace of this process: %w", err)
	}
	host, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil {
		return fmt.Errorf("cannot tell the mount namespace of PID 1: %w: run it as root", err)
	}
	if ours != host {
		return ErrOtherNamespace
	}
	return nil
}

// Wait waits until the watcher is done with the volumes of one rule, and there is at least one. It gives them if all have their
// label; otherwise the error says what is wrong with the first that has not.
func Wait(ctx context.Context, root *hostfs.Root, host judge.Host, config Config, rule string) ([]Volume, error) {
	var names []string
	for _, r := range config.Rules {
		names = append(names, r.Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("cannot wait for volume %s: there is no such rule: none is declared", printable.Quote(rule))
	}
	if !slices.Contains(names, rule) {
		return nil, fmt.Errorf("cannot wait for volume %s: there is no such rule: the rules are %s", printable.Quote(rule), strings.Join(names, ", "))
	}
	fail := func(err error) ([]Volume, error) { return nil, fmt.Errorf("cannot wait for volume %s: %w", rule, err) }
	if err := root.MkdirAll(RunDir, 0o755); err != nil {
		return fail(err)
	}
	changes, err := root.WatchDir(ctx, RunDir)
	if err != nil {
		return fail(err)
	}
	for {
		// Not the record alone: it may tell of a mount that is gone.
		all, err := Look(ctx, root, host, config)
		if err != nil {
			return fail(err)
		}
		if volumes, done, err := settled(all, rule); done || err != nil {
			return volumes, err
		}
		select {
		case _, open := <-changes:
			if !open && ctx.Err() == nil {
				return fail(errors.New("the watcher's record is gone"))
			}
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("volume %s does not have its label yet: %w", rule, err)
		}
	}
}

func settled(all []Volume, rule string) (volumes []Volume, done bool, err error) {
	done = true
	for _, v := range all {
		if v.State == LeftAlone || !slices.Contains(strings.Split(v.Rule, ", "), rule) {
			continue
		}
		volumes = append(volumes, v)
		done = done && v.State.Usable()
		if v.State.Final() && !v.State.Usable() && err == nil {
			err = fmt.Errorf("%s: cannot label %s: %s: %s", v.Rule, v.Mountpoint, v.Reason, v.Remedy)
		}
	}
	return volumes, done && len(volumes) > 0, err
}

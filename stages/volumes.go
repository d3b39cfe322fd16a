package stages

import (
	"context"
	"fmt"

	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// WatchConfig gives what the mount watcher needs to know of the declared state. Contexts are in the form in which the kernel shows them; one
// that its policy does not know is left as it is, for the verdict on the volume to say so.
func (h *Host) WatchConfig(declared *provision.State) (mountwatch.Config, error) {
	c := mountwatch.Config{Running: h.atOwnLevels, SharedVolumes: declared.SharedVolumes, Workers: declared.Relabel.Workers,
		Limits: relabel.Limits{EntriesPerSecond: declared.Relabel.EntriesPerSecond, CPUPercent: declared.Relabel.CPUPercent}}
	for _, v := range declared.Volumes {
		context, err := h.canonical(v.Context)
		if err != nil {
			return c, err
		}
		level := v.Level
		if r, err := secontext.ParseRange(level); err == nil {
			level = r.String()
		}
		c.Rules = append(c.Rules, judge.Rule{
			Name: v.Name, Source: v.Source.String(),
			Match:   judge.Match{Mountpoint: v.Match.Mountpoint, Source: v.Match.Source, FSType: v.Match.FSType, Label: v.Match.Label, UUID: v.Match.UUID, CSIDriver: v.Match.CSIDriver},
			Context: context, Level: level, Strategy: judge.Strategy(v.Strategy), Paths: v.Paths, Required: v.Required, Private: v.Private,
		})
	}
	return c, nil
}

// canonical gives a context as the kernel has it, where there is one that knows it.
func (h *Host) canonical(context string) (string, error) {
	if h.Kernel == nil {
		return string(secontext.Context(context).Tidy()), nil
	}
	canonical, known, err := h.Kernel.Canonical(context)
	if err != nil || !known {
		return context, err
	}
	return canonical, nil
}

// MountHost gives what the verdicts on all mounts depend on.
func (h *Host) MountHost() (judge.Host, error) {
	host := judge.Host{SELinux: h.Kernel != nil}
	policyType, err := policystore.FindType(h.Root)
	if err != nil {
		return host, err
	}
	contexts, err := seconfig.ReadContainers(h.Root, policyType)
	if err != nil {
		return host, nil //nolint:nilerr // a policy without containers: each rule names its context
	}
	host.DefaultContext, err = h.canonical(contexts.File)
	return host, err
}

// atOwnLevels names the containers that run at a level of their own, by that level.
func (h *Host) atOwnLevels() map[string]string {
	at := map[string]string{}
	for _, c := range attribution.New(h.Root).Running() {
		r, err := secontext.ParseRange(c.Context.Level())
		if err == nil && len(r.High.Categories) > 0 && at[r.String()] == "" {
			at[r.String()] = printable.Text(c.Subject.String())
		}
	}
	return at
}

// volumeStatus adds the volumes and what is wrong with them.
func (h *Host) volumeStatus(ctx context.Context, s *Status, declared *provision.State) error {
	s.Volumes = []mountwatch.Volume{}
	config, err := h.WatchConfig(declared)
	if err != nil {
		return err
	}
	if !h.Root.IsHost() || len(config.Rules) == 0 {
		return nil
	}
	host, err := h.MountHost()
	if err != nil {
		return err
	}
	volumes, err := mountwatch.Look(ctx, h.Root, host, config)
	if err != nil {
		return fmt.Errorf("cannot tell the labels of volumes: %w", err)
	}
	s.Volumes = append(s.Volumes, volumes...)
	for _, v := range volumes {
		name := fmt.Sprintf("volume %s at %s", v.Rule, v.Mountpoint)
		switch v.State {
		case mountwatch.Labelled:
			if v.NotShared(config) {
				s.Problems = append(s.Problems, Problem{name + " is for all containers, but a file that one of them makes will be its own",
					"set policy.shared_volumes: true, or strategy: context for this volume"})
			}
		case mountwatch.TakenOver:
			s.Problems = append(s.Problems, Problem{name + " does not have its declared label: " + v.Reason, v.Remedy})
		case mountwatch.NotMounted: // it may come, unless it never can
			if v.Reason != "" {
				s.Problems = append(s.Problems, Problem{name + " is never met: " + v.Reason, v.Remedy})
			}
		case mountwatch.LeftAlone: // nobody is to do anything about it
		case mountwatch.Remounting, mountwatch.Relabelling:
			s.Problems = append(s.Problems, Problem{fmt.Sprintf("%s does not have its label yet (%s)", name, v.State), "wait for it"})
		default:
			s.Problems = append(s.Problems, Problem{fmt.Sprintf("%s is not labelled: %s", name, v.Reason), v.Remedy})
		}
	}
	return nil
}

// Applicable says why there is nothing to provision on this host, or why this process cannot.
func (h *Host) Applicable() error { return h.applicable() }

// MountPolicy asks the running kernel's policy for the mount watcher.
func (h *Host) MountPolicy() mountwatch.Policy { return mountPolicy{h.Kernel} }

type mountPolicy struct{ *kernel.SELinux }

// MayMount is as mountwatch.Policy says. Host processes have one domain on Flatcar, that of PID 1, and so does what systemd starts to mount
// a unit. Where they have domains of their own, as on its sibling, the watcher's tells what it may itself; a mount that systemd's may not make fails, and
// the volume is mounted as it was. The kernel asks for relabelto when a superblock is made with context= (security/selinux/hooks.c, may_context_mount_sb_relabel).
func (p mountPolicy) MayMount(context string) (bool, error) {
	own, err := kernel.OwnContext()
	if err != nil {
		return false, err
	}
	return p.Allowed(own, context, "filesystem", "relabelto")
}

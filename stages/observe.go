package stages

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

const (
	// newestDenials are kept of a trial.
	newestDenials = 20
	// labelLimit bounds the look at one mount: the server of a network file system may be dead. All that are dead are waited for four times as long,
	// and each a moment at least.
	labelLimit = 5 * time.Second
)

// Findings is where denials of this host or tree are asked for.
func (h *Host) Findings() *findings.Host {
	return &findings.Host{Host: collect.Host{Root: h.Root, Kernel: h.Kernel, Tools: h.Tools}, Boot: h.Boot, HidingRules: h.HidingRules}
}

// Observe is the Evidence of the running host.
func (h *Host) Observe() Evidence {
	from := h.Findings()
	return Evidence{
		Denials: func(ctx context.Context, since time.Time) ([]*judge.Finding, avc.Stats, error) {
			r, err := from.Gather(ctx, findings.Query{Since: since})
			if err != nil {
				return nil, avc.Stats{}, err
			}
			return judged(r)
		},
		Gone: from.Gone,
		Stopped: func(ctx context.Context, since time.Time) ([]string, int, error) {
			return from.Stopped(ctx, since, newestDenials, denialLine)
		},
		Denied:     from.Denied,
		Timeline:   from.Timeline,
		Containers: func(context.Context) ([]string, error) { return from.Running(), nil },
		Unconfined: func(ctx context.Context) ([]Unconfined, error) {
			return confinement(ctx, from.Inhabited, func() LoadedPolicy {
				p, err := loadedPolicy(from.Policy(ctx))
				if err != nil {
					return LoadedPolicy{} // the names of domains alone say it
				}
				return p
			})
		},
		Domains:      from.Domains,
		Counted:      from.Count,
		Built:        h.policyBuilt,
		Policy:       func(ctx context.Context) (LoadedPolicy, error) { return loadedPolicy(from.Policy(ctx)) },
		Audit:        kernel.Audit,
		Loads:        h.Kernel.PolicyLoads,
		Mounts:       mounts.Read,
		Label:        rootLabel(),
		SELinuxMount: (&node{root: h.Root, table: mounts.Read, version: askVersion(h.Root)}).selinuxMount,
	}
}

// judged gives what was found, but for findings that were judged without the policy because of an error that another try may not meet.
func judged(r *findings.Report) ([]*judge.Finding, avc.Stats, error) {
	if r.PolicyError != nil && !findings.Unreadable(r.PolicyError) {
		return nil, r.Stats, r.PolicyError
	}
	return r.Findings, r.Stats, nil
}

// loadedPolicy answers for a policy that was read, and for one that this program cannot read, which another try does not change.
func loadedPolicy(p *policydb.Policy, err error) (LoadedPolicy, error) {
	if findings.Unreadable(err) {
		return LoadedPolicy{Unreadable: err.Error()}, nil
	}
	if err != nil {
		return LoadedPolicy{}, err
	}
	return LoadedPolicy{Dontaudits: p.Dontaudits(), Unlabeled: p.Unlabeled(), Permissive: func(domain string) bool {
		t, err := p.Describe(domain)
		return err == nil && t.Permissive
	}, PermissiveDomains: p.Permissive(), NoDomain: p.NoDomain, Name: p.Name, EnteredBy: p.EnteredBy, Unconfined: func(domain string) bool {
		t, err := p.Describe(domain)
		return err == nil && slices.Contains(t.Attributes, unconfinedAttribute)
	}}, nil
}

// policyBuilt tells when the policy was written that the policy stage built.
func (h *Host) policyBuilt() time.Time {
	store := LoadState(h.Root).Store
	info, err := h.Root.Stat(path.Join(seconfig.PolicyDir(seconfig.Dir, store.Type), store.Policy.File))
	if err != nil || store.Policy.File == "" {
		return time.Time{}
	}
	return info.ModTime.Truncate(time.Second)
}

// denialLine says a denial in one line. All of it is quoted that a program can have a word in, and the contexts of what another program than
// the kernel denied are such too.
func denialLine(d *avc.Denial, s avc.Subject) string {
	name := d.Path
	if name == "" {
		name = d.Name
	}
	who := printable.Text(d.Source.Type())
	if text := s.String(); text != "" {
		who = printable.Text(text) + " (" + who + ")"
	}
	line := fmt.Sprintf("%s %s: [%s] on %s", d.Time.UTC().Format(time.RFC3339), who, printable.Text(strings.Join(d.Permissions, " ")), printable.Text(d.Class))
	if name != "" {
		line += " " + printable.Text(name)
	}
	return line + " of type " + printable.Text(d.Target.Type())
}

// rootLabel gives the label of the root of a mount, and gives up on one that does not answer.
func rootLabel() func(ctx context.Context, m *mounts.Mount) (string, error) {
	budget := &patience.Budget{Left: 4 * labelLimit, Least: labelLimit / 20, Most: labelLimit}
	return func(ctx context.Context, m *mounts.Mount) (string, error) {
		return patience.AskWithin(ctx, budget, m.Device.String(), m.RootLabel)
	}
}

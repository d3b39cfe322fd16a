package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

const (
	// newestDenials are kept of a trial.
	newestDenials = 20
	// labelLimit bounds the look at one mount: the server of a network file system may be dead.
	labelLimit = 5 * time.Second
)

// Observe is the Evidence of the running host.
func (h *Host) Observe() Evidence {
	from := &collect.Host{Root: h.Root, Kernel: h.Kernel, Tools: h.Tools}
	return Evidence{
		Denials: func(ctx context.Context, since time.Time) ([]*judge.Finding, avc.Stats, error) {
			who := attribution.New(h.Root)
			groups := avc.NewGroups(who)
			stats, _, err := from.Denials(ctx, collect.Query{Since: since, Booted: who.Booted()}, groups.Add)
			if err != nil {
				return nil, stats, err
			}
			evidence := judge.Evidence{Container: who.Container, Mounts: attribution.ReadMounts(h.Root), Inode: from.Inode, Expected: from.Expected}
			if evidence.Policy, err = from.Policy(ctx); err != nil {
				return nil, stats, err
			}
			evidence.VolumeContext, evidence.ProcessContext = from.ContainerContexts()
			findings, err := evidence.Judge(ctx, groups.List())
			return findings, stats, err
		},
		Gone: from.Gone,
		Stopped: func(ctx context.Context, since time.Time) ([]string, int, error) {
			who := attribution.New(h.Root)
			var newest []string
			count := 0
			_, _, err := from.Denials(ctx, collect.Query{Since: since, Boot: true, Booted: who.Booted(), BootID: h.Boot}, func(d *avc.Denial) {
				if d.Kind != avc.Denied || d.Enforced != avc.EnforcedYes {
					return
				}
				count++
				newest = append(newest, denialLine(d, who.Subject(d)))
				if len(newest) > 2*newestDenials {
					newest = append(newest[:0], newest[len(newest)-newestDenials:]...)
				}
			})
			return newest[max(0, len(newest)-newestDenials):], count, err
		},
		Containers: func(context.Context) ([]string, error) {
			var names []string
			for _, s := range attribution.New(h.Root).Running() {
				names = append(names, attribution.Names(s)...)
			}
			return names, nil
		},
		Policy: func(ctx context.Context) (LoadedPolicy, error) {
			p, err := from.Policy(ctx)
			if err != nil {
				return LoadedPolicy{}, err
			}
			return LoadedPolicy{Dontaudits: p.Dontaudits(), Unlabeled: p.Unlabeled(), Permissive: func(domain string) bool {
				t, err := p.Describe(domain)
				return err == nil && t.Permissive
			}, EnteredBy: p.EnteredBy}, nil
		},
		Audit:  kernel.Audit,
		Loads:  h.Kernel.PolicyLoads,
		Mounts: readMounts,
		Label:  rootLabel,
	}
}

// denialLine says a denial in one line. All of it is quoted that a program can have a word in, and the contexts of what another program than
// the kernel denied are such too.
func denialLine(d *avc.Denial, s avc.Subject) string {
	name := d.Path
	if name == "" {
		name = d.Name
	}
	who := clean(d.Source.Type())
	if text := s.String(); text != "" {
		who = clean(text) + " (" + who + ")"
	}
	line := fmt.Sprintf("%s %s: [%s] on %s", d.Time.UTC().Format(time.RFC3339), who, clean(strings.Join(d.Permissions, " ")), clean(d.Class))
	if name != "" {
		line += " " + clean(name)
	}
	return line + " of type " + clean(d.Target.Type())
}

func readMounts() ([]*mounts.Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mount table: %w", err)
	}
	defer f.Close()
	return mounts.Parse(f)
}

// rootLabel gives up on a mount that does not answer; the goroutine then stays behind until it does.
func rootLabel(ctx context.Context, m *mounts.Mount) (string, error) {
	type answer struct {
		label string
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		label, err := m.RootLabel()
		got <- answer{label, err}
	}()
	select {
	case a := <-got:
		return a.label, a.err
	case <-time.After(labelLimit):
		return "", errors.New("it does not answer")
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

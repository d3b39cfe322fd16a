package findings

import (
	"context"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/collect"
)

// Container is one that runs.
type Container struct {
	Title   string   // to show
	Names   []string // every name by which a person may mean it
	Domains []string // of its processes
}

// Inhabited gives the containers that run with the domains of their processes, and the domain of the host's own processes.
func (h *Host) Inhabited() (all []Container, host string) {
	for _, c := range attribution.New(h.Root).Inhabited() {
		all = append(all, Container{Title: c.Name(), Names: attribution.Names(c.Subject), Domains: c.Domains})
	}
	return all, attribution.HostDomain(h.Root)
}

// Domains gives each domain in which a process runs now, with the time after the boot at which the oldest of its processes was started.
func (h *Host) Domains() map[string]time.Duration { return attribution.Domains(h.Root) }

// Remember writes down which containers run, so that a denial of one that has ended is told and judged as before. It writes only if there is
// something new.
func (h *Host) Remember(now time.Time) error { return attribution.New(h.Root).Remember(now) }

// Count tells how many accesses were denied since the boot: those that enforcing stopped, and those that a permissive mode or domain only
// reported.
func (h *Host) Count(ctx context.Context) (stopped, reported uint64, err error) {
	var c counter
	_, _, err = h.Denials(ctx, collect.Query{Boot: true, Booted: h.booted(), BootID: h.Boot}, c.add)
	return c.stopped, c.reported, err
}

// booted gives when the host that runs was started; zero for a tree.
func (h *Host) booted() time.Time {
	if !h.Root.IsHost() {
		return time.Time{}
	}
	return attribution.Booted(h.Root)
}

// Timeline tells when accesses were denied from one time to another, by workload.
func (h *Host) Timeline(ctx context.Context, from, until time.Time) (*avc.Timeline, error) {
	who := attribution.New(h.Root)
	counter := avc.NewTimeline(from, until, who)
	_, _, err := h.Denials(ctx, collect.Query{Since: from, Booted: who.Booted(), BootID: h.Boot}, counter.Add)
	return counter.Timeline(), err
}

type counter struct{ stopped, reported uint64 }

func (c *counter) add(d *avc.Denial) {
	switch {
	case d.Kind != avc.Denied:
	case d.Enforced == avc.EnforcedYes:
		c.stopped++
	default:
		c.reported++
	}
}

package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Evidence is how the running host is looked at: what denials there were, what runs, what is mounted. Observe gives the real one. A
// nil function sees nothing.
type Evidence struct {
	// Denials gives what was denied since a time, judged, and what was lost on the way to the log.
	Denials func(ctx context.Context, since time.Time) ([]*judge.Finding, avc.Stats, error)
	// Gone says what of the log since a time is not there any more, "" if nothing is known to be gone.
	Gone func(ctx context.Context, since time.Time) (string, error)
	// Stopped gives the denials of this boot that enforcing stopped since a time: the newest of them, one line each, and how many
	// there are.
	Stopped func(ctx context.Context, since time.Time) (newest []string, count int, err error)
	// Denied counts the accesses that a domain was denied in this boot since a time, those included that were only reported.
	Denied func(ctx context.Context, since time.Time, domain string) (int, error)
	// Containers gives every name of each container that runs.
	Containers func(ctx context.Context) ([]string, error)
	// Timeline gives the denials from one time to another, by workload.
	Timeline func(ctx context.Context, from, until time.Time) (*avc.Timeline, error)
	// Domains gives each domain in which a process runs, with the time after the boot at which the oldest of its processes was started.
	Domains func() map[string]time.Duration
	// Unconfined gives the containers that run and are not confined.
	Unconfined func(ctx context.Context) ([]Unconfined, error)
	// Counted tells how many accesses were denied since the boot: those that enforcing stopped, and those that were only reported.
	Counted func(ctx context.Context) (stopped, reported uint64, err error)
	// Built tells when the policy was built that is in force; the zero time if nobody knows.
	Built func() time.Time
	// Policy tells what the loaded policy hides, and which of its domains are permissive by themselves.
	Policy func(ctx context.Context) (LoadedPolicy, error)
	// Audit gives the state of the kernel's audit system, Loads its count of policy loads since the boot.
	Audit func() (kernel.AuditStatus, error)
	Loads func() (uint32, error)
	// Mounts gives the mount table, Label the label of the root of a mount.
	Mounts func() ([]*mounts.Mount, error)
	Label  func(ctx context.Context, m *mounts.Mount) (string, error)
	// SELinuxMount tells what mounting with labels does to the pods of this node; nil where there is no kubelet.
	SELinuxMount func(ctx context.Context) *SELinuxMount
}

// LoadedPolicy is what readiness asks of the policy in the kernel.
type LoadedPolicy struct {
	// Unreadable says why this program cannot read the policy, most likely one that is newer, "" if it can: the rest is then not known.
	Unreadable string
	Dontaudits int    // rules that hide denials
	Unlabeled  string // type of what has no label
	// Permissive tells whether a domain is permissive by itself, also on a host that enforces.
	Permissive func(domain string) bool
	// PermissiveDomains are those for which Permissive is true.
	PermissiveDomains []string
	// NoDomain says why no process can run in what bears a name, "" if one can. Name gives a type's own name in place of an alias.
	NoDomain, Name func(string) string
	// EnteredBy gives the domains that may enter one.
	EnteredBy func(domain string) []string
	// Unconfined tells whether a domain may do everything.
	Unconfined func(domain string) bool
}

// evidenceFile holds what was observed. It is apart from the state: it is written every few minutes, and losing it costs time only.
const evidenceFile = StateDir + "/evidence.json"

// Observed is a time in which what enforcing would deny was logged without a gap: no dontaudit rule and no audit rule hid a denial, and
// what the policy allows was one and the same. It may span boots; time when the host was off does not count. Anything that breaks it begins a new
// one. The sampler (selinux-provision readiness --sample) writes it, readiness and the enforce stage read it. Its size is bounded by
// the number of declared workloads and of the policy's domains.
type Observed struct {
	// Version is the format's, 1. A file of another version counts as missing.
	Version int `json:"version"`
	// Policy identifies the declared policy, but for its permissive domains, and the vendor's; "" if nothing is observed now.
	Policy string `json:"policy"`
	// Since is the time of the first sample, by the clock as it goes now, Covered the time that the host was up since then, Boots how many boots that were.
	Since   time.Time     `json:"since,omitzero"`
	Covered time.Duration `json:"covered_ns"`
	Boots   int           `json:"boots"`
	// Lost counts audit records that the kernel dropped in that time.
	Lost uint64 `json:"lost"`
	// Seen has the time at which each workload was last seen running: "unit docker.service", "container web".
	Seen map[string]time.Time `json:"seen,omitempty"`
	// Boot, Uptime, Counter and Loads are of the last sample: the boot's ID, the time since it began, the kernel's own count of lost
	// records, and of policy loads. The next sample is compared with them.
	Boot    string        `json:"boot"`
	Uptime  time.Duration `json:"uptime_ns"`
	Counter uint32        `json:"counter"`
	Loads   uint32        `json:"loads"`
	// Reported is the time up to the last sample in which the host was permissive, nil if it enforced then. Domains has that of each domain that was
	// permissive by itself at the last sample, the time included in which the host was permissive before. Inhabited has the domains that processes were seen
	// in since Since.
	Reported  *Soak                `json:"reported,omitempty"`
	Domains   map[string]Soak      `json:"domains,omitempty"`
	Inhabited map[string]Inhabited `json:"inhabited,omitempty"`
	// Broken says why the time before this one ended, or why nothing is observed now.
	Broken string `json:"broken,omitempty"`
	// Declared is what was declared at the last sample, as "KIND NAME", with its value; absent in records of older releases. History is what changed in it,
	// the newest last, also from before Since. Both are for the picture of the report alone.
	Declared map[string]string `json:"declared,omitempty"`
	History  []Change          `json:"history,omitempty"`
}

// loadObserved reads the record. Anything that is wrong with it gives an empty one.
func loadObserved(root *hostfs.Root) Observed {
	var o Observed
	content, err := root.ReadFile(evidenceFile)
	if err != nil || json.Unmarshal(content, &o) != nil || o.Version != 1 {
		return Observed{Version: 1}
	}
	return o
}

// Sample is what the host is like at one time, as far as evidence depends on it.
type Sample struct {
	Time    time.Time
	Boot    string
	Uptime  time.Duration
	Policy  string
	Loads   uint32
	Lost    uint32    // the kernel's count
	Running []string  // of the declared workloads
	Built   time.Time // when the policy was built; zero if nobody knows
	// Hides says what keeps denials from being logged, "" if nothing does.
	Hides string
	// Enforcing says that the kernel enforces, Permissive which domains are permissive all the same. Started has the domains in which a process runs, with the
	// time at which the oldest one was started.
	Enforcing  bool
	Permissive []string
	Started    map[string]time.Time
	// Declared is what is declared, as in Observed; nil if what is in force is something else.
	Declared map[string]string
}

// after gives the record after one more sample.
func (o Observed) after(s Sample) Observed {
	n, goesOn := o.next(s)
	n.soak(&o, &s, goesOn)
	n.Declared, n.History = o.Declared, o.History
	if s.Declared != nil {
		n.Declared, n.History = s.Declared, changed(o.History, o.Declared, &s)
	}
	return n
}

// next is after for all that the verdict on the host depends on. It tells whether the time before goes on.
func (o Observed) next(s Sample) (n Observed, goesOn bool) {
	begin := func(why string) (Observed, bool) {
		n := Observed{Version: 1, Policy: s.Policy, Since: s.Time, Boots: 1, Broken: why}
		n.take(s)
		return n, false
	}
	switch {
	case s.Hides != "":
		return Observed{Version: 1, Broken: s.Hides}, false
	case o.Policy == "":
		return begin(o.Broken)
	case o.Policy != s.Policy:
		since := "since some time before " + s.Time.Format(time.RFC3339)
		if !s.Built.IsZero() && !s.Built.After(s.Time) {
			since = "since " + s.Built.UTC().Format(time.RFC3339)
		}
		return begin("another policy is in force " + since)
	case o.Boot == s.Boot && s.Loads >= o.Loads+2:
		// One load cannot take dontaudit rules in and out again; the two samples both saw none.
		return begin(fmt.Sprintf("the policy was loaded %d times between two looks at the host, before %s: nobody knows what it hid meanwhile", s.Loads-o.Loads, s.Time.Format(time.RFC3339)))
	}
	n = o
	n.Seen = maps.Clone(o.Seen)
	switch {
	case o.Boot != s.Boot:
		// The policy is the one that this boot began with: it hid nothing from the beginning on.
		n.Boots++
		n.Covered += s.Uptime
		n.Lost += uint64(s.Lost)
	default:
		n.Covered += max(0, s.Uptime-o.Uptime)
		if s.Lost >= o.Counter {
			n.Lost += uint64(s.Lost - o.Counter)
		} else { // somebody set the count back
			n.Lost += uint64(s.Lost)
		}
	}
	n.take(s)
	// What is logged bears the time of the host's clock. If that was set back, what was logged since then must not fall before Since.
	if at := s.Time.Add(-n.Covered).Truncate(time.Second); at.Before(n.Since.Add(-clockSlack)) {
		n.Since = at
	}
	return n, true
}

// clockSlack is how far the clock and the kernel's count of time may differ because they are read one after the other, in whole seconds.
const clockSlack = 2 * time.Second

func (o *Observed) take(s Sample) {
	o.Boot, o.Uptime, o.Counter, o.Loads = s.Boot, s.Uptime, s.Lost, s.Loads
	for _, w := range s.Running {
		if o.Seen == nil {
			o.Seen = map[string]time.Time{}
		}
		o.Seen[w] = s.Time
	}
}

// noAudit says what hides all denials.
func noAudit() string {
	return kernel.ErrNoAudit.Error() + ": remove audit=0 from the kernel command line and reboot"
}

// sampled tells whether evidence is to be collected.
func sampled(d *provision.State) bool { return d.Readiness != nil || d.RequireReadiness }

// wanted is what is declared about readiness, with defaults.
func wanted(d *provision.State) provision.Readiness {
	if d.Readiness == nil {
		return provision.Readiness{Window: provision.DefaultReadinessWindow}
	}
	return *d.Readiness
}

// look takes a sample.
func (r *run) look(ctx context.Context) (Sample, error) {
	s := Sample{Time: time.Now().UTC().Truncate(time.Second), Boot: r.Boot}
	s.Policy = r.accessFingerprint()
	if r.Kernel == nil || r.Uptime == nil {
		return s, fmt.Errorf("%w: only a host that runs can be observed", ErrNotApplicable)
	}
	var err error
	if s.Uptime, err = r.Uptime(); err != nil {
		return s, err
	}
	if r.Evidence.Loads != nil {
		if s.Loads, err = r.Evidence.Loads(); err != nil {
			return s, err
		}
	}
	if r.Evidence.Audit != nil {
		status, err := r.Evidence.Audit()
		if errors.Is(err, kernel.ErrNoAudit) {
			s.Hides = noAudit()
		} else if err != nil {
			return s, err
		}
		s.Lost = status.Lost
	}
	if s.Hides == "" {
		if s.Hides, err = r.hides(ctx, &s); err != nil {
			return s, err
		}
	}
	if s.Enforcing, err = r.enforcing(); err != nil {
		return s, err
	}
	if r.Evidence.Domains != nil {
		s.Started = map[string]time.Time{}
		for domain, started := range r.Evidence.Domains() {
			s.Started[domain] = s.Time.Add(started - s.Uptime).Truncate(time.Second)
		}
	}
	if r.Evidence.Built != nil {
		s.Built = r.Evidence.Built()
	}
	if r.inForce() {
		s.Declared = declarations(r.declared)
	}
	s.Running, err = r.running(ctx)
	return s, err
}

// inForce tells whether the policy stage made the policy that is declared.
func (r *run) inForce() bool {
	p := r.state.Store.Policy
	return p.Declared == declaredPolicy(r).Digest && p.Vendor == r.state.Store.Vendor
}

// hides says what keeps denials from the log now, and writes into the sample which domains are permissive.
func (r *run) hides(ctx context.Context, s *Sample) (string, error) {
	if !r.inForce() {
		return "the policy in force is not the declared one: run selinux-provision apply", nil
	}
	if r.Evidence.Policy != nil {
		p, err := r.Evidence.Policy(ctx)
		if err != nil {
			return "", err
		}
		if p.Unreadable != "" {
			return "what the policy in force hides is not known: " + p.Unreadable + ": install a newer selinux-provision", nil
		}
		s.Permissive = p.PermissiveDomains
		if p.Dontaudits > 0 {
			return fmt.Sprintf("%d dontaudit rules of the policy hide denials: declare audit: {dontaudit: strip} and run selinux-provision apply", p.Dontaudits), nil
		}
	}
	return r.unlogged(ctx)
}

// unlogged says which audit rule keeps denials from the log, "" if none does.
func (h *Host) unlogged(ctx context.Context) (string, error) {
	if !h.Root.IsHost() {
		return "", nil
	}
	rules, err := h.HidingRules(ctx)
	if err != nil || len(rules) == 0 {
		return "", err
	}
	return "an audit rule keeps denials from the log (" + rules[0] + "): declare audit: {log_denials: true} and run selinux-provision apply", nil
}

// running gives those of the declared workloads that run now.
func (r *run) running(ctx context.Context) (all []string, err error) {
	want := wanted(r.declared)
	if len(want.Units) > 0 && r.Units != nil {
		units, err := r.Units(ctx, want.Units...)
		if err != nil {
			return nil, err
		}
		for _, u := range units {
			if up(u) {
				all = append(all, "unit "+u.Name)
			}
		}
	}
	if len(want.Containers) > 0 && r.Evidence.Containers != nil {
		names, err := r.Evidence.Containers(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range want.Containers {
			if slices.Contains(names, c) {
				all = append(all, containerWorkload(c))
			}
		}
	}
	return all, nil
}

// TakeSample looks at the host and adds to the evidence; anew makes it begin again. It does nothing where readiness is not declared, or
// where the stages have never run.
func (h *Host) TakeSample(ctx context.Context, anew bool) (taken bool, err error) {
	r, err := h.observer()
	if err != nil || !sampled(r.declared) || r.state.Store.Vendor == "" {
		return false, err
	}
	unlock, err := h.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if r.state = LoadState(h.Root); r.state.Store.Vendor == "" {
		return false, nil
	}
	s, err := r.look(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot observe the host: %w", err)
	}
	if err := h.Findings().Remember(s.Time); err != nil {
		return false, err
	}
	before := loadObserved(h.Root)
	from := before
	if anew {
		from = Observed{Version: 1, Broken: "somebody began anew at " + s.Time.Format(time.RFC3339), Declared: before.Declared, History: before.History}
	}
	after := from.after(s)
	if reflect.DeepEqual(before, after) && h.Root.Exists(evidenceFile) {
		return true, nil
	}
	content, err := json.MarshalIndent(after, "", " ")
	if err != nil {
		return false, err
	}
	if err := h.Root.WriteFile(evidenceFile, append(content, '\n'), hostfs.Attributes{Mode: 0o644}); err != nil {
		return false, fmt.Errorf("cannot write the evidence down: %w", err)
	}
	return true, nil
}

// observer gives a run that only looks.
func (h *Host) observer() (*run, error) {
	if err := h.applicable(); err != nil {
		return nil, err
	}
	declared, err := h.Declared()
	if err != nil {
		return nil, err
	}
	if _, err := policystore.VendorType(h.Root); errors.Is(err, policystore.ErrNoVendor) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotApplicable, err)
	}
	return h.quiet().newRun(declared, LoadState(h.Root), true), nil
}

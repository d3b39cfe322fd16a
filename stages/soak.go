package stages

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Soak is a time in which denials were logged and stopped nothing: of the host, or of one domain.
type Soak struct {
	// Since is its beginning, by the clock as it goes now, Covered the time that the host was up since then, Boots how many boots that were.
	Since   time.Time     `json:"since"`
	Covered time.Duration `json:"covered_ns"`
	Boots   int           `json:"boots"`
	// Lost counts audit records that the kernel dropped in that time.
	Lost uint64 `json:"lost"`
}

// Inhabited is a domain in which processes were seen.
type Inhabited struct {
	Seen time.Time `json:"seen"` // last
	// Started is the latest time after which all of its processes were started that ran at one look.
	Started time.Time `json:"started"`
}

// soak takes the times in which denials stopped nothing from the record before into the one that follows it.
func (o *Observed) soak(before *Observed, s *Sample, goesOn bool) {
	o.Reported, o.Domains, o.Inhabited = nil, nil, nil
	if o.Policy == "" {
		return
	}
	next := func(last *Soak) Soak {
		if last == nil || !goesOn {
			return Soak{Since: s.Time, Boots: 1}
		}
		k := *last
		k.Covered, k.Boots, k.Lost = k.Covered+o.Covered-before.Covered, k.Boots+o.Boots-before.Boots, k.Lost+o.Lost-before.Lost
		if at := s.Time.Add(-k.Covered).Truncate(time.Second); at.Before(k.Since.Add(-clockSlack)) { // as for the host
			k.Since = at
		}
		return k
	}
	if !s.Enforcing {
		o.Reported = new(next(before.Reported))
	}
	for _, domain := range s.Permissive {
		last := before.Reported
		if k, known := before.Domains[domain]; known {
			last = &k
		}
		if o.Domains == nil {
			o.Domains = map[string]Soak{}
		}
		o.Domains[domain] = next(last)
	}
	if goesOn {
		o.Inhabited = maps.Clone(before.Inhabited)
	}
	for domain, started := range s.Started {
		if o.Inhabited == nil {
			o.Inhabited = map[string]Inhabited{}
		}
		in := Inhabited{Seen: s.Time, Started: started}
		if latest := o.Inhabited[domain].Started; latest.After(started) {
			in.Started = latest
		}
		o.Inhabited[domain] = in
	}
}

// soakOf gives the time in which denials of a domain stopped nothing, nil if they do.
func (o *Observed) soakOf(domain string) *Soak {
	if k, known := o.Domains[domain]; known {
		return &k
	}
	return o.Reported
}

// DomainReadiness is the answer to the question whether one domain may be enforced.
type DomainReadiness struct {
	Domain  string  `json:"domain"`  // its own name, if an alias was asked for
	Verdict Verdict `json:"verdict"` // the worst of all checks
	// Enforcing says that the kernel enforces, Permissive that the domain is permissive by itself, and so only reported.
	Enforcing  bool          `json:"enforcing"`
	Permissive bool          `json:"permissive"`     // the domain, by itself
	Since      time.Time     `json:"since,omitzero"` // beginning of the time in which its denials were only reported
	Covered    time.Duration `json:"covered_ns"`     // that time, without that when the host was off
	Window     time.Duration `json:"window_ns"`      // time that is wanted
	Boots      int           `json:"boots"`          // boots in it
	Lost       uint64        `json:"lost"`           // audit records lost in it, whosever they were
	Checks     []Check       `json:"checks"`         // all of them, also those that speak for enforcing
	Next       string        `json:"next"`           // what to do now
	At         time.Time     `json:"at,omitzero"`    // when this was found out
	// Denials are the findings of the domain that enforcing would stop, Apart those of which it would not, or of which nothing follows.
	Denials []*judge.Finding `json:"denials"`
	Apart   []SetApart       `json:"set_apart"`
}

// Against gives the checks that speak against enforcing the domain, the gravest first.
func (r *DomainReadiness) Against() []Check { return against(r.Checks) }

// domainFacts is what the verdict on a domain follows from. What could not be asked has the reason in its place.
type domainFacts struct {
	domain   string // as it was asked for
	declared bool   // that evidence be collected
	want     provision.Readiness
	observed Observed // up to now
	enforces bool
	policy   LoadedPolicy
	findings []*judge.Finding // since the domain is watched
	stats    avc.Stats
	gone     string   // which log does not reach back to the beginning
	store    []string // what is wrong with it
	listed   bool     // enforce.permissive_domains has the domain
	again    *Trial   // the guard made it permissive again; nil if not
	now      time.Time

	noSample, noPolicy, noDenials string
}

// judge gives the verdict on a domain. What is not known speaks against it.
func (f *domainFacts) judge() *DomainReadiness {
	r := &DomainReadiness{Domain: f.domain, Verdict: Ready, Enforcing: f.enforces, Window: f.want.Window, Checks: []Check{}, Denials: []*judge.Finding{}, Apart: []SetApart{},
		At: f.now.UTC().Truncate(time.Second)}
	add := func(name string, good bool, otherwise Verdict, found, remedy string) {
		c := Check{Name: name, Verdict: Ready, Found: found}
		if !good {
			c.Verdict, c.Remedy = otherwise, remedy
		}
		r.Checks = append(r.Checks, c)
		r.Verdict = worse(r.Verdict, c.Verdict)
	}
	unreadable := cmp.Or(f.noPolicy, f.policy.Unreadable)
	if unreadable == "" && f.policy.Name != nil {
		r.Domain = f.policy.Name(f.domain)
	}
	r.Permissive = slices.Contains(f.policy.PermissiveDomains, r.Domain)
	switch {
	case unreadable != "" || f.policy.NoDomain == nil:
		add("domain", false, NotEnough, "whether the policy in force has the domain is not known: "+cmp.Or(unreadable, "there is no policy to ask"), "run selinux-provision status, it says what to do")
	case f.policy.NoDomain(f.domain) != "":
		add("domain", false, NotReady, f.policy.NoDomain(f.domain), "name the domain, the type of the process, as in a denial or in: ps -eZ")
	case f.enforces && !r.Permissive:
		add("domain", false, NotEnough, r.Domain+" is enforced already: what it would ask for after an access that is denied is not known", "declare it in enforce.permissive_domains, and run selinux-provision apply")
	case f.enforces:
		found := r.Domain + " is permissive by itself, and the host enforces"
		if f.again != nil {
			found += "; the guard made it permissive again at " + f.again.Began.Local().Format(time.DateTime) + ", because " + f.again.Reason
		}
		add("domain", true, NotReady, found, "")
	default:
		add("domain", true, NotReady, "the host is permissive, and "+r.Domain+" with it", "")
	}

	soak := f.observed.soakOf(r.Domain)
	switch {
	case !f.declared:
		add("evidence", false, NotEnough, "nothing is observed: readiness is not declared", "declare readiness: {window: 24h}, and run selinux-provision apply")
	case f.noSample != "":
		add("evidence", false, NotEnough, "the host cannot be looked at: "+f.noSample, "mend that, then run selinux-provision readiness again")
	case f.observed.Policy == "":
		add("evidence", false, NotEnough, "what enforcing would deny is not known: "+f.observed.Broken, "do as it says; the evidence then begins")
	case soak == nil:
		add("evidence", false, NotEnough, "there is no time in which denials of "+r.Domain+" were only reported", "declare it in enforce.permissive_domains, and run selinux-provision apply")
	default:
		r.Since, r.Covered, r.Boots = soak.Since, soak.Covered.Round(time.Second), soak.Boots
		r.Lost = max(soak.Lost, f.stats.Kernel) + f.stats.Missing + f.stats.Malformed + f.stats.Overlong
		found := "denials of " + r.Domain + " are logged and stop nothing since " + soak.Since.Local().Format(time.DateTime)
		if f.observed.Broken != "" && !soak.Since.After(f.observed.Since) {
			found += "; it begins there because " + f.observed.Broken
		}
		add("evidence", true, NotEnough, found, "")
	}
	watched := soak != nil && f.observed.Policy != ""
	add("window", watched && r.Covered >= f.want.Window, NotEnough, fmt.Sprintf("watched for %s of %s", r.Covered, f.want.Window), "wait, with the usual load on the workload")
	in, seen := f.observed.Inhabited[r.Domain]
	seen = seen && watched && !in.Seen.Before(soak.Since)
	switch {
	case !seen:
		add("workload", false, NotEnough, "no process was seen in "+r.Domain, "run the workload in it; selinux-provision-evidence.timer looks every ten minutes")
	case soak.Boots < 2 && in.Started.Before(soak.Since):
		add("workload", false, NotEnough, "its processes run since before it is watched", "restart the workload once: what starts asks for other things than what runs")
	default:
		add("workload", true, NotEnough, "its processes were started while it was watched, and last seen at "+in.Seen.Local().Format(time.DateTime), "")
	}
	switch {
	case !watched:
		add("lost", false, NotEnough, "whether records were lost is not known", "see the evidence")
	case f.gone != "":
		add("lost", false, NotEnough, fmt.Sprintf("what was denied at first is not in the log any more: %s, and the evidence at %s", f.gone, soak.Since.Local().Format(time.DateTime)), keepLog)
	default:
		add("lost", r.Lost == 0, NotEnough, fmt.Sprintf("%d audit records were lost, and nobody knows of whom they were", r.Lost), longerQueue)
	}
	f.denials(r, watched, add)
	add("store", len(f.store) == 0, NotReady, found(f.store, "the policy store is as declared", ""), "run selinux-provision status, it says what to do")

	switch {
	case r.Verdict != Ready:
		r.Next = r.Against()[0].Remedy
	case f.listed:
		r.Next = "take " + f.domain + " out of enforce.permissive_domains, and run selinux-provision apply"
	case f.again != nil:
		r.Next = "run selinux-provision apply --retry-guard: it is enforced, on trial"
	case r.Permissive:
		r.Next = "it is not declared in enforce.permissive_domains: selinux-provision status says what makes it permissive; take that back"
	default:
		r.Next = "nothing: it is enforced when the host is, unless enforce.permissive_domains has it"
	}
	return r
}

// denials tells the findings of the domain that enforcing would stop from the others.
func (f *domainFacts) denials(r *DomainReadiness, watched bool, add func(name string, good bool, otherwise Verdict, found, remedy string)) {
	if f.noDenials != "" || !watched {
		add("denials", false, NotEnough, "what was denied is not known"+strings.TrimSuffix(": "+f.noDenials, ": "), "see the evidence; selinux-provision denials reads the same log")
		return
	}
	var stops, reported, stopped uint64
	for _, d := range f.findings {
		if d.Domain != r.Domain {
			continue
		}
		if why := apart(d, f.want.Accept); why != "" {
			r.Apart = append(r.Apart, SetApart{why, d})
			continue
		}
		r.Denials = append(r.Denials, d)
		stops, reported, stopped = stops+d.Count, reported+d.Permissive, stopped+d.Enforced
	}
	if len(r.Denials) == 0 {
		add("denials", true, NotReady, "nothing was denied to "+r.Domain+" that the policy in force does not allow", "")
		return
	}
	found := fmt.Sprintf("enforcing would stop %s", plural(stops, "access", "accesses"))
	if stopped > 0 {
		found += fmt.Sprintf(" (%d of them were stopped at the time)", stopped)
	}
	add("denials", false, NotReady, found+": "+describeSome(r.Denials),
		fmt.Sprintf("run selinux-provision denials --source %s --since @%d, it says what helps; %s", r.Domain, r.Since.Unix(), acceptable(r.Denials[0])))
}

// DomainReadiness tells whether one domain may be enforced. It looks at the host and changes nothing. What cannot be asked is in the answer, and
// speaks against it.
func (h *Host) DomainReadiness(ctx context.Context, domain string) (*DomainReadiness, error) {
	r, err := h.observer()
	if err != nil {
		return nil, err
	}
	return r.domainReadiness(ctx, domain, r.unhealthy)
}

func (r *run) domainReadiness(ctx context.Context, domain string, store func(context.Context) []string) (*DomainReadiness, error) {
	f := &domainFacts{domain: domain, declared: sampled(r.declared), want: wanted(r.declared), observed: loadObserved(r.Root), now: time.Now()}
	var err error
	if f.enforces, err = r.enforcing(); err != nil {
		return nil, err
	}
	if r.Evidence.Policy != nil {
		if f.policy, err = r.Evidence.Policy(ctx); err != nil {
			f.noPolicy = err.Error()
		}
	}
	name := func(name string) string {
		if f.policy.Name == nil {
			return name
		}
		return f.policy.Name(name)
	}
	f.listed = slices.ContainsFunc(r.declared.PermissiveDomains, func(d provision.PermissiveDomain) bool { return name(d.Type) == name(domain) })
	if i := slices.IndexFunc(r.givenUp(), func(t *Trial) bool { return name(t.Domain) == name(domain) }); i >= 0 {
		f.again = r.givenUp()[i]
	}
	if f.declared {
		if s, err := r.look(ctx); err != nil {
			f.noSample, f.observed = err.Error(), Observed{}
		} else {
			f.observed = f.observed.after(s) // up to now, and not written down
		}
	}
	if soak := f.observed.soakOf(name(domain)); soak != nil {
		if r.Evidence.Denials == nil || r.Evidence.Gone == nil {
			f.noDenials = "there is no log to read"
		} else if f.findings, f.stats, err = r.Evidence.Denials(ctx, soak.Since); err != nil {
			f.noDenials = err.Error()
		} else if f.gone, err = r.Evidence.Gone(ctx, soak.Since); err != nil {
			f.noDenials = err.Error()
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f.store = store(ctx)
	return f.judge(), nil
}

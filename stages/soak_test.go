package stages

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Each domain has its own time in which its denials stopped nothing: from when on it was permissive, or the host with it.
func TestSoaks(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	look := func(minutes int, boot string, uptime int, enforcing bool, permissive ...string) Sample {
		return Sample{Time: at(minutes), Boot: boot, Uptime: time.Duration(uptime) * time.Minute, Policy: "p", Loads: 3, Enforcing: enforcing, Permissive: permissive}
	}
	changed := func(s Sample, change func(*Sample)) Sample {
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		looks []Sample
		want  *Soak // of a_t
	}{
		"never looked":       {nil, nil},
		"enforced":           {[]Sample{look(10, "x", 10, true), look(20, "x", 20, true, "b_t")}, nil},
		"one look":           {[]Sample{look(10, "x", 10, true, "a_t")}, &Soak{Since: at(10), Boots: 1}},
		"two looks":          {[]Sample{look(10, "x", 10, true, "a_t"), look(20, "x", 20, true, "a_t")}, &Soak{Since: at(10), Covered: 10 * time.Minute, Boots: 1}},
		"another comes":      {[]Sample{look(10, "x", 10, true, "a_t"), look(20, "x", 20, true, "a_t", "b_t")}, &Soak{Since: at(10), Covered: 10 * time.Minute, Boots: 1}},
		"another goes":       {[]Sample{look(10, "x", 10, true, "a_t", "b_t"), look(20, "x", 20, true, "a_t")}, &Soak{Since: at(10), Covered: 10 * time.Minute, Boots: 1}},
		"it comes later":     {[]Sample{look(10, "x", 10, true, "b_t"), look(20, "x", 20, true, "a_t"), look(30, "x", 30, true, "a_t")}, &Soak{Since: at(20), Covered: 10 * time.Minute, Boots: 1}},
		"enforced meanwhile": {[]Sample{look(10, "x", 10, true, "a_t"), look(20, "x", 20, true), look(30, "x", 30, true, "a_t")}, &Soak{Since: at(30), Boots: 1}},
		"a permissive host":  {[]Sample{look(10, "x", 10, false), look(20, "x", 20, false)}, &Soak{Since: at(10), Covered: 10 * time.Minute, Boots: 1}},
		"the host enforces, and not it": {[]Sample{look(10, "x", 10, false), look(20, "x", 20, false), look(30, "x", 30, true, "a_t"), look(40, "x", 40, true, "a_t")},
			&Soak{Since: at(10), Covered: 30 * time.Minute, Boots: 1}},
		"the host enforces, and it":      {[]Sample{look(10, "x", 10, false), look(20, "x", 20, true)}, nil},
		"the host enforced in between":   {[]Sample{look(10, "x", 10, false), look(20, "x", 20, true), look(30, "x", 30, false)}, &Soak{Since: at(30), Boots: 1}},
		"permissive since the host is":   {[]Sample{look(10, "x", 10, true, "a_t"), look(20, "x", 20, false, "a_t"), look(30, "x", 30, false, "a_t")}, &Soak{Since: at(10), Covered: 20 * time.Minute, Boots: 1}},
		"a reboot":                       {[]Sample{look(10, "x", 10, true, "a_t"), look(500, "y", 5, true, "a_t")}, &Soak{Since: at(10), Covered: 5 * time.Minute, Boots: 2}},
		"something hid denials":          {[]Sample{look(10, "x", 10, true, "a_t"), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Hides = "a rule" }), look(30, "x", 30, true, "a_t")}, &Soak{Since: at(30), Boots: 1}},
		"something hides denials":        {[]Sample{look(10, "x", 10, true, "a_t"), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Hides = "a rule" })}, nil},
		"another policy":                 {[]Sample{look(10, "x", 10, true, "a_t"), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Policy = "q" })}, &Soak{Since: at(20), Boots: 1}},
		"loaded twice":                   {[]Sample{look(10, "x", 10, true, "a_t"), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Loads = 5 })}, &Soak{Since: at(20), Boots: 1}},
		"records lost before it":         {[]Sample{look(10, "x", 10, true), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Lost = 3 })}, &Soak{Since: at(20), Boots: 1}},
		"records lost":                   {[]Sample{look(10, "x", 10, true, "a_t"), changed(look(20, "x", 20, true, "a_t"), func(s *Sample) { s.Lost = 3 })}, &Soak{Since: at(10), Covered: 10 * time.Minute, Boots: 1, Lost: 3}},
		"a clock that was set back":      {[]Sample{look(700, "x", 5, true, "a_t"), look(100, "x", 15, true, "a_t")}, &Soak{Since: at(90), Covered: 10 * time.Minute, Boots: 1}},
		"a record of an earlier release": {[]Sample{look(20, "x", 20, false)}, &Soak{Since: at(20), Boots: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			o := Observed{Version: 1}
			if strings.Contains(name, "earlier release") {
				o = Observed{Version: 1, Policy: "p", Since: at(10), Covered: time.Hour, Boots: 2, Boot: "x", Uptime: 10 * time.Minute, Loads: 3}
			}
			for _, s := range c.looks {
				o = o.after(s)
			}
			if got := o.soakOf("a_t"); (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// Processes are known by when the oldest of them was started, at the look at which that is latest.
func TestInhabited(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func(minutes int, started map[string]time.Time) Sample {
		return Sample{Time: start.Add(time.Duration(minutes) * time.Minute), Uptime: time.Duration(minutes) * time.Minute, Boot: "x", Policy: "p", Started: started}
	}
	o := Observed{Version: 1}
	for _, s := range []Sample{look(10, map[string]time.Time{"a_t": start, "b_t": start}), look(20, map[string]time.Time{"a_t": start.Add(time.Minute)}),
		look(30, map[string]time.Time{"a_t": start.Add(-time.Minute)}), look(40, nil)} {
		o = o.after(s)
	}
	want := map[string]Inhabited{"a_t": {start.Add(30 * time.Minute), start.Add(time.Minute)}, "b_t": {start.Add(10 * time.Minute), start}}
	if !maps.Equal(o.Inhabited, want) {
		t.Errorf("got %+v, want %+v", o.Inhabited, want)
	}
	if o = o.after(Sample{Hides: "a rule"}); o.Inhabited != nil {
		t.Errorf("after a gap: %+v", o.Inhabited)
	}
}

// TestDomainVerdict: each reason by itself, against a domain that is ready. What is not known speaks against it.
//
// Proves P4.
func TestDomainVerdict(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const domain = "container_t"
	good := func() *domainFacts {
		return &domainFacts{
			domain: domain, declared: true, enforces: true, listed: true, want: provision.Readiness{Window: time.Hour},
			observed: Observed{Policy: "p", Since: since.Add(-time.Hour), Domains: map[string]Soak{domain: {Since: since, Covered: time.Hour, Boots: 1}},
				Inhabited: map[string]Inhabited{domain: {Seen: since.Add(time.Hour), Started: since.Add(time.Minute)}}},
			policy: LoadedPolicy{PermissiveDomains: []string{domain}, Name: func(name string) string { return strings.ReplaceAll(name, "alias_t", domain) },
				NoDomain: func(name string) string {
					return map[string]string{"etc_t": "it is no domain", "none_t": "the policy has no type"}[name]
				}},
		}
	}
	soak := func(f *domainFacts, change func(*Soak)) {
		k := f.observed.Domains[domain]
		change(&k)
		f.observed.Domains[domain] = k
	}
	takeOut := "take container_t out of enforce.permissive_domains, and run selinux-provision apply"
	for _, c := range []struct {
		name   string
		change func(*domainFacts)
		want   Verdict
		check  string // the first that says no
		found  string // begins what it found
		next   string // begins what to do
	}{
		{"ready", func(*domainFacts) {}, Ready, "", "", takeOut},
		{"by an alias", func(f *domainFacts) { f.domain = "alias_t" }, Ready, "", "", "take alias_t out"},
		{"permissive by hand", func(f *domainFacts) { f.listed = false }, Ready, "", "", "it is not declared in enforce.permissive_domains: selinux-provision status says what makes it permissive"},
		{"permissive again", func(f *domainFacts) {
			f.listed, f.again = false, &Trial{Domain: domain, Phase: TrialFailed, Reason: "it was denied something"}
		}, Ready, "", "",
			"run selinux-provision apply --retry-guard"},
		{"on a permissive host", func(f *domainFacts) {
			k := f.observed.Domains[domain]
			f.enforces, f.listed, f.policy.PermissiveDomains, f.observed.Domains, f.observed.Reported = false, false, nil, nil, &k
		}, Ready, "", "", "nothing: it is enforced when the host is"},
		{"no type", func(f *domainFacts) { f.domain = "none_t" }, NotReady, "domain", "the policy has no type", "name the domain"},
		{"no domain", func(f *domainFacts) { f.domain = "etc_t" }, NotReady, "domain", "it is no domain", "name the domain"},
		{"a policy that this program cannot read", func(f *domainFacts) { f.policy = LoadedPolicy{Unreadable: "it is of version 99"} }, NotEnough, "domain",
			"whether the policy in force has the domain is not known: it is of version 99", "run selinux-provision status"},
		{"a policy that cannot be read", func(f *domainFacts) { f.policy, f.noPolicy = LoadedPolicy{}, "device busy" }, NotEnough, "domain",
			"whether the policy in force has the domain is not known: device busy", "run selinux-provision status"},
		{"enforced", func(f *domainFacts) { f.policy.PermissiveDomains, f.observed.Domains = nil, nil }, NotEnough, "domain", "container_t is enforced already", "declare it"},
		{"readiness is not declared", func(f *domainFacts) { f.declared, f.observed = false, Observed{} }, NotEnough, "evidence", "nothing is observed: readiness is not declared", "declare readiness"},
		{"the host cannot be looked at", func(f *domainFacts) { f.noSample, f.observed = "no bus", Observed{} }, NotEnough, "evidence", "the host cannot be looked at: no bus", "mend that"},
		{"something hides denials", func(f *domainFacts) { f.observed = Observed{Broken: "3 dontaudit rules"} }, NotEnough, "evidence", "what enforcing would deny is not known: 3 dontaudit rules", "do as it says"},
		{"never watched", func(f *domainFacts) { f.observed.Domains = nil }, NotEnough, "evidence", "there is no time in which denials of container_t were only reported", "declare it"},
		{"short", func(f *domainFacts) { soak(f, func(k *Soak) { k.Covered -= time.Second }) }, NotEnough, "window", "watched for 59m59s of 1h0m0s", "wait"},
		{"nothing ran in it", func(f *domainFacts) { f.observed.Inhabited = nil }, NotEnough, "workload", "no process was seen in container_t", "run the workload in it"},
		{"what ran in it ended before", func(f *domainFacts) {
			f.observed.Inhabited[domain] = Inhabited{Seen: since.Add(-time.Minute), Started: since.Add(-time.Hour)}
		}, NotEnough, "workload", "no process was seen in container_t", "run the workload in it"},
		{"it was not started", func(f *domainFacts) {
			f.observed.Inhabited[domain] = Inhabited{Seen: since.Add(time.Hour), Started: since.Add(-time.Hour)}
		}, NotEnough, "workload", "its processes run since before it is watched", "restart the workload once"},
		{"started with the host", func(f *domainFacts) {
			f.observed.Inhabited[domain] = Inhabited{Seen: since.Add(time.Hour), Started: since.Add(-time.Hour)}
			soak(f, func(k *Soak) { k.Boots = 2 })
		}, Ready, "", "", takeOut},
		{"records lost", func(f *domainFacts) { soak(f, func(k *Soak) { k.Lost = 2 }) }, NotEnough, "lost", "2 audit records were lost", "make the kernel's queue longer"},
		{"a gap in the journal", func(f *domainFacts) { f.stats.Missing = 4 }, NotEnough, "lost", "4 audit records were lost", "make the kernel's queue longer"},
		{"cut off", func(f *domainFacts) { f.stats.Malformed, f.stats.Overlong = 1, 2 }, NotEnough, "lost", "3 audit records were lost", "make the kernel's queue longer"},
		{"rotated away", func(f *domainFacts) { f.gone = "the journal begins only at 2" }, NotEnough, "lost", "what was denied at first is not in the log any more: the journal begins only at 2", "keep more of the log"},
		{"no log", func(f *domainFacts) { f.noDenials = "no journal" }, NotEnough, "denials", "what was denied is not known: no journal", "see the evidence"},
		{"denied", func(f *domainFacts) {
			f.findings = []*judge.Finding{aFinding(func(d *judge.Finding) { d.Permissive = 3 })}
		}, NotReady, "denials",
			"enforcing would stop 3 accesses: 0a1b2c: container_t, read on file", "run selinux-provision denials --source container_t --since @"},
		{"stopped", func(f *domainFacts) {
			f.findings = []*judge.Finding{aFinding(func(d *judge.Finding) { d.Permissive, d.Enforced = 1, 2 })}
		}, NotReady, "denials",
			"enforcing would stop 3 accesses (2 of them were stopped at the time): 0a1b2c", "run selinux-provision denials"},
		{"denied to another", func(f *domainFacts) {
			f.findings = []*judge.Finding{aFinding(func(d *judge.Finding) { d.Domain = "other_t" })}
		}, Ready, "", "", takeOut},
		{"allowed by now", func(f *domainFacts) {
			f.findings = []*judge.Finding{aFinding(func(d *judge.Finding) { d.Fix = judge.Fix{Kind: judge.Nothing, Text: "allowed by now"} })}
		}, Ready, "", "", takeOut},
		{"accepted", func(f *domainFacts) { f.want.Accept, f.findings = []string{"0a1b2c"}, []*judge.Finding{aFinding()} }, Ready, "", "", takeOut},
		{"granted", func(f *domainFacts) {
			f.findings = []*judge.Finding{aFinding(func(d *judge.Finding) { d.Kind = avc.Granted })}
		}, Ready, "", "", takeOut},
		{"the store", func(f *domainFacts) { f.store = []string{"stage policy would rebuild"} }, NotReady, "store", "stage policy would rebuild", "run selinux-provision status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good()
			c.change(f)
			r := f.judge()
			if r.Verdict != c.want || !strings.HasPrefix(r.Next, c.next) || r.Next == "" {
				t.Errorf("%s, want %s; next: %s", r.Verdict, c.want, r.Next)
			}
			var names []string
			for _, check := range r.Checks {
				names = append(names, check.Name)
				if check.Verdict != Ready && check.Remedy == "" {
					t.Errorf("no remedy: %+v", check)
				}
			}
			if want := []string{"domain", "evidence", "window", "workload", "lost", "denials", "store"}; !slices.Equal(names, want) {
				t.Errorf("checks: %v", names)
			}
			i := slices.IndexFunc(r.Checks, func(one Check) bool { return one.Verdict != Ready })
			if (i < 0) != (c.check == "") || i >= 0 && (r.Checks[i].Name != c.check || !strings.HasPrefix(r.Checks[i].Found, c.found)) {
				t.Errorf("checks: %+v\nwant %s: %s", r.Checks, c.check, c.found)
			}
		})
	}
}

// Whatever cannot be asked of a host that runs is in the answer, which is not "ready" then, and no question fails for it.
func TestDomainReadinessFailsClosed(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	h := host(t, c.tree)
	h.Uptime = func() (time.Duration, error) { return time.Hour, nil }
	broken := errors.New("it is broken")
	for name, e := range map[string]Evidence{
		"nothing": {},
		"policy":  {Policy: func(context.Context) (LoadedPolicy, error) { return LoadedPolicy{}, broken }},
		"audit":   {Audit: func() (kernel.AuditStatus, error) { return kernel.AuditStatus{}, broken }},
		"loads":   {Loads: func() (uint32, error) { return 0, broken }},
		"log":     {Denials: func(context.Context, time.Time) ([]*judge.Finding, avc.Stats, error) { return nil, avc.Stats{}, broken }, Gone: func(context.Context, time.Time) (string, error) { return "", nil }},
	} {
		r := h.newRun(&provision.State{Readiness: &provision.Readiness{Window: time.Second}}, &State{}, true)
		r.Evidence = e
		ready, err := r.domainReadiness(t.Context(), "container_t", func(context.Context) []string { return nil })
		if err != nil || ready.Verdict == Ready || len(ready.Checks) != 7 || ready.Next == "" {
			t.Errorf("%s: %+v, %v", name, ready, err)
		}
	}
}

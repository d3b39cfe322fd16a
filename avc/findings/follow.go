package findings

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/judge"
)

const (
	// again is how often at most it is told that a denial goes on.
	again = time.Minute
	// maxAsked and maxTold bound what is remembered of acts and of what was told of them. Beyond it everything is told once more.
	maxAsked = 1 << 14
	maxTold  = 1 << 12
	// freshFor is how old what is known of containers may be when nobody is found for a denial, freshEnough when somebody is.
	freshFor    = time.Second
	freshEnough = time.Minute
)

// Event is what Follow tells.
type Event string

// The events.
const (
	Begin   Event = "begin"   // what is followed, and what keeps denials out of it
	Denial  Event = "denial"  // something was denied for the first time
	Repeats Event = "repeats" // it was denied again, as often as Count says, since it was told last
	End     Event = "end"     // how much there was
)

// Told is one thing that Follow tells.
type Told struct {
	Event Event `json:"event"`
	// Time is when it was denied, at last where it repeats, as the record says; else when it is told.
	Time time.Time `json:"time,omitzero"`
	// Count is how many denials this is about.
	Count uint64 `json:"count"`
	// Enforced is how many of them stopped the access.
	Enforced uint64 `json:"enforced"`
	// Others counts, at the end, the denials that the selection leaves out.
	Others uint64 `json:"others,omitempty"`
	// Kinds is, at the end, how many denials were told of one by one.
	Kinds uint64 `json:"kinds,omitempty"`
	// Finding is the denial with what helps.
	Finding *judge.Finding `json:"finding,omitempty"`
	// Report says, at the beginning and at the end, what was read and what may be missing. It has no findings.
	Report *Report `json:"report,omitempty"`
}

// Follow tells of each denial as it comes, explained. One that is like another in all but time and process is counted, and told of after a
// minute. It ends when ctx does, or with an input; that is no error. Of an error of tell it makes an end.
//
// A denial is judged by itself, with what is known when it comes: the containers of that second, and the policy that is loaded then.
func (h *Host) Follow(ctx context.Context, q Query, tell func(*Told) error) error {
	f := &follower{Host: h, query: q, tell: tell, report: &Report{Findings: []*judge.Finding{}, Since: q.Since}}
	f.refresh(ctx)
	if err := f.look(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	records := collect.Query{Since: q.Since, Boot: q.Boot, Booted: f.who.Booted(), BootID: h.Boot}
	each := func(d *avc.Denial) error { return f.denied(ctx, d) }
	var err error
	if q.Input != nil {
		if err = f.begin(ctx, []string{q.InputName}); err == nil {
			f.report.Stats, err = collect.FollowInput(ctx, records, q.Input, each, f.repeat)
		}
	} else {
		begin := func(sources []string) error { return f.begin(ctx, sources) }
		f.report.Stats, err = h.Host.Follow(ctx, records, begin, each, f.repeat)
	}
	if err != nil {
		return err
	}
	return f.end(ctx)
}

// follower is one call of Follow.
type follower struct {
	*Host
	query    Query
	tell     func(*Told) error
	report   *Report
	evidence judge.Evidence
	loads    uint32 // of policies, when it was looked at
	who      *attribution.Host
	made     time.Time // when that was

	asked map[avc.Act]*line // nil: it is not selected
	told  map[string]*line
	next  time.Time // when to look for what repeats
	all   Told      // counts everything
}

// line is what was told, and what has come since then.
type line struct {
	finding *judge.Finding
	told    time.Time
	count   uint64
	stopped uint64
}

// refresh looks at the containers anew.
func (f *follower) refresh(ctx context.Context) {
	f.who, f.made = attribution.New(f.Root), time.Now()
	f.evidence.Container, f.evidence.Mounts = f.who.Container, attribution.ReadMounts(f.Root)
	if f.evidence.Label != nil {
		f.evidence.Inode, f.evidence.Label = f.Files(ctx)
	}
}

// look fetches the policy and what else a denial is judged by.
func (f *follower) look(ctx context.Context) (err error) {
	f.report.Notes = nil
	f.asked, f.told = map[avc.Act]*line{}, map[string]*line{}
	if f.Kernel != nil {
		if f.loads, err = f.Kernel.PolicyLoads(); err != nil {
			return err
		}
	}
	f.evidence, err = f.Host.evidence(ctx, &f.query, f.report, f.who)
	return err
}

// begin tells what is followed.
func (f *follower) begin(ctx context.Context, sources []string) error {
	f.report.Sources = sources
	f.note(ctx, f.report, f.query.Input != nil)
	return f.tell(&Told{Event: Begin, Time: time.Now(), Report: f.report})
}

// whose tells whose a denial is. A container that nobody knows may have been started since the last look.
func (f *follower) whose(ctx context.Context, d *avc.Denial) avc.Subject {
	s := f.who.Subject(d)
	fresh := freshFor
	if s.Container != "" || s.Pod != "" || s.Unit != "" {
		fresh = freshEnough
	}
	if time.Since(f.made) < fresh {
		return s
	}
	f.refresh(ctx)
	return f.who.Subject(d)
}

// denied tells of a denial, or counts it.
func (f *follower) denied(ctx context.Context, d *avc.Denial) error {
	if f.Kernel != nil {
		if loads, err := f.Kernel.PolicyLoads(); err == nil && loads != f.loads {
			if err := f.flush(time.Time{}); err != nil {
				return err
			}
			if err := f.look(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	whose := f.whose(ctx, d)
	same := whose
	same.Evidence = "" // the same container may be known by another way
	act := avc.ActOf(d, same)
	l, known := f.asked[act]
	if !known {
		finding := f.evidence.Judge([]*avc.Group{avc.Single(d, whose)})[0]
		if len(f.asked) >= maxAsked || len(f.told) >= maxTold {
			if err := f.flush(time.Time{}); err != nil {
				return err
			}
			clear(f.asked)
			clear(f.told)
		}
		if f.query.Only.Selects(finding) {
			name := strings.Join([]string{finding.Subject.String(), finding.ID, d.Enforced.String(), string(finding.Fix.Kind), strings.Join(finding.PermissionList(), " ")}, "\x00")
			if l = f.told[name]; l == nil {
				l = &line{finding: finding}
				f.told[name] = l
			}
		}
		f.asked[act.Own()] = l
	}
	if l == nil {
		f.all.Others++
		return nil
	}
	stopped := uint64(0)
	if d.Enforced == avc.EnforcedYes {
		stopped = 1
	}
	f.all.Count, f.all.Enforced = f.all.Count+1, f.all.Enforced+stopped
	if l.told.IsZero() {
		l.told = time.Now()
		f.all.Kinds++
		return f.tell(&Told{Event: Denial, Time: d.Time, Count: 1, Enforced: stopped, Finding: l.finding})
	}
	l.count, l.stopped = l.count+1, l.stopped+stopped
	l.finding.Last = d.Time
	return f.repeat()
}

// repeat tells what goes on for a minute by now.
func (f *follower) repeat() error {
	now := time.Now()
	if now.Before(f.next) {
		return nil
	}
	f.next = now.Add(freshFor)
	return f.flush(now.Add(-again))
}

// flush tells of what repeats and was told of before a time; zero: of all.
func (f *follower) flush(before time.Time) error {
	var due []*line
	for _, l := range f.told {
		if l.count > 0 && (before.IsZero() || !l.told.After(before)) {
			due = append(due, l)
		}
	}
	slices.SortFunc(due, func(a, b *line) int {
		return cmp.Or(a.finding.Last.Compare(b.finding.Last), cmp.Compare(a.finding.ID, b.finding.ID), cmp.Compare(a.finding.Subject.String(), b.finding.Subject.String()))
	})
	for _, l := range due {
		told := &Told{Event: Repeats, Time: l.finding.Last, Count: l.count, Enforced: l.stopped, Finding: l.finding}
		l.count, l.stopped, l.told = 0, 0, time.Now()
		if err := f.tell(told); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) end(ctx context.Context) error {
	if err := f.flush(time.Time{}); err != nil {
		return err
	}
	f.report.Notes = nil
	f.report.losses(f.query.Input != nil && ctx.Err() == nil) // one that was not read to its end may have had nothing yet
	f.all.Event, f.all.Time, f.all.Report = End, time.Now(), f.report
	return f.tell(&f.all)
}

package stages

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/provision"
)

// TestHistory takes a record through samples, and says what is remembered of what was declared.
func TestHistory(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	sample := func(minutes int, policy string, declared map[string]string) Sample {
		return Sample{Time: at(minutes), Boot: "a", Uptime: time.Duration(minutes) * time.Minute, Policy: policy, Loads: 3, Declared: declared}
	}
	built := sample(60, "p", map[string]string{"module web": "aa"})
	built.Built = at(10)
	hidden := sample(20, "q", nil)
	hidden.Hides = "the policy in force is not the declared one"
	for name, c := range map[string]struct {
		samples []Sample
		want    []Change
	}{
		"nothing is known": {[]Sample{sample(10, "p", nil)}, nil},
		"first look":       {[]Sample{sample(10, "p", map[string]string{"boolean b": "true", "label /srv/a b": "u:r:t:s0"})}, []Change{{at(10), "boolean", "b", "declared", "true"}, {at(10), "label", "/srv/a b", "declared", "u:r:t:s0"}}},
		"in force before":  {[]Sample{built}, []Change{{at(10), "module", "web", "declared", ""}}},
		"again the same":   {[]Sample{sample(10, "p", map[string]string{"boolean b": "true"}), sample(20, "p", map[string]string{"boolean b": "true"})}, []Change{{at(10), "boolean", "b", "declared", "true"}}},
		"one more, one otherwise, one less": {[]Sample{sample(10, "p", map[string]string{"boolean b": "true", "module web": "aa"}), sample(20, "q", map[string]string{"boolean b": "false", "volume data": "x"})},
			[]Change{{at(10), "boolean", "b", "declared", "true"}, {at(10), "module", "web", "declared", ""}, {at(20), "boolean", "b", "changed", "false"}, {at(20), "volume", "data", "declared", "x"}, {at(20), "module", "web", "removed", ""}}},
		"while something else is in force": {[]Sample{sample(10, "p", map[string]string{"module web": "aa"}), hidden, sample(30, "q", map[string]string{"module web": "bb"})},
			[]Change{{at(10), "module", "web", "declared", ""}, {at(30), "module", "web", "changed", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			o := Observed{Version: 1}
			for _, s := range c.samples {
				o = o.after(s)
			}
			if !reflect.DeepEqual(o.History, c.want) {
				t.Errorf("got  %v\nwant %v", o.History, c.want)
			}
		})
	}
	o := Observed{Version: 1}
	for i := range maxHistory + 50 {
		value := "true"
		if i%2 == 0 {
			value = "false"
		}
		o = o.after(sample(10+i, "p", map[string]string{"boolean b": value}))
	}
	if len(o.History) != maxHistory || !o.History[maxHistory-1].Time.Equal(at(10+maxHistory+49)) {
		t.Errorf("%d changes, the last %v", len(o.History), o.History[len(o.History)-1])
	}
}

func TestDeclarations(t *testing.T) {
	t.Parallel()
	got := declarations(&provision.State{
		Mode: provision.Permissive, Modules: []provision.Module{{Name: "web", Content: []byte("(type a)")}}, Booleans: map[string]bool{"b": true, "c": false},
		FileContexts: []provision.FileContext{{Path: "/srv(/.*)?", Type: "any", Context: "u:r:t:s0"}, {Path: "/srv(/.*)?", Type: "dir", Context: "u:r:d:s0"}},
		Equivalences: []provision.Equivalence{{Path: "/a", Like: "/b"}}, Volumes: []provision.Volume{{Name: "data", Context: "u:r:t:s0"}, {Name: "other", Level: "s0:c1"}},
		SharedVolumes: true, StripDontaudit: true,
	})
	want := map[string]string{
		"setting mode": "permissive", "boolean b": "true", "boolean c": "false", "label /srv(/.*)?": "u:r:t:s0", "label /srv(/.*)? (dir)": "u:r:d:s0",
		"label /a": "like /b", "volume data": "u:r:t:s0", "volume other": "the default s0:c1", "setting policy.shared_volumes": "true", "setting audit.dontaudit": "strip",
	}
	if len(got["module web"]) != 12 {
		t.Errorf("%s", got["module web"])
	}
	delete(got, "module web") // a digest
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// The log is read from some time before the first declaration on, and not further back than makes sense.
func TestTimelineBegins(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	days := func(n int) time.Time { return now.AddDate(0, 0, -n) }
	for name, c := range map[string]struct {
		r          Readiness
		from, till time.Time // the log is read from a time between these
	}{
		"nothing is known":       {Readiness{At: now}, now.Add(-time.Hour), now.Add(-time.Hour)},
		"evidence alone":         {Readiness{At: now, Since: days(8)}, days(9), days(9)},
		"declared before":        {Readiness{At: now, Since: days(2), History: []Change{{Time: days(16)}}}, days(18), days(18)},
		"declared long ago":      {Readiness{At: now, Since: days(2), History: []Change{{Time: days(900)}}}, days(102), days(100)},
		"a clock that was ahead": {Readiness{At: now, Since: now.Add(time.Hour)}, now.Add(-time.Hour), now.Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			var asked time.Time
			h := &Host{Evidence: Evidence{
				Timeline: func(_ context.Context, from, until time.Time) (*avc.Timeline, error) {
					asked = from
					return avc.NewTimeline(from, until, avc.Nobody{}).Timeline(), nil
				},
				Gone: func(_ context.Context, since time.Time) (string, error) {
					if since.After(asked) {
						t.Errorf("asked what is gone since %s, and the log was read from %s", since, asked)
					}
					return "the journal begins later", nil
				},
			}}
			if err := h.AddTimeline(t.Context(), &c.r); err != nil {
				t.Fatal(err)
			}
			if asked.Before(c.from) || asked.After(c.till) || c.r.Timeline == nil || c.r.TimelineGap != "the journal begins later" {
				t.Errorf("read from %s, want between %s and %s", asked, c.from, c.till)
			}
		})
	}
}

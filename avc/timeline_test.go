package avc

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// named says that each denial is of the unit that it has for a command.
type named struct{}

func (named) Subject(d *Denial) Subject { return Subject{Unit: d.Comm} }

func TestTimelineStep(t *testing.T) {
	for stretch, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Hour: time.Minute, 2 * time.Hour: 5 * time.Minute, 24 * time.Hour: 30 * time.Minute, 7 * 24 * time.Hour: 2 * time.Hour,
		90 * 24 * time.Hour: 24 * time.Hour, 10 * 365 * 24 * time.Hour: 6 * 7 * 24 * time.Hour,
	} {
		if got := TimelineStep(stretch); got != want {
			t.Errorf("%s: %s, want %s", stretch, got, want)
		}
	}
	start := time.Date(2026, 3, 1, 10, 59, 59, 0, time.UTC)
	for stretch := time.Minute; stretch < 20*365*24*time.Hour; stretch = stretch*5/4 + time.Second {
		l := NewTimeline(start, start.Add(stretch), Nobody{}).Timeline()
		if !l.Valid() || l.From.After(start) || l.End().Before(start.Add(stretch)) {
			t.Errorf("%s: %+v", stretch, l)
		}
	}
}

func TestTimeline(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	denial := func(unit string, minute int) *Denial {
		return &Denial{Time: start.Add(time.Duration(minute) * time.Minute), Comm: unit, Source: "u:r:web_t:s0"}
	}
	c := NewTimeline(start, start.Add(4*time.Minute), named{})
	for _, d := range []*Denial{
		denial("a", 0), denial("a", 0), denial("a", 3), denial("", 4), denial("early", -1), denial("late", 5), {Comm: "no time"},
		{Kind: Granted, Time: start, Comm: "granted"},
	} {
		c.Add(d)
	}
	want := &Timeline{From: start, Step: time.Minute, Parts: 5, Lines: []TimelineLine{
		{Workload: "a", Counts: []uint64{2, 0, 0, 1, 0}, Count: 3, Last: start.Add(3 * time.Minute)},
		{Workload: "processes of web_t", Counts: []uint64{0, 0, 0, 0, 1}, Count: 1, Last: start.Add(4 * time.Minute)},
	}}
	if got := c.Timeline(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// However many workloads there are, few lines are given, and no denial is lost.
func TestTimelineOfMany(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	c := NewTimeline(start, start.Add(time.Minute), named{})
	for i := range 3 * maxWorkloads {
		for range 1 + i%7 {
			c.Add(&Denial{Time: start, Comm: fmt.Sprintf("w%04d", i)})
		}
	}
	var sum uint64
	got := c.Timeline()
	for _, l := range got.Lines {
		sum += l.Count
	}
	if !got.Valid() || len(got.Lines) != timelineLines+1 || !strings.HasSuffix(got.Lines[timelineLines].Workload, " others") {
		t.Errorf("%+v", got)
	}
	want := uint64(0)
	for i := range 3 * maxWorkloads {
		want += uint64(1 + i%7)
	}
	if sum != want || len(c.lines) > maxWorkloads+1 {
		t.Errorf("%d denials of %d, %d workloads", sum, want, len(c.lines))
	}
}

func TestJoinTimelines(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	one := &Timeline{From: start, Step: time.Minute, Parts: 2, Lines: []TimelineLine{{Workload: "web", Counts: []uint64{1, 2}, Count: 3, Last: start}}}
	two := &Timeline{From: start.Add(2 * time.Hour), Step: time.Hour, Parts: 2, Lines: []TimelineLine{
		{Workload: "web", Counts: []uint64{0, 5}, Count: 5, Last: start.Add(3 * time.Hour)}, {Workload: "db", Counts: []uint64{1, 0}, Count: 1}}}
	got := JoinTimelines([]*Timeline{one, two}, func(_ int, workload string) string { return workload })
	if !got.Valid() || !got.From.Equal(start) || got.End().Before(two.End()) || len(got.Lines) != 2 {
		t.Fatalf("%+v", got)
	}
	web := got.Lines[0]
	if web.Workload != "web" || web.Count != 8 || !web.Last.Equal(start.Add(3*time.Hour)) || web.Counts[0] != 3 {
		t.Errorf("%+v", web)
	}
	if got.Step != time.Hour || !slices.Equal(web.Counts, []uint64{3, 0, 0, 5}) {
		t.Errorf("%v, each %s", web.Counts, got.Step)
	}
	if got := JoinTimelines([]*Timeline{one, two}, func(i int, _ string) string { return fmt.Sprint("host", i) }); len(got.Lines) != 2 || got.Lines[0].Count != 6 {
		t.Errorf("%+v", got)
	}
}

// What is written for JSON is read from it.
func TestWordsFromJSON(t *testing.T) {
	for _, k := range []Kind{Denied, Granted, Invalid} {
		for _, typ := range []Type{TypeAVC, TypeUserAVC, TypeSELinuxErr, 1999} {
			text, err := json.Marshal(Group{Kind: k, Type: typ})
			if err != nil {
				t.Fatal(err)
			}
			var got Group
			if err := json.Unmarshal(text, &got); err != nil || got.Kind != k || got.Type != typ {
				t.Errorf("%s: %v, %v, %v", text, got.Kind, got.Type, err)
			}
		}
	}
	for _, wrong := range []string{`{"kind":"none"}`, `{"record":"-1"}`, `{"record":"70000"}`, `{"record":""}`} {
		if err := json.Unmarshal([]byte(wrong), &Group{}); err == nil {
			t.Errorf("%s is read", wrong)
		}
	}
}

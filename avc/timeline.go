package avc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// TimelineParts is how many parts a Timeline has at most.
	TimelineParts = 96
	// timelineLines is how many workloads a Timeline tells apart, those with the most denials; maxWorkloads how many are counted for that.
	timelineLines = 12
	maxWorkloads  = 512
)

// Timeline says how many accesses were denied, and when, by workload.
type Timeline struct {
	From  time.Time      `json:"from"`    // where the first part begins
	Step  time.Duration  `json:"step_ns"` // length of each part
	Parts int            `json:"parts"`   // how many there are
	Lines []TimelineLine `json:"lines"`   // of the workloads, the one with the most denials first
}

// TimelineLine is one workload's.
type TimelineLine struct {
	Workload string    `json:"workload"`      // a container, pod, or unit, or the domain of its processes
	Counts   []uint64  `json:"counts"`        // in each part
	Count    uint64    `json:"count"`         // in all of them
	Last     time.Time `json:"last,omitzero"` // the newest denial
}

// TimelineStep gives the length of the parts for a stretch of time: one that people count in.
func TimelineStep(stretch time.Duration) time.Duration {
	const day = 24 * time.Hour
	for _, step := range []time.Duration{
		time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day,
	} {
		if stretch < (TimelineParts-1)*step { // the beginning is moved to a full step
			return step
		}
	}
	const week = 7 * day
	step := time.Duration(week)
	for stretch >= (TimelineParts-1)*step {
		step += week
	}
	return step
}

// TimelineCounter makes a Timeline of denials.
type TimelineCounter struct {
	who   Attributor
	line  Timeline
	until time.Time
	lines map[string]*TimelineLine
}

// NewTimeline begins a count of what was denied from one time to another.
func NewTimeline(from, until time.Time, who Attributor) *TimelineCounter {
	if until.Before(from) {
		until = from
	}
	return newTimeline(from, until, TimelineStep(until.Sub(from)), who)
}

func newTimeline(from, until time.Time, step time.Duration, who Attributor) *TimelineCounter {
	from = from.UTC().Truncate(step)
	return &TimelineCounter{who: who, until: until, lines: map[string]*TimelineLine{},
		line: Timeline{From: from, Step: step, Parts: int(until.Sub(from)/step) + 1, Lines: []TimelineLine{}}}
}

// Add counts a denial. What was not denied, or has no time, or one outside, is left out.
func (c *TimelineCounter) Add(d *Denial) {
	if d.Kind != Denied || d.Time.Before(c.line.From) || d.Time.After(c.until) {
		return
	}
	name := c.who.Subject(d).String()
	if name == "" {
		name = "processes of " + d.Source.Type()
	}
	line := c.lines[name]
	if line == nil {
		if len(c.lines) >= maxWorkloads {
			name = "others"
		}
		if line = c.lines[name]; line == nil {
			line = &TimelineLine{Workload: strings.Clone(name), Counts: make([]uint64, c.line.Parts)}
			c.lines[line.Workload] = line
		}
	}
	line.Counts[d.Time.Sub(c.line.From)/c.line.Step]++
	line.Count++
	if d.Time.After(line.Last) {
		line.Last = d.Time.UTC().Truncate(time.Second)
	}
}

// Timeline gives what was counted.
func (c *TimelineCounter) Timeline() *Timeline {
	t := c.line
	t.Lines = fewest(slices.Collect(maps.Values(c.lines)), t.Parts)
	return &t
}

// fewest sorts the lines and puts those with the fewest denials into one.
func fewest(all []*TimelineLine, parts int) []TimelineLine {
	slices.SortFunc(all, func(a, b *TimelineLine) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Workload, b.Workload))
	})
	lines := make([]TimelineLine, 0, timelineLines+1)
	for i, l := range all {
		if i < timelineLines {
			lines = append(lines, *l)
			continue
		}
		if i == timelineLines {
			lines = append(lines, TimelineLine{Workload: fmt.Sprintf("%d others", len(all)-i), Counts: make([]uint64, parts)})
		}
		rest := &lines[timelineLines]
		rest.add(l)
	}
	return lines
}

func (l *TimelineLine) add(other *TimelineLine) {
	for i, n := range other.Counts {
		l.Counts[i] += n
	}
	l.Count += other.Count
	if other.Last.After(l.Last) {
		l.Last = other.Last
	}
}

// Valid tells whether a Timeline that was read is one that NewTimeline could have made.
func (t *Timeline) Valid() bool {
	return t.Step > 0 && t.Parts > 0 && t.Parts <= TimelineParts && len(t.Lines) <= timelineLines+1 &&
		!slices.ContainsFunc(t.Lines, func(l TimelineLine) bool { return len(l.Counts) != t.Parts })
}

// End is where the last part ends.
func (t *Timeline) End() time.Time { return t.From.Add(time.Duration(t.Parts) * t.Step) }

// JoinTimelines gives one for several hosts; name says for each of their workloads under which name it is counted. Each part is counted where its middle
// lies.
func JoinTimelines(all []*Timeline, name func(host int, workload string) string) *Timeline {
	var from, end time.Time
	var step time.Duration
	for _, t := range all {
		if from.IsZero() || t.From.Before(from) {
			from = t.From
		}
		if t.End().After(end) {
			end = t.End()
		}
		step = max(step, t.Step)
	}
	end = end.Add(-1) // which is still in the last part
	joined := newTimeline(from, end, max(step, TimelineStep(end.Sub(from))), Nobody{}).line
	lines := map[string]*TimelineLine{}
	for host, t := range all {
		for _, l := range t.Lines {
			key := name(host, l.Workload)
			if lines[key] == nil {
				lines[key] = &TimelineLine{Workload: key, Counts: make([]uint64, joined.Parts)}
			}
			counts := make([]uint64, joined.Parts)
			for i, n := range l.Counts {
				middle := t.From.Add(time.Duration(i)*t.Step + t.Step/2)
				counts[min(int(middle.Sub(joined.From)/joined.Step), joined.Parts-1)] += n
			}
			lines[key].add(&TimelineLine{Counts: counts, Count: l.Count, Last: l.Last})
		}
	}
	joined.Lines = fewest(slices.Collect(maps.Values(lines)), joined.Parts)
	return &joined
}

package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/stages"
)

const (
	// stroke is the height of the picture of one workload, in its own units; least is that of a part with few denials.
	stroke = 100.0
	least  = 12.0
	// apart is how near two flags may be, as a share of the width. What is nearer is one flag.
	apart = 0.06
)

// flag is a moment on the line of time, with what was declared then.
type flag struct {
	at      float64 // 0 to 1
	changes []stages.Change
}

// flags puts changes on a line of time. What is nearly at one place shares a flag.
func flags(t *avc.Timeline, changes []stages.Change) (all []flag) {
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b stages.Change) int { return a.Time.Compare(b.Time) })
	for _, c := range changes {
		at := place(t, c.Time)
		if n := len(all); n > 0 && at-all[n-1].at < apart {
			all[n-1].changes = append(all[n-1].changes, c)
			continue
		}
		all = append(all, flag{at, []stages.Change{c}})
	}
	return all
}

// place tells where a time is on the line, 0 to 1.
func place(t *avc.Timeline, at time.Time) float64 {
	return min(1, max(0, float64(at.Sub(t.From))/float64(time.Duration(t.Parts)*t.Step)))
}

// picture draws denials over time, one row for each workload: text stays text, so that it is as large on a phone as elsewhere.
func (p *page) picture(t *avc.Timeline, since time.Time, changes []stages.Change, gap string) {
	all := flags(t, changes)
	p.open("figure")
	if len(all) > 0 {
		p.row("declared", "", func() {
			p.in("div", []attribute{class("axis")}, func() {
				for i, f := range all {
					p.element("span", strconv.Itoa(i+1), class("flag"), across(min(.97, max(.03, f.at))))
				}
			})
		})
	}
	for _, l := range t.Lines {
		p.row(l.Workload, fmt.Sprintf("%s, the last %s, at most %d in %s", many(l.Count, "denial"), clock(l.Last), slices.Max(l.Counts), span(t.Step)), func() { p.bars(t, &l, since, all) })
	}
	if len(t.Lines) == 0 {
		p.row("nothing was denied", "", func() { p.bars(t, &avc.TimelineLine{Counts: make([]uint64, t.Parts)}, since, all) })
	}
	p.row("", "", func() {
		p.in("div", []attribute{class("axis")}, func() {
			p.element("span", clock(t.From), class("first"), across(0))
			p.element("span", clock(t.End()), class("last"), across(1))
		})
	})
	p.open("figcaption")
	p.text(fmt.Sprintf("Denials by workload. Each bar is %s; the highest of each row is as high as the row.", span(t.Step)))
	if !since.IsZero() && since.After(t.From) {
		p.text(fmt.Sprintf(" The grey part is before %s, when the evidence begins: what was hidden then is not shown.", clock(since)))
	}
	if len(all) > 0 {
		p.text(" Dashed lines are where something was declared; the numbers are those of the list below.")
	}
	if gap != "" {
		p.text(" The beginning may be missing: " + gap + ".")
	}
	p.close("figcaption")
	p.close("figure")
	if len(all) == 0 {
		return
	}
	p.element("h3", "What was declared, and when")
	p.in("ol", nil, func() {
		for _, f := range all {
			p.open("li")
			for i, c := range f.changes {
				if i > 0 {
					p.void("br")
				}
				p.text(clock(c.Time) + " " + said(c))
			}
			p.close("li")
		}
	})
}

func across(at float64) attribute { return attribute{"style", fmt.Sprintf("left:%.1f%%", 100*at)} }

func (p *page) row(name, note string, content func()) {
	p.in("div", []attribute{class("row")}, func() {
		p.open("div")
		p.text(name)
		if note != "" {
			p.element("small", note)
		}
		p.close("div")
		p.in("div", nil, content)
	})
}

// bars draws one workload's.
func (p *page) bars(t *avc.Timeline, l *avc.TimelineLine, since time.Time, all []flag) {
	width := float64(t.Parts)
	line := func(name word, x1, y1, x2, y2 float64) {
		p.void("line", class(name), number("x1", x1), number("y1", y1), number("x2", x2), number("y2", y2))
	}
	bar := func(name word, x, w, h float64) {
		p.void("rect", class(name), number("x", x), number("y", stroke-h), number("width", w), number("height", h))
	}
	p.open("svg", attribute{"viewBox", fmt.Sprintf("0 0 %d %.0f", t.Parts, stroke)}, attribute{"preserveAspectRatio", "none"}, attribute{"role", "img"},
		attribute{"aria-label", l.Workload + ": " + many(l.Count, "denial")})
	if !since.IsZero() {
		if x := width * place(t, since); x > 0 {
			bar("before", 0, x, stroke)
			line("since", x, 0, x, stroke)
		}
	}
	most := max(1, slices.Max(l.Counts))
	for i, n := range l.Counts {
		if n > 0 {
			bar("bar", float64(i)+.1, .8, max(least, stroke*float64(n)/float64(most)))
		}
	}
	for _, f := range all {
		line("mark", width*f.at, 0, width*f.at, stroke)
	}
	p.close("svg")
}

// said says a change in words.
func said(c stages.Change) string {
	text := c.Kind + " " + c.Name
	switch {
	case c.Value == "":
	case c.Kind == "boolean" || c.Kind == "setting":
		text += " = " + c.Value
	default:
		text += " as " + c.Value
	}
	return text + ": " + cmp.Or(c.Change, "declared")
}

// clock writes a time, in UTC.
func clock(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// span writes a length of time, as people say it.
func span(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch whole := d.Truncate(unit.length); {
		case whole == d && d > 0 || d >= 10*unit.length:
			return many(uint64(d.Round(unit.length)/unit.length), unit.name)
		case d >= unit.length:
			return many(uint64(whole/unit.length), unit.name) + " and " + span(d-whole)
		}
	}
	return many(uint64(d/time.Second), "second")
}

func many(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if last := len(what) - 1; what[last] == 's' {
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

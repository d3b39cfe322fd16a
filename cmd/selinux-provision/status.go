package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/stages"
)

// paint gives text a colour, or leaves it as it is.
type paint func(colour, text string) string

// The colours, as SGR parameters of ECMA-48.
const (
	good = "32"
	bad  = "1;31"
	busy = "33"
	dim  = "2"
)

// paintFor paints on a terminal alone, and not where the user wants none (https://no-color.org).
func paintFor(w io.Writer) paint {
	if _, is := terminal(w); !is || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return func(_, text string) string { return text }
	}
	return func(colour, text string) string {
		if text == "" {
			return ""
		}
		return "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
}

// row is one line: of what, its state in a word or two, and more about it.
type row struct{ topic, state, colour, more string }

// printStatus says what is wrong first, each with what to do, then what the host is like. What is in a column begins below each other.
func printStatus(w io.Writer, s *stages.Status, p paint) {
	if s.AsDeclared {
		fmt.Fprintln(w, p(good, "Everything is as declared."))
	} else {
		fmt.Fprintln(w, p(bad, fmt.Sprintf("NOT as declared, %d to look at:", len(s.Problems))))
		for i, problem := range s.Problems {
			fmt.Fprintf(w, "  %s %s\n", p(bad, "-"), oneLine(problem.Problem))
			if saysRemedy(s.Problems, i) {
				fmt.Fprintf(w, "    %s\n", p(dim, "-> "+oneLine(problem.Remedy)))
			}
		}
	}
	fmt.Fprintln(w)

	rows := []row{modeRow(s)}
	if s.Guard != nil {
		rows = append(rows, guardRow(s.Guard))
	}
	for _, t := range s.DomainTrials {
		rows = append(rows, guardRow(t))
	}
	rows = append(rows, storeRows(s)...)
	for _, v := range volumesToShow(s.Volumes) {
		rows = append(rows, volumeRow(v))
	}
	for _, r := range s.Stages {
		rows = append(rows, stageRow(r))
	}
	rows = append(rows, lifeRows(s)...)
	width := 0
	for i := range rows {
		// What others call their mounts, modules and labels is nothing that a terminal obeys.
		r := &rows[i]
		r.topic, r.state, r.more = oneLine(r.topic), oneLine(r.state), oneLine(r.more)
		width = max(width, len(r.state))
	}
	for i, r := range rows {
		topic := r.topic
		if i > 0 && rows[i-1].topic == topic {
			topic = ""
		}
		line := fmt.Sprintf("%-8s %s%*s  %s", topic, p(r.colour, r.state), width-len(r.state), "", r.more)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// lifeRows say how the host fares with what is in force.
func lifeRows(s *stages.Status) (rows []row) {
	if d := s.Denials; d != nil {
		r := row{"denials", "none", good, "since the boot"}
		switch {
		case d.Unknown != "":
			r = row{"denials", "unknown", busy, oneLine(d.Unknown)}
		case d.Stopped+d.Reported > 0:
			r = row{"denials", fmt.Sprint(d.Stopped + d.Reported), busy, fmt.Sprintf("since the boot: %d stopped something, %d only reported; what helps: selinux-provision denials --boot", d.Stopped, d.Reported)}
		}
		rows = append(rows, r)
	}
	if c := s.Cache; c != nil && (c.Declared != 0 || c.Costs()) {
		rows = append(rows, cacheRow(c))
	}
	if n := len(s.ForeignLabels); n > 0 {
		first, others := s.ForeignLabels[0], ""
		if n > 1 {
			others = fmt.Sprintf(" (%d more: --json)", n-1)
		}
		rows = append(rows, row{"/usr", "mixed", busy, fmt.Sprintf("%s is %s, and not %s as in the OS image%s: containers may be denied it; make the system extension with mksquashfs -no-xattrs",
			printable.Text(first.Path), printable.Text(first.Label), printable.Text(first.Vendor), others)})
	}
	for _, u := range s.Unconfined {
		rows = append(rows, row{"free", "unconfined", busy, fmt.Sprintf("container %s: %s, %s", printable.Text(u.Container), printable.Text(u.Domain), u.Why)})
	}
	return rows
}

// cacheRow says how the kernel's cache of decisions fares.
func cacheRow(c *stages.CacheStatus) row {
	r := row{"cache", fmt.Sprint(c.Threshold), good, "decisions kept by the kernel (AVC)"}
	if c.Stats != nil {
		r.more += fmt.Sprintf("; since the boot %.2f %% of %d were not there, and %d had to go for others, %.1f a second", c.MissPercent(), c.Stats.Lookups, c.Stats.Reclaims, c.ReclaimsPerSecond)
	}
	if c.Costs() {
		r.colour = busy
		r.more += "; more may help: kernel.avc_cache_threshold"
	}
	return r
}

func modeRow(s *stages.Status) row {
	m := s.Mode
	r := row{"mode", m.Running, good, "now, at the next boot, and declared"}
	if m.Declared != "unmanaged" && m.Declared != "unknown" && m.Running != m.Declared {
		r.colour = bad
	}
	if m.Running != m.Configured || m.Declared != m.Running || m.CommandLine != "" {
		r.more = fmt.Sprintf("now; %s at the next boot; %s declared", orNone(m.Configured), m.Declared)
	}
	if m.CommandLine != "" {
		r.more += "; " + m.CommandLine + " on the kernel's command line, which wins"
	}
	return r
}

func guardRow(g *stages.Trial) row {
	r := row{"guard", "on trial", busy, g.Says()}
	switch g.Phase {
	case stages.TrialSettled:
		r.state, r.colour = "proven", good
	case stages.TrialFailed:
		r.state, r.colour = "given up", bad
	}
	if g.Reason != "" {
		r.more += ": " + g.Reason
	}
	if n := len(g.Denials); n > 0 {
		r.more += fmt.Sprintf("; %d accesses were denied in its last window, the last: %s", g.DenialCount, oneLine(g.Denials[n-1]))
	}
	return r
}

func storeRows(s *stages.Status) (rows []row) {
	st := s.Store
	store := row{"store", string(st.Kind), good, fmt.Sprintf("type %s, generation %d, made from this OS image's policy %s", st.Type, st.Generation, short(st.Vendor))}
	if st.Kind != "writable" {
		store.colour = bad
	}
	switch st.BuiltFrom {
	case st.Vendor:
	case "":
		store.more = fmt.Sprintf("type %s; this OS image's policy is %s", st.Type, short(st.Vendor))
	default:
		store.colour = bad
		store.more = fmt.Sprintf("type %s, generation %d, made from the policy %s; this OS image's is %s", st.Type, st.Generation, short(st.BuiltFrom), short(st.Vendor))
	}
	if st.Target != "" {
		store.more += ", a link to " + st.Target
	}
	rows = append(rows, store)
	if len(st.CarriedOver) > 0 {
		rows = append(rows, row{"store", "", "", "taken along from the one before: " + strings.Join(st.CarriedOver, ", ")})
	}
	if st.Policy != "" {
		policy := row{"policy", st.Policy, good, "with the modules " + strings.Join(s.Modules, ", ")}
		if len(s.Modules) == 0 {
			policy.more = "no modules declared"
		}
		if len(s.Roles) > 0 {
			policy.more += "; roles " + strings.Join(s.Roles, ", ")
		}
		rows = append(rows, policy)
	}
	for _, key := range s.Replacing {
		rows = append(rows, row{"module", "by hand", busy, printable.Text(key) + " " + replaces})
	}
	for _, p := range s.Permissive {
		rows = append(rows, row{"domain", "permissive", busy, p.String()})
	}
	for _, b := range s.Behind {
		rows = append(rows, row{"policy", "behind", "", fmt.Sprintf("%s has not what %s got since: %s; to give it that: selinux-provision denials --module %s > FILE, into the place of the module, then apply",
			b.Domain, b.Base, printable.Text(strings.Join(b.Lacks, ", ")), b.Module)})
	}
	if next := s.NextImage; next != nil {
		r := row{"next OS", "builds", good, "everything declared, with the policy " + short(next.Vendor)}
		if next.Error != "" || len(next.LeftOut)+len(next.Unstartable) > 0 {
			r = row{"next OS", "NOT all", bad, "builds with the policy " + short(next.Vendor) + "; selinux-provision check --usr other says what does not"}
		}
		rows = append(rows, r)
	}
	return rows
}

// volumesToShow leaves out what is left alone, unless a rule has nothing else: a pattern may fit hundreds of mounts of a container runtime.
// --json has all of them.
func volumesToShow(all []mountwatch.Volume) (some []mountwatch.Volume) {
	more := map[string]int{}
	for _, v := range all {
		if v.State != mountwatch.LeftAlone {
			more[v.Rule]++
		}
	}
	for _, v := range all {
		if v.State == mountwatch.LeftAlone {
			if more[v.Rule]++; more[v.Rule] > 1 {
				continue
			}
		}
		some = append(some, v)
	}
	return some
}

func volumeRow(v mountwatch.Volume) row {
	where := v.Mountpoint
	if where == "" {
		where = v.Source
	}
	r := row{"volume", string(v.State), busy, strings.TrimSpace(v.Rule + " " + oneLine(where))}
	switch v.State {
	case mountwatch.Labelled:
		r.colour = good
		r.more += fmt.Sprintf(": %s (%s, %s)", cmp.Or(v.Found, v.Context), howText(v), v.When.Local().Format(time.DateTime))
	case mountwatch.NotMounted:
		r.colour = dim
	case mountwatch.LeftAlone:
		r.colour = dim
		r.more += ": " + v.Reason
	case mountwatch.TakenOver:
		r.colour = busy
		r.more += ": " + v.Found
	case mountwatch.Refused, mountwatch.Failed:
		r.colour = bad
		if v.Code != "" {
			r.more += " (" + string(v.Code) + ")"
		}
	}
	return r
}

// howText says by what means a volume has its label, and whether in time.
func howText(v mountwatch.Volume) string {
	if v.Late {
		return v.How + " after its pod had it"
	}
	return v.How
}

func stageRow(r stages.Result) row {
	out := row{"stage", "as declared", good, r.Stage}
	switch r.Outcome {
	case stages.Planned:
		out.state, out.colour = "would change", busy
	case stages.Partly:
		out.state, out.colour = "in part", bad
	case stages.Failed, stages.Skipped:
		out.state, out.colour = "fails", bad
	}
	return out
}

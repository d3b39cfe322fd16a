package policystore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

// equivalences gives the steps that make file_contexts.subs have what is declared, and the paths whose labels may be others then. The
// policy is not built for that: libselinux reads the file at each look-up, and libsemanage leaves it alone.
func (c *Compiler) equivalences(policyType string, rec *Record, declared []Equivalence) (steps plan.Plan, changed []Relabel, err error) {
	name := subsFile(policyType)
	content, err := c.Root.ReadFile(name)
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	missing := err != nil
	next, ours := substitutions(string(content), rec.Equivalences, declared)
	if next == string(content) && slices.Equal(ours, rec.Equivalences) {
		return nil, nil, nil
	}
	there, before, after := linesOf(string(content)), set(rec.Equivalences), set(ours)
	for _, line := range slices.Concat(rec.Equivalences, ours) {
		if before[line] && after[line] && there[line] {
			continue
		}
		path, _, _ := strings.Cut(line, " ")
		changed = append(changed, Relabel{Path: path})
	}
	changed = together(changed)
	switch reason := "the declared equivalences changed"; {
	case next == string(content):
	case next == "" && !missing:
		steps = append(steps, plan.Remove(c.Root, name, reason))
	default:
		attr := hostfs.Attributes{Mode: 0o644, Keep: !missing}
		steps = append(steps, plan.Write(c.Root, name, []byte(next), attr, reason))
	}
	were, relabel := rec.Equivalences, rec.Policy.Relabel
	return append(steps, plan.Step{
		Action: "record", Target: name, Reason: "what is declared is to be told from what was written by hand", Quiet: true,
		Do: func(context.Context) (string, error) {
			rec.Equivalences, rec.Policy.Relabel = ours, together(relabel, changed)
			return "recorded", nil
		},
		Undo: func(context.Context) error { rec.Equivalences, rec.Policy.Relabel = were, relabel; return nil },
	}), changed, nil
}

// substitutions gives the text of file_contexts.subs with what is declared in place of what was, and which lines of it are ours. They come
// last and the longest path at the end: of several lines that fit a path, the last counts. What the operator has written there, too, is
// the operator's.
func substitutions(text string, were []string, declared []Equivalence) (next string, ours []string) {
	var b strings.Builder
	before := set(were)
	for line := range strings.Lines(text) {
		if before[equivalence(line)] {
			continue
		}
		b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	theirs := linesOf(b.String())
	declared = slices.SortedStableFunc(slices.Values(declared), func(a, b Equivalence) int {
		return cmp.Or(cmp.Compare(len(a.Path), len(b.Path)), strings.Compare(a.Path, b.Path))
	})
	for _, e := range declared {
		if line := e.Path + " " + e.Like; !theirs[line] {
			ours = append(ours, line)
			b.WriteString(line + "\n")
		}
	}
	if next = b.String(); strings.TrimSuffix(next, "\n") == strings.TrimSuffix(text, "\n") {
		next = text
	}
	return next, ours
}

// equivalence gives the two paths of a line of file_contexts.subs, with one space between them; "" of a line that has none. What stands behind
// them libselinux passes over (selabel_sub in label_file.c), so that people write a comment there.
func equivalence(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
		return ""
	}
	return fields[0] + " " + fields[1]
}

// linesOf gives the equivalences of a text.
func linesOf(text string) map[string]bool {
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		lines[equivalence(line)] = true
	}
	delete(lines, "")
	return lines
}

func set(lines []string) map[string]bool {
	all := make(map[string]bool, len(lines))
	for _, line := range lines {
		all[line] = true
	}
	return all
}

package vmtests

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// Allowed is a line of console or journal that looks like trouble and is none.
type Allowed struct {
	Pattern string // regular expression
	Reason  string
}

// alwaysAllowed is what every machine may say.
func alwaysAllowed() []Allowed {
	return []Allowed{}
}

// signs of trouble: what no healthy machine says on its console or in its journal.
func signs() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`avc: +denied`),
		regexp.MustCompile(`: Failed with result `),
		regexp.MustCompile(`Failed to start `),
		regexp.MustCompile(`Dependency failed for `),
		regexp.MustCompile(`[Oo]rdering cycle`),
		regexp.MustCompile(`[Ee]mergency ([Mm]ode|[Ss]hell)`),
		regexp.MustCompile(`Kernel panic|BUG: |Oops: |general protection fault|hung_task|blocked for more than`),
		regexp.MustCompile(`Freezing execution`),
		regexp.MustCompile(`Failed to load SELinux policy`),
		regexp.MustCompile(`Would relabel`),
	}
}

// Verdict reads the console and the journal of every boot of the machine, and asks systemd for failed units. It returns what is wrong;
// nothing means a clean machine. A machine that is off is judged by its console alone.
func (m *Machine) Verdict(ctx context.Context) ([]string, error) {
	allowed := make([]*regexp.Regexp, 0)
	for _, entry := range append(alwaysAllowed(), m.options.Allowed...) {
		if entry.Reason == "" {
			return nil, fmt.Errorf("cannot judge the machine: %q is allowed without a reason", entry.Pattern)
		}
		pattern, err := regexp.Compile(entry.Pattern)
		if err != nil {
			return nil, fmt.Errorf("cannot judge the machine: %w", err)
		}
		allowed = append(allowed, pattern)
	}
	problems := troubleIn("console", m.Console(), allowed)
	if m.shell == nil {
		return problems, nil
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	// Not only this boot: an earlier one of the same machine must have been clean too.
	journal, err := m.Run(ctx, "journalctl --quiet --no-pager --output=short-monotonic --no-hostname")
	if err != nil {
		return problems, fmt.Errorf("cannot judge the machine: %w", err)
	}
	problems = append(problems, troubleIn("journal", journal.Stdout, allowed)...)
	failed, err := m.Run(ctx, "systemctl list-units --failed --plain --no-legend --full")
	if err != nil {
		return problems, fmt.Errorf("cannot judge the machine: %w", err)
	}
	for line := range strings.Lines(failed.Stdout) {
		if line = strings.TrimSpace(line); line != "" && !matchesAny(line, allowed) {
			problems = append(problems, "failed unit: "+line)
		}
	}
	return problems, nil
}

func troubleIn(source, text string, allowed []*regexp.Regexp) []string {
	var problems []string
	trouble := signs()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if matchesAny(line, trouble) && !matchesAny(line, allowed) {
			problems = append(problems, source+": "+line)
		}
	}
	return problems
}

func matchesAny(line string, patterns []*regexp.Regexp) bool {
	for _, pattern := range patterns {
		if pattern.MatchString(line) {
			return true
		}
	}
	return false
}

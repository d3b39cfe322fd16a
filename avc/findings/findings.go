// Package findings is the one way from logs to findings: it collects the denials of a host, a tree or a file, finds out whose they are, and
// judges them. The command, readiness, its sampler and the guard all take it, so that they cannot differ.
//
// What is missing (a policy that cannot be read, a tree without file contexts) makes an answer poorer and never fails it: the Report says so.
// Do not use it to read single records (package avc), or for a question about the policy alone (internal/policydb).
package findings

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// Host is what is asked: the running host, or a tree.
type Host struct {
	collect.Host
	// Boot is the ID of the boot that runs, "" for a tree.
	Boot string
	// HidingRules gives the audit rules of the kernel that keep denials from the log; nil for a tree.
	HidingRules func(ctx context.Context) ([]string, error)
}

// Query says which denials.
type Query struct {
	Since time.Time // only from this time on; zero for all
	Boot  bool      // only of the boot that runs
	// Input is read in place of the host's own logs, if it is not nil; InputName says what it is.
	Input     io.Reader
	InputName string
	// Policy is asked in place of the host's, if it is not nil.
	Policy *policydb.Policy
	// Only selects findings.
	Only Selection
}

// Selection selects findings by who was denied. What is empty selects all.
type Selection struct {
	Container string // name, also with its pod's as it is shown, or the beginning of the ID
	Pod       string // NAME or NAMESPACE/NAME, also as a static pod's manifest has it
	Namespace string // of Kubernetes
	Unit      string
	Domain    string
	IDs       []string
}

// shortestID is what the beginning of a container's ID must at least be, so that it is not taken for a name.
const shortestID = 6

// Selects tells whether a finding is one of them.
func (s *Selection) Selects(f *judge.Finding) bool {
	who := f.Subject
	namespace, _, _ := strings.Cut(who.Pod, "/")
	pod := who
	pod.Container = ""
	return (s.Pod == "" || slices.Contains(attribution.Names(pod), s.Pod)) && (s.Namespace == "" || who.Pod != "" && namespace == s.Namespace) &&
		(s.Container == "" || who.Container == s.Container || strings.Contains(s.Container, "/") && slices.Contains(attribution.Names(who), s.Container) || len(s.Container) >= shortestID && strings.HasPrefix(who.ID, s.Container)) &&
		(s.Unit == "" || who.Unit == s.Unit || who.Unit == s.Unit+".service") &&
		(s.Domain == "" || f.Domain == s.Domain) &&
		(len(s.IDs) == 0 || slices.Contains(s.IDs, f.ID))
}

// MissingError says that no finding has an ID that was asked for: it would be left out silently.
type MissingError struct{ ID string }

// Error names the ID, and what lists those that there are.
func (e *MissingError) Error() string {
	return fmt.Sprintf("there is no finding %s: selinux-provision denials, with the same --since and --input, lists them", e.ID)
}

// Report is the answer.
type Report struct {
	// Sources are what was read.
	Sources []string  `json:"sources"`
	Stats   avc.Stats `json:"stats"`
	// Dontaudits counts the rules of the policy that hide denials; absent if the policy could not be read.
	Dontaudits *int `json:"dontaudits,omitempty"`
	// Hiding are audit rules of the kernel that keep denials from the journal.
	Hiding []string `json:"hiding_audit_rules,omitempty"`
	// Notes say what is missing or to be minded.
	Notes    []string         `json:"notes,omitempty"`
	Findings []*judge.Finding `json:"findings"`
	// Others counts the denials that the selection leaves out: a misspelt name must not look like a clean host.
	Others uint64 `json:"others"`

	// Policy is the one that was asked, nil if it could not be read; PolicyError then says why.
	Policy      *policydb.Policy `json:"-"`
	PolicyError error            `json:"-"`
	// Since is where the query begins.
	Since time.Time `json:"-"`
	// ProcessContext is the default context of containers, "" if it is not known.
	ProcessContext string `json:"-"`

	expected func(class, name string) string // what the file contexts have for a path, nil if they are not known
	foreign  bool                            // Policy is not this host's own
}

// Gather collects, attributes and judges.
func (h *Host) Gather(ctx context.Context, q Query) (*Report, error) {
	r := &Report{Findings: []*judge.Finding{}, Since: q.Since}
	who := attribution.New(h.Root)
	groups := avc.NewGroups(who)
	records := collect.Query{Since: q.Since, Boot: q.Boot, Booted: who.Booted(), BootID: h.Boot}
	var err error
	if q.Input != nil {
		r.Sources = []string{q.InputName}
		if r.Stats, err = collect.Read(ctx, records, groups.Add, avc.NewDecoder(q.Input)); err != nil {
			return nil, fmt.Errorf("%w [%s]", err, q.InputName)
		}
	} else if r.Stats, r.Sources, err = h.Denials(ctx, records, groups.Add); err != nil {
		return nil, err
	}
	evidence, err := h.evidence(ctx, &q, r, who)
	if err != nil {
		return nil, err
	}
	for _, f := range evidence.Judge(groups.List()) {
		if q.Only.Selects(f) {
			r.Findings = append(r.Findings, f)
		} else {
			r.Others += f.Count
		}
	}
	h.note(ctx, r, q.Input != nil)
	r.losses(q.Input != nil)
	for _, id := range q.Only.IDs {
		if !slices.ContainsFunc(r.Findings, func(f *judge.Finding) bool { return f.ID == id }) {
			return nil, &MissingError{id}
		}
	}
	return r, nil
}

// evidence fetches what findings are judged by, and says in the report what is missing. Old names of types in the query are replaced.
func (h *Host) evidence(ctx context.Context, q *Query, r *Report, who *attribution.Host) (judge.Evidence, error) {
	evidence := judge.Evidence{Container: who.Container, Mounts: attribution.ReadMounts(h.Root)}
	evidence.Inode, evidence.Label = h.Files(ctx)
	if q.Input != nil { // of another host, maybe, or of another time
		evidence.Label = nil
	}
	var err error
	if evidence.Expected, err = h.FileContexts(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Notes = append(r.Notes, fmt.Sprintf("which labels files should have is not known: %v", err))
	}
	r.expected, r.foreign = evidence.Expected, q.Policy != nil
	r.PolicyError = nil
	if evidence.Policy = q.Policy; q.Policy == nil {
		evidence.Policy, r.PolicyError = h.Policy(ctx)
	}
	if ctx.Err() != nil {
		return evidence, context.Cause(ctx)
	}
	r.Policy = evidence.Policy
	evidence.VolumeContext, evidence.ProcessContext = h.ContainerContexts()
	if r.Policy != nil {
		if evidence.ProcessContext == "" { // a log of another host, or a tree without lxc_contexts
			evidence.VolumeContext = usual(r.Policy, "object_r", "container_file_t", "svirt_sandbox_file_t", "svirt_lxc_file_t")
			evidence.ProcessContext = usual(r.Policy, "system_r", "container_t", "svirt_lxc_net_t")
		}
		for _, context := range []*string{&evidence.VolumeContext, &evidence.ProcessContext} {
			if canonical, known := r.Policy.Canonical(*context); known {
				*context = canonical
			}
		}
		q.Only.Domain = r.Policy.Name(q.Only.Domain)
	}
	r.ProcessContext = evidence.ProcessContext
	return evidence, nil
}

// usual gives a context with the first of some types, as policies call them, that a policy has.
func usual(p *policydb.Policy, role string, types ...string) string {
	if at := slices.IndexFunc(types, p.Has); at >= 0 {
		return "system_u:" + role + ":" + types[at] + ":s0"
	}
	return ""
}

// note says what keeps denials out of the log, and what is not known.
func (h *Host) note(ctx context.Context, r *Report, input bool) {
	add := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if !input && h.Root.IsHost() && h.Kernel == nil {
		add("SELinux is off in the running kernel: what follows is from before")
	}
	if r.PolicyError != nil {
		add("booleans, domains and dontaudit rules are not known: %v", r.PolicyError)
	} else {
		n := r.Policy.Dontaudits()
		r.Dontaudits = &n
	}
	if h.Kernel != nil && h.HidingRules != nil && !input {
		var err error
		if r.Hiding, err = h.HidingRules(ctx); err != nil {
			add("whether audit rules keep denials from the journal is not known: %v", err)
		}
	}
}

// losses says in words what did not get into the log.
func (r *Report) losses(input bool) {
	add := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	s := r.Stats
	if input && s.Records == 0 {
		add("%s has no audit record in it: give audit.log, dmesg, or journalctl -o json or -o export, or a text with records pasted into it", r.Sources[0])
	}
	if s.Kernel > 0 {
		add("the kernel dropped %d audit records: its queue was full; auditctl -b 8192 makes it longer", s.Kernel)
	}
	switch {
	case s.Missing > 0 && input:
		add("%d audit events between the first and the last are not in the input: they were lost, or somebody filtered them out", s.Missing)
	case s.Missing > 0:
		add("%d audit events between the first and the last are missing (at most %d in one place, before %s): they were lost on their way to the log",
			s.Missing, s.LargestGap, s.GapAt.Local().Format(time.DateTime))
	}
	if s.Malformed+s.Overlong > 0 {
		first := ""
		if s.Unread != "" {
			first = " (the first: " + s.Unread + ")"
		}
		add("%d lines that look like denials could not be read%s: give the records as they stand in audit.log, or as journalctl -o json prints them", s.Malformed+s.Overlong, first)
	}
	if s.Undated > 0 && !r.Since.IsZero() {
		add("of %d denials no record says when they were, so that they can be older than what was asked for: journalctl -o short-iso, -o json and audit.log say it", s.Undated)
	}
	if s.Suppressed > 0 && s.Missing > 0 {
		add("the kernel's log left out %d messages", s.Suppressed)
	}
}

// Stopped gives the denials of the boot that runs which stopped an access since a time: the newest of them, and how many there are.
func (h *Host) Stopped(ctx context.Context, since time.Time, newest int, line func(*avc.Denial, avc.Subject) string) (lines []string, count int, err error) {
	who := attribution.New(h.Root)
	last := stopped{newest: newest, line: func(d *avc.Denial) string { return line(d, who.Subject(d)) }}
	_, _, err = h.Denials(ctx, collect.Query{Since: since, Boot: true, Booted: who.Booted(), BootID: h.Boot}, last.add)
	return last.lines[max(0, len(last.lines)-newest):], last.count, err
}

// Denied counts the accesses that a domain was denied in the boot that runs since a time, those included that were only reported.
func (h *Host) Denied(ctx context.Context, since time.Time, domain string) (count int, err error) {
	_, _, err = h.Denials(ctx, collect.Query{Since: since, Boot: true, Booted: attribution.New(h.Root).Booted(), BootID: h.Boot}, func(d *avc.Denial) {
		if d.Kind == avc.Denied && d.Source.Type() == domain {
			count++
		}
	})
	return count, err
}

// stopped keeps the newest of the denials that stopped something.
type stopped struct {
	newest int
	line   func(*avc.Denial) string
	lines  []string
	count  int
}

func (s *stopped) add(d *avc.Denial) {
	if d.Kind != avc.Denied || d.Enforced != avc.EnforcedYes {
		return
	}
	s.count++
	if s.lines = append(s.lines, s.line(d)); len(s.lines) > 2*s.newest {
		s.lines = append(s.lines[:0], s.lines[len(s.lines)-s.newest:]...)
	}
}

// Running gives every name of each container that runs.
func (h *Host) Running() (names []string) {
	for _, s := range attribution.New(h.Root).Running() {
		names = append(names, attribution.Names(s.Subject)...)
	}
	return names
}

// Unreadable tells whether an error says that a policy is there and has a form that this program does not know, which no second try changes:
// the system is newer than the program, or the policy is damaged. What depends on the policy is then not known.
func Unreadable(err error) bool {
	var form *policydb.FormError
	return errors.As(err, &form)
}

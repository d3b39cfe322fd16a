package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/avc/propose"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/textform"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/stages"
)

const denialsHelp = `Show what SELinux denied, or would have denied: who (container, pod, unit, domain), what, on what, how often, and what most
likely helps. It reads the journal and the audit daemon's logs, or with --input a file or standard input: audit.log, dmesg,
journalctl -o json or -o export, any mixture of them, or a text that such records were pasted into; it may be compressed with
gzip or bzip2.

The answer is the first of these that holds: the target has the wrong label for its path; it is in a volume that nobody
labelled; a boolean allows it; another domain may do it already; the categories forbid it, and no rule helps; only then, a rule.

  denials --follow            tells of each denial as it comes: in one line on a terminal, in a line of JSON in a pipe
  denials --module NAME       prints CIL for a new domain NAME_t that has what the container domain has, and what was denied
  denials --may D --on T      what may domain D do to type T, and under which booleans
  denials --may D --beyond E  what domain D may do that domain E may not
  denials --types NAME        the attributes of a type, or the types of an attribute

No denial does not mean that nothing would be denied: dontaudit rules of the policy, and audit rules, keep denials from the log.
The answer says whether they do. A log of another host is judged by the policy of this one, unless --policy names that one's.
Names, paths and labels in records come from the programs that were denied; read them so.`

// denialOptions are the flags of denials.
type denialOptions struct {
	since, input, policy      string
	boot                      bool
	container, pod, namespace string
	unit, source              string
	follow                    bool
	only                      []string
	module, domain, output    string
	dangerous                 []string
	seenOnly                  bool
	may, on, beyond, types    string
	sinceTime                 time.Time
}

func (a *app) denialsCommand() *cobra.Command {
	var o denialOptions
	c := &cobra.Command{Use: "denials", Short: "Show what SELinux denied, and what helps", Long: denialsHelp, Args: noArguments}
	flags := c.Flags()
	flags.StringVar(&o.since, "since", "", "only from this `time` on: 2h, 3d, 15:04, 2026-01-02, \"2026-01-02 15:04:05\", @1764320043, today, yesterday")
	flags.BoolVar(&o.boot, "boot", false, "only since the kernel started")
	flags.StringVar(&o.input, "input", "", "read this `file` and not the journal; - is standard input")
	flags.StringVar(&o.policy, "policy", "", "ask the binary policy in this `file` and not the loaded one")
	flags.StringVar(&o.container, "container", "", "only this container: its `name`, or the beginning of its ID")
	flags.StringVar(&o.pod, "pod", "", "only this `pod` of Kubernetes: NAME or NAMESPACE/NAME")
	flags.StringVar(&o.namespace, "namespace", "", "only the pods of this `namespace`")
	flags.StringVar(&o.unit, "unit", "", "only this `unit` of systemd")
	flags.StringVar(&o.source, "source", "", "only this `domain`")
	flags.StringSliceVar(&o.only, "only", nil, "only the findings with these `IDs`")
	flags.BoolVarP(&o.follow, "follow", "f", false, "tell of each denial as it comes, in a line; from now on, or with --since or --boot from there on")
	flags.StringVar(&o.may, "may", "", "tell what this `domain` may do, with --on")
	flags.StringVar(&o.on, "on", "", "the `type` for --may")
	flags.StringVar(&o.beyond, "beyond", "", "for --may: tell all that it may and this `domain` may not")
	flags.StringVar(&o.types, "types", "", "tell the attributes of a type or the types of an attribute with this `name`")
	flags.StringVar(&o.module, "module", "", "print CIL for a new domain: the module of this `name`")
	flags.StringVar(&o.domain, "domain", "", "with --module: add to this existing `domain`; every process in it gets the rules")
	flags.StringVar(&o.output, "output", "", "with --module: write the text to this `file` or into this directory, which is made if need be")
	flags.StringSliceVar(&o.dangerous, "allow-dangerous", nil, "with --module: put these `dangers` in, as the list of what is held back names them")
	flags.BoolVar(&o.seenOnly, "seen-only", false, "with --module: leave out what was not seen, although an access that was stopped goes on with it")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(time.Now()); err != nil {
			return usageError{err}
		}
		switch {
		case o.types != "":
			return a.describeType(cmd.Context(), &o)
		case o.may != "":
			return a.may(cmd.Context(), &o)
		case o.module != "":
			return a.module(cmd.Context(), &o)
		case o.follow:
			return a.follow(cmd.Context(), &o, cmd.Flags().Changed("json"))
		}
		return a.denials(cmd.Context(), &o)
	}
	return c
}

func (o *denialOptions) check(now time.Time) (err error) {
	switch {
	case o.may != "" && o.on == "" && o.beyond == "":
		return errors.New("cannot answer --may alone: name a type with --on, or a domain to compare with with --beyond")
	case o.may != "" && o.on != "" && o.beyond != "":
		return errors.New("cannot answer --on and --beyond at once")
	case o.may == "" && (o.on != "" || o.beyond != ""):
		return errors.New("cannot answer --on or --beyond alone: name the domain with --may")
	}
	if o.follow && (o.may != "" || o.types != "" || o.module != "") {
		return errors.New("cannot use --follow with --may, --types or --module: it tells of denials as they come")
	}
	if o.may != "" && o.types != "" {
		return errors.New("cannot answer --may and --types at once")
	}
	if o.module != "" {
		if _, err := propose.CheckName(o.module); err != nil {
			return err
		}
		for _, name := range o.dangerous {
			if name != "all" && !slices.Contains(propose.DangerNames(), name) {
				return fmt.Errorf("cannot use --allow-dangerous %s: the names are all, %s", name, strings.Join(propose.DangerNames(), ", "))
			}
		}
		if o.output != "" && filepath.Ext(o.output) == ".pp" {
			return fmt.Errorf("cannot write a text in CIL to %s: call it %s.cil", printable.Quote(o.output), o.module)
		}
	} else if o.domain != "" || len(o.dangerous) > 0 || o.output != "" || o.seenOnly {
		return errors.New("cannot use --domain, --output, --allow-dangerous or --seen-only without --module: they say what the module holds and where it goes")
	}
	if o.since != "" {
		if o.sinceTime, err = findings.Since(o.since, now); err != nil {
			return err
		}
	}
	return nil
}

// gather reads, judges and selects.
func (a *app) gather(ctx context.Context, o *denialOptions) (h *stages.Host, r *findings.Report, closeHost func(), err error) {
	h, closeHost, err = a.host()
	if err != nil {
		return nil, nil, nil, err
	}
	if r, err = o.ask(ctx, h.Findings()); err != nil {
		closeHost()
		return nil, nil, nil, err
	}
	return h, r, closeHost, nil
}

// query gives what is asked for. The input is opened as open says.
func (o *denialOptions) query(open func(name string) (io.ReadCloser, error)) (q findings.Query, closeInput func(), err error) {
	q = findings.Query{Since: o.sinceTime, Boot: o.boot, Only: findings.Selection{
		Container: o.container, Pod: o.pod, Namespace: o.namespace, Unit: o.unit, Domain: o.source, IDs: o.only,
	}}
	closeInput = func() {}
	switch o.input {
	case "":
	case "-":
		q.Input, q.InputName = textform.Reader(os.Stdin), "standard input"
	default:
		f, err := open(o.input)
		if err != nil {
			return q, closeInput, usageError{fmt.Errorf("cannot use --input: %w", err)}
		}
		closeInput = func() { _ = f.Close() }
		q.Input, q.InputName = f, o.input
		if file, plain := f.(*os.File); plain {
			q.Input = textform.Reader(file)
		}
	}
	if o.policy != "" {
		if q.Policy, err = readPolicy(o.policy); err != nil {
			closeInput()
			return q, func() {}, err
		}
	}
	return q, closeInput, nil
}

func (o *denialOptions) ask(ctx context.Context, from *findings.Host) (*findings.Report, error) {
	q, closeInput, err := o.query(func(name string) (io.ReadCloser, error) { return os.Open(name) })
	if err != nil {
		return nil, err
	}
	defer closeInput()
	r, err := from.Gather(ctx, q)
	var missing *findings.MissingError
	if errors.As(err, &missing) {
		err = usageError{err}
	}
	return r, unreadable(err)
}

// unreadable says that an input is wrong, if an error says that it is in a form that nobody reads.
func unreadable(err error) error {
	if _, is := errors.AsType[*textform.Error](err); is {
		return usageError{err}
	}
	return err
}

func readPolicy(name string) (*policydb.Policy, error) {
	p, err := policydb.Read(os.Open(name))
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the name is said once
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("cannot use --policy %s: %w", name, err)}
	}
	return p, nil
}

func (a *app) denials(ctx context.Context, o *denialOptions) error {
	_, r, closeHost, err := a.gather(ctx, o)
	if err != nil {
		return err
	}
	defer closeHost()
	if a.answer(struct {
		header
		*findings.Report
	}{a.header(), r}) {
		return nil
	}
	printDenials(a.screen(), r, a.verbose)
	return nil
}

func printDenials(w io.Writer, r *findings.Report, verbose bool) {
	sources := printable.Text(strings.Join(r.Sources, " and "))
	if len(r.Findings) == 0 {
		fmt.Fprintf(w, "No denials in %s%s%s.\n", sources, period(r), others(r))
	} else {
		var count, enforced, permissive uint64
		for _, f := range r.Findings {
			count, enforced, permissive = count+f.Count, enforced+f.Enforced, permissive+f.Permissive
		}
		fmt.Fprintf(w, "%s in %s: %d stopped something, %d only reported%s.\n\n", plural(count, "denial"), sources, enforced, permissive, unknown(count-enforced-permissive))
		printFindings(w, r.Findings, verbose)
	}
	for _, note := range append(hidden(r), r.Notes...) {
		fmt.Fprintf(w, "! %s\n", printable.Text(note))
	}
}

// others says how many denials the flags leave out: a misspelt name must not look like a clean host.
func others(r *findings.Report) string {
	if r.Others == 0 {
		return ""
	}
	return fmt.Sprintf(", but %d that these flags leave out", r.Others)
}

func unknown(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", of %d the record does not say", n)
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func period(r *findings.Report) string {
	switch {
	case !r.Since.IsZero():
		return " since " + r.Since.Format(time.DateTime)
	case r.Stats.First.IsZero():
		return ""
	}
	return fmt.Sprintf(", whose audit records go from %s to %s", r.Stats.First.Local().Format(time.DateTime), r.Stats.Last.Local().Format(time.DateTime))
}

// hidden says what keeps denials out of the log: an empty list proves nothing while something does.
func hidden(r *findings.Report) (notes []string) {
	if r.Dontaudits != nil && *r.Dontaudits > 0 {
		notes = append(notes, fmt.Sprintf("%d dontaudit rules of the policy hide denials: what they hide would be stopped without a word when enforcing; to see it, declare audit: {dontaudit: strip} and apply",
			*r.Dontaudits))
	}
	for _, rule := range r.Hiding {
		notes = append(notes, fmt.Sprintf("an audit rule keeps denials from the journal (%s): declare audit: {log_denials: true} and apply", rule))
	}
	return notes
}

// printFindings prints a table; below each line, what helps.
func printFindings(w io.Writer, findings []*judge.Finding, verbose bool) {
	rows := [][]string{{"ID", "COUNT", "WHO", "DENIED", "ON", "ENFORCED", "FIRST", "LAST"}}
	for _, f := range findings {
		rows = append(rows, []string{printable.Text(f.ID), strconv.FormatUint(f.Count, 10), who(f), what(f), onWhat(f), enforcedWord(f), clock(f.First), clock(f.Last)})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(cell + strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		if n > 0 {
			printFix(w, findings[n-1], verbose)
		}
	}
	fmt.Fprintln(w)
}

func printFix(w io.Writer, f *judge.Finding, verbose bool) {
	indent := strings.Repeat(" ", 8)
	fmt.Fprintf(w, "%s%s: %s\n", indent, printable.Text(string(f.Fix.Kind)), printable.Text(f.Fix.Text))
	if f.Fix.Command != "" {
		fmt.Fprintf(w, "%s  %s\n", indent, printable.Text(f.Fix.Command))
	}
	for line := range strings.Lines(f.Fix.Config) {
		fmt.Fprintf(w, "%s  %s\n", indent, printable.Text(strings.TrimSuffix(line, "\n")))
	}
	if f.Fix.Also != "" {
		fmt.Fprintf(w, "%s%s\n", indent, printable.Text(f.Fix.Also))
	}
	if verbose {
		fmt.Fprintf(w, "%s%s -> %s\n", indent, printable.Text(string(f.Source)), printable.Text(string(f.Object)))
		if f.Comm != "" || f.PID != 0 {
			fmt.Fprintf(w, "%sthe last: process %d (%s) %s\n", indent, f.PID, printable.Text(f.Comm), printable.Text(f.Exe))
		}
		if f.Subject.Evidence != "" {
			fmt.Fprintf(w, "%sknown by %s\n", indent, printable.Text(f.Subject.Evidence))
		}
		for _, field := range f.Fields {
			fmt.Fprintf(w, "%s%s=%s\n", indent, printable.Text(field.Key), printable.Text(field.Value))
		}
		for _, p := range f.Paths {
			fmt.Fprintf(w, "%s%6d  %s%s\n", indent, p.Count, printable.Text(p.Path), hostPath(p))
		}
	}
}

func hostPath(p judge.Seen) string {
	if p.Host == "" || p.Host == p.Path {
		return ""
	}
	return " (on the host " + printable.Text(p.Host) + ")"
}

func who(f *judge.Finding) string {
	text := f.Domain
	if f.Class == "filesystem" && f.Permissions["associate"] > 0 { // no domain stands in such a record
		text = cmp.Or(f.Comm, "a program") + ", for a file of type " + f.Domain
	}
	if s := f.Subject.String(); s != "" {
		if f.Subject.Image != "" {
			s += " (" + f.Subject.Image + ")"
		}
		text = s + ", " + f.Domain
	}
	return printable.Text(text)
}

func what(f *judge.Finding) string {
	words := strings.Join(f.PermissionList(), " ")
	switch f.Kind {
	case avc.Granted:
		words = "(granted) " + words
	case avc.Invalid:
		words = strings.TrimSpace("invalid context " + words)
	}
	return printable.Text(strings.TrimSpace(f.Class + " " + words))
}

func onWhat(f *judge.Finding) string {
	text := f.Target
	if f.Kind == avc.Invalid {
		text = cmp.Or(f.Invalid, text)
	}
	if len(f.Paths) > 0 {
		text += " " + shorten(f.Paths[0].Path)
		if f.PathCount > 1 {
			text += fmt.Sprintf(" and %d more", f.PathCount-1)
		}
	}
	if f.FileSystem != "" {
		text += " (" + f.FileSystem + ")"
	} else if f.Dev != "" {
		text += " (" + f.Dev + ")"
	}
	return printable.Text(text)
}

// shorten keeps the end of a long path: -v shows all of it.
func shorten(name string) string {
	const longest = 48
	if runes := []rune(name); len(runes) > longest {
		return "…" + string(runes[len(runes)-longest+1:])
	}
	return name
}

func enforcedWord(f *judge.Finding) string {
	switch {
	case f.Kind != avc.Denied:
		return "-"
	case f.Enforced == f.Count:
		return "yes"
	case f.Permissive == f.Count:
		return "no"
	case f.Enforced > 0:
		return fmt.Sprintf("%d of them", f.Enforced)
	}
	return "unknown"
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// module prints CIL on standard output, and what to do with it, and what is not in it, on standard error.
func (a *app) module(ctx context.Context, o *denialOptions) error {
	h, r, closeHost, err := a.gather(ctx, o)
	if err != nil {
		return err
	}
	defer closeHost()
	if r.PolicyError != nil {
		return fmt.Errorf("cannot make a module: %w", r.PolicyError)
	}
	m, err := h.Findings().Module(r, findings.ModuleQuery{
		Name: o.module, Existing: o.domain, Source: o.source, Named: o.only, Dangerous: o.dangerous, SeenOnly: o.seenOnly,
		Priority: stages.ModulePriority, State: stages.StateDir,
	})
	if errors.Is(err, propose.ErrNothing) {
		return nothingToAllow(m, r)
	}
	if err != nil {
		return usageError{err}
	}
	if o.output != "" {
		if err := writeModule(o.output, m.Name, m.CIL); err != nil {
			return err
		}
	}
	if len(m.HeldBack) > 0 {
		a.code = exitPartly
	}
	if a.answer(struct {
		header
		*propose.Module
		Use   []string `json:"use"`
		Notes []string `json:"notes,omitempty"`
	}{a.header(), m, m.Use(), append(hidden(r), r.Notes...)}) {
		return nil
	}
	if o.output == "" {
		if _, err := fmt.Fprint(a.stdout, m.CIL); err != nil {
			return err
		}
	}
	a.explain(m, r, o)
	return nil
}

// nothingToAllow says why there is no module.
func nothingToAllow(m *propose.Module, r *findings.Report) error {
	var text strings.Builder
	switch {
	case len(r.Findings) == 0:
		fmt.Fprintf(&text, "there are no such denials%s: selinux-provision denials lists all", others(r))
	default:
		fmt.Fprintf(&text, "%v", propose.ErrNothing)
	}
	for _, l := range m.LeftOut {
		fmt.Fprintf(&text, "\n  %s: %s", l.Finding, printable.Text(l.Reason))
	}
	for _, h := range m.HeldBack {
		fmt.Fprintf(&text, "\n  %s: held back: %s on %s, class %s: %s; --allow-dangerous %s puts it in", h.Finding, printable.Text(h.Permission), printable.Text(h.Target), printable.Text(h.Class), h.Reason, h.Danger)
	}
	return fmt.Errorf("cannot make a module: %s", text.String())
}

func (a *app) explain(m *propose.Module, r *findings.Report, o *denialOptions) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }
	if o.domain != "" {
		say("! Every process in %s gets these rules: every container that runs in it, not only this one. A domain of its own needs no --domain.", o.domain)
		say("Put the text at %s/%s.cil, then: selinux-provision apply", provision.ModulesDir, m.Name)
	} else {
		for _, line := range m.Use() {
			say("%s", line)
		}
	}
	if who := subjects(r.Findings, m); len(who) > 1 {
		say("! It is made from denials of %s. One of them alone: --container NAME", strings.Join(who, ", "))
	}
	if unseen := m.Unseen(); len(unseen) > 0 {
		say("Not seen, but what was stopped goes on with it: %s. To leave it out: --seen-only", printable.Text(strings.Join(unseen, "; ")))
	}
	for _, h := range m.HeldBack {
		say("! held back, as it is dangerous: %s on %s, class %s (%s). To put it in: --allow-dangerous %s", printable.Text(h.Permission), printable.Text(h.Target), printable.Text(h.Class), h.Reason, h.Danger)
	}
	for _, l := range m.LeftOut {
		say("left out: %s: %s", l.Finding, printable.Text(l.Reason))
	}
	for _, note := range append(hidden(r), r.Notes...) {
		say("! %s", printable.Text(note))
	}
}

// subjects gives whose denials are in the module.
func subjects(findings []*judge.Finding, m *propose.Module) (who []string) {
	for _, rule := range m.Rules {
		for _, id := range rule.Findings {
			for _, f := range findings {
				name := printable.Text(f.Subject.String())
				if f.ID == id && name != "" && !slices.Contains(who, name) {
					who = append(who, name)
				}
			}
		}
	}
	slices.Sort(who)
	return who
}

// openPolicy gives the policy for a question that needs nothing else.
func (a *app) openPolicy(ctx context.Context, name string) (*policydb.Policy, error) {
	if name != "" {
		return readPolicy(name)
	}
	h, closeHost, err := a.host()
	if err != nil {
		return nil, err
	}
	defer closeHost()
	if h.Root.IsHost() && h.Kernel == nil {
		return nil, fmt.Errorf("%w: %w: name a policy file with --policy", stages.ErrNotApplicable, kernel.ErrDisabled)
	}
	return h.Findings().Policy(ctx)
}

func (a *app) describeType(ctx context.Context, o *denialOptions) error {
	p, err := a.openPolicy(ctx, o.policy)
	if err != nil {
		return err
	}
	t, err := p.Describe(o.types)
	if err != nil {
		return usageError{fmt.Errorf("cannot describe it: %w", err)}
	}
	if a.answer(struct {
		header
		policydb.Type
	}{a.header(), t}) {
		return nil
	}
	if t.Attribute {
		fmt.Fprintf(a.stdout, "%s is an attribute of %s:\n", t.Name, plural(uint64(len(t.Types)), "type"))
	} else {
		fmt.Fprintf(a.stdout, "%s is a type", t.Name)
		if len(t.Aliases) > 0 {
			fmt.Fprintf(a.stdout, " (also called %s)", strings.Join(t.Aliases, ", "))
		}
		if t.Permissive {
			fmt.Fprint(a.stdout, ", permissive even when the host enforces")
		}
		fmt.Fprintf(a.stdout, " with %s:\n", plural(uint64(len(t.Attributes)), "attribute"))
	}
	for _, name := range append(t.Types, t.Attributes...) {
		fmt.Fprintf(a.stdout, "  %s\n", name)
	}
	return nil
}

func (a *app) may(ctx context.Context, o *denialOptions) error {
	p, err := a.openPolicy(ctx, o.policy)
	if err != nil {
		return err
	}
	if o.beyond != "" {
		return a.beyond(p, o)
	}
	list, err := p.May(o.may, o.on)
	if err != nil {
		return usageError{fmt.Errorf("cannot answer: %w", err)}
	}
	if a.answer(struct {
		header
		Domain string            `json:"domain"`
		Target string            `json:"target"`
		Access []policydb.Access `json:"access"`
	}{a.header(), o.may, o.on, append([]policydb.Access{}, list...)}) {
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintf(a.stdout, "%s may do nothing to %s, whatever the booleans say.\n", o.may, o.on)
		return nil
	}
	for _, access := range list {
		when := ""
		if access.Condition != "" {
			when = fmt.Sprintf("  if %s (%s now)", access.Condition, map[bool]string{true: "it is so", false: "it is not so"}[access.Holds])
		}
		fmt.Fprintf(a.stdout, "%s: %s%s\n", access.Class, strings.Join(access.Permissions, " "), when)
	}
	fmt.Fprintln(a.stdout, "Categories and other constraints can still forbid it.")
	return nil
}

func (a *app) beyond(p *policydb.Policy, o *denialOptions) error {
	list, err := p.Beyond(o.may, o.beyond)
	if err != nil {
		return usageError{fmt.Errorf("cannot answer: %w", err)}
	}
	if a.answer(struct {
		header
		Domain string                `json:"domain"`
		Other  string                `json:"other"`
		Beyond []policydb.Difference `json:"beyond"`
	}{a.header(), o.may, o.beyond, append([]policydb.Difference{}, list...)}) {
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintf(a.stdout, "%s may nothing that %s may not.\n", o.may, o.beyond)
	}
	for _, d := range list {
		fmt.Fprintf(a.stdout, "%s %s: %s\n", d.Target, d.Class, strings.Join(d.Permissions, " "))
	}
	return nil
}

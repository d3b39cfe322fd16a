package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/stages"
	"github.com/selinux-provision/selinux-provision/stages/report"
)

const readinessHelp = `Tell whether the host may enforce: ready, not ready, or not enough evidence, with the reasons.

What is asked: was the host observed long enough and over a reboot, with nothing that hides denials and no record lost; did every
declared workload run; was anything denied that enforcing would stop; is a volume without a label; do containers use Btrfs;
is the policy store as declared. Evidence is collected by selinux-provision-evidence.timer where the configuration has readiness.

With --domain the question is whether one domain may be enforced that is permissive on a host that enforces, such as one
that enforce.permissive_domains names: was it watched long enough, did processes start in it, was any access of it denied
that the policy in force does not allow, was no record lost. What cannot be asked speaks against it.

On a node of Kubernetes the answer has a part of its own, which changes neither the verdict nor the exit code: which pods of
this node do not start beside each other where the kubelet mounts volumes with a label (its feature gate SELinuxMount, on from
1.37), also on a permissive host.

--report writes the answer as one page for those who decide, with the denials over time and what was declared when. It
needs nothing from elsewhere, so that it can be sent and printed. With FILEs, which "selinux-provision --json readiness"
printed on several hosts, the page is about those, and this host is not looked at.

Exit code 0: ready, all of them with FILEs; 3: not ready, or not enough evidence.`

func (a *app) readinessCommand() *cobra.Command {
	c := &cobra.Command{Use: "readiness [--domain TYPE | --report PAGE [FILE...]]", Short: "Tell whether the host may enforce, and why not", Long: readinessHelp}
	page := c.Flags().String("report", "", "write the answer as a page to this `file`, such as report.html; - is standard output")
	domain := c.Flags().String("domain", "", "tell whether this one domain, the `type` of a process, may be enforced")
	metrics := c.Flags().String("metrics", "", "write the answer for Prometheus to this `file`, for the textfile collector of node_exporter; - is standard output")
	features := c.Flags().String("features", "", "write labels of this node to this `file`, for the local source of node-feature-discovery")
	restart := c.Flags().Bool("restart", false, "begin the evidence anew")
	sample := c.Flags().Bool("sample", false, "look at the host and add to the evidence")
	_ = c.Flags().MarkHidden("sample") // for the timer
	c.RunE = func(cmd *cobra.Command, files []string) error {
		switch looks := *sample || *restart || *metrics != "" || *features != ""; {
		case *sample && *restart:
			return usageError{errors.New("cannot use --sample and --restart at once: --restart takes the first sample")}
		case len(files) > 0 && *page == "":
			return usageError{errors.New("cannot read the answers of other hosts for anything but a page: give --report PAGE too")}
		case len(files) > 0 && looks:
			return usageError{errors.New("cannot look at this host and make a page of the answers of others at once")}
		case cmd.Flags().Changed("domain") && (looks || *page != ""):
			return usageError{errors.New("cannot use --domain with another flag of readiness: the others are about the whole host")}
		case cmd.Flags().Changed("domain"):
			return a.domainReadiness(cmd.Context(), *domain)
		case *page != "" && *sample:
			return usageError{errors.New("cannot use --report and --sample at once")}
		case len(files) > 0:
			return a.fleetReport(*page, files)
		}
		return a.readiness(cmd.Context(), *sample, *restart, *metrics, *features, *page)
	}
	return c
}

func (a *app) readiness(ctx context.Context, sample, restart bool, metrics, features, page string) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	var taken bool
	if sample || restart {
		taken, err = h.TakeSample(ctx, restart)
		switch {
		case err != nil:
			return err
		case !taken && restart:
			return usageError{errors.New("cannot begin the evidence anew: none is collected: declare readiness, and run: selinux-provision apply")}
		case sample && metrics == "" && features == "":
			a.sampled(taken)
			return nil
		}
	}
	r, err := h.Readiness(ctx)
	if err != nil {
		return err
	}
	if metrics != "" || features != "" {
		s, err := h.Status(ctx)
		if err != nil {
			return err
		}
		if metrics != "" {
			if err := a.writeMetrics(metrics, r, s); err != nil {
				return err
			}
		}
		if features != "" {
			if err := writeFeatures(features, s, r); err != nil {
				return err
			}
		}
	}
	if r.Verdict != stages.Ready {
		a.code = exitPartly
	}
	switch {
	case metrics == "-":
		return nil
	case sample:
		a.sampled(taken)
		return nil
	}
	h.AddSELinuxMount(ctx, r)
	node := &report.Node{Readiness: *r}
	if a.json || page != "" {
		if node.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("cannot tell which host this is: %w", err)
		}
		if err := h.AddTimeline(ctx, &node.Readiness); err != nil {
			return err
		}
	}
	if page != "" {
		if err := a.writePage(page, node); err != nil || page == "-" {
			return err
		}
	}
	if !a.answer(struct {
		header
		*report.Node
	}{a.header(), node}) {
		printReadiness(a.screen(), r)
	}
	return nil
}

// sampled tells what came of a look at the host.
func (a *app) sampled(taken bool) {
	a.answer(struct {
		header
		Taken bool `json:"taken"` // there is one more in the evidence; false: none is collected
	}{a.header(), taken})
}

// domainReadiness tells whether one domain may be enforced.
func (a *app) domainReadiness(ctx context.Context, domain string) error {
	if !secontext.IsName(domain) {
		return usageError{fmt.Errorf("cannot use %s as a domain: give the type of a process, as ps -eZ shows it in the third place of a context", printable.Quote(domain))}
	}
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	r, err := h.DomainReadiness(ctx, domain)
	if err != nil {
		return err
	}
	if r.Verdict != stages.Ready {
		a.code = exitPartly
	}
	if a.answer(struct {
		header
		*stages.DomainReadiness
	}{a.header(), r}) {
		return nil
	}
	printDomainReadiness(a.screen(), r)
	return nil
}

func printDomainReadiness(w io.Writer, r *stages.DomainReadiness) {
	domain := printable.Text(r.Domain)
	fmt.Fprintln(w, map[stages.Verdict]string{
		stages.Ready: domain + " is ready to be enforced.", stages.NotReady: domain + " is NOT ready to be enforced.", stages.NotEnough: "Not enough evidence to enforce " + domain + ".",
	}[r.Verdict])
	printChecks(w, r.Against(), r.Checks, r.Apart)
	if r.Verdict == stages.Ready {
		fmt.Fprintf(w, "%-12s %s\n", "next", printable.Text(r.Next))
	}
}

// fleetHost is one of the hosts of a page.
type fleetHost struct {
	Node    string         `json:"node"`    // its name, or that of the file
	Verdict stages.Verdict `json:"verdict"` // on it
}

// fleetReport makes one page of the answers of several hosts.
func (a *app) fleetReport(page string, files []string) error {
	var nodes []*report.Node
	hosts := []fleetHost{}
	for _, name := range files {
		n, err := readNode(name)
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", printable.Quote(name), err)
		}
		nodes, hosts = append(nodes, n), append(hosts, fleetHost{n.Node, n.Verdict})
		if n.Verdict != stages.Ready {
			a.code = exitPartly
		}
	}
	if err := a.writePage(page, nodes...); err != nil || page == "-" {
		return err
	}
	if !a.answer(struct {
		header
		Hosts []fleetHost `json:"hosts"` // in the order of the files
	}{a.header(), hosts}) {
		for _, h := range hosts {
			fmt.Fprintf(a.screen(), "%-20s %s\n", h.Verdict, printable.Text(h.Node))
		}
	}
	return nil
}

func readNode(name string) (*report.Node, error) {
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return report.Read(in, strings.TrimSuffix(filepath.Base(name), ".json"))
}

func (a *app) writePage(name string, nodes ...*report.Node) error {
	var b strings.Builder
	if err := report.Write(&b, nodes, strings.TrimSpace(versionText)); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return a.writeFile("the report", name, b.String())
}

func printReadiness(w io.Writer, r *stages.Readiness) {
	headline := map[stages.Verdict]string{
		stages.Ready: "Ready to enforce.", stages.NotReady: "NOT ready to enforce.", stages.NotEnough: "Not enough evidence to enforce.",
	}[r.Verdict]
	if r.Enforcing {
		headline += " The kernel enforces already."
	}
	fmt.Fprintln(w, headline)
	printChecks(w, r.Against(), r.Checks, r.Apart)
	if r.SELinuxMount != nil {
		printSELinuxMount(w, r.SELinuxMount)
	}
}

// printChecks says what speaks against enforcing, and then what does not.
func printChecks(w io.Writer, against, checks []stages.Check, apart []stages.SetApart) {
	for _, c := range against {
		fmt.Fprintf(w, "  - %s: %s\n    %s\n", c.Verdict, oneLine(c.Found), oneLine(c.Remedy))
	}
	for _, c := range checks {
		if c.Verdict == stages.Ready {
			fmt.Fprintf(w, "%-12s %s\n", printable.Text(c.Name), oneLine(c.Found))
		}
	}
	for _, s := range apart {
		fmt.Fprintf(w, "%-12s %s [%s]\n", "set apart", stages.Describe(s.Finding), printable.Text(s.Why))
	}
}

// printSELinuxMount says it apart from the checks, which are about enforcing.
func printSELinuxMount(w io.Writer, s *stages.SELinuxMount) {
	fmt.Fprintf(w, "\nKubernetes 1.37, which is no part of the verdict: %s\n", oneLine(s.Headline()))
	for _, c := range s.Conflicts {
		fmt.Fprintf(w, "  - %s\n    %s\n", oneLine(c.String()), oneLine(c.Remedy))
	}
}

// volumeMetrics gives what the watcher did: each state with a count, each code of a refusal that there is, and what relabelling took. Volumes
// of one rule are one.
func volumeMetrics(volumes []mountwatch.Volume) (states, refused, seconds, files []string) {
	count := map[mountwatch.State]int{}
	codes := map[string]int{}
	type sum struct{ ms, set, already, resumed, skipped, failed int64 }
	rules := map[string]sum{}
	for _, v := range volumes {
		count[v.State]++
		if v.State == mountwatch.Refused {
			codes[string(v.Code)]++
		}
		if f := v.Files; f != nil {
			s := rules[v.Rule]
			rules[v.Rule] = sum{s.ms + f.Millis, s.set + f.Set, s.already + f.Already, s.resumed + f.Resumed, s.skipped + f.Skipped, s.failed + f.Failed}
		}
	}
	for _, state := range mountwatch.States() {
		states = append(states, fmt.Sprintf("{state=\"%s\"} %d", state, count[state]))
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		refused = append(refused, fmt.Sprintf("{code=%s} %d", metricValue(code), codes[code]))
	}
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		s, name := rules[rule], metricValue(rule)
		seconds = append(seconds, fmt.Sprintf("{volume=%s} %v", name, float64(s.ms)/1000))
		for _, f := range []struct {
			result string
			n      int64
		}{{"set", s.set}, {"already", s.already}, {"resumed", s.resumed}, {"skipped", s.skipped}, {"failed", s.failed}} {
			files = append(files, fmt.Sprintf("{volume=%s,result=\"%s\"} %d", name, f.result, f.n))
		}
	}
	return states, refused, seconds, files
}

// metricValue writes a label's value: text of others could end it, or the line (https://prometheus.io/docs/instrumenting/exposition_formats).
func metricValue(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable.Text(text)) + `"`
}

// writeMetrics puts the file in place in one rename, as the textfile collector wants it.
func (a *app) writeMetrics(name string, r *stages.Readiness, s *stages.Status) error {
	var b strings.Builder
	metricsText(&b, r, s, time.Now())
	return a.writeFile("metrics", name, b.String())
}

// writeFile puts what was made in place, in one rename; - is standard output.
func (a *app) writeFile(what, name, content string) error {
	if name == "-" {
		_, err := io.WriteString(a.stdout, content)
		return err
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", what, err)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", what, err)
	}
	defer root.Close()
	if err := root.WriteFile(abs, []byte(content), hostfs.Attributes{Mode: 0o644}); err != nil {
		return fmt.Errorf("cannot write %s: %w: make the directory, or name another file", what, err)
	}
	return nil
}

// metricsText writes the text format of Prometheus (version 0.0.4).
func metricsText(w io.Writer, r *stages.Readiness, s *stages.Status, now time.Time) {
	number := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	metric := func(name, help string, lines ...string) {
		kind := "gauge"
		if strings.HasSuffix(name, "_total") {
			kind = "counter"
		}
		fmt.Fprintf(w, "# HELP selinux_provision_%s %s\n# TYPE selinux_provision_%s %s\n", name, help, name, kind)
		for _, line := range lines {
			fmt.Fprintf(w, "selinux_provision_%s%s\n", name, line)
		}
	}
	value := func(v any) string { return fmt.Sprintf(" %v", v) }
	var verdicts, checks []string
	for _, v := range []stages.Verdict{stages.Ready, stages.NotEnough, stages.NotReady} {
		verdicts = append(verdicts, fmt.Sprintf("{verdict=\"%s\"} %d", v, number(r.Verdict == v)))
	}
	for _, c := range r.Checks {
		checks = append(checks, fmt.Sprintf("{check=%s} %d", metricValue(c.Name), number(c.Verdict == stages.Ready)))
	}
	metric("readiness", "Whether the host may enforce: 1 for the verdict that holds.", verdicts...)
	metric("readiness_check", "1 if a check speaks for enforcing, 0 if it speaks against it.", checks...)
	metric("enforcing", "1 if the kernel enforces now.", value(number(r.Enforcing)))
	metric("evidence_seconds", "Time for which the host was observed without a gap.", value(r.Covered.Seconds()))
	metric("evidence_window_seconds", "Time for which it has to be observed.", value(r.Window.Seconds()))
	metric("evidence_boots", "Boots in that time.", value(r.Boots))
	metric("evidence_lost_records", "Audit records that were lost in that time.", value(r.Lost))
	metric("denied_accesses", "Accesses in that time that enforcing would stop.", value(r.DenialCount()))
	metric("denied_findings", "Kinds of such accesses, as selinux-provision denials shows them.", value(len(r.Denials)))
	metric("as_declared", "1 if status finds nothing wrong.", value(number(s.AsDeclared)))
	metric("problems", "What status finds wrong.", value(len(s.Problems)))
	metric("mode_file_foreign", "1 if somebody else keeps changing the mode in /etc/selinux/config, and it is left alone.", value(number(s.Mode.Foreign != nil)))
	var again []string
	for _, t := range s.DomainTrials {
		again = append(again, fmt.Sprintf("{domain=%s} %d", metricValue(t.Domain), number(t.Phase == stages.TrialFailed)))
	}
	metric("domain_permissive_again", "1 for a domain that the guard made permissive again, 0 for one that is on trial.", again...)
	if c := s.Cache; c != nil {
		metric("avc_cache_threshold", "Entries above which the kernel's cache of decisions gives up some for each that is new.", value(c.Threshold))
		if c.Stats != nil {
			metric("avc_cache_entries", "Entries in that cache.", value(c.Stats.Entries))
			metric("avc_cache_lookups_total", "Decisions that were asked for since the boot.", value(c.Stats.Lookups))
			metric("avc_cache_misses_total", "Those of them that were not in the cache.", value(c.Stats.Misses))
			metric("avc_cache_reclaims_total", "Entries that had to go to make room for others.", value(c.Stats.Reclaims))
		}
	}
	states, refused, seconds, files := volumeMetrics(s.Volumes)
	metric("volumes", "Volumes that are declared, by what became of them.", states...)
	metric("volumes_refused", "Volumes that keep the label that they have, by the reason's code.", refused...)
	metric("volume_relabel_seconds", "Time that the last relabelling of a mounted volume took.", seconds...)
	metric("volume_relabel_files", "Files that it met, by what was done to them.", files...)
	metric("readiness_timestamp_seconds", "When this was found out.", value(now.Unix()))
}

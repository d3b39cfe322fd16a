// Package report writes the answer of readiness as one page for those who decide: what was watched, what was denied and when, what is left to do and what
// nobody knows. For one host, or for a fleet from the JSON of its hosts.
//
// The page is whole in itself: no script, nothing from elsewhere, so that it can be sent and printed. Its time is UTC, for it is read where the host is not. Do
// not use it for a terminal: the command prints the same there.
package report

import (
	_ "embed" // the page's style
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/stages"
)

//go:embed style.css
var style string

// Node is the answer of one host.
type Node struct {
	Node string `json:"node"` // its name
	stages.Readiness
}

// maxAnswer bounds what is read of one host's answer.
const maxAnswer = 64 << 20

// Read reads what "selinux-provision readiness --json" printed on a host; name stands in for that of the host where the answer has none.
func Read(in io.Reader, name string) (*Node, error) {
	content, err := io.ReadAll(io.LimitReader(in, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	n := &Node{Node: name}
	switch err := json.Unmarshal(content, n); {
	case len(content) > maxAnswer:
		return nil, fmt.Errorf("it has more than %d MB", maxAnswer>>20)
	case err != nil:
		return nil, fmt.Errorf("it is not what selinux-provision readiness --json prints: %w", err)
	case !slices.Contains([]stages.Verdict{stages.Ready, stages.NotEnough, stages.NotReady}, n.Verdict):
		return nil, errors.New("it is not what selinux-provision readiness --json prints: it has no verdict")
	case n.Timeline != nil && !n.Timeline.Valid():
		return nil, errors.New("its timeline is damaged")
	}
	for _, f := range n.findings() {
		if f == nil {
			return nil, errors.New("a finding in it is empty")
		}
	}
	return n, nil
}

// findings gives all, also those that are set apart.
func (n *Node) findings() []*judge.Finding {
	all := slices.Clone(n.Denials)
	for _, a := range n.Apart {
		all = append(all, a.Finding)
	}
	return all
}

// Write writes the page. Of several hosts the one that is worst off comes first.
func Write(w io.Writer, nodes []*Node, version string) error {
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b *Node) int {
		if c := gravity(b.Verdict) - gravity(a.Verdict); c != 0 {
			return c
		}
		return strings.Compare(a.Node, b.Node)
	})
	p := &page{}
	p.b.WriteString("<!DOCTYPE html>\n")
	title := "May it enforce SELinux? " + nodes[0].Node
	if len(nodes) > 1 {
		title = fmt.Sprintf("May they enforce SELinux? %d hosts", len(nodes))
	}
	p.open("html", attribute{"lang", "en"})
	p.in("head", nil, func() {
		p.void("meta", attribute{"charset", "utf-8"})
		p.void("meta", attribute{"http-equiv", "Content-Security-Policy"}, attribute{"content", "default-src 'none'; style-src 'unsafe-inline'"})
		p.void("meta", attribute{"name", "viewport"}, attribute{"content", "width=device-width, initial-scale=1"})
		p.element("title", title)
		p.b.WriteString("<style>" + style + "</style>")
	})
	p.in("body", nil, func() {
		p.in("main", nil, func() {
			if len(nodes) == 1 {
				p.node(nodes[0])
			} else {
				p.fleet(nodes)
			}
		})
		p.element("p", "Made by selinux-provision "+version+" from its own answer, "+clock(newest(nodes))+". All times are UTC.", class("quiet"))
	})
	p.close("html")
	_, err := io.WriteString(w, p.b.String())
	return err
}

func newest(nodes []*Node) (at time.Time) {
	for _, n := range nodes {
		if n.At.After(at) {
			at = n.At
		}
	}
	return at
}

func gravity(v stages.Verdict) int {
	return slices.Index([]stages.Verdict{stages.Ready, stages.NotEnough, stages.NotReady}, v)
}

// badge gives what tells a verdict without its colour, and the class that has it.
func badge(v stages.Verdict) (sign string, name word) {
	switch v {
	case stages.Ready:
		return "✓", "good"
	case stages.NotReady:
		return "✗", "bad"
	}
	return "?", "open"
}

// sentence is the verdict on one host.
func (n *Node) sentence() string {
	name := n.Node
	if name == "" {
		name = "This host"
	}
	var text string
	switch n.Verdict {
	case stages.Ready:
		text = fmt.Sprintf("%s is ready to enforce: in %s and %s nothing was denied that enforcing would stop.", name, span(n.Covered), many(uint64(max(0, n.Boots)), "boot"))
	case stages.NotReady:
		text = name + " is not ready to enforce: " + n.reason() + "."
	default:
		text = "Whether " + name + " may enforce is not known yet: " + n.reason() + "."
	}
	if n.Enforcing {
		text += " It enforces already."
	}
	return text
}

// reason is the gravest thing that speaks against enforcing, in few words.
func (n *Node) reason() string {
	against := n.Against()
	if len(against) == 0 {
		return "no reason is given"
	}
	text := against[0].Found
	if against[0].Name == "denials" && len(n.Denials) > 0 {
		text = fmt.Sprintf("enforcing would stop what %s", many(uint64(len(stopped(n.Denials))), "workload")+" did")
	}
	if more := len(against) - 1; more > 0 {
		text += fmt.Sprintf("; and %s more", many(uint64(more), "reason"))
	}
	return text
}

func (p *page) verdict(level word, v stages.Verdict, sentence string) {
	sign, name := badge(v)
	p.in("div", []attribute{class("verdict " + name)}, func() {
		p.in(level, []attribute{class(name)}, func() {
			p.element("b", sign+" ")
			p.text(sentence)
		})
	})
}

// node is the page of one host.
func (p *page) node(n *Node) {
	p.verdict("h1", n.Verdict, n.sentence())
	p.watched(n)
	p.element("h2", "Denials over time")
	if n.Timeline == nil {
		p.element("p", "When accesses were denied is not in this answer.", class("quiet"))
	} else {
		p.picture(n.Timeline, n.Since, n.History, n.TimelineGap)
	}
	p.today(stopped(n.Denials))
	p.left([]*Node{n})
	p.kubernetes(n)
	p.unknown(n)
}

// watched says what was watched and how long.
func (p *page) watched(n *Node) {
	p.element("h2", "What was watched")
	p.in("dl", nil, func() {
		say := func(name, text string) {
			p.element("dt", name)
			p.element("dd", text)
		}
		if n.Since.IsZero() {
			say("evidence", "none is collected")
		} else {
			say("from, until", clock(n.Since)+" to "+clock(n.At))
			say("host was up", fmt.Sprintf("%s of the %s that are wanted, in %s", span(n.Covered), span(n.Window), many(uint64(max(0, n.Boots)), "boot")))
		}
		say("lost", many(n.Lost, "audit record"))
		for _, w := range n.Workloads {
			if w.Seen.IsZero() {
				say(w.Name, "never seen running")
			} else {
				say(w.Name, "last seen running "+clock(w.Seen))
			}
		}
		if len(n.Workloads) == 0 {
			say("workloads", "none is declared")
		}
	})
}

// act is what enforcing would stop of one workload.
type act struct {
	who   string
	count uint64
	what  []string
}

// stopped gives what enforcing would stop, by workload, most first.
func stopped(findings []*judge.Finding) (all []act) {
	for _, f := range findings {
		who := whose(f)
		at := slices.IndexFunc(all, func(a act) bool { return a.who == who })
		if at < 0 {
			at, all = len(all), append(all, act{who: who})
		}
		all[at].count += f.Count
		if what := denied(f); !slices.Contains(all[at].what, what) {
			all[at].what = append(all[at].what, what)
		}
	}
	slices.SortStableFunc(all, func(a, b act) int {
		switch {
		case a.count > b.count:
			return -1
		case a.count < b.count:
			return 1
		}
		return 0
	})
	return all
}

func whose(f *judge.Finding) string {
	if s := f.Subject.String(); s != "" {
		return s
	}
	return "processes of " + f.Domain
}

// denied says what was denied, without whom.
func denied(f *judge.Finding) string {
	on := f.Class
	if f.Path != "" {
		on += " " + f.Path
	} else if f.Name != "" {
		on += " " + f.Name
	}
	return strings.Join(f.PermissionList(), ", ") + " on " + on + " (" + f.Target + ")"
}

// today says what enforcing would stop if it was switched on now.
func (p *page) today(all []act) {
	p.element("h2", "What enforcing would stop today")
	if len(all) == 0 {
		p.element("p", "Nothing that was seen.")
		return
	}
	p.in("ul", nil, func() {
		for _, a := range all {
			what := strings.Join(a.what[:min(3, len(a.what))], "; ")
			if more := len(a.what) - 3; more > 0 {
				what += fmt.Sprintf("; and %d more", more)
			}
			p.open("li")
			p.element("strong", a.who)
			p.text(": " + many(a.count, "access") + ": " + what)
			p.close("li")
		}
	})
}

// open is a finding that is left, on the hosts that have it.
type open struct {
	*judge.Finding
	count uint64
	nodes []string
}

// same tells whether one fix helps with both.
func (o *open) same(f *judge.Finding) bool {
	return o.ID == f.ID && whose(o.Finding) == whose(f) && o.Fix.Text == f.Fix.Text
}

// left lists what is to be done: findings with their fixes, and what else speaks against enforcing.
func (p *page) left(nodes []*Node) {
	p.element("h2", "What is left to do")
	var findings []*open
	for _, n := range nodes {
		for _, f := range n.Denials {
			at := slices.IndexFunc(findings, func(o *open) bool { return o.same(f) })
			if at < 0 {
				at, findings = len(findings), append(findings, &open{Finding: f})
			}
			o := findings[at]
			o.count += f.Count
			if !slices.Contains(o.nodes, n.Node) {
				o.nodes = append(o.nodes, n.Node)
			}
		}
	}
	for _, o := range findings {
		p.finding(o, len(nodes) > 1)
	}
	if len(nodes) > 1 {
		if len(findings) == 0 {
			p.element("p", "No finding is left. What else is missing stands with each host.")
		}
		return
	}
	p.checks(nodes[0])
}

// checks lists what speaks against enforcing beside denials.
func (p *page) checks(n *Node) {
	against := slices.DeleteFunc(n.Against(), func(c stages.Check) bool { return c.Name == "denials" && len(n.Denials) > 0 })
	if len(against) == 0 {
		if len(n.Denials) == 0 {
			p.element("p", "Nothing.")
		}
		return
	}
	p.in("ul", nil, func() {
		for _, c := range against {
			p.open("li")
			p.element("strong", c.Name)
			p.text(": " + c.Found)
			if c.Remedy != "" {
				p.void("br")
				p.text("To do: " + c.Remedy)
			}
			p.close("li")
		}
	})
}

func (p *page) finding(o *open, fleet bool) {
	p.in("div", []attribute{class("finding")}, func() {
		p.element("h3", o.ID+": "+whose(o.Finding))
		p.element("p", many(o.count, "access")+": "+denied(o.Finding)+"; the last "+clock(o.Last))
		if fleet {
			p.element("p", "On "+some(o.nodes)+".")
		}
		p.element("p", "To do: "+o.Fix.Text)
		p.lines(o.Fix.Config)
		p.lines(o.Fix.Command)
		if o.Fix.Also != "" {
			p.element("p", o.Fix.Also, class("quiet"))
		}
	})
}

// lines is a text of several lines that somebody copies.
func (p *page) lines(text string) {
	if text == "" {
		return
	}
	p.open("pre")
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			p.b.WriteString("\n")
		}
		p.text(line)
	}
	p.close("pre")
}

// some names the first few of many.
func some(names []string) string {
	const few = 10
	if len(names) > few {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}

// kubernetes says which pods do not start where the kubelet mounts volumes with a label.
func (p *page) kubernetes(n *Node) {
	if n.SELinuxMount == nil || len(n.SELinuxMount.Conflicts) == 0 {
		return
	}
	p.element("h2", "Kubernetes 1.37, which is no part of the verdict")
	p.element("p", n.SELinuxMount.Headline()+".")
	p.in("ul", nil, func() {
		for _, c := range n.SELinuxMount.Conflicts {
			p.open("li")
			p.text(c.String())
			p.void("br")
			p.text("To do: " + c.Remedy)
			p.close("li")
		}
	})
}

// unknown says what the evidence cannot tell.
func (p *page) unknown(n *Node) {
	p.element("h2", "What is not known")
	p.in("ul", nil, func() {
		for _, c := range n.Checks {
			if c.Verdict == stages.NotEnough {
				p.element("li", c.Found)
			}
		}
		for _, u := range n.Unconfined {
			p.element("li", "Of "+u.String()+" nothing follows: the policy does not confine it, so that nothing it does is denied.")
		}
		for _, a := range n.Apart {
			p.element("li", "Set apart: "+stages.Describe(a.Finding)+". "+a.Why+".")
		}
		p.element("li", "What did not happen while the host was watched: a job that runs once a month, a failure that nobody had, a workload that is not here yet.")
		p.element("li", "What comes after a first denial that enforcing stops: a program that goes on otherwise then may ask for other things.")
	})
}

// fleet is the page of several hosts.
func (p *page) fleet(nodes []*Node) {
	count := map[stages.Verdict]int{}
	var timelines []*avc.Timeline
	var names []string
	var all []*judge.Finding
	var gaps []string
	for _, n := range nodes {
		count[n.Verdict]++
		all = append(all, n.Denials...)
		if n.Timeline != nil {
			timelines, names = append(timelines, n.Timeline), append(names, n.Node)
			if n.TimelineGap != "" {
				gaps = append(gaps, n.Node)
			}
		}
	}
	worst := nodes[0].Verdict // the first is the worst
	sentence := fmt.Sprintf("All %d hosts are ready to enforce.", len(nodes))
	if worst != stages.Ready {
		sentence = fmt.Sprintf("%d of %d hosts are ready to enforce. Not ready: %d. Not known yet: %d.", count[stages.Ready], len(nodes), count[stages.NotReady], count[stages.NotEnough])
	}
	p.verdict("h1", worst, sentence)
	p.element("h2", "The hosts")
	p.hosts(nodes)
	p.element("h2", "Denials over time")
	if len(timelines) == 0 {
		p.element("p", "When accesses were denied is not in these answers.", class("quiet"))
	} else {
		gap := ""
		if len(gaps) > 0 {
			gap = "the logs of " + some(gaps) + " begin later"
		}
		p.element("h3", "By host")
		p.picture(avc.JoinTimelines(timelines, func(i int, _ string) string { return names[i] }), time.Time{}, nil, gap)
		p.element("h3", "By workload, on all hosts")
		p.picture(avc.JoinTimelines(timelines, func(_ int, workload string) string { return workload }), time.Time{}, nil, gap)
	}
	p.today(stopped(all))
	p.left(nodes)
	for _, n := range nodes {
		p.in("section", []attribute{class("node")}, func() {
			p.verdict("h2", n.Verdict, n.sentence())
			p.watched(n)
			if n.Timeline != nil && (len(n.Timeline.Lines) > 0 || len(n.History) > 0) {
				p.picture(n.Timeline, n.Since, n.History, n.TimelineGap)
			}
			p.element("h3", "Left to do on this host alone")
			p.checks(n)
			p.kubernetes(n)
			p.unknown(n)
		})
	}
}

// hosts is the table of all.
func (p *page) hosts(nodes []*Node) {
	p.open("table")
	head := []string{"host", "verdict", "watched", "denials", "what is against it"}
	p.in("thead", nil, func() {
		p.in("tr", nil, func() {
			for _, h := range head {
				p.element("th", h)
			}
		})
	})
	p.in("tbody", nil, func() {
		for _, n := range nodes {
			sign, name := badge(n.Verdict)
			todo := ""
			if against := n.Against(); len(against) > 0 {
				todo = printable.Clip(against[0].Found, 160)
			}
			watched := span(n.Covered) + ", " + many(uint64(max(0, n.Boots)), "boot")
			p.in("tr", nil, func() {
				p.element("td", n.Node, attribute{"data-head", head[0]})
				p.in("td", []attribute{class(name), {"data-head", head[1]}}, func() {
					p.element("b", sign+" ")
					p.text(string(n.Verdict))
				})
				p.element("td", watched, attribute{"data-head", head[2]})
				p.element("td", fmt.Sprint(n.DenialCount()), attribute{"data-head", head[3]})
				p.element("td", todo, attribute{"data-head", head[4]})
			})
		}
	})
	p.close("table")
}

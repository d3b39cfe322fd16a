package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/stages"
)

// hostile is text as an attacker would write it who may choose the name of a process, a file or a container.
const hostile = "</style><script src=//evil.example/x.js>alert(1)</script><img onerror='x' src=\"y\">&amp;\x1b[31m\u202e\x00]]>--><a href=\"https://evil.example\">\xff\nnext"

func start() time.Time { return time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC) }

// example is a host for a name, of which everything that a host can choose is text.
func example(name, text string) *Node {
	at := func(hours int) time.Time { return start().Add(time.Duration(hours) * time.Hour) }
	subject := avc.Subject{Container: "collector" + text, Pod: "logging/fluent" + text, Runtime: "containerd"}
	finding := func(id string, count uint64, fix judge.Fix) *judge.Finding {
		return &judge.Finding{ID: id, Fix: fix, Group: avc.Group{Subject: subject, Type: avc.TypeAVC, Domain: "container_t", Target: "container_log_t" + text, Class: "file",
			Path: "/var/log/pods/" + text, Permissions: map[string]uint64{"read": count, "open" + text: 1}, Count: count, First: at(20), Last: at(60), Comm: text, Exe: text}}
	}
	counts := make([]uint64, 36)
	for i := range 20 {
		counts[i] = uint64(40 - 2*i)
	}
	few := make([]uint64, 36)
	few[30], few[33] = 1, 2
	return &Node{Node: name, Readiness: stages.Readiness{
		Verdict: stages.NotReady, Since: at(48), Covered: 24*time.Hour + 10*time.Minute, Window: 24 * time.Hour, Boots: 2, Lost: 1, At: at(72),
		Checks: []stages.Check{
			{Name: "denials", Verdict: stages.NotReady, Found: "enforcing would stop 3 accesses: " + text, Remedy: "run selinux-provision denials"},
			{Name: "volumes", Verdict: stages.NotReady, Found: "volumes without a label are mounted: /srv/" + text, Remedy: "declare them under volumes"},
			{Name: "lost", Verdict: stages.NotEnough, Found: "1 audit record was lost " + text, Remedy: "make the queue longer"},
			{Name: "store", Verdict: stages.Ready, Found: "the policy store is as declared"},
		},
		Workloads:  []stages.Watched{{Name: "unit docker.service", Seen: at(72)}, {Name: "container " + text}},
		Unconfined: []stages.Unconfined{{Container: "agent" + text, Domain: "spc_t", Why: "it may do everything"}},
		Denials: []*judge.Finding{
			finding("4f1c09", 3, judge.Fix{Kind: judge.Domain, Text: "Run it in container_logreader_t " + text, Config: "# for the pod\nseLinuxOptions:\n  type: container_logreader_t # " + text, Also: "Mind " + text}),
			finding("77aa01", 1, judge.Fix{Kind: judge.Rule, Text: "Write a module", Command: "selinux-provision denials --module collector --only 77aa01"}),
		},
		Apart: []stages.SetApart{{Why: "readiness.accept has it", Finding: finding("0a1b2c", 9, judge.Fix{})}},
		SELinuxMount: &stages.SELinuxMount{Mounts: stages.MountsBare, Because: "it is v1.36.3 " + text, Conflicts: []stages.VolumeConflict{{
			Volume: "pv" + text, Driver: "csi.example.com" + text, Labels: stages.LabelsDiffer, Effect: "they do not start beside each other " + text, Unless: []string{text}, Remedy: "give them one level " + text,
			Pods: []stages.VolumePod{{Pod: "default/a" + text, Asked: stages.AskedLevel, Level: "s0" + text}, {Pod: "default/b", Asked: stages.Asked(text)}},
		}}},
		History: []stages.Change{
			{Time: at(2), Kind: "setting", Name: "mode", Change: "declared", Value: "permissive"}, {Time: at(26), Kind: "module", Name: "web" + text, Change: "declared"},
			{Time: at(26), Kind: "label", Name: "/srv/data(/.*)?" + text, Change: "declared", Value: "system_u:object_r:container_file_t:s0"},
			{Time: at(40), Kind: "boolean", Name: "container_use_nfs", Change: "changed", Value: "true"},
		},
		Timeline: &avc.Timeline{From: start(), Step: 2 * time.Hour, Parts: 36, Lines: []avc.TimelineLine{
			{Workload: "container shop/web-7d9f8b6c5d-x2x1z/app" + text, Counts: counts, Count: 420, Last: at(39)}, {Workload: "container logging/fluent/collector" + text, Counts: few, Count: 3, Last: at(67)}}},
		TimelineGap: "the journal begins only at " + text,
	}}
}

// ready is a host with nothing to say against it.
func ready(name string) *Node {
	return &Node{Node: name, Readiness: stages.Readiness{Verdict: stages.Ready, Since: start(), At: start().Add(30 * time.Hour), Covered: 30 * time.Hour, Window: 24 * time.Hour, Boots: 3,
		Checks:    []stages.Check{{Name: "window", Verdict: stages.Ready, Found: "observed for 30h"}},
		Workloads: []stages.Watched{{Name: "unit docker.service", Seen: start().Add(29 * time.Hour)}},
		Timeline:  avc.NewTimeline(start(), start().Add(30*time.Hour), avc.Nobody{}).Timeline()}}
}

func pages(t *testing.T) map[string]string {
	t.Helper()
	enough := ready("young")
	enough.Verdict, enough.Timeline, enough.Since, enough.Workloads = stages.NotEnough, nil, time.Time{}, nil
	enough.Checks = []stages.Check{{Name: "evidence", Verdict: stages.NotEnough, Found: "nothing is observed", Remedy: "declare readiness"}}
	all := map[string]string{}
	for name, nodes := range map[string][]*Node{
		"not ready": {example("node1", "")}, "hostile": {example("node"+hostile, hostile)}, "ready": {ready("node2")}, "not enough": {enough}, "empty": {{}},
		"fleet": {ready("b"), example("c", ""), enough, ready("a")}, "hostile fleet": {example(hostile, hostile), example("other", hostile)}, "ready fleet": {ready("a"), ready("b")},
	} {
		var b strings.Builder
		if err := Write(&b, nodes, "1.2.3"); err != nil {
			t.Fatal(err)
		}
		all[name] = b.String()
	}
	return all
}

// A page is well-formed and has nothing that runs or comes from elsewhere, whatever a host calls things.
func TestPageIsWhole(t *testing.T) {
	allowed := regexp.MustCompile(`^(html|head|meta|title|style|body|main|section|div|h[1-3]|p|b|strong|small|span|ul|ol|li|dl|dt|dd|pre|br|table|thead|tbody|tr|th|td|figure|figcaption|svg|rect|line)$`)
	attributes := regexp.MustCompile(`^(lang|charset|http-equiv|content|name|class|style|role|aria-label|viewBox|preserveAspectRatio|x|y|x1|x2|y1|y2|width|height|data-head)$`)
	for name, text := range pages(t) {
		t.Run(name, func(t *testing.T) {
			d := xml.NewDecoder(strings.NewReader(text))
			depth := 0
			for {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				switch v := token.(type) {
				case xml.StartElement:
					depth++
					if !allowed.MatchString(v.Name.Local) {
						t.Errorf("there is an element %s", v.Name.Local)
					}
					for _, a := range v.Attr {
						if !attributes.MatchString(a.Name.Local) {
							t.Errorf("there is an attribute %s", a.Name.Local)
						}
						if a.Name.Local == "style" && !regexp.MustCompile(`^left:[0-9.]+%$`).MatchString(a.Value) {
							t.Errorf("there is a style %s", a.Value)
						}
					}
				case xml.EndElement:
					depth--
				}
			}
			if depth != 0 {
				t.Errorf("%d elements are not closed", depth)
			}
			if strings.ContainsAny(text, "\x00\x1b\u202e") || strings.Contains(text, "url(") || strings.Contains(text, "@import") {
				t.Error("there are control characters, or something is fetched")
			}
		})
	}
}

// What a reader must find is there.
func TestPageSays(t *testing.T) {
	all := pages(t)
	for name, want := range map[string][]string{
		"not ready": {
			"node1 is not ready to enforce: enforcing would stop what 1 workload did; and 2 reasons more.", "1 day and 10 minutes of the 1 day that are wanted, in 2 boots", "1 audit record<",
			"last seen running 2026-03-04 06:00", "never seen running", "4f1c09: container logging/fluent/collector", "Run it in container_logreader_t", "type: container_logreader_t",
			"selinux-provision denials --module collector --only 77aa01", "volumes without a label are mounted", "declare them under volumes", "4 accesses: ",
			"boolean container_use_nfs = true: changed", "module web: declared", "label /srv/data(/.*)? as system_u:object_r:container_file_t:s0: declared", "420 denials, the last 2026-03-02 21:00",
			"readiness.accept has it", "the policy does not confine it", "The grey part is before 2026-03-03 06:00", "The beginning may be missing",
		},
		"ready":       {"node2 is ready to enforce: in 1 day and 6 hours and 3 boots nothing was denied that enforcing would stop.", "nothing was denied", "Nothing that was seen."},
		"not enough":  {"Whether young may enforce is not known yet: nothing is observed.", "none is collected", "declare readiness"},
		"fleet":       {"2 of 4 hosts are ready to enforce. Not ready: 1. Not known yet: 1.", "By host", "On c.", "not enough evidence"},
		"ready fleet": {"All 2 hosts are ready to enforce.", "No finding is left."},
		"hostile":     {"&lt;script src=//evil.example/x.js&gt;", `\x1b[31m\u202e\x00`, `\xff\nnext`},
	} {
		for _, w := range want {
			if !strings.Contains(all[name], w) {
				t.Errorf("%s: %q is missing", name, w)
			}
		}
	}
	// The worst comes first.
	if text := all["fleet"]; strings.Index(text, ">c<") > strings.Index(text, ">young<") || strings.Index(text, ">young<") > strings.Index(text, ">a<") {
		t.Error("the hosts of the fleet are not in order")
	}
}

// Text can be read on what is behind it, in both schemes: WCAG 2.1 wants 4.5 to 1.
func TestContrast(t *testing.T) {
	light := regexp.MustCompile(`:root\{color-scheme[^}]*\}`).FindString(style)
	dark := regexp.MustCompile(`dark\)\{:root\{[^}]*\}`).FindString(style)
	for scheme, rule := range map[string]string{"light": light, "dark": dark} {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z]+):#([0-9a-f]{6})`).FindAllStringSubmatch(rule, -1) {
			colour[m[1]] = luminance(t, m[2])
		}
		for _, pair := range [][2]string{{"ink", "paper"}, {"quiet", "paper"}, {"ink", "wash"}, {"good", "paper"}, {"open", "paper"}, {"bad", "paper"}, {"bar", "paper"}, {"bar", "wash"}} {
			a, b := colour[pair[0]], colour[pair[1]]
			if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < 4.5 || len(colour) != 9 {
				t.Errorf("%s: %s on %s has a contrast of %.1f", scheme, pair[0], pair[1], ratio)
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c > .04045 {
			return math.Pow((c+.055)/1.055, 2.4)
		}
		return c / 12.92
	}
	return .2126*linear(16) + .7152*linear(8) + .0722*linear(0)
}

// What the command prints on a host is read for the page of a fleet.
func TestRead(t *testing.T) {
	want := example("node\x1b", strings.ToValidUTF8(hostile, "")) // what is not UTF-8 does not come through JSON
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(strings.NewReader(string(text)), "file")
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(got)
	if err != nil || string(again) != string(text) || !reflect.DeepEqual(got.History[0], want.History[0]) {
		t.Errorf("%v: something is lost", err)
	}
	if got, err := Read(strings.NewReader(`{"verdict":"ready"}`), "file"); err != nil || got.Node != "file" {
		t.Errorf("%v, %v", got, err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":          {"ready", "is not what selinux-provision readiness --json prints"},
		"another command's": {`{"command":"status","exit":0}`, "no verdict"},
		"a failed call":     {`{"command":"readiness","exit":4,"error":"SELinux is off"}`, "no verdict"},
		"counts":            {`{"verdict":"ready","timeline":{"from":"2026-01-01T00:00:00Z","step_ns":60,"parts":2,"lines":[{"counts":[1]}]}}`, "timeline is damaged"},
		"no step":           {`{"verdict":"ready","timeline":{"parts":2,"lines":[]}}`, "timeline is damaged"},
		"too many parts":    {`{"verdict":"ready","timeline":{"step_ns":60,"parts":200000000,"lines":[]}}`, "timeline is damaged"},
		"empty finding":     {`{"verdict":"ready","denials":[null]}`, "a finding in it is empty"},
		"empty, set apart":  {`{"verdict":"ready","set_apart":[{"why":"x"}]}`, "a finding in it is empty"},
	} {
		if _, err := Read(strings.NewReader(c.text), "file"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever an answer says, the page of it is one.
func FuzzRead(f *testing.F) {
	text, err := json.Marshal(example("node", hostile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(`{"verdict":"ready","at":"9999-12-31T23:59:59Z","since":"0001-01-01T00:00:00Z","covered_ns":-5}`)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Read(strings.NewReader(text), "file")
		if err != nil {
			return
		}
		for _, nodes := range [][]*Node{{n}, {n, ready("b")}} {
			var b strings.Builder
			if err := Write(&b, nodes, "1"); err != nil {
				t.Fatal(err)
			}
			d := xml.NewDecoder(strings.NewReader(b.String()))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "1 second", 90 * time.Second: "1 minute and 30 seconds", time.Hour: "1 hour", 25 * time.Hour: "1 day and 1 hour", 49*time.Hour + 5*time.Minute: "2 days and 1 hour and 5 minutes",
		40*time.Hour*24 + time.Hour: "40 days", 11*time.Hour + 20*time.Second: "11 hours",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

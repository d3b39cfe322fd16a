package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/stages"
	"github.com/selinux-provision/selinux-provision/stages/report"
)

// oneTruth is how a command is held to say the same to a person and to a program.
type oneTruth struct {
	// args gives the call, and the directory that is a new one in each call.
	args func(t *testing.T) (args []string, dir string)
	// code is the exit code that it is to end with, so that no row compares two failures by mistake.
	code int
	// same compares what a person reads, on both outputs, with the object.
	same func(t *testing.T, text string, object []byte)
	// file tells that it prints a file, which it does with --json as well.
	file bool
	// metrics holds what it writes for other programs to the same; for commands with --metrics or --features.
	metrics func(t *testing.T)
}

// decode reads the object of a call.
func decode(t *testing.T, object []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(object, into); err != nil {
		t.Fatalf("%v in %s", err, object)
	}
}

// has fails the test unless the text has each part, and times tells how often it has a word.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if part == "" || !strings.Contains(text, part) {
			t.Errorf("there is no %q in\n%s", part, text)
		}
	}
}

// sameResults compares the results of stages with the lines of each.
func sameResults(t *testing.T, text string, object []byte) {
	t.Helper()
	var r struct{ Results []stages.Result }
	decode(t, object, &r)
	if len(r.Results) == 0 {
		t.Error("no results")
	}
	want := 0
	for _, result := range r.Results {
		for _, step := range result.Done {
			step.Elapsed = 0 // another run took another time
			line, _, _ := strings.Cut(stepLine(step), " (semodule ran ")
			has(t, text, "\n"+result.Stage+": "+line)
			want++
			if step.Action == "rebuild" {
				want++ // its beginning
			}
		}
		for _, step := range result.Planned {
			has(t, text, "\n"+result.Stage+": would "+step.Action+" "+step.Target)
			want++
		}
		for _, p := range result.Problems {
			has(t, text, "\n"+result.Stage+": "+oneLine(p.Problem))
			want++
		}
		switch {
		case result.Outcome == stages.Failed, result.Outcome == stages.Skipped:
			has(t, text, "\n"+result.Stage+": "+oneLine(result.Error))
			want++
		case result.Outcome != stages.Planned:
			has(t, text, "\n"+result.Stage+": "+summary(result))
			want++
		}
	}
	if lines := strings.Count(text, "\n") - 1; lines != want {
		t.Errorf("%d lines for %d things that the object has:\n%s", lines, want, text)
	}
}

// truths has a row for each command.
func truths(t *testing.T) map[string]oneTruth {
	base := flatcartest.New(t, flatcartest.Today)
	base.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: enforcing\naudit: {log_denials: true}\n")
	base.Write("etc/selinux-provision/modules/good.cil", "(type good_t)\n")
	base.Write("etc/selinux-provision/modules/bad.cil", "(allow nobody_t etc_t (file (read)))\n")
	base.Write("var/log/audit/audit.log", numbered(logDenial, "1")+numbered(nfsDenial, "2"))
	tree := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(base.Dir)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	on := func(args ...string) func(*testing.T) ([]string, string) {
		return func(t *testing.T) ([]string, string) {
			dir := tree(t)
			return append([]string{"--root", dir}, args...), dir
		}
	}
	// in calls it with a directory that has a file in it.
	in := func(name, content string, args ...string) func(*testing.T) ([]string, string) {
		return func(t *testing.T) ([]string, string) {
			dir := t.TempDir()
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, arg := range args {
				all = append(all, strings.ReplaceAll(arg, "DIR", dir))
			}
			return all, dir
		}
	}
	node, err := json.Marshal(&report.Node{Node: "worker-1", Readiness: *someReadiness()})
	if err != nil {
		t.Fatal(err)
	}
	failure := func(t *testing.T, _ string, object []byte) { // the error was compared
		var r reply
		if decode(t, object, &r); r.Error == "" {
			t.Errorf("no error: %s", object)
		}
	}
	return map[string]oneTruth{
		"apply":  {args: on("apply"), code: exitPartly, same: sameResults},
		"stage":  {args: on("stage", "policystore"), code: exitDone, same: sameResults},
		"revert": {args: on("revert", "--dry-run"), code: exitDone, same: sameResults},
		"status": {args: on("status"), code: exitPartly, same: sameStatus},
		"version": {args: on("version"), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct{ Version, Go string }
			decode(t, object, &r)
			has(t, text, "selinux-provision "+r.Version+" ("+r.Go+")")
		}},
		"check": {args: in("config.yaml", "version: 1\nmode: enforcin\ncolour: red\n", "check", "DIR/config.yaml"), code: exitUsage, same: func(t *testing.T, text string, object []byte) {
			var r struct {
				Files []struct {
					File     string
					Findings []struct {
						File, Key, Problem, Remedy string
						Line                       int
					}
				}
			}
			decode(t, object, &r)
			found := 0
			for _, file := range r.Files {
				for _, f := range file.Findings {
					found++
					has(t, text, fmt.Sprintf("%s:%d: %s: %s: %s\n", f.File, f.Line, f.Key, f.Problem, f.Remedy))
				}
			}
			has(t, text, count(found, "problem")+" to correct")
			if found != 2 || strings.Count(text, "\n") != found+2 {
				t.Errorf("%d problems in\n%s", found, text)
			}
		}},
		"render": {args: in("site/config.yaml", "version: 1\nmode: enforcing\n", "render", "--to", "butane", "--from", "DIR/site",
			"--binary", "https://files.example/p", "--hash", "sha256-"+strings.Repeat("ab", 32)), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct{ Content string }
			if decode(t, object, &r); "\n"+r.Content != text {
				t.Errorf("%q, as text %q", r.Content, text)
			}
		}},
		"explain": {args: on("explain", "window"), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct{ Keys []provision.Key }
			decode(t, object, &r)
			for _, k := range r.Keys {
				has(t, text, k.Name+": "+k.Means, "  default: "+k.Default, k.Example)
			}
			if len(r.Keys) != 2 || strings.Count(text, " reads it.") != len(r.Keys) {
				t.Errorf("%d keys in\n%s", len(r.Keys), text)
			}
		}},
		"man": {args: on("man"), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct{ Page string }
			if decode(t, object, &r); "\n"+r.Page != text {
				t.Errorf("%.100q, as text %.100q", r.Page, text)
			}
		}},
		"completion": {args: on("completion", "bash"), code: exitDone, file: true},
		// In detail: TestDenialsAreTheSameAsTextAndAsJSON.
		"denials": {args: on("denials"), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct {
				Findings []struct {
					ID    string
					Count int
				}
			}
			decode(t, object, &r)
			for _, f := range r.Findings {
				has(t, text, fmt.Sprintf("\n%s  %d ", f.ID, f.Count))
			}
			if len(r.Findings) != 2 {
				t.Errorf("%d findings", len(r.Findings))
			}
		}},
		"relabel": {args: in("tree/file", "", "relabel", "DIR/tree", "--context", "system_u:object_r:container_file_t:s0", "--dry-run"), code: exitDone, same: func(t *testing.T, text string, object []byte) {
			var r struct {
				Set     int
				Changes []struct{ Path, From, To string }
			}
			decode(t, object, &r)
			for _, c := range r.Changes {
				has(t, text, "\nwould relabel "+c.Path+" from ", " to "+c.To+"\n")
			}
			has(t, text, fmt.Sprintf(": %d would be labelled\n", r.Set))
			if len(r.Changes) != r.Set || strings.Count(text, "would relabel ") != r.Set {
				t.Errorf("%d changes, %d labels in\n%s", len(r.Changes), r.Set, text)
			}
		}},
		"readiness": {args: in("worker-1.json", string(node), "readiness", "--report", "DIR/page.html", "DIR/worker-1.json"), code: exitPartly,
			metrics: TestReadinessIsTheSameEverywhere, same: func(t *testing.T, text string, object []byte) {
				var r struct{ Hosts []fleetHost }
				decode(t, object, &r)
				for _, h := range r.Hosts {
					has(t, text, fmt.Sprintf("\n%-20s %s\n", h.Verdict, h.Node))
				}
				if len(r.Hosts) != 1 {
					t.Errorf("%+v", r)
				}
			}},
		// What systemd starts has no object when it is done: it writes to the journal.
		"watch":       {args: on("watch"), code: exitUsage, same: failure},
		"guard":       {args: on("guard"), code: exitUsage, same: failure},
		"guard watch": {args: on("guard", "watch"), code: exitDone, file: true},
		"guard end":   {args: on("guard", "end"), code: exitDone, file: true},
		"guard boot":  {args: on("guard", "boot"), code: exitDone, file: true},
		"mount-first": {args: on("mount-first", "/x"), code: exitDone, file: true},
	}
}

// sameStatus compares a status in words with the object.
func sameStatus(t *testing.T, text string, object []byte) {
	t.Helper()
	var s struct {
		AsDeclared bool `json:"as_declared"`
		Problems   []stages.Problem
		Mode       struct{ Running, Declared string }
		Store      struct {
			Kind, Type string
			Generation int
		}
		Stages     []stages.Result
		Modules    []string
		Quarantine []struct{ Name string }
		Volumes    []struct{ Rule, Mountpoint, State, Code string }
	}
	decode(t, object, &s)
	if s.AsDeclared != (len(s.Problems) == 0) || strings.Contains(text, "Everything is as declared.") != s.AsDeclared {
		t.Errorf("as declared: %t, %d problems, in words\n%s", s.AsDeclared, len(s.Problems), text)
	}
	if !s.AsDeclared {
		has(t, text, fmt.Sprintf("NOT as declared, %d to look at:", len(s.Problems)))
	}
	if found := strings.Count(text, "\n  - "); found != len(s.Problems) {
		t.Errorf("%d problems in words, %d in the object", found, len(s.Problems))
	}
	for i, p := range s.Problems {
		has(t, text, "\n  - "+oneLine(p.Problem)+"\n")
		if saysRemedy(s.Problems, i) {
			has(t, text, "\n    -> "+oneLine(p.Remedy)+"\n")
		}
	}
	if s.Mode.Running != "" {
		has(t, text, "\nmode     "+s.Mode.Running)
	}
	if s.Store.Kind != "" {
		has(t, text, "\nstore    "+s.Store.Kind, "type "+s.Store.Type)
	}
	for _, r := range s.Stages {
		state := map[stages.Outcome]string{stages.Unchanged: "as declared", stages.Planned: "would change", stages.Partly: "in part", stages.Failed: "fails", stages.Skipped: "fails"}[r.Outcome]
		found := false
		for line := range strings.Lines(text) {
			found = found || strings.Contains(line, " "+state+" ") && strings.HasSuffix(strings.TrimRight(line, "\n"), " "+r.Stage)
		}
		if !found {
			t.Errorf("no line says that stage %s is %q", r.Stage, state)
		}
	}
	for _, v := range s.Volumes {
		has(t, text, v.State)
	}
}

// For each command, the same run says the same to a person and to a program: exit code, errors, and whatever the row of the command compares.
// A command without a row fails the test.
func TestEveryCommandSaysOneThing(t *testing.T) {
	rows := truths(t)
	seen := map[string]bool{}
	var visit func(prefix string, cmd *cobra.Command)
	visit = func(prefix string, cmd *cobra.Command) {
		name := strings.TrimSpace(prefix + " " + cmd.Name())
		row, known := rows[name]
		if seen[name] = true; cmd.Runnable() && !known {
			t.Errorf("the command %q has no row: say here how its text and its object are the same", name)
		}
		for _, flag := range []string{"metrics", "features"} {
			if cmd.Flags().Lookup(flag) != nil && row.metrics == nil {
				t.Errorf("the command %q has --%s: say here how that is the same as its text", name, flag)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(name, sub)
		}
	}
	for _, cmd := range (&app{}).commands().Commands() {
		visit("", cmd)
	}
	for name, row := range rows {
		if !seen[name] {
			t.Errorf("there is no command %q", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			args, dir := row.args(t)
			text := call(t, args...)
			args, other := row.args(t)
			object := call(t, append([]string{"--json"}, args...)...)
			text.stdout, text.stderr = strings.ReplaceAll(text.stdout, dir, "DIR"), strings.ReplaceAll(text.stderr, dir, "DIR")
			object.stdout, object.stderr = strings.ReplaceAll(object.stdout, other, "DIR"), strings.ReplaceAll(object.stderr, other, "DIR")
			if text.code != row.code || object.code != row.code {
				t.Errorf("exit code %d, with --json %d, want %d\n%s%s%s", text.code, object.code, row.code, text.stdout, text.stderr, object.stdout)
			}
			if row.file {
				if text != object {
					t.Errorf("%+v, with --json %+v", text, object)
				}
				return
			}
			r := object.object(t)
			if !strings.HasPrefix(r.Command+" ", name+" ") {
				t.Errorf("the object is of %q", r.Command)
			}
			for line := range strings.Lines(r.Error) {
				has(t, text.stderr, "selinux-provision: "+strings.TrimSpace(line)+"\n")
			}
			row.same(t, "\n"+text.stdout+text.stderr, []byte(object.stdout))
		})
	}
}

// What status finds is the same as text, as JSON and as metrics, in each of its states.
func TestStatusIsTheSameEverywhere(t *testing.T) {
	problems := []stages.Problem{{Problem: "the policy is stale", Remedy: "run apply"}, {Problem: "a volume is refused", Remedy: "label it"}}
	for n := range len(problems) + 1 {
		for _, foreign := range []*stages.ForeignMode{nil, {}} {
			s := someStatus()
			s.Mode, s.Problems, s.AsDeclared = stages.ModeStatus{Running: "enforcing", Configured: "enforcing", Declared: "enforcing", Foreign: foreign}, problems[:n], n == 0
			s.Store.Kind, s.Store.Type = "writable", "mcs"
			s.Stages = []stages.Result{{Stage: "policystore", Outcome: stages.Unchanged}, {Stage: "policy", Outcome: stages.Partly}, {Stage: "audit", Outcome: stages.Planned}, {Stage: "enforce", Outcome: stages.Failed}}
			var text, metrics strings.Builder
			printStatus(&text, s, func(_, text string) string { return text })
			metricsText(&metrics, &stages.Readiness{}, s, time.Unix(1, 0))
			object, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			sameStatus(t, text.String(), object)

			var r struct {
				AsDeclared bool `json:"as_declared"`
				Problems   []any
				Mode       struct{ Foreign any }
				Volumes    []mountwatch.Volume
				Cache      stages.CacheStatus `json:"avc_cache"`
			}
			decode(t, object, &r)
			states, number1 := map[mountwatch.State]int{}, map[bool]int{true: 1}
			for _, v := range r.Volumes {
				states[v.State]++
			}
			for _, state := range mountwatch.States() {
				has(t, metrics.String(), fmt.Sprintf("volumes{state=%q} %d\n", state, states[state]))
			}
			for what, want := range map[string]int{
				"as_declared": number1[r.AsDeclared], "problems": len(r.Problems), "mode_file_foreign": number1[r.Mode.Foreign != nil],
				"avc_cache_threshold": r.Cache.Threshold, "avc_cache_lookups_total": int(r.Cache.Stats.Lookups), "avc_cache_misses_total": int(r.Cache.Stats.Misses), "avc_cache_reclaims_total": int(r.Cache.Stats.Reclaims),
			} {
				if got := number(t, metrics.String(), `\nselinux_provision_`+what+` (\d+)`); got != want {
					t.Errorf("the metrics have %s %d, the object %d", what, got, want)
				}
			}
			has(t, text.String(), fmt.Sprintf("%d decisions kept", r.Cache.Threshold)[:4], fmt.Sprintf("of %d were not there, and %d had to go", r.Cache.Stats.Lookups, r.Cache.Stats.Reclaims))
		}
	}
}

// What is found after the last stage is in the object as on the screen, and in the exit code of both.
func TestWhatApplyFindsLast(t *testing.T) {
	finish := func(asJSON bool) (string, int) {
		var out strings.Builder
		a := &app{command: "apply", json: asJSON, stdout: &out, stderr: &out}
		a.finish([]stages.Result{{Stage: "policy", Outcome: stages.Unchanged}}, errors.New("volumes may not be labelled"), "the evidence begins later")
		return out.String(), a.code
	}
	text, code := finish(false)
	object, other := finish(true)
	var r struct {
		Exit  int
		Error string
		Notes []string
	}
	decode(t, []byte(object), &r)
	if code != exitPartly || other != code || r.Exit != code || r.Error != "volumes may not be labelled" || len(r.Notes) != 1 {
		t.Errorf("exit code %d, with --json %d: %s", code, other, object)
	}
	has(t, text, "selinux-provision: "+r.Error+"\n", "selinux-provision: "+r.Notes[0]+"\n")
}

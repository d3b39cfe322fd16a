package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/stages"
)

// answer is what one call gave.
type answer struct {
	code           int
	stdout, stderr string
}

func call(t *testing.T, args ...string) answer {
	t.Helper()
	t.Setenv("JOURNAL_STREAM", "") // else the messages go to the journal of the service that runs the tests
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr)
	return answer{code, stdout.String(), stderr.String()}
}

// reply is what every JSON object begins with, and the parts that the tests look at.
type reply struct {
	Command    string          `json:"command"`
	Exit       *int            `json:"exit"`
	Error      string          `json:"error"`
	Results    []stages.Result `json:"results"`
	Version    string          `json:"version"`
	AsDeclared *bool           `json:"as_declared"`
	Problems   []stages.Problem
	Quarantine []struct {
		Name, Kind, From string
		Line             int
	}
}

// object fails the test unless the call printed one JSON object with its exit code, and nothing else.
func (a answer) object(t *testing.T) reply {
	t.Helper()
	var r reply
	in := json.NewDecoder(strings.NewReader(a.stdout))
	if err := in.Decode(&r); err != nil {
		t.Fatalf("standard output is no JSON: %v\n%s", err, a.stdout)
	}
	if err := in.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("there is more than one JSON object, or something behind it (%v):\n%s", err, a.stdout)
	}
	if r.Exit == nil || *r.Exit != a.code {
		t.Errorf("the object does not say the exit code %d:\n%s", a.code, a.stdout)
	}
	if a.stderr != "" {
		t.Errorf("with --json there is on standard error: %s", a.stderr)
	}
	return r
}

// entries lists a tree with all that changes when an entry is touched.
func entries(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprint(st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func unchanged(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s changed %s", what, name)
		}
	}
	for name := range after {
		if before[name] == "" {
			t.Errorf("%s made %s", what, name)
		}
	}
}

// reads fails the test unless the text has each part, and no part of a message twice.
func reads(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: there is no %q in %q", what, part, text)
		}
	}
	for _, twice := range []string{"cannot read", "cannot use", "cannot write", "selinux-provision: selinux-provision:"} {
		for line := range strings.Lines(text) {
			if strings.Count(line, twice) > 1 {
				t.Errorf("%s: %q is there twice in %q", what, twice, line)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args    string
		command string // as the JSON names it
		message string
	}{
		{"aply", "", `there is no command "aply": did you mean apply?`},
		{"xyzzy", "", `there is no command "xyzzy"` + "\n"},
		{"stage", "stage", "cannot run a stage without its name: the stages are policystore, policy, audit, enforce"},
		{"stage polcy", "stage polcy", `there is no stage "polcy": the stages are policystore, policy, audit, enforce`},
		{"stage policystore policy", "stage", `cannot use "policy": give one stage, or run them all with: selinux-provision apply`},
		{"apply now", "apply", `cannot use "now": selinux-provision apply takes no arguments`},
		{"revert all", "revert", `cannot use "all": selinux-provision revert takes no arguments`},
		{"denials audit.log", "denials", `cannot use "audit.log": selinux-provision denials takes no arguments: it reads a file with --input`},
		{"status --bogus", "status", "there is no flag --bogus"},
		{"apply --root", "apply", "cannot use --root without a directory"},
		{"--bogus", "", "there is no flag --bogus"},
		{"--root /does/not/exist status", "status", "cannot use --root: open /does/not/exist: no such file or directory: give the directory of a tree"},
		{"--root " + file + " apply", "apply", "cannot use --root: open " + file + ": not a directory: give the directory of a tree"},
		{"--root= apply", "apply", "cannot use --root: it is empty: give the directory of a tree, or / for the running host"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Fields(c.args)
			got := call(t, args...)
			if got.code != exitUsage || got.stdout != "" {
				t.Errorf("exit code %d, on standard output %q", got.code, got.stdout)
			}
			reads(t, c.args, got.stderr, "selinux-provision: "+c.message)
			if c.command == "" {
				reads(t, c.args, got.stderr, "selinux-provision: Try: selinux-provision --help\n")
			}
			for _, line := range strings.SplitAfter(strings.TrimSuffix(got.stderr, "\n"), "\n") {
				if !strings.HasPrefix(line, "selinux-provision: ") || strings.TrimSpace(strings.TrimPrefix(line, "selinux-provision: ")) == "" {
					t.Errorf("a line of the message is %q", line)
				}
			}
			for _, args := range [][]string{append([]string{"--json"}, args...), append(slices.Clone(args), "--json")} {
				if slices.Equal(args, []string{"apply", "--root", "--json"}) {
					continue // that names a directory
				}
				got := call(t, args...)
				if r := got.object(t); got.code != exitUsage || r.Command != c.command || !strings.Contains(r.Error+"\n", c.message) {
					t.Errorf("%q: exit code %d, command %q, error %q", args, got.code, r.Command, r.Error)
				}
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "apply --help", "stage --help", "help revert"} {
		got := call(t, strings.Fields(args)...)
		if got.code != exitDone || got.stderr != "" {
			t.Errorf("%q: exit code %d, on standard error %q", args, got.code, got.stderr)
		}
		reads(t, args, got.stdout, "Usage:", "selinux-provision")
		for line := range strings.Lines(got.stdout) {
			if len(line) > 130 {
				t.Errorf("%q: a line of %d characters: %s", args, len(line), line)
			}
		}
	}
	for _, c := range (&app{}).commands().Commands() {
		for line := range strings.Lines(c.Long) {
			if len(line) > 130 {
				t.Errorf("%s: a line of %d characters: %s", c.Name(), len(line), line)
			}
		}
	}
	got := call(t, "--help")
	for code := range 7 {
		reads(t, "the help", got.stdout, fmt.Sprintf("%d ", code))
	}
	if got := call(t, "--json"); got.code != exitUsage || got.object(t).Error == "" {
		t.Errorf("JSON of no command: exit code %d", got.code)
	}
}

func TestNotApplicable(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"status", "revert"} {
		got := call(t, "--root", dir, args)
		if got.code != exitNotApplicable || got.stdout != "" {
			t.Errorf("%s: exit code %d, on standard output %q", args, got.code, got.stdout)
		}
		reads(t, args, got.stderr, "selinux-provision: not applicable here: no vendor policy store in /usr/lib/selinux/policy")
		if got := call(t, "--root", dir, "--json", args); got.code != exitNotApplicable || got.object(t).Error == "" {
			t.Errorf("%s: exit code %d", args, got.code)
		}
	}
	if got := call(t, "--root", dir, "apply"); got.code != exitNotApplicable {
		t.Errorf("apply: exit code %d\n%s", got.code, got.stderr)
	}
}

func TestBadConfiguration(t *testing.T) {
	const config = "/etc/selinux-provision/config.yaml"
	for _, c := range []struct {
		what    string
		prepare func(t *testing.T, tree *flatcartest.Tree)
		flags   []string
		message []string
	}{
		{"a misspelt key", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Write(config, "version: 1\nmode: permissive\naudit:\n  log_denial: true\n")
		}, nil, []string{"selinux-provision: " + config + ":4: audit.log_denial: ", `did you mean "log_denials"?`}},
		{"a wrong value, and another", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Write(config, "version: 1\nmode: enforced\npolicy:\n  booleans: {container_use_nfs: maybe}\n")
		}, nil, []string{"selinux-provision: " + config + ":2: mode: ", "selinux-provision: " + config + ":4: policy.booleans.container_use_nfs: "}},
		{"a drop-in", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Write(config, "version: 1\n")
			tree.Write("/etc/selinux-provision/config.d/20-site.yaml", "version: 1\n\nmod: enforcing\n")
		}, nil, []string{"selinux-provision: /etc/selinux-provision/config.d/20-site.yaml:3: mod: "}},
		{"an empty file", func(_ *testing.T, tree *flatcartest.Tree) { tree.Write(config, "") },
			nil, []string{"selinux-provision: " + config + ": cannot use an empty config file: write at least \"version: 1\", or remove the file"}},
		{"a directory in its place", func(_ *testing.T, tree *flatcartest.Tree) { tree.Write(config+"/x", "") },
			nil, []string{"selinux-provision: " + config + ": cannot read this file: it is a directory: put a file in its place"}},
		{"a dangling link in its place", func(_ *testing.T, tree *flatcartest.Tree) { tree.Link("/nowhere", config) },
			nil, []string{"selinux-provision: " + config + ": cannot read this file: it does not exist: "}},
		{"a module that is not there", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Write(config, "version: 1\npolicy:\n  modules:\n    - path: /etc/selinux-provision/modules/site.cil\n")
		}, nil, []string{"selinux-provision: " + config + ":4: ", "cannot read the module /etc/selinux-provision/modules/site.cil: it does not exist: "}},
		{"a module that cannot be read", func(_ *testing.T, tree *flatcartest.Tree) {
			tree.Write("/etc/selinux-provision/modules/site.cil/x", "")
		}, nil, []string{"selinux-provision: /etc/selinux-provision/modules/site.cil: cannot read this module: it is a directory: put a file in its place"}},
		{"a file of --config that is not there", func(*testing.T, *flatcartest.Tree) {}, []string{"--config", "/does/not/exist.yaml"},
			[]string{"selinux-provision: /does/not/exist.yaml: cannot read this file: it does not exist: put it there, or name the right file"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			tree := flatcartest.New(t, flatcartest.Today)
			c.prepare(t, tree)
			before := entries(t, tree.Dir)
			args := append([]string{"--root", tree.Dir}, c.flags...)
			for _, command := range []string{"apply", "apply --dry-run", "status"} {
				args := append(slices.Clone(args), strings.Fields(command)...)
				got := call(t, args...)
				if got.code != exitUsage || command == "apply --dry-run" && got.stdout != "" {
					t.Errorf("%s: exit code %d, on standard output %q", command, got.code, got.stdout)
				}
				said := got.stderr
				if command == "status" { // what the host is like is said, too
					reads(t, command, got.stdout, "NOT as declared", "mode ", "store ")
					said = "selinux-provision: " + strings.ReplaceAll(strings.ReplaceAll(got.stdout, "\n    -> ", ": "), "\n  - ", "\nselinux-provision: ")
				}
				reads(t, command, said, c.message...)
				got = call(t, append(args, "--json")...)
				if r := got.object(t); got.code != exitUsage || !strings.Contains("selinux-provision: "+strings.ReplaceAll(r.Error, "\n", "\nselinux-provision: "), c.message[0]) {
					t.Errorf("%s: exit code %d, error %q", command, got.code, r.Error)
				}
			}
			unchanged(t, c.what, before, entries(t, tree.Dir))
		})
	}
}

func TestNoConfiguration(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	got := call(t, "--root", tree.Dir, "apply")
	if got.code != exitDone || got.stderr != "" {
		t.Errorf("exit code %d, on standard error %q", got.code, got.stderr)
	}
	reads(t, "apply", got.stdout, "policystore: copy /var/lib/selinux, because it is a link to the vendor's read-only store (../../usr/lib/selinux/policy): ", "policystore: done\n", "policy: rebuild ", "audit: nothing to do\n", "enforce: nothing to do\n")
	if content, err := os.ReadFile(filepath.Join(tree.Dir, "etc/selinux/config")); err != nil || !strings.Contains(string(content), "SELINUX=permissive\n") {
		t.Errorf("nobody asked for a mode, and the configuration is %q, %v", content, err)
	}
	got = call(t, "--root", tree.Dir, "status")
	if got.code != exitDone {
		t.Errorf("status: exit code %d\n%s", got.code, got.stdout)
	}
	reads(t, "status", got.stdout, "Everything is as declared.\n", "mode     unknown      now; permissive at the next boot; unmanaged declared\n")
}

const enforcing = `version: 1
mode: enforcing
policy:
  booleans: {container_use_nfs: true}
audit: {log_denials: true, dontaudit: strip}
`

func TestDryRunWritesNothing(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	dry := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			before := entries(t, tree.Dir)
			args := append([]string{"--root", tree.Dir}, strings.Fields(command+" --dry-run")...)
			got := call(t, args...)
			if got.code != exitDone || got.stderr != "" {
				t.Errorf("%s: exit code %d, on standard error %q", command, got.code, got.stderr)
			}
			reads(t, command, got.stdout, ": would ")
			got = call(t, append(args, "--json")...)
			r := got.object(t)
			if !slices.ContainsFunc(r.Results, func(r stages.Result) bool { return r.Outcome == stages.Planned && len(r.Planned) > 0 }) || r.Command != command {
				t.Errorf("%s: %s", command, got.stdout)
			}
			unchanged(t, "a dry run of "+command, before, entries(t, tree.Dir))
		}
	}
	dry("apply", "stage policystore", "stage audit", "stage enforce")
	if got := call(t, "--root", tree.Dir, "apply"); got.code != exitDone {
		t.Fatalf("apply: exit code %d\n%s", got.code, got.stderr)
	}
	dry("revert")

	before := entries(t, tree.Dir)
	for _, command := range []string{"apply", "stage policystore", "stage policy", "stage audit", "stage enforce", "status"} {
		got := call(t, append([]string{"--root", tree.Dir}, strings.Fields(command)...)...)
		if got.code != exitDone || got.stderr != "" {
			t.Errorf("%s: exit code %d, on standard error %q", command, got.code, got.stderr)
		}
	}
	unchanged(t, "with nothing to do, a run", before, entries(t, tree.Dir))
}

func TestModuleThatDoesNotCompile(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	tree.Write("etc/selinux-provision/modules/good.cil", "(type good_t)\n(roletype object_r good_t)\n")
	tree.Write("etc/selinux-provision/modules/bad.cil", "(type bad_t)\n(roletype object_r bad_t)\n(allow bad_t missing_t (file (read)))\n")
	named := []string{"module bad ", "line 3", "/etc/selinux-provision/modules/bad.cil"}

	first := call(t, "--root", tree.Dir, "apply")
	if first.code != exitPartly {
		t.Errorf("exit code %d\n%s%s", first.code, first.stdout, first.stderr)
	}
	reads(t, "apply", first.stderr, append(named, "everything else is applied", "selinux-provision apply")...)
	reads(t, "apply", first.stdout, "policy: done in part, 1 to look at\n", "enforce: done\n")
	if strings.Contains(first.stderr, "module good") {
		t.Errorf("the good module is blamed: %s", first.stderr)
	}

	again := call(t, "--root", tree.Dir, "--json", "apply")
	r := again.object(t)
	if again.code != exitPartly || len(r.Results) != 4 || r.Results[1].Outcome != stages.Partly || len(r.Results[1].Problems) != 1 || len(r.Results[1].Done) != 0 {
		t.Errorf("a second run: exit code %d\n%s", again.code, again.stdout)
	}

	status := call(t, "--root", tree.Dir, "status")
	if status.code != exitPartly || status.stderr != "" {
		t.Errorf("status: exit code %d, on standard error %q", status.code, status.stderr)
	}
	reads(t, "status", status.stdout, append(named, "NOT as declared, 1 to look at:\n", "with the modules good\n")...)
	status = call(t, "--root", tree.Dir, "--json", "status")
	r = status.object(t)
	if status.code != exitPartly || r.AsDeclared == nil || *r.AsDeclared || len(r.Quarantine) != 1 || r.Quarantine[0].Name != "bad" || r.Quarantine[0].Line != 3 {
		t.Errorf("status: exit code %d\n%s", status.code, status.stdout)
	}
}

func TestLocked(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.MkdirAll(stages.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := root.Lock(t.Context(), hostfs.Lock{File: stages.StateDir + "/locks/stages"})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	before := entries(t, tree.Dir)
	holder := fmt.Sprintf("process %d (", os.Getpid())
	locked := func(args ...string) answer {
		t.Helper()
		t.Setenv("JOURNAL_STREAM", "")
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr}
		code := a.run(t.Context(), append([]string{"--root", tree.Dir}, args...))
		return answer{code, stdout.String(), stderr.String()}
	}
	for _, command := range []string{"apply", "stage policy", "revert"} {
		got := locked(strings.Fields(command)...)
		if got.code != exitLocked || got.stdout != "" {
			t.Errorf("%s: exit code %d, on standard output %q", command, got.code, got.stdout)
		}
		reads(t, command, got.stderr, "selinux-provision: cannot lock "+filepath.Join(tree.Dir, stages.StateDir, "locks/stages"), holder, "try again when that has ended")
		got = locked(append(strings.Fields(command), "--json")...)
		if r := got.object(t); got.code != exitLocked || !strings.Contains(r.Error, holder) || r.Command != command {
			t.Errorf("%s: exit code %d\n%s", command, got.code, got.stdout)
		}
	}
	for _, command := range []string{"status", "apply --dry-run"} { // they only look
		if got := locked(strings.Fields(command)...); got.code == exitLocked {
			t.Errorf("%s waits for the lock: %s", command, got.stderr)
		}
	}
	unchanged(t, "a run without the lock", before, entries(t, tree.Dir))
}

// A person who interrupts a run that waits is told what it waited for.
func TestInterruptedWait(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.MkdirAll(stages.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := root.Lock(t.Context(), hostfs.Lock{File: stages.StateDir + "/locks/stages"})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	t.Setenv("JOURNAL_STREAM", "")
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	stderr := &interrupting{cancel: cancel}
	a := &app{stdout: &stdout, stderr: stderr, lockWait: time.Hour}
	if code := a.run(ctx, []string{"--root", tree.Dir, "apply"}); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	reads(t, "the message", stderr.String(), "selinux-provision: waiting for process ", "cannot lock ", fmt.Sprint(os.Getpid()))
}

// interrupting is a terminal at which somebody interrupts at the first line.
type interrupting struct {
	bytes.Buffer
	cancel func()
}

func (i *interrupting) Write(p []byte) (int, error) {
	i.cancel()
	return i.Buffer.Write(p)
}

func TestJSONOfEveryCommand(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	for _, c := range []struct {
		command string
		code    int
	}{
		{"version", exitDone},
		{"status", exitPartly}, // nothing is as declared yet
		{"stage policystore", exitDone},
		{"stage policy", exitDone},
		{"stage audit", exitDone},
		{"stage enforce", exitDone},
		{"apply", exitDone},
		{"status", exitDone},
		{"revert", exitDone},
		{"revert", exitDone},
	} {
		got := call(t, append([]string{"--root", tree.Dir, "--json"}, strings.Fields(c.command)...)...)
		r := got.object(t)
		if got.code != c.code || r.Command != c.command || r.Error != "" {
			t.Errorf("%s: exit code %d\n%s", c.command, got.code, got.stdout)
		}
		switch c.command {
		case "version":
			if r.Version == "" {
				t.Errorf("no version in %s", got.stdout)
			}
		case "status":
			if r.AsDeclared == nil || *r.AsDeclared != (c.code == exitDone) || (len(r.Problems) == 0) != *r.AsDeclared {
				t.Errorf("status: %s", got.stdout)
			}
		default:
			if len(r.Results) == 0 {
				t.Errorf("%s: no results in %s", c.command, got.stdout)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	got := call(t, "version")
	if got.code != exitDone || got.stderr != "" || !strings.HasPrefix(got.stdout, "selinux-provision ") || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("%+v", got)
	}
}

func TestExitCode(t *testing.T) {
	plain := errors.New("x")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{plain, exitFailed},
		{usageError{plain}, exitUsage},
		{provision.Errors{&provision.Error{Problem: "x"}}, exitUsage},
		{&provision.Error{Problem: "x"}, exitUsage},
		{&hostfs.LockedError{}, exitLocked},
		{stages.ErrNotApplicable, exitNotApplicable},
		{&plan.UndoError{Failed: plain, Undo: plain}, exitUndoFailed},
		// What cannot be undone is worse than what made the undo necessary.
		{&plan.UndoError{Failed: &hostfs.LockedError{}, Undo: plain}, exitUndoFailed},
	} {
		for _, err := range []error{c.err, fmt.Errorf("cannot do it: %w", c.err)} {
			if c.err == nil {
				err = nil
			}
			if got := exitCode(err); got != c.want {
				t.Errorf("%v: %d, want %d", err, got, c.want)
			}
		}
	}
}

func TestWorse(t *testing.T) {
	order := []int{exitDone, exitPartly, exitNotApplicable, exitLocked, exitUsage, exitFailed, exitUndoFailed}
	for i, x := range order {
		for j, y := range order {
			if got := worse(x, y); got != order[max(i, j)] {
				t.Errorf("worse(%d, %d) is %d", x, y, got)
			}
		}
	}
}

// check FILE tells the kinds apart, and its exit code, text and JSON agree.
func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "version: 1\nmode: enforcing\n")
	bad := write("bad.bu", "variant: flatcar\nversion: 1.0.0\nstorage:\n  links:\n    - {path: /etc/selinux/config, target: /x}\n")

	if got := call(t, "check", good); got != (answer{exitDone, good + ": nothing is wrong\n", ""}) {
		t.Errorf("good file: %+v", got)
	}
	got := call(t, "check", good, bad)
	if got.code != exitUsage || !strings.HasPrefix(got.stdout, bad+":5: cannot use a link in place of /etc/selinux/config") ||
		got.stderr != "selinux-provision: 1 problem to correct\n" {
		t.Errorf("bad file: %+v", got)
	}
	got = call(t, "check", "--json", good, bad)
	var files struct {
		Files []checkedFile
	}
	if err := json.Unmarshal([]byte(got.stdout), &files); err != nil || got.object(t).Command != "check" {
		t.Fatal(err, got)
	}
	if len(files.Files) != 2 || files.Files[0].Kind != "configuration" || len(files.Files[0].Findings) != 0 ||
		files.Files[1].Kind != "Butane" || len(files.Files[1].Findings) != 1 || files.Files[1].Findings[0].Line != 5 {
		t.Errorf("JSON: %+v", files)
	}
	for _, c := range []struct{ args, want string }{
		{"check", "selinux-provision: cannot check nothing: give files, or --usr with the /usr tree of an OS image or \"other\"\n"},
		{"check --usr other x", "selinux-provision: cannot check files and an OS image in one run: give files, or --usr\n"},
		{"check /nonexistent.bu", "selinux-provision: cannot check /nonexistent.bu: no such file or directory\n"},
		{"check " + dir, "selinux-provision: cannot check " + dir + ": it has neither config.yaml nor config.d nor modules in it: give a directory like /etc/selinux-provision, or files\n"},
	} {
		if got := call(t, strings.Fields(c.args)...); got != (answer{exitUsage, "", c.want}) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}

// A module that a configuration names and that is not where it belongs is found, on this host and where the files for a machine are kept;
// of a file by itself it cannot be known.
func TestCheckModuleOfThisHost(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/selinux-provision")
	text := "version: 1\npolicy:\n  modules:\n    - path: /etc/selinux-provision/modules/site.cil\n"
	if err := os.MkdirAll(filepath.Join(dir, "config.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{filepath.Join(dir, "config.yaml"), filepath.Join(dir, "config.d/10-site.yaml")} {
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		want := answer{exitUsage, config + ":4: cannot find the module /etc/selinux-provision/modules/site.cil here: put it there, and deliver it to the machine together with this file\n",
			"selinux-provision: 1 problem to correct\n"}
		fine := answer{exitDone, config + ": nothing is wrong\n", ""}
		if got := call(t, "--root", root, "check", config); got != want {
			t.Errorf("missing on this host: %+v", got)
		}
		if got := call(t, "check", config); got != fine {
			t.Errorf("a file by itself: %+v", got)
		}
		if err := os.Mkdir(filepath.Join(dir, "modules"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := call(t, "check", config); got != want {
			t.Errorf("missing beside the file: %+v", got)
		}
		if err := os.WriteFile(filepath.Join(dir, "modules/site.cil"), []byte("(type site_t)\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"check", config}, {"--root", root, "check", config}} {
			if got := call(t, args...); got != fine {
				t.Errorf("%q, there: %+v", args, got)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, "modules")); err != nil {
			t.Fatal(err)
		}
	}
}

// What render takes with --from, check takes: a directory like /etc/selinux-provision, with what its modules are.
func TestCheckDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got := call(t, "check", dir); got.code != exitUsage || !strings.Contains(got.stderr, "it has neither config.yaml nor config.d nor modules in it") {
		t.Errorf("an empty directory: %+v", got)
	}
	write("site/config.yaml", "version: 1\nmode: enforcing\n")
	write("site/modules/good.cil", "(type good_t)\n")
	site := filepath.Join(dir, "site")
	if got := call(t, "check", site); got.code != exitDone || got.stdout != site+": nothing is wrong\n" {
		t.Errorf("nothing is wrong: %+v", got)
	}
	write("site/modules/open.cil", "(type open_t)\n(allow open_t\n")
	write("site/modules/container.cil", "(type mine_t)\n")
	write("site/config.d/1.yaml", "version: 1\npolicy: {file_contexts: [{path: '/srv/*', context: '<<none>>'}]}\n")
	got := call(t, "check", site)
	if got.code != exitUsage {
		t.Errorf("exit code %d", got.code)
	}
	reads(t, "check", got.stdout, site+"/config.d/1.yaml:2: cannot give any file the context for \"/srv/*\": ", site+"/modules/container.cil: cannot use a module named container: ",
		site+"/modules/open.cil:2: cannot read this module as CIL: the ( here is not closed: 1 ) missing at the end: correct it")
	write("site/config.d/1.yaml", "version: 1\npolicy: {replace_vendor_modules: [/container]}\n")
	reads(t, "a wrong drop-in", call(t, "check", site).stdout, site+"/config.d/1.yaml:2: policy.replace_vendor_modules[0]: ")
}

// A configuration of --config has its modules beside it, where it has any, and not in the /etc of whoever renders.
func TestRenderModulesBesideTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	text := "version: 1\npolicy: {modules: [{path: /etc/selinux-provision/modules/site.cil}]}\n"
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o644), os.Mkdir(filepath.Join(dir, "modules"), 0o755)); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", config, "render", "--to", "butane", "--binary", "https://files.example/x", "--hash", "sha256-" + strings.Repeat("0", 64)}
	if got := call(t, args...); got.code != exitUsage || !strings.Contains(got.stderr, "cannot read the module "+dir+"/modules/site.cil: it does not exist") {
		t.Errorf("missing: %+v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "modules/site.cil"), []byte("(type site_t)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := call(t, args...); got.code != exitDone || !strings.Contains(got.stdout, "(type site_t)") {
		t.Errorf("there: %+v", got)
	}
}

// A configuration that another user may write is not obeyed, nor is a module; the message names what is open, once.
func TestConfigurationOfAnotherUser(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(dir string) error
		want   string
	}{
		{"a file that all may write", func(dir string) error { return os.Chmod(dir+"/config.yaml", 0o666) },
			"/etc/selinux-provision/config.yaml: cannot obey this file: DIR/config.yaml is a file that everybody may write: run: chmod go-w DIR/config.yaml"},
		{"a module that all may write", func(dir string) error { return os.Chmod(dir+"/modules/a.cil", 0o666) },
			"/etc/selinux-provision/modules/a.cil: cannot obey this module: DIR/modules/a.cil is a file that everybody may write: run: chmod go-w DIR/modules/a.cil"},
		{"a directory that all may write", func(dir string) error { return os.Chmod(dir, 0o777) },
			"/etc/selinux-provision/config.yaml: cannot obey this file: DIR is a directory that everybody may write: run: chmod go-w DIR"},
	} {
		tree := flatcartest.New(t, flatcartest.Today)
		tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: enforcing\n")
		tree.Write("etc/selinux-provision/modules/a.cil", "(type a_t)\n")
		tree.Write("etc/selinux-provision/modules/b.cil", "(type b_t)\n")
		dir := filepath.Join(tree.Dir, "etc/selinux-provision")
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		got := call(t, "--root", tree.Dir, "apply")
		if want := "selinux-provision: " + strings.ReplaceAll(c.want, "DIR", dir) + "\n"; got.code != exitUsage || got.stderr != want {
			t.Errorf("%s: exit code %d\ngot  %swant %s", c.what, got.code, got.stderr, want)
		}
	}
}

// On a host, the vendor's modules are those that it has, and not those that Flatcar is known to have.
func TestCheckAgainstTheVendorsModules(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	site := t.TempDir()
	if err := os.Mkdir(filepath.Join(site, "modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"legacy", "container"} {
		if err := os.WriteFile(filepath.Join(site, "modules", name+".cil"), []byte("(type "+name+"_own_t)\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for root, named := range map[string]string{tree.Dir: "legacy", t.TempDir(): "container"} {
		got := call(t, "--root", root, "check", site)
		if got.code != exitUsage || strings.Count(got.stdout, "\n") != 1 || !strings.Contains(got.stdout, "cannot use a module named "+named+": ") {
			t.Errorf("want %s: %+v", named, got)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// callRelabel runs the program and gives what it printed.
func callRelabel(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"relabel"}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// What an operator gets wrong is named, with what to do, and nothing is touched.
func TestRelabelMessages(t *testing.T) {
	const context = "system_u:object_r:container_file_t:s0"
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", exitUsage, "cannot relabel without a path"},
		{dir + " " + dir, exitUsage, "give one directory or file"},
		{dir, exitUsage, "give --context CONTEXT, --context default for what containers share, or --from-policy"},
		{dir + " --context container_file_t", exitUsage, "it is neither user:role:type:level"},
		{dir + " --context system_u:object_r:t:s0:c1;c2", exitUsage, `"c1;c2" is not a category`},
		{dir + " --from-policy --context " + context, exitUsage, "give one of them"},
		{dir + " --force --context " + context, exitUsage, "cannot use --force without --from-policy"},
		{dir + " --workers -1 --context " + context, exitUsage, "below 0"},
		{dir + " --workers 2000 --context " + context, exitUsage, "give at most 256"},
		{"/usr/share --context " + context, exitFailed, "cannot relabel /usr/share: it is the operating system's"},
		{"/no/such/tree --context " + context, exitFailed, "cannot relabel /no/such/tree"},
	} {
		code, out, errs := callRelabel(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("relabel %s: %d\n%s%s\nwant %d, %s", c.args, code, out, errs, c.code, c.want)
		}
	}
	// An unset variable is not the current directory.
	t.Chdir(dir)
	if code, _, errs := callRelabel(t, "", "--context", context); code != exitUsage || !strings.Contains(errs, "an empty path") {
		t.Errorf("an empty path: %d, %s", code, errs)
	}
}

// A tree is labelled and counted, in words and as JSON, and a dry run changes nothing.
func TestRelabelTree(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("labels need root")
		}
		t.Skip("labels need root")
	}
	const context = "system_u:object_r:container_file_t:s0"
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(filepath.Join(tree, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "a", "new\nline"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := callRelabel(t, tree, "--context", context, "--dry-run")
	if code != exitDone || !strings.Contains(out, "would relabel "+tree+`/a/new\nline from no context to `+context+"\n") ||
		!strings.Contains(out, ": 3 would be labelled\n") || errs != "" {
		t.Errorf("dry run: %d\n%s%s", code, out, errs)
	}
	type change struct{ Path, From, To string }
	var would struct {
		Changes []change
		Set     int64
		DryRun  bool `json:"dry_run"`
	}
	code, out, _ = callRelabel(t, tree, "--context", context, "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &would); err != nil || code != exitDone || would.Set != 3 || !would.DryRun || len(would.Changes) != 3 ||
		!slices.Contains(would.Changes, change{tree + `/a/new\nline`, "", context}) {
		t.Errorf("dry run in JSON: %d, %v: %s", code, err, out)
	}
	for _, want := range []string{"3 labelled", "3 right already"} {
		if code, out, errs := callRelabel(t, tree, "--context", context); code != exitDone || !strings.Contains(out, want) || errs != "" {
			t.Errorf("%d\n%s%swant %s", code, out, errs, want)
		}
	}
	code, out, _ = callRelabel(t, tree, "--context", context, "--json")
	var said struct {
		Command       string
		Exit          int
		Seen, Already int64
		RootLabelled  bool `json:"root_labelled"`
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != exitDone || said.Command != "relabel" || said.Already != 3 || !said.RootLabelled {
		t.Errorf("%d, %v: %s", code, err, out)
	}
	code, out, _ = callRelabel(t, tree, "--context", context, "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &would); err != nil || code != exitDone || would.Changes == nil || len(would.Changes) != 0 || would.Set != 0 {
		t.Errorf("dry run without a change: %d, %v: %s", code, err, out)
	}
	// What a disk has as a label is not printed as it is.
	if err := unix.Lsetxattr(filepath.Join(tree, "a"), "security.selinux", []byte("a\x1b[31m\nb"), 0); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := callRelabel(t, tree, "--context", context, "-v"); code != exitDone || !strings.Contains(out, `from a\x1b[31m\nb to `) {
		t.Errorf("%d\n%s", code, out)
	}
	// A second name makes a part of a file system a place that is left out, and named.
	if err := os.Link(filepath.Join(tree, "a", "new\nline"), filepath.Join(tree, "second")); err != nil {
		t.Fatal(err)
	}
	code, out, errs = callRelabel(t, tree, "--context", context+":c1,c2")
	if code != exitPartly || !strings.Contains(out, "2 NOT labelled: several names") || !strings.Contains(errs, "--trust-links") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
}

// Two runs on one file system, with two labels, would leave a mixture: the second one waits, and says for whom.
func TestRelabelOneAtATime(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("labels need root")
		}
		t.Skip("labels need root")
	}
	t.Setenv("JOURNAL_STREAM", "")
	host, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	// One of its own, so that nobody else on this machine is waited for.
	tree := t.TempDir()
	if err := unix.Mount("none", tree, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(tree, 0); err != nil {
			t.Error(err)
		}
	}()
	target, err := relabel.Open(tree, relabel.Volume)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	unlock, err := target.Lock(t.Context(), host, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (int, string) {
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr, lockWait: 150 * time.Millisecond}
		code := a.run(t.Context(), append([]string{"relabel", tree, "--context", "system_u:object_r:container_file_t:s0"}, args...))
		return code, stdout.String() + stderr.String()
	}
	if code, said := call(); code != exitLocked || !strings.Contains(said, "waiting for process ") || !strings.Contains(said, "try again when that has ended") {
		t.Errorf("%d: %s", code, said)
	}
	if code, said := call("--dry-run"); code != exitDone {
		t.Errorf("a dry run: %d: %s", code, said)
	}
	unlock()
	if code, said := call(); code != exitDone {
		t.Errorf("afterwards: %d: %s", code, said)
	}
}

// The configuration's limits hold for a tree that is labelled by hand, unless the command line says otherwise. A configuration that is
// wrong is told, and is no reason not to label.
func TestRelabelKeepsDeclaredLimits(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	for _, c := range []struct {
		yaml    string
		flags   []string
		workers int
		entries int
		told    string
	}{
		{"version: 1\nrelabel: {workers: 3, entries_per_second: 500}\n", nil, 3, 500, ""},
		{"version: 1\nrelabel: {workers: 3, entries_per_second: 500}\n", []string{"--max-rate", "0"}, 3, 0, ""},
		{"version: 1\nrelabel: {workers: 3}\n", []string{"--workers", "7"}, 7, 0, ""},
		{"version: 1\nrelabel: {worker: 3}\n", nil, 0, 0, "config.yaml:2"},
	} {
		if err := os.WriteFile(config, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		a := &app{config: config, stderr: &errs}
		f := relabelFlags{}
		cmd := a.relabelCommand()
		if err := cmd.ParseFlags(c.flags); err != nil {
			t.Fatal(err)
		}
		f.given = cmd.Flags().Changed
		f.workers, _ = cmd.Flags().GetInt("workers")
		f.entries, _ = cmd.Flags().GetInt("max-rate")
		root, err := hostfs.Open("/")
		if err != nil {
			t.Fatal(err)
		}
		a.declaredLimits(root, &f)
		root.Close()
		if f.workers != c.workers || f.entries != c.entries || !strings.Contains(errs.String(), c.told) || c.told == "" && errs.Len() > 0 {
			t.Errorf("%q with %q: %d workers, %d entries a second, %q; want %d, %d, %q", c.yaml, c.flags, f.workers, f.entries, errs.String(), c.workers, c.entries, c.told)
		}
	}
}

// The command line and the configuration have one idea of what a context is.
func TestRelabelTakesWhatTheConfigurationTakes(t *testing.T) {
	dir := t.TempDir()
	for context, good := range map[string]bool{
		"system_u:object_r:container_file_t:s0": true, "system_u:object_r:a.b:s0-s0:c0.c1023": true, "a:b:c:s0:c2,c1": true,
		"a:b:c": false, "a:b:c:x0": false, "a:b:c:s0:c3.c1": false, "a:b:c:s0:c01": false, "a:b:c..d:s0": false, "a:b:c:SystemLow": false, "a:b:c:s0:": false,
	} {
		code, _, errs := callRelabel(t, "--root", dir, "/none", "--context", context)
		text := fmt.Sprintf("version: 1\nvolumes: [{name: a, match: {mountpoint: /a}, context: '%s'}]\npolicy: {file_contexts: [{path: /a, context: '%s'}]}\n", context, context)
		_, err := provision.Parse("c.yaml", strings.NewReader(text))
		if (code != exitUsage) != good || (err == nil) != good || !good && strings.Count(err.Error(), "as a context") != 2 {
			t.Errorf("%s: relabel %d %s, configuration %v", context, code, errs, err)
		}
	}
}

// Beneath --root the policy of the tree says what an old name of a type means.
func TestRelabelByTheTreesPolicy(t *testing.T) {
	tree := flatcartest.NewAt(t, t.TempDir(), flatcartest.Today, command.Tools{}) // what is below the host's own /dev is refused, and New's may be in /dev/shm
	tree.Write("srv/data/file", "")
	const context = "system_u:object_r:container_file_t:s0:c1,c2"
	answer := call(t, "--root", tree.Dir, "relabel", "/srv/data", "--dry-run", "--context", "system_u:object_r:svirt_lxc_file_t:s0:c2,c1")
	if answer.code != exitDone || !strings.Contains(answer.stdout, "would relabel /srv/data/file from no context to "+context+"\n") {
		t.Errorf("%+v", answer)
	}
}

// A person sees how far it is in one line, which fits the terminal.
func TestProgressText(t *testing.T) {
	for _, c := range []struct {
		progress relabel.Progress
		width    int
		want     string
	}{
		{relabel.Progress{Seen: 12, Changed: 3, Rate: 6.4}, 80, "12 entries looked at, 3 labelled, 6 a second"},
		{relabel.Progress{Seen: 500, Changed: 500, Total: 2000, Rate: 250, Left: 6 * time.Second}, 80, "500 entries of 2000 looked at, 500 labelled, 250 a second, about 6s left"},
		{relabel.Progress{Seen: 12}, 10, "12 entries"},
		{relabel.Progress{Seen: 12}, -1, ""},
	} {
		if got := cut(progressText(c.progress), c.width); got != c.want {
			t.Errorf("%+v: %q, want %q", c.progress, got, c.want)
		}
	}
}

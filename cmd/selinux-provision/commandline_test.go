package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

const oneDenial = `type=AVC msg=audit(1764320043.118:431): avc:  denied  { read } for  pid=4127 comm="cat" name="messages" dev="sda9" ino=524301 ` +
	"scontext=system_u:system_r:container_t:s0:c112,c877 tcontext=system_u:object_r:var_log_t:s0 tclass=file permissive=0\n"

// What is wrong with a command line is said in this program's words, once, with what was meant.
func TestMistakesOnTheCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"help statsu":            `there is no command "statsu": did you mean status?`,
		"help nothing":           `there is no command "nothing"`,
		"help stage nothing":     `there is no help on "nothing"`,
		"status --jsn":           "there is no flag --jsn: did you mean --json?",
		"apply --dryrun":         "there is no flag --dryrun: did you mean --dry-run?",
		"apply --zzzzzzzz":       "there is no flag --zzzzzzzz\n",
		"status -x":              "there is no flag -x\n",
		"status -vx":             "there is no flag -x\n",
		"--json=maybe status":    `cannot use "maybe" for --json: write true or false`,
		"relabel --workers x /a": `cannot use "x" for --workers: write a whole number`,
		"explain a b":            `cannot use "b": selinux-provision explain takes one argument at most`,
		"man other":              `there is no page "other"`,
	} {
		got := call(t, strings.Fields(line)...)
		if got.code != exitUsage || got.stdout != "" || !strings.HasPrefix(got.stderr+"\n", "selinux-provision: "+want) || strings.Count(got.stderr, "\n") != 2 || !strings.Contains(got.stderr, "Try: ") {
			t.Errorf("%s: exit code %d\n%swant %s", line, got.code, got.stdout+got.stderr, want)
		}
	}
	for _, line := range []string{"help", "help status", "help stage policy", "status --help"} {
		if got := call(t, strings.Fields(line)...); got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "Usage:") {
			t.Errorf("%s: exit code %d\n%s%s", line, got.code, got.stdout, got.stderr)
		}
	}
}

// Whoever asked for something and does not get all of it is told; whoever has gone away is not.
func TestOutputThatIsLost(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	dir := t.TempDir()
	for name, content := range map[string]string{"config.yaml": "version: 1\n", "one.log": oneDenial} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, log := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "one.log")
	for _, line := range []string{
		"version", "--json version", "man", "explain", "help", "completion bash", "check " + config, "--json check " + config, "denials --input " + log,
		"--json denials --input " + log, "--config " + config + " render --to ignition",
	} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		code := run(t.Context(), strings.Fields(line), full, &stderr)
		full.Close()
		if want := "selinux-provision: cannot write to standard output: no space left on device: "; code != exitFailed || strings.Count(stderr.String(), want) != 1 {
			t.Errorf("%s > /dev/full: exit code %d\n%s", line, code, stderr.String())
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		stderr.Reset()
		code = run(t.Context(), strings.Fields(line), w, &stderr)
		w.Close()
		if code != exitDone || strings.Contains(stderr.String(), "cannot") || strings.Contains(stderr.String(), "pipe") {
			t.Errorf("%s | true: exit code %d\n%s", line, code, stderr.String())
		}
	}
}

// A check of what never comes ends when somebody wants it to.
func TestInterruptedCheck(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "node.bu")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	t.Setenv("JOURNAL_STREAM", "")
	var stdout, stderr strings.Builder
	code := run(ctx, []string{"check", fifo}, &stdout, &stderr)
	if want := "selinux-provision: cannot check " + fifo + ": it was interrupted\n"; code != exitFailed || stderr.String() != want {
		t.Errorf("exit code %d\n%s", code, stdout.String()+stderr.String())
	}
	// The goroutine that was left behind ends, too.
	w, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		w.Close()
	}
}

// An ordinary user is told that it is one, and nothing untrue about what it may not see.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	if got := call(t, "--root", tree.Dir, "apply"); got.code != exitDone {
		t.Fatal(got.stderr)
	}
	for _, dir := range []string{tree.Dir, filepath.Dir(tree.Dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := entries(t, tree.Dir)
	for line, want := range map[string]string{
		"status":          "cannot look at the policy store: open " + tree.Dir + "/var/lib/selinux/mcs/active/modules: permission denied: run it as root",
		"apply --dry-run": "cannot look at the policy store: open " + tree.Dir + "/var/lib/selinux/mcs/active/modules: permission denied",
		"apply":           "cannot lock " + tree.Dir,
	} {
		cmd := program(t, append([]string{"--root", tree.Dir}, strings.Fields(line)...)...)
		cmd.Env = append(cmd.Env, asNobody+"=1")
		said, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(said), want) || strings.Contains(string(said), "would copy") {
			t.Errorf("%s: %v\n%swant %s", line, err, said, want)
		}
	}
	unchanged(t, "an ordinary user's calls", before, entries(t, tree.Dir))
}

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
)

// One denial is one line, whatever is in its record, with the date only where it is not today's.
func TestFollowLine(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local)
	f := &judge.Finding{ID: "0a1b2c", Fix: judge.Fix{Kind: judge.Rule, Text: "no rule\x1b[2J", Command: "denials --module NAME"}, Group: avc.Group{
		Domain: "container_t", Target: "nfs_t", Class: "file", Count: 1, Permissive: 1, Permissions: map[string]uint64{"read": 1}, Subject: avc.Subject{Container: "a\nb"},
	}}
	plain := func(_, text string) string { return text }
	for want, told := range map[string]*findings.Told{
		`15:04:00  0a1b2c  stopped   container a\nb, container_t: file read on nfs_t  rule: no rule\x1b[2J: denials --module NAME`:            {Event: findings.Denial, Time: now.Add(-5 * time.Second), Enforced: 1, Finding: f},
		`2026-01-01 15:04:05  0a1b2c  reported  container a\nb, container_t: file read on nfs_t  rule: no rule\x1b[2J: denials --module NAME`: {Event: findings.Denial, Time: now.AddDate(0, 0, -1), Finding: f},
		`15:04:05  0a1b2c  again 7 times  container a\nb, container_t: file read on nfs_t`:                                                    {Event: findings.Repeats, Time: now, Count: 7, Finding: f},
	} {
		if got := followLine(told, plain, now); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for want, told := range map[string]*findings.Told{
		"no denials": {}, "no denials, but 3 that these flags leave out": {Others: 3}, "5 denials of 2 kinds: 1 stopped something": {Count: 5, Kinds: 2, Enforced: 1},
	} {
		if got := endLine(told); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What comes on a pipe is told in lines of JSON, each an object; the end of the pipe is the end.
func TestFollowJSON(t *testing.T) {
	tree := denialTree(t, "")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = os.WriteFile(fifo, []byte(numbered(logDenial, "3")+numbered(nfsDenial, "4")+numbered(nfsDenial, "5")), 0o600)
	}()
	got := call(t, "--root", tree.Dir, "denials", "--follow", "--input", fifo) // nobody has to ask for JSON in a pipe
	var events []string
	for line := range strings.Lines(got.stdout) {
		var told struct {
			Command, Event string
			Exit           *int
			Count          int
			Finding        *struct{ Fix struct{ Kind string } }
			Report         *struct{ Dontaudits *int }
		}
		if err := json.Unmarshal([]byte(line), &told); err != nil || told.Command != "denials" || told.Exit == nil || (told.Finding == nil) == (told.Report == nil) {
			t.Fatalf("%v: %s", err, line)
		}
		if told.Finding != nil {
			told.Event += " " + told.Finding.Fix.Kind
		}
		events = append(events, told.Event)
	}
	if want := "begin,denial role,denial boolean,repeats boolean,end"; got.code != exitDone || strings.Join(events, ",") != want || got.stderr != "" {
		t.Errorf("got %s, want %s; %+v", strings.Join(events, ","), want, got)
	}
	for args, want := range map[string]string{
		"--module x": "cannot use --follow with", "--types x": "cannot use --follow with", "--input /no/such": "cannot use --input: open /no/such",
	} {
		if got := call(t, append([]string{"denials", "--follow"}, strings.Fields(args)...)...); got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// An interrupt is how a person ends it: the exit code is 0. A file is followed like a log of the host.
func TestFollowIsInterrupted(t *testing.T) {
	tree := denialTree(t, numbered(nfsDenial, "3"))
	file := filepath.Join(tree.Dir, "var/log/audit/audit.log")
	for _, args := range [][]string{{"--root", tree.Dir, "--json=false", "denials", "-f", "--pod", "web"}, {"--root", tree.Dir, "--json=false", "denials", "-f", "--input", file}} {
		cmd := program(t, args...)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(stderr).ReadString('\n'); err != nil { // that dontaudit rules hide denials: it follows
			t.Fatal(err)
		}
		if args[len(args)-1] == file {
			if err := os.Rename(file, file+".1"); err != nil {
				t.Fatal(err)
			}
			tree.Write("var/log/audit/audit.log", numbered(nfsDenial, "4"))
			if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.Contains(line, "reported  container_t: file read on nfs_t /logs/4.log") {
				t.Errorf("told %q, %v", line, err)
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// On a terminal a denial is one line in colours, between what is followed and what there was.
func TestFollowOnATerminal(t *testing.T) {
	tree := denialTree(t, "")
	file := filepath.Join(tree.Dir, "log")
	tree.Write("log", numbered(nfsDenial, "3"))
	self := program(t, "--root", tree.Dir, "denials", "-f", "--since", "2000-01-01", "--input", file)
	cmd := exec.CommandContext(t.Context(), "script", "--quiet", "--return", "--flush", "--command", "exec '"+strings.Join(self.Args, "' '")+"'", "/dev/null")
	cmd.Env = append(self.Env, "TERM=xterm", "NO_COLOR=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		got = append(got, strings.TrimSuffix(lines.Text(), "\r"))
		if strings.Contains(lines.Text(), "reported") {
			if _, err := keys.Write([]byte("\x03")); err != nil { // Ctrl-C, as the terminal makes an interrupt of it
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %q", err, got)
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"selinux-provision: following " + file + "; Ctrl-C ends it\n", "\x1b[33mreported\x1b[0m  container_t: file read on nfs_t /logs/3.log", "selinux-provision: 1 denial of 1 kind: 0 stopped something"} {
		if !strings.Contains(all, want) {
			t.Errorf("there is no %q in\n%q", want, all)
		}
	}
}

// A compressed log is one that nobody writes to any more: it is unpacked and read to its end, and what is not read is refused by its name.
func TestFollowWhatIsCompressed(t *testing.T) {
	tree := denialTree(t, "")
	tree.Write("log.gz", gzipped(t, numbered(nfsDenial, "3")+numbered(nfsDenial, "4")))
	tree.Write("log.xz", "\xfd7zXZ\x00\x00\x04")
	got := call(t, "--root", tree.Dir, "--json=false", "denials", "--follow", "--input", filepath.Join(tree.Dir, "log.gz"))
	if got.code != exitDone || strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stdout, "again 1 time") {
		t.Errorf("%+v", got)
	}
	if got := call(t, "--root", tree.Dir, "denials", "--follow", "--input", filepath.Join(tree.Dir, "log.xz")); got.code != exitUsage || !strings.Contains(got.stderr, "it is compressed with xz: unpack it: xz -dc") {
		t.Errorf("%+v", got)
	}
}

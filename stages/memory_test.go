package stages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/powertest"
)

// TestMemoryThatEndsAnywhere lets memory end in each stage, a little later each time: the kernel kills who asks for more, as it does in a unit
// with a limit or on a host without memory, or refuses it, as with overcommitting switched off, to the program and to the tools that it runs.
// Whenever it happens, PID 1 finds a policy, nothing is blamed on what was declared, and with memory again the next apply ends where an
// undisturbed one does, with all that the operator made by hand.
//
// Proves P1: killed for want of memory.
// Proves P2.
func TestMemoryThatEndsAnywhere(t *testing.T) {
	t.Parallel()
	needStrace(t)
	if testing.Short() {
		t.Skip("it takes a minute: not in -short mode")
	}
	type history struct {
		name    string
		prepare func(*testing.T, *flatcartest.Tree)
		stages  []string // the work is in the last one
		tools   command.Tools
	}
	histories := []history{
		{name: "first apply", prepare: declare, stages: []string{"policystore"}},
		{name: "first apply", prepare: declare, stages: []string{"policystore", "policy"}},
		{name: "change", prepare: declaresMore, stages: []string{"policy"}},
		{name: "first apply", prepare: declare, stages: []string{"policystore", "policy", "audit"}},
		{name: "first apply", prepare: declare, stages: []string{"policystore", "policy", "audit", "enforce"}},
	}
	every := os.Getenv("SELINUX_PROVISION_TORTURE") != ""
	if every { // the tools of each release have words of their own for it
		for _, release := range []string{"bullseye", "trixie", "forky"} {
			histories = append(histories, history{"change, tools of " + release, declaresMore, []string{"policy"}, powertest.Tools(t, release)})
		}
	}
	for _, history := range histories {
		start := flatcartest.NewAt(t, t.TempDir(), flatcartest.Today, history.tools)
		history.prepare(t, start)
		copied := func(t *testing.T) *flatcartest.Tree {
			t.Helper()
			tree := copyTree(t, start.Dir)
			tree.Tools = history.tools
			return tree
		}
		good := copied(t)
		apply(t, hostOf(t, good))
		want := notable(t, good)
		last := len(history.stages) - 1
		if last > 0 {
			if _, err := hostOf(t, start).Run(t.Context(), history.stages[:last], false); err != nil {
				t.Fatal(err)
			}
		}
		stage := history.stages[last]
		for _, end := range []struct{ name, calls, inject string }{
			{"killed", "brk", "brk:error=ENOMEM:signal=SIGKILL:when=%d"},
			{"killed", "mmap", "mmap:error=ENOMEM:signal=SIGKILL:when=%d"},
			{"refused", "brk,mmap", "brk,mmap:error=ENOMEM:when=%d+"},
		} {
			if end.calls == "brk" && stage != "policy" {
				continue // the program itself, and cp, ask with mmap
			}
			t.Run(fmt.Sprintf("%s/%s/%s at %s", history.name, stage, end.name, end.calls), func(t *testing.T) {
				t.Parallel()
				times, step := 0, 1
				for n := 1; ; n += step {
					if !every {
						step = 1 + n
					}
					tree := copied(t)
					said, ended := withoutMemory(t, tree, stage, end.calls, fmt.Sprintf(end.inject, n))
					if !ended {
						t.Logf("memory ended %d times, at call %d at last", times, n)
						if times == 0 {
							t.Error("memory never ended")
						}
						return
					}
					times++
					if strings.Contains(said, "left out") || strings.Contains(said, "does not build") {
						t.Errorf("a module is blamed: %s", said)
					}
					if (strings.Contains(said, "signal 9") || strings.Contains(said, "Cannot allocate memory")) && !strings.Contains(said, "memory has ended if journalctl -k says so") {
						t.Errorf("it is not said what to do: %s", said)
					}
					powerIsBack(t, tree, want)
					if t.Failed() {
						t.Fatalf("memory ended at call %d; the stage said: %s", n, said)
					}
				}
			})
		}
	}
}

// withoutMemory runs a stage on the tree and lets calls that ask for memory end as strace(1) is told. It tells whether one did.
func withoutMemory(t *testing.T, tree *flatcartest.Tree, stage, calls, inject string) (said string, ended bool) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command("strace", "-f", "-qq", "-o", log, "-e", "trace="+calls, "-e", "inject="+inject, os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+tree.Dir, crashStage+"="+stage, crashUsr+"="+tree.Tools.Usr)
	out, _ := cmd.CombinedOutput()
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), strings.Contains(string(trace), "(INJECTED)") || strings.Contains(string(trace), "+++ killed by SIGKILL")
}

package stages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
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
	for _, history := range []struct {
		name    string
		prepare func(*testing.T, *flatcartest.Tree)
		stages  []string // the work is in the last one
	}{
		{"first apply", declare, []string{"policystore"}},
		{"first apply", declare, []string{"policystore", "policy"}},
		{"change", declaresMore, []string{"policy"}},
		{"first apply", declare, []string{"policystore", "policy", "audit"}},
		{"first apply", declare, []string{"policystore", "policy", "audit", "enforce"}},
	} {
		start := flatcartest.New(t, flatcartest.Today)
		history.prepare(t, start)
		good := copyTree(t, start.Dir)
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
				every := os.Getenv("SELINUX_PROVISION_TORTURE") != ""
				times, step := 0, 1
				for n := 1; ; n += step {
					if !every {
						step = 1 + n
					}
					tree := copyTree(t, start.Dir)
					said, ended := withoutMemory(t, tree.Dir, stage, end.calls, fmt.Sprintf(end.inject, n))
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
func withoutMemory(t *testing.T, dir, stage, calls, inject string) (said string, ended bool) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command("strace", "-f", "-qq", "-o", log, "-e", "trace="+calls, "-e", "inject="+inject, os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStage+"="+stage)
	out, _ := cmd.CombinedOutput()
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), strings.Contains(string(trace), "(INJECTED)") || strings.Contains(string(trace), "+++ killed by SIGKILL")
}

package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/provision"
)

const (
	crashDir   = "SELINUX_PROVISION_CRASH_DIR"
	crashStage = "SELINUX_PROVISION_CRASH_STAGE"
	crashLimit = "SELINUX_PROVISION_CRASH_LIMIT" // on each tool's run
	crashUsr   = "SELINUX_PROVISION_CRASH_USR"   // command.Tools.Usr
)

// TestCrashChild is the process that the crash matrix kills. Run by itself it has nothing to do.
func TestCrashChild(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(crashDir)
	if dir == "" {
		return
	}
	// All changes of the host are made by this goroutine: on one thread, the count of its system calls is the same every time.
	runtime.LockOSThread()
	if os.Getenv(interruptAt) != "" {
		beInterrupted(t)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Root: root, Declared: func() (*provision.State, error) { return provision.Load(root, "") }}
	h.Tools.Usr = os.Getenv(crashUsr)
	if limit, err := time.ParseDuration(os.Getenv(crashLimit)); err == nil {
		h.Tools.Limit = limit
	}
	var failed error
	if step, ok := strings.CutPrefix(os.Getenv(crashStage), "guard "); ok {
		guardStep(t, dir, step)
	} else if stage := os.Getenv(crashStage); stage == "revert" {
		result, err := h.Revert(context.Background(), false)
		failed = errors.Join(err, result.Err)
	} else {
		results, err := h.Run(context.Background(), []string{stage}, false)
		failed = err
		for _, r := range results {
			failed = errors.Join(failed, r.Err)
			for _, p := range r.Problems {
				failed = errors.Join(failed, errors.New(p.Problem))
			}
		}
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

// killAt runs a stage on the tree and kills it at the n-th call of a system call, before the call has any effect. It tells whether
// the stage came that far. mayFail: by itself, because it needs another stage first.
func killAt(t *testing.T, dir, stage, call string, n int, mayFail bool) bool {
	t.Helper()
	killed, _, said := interrupted(t, interruption{call: call, n: n}, "TestCrashChild", crashDir+"="+dir, crashStage+"="+stage)
	if !killed && said != "" && !mayFail {
		t.Fatalf("%s, %s %d: %s", stage, call, n, said)
	}
	return killed
}

// failAt runs a stage on the tree and lets the n-th call of a system call fail, or has whoever makes it killed if errno is "". It tells what the
// stage said; "" if it succeeded, and whether the call was made at all.
func failAt(t *testing.T, dir, stage, call, errno string, n int) (said string, reached bool) {
	t.Helper()
	at := interruption{call: call, n: n}
	if errno != "" {
		at.errno = errnoOf(t, errno)
	}
	_, reached, said = interrupted(t, at, "TestCrashChild", crashDir+"="+dir, crashStage+"="+stage)
	return said, reached
}

// TestErrorMatrix lets each stage fail at each of its calls that change something: the host is as it was at once, not after the next
// run, and the next run ends where an undisturbed one does.
//
// Proves P2: every such call fails.
func TestErrorMatrix(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	fresh := flatcartest.New(t, flatcartest.LTS2023)
	fresh.Write("etc/selinux-provision/config.yaml", enforcing)
	good := copyTree(t, fresh.Dir)
	before := map[string]*flatcartest.Tree{"revert": good}
	step := fresh
	for _, s := range Order() {
		before[s.Name] = step
		step = copyTree(t, step.Dir)
		if _, err := host(t, step).Run(context.Background(), []string{s.Name}, false); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, host(t, good), Changed)
	want := withoutCounter(snapshot(t, good.Dir, StateDir))
	for _, stage := range []string{"policystore", "audit", "enforce", "revert"} {
		was := snapshot(t, before[stage].Dir, StateDir)
		for _, fault := range []string{"renameat:EIO", "renameat2:EIO", "fsync:EIO", "syncfs:EDQUOT", "symlinkat:ENOSPC", "mkdirat:EROFS", "fchown:EPERM", "unlinkat:EIO"} {
			t.Run(stage+"/"+fault, func(t *testing.T) {
				t.Parallel()
				call, errno, _ := strings.Cut(fault, ":")
				for n := 1; ; n++ {
					tree := copyTree(t, before[stage].Dir)
					said, reached := failAt(t, tree.Dir, stage, call, errno, n)
					if !reached {
						return
					}
					bootable(t, tree)
					// What cannot be removed stays, and the next run removes it: everything else is as it was.
					if call != "unlinkat" && said != "" && !strings.Contains(said, "everything was done") {
						compare(t, fmt.Sprintf("%s %d failed", call, n), snapshot(t, tree.Dir, StateDir), was)
					}
					h := host(t, tree)
					apply(t, h)
					compare(t, fmt.Sprintf("%s %d failed, then applied", call, n), withoutCounter(snapshot(t, tree.Dir, StateDir)), want)
					apply(t, h, Unchanged)
					noLeftovers(t, tree)
					if t.Failed() {
						t.Logf("the stage said: %s", said)
						return
					}
				}
			})
		}
	}
}

// needStrace fails in CI and skips elsewhere where the tests cannot kill at a chosen call.
func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("strace is missing: install strace")
	}
	t.Skip("strace is missing: install strace")
}

// copyTree makes a copy of a tree, links and modes included.
func copyTree(t *testing.T, from string) *flatcartest.Tree {
	t.Helper()
	tree := flatcartest.Empty(t)
	if out, err := exec.Command("cp", "-a", from+"/.", tree.Dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return tree
}

// bootable checks what PID 1 needs at a boot at this very moment: a configuration that says the type, and a whole policy.
func bootable(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	h := host(t, tree)
	content, err := h.Root.ReadFile(seconfig.Path)
	if err != nil {
		t.Errorf("PID 1 would not find its configuration: %v", err)
		return
	}
	c, err := seconfig.Parse(strings.NewReader(string(content)))
	if err != nil || c.Type != "mcs" {
		t.Errorf("PID 1 would look for policy type %q: %v", c.Type, err)
	}
	r := h.newRun(nil, &State{}, true)
	if err := r.preflight(c.Type); err != nil {
		t.Errorf("PID 1 could not load a policy: %v", err)
	}
	if store, err := h.Root.Stat("/var/lib/selinux/mcs/active/modules/100/base"); err != nil || !store.IsDir() {
		t.Errorf("the store has no base module: %v", err)
	}
}

// TestCrashMatrix kills each stage at each of its calls that change something, and runs it again: what was there is whole at once,
// and the next run ends where an undisturbed one does.
//
// Proves P1.
// Proves P2: killed at every call that changes something; on the older layouts at a third of them, and at every one in make torture.
func TestCrashMatrix(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	for _, layout := range flatcartest.Layouts() {
		fresh := flatcartest.New(t, layout)
		fresh.Write("etc/selinux-provision/config.yaml", enforcing)
		before := snapshot(t, fresh.Dir)
		good := copyTree(t, fresh.Dir)
		stagesBefore := map[string]*flatcartest.Tree{"revert": good}
		tree := fresh
		for _, s := range Order() {
			stagesBefore[s.Name] = tree
			tree = copyTree(t, tree.Dir)
			if _, err := host(t, tree).Run(context.Background(), []string{s.Name}, false); err != nil {
				t.Fatal(err)
			}
		}
		apply(t, host(t, good), Changed)
		want := withoutCounter(snapshot(t, good.Dir, StateDir))
		step := 3 // older layouts differ in a few paths: a third of their calls is enough where time counts
		if layout == flatcartest.Today || os.Getenv("SELINUX_PROVISION_TORTURE") != "" {
			step = 1
		}

		for _, stage := range []string{"policystore", "audit", "enforce", "revert"} {
			for _, call := range []string{"renameat,renameat2", "linkat,symlinkat", "unlinkat", "fsync", "syncfs", "mkdirat"} {
				for _, one := range strings.Split(call, ",") {
					t.Run(fmt.Sprintf("%s/%s/%s", layout, stage, one), func(t *testing.T) {
						t.Parallel()
						kills := 0
						for n := 1; ; n += step {
							tree := copyTree(t, stagesBefore[stage].Dir)
							if !killAt(t, tree.Dir, stage, one, n, false) {
								break
							}
							kills++
							bootable(t, tree)
							h := host(t, tree)
							apply(t, h)
							compare(t, fmt.Sprintf("killed at call %d, then applied", n), withoutCounter(snapshot(t, tree.Dir, StateDir)), want)
							apply(t, h, Unchanged)
							noLeftovers(t, tree)
							if stage == "revert" || n%5 == 1 {
								again := copyTree(t, stagesBefore[stage].Dir)
								killAt(t, again.Dir, stage, one, n, false)
								if result, err := host(t, again).Revert(context.Background(), false); err != nil || result.Err != nil {
									t.Fatalf("revert: %v, %v", result.Err, err)
								}
								compare(t, fmt.Sprintf("killed at call %d, then reverted", n), snapshot(t, again.Dir), before)
							}
							if t.Failed() {
								return
							}
						}
						t.Logf("killed %d times", kills)
					})
				}
			}
		}
	}
}

func noLeftovers(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	for name := range snapshot(t, tree.Dir) {
		if strings.Contains(name, "/"+hostfs.TempPrefix) {
			t.Errorf("%s was left behind", name)
		}
	}
}

// TestSemoduleKilledUnderUs kills semodule at each of its renames, as a power cut in the policy stage does, and runs the stages.
//
// Proves P1: what PID 1 needs is whole at each instant.
// Proves P2.
func TestSemoduleKilledUnderUs(t *testing.T) {
	t.Parallel()
	needStrace(t)
	start := flatcartest.New(t, flatcartest.Today)
	start.Write("etc/selinux-provision/config.yaml", enforcing)
	start.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
	good := copyTree(t, start.Dir)
	apply(t, host(t, good), Changed)
	want := withoutCounter(snapshot(t, good.Dir, StateDir))
	if _, err := host(t, start).Run(context.Background(), []string{"policystore"}, false); err != nil {
		t.Fatal(err)
	}
	// What the policy stage has done when it starts semodule.
	state := LoadState(host(t, start).Root)
	state.InProgress = "policy"
	if err := state.save(host(t, start).Root); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		tree := copyTree(t, start.Dir)
		cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", fmt.Sprintf("inject=rename:error=EIO:signal=SIGKILL:when=%d", n),
			"semodule", "--store", "mcs", "--noreload", "--path", tree.Dir, "--disable_dontaudit", "--priority", "500",
			"--install", filepath.Join(tree.Dir, "etc/selinux-provision/modules/kube_logreader.cil"))
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Logf("killed at %d renames", n-1)
			if n < 10 {
				t.Errorf("semodule made only %d renames: the matrix does not test what it says", n-1)
			}
			return
		}
		bootableEtc(t, tree, n)
		results := apply(t, host(t, tree))
		for _, r := range results {
			if r.Err != nil {
				t.Fatalf("rename %d: stage %s: %v\n%s", n, r.Stage, r.Err, out)
			}
		}
		compare(t, fmt.Sprintf("semodule killed at rename %d, then applied", n), withoutCounter(snapshot(t, tree.Dir, StateDir)), want)
		apply(t, host(t, tree), Unchanged)
		if t.Failed() {
			return
		}
	}
}

// bootableEtc is bootable without the store, which semodule may leave without an active policy.
func bootableEtc(t *testing.T, tree *flatcartest.Tree, n int) {
	t.Helper()
	r := host(t, tree).newRun(nil, &State{}, true)
	if err := r.preflight("mcs"); err != nil {
		t.Errorf("rename %d: PID 1 could not load a policy: %v", n, err)
	}
}

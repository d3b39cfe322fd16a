package stages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/powertest"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
)

const (
	// powerCutsEach in the environment is how many cuts to make in each history, on each file system and with each libsemanage, for each way to lose what was
	// not flushed, or "every" for all that there are. Without it there is a sample.
	powerCutsEach = "SELINUX_PROVISION_POWER_CUTS"
	// powerRecord is a file with a recording to use instead of a new one. A test that fails names it.
	powerRecord = "SELINUX_PROVISION_POWER_RECORD"
)

// TestPowerCuts cuts the power at the flushes of an apply, be it the first one, after a change, after an update or a rollback of the OS, at those
// of a revert, and at those of each step of a trial. At each of them PID 1 finds a policy that it can load, nothing is called as
// declared that is not, and the next apply ends where an undisturbed one does, with all that the operator made by hand.
//
// Proves P1: the power is cut at a flush, on four kinds of file system, with four releases of libsemanage.
// Proves P2: the power is cut at a flush.
// Proves P4: the power is cut at a flush of each step of a trial.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	bench := powertest.Start(t)
	versions := map[string]command.Tools{"host's tools": {}}
	for version, release := range map[string]string{"libsemanage 3.1": "bullseye", "libsemanage 3.8": "trixie", "libsemanage 3.11": "forky"} {
		versions[version] = powertest.Tools(t, release)
	}
	each := everyFlush
	switch asked := os.Getenv(powerCutsEach); {
	case asked == "" && os.Getenv(powerRecord) == "":
		each = 0
	case asked != "" && asked != "every":
		var err error
		if each, err = strconv.Atoi(asked); err != nil {
			t.Fatalf("%s: %v", powerCutsEach, err)
		}
	}
	for _, on := range powertest.FileSystems() {
		for _, version := range slices.Sorted(maps.Keys(versions)) {
			for _, others := range []string{"alone", "among others"} {
				for _, history := range powerHistories() {
					if history.work.noSemodule && version != "host's tools" {
						continue
					}
					p := powerCuts{powerHistory: history, bench: bench, on: on, tools: versions[version], others: others != "alone",
						cuts: each, losses: []powertest.Loss{{}, {Kept: 50}, {Kept: 90}, {Kept: 50, Torn: true}}}
					if each == 0 {
						p.cuts, p.losses = sampleOf(on.Name, version, history.name, p.others), p.losses[:1]
					}
					if p.cuts > 0 {
						t.Run(strings.Join([]string{on.Name, version, history.name, others}, "/"), func(t *testing.T) {
							t.Parallel()
							p.run(t)
						})
					}
				}
			}
		}
	}
}

// everyFlush is more cuts than there are flushes: none is left out.
const everyFlush = math.MaxInt

// sampleOf says how many cuts make test makes, of how many flushes there are; 0: it leaves that to make torture.
func sampleOf(on, version, history string, others bool) int {
	often := history == "first apply" || history == "change"
	tried := version == "host's tools" || version == "libsemanage 3.1"
	switch {
	case others && (!often || !tried):
		return 0
	case on == "ext4" && often && tried && !others:
		return 8
	case (on == "ext4" || on == "xfs") && often && tried, on == "ext4" && version == "host's tools":
		return 5
	case often && tried, often && on == "ext4": // another file system; another libsemanage
		return 3
	default:
		return 0
	}
}

// powerHistory is what the power is cut in, and how the host came there.
type powerHistory struct {
	name    string
	prepare func(*testing.T, *flatcartest.Tree)
	work    powerWork
}

// powerHistories are all of them. Each is for one recording: a trial's remembers where it came to.
func powerHistories() []powerHistory {
	histories := []powerHistory{
		{"first apply", declare, anApply},
		{"change", declaresMore, anApply},
		{"update", func(t *testing.T, tree *flatcartest.Tree) {
			t.Helper()
			lived(t, tree)
			tree.Image(2)
		}, anApply},
		{"rollback", func(t *testing.T, tree *flatcartest.Tree) {
			t.Helper()
			lived(t, tree)
			tree.Image(2)
			apply(t, hostOf(t, tree))
			tree.Image(1)
		}, anApply},
		{"revert", lived, aRevert},
	}
	for n := range trialSteps() {
		histories = append(histories, stepOfTrial(n))
	}
	return histories
}

func declare(_ *testing.T, tree *flatcartest.Tree) {
	tree.Write("etc/selinux-provision/config.yaml", enforcing)
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", kubeLogreader)
}

// lived is a host that was provisioned, and on which an operator has worked by hand since.
func lived(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	declare(t, tree)
	apply(t, hostOf(t, tree), Changed)
	operatorsWork(t, tree)
	apply(t, hostOf(t, tree), Unchanged)
}

// declaresMore is a lived host on which more is declared now than was applied.
func declaresMore(t *testing.T, tree *flatcartest.Tree) {
	t.Helper()
	lived(t, tree)
	tree.Write("etc/selinux-provision/modules/another.cil", "(type another_t)\n(roletype object_r another_t)\n")
}

// powerWork is what the power is cut in, and what is done when it is back.
type powerWork struct {
	do   func(*testing.T, *Host)
	back func(t *testing.T, tree *flatcartest.Tree, want map[string]string)

	noSemodule bool // it runs none, whatever its release
}

// anApply is an apply, and the next one.
var anApply = powerWork{
	do: func(t *testing.T, h *Host) {
		t.Helper()
		for _, result := range apply(t, h) {
			if result.Outcome != Changed && result.Outcome != Unchanged {
				t.Errorf("stage %s: %s: %s, %v", result.Stage, result.Outcome, result.Error, result.Problems)
			}
		}
	},
	back: powerIsBack,
}

// aRevert is a revert, and the next one, which ends where an undisturbed one does.
var aRevert = powerWork{
	do: func(t *testing.T, h *Host) {
		t.Helper()
		if _, err := h.Revert(t.Context(), false); err != nil {
			t.Error(err)
		}
	},
	back: func(t *testing.T, tree *flatcartest.Tree, want map[string]string) {
		t.Helper()
		bootableEtc(t, tree, 0)
		h := hostOf(t, tree)
		wholePolicy(t, h)
		if _, err := h.Status(t.Context()); err != nil {
			t.Errorf("status: %v", err)
		}
		if _, err := h.Revert(t.Context(), false); err != nil {
			t.Errorf("revert: %v", err)
		}
		compare(t, "after revert", notable(t, tree), want)
		noLeftovers(t, tree)
	},
}

// hostOf is host with the tools of the tree.
func hostOf(t *testing.T, tree *flatcartest.Tree) *Host {
	t.Helper()
	h := host(t, tree)
	h.Tools = tree.Tools
	return h
}

// stepOfTrial is a step of the way to enforcing under guard. After the cut the next boot is where the guard wants it.
func stepOfTrial(n int) powerHistory {
	steps := trialSteps()
	name := fmt.Sprintf("trial, %d %s", n, steps[n].name)
	boots := 0
	return powerHistory{name, func(t *testing.T, tree *flatcartest.Tree) {
		t.Helper()
		c := computerOn(t, tree, guarded)
		c.on()
		for _, before := range steps[:n] {
			before.prepare(c)
			if !before.aside {
				guardStep(t, tree.Dir, before.name)
			}
		}
		steps[n].prepare(c)
		boots = c.boots
	}, powerWork{
		do: func(t *testing.T, h *Host) {
			t.Helper()
			guardStep(t, h.Root.Path("/"), steps[n].name)
		},
		back: func(t *testing.T, tree *flatcartest.Tree, _ map[string]string) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(tree.Dir, "run")); err != nil {
				t.Fatal(err)
			}
			steps[n].after(t, tree, boots)
		},
		noSemodule: true,
	}}
}

// powerCuts is one piece of work on one kind of disk.
type powerCuts struct {
	powerHistory

	bench  *powertest.Bench
	on     powertest.FileSystem
	tools  command.Tools
	cuts   int // about, for each loss
	losses []powertest.Loss
	// others flush files of their own all the time, as a database does, and with them whatever the file system has in its journal.
	others bool
}

func (p powerCuts) run(t *testing.T) {
	recording := p.recording(t)
	last := recording.Flushes()
	step := 1 + last/p.cuts
	var want map[string]string
	p.cut(t, recording, last, powertest.Loss{}, func(t *testing.T, tree *flatcartest.Tree) { want = notable(t, tree) })
	cuts, failed := 0, 0
	seen := map[[sha256.Size]byte]bool{}
	for _, loss := range p.losses {
		for n := 0; n < last; n += step {
			cuts++
			if !p.cut(t, recording, n, loss, func(t *testing.T, tree *flatcartest.Tree) {
				// Many flushes are of a journal alone: what is found after them is what was found before, and what becomes of that is known.
				if left := powertest.Fingerprint(t, tree.Dir, "other", "lost+found"); !seen[left] {
					seen[left] = true
					p.work.back(t, tree, want)
				}
			}) {
				failed++
			}
		}
	}
	t.Logf("%d of %d cuts failed; they leave %d states", failed, cuts, len(seen))
	if failed > 0 && os.Getenv(powerRecord) == "" { // the last cut is what the others are compared with
		name := filepath.Join(os.TempDir(), strings.NewReplacer("/", "-", " ", "_", "'", "").Replace(t.Name())+".recording")
		if err := recording.Save(name); err != nil {
			t.Fatal(err)
		}
		t.Logf("to see one of these cuts again: %s=%s go test ./stages -run '%s/cut=(N|%d),'", powerRecord, name, strings.ReplaceAll(t.Name(), "'", "."), last)
	}
}

// cut looks at the disk as a power cut leaves it.
func (p powerCuts) cut(t *testing.T, r *powertest.Recording, n int, loss powertest.Loss, look func(*testing.T, *flatcartest.Tree)) bool {
	t.Helper()
	return t.Run(fmt.Sprintf("cut=%d,%s", n, loss), func(t *testing.T) {
		tree := flatcartest.Empty(t)
		tree.Dir, tree.Tools = r.Cut(p.on, n, loss).Mount(t, p.on), p.tools
		look(t, tree)
	})
}

// recording does the work on a disk and gives what reached it.
func (p powerCuts) recording(t *testing.T) (r *powertest.Recording) {
	t.Helper()
	if name := os.Getenv(powerRecord); name != "" {
		r, err := p.bench.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	disk := p.bench.New(t, p.on, 512<<20)
	if !t.Run("record", func(t *testing.T) {
		tree := flatcartest.NewAt(t, disk.Mount(t, p.on), flatcartest.Today, p.tools)
		p.prepare(t, tree)
		h := hostOf(t, tree)
		if err := h.Root.Sync("/"); err != nil {
			t.Fatal(err)
		}
		r = disk.Record()
		stop := func() {}
		if p.others {
			stop = flushAllTheTime(t, filepath.Join(tree.Dir, "other"))
		}
		p.work.do(t, h)
		stop()
		done := r.Sofar()
		// What the file system still has in its journal goes to the disk with the next flush of anybody's.
		stop = flushAllTheTime(t, filepath.Join(tree.Dir, "other"))
		time.Sleep(20 * time.Millisecond)
		stop()
		if err := h.Root.Sync("/"); err != nil {
			t.Fatal(err)
		}
		r.End()
		t.Logf("%d flushes until the work said that it is done, %d in all", done, r.Flushes())
	}) {
		t.FailNow()
	}
	return r
}

// flushAllTheTime writes a file and flushes it, again and again.
func flushAllTheTime(t *testing.T, name string) (stop func()) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		var err error
		for n := int64(0); ctx.Err() == nil && err == nil; n++ {
			if _, err = f.WriteAt([]byte("x"), n); err == nil {
				err = f.Sync()
			}
			time.Sleep(2 * time.Millisecond)
		}
		ended <- errors.Join(err, f.Close())
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// notable is what lasts, without what the test itself makes.
func notable(t *testing.T, tree *flatcartest.Tree) map[string]string {
	t.Helper()
	all := lasting(t, tree)
	for name := range all {
		if slices.Contains([]string{"", "/other", "/lost+found"}, name) {
			delete(all, name)
		}
	}
	return all
}

// powerIsBack looks at the host as the cut left it, lets status and apply do their work, and looks again.
func powerIsBack(t *testing.T, tree *flatcartest.Tree, want map[string]string) {
	t.Helper()
	bootableEtc(t, tree, 0)
	h := hostOf(t, tree)
	wholePolicy(t, h)
	empty := emptied(t, tree, want)
	found := notable(t, tree)
	status, err := h.Status(context.Background())
	if err != nil {
		t.Errorf("status: %v", err)
	} else if status.AsDeclared && len(empty) > 0 {
		t.Errorf("status says as declared, and these are empty: %v", empty)
	} else if status.AsDeclared {
		compare(t, "status says as declared", found, want)
	}
	results := apply(t, h)
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("apply: stage %s: %v", r.Stage, r.Err)
		}
	}
	compare(t, "after apply", notable(t, tree), want)
	noLeftovers(t, tree)
	apply(t, h, Unchanged)
	if status, err := h.Status(context.Background()); err != nil || !status.AsDeclared {
		t.Errorf("status after apply: %v, %v", status, err)
	}
}

// emptied names the files that are empty and are not to be.
func emptied(t *testing.T, tree *flatcartest.Tree, want map[string]string) (empty []string) {
	t.Helper()
	for name, line := range notable(t, tree) {
		if strings.HasSuffix(line, " ") && !strings.HasSuffix(want[name], " ") && want[name] != "" {
			empty = append(empty, name)
		}
	}
	slices.Sort(empty)
	return empty
}

// wholePolicy reads the policy that PID 1 loads to its end, and the file contexts. A policy.N.tmp beside it, which libsemanage renames
// when it is written, is nobody's policy.
func wholePolicy(t *testing.T, h *Host) {
	t.Helper()
	dir := policystore.EtcDir + "/mcs"
	policies, err := seconfig.Policies(h.Root, dir+"/policy")
	if err != nil || len(policies) == 0 {
		t.Errorf("no policy: %v", err)
		return
	}
	for _, policy := range policies {
		content, err := h.Root.ReadFile(dir + "/policy/" + policy.Name)
		if err == nil {
			_, err = policydb.Parse(bytes.NewReader(content))
		}
		if err != nil {
			t.Errorf("%s: %v", policy.Name, err)
		}
	}
	content, err := h.Root.ReadFile(dir + "/contexts/files/file_contexts")
	if err != nil || !bytes.HasSuffix(content, []byte("\n")) {
		t.Errorf("file_contexts ends with %.40q: %v", content[max(0, len(content)-40):], err)
	}
}

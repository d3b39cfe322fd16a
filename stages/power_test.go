package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	// powerAll in the environment cuts at every flush, also with parts of what came later, and not at a sample of them.
	powerAll = "SELINUX_PROVISION_POWER_ALL"
	// powerRecord is a file with a recording to use instead of a new one. A test that fails names it.
	powerRecord = "SELINUX_PROVISION_POWER_RECORD"
)

// TestPowerCuts cuts the power at the flushes of an apply, be it the first one, after a change, after an update or a rollback of the OS, and at those
// of a revert. At each of them PID 1 finds a policy that it can load, nothing is called as
// declared that is not, and the next apply ends where an undisturbed one does, with all that the operator made by hand.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes: not in -short mode")
	}
	bench := powertest.Start(t)
	histories := []struct {
		name    string
		prepare func(*testing.T, *flatcartest.Tree)
		work    powerWork
		rare    bool // make test takes less of it
	}{
		{"first apply", declare, anApply, false},
		{"change", declaresMore, anApply, false},
		{"update", func(t *testing.T, tree *flatcartest.Tree) {
			lived(t, tree)
			tree.Image(2)
		}, anApply, true},
		{"rollback", func(t *testing.T, tree *flatcartest.Tree) {
			lived(t, tree)
			tree.Image(2)
			apply(t, hostOf(t, tree))
			tree.Image(1)
		}, anApply, true},
		{"revert", lived, aRevert, true},
	}
	versions := map[string]command.Tools{"host's tools": {}, "libsemanage 3.1": powertest.OldTools(t)}
	for _, fstype := range []string{"ext4", "xfs"} {
		for _, version := range slices.Sorted(maps.Keys(versions)) {
			for _, history := range histories {
				for _, others := range []string{"alone", "among others"} {
					if history.rare && (fstype != "ext4" || version != "host's tools" || others != "alone") && os.Getenv(powerAll) == "" {
						continue
					}
					t.Run(strings.Join([]string{fstype, version, history.name, others}, "/"), func(t *testing.T) {
						p := powerCuts{bench: bench, fstype: fstype, tools: versions[version], prepare: history.prepare, work: history.work,
							others: others != "alone", sample: history.rare}
						p.run(t)
					})
				}
			}
		}
	}
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

// powerCuts is one piece of work on one kind of disk.
type powerCuts struct {
	bench   *powertest.Bench
	fstype  string
	tools   command.Tools
	prepare func(*testing.T, *flatcartest.Tree)
	work    powerWork
	sample  bool
	// others flush files of their own all the time, as a database does, and with them whatever the file system has in its journal.
	others bool
}

func (p powerCuts) run(t *testing.T) {
	t.Helper()
	recording := p.recording(t)
	last := recording.Flushes()
	step, parts := 1+last/24, []int{0}
	switch {
	case os.Getenv(powerAll) != "" || os.Getenv(powerRecord) != "":
		step, parts = 1, []int{0, 50, 90}
	case p.others || p.sample || p.fstype != "ext4":
		step = 1 + last/12
	}
	var want map[string]string
	p.cut(t, recording, last, 0, func(t *testing.T, tree *flatcartest.Tree) { want = notable(t, tree) })
	cuts, failed := 0, 0
	for _, kept := range parts {
		for n := 0; n < last; n += step {
			cuts++
			if !p.cut(t, recording, n, kept, func(t *testing.T, tree *flatcartest.Tree) { p.work.back(t, tree, want) }) {
				failed++
			}
		}
	}
	t.Logf("%d of %d cuts failed", failed, cuts)
	if failed > 0 && os.Getenv(powerRecord) == "" { // the last cut is what the others are compared with
		name := filepath.Join(os.TempDir(), strings.NewReplacer("/", "-", " ", "_", "'", "").Replace(t.Name())+".recording")
		if err := recording.Save(name); err != nil {
			t.Fatal(err)
		}
		t.Logf("to see one of these cuts again: %s=%s go test ./stages -run '%s/cut=(N|%d),'", powerRecord, name, strings.ReplaceAll(t.Name(), "'", "."), last)
	}
}

// cut looks at the disk as a power cut leaves it.
func (p powerCuts) cut(t *testing.T, r *powertest.Recording, n, kept int, look func(*testing.T, *flatcartest.Tree)) bool {
	t.Helper()
	return t.Run(fmt.Sprintf("cut=%d,kept=%d", n, kept), func(t *testing.T) {
		tree := flatcartest.Empty(t)
		tree.Dir, tree.Tools = r.Cut(n, kept).Mount(t, p.fstype), p.tools
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
	disk := p.bench.New(t, p.fstype, 512<<20)
	if !t.Run("record", func(t *testing.T) {
		tree := flatcartest.NewAt(t, disk.Mount(t, p.fstype), flatcartest.Today, p.tools)
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

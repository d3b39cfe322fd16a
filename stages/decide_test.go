package stages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/provision"
)

// policyFile is the beginning of a binary policy.
func policyFile(version uint32) string {
	const magic, name = 0xf97cff8c, "SE Linux"
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(append(b, name...), version)
	return string(binary.LittleEndian.AppendUint32(b, 1))
}

// TestPreflightAndTheKernel: what the kernel takes counts, and what the image's libsepol rewrites for it.
//
// Proves P4.
func TestPreflightAndTheKernel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		vendor, kernel string // the newest versions
		policy         uint32
		want           string // in the message; "" if PID 1 can load it
	}{
		{"as it is to be", "33", "33", 33, ""},
		{"newer than the kernel, and libsepol rewrites it", "35", "33", 35, ""},
		{"newer than libsepol, and the kernel takes it", "33", "35", 35, ""},
		{"newer than both", "33", "33", 34, "policy.34 is newer than version 33, the highest that this host can load"},
		{"newer than both, with more digits", "33", "33", 100, "policy.100 is newer than version 33"},
	} {
		tree := flatcartest.Empty(t)
		tree.Write("usr/lib/selinux/mcs/policy/policy."+c.vendor, "")
		tree.Write(fmt.Sprintf("etc/selinux/mcs/policy/policy.%d", c.policy), policyFile(c.policy))
		tree.Write(kernelDir+"/policyvers", c.kernel)
		tree.Write(bootFile, "boot1")
		err := hostWithKernel(t, tree.Dir).newRun(nil, &State{}, false).preflight("mcs")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestUncleanMarkerStays: a store that a stage was cut off at is not trusted before it was built anew, whatever other stages do meanwhile.
//
// Proves P2.
func TestUncleanMarkerStays(t *testing.T) {
	t.Parallel()
	for _, cutOff := range []string{"policystore", "policy", "revert"} {
		tree := flatcartest.New(t, flatcartest.Today)
		tree.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: permissive\n")
		h := host(t, tree)
		apply(t, h)
		state := LoadState(h.Root)
		state.InProgress = cutOff
		if err := state.save(h.Root); err != nil {
			t.Fatal(err)
		}
		tree.Write("etc/selinux-provision/config.yaml", enforcing)
		for _, other := range []string{"audit", "enforce", "audit"} {
			if _, err := h.Run(t.Context(), []string{other}, false); err != nil {
				t.Fatal(err)
			}
			if got := LoadState(h.Root).InProgress; got != cutOff {
				t.Errorf("cut off in %s: after stage %s the marker is %q", cutOff, other, got)
			}
		}
		if results, err := h.Run(t.Context(), []string{"policy"}, false); err != nil || results[0].Err == nil || !strings.Contains(results[0].Error, "cannot trust the policy store") {
			t.Errorf("cut off in %s: the policy stage says %+v, %v", cutOff, results, err)
		}
		apply(t, h)
		if got := LoadState(h.Root).InProgress; got != "" {
			t.Errorf("cut off in %s: after apply the marker is %q", cutOff, got)
		}
	}
}

// TestFailedStageLeavesTheRecord: what a stage wrote into the record before it failed is in no later stage's record. The marker of a host that
// could not be taken back, or of a store that is damaged, is.
//
// Proves P2.
func TestFailedStageLeavesTheRecord(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	h := host(t, tree)
	h.Declared = func() (*provision.State, error) { return &provision.State{}, nil }
	if _, err := h.Run(t.Context(), []string{"policystore"}, false); err != nil {
		t.Fatal(err)
	}
	before := LoadState(h.Root)
	step := func(name string, do func() error) plan.Step {
		return plan.Step{Action: "do", Target: name, Stays: true, Do: func(context.Context) (string, error) { return "done", do() }}
	}
	for marker, fails := range map[string]error{
		"":        errors.New("it fails"),
		"policy":  &plan.UndoError{Failed: errors.New("it fails"), Undo: errors.New("and stays")},
		"policy ": policystore.ErrDamaged,
	} {
		if err := before.save(h.Root); err != nil {
			t.Fatal(err)
		}
		r := h.newRun(&provision.State{}, LoadState(h.Root), false)
		failing := Stage{Name: "policy", plan: func(_ context.Context, r *run) (plan.Plan, error) {
			return plan.Plan{
				step("record", func() error {
					r.state.Store.Policy.Declared, r.state.Store.Generation = "what failed", 99
					r.state.Rules, r.state.Guard = map[string]string{"what": "failed"}, &Trial{Reason: "failed"}
					return nil
				}),
				step("fail", func() error { return fails }),
			}, nil
		}}
		if result := r.stage(t.Context(), failing); result.Outcome != Failed || !errors.Is(result.Err, fails) {
			t.Fatalf("%+v", result)
		}
		next := Stage{Name: "audit", plan: func(context.Context, *run) (plan.Plan, error) {
			return plan.Plan{step("go on", func() error { return nil })}, nil
		}}
		if result := r.stage(t.Context(), next); result.Outcome != Changed {
			t.Fatalf("%+v", result)
		}
		want := before.clone()
		want.InProgress = strings.TrimSpace(marker)
		if got := LoadState(h.Root); !reflect.DeepEqual(got, want) {
			t.Errorf("after %v the record says %+v, want %+v", fails, got, want)
		}
	}
}

// TestMarker: what the record says is in progress, by what it said before, the stage and how far that one is.
//
// Proves P2.
func TestMarker(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old, stage                             string
		begun, done, finished, failed, damaged string
	}{
		{"", "policystore", "policystore", cleaning, "", "", "policystore"},
		{"", "policy", "policy", cleaning, "", "", "policy"},
		{"", "audit", "audit", cleaning, "", "", "audit"},
		{"", "enforce", "enforce", cleaning, "", "", "enforce"},
		{cleaning, "audit", "audit", cleaning, "", cleaning, "audit"},
		{"audit", "enforce", "enforce", cleaning, "", "audit", "enforce"},
		{"policy", "policystore", "policystore", cleaning, "", "policy", "policystore"},
		{"policystore", "policystore", "policystore", cleaning, "", "policystore", "policystore"},
		{"revert", "policystore", "policystore", cleaning, "", "revert", "policystore"},
		{"policy", "audit", "policy", "policy", "policy", "policy", "audit"},
		{"revert", "enforce", "revert", "revert", "revert", "revert", "enforce"},
		{"policystore", "policy", "policystore", "policystore", "policystore", "policystore", "policy"},
	} {
		for at, want := range map[moment]string{begun: c.begun, done: c.done, finished: c.finished, failed: c.failed, damaged: c.damaged} {
			if got := marker(c.old, c.stage, at); got != want {
				t.Errorf("%q, stage %s, moment %d: %q, want %q", c.old, c.stage, at, got, want)
			}
		}
	}
}

// TestMarkerOfAnotherStage: a stage that was cut off is cleared up by itself, or by all of them, and by nobody else.
func TestMarkerOfAnotherStage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cutOff, ran, want string }{{"audit", "enforce", "audit"}, {"audit", "audit", ""}, {"enforce", "audit", "enforce"}} {
		h := host(t, flatcartest.New(t, flatcartest.Today))
		h.Declared = func() (*provision.State, error) { return &provision.State{Mode: provision.Unmanaged}, nil }
		if err := errors.Join(h.Root.MkdirAll(StateDir, 0o755), (&State{Version: 1, InProgress: c.cutOff}).save(h.Root)); err != nil {
			t.Fatal(err)
		}
		if results, err := h.Run(t.Context(), []string{c.ran}, false); err != nil || results[0].Err != nil {
			t.Fatal(results, err)
		}
		if got := LoadState(h.Root).InProgress; got != c.want {
			t.Errorf("cut off in %s: after stage %s the marker is %q, want %q", c.cutOff, c.ran, got, c.want)
		}
	}
}

// TestGoesOnWithout: with a configuration that is wrong the store follows an OS update by itself, and nothing else is done that follows from it.
func TestGoesOnWithout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vendor string
		names  string
		want   bool
	}{
		{"v", "policystore", true}, {"v", "policy", true}, {"v", "audit", false}, {"v", "enforce", false}, {"v", "policystore policy", false},
		{"v", "policystore policy audit enforce", false}, {"", "policystore", false}, {"", "policy", false},
	} {
		h := host(t, flatcartest.New(t, flatcartest.Today))
		state := &State{Version: 1}
		state.Store.Vendor = c.vendor
		if err := errors.Join(h.Root.MkdirAll(StateDir, 0o755), state.save(h.Root)); err != nil {
			t.Fatal(err)
		}
		if got := h.goesOnWithout(strings.Fields(c.names)); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// TestPolicyInForceIsTheDeclaredOne: evidence is of the declared policy on this image's vendor policy, and of no other.
func TestPolicyInForceIsTheDeclaredOne(t *testing.T) {
	t.Parallel()
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		vendor string
		other  bool // another declaration
		hidden bool
	}{{"v", false, false}, {"w", false, true}, {"v", true, true}} {
		r := (&Host{Root: root}).newRun(&provision.State{}, &State{}, true)
		r.state.Store.Vendor = "v"
		r.state.Store.Policy = policystore.PolicyRecord{Vendor: c.vendor, Declared: declaredPolicy(r).Digest}
		r.declared.SharedVolumes = c.other
		if why, err := r.hides(t.Context(), &Sample{}); err != nil || (why != "") != c.hidden {
			t.Errorf("%+v: %q, %v", c, why, err)
		}
	}
}

// TestRulesThatAreKept: the text of a site's own rules comes back one day, if it is one that a record can hold.
func TestRulesThatAreKept(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	const name = rulesDir + "/99-default.rules"
	tree.Write("usr/share/audit/rules.d/99-default.rules", "the vendor's")
	for content, want := range map[string]bool{"the vendor's": false, "": true, "a site's": true, strings.Repeat("x", 1<<20): true, strings.Repeat("x", 1<<20+1): false} {
		r := host(t, tree).newRun(&provision.State{}, &State{Rules: map[string]string{"other": "x"}}, false)
		steps := r.keepRules(name, []byte(content))
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if got, kept := r.state.Rules[name]; kept != want || kept && got != content || r.state.Rules["other"] != "x" {
			t.Errorf("%d bytes: kept %t, %d rules", len(content), kept, len(r.state.Rules))
		}
	}
}

// TestRestartsAreCountedFromTheFirstLook: what was before does not count, nor what systemd forgets when somebody starts the unit.
func TestRestartsAreCountedFromTheFirstLook(t *testing.T) {
	t.Parallel()
	var restarts uint32
	w := &watcher{Host: &Host{Units: func(context.Context, ...string) ([]systemd.UnitState, error) {
		return []systemd.UnitState{{Name: "x.service", Restarts: restarts}}, nil
	}}, first: map[string]uint32{}}
	trial := &Trial{Units: []string{"x.service"}}
	for _, look := range []struct{ restarts, want uint32 }{{3, 0}, {4, 1}, {0, 0}, {1, 1}, {5, 5}} {
		restarts = look.restarts
		v := view{restarted: map[string]uint32{}}
		if err := w.see(t.Context(), trial, &v); err != nil || v.restarted["x.service"] != look.want {
			t.Errorf("%+v: %d, %v", look, v.restarted["x.service"], err)
		}
	}
}

// TestTries: trials with one declaration are counted, and another one begins anew.
func TestTries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to Phase
		changed  bool
		want     int
	}{
		{TrialInterrupted, TrialWatched, false, 3}, {TrialInterrupted, TrialWatched, true, 1}, {TrialArmed, TrialProving, false, 2}, {TrialArmed, TrialWatched, true, 1},
		{TrialFailed, TrialFailed, true, 2}, {none, TrialWatched, false, 1},
	} {
		r := (&Host{}).newRun(&provision.State{Guard: &provision.Guard{}}, &State{}, false)
		s := scene{boot: "b", fingerprint: "f"}
		if c.from != none {
			s.trial = &Trial{Phase: c.from, Boot: "a", Tries: 2, Fingerprint: map[bool]string{true: "other", false: "f"}[c.changed]}
		}
		if next, err := r.trial(t.Context(), s, move{to: c.to}); err != nil || next.Tries != c.want || next.Phase != c.to {
			t.Errorf("%+v: %+v, %v", c, next, err)
		}
	}
}

// TestFailedTrialIsNotFought: somebody who makes the kernel enforcing after a trial has failed is left alone, for this boot.
func TestFailedTrialIsNotFought(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write(kernelDir+"/enforce", "1")
	tree.Write(bootFile, "b")
	h := hostWithKernel(t, tree.Dir)
	for _, was := range []Phase{TrialFailed, TrialWatched} {
		trial := &Trial{Phase: was, Boot: "a", Asked: "asks", Fingerprint: "f"}
		r := h.newRun(&provision.State{Mode: provision.Enforcing, Guard: &provision.Guard{}}, &State{Guard: trial}, false)
		s := scene{trial: trial, boot: "b", enforcing: true, config: seconfig.Config{Mode: "permissive"}, fingerprint: "f", asks: "asks"}
		steps, err := r.planGuarded(t.Context(), nil, s)
		if err != nil {
			t.Fatal(err)
		}
		switches := slices.ContainsFunc(steps, func(s plan.Step) bool { return s.Action == "switch" })
		if switches != (was == TrialWatched) {
			t.Errorf("%s: %+v", was, steps)
		}
	}
}

// TestRevertSweeps: what any run left behind goes, also one that no record knows of.
func TestRevertSweeps(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	left := []string{"/var/lib/" + hostfs.TempPrefix + "store", policystore.EtcDir + "/" + hostfs.TempPrefix + "config", KeptDir + "/" + hostfs.TempPrefix + "base.cil",
		copiesDir + "/" + hostfs.TempPrefix + "modules/400/x/cil", quarantineDir + "/400/" + hostfs.TempPrefix + "x/cil", quarantineDir + "/local/" + hostfs.TempPrefix + "ports.local"}
	for _, name := range left {
		tree.Write(name[1:], "x")
	}
	h := host(t, tree)
	if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
		t.Fatal(result, err)
	}
	for _, name := range left {
		if h.Root.Exists(name) {
			t.Errorf("%s is still there", name)
		}
	}
}

// TestForget removes what is remembered of a host, and nothing that may be the operator's.
func TestForget(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ has, left []string }{
		{[]string{"locks/stages", "copies/modules/400/hand/cil", "transaction/in"}, nil},
		{[]string{"locks/stages", "quarantine/400/hand/cil", "copies/modules/400/hand/cil"}, []string{"quarantine/400/hand/cil"}},
		{[]string{"kept/file", "volumes/x"}, []string{"kept/file"}},
		{[]string{"quarantine/local/ports.local", "kept/file", "evidence.json"}, []string{"kept/file", "quarantine/local/ports.local"}},
	} {
		tree := flatcartest.Empty(t)
		for _, name := range append(c.has, "state.json") {
			tree.Write(StateDir[1:]+"/"+name, "x")
		}
		h := host(t, tree)
		if err := h.forget(); err != nil {
			t.Fatal(err)
		}
		var left []string
		dir := filepath.Join(tree.Dir, StateDir)
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				left = append(left, strings.TrimPrefix(name, dir+"/"))
			}
			return err
		})
		if gone := errors.Is(err, fs.ErrNotExist); !slices.Equal(left, c.left) || gone != (c.left == nil) || err != nil && !gone {
			t.Errorf("of %q: %q is left, want %q (%v)", c.has, left, c.left, err)
		}
	}
}

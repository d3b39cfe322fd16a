package stages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/plan"
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

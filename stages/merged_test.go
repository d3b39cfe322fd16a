package stages

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/policystore"
)

func TestMergedEtc(t *testing.T) {
	t.Parallel()
	const (
		root   = "22 1 8:9 / / rw - ext4 /dev/sda9 rw\n"
		merged = "30 22 0:26 / /etc rw - overlay confext rw,upperdir=/etc\n31 30 0:26 /.systemd-confext /etc/.systemd-confext ro - overlay confext rw\n"
	)
	for _, c := range []struct {
		what, table, identity string
		whole                 bool
	}{
		{"merged", root + merged, "30 0:26", true},
		{"merged anew", root + strings.ReplaceAll(merged, "0:26", "0:45"), "30 0:45", true},
		{"not merged", root, "", false},
		{"something else", root + "30 22 0:26 / /etc rw - tmpfs tmpfs rw\n", "", false},
		{"an overlay for all", "22 1 0:9 / / rw - overlay overlay rw\n", "", false},
	} {
		table, err := mounts.Parse(strings.NewReader(c.table))
		if err != nil {
			t.Fatal(err)
		}
		if identity, whole := mergedEtc(table); identity != c.identity || whole != c.whole {
			t.Errorf("%s: %q, %v", c.what, identity, whole)
		}
	}
}

// A look counts when /etc was whole, and the same at its end. What never gets so is looked at all the same, after a while.
func TestSettled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		etc   []string // one answer after the other, the last for ever; "" is not whole
		looks int
		after time.Duration
	}{
		{"nothing happens", []string{"a"}, 1, 0},
		{"it is being merged", []string{"", "", "a"}, 1, 2 * mergePause},
		{"it is taken away while somebody looks", []string{"a", "", "", "b"}, 2, mergePause},
		{"it is exchanged while somebody looks", []string{"a", "b", "b"}, 2, 0},
		{"it was taken away for good", []string{"a", ""}, 2, mergePatience},
		{"it was never there", []string{""}, 1, mergePatience},
		{"slow looks", []string{"a", "b", "b", "c", "c", "", "d", "d"}, 4, 0},
		{"no look is quick enough", strings.Split("abcdefghijklmnopqrstuvwxyz", ""), mergeLooks, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, looks, answers := time.Now(), 0, c.etc
				etc := func() (string, bool) {
					now := answers[0]
					answers = answers[min(1, len(answers)-1):]
					return now, now != ""
				}
				found, err := settled(t.Context(), etc, func() (int, error) { looks++; return looks, context.Canceled })
				if found != c.looks || looks != c.looks || !errors.Is(err, context.Canceled) {
					t.Errorf("%d, %v after %d looks; want %d", found, err, looks, c.looks)
				}
				if after := time.Since(begin); after != c.after {
					t.Errorf("it took %s, want %s", after, c.after)
				}
			})
		})
	}
}

// TestPlannedAnew: a plan is made of what the run knew before its first look, whatever a look at an /etc that was not whole has left behind.
func TestPlannedAnew(t *testing.T) {
	t.Parallel()
	answers := []string{"a", "b", "b", "b"}
	etc := func() (string, bool) {
		now := answers[0]
		answers = answers[1:]
		return now, true
	}
	r := &run{Host: &Host{}, state: &State{Store: policystore.Record{Generation: 7}}}
	looks := 0
	_, err := r.planned(t.Context(), Stage{plan: func(_ context.Context, r *run) (plan.Plan, error) {
		if looks++; looks == 1 {
			r.held = &Readiness{}
		}
		r.state.Store.Generation++
		return nil, nil
	}}, etc)
	if err != nil || looks != 2 || r.state.Store.Generation != 8 || r.held != nil {
		t.Errorf("%v after %d looks: generation %d, held back %v", err, looks, r.state.Store.Generation, r.held)
	}
}

// Somebody who ends the run is not kept waiting.
func TestSettledEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if found, err := settled(ctx, func() (string, bool) { return "", false }, func() (int, error) { return 1, nil }); found != 1 || err != nil {
			t.Errorf("%d, %v", found, err)
		}
	})
}

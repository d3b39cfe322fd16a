package findings_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
)

func denial(serial int, permission, target string) string {
	return strings.NewReplacer("001:5", fmt.Sprintf("%03d:%d", serial%1000, serial), "{ read }", "{ "+permission+" }", "nfs_t", target).Replace(record)
}

// What is denied is told at once, with what helps; what repeats is counted, and told of once a minute.
func TestFollow(t *testing.T) {
	_, h := tree(t)
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		write := func(text string) { _, _ = io.WriteString(out, text) }
		go func() {
			write(denial(1, "read", "nfs_t"))
			time.Sleep(10 * time.Second)
			write(denial(2, "read", "nfs_t") + strings.Replace(denial(3, "read", "nfs_t"), "/nfs/x", "/nfs/y", 1) + denial(4, "write", "nfs_t") + denial(5, "read", "tmpfs_t"))
			time.Sleep(2 * time.Minute)
			write(denial(6, "read", "nfs_t")) // after a long while
			time.Sleep(10 * time.Second)
			write(denial(7, "read", "nfs_t"))
			out.Close()
		}()
		begin := time.Now()
		var got []string
		err := h.Follow(t.Context(), findings.Query{Input: in, InputName: "a pipe", Only: findings.Selection{Domain: "container_t"}}, func(told *findings.Told) error {
			line := fmt.Sprintf("%3.0fs %s %d", time.Since(begin).Seconds(), told.Event, told.Count)
			if f := told.Finding; f != nil {
				line += fmt.Sprintf(" %v %s %s", f.PermissionList(), f.Target, f.Fix.Kind)
			}
			got = append(got, line)
			return nil
		})
		want := []string{
			"  0s begin 0", "  0s denial 1 [read] nfs_t boolean", " 10s denial 1 [write] nfs_t ", " 10s denial 1 [read] tmpfs_t ",
			" 61s repeats 2 [read] nfs_t boolean", "130s repeats 1 [read] nfs_t boolean", "140s repeats 1 [read] nfs_t boolean", "140s end 7",
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i][5:], want[i][5:]) || seconds(got[i])-seconds(want[i]) > 2.5 || seconds(want[i])-seconds(got[i]) > 2.5 {
				t.Fatalf("got\n%s\nwant\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), err)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func seconds(line string) (s float64) {
	_, _ = fmt.Sscanf(line, "%fs", &s)
	return s
}

// However many kinds of denials there are, each denial is counted and memory has a bound; the selection leaves out the others.
func TestFollowIsBounded(t *testing.T) {
	_, h := tree(t)
	const kinds = 4200 // more than are remembered
	var log strings.Builder
	for n := range 2 * kinds {
		log.WriteString(denial(n+1, "read", fmt.Sprintf("made%d_t", n%kinds)))
	}
	var last *findings.Told
	var denials, repeats uint64
	err := h.Follow(t.Context(), findings.Query{Input: strings.NewReader(log.String()), InputName: "a log"}, func(told *findings.Told) error {
		switch told.Event {
		case findings.Denial:
			denials++
		case findings.Repeats:
			repeats += told.Count
		}
		last = told
		return nil
	})
	if err != nil || last.Event != findings.End || last.Count != 2*kinds || denials+repeats != last.Count || last.Kinds != denials || denials < kinds {
		t.Errorf("%d told and %d repeat of %+v, %v", denials, repeats, last, err)
	}
	others := uint64(0)
	err = h.Follow(t.Context(), findings.Query{Input: strings.NewReader(denial(1, "read", "nfs_t")), Only: findings.Selection{Pod: "web"}}, func(told *findings.Told) error {
		others = told.Others
		if told.Event == findings.Denial {
			t.Errorf("told of %+v", told.Finding)
		}
		return nil
	})
	if err != nil || others != 1 {
		t.Errorf("%d others, %v", others, err)
	}
}

// It ends without an error when it is told to, and with that of whoever listens.
func TestFollowEnds(t *testing.T) {
	_, h := tree(t)
	stop := errors.New("enough")
	if err := h.Follow(t.Context(), findings.Query{}, func(*findings.Told) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var events []findings.Event
	err := h.Follow(ctx, findings.Query{}, func(told *findings.Told) error {
		events = append(events, told.Event)
		cancel()
		return nil
	})
	if err != nil || fmt.Sprint(events) != "[begin end]" {
		t.Errorf("%v, %v", events, err)
	}
}

// A file in which nothing came until somebody had enough is not blamed for having no records; one that was read to its end is.
func TestFollowedInputWithoutRecords(t *testing.T) {
	_, h := tree(t)
	read, write := io.Pipe()
	defer write.Close()
	for input, blamed := range map[io.ReadCloser]bool{read: false, io.NopCloser(strings.NewReader("nothing of the kind\n")): true} {
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() { write.Close() })
		var last *findings.Told
		err := h.Follow(ctx, findings.Query{Input: input, InputName: "one.log"}, func(told *findings.Told) error {
			if last = told; told.Event == findings.Begin && !blamed {
				cancel()
			}
			return nil
		})
		cancel()
		if said := strings.Contains(fmt.Sprint(last.Report.Notes), "one.log has no audit record in it"); err != nil || last.Event != findings.End || said != blamed {
			t.Errorf("%v at the end, %v: %q", last.Event, err, last.Report.Notes)
		}
	}
}

func TestSelection(t *testing.T) {
	f := &judge.Finding{Group: avc.Group{Subject: avc.Subject{Container: "nginx", Pod: "shop/web"}}}
	none := &judge.Finding{}
	for s, want := range map[*findings.Selection]bool{
		{Pod: "web"}: true, {Pod: "shop/web"}: true, {Pod: "shop"}: false, {Pod: "other/web"}: false, {Namespace: "shop"}: true, {Namespace: "web"}: false,
		{Namespace: "shop", Pod: "web", Container: "nginx"}: true, {Namespace: "shop", Container: "x"}: false,
	} {
		if s.Selects(f) != want || s.Selects(none) {
			t.Errorf("%+v: %v, and of nobody %v", s, s.Selects(f), s.Selects(none))
		}
	}
}

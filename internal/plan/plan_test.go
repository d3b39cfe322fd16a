package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// log is what the steps of a test did, in order.
type log []string

func (l *log) add(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

func (l *log) step(name string) Step {
	return Step{
		Action: name, Target: "/" + name,
		Do:      func(context.Context) (string, error) { l.add("do %s", name); return "did " + name, nil },
		Undo:    func(context.Context) error { l.add("undo %s", name); return nil },
		Cleanup: func() error { l.add("cleanup %s", name); return nil },
	}
}

func (l *log) failing(name string, err error) Step {
	s := l.step(name)
	s.Do = func(context.Context) (string, error) { l.add("fail %s", name); return "", err }
	return s
}

func (l *log) started(s Step)  { l.add("started %s", s.Action) }
func (l *log) finished(d Done) { l.add("finished %s", d.Action) }

func (l *log) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(*l, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(*l, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestDo(t *testing.T) {
	var l log
	quiet := l.step("b")
	quiet.Quiet, quiet.Cleanup, quiet.Undo = true, nil, nil
	done, err := Plan{l.step("a"), quiet, l.step("c")}.Do(t.Context(), l.started, l.finished)
	if err != nil {
		t.Fatal(err)
	}
	l.expect(t, "started a", "do a", "finished a", "started b", "do b", "finished b", "started c", "do c", "finished c", "cleanup a", "cleanup c")
	if len(done) != 3 || done[0].Result != "did a" || done[2].Target != "/c" || done[1].Elapsed < 0 {
		t.Errorf("done: %+v", done)
	}
	if done, err := (Plan{l.step("d")}).Do(t.Context(), nil, nil); len(done) != 1 || err != nil {
		t.Errorf("with nobody told: %v, %v", done, err)
	}
	if done, err := (Plan)(nil).Do(t.Context(), nil, nil); len(done) != 0 || err != nil {
		t.Errorf("nothing to do: %v, %v", done, err)
	}
}

func TestFailureIsUndoneInReverse(t *testing.T) {
	var l log
	broken := errors.New("the disk is full")
	without := l.step("b")
	without.Undo, without.Stays = nil, true
	done, err := Plan{l.step("a"), without, l.step("c"), l.failing("d", broken), l.step("e")}.Do(t.Context(), nil, l.finished)
	if !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	var undo *UndoError
	if errors.As(err, &undo) {
		t.Errorf("an undo that worked is reported as one that failed: %v", err)
	}
	l.expect(t, "do a", "finished a", "do b", "finished b", "do c", "finished c", "fail d", "undo c", "undo a")
	if len(done) != 3 {
		t.Errorf("done: %v", done)
	}
}

func TestUndoThatFails(t *testing.T) {
	var l log
	broken, stuck, jammed := errors.New("the disk is full"), errors.New("it is stuck"), errors.New("it is jammed")
	b, c := l.step("b"), l.step("c")
	b.Undo = func(context.Context) error { l.add("undo b"); return jammed }
	c.Undo = func(context.Context) error { l.add("undo c"); return stuck }
	_, err := Plan{l.step("a"), b, c, l.failing("d", broken)}.Do(t.Context(), nil, nil)
	l.expect(t, "do a", "do b", "do c", "fail d", "undo c", "undo b", "undo a") // the rest is taken back all the same
	var undo *UndoError
	if !errors.As(err, &undo) || !errors.Is(err, broken) || !errors.Is(err, stuck) || !errors.Is(err, jammed) {
		t.Fatalf("the error is %v", err)
	}
	if !errors.Is(undo.Failed, broken) || !errors.Is(undo.Undo, jammed) || errors.Is(undo.Undo, broken) {
		t.Errorf("failed %v, undo %v", undo.Failed, undo.Undo)
	}
	for _, part := range []string{"the disk is full", "it is stuck", "it is jammed"} {
		if strings.Count(err.Error(), part) != 1 {
			t.Errorf("%q does not say %q once", err, part)
		}
	}
}

// A change without a way back is one that could not be undone, unless it does no harm on the old host.
func TestNoWayBack(t *testing.T) {
	broken := errors.New("the disk is full")
	for what, c := range map[string]struct {
		quiet, stays, undone bool
	}{"a change": {}, "one that does no harm": {stays: true, undone: true}, "bookkeeping": {quiet: true, undone: true}} {
		var l log
		b := l.step("b")
		b.Undo, b.Quiet, b.Stays = nil, c.quiet, c.stays
		_, err := Plan{l.step("a"), b, l.failing("c", broken)}.Do(t.Context(), nil, nil)
		var undo *UndoError
		if !errors.Is(err, broken) || errors.As(err, &undo) == c.undone || !c.undone && !strings.Contains(err.Error(), "b /b") {
			t.Errorf("%s: %v", what, err)
		}
		l.expect(t, "do a", "do b", "fail c", "undo a")
	}
}

func TestCancelledRunIsUndone(t *testing.T) {
	var l log
	ctx, cancel := context.WithCancel(t.Context())
	a, b := l.step("a"), l.step("b")
	a.Undo = func(ctx context.Context) error { l.add("undo a, %v", ctx.Err()); return nil }
	b.Do = func(context.Context) (string, error) { l.add("do b"); cancel(); return "", nil }
	_, err := Plan{a, b, l.step("c")}.Do(ctx, nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	l.expect(t, "do a", "do b", "undo b", "undo a, <nil>")
}

func TestCleanupThatFails(t *testing.T) {
	var l log
	busy := errors.New("it is busy")
	a := l.step("a")
	a.Cleanup = func() error { l.add("cleanup a"); return busy }
	done, err := Plan{a, l.step("b")}.Do(t.Context(), nil, nil)
	if !errors.Is(err, busy) || !strings.Contains(err.Error(), "everything was done") || len(done) != 2 {
		t.Errorf("%v, %v", done, err)
	}
	l.expect(t, "do a", "do b", "cleanup a") // what b removes may be needed to find the rest again
}

func TestVisible(t *testing.T) {
	p := Plan{{Action: "copy"}, {Action: "record", Quiet: true}, {Action: "write"}}
	if got := p.Visible(); len(got) != 2 || got[0].Action != "copy" || got[1].Action != "write" {
		t.Errorf("%v", got)
	}
	if got := (Plan{{Quiet: true}}).Visible(); got == nil || len(got) != 0 {
		t.Errorf("%#v: a list in JSON must be [] and not null", got)
	}
}

func TestJSON(t *testing.T) {
	var l log
	s := l.step("copy")
	s.Reason = "it is absent"
	got, err := json.Marshal(Done{Step: s, Result: "3 files", Elapsed: 1500})
	want := `{"action":"copy","target":"/copy","reason":"it is absent","result":"3 files","elapsed_ns":1500}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

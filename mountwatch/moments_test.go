package mountwatch

import (
	"testing"
	"time"
)

// TestPace holds the share of writing: a record that takes 10 ms is not written again for 200 ms, and one that was never written at once.
func TestPace(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	var p pace
	if got := p.wait(t0); got != 0 {
		t.Errorf("the first is put off by %s", got)
	}
	p.wrote(at(0), at(10))
	for ms, want := range map[int]time.Duration{10: 200 * time.Millisecond, 110: 100 * time.Millisecond, 209: time.Millisecond, 210: 0, 5000: 0} {
		if got := p.wait(at(ms)); got != want {
			t.Errorf("after %d ms: put off by %s, want %s", ms, got, want)
		}
	}
	p.wrote(at(300), at(300))
	if got := p.wait(at(300)); got != 0 {
		t.Errorf("what took no time is put off by %s", got)
	}
}

// TestStart goes through the moments before and after READY.
func TestStart(t *testing.T) {
	type moment struct {
		remounting, late bool
		begins, arrives  bool
	}
	for name, moments := range map[string][]moment{
		"nothing to do":       {{arrives: true}, {}, {}},
		"a mount made again":  {{remounting: true, begins: true}, {remounting: true}, {arrives: true}, {}},
		"one that hangs":      {{remounting: true, begins: true}, {remounting: true, late: true, arrives: true}, {remounting: true, late: true}},
		"one after READY":     {{arrives: true}, {remounting: true}, {}},
		"others do not count": {{remounting: true, begins: true}, {remounting: true}, {remounting: true}, {remounting: true, late: true, arrives: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var s start
			for n, m := range moments {
				s.late = m.late
				if got := s.waits(m.remounting); got != m.begins {
					t.Errorf("moment %d: the patience begins: %v", n, got)
				}
				if got := s.arrives(m.remounting); got != m.arrives {
					t.Errorf("moment %d: READY: %v", n, got)
				}
			}
		})
	}
}

// TestLull rests once after many events, not before READY, and not while something is to be written.
func TestLull(t *testing.T) {
	var l lull
	for n, c := range []struct {
		mounts int
		begins bool
		ready  bool
		writes bool
		rests  bool
	}{
		{mounts: restAfter - 1}, {mounts: 1, begins: true}, {mounts: 1, begins: true}, {begins: true, ready: true, writes: true}, {begins: true, writes: true},
		{begins: true, rests: true, ready: true}, {mounts: restAfter - 1},
	} {
		if got := l.saw(c.mounts); got != c.begins {
			t.Errorf("step %d: the delay begins: %v", n, got)
		}
		if l.many >= restAfter {
			if got := l.rests(c.ready, c.writes); got != c.rests {
				t.Errorf("step %d: rests: %v", n, got)
			}
		}
	}
}

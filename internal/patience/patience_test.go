package patience

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAsk(t *testing.T) {
	failed := errors.New("failed")
	for _, c := range []struct {
		name  string
		takes time.Duration // the call
		sign  time.Duration // between signs of life; 0: none
		hears bool          // it ends with its context
		ends  time.Duration // the caller's context; 0: never
		err   error
		took  time.Duration
	}{
		{"at once", 0, 0, false, 0, failed, 0},
		{"just in time", 9 * time.Second, 0, false, 0, failed, 9 * time.Second},
		{"too late", time.Hour, 0, false, 0, ErrNoAnswer, 10 * time.Second},
		{"long and alive", time.Hour, 9 * time.Second, false, 0, failed, time.Hour},
		{"alive too seldom", time.Hour, 11 * time.Second, false, 0, ErrNoAnswer, 10 * time.Second},
		{"ended", time.Hour, 0, false, time.Second, ErrNoAnswer, time.Second + grace},
		{"ended and alive", time.Hour, time.Second / 3, false, time.Second, ErrNoAnswer, time.Second + grace},
		{"ended and heard of it", time.Hour, 0, true, time.Second, failed, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.ends > 0 {
					time.AfterFunc(c.ends, cancel)
				}
				begin := time.Now()
				value, err := Ask(ctx, &Room{}, "disk", 10*time.Second, func(ctx context.Context, alive func()) (int, error) {
					heard := ctx.Done()
					if !c.hears {
						heard = nil
					}
					var signs <-chan time.Time
					if c.sign > 0 {
						ticker := time.NewTicker(c.sign)
						defer ticker.Stop()
						signs = ticker.C
					}
					for end := time.After(c.takes); ; {
						select {
						case <-end:
							return 7, failed
						case <-heard:
							return 7, failed
						case <-signs:
							alive()
						}
					}
				})
				took := time.Since(begin)
				time.Sleep(2 * time.Hour) // until what was left behind is back
				if !errors.Is(err, c.err) || took != c.took || (value == 7) != errors.Is(err, failed) || errors.Is(err, context.Canceled) != (errors.Is(c.err, ErrNoAnswer) && c.ends > 0) {
					t.Errorf("%d, %v after %s", value, err, took)
				}
			})
		})
	}
}

// What is away is not asked again, others are; and whoever waits for it hears that it is back.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the calls are goroutines of their own
		var back []string
		room := &Room{Most: 2, Back: func(about string) {
			mu.Lock()
			defer mu.Unlock()
			back = append(back, about)
		}}
		calls := map[string]int{}
		callsOf := func(about string) int {
			mu.Lock()
			defer mu.Unlock()
			return calls[about]
		}
		release := make(chan struct{})
		ask := func(about string, hangs bool) error {
			_, err := Ask(t.Context(), room, about, time.Second, func(context.Context, func()) (struct{}, error) {
				mu.Lock()
				calls[about]++
				mu.Unlock()
				if hangs {
					<-release
				}
				return struct{}{}, nil
			})
			return err
		}
		for _, step := range []struct {
			about string
			hangs bool
			err   error
			calls int
		}{
			{"a", true, ErrNoAnswer, 1},
			{"a", false, ErrNoAnswer, 1}, // nobody is sent after it
			{"b", false, nil, 1},
			{"b", true, ErrNoAnswer, 2},
			{"c", false, ErrNoAnswer, 0}, // there is no room
		} {
			if err := ask(step.about, step.hangs); !errors.Is(err, step.err) || callsOf(step.about) != step.calls {
				t.Errorf("%+v: %v, %d calls", step, err, callsOf(step.about))
			}
		}
		if !room.Away("a") || !room.Away("b") || room.Away("c") {
			t.Error("what is away is not known")
		}
		close(release)
		synctest.Wait()
		mu.Lock()
		if len(back) != 2 || room.Away("a") {
			t.Errorf("back are %q", back)
		}
		mu.Unlock()
		for _, about := range []string{"a", "c"} {
			if err := ask(about, false); err != nil {
				t.Errorf("%s: %v", about, err)
			}
		}
	})
}

// TestBudget has those that do not answer share what there is, each with its least and its most.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Budget{Left: 5 * time.Second, Least: time.Second, Most: 3 * time.Second}
		release := make(chan struct{})
		for about, want := range []time.Duration{3 * time.Second, 2 * time.Second, time.Second, time.Second} {
			begin := time.Now()
			_, err := AskWithin(t.Context(), b, strconv.Itoa(about), func() (int, error) { <-release; return 0, nil })
			if waited := time.Since(begin); waited != want || !errors.Is(err, ErrNoAnswer) {
				t.Errorf("%d was waited for %s, want %s: %v", about, waited, want, err)
			}
		}
		before := b.Left
		if got, err := AskWithin(t.Context(), b, "answers", func() (int, error) { time.Sleep(time.Second / 2); return 7, nil }); got != 7 || err != nil || b.Left != before {
			t.Errorf("got %d, %v; left %s, before %s", got, err, b.Left, before)
		}
		close(release)
		synctest.Wait()
	})
}

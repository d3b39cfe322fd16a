package mountwatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

// Who looks into a volume for a moment does not keep it from its label; who stays does, and does not hold up many others.
func TestInUseForAMoment(t *testing.T) {
	inUse := fmt.Errorf("%w: process 7 has it mounted in a namespace of its own", remount.ErrBusy)
	failed := errors.New("no such option")
	for name, c := range map[string]struct {
		busyFor   time.Duration
		then      error
		unmounted bool // says each try
		others    int  // behind it in the queue
		want      error
		tries     int
	}{
		"nobody":                    {tries: 1},
		"a moment":                  {busyFor: 250 * time.Millisecond, tries: 3},
		"more than a second":        {busyFor: 1400 * time.Millisecond, tries: 5},
		"a moment, then it fails":   {busyFor: 250 * time.Millisecond, then: failed, want: failed, tries: 3},
		"for good":                  {busyFor: time.Hour, want: remount.ErrBusy, tries: 5},
		"for good, beside some":     {busyFor: time.Hour, others: fewRemounts - 1, want: remount.ErrBusy, tries: 5},
		"a moment, beside too many": {busyFor: 250 * time.Millisecond, others: fewRemounts, want: remount.ErrBusy, tries: 1},
		"it was unmounted":          {busyFor: time.Hour, unmounted: true, want: remount.ErrBusy, tries: 1},
		"it fails at once":          {then: failed, want: failed, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, tries := time.Now(), 0
				r := remounts{done: make(chan remountResult), begun: map[string][]time.Time{}, do: func(context.Context, *volume) (bool, error) {
					tries++
					if time.Since(begin) < c.busyFor {
						return c.unmounted, inUse
					}
					return true, c.then
				}}
				for i := range c.others + 1 {
					r.queue = append(r.queue, &volume{Volume: Volume{Mountpoint: "/" + strconv.Itoa(i)}})
				}
				r.next(t.Context())
				got := <-r.done
				if !errors.Is(got.err, c.want) || tries != c.tries || got.volume.Mountpoint != "/0" || got.took > busyPatience {
					t.Errorf("%d tries in %s: %v; want %d: %v", tries, got.took, got.err, c.tries, c.want)
				}
			})
		})
	}
	t.Run("a watcher that is stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			tries := 0
			r := remounts{done: make(chan remountResult), begun: map[string][]time.Time{}, do: func(context.Context, *volume) (bool, error) {
				tries++
				stop()
				return false, inUse
			}}
			begin := time.Now()
			r.start(ctx, &volume{Volume: Volume{Mountpoint: "/v"}})
			r.wait()
			if tries != 1 || time.Since(begin) != 0 {
				t.Errorf("%d tries in %s", tries, time.Since(begin))
			}
		})
	})
}

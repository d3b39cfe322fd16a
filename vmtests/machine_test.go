package vmtests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhileAlive: a boot that moves on is waited for, one that hangs ends.
func TestWhileAlive(t *testing.T) {
	begin := func() func() time.Duration {
		start := time.Now()
		return func() time.Duration { return time.Since(start) }
	}
	synctest.Test(t, func(t *testing.T) {
		since := begin()
		ctx, stop := whileAlive(t.Context(), func() string { return fmt.Sprint(int(since().Minutes())) }) // a sign each minute
		defer stop()
		select {
		case <-ctx.Done():
			t.Errorf("a guest that moves on was given up: %v", context.Cause(ctx))
		case <-time.After(5 * time.Hour):
		}
	})
	synctest.Test(t, func(t *testing.T) {
		since := begin()
		ctx, stop := whileAlive(t.Context(), func() string { return fmt.Sprint(min(since(), 20*time.Minute)) }) // moves on until it hangs
		defer stop()
		<-ctx.Done()
		if got := since(); got < 20*time.Minute+silence || got > 20*time.Minute+silence+10*time.Second {
			t.Errorf("a guest that hung at 20 minutes was given up after %s", got)
		}
		if err := context.Cause(ctx); err == nil || !strings.Contains(err.Error(), "the guest hangs") {
			t.Errorf("the reason is %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := whileAlive(t.Context(), func() string { return "" })
		stop()
		if ctx.Err() == nil {
			t.Error("what was stopped goes on")
		}
	})
}

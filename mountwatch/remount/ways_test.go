package remount

import (
	"fmt"
	"testing"
)

// A file system comes back with fewer options than it had rather than not at all, and never in a way in which it is written to.
func TestWaysBack(t *testing.T) {
	r := &Remount{options: []Option{{"ro", ""}, {"data", "journal"}, {"noload", ""}, {"sb", "8193"}}, selinux: []Option{{"context", "a:b:c:s0"}}}
	const want = "[[ro data=journal noload sb=8193 context=a:b:c:s0] [ro noload sb=8193 context=a:b:c:s0] [ro noload sb=8193]]"
	if got := fmt.Sprint(r.ways()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprint(r.options); got != "[ro data=journal noload sb=8193]" {
		t.Errorf("the options themselves are %s now", got)
	}
}

package findings

import (
	"slices"
	"strconv"
	"testing"

	"github.com/selinux-provision/selinux-provision/avc"
)

// What enforcing stopped is counted, all of it, and the newest are kept; what was granted, not valid or only reported is something else.
func TestStoppedAndCounted(t *testing.T) {
	denials := []*avc.Denial{
		{Kind: avc.Granted, Enforced: avc.EnforcedYes}, {Kind: avc.Invalid, Enforced: avc.EnforcedYes}, {Kind: avc.Denied, Enforced: avc.EnforcedNo}, {Kind: avc.Denied},
	}
	for i := range 9 {
		denials = append(denials, &avc.Denial{Kind: avc.Denied, Enforced: avc.EnforcedYes, PID: i})
	}
	for newest, want := range map[int][]string{2: {"7", "8"}, 3: {"6", "7", "8"}, 9: {"0", "1", "2", "3", "4", "5", "6", "7", "8"}} {
		last := stopped{newest: newest, line: func(d *avc.Denial) string { return strconv.Itoa(d.PID) }}
		for _, d := range denials {
			last.add(d)
		}
		if got := last.lines[max(0, len(last.lines)-newest):]; last.count != 9 || !slices.Equal(got, want) || len(last.lines) > 2*newest {
			t.Errorf("%d: %v of %d, kept %d", newest, got, last.count, len(last.lines))
		}
	}
	var c counter
	for _, d := range denials {
		c.add(d)
	}
	if c.stopped != 9 || c.reported != 2 {
		t.Errorf("%+v", c)
	}
}

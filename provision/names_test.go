package provision

import (
	"strings"
	"testing"
)

// The lengths of names are looked at beside their patterns.
func TestLengthsOfNames(t *testing.T) {
	for _, c := range []struct {
		valid func(string) bool
		name  string
		want  bool
	}{
		{isUnit, ".service", false},
		{isUnit, strings.Repeat("a", 240) + ".service", true},
		{isUnit, strings.Repeat("a", 241) + ".service", false},
		{isFinding, "0a1b2", false},
		{isFinding, "0a1b2c", true},
		{isFinding, strings.Repeat("a", 64), true},
		{isFinding, strings.Repeat("a", 65), false},
	} {
		if got := c.valid(c.name); got != c.want {
			t.Errorf("%q (%d bytes): %v", c.name, len(c.name), got)
		}
	}
}

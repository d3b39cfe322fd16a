package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"booleans": "booleans", "bolean": "booleans", "polcy": "policy", "xyz": "", "": "", "p": "", "pol": "policy", "POLICY": "policy",
		strings.Repeat("p", 1000): "",
	} {
		if got := Nearest(word, []string{"policy", "booleans"}); got != want {
			t.Errorf("%q: %q", word, got)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ab", 1}, {"abc", "xabc", 1}, {"abc", "acb", 1},
		{"abcd", "acbde", 2}, {"abc", "xyz", 3}, {"ca", "abc", 3}, // letters that were swapped are not touched again
	} {
		if got := Distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

package messages

import (
	"regexp"
	"strings"
	"testing"
)

// Each kind of entry has a MESSAGE_ID of its own, in the form that journalctl takes, and a cell of a table for each text.
func TestTable(t *testing.T) {
	seen := map[string]Kind{}
	for _, m := range All() {
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(m.ID) || seen[m.ID] != "" || m.Kind.ID() != m.ID {
			t.Errorf("%s: the MESSAGE_ID %s is malformed or taken by %q", m.Kind, m.ID, seen[m.ID])
		}
		seen[m.ID] = m.Kind
		if m.Means == "" || m.Do == "" || strings.ContainsAny(m.Means+m.Do, "|\n") {
			t.Errorf("%s: %q and %q are no cells of a table", m.Kind, m.Means, m.Do)
		}
		if regexp.MustCompile(`^(it|they|them)\b`).MatchString(m.Means) {
			t.Errorf("%s: %q does not stand alone", m.Kind, m.Means)
		}
	}
	if Kind("nothing").ID() != "" || (Refused+"for-a-new-reason").ID() != Refused.ID() {
		t.Error("a kind that nobody declared has the MESSAGE_ID of another")
	}
}

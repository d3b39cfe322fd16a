package findings

import (
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2h": "2026-03-10 10:30:00", "-2h": "2026-03-10 10:30:00", "90m ago": "2026-03-10 11:00:00", "3d": "2026-03-07 12:30:00", "today": "2026-03-10 00:00:00",
		"yesterday": "2026-03-09 00:00:00", "08:15": "2026-03-10 08:15:00", "2026-03-01": "2026-03-01 00:00:00", "2026-03-01 01:02": "2026-03-01 01:02:00",
		"2026-03-01T01:02:03Z": "2026-03-01 01:02:03", "@1700000000": "2023-11-14 22:13:20", "soon": "", "": "", "5": "",
	} {
		got, err := Since(text, now)
		if want == "" {
			if err == nil {
				t.Errorf("%q is %v", text, got)
			}
		} else if said := got.UTC().Format(time.DateTime); err != nil || said != want {
			t.Errorf("%q is %s, want %s (%v)", text, said, want, err)
		}
	}
}

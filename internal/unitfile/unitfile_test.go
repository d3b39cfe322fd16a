package unitfile

import (
	"fmt"
	"strings"
	"testing"
)

// What a file says is what systemd reads in it; mountwatch/declared.TestUnitsLikeSystemd holds the same against systemd itself.
func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"sections", "A=0\n[Unit]\nA = 1 \n[Mount]\nB==2", ".A=0@1 Unit.A=1@3 Mount.B==2@5", ""},
		{"comments", "# x\n[Mount]\n ; y\nA=1 # no comment\n", "Mount.A=1 # no comment@4", ""},
		{"goes on", "[M]\nA=1,\\\n# a comment\n\t; another\n  2\nB=3", "M.A=1,   2@2 M.B=3@6", ""},
		{"goes on up to an empty line", "[M]\nA=1 \\\n\nB=2", "M.A=1@2 M.B=2@4", ""},
		{"goes on up to the end", "[M]\nA=1 \\", "M.A=1@2", ""},
		{"two backslashes", "[M]\nA=1\\\\\nB=2\\\\\\\n3", `M.A=1\\@2 M.B=2\\ 3@3`, ""},
		{"without an equals sign", "[M]\nA=1\nnothing\nB=2", "M.A=1@2 M.B=2@4", ""},
		{"empty", "[M]\nA=1\nA=\n", "M.A=1@2 M.A=@3", ""},
		{"ends of lines", "\ufeff[M]\r\nA=1\r\n\r\nB=2\x00C=3\rD=4", "M.A=1@2 M.B=2@4 M.C=3@5 M.D=4@6", ""},
		{"other blanks", "[M]\n\u00a0A=\u20281\u2028", "M.\u00a0A=\u20281\u2028@2", ""},
		{"no section", "[M]\nA=1\n[M] # x\nB=2", "M.A=1@2", `line 3 is no section: "[M] # x"`},
		{"bytes", "[M]\nA=1\nB=\xff\nC=2", "M.A=1@2", "line 3 is not UTF-8"},
		{"bytes in a comment", "[M]\n# \xff\nC=2", "M.C=2@3", ""},
		{"long", "[M]\nA=" + strings.Repeat("x", maxLine-3), "M.A=" + strings.Repeat("x", maxLine-3) + "@2", ""},
		{"too long", "[M]\nA=" + strings.Repeat("x", maxLine-2), "", "line 2 is longer than 1 MiB"},
		{"too long in parts", "[M]\nA=" + strings.Repeat(strings.Repeat("x", 1<<16)+"\\\n", 16) + "x", "", "line 2 is longer than 1 MiB"},
	} {
		all, err := Parse(c.text)
		var got []string
		for _, o := range all {
			got = append(got, fmt.Sprintf("%s.%s=%s@%d", o.Section, o.Name, o.Value, o.Line))
		}
		if joined := strings.Join(got, " "); joined != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: got %.200q %v\nwant %.200q %s", c.name, joined, err, c.want, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[Mount]\nWhat=/dev/vdb\nOptions=a,\\\n# x\n b\n")
	f.Add("\ufeff[Unit]\r\nAfter=\n;\n[x")
	f.Fuzz(func(t *testing.T, text string) {
		all, _ := Parse(text)
		last := 0
		for _, o := range all {
			if strings.ContainsAny(o.Section+o.Name+o.Value, "\n\r\x00") || o.Line <= last || o.Name != strings.Trim(o.Name, blanks) || o.Value != strings.Trim(o.Value, blanks) {
				t.Errorf("%+v after line %d", o, last)
			}
			last = o.Line
		}
	})
}

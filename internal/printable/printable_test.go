package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"plain", "/srv/data", "/srv/data"},
		{"other scripts", "Ünïcode λ 数据 ไทย 🙂", "Ünïcode λ 数据 ไทย 🙂"},
		{"a combining accent", "e\u0301", "e\u0301"},
		{"a unit's escape stays", `dev-disk-by\x2dlabel.device`, `dev-disk-by\x2dlabel.device`},
		{"a backslash stays", `CORP\svc`, `CORP\svc`},
		{"quotes stay", `a "b" 'c'`, `a "b" 'c'`},
		{"lines", "x)\nselinux-provision: done\r\n", `x)\nselinux-provision: done\r\n`},
		{"a colour", "\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		{"nul, bell, backspace, tab, delete", "\x00\a\b\t\x7f", `\x00\a\b\t\x7f`},
		{"controls beyond ASCII", "\u0085\u009b31m", `\u0085\u009b31m`},
		{"the same as single bytes", "\x85\x9b31m", `\x85\x9b31m`},
		{"not UTF-8", "a\xff\xc3(b", `a\xff\xc3(b`},
		{"a surrogate", "\xed\xa0\x80", `\xed\xa0\x80`},
		{"the character for what was not UTF-8 elsewhere", "\ufffd", "\ufffd"},
		{"direction of writing", "a\u202egnp.exe\u2066\u200f", `a\u202egnp.exe\u2066\u200f`},
		{"zero width", "a\u200bb\u200dc\ufeffd\u00ade", `a\u200bb\u200dc\ufeffd\u00ade`},
		{"blanks that are no space", "a\u00a0b\u3000c\u2028d\u2029e", `a\u00a0b\u3000c\u2028d\u2029e`},
		{"letters without a shape", "a\u3164b\u115fc\u2800d\u034fe", `a\u3164b\u115fc\u2800d\u034fe`},
		{"variation selectors and tags", "a\ufe0fb\U000e0100c\U000e0041", `a\ufe0fb\U000e0100c\U000e0041`},
		{"private use and unassigned", "\ue000\U0010ffff", `\ue000\U0010ffff`},
	} {
		if got := Text(c.in); got != c.want {
			t.Errorf("%s: %q is written %s, want %s", c.name, c.in, got, c.want)
		}
	}
}

func TestLineQuoteClip(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Line("cannot do it:\n  \tbecause\r\n\nof \x1b[0m\n"), `cannot do it: because of \x1b[0m`},
		{Line("\n"), ""},
		{Quote("a"), `"a"`},
		{Quote("a\" b\n"), `"a\" b\n"`},
		{Quote(`a\x2d`), `"a\x2d"`},
		{Lines("cannot do it:\n\t\u202ebecause\r\n"), "cannot do it:\n\\t\\u202ebecause\\r\n"},
		{Lines("a\x1b"), `a\x1b`},
		{Clip("abc", 3), "abc"},
		{Clip("abcd", 3), "abc…"},
		{Clip("aäb", 2), "a…"},
		{Clip("\x80\x80\x80", 1), "…"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": "b c"}`: `{"a": "b c"}`,
		"{\n  \"a\": \"Ünïcode 数据 🙂\"\n}": "{\n  \"a\": \"Ünïcode 数据 🙂\"\n}",
		"\"\x7f\"":                   `"\u007f"`,
		"\"a\u202egnp\u2066\u0085\"": `"a\u202egnp\u2066\u0085"`,
		"\"\U000e0041\U0010ffff\"":   `"\udb40\udc41\udbff\udfff"`,
		`"\\x\u001b\n"`:              `"\\x\u001b\n"`,
	} {
		if got := string(JSON([]byte(in))); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// What a program decodes is what was encoded, and what a terminal gets prints.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"", "/srv/data", "\x7f\u202e", "\U000e0041", `\"`, "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		plain, err := json.MarshalIndent(map[string]string{"key": s}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]string
		shown := JSON(plain)
		if err := errors.Join(json.Unmarshal(plain, &before), json.Unmarshal(shown, &after)); err != nil || before["key"] != after["key"] {
			t.Errorf("%q is read as %q (%v)", before, after, err)
		}
		if bytes.ContainsFunc(shown, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", s, shown)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "/srv/data", "\x1b[2J", "a\xffb", "\u202e", `\x1b`, "\xed\xa0\x80", "a\nb\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Text(s), Line(s), Quote(s)} {
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is written %q", s, got)
			}
			if again := Text(got); again != got {
				t.Errorf("%q is written %q, and that %q", s, got, again)
			}
		}
		if plain := !strings.ContainsFunc(s, unseen) && utf8.ValidString(s); plain != (Text(s) == s) {
			t.Errorf("%q is written %q", s, Text(s))
		}
		if got := Clip(s, 10); len(got) > 10+len("…") || utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("%q is cut to %q", s, got)
		}
	})
}

package cil

import (
	"fmt"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"; a comment":                   "",
		"(type a_t) ; b\n(allow a b)":   "1( 1type 1a_t 1) 2( 2allow 2a 2b 2)",
		"(filecon \"/a(/.*)?\" any ())": `1( 1filecon 1"/a(/.*)?" 1any 1( 1) 1)`,
		"a\"b\"c;d":                     `1a 1"b" 1c`,
		"\n\n\"a\nb\" c":                "3\"a\nb\" 4c",
		"(\"a":                          `1( 1"a`,
		"\t(a\r\n)":                     "1( 1a 2)",
		"typeattributeset x(not(y))":    "1typeattributeset 1x 1( 1not 1( 1y 1) 1)",
	} {
		var got []string
		for token := range Tokens(text) {
			got = append(got, fmt.Sprintf("%d%s", token.Line, token.Text))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		"(type a_t)\n":                    "0 ",
		"(type a_t":                       "1 the ( here is not closed: 1 ) missing at the end",
		"(type a)\n(block x\n (type b)\n": "2 the ( here is not closed: 1 ) missing at the end",
		"(type a)\n)":                     "2 this ) has no ( before it",
		"(filecon \"/a any ())":           `1 this " has no other one behind it`,
		"\ntype a_t;":                     `2 "type" stands outside of parentheses`,
		"; ((( \"":                        "0 ",
		"(a \"(\" \")\" \";\")":           "0 ",
		"policy_module(x, 1.0)":           `1 "policy_module" stands outside of parentheses`,
		"\x8f\xff\x7c\xf9":                `1 "\x8f\xff|\xf9" stands outside of parentheses`,
	} {
		line, problem := Check(text)
		if got := fmt.Sprintf("%d %s", line, problem); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestStatement(t *testing.T) {
	const text = "(type a)\n(block x\n  (allow a b (file (read\n   write))) (type c)\n)\n(open"
	for line, want := range map[int]string{1: "type a", 2: "block x (allow a b (file (read write))) (type c)", 3: "allow a b (file (read write))", 4: "type c", 5: "", 6: "", 7: ""} {
		if got := Text(Statement(text, line)); got != want {
			t.Errorf("line %d: %q, want %q", line, got, want)
		}
	}
}

// The words are all of the text but white space and comments, in order.
func FuzzTokens(f *testing.F) {
	for _, seed := range []string{"(type a_t) ; b\n", "\"a", "a\"b\"c", "((;)\n)", "\"\n\"x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, line := 0, 1
		for token := range Tokens(text) {
			n := strings.Index(text[at:], token.Text)
			if n < 0 || token.Text == "" || token.Line < line {
				t.Fatalf("%q is not there in order", token.Text)
			}
			line = token.Line
			if token.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("line %d of %q", token.Line, text)
			}
			at += n + len(token.Text)
		}
		Check(text)
	})
}

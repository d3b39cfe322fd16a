package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{
		{"short", 10, "short"},
		{"one two three", 8, "one two|three"},
		{"one two three", 7, "one two|three"},
		{"    one two three", 11, "    one two|    three"},
		{"  - one two three", 11, "  - one two|    three"},
		{"    -> one two three", 14, "    -> one two|       three"},
		{"stage    as declared  one two three", 40, "stage    as declared  one two three"},
		{"store    good  one two three", 24, "store    good  one two|         three"},
		{"      --flag text   one two three", 45, "      --flag text   one two three"},
		{"  --flag   one two three", 22, "  --flag   one two|           three"},
		{"/a/very/long/path/that/nobody/breaks and more", 12, "/a/very/long/path/that/nobody/breaks|and more"},
		{"a /a/very/long/path/that/nobody/breaks and more", 12, "a|/a/very/long/path/that/nobody/breaks|and more"},
		{"\x1b[32mgood\x1b[0m one", 8, "\x1b[32mgood\x1b[0m one"},
		{"\x1b[32mgood\x1b[0m one two", 8, "\x1b[32mgood\x1b[0m one|two"},
		{"ä ö ü", 3, "ä ö|ü"},
		{strings.Repeat(" ", 30) + "one two", 20, strings.Repeat(" ", 30) + "one|  two"},
	} {
		if got := strings.ReplaceAll(fold(c.line, c.width), "\n", "|"); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.line, c.width, got, c.want)
		}
	}
	var b strings.Builder
	f := &folding{to: &b, width: 8}
	fmt.Fprint(f, "one tw")
	fmt.Fprint(f, "o three\n\nfo")
	fmt.Fprint(f, "ur\n")
	if b.String() != "one two\nthree\n\nfour\n" {
		t.Errorf("%q", b.String())
	}
}

func TestParagraphs(t *testing.T) {
	if got := paragraphs("one\ntwo\n\nthree\n  a  b\n  c  d\nfour\nfive"); got != "one two\n\nthree\n  a  b\n  c  d\nfour five" {
		t.Errorf("%q", got)
	}
}

// FuzzFold: no word is lost or changed.
func FuzzFold(f *testing.F) {
	f.Add("  - one two  three", 8)
	f.Add("store    good  one two three", 24)
	f.Fuzz(func(t *testing.T, line string, width int) {
		if strings.Contains(line, "\n") || width < 1 {
			return
		}
		if got := strings.Fields(fold(line, width)); strings.Join(got, " ") != strings.Join(strings.Fields(line), " ") {
			t.Errorf("%q in %d: %q", line, width, got)
		}
	})
}

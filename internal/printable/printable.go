// Package printable writes text of others, such as the names of files, mounts, containers and commands, so that a terminal, a journal
// and a page show it as it is: nothing in it moves a cursor, ends a line, turns the direction of writing or stays unseen.
//
// One name has one spelling everywhere. Do not use it for what a program reads: it is not made to be read back. JSON alone is: its escapes are the
// format's own.
package printable

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s with Go's escape in place of each character that does not print or is not seen (\n, \x1b, \u202e), and of each byte
// that is not UTF-8 (\xff). Everything else stays, backslashes too, so that Text of its own result changes nothing.
func Text(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unseen) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1:
			quoted := strconv.Quote(s[i : i+1])
			b.WriteString(quoted[1 : len(quoted)-1])
		case unseen(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Lines is Text for each line of s; the breaks between them stay, for what shows a text of several lines as such.
func Lines(s string) string {
	if !strings.Contains(s, "\n") {
		return Text(s)
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Text(line)
	}
	return strings.Join(lines, "\n")
}

// JSON returns JSON that a terminal can show: each character that does not print or is not seen is written as JSON's own escape (\u007f,
// \u202e, and two of them for what lies beyond \uffff). What is decoded from it is the same: a program gets the name as it is.
func JSON(text []byte) []byte {
	if !bytes.ContainsFunc(text, unseenInJSON) {
		return text
	}
	shown := make([]byte, 0, len(text)+16)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case !unseenInJSON(r):
			shown = append(shown, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			shown = fmt.Appendf(shown, `\u%04x\u%04x`, high, low)
		default:
			shown = fmt.Appendf(shown, `\u%04x`, r)
		}
		text = text[size:]
	}
	return shown
}

// unseenInJSON is unseen for the text of JSON, whose own line breaks are white space: inside a string there are none.
func unseenInJSON(r rune) bool { return unseen(r) && r != '\n' }

// Line is Text for what may have several lines, such as what a tool or a library says: the lines are trimmed and joined with a blank.
func Line(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return Text(strings.Join(lines, " "))
}

// Quote is Text between quotes, for a word inside a sentence. A quote inside gets a backslash.
func Quote(s string) string { return `"` + strings.ReplaceAll(Text(s), `"`, `\"`) + `"` }

// Clip shortens s to at most longest bytes, and says so with a dot of three; no character is cut in two.
func Clip(s string, longest int) string {
	if len(s) <= longest {
		return s
	}
	for longest > 0 && !utf8.RuneStart(s[longest]) {
		longest--
	}
	return s[:longest] + "…"
}

// unseen reports whether a character does not print, or prints as nothing: controls, bidirectional and other formats, every blank but the
// space, and letters and marks that have no shape of their own.
func unseen(r rune) bool {
	const brailleBlank = '\u2800'
	return !unicode.IsPrint(r) || r == brailleBlank || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

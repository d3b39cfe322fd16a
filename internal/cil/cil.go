// Package cil reads the words of SELinux's Common Intermediate Language, as its lexer has them (libsepol, cil_lexer.l).
//
// Do not use it to find out whether a module is right: what its statements mean only libsepol knows, on the host and with the policy that
// they are added to.
package cil

import (
	"fmt"
	"iter"
	"strings"
)

// Token is one word: "(", ")", a text in quotes, or a symbol.
type Token struct {
	Text string
	Line int // from 1
}

// Quoted tells whether it is a text in quotes.
func (t Token) Quoted() bool { return strings.HasPrefix(t.Text, `"`) }

// Tokens gives the words of a text, comments left out.
func Tokens(text string) iter.Seq[Token] {
	return func(yield func(Token) bool) {
		line := 1
		for i := 0; i < len(text); {
			end := i + 1
			switch c := text[i]; {
			case c == '\n':
				line++
				i++
				continue
			case c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f':
				i++
				continue
			case c == ';':
				if end = strings.IndexByte(text[i:], '\n'); end < 0 {
					return
				}
				i += end
				continue
			case c == '"':
				if n := strings.IndexByte(text[i+1:], '"'); n >= 0 {
					end = i + 1 + n + 1
				} else {
					end = len(text)
				}
			case c != '(' && c != ')':
				if n := strings.IndexAny(text[i:], " \t\r\v\f\n;\"()"); n >= 0 {
					end = i + n
				} else {
					end = len(text)
				}
			}
			if !yield(Token{text[i:end], line}) {
				return
			}
			line += strings.Count(text[i:end], "\n")
			i = end
		}
	}
}

// Check finds what no module in CIL can have: a parenthesis or a quote without its other half, and what stands outside of parentheses. It
// gives the line, and "" if there is nothing of that kind.
func Check(text string) (line int, problem string) {
	var open []int // the lines of the parentheses that are open
	for t := range Tokens(text) {
		switch {
		case t.Text == "(":
			open = append(open, t.Line)
		case t.Text == ")" && len(open) == 0:
			return t.Line, "this ) has no ( before it"
		case t.Text == ")":
			open = open[:len(open)-1]
		case t.Quoted() && (len(t.Text) == 1 || !strings.HasSuffix(t.Text, `"`)):
			return t.Line, `this " has no other one behind it`
		case len(open) == 0:
			return t.Line, fmt.Sprintf("%.40q stands outside of parentheses", t.Text)
		}
	}
	if len(open) > 0 {
		return open[0], fmt.Sprintf("the ( here is not closed: %d ) missing at the end", len(open))
	}
	return 0, ""
}

// Statement gives the words of the first statement that begins in a line, without its outer parentheses; nil if none begins there or it does not
// end.
func Statement(text string, line int) (words []Token) {
	depth := 0
	for t := range Tokens(text) {
		switch {
		case depth == 0 && (t.Line != line || t.Text != "("):
			continue
		case t.Text == "(":
			depth++
		case t.Text == ")":
			depth--
		}
		if depth == 0 {
			return words
		}
		if depth > 1 || t.Text != "(" {
			words = append(words, t)
		}
	}
	return nil
}

// Text writes words as a person would.
func Text(words []Token) string {
	var b strings.Builder
	for i, t := range words {
		if i > 0 && t.Text != ")" && words[i-1].Text != "(" {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}

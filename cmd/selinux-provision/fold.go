package main

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
)

// screen is standard output for what a person reads: on a terminal no line is longer than that is wide.
func (a *app) screen() io.Writer {
	if width := terminalWidth(a.stdout); width > 0 {
		return &folding{to: a.stdout, width: width}
	}
	return a.stdout
}

// terminalWidth is the number of columns of the terminal that w is; 0: it is none, or too narrow to make a difference.
func terminalWidth(w io.Writer) int {
	const narrowest = 30
	f, is := terminal(w)
	if !is {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < narrowest {
		return 0
	}
	return width
}

// folding breaks each line that is too long between words.
type folding struct {
	to    io.Writer
	width int
	rest  []byte // the beginning of a line
}

// Write is an io.Writer's. What is behind the last line feed waits for the next call.
func (f *folding) Write(p []byte) (int, error) {
	f.rest = append(f.rest, p...)
	for {
		line, rest, whole := bytes.Cut(f.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if _, err := io.WriteString(f.to, fold(string(line), f.width)+"\n"); err != nil {
			return 0, err
		}
		f.rest = rest
	}
}

var (
	column   = lazyregexp.New(`^ *\S+( \S+)* {2,}`) // what is in front of the second column
	lead     = lazyregexp.New(`^ *(- |! |-> )?`)
	sequence = lazyregexp.New("\x1b\\[[0-9;]*m") // of colours, which take no room
)

func columns(s string) int { return utf8.RuneCountInString(sequence().ReplaceAllString(s, "")) }

// fold breaks a line between words. What follows is indented as the second column is, if there is one and it leaves room, else as the text
// of the line. A word that is too long stays whole: it may be a path that somebody copies.
func fold(line string, width int) string {
	if columns(line) <= width {
		return line
	}
	plain := sequence().ReplaceAllString(line, "")
	indent := len(lead().FindString(plain))
	if second := len(column().FindString(plain)); second > 0 && second <= width/2 {
		indent = second
	} else if indent > width/2 {
		indent = 2
	}
	text := strings.TrimLeft(line, " ")
	var b strings.Builder
	b.WriteString(line[:len(line)-len(text)])
	used := b.Len()
	for n, word := range strings.SplitAfter(text, " ") {
		if n > 0 && used+columns(strings.TrimRight(word, " ")) > width && used > indent {
			above := strings.TrimRight(b.String(), " ")
			b.Reset()
			b.WriteString(above + "\n" + strings.Repeat(" ", indent))
			used = indent
			if strings.TrimSpace(word) == "" {
				continue
			}
		}
		b.WriteString(word)
		used += columns(word)
	}
	return strings.TrimRight(b.String(), " ")
}

// foldHelp has the help text of every command fit a terminal: its paragraphs are put together first, as they were broken for a wide one.
func (a *app) foldHelp(root *cobra.Command) {
	width := terminalWidth(a.stdout)
	if width == 0 {
		return
	}
	root.SetOut(a.screen())
	show := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Long = paragraphs(cmd.Long)
		show(cmd, args)
	})
}

// paragraphs makes one line of each paragraph; what is indented stays as it is.
func paragraphs(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		prose := line != "" && line[0] != ' '
		switch {
		case prose && inside:
			b.WriteByte(' ')
		case b.Len() > 0:
			b.WriteByte('\n')
		}
		b.WriteString(line)
		inside = prose
	}
	return b.String()
}

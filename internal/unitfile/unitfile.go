// Package unitfile reads the files of systemd's units as systemd does: units, drop-ins, and what has their form, such as quadlets.
//
// It gives what stands in one file. Which files make a unit, what a setting means, and what an empty value takes back is for those who ask.
// Do not use it to find out what a unit of the running host is: systemd tells that.
package unitfile

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Option is an assignment in a unit file. Its texts are without the blanks around them, and otherwise as they are written: specifiers, quotes
// and escapes are there.
type Option struct {
	Section string // "Mount"; "" before the first
	Name    string
	Value   string // "" takes back what came before, of most settings
	Line    int    // where it begins; the first line is 1
}

const (
	// maxLine is how long a line may be, with all that it goes on with, in bytes (LONG_LINE_MAX in systemd's fileio.h).
	maxLine = 1 << 20
	blanks  = " \t\n\r"
)

// Parse reads a unit file: systemd.syntax(7), and config_parse in systemd's conf-parser.c, where it says more. A line that goes on behind a
// backslash goes on with a blank in its place, over comments, and up to an empty line; two backslashes are one that is meant. A line without "=" is
// left out.
//
// What systemd cannot read further is an error, beside what stands before it: a section without its bracket, what is not UTF-8, and a line that
// is too long. Systemd does not load such a unit. Of such a drop-in it takes what stands before.
func Parse(text string) (all []Option, err error) {
	var (
		section, pending string
		begin            int
	)
	take := func() error {
		line := strings.Trim(pending, blanks)
		pending = ""
		switch {
		case line == "":
			return nil
		case !utf8.ValidString(line):
			return fmt.Errorf("line %d is not UTF-8", begin)
		case line[0] == '[':
			if !strings.HasSuffix(line, "]") {
				return fmt.Errorf("line %d is no section: %s", begin, printable.Quote(printable.Clip(line, 80)))
			}
			section = line[1 : len(line)-1]
			return nil
		}
		if name, value, ok := strings.Cut(line, "="); ok {
			all = append(all, Option{section, strings.Trim(name, blanks), strings.Trim(value, blanks), begin})
		}
		return nil
	}
	// These end a line for systemd (read_line_full in fileio.c).
	text = strings.NewReplacer("\r\n", "\n", "\n\r", "\n", "\r", "\n", "\x00", "\n").Replace(strings.TrimPrefix(text, "\ufeff"))
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if comment := strings.TrimLeft(line, blanks); comment != "" && (comment[0] == '#' || comment[0] == ';') {
			continue
		}
		if pending == "" {
			begin = n
		}
		if len(pending)+len(line) >= maxLine {
			return all, fmt.Errorf("line %d is longer than 1 MiB", begin)
		}
		pending += line
		if backslashes := len(line) - len(strings.TrimRight(line, `\`)); backslashes%2 == 1 {
			pending = strings.TrimSuffix(pending, `\`) + " "
			continue
		}
		if err := take(); err != nil {
			return all, err
		}
	}
	return all, take()
}

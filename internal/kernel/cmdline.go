package kernel

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// CommandLine is what the kernel's command line says about SELinux. A nil field says that it is silent there.
type CommandLine struct {
	// Enforcing is the mode that beats /etc/selinux/config. The one who reads it last is PID 1, through libselinux, and so
	// this is libselinux's reading: every enforcing= that begins a word counts, also in quotes and behind "--", the last
	// one wins, and what is not a number is permissive.
	Enforcing *bool
	// Ambiguous says that libselinux before 3.10 reads another mode from this line than Enforcing. It looks at the first
	// "enforcing=" alone, and not at all if that does not begin a word.
	Ambiguous bool
	// SELinux is what selinux= says, as the kernel reads it: quotes are obeyed, what follows "--" belongs to PID 1, and what
	// is not a number is ignored.
	SELinux *bool
	// Raw is the line, without its end.
	Raw string
}

// maxCommandLine is above COMMAND_LINE_SIZE of every architecture.
const maxCommandLine = 64 << 10

// ParseCommandLine reads a line such as that of /proc/cmdline.
func ParseCommandLine(r io.Reader) (CommandLine, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxCommandLine+1))
	if err != nil {
		return CommandLine{}, fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	if len(content) > maxCommandLine {
		return CommandLine{}, errors.New("cannot read the kernel's command line: it is longer than any kernel's")
	}
	line, _, _ := strings.Cut(string(content), "\n")
	line, _, _ = strings.Cut(line, "\x00")

	c := CommandLine{Raw: line, Enforcing: enforcing(line)}
	old := enforcingBefore310(line)
	c.Ambiguous = (c.Enforcing == nil) != (old == nil) || old != nil && *old != *c.Enforcing
	for key, value := range arguments(line) {
		if key != "selinux" {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimPrefix(value, "+"), 0, 64); err == nil && !strings.Contains(value, "_") {
			on := n != 0
			c.SELinux = &on
		}
	}
	return c, nil
}

const enforcingKey = "enforcing="

func enforcing(line string) *bool {
	var last *bool
	for at := 0; ; {
		i := strings.Index(line[at:], enforcingKey)
		if i < 0 {
			return last
		}
		begin := at + i
		at = begin + len(enforcingKey)
		if begin == 0 || space(line[begin-1]) {
			n, ok := leadingNumber(line[at:], true)
			on := ok && n != 0
			last = &on
		}
	}
}

// enforcingBefore310 can go when no supported release has a libselinux older than 3.10.
func enforcingBefore310(line string) *bool {
	i := strings.Index(line, enforcingKey)
	if i < 0 || i > 0 && !space(line[i-1]) {
		return nil
	}
	n, _ := leadingNumber(line[i+len(enforcingKey):], false)
	if n < 0 {
		return nil
	}
	on := n != 0
	return &on
}

// leadingNumber reads as C's strtol does, with the base taken from the prefix or ten: white space, a sign, then as many
// digits as there are. Only whether the number is below, equal to or above zero is of interest, so it gives -1, 0 or 1; ok
// is false if there is no digit or the number does not fit.
func leadingNumber(text string, anyBase bool) (sign int, ok bool) {
	for text != "" && space(text[0]) {
		text = text[1:]
	}
	sign = 1
	if text != "" && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			sign = -1
		}
		text = text[1:]
	}
	base := 10
	if anyBase && len(text) > 1 && text[0] == '0' {
		base = 8
		if len(text) > 2 && text[1]|0x20 == 'x' && digit(text[2]) < 16 {
			base, text = 16, text[2:]
		}
	}
	end := 0
	for end < len(text) && digit(text[end]) < base {
		end++
	}
	if end == 0 {
		return 0, false
	}
	digits := strings.TrimLeft(text[:end], "0")
	if digits == "" {
		return 0, true
	}
	if sign < 0 {
		digits = "-" + digits
	}
	if _, err := strconv.ParseInt(digits, base, 64); err != nil {
		return sign, false
	}
	return sign, true
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'z':
		return int(c|0x20-'a') + 10
	}
	return 99
}

// space is isspace of the C locale.
func space(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r'
}

// arguments gives the kernel's own arguments, in order: up to the argument "--", quotes around a word or a value taken off.
func arguments(line string) func(yield func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		for {
			for line != "" && space(line[0]) {
				line = line[1:]
			}
			if line == "" {
				return
			}
			quoted, end := false, 0
			for ; end < len(line) && (quoted || !space(line[end])); end++ {
				if line[end] == '"' {
					quoted = !quoted
				}
			}
			word := line[:end]
			line = line[end:]
			if strings.HasPrefix(word, `"`) {
				word = strings.TrimSuffix(word[1:], `"`)
			}
			key, value, _ := strings.Cut(word, "=")
			if strings.HasPrefix(value, `"`) {
				value = strings.TrimSuffix(value[1:], `"`)
			}
			if word == "--" || !yield(key, value) {
				return
			}
		}
	}
}

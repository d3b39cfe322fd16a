package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

const (
	// maxLine is how much of a line is looked at, in bytes. The rest is a superblock's last options: the kernel writes those of the
	// security modules first (fs/proc_namespace.c, show_mountinfo).
	maxLine = 1 << 20
	// maxValue is the longest value of a superblock's option that is kept, in bytes. A context has at most 4096 with all categories
	// written out; such a one is kept in any case.
	maxValue = 1 << 10
	// maxOptions is how much of a superblock's options is kept in all, and maxPath of a root, a mountpoint and a source: no call takes a path
	// of more than 4096 bytes, which are up to four times as many when they are escaped. With these, a line is below the 64 KiB beyond which
	// package mountinfo refuses the whole table.
	maxOptions = 12 << 10
	maxPath    = 16 << 10
)

// Read gives the mount table of the calling thread's mount namespace, oldest first as far as the kernel tells it.
func Read() ([]*Mount, error) {
	// Not /proc/self: that is the thread which the process began with, and it may have left the namespace, or be gone.
	return read("thread-self", "the mount table")
}

// ReadHost gives the mount table of the host, which is that of PID 1, to a process that is in another mount namespace. It needs CAP_SYS_PTRACE.
func ReadHost() ([]*Mount, error) { return read("1", "the host's mount table") }

// read gives the mount table that a process or thread sees, by its name in /proc.
func read(process, what string) ([]*Mount, error) {
	f, err := os.Open("/proc/" + process + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", what, err)
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads a table in the format of /proc/PID/mountinfo. Lines may be of any length. A line that is not in this format is an
// error, which names it: the kernel writes no such line, so whatever r is, it is not what the caller thinks.
func Parse(r io.Reader) ([]*Mount, error) {
	var all []*Mount
	err := parse(r, func([]byte) bool { return false }, func(m *Mount) { all = append(all, m) })
	if err != nil {
		return nil, err
	}
	return all, nil
}

// parse calls take with the mount of every line but those that known recognises, each before known is called with the next line. The
// line, without its end and cut off at maxLine, is valid during the call only.
func parse(r io.Reader, known func(line []byte) bool, take func(*Mount)) error {
	// The kernel gives a page or more at a time, never less than a line.
	in := &lines{in: bufio.NewReaderSize(r, 64<<10), known: known}
	_, err := mountinfo.GetMountsFromReader(in, func(i *mountinfo.Info) (skip, stop bool) {
		take(&Mount{
			ID: i.ID, Parent: i.Parent, Device: Device{uint32(i.Major), uint32(i.Minor)}, Root: i.Root, Mountpoint: i.Mountpoint,
			Options: i.Options, Optional: i.Optional, FSType: i.FSType, Source: i.Source, SuperOptions: i.VFSOptions,
			Shortened: in.shortened,
		})
		return true, false
	})
	return err
}

// lines is what package mountinfo reads from: the lines of a table as that package can take them. What it would take for a mount and is none
// is an error here, and what is too long for it is shortened. Each Read gives one line or the rest of one, so that the package has parsed a
// line before the next one is looked at.
type lines struct {
	in     *bufio.Reader
	known  func(line []byte) bool
	number int

	long      []byte // a line of several parts
	line      []byte // the line that is being given
	rest      []byte // of it
	shortened bool   // it holds less than the kernel wrote
}

// Read is an io.Reader's.
func (l *lines) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// next finds the next line that is not known.
func (l *lines) next() error {
	for {
		line, cut, err := l.raw()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			continue
		}
		l.number++
		if l.known(line) {
			continue
		}
		l.shortened = cut
		if err := l.fit(line); err != nil {
			return fmt.Errorf("cannot use line %d of the mount table: %w", l.number, err)
		}
		l.rest = l.line
		return nil
	}
}

// raw gives the next line without its end, at most maxLine bytes of it, and tells whether that is less than all.
func (l *lines) raw() (line []byte, cut bool, err error) {
	l.long = l.long[:0]
	for {
		part, err := l.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part[:min(len(part), maxLine+1-len(l.long))]...)
			continue
		case errors.Is(err, io.EOF) && len(part)+len(l.long) > 0: // the last line has no end
		case errors.Is(err, io.EOF):
			return nil, false, io.EOF
		case err != nil:
			return nil, false, fmt.Errorf("cannot read the mount table: %w", err)
		}
		line := bytes.TrimSuffix(part, []byte("\n"))
		if len(l.long) > 0 {
			l.long = append(l.long, line[:min(len(line), maxLine+1-len(l.long))]...)
			line = l.long
		}
		return line[:min(len(line), maxLine)], len(line) > maxLine, nil
	}
}

var (
	errFields = errors.New("it has too few fields")
	errDash   = errors.New(`it has no " - " after the first six fields`)
	errLong   = errors.New("it has too many optional fields, or too long ones")
)

// fit writes a line as package mountinfo can take it. Fields are parted by exactly one space, and any of them may be empty: the source of a
// tmpfs often is.
func (l *lines) fit(line []byte) error {
	before, after, found := bytes.Cut(line, []byte(" - "))
	if !found {
		return errDash
	}
	head, tail := bytes.SplitN(before, []byte(" "), 7), bytes.SplitN(after, []byte(" "), 3)
	if len(head) < 6 || len(tail) < 3 {
		return errFields
	}
	major, minor, _ := bytes.Cut(head[2], []byte(":"))
	switch {
	case !isNumber(head[0], 31):
		return fmt.Errorf("%s is no ID", printable.Quote(string(clip(head[0]))))
	case !isNumber(head[1], 31):
		return fmt.Errorf("%s is no ID", printable.Quote(string(clip(head[1]))))
	case !isNumber(major, 32) || !isNumber(minor, 32):
		return fmt.Errorf("%s is no device number", printable.Quote(string(clip(head[2]))))
	case len(head[3]) == 0 || len(head[4]) == 0 || head[4][0] != '/':
		return errFields
	}
	l.line = l.line[:0]
	for i, field := range head {
		if i == 3 || i == 4 {
			field = field[:min(len(field), maxPath)]
		}
		l.line = append(append(l.line, field...), ' ')
	}
	l.line = append(append(append(l.line, "- "...), tail[0]...), ' ')
	l.line = append(append(l.line, tail[1][:min(len(tail[1]), maxPath)]...), ' ')
	var shortened bool
	l.line, shortened = appendOptions(l.line, tail[2])
	l.line = append(l.line, '\n')
	l.shortened = l.shortened || shortened
	if len(l.line) > bufio.MaxScanTokenSize {
		return errLong
	}
	return nil
}

func isNumber(text []byte, bits int) bool {
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' || n >= 1<<bits {
			return false
		}
		n = 10*n + uint64(c-'0')
	}
	return len(text) > 0 && n < 1<<bits
}

// appendOptions puts "..." in the place of values that are too long to be kept for nothing, and leaves out what is too much.
func appendOptions(to, options []byte) (_ []byte, shortened bool) {
	if len(options) <= maxValue {
		return appendBlanks(to, options), false
	}
	start := len(to)
	last := ""
	for each := range SplitOptions(string(options)) {
		key, value, _ := strings.Cut(each, "=")
		switch {
		case len(each) <= maxValue && !strings.HasSuffix(key, "+"), strings.HasSuffix(key, "context") && len(value) <= 4*maxValue:
		case key == last: // an overlay of Linux 6.8 has one lowerdir+= for each layer
			continue
		default:
			last, each, shortened = key, key[:min(len(key), maxValue)]+"=...", true
		}
		if len(to)-start+len(each) > maxOptions {
			return to, true
		}
		if len(to) > start {
			to = append(to, ',')
		}
		to = appendBlanks(to, []byte(each))
	}
	return to, shortened
}

// appendBlanks writes the blanks in options as the kernel does in other fields. Linux before 3.10 has them there from a share of a Windows
// server, and package mountinfo takes what follows them for further fields, or for the end of a line.
func appendBlanks(to, options []byte) []byte {
	for _, c := range options {
		switch c {
		case ' ':
			to = append(to, `\040`...)
		case '\r':
			to = append(to, `\015`...)
		default:
			to = append(to, c)
		}
	}
	return to
}

// shorten is appendOptions for options that come from elsewhere.
func shorten(options []byte) (short string, shortened bool) {
	text, shortened := appendOptions(nil, options)
	return string(text), shortened
}

// Unescape decodes what the kernel writes as a backslash and three octal digits (fs/seq_file.c, mangle_path). Anything else is left
// as it is. A Mount's options are as the kernel writes them; its other fields are decoded.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(v))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func clip(s []byte) []byte { return s[:min(len(s), 40)] }

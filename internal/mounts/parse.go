package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// maxLine is how much of a line is looked at, in bytes. The rest is a superblock's last options: the kernel writes those of the
	// security modules first (fs/proc_namespace.c, show_mountinfo).
	maxLine = 1 << 20
	// maxValue is the longest value of a superblock's option that is kept, in bytes. A context has at most 4096 with all categories
	// written out; such a one is kept in any case.
	maxValue = 1 << 10
)

// Parse reads a table in the format of /proc/PID/mountinfo. Lines may be of any length. A line that is not in this format is an
// error, which names it: the kernel writes no such line, so whatever r is, it is not what the caller thinks.
func Parse(r io.Reader) ([]*Mount, error) {
	var all []*Mount
	err := eachLine(r, func(line []byte, cut bool) error {
		m, err := parseLine(line, cut)
		if err != nil {
			return fmt.Errorf("cannot use line %d of the mount table: %w", len(all)+1, err)
		}
		all = append(all, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// eachLine calls take with every line, without its end, cut off at maxLine. The line is valid during the call only.
func eachLine(r io.Reader, take func(line []byte, cut bool) error) error {
	// The kernel gives a page or more at a time, never less than a line.
	in := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		part, err := in.ReadSlice('\n')
		last := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part[:min(len(part), maxLine+1-len(long))]...)
			continue
		case err != nil && !last:
			return fmt.Errorf("cannot read the mount table: %w", err)
		}
		line := bytes.TrimSuffix(part, []byte("\n"))
		if len(long) > 0 {
			long = append(long, line[:min(len(line), maxLine+1-len(long))]...)
			line = long
		}
		cut := len(line) > maxLine
		if len(line) > 0 {
			if err := take(line[:min(len(line), maxLine)], cut); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		if cap(long) > maxLine/4 {
			long = nil
		}
		long = long[:0]
	}
}

var (
	errFields = errors.New("it has too few fields")
	errDash   = errors.New(`it has no " - " after the first six fields`)
)

// parseLine reads one line. Fields are parted by exactly one space, and any of them may be empty: the source of a tmpfs often is.
func parseLine(text []byte, cut bool) (*Mount, error) {
	before, after, found := bytes.Cut(text, []byte(" - "))
	if !found {
		return nil, errDash
	}
	tail := bytes.SplitN(after, []byte(" "), 3)
	if len(tail) < 3 {
		return nil, errFields
	}
	options, shortened := shorten(tail[2])
	// One string for all fields, so that a mount is two pieces of memory.
	line := string(before) + " " + string(tail[0]) + " " + string(tail[1]) + " " + options
	next := func() (field string, ok bool) {
		field, line, ok = strings.Cut(line, " ")
		return field, ok
	}
	m := &Mount{Shortened: shortened || cut, SuperOptions: line[len(line)-len(options):]}
	line = line[:len(line)-len(options)]

	var err error
	number := func() int {
		field, _ := next()
		n, wrong := strconv.ParseUint(field, 10, 31)
		if wrong != nil && err == nil {
			err = fmt.Errorf("%q is no ID", clip(field))
		}
		return int(n)
	}
	m.ID, m.Parent = number(), number()
	device, _ := next()
	if err != nil {
		return nil, err
	}
	if m.Device, err = parseDevice(device); err != nil {
		return nil, err
	}
	for i, field := range []*string{&m.Root, &m.Mountpoint} {
		value, ok := next()
		if !ok || value == "" || i == 1 && value[0] != '/' {
			return nil, errFields
		}
		*field = Unescape(value)
	}
	m.Options, _ = next()
	head := strings.Count(line, " ") - 2 // what is left of the first part: optional fields, then type and source with a space each
	for i := range head {
		field, _ := next()
		if i > 0 {
			m.Optional += " "
		}
		m.Optional += field
	}
	fstype, _ := next()
	source, _ := next()
	m.FSType, m.Source = Unescape(fstype), Unescape(source)
	return m, nil
}

func parseDevice(text string) (Device, error) {
	major, minor, _ := strings.Cut(text, ":")
	a, err := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if err != nil || err2 != nil {
		return Device{}, fmt.Errorf("%q is no device number", clip(text))
	}
	return Device{Major: uint32(a), Minor: uint32(b)}, nil
}

// shorten puts "..." in the place of values that are too long to be kept for nothing.
func shorten(options []byte) (short string, shortened bool) {
	if len(options) <= maxValue {
		return string(options), false
	}
	var b strings.Builder
	for each := range SplitOptions(string(options)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		key, value, _ := strings.Cut(each, "=")
		if len(each) <= maxValue || strings.HasSuffix(key, "context") && len(value) <= 4*maxValue {
			b.WriteString(each)
			continue
		}
		b.WriteString(key[:min(len(key), maxValue)] + "=...")
		shortened = true
	}
	return b.String(), shortened
}

// Unescape decodes what the kernel writes as a backslash and three octal digits (fs/seq_file.c, mangle_path). Anything else is left
// as it is.
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

func clip(s string) string { return s[:min(len(s), 40)] }

// Package textform finds out in which form a text is that a person wrote or copied, before anybody reads it: UTF-8 with a byte order mark,
// as editors on Windows write it, is read without the mark; a log that is compressed with gzip or bzip2 is unpacked; what is UTF-16 or
// compressed otherwise is refused by name, with what to do.
//
// It is the one place for that: configurations, modules in CIL, Butane and Ignition files, and logs are read through it. Do not use it for
// what a program of the host wrote for another one, such as file_contexts: what libselinux makes of a mark there is what counts.
package textform

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// mark is U+FEFF in UTF-8.
const mark = "\xef\xbb\xbf"

// Error says that a text is in a form that is not read.
type Error struct {
	// Is says what it is, Do what helps.
	Is, Do string
}

func (e *Error) Error() string { return e.Is + ": " + e.Do }

// Marked tells whether a text begins with the byte order mark of UTF-8.
func Marked(content []byte) bool { return bytes.HasPrefix(content, []byte(mark)) }

// Text gives a text without its byte order mark, and an *Error if it is none that can be read as UTF-8. Whether each of its characters is
// one is for its reader to find out.
func Text(content []byte) ([]byte, error) {
	if tool := packer(content); tool != "" {
		return nil, &Error{"it is compressed with " + tool, "unpack it: " + tool + " -dc"}
	}
	if wide := wide(content); wide != "" {
		return nil, &Error{"its characters are " + wide, "save it as UTF-8"}
	}
	return bytes.TrimPrefix(content, []byte(mark)), nil
}

// wide names the form of a text whose characters are not of bytes, "" if it is none. Without a mark the zero bytes of what every
// configuration begins with tell.
func wide(content []byte) string {
	switch {
	case bytes.HasPrefix(content, []byte("\xff\xfe\x00\x00")), bytes.HasPrefix(content, []byte("\x00\x00\xfe\xff")):
		return "UTF-32"
	case bytes.HasPrefix(content, []byte("\xff\xfe")), bytes.HasPrefix(content, []byte("\xfe\xff")):
		return "UTF-16"
	case len(content) < 4:
		return ""
	}
	zero := [4]bool{content[0] == 0, content[1] == 0, content[2] == 0, content[3] == 0}
	if zero == [4]bool{false, true, false, true} || zero == [4]bool{true, false, true, false} {
		return "UTF-16"
	}
	return ""
}

// packer names the tool that compressed something, "" if none did.
func packer(content []byte) string {
	for _, form := range []struct{ begin, tool string }{
		{"\x1f\x8b\x08", "gzip"}, {"BZh", "bzip2"}, {"\xfd7zXZ\x00", "xz"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"\x04\x22\x4d\x18", "lz4"},
	} {
		if bytes.HasPrefix(content, []byte(form.begin)) {
			return form.tool
		}
	}
	return ""
}

// Reader gives a log as a text, unpacked if it was compressed with gzip or bzip2, and without its byte order mark. It finds out at the first
// read, so that nobody waits before; that read gives an *Error if the log is in another form.
func Reader(in io.Reader) io.Reader { return &reader{in: bufio.NewReader(in)} }

type reader struct {
	in   *bufio.Reader
	text io.Reader // nil before the first read
	err  error
}

// Read is that of io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.text == nil && r.err == nil {
		r.text, r.err = open(r.in)
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.text.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && r.text != io.Reader(r.in) {
		err = damaged(err)
	}
	return n, err
}

func open(in *bufio.Reader) (io.Reader, error) {
	head, err := in.Peek(6)
	if len(head) == 0 {
		return nil, err
	}
	var unpacked io.Reader
	switch packer(head) {
	case "gzip":
		if unpacked, err = gzip.NewReader(in); err != nil {
			return nil, damaged(err)
		}
	case "bzip2":
		unpacked = bzip2.NewReader(in)
	default:
		return unmarked(in, head)
	}
	// What is compressed twice is none of ours.
	text := bufio.NewReader(unpacked)
	if head, err = text.Peek(6); err != nil && !errors.Is(err, io.EOF) {
		return nil, damaged(err)
	}
	return unmarked(text, head)
}

// unmarked is Text for a text that begins with head.
func unmarked(in *bufio.Reader, head []byte) (io.Reader, error) {
	if _, err := Text(head); err != nil {
		return nil, err
	}
	if Marked(head) {
		_, _ = in.Discard(len(mark)) // they were peeked at
	}
	return in, nil
}

func damaged(err error) error { return fmt.Errorf("it is compressed, and damaged: %w", err) }

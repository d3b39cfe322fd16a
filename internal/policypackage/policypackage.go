// Package policypackage reads what a compiled policy module, a .pp file, says of itself: libsemanage installs it under the name that
// stands in it, whatever its file is called.
//
// It reads the header alone, and does not tell whether this host's libsepol can read the rest. A .cil module has no such header: its
// name is its file's. The binary policy that the kernel loads is package policydb's.
package policypackage

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Header is what a policy package says of itself.
type Header struct {
	// Base says that it is a whole policy, which has no name, and not a module to add to one.
	Base bool
	// Name and Version are the module's own. The name is not checked: it may be anything.
	Name, Version string
	// Format is the version of the binary format. A libsepol that is older refuses it.
	Format uint32
}

// ErrNotPackage says that the content is no policy package.
var ErrNotPackage = errors.New("it is no policy package")

// The format of libsepol (module.c, policydb.c), numbers of 32 bits in little-endian order: packageMagic, a version, the number of
// sections and their offsets. The module is the section that begins with moduleMagic, a counted string, the kind, the format, three
// numbers that do not matter here, and the counted name and version.
const (
	packageMagic = 0xf97cff8f
	moduleMagic  = 0xf97cff8d
	formatName   = "SE Linux Module"
	kindBase     = 1
	kindModule   = 2

	maxSections = 64      // libsepol writes seven at most
	maxText     = 4 << 10 // of a name or version, well above the length of a file name
	maxOffset   = 128 << 20
)

// Read reads the header of a policy package, be it compressed with bzip2, as libsemanage takes it too, or not.
func Read(content []byte) (Header, error) {
	r := &reader{from: bytes.NewReader(content)}
	if bytes.HasPrefix(content, []byte("BZh")) {
		r.from = bzip2.NewReader(r.from)
	}
	if r.number() != packageMagic || r.number() != 1 {
		return Header{}, ErrNotPackage
	}
	n := r.number()
	if r.err != nil || n == 0 || n > maxSections {
		return Header{}, ErrNotPackage
	}
	offsets := make([]uint32, n)
	for i := range offsets {
		offsets[i] = r.number()
	}
	for _, at := range offsets {
		r.skipTo(int64(at))
		if r.number() == moduleMagic {
			return r.header()
		}
	}
	return Header{}, fmt.Errorf("%w: it has no module in it", ErrNotPackage)
}

// reader reads on until the first error, which it keeps.
type reader struct {
	from io.Reader
	at   int64
	err  error
}

func (r *reader) header() (h Header, err error) {
	if r.text() != formatName {
		return Header{}, ErrNotPackage
	}
	kind := r.number()
	h.Format = r.number()
	r.number() // flags
	r.number() // number of symbol tables
	r.number() // number of tables of object contexts
	switch kind {
	case kindBase:
		h.Base = true
	case kindModule:
		h.Name, h.Version = r.text(), r.text()
	default:
		return Header{}, ErrNotPackage
	}
	if r.err != nil {
		return Header{}, fmt.Errorf("%w: it ends within its header", ErrNotPackage)
	}
	return h, nil
}

func (r *reader) read(n int64) []byte {
	if r.err != nil {
		return nil
	}
	buf := make([]byte, n)
	if _, r.err = io.ReadFull(r.from, buf); r.err != nil {
		return nil
	}
	r.at += n
	return buf
}

func (r *reader) number() uint32 {
	if buf := r.read(4); buf != nil {
		return binary.LittleEndian.Uint32(buf)
	}
	return 0
}

func (r *reader) text() string {
	n := r.number()
	if n > maxText {
		r.err = ErrNotPackage
	}
	return string(r.read(int64(n)))
}

// skipTo goes forward; the sections stand in the order of their offsets.
func (r *reader) skipTo(offset int64) {
	if r.err == nil && (offset < r.at || offset > maxOffset) {
		r.err = ErrNotPackage
	}
	if r.err == nil {
		_, r.err = io.CopyN(io.Discard, r.from, offset-r.at)
		r.at = offset
	}
}

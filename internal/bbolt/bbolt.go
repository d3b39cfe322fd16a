// Package bbolt reads a database of bbolt (go.etcd.io/bbolt), in which containerd keeps its metadata, while its owner writes to it.
//
// The owner holds a lock on the file for as long as it runs, and maps it into its memory; who only wants to look has no other way in. It never
// overwrites a page that belongs to the newest finished transaction before the next one has finished, so that what was read holds if no transaction
// finished meanwhile: View reads again if one did.
//
// Do not use it to write, nor for a question that the owner answers over a socket in few words.
package bbolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The format: page.go, db.go and bucket.go of bbolt 1.3. A number is in the byte order of the machine that wrote it, which is this one.
const (
	magic   = 0xED0CDAED
	version = 2

	pageHeader    = 16 // id, flags, count, overflow
	metaSize      = 64
	elementSize   = 16 // of both kinds of pages
	bucketHeader  = 16 // root, sequence
	branchFlag    = 1
	leafFlag      = 2
	bucketElement = 1 // in the flags of a leaf's element
)

const (
	// maxPage bounds a page with its overflow: the largest value that containerd keeps is a container's spec.
	maxPage = 16 << 20
	// maxDepth bounds the way from the root of a bucket to a leaf, and maxLooks how often View looks at a database that changes.
	maxDepth = 32
	maxLooks = 8
)

// ErrDamaged says that the file is not a database of bbolt, or was changed while it was read.
var ErrDamaged = errors.New("not a database of bbolt, or one that is damaged")

// ErrBusy says that the owner wrote to the database each time when it was looked at.
var ErrBusy = errors.New("it changes all the time: try again")

// View calls look with the root of the database, again each time if a transaction of the owner's finished meanwhile. What look collects
// it has to collect anew.
func View(file io.ReaderAt, look func(root Bucket) error) error {
	for range maxLooks {
		before, err := newest(file)
		if err != nil {
			return err
		}
		looked := look(Bucket{file: file, pageSize: before.pageSize, root: before.root})
		after, err := newest(file)
		if err == nil && after == before {
			return looked
		}
	}
	return ErrBusy
}

// meta is what the first two pages say, in turn.
type meta struct {
	pageSize, root, transaction uint64
}

// newest gives the one of the two that belongs to the newest transaction. The size of a page is in the first, and in the second, which one has to
// know to find it, if the first is damaged.
func newest(file io.ReaderAt) (best meta, err error) {
	found := false
	for _, at := range []int64{0, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		buf := make([]byte, pageHeader+metaSize)
		if _, err := file.ReadAt(buf, at); err != nil {
			break
		}
		m, ok := parseMeta(buf[pageHeader:])
		if ok && (at == 0 || uint64(at) == m.pageSize) && (!found || m.transaction > best.transaction) {
			best, found = m, true
		}
	}
	if !found {
		return best, ErrDamaged
	}
	return best, nil
}

func parseMeta(b []byte) (m meta, ok bool) {
	order := binary.NativeEndian
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8])
	m = meta{pageSize: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]), transaction: order.Uint64(b[48:])}
	return m, order.Uint32(b) == magic && order.Uint32(b[4:]) == version && order.Uint64(b[metaSize-8:]) == sum.Sum64() && m.pageSize >= 1<<10 && m.pageSize <= 64<<10
}

// Bucket is a map from keys to values and other buckets. It is good within the call of View that gave it.
type Bucket struct {
	file     io.ReaderAt
	pageSize uint64
	root     uint64
	inline   []byte // its only page, if it has none of its own
}

// Bucket gives the bucket of a name.
func (b Bucket) Bucket(name string) (Bucket, bool, error) {
	value, flags, ok, err := b.find([]byte(name))
	if err != nil || !ok || flags&bucketElement == 0 {
		return Bucket{}, false, err
	}
	if len(value) < bucketHeader {
		return Bucket{}, false, ErrDamaged
	}
	inner := Bucket{file: b.file, pageSize: b.pageSize, root: binary.NativeEndian.Uint64(value)}
	if inner.root == 0 {
		inner.inline = value[bucketHeader:]
	}
	return inner, true, nil
}

// Get gives the value of a key.
func (b Bucket) Get(key string) (value []byte, ok bool, err error) {
	value, flags, ok, err := b.find([]byte(key))
	if flags&bucketElement != 0 {
		return nil, false, err
	}
	return value, ok, err
}

// find goes down from the bucket's root.
func (b Bucket) find(key []byte) (value []byte, flags uint32, ok bool, err error) {
	page := b.inline
	at := b.root
	for range maxDepth {
		if b.inline == nil {
			if page, err = b.page(at); err != nil {
				return nil, 0, false, err
			}
		}
		if len(page) < pageHeader {
			return nil, 0, false, ErrDamaged
		}
		kind, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
		switch {
		case kind == leafFlag:
			return leaf(page, count, key)
		case kind != branchFlag || b.inline != nil:
			return nil, 0, false, ErrDamaged
		case count == 0:
			return nil, 0, false, nil
		}
		if at, err = branch(page, count, key); err != nil {
			return nil, 0, false, err
		}
	}
	return nil, 0, false, ErrDamaged
}

// leaf finds a key in the elements of a leaf: flags, position, size of the key, size of the value.
func leaf(page []byte, count int, key []byte) (value []byte, flags uint32, ok bool, err error) {
	order := binary.NativeEndian
	for i := range count {
		at := pageHeader + i*elementSize
		if at+elementSize > len(page) {
			return nil, 0, false, ErrDamaged
		}
		keySize, valueSize := uint64(order.Uint32(page[at+8:])), uint64(order.Uint32(page[at+12:]))
		from := uint64(at) + uint64(order.Uint32(page[at+4:]))
		if from+keySize+valueSize > uint64(len(page)) {
			return nil, 0, false, ErrDamaged
		}
		if bytes.Equal(page[from:from+keySize], key) {
			return page[from+keySize : from+keySize+valueSize], order.Uint32(page[at:]), true, nil
		}
	}
	return nil, 0, false, nil
}

// branch finds the page in which a key is if it is anywhere: that of the last element whose key is not behind it. Each has a position, the size of its
// key, and a page.
func branch(page []byte, count int, key []byte) (child uint64, err error) {
	order := binary.NativeEndian
	for i := range count {
		at := pageHeader + i*elementSize
		if at+elementSize > len(page) {
			return 0, ErrDamaged
		}
		from, size := uint64(at)+uint64(order.Uint32(page[at:])), uint64(order.Uint32(page[at+4:]))
		if from+size > uint64(len(page)) {
			return 0, ErrDamaged
		}
		if i > 0 && bytes.Compare(page[from:from+size], key) > 0 {
			break
		}
		child = order.Uint64(page[at+8:])
	}
	return child, nil
}

// page reads one with what it overflows into.
func (b Bucket) page(id uint64) ([]byte, error) {
	if id < 2 || id > 1<<40 {
		return nil, ErrDamaged
	}
	at := int64(id * b.pageSize)
	head := make([]byte, pageHeader)
	if _, err := b.file.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	size := (uint64(binary.NativeEndian.Uint32(head[12:])) + 1) * b.pageSize
	if binary.NativeEndian.Uint64(head) != id || size > maxPage {
		return nil, ErrDamaged
	}
	page := make([]byte, size)
	if _, err := b.file.ReadAt(page, at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return page, nil
}

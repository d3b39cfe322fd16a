package mounts

import (
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// At gives the mount that what is at an absolute path lies on, as far as a table alone can tell it, which knows no links: the innermost one, and of
// several at one place the last. It is nil if there is none.
func At(all []*Mount, name string) (innermost *Mount) {
	name = path.Clean(name)
	for _, m := range all {
		if m.holds(name) && (innermost == nil || len(m.Mountpoint) >= len(innermost.Mountpoint)) {
			innermost = m
		}
	}
	return innermost
}

// holds tells whether a clean path is the mountpoint or below it.
func (m *Mount) holds(name string) bool {
	return m.Mountpoint == "/" || name == m.Mountpoint || strings.HasPrefix(name, m.Mountpoint+"/")
}

// Table is all mounts of a namespace at one moment. It must not be copied.
type Table struct {
	all   []*Mount
	asked atomic.Int32 // questions, of those that an index answers
	once  sync.Once
	made  *index
}

// few is how many questions a table answers by going through all of its mounts. To make an index takes as long as some hundred of them: a mount that comes
// alone among thousands is judged with a handful, each of thousands that are seen at once with as many.
const few = 64

// index finds mounts.
type index struct {
	byID     map[int]*Mount
	byDevice map[Device][]*Mount
	covers   map[int]*Mount // by the ID of the mount that they hide
}

// NewTable makes a table of these mounts, in this order.
func NewTable(all []*Mount) *Table { return &Table{all: all} }

// index is nil while it is not worth its making.
func (t *Table) index() *index {
	if t.asked.Add(1) <= few {
		return nil
	}
	t.once.Do(func() { t.made = newIndex(t.all) })
	return t.made
}

func newIndex(all []*Mount) *index {
	x := &index{byID: make(map[int]*Mount, len(all)), byDevice: make(map[Device][]*Mount, len(all)), covers: map[int]*Mount{}}
	for _, m := range all {
		x.byDevice[m.Device] = append(x.byDevice[m.Device], m)
		x.byID[m.ID] = m
	}
	for _, m := range all {
		if below := x.byID[m.Parent]; below != nil && m.hides(below) {
			x.covers[below.ID] = m
		}
	}
	return x
}

// hides tells whether m is mounted on the root of its parent.
func (m *Mount) hides(parent *Mount) bool {
	return m.Parent == parent.ID && m.ID != parent.ID && m.Mountpoint == parent.Mountpoint
}

// All gives every mount, oldest first as far as the kernel tells it.
func (t *Table) All() []*Mount { return t.all }

// Superblock gives every mount of one superblock in this table, oldest first.
func (t *Table) Superblock(d Device) (all []*Mount) {
	if x := t.index(); x != nil {
		return x.byDevice[d]
	}
	for _, m := range t.all {
		if m.Device == d {
			all = append(all, m)
		}
	}
	return all
}

// Cover gives the mount that hides m because it is mounted on m's root, so that m's mountpoint leads to something else; nil if
// there is none.
func (t *Table) Cover(m *Mount) *Mount {
	if x := t.index(); x != nil {
		return x.covers[m.ID]
	}
	for _, above := range slices.Backward(t.all) {
		if above.hides(m) {
			return above
		}
	}
	return nil
}

// Below gives the mount that m hides, or hid if m is gone by now: the one that Cover gives m for. It is nil if there is none.
func (t *Table) Below(m *Mount) *Mount {
	var below *Mount
	if x := t.index(); x != nil {
		below = x.byID[m.Parent]
	} else if at := slices.IndexFunc(t.all, func(other *Mount) bool { return other.ID == m.Parent }); at >= 0 {
		below = t.all[at]
	}
	if below != nil && m.hides(below) {
		return below
	}
	return nil
}

package mounts

import (
	"path"
	"strings"
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

// Table is all mounts of a namespace at one moment.
type Table struct {
	all      []*Mount
	byID     map[int]*Mount
	byDevice map[Device][]*Mount
	covers   map[int]*Mount // by the ID of the mount that they hide
}

// NewTable makes a table of these mounts, in this order.
func NewTable(all []*Mount) *Table {
	t := &Table{all: all, byID: make(map[int]*Mount, len(all)), byDevice: make(map[Device][]*Mount, len(all)), covers: map[int]*Mount{}}
	for _, m := range all {
		t.byDevice[m.Device] = append(t.byDevice[m.Device], m)
		t.byID[m.ID] = m
	}
	for _, m := range all {
		if below := t.Below(m); below != nil {
			t.covers[below.ID] = m
		}
	}
	return t
}

// All gives every mount, oldest first as far as the kernel tells it.
func (t *Table) All() []*Mount { return t.all }

// Superblock gives every mount of one superblock in this table, oldest first.
func (t *Table) Superblock(d Device) []*Mount { return t.byDevice[d] }

// Cover gives the mount that hides m because it is mounted on m's root, so that m's mountpoint leads to something else; nil if
// there is none.
func (t *Table) Cover(m *Mount) *Mount { return t.covers[m.ID] }

// Below gives the mount that m hides, or hid if m is gone by now: the one that Cover gives m for. It is nil if there is none.
func (t *Table) Below(m *Mount) *Mount {
	if below := t.byID[m.Parent]; below != nil && below.ID != m.ID && below.Mountpoint == m.Mountpoint {
		return below
	}
	return nil
}

package mounts

import (
	"context"
	"errors"
)

// Source delivers what changes in a table of mounts. Watcher is the real one; a test may have its own.
type Source interface {
	// Next waits until something has changed since the last call and gives all of it; the first call gives the whole table at once,
	// even an empty one. It ends with the context's error.
	Next(ctx context.Context) (Change, error)
	// Table gives the table as of the last Next. It is never changed afterwards.
	Table() *Table
}

// Change is the difference between two tables.
type Change struct {
	// Appeared are mounts that were not there before, in the order in which they were mounted as far as the kernel tells it. One that
	// looks like one in Vanished is another mount all the same, maybe of another file system.
	Appeared []*Mount
	// Vanished are mounts that are there no more, as they were seen last.
	Vanished []*Mount
	// Changed are mounts that were mounted again with other options, or moved: as they are now.
	Changed []*Mount
}

// Empty tells whether nothing is different.
func (c Change) Empty() bool { return len(c.Appeared)+len(c.Vanished)+len(c.Changed) == 0 }

// Table is all mounts at one moment.
type Table struct {
	all      []*Mount
	byDevice map[Device][]*Mount
	covers   map[int]*Mount // by the ID of the mount that they hide
}

// All gives every mount, oldest first as far as the kernel tells it.
func (t *Table) All() []*Mount { return t.all }

// Superblock gives every mount of one superblock in this table, oldest first.
func (t *Table) Superblock(d Device) []*Mount { return t.byDevice[d] }

// Cover gives the mount that hides m because it is mounted on m's root, so that m's mountpoint leads to something else; nil if
// there is none.
func (t *Table) Cover(m *Mount) *Mount { return t.covers[m.ID] }

// NewTable makes a table of these mounts, in this order.
func NewTable(all []*Mount) *Table {
	t := &Table{all: all, byDevice: make(map[Device][]*Mount, len(all)), covers: map[int]*Mount{}}
	at := make(map[int]*Mount, len(all))
	for _, m := range all {
		t.byDevice[m.Device] = append(t.byDevice[m.Device], m)
		at[m.ID] = m
	}
	for _, m := range all {
		if below := at[m.Parent]; below != nil && below != m && below.Mountpoint == m.Mountpoint {
			t.covers[below.ID] = m
		}
	}
	return t
}

// Watcher watches the mount namespace that the process was in when it was opened.
type Watcher struct {
	table *Table
}

// Open begins to watch. Nothing is missed from here on.
func Open() (*Watcher, error) { return nil, errors.New("not built yet") }

// Next is as Source says. A single mount is given as soon as the kernel tells of it; in a storm of them, changes are gathered for at
// most 100 ms.
func (w *Watcher) Next(ctx context.Context) (Change, error) { return Change{}, ctx.Err() }

// Table is as Source says.
func (w *Watcher) Table() *Table { return w.table }

// Close gives all handles back. It must not be called while Next runs: end that one with its context first.
func (w *Watcher) Close() error { return nil }

var _ Source = (*Watcher)(nil)

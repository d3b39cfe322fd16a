package mounts

// Table is all mounts of a namespace at one moment.
type Table struct {
	all      []*Mount
	byDevice map[Device][]*Mount
	covers   map[int]*Mount // by the ID of the mount that they hide
}

// NewTable makes a table of these mounts, in this order.
func NewTable(all []*Mount) *Table {
	t := &Table{all: all, byDevice: make(map[Device][]*Mount, len(all)), covers: map[int]*Mount{}}
	byID := make(map[int]*Mount, len(all))
	for _, m := range all {
		t.byDevice[m.Device] = append(t.byDevice[m.Device], m)
		byID[m.ID] = m
	}
	for _, m := range all {
		if below := byID[m.Parent]; below != nil && below != m && below.Mountpoint == m.Mountpoint {
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

package mounts

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A table says the same whether it goes through its mounts or has made an index of them.
func TestTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var all []*Mount
		for id := range 3 + random.IntN(12) {
			m := &Mount{ID: id, Parent: max(0, random.IntN(id+1)), Device: Device{Minor: uint32(random.IntN(4))}, Mountpoint: fmt.Sprintf("/%d", random.IntN(3))}
			all = append(all, m)
		}
		indexed := NewTable(all)
		for range few {
			indexed.Superblock(Device{})
		}
		for _, m := range append(slices.Clone(all), &Mount{ID: 99, Parent: 98, Mountpoint: "/0"}) {
			if plain := NewTable(all); plain.Cover(m) != indexed.Cover(m) || plain.Below(m) != indexed.Below(m) || !slices.Equal(plain.Superblock(m.Device), indexed.Superblock(m.Device)) {
				t.Fatalf("%+v in %+v: covered by %+v and %+v, below it %+v and %+v", m, all, plain.Cover(m), indexed.Cover(m), plain.Below(m), indexed.Below(m))
			} else if plain.made != nil || indexed.made == nil {
				t.Fatal("both have an index, or none")
			}
			if below := indexed.Below(m); below != nil && indexed.Cover(below) == nil {
				t.Fatalf("%+v hides %+v, which nothing covers", m, below)
			}
		}
	}
	// A mount on a mount on a mount: what counts is the last.
	first, second, third := &Mount{ID: 1, Mountpoint: "/a"}, &Mount{ID: 2, Parent: 1, Mountpoint: "/a"}, &Mount{ID: 3, Parent: 1, Mountpoint: "/a"}
	if got := NewTable([]*Mount{first, second, third}).Cover(first); got != third {
		t.Errorf("it is covered by %+v", got)
	}
}

package powertest

import (
	"compress/gzip"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
)

// Recording is what reached a disk, in order.
type Recording struct {
	disk *Disk
	tape tape
}

// tape is the part of a recording that is kept.
type tape struct {
	Size   int64
	Base   map[int64][]byte
	Events []event
}

// Record begins a record of what reaches the disk.
func (d *Disk) Record() *Recording {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recording, d.events = true, nil
	return &Recording{disk: d, tape: tape{Size: d.size, Base: maps.Clone(d.blocks)}}
}

// Sofar gives the number of flushes until now.
func (r *Recording) Sofar() int {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return flushes(r.disk.events)
}

// End ends the record.
func (r *Recording) End() {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.tape.Events, r.disk.events, r.disk.recording = r.disk.events, nil, false
}

// Flushes gives the number of flushes. A cut is named by the number of flushes that the disk got to see: 0 is before the first.
func (r *Recording) Flushes() int { return flushes(r.tape.Events) }

func flushes(events []event) int {
	n := 0
	for _, e := range events {
		if e.Flush {
			n++
		}
	}
	return n
}

// Loss is what becomes of the writes between the last flush that the disk got to see and the power cut.
type Loss struct {
	Kept int  // of a hundred, by chance; 0: none is there
	Torn bool // what is kept is kept sector by sector, too: a block of 4 KiB may be half written
}

// String names the loss in the name of a test.
func (l Loss) String() string {
	if l.Torn {
		return fmt.Sprintf("kept=%d,torn", l.Kept)
	}
	return fmt.Sprintf("kept=%d", l.Kept)
}

// Cut gives the disk as it is found after a power cut between two flushes: what was written before the first is there. What was
// written between the two is there by chance; the same cut and loss give the same disk. A file system that takes blocks for whole ones gets
// no torn ones.
func (r *Recording) Cut(on FileSystem, cut int, loss Loss) *Disk {
	d := &Disk{bench: r.disk.bench, size: r.tape.Size, blocks: maps.Clone(r.tape.Base)}
	chance := rand.New(rand.NewPCG(uint64(cut), uint64(loss.Kept))) //nolint:gosec // it is to be the same every time
	seen := 0
	for _, e := range r.tape.Events {
		switch {
		case e.Flush:
			if seen++; seen > cut {
				return d
			}
			continue
		case seen < cut:
		case chance.IntN(100) >= loss.Kept:
			continue
		case loss.Torn && !on.atomic:
			e.Sectors &= sectors(chance.Uint32())
		}
		d.put(e)
	}
	return d
}

// Save keeps the recording in a file.
func (r *Recording) Save(name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z := gzip.NewWriter(f)
	if err := gob.NewEncoder(z).Encode(r.tape); err != nil {
		return err
	}
	return z.Close()
}

// Load reads a recording that was kept.
func (b *Bench) Load(name string) (*Recording, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	r := &Recording{disk: &Disk{bench: b}}
	return r, gob.NewDecoder(z).Decode(&r.tape)
}

package relabel

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/kernel"
)

const (
	recordVersion  = 3
	recordWorth    = 256            // entries below a directory that make it worth remembering
	recordAge      = 24 * time.Hour // after which a record is not believed
	recordInterval = time.Minute
)

// record remembers which directories are done with everything below them, so that a run that is broken off can be gone on with.
// Directories are known by their file handles (name_to_handle_at(2)): these hold the inode's generation, so no other directory is taken
// for one of them. A record is believed only if no other run has given labels on the file system since. Labels that the disk may not have yet
// are believed during the same boot only, and no record is believed of a directory whose own label is wrong.
type record struct {
	run    *run
	loaded map[string]int64 // handle to entries, from the run before

	mu     sync.Mutex
	done   map[string]int64
	synced map[string]bool // known to be on the disk
	ticker *time.Ticker
	stop   chan struct{}
	saving sync.Mutex
	closed bool
}

// recordFile is the record as State keeps it.
type recordFile struct {
	Version int       `json:"version"`
	Boot    string    `json:"boot"` // kernel.BootID
	Written time.Time `json:"written"`
	Tree    string    `json:"tree"` // the handle of the root
	Labels  string    `json:"labels"`
	Run     string    `json:"run"` // the last one that gave labels on the file system
	// Began is when the first of the runs that this is the record of began, by the clock of the file systems.
	Began int64 `json:"began"`
	// Synced directories were on the disk, Others may be lost in a crash: by handle, with the number of entries in all of each.
	Synced map[string]int64 `json:"synced"`
	Others map[string]int64 `json:"others"`
}

// handleOf gives the file handle of an open directory, "" where the file system has none.
func handleOf(fd int) string {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return ""
	}
	name := strconv.AppendInt(make([]byte, 0, 64), int64(h.Type()), 16)
	return string(hex.AppendEncode(append(name, ':'), h.Bytes()))
}

// remember notes which directory n is. It is called for those that may turn out to be worth it: most are small and have none below.
func (n *node) remember(fd int) {
	if n.handle == "" {
		n.handle = handleOf(fd)
	}
}

// bootID tells one boot from another, as far as that can be told.
func bootID() string {
	id, _ := kernel.BootID()
	return id
}

// loadRecord reads what a run before has left. What does not fit this run is passed over: then everything is looked at again.
func (r *run) loadRecord() error {
	if r.options.State == nil || r.options.DryRun {
		return nil
	}
	tree := handleOf(r.root.fd)
	if tree == "" {
		return nil
	}
	rec := &record{run: r, loaded: map[string]int64{}, done: map[string]int64{}, synced: map[string]bool{}}
	r.root.handle, r.record = tree, rec
	content, err := r.options.State.Load()
	if err != nil {
		return fmt.Errorf("cannot read what the run before has done: %w", err)
	}
	f := parseRecord(content)
	if f.Version != recordVersion || f.Tree != tree || f.Labels != r.options.Labels.String() || f.Run != *r.last.Load() ||
		time.Since(f.Written) > recordAge || time.Until(f.Written) > time.Hour {
		if len(content) == 0 {
			return nil
		}
		// It must not be believed by a later run either, which would not know of this one.
		return r.removeRecord()
	}
	r.moving.since = f.Began
	for handle, entries := range f.Synced {
		rec.loaded[handle], rec.synced[handle] = entries, true
	}
	if f.Boot == bootID() {
		for handle, entries := range f.Others {
			rec.loaded[handle] = entries
		}
	}
	return nil
}

// parseRecord gives an empty record for what is damaged.
func parseRecord(content []byte) (f recordFile) {
	if json.Unmarshal(content, &f) != nil {
		return recordFile{}
	}
	return f
}

// known tells whether the run before has done a directory, and how many entries that is.
func (rec *record) known(n *node, fd int) (int64, bool) {
	if len(rec.loaded) == 0 {
		return 0, false
	}
	n.remember(fd)
	entries, found := rec.loaded[n.handle]
	return entries, found && entries >= 0
}

// finished is told of each directory that is done with everything in it.
func (rec *record) finished(n *node) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if n.bad.Load() || n.handle == "" || n.seen.Load() < recordWorth {
		n.parent.recorded = append(n.parent.recorded, n.recorded...)
		return
	}
	for _, below := range n.recorded { // it stands for them now
		delete(rec.done, below)
		delete(rec.synced, below)
	}
	rec.done[n.handle] = n.seen.Load()
	n.parent.recorded = append(n.parent.recorded, n.handle)
	n.recorded = nil
}

// content is the record now. With synced, the file system was written out after what is in done was recorded.
func (rec *record) content() ([]byte, error) {
	f := recordFile{Version: recordVersion, Boot: bootID(), Written: time.Now(), Tree: rec.run.root.handle,
		Labels: rec.run.options.Labels.String(), Run: *rec.run.last.Load(), Began: rec.run.moving.first(), Synced: map[string]int64{}, Others: map[string]int64{}}
	rec.mu.Lock()
	for handle, entries := range rec.done {
		if rec.synced[handle] {
			f.Synced[handle] = entries
		} else {
			f.Others[handle] = entries
		}
	}
	rec.mu.Unlock()
	return json.Marshal(f)
}

// keep writes the record from time to time, after the labels in it, so that a crash or a power cut loses little.
func (rec *record) keep() {
	rec.ticker, rec.stop = time.NewTicker(recordInterval), make(chan struct{})
	go func() {
		for {
			select {
			case <-rec.stop:
				return
			case <-rec.ticker.C:
			}
			rec.mu.Lock()
			var now []string
			for handle := range rec.done {
				now = append(now, handle)
			}
			rec.mu.Unlock()
			if unix.Syncfs(rec.run.root.fd) != nil {
				continue
			}
			rec.mu.Lock()
			for _, handle := range now {
				if _, still := rec.done[handle]; still {
					rec.synced[handle] = true
				}
			}
			rec.mu.Unlock()
			rec.saving.Lock()
			if content, err := rec.content(); err == nil && !rec.closed {
				_ = rec.run.options.State.Save(content) // the end of the run tries again, and says so
			}
			rec.saving.Unlock()
		}
	}()
}

// close ends the writing. It does not wait for a disk that is being written out.
func (rec *record) close() {
	rec.ticker.Stop()
	close(rec.stop)
	rec.saving.Lock()
	rec.closed = true
	rec.saving.Unlock()
}

// saveRecord keeps what is done when a run is broken off.
func (r *run) saveRecord() error {
	if r.record == nil {
		return nil
	}
	content, err := r.record.content()
	if err == nil {
		err = r.options.State.Save(content)
	}
	if err != nil {
		return fmt.Errorf("cannot keep what was done, the next run looks at everything again: %w", err)
	}
	return nil
}

// removeRecord ends it: a run that came to its end is not gone on with.
func (r *run) removeRecord() error {
	if r.record == nil {
		return nil
	}
	if err := r.options.State.Remove(); err != nil {
		return fmt.Errorf("cannot remove the record of what was done: %w", err)
	}
	return nil
}

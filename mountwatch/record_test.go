package mountwatch

import (
	"context"
	"fmt"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// What is remembered of file systems that may never come back is bounded, and the oldest goes.
func TestRecordIsBounded(t *testing.T) {
	var r Record
	for i := range maxDone + 2 {
		r.finish(Done{FileSystem: fmt.Sprintf("ext4 %d", i)})
	}
	if n := len(r.Done); n != maxDone || r.Done[0].FileSystem != "ext4 2" || r.Done[n-1].FileSystem != fmt.Sprintf("ext4 %d", maxDone+1) {
		t.Errorf("%d are kept, from %s to %s", n, r.Done[0].FileSystem, r.Done[n-1].FileSystem)
	}
}

// A finished relabelling counts for the same files and the same label alone, and no longer than until the next one begins.
func TestFinishedAndForgotten(t *testing.T) {
	const fs, context = "ext4 1", "system_u:object_r:container_file_t:s0:c1,c2"
	for _, c := range []struct {
		fs, context string
		paths       []string
		found       bool // what was done with paths a and b/c counts
		stays       bool // it is still known when these files get another label
	}{
		{fs, context, []string{"a", "b/c"}, true, false},
		{fs, "system_u:object_r:container_file_t:s0:c2,c1", []string{"a", "b/c"}, true, false},
		{fs, "system_u:object_r:container_file_t:s0", []string{"a", "b/c"}, false, false},
		{"ext4 2", context, []string{"a", "b/c"}, false, true},
		{fs, context, nil, false, false},
		{fs, context, []string{"a"}, false, false},
		{fs, context, []string{"b"}, false, false},
		{fs, context, []string{"b/c/d"}, false, false},
		{fs, context, []string{"ab", "b/cd"}, false, true},
	} {
		r := Record{Done: []Done{{FileSystem: fs, Context: context, Paths: []string{"a", "b/c"}}}}
		if got := r.finished(c.fs, c.context, c.paths) != nil; got != c.found {
			t.Errorf("%+v: found %t", c, got)
		}
		if r.forget(c.fs, c.paths); (len(r.Done) == 1) != c.stays {
			t.Errorf("%+v: %v is left", c, r.Done)
		}
	}
}

// From the moment at which a relabelling begins, what was known of the files is not believed any more: it may be cut off.
func TestRelabellingForgets(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &Watcher{Report: func(Event) {}, record: &Record{Done: []Done{{FileSystem: "ext4 1", Paths: []string{"a"}}, {FileSystem: "ext4 2"}}}}
	w.relabels = relabels{busy: map[string]bool{}, done: make(chan relabelResult)}
	v := &volume{mount: &mounts.Mount{Mountpoint: "/nowhere"}}
	v.Device = "8:1"
	w.relabels.queue = []*relabelJob{{volume: v, fileSystem: "ext4 1", paths: []string{"a"}, disks: []string{"sda"}}, {volume: v, fileSystem: "ext4 2", disks: []string{"sda"}}}
	w.startRelabels(ctx)
	w.relabels.wait()
	if len(w.record.Done) != 1 || w.record.Done[0].FileSystem != "ext4 2" {
		t.Errorf("known: %+v; the second one waits for the disk of the first", w.record.Done)
	}
}

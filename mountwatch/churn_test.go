package mountwatch

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// TestChurn has volumes mounted, labelled and unmounted, each a file system of its own, as often as a host does in a day that makes one each
// minute: the watcher keeps nothing of those that have gone, in memory, in descriptors, in goroutines and in what it writes down.
//
// Proves V11: volumes that come and go for a day leave nothing behind in the watcher.
func TestChurn(t *testing.T) {
	rounds := 5
	if os.Getenv("SELINUX_PROVISION_TORTURE") != "" {
		rounds = 24 * 60 / each
	}
	h := newHost(t, judge.Rule{Name: "volumes", Match: judge.Match{Mountpoint: "v*"}, Strategy: judge.Relabel})
	h.start()
	n := 0
	churn := func() {
		var points []string
		for range each {
			point := fmt.Sprintf("%s/v%d", h.dir, n%(3*each))
			n++
			if err := os.MkdirAll(point, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(fmt.Sprintf("volume-%d", n), point, "tmpfs", 0, "size=1m"); err != nil {
				t.Fatal(err)
			}
			points = append(points, point)
		}
		for _, point := range points {
			h.eventually(point, Labelled)
		}
		for _, point := range points {
			if err := unix.Unmount(point, 0); err != nil {
				t.Fatal(err)
			}
		}
		for _, point := range points {
			h.gone(point)
		}
		h.kinds() // which forgets the events
	}
	holds := func() (heap int64, goroutines, descriptors, record int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{doneFile, mountsFile} {
			content, err := h.root.ReadFile(name)
			if err != nil && !hostfs.NoFile(err) {
				t.Fatal(err)
			}
			record += len(content)
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc), runtime.NumGoroutine(), len(fds), record
	}
	churn()
	churn()
	churn()
	heap, goroutines, descriptors, record := holds()
	for range rounds {
		churn()
	}
	heapThen, goroutinesThen, descriptorsThen, recordThen := holds()
	t.Logf("%d volumes: heap %d to %d bytes, goroutines %d to %d, descriptors %d to %d, record %d to %d bytes", rounds*each, heap, heapThen, goroutines, goroutinesThen, descriptors, descriptorsThen, record, recordThen)
	// What works on something at this moment comes and goes; what is kept of each volume adds up.
	const atWork = each / 4
	if heapThen > heap+256<<10 || goroutinesThen > goroutines+atWork || descriptorsThen > descriptors+atWork || recordThen > record+4096 {
		t.Error("something of them is kept")
	}
}

const each = 20

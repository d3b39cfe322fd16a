package mounts

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tortured tells whether the long attacks are wanted, of which make test takes a sample.
func tortured() bool { return os.Getenv("SELINUX_PROVISION_TORTURE") != "" }

// holds is what this process holds: bytes on the heap, goroutines and descriptors.
func holds(t *testing.T) (heap int64, goroutines, descriptors int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what has a finalizer goes at the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine(), len(fds)
}

// TestMountChurn mounts and unmounts as often as a host does in a day that makes a volume each second: nothing of what has gone is kept.
//
// Proves V11: a day of mounts that come and go leaves no memory, no descriptor and no goroutine behind.
func TestMountChurn(t *testing.T) {
	rounds := 1000
	if tortured() {
		rounds = 24 * 60 * 60
	}
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			// until drives the watcher to where a mount is known, or is not known any more.
			until := func(point string, known bool) {
				for (At(w.Table().All(), point) != nil && At(w.Table().All(), point).Mountpoint == point) != known {
					if _, err := w.Next(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
			next(t, w)
			const each = 20
			churn := func(n int) {
				for i := range n {
					point := fmt.Sprintf("%s/v%d", dir, i%each)
					mount(t, fmt.Sprintf("volume-%d", i), point, "tmpfs", 0, fmt.Sprintf("size=%dk", 4*(i+1)))
					if i%each == each-1 {
						until(point, true)
					}
					umount(t, point)
					if i%each == each-1 {
						until(point, false)
					}
				}
			}
			churn(200)
			heap, goroutines, descriptors := holds(t)
			churn(rounds)
			heapThen, goroutinesThen, descriptorsThen := holds(t)
			t.Logf("%d mounts and as many unmounts: heap %d to %d bytes, goroutines %d to %d, descriptors %d to %d", rounds, heap, heapThen, goroutines, goroutinesThen, descriptors, descriptorsThen)
			if heapThen > heap+256<<10 || goroutinesThen > goroutines+5 || descriptorsThen > descriptors+5 { // what is kept of each adds up
				t.Error("something of them is kept")
			}
		})
	})
}

// tableOf is a mount table with so many mounts of containers on it, as /proc/self/mountinfo shows it.
func tableOf(n int) string {
	var b strings.Builder
	b.WriteString("21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,seclabel\n")
	for i := range n {
		fmt.Fprintf(&b, "%d 21 0:%d / /var/lib/kubelet/pods/%08x-0000-4000-8000-000000000000/volumes/kubernetes.io~projected/token rw,relatime shared:%d - tmpfs tmpfs rw,seclabel,size=1024k,inode64\n", 100+i, 50+i, i, i)
	}
	return b.String()
}

// A table of 100,000 mounts, which is all that the kernel has by default (fs.mount-max), is read in four times the time of a fourth of it, and
// what is known of a mount is a few hundred bytes.
//
// Proves V11: 100,000 mounts.
func TestHundredThousandMounts(t *testing.T) {
	took := func(n int) (time.Duration, int64) {
		text := tableOf(n)
		before, _, _ := holds(t)
		begin := processorTime(t)
		all, err := Parse(strings.NewReader(text))
		if err != nil || len(all) != n+1 {
			t.Fatalf("%d mounts, %v", len(all), err)
		}
		table := NewTable(all)
		used := processorTime(t) - begin
		after, _, _ := holds(t)
		if m := table.Superblock(all[n].Device); len(m) != 1 || m[0] != all[n] || At(all, all[n].Mountpoint+"/file") != all[n] {
			t.Errorf("the last of %d mounts is not found: %v", n, m)
		}
		runtime.KeepAlive(text)
		return used, (after - before) / int64(n)
	}
	took(1000)
	few, _ := took(25000)
	many, bytes := took(100000)
	// What others do on the machine makes either longer, never shorter.
	for range 3 {
		if many <= 9*few {
			break
		}
		a, _ := took(25000)
		b, _ := took(100000)
		few, many = min(few, a), min(many, b)
	}
	t.Logf("25,000 mounts: %s, 100,000 mounts: %s, %d bytes for each", few, many, bytes)
	if many > 9*few || bytes > 1024 {
		t.Errorf("100,000 mounts take %s and %d bytes each, 25,000 take %s", many, bytes, few)
	}
}

// processorTime is what this process has used, which others that run beside it change little.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}

// TestManyMounts fills a namespace with mounts: the watcher sees each, and one more when it knows them. To make them takes the kernel longer for each
// that is there (90,000 took it more than a quarter of an hour), so that a whole table of 100,000 is read as a text above.
//
// Proves V11.
func TestManyMounts(t *testing.T) {
	count := 3000
	if tortured() {
		count = 20000
	}
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			next(t, w)
			many := dir + "/many"
			mount(t, "many", many, "tmpfs", 0, "")
			defer func() {
				if err := unix.Unmount(many, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}()
			if err := os.Mkdir(many+"/from", 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range count {
				point := fmt.Sprintf("%s/%d", many, i)
				if err := os.Mkdir(point, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount(many+"/from", point, "", unix.MS_BIND, ""); err != nil {
					t.Fatalf("mount %d: %v", i, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			seen := 0
			see := func(c Change) {
				for _, m := range c.Appeared {
					if strings.HasPrefix(m.Mountpoint, many+"/") {
						seen++
					}
				}
			}
			begin := processorTime(t)
			for seen < count {
				c, err := w.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				see(c)
			}
			first := processorTime(t) - begin
			heap, _, _ := holds(t)
			begin = processorTime(t)
			mount(t, "more", many+"/more", "tmpfs", 0, "")
			for seen < count+1 {
				c, err := w.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				see(c)
			}
			t.Logf("%d mounts: %s of processor time to see them, %s for one more, a heap of %d kB", count, first, processorTime(t)-begin, heap>>10)
			if len(w.Table().All()) < count+2 {
				t.Errorf("the table has %d mounts", len(w.Table().All()))
			}
		})
	})
}

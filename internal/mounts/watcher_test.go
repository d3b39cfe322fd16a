package mounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchers gives a name to each way in which a Watcher can know mounts that this kernel has: its notices, its unique IDs, and what there
// was before them.
func watchers(t *testing.T) map[string]func() (*Watcher, error) {
	t.Helper()
	all := map[string]func() (*Watcher, error){"without unique IDs": func() (*Watcher, error) { return open(nil, nil) }}
	if newUniqueIDs() != nil {
		all["with unique IDs"] = func() (*Watcher, error) { return open(newUniqueIDs(), nil) }
	}
	if n := newNotices(); n != nil {
		n.close()
		all["with notices"] = func() (*Watcher, error) { return Open(true) }
	}
	t.Logf("this kernel can do %d ways", len(all))
	return all
}

func eachWatcher(t *testing.T, body func(t *testing.T, w *Watcher)) {
	t.Helper()
	for name, open := range watchers(t) {
		t.Run(name, func(t *testing.T) {
			w, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			body(t, w)
		})
	}
}

// next gives the next change, or fails.
func next(t *testing.T, w *Watcher) Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// nothing makes sure that there is no change to be seen.
func nothing(t *testing.T, w *Watcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %s, %v: want nothing", describe(c), err)
	}
}

func describe(c Change) string {
	var b strings.Builder
	for _, part := range []struct {
		name string
		list []*Mount
	}{{"+", c.Appeared}, {"-", c.Vanished}, {"~", c.Changed}} {
		for _, m := range part.list {
			fmt.Fprintf(&b, "%s%s ", part.name, m.Mountpoint)
		}
	}
	return strings.TrimSpace(b.String())
}

func points(list []*Mount) []string {
	var all []string
	for _, m := range list {
		all = append(all, m.Mountpoint)
	}
	slices.Sort(all)
	return all
}

func TestWatcherSeesEachChange(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			if c := next(t, w); len(c.Appeared) < 3 || len(c.Vanished)+len(c.Changed) > 0 {
				t.Fatalf("the first look gives %s", describe(c))
			}
			nothing(t, w)
			a, b := dir+"/a", dir+`/b "c"`+"\n\\"
			expect := func(want string) Change {
				t.Helper()
				c := next(t, w)
				if describe(c) != want {
					t.Errorf("got %q, want %q", describe(c), want)
				}
				return c
			}
			mount(t, "", a, "tmpfs", 0, "")
			if m := expect("+" + a).Appeared[0]; m.FSType != "tmpfs" || !m.Whole() || m.Source != "none" && m.Source != "" {
				t.Errorf("%+v", m)
			}
			mount(t, a, b, "", unix.MS_BIND, "")
			expect("+" + b)
			mount(t, "", a, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
			// The superblock is read-only now, which both show.
			if c := next(t, w); !slices.Equal(points(c.Changed), []string{a, b}) || !c.Changed[0].ReadOnly() {
				t.Errorf("a remount gives %s", describe(c))
			}
			if err := unix.Mount(b, dir, "", unix.MS_MOVE, ""); err != nil {
				t.Fatal(err)
			}
			if m := expect("~" + dir).Changed[0]; w.Table().Cover(w.Table().All()[slices.Index(points(w.Table().All()), dir)]) == nil && m == nil {
				t.Error("no cover")
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			expect("-" + dir)
			umount(t, a)
			expect("-" + a)
			nothing(t, w)
		})
	})
}

// A file system that takes the place of another gives the same line, ID included. It is another one all the same.
//
// Proves V11.
func TestWatcherSeesAnotherFileSystemInTheSamePlace(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		disk := loop(t, dir, "ext4", "-q")
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			next(t, w)
			for _, kind := range []string{"tmpfs", "ext4"} {
				source := disk
				if kind == "tmpfs" {
					source = "x"
				}
				point := filepath.Join(dir, kind)
				mount(t, source, point, kind, 0, "")
				before := next(t, w).Appeared[0]
				same := 0
				for round := range 50 {
					umount(t, point)
					mount(t, source, point, kind, 0, "")
					c := next(t, w)
					// Usually both are seen at once; now and then the time between them is long enough for a look.
					if len(c.Appeared) == 0 && len(c.Vanished) == 1 {
						c.Appeared = next(t, w).Appeared
					}
					if len(c.Vanished) != 1 || len(c.Appeared) != 1 {
						t.Fatalf("round %d: %s: got %s", round, kind, describe(c))
					}
					after := c.Appeared[0]
					if after.ID == before.ID && after.Device == before.Device {
						same++
					}
					before = after
				}
				t.Logf("%s: %d of 50 had the same ID and device number again", kind, same)
				umount(t, point)
				next(t, w)
			}
		})
	})
}

// A file system that somebody else holds as well is the same one when it is mounted again, and needs no notice of an end.
func TestWatcherCoveredMount(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			next(t, w)
			a := dir + "/a"
			mount(t, "one", a, "tmpfs", 0, "")
			below := next(t, w).Appeared[0]
			mount(t, "two", a, "tmpfs", 0, "")
			above := next(t, w).Appeared[0]
			if w.Table().Cover(below) != above || w.Table().Cover(above) != nil {
				t.Error("the cover is not seen")
			}
			if root, err := below.OpenRoot(); !errors.Is(err, ErrCovered) {
				root.Close()
				t.Errorf("opened what is covered: %v", err)
			}
			root, err := above.OpenRoot()
			if err != nil {
				t.Fatal(err)
			}
			root.Close()
			umount(t, a)
			next(t, w)
			if root, err = below.OpenRoot(); err != nil {
				t.Fatal(err)
			}
			root.Close()
			if root, err := above.OpenRoot(); !errors.Is(err, ErrCovered) {
				root.Close()
				t.Errorf("opened what is gone: %v", err)
			}
			umount(t, a)
			next(t, w)
		})
	})
}

// follower keeps a table from changes alone, as a consumer would.
type follower struct {
	t    *testing.T
	have map[*Mount]bool
}

func (f *follower) apply(c Change, table *Table) {
	f.t.Helper()
	for _, m := range c.Vanished {
		if !f.have[m] {
			f.t.Fatalf("%s vanished and was not there", m.Mountpoint)
		}
		delete(f.have, m)
	}
	if len(c.Changed) > 0 {
		now := map[int]*Mount{}
		for _, m := range c.Changed {
			now[m.ID] = m
		}
		maps.DeleteFunc(f.have, func(m *Mount, _ bool) bool { return now[m.ID] != nil })
	}
	for _, m := range slices.Concat(c.Appeared, c.Changed) {
		f.have[m] = true
	}
	want := map[*Mount]bool{}
	for _, m := range table.All() {
		want[m] = true
	}
	if !maps.Equal(f.have, want) {
		f.t.Fatal("the changes do not add up to the table")
	}
}

// TestWatcherStorm mounts 5,000 file systems, one each millisecond, while another point is mounted and unmounted over and over. Every
// mount that stays is seen, none that has gone is left, and the last one on the other point is the one that is known.
//
// Proves V11: 5,000 mounts, one each millisecond, while another point is mounted over and over.
func TestWatcherStorm(t *testing.T) {
	const count = 5000
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			f := follower{t, map[*Mount]bool{}}
			f.apply(next(t, w), w.Table())
			storm, again := dir+"/storm", dir+"/again"
			mount(t, "storm", storm, "tmpfs", 0, "")
			defer func() {
				umount(t, again)
				if err := unix.Unmount(storm, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}()
			seen := map[string]bool{}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var mounting sync.WaitGroup
			stop := make(chan struct{})
			rounds := 0
			mounting.Go(func() {
				for ; ; rounds++ {
					mount(t, "again", again, "tmpfs", 0, fmt.Sprintf("size=%dk", 4*(rounds+1)))
					select {
					case <-stop:
						return
					default:
						// A look at the path in this instant makes it busy, which any process may do.
						for errors.Is(unix.Unmount(again, 0), unix.EBUSY) {
						}
					}
				}
			})
			var took time.Duration
			mounting.Go(func() {
				began := time.Now()
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for i := range count {
					<-tick.C
					mount(t, "storm", fmt.Sprintf("%s/%d", storm, i), "tmpfs", 0, "size=1m")
				}
				took = time.Since(began)
				close(stop)
			})
			go func() {
				mounting.Wait()
				mount(t, "last", storm+"/last", "tmpfs", 0, "")
			}()
			looks := 0
			for !seen[storm+"/last"] {
				c, err := w.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				looks++
				f.apply(c, w.Table())
				for _, m := range c.Appeared {
					seen[m.Mountpoint] = true
				}
			}
			for i := range count {
				if !seen[fmt.Sprintf("%s/%d", storm, i)] {
					t.Fatalf("mount %d was never seen", i)
				}
			}
			last := 0
			for m := range f.have {
				if size, _ := m.SuperOption("size"); m.Mountpoint == again {
					if want := fmt.Sprintf("%dk", 4*(rounds+1)); size != want {
						t.Errorf("the last mount of the other point has size %s, want %s", size, want)
					}
					last++
				}
			}
			if last != 1 {
				t.Errorf("the other point is known %d times", last)
			}
			t.Logf("%d mounts in %s, %d of one point, %d looks", count, took.Round(time.Millisecond), rounds+1, looks)
		})
	})
}

// A context that ends, ends the wait, at once and each time; and no event is lost by it.
func TestWatcherEndsWithItsContext(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			next(t, w)
			for i := range 60 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					time.Sleep(time.Duration(i) * 30 * time.Microsecond)
					cancel()
				}()
				if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				mount(t, "x", dir+"/a", "tmpfs", 0, "")
				if c := next(t, w); describe(c) != "+"+dir+"/a" {
					t.Fatal(describe(c))
				}
				umount(t, dir+"/a")
				next(t, w)
			}
		})
	})
}

// What happens while nobody waits is not lost.
func TestWatcherGapBetweenCalls(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		eachWatcher(t, func(t *testing.T, w *Watcher) {
			next(t, w)
			for i := range 100 {
				point := fmt.Sprintf("%s/%d", dir, i)
				mount(t, "x", point, "tmpfs", 0, "size=1m")
				time.Sleep(2 * time.Millisecond)
				if c := next(t, w); describe(c) != "+"+point {
					t.Fatal(describe(c))
				}
			}
			for i := range 100 {
				umount(t, fmt.Sprintf("%s/%d", dir, i))
			}
			if c := next(t, w); len(c.Vanished) != 100 {
				t.Error(describe(c))
			}
		})
	})
}

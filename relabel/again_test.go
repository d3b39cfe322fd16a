package relabel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// before calls something just before a directory below the root is opened.
type before struct {
	system
	opened func(name string)
}

func (b before) openDirectory(dir int, path string) (int, unix.Errno) {
	b.opened(path)
	return b.system.openDirectory(dir, path)
}

// What is moved within the tree while it is walked is labelled all the same, or counted; what is removed is neither.
func TestMovedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name     string
		moves    int // how often the directory is moved just before it is opened
		removes  bool
		verify   bool
		complete bool
	}{
		{"moved once", 1, false, false, true},
		{"moved once, read back", 1, false, true, true},
		{"moved in each walk but the last", mostPasses - 1, false, false, true},
		{"moved all the time", mostPasses, false, false, false},
		{"removed", 1, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filesystem(t, "tmpfs")
			n := growTree(t, dir)
			var mu sync.Mutex
			moved, at := 0, "d3"
			target := open(t, dir)
			target.sys = before{kernelCalls{}, func(name string) {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case name != at || moved == c.moves:
				case c.removes:
					moved++
					if err := os.RemoveAll(filepath.Join(dir, at)); err != nil {
						t.Error(err)
					}
				default:
					moved++
					next := fmt.Sprint("moved", moved)
					if err := os.Rename(filepath.Join(dir, at), filepath.Join(dir, next)); err != nil {
						t.Error(err)
					}
					at = next
				}
			}}
			var state memory
			r, err := target.Run(t.Context(), Options{Labels: Fixed(wanted), Verify: c.verify, State: &state})
			if err != nil {
				t.Fatal(err)
			}
			adds(t, r)
			have := labels(t, dir)[wanted]
			switch {
			case r.Complete() != c.complete || r.RootLabelled != c.complete:
				t.Errorf("%+v", r)
			case c.removes:
				if have != r.Seen || have >= n {
					t.Errorf("%d of %d: %+v", have, n, r)
				}
			case c.complete:
				if have != n || r.Seen != n || r.Set != n {
					t.Errorf("%d of %d: %+v", have, n, r)
				}
			default:
				if len(r.Failed) != 1 || r.Failed[0].Errno != "MOVED" || r.Failed[0].Count != 1 {
					t.Errorf("%+v", r.Failed)
				}
			}
			if state.content != nil {
				t.Error("a record stays")
			}
		})
	}
}

// A run that goes on where an earlier one was broken off believes what that one recorded only if no other run has given labels meanwhile, be
// it to a part of the tree or to another one on the file system.
func TestResumedAfterAnotherRun(t *testing.T) {
	for _, c := range []struct {
		name    string
		between string // what another run labels; "": there is none
		labels  string
		dry     bool
		resumes bool
	}{
		{name: "nobody", resumes: true},
		{name: "a part", between: "d1/sub", labels: other},
		{name: "somewhere else on it", between: "elsewhere", labels: other},
		{name: "a look", between: "d1/sub", labels: other, dry: true, resumes: true},
		{name: "what is right already", between: "right", labels: wanted, resumes: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := filesystem(t, "ext4", "-N60000")
			dir := filepath.Join(top, "tree")
			mustMkdir(t, dir, filepath.Join(top, "elsewhere"), filepath.Join(top, "right"))
			var n int64 = 1
			for i := range 10 {
				d := filepath.Join(dir, fmt.Sprintf("d%d", i))
				mustMkdir(t, d, filepath.Join(d, "sub"))
				n += 2
				for j := range 600 {
					if err := os.WriteFile(filepath.Join(d, "sub", fmt.Sprintf("f%d", j)), nil, 0o600); err != nil {
						t.Fatal(err)
					}
					n++
				}
			}
			root, err := hostfs.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			label := func(ctx context.Context, path string, o Options) (Result, error) {
				nextTick(t)
				target := open(t, path)
				unlock, err := target.Lock(ctx, root, time.Second, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
				return target.Run(ctx, o)
			}
			if _, err := label(t.Context(), filepath.Join(top, "right"), Options{Labels: Fixed(wanted)}); err != nil {
				t.Fatal(err)
			}
			var state memory
			ctx, cancel := context.WithCancel(t.Context())
			set := 0
			_, err = label(ctx, dir, Options{Labels: Fixed(wanted), Workers: 1, State: &state, Changed: func(Change) {
				if set++; set == 4000 {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) || len(state.content) == 0 {
				t.Fatalf("%v, %q", err, state.content)
			}
			if c.between != "" {
				path := filepath.Join(dir, c.between)
				if _, err := os.Stat(path); err != nil {
					path = filepath.Join(top, c.between)
				}
				if _, err := label(t.Context(), path, Options{Labels: Fixed(c.labels), DryRun: c.dry}); err != nil {
					t.Fatal(err)
				}
			}
			r, err := label(t.Context(), dir, Options{Labels: Fixed(wanted), State: &state})
			if err != nil || !r.Complete() || r.Seen != n || (r.Resumed > 0) != c.resumes {
				t.Errorf("%+v, %v", r, err)
			}
			if have := labels(t, dir)[wanted]; have != n {
				t.Errorf("%d of %d have the label", have, n)
			}
		})
	}
}

// What a run leaves on the host of a file system is one small file, and nothing where it finds everything right.
func TestLastRun(t *testing.T) {
	dir := filesystem(t, "tmpfs")
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	run := func() string {
		target := open(t, dir)
		unlock, err := target.Lock(t.Context(), root, time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if _, err := target.Run(t.Context(), Options{Labels: Fixed(wanted)}); err != nil {
			t.Fatal(err)
		}
		return target.last.get()
	}
	first := run()
	if second := run(); first == "" || second != first {
		t.Errorf("first %q, and then %q, where nothing was left to do", first, second)
	}
	if err := unix.Setxattr(dir, "security.selinux", []byte(other), 0); err != nil {
		t.Fatal(err)
	}
	if third := run(); third == first {
		t.Errorf("it is %q after a run that gave a label", third)
	}
	missing := &lastRun{root, "/no/such/file", "none"}
	if missing.get() != "none" || (*lastRun)(nil).get() != "" {
		t.Error(missing.get())
	}
}

// latecomer makes a file in the root right before that gets its label.
type latecomer struct {
	system
	root string
	once *sync.Once
}

func (l latecomer) setOpen(fd int, value []byte, flags int) unix.Errno {
	var at, root unix.Stat_t
	if unix.Fstat(fd, &at) == nil && unix.Stat(l.root, &root) == nil && at.Ino == root.Ino {
		l.once.Do(func() { _ = os.WriteFile(filepath.Join(l.root, "late"), nil, 0o644) })
	}
	return l.system.setOpen(fd, value, flags)
}

// TestMadeBeforeTheRootsLabel: who makes a file in the root after the last look at it, and before it has its label, makes one without a label.
//
// Proves P5: files that are made right before the root has its label.
func TestMadeBeforeTheRootsLabel(t *testing.T) {
	for _, verify := range []bool{false, true} {
		dir := filesystem(t, "tmpfs")
		n := growTree(t, dir)
		target := open(t, dir)
		target.sys = latecomer{kernelCalls{}, dir, new(sync.Once)}
		r, err := target.Run(t.Context(), Options{Labels: Fixed(wanted), Verify: verify})
		if err != nil {
			t.Fatal(err)
		}
		adds(t, r)
		if _, err := os.Stat(filepath.Join(dir, "late")); err != nil || !r.RootLabelled || !r.Complete() {
			t.Errorf("%+v, %v", r, err)
		}
		if have := labels(t, dir)[wanted]; have != n+1 {
			t.Errorf("verify %v: %d of %d have the label", verify, have, n+1)
		}
	}
}

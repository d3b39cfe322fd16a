package relabel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// What somebody moves from where the walk has not been to where it has, before anybody has read its name, is labelled all the same: nothing
// vanishes for the walk then.
func TestMovedUnseen(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry string // what is moved, of each directory
		back  bool   // the time of the last modification of the directory that it was in is put back, as rsync does
		kind  string
	}{
		{"a file", "f7", false, "ext4"},
		{"a file, and the time put back", "f7", true, "ext4"},
		{"a directory", "sub", false, "ext4"},
		{"a directory on xfs", "sub", true, "xfs"},
		{"a directory on tmpfs", "sub", true, "tmpfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filesystem(t, c.kind)
			tree := filepath.Join(dir, "tree")
			mustMkdir(t, tree)
			n := growTree(t, tree)
			for _, whole := range []bool{true, false} {
				label, top, total := wanted, dir, n+1
				if c.kind == "ext4" {
					total++
				}
				if !whole {
					label, top, total = other, tree, n
				}
				var opened []string
				moved := false
				target := open(t, top)
				target.sys = before{kernelCalls{}, func(name string) {
					if _, err := strconv.Atoi(strings.TrimPrefix(name, "d")); err != nil {
						return
					}
					if opened = append(opened, name); len(opened) != 3 || moved {
						return
					}
					moved = true
					// From one that is still to come to one that is done.
					for i := range 20 {
						from := fmt.Sprintf("d%d", i)
						if slices.Contains(opened, from) {
							continue
						}
						info, err := os.Stat(filepath.Join(tree, from))
						if err == nil {
							err = os.Rename(filepath.Join(tree, from, c.entry), filepath.Join(tree, opened[0], fmt.Sprint(c.entry, "-moved-", whole)))
						}
						if err == nil && c.back {
							err = os.Chtimes(filepath.Join(tree, from), info.ModTime(), info.ModTime())
						}
						if err == nil {
							return
						}
					}
					t.Error("nothing was moved")
				}}
				r, err := target.Run(t.Context(), Options{Labels: Fixed(label), Workers: 1})
				if err != nil {
					t.Fatal(err)
				}
				adds(t, r)
				if have := labels(t, top)[label]; !r.Complete() || !r.RootLabelled || have != total || r.Seen != total {
					t.Errorf("%s: %d of %d have the label: %+v", label, have, total, r)
				}
			}
		})
	}
}

// inheriting makes a file in a directory whose label it has from the first moment on, as a kernel with SELinux gives it.
func inheriting(dir, name string) error {
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	f, err := unix.Openat(d, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	label := func() string {
		var value [256]byte
		n, err := unix.Fgetxattr(d, "security.selinux", value[:])
		if err != nil {
			return ""
		}
		return string(value[:n])
	}
	for now, linked := label(), false; ; {
		if now != "" {
			if err := unix.Fsetxattr(f, "security.selinux", []byte(now), 0); err != nil {
				return err
			}
		}
		if !linked {
			if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f), d, name, unix.AT_SYMLINK_FOLLOW); err != nil {
				return err
			}
			linked = true
		}
		was := now
		if now = label(); now == was {
			return nil
		}
	}
}

// writers make, move and rename in the directories of a tree until stop; begun tells when each has done something.
func writers(t *testing.T, tree string, moves bool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group, begun sync.WaitGroup
	for i := range 2 {
		random := rand.New(rand.NewPCG(uint64(i), 7))
		begun.Add(1)
		group.Go(func() {
			first := sync.OnceFunc(begun.Done)
			for n := 0; ctx.Err() == nil; n++ {
				from, to := fmt.Sprintf("%s/d%d", tree, random.IntN(20)), fmt.Sprintf("%s/d%d", tree, random.IntN(20))
				if !moves || i%2 == 0 {
					if random.IntN(3) == 0 {
						to = filepath.Join(to, "sub")
					}
					name := fmt.Sprintf("new-%d-%d", i, n%10) // always the same, so that the tree stays small
					_ = os.Remove(filepath.Join(to, name))
					_ = inheriting(to, name)
				} else {
					name := []string{"sub", fmt.Sprintf("f%d", random.IntN(30))}[n%2]
					_ = os.Rename(filepath.Join(from, name), filepath.Join(to, name))
				}
				first()
			}
		})
	}
	begun.Wait()
	return func() {
		cancel()
		group.Wait()
	}
}

// While processes make, move and rename files at full speed, either every entry has the label in the end, or the root does not have it.
//
// Proves P7.
func TestLiveVolume(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		dir := filesystem(t, kind)
		tree := filepath.Join(dir, "tree")
		mustMkdir(t, tree)
		growTree(t, tree)
		for _, c := range []struct {
			name   string
			moves  bool
			verify bool
			whole  bool
		}{
			{"files are made, by the command", false, false, true},
			{"files are made, by the watcher", false, true, true},
			{"files are made, a part of it", false, false, false},
			{"files are made and moved, by the command", true, false, true},
			{"files are made and moved, by the watcher", true, true, true},
			{"files are made and moved, a part of it", true, false, false},
		} {
			t.Run(kind+", "+c.name, func(t *testing.T) {
				for round := range 2 {
					label := fmt.Sprintf("system_u:object_r:container_file_t:s0:c%d", round+1)
					top := tree
					if c.whole {
						top = dir
					}
					stop := writers(t, tree, c.moves)
					r, err := open(t, top).Run(t.Context(), Options{Labels: Fixed(label), Verify: c.verify})
					stop()
					if err != nil {
						t.Fatal(err)
					}
					adds(t, r)
					found := labels(t, top)
					t.Logf("%d seen, %d set, complete %v, %v", r.Seen, r.Set, r.Complete(), r.Failed)
					switch {
					case r.RootLabelled != r.Complete():
						t.Errorf("the root: %+v", r)
					case r.RootLabelled && (len(found) != 1 || found[label] == 0):
						t.Errorf("%+v\nand yet: %v", r, found)
					case !r.RootLabelled && !c.moves:
						t.Errorf("files that have the label from their first moment on keep it from ending: %+v", r)
					}
				}
			})
		}
	}
}

package relabel

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzWalk builds a tree from the input, labels it with options from the input, and compares what the run says with what is there.
//
// Proves P7.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, uint8(0), uint8(1))
	f.Add([]byte("dddddddddddddffffffffffffff..llll\xff\x00\n"), uint8(3), uint8(2))
	f.Add([]byte{0, 4, 7, 8, 0, 0, 4, 7, 2, 6, 8, 5, 8, 0, 0, 0, 0, 7, 2, 2, 7, 8}, uint8(4), uint8(0))
	f.Fuzz(func(t *testing.T, script []byte, options, workers uint8) {
		if os.Geteuid() != 0 {
			t.Skip()
		}
		// A small world: what comes after 24 orders repeats itself, and each costs a call of the kernel's to make, to label and to remove. The
		// bounds below are as small, so that each is met.
		script = script[:min(len(script), 24)]
		base := fuzzDir(t)
		tree := filepath.Join(base, "tree")
		if err := os.Mkdir(tree, 0o700); err != nil {
			t.Fatal(err)
		}
		plant(t, tree, script)
		handle, err := os.Open(tree)
		if err != nil {
			t.Fatal(err)
		}
		target, err := OpenHandle(handle)
		handle.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		target.limit = bounds{depth: 1 << 15, handles: int64(options>>4) + 1, tasks: int64(options>>3&1)*1000 + 2} // nobody else is there: young is 0
		target.noCopy = options&1 != 0
		o := Options{Labels: Fixed(wanted), TrustLinks: options&2 != 0, Workers: int(workers % 5)}
		r, err := target.Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		adds(t, r)
		var all, labelled, several int64
		err = filepath.WalkDir(tree, func(name string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			all++
			var value [200]byte
			n, err := unix.Lgetxattr(name, "security.selinux", value[:])
			if err == nil && string(value[:n]) == wanted+"\x00" {
				labelled++
				return nil
			}
			var st unix.Stat_t
			if unix.Lstat(name, &st) == nil && st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				several++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.Seen != all || len(r.Failed) != 0 || r.Vanished != 0 || r.Skipped[Links] != several || labelled != r.Set+r.Already {
			t.Errorf("%d entries, %d labelled, %d with several names, and the run says %+v", all, labelled, several, r)
		}
		again, err := target.Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if again.Set != 0 || again.Seen != all {
			t.Errorf("again: %+v", again)
		}
	})
}

// fuzzDir is in memory where there is a place for that: to mount one takes longer than all that is done in it.
func fuzzDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "walk-") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// plant reads the input as orders: make a directory and enter it, go up, make a file, a link, a second name, a FIFO, a label.
func plant(t *testing.T, tree string, script []byte) {
	t.Helper()
	at := tree
	last := ""
	for i, order := range script {
		name := filepath.Join(at, "n"+string(binary.AppendUvarint(nil, uint64(i)+1)))
		if strings.ContainsAny(filepath.Base(name), "\x00") {
			continue
		}
		switch order % 9 {
		case 0, 1:
			if os.Mkdir(name, 0o700) == nil && len(name) < 3500 {
				at = name
			}
		case 2, 3:
			if at != tree {
				at = filepath.Dir(at)
			}
		case 4, 5:
			if os.WriteFile(name, nil, 0o600) == nil {
				last = name
			}
		case 6:
			_ = os.Symlink("/etc/passwd", name)
		case 7:
			_ = os.Link(last, name)
		case 8:
			label := []string{wanted, other, "?"}[i%3]
			_ = unix.Lsetxattr(last, "security.selinux", []byte(label+"\x00"), 0)
			_ = unix.Mkfifo(name, 0o600)
		}
	}
}

// FuzzExt4 reads what claims to be a file system.
func FuzzExt4(f *testing.F) {
	super := make([]byte, 8192)
	binary.LittleEndian.PutUint16(super[1024+56:], ext4Magic)
	binary.LittleEndian.PutUint32(super[1024+4:], 8)
	binary.LittleEndian.PutUint32(super[1024+20:], 1)
	binary.LittleEndian.PutUint32(super[1024+32:], 8192)
	binary.LittleEndian.PutUint32(super[1024+40:], 16)
	binary.LittleEndian.PutUint16(super[1024+88:], 128)
	binary.LittleEndian.PutUint32(super[2048+8:], 4)
	inode := super[4096:]
	binary.LittleEndian.PutUint16(inode, 0x4000)
	binary.LittleEndian.PutUint16(inode[26:], 2)
	binary.LittleEndian.PutUint32(inode[32:], ext4Extents)
	copy(inode[40:], []byte{0x0a, 0xf3, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0})
	f.Add(super)
	f.Fuzz(func(t *testing.T, disk []byte) {
		disk = disk[:min(len(disk), 8<<10)] // a small world: the seed is as long
		size := int64(len(disk))
		fs, err := readExt4(bytes.NewReader(disk), size)
		if err != nil {
			return
		}
		check := func(e extent) {
			if e.start < 0 || e.length <= 0 || e.start+e.length > size+gapSize {
				t.Fatalf("%+v is not on a device of %d bytes", e, size)
			}
		}
		for _, e := range fs.tables {
			check(e)
		}
		for _, e := range fs.directories(bytes.NewReader(disk), func() bool { return false }, func(e extent) bool { check(e); return true }) {
			check(e)
		}
	})
}

package bbolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/bbolt"
	"github.com/selinux-provision/selinux-provision/internal/bbolttest"
)

// get goes down from the root and gives the value of the last name.
func get(root bbolt.Bucket, names ...string) (value []byte, ok bool, err error) {
	b := root
	for _, name := range names[:len(names)-1] {
		if b, ok, err = b.Bucket(name); err != nil || !ok {
			return nil, false, err
		}
	}
	return b.Get(names[len(names)-1])
}

// The pages of every kind: roots that are branches, leaves, buckets within a page, values that overflow theirs.
func TestGet(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("%064x", n) }
	if err := bbolt.View(bytes.NewReader(bbolttest.Containerd(t)), func(root bbolt.Bucket) error {
		for n := range 50 {
			one := id(0x1000 + n - 4)
			if n < 4 {
				one = id(0xa1 + n)
			}
			spec, ok, err := get(root, "v1", "k8s.io", "containers", one, "spec")
			if err != nil || !ok || len(spec) < 5000 || !strings.Contains(string(spec), `"ociVersion":"1.1.0"`) {
				t.Errorf("%s: the spec has %d bytes, %v, %v", one, len(spec), ok, err)
			}
			meta, ok, err := get(root, "v1", "k8s.io", "containers", one, "extensions", "io.cri-containerd.container.metadata")
			if err != nil || !ok || !strings.Contains(string(meta), `"ID":"`+one+`"`) {
				t.Errorf("%s: the metadata is %s, %v, %v", one, meta, ok, err)
			}
		}
		if v, ok, err := get(root, "v1", "default", "containers", "ctrweb", "image"); err != nil || !ok || string(v) != "x" {
			t.Errorf("a bucket within a page: %q, %v, %v", v, ok, err)
		}
		for _, names := range [][]string{{"v2"}, {"v1"}, {"v1", "nothing"}, {"v1", "k8s.io", "containers", id(0xa5), "spec"}, {"v1", "k8s.io", "containers", id(0xa1)},
			{"v1", "k8s.io", "containers", id(0xa1), "spec", "x"}, {"v1", "k8s.io", "containers", "", "spec"}, {"v1", "k8s.io", "containers", "zzz", "spec"}} {
			if v, ok, err := get(root, names...); ok || err != nil {
				t.Errorf("%v: %q, %v", names, v, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// changing is a database to which its owner writes: each look finds the next of these contents, the last one from then on.
type changing struct {
	contents [][]byte
	looks    int // how often the first page was read
}

func (c *changing) ReadAt(p []byte, at int64) (int, error) {
	if at == 0 {
		c.looks++
	}
	return bytes.NewReader(c.contents[min(c.looks, len(c.contents))-1]).ReadAt(p, at)
}

// What was read while a transaction finished does not count.
func TestViewWhileItChanges(t *testing.T) {
	now := bbolttest.Containerd(t)
	before := bytes.Clone(now)
	copy(before[:4096], make([]byte, 4096)) // the one of the two that is left is of the transaction before, or of the one after
	other := bytes.Clone(now)
	copy(other[4096:8192], make([]byte, 4096))
	collected := 0
	look := func(bbolt.Bucket) error { collected++; return nil }
	if err := bbolt.View(&changing{contents: [][]byte{before, other, other, now, now}}, look); err != nil || collected < 2 {
		t.Errorf("%v after %d looks", err, collected)
	}
	var all [][]byte
	for range 40 {
		all = append(all, before, other)
	}
	if err := bbolt.View(&changing{contents: all}, look); !errors.Is(err, bbolt.ErrBusy) {
		t.Errorf("one that changes all the time: %v", err)
	}
	wrong := errors.New("wrong")
	if err := bbolt.View(bytes.NewReader(now), func(bbolt.Bucket) error { return wrong }); !errors.Is(err, wrong) {
		t.Error(err)
	}
}

// What is damaged is an error, and no endless way.
func TestDamaged(t *testing.T) {
	whole := bbolttest.Containerd(t)
	for name, content := range map[string][]byte{
		"empty": nil, "short": whole[:79], "zeros": make([]byte, 1<<16), "text": bytes.Repeat([]byte("x"), 1<<16),
		"cut off behind its first pages": whole[:2*4096],
	} {
		err := bbolt.View(bytes.NewReader(content), func(root bbolt.Bucket) error {
			_, _, err := root.Bucket("v1")
			return err
		})
		if !errors.Is(err, bbolt.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzGet reads a database of which some bytes are others.
func FuzzGet(f *testing.F) {
	whole := bbolttest.Containerd(f)
	f.Add(uint32(0), []byte{0})
	f.Add(uint32(2*4096+8), []byte{1, 0, 0xff, 0xff})
	f.Add(uint32(3*4096+16), []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, others []byte) {
		content := bytes.Clone(whole)
		copy(content[int(at)%len(content):], others)
		_ = bbolt.View(bytes.NewReader(content), func(root bbolt.Bucket) error {
			value, ok, err := get(root, "v1", "k8s.io", "containers", fmt.Sprintf("%064x", 0xa1), "spec")
			if !ok && value != nil || err != nil && ok {
				t.Errorf("%d bytes, %v, %v", len(value), ok, err)
			}
			return nil
		})
	})
}

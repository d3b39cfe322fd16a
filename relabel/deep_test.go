package relabel

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
)

// metered counts the bytes that labels are asked by.
type metered struct {
	Descender
	bytes atomic.Int64
}

func (c *metered) Want(path string, kind Kind, current string) (string, Reason) {
	c.bytes.Add(int64(len(path)))
	return c.Descender.Want(path, kind, current)
}

func (c *metered) Inside(dir string) Inside {
	c.bytes.Add(int64(len(dir)))
	return &meteredInside{c.Descender.Inside(dir), c}
}

type meteredInside struct {
	Inside
	labels *metered
}

func (c *meteredInside) Want(name string, kind Kind, current string) (string, Reason) {
	c.labels.bytes.Add(int64(len(name)))
	return c.Inside.Want(name, kind, current)
}

func (c *meteredInside) Enter(name string) Inside {
	c.labels.bytes.Add(int64(len(name)))
	return &meteredInside{c.Inside.Enter(name), c.labels}
}

// A tree that is deeper than any path can be is labelled by the policy in a time that grows with it, and not with its square, in little memory.
func TestDeepTreeByPolicy(t *testing.T) {
	dir := filesystem(t, "tmpfs")
	const levels = 6_000
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// down calls each with the handle of every directory, the topmost first.
	down := func(each func(level, fd int, name string)) {
		t.Helper()
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		do(err)
		for i := range levels {
			name := "a-directory-with-a-long-name"
			if i%7 == 0 {
				name = "bin"
			}
			each(i, fd, name)
			next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(fd)
			do(err)
			fd = next
		}
		unix.Close(fd)
	}
	files := map[int]string{0: "x.so", 1: "plain", 2: "x.so.1"}
	n := int64(1)
	down(func(level, fd int, name string) {
		do(unix.Mkdirat(fd, name, 0o700))
		n++
		for i, file := range files {
			if level%10 == i {
				f, err := unix.Openat(fd, file, unix.O_CREAT|unix.O_WRONLY, 0o600)
				do(err)
				unix.Close(f)
				n++
			}
		}
	})
	contexts := filecontexts.New()
	do(contexts.Add("test", strings.NewReader(`/.*	u:object_r:default_t:s0
/d(/.*)?	u:object_r:d_t:s0
/d/(.*/)?bin/[^/]*	-d	u:object_r:in_bin_t:s0
/d/.*\.so(\.[^/]*)*	--	u:object_r:so_t:s0
/d/.*/bin(/[^/]+){3}	u:object_r:three_t:s0
`)))
	labels := &metered{Descender: FromPolicy(contexts, false)}
	target := open(t, dir)
	target.named = "/d"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := target.Run(context.Background(), Options{Labels: labels, Workers: 2})
	runtime.ReadMemStats(&after)
	do(err)
	if adds(t, r); r.Set != n || !r.Complete() {
		t.Errorf("%d of %d, %+v", r.Set, n, r)
	}
	asked, allocated := labels.bytes.Load(), after.TotalAlloc-before.TotalAlloc
	t.Logf("%d entries, %d bytes of paths and names, %d bytes allocated", n, asked, allocated)
	if asked > 2<<20 || allocated > 512<<20 { // whole paths are some 600 MB, and allocated more than once
		t.Errorf("asked by %d bytes, allocated %d", asked, allocated)
	}
	var value [256]byte
	path := target.named
	down(func(level, fd int, name string) {
		if level%2500 < 8 {
			check := func(name string, kind Kind) {
				t.Helper()
				want, leave := FromPolicy(contexts, false).Want(path+"/"+name, kind, "")
				got, err := unix.Openat(fd, name, unix.O_RDONLY, 0)
				do(err)
				size, err := unix.Fgetxattr(got, "security.selinux", value[:])
				unix.Close(got)
				do(err)
				if is := strings.TrimSuffix(string(value[:size]), "\x00"); is != want || leave != "" {
					t.Errorf("%s on level %d: %s, want %s", name, level, is, want)
				}
			}
			check(name, Directory)
			for i, file := range files {
				if level%10 == i {
					check(file, Regular)
				}
			}
		}
		path += "/" + name
	})
}

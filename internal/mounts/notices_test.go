package mounts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What statmount(2) tells of a mount is to the letter what mountinfo says of it.
func TestNoticesDescribeAsTheTableDoes(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		n := newNotices()
		if n == nil {
			t.Skip("the kernel is older than 6.15")
		}
		defer n.close()
		at := func(name string) string { return filepath.Join(dir, name) }
		mount(t, "a b\\c", at("plain"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "size=1m,mode=700")
		mount(t, "", at("empty"), "tmpfs", unix.MS_NOATIME|unix.MS_NODIRATIME|unix.MS_SYNCHRONOUS, "")
		mount(t, "lazy", at("with space\nand more"), "tmpfs", unix.MS_STRICTATIME|unix.MS_LAZYTIME, "")
		mount(t, at("plain"), at("bind"), "", unix.MS_BIND, "")
		if err := os.MkdirAll(at("empty/sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, at("empty/sub"), at("part"), "", unix.MS_BIND, "")
		mount(t, "none", at("part"), "", unix.MS_UNBINDABLE, "")
		mount(t, at("empty"), at("shared"), "", unix.MS_BIND, "")
		mount(t, "none", at("shared"), "", unix.MS_SHARED, "")
		mount(t, at("shared"), at("slave"), "", unix.MS_BIND, "")
		mount(t, "none", at("slave"), "", unix.MS_SLAVE, "")
		mount(t, loop(t, dir, "ext4", "-q"), at("disk"), "ext4", 0, "errors=remount-ro")
		defer umount(t, at("disk"))
		mount(t, "proc", at("proc"), "proc", 0, "")

		w, err := Open(true)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		described := 0
		for _, want := range next(t, w).Appeared {
			got := n.mount(want.Unique)
			if got == nil {
				continue // without options of its own: the table is asked
			}
			described++
			if *got != *want {
				t.Errorf("got  %+v\nwant %+v", *got, *want)
			}
		}
		if described < 10 {
			t.Errorf("only %d could be described", described)
		}
	})
}

func TestNoticesTell(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		n := newNotices()
		if n == nil {
			t.Skip("the kernel is older than 6.15")
		}
		defer n.close()
		n.read()
		a := filepath.Join(dir, "a")
		mount(t, "x", a, "tmpfs", 0, "size=1m")
		came, gone, all := n.read()
		if len(came) != 1 || len(gone) != 0 || !all || n.mount(came[0]).Mountpoint != a {
			t.Fatalf("%v %v %v", came, gone, all)
		}
		umount(t, a)
		if again, gone, all := n.read(); len(again) != 0 || !slices.Equal(gone, came) || !all {
			t.Errorf("%v %v %v", again, gone, all)
		}
		if n.mount(came[0]) != nil {
			t.Error("what is gone can be described")
		}
		if again, gone, all := n.read(); len(again)+len(gone) != 0 || !all {
			t.Errorf("%v %v %v", again, gone, all)
		}
	})
}

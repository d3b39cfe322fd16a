package mounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,seclabel,errors=remount-ro
36 22 0:30 / /mnt/a\040b\134c\012d ro,nosuid master:2 propagate_from:3 - tmpfs  rw,context="system_u:object_r:container_file_t:s0:c1,c2",size=1k
37 36 259:7 /sub/dir /mnt rw - fuse.sshfs u@h:/x\040y rw
38 22 4095:1048575 /x//deleted /y rw unbindable - xfs /dev/\043x ro,seclabel`
	got, err := Parse(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []*Mount{
		{
			ID: 22, Parent: 1, Device: Device{8, 1}, Root: "/", Mountpoint: "/", Options: "rw,relatime", Optional: "shared:1", FSType: "ext4",
			Source: "/dev/sda1", SuperOptions: "rw,seclabel,errors=remount-ro",
		},
		{
			ID: 36, Parent: 22, Device: Device{0, 30}, Root: "/", Mountpoint: "/mnt/a b\\c\nd", Options: "ro,nosuid",
			Optional: "master:2 propagate_from:3", FSType: "tmpfs", SuperOptions: `rw,context="system_u:object_r:container_file_t:s0:c1,c2",size=1k`,
		},
		{
			ID: 37, Parent: 36, Device: Device{259, 7}, Root: "/sub/dir", Mountpoint: "/mnt", Options: "rw", FSType: "fuse.sshfs",
			Source: "u@h:/x y", SuperOptions: "rw",
		},
		{
			ID: 38, Parent: 22, Device: Device{4095, 1048575}, Root: "/x//deleted", Mountpoint: "/y", Options: "rw", Optional: "unbindable",
			FSType: "xfs", Source: "/dev/#x", SuperOptions: "ro,seclabel",
		},
	}
	if !reflect.DeepEqual(got, want) {
		for i := range got {
			t.Errorf("got  %+v\nwant %+v", got[i], want[min(i, len(want)-1)])
		}
	}
	for i, c := range []struct {
		context                     string
		seclabel, readOnly, isWhole bool
	}{
		{"", true, false, true}, {"system_u:object_r:container_file_t:s0:c1,c2", false, true, true}, {"", false, false, false}, {"", true, true, false},
	} {
		m := got[i]
		if m.Context() != c.context || m.Seclabel() != c.seclabel || m.ReadOnly() != c.readOnly || m.Whole() != c.isWhole {
			t.Errorf("line %d: %q %v %v %v", i, m.Context(), m.Seclabel(), m.ReadOnly(), m.Whole())
		}
	}
	if size, ok := got[1].SuperOption("size"); size != "1k" || !ok {
		t.Errorf("size %q %v", size, ok)
	}
	if _, ok := got[1].Option("rw"); ok {
		t.Error("an option of the superblock is one of the mount")
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	for line, want := range map[string]string{
		"x 1 8:1 / / rw - ext4 /dev/sda1 rw":           `"x" is no ID`,
		"22 0x1 8:1 / / rw - ext4 /dev/sda1 rw":        `"0x1" is no ID`,
		"-22 1 8:1 / / rw - ext4 /dev/sda1 rw":         `"-22" is no ID`,
		"99999999999 1 8:1 / / rw - ext4 /dev/sda1 rw": `"99999999999" is no ID`,
		"22 1 8 / / rw - ext4 /dev/sda1 rw":            `"8" is no device number`,
		"22 1 8:x / / rw - ext4 /dev/sda1 rw":          `"8:x" is no device number`,
		"22 1 8:1 / / rw ext4 /dev/sda1 rw":            `it has no " - " after the first six fields`,
		"22 1 8:1 / / rw - ext4":                       "it has too few fields",
		"22 1 8:1 /  rw - ext4 x rw":                   "it has too few fields",
		"22 1 8:1 - ext4 x rw":                         "it has too few fields",
		"22 1 8:1 / x rw - ext4 x rw":                  "it has too few fields",
		"22":                                           `it has no " - " after the first six fields`,
	} {
		_, err := Parse(strings.NewReader(good + line + "\n" + good))
		if err == nil || err.Error() != "cannot use line 2 of the mount table: "+want {
			t.Errorf("%q: %v", line, err)
		}
	}
	if _, err := Parse(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a reader's error is lost: %v", err)
	}
}

// An overlay of many layers makes a line of more than 64 KiB, where bufio.Scanner gives up. What is kept of it is short.
//
// Proves V11.
func TestParseLongLines(t *testing.T) {
	for _, size := range []int{1000, 2000, 63 << 10, 64<<10 - 80, 64 << 10, 102 << 10, 900 << 10, 3 << 20} {
		long := fmt.Sprintf(`23 1 0:31 / /long rw - overlay overlay rw,seclabel,context="u:r:t:s0:c1,c2",lowerdir=%s,upperdir=/u`, strings.Repeat("x", size))
		after := "24 1 8:1 / /after rw - ext4 /dev/sda1 rw"
		for _, r := range []io.Reader{strings.NewReader(long + "\n" + after), iotest.HalfReader(strings.NewReader(long + "\n" + after + "\n"))} {
			got, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || got[0].Mountpoint != "/long" || got[1].Mountpoint != "/after" || !got[0].Seclabel() || got[0].Context() != "u:r:t:s0:c1,c2" {
				t.Fatalf("%d: %d mounts", size, len(got))
			}
			if len(got[0].SuperOptions) > 2*maxValue || got[0].Shortened != (size > maxValue) || got[1].Shortened {
				t.Errorf("%d: %d bytes of options are kept, shortened %v", size, len(got[0].SuperOptions), got[0].Shortened)
			}
			if layers, _ := got[0].SuperOption("lowerdir"); size > maxValue && layers != "..." {
				t.Errorf("%d: lowerdir=%.20s", size, layers)
			}
			if upper, _ := got[0].SuperOption("upperdir"); size < maxLine/2 && upper != "/u" {
				t.Errorf("%d: upperdir=%.20s", size, upper)
			}
		}
	}
}

// A context with every category written out is longer than what is kept of other options.
func TestParseKeepsContexts(t *testing.T) {
	var categories []string
	for i := range 512 {
		categories = append(categories, fmt.Sprintf("c%d", 2*i))
	}
	context := "u:r:t:s0:" + strings.Join(categories, ",")
	got, err := Parse(strings.NewReader(`23 1 0:31 / /long rw - tmpfs x rw,context="` + context + `",x=` + strings.Repeat("x", 2000)))
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Context() != context {
		t.Errorf("%.80s", got[0].Context())
	}
}

// The kernel's own table of this machine is understood line by line.
func TestParseHere(t *testing.T) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Parse(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != strings.Count(string(text), "\n") || len(all) == 0 {
		t.Errorf("%d mounts of %d lines", len(all), strings.Count(string(text), "\n"))
	}
}

// What kernels, runtimes and users have put into mount tables.
func TestParseWhatIsOutThere(t *testing.T) {
	deep := "/" + strings.Repeat(`a\040`, 6000) // 24 kB escaped
	for _, c := range []struct {
		what, line string
		want       Mount
	}{
		{"a tmpfs without a source", `68 45 0:40 / /mnt rw,relatime - tmpfs  rw`,
			Mount{ID: 68, Parent: 45, Device: Device{0, 40}, Root: "/", Mountpoint: "/mnt", Options: "rw,relatime", FSType: "tmpfs", SuperOptions: "rw"}},
		{"a source that is a dash", `70 69 0:42 / /mnt rw - tmpfs - rw`,
			Mount{ID: 70, Parent: 69, Device: Device{0, 42}, Root: "/", Mountpoint: "/mnt", Options: "rw", FSType: "tmpfs", Source: "-", SuperOptions: "rw"}},
		{"all that is escaped", `69 68 0:41 /x\012y\040\134z /a\011b rw - fuse.a\040b c\040d\043e rw`,
			Mount{ID: 69, Parent: 68, Device: Device{0, 41}, Root: "/x\ny \\z", Mountpoint: "/a\tb", Options: "rw", FSType: "fuse.a b", Source: "c d#e", SuperOptions: "rw"}},
		{"an octal number that is the name's own", `69 68 0:41 / /a\134040b rw - tmpfs x rw`,
			Mount{ID: 69, Parent: 68, Device: Device{0, 41}, Root: "/", Mountpoint: `/a\040b`, Options: "rw", FSType: "tmpfs", Source: "x", SuperOptions: "rw"}},
		{"the root of everything", `1 0 0:1 / / ro - 9p none ro,trans=fd`,
			Mount{ID: 1, Device: Device{0, 1}, Root: "/", Mountpoint: "/", Options: "ro", FSType: "9p", Source: "none", SuperOptions: "ro,trans=fd"}},
		{"a network namespace", `73 70 0:4 net:[4026531833] /run/netns/cni-1 rw shared:9 - nsfs nsfs rw,seclabel`,
			Mount{ID: 73, Parent: 70, Device: Device{0, 4}, Root: "net:[4026531833]", Mountpoint: "/run/netns/cni-1", Options: "rw", Optional: "shared:9", FSType: "nsfs",
				Source: "nsfs", SuperOptions: "rw,seclabel"}},
		{"a socket that was removed", `3054 2981 0:25 /containerd/containerd.sock//deleted /run/c.sock rw - tmpfs tmpfs rw,mode=755`,
			Mount{ID: 3054, Parent: 2981, Device: Device{0, 25}, Root: "/containerd/containerd.sock//deleted", Mountpoint: "/run/c.sock", Options: "rw", FSType: "tmpfs",
				Source: "tmpfs", SuperOptions: "rw,mode=755"}},
		{"an automount", `52 36 0:40 / /srv rw,relatime shared:30 - autofs systemd-1 rw,fd=62,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=20555`,
			Mount{ID: 52, Parent: 36, Device: Device{0, 40}, Root: "/", Mountpoint: "/srv", Options: "rw,relatime", Optional: "shared:30", FSType: "autofs", Source: "systemd-1",
				SuperOptions: "rw,fd=62,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=20555"}},
		{"every tag of propagation, and one to come", `90 22 8:33 / /m rw shared:1 master:2 propagate_from:3 unbindable future:4 - xfs /dev/sdc1 rw`,
			Mount{ID: 90, Parent: 22, Device: Device{8, 33}, Root: "/", Mountpoint: "/m", Options: "rw", Optional: "shared:1 master:2 propagate_from:3 unbindable future:4",
				FSType: "xfs", Source: "/dev/sdc1", SuperOptions: "rw"}},
		{"an NFS export on IPv6", `211 52 0:66 /sub /nfs rw,noatime - nfs4 [fe80::1%eth0]:/pool rw,vers=4.2,addr=fe80::1%eth0`,
			Mount{ID: 211, Parent: 52, Device: Device{0, 66}, Root: "/sub", Mountpoint: "/nfs", Options: "rw,noatime", FSType: "nfs4", Source: "[fe80::1%eth0]:/pool",
				SuperOptions: "rw,vers=4.2,addr=fe80::1%eth0"}},
		{"a share of old, with blanks and a dash in its options", `41 23 0:42 / /mnt rw - cifs //nas/My\040Docs rw,unc=\\nas\My - Docs,username=x`,
			Mount{ID: 41, Parent: 23, Device: Device{0, 42}, Root: "/", Mountpoint: "/mnt", Options: "rw", FSType: "cifs", Source: "//nas/My Docs",
				SuperOptions: `rw,unc=\\nas\My\040-\040Docs,username=x`}},
		{"a carriage return at the end", "41 23 0:42 / /m rw - overlay o rw,upperdir=/x\r",
			Mount{ID: 41, Parent: 23, Device: Device{0, 42}, Root: "/", Mountpoint: "/m", Options: "rw", FSType: "overlay", Source: "o", SuperOptions: `rw,upperdir=/x\015`}},
		{"a sub-path of a pod's volume", `900 100 8:48 /dir1 /var/lib/kubelet/pods/c25464af-e52e-11e7-ab4d-42010a800002/volume-subpaths/vol1/web/0 rw shared:290 - ext4 /dev/sdd rw`,
			Mount{ID: 900, Parent: 100, Device: Device{8, 48}, Root: "/dir1", Mountpoint: "/var/lib/kubelet/pods/c25464af-e52e-11e7-ab4d-42010a800002/volume-subpaths/vol1/web/0",
				Options: "rw", Optional: "shared:290", FSType: "ext4", Source: "/dev/sdd", SuperOptions: "rw"}},
		{"a Btrfs subvolume", `36 1 0:33 /@home /home rw - btrfs /dev/sda2 rw,space_cache=v2,subvolid=257,subvol=/@home`,
			Mount{ID: 36, Parent: 1, Device: Device{0, 33}, Root: "/@home", Mountpoint: "/home", Options: "rw", FSType: "btrfs", Source: "/dev/sda2",
				SuperOptions: "rw,space_cache=v2,subvolid=257,subvol=/@home"}},
		{"an overlay of many layers, all in one option", `235 25 0:48 / /m rw - overlay overlay rw,seclabel,lowerdir=` + strings.Repeat("/var/lib/docker/overlay2/l/X:", 450) + `,upperdir=/u,workdir=/w`,
			Mount{ID: 235, Parent: 25, Device: Device{0, 48}, Root: "/", Mountpoint: "/m", Options: "rw", FSType: "overlay", Source: "overlay", Shortened: true,
				SuperOptions: "rw,seclabel,lowerdir=...,upperdir=/u,workdir=/w"}},
		{"an overlay of many layers, one by one", `235 25 0:48 / /m rw - overlay overlay rw,seclabel` + strings.Repeat(",lowerdir+=/var/lib/containerd/snapshots/1/fs", 3000) + `,upperdir=/u`,
			Mount{ID: 235, Parent: 25, Device: Device{0, 48}, Root: "/", Mountpoint: "/m", Options: "rw", FSType: "overlay", Source: "overlay", Shortened: true,
				SuperOptions: "rw,seclabel,lowerdir+=...,upperdir=/u"}},
		{"a path that no call takes", "235 25 0:48 " + deep + " " + deep + " rw - tmpfs " + deep + " rw",
			Mount{ID: 235, Parent: 25, Device: Device{0, 48}, Root: Unescape(deep[:maxPath]), Mountpoint: Unescape(deep[:maxPath]), Options: "rw", FSType: "tmpfs",
				Source: Unescape(deep[:maxPath]), SuperOptions: "rw"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := Parse(strings.NewReader(c.line + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || *got[0] != c.want {
				t.Errorf("got  %+v\nwant %+v", *got[0], c.want)
			}
		})
	}
}

// However many options a line has, the table can be read, and what the security modules wrote is kept.
func TestParseManyOptions(t *testing.T) {
	var options strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&options, ",option%d=%d", i, i)
	}
	got, err := Parse(strings.NewReader(`1 0 0:1 / / rw - x x rw,context="u:r:t:s0:c1,c2"` + options.String() + "\n2 1 0:2 / /b rw - x x rw\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Context() != "u:r:t:s0:c1,c2" || !got[0].Shortened || len(got[0].SuperOptions) > maxOptions || got[1].Mountpoint != "/b" {
		t.Errorf("%d mounts, %d bytes of options, shortened %v", len(got), len(got[0].SuperOptions), got[0].Shortened)
	}
}

// What the kernel makes of hostile names comes out as it went in.
func TestReadHere(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		mount(t, "", at("empty"), "tmpfs", 0, "size=1m")
		mount(t, "-", at("dash"), "tmpfs", 0, "")
		mount(t, "a b\tc#d\ne\\040f", at("x\ny z\\"), "tmpfs", 0, "")
		for _, name := range []string{"gone", "bound"} {
			if err := os.Mkdir(at(name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		mount(t, at("gone"), at("bound"), "", unix.MS_BIND, "")
		if err := os.Remove(at("gone")); err != nil {
			t.Fatal(err)
		}
		all, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		for point, want := range map[string]string{"empty": "", "dash": "-", "x\ny z\\": "a b\tc#d\ne\\040f", "bound": "tmpfs"} {
			m := At(all, at(point)+"/file")
			if m == nil || m.Mountpoint != at(point) || m.Source != want || m.FSType != "tmpfs" || !strings.HasPrefix(m.SuperOptions, "rw") {
				t.Errorf("%s: %+v", point, m)
			}
		}
		if m := At(all, at("bound")); m.Root != "/gone//deleted" {
			t.Errorf("the root of what was removed is %s", m.Root)
		}
	})
}

func TestAt(t *testing.T) {
	all, err := Parse(strings.NewReader(`22 1 254:1 / / rw,relatime - ext4 /dev/vda rw
30 22 0:32 / /usr ro,relatime - btrfs /dev/mapper/usr ro,subvol=/
31 22 0:40 / /usr\040local rw - ext4 /dev/odd\040name rw
40 30 0:50 / /usr/share/oem rw shared:1 - overlay overlay rw,lowerdir=/a
41 40 0:51 / /usr/share/oem rw - tmpfs over rw
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr": "/dev/mapper/usr", "/usr/": "/dev/mapper/usr", "/usr/lib": "/dev/mapper/usr", "/usr/share/oem/x": "over", "/usr/share/oem": "over",
		"/usr local": "/dev/odd name", "/var": "/dev/vda", "/usrx": "/dev/vda", "/": "/dev/vda",
	} {
		if got := At(all, name); got == nil || got.Source != want {
			t.Errorf("%s: %+v, want %q", name, got, want)
		}
	}
	if got := At(nil, "/usr"); got != nil {
		t.Errorf("an empty table gives %+v", got)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\134040`: `\040`, `a\04`: `a\04`, `\999`: `\999`, `\`: `\`, `\303\274`: "ü", `\400`: `\400`, "": "",
	} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSplitOptions(t *testing.T) {
	for in, want := range map[string]string{
		"rw,a=b": "rw|a=b", `a="x,y",b`: `a="x,y"|b`, "": "", ",": "", ",,a": "||a", "a,": "a", `a="x`: `a="x`,
		`lowerdir=/a"b,upperdir=/c`: `lowerdir=/a"b|upperdir=/c`, `"a=b,c",d`: `"a=b,c"|d`,
	} {
		var got []string
		for each := range SplitOptions(in) {
			got = append(got, each)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,seclabel\n")
	f.Add("36 22 0:30 / /mnt/a\\040b ro master:2 - tmpfs  rw,context=\"u:r:t:s0:c1,c2\"\n")
	f.Add("1 1 1:1 / / - - - - - -\n\n")
	f.Add("41 23 0:42 / /mnt rw - cifs //nas/x rw,unc=\\\\nas\\My - Docs\r\n")
	f.Add("41 23 0:42 / /mnt rw - overlay x rw," + strings.Repeat("lowerdir+=/x,", 100) + "upperdir=/y\n")
	f.Fuzz(func(t *testing.T, table string) {
		all, err := Parse(strings.NewReader(table))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "cannot use line ") {
				t.Errorf("what was let through is refused: %v", err)
			}
			return
		}
		lines := 0
		for line := range strings.Lines(table) {
			if line != "\n" {
				lines++
			}
		}
		if len(all) != lines {
			t.Errorf("%d mounts of %d lines", len(all), lines)
		}
		for _, m := range all {
			if m.Mountpoint == "" || m.Root == "" || m.ID < 0 {
				t.Errorf("%+v", m)
			}
			m.Context()
			m.ReadOnly()
		}
		NewTable(all)
	})
}

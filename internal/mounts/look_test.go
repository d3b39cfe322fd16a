package mounts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/fusetest"
)

// mounted gives the mount at a place from a new look at the table.
func mounted(t *testing.T, point string) *Mount {
	t.Helper()
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	all, err := Parse(table)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range slices.Backward(all) {
		if m.Mountpoint == point {
			return m
		}
	}
	t.Fatalf("nothing is mounted at %s", point)
	return nil
}

// The names that are read from a device are those that blkid reads.
//
// Proves V11.
func TestNamesAgreeWithBlkid(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		for _, c := range []struct {
			kind, label string
			args        []string
		}{
			{"ext4", "My Data", []string{"-q", "-L", "My Data"}},
			{"ext2", "", []string{"-q"}},
			{"xfs", "xfs-data", []string{"-q", "-L", "xfs-data"}},
			{"btrfs", "lots of data", []string{"-q", "-L", "lots of data"}},
			{"vfat", "FAT DATA", []string{"-n", "FAT DATA"}},
			{"vfat", "FAT32", []string{"-F", "32", "-n", "FAT32"}},
			{"vfat", "", nil},
		} {
			t.Run(c.kind+" "+c.label, func(t *testing.T) {
				device := loop(t, dir, c.kind, c.args...)
				var st unix.Stat_t
				if err := unix.Stat(device, &st); err != nil {
					t.Fatal(err)
				}
				// Not mounted: the kernel that the test runs on need not know the type.
				m := &Mount{Device: Device{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, FSType: c.kind, Source: device, Root: "/", Mountpoint: "/x"}
				names, err := m.Names()
				if err != nil {
					t.Fatal(err)
				}
				ask := func(tag string) string {
					out, err := exec.Command("blkid", "-p", "-o", "value", "-s", tag, device).Output()
					if err != nil {
						t.Fatalf("blkid: %v", err)
					}
					return strings.TrimRight(string(out), "\n")
				}
				if got := strings.Join(names.Labels, "|"); got != ask("LABEL") || got != c.label {
					t.Errorf("label %q, blkid says %q, made with %q", got, ask("LABEL"), c.label)
				}
				if got := strings.Join(names.UUIDs, "|"); got != ask("UUID") || got == "" {
					t.Errorf("UUID %q, blkid says %q", got, ask("UUID"))
				}
				if !slices.Contains(names.Paths, device) {
					t.Errorf("%q is not among %q", device, names.Paths)
				}
			})
		}
		// A file system of several devices has a number of its own.
		device, point := loop(t, dir, "btrfs", "-q", "-f", "-L", "one"), filepath.Join(dir, "m")
		mount(t, device, point, "btrfs", 0, "")
		defer umount(t, point)
		m := mounted(t, point)
		if names, err := m.Names(); err != nil || m.Device.Major != 0 || !slices.Equal(names.Labels, []string{"one"}) {
			t.Errorf("%s has the names %+v, %v", m.Device, names, err)
		}
		if names, err := mounted(t, dir).Names(); err != nil || !reflect.DeepEqual(names, Names{}) {
			t.Errorf("a tmpfs has the names %+v, %v", names, err)
		}
	})
}

func TestIdentityFromBytes(t *testing.T) {
	image := func(size int, parts map[int]string) *bytes.Reader {
		b := make([]byte, size)
		for at, part := range parts {
			copy(b[at:], part)
		}
		return bytes.NewReader(b)
	}
	const id = "\x8e\x55\xd0\x11\x9c\x83\x47\x3e\x99\xc9\xc7\x16\xb1\xe5\x08\xe6"
	const uuid = "8e55d011-9c83-473e-99c9-c716b1e508e6"
	for _, c := range []struct {
		fstype, label, uuid string
		image               *bytes.Reader
		fails               bool
	}{
		{fstype: "iso9660", label: "ISO VOL", uuid: "2026-11-22-02-53-00-00", image: image(0x9000, map[int]string{
			0x8001: "CD001", 0x8000 + 40: "ISO VOL                         ", 0x8000 + 813: "2026112202530000", 0x8000 + 830: "0000000000000000",
		})},
		{fstype: "iso9660", label: "", uuid: "2025-01-01-00-00-00-07", image: image(0x9000, map[int]string{
			0x8001: "CD001", 0x8000 + 813: "2026112202530000", 0x8000 + 830: "2025010100000007",
		})},
		{fstype: "f2fs", label: "fläsh", uuid: uuid, image: image(4096, map[int]string{
			1024: "\x10\x20\xf5\xf2", 1024 + 0x6c: id, 1024 + 0x7c: "f\x00l\x00\xe4\x00s\x00h\x00",
		})},
		{fstype: "erofs", label: "image", uuid: uuid, image: image(4096, map[int]string{1024: "\xe2\xe1\xf5\xe0", 1024 + 48: id, 1024 + 64: "image"})},
		{fstype: "ext4", image: image(4096, nil), fails: true},
		{fstype: "xfs", image: image(100, map[int]string{0: "XFSB"}), fails: true},
		{fstype: "ntfs", image: image(0, nil), fails: true},
	} {
		label, id, err := Identity(c.image, c.fstype)
		if label != c.label || id != c.uuid || (err != nil) != c.fails {
			t.Errorf("%s: %q, %q, %v", c.fstype, label, id, err)
		}
	}
}

// Of two labels the one that counts is the one that blkid shows: that of the root directory of a FAT, and that of Joliet of a disc.
//
// Proves V11.
func TestLabelsAgreeWithBlkid(t *testing.T) {
	for _, tool := range []string{"blkid", "mkfs.vfat"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	entry := func(name string, attributes, start byte) string {
		return name + strings.Repeat(" ", 11-len(name)) + string([]byte{attributes}) + strings.Repeat("\x00", 14) + string([]byte{start}) + strings.Repeat("\x00", 5)
	}
	const boot16, boot32 = 43, 71
	type bytesAt map[int64]string
	fat := func(size string, args ...string) func(t *testing.T, image string) {
		return func(t *testing.T, image string) {
			for _, argv := range [][]string{{"truncate", "-s", size, image}, append(append([]string{"mkfs.vfat", "--invariant"}, args...), image)} {
				if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v", out, err)
				}
			}
		}
	}
	// Where the root directory and the FAT are, by what mkfs.vfat makes: reserved sectors, FATs, clusters.
	fat16, fat32 := fat("16M", "-F", "16", "-s", "4", "-f", "2", "-r", "512", "-R", "4"), fat("64M", "-F", "32", "-s", "1", "-f", "1", "-R", "32")
	disc := func(t *testing.T, image string) {
		if err := os.WriteFile(image, make([]byte, 0x20000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A disc has blocks of 2,048 bytes, and a root directory with itself in it: blkid looks there since util-linux 2.42.
	rootOfDisc := "\x22\x00" + "\x14\x00\x00\x00\x00\x00\x00\x14" + "\x00\x08\x00\x00\x00\x00\x08\x00" + "\x7e\x0b\x16\x02\x35\x00\x00" + "\x02\x00\x00" + "\x01\x00\x00\x01" + "\x01\x00"
	primary := func(label string) bytesAt {
		return bytesAt{0x8000: "\x01CD001\x01", 0x8028: label + strings.Repeat(" ", 32-len(label)), 0x8080: "\x00\x08\x08\x00", 0x809c: rootOfDisc, 0xa000: rootOfDisc,
			0x832d: "2026112202530000", 0x833e: "2026112202530000", 0x8800: "\xffCD001\x01"}
	}
	joliet := func(short, label string) bytesAt {
		all := primary(short)
		var wide []byte
		for _, u := range utf16.Encode([]rune(label)) {
			wide = append(wide, byte(u>>8), byte(u))
		}
		for len(wide) < 32 {
			wide = append(wide, 0, ' ')
		}
		all[0x8800], all[0x8828], all[0x8858], all[0x9000] = "\x02CD001\x01", string(wide), "%/E", "\xffCD001\x01"
		return all
	}
	with := func(all bytesAt, at int64, text string) bytesAt { all[at] = text; return all }
	for _, c := range []struct {
		name, fstype string
		make         func(*testing.T, string)
		root, more   int64 // where the root directory is, and its second cluster
		parts        func(root, more int64) bytesAt
		want         string
	}{
		{"both", "vfat", fat("16M", "-F", "16", "-n", "BOTH"), 0, 0, nil, "BOTH"},
		{"none", "vfat", fat16, 0, 0, nil, ""},
		{"FAT16 by Windows", "vfat", fat16, 1, 0, func(root, _ int64) bytesAt { return bytesAt{root: entry("FILE", 0x20, 3) + entry("WIN DATA", 0x08, 0)} }, "WIN DATA"},
		{"the boot sector's alone", "vfat", fat16, 1, 0, func(int64, int64) bytesAt { return bytesAt{boot16: "BOOT       "} }, ""},
		{"another in the boot sector", "vfat", fat16, 1, 0, func(root, _ int64) bytesAt { return bytesAt{boot16: "BOOT       ", root: entry("ROOT", 0x08, 0)} }, "ROOT"},
		{"removed", "vfat", fat16, 1, 0, func(root, _ int64) bytesAt { return bytesAt{root: entry("\xe5OLD", 0x08, 0) + entry("NEW", 0x28, 0)} }, "NEW"},
		{"long names, directories, and what is no label", "vfat", fat16, 1, 0,
			func(root, _ int64) bytesAt {
				return bytesAt{root: entry("Along", 0x0f, 0) + entry("DIR", 0x18, 0) + entry("START", 0x08, 2) + entry("LABEL", 0x08, 0)}
			}, "LABEL"},
		{"behind the end", "vfat", fat16, 1, 0, func(root, _ int64) bytesAt {
			return bytesAt{root: entry("FILE", 0x20, 3), root + 64: entry("LABEL", 0x08, 0)}
		}, ""},
		{"the last entry", "vfat", fat16, 1, 0, func(root, _ int64) bytesAt {
			return bytesAt{root: strings.Repeat(entry("FILE", 0x20, 3), 511) + entry("LAST", 0x08, 0)}
		}, "LAST"},
		{"FAT32 by Windows", "vfat", fat32, 2, 0, func(root, _ int64) bytesAt {
			return bytesAt{boot32: "NO NAME    ", root: entry("FILE", 0x20, 3) + entry("WIN32", 0x08, 0)}
		}, "WIN32"},
		{"FAT32, the boot sector's alone", "vfat", fat32, 2, 0, func(int64, int64) bytesAt { return bytesAt{boot32: "BOOT       "} }, ""},
		{"FAT32, in the second cluster", "vfat", fat32, 2, 9,
			func(root, more int64) bytesAt {
				return bytesAt{root: strings.Repeat(entry("FILE", 0x20, 3), 16), more: entry("SECOND", 0x08, 0)}
			}, "SECOND"},
		{"a disc", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return primary("DISC") }, "DISC"},
		{"Joliet", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return joliet("MY_DISC", "My disc") }, "My disc"},
		{"Joliet, another label", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return joliet("DISC", "Größe") }, "Größe"},
		{"Joliet, no ASCII", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return joliet("GR__E", "Größe") }, "Größe"},
		{"Joliet, cut off", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return joliet("CONFIG_OF_THE_MACHINE_NO_1", "Config_of_the_ma") }, "Config_of_the_maCHINE_NO_1"},
		{"no Joliet", "iso9660", disc, 0, 0, func(int64, int64) bytesAt { return with(joliet("DISC", "Other"), 0x8858, "%/X") }, "DISC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			c.make(t, image)
			file, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			write := func(at int64, text string) {
				if _, err := file.WriteAt([]byte(text), at); err != nil {
					t.Fatal(err)
				}
			}
			if c.parts != nil {
				root, more := int64(0), int64(0)
				var sb [512]byte
				if _, err := file.ReadAt(sb[:], 0); err != nil {
					t.Fatal(err)
				}
				reserved := int64(binary.LittleEndian.Uint16(sb[14:]))
				switch c.root {
				case 1:
					root = 512 * (reserved + int64(sb[16])*int64(binary.LittleEndian.Uint16(sb[22:])))
				case 2:
					data := reserved + int64(sb[16])*int64(binary.LittleEndian.Uint32(sb[36:]))
					root, more = 512*data, 512*(data+c.more-2)
					if c.more > 0 {
						write(512*reserved+8, string([]byte{byte(c.more), 0, 0, 0}))
					}
				}
				for at, text := range c.parts(root, more) {
					write(at, text)
				}
			}
			label, uuid, err := Identity(file, c.fstype)
			if err != nil {
				t.Fatal(err)
			}
			ask := func(tag string) string {
				out, _ := exec.Command("blkid", "-p", "-o", "value", "-s", tag, image).Output() // nothing is an error to it
				return strings.TrimRight(string(out), "\n")
			}
			if says := ask("LABEL"); label != says || label != c.want {
				t.Errorf("label %q, blkid says %q, wanted %q", label, says, c.want)
			}
			if says := ask("UUID"); uuid != says || uuid == "" {
				t.Errorf("UUID %q, blkid says %q", uuid, says)
			}
		})
	}
}

func FuzzIdentity(f *testing.F) {
	for _, kind := range []string{"ext4", "xfs", "btrfs", "f2fs", "vfat", "iso9660", "erofs"} {
		f.Add(kind, 1024, []byte("\x00\x01"))
	}
	// FAT16 and FAT32 with a root directory that goes round, and a disc with Joliet.
	f.Add("vfat", 11, []byte("\x00\x02\x01\x01\x00\x01\x00\x02\x00\x00\xf8\x01\x00"))
	f.Add("vfat", 11, append([]byte("\x00\x02\x01\x01\x00\x01\x00\x00\x00\x00\xf8\x00\x00"+strings.Repeat("\x00", 12)+"\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00"), make([]byte, 500)...))
	f.Add("iso9660", 0x8800, []byte("\x02CD001\x01"+strings.Repeat("\x00\xd8", 40)+"%/E"))
	f.Fuzz(func(t *testing.T, kind string, at int, part []byte) {
		b := make([]byte, 0x11000)
		copy(b[510:], "\x55\xaa")
		copy(b[0x8001:], "CD001")
		if at >= 0 && at < len(b) {
			copy(b[at:], part)
		}
		_, _, _ = Identity(bytes.NewReader(b), kind)
	})
}

func TestParseUdev(t *testing.T) {
	names, err := parseUdev(strings.NewReader(`S:disk/by-uuid/AB-CD
S:disk/by-label/My\x20Data
L:0
I:123
E:ID_FS_LABEL=My_Data
E:ID_FS_LABEL_ENC=My\x20Data\x2f\x5c
E:ID_FS_UUID_ENC=AB-CD
E:ID_FS_TYPE=vfat
V:1
`))
	want := Names{
		Paths: []string{"/dev/disk/by-uuid/AB-CD", `/dev/disk/by-label/My\x20Data`}, Labels: []string{`My Data/\`}, UUIDs: []string{"AB-CD"},
	}
	if err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("%+v, %v", names, err)
	}
	for in, want := range map[string]string{`\x2`: `\x2`, `\xzz`: `\xzz`, `\\x20`: `\ `, `a\x41`: "aA"} {
		if got := unhex(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestOutdated(t *testing.T) {
	for link, want := range map[string]bool{
		`/dev/disk/by-label/My\x20Data`: false, "/dev/disk/by-label/old": true, "/dev/disk/by-uuid/AB-CD": false, "/dev/disk/by-uuid/x": true,
		"/dev/disk/by-id/x": false, "/dev/sda1": false,
	} {
		if outdated(link, "My Data", "AB-CD") != want {
			t.Error(link)
		}
	}
}

func FuzzParseUdev(f *testing.F) {
	f.Add("S:disk/by-uuid/AB-CD\nE:ID_FS_LABEL_ENC=My\\x20Data\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseUdev(strings.NewReader(text))
	})
}

func TestRootLabel(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		const label = "system_u:object_r:container_file_t:s0"
		device, point := loop(t, dir, "ext4", "-q"), filepath.Join(dir, "m")
		mount(t, device, point, "ext4", 0, "")
		defer umount(t, point)
		if got, err := mounted(t, point).RootLabel(); err != nil || got == label {
			t.Errorf("%q, %v", got, err)
		}
		if err := unix.Setxattr(point, "security.selinux", []byte(label+"\x00"), 0); err != nil {
			t.Fatal(err)
		}
		if got, err := mounted(t, point).RootLabel(); err != nil || got != label {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The label of any file is told without asking a server, and without following a link.
func TestLabelAt(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		const label, ofLink, ofMount = "system_u:object_r:container_file_t:s0", "system_u:object_r:etc_t:s0", "system_u:object_r:usr_t:s0:c1,c2"
		device, point := loop(t, dir, "ext4", "-q"), filepath.Join(dir, "m")
		mount(t, device, point, "ext4", 0, "")
		defer umount(t, point)
		file, link, through := filepath.Join(point, "sub", "file"), filepath.Join(point, "link"), filepath.Join(point, "through")
		for _, err := range []error{os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600), os.Symlink(file, link), os.Symlink("sub", through),
			unix.Setxattr(file, "security.selinux", []byte(label+"\x00"), 0), unix.Lsetxattr(link, "security.selinux", []byte(ofLink), 0)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		served := filepath.Join(dir, "served")
		if err := os.Mkdir(served, 0o755); err != nil {
			t.Fatal(err)
		}
		server := fusetest.Mount(t, served)
		server.HangAll()
		all, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		withContext := &Mount{ID: -1, Mountpoint: "/of/a/server", FSType: "nfs4", SuperOptions: `rw,context="` + ofMount + `"`}
		under := append(slices.Clone(all), &Mount{ID: -2, Mountpoint: dir, FSType: "nfs4"})
		for _, c := range []struct {
			table []*Mount
			name  string
			want  string
			err   error
		}{
			{all, file, label, nil}, {all, link, ofLink, nil}, {all, filepath.Join(through, "file"), "", unix.ELOOP}, {all, filepath.Join(point, "none"), "", unix.ENOENT},
			{append(all, withContext), "/of/a/server/x/y", ofMount, nil}, {all, served, "", ErrServer}, {all, filepath.Join(served, "x"), "", ErrServer},
			{under, file, "", ErrServer}, {nil, file, "", unix.ENOENT},
		} {
			if got, err := LabelAt(c.table, c.name); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: %q, %v; want %q, %v", c.name, got, err, c.want, c.err)
			}
		}
		if n := server.Asked(); n > 0 {
			t.Errorf("the server was asked %d times", n)
		}
	})
}

// A link on the way to the mountpoint is somebody's trick: the kernel's table has none.
func TestOpenRootFollowsNoLinks(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		point := filepath.Join(dir, "a", "b")
		mount(t, "x", point, "tmpfs", 0, "")
		m := mounted(t, point)
		if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("c", filepath.Join(dir, "a")); err != nil {
			t.Fatal(err)
		}
		if root, err := m.OpenRoot(); err == nil {
			root.Close()
			t.Error("opened through a link")
		}
		umount(t, filepath.Join(dir, "c", "b"))
	})
}

// The ID that the kernel gives to no other mount tells one from the next at the same place, which has what the table shows of the one before.
func TestUniqueAt(t *testing.T) {
	inNamespace(t, func(t *testing.T, dir string) {
		point := filepath.Join(dir, "at")
		seen := map[uint64]bool{}
		again := 0 // mounts that look like the one before
		var before *Mount
		for range 20 {
			mount(t, "tmpfs", point, "tmpfs", 0, "")
			m, unique := mounted(t, point), UniqueAt(point)
			if unique == 0 {
				t.Skip("the kernel is older than 6.8")
			}
			if before != nil && before.ID == m.ID && before.Device == m.Device {
				again++
			}
			before = m
			if seen[unique] || unique != UniqueAt(point) {
				t.Errorf("%d is no ID of one mount", unique)
			}
			seen[unique] = true
			umount(t, point)
		}
		t.Logf("%d of 20 look like the one before", again)
	})
}

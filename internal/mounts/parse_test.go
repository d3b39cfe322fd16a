package mounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
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
	f.Fuzz(func(t *testing.T, table string) {
		all, err := Parse(strings.NewReader(table))
		if err != nil {
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

package avc

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// read gives copies of all denials of texts that are merged, and what was counted.
func read(t testing.TB, texts ...string) ([]Denial, Stats) {
	t.Helper()
	var sources []Source
	for _, text := range texts {
		sources = append(sources, NewDecoder(strings.NewReader(text)))
	}
	r := NewReader(sources...)
	var all []Denial
	for {
		d, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, r.Stats()
		}
		if err != nil {
			t.Fatal(err)
		}
		c := *d
		c.Permissions, c.Ioctl, c.Extra = slices.Clone(d.Permissions), slices.Clone(d.Ioctl), slices.Clone(d.Extra)
		all = append(all, c)
	}
}

const avcBody = `avc:  denied  { read write } for  pid=2919 comm="cat" name="online" dev="sda1" ino=30 ` +
	`scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:var_t:s0 tclass=file permissive=0`

// One record in every form that it comes in is the same denial.
//
// Proves V18.
func TestForms(t *testing.T) {
	for name, text := range map[string]string{
		"audit log":           "type=AVC msg=audit(1700000000.123:45): " + avcBody,
		"with node":           "node=host1 type=AVC msg=audit(1700000000.123:45): " + avcBody,
		"enriched":            "type=AVC msg=audit(1700000000.123:45): " + avcBody + "\x1dAUID=\"unset\"",
		"CRLF":                "type=AVC msg=audit(1700000000.123:45): " + avcBody + "\r",
		"unknown to auditd":   "type=UNKNOWN[1400] msg=audit(1700000000.123:45): " + avcBody,
		"dmesg":               "[   12.345678] audit: type=1400 audit(1700000000.123:45): " + avcBody,
		"syslog":              "Nov 14 22:13:20 host kernel: audit: type=1400 audit(1700000000.123:45): " + avcBody,
		"kernel 2.6":          "Nov 14 22:13:20 host kernel: type=1400 audit(1700000000.123:45): " + avcBody,
		"kernel 2.6.9":        "kernel: audit(1700000000.123:45): " + avcBody,
		"json, audit":         `{"_TRANSPORT":"audit","MESSAGE":"AVC ` + strings.ReplaceAll(avcBody, `"`, `\"`) + `","_AUDIT_TYPE":"1400","_AUDIT_ID":"45","_SOURCE_REALTIME_TIMESTAMP":"1700000000123000"}`,
		"json, type by name":  `{"_TRANSPORT":"audit","MESSAGE":"AVC ` + strings.ReplaceAll(avcBody, `"`, `\"`) + `","_AUDIT_TYPE_NAME":"AVC","_AUDIT_ID":"45","_SOURCE_REALTIME_TIMESTAMP":"1700000000123000"}`,
		"json, kernel":        `{"_TRANSPORT":"kernel","MESSAGE":"audit: type=1400 audit(1700000000.123:45): ` + strings.ReplaceAll(avcBody, `"`, `\"`) + `"}`,
		"json, not UTF-8":     `{"_TRANSPORT":"kernel","MESSAGE":` + numbers("audit: type=1400 audit(1700000000.123:45): "+avcBody) + `}`,
		"export, audit":       "__CURSOR=s=1\n_TRANSPORT=audit\nMESSAGE=AVC " + avcBody + "\n_AUDIT_TYPE=1400\n_AUDIT_ID=45\n_SOURCE_REALTIME_TIMESTAMP=1700000000123000\n\n",
		"export, binary":      "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE\n" + binary("audit: type=1400 audit(1700000000.123:45): "+avcBody) + "\n",
		"export, other first": "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE=usb 1-1: new device\n\n__CURSOR=s=2\n_TRANSPORT=kernel\nMESSAGE=audit: type=1400 audit(1700000000.123:45): " + avcBody,
	} {
		t.Run(name, func(t *testing.T) {
			got, stats := read(t, text+"\n")
			if len(got) != 1 {
				t.Fatalf("%d denials, %+v", len(got), stats)
			}
			d := got[0]
			said := fmt.Sprintf("%s %s %d %d %v %s %s %s %s %d %s %s %s %d", d.Type, d.Kind, d.Time.UnixMilli(), d.Serial, d.Permissions, d.Source, d.Target, d.Class,
				d.Enforced, d.PID, d.Comm, d.Name, d.Dev, d.Ino)
			const want = "AVC denied 1700000000123 45 [read write] system_u:system_r:container_t:s0:c1,c2 system_u:object_r:var_t:s0 file yes 2919 cat online sda1 30"
			if said != want {
				t.Errorf("got  %s\nwant %s", said, want)
			}
		})
	}
}

func numbers(text string) string {
	var b strings.Builder
	for i, c := range []byte(text) {
		b.WriteString(map[bool]string{true: "[", false: ","}[i == 0])
		fmt.Fprint(&b, c)
	}
	return b.String() + "]"
}

func binary(text string) string {
	size := [8]byte{byte(len(text)), byte(len(text) >> 8)}
	return string(size[:]) + text + "\n"
}

// line is the record of an event in the audit daemon's log.
func line(serial int, pid int) string {
	return fmt.Sprintf("type=AVC msg=audit(%d.%03d:%d): avc:  denied  { read } for  pid=%d comm=\"x\" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n",
		1700000000+serial/1000, serial%1000, serial, pid)
}

func asKernel(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "type=AVC msg=audit", "audit: type=1400 audit"), "type=SYSCALL msg=audit", "audit: type=1300 audit")
}

// What comes by several ways is one denial; what is written twice is two.
//
// Proves V18.
func TestDuplicates(t *testing.T) {
	long := strings.Replace(line(3, 1), "comm=\"x\"", "comm=\"x\" path=\""+strings.Repeat("/long", 300)+"\"", 1)
	for name, c := range map[string]struct {
		texts       []string
		denials     int
		duplicates  uint64
		enforcedYes int
	}{
		"once":                           {[]string{line(1, 1) + line(2, 1)}, 2, 0, 2},
		"log and kernel, merged":         {[]string{line(1, 1) + line(2, 1), asKernel(line(1, 1) + line(2, 1))}, 2, 2, 2},
		"log and kernel, in one text":    {[]string{line(1, 1) + asKernel(line(1, 1)) + asKernel(line(2, 1)) + line(2, 1)}, 2, 2, 2},
		"two alike in one event":         {[]string{line(1, 1) + line(1, 1)}, 2, 0, 2},
		"two alike by two ways":          {[]string{line(1, 1) + line(1, 1) + asKernel(line(1, 1)+line(1, 1))}, 2, 2, 2},
		"two of one event":               {[]string{line(1, 1) + line(1, 2)}, 2, 0, 2},
		"enriched and not":               {[]string{strings.TrimSuffix(line(1, 1), "\n") + "\x1dAUID=x\n", asKernel(line(1, 1))}, 1, 1, 1},
		"the kernel's log cuts it off":   {[]string{long, asKernel(long)[:1000] + "\n"}, 1, 1, 1},
		"the same serial after a reboot": {[]string{line(1, 1) + strings.Replace(line(1, 1), "1700000000", "1800000000", 1)}, 2, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			got, stats := read(t, c.texts...)
			yes := 0
			for _, d := range got {
				if d.Enforced == EnforcedYes {
					yes++
				}
			}
			if len(got) != c.denials || stats.Duplicates != c.duplicates || yes != c.enforcedYes || stats.Denials != uint64(c.denials) {
				t.Errorf("%d denials, %d enforced, %+v", len(got), yes, stats)
			}
		})
	}
}

// Records of one event are joined although those of others stand between them.
//
// Proves V18.
func TestSplitEvents(t *testing.T) {
	syscall := func(serial int) string {
		return fmt.Sprintf("type=SYSCALL msg=audit(%d.%03d:%d): arch=c000003e syscall=2 success=no exit=-13 pid=1 comm=\"x\" exe=\"/bin/x%d\"\n", 1700000000+serial/1000, serial%1000, serial, serial)
	}
	var text string
	const n = 300
	for i := 1; i <= n; i++ {
		text += line(i, i)
	}
	for i := n; i >= 1; i-- {
		text += syscall(i)
	}
	got, _ := read(t, text)
	if len(got) != n {
		t.Fatalf("%d denials", len(got))
	}
	for i, d := range got {
		if d.Exe != fmt.Sprintf("/bin/x%d", i+1) || d.PID != i+1 {
			t.Fatalf("denial %d has the program %q and process %d", i, d.Exe, d.PID)
		}
	}
}

// What did not arrive is counted, whatever the order of what did.
//
// Proves V18.
func TestLosses(t *testing.T) {
	var whole, holes, shuffled string
	for i := 1; i <= 5000; i++ {
		whole += line(i, i)
		if i%100 != 50 && (i < 3000 || i >= 3500) {
			holes += line(i, i)
		}
	}
	for i := 1; i < 5000; i += 2 {
		shuffled += line(i+1, 1) + line(i, 1)
	}
	later := strings.ReplaceAll(holes, "audit(17", "audit(18")
	for name, c := range map[string]struct {
		text             string
		missing, largest uint64
		boots            int
	}{
		"nothing":         {whole, 0, 0, 1},
		"holes":           {holes, 50 + 500 - 5, 500, 1},
		"out of order":    {shuffled, 0, 1, 1},
		"two boots":       {holes + later, 2 * (50 + 500 - 5), 500, 2},
		"auditd's own":    {"type=DAEMON_START msg=audit(1700000000.000:77001): op=start\n" + whole + "type=DAEMON_END msg=audit(1700000009.000:77002): op=terminate\n", 0, 0, 1},
		"without numbers": {"avc:  denied  { read } for  pid=1 scontext=a:b:c tcontext=d:e:f tclass=file\n", 0, 0, 0},
	} {
		_, stats := read(t, c.text)
		if stats.Missing != c.missing || stats.Boots != c.boots || stats.LargestGap != c.largest {
			t.Errorf("%s: %d missing in %d boots, %d in one place; want %d, %d, %d", name, stats.Missing, stats.Boots, stats.LargestGap, c.missing, c.boots, c.largest)
		}
	}

	// The logs of two hosts in one file, with numbers of their own.
	var both strings.Builder
	for i := 1; i <= 1000; i++ {
		both.WriteString("node=a " + line(i, i) + "node=b " + line(7000+i, i))
		if i != 500 {
			both.WriteString("node=c " + line(i, i))
		}
	}
	if got, stats := read(t, both.String()); len(got) != 2999 || stats.Missing != 1 || stats.Boots != 3 || stats.Duplicates != 0 {
		t.Errorf("three hosts: %d denials, %+v", len(got), stats)
	}
	// What the audit daemon names is the host whose journal names none.
	named := strings.ReplaceAll(whole, "type=AVC", "node=a type=AVC")
	for name, texts := range map[string][]string{"named first": {named, asKernel(whole)}, "named last": {asKernel(whole), named}, "named last, in one text": {asKernel(line(1, 1)) + named}} {
		if got, stats := read(t, texts...); len(got) != 5000 || stats.Missing != 0 || stats.Boots != 1 {
			t.Errorf("%s: %d denials, %+v", name, len(got), stats)
		}
	}

	_, stats := read(t, `audit: audit_lost=3 audit_rate_limit=0 audit_backlog_limit=64
[  12.3] audit: audit_lost=17 audit_rate_limit=0 audit_backlog_limit=64
[  12.4] kauditd_printk_skb: 29 callbacks suppressed
{"_TRANSPORT":"driver","MESSAGE_ID":"e9bf28e6e834481bb6f48f548ad13606","MESSAGE":"Missed 5 kernel messages"}
{"_TRANSPORT":"kernel","_BOOT_ID":"b","MESSAGE":"audit: audit_lost=2 audit_rate_limit=0 audit_backlog_limit=64"}
type=AVC msg=audit(x:1): avc:  denied  { read } for
type=AVC msg=audit(1700000000.001:1): avc:  denied  { read } for  pid=1 scontext=a
{"_TRANSPORT":
`+strings.Repeat("x", 2*longestLine)+"\n"+line(1, 1))
	if want := (Loss{Kernel: 19, Suppressed: 34, Overlong: 1, Malformed: 3, Unread: "avc:  denied  { read } for"}); stats.Loss != want || stats.Denials != 1 {
		t.Errorf("got %+v, want %+v and 1 denial, not %d", stats.Loss, want, stats.Denials)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestReadError(t *testing.T) {
	r := NewReader(NewDecoder(io.MultiReader(strings.NewReader(line(1, 1)), broken{})))
	if _, err := r.Next(); err == nil || err.Error() != "broken" {
		t.Errorf("got %v", err)
	}
}

// flood gives audit.log of n denials, each of an event of its own.
type flood struct {
	n, i int
	left []byte
}

func (f *flood) Read(p []byte) (int, error) {
	for len(f.left) < len(p) && f.i < f.n {
		f.i++
		f.left = fmt.Appendf(f.left, "type=AVC msg=audit(%d.%03d:%d): avc:  denied  { read open } for  pid=%d comm=\"worker\" path=\"/srv/data/file%d\" dev=\"sda1\" ino=%d "+
			"scontext=system_u:system_r:container_t:s0:c%d,c1000 tcontext=system_u:object_r:var_t:s0 tclass=file permissive=0\n",
			1700000000+f.i/100000, f.i/100%1000, f.i, f.i%30000, f.i%500, f.i, f.i%200)
	}
	if len(f.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.left)
	f.left = f.left[:copy(f.left, f.left[n:])]
	return n, nil
}

// A flood is read to the last record, in memory that does not grow with it.
//
// Proves V18.
func TestFlood(t *testing.T) {
	n := 300_000
	if testing.Short() {
		n = 30_000
	}
	groups := NewGroups(Nobody{})
	r := NewReader(NewDecoder(&flood{n: n}))
	for {
		d, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		groups.Add(d)
	}
	var count uint64
	list := groups.List()
	for _, g := range list {
		count += g.Count
	}
	if stats := r.Stats(); count != uint64(n) || stats.Denials != uint64(n) || stats.Missing != 0 || len(list) != 500 {
		t.Errorf("%d denials in %d groups, %+v", count, len(list), stats)
	}
}

// Whatever the paths, there is an end to the groups, and no denial is lost.
func TestManyGroups(t *testing.T) {
	groups := NewGroups(Nobody{})
	const n = 3 * maxGroups
	for i := range n {
		groups.Add(&Denial{Source: "a:b:c:s0", Target: "d:e:f:s0", Class: "file", Permissions: []string{"read"}, Path: fmt.Sprint("/", i)})
	}
	var count uint64
	folded := 0
	for _, g := range groups.List() {
		count += g.Count
		if g.Folded {
			folded++
		}
	}
	if count != n || folded != 1 || len(groups.List()) > maxGroups+1 {
		t.Errorf("%d denials in %d groups, %d folded", count, len(groups.List()), folded)
	}
}

func BenchmarkRead(b *testing.B) {
	groups := NewGroups(Nobody{})
	r := NewReader(NewDecoder(&flood{n: b.N}))
	b.ReportAllocs()
	for {
		d, err := r.Next()
		if err != nil {
			return
		}
		groups.Add(d)
	}
}

func TestOutside(t *testing.T) {
	for _, c := range []struct {
		source, target string
		want           bool
	}{
		{"s0:c1,c2", "s0:c1,c2", false}, {"s0:c1,c2", "s0", false}, {"s0:c1,c2", "s0:c1", false}, {"s0:c1,c2", "s0:c1,c3", true},
		{"s0", "s0:c1", true}, {"s0-s0:c0.c9", "s0:c3,c4", false}, {"", "", false}, {"", "s0:c1", true},
	} {
		if got := outside(c.source, c.target); got != c.want {
			t.Errorf("%s, %s: %v", c.source, c.target, got)
		}
	}
}

// Whatever stands in a log, reading it ends, and no string of a denial changes later.
//
// Proves V18.
func FuzzReader(f *testing.F) {
	f.Add("type=AVC msg=audit(1700000000.123:45): " + avcBody + "\n")
	f.Add("node=h type=AVC msg=audit(1700000000.123:45): " + avcBody + "\x1dA=b\n" + asKernel(line(1, 1)))
	f.Add("__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE\n" + binary("audit: type=1400 audit(1700000000.123:45): "+avcBody) + "\n")
	f.Add(`{"_TRANSPORT":"audit","MESSAGE":["AVC x","y"],"_AUDIT_TYPE":1400,"_AUDIT_ID":[52,53]}` + "\n")
	f.Add(`type=USER_AVC msg=audit(1.2:3): pid=1 msg='avc:  denied  { a } for scontext=a:b:c tcontext=d tclass=e path="` + "\n")
	f.Add("type=SELINUX_ERR msg=audit(1.002:3): security_compute_sid:  invalid context for scontext=\nkernel: audit(:): type=UNKNOWN[ avc:\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, stats := read(t, text)
		if uint64(len(all)) != stats.Denials || stats.Denials+stats.Duplicates > stats.Records {
			t.Errorf("%d denials, %+v", len(all), stats)
		}
		groups := NewGroups(Nobody{})
		for i := range all {
			groups.Add(&all[i])
		}
		var count uint64
		for _, g := range groups.List() {
			count += g.Count
		}
		if count != stats.Denials {
			t.Errorf("%d denials in groups, %d read", count, stats.Denials)
		}
	})
}

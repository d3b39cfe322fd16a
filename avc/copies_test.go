package avc

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// cutAt gives a record of the audit daemon's log whose text is cut off behind a word in the kernel's log, which has room for 1,000 bytes, and both.
func cutAt(serial int, behind string) (whole, cut string) {
	whole = fmt.Sprintf("type=AVC msg=audit(1764320043.118:%d): avc:  denied  { read } for  pid=4127 comm=\"cat\" path=\"/PATH\" dev=\"sda9\" ino=524301 "+
		"scontext=system_u:system_r:container_t:s0:c112,c877 tcontext=system_u:object_r:var_log_t:s0 tclass=file permissive=0\n", serial)
	kernel := asKernel(whole)
	end := strings.Index(kernel, behind) + len(behind)
	long := strings.Repeat("l", 1000-end)
	whole = strings.Replace(whole, "PATH", long, 1)
	return whole, strings.Replace(kernel, "PATH", long, 1)[:1000-len("PATH")] + "\n"
}

// What the kernel's log cut off gives way to the whole record, in whatever order they come, and is counted as unreadable only where there is no other copy.
//
// Proves V18.
func TestCutOff(t *testing.T) {
	for behind, alone := range map[string]string{
		"path=\"/P":       "",
		"tcontext=system": "",
		"tclass=fi":       "",
		"tclass=file":     "", // it could be "filesystem"
		"tclass=file per": "file unknown",
		"permissive=":     "file unknown",
		"permissive=0":    "file yes",
	} {
		whole, cut := cutAt(431, behind)
		other, otherCut := cutAt(432, behind)
		var between strings.Builder
		for i := range 3 * joinWindow {
			between.WriteString(line(500+i, 1))
		}
		for name, c := range map[string]struct {
			texts            []string
			denials, missing int
			want             string
		}{
			"alone":                  {[]string{cut}, map[bool]int{true: 0, false: 1}[alone == ""], 0, alone},
			"first":                  {[]string{cut + whole}, 1, 0, "file yes"},
			"last":                   {[]string{whole + cut}, 1, 0, "file yes"},
			"in another source":      {[]string{cut, whole}, 1, 0, "file yes"},
			"two events, interwoven": {[]string{cut + otherCut + other + whole}, 2, 0, "file yes"},
			"the same text twice":    {[]string{cut + cut + whole + whole}, 2, 0, "file yes"},
			"a copy by a third way":  {[]string{cut + whole + `{"_TRANSPORT":"audit","_AUDIT_TYPE":"1400","_AUDIT_ID":"431","_SOURCE_REALTIME_TIMESTAMP":"1764320043118000","MESSAGE":` + quoted("AVC "+strings.TrimSpace(whole[strings.Index(whole, "avc:"):])) + "}\n"}, 1, 0, "file yes"},
		} {
			got, stats := read(t, c.texts...)
			said := ""
			for i := range got {
				said = got[i].Class + " " + got[i].Enforced.String()
			}
			malformed := map[bool]uint64{true: 1, false: 0}[name == "alone" && alone == ""]
			if len(got) != c.denials || c.denials > 0 && said != c.want || stats.Malformed != malformed || (stats.Unread == "") != (malformed == 0) {
				t.Errorf("cut behind %q, %s: %d denials, %q, %+v", behind, name, len(got), said, stats)
			}
		}
		if got, stats := read(t, cut+between.String()+whole); alone == "" && (len(got) != 1+3*joinWindow || stats.Malformed != 0 || stats.Unread != "") {
			t.Errorf("cut behind %q, the whole one far behind: %d denials, %+v", behind, len(got), stats)
		}
	}
}

// Other records of the event are joined to what was read of the copy that is whole.
func TestCutOffWithCompanions(t *testing.T) {
	whole, cut := cutAt(431, "path=\"/P")
	call := "type=SYSCALL msg=audit(1764320043.118:431): arch=c000003e syscall=257 success=no exit=-13 pid=4127 comm=\"cat\" exe=\"/usr/bin/cat\"\n"
	got, _ := read(t, cut+asKernel(call)+asKernel(line(500, 1)+strings.Replace(call, ":431", ":500", 1))+whole+call)
	if len(got) != 2 || got[0].Exe != "/usr/bin/cat" && got[1].Exe != "/usr/bin/cat" {
		t.Errorf("%+v", got)
	}
}

// What a userspace object manager says is cut off too, most of it a command line.
func TestCutOffUser(t *testing.T) {
	whole := "type=USER_AVC msg=audit(1764320043.118:431): pid=1 uid=0 auid=4294967295 ses=4294967295 subj=system_u:system_r:init_t:s0 msg='avc:  denied  { start } for auid=n/a uid=0 gid=0 " +
		"path=\"/run/systemd/system/x.service\" cmdline=\"" + strings.Repeat("x ", 500) + "\" function=\"bus_unit\" scontext=system_u:system_r:container_t:s0:c1,c2 " +
		"tcontext=system_u:object_r:systemd_unit_file_t:s0 tclass=service permissive=0 exe=\"/usr/lib/systemd/systemd\" sauid=0 hostname=? addr=? terminal=?'\n"
	cut := strings.Replace(whole, "type=USER_AVC msg=audit", "audit: type=1107 audit", 1)[:1000] + "\n"
	for name, text := range map[string]string{"first": cut + whole, "last": whole + cut} {
		if got, stats := read(t, text); len(got) != 1 || got[0].Class != "service" || got[0].Enforced != EnforcedYes || stats.Malformed != 0 || stats.Duplicates != 1 && name == "last" {
			t.Errorf("%s: %+v, %+v", name, got, stats)
		}
	}
	if got, stats := read(t, cut); len(got) != 0 || stats.Malformed != 1 {
		t.Errorf("alone: %+v, %+v", got, stats)
	}
}

// What journalctl prints of the audit socket has neither time nor number. It is the copy of what it prints of the kernel's log.
//
// Proves V18.
func TestUnstamped(t *testing.T) {
	kernel := func(serial int, permission string) string {
		return fmt.Sprintf("Mar 28 06:00:00 localhost kernel: audit: type=1400 audit(1648446800.%03d:%d): %s\n", serial, serial, bpf(permission))
	}
	socket := func(permission string) string {
		return "Mar 28 06:00:00 localhost audit[1]: AVC " + bpf(permission) + "\n"
	}
	iso := func(when, permission string) string {
		return when + " localhost audit[1]: AVC " + bpf(permission) + "\n"
	}
	const other = "type=AVC msg=audit(1648446801.000:95): avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n"
	call := "type=SYSCALL msg=audit(1648446800.086:86): arch=c000003e syscall=321 success=no exit=-1 pid=1 comm=\"systemd\" exe=\"/usr/lib/systemd/systemd\"\n"
	for name, c := range map[string]struct {
		texts          []string
		serials        string
		copies, noTime uint64
	}{
		"beside it":                    {[]string{kernel(86, "bpf") + socket("bpf") + kernel(91, "perfmon")}, "[86 91]", 1, 0},
		"beside it, quoted":            {[]string{kernel(86, "bpf") + strings.TrimSpace(socket("bpf")) + " \"\n"}, "[86]", 1, 0},
		"before it":                    {[]string{socket("bpf") + kernel(86, "bpf") + kernel(91, "perfmon")}, "[86 91]", 1, 0},
		"far behind it":                {[]string{kernel(86, "bpf") + strings.Repeat(socket("perfmon"), 3*joinWindow) + socket("bpf")}, fmt.Sprint(append([]uint64{86}, make([]uint64, 3*joinWindow)...)), 1, 3 * joinWindow},
		"far before it":                {[]string{socket("bpf") + strings.Repeat(socket("perfmon"), 3*joinWindow) + kernel(86, "bpf")}, fmt.Sprint(make([]uint64, 1+3*joinWindow)), 1, 1 + 3*joinWindow},
		"by itself":                    {[]string{socket("bpf") + socket("bpf")}, "[0 0]", 0, 2},
		"as often as the kernel says":  {[]string{kernel(86, "bpf") + kernel(87, "bpf") + socket("bpf") + socket("bpf")}, "[86 87]", 2, 0},
		"more often":                   {[]string{kernel(86, "bpf") + socket("bpf") + socket("bpf")}, "[86 0]", 1, 1},
		"less often":                   {[]string{socket("bpf") + kernel(86, "bpf") + kernel(87, "bpf")}, "[86 87]", 1, 0},
		"beside three copies":          {[]string{kernel(86, "bpf") + socket("bpf"), strings.Replace(kernel(86, "bpf"), "Mar 28 06:00:00 localhost kernel: audit: type=1400 ", "type=AVC msg=", 1)}, "[86]", 2, 0},
		"with its own time":            {[]string{iso("2022-03-28T08:53:20+0300", "bpf") + kernel(86, "bpf") + iso("2022-03-28T05:53:20.123456+00:00", "perfmon")}, "[86 0]", 1, 0},
		"with its own time, another's": {[]string{iso("2022-03-28T08:53:20+02:00", "bpf") + kernel(86, "bpf") + iso("1648440000.123456", "bpf")}, "[0 86 0]", 0, 0},
		"joined to its event":          {[]string{socket("bpf") + call + kernel(86, "bpf") + other}, "[86 95]", 1, 0},
	} {
		got, stats := read(t, c.texts...)
		var serials []uint64
		for i := range got {
			serials = append(serials, got[i].Serial)
			if name == "joined to its event" && got[i].Serial == 86 && got[i].Exe == "" {
				t.Errorf("%s: %+v", name, got[i])
			}
		}
		if said := fmt.Sprint(serials); said != c.serials || stats.Duplicates != c.copies || stats.Undated != c.noTime || stats.Malformed != 0 {
			t.Errorf("%s: %.60s want %.60s, %+v", name, said, c.serials, stats)
		}
	}
}

func bpf(permission string) string {
	return "avc:  denied  { " + permission + " } for  pid=1 comm=\"systemd\" capability=39  scontext=system_u:system_r:kernel_t:s0 tcontext=system_u:system_r:kernel_t:s0 tclass=capability2 permissive=1"
}

// A time that no record says is not the earliest.
func TestEarliest(t *testing.T) {
	first, last := time.Unix(1648446800, 0), time.Unix(1648446900, 0)
	for _, times := range [][]time.Time{{{}, first, last}, {last, {}, first}, {last, first, {}}} {
		groups, joined := NewGroups(Nobody{}), (*Group)(nil)
		for _, at := range times {
			d := &Denial{Source: "a:b:c:s0", Target: "d:e:f:s0", Class: "file", Permissions: []string{"read"}, Time: at}
			groups.Add(d)
			if one := Single(d, Subject{}); joined == nil {
				joined = one
			} else {
				joined.Join(one)
			}
		}
		for _, g := range append(groups.List(), joined) {
			if !g.First.Equal(first) || !g.Last.Equal(last) || g.Count != 3 {
				t.Errorf("%v: %v to %v", times, g.First, g.Last)
			}
		}
	}
}

// A denial does not wait for all of a log to be read, whatever way it came.
func TestNoLongWait(t *testing.T) {
	for name, text := range map[string]string{
		"stamped": line(1, 1), "unstamped": "audit[1]: AVC " + bpf("bpf") + "\n",
	} {
		for i := range 4 * joinWindow {
			text += line(3+i, 1)
		}
		r := NewReader(NewDecoder(strings.NewReader(text)))
		if d, err := r.Next(); err != nil || d == nil || r.stats.Records > 2*joinWindow+2 {
			t.Errorf("%s: %d records were read for the first denial, %v", name, r.stats.Records, err)
		}
	}
}

package avc

import (
	"fmt"
	"strings"
	"testing"
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

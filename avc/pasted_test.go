package avc

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	stampText  = "audit(1700000000.123:45): "
	syscall    = `type=SYSCALL msg=audit(1700000000.123:45): arch=c000003e syscall=257 success=no exit=-13 pid=2919 comm="cat" exe="/usr/bin/cat" key=(null)`
	proctitle  = "type=PROCTITLE msg=audit(1700000000.123:45): proctitle=636174"
	otherBody  = `avc:  denied  { write } for  pid=3000 comm="x" scontext=system_u:system_r:sshd_t:s0 tcontext=system_u:object_r:shadow_t:s0 tclass=file permissive=1`
	oneSaid    = "[read write] system_u:system_r:container_t:s0:c1,c2 system_u:object_r:var_t:s0 file yes 2919 cat online"
	otherSaid  = "[write] system_u:system_r:sshd_t:s0 system_u:object_r:shadow_t:s0 file no 3000 x "
	avcRecord  = "type=AVC msg=" + stampText + avcBody
	otherStamp = "audit(1700000000.200:46): "
)

func short(d *Denial) string {
	return fmt.Sprintf("%v %s %s %s %s %d %s %s", d.Permissions, d.Source, d.Target, d.Class, d.Enforced, d.PID, d.Comm, d.Name)
}

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

// What a record has been through on its way into a tracker or a chat does not change what it says.
//
// Proves V18: what people paste.
func TestPasted(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"an event on one line":          {proctitle + " " + syscall + " " + avcRecord, []string{oneSaid}},
		"two on one line":               {avcRecord + " type=AVC msg=" + otherStamp + otherBody, []string{oneSaid, otherSaid}},
		"two of dmesg on one line":      {"[ 1.2] audit: type=1400 " + stampText + avcBody + " [ 1.3] audit: type=1400 " + otherStamp + otherBody, []string{oneSaid, otherSaid}},
		"two of journalctl on one line": {"Nov 14 22:13:20 host audit[2919]: AVC " + avcBody + " Nov 14 22:13:20 host audit[3000]: AVC " + otherBody, []string{oneSaid, otherSaid}},
		"without stamps, on one line":   {"type=AVC " + avcBody + " type=AVC " + otherBody, []string{oneSaid, otherSaid}},
		"no-break spaces":               {strings.ReplaceAll(avcRecord, " ", "\u00a0"), []string{oneSaid}},
		"some no-break spaces":          {strings.ReplaceAll(avcRecord, "  ", " \u00a0"), []string{oneSaid}},
		"typographic quotes":            {strings.NewReplacer(`comm="`, "comm=\u201c", `" name`, "\u201d name").Replace(avcRecord), []string{oneSaid}},
		"HTML":                          {strings.ReplaceAll(avcRecord, `"`, "&quot;"), []string{oneSaid}},
		"colours":                       {"audit[1]: \x1b[0;1;31mAVC " + avcBody + "\x1b[0m", []string{oneSaid}},
		"blotted out, dots":             {"type=AVC msg=audit(..): " + avcBody, []string{oneSaid}},
		"blotted out, letters":          {"type=AVC msg=audit(XXXXXXXXXX.XXX:XXX): " + avcBody, []string{oneSaid}},
		"blotted out, kernel":           {"kernel: audit: type=1400 audit(XXX): " + avcBody, []string{oneSaid}},
		"left off":                      {"type=AVC " + avcBody, []string{oneSaid}},
		"left off, an error":            {"type=SELINUX_ERR op=security_compute_sid invalid_context=a:b:c:s0 scontext=d:e:f:s0 tcontext=g:h:i:s0 tclass=process", []string{"[] d:e:f:s0 g:h:i:s0 process unknown 0  "}},
		"one blank for two":             {strings.ReplaceAll(avcRecord, "  ", " "), []string{oneSaid}},
		"a field of a table":            {`"2023-11-14","` + strings.ReplaceAll(avcRecord, `"`, `""`) + `","x"`, []string{oneSaid}},
		"a line feed of rsyslog":        {"Nov 14 22:13:20 host kernel: audit: type=1400 " + stampText + strings.TrimSuffix(avcBody, " permissive=0") + "#012", []string{strings.Replace(oneSaid, "yes", "unknown", 1)}},
		"line feeds of rsyslog":         {avcRecord + "#012type=AVC msg=" + otherStamp + strings.TrimSuffix(otherBody, " permissive=1") + "#012", []string{oneSaid, strings.Replace(otherSaid, " no ", " unknown ", 1)}},
		"a line feed written out":       {avcRecord + `\ntype=AVC msg=` + otherStamp + otherBody + `\n`, []string{oneSaid, otherSaid}},
		"quoted-printable": {"> Dec 31 11:54:52 server audit[0]: AVC avc:  denied  { send } for  pid=3D0\n> comm=3D\"swapper/0\" saddr=3Dhost_ip src=3D4500 daddr=3Dvpnclient_ip dest=\n=3D56602\n> netif=3Deth0 scontext=3Da:b:c:s0\n> tcontext=3Dd:e:f:s0 tclass=3Dpacket\n> permissive=3D0",
			[]string{"[send] a:b:c:s0 d:e:f:s0 packet yes 0 swapper/0 "}},
		"hexadecimal that begins like that": {"type=AVC msg=" + stampText + "avc:  denied  { read } for  pid=7 comm=3D20 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0", []string{"[read] a:b:c:s0 d:e:f:s0 file yes 7 =  "}},
		"an empty name":                     {`type=AVC msg=` + stampText + `avc:  denied  { read } for  pid=7 comm="x" name="" dev="tmpfs" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0`, []string{"[read] a:b:c:s0 d:e:f:s0 file yes 7 x "}},
		"an error that is no denial":        {"type=SELINUX_ERR msg=" + stampText + "SELinux:  unrecognized netlink message type=1009 for sclass=49", nil},
		"quoted in a mail":                  {"> " + avcRecord, []string{oneSaid}},
		"in backticks":                      {"`" + avcRecord + "`", []string{oneSaid}},
		"in a list of a manifest":           {`- "` + strings.ReplaceAll(avcRecord, `"`, `\"`) + `",`, []string{oneSaid}},
		"without a mode, in quotes":         {`'` + strings.TrimSuffix(avcRecord, " permissive=0") + `',`, []string{strings.Replace(oneSaid, "yes", "unknown", 1)}},
		"docker's json-file":                {`{"log":` + quoted(avcRecord+"\n") + `,"stream":"stdout","time":"2023-11-14T22:13:20Z"}`, []string{oneSaid}},
		"filebeat":                          {`{"@timestamp":"x","host":{"name":"h"},"message":` + quoted(avcRecord) + `,"event":{"original":` + quoted(avcRecord) + `}}`, []string{oneSaid}},
		"a shipper of a shipper":            {`{"log":` + quoted(`{"message":`+quoted(avcRecord)+`}`) + `}`, []string{oneSaid}},
		"two in one value":                  {`{"log":` + quoted(avcRecord+"\ntype=AVC msg="+otherStamp+otherBody) + `}`, []string{oneSaid, otherSaid}},
		"dmesg --json, one line":            {`{"dmesg":[ {"pri":5, "time":1.2, "msg":` + quoted("audit: type=1400 "+stampText+avcBody) + `} ]}`, []string{oneSaid}},
		"dmesg --json":                      {"{\n   \"dmesg\": [\n      {\n         \"pri\": 6,\n         \"msg\": \"usb 1-1\"\n      },{\n         \"pri\": 5,\n         \"time\":   1.2,\n         \"msg\": " + quoted("audit: type=1400 "+stampText+avcBody) + "\n      }\n   ]\n}", []string{oneSaid}},
		"json-pretty":                       {"{\n\t\"_TRANSPORT\" : \"audit\",\n\t\"_AUDIT_TYPE\" : \"1400\",\n\t\"MESSAGE\" : " + quoted("AVC "+avcBody) + ",\n\t\"_AUDIT_ID\" : \"45\"\n}\n" + "{\n\t\"MESSAGE\" : " + quoted("AVC "+otherBody) + ",\n\t\"_TRANSPORT\" : \"audit\",\n\t\"_AUDIT_ID\" : \"46\",\n\t\"_AUDIT_TYPE_NAME\" : \"AVC\"\n}", []string{oneSaid, otherSaid}},
		"json-pretty, a program's":          {"{\n\t\"_TRANSPORT\" : \"stdout\",\n\t\"MESSAGE\" : " + quoted(avcRecord) + "\n}\n", nil},
		"json-pretty, cut off":              {"{\n\t\"_TRANSPORT\" : \"audit\",\n\t\"_AUDIT_TYPE\" : \"1400\",\n\t\"MESSAGE\" : " + quoted("AVC "+avcBody) + ",", []string{oneSaid}},
		"ausearch -i":                       {"type=AVC msg=audit(06.03.2024 08:45:58.914:3044) : avc:  denied  { read } for  pid=7 comm=my prog name=My Documents x dev=\"proc\" ino=7329 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=1", []string{"[read] a:b:c:s0 d:e:f:s0 file no 7 my prog My Documents x"}},
		"ausearch -i, names of digits": {"type=PATH msg=audit(11/20/2023 10:56:45.531:510) : item=0 name=4142 inode=7\ntype=SYSCALL msg=audit(11/20/2023 10:56:45.531:510) : arch=x86_64 success=no exe=CAFE pid=7\n" +
			"type=AVC msg=audit(11/20/2023 10:56:45.531:510) : avc:  denied  { append } for  pid=7 comm=4142 name=1259 dev=\"vda1\" ino=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0", []string{"[append] a:b:c:s0 d:e:f:s0 file yes 7 4142 1259"}},
		"ausearch -i, another locale":     {"type=AVC msg=audit(20-Nov-23 10:56:45.531:510) : avc:  denied  { append } for  pid=7 comm=4142 name=1259 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0", []string{"[append] a:b:c:s0 d:e:f:s0 file yes 7 4142 1259"}},
		"hexadecimal":                     {"type=AVC msg=audit(0.0:510) : avc:  denied  { append } for  pid=7 comm=4142 name=1259 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0", []string{"[append] a:b:c:s0 d:e:f:s0 file yes 7 AB \x12Y"}},
		"a record in what a program says": {"type=USER_AVC msg=" + stampText + "pid=1 uid=0 subj=a:b:c msg='avc:  denied  { start } for cmdline=\"x type=AVC msg=audit(1.1:1): " + strings.ReplaceAll(otherBody, `"`, "") + "\" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=service permissive=0'", []string{"[start] a:b:c:s0 d:e:f:s0 service yes 0  "}},
		"a record behind what a program says": {"type=USER_AVC msg=" + stampText + "pid=1 msg='avc:  denied  { start } for scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=service permissive=0' type=AVC msg=" + otherStamp + otherBody,
			[]string{"[start] a:b:c:s0 d:e:f:s0 service yes 0  ", otherSaid}},
	} {
		t.Run(name, func(t *testing.T) {
			got, stats := read(t, c.text+"\n")
			var said []string
			for i := range got {
				said = append(said, short(&got[i]))
			}
			if fmt.Sprintf("%q", said) != fmt.Sprintf("%q", c.want) || stats.Malformed != 0 {
				t.Errorf("got  %q\nwant %q\n%+v", said, c.want, stats)
			}
		})
	}
}

// A quoted record keeps its mode, whatever stands behind it.
func TestModeInQuotes(t *testing.T) {
	for _, behind := range []string{"", "`", `"`, "'", ",", ")", ".", "```", `",`} {
		for mode, want := range map[string]Enforced{"0": EnforcedYes, "1": EnforcedNo} {
			got, _ := read(t, strings.TrimSuffix(avcRecord, "0")+mode+behind+"\n")
			if len(got) != 1 || got[0].Enforced != want {
				t.Errorf("%q behind %s: %+v", behind, mode, got)
			}
		}
	}
}

// What other records of the event say counts also where ausearch or a tracker puts them first.
func TestCompanionsFirst(t *testing.T) {
	old := strings.TrimSuffix(avcRecord, " permissive=0")
	for _, between := range []string{"\n", " "} {
		got, _ := read(t, strings.Join([]string{proctitle, syscall, old}, between)+"\n")
		if len(got) != 1 || got[0].Exe != "/usr/bin/cat" || got[0].Enforced != EnforcedYes || got[0].Field("proctitle") != "cat" {
			t.Errorf("%q: %+v", between, got)
		}
	}
	got, _ := read(t, syscall+"\n"+strings.Replace(old, ":45)", ":46)", 1)+"\n")
	if len(got) != 1 || got[0].Exe != "" {
		t.Errorf("another event: %+v", got)
	}
}

// wrapped breaks a text as a terminal does, at the column, or as a mail program does, at words.
func wrapped(text string, width int, words bool, indent string) string {
	var lines []string
	for len(text) > width {
		at := width
		if words {
			if at = strings.LastIndexByte(text[:width+1], ' '); at <= 0 {
				at = width
			}
		}
		lines = append(lines, strings.TrimRight(text[:at], map[bool]string{true: " ", false: ""}[words]))
		text = text[at:]
		if words {
			text = strings.TrimLeft(text, " ")
		}
	}
	return indent + strings.Join(append(lines, text), "\n"+indent) + "\n"
}

// decoded reads denials without a Reader, which is much quicker for a short text.
func decoded(t *testing.T, text string) (all []string) {
	t.Helper()
	for decoder := NewDecoder(strings.NewReader(text)); ; {
		r, err := decoder.Next()
		if err != nil {
			return all
		}
		var d Denial
		if !d.parse(&r) {
			t.Errorf("no denial: %q in\n%s", r.Text, text)
			continue
		}
		all = append(all, short(&d))
	}
}

// At whatever column a record is wrapped, it is the same.
func TestWrapped(t *testing.T) {
	records := map[string]string{"log": avcRecord, "dmesg": "[   12.345678] audit: type=1400 " + stampText + avcBody, "journal": "Nov 14 22:13:20 host audit[2919]: AVC " + avcBody}
	for name, record := range records {
		for _, indent := range []string{"", "    ", "> "} {
			for _, words := range []bool{true, false} {
				for width := 50; width < len(record)+5; width++ {
					text := wrapped(record, width, words, indent)
					if got := decoded(t, "before\n"+text+"\nbehind\n"+text+line(99, 7)); len(got) != 3 || got[0] != oneSaid || got[1] != oneSaid {
						t.Fatalf("%s at %d, words %t, indent %q: %q\n%s", name, width, words, indent, got, text)
					}
				}
			}
		}
	}
}

// What looks like a denial and cannot be read is counted, and the first is shown.
func TestUnread(t *testing.T) {
	long := "avc:  denied  { read } for  pid=1 comm=\"" + strings.Repeat("ü", 200)
	for text, want := range map[string]string{
		"type=AVC msg=audit(17000000":                               "type=AVC msg=audit(17000000",
		"audit: type=1400 audit(1700":                               "audit: type=1400 audit(1700",
		"avc:  denied  { read } for  pid=1":                         "avc:  denied  { read } for  pid=1",
		"avc:  granted  { read } for  pid=1":                        "avc:  granted  { read } for  pid=1",
		"type=AVC " + long:                                          long[:120] + "...",
		`{"log":"type=AVC msg=audit(1.1:1): avc:  denied`:           `{"log":"type=AVC msg=audit(1.1:1): avc:  denied`,
		`{"log":"type=AVC msg=audit(1.1:1): avc:  denied  { read"}`: "avc:  denied  { read",
		"type=simple":            "",
		"type=SYSCALL msg=audit": "",
		"audit: type=1400 audit(1.001:1): apparmor=\"DENIED\"":                        "",
		"type=AVC msg=audit(1.001:1): avc:  received setenforce notice (enforcing=1)": "",
	} {
		got, stats := read(t, text+"\n")
		if len(got) != 0 || stats.Unread != want || stats.Malformed != map[bool]uint64{false: 1, true: 0}[want == ""] || !utf8.ValidString(stats.Unread) {
			t.Errorf("%s\n%d denials, %+v", text, len(got), stats.Loss)
		}
	}
}

func FuzzWrapped(f *testing.F) {
	f.Add(avcRecord, 80, true)
	f.Add("type=AVC msg=audit(..): avc: denied {", 3, false)
	f.Add("{\n\"a\":[\n},{\n]", 5, true)
	f.Fuzz(func(t *testing.T, text string, width int, words bool) {
		if width < 1 || width > 200 {
			return
		}
		for decoder := NewDecoder(strings.NewReader(wrapped(text, width, words, ""))); ; {
			r, err := decoder.Next()
			if err != nil {
				return
			}
			var d Denial
			d.parse(&r)
		}
	})
}

// What looks like the beginning of a wrapped record has no more lines joined to it than a record can have, however long they are: what is made for a text
// grows as the text does.
func TestWrappedWithoutEnd(t *testing.T) {
	const fragment = "avc:  denied  { read } for  pid=1\n"
	for name, text := range map[string]string{
		"long lines":        strings.Repeat(fragment+strings.Repeat(strings.Repeat("x", 80<<10)+"\n", 24), 4),
		"the longest lines": strings.Repeat(fragment+strings.Repeat(strings.Repeat("x", longestLine-chunk)+"\n", 24), 2),
		"short lines":       strings.Repeat(fragment+strings.Repeat(strings.Repeat("x", 79)+"\n", 111), 100),
		"beginnings":        strings.Repeat("audit(1"+strings.Repeat("x", 70)+"\n", 10_000),
		"colours":           strings.Repeat(strings.Repeat("\x1b[1m", 30<<10)+"\n", 8),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if got, _ := read(t, text+line(1, 1)); len(got) != 1 {
			t.Errorf("%s: %d denials", name, len(got))
		}
		runtime.ReadMemStats(&after)
		if times := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); times > 200 {
			t.Errorf("%s: %d times as much as the text", name, times)
		}
	}
	// A record as long as the kernel writes one is joined all the same.
	long := strings.Replace(avcRecord, "comm=", "path=\"/"+strings.Repeat("long/", 1700)+"\" comm=", 1)
	if got := decoded(t, wrapped(long, 120, false, "  ")); len(got) != 1 || got[0] != oneSaid {
		t.Errorf("got %q", got)
	}
}

// In what ausearch has put into words no other record of the event is taken for hexadecimal either.
func TestWordsOfCompanions(t *testing.T) {
	const stamp = "msg=audit(11/20/2023 10:56:45.531:510) : "
	got, _ := read(t, "type=AVC "+stamp+"avc:  denied  { append } for  pid=7 ino=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n"+
		"type=SYSCALL "+stamp+"arch=x86_64 syscall=openat success=no comm=4142 exe=1259\ntype=PATH "+stamp+"item=0 name=414243 inode=7\ntype=PROCTITLE "+stamp+"proctitle=4142\n")
	if len(got) != 1 || got[0].Comm != "4142" || got[0].Exe != "1259" || got[0].Path != "414243" || got[0].Field("proctitle") != "4142" {
		t.Errorf("%+v", got)
	}
}

// Of several records on one line each keeps its time and number.
func TestStampsOnOneLine(t *testing.T) {
	for _, between := range []string{" ", "#012", `\n`, `\r\n`} {
		got, _ := read(t, avcRecord+between+"type=AVC msg="+otherStamp+otherBody+"\n")
		if len(got) != 2 || got[0].Serial != 45 || got[1].Serial != 46 || got[0].Time.Equal(got[1].Time) || got[0].Enforced != EnforcedYes {
			t.Errorf("%q: %+v", between, got)
		}
	}
}

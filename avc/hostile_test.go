package avc

import (
	bin "encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// exported is a journal entry in the Journal Export Format; a field with a line feed has its length before it.
func exported(fields ...string) string {
	var b strings.Builder
	b.WriteString("__CURSOR=s=1\n")
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		if !strings.Contains(value, "\n") {
			b.WriteString(f + "\n")
			continue
		}
		b.WriteString(key + "\n" + string(bin.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value + "\n")
	}
	return b.String() + "\n"
}

// TestHostile: what programs can put into a log, and what a crash leaves of it. A denial that the kernel reported is read, and nothing
// else becomes one.
//
// Proves V18: what programs write into the journal, and what a crash leaves.
func TestHostile(t *testing.T) {
	const stamp = "audit(1700000000.123:45): "
	record := "type=AVC msg=" + stamp + avcBody + "\n"
	forged := exported("_TRANSPORT=audit", "_AUDIT_TYPE=1400", "_AUDIT_ID=99", "MESSAGE=AVC "+strings.ReplaceAll(avcBody, "container_t", "forged_t"))
	for name, c := range map[string]struct {
		text      string
		denials   int
		malformed uint64
		overlong  uint64
	}{
		"a program's output":            {exported("_TRANSPORT=stdout", "MESSAGE=audit: type=1400 "+stamp+avcBody) + record, 1, 0, 0},
		"a program's syslog, JSON":      {`{"_TRANSPORT":"syslog","MESSAGE":"AVC avc:  denied  { read } for  pid=1 scontext=a:b:c tcontext=d:e:f tclass=file"}` + "\n" + record, 1, 0, 0},
		"a program that missed some":    {exported("_TRANSPORT=journal", "MESSAGE_ID=e9bf28e6e834481bb6f48f548ad13606", "MESSAGE=Missed 99 kernel messages") + record, 1, 0, 0},
		"a field that looks like more":  {exported("_TRANSPORT=journal", "MESSAGE=x\n\n"+forged) + record, 1, 0, 0},
		"the same, longer than a line":  {exported("_TRANSPORT=journal", "MESSAGE=x\n\n"+strings.Repeat(forged, longestLine/len(forged)+9)) + record, 1, 0, 0},
		"the same, without a line feed": {exported("_TRANSPORT=journal", "MESSAGE=\n"+strings.Repeat("x", 5*longestLine)) + record, 1, 0, 0},
		"a length beyond reason":        {"__CURSOR=s=1\nMESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff\n\n" + record, 1, 1, 0},
		"cut off in a field":            {record + "__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE\n\x40\x00\x00\x00\x00\x00\x00\x00abc", 1, 0, 0},
		"zeros after a power cut":       {strings.Repeat("\x00", 4096) + record, 1, 0, 0},
		"cut off at the end":            {record + "type=AVC msg=audit(17000000", 1, 1, 0},
		"cut off before the class":      {record + "audit: type=1400 audit(1700000000.124:46): avc:  denied  { read } for  pid=1 comm=\"x\" path=" + strings.Repeat("2F", 440), 1, 1, 0},
		"a line of a megabyte":          {strings.Repeat("y", 1<<20) + "\n" + record, 1, 0, 1},
		"a record of a megabyte":        {strings.TrimSuffix(record, "\n") + strings.Repeat(" x=y", 1<<18) + "\n" + strings.Replace(record, ":45", ":46", 1), 1, 0, 1},
		"an interface's name": {"audit: type=1400 " + stamp + "avc:  denied  { recv } for  saddr=10.0.0.1 netif=a\x1dA=\"b " +
			"scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=peer permissive=0\n", 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, stats := read(t, c.text)
			if len(got) != c.denials || stats.Malformed != c.malformed || stats.Overlong != c.overlong || stats.Suppressed != 0 {
				t.Errorf("%d denials, %+v", len(got), stats)
			}
			for i := range got {
				if said := said(&got[i]); strings.Contains(said, "forged") {
					t.Errorf("a forged record: %s", said)
				}
			}
		})
	}
}

// Text that a program chose is coded in every field that holds such text.
func TestCodedContexts(t *testing.T) {
	got, _ := read(t, `type=AVC msg=audit(1.000:1): avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:unlabeled_t:s0 tclass=file permissive=1 trawcon=613A623A6320643A7330
type=SELINUX_ERR msg=audit(2.000:2): op=setxattr invalid_context=613A623A630A643A7330
type=SYSCALL msg=audit(2.000:2): arch=c000003e syscall=188 success=no exit=-22 pid=9 comm="chcon" exe="/bin/chcon" subj=u:r:container_t:s0:c1,c2
`)
	if len(got) != 2 || got[0].Field("trawcon") != "a:b:c d:s0" || got[1].Context != "a:b:c\nd:s0" || got[1].Source.Type() != "container_t" || got[1].PID != 9 {
		t.Errorf("%+v", got)
	}
}

// An event of more records than any event has neither takes for ever nor loses one.
//
// Proves V18.
func TestEndlessEvent(t *testing.T) {
	var b strings.Builder
	const n = 20 * perEvent
	for i := range n {
		fmt.Fprintf(&b, "type=AVC msg=audit(1.000:1): avc:  denied  { read } for  pid=%d scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n", i)
		fmt.Fprintf(&b, "type=PATH msg=audit(1.000:1): item=%d name=\"/x\" inode=1\n", i)
	}
	got, stats := read(t, b.String())
	if len(got) != n || stats.Missing != 0 {
		t.Errorf("%d denials, %+v", len(got), stats)
	}
}

// Made-up names of any kind do not take memory without an end either.
//
// Proves V18.
func TestManyKinds(t *testing.T) {
	groups := NewGroups(Nobody{})
	const n = 5 * maxGroups
	for i := range n {
		groups.Add(&Denial{
			Source: "a:b:c:s0", Target: Context(fmt.Sprint("d:e:t", i)), Class: fmt.Sprint("class", i), Permissions: []string{fmt.Sprint("p", i)}, Path: fmt.Sprint("/", i),
		})
		groups.Add(&Denial{Source: "a:b:same:s0", Target: "d:e:f:s0", Class: "file", Permissions: []string{fmt.Sprint("p", i)}})
	}
	var count uint64
	for _, g := range groups.List() {
		count += g.Count
		if len(g.Permissions) > maxPermissions {
			t.Fatalf("%d permissions", len(g.Permissions))
		}
	}
	if count != 2*n || len(groups.List()) > maxAll+1 {
		t.Errorf("%d denials in %d groups", count, len(groups.List()))
	}
}

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

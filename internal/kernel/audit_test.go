package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// message makes a netlink message of a type with numbers of 32 bits in it.
func message(kind uint16, numbers ...uint32) []byte {
	m := make([]byte, netlinkHeader)
	binary.NativeEndian.PutUint16(m[4:], kind)
	for _, n := range numbers {
		m = binary.NativeEndian.AppendUint32(m, n)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	return m
}

func TestParseAudit(t *testing.T) {
	status, done, err := parseAudit(message(auditGet, 0, 1, 1, 0, 0, 64, 7, 0, 3))
	if err != nil || !done || status != (AuditStatus{Enabled: 1, Lost: 7}) {
		t.Errorf("%+v, %v, %v", status, done, err)
	}
	// Linux 2.6 ended the structure here.
	if status, done, err = parseAudit(message(auditGet, 0, 2, 1, 0, 0, 64, 9)); err != nil || !done || status != (AuditStatus{Enabled: 2, Lost: 9}) {
		t.Errorf("%+v, %v, %v", status, done, err)
	}
	eperm := -int32(unix.EPERM)
	if _, _, err := parseAudit(message(unix.NLMSG_ERROR, uint32(eperm))); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
	for _, other := range [][]byte{message(unix.NLMSG_ERROR, 0), message(1305, 1, 2)} {
		if _, done, err := parseAudit(other); done || err != nil {
			t.Error(done, err)
		}
	}
	for _, cut := range [][]byte{nil, message(auditGet, 1), message(unix.NLMSG_ERROR)} {
		if _, _, err := parseAudit(cut); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Error(err)
		}
	}
}

func FuzzParseAudit(f *testing.F) {
	f.Add(message(auditGet, 0, 1, 1, 0, 0, 64, 7))
	f.Add(message(unix.NLMSG_ERROR, 1))
	f.Fuzz(func(t *testing.T, m []byte) {
		if status, done, err := parseAudit(m); err != nil && (done || status != AuditStatus{}) {
			t.Error("an answer beside an error")
		}
	})
}

func TestBootID(t *testing.T) {
	file := filepath.Join(t.TempDir(), "boot_id")
	for text, want := range map[string]string{
		"0b2ae5b0-5f3c-4d6c-9b3e-3f0d3f7f2a11\n": "0b2ae5b05f3c4d6c9b3e3f0d3f7f2a11", "": "", "0b2a": "", "x\n": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := bootID(file); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	one, err := BootID()
	if err != nil {
		t.Skip(err)
	}
	if two, err := BootID(); one != two || err != nil {
		t.Errorf("%s, then %s, %v", one, two, err)
	}
	early, err := Uptime()
	if err != nil || early <= 0 {
		t.Error(early, err)
	}
	if late, err := Uptime(); late < early || err != nil {
		t.Errorf("%s after %s, %v", late, early, err)
	}
}

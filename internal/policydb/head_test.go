package policydb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"testing"
	"testing/iotest"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// beginning makes the first bytes of a policy.
func beginning(magic uint32, name string, numbers ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func TestHeader(t *testing.T) {
	const magic, name = 0xf97cff8c, "SE Linux"
	for _, c := range []struct {
		what    string
		content []byte
		want    policydb.Header
		err     string
	}{
		{"unknown is denied", beginning(magic, name, 33, 1), policydb.Header{Version: 33, MLS: true, Unknown: policydb.DenyUnknown}, ""},
		{"unknown is allowed", beginning(magic, name, 34, 5), policydb.Header{Version: 34, MLS: true, Unknown: policydb.AllowUnknown}, ""},
		{"unknown is rejected, no levels", beginning(magic, name, 30, 2), policydb.Header{Version: 30, Unknown: policydb.RejectUnknown}, ""},
		{"newer than all that is known", append(beginning(magic, name, 99, 1), 1, 2, 3), policydb.Header{Version: 99, MLS: true, Unknown: policydb.DenyUnknown}, ""},
		{"empty", nil, policydb.Header{}, "cannot read the policy: it is empty"},
		{"another file", []byte("#!/bin/sh\n"), policydb.Header{}, "cannot read the policy: it is no binary policy"},
		{"a module", beginning(magic, "SE Linux Module", 1, 1), policydb.Header{}, "cannot read the policy: it is not one that the kernel loads"},
		{"cut off in the name", beginning(magic, name)[:12], policydb.Header{}, "cannot read the policy: it ends in the middle"},
		{"cut off before the version", beginning(magic, name), policydb.Header{}, "cannot read the policy: it ends in the middle"},
		{"cut off before the flags", beginning(magic, name, 34), policydb.Header{}, "cannot read the policy: it ends in the middle"},
		{"a name without end", binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, magic), 1<<31), policydb.Header{}, "cannot read the policy: it ends in the middle"},
	} {
		got, err := policydb.ReadHeader(iotest.OneByteReader(bytes.NewReader(c.content)))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: got %+v, %v", c.what, got, err)
		}
	}
	if _, err := policydb.ReadHeader(iotest.ErrReader(os.ErrPermission)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

func TestReadBooleans(t *testing.T) {
	content, err := os.ReadFile(policytest.Build(t, map[string]string{"site": "(boolean site_on true)\n(boolean site_off false)"}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{
		"container_use_nfs": false, "container_connect_any": true, "container_read_sysctl": false, "container_safe": true, "site_on": true, "site_off": false,
	}
	got, err := policydb.ReadBooleans(iotest.HalfReader(bytes.NewReader(content)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if v, found := got[name]; !found || v != value {
			t.Errorf("%s: %t, %t", name, v, found)
		}
	}
	// A file system stands in the policy as a boolean would, with a number, a length and its name.
	for _, name := range []string{"ext4", "xfs", "container_t", "file", ""} {
		if _, found := got[name]; found {
			t.Errorf("%q is a boolean", name)
		}
	}
	// Cut off anywhere, it gives an error or all of them.
	for n := 0; n < len(content); n += 37 {
		if some, err := policydb.ReadBooleans(bytes.NewReader(content[:n])); err == nil && !maps.Equal(some, got) {
			t.Fatalf("%d of %d bytes: %v", n, len(content), some)
		}
	}
	content[16] = 36
	var version *policydb.VersionError
	if _, err := policydb.ReadBooleans(bytes.NewReader(content)); !errors.As(err, &version) || version.Version != 36 {
		t.Errorf("a version that is not known: %v", err)
	}
	if _, err := policydb.ReadBooleans(iotest.ErrReader(os.ErrPermission)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// A policy with more symbols than the first look reads.
func TestReadBooleansOfLargePolicy(t *testing.T) {
	var many bytes.Buffer
	for i := range 12000 {
		name := "a_type_with_a_long_name_" + string(rune('a'+i%26)) + "_" + string(rune('a'+i/26%26)) + "_" + string(rune('a'+i/676)) + "_t"
		many.WriteString("(type " + name + ")(roletype object_r " + name + ")\n")
	}
	content, err := os.ReadFile(policytest.Build(t, map[string]string{"many": many.String(), "site": "(boolean site_on true)"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := policydb.ReadBooleans(bytes.NewReader(content)); err != nil || !got["site_on"] {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(beginning(0xf97cff8c, "SE Linux", 34, 5))
	f.Fuzz(func(_ *testing.T, content []byte) { _, _ = policydb.ReadHeader(bytes.NewReader(content)) })
}

func FuzzReadBooleans(f *testing.F) {
	content, err := os.ReadFile(policytest.Build(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(_ *testing.T, content []byte) { _, _ = policydb.ReadBooleans(bytes.NewReader(content)) })
}

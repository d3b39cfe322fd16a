package policydb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"testing/iotest"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
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

func FuzzReadHeader(f *testing.F) {
	f.Add(beginning(0xf97cff8c, "SE Linux", 34, 5))
	f.Fuzz(func(_ *testing.T, content []byte) { _, _ = policydb.ReadHeader(bytes.NewReader(content)) })
}

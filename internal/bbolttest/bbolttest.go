// Package bbolttest has a database that containerd wrote, for tests alone.
package bbolttest

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"testing"
)

//go:embed containerd-1.7.24.db.gz
var containerd []byte

// Containerd gives what containerd 1.7.24 and bbolt 1.3.11 wrote of 50 containers of Kubernetes' and one that ctr made, up to the last page
// in use. Its CRI was told of the containers a1 (level s0:c10,c20), a2 (nothing), a3 (nothing, privileged) and a4 (type spc_t).
func Containerd(t testing.TB) []byte {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(containerd))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

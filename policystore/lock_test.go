package policystore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// TestLockStoreHolds keeps both of libsemanage's locks until they are given back, not only waits for them.
func TestLockStoreHolds(t *testing.T) {
	dir := t.TempDir()
	names := []string{"semanage.trans.LOCK", "semanage.read.LOCK"}
	if err := os.MkdirAll(filepath.Join(dir, typeDir("mcs")), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, typeDir("mcs"), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	unlock, err := lockStore(t.Context(), root, "mcs")
	if err != nil {
		t.Fatal(err)
	}
	var locked *hostfs.LockedError
	for _, name := range names {
		if _, err := root.Lock(t.Context(), typeDir("mcs")+"/"+name, 0, nil); !errors.As(err, &locked) {
			t.Errorf("%s is free: %v", name, err)
		}
	}
	unlock()
	for _, name := range names {
		free, err := root.Lock(t.Context(), typeDir("mcs")+"/"+name, 0, nil)
		if err != nil {
			t.Fatalf("%s is not given back: %v", name, err)
		}
		free()
	}
}

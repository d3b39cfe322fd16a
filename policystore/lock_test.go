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
	names := lockFiles()
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
		if _, err := root.LockForeign(t.Context(), typeDir("mcs")+"/"+name, 0); !errors.As(err, &locked) {
			t.Errorf("%s is free: %v", name, err)
		}
	}
	unlock()
	for _, name := range names {
		free, err := root.LockForeign(t.Context(), typeDir("mcs")+"/"+name, 0)
		if err != nil {
			t.Fatalf("%s is not given back: %v", name, err)
		}
		free()
	}
}

// TestStoreLocksAreRoots takes the lock files of a copied store away from others, and leaves the vendor's as they are.
func TestStoreLocksAreRoots(t *testing.T) {
	for layout, want := range map[string]os.FileMode{"a copy": 0o600, "the vendor's": 0o644} {
		dir := t.TempDir()
		store := filepath.Join(dir, StoreDir)
		if layout != "a copy" {
			store = filepath.Join(dir, VendorStore)
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, StoreDir)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(VendorStore, filepath.Join(dir, StoreDir)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(store, "mcs"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range lockFiles() {
			if err := os.WriteFile(filepath.Join(store, "mcs", name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := hostfs.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		unlock, err := lockStore(t.Context(), root, "mcs")
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		for _, name := range lockFiles() {
			if info, err := os.Stat(filepath.Join(store, "mcs", name)); err != nil || info.Mode() != want {
				t.Errorf("%s: %s is %v, %v", layout, name, info.Mode(), err)
			}
		}
	}
}

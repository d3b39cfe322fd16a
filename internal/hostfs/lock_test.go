package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLockSaysWhoHasIt(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o755))
	r := openRoot(t, dir)
	unlock, err := r.Lock(t.Context(), "/state", 0, nil)
	must(t, err)
	_, err = r.Lock(t.Context(), "/state", 0, nil)
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("the second lock: %v", err)
	}
	holder := fmt.Sprintf("process %d (%s", os.Getpid(), os.Args[0])
	if locked.Path != filepath.Join(dir, "state") || !strings.HasPrefix(locked.Holder, holder) {
		t.Errorf("%+v, want the holder %s ...", locked, holder)
	}
	if message := err.Error(); !strings.Contains(message, locked.Path) || !strings.Contains(message, holder) {
		t.Errorf("the message is %q", message)
	}
	unlock()
	unlock, err = r.Lock(t.Context(), "/state", 0, nil)
	must(t, err)
	unlock()
	if _, err := r.Lock(t.Context(), "/missing", 0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a lock on nothing: %v", err)
	}
}

func TestLockWaits(t *testing.T) {
	dir := t.TempDir()
	r := openRoot(t, dir)
	unlock, err := r.Lock(t.Context(), "/", 0, nil)
	must(t, err)
	var told []string
	second, err := r.Lock(t.Context(), "/", time.Hour, func(holder string) {
		told = append(told, holder)
		unlock()
	})
	must(t, err)
	second()
	if len(told) != 1 || !strings.Contains(told[0], fmt.Sprint(os.Getpid())) {
		t.Errorf("was told %q", told)
	}
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	r := openRoot(t, t.TempDir())
	unlock, err := r.Lock(t.Context(), "/", 0, nil)
	must(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.Lock(ctx, "/", time.Hour, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A holder that removes the directory it has locked, as its last deed, must not leave two others that both have a lock.
func TestLockIsOnWhatIsThereNow(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	must(t, os.Mkdir(state, 0o755))
	r := openRoot(t, dir)
	first, err := r.Lock(t.Context(), "/state", 0, nil)
	must(t, err)
	second, err := r.Lock(t.Context(), "/state", time.Hour, func(string) {
		must(t, os.Remove(state))
		must(t, os.Mkdir(state, 0o755))
		first()
	})
	must(t, err)
	var locked *LockedError
	if _, err := r.Lock(t.Context(), "/state", 0, nil); !errors.As(err, &locked) {
		t.Errorf("a third run got the lock as well: %v", err)
	}
	_, err = openRoot(t, dir).Lock(t.Context(), "/state", time.Hour, func(string) {
		must(t, os.Remove(state))
		second()
	})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is gone: %v", err)
	}
}

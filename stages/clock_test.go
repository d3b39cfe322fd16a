package stages

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// TestClocksOfOtherCenturies applies on hosts whose clock is wrong by decades, over files that are dated otherwise: a machine without a battery
// begins long ago, and what it writes then is from the future when the clock is set. Nobody's date decides what is done, what is whole and what is
// as declared; and a clock that is set between two runs changes nothing.
//
// Proves P6: clocks of 1970 and 2100.
func TestClocksOfOtherCenturies(t *testing.T) {
	t.Parallel()
	for name, clocks := range map[string][2]time.Time{
		"files of 1970, a clock of 2100":                {time.Unix(0, 0), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		"files of 2100, a clock that is a century back": {time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fresh := flatcartest.New(t, flatcartest.Today)
			before := snapshot(t, fresh.Dir)
			lived(t, fresh)
			fresh.Write("etc/selinux-provision/modules/another.cil", "(type another_t)\n(roletype object_r another_t)\n")
			good := copyTree(t, fresh.Dir)
			apply(t, hostOf(t, good))
			want := notable(t, good)
			tree := copyTree(t, fresh.Dir)
			date(t, tree.Dir, clocks[0])
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(clocks[1])) // which is how the clock of a test is set; one begins in 2000
				h := hostOf(t, tree)
				declaredHere := func(when string) {
					t.Helper()
					apply(t, h, Unchanged)
					compare(t, when, notable(t, tree), want)
					if status, err := h.Status(t.Context()); err != nil || !status.AsDeclared {
						t.Errorf("%s: %v, %+v", when, err, status.Problems)
					}
				}
				apply(t, h)
				declaredHere("applied")
				date(t, tree.Dir, clocks[0]) // what was just written is as old as the rest
				declaredHere("dated otherwise")
				time.Sleep(50 * 365 * 24 * time.Hour)
				declaredHere("half a century later")
			})
			// And back: what was written then is from the future, or long ago.
			h := hostOf(t, tree)
			apply(t, h, Unchanged)
			if result, err := h.Revert(t.Context(), false); err != nil || result.Err != nil {
				t.Fatal(err, result.Err)
			}
			for file, was := range before {
				if got := snapshot(t, tree.Dir)[file]; got != was && filepath.Dir(file) == "/etc/selinux" {
					t.Errorf("reverted: %s is %s, was %s", file, got, was)
				}
			}
		})
	}
}

// date gives everything in a tree a time, links too.
func date(t *testing.T, dir string, at time.Time) {
	t.Helper()
	times := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), unix.NsecToTimespec(at.UnixNano())}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, times, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(dir); err != nil || !info.ModTime().Equal(at) {
		t.Fatal(info, err)
	}
}

package stages

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// TestRoomThatEndsAnywhere lets an apply run out of inodes, and out of bytes, a little later each time, until there is enough: with the tools' own
// writes as much as with ours. Whenever it happens, PID 1 finds a policy, the error says what to do, status calls nothing as declared that is
// not, and with room again the next apply ends where an undisturbed one does, with all that the operator made by hand.
//
// Proves P1, P2.
func TestRoomThatEndsAnywhere(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute: not in -short mode")
	}
	histories := []struct {
		name    string
		prepare func(*testing.T, *flatcartest.Tree)
	}{
		{"first apply", declare},
		{"change", declaresMore},
	}
	const plenty = "size=1g,nr_inodes=100000"
	for _, h := range histories {
		tree := flatcartest.New(t, flatcartest.Today)
		h.prepare(t, tree)
		apply(t, hostOf(t, tree))
		want := notable(t, tree)
		for _, lack := range []struct {
			of string
			// first and growth tell how much is left in the next round: the check of the room that a build needs refuses most of it.
			first, growth int
			// limit gives the options of tmpfs that leave that much of what is used.
			limit func(used unix.Statfs_t, left int) string
		}{
			{"inodes", 4, 10, func(used unix.Statfs_t, left int) string {
				return fmt.Sprintf("size=1g,nr_inodes=%d", int(used.Files-used.Ffree)+left)
			}},
			{"KiB", 256, 3, func(used unix.Statfs_t, left int) string {
				return fmt.Sprintf("size=%dk,nr_inodes=100000", int(used.Blocks-used.Bfree)*int(used.Bsize)/1024+left)
			}},
		} {
			t.Run(h.name+"/"+lack.of, func(t *testing.T) {
				failed := 0
				for left := 0; left < 1<<20; left += lack.first + left/lack.growth {
					complete := false
					if !t.Run(fmt.Sprintf("left=%d", left), func(t *testing.T) {
						dir := t.TempDir()
						mount(t, "tmpfs", plenty, dir)
						tree := flatcartest.NewAt(t, dir, flatcartest.Today, command.Tools{})
						h.prepare(t, tree)
						var used unix.Statfs_t
						if err := unix.Statfs(dir, &used); err != nil {
							t.Fatal(err)
						}
						remountWith(t, dir, lack.limit(used, left))
						complete = applyWithout(t, tree)
						remountWith(t, dir, plenty)
						powerIsBack(t, tree, want)
					}) {
						return
					}
					if complete {
						t.Logf("%d are enough, and %d times it was not", left, failed)
						if failed == 0 {
							t.Error("it never ran out of anything")
						}
						return
					}
					failed++
				}
				t.Error("it was never enough")
			})
		}
	}
}

// applyWithout applies where there may not be enough room, and reports whether there was.
func applyWithout(t *testing.T, tree *flatcartest.Tree) (complete bool) {
	t.Helper()
	results, err := hostOf(t, tree).Run(context.Background(), names(), false)
	if err != nil {
		if !strings.Contains(err.Error(), "make room") && !strings.Contains(err.Error(), "no space left") {
			t.Errorf("the error does not say what to do: %v", err)
		}
		return false
	}
	for _, r := range results {
		if r.Err != nil { // what fails after it sends to the first
			if !strings.Contains(r.Error, "make room") {
				t.Errorf("stage %s does not say what to do: %s", r.Stage, r.Error)
			}
			return false
		}
	}
	return true
}

func remountWith(t *testing.T, dir, options string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+options, filepath.Clean(dir)).CombinedOutput(); err != nil {
		t.Fatalf("remount: %v\n%s", err, out)
	}
}

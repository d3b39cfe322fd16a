package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
)

// A log that is rotated, twice at once too, made shorter or made anew is followed without a denial lost or told twice.
//
// Proves V18.
func TestFollow(t *testing.T) {
	const log = "var/log/audit/audit.log"
	for name, c := range map[string]struct {
		query Query
		write func(add func(serial int), move func(from, to string))
		want  string
	}{
		"from now on":          {Query{}, func(add func(int), _ func(string, string)) { add(5); add(6) }, "[5 6]"},
		"with what was before": {Query{Since: time.Unix(1700000002, 0)}, func(add func(int), _ func(string, string)) { add(5) }, "[2 3 4 5]"},
		"rotated": {Query{}, func(add func(int), move func(string, string)) {
			add(5)
			move(log+".1", log+".2")
			move(log, log+".1")
			add(6)
		}, "[5 6]"},
		"rotated, and still written to": {Query{}, func(add func(int), move func(string, string)) {
			move(log, "other")
			add(6)
			move(log, "new")
			move("other", log)
			add(5)
			move(log, log+".1")
			move("new", log)
			add(7)
		}, "[5 6 7]"},
		"rotated twice": {Query{}, func(add func(int), move func(string, string)) {
			add(5)
			move(log, log+".2")
			add(6)
			move(log, log+".1")
			add(7)
		}, "[5 6 7]"},
		"gone for a while": {Query{}, func(add func(int), move func(string, string)) {
			add(5)
			move(log, "elsewhere")
			time.Sleep(time.Minute)
			add(6)
		}, "[5 6]"},
	} {
		t.Run(name, func(t *testing.T) {
			h := tree(t, map[string]string{log: line(3) + line(4), log + ".1": line(1) + line(2)})
			if !c.query.Since.IsZero() {
				for _, name := range []string{log, log + ".1"} {
					if err := os.Chtimes(h.Root.Path(name), time.Unix(1700000009, 0), time.Unix(1700000009, 0)); err != nil {
						t.Fatal(err)
					}
				}
			}
			synctest.Test(t, func(t *testing.T) {
				add := func(serial int) {
					f, err := os.OpenFile(h.Root.Path(log), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
					if err == nil {
						_, err = f.WriteString(line(serial))
						f.Close()
					}
					if err != nil {
						t.Error(err)
					}
				}
				move := func(from, to string) {
					if err := os.Rename(h.Root.Path(from), h.Root.Path(to)); err != nil {
						t.Error(err)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					time.Sleep(10 * time.Second)
					c.write(add, move)
					time.Sleep(10 * time.Second)
					cancel()
				}()
				var got []int
				var sources []string
				stats, err := h.Follow(ctx, c.query, func(from []string) error { sources = from; return nil },
					func(d *avc.Denial) error { got = append(got, d.PID); return nil }, func() error { return nil })
				if err != nil || fmt.Sprint(got) != c.want || stats.Duplicates != 0 || stats.Missing != 0 || fmt.Sprint(sources) != "[/"+log+"]" {
					t.Errorf("got %v, want %s; %+v of %q, %v", got, c.want, stats, sources, err)
				}
			})
		})
	}
}

// A denial is told within a second, whatever else comes.
func TestFollowIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		go func() {
			for n := 1; n <= 50; n++ { // never quiet for a moment
				_, _ = io.WriteString(out, line(n))
				time.Sleep(moment / 2)
			}
			out.Close()
		}()
		begin, got := time.Now(), 0
		_, err := FollowInput(t.Context(), Query{}, in, func(*avc.Denial) error {
			if late := time.Since(begin) - time.Duration(got)*moment/2; late > time.Second {
				t.Errorf("denial %d comes %s late", got, late)
			}
			got++
			return nil
		}, func() error { return nil })
		if err != nil || got != 50 {
			t.Errorf("%d, %v", got, err)
		}
	})
}

// It ends with what nobody can go on with, and says so.
func TestFollowEnds(t *testing.T) {
	nothing := func() error { return nil }
	each := func(*avc.Denial) error { return nil }
	stop := errors.New("enough")
	if _, err := FollowInput(t.Context(), Query{}, strings.NewReader(line(1)+line(2)), func(*avc.Denial) error { return stop }, nothing); !errors.Is(err, stop) {
		t.Errorf("told to stop: %v", err)
	}
	broken := io.MultiReader(strings.NewReader(line(1)), errorReader{os.ErrPermission})
	if _, err := FollowInput(t.Context(), Query{}, broken, each, nothing); !errors.Is(err, os.ErrPermission) || !strings.HasPrefix(err.Error(), "cannot read records: ") {
		t.Errorf("cannot be read: %v", err)
	}
	if _, err := tree(t, nil).Follow(t.Context(), Query{}, func([]string) error { return nil }, each, nothing); !errors.Is(err, ErrNoRecords) {
		t.Errorf("nothing to follow: %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// A file that was emptied is read from its beginning.
func TestTailOfAFileThatBecameShorter(t *testing.T) {
	h := tree(t, map[string]string{"log": line(1) + line(2)})
	in, err := Tail(t.Context(), h.Root, "/log", false)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := os.WriteFile(h.Root.Path("/log"), []byte(line(3)), 0o600); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 1000)
	if n, err := in.Read(text); err != nil || string(text[:n]) != line(3) {
		t.Errorf("%q, %v", text[:n], err)
	}
}

// Command categories reads the same files at many levels, as the containers of a full host read theirs, and tells what that costs the kernel's cache of
// decisions (the AVC):
//
//	categories LEVELS ROUNDS FILE...
//
// It reads three times that many rounds, and tells the time of the fastest third: the machine may have had something else to do.
//
// Each level has two categories of its own, and its decisions are kept apart from those of the others. A thread changes the level of its own
// domain instead of starting a container for each: the decisions are as many, and nothing else is measured.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// stats are the sums of /sys/fs/selinux/avc/cache_stats over all processors.
type stats struct{ Lookups, Misses, Reclaims int64 }

func read() (s stats) {
	text, err := os.ReadFile("/sys/fs/selinux/avc/cache_stats")
	must(err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] == "lookups" {
			continue
		}
		for at, to := range map[int]*int64{0: &s.Lookups, 2: &s.Misses, 4: &s.Reclaims} {
			n, err := strconv.ParseInt(f[at], 10, 64)
			must(err)
			*to += n
		}
	}
	return s
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "categories:", err)
		os.Exit(1)
	}
}

func main() {
	levels, err := strconv.Atoi(os.Args[1])
	must(err)
	rounds, err := strconv.Atoi(os.Args[2])
	must(err)
	files := os.Args[3:]

	runtime.LockOSThread()
	own, err := os.ReadFile("/proc/thread-self/attr/current")
	must(err)
	user := strings.Join(strings.SplitN(strings.TrimRight(string(own), "\x00\n"), ":", 4)[:3], ":")
	round := func() {
		for n := range levels {
			// Written through the name: the kernel takes it from the thread that writes.
			must(os.WriteFile("/proc/thread-self/attr/current", fmt.Appendf(nil, "%s:s0:c%d,c%d", user, n%500, 500+n/500), 0))
			for _, name := range files {
				_, err := os.ReadFile(name)
				must(err)
			}
		}
	}
	round() // what is decided for the first time is no part of it
	before, fastest := read(), time.Duration(1<<62)
	for range 3 {
		begun := time.Now()
		for range rounds {
			round()
		}
		fastest = min(fastest, time.Since(begun))
	}
	after := read()
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"reads": levels * rounds * len(files), "nanoseconds": fastest.Nanoseconds(),
		"lookups": after.Lookups - before.Lookups, "misses": after.Misses - before.Misses, "reclaims": after.Reclaims - before.Reclaims,
	}))
}

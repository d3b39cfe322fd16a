package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// usage is what one process and those it waited for took.
type usage struct{ wall, cpu time.Duration }

func (u usage) plus(v usage) usage { return usage{u.wall + v.wall, u.cpu + v.cpu} }

// execute runs a program to its end, which must be a good one.
func execute(ctx context.Context, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w\n%s", cmd, err, output.Bytes())
	}
	return usage{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// executions counts how often selinux-provision starts a program. Its search path is its own, so that no program of ours can
// be put in the way: strace looks on.
func (b *bench) executions(ctx context.Context, program string, host *host, args ...string) (int, error) {
	trace := filepath.Join(b.scratch, "execve")
	argv := append([]string{"-f", "-z", "-qq", "-e", "trace=execve", "-o", trace, b.binary, "--root", host.dir}, args...)
	if _, err := execute(ctx, "strace", argv...); err != nil {
		return 0, err
	}
	content, err := os.ReadFile(trace)
	if err != nil {
		return 0, err
	}
	n := 0
	for line := range strings.Lines(string(content)) {
		_, call, _ := strings.Cut(line, `execve("`)
		if file, _, ok := strings.Cut(call, `"`); ok && path.Base(file) == program {
			n++
		}
	}
	return n, nil
}

// peakMemory gives the most resident memory in bytes that selinux-provision itself had. What wait4(2) says includes what this process
// had when it forked, so the kernel's mark is read while strace holds the process at its exit.
func (b *bench) peakMemory(ctx context.Context, host *host, args ...string) (int64, error) {
	return b.peak(ctx, append([]string{b.binary, "--root", host.dir}, args...)...)
}

func (b *bench) peak(ctx context.Context, run ...string) (int64, error) {
	argv := append([]string{"-f", "-qq", "-e", "trace=exit_group", "-e", "inject=exit_group:delay_enter=500000", "-o", "/dev/null"}, run...)
	cmd := exec.CommandContext(ctx, "strace", argv...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var peak int64
	for {
		select {
		case err := <-ended:
			switch {
			case err != nil:
				return 0, fmt.Errorf("%s: %w\n%s", cmd, err, output.Bytes())
			case peak == 0:
				return 0, errors.New("cannot find the process that strace started")
			}
			return peak, nil
		case <-time.After(20 * time.Millisecond):
			peak = max(peak, highWater(cmd.Process.Pid, b.binary))
		}
	}
}

// highWater reads the mark of the process that runs a program as a child of another.
func highWater(parent int, program string) int64 {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		return 0
	}
	var peak int64
	for _, child := range strings.Fields(string(children)) {
		if file, err := os.Readlink("/proc/" + child + "/exe"); err != nil || file != program {
			continue
		}
		status, err := os.ReadFile("/proc/" + child + "/status")
		if err != nil {
			continue
		}
		_, mark, _ := strings.Cut(string(status), "VmHWM:")
		if fields := strings.Fields(mark); len(fields) > 0 {
			if kib, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				peak = max(peak, kib<<10)
			}
		}
	}
	return peak
}

// samples are repeated measurements of one thing.
type samples struct{ all []time.Duration }

func (s *samples) add(d time.Duration) {
	s.all = append(s.all, d)
	slices.Sort(s.all)
}

func (s *samples) median() time.Duration { return s.all[len(s.all)/2] }

// String gives the median and the range.
func (s *samples) String() string {
	unit, size := "s", time.Second
	if s.median() < time.Second {
		unit, size = "ms", time.Millisecond
	}
	in := func(d time.Duration) string {
		format := "%.0f"
		if unit == "s" {
			format = "%.2f"
		}
		return fmt.Sprintf(format, float64(d)/float64(size))
	}
	return fmt.Sprintf("%s %s (%s to %s)", in(s.median()), unit, in(s.all[0]), in(s.all[len(s.all)-1]))
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/1e6) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

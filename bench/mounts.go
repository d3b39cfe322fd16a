package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

const (
	singleMounts = 101 // of an empty file system, one after the other
	manyMounts   = 5000
	stormRounds  = 3
	idleTime     = time.Minute

	// The roles in which this program starts itself.
	driveRole = "drive-mounts" // in a mount namespace of its own: mounts, and says what it has seen
	watchRole = "watch-mounts" // watches for the driver
)

// mountReport is what the driver tells.
type mountReport struct {
	Means                  string // by what the watcher goes on this kernel
	Alone, Among           []time.Duration
	Ours, Naive            []time.Duration // processor time of each storm
	Systemd                []time.Duration // the same of PID 1, if that is systemd and sees the mounts
	Wakeups                [2]int          // in an idle minute: of the thread that waits for mounts, and of the Go runtime's own
	Resident, PeakResident int64           // bytes, with manyMounts
}

// mounts measures the watcher's eyes and judgement, in a mount namespace that goes away with it.
func (b *bench) mounts(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", driveRole, b.scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", driveRole, err)
	}
	var r mountReport
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	alone, among, ours, naive := &samples{}, &samples{}, samples{}, samples{}
	for _, part := range []struct {
		from []time.Duration
		to   *samples
	}{{r.Alone, alone}, {r.Among, among}, {r.Ours, &ours}, {r.Naive, &naive}} {
		for _, d := range part.from {
			part.to.add(d)
		}
	}
	const goal = 20 * time.Millisecond
	b.add(row{"mount(2) of an empty ext4 returning to its verdict, by " + r.Means, microseconds(alone.median()), "", "", "<= 20 ms", alone.median() <= goal})
	b.add(row{fmt.Sprintf("the same beside %d other mounts", manyMounts), microseconds(among.median()), "", "", "<= 20 ms", among.median() <= goal})
	b.compare(fmt.Sprintf("processor time to judge %d mounts, one each millisecond / reading the table at each event", manyMounts), ours, naive, 0.25)
	b.add(row{fmt.Sprintf("wake-ups in an idle minute, %d mounts", manyMounts), fmt.Sprintf("%d, and %d of the Go runtime's own", r.Wakeups[0], r.Wakeups[1]),
		"", "", "0", r.Wakeups[0] == 0})
	b.add(row{fmt.Sprintf("memory with %d mounts, table and verdicts alone (peak %s)", manyMounts, megabytes(r.PeakResident)), megabytes(r.Resident),
		"", "", "<= 20 MB", r.PeakResident <= 20e6})
	return nil
}

func microseconds(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// asRole runs what this program was started for by itself, if it was.
func asRole(ctx context.Context, args []string) (ran bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case driveRole:
		return true, drive(ctx, args[1])
	case labelRole:
		return true, label(ctx, args[1])
	case watchRole:
		return true, watch(ctx, args[1], args[2])
	}
	return false, nil
}

// watch prints each mount below a directory when it is judged, with the time.
func watch(ctx context.Context, how, below string) error {
	rules, err := judge.NewRules([]judge.Rule{
		{Name: "a", Match: judge.Match{Mountpoint: "/var/lib/data"}}, {Name: "b", Match: judge.Match{Mountpoint: "/srv/**"}},
		{Name: "c", Match: judge.Match{FSType: "nfs4"}}, {Name: "d", Match: judge.Match{Mountpoint: below + "/**", FSType: "ext4"}},
		{Name: "e", Match: judge.Match{Mountpoint: "/mnt/*", Label: "DATA*"}},
	})
	if err != nil {
		return err
	}
	host := judge.Host{SELinux: true, DefaultContext: "system_u:object_r:container_file_t:s0"}
	out := bufio.NewWriter(os.Stdout)
	say := func(table *mounts.Table, list []*mounts.Mount) error {
		for _, m := range list {
			var facts judge.Facts
			if rules.NeedNames(m) {
				facts.Names, _ = m.Names() // what has no names has none
			}
			v := rules.Judge(host, table, m, facts)
			if strings.HasPrefix(m.Mountpoint, below) {
				fmt.Fprintf(out, "%d %s %s\n", monotonic(), m.Mountpoint, v.Outcome)
			}
		}
		return out.Flush()
	}
	if how == "naive" {
		return watchNaively(say)
	}
	w, err := mounts.Open(true)
	if err != nil {
		return err
	}
	defer w.Close()
	fmt.Fprintf(out, "0 means %s\n", w.Means())
	for {
		change, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if err := say(w.Table(), change.Appeared); err != nil {
			return err
		}
	}
}

// watchNaively reads the whole table whenever the kernel says that it has changed, as most programs do, and judges what has a new ID.
func watchNaively(say func(*mounts.Table, []*mounts.Mount) error) error {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		all, err := mounts.Parse(bytes.NewReader(text))
		if err != nil {
			return err
		}
		now := map[int]bool{}
		var fresh []*mounts.Mount
		for _, m := range all {
			now[m.ID] = true
			if !known[m.ID] {
				fresh = append(fresh, m)
			}
		}
		known = now
		if err := say(mounts.NewTable(all), fresh); err != nil {
			return err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// monotonic is a clock that all processes share.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// watcher is a process in the watching role.
type watcher struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	means string
}

func startWatcher(ctx context.Context, how, below string) (*watcher, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", watchRole, how, below)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w := &watcher{cmd: cmd, lines: bufio.NewScanner(out)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// The directory itself is the first that it sees there.
	_, err = w.sees(below)
	return w, err
}

// sees waits until the watcher has judged the mount at a place, and says when.
func (w *watcher) sees(point string) (int64, error) {
	for w.lines.Scan() {
		at, rest, _ := strings.Cut(w.lines.Text(), " ")
		if means, found := strings.CutPrefix(rest, "means "); found {
			w.means = means
		}
		if place, _, _ := strings.Cut(rest, " "); place == point {
			return strconv.ParseInt(at, 10, 64)
		}
	}
	return 0, errors.Join(errors.New("the watcher has ended"), w.lines.Err())
}

func (w *watcher) stop() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// drive mounts things for a watcher. The directory is on a disk.
func drive(ctx context.Context, scratch string) error {
	if ownNamespace() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
	}
	image := filepath.Join(scratch, "empty.ext4")
	for _, argv := range [][]string{{"truncate", "-s", "64M", image}, {"mkfs.ext4", "-q", image}} {
		if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	device, err := exec.CommandContext(ctx, "losetup", "--find", "--show", image).Output()
	if err != nil {
		return fmt.Errorf("losetup: %w", err)
	}
	disk := strings.TrimSpace(string(device))
	defer func() { _ = exec.Command("losetup", "--detach", disk).Run() }()
	dir := filepath.Join(scratch, "mounts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("bench", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()

	var r mountReport
	if err := r.single(ctx, dir, disk); err != nil {
		return err
	}
	for round := range stormRounds {
		hows := []string{"ours", "naive"}
		if round%2 == 1 {
			hows[0], hows[1] = hows[1], hows[0]
		}
		for _, how := range hows {
			if err := r.storm(ctx, dir, how); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// ownNamespace tells whether this process is in another mount namespace than PID 1.
func ownNamespace() bool {
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	its, err := os.Readlink("/proc/1/ns/mnt")
	return err != nil || its != ours
}

// single mounts one file system again and again, first alone and then among thousands, and looks at the watcher's other needs there.
func (r *mountReport) single(ctx context.Context, dir, disk string) error {
	w, err := startWatcher(ctx, "ours", dir)
	if err != nil {
		return err
	}
	defer w.stop()
	r.Means = w.means
	if r.Alone, err = w.latencies(dir, disk); err != nil {
		return err
	}
	many := filepath.Join(dir, "many")
	if err := fill(many, 0); err != nil {
		return err
	}
	if _, err := w.sees(last(many)); err != nil {
		return err
	}
	if r.Among, err = w.latencies(dir, disk); err != nil {
		return err
	}
	time.Sleep(time.Second)
	before, err := w.switches()
	if err != nil {
		return err
	}
	time.Sleep(idleTime)
	after, err := w.switches()
	if err != nil {
		return err
	}
	for i := range after {
		r.Wakeups[i] = after[i] - before[i]
	}
	if r.Resident, err = w.status("VmRSS"); err != nil {
		return err
	}
	if r.PeakResident, err = w.status("VmHWM"); err != nil {
		return err
	}
	return unix.Unmount(many, unix.MNT_DETACH)
}

func (w *watcher) latencies(dir, disk string) ([]time.Duration, error) {
	var all []time.Duration
	for i := range singleMounts {
		// A new place each time: what is waited for cannot be an older one.
		point := filepath.Join(dir, fmt.Sprintf("single-%d-%d", i, monotonic()))
		if err := os.Mkdir(point, 0o755); err != nil {
			return nil, err
		}
		time.Sleep(300 * time.Millisecond) // until the watcher waits: this is about a mount that comes alone
		if err := unix.Mount(disk, point, "ext4", 0, ""); err != nil {
			return nil, err
		}
		returned := monotonic()
		judged, err := w.sees(point)
		if err != nil {
			return nil, err
		}
		all = append(all, time.Duration(max(0, judged-returned)))
		if err := unix.Unmount(point, 0); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// storm mounts thousands of file systems and notes what the watcher spent on them.
func (r *mountReport) storm(ctx context.Context, dir, how string) error {
	w, err := startWatcher(ctx, how, dir)
	if err != nil {
		return err
	}
	defer w.stop()
	many := filepath.Join(dir, "many")
	cpu, systemd := processorTime(w.cmd.Process.Pid), processorTime(1)
	ended := make(chan error, 1)
	go func() {
		_, err := w.sees(last(many))
		ended <- err
	}()
	if err := fill(many, time.Millisecond); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	spent := processorTime(w.cmd.Process.Pid) - cpu
	if how == "ours" {
		r.Ours = append(r.Ours, spent)
	} else {
		r.Naive = append(r.Naive, spent)
	}
	if !ownNamespace() {
		r.Systemd = append(r.Systemd, processorTime(1)-systemd)
	}
	return unix.Unmount(many, unix.MNT_DETACH)
}

func last(dir string) string { return filepath.Join(dir, strconv.Itoa(manyMounts-1)) }

// fill mounts thousands of file systems below a directory, which is one itself, so that all go with it.
func fill(dir string, pace time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("bench", dir, "tmpfs", 0, "nr_inodes=0"); err != nil {
		return err
	}
	began := time.Now()
	for i := range manyMounts {
		point := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(point, 0o755); err != nil {
			return err
		}
		time.Sleep(time.Until(began.Add(time.Duration(i) * pace)))
		if err := unix.Mount("bench", point, "tmpfs", 0, "size=1m"); err != nil {
			return err
		}
	}
	return nil
}

// processorTime is what a process has used since it was started, to a hundredth of a second.
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every architecture that Flatcar has
}

// switches counts how often the watcher's threads were put on a processor: that which waits for mounts, and all others.
func (w *watcher) switches() (n [2]int, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", w.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return n, errors.New("cannot find the watcher's threads")
	}
	for _, thread := range threads {
		call, err := os.ReadFile(thread + "/syscall")
		if err != nil {
			return n, err
		}
		text, err := os.ReadFile(thread + "/status")
		if err != nil {
			return n, err
		}
		which := 1
		if strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_PPOLL)+" ") {
			which = 0
		}
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); strings.HasSuffix(key, "voluntary_ctxt_switches") {
				count, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					return n, err
				}
				n[which] += count
			}
		}
	}
	return n, nil
}

// status gives a number of kilobytes from /proc/PID/status, in bytes.
func (w *watcher) status(key string) (int64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, key+":"); found {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", file.Name(), key)
}

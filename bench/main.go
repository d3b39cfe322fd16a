// Command bench measures selinux-provision beside what an operator would do by hand, on a policy store of real size, and writes
// the results as a page: bench BINARY PAGE.
//
// What is compared runs in turns within one execution of it, so that both meet the same machine in the same mood; only medians
// and their ratios mean something on another machine. It is not a test: a test that measures time fails on a busy machine.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often each comparison is repeated. A policy rebuild takes seconds and hardly varies.
const (
	copyRounds    = 11
	rebuildRounds = 3
	idleRounds    = 11
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	ran, err := asRole(ctx, os.Args[1:])
	missed := 0
	if !ran {
		missed, err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	if missed > 0 {
		fmt.Fprintf(os.Stderr, "bench: %d goals are missed\n", missed)
		os.Exit(3)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (missed int, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "measure this alone, \"policy\" or \"relabel\", and keep the rest of the page")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	if args = flags.Args(); len(args) != 2 || *only != "" && *only != "policy" && *only != "relabel" {
		return 0, errors.New("usage: bench [-only policy|relabel] BINARY PAGE")
	}
	binary, err := filepath.Abs(args[0])
	if err != nil {
		return 0, err
	}
	if os.Geteuid() != 0 {
		return 0, errors.New("cannot read the policy store: it needs root")
	}
	// /tmp may be in memory, where nothing has to be synced.
	scratch, err := os.MkdirTemp("/var/tmp", "selinux-provision-bench-")
	if err != nil {
		return 0, fmt.Errorf("cannot make a working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	unmount, err := mountDisk(ctx, scratch)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unmount()) }()

	b := bench{binary: binary, scratch: scratch, out: out}
	for _, part := range []struct {
		section, what string
		do            func(context.Context) error
	}{
		{"policy", "first copy of the store", b.copies},
		{"policy", "first provisioning", b.provisioning},
		{"policy", "a boot with nothing to do", b.idle},
		{"policy", "reading denials", b.denials},
		{"policy", "the eyes of the mount watcher", b.mounts},
		{"policy", "the hands of the mount watcher", b.volumes},
		{"policy", "the binary", b.size},
		{"relabel", "relabelling", b.relabel},
	} {
		if *only != "" && part.section != *only {
			continue
		}
		fmt.Fprintf(out, "== %s\n", part.what)
		if err := part.do(ctx); err != nil {
			return 0, fmt.Errorf("cannot measure %s: %w", part.what, err)
		}
	}
	// What was not measured stays as the page has it.
	before, err := os.ReadFile(args[1])
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	head, tail, _ := strings.Cut(string(before), "\n"+relabelHeading)
	tail = relabelHeading + tail
	if *only != "relabel" {
		page, err := b.page(ctx)
		if err != nil {
			return 0, err
		}
		head = string(page)
		fmt.Fprintf(out, "\n%s", b.table())
	}
	if *only != "policy" {
		tail, missed = b.relabelPage()
		fmt.Fprintf(out, "\n%s", tail)
	}
	for _, r := range b.rows {
		if !r.met {
			missed++
		}
	}
	return missed, os.WriteFile(args[1], []byte(head+"\n"+tail), 0o644)
}

type bench struct {
	binary, scratch string
	out             io.Writer
	store           string // what the store holds
	rows            []row
	labelling       []relabelRow
	newer           string // the version of the later setfiles
	scaling         [][2]string
	missedScale     bool
}

// row is a line of the table.
type row struct {
	what, ours, theirs, ratio, goal string
	met                             bool
}

func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	fmt.Fprintf(b.out, "   %s: %s\n", r.what, r.ours)
}

// mountDisk puts a file system of its own at dir, for syncing one that others write to measures the others.
func mountDisk(ctx context.Context, dir string) (unmount func() error, err error) {
	image := dir + ".ext4"
	defer os.Remove(image) // the loop device keeps it until it is unmounted
	for _, argv := range [][]string{{"truncate", "-s", "1G", image}, {"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
			return nil, fmt.Errorf("cannot make a file system on a loop device: %w", err)
		}
	}
	return func() error { return unix.Unmount(dir, unix.MNT_DETACH) }, nil
}

// copies compares the first run of the stage policystore with the two commands that do the same by hand.
func (b *bench) copies(ctx context.Context) error {
	host, err := newHost(filepath.Join(b.scratch, "copy"))
	if err != nil {
		return err
	}
	if b.store, err = host.describe(); err != nil {
		return err
	}
	var stage, step, theirs samples
	for round := range copyRounds {
		err := inTurns(round,
			func() error {
				start := time.Now()
				copied, err := b.copyStep(ctx, host)
				stage.add(time.Since(start))
				step.add(copied)
				return err
			},
			func() error {
				used, err := copyByHand(ctx, host)
				theirs.add(used.wall)
				return err
			}, host.reset)
		if err != nil {
			return err
		}
	}
	b.compare("copy of the store, made durable: that step of `stage policystore` / `cp -a`, `sync -f`", step, theirs, 1)
	b.compare("the same with all that the stage does: fingerprint, check of the room, record / `cp -a`, `sync -f`", stage, theirs, 0)
	return nil
}

// copyStep runs the stage policystore and gives what it says its step of copying took.
func (b *bench) copyStep(ctx context.Context, host *host) (time.Duration, error) {
	out, err := exec.CommandContext(ctx, b.binary, "--root", host.dir, "--json", "stage", "policystore").Output()
	if err != nil {
		return 0, fmt.Errorf("stage policystore: %w\n%s", err, out)
	}
	var said struct {
		Results []struct {
			Done []struct {
				Action  string        `json:"action"`
				Elapsed time.Duration `json:"elapsed_ns"`
			} `json:"done"`
		} `json:"results"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return 0, fmt.Errorf("stage policystore: %w\n%s", err, out)
	}
	for _, r := range said.Results {
		for _, d := range r.Done {
			if d.Action == "copy" {
				return d.Elapsed, nil
			}
		}
	}
	return 0, fmt.Errorf("stage policystore copied nothing: %s", out)
}

func copyByHand(ctx context.Context, host *host) (usage, error) {
	if err := os.Remove(host.path("var/lib/selinux")); err != nil {
		return usage{}, err
	}
	used, err := execute(ctx, "cp", "-a", host.path("usr/lib/selinux/policy"), host.path("var/lib/selinux"))
	if err != nil {
		return used, err
	}
	synced, err := execute(ctx, "sync", "-f", host.path("var/lib/selinux"))
	return used.plus(synced), err
}

// module is what an operator wants beyond the vendor's policy.
const module = "(type bench_logreader_t)\n(roletype system_r bench_logreader_t)\n(allow bench_logreader_t etc_t (file (read open getattr)))\n"

// provisioning compares the first apply, from the vendor's read-only store to a built policy, with the same by hand.
func (b *bench) provisioning(ctx context.Context) error {
	host, err := newHost(filepath.Join(b.scratch, "provisioning"))
	if err != nil {
		return err
	}
	if err := host.declare("version: 1\naudit: {dontaudit: strip}\n"); err != nil {
		return err
	}
	var ours, theirs samples
	for round := range rebuildRounds {
		err := inTurns(round,
			func() error {
				used, err := b.provision(ctx, host, "apply")
				ours.add(used.wall)
				return err
			},
			func() error {
				used, err := copyByHand(ctx, host)
				if err != nil {
					return err
				}
				built, err := execute(ctx, "semodule", "--noreload", "--path", host.dir, "--store", policyType,
					"--disable_dontaudit", "--install", host.path("etc/selinux-provision/modules/bench_logreader.cil"))
				theirs.add(used.plus(built).wall)
				return err
			}, host.reset)
		if err != nil {
			return err
		}
	}
	b.compare("first provisioning: `apply` / `cp -a`, `sync -f`, `semodule -D -i`", ours, theirs, 1.1)

	if err := host.reset(); err != nil {
		return err
	}
	runs, err := b.executions(ctx, "semodule", host, "apply")
	if err != nil {
		return err
	}
	b.add(row{"policy rebuilds in the first provisioning", fmt.Sprint(runs), "1", "", "1", runs == 1})

	if err := host.reset(); err != nil {
		return err
	}
	peak, err := b.peakMemory(ctx, host, "apply")
	if err != nil {
		return err
	}
	b.memory("peak memory of the first provisioning, without semodule", peak)
	return nil
}

// idle measures what every boot pays on which everything is as declared.
func (b *bench) idle(ctx context.Context) error {
	host, err := newHost(filepath.Join(b.scratch, "idle"))
	if err != nil {
		return err
	}
	err = host.declare(`version: 1
mode: enforcing
policy:
  booleans: {ssh_sysadm_login: true}
  file_contexts:
    - {path: '/srv/data(/.*)?', context: 'system_u:object_r:etc_t:s0'}
audit: {log_denials: true, dontaudit: strip}
`)
	if err != nil {
		return err
	}
	if _, err := b.provision(ctx, host, "apply"); err != nil {
		return err
	}
	before, err := host.changes()
	if err != nil {
		return err
	}
	empty := filepath.Join(b.scratch, "empty")
	if _, err := execute(ctx, "go", "build", "-ldflags=-s -w", "-o", empty, "./bench/empty"); err != nil {
		return err
	}
	stages := []string{"policystore", "policy", "audit", "enforce"}
	each, waited := map[string]*samples{}, map[string]*samples{}
	var all, start, nothing, startWall, nothingWall samples
	var peak int64
	for range idleRounds {
		var total time.Duration
		for _, stage := range stages {
			used, err := b.provision(ctx, host, "stage", stage)
			if err != nil {
				return err
			}
			if each[stage] == nil {
				each[stage], waited[stage] = &samples{}, &samples{}
			}
			each[stage].add(used.cpu)
			waited[stage].add(used.wall)
			total += used.cpu
		}
		all.add(total)
		used, err := execute(ctx, b.binary, "version")
		if err != nil {
			return err
		}
		start.add(used.cpu)
		startWall.add(used.wall)
		if used, err = execute(ctx, empty); err != nil {
			return err
		}
		nothing.add(used.cpu)
		nothingWall.add(used.wall)
	}
	var parts, waits []string
	longest := time.Duration(0)
	for _, stage := range stages {
		parts = append(parts, stage+" "+milliseconds(each[stage].median()))
		waits = append(waits, stage+" "+milliseconds(waited[stage].median()))
		longest = max(longest, waited[stage].median())
	}
	const goal, goalWall = 20 * time.Millisecond, 5 * time.Millisecond
	b.add(row{"CPU of the four stages with nothing to do (" + strings.Join(parts, ", ") + ")", milliseconds(all.median()),
		milliseconds(4*start.median()) + " to start four times, " + milliseconds(4*nothing.median()) + " four times an empty Go program", "", "<= " + milliseconds(goal), all.median() <= goal})
	b.add(row{"time of each of them (" + strings.Join(waits, ", ") + ")", milliseconds(longest), milliseconds(startWall.median()) + " to start, " +
		milliseconds(nothingWall.median()) + " an empty Go program", "", "<= " + milliseconds(goalWall), longest <= goalWall})

	for _, stage := range stages {
		one, err := b.peakMemory(ctx, host, "stage", stage)
		if err != nil {
			return err
		}
		peak = max(peak, one)
	}
	b.memory("peak memory of a stage with nothing to do", peak)

	after, err := host.changes()
	if err != nil {
		return err
	}
	changed := before.compare(after)
	what := fmt.Sprintf("files and directories changed by %d boots with nothing to do, of %d", idleRounds+1, len(before))
	b.add(row{what, fmt.Sprint(len(changed)), "", "", "0", len(changed) == 0})
	for _, name := range changed {
		fmt.Fprintf(b.out, "   changed: %s\n", name)
	}
	return nil
}

func (b *bench) size(context.Context) error {
	info, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	b.add(row{"size of the static binary", megabytes(info.Size()), "", "", "< 15 MB", info.Size() < 15e6})
	return nil
}

// compare adds a line with the ratio of two medians; a limit of 0 is no goal.
func (b *bench) compare(what string, ours, theirs samples, limit float64) {
	ratio := ours.median().Seconds() / theirs.median().Seconds()
	r := row{what, ours.String(), theirs.String(), fmt.Sprintf("%.2f", ratio), "", true}
	if limit > 0 {
		r.goal, r.met = fmt.Sprintf("ratio <= %.2f", limit), ratio <= limit
	}
	b.add(r)
}

func (b *bench) memory(what string, peak int64) {
	b.add(row{what, megabytes(peak), "", "", "< 32 MB", peak < 32e6})
}

// provision runs selinux-provision on a host and fails unless it succeeds.
func (b *bench) provision(ctx context.Context, host *host, args ...string) (usage, error) {
	return execute(ctx, b.binary, append([]string{"--root", host.dir}, args...)...)
}

// inTurns runs two functions, each on the host as reset leaves it with nothing left to be written to the disk, and changes which
// is first from round to round.
func inTurns(round int, ours, theirs, reset func() error) error {
	turns := []func() error{ours, theirs}
	if round%2 == 1 {
		turns[0], turns[1] = turns[1], turns[0]
	}
	for _, turn := range turns {
		if err := reset(); err != nil {
			return err
		}
		unix.Sync()
		if err := turn(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) table() string {
	var t strings.Builder
	t.WriteString("| | ours | by hand | ratio | goal | |\n|---|---|---|---|---|---|\n")
	for _, r := range b.rows {
		verdict := map[bool]string{true: "met", false: "**missed**"}[r.met]
		if r.goal == "" {
			verdict = ""
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %s | %s |\n", r.what, r.ours, r.theirs, r.ratio, r.goal, verdict)
	}
	return t.String()
}

func (b *bench) page(ctx context.Context) ([]byte, error) {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return nil, err
	}
	release := strings.SplitN(unix.ByteSliceToString(kernel.Release[:]), ".", 3)
	tools, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${Package} ${Version}", "policycoreutils").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the version of policycoreutils: %w", err)
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, `# Performance

Written by `+"`make bench`"+`, which measures all of it in one run: what is compared runs in turns, %d times for copies, %d times for
rebuilds and %d times for boots with nothing to do. Times are medians, with the fastest and the slowest in brackets. They are those
of one machine (Linux %s, %d processors, %s, no SELinux in the kernel); the ratios are what counts elsewhere.

The store is Debian's selinux-policy-default in the layout of a current Flatcar release: %s.

%s
"By hand" is what an operator would type for the same result. The first provisioning is semodule's own time but for a few
hundredths, and all that can be gained there is to run it once or not at all. "Changed" compares inode, size, modification and
status-change time of every entry of the host's tree. Memory is the kernel's high-water mark of the process itself.

What systemd spends on the same mounts shows only where it runs. `+"`vmtests.TestVolumesLive`"+` mounts 5,000 tmpfs on the lookalike
machine, each meant by a rule, and logs both. Five runs, emulated, 2 processors: systemd 10.7 to 21.7 s of processor time, the watcher
4.2 to 9.6 s, which is 0.40 to 0.45 of it. The test fails unless the unit has at most 20 MB of memory when nothing more comes.

What a thousand levels do to the kernel's cache of decisions shows only where SELinux is on: `+"`vmtests.TestCacheOfDecisions`"+` measures it, and the
[operator guide](operator-guide.md#the-kernels-cache-of-decisions) has the numbers and what they mean.
`, copyRounds, rebuildRounds, idleRounds, strings.Join(release[:2], "."), runtime.NumCPU(), tools, b.store, b.table())
	return page.Bytes(), nil
}

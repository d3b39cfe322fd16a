package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	relabelEntries = 200_000
	relabelMany    = 1_000_000
	relabelLabel   = "system_u:object_r:container_file_t:s0:c1,c2"
	relabelOther   = "system_u:object_r:container_file_t:s0:c3,c4" // that files have before it is changed
	relabelPart    = "data"                                        // the directory of each file system that everything is in
	relabelRounds  = 3
	slowRounds     = 3
	slowDelay      = "1ms"
	newerDebian    = "forky" // where setfiles is compared with, too
)

// lab is what relabelling is measured with.
type lab struct {
	*bench
	dir   string // for images and mount points, on a disk
	tools map[string][]string
	order []string
}

// relabel compares the engine with those of the field, on the same trees of the same file systems.
func (b *bench) relabel(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("/var/tmp", "selinux-provision-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := &lab{bench: b, dir: dir}
	if err := l.build(ctx); err != nil {
		return err
	}
	for _, kind := range []string{"ext4", "xfs", "tmpfs"} {
		if err := l.warm(ctx, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	// The floor's threads are set from here on for disks: what is in memory was measured.
	for _, kind := range []string{"ext4", "xfs"} {
		if err := l.cold(ctx, kind, false); err != nil {
			return fmt.Errorf("%s, cold: %w", kind, err)
		}
		if err := l.cold(ctx, kind, true); err != nil {
			return fmt.Errorf("%s, slow: %w", kind, err)
		}
	}
	return l.scale(ctx)
}

// build makes the programs to compare with, and the trees.
func (l *lab) build(ctx context.Context) error {
	at := func(name string) string { return filepath.Join(l.dir, name) }
	for _, argv := range [][]string{
		{"go", "build", "-o", at("slowdisk"), "./bench/slowdisk"},
		{"go", "build", "-o", at("chcon"), "./bench/chcon"},
		{"gcc", "-O2", "-pthread", "-o", at("floor"), "bench/floor/floor.c"},
		{"gcc", "-shared", "-fPIC", "-o", at("shim.so"), "bench/floor/shim.c"},
	} {
		if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	if err := os.WriteFile(at("file_contexts"), []byte("/.*\t"+relabelLabel+"\n"), 0o600); err != nil {
		return err
	}
	l.tools = map[string][]string{
		"ours":     {l.binary, "relabel", "--fresh", "--context", relabelLabel},
		"setfiles": {"setfiles", "-T", "0", "-F", at("file_contexts")},
		"chcon -R": {"env", "LD_PRELOAD=" + at("shim.so"), "chcon", "-R", relabelLabel},
		"Chcon":    {at("chcon"), relabelLabel},
		"floor":    {at("floor"), "-t", "2", relabelLabel},
		"floor -a": {at("floor"), "-t", "2", "-a", relabelLabel},
		"clear":    {at("floor"), "-t", "8", "-x", relabelLabel},
		"other":    {at("floor"), "-t", "8", relabelOther},
	}
	newer, err := l.newerSetfiles(ctx)
	if err != nil {
		return err
	}
	l.tools["newer"] = append(newer, l.tools["setfiles"][1:]...)
	l.order = []string{"ours", "setfiles", "newer", "Chcon", "chcon -R", "floor"}
	for _, kind := range []string{"ext4", "xfs"} {
		if err := l.image(ctx, kind, relabelEntries); err != nil {
			return err
		}
	}
	return nil
}

// newerSetfiles unpacks the setfiles of a later Debian beside the host's, with its libraries and their loader, and gives the words that run it.
func (l *lab) newerSetfiles(ctx context.Context) (argv []string, err error) {
	root := filepath.Join(l.dir, newerDebian)
	unpack := []string{"--variant=extract", "--include=policycoreutils"}
	// A mirror frozen in time is beyond its own expiry date: a host set up for one says so in its apt configuration.
	settings, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire::Check-Valid-Until", "Acquire::Check-Date").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the settings of apt: %w", err)
	}
	for line := range strings.Lines(string(settings)) {
		if line = strings.TrimSuffix(strings.TrimSpace(line), ";"); line != "" {
			unpack = append(unpack, "--aptopt="+line)
		}
	}
	if _, err := execute(ctx, "mmdebstrap", append(unpack, newerDebian, root)...); err != nil {
		return nil, err
	}
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/ld-linux-*.so.*"))
	if err != nil || len(loaders) != 1 {
		return nil, fmt.Errorf("cannot tell the loader of %s: found %q", newerDebian, loaders)
	}
	if l.newer, err = versionOf(filepath.Join(root, "usr/share/doc/policycoreutils/changelog.Debian.gz")); err != nil {
		return nil, err
	}
	return []string{loaders[0], "--library-path", filepath.Dir(loaders[0]), filepath.Join(root, "usr/sbin/setfiles")}, nil
}

// versionOf gives the version of a package that was only unpacked, without Debian's part, from the first line of its changelog: NAME (VERSION) ...
func versionOf(changelog string) (string, error) {
	file, err := os.Open(changelog)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := gzip.NewReader(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", changelog, err)
	}
	var name, version string
	if _, err := fmt.Fscan(text, &name, &version); err != nil {
		return "", fmt.Errorf("%s: %w", changelog, err)
	}
	version, _, _ = strings.Cut(strings.Trim(version, "()"), "-")
	return version, nil
}

// image makes a file system with a tree in a file.
func (l *lab) image(ctx context.Context, kind string, entries int) error {
	name := filepath.Join(l.dir, kind+".img")
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	mkfs := []string{"mkfs." + kind, "-q", name}
	if kind == "ext4" {
		mkfs = []string{"mkfs.ext4", "-q", "-N", fmt.Sprint(entries + entries/4), "-E", "lazy_itable_init=0,lazy_journal_init=0", name}
	}
	for _, argv := range [][]string{{"truncate", "-s", fmt.Sprintf("%dM", 1024+entries/100), name}, mkfs} {
		if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	point, unmount, err := l.mount(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(plantTree(filepath.Join(point, relabelPart), entries), unmount())
}

func (l *lab) mount(ctx context.Context, image string) (point string, unmount func() error, err error) {
	point = filepath.Join(l.dir, "mnt")
	if err := os.MkdirAll(point, 0o700); err != nil {
		return "", nil, err
	}
	argv := []string{"mount", image, point}
	if info, err := os.Stat(image); err == nil && info.Mode().IsRegular() {
		argv = []string{"mount", "-o", "loop", image, point}
	}
	if _, err := execute(ctx, argv[0], argv[1:]...); err != nil {
		return "", nil, err
	}
	return point, func() error { return unix.Unmount(point, 0) }, nil
}

// plantTree makes a tree like that of an application's packages: directories of some ten files, seldom empty ones, a link here and there.
func plantTree(root string, entries int) error {
	random := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 3000)
	made := 1
	for pkg := 0; made < entries; pkg++ {
		base := filepath.Join(root, fmt.Sprintf("app-%03d", pkg/400), "modules", fmt.Sprintf("package-%05d", pkg))
		if err := os.MkdirAll(base, 0o755); err != nil {
			return err
		}
		made++
		for _, sub := range []string{"", "lib", "dist", "dist/esm", "src", "types", "test/fixtures"}[:2+random.IntN(6)] {
			dir := filepath.Join(base, sub)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			made++
			for i := range 1 + int(random.ExpFloat64()*10) {
				name := filepath.Join(dir, fmt.Sprintf("module-%d-%04d.js", i, random.IntN(10000)))
				var err error
				if random.IntN(100) == 0 {
					err = os.Symlink("../index.js", name)
				} else {
					err = os.WriteFile(name, content[:random.IntN(len(content))], 0o644)
				}
				if err != nil && !errors.Is(err, os.ErrExist) {
					return err
				}
				made++
			}
		}
	}
	return nil
}

// once runs a program on a tree.
func (l *lab) once(ctx context.Context, tool, tree string) (time.Duration, error) {
	argv := append(append([]string{}, l.tools[tool]...), tree)
	used, err := execute(ctx, argv[0], argv[1:]...)
	return used.wall, err
}

// pass is one of the states that a tree is in before it is labelled.
type pass struct {
	name    string
	before  string // the tool that makes it so; "": the pass before did
	compare bool   // the floor reads before it writes
	goals   [3]float64
}

// The passes: without labels, with the right ones, with other ones.
func passes(first, again, change [3]float64) []pass {
	return []pass{{"first", "clear", false, first}, {"again", "", true, again}, {"change", "other", false, change}}
}

// changed are the goals for a tree whose labels change, and for a part of a file system.
func changed() [3]float64 { return [3]float64{0.30, 0, 2.0} }

// compareTools runs all of them in turns, in each pass. prepare comes before each run. Those in once have one turn.
func (l *lab) compareTools(ctx context.Context, what string, rounds int, order, once []string, tree string, passes []pass, prepare func() error) error {
	results := make([]map[string]*samples, len(passes))
	for i := range passes {
		results[i] = map[string]*samples{}
		for _, tool := range order {
			results[i][tool] = &samples{}
		}
	}
	for round := range rounds {
		for i := range order {
			tool := order[(i+round)%len(order)]
			if round > 0 && slices.Contains(once, tool) {
				continue
			}
			for at, p := range passes {
				if p.before != "" {
					if _, err := l.once(ctx, p.before, tree); err != nil {
						return err
					}
				}
				unix.Sync()
				if prepare != nil {
					if err := prepare(); err != nil {
						return err
					}
				}
				run := tool
				if p.compare && tool == "floor" {
					run = "floor -a"
				}
				took, err := l.once(ctx, run, tree)
				if err != nil {
					return err
				}
				results[at][tool].add(took)
			}
		}
	}
	for at, p := range passes {
		r := relabelRow{what: what + ", " + p.name, took: map[string]string{}, ratios: map[string]float64{}, goals: map[string]float64{"setfiles": p.goals[0], "Chcon": p.goals[1], "floor": p.goals[2]}}
		for _, tool := range order {
			r.took[tool] = results[at][tool].String()
			r.ratios[tool] = results[at]["ours"].median().Seconds() / results[at][tool].median().Seconds()
		}
		l.labelling = append(l.labelling, r)
		fmt.Fprintf(l.out, "   %s: %s; ratios %.2v\n", r.what, r.took["ours"], r.ratios)
	}
	return nil
}

// part measures the directory that everything is in, which is not all of its file system.
func (l *lab) part(ctx context.Context, what string, rounds int, once []string, point string, prepare func() error) error {
	var goals [3]float64
	if !strings.HasPrefix(what, "tmpfs") {
		goals = changed()
	}
	return l.compareTools(ctx, what+", a part of it", rounds, []string{"ours", "setfiles", "Chcon", "floor"}, once, filepath.Join(point, relabelPart),
		passes(goals, [3]float64{}, goals), prepare)
}

// relabelRow is a line of the table, by tool: how long it took, our time divided by its, and what that should be at most; a goal of 0 is none.
type relabelRow struct {
	what   string
	took   map[string]string
	ratios map[string]float64
	goals  map[string]float64
}

func (l *lab) warm(ctx context.Context, kind string) error {
	goals := map[string][2][3]float64{
		"ext4": {{0.25, 0.60, 1.10}, {0.20, 0.50, 1.15}},
		"xfs":  {{0.40, 0.72, 1.10}, {0.16, 0.45, 1.10}},
	}[kind]
	var point string
	var unmount func() error
	var err error
	if kind == "tmpfs" {
		point = filepath.Join(l.dir, "tmpfs")
		if err := os.MkdirAll(point, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
			return err
		}
		unmount = func() error { return unix.Unmount(point, 0) }
		err = plantTree(filepath.Join(point, relabelPart), relabelEntries)
	} else {
		point, unmount, err = l.mount(ctx, filepath.Join(l.dir, kind+".img"))
	}
	if err != nil {
		return err
	}
	var change [3]float64
	if kind != "tmpfs" {
		change = changed()
	}
	err = l.compareTools(ctx, kind+", in memory", relabelRounds, l.order, nil, point, passes(goals[0], goals[1], change), nil)
	if err == nil {
		err = l.part(ctx, kind+", in memory", relabelRounds, nil, point, nil)
	}
	return errors.Join(err, unmount())
}

// cold mounts anew before each run, with nothing in memory; with slow, from a disk that takes a millisecond for each read.
func (l *lab) cold(ctx context.Context, kind string, slow bool) (err error) {
	goals := map[string][2][3]float64{
		"ext4":      {{0.20, 0.32, 1.10}, {0.20, 0.36, 1.15}},
		"ext4 slow": {{0.05, 0.05, 1.10}, {0.04, 0.04, 1.10}},
		"xfs slow":  {{0.15, 0.17, 1.10}, {0, 0, 1.10}},
	}
	source, what, rounds, order := filepath.Join(l.dir, kind+".img"), kind+", from the disk", relabelRounds, l.order
	goal := goals[kind]
	threads := "8"
	var once []string
	if slow {
		what, rounds, threads = kind+", from a disk with 1 ms for each read", slowRounds, "32"
		order = []string{"ours", "setfiles", "Chcon", "floor"}
		once = []string{"setfiles", "Chcon"} // which take 20 s and more
		goal = goals[kind+" slow"]
		device, stop, err := l.slowDisk(ctx, source)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		source = device
	}
	for _, tool := range []string{"floor", "floor -a"} {
		l.tools[tool][2] = threads
	}
	point, unmount, err := l.mount(ctx, source)
	if err != nil {
		return err
	}
	anew := func() error {
		if err := unmount(); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return err
		}
		_, unmount, err = l.mount(ctx, source)
		return err
	}
	err = l.compareTools(ctx, what, rounds, order, once, point, passes(goal[0], goal[1], changed()), anew)
	if err == nil {
		err = l.part(ctx, what, rounds, once, point, anew)
	}
	return errors.Join(err, unmount())
}

// slowDisk gives a loop device on an image that takes its time.
func (l *lab) slowDisk(ctx context.Context, image string) (device string, stop func() error, err error) {
	point := filepath.Join(l.dir, "slow")
	if err := os.MkdirAll(point, 0o700); err != nil {
		return "", nil, err
	}
	server := exec.CommandContext(ctx, filepath.Join(l.dir, "slowdisk"), point, image, slowDelay)
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	disk := filepath.Join(point, "disk")
	for range 100 {
		if _, err = os.Stat(disk); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	end := func() error { return errors.Join(unix.Unmount(point, unix.MNT_DETACH), server.Wait()) }
	if err != nil {
		return "", nil, errors.Join(err, end())
	}
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", "--direct-io=on", disk).Output()
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("losetup: %w", err), end())
	}
	device = strings.TrimSpace(string(out))
	return device, func() error {
		_, err := execute(context.WithoutCancel(ctx), "losetup", "--detach", device)
		return errors.Join(err, end())
	}, nil
}

// scale measures numbers of workers, and a tree of a million entries.
func (l *lab) scale(ctx context.Context) (err error) {
	point, unmount, err := l.mount(ctx, filepath.Join(l.dir, "ext4.img"))
	if err != nil {
		return err
	}
	ours := l.tools["ours"]
	defer func() { l.tools["ours"] = ours }()
	for _, workers := range []string{"1", "2", "4", "8", "32"} {
		l.tools["ours"] = append(append([]string{}, ours...), "--workers", workers)
		var first samples
		for range 3 {
			if _, err := l.once(ctx, "clear", point); err != nil {
				return errors.Join(err, unmount())
			}
			unix.Sync()
			took, err := l.once(ctx, "ours", point)
			if err != nil {
				return errors.Join(err, unmount())
			}
			first.add(took)
		}
		l.scaling = append(l.scaling, [2]string{"ext4, in memory, first, workers: " + workers, first.String()})
	}
	l.tools["ours"] = ours
	if err := unmount(); err != nil {
		return err
	}
	if err := l.image(ctx, "ext4", relabelMany); err != nil {
		return err
	}
	if point, unmount, err = l.mount(ctx, filepath.Join(l.dir, "ext4.img")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	took, err := l.once(ctx, "ours", point)
	if err != nil {
		return err
	}
	l.scaling = append(l.scaling, [2]string{"ext4, 1,000,000 entries, first", fmt.Sprintf("%.2f s", took.Seconds())})
	if _, err := l.once(ctx, "clear", point); err != nil {
		return err
	}
	peak, err := l.peak(ctx, append(append([]string{}, ours...), point)...)
	if err != nil {
		return err
	}
	l.scaling = append(l.scaling, [2]string{"peak memory with 1,000,000 entries (goal: 32 MB)", megabytes(peak)})
	l.missedScale = peak > 32e6
	return nil
}

const relabelHeading = "## Relabelling"

// relabelPage is the section of the page.
func (b *bench) relabelPage() (page string, missed int) {
	var t strings.Builder
	fmt.Fprintf(&t, `%s

The same tree of %d entries on each file system. "First": nothing has a label; "again": every label is right; "change": every label is another
one. "A part of it" is the directory that everything is in, without the root of the file system, where a file may have another name outside. In memory: %d rounds
in turns; from the disk: mounted anew with dropped caches, %d rounds; from the slow disk: a file system on a loop device on a file
that takes 1 ms for each read ([slowdisk](../bench/slowdisk/main.go)), %d rounds, and one for setfiles and Chcon. Medians, the fastest and the slowest in brackets; then ours
divided by theirs, with the goal. setfiles is `+"`setfiles -T 0`"+`, which is restorecon, of the host, then of policycoreutils %s; Chcon is the one of github.com/opencontainers/selinux; the
floor is [a C program](../bench/floor/floor.c) that has no care for safety and counts nothing: 2 threads in memory, 8 from the disk, 32 from the slow disk.
It does not read ahead.

| | ours | setfiles | setfiles %s | Chcon | chcon -R | floor | / setfiles | / setfiles %s | / Chcon | / floor |
|---|---|---|---|---|---|---|---|---|---|---|
`, relabelHeading, relabelEntries, relabelRounds, relabelRounds, slowRounds, b.newer, b.newer, b.newer)
	for _, r := range b.labelling {
		fmt.Fprintf(&t, "| %s ", r.what)
		for _, tool := range []string{"ours", "setfiles", "newer", "Chcon", "chcon -R", "floor"} {
			fmt.Fprintf(&t, "| %s ", r.took[tool])
		}
		for _, tool := range []string{"setfiles", "newer", "Chcon", "floor"} {
			ratio, compared := r.ratios[tool]
			switch goal := r.goals[tool]; {
			case !compared:
				t.WriteString("| ")
			case goal == 0:
				fmt.Fprintf(&t, "| %.2f ", ratio)
			case ratio <= goal:
				fmt.Fprintf(&t, "| %.2f, met (%.2f) ", ratio, goal)
			default:
				missed++
				fmt.Fprintf(&t, "| %.2f, **missed** (%.2f) ", ratio, goal)
			}
		}
		t.WriteString("|\n")
	}
	t.WriteString("\n| | |\n|---|---|\n")
	for _, r := range b.scaling {
		fmt.Fprintf(&t, "| %s | %s |\n", r[0], r[1])
	}
	if b.missedScale {
		missed++
	}
	return t.String(), missed
}

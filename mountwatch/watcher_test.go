package mountwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/mounttest"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

const (
	shared  = "system_u:object_r:container_file_t:s0"
	private = "system_u:object_r:container_file_t:s0:c10,c20"
)

// The tests mount real file systems. They run in a mount namespace of their own, so that nothing of it is seen outside.
func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// host is a root directory with a watcher that sees the mounts in it, as on a kernel with SELinux: it says "seclabel".
type host struct {
	t      *testing.T
	dir    string // where volumes are mounted
	root   *hostfs.Root
	source *labelled

	mu     sync.Mutex
	config Config
	broken error // of the next reading of the config
	events []Event

	reload chan struct{}
	stop   func()

	// patience is the watcher's with file systems that do not answer; 0: its own.
	patience time.Duration

	heard   func(Event)                                  // of each event; nil: nobody
	remount func(context.Context, *volume) (bool, error) // in place of the watcher's own; nil: that
}

// policy knows no type no_such_t, and lets nobody mount with kernel_t.
type policy struct{}

func (policy) Canonical(c string) (string, bool, error) {
	return c, !strings.Contains(c, "no_such_t"), nil
}

func (policy) MayMount(c string) (bool, error) { return !strings.Contains(c, "kernel_t"), nil }

type labelled struct {
	*mounts.Watcher
	dir   string
	table *mounts.Table
}

// Next shows only the mounts of the test.
func (l *labelled) Next(ctx context.Context) (mounts.Change, error) {
	for first := l.table == nil; ; {
		c, err := l.Watcher.Next(ctx)
		if err != nil {
			return c, err
		}
		l.table = mounts.NewTable(l.pick(l.Watcher.Table().All()))
		c = mounts.Change{Appeared: l.pick(c.Appeared), Vanished: l.pick(c.Vanished), Changed: l.pick(c.Changed)}
		if first || !c.Empty() {
			return c, nil
		}
	}
}

func (l *labelled) Table() *mounts.Table { return l.table }

func (l *labelled) pick(all []*mounts.Mount) (ours []*mounts.Mount) {
	for _, m := range all {
		if strings.HasPrefix(m.Mountpoint, l.dir+"/") {
			copied := *m
			copied.SuperOptions += ",seclabel"
			ours = append(ours, &copied)
		}
	}
	return ours
}

func newHost(t *testing.T, rules ...judge.Rule) *host {
	t.Helper()
	var lacking []string
	for _, p := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(p); err != nil {
			lacking = append(lacking, p)
		}
	}
	switch {
	case !mounttest.Inside():
		lacking = append(lacking, "root")
	case unix.Access("/dev/loop-control", unix.W_OK) != nil:
		lacking = append(lacking, "loop devices")
	}
	if len(lacking) > 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs %s", strings.Join(lacking, ", "))
		}
		t.Skipf("this test needs %s", strings.Join(lacking, ", "))
	}
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "v"), reload: make(chan struct{})}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.root, err = hostfs.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	h.rules(rules...)
	t.Cleanup(func() {
		h.halt()
		points, _ := filepath.Glob(h.dir + "/*")
		for _, p := range points {
			for unix.Unmount(p, 0) == nil { // until nothing is mounted there
			}
		}
		h.root.Close()
	})
	return h
}

// rules are those of the config, with mountpoints relative to the host's directory.
func (h *host) rules(rules ...judge.Rule) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config = Config{}
	for _, r := range rules {
		r.Match.Mountpoint = filepath.Join(h.dir, r.Match.Mountpoint)
		r.Source = "config.yaml:1"
		h.config.Rules = append(h.config.Rules, r)
	}
}

// start runs a watcher, and returns when it has said that it is ready.
func (h *host) start() {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "notify") // the name of a socket has room for 107 bytes only
	if err != nil {
		h.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/s", Net: "unixgram"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Setenv("NOTIFY_SOCKET", dir+"/s")
	watcher, err := mounts.Open(true)
	if err != nil {
		h.t.Fatal(err)
	}
	h.source = &labelled{Watcher: watcher, dir: h.dir}
	w := &Watcher{
		Root: h.root, Host: judge.Host{SELinux: true, DefaultContext: shared},
		Policy: policy{},
		Load: func() (Config, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.config, h.broken
		},
		Source: h.source,
		Report: func(e Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, e)
			if h.heard != nil {
				h.heard(e)
			}
		},
	}
	w.remounts.do = h.remount
	w.asking.patience, w.relabels.patience = h.patience, h.patience
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, h.reload) }()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
		watcher.Close()
		socket.Close()
		h.stop = nil
	}
	buf := make([]byte, 4096)
	if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	n, err := socket.Read(buf)
	if err != nil || !bytes.HasPrefix(buf[:n], []byte("READY=1\n")) {
		h.t.Fatalf("%q, %v", buf[:n], err)
	}
}

func (h *host) halt() {
	if h.stop != nil {
		h.stop()
	}
}

// mount makes an ext4 and mounts it.
func (h *host) mount(name string) string {
	h.t.Helper()
	image, point := filepath.Join(h.t.TempDir(), name), filepath.Join(h.dir, name)
	h.run("truncate", "-s", "64M", image)
	h.run("mkfs.ext4", "-q", "-N", "20000", image)
	h.mountImage(image, point)
	return point
}

func (h *host) mountImage(image, point string) {
	h.t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.run("mount", "-o", "loop", image, point)
}

func (h *host) run(name string, args ...string) {
	h.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		h.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (h *host) output(name string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		h.t.Fatalf("%s %q: %v", name, args, err)
	}
	return strings.TrimSpace(string(out))
}

// fill makes files in a directory.
func (h *host) fill(dir string, n int) {
	h.t.Helper()
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%02d", i%50))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), nil, 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
}

// eventually waits for a volume to get into a state, as it is written down.
func (h *host) eventually(point string, want State) Volume {
	h.t.Helper()
	var all []Volume
	for range 1500 {
		all = LoadRecord(h.root).Volumes
		for _, v := range all {
			if v.Mountpoint == point && v.State == want {
				return v
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("%s is not %s: %+v", point, want, all)
	return Volume{}
}

// kinds are the events so far that are not about the configuration.
func (h *host) kinds() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var kinds []string
	for _, e := range h.events {
		kinds = append(kinds, string(e.Kind))
	}
	h.events = nil
	return strings.Join(kinds, " ")
}

// labels gives the different labels below a path.
func (h *host) labels(path string) []string {
	h.t.Helper()
	var all []string
	err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.Name() == "lost+found" {
			return err
		}
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(name, "security.selinux", buf)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
		all = append(all, strings.TrimRight(string(buf[:max(n, 0)]), "\x00"))
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func relabelRule(name string) judge.Rule {
	return judge.Rule{Name: name, Match: judge.Match{Mountpoint: name}, Strategy: judge.Relabel}
}

// A volume is labelled once: not again when the watcher starts again, nor when it is mounted again; but it is if it was made anew.
//
// Proves P5.
func TestRelabelOnce(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	point := h.mount("data")
	h.fill(point, 300)
	h.start()
	v := h.eventually(point, Labelled)
	if got := h.labels(point); !slices.Equal(got, []string{shared}) {
		t.Errorf("the labels are %q", got)
	}
	if v.How != byFiles || v.Context != shared || v.Files == nil || v.Files.Set < 300 || v.Files.Failed != 0 || v.When.IsZero() {
		t.Errorf("%+v %+v", v, v.Files)
	}
	if got := h.kinds(); got != "relabel-started relabel-done labelled not-shared" {
		t.Error(got)
	}

	h.halt()
	h.start()
	if again := h.eventually(point, Labelled); !again.When.Equal(v.When) {
		t.Errorf("%+v, was %+v", again, v)
	}
	if got := h.kinds(); got != "" {
		t.Errorf("a new start: %s", got)
	}

	device, err := exec.Command("findmnt", "-no", "SOURCE", point).Output()
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile("/sys/block/" + filepath.Base(strings.TrimSpace(string(device))) + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	file := strings.TrimSpace(string(image))
	h.run("umount", point)
	h.gone(point)
	h.mountImage(file, point)
	h.eventually(point, Labelled)
	if got := h.kinds(); got != "labelled not-shared" {
		t.Errorf("mounted again: %s", got)
	}

	h.run("umount", point)
	h.gone(point)
	for range 1000 { // the loop device goes away in its own time, and would keep what it has read of the file
		if out, err := exec.Command("losetup", "-j", file).Output(); err == nil && len(out) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.run("mkfs.ext4", "-q", "-F", file)
	h.mountImage(file, point)
	h.eventually(point, Labelled)
	if got := h.kinds(); got != "relabel-started relabel-done labelled not-shared" {
		t.Errorf("made anew: %s", got)
	}
}

func (h *host) gone(point string) {
	h.t.Helper()
	for range 1000 {
		if !slices.ContainsFunc(LoadRecord(h.root).Volumes, func(v Volume) bool { return v.Mountpoint == point }) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("%s is still in the record", point)
}

// A relabelling that is broken off goes on where it was.
func TestRelabelBrokenOff(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	h.config.Limits.EntriesPerSecond = 2000
	point := h.mount("data")
	h.fill(point, 6000)
	h.start()
	h.eventually(point, Relabelling)
	for range 1000 {
		if len(h.labels(point)) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.halt()
	if got := h.labels(point); len(got) != 2 {
		t.Fatalf("it was not in the middle: %q", got)
	}
	if v := h.eventually(point, Relabelling); v.State.Final() {
		t.Error(v)
	}
	h.config.Limits.EntriesPerSecond = 0
	h.start()
	v := h.eventually(point, Labelled)
	if got := h.labels(point); !slices.Equal(got, []string{shared}) {
		t.Errorf("the labels are %q", got)
	}
	if v.Files == nil || v.Files.Resumed+v.Files.Already == 0 {
		t.Errorf("it began anew: %+v", v.Files)
	}
	if left, _ := filepath.Glob(h.root.Path(Dir + "/progress-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// The configuration is read again on request. A wrong one changes nothing, a new label is given.
func TestReload(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	point := h.mount("data")
	h.fill(point, 20)
	h.start()
	h.eventually(point, Labelled)
	h.kinds()

	h.mu.Lock()
	h.broken = errors.New("config.yaml:3: mood: cannot use an unknown key")
	h.mu.Unlock()
	h.reload <- struct{}{}
	h.reload <- struct{}{} // the first is done with
	if got := h.kinds(); !strings.HasPrefix(got, "config-bad") {
		t.Error(got)
	}
	h.eventually(point, Labelled)

	h.mu.Lock()
	h.broken = nil
	h.mu.Unlock()
	rule := relabelRule("data")
	rule.Level = "s0:c10,c20"
	h.rules(rule)
	h.reload <- struct{}{}
	for h.eventually(point, Labelled).Context != private {
		time.Sleep(10 * time.Millisecond)
	}
	if got := h.labels(point); !slices.Equal(got, []string{private}) {
		t.Errorf("the labels are %q", got)
	}
	h.rules()
	h.reload <- struct{}{}
	h.gone(point)
	if got := h.labels(point); !slices.Equal(got, []string{private}) {
		t.Errorf("a volume that is declared no more was touched: %q", got)
	}
}

// Each sub-path is labelled and nothing beside it, and one that is missing is said.
//
// Proves P5.
func TestPaths(t *testing.T) {
	rule := relabelRule("data")
	rule.Paths = []string{"pvc-1", "deep/pvc-2"}
	h := newHost(t, rule)
	point := h.mount("data")
	h.fill(filepath.Join(point, "pvc-1"), 10)
	h.fill(filepath.Join(point, "beside"), 10)
	h.start()
	v := h.eventually(point, Failed)
	if v.Code != CodeRelabelFailed || !strings.Contains(v.Reason, "deep/pvc-2: there is no such directory in the volume") || v.Remedy == "" {
		t.Errorf("%+v", v)
	}
	h.fill(filepath.Join(point, "deep/pvc-2"), 10)
	h.reload <- struct{}{}
	h.eventually(point, Labelled)
	for path, want := range map[string]string{"pvc-1": shared, "deep/pvc-2": shared, "beside": ""} {
		if got := h.labels(filepath.Join(point, path)); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q", path, got)
		}
	}
	// A link in place of a sub-path leads nowhere.
	h.run("mv", filepath.Join(point, "pvc-1"), filepath.Join(point, "moved"))
	h.run("ln", "-s", "beside", filepath.Join(point, "pvc-1"))
	h.reload <- struct{}{}
	if v := h.eventually(point, Failed); v.Code != CodeRelabelFailed {
		t.Errorf("%+v", v)
	}
	if got := h.labels(filepath.Join(point, "beside")); !slices.Equal(got, []string{""}) {
		t.Errorf("a link was followed: %q", got)
	}
}

// What cannot be had is said once, with the reason, and the volume is as it was.
func TestRefusals(t *testing.T) {
	unknown := relabelRule("unknown")
	unknown.Context = "system_u:object_r:no_such_t:s0"
	context := judge.Rule{Name: "context", Match: judge.Match{Mountpoint: "context"}, Strategy: judge.Context}
	busy := judge.Rule{Name: "busy", Match: judge.Match{Mountpoint: "busy"}, Strategy: judge.Auto}
	denied := context
	denied.Name, denied.Match.Mountpoint, denied.Context = "denied", "denied", "system_u:system_r:kernel_t:s0"
	tied := relabelRule("tied")
	tied2 := tied
	tied2.Name = "tied-2"
	h := newHost(t, unknown, context, denied, busy, tied, tied2)
	h.start()
	points := map[string]string{}
	for _, name := range []string{"unknown", "context", "denied", "tied", "nobody's", "busy"} {
		points[name] = h.mount(name)
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		state State
		code  judge.Code
	}{
		"unknown": {Refused, CodeUnknownContext},
		"context": {Failed, CodeRemountFailed}, // this kernel does not know the option
		"denied":  {Refused, CodeDenied},
		"tied":    {Refused, judge.CodeTie},
	} {
		v := h.eventually(points[name], want.state)
		if v.Code != want.code || v.Reason == "" || v.Remedy == "" {
			t.Errorf("%s: %+v", name, v)
		}
		if got := h.labels(points[name]); !slices.Equal(got, []string{""}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	// The option cannot be had, the files can be labelled.
	h.eventually(points["busy"], Labelled)
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || string(before) != string(after) {
		t.Errorf("%v\n%s\nbefore\n%s", err, after, before)
	}
	h.kinds()
	h.halt()
	h.start()
	h.eventually(points["context"], Failed)
	if got := h.kinds(); got != "" {
		t.Errorf("said again after a new start: %s", got)
	}
}

// Whoever needs a volume can wait for its label, and hears of a refusal at once.
func TestWait(t *testing.T) {
	bad := relabelRule("bad")
	bad.Context = "system_u:object_r:no_such_t:s0"
	h := newHost(t, relabelRule("data"), bad)
	h.start()
	if _, done, err := settled(LoadRecord(h.root).Volumes, "data"); done || err != nil {
		t.Error(done, err)
	}
	changes, err := h.root.WatchDir(t.Context(), "/none")
	if err == nil {
		t.Error("a directory that is not there is watched", changes)
	}
	if err := h.root.MkdirAll(RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	changes, err = h.root.WatchDir(t.Context(), RunDir)
	if err != nil {
		t.Fatal(err)
	}
	h.mount("data")
	for deadline := time.After(20 * time.Second); ; {
		volumes, done, err := settled(LoadRecord(h.root).Volumes, "data")
		if err != nil {
			t.Fatal(err)
		}
		if done {
			if len(volumes) != 1 || volumes[0].Context != shared {
				t.Errorf("%+v", volumes)
			}
			break
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatal("nobody told")
		}
	}
	h.eventually(h.mount("bad"), Refused)
	if _, _, err := settled(LoadRecord(h.root).Volumes, "bad"); err == nil || !strings.Contains(err.Error(), "the policy in the kernel does not know") {
		t.Error(err)
	}
	if _, err := Wait(t.Context(), h.root, judge.Host{}, h.config, "dta"); err == nil || err.Error() != `cannot wait for volume "dta": there is no such rule: the rules are data, bad` {
		t.Error(err)
	}
	if _, err := Wait(t.Context(), h.root, judge.Host{}, Config{}, "data"); err == nil || err.Error() != `cannot wait for volume "data": there is no such rule: none is declared` {
		t.Error(err)
	}
}

// Damaged records are no records.
func TestDamagedRecord(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	for _, content := range []string{"", "{", `{"version": 2, "done": [{}]}`, "null", `{"version": 1, "volumes": 3}`} {
		for _, file := range []string{doneFile, mountsFile} {
			if err := h.root.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := h.root.WriteFile(file, []byte(content), hostfs.Attributes{}); err != nil {
				t.Fatal(err)
			}
		}
		if r := LoadRecord(h.root); len(r.Volumes)+len(r.Done) != 0 {
			t.Errorf("%q: %+v", content, r)
		}
	}
	point := h.mount("data")
	h.start()
	h.eventually(point, Labelled)
	if err := os.Mkdir(h.root.Path("/x"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Two watchers would mount the same volumes again.
func TestOneWatcher(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	h.start()
	_, err := h.root.Lock(t.Context(), hostfs.Lock{File: lockFile})
	var locked *hostfs.LockedError
	if !errors.As(err, &locked) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := &Watcher{Root: h.root, Waiting: func(string) { cancel() }}
	if _, err := second.alone(ctx); err == nil || !strings.HasPrefix(err.Error(), "cannot watch beside another watcher") || strings.Contains(err.Error(), "context") {
		t.Errorf("a second one that is interrupted: %v", err)
	}
	h.halt()
	unlock, err := h.root.Lock(t.Context(), hostfs.Lock{File: lockFile})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// flood is a source that shows one mount more at each look, without end of the work before it.
type flood struct {
	count int
	bare  int // so many of the first have no label
	all   []*mounts.Mount
	table *mounts.Table
}

func (f *flood) Next(ctx context.Context) (mounts.Change, error) {
	if len(f.all) == f.count {
		<-ctx.Done()
		return mounts.Change{}, ctx.Err()
	}
	id := len(f.all) + 100
	m := &mounts.Mount{ID: id, Unique: uint64(id), Parent: 1, Device: mounts.Device{Major: 0, Minor: uint32(id)}, Root: "/",
		Mountpoint: fmt.Sprintf("/srv/%d", id), FSType: "tmpfs", Options: "rw", SuperOptions: "rw,context=" + shared}
	if len(f.all) < f.bare {
		m.FSType, m.SuperOptions = "vfat", "rw"
	}
	f.all = append(f.all, m)
	f.table = mounts.NewTable(slices.Clone(f.all))
	return mounts.Change{Appeared: []*mounts.Mount{m}}, nil
}

func (f *flood) Table() *mounts.Table { return f.table }

// Thousands of volumes, each of which is news, are not written down thousands of times; and nothing is left out at the end.
//
// Proves V17.
func TestEverythingIsWrittenDown(t *testing.T) {
	for _, rests := range []bool{true, false} {
		t.Run(fmt.Sprintf("stopped at rest %t", rests), func(t *testing.T) { everythingIsWrittenDown(t, rests) })
	}
}

// everythingIsWrittenDown stops the watcher at rest, or in the middle of the flood, when what is to be written has been put off.
func everythingIsWrittenDown(t *testing.T, rests bool) {
	t.Helper()
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const count = 2000
	seen, rested := make(chan struct{}, count), make(chan struct{}, count)
	w := &Watcher{Root: root, Host: judge.Host{SELinux: true, DefaultContext: shared}, Policy: policy{}, Source: &flood{count: count},
		Load: func() (Config, error) {
			return Config{Rules: []judge.Rule{{Name: "all", Match: judge.Match{Mountpoint: "/srv/*"}}}}, nil
		},
		Report: func(e Event) {
			if e.Kind == VolumeLabelled {
				seen <- struct{}{}
			}
		},
		Rest: func() { rested <- struct{}{} },
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, nil) }()
	for range count {
		<-seen
	}
	if rests {
		<-rested // the flood is written down at least once before its end is
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if all := LoadRecord(root).Volumes; len(all) != count || slices.ContainsFunc(all, func(v Volume) bool { return v.State != Labelled }) {
		t.Errorf("%d volumes are written down, want %d", len(all), count)
	}
}

// Thousands of directories of one file system that come one after the other are judged once each, not anew with each that comes. What is done is told by
// what is allocated.
func TestManyOfOneFileSystem(t *testing.T) {
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	effort := func(n int) uint64 {
		w := &Watcher{Root: root, Host: judge.Host{SELinux: true, DefaultContext: shared}, Policy: policy{}, Report: func(Event) {},
			Load: func() (Config, error) {
				return Config{Rules: []judge.Rule{{Name: "disks", Match: judge.Match{Mountpoint: "/mnt/disks/**"}, Strategy: judge.Auto}}}, nil
			}}
		if err := w.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.asking.begin()
		all := make([]*mounts.Mount, n)
		for i := range all {
			all[i] = &mounts.Mount{ID: i + 100, Unique: uint64(i + 100), Parent: 1, Device: mounts.Device{Major: 4095, Minor: 77}, Root: fmt.Sprintf("/%d", i),
				Mountpoint: fmt.Sprintf("/mnt/disks/%d", i), FSType: "ext4", Options: "rw", SuperOptions: "rw"}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i, m := range all {
			w.table = mounts.NewTable(all[:i+1])
			w.changed(t.Context(), mounts.Change{Appeared: []*mounts.Mount{m}})
		}
		runtime.ReadMemStats(&after)
		if len(w.volumes) != n {
			t.Fatalf("%d volumes", len(w.volumes))
		}
		return after.Mallocs - before.Mallocs
	}
	if few, many := effort(100), effort(1000); many > 15*few {
		t.Errorf("%d for 1000, %d for 100", many, few)
	}
}

// The watcher rests after many mounts also where a delay ended before it was ready: it is put off, and not left out.
func TestRestAfterReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, err := hostfs.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		rested, begin := []time.Duration{}, time.Now()
		w := &Watcher{Root: root, Host: judge.Host{SELinux: true, DefaultContext: shared}, Policy: policy{}, Source: &flood{count: restAfter, bare: 1},
			Load: func() (Config, error) {
				return Config{Rules: []judge.Rule{{Name: "all", Match: judge.Match{Mountpoint: "/srv/100"}}}}, nil
			},
			Report: func(Event) {},
			Rest:   func() { rested = append(rested, time.Since(begin)) },
		}
		w.remounts.do = func(context.Context, *volume) (bool, error) {
			time.Sleep(restDelay * 3 / 2)
			return true, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx, nil) }()
		time.Sleep(10 * restDelay)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(rested, []time.Duration{2 * restDelay}) {
			t.Errorf("it rested after %v, want once after %s", rested, 2*restDelay)
		}
	})
}

// Volumes that are on no disk do not wait for each other, and still not all of them are labelled at once.
//
// Proves V17.
func TestLabelledAtOnce(t *testing.T) {
	h := newHost(t, relabelRule("*"))
	const count = 3 * maxRelabels
	var points []string
	for i := range count {
		point := filepath.Join(h.dir, fmt.Sprint("v", i))
		if err := os.Mkdir(point, 0o755); err != nil {
			t.Fatal(err)
		}
		h.run("mount", "-t", "tmpfs", "none", point)
		h.fill(point, 5)
		points = append(points, point)
	}
	h.start()
	for _, p := range points {
		h.eventually(p, Labelled)
	}
	now, most := 0, 0
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		switch e.Kind {
		case RelabelStarted:
			now++
		case RelabelDone:
			now--
		}
		most = max(most, now)
	}
	if most != maxRelabels {
		t.Errorf("%d were labelled at once, want %d", most, maxRelabels)
	}
}

// What a rule names and the watcher leaves alone is shown with the reason. It keeps nobody waiting.
//
// Proves V11.
func TestLookAtWhatIsLeftAlone(t *testing.T) {
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	at := func(id int, point, fstype string) *mounts.Mount {
		return &mounts.Mount{ID: id, Unique: uint64(id), Parent: 1, Device: mounts.Device{Minor: uint32(id)}, Root: "/", Mountpoint: point, FSType: fstype,
			Options: "rw", SuperOptions: "rw,context=" + shared}
	}
	hidden, cover := at(10, "/srv/data", "ext4"), at(11, "/srv/data", "xfs")
	cover.Parent = hidden.ID
	table := mounts.NewTable([]*mounts.Mount{at(2, "/var/lib/docker/overlay2/x/merged", "overlay"), at(3, "/run/user/0", "tmpfs"),
		at(4, "/var/lib/kubelet/pods/x/y", "tmpfs"), hidden, cover})
	config := Config{Rules: []judge.Rule{{Name: "docker", Match: judge.Match{Mountpoint: "/var/lib/docker/overlay2/x/merged"}},
		{Name: "memory", Match: judge.Match{FSType: "tmpfs"}}, {Name: "data", Match: judge.Match{Mountpoint: "/srv/data"}}}}
	all, err := lookAt(t.Context(), root, judge.Host{SELinux: true, DefaultContext: shared}, config, table)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, fmt.Sprint(v.Rule, " ", v.Mountpoint, " ", v.State, " ", v.Code))
		if v.State == LeftAlone && v.Reason == "" {
			t.Errorf("nobody knows why: %+v", v)
		}
	}
	want := []string{"docker /var/lib/docker/overlay2/x/merged left alone docker", "memory /run/user/0 left alone system",
		"memory /var/lib/kubelet/pods/x/y left alone kubelet", "data /srv/data left alone covered", "data /srv/data labelled "}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if volumes, done, err := settled(all, "data"); !done || err != nil || len(volumes) != 1 {
		t.Error(volumes, done, err)
	}
	if _, done, _ := settled(all, "docker"); done {
		t.Error("what is left alone has no label of ours")
	}
}

// What is in a directory that a runtime was told to use is left alone, also if nothing else tells whose it is.
//
// Proves V11.
func TestLookAtWhatARuntimeWasToldToUse(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/docker/daemon.json"), []byte(`{"data-root": "/data/big"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	at := func(id int, point string) *mounts.Mount {
		return &mounts.Mount{ID: id, Unique: uint64(id), Parent: 1, Device: mounts.Device{Minor: uint32(id)}, Root: "/", Mountpoint: point, FSType: "vfat", Options: "rw", SuperOptions: "rw"}
	}
	config := Config{Rules: []judge.Rule{{Name: "data", Match: judge.Match{Mountpoint: "/data/**"}, Strategy: judge.Auto}}}
	all, err := lookAt(t.Context(), root, judge.Host{SELinux: true, DefaultContext: shared}, config, mounts.NewTable([]*mounts.Mount{at(2, "/data/big/x"), at(3, "/data/other")}))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	if v := all[0]; v.State != LeftAlone || v.Code != judge.CodeDocker {
		t.Errorf("%+v", v)
	}
	if v := all[1]; v.State != Pending {
		t.Errorf("%+v", v)
	}
}

// Two rules that want two labels for one file system are both refused, also where one of them knows it by its UUID, and the other mount shows
// no labels of files.
//
// Proves V11.
func TestTwoLabelsByName(t *testing.T) {
	h := newHost(t)
	device, _ := h.device("image")
	uuid, err := exec.Command("blkid", "-s", "UUID", "-o", "value", device).Output()
	if err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(h.dir, "a"), filepath.Join(h.dir, "b")
	for _, point := range []string{a, b} {
		if err := os.Mkdir(point, 0o755); err != nil {
			t.Fatal(err)
		}
		h.run("mount", device, point)
	}
	source, err := mounts.Open(true)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := source.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := lookAt(t.Context(), h.root, judge.Host{SELinux: true, DefaultContext: shared}, Config{Rules: []judge.Rule{
		{Name: "a", Match: judge.Match{Mountpoint: a}, Strategy: judge.Auto},
		{Name: "b", Match: judge.Match{Mountpoint: b, UUID: strings.TrimSpace(string(uuid))}, Context: private, Strategy: judge.Auto},
	}}, source.Table())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, v := range all {
		if v.Code != judge.CodeTwoLabels || !strings.Contains(v.Reason, `the rule "a"`) || !strings.Contains(v.Reason, `the rule "b"`) {
			t.Errorf("%+v", v)
		}
	}
}

// contextRule is for a volume that is to be mounted again.
func contextRule(name string) judge.Rule {
	return judge.Rule{Name: name, Match: judge.Match{Mountpoint: name}, Strategy: judge.Context}
}

// anew unmounts a volume and mounts it without any context.
func (h *host) anew(point, image string) {
	h.t.Helper()
	h.run("umount", point)
	h.mountImage(image, point)
}

// A remount that succeeds and does not give the label counts as a try, and is not made again: not for any other news, nor by the next
// watcher. Only a reload asks for another one.
func TestRemountWithoutEffect(t *testing.T) {
	h := newHost(t, contextRule("data"))
	point := h.mount("data")
	image := strings.TrimSpace(h.output("losetup", "--noheadings", "--output", "BACK-FILE", h.output("findmnt", "--noheadings", "--output", "SOURCE", point)))
	var tries atomic.Int32
	h.remount = func(context.Context, *volume) (bool, error) {
		tries.Add(1)
		h.anew(point, image)
		return true, nil
	}
	h.start()
	v := h.eventually(point, Failed)
	if want := `it was mounted again with the option context="` + shared + `", and the mount table shows no option context= there`; v.Reason != want || v.Code != CodeRemountFailed {
		t.Errorf("%s %s\nwant %s", v.Code, v.Reason, want)
	}
	h.mount("other") // another look at the table
	h.reload <- struct{}{}
	remounted := 0
	for range 500 {
		if remounted += strings.Count(h.kinds(), string(Remounted)); remounted == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.halt()
	h.start()
	h.mount("third")
	time.Sleep(200 * time.Millisecond)
	h.eventually(point, Failed)
	if got := tries.Load(); remounted != 2 || got != 2 {
		t.Errorf("%d tries for a start and a reload, %d told of", got, remounted)
	}
}

// Somebody who mounts a volume anew, whenever it got its label, cannot make the watcher go on without end.
func TestRemountAgainstSomebody(t *testing.T) {
	h := newHost(t, contextRule("data"))
	point := h.mount("data")
	image := strings.TrimSpace(h.output("losetup", "--noheadings", "--output", "BACK-FILE", h.output("findmnt", "--noheadings", "--output", "SOURCE", point)))
	var tries atomic.Int32
	h.remount = func(context.Context, *volume) (bool, error) {
		tries.Add(1)
		h.anew(point, image)
		return true, nil
	}
	h.start()
	for range maxRemounts + 3 {
		before := h.eventually(point, Failed)
		h.anew(point, image)
		for range 300 { // the new one has its verdict
			if v := h.eventually(point, Failed); v.MountID != before.MountID {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	v := h.eventually(point, Failed)
	if got := tries.Load(); got > maxRemounts || v.MountID != 0 && (got != maxRemounts || !strings.Contains(v.Reason, "10 times within 10 minutes")) {
		t.Errorf("%d tries; %s", got, v.Reason)
	}
}

func TestTooOften(t *testing.T) {
	start := time.Now()
	var r remounts
	r.begun = map[string][]time.Time{"/full": nil, "/old": {start.Add(-time.Hour)}}
	for i := range maxRemounts {
		if r.often("/full", start) {
			t.Errorf("after %d", i)
		}
		r.begun["/full"] = append(r.begun["/full"], start.Add(time.Duration(i)*time.Second))
	}
	if !r.often("/full", start.Add(remountWindow)) || r.often("/full", start.Add(remountWindow+time.Second)) {
		t.Error("a try counts for as long as the window is")
	}
	if r.often("/old", start) || len(r.begun) != 1 {
		t.Errorf("what is over is kept: %v", r.begun)
	}
}

// hosts is a label that no container's runtime gives.
const hosts = "system_u:object_r:etc_t:s0"

// Files that were labelled and do not have the label are not labelled again and again.
func TestRelabelWithoutEffect(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	point := h.mount("data")
	h.fill(point, 10)
	var tries atomic.Int32
	h.heard = func(e Event) {
		switch e.Kind {
		case RelabelStarted:
			tries.Add(1)
		case RelabelDone: // between the label and the look at it
			if err := unix.Setxattr(point, "security.selinux", []byte(hosts+"\x00"), 0); err != nil {
				t.Error(err)
			}
		}
	}
	h.start()
	v := h.eventually(point, Failed)
	if want := "every file was given the label " + shared + ", and " + point + " has " + hosts; v.Code != CodeRelabelFailed || v.Reason != want {
		t.Errorf("%s %s\nwant %s", v.Code, v.Reason, want)
	}
	h.mount("other")
	time.Sleep(200 * time.Millisecond)
	if got := tries.Load(); got != 1 {
		t.Errorf("labelled %d times", got)
	}
}

// What a container's runtime has labelled for its container stays so, at a reload, at the next start and when it is mounted again, and is not taken
// for the declared label.
//
// Proves P5.
func TestTakenOver(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	point := h.mount("data")
	h.fill(point, 10)
	h.start()
	h.eventually(point, Labelled)
	h.kinds()
	relabel := func(label string) {
		t.Helper()
		h.run("setfattr", "-h", "-n", "security.selinux", "-v", label, point, point+"/d00", point+"/d00/f0")
	}
	for _, label := range []string{private, strings.Replace(private, "c10,c20", "c1,c2", 1)} {
		relabel(label)
		h.reload <- struct{}{}
		v := h.eventually(point, TakenOver)
		for v.Found != label {
			v = h.eventually(point, TakenOver)
		}
		if v.Code != judge.CodeTakenOver || !strings.Contains(v.Remedy, "private: true") {
			t.Errorf("%+v", v)
		}
		all, err := lookAt(t.Context(), h.root, judge.Host{SELinux: true, DefaultContext: shared}, h.config, mounts.NewTable(h.source.pick(mounted(t))))
		if err != nil || len(all) != 1 || all[0].State != TakenOver || all[0].Found != label {
			t.Errorf("a look gives %+v, %v", all, err)
		}
		if _, done, err := settled(all, "data"); !done || err != nil {
			t.Errorf("what waits for it waits: %v", err)
		}
	}
	h.halt()
	h.start()
	h.eventually(point, TakenOver)
	if got := h.labels(point); !slices.Contains(got, shared) || len(got) != 2 {
		t.Errorf("labels: %q", got)
	}
	if got := h.kinds(); strings.Contains(got, "relabel-started") || strings.Count(got, "taken-over") != 2 {
		t.Errorf("said: %s", got)
	}

	// It is right where the rule leaves the level to the container.
	rule := relabelRule("data")
	rule.Private = true
	h.rules(rule)
	h.reload <- struct{}{}
	if v := h.eventually(point, Labelled); v.Found == "" || v.How != byFiles || v.Shared {
		t.Errorf("%+v", v)
	}
	h.rules(relabelRule("data"))
	h.reload <- struct{}{}
	h.eventually(point, TakenOver)

	// Taken back by hand, it is the declared volume again; and what is no container's label is put right.
	relabel(shared)
	h.reload <- struct{}{}
	h.eventually(point, Labelled)
	h.kinds()
	relabel(hosts)
	h.reload <- struct{}{}
	for !slices.Equal(h.labels(point), []string{shared}) {
		time.Sleep(10 * time.Millisecond)
	}
}

// A volume that nobody has labelled yet, and that a running container has as its own, is not taken from it. Once the container is gone it is.
func TestTakenByWhatRuns(t *testing.T) {
	for _, c := range []struct {
		name string
		runs string
		want State
	}{{"a container at its level", "s0:c10,c20", TakenOver}, {"another container", "s0:c10", Labelled}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, relabelRule("data"))
			h.config.Running = func() map[string]string { return map[string]string{c.runs: "container web"} }
			point := h.mount("data")
			h.run("setfattr", "-n", "security.selinux", "-v", private, point)
			h.start()
			v := h.eventually(point, c.want)
			if c.want == TakenOver && !strings.Contains(v.Reason, "that of container web, which runs") {
				t.Errorf("%+v", v)
			}
		})
	}
}

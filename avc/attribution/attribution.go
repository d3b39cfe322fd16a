// Package attribution tells whose a denial is: which container, pod and image, or which unit of systemd.
//
// It knows containers from what their runtimes keep on disk (Docker, containerd with and without Kubernetes, CRI-O, podman, and the names that kubelet gives
// logs), and finds the one of a denial in this order: by the cgroup that came with the record; by the categories of the process,
// which a runtime gives to one container only, and which tell even of a process that has ended; by the cgroup of the process,
// if a process of that number with that very label lives. What it reads of containers is theirs to write in part (names, labels):
// it is shown and never followed.
//
// A container that is gone is known from a record, if somebody looked while it lived (Remember).
//
// Do not use it to decide anything: the categories of a container that nobody saw can be another's later.
package attribution

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Mount is a directory of the host in a container.
type Mount struct{ Source, Destination string }

// Container is what a runtime says of one.
type Container struct {
	Subject avc.Subject
	Label   string // of its processes
	Mounts  []Mount
	// Several says that this is a pod of which nobody knows which of its containers is meant: it has the mounts of all of them.
	Several bool

	sandbox bool   // the container that holds a pod together, in which nothing of the workload runs
	cgroup  string // as the runtime was told it, "" if that does not name one by itself
	uid     string // of the pod
	life    span
	gone    bool // it is remembered, and its runtime says nothing of it
}

// span is the time in which a container lived. What is zero is not known.
type span struct{ from, to time.Time }

// covers tells whether a denial of this time can be the container's.
func (s span) covers(t time.Time) bool {
	const slack = 2 * time.Second // the clock of a record and that of a runtime's file
	return t.IsZero() || (s.from.IsZero() || !t.Before(s.from.Add(-slack))) && (s.to.IsZero() || !t.After(s.to.Add(slack)))
}

// Host knows the containers of one host. It is not for several goroutines.
type Host struct {
	root       *hostfs.Root
	boot       time.Time // when the kernel started; zero for a tree that is not running
	containers map[string]*Container
	pods       map[string]*Container
	byLevel    map[string][]*Container
	byCgroup   map[string]*Container // those whose cgroup does not name an ID
	processes  map[process]avc.Subject
	cgroups    map[string]avc.Subject
}

type process struct {
	pid     int
	context avc.Context
}

// maxCached bounds each cache of answers; beyond it, it begins anew.
const maxCached = 1 << 13

// New reads what the runtimes beneath root say. A runtime that is not there, or whose files cannot be read, has no containers.
func New(root *hostfs.Root) *Host {
	h := &Host{
		root: root, containers: map[string]*Container{}, pods: map[string]*Container{}, byLevel: map[string][]*Container{}, byCgroup: map[string]*Container{},
		processes: map[process]avc.Subject{}, cgroups: map[string]avc.Subject{},
	}
	if root.IsHost() {
		h.boot = Booted(root)
	}
	h.docker()
	for _, c := range containerds() {
		h.bundles(c)
	}
	h.storage("/run/containers/storage/overlay-containers")
	h.storage("/var/lib/containers/storage/overlay-containers")
	h.kubelet()
	h.static()
	h.recall()
	h.index()
	return h
}

// Containers gives how many are known.
func (h *Host) Containers() int { return len(h.containers) }

// Container gives what is known of the container of a subject, or of its pod, nil if nothing is.
func (h *Host) Container(s avc.Subject) *Container {
	if s.ID == "" && s.Pod != "" {
		return h.pods[s.Pod]
	}
	return h.containers[s.ID]
}

// Booted gives the time at which the kernel started, zero for a tree that is not the running host.
func (h *Host) Booted() time.Time { return h.boot }

// Subject tells whose a denial is.
func (h *Host) Subject(d *avc.Denial) avc.Subject {
	if d.Cgroup != "" && d.PID != 0 {
		if s := h.ofCgroup(d.Cgroup, "the cgroup in the record"); s != (avc.Subject{}) {
			return s
		}
	}
	s := h.ofLevel(d)
	if s.Container == "" { // not even, or no more than, the pod
		s = cmp.Or(h.ofProcess(d), s)
	}
	return cmp.Or(s, avc.Subject{Unit: d.Unit})
}

func remember[K comparable](cache map[K]avc.Subject, key K, s avc.Subject) {
	if len(cache) >= maxCached {
		clear(cache)
	}
	cache[key] = s
}

// ofProcess asks /proc, and believes it only if the process is older than the denial and has the label of the denial.
func (h *Host) ofProcess(d *avc.Denial) avc.Subject {
	if d.PID == 0 || h.boot.IsZero() || d.Time.Before(h.boot) {
		return avc.Subject{}
	}
	key := process{d.PID, d.Source}
	if s, known := h.processes[key]; known {
		return s
	}
	key.context = avc.Context(strings.Clone(string(key.context)))
	s := h.living(d)
	remember(h.processes, key, s)
	return s
}

func (h *Host) living(d *avc.Denial) avc.Subject {
	dir := "/proc/" + strconv.Itoa(d.PID) + "/"
	label, err := h.root.ReadFile(dir + "attr/current")
	if err != nil || strings.TrimRight(string(label), "\x00\n") != string(d.Source) {
		return avc.Subject{}
	}
	stat, err := h.root.ReadFile(dir + "stat")
	if err != nil {
		return avc.Subject{}
	}
	if started, ok := startTime(string(stat)); !ok || h.boot.Add(started).After(d.Time.Add(time.Second)) {
		return avc.Subject{}
	}
	cgroup, err := h.root.ReadFile(dir + "cgroup")
	if err != nil {
		return avc.Subject{}
	}
	return h.ofCgroup(unified(string(cgroup)), "the cgroup of the process, which still runs")
}

// startTime reads the start of a process since boot from /proc/PID/stat, field 22, in hundredths of a second; the name before it is
// in parentheses and may have some of its own.
func startTime(stat string) (time.Duration, bool) {
	at := strings.LastIndexByte(stat, ')')
	if at < 0 {
		return 0, false
	}
	fields := strings.Fields(stat[at+1:])
	if len(fields) < 20 {
		return 0, false
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	return time.Duration(ticks) * 10 * time.Millisecond, err == nil
}

// unified gives the path of /proc/PID/cgroup in the unified hierarchy, else in systemd's own.
func unified(text string) string {
	var named string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[2] != "/" {
			return parts[2]
		}
		if parts[1] == "name=systemd" {
			named = parts[2]
		}
	}
	return named
}

// ofCgroup finds a container or a unit in the path of a cgroup.
func (h *Host) ofCgroup(cgroup, evidence string) avc.Subject {
	s, known := h.cgroups[cgroup]
	if !known {
		id, runtime, unit := ParseCgroup(cgroup)
		c := cmp.Or(h.named(cgroup), h.containers[id])
		switch {
		case c != nil:
			s = c.Subject
		case id != "":
			s = avc.Subject{ID: id, Runtime: runtime}
		default:
			s = avc.Subject{Unit: unit}
		}
		remember(h.cgroups, strings.Clone(cgroup), s)
	}
	if s != (avc.Subject{}) {
		s.Evidence = evidence
	}
	return s
}

// ParseCgroup finds the ID of a container, its runtime as far as the path tells it, and the unit in the path of a cgroup. The forms:
//
//	/system.slice/docker-ID.scope                       Docker, systemd's driver
//	/docker/ID                                          Docker, cgroupfs
//	/kubepods.slice/.../cri-containerd-ID.scope         containerd
//	/kubepods/burstable/podUID/ID                       any, cgroupfs
//	/system.slice/kubepods-podUID.slice:cri-containerd:ID   containerd, which was told to use cgroupfs where kubelet uses systemd
//	/system.slice/nerdctl-ID.scope                      containerd without Kubernetes
//	/kubepods.slice/.../crio-ID.scope                   CRI-O
//	/machine.slice/libpod-ID.scope/container            podman
//	/system.slice/NAME.service/libpod-payload-ID        podman with --cgroups=split, as Quadlet starts it
//
// Of several IDs the first counts. What stands behind it is in the container, and named by what runs there: a container of its
// own, or one that passes itself off as another.
func ParseCgroup(cgroup string) (id, runtime, unit string) {
	for part := range strings.SplitSeq(cgroup, "/") {
		name := strings.TrimSuffix(part, ".scope")
		if id != "" {
			break
		}
		if _, rest, found := strings.Cut(name, ":cri-containerd:"); found {
			name = "cri-containerd-" + rest
		}
		for _, form := range []struct{ prefix, runtime string }{
			{"docker-", "docker"}, {"cri-containerd-", "containerd"}, {"nerdctl-", "containerd"}, {"crio-conmon-", ""}, {"crio-", "cri-o"}, {"libpod-conmon-", ""}, {"libpod-payload-", "podman"}, {"libpod-", "podman"}, {"", ""},
		} {
			rest, ok := strings.CutPrefix(name, form.prefix)
			if !ok || !isID(rest) {
				continue
			}
			if strings.HasSuffix(form.prefix, "conmon-") {
				break // the container's monitor runs on the host
			}
			id, runtime = rest, form.runtime
			break
		}
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			unit = part
		}
	}
	if id != "" && runtime == "" && strings.HasPrefix(cgroup, "/docker/") {
		runtime = "docker"
	}
	return strings.Clone(id), runtime, strings.Clone(unit)
}

// isID tells whether this is what every runtime makes of SHA-256 or randomness: 64 digits.
func isID(text string) bool {
	return len(text) == 64 && isHex(text)
}

func isHex(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

// HostPath gives the path on the host of a path that a container sees, if it is in a mount of the host's.
func (c *Container) HostPath(inside string) (string, bool) {
	var best *Mount
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if below(inside, m.Destination) && (best == nil || len(m.Destination) > len(best.Destination)) {
			best = m
		}
	}
	if best == nil || !path.IsAbs(best.Source) {
		return "", false
	}
	rest := strings.TrimPrefix(path.Clean(inside), path.Clean(best.Destination))
	return path.Join(best.Source, rest), true
}

// sortMounts orders them by where the container sees them. sort.Slice is enough: slices.SortFunc costs 30 kB of the program for each type.
func (c *Container) sortMounts() {
	sort.Slice(c.Mounts, func(i, j int) bool { return c.Mounts[i].Destination < c.Mounts[j].Destination })
}

func below(name, dir string) bool {
	name, dir = path.Clean(name), path.Clean(dir)
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// add enters a container, unless one that knows more is there.
func (h *Host) add(c *Container) {
	if c.Subject.ID == "" {
		return
	}
	if have := h.containers[c.Subject.ID]; have != nil && have.Subject.Name() != (avc.Subject{ID: have.Subject.ID}).Name() {
		if have.Label == "" {
			have.Label, have.Mounts = c.Label, c.Mounts
		}
		return
	}
	h.containers[c.Subject.ID] = c
}

// read decodes a JSON file of at most hostfs.MaxFile.
func (h *Host) read(name string, into any) bool {
	content, err := h.root.ReadFile(name)
	return err == nil && json.Unmarshal(content, into) == nil
}

func list(root *hostfs.Root, dir string) (names []string) {
	entries, err := root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Booted gives the time at which the kernel started, btime of /proc/stat in seconds; zero if nobody says.
func Booted(root *hostfs.Root) time.Time {
	content, err := root.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "btime "); ok {
			if seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return time.Unix(seconds, 0)
			}
		}
	}
	return time.Time{}
}

// Package attribution tells whose a denial is: which container, pod and image, or which unit of systemd.
//
// It knows containers from what their runtimes keep on disk (Docker, containerd's CRI, CRI-O, podman, and the names that kubelet gives
// logs), and finds the one of a denial in this order: by the cgroup that came with the record; by the categories of the process,
// which a runtime gives to one container only, and which tell even of a process that has ended; by the cgroup of the process,
// if a process of that number with that very label lives. What it reads of containers is theirs to write in part (names, labels):
// it is shown and never followed.
//
// Do not use it to decide anything: a container that was removed is not found, and its categories can be another's later.
package attribution

import (
	"bufio"
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Mount is a directory of the host in a container.
type Mount struct{ Source, Destination string }

// Container is what a runtime says of one.
type Container struct {
	Subject avc.Subject
	Label   string // of its processes
	Mounts  []Mount
	PID     int // of its first process, 0 if it does not run
}

// Host knows the containers of one host. It is not for several goroutines.
type Host struct {
	root       *hostfs.Root
	boot       time.Time // when the kernel started; zero for a tree that is not running
	containers map[string]*Container
	byLevel    map[string]*Container // nil where two containers have the same
	processes  map[process]avc.Subject
	levels     map[string]avc.Subject
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
		root: root, containers: map[string]*Container{}, byLevel: map[string]*Container{},
		processes: map[process]avc.Subject{}, levels: map[string]avc.Subject{}, cgroups: map[string]avc.Subject{},
	}
	if root.IsHost() {
		h.boot = bootTime(root)
	}
	h.docker()
	h.bundles("/run/containerd/io.containerd.runtime.v2.task", "containerd")
	h.storage("/run/containers/storage/overlay-containers")
	h.storage("/var/lib/containers/storage/overlay-containers")
	h.kubelet()
	for _, c := range h.containers {
		level := secontext.Context(c.Label).Tidy().Level() // as the kernel writes it in a record
		if !strings.Contains(level, ":") {
			continue // s0 is everybody's
		}
		if other, taken := h.byLevel[level]; taken && (other == nil || other.Subject.ID != c.Subject.ID) {
			// A pod's containers share their level. The pod is known then, the container is not.
			shared := *c
			if other != nil && other.Subject.Pod != "" && other.Subject.Pod == c.Subject.Pod {
				shared.Subject.Container, shared.Subject.ID, shared.Subject.Image = "", "", ""
				h.byLevel[level] = &shared
				continue
			}
			c = nil
		}
		h.byLevel[level] = c
	}
	return h
}

// Containers gives how many are known.
func (h *Host) Containers() int { return len(h.containers) }

// Container gives what is known of the container of a subject, nil if nothing is.
func (h *Host) Container(s avc.Subject) *Container { return h.containers[s.ID] }

// Booted gives the time at which the kernel started, zero for a tree that is not the running host.
func (h *Host) Booted() time.Time { return h.boot }

// Subject tells whose a denial is.
func (h *Host) Subject(d *avc.Denial) avc.Subject {
	if d.Cgroup != "" && d.PID != 0 {
		if s := h.ofCgroup(d.Cgroup, "the cgroup in the record"); s != (avc.Subject{}) {
			return s
		}
	}
	if s := h.ofLevel(d.Source.Level()); s != (avc.Subject{}) {
		return s
	}
	if s := h.ofProcess(d); s != (avc.Subject{}) {
		return s
	}
	return avc.Subject{Unit: d.Unit}
}

func (h *Host) ofLevel(level string) avc.Subject {
	if !strings.Contains(level, ":") {
		return avc.Subject{}
	}
	if s, known := h.levels[level]; known {
		return s
	}
	var s avc.Subject
	if c := h.byLevel[level]; c != nil {
		s = c.Subject
		s.Evidence = "its categories"
	}
	remember(h.levels, strings.Clone(level), s)
	return s
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
		switch c := h.containers[id]; {
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
			{"docker-", "docker"}, {"cri-containerd-", "containerd"}, {"nerdctl-", "containerd"}, {"crio-conmon-", ""}, {"crio-", "cri-o"}, {"libpod-conmon-", ""}, {"libpod-", "podman"}, {"", ""},
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
	if len(text) != 64 {
		return false
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
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

func below(name, dir string) bool {
	name, dir = path.Clean(name), path.Clean(dir)
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// add enters a container, unless one that knows more is there.
func (h *Host) add(c *Container) {
	if c.Subject.ID == "" {
		return
	}
	if have := h.containers[c.Subject.ID]; have != nil && have.Subject.Container != "" {
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

func (h *Host) list(dir string) (names []string) {
	entries, err := h.root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// docker reads /var/lib/docker/containers/ID/config.v2.json (moby, container/container.go).
func (h *Host) docker() {
	const dir = "/var/lib/docker/containers"
	for _, id := range h.list(dir) {
		var config struct {
			ID, Name, ProcessLabel string
			Config                 struct{ Image string }
			State                  struct {
				Running bool
				Pid     int
			}
			MountPoints map[string]struct{ Source, Destination string }
		}
		if !isID(id) || !h.read(path.Join(dir, id, "config.v2.json"), &config) {
			continue
		}
		c := &Container{
			Subject: avc.Subject{Container: strings.TrimPrefix(config.Name, "/"), ID: id, Image: config.Config.Image, Runtime: "docker"},
			Label:   config.ProcessLabel,
		}
		if config.State.Running {
			c.PID = config.State.Pid
		}
		for _, m := range config.MountPoints {
			c.Mounts = append(c.Mounts, Mount{m.Source, m.Destination})
		}
		slices.SortFunc(c.Mounts, func(a, b Mount) int { return strings.Compare(a.Destination, b.Destination) })
		h.add(c)
	}
}

// spec is what is used of an OCI runtime's config.json.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Process     struct {
		SelinuxLabel string `json:"selinuxLabel"`
	} `json:"process"`
	Mounts []struct {
		Destination string   `json:"destination"`
		Source      string   `json:"source"`
		Type        string   `json:"type"`
		Options     []string `json:"options"`
	} `json:"mounts"`
}

func (s *spec) container(id, runtime string) *Container {
	first := func(keys ...string) string {
		for _, key := range keys {
			if v := s.Annotations[key]; v != "" {
				return v
			}
		}
		return ""
	}
	c := &Container{Label: s.Process.SelinuxLabel, Subject: avc.Subject{
		ID: id, Runtime: runtime,
		Container: first("io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"),
		Image:     first("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"),
	}}
	if pod := first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"); pod != "" {
		c.Subject.Pod = first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace") + "/" + pod
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			c.Mounts = append(c.Mounts, Mount{m.Source, m.Destination})
		}
	}
	return c
}

// bundles reads DIR/NAMESPACE/ID/config.json. Docker's own containers are in the namespace moby.
func (h *Host) bundles(dir, runtime string) {
	for _, namespace := range h.list(dir) {
		for _, id := range h.list(path.Join(dir, namespace)) {
			var s spec
			if !isID(id) || !h.read(path.Join(dir, namespace, id, "config.json"), &s) {
				continue
			}
			name := runtime
			if namespace == "moby" {
				name = "docker"
			}
			h.add(s.container(id, name))
		}
	}
}

// storage reads what containers/storage keeps for podman and CRI-O: DIR/ID/userdata/config.json, and the names in DIR/containers.json.
func (h *Host) storage(dir string) {
	var known []struct {
		ID       string   `json:"id"`
		Names    []string `json:"names"`
		Metadata string   `json:"metadata"`
	}
	h.read(path.Join(dir, "containers.json"), &known)
	for _, id := range h.list(dir) {
		var s spec
		if !isID(id) || !h.read(path.Join(dir, id, "userdata", "config.json"), &s) {
			continue
		}
		runtime := "podman"
		if s.Annotations["io.kubernetes.cri-o.ContainerType"] != "" {
			runtime = "cri-o"
		}
		c := s.container(id, runtime)
		for _, k := range known {
			if k.ID != id {
				continue
			}
			var meta struct {
				Image string `json:"image-name"`
				Name  string `json:"name"`
			}
			_ = json.Unmarshal([]byte(k.Metadata), &meta)
			if c.Subject.Container == "" && len(k.Names) > 0 {
				c.Subject.Container = k.Names[0]
			}
			if c.Subject.Container == "" {
				c.Subject.Container = meta.Name
			}
			if c.Subject.Image == "" {
				c.Subject.Image = meta.Image
			}
		}
		h.add(c)
	}
}

// kubelet reads the names of the links in /var/log/containers, POD_NAMESPACE_CONTAINER-ID.log, which outlive their containers.
func (h *Host) kubelet() {
	for _, name := range h.list("/var/log/containers") {
		parts := strings.Split(strings.TrimSuffix(name, ".log"), "_")
		if len(parts) != 3 || len(parts[2]) < 66 || parts[2][len(parts[2])-65] != '-' || !isID(parts[2][len(parts[2])-64:]) {
			continue
		}
		id := parts[2][len(parts[2])-64:]
		s := avc.Subject{Container: parts[2][:len(parts[2])-65], Pod: parts[1] + "/" + parts[0], ID: id, Runtime: "kubernetes"}
		if have := h.containers[id]; have != nil {
			if have.Subject.Container == "" {
				have.Subject.Container, have.Subject.Pod = s.Container, s.Pod
			}
			continue
		}
		h.containers[id] = &Container{Subject: s}
	}
}

// bootTime reads btime of /proc/stat, in seconds.
func bootTime(root *hostfs.Root) time.Time {
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

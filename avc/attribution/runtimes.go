package attribution

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
)

// What containers that belong to a pod are called, by Kubernetes and those who do as it does.
const (
	podName      = "io.kubernetes.pod.name"
	podNamespace = "io.kubernetes.pod.namespace"
	podUID       = "io.kubernetes.pod.uid"
	podContainer = "io.kubernetes.container.name"
	// noName is what the container that holds a pod together has for a name.
	noName = "POD"
)

// docker reads /var/lib/docker/containers/ID/config.v2.json (moby, container/container.go). Containers of a kubelet have labels that say so
// (cri-dockerd, libdocker and core/labels.go).
func (h *Host) docker() {
	const dir = "/var/lib/docker/containers"
	for _, id := range list(h.root, dir) {
		var config struct {
			ID, Name, ProcessLabel string
			Created                time.Time
			Config                 struct {
				Image  string
				Labels map[string]string
			}
			MountPoints map[string]struct{ Source, Destination string }
		}
		if !isID(id) || !h.read(path.Join(dir, id, "config.v2.json"), &config) {
			continue
		}
		c := &Container{
			Subject: avc.Subject{Container: strings.TrimPrefix(config.Name, "/"), ID: id, Image: config.Config.Image, Runtime: "docker"},
			Label:   config.ProcessLabel, life: span{from: config.Created},
		}
		if labels := config.Config.Labels; labels[podName] != "" {
			c.ofPod(labels[podNamespace], labels[podName], labels[podUID], labels[podContainer], labels["io.kubernetes.docker.type"] == "podsandbox")
		}
		for _, m := range config.MountPoints {
			c.Mounts = append(c.Mounts, Mount{m.Source, m.Destination})
		}
		c.sortMounts()
		h.add(c)
	}
}

// ofPod enters whose a container is in Kubernetes.
func (c *Container) ofPod(namespace, pod, uid, container string, sandbox bool) {
	c.Subject.Pod, c.Subject.Container, c.uid = namespace+"/"+pod, container, uid
	if c.sandbox = sandbox || container == noName; c.sandbox {
		c.Subject.Container = ""
	}
}

// spec is what is used of an OCI runtime's config.json.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Process     struct {
		SelinuxLabel string `json:"selinuxLabel"`
	} `json:"process"`
	Linux struct {
		CgroupsPath string `json:"cgroupsPath"`
	} `json:"linux"`
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
		Container: first("io.kubernetes.cri.container-name", podContainer, "nerdctl/name"),
		Image:     first("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"),
	}}
	// The container that holds a pod of podman's together has no name of Kubernetes.
	kind := first("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
	if pod := first("io.kubernetes.cri.sandbox-name", podName); pod != "" {
		c.ofPod(first("io.kubernetes.cri.sandbox-namespace", podNamespace), pod, first("io.kubernetes.cri.sandbox-uid", podUID), c.Subject.Container, kind == "sandbox")
	}
	c.sandbox = c.sandbox || kind == "sandbox"
	if dir := path.Clean(s.Linux.CgroupsPath); path.IsAbs(dir) && dir != "/" {
		c.cgroup = dir
		// A container of a service of systemd's, as Quadlet starts it.
		if _, _, unit := ParseCgroup(dir); strings.HasSuffix(unit, ".service") {
			c.Subject.Unit = unit
		}
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			c.Mounts = append(c.Mounts, Mount{m.Source, m.Destination})
		}
	}
	return c
}

// containerd is where one keeps what runs, and what it keeps beyond that, also of containers that ended; "" where nothing of that is a pod's.
type containerd struct{ state, root string }

// containerds are that of the host, Docker's own where it has one, and that of K3s and RKE2.
func containerds() []containerd {
	return []containerd{
		{"/run/containerd", "/var/lib/containerd"},
		{"/run/docker/containerd/daemon", ""},
		{"/run/k3s/containerd", "/var/lib/rancher/k3s/agent/containerd"},
		{"/run/k3s/containerd", "/var/lib/rancher/rke2/agent/containerd"},
	}
}

// bundles reads NAMESPACE/ID/config.json. Docker's own containers are in the namespace moby, and what asks by the CRI has its own in k8s.io. Whoever
// asks otherwise chooses the ID (ctr run IMAGE ID), which is the container's name then.
func (h *Host) bundles(from containerd) {
	tasks := from.state + "/io.containerd.runtime.v2.task"
	for _, namespace := range list(h.root, tasks) {
		for _, id := range list(h.root, path.Join(tasks, namespace)) {
			var s spec
			if !h.read(path.Join(tasks, namespace, id, "config.json"), &s) {
				continue
			}
			name := "containerd"
			if namespace == "moby" {
				name = "docker"
			}
			c := s.container(id, name)
			if !isID(id) {
				c.Subject.ID = namespace + "/" + id
				if c.Subject.Container == "" {
					c.Subject.Container = id
				}
			}
			c.life = h.lived(from, id)
			h.add(c)
		}
	}
}

// lived reads what the CRI of containerd writes down of a container (its store/container/status.go).
func (h *Host) lived(from containerd, id string) span {
	var status struct{ CreatedAt, FinishedAt int64 }
	if from.root == "" || !isID(id) || !h.read(path.Join(from.root, "io.containerd.grpc.v1.cri/containers", id, "status"), &status) {
		return span{}
	}
	at := func(nanoseconds int64) time.Time {
		if nanoseconds <= 0 {
			return time.Time{}
		}
		return time.Unix(0, nanoseconds)
	}
	return span{at(status.CreatedAt), at(status.FinishedAt)}
}

// stored is what containers/storage says of a container.
type stored struct {
	ID       string    `json:"id"`
	Names    []string  `json:"names"`
	Metadata string    `json:"metadata"`
	Created  time.Time `json:"created"`
}

// storage reads what containers/storage keeps for podman and CRI-O: DIR/ID/userdata/config.json, and the names in DIR/containers.json, or in
// DIR/volatile-containers.json for those that are removed when they end.
func (h *Host) storage(dir string) {
	known := map[string]stored{}
	for _, name := range []string{"containers.json", "volatile-containers.json"} {
		var all []stored
		h.read(path.Join(dir, name), &all)
		for _, one := range all {
			known[one.ID] = one
		}
	}
	for _, id := range list(h.root, dir) {
		var s spec
		if !isID(id) || !h.read(path.Join(dir, id, "userdata", "config.json"), &s) {
			continue
		}
		runtime := "podman"
		if manager := s.Annotations["io.container.manager"]; manager == "cri-o" || manager == "" && s.Annotations["io.kubernetes.cri-o.ContainerType"] != "" {
			runtime = "cri-o"
		}
		c := s.container(id, runtime)
		if k, is := known[id]; is {
			var meta struct {
				Image string `json:"image-name"`
				Name  string `json:"name"`
			}
			_ = json.Unmarshal([]byte(k.Metadata), &meta)
			if c.Subject.Container == "" && c.Subject.Pod == "" {
				if c.Subject.Container = meta.Name; len(k.Names) > 0 {
					c.Subject.Container = k.Names[0]
				}
			}
			if c.Subject.Image == "" {
				c.Subject.Image = meta.Image
			}
			c.life.from = k.Created
		}
		h.add(c)
	}
}

// kubelet reads the names of the links in /var/log/containers, POD_NAMESPACE_CONTAINER-ID.log, which outlive their containers, and where they lead
// to: /var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log.
func (h *Host) kubelet() {
	const dir = "/var/log/containers"
	for _, name := range list(h.root, dir) {
		parts := strings.Split(strings.TrimSuffix(name, ".log"), "_")
		if len(parts) != 3 || len(parts[2]) < 66 || parts[2][len(parts[2])-65] != '-' || !isID(parts[2][len(parts[2])-64:]) {
			continue
		}
		id := parts[2][len(parts[2])-64:]
		c := &Container{Subject: avc.Subject{ID: id, Runtime: "kubernetes"}}
		c.ofPod(parts[1], parts[0], "", parts[2][:len(parts[2])-65], false)
		if target, err := h.root.Readlink(path.Join(dir, name)); err == nil {
			if ns, pod, uid, ok := logDir(target); ok && ns == parts[1] && pod == parts[0] {
				c.uid = uid
			}
		}
		if have := h.containers[id]; have != nil {
			if have.Subject.Container == "" {
				have.Subject.Container, have.Subject.Pod = c.Subject.Container, c.Subject.Pod
			}
			if have.uid == "" {
				have.uid = c.uid
			}
			continue
		}
		for _, from := range containerds() {
			if life := h.lived(from, id); life != (span{}) {
				c.life, c.Subject.Runtime = life, "containerd"
			}
		}
		h.containers[id] = c
	}
}

// logDir takes /var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log apart.
func logDir(name string) (namespace, pod, uid string, ok bool) {
	parts := strings.Split(path.Base(path.Dir(path.Dir(name))), "_")
	if len(parts) != 3 {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

// static finds the static pods, those from the kubelet's own manifests. The kubelet gives them a digest for a UID, where the API server gives a UUID,
// and adds the node's name to theirs (pkg/kubelet/config/common.go): default/web is default/web-node1.
func (h *Host) static() {
	var nodes []string
	for _, c := range h.containers {
		if !isDigest(c.uid) {
			continue
		}
		if nodes == nil {
			nodes = h.nodes()
		}
		for _, node := range nodes {
			if name, ok := strings.CutSuffix(c.Subject.Pod, "-"+node); ok && !strings.HasSuffix(name, "/") {
				c.Subject.Manifest = name
				break
			}
		}
	}
}

// isDigest tells whether this is an MD5, in hexadecimal.
func isDigest(text string) bool { return len(text) == 32 && isHex(text) }

// nodes gives the names that this node may have in Kubernetes, the likeliest first: what the kubelet was told, and the host's.
func (h *Host) nodes() (names []string) {
	for _, p := range kubelet.Processes(h.root) {
		for _, name := range p.Flag("hostname-override") {
			names = append(names, strings.ToLower(name))
		}
	}
	for _, file := range []string{"/proc/sys/kernel/hostname", "/etc/hostname"} {
		if content, err := h.root.ReadFile(file); err == nil {
			names = append(names, strings.ToLower(strings.TrimSpace(string(content))))
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

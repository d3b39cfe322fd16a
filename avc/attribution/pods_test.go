package attribution

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// bundle is a config.json as containerd's CRI has it. The sandbox has no name of a container and no image.
func bundle(kind, container, pod, uid, typ, level, mount string) string {
	name := ""
	if container != "" {
		name = `"io.kubernetes.cri.container-name":"` + container + `","io.kubernetes.cri.image-name":"localhost/busybox:1",`
	}
	return fmt.Sprintf(`{"ociVersion":"1.1.0","process":{"selinuxLabel":"system_u:system_r:%s:%s"},"linux":{"cgroupsPath":"kubepods-besteffort-pod%s.slice:cri-containerd:x"},
"mounts":[{"destination":"/host","type":"bind","source":"%s","options":["rbind","rprivate","rw"]},{"destination":"/dev/termination-log","type":"bind","source":"/var/lib/kubelet/pods/%s/containers/%s/1","options":["rbind"]}],
"annotations":{%s"io.kubernetes.cri.container-type":"%s","io.kubernetes.cri.sandbox-id":"s","io.kubernetes.cri.sandbox-name":"%s","io.kubernetes.cri.sandbox-namespace":"default","io.kubernetes.cri.sandbox-uid":"%s"}}`,
		typ, level, uid, mount, uid, container, name, kind, pod, uid)
}

const (
	uuid   = "0b1f2c3d-1111-2222-3333-444455556666"
	digest = "0123456789abcdef0123456789abcdef"
)

// Whose a denial is that a container of a pod ran into, by its label and its time alone: the process is gone.
//
// Proves V19: the containers of a pod, beside the one that holds it together.
func TestContainersOfAPod(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
	const state = "var/lib/containerd/io.containerd.grpc.v1.cri/containers/"
	status := func(from, to int64) string {
		return fmt.Sprintf(`{"Version":"v1","Pid":0,"CreatedAt":%d,"StartedAt":%d,"FinishedAt":%d}`, from*1e9, from*1e9, to*1e9)
	}
	sandbox := func(pod, level string) string { return bundle("sandbox", "", pod, uuid, "container_t", level, "/none") }
	container := func(name, pod, typ, level string) string {
		return bundle("container", name, pod, uuid, typ, level, "/srv/"+name)
	}
	for _, c := range []struct {
		name   string
		files  map[string]string
		source string // type:level of the denial
		at     int64
		want   string
	}{
		{"one beside its sandbox", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
		}, "container_t:s0:c1,c2", 100, "container default/web/main"},
		{"a sandbox alone", map[string]string{tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2")}, "container_t:s0:c1,c2", 100, "pod default/web"},
		{"two, and nobody knows which", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			tasks + id("3") + "/config.json": container("side", "web", "container_t", "s0:c1,c2"),
		}, "container_t:s0:c1,c2", 100, "pod default/web"},
		{"two of two types", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			tasks + id("3") + "/config.json": container("reader", "web", "kube_logreader_t", "s0:c1,c2"),
		}, "kube_logreader_t:s0:c1,c2", 100, "container default/web/reader"},
		{"an init container, while it ran", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			state + id("2") + "/status": status(200, 0), state + id("3") + "/status": status(100, 150),
			"var/log/containers/web_default_init-" + id("3") + ".log": "", "var/log/containers/web_default_main-" + id("2") + ".log": "",
		}, "container_t:s0:c1,c2", 120, "container default/web/init"},
		{"after its init container", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			state + id("2") + "/status": status(200, 0), state + id("3") + "/status": status(100, 150),
			"var/log/containers/web_default_init-" + id("3") + ".log": "", "var/log/containers/web_default_main-" + id("2") + ".log": "",
		}, "container_t:s0:c1,c2", 220, "container default/web/main"},
		{"one that was started again", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			"var/log/containers/web_default_main-" + id("0") + ".log": "", "var/log/containers/web_default_main-" + id("2") + ".log": "",
		}, "container_t:s0:c1,c2", 100, "container default/web/main"},
		{"an ephemeral one", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			tasks + id("3") + "/config.json": container("debug", "web", "container_t", "s0:c1,c2"), state + id("2") + "/status": status(200, 0), state + id("3") + "/status": status(300, 0),
		}, "container_t:s0:c1,c2", 250, "container default/web/main"},
		{"two pods of one level", map[string]string{
			tasks + id("1") + "/config.json": sandbox("web", "s0:c1,c2"), tasks + id("2") + "/config.json": container("main", "web", "container_t", "s0:c1,c2"),
			tasks + id("3") + "/config.json": sandbox("db", "s0:c1,c2"), tasks + id("4") + "/config.json": container("main", "db", "container_t", "s0:c1,c2"),
		}, "container_t:s0:c1,c2", 100, ""},
		{"cri-dockerd's", map[string]string{
			"var/lib/docker/containers/" + id("1") + "/config.v2.json": `{"Name":"/k8s_POD_web_default_u_0","ProcessLabel":"` + label + `s0:c1,c2","Config":{"Labels":{"io.kubernetes.container.name":"POD","io.kubernetes.docker.type":"podsandbox","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"default"}}}`,
			"var/lib/docker/containers/" + id("2") + "/config.v2.json": `{"Name":"/k8s_main_web_default_u_0","ProcessLabel":"` + label + `s0:c1,c2","Config":{"Labels":{"io.kubernetes.container.name":"main","io.kubernetes.docker.type":"container","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"default"}}}`,
		}, "container_t:s0:c1,c2", 100, "container default/web/main"},
		{"CRI-O's", map[string]string{
			"run/containers/storage/overlay-containers/" + id("1") + "/userdata/config.json": `{"annotations":{"io.container.manager":"cri-o","io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.container.name":"POD","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"default"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
			"run/containers/storage/overlay-containers/" + id("2") + "/userdata/config.json": `{"annotations":{"io.container.manager":"cri-o","io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.container.name":"main","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"default"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
		}, "container_t:s0:c1,c2", 100, "container default/web/main"},
		{"a pod of podman's", map[string]string{
			"run/containers/storage/overlay-containers/" + id("1") + "/userdata/config.json":  `{"annotations":{"io.container.manager":"libpod","io.kubernetes.cri-o.ContainerType":"sandbox"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
			"run/containers/storage/overlay-containers/" + id("2") + "/userdata/config.json":  `{"annotations":{"io.container.manager":"libpod","io.kubernetes.cri-o.ContainerType":"container"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
			"var/lib/containers/storage/overlay-containers/containers.json":                   `[{"id":"` + id("1") + `","names":["p-infra"]},{"id":"` + id("2") + `","names":["p-web"],"created":"2026-01-01T00:00:00Z"}]`,
			"run/containers/storage/overlay-containers/containers.json":                       `[{"id":"` + id("1") + `","names":["p-infra"]},{"id":"` + id("2") + `","names":["p-web"]}]`,
			"run/containers/storage/overlay-containers/" + id("9") + "/userdata/nothing.json": "",
		}, "container_t:s0:c1,c2", 100, "container p-web"},
		{"one of Quadlet's, which is removed when it ends", map[string]string{
			"var/lib/containers/storage/overlay-containers/" + id("2") + "/userdata/config.json":     `{"annotations":{"io.container.manager":"libpod"},"linux":{"cgroupsPath":"/system.slice/web.service/libpod-payload-` + id("2") + `"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
			"var/lib/containers/storage/overlay-containers/volatile-containers.json":                 `[{"id":"` + id("2") + `","names":["systemd-web"],"metadata":"{\"image-name\":\"localhost/web:1\",\"name\":\"systemd-web\"}"}]`,
			"var/lib/containers/storage/overlay-containers/" + id("2") + "/userdata/artifacts/empty": "",
		}, "container_t:s0:c1,c2", 100, "container systemd-web"},
	} {
		h := host(t, c.files)
		s := h.Subject(&avc.Denial{Source: avc.Context("system_u:system_r:" + c.source), Time: time.Unix(c.at, 0)})
		if s.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
		if strings.HasSuffix(c.want, "/init") && s.Runtime != "containerd" {
			t.Errorf("%s: its runtime is %q", c.name, s.Runtime)
		}
		if c := h.Container(s); s != (avc.Subject{}) && (c == nil || c.Several != (s.Container == "")) {
			t.Errorf("%s: its container is %+v", s, c)
		}
	}
}

// A pod whose workload does not run, or not yet, does not run.
func TestRunningPods(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
	h := host(t, map[string]string{
		tasks + id("1") + "/config.json": bundle("sandbox", "", "web", uuid, "container_t", "s0:c1,c2", "/none"), tasks + id("2") + "/config.json": bundle("container", "main", "web", uuid, "container_t", "s0:c1,c2", "/srv"),
		tasks + id("3") + "/config.json": bundle("sandbox", "", "db", uuid, "spc_t", "s0:c3,c4", "/none"),
		"proc/70/cgroup":                 "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id("1") + ".scope\n",
		"proc/71/cgroup":                 "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id("2") + ".scope\n",
		"proc/72/cgroup":                 "0::/kubepods.slice/kubepods-pod2.slice/cri-containerd-" + id("3") + ".scope\n",
	})
	running, inhabited := h.Running(), h.Inhabited()
	if len(running) != 1 || running[0].Name() != "default/web/main" || len(inhabited) != 1 || inhabited[0].Name() != "default/web/main" {
		t.Errorf("running %+v, inhabited %+v", running, inhabited)
	}
}

// Of a pod it is known what its containers have of the host, where they agree.
func TestMountsOfAPod(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
	h := host(t, map[string]string{
		tasks + id("1") + "/config.json": bundle("sandbox", "", "web", uuid, "container_t", "s0:c1,c2", "/srv"), tasks + id("2") + "/config.json": bundle("container", "a", "web", uuid, "container_t", "s0:c1,c2", "/srv"),
		tasks + id("3") + "/config.json": bundle("container", "b", "web", uuid, "container_t", "s0:c1,c2", "/srv"),
	})
	c := h.Container(avc.Subject{Pod: "default/web"})
	if c == nil || !reflect.DeepEqual(c.Mounts, []Mount{{"/srv", "/host"}}) {
		t.Errorf("got %+v", c)
	}
}

// A static pod is meant by the name in its manifest too. What the node is called is the kubelet's to say, then the host's.
func TestStaticPods(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
	pod := func(name, uid string) map[string]string {
		return map[string]string{tasks + id("2") + "/config.json": bundle("container", "main", name, uid, "container_t", "s0:c1,c2", "/srv")}
	}
	with := func(files map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	plain := func(pod string) []string { return []string{"main", "default/" + pod, pod, "default/" + pod + "/main"} }
	both := func(pod, manifest string) []string {
		return append(plain(pod), "default/"+manifest, manifest, "default/"+manifest+"/main")
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"the host's name", with(pod("web-node1", digest), "etc/hostname", "Node1\n"), both("web-node1", "web")},
		{"one that has its own", with(pod("web-node1", uuid), "etc/hostname", "node1\n"), plain("web-node1")},
		{"the kernel's name", with(pod("web-front-node1", digest), "proc/sys/kernel/hostname", "node1\n"), both("web-front-node1", "web-front")},
		{"the kubelet's name", with(pod("web-10.0.0.1", digest), "etc/hostname", "node1\n", "proc/7/comm", "kubelet\n", "proc/7/cmdline", "/opt/bin/kubelet\x00--v=2\x00--hostname-override=10.0.0.1\x00"), both("web-10.0.0.1", "web")},
		{"said in two words", with(pod("web-n", digest), "proc/7/comm", "kubelet\n", "proc/7/cmdline", "kubelet\x00--hostname-override\x00N\x00"), both("web-n", "web")},
		{"no word at the end", with(pod("web-n", digest), "proc/7/comm", "kubelet\n", "proc/7/cmdline", "kubelet\x00--hostname-override"), plain("web-n")},
		{"another's argument", with(pod("web-n", digest), "proc/7/comm", "sh\n", "proc/7/cmdline", "sh\x00--hostname-override=n\x00"), plain("web-n")},
		{"nothing before the node's name", with(pod("-node1", digest), "etc/hostname", "node1\n"), plain("-node1")},
		{"nobody knows the node's name", pod("web-node1", digest), plain("web-node1")},
	} {
		h := host(t, c.files)
		s := h.Subject(&avc.Denial{Source: label + "s0:c1,c2"})
		if got := Names(s); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Where the log of a static pod leads to says its UID, also when the runtime's files are gone.
func TestStaticPodByItsLog(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"var/log/containers", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/hostname"), []byte("node1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/var/log/pods/default_web-node1_"+digest+"/main/0.log", filepath.Join(dir, "var/log/containers/web-node1_default_main-"+id("7")+".log")); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := New(root).Subject(&avc.Denial{PID: 1, Cgroup: "/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id("7") + ".scope"})
	if s.Manifest != "default/web" || s.Pod != "default/web-node1" {
		t.Errorf("got %+v", s)
	}
}

// Containers of containerd without Kubernetes have any ID, and the cgroup that they were told.
func TestContainersOfCtr(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/"
	h := host(t, map[string]string{
		tasks + "default/ctrweb/config.json":            `{"process":{},"linux":{"cgroupsPath":"/default/ctrweb"},"root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"}]}`,
		tasks + "other/ctrweb/config.json":              `{"process":{"selinuxLabel":"` + label + `s0:c3,c4"},"linux":{"cgroupsPath":"/other/ctrweb"}}`,
		tasks + "default/root/config.json":              `{"linux":{"cgroupsPath":"/"}}`,
		tasks + "moby/" + id("1") + "/config.json":      `{"linux":{"cgroupsPath":"system.slice:docker:` + id("1") + `"}}`,
		tasks + "default/" + id("5") + "/config.json":   `{"annotations":{"nerdctl/name":"nerd"},"linux":{"cgroupsPath":"/default/` + id("5") + `"}}`,
		"proc/70/cgroup":                                "0::/default/ctrweb\n",
		"proc/70/attr/current":                          "system_u:system_r:kernel_t:s0\x00",
		"proc/71/cgroup":                                "0::/default/" + id("5") + "/deeper\n",
		"proc/71/attr/current":                          "system_u:system_r:container_t:s0:c9,c10\x00",
		"proc/72/cgroup":                                "0::/default\n",
		"var/lib/docker/containers/" + id("1") + "/txt": "",
	})
	for cgroup, want := range map[string]string{
		"/default/ctrweb":                              "container ctrweb default/ctrweb containerd",
		"/default/ctrweb/inner":                        "container ctrweb default/ctrweb containerd",
		"/default/ctrweb/docker-" + id("1") + ".scope": "container ctrweb default/ctrweb containerd", // one in it
		"/other/ctrweb":                                "container ctrweb other/ctrweb containerd",
		"/default":                                     "  ",
		"/default/ctrwebber":                           "  ",
		"/system.slice/docker-" + id("1") + ".scope/default/ctrweb": "container 111111111111 " + id("1") + " docker",
		"/default/" + id("5"):     "container nerd " + id("5") + " containerd",
		"/system.slice/x.service": "x.service  ",
	} {
		s := h.Subject(&avc.Denial{Source: "system_u:system_r:kernel_t:s0", PID: 1, Cgroup: cgroup})
		if got := s.String() + " " + s.ID + " " + s.Runtime; got != want {
			t.Errorf("%s: %q, want %q", cgroup, got, want)
		}
	}
	if s := h.Subject(&avc.Denial{Source: label + "s0:c3,c4"}); s.ID != "other/ctrweb" {
		t.Errorf("by its categories: %+v", s)
	}
	got := map[string][]string{}
	for _, c := range h.Inhabited() {
		got[c.Name()] = c.Domains
	}
	if want := map[string][]string{"ctrweb": {"kernel_t"}, "nerd": {"container_t"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("running: %v, want %v", got, want)
	}
}

// A container that Quadlet starts is known by its service too.
func TestServiceOfAContainer(t *testing.T) {
	h := host(t, map[string]string{
		"run/containers/storage/overlay-containers/" + id("2") + "/userdata/config.json": `{"annotations":{"io.container.manager":"libpod"},"linux":{"cgroupsPath":"/system.slice/web.service/libpod-payload-` + id("2") + `"},"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
		"run/containers/storage/overlay-containers/volatile-containers.json":             `[{"id":"` + id("2") + `","names":["systemd-web"]}]`,
	})
	byLevel := h.Subject(&avc.Denial{Source: label + "s0:c1,c2"})
	byCgroup := h.Subject(&avc.Denial{PID: 1, Cgroup: "/system.slice/web.service/libpod-payload-" + id("2")})
	byLevel.Evidence, byCgroup.Evidence = "", ""
	if want := (avc.Subject{Container: "systemd-web", ID: id("2"), Runtime: "podman", Unit: "web.service"}); byLevel != want || byCgroup != want {
		t.Errorf("by its level %+v, by its cgroup %+v", byLevel, byCgroup)
	}
}

package attribution

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

func id(c string) string { return strings.Repeat(c, 64) }

// host makes a tree with these files, and what is known of it.
func host(t *testing.T, files map[string]string) *Host {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return New(root)
}

const label = "system_u:system_r:container_t:"

func docker(name, level string) string {
	return fmt.Sprintf(`{"ID":"x","Name":"/%s","Config":{"Image":"registry/%s:1"},"ProcessLabel":"%s%s","State":{"Running":true,"Pid":77},
"MountPoints":{"/data":{"Source":"/srv/data","Destination":"/data"},"/data/sub":{"Source":"/srv/other","Destination":"/data/sub"}}}`, name, name, label, level)
}

func cri(container, pod, level string) string {
	return fmt.Sprintf(`{"annotations":{"io.kubernetes.cri.container-name":"%s","io.kubernetes.cri.sandbox-name":"%s","io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.image-name":"img"},
"process":{"selinuxLabel":"%s%s"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/logs","type":"bind","source":"/var/log/pods","options":["rbind","ro"]}]}`, container, pod, label, level)
}

// Proves V19: containerd, CRI-O, podman: from their files.
func TestRuntimes(t *testing.T) {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/"
	h := host(t, map[string]string{
		"var/lib/docker/containers/" + id("1") + "/config.v2.json":                           docker("web", "s0:c1,c2"),
		"var/lib/docker/containers/" + id("2") + "/config.v2.json":                           docker("plain", "s0"),
		"var/lib/docker/containers/" + id("3") + "/config.v2.json":                           "{damaged",
		"var/lib/docker/containers/short/config.v2.json":                                     docker("short", "s0:c9,c10"),
		tasks + "moby/" + id("1") + "/config.json":                                           `{"process":{"selinuxLabel":"` + label + `s0:c1,c2"}}`,
		tasks + "k8s.io/" + id("4") + "/config.json":                                         cri("app", "shop", "s0:c3,c4"),
		tasks + "k8s.io/" + id("5") + "/config.json":                                         cri("sidecar", "shop", "s0:c3,c4"),
		tasks + "k8s.io/" + id("6") + "/config.json":                                         cri("alone", "db", "s0:c5,c6"),
		"run/containers/storage/overlay-containers/" + id("7") + "/userdata/config.json":     `{"annotations":{"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.container.name":"cr","io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"n","io.kubernetes.cri-o.ImageName":"q"},"process":{"selinuxLabel":"` + label + `s0:c7,c8"}}`,
		"var/lib/containers/storage/overlay-containers/" + id("8") + "/userdata/config.json": `{"process":{"selinuxLabel":"` + label + `s0:c9,c10"}}`,
		"var/lib/containers/storage/overlay-containers/containers.json":                      `[{"id":"` + id("8") + `","names":["pod-man"],"metadata":"{\"image-name\":\"docker.io/x\"}"}]`,
		"var/log/containers/gone-1_default_worker-" + id("9") + ".log":                       "",
		"var/log/containers/nonsense.log":                                                    "",
		tasks + "k8s.io/" + id("a") + "/config.json":                                         cri("twin", "one", "s0:c11,c12"),
		tasks + "k8s.io/" + id("b") + "/config.json":                                         cri("twin", "two", "s0:c11,c12"),
	})
	for level, want := range map[string]string{
		"s0:c1,c2":   "container web, registry/web:1, docker, by its categories",
		"s0":         "", // everybody's
		"s0:c3,c4":   "pod prod/shop, , containerd, by its categories",
		"s0:c5,c6":   "container prod/db/alone, img, containerd, by its categories",
		"s0:c7,c8":   "container n/p/cr, q, cri-o, by its categories",
		"s0:c9,c10":  "container pod-man, docker.io/x, podman, by its categories",
		"s0:c11,c12": "", // two pods have it
		"s0:c50,c51": "",
	} {
		for range 2 { // the second answer is a remembered one
			s := h.Subject(&avc.Denial{Source: avc.Context(label + level), PID: 1})
			got := ""
			if s != (avc.Subject{}) {
				got = fmt.Sprintf("%s, %s, %s, by %s", s, s.Image, s.Runtime, s.Evidence)
			}
			if got != want {
				t.Errorf("%s: got %q, want %q", level, got, want)
			}
		}
	}
	for cgroup, want := range map[string]string{
		"/system.slice/docker-" + id("2") + ".scope": "container plain",
		"/kubepods/burstable/pod1/" + id("9"):        "container default/gone-1/worker",
		"/system.slice/docker-" + id("f") + ".scope": "container ffffffffffff",
		"/system.slice/sshd.service":                 "sshd.service",
		"/":                                          "",
	} {
		if got := h.Subject(&avc.Denial{Source: label + "s0", PID: 1, Cgroup: cgroup}).String(); got != want {
			t.Errorf("%s: got %q, want %q", cgroup, got, want)
		}
	}
	c := h.Container(avc.Subject{ID: id("1")})
	for inside, want := range map[string]string{"/data/x": "/srv/data/x", "/data": "/srv/data", "/data/sub/y": "/srv/other/y", "/database": "", "/data/../etc": ""} {
		if got, _ := c.HostPath(inside); got != want {
			t.Errorf("%s is %q on the host, want %q", inside, got, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	x := id("e")
	for cgroup, want := range map[string]string{
		"/system.slice/docker-" + x + ".scope": x + " docker docker-" + x + ".scope",
		"/docker/" + x:                         x + " docker ",
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + x + ".scope":                  x + " containerd cri-containerd-" + x + ".scope",
		"/kubepods.slice/kubepods-pod1.slice/crio-" + x + ".scope":                            x + " cri-o crio-" + x + ".scope",
		"/machine.slice/libpod-" + x + ".scope/container":                                     x + " podman libpod-" + x + ".scope",
		"/system.slice/web.service/libpod-payload-" + x:                                       x + " podman web.service",
		"/machine.slice/libpod-conmon-" + x + ".scope":                                        "  libpod-conmon-" + x + ".scope",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/x.service":                   "  x.service",
		"/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS0.service":              "  serial-getty@ttyS0.service",
		"/kubepods/besteffort/pod12345678-1234-1234-1234-123456789012/" + x:                   x + "  ",
		"/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:" + x: x + " containerd containerd.service",
		"/system.slice/nerdctl-" + x + ".scope":                                               x + " containerd nerdctl-" + x + ".scope",
		// A container names the cgroups in it.
		"/system.slice/docker-" + x + ".scope/docker/" + id("1"):                         x + " docker docker-" + x + ".scope",
		"/system.slice/docker-" + x + ".scope/docker-" + id("1") + ".scope/evil.service": x + " docker docker-" + x + ".scope",
		"": "  ",
	} {
		id, runtime, unit := ParseCgroup(cgroup)
		if got := id + " " + runtime + " " + unit; got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", cgroup, got, want)
		}
	}
}

// A process of this machine is known by /proc, but only if it is the one of the denial.
func TestLivingProcess(t *testing.T) {
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h := New(root)
	if h.Booted().IsZero() || h.Booted().After(time.Now()) {
		t.Fatalf("booted %v", h.Booted())
	}
	started, ok := startTime("1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4200 0")
	if !ok || started != 42*time.Second {
		t.Errorf("start %v, %v", started, ok)
	}
	label, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		t.Skipf("no labels of processes here: %v", err)
	}
	mine := &avc.Denial{PID: os.Getpid(), Source: avc.Context(strings.TrimRight(string(label), "\x00\n")), Time: time.Now()}
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.living(mine), h.ofCgroup(unified(string(cgroup)), "the cgroup of the process, which still runs"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	other := *mine
	other.Source = "a:b:c:s0"
	before := *mine
	before.Time = h.Booted().Add(-time.Hour)
	for name, d := range map[string]*avc.Denial{"another label": &other, "an earlier boot": &before} {
		if got := h.ofProcess(d); got != (avc.Subject{}) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestUnified(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/x.service\n":                              "/system.slice/x.service",
		"12:cpu:/a\n1:name=systemd:/system.slice/y.service\n0::/\n": "/system.slice/y.service",
		"garbage\n": "",
	} {
		if got := unified(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestMounts(t *testing.T) {
	table := `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
23 21 254:16 / /srv/my\040data rw shared:1 - ext4 /dev/vdb rw
24 21 0:30 / /tmp rw - tmpfs tmpfs rw
25 23 254:16 /sub /mnt rw - ext4 /dev/vdb rw
26 21 0:31 / /srv/none rw - tmpfs  rw,size=1m
`
	all, err := mounts.Parse(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	m := mountsOf(all, func(d mounts.Device) string { return map[string]string{"254:0": "vda", "254:16": "vdb"}[d.String()] })
	for _, c := range []struct{ dev, path, want string }{
		{"vdb", "/srv/my data/x", "/srv/my data ext4"},
		{"vdb", "", "/mnt ext4"},
		{"vda", "/srv/other", "/ ext4"},
		{"tmpfs", "", " tmpfs"}, // which one is not known
		{"tmpfs", "/tmp/x", "/tmp tmpfs"},
		{"tmpfs", "/srv/none/x", "/srv/none tmpfs"},
		{"nfs", "", ""},
		{"dm-0", "/var/www/html/file1", ""}, // another host's
		{"vda", "/srv/my data/x", "/ ext4"}, // before the other one was mounted
		{"tmpfs", "/srv/gone/x", " tmpfs"},  // it is not mounted any more
		{"sda3", "/tmp/x", "/tmp tmpfs"},    // of a Btrfs the kernel names a device that its mount has not
	} {
		got := ""
		if one := m.Of(c.dev, c.path); one != nil {
			got = one.Path + " " + one.Type
		}
		if got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.dev, c.path, got, c.want)
		}
	}
}

// Of two mounts at one place the later is on top.
func TestMountOnAMount(t *testing.T) {
	m := Mounts{{Path: "/", Dev: "vda"}, {Path: "/srv", Dev: "vdb"}, {Path: "/srv", Dev: "vdc"}}
	if one := m.Of("", "/srv/x"); one == nil || one.Dev != "vdc" {
		t.Errorf("%+v", one)
	}
}

// What a container has of the host is known by its type or by its options.
func TestBindMountsOfASpec(t *testing.T) {
	for options, want := range map[string]int{`"type":"bind"`: 1, `"type":"none","options":["ro","rbind"]`: 1, `"options":["bind"]`: 1, `"type":"tmpfs","options":["nosuid"]`: 0} {
		var s spec
		if err := json.Unmarshal([]byte(`{"mounts":[{"destination":"/data","source":"/srv",`+options+`}]}`), &s); err != nil {
			t.Fatal(err)
		}
		if got := s.container("x", "containerd").Mounts; len(got) != want || want == 1 && got[0] != (Mount{"/srv", "/data"}) {
			t.Errorf("%s: %+v", options, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/system.slice/docker-"+id("a")+".scope", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4200 0")
	f.Add("0::/x", ")")
	f.Fuzz(func(_ *testing.T, cgroup, stat string) {
		ParseCgroup(cgroup)
		unified(cgroup)
		startTime(stat)
	})
}

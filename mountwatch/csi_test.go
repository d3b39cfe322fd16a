package mountwatch

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// node is a host with a kubelet's directory, which only these tests see.
type node struct{ *host }

func newNode(t *testing.T, rules ...judge.Rule) node {
	n := node{newHost(t)}
	n.config.Rules = rules
	n.remount = func(_ context.Context, v *volume) (bool, error) {
		t.Errorf("%s was to be mounted again", v.Mountpoint)
		return false, nil
	}
	n.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
	t.Cleanup(func() { n.run("umount", "--recursive", "--lazy", "/var/lib") })
	n.dir = kubelet.DefaultDir
	return n
}

// data writes what the kubelet does beside a mountpoint.
func (n node) data(point, content string) {
	n.t.Helper()
	file := n.root.Path(path.Join(path.Dir(point), "vol_data.json"))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// stage makes a volume of a driver, mounts it where the kubelet has it staged, and puts files in it.
func (n node) stage(driver string) (point string) {
	n.t.Helper()
	image := filepath.Join(n.t.TempDir(), "image")
	n.run("truncate", "-s", "32M", image)
	n.run("mkfs.ext4", "-q", image)
	point = kubelet.DefaultDir + "/plugins/kubernetes.io/csi/" + driver + "/0a1b/globalmount"
	n.data(point, `{"driverName":"`+driver+`","volumeHandle":"v"}`)
	n.mountImage(image, point)
	n.fill(point, 20)
	return point
}

// publish gives a staged volume to a pod.
func (n node) publish(staged, driver string) (point string) {
	n.t.Helper()
	point = kubelet.DefaultDir + "/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount"
	n.data(point, `{"driverName":"`+driver+`","volumeHandle":"v"}`)
	if err := os.MkdirAll(point, 0o755); err != nil {
		n.t.Fatal(err)
	}
	n.run("mount", "--bind", staged, point)
	return point
}

func (n node) setLabel(label string, files ...string) {
	n.t.Helper()
	for _, f := range files {
		if err := unix.Lsetxattr(f, "security.selinux", []byte(label), 0); err != nil {
			n.t.Fatal(err)
		}
	}
}

func forDriver(name string) judge.Rule {
	return judge.Rule{Name: "shares", Source: "config.yaml:1", Match: judge.Match{CSIDriver: name}, Strategy: judge.Auto}
}

const shares = "shares.example.com"

// A volume of the kubelet's gets labels where it is mounted, if a rule asks for it, and no other does. When a pod gets it, it is not labelled again.
func TestKubeletsVolume(t *testing.T) {
	n := newNode(t, forDriver(shares), judge.Rule{Name: "all", Source: "config.yaml:2", Match: judge.Match{FSType: "ext4"}, Strategy: judge.Auto})
	staged, other, unknown := n.stage(shares), n.stage("disks.example.com"), n.stage("links.example.com")
	n.data(unknown, `{"driverName":"`) // torn
	n.start()
	v := n.eventually(staged, Labelled)
	if got := n.labels(staged); !slices.Equal(got, []string{shared}) {
		t.Errorf("the labels are %q", got)
	}
	if v.Late || v.How != byFiles || v.Files == nil || v.Files.Set < 20 {
		t.Errorf("%+v %+v", v, v.Files)
	}
	for _, point := range []string{other, unknown} {
		if got := n.labels(point); slices.Contains(got, shared) {
			t.Errorf("%s: %q", point, got)
		}
	}
	if got := n.kinds(); got != "relabel-started relabel-done labelled" {
		t.Error(got)
	}

	published := n.publish(staged, shares)
	n.reload <- struct{}{}
	if v := n.eventually(staged, Labelled); v.Late || v.Files == nil {
		t.Errorf("%+v", v)
	}
	if got := n.kinds(); strings.Contains(got, "relabel") {
		t.Errorf("after the pod had it: %s", got)
	}
	if slices.ContainsFunc(LoadRecord(n.root).Volumes, func(v Volume) bool { return v.Mountpoint == published }) {
		t.Error("the pod's mount counts as a volume of its own")
	}
}

// Where a pod has the volume already, it is said that it may have met files without their labels; and it is not forgotten.
func TestKubeletsVolumeLate(t *testing.T) {
	rule := forDriver("")
	rule.Match.Mountpoint = kubelet.DefaultDir + "/plugins/kubernetes.io/csi/" + shares + "/**"
	n := newNode(t, rule)
	staged := n.stage(shares)
	published := n.publish(staged, shares)
	said := make(chan bool, 1)
	n.heard = func(e Event) {
		if e.Kind == RelabelDone {
			said <- e.Volume.Late
		}
	}
	n.start()
	n.eventually(staged, Labelled)
	if !<-said {
		t.Error("it is not said")
	}
	n.run("umount", published)
	n.halt()
	n.heard = nil
	n.start()
	if v := n.eventually(staged, Labelled); !v.Late || v.Files == nil {
		t.Errorf("it is forgotten: %+v", v)
	}
}

// What the runtime has labelled for a pod stays so: the whole volume, or what it has labelled of it until now.
func TestKubeletsVolumeOfPod(t *testing.T) {
	n := newNode(t, forDriver(shares))
	staged := n.stage(shares)
	n.setLabel(private, staged)
	n.start()
	if v := n.eventually(staged, Labelled); v.Found != private || v.Late {
		t.Errorf("%+v", v)
	}
	if got := n.labels(staged); slices.Contains(got, shared) || n.kinds() != "labelled" {
		t.Errorf("%q", got)
	}
	n.halt()

	file := staged + "/d01/f1"
	n.setLabel(private, file)
	n.setLabel("system_u:object_r:unlabeled_t:s0", staged)
	n.start()
	for !slices.Equal(n.labels(staged), []string{shared, private}) {
		n.eventually(staged, Labelled)
	}
	if got := n.labels(file); !slices.Equal(got, []string{private}) {
		t.Errorf("%q", got)
	}
}

// Only a label that no container has but those of one pod is the runtime's own.
func TestLeavesPodsLabels(t *testing.T) {
	host := judge.Host{SELinux: true, DefaultContext: shared}
	for _, c := range []struct {
		label string
		kept  bool
	}{
		{"", false}, {shared, false}, {private, true}, {"system_u:object_r:container_file_t:s0:c1.c3", true},
		{"system_u:object_r:unlabeled_t:s0:c1,c2", false}, {"system_u:object_r:var_lib_t:s0", false}, {"no label", false},
	} {
		if got := host.ForPod(c.label, shared); got != c.kept {
			t.Errorf("%q: %v", c.label, got)
		}
	}
}

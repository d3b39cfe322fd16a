package stages

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/bbolttest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// nodeFiles is a node in the shape that a kubelet and containerd give it.
type nodeFiles map[string]string

const kubeletPods = "var/lib/kubelet/pods/"

func podUID(n int) string { return fmt.Sprintf("0b1f2c3d-1111-2222-3333-%012d", n) }

// kubelet is a kubelet that runs, with these arguments.
func (f nodeFiles) kubelet(arguments ...string) nodeFiles {
	f["proc/77/comm"] = "kubelet\n"
	f["proc/77/cmdline"] = strings.Join(append([]string{"/usr/bin/kubelet"}, arguments...), "\x00") + "\x00"
	return f
}

// pod is one with a container, whose ID ends with these digits, and whose processes have a label; "" for none. sources are directories of the pod's that
// its container has.
func (f nodeFiles) pod(n int, name, id, label string, sources ...string) nodeFiles {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
	var bind []string
	for _, s := range sources {
		bind = append(bind, fmt.Sprintf(`{"destination":"/%d","type":"bind","source":"/%s%s/%s","options":["rbind","rw"]}`, len(bind), kubeletPods, podUID(n), s))
	}
	config := func(kind, more string) string {
		return fmt.Sprintf(`{"process":{"selinuxLabel":"%s"},"mounts":[%s],"annotations":{%s"io.kubernetes.cri.container-type":"%s","io.kubernetes.cri.sandbox-name":"%s","io.kubernetes.cri.sandbox-namespace":"default","io.kubernetes.cri.sandbox-uid":"%s"}}`,
			label, strings.Join(bind, ","), more, kind, name, podUID(n))
	}
	f[tasks+fmt.Sprintf("%064s", id)+"/config.json"] = config("container", `"io.kubernetes.cri.container-name":"main",`)
	f[tasks+fmt.Sprintf("%064s", "f"+id)+"/config.json"] = config("sandbox", "")
	return f
}

// csi is a volume of a pod's, as the kubelet writes it down.
func (f nodeFiles) csi(n int, pv, handle, context string) nodeFiles {
	more := ""
	if context != "" {
		more = `,"seLinuxMountContext":"` + context + `"`
	}
	f[kubeletPods+podUID(n)+"/volumes/kubernetes.io~csi/"+pv+"/vol_data.json"] =
		`{"attachmentID":"csi-1","driverName":"csi.example.com","nodeName":"node1","specVolID":"` + pv + `","volumeHandle":"` + handle + `","volumeLifecycleMode":"Persistent"` + more + `}`
	return f
}

// metadata is the database of containerd 1.7.24, with what its CRI was told of the containers a1 (level s0:c10,c20), a2 (nothing), a3 (nothing,
// privileged) and a4 (type spc_t).
func (f nodeFiles) metadata(t *testing.T) nodeFiles {
	t.Helper()
	f["var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"] = string(bbolttest.Containerd(t))
	return f
}

func (f nodeFiles) node(t *testing.T, version string, table ...*mounts.Mount) *node {
	t.Helper()
	dir := t.TempDir()
	for name, content := range f {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &node{root: root, table: func() ([]*mounts.Mount, error) { return table, nil },
		version: func(context.Context, *kubelet.Process) string { return version }}
}

// What a node says: a line for each conflict, "VOLUME LABELS: POD ASKED LEVEL, ...", after the number of volumes that pods share.
func TestNode(t *testing.T) {
	t.Parallel()
	const label = "system_u:system_r:container_t:"
	const pv = "volumes/kubernetes.io~csi/pv/mount"
	fc := func(n int, name string, minor uint32) *mounts.Mount {
		return &mounts.Mount{Mountpoint: "/" + kubeletPods + podUID(n) + "/volumes/kubernetes.io~fc/" + name, Device: mounts.Device{Major: 8, Minor: minor}}
	}
	dir := func(n int, volume string) string { return kubeletPods + podUID(n) + "/" + volume + "/keep" }
	for _, c := range []struct {
		name  string
		files nodeFiles
		table []*mounts.Mount
		want  string // "" for no answer
	}{
		{"no kubelet", nodeFiles{}.pod(1, "a", "a1", label+"s0:c10,c20"), nil, ""},
		{"a kubelet, and no volume", nodeFiles{}.kubelet(), nil, "0"},
		{"two pods that ask for nothing", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a2", label+"s0:c1,c2", pv).pod(2, "b", "a3", "", pv), nil, "1"},
		{"a level beside a privileged pod", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a3", "", pv), nil, "1\npv differ: default/a a level s0:c10,c20, default/b nothing "},
		{"a level beside one that the runtime chose", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "1\npv differ: default/a a level s0:c10,c20, default/b nothing "},
		{"options without a level", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a4", "system_u:system_r:spc_t:s0:c5,c6", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "1\npv differ: default/a no level , default/b nothing "},
		{"a subPath of it", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a1", label+"s0:c10,c20", "volume-subpaths/pv/main/0").pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "1\npv differ: default/a a level s0:c10,c20, default/b nothing "},
		{"two volumes of one driver", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "other", "").
			pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "0"},
		{"one volume of two names", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pw", "h", "").
			pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", "volumes/kubernetes.io~csi/pw/mount"), nil, "1\npv differ: default/a a level s0:c10,c20, default/b nothing "},
		{"one that a pod has and does not use", nodeFiles{}.kubelet().metadata(t).csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700"), nil, "0"},
		{"no database: two levels", nodeFiles{}.kubelet().csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "1", label+"s0:c10,c20", pv).pod(2, "b", "2", label+"s0:c3,c700", pv), nil, "1\npv may differ: default/a unknown s0:c10,c20, default/b unknown s0:c3,c700"},
		{"no database: one level", nodeFiles{}.kubelet().csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "1", label+"s0:c10,c20", pv).pod(2, "b", "2", label+"s0:c10,c20", pv), nil, "1"},
		{"no database: a level of two pods beside another", nodeFiles{}.kubelet().csi(1, "pv", "h", "").csi(2, "pv", "h", "").
			pod(1, "a", "1", label+"s0:c10,c20", pv).pod(2, "b", "2", label+"s0:c3,c700", pv).pod(3, "c", "3", label+"s0:c10,c20"), nil,
			"1\npv differ: default/a a level s0:c10,c20, default/b unknown s0:c3,c700"},
		{"no database: mounted with a label", nodeFiles{}.kubelet().csi(1, "pv", "h", "system_u:object_r:container_file_t:s0:c10,c20").csi(2, "pv", "h", "").
			pod(1, "a", "1", label+"s0:c10,c20", pv).pod(2, "b", "2", label+"s0:c3,c700", pv), nil, "1\npv differ: default/a a level s0:c10,c20, default/b unknown s0:c3,c700"},
		{"a database that is damaged", func() nodeFiles {
			f := nodeFiles{}.kubelet().csi(1, "pv", "h", "").csi(2, "pv", "h", "").pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv)
			f["var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"] = strings.Repeat("x", 9000)
			return f
		}(), nil, "1\npv may differ: default/a unknown s0:c10,c20, default/b unknown s0:c3,c700"},
		{"what no pod shares, and what the kubelet does not mount with a label", nodeFiles{
			dir(1, "volumes/kubernetes.io~empty-dir/e"): "", dir(2, "volumes/kubernetes.io~empty-dir/e"): "", dir(1, "volumes/kubernetes.io~nfs/n"): "", dir(2, "volumes/kubernetes.io~nfs/n"): "",
			dir(1, "volumes/kubernetes.io~local-volume/l"): "", dir(2, "volumes/kubernetes.io~local-volume/l"): "",
		}.kubelet().metadata(t).pod(1, "a", "a1", label+"s0:c10,c20", "volumes/kubernetes.io~empty-dir/e", "volumes/kubernetes.io~nfs/n", "volumes/kubernetes.io~local-volume/l").
			pod(2, "b", "a2", label+"s0:c3,c700", "volumes/kubernetes.io~empty-dir/e", "volumes/kubernetes.io~nfs/n", "volumes/kubernetes.io~local-volume/l"), nil, "0"},
		{"two names of one disk", nodeFiles{dir(1, "volumes/kubernetes.io~fc/x"): "", dir(2, "volumes/kubernetes.io~fc/y"): ""}.kubelet().metadata(t).
			pod(1, "a", "a1", label+"s0:c10,c20", "volumes/kubernetes.io~fc/x").pod(2, "b", "a2", label+"s0:c3,c700", "volumes/kubernetes.io~fc/y"),
			[]*mounts.Mount{fc(1, "x", 1), fc(2, "y", 1)}, "1\nx differ: default/a a level s0:c10,c20, default/b nothing "},
		{"one name of two disks", nodeFiles{dir(1, "volumes/kubernetes.io~fc/x"): "", dir(2, "volumes/kubernetes.io~fc/x"): ""}.kubelet().metadata(t).
			pod(1, "a", "a1", label+"s0:c10,c20", "volumes/kubernetes.io~fc/x").pod(2, "b", "a2", label+"s0:c3,c700", "volumes/kubernetes.io~fc/x"),
			[]*mounts.Mount{fc(1, "x", 1), fc(2, "x", 2)}, "0"},
		{"inline CSI", nodeFiles{
			kubeletPods + podUID(1) + "/volumes/kubernetes.io~csi/pv/vol_data.json": `{"driverName":"d","volumeHandle":"h","volumeLifecycleMode":"Ephemeral"}`,
			kubeletPods + podUID(2) + "/volumes/kubernetes.io~csi/pv/vol_data.json": `{"driverName":"d","volumeHandle":"h","volumeLifecycleMode":"Ephemeral"}`,
		}.kubelet().metadata(t).pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "0"},
		{"a record of the kubelet that is empty", nodeFiles{
			kubeletPods + podUID(1) + "/volumes/kubernetes.io~csi/pv/vol_data.json": "", kubeletPods + podUID(2) + "/volumes/kubernetes.io~csi/pv/vol_data.json": "",
		}.kubelet().metadata(t).pod(1, "a", "a1", label+"s0:c10,c20", pv).pod(2, "b", "a2", label+"s0:c3,c700", pv), nil, "1\npv differ: default/a a level s0:c10,c20, default/b nothing "},
	} {
		s := c.files.node(t, "Kubernetes v1.36.3", c.table...).selinuxMount(t.Context())
		got := ""
		if s != nil {
			got = fmt.Sprint(s.Shared)
			for _, conflict := range s.Conflicts {
				var pods []string
				for _, p := range conflict.Pods {
					pods = append(pods, fmt.Sprintf("%s %s %s", p.Pod, p.Asked, p.Level))
				}
				got += fmt.Sprintf("\n%s %s: %s", conflict.Volume, conflict.Labels, strings.Join(pods, ", "))
			}
		}
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// The kubelet's directory, its feature gates and its version come from the kubelet that runs.
func TestKubeletOfANode(t *testing.T) {
	t.Parallel()
	files := nodeFiles{}.kubelet("--root-dir", "/data/kubelet", "--config=/etc/kubelet.yaml")
	files["etc/kubelet.yaml"] = "kind: KubeletConfiguration\nfeatureGates: {SELinuxMount: true}\n"
	files = files.metadata(t)
	for n, id := range map[int]string{1: "a1", 2: "a2"} {
		files = files.pod(n, "p"+id, id, "", "volumes/kubernetes.io~csi/pv/mount")
		for name, content := range (nodeFiles{}).csi(n, "pv", "h", "") {
			files[strings.Replace(name, "var/lib/kubelet", "data/kubelet", 1)] = content
		}
	}
	s := files.node(t, "Kubernetes v1.36.3").selinuxMount(t.Context())
	if s == nil || s.Kubelet != "v1.36.3" || s.Mounts != MountsLabelled || len(s.Conflicts) != 1 {
		t.Fatalf("%+v", s)
	}
	r := &Readiness{Verdict: Ready}
	h := &Host{Evidence: Evidence{SELinuxMount: func(context.Context) *SELinuxMount { return s }}}
	h.AddSELinuxMount(t.Context(), r)
	if r.SELinuxMount != s || r.Verdict != Ready || !reflect.DeepEqual(r.Against(), []Check(nil)) {
		t.Errorf("it is a part of the verdict: %+v", r)
	}
	if says := s.Headline(); !strings.Contains(says, "1 volume may keep") || !strings.Contains(says, "set to true") {
		t.Error(says)
	}
}

// Names of pods, volumes and drivers are others' text.
func TestConflictOfHostileNames(t *testing.T) {
	t.Parallel()
	v := sharedVolume{name: "pv\x1b[2J", driver: "d\n", plugin: "csi", labels: true, declared: true, pods: []VolumePod{
		{Pod: "default/a\x1b]0;", Asked: AskedLevel, Level: "s0\n"}, {Pod: "default/b", Asked: AskedNothing}}}
	c, _ := v.conflict()
	if text := c.String() + c.Remedy; strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("%q", text)
	}
}

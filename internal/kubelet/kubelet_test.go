package kubelet

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// tree makes files; a content that begins with "-> " is a link.
func tree(t *testing.T, files map[string]string) *hostfs.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, link := strings.CutPrefix(content, "-> "); link {
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// Which processes are kubelets, and which of them see the host's files.
func TestProcesses(t *testing.T) {
	root := tree(t, map[string]string{
		"proc/1/comm": "systemd\n", "proc/1/ns/mnt": "-> mnt:[1]",
		"proc/20/comm": "kubelet\n", "proc/20/cmdline": "/usr/bin/kubelet\x00--root-dir=/data\x00", "proc/20/exe": "-> /usr/bin/kubelet", "proc/20/ns/mnt": "-> mnt:[1]",
		"proc/21/comm": "kubelet\n", "proc/21/cmdline": "kubelet\x00", "proc/21/exe": "-> /kubelet", "proc/21/ns/mnt": "-> mnt:[9]",
		"proc/22/comm": "k3s-server\n", "proc/22/cmdline": "/usr/local/bin/k3s server", "proc/22/exe": "-> /var/lib/rancher/k3s/data/x/bin/k3s", "proc/22/ns/mnt": "-> mnt:[1]",
		"proc/25/comm": "k3s-agent\n", "proc/25/cmdline": "/k3s\x00agent\x00-c\x00/root/secret\x00--kubelet-arg=root-dir=/x\x00", "proc/25/exe": "-> /k3s", "proc/25/ns/mnt": "-> mnt:[9]",
		"proc/23/comm": "kubelet-proxy\n", "proc/meminfo": "", "proc/24/cmdline": "gone",
	})
	want := []Process{
		{PID: "20", Program: "/usr/bin/kubelet", Arguments: []string{"--root-dir=/data"}, Host: true},
		{PID: "21", Program: "/kubelet", Arguments: []string{}},
		{PID: "22", Program: "/var/lib/rancher/k3s/data/x/bin/k3s", Arguments: []string{"--config-dir=/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"}, Host: true},
		{PID: "25", Program: "/k3s"},
	}
	if got := Processes(root); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestDir(t *testing.T) {
	for arguments, want := range map[string]string{
		"": DefaultDir, "--root-dir /data": "/data", "--root-dir=/a --root-dir=/b/": "/b", "--root-dir": DefaultDir, "--root-dir data": DefaultDir, "-root-dir /x": DefaultDir,
	} {
		p := Process{Arguments: strings.Fields(arguments)}
		if got := p.Dir(); got != want {
			t.Errorf("%q: %s, want %s", arguments, got, want)
		}
	}
}

// A feature gate: the flag counts more than the files, and of those the later one.
func TestGate(t *testing.T) {
	root := tree(t, map[string]string{
		"on.yaml": "apiVersion: kubelet.config.k8s.io/v1beta1\nfeatureGates:\n  Other: false\n  SELinuxMount: true\n", "off.json": `{"featureGates":{"SELinuxMount":false}}`,
		"none.yaml": "cgroupDriver: systemd\n", "broken.yaml": "featureGates: [", "word.yaml": "featureGates: {SELinuxMount: perhaps}",
		"d/10-off.conf": "featureGates: {SELinuxMount: false}", "d/20.yaml": "featureGates: {SELinuxMount: true}",
	})
	for _, c := range []struct {
		arguments string
		on, set   bool
	}{
		{"", false, false},
		{"--config=/on.yaml", true, true},
		{"--config /off.json", false, true},
		{"--config=/none.yaml", false, false},
		{"--config=/broken.yaml", false, false},
		{"--config=/word.yaml", false, false},
		{"--config=/nowhere", false, false},
		{"--config=/on.yaml --config-dir=/d", false, true},
		{"--config=/on.yaml --config-dir=/nowhere", true, true},
		{"--config=/on.yaml --feature-gates=SELinuxMount=false", false, true},
		{"--feature-gates Other=false,SELinuxMount=true", true, true},
		{"--feature-gates=SELinuxMount=true --feature-gates=Other=true", true, true},
		{"--feature-gates=SELinuxMount=maybe", false, false},
		{"--feature-gates=SELinuxMountReadWriteOncePod=false", false, false},
	} {
		p := Process{Arguments: strings.Fields(c.arguments)}
		if on, set := p.Gate(root, "SELinuxMount"); on != c.on || set != c.set {
			t.Errorf("%q: %v, set: %v", c.arguments, on, set)
		}
	}
}

// The kubelet in K3s: its flags are in the files of K3s, in its command line and its environment; whatever comes, nothing of K3s's own is taken for the kubelet's.
func TestK3s(t *testing.T) {
	const dir = "--config-dir=/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"
	for _, c := range []struct {
		name, cmdline, environ string
		files                  map[string]string
		want                   []string
	}{
		{"nothing", "k3s server", "", nil, []string{dir}},
		{"of another program", "k3s server --feature-gates=SELinuxMount=true --config=/dev/null", "", nil, []string{dir}},
		{"command line", "k3s agent --kubelet-arg=feature-gates=SELinuxMount=true --kubelet-arg root-dir=/data", "", nil,
			[]string{dir, "--feature-gates=SELinuxMount=true", "--root-dir=/data"}},
		{"with dashes", "k3s agent --kubelet-arg --v=2", "", nil, []string{dir, "--v=2"}},
		{"a list", "k3s server", "", map[string]string{"etc/rancher/k3s/config.yaml": "selinux: true\nkubelet-arg:\n- feature-gates=SELinuxMount=true\n- max-pods=20\n"},
			[]string{dir, "--feature-gates=SELinuxMount=true", "--max-pods=20"}},
		{"one", "k3s server", "", map[string]string{"etc/rancher/k3s/config.yaml": "kubelet-arg: max-pods=20"}, []string{dir, "--max-pods=20"}},
		{"file, then command line", "k3s server --kubelet-arg=v=2", "", map[string]string{"etc/rancher/k3s/config.yaml": "kubelet-arg: v=1"}, []string{dir, "--v=1", "--v=2"}},
		{"more files", "k3s server", "", map[string]string{
			"etc/rancher/k3s/config.yaml": "kubelet-arg: [a=1]", "etc/rancher/k3s/config.yaml.d/10.yaml": "kubelet-arg: [b=1]", "etc/rancher/k3s/config.yaml.d/20.yml": "kubelet-arg+: [c=1]",
			"etc/rancher/k3s/config.yaml.d/30.yaml.bak": "kubelet-arg: [d=1]", "etc/rancher/k3s/config.yaml.d/15.yaml": "kubelet-arg: ["}, []string{dir, "--b=1", "--c=1"}},
		{"another file", "k3s server -c /srv/k3s.yaml", "", map[string]string{"srv/k3s.yaml": "{data-dir: /srv/k3s, kubelet-arg: [a=1]}", "etc/rancher/k3s/config.yaml": "kubelet-arg: [b=1]"},
			[]string{"--config-dir=/srv/k3s/agent/etc/kubelet.conf.d", "--a=1"}},
		{"environment", "k3s server", "PATH=/bin\x00K3S_CONFIG_FILE=/srv/k3s.yaml\x00K3S_DATA_DIR=/data\x00", map[string]string{"srv/k3s.yaml": "{data-dir: /srv/k3s, kubelet-arg: [a=1]}"},
			[]string{"--config-dir=/data/agent/etc/kubelet.conf.d", "--a=1"}},
		{"its place", "k3s server --data-dir=/x -d /y", "K3S_DATA_DIR=/data", nil, []string{"--config-dir=/y/agent/etc/kubelet.conf.d"}},
		{"not a configuration", "k3s server", "", map[string]string{"etc/rancher/k3s/config.yaml": "- kubelet-arg"}, []string{dir}},
	} {
		files := map[string]string{"proc/9/comm": "k3s-server\n", "proc/9/cmdline": strings.ReplaceAll(c.cmdline, " ", "\x00") + "\x00", "proc/9/environ": c.environ}
		maps.Copy(files, c.files)
		all := Processes(tree(t, files))
		if len(all) != 1 || !slices.Equal(all[0].Arguments, c.want) {
			t.Errorf("%s: %+v, want %q", c.name, all, c.want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"Kubernetes v1.37.2\n": {"v1.37.2", 1, 37},
		"k3s version v1.34.4+k3s1 (0123abc)\ngo version go1.24.5\n": {"v1.34.4+k3s1", 1, 34},
		"Kubernetes v1.38.0-alpha.1.5+0123":                         {"v1.38.0-alpha.1.5+0123", 1, 38},
		"v1.37":                                                     {}, "version": {}, "va.b.c": {}, "v-1.2.3": {}, "": {},
	} {
		if got, ok := ParseVersion(text); got != want || ok != (want != Version{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
}

// The volumes of a kubelet's directory.
func TestVolumes(t *testing.T) {
	const pods = "var/lib/kubelet/pods/"
	root := tree(t, map[string]string{
		pods + "u1/volumes/kubernetes.io~csi/pv/vol_data.json":          `{"driverName":"d","volumeHandle":"h","specVolID":"pv","volumeLifecycleMode":"Persistent","seLinuxMountContext":"u:r:t:s0"}`,
		pods + "u1/volumes/kubernetes.io~csi/pv/mount/file":             "",
		pods + "u1/volumes/kubernetes.io~csi/own/vol_data.json":         `{"driverName":"d","volumeHandle":"x","volumeLifecycleMode":"Ephemeral"}`,
		pods + "u1/volumes/kubernetes.io~csi/torn/vol_data.json":        `{"driverName":"d`,
		pods + "u1/volumes/kubernetes.io~empty-dir/e/file":              "",
		pods + "u1/volumes/kubernetes.io~projected/token/token":         "",
		pods + "u1/volumes/kubernetes.io~nfs/share/vol_data.json":       `{"driverName":"a volume's own file","volumeHandle":"h"}`,
		pods + "u1/volumes/kubernetes.io~iscsi/disk/file":               "",
		pods + "u1/volumes/vendor~driver/flex/file":                     "",
		pods + "u1/plugins/kubernetes.io~empty-dir/wrapped_token/ready": "",
		pods + "u2/etc-hosts": "",
	})
	want := []Volume{
		{UID: "u1", Plugin: "csi", Name: "pv", Driver: "d", Handle: "h", Context: "u:r:t:s0"},
		{UID: "u1", Plugin: "csi", Name: "torn"},
		{UID: "u1", Plugin: "iscsi", Name: "disk"},
		{UID: "u1", Plugin: "nfs", Name: "share"},
	}
	if got := Volumes(root, DefaultDir); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if labels := []bool{want[0].Labels(), want[2].Labels(), want[3].Labels()}; !reflect.DeepEqual(labels, []bool{true, true, false}) {
		t.Errorf("csi, iscsi, nfs mount with a label: %v", labels)
	}
	if got := want[2].Path("/data"); got != "/data/pods/u1/volumes/kubernetes.io~iscsi/disk" {
		t.Error(got)
	}
	if got := Volumes(root, "/nowhere"); got != nil {
		t.Errorf("%+v", got)
	}
}

// What is a mount of a CSI volume, by its mountpoint.
func TestCSIMount(t *testing.T) {
	const csi, pod = "/var/lib/kubelet/plugins/kubernetes.io/csi/", "/var/lib/kubelet/pods/u1/volumes/"
	for point, want := range map[string]CSI{
		csi + "d.example.com/0a1b/globalmount":    {Dir: csi + "d.example.com/0a1b"},
		csi + "pv/pvc-1/globalmount":              {Dir: csi + "pv/pvc-1"}, // before 1.24
		pod + "kubernetes.io~csi/pvc-1/mount":     {pod + "kubernetes.io~csi/pvc-1", true},
		csi + "d.example.com/0a1b/globalmount/x":  {},
		csi + "d.example.com/globalmount":         {},
		csi + "d.example.com/0a1b/vol_data.json":  {},
		pod + "kubernetes.io~csi/pvc-1/mount/x":   {},
		pod + "kubernetes.io~csi/pvc-1":           {},
		pod + "kubernetes.io~empty-dir/pvc/mount": {},
		// Of a kubelet with another directory.
		"/data/k/plugins/kubernetes.io/csi/d/0a/globalmount":             {Dir: "/data/k/plugins/kubernetes.io/csi/d/0a"},
		"/data" + pod + "kubernetes.io~csi/p/mount":                      {"/data" + pod + "kubernetes.io~csi/p", true},
		"/var/lib/k0s/kubelet/pods/u1/volumes/kubernetes.io~csi/p/mount": {"/var/lib/k0s/kubelet/pods/u1/volumes/kubernetes.io~csi/p", true},
		"/plugins/kubernetes.io/csi/d/0a/globalmount":                    {}, // no kubelet has the root directory for its own
		"/pods/u1/volumes/kubernetes.io~csi/p/mount":                     {},
		"/data/k/plugins/kubernetes.io/csi//0a/globalmount":              {},
		"/data/k/podsx/u1/volumes/kubernetes.io~csi/p/mount":             {},
		"/data/k/pods/volumes/kubernetes.io~csi/p/mount":                 {},
		"/var/lib/kubelet": {}, "/": {}, "": {}, "globalmount": {}, "mount": {},
	} {
		if got, ok := CSIMount(point); ok != (want != CSI{}) || ok && got != want {
			t.Errorf("%s: %+v, %v", point, got, ok)
		}
	}
	for prefix, want := range map[string]bool{csi: true, csi + "d": true, "/var/lib/kubelet/pods/": true, "/var/lib/kubelet/": false, "/var/lib/kubelet/pods": false, "/": false, "": false,
		"/data/k" + stagedDir: true, "/data/kubelet/pods/": true, "/data/pods/": false, "/data/pods/u1/volumes/kubernetes.io~csi/": true, "/data/pods/u1/volumes/": false} {
		if MeansCSI(prefix) != want {
			t.Errorf("%s: %v", prefix, !want)
		}
	}
}

// Whatever is in the place of vol_data.json, reading it ends, and only a file that says it names a driver.
func TestDriver(t *testing.T) {
	root := tree(t, map[string]string{
		"good/vol_data.json": `{"driverName":"d.example.com","volumeHandle":"h"}`, "torn/vol_data.json": `{"driverName":"d`, "list/vol_data.json": `["d"]`,
		"number/vol_data.json": `{"driverName":7}`, "other/vol_data.json": `{}`, "empty/vol_data.json": "", "none/file": "",
		"long/vol_data.json": `{"driverName":"d"}` + strings.Repeat(" ", maxVolumeData), "link/vol_data.json": "-> /good/vol_data.json",
		"out/vol_data.json": "-> ../../../../../etc/passwd", "directory/vol_data.json/x": "", "fifo/x": "",
	})
	if err := unix.Mkfifo(root.Path("/fifo/vol_data.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"good", "torn", "list", "number", "other", "empty", "none", "long", "link", "out", "directory", "fifo", "nowhere"} {
		want := ""
		if dir == "good" {
			want = "d.example.com"
		}
		if got := (&CSI{Dir: "/" + dir}).Driver(root); got != want {
			t.Errorf("%s: %q", dir, got)
		}
	}
}

func TestUsed(t *testing.T) {
	for _, c := range []struct{ source, uid, want string }{
		{"/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv/mount", "u1", "pv"},
		{"/data/k/pods/u1/volumes/kubernetes.io~fc/disk", "u1", "disk"},
		{"/var/lib/kubelet/pods/u1/volume-subpaths/pv/main/0", "u1", "pv"},
		{"/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv/mount", "u2", ""},
		{"/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pv/mount", "", ""},
		{"/var/lib/kubelet/pods/u1/etc-hosts", "u1", ""},
		{"/var/lib/kubelet/pods/u1/volumes", "u1", ""},
		{"/srv/data", "u1", ""},
	} {
		if got, ok := Used(c.source, c.uid); got != c.want || ok != (c.want != "") {
			t.Errorf("%s of %s: %q, %v", c.source, c.uid, got, ok)
		}
	}
}

// FuzzConfig reads what is in the kubelet's files and what it says.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("featureGates: {SELinuxMount: true}"), "Kubernetes v1.37.2")
	f.Add([]byte(`{"driverName":"d","volumeHandle":"h"}`), "v1.2.3.4")
	f.Add([]byte(`{"driverName":["d"],"driverName":null}`), "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv/mount")
	f.Fuzz(func(t *testing.T, content []byte, text string) {
		gates(content)
		k3sValues(content)
		(&Volume{}).describe(content)
		if v, ok := ParseVersion(text); ok && (v.Text == "" || !v.AtLeast(v.Major, v.Minor) || v.AtLeast(v.Major, v.Minor+1)) {
			t.Errorf("%q: %+v", text, v)
		}
		if csi, ok := CSIMount(text); ok && !MeansCSI(csi.Dir) {
			t.Errorf("%q: %+v", text, csi)
		}
		(&Process{Arguments: strings.Fields(text)}).Flag("config")
	})
}

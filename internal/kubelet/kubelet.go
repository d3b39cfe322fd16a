// Package kubelet reads what a kubelet leaves on its node: how it was started and configured, and the volumes that it has set up for pods.
//
// Do not use it to find out what a pod's spec says: that is in the API server alone, and with the container runtime (package attribution).
package kubelet

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// Process is one that is a kubelet, or calls itself so.
type Process struct {
	PID       string
	Program   string   // the path of its program, as it sees it; "" if that cannot be read
	Arguments []string // the kubelet's, the program's name not among them
	// Host says that it sees the files that PID 1 sees, so that its paths are the host's.
	Host bool
}

// Processes gives the kubelets that run, those of K3s too, which are a part of its server or agent.
func Processes(root *hostfs.Root) (all []Process) {
	entries, err := root.ReadDir("/proc")
	if err != nil {
		return nil
	}
	namespace, _ := root.Readlink("/proc/1/ns/mnt")
	for _, entry := range entries {
		pid := entry.Name()
		if pid[0] < '1' || pid[0] > '9' {
			continue
		}
		comm, err := root.ReadFile("/proc/" + pid + "/comm")
		if err != nil || !slices.Contains([]string{"kubelet", "k3s-server", "k3s-agent"}, strings.TrimSpace(string(comm))) {
			continue
		}
		p := Process{PID: pid}
		p.Program, _ = root.Readlink("/proc/" + pid + "/exe")
		of, _ := root.Readlink("/proc/" + pid + "/ns/mnt")
		p.Host = of == namespace
		if line, err := root.ReadFile("/proc/" + pid + "/cmdline"); err == nil {
			if words := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"); len(words) > 0 {
				p.Arguments = words[1:]
			}
		}
		if strings.HasPrefix(string(comm), "k3s-") {
			if !p.Host { // its files are not where it says they are
				p.Arguments = nil
			} else {
				p.Arguments = p.k3sKubelet(root)
			}
		}
		all = append(all, p)
	}
	return all
}

// Flag gives every value of a flag, in the order in which they were given.
func (p *Process) Flag(name string) []string { return p.given("--" + name) }

// given gives every value of a flag that may be written in several ways, dashes included.
func (p *Process) given(names ...string) (values []string) {
	for i, argument := range p.Arguments {
		name, value, has := strings.Cut(argument, "=")
		if !slices.Contains(names, name) {
			continue
		}
		if !has && i+1 < len(p.Arguments) {
			value = p.Arguments[i+1]
		}
		values = append(values, value)
	}
	return values
}

// Dir gives the kubelet's directory.
func (p *Process) Dir() string {
	if values := p.Flag("root-dir"); len(values) > 0 && path.IsAbs(values[len(values)-1]) {
		return path.Clean(values[len(values)-1])
	}
	return DefaultDir
}

// DefaultDir is a kubelet's directory unless it was told another one.
const DefaultDir = "/var/lib/kubelet"

// Gate tells whether a feature gate was set, and to what: by --feature-gates, else in a file of --config-dir, else in that of --config. One that is not
// set has what the version has for a default.
func (p *Process) Gate(root *hostfs.Root, name string) (on, set bool) {
	for _, file := range p.files(root) {
		content, err := root.ReadFile(file)
		if err != nil {
			continue
		}
		if value, has := gates(content)[name]; has {
			on, set = value, true
		}
	}
	for _, flag := range p.Flag("feature-gates") {
		for pair := range strings.SplitSeq(flag, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if v, err := strconv.ParseBool(strings.TrimSpace(value)); err == nil && strings.TrimSpace(key) == name {
				on, set = v, true
			}
		}
	}
	return on, set
}

// files gives the kubelet's own configuration, what counts most the last.
func (p *Process) files(root *hostfs.Root) (files []string) {
	if values := p.Flag("config"); len(values) > 0 {
		files = append(files, values[len(values)-1])
	}
	values := p.Flag("config-dir")
	if len(values) == 0 {
		return files
	}
	return append(files, filesIn(root, values[len(values)-1], ".conf")...)
}

// filesIn gives the files of a directory that end in one of these, in the order of their names.
func filesIn(root *hostfs.Root, dir string, ends ...string) (files []string) {
	entries, err := root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if slices.Contains(ends, path.Ext(e.Name())) {
			files = append(files, path.Join(dir, e.Name()))
		}
	}
	return files
}

// gates reads the feature gates of a KubeletConfiguration. What is not one has none.
func gates(content []byte) map[string]bool {
	var config struct {
		FeatureGates map[string]bool `yaml:"featureGates"`
	}
	if yaml.Unmarshal(content, &config) != nil {
		return nil
	}
	return config.FeatureGates
}

// Version is that of a kubelet.
type Version struct {
	Text         string // as the kubelet says it: v1.37.2, v1.37.2+k3s1
	Major, Minor int
}

// AtLeast tells whether a version is one or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// ParseVersion finds the version in what "kubelet --version" or "k3s --version" prints.
func ParseVersion(text string) (Version, bool) {
	for word := range strings.FieldsSeq(text) {
		number, ok := strings.CutPrefix(word, "v")
		parts := strings.SplitN(number, ".", 3)
		if !ok || len(parts) != 3 {
			continue
		}
		major, err := strconv.ParseUint(parts[0], 10, 16)
		minor, minorErr := strconv.ParseUint(parts[1], 10, 16)
		if err == nil && minorErr == nil {
			return Version{word, int(major), int(minor)}, true
		}
	}
	return Version{}, false
}

// Volume is one that the kubelet has set up for a pod.
type Volume struct {
	UID    string // the pod's
	Plugin string // csi, nfs, local-volume, ...
	// Name is that of its directory: the PersistentVolume's, or for a volume without one that in the pod's spec.
	Name string
	// Driver and Handle are what identifies a volume of CSI. Ephemeral says that it stands in the pod's spec, so that it is no PersistentVolume.
	Driver, Handle string
	Ephemeral      bool
	// Context is what the kubelet mounted it with, "" if the labels are those of the files.
	Context string
}

// Labels tells whether the volume's plugin can mount with a label: CSI, if the driver's CSIDriver says so, Fibre Channel and iSCSI
// (SupportsSELinuxContextMount in pkg/volume/* of Kubernetes 1.37).
func (v *Volume) Labels() bool { return slices.Contains([]string{"csi", "fc", "iscsi"}, v.Plugin) }

// Path is where the kubelet whose directory is dir has it mounted for its pod.
func (v *Volume) Path(dir string) string {
	return path.Join(dir, "pods", v.UID, "volumes", "kubernetes.io~"+v.Plugin, v.Name)
}

// Volumes gives the volumes that may be PersistentVolumes; others are never mounted with a label. That of a hostPath has no directory here.
// dir is the kubelet's directory.
func Volumes(root *hostfs.Root, dir string) (all []Volume) {
	own := []string{"configmap", "downward-api", "empty-dir", "git-repo", "image", "projected", "secret"}
	pods := path.Join(dir, "pods")
	for _, uid := range list(root, pods) {
		for _, qualified := range list(root, path.Join(pods, uid, "volumes")) {
			plugin, ok := strings.CutPrefix(qualified, "kubernetes.io~")
			if !ok || slices.Contains(own, plugin) {
				continue
			}
			of := path.Join(pods, uid, "volumes", qualified)
			for _, name := range list(root, of) {
				v := Volume{UID: uid, Plugin: plugin, Name: name}
				// The file is beside the mount, which is not touched: its server may be dead.
				if plugin == "csi" {
					v.describe(volumeData(root, path.Join(of, name)))
				}
				if !v.Ephemeral {
					all = append(all, v)
				}
			}
		}
	}
	return all
}

// describe reads vol_data.json (pkg/volume/csi/csi_mounter.go). What cannot be read says nothing.
func (v *Volume) describe(content []byte) {
	var data struct {
		Driver  string `json:"driverName"`
		Handle  string `json:"volumeHandle"`
		Mode    string `json:"volumeLifecycleMode"`
		Context string `json:"seLinuxMountContext"`
	}
	if json.Unmarshal(content, &data) != nil {
		return
	}
	v.Driver, v.Handle, v.Context, v.Ephemeral = data.Driver, data.Handle, data.Context, data.Mode == "Ephemeral"
}

// maxVolumeData is how long a vol_data.json may be. The kubelet's have some hundred bytes.
const maxVolumeData = 64 << 10

// volumeData reads the vol_data.json of a volume's directory. A link, what is no file and what is too long has nothing in it.
func volumeData(root *hostfs.Root, dir string) []byte {
	name := path.Join(dir, "vol_data.json")
	if info, err := root.Lstat(name); err != nil || !info.IsRegular() || info.Size > maxVolumeData {
		return nil
	}
	content, err := root.ReadFile(name)
	if err != nil {
		return nil
	}
	return content
}

// CSI is a mount that the kubelet has a CSI driver make.
type CSI struct {
	// Dir is the directory of the volume, in which the mountpoint is.
	Dir string
	// Published says that it is a pod's own mount. Otherwise it is the volume's for all pods, where it is staged before they get it.
	Published bool
}

// In the directory of any kubelet, CSI volumes are mounted at plugins/kubernetes.io/csi/DRIVER/HASH/globalmount and at
// pods/UID/volumes/kubernetes.io~csi/NAME/mount (pkg/volume/csi/csi_attacher.go, csi_mounter.go).
const (
	stagedDir = "/plugins/kubernetes.io/csi/"
	podsDir   = "/pods/"
	csiDir    = "/volumes/kubernetes.io~csi/"
)

// CSIMount tells by its mountpoint whether a mount is one of a CSI volume, and which.
func CSIMount(mountpoint string) (c CSI, ok bool) {
	c.Dir = path.Dir(mountpoint)
	// What comes before HASH or NAME.
	before, volume := path.Split(c.Dir)
	switch path.Base(mountpoint) {
	case "globalmount":
		of, driver := path.Split(path.Clean(before))
		ok = volume != "" && driver != "" && len(of) > len(stagedDir) && strings.HasSuffix(of, stagedDir)
	case "mount":
		pod, found := strings.CutSuffix(before, csiDir)
		pods, uid := path.Split(pod)
		c.Published = true
		ok = found && volume != "" && uid != "" && len(pods) > len(podsDir) && strings.HasSuffix(pods, podsDir)
	}
	if !ok {
		return CSI{}, false
	}
	return c, true
}

// Driver gives the name of the volume's driver, "" if its vol_data.json does not say it. The file is beside the mount, which is not touched.
func (c *CSI) Driver(root *hostfs.Root) string {
	var v Volume
	v.describe(volumeData(root, c.Dir))
	return v.Driver
}

// MeansCSI tells whether a pattern for mountpoints that begins with this text, before its first wildcard, can only be meant for CSI volumes.
// The directory of a kubelet is one by that name, wherever it is.
func MeansCSI(prefix string) bool {
	return strings.Contains(prefix, stagedDir) || strings.Contains(prefix, csiDir) || strings.Contains(prefix, "/kubelet"+podsDir)
}

// Used finds the volume that a directory in a pod's container is, of a pod with this UID: the plugin's own directory, or a sub-path of it
// (pkg/volume/util/subpath). volume is the name as in Volume.Name.
func Used(source, uid string) (volume string, ok bool) {
	_, below, found := strings.Cut(path.Clean(source), "/pods/"+uid+"/")
	if !found || uid == "" {
		return "", false
	}
	parts := strings.Split(below, "/")
	switch {
	case len(parts) >= 3 && parts[0] == "volumes":
		return parts[2], true
	case len(parts) >= 3 && parts[0] == "volume-subpaths":
		return parts[1], true
	}
	return "", false
}

func list(root *hostfs.Root, dir string) (names []string) {
	entries, err := root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

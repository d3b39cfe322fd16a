package stages

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// selinuxMountGate is the feature gate, and selinuxMountMinor the first release of Kubernetes 1 that has it on unless it is told otherwise
// (pkg/features/kube_features.go).
const (
	selinuxMountGate  = "SELinuxMount"
	selinuxMountMinor = 37
)

// AddSELinuxMount adds what mounting with labels does to the pods of this node. It is no part of the verdict.
func (h *Host) AddSELinuxMount(ctx context.Context, r *Readiness) {
	if h.Evidence.SELinuxMount != nil {
		r.SELinuxMount = h.Evidence.SELinuxMount(ctx)
	}
}

// node is how a node of Kubernetes is looked at.
type node struct {
	root    *hostfs.Root
	table   func() ([]*mounts.Mount, error)                      // the mount table; nil if there is none
	version func(ctx context.Context, p *kubelet.Process) string // what a kubelet says of itself
}

// selinuxMount answers what the kubelet's mounting with labels does to the pods of this node; nil where there is no kubelet.
func (n *node) selinuxMount(ctx context.Context) *SELinuxMount {
	var process *kubelet.Process
	dir := kubelet.DefaultDir
	for _, p := range kubelet.Processes(n.root) {
		if p.Host {
			process, dir = &p, p.Dir()
			break
		}
	}
	volumes := kubelet.Volumes(n.root, dir)
	if process == nil && len(volumes) == 0 {
		return nil
	}
	s := &SELinuxMount{Mounts: MountsUnknown, Because: "no kubelet runs", Conflicts: []VolumeConflict{}}
	if process != nil {
		version, known := kubelet.ParseVersion(n.version(ctx, process))
		s.Kubelet = version.Text
		s.Mounts, s.Because = mounting(version, known, func(name string) (on, set bool) { return process.Gate(n.root, name) })
	}
	for _, v := range n.shared(dir, volumes) {
		if v.labels && len(v.pods) > 1 {
			s.Shared++
		}
		if c, conflicts := v.conflict(); conflicts {
			s.Conflicts = append(s.Conflicts, c)
		}
	}
	return s
}

// mounting says whether a kubelet mounts volumes with labels. A gate that is set by itself counts more than the one of its whole kind
// (component-base/featuregate/feature_gate.go, setUnsetBetaGates).
func mounting(version kubelet.Version, known bool, gate func(name string) (on, set bool)) (Mounting, string) {
	text := printable.Text(version.Text)
	on, set := gate(selinuxMountGate)
	all, ofKind := selinuxMountKind(version), false
	if all != "" {
		ofKind, _ = gate(all)
	}
	switch since := version.AtLeast(1, selinuxMountMinor); {
	case set && on:
		return MountsLabelled, "its feature gate " + selinuxMountGate + " is set to true"
	case set && (since || !known):
		return MountsBare, "its feature gate " + selinuxMountGate + " is set to false; a later release takes the gate away"
	case !set && ofKind:
		return MountsLabelled, "its feature gate " + all + " is set to true, and " + selinuxMountGate + " is one of those in " + text
	case !known:
		return MountsUnknown, "its version is not known; it is so from 1.37 on"
	case since:
		return MountsLabelled, fmt.Sprintf("it is %s, and does so from 1.37 on", text)
	}
	return MountsBare, fmt.Sprintf("it is %s, and does so from 1.37 on, before that for ReadWriteOncePod alone", text)
}

// selinuxMountKind is the gate that turns on all gates which are at the stage that this one has in a version: alpha from 1.30 on, beta and off from
// 1.33 on; "" where there is none.
func selinuxMountKind(version kubelet.Version) string {
	switch {
	case version.AtLeast(1, selinuxMountMinor) || !version.AtLeast(1, 30):
		return ""
	case version.AtLeast(1, 33):
		return "AllBeta"
	}
	return "AllAlpha"
}

// shared joins what the kubelet set up and what the runtimes started, in the order of the volumes' names.
func (n *node) shared(dir string, volumes []kubelet.Volume) (all []*sharedVolume) {
	if len(volumes) == 0 {
		return nil
	}
	using, names := n.users()
	device := n.devices(dir, volumes)
	proved := map[string]bool{}
	for _, v := range volumes {
		proved[v.Driver] = proved[v.Driver] || v.Driver != "" && v.Context != ""
	}
	byKey := map[string]*sharedVolume{}
	for _, v := range volumes {
		containers := using[volumeOf{v.UID, v.Name}]
		if len(containers) == 0 {
			continue // nobody has started, or the pod has it as a block device
		}
		key := strings.Join([]string{v.Plugin, v.Driver, cmp.Or(v.Handle, device(v), v.Name)}, "\x00")
		if !v.Labels() {
			key += "\x00" + v.UID
		}
		one := byKey[key]
		if one == nil {
			one = &sharedVolume{key: key, name: v.Name, driver: v.Driver, plugin: v.Plugin, labels: v.Labels(), proved: proved[v.Driver], declared: v.Plugin == "csi" || v.Plugin == "local-volume"}
			byKey[key] = one
		}
		p := podLabel(names[v.UID], containers)
		if v.Context != "" {
			one.mounted = true
			if p.Asked == AskedUnknown {
				p.Asked, p.Level = AskedLevel, canonical(secontext.Context(v.Context).Level())
			}
		}
		one.pods = append(one.pods, p)
	}
	// Not slices.SortFunc, which costs 30 kB of the program for each type.
	for _, one := range byKey {
		sort.Slice(one.pods, func(i, j int) bool { return one.pods[i].Pod < one.pods[j].Pod })
		all = append(all, one)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name+"\x00"+all[i].key < all[j].name+"\x00"+all[j].key })
	return all
}

// volumeOf is a volume of a pod.
type volumeOf struct{ uid, name string }

// users gives the labels of the containers that have a volume, and the pods' names by their UIDs.
func (n *node) users() (using map[volumeOf][]containerLabel, names map[string]string) {
	using, names = map[volumeOf][]containerLabel{}, map[string]string{}
	pods := attribution.New(n.root).Pods()
	claims := map[string]string{} // level to the pod that has it; "" for several
	for _, c := range pods {
		level := canonical(secontext.Context(c.Label).Level())
		if uid, known := claims[level]; known && uid != c.UID {
			claims[level] = ""
		} else if !known {
			claims[level] = c.UID
		}
	}
	for _, c := range pods {
		names[c.UID] = c.Subject.Pod
		one := containerLabel{label: secontext.Context(c.Label), chosen: c.Level, known: c.Known, user: c.Requested.User, level: c.Requested.Level}
		one.other = c.Requested.User != "" || c.Requested.Role != "" || c.Requested.Type != ""
		one.claimed = claims[canonical(one.label.Level())] == ""
		had := map[string]bool{}
		for _, m := range c.Mounts {
			if name, ok := kubelet.Used(m.Source, c.UID); ok && !had[name] {
				had[name] = true
				using[volumeOf{c.UID, name}] = append(using[volumeOf{c.UID, name}], one)
			}
		}
	}
	return using, names
}

// devices gives the superblock of a volume that is mounted and that has no other name which pods share.
func (n *node) devices(dir string, volumes []kubelet.Volume) func(kubelet.Volume) string {
	none := func(kubelet.Volume) string { return "" }
	if n.table == nil || !slices.ContainsFunc(volumes, func(v kubelet.Volume) bool { return v.Labels() && v.Handle == "" }) {
		return none
	}
	all, err := n.table()
	if err != nil {
		return none
	}
	return func(v kubelet.Volume) string {
		at := v.Path(dir)
		if m := mounts.At(all, at); m != nil && m.Mountpoint == at {
			return m.Device.String()
		}
		return ""
	}
}

// askVersion runs the kubelet's program with --version. It runs only what nobody but root can change, and what a kubelet is called.
func askVersion(root *hostfs.Root) func(ctx context.Context, p *kubelet.Process) string {
	const limit = 10 * time.Second
	return func(ctx context.Context, p *kubelet.Process) string {
		if !root.IsHost() || !slices.Contains([]string{"kubelet", "k3s"}, path.Base(p.Program)) || root.Trusted(p.Program) != nil {
			return ""
		}
		out, err := command.Tools{Limit: limit}.Run(ctx, p.Program, "--version")
		if err != nil {
			return ""
		}
		return out.Stdout
	}
}

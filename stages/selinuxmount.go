package stages

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// SELinuxMount is the answer to a question of its own, which has no part in the verdict: which pods of this node do not start beside each other where
// the kubelet mounts volumes with their pods' label (the feature gate SELinuxMount of Kubernetes, on from 1.37 unless it is told otherwise). A permissive
// host is no exception: the kubelet asks whether SELinux is on, and no more.
type SELinuxMount struct {
	Kubelet   string           `json:"kubelet"`   // its version, "" if it could not be asked
	Mounts    Mounting         `json:"mounts"`    // whether it mounts volumes with a label
	Because   string           `json:"because"`   // why that is so, or is not known
	Shared    int              `json:"shared"`    // volumes that several pods have and that may be mounted with a label
	Conflicts []VolumeConflict `json:"conflicts"` // those of them, and of single pods, that have or may have more than one label
}

// Headline says the answer in one sentence.
func (s *SELinuxMount) Headline() string {
	does := map[Mounting]string{
		MountsLabelled: "the kubelet mounts volumes with their pods' label", MountsBare: "the kubelet does not mount volumes with their pods' label yet",
		MountsUnknown: "whether the kubelet mounts volumes with their pods' label is not known",
	}[s.Mounts]
	found := "no pod that runs here would be kept from starting by that"
	if n := len(s.Conflicts); n > 0 {
		found = fmt.Sprintf("%s keep pods of this node from starting where it does", plural(uint64(n), "volume may", "volumes may"))
	}
	return fmt.Sprintf("%s (%s); %s", does, s.Because, found)
}

// Mounting says whether a kubelet mounts volumes with the label of their pods.
type Mounting string

// The answers.
const (
	MountsLabelled Mounting = "yes"
	MountsBare     Mounting = "no"
	MountsUnknown  Mounting = "unknown"
)

// VolumeConflict is a volume for which pods of this node want more than one label.
type VolumeConflict struct {
	Volume string      `json:"volume"`           // the PersistentVolume's name
	Driver string      `json:"driver,omitempty"` // of CSI
	Plugin string      `json:"plugin"`           // of the kubelet: csi, fc, iscsi, ...
	Pods   []VolumePod `json:"pods"`             // that have it
	Labels Labels      `json:"labels"`           // how sure it is
	Effect string      `json:"effect"`           // what happens then
	Unless []string    `json:"unless"`           // what this node does not know, and any of which makes that it does not happen
	Remedy string      `json:"remedy"`           // what to change
}

// Labels says how sure it is that a volume is to have more than one label.
type Labels string

// The answers.
const (
	SameLabel    Labels = "the same"
	LabelsMay    Labels = "may differ"
	LabelsDiffer Labels = "differ"
)

// VolumePod is a pod that has a volume.
type VolumePod struct {
	Pod   string `json:"pod"`             // NAMESPACE/NAME
	Label string `json:"label,omitempty"` // that its processes were started with; absent if its runtime gave it none, as a privileged one
	Asked Asked  `json:"asked"`           // what its spec asks for
	Level string `json:"level,omitempty"` // what the volume is to have for it

	user string
}

// Asked is what the kubelet goes by: not by the label of the processes, but by seLinuxOptions in the pod's spec.
type Asked string

// The answers.
const (
	AskedLevel   Asked = "a level"
	AskedNothing Asked = "nothing"
	// AskedOther is a type, a role or a user and no level: the kubelet draws one by lot, for each pod anew.
	AskedOther   Asked = "no level"
	AskedSeveral Asked = "several levels"
	AskedUnknown Asked = "unknown"
)

// containerLabel is what is known of the label of one container.
type containerLabel struct {
	label   secontext.Context // of its processes
	chosen  string            // the level that the runtime chose for its pod
	known   bool              // user, level and other are what its pod's spec says
	user    string
	level   string
	other   bool // the spec says something else of SELinux than a level
	claimed bool // another pod has the same level, and no runtime chooses one twice
}

// asked says what the spec of a container asks for.
func (c *containerLabel) asked() (a Asked, level string) {
	level = canonical(c.label.Level())
	switch {
	case c.known && c.level != "":
		return AskedLevel, canonical(c.level)
	case c.known && c.other:
		return AskedOther, ""
	case c.known:
		return AskedNothing, ""
	case level == "":
		return AskedUnknown, ""
	case c.claimed, !drawn(level), c.chosen != "" && canonical(c.chosen) != level:
		return AskedLevel, level
	}
	return AskedUnknown, level
}

// canonical writes a level as the kernel does.
func canonical(level string) string {
	if r, err := secontext.ParseRange(level); err == nil {
		return r.String()
	}
	return level
}

// drawn tells whether a level has the form of those that runtimes choose: two categories (go-selinux, uniqMcs).
func drawn(level string) bool {
	r, err := secontext.ParseRange(level)
	if err != nil || !r.Low.Categories.Contain(r.High.Categories) || r.Low.Sensitivity != 0 {
		return false
	}
	n := 0
	for _, span := range r.Low.Categories {
		n += int(span.Last-span.First) + 1
	}
	return n == 2
}

// podLabel says what the kubelet makes of the containers of a pod that have a volume: those of which the spec says nothing do not count beside others
// (GetMountSELinuxLabel in pkg/volume/util/selinux.go of Kubernetes 1.37).
func podLabel(pod string, containers []containerLabel) VolumePod {
	p := VolumePod{Pod: pod, Asked: AskedNothing}
	var levels []string
	others, unknown := 0, false
	for i := range containers {
		c := &containers[i]
		p.Label = cmp.Or(p.Label, string(c.label))
		switch a, level := c.asked(); a {
		case AskedLevel:
			if !slices.Contains(levels, c.user+"\x00"+level) {
				levels = append(levels, c.user+"\x00"+level)
			}
			p.Level, p.user = level, c.user
		case AskedOther:
			others++
		case AskedUnknown:
			unknown = true
			if len(levels) == 0 {
				p.Level = cmp.Or(p.Level, level)
			}
		}
	}
	switch {
	case len(levels)+others > 1:
		p.Asked, p.Level = AskedSeveral, ""
	case len(levels) == 1:
		p.Asked = AskedLevel
	case others == 1:
		p.Asked, p.Level = AskedOther, ""
	case unknown:
		p.Asked = AskedUnknown
	}
	return p
}

// against compares what two pods want of one volume.
func (p *VolumePod) against(o *VolumePod) Labels {
	if p.Asked == AskedUnknown {
		p, o = o, p
	}
	same := p.Level == o.Level && (p.user == o.user || p.user == "" || o.user == "")
	switch {
	case p.Asked == AskedOther || o.Asked == AskedOther:
		return LabelsDiffer
	case o.Asked != AskedUnknown: // both are known
		if p.Asked == o.Asked && same {
			return SameLabel
		}
		return LabelsDiffer
	case p.Asked == AskedLevel && o.Level == "": // most likely privileged: it may ask for the same
		return LabelsMay
	case p.Asked == AskedLevel && !same: // it asks for its own, or for nothing
		return LabelsDiffer
	case same:
		return SameLabel
	}
	return LabelsMay
}

// sharedVolume is a volume with the pods that have it.
type sharedVolume struct {
	key                  string // what makes it this one
	name, driver, plugin string
	// labels says that its plugin can mount with a label, and proved that this driver does: the kubelet has done so.
	labels, proved bool
	// declared says that there is a PersistentVolume. Of what stands in a pod's spec the kubelet leaves the label alone.
	declared bool
	// mounted says that the kubelet has mounted it with a label for one of its pods: that one has not seLinuxChangePolicy: Recursive.
	mounted bool
	pods    []VolumePod
}

// conflict says which of the pods do not start, or not beside each other.
func (v *sharedVolume) conflict() (c VolumeConflict, conflicts bool) {
	c = VolumeConflict{Volume: v.name, Driver: v.driver, Plugin: v.plugin, Pods: v.pods, Labels: SameLabel, Unless: []string{}}
	var torn []VolumePod
	for i := range v.pods {
		p := &v.pods[i]
		if p.Asked == AskedSeveral {
			torn = append(torn, *p)
			continue
		}
		if !v.labels {
			continue
		}
		for j := range v.pods[:i] {
			if o := &v.pods[j]; o.Asked != AskedSeveral {
				c.Labels = surer(c.Labels, p.against(o))
			}
		}
	}
	if !v.declared {
		c.Unless = append(c.Unless, "the volume stands in the pods' specs, without a PersistentVolume")
	}
	if len(torn) > 0 {
		c.Pods, c.Labels = torn, LabelsDiffer
		c.Effect = "no such pod starts: its containers ask for several labels of one volume, and seLinuxChangePolicy: Recursive does not help there"
		c.Remedy = "give the containers of a pod that have the volume one seLinuxOptions.level, best in the pod's securityContext alone"
		return c, true
	}
	c.Effect = "they do not start beside each other: the second one stays in ContainerCreating"
	c.Remedy = "give them one level (securityContext.seLinuxOptions.level), or all of them securityContext.seLinuxChangePolicy: Recursive"
	if slices.ContainsFunc(v.pods, func(p VolumePod) bool { return p.Asked == AskedOther }) {
		c.Remedy = "give them one level (securityContext.seLinuxOptions.level): for options without a level the kubelet draws one for each pod; or all of them securityContext.seLinuxChangePolicy: Recursive"
	}
	if v.driver != "" && !v.proved {
		c.Unless = append(c.Unless, fmt.Sprintf("the CSIDriver %s does not have seLinuxMount: true (kubectl get csidriver %s -o jsonpath={.spec.seLinuxMount})", printable.Text(v.driver), printable.Text(v.driver)))
	}
	if c.Labels == LabelsMay {
		c.Unless = append(c.Unless, "the pods' specs ask for no level, or for one and the same: the runtime keeps no record of that here")
	}
	if !v.mounted {
		c.Unless = append(c.Unless, "all of them have seLinuxChangePolicy: Recursive already")
	}
	return c, c.Labels != SameLabel
}

func surer(a, b Labels) Labels {
	order := []Labels{SameLabel, LabelsMay, LabelsDiffer}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// String says a pod with what it wants of the volume.
func (p VolumePod) String() string {
	what := map[Asked]string{
		AskedLevel: "level " + p.Level, AskedNothing: "no SELinux options", AskedOther: "SELinux options without a level", AskedSeveral: "several levels",
		AskedUnknown: "level " + p.Level + ", of its spec or of its runtime",
	}[p.Asked]
	if p.Asked == AskedUnknown && p.Level == "" {
		what = "no label, most likely privileged"
	}
	return printable.Text(p.Pod + " (" + what + ")")
}

// String says a conflict in one line, without the remedy.
func (c VolumeConflict) String() string {
	var pods []string
	for _, p := range c.Pods {
		pods = append(pods, p.String())
	}
	of := c.Plugin
	if c.Driver != "" {
		of = c.Driver
	}
	text := fmt.Sprintf("volume %s: %s: their labels %s: %s", printable.Text(c.Volume+" ("+of+")"), strings.Join(pods, ", "), c.Labels, c.Effect)
	if len(c.Unless) > 0 {
		text += "; unless " + strings.Join(c.Unless, ", or ")
	}
	return text
}

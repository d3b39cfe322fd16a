package stages

import (
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

const process = "system_u:system_r:container_t:"

// spec is a container of which the runtime keeps what its pod's spec says: user:level, or "type" for an option that is no level.
func spec(says string) containerLabel {
	c := containerLabel{known: true, label: process + "s0:c1,c2"}
	switch {
	case says == "type":
		c.other = true
	case strings.Contains(says, "_u "):
		c.user, c.level, _ = strings.Cut(says, " ")
	default:
		c.level = says
	}
	return c
}

// ran is one of which only the label of its processes is known.
func ran(level string) containerLabel {
	c := containerLabel{chosen: level}
	if level != "" {
		c.label = secontext.Context(process + level)
	}
	return c
}

// What the kubelet makes of the containers of a pod that have a volume.
func TestPodLabel(t *testing.T) {
	t.Parallel()
	claimed, other, drawnElsewhere := ran("s0:c7,c9"), ran("s0:c7,c9"), ran("s0:c7,c9")
	claimed.claimed, other.chosen, drawnElsewhere.chosen = true, "s0:c1,c2", "s0:c9,c7"
	for _, c := range []struct {
		name       string
		containers []containerLabel
		asked      Asked
		level      string
	}{
		{"a level", []containerLabel{spec("s0:c10,c20")}, AskedLevel, "s0:c10,c20"},
		{"in another order", []containerLabel{spec("s0:c20,c10")}, AskedLevel, "s0:c10,c20"},
		{"nothing", []containerLabel{spec("")}, AskedNothing, ""},
		{"a type alone", []containerLabel{spec("type")}, AskedOther, ""},
		{"one for both", []containerLabel{spec("s0:c1,c2"), spec("s0:c1,c2")}, AskedLevel, "s0:c1,c2"},
		{"one, and one that says nothing", []containerLabel{spec(""), spec("s0:c1,c2")}, AskedLevel, "s0:c1,c2"},
		{"two", []containerLabel{spec("s0:c1,c2"), spec("s0:c1,c3")}, AskedSeveral, ""},
		{"two users", []containerLabel{spec("a_u s0"), spec("b_u s0")}, AskedSeveral, ""},
		{"a type alone, twice: each is drawn", []containerLabel{spec("type"), spec("type")}, AskedSeveral, ""},
		{"a level and a type alone", []containerLabel{spec("s0:c1,c2"), spec("type")}, AskedSeveral, ""},
		{"of its spec or of its runtime", []containerLabel{ran("s0:c7,c9")}, AskedUnknown, "s0:c7,c9"},
		{"no label", []containerLabel{ran("")}, AskedUnknown, ""},
		{"a privileged one beside another", []containerLabel{ran(""), ran("s0:c7,c9")}, AskedUnknown, "s0:c7,c9"},
		{"no runtime chooses s0", []containerLabel{ran("s0")}, AskedLevel, "s0"},
		{"nor one category", []containerLabel{ran("s0:c5")}, AskedLevel, "s0:c5"},
		{"nor three", []containerLabel{ran("s0:c5,c7,c9")}, AskedLevel, "s0:c5,c7,c9"},
		{"nor a range", []containerLabel{ran("s0-s0:c5,c7")}, AskedLevel, "s0-s0:c5,c7"},
		{"two in a row", []containerLabel{ran("s0:c5,c6")}, AskedUnknown, "s0:c5,c6"},
		{"another pod has it too", []containerLabel{claimed}, AskedLevel, "s0:c7,c9"},
		{"not the one that the runtime chose for the pod", []containerLabel{other}, AskedLevel, "s0:c7,c9"},
		{"the one that the runtime chose", []containerLabel{drawnElsewhere}, AskedUnknown, "s0:c7,c9"},
		{"a known one and one that is not", []containerLabel{ran("s0:c7,c9"), spec("s0:c1,c2")}, AskedLevel, "s0:c1,c2"},
	} {
		if p := podLabel("default/web", c.containers); p.Asked != c.asked || p.Level != c.level || p.Pod != "default/web" {
			t.Errorf("%s: %q, %q; want %q, %q", c.name, p.Asked, p.Level, c.asked, c.level)
		}
	}
}

// Two pods that have one volume: the rule of the kubelet, and what can be said where not everything is known.
func TestVolumeOfTwoPods(t *testing.T) {
	t.Parallel()
	pods := map[string]containerLabel{
		"level 1": spec("s0:c1,c2"), "level 2": spec("s0:c3,c4"), "level 1 of user a": spec("a_u s0:c1,c2"), "level 1 of user b": spec("b_u s0:c1,c2"),
		"nothing": spec(""), "type": spec("type"), "ran 1": ran("s0:c1,c2"), "ran 2": ran("s0:c3,c4"), "bare": ran(""),
	}
	for _, c := range []struct {
		one, other string
		want       Labels
	}{
		{"level 1", "level 1", SameLabel},
		{"level 1", "level 2", LabelsDiffer},
		{"level 1", "nothing", LabelsDiffer}, // privileged beside unprivileged
		{"level 1", "type", LabelsDiffer},
		{"level 1", "level 1 of user a", SameLabel}, // which may be the default
		{"level 1 of user a", "level 1 of user b", LabelsDiffer},
		{"nothing", "nothing", SameLabel}, // most pods: the runtime labels the files as ever
		{"nothing", "type", LabelsDiffer},
		{"type", "type", LabelsDiffer},
		{"type", "bare", LabelsDiffer},
		{"level 1", "ran 1", SameLabel},
		{"level 1", "ran 2", LabelsDiffer}, // whether that is asked for or chosen: it is another
		{"level 1", "bare", LabelsMay},
		{"nothing", "ran 1", LabelsMay},
		{"nothing", "bare", SameLabel},
		{"ran 1", "ran 1", SameLabel},
		{"ran 1", "ran 2", LabelsMay},
		{"ran 1", "bare", LabelsMay},
		{"bare", "bare", SameLabel},
	} {
		for _, order := range [][]string{{c.one, c.other}, {c.other, c.one}} {
			a, b := podLabel("default/a", []containerLabel{pods[order[0]]}), podLabel("default/b", []containerLabel{pods[order[1]]})
			for _, v := range []sharedVolume{
				{name: "pv", driver: "csi.example.com", plugin: "csi", labels: true, declared: true, pods: []VolumePod{a, b}},
				{name: "pv", driver: "csi.example.com", plugin: "csi", labels: true, declared: true, proved: true, mounted: true, pods: []VolumePod{a, b}},
				{name: "pv", plugin: "nfs", pods: []VolumePod{a, b}},
			} {
				want := c.want
				if !v.labels {
					want = SameLabel // its plugin never mounts with a label
				}
				got, conflicts := v.conflict()
				if got.Labels != want || conflicts != (want != SameLabel) {
					t.Errorf("%v of %s: labels %q, conflicts: %v; want %q", order, v.plugin, got.Labels, conflicts, want)
				}
				if !conflicts {
					continue
				}
				if asks := strings.Contains(strings.Join(got.Unless, "\n"), "kubectl get csidriver csi.example.com"); asks == v.proved {
					t.Errorf("%v, the driver proved: %v: unless %v", order, v.proved, got.Unless)
				}
				if asks := strings.Contains(strings.Join(got.Unless, "\n"), "seLinuxChangePolicy: Recursive"); asks == v.mounted {
					t.Errorf("%v, mounted with a label: %v: unless %v", order, v.mounted, got.Unless)
				}
				if asks := strings.Contains(strings.Join(got.Unless, "\n"), "the runtime keeps no record"); asks != (want == LabelsMay) {
					t.Errorf("%v: unless %v", order, got.Unless)
				}
				if !strings.Contains(got.Remedy, "seLinuxChangePolicy: Recursive") || !strings.Contains(got.Remedy, "seLinuxOptions.level") || !strings.Contains(got.Effect, "ContainerCreating") {
					t.Errorf("%v: %s: %s", order, got.Effect, got.Remedy)
				}
			}
		}
	}
}

// One pod whose containers want several labels of a volume does not start, whatever the volume's plugin is, and whoever else has it.
func TestVolumeOfATornPod(t *testing.T) {
	t.Parallel()
	torn := podLabel("default/torn", []containerLabel{spec("s0:c1,c2"), spec("s0:c3,c4")})
	other := podLabel("default/other", []containerLabel{spec("s0:c1,c2")})
	for _, v := range []sharedVolume{
		{name: "pv", plugin: "csi", driver: "d", labels: true, declared: true, pods: []VolumePod{other, torn}},
		{name: "pv", plugin: "local-volume", declared: true, pods: []VolumePod{torn}},
		{name: "pv", plugin: "nfs", pods: []VolumePod{torn}},
	} {
		c, conflicts := v.conflict()
		if !conflicts || c.Labels != LabelsDiffer || len(c.Pods) != 1 || c.Pods[0].Pod != "default/torn" || !strings.Contains(c.Effect, "does not help") {
			t.Errorf("%s: %v, %+v", v.plugin, conflicts, c)
		}
		if strings.Contains(c.Remedy, "Recursive") {
			t.Errorf("%s: Recursive does not help: %s", v.plugin, c.Remedy)
		}
		if has := slices.ContainsFunc(c.Unless, func(u string) bool { return strings.Contains(u, "without a PersistentVolume") }); has == v.declared {
			t.Errorf("%s: unless %v", v.plugin, c.Unless)
		}
	}
}

// From which version on a kubelet mounts with labels, and what it may be told.
func TestMounting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version string
		gates   map[string]bool
		want    Mounting
		says    string
	}{
		{"Kubernetes v1.36.3", nil, MountsBare, "v1.36.3"},
		{"Kubernetes v1.37.0", nil, MountsLabelled, "v1.37.0"},
		{"Kubernetes v1.100.2", nil, MountsLabelled, "v1.100.2"},
		{"Kubernetes v2.0.0", nil, MountsLabelled, "v2.0.0"},
		{"Kubernetes v1.36.3", map[string]bool{"SELinuxMount": true}, MountsLabelled, "set to true"},
		{"Kubernetes v1.37.2", map[string]bool{"SELinuxMount": false}, MountsBare, "set to false"},
		{"Kubernetes v1.36.3", map[string]bool{"SELinuxMount": false}, MountsBare, "v1.36.3"},
		{"Kubernetes v1.36.3", map[string]bool{"AllBeta": true}, MountsLabelled, "AllBeta is set to true"},
		{"Kubernetes v1.33.0", map[string]bool{"AllBeta": true}, MountsLabelled, "AllBeta"},
		{"Kubernetes v1.36.3", map[string]bool{"AllBeta": true, "SELinuxMount": false}, MountsBare, "v1.36.3"},
		{"Kubernetes v1.36.3", map[string]bool{"AllAlpha": true}, MountsBare, "v1.36.3"},
		{"Kubernetes v1.32.7", map[string]bool{"AllAlpha": true}, MountsLabelled, "AllAlpha"},
		{"Kubernetes v1.32.7", map[string]bool{"AllBeta": true}, MountsBare, "v1.32.7"},
		{"Kubernetes v1.29.1", map[string]bool{"AllAlpha": true, "AllBeta": true}, MountsBare, "v1.29.1"},
		{"Kubernetes v1.37.2", map[string]bool{"AllBeta": false}, MountsLabelled, "v1.37.2"},
		{"", map[string]bool{"AllBeta": true}, MountsUnknown, "not known"},
		{"", nil, MountsUnknown, "not known"},
		{"", map[string]bool{"SELinuxMount": true}, MountsLabelled, "set to true"},
		{"", map[string]bool{"SELinuxMount": false}, MountsBare, "set to false"},
	} {
		version, known := kubelet.ParseVersion(c.version)
		gate := func(name string) (on, set bool) { on, set = c.gates[name]; return on, set }
		if got, why := mounting(version, known, gate); got != c.want || !strings.Contains(why, c.says) {
			t.Errorf("%q with %v: %q, %q", c.version, c.gates, got, why)
		}
	}
}

package judge

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

const (
	files = "system_u:object_r:container_file_t:s0"
	other = "system_u:object_r:container_ro_file_t:s0"
)

// disk is a mount of a plain file system. Each key=value changes one thing.
func disk(point string, change ...func(*mounts.Mount)) *mounts.Mount {
	m := &mounts.Mount{
		ID: 100, Parent: 1, Device: mounts.Device{Major: 8, Minor: 1}, Root: "/", Mountpoint: point, Options: "rw,relatime", FSType: "ext4",
		Source: "/dev/sda1", SuperOptions: "rw,seclabel",
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func on(fstype, super string) func(*mounts.Mount) {
	return func(m *mounts.Mount) { m.FSType, m.SuperOptions = fstype, super }
}

func id(n int) func(*mounts.Mount) { return func(m *mounts.Mount) { m.ID = n } }

func device(minor uint32) func(*mounts.Mount) {
	return func(m *mounts.Mount) { m.Device.Minor = minor }
}

func parent(n int) func(*mounts.Mount) { return func(m *mounts.Mount) { m.Parent = n } }

func root(dir string) func(*mounts.Mount) { return func(m *mounts.Mount) { m.Root = dir } }

func readOnly(m *mounts.Mount) {
	m.Options = "ro"
	m.SuperOptions = "ro" + strings.TrimPrefix(m.SuperOptions, "rw")
}

func at(point string) Match { return Match{Mountpoint: point} }

// Proves V11.
func TestJudge(t *testing.T) {
	host := Host{SELinux: true, DefaultContext: "system_u:object_r:container_file_t:s0:c1"}
	data := Rule{Name: "data", Source: "c.yaml:3", Match: at("/data"), Strategy: Auto}
	with := func(change func(*Rule)) []Rule { r := data; change(&r); return []Rule{r} }
	strategy := func(s Strategy) []Rule { return with(func(r *Rule) { r.Strategy = s }) }
	matching := func(m Match) []Rule { return with(func(r *Rule) { r.Match = m }) }
	second := func(m Match, context string) Rule {
		return Rule{Name: "second", Source: "c.yaml:9", Match: m, Context: context, Strategy: Auto}
	}
	type table = []*mounts.Mount // the first one is judged
	for _, c := range []struct {
		name  string
		host  Host
		rules []Rule
		table table
		facts Facts
		want  Outcome
		code  Code
		says  string // part of the reason
		label string
	}{
		{name: "no rules", table: table{disk("/data")}, want: Undeclared},
		{name: "another mountpoint", rules: []Rule{data}, table: table{disk("/other")}, want: Undeclared},

		// The ways.
		{name: "auto", rules: []Rule{data}, table: table{disk("/data")}, want: WantsContext, label: files},
		{name: "auto, no labels on files", rules: []Rule{data}, table: table{disk("/data", on("vfat", "rw"))}, want: WantsContext, label: files},
		{name: "auto, mounted twice", rules: []Rule{data}, table: table{disk("/data"), disk("/again", id(101))}, want: WantsRelabel},
		{name: "auto, mounted twice, no labels on files", rules: []Rule{data},
			table: table{disk("/data", on("vfat", "rw")), disk("/again", id(101), on("vfat", "rw"))}, want: Refused, code: CodeSeveralMounts},
		{name: "context", rules: strategy(Context), table: table{disk("/data")}, want: WantsContext},
		{name: "context, mounted twice", rules: strategy(Context), table: table{disk("/data"), disk("/again", id(101))},
			want: Refused, code: CodeSeveralMounts},
		{name: "relabel", rules: strategy(Relabel), table: table{disk("/data")}, want: WantsRelabel},
		{name: "relabel, mounted twice", rules: strategy(Relabel), table: table{disk("/data"), disk("/again", id(101))}, want: WantsRelabel},
		{name: "relabel, no labels on files", rules: strategy(Relabel), table: table{disk("/data", on("vfat", "rw"))},
			want: Refused, code: CodeNoRelabel, says: "the files of a vfat take no labels here"},
		{name: "relabel, read-only", rules: strategy(Relabel), table: table{disk("/data", readOnly)}, want: Refused, code: CodeReadOnly},
		{name: "auto, read-only", rules: []Rule{data}, table: table{disk("/data", on("iso9660", "rw"), readOnly)}, want: WantsContext},
		{name: "auto, read-only, mounted twice", rules: []Rule{data},
			table: table{disk("/data", readOnly), disk("/again", id(101), readOnly)}, want: Refused, code: CodeSeveralMounts},
		{name: "relabel, mounted with a label for files without one", rules: strategy(Relabel), table: table{disk("/data", on("ext4", "rw,seclabel,defcontext="+other))}, want: WantsRelabel},
		{name: "context, mounted with a label for files without one", rules: strategy(Context), table: table{disk("/data", on("ext4", "rw,seclabel,defcontext="+other))},
			want: Refused, code: CodeOtherContext, says: "defcontext="},
		{name: "paths force a relabelling", rules: with(func(r *Rule) { r.Paths = []string{"a"} }), table: table{disk("/data")}, want: WantsRelabel},

		// What would be lost is not unmounted, whatever could mount it again.
		{name: "tmpfs, auto", rules: []Rule{data}, table: table{disk("/data", on("tmpfs", "rw,seclabel"))}, want: WantsRelabel, label: files},
		{name: "tmpfs, auto, mounted twice", rules: []Rule{data},
			table: table{disk("/data", on("tmpfs", "rw,seclabel")), disk("/again", id(101), on("tmpfs", "rw,seclabel"))}, want: WantsRelabel},
		{name: "tmpfs, context", rules: strategy(Context), table: table{disk("/data", on("tmpfs", "rw,seclabel"))}, want: Refused, code: CodeNoRemount,
			says: "what is in a tmpfs is lost when it is unmounted"},
		{name: "tmpfs, context, mounted twice", rules: strategy(Context),
			table: table{disk("/data", on("tmpfs", "rw,seclabel")), disk("/again", id(101), on("tmpfs", "rw,seclabel"))}, want: Refused, code: CodeNoRemount},
		{name: "tmpfs, auto, read-only", rules: []Rule{data}, table: table{disk("/data", on("tmpfs", "rw,seclabel"), readOnly)}, want: Refused, code: CodeNoRemount},
		{name: "tmpfs, relabel", rules: strategy(Relabel), table: table{disk("/data", on("tmpfs", "rw,seclabel"))}, want: WantsRelabel},
		{name: "tmpfs, another option", rules: []Rule{data}, table: table{disk("/data", on("tmpfs", "rw,context="+other))}, want: Refused, code: CodeNoRemount},
		{name: "tmpfs, right by option", rules: []Rule{data}, table: table{disk("/data", on("tmpfs", "rw,context="+files))}, want: Right},
		{name: "ramfs, no labels on files", rules: []Rule{data}, table: table{disk("/data", on("ramfs", "rw"))}, want: Refused, code: CodeNoRemount},

		// The label.
		{name: "level alone", rules: with(func(r *Rule) { r.Level = "s0:c10,c20" }), table: table{disk("/data")}, want: WantsContext,
			label: "system_u:object_r:container_file_t:s0:c10,c20"},
		{name: "whole context", rules: with(func(r *Rule) { r.Context = other }), table: table{disk("/data")}, want: WantsContext, label: other},
		{name: "no default", host: Host{SELinux: true}, rules: []Rule{data}, table: table{disk("/data")}, want: Refused, code: CodeNoDefault},
		{name: "no default, and none needed", host: Host{SELinux: true}, rules: with(func(r *Rule) { r.Context = other }),
			table: table{disk("/data")}, want: WantsContext, label: other},

		// Already right.
		{name: "right by option", rules: []Rule{data}, table: table{disk("/data", on("ext4", "rw,context="+files))}, want: Right},
		{name: "right by option, quoted, in the kernel's order", rules: with(func(r *Rule) { r.Level = "s0:c20,c1.c3" }),
			table: table{disk("/data", on("ext4", `rw,context="system_u:object_r:container_file_t:s0:c1,c2,c3,c20"`))}, want: Right},
		{name: "right by option, relabel declared", rules: strategy(Relabel), table: table{disk("/data", on("ext4", "rw,context="+files))}, want: Right},
		{name: "right by option, and mounted twice", rules: []Rule{data},
			table: table{disk("/data", on("ext4", "rw,context="+files)), disk("/again", id(101), on("ext4", "rw,context="+files))}, want: Right},
		{name: "right by option, and a part only", rules: []Rule{data},
			table: table{disk("/data", root("/sub"), on("ext4", "rw,context="+files))}, want: Right},
		{name: "right by option, and mounted before", rules: []Rule{data},
			table: table{disk("/data", id(101), on("ext4", "rw,context="+files)), disk("/first", id(90), on("ext4", "rw,context="+files))}, want: Right},
		{name: "right by option, and another rule", rules: []Rule{data, second(at("/again"), other)},
			table: table{disk("/data", on("ext4", "rw,context="+files)), disk("/again", id(101), on("ext4", "rw,context="+files))},
			want:  Refused, code: CodeTwoLabels},
		{name: "another option", rules: []Rule{data}, table: table{disk("/data", on("ext4", "rw,context="+other))}, want: WantsContext},
		{name: "another option, relabel declared", rules: strategy(Relabel), table: table{disk("/data", on("ext4", "rw,context="+other))},
			want: Refused, code: CodeOtherContext, says: other},
		{name: "right option, paths declared", rules: with(func(r *Rule) { r.Paths = []string{"a"} }),
			table: table{disk("/data", on("ext4", "rw,context="+files))}, want: Refused, code: CodeOtherContext},
		{name: "another option, mounted twice", rules: []Rule{data},
			table: table{disk("/data", on("ext4", "rw,context="+other)), disk("/again", id(101), on("ext4", "rw,context="+other))},
			want:  Refused, code: CodeSeveralMounts},
		{name: "labelled before", rules: []Rule{data}, table: table{disk("/data")}, facts: Facts{RootLabel: files, Labelled: files}, want: Right},
		{name: "root is right, nothing recorded", rules: []Rule{data}, table: table{disk("/data")}, facts: Facts{RootLabel: files}, want: WantsContext},
		{name: "recorded, root is wrong", rules: strategy(Relabel), table: table{disk("/data")}, facts: Facts{RootLabel: other, Labelled: files},
			want: WantsRelabel},
		{name: "labelled with another", rules: strategy(Relabel), table: table{disk("/data")}, facts: Facts{RootLabel: other, Labelled: other},
			want: WantsRelabel},
		{name: "labelled before, context declared", rules: strategy(Context), table: table{disk("/data")},
			facts: Facts{RootLabel: files, Labelled: files}, want: WantsContext},
		{name: "paths labelled before", rules: with(func(r *Rule) { r.Paths = []string{"a"} }), table: table{disk("/data")},
			facts: Facts{RootLabel: "system_u:object_r:unlabeled_t:s0", Labelled: files}, want: Right},
		{name: "paths labelled before with another", rules: with(func(r *Rule) { r.Paths = []string{"a"} }), table: table{disk("/data")},
			facts: Facts{RootLabel: files, Labelled: other}, want: WantsRelabel},

		// A container's own.
		{name: "a container's since", rules: strategy(Relabel), table: table{disk("/data")}, facts: Facts{Taken: other + ":c1"}, want: TakenOver, code: CodeTakenOver,
			says: "as a container's runtime gives it"},
		{name: "auto, a container's that runs", rules: []Rule{data}, table: table{disk("/data")}, facts: Facts{Taken: other + ":c1", Container: "container web"}, want: TakenOver,
			code: CodeTakenOver, says: "container web, which runs"},
		{name: "a container's, and meant to be", rules: with(func(r *Rule) { r.Private = true }), table: table{disk("/data")}, facts: Facts{Taken: other + ":c1"}, want: Right},
		{name: "meant for a container that has not come yet", rules: with(func(r *Rule) { r.Private = true }), table: table{disk("/data")}, want: WantsRelabel},
		{name: "meant for a container, and mounted with another option", rules: with(func(r *Rule) { r.Private = true }),
			table: table{disk("/data", on("ext4", "rw,context="+other))}, want: Refused, code: CodeOtherContext},
		{name: "a container's, and another rule wants another label", rules: []Rule{data, second(at("/again"), other)},
			table: table{disk("/data"), disk("/again", id(101))}, facts: Facts{Taken: other + ":c1"}, want: Refused, code: CodeTwoLabels},

		// Refused.
		{name: "SELinux off", host: Host{DefaultContext: files}, rules: []Rule{data}, table: table{disk("/data")}, want: Refused, code: CodeSELinuxOff},
		{name: "Btrfs", rules: []Rule{data}, table: table{disk("/data", on("btrfs", "rw,seclabel,subvol=/"))}, want: Refused, code: CodeBtrfs,
			says: "one context= would hold for every subvolume"},
		{name: "Btrfs subvolume", rules: []Rule{data}, table: table{disk("/data", on("btrfs", "rw,seclabel,subvol=/x"), root("/x"))},
			want: Refused, code: CodeBtrfs, says: "snapshot"},
		{name: "bind mount of a part", rules: []Rule{data}, table: table{disk("/data", root("/sub"))}, want: Refused, code: CodeBind, says: "/sub"},
		{name: "a directory of an SMB share, mounted by itself", rules: []Rule{data}, table: table{disk("/data", root("/sub"), on("cifs", "rw,vers=3.1.1"))}, want: WantsContext},
		{name: "a directory of an SMB share, relabel declared", rules: strategy(Relabel), table: table{disk("/data", root("/sub"), on("cifs", "rw,vers=3.1.1"))},
			want: Refused, code: CodeNoRelabel},
		{name: "bind mount of a directory of an SMB share", rules: []Rule{data},
			table: table{disk("/data", id(101), root("/sub"), on("cifs", "rw,vers=3.1.1")), disk("/srv/share", on("cifs", "rw,vers=3.1.1"))}, want: Refused, code: CodeBind, says: "/sub"},
		{name: "bind mount of the whole of something else", rules: []Rule{data},
			table: table{disk("/data", id(101)), disk("/first", id(90))}, want: Refused, code: CodeBind, says: "/first"},
		{name: "bind mount of the system", rules: []Rule{data}, table: table{disk("/data", id(101)), disk("/", id(90))}, want: Refused, code: CodeBind},
		{name: "the system", rules: matching(at("/etc")), table: table{disk("/etc")}, want: Refused, code: CodeProhibited},
		{name: "within the system", rules: matching(at("/usr/local/x")), table: table{disk("/usr/local/x")}, want: Refused, code: CodeProhibited},
		{name: "the system's Btrfs", rules: matching(at("/oem")), table: table{disk("/oem", on("btrfs", "rw,seclabel"))}, want: Refused, code: CodeProhibited},
		{name: "made by the kernel", rules: matching(at("/data")), table: table{disk("/data", on("proc", "rw"))}, want: Refused, code: CodeNoWay, says: "proc"},
		{name: "tie", rules: []Rule{data, second(at("/data"), other)}, table: table{disk("/data")}, want: Refused, code: CodeTie,
			says: `the rules "data" (c.yaml:3) and "second" (c.yaml:9) match it equally well`},
		{name: "tie with one label", rules: []Rule{data, second(at("/data"), "")}, table: table{disk("/data")}, want: Refused, code: CodeTie},
		{name: "two labels", rules: []Rule{data, second(at("/again"), other)}, table: table{disk("/data"), disk("/again", id(101))},
			want: Refused, code: CodeTwoLabels, says: `the rule "second" (c.yaml:9) wants another label for the same file system at /again`},
		{name: "two rules, one label", rules: []Rule{data, second(at("/again"), files)}, table: table{disk("/data"), disk("/again", id(101))},
			want: WantsRelabel},
		{name: "a rule for the system's own mount of it is no second label", rules: []Rule{data, second(at("/usr/local/x"), other)},
			table: table{disk("/data"), disk("/usr/local/x", id(101))}, want: WantsRelabel},
		{name: "a rule for the kubelet's mount of it is no second label", rules: []Rule{data, second(at("/var/lib/kubelet/**"), other)},
			table: table{disk("/data"), disk("/var/lib/kubelet/pods/1/volumes/x", id(101))}, want: WantsRelabel},

		// Left alone.
		{name: "kubelet", rules: matching(at("/var/lib/kubelet/**")), table: table{disk("/var/lib/kubelet/pods/1/volumes/x")}, want: LeftAlone, code: CodeKubelet},
		{name: "Docker, declared or not", table: table{disk("/var/lib/docker/overlay2/x/merged", on("overlay", "rw,seclabel"))},
			want: LeftAlone, code: CodeDocker},
		{name: "containerd", table: table{disk("/run/containerd/x/rootfs")}, want: LeftAlone, code: CodeContainerd},
		{name: "Podman", table: table{disk("/var/lib/containers/storage/overlay/x/merged")}, want: LeftAlone, code: CodePodman},
		{name: "CRI-O", table: table{disk("/run/crio/x")}, want: LeftAlone, code: CodeCRIO},
		{name: "Docker elsewhere", rules: matching(at("/data/**")), table: table{disk("/data/docker/overlay2/ab12/merged", on("overlay", "rw,seclabel"))}, want: LeftAlone, code: CodeDocker},
		{name: "containerd elsewhere", rules: matching(at("/data/**")), table: table{disk("/data/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs", on("overlay", "rw,seclabel"))},
			want: LeftAlone, code: CodeContainerd},
		{name: "a secret of a kubelet elsewhere", rules: matching(Match{FSType: "tmpfs"}),
			table: table{disk("/data/kubelet/pods/u/volumes/kubernetes.io~secret/tls", on("tmpfs", "rw,seclabel"))}, want: LeftAlone, code: CodeKubelet},
		{name: "a secret of Nomad's", rules: matching(Match{FSType: "tmpfs"}), table: table{disk("/srv/nomad/alloc/6f/web/secrets", on("tmpfs", "rw,seclabel"))}, want: LeftAlone, code: CodeNomad},
		{name: "of K0s", rules: matching(at("/var/lib/**")), table: table{disk("/var/lib/k0s/kubelet/pods/u/volumes/kubernetes.io~empty-dir/x")}, want: LeftAlone, code: CodeKubelet},
		{name: "in a directory that Docker was told to use", rules: matching(at("/data/**")), table: table{disk("/data/docker/x")}, facts: Facts{Owner: "docker"}, want: LeftAlone, code: CodeDocker},
		{name: "a rule for Docker's mount of it elsewhere is no second label", rules: []Rule{data, second(at("/big/**"), other)},
			table: table{disk("/data"), disk("/big/docker/overlay2/ab12/merged", id(101))}, want: WantsRelabel},
		{name: "covered", rules: []Rule{data}, table: table{disk("/data"), disk("/data", id(101), device(2), parent(100))}, want: LeftAlone, code: CodeCovered},
		{name: "the cover", rules: []Rule{data}, table: table{disk("/data", id(101), device(2), parent(100)), disk("/data")}, want: WantsContext},
		{name: "automount point", rules: []Rule{data}, table: table{disk("/data", on("autofs", "rw"))}, want: LeftAlone, code: CodeSystem},
		{name: "the system, met by type", rules: matching(Match{FSType: "btrfs"}), table: table{disk("/usr", on("btrfs", "ro,seclabel"))},
			want: LeftAlone, code: CodeSystem},
		{name: "Btrfs, met by type", rules: matching(Match{FSType: "btrfs"}), table: table{disk("/data", on("btrfs", "rw,seclabel"))},
			want: Refused, code: CodeBtrfs},
		{name: "the system, met by pattern", rules: matching(at("/**")), table: table{disk("/")}, want: LeftAlone, code: CodeSystem},
		{name: "made by the kernel, met by pattern", rules: matching(at("/**")), table: table{disk("/x/proc", on("proc", "rw"))},
			want: LeftAlone, code: CodeSystem},
		{name: "a user's directory, met by type", rules: matching(Match{FSType: "tmpfs"}), table: table{disk("/run/user/0", on("tmpfs", "rw,seclabel"))},
			want: LeftAlone, code: CodeSystem},
		{name: "a stick, met by type", rules: matching(Match{FSType: "vfat"}), table: table{disk("/run/media/stick", on("vfat", "rw"))}, want: WantsContext},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.host == (Host{}) {
				c.host = host
			}
			rules, err := NewRules(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			byAge := append(table{}, c.table...)
			if len(byAge) > 1 && byAge[0].ID > byAge[1].ID {
				byAge[0], byAge[1] = byAge[1], byAge[0]
			}
			v := rules.Judge(c.host, mounts.NewTable(byAge), c.table[0], c.facts)
			if v.Outcome != c.want || v.Code != c.code || !strings.Contains(v.Reason, c.says) || c.label != "" && v.Want != c.label {
				t.Errorf("got  %s %s %q %s\nwant %s %s %q %s", v.Outcome, v.Code, v.Reason, v.Want, c.want, c.code, c.says, c.label)
			}
			if v.Outcome == Refused && (v.Reason == "" || v.Remedy == "") {
				t.Error("refused without reason and remedy")
			}
			if v.Mount != c.table[0] {
				t.Error("it is the verdict of another mount")
			}
			if (v.Code == CodeTie || v.Code == CodeTwoLabels) != (len(v.Rules) == 2) {
				t.Errorf("%d rules are named", len(v.Rules))
			}
		})
	}
}

const (
	staged      = "/var/lib" + stagedBelow
	stagedBelow = "/kubelet/plugins/kubernetes.io/csi/shares.example.com/0a1b/globalmount"
	published   = "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount"
)

// The kubelet's volumes: never unless a rule asks for them, only in place, and no other of its mounts.
func TestJudgeKubeletsVolumes(t *testing.T) {
	host := Host{SELinux: true, DefaultContext: files}
	rule := func(m Match) Rule { return Rule{Name: "shares", Source: "c.yaml:3", Match: m, Strategy: Auto} }
	byDriver := rule(Match{CSIDriver: "shares.example.com"})
	byPath := rule(at("/var/lib/kubelet/plugins/kubernetes.io/csi/shares.example.com/**"))
	byDriver.Name = "by-driver"
	with := func(r Rule, change func(*Rule)) []Rule { change(&r); return []Rule{r} }
	general := []Rule{{Name: "1", Match: at("/var/lib/**")}, {Name: "2", Match: Match{FSType: "ext4"}}, {Name: "3", Match: at("/var/lib/kubelet/**")}}
	second := Rule{Name: "second", Source: "c.yaml:9", Match: at("/srv/data"), Context: other, Strategy: Auto}
	type table = []*mounts.Mount // the first one is judged
	for _, c := range []struct {
		name   string
		rules  []Rule
		table  table
		driver string
		facts  Facts
		want   Outcome
		code   Code
		says   string // part of the reason
		rule   string
	}{
		{name: "no rule asks", rules: general, table: table{disk(staged)}, driver: "shares.example.com", want: LeftAlone, code: CodeKubelet},
		{name: "no rule asks, the pod's", rules: general, table: table{disk(published)}, driver: "shares.example.com", want: LeftAlone, code: CodeKubelet},
		{name: "no rules", table: table{disk(staged)}, want: LeftAlone, code: CodeKubelet},
		{name: "by driver", rules: []Rule{byDriver}, table: table{disk(staged)}, driver: "shares.example.com", want: WantsRelabel},
		{name: "by driver, the pod's alone", rules: []Rule{byDriver}, table: table{disk(published)}, driver: "shares.example.com", want: WantsRelabel},
		{name: "another driver", rules: []Rule{byDriver}, table: table{disk(staged)}, driver: "shares.example.co", want: LeftAlone, code: CodeKubelet},
		{name: "unknown driver", rules: []Rule{byDriver}, table: table{disk(staged)}, want: LeftAlone, code: CodeKubelet},
		{name: "by driver, and outside", rules: []Rule{byDriver}, table: table{disk("/srv/data")}, driver: "shares.example.com", want: Undeclared},
		{name: "by driver, and by type of another", rules: with(byDriver, func(r *Rule) { r.Match.FSType = "xfs" }), table: table{disk(staged)}, driver: "shares.example.com",
			want: LeftAlone, code: CodeKubelet},
		{name: "by path", rules: []Rule{byPath}, table: table{disk(staged)}, want: WantsRelabel},
		{name: "by whole path", rules: []Rule{rule(at(staged))}, table: table{disk(staged)}, want: WantsRelabel},
		{name: "by the pods' path", rules: []Rule{rule(at("/var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/**"))}, table: table{disk(published)}, want: WantsRelabel},
		{name: "by a path that begins too early", rules: []Rule{rule(at("/var/lib/kubelet/plugins/**"))}, table: table{disk(staged)}, want: LeftAlone, code: CodeKubelet},
		{name: "by path, no CSI volume", rules: []Rule{rule(at("/var/lib/kubelet/pods/**"))}, table: table{disk("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~projected/token")},
			want: LeftAlone, code: CodeKubelet},
		{name: "by path, below a volume", rules: []Rule{byPath}, table: table{disk(staged + "/sub")}, want: LeftAlone, code: CodeKubelet},
		{name: "beside rules for whatever is mounted", rules: append([]Rule{byDriver}, general...), table: table{disk(staged)}, driver: "shares.example.com",
			want: WantsRelabel, rule: "by-driver"},
		{name: "by path and by driver", rules: []Rule{byPath, byDriver}, table: table{disk(staged)}, driver: "shares.example.com", want: Refused, code: CodeTie},
		{name: "strategy context, which the configuration refuses", rules: with(byDriver, func(r *Rule) { r.Strategy = Context }), table: table{disk(staged)}, driver: "shares.example.com",
			want: WantsRelabel},

		// A kubelet with another directory.
		{name: "elsewhere, no rule asks", rules: []Rule{rule(at("/data/**")), {Name: "3", Match: at("/data/kubelet/**")}}, table: table{disk("/data" + stagedBelow)}, driver: "shares.example.com",
			want: LeftAlone, code: CodeKubelet},
		{name: "elsewhere, by driver", rules: []Rule{byDriver}, table: table{disk("/data" + stagedBelow)}, driver: "shares.example.com", want: WantsRelabel},
		{name: "elsewhere, by path", rules: []Rule{rule(at("/data/kubelet/plugins/kubernetes.io/csi/shares.example.com/**"))}, table: table{disk("/data" + stagedBelow)}, want: WantsRelabel},
		{name: "elsewhere, and told", rules: []Rule{byDriver}, table: table{disk("/data" + stagedBelow)}, driver: "shares.example.com", facts: Facts{Owner: "kubelet"}, want: WantsRelabel},
		{name: "elsewhere, the pod's of it", rules: []Rule{byDriver}, table: table{disk("/data/kubelet/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount", id(101)), disk("/data" + stagedBelow)},
			driver: "shares.example.com", want: LeftAlone, code: CodeKubelet, says: "/data" + stagedBelow},

		{name: "mounted with a label", rules: []Rule{byPath}, table: table{disk(staged, on("ext4", "rw,context="+other))}, want: LeftAlone, code: CodeKubelet, says: other},
		{name: "mounted with the label", rules: []Rule{byPath}, table: table{disk(staged, on("nfs4", "rw,context="+files))}, want: Right},
		{name: "no labels on files", rules: []Rule{byPath}, table: table{disk(staged, on("nfs4", "rw"))}, want: Refused, code: CodeNoRelabel, says: "not mounted again"},
		{name: "a directory of an SMB share", rules: []Rule{byPath}, table: table{disk(staged, root("/sub"), on("cifs", "rw"))}, want: Refused, code: CodeNoRelabel},
		{name: "read-only", rules: []Rule{byPath}, table: table{disk(staged, readOnly)}, want: Refused, code: CodeReadOnly},
		{name: "Btrfs", rules: []Rule{byPath}, table: table{disk(staged, on("btrfs", "rw,seclabel"))}, want: Refused, code: CodeBtrfs},
		{name: "no answer", rules: []Rule{byPath}, table: table{disk(staged)}, facts: Facts{NoAnswer: true}, want: Refused, code: CodeNoAnswer},
		{name: "labelled before", rules: []Rule{byPath}, table: table{disk(staged)}, facts: Facts{RootLabel: files, Labelled: files}, want: Right},
		{name: "labelled before, made anew", rules: []Rule{byPath}, table: table{disk(staged)}, facts: Facts{RootLabel: other, Labelled: files}, want: WantsRelabel},
		{name: "a pod's", rules: []Rule{byPath}, table: table{disk(staged)}, facts: Facts{Taken: files + ":c1,c2"}, want: Right},

		{name: "staged, and a pod has it", rules: []Rule{byDriver}, table: table{disk(staged), disk(published, id(101))}, driver: "shares.example.com", want: WantsRelabel},
		{name: "the pod's of it", rules: []Rule{byDriver}, table: table{disk(published, id(101)), disk(staged)}, driver: "shares.example.com", want: LeftAlone, code: CodeKubelet,
			says: staged},
		{name: "the pod's read-only one", rules: []Rule{byDriver}, table: table{disk(published, id(101), readOnly), disk(staged)}, driver: "shares.example.com", want: LeftAlone,
			code: CodeKubelet},
		{name: "a directory of the host", rules: []Rule{byDriver}, table: table{disk(published, id(101), root("/csi/v1")), disk("/")}, driver: "shares.example.com",
			want: Refused, code: CodeBind, says: "/csi/v1"},
		{name: "the whole of what the host has", rules: []Rule{byDriver}, table: table{disk(published, id(101)), disk("/mnt/x")}, driver: "shares.example.com",
			want: Refused, code: CodeBind, says: "/mnt/x"},
		{name: "the whole of the driver's own mount", rules: []Rule{byDriver, general[0]}, driver: "shares.example.com",
			table: table{disk(published, id(101)), disk("/var/lib/kubelet/plugins/shares.example.com/x")}, want: Refused, code: CodeBind},
		{name: "of a declared volume", rules: []Rule{byDriver, {Name: "srv", Match: at("/srv/data")}}, table: table{disk(published, id(101)), disk("/srv/data")},
			driver: "shares.example.com", want: LeftAlone, code: CodeKubelet, says: "/srv/data"},
		{name: "of a volume with another label", rules: []Rule{byDriver, second}, table: table{disk(published, id(101)), disk("/srv/data")},
			driver: "shares.example.com", want: Refused, code: CodeTwoLabels},
		{name: "two labels for one volume", rules: []Rule{byPath, {Name: "pods", Match: at("/var/lib/kubelet/pods/**"), Context: other}},
			table: table{disk(staged), disk(published, id(101))}, want: Refused, code: CodeTwoLabels},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := NewRules(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			byAge := slices.Clone(c.table)
			slices.Reverse(byAge)
			if byAge[0].ID > byAge[len(byAge)-1].ID {
				slices.Reverse(byAge)
			}
			c.facts.Driver = c.driver
			v := rules.Judge(host, mounts.NewTable(byAge), c.table[0], c.facts)
			if v.Outcome != c.want || v.Code != c.code || !strings.Contains(v.Reason, c.says) || c.rule != "" && v.Rule.Name != c.rule {
				t.Errorf("got  %s %s %q\nwant %s %s %q", v.Outcome, v.Code, v.Reason, c.want, c.code, c.says)
			}
			if v.Outcome == Refused && (v.Reason == "" || v.Remedy == "") {
				t.Error("refused without reason and remedy")
			}
			if v.Outcome == WantsContext || v.OrRelabel {
				t.Error("it would be unmounted")
			}
			if v.Code == CodeNoRelabel && !strings.Contains(v.Remedy, `mountOptions: ['context="`+files+`"']`) {
				t.Error(v.Remedy)
			}
		})
	}
}

// Only auto may fall back to labelling the files.
func TestOrRelabel(t *testing.T) {
	for _, c := range []struct {
		strategy Strategy
		mount    *mounts.Mount
		want     bool
	}{
		{Auto, disk("/data"), true}, {Context, disk("/data"), false}, {Auto, disk("/data", on("vfat", "rw")), false}, {Auto, disk("/data", readOnly), false},
	} {
		rules, err := NewRules([]Rule{{Match: at("/data"), Strategy: c.strategy}})
		if err != nil {
			t.Fatal(err)
		}
		v := rules.Judge(Host{SELinux: true, DefaultContext: files}, mounts.NewTable([]*mounts.Mount{c.mount}), c.mount, Facts{})
		if v.Outcome != WantsContext || v.OrRelabel != c.want {
			t.Errorf("%s on %s: %s, %v", c.strategy, c.mount.SuperOptions, v.Outcome, v.OrRelabel)
		}
	}
}

// Twice as many mounts of one file system take twice as long to judge, not four times: local volumes of Kubernetes are such, one directory each. What
// is done is told by what is allocated.
func TestJudgeManyOfOneFileSystem(t *testing.T) {
	rules, err := NewRules([]Rule{{Name: "disks", Match: at("/mnt/disks/**"), Strategy: Auto}, {Name: "sda", Match: Match{Mountpoint: "/mnt/disk*", Label: "DATA"}, Context: other}})
	if err != nil {
		t.Fatal(err)
	}
	host := Host{SELinux: true, DefaultContext: files}
	for _, c := range []struct {
		super, dir string
		want       Code
	}{{"rw,seclabel", "/vol", CodeBind}, {"rw,context=" + files, "/vol", ""}, {"rw,seclabel", "", ""}} {
		effort := func(n int) float64 {
			all := []*mounts.Mount{disk("/mnt/disk", on("ext4", c.super))}
			for i := range n {
				m := disk(fmt.Sprintf("/mnt/disks/%d", i), id(200+i), on("ext4", c.super), root("/"))
				if c.dir != "" {
					m.Root = c.dir + strconv.Itoa(i)
				}
				all = append(all, m)
			}
			facts := Facts{Names: mounts.Names{Labels: []string{"OTHER"}}}
			return testing.AllocsPerRun(1, func() {
				table := mounts.NewTable(all)
				for _, m := range all[1:] {
					rules.NeedNamesOf(table, m.Device)
					if v := rules.Judge(host, table, m, facts); v.Code != c.want && c.dir != "" {
						t.Fatal(v.Code, v.Reason)
					}
				}
			})
		}
		few, many := effort(250), effort(2000)
		if many > 10*few {
			t.Errorf("%s of %s: %.0f for 2000, %.0f for 250", c.dir, c.super, many, few)
		}
	}
}

// A part of a file system is refused for that, whatever else is wanted for it, and no other mount changes it.
func TestSettled(t *testing.T) {
	rules, err := NewRules([]Rule{{Name: "data", Match: at("/data"), Strategy: Auto}, {Name: "second", Match: at("/again"), Context: other}})
	if err != nil {
		t.Fatal(err)
	}
	part, whole := disk("/data", root("/sub"), id(101)), disk("/again")
	table := mounts.NewTable([]*mounts.Mount{whole, part})
	if v := rules.Judge(Host{SELinux: true, DefaultContext: files}, table, part, Facts{}); v.Code != CodeBind || !v.Settled {
		t.Error(v.Code, v.Settled)
	}
	share := disk("/data", root("/sub"), on("cifs", "rw"))
	twice := mounts.NewTable([]*mounts.Mount{share, disk("/x", id(101), on("cifs", "rw"))})
	if v := rules.Judge(Host{SELinux: true, DefaultContext: files}, twice, share, Facts{}); v.Code != CodeBind || v.Settled {
		t.Error(v.Code, v.Settled)
	}
	if v := rules.Judge(Host{SELinux: true, DefaultContext: files}, table, whole, Facts{}); v.Code != CodeTwoLabels || v.Settled {
		t.Error(v.Code, v.Settled)
	}
}

// A mount may be gone from the table by the time that it is judged.
func TestJudgeWhatIsGone(t *testing.T) {
	rules, err := NewRules([]Rule{{Match: at("/data"), Strategy: Auto}})
	if err != nil {
		t.Fatal(err)
	}
	if v := rules.Judge(Host{SELinux: true, DefaultContext: files}, mounts.NewTable(nil), disk("/data"), Facts{}); v.Outcome != WantsContext {
		t.Error(v.Outcome, v.Reason)
	}
}

// Proves V11.
func TestMatching(t *testing.T) {
	m := disk("/var/lib/data")
	names := mounts.Names{
		Paths: []string{"/dev/sda1", "/dev/disk/by-id/wwn-1"}, Labels: []string{"DATA 1"}, UUIDs: []string{"AB-CD"},
	}
	nfs := disk("/mnt/nfs", on("nfs4", "rw"))
	nfs.Source = "srv:/export/a"
	sshfs := disk("/mnt/ssh", on("fuse.sshfs", "rw"))
	for _, c := range []struct {
		name  string
		mount *mounts.Mount
		list  []Match
		want  string // the indices of those that win
	}{
		{"mountpoint", m, []Match{at("/var/lib/data"), at("/var/lib/dat")}, "0"},
		{"pattern", m, []Match{at("/var/lib/*")}, "0"},
		{"exact beats pattern", m, []Match{at("/var/lib/*"), at("/var/lib/data")}, "1"},
		{"longer pattern wins", m, []Match{at("/var/**"), at("/var/lib/**")}, "1"},
		{"tie of patterns", m, []Match{at("/var/lib/*"), at("/var/lib/d*"), at("/var/lib/da?a"), at("/var/lib/da*")}, "2 3"},
		{"mountpoint and label tie", m, []Match{at("/var/lib/data"), {Label: "DATA 1"}}, "0 1"},
		{"ties are not passed on", m, []Match{at("/var/**"), {Label: "D*"}, at("/var/lib/**")}, "1 2"},
		{"both beat one", m, []Match{at("/var/lib/data"), {Label: "DATA 1", Mountpoint: "/var/lib/data"}, {Label: "DATA 1"}}, "1"},
		{"a type adds", m, []Match{at("/var/lib/data"), {FSType: "ext4", Mountpoint: "/var/lib/data"}}, "1"},
		{"a type is never exact", m, []Match{{FSType: "ext4"}, at("/var/lib/data")}, "1"},
		{"exact beats many patterns", m, []Match{{Mountpoint: "/var/lib/dat*", FSType: "ext4", Label: "D*", UUID: "*"}, {UUID: "ab-cd"}}, "1"},
		{"UUID in any case", m, []Match{{UUID: "Ab-cD"}}, "0"},
		{"label in its case", m, []Match{{Label: "data 1"}}, ""},
		{"source", m, []Match{{Source: "/dev/sda1"}}, "0"},
		{"source by another name", m, []Match{{Source: "/dev/disk/by-id/wwn-*"}}, "0"},
		{"every key counts", m, []Match{{Source: "/dev/sda1", FSType: "xfs"}, {Label: "DATA 1", UUID: "x"}}, ""},
		{"NFS by server", nfs, []Match{{Source: "srv:/export/*"}, {Source: "srv:*"}}, "0"},
		{"a family", sshfs, []Match{{FSType: "fuse"}}, "0"},
		{"one of a family", sshfs, []Match{{FSType: "fuse.sshfs"}, {FSType: "fuse.x"}}, "0"},
		{"by its helper", sshfs, []Match{{FSType: "sshfs"}, {FSType: "ext4"}}, "0"},
		{"the type beats its family", sshfs, []Match{{FSType: "fuse"}, {FSType: "fuse.*"}}, "1"},
		{"nfs is nfs4 as well", nfs, []Match{{FSType: "nfs"}, {FSType: "nfs3"}}, "0"},
		{"nfs4 beats nfs", nfs, []Match{{FSType: "nfs"}, {FSType: "nfs4"}}, "1"},
		{"a longer pattern beats the type", nfs, []Match{{FSType: "nfs", Mountpoint: "/mnt/n*"}, {FSType: "nfs4", Mountpoint: "/mnt/*"}}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var list []Rule
			for i, match := range c.list {
				list = append(list, Rule{Name: string(rune('0' + i)), Match: match})
			}
			rules, err := NewRules(list)
			if err != nil {
				t.Fatal(err)
			}
			its := names
			if c.mount != m {
				its = mounts.Names{}
			}
			var won []string
			for _, r := range rules.Matching(c.mount, Facts{Names: its}) {
				won = append(won, r.Name)
			}
			if got := strings.Join(won, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNeedNames(t *testing.T) {
	rules, err := NewRules([]Rule{{Match: at("/a")}, {Match: Match{Mountpoint: "/b", UUID: "x"}}, {Match: Match{FSType: "xfs", Label: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mount *mounts.Mount
		want  bool
	}{{disk("/a"), false}, {disk("/b"), true}, {disk("/c"), false}, {disk("/c", on("xfs", "rw")), true}} {
		if rules.NeedNames(c.mount) != c.want {
			t.Errorf("%s: %v", c.mount.Mountpoint, !c.want)
		}
	}
}

func TestNewRulesRefuses(t *testing.T) {
	for _, match := range []Match{{}, {Mountpoint: "/[a"}} {
		if _, err := NewRules([]Rule{{Name: "x", Match: match}}); err == nil {
			t.Errorf("%+v was taken", match)
		}
	}
}

func TestByRuntime(t *testing.T) {
	const usual, mine = "system_u:object_r:container_file_t:s0", "system_u:object_r:my_data_t:s0"
	for _, c := range []struct {
		label, want string
		is          bool
	}{
		{usual + ":c1,c2", usual, true}, {usual + ":c1,c2", mine, true}, {usual + ":c1,c2", usual + ":c3", true},
		{usual, mine, true}, {usual, usual + ":c3", true}, // :z
		{usual, usual, false}, {usual + ":c2,c1", usual + ":c1,c2", false},
		{"system_u:object_r:unlabeled_t:s0", usual, false}, {mine, usual, false}, {mine + ":c1", usual, false}, {"", usual, false}, {usual + ":x", usual, false},
	} {
		if got := (Host{DefaultContext: usual}).ByRuntime(c.label, c.want); got != c.is {
			t.Errorf("%s where %s is wanted: %v", c.label, c.want, got)
		}
		if (Host{}).ByRuntime(c.label, c.want) {
			t.Errorf("%s where there is no usual one", c.label)
		}
	}
}

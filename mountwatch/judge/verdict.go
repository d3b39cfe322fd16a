package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Judge gives the verdict on one mount of the table. The facts are those of that mount. RootLabel and Labelled are only looked at for
// mounts that show "seclabel".
func (r *Rules) Judge(host Host, table *mounts.Table, m *mounts.Mount, facts Facts) Verdict {
	v := Verdict{Outcome: LeftAlone, Mount: m}
	matching := r.Matching(m, facts)
	if len(matching) == 1 {
		v.Rule = matching[0]
	}
	inPlace := r.InPlace(m, matching)
	owner := protected.Owner(m.Mountpoint)
	if len(matching) > 0 {
		owner = cmp.Or(protected.Mount(m.Mountpoint), facts.Owner)
	}
	if owner != "" && !inPlace {
		return v.because(Code(owner), "it is "+ownerName(owner)+", which labels its own mounts", "")
	}
	if len(matching) == 0 {
		v.Outcome = Undeclared
		return v
	}
	if cover := table.Cover(m); cover != nil {
		return v.because(CodeCovered, "another file system is mounted over it", "")
	}
	// A rule that is meant for whatever fits a pattern meets the system's own mounts by chance. That is no fault to report.
	if !slices.ContainsFunc(matching, r.names) && systemsOwn(m) || m.FSType == "autofs" {
		return v.because(CodeSystem, "it is the operating system's", "")
	}

	v.Outcome = Refused
	switch {
	case !host.SELinux:
		return v.because(CodeSELinuxOff, "SELinux is off in the kernel", "boot without selinux=0")
	case protected.Path(m.Mountpoint):
		return v.because(CodeProhibited, "it is a directory of the operating system", "mount the volume elsewhere, or take the rule away")
	case madeByKernel(m):
		return v.because(CodeNoWay, "the kernel makes up the files of a "+m.FSType+" and labels them itself", "take the rule away")
	case len(matching) > 1:
		v.Rules = matching
		return v.because(CodeTie, "the rules "+namesOf(matching)+" match it equally well", "make one of them more specific")
	}
	rule := v.Rule
	var ok bool
	if v.Want, ok = host.wanted(rule); !ok {
		return v.because(CodeNoDefault, "the rule "+nameOf(rule)+" gives no context, and the image has no default for volumes in lxc_contexts",
			`give the rule a "context", user:role:type:level`)
	}
	if m.FSType == "btrfs" {
		return v.because(CodeBtrfs, "it is on Btrfs, where one context= would hold for every subvolume, and where a new snapshot's root comes without "+
			"a label and nested subvolumes are in no mount table", "use ext4 or xfs")
	}
	right := m.Context() != "" && secontext.Same(m.Context(), v.Want) && len(rule.Paths) == 0
	if v.part(table) && !right && !inPlace {
		v.Settled = !ofServer(m)
		return v.because(CodeBind, "it shows only "+m.Root+" of a file system, which somebody else uses otherwise", "declare the mount of the whole file system")
	}
	if other, its := r.contradiction(host, table, m, facts); other != nil {
		v.Rules = []*Rule{rule, its}
		return v.because(CodeTwoLabels, fmt.Sprintf("the rule %s wants %s for it, and the rule %s wants another label for the same file system at %s",
			nameOf(rule), v.Want, nameOf(its), other.Mountpoint), "one file system can have one label: change one of the rules")
	}
	if right {
		return v.right() // wherever and however it is mounted
	}
	if inPlace {
		return v.inPlace(r, table, facts)
	}
	if all := table.Superblock(m.Device); len(all) > 0 && all[0] != m && len(r.Matching(all[0], facts)) == 0 {
		first := all[0]
		return v.because(CodeBind, "the same file system was mounted before at "+first.Mountpoint+", which no rule is for", "declare that mount")
	}
	if facts.NoAnswer {
		return v.because(CodeNoAnswer, NoAnswer, NoAnswerRemedy)
	}
	return v.ways(rule, table, facts)
}

// NoAnswer says in words what CodeNoAnswer does, and NoAnswerRemedy what helps.
const (
	NoAnswer       = "its file system does not answer"
	NoAnswerRemedy = "look at its server or its disk, and at \"dmesg\"; when it answers again, its label is seen to by itself"
)

// ways decides how a mount that may be labelled gets its label.
func (v Verdict) ways(rule *Rule, table *mounts.Table, facts Facts) Verdict {
	m := v.Mount
	files := rule.Strategy == Relabel || len(rule.Paths) > 0 || rule.Private
	instead := rule.Strategy == Auto && m.Seclabel() && !m.ReadOnly() // the files may be labelled if there is no other way
	if now := m.Context(); now != "" {
		switch {
		case files:
			return v.because(CodeOtherContext, "it is mounted with context="+now+", and then its files take no labels",
				`mount it without that option, or write "strategy: context" and no paths`)
		case m.InMemory():
			return v.onlyOnce()
		case v.several(table):
			return v.because(CodeSeveralMounts, "it is mounted with context="+now+" in more than one place, and only the first mount of a file system decides",
				"unmount all of them, and mount it again")
		}
		v.Outcome = WantsContext
		return v
	}
	// What a finished relabelling has recorded counts if the root agrees: it is labelled last, and a file system that was made anew in its
	// place has another one.
	recorded := facts.Labelled != "" && secontext.Same(facts.Labelled, v.Want)
	if recorded && m.Seclabel() && rule.Strategy != Context && (len(rule.Paths) > 0 || secontext.Same(facts.RootLabel, v.Want)) {
		return v.right()
	}
	if facts.Taken != "" && m.Seclabel() && rule.Strategy != Context {
		return v.takenOver(rule, facts)
	}
	if key, value, set := mounts.ExcludesContext(m.SuperOptions); set && !files { // whoever mounted it so meant it
		if instead {
			v.Outcome = WantsRelabel
			return v
		}
		return v.because(CodeOtherContext, "it is mounted with "+key+"="+value+", which does not go with context=", "mount it without that option")
	}
	switch {
	case files && !m.Seclabel():
		return v.because(CodeNoRelabel, "the files of a "+m.FSType+" take no labels here", `write "strategy: context" or "auto", and no paths`)
	case files && m.ReadOnly():
		return v.because(CodeReadOnly, "it is read-only, and its files would have to be labelled", `mount it read-write, or write "strategy: context"`)
	case files:
		v.Outcome = WantsRelabel
	case !v.several(table) && !m.InMemory():
		v.Outcome, v.OrRelabel = WantsContext, instead
	case instead:
		v.Outcome = WantsRelabel
	case m.InMemory():
		return v.onlyOnce()
	default:
		return v.because(CodeSeveralMounts, "the same file system is mounted in more than one place, and context= holds only from its first mount on",
			"unmount all of them, or give the option context= to the first")
	}
	return v
}

// onlyOnce is the verdict on what would be lost if it were mounted again, by whomever: only its first mount can have the option.
func (v Verdict) onlyOnce() Verdict {
	return v.because(CodeNoRemount, "it needs the option context=, and what is in a "+v.Mount.FSType+" is lost when it is unmounted",
		"reboot, where a mount unit or a line in /etc/fstab makes it: that mount has the option from its start on; otherwise have it mounted with -o "+
			secontext.Context(v.Want).MountOption())
}

// inPlace decides about a CSI volume of the kubelet's. It is not unmounted at any price: the kubelet could give the pod the empty directory meanwhile.
func (v Verdict) inPlace(r *Rules, table *mounts.Table, facts Facts) Verdict {
	m := v.Mount
	byOption := `have it mounted with its label: mountOptions: ['context="` + v.Want + `"'] in its StorageClass or PersistentVolume, or a driver with seLinuxMount: true`
	if now := m.Context(); now != "" {
		v.Outcome = LeftAlone
		return v.because(CodeKubelet, "the kubelet or the volume's driver has mounted it with context="+now, "")
	}
	if v.part(table) {
		return v.because(CodeBind, "it shows only "+m.Root+" of a file system, which the volume's driver uses otherwise", byOption)
	}
	if all := table.Superblock(m.Device); len(all) > 0 && all[0].ID != m.ID {
		first := all[0]
		its := r.Matching(first, facts)
		if len(its) == 0 || protected.Mount(first.Mountpoint) != "" && !r.InPlace(first, its) {
			return v.because(CodeBind, "the same file system was mounted before at "+first.Mountpoint+", which no rule is for", byOption)
		}
		v.Outcome = LeftAlone
		return v.because(CodeKubelet, "it is the file system that is mounted at "+first.Mountpoint+", and has the label that it gets there", "")
	}
	switch {
	case facts.NoAnswer:
		return v.because(CodeNoAnswer, NoAnswer, NoAnswerRemedy)
	case !m.Seclabel():
		return v.because(CodeNoRelabel, "the files of a "+m.FSType+" take no labels here, and what the kubelet has mounted is not mounted again", byOption)
	case m.ReadOnly():
		return v.because(CodeReadOnly, "it is read-only, its files would have to be labelled, and what the kubelet has mounted is not mounted again", byOption)
	case facts.Labelled != "" && secontext.Same(facts.Labelled, v.Want) && (len(v.Rule.Paths) > 0 || secontext.Same(facts.RootLabel, v.Want)):
		return v.right()
	case facts.Taken != "": // the runtime labels it for the pod, as it should
		v.Found = facts.Taken
		return v.right()
	}
	v.Outcome = WantsRelabel
	return v
}

// ForPod tells whether a label is one that a container's runtime gives to the files of a pod's volume, and no other container may use: it is left.
func (h Host) ForPod(label, want string) bool {
	return h.ByRuntime(label, want) && !secontext.Context(label).Shared()
}

// takenOver is the verdict on files that have a container's own label. The remedy takes them back by hand: only the operator knows whether
// the container still needs them.
func (v Verdict) takenOver(rule *Rule, facts Facts) Verdict {
	v.Found = facts.Taken
	if rule.Private {
		return v.right()
	}
	v.Outcome = TakenOver
	whose := "as a container's runtime gives it (:Z, or the kubelet for a pod)"
	if facts.Container != "" {
		whose = "that of " + facts.Container + ", which runs"
	}
	return v.because(CodeTakenOver, "its files have the label "+facts.Taken+", "+whose,
		`leave it to the container: write "private: true" in the rule `+rule.Name+"; or stop the container, start it without :Z from then on, and run: selinux-provision relabel "+
			v.Mount.Mountpoint+" --context "+v.Want)
}

// ByRuntime tells whether a label is one that a container's runtime gives to files for its container, and not the wanted one: the image's type for
// the files of containers at a level of its own (:Z, or seLinuxOptions of a pod), or the image's own label for shared files (:z).
func (h Host) ByRuntime(label, want string) bool {
	l, usual := secontext.Context(label), secontext.Context(h.DefaultContext)
	if secontext.Same(label, want) || usual.Type() == "" || l.Type() != usual.Type() {
		return false
	}
	r, err := secontext.ParseRange(l.Level())
	return err == nil && (len(r.High.Categories) > 0 || secontext.Same(label, h.DefaultContext))
}

func (v Verdict) right() Verdict { v.Outcome = Right; return v }

func (v Verdict) because(code Code, reason, remedy string) Verdict {
	v.Code, v.Reason, v.Remedy = code, reason, remedy
	return v
}

// several tells whether the file system is mounted more than once in this namespace.
func (v Verdict) several(table *mounts.Table) bool { return len(table.Superblock(v.Mount.Device)) > 1 }

// part tells whether the mount shows a part of a file system whose rest somebody else uses. A directory of a server's share that was mounted by itself
// looks like a bind mount of one, with its name as the root (fs/smb/client/cifsfs.c, cifs_get_root); it is none where nothing else of it is mounted.
func (v Verdict) part(table *mounts.Table) bool {
	return !v.Mount.Whole() && (!ofServer(v.Mount) || v.several(table))
}

func ofServer(m *mounts.Mount) bool {
	return slices.Contains([]string{"cifs", "smb3", "nfs", "nfs4"}, m.FSType)
}

// wish is a label that a rule wants for a mount.
type wish struct {
	label string
	mount *mounts.Mount
	rule  *Rule
}

// contradiction finds another mount of the same superblock for which another rule wants another label.
func (r *Rules) contradiction(host Host, table *mounts.Table, m *mounts.Mount, facts Facts) (*mounts.Mount, *Rule) {
	mine, _ := host.wanted(r.Matching(m, facts)[0])
	for _, w := range r.wishes(host, table, m.Device, facts) {
		if w.mount != m && !secontext.Same(w.label, mine) {
			return w.mount, w.rule
		}
	}
	return nil, nil
}

// wishes gives the first label that is wanted for a mount of a superblock, and the first other one: whichever of them somebody wants, one contradicts it.
func (r *Rules) wishes(host Host, table *mounts.Table, d mounts.Device, facts Facts) []wish {
	names := slices.Concat(facts.Names.Paths, []string{""}, facts.Names.Labels, []string{""}, facts.Names.UUIDs)
	key := superblock{d, host, facts.Driver, strings.Join(names, "\x00")}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.of(table)
	wishes, known := of.wants[key]
	if known {
		return wishes
	}
	for _, m := range table.Superblock(d) {
		matching := r.Matching(m, facts)
		if len(matching) != 1 || protected.Path(m.Mountpoint) || protected.Mount(m.Mountpoint) != "" && !r.InPlace(m, matching) {
			continue
		}
		its, ok := host.wanted(matching[0])
		if !ok || len(wishes) > 0 && secontext.Same(its, wishes[0].label) {
			continue
		}
		if wishes = append(wishes, wish{its, m, matching[0]}); len(wishes) == 2 {
			break
		}
	}
	of.wants[key] = wishes
	return wishes
}

// wanted gives the context that a rule asks for, and false if that needs a default which the image does not have.
func (h Host) wanted(rule *Rule) (string, bool) {
	context, err := rule.Want(h.DefaultContext)
	return context, err == nil
}

// systemsOwn tells whether a mount is one of those that a host has without any volume, such as those of users and of credentials in /run.
func systemsOwn(m *mounts.Mount) bool {
	return protected.Path(m.Mountpoint) || madeByKernel(m) ||
		strings.HasPrefix(m.Mountpoint, "/run/") && !strings.HasPrefix(m.Mountpoint, "/run/media/")
}

// madeByKernel tells whether a file system holds nothing but what the kernel itself shows.
func madeByKernel(m *mounts.Mount) bool {
	return slices.Contains([]string{
		"autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs", "devpts", "devtmpfs", "efivarfs",
		"functionfs", "fusectl", "hugetlbfs", "mqueue", "nfsd", "nsfs", "proc", "pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs",
		"sysfs", "tracefs",
	}, m.FSType)
}

func ownerName(owner string) string {
	return map[string]string{
		"kubelet": "the kubelet's", "containerd": "containerd's", "docker": "Docker's", "podman": "Podman's or CRI-O's", "crio": "CRI-O's", "nomad": "Nomad's",
	}[owner]
}

func nameOf(r *Rule) string { return fmt.Sprintf("%s (%s)", printable.Quote(r.Name), r.Source) }

func namesOf(list []*Rule) string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = nameOf(r)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// Package judge decides what each mount gets: which rule of the operator's is meant for it, and whether the label that the rule
// wants is there, can be had, or must be refused.
//
// It is a pure function of a table of mounts, the rules, and the facts about one mount that the caller has read. So every
// verdict can be tested from a table, and the same look at the host gives the same verdict again.
//
// Do not use it to find something out about the host or to change it: package mounts looks, and the watcher acts.
package judge

import (
	"github.com/selinux-provision/selinux-provision/internal/mounts"
)

// Rule is what the operator wants for the volumes that it matches.
type Rule struct {
	// Name is the operator's, unique among the rules. Source is where it is written, "file:line".
	Name, Source string
	Match        Match
	// Context is user:role:type:level. If it is "", the default context is meant, with Level in place of its own if that is not "".
	Context, Level string
	Strategy       Strategy
	// Paths are the sub-trees to label, relative to the root of the volume and free of "..". If there are any, the strategy is Relabel.
	Paths []string
	// Required says that a unit waits for the label: the files come before those of other volumes, and at full speed.
	Required bool
	// Private leaves the level to the runtime of the container that uses the volume: whatever level it gave the files is right.
	Private bool
}

// Match says which mounts a rule is for: those that fit every key that is not "". The keys are patterns as in package glob.
//
// Of several rules that fit, one wins: the one with more exact keys among Mountpoint, Source, Label and UUID, exact being without a
// wildcard; of those with as many, the one with more keys in all; of these, if both have a Mountpoint with wildcards, the one with more
// text before the first of them; and of these, if both have an FSType, the one whose FSType is the type itself and not its family. If that does
// not tell two rules apart, neither wins.
//
// Below the kubelet's directory only a rule counts that asks for its CSI volumes: by CSIDriver, or by a Mountpoint that begins with a directory in
// which they are.
type Match struct {
	Mountpoint string // the whole path
	Source     string // what was mounted: as in mountinfo, or any name of the device, such as /dev/disk/by-id/...
	FSType     string // the type, or another name of it: "nfs" stands for nfs4 as well, "fuse" and "sshfs" for fuse.sshfs; see mounts.TypeNames
	Label      string
	UUID       string // upper and lower case are one
	// CSIDriver is the name of a CSI driver, and no pattern. With it the rule is for the volumes that the driver mounts for the kubelet, and for
	// nothing else.
	CSIDriver string
}

// Strategy is the way to a label that the operator allows.
type Strategy string

// The strategies. Auto is the context option where it can be had, and a relabelling otherwise.
const (
	Auto    Strategy = "auto"
	Context Strategy = "context"
	Relabel Strategy = "relabel"
)

// Host is what is the same for all mounts.
type Host struct {
	// SELinux tells whether it is on in the kernel.
	SELinux bool
	// DefaultContext is the image's: "file" in its lxc_contexts.
	DefaultContext string
}

// Facts are what was found out about one mount, beyond its line in the table.
type Facts struct {
	Names mounts.Names
	// RootLabel is the label of its root directory, read now; "" if it was not read or has none.
	RootLabel string
	// Labelled is the context that a finished relabelling of this very file system gave to everything that its rule covers; "" if there
	// was none.
	Labelled string
	// Taken is the label that a container's runtime gave to what the rule covers, after it had been labelled or for a container that runs
	// now; "" if none did. Container names the one that runs with its level, as in "container web", "" if none does.
	Taken, Container string
	// Owner names the runtime, or the kubelet, that was told to use a directory which the mount is in: as protected.Told has it; "" if none was.
	Owner string
	// Driver is the CSI driver of a mount of the kubelet's, "" if it is none or unknown.
	Driver string
	// NoAnswer tells that the file system did not answer when it was asked for these.
	NoAnswer bool
}

// Outcome is the kind of a verdict.
type Outcome string

// The outcomes.
const (
	// Undeclared is for a mount that no rule matches.
	Undeclared Outcome = "undeclared"
	// LeftAlone is for a mount that somebody else looks after, such as a container runtime. It is no news.
	LeftAlone Outcome = "left alone"
	// Right is for a mount that has the label already.
	Right Outcome = "right"
	// WantsContext is for a mount that is to be unmounted and mounted again with context=.
	WantsContext Outcome = "wants context"
	// WantsRelabel is for a mount whose files are to be labelled.
	WantsRelabel Outcome = "wants relabel"
	// TakenOver is for a mount whose files a container's runtime labelled for its container, which would be denied its own files if they
	// got the declared label back. Reason says what is there.
	TakenOver Outcome = "taken over"
	// Refused is for a mount that a rule matches and that stays as it is, for Reason.
	Refused Outcome = "refused"
)

// Verdict is the judgement of one mount.
type Verdict struct {
	Outcome Outcome
	Mount   *mounts.Mount
	// Rule is the one that counts; nil if none does, or no single one.
	Rule *Rule
	// Rules are those that are in each other's way, if Code is Tie or TwoLabels.
	Rules []*Rule
	// Want is the context that the rule asks for.
	Want string
	// Found is the label that is there, where it is right or left in peace and another one than Want.
	Found string
	// OrRelabel tells, beside WantsContext, that the files may be labelled instead if the volume is in use.
	OrRelabel bool
	// Settled tells that no other mount of the file system makes a difference to it.
	Settled bool
	// Code, Reason and Remedy say why it is refused or left alone. Reason goes after "cannot label MOUNTPOINT: ".
	Code           Code
	Reason, Remedy string
}

// Code names a reason, for programs. It never changes its meaning.
type Code string

// The codes of refusals, and of mounts that are left alone.
const (
	CodeSELinuxOff    Code = "selinux-off"
	CodeTie           Code = "tie"             // two rules match equally well
	CodeTwoLabels     Code = "two-labels"      // two rules want two labels for one superblock
	CodeProhibited    Code = "prohibited-path" // a path of the operating system
	CodeBtrfs         Code = "btrfs"
	CodeBind          Code = "bind-mount"       // a part of a file system, or one that is mounted elsewhere for something else
	CodeReadOnly      Code = "read-only"        // it would have to be written to
	CodeNoWay         Code = "no-way"           // its type takes no label in any way
	CodeNoRelabel     Code = "no-relabel"       // the rule wants a relabelling, and its files take no labels
	CodeOtherContext  Code = "other-context"    // it is mounted with another context=
	CodeSeveralMounts Code = "several-mounts"   // context= would need all of them unmounted
	CodeNoRemount     Code = "no-remount"       // context= would need it unmounted, and nobody could bring it back as it is
	CodeNoAnswer      Code = "no-answer"        // its server, or its disk, does not answer
	CodeNoDefault     Code = "no-default-label" // the rule needs the image's default context, and there is none
	CodeKubelet       Code = "kubelet"
	CodeContainerd    Code = "containerd"
	CodeDocker        Code = "docker"
	CodePodman        Code = "podman"
	CodeCRIO          Code = "crio"
	CodeNomad         Code = "nomad"
	CodeSystem        Code = "system"     // the operating system's own, met by a pattern only
	CodeTakenOver     Code = "taken-over" // a container's runtime labelled it for its container
	CodeCovered       Code = "covered"    // another mount is on top of it
)

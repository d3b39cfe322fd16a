// Package messages is the one table of what the program writes into the journal: the MESSAGE_ID of each kind of entry, what it means and
// what to do. docs/reference.md and docs/3am.md are made from it. It is no place for the texts of errors.
package messages

import "strings"

// Kind is a kind of entry.
type Kind string

// The kinds of entries. Those about a volume are Volume with the kind of the watcher's event behind it, and Refused with the code of the
// refusal behind it.
const (
	Step             Kind = "step"
	Done             Kind = "done"
	Partly           Kind = "partly"
	Failed           Kind = "failed"
	Waiting          Kind = "waiting"
	TrialBegun       Kind = "trial-begun"
	TrialPassed      Kind = "trial-passed"
	TrialFailed      Kind = "trial-failed"
	TrialInterrupted Kind = "trial-interrupted"
	TrialDenial      Kind = "trial-denial"

	DomainBegun       Kind = "domain-trial-begun"
	DomainPassed      Kind = "domain-trial-passed"
	DomainFailed      Kind = "domain-trial-failed"
	DomainInterrupted Kind = "domain-trial-interrupted"

	Relabelling Kind = "relabelling"
	Relabelled  Kind = "relabelled"

	Volume  Kind = "volume-"
	Refused Kind = "refused-"
)

// Message is one kind of entry in the journal.
type Message struct {
	Kind  Kind
	ID    string // 32 hexadecimal digits; never changes its meaning
	Means string // in Markdown, as the text of a table's cell
	Do    string // the same: what an operator does about it
}

// ID returns the MESSAGE_ID of a kind. A refusal that has none of its own has that of Refused; anything else that is unknown has none.
func (k Kind) ID() string {
	other := ""
	for _, m := range All() {
		if m.Kind == k {
			return m.ID
		}
		if m.Kind == Refused {
			other = m.ID
		}
	}
	if strings.HasPrefix(string(k), string(Refused)) {
		return other
	}
	return ""
}

// All returns every kind of entry, in the order of the documents.
func All() []Message {
	return []Message{
		{Step, "50984b04a47b448e8fe7b0090dca47e1", "a step of a stage was carried out", "nothing"},
		{Done, "d04d32b4beb447e3b5fe389298051956", "a stage ended, everything is as declared", "nothing"},
		{Partly, "70f2ef065760470da486f5c30ac6433d", "a stage or a relabelling ended in part; each problem is a message of its own, with its remedy", "as it says"},
		{Failed, "6ff345c34ea243cc9b6072d6639e3364", "a stage or a command failed; the host is as it was unless the message says otherwise", "look for the text [below](#by-text)"},
		{Waiting, "8d4328ff7a8f472e804e6382c0b88770", "waiting for another run of the program", "nothing; if the wait lasts, look at the process that the message names"},
		{TrialBegun, "d0efe0883e4149a4a5a4ae588362f287", "enforcing is on trial", "wait for the window to end"},
		{TrialPassed, "50c1b4accd5d48fca25d834d26370bea", "a window of the trial ended well", "nothing"},
		{TrialFailed, "07df4a63f14b426ba14cbb0bdff88a5b", "the trial failed: the host is permissive, and stays permissive", "the reason is in the message and in `status`; correct it, then `selinux-provision apply --retry-guard`"},
		{TrialInterrupted, "48456faab27f46c798b8a444c8cd117e", "the host is being shut down in the middle of the trial", "nothing, if you did that: the trial goes on at the next boot"},
		{TrialDenial, "a520c1622bf04baf9c88aa97bffecf30", "one of the denials of a trial that failed", "`selinux-provision denials` says what helps"},
		{DomainBegun, "97fa9d7659a94500933468f5519fd2ae", "enforcing a single domain is on trial: it was declared permissive before", "wait for the window to end"},
		{DomainPassed, "f4cb0ef91a054744b9dd20e4494b9107", "the window of a single domain ended well: it is enforced", "nothing"},
		{DomainFailed, "8bf2377979d441829b255c3cc2f44bc8", "a single domain got sick: it is made permissive again, and stays so; the host goes on enforcing", "the reason is in the message and in `status`; correct it, then `selinux-provision apply --retry-guard`"},
		{DomainInterrupted, "6e1a3232d48342108e6d3323b5b5a22e", "the trial of a single domain was interrupted: the host is being shut down, or does not enforce any more", "nothing: it goes on when the host enforces again"},
		{Relabelling, "60496911bed246ac8e849a7213d49db3", "a tree is being relabelled; the message has the progress", "nothing"},
		{Relabelled, "7d259d841a6f425da911f741e4201f2f", "a tree was relabelled", "nothing; failures follow, one message each"},
		{Volume + "labelled", "b282326e111b4614ac3a1927459f419e", "a volume has its label, read back from the kernel", "nothing"},
		{Volume + "taken-over", "d9b187f091b04c85b5f9e91b183809d5", "a container's runtime gave the volume its container's label, and the volume is left to it", "if that is meant: `private: true` in the rule; else the message has the command"},
		{Volume + "remounted", "adb8e8732e93429287df8d177f30480d", "a volume was unmounted and mounted again, with the option `context=`", "nothing; to avoid the second mount, declare the volume in fstab or as a mount unit"},
		{Volume + "recovered", "4f9984a9fef54d6e86c9af1a07541298", "an earlier run was cut off between unmounting a volume and mounting it again; the volume is mounted again", "nothing"},
		{Volume + "relabel-started", "91417ce5df7449ba9124b5a7b0935ca1", "the files of a volume are being labelled", "nothing; `status` shows the progress"},
		{Volume + "relabel-done", "cfa7b8b8da304a36be579df079066c37", "the files of a volume have been labelled", "nothing"},
		{Volume + "not-shared", "e86e591cb9b349eb869c683e4335f9ec", "a shared volume was relabelled, but a new file in it will have the categories of the container that makes it", "declare `policy: {shared_volumes: true}`"},
		{Volume + "declared", "88481de2605e45d9a6cc75d6bb4ac21b", "mount units have the label of their volume, so the first mount is labelled", "nothing"},
		{Volume + "not-declared", "b1d13772b8e24519b4ecf3c1b020094d", "a mount unit did not get the label of its volume", "the reason is in the message; the watcher labels the volume when it is mounted"},
		{Volume + "watching", "40478836fc214db28aafd7d8213c118c", "the watcher begins, and says by what it sees mounts on this kernel", "nothing"},
		{Volume + "config-read", "fa0891817a4c4f6080aab062467c2fb8", "the watcher read the configuration", "nothing"},
		{Volume + "config-bad", "65dae33776254557bba02e181fe23a3e", "the configuration is wrong; the previous configuration stays in effect", "correct the line that the message names, then `systemctl reload selinux-provision-mountwatch`"},
		{Volume + "cannot-remember", "e3fed87277014f97b8537eb3a3d75cb8", "the record of what was done with volumes could not be written", "make room in `/var/lib`; the volumes have their labels, but `status` does not know"},
		{Refused + "selinux-off", "11e8b656549a4dc9a120aeac22b7e9eb", "a volume gets no label: SELinux is off", "remove `selinux=0` or `security=` from the kernel command line"},
		{Refused + "tie", "95e9a3a5082246fea3624dba492c07db", "two rules match the volume equally well", "make one of them more specific"},
		{Refused + "two-labels", "9796e9ac52e746a58d499f79df70baf7", "two rules want different labels for one file system", "give both rules the same label, or use two file systems"},
		{Refused + "prohibited-path", "b0ca2bd07b5b470f8f066ff90895d80d", "the volume is mounted on a directory of the operating system", "mount the volume elsewhere, or remove the rule"},
		{Refused + "btrfs", "494bc9beb770426a895350146ed44acd", "the volume is on Btrfs, where all subvolumes share one `context=` and a new snapshot has no label", "use ext4 or xfs"},
		{Refused + "bind-mount", "f512a9640527476c94360ed6714cd5bb", "only a part of a file system is mounted at the volume's path", "declare the mount of the whole file system"},
		{Refused + "read-only", "5c5c34db9d04490fa708c9b81854efb0", "the volume is mounted read-only, and its files would have to be labelled", "mount the volume read-write, or `strategy: context`"},
		{Refused + "no-way", "55c8d4ed76b8496b9940d7c8dd0a11cc", "file systems of this type cannot have labels at all", "remove the rule"},
		{Refused + "no-relabel", "33fc33f3c28944c1a5d12868d9773ddc", "the files of this volume cannot be labelled one by one", "`strategy: context` or `auto`, without `paths`"},
		{Refused + "other-context", "60f628b5c8d547d091f196813eebecbd", "the volume is already mounted with another `context=`", "unmount the volume, and mount it without that option"},
		{Refused + "several-mounts", "dc91583afe2c434aa176f6e2f166c40c", "the file system is mounted in more than one place, and `context=` counts only at the first mount", "unmount all of them, then mount the volume again"},
		{Refused + "no-answer", "ec8a318176bd493d849237d6ecde939c", "the volume's file system does not answer: its server or its disk hangs; other volumes do not wait for it", "look at the server or the disk, and at `dmesg`; when it answers again, the volume gets its label by itself"},
		{Refused + "no-default-label", "38009cc4da40456d9b39245187a87973", "the rule names no context, and the image has no default", "write `context:` into the rule"},
		{Refused + "unknown-context", "e88529186b28497591df5ad1d77f1c3d", "the policy does not know the context", "correct the context, or declare the module that defines its type"},
		{Refused + "mount-denied", "f39c5a4bd84d46d782e8a28d66f4b6c9", "the policy lets nobody on the host mount a file system with this label", "use a file type, or declare a module that allows the mount"},
		{Refused + "busy", "240b0c490b1e475d80ee591ba445305d", "the volume is in use, and would have to be mounted again", "stop what uses the volume (`fuser -vm`), then `systemctl reload selinux-provision-mountwatch`"},
		{Refused + "no-remount", "15dccace6aba4efa91258ba690408315", "the volume could not be mounted again as it was if mounting it with the label failed", "unmount the volume and mount it with the label by hand; what is in a tmpfs would be lost then: reboot"},
		{Refused + "remount-failed", "83d3aa19a3c145cbb4e9f82c2292c8c9", "the volume could not be mounted with the label, or does not have it after that; it is mounted, without the label", "the message says why; `dmesg` says what the kernel did not like"},
		{Refused + "lost", "1a5d6feef26244ffbc2c011b66d827bf", "**the volume is not mounted any more**: mounting it with the label failed, and so did mounting it as before", "mount the volume by hand: the message has the command"},
		{Refused + "relabel-failed", "5167505c10dd410a84222df621720636", "some files of the volume could not be labelled", "`status` has the reasons; mend them, then `systemctl reload selinux-provision-mountwatch`"},
		{Refused, "1a424070ecb7463a8a0d2119df041ac2", "the volume gets no label, for a reason that has no MESSAGE_ID of its own", "the reason is in the message"},
	}
}

// Package relabel gives every entry of one tree the SELinux label that it should have: fast, with exact counts, and without ever
// touching anything outside the tree, whoever else writes into it meanwhile.
//
//	target, err := relabel.Open("/var/lib/data", relabel.Volume)
//	defer target.Close()
//	result, err := target.Run(ctx, relabel.Options{Labels: relabel.Fixed("system_u:object_r:container_file_t:s0")})
//
// The path is resolved once, by Open; from then on there are only handles. The walk happens in a private copy of the tree's mount,
// in which nothing is mounted below and nothing can be: no bind mount, no symbolic link and no rename leads out of it. A file with
// several names is a way out only where the tree is part of a file system, and is left alone there. The root of the tree gets its
// label last, and only if nothing failed.
//
// Do not use it to change the label of a mount with context=, which has no labels of its own, nor for what a running container
// uses under another label. It needs Linux 5.6 (openat2), CAP_SYS_ADMIN for the private copy and where the kernel has no SELinux,
// and for other users' files CAP_FOWNER and CAP_DAC_READ_SEARCH.
package relabel

import (
	"fmt"
	"strings"
	"time"
)

// Scope says what a tree may be.
type Scope int

const (
	// Volume is data: the system's own directories are refused, whatever path leads to them.
	Volume Scope = iota
	// System allows them, for labels that come from the policy's file contexts. The kernel's own file systems stay refused.
	System
	// Declared is what an administrator has declared file contexts for: less than System, see protected.Declared. The path is not followed if
	// it is a link, which is what a file context means.
	Declared
)

// Labeler says which label an entry is to have. It is asked by several workers at once.
type Labeler interface {
	// Want gives the context that the entry at path is to have, or the reason to leave it alone. The path is absolute and as the
	// host sees it; current is the label that the entry has, "" if none.
	Want(path string, kind Kind, current string) (context string, leave Reason)
	// String names the rule: the context, or where the labels come from. Two labelers with the same name give the same labels.
	String() string
}

// Descender is a Labeler that need not be asked by whole paths. Deep down in a tree, where a path is longer than any that a system call takes, that
// counts: the length of all paths is the square of the depth.
type Descender interface {
	Labeler
	// Inside gives what Want says of all that is in a directory; nil if only Want can tell.
	Inside(dir string) Inside
}

// Inside is what a Labeler says of all that is in one directory.
type Inside interface {
	// Want is a Labeler's, of the entry with a name in the directory.
	Want(name string, kind Kind, current string) (context string, leave Reason)
	// Enter gives the same of a directory in it.
	Enter(name string) Inside
}

// Kind is the type of an entry, in the numbers of d_type (readdir(3)).
type Kind uint8

// The kinds of entries.
const (
	Unknown   Kind = 0
	FIFO      Kind = 1
	Character Kind = 2
	Directory Kind = 4
	Block     Kind = 6
	Regular   Kind = 8
	Link      Kind = 10
	Socket    Kind = 12
)

// Reason says why an entry was left alone; it is a key of Result.Skipped.
type Reason string

// The reasons.
const (
	// Links: the file has several names, the tree is part of a file system, and nobody said that its links can be trusted.
	Links Reason = "links"
	// Mounted: something is mounted there. Where the private copy of the mount can be made, the entry below is labelled instead.
	Mounted Reason = "mounted"
	// NoContext: the policy has no context for this path, or says <<none>>.
	NoContext Reason = "no context"
	// RootLast: the root did not get its label, because something in the tree failed.
	RootLast Reason = "root"
	// Unusable: a line of the file contexts that may be meant for this path cannot be used.
	Unusable Reason = "unusable line"
	// Owned: it is a container runtime's.
	Owned Reason = "owned"
	// Customized: its type is one that the administrator or a container chose (customizable_types).
	Customized Reason = "customized"
)

// Options are those of one run. Only Labels is needed.
type Options struct {
	Labels Labeler
	// DryRun changes nothing and counts as Set what would be.
	DryRun bool
	// Workers is how many system calls may wait for the disk at once, up to MaxWorkers; 0 follows what the disk needs, 2 to 32.
	Workers int
	// TrustLinks labels files with several names also where the tree is part of a file system. Only for trees in which nobody
	// could make a hard link to a file outside of it.
	TrustLinks bool
	// CopyUp allows a tree on an overlay, where a label copies the whole file to the upper layer. Without it, Run gives a
	// CopyUpError that says what it would cost.
	CopyUp bool
	// Verify reads every label back in a second pass; what differs has failed. Directories and the root are read back always.
	Verify bool
	// Limits keep the run in the background.
	Limits Limits
	// Progress is called every Interval (default 1 s) while the run goes on, from one goroutine.
	Progress func(Progress)
	// Alive is called now and then as long as the file system answers.
	Alive    func()
	Interval time.Duration
	// Changed is called for each label that was set, or would be with DryRun, one call at a time in no order.
	Changed func(Change)
	// State keeps what a run that was broken off had done, so that the next one goes on from there; nil: nothing is kept.
	State State
}

// MaxWorkers bounds Options.Workers: each is a thread.
const MaxWorkers = 256

// Limits bound what a run takes from the host; 0 is no limit.
type Limits struct {
	// EntriesPerSecond bounds how many entries are looked at, and with it the reads and writes of the disk.
	EntriesPerSecond int
	// CPUPercent bounds the processor time, in percent of one processor.
	CPUPercent int
	// Background gives way to everybody else: lowest CPU and I/O priority.
	Background bool
}

// Progress is how far a run is.
type Progress struct {
	Seen, Changed, Failed int64
	// Total is how many entries there are, as far as the file system tells; 0 if it does not.
	Total   int64
	Elapsed time.Duration
	// Rate is entries per second since the last report, and Left the time that the rest takes at it; 0 if unknown.
	Rate float64
	Left time.Duration
	// Workers is how many work now.
	Workers int
}

// Change is one label that was set, or would be.
type Change struct {
	// Path is absolute, as the host sees it; any bytes but NUL, in JSON quoted where it is not plain text.
	Path string `json:"path"`
	// From is the label that was there, "" where there was none.
	From string `json:"from,omitempty"`
	To   string `json:"to"`
}

// State is where the record of a run that was broken off is kept. Load gives nil, nil if there is none.
type State interface {
	Load() ([]byte, error)
	Save(record []byte) error
	Remove() error
}

// Result is what a run did. Seen = Already + Set + the sum of Skipped + Vanished + the sum of Failed + Resumed.
type Result struct {
	// Path is the tree as it was resolved, quoted where it is not plain text; Labels is the rule.
	Path   string `json:"path"`
	Labels string `json:"labels"`
	DryRun bool   `json:"dry_run,omitempty"`

	// Seen are all entries that were met, the root included.
	Seen int64 `json:"seen"`
	// Already had the right label, and were not written.
	Already int64 `json:"already"`
	// Set got the label; with DryRun: would get it.
	Set int64 `json:"set"`
	// Vanished were gone when it was their turn.
	Vanished int64 `json:"vanished"`
	// Resumed were done by the run that was broken off, and not looked at again.
	Resumed int64 `json:"resumed"`
	// Skipped were left alone, by reason.
	Skipped map[Reason]int64 `json:"skipped"`
	// Failed could not be labelled, by error, the most frequent first.
	Failed []Failure `json:"failed"`

	// RootLabelled says that the root has its label, which it gets last and only if nothing failed.
	RootLabelled bool `json:"root_labelled"`
	// Cancelled says that the run was broken off: the tree is not labelled in full.
	Cancelled bool `json:"cancelled,omitempty"`
	// WholeFilesystem says that the tree is all of its file system, so that every hard link is inside.
	WholeFilesystem bool `json:"whole_filesystem"`
	// MountsBelow are mounts inside the tree, which were not entered, as far as the mount table told at the start; quoted where they are not
	// plain text.
	MountsBelow []string `json:"mounts_below,omitempty"`

	Elapsed time.Duration `json:"elapsed_ns"`
	// Workers is the highest number that worked at once.
	Workers int `json:"workers"`
	// Prefetched is how many bytes of the file system's metadata were read ahead.
	Prefetched int64 `json:"prefetched_bytes,omitempty"`
}

// Failure is one error that entries had.
type Failure struct {
	Errno   string   `json:"errno"`   // its name: "EPERM"
	Message string   `json:"message"` // what it means here, with the remedy
	Count   int64    `json:"count"`
	Paths   []string `json:"paths"` // the first few, quoted where they are not plain text
}

// FailedCount gives how many entries could not be labelled.
func (r *Result) FailedCount() int64 {
	var n int64
	for _, f := range r.Failed {
		n += f.Count
	}
	return n
}

// Complete says whether every entry that was met has the label that it should have: nothing failed, nothing was left out for its
// links, a mount, or because nobody knows its label, and the run came to its end.
func (r *Result) Complete() bool {
	return !r.Cancelled && len(r.Failed) == 0 && r.Skipped[Links] == 0 && r.Skipped[Mounted] == 0 && r.Skipped[Unusable] == 0
}

// Missing says in one line what keeps the tree from being Complete; "" if nothing does.
func (r *Result) Missing() string {
	switch {
	case r.Complete():
		return ""
	case len(r.Failed) > 0:
		f := r.Failed[0]
		return fmt.Sprintf("%d files could not be labelled, such as %s: %s", r.FailedCount(), strings.Join(f.Paths[:min(1, len(f.Paths))], ""), f.Message)
	case r.Cancelled:
		return "it was broken off"
	case r.Skipped[Links] > 0:
		return fmt.Sprintf("%d files have another name, maybe outside of this directory, and were left alone", r.Skipped[Links])
	case r.Skipped[Unusable] > 0:
		return fmt.Sprintf("%d files were left alone, because a line of the file contexts that may be meant for them cannot be used", r.Skipped[Unusable])
	}
	return fmt.Sprintf("%d directories have something else mounted on them, and were left alone", r.Skipped[Mounted])
}

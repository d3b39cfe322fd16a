package mountwatch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/relabel"
)

const (
	// Dir is where the watcher remembers what it did to file systems. It is its own, so that nobody sweeps what it is writing.
	Dir = "/var/lib/selinux-provision/volumes"
	// RunDir is where it remembers the mounts of this boot. A boot that finds everything right writes nothing to the disk.
	RunDir = "/run/selinux-provision/volumes"

	doneFile   = Dir + "/labelled.json"
	mountsFile = RunDir + "/mounts.json"
)

// State is what became of a volume.
type State string

// The states.
const (
	Labelled    State = "labelled"    // the label was read back
	Remounting  State = "remounting"  // about to be unmounted and mounted again
	Relabelling State = "relabelling" // its files are being labelled, or wait for their turn
	Refused     State = "refused"     // it stays as it is, for the reason given
	TakenOver   State = "taken over"  // a container's runtime has labelled it for its container since
	Failed      State = "failed"      // it was tried, and something went wrong
	Pending     State = "pending"     // nobody has seen to it: the watcher does not run
	LeftAlone   State = "left alone"  // it is somebody else's, or hidden; only ever looked at
	NotMounted  State = "not mounted" // a rule that no mount matches now
)

// States gives all of them.
func States() []State {
	return []State{Labelled, Remounting, Relabelling, TakenOver, Refused, Failed, Pending, LeftAlone, NotMounted}
}

// Final tells whether the watcher is done with a volume in this state.
func (s State) Final() bool { return s.Usable() || s == Refused || s == Failed }

// Usable tells whether what waits for the volume's label may go on.
func (s State) Usable() bool { return s == Labelled || s == TakenOver }

// Volume is one mount that a rule is meant for, and what became of it.
type Volume struct {
	// Rule is the name of the rule; with two that match equally well both, "a, b". Written by the watcher, read by status and Wait.
	Rule       string `json:"rule"`
	Mountpoint string `json:"mountpoint"`
	Source     string `json:"source,omitempty"`
	FSType     string `json:"fstype,omitempty"`
	// Device is MAJOR:MINOR. With MountID, the kernel's unique ID or where it has none the one that is used again, it tells whether
	// the mount is still the one that was judged.
	Device  string `json:"device,omitempty"`
	MountID uint64 `json:"mount_id,omitempty"`
	// Context is what the rule asks for.
	Context string `json:"context,omitempty"`
	// Found is the label that its files have, where the level is left to a container and is another.
	Found  string `json:"found,omitempty"`
	Shared bool   `json:"shared,omitempty"` // the context is at level s0: every container may use it
	State  State  `json:"state"`
	// How is by what means it has its label: "context option" or "labelled files". When is the moment at which that was seen.
	How  string    `json:"how,omitempty"`
	When time.Time `json:"when,omitzero"`
	// Code, Reason and Remedy say why, where the state is no good one.
	Code   judge.Code `json:"code,omitempty"`
	Reason string     `json:"reason,omitempty"`
	Remedy string     `json:"remedy,omitempty"`
	// Late says that a pod had the volume before its files had their labels, and may have met them without.
	Late bool `json:"late,omitempty"`
	// Files are the counts of the last relabelling.
	Files *Files `json:"files,omitempty"`
}

// Files says what a relabelling did.
type Files struct {
	Seen    int64 `json:"seen"`
	Set     int64 `json:"set"`
	Already int64 `json:"already"`
	Resumed int64 `json:"resumed,omitempty"`
	Skipped int64 `json:"skipped,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	Millis  int64 `json:"ms"`
}

// Done is a relabelling that came to its end with every label read back.
type Done struct {
	// FileSystem is the UUID of the file system, or what stands for it where there is none; see identity.
	FileSystem string    `json:"filesystem"`
	Context    string    `json:"context"`
	Paths      []string  `json:"paths,omitempty"` // those of the rule; none: all of it
	When       time.Time `json:"when"`
	Files      Files     `json:"files"`
}

// Record is what the watcher remembers. It is never believed against what the host shows: a volume counts only for the very mount that
// it was written for, and a finished relabelling only if the label of each root is still there.
type Record struct {
	// Version is the format's, 1. A file of another version counts as missing.
	Version int `json:"version"`
	// Volumes are the mounts of this boot, in the order of their mountpoints; in RunDir. Written by the watcher when something about them
	// changes, read by it at its next start, by status, and by Wait.
	Volumes []Volume `json:"volumes,omitempty"`
	// Done are finished relabellings; in Dir, those of file systems without a UUID in RunDir. Written by the watcher at the end of each, read
	// when the file system is mounted the next time.
	Done []Done `json:"done,omitempty"`

	saved  map[string][sha256.Size]byte // what is in the files, by name
	buffer []byte                       // for the next time
}

// LoadRecord reads the record. Anything that is wrong with a file makes it an empty one.
func LoadRecord(root *hostfs.Root) *Record {
	lasting, mounted := loadFile(root, doneFile), loadFile(root, mountsFile)
	return &Record{Version: 1, Volumes: mounted.Volumes, Done: append(lasting.Done, mounted.Done...)}
}

func loadFile(root *hostfs.Root, name string) (r Record) {
	content, err := root.ReadFile(name)
	if err != nil || json.Unmarshal(content, &r) != nil || r.Version != 1 {
		return Record{}
	}
	return r
}

// save writes what is not as the files say.
func (r *Record) save(root *hostfs.Root) error {
	lasting, mounted := Record{Version: 1}, Record{Version: 1, Volumes: r.Volumes}
	for _, d := range r.Done {
		to := &lasting
		if strings.HasPrefix(d.FileSystem, nameless) {
			to = &mounted
		}
		to.Done = append(to.Done, d)
	}
	return errors.Join(r.saveFile(root, Dir, doneFile, &lasting), r.saveFile(root, RunDir, mountsFile, &mounted))
}

func (r *Record) saveFile(root *hostfs.Root, dir, name string, part *Record) error {
	content, err := part.encode(r.buffer[:0])
	if err != nil {
		return err
	}
	r.buffer = content
	sum := sha256.Sum256(content)
	if _, err := root.Lstat(name); err != nil && len(part.Volumes)+len(part.Done) == 0 || err == nil && r.inFile(root, name) == sum {
		return nil
	}
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot save the record of what was done: %w", err)
	}
	if err := root.WriteFile(name, content, hostfs.Attributes{Mode: 0o644}); err != nil {
		return fmt.Errorf("cannot save the record of what was done: %w", err)
	}
	if r.saved == nil {
		r.saved = map[string][sha256.Size]byte{}
	}
	r.saved[name] = sum
	return nil
}

// forgetCopies gives up what is made anew when the record is written again.
func (r *Record) forgetCopies() { r.Volumes, r.buffer = nil, nil }

// inFile gives the hash of what is in a file. It is read once: it may be long.
func (r *Record) inFile(root *hostfs.Root, name string) [sha256.Size]byte {
	if sum, known := r.saved[name]; known {
		return sum
	}
	content, _ := root.ReadFile(name) // what cannot be read is not like anything that would be written
	return sha256.Sum256(content)
}

// encode appends the record as JSON with a line for each entry. There may be thousands, and it is written often: encoding all of it at once
// would take several times its size in memory.
func (r *Record) encode(out []byte) ([]byte, error) {
	out = fmt.Appendf(out, `{"version": %d`, r.Version)
	var failures [2]error
	out, failures[0] = appendList(out, "volumes", r.Volumes)
	out, failures[1] = appendList(out, "done", r.Done)
	return append(out, "}\n"...), errors.Join(failures[:]...)
}

func appendList[T any](out []byte, name string, list []T) ([]byte, error) {
	for i := range list {
		entry, err := json.Marshal(&list[i])
		if err != nil {
			return nil, err
		}
		if i == 0 {
			out = append(out, ",\n\""+name+"\": [\n"...)
		} else {
			out = append(out, ",\n"...)
		}
		out = append(out, entry...)
	}
	if len(list) > 0 {
		out = append(out, ']')
	}
	return out, nil
}

// volume finds what is remembered of a mount.
func (r *Record) volume(m *mounts.Mount) *Volume {
	for i := range r.Volumes { // not by value: there may be thousands, and each is asked for
		if v := &r.Volumes[i]; v.is(m) {
			return v
		}
	}
	return nil
}

func (v *Volume) is(m *mounts.Mount) bool {
	return v.MountID == mountID(m) && v.isAt(m)
}

// isAt is what is, where the mount's unique ID cannot be known: in another mount namespace.
func (v *Volume) isAt(m *mounts.Mount) bool {
	if v.Device != m.Device.String() {
		return false
	}
	return v.Mountpoint == m.Mountpoint || v.Mountpoint == string([]rune(m.Mountpoint)) // as JSON has what is not UTF-8
}

// NotShared tells whether the volume is for all containers, but a file that one of them makes will be its own: in a volume whose files
// have labels of their own, a new one gets the level of the process that makes it, unless the policy says otherwise. A CSI volume of the kubelet's is given
// to each pod that may write to it by the runtime, at the pod's start.
func (v *Volume) NotShared(c Config) bool {
	if _, csi := kubelet.CSIMount(v.Mountpoint); csi {
		return false
	}
	return v.State == Labelled && v.Shared && v.How == byFiles && !c.SharedVolumes
}

// device reads Device.
func (v *Volume) device() (d mounts.Device) {
	if _, err := fmt.Sscanf(v.Device, "%d:%d", &d.Major, &d.Minor); err != nil {
		return mounts.Device{}
	}
	return d
}

// sameFate tells whether two looks at a volume found the same, whenever that was.
func (v *Volume) sameFate(other *Volume) bool {
	a, b := *v, *other
	a.When, b.When, a.Files, b.Files, a.Late, b.Late = time.Time{}, time.Time{}, nil, nil, false, false
	return reflect.DeepEqual(a, b)
}

func mountID(m *mounts.Mount) uint64 {
	if m.Unique != 0 {
		return m.Unique
	}
	return uint64(m.ID)
}

// finished gives the relabelling of this file system that did what the rule asks for.
func (r *Record) finished(fileSystem, context string, paths []string) *Done {
	i := slices.IndexFunc(r.Done, func(d Done) bool {
		return d.FileSystem == fileSystem && secontext.Same(d.Context, context) && slices.Equal(d.Paths, paths)
	})
	if i < 0 {
		return nil
	}
	return &r.Done[i]
}

// maxDone bounds what is remembered of file systems that may never come back.
const maxDone = 4096

// finish remembers a relabelling. What was known of the same files before is not true any more.
func (r *Record) finish(d Done) {
	r.forget(d.FileSystem, d.Paths)
	r.Done = append(r.Done, d)
	if more := len(r.Done) - maxDone; more > 0 {
		r.Done = slices.Delete(r.Done, 0, more)
	}
}

// forget drops what is known of files that are about to get other labels.
func (r *Record) forget(fileSystem string, paths []string) {
	r.Done = slices.DeleteFunc(r.Done, func(d Done) bool {
		return d.FileSystem == fileSystem && (len(paths) == 0 || len(d.Paths) == 0 || slices.ContainsFunc(d.Paths, func(a string) bool {
			return slices.ContainsFunc(paths, func(b string) bool { return overlap(a, b) })
		}))
	})
}

func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// nameless begins the identity of a file system that has no UUID, so that it is known only as long as it stays mounted.
const nameless = "mount "

// identity names a file system so that it is known again when it is mounted the next time.
func identity(m *mounts.Mount, names mounts.Names) string {
	if m.Device.Major != 0 && len(names.UUIDs) > 0 {
		return m.FSType + " " + names.UUIDs[0]
	}
	return nameless + strconv.FormatUint(mountID(m), 10) + " of device " + m.Device.String()
}

// progressOf is where one relabelling keeps what it has done so far, so that the next one goes on from there.
func progressOf(root *hostfs.Root, fileSystem, context, path string) relabel.State {
	sum := sha256.Sum256([]byte(fileSystem + "\x00" + context + "\x00" + path))
	dir := Dir
	if strings.HasPrefix(fileSystem, nameless) {
		dir = RunDir
	}
	return relabel.StateFile{Root: root, Name: dir + "/progress-" + hex.EncodeToString(sum[:12])}
}

package avc

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

const (
	// maxGroups bounds the memory for groups. Beyond it, denials of one subject, domain, type and class go together whatever
	// their path; Group.Paths then is empty, and Folded says so.
	maxGroups = 1 << 14
	// maxFolded is the same for the groups without paths; beyond it the subject goes too, and beyond half as many more, which only
	// made-up records reach, all but what kind of record it is.
	maxFolded = 2 * maxGroups
	maxAll    = 3 * maxGroups
	// maxPermissions bounds the permissions of a group. A class of the kernel has 32 at most.
	maxPermissions = 64
)

// Subject says whose a denial is: a container, else a systemd unit, else nobody is known but the domain.
type Subject struct {
	Container string `json:"container,omitempty"` // its name
	ID        string `json:"id,omitempty"`        // of the container
	Image     string `json:"image,omitempty"`
	Runtime   string `json:"runtime,omitempty"` // docker, containerd, cri-o, podman
	Pod       string `json:"pod,omitempty"`     // NAMESPACE/NAME in Kubernetes
	// Manifest is NAMESPACE/NAME in the manifest of a static pod, to which the kubelet adds the name of the node.
	Manifest string `json:"manifest,omitempty"`
	Unit     string `json:"unit,omitempty"` // of systemd; of a container, if it is the service's own, as Quadlet makes it
	// Evidence says how the subject was found: the process's own cgroup, or its categories, which only one container has.
	Evidence string `json:"evidence,omitempty"`
}

// String is the subject in a few words, "" if nothing but the domain is known.
func (s Subject) String() string {
	switch name := s.Name(); name {
	case "":
		return s.Unit
	case s.Pod:
		return "pod " + name
	default:
		return "container " + name
	}
}

// Name is the name by which a container is shown, NAMESPACE/POD/CONTAINER in Kubernetes, or that of a pod; "" for what is neither.
func (s Subject) Name() string {
	if s.Pod != "" && s.Container != "" {
		return s.Pod + "/" + s.Container
	}
	return cmp.Or(s.Pod, s.Container, s.ID[:min(12, len(s.ID))])
}

// Attributor tells whose a denial is. It must be quick for what it has told before; NewGroups calls it for every denial.
type Attributor interface {
	Subject(d *Denial) Subject
}

// Nobody is the Attributor that knows nothing.
type Nobody struct{}

// Subject gives the subject of which nothing is known.
func (Nobody) Subject(*Denial) Subject { return Subject{} }

// Group is a number of denials that are alike in all but time, process and permission.
type Group struct {
	Subject Subject `json:"subject"`
	Kind    Kind    `json:"kind"`
	Type    Type    `json:"record"`
	Domain  string  `json:"domain"` // type of the source
	Target  string  `json:"target"` // type of the target
	Class   string  `json:"class"`
	Op      string  `json:"op,omitempty"` // what was computed when Kind is Invalid
	Invalid string  `json:"invalid_context,omitempty"`
	// Outside says that the target has categories which the source has not, so that MCS alone forbids most accesses.
	Outside bool   `json:"outside_categories,omitempty"`
	Path    string `json:"path,omitempty"` // as the process sees it
	Name    string `json:"name,omitempty"` // of the file, where Path is not known
	Dev     string `json:"dev,omitempty"`  // the kernel's name of the file system
	// Raw is the target's label as the file has it, if the policy does not know it; Target then is the type of files without one.
	Raw string `json:"raw_target_context,omitempty"`
	// RawSource is the same of who asked: the domain of a process is not in the policy any more.
	RawSource string `json:"raw_source_context,omitempty"`
	// Folded says that there were too many paths to tell them apart.
	Folded bool `json:"folded,omitempty"`

	Permissions map[string]uint64 `json:"permissions"` // how often each was denied
	Count       uint64            `json:"count"`
	Enforced    uint64            `json:"enforced"`   // how many of Count stopped the access
	Permissive  uint64            `json:"permissive"` // how many of Count only were reported; the rest is unknown
	First       time.Time         `json:"first,omitzero"`
	Last        time.Time         `json:"last,omitzero"`
	Source      Context           `json:"source_context"` // of the last denial
	Object      Context           `json:"target_context"` // of the last denial
	PID         int               `json:"pid,omitempty"`  // of the last denial
	Comm        string            `json:"comm,omitempty"` // of the last denial
	Exe         string            `json:"exe,omitempty"`  // of the last denial
	Ino         uint64            `json:"ino,omitempty"`  // of the last denial
	Ioctl       []uint16          `json:"ioctl,omitempty"`
	Serials     []uint64          `json:"serials,omitempty"` // of the first few events
	Fields      []Field           `json:"fields,omitempty"`  // of the first denial, those that nothing above holds
}

// PermissionList gives the names of the permissions in order.
func (g *Group) PermissionList() []string { return slices.Sorted(maps.Keys(g.Permissions)) }

type groupKey struct {
	subject             Subject
	kind                Kind
	typ                 Type
	domain, target      string
	class, op, invalid  string
	outside, folded     bool
	path, name, devname string
	raw, rawSource      string
}

// Groups puts denials together.
type Groups struct {
	who    Attributor
	groups map[groupKey]*Group
}

// NewGroups gives an empty collection.
func NewGroups(who Attributor) *Groups {
	return &Groups{who: who, groups: map[groupKey]*Group{}}
}

// keyOf tells a denial from those that go into other groups.
func keyOf(d *Denial, whose Subject) groupKey {
	key := groupKey{
		subject: whose, kind: d.Kind, typ: d.Type, domain: d.Source.Type(), target: d.Target.Type(), class: d.Class, op: d.Op,
		outside: outside(d.Source.Level(), d.Target.Level()), path: d.Path, name: d.Name, devname: d.Dev,
	}
	if d.Kind == Invalid {
		key.invalid = Context(d.Context).Type()
	}
	if key.path != "" {
		key.name = ""
	}
	if raw := d.Field("trawcon"); raw != "" {
		key.raw = Context(raw).Type()
	}
	if raw := d.Field("srawcon"); raw != "" {
		key.rawSource = Context(raw).Type()
	}
	return key
}

// own gives the key with copies of its strings: those of a Denial hold on to all the text around them.
func (k groupKey) own() groupKey {
	for _, s := range []*string{&k.subject.Unit, &k.domain, &k.target, &k.class, &k.op, &k.invalid, &k.path, &k.name, &k.devname, &k.raw, &k.rawSource} {
		*s = strings.Clone(*s)
	}
	return k
}

// group makes an empty group for a denial. The key is its own.
func (k groupKey) group(d *Denial) *Group {
	group := &Group{
		Subject: k.subject, Kind: k.kind, Type: k.typ, Domain: k.domain, Target: k.target, Class: k.class, Op: k.op,
		Outside: k.outside, Path: k.path, Name: k.name, Dev: k.devname, Folded: k.folded,
		Invalid: strings.Clone(d.Context), Raw: strings.Clone(d.Field("trawcon")), RawSource: strings.Clone(d.Field("srawcon")), Permissions: map[string]uint64{}, First: d.Time,
	}
	for _, f := range d.Extra {
		group.Fields = append(group.Fields, Field{strings.Clone(f.Key), strings.Clone(f.Value)})
	}
	return group
}

// Add counts a denial.
func (g *Groups) Add(d *Denial) {
	key := keyOf(d, g.who.Subject(d))
	group := g.groups[key]
	if group == nil && len(g.groups) >= maxGroups {
		key.path, key.name, key.folded = "", "", true
		group = g.groups[key]
		if group == nil && len(g.groups) >= maxFolded {
			key.subject, key.devname = Subject{}, ""
			group = g.groups[key]
		}
		if group == nil && len(g.groups) >= maxAll {
			key = groupKey{kind: key.kind, typ: key.typ, folded: true}
			group = g.groups[key]
		}
	}
	if group == nil {
		own := key.own()
		group = own.group(d)
		g.groups[own] = group
	}
	group.add(d)
}

// Act is what a denial has in common with those that need not be told again: all but time and process. It can be the key of a map.
type Act struct {
	key         groupKey
	permissions string
	enforced    Enforced
}

// ActOf gives the act of a denial. It is valid as long as the denial; Own gives one that stays.
func ActOf(d *Denial, whose Subject) Act {
	return Act{keyOf(d, whose), strings.Join(d.Permissions, " "), d.Enforced}
}

// Own gives an act that holds on to nothing of its denial.
func (a Act) Own() Act {
	a.key = a.key.own()
	return a
}

// Single gives a group of one denial alone.
func Single(d *Denial, whose Subject) *Group {
	group := keyOf(d, whose).own().group(d)
	group.add(d)
	return group
}

func (g *Group) add(d *Denial) {
	g.Count++
	switch d.Enforced {
	case EnforcedYes:
		g.Enforced++
	case EnforcedNo:
		g.Permissive++
	}
	for _, p := range d.Permissions {
		if n, known := g.Permissions[p]; known {
			g.Permissions[p] = n + 1
		} else if len(g.Permissions) < maxPermissions {
			g.Permissions[strings.Clone(p)] = 1
		}
	}
	g.First = earlier(g.First, d.Time)
	if !d.Time.Before(g.Last) {
		g.Last = d.Time
	}
	if g.PID != d.PID || g.Source != d.Source || g.Object != d.Target || g.Ino != d.Ino || g.Comm != d.Comm || g.Exe != d.Exe {
		g.PID, g.Ino = d.PID, d.Ino
		keep(&g.Comm, d.Comm)
		keep(&g.Exe, d.Exe)
		keep(&g.Source, d.Source)
		keep(&g.Object, d.Target)
	}
	for _, command := range d.Ioctl {
		if at, found := slices.BinarySearch(g.Ioctl, command); !found && len(g.Ioctl) < 64 {
			g.Ioctl = slices.Insert(g.Ioctl, at, command)
		}
	}
	if d.Serial != 0 && len(g.Serials) < 4 && !slices.Contains(g.Serials, d.Serial) {
		g.Serials = append(g.Serials, d.Serial)
	}
}

// earlier gives the earlier of two times; one that is not known is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Join counts the denials of another group, which differs in nothing that matters but its place.
func (g *Group) Join(other *Group) {
	g.Count += other.Count
	g.Enforced += other.Enforced
	g.Permissive += other.Permissive
	for p, n := range other.Permissions {
		g.Permissions[p] += n
	}
	g.First = earlier(g.First, other.First)
	if other.Last.After(g.Last) {
		g.Last, g.Source, g.Object, g.PID, g.Comm, g.Exe = other.Last, other.Source, other.Object, other.PID, other.Comm, other.Exe
	}
	g.Folded = g.Folded || other.Folded
	for _, s := range other.Serials {
		if len(g.Serials) < 4 && !slices.Contains(g.Serials, s) {
			g.Serials = append(g.Serials, s)
		}
	}
	for _, command := range other.Ioctl {
		if at, found := slices.BinarySearch(g.Ioctl, command); !found {
			g.Ioctl = slices.Insert(slices.Clone(g.Ioctl), at, command)
		}
	}
}

func keep[S ~string](place *S, value S) {
	if *place != value {
		*place = S(strings.Clone(string(value)))
	}
}

// List gives the groups, the most frequent first; of equal ones in an order that depends on nothing else.
func (g *Groups) List() []*Group {
	list := slices.Collect(maps.Values(g.groups))
	slices.SortFunc(list, func(a, b *Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Subject.String(), b.Subject.String()), cmp.Compare(a.Subject.ID, b.Subject.ID),
			cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Class, b.Class),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Dev, b.Dev), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Op, b.Op), cmp.Compare(a.Invalid, b.Invalid), cmp.Compare(a.Raw, b.Raw), cmp.Compare(a.RawSource, b.RawSource), cmp.Compare(a.Type, b.Type))
	})
	return list
}

// outside tells whether the target's level has categories that the source's has not. A target's level that cannot be read has none.
func outside(source, target string) bool {
	if target == source {
		return false
	}
	object, err := secontext.ParseRange(target)
	if err != nil || len(object.Low.Categories) == 0 {
		return false
	}
	// Of a range the high end decides for the source, the low end for an object, which has one level only.
	subject, _ := secontext.ParseRange(source)
	return !subject.High.Categories.Contain(object.Low.Categories)
}

package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/selinux-provision/selinux-provision/internal/glob"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Rules are the operator's, ready to be used. The zero value has none. They may be used by several goroutines at once.
type Rules struct {
	list []rule
	// asked is what was found out of the table that was asked about last.
	mu    sync.Mutex
	asked asked
}

// asked is what all mounts of a file system together say. There may be thousands of them, and each is judged.
type asked struct {
	table *mounts.Table
	names map[mounts.Device]bool
	wants map[superblock][]wish
}

// superblock is a file system, and what the wishes for it depend on beside the table.
type superblock struct {
	device        mounts.Device
	host          Host
	driver, names string
}

// of is what was found out of a table. It is to be called and used with the lock held.
func (r *Rules) of(table *mounts.Table) *asked {
	if r.asked.table != table {
		r.asked = asked{table, map[mounts.Device]bool{}, map[superblock][]wish{}}
	}
	return &r.asked
}

// rule is a Rule whose patterns have been read. A pattern is nil if the key is not given.
type rule struct {
	Rule
	mountpoint, source, fstype, label, uuid *glob.Pattern

	exact, keys int  // how specific it is
	csi         bool // it asks for CSI volumes of the kubelet
}

// NewRules makes rules ready. A pattern that cannot be read, and a rule that would match everything, is an error; whoever has read
// the config has said so before, with the line.
func NewRules(list []Rule) (*Rules, error) {
	r := &Rules{}
	for _, each := range list {
		made := rule{Rule: each}
		for _, key := range []struct {
			text    string
			pattern **glob.Pattern
			names   bool // it can name one volume
		}{
			{each.Match.Mountpoint, &made.mountpoint, true}, {each.Match.Source, &made.source, true}, {each.Match.Label, &made.label, true},
			{strings.ToLower(each.Match.UUID), &made.uuid, true}, {each.Match.FSType, &made.fstype, false},
		} {
			if key.text == "" {
				continue
			}
			pattern, err := glob.Compile(key.text)
			if err != nil {
				return nil, fmt.Errorf("cannot use rule %s (%s): cannot use the pattern %s: %w", each.Name, each.Source, printable.Quote(key.text), err)
			}
			*key.pattern = pattern
			made.keys++
			if key.names && pattern.Exact() {
				made.exact++
			}
		}
		made.csi = made.mountpoint != nil && kubelet.MeansCSI(made.mountpoint.Prefix())
		if each.Match.CSIDriver != "" {
			made.csi = true
			made.keys++
		}
		if made.keys == 0 {
			return nil, fmt.Errorf("cannot use rule %s (%s): it matches everything", each.Name, each.Source)
		}
		r.list = append(r.list, made)
	}
	return r, nil
}

// NeedNames tells whether Facts.Names is needed to tell which rule is for this mount: a rule that fits it otherwise asks for a source,
// a label or a UUID.
func (r *Rules) NeedNames(m *mounts.Mount) bool {
	for i := range r.list {
		if one := &r.list[i]; (one.source != nil || one.label != nil || one.uuid != nil) && one.fitsLine(m) {
			return true
		}
	}
	return false
}

// NeedNamesOf tells whether NeedNames is so for any mount of a superblock.
func (r *Rules) NeedNamesOf(table *mounts.Table, d mounts.Device) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.of(table)
	need, known := of.names[d]
	if !known {
		need = slices.ContainsFunc(table.Superblock(d), r.NeedNames)
		of.names[d] = need
	}
	return need
}

// NeedDriver tells whether Facts.Driver is needed to tell which rule is for this mount.
func (r *Rules) NeedDriver(m *mounts.Mount) bool {
	for i := range r.list {
		if one := &r.list[i]; one.Match.CSIDriver != "" && one.fitsLine(m) {
			return true
		}
	}
	return false
}

// Matching gives the rules that match the mount better than all others: none, one, or those of a tie. Of Facts, it needs the names and the
// driver only; the others are worth reading if it gives something.
func (r *Rules) Matching(m *mounts.Mount, facts Facts) []*Rule {
	var fitting []*rule
	for i := range r.list {
		if one := &r.list[i]; one.fitsLine(m) && one.fitsNames(m, facts.Names) && (one.Match.CSIDriver == "" || one.Match.CSIDriver == facts.Driver) {
			fitting = append(fitting, one)
		}
	}
	// One that is meant for whatever is mounted somewhere does not count beside one that asks for the kubelet's volumes.
	if _, csi := kubelet.CSIMount(m.Mountpoint); csi && slices.ContainsFunc(fitting, func(one *rule) bool { return one.csi }) {
		fitting = slices.DeleteFunc(fitting, func(one *rule) bool { return !one.csi })
	}
	var best []*Rule
	for _, one := range fitting {
		if !slices.ContainsFunc(fitting, func(other *rule) bool { return other.beats(one, m) }) {
			best = append(best, &one.Rule)
		}
	}
	return best
}

// fitsLine compares what is in the mount table alone.
func (r *rule) fitsLine(m *mounts.Mount) bool {
	if r.mountpoint != nil && !r.mountpoint.Match(m.Mountpoint) {
		return false
	}
	if r.Match.CSIDriver != "" {
		if _, csi := kubelet.CSIMount(m.Mountpoint); !csi {
			return false
		}
	}
	return r.fstype == nil || slices.ContainsFunc(mounts.TypeNames(m.FSType), r.fstype.Match)
}

func (r *rule) fitsNames(m *mounts.Mount, names mounts.Names) bool {
	if r.source != nil && !r.source.Match(m.Source) && !anyOf(r.source, names.Paths, false) {
		return false
	}
	return (r.label == nil || anyOf(r.label, names.Labels, false)) && (r.uuid == nil || anyOf(r.uuid, names.UUIDs, true))
}

func anyOf(p *glob.Pattern, list []string, lower bool) bool {
	for _, name := range list {
		if lower {
			name = strings.ToLower(name)
		}
		if p.Match(name) {
			return true
		}
	}
	return false
}

// beats tells whether r is more specific than other for a mount, as Match says.
func (r *rule) beats(other *rule, m *mounts.Mount) bool {
	order := cmp.Or(cmp.Compare(r.exact, other.exact), cmp.Compare(r.keys, other.keys))
	if order == 0 && r.mountpoint != nil && other.mountpoint != nil && !r.mountpoint.Exact() && !other.mountpoint.Exact() {
		order = cmp.Compare(len(r.mountpoint.Prefix()), len(other.mountpoint.Prefix()))
	}
	if order == 0 && r.fstype != nil && other.fstype != nil {
		return r.fstype.Match(m.FSType) && !other.fstype.Match(m.FSType)
	}
	return order > 0
}

// names tells whether a rule means particular volumes, and not whatever fits a pattern.
func (r *Rules) names(one *Rule) bool {
	for i := range r.list {
		if &r.list[i].Rule == one {
			return r.list[i].exact > 0
		}
	}
	return false
}

// InPlace tells whether a mount is a CSI volume of the kubelet's that these rules, which match it, ask for. It may get labels on its files, and is
// never unmounted.
func (r *Rules) InPlace(m *mounts.Mount, matching []*Rule) bool {
	if _, csi := kubelet.CSIMount(m.Mountpoint); !csi {
		return false
	}
	for i := range r.list {
		if r.list[i].csi && slices.Contains(matching, &r.list[i].Rule) {
			return true
		}
	}
	return false
}

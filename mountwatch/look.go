package mountwatch

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// How a volume has its label.
const (
	byOption = "context option"
	byFiles  = "labelled files"
)

// looker judges mounts. It changes nothing.
type looker struct {
	root    *hostfs.Root
	host    judge.Host
	rules   *judge.Rules
	running func() map[string]string
	table   *mounts.Table
	record  *Record
	names   map[mounts.Device]mounts.Names // of devices that were looked at already
	asking  *asking
}

// asking is how file systems are asked, and who runs. What does not answer is left behind, and the others are not kept waiting.
type asking struct {
	patience.Budget
	patience time.Duration     // for all that do not answer in what goes on at one time; 0: lookPatience
	running  map[string]string // the containers that run, by level; nil: nobody has asked yet
	told     told
}

// told is which directories runtimes and the kubelet were told to use, as far as is known.
type told struct {
	protected.Told
	at   time.Time // when that was asked last
	room patience.Room
}

// toldAgain is how long that holds. The kubelet and the runtimes start after the watcher, but what they mount is known by its shape, mostly; to look
// through all processes for each of thousands of mounts takes longer than all else.
const toldAgain = 10 * time.Second

// begin gives what goes on now its own patience, and its own look at what runs.
func (a *asking) begin() {
	a.Left, a.Least, a.running = cmp.Or(a.patience, lookPatience), leastPatience, nil
}

const (
	// lookPatience is how long those are waited for that do not answer, all together, and leastPatience how long each of them at least.
	lookPatience  = 10 * time.Second
	leastPatience = 200 * time.Millisecond
)

// ask reads something of the file system of a mount.
func ask[T any](ctx context.Context, a *asking, m *mounts.Mount, read func() (T, error)) (T, error) {
	return patience.AskWithin(ctx, &a.Budget, m.Device.String(), read)
}

// containerAt names the container that runs at a level, "" if none does. All of them are looked for once, for that takes long.
func (l looker) containerAt(level string) string {
	if l.asking.running == nil {
		l.asking.running = map[string]string{}
		if l.running != nil {
			maps.Copy(l.asking.running, l.running())
		}
	}
	return l.asking.running[level]
}

func (w *Watcher) look() looker {
	return looker{w.Root, w.Host, w.rules, w.config.Running, w.table, w.record, w.names, &w.asking}
}

// judge finds out what the rules need to know about a mount, and no more, and gives the verdict.
func (l looker) judge(ctx context.Context, m *mounts.Mount) (judge.Verdict, mounts.Names) {
	var facts judge.Facts
	names := func() {
		var err error
		facts.Names, err = l.namesOf(ctx, m)
		facts.NoAnswer = facts.NoAnswer || errors.Is(err, patience.ErrNoAnswer)
	}
	if l.rules.NeedNames(m) {
		names()
	}
	if csi, ok := kubelet.CSIMount(m.Mountpoint); ok && l.rules.NeedDriver(m) {
		facts.Driver = csi.Driver(l.root)
	}
	rules := l.rules.Matching(m, facts)
	if len(rules) > 0 && protected.Mount(m.Mountpoint) == "" {
		l.owner(ctx, m, &facts)
	}
	// Whether another mount of the same file system is declared, and with another label, may be told by its names alone.
	if len(rules) == 1 && l.rules.NeedNamesOf(l.table, m.Device) {
		names()
	}
	if len(rules) == 1 && m.Seclabel() {
		names() // also those under which a finished relabelling is remembered
		l.labelled(ctx, rules[0], m, &facts)
	}
	return l.rules.Judge(l.host, l.table, m, facts), facts.Names
}

// owner finds out whose directory a mount is in, if that is no directory that is known without looking. What does not answer then, such as a server
// behind a link in place of one, is not the file system of the mount, and takes nothing of the patience with that.
func (l looker) owner(ctx context.Context, m *mounts.Mount, facts *judge.Facts) {
	known := &l.asking.told
	if known.at.IsZero() || time.Since(known.at) > toldAgain {
		found, err := patience.Ask(ctx, &known.room, "the directories of container runtimes", lookPatience, func(context.Context, func()) (protected.Told, error) { return protected.ReadTold(l.root), nil })
		if err == nil {
			known.Told = found
		}
		known.at = time.Now()
	}
	facts.Owner = known.Owner(m.Mountpoint)
}

// namesOf reads the names of a mount's device, once for as long as it is mounted.
func (l looker) namesOf(ctx context.Context, m *mounts.Mount) (mounts.Names, error) {
	if names, known := l.names[m.Device]; known {
		return names, nil
	}
	names, err := ask(ctx, l.asking, m, m.Names)
	if err == nil {
		l.names[m.Device] = names
	}
	return names, err // also of what could be found; asked again the next time
}

// labelled finds the context that a finished relabelling gave to all that the rule covers. The record is believed only if each root still
// has the label: it was given last, and a copy of a disk from before, or one that was made anew, does not have it. A root that has got the
// label of a container since, or has that of one that runs, is the container's.
func (l looker) labelled(ctx context.Context, rule *judge.Rule, m *mounts.Mount, facts *judge.Facts) {
	want, err := rule.Want(l.host.DefaultContext)
	done := err == nil && l.record.finished(identity(m, facts.Names), want, rule.Paths) != nil
	if !done && rule.Strategy == judge.Context {
		return
	}
	type answer struct {
		root  string
		right bool   // each tree of the rule
		taken string // the label of the first that a container's runtime labelled
	}
	a, err := ask(ctx, l.asking, m, func() (a answer, err error) {
		wrong := false
		if a.root, err = m.RootLabel(); err != nil {
			return a, err
		}
		for _, path := range pathsOf(rule.Paths) {
			label, err := m.Label(path)
			switch {
			case err != nil:
				return a, err
			case secontext.Same(label, want):
			case l.host.ByRuntime(label, want):
				a.taken = cmp.Or(a.taken, label)
			default:
				wrong = true
			}
		}
		a.right = !wrong && a.taken == ""
		return a, nil
	})
	facts.NoAnswer = facts.NoAnswer || errors.Is(err, patience.ErrNoAnswer)
	if done && a.right {
		facts.Labelled, facts.RootLabel = want, a.root
	}
	if a.taken == "" {
		return
	}
	facts.Container = l.containerAt(secontext.Context(a.taken).Level())
	if done || rule.Private || facts.Container != "" || l.rules.InPlace(m, []*judge.Rule{rule}) && l.host.ForPod(a.taken, want) {
		facts.Taken = a.taken
	}
}

// pathsOf gives the trees that a rule with these paths covers, relative to the root of the volume.
func pathsOf(paths []string) []string {
	if len(paths) == 0 {
		return []string{"."}
	}
	return paths
}

// describe turns a verdict into what is shown and remembered.
func describe(v judge.Verdict) Volume {
	m := v.Mount
	out := Volume{Mountpoint: m.Mountpoint, Source: m.Source, FSType: m.FSType, Device: m.Device.String(), MountID: mountID(m),
		Context: v.Want, Found: v.Found, Shared: secontext.Context(v.Want).Shared() && (v.Rule == nil || !v.Rule.Private), Code: v.Code, Reason: v.Reason, Remedy: v.Remedy}
	var names []string
	for _, r := range v.Rules {
		names = append(names, r.Name)
	}
	if v.Rule != nil {
		names = []string{v.Rule.Name}
	}
	slices.Sort(names)
	out.Rule = strings.Join(names, ", ")
	switch v.Outcome {
	case judge.Right:
		out.State, out.How = Labelled, byFiles
		out.Shared = out.Shared && v.Found == "" // a pod's own, whatever was asked for
		if m.Context() != "" {
			out.How = byOption
		}
	case judge.WantsContext:
		out.State = Remounting
	case judge.WantsRelabel:
		out.State = Relabelling
	case judge.TakenOver:
		out.State = TakenOver
	case judge.Refused:
		out.State = Refused
	case judge.LeftAlone:
		out.State = LeftAlone
	}
	return out
}

// Look gives every mount that a rule fits, those that are left alone included, and every rule that no mount matches, as they are now. It
// changes nothing. A process in a mount namespace of its own, such as that of a sandboxed unit, cannot see what is mounted on the host and has no
// devices to ask for names: it gives what the watcher wrote down of the host's mounts.
func Look(ctx context.Context, root *hostfs.Root, host judge.Host, config Config) ([]Volume, error) {
	if errors.Is(CheckNamespace(), ErrOtherNamespace) {
		if all, err := mounts.ReadHost(); err == nil {
			return recorded(host, config, mounts.NewTable(all), LoadRecord(root))
		}
	}
	source, err := mounts.Open(false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	if _, err := source.Next(ctx); err != nil {
		return nil, err
	}
	return lookAt(ctx, root, host, config, source.Table())
}

// recorded is Look with the watcher's eyes: a record counts where the host has that mount and the rule is as it was, and a mount without one is pending.
func recorded(host judge.Host, config Config, table *mounts.Table, record *Record) ([]Volume, error) {
	rules, err := judge.NewRules(config.Rules)
	if err != nil {
		return nil, err
	}
	wants := map[string]string{}
	for _, r := range config.Rules {
		wants[r.Name], _ = r.Want(host.DefaultContext)
	}
	var volumes []Volume
	met := map[string]bool{}
	for _, m := range table.All() {
		verdict := rules.Judge(host, table, m, judge.Facts{})
		now := describe(verdict)
		i := slices.IndexFunc(record.Volumes, func(v Volume) bool {
			want, declared := wants[v.Rule]
			return v.isAt(m) && (declared && want == v.Context || v.Rule == now.Rule && v.Context == now.Context)
		})
		switch {
		case i >= 0:
			now = record.Volumes[i]
		case verdict.Outcome == judge.Undeclared || verdict.Rule == nil && verdict.Rules == nil:
			continue
		default:
			now.unlessSeen()
		}
		meet(met, &now)
		volumes = append(volumes, now)
	}
	for _, r := range config.Rules {
		if !met[r.Name] {
			volumes = append(volumes, notMounted(&r, host))
		}
	}
	return volumes, nil
}

// meet notes the rules that a volume is of. One that fits the system's own by its pattern alone still waits for what it is meant for.
func meet(met map[string]bool, v *Volume) {
	for _, name := range strings.Split(v.Rule, ", ") {
		met[name] = met[name] || v.State != LeftAlone || v.Code != judge.CodeSystem
	}
}

// unlessSeen is for a volume of which the watcher has no record: what it would do it has not begun.
func (v *Volume) unlessSeen() {
	if v.State == Remounting || v.State == Relabelling {
		v.State, v.Reason, v.Remedy = Pending, "the watcher has not seen to it", "look at: systemctl status selinux-provision-mountwatch"
	}
}

func notMounted(r *judge.Rule, host judge.Host) Volume {
	want, _ := r.Want(host.DefaultContext)
	return Volume{Rule: r.Name, Mountpoint: r.Match.Mountpoint, Source: r.Match.Source, Context: want, Shared: secontext.Context(want).Shared(), State: NotMounted}
}

func lookAt(ctx context.Context, root *hostfs.Root, host judge.Host, config Config, table *mounts.Table) ([]Volume, error) {
	rules, err := judge.NewRules(config.Rules)
	if err != nil {
		return nil, err
	}
	l := looker{root, host, rules, config.Running, table, LoadRecord(root), map[mounts.Device]mounts.Names{}, new(asking)}
	l.asking.begin()
	var volumes []Volume
	met := map[string]bool{}
	for _, m := range table.All() {
		verdict, _ := l.judge(ctx, m)
		if verdict.Outcome == judge.Undeclared || verdict.Rule == nil && verdict.Rules == nil {
			continue
		}
		now := describe(verdict)
		meet(met, &now)
		if now.State == LeftAlone {
			volumes = append(volumes, now)
			continue
		}
		if known := l.record.volume(m); known != nil && known.Rule == now.Rule && known.Context == now.Context {
			switch {
			case known.State == now.State:
				now.When, now.Files, now.Late = known.When, known.Files, known.Late
			case now.State == Remounting || now.State == Relabelling:
				now = *known // tried, with what came of it; or at work
			}
		} else {
			now.unlessSeen()
		}
		volumes = append(volumes, now)
	}
	// What is unmounted at this moment, to be mounted again, is not "not mounted".
	for _, m := range unmountedNow(root) {
		if rules := rules.Matching(m, judge.Facts{}); len(rules) == 1 && !met[rules[0].Name] {
			want, _ := rules[0].Want(host.DefaultContext)
			v := describe(judge.Verdict{Outcome: judge.WantsContext, Mount: m, Rule: rules[0], Want: want})
			if i := slices.IndexFunc(l.record.Volumes, func(known Volume) bool { return known.Mountpoint == m.Mountpoint && known.Code == CodeLost }); i >= 0 {
				v = l.record.Volumes[i]
				v.Rule = rules[0].Name
			}
			volumes, met[v.Rule] = append(volumes, v), true
		}
	}
	for _, r := range config.Rules {
		if !met[r.Name] {
			v := notMounted(&r, host)
			target, _ := patience.AskWithin(ctx, &l.asking.Budget, r.Match.Mountpoint, func() (string, error) {
				return throughLink(root, &r), nil // some other volume may be on the way
			})
			if target != "" {
				v.Reason, v.Remedy = "that path leads through a link to "+target+", and the kernel knows mounts by the real path only", "write in the rule: match: {mountpoint: "+target+"}"
			}
			volumes = append(volumes, v)
		}
	}
	return volumes, nil
}

package mountwatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/glob"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// firstDir holds a note for each mount unit whose mount the watcher wants made with a context, and for each whose mount could not be. It does
// not outlive the boot.
const firstDir = "/run/selinux-provision/first"

// firstNote is such a note.
type firstNote struct {
	// Context is what the mount is to have. Written by the watcher and by First.
	Context string `json:"context"`
	// Failed is why the mount could not be made with it; "": it is to be made now. Written by First, read by the watcher, which tries it
	// again only when somebody asks.
	Failed string `json:"failed,omitempty"`
	// Late tells that this was no refusal: what is to be mounted did not answer in time, or could not be reached. The watcher then tries once more
	// by itself, when it is mounted.
	Late bool `json:"late,omitempty"`
}

func firstName(mountUnit string) string { return path.Join(firstDir, mountUnit+".json") }

func readFirst(root *hostfs.Root, mountUnit string) (n firstNote, ok bool) {
	content, err := root.ReadFile(firstName(mountUnit))
	return n, err == nil && json.Unmarshal(content, &n) == nil && n.Context != ""
}

func (n firstNote) write(root *hostfs.Root, mountUnit string) error {
	content, err := json.Marshal(n)
	if err == nil {
		err = root.MkdirAll(firstDir, 0o700)
	}
	if err == nil {
		err = root.WriteFile(firstName(mountUnit), content, hostfs.Attributes{Mode: 0o600})
	}
	if err != nil {
		return fmt.Errorf("cannot write down with what %s is mounted: %w", mountUnit, err)
	}
	return nil
}

// First makes a mount that systemd is about to make, with the context that a rule asks for. Whatever it cannot do, systemd does right after
// it, without the context: nothing here can keep a volume from being mounted.
type First struct {
	Root    *hostfs.Root
	Host    judge.Host
	Config  Config
	Policy  Policy
	Systemd *systemd.Mounts
	Report  func(Event)
}

// firstLimit is the longest that a mount is tried with its context which was there without. Nobody should have to do without a volume for longer.
const firstLimit = 90 * time.Second

// tryLimit is how long a mount is tried with its context. One that systemd is about to make has the time that systemd would give it, be that without
// end: a server that comes late would otherwise be mounted as soon as it is there, and without (an nfs mount with "bg" has TimeoutSec=infinity).
func tryLimit(unit systemd.MountUnit, asked bool) time.Duration {
	limit := unit.Limit
	if limit == 0 {
		limit = withoutEnd
	}
	if asked {
		limit = min(limit, firstLimit)
	}
	return limit
}

// withoutEnd is longer than any boot lasts.
const withoutEnd = 100 * 365 * 24 * time.Hour

// cameLate tells an error of mount(8) that is the kernel's refusal, or the server's, from one that may not come again: it did not end in time, or there
// was nobody who answered. The words are those of strerror(3), of the resolver, and the numbers in the messages of mount.cifs.
func cameLate(err error) bool {
	var exit *command.ExitError
	return errors.Is(err, command.ErrTimeout) || errors.As(err, &exit) && nobodyAnswers().MatchString(exit.Output.Stderr)
}

var nobodyAnswers = lazyregexp.New(`timed out|Connection (refused|reset)|No route to host|Network is (unreachable|down)|Host is (unreachable|down)|` +
	`(?i:(failed to|could not) resolve)|Name or service not known|Temporary failure in name resolution|mount error\((101|104|110|111|112|113|115)\)`)

// errNotWanted says that systemd is not to make the mount any more.
var errNotWanted = errors.New("systemd has given it up")

// wantedAgain is how often to ask whether systemd still wants a mount that takes long.
const wantedAgain = 5 * time.Second

// stopUnlessWanted ends the try of a mount that systemd has given up, or that somebody has stopped: it must not come hours later.
func (f *First) stopUnlessWanted(ctx context.Context, point string, unit systemd.MountUnit, stop context.CancelCauseFunc) {
	for {
		select {
		case <-time.After(wantedAgain):
		case <-ctx.Done():
			return
		}
		if wanted, err := f.Systemd.Wanted(ctx, unit); err != nil || wanted {
			continue
		}
		// Or it is mounted, and mount(8) is about to end.
		if now, err := f.Systemd.Unit(ctx, point); err == nil && !now.Active {
			stop(errNotWanted)
			return
		}
	}
}

// Mount makes the mount at a place. An error says why it is left to systemd; that a mount with the context was tried and failed is told as an event.
func (f *First) Mount(ctx context.Context, point string) error {
	unit, err := f.Systemd.Unit(ctx, point)
	if err != nil || unit.Active {
		return err
	}
	note, asked := readFirst(f.Root, unit.Name)
	if asked = asked && note.Failed == ""; !asked {
		if wanted, err := f.Systemd.Turn(ctx, unit, declared.FirstInstance(unit.Name)); err != nil || !wanted {
			return err
		}
	}
	m, err := mountOf(point, unit)
	if err != nil {
		return err
	}
	options := path.Join(runtimeUnits, unit.Name+".d", declared.OptionsName)
	if f.Root.Exists(options) { // then the context is ours
		m.Options = withoutContext(m.Options)
	}
	volume := Volume{Mountpoint: point, Source: m.What, FSType: m.Type, Context: note.Context, State: Failed, Code: CodeRemountFailed}
	if !asked {
		rules, err := judge.NewRules(f.Config.Rules)
		if err != nil {
			return err
		}
		plan, skipped, err := planned(f.Root, f.Host, rules, f.Policy, m)
		for _, s := range skipped {
			if s.Mount.Unit == unit.Name {
				f.Report(notDeclared(s))
			}
		}
		i := slices.IndexFunc(plan, func(d declared.DropIn) bool { return d.Mount.Unit == unit.Name })
		if i < 0 {
			return err
		}
		volume.Rule, volume.Context = plan[i].Rule.Name, plan[i].Context
	}
	trying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if !asked {
		go f.stopUnlessWanted(trying, point, unit, stop)
	}
	failed := f.mount(trying, m, unit, volume.Context, tryLimit(unit, asked))
	if unit.Automount && failed != nil && f.Root.Exists(options) {
		failed = errors.Join(failed, f.Root.Remove(options), f.Systemd.Reload(ctx))
	}
	if failed == nil {
		return f.Root.Remove(firstName(unit.Name))
	}
	if errors.Is(failed, errNotWanted) {
		return f.Root.Remove(firstName(unit.Name))
	}
	note = firstNote{volume.Context, failed.Error(), cameLate(failed)}
	volume.Reason, volume.Remedy = note.why()
	if !asked { // else the watcher tells of it
		f.Report(Event{Kind: VolumeRefused, Volume: volume})
	}
	return note.write(f.Root, unit.Name)
}

// withoutContext removes the context from a list of mount options.
func withoutContext(options string) string {
	var rest []string
	for o := range mounts.SplitOptions(options) {
		if !strings.HasPrefix(o, "context=") {
			rest = append(rest, o)
		}
	}
	return strings.Join(rest, ",")
}

// why says in words that a mount could not be made with its context, and what to do.
func (n firstNote) why() (reason, remedy string) {
	if n.Late {
		return mountedWithout + n.Failed, "look at its server or its disk; the watcher mounts it once more with that option by itself, when it is there and nobody uses it"
	}
	return mountedWithout + n.Failed, "see \"dmesg\" for what the kernel says; " + tryAgain
}

const (
	mountedWithout = "it could not be mounted with the option context=, and is mounted without: "
	tryAgain       = "then: systemctl reload selinux-provision-mountwatch"
)

// notUTF8 is how systemd shows a byte that is part of no character. What is really meant cannot be told from that text.
var notUTF8 = lazyregexp.New(`\\x[89a-f][0-9a-f]`)

// mountOf gives the mount that systemd would make.
func mountOf(point string, unit systemd.MountUnit) (declared.Mount, error) {
	m := declared.Mount{Unit: unit.Name, Where: point, What: unit.What, Type: unit.Type, Options: unit.Options, Source: unit.Name}
	if len(unit.Files) > 0 {
		m.Source = unit.Files[0]
	}
	switch {
	case !unit.Exists || m.What == "":
		return m, fmt.Errorf("cannot label what is mounted at %s: systemd does not know what that will be", point)
	case notUTF8().MatchString(m.What + m.Options):
		return m, fmt.Errorf("cannot label what is mounted at %s: its source or its options are not UTF-8", point)
	}
	return m, nil
}

// tryDir has a mountpoint for each try that nobody is to see.
const tryDir = "/run/selinux-provision/try"

// mount makes a mount with a context, and sees that it has it. One that an automount waits for is tried elsewhere, in a namespace of its own, and
// then systemd is told the options.
func (f *First) mount(ctx context.Context, m declared.Mount, unit systemd.MountUnit, context string, limit time.Duration) error {
	tools := command.Tools{Limit: limit}
	var before []string
	where, options := m.Where, declared.Options(&m, context)
	if unit.Automount {
		if strings.HasPrefix(m.Type, "fuse") {
			return errors.New("a file system with a server of its own cannot be tried, and an automount waits for it")
		}
		where = path.Join(tryDir, unit.Name)
		before = []string{"unshare", "--mount", "--propagation", "private"}
		if err := f.Root.MkdirAll(where, 0o700); err != nil {
			return err
		}
	} else if err := f.makePoint(ctx, where, unit); err != nil {
		return err
	}
	if _, err := tools.Run(ctx, append(before, mountCommand(m, unit, where, options)...)...); err != nil {
		return err
	}
	if unit.Automount {
		name := path.Join(runtimeUnits, unit.Name+".d", declared.OptionsName)
		content := declared.OptionsContent(options)
		if have, err := f.Root.ReadFile(name); err == nil && bytes.Equal(have, content) {
			return nil
		}
		if err := writeUnit(f.Root, name, content); err != nil {
			return err
		}
		return f.Systemd.Reload(ctx)
	}
	now := remount.Mounted(m.Where)
	if now == nil {
		return errors.New("mount says that it is mounted, and the kernel does not")
	}
	// Systemd learns of it from the kernel's table. It must know before its own turn comes, or else it would mount over it.
	for waited := time.Duration(0); waited < seenLimit; waited += seenAgain {
		if unit, err := f.Systemd.Unit(ctx, m.Where); err != nil || unit.Active {
			break
		}
		time.Sleep(seenAgain)
	}
	if !secontext.Same(now.Context(), context) {
		// util-linux drops the option without a word where it thinks that SELinux is off.
		return errors.New("it does not have that option now: is /etc/selinux/config there?")
	}
	return nil
}

// mountCommand gives the words with which systemd would mount something, but for where and with which options (mount_enter_mounting in its mount.c).
func mountCommand(m declared.Mount, unit systemd.MountUnit, where, options string) []string {
	argv := []string{"mount", m.What, where}
	if unit.SloppyOptions {
		argv = append(argv, "-s")
	}
	if unit.ReadWriteOnly {
		argv = append(argv, "-w")
	}
	if m.Type != "" {
		argv = append(argv, "-t", m.Type)
	}
	return append(argv, "-o", options)
}

const (
	seenLimit = 10 * time.Second
	seenAgain = 20 * time.Millisecond
)

// makePoint makes a mountpoint as systemd does. One that leads through a link systemd refuses to mount, and so it is none for this, either.
func (f *First) makePoint(ctx context.Context, point string, unit systemd.MountUnit) error {
	if target := declared.Follow(f.Root, point); target != point {
		return fmt.Errorf("%s leads through a link to %s", point, target)
	}
	var made []string
	for dir := point; dir != "/" && !f.Root.Exists(dir); dir = path.Dir(dir) {
		made = append(made, f.Root.Path(dir))
	}
	if len(made) == 0 {
		return nil
	}
	mode := unit.DirectoryMode
	if mode == 0 {
		mode = 0o755
	}
	if err := f.Root.MkdirAll(point, mode); err != nil {
		return err
	}
	// New directories get the labels of their paths, as systemd would have given them. A wrong label is no reason not to mount.
	if err := f.labelPoint(ctx, made[len(made)-1]); err != nil {
		f.Report(Event{Kind: NotDeclared, Text: "the mountpoint " + point + " could not be labelled", Err: err})
	}
	return nil
}

// labelPoint gives directories that were just made, the outermost of which is top, what the policy's file contexts say.
func (f *First) labelPoint(ctx context.Context, top string) error {
	policyType, err := seconfig.Type(f.Root)
	if err != nil {
		return err
	}
	contexts, err := filecontexts.Load(f.Root, policyType)
	if err != nil {
		return err
	}
	target, err := relabel.OpenIn(f.Root, top, relabel.System)
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = target.Run(ctx, relabel.Options{Labels: relabel.FromPolicy(contexts, false), CopyUp: true})
	return err
}

// failedFirst takes over that the mount could not be made with its context before it was made without. If it only came too late for that, the try
// that follows is the one that is due: what comes of it counts.
func (w *Watcher) failedFirst(v *volume) {
	name := systemd.MountUnitName(v.Mountpoint)
	note, ok := readFirst(w.Root, name)
	if !ok || note.Failed == "" || !secontext.Same(note.Context, v.Context) {
		return
	}
	if !note.Late {
		given := &refusal{mount: keyOf(v.mount), Volume: v.Volume}
		given.State, given.Code = Failed, CodeRemountFailed
		given.Reason, given.Remedy = note.why()
		w.gaveUp[attempt{v.Mountpoint, v.Context}] = given
	}
	if err := w.Root.Remove(firstName(name)); err != nil { // it is for this mount alone
		w.Report(Event{Kind: CannotRemember, Err: err})
	}
}

// forgetFirst removes what an earlier watcher was about to have mounted, or all notes, so that what failed is tried again.
func (w *Watcher) forgetFirst(all bool) {
	entries, err := w.Root.ReadDir(firstDir)
	if err != nil {
		return // there is none
	}
	for _, e := range entries {
		unit := strings.TrimSuffix(e.Name(), ".json")
		if note, ok := readFirst(w.Root, unit); !all && ok && note.Failed != "" {
			continue
		}
		if err := w.Root.Remove(firstName(unit)); err != nil {
			w.Report(Event{Kind: CannotRemember, Err: err})
		}
	}
}

// throughLink gives the path that the mountpoint of a rule leads to, if that is another one: the kernel's table, and systemd's units, have only that.
func throughLink(root *hostfs.Root, rule *judge.Rule) string {
	if pattern, err := glob.Compile(rule.Match.Mountpoint); err != nil || !pattern.Exact() || !path.IsAbs(rule.Match.Mountpoint) {
		return ""
	}
	point := path.Clean(rule.Match.Mountpoint)
	if target := declared.Follow(root, point); target != point {
		return target
	}
	return ""
}

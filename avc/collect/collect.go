// Package collect fetches what judging denials needs from a host or a tree: the records themselves, the policy, what file_contexts say
// of paths, and the labels that containers get. It reads only.
package collect

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"syscall"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/neverallow"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// Host is where things are fetched from.
type Host struct {
	Root   *hostfs.Root
	Kernel *kernel.SELinux // nil for a tree, and where SELinux is off
	Tools  command.Tools
}

// Query says which records.
type Query struct {
	Since time.Time // only from this time on; zero for all
	Boot  bool      // only of the boot that runs
	// Booted is when that was, to choose records of the audit daemon's log. Zero if nobody knows: then that log is not read for Boot.
	Booted time.Time
	// BootID is the ID of that boot, as systemd or the kernel writes it; "" if nobody knows.
	BootID string
}

// has tells whether a denial is one of those that are asked for. The journal says which boot it was; elsewhere the time decides, which is
// wrong for what was logged before a clock was set.
func (q *Query) has(d *avc.Denial) bool {
	if q.Boot && d.Boot != "" && q.BootID != "" {
		if d.Boot != strings.ReplaceAll(q.BootID, "-", "") {
			return false
		}
	} else if q.Boot && !d.Time.IsZero() && d.Time.Before(q.Booted) {
		return false
	}
	return d.Time.IsZero() || !d.Time.Before(q.Since)
}

// journalFields are the fields of a journal entry that avc.Decoder uses.
const journalFields = "_TRANSPORT,MESSAGE,_AUDIT_TYPE,_AUDIT_TYPE_NAME,_AUDIT_ID,_SOURCE_REALTIME_TIMESTAMP,_BOOT_ID,_SYSTEMD_CGROUP,_SYSTEMD_UNIT,MESSAGE_ID"

// missedKernelMessages is journald's MESSAGE_ID for kernel messages that it missed.
const missedKernelMessages = "e9bf28e6e834481bb6f48f548ad13606"

// ErrNoRecords says that there is nothing that could hold records.
var ErrNoRecords = errors.New("there is neither a journal nor an audit log")

// Denials calls each with every denial of the host's journal and audit logs, merged, and gives what was counted. The sources that were
// read are named, for people.
func (h *Host) Denials(ctx context.Context, q Query, each func(*avc.Denial)) (stats avc.Stats, sources []string, err error) {
	logs, names, closeLogs, err := h.auditLogs(q)
	if err != nil {
		return stats, nil, err
	}
	defer closeLogs()
	read := func(journal io.Reader) error {
		var all []avc.Source
		if journal != nil {
			all = append(all, avc.NewDecoder(journal))
		}
		if logs != nil {
			all = append(all, avc.NewDecoder(logs))
		}
		stats, err = Read(ctx, q, each, all...)
		return err
	}
	argv, hasJournal := h.journalctl(q, false)
	if !hasJournal {
		if logs == nil {
			return stats, nil, fmt.Errorf("cannot read denials: %w: give a file with --input", ErrNoRecords)
		}
		return stats, names, read(nil)
	}
	_, err = h.Tools.Stream(ctx, read, argv...)
	if errors.Is(err, command.ErrMissing) && logs != nil {
		return stats, names, read(nil)
	}
	if err != nil {
		return stats, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return stats, append([]string{"the journal"}, names...), nil
}

// Read calls each with every denial of some sources from q.Since on.
func Read(ctx context.Context, q Query, each func(*avc.Denial), sources ...avc.Source) (avc.Stats, error) {
	reader := avc.NewReader(sources...)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return reader.Stats(), context.Cause(ctx)
		}
		d, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return reader.Stats(), nil
		}
		if err != nil {
			return reader.Stats(), fmt.Errorf("cannot read records: %w", err)
		}
		if q.has(d) {
			each(d)
		}
	}
}

// Gone says which log of a host that runs does not reach back to a time any more: logs are rotated, and a journal in memory ends with its
// boot. It gives "" if nothing is known to be gone.
func (h *Host) Gone(ctx context.Context, since time.Time) (string, error) {
	logs, names, closeLogs, err := h.auditLogs(Query{})
	if err != nil {
		return "", err
	}
	defer closeLogs()
	if logs != nil {
		// What begins with the daemon's start is the whole log.
		first, err := avc.NewDecoder(logs).Next()
		if err == nil && (first.Type < avc.TypeDaemon || first.Type >= avc.TypeDaemon+100) && first.Time.After(since) {
			return fmt.Sprintf("%s begins only at %s", names[0], first.Time.Local().Format(time.DateTime)), nil
		}
	}
	if !h.Root.IsHost() {
		return "", nil
	}
	var begins time.Time
	argv := []string{"journalctl", "--quiet", "--no-pager", "--system", "--output=export", "--output-fields=_TRANSPORT"}
	_, err = h.Tools.Stream(ctx, func(in io.Reader) error {
		begins = beginning(in)
		return nil
	}, argv...)
	switch {
	case errors.Is(err, command.ErrMissing):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("cannot read the journal: %w", err)
	case begins.After(since):
		return "the journal begins only at " + begins.Local().Format(time.DateTime), nil
	}
	return "", nil
}

// beginning gives the time of the first entry of a journal in the Journal Export Format, zero if there is none.
func beginning(in io.Reader) time.Time {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "__REALTIME_TIMESTAMP="); ok {
			if us, err := strconv.ParseInt(text, 10, 64); err == nil {
				return time.UnixMicro(us)
			}
		}
	}
	return time.Time{}
}

// journalctl gives the command that reads the journal; with follow it goes on with what comes, and without a time begins with that.
func (h *Host) journalctl(q Query, follow bool) (argv []string, ok bool) {
	argv = []string{"journalctl", "--quiet", "--no-pager", "--output=export", "--output-fields=" + journalFields}
	if !h.Root.IsHost() {
		const dir = "/var/log/journal"
		if !h.Root.Exists(dir) || h.Root.SamePath(dir) != nil {
			return nil, false
		}
		argv = append(argv, "--directory="+h.Root.Path(dir))
	}
	switch { // --follow by itself shows the last ten lines first
	case follow && q.fromNowOn():
		argv = append(argv, "--follow", "--lines=0")
	case follow:
		argv = append(argv, "--follow", "--no-tail")
	}
	if follow && !h.Root.IsHost() { // else it is the boot that runs, which a tree's journal does not have
		argv = append(argv, "--merge")
	}
	if !q.Since.IsZero() {
		argv = append(argv, "--since=@"+strconv.FormatInt(q.Since.Unix(), 10))
	}
	if q.Boot {
		argv = append(argv, "--boot")
	}
	return append(argv, "_TRANSPORT=audit", "+", "_TRANSPORT=kernel", "+", "MESSAGE_ID="+missedKernelMessages), true
}

const auditLog = "/var/log/audit/audit.log"

// auditLogs opens the audit daemon's logs, oldest first. The daemon keeps at most 999; those older than the query are left out by
// their time of change.
func (h *Host) auditLogs(q Query) (in io.Reader, names []string, closeAll func(), err error) {
	closeAll = func() {}
	if q.Boot && q.Booted.IsZero() {
		return nil, nil, closeAll, nil
	}
	logs, err := generations(h.Root, auditLog, q.from())
	if err != nil {
		return nil, nil, closeAll, fmt.Errorf("cannot read the audit log: %w", err)
	}
	if len(logs) == 0 {
		return nil, nil, closeAll, nil
	}
	var readers []io.Reader
	var files []io.Closer
	closeAll = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for _, name := range logs {
		f, err := h.Root.OpenFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away just now
		}
		if err != nil {
			closeAll()
			return nil, nil, func() {}, fmt.Errorf("cannot read the audit log: %w", err)
		}
		files = append(files, f)
		readers = append(readers, f)
		names = append(names, name)
	}
	return io.MultiReader(readers...), names, closeAll, nil
}

// generations gives the files of a log that is rotated, NAME.2, NAME.1 and NAME, the oldest first: those that were changed since a time.
func generations(root *hostfs.Root, log string, since time.Time) ([]string, error) {
	entries, err := root.ReadDir(path.Dir(log))
	if hostfs.Missing(err) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ages := map[string]int{}
	for _, e := range entries {
		name := path.Join(path.Dir(log), e.Name())
		age := 0
		if name != log {
			number, ok := strings.CutPrefix(name, log+".")
			if age, err = strconv.Atoi(number); !ok || err != nil {
				continue
			}
		}
		if info, err := root.Stat(name); err == nil && info.IsRegular() && !info.ModTime.Before(since) {
			ages[name] = age
		}
	}
	return slices.SortedFunc(maps.Keys(ages), func(a, b string) int { return cmp.Compare(ages[b], ages[a]) }), nil
}

// busyWait bounds the wait for the loaded policy while another program reads it.
const busyWait = 5 * time.Second

// Policy reads the loaded policy, or, where there is no kernel, the policy of a tree with the highest number.
func (h *Host) Policy(ctx context.Context) (*policydb.Policy, error) {
	if h.Kernel != nil {
		return h.loaded(ctx)
	}
	policyType, err := seconfig.Type(h.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	f, err := seconfig.OpenPolicy(h.Root, seconfig.Dir, policyType)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	return policydb.Read(f, nil)
}

func (h *Host) loaded(ctx context.Context) (*policydb.Policy, error) {
	deadline := time.Now().Add(busyWait)
	for {
		in, err := h.Kernel.Policy()
		if err == nil {
			return policydb.Read(in, nil)
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return nil, fmt.Errorf("cannot read the loaded policy: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ContainerContexts gives the default contexts of volumes and of containers, from lxc_contexts; "" if it does not say.
func (h *Host) ContainerContexts() (volume, process string) {
	policyType, err := seconfig.Type(h.Root)
	if err != nil {
		return "", ""
	}
	c, err := seconfig.ReadContainers(h.Root, policyType)
	if err != nil {
		return "", ""
	}
	return c.File, c.Process
}

// ModulePriorities gives the priorities at which the administrator's module store has a module of this name.
func (h *Host) ModulePriorities(name string) (priorities []int) {
	dir, all := h.moduleStore()
	for _, n := range all {
		if h.Root.Exists(fmt.Sprintf("%s/%d/%s", dir, n, name)) {
			priorities = append(priorities, n)
		}
	}
	return priorities
}

// moduleStore gives the directory of the administrator's modules and its priorities, the lowest first.
func (h *Host) moduleStore() (dir string, priorities []int) {
	policyType, err := seconfig.Type(h.Root)
	if err != nil {
		return "", nil
	}
	dir = "/var/lib/selinux/" + policyType + "/active/modules"
	for _, name := range h.names(dir) {
		if n, err := strconv.Atoi(name); err == nil {
			priorities = append(priorities, n)
		}
	}
	slices.Sort(priorities)
	return dir, priorities
}

func (h *Host) names(dir string) (names []string) {
	entries, err := h.Root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Neverallow reads the neverallow rules of the modules that the policy of this host was built from, nil if there is no store. Of modules of one name
// the one with the highest priority counts; one that was disabled does not.
func (h *Host) Neverallow(p *policydb.Policy) (*neverallow.Rules, error) {
	dir, priorities := h.moduleStore()
	if len(priorities) == 0 {
		return nil, nil
	}
	done := map[string]bool{}
	for _, name := range h.names(dir + "/disabled") {
		done[name] = true
	}
	rules := neverallow.New(p)
	for _, n := range slices.Backward(priorities) {
		for _, name := range h.names(fmt.Sprintf("%s/%d", dir, n)) {
			if done[name] {
				continue
			}
			done[name] = true
			content, err := h.Root.ReadFile(fmt.Sprintf("%s/%d/%s/cil", dir, n, name))
			if hostfs.Missing(err) {
				continue // a package that was not compiled yet
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read the modules of the policy: %w", err)
			}
			var text io.Reader = bytes.NewReader(content)
			if bytes.HasPrefix(content, []byte("BZh")) {
				text = bzip2.NewReader(text)
			}
			if err := rules.Add(text); err != nil {
				return nil, fmt.Errorf("cannot read the module %s of the policy: %w", printable.Quote(name), err)
			}
		}
	}
	return rules, nil
}

// FileContexts gives what the policy's file contexts, the administrator's among them, have for a path and the class of a file, "" if that is
// nothing.
func (h *Host) FileContexts() (expected func(class, name string) string, err error) {
	policyType, err := seconfig.Type(h.Root)
	if err != nil {
		return nil, err
	}
	contexts, err := filecontexts.Load(h.Root, policyType)
	if err != nil {
		return nil, err
	}
	return func(class, name string) string {
		kind, known := map[string]filecontexts.Kind{
			"file": filecontexts.Regular, "dir": filecontexts.Directory, "lnk_file": filecontexts.Link, "chr_file": filecontexts.Character,
			"blk_file": filecontexts.Block, "sock_file": filecontexts.Socket, "fifo_file": filecontexts.FIFO,
		}[class]
		if !known || !path.IsAbs(name) {
			return ""
		}
		context, found := contexts.Lookup(path.Clean(name), kind)
		if !found {
			return ""
		}
		return context
	}, nil
}

// filePatience is how long file systems are waited for that do not answer, all together.
const filePatience = 2 * time.Second

// Files gives two looks at single files of the host, which no file system holds up that does not answer: the inode number, 0 if there is none, and the
// label that a file has now, "" if it has none or that is not known, as of a tree that does not run. Of a link they give its own.
func (h *Host) Files(ctx context.Context) (inode func(name string) uint64, label func(name string) string) {
	type file struct {
		inode uint64
		label string
	}
	var table []*mounts.Mount
	if h.Root.IsHost() {
		table, _ = mounts.Read() // without it no label is known
	}
	asking := patience.Budget{Left: filePatience}
	look := func(name string, read func() (file, error)) file {
		about := ""
		if m := mounts.At(table, name); m != nil {
			about = m.Device.String()
		}
		f, err := patience.AskWithin(ctx, &asking, about, read)
		if err != nil {
			return file{}
		}
		return f
	}
	inode = func(name string) uint64 {
		return look(name, func() (file, error) {
			info, err := h.Root.Lstat(name)
			return file{inode: info.Ino}, err
		}).inode
	}
	label = func(name string) string {
		return look(name, func() (file, error) {
			label, err := mounts.LabelAt(table, name)
			return file{label: label}, err
		}).label
	}
	return inode, label
}

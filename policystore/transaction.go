package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// transaction is one run of semodule for the whole wanted state. semodule's cost is per run, not per module, and a run is
// all or nothing, so whatever breaks it must be found and left out before the rest can be applied.
type transaction struct {
	b          *Builder
	policyType string
	strip      bool
	items      []item   // what is to be installed
	installed  []string // our modules that the store has now
	operators  []string // the operator's modules in the store, "PRIORITY/NAME"
	remove     []string // those of them that must go
	quarantine []Quarantined
	trying     bool // the kernel is not to load what is built
}

// item is a declaration that can break the build by itself.
type item struct {
	kind    string // module, file context
	name    string
	lang    string
	context string // of a file context
	text    []byte // of a module: the file; of a file context: one line of CIL
	from    string
}

// modules names the modules that carry the item in the store.
func (i item) modules() []string {
	if i.kind == "file context" {
		return []string{contextsModule}
	}
	return []string{i.name}
}

// sharedVolumes makes new files take the level of their directory, so that a container finds readable what another one wrote
// into a volume at s0 that both share. By default a new file takes the level of the process that makes it.
const sharedVolumes = `(defaultrange dir target low)
(defaultrange file target low)
(defaultrange lnk_file target low)
(defaultrange sock_file target low)
(defaultrange fifo_file target low)
`

func (b *Builder) transaction(policyType string, rec *Record, want Declared) (*transaction, error) {
	tx := &transaction{b: b, policyType: policyType}
	// A flag that is there and that we did not set is an operator's semodule -DB: a rebuild without -D would drop it.
	byHand := b.Root.Exists(active(policyType)+"/"+dontauditFlag) && !rec.Policy.StripDontaudit
	tx.strip = want.StripDontaudit || byHand
	for _, m := range want.Modules {
		tx.items = append(tx.items, item{kind: "module", name: m.Name, lang: m.Lang, text: m.Content, from: m.From})
	}
	if want.SharedVolumes {
		tx.items = append(tx.items, item{kind: "module", name: sharedModule, lang: "cil", text: []byte(sharedVolumes), from: "policy.shared_volumes"})
	}
	for _, c := range want.FileContexts {
		tx.items = append(tx.items, item{kind: "file context", name: c.Path, lang: "cil", context: c.Context, text: []byte(filecon(c)), from: c.From})
	}
	have, err := modulesIn(b.Root, typeDir(policyType))
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		priority, name, _ := strings.Cut(key, "/")
		switch {
		case priority == strconv.Itoa(Priority):
			tx.installed = append(tx.installed, name)
		case rec.VendorModules[key] != have[key]:
			tx.operators = append(tx.operators, key)
		}
	}
	return tx, nil
}

// filecon gives the CIL statement of a file context. The parts were validated with the configuration.
func filecon(c FileContext) string {
	return fmt.Sprintf("(filecon \"%s\" %s %s)\n", c.Path, c.Type, secontext.Context(c.Context).CIL())
}

// commitWith makes the small changes first, and takes them back if semodule fails. They are a plan with semodule as the last step.
func (tx *transaction) commitWith(ctx context.Context, steps plan.Plan) (out command.Output, err error) {
	_, err = append(steps, plan.Step{Action: "rebuild", Target: StoreDir, Do: func(ctx context.Context) (string, error) {
		var err error
		out, err = tx.commit(ctx)
		return "", err
	}}).Do(ctx, nil, nil)
	return out, err
}

// commit runs semodule until it accepts what is left of the items.
func (tx *transaction) commit(ctx context.Context) (out command.Output, err error) {
	defer func() { err = errors.Join(err, tx.b.Root.RemoveTree(tx.b.Scratch)) }()
	for {
		out, err := tx.run(ctx, tx.items)
		said, refused := refusal(err)
		if !refused {
			return out, err
		}
		if tx.blame(said) {
			continue
		}
		return tx.oneByOne(ctx, err)
	}
}

// shadowed is what is wrong with a file context of which the policy has another one.
const shadowed = "the policy has another context for the same path, and that one counts: declare a longer path"

// refusal tells whether semodule failed because of what it was given to build, and what it said. A tool that was killed, a
// disk that is full and a kernel that does not take the result are nobody's declaration's fault.
func refusal(err error) (said string, refused bool) {
	var failed *command.ExitError
	if !errors.As(err, &failed) || failed.Code < 0 || otherFault.MatchString(failed.Output.Stderr) {
		return "", false
	}
	return failed.Output.Stderr, true
}

// otherFault matches what the tools say of the kernel's refusal to load and of the errors of a file system (libsemanage
// semanage_reload_policy, strerror(3) in the C locale). "No such file or directory" and "Invalid argument" are not among them:
// libsemanage adds them to anything.
var otherFault = regexp.MustCompile(`load_policy returned error|Could not load policy|No space left on device|Disk quota exceeded|` +
	`Read-only file system|Input/output error|Cannot allocate memory|Out of memory|Too many open files|Permission denied|Operation not permitted`)

// oneByOne finds what breaks the build when semodule does not say it: first nothing of ours, to know that the fault is not
// elsewhere (a full disk, the vendor's policy), then one more at a time.
func (tx *transaction) oneByOne(ctx context.Context, cause error) (command.Output, error) {
	tx.trying = true
	if out, err := tx.baseline(ctx); err != nil {
		return out, errors.Join(cause, err)
	}
	var good []item
	for _, it := range tx.items {
		out, err := tx.run(ctx, append(slices.Clone(good), it))
		if err == nil {
			good = append(good, it)
			continue
		}
		if _, refused := refusal(err); !refused {
			return out, err
		}
		reason := strings.TrimSpace(err.Error())
		if it.kind == "file context" && strings.Contains(reason, "Post process failed") {
			reason = shadowed // libsepol 3.8 refuses it, 3.4 lets one of the two win
		}
		tx.leaveOut(it, 0, reason)
	}
	tx.items, tx.trying = good, false
	return tx.run(ctx, good)
}

// baseline builds with nothing that is declared. When not even that builds, the operator's local files are tried without: a line
// there that names something the new vendor policy does not have any more breaks everything.
func (tx *transaction) baseline(ctx context.Context) (command.Output, error) {
	out, err := tx.run(ctx, nil)
	if _, refused := refusal(err); !refused {
		return out, err
	}
	root, dir := tx.b.Root, active(tx.policyType)
	entries, rerr := root.ReadDir(dir)
	if rerr != nil {
		return out, errors.Join(err, rerr)
	}
	var aside plan.Plan
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".local") && name != "booleans.local" {
			aside = append(aside, plan.Remove(root, dir+"/"+name, "the policy does not build with it"))
			if kerr := tx.b.keepLocal(dir, name); kerr != nil {
				return out, errors.Join(err, kerr)
			}
		}
	}
	if len(aside) == 0 {
		return out, err
	}
	aside = append(aside, plan.Step{Action: "rebuild", Target: StoreDir, Do: func(ctx context.Context) (string, error) {
		var err error
		out, err = tx.run(ctx, nil)
		return "", err
	}})
	if _, err := aside.Do(ctx, nil, nil); err != nil {
		return out, err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".local") && name != "booleans.local" {
			tx.quarantine = append(tx.quarantine, Quarantined{Kind: "local file", Name: name,
				Reason: "the policy does not build with what semanage wrote into it; it is kept in " + root.Path(tx.b.Quarantine+"/local"), From: "written by hand"})
		}
	}
	return out, nil
}

// The forms in which the tools name the culprit (libsepol 3.1 to 3.11).
var (
	atLine       = regexp.MustCompile(`^(.*?) at \S*/modules/(\d+)/([^/\s]+)/(?:cil|hll):(\d+)`)
	inFile       = regexp.MustCompile(`^(.*?) at line (\d+) of \S*/modules/(\d+)/([^/\s]+)/(?:cil|hll)`)
	anyMention   = regexp.MustCompile(`/modules/(\d+)/([^/\s]+)/(?:cil|hll)`)
	hllPrefix    = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_.-]*): (.*)$`)
	invalidRegex = regexp.MustCompile(`has invalid regex (.*?):\s+(.*)$`)
)

// blame leaves out the item that semodule's messages name, or the operator's module. It tells whether there was one. Ours come
// first: the operator's were there before and built.
func (tx *transaction) blame(messages string) bool {
	return tx.blameOurs(messages) || tx.blameOperators(messages)
}

func (tx *transaction) blameOperators(messages string) bool {
	for line := range strings.Lines(messages) {
		line = strings.TrimSpace(line)
		priority, name, n, reason := "", "", 0, line
		if m := atLine.FindStringSubmatch(line); m != nil {
			priority, name, reason = m[2], m[3], m[1]
			n, _ = strconv.Atoi(m[4])
		} else if m := anyMention.FindStringSubmatch(line); m != nil {
			priority, name = m[1], m[2]
		}
		key := priority + "/" + name
		if !slices.Contains(tx.operators, key) || slices.Contains(tx.remove, key) || strings.HasPrefix(line, "Previous declaration") {
			continue
		}
		p, _ := strconv.Atoi(priority)
		tx.remove = append(tx.remove, key)
		tx.quarantine = append(tx.quarantine, Quarantined{Kind: "module", Name: name, Priority: p, Line: n, Reason: reason, From: "installed by hand"})
		return true
	}
	return false
}

func (tx *transaction) blameOurs(messages string) bool {
	ours := strconv.Itoa(Priority)
	var mentioned []string
	for line := range strings.Lines(messages) {
		line = strings.TrimSpace(line)
		if m := atLine.FindStringSubmatch(line); m != nil && m[2] == ours && !strings.HasPrefix(line, "Previous declaration") {
			n, _ := strconv.Atoi(m[4])
			return tx.leaveOutModule(m[3], n, m[1])
		}
		if m := inFile.FindStringSubmatch(line); m != nil && m[3] == ours {
			n, _ := strconv.Atoi(m[2])
			return tx.leaveOutModule(m[4], n, m[1])
		}
		if m := invalidRegex.FindStringSubmatch(line); m != nil {
			if i := slices.IndexFunc(tx.items, func(it item) bool { return it.kind == "file context" && it.name == m[1] }); i >= 0 {
				return tx.leaveOutAt(i, 0, "its path is not a regular expression: "+m[2])
			}
		}
		if m := anyMention.FindStringSubmatch(line); m != nil && m[1] == ours {
			mentioned = append(mentioned, m[2], line)
		}
		if m := hllPrefix.FindStringSubmatch(line); m != nil && len(mentioned) == 0 &&
			slices.ContainsFunc(tx.items, func(it item) bool { return it.lang == "pp" && it.name == m[1] }) {
			mentioned = append(mentioned, m[1], m[2])
		}
	}
	if mentioned == nil {
		return false
	}
	return tx.leaveOutModule(mentioned[0], 0, mentioned[1])
}

// leaveOutModule leaves out a module of ours, or the file context that made the line of the generated one.
func (tx *transaction) leaveOutModule(name string, line int, reason string) bool {
	if name == contextsModule {
		n := 0
		for i, it := range tx.items {
			if it.kind != "file context" {
				continue
			}
			if n++; n == line {
				return tx.leaveOutAt(i, 0, reason+": does its context exist in the policy?")
			}
		}
		return false
	}
	i := slices.IndexFunc(tx.items, func(it item) bool { return it.kind == "module" && it.name == name })
	return i >= 0 && tx.leaveOutAt(i, line, reason)
}

// leaveOutAt leaves out an item, and with a file context all others of the same context: what one is wrong about all are.
func (tx *transaction) leaveOutAt(i, line int, reason string) bool {
	culprit := tx.items[i]
	tx.items = slices.DeleteFunc(slices.Clone(tx.items), func(it item) bool {
		same := it.kind == culprit.kind && it.name == culprit.name && it.from == culprit.from ||
			culprit.context != "" && it.context == culprit.context && culprit.byContext(reason)
		if same {
			tx.leaveOut(it, line, reason)
		}
		return same
	})
	return true
}

// byContext tells whether a file context was refused for its context and not for its path.
func (i item) byContext(reason string) bool { return !strings.Contains(reason, "regular expression") }

func (tx *transaction) leaveOut(it item, line int, reason string) {
	q := Quarantined{Kind: it.kind, Name: it.name, Line: line, Reason: reason, From: it.from}
	if it.kind == "module" {
		q.Priority = Priority
	}
	tx.quarantine = append(tx.quarantine, q)
}

// lockWait is how long a run waits for somebody else's semodule. libsemanage itself gives up after 5 seconds, which is less than one
// transaction takes.
const lockWait = 3 * time.Minute

func (tx *transaction) run(ctx context.Context, items []item) (command.Output, error) {
	argv, err := tx.prepare(items)
	if err == nil {
		err = tx.isolate()
	}
	if err != nil {
		return command.Output{}, fmt.Errorf("cannot write semodule's input: %w", err)
	}
	if err := closeLocks(tx.b.Root, typeDir(tx.policyType)); err != nil {
		return command.Output{}, err
	}
	for start := time.Now(); ; {
		out, err := tx.b.Tools.Run(ctx, argv...)
		var failed *command.ExitError
		if !errors.As(err, &failed) || !strings.Contains(failed.Output.Stderr, "Could not get direct transaction lock") {
			return out, err
		}
		if time.Since(start) > lockWait {
			return out, fmt.Errorf("somebody else's semodule or setsebool holds the policy store since %s: %w", lockWait, err)
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// prepare writes the items as files and gives semodule's arguments.
func (tx *transaction) prepare(items []item) ([]string, error) {
	root, scratch := tx.b.Root, tx.b.Scratch
	if err := root.RemoveTree(scratch); err != nil {
		return nil, err
	}
	if err := root.MkdirAll(scratch, 0o700); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, it := range items {
		if it.kind == "file context" {
			files[contextsModule+".cil"] = append(files[contextsModule+".cil"], it.text...)
			continue
		}
		files[it.name+"."+it.lang] = it.text
	}
	argv := []string{"semodule", "--store", tx.policyType}
	if tx.b.Kernel == nil || tx.trying {
		argv = append(argv, "--noreload")
	}
	if !root.IsHost() {
		argv = append(argv, "--path", root.Path("/"))
	}
	if tx.strip {
		argv = append(argv, "--disable_dontaudit")
	}
	fixed := len(argv)
	for _, key := range tx.remove {
		priority, name, _ := strings.Cut(key, "/")
		argv = append(argv, "--priority", priority, "--remove", name)
	}
	argv = append(argv, "--priority", strconv.Itoa(Priority))
	for _, name := range tx.installed {
		if files[name+".cil"] == nil && files[name+".pp"] == nil {
			argv = append(argv, "--remove", name)
		}
	}
	for _, it := range items {
		if it.kind == "module" && root.Exists(active(tx.policyType)+"/modules/disabled/"+it.name) {
			argv = append(argv, "--enable", it.name) // declared is declared, whoever switched it off
		}
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		name := scratch + "/" + file
		if err := root.WriteFile(name, files[file], hostfs.Attributes{Mode: 0o600}); err != nil {
			return nil, err
		}
		argv = append(argv, "--install", root.Path(name))
	}
	if len(argv) == fixed+2 { // the last priority alone
		// An install or a removal rebuilds by itself and semodule refuses --build beside it.
		argv = append(argv[:fixed], "--build")
	}
	return argv, nil
}

// summary says what one rebuild did.
func (tx *transaction) summary(want Declared, leftOut int) string {
	modules, contexts := 0, 0
	for _, it := range tx.items {
		if it.kind == "module" {
			modules++
		} else {
			contexts++
		}
	}
	parts := []string{count(modules, "module") + ", " + count(contexts, "file context") + ", " + count(len(want.Booleans), "boolean")}
	if tx.strip {
		parts = append(parts, "dontaudit rules stripped")
	}
	if tx.b.Kernel != nil {
		parts = append(parts, "loaded")
	}
	if leftOut > 0 {
		parts = append(parts, fmt.Sprintf("%d left out", leftOut))
	}
	return strings.Join(parts, ", ")
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

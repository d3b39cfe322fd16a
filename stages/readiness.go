package stages

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/provision"
)

// Verdict is an answer to the question whether the host may enforce.
type Verdict string

// The verdicts, the best first. Of several the last one counts.
const (
	Ready     Verdict = "ready"
	NotEnough Verdict = "not enough evidence"
	NotReady  Verdict = "not ready"
)

func worse(a, b Verdict) Verdict {
	order := []Verdict{Ready, NotEnough, NotReady}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// Check is one thing that was asked.
type Check struct {
	Name    string  `json:"check"`            // its name, as in the operator guide
	Verdict Verdict `json:"verdict"`          // of this check alone
	Found   string  `json:"found"`            // in words
	Remedy  string  `json:"remedy,omitempty"` // what to do, if the verdict is not "ready"
}

// SetApart is a finding that says nothing against enforcing.
type SetApart struct {
	Why string `json:"why"`
	*judge.Finding
}

// Readiness is the whole answer.
type Readiness struct {
	Verdict Verdict `json:"verdict"` // the worst of all checks
	// Enforcing says that the kernel enforces already.
	Enforcing bool `json:"enforcing"`
	// Since is the beginning of the evidence, Covered the time that it spans without that when the host was off, Window the time
	// that is wanted. Boots counts the boots in it, Lost the audit records that were lost.
	Since   time.Time     `json:"since,omitzero"`
	Covered time.Duration `json:"covered_ns"` // time that it spans, without that when the host was off
	Window  time.Duration `json:"window_ns"`  // time that is wanted
	Boots   int           `json:"boots"`      // boots in it
	Lost    uint64        `json:"lost"`       // audit records lost in it
	Checks  []Check       `json:"checks"`     // all of them, also those that speak for enforcing
	// Unconfined are the containers that run and that the policy does not confine. One that readiness.containers names speaks against enforcing.
	Unconfined []Unconfined `json:"unconfined"`
	// Denials are the findings that enforcing would stop, Apart those of which it would not, or of which nothing follows.
	Denials []*judge.Finding `json:"denials"`
	Apart   []SetApart       `json:"set_apart"`
	// At is when this was found out, Workloads what is declared to run, and History what was declared and when.
	At        time.Time `json:"at,omitzero"`
	Workloads []Watched `json:"workloads"` // what is declared to run
	History   []Change  `json:"history"`   // what was declared and when, the newest last
	// SELinuxMount is a question of its own, about Kubernetes and not about enforcing; absent where there is no kubelet. AddSELinuxMount fills it.
	SELinuxMount *SELinuxMount `json:"selinux_mount,omitempty"`
	// Timeline has the denials by time and workload, from before the evidence too; TimelineGap says what of the log is not there any more. Only in JSON and
	// for the report: the log is read once more for it.
	Timeline    *avc.Timeline `json:"timeline,omitempty"`
	TimelineGap string        `json:"timeline_gap,omitempty"` // what of the log is not there any more
}

// Watched is a workload that is declared to run while the host is observed.
type Watched struct {
	Name string    `json:"name"`          // unit NAME or container NAME
	Seen time.Time `json:"seen,omitzero"` // when it was last seen running; absent if never
}

// DenialCount counts the denials of the findings that enforcing would stop.
func (r *Readiness) DenialCount() (n uint64) {
	for _, f := range r.Denials {
		n += f.Count
	}
	return n
}

// Against gives the checks that speak against enforcing, the gravest first.
func (r *Readiness) Against() []Check { return against(r.Checks) }

func against(checks []Check) (all []Check) {
	for _, v := range []Verdict{NotReady, NotEnough} {
		for _, c := range checks {
			if c.Verdict == v {
				all = append(all, c)
			}
		}
	}
	return all
}

// facts is what the verdict follows from.
type facts struct {
	declared bool // that evidence be collected
	want     provision.Readiness
	observed Observed // up to now
	findings []*judge.Finding
	stats    avc.Stats
	gone     string // which log does not reach back to the beginning
	policy   LoadedPolicy
	free     []Unconfined // containers that are not confined
	volumes  []string     // mount points without a label
	btrfs    []string     // directories of containers on Btrfs
	store    []string     // what is wrong with it
	now      time.Time
	enforces bool
}

// judge gives the verdict. Each check stands for itself, so that an operator sees everything at once.
func (f *facts) judge() *Readiness {
	o := &f.observed
	r := &Readiness{Verdict: Ready, Enforcing: f.enforces, Since: o.Since, Covered: o.Covered.Round(time.Second), Window: f.want.Window, Boots: o.Boots,
		Lost: max(o.Lost, f.stats.Kernel) + f.stats.Missing + f.unreadable(), Denials: []*judge.Finding{}, Apart: []SetApart{},
		Unconfined: append([]Unconfined{}, f.free...), At: f.now.UTC().Truncate(time.Second), Workloads: []Watched{}, History: append([]Change{}, o.History...)}
	add := func(name string, good bool, otherwise Verdict, found, remedy string) {
		c := Check{Name: name, Verdict: Ready, Found: found}
		if !good {
			c.Verdict, c.Remedy = otherwise, remedy
		}
		r.Checks = append(r.Checks, c)
		r.Verdict = worse(r.Verdict, c.Verdict)
	}

	observed := o.Policy != ""
	switch {
	case !f.declared:
		add("evidence", false, NotEnough, "nothing is observed: readiness is not declared", "declare readiness: {window: 24h, units: [...], containers: [...]}, and run selinux-provision apply")
	case !observed:
		add("evidence", false, NotEnough, "what enforcing would deny is not known: "+o.Broken, "do as it says; the evidence then begins")
	default:
		found := "nothing hid a denial since " + o.Since.Local().Format(time.DateTime)
		if o.Broken != "" {
			found += "; it begins there because " + o.Broken
		}
		add("evidence", true, NotEnough, found, "")
	}
	add("window", observed && o.Covered >= f.want.Window, NotEnough, fmt.Sprintf("observed for %s of %s", o.Covered.Round(time.Second), f.want.Window), "wait, with the usual load on the host")
	add("reboot", observed && o.Boots >= 2, NotEnough, fmt.Sprintf("%d of at least 2 boots", o.Boots), "reboot the host once: what starts at a boot asks for other things than what runs")
	lost := fmt.Sprintf("%d audit records were lost", r.Lost)
	if n := f.unreadable(); n > 0 {
		lost += fmt.Sprintf(", of which %d were cut off or damaged", n)
	}
	remedy := longerQueue
	if f.gone != "" {
		lost = fmt.Sprintf("what was denied at first is not in the log any more: %s, and the evidence at %s", f.gone, o.Since.Local().Format(time.DateTime))
		remedy = keepLog
	}
	add("lost", r.Lost == 0 && f.gone == "", NotEnough, lost, remedy)

	var unseen []string
	for _, w := range workloads(f.want) {
		seen, known := o.Seen[w]
		if !known {
			unseen = append(unseen, w)
		}
		r.Workloads = append(r.Workloads, Watched{w, seen})
	}
	switch n := len(workloads(f.want)); {
	case n == 0:
		add("workloads", false, NotEnough, "no workload is declared", "name in readiness what has to run: units, containers")
	case len(unseen) > 0:
		add("workloads", false, NotEnough, "not seen running: "+strings.Join(unseen, ", "), "start them, or take them out of readiness")
	default:
		add("workloads", true, NotEnough, fmt.Sprintf("all %d were seen running", n), "")
	}

	switch declared := declaredUnconfined(f.free, f.want.Containers); {
	case len(declared) > 0:
		add("confinement", false, NotReady, "the policy does not confine "+listUnconfined(declared)+": enforcing would not protect the host from it", confine+"; or take it out of readiness.containers")
	case len(f.free) > 0:
		add("confinement", true, NotReady, fmt.Sprintf("the policy does not confine %s that readiness does not name: %s", plural(uint64(len(f.free)), "container", "containers"), listUnconfined(f.free)), "")
	default:
		add("confinement", true, NotReady, "every container that runs is confined", "")
	}

	f.sort(r)
	if len(r.Denials) == 0 {
		add("denials", true, NotReady, "nothing was denied that enforcing would stop", "")
	} else {
		add("denials", false, NotReady, fmt.Sprintf("enforcing would stop %s: %s", plural(r.DenialCount(), "access", "accesses"), describeSome(r.Denials)),
			fmt.Sprintf("run selinux-provision denials --since @%d, it says what helps; %s", o.Since.Unix(), acceptable(r.Denials[0])))
	}
	add("volumes", len(f.volumes) == 0, NotReady, found(f.volumes, "no mounted volume is without a label", "volumes without a label are mounted: "), "declare them under volumes")
	add("btrfs", len(f.btrfs) == 0, NotReady, found(f.btrfs, "no container uses Btrfs", "containers use Btrfs: "), "move them to ext4 or XFS: one label for one Btrfs holds for all its subvolumes")
	add("store", len(f.store) == 0, NotReady, found(f.store, "the policy store is as declared", ""), "run selinux-provision status, it says what to do")
	return r
}

// What helps where records are lost.
const (
	longerQueue = "make the kernel's queue longer (audit_backlog_limit=8192 on the kernel command line), then: selinux-provision readiness --restart"
	keepLog     = "keep more of the log (SystemMaxUse= and Storage=persistent in journald.conf), then: selinux-provision readiness --restart"
)

// describeSome says the first few findings in a line, and how many more there are.
func describeSome(all []*judge.Finding) string {
	var lines []string
	for _, d := range all[:min(3, len(all))] {
		lines = append(lines, Describe(d))
	}
	if more := len(all) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// unreadable counts what is in the log and may have been a denial, but cannot be read: the kernel's log cuts off what is long.
func (f *facts) unreadable() uint64 { return f.stats.Malformed + f.stats.Overlong }

func found(wrong []string, none, some string) string {
	if len(wrong) == 0 {
		return none
	}
	return some + strings.Join(wrong, ", ")
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func workloads(want provision.Readiness) (all []string) {
	for _, u := range want.Units {
		all = append(all, "unit "+u)
	}
	for _, c := range want.Containers {
		all = append(all, containerWorkload(c))
	}
	return all
}

// containerWorkload names a container among the workloads of the evidence.
func containerWorkload(name string) string { return "container " + name }

// sort tells the findings that enforcing would stop from the others.
func (f *facts) sort(r *Readiness) {
	// A domain that a process may not enter is one that it would not be in, unless another process may.
	entered := map[string]string{}
	for target, sources := range f.refused() {
		others := []string{}
		if f.policy.EnteredBy != nil {
			others = f.policy.EnteredBy(target)
		}
		if !slices.ContainsFunc(others, func(domain string) bool { return sources[domain] == nil }) {
			entered[target] = sources[slices.Min(slices.Collect(maps.Keys(sources)))].ID
		}
	}
	for _, d := range f.findings {
		why := apart(d, f.want.Accept)
		switch id, never := entered[d.Domain]; {
		case why != "":
		case f.policy.Permissive != nil && f.policy.Permissive(d.Domain):
			why = "the domain " + d.Domain + " is permissive by itself, also when the host enforces"
		case never && id != d.ID:
			why = "only a permissive host comes that far: the transition into " + d.Domain + " is denied (" + id + ")"
		}
		if why != "" {
			r.Apart = append(r.Apart, SetApart{why, d})
			continue
		}
		r.Denials = append(r.Denials, d)
	}
}

// apart says why nothing speaks against enforcing in a finding, whatever else is known; "" if something does.
func apart(d *judge.Finding, accept []string) string {
	switch {
	case d.Kind == avc.Granted:
		return "it was allowed, and a rule asks for it to be reported"
	case d.Fix.Kind == judge.Nothing: // allowed by now
		return printable.Text(d.Fix.Text)
	case provision.Accepts(accept, d.ID, d.PermissionList()):
		return "readiness.accept has it"
	}
	return ""
}

// acceptable says how what may be denied is declared: with its permissions, since another one of the same finding can be another matter.
func acceptable(d *judge.Finding) string {
	return fmt.Sprintf("what may be denied is declared with its permissions, readiness: {accept: ['%s']}, or by its ID alone, whatever is denied of it", provision.Acceptance(d.ID, d.PermissionList()))
}

// refused gives the domains that processes were not let into, and from where; only the kernel is believed.
func (f *facts) refused() map[string]map[string]*judge.Finding {
	all := map[string]map[string]*judge.Finding{}
	for _, d := range f.findings {
		if d.Kind == avc.Denied && d.Type != avc.TypeUserAVC && d.Class == "process" && (d.Permissions["transition"] > 0 || d.Permissions["dyntransition"] > 0) && d.Fix.Kind != judge.Nothing {
			if all[d.Target] == nil {
				all[d.Target] = map[string]*judge.Finding{}
			}
			all[d.Target][d.Domain] = d
		}
	}
	return all
}

// Describe says a finding in one line. All of it is quoted that a program can have a word in.
func Describe(d *judge.Finding) string {
	who := printable.Text(d.Domain)
	if s := d.Subject.String(); s != "" {
		who = fmt.Sprintf("%s (%s)", printable.Text(s), who)
	}
	on := printable.Text(d.Class)
	if name := d.Path; name != "" {
		on += " " + printable.Text(name)
	} else if d.Name != "" {
		on += " " + printable.Text(d.Name)
	}
	return fmt.Sprintf("%s: %s, %s on %s of type %s, %s", printable.Text(d.ID), who, printable.Text(strings.Join(d.PermissionList(), " and ")), on, printable.Text(d.Target), plural(d.Count, "time", "times"))
}

// Readiness looks at the host and changes nothing.
func (h *Host) Readiness(ctx context.Context) (*Readiness, error) {
	r, err := h.observer()
	if err != nil {
		return nil, err
	}
	return r.readiness(ctx, r.unhealthy)
}

// readiness is the verdict; store says what is wrong with the policy store.
func (r *run) readiness(ctx context.Context, store func(context.Context) []string) (*Readiness, error) {
	f := &facts{declared: sampled(r.declared), want: wanted(r.declared), observed: loadObserved(r.Root), now: time.Now()}
	var err error
	if f.enforces, err = r.enforcing(); err != nil {
		return nil, err
	}
	s, err := r.look(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
	}
	if f.declared {
		f.observed = f.observed.after(s) // up to now, and not written down
	}
	if r.Evidence.Policy != nil {
		if f.policy, err = r.Evidence.Policy(ctx); err != nil {
			return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
		}
	}
	if r.Evidence.Denials != nil && f.observed.Policy != "" {
		if f.findings, f.stats, err = r.Evidence.Denials(ctx, f.observed.Since); err != nil {
			return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
		}
	}
	if r.Evidence.Gone != nil && f.observed.Policy != "" {
		if f.gone, err = r.Evidence.Gone(ctx, f.observed.Since); err != nil {
			return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
		}
	}
	if r.Evidence.Unconfined != nil {
		if f.free, err = r.Evidence.Unconfined(ctx); err != nil {
			return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
		}
	}
	if err := r.storage(ctx, f); err != nil {
		return nil, fmt.Errorf("cannot tell whether the host is ready: %w", err)
	}
	f.store = store(ctx)
	return f.judge(), nil
}

// unhealthy says what is wrong with the policy store and the policy.
func (r *run) unhealthy(ctx context.Context) (wrong []string) {
	looker := r.newRun(r.declared, r.state.clone(), true)
	looker.Host = r.quiet()
	for _, stage := range Order() {
		if stage.Name != "policystore" && stage.Name != "policy" {
			continue
		}
		result := looker.stage(ctx, stage)
		if result.Err != nil {
			wrong = append(wrong, "stage "+stage.Name+": "+result.Err.Error())
			continue
		}
		for _, step := range result.Planned {
			wrong = append(wrong, fmt.Sprintf("stage %s would %s %s: %s", stage.Name, step.Action, step.Target, step.Reason))
		}
		problems, err := looker.problems(ctx, stage)
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		for _, p := range problems {
			wrong = append(wrong, p.Problem)
		}
	}
	return wrong
}

// leftOut is unhealthy for the enforce stage: the stages before it have just looked at the store, with privileges that it has not.
func (r *run) leftOut(ctx context.Context) (wrong []string) {
	problems, err := checkPolicy(ctx, r)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range problems {
		wrong = append(wrong, p.Problem)
	}
	return wrong
}

func (h *Host) quiet() *Host {
	quiet := *h
	quiet.Reporter = nil
	return &quiet
}

// storage looks at the mounted volumes.
func (r *run) storage(ctx context.Context, f *facts) error {
	if r.Evidence.Mounts == nil {
		return nil
	}
	all, err := r.Evidence.Mounts()
	if err != nil {
		return err
	}
	for _, dir := range containerDirs() {
		if m := mounts.At(all, dir); m != nil && m.FSType == "btrfs" && r.Root.Exists(dir) {
			f.btrfs = append(f.btrfs, dir)
		}
	}
	root := mounts.At(all, "/")
	looked := map[mounts.Device]bool{}
	for _, m := range all {
		if !volume(m) || root != nil && m.Device == root.Device {
			continue
		}
		if m.FSType == "btrfs" {
			f.btrfs = append(f.btrfs, m.Mountpoint)
		}
		if looked[m.Device] || r.Evidence.Label == nil || mounts.At(all, m.Mountpoint) != m {
			continue
		}
		looked[m.Device] = true
		label, err := r.Evidence.Label(ctx, m)
		if err != nil {
			f.volumes = append(f.volumes, fmt.Sprintf("%s (%v)", m.Mountpoint, err))
			continue
		}
		if t := avc.Context(label).Type(); t == "" || t == f.policy.Unlabeled {
			f.volumes = append(f.volumes, m.Mountpoint)
		}
	}
	slices.Sort(f.volumes)
	slices.Sort(f.btrfs)
	f.volumes, f.btrfs = slices.Compact(f.volumes), slices.Compact(f.btrfs)
	return nil
}

// containerDirs is where the runtimes keep containers and their volumes.
func containerDirs() []string {
	return []string{"/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet"}
}

// volume tells whether a mount holds data that is given to containers: a file system with files of its own, at a place that is not the
// operating system's or a runtime's own layer.
func volume(m *mounts.Mount) bool {
	switch m.FSType {
	case "autofs", "bpf", "binfmt_misc", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "overlay", "proc",
		"pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tmpfs", "tracefs":
		return false
	}
	if protected.Path(m.Mountpoint) {
		return false
	}
	owner := protected.Owner(m.Mountpoint)
	return owner == "" || owner == "kubelet" && strings.Contains(m.Mountpoint, "/volumes/")
}

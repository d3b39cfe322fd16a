package stages

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/provision"
)

// TestEvidence takes a record through samples, and says what is left of it.
//
// Proves P4.
func TestEvidence(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sample := func(minutes int, boot string, uptime int, change ...func(*Sample)) Sample {
		s := Sample{Time: start.Add(time.Duration(minutes) * time.Minute), Boot: boot, Uptime: time.Duration(uptime) * time.Minute, Policy: "p", Loads: 3}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	hides := func(s *Sample) { s.Hides = "dontaudit rules" }
	lost := func(n uint32) func(*Sample) { return func(s *Sample) { s.Lost = n } }
	loads := func(n uint32) func(*Sample) { return func(s *Sample) { s.Loads = n } }
	runs := func(names ...string) func(*Sample) { return func(s *Sample) { s.Running = names } }
	for _, c := range []struct {
		name    string
		samples []Sample
		since   int // minutes; -1: nothing is observed
		covered int // minutes
		boots   int
		lost    uint64
		broken  string
		seen    []string
	}{
		{"one", []Sample{sample(10, "a", 5)}, 10, 0, 1, 0, "", nil},
		{"two", []Sample{sample(10, "a", 5), sample(20, "a", 15)}, 10, 10, 1, 0, "", nil},
		{"a reboot", []Sample{sample(10, "a", 5), sample(20, "a", 15), sample(500, "b", 2), sample(510, "b", 12)}, 10, 22, 2, 0, "", nil},
		{"hidden", []Sample{sample(10, "a", 5, hides)}, -1, 0, 0, 0, "dontaudit rules", nil},
		{"hidden in the middle", []Sample{sample(10, "a", 5), sample(20, "a", 15, hides)}, -1, 0, 0, 0, "dontaudit rules", nil},
		{"hidden, and no more", []Sample{sample(10, "a", 5), sample(20, "a", 15, hides), sample(30, "a", 25)}, 30, 0, 1, 0, "dontaudit rules", nil},
		{"another policy", []Sample{sample(10, "a", 5), sample(20, "a", 15, func(s *Sample) { s.Policy = "q" })}, 20, 0, 1, 0,
			"another policy is in force since some time before 2026-01-01T00:20:00Z", nil},
		{"another policy, built then", []Sample{sample(10, "a", 5), sample(20, "a", 15, func(s *Sample) { s.Policy, s.Built = "q", start.Add(12*time.Minute) })}, 20, 0, 1, 0,
			"another policy is in force since 2026-01-01T00:12:00Z", nil},
		{"another policy, built by a clock that is ahead", []Sample{sample(10, "a", 5), sample(20, "a", 15, func(s *Sample) { s.Policy, s.Built = "q", start.Add(time.Hour) })}, 20, 0, 1, 0,
			"another policy is in force since some time before 2026-01-01T00:20:00Z", nil},
		{"one load", []Sample{sample(10, "a", 5), sample(20, "a", 15, loads(4))}, 10, 10, 1, 0, "", nil},
		{"two loads", []Sample{sample(10, "a", 5), sample(20, "a", 15, loads(5))}, 20, 0, 1, 0,
			"the policy was loaded 2 times between two looks at the host, before 2026-01-01T00:20:00Z: nobody knows what it hid meanwhile", nil},
		{"loads of another boot", []Sample{sample(10, "a", 5), sample(20, "b", 1, loads(9))}, 10, 1, 2, 0, "", nil},
		{"lost before", []Sample{sample(10, "a", 5, lost(7)), sample(20, "a", 15, lost(7))}, 10, 10, 1, 0, "", nil},
		{"lost", []Sample{sample(10, "a", 5, lost(7)), sample(20, "a", 15, lost(9))}, 10, 10, 1, 2, "", nil},
		{"lost since a boot", []Sample{sample(10, "a", 5, lost(7)), sample(20, "b", 1, lost(3))}, 10, 1, 2, 3, "", nil},
		{"set back", []Sample{sample(10, "a", 5, lost(7)), sample(20, "a", 15, lost(2))}, 10, 10, 1, 2, "", nil},
		{"seen", []Sample{sample(10, "a", 5, runs("unit x")), sample(20, "a", 15, runs("unit y")), sample(30, "a", 25)}, 10, 20, 1, 0, "", []string{"unit x", "unit y"}},
		{"seen, and begun anew", []Sample{sample(10, "a", 5, runs("unit x")), sample(20, "a", 15, hides), sample(30, "a", 25)}, 30, 0, 1, 0, "dontaudit rules", nil},
		{"a clock that was set", []Sample{sample(10, "a", 5), sample(900, "a", 15)}, 10, 10, 1, 0, "", nil},
		{"a clock that is read a second before the kernel's", []Sample{sample(10, "a", 5), sample(20, "a", 15, func(s *Sample) { s.Time = s.Time.Add(-time.Second) })}, 10, 10, 1, 0, "", nil},
		// What was logged meanwhile bears the new time.
		{"a clock that was set back", []Sample{sample(700, "a", 5), sample(100, "a", 15)}, 90, 10, 1, 0, "", nil},
		{"a clock that was set back a little", []Sample{sample(10, "a", 5), sample(20, "a", 15), sample(400, "b", 5), sample(300, "b", 15)}, 10, 25, 2, 0, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Observed{Version: 1}
			for _, s := range c.samples {
				before := fmt.Sprintf("%+v", o)
				next := o.after(s)
				if fmt.Sprintf("%+v", o) != before {
					t.Error("the record before was changed")
				}
				o = next
			}
			since := time.Time{}
			if c.since >= 0 {
				since = start.Add(time.Duration(c.since) * time.Minute)
			}
			var seen []string
			for name := range o.Seen {
				seen = append(seen, name)
			}
			slices.Sort(seen)
			if !o.Since.Equal(since) || (o.Policy != "") != (c.since >= 0) || o.Covered != time.Duration(c.covered)*time.Minute || o.Boots != c.boots || o.Lost != c.lost ||
				o.Broken != c.broken || !slices.Equal(seen, c.seen) {
				t.Errorf("got %+v, want %+v", o, c)
			}
		})
	}
}

// aFinding is something that was denied.
func aFinding(change ...func(*judge.Finding)) *judge.Finding {
	f := &judge.Finding{ID: "0a1b2c", Group: avc.Group{Domain: "container_t", Target: "etc_t", Class: "file", Permissions: map[string]uint64{"read": 3}, Count: 3, Path: "/etc/x"},
		Fix: judge.Fix{Kind: judge.Rule}}
	for _, c := range change {
		c(f)
	}
	return f
}

// TestReadinessVerdict: each reason by itself, against a host that is ready.
//
// Proves P4.
func TestReadinessVerdict(t *testing.T) {
	t.Parallel()
	transition := aFinding(func(f *judge.Finding) {
		f.ID, f.Domain, f.Target, f.Class, f.Permissions = "111111", "kernel_t", "container_t", "process", map[string]uint64{"transition": 1}
	})
	good := func() *facts {
		return &facts{
			declared: true,
			want:     provision.Readiness{Window: time.Hour, Units: []string{"a.service"}, Containers: []string{"web"}},
			observed: Observed{Policy: "p", Covered: time.Hour, Boots: 2, Seen: map[string]time.Time{"unit a.service": {}, "container web": {}}},
			policy:   LoadedPolicy{Unlabeled: "unlabeled_t", Permissive: func(d string) bool { return d == "lenient_t" }},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*facts)
		want   Verdict
		check  string // the one that says no
		found  string
		apart  string
	}{
		{"ready", func(*facts) {}, Ready, "", "", ""},
		{"not declared", func(f *facts) { f.declared, f.observed = false, Observed{} }, NotEnough, "evidence", "nothing is observed: readiness is not declared", ""},
		{"hidden", func(f *facts) { f.observed = Observed{Broken: "3 dontaudit rules"} }, NotEnough, "evidence", "what enforcing would deny is not known: 3 dontaudit rules", ""},
		{"short", func(f *facts) { f.observed.Covered-- }, NotEnough, "window", "observed for 1h0m0s of 1h0m0s", ""},
		{"one boot", func(f *facts) { f.observed.Boots = 1 }, NotEnough, "reboot", "1 of at least 2 boots", ""},
		{"lost", func(f *facts) { f.observed.Lost = 2 }, NotEnough, "lost", "2 audit records were lost", ""},
		{"lost, says the log", func(f *facts) { f.stats.Kernel = 5 }, NotEnough, "lost", "5 audit records were lost", ""},
		{"lost on the way", func(f *facts) { f.stats.Missing, f.observed.Lost, f.stats.Kernel = 1, 2, 2 }, NotEnough, "lost", "3 audit records were lost", ""},
		{"workload", func(f *facts) { delete(f.observed.Seen, "container web") }, NotEnough, "workloads", "not seen running: container web", ""},
		{"a workload that is not confined", func(f *facts) {
			f.free = []Unconfined{{Container: "shop/web/nginx", Domain: "kernel_t", Why: "as the host's own processes run", names: []string{"web"}}, {Container: "proxy", Domain: "spc_t"}}
		}, NotReady, "confinement", "the policy does not confine shop/web/nginx (kernel_t, as the host's own processes run): enforcing would not protect the host from it", ""},
		{"another container that is not confined", func(f *facts) { f.free = []Unconfined{{Container: "proxy", Domain: "spc_t", names: []string{"proxy"}}} }, Ready, "", "", ""},
		{"no workload", func(f *facts) { f.want.Units, f.want.Containers = nil, nil }, NotEnough, "workloads", "no workload is declared", ""},
		{"denial", func(f *facts) { f.findings = []*judge.Finding{aFinding()} }, NotReady, "denials",
			"enforcing would stop 3 accesses: 0a1b2c: container_t, read on file /etc/x of type etc_t, 3 times", ""},
		{"hostile name", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) { f.Path, f.Subject.Container = "/a\x1b[2J\nb", "x\ny" })}
		}, NotReady, "denials", `enforcing would stop 3 accesses: 0a1b2c: container x\ny (container_t), read on file /a\x1b[2J\nb of type etc_t, 3 times`, ""},
		{"allowed by now", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) {
				f.Fix = judge.Fix{Kind: judge.Nothing, Text: "the policy in force allows this by now"}
			})}
		}, Ready, "", "", "the policy in force allows this by now"},
		{"labelled by now", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) {
				f.Fix = judge.Fix{Kind: judge.Nothing, Text: "the label is right by now: /a\x1b[2J"}
			})}
		}, Ready, "", "", `the label is right by now: /a\x1b[2J`},
		{"reported", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) { f.Kind = avc.Granted })}
		}, Ready, "", "", "it was allowed, and a rule asks for it to be reported"},
		{"permissive domain", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) { f.Domain = "lenient_t" })}
		}, Ready, "", "", "the domain lenient_t is permissive by itself, also when the host enforces"},
		{"accepted", func(f *facts) { f.want.Accept, f.findings = []string{"0a1b2c"}, []*judge.Finding{aFinding()} }, Ready, "", "", "readiness.accept has it"},
		{"accepted, this permission", func(f *facts) {
			f.want.Accept, f.findings = []string{"0a1b2c:read"}, []*judge.Finding{aFinding()}
		}, Ready, "", "", "readiness.accept has it"},
		{"accepted, another permission", func(f *facts) {
			f.want.Accept = []string{"0a1b2c:read"}
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) { f.Permissions = map[string]uint64{"read": 1, "write": 1} })}
		}, NotReady, "denials", "enforcing would stop 3 accesses: 0a1b2c: container_t, read and write on file /etc/x of type etc_t, 3 times", ""},
		{"artefact", func(f *facts) { f.findings = []*judge.Finding{aFinding(), transition} }, NotReady, "denials",
			"enforcing would stop 3 accesses: 111111: kernel_t, transition on process /etc/x of type container_t, 3 times",
			"only a permissive host comes that far: the transition into container_t is denied (111111)"},
		{"artefact, by the policy", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(), transition}
			f.policy.EnteredBy = func(string) []string { return []string{"kernel_t"} }
		}, NotReady, "denials", "enforcing would stop 3 accesses: 111111: kernel_t, transition on process /etc/x of type container_t, 3 times",
			"only a permissive host comes that far: the transition into container_t is denied (111111)"},
		{"no artefact: others may enter", func(f *facts) {
			f.findings, f.want.Accept = []*judge.Finding{aFinding(), transition}, []string{"111111"}
			f.policy.EnteredBy = func(string) []string { return []string{"kernel_t", "runtime_t"} }
		}, NotReady, "denials", "enforcing would stop 3 accesses: 0a1b2c: container_t, read on file /etc/x of type etc_t, 3 times", "readiness.accept has it"},
		{"no artefact: a program says so", func(f *facts) {
			said := *transition
			said.Type = avc.TypeUserAVC
			f.findings, f.want.Accept = []*judge.Finding{aFinding(), &said}, []string{"111111"}
		}, NotReady, "denials", "enforcing would stop 3 accesses: 0a1b2c: container_t, read on file /etc/x of type etc_t, 3 times", "readiness.accept has it"},
		{"cut off", func(f *facts) { f.stats.Malformed, f.stats.Overlong = 2, 1 }, NotEnough, "lost", "3 audit records were lost, of which 3 were cut off or damaged", ""},
		{"rotated away", func(f *facts) { f.gone, f.observed.Since = "the journal begins only at 2", time.Unix(0, 0) }, NotEnough, "lost",
			"what was denied at first is not in the log any more: the journal begins only at 2, and the evidence at " + time.Unix(0, 0).Format(time.DateTime), ""},
		{"hostile context", func(f *facts) {
			f.findings = []*judge.Finding{aFinding(func(f *judge.Finding) {
				f.Domain, f.Target, f.Class, f.Permissions = "a\x1bt", "b\nt", "c\rs", map[string]uint64{"\x07": 1}
			})}
		}, NotReady, "denials", `enforcing would stop 3 accesses: 0a1b2c: a\x1bt, \a on c\rs /etc/x of type b\nt, 3 times`, ""},
		{"volume", func(f *facts) { f.volumes = []string{"/srv/a", "/srv/b"} }, NotReady, "volumes", "volumes without a label are mounted: /srv/a, /srv/b", ""},
		{"btrfs", func(f *facts) { f.btrfs = []string{"/var/lib/docker"} }, NotReady, "btrfs", "containers use Btrfs: /var/lib/docker", ""},
		{"store", func(f *facts) { f.store = []string{"stage policy would rebuild"} }, NotReady, "store", "stage policy would rebuild", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good()
			c.change(f)
			r := f.judge()
			if r.Verdict != c.want {
				t.Errorf("%s, want %s", r.Verdict, c.want)
			}
			against := r.Against()
			if c.name == "not declared" || c.name == "hidden" {
				against = against[:1] // the others follow from it
			}
			if (len(against) == 0) != (c.check == "") || len(against) > 1 || len(against) == 1 && (against[0].Name != c.check || against[0].Found != c.found || against[0].Remedy == "") {
				t.Errorf("against it: %+v\nwant %s: %s", against, c.check, c.found)
			}
			if len(r.Checks) != 10 {
				t.Errorf("%d checks: %+v", len(r.Checks), r.Checks)
			}
			if c.apart != "" && (len(r.Apart) != 1 || r.Apart[0].Why != c.apart) {
				t.Errorf("set apart: %+v, want %s", r.Apart, c.apart)
			}
		})
	}
	f := good()
	f.observed.Boots, f.volumes = 1, []string{"/a"}
	if r := f.judge(); r.Verdict != NotReady || len(r.Against()) != 2 || r.Against()[0].Name != "volumes" {
		t.Errorf("%+v", r)
	}
}

// A policy that this program cannot read breaks the evidence and fails neither the sampler nor readiness: what it hides is not known. An
// error that another try may not meet fails both.
func TestPolicyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	_, err := policydb.Parse(strings.NewReader("a policy of the future"))
	p, err := loadedPolicy(nil, fmt.Errorf("cannot read the loaded policy: %w", err))
	if err != nil || p.Unreadable != "cannot read the loaded policy: cannot read the policy: it is no binary policy" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := loadedPolicy(nil, syscall.EBUSY); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("got %v", err)
	}
	r := &run{Host: &Host{Root: host(t, newComputer(t, guarded).tree).Root, Evidence: Evidence{
		Policy: func(context.Context) (LoadedPolicy, error) { return p, nil },
	}}, declared: &provision.State{}, state: &State{}}
	r.state.Store.Policy.Declared = declaredPolicy(r).Digest
	hides, err := r.hides(t.Context(), &Sample{})
	if want := "what the policy in force hides is not known: " + p.Unreadable + ": install a newer selinux-provision"; err != nil || hides != want {
		t.Errorf("hides %q, %v", hides, err)
	}
	broken := Observed{Version: 1, Policy: "a", Covered: time.Hour}.after(Sample{Hides: hides})
	if broken.Policy != "" || broken.Broken != hides {
		t.Errorf("%+v", broken)
	}
}

// Proves P4.
func TestVolumesInUse(t *testing.T) {
	t.Parallel()
	mount := func(point, kind string, minor uint32) *mounts.Mount {
		return &mounts.Mount{Mountpoint: point, FSType: kind, Root: "/", Device: mounts.Device{Major: 8, Minor: minor}}
	}
	h := &Host{Root: host(t, newComputer(t, guarded).tree).Root}
	labels := map[string]string{
		"/srv/good": "system_u:object_r:container_file_t:s0", "/srv/bad": "system_u:object_r:unlabeled_t:s0", "/srv/none": "",
		"/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/y/mount": "system_u:object_r:unlabeled_t:s0",
	}
	h.Evidence = Evidence{
		Mounts: func() ([]*mounts.Mount, error) {
			return []*mounts.Mount{
				mount("/", "ext4", 1), mount("/usr", "btrfs", 2), mount("/oem", "btrfs", 3), mount("/proc", "proc", 4), mount("/tmp", "tmpfs", 5),
				mount("/srv/good", "xfs", 6), mount("/srv/bad", "ext4", 7), mount("/elsewhere", "ext4", 7), mount("/srv/none", "ext4", 8), mount("/srv/part", "ext4", 1),
				mount("/srv/btrfs", "btrfs", 9), mount("/var/lib/docker", "btrfs", 10), mount("/var/lib/docker/overlay2/x/merged", "overlay", 11),
				mount("/var/lib/docker/btrfs/y", "btrfs", 10), mount("/srv/dead", "nfs4", 12), mount("/srv/over", "ext4", 13), mount("/srv/over", "tmpfs", 14),
				mount("/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/y/mount", "ext4", 15), mount("/var/lib/kubelet/pods/x/other", "ext4", 16), mount("/boot", "vfat", 17),
			}, nil
		},
		Label: func(_ context.Context, m *mounts.Mount) (string, error) {
			label, known := labels[m.Mountpoint]
			switch {
			case m.Mountpoint == "/srv/dead":
				return "", errors.New("it does not answer")
			case m.Mountpoint == "/srv/btrfs":
				return labels["/srv/good"], nil
			case !known:
				t.Errorf("%s is looked at", m.Mountpoint)
			}
			return label, nil
		},
	}
	r := &run{Host: h}
	f := &facts{policy: LoadedPolicy{Unlabeled: "unlabeled_t"}}
	if err := h.Root.MkdirAll("/var/lib/docker", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.storage(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/srv/bad", "/srv/dead (it does not answer)", "/srv/none", "/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/y/mount"}; !reflect.DeepEqual(f.volumes, want) {
		t.Errorf("without a label: %q, want %q", f.volumes, want)
	}
	if want := []string{"/srv/btrfs", "/var/lib/docker"}; !reflect.DeepEqual(f.btrfs, want) {
		t.Errorf("on Btrfs: %q, want %q", f.btrfs, want)
	}
}

// TestRequireReadiness holds the mode back until the host is ready, and not longer.
//
// Proves P4.
func TestRequireReadiness(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"plain":   "version: 1\nmode: enforcing\nenforce: {require_readiness: true}\nreadiness: {window: 1h, units: [docker.service]}\n",
		"guarded": "version: 1\nmode: enforcing\nenforce: {require_readiness: true, guard: {window: 1m}}\nreadiness: {window: 1h, units: [docker.service]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := newComputer(t, config)
			denied := []*judge.Finding{}
			var lost uint32
			evidence := func() {
				c.host.Evidence = Evidence{
					Denials: func(context.Context, time.Time) ([]*judge.Finding, avc.Stats, error) { return denied, avc.Stats{}, nil },
					Audit:   func() (kernel.AuditStatus, error) { return kernel.AuditStatus{Enabled: 1, Lost: lost}, nil },
					Loads:   func() (uint32, error) { return 1, nil },
				}
			}
			held := func(when string, want ...string) {
				t.Helper()
				r := c.enforce()
				got := []string{}
				for _, p := range r.Problems {
					got = append(got, p.String())
				}
				text := strings.Join(got, "\n")
				if r.Outcome != Partly {
					t.Errorf("%s: %s %s\n%s", when, r.Outcome, r.Error, text)
				}
				for _, w := range want {
					if !strings.Contains(text, w) {
						t.Errorf("%s: %q is not in\n%s", when, w, text)
					}
				}
				c.is(when, none, false, "permissive")
				if got := c.problems(); !strings.Contains(got, want[0]) {
					t.Errorf("%s: status says\n%s", when, got)
				}
			}
			sample := func(after time.Duration) {
				t.Helper()
				c.booted = c.booted.Add(-after) // time passes
				if taken, err := c.host.TakeSample(context.Background(), false); err != nil || !taken {
					t.Fatal(taken, err)
				}
			}
			c.on()
			evidence()
			c.docker.Active = "inactive"
			held("at first", "observed for 0s of 1h0m0s", "1 of at least 2 boots", "not seen running: unit docker.service")
			c.docker.Active = "active"
			sample(0)
			sample(50 * time.Minute)
			held("later", "observed for 50m0s of 1h0m0s", "1 of at least 2 boots")
			c.on()
			evidence()
			sample(10 * time.Minute)
			denied = append(denied, aFinding())
			held("with a denial", "not ready: enforcing would stop 3 accesses")
			denied, lost = nil, 4
			held("with a loss", "not enough evidence: 4 audit records were lost")
			lost = 0
			if r := c.enforce(); r.Outcome != Changed || len(r.Problems) > 0 {
				t.Errorf("ready: %+v", r)
			}
			if name == "plain" {
				c.is("ready", none, true, "enforcing")
			} else {
				c.is("ready", TrialWatched, true, "permissive")
			}
			// What is enforced already is not taken back.
			lost = 9
			if r := c.enforce(); r.Outcome != Unchanged {
				t.Errorf("enforcing: %+v", r)
			}
		})
	}
}

// TestEnforcingBeforeReady: where readiness does not hold the mode back, the switch says what it found.
//
// Proves P4.
func TestEnforcingBeforeReady(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		denied bool
		want   string // "": nothing is said
	}{
		"plain":        {"version: 1\nmode: enforcing\nreadiness: {window: 1h, units: [docker.service]}\n", true, "; selinux-provision readiness says not ready: enforcing would stop 3 accesses: "},
		"on trial":     {"version: 1\nmode: enforcing\nenforce: {guard: {window: 1m}}\nreadiness: {window: 1h, units: [docker.service]}\n", true, "; selinux-provision readiness says not ready: "},
		"too early":    {"version: 1\nmode: enforcing\nreadiness: {window: 1h, units: [docker.service]}\n", false, "; selinux-provision readiness says not enough evidence: observed for 0s of 1h0m0s"},
		"not declared": {"version: 1\nmode: enforcing\n", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			computer := newComputer(t, c.config)
			computer.on()
			computer.host.Evidence = Evidence{Denials: func(context.Context, time.Time) (all []*judge.Finding, _ avc.Stats, _ error) {
				if c.denied {
					all = append(all, aFinding())
				}
				return all, avc.Stats{}, nil
			}}
			r := computer.enforce()
			var reasons []string
			for _, d := range r.Done {
				if d.Action == "switch" {
					reasons = append(reasons, d.Reason)
				}
			}
			if len(reasons) != 1 || !strings.HasPrefix(reasons[0], "the kernel is permissive"+c.want) || c.want == "" && reasons[0] != "the kernel is permissive" {
				t.Errorf("%s %s: %q", r.Outcome, r.Error, reasons)
			}
		})
	}
}

// TestSamples: who writes evidence down, and when not.
//
// Proves P4.
func TestSamples(t *testing.T) {
	t.Parallel()
	c := newComputer(t, guarded)
	c.on()
	file := filepath.Join(c.tree.Dir, evidenceFile)
	sample := func(want bool) {
		t.Helper()
		if taken, err := c.host.TakeSample(context.Background(), false); err != nil || taken != want {
			t.Errorf("%v, %v", taken, err)
		}
		if c.host.Root.Exists(evidenceFile) != want {
			t.Errorf("%s", file)
		}
	}
	sample(false) // readiness is not declared
	c.tree.Write("etc/selinux-provision/config.yaml", guarded+"readiness: {units: [docker.service]}\n")
	sample(true)
	first := loadObserved(c.host.Root)
	if first.Boots != 1 || len(first.Seen) != 1 {
		t.Errorf("%+v", first)
	}
	// Whoever runs is remembered, with what judging its denials takes.
	id := strings.Repeat("1", 64)
	c.tree.Write("var/lib/docker/containers/"+id+"/config.v2.json", `{"Name":"/web","ProcessLabel":"system_u:system_r:container_t:s0:c1,c2","Config":{"Image":"nginx"},"MountPoints":{"/data":{"Source":"/srv/data","Destination":"/data"}}}`)
	sample(true)
	if err := c.host.Root.RemoveTree("/var/lib/docker"); err != nil {
		t.Fatal(err)
	}
	denied := strings.NewReader("type=AVC msg=audit(" + strconv.FormatInt(time.Now().Unix(), 10) + ".001:5): avc:  denied  { write } for  pid=7 comm=\"x\" path=\"/data/x\" dev=\"vda\" ino=9 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:var_t:s0 tclass=file permissive=0\n")
	if r, err := c.host.Findings().Gather(t.Context(), findings.Query{Input: denied, InputName: "a log"}); err != nil || len(r.Findings) != 1 || r.Findings[0].Subject.Container != "web" || r.Findings[0].Paths[0].Host != "/srv/data/x" {
		t.Errorf("after its end: %+v, %v", r, err)
	}
	c.tree.Write(evidenceFile, "{")
	sample(true)
	if again := loadObserved(c.host.Root); again.Since.Before(first.Since) || again.Boots != 1 {
		t.Errorf("%+v", again)
	}
	c.booted = c.booted.Add(-time.Hour)
	sample(true)
	if taken, err := c.host.TakeSample(context.Background(), true); err != nil || !taken {
		t.Error(err)
	}
	if anew := loadObserved(c.host.Root); anew.Covered != 0 || !strings.HasPrefix(anew.Broken, "somebody began anew at ") {
		t.Errorf("%+v", anew)
	}
	c.host.Boot = ""
	c.host.Kernel = nil
	if _, err := c.host.TakeSample(context.Background(), false); err == nil {
		t.Error("a tree was observed")
	}
	if err := c.host.Root.RemoveTree(StateDir); err != nil {
		t.Fatal(err)
	}
	c.on()
	if taken, err := c.host.TakeSample(context.Background(), false); taken || err != nil || c.host.Root.Exists(StateDir) {
		t.Errorf("a host that nobody provisioned was observed: %v", err)
	}
}

package judge_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

const (
	volumeContext  = "system_u:object_r:container_file_t:s0"
	processContext = "system_u:system_r:container_t:s0"
)

// evidence is a host with one container, web, that has /srv/data (a file system of its own) as /data, /srv/plain as /plain, and
// /var/log as /logs.
func evidence(t *testing.T) *judge.Evidence {
	t.Helper()
	in, err := os.Open(policytest.Build(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	web := &attribution.Container{Subject: avc.Subject{ID: "1", Container: "web"}, Mounts: []attribution.Mount{
		{Source: "/srv/data", Destination: "/data"}, {Source: "/srv/plain", Destination: "/plain"}, {Source: "/var/log", Destination: "/logs"},
	}}
	return &judge.Evidence{
		Policy: p, VolumeContext: volumeContext, ProcessContext: processContext,
		Container: func(s avc.Subject) *attribution.Container {
			if s.ID == "1" {
				return web
			}
			return nil
		},
		Mounts: attribution.Mounts{
			{Path: "/", Type: "ext4", Dev: "vda", Block: true}, {Path: "/srv/data", Type: "xfs", Dev: "vdb", Block: true}, {Path: "/mnt/other", Type: "ext4", Dev: "vdc", Block: true},
		},
		Inode: func(name string) uint64 { return map[string]uint64{"/srv/plain": 10, "/srv/plain/file": 11}[name] },
		Expected: func(class, name string) string {
			switch {
			case strings.HasPrefix(name, "/srv/data/web") && class == "file":
				return volumeContext
			case strings.HasPrefix(name, "/etc"):
				return "system_u:object_r:etc_t:s0"
			}
			return ""
		},
	}
}

// denial is one of container_t, in words: WHO PERMISSIONS TYPE:LEVEL CLASS KEY=VALUE...
func denial(text string) *avc.Denial {
	words := strings.Fields(text)
	d := &avc.Denial{
		Type: avc.TypeAVC, Source: processContext + ":c1,c2", Target: avc.Context("system_u:object_r:" + words[2]), Class: words[3], PID: 7, Comm: "x",
		Permissions: strings.Split(words[1], ","), Enforced: avc.EnforcedYes, Time: time.Unix(1700000000, 0), Serial: 5, Dev: "vda",
	}
	for _, word := range words[4:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "path":
			d.Path = value
		case "name":
			d.Name = value
		case "dev":
			d.Dev = value
		case "domain":
			d.Source = avc.Context("system_u:system_r:" + value)
		case "self":
			d.Target = d.Source
		case "ioctl":
			command := 0
			_, _ = fmt.Sscanf(value, "%x", &command)
			d.Ioctl = []uint16{uint16(command)}
		case "raw":
			d.Extra = []avc.Field{{Key: "trawcon", Value: "system_u:object_r:" + value + ":s0"}}
		case "ino":
			_, _ = fmt.Sscan(value, &d.Ino)
		case "serial":
			_, _ = fmt.Sscan(value, &d.Serial)
		}
	}
	d.Comm = words[0] // the attributor of these tests looks here
	return d
}

type byComm struct{}

func (byComm) Subject(d *avc.Denial) avc.Subject {
	if d.Comm == "web" {
		return avc.Subject{ID: "1", Container: "web", Image: "img"}
	}
	return avc.Subject{}
}

func judged(t *testing.T, e *judge.Evidence, denials ...string) []*judge.Finding {
	t.Helper()
	groups := avc.NewGroups(byComm{})
	for _, text := range denials {
		groups.Add(denial(text))
	}
	return e.Judge(groups.List())
}

// The first answer that holds is the one given.
//
// Proves V19.
func TestFixes(t *testing.T) {
	e := evidence(t)
	for _, c := range []struct {
		name, denial string
		kind         judge.Kind
		says         []string // in text, command, config or also
	}{
		{"mislabelled for its path", "web read,open etc_t:s0 file path=/data/web/index.html dev=vdb", judge.Relabel, []string{"/srv/data/web/index.html has the type etc_t", "container_file_t", "restorecon -RFv /srv/data/web/index.html"}},
		{"mislabelled, but that would not help", "- read shadow_t:s0 file path=/etc/shadow domain=container_t:s0", judge.Rule, []string{"no rule lets container_t"}},
		{"a volume without a label, mounted", "web search unlabeled_t:s0 dir path=/data/sub dev=vdb", judge.Volume, []string{"/srv/data has no label", "match: {mountpoint: /srv/data}", "context: " + volumeContext, ":z (shared)"}},
		{"a directory without a label", "web write unlabeled_t:s0 file name=file ino=11", judge.Volume, []string{"/srv/plain has no label", "'/srv/plain(/.*)?'"}},
		{"the directory itself", "web add_name unlabeled_t:s0 dir name=plain ino=10", judge.Volume, []string{"/srv/plain has no label"}},
		{"a volume with the host's label", "web write etc_t:s0 file path=/plain/file", judge.Volume, []string{"/srv/plain has the type etc_t, which is not for containers"}},
		{"what the system owns is no volume", "web read container_log_t:s0 file path=/logs/x.log", judge.Rule, []string{"no rule lets container_t", "container_reader_t may do this, but not"}},
		{"a volume that nobody knows", "- write unlabeled_t:s0 file name=file domain=container_t:s0:c5,c6 dev=sdz", judge.Volume, []string{"a volume that nobody labelled", "find it on the host"}},
		{"a volume known by its device", "- write unlabeled_t:s0 file name=file domain=container_t:s0:c5,c6 dev=vdc", judge.Volume, []string{"/mnt/other has no label", "mountpoint: /mnt/other"}},
		{"the host's own", "- read unlabeled_t:s0 file path=/opt/x domain=kernel_t:s0", judge.Rule, []string{"no rule lets kernel_t do this", "--source kernel_t --domain kernel_t"}},
		{"a boolean", "web read,open nfs_t:s0 file path=/nfs/x dev=nfs", judge.Boolean, []string{"container_use_nfs on", "booleans: {container_use_nfs: true}"}},
		{"two booleans", "web read sysctl_t:s0 file", judge.Boolean, []string{"container_read_sysctl: true, container_safe: false"}},
		{"categories", "web read container_file_t:s0:c3 file path=/other", judge.Categories, []string{"no allow rule helps", "s0:c1,c2 is asked for s0:c3", "label=level:s0:c3"}},
		{"another constraint", "- relabelto etc_t:s0 file domain=kernel_t:s0", judge.Rule, []string{"no rule"}},
		{"an ioctl that the rules leave out", "web ioctl nfs_t:s0 chr_file ioctl=5402", judge.Rule, []string{"no rule"}},
		{"an ioctl that they allow by now", "web ioctl nfs_t:s0 chr_file ioctl=8910", judge.Nothing, []string{"by now"}},
		{"a level that is not that of its path", "web read container_file_t:s0:c3 file path=/data/web/x dev=vdb", judge.Relabel, []string{"has the level s0:c3", "has s0, with which it is allowed"}},
		{"a label that the policy does not know", "- read unlabeled_t:s0 file path=/srv/x domain=kernel_t:s0 raw=gone_t", judge.Context, []string{"has the label system_u:object_r:gone_t:s0", "the module that declares gone_t", "restorecon -RFv /srv/x"}},
		{"a rule", "web sys_module x_t:s0 capability self=1", judge.Rule, []string{"a domain of its own"}},
		{"allowed by now", "web read container_file_t:s0 file path=/x", judge.Nothing, []string{"allows this by now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := judged(t, e, c.denial)
			if len(f) != 1 || f[0].Fix.Kind != c.kind {
				t.Fatalf("got %+v, want %s", f[0].Fix, c.kind)
			}
			fix := f[0].Fix
			all := strings.Join([]string{fix.Text, fix.Command, fix.Config, fix.Also}, "\n")
			for _, want := range c.says {
				if !strings.Contains(all, want) {
					t.Errorf("does not say %q:\n%s", want, all)
				}
			}
		})
	}
}

// What needs a rule and is denied by categories too says both: the rule alone would not help.
func TestRuleAndCategories(t *testing.T) {
	f := judged(t, evidence(t), "web read container_log_t:s0:c3 file path=/logs/x")
	if f[0].Fix.Kind != judge.Rule || !strings.Contains(f[0].Fix.Also, "the categories forbid it too") {
		t.Errorf("%+v", f[0].Fix)
	}
}

// Another domain is an answer only if it is one to everything that is left of a subject's denials.
func TestAnotherDomain(t *testing.T) {
	e := evidence(t)
	f := judged(t, e, "- read container_log_t:s0 file path=/a domain=container_t:s0:c1", "- search container_log_t:s0 dir path=/b domain=container_t:s0:c1")
	for _, one := range f {
		if len(one.Fix.Alternatives) != 1 || one.Fix.Alternatives[0].Domain != "container_reader_t" {
			t.Errorf("%s: %+v", one.Class, one.Fix)
		}
	}
	f = judged(t, e, "- read container_log_t:s0 file path=/a domain=container_t:s0:c1", "- read shadow_t:s0 file path=/b domain=container_t:s0:c1")
	for _, one := range f {
		if one.Fix.Kind != judge.Rule || len(one.Fix.Alternatives) != 0 {
			t.Errorf("%s: %+v", one.Target, one.Fix)
		}
	}
}

// Without a policy, and without anything of the host, there is still an answer.
func TestLittleEvidence(t *testing.T) {
	e := &judge.Evidence{}
	for text, want := range map[string]judge.Kind{
		"- read container_file_t:s0:c3 file domain=container_t:s0:c1": judge.Categories,
		"- read nfs_t:s0 file domain=container_t:s0:c1":               judge.Rule,
	} {
		if f := judged(t, e, text); f[0].Fix.Kind != want {
			t.Errorf("%s: %+v", text, f[0].Fix)
		}
	}
}

// Paths that differ in nothing else are one finding, whose name stays the same when more come.
func TestMerge(t *testing.T) {
	e := evidence(t)
	var denials []string
	for i := range 30 {
		denials = append(denials, fmt.Sprintf("web read,open shadow_t:s0 file path=/x/%d serial=%d", i, i+1))
	}
	denials = append(denials, "web read shadow_t:s0 file path=/x/7", "web read shadow_t:s0 lnk_file path=/x/l")
	f := judged(t, e, denials...)
	if len(f) != 2 || f[0].Count != 31 || f[0].PathCount != 30 || len(f[0].Paths) != 20 || f[0].Paths[0] != (judge.Seen{Path: "/x/7", Count: 2}) ||
		f[0].Permissions["read"] != 31 || f[0].Permissions["open"] != 30 || f[0].Enforced != 31 || len(f[0].Serials) != 4 {
		t.Fatalf("got %+v", f[0])
	}
	if again := judged(t, e, slices.Concat(denials[5:6], denials[31:])...); again[0].ID != f[0].ID && again[1].ID != f[0].ID {
		t.Errorf("the finding %s has another name: %s, %s", f[0].ID, again[0].ID, again[1].ID)
	}
	// What helps is another thing on another day, and the ID is the same; of two at once, one has another.
	was, is := judged(t, e, "web read unlabeled_t:s0 file path=/plain/a"), judged(t, &judge.Evidence{}, "web read unlabeled_t:s0 file path=/plain/a")
	if was[0].Fix.Kind == is[0].Fix.Kind || was[0].ID != is[0].ID {
		t.Errorf("%s %s, then %s %s", was[0].ID, was[0].Fix.Kind, is[0].ID, is[0].Fix.Kind)
	}
	if both := judged(t, e, "web read etc_t:s0 file path=/plain/a", "web read etc_t:s0 file path=/data/web/a"); len(both) != 2 || both[0].ID == both[1].ID {
		t.Errorf("two fixes: %+v", both)
	}
	many := judged(t, e, "web read etc_t:s0 file path=/data/web/a dev=vdb", "web read etc_t:s0 file path=/data/web/b dev=vdb")
	if len(many) != 1 || many[0].Fix.Command != "restorecon -RFv /srv/data/web/a /srv/data/web/b" {
		t.Errorf("got %+v", many[0].Fix)
	}
}

// A path from a container cannot make a command that does something else.
func TestHostilePaths(t *testing.T) {
	f := judged(t, evidence(t), "web read etc_t:s0 file path=/data/web/$(reboot);'x dev=vdb")
	if want := `restorecon -RFv '/srv/data/web/$(reboot);'\''x'`; f[0].Fix.Command != want {
		t.Errorf("got %s, want %s", f[0].Fix.Command, want)
	}
}

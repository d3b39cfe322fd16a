package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/policystore"
	"github.com/selinux-provision/selinux-provision/stages"
)

// healthy is the status of a host where everything is as declared.
func healthy() *stages.Status {
	s := &stages.Status{
		Mode: stages.ModeStatus{Running: "enforcing", Configured: "enforcing", Declared: "enforcing"},
		Store: stages.StoreStatus{Store: policystore.Store{Kind: "writable"}, Type: "mcs", Generation: 1, BuiltFrom: "df5c7741077e0", Vendor: "df5c7741077e0",
			Policy: "policy.34"},
		Modules: []string{"kube_logreader"}, AsDeclared: true, Denials: &stages.DenialCount{},
		Volumes: []mountwatch.Volume{{Rule: "data", Mountpoint: "/var/lib/data", State: mountwatch.Labelled, How: "context option",
			Context: "system_u:object_r:container_file_t:s0:c10,c20", When: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)}},
	}
	for _, stage := range stages.Order() {
		s.Stages = append(s.Stages, stages.Result{Stage: stage.Name, Outcome: stages.Unchanged})
	}
	return s
}

// sick is the status of one where it is not.
func sick() *stages.Status {
	s := healthy()
	s.AsDeclared = false
	s.Mode = stages.ModeStatus{Running: "permissive", Configured: "enforcing", Declared: "enforcing", CommandLine: "permissive"}
	s.Store.CarriedOver = []string{"site"}
	s.NextImage = &stages.ImageCheck{Vendor: "0a1b2c3d4e5f6", LeftOut: []policystore.Quarantined{{Name: "site"}}}
	s.Denials = &stages.DenialCount{Stopped: 2, Reported: 13}
	s.Unconfined = []stages.Unconfined{{Container: "kube-system/kube-proxy", Domain: "spc_t", Why: "a domain that may do everything"}}
	const var_, none = "system_u:object_r:var_lib_t:s0", "system_u:object_r:unlabeled_t:s0"
	s.ForeignLabels = []stages.ForeignLabel{{Path: "/usr/bin", Label: var_, Vendor: none}, {Path: "/usr/bin/tool", Label: var_, Vendor: none}}
	s.Stages[1].Outcome, s.Stages[3].Outcome = stages.Partly, stages.Partly
	s.Volumes = append(s.Volumes, mountwatch.Volume{Rule: "scratch", Mountpoint: "/srv/scratch", State: mountwatch.Refused, Code: "btrfs"},
		mountwatch.Volume{Rule: "backup", State: mountwatch.NotMounted})
	s.Problems = []stages.Problem{
		{Problem: "module bad (priority 500), line 2: Failed to resolve allow statement: (allow bad_t nosuch_t (file (read))): the policy has no type nosuch_t [/etc/selinux-provision/modules/bad.cil]",
			Remedy: "everything else is applied; correct it or remove it from the configuration, then run: selinux-provision apply"},
		{Problem: "the kernel command line has enforcing=0, which beats the declared mode enforcing at every boot",
			Remedy: "remove it from the boot loader's configuration and reboot, or declare the other mode"},
		{Problem: "volume scratch (/srv/scratch): it is on Btrfs, where one context= would hold for every subvolume", Remedy: "use ext4 or xfs"},
	}
	return s
}

// The operator guide shows the status as it is printed.
func TestStatusInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operator-guide.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := paintFor(&strings.Builder{})
	for name, s := range map[string]*stages.Status{"healthy": healthy(), "sick": sick()} {
		var printed strings.Builder
		printStatus(&printed, s, plain)
		if strings.Contains(printed.String(), "\x1b") {
			t.Errorf("%s: there are colours where there is no terminal", name)
		}
		if !strings.Contains(string(guide), "\n# selinux-provision status\n"+printed.String()+"```\n") {
			t.Errorf("docs/operator-guide.md does not show the %s host as it is printed:\n%s", name, printed.String())
		}
	}
}

// With colours the text is the same, and the columns still stand below each other.
func TestStatusInColour(t *testing.T) {
	var plain, coloured strings.Builder
	printStatus(&plain, sick(), paintFor(&plain))
	printStatus(&coloured, sick(), func(colour, text string) string { return "<" + colour + ">" + text + "</>" })
	without := coloured.String()
	for _, colour := range []string{good, bad, busy, dim, ""} {
		without = strings.ReplaceAll(without, "<"+colour+">", "")
	}
	without = strings.ReplaceAll(without, "</>", "")
	if without != plain.String() {
		t.Errorf("got\n%s\nwant\n%s", without, plain.String())
	}
	if !strings.HasPrefix(coloured.String(), "<"+bad+">NOT as declared") {
		t.Errorf("what is wrong does not stand out:\n%s", coloured.String())
	}
}

// The cache of decisions is worth a line where it is declared, or too small.
func TestCacheInStatus(t *testing.T) {
	stats := func(misses uint64) *kernel.CacheStats {
		return &kernel.CacheStats{Lookups: 100_000, Misses: misses, Reclaims: 61234}
	}
	for _, c := range []struct {
		cache stages.CacheStatus
		want  string
	}{
		{stages.CacheStatus{Threshold: 512, Stats: stats(1999), ReclaimsPerSecond: 1000}, ""},
		{stages.CacheStatus{Threshold: 512, Stats: stats(2000), ReclaimsPerSecond: 99}, ""},
		{stages.CacheStatus{Threshold: 512, Stats: stats(2000), ReclaimsPerSecond: 100},
			"cache    512          decisions kept by the kernel (AVC); since the boot 2.00 % of 100000 were not there, and 61234 had to go for others, 100.0 a second; more may help: kernel.avc_cache_threshold\n"},
		{stages.CacheStatus{Threshold: 4096, Declared: 4096, Stats: stats(120), ReclaimsPerSecond: 3.14},
			"cache    4096         decisions kept by the kernel (AVC); since the boot 0.12 % of 100000 were not there, and 61234 had to go for others, 3.1 a second\n"},
		{stages.CacheStatus{Threshold: 4096, Declared: 4096}, "cache    4096         decisions kept by the kernel (AVC)\n"},
		{stages.CacheStatus{Threshold: 4096, Declared: 4096, Stats: &kernel.CacheStats{Lookups: 5, Misses: 50}, ReclaimsPerSecond: 1000}, // 32 bits were full
			"cache    4096         decisions kept by the kernel (AVC); since the boot 0.00 % of 5 were not there, and 0 had to go for others, 1000.0 a second\n"},
	} {
		s := healthy()
		s.Cache = &c.cache
		var out strings.Builder
		printStatus(&out, s, paintFor(&out))
		_, got, _ := strings.Cut(out.String(), "since the boot\n")
		if got != c.want {
			t.Errorf("%+v: got\n%s\nwant\n%s", c.cache, got, c.want)
		}
	}
}

// What is left alone is not worth a line, unless a rule has nothing else.
func TestVolumesToShow(t *testing.T) {
	all := []mountwatch.Volume{{Rule: "a", Mountpoint: "/1", State: mountwatch.LeftAlone}, {Rule: "a", Mountpoint: "/2", State: mountwatch.Labelled},
		{Rule: "b", Mountpoint: "/3", State: mountwatch.LeftAlone, Reason: "it is Docker's"}, {Rule: "b", Mountpoint: "/4", State: mountwatch.LeftAlone}}
	var got []string
	for _, v := range volumesToShow(all) {
		got = append(got, volumeRow(v).more)
	}
	if want := []string{"a /2:  (, 0001-01-01 00:00:00)", "b /3: it is Docker's"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	late := mountwatch.Volume{Rule: "c", Mountpoint: "/5", State: mountwatch.Labelled, Context: "u:r:t:s0", How: "labelled files", Late: true}
	if got, want := volumeRow(late).more, "c /5: u:r:t:s0 (labelled files after its pod had it, 0001-01-01 00:00:00)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/stages"
)

func someReadiness() *stages.Readiness {
	denial := &judge.Finding{ID: "0a1b2c", Group: avc.Group{Domain: "container_t", Target: "etc_t", Class: "file", Count: 3, Permissions: map[string]uint64{"read": 3}}}
	return &stages.Readiness{
		Verdict: stages.NotReady, Covered: 90 * time.Minute, Window: 24 * time.Hour, Boots: 1, Lost: 2,
		Checks: []stages.Check{
			{Name: "window", Verdict: stages.NotEnough, Found: "observed for 1h30m0s of 24h0m0s", Remedy: "wait"},
			{Name: "denials", Verdict: stages.NotReady, Found: "enforcing would stop 3 accesses", Remedy: "look"},
			{Name: "store", Verdict: stages.Ready, Found: "the policy store is as declared"},
		},
		Denials: []*judge.Finding{denial},
		Apart:   []stages.SetApart{{Why: "readiness.accept has it", Finding: denial}},
	}
}

// someStatus has volumes of all kinds, one rule with a name that is hard to write.
func someStatus() *stages.Status {
	const name = "da\"ta\n"
	cache := &stages.CacheStatus{Threshold: 4096, Declared: 4096, Stats: &kernel.CacheStats{Lookups: 10_000, Misses: 300, Reclaims: 200, Entries: 509}}
	return &stages.Status{Mode: stages.ModeStatus{Foreign: &stages.ForeignMode{}}, Cache: cache,
		DomainTrials: []*stages.Trial{{Domain: "other_t", Phase: stages.TrialWatched}, {Domain: "site_t", Phase: stages.TrialFailed}}, Problems: []stages.Problem{{Problem: "a volume is refused"}}, Volumes: []mountwatch.Volume{
			{Rule: name, State: mountwatch.Labelled, Files: &mountwatch.Files{Seen: 12, Set: 10, Already: 2, Millis: 1500}},
			{Rule: name, State: mountwatch.Labelled, Files: &mountwatch.Files{Seen: 3, Set: 2, Failed: 1, Millis: 250}},
			{Rule: "other", State: mountwatch.Refused, Code: "btrfs"},
		}}
}

func TestReadinessInWords(t *testing.T) {
	var out bytes.Buffer
	printReadiness(&out, someReadiness())
	want := `NOT ready to enforce.
  - not ready: enforcing would stop 3 accesses
    look
  - not enough evidence: observed for 1h30m0s of 24h0m0s
    wait
store        the policy store is as declared
set apart    0a1b2c: container_t, read on file of type etc_t, 3 times [readiness.accept has it]
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestDomainReadinessInWords(t *testing.T) {
	some := someReadiness()
	r := &stages.DomainReadiness{Domain: "site_t", Verdict: stages.NotReady, Checks: some.Checks, Apart: some.Apart, Next: "look"}
	var out bytes.Buffer
	printDomainReadiness(&out, r)
	want := `site_t is NOT ready to be enforced.
  - not ready: enforcing would stop 3 accesses
    look
  - not enough evidence: observed for 1h30m0s of 24h0m0s
    wait
store        the policy store is as declared
set apart    0a1b2c: container_t, read on file of type etc_t, 3 times [readiness.accept has it]
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	printDomainReadiness(&out, &stages.DomainReadiness{Domain: "site_t", Verdict: stages.Ready, Checks: some.Checks[2:], Next: "take site_t out"})
	if want := "site_t is ready to be enforced.\nstore        the policy store is as declared\nnext         take site_t out\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestDomainReadinessUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"readiness", "--domain", ""}, `cannot use "" as a domain: give the type of a process`},
		{[]string{"readiness", "--domain", "system_u:system_r:site_t:s0"}, "as a domain: give the type of a process"},
		{[]string{"readiness", "--domain", "site_t", "--report", "-"}, "cannot use --domain with another flag of readiness"},
		{[]string{"readiness", "--domain", "site_t", "--restart"}, "cannot use --domain with another flag of readiness"},
		{[]string{"readiness", "--domain", "site_t", "--metrics", "-"}, "cannot use --domain with another flag of readiness"},
		{[]string{"readiness", "--domain", "site_t", "x.json"}, "cannot read the answers of other hosts for anything but a page"},
	} {
		if got := call(t, c.args...); got.code != exitUsage || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
}

// What is said of Kubernetes stands apart, and nothing is said where there is no kubelet.
func TestSELinuxMountInWords(t *testing.T) {
	r := &stages.Readiness{Verdict: stages.Ready, SELinuxMount: &stages.SELinuxMount{Mounts: stages.MountsBare, Because: "it is v1.36.3", Conflicts: []stages.VolumeConflict{{
		Volume: "pvc-7", Driver: "csi.example.com", Labels: stages.LabelsDiffer, Effect: "they do not start beside each other", Unless: []string{"one", "another"}, Remedy: "give them one level",
		Pods: []stages.VolumePod{{Pod: "default/app", Asked: stages.AskedLevel, Level: "s0:c10,c20"}, {Pod: "default/backup", Asked: stages.AskedNothing}, {Pod: "default/agent", Asked: stages.AskedUnknown}},
	}}}}
	var out bytes.Buffer
	printReadiness(&out, r)
	want := `Ready to enforce.

Kubernetes 1.37, which is no part of the verdict: the kubelet does not mount volumes with their pods' label yet (it is v1.36.3); 1 volume may keep pods of this node from starting where it does
  - volume pvc-7 (csi.example.com): default/app (level s0:c10,c20), default/backup (no SELinux options), default/agent (no label, most likely privileged): their labels differ: they do not start beside each other; unless one, or another
    give them one level
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	r.SELinuxMount.Conflicts = nil
	printReadiness(&out, r)
	if want := "no pod that runs here would be kept from starting by that\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got\n%swant at its end\n%s", &out, want)
	}
}

func TestMetrics(t *testing.T) {
	a := &app{}
	name := filepath.Join(t.TempDir(), "selinux.prom")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.writeMetrics(name, someReadiness(), someStatus()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("node_exporter cannot read it: %v, %v", info.Mode(), err)
	}
	types := map[string]bool{}
	for line := range strings.Lines(string(got)) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "# TYPE "):
			types[fields[2]] = true
		case strings.HasPrefix(line, "# HELP "):
		default: // the label's value may have blanks
			metric, _, _ := strings.Cut(line, "{")
			if metric, _, _ = strings.Cut(metric, " "); !types[metric] {
				t.Errorf("%q has no type before it", line)
			}
		}
	}
	for _, want := range []string{
		`selinux_provision_readiness{verdict="ready"} 0`, `selinux_provision_readiness{verdict="not ready"} 1`, `selinux_provision_readiness_check{check="store"} 1`,
		`selinux_provision_readiness_check{check="window"} 0`, "selinux_provision_evidence_seconds 5400", "selinux_provision_evidence_window_seconds 86400",
		"selinux_provision_evidence_boots 1", "selinux_provision_evidence_lost_records 2", "selinux_provision_denied_accesses 3", "selinux_provision_denied_findings 1",
		"selinux_provision_enforcing 0", "selinux_provision_as_declared 0", "selinux_provision_problems 1",
		"selinux_provision_mode_file_foreign 1", `selinux_provision_domain_permissive_again{domain="site_t"} 1`, `selinux_provision_domain_permissive_again{domain="other_t"} 0`, "selinux_provision_avc_cache_threshold 4096", "selinux_provision_avc_cache_entries 509", "selinux_provision_avc_cache_lookups_total 10000",
		"selinux_provision_avc_cache_misses_total 300", "selinux_provision_avc_cache_reclaims_total 200", "# TYPE selinux_provision_avc_cache_reclaims_total counter",
		`selinux_provision_volumes{state="labelled"} 2`, `selinux_provision_volumes{state="refused"} 1`, `selinux_provision_volumes{state="left alone"} 0`,
		`selinux_provision_volumes_refused{code="btrfs"} 1`, `selinux_provision_volume_relabel_seconds{volume="da\"ta\\n"} 1.75`,
		`selinux_provision_volume_relabel_files{volume="da\"ta\\n",result="set"} 12`, `selinux_provision_volume_relabel_files{volume="da\"ta\\n",result="failed"} 1`,
	} {
		if !strings.Contains(string(got), want+"\n") {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if err := a.writeMetrics(filepath.Join(t.TempDir(), "none", "x.prom"), someReadiness(), someStatus()); err == nil || !strings.Contains(err.Error(), "make the directory") {
		t.Error(err)
	}
}

// A real node_exporter serves the metrics as they are, promtool finds nothing against them, and they go when the file does.
func TestMetricsAreServed(t *testing.T) {
	for _, program := range []string{"prometheus-node-exporter", "promtool"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("cannot do without %s: make install-prerequisites installs it", program)
			}
			t.Skipf("cannot do without %s: make install-prerequisites installs it", program)
		}
	}
	dir := t.TempDir()
	if err := (&app{}).writeMetrics(filepath.Join(dir, "selinux.prom"), someReadiness(), someStatus()); err != nil {
		t.Fatal(err)
	}
	exporter := exec.CommandContext(t.Context(), "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory="+dir, "--web.listen-address=127.0.0.1:0")
	log, err := exporter.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := exporter.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exporter.Process.Kill(); _ = exporter.Wait() })
	listens := regexp.MustCompile(`Listening on"? address=(\S+)`)
	var address string
	lines := bufio.NewScanner(log)
	for address == "" && lines.Scan() {
		if m := listens.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	if address == "" {
		t.Fatalf("node_exporter does not say where it listens: %v", lines.Err())
	}
	serve := func() string {
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response.Status, err)
		}
		var own strings.Builder
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "selinux_provision_") || strings.Contains(line, "node_textfile_scrape_error") {
				own.WriteString(line)
			}
		}
		return own.String()
	}
	served := serve()
	for _, want := range []string{
		"node_textfile_scrape_error 0", `selinux_provision_readiness{verdict="not ready"} 1`, `selinux_provision_volume_relabel_seconds{volume="da\"ta\\n"} 1.75`,
		"# TYPE selinux_provision_avc_cache_reclaims_total counter", "# HELP selinux_provision_volumes Volumes that are declared, by what became of them.",
	} {
		if !strings.Contains(served, want+"\n") {
			t.Errorf("%q is not in what is served:\n%s", want, served)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(served)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "selinux.prom")); err != nil {
		t.Fatal(err)
	}
	if served := serve(); strings.Contains(served, "selinux_provision_") {
		t.Errorf("without the file it still serves\n%s", served)
	}
}

// The dashboard and the alerts name metrics that there are, and each metric is in one of them.
func TestMetricsAreShown(t *testing.T) {
	var b strings.Builder
	metricsText(&b, someReadiness(), someStatus(), time.Now())
	exported := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (?:gauge|counter)$`).FindAllStringSubmatch(b.String(), -1) {
		exported[m[1]] = false
	}
	for _, name := range []string{"grafana.json", "alerts.yaml", "alerts_test.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../packaging/monitoring", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bselinux_provision_[a-z_]+`).FindAllString(string(text), -1) {
			if _, there := exported[m]; !there {
				t.Errorf("%s: nothing exports %s", name, m)
			}
			exported[m] = true
		}
	}
	for name, shown := range exported {
		if !shown {
			t.Errorf("neither the dashboard nor an alert has %s", name)
		}
	}
}

// A tree cannot be ready: nothing runs in it.
func TestReadinessOfATree(t *testing.T) {
	tree := flatcartest.New(t, flatcartest.Today)
	got := call(t, "--root", tree.Dir, "readiness")
	if got.code != exitNotApplicable || !strings.Contains(got.stderr, "not applicable here: only a host that runs can be observed") {
		t.Errorf("%+v", got)
	}
	if got := call(t, "--root", tree.Dir, "--json", "readiness"); got.code != exitNotApplicable {
		t.Errorf("%+v", got)
	} else {
		got.object(t)
	}
	if got := call(t, "readiness", "--sample", "--restart"); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
	if got := call(t, "guard", "watch", "now"); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
}

// What hosts answered becomes one page.
func TestReportOfAFleet(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good.json", `{"command":"readiness","exit":0,"node":"n1","verdict":"ready"}`), file("bad.json", `{"command":"readiness","exit":3,"verdict":"not ready","checks":[]}`)
	page := filepath.Join(dir, "page.html")
	if got := call(t, "readiness", "--report", page, good); got.code != exitDone || got.stdout != "ready                n1\n" {
		t.Errorf("%+v", got)
	}
	if got := call(t, "readiness", "--report", page, good, bad); got.code != exitPartly || got.stdout != "ready                n1\nnot ready            bad\n" {
		t.Errorf("%+v", got)
	}
	if content, err := os.ReadFile(page); err != nil || !strings.HasPrefix(string(content), "<!DOCTYPE html>") || !strings.Contains(string(content), "1 of 2 hosts are ready to enforce") {
		t.Errorf("%v\n%s", err, content)
	}
	if got := call(t, "readiness", "--report", "-", good); got.code != exitDone || !strings.HasPrefix(got.stdout, "<!DOCTYPE html>") || !strings.HasSuffix(got.stdout, "</html>\n") {
		t.Errorf("%+v", got)
	}
	if got := call(t, "--json", "readiness", "--report", page, bad); got.code != exitPartly {
		t.Errorf("%+v", got)
	} else if got.object(t); !strings.Contains(got.stdout, `"node": "bad"`) {
		t.Errorf("%s", got.stdout)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no page":            {[]string{"readiness", good}, exitUsage, "give --report PAGE too"},
		"both at once":       {[]string{"readiness", "--report", page, "--metrics", "-", good}, exitUsage, "at once"},
		"a sample":           {[]string{"readiness", "--report", page, "--sample"}, exitUsage, "at once"},
		"no file":            {[]string{"readiness", "--report", page, filepath.Join(dir, "none")}, exitFailed, "no such file"},
		"something else":     {[]string{"readiness", "--report", page, file("status.json", `{"command":"status"}`)}, exitFailed, "is not what selinux-provision readiness --json prints"},
		"no directory":       {[]string{"readiness", "--report", filepath.Join(dir, "none", "page.html"), good}, exitFailed, "make the directory"},
		"of this, a tree":    {[]string{"--root", flatcartest.New(t, flatcartest.Today).Dir, "readiness", "--report", page}, exitNotApplicable, "only a host that runs"},
		"two answers in one": {[]string{"readiness", "--report", page, file("two.json", `{"verdict":"ready"}{"verdict":"ready"}`)}, exitFailed, "after top-level value"},
	} {
		if got := call(t, c.args...); got.code != c.code || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

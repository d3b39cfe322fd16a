package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

const (
	denialOf  = "type=AVC msg=audit(1700000000.%MS:%N): avc:  denied  { read } for  pid=7 comm=\"cat\" path=\"/logs/%N.log\" dev=\"vda\" ino=9 scontext=system_u:system_r:container_t:s0:c1,c2 "
	logDenial = denialOf + "tcontext=system_u:object_r:container_log_t:s0 tclass=lnk_file permissive=0\n"
	nfsDenial = denialOf + "tcontext=system_u:object_r:nfs_t:s0 tclass=file permissive=1\n"
)

func numbered(form, serial string) string {
	return strings.ReplaceAll(strings.ReplaceAll(form, "%MS", ("00" + serial)[len(serial)-1:]), "%N", serial)
}

// denialTree is a host with the policy of package policytest, and an audit log.
func denialTree(t *testing.T, log string) *flatcartest.Tree {
	t.Helper()
	tree := flatcartest.New(t, flatcartest.Today)
	policytest.AddTo(t, tree, nil)
	tree.Write("var/log/audit/audit.log.1", numbered(logDenial, "1")+numbered(logDenial, "2"))
	tree.Write("var/log/audit/audit.log", log)
	return tree
}

type denialReply struct {
	Command, Error, CIL string
	Exit                *int
	Sources             []string
	Dontaudits          *int
	Stats               struct{ Denials, Duplicates, Missing uint64 }
	Findings            []struct {
		ID, Domain, Target, Class string
		Count                     uint64
		PathCount                 int `json:"path_count"`
		Fix                       struct{ Kind string }
	}
	HeldBack []struct{ Danger string } `json:"held_back"`
	Notes    []string
	Access   []struct{ Class string }
	Types    []string
}

func (a answer) denials(t *testing.T) (r denialReply) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.stdout), &r); err != nil || r.Exit == nil || *r.Exit != a.code || a.stderr != "" {
		t.Fatalf("%v, exit code %d\n%s%s", err, a.code, a.stdout, a.stderr)
	}
	return r
}

func TestDenials(t *testing.T) {
	tree := denialTree(t, numbered(logDenial, "3")+numbered(nfsDenial, "4")+numbered(nfsDenial, "7"))
	got := call(t, "--root", tree.Dir, "denials")
	if got.code != exitDone || got.stderr != "" {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	reads(t, "denials", got.stdout, "5 denials in /var/log/audit/audit.log.1 and /var/log/audit/audit.log: 3 stopped something, 2 only reported.",
		"lnk_file read  container_log_t /logs/1.log and 2 more (vda)", "role: the role log-reader allows this", "roles: [log-reader]", "label=type:container_log_reader_t",
		"booleans: {container_use_nfs: true}", "! 2 dontaudit rules of the policy hide denials", "! 2 audit events between the first and the last are missing")

	r := call(t, "--root", tree.Dir, "--json", "denials").denials(t)
	if len(r.Findings) != 2 || r.Findings[0].Count != 3 || r.Findings[0].PathCount != 3 || r.Findings[0].Fix.Kind != "role" || r.Findings[1].Fix.Kind != "boolean" ||
		r.Dontaudits == nil || *r.Dontaudits != 2 || r.Stats.Denials != 5 || r.Stats.Missing != 2 {
		t.Errorf("got %+v", r)
	}

	one := call(t, "--root", tree.Dir, "--json", "denials", "--only", r.Findings[1].ID).denials(t)
	if len(one.Findings) != 1 || one.Findings[0].Target != "nfs_t" {
		t.Errorf("--only: got %+v", one.Findings)
	}
	if got := call(t, "--root", tree.Dir, "denials", "--since", "2023-11-15"); got.code != exitDone || !strings.HasPrefix(got.stdout, "No denials in ") {
		t.Errorf("--since: %+v", got)
	}
	for _, args := range [][]string{{"--source", "sshd_t"}, {"--container", "web"}, {"--unit", "x"}} {
		if got := call(t, append([]string{"--root", tree.Dir, "--json", "denials"}, args...)...).denials(t); len(got.Findings) != 0 {
			t.Errorf("%v: got %+v", args, got.Findings)
		}
	}
}

// An empty answer says whether it proves anything.
func TestNoDenials(t *testing.T) {
	tree := denialTree(t, "")
	if err := os.Remove(filepath.Join(tree.Dir, "var/log/audit/audit.log.1")); err != nil {
		t.Fatal(err)
	}
	got := call(t, "--root", tree.Dir, "denials")
	reads(t, "no denials", got.stdout, "No denials in /var/log/audit/audit.log.\n", "2 dontaudit rules of the policy hide denials", "audit: {dontaudit: strip}")
	if got.code != exitDone {
		t.Errorf("exit code %d", got.code)
	}
	if err := os.RemoveAll(filepath.Join(tree.Dir, "var/log/audit")); err != nil {
		t.Fatal(err)
	}
	got = call(t, "--root", tree.Dir, "denials")
	if got.code != exitFailed {
		t.Errorf("exit code %d", got.code)
	}
	reads(t, "nothing to read", got.stderr, "cannot read denials: there is neither a journal nor an audit log: give a file with --input")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got = call(t, "--root", tree.Dir, "denials", "--input", empty)
	reads(t, "another file", got.stdout, "No denials in "+empty, "has no audit record in it: give audit.log")
}

// The text is policy that builds, the same each time, and what is to be done with it is said beside it.
func TestDenialsModule(t *testing.T) {
	shadow := strings.ReplaceAll(strings.ReplaceAll(logDenial, "container_log_t", "shadow_t"), "lnk_file", "file")
	tree := denialTree(t, numbered(nfsDenial, "4")+numbered(shadow, "5"))
	args := []string{"--root", tree.Dir, "denials", "--module", "kube_logreader"}
	got := call(t, args...)
	if got.code != exitPartly {
		t.Errorf("exit code %d", got.code)
	}
	reads(t, "CIL", got.stdout, "(type kube_logreader_t)\n", "(allow kube_logreader_t container_log_t (lnk_file (read)))\n", "; shadow (password hashes): read on shadow_t")
	reads(t, "what to do", got.stderr, "Put this file at /etc/selinux-provision/modules/kube_logreader.cil", "--security-opt label=type:kube_logreader_t",
		"! held back, as it is dangerous: read on shadow_t, class file (password hashes). To put it in: --allow-dangerous shadow", "left out: ", "boolean helps: ")
	if again := call(t, args...); again != got {
		t.Error("a second run says something else")
	}
	// The shell makes the file before the program runs, and it says nothing.
	tree.Write("etc/selinux-provision/modules/container.cil", "")
	tree.Write("etc/selinux-provision/modules/kube_logreader.cil", "")
	for name, want := range map[string]string{
		"container":  "cannot make the domain container_t: the policy has it already: choose another name",
		"containers": "the policy has another module of that name (priority 400), and this one would take its place",
	} {
		if got := call(t, "--root", tree.Dir, "denials", "--module", name); got.code != exitUsage || !strings.Contains(got.stderr, want) || got.stdout != "" {
			t.Errorf("--module %s: %+v", name, got)
		}
	}
	tree.Semodule(tree.Dir, 500, map[string]string{"kube_logreader": got.stdout})
	if got := call(t, args...); got.code != exitPartly || !strings.Contains(got.stdout, "(allow kube_logreader_t container_log_t (lnk_file (read)))\n") {
		t.Errorf("made again: %+v", got)
	}
	beyond := call(t, "--root", tree.Dir, "denials", "--may", "kube_logreader_t", "--beyond", "container_t")
	if beyond.stdout != "container_log_t lnk_file: read\n" {
		t.Errorf("beyond container_t it may %q", beyond.stdout)
	}

	all := call(t, append([]string{"--json"}, append(args, "--allow-dangerous", "shadow")...)...)
	if r := all.denials(t); all.code != exitDone || !strings.Contains(r.CIL, "shadow_t (file (read))") {
		t.Errorf("named: %+v", all)
	}
	existing := call(t, append(args, "--domain", "container_t")...)
	reads(t, "an existing domain", existing.stderr, "! Every process in container_t gets these rules")
	reads(t, "an existing domain", existing.stdout, "(allow container_t container_log_t (lnk_file (read)))")

	none := call(t, "--root", tree.Dir, "denials", "--module", "other", "--source", "spc_t")
	if none.code != exitFailed {
		t.Errorf("exit code %d", none.code)
	}
	reads(t, "no denials", none.stderr, "cannot make a module: there are no such denials, but 4 that these flags leave out")
}

func TestPolicyQuestions(t *testing.T) {
	file := policytest.Build(t, nil)
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"--may", "container_t", "--on", "nfs_t"}, exitDone, []string{"chr_file: ioctl\n", "file: getattr open read  if container_use_nfs (it is not so now)\n"}},
		{[]string{"--may", "container_t", "--on", "shadow_t"}, exitDone, []string{"container_t may do nothing to shadow_t, whatever the booleans say.\n"}},
		{[]string{"--types", "container_domain"}, exitDone, []string{"container_domain is an attribute of 3 types:\n  container_reader_t\n"}},
		{[]string{"--types", "container_t"}, exitDone, []string{"container_t is a type (also called svirt_lxc_net_t) with 2 attributes:\n"}},
		{[]string{"--types", "contaner_t"}, exitUsage, []string{"did you mean container_t?"}},
		{[]string{"--may", "x_t", "--on", "nfs_t"}, exitUsage, []string{`no domain "x_t"`}},
		{[]string{"--may", "container_t"}, exitUsage, []string{"name a type with --on"}},
		{[]string{"--on", "nfs_t"}, exitUsage, []string{"name the domain with --may"}},
		{[]string{"--domain", "x_t"}, exitUsage, []string{"without --module"}},
		{[]string{"--module", "x", "--allow-dangerous", "shadows"}, exitUsage, []string{"cannot use --allow-dangerous shadows: the names are all, audit, "}},
		{[]string{"--module", "Bad-Name"}, exitUsage, []string{"cannot name a module"}},
		{[]string{"--since", "soon"}, exitUsage, []string{"cannot use --since soon: write 2h"}},
		{[]string{"--input", "/no/such/file"}, exitUsage, []string{"cannot use --input: open /no/such/file"}},
		{[]string{"--input", "/dev/null", "--only", "abcdef"}, exitUsage, []string{"there is no finding abcdef"}},
	} {
		got := call(t, append([]string{"denials", "--policy", file}, c.args...)...)
		if got.code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, got.code, c.code)
		}
		reads(t, strings.Join(c.args, " "), got.stdout+got.stderr, c.want...)
	}
	if got := call(t, "denials", "--policy", "/etc/passwd", "--types", "x"); got.code != exitUsage || !strings.Contains(got.stderr, "it is no binary policy") {
		t.Errorf("no policy: %+v", got)
	}
	r := call(t, "--json", "denials", "--policy", file, "--may", "container_t", "--on", "nfs_t").denials(t)
	if len(r.Access) != 2 {
		t.Errorf("got %+v", r)
	}
}

// Nothing from a record reaches the terminal as it is.
func TestPrintable(t *testing.T) {
	var out bytes.Buffer
	hostile := strings.ReplaceAll(numbered(nfsDenial, "1"), `path="/logs/1.log"`, "path=2F1B5B324A0A78")
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(hostile), 0o644); err != nil {
		t.Fatal(err)
	}
	out.WriteString(call(t, "denials", "-v", "--input", file).stdout)
	if strings.ContainsRune(out.String(), '\x1b') || !strings.Contains(out.String(), `/\x1b[2J\nx`) {
		t.Errorf("printed: %q", out.String())
	}
}

// Nor as JSON, from which a program gets what was in the record.
func TestPrintableJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	hostile := strings.ReplaceAll(numbered(nfsDenial, "1"), `path="/logs/1.log"`, "path=2F7F61E280AE1B5B324A") // / DEL a, an override of direction, ESC [2J
	if err := os.WriteFile(file, []byte(hostile), 0o644); err != nil {
		t.Fatal(err)
	}
	got := call(t, "--json", "denials", "--input", file)
	if strings.ContainsFunc(got.stdout, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("printed: %q", got.stdout)
	}
	var r struct{ Findings []struct{ Path string } }
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || len(r.Findings) != 1 || r.Findings[0].Path != "/\x7fa\u202e\x1b[2J" {
		t.Errorf("%v: %+v", err, r)
	}
}

// A record with made-up names gets no further than a line that says so.
func TestHostileDenials(t *testing.T) {
	hostile := numbered(strings.Replace(nfsDenial, ":nfs_t:", ":\x1b[2Jt)(allow:", 1), "4") +
		numbered(strings.Replace(strings.Replace(logDenial, "type=AVC", "type=USER_AVC", 1), "): avc:", "): pid=9 subj=system_u:system_r:container_t:s0:c1,c2 msg='avc:", 1), "5")
	tree := denialTree(t, hostile)
	if err := os.Remove(filepath.Join(tree.Dir, "var/log/audit/audit.log.1")); err != nil {
		t.Fatal(err)
	}
	got := call(t, "--root", tree.Dir, "denials", "--module", "mine")
	if got.code != exitFailed || got.stdout != "" || strings.ContainsRune(got.stderr, '\x1b') {
		t.Errorf("%+v", got)
	}
	reads(t, "what is left out", got.stderr, "the policy has no type", "a program says so and not the kernel")
	if list := call(t, "--root", tree.Dir, "denials", "-v"); list.code != exitDone || strings.ContainsRune(list.stdout, '\x1b') {
		t.Errorf("%+v", list)
	}
}

// A module is written where it is to be used, and nothing is left behind where that fails.
func TestWriteModule(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{"a/b/x.cil": "a/b/x.cil", "modules": "modules/site.cil", "modules/": "modules/site.cil", ".": "site.cil", "file/x.cil": "", "file": ""} {
		err := writeModule(filepath.Join(dir, to), "site", "(type site_t)\n")
		content, _ := os.ReadFile(filepath.Join(dir, want))
		if (err == nil) != (want != "") || want != "" && string(content) != "(type site_t)\n" {
			t.Errorf("%s: %v, %q", to, err, content)
		}
	}
	// A directory stands in the place of the file: what was made on the way there is gone.
	if err := os.Mkdir(filepath.Join(dir, "x.cil"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeModule(filepath.Join(dir, "x.cil"), "site", "(type site_t)\n"); err == nil {
		t.Error("a directory was replaced")
	}
	if err := writeModule(filepath.Join(dir, "new/"+strings.Repeat("n", 300)+".cil"), "site", "(type site_t)\n"); err == nil {
		t.Error("a name that is too long was written")
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !os.IsNotExist(err) {
		t.Errorf("the directory is left behind: %v", err)
	}
	for args, want := range map[string]string{"--output x.cil": "without --module", "--module site --output site.pp": "call it site.cil"} {
		got := call(t, append([]string{"denials"}, strings.Fields(args)...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.String()
}

// A log is read in the forms in which people have it; what is not read is named, with what to do.
func TestFormsOfLogs(t *testing.T) {
	record := numbered(nfsDenial, "4")
	packed := gzipped(t, record)
	for name, c := range map[string]struct {
		content string
		code    int
		want    string
	}{
		"audit.log":    {record, exitDone, "1 denial in "},
		"marked.log":   {"\xef\xbb\xbf" + record, exitDone, "1 denial in "},
		"audit.log.gz": {packed, exitDone, "1 denial in "},
		"short.gz":     {packed[:40], exitFailed, "cannot read records: it is compressed, and damaged: unexpected EOF ["},
		"power.log":    {"\xff\xfet\x00y\x00p\x00", exitUsage, "cannot read records: its characters are UTF-16: save it as UTF-8 ["},
		"audit.log.xz": {"\xfd7zXZ\x00\x00", exitUsage, "cannot read records: it is compressed with xz: unpack it: xz -dc ["},
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := call(t, "denials", "--input", file)
		if got.code != c.code || !strings.Contains(got.stdout+got.stderr, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// The page for somebody with a denial begins with lines that this program reads as they stand there, also all at once.
func TestDenialPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/denial.md")
	if err != nil {
		t.Fatal(err)
	}
	nobody := t.TempDir() // a host without a policy: this one may have another than the records are of
	var all strings.Builder
	records := regexp.MustCompile("(?s)\n```text\n(.*?)\n```\n").FindAllStringSubmatch(string(page), -1)
	for _, record := range records {
		all.WriteString(record[1] + "\n")
		file := filepath.Join(t.TempDir(), "pasted")
		if err := os.WriteFile(file, []byte(record[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := call(t, "--root", nobody, "denials", "--input", file); got.code != exitDone || !strings.HasPrefix(got.stdout, "1 denial in ") {
			t.Errorf("%s: %+v", record[1], got)
		}
	}
	file := filepath.Join(t.TempDir(), "pasted")
	if err := os.WriteFile(file, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := call(t, "--root", nobody, "denials", "--input", file); len(records) != 3 || !strings.HasPrefix(got.stdout, "3 denials in ") || !strings.Contains(got.stdout, "categories: ") {
		t.Errorf("%d records: %+v", len(records), got)
	}
}

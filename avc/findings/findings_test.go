package findings_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/avc/propose"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

const record = `type=AVC msg=audit(1700000000.001:5): avc:  denied  { read } for  pid=7 comm="cat" path="/nfs/x" dev="nfs" ino=9 ` +
	"scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:nfs_t:s0 tclass=file permissive=1\n"

func tree(t *testing.T) (*flatcartest.Tree, *findings.Host) {
	t.Helper()
	tree := flatcartest.New(t, flatcartest.Today)
	policytest.AddTo(t, tree, nil)
	tree.Write("var/log/audit/audit.log", record)
	root, err := hostfs.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return tree, &findings.Host{Host: collect.Host{Root: root}}
}

func TestGather(t *testing.T) {
	_, h := tree(t)
	r, err := h.Gather(t.Context(), findings.Query{})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Fix.Kind != judge.Boolean || r.Dontaudits == nil || r.PolicyError != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	id := r.Findings[0].ID
	for _, c := range []struct {
		only findings.Selection
		want int
	}{
		{findings.Selection{}, 1}, {findings.Selection{Domain: "container_t"}, 1}, {findings.Selection{Domain: "kernel_t"}, 0}, {findings.Selection{IDs: []string{id}}, 1},
		{findings.Selection{Container: "web"}, 0}, {findings.Selection{Unit: "docker"}, 0},
	} {
		r, err := h.Gather(t.Context(), findings.Query{Only: c.only})
		if err != nil || len(r.Findings) != c.want || r.Others != uint64(1-c.want) {
			t.Errorf("%+v: %d, and %d others, %v", c.only, len(r.Findings), r.Others, err)
		}
	}
	var missing *findings.MissingError
	if _, err := h.Gather(t.Context(), findings.Query{Only: findings.Selection{IDs: []string{id, "abcdef"}}}); !errors.As(err, &missing) || missing.ID != "abcdef" {
		t.Errorf("an ID that nothing has: %v", err)
	}
	r, err = h.Gather(t.Context(), findings.Query{Input: strings.NewReader("hello\n"), InputName: "a file"})
	if err != nil || len(r.Findings) != 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "a file has no audit record in it") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A record that does not say when it was is shown although only what is newer was asked for, and that is said.
func TestUndated(t *testing.T) {
	_, h := tree(t)
	_, text, _ := strings.Cut(record, "): ")
	for name, c := range map[string]struct {
		text, since string
		denials     int
		said        bool
	}{
		"no time":              {"Nov 14 22:13:20 host audit[7]: AVC " + text, "2026-01-02", 1, true},
		"no time, all of them": {"Nov 14 22:13:20 host audit[7]: AVC " + text, "", 1, false},
		"its own time":         {"2023-11-14T22:13:20+00:00 host audit[7]: AVC " + text, "2026-01-02", 0, false},
		"the kernel's":         {"Nov 14 22:13:20 host audit[7]: AVC " + text + "kernel: audit: type=1400 audit(1700000000.001:5): " + text, "2026-01-02", 0, false},
	} {
		since, _ := time.Parse(time.DateOnly, c.since)
		r, err := h.Gather(t.Context(), findings.Query{Input: strings.NewReader(c.text), InputName: "a file", Since: since})
		if err != nil || len(r.Findings) != c.denials || strings.Contains(strings.Join(r.Notes, "\n"), "of 1 denials no record says when they were") != c.said {
			t.Errorf("%s: %d findings, %q, %v", name, len(r.Findings), r.Notes, err)
		}
	}
}

// A policy that this program cannot read makes the answer poorer, and no question fails for it but one about the policy.
func TestPolicyOfANewerSystem(t *testing.T) {
	built, h := tree(t)
	file := policytest.File(t, built)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Clone(content)
	newer[16] = 99
	for _, c := range []struct {
		name       string
		content    []byte // nil: there is none
		unreadable bool
	}{{"newer", newer, true}, {"damaged", content[:100], true}, {"gone", nil, false}} {
		err := os.WriteFile(file, c.content, 0o644)
		if c.content == nil {
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := h.Gather(t.Context(), findings.Query{})
		if err != nil || len(r.Findings) != 1 || r.PolicyError == nil || findings.Unreadable(r.PolicyError) != c.unreadable || r.Dontaudits != nil || len(r.Notes) != 1 ||
			!strings.HasPrefix(r.Notes[0], "booleans, domains and dontaudit rules are not known: cannot read the policy: ") {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
}

// Who is meant is told by a whole name, or by as much of an ID as nobody takes for a name.
func TestSelects(t *testing.T) {
	f := &judge.Finding{ID: "0a1b2c", Group: avc.Group{Domain: "container_t", Subject: avc.Subject{Container: "web", ID: "0123456789abcdef", Unit: "docker.service"}}}
	for _, c := range []struct {
		only findings.Selection
		want bool
	}{
		{findings.Selection{}, true},
		{findings.Selection{Container: "web"}, true}, {findings.Selection{Container: "we"}, false},
		{findings.Selection{Container: "01234"}, false}, {findings.Selection{Container: "012345"}, true}, {findings.Selection{Container: "123456"}, false},
		{findings.Selection{Unit: "docker"}, true}, {findings.Selection{Unit: "docker.service"}, true}, {findings.Selection{Unit: "dock"}, false},
		{findings.Selection{Domain: "container_t"}, true}, {findings.Selection{Domain: "spc_t"}, false},
		{findings.Selection{IDs: []string{"x", "0a1b2c"}}, true}, {findings.Selection{IDs: []string{"x"}}, false},
		{findings.Selection{Container: "web", Domain: "spc_t"}, false},
	} {
		if got := c.only.Selects(f); got != c.want {
			t.Errorf("%+v: %t", c.only, got)
		}
	}
}

// A denial that is judged after its container's end has the ID and the fix that it had before, and the container's name.
func TestFindingsOfAContainerThatIsGone(t *testing.T) {
	tree, h := tree(t)
	id := strings.Repeat("1", 64)
	const label = "system_u:system_r:container_t:s0:c1,c2"
	config := "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json"
	tree.Write(config, `{"process":{"selinuxLabel":"`+label+`"},"mounts":[{"type":"bind","source":"/srv/data","destination":"/data"}],
"annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.container-name":"main","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"default"}}`)
	tree.Write("var/log/audit/audit.log", strings.NewReplacer("{ read }", "{ write }", "/nfs/x", "/data/x", "nfs_t", "var_t", "1700000000", strconv.FormatInt(time.Now().Unix(), 10)).Replace(record))
	judged := func() *judge.Finding {
		t.Helper()
		r, err := h.Gather(t.Context(), findings.Query{})
		if err != nil || len(r.Findings) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Findings[0]
	}
	tree.Write("var/lib/selinux-provision/state.json", "{}")
	before := judged()
	if err := h.Remember(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(tree.Dir, config)); err != nil {
		t.Fatal(err)
	}
	after := judged()
	if before.Subject.Name() != "default/web/main" || before.Paths[0].Host != "/srv/data/x" {
		t.Errorf("before: %+v", before)
	}
	if after.ID != before.ID || after.Subject != before.Subject || !reflect.DeepEqual(after.Fix, before.Fix) || !slices.Equal(after.Paths, before.Paths) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// A container of a pod is meant by every name under which it is shown, a static pod by that of its manifest too; another pod of the node by none of them.
func TestSelectsPods(t *testing.T) {
	who := avc.Subject{Container: "main", Pod: "default/web-node1", Manifest: "default/web", ID: "0123456789abcdef"}
	f := &judge.Finding{Group: avc.Group{Subject: who}}
	for _, c := range []struct {
		only findings.Selection
		want bool
	}{
		{findings.Selection{Pod: "default/web-node1"}, true}, {findings.Selection{Pod: "web-node1"}, true}, {findings.Selection{Pod: "default/web"}, true}, {findings.Selection{Pod: "web"}, true},
		{findings.Selection{Pod: "main"}, false}, {findings.Selection{Pod: "default"}, false}, {findings.Selection{Pod: "web-node"}, false}, {findings.Selection{Pod: "default/web/main"}, false},
		{findings.Selection{Container: "main"}, true}, {findings.Selection{Container: "default/web-node1/main"}, true}, {findings.Selection{Container: "default/web/main"}, true},
		{findings.Selection{Container: "default/web"}, true}, {findings.Selection{Container: "web"}, false}, {findings.Selection{Container: "default/db"}, false},
		{findings.Selection{Namespace: "default"}, true}, {findings.Selection{Namespace: "web"}, false},
	} {
		if got := c.only.Selects(f); got != c.want {
			t.Errorf("%+v: %t", c.only, got)
		}
	}
	if (&findings.Selection{Pod: "web"}).Selects(&judge.Finding{Group: avc.Group{Subject: avc.Subject{Container: "web"}}}) {
		t.Error("a container is no pod")
	}
}

func TestModule(t *testing.T) {
	built, h := tree(t)
	r, err := h.Gather(t.Context(), findings.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := h.Module(r, findings.ModuleQuery{Name: "site", Priority: 500}); !errors.Is(err, propose.ErrNothing) || len(m.LeftOut) != 1 {
		t.Errorf("a boolean helps: %+v, %v", m, err)
	}
	m, err := h.Module(r, findings.ModuleQuery{Name: "site", Named: []string{r.Findings[0].ID}, Priority: 500})
	if err != nil || !strings.Contains(m.CIL, "(allow site_t nfs_t (file (read)))") {
		t.Errorf("chosen: %+v, %v", m, err)
	}
	// What the modules of the host forbid ever to allow is left out; of another host's policy that is not known.
	built.Semodule(built.Dir, 400, map[string]string{"site": "(type other_t)(roletype object_r other_t)(neverallow container_domain nfs_t (file (read)))"})
	named := findings.ModuleQuery{Name: "web", Named: []string{r.Findings[0].ID}, Priority: 500}
	if m, err := h.Module(r, named); !errors.Is(err, propose.ErrNothing) || len(m.LeftOut) != 1 || !strings.Contains(m.LeftOut[0].Reason, "(neverallow container_domain nfs_t (file (read)))") {
		t.Errorf("a neverallow rule: %+v, %v", m, err)
	}
	foreign, err := h.Gather(t.Context(), findings.Query{Policy: r.Policy})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Module(foreign, named); err != nil {
		t.Errorf("another host's policy: %v", err)
	}
	if _, err := h.Module(r, findings.ModuleQuery{Name: "site", Priority: 500}); err == nil || !strings.Contains(err.Error(), "another module of that name (priority 400)") {
		t.Errorf("a name that is taken: %v", err)
	}
	r.ProcessContext = ""
	if _, err := h.Module(r, findings.ModuleQuery{Name: "free", Priority: 500}); err == nil || !strings.Contains(err.Error(), "cannot tell the domain of containers") {
		t.Errorf("no lxc_contexts: %v", err)
	}
}

// What the next boot runs has the type that the file contexts give it, or the usual one.
func TestNextBoot(t *testing.T) {
	for contexts, want := range map[string]string{"": "var_lib_t", "/var/lib/extensions(/.*)?\tsystem_u:object_r:tmpfs_t:s0\n": "tmpfs_t"} {
		built, h := tree(t)
		built.Write("etc/selinux/mcs/contexts/files/file_contexts", contexts)
		built.Write("var/log/audit/audit.log", strings.NewReplacer("{ read }", "{ write }", "nfs_t", "tmpfs_t").Replace(record))
		r, err := h.Gather(t.Context(), findings.Query{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := h.Module(r, findings.ModuleQuery{Name: "web", Named: []string{r.Findings[0].ID}, Priority: 500, State: "/var/lib/selinux-provision"})
		if held := m != nil && len(m.HeldBack) == 1 && m.HeldBack[0].Danger == "next-boot"; held != (want == "tmpfs_t") || held == (err == nil) {
			t.Errorf("%q: %+v, %v", contexts, m, err)
		}
	}
}

// A log of another host is judged with the names that policies use, where this one does not tell its own; an alias is the type.
func TestOtherHost(t *testing.T) {
	tree, h := tree(t)
	if err := os.Remove(filepath.Join(tree.Dir, "etc/selinux/mcs/contexts/lxc_contexts")); err != nil {
		t.Fatal(err)
	}
	log := strings.Replace(record, "container_t", "svirt_lxc_net_t", 1)
	r, err := h.Gather(t.Context(), findings.Query{Input: strings.NewReader(log), InputName: "a log"})
	if err != nil || len(r.Findings) != 1 || r.ProcessContext != "system_u:system_r:container_t:s0" {
		t.Fatalf("%+v, %v", r, err)
	}
	m, err := h.Module(r, findings.ModuleQuery{Name: "site", Named: []string{r.Findings[0].ID}, Priority: 500})
	if err != nil || !strings.Contains(m.CIL, "(allow site_t nfs_t (file (read)))") {
		t.Errorf("%+v, %v", m, err)
	}
}

// The reader of a policy says of what it refuses that the policy is the reason.
func TestUnreadable(t *testing.T) {
	if _, err := policydb.Parse(strings.NewReader("no policy")); !findings.Unreadable(err) {
		t.Errorf("%v", err)
	}
	if findings.Unreadable(os.ErrNotExist) || findings.Unreadable(nil) {
		t.Error("a file that is missing is no policy that cannot be read")
	}
}

// An old name of the containers' type, in a record, in a copied lxc_contexts or on the command line, is that type.
func TestAliasOfTheContainersType(t *testing.T) {
	tree, h := tree(t)
	tree.Write("etc/selinux/mcs/contexts/lxc_contexts", "process = \"system_u:system_r:svirt_lxc_net_t:s0\"\nfile = \"system_u:object_r:svirt_lxc_file_t:s0\"\n")
	old := strings.ReplaceAll(strings.ReplaceAll(record, "container_t", "svirt_lxc_net_t"), "nfs_t", "tmpfs_t")
	r, err := h.Gather(t.Context(), findings.Query{Input: strings.NewReader(old + strings.ReplaceAll(old, "svirt_lxc_net_t", "container_t")), InputName: "a file",
		Only: findings.Selection{Domain: "svirt_lxc_net_t"}})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Domain != "container_t" || r.ProcessContext != "system_u:system_r:container_t:s0" {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, q := range []findings.ModuleQuery{{Name: "web"}, {Name: "web", Source: "svirt_lxc_net_t"}, {Name: "web", Existing: "svirt_lxc_net_t"}} {
		q.Named = []string{r.Findings[0].ID}
		if m, err := h.Module(r, q); err != nil || len(m.Rules) != 1 {
			t.Errorf("%+v: %+v, %v", q, m, err)
		}
	}
}

package stages

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/plan"
)

func TestUnstartable(t *testing.T) {
	t.Parallel()
	running := func(name, typ string) attribution.Labelled {
		return attribution.Labelled{Subject: avc.Subject{Container: name}, Context: avc.Context("system_u:system_r:" + typ + ":s0:c1,c2")}
	}
	has := func(typ string) bool { return typ == "container_t" || typ == "spc_t" }
	for name, c := range map[string]struct {
		running []attribution.Labelled
		want    string
	}{
		"nothing runs":      {nil, ""},
		"all types stay":    {[]attribution.Labelled{running("a", "container_t"), running("b", "spc_t")}, ""},
		"nobody says":       {[]attribution.Labelled{{Subject: avc.Subject{Container: "a"}}}, ""},
		"one type goes":     {[]attribution.Labelled{running("a", "web_t"), running("b", "container_t"), running("c", "web_t")}, "container a, container c (type web_t)"},
		"two types go":      {[]attribution.Labelled{running("a", "web_t"), running("b", "db_t")}, "container b (type db_t)|container a (type web_t)"},
		"one name twice":    {[]attribution.Labelled{running("a", "web_t"), running("a", "web_t")}, "container a (type web_t)"},
		"a name that hides": {[]attribution.Labelled{running("a\x1b\u202e", "web_t")}, `container a\x1b\u202e (type web_t)`},
		"without its name":  {[]attribution.Labelled{{Subject: avc.Subject{ID: strings.Repeat("1", 64)}, Context: "system_u:system_r:web_t:s0"}}, "container 111111111111 (type web_t)"},
	} {
		if got := strings.Join(unstartable(c.running, has), "|"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// told keeps what a reporter is told, in order.
type told struct{ lines []string }

func (r *told) Waiting(string)                 {}
func (r *told) Trial(Trial)                    {}
func (r *told) Notice(stage, text string)      { r.lines = append(r.lines, "notice "+stage+": "+text) }
func (r *told) Started(string, plan.Step)      {}
func (r *told) Finished(_ string, d plan.Done) { r.lines = append(r.lines, "did "+d.Action) }
func (r *told) Result(Result)                  {}

// runs makes a container of a tree run in a type, as the kernel and Docker show it.
func runs(tree *flatcartest.Tree, pid, digit, name, typ string) {
	id := strings.Repeat(digit, 64)
	tree.Write("proc/"+pid+"/cgroup", "0::/system.slice/docker-"+id+".scope\n")
	tree.Write("var/lib/docker/containers/"+id+"/config.v2.json", `{"Name": "/`+name+`", "ProcessLabel": "system_u:system_r:`+typ+`:s0:c1,c2", "State": {"Running": true, "Pid": `+pid+`}}`)
}

// What runs in a declared type is named before revert takes the type away, also by its dry run; what the vendor's policy has is not.
func TestRevertNamesContainers(t *testing.T) {
	t.Parallel()
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	tree.Write("etc/selinux-provision/modules/web.cil", "(type web_t)\n(roletype system_r web_t)\n")
	apply(t, host(t, tree), Changed, Changed, Unchanged)
	runs(tree, "70", "1", "shop", "web_t")
	runs(tree, "80", "2", "db", "container_t")
	for _, dry := range []bool{true, false} {
		r := &told{}
		h := host(t, tree)
		h.Reporter = r
		result, err := h.Revert(t.Context(), dry)
		if err != nil || result.Err != nil {
			t.Fatal(err, result.Err)
		}
		const want = "container shop (type web_t): it runs on, and cannot be started again: the vendor's policy does not have the type, and the container runtime says \"write /proc/self/attr/keycreate: invalid argument\""
		if len(result.Notes) != 1 || !strings.HasPrefix(result.Notes[0], want) || len(r.lines) == 0 || r.lines[0] != "notice revert: "+result.Notes[0] || dry != (len(r.lines) == 1) {
			t.Errorf("dry %v: notes %q, told %q", dry, result.Notes, r.lines)
		}
	}
}

// An update that leaves out a module is said with the containers that could not be started then, before and after.
func TestUpdateNamesContainers(t *testing.T) {
	t.Parallel()
	next := flatcartest.New(t, flatcartest.Today)
	next.Image(2)
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	tree.Write("etc/selinux-provision/modules/web.cil", "(type web_t)\n(roletype system_r web_t)\n(allow web_t legacy_t (file (read)))\n")
	h := host(t, tree)
	apply(t, h, Changed, Changed, Unchanged)
	runs(tree, "70", "1", "shop", "web_t")
	check, err := h.CheckImage(context.Background(), filepath.Join(next.Dir, "usr"))
	if err != nil || len(check.Unstartable) != 1 || check.Unstartable[0] != "container shop (type web_t)" {
		t.Fatalf("check: %+v, %v", check, err)
	}
	if problems := check.problems(); len(problems) != 2 || !strings.Contains(problems[1].Problem, "nobody could start container shop (type web_t)") || !strings.Contains(problems[1].Problem, KeyCreate) {
		t.Errorf("problems: %+v", problems)
	}
	tree.Image(2)
	results := apply(t, h, Changed, Partly, Unchanged)
	if p := results[1].Problems; len(p) != 2 || !strings.HasPrefix(p[0].Problem, "container shop (type web_t) runs and cannot be started again: ") {
		t.Errorf("after the update: %+v", p)
	}
}

// A domain that denials made is said to lack what its base got since; another module is not looked at.
func TestBehind(t *testing.T) {
	t.Parallel()
	const first = "; The domain web_t: all that container_t is, and what was denied and chosen. Made by selinux-provision denials --module web.\n"
	const web = "(type web_t)\n(roletype system_r web_t)\n(optional web_and_unlabeled_t (allow web_t unlabeled_t (dir (read))))\n"
	tree := flatcartest.New(t, flatcartest.Today)
	tree.Write("etc/selinux-provision/config.yaml", "version: 1\n")
	tree.Write("etc/selinux-provision/modules/web.cil", first+web)
	h := host(t, tree)
	apply(t, h, Changed, Changed, Unchanged)
	if s, err := h.Status(t.Context()); err != nil || len(s.Behind) != 0 {
		t.Fatalf("as it was made: %+v, %v", s.Behind, err)
	}
	tree.Write("etc/selinux-provision/modules/update.cil", "(allow container_t etc_t (file (read open)))\n(allow web_t etc_t (file (open)))\n(allow kernel_t container_t (process (signal)))\n")
	apply(t, h, Unchanged, Changed, Unchanged)
	s, err := h.Status(t.Context())
	if err != nil || !s.AsDeclared || len(s.Behind) != 1 || s.Behind[0].Module != "web" || strings.Join(s.Behind[0].Lacks, "; ") != "file read on etc_t; kernel_t: process signal" {
		t.Errorf("after the update: %+v, %v", s, err)
	}
	tree.Write("etc/selinux-provision/modules/web.cil", web)
	apply(t, h, Unchanged, Changed, Unchanged)
	if s, err := h.Status(t.Context()); err != nil || len(s.Behind) != 0 {
		t.Errorf("another's module: %+v, %v", s, err)
	}
}

package policydb_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

func open(t testing.TB, modules map[string]string) *policydb.Policy {
	t.Helper()
	content, err := os.ReadFile(policytest.Build(t, modules))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policydb.Parse(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func words(text string) []string { return strings.Fields(text) }

func TestQuestions(t *testing.T) {
	p := open(t, nil)
	if got := p.Unlabeled(); got != "unlabeled_t" {
		t.Errorf("files without a label are %s", got)
	}
	if got := p.Dontaudits(); got != 2 {
		t.Errorf("%d dontaudit rules, want 2", got)
	}

	t.Run("types", func(t *testing.T) {
		for name, want := range map[string]string{
			"container_t":      "{container_t false [svirt_lxc_net_t] false [container_domain mcs_constrained_type] []}",
			"svirt_lxc_net_t":  "{container_t false [svirt_lxc_net_t] false [container_domain mcs_constrained_type] []}",
			"container_domain": "{container_domain true [] false [] [container_reader_t container_t spc_t]}",
		} {
			got, err := p.Describe(name)
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("%s: got %v, %v\nwant %s", name, got, err, want)
			}
		}
		_, err := p.Describe("contaner_t")
		var unknown *policydb.UnknownError
		if !errors.As(err, &unknown) || !slices.Contains(unknown.Similar, "container_t") {
			t.Errorf("a misspelt type: %v", err)
		}
	})

	t.Run("may", func(t *testing.T) {
		for _, c := range []struct{ domain, target, want string }{
			{"container_t", "container_file_t", "[{dir [add_name getattr open read search write]  true} {file [create entrypoint execute getattr open read write]  true}]"},
			{"container_t", "nfs_t", "[{chr_file [ioctl]  true} {file [getattr open read] container_use_nfs false}]"},
			{"container_t", "unlabeled_t", "[{dir [read] container_connect_any true} {file [read] container_use_nfs false}]"},
			{"container_t", "sysctl_t", "[{dir [search]  true} {file [read] (container_read_sysctl and not container_safe) false}]"},
			{"container_t", "container_t", "[{capability [net_bind_service]  true} {process [fork signal]  true}]"},
			{"container_t", "shadow_t", "[]"},
		} {
			got, err := p.May(c.domain, c.target)
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("%s on %s: %v\ngot  %v\nwant %s", c.domain, c.target, err, got, c.want)
			}
		}
		if _, err := p.May("nobody_t", "nfs_t"); err == nil || !strings.Contains(err.Error(), `no domain "nobody_t"`) {
			t.Errorf("an unknown domain: %v", err)
		}
	})

	ask := func(target, class, permissions string) policydb.Question {
		return policydb.Question{Domain: "container_t", Target: target, Class: class, Permissions: words(permissions)}
	}
	t.Run("booleans", func(t *testing.T) {
		for _, c := range []struct {
			q    policydb.Question
			want string
		}{
			{ask("nfs_t", "file", "read open"), "[[{container_use_nfs true}]]"},
			{ask("nfs_t", "file", "read write"), "[]"}, // it would not allow all of it
			{ask("sysctl_t", "file", "read"), "[[{container_read_sysctl true} {container_safe false}]]"},
			{ask("unlabeled_t", "dir", "read"), "[]"}, // allowed now
			{ask("shadow_t", "file", "read"), "[]"},
			{ask("no_t", "file", "read"), "[]"},
		} {
			if got := p.Booleans(c.q); fmt.Sprint(got) != c.want {
				t.Errorf("%v: got %v, want %s", c.q, got, c.want)
			}
		}
		if !p.Allowed(ask("unlabeled_t", "dir", "read")) || p.Allowed(ask("nfs_t", "file", "read")) || p.Allowed(ask("nfs_t", "file", "fly")) {
			t.Error("booleans are not applied as they are set, or an unknown permission is allowed")
		}
	})

	t.Run("hidden", func(t *testing.T) {
		if got := p.Hidden(ask("shadow_t", "file", "read getattr")); fmt.Sprint(got) != "[getattr]" {
			t.Errorf("got %v", got)
		}
	})

	t.Run("constraints", func(t *testing.T) {
		for _, c := range []struct{ source, target, permissions, want string }{
			{"container_t:s0:c1,c2", "container_file_t:s0:c1,c2", "read open", "{[] false}"},
			{"container_t:s0:c1,c2", "container_file_t:s0:c1", "read open", "{[] false}"},
			{"container_t:s0:c1,c2", "container_file_t:s0", "read open", "{[] false}"},
			{"container_t:s0:c1,c2", "container_file_t:s0:c1,c3", "read create", "{[read] true}"},
			{"container_t:s0:c0.c3", "container_file_t:s0:c1,c3", "read", "{[] false}"},
			{"container_t:s0-s0:c0.c3", "container_file_t:s0:c1,c3", "read", "{[] false}"},
			{"spc_t:s0", "container_file_t:s0:c1,c3", "read", "{[] false}"}, // not one that the constraint is for
		} {
			got, ok := p.Constraints("system_u:system_r:"+c.source, "system_u:object_r:"+c.target, "file", words(c.permissions))
			if !ok || fmt.Sprint(got) != c.want {
				t.Errorf("%s %s %s: got %v %v, want %s", c.source, c.permissions, c.target, got, ok, c.want)
			}
		}
		if got, ok := p.Constraints("user_u:object_r:container_t:s0", "system_u:object_r:etc_t:s0", "file", words("relabelto")); !ok || fmt.Sprint(got) != "{[relabelto] false}" {
			t.Errorf("a constraint on users: %v %v", got, ok)
		}
		for _, wrong := range []string{"", "a:b:c", "no_u:system_r:container_t:s0", "system_u:system_r:container_t:s7", "system_u:system_r:container_t:s0:c9"} {
			if _, ok := p.Constraints(wrong, "system_u:object_r:etc_t:s0", "file", words("read")); ok {
				t.Errorf("%q is taken for a context", wrong)
			}
		}
	})

	t.Run("alternatives", func(t *testing.T) {
		got := p.Alternatives("container_t", []policydb.Question{ask("container_log_t", "file", "read open"), ask("container_log_t", "dir", "search")})
		if len(got) != 1 || got[0].Domain != "container_reader_t" || got[0].Loses <= 0 || got[0].Loses > 0.3 {
			t.Errorf("got %v, want container_reader_t, which loses a little", got)
		}
		if got := p.Alternatives("container_t", []policydb.Question{ask("shadow_t", "file", "read")}); len(got) != 0 {
			t.Errorf("got %v for what nobody may", got)
		}
		if got := p.Unconfined("container_t", []policydb.Question{ask("container_log_t", "file", "read open"), ask("container_log_t", "dir", "search")}); !slices.Equal(got, []string{"spc_t"}) {
			t.Errorf("got %v, want spc_t, which is not confined", got)
		}
		if got := p.Unconfined("container_t", []policydb.Question{ask("shadow_t", "file", "read")}); len(got) != 0 {
			t.Errorf("got %v for what nobody may", got)
		}
	})
}

// A domain made from a Likeness may do exactly what the first may, and what may be done to it is the same.
func TestLikeness(t *testing.T) {
	like, err := open(t, nil).Like("container_t")
	if err != nil {
		t.Fatal(err)
	}
	text := "(type copy_t)\n"
	for _, role := range like.Roles {
		text += fmt.Sprintf("(roletype %s copy_t)\n", role)
	}
	for _, attribute := range like.Attributes {
		text += fmt.Sprintf("(typeattributeset %s (copy_t))\n", attribute)
	}
	for _, rule := range like.Rules {
		cil := rule.CIL("copy_t")
		if rule.Condition != "" {
			cil = fmt.Sprintf("(booleanif %s (true %s))", rule.Condition, cil)
		}
		text += cil + "\n"
	}
	t.Log(text)
	p := open(t, map[string]string{"copy": text})
	for _, pair := range [][2]string{{"container_t", "copy_t"}, {"copy_t", "container_t"}} {
		if got, err := p.Beyond(pair[0], pair[1]); err != nil || len(got) != 0 {
			t.Errorf("%s may more than %s: %v %v", pair[0], pair[1], got, err)
		}
	}
	for _, target := range []string{"nfs_t", "sysctl_t", "unlabeled_t", "tmpfs_t"} {
		base, err1 := p.May("container_t", target)
		other, err2 := p.May("copy_t", target)
		if err1 != nil || err2 != nil || fmt.Sprint(base) != fmt.Sprint(other) {
			t.Errorf("on %s: %v, %v\n%v\n%v", target, err1, err2, base, other)
		}
	}
	for _, cil := range []string{
		"(allowx copy_t nfs_t (ioctl chr_file (0x5401 (range 0x8900 0x89ff))))",
		"(typetransition copy_t tmpfs_t file container_tmpfs_t)",
		"(allow kernel_t copy_t (fifo_file (read)))",
		"(allow copy_t sysctl_t (dir (search)))",
		"(booleanif (and container_read_sysctl (not container_safe)) (true (allow copy_t sysctl_t (file (read)))))",
	} {
		if !strings.Contains(text, cil+"\n") {
			t.Errorf("missing: %s", cil)
		}
	}
}

// The answers are those of setools: on our own policy, and on that of this machine if it has one that setools can read.
//
// Proves V19.
func TestAgreesWithSetools(t *testing.T) {
	if _, err := exec.LookPath("sesearch"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("sesearch is missing: install setools")
		}
		t.Skip("sesearch is missing: install setools")
	}
	t.Run("own", func(t *testing.T) {
		agrees(t, policytest.Build(t, nil), []string{"container_domain", "file_type"}, [][2]string{
			{"container_t", "container_file_t"}, {"container_t", "nfs_t"}, {"container_t", "sysctl_t"}, {"spc_t", "container_log_t"}, {"kernel_t", "container_t"},
		})
	})
	const system = "/etc/selinux/default/policy/policy.33"
	if _, err := os.Stat(system); err == nil {
		t.Run("system", func(t *testing.T) {
			agrees(t, system, []string{"domain", "file_type", "logfile"}, [][2]string{
				{"init_t", "etc_t"}, {"syslogd_t", "var_log_t"}, {"sshd_t", "shadow_t"}, {"user_t", "user_home_t"}, {"ftpd_t", "nfs_t"},
			})
		})
	}
}

func agrees(t *testing.T, file string, attributes []string, pairs [][2]string) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, attribute := range attributes {
		out, err := exec.Command("seinfo", "-a", attribute, "-x", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			if name := strings.TrimSpace(line); strings.HasPrefix(line, "\t") && !strings.HasPrefix(name, "attribute ") {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		got, err := p.Describe(attribute)
		if err != nil || len(want) < 2 || !slices.Equal(got.Types, want) {
			t.Errorf("%s has %d types, setools says %d: %v", attribute, len(got.Types), len(want), err)
		}
	}
	for _, pair := range pairs {
		out, err := exec.Command("sesearch", "-A", "-s", pair[0], "-t", pair[1], file).Output()
		if err != nil {
			t.Fatal(err)
		}
		// allow SOURCE TARGET:CLASS { PERMISSIONS }; [ CONDITION ]:True
		want := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			head, tail, ok := strings.Cut(line, ":")
			if !ok || !strings.HasPrefix(head, "allow ") {
				continue
			}
			rule, _, _ := strings.Cut(tail, ";")
			class, list, _ := strings.Cut(rule, " ")
			for _, permission := range strings.Fields(strings.Trim(list, "{} ")) {
				want[class+" "+permission] = true
			}
		}
		access, err := p.May(pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, a := range access {
			for _, permission := range a.Permissions {
				got[a.Class+" "+permission] = true
			}
		}
		if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s on %s:\ngot  %v\nwant %v", pair[0], pair[1], got, want)
		}
	}
}

// What is no policy, or is cut off anywhere, is an error and nothing worse.
func TestDamaged(t *testing.T) {
	content, err := os.ReadFile(policytest.Build(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	// All of them take a minute on a busy machine; the fuzz target looks further.
	step := 5
	if testing.Short() {
		step = 61
	}
	for n := 0; n < len(content); n += step {
		if _, err := policydb.Parse(bytes.NewReader(content[:n])); err == nil {
			t.Fatalf("%d of %d bytes are taken for a policy", n, len(content))
		}
	}
	for i := 0; i < len(content); i += step {
		damaged := slices.Clone(content)
		damaged[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
		use(damaged)
	}
	for version, want := range map[byte]string{25: "its version is 25", 36: "its version is 36"} {
		other := slices.Clone(content)
		other[16] = version
		if _, err := policydb.Parse(bytes.NewReader(other)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// use asks everything of what may be a damaged policy; it must not panic.
func use(content []byte) {
	p, err := policydb.Parse(bytes.NewReader(content))
	if err != nil {
		return
	}
	q := policydb.Question{Domain: "container_t", Target: "nfs_t", Class: "file", Permissions: []string{"read"}}
	_, _ = p.Describe("container_t")
	_, _ = p.Describe("container_domain")
	_, _ = p.May("container_t", "nfs_t")
	p.Booleans(q)
	p.Hidden(q)
	p.Refuses("system_u:system_r:container_t:s0:c1,c2")
	p.Allowed(q)
	p.Alternatives("container_t", []policydb.Question{q})
	_, _ = p.Like("container_t")
	_, _ = p.Beyond("container_t", "spc_t")
	p.Constraints("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2", "file", []string{"read"})
}

func FuzzParse(f *testing.F) {
	content, err := os.ReadFile(policytest.Build(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, content []byte) { use(content) })
}

func TestEnteredBy(t *testing.T) {
	p := open(t, nil)
	for domain, want := range map[string]string{"container_t": "[kernel_t]", "kernel_t": "[]", "no_such_t": "[]"} {
		if got := fmt.Sprint(p.EnteredBy(domain)); got != want {
			t.Errorf("%s is entered by %s, want %s", domain, got, want)
		}
	}
}

// Exactly those types are permissive that the policy says: also the first and the last in it, by an alias too.
func TestPermissive(t *testing.T) {
	types := words("container_t container_file_t container_log_t container_reader_t etc_t kernel_t nfs_t shadow_t spc_t sysctl_t tmpfs_t unlabeled_t zz_first_t zz_last_t")
	for _, odd := range []int{0, 1} {
		text := "(type zz_first_t) (type zz_last_t) (roletype object_r zz_first_t) (roletype object_r zz_last_t)"
		var want []string
		for i, name := range types {
			if i%2 != odd {
				continue
			}
			want = append(want, name)
			if name == "container_t" {
				name = "svirt_lxc_net_t"
			}
			text += "\n(typepermissive " + name + ")"
		}
		slices.Sort(want)
		p := open(t, map[string]string{"lenient": text})
		if got := p.Permissive(); !slices.Equal(got, want) {
			t.Errorf("permissive: %v\nwant %v", got, want)
		}
		if got := symbols(t, map[string]string{"lenient": text}).Permissive(); !slices.Equal(got, want) {
			t.Errorf("by its symbols alone, permissive: %v\nwant %v", got, want)
		}
		for _, name := range types {
			if d, err := p.Describe(name); err != nil || d.Permissive != slices.Contains(want, name) {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		}
	}
	if got := open(t, nil).Permissive(); got != nil {
		t.Errorf("of a policy without any: %v", got)
	}
}

// capabilities are booleans as the policy of containers has them: one for all, and one for each.
const capabilities = `
(boolean container_use_all_caps false) (boolean container_use_sysadmin false) (boolean container_use_chown false)
(booleanif container_use_all_caps (true (allow container_domain self (capability (sys_admin chown dac_read_search)))))
(booleanif container_use_sysadmin (true (allow container_domain self (capability (sys_admin)))))
(booleanif container_use_chown (true (allow container_domain self (capability (chown)))))
(booleanif (and container_use_chown (not container_use_sysadmin)) (true (allow container_domain tmpfs_t (file (write)))))
(booleanif container_use_sysadmin (true (allow container_domain tmpfs_t (file (open)))))
`

// Of several booleans that with which the domain gets least comes first, and not the first in the alphabet.
func TestLeastBoolean(t *testing.T) {
	p := open(t, map[string]string{"capabilities": capabilities})
	for permissions, want := range map[string]string{
		"sys_admin":                 "[[{container_use_sysadmin true}] [{container_use_all_caps true}]]",
		"chown":                     "[[{container_use_chown true}] [{container_use_all_caps true}]]",
		"dac_read_search":           "[[{container_use_all_caps true}]]",
		"chown sys_admin":           "[[{container_use_all_caps true}] [{container_use_chown true} {container_use_sysadmin true}]]", // with which it may open files besides
		"sys_module":                "[]",
		"sys_module sys_admin":      "[]",
		"sys_admin dac_read_search": "[[{container_use_all_caps true}]]",
	} {
		if got := p.Booleans(policydb.Question{Domain: "container_t", Target: "container_t", Class: "capability", Permissions: words(permissions)}); fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, want %s", permissions, got, want)
		}
	}
	// One takes away what the other needs.
	if got := p.Booleans(policydb.Question{Domain: "container_t", Target: "tmpfs_t", Class: "file", Permissions: words("write open")}); got != nil {
		t.Errorf("got %v", got)
	}
	for _, c := range []struct {
		settings []policydb.Setting
		want     string
	}{
		{[]policydb.Setting{{Boolean: "container_use_all_caps", Value: true}}, "[{self capability [chown dac_read_search sys_admin]}]"},
		{[]policydb.Setting{{Boolean: "container_use_chown", Value: true}}, "[{self capability [chown]} {tmpfs_t file [write]}]"},
		{[]policydb.Setting{{Boolean: "container_use_chown", Value: false}, {Boolean: "no_such", Value: true}}, "[]"},
	} {
		if got := p.Adds("container_t", c.settings); fmt.Sprint(got) != c.want {
			t.Errorf("%v: got %v, want %s", c.settings, got, c.want)
		}
	}
	if got := p.Adds("nobody_t", nil); got != nil {
		t.Errorf("got %v", got)
	}
}

// What a type may not that bounds another one, that one may not either, whatever its own rules are.
func TestBounded(t *testing.T) {
	p := open(t, map[string]string{"bounds": `(type parent_t)(roletype system_r parent_t)(type child_t)(roletype system_r child_t)(type grandchild_t)(roletype system_r grandchild_t)
(typebounds parent_t child_t)(typebounds child_t grandchild_t)
(allow parent_t nfs_t (file (read)))(allow child_t nfs_t (file (read open)))(allow grandchild_t nfs_t (file (read)))
(allow parent_t self (process (fork)))(allow child_t self (process (fork signal)))`})
	for _, c := range []struct{ domain, target, class, permissions, want string }{
		{"child_t", "nfs_t", "file", "read", ""},
		{"child_t", "nfs_t", "file", "read open", "parent_t"},
		{"child_t", "nfs_t", "file", "write", "parent_t"},
		{"child_t", "child_t", "process", "fork", ""},
		{"child_t", "child_t", "process", "signal", "parent_t"},
		{"grandchild_t", "nfs_t", "file", "read", ""},
		{"grandchild_t", "nfs_t", "file", "open", "parent_t"},
		{"grandchild_t", "nfs_t", "file", "write", "child_t"},
		{"parent_t", "nfs_t", "file", "open", ""},
		{"container_t", "nfs_t", "file", "open", ""},
		{"no_t", "nfs_t", "file", "open", ""},
	} {
		if got := p.Bounded(policydb.Question{Domain: c.domain, Target: c.target, Class: c.class, Permissions: words(c.permissions)}); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

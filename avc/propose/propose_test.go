package propose_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/avc/propose"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

func open(t *testing.T, modules map[string]string) *policydb.Policy {
	t.Helper()
	in, err := os.Open(policytest.Build(t, modules))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// finding is one of container_t that needs a rule.
func finding(id, target, class, permissions string, changes ...func(*judge.Finding)) *judge.Finding {
	f := &judge.Finding{ID: id, PathCount: 1, Paths: []judge.Seen{{Path: "/x/" + id}}, Fix: judge.Fix{Kind: judge.Rule}}
	f.Domain, f.Target, f.Class, f.Count, f.Permissive = "container_t", target, class, 3, 3
	f.Permissions = map[string]uint64{}
	for _, p := range strings.Fields(permissions) {
		f.Permissions[p] = 3
	}
	f.Subject = avc.Subject{Container: "collector", Image: "img:1"}
	f.First, f.Last, f.Serials = time.Unix(1700000000, 0), time.Unix(1700000060, 0), []uint64{45, 46}
	for _, change := range changes {
		change(f)
	}
	return f
}

func fixed(kind judge.Kind) func(*judge.Finding) {
	return func(f *judge.Finding) { f.Fix = judge.Fix{Kind: kind, Text: "do that"} }
}

func request(changes ...func(*propose.Request)) propose.Request {
	r := propose.Request{Name: "kube_logreader", Base: "container_t"}
	for _, change := range changes {
		change(&r)
	}
	return r
}

// The new domain may do what the container domain may and what was asked, and nothing else; the container domain may no more than
// before. semodule builds it.
//
// Proves V19.
func TestNewDomain(t *testing.T) {
	p := open(t, nil)
	findings := []*judge.Finding{
		finding("aaaaaa", "container_log_t", "lnk_file", "read"),
		finding("bbbbbb", "container_log_t", "file", "read open"),
		finding("cccccc", "container_log_t", "file", "getattr"),
		finding("dddddd", "container_t", "capability", "sys_admin net_bind_service"),
		finding("eeeeee", "shadow_t", "file", "read getattr"),
		finding("ffffff", "etc_t", "file", "read", fixed(judge.Relabel)),
		finding("gggggg", "container_file_t", "file", "read", fixed(judge.Categories)),
		finding("hhhhhh", "etc_t", "file", "read", func(f *judge.Finding) { f.Domain = "kernel_t" }),
	}
	m, err := propose.Write(p, request(), findings)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(m.CIL)
	for _, want := range []string{
		"\n; bbbbbb: open read, 3 times from 2023-11-14 22:13:20 UTC to 2023-11-14 22:14:20 UTC, container collector (img:1), /x/bbbbbb, audit 45 46\n; cccccc: getattr, 3 times",
		"\n(allow kube_logreader_t container_log_t (file (getattr open read)))\n",
		"\n(allow kube_logreader_t shadow_t (file (getattr)))\n",
		"\n; sys_admin (the capability sys_admin): sys_admin on container_t, class capability [dddddd]\n",
		"\n; shadow (password hashes): read on shadow_t, class file [eeeeee]\n",
		"/etc/selinux-provision/modules/kube_logreader.cil", "label=type:kube_logreader_t", "seLinuxOptions:",
	} {
		if !strings.Contains(m.CIL, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if got, want := fmt.Sprint(m.LeftOut), "[{ffffff relabel helps: do that (to have a rule for it all the same: --only ffffff)} {gggggg no rule helps: do that} {hhhhhh it is a denial of kernel_t, and not of container_t}]"; got != want {
		t.Errorf("left out:\ngot  %s\nwant %s", got, want)
	}

	with := open(t, map[string]string{"kube_logreader": m.CIL})
	less, err1 := with.Beyond("container_t", "kube_logreader_t")
	more, err2 := with.Beyond("kube_logreader_t", "container_t")
	if err1 != nil || err2 != nil || len(less) != 0 {
		t.Errorf("the new domain lacks %v (%v, %v)", less, err1, err2)
	}
	if want := "[{container_log_t file [getattr open read]} {container_log_t lnk_file [read]} {shadow_t file [getattr]}]"; fmt.Sprint(more) != want {
		t.Errorf("the new domain has besides\n%v\nwant\n%s", more, want)
	}
	before, _ := p.May("container_t", "container_log_t")
	after, _ := with.May("container_t", "container_log_t")
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the container domain may now %v, and before %v", after, before)
	}
	start, err := with.May("kernel_t", "kube_logreader_t")
	if err != nil || !strings.Contains(fmt.Sprint(start), "transition") {
		t.Errorf("the runtime may not start it: %v %v", start, err)
	}

	// Once it is in the policy, the same request makes it again, with what the policy has of it.
	if _, err := propose.Write(with, request(), findings); err == nil || !strings.Contains(err.Error(), "the policy has it already") {
		t.Errorf("a domain that is there: %v", err)
	}
	again, err := propose.Write(with, request(func(r *propose.Request) { r.Replaces = true }), []*judge.Finding{
		finding("iiiiii", "nfs_t", "file", "write", func(f *judge.Finding) { f.Domain = "kube_logreader_t" }),
	})
	if err != nil {
		t.Fatal(err)
	}
	third := open(t, map[string]string{"kube_logreader": again.CIL})
	more, _ = third.Beyond("kube_logreader_t", "container_t")
	if want := "[{container_log_t file [getattr open read]} {container_log_t lnk_file [read]} {nfs_t file [write]} {shadow_t file [getattr]}]"; fmt.Sprint(more) != want {
		t.Errorf("made again, the domain has besides\n%v\nwant\n%s\n%s", more, want, again.CIL)
	}
}

// The same denials give the same text, in whatever order they come.
func TestDeterministic(t *testing.T) {
	p := open(t, nil)
	findings := []*judge.Finding{
		finding("aaaaaa", "container_log_t", "file", "read open"), finding("bbbbbb", "container_log_t", "file", "getattr"),
		finding("cccccc", "nfs_t", "dir", "read"), finding("dddddd", "etc_t", "file", "read", fixed(judge.Volume)), finding("eeeeee", "shadow_t", "file", "read"),
	}
	var first *propose.Module
	for range 20 {
		rand.Shuffle(len(findings), func(i, j int) { findings[i], findings[j] = findings[j], findings[i] })
		m, err := propose.Write(p, request(), findings)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m
		}
		if m.CIL != first.CIL || fmt.Sprint(m.LeftOut) != fmt.Sprint(first.LeftOut) {
			t.Fatalf("another text:\n%s\n%s", m.CIL, first.CIL)
		}
	}
}

// What is dangerous is in it only if it was named, and what has another remedy only if it was chosen.
//
// Proves V19.
func TestNamed(t *testing.T) {
	p := open(t, nil)
	findings := []*judge.Finding{
		finding("aaaaaa", "shadow_t", "file", "read"), finding("bbbbbb", "container_t", "capability", "sys_module sys_admin"), finding("cccccc", "etc_t", "file", "read", fixed(judge.Relabel)),
	}
	for _, c := range []struct {
		name  string
		r     propose.Request
		rules string
		held  int
	}{
		{"shadow", request(func(r *propose.Request) { r.Dangerous = []string{"shadow"} }), "[shadow_t file [read]]", 2},
		{"a capability", request(func(r *propose.Request) { r.Dangerous = []string{"sys_admin"} }), "[self capability [sys_admin]]", 2},
		{"all", request(func(r *propose.Request) { r.Dangerous = []string{"all"} }), "[self capability [sys_admin sys_module] shadow_t file [read]]", 0},
		{"chosen", request(func(r *propose.Request) { r.Named = []string{"cccccc"} }), "[etc_t file [read]]", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := propose.Write(p, c.r, findings)
			if err != nil {
				t.Fatal(err)
			}
			var rules []string
			for _, r := range m.Rules {
				rules = append(rules, fmt.Sprint(r.Target, " ", r.Class, " ", r.Permissions))
			}
			if fmt.Sprint(rules) != c.rules || len(m.HeldBack) != c.held {
				t.Errorf("rules %v, held back %v", rules, m.HeldBack)
			}
		})
	}
	m, err := propose.Write(p, request(), findings)
	if !errors.Is(err, propose.ErrNothing) || len(m.HeldBack) != 3 || len(m.LeftOut) != 1 {
		t.Errorf("nothing to allow: %v, %+v", err, m)
	}
}

// Dangers that the real policies have names for.
func TestDangers(t *testing.T) {
	p := open(t, map[string]string{"names": names})
	for ask, want := range map[string]string{
		"fixed_disk_device_t blk_file read":                "raw-devices",
		"memory_device_t chr_file read":                    "raw-devices",
		"null_device_t chr_file read":                      "",
		"security_t security load_policy":                  "policy",
		"security_t security setenforce":                   "policy",
		"selinux_config_t file write":                      "policy",
		"selinux_config_t dir search":                      "",
		"docker_var_run_t sock_file write":                 "runtime",
		"container_runtime_t unix_stream_socket connectto": "runtime",
		"kernel_t system module_load":                      "services",
		"init_t service start":                             "services",
		"unlabeled_t file read":                            "unlabeled",
		"init_t process ptrace":                            "other-processes",
		"container_t process ptrace":                       "", // itself
		"sysctl_kernel_t file write":                       "kernel-settings",
		"sysctl_kernel_t file read":                        "",
		"proc_kcore_t file read":                           "kernel-memory",
		"auditd_log_t file read":                           "audit",
		"sshd_key_t file read":                             "keys",
		"fs_t filesystem mount":                            "mounts",
		"etc_t file relabelto":                             "labels",
		"container_t capability2 bpf":                      "bpf",
		"container_t cap_userns sys_admin":                 "",
		"container_t capability chown":                     "",
		"container_t capability dac_read_search":           "dac_read_search",
		"kernel_t bpf prog_load":                           "bpf",
		"var_log_t file read":                              "",
		"etc_t file write":                                 "host-programs",
		"etc_t file read":                                  "",
		"sshd_exec_t file write":                           "host-programs",
		"docker_unit_t file create":                        "host-programs",
		"container_t netlink_audit_socket nlmsg_write":     "audit",
		"container_t netlink_audit_socket nlmsg_relay":     "",
		"container_t memprotect mmap_zero":                 "kernel-memory",
		"security_t file write":                            "policy",
	} {
		words := strings.Fields(ask)
		m, err := propose.Write(p, request(), []*judge.Finding{finding("aaaaaa", words[0], words[1], words[2])})
		got := ""
		if len(m.HeldBack) > 0 {
			got = m.HeldBack[0].Danger
		}
		if got != want || (err == nil) != (want == "") {
			t.Errorf("%s: held back as %q, want %q (%v)", ask, got, want, err)
		}
	}
}

func TestExistingDomain(t *testing.T) {
	p := open(t, nil)
	findings := []*judge.Finding{finding("aaaaaa", "container_log_t", "lnk_file", "read")}
	m, err := propose.Write(p, request(func(r *propose.Request) { r.Existing = "container_t" }), findings)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(m.CIL, "(type ") || !strings.Contains(m.CIL, "EVERY process in container_t gets them") || !strings.Contains(m.CIL, "(allow container_t container_log_t (lnk_file (read)))") {
		t.Error(m.CIL)
	}
	with := open(t, map[string]string{"kube_logreader": m.CIL})
	if !with.Allowed(policydb.Question{Domain: "container_t", Target: "container_log_t", Class: "lnk_file", Permissions: []string{"read"}}) {
		t.Error("the rule is not in the policy")
	}
	_, err = propose.Write(p, request(func(r *propose.Request) { r.Existing = "unlabeled_t" }), findings)
	if err == nil || !strings.Contains(err.Error(), "cannot add to unlabeled_t: it is no domain") {
		t.Errorf("the type of what has no label: %v", err)
	}
	_, err = propose.Write(p, request(func(r *propose.Request) { r.Existing = "contaner_t" }), findings)
	if err == nil || !strings.Contains(err.Error(), "did you mean container_t") {
		t.Errorf("a misspelt domain: %v", err)
	}
}

// Where rules limit a domain to some ioctl commands, the new one is added to them, and no other.
func TestIoctl(t *testing.T) {
	p := open(t, nil)
	f := finding("aaaaaa", "nfs_t", "chr_file", "ioctl", func(f *judge.Finding) { f.Ioctl = []uint16{0x5402, 0x5401} })
	m, err := propose.Write(p, request(), []*judge.Finding{f})
	if err != nil || !strings.Contains(m.CIL, "(allowx kube_logreader_t nfs_t (ioctl chr_file (0x5402)))\n") {
		t.Fatalf("%v\n%s", err, m.CIL)
	}
	with := open(t, map[string]string{"kube_logreader": m.CIL})
	q := policydb.Question{Domain: "kube_logreader_t", Target: "nfs_t", Class: "chr_file"}
	if missing, limited := with.Ioctl(q, []uint16{0x5401, 0x5402, 0x5403, 0x8910}); !limited || !slices.Equal(missing, []uint16{0x5403}) {
		t.Errorf("missing %#x, limited %v", missing, limited)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{"kube_logreader": "kube_logreader_t", "my_t": "my_t", "a": "a_t"} {
		if got, err := propose.CheckName(name); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "Big", "1x", "a-b", "a b", "a)(allow", "../x", "selinux_provision_x", strings.Repeat("a", 65)} {
		if _, err := propose.CheckName(name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

func enforced(f *judge.Finding) { f.Enforced, f.Permissive = f.Count, 0 }

// An access that was stopped is proposed whole, marked as not seen; on request it is not, and what is dangerous or forbidden never is.
func TestRounds(t *testing.T) {
	p := open(t, map[string]string{"rounds": "(allow container_t sysctl_t (file (getattr)))"})
	for _, c := range []struct {
		name, target, class, permissions string
		change                           func(*judge.Finding)
		request                          func(*propose.Request)
		want                             string
	}{
		{"reading a file", "container_log_t", "file", "read", enforced, nil, "file [read] + [getattr open]"},
		{"listing a directory", "container_log_t", "dir", "read", enforced, nil, "dir [read] + [getattr open search], file [] + [getattr open read], lnk_file [] + [read]"},
		{"passing through", "container_log_t", "dir", "search", enforced, nil, "dir [search] + [getattr]"},
		{"making a file", "container_log_t", "dir", "write", enforced, nil, "dir [write] + [add_name getattr search], file [] + [create getattr open write]"},
		{"a link", "container_log_t", "lnk_file", "read", enforced, nil, "lnk_file [read]"},
		{"what the base has already", "sysctl_t", "file", "read", enforced, nil, "file [read] + [open]"},
		{"seen only", "container_log_t", "file", "read", enforced, func(r *propose.Request) { r.SeenOnly = true }, "file [read]"},
		{"permissive: all of it was seen", "container_log_t", "file", "read", func(*judge.Finding) {}, nil, "file [read]"},
		{"in part permissive", "container_log_t", "file", "read", func(f *judge.Finding) { f.Permissive, f.Enforced = 2, 1 }, nil, "file [read] + [getattr open]"},
		{"no file", "container_t", "capability", "net_bind_service", enforced, nil, "capability [net_bind_service]"},
		{"dangerous things follow", "shadow_t", "dir", "open search read", enforced, func(r *propose.Request) { r.Dangerous = []string{"keys"} }, "dir [search] + [getattr]"},
		{"dangerous things follow that were named", "shadow_t", "dir", "read", enforced, func(r *propose.Request) { r.Dangerous = []string{"shadow"} }, "dir [read] + [getattr open search], file [] + [getattr open read], lnk_file [] + [read]"},
		{"forbidden things follow", "container_log_t", "dir", "read", enforced, func(r *propose.Request) {
			r.Forbidden = func(source, like, target, class, permission string) string {
				if class == "file" || permission == "search" {
					return "(neverallow " + source + " " + like + ")"
				}
				return ""
			}
		}, "dir [read] + [getattr open], lnk_file [] + [read]"},
	} {
		f := finding("aaaaaa", c.target, c.class, c.permissions, c.change)
		r := request()
		if c.request != nil {
			c.request(&r)
		}
		m, err := propose.Write(p, r, []*judge.Finding{f})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var rules []string
		for _, rule := range m.Rules {
			said := fmt.Sprint(rule.Class, " ", rule.Permissions)
			if len(rule.Unseen) > 0 {
				said += fmt.Sprint(" + ", rule.Unseen)
			}
			rules = append(rules, said)
		}
		if got := strings.Join(rules, ", "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if unseen := strings.Contains(m.CIL, "Not seen yet"); unseen != strings.Contains(c.want, "+") || unseen != (len(m.Unseen()) > 0) {
			t.Errorf("%s: it says %q\n%s", c.name, m.Unseen(), m.CIL)
		}
		if c.name == "listing a directory" {
			open(t, map[string]string{"kube_logreader": m.CIL})
		}
	}
}

// What the policy forbids ever to allow is not proposed, even if it was named and its danger is allowed; neither is what the base alone may.
func TestForbidden(t *testing.T) {
	p := open(t, nil)
	var asked []string
	r := request(func(r *propose.Request) {
		r.Dangerous, r.Named = []string{"all"}, []string{"aaaaaa"}
		r.Forbidden = func(source, like, target, class, permission string) string {
			asked = append(asked, source+" "+like)
			if target == "shadow_t" && permission == "read" || target == "tmpfs_t" && class == "file" {
				return "(neverallow domain " + target + ")"
			}
			return ""
		}
	})
	findings := []*judge.Finding{finding("aaaaaa", "shadow_t", "file", "read getattr"), finding("bbbbbb", "container_log_t", "file", "read")}
	m, err := propose.Write(p, r, findings)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(m.CIL, "(allow kube_logreader_t shadow_t (file (getattr)))") || strings.Contains(m.CIL, "tmpfs_t (file (read))") ||
		!strings.Contains(m.CIL, "; Left out: read on tmpfs_t, class file, which the policy forbids to every other domain: (neverallow domain tmpfs_t)") {
		t.Error(m.CIL)
	}
	if len(m.LeftOut) != 1 || m.LeftOut[0].Finding != "aaaaaa" || !strings.Contains(m.LeftOut[0].Reason, "does not build with such a rule: (neverallow domain shadow_t)") {
		t.Errorf("left out: %+v", m.LeftOut)
	}
	if asked[0] != "kube_logreader_t container_t" {
		t.Errorf("asked for %s", asked[0])
	}
	r.Existing = "container_t"
	asked = nil
	if _, err := propose.Write(p, r, findings); err != nil || asked[0] != "container_t " {
		t.Errorf("an existing domain: asked for %q, %v", asked, err)
	}
	open(t, map[string]string{"kube_logreader": m.CIL})
}

// Who may start the base may start the domain with no_new_privs, where the policy has a word for that.
func TestNoNewPrivs(t *testing.T) {
	const rule = "(optional kube_logreader_started_by_kernel_t (allow kernel_t kube_logreader_t (process2 (nnp_transition))))\n"
	process2 := "(class process2 (nnp_transition nosuid_transition)) (classorder (unordered process2))"
	for _, c := range []struct {
		name, module string
		want, copied bool
	}{
		{"an old policy", "(type spare_t)", false, false},
		{"a policy with the class", process2, true, false},
		{"a policy that lets the base do it", process2 + "(allow kernel_t container_t (process2 (nnp_transition)))", false, true},
	} {
		m, err := propose.Write(open(t, map[string]string{"process2": c.module}), request(), []*judge.Finding{finding("aaaaaa", "container_log_t", "file", "read")})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m.CIL, rule) != c.want || strings.Contains(m.CIL, "  (allow kernel_t kube_logreader_t (process2 (nnp_transition)))") != c.copied {
			t.Errorf("%s:\n%s", c.name, m.CIL)
		}
		with := open(t, map[string]string{"process2": c.module, "kube_logreader": m.CIL})
		q := policydb.Question{Domain: "kernel_t", Target: "kube_logreader_t", Class: "process2", Permissions: []string{"nnp_transition"}}
		if with.Allowed(q) != (c.want || c.copied) {
			t.Errorf("%s: allowed %v", c.name, with.Allowed(q))
		}
	}
}

// Writing where the next boot takes from what it runs is a danger, whatever the policy calls the type; reading it is none.
func TestNextBoot(t *testing.T) {
	p := open(t, nil)
	at := func(r *propose.Request) { r.NextBoot = []string{"tmpfs_t"} }
	for ask, want := range map[string]string{"file write": "next-boot", "dir add_name": "next-boot", "file execute": "", "dir read": ""} {
		class, permission, _ := strings.Cut(ask, " ")
		m, err := propose.Write(p, request(at), []*judge.Finding{finding("aaaaaa", "tmpfs_t", class, permission)})
		got := ""
		if m != nil && len(m.HeldBack) > 0 {
			got = m.HeldBack[0].Danger
		}
		if got != want || (err == nil) != (want == "") {
			t.Errorf("%s: held back as %q, want %q (%v)", ask, got, want, err)
		}
	}
	m, err := propose.Write(p, request(at, func(r *propose.Request) { r.Dangerous = []string{"next-boot"} }), []*judge.Finding{finding("aaaaaa", "tmpfs_t", "file", "write")})
	if err != nil || !strings.Contains(m.CIL, "(allow kube_logreader_t tmpfs_t (file (write)))") {
		t.Errorf("%v\n%+v", err, m)
	}
}

// What a container writes into its names and paths stays a comment.
func TestHostileNames(t *testing.T) {
	p := open(t, nil)
	f := finding("aaaaaa", "container_log_t", "lnk_file", "read", func(f *judge.Finding) {
		f.Paths[0].Path = "/x\n(allow container_t shadow_t (file (read)))\u202e\x1b[2J"
		f.Subject.Container = "a\r\n(allow"
	})
	m, err := propose.Write(p, request(), []*judge.Finding{f})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(m.CIL) {
		if strings.Contains(line, "shadow_t") && !strings.HasPrefix(line, ";") {
			t.Errorf("a rule from a path: %s", line)
		}
	}
	if strings.ContainsFunc(m.CIL, func(r rune) bool { return slices.Contains([]rune{'\r', '\u202e', '\x1b'}, r) }) {
		t.Errorf("it can deceive its reader: %q", m.CIL)
	}
	open(t, map[string]string{"kube_logreader": m.CIL})
}

// names are types, classes and permissions that the policy of the other tests lacks.
const names = `
(class blk_file (read))
(class service (start))
(class unix_stream_socket (connectto))
(class capability2 (bpf))
(class cap_userns (sys_admin))
(class bpf (prog_load))
(class memprotect (mmap_zero))
(class netlink_audit_socket (nlmsg_write nlmsg_relay))
(classorder (unordered blk_file service unix_stream_socket capability2 cap_userns bpf memprotect netlink_audit_socket))
(typealias etc_alias_t) (typealiasactual etc_alias_t shadow_t)
(type fixed_disk_device_t) (type memory_device_t) (type null_device_t) (type security_t) (type selinux_config_t) (type docker_var_run_t) (type container_runtime_t)
(type init_t) (type sysctl_kernel_t) (type proc_kcore_t) (type auditd_log_t) (type sshd_key_t) (type fs_t) (type var_log_t) (type sshd_exec_t) (type docker_unit_t)
`

// TestHostileRecords: a record says what it likes. What the policy has no name for is never written as policy, another name hides no danger, and
// a program that says it is an object manager is not believed before somebody has looked.
//
// Proves V19: made-up names never become rules.
func TestHostileRecords(t *testing.T) {
	p := open(t, map[string]string{"names": names})
	byProgram := func(f *judge.Finding) { f.Type = avc.TypeUserAVC }
	for name, c := range map[string]struct {
		f    *judge.Finding
		want string
	}{
		"type":        {finding("aaaaaa", "x)))(allow", "file", "read"), `there can be no rule: the policy has no type "x)))(allow"`},
		"class":       {finding("aaaaaa", "etc_t", "file\t(read)))\n(allow\tcontainer_t\tshadow_t\t(file", "read"), "there can be no rule: the policy has no class"},
		"permission":  {finding("aaaaaa", "etc_t", "file", "read)))(allow"), "there can be no rule: the policy has no permission of the class file"},
		"attribute":   {finding("aaaaaa", "domain", "file", "read"), `there can be no rule: the policy has no type "domain"`},
		"a program's": {finding("aaaaaa", "container_log_t", "file", "read", byProgram), "a program says so and not the kernel"},
	} {
		m, err := propose.Write(p, request(), []*judge.Finding{c.f})
		if !errors.Is(err, propose.ErrNothing) || len(m.LeftOut) != 1 || !strings.Contains(m.LeftOut[0].Reason, c.want) {
			t.Errorf("%s: %v, %+v", name, err, m)
		}
		m, err = propose.Write(p, request(func(r *propose.Request) { r.Named = []string{"aaaaaa"}; r.Dangerous = []string{"all"} }), []*judge.Finding{c.f})
		if named := c.f.Type == avc.TypeUserAVC; named != (err == nil) || !named && m.CIL != "" {
			t.Errorf("%s, named: %v\n%s", name, err, m.CIL)
		}
	}
	m, err := propose.Write(p, request(), []*judge.Finding{finding("aaaaaa", "etc_alias_t", "file", "read")})
	if !errors.Is(err, propose.ErrNothing) || len(m.HeldBack) != 1 || m.HeldBack[0].Danger != "shadow" {
		t.Errorf("an alias: %v, %+v", err, m)
	}
}

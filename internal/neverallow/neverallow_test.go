package neverallow_test

import (
	"os"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/neverallow"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// site has rules as the reference policy has them: for all but an attribute, for all but named types, about oneself.
const site = `
(typeattribute can_read_shadow)
(typeattribute confined)
(typeattributeset confined (container_t))
(typeattribute site_typeattr_7)
(typeattributeset site_typeattr_7 (and (container_domain kernel_t) (not (can_read_shadow))))
(typeattribute site_typeattr_8)
(typeattributeset site_typeattr_8 (and (container_domain) (not (container_t spc_t))))
(neverallow site_typeattr_7 shadow_t (file (read write)))
(neverallow site_typeattr_8 sysctl_t (file (read)))
(optional site_optional (neverallow container_domain nfs_t (dir (not (getattr search)))))
(neverallow confined self (capability (sys_module)))
(neverallow container_t notself (process (signal)))
(block inner (type thing_t) (typeattribute things) (typeattributeset things (thing_t)) (neverallow container_domain things (file (all))))
(allow spc_t can_read_shadow (file (getattr)))
(typeattributeset can_read_shadow (spc_t))
`

func rules(t *testing.T) *neverallow.Rules {
	t.Helper()
	in, err := os.Open(policytest.Build(t, map[string]string{"site": site[:strings.Index(site, "(neverallow")] + "(block inner (type thing_t) (roletype object_r thing_t))"}))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	r := neverallow.New(p)
	for _, module := range []string{"(typeattributeset container_domain (container_t container_reader_t spc_t))", site} {
		if err := r.Add(strings.NewReader(module)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestForbids(t *testing.T) {
	r := rules(t)
	for ask, want := range map[string]bool{
		"container_t shadow_t file read":                true,
		"container_t shadow_t file getattr":             false,
		"container_t shadow_t dir read":                 false,
		"spc_t shadow_t file read":                      false, // it has the attribute
		"new_t shadow_t file write":                     true,  // it has the attributes of container_t
		"container_t sysctl_t file read":                false, // named as an exception,
		"new_t sysctl_t file read":                      true,  // and a copy of it is not
		"container_reader_t sysctl_t file read":         true,
		"new_t nfs_t dir write":                         true,
		"new_t nfs_t dir search":                        false,
		"container_t container_t capability sys_module": true,
		"spc_t spc_t capability sys_module":             false,
		"container_t spc_t process signal":              true,
		"container_t container_t process signal":        false,
		"svirt_lxc_net_t shadow_t file read":            false, // an alias is resolved before
		"new_t inner.thing_t file read":                 true,
	} {
		words := strings.Fields(ask)
		got := r.Forbids(neverallow.Question{Source: words[0], Like: "container_t", Target: words[1], Class: words[2], Permission: words[3]})
		if (got != "") != want || want && !strings.HasPrefix(got, "(neverallow ") {
			t.Errorf("%s: %q", ask, got)
		}
	}
}

// A text that is no CIL is refused, and what is read of it does no harm.
func TestDamaged(t *testing.T) {
	r := rules(t)
	for _, text := range []string{"(", ")", `(a "b`, strings.Repeat("(", 101)} {
		if err := r.Add(strings.NewReader(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func FuzzAdd(f *testing.F) {
	f.Add(site)
	f.Add("(typeattributeset a (a b)) (typeattributeset b (not (a)))(neverallow a b (file (read)))")
	f.Add(`; comment
(block x (block y (typeattributeset z (xor (a) (b))))) "text" word`)
	p := &policydb.Policy{}
	f.Fuzz(func(t *testing.T, text string) {
		r := neverallow.New(p)
		_ = r.Add(strings.NewReader(text))
		_ = r.Forbids(neverallow.Question{Source: "a", Like: "b", Target: "b", Class: "file", Permission: "read"})
	})
}

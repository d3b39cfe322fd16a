package policydb_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// symbols gives those of a built policy, read without its rules.
func symbols(t testing.TB, modules map[string]string) *policydb.Symbols {
	t.Helper()
	s, err := policydb.ReadSymbols(os.Open(policytest.Build(t, modules)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func booleans(in io.Reader) (map[string]bool, error) {
	s, err := policydb.ParseSymbols(in)
	if err != nil {
		return nil, err
	}
	return s.Booleans(), nil
}

func TestBooleans(t *testing.T) {
	content, err := os.ReadFile(policytest.Build(t, map[string]string{"site": "(boolean site_on true)\n(boolean site_off false)"}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{
		"container_use_nfs": false, "container_connect_any": true, "container_read_sysctl": false, "container_safe": true, "site_on": true, "site_off": false,
	}
	got, err := booleans(iotest.HalfReader(bytes.NewReader(content)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if v, found := got[name]; !found || v != value {
			t.Errorf("%s: %t, %t", name, v, found)
		}
	}
	// A file system stands in the policy as a boolean would, with a number, a length and its name.
	for _, name := range []string{"ext4", "xfs", "container_t", "file", ""} {
		if _, found := got[name]; found {
			t.Errorf("%q is a boolean", name)
		}
	}
	// Cut off anywhere, it gives an error or all of them.
	for n := 0; n < len(content); n += 37 {
		if some, err := booleans(bytes.NewReader(content[:n])); err == nil && !maps.Equal(some, got) {
			t.Fatalf("%d of %d bytes: %v", n, len(content), some)
		}
	}
	content[16] = 36
	var version *policydb.VersionError
	if _, err := booleans(bytes.NewReader(content)); !errors.As(err, &version) || version.Version != 36 {
		t.Errorf("a version that is not known: %v", err)
	}
	if _, err := booleans(iotest.ErrReader(os.ErrPermission)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// A policy with more symbols than the first look reads.
func TestSymbolsOfLargePolicy(t *testing.T) {
	var many bytes.Buffer
	for i := range 12000 {
		name := "a_type_with_a_long_name_" + string(rune('a'+i%26)) + "_" + string(rune('a'+i/26%26)) + "_" + string(rune('a'+i/676)) + "_t"
		many.WriteString("(type " + name + ")(roletype object_r " + name + ")\n")
	}
	content, err := os.ReadFile(policytest.Build(t, map[string]string{"many": many.String(), "site": "(boolean site_on true)"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := booleans(bytes.NewReader(content)); err != nil || !got["site_on"] {
		t.Errorf("%v, %v", got, err)
	}
}

// What an old name of a type, or a level in another order, means is what the kernel would write.
func TestCanonical(t *testing.T) {
	p := symbols(t, nil)
	for context, want := range map[string]string{
		"system_u:object_r:container_file_t:s0":          "system_u:object_r:container_file_t:s0",
		"system_u:object_r:svirt_lxc_file_t:s0:c2,c1,c3": "system_u:object_r:container_file_t:s0:c1.c3",
		"system_u:object_r:svirt_lxc_file_t:s0-s0":       "system_u:object_r:container_file_t:s0",
		"system_u:object_r:file_type:s0":                 "", // an attribute
		"system_u:object_r:no_such_t:s0":                 "",
		"system_u:no_such_r:container_file_t:s0":         "",
		"no_such_u:object_r:container_file_t:s0":         "",
		"system_u:object_r:container_file_t:s9":          "",
		"system_u:object_r:container_file_t:s0:c9999":    "",
		"system_u:object_r:container_file_t":             "",
	} {
		if got, ok := p.Canonical(context); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", context, got, ok)
		}
	}
}

// A policy that could not be read has no names.
func TestNoSymbols(t *testing.T) {
	var p policydb.Symbols
	if got, ok := p.Canonical("system_u:object_r:container_file_t:s0"); ok || got != "" || p.Name("x_t") != "x_t" {
		t.Error(got, ok)
	}
}

// The reasons are those of the kernel (policydb_context_isvalid, mls_context_isvalid).
func TestRefuses(t *testing.T) {
	p := symbols(t, map[string]string{"site": "(role site_r)(type site_t)(roletype site_r site_t)(typealias old_site_t)(typealiasactual old_site_t site_t)"})
	for context, want := range map[string]string{
		"system_u:system_r:container_t:s0:c1,c2":    "",
		"system_u:system_r:container_t:s0-s0:c0.c3": "",
		"system_u:system_r:svirt_lxc_net_t:s0":      "",
		"user_u:object_r:site_t:s0:c3":              "",
		"system_u:system_r:gone_t:s0":               "the policy has no type gone_t",
		"system_u:system_r:container_domain:s0":     "the policy has no type container_domain",
		"system_u:gone_r:container_t:s0":            "the policy has no role gone_r",
		"gone_u:system_r:container_t:s0":            "the policy has no user gone_u",
		"system_u:system_r:site_t:s0":               "the role system_r may not have the type site_t",
		"system_u:site_r:site_t:s0":                 "the user system_u may not have the role site_r",
		"user_u:system_r:container_t:s0":            "the user user_u may not have the role system_r",
		"system_u:system_r:container_t:s0:c5000":    "the policy has no level s0:c5000",
		"container_t":                               "it is not of the form user:role:type:level",
	} {
		if got := p.Refuses(context); got != want {
			t.Errorf("%s: got %q, want %q", context, got, want)
		}
	}
	for name, want := range map[string]string{"svirt_lxc_net_t": "container_t", "old_site_t": "site_t", "site_t": "site_t", "gone_t": "gone_t"} {
		if got := p.Name(name); got != want {
			t.Errorf("%s is properly %s, want %s", name, got, want)
		}
	}
}

func TestNoDomain(t *testing.T) {
	p := symbols(t, nil)
	for name, want := range map[string]string{
		"container_t": "", "svirt_lxc_net_t": "", "kernel_t": "",
		"container_file_t": "it is no domain: no process can run in it, since no role may have it",
		"container_domain": "it is an attribute, which stands for many types: name each domain that is meant",
		"contaner_t":       `the policy has no type "contaner_t": did you mean container_t`,
	} {
		if got := p.NoDomain(name); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func FuzzParseSymbols(f *testing.F) {
	content, err := os.ReadFile(policytest.Build(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(_ *testing.T, content []byte) {
		if symbols, err := policydb.ParseSymbols(bytes.NewReader(content)); err == nil {
			symbols.Booleans()
			symbols.Permissive()
			symbols.Refuses("system_u:system_r:container_t:s0:c1")
		}
	})
}

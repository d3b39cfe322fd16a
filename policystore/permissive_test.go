package policystore

import (
	"slices"
	"testing"
)

func TestPermissiveIn(t *testing.T) {
	for text, want := range map[string]struct {
		domains []string
		only    bool
	}{
		"":                            {nil, false},
		"(typepermissive a_t)":        {[]string{"a_t"}, true},
		"; a\n( typepermissive a_t )": {[]string{"a_t"}, true},
		"(typepermissive a_t)\n(typepermissive b_t)": {[]string{"a_t", "b_t"}, true},
		"(typepermissive a_t) (typepermissive a_t)":  {[]string{"a_t"}, false},
		"(optional x (typepermissive a_t))":          {[]string{"a_t"}, false},
		"(type a_t) (typepermissive a_t)":            {[]string{"a_t"}, false},
		"(block b (type c_t) (typepermissive c_t))":  {[]string{"c_t"}, false},
		"(type typepermissive)":                      {nil, false},
		"; (typepermissive a_t)":                     {nil, false},
		"(typepermissive)":                           {nil, false},
		"(filecon \"(typepermissive x)\" any ())":    {nil, false},
		"(typepermissive ((":                         {nil, false},
	} {
		domains := permissiveIn(text)
		only := onlyPermissive(text)
		if !slices.Equal(domains, want.domains) || want.only && !slices.Equal(only, domains) || !want.only && only != nil {
			t.Errorf("%s: %q, and only %q", text, domains, only)
		}
	}
}

func TestPermissiveChange(t *testing.T) {
	want := func(names ...string) (all []PermissiveDomain) {
		for _, n := range names {
			all = append(all, PermissiveDomain{Type: n})
		}
		return all
	}
	for _, c := range []struct {
		before []string
		want   []PermissiveDomain
		says   string
	}{
		{nil, nil, ""}, {[]string{"a_t"}, want("a_t"), ""},
		{nil, want("a_t", "b_t"), "; permissive from now on: a_t, b_t"},
		{[]string{"a_t"}, nil, "; not declared permissive any more: a_t"},
		{[]string{"a_t", "b_t"}, want("b_t", "c_t"), "; permissive from now on: c_t; not declared permissive any more: a_t"},
	} {
		if got := permissiveChange(c.before, c.want); got != c.says {
			t.Errorf("%v, %v: %q, want %q", c.before, c.want, got, c.says)
		}
	}
}

// The modules that are read come from anybody.
func FuzzPermissiveIn(f *testing.F) {
	f.Add("(typepermissive a_t)")
	f.Add("(optional x (typepermissive a_t)) ; \"")
	f.Fuzz(func(t *testing.T, text string) {
		domains := permissiveIn(text)
		if only := onlyPermissive(text); only != nil && !slices.Equal(only, domains) {
			t.Errorf("%q makes %q permissive, and only %q", text, domains, only)
		}
	})
}

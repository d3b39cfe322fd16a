package filecontexts

import (
	"slices"
	"strings"
	"testing"
)

func parse(t testing.TB, text string) *Contexts {
	t.Helper()
	c := New()
	if err := c.Add("test", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLookup(t *testing.T) {
	c := parse(t, `
# comment
/.*	a:b:default_t:s0
/var(/.*)?	a:b:var_t:s0
/var/lib/[^/]+	-d	a:b:lib_t:s0
/var/lib/x	a:b:x_t:s0
/var/run	-l	a:b:run_t:s0
/var/none(/.*)?	<<none>>
/var/none/but	a:b:but_t:s0
/opt/a\.b/.*	a:b:dot_t:s0
/colou?r	a:b:colour_t:s0
/(etc|conf)/x.	--	a:b:etc_t:s0
/var/lib/.*	a:b:last_t:s0
`)
	for _, test := range []struct {
		path string
		kind Kind
		want string
	}{
		{"/", Directory, "default_t"},
		{"/var", Directory, "var_t"},
		{"/variable", Regular, "default_t"},
		{"/var/lib/x", Regular, "x_t"}, // no expression, so before all of them
		{"/var/lib/y", Directory, "last_t"},
		{"/var/run", Link, "run_t"},
		{"/var/run", Directory, "var_t"},
		{"/var/none/thing", Regular, ""},
		{"/var/none/but", Regular, "but_t"},
		{"/opt/a.b/c", Regular, "dot_t"},
		{"/opt/axb/c", Regular, "default_t"},
		{"/color", Regular, "colour_t"},
		{"/colour", Regular, "colour_t"},
		{"/colouur", Regular, "default_t"},
		{"/etc/x\xff", Regular, "etc_t"}, // one byte is one character
		{"/etc/x\n", Regular, "etc_t"},
		{"/etc/xé", Regular, "default_t"}, // two bytes
		{"/etc/x1", Directory, "default_t"},
	} {
		got, found := c.Lookup(test.path, test.kind)
		if found != (test.want != "") || found && got != "a:b:"+test.want+":s0" {
			t.Errorf("%q: %q, %v, want %q", test.path, got, found, test.want)
		}
	}
}

func TestSubstitutions(t *testing.T) {
	c := parse(t, "/usr/lib/x\ta:b:x_t:s0\n/home/u\ta:b:u_t:s0\n/\ta:b:root_t:s0\n/a\ta:b:a_t:s0\n")
	if err := c.addDist("d", strings.NewReader("/lib64 /lib\n# no\n/lib /usr/lib\n/run /var/run\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.addSubs("s", strings.NewReader("/srv/home /home\n/chroot /\n")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/lib/x": "x_t", "/lib64/x": "", "/srv/home/u": "u_t", "/chroot": "root_t", "/chroot/a": "a_t", "/libx": "", "/chroots/a": "",
	} {
		got, found := c.Lookup(path, Regular)
		if found != (want != "") || found && got != "a:b:"+want+":s0" {
			t.Errorf("%s: %q, %v, want %q", path, got, found, want)
		}
	}
}

func TestMessages(t *testing.T) {
	for text, want := range map[string]string{
		"/x\n":                                "cannot use test:1: a context is missing",
		"\n/x -q a:b:c\n":                     `cannot use test:2: there is no type of files "-q"`,
		"/x(?=y) a:b:c":                       "cannot use test:1: cannot read the expression /x(?=y): error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
		"/\xffx a:b:c":                        "cannot use test:1: an expression must be ASCII",
		"/x[ a:b:c":                           "cannot use test:1: cannot read the expression /x[: error parsing regexp: missing closing ]: `[`",
		strings.Repeat("/x", 3000) + " a:b:c": "cannot use test:1: an expression of 6000 bytes is too long",
	} {
		if got := parse(t, text).Problems(); !slices.Equal(got, []string{want}) {
			t.Errorf("%.40q: %q, want %s", text, got, want)
		}
	}
}

// A line that cannot be used takes the answer from the paths that it may be meant for, and from no other.
func TestUnusableLine(t *testing.T) {
	c := parse(t, `/.*	a:b:default_t:s0
/srv(/.*)?	a:b:srv_t:s0
/srv/(?!private)[a-z]+	-d	a:b:look_t:s0
/opt/([a-z]+)/\1/x	a:b:back_t:s0
/opt/a[(?=)]*+/y	a:b:possessive_t:s0
/opt/(?>ab|a)(?<=b(c))d	a:b:atomic_t:s0
/broken/[a	a:b:broken_t:s0
/srv/data(/.*)?	a:b:data_t:s0
`)
	if len(c.Problems()) != 5 {
		t.Errorf("%d problems: %q", len(c.Problems()), c.Problems())
	}
	for _, test := range []struct {
		path string
		kind Kind
		want string // "?" where nobody knows
	}{
		{"/srv/web", Directory, "?"},
		{"/srv/web", Regular, "srv_t"},
		{"/srv/web/x", Directory, "srv_t"},
		{"/srv/WEB", Directory, "srv_t"},
		{"/srv/data", Directory, "data_t"}, // a later line
		{"/opt/a/b/x", Regular, "?"},
		{"/opt/a/b/z", Regular, "default_t"},
		{"/opt/a((?/y", Regular, "?"},
		{"/opt/ab/y", Regular, "default_t"},
		{"/opt/abd", Regular, "?"},
		{"/opt/ab", Regular, "default_t"},
		{"/broken/q", Regular, "?"}, // not even how it goes on is known
		{"/brok", Regular, "default_t"},
	} {
		got, found := c.Find(test.path, test.kind)
		want := Match{Context: "a:b:" + test.want + ":s0"}
		if test.want == "?" {
			want = Match{Unusable: true}
		}
		want.Expression, want.File, want.Kind, want.Number = got.Expression, "test", got.Kind, got.Number
		if want.Unusable {
			want.Context = got.Context // what its line says
		}
		if !found || got != want {
			t.Errorf("%s: %+v, want %s", test.path, got, test.want)
		}
		if context, found := c.Lookup(test.path, test.kind); found != (test.want != "?") || found && context != want.Context {
			t.Errorf("%s: %s, %v", test.path, context, found)
		}
	}
}

// What is recognised without a regular expression is what the regular expression says.
func FuzzLookup(f *testing.F) {
	f.Add("/var(/.*)?", "/var/x")
	f.Add("/a/.*", "/a/\n")
	f.Add("/a\\.b.*", "/a.bc")
	f.Add("/ab?c", "/ac")
	f.Add("/a|/b", "/a/b")
	f.Add("/a\\-b", "/a-b")
	f.Fuzz(func(t *testing.T, expression, path string) {
		if len(strings.Fields(expression)) != 1 || strings.ContainsAny(expression, "\x00 \t\n\v\f\r") || strings.HasPrefix(expression, "#") || !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
			return
		}
		c := New()
		if err := c.Add("f", strings.NewReader(expression+" a:b:c:s0\n")); err != nil || c.Len() == 0 || len(c.Problems()) > 0 {
			return
		}
		_, got := c.Lookup(path, Regular)
		expr, err := compile(expression)
		if err != nil {
			return
		}
		_, _, literal := beginning(expression)
		want := expr.MatchString(latin1(path))
		if literal && strings.HasSuffix(path, "\n") {
			return // libselinux compares these as they are
		}
		if got != want {
			t.Errorf("%q on %q: %v, the expression says %v", expression, path, got, want)
		}
	})
}

// What is left of an expression without its conditions matches all that the expression matches.
func FuzzLoosened(f *testing.F) {
	f.Add("/a(?:b|c)++[(?=]\\.x", "/ab(.x")
	f.Add(`/\(?=x{2}+`, "/(=xx")
	f.Fuzz(func(t *testing.T, expression, path string) {
		exact, err := compile(expression)
		if err != nil || !exact.MatchString(path) {
			return
		}
		if loose, err := compile(loosened(expression)); err != nil || !loose.MatchString(path) {
			t.Errorf("%q matches %q, and %q does not: %v", expression, path, loosened(expression), err)
		}
	})
}

// A context is rewritten wherever its entry is kept, and asked for once.
func TestRewrite(t *testing.T) {
	c := parse(t, "/a\ta:b:old_t:s0\n/srv/data(/.*)?\ta:b:old_t:s0\n/x.z\ta:b:old_t:s0\n/keep\ta:b:c:s0\n/none\t<<none>>\n")
	asked := map[string]int{}
	c.Rewrite(func(context string) string { asked[context]++; return strings.Replace(context, "old_t", "new_t", 1) })
	for path, want := range map[string]string{"/a": "a:b:new_t:s0", "/srv/data/x": "a:b:new_t:s0", "/xyz": "a:b:new_t:s0", "/keep": "a:b:c:s0", "/none": ""} {
		if got, found := c.Lookup(path, Regular); found != (want != "") || found && got != want {
			t.Errorf("%s: %q, %v", path, got, found)
		}
	}
	if len(asked) != 2 || asked["a:b:old_t:s0"] != 1 {
		t.Errorf("asked for %v", asked)
	}
}

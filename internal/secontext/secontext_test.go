package secontext

import (
	"strings"
	"testing"

	"github.com/opencontainers/selinux/go-selinux"
)

func TestCheck(t *testing.T) {
	const c = "system_u:object_r:container_file_t:"
	for context, want := range map[Context]string{
		c + "s0":                                "",
		c + "s0:c1,c2":                          "",
		c + "s0-s15:c0.c1023":                   "",
		c + "s0:c65535":                         "",
		"system_u:object_r:my_block.process:s0": "",

		"":                  "it is not user:role:type:level",
		None:                "it is not user:role:type:level",
		"container_file_t":  "it is not user:role:type:level",
		"a:b:c":             "it is not user:role:type:level",
		"a:b:c:":            `"" is not a sensitivity`,
		"a:b:c:SystemLow":   `"SystemLow" is not a sensitivity`,
		"a:b:c:s0:":         `"" is not a category`,
		"a:b:c:s0:c1;c2":    `"c1;c2" is not a category`,
		"a:b:c:s0:c01":      `"c01" is not a category`,
		"a:b:c:s0:c+1":      `"c+1" is not a category`,
		"a:b:c:s0:c65536":   `"c65536" is not a category`,
		"a:b:c:s0:c3.c1":    "the second is not higher than the first",
		"a:b:c:s0:c1.c1":    "the second is not higher than the first",
		"a:b:c:s0:c1.c2.c3": `"c1.c2.c3" is not a category`,
		"a:b:c:s0-s1-s2":    `"s1-s2" is not a sensitivity`,
		"a:b:c:s1-s0":       "its second level has not all of the first",
		"a:b:c:s0:c1-s0:c2": "its second level has not all of the first",
		"a:b:c d:s0":        `"c d" is not the name of a type`,
		"a:b:c\n:s0":        `"c\n" is not the name of a type`,
		"a:b:\x00c:s0":      "is not the name of a type",
		"a:b.:c:s0":         `"b." is not the name of a role`,
		"a:b..c:c:s0":       `"b..c" is not the name of a role`,
		"9:b:c:s0":          `"9" is not the name of a user`,
		Context(strings.Repeat("a", 256) + ":b:c:s0"):                "is not the name of a user",
		Context("a:b:c:s0:c0" + strings.Repeat(",c1000", MaxSize/6)): "the kernel takes at most 4000",
	} {
		err := context.Check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", context, err, want)
		}
	}
}

func TestSame(t *testing.T) {
	const c = "u:r:t:"
	for _, x := range []struct {
		a, b string
		want bool
	}{
		{c + "s0", c + "s0", true}, {c + "s0", c + "s1", false}, {c + "s0:c1,c2", c + "s0:c2,c1", true}, {c + "s0:c1.c3", c + "s0:c1,c2,c3", true},
		{c + "s0:c1.c3", c + "s0:c1,c3", false}, {c + "s0", c + "s0-s0", true}, {c + "s0-s0:c0.c1", c + "s0-s0:c0,c1", true},
		{c + "s0-s0:c1", c + "s0", false}, {c + "s0", "u:r:x:s0", false}, {c + "s0", "u:x:t:s0", false}, {c + "s0", "x:r:t:s0", false},
		{"u:r:t", "u:r:t", true}, {"u:r:t", c + "s0", false}, {c + "s0:c0.c1023", c + "s0:c0.c1022", false}, {c + "s0:c1,c1", c + "s0:c1", true},
		{c + "s0:c1.c5,c3.c9", c + "s0:c1.c9", true}, {c + "s0:c1.c2,c4", c + "s0:c1,c2,c4", true},
		{c + "s0:c3.c1", c + "s0:c1.c3", false}, {c + "s0:c1.c999999999", c + "s0", false}, {"", c, false}, {c + "x", c + "y", false},
	} {
		if Same(x.a, x.b) != x.want || Same(x.b, x.a) != x.want {
			t.Errorf("%q and %q: %v", x.a, x.b, !x.want)
		}
	}
}

func TestForms(t *testing.T) {
	for _, x := range []struct {
		context           Context
		tidy, option, cil string
		shared            bool
	}{
		{"u:r:t:s0", "u:r:t:s0", `context="u:r:t:s0"`, "(u r t ((s0) (s0)))", true},
		{"u:r:t:s0-s0", "u:r:t:s0", `context="u:r:t:s0-s0"`, "(u r t ((s0) (s0)))", true},
		{"u:r:t:s1", "u:r:t:s1", `context="u:r:t:s1"`, "(u r t ((s1) (s1)))", false},
		{"u:r:t:s0:c20,c10", "u:r:t:s0:c10,c20", `context="u:r:t:s0:c20,c10"`, "(u r t ((s0 (c10 c20)) (s0 (c10 c20))))", false},
		{"u:r:t:s0:c5,c4,c1", "u:r:t:s0:c1,c4,c5", `context="u:r:t:s0:c5,c4,c1"`, "(u r t ((s0 (c1 (range c4 c5))) (s0 (c1 (range c4 c5)))))", false},
		{"u:r:t:s0-s0:c0.c1023,c7", "u:r:t:s0-s0:c0.c1023", `context="u:r:t:s0-s0:c0.c1023,c7"`, "(u r t ((s0) (s0 ((range c0 c1023)))))", false},
		{"u:r:t:x", "u:r:t:x", `context="u:r:t:x"`, "(u r t ((x)))", false},
		{None, "<<none>>", `context="<<none>>"`, "()", false},
	} {
		if got := string(x.context.Tidy()); got != x.tidy {
			t.Errorf("%s: tidy %s", x.context, got)
		}
		if got := x.context.MountOption(); got != x.option {
			t.Errorf("%s: option %s", x.context, got)
		}
		if got := x.context.CIL(); got != x.cil {
			t.Errorf("%s: CIL %s", x.context, got)
		}
		if got := x.context.Shared(); got != x.shared {
			t.Errorf("%s: shared %v", x.context, got)
		}
	}
	if got := Context("u:r:t:s0:c1").WithType("x").WithLevel("s0"); got != "u:r:x:s0" {
		t.Error(got)
	}
	if got := Context("u:r:t").WithType("x"); got != "u:r:x" {
		t.Error(got)
	}
	if got := Context("").MountOption(); got != "" {
		t.Errorf("an option without a value: %s", got)
	}
}

func TestContain(t *testing.T) {
	for _, x := range []struct {
		all, some string
		want      bool
	}{
		{"s0:c1,c2", "s0:c1,c2", true}, {"s0:c1,c2", "s0", true}, {"s0:c1,c2", "s0:c1", true}, {"s0:c1,c2", "s0:c1,c3", false},
		{"s0", "s0:c1", false}, {"s0:c0.c9", "s0:c3,c4", true}, {"s0:c0.c3,c5.c9", "s0:c3.c5", false},
	} {
		all, err := ParseRange(x.all)
		if err != nil {
			t.Fatal(err)
		}
		some, err := ParseRange(x.some)
		if err != nil {
			t.Fatal(err)
		}
		if got := all.High.Categories.Contain(some.Low.Categories); got != x.want {
			t.Errorf("%s in %s: %v", x.some, x.all, got)
		}
	}
}

// What container runtimes make of a level is what we make of it. Their library has no reader of levels of its own to ask: the range that
// two equal ones have in common is that range, as it writes it.
func theirs(t *testing.T, level string) string {
	t.Helper()
	text, err := selinux.CalculateGlbLub(level, level)
	if err != nil {
		t.Errorf("%q is taken here, and by container runtimes not: %v", level, err)
	}
	return text
}

func TestRuntimesReadTheSame(t *testing.T) {
	for _, level := range []string{"s0", "s0-s0", "s0:c1,c2", "s0:c2,c1", "s0:c1.c3", "s0:c1,c2,c3,c5", "s0:c0.c1023", "s0-s0:c0.c1023", "s1:c7-s3:c1.c9", "s0:c1,c1,c4.c5"} {
		ours, err := ParseRange(level)
		if err != nil {
			t.Fatal(err)
		}
		if got := theirs(t, level); got != ours.String() {
			t.Errorf("%s: %s here, %s by container runtimes", level, ours, got)
		}
		text := Context("u:r:t:" + level)
		parts, err := selinux.NewContext(string(text))
		if err != nil || parts["user"] != text.User() || parts["role"] != text.Role() || parts["type"] != text.Type() || parts["level"] != text.Level() {
			t.Errorf("%s: %v, %v", text, parts, err)
		}
	}
}

func FuzzContext(f *testing.F) {
	f.Add("u:r:t:s0:c1.c3", "u:r:t:s0:c1,c2,c3")
	f.Add("u:r:t:s0-s1:c9,c1.c3", "<<none>>")
	f.Fuzz(func(t *testing.T, a, b string) {
		if Same(a, b) != Same(b, a) || !Same(a, a) {
			t.Error(a, b)
		}
		c := Context(a)
		_ = c.CIL() + c.MountOption()
		if tidy := c.Tidy(); !Same(a, string(tidy)) || tidy.Tidy() != tidy || (c.Check() == nil) != (tidy.Check() == nil) && len(a) <= MaxSize {
			t.Errorf("%q: %q", a, tidy)
		}
		if r, err := ParseRange(c.Level()); err == nil {
			if got := theirs(t, c.Level()); got != r.String() {
				t.Errorf("%q: %s here, %s by container runtimes", a, r, got)
			}
		}
	})
}

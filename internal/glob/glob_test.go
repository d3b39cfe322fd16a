package glob

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/var/lib/data", "/var/lib/data", true}, {"/var/lib/data", "/var/lib/data2", false}, {"", "", true}, {"", "x", false},
		{"/a/*", "/a/b", true}, {"/a/*", "/a/", true}, {"/a/*", "/a/b/c", false}, {"/a/*", "/a", false}, {"/a/**", "/a/b/c", true},
		{"/a/**/c", "/a/b/b/c", true}, {"/**", "/", true}, {"/a/***", "/a/b/c", true}, {"/a?", "/ab", true}, {"/a?b", "/a/b", false},
		{"/[ab]x", "/ax", true}, {"/[ab]x", "/cx", false}, {"/[!ab]x", "/cx", true}, {"/[^ab]x", "/ax", false}, {"/[!b]", "//", false},
		{"/[a-c]", "/b", true}, {"/[a^]", "/^", true}, {`/\*`, "/*", true}, {`/\*`, "/x", false}, {`/\[`, "/[", true}, {"/a.b", "/axb", false},
		{"/a b(c)+", "/a b(c)+", true}, {"/*", "/a\nb", true}, {"/**", "/a\n/b", true}, {"/ü?", "/üä", true}, {"srv:/x/*", "srv:/x/y", true},
	} {
		p, err := Compile(c.pattern)
		if err != nil {
			t.Fatalf("%q: %v", c.pattern, err)
		}
		if p.Match(c.name) != c.want {
			t.Errorf("%q and %q: %v", c.pattern, c.name, !c.want)
		}
	}
}

func TestSpecific(t *testing.T) {
	for pattern, want := range map[string]string{"/a/b": "/a/b", "/a/*/c": "/a/", "/a[bc]d": "/a", `/a\*b?`: "/a*b", "**": ""} {
		p, err := Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if p.Prefix() != want || p.Exact() != (pattern == "/a/b") {
			t.Errorf("%q: %q, %v", pattern, p.Prefix(), p.Exact())
		}
	}
}

func TestErrors(t *testing.T) {
	for pattern, want := range map[string]string{
		"/[a": "a [ has no ]", "/[]": "between [ and ] come characters and ranges, such as [a-z0-9]", `/a\`: `nothing follows the last \`,
		"/[z-a]": "a range between [ and ] ends before it begins", "/[!]x": "between [ and ] come characters and ranges, such as [a-z0-9]",
		"/[a/b]": "between [ and ] come characters and ranges, such as [a-z0-9]",
	} {
		if _, err := Compile(pattern); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", pattern, err, want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("/a/**/[!b-c]?", "/a/b")
	f.Add(`\[`, "[")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := Compile(pattern)
		if err != nil {
			return
		}
		if p.Match(name) && p.Exact() && name != p.Prefix() {
			t.Error("an exact pattern fits another name")
		}
		p.Match(pattern)
	})
}

package filecontexts

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// like compares what is said inside of each directory of a path with what Find says of the whole path, and tells how often that could be.
func like(t *testing.T, c *Contexts, path string) (compared int) {
	t.Helper()
	parts := strings.Split(path, "/")
	var in *Inside
	for i := 1; i < len(parts); i++ {
		dir, name := strings.Join(parts[:i], "/"), parts[i]
		begun := c.Inside(dir)
		if in != nil {
			in = in.Enter(parts[i-1])
		} else {
			in = begun
		}
		if in == nil {
			continue
		}
		for _, kind := range []Kind{Any, Regular, Directory, Link} {
			want, found := c.Find(dir+"/"+name, kind)
			for how, one := range map[string]*Inside{"gone on to": in, "begun there": begun} {
				if one == nil {
					t.Fatalf("%q: nothing is said inside, and it was of the one above", dir)
				}
				if got, known := one.Find(name, kind); got != want || known != found {
					t.Errorf("%q in %q, %s, as %q: %+v, %v, by its path %+v, %v", name, dir, how, kind, got, known, want, found)
				}
			}
			compared++
		}
	}
	return compared
}

// What is said step by step is what is said of the whole path.
func TestInside(t *testing.T) {
	c := parse(t, `/.*	a:b:default_t:s0
/d(/.*)?	a:b:d_t:s0
/d/.*\.so(\.[^/]*)*	--	a:b:so_t:s0
/d/(.*/)?bin(/.*)?	a:b:bin_t:s0
/d/[^/]+/[^/]+	-d	a:b:two_t:s0
/d/(.*/)?none(/.*)?	<<none>>
/d/(?i)upper/.*	a:b:upper_t:s0
/d/.*\bword	a:b:word_t:s0
/d/.*x{3}	a:b:three_t:s0
/d/a|/o	a:b:loose_t:s0
/d/.*(?=look)ed	a:b:look_t:s0
/e.*	-l	a:b:e_t:s0
/e/.*	a:b:below_t:s0
`)
	if err := c.addSubs("s", strings.NewReader("/f /d\n/g /\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.addDist("s", strings.NewReader("/d/dist /e\n")); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range []string{
		"/deep/directory/x", "/d/lib/a/b.so/c.so.1/d.so.x", "/d/long/way/bin/x/bin/none/bin/y", "/d/one/two/three/four", "/d/UPPER/x/y/z", "/d/aaaaaaa/a word/words/word",
		"/d/aaaaaaaaa/xx/xxx/axxxx/x", "/d/looked/xlooked/lookedx/x\nlooked", "/e\xff/a/b/c", "/eeeeeeeeee/a/b", "/e/eeeeeeee/a/b\n/c\n", "/f/ffffffffffff/bin/x.so",
		"/g/ggggggggggggg/d/bin/x", "/d/dist/ddddddddddd/a/b", "/other/oooooooo/o/a/o", "/d/aaaaaaaaaa/\xc3\xa9/bin/\xff.so",
	} {
		compared += like(t, c, path)
	}
	if compared < 100 {
		t.Errorf("%d compared", compared)
	}
	// A directory that tells nothing new is the same one: a deep tree takes no memory.
	in := c.Inside("/d/lib/lib/lib/lib")
	if in.Enter("lib") != in || in.Enter("bin") == in {
		t.Error("entered")
	}
	if c.Inside("/d/lib") != nil {
		t.Error("a path that a substitution may be longer than")
	}
}

// The same for any expressions.
func FuzzInside(f *testing.F) {
	f.Add("/.*", "/a(/.*)?", "/b/(.*/)?c", "/a/b/c/d/e")
	f.Add("/a|/b", "/[^/]+/.*", "/.*\\bx", "/aaaaaaa/x/b x/c")
	f.Add("(?m)^/x$", "/.+\n", "/(?i)A/b.*", "/aaaaaaaaaa/b\n/x/y")
	f.Add("/b++x", "/a/(?!b).*", "/(a)/\\1", "/aaaaaaaaaa/b/bbx")
	f.Fuzz(func(t *testing.T, one, two, three, path string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || filepath.Clean(path) != path || len(path) > 200 {
			return
		}
		c := New()
		for i, expression := range []string{one, two, three} {
			if len(strings.Fields(expression)) != 1 || len(expression) > 60 {
				return
			}
			if err := c.Add("f", strings.NewReader(fmt.Sprintf("%s %s a:b:t%d:s0\n", expression, []string{"", "--", "-d"}[i], i))); err != nil {
				return
			}
		}
		like(t, c, path)
	})
}

// The same for the policies of this machine, deep below paths that are made from their own lines.
func TestInsideOfRealPolicies(t *testing.T) {
	files := realPolicies(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, file := range files {
		c := load(t, file)
		names := []string{"x", "bin", "lib", "www", "html", "log", "a.so", "b.so.1", "lost+found", "home", "core", ".ssh", "cgi-bin", "plugins", "0", "etc", "sbin", "tmp", "git", "x y", "\xff"}
		var literals []string
		for m := range c.All {
			literal, _ := Beginning(m.Expression)
			if literal = filepath.Clean(literal); strings.HasPrefix(literal, "/") {
				literals = append(literals, literal)
			}
		}
		compared := 0
		for range 300 {
			path := strings.TrimSuffix(literals[random.IntN(len(literals))], "/")
			for range 1 + random.IntN(5) {
				path += "/" + names[random.IntN(len(names))]
			}
			path += "/" + strings.Repeat("deep/", 1+c.longest/5)
			for range 6 {
				path += names[random.IntN(len(names))] + "/"
			}
			compared += like(t, c, strings.TrimSuffix(path, "/"))
		}
		t.Logf("%s: %d compared", file, compared)
	}
}

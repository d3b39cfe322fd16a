package filecontexts

import (
	"slices"
	"strings"
	"testing"
)

func TestSamples(t *testing.T) {
	for expression, want := range map[string]string{
		"/srv/data(/.*)?":       "/srv/data/selinux-provision-sample /srv/data",
		"/srv/data/.*":          "/srv/data/selinux-provision-sample",
		"/srv/data/.+":          "/srv/data/selinux-provision-sample /srv/data/x",
		"/srv/data(/[^/]*)?":    "/srv/data/x /srv/data",
		"/srv/data":             "/srv/data",
		`/srv/a\.b\s?c`:         "/srv/a.b\tc /srv/a.bc",
		"/srv/disk[0-9]+(/.*)?": "/srv/disk1/selinux-provision-sample /srv/disk1",
		"/srv/(one|two)/x{2}":   "/srv/one/xx /srv/two/xx",
		"/srv/a{2,}b{0,1}c{0}":  "/srv/aab /srv/aa",
		"/srv/[a-c]?.?":         "/srv/ax",
		"^/srv/x$":              "/srv/x",
		"/(?i)SRV/x":            "/SRV/X",
		"/(var/)?run/app(/.*)?": "/var/run/app/selinux-provision-sample /run/app",
		"/srv/one|/srv/two":     "/srv/one /srv/two",
		"/":                     "/",
		"/srv/slash/":           "",
		"/srv/slash/.*/":        "",
		"/srv//data(/.*)?":      "",
		"/srv/data/?":           "/srv/data",
		"/srv/glob/*":           "/srv/glob",
		"/srv/[^/]+/data":       "/srv/x/data",
		"/srv/(?=x)x":           "-",
		`/srv/a\bc`:             "-",
		"/srv/(a":               "-",
		`/srv/\Qa.b\E`:          "/srv/a.b",
		"/srv/[[:digit:]]{3}":   "/srv/111",
		"/srv/[%-)]":            "/srv/%",
		"/(a{1000}){5}":         "-",
	} {
		paths, known := Samples(expression)
		got := strings.Join(paths, " ")
		if !known {
			got = "-"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
}

func TestMistake(t *testing.T) {
	for expression, want := range map[string]string{
		"/srv/slash/":     "no path ends in a slash: write /srv/slash, and (/.*)? behind it if all that is below it is meant, too",
		"/srv//x(/.*)?":   "no path of a file looks like that: write the path as ls shows it, without double slashes and without a slash at the end",
		"/srv/glob/*":     "it is a regular expression, in which /* is any number of slashes: write /srv/glob(/.*)? for the directory and all that is below it, or /srv/glob/[^/]+ for what is in it",
		"/srv/*.log":      "it is a regular expression, in which /* is any number of slashes: write /srv(/.*)? for the directory and all that is below it, or /srv/[^/]+ for what is in it",
		"/srv/log*":       "it is a regular expression, in which g* is any number of g: write /srv/log[^/]* for names that begin so, and (/.*)? behind it if all that is below them is meant, too",
		"/srv/[!a]x":      "it is a regular expression, in which [! begins a list that has a ! in it: write [^ for any other character",
		"/srv/data(/.*)?": "", "/srv/[^/]*": "", `/srv/\d*/x`: "", "/srv/a.*": "", "/srv/(a|b)*": "", "/srv/[/*]x": "", "/srv/x/?": "", "/srv/(?=x)x": "", "/": "", `/srv/\*`: "",
		"/dev/[shmxv]d[^/]*": "", "/srv/a+": "", "/srv/a?": "",
	} {
		problem, remedy := Mistake(expression)
		if got := strings.TrimSuffix(problem+": "+remedy, ": "); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
}

// A sample is a match, as a look-up has it.
func FuzzSamples(f *testing.F) {
	for _, seed := range []string{"/srv/data(/.*)?", "/a|b", "/[^a]{2,3}", `/\x41`, "/(x*)*", "/srv//", "/é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		paths, known := Samples(expression)
		if !known && len(paths) > 0 || len(paths) > 2 {
			t.Fatal(paths)
		}
		c := New()
		if strings.ContainsAny(expression, " \t\n\v\f\r\u0085\u00a0") || len(expression) == 0 || expression[0] != '/' {
			return
		}
		if err := c.add("x", expression, Any, "u:r:t:s0"); err != nil {
			return
		}
		for _, p := range paths {
			if _, found := c.Lookup(p, Regular); !found {
				t.Errorf("%q does not match %q", expression, p)
			}
		}
		if slices.Contains(paths, "") {
			t.Error("an empty path")
		}
	})
}

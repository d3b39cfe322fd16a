package archtest

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is one line of the tables in docs/promises.md: an identifier, what is promised, the state, the tests, what is open.
type row struct {
	line                      int
	id, state, tests, lacking string
}

// namedTest is the name of a test as docs/promises.md writes it, in backquotes: the directory of the package, a dot, the
// function.
func namedTest() *regexp.Regexp {
	return regexp.MustCompile("`([a-z0-9][a-z0-9/_-]*)\\.((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]*)`")
}

// docs/promises.md claims nothing that no test shows: every promise has its line, every test named there exists, and what is
// not proven says so.
func TestPromises(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "promises.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, s := range parseModule(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && s.isTest() {
				exists[s.dir+"."+f.Name.Name] = true
			}
		}
	}
	for _, finding := range checkPromises(string(text), exists) {
		t.Error("docs/promises.md" + finding)
	}
}

func checkPromises(text string, exists map[string]bool) (findings []string) {
	complain := func(line int, format string, a ...any) {
		findings = append(findings, fmt.Sprintf(":%d: ", line)+fmt.Sprintf(format, a...))
	}
	var seen []string
	for _, r := range readRows(text) {
		if slices.Contains(seen, r.id) {
			complain(r.line, "%s has two lines", r.id)
		}
		seen = append(seen, r.id)
		named := len(namedTest().FindAllString(r.tests, -1))
		// Whatever else is in backquotes is a misspelt test, and would be checked by nobody.
		if quoted := strings.Count(r.tests, "`") / 2; quoted != named {
			complain(r.line, "%s names something that is no test: write `directory.TestName`", r.id)
		}
		switch r.state {
		case "proven":
			if named == 0 || r.lacking != "" {
				complain(r.line, "%s is called proven: it needs a test, and nothing that is open", r.id)
			}
		case "partly":
			if named == 0 || r.lacking == "" {
				complain(r.line, "%s is called partly proven: it needs a test, and what is open", r.id)
			}
		case "open":
			if named > 0 || r.lacking == "" {
				complain(r.line, "%s is called open: it needs what is open, and no test", r.id)
			}
		default:
			complain(r.line, "%s has the state %q: write proven, partly or open", r.id, r.state)
		}
	}
	for _, series := range []struct {
		letter string
		last   int
	}{{"P", 7}, {"V", 10}} {
		for n := range series.last {
			if id := fmt.Sprintf("%s%d", series.letter, n+1); !slices.Contains(seen, id) {
				complain(1, "%s has no line", id)
			}
		}
	}
	name := namedTest()
	for i, line := range strings.Split(text, "\n") {
		for _, test := range name.FindAllStringSubmatch(line, -1) {
			if !exists[test[1]+"."+test[2]] {
				complain(i+1, "there is no test %s in %s", test[2], test[1])
			}
		}
	}
	return findings
}

func readRows(text string) (rows []row) {
	for i, line := range strings.Split(text, "\n") {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !strings.HasPrefix(line, "|") || len(cells) != 5 || !isPromise(cells[0]) {
			continue
		}
		rows = append(rows, row{line: i + 1, id: cells[0], state: cells[2], tests: cells[3], lacking: cells[4]})
	}
	return rows
}

func isPromise(id string) bool {
	return len(id) > 1 && (id[0] == 'P' || id[0] == 'V') && strings.Trim(id[1:], "0123456789") == ""
}

func TestPromisesFind(t *testing.T) {
	exists := map[string]bool{"a/b.TestX": true}
	table := func(first string) string {
		text := first + "\n"
		for _, id := range strings.Fields("P1 P2 P3 P4 P5 P6 P7 V1 V2 V3 V4 V5 V6 V7 V8 V9 V10") {
			if !strings.HasPrefix(first, "| "+id+" ") {
				text += "| " + id + " | what | open | | nothing yet |\n"
			}
		}
		return text
	}
	for line, want := range map[string]string{
		"| P1 | what | proven | `a/b.TestX` | |":                      "",
		"| P1 | what | partly | `a/b.TestX` and `a/b.TestX` | more |": "",
		"| P1 | what | proven | `a/b.TestY` | |":                      ":1: there is no test TestY in a/b",
		"| P1 | what | proven | | |":                                  ":1: P1 is called proven: it needs a test, and nothing that is open",
		"| P1 | what | proven | `a/b.TestX` | more |":                 ":1: P1 is called proven: it needs a test, and nothing that is open",
		"| P1 | what | partly | `a/b.TestX` | |":                      ":1: P1 is called partly proven: it needs a test, and what is open",
		"| P1 | what | open | `a/b.TestX` | more |":                   ":1: P1 is called open: it needs what is open, and no test",
		"| P1 | what | sure | `a/b.TestX` | |":                        `:1: P1 has the state "sure": write proven, partly or open`,
		"| P1 | what | proven | `a/b.TestX`, `a/b TestX` | |":         ":1: P1 names something that is no test: write `directory.TestName`",
		"| P1 | what |": ":1: P1 has no line",
	} {
		got := strings.Join(checkPromises(table(line), exists), "\n")
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", line, got, want)
		}
	}
	if got := checkPromises(table("| P2 | what | open | | x |\n| P2 | what | open | | x |"), exists); len(got) != 1 || got[0] != ":2: P2 has two lines" {
		t.Errorf("got %q", got)
	}
}

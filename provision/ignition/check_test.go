package ignition

import (
	"flag"
	"os"
	"strings"
	"testing"
)

// update writes what Check says now into testdata/bad.txt: read the difference before it is committed.
var updateFlag = flag.Bool("update", false, "write what Check says now into testdata")

// badFile is one case of testdata/bad.txt.
type badFile struct {
	name, content, says string
}

// badFiles reads the table: "=== NAME", the file, "---", what is said about it. A ␀ stands for the byte 0.
func badFiles(t *testing.T) (all []badFile) {
	t.Helper()
	table, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split("\n"+string(table), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		content, says, ok := strings.Cut(rest, "\n---\n")
		if !ok {
			t.Fatalf("%s: no line with ---", name)
		}
		all = append(all, badFile{name, content + "\n", strings.TrimSpace(says)})
	}
	return all
}

// Every bad file is refused with exactly these messages, each with its line and its remedy.
//
// Proves V14.
func TestBadFiles(t *testing.T) {
	all := badFiles(t)
	if len(all) < 60 {
		t.Errorf("the table has %d bad files, at least 60 are wanted", len(all))
	}
	var table strings.Builder
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.name] {
			t.Errorf("two cases are named %q", c.name)
		}
		seen[c.name] = true
		_, findings, err := Check("x", strings.NewReader(strings.ReplaceAll(strings.TrimSuffix(c.content, "\n"), "␀", "\x00")), Options{FilesDir: "testdata/files"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var lines []string
		problems := 0
		for _, f := range findings {
			line := f.String()
			if f.Note {
				line = "note: " + line
			} else {
				problems++
				if f.Line == 0 && !strings.Contains(f.Problem, "empty file") && !strings.Contains(f.Problem, "binary") {
					t.Errorf("%s: no line: %s", c.name, line)
				}
				if f.Remedy == "" {
					t.Errorf("%s: no remedy: %s", c.name, line)
				}
			}
			lines = append(lines, line)
		}
		if problems == 0 {
			t.Errorf("%s: nothing is said to be wrong", c.name)
		}
		got := strings.Join(lines, "\n")
		if got != c.says && !*updateFlag {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.name, got, c.says)
		}
		table.WriteString("=== " + c.name + "\n" + strings.TrimSuffix(c.content, "\n") + "\n---\n" + got + "\n\n")
	}
	if *updateFlag {
		if err := os.WriteFile("testdata/bad.txt", []byte(strings.TrimSuffix(table.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

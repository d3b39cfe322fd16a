package ignition

import (
	"flag"
	"os"
	"strings"
	"testing"
)

// update writes what Check says now into testdata/bad.txt: read the difference before it is committed.
var updateFlag = flag.Bool("update", false, "write what Check says now into testdata")

// sample is one case of a table in testdata.
type sample struct {
	name, content, says string
}

// samples reads a table: "=== NAME", the file, "---", what is said about it. A ␀ stands for the byte 0.
func samples(t *testing.T, file string) (all []sample) {
	t.Helper()
	table, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split("\n"+string(table), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		content, says, ok := strings.Cut(rest+"\n", "\n---\n")
		if !ok {
			t.Fatalf("%s: no line with ---", name)
		}
		all = append(all, sample{name, content + "\n", strings.TrimSpace(says)})
	}
	return all
}

// compare checks every file of a table and compares what is said with what the table has, each with its line and its remedy. It is said
// again in the same words.
func compare(t *testing.T, file string, least int) (problems map[string]int) {
	t.Helper()
	all := samples(t, file)
	if len(all) < least {
		t.Errorf("%s has %d files, at least %d are wanted", file, len(all), least)
	}
	problems = map[string]int{}
	var table strings.Builder
	for _, c := range all {
		if _, twice := problems[c.name]; twice {
			t.Errorf("two cases are named %q", c.name)
		}
		problems[c.name] = 0
		got := ""
		for again := range 5 {
			_, findings, err := Check("x", strings.NewReader(strings.ReplaceAll(strings.TrimSuffix(c.content, "\n"), "␀", "\x00")), Options{FilesDir: "testdata/files"})
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				break
			}
			var lines []string
			for _, f := range findings {
				line := f.String()
				if f.Note {
					line = "note: " + line
				} else if again == 0 {
					problems[c.name]++
					if f.Line == 0 && !strings.Contains(f.Problem, "empty file") && !strings.Contains(f.Problem, "binary") {
						t.Errorf("%s: no line: %s", c.name, line)
					}
					if f.Remedy == "" {
						t.Errorf("%s: no remedy: %s", c.name, line)
					}
				}
				lines = append(lines, line)
			}
			now := strings.Join(lines, "\n")
			if again > 0 && now != got {
				t.Errorf("%s: said first\n%s\nand then\n%s", c.name, got, now)
			}
			got = now
		}
		if got != c.says && !*updateFlag {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.name, got, c.says)
		}
		table.WriteString("=== " + c.name + "\n" + strings.TrimSuffix(c.content, "\n") + "\n---\n" + got + "\n\n")
	}
	if *updateFlag {
		if err := os.WriteFile(file, []byte(strings.TrimSuffix(table.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return problems
}

// Every bad file is refused with exactly these messages, each with its line and its remedy.
//
// Proves V14.
func TestBadFiles(t *testing.T) {
	for name, problems := range compare(t, "testdata/bad.txt", 60) {
		if problems == 0 {
			t.Errorf("%s: nothing is said to be wrong", name)
		}
	}
}

// Of files as people write them, exactly what is wrong on an enforcing machine is said, and nothing else.
//
// Proves V14.
func TestRealFiles(t *testing.T) {
	right := 0
	for _, problems := range compare(t, "testdata/real.txt", 30) {
		if problems == 0 {
			right++
		}
	}
	if right < 10 {
		t.Errorf("nothing is wrong with %d files alone: too few to find a false alarm", right)
	}
}

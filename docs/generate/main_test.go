package main

import (
	"os"
	"strings"
	"testing"
)

// The generated documents are what the source says.
func TestPages(t *testing.T) {
	pages, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, page := range pages {
		stored, err := os.ReadFile("../../" + name)
		if err != nil || string(stored) != page {
			t.Errorf("%s is not what the source says (%v): run \"make generated\"", name, err)
		}
	}
}

// A page of promises that claims what no test says is an error, and what tests say is written into it.
func TestPromises(t *testing.T) {
	const page = "# Promises\n\n<!-- summary -->\n\nstale\n\n## To all\n\n### P1. First\n\nIt holds.\n\n- `a.TestStale`\n\n### V1. Second\n\nIt is seen.\n\nOpen: the rest.\n"
	proofs := func() map[string][]proof {
		return map[string][]proof{"P1": {{"a/b.TestX", "killed at each call"}, {"a/b.TestY", ""}}}
	}
	got, err := promises(page, proofs())
	want := "# Promises\n\n<!-- summary -->\n\n| | promise | state | tests |\n|---|---|---|---|\n| P1 | First | proven | 2 |\n| V1 | Second | open | 0 |\n\n" +
		"## To all\n\n### P1. First\n\nIt holds.\n\n- `a/b.TestX`: killed at each call\n- `a/b.TestY`\n\n### V1. Second\n\nIt is seen.\n\nOpen: the rest.\n"
	if err != nil || got != want {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
	if again, err := promises(got, proofs()); err != nil || again != got {
		t.Errorf("writing the page again changes it: %q, %v", again, err)
	}
	for want, c := range map[string]struct {
		page   string
		proofs map[string][]proof
	}{
		"P1 has no test that proves it":  {page, nil},
		"a.TestZ says that it proves V7": {page, map[string][]proof{"P1": {{"a.TestX", ""}}, "V7": {{"a.TestZ", ""}}}},
		"has two sections P1":            {page + "\n### P1. Again\n\nIt holds.\n", proofs()},
		"P2 says nothing":                {page + "\n### P2. Empty\n", proofs()},
		`has no line "<!-- summary -->"`: {strings.Replace(page, "<!-- summary -->", "", 1), proofs()},
	} {
		if _, err := promises(c.page, c.proofs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A claim is a line of its own in a test's comment, and goes on until the comment or the paragraph ends.
func TestClaims(t *testing.T) {
	got := parseProofs("TestX does it.\n\nProves P1, V12: killed at each call,\nand again.\nProves P2.\n\nProves nothing to anybody.\n")
	if len(got) != 2 || strings.Join(got[0].ids, " ") != "P1 V12" || got[0].what != "killed at each call, and again" ||
		strings.Join(got[1].ids, " ") != "P2" || got[1].what != "" {
		t.Errorf("got %+v", got)
	}
}

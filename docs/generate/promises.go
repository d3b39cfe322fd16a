package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// promise is a section of docs/promises.md. Heading, text and what is open are written by hand; the tests are made from their comments.
type promise struct {
	id, heading string   // "" is a heading above several promises, with its text
	text        []string // without the tests
	open        bool     // a paragraph says what nothing shows
}

// proof is a line "Proves ID: what" of a test's comment.
type proof struct {
	test, what string
}

// promises writes docs/promises.md anew: the sections as they are, with the tests that say that they prove them.
func promises(page string, proofs map[string][]proof) (string, error) {
	before, sections, err := readPromises(page)
	if err != nil {
		return "", err
	}
	var summary, body strings.Builder
	summary.WriteString("| | promise | state | tests |\n|---|---|---|---|\n")
	for _, p := range sections {
		if p.id == "" {
			body.WriteString(strings.Join(p.text, "\n") + "\n\n")
			continue
		}
		tests := proofs[p.id]
		delete(proofs, p.id)
		state := "proven"
		switch {
		case len(tests) == 0 && !p.open:
			return "", fmt.Errorf("%s has no test that proves it, and does not say what is open", p.id)
		case len(tests) == 0:
			state = "open"
		case p.open:
			state = "partly"
		}
		fmt.Fprintf(&summary, "| %s | %s | %s | %d |\n", p.id, p.heading, state, len(tests))
		body.WriteString(strings.Join(p.text, "\n") + "\n\n")
		for _, test := range tests {
			line := "- `" + test.test + "`"
			if test.what != "" {
				line += ": " + test.what
			}
			body.WriteString(line + "\n")
		}
		if len(tests) > 0 {
			body.WriteString("\n")
		}
	}
	for id, tests := range proofs {
		return "", fmt.Errorf("%s says that it proves %s, and docs/promises.md has no such promise", tests[0].test, id)
	}
	start, _, ok := strings.Cut(strings.Join(before, "\n"), summaryMark)
	if !ok {
		return "", fmt.Errorf("docs/promises.md has no line %q", summaryMark)
	}
	return start + summaryMark + "\n\n" + summary.String() + "\n" + strings.TrimRight(body.String(), "\n") + "\n", nil
}

const summaryMark = "<!-- summary -->"

// readPromises takes the page apart: what stands before the first heading, then a section for each.
func readPromises(page string) (before []string, sections []*promise, err error) {
	heading := regexp.MustCompile(`^##(?:# ([PV][0-9]+)\.)? (.+)$`)
	var current *promise
	for line := range strings.SplitSeq(strings.TrimRight(page, "\n"), "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			if m[1] != "" && slices.ContainsFunc(sections, func(p *promise) bool { return p.id == m[1] }) {
				return nil, nil, fmt.Errorf("docs/promises.md has two sections %s", m[1])
			}
			current = &promise{id: m[1], heading: m[2]}
			sections = append(sections, current)
		}
		switch {
		case current == nil:
			before = append(before, line)
			continue
		case strings.HasPrefix(line, "- `"):
			continue // made by promises
		case strings.HasPrefix(line, "Open: "):
			current.open = true
		}
		if line != "" || len(current.text) > 0 && current.text[len(current.text)-1] != "" {
			current.text = append(current.text, line)
		}
	}
	for _, p := range sections {
		for p.text[len(p.text)-1] == "" {
			p.text = p.text[:len(p.text)-1]
		}
		if p.id != "" && len(p.text) < 2 {
			return nil, nil, fmt.Errorf("docs/promises.md: %s says nothing", p.id)
		}
	}
	return before, sections, nil
}

// readProofs finds the lines "Proves P1, V2: what." in the comments of all tests below a directory.
func readProofs(root string) (map[string][]proof, error) {
	proofs := map[string][]proof{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		for _, d := range tree.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !regexp.MustCompile(`^(Test|Fuzz|Benchmark)`).MatchString(f.Name.Name) {
				continue
			}
			for _, p := range parseProofs(f.Doc.Text()) {
				for _, id := range p.ids {
					proofs[id] = append(proofs[id], proof{filepath.ToSlash(dir) + "." + f.Name.Name, p.what})
				}
			}
		}
		return nil
	})
	for _, list := range proofs {
		slices.SortFunc(list, func(a, b proof) int { return cmp.Or(strings.Compare(a.test, b.test), strings.Compare(a.what, b.what)) })
	}
	return proofs, err
}

// claim is what a comment says of several promises at once.
type claim struct {
	ids  []string
	what string
}

func parseProofs(comment string) (claims []claim) {
	first := regexp.MustCompile(`^Proves ([PV][0-9]+(?:, [PV][0-9]+)*)(?:: (.*)|\.)$`)
	inside := false
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		m := first.FindStringSubmatch(line)
		switch {
		case m != nil:
			claims = append(claims, claim{strings.Split(m[1], ", "), m[2]})
			inside = true
		case line == "":
			inside = false
		case inside:
			claims[len(claims)-1].what += " " + line
		}
	}
	for i := range claims {
		claims[i].what = strings.TrimSuffix(claims[i].what, ".")
	}
	return claims
}

package policystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
)

// site is a made-up policy: what breaks it, and how many builds were asked for.
type site struct {
	parts  []part
	breaks func(has func(name string) bool) string // what semodule says, "" if it builds
	builds int
	real   [][]int // the sets that were built for good
}

func (s *site) build(_ context.Context, in []int, forGood bool) error {
	s.builds++
	has := func(name string) bool {
		return slices.ContainsFunc(in, func(i int) bool { return s.parts[i].name == name })
	}
	if said := s.breaks(has); said != "" {
		return &command.ExitError{Tool: "semodule", Code: 1, Output: command.Output{Stderr: said + "\nsemodule:  Failed!\n"}}
	}
	if forGood {
		s.real = append(s.real, slices.Clone(in))
	}
	return nil
}

// resolve is what semodule says of a part that needs what is not there.
func resolve(name string) string {
	return "Failed to resolve allow statement at /x/tmp/modules/500/" + name + "/cil:1\nFailed to resolve AST"
}

const silent = "Problems without a name"

func TestSearch(t *testing.T) {
	// many are n modules, of which those in texts have that text.
	many := func(n int, texts map[string]string) []Module {
		var all []Module
		for i := range n {
			name := fmt.Sprintf("m%02d", i)
			text := texts[name]
			if text == "" {
				text = fmt.Sprintf("(type %s_t)", name)
			}
			all = append(all, Module{Name: name, Lang: "cil", Content: []byte(text)})
		}
		return all
	}
	for _, c := range []struct {
		name    string
		modules []Module
		hand    map[string]string
		local   []string
		breaks  func(has func(string) bool) string
		out     string // what is left out, in order of names
		builds  int    // at most
	}{
		{"nothing is wrong", many(20, nil), nil, nil, func(func(string) bool) string { return "" }, "", 1},
		{"one of 20, named", many(20, nil), nil, nil, func(has func(string) bool) string {
			if has("m07") {
				return resolve("m07")
			}
			return ""
		}, "m07", 2},
		{"one of 20, whose type the tool names", many(20, nil), nil, nil, func(has func(string) bool) string {
			if has("m13") {
				return "Conflicting type rules (result=m13_t)"
			}
			return ""
		}, "m13", 2},
		{"one that needs another, which comes later in the order of names", []Module{
			{Name: "app", Lang: "cil", Content: []byte("(block app (blockinherit container))")},
			{Name: "base_container", Lang: "cil", Content: []byte("(block container (type process))")},
			{Name: "svc", Lang: "cil", Content: []byte("(filecon \"/usr/bin/docker\" file (u r t ((s0)(s0))))")},
		}, nil, nil, func(has func(string) bool) string {
			switch {
			case has("app") && !has("base_container"):
				return resolve("app")
			case has("svc"):
				return silent
			}
			return ""
		}, "svc", 3},
		{"the base is wrong, so what needs it goes too", []Module{
			{Name: "app", Lang: "cil", Content: []byte("(block app (blockinherit container))")},
			{Name: "base_container", Lang: "cil", Content: []byte("(block container (type process))")},
			{Name: "other", Lang: "cil", Content: []byte("(type other_t)")},
		}, nil, nil, func(has func(string) bool) string {
			switch {
			case has("app") && !has("base_container"):
				return resolve("app")
			case has("base_container"):
				return "Conflicting type rules in container"
			}
			return ""
		}, "app base_container", 6},
		{"two that do not go together: one of them", many(20, nil), nil, nil, func(has func(string) bool) string {
			if has("m03") && has("m04") {
				return "Re-declaration of type x_t\nBad type declaration at /x/tmp/modules/500/m04/cil:1"
			}
			return ""
		}, "m04", 2},
		{"one that is fine alone is named beside a bad one", many(20, nil), nil, nil, func(has func(string) bool) string {
			switch {
			case has("m03") && has("m04"):
				return "neverallow check failed at /x/tmp/modules/100/base/cil:1\n    allow at /x/tmp/modules/500/m04/cil:1"
			case has("m03"):
				return silent
			}
			return ""
		}, "m03", 9},
		{"two, not named", many(20, nil), nil, nil, func(has func(string) bool) string {
			if has("m03") || has("m17") {
				return silent
			}
			return ""
		}, "m03 m17", 13},
		{"the operator's module is named and a declared one is the culprit", []Module{{Name: "bad1", Lang: "cil", Content: []byte("(type badone_t)")}}, map[string]string{"400/helper": "x"}, nil,
			func(has func(string) bool) string {
				if has("bad1") && has("helper") {
					return "neverallow check failed at /x/tmp/modules/100/base/cil:1\n    allow at /x/tmp/modules/400/helper/cil:3"
				} else if has("bad1") {
					return "neverallow check failed at /x/tmp/modules/100/base/cil:1"
				}
				return ""
			}, "bad1", 2},
		{"the same among 20", many(20, nil), map[string]string{"400/helper": "x"}, nil, func(has func(string) bool) string {
			if has("m05") && has("helper") {
				return "neverallow check failed at /x/tmp/modules/100/base/cil:1\n    allow at /x/tmp/modules/400/helper/cil:3"
			} else if has("m05") {
				return "neverallow check failed at /x/tmp/modules/100/base/cil:1"
			}
			return ""
		}, "m05", 9},
		{"the operator's module lacks what the old image had", many(20, nil), map[string]string{"400/hand": "x", "300/fine": "x"}, nil, func(has func(string) bool) string {
			if has("hand") {
				return strings.Replace(resolve("hand"), "500", "400", 1)
			}
			return ""
		}, "hand", 3},
		{"a local file lacks what the old image had", many(4, nil), map[string]string{"400/hand": "x"}, []string{"file_contexts.local"}, func(has func(string) bool) string {
			if has("file_contexts.local") {
				return "libsepol.context_from_record: type legacy_t is not defined"
			}
			return ""
		}, "file_contexts.local", 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{breaks: c.breaks}
			s.parts = append(declaredParts(Declared{Modules: c.modules}), operatorsParts(c.hand, &Record{}, c.local, nil)...)
			found := &search{parts: s.parts, build: s.build}
			for i := range s.parts {
				found.in = append(found.in, i)
			}
			if err := found.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, o := range found.out {
				out = append(out, s.parts[o.part].name)
				if o.reason == "" {
					t.Errorf("no reason for %s", s.parts[o.part].name)
				}
			}
			slices.Sort(out)
			if got := strings.Join(out, " "); got != c.out {
				t.Errorf("left out %q, want %q", got, c.out)
			}
			if len(s.real) == 0 || !slices.Equal(s.real[len(s.real)-1], found.in) {
				t.Errorf("built for good last %v, said to be built %v", s.real, found.in)
			}
			if s.builds > c.builds {
				t.Errorf("%d builds, want %d at most", s.builds, c.builds)
			}
			t.Logf("%d builds", s.builds)
		})
	}
}

// TestSearchCosts counts the builds for one bad module among n that the tools do not name, wherever it is.
func TestSearchCosts(t *testing.T) {
	for n, want := range map[int]int{1: 2, 2: 3, 3: 4, 8: 5, 16: 6, 20: 7, 64: 8} {
		worst, sum := 0, 0
		for bad := range n {
			var modules []Module
			for i := range n {
				modules = append(modules, Module{Name: fmt.Sprintf("m%02d", i), Lang: "cil", Content: fmt.Appendf(nil, "(type m%02d_t)", i)})
			}
			s := &site{parts: declaredParts(Declared{Modules: modules})}
			s.breaks = func(has func(string) bool) string {
				if has(modules[bad].Name) {
					return silent
				}
				return ""
			}
			found := &search{parts: s.parts, build: s.build}
			for i := range s.parts {
				found.in = append(found.in, i)
			}
			if err := found.run(t.Context()); err != nil || len(found.out) != 1 || found.out[0].part != bad {
				t.Fatalf("%d of %d: left out %+v, %v", bad, n, found.out, err)
			}
			worst, sum = max(worst, s.builds), sum+s.builds
		}
		t.Logf("one of %d: %d builds at most, %.1f on average", n, worst, float64(sum)/float64(n))
		if worst > want {
			t.Errorf("one of %d: %d builds, want %d at most", n, worst, want)
		}
	}
}

// TestSearchGivesUp keeps the errors that are no part's fault, and takes nothing out when not even the vendor's policy builds.
func TestSearchGivesUp(t *testing.T) {
	parts := append(declaredParts(Declared{Modules: []Module{{Name: "a", Lang: "cil"}, {Name: "b", Lang: "cil"}}}), operatorsParts(map[string]string{"400/hand": "x"}, &Record{}, nil, nil)...)
	s := &site{parts: parts, breaks: func(func(string) bool) string { return silent }}
	found := &search{parts: parts, build: s.build, in: []int{0, 1, 2}}
	if _, refused, _ := refusal(found.run(t.Context())); !refused || len(s.real) > 0 {
		t.Errorf("built %v", s.real)
	}
	full := &command.ExitError{Code: 1, Output: command.Output{Stderr: "No space left on device"}}
	found = &search{parts: parts, in: []int{0, 1, 2}, build: func(context.Context, []int, bool) error { return full }}
	if err := found.run(t.Context()); !errors.Is(err, full) || len(found.out) > 0 {
		t.Errorf("%v, left out %v", err, found.out)
	}
}

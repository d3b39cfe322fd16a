package policystore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// search finds the parts that the policy does not build with. A build costs seconds however many parts it has, is all or nothing and
// names one culprit at most, so it asks for few:
//
//   - 2 if the messages name the one that is wrong, or have words in them that only it has: with all, and without it;
//   - else 2 more than it takes to halve the parts down to one: at most 7 among 20, at most 8 among 64.
//
// Each further culprit costs as much again, less the first. What was left out without proof is tried again at the end, at the cost of
// one build more, so that a part that is fine by itself does not stay out because of a bad one beside it.
type search struct {
	parts []part
	// build builds the policy with the parts. For good is the build that counts; else it leaves no trace on the host.
	build func(ctx context.Context, in []int, forGood bool) error

	in      []int // the parts that are not left out
	out     []leftOut
	noDoubt bool // the fault is among the declared parts: without any of them it builds

	vendorBuilds bool               // the vendor's own policy builds
	known        map[string]verdict // what was refused
	refused      error              // how the last build was
}

// shadowed is what is wrong with a file context of which the policy has another one.
const shadowed = "the policy has another context for the same path, and that one counts: declare a longer path"

// leftOut is a part without which the rest builds.
type leftOut struct {
	part, line int
	reason     string
	sure       bool
}

// run builds for good with as many parts as it can.
func (s *search) run(ctx context.Context) error {
	for {
		v, refused, err := s.attempt(ctx, s.in)
		switch {
		case err != nil:
			return err
		case !refused:
			return s.retry(ctx)
		case len(s.in) == 0:
			return s.refused
		}
		if v.part >= 0 && (v.sure && s.parts[v.part].origin == declared || s.parts[v.part].origin == onShelf) {
			s.leave(v.part, v)
			continue
		}
		built, err := s.isolate(ctx, v)
		if err != nil {
			return err
		}
		if built {
			return s.retry(ctx)
		}
	}
}

// isolate leaves out a part when the messages alone do not prove that it is the one. It tells whether the rest was built for good
// with that.
func (s *search) isolate(ctx context.Context, v verdict) (built bool, err error) {
	ours := s.of(declared)
	theirs := slices.DeleteFunc(slices.Clone(s.in), func(i int) bool { return slices.Contains(ours, i) })
	if named := v.part >= 0 && s.parts[v.part].origin != declared; len(ours) > 1 && named && !s.noDoubt {
		// The operator's part built until now. It goes only if it does not build without what is declared either.
		verdict, refused, err := s.try(ctx, theirs)
		if err != nil {
			return false, err
		}
		if refused {
			return s.amongTheirs(ctx, theirs, verdict)
		}
		s.noDoubt = true
	}
	if len(ours) == 0 {
		return s.amongTheirs(ctx, theirs, v)
	}
	order := s.order(ours, v)
	if likely := order[len(order)-1]; len(order) > 2 && (likely == v.part || slices.Contains(v.suspects, likely)) {
		rest := s.without(likely)
		verdict, refused, err := s.attempt(ctx, rest)
		if err != nil || !refused {
			if !refused && err == nil {
				s.leaveAll(rest, likely, v)
			}
			return !refused, err
		}
		if verdict.part >= 0 && verdict.sure && verdict.part != likely && s.parts[verdict.part].origin == declared {
			s.leave(verdict.part, verdict) // another one, which is proved: the likely one is looked at again without it
			return false, nil
		}
	}
	return s.halve(ctx, theirs, order, v)
}

// amongTheirs leaves out a part of the operator's: not even without anything that is declared does the policy build.
func (s *search) amongTheirs(ctx context.Context, theirs []int, v verdict) (built bool, err error) {
	if v.part >= 0 && v.sure {
		s.leave(v.part, v)
		return false, nil
	}
	if !s.vendorBuilds {
		if _, refused, err := s.try(ctx, nil); err != nil || refused {
			return false, cmp.Or(err, s.refused)
		}
		s.vendorBuilds = true
	}
	return s.halve(ctx, nil, s.order(theirs, v), v)
}

// halve finds the first part in the order with which the policy does not build any more, on top of the fixed parts, and leaves it out.
func (s *search) halve(ctx context.Context, fixed, order []int, v verdict) (built bool, err error) {
	good, bad := 0, len(order) // so many build, or are taken to, so many do not
	for bad-good > 1 {
		if last := order[bad-1]; bad-good == 2 && bad == len(order) {
			rest := s.without(last)
			verdict, refused, err := s.attempt(ctx, rest)
			if err != nil {
				return false, err
			}
			if !refused {
				s.leaveAll(rest, last, v)
				return true, nil
			}
			bad, v = good+1, verdict
			continue
		}
		middle := (good + bad) / 2
		verdict, refused, err := s.try(ctx, append(slices.Clone(fixed), order[:middle]...))
		if err != nil {
			return false, err
		}
		if refused {
			bad, v = middle, verdict
		} else {
			good, s.noDoubt = middle, true
		}
	}
	if bad == 1 && len(fixed) > 0 && len(order) > 1 && !s.noDoubt {
		verdict, refused, err := s.try(ctx, fixed)
		if err != nil {
			return false, err
		}
		if refused {
			return s.amongTheirs(ctx, fixed, verdict)
		}
		s.noDoubt = true
	}
	s.leave(order[bad-1], v)
	return false, nil
}

// retry builds once more with what was left out without proof, if what it contradicted may have been left out meanwhile.
func (s *search) retry(ctx context.Context) error {
	var doubtful []int
	for n, o := range s.out {
		if s.parts[o.part].origin == declared && (!o.sure && n < len(s.out)-1 || s.needsLeftOut(o.part)) {
			doubtful = append(doubtful, n)
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	again := func(which []int) (bool, error) {
		in := slices.Clone(s.in)
		for _, n := range which {
			in = append(in, s.out[n].part)
		}
		slices.Sort(in)
		_, refused, err := s.attempt(ctx, in)
		if err != nil || refused {
			return false, err
		}
		s.in = in
		for _, n := range slices.Backward(which) {
			s.out = slices.Delete(s.out, n, n+1)
		}
		return true, nil
	}
	if back, err := again(doubtful); back || err != nil || len(doubtful) == 1 {
		return err
	}
	for _, n := range slices.Backward(doubtful) {
		if _, err := again([]int{n}); err != nil {
			return err
		}
	}
	return nil
}

// needsLeftOut reports whether the part uses a name that another part declares which is left out without proof.
func (s *search) needsLeftOut(part int) bool {
	for _, o := range s.out {
		if o.part != part && !o.sure && s.needs(part, o.part) {
			return true
		}
	}
	return false
}

// attempt builds for good, try does not.
func (s *search) attempt(ctx context.Context, in []int) (verdict, bool, error) {
	return s.ask(ctx, in, true)
}

func (s *search) try(ctx context.Context, in []int) (verdict, bool, error) {
	return s.ask(ctx, in, false)
}

// ask builds, unless it is known already that these parts are refused.
func (s *search) ask(ctx context.Context, in []int, forGood bool) (v verdict, refused bool, err error) {
	in = slices.Sorted(slices.Values(in))
	key := fmt.Sprint(in)
	if v, refused = s.known[key]; refused {
		return v, true, nil
	}
	said, refused, err := refusal(s.build(ctx, in, forGood))
	if !refused {
		return verdict{part: -1}, false, err
	}
	if s.known == nil {
		s.known = map[string]verdict{}
	}
	s.known[key], s.refused = judge(said, s.parts, in), err
	return s.known[key], true, nil
}

func (s *search) of(o origin) []int {
	var some []int
	for _, i := range s.in {
		if s.parts[i].origin == o {
			some = append(some, i)
		}
	}
	return some
}

// order puts what another part needs before that one, and at the end those that are likely to be the culprit.
func (s *search) order(some []int, v verdict) []int {
	likely := slices.Clone(v.suspects)
	if v.part >= 0 && !slices.Contains(likely, v.part) {
		likely = append(likely, v.part)
	}
	rank := func(i int) int { return slices.Index(likely, i) } // -1: not likely
	sorted := slices.Clone(some)
	slices.SortStableFunc(sorted, func(a, b int) int { return rank(a) - rank(b) })
	var order []int
	placed := map[int]bool{}
	var place func(i int)
	place = func(i int) {
		if placed[i] {
			return
		}
		placed[i] = true
		for _, j := range sorted {
			if s.needs(i, j) {
				place(j)
			}
		}
		order = append(order, i)
	}
	for _, i := range sorted {
		place(i)
	}
	return order
}

// without gives the parts without one and without those that need it.
func (s *search) without(gone int) []int {
	out := map[int]bool{gone: true}
	for changed := true; changed; {
		changed = false
		for _, i := range s.in {
			if !out[i] && s.parts[i].origin == declared && slices.ContainsFunc(s.in, func(j int) bool { return out[j] && s.needs(i, j) }) {
				out[i], changed = true, true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(s.in), func(i int) bool { return out[i] })
}

// leaveAll leaves out a part and those that are not in rest because they need it.
func (s *search) leaveAll(rest []int, culprit int, v verdict) {
	for _, i := range slices.Clone(s.in) {
		if !slices.Contains(rest, i) && i != culprit {
			s.leave(i, verdict{reason: "it needs " + s.parts[culprit].kind + " " + s.parts[culprit].name + ", which was left out"})
		}
	}
	s.leave(culprit, v)
}

// leave leaves out a part; with a file context all others of the same context: what one is wrong about all are.
func (s *search) leave(culprit int, v verdict) {
	line := 0
	if v.part == culprit {
		line = v.line
	}
	c := s.parts[culprit]
	for _, i := range slices.Clone(s.in) {
		p := s.parts[i]
		reason := v.reason
		if c.kind == fileContext && strings.Contains(reason, "Problems processing filecon rules") {
			reason = shadowed // libsepol 3.8 refuses it, 3.4 lets one of the two win
		}
		if i == culprit || c.kind == fileContext && p.kind == fileContext && p.context == c.context && unresolvable().MatchString(v.reason) {
			s.in = slices.DeleteFunc(slices.Clone(s.in), func(j int) bool { return j == i })
			s.out = append(s.out, leftOut{i, line, reason, v.sure && v.part == culprit})
		}
	}
}

// needs reports whether the part a uses a name that the part b declares and a does not.
func (s *search) needs(a, b int) bool {
	return a != b && slices.ContainsFunc(s.parts[b].declared, func(name string) bool {
		return s.parts[a].used[name] && !slices.Contains(s.parts[a].declared, name)
	})
}

package filecontexts

import (
	"regexp/syntax"
	"slices"
	"sort"
	"strings"
)

// Inside is what file contexts say of all that is in one directory, at a depth that the literal beginning of no entry reaches. To look up a name
// takes the time of that name, where Find takes that of the whole path. It never changes.
type Inside struct {
	open []reached // the last first; none behind one that fits everything
}

// reached is an entry that fits what is in a directory, or may fit it.
type reached struct {
	entry *entry
	expr  *program // nil: it fits everything
	at    []uint32 // the instructions of expr to which the directory's path leads, with a slash behind it
}

// Inside gives what Find says of all that is in a directory, whose path is absolute and clean; nil if that depends on more than expressions, for the
// path is no longer than the longest text in the file contexts.
func (c *Contexts) Inside(dir string) *Inside {
	for _, subs := range [][]substitution{c.subs, c.dist, nil} {
		if len(dir) <= c.longest { // then a substitution, or a literal, may be for what is in it alone
			return nil
		}
		dir = substituteOnce(subs, dir)
	}
	dir += "/"
	in := &Inside{}
	nodes, n := c.trail(dir)
	for _, entries := range nodes[:n] {
		for i := range entries {
			e := &entries[i]
			behind, found := strings.CutPrefix(dir, e.prefix)
			if !found || e.rest != other && e.rest != rest && behind[0] != '/' {
				continue
			}
			r := reached{entry: e}
			if e.rest == other {
				if r.expr = c.program(e); r.expr == nil {
					return nil
				}
				r.at = []uint32{uint32(r.expr.prog.Start)}
				if r = r.follow(-1, dir); r.dead() {
					continue
				}
			}
			in.open = append(in.open, r)
		}
	}
	sort.Slice(in.open, func(i, j int) bool { return in.open[i].entry.number > in.open[j].entry.number })
	in.cut()
	return in
}

// cut takes away what is never asked.
func (in *Inside) cut() {
	for i := range in.open {
		if r := &in.open[i]; r.expr == nil && r.entry.kind == Any {
			in.open = in.open[:i+1]
			return
		}
	}
}

// Find gives the entry that decides about a name in the directory, and whether there is one.
func (in *Inside) Find(name string, kind Kind) (Match, bool) {
	for i := range in.open {
		r := &in.open[i]
		if (r.entry.kind == Any || kind == Any || r.entry.kind == kind) && r.fits(name) {
			return r.entry.match(), true
		}
	}
	return Match{}, false
}

// Enter gives what is said of all that is in a directory of the directory.
func (in *Inside) Enter(name string) *Inside {
	next := &Inside{open: make([]reached, 0, len(in.open))}
	same := true
	for i := range in.open {
		r := in.open[i]
		if r.expr != nil {
			r = r.follow('/', name+"/")
			same = same && r.expr == in.open[i].expr && slices.Equal(r.at, in.open[i].at)
		}
		if !r.dead() {
			next.open = append(next.open, r)
		}
	}
	if same { // so that a deep tree takes no memory
		return in
	}
	next.cut()
	return next
}

// program is an expression that can be matched one character after the other.
type program struct {
	prog     *syntax.Prog
	anchored bool // it begins where the text begins
}

// program gives that of an entry, nil if there is none, which package regexp would have said before.
func (c *Contexts) program(e *entry) *program {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.programs[e]; p != nil {
		return p
	}
	tree, err := syntax.Parse(e.expr.String(), syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil
	}
	p := &program{prog, prog.StartCond()&syntax.EmptyBeginText != 0}
	c.programs[e] = p
	return p
}

// dead tells that an entry fits nothing in the directory.
func (r *reached) dead() bool { return r.expr != nil && r.expr.anchored && len(r.at) == 0 }

// follow gives what is reached by some text behind what was there, the last character of which was before, -1 for none.
func (r reached) follow(before rune, text string) reached {
	f := r.follower(before)
	for i := range len(text) {
		if f.feed(rune(text[i])) { // whatever comes behind it
			return reached{entry: r.entry}
		}
	}
	r.at = nil
	for at, step := range f.taken { // in this order, so that the same is equal
		if step == f.step {
			r.at = append(r.at, uint32(at))
		}
	}
	return r
}

// fits tells whether the entry fits a name in the directory.
func (r *reached) fits(name string) bool {
	if r.expr == nil {
		return true
	}
	f := r.follower('/')
	for i := range len(name) {
		if f.feed(rune(name[i])) {
			return true
		}
	}
	return f.feed(-1)
}

func (r *reached) follower(before rune) *follower {
	n := len(r.expr.prog.Inst)
	marks := make([]int, 2*n)
	return &follower{expr: r.expr, before: before, at: append([]uint32(nil), r.at...), seen: marks[:n], taken: marks[n:]}
}

// follower goes all ways through a program at once (https://swtch.com/~rsc/regexp/regexp1.html). Package regexp does the same and has no call to
// go on with.
type follower struct {
	expr           *program
	before         rune
	at, todo, next []uint32
	step           int   // the character's number
	seen, taken    []int // by instruction: the last step in which it was looked at, and in which it was gone on to
}

// feed takes one character, -1 for the end of the text, and tells whether the text before it matches.
func (f *follower) feed(char rune) bool {
	holds := syntax.EmptyOpContext(f.before, char)
	f.step++
	f.todo = append(f.todo[:0], f.at...)
	if !f.expr.anchored {
		f.todo = append(f.todo, uint32(f.expr.prog.Start))
	}
	f.next = f.next[:0]
	for len(f.todo) > 0 {
		at := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		if f.seen[at] == f.step {
			continue
		}
		f.seen[at] = f.step
		switch inst := &f.expr.prog.Inst[at]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			f.todo = append(f.todo, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			f.todo = append(f.todo, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^holds == 0 {
				f.todo = append(f.todo, inst.Out)
			}
		case syntax.InstMatch:
			return true
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if char >= 0 && inst.MatchRune(char) && f.taken[inst.Out] != f.step {
				f.taken[inst.Out] = f.step
				f.next = append(f.next, inst.Out)
			}
		}
	}
	f.before, f.at, f.next = char, f.next, f.at
	return false
}
